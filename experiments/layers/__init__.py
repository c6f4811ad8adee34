"""Experiments: stacks of layers."""
