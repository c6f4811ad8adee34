"""The version, where setuptools reads it without importing anything."""

__version__ = "0.4.0"
