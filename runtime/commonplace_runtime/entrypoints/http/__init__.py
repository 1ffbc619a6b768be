"""The HTTP surface: `app.py` composes it, one file per family of routes."""
