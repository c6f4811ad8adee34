"""Data: images and their features, tables of your own, states of language models, from files that are verified."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsae_book.data.features import PixelFeatures, ScatteringFeatures
    from gsae_book.data.images import Images, load_images
    from gsae_book.data.states import load_language_model, open_states, write_states
    from gsae_book.data.tables import Table, open_table, read_table

_ROOMS = {
    "features": ("PixelFeatures", "ScatteringFeatures"),
    "images": ("Images", "load_images"),
    "states": ("load_language_model", "open_states", "write_states"),
    "tables": ("Table", "open_table", "read_table"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"gsae_book.data.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"gsae_book.data.{name}: there is no such name")
