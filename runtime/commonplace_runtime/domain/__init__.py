"""PURE: what the product knows without I/O. No clock, no randomness, no environment."""
