"""The numbers of a table, put into one array, and what is done about missing ones."""

import dataclasses
import math
import os
import re
import tempfile
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from gsae_book.data._delimited import MISSING, THOUSANDS, cut
from gsae_book.data._table_columns import BOOLEANS, Plan
from gsae_book.data._table_files import (
    Reading,
    Refusal,
    Source,
    listed,
    row_blocks,
)
from gsae_lib import _checks

if TYPE_CHECKING:
    import pandas as pd

COMMA = re.compile(r"[+-]?\d*,\d+")  # a number with a decimal comma
MAX_BYTES = 2 * 10**9  # of the numbers as float32, in memory


def unnamed(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """A memory map of a file without a name, of that shape; OSError if the disk is too small."""
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that is full would end the process
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Collected:
    """Numbers, (rows, features), NaN where there is none, names of the rows, and labels."""

    values: np.ndarray
    index: np.ndarray | None
    labels: np.ndarray | None


def collect(
    source: Source, names: Sequence[str], plan: Plan, first: "pd.DataFrame | np.ndarray", *, on_disk: bool
) -> Collected:
    """The features, index and labels of a file, in memory or in a map of a file without a name.

    They are float64, and float32 if the file's are, or if they would take more than 2 GB.
    """
    shape = (source.n_rows, len(plan.features))
    single = _is_single(first, plan.features) or (math.prod(shape) * 8 > MAX_BYTES and not on_disk)
    dtype = np.dtype(np.float32 if single else np.float64)
    values = unnamed(shape, dtype) if on_disk else np.empty(shape, dtype)
    kept: dict[int, list[np.ndarray]] = {k: [] for k in (plan.label, plan.index) if k is not None}
    start = 0
    whole = not kept and len(first) == source.n_rows  # which is read once
    for block in [first] if whole else source.blocks(tuple(kept)):
        rows = slice(start, start + len(block))
        if isinstance(block, np.ndarray):
            values[rows] = block[:, plan.features]
        else:
            _put_numbers(values[rows], block, plan.features, names, start, commas=source.commas)
        for k, parts in kept.items():
            parts.append(_texts(block[:, k] if isinstance(block, np.ndarray) else block.iloc[:, k]))
        start += len(block)
    found = {k: np.concatenate(parts) for k, parts in kept.items()}
    if not start:
        raise Refusal("it has no rows")
    labels = source.labels if plan.label is None else found[plan.label]
    return Collected(values[:start], source.index if plan.index is None else found[plan.index], labels)


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
            if all(str(cell).lower() in BOOLEANS for cell in texts.dropna()):
                texts = texts.map(lambda cell: BOOLEANS.get(str(cell).lower(), cell))
            numbers = pd.to_numeric(texts.where(~texts.isin(MISSING), None), errors="coerce")
            bad = np.flatnonzero(numbers.isna() & texts.notna() & ~texts.isin(MISSING))
            if len(bad):
                told = _tell_bad(str(texts.iloc[bad[0]]), names[k], commas)
                raise Refusal(f"row {start + bad[0]}, column {names[k]!r}: {told}")
            cells = numbers
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
    texts = ["" if missing else str(cell) for cell, missing in zip(cells, cells.isna(), strict=True)]
    return np.array(texts, dtype=object)


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
    from sklearn.impute import SimpleImputer

    fill = np.zeros(len(columns))
    largest = float(np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).max)
    for k, name in enumerate(columns):
        if count[k] == len(values) and settings.fill is None:
            raise Refusal(f"the column {name!r} is empty: it has no median to fill in")
        if settings.fill is not None:
            value = settings.fill.get(name)
            if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) <= largest:
                raise Refusal(f"fill: expected a finite number for the column {name!r}, got {cut(repr(value))}")
            fill[k] = value
            if count[k]:
                values[~np.isfinite(values[:, k]), k] = fill[k]
            continue
        cells = np.array(values[:, k], dtype=np.float64)
        cells[~np.isfinite(cells)] = np.nan
        imputer = SimpleImputer(strategy="median")
        filled = imputer.fit_transform(cells[:, None])
        fill[k] = imputer.statistics_[0]
        if count[k]:
            values[:, k] = filled[:, 0]
    return fill


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A copy of some columns, on the disk if the values are."""
    shape = (len(values), int(columns.sum()))
    dtype = np.dtype(np.float32 if values.dtype == np.float32 else np.float64)
    found = unnamed(shape, dtype) if _checks.on_disk(values) else np.empty(shape, dtype)
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
