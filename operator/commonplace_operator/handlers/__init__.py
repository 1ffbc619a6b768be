"""kopf and nothing else: a watched change becomes a key in the queue."""
