"""Models: `ports.py` says what a generator is, one file per provider does it."""
