"""Experiments: how fast and where gradient descent comes to rest."""
