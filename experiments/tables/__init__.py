"""Experiments: small tables with labels, and choices without them."""
