"""Experiments: simulated signals, and clusters of them."""
