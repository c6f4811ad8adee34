"""What a page lets its reader touch, without a kernel and without the network: data here, drawing in explorers.js.

An explorer is the last value of a cell. The numbers come from the library as the notebook runs; only the group ReLU of
the plane is computed in the browser, by the same formula, and a test compares the two. Figures stand beside explorers
and say the same in print.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from gsae_book.runs.recording import to_json

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Explorer:
    """kind: a function of explorers.js; title: what it is, for those who hear the page; data: what it draws."""

    kind: str
    title: str
    data: Mapping[str, Any]

    def _repr_html_(self) -> str:
        """The element, its style and its script; the same ones may stand in a page many times."""
        style, script = ((HERE / f"explorers.{kind}").read_text(encoding="utf8") for kind in ("css", "js"))
        content = to_json(dict(self.data)).replace("</", "<\\/")
        return (
            f'<style>{style}</style><div class="gsae-explorer" role="group" data-kind="{self.kind}" '
            f'aria-label="{html.escape(self.title)}">'
            f'<script type="application/json">{content}</script></div><script>{script}</script>'
        )

    def __repr__(self) -> str:
        return f"{self.title} (to be touched in a browser)"


def shrinkage(threshold: float) -> Explorer:
    """A point of the plane that can be dragged: what the group ReLU makes of it, and what the soft threshold does."""
    reach = float(np.ceil(2 * threshold + 1))
    data = {"point": [1.5 * threshold, 0.5 * threshold], "threshold": threshold, "reach": reach}
    return Explorer("plane", "Drag a group of two numbers", data | {"ticks": _ticks(-reach, reach)})


def curves(
    x: Sequence[float],
    values: Mapping[str, np.ndarray],
    settings: Mapping[str, Sequence[str]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    at: float,
    dots: Sequence[str] = (),
) -> Explorer:
    """Curves for every choice of the settings, and a line that reads them off.

    x (points,). values: by name, (options of the first setting, of the second, ..., points), shares from 0 to 1.
    settings: names and their options as text. at: where the line stands first. dots: names drawn as dots.

    Raises: ValueError for values of another shape.
    """
    x = np.asarray(x, dtype=float)
    shape = (*map(len, settings.values()), len(x))
    for name, value in values.items():
        if np.shape(value) != shape:
            raise ValueError(f"values[{name!r}]: expected {shape}, got {np.shape(value)}")
    found = [
        {"name": name, "values": np.round(np.asarray(value, dtype=float), 4).tolist(), "dots": name in dots}
        for name, value in values.items()
    ]
    data = {
        "x": {"label": xlabel, "short": xlabel, "values": x.tolist(), **_axis(x.min(), x.max())},
        "y": {"label": ylabel, "range": [-0.03, 1.03], "ticks": [0, 0.5, 1]},
        "settings": [{"name": name, "options": list(options), "start": 0} for name, options in settings.items()],
        "curves": found,
        "at": int(np.abs(x - at).argmin()),
    }
    return Explorer("curves", title, data)


def frames(
    points: Sequence[np.ndarray],
    names: Sequence[str],
    notes: Sequence[str],
    *,
    title: str,
    name: str,
    kinds: Sequence[str],
    xlabel: str,
    ylabel: str,
    pause: int = 400,
) -> Explorer:
    """Pictures of dots, one after the other.

    points: of each picture (dots, 3): x, y, and the place of its kind among `kinds`. names, notes: of each picture, for
    its slider called `name`, and as the text below. pause: between two pictures as they play, milliseconds.

    Raises: ValueError where a picture has no name or note.
    """
    if not len(points) == len(names) == len(notes):
        raise ValueError(f"points: expected as many pictures as names and notes, {len(names)} and {len(notes)}")
    every = np.concatenate(points)
    low, high = every[:, :2].min(axis=0), every[:, :2].max(axis=0)
    shown = [
        {"name": one, "note": note, "points": [[round(x, 3), round(y, 3), int(kind)] for x, y, kind in dots.tolist()]}
        for dots, one, note in zip(points, names, notes, strict=True)
    ]
    data = {
        "x": {"label": xlabel, **_axis(low[0], high[0])},
        "y": {"label": ylabel, **_axis(low[1], high[1])},
        "name": name,
        "kinds": list(kinds),
        "frames": shown,
        "pause": pause,
    }
    return Explorer("frames", title, data)


def _axis(low: float, high: float) -> dict[str, Any]:
    """The range, a little wider than the data, and ticks."""
    room = 0.03 * (high - low) or 1.0
    return {"range": [float(low - room), float(high + room)], "ticks": _ticks(low, high)}


def _ticks(low: float, high: float) -> list[float]:
    found = MaxNLocator(6).tick_values(low, high)
    return [round(float(tick), 10) for tick in found if low - 1e-9 <= tick <= high + 1e-9]
