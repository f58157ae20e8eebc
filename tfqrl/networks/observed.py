"""Networks from observations, of either kind, and what evaluates them on the host."""
