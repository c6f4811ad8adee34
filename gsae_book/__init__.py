"""What makes the book: typed parameters, executed notebooks, recorded measurements, pages, figures, the command."""

from gsae_book.runs.recording import record

__all__ = ["record"]
