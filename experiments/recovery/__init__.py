"""Experiments: dictionaries and supports that networks and solvers recover."""
