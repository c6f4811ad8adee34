"""Experiments: sums of real things, and what is in them."""
