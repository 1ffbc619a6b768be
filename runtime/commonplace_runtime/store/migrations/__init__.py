"""Numbered forward-only SQL files; `store/migrate.py` runs them."""
