"""Experiments: images of digits, learned and clustered."""
