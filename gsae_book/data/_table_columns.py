"""Which columns of a table are features, labels, names of the samples, or left out."""

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gsae_book.data._delimited import cut
from gsae_book.data._table_files import (
    MAX_NAMED,
    Reading,
    Refusal,
    Source,
    listed,
)

if TYPE_CHECKING:
    import pandas as pd

INDEX_NAMES = ("id", "index", "row", "rowname", "rownames", "row_names", "unnamed: 0")
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}.*)?")
BOOLEANS = {"true": 1.0, "false": 0.0}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which columns are what, by place: features in their order, and the others' places, or None."""

    features: list[int]
    label: int | None
    index: int | None
    notes: list[str]


def told_apart(source: Source) -> tuple[str, ...]:
    """Names of all columns, none of them twice: a, a.1, a.2; their places where nothing names them."""
    names = [name or f"unnamed {k}" for k, name in enumerate(source.names)] or list(map(str, range(source.n_columns)))
    seen: Counter[str] = Counter()
    taken, found = set(names), []
    for name in names:
        new = name
        while seen[name] and new in taken:
            new = f"{name}.{seen[name]}"
            seen[name] += 1
        seen[name] += 1
        taken.add(new)
        found.append(new)
    return tuple(found)


def _place(places: Mapping[str, int], parameter: str, wanted: str | int) -> int:
    """The place of a column that is named, or counted from 0."""
    if isinstance(wanted, int) and not isinstance(wanted, bool) and -len(places) <= wanted < len(places):
        return wanted % len(places)
    if isinstance(wanted, str) and wanted in places:
        return places[wanted]
    close = difflib.get_close_matches(str(wanted), places, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are {listed(places)}"
    raise Refusal(f"{parameter}={wanted!r}: there is no such column{hint}")


def plan_columns(source: Source, names: tuple[str, ...], first: "pd.DataFrame | np.ndarray", settings: Reading) -> Plan:
    """What each column is, from the first rows."""
    notes: list[str] = []
    given, places = source.names or names, {name: k for k, name in enumerate(names)}
    twice = {name for name, count in Counter(name for name in given if name).items() if count > 1}
    if twice:
        renamed = [new for new, old in zip(names, given, strict=True) if old in twice]
        notes.append(f"names that stand twice are told apart: {listed(renamed)}")
    label = None
    if settings.label is not None and source.labels is None:
        label = _place(places, "label", settings.label)
    dropped = {_place(places, "drop", name) for name in settings.drop}
    chosen = None if settings.columns is None else [_place(places, "columns", name) for name in settings.columns]
    if chosen is not None and (len(set(chosen)) < len(chosen) or not chosen):
        raise Refusal(f"columns={list(settings.columns or ())}: expected at least one column, and each once")
    kinds: dict[int, str] = {}
    if not isinstance(first, np.ndarray):
        plain = (~first.isna().all()).to_numpy() & np.array([kind.kind in "iuf" for kind in first.dtypes])
        kinds = {k: "numbers" if plain[k] else _kind(first.iloc[:, k]) for k in range(source.n_columns)}
    index = _find_index(source, places, first, kinds, settings)
    if index is not None and (index == label or index in dropped or index in (chosen or ())):
        index = None
    if index is not None:
        notes.append(f"the names of the rows stand in the column {names[index]!r}; index='' makes it one like others")
    elif source.index is None and len(first) >= 10 and _is_count(first, 0) and 0 not in dropped | {label}:
        notes.append(f"caution: the column {names[0]!r} counts the rows; drop=[{names[0]!r}] leaves it out")
    unnamed = [k for k, name in enumerate(source.names) if not name and k != index and kinds.get(k) != "empty"]
    if unnamed:
        notes.append(f"columns without a name have that of their place, from 0: {listed(names[k] for k in unnamed)}")
    apart = {label, index} | dropped
    features = [k for k in (range(source.n_columns) if chosen is None else chosen) if k not in apart]
    if chosen is None and not settings.strict:
        for kind, told in (("text", "text"), ("dates", "dates")):
            found = [k for k in features if kinds.get(k) == kind]
            if found:
                features = [k for k in features if kinds.get(k) != kind]
                shown = ", ".join(f"{cut(names[k])!r} ({_examples(first, k)})" for k in found[:MAX_NAMED])
                shown += f" and {len(found) - MAX_NAMED:,} more" if len(found) > MAX_NAMED else ""
                notes.append(f"left out, since they hold {told}: {shown}; label= takes one of them for the score")
    booleans = [names[k] for k in features if kinds.get(k) == "booleans"]
    if booleans:
        notes.append(f"true is 1, and false 0: {listed(booleans)}")
    if dropped:
        notes.append(f"left out by drop: {listed(names[k] for k in sorted(dropped))}")
    if label is not None:
        notes.append(f"the label is the column {names[label]!r}")
    if not features:
        raise Refusal(f"no column of numbers is left of {listed(names)}")
    return Plan(features, label, index, notes)


def _kind(cells: "pd.Series[Any]") -> str:
    """What a column holds: "numbers", "booleans", "dates", "text", "empty", or "mixed", which is refused."""
    import pandas as pd

    cells = cells.dropna()
    if not len(cells):
        return "empty"
    if pd.api.types.is_bool_dtype(cells.dtype):
        return "booleans"
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return "mixed" if pd.api.types.is_complex_dtype(cells.dtype) else "numbers"
    if pd.api.types.is_datetime64_any_dtype(cells.dtype) or cells.dtype.kind == "m":
        return "dates"
    if any(str(cell).lower() not in BOOLEANS for cell in cells[:20]):
        booleans = False
    else:
        booleans = bool(cells.map(lambda cell: str(cell).lower() in BOOLEANS).all())
    if booleans:
        return "booleans"
    numbers = pd.to_numeric(cells.astype(object), errors="coerce").notna()
    if numbers.any():
        return "numbers" if numbers.all() else "mixed"
    texts = [str(cell).strip() for cell in cells]
    if all(hasattr(cell, "isoformat") for cell in cells) or all(map(DATE.fullmatch, texts)):
        return "dates"
    if not all(isinstance(cell, str) for cell in cells) or any(re.match(r"[-+$€£(]?\s*\d", text) for text in texts):
        return "mixed"
    return "text"


def _find_index(
    source: Source,
    places: Mapping[str, int],
    first: "pd.DataFrame | np.ndarray",
    kinds: Mapping[int, str],
    settings: Reading,
) -> int | None:
    """The place of the column that names the samples."""
    if settings.index is not None:
        return None if settings.index == "" else _place(places, "index", settings.index)
    if source.index is not None or isinstance(first, np.ndarray) or source.n_columns < 2 or settings.strict:
        return None
    cells = first.iloc[:, 0]
    if cells.isna().any() or not _is_unique(cells):
        return None
    name = source.names[0].strip().lower() if source.names else None
    whole = kinds[0] == "numbers" and bool((cells.astype(float) % 1 == 0).all())
    if name == "":
        return 0 if whole or kinds[0] != "numbers" else None
    if kinds[0] in ("text", "dates") and len(cells) > 1:
        return 0
    return 0 if name in INDEX_NAMES and (whole or kinds[0] == "mixed") else None


def _is_unique(cells: "pd.Series[Any]") -> bool:
    """Whether no cell stands twice; lists, which cannot name a row, say no."""
    try:
        return cells.is_unique
    except TypeError:
        return False


def _is_count(first: "pd.DataFrame | np.ndarray", column: int) -> bool:
    """Whether a column counts the rows, from 0 or 1."""
    cells = np.asarray(first[:, column] if isinstance(first, np.ndarray) else first.iloc[:, column])
    if cells.dtype.kind not in "iuf" or cells[0] not in (0, 1):
        return False
    return bool((np.diff(cells.astype(np.float64)) == 1).all())


def _examples(first: "pd.DataFrame | np.ndarray", column: int) -> str:
    """The first values of a column that differ."""
    cells = first[:, column] if isinstance(first, np.ndarray) else first.iloc[:, column].dropna().unique()
    return ", ".join(cut(cell) for cell in cells[:2]) + ", ..." * (len(cells) > 2)
