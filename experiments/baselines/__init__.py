"""Experiments: clustering beside the methods that others use."""
