"""Experiments: dictionaries from data alone."""
