"""The runs behind the book: typed parameters, recorded measurements, executed notebooks, built pages."""

from gsae_lib.runs.recording import record

__all__ = ["record"]
