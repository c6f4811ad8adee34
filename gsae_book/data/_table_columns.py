"""Which columns of a table are numbers, labels, names of the samples or left out; and their cells in one array."""

import dataclasses
import difflib
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from gsae_book.data._table_files import (
    MAX_BYTES,
    MISSING,
    THOUSANDS,
    Reading,
    Refusal,
    Source,
    cut,
    listed,
    row_blocks,
)
from gsae_lib._checks import on_disk

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED = 5  # columns that are left out, whose cells a note shows
INDEX_NAMES = ("id", "index", "row", "rowname", "rownames", "row_names", "unnamed: 0")
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}.*)?")
COMMA = re.compile(r"[+-]?\d*,\d+")  # a number with a decimal comma
BOOLEANS = {"true": 1.0, "false": 0.0}


# Columns


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
        for kind in ("text", "dates"):
            found = [k for k in features if kinds.get(k) == kind]
            if found:
                features = [k for k in features if kinds.get(k) != kind]
                shown = ", ".join(f"{cut(names[k])!r} ({_examples(first, k)})" for k in found[:MAX_NAMED])
                shown += f" and {len(found) - MAX_NAMED:,} more" if len(found) > MAX_NAMED else ""
                notes.append(f"left out, since they hold {kind}: {shown}; label= takes one of them for the score")
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
    if _are_booleans(cells):
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


def _are_booleans(cells: "pd.Series[Any]") -> bool:
    return all(str(cell).lower() in BOOLEANS for cell in cells)


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


# Cells


@dataclasses.dataclass(frozen=True, eq=False)
class Collected:
    """Numbers, (rows, features), NaN where there is none, names of the rows, and labels."""

    values: np.ndarray
    index: np.ndarray | None
    labels: np.ndarray | None


def collect(source: Source, names: Sequence[str], plan: Plan, *, in_map: bool) -> Collected:
    """The features, index and labels of a file, in memory or in a map of a file without a name.

    They are float64, and float32 if the file's are, or if they would take more than 2 GB.
    """
    values = None
    kept: dict[int, list[np.ndarray]] = {k: [] for k in (plan.label, plan.index) if k is not None}
    start = 0
    for block in source.blocks():
        if values is None:
            shape = (source.n_rows, len(plan.features))
            single = _is_single(block, plan.features) or (math.prod(shape) * 8 > MAX_BYTES and not in_map)
            values = _new_values(shape, np.dtype(np.float32 if single else np.float64), in_map=in_map)
        rows = slice(start, start + len(block))
        if isinstance(block, np.ndarray):
            values[rows] = block[:, plan.features]
        else:
            _put_numbers(values[rows], block, plan.features, names, start, commas=source.commas)
        if source.texts is None:
            for k, parts in kept.items():
                parts.append(_texts(block[:, k] if isinstance(block, np.ndarray) else block.iloc[:, k]))
        start += len(block)
    if values is None:
        raise Refusal("it has no rows")
    found = {k: source.texts(k) if source.texts else np.concatenate(parts) for k, parts in kept.items()}
    labels = source.labels if plan.label is None else found[plan.label]
    return Collected(values, source.index if plan.index is None else found[plan.index], labels)


def _new_values(shape: tuple[int, ...], dtype: np.dtype[Any], *, in_map: bool) -> np.ndarray:
    """An array, or a memory map of a file without a name; OSError if the disk is too small."""
    if not in_map:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that is full would end the process
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _is_single(first: "pd.DataFrame | np.ndarray", features: Sequence[int]) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == np.float32
    return all(first.dtypes.iloc[k] == np.float32 for k in features)


def _put_numbers(
    values: np.ndarray,
    frame: "pd.DataFrame",
    features: Sequence[int],
    names: Sequence[str],
    start: int,
    *,
    commas: bool,
) -> None:
    """Write the columns of a frame, whose first row is row `start` of the file; a cell that is no number is refused.

    commas: whether those of the file may be decimal marks.
    """
    import pandas as pd

    plain = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind) for kind in frame.dtypes]
    if all(plain[k] for k in features):
        values[:] = frame.iloc[:, list(features)].to_numpy(dtype=values.dtype, na_value=np.nan)
        return
    for slot, k in enumerate(features):
        cells = frame.iloc[:, k]
        if not plain[k]:
            texts = cells.astype(object)
            texts = texts.where(~texts.isin(MISSING), None)
            if _are_booleans(texts.dropna()):
                texts = texts.map(lambda cell: BOOLEANS.get(str(cell).lower(), cell))
            cells = pd.to_numeric(texts, errors="coerce")
            bad = np.flatnonzero(cells.isna() & texts.notna())
            if len(bad):
                told = _tell_bad(str(texts.iloc[bad[0]]), names[k], commas)
                raise Refusal(f"row {start + bad[0]}, column {names[k]!r}: {told}")
        values[:, slot] = cells.to_numpy(dtype=values.dtype, na_value=np.nan)


def _tell_bad(cell: str, name: str, commas: bool) -> str:
    """Why a cell is refused, and what reads it, or the column without it."""
    may_be_decimal = commas and COMMA.fullmatch(cell) is not None
    if THOUSANDS.fullmatch(cell):
        if may_be_decimal:
            told = f"{cell!r} may be {cell.replace(',', '.')} or {cell.replace(',', '')}"
            return f"{told}; decimal=',' says the first, for the second take the commas out"
        return f"{cut(cell)!r} is not a number; take the commas out"
    way = "decimal=',' reads it" if may_be_decimal else f"drop=[{name!r}] leaves the column out"
    return f"{cut(cell)!r} is not a number; {way}"


def _texts(cells: Any) -> np.ndarray:
    """Cells as texts, "" for those that are missing."""
    if isinstance(cells, np.ndarray):
        return cells.astype(str).astype(object)
    return cells.astype(object).map(str, na_action="ignore").where(cells.notna(), "").to_numpy(object)


# Missing cells


@dataclasses.dataclass(frozen=True, eq=False)
class Completed:
    """Numbers without gaps: (samples, features), names of the columns, rows of the file that are kept, and fillings."""

    values: np.ndarray
    columns: tuple[str, ...]
    rows: np.ndarray
    fill: np.ndarray | None
    notes: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class _Counts:
    """Of each column the cells that are missing or infinite, those that are missing, the least and the largest number,
    and whether all are whole; and the first cell that is missing or infinite.
    """

    missing: np.ndarray
    absent: np.ndarray
    least: np.ndarray
    largest: np.ndarray
    whole: np.ndarray
    first: tuple[int, int] | None


def complete(values: np.ndarray, columns: Sequence[str], settings: Reading) -> Completed:
    """The numbers without empty columns, and without missing cells, as `missing` says; changes them in place.

    A map of the user's file is copied first.
    """
    names, notes, rows, fill = np.array(columns, dtype=object), [], np.arange(len(values)), None
    found = _count_missing(values)
    empty = found.absent == len(values)
    if empty.any() and not empty.all() and settings.columns is None and not settings.strict:
        notes.append(f"left out, since they are empty: {listed(names[empty])}")
        values, names = _take(values, ~empty), names[~empty]
        found = _count_missing(values)
    if found.whole.any():
        notes.append(f"whole numbers: {'all' if found.whole.all() else listed(names[found.whole])}")
    constant = found.least == found.largest
    if constant.any():
        notes.append(f"constant, and kept: {listed(names[constant])}")
    if found.first is not None:
        row, column, total = *found.first, found.missing.sum()
        told = f"row {row}, column {names[column]!r} is missing or infinite, as are {total:,} cells in all"
        if settings.missing == "refuse":
            raise Refusal(f"{told}; missing='drop rows' or missing='impute' goes on")
        if not values.flags.writeable:
            values = _take(values, np.ones(len(names), dtype=bool))
        if settings.missing == "drop rows":
            whole = np.concatenate([np.isfinite(values[block]).all(axis=1) for block in row_blocks(values)])
            if not whole.any():
                raise Refusal(f"{told}, and no row is without; missing='impute' goes on")
            values, rows = _keep(values, whole), rows[whole]
            notes.append(f"rows with missing cells are left out, {total:,} cells: {listed(np.flatnonzero(~whole))}")
    if settings.missing == "impute":
        fill = _impute(values, names, found.missing, settings)
        filled = [f"{name} ({count:,})" for name, count in zip(names, found.missing, strict=True) if count]
        source = "the median of their column" if settings.fill is None else "what was given for their column"
        notes += [f"missing cells hold {source}: {listed(filled)}"] if filled else []
    return Completed(values, tuple(names.tolist()), rows, fill, notes)


def _count_missing(values: np.ndarray) -> _Counts:
    shape = values.shape[1]
    missing, absent = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    least, largest, whole = np.full(shape, np.nan), np.full(shape, np.nan), np.ones(shape, dtype=bool)
    first = None
    for rows in row_blocks(values):
        block = np.asarray(values[rows])
        bad = ~np.isfinite(block)
        if bad.any():
            missing += bad.sum(axis=0)
            absent += np.isnan(block).sum(axis=0)
            where = np.argwhere(bad)[0]
            first = first or (rows.start + int(where[0]), int(where[1]))
            block = np.where(bad, np.nan, block)
        whole &= ((block == np.rint(block)) | bad).all(axis=0)
        least = np.fmin(least, np.fmin.reduce(block, axis=0))
        largest = np.fmax(largest, np.fmax.reduce(block, axis=0))
    return _Counts(missing, absent, least, largest, whole, first)


def _impute(values: np.ndarray, columns: np.ndarray, count: np.ndarray, settings: Reading) -> np.ndarray:
    """Fill what is missing, in place, a column at a time; what each column got, or would get."""
    fill = np.zeros(len(columns))
    largest = float(np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).max)
    for k, name in enumerate(columns):
        gaps = ~np.isfinite(values[:, k])
        if settings.fill is not None:
            value = settings.fill.get(name)
            if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) <= largest:
                raise Refusal(f"fill: expected a finite number for the column {name!r}, got {cut(repr(value))}")
            fill[k] = value
        elif gaps.all():
            raise Refusal(f"the column {name!r} is empty: it has no median to fill in")
        else:
            fill[k] = np.median(values[~gaps, k].astype(np.float64))
        if count[k]:
            values[gaps, k] = fill[k]
    return fill


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A copy of some columns, on the disk if the values are."""
    dtype = np.dtype(np.float32 if values.dtype == np.float32 else np.float64)
    found = _new_values((len(values), int(columns.sum())), dtype, in_map=on_disk(values))
    for rows in row_blocks(values):
        found[rows] = values[rows][:, columns]
    return found


def _keep(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Some of the rows, moved to the front."""
    start = 0
    for rows in row_blocks(values):
        block = values[rows][whole[rows]]
        values[start : start + len(block)] = block
        start += len(block)
    return values[:start]
