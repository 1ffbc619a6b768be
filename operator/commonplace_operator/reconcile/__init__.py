"""One level-triggered reconcile per kind: observe, plan, carry out, report."""
