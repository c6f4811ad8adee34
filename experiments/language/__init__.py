"""Experiments: states of a language model, and synthetic features."""
