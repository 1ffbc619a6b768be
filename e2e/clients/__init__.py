"""`make clients`: clients that other people ship, unmodified, against a running Commonplace."""
