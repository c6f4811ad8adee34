"""Tables of your own: text, Excel, Parquet, Feather and NumPy files as arrays of finite numbers.

Nothing is left out, shifted or filled in without a word: what was understood stands in `Table.notes`, and what could be
meant in two ways is refused with the parameter that settles it.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gsae_book.data._table_columns import Collected, collect, complete, plan_columns, told_apart
from gsae_book.data._table_files import MAX_BYTES, Missing, Reading, Refusal, cut, listed, open_source
from gsae_lib._checks import check_choice

logger = logging.getLogger(__name__)

MAX_COLUMNS = 10**7
MAX_SHOWN = 8  # columns of a table that is printed


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table of finite numbers, and what was understood of its file.

    values: (samples, features), float32 or float64, or a read-only memory map of a file above 2 GB, in its own dtype;
    columns: names of the features; index: names of the samples, or None; labels: texts, "" where there is none, or
    None; rows: (samples,), which row of the file each sample is, from 0; n_rows: rows in the file; fill: (features,),
    what stands for a missing cell with missing="impute", or None; notes: what was read, left out and filled in.
    """

    values: np.ndarray
    columns: tuple[str, ...]
    index: np.ndarray | None
    labels: np.ndarray | None
    rows: np.ndarray
    n_rows: int
    fill: np.ndarray | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The notes, and the first rows and columns."""
        shown = [*map(cut, self.columns[:MAX_SHOWN])] + ["..."] * (len(self.columns) > MAX_SHOWN)
        lines = [["row" if self.index is None else "index", *shown] + ["label"] * (self.labels is not None)]
        for k in range(min(3, len(self.values))):
            name = str(self.rows[k]) if self.index is None else cut(self.index[k])
            cells = [f"{value:.6g}" for value in self.values[k, :MAX_SHOWN]] + ["..."] * (len(self.columns) > MAX_SHOWN)
            lines.append([name, *cells] + ([] if self.labels is None else [cut(self.labels[k])]))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        grid = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*self.notes, *grid])


def read_table(
    path: str | Path,
    *,
    label: str | int | None = None,
    drop: Sequence[str | int] = (),
    columns: Sequence[str | int] | None = None,
    missing: Missing = "refuse",
    index: str | int | None = None,
    header: bool | None = None,
    separator: str | None = None,
    decimal: Literal[".", ","] | None = None,
    part: str | None = None,
    fill: Mapping[str, float] | None = None,
) -> Table:
    """A table of numbers from a text, Excel, Parquet, Feather or NumPy file; what was understood stands in its notes.

    Separator, decimal mark, header and index are found from the first lines if they are not given. Booleans are 0
    and 1. Columns of text or dates, and empty ones, are left out with a note, unless `columns` names them; a column in
    which some cells are numbers and others are not is refused. So are cells such as 1,234, unless another, such as
    12,5, tells that commas are decimal marks and do not separate thousands. A first column of names is the index: one
    that has no name, is called id or index and holds whole numbers, or is text; and never repeats. Constant columns
    stay.

    Args:
        path: .csv, .tsv, .txt, .dat, .tab, also with .gz; .xlsx, .parquet, .feather, .npy, .npz. Anything but .npy and
            .npz needs the extra `tables`.
        label: a column that is kept out of the numbers, by its name, or by its place from 0 where there are no names;
            of an .npz file also another array. drop: columns to leave out. columns: the columns to take, in this order.
        missing: what cells without a finite number do. "refuse", "drop rows" that have one, or "impute" the median of
            the column, or what `fill` says.
        index: the column that names the samples; "" for none. header: whether the first line names the columns.
        separator: of text, " " for any white space, "" for a single column. decimal: "." or ",".
        part: the sheet of an Excel file, or the array of an .npz file, by its name.
        fill: what "impute" takes for each column, by name, finite; None for medians.

    Raises:
        ValueError: a file of another kind, or one that is not a table of numbers; of more than 2 GB as float32, unless
            it is a .npy, .parquet or .feather file; names the file, the row (the first sample is 0) or the column, and
            the parameter that settles it.
        OSError: no such file. ModuleNotFoundError: the extra is not installed.
    """
    settings = Reading(label, tuple(drop), None if columns is None else tuple(columns), missing, index, header)
    settings = dataclasses.replace(settings, separator=separator, decimal=decimal, part=part, fill=fill)
    for name, value in {"drop": drop, "columns": columns}.items():
        if isinstance(value, str):
            raise ValueError(f"{name}={value!r}: expected a list of names")
    if separator is not None and len(separator) > 1:
        raise ValueError(f"separator={separator!r}: expected one character, or none")
    check_choice("missing", missing, get_args(Missing))
    check_choice("decimal", decimal, (".", ",", None))
    if fill is not None and not hasattr(fill, "get"):
        raise ValueError(f"fill={cut(fill)}: expected a number for each column, by name")
    if fill is not None and missing != "impute":
        raise ValueError(f"fill={cut(fill)}: expected missing='impute' with it, got missing={missing!r}")
    path = _as_path(path)
    try:
        table = _read(path, settings)
    except Refusal as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None
    for note in table.notes:
        logger.info("%s: %s", path, note)
    return table


def open_table(path: str | Path) -> np.ndarray:
    """The numbers of `read_table`, for tables larger than memory: a read-only memory map, read as it is needed.

    A .npy file is mapped as it is, in its own dtype. Any other file is copied first to a file of float32 or float64 in
    the folder of temporary files ($TMPDIR), which has no name and vanishes with the map; memory holds some of its rows.
    Every column has to hold finite numbers.

    Raises:
        ValueError: as `read_table`; a column of text. OSError: no such file, or no room for the copy.
        ModuleNotFoundError: the extra is not installed.
    """
    path = _as_path(path)
    try:
        return _read(path, Reading(strict=True), mapped=True).values
    except Refusal as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None


def _as_path(path: str | Path) -> Path:
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise ValueError(f"path={path!r}: expected the path of a file")
    return Path(path)


def _read(path: Path, settings: Reading, *, mapped: bool = False) -> Table:
    source = open_source(path, settings)
    if source.n_columns > MAX_COLUMNS:
        raise Refusal(f"it has {source.n_columns:,} columns, expected at most {MAX_COLUMNS:,}: is a row a sample?")
    names = told_apart(source)
    first = next(source.blocks(), None)
    if first is None or not len(first) or not source.n_columns:
        raise Refusal(f"it has {'no rows' if source.n_columns else 'no columns'}")
    plan = plan_columns(source, names, first, settings)
    size = source.n_rows * len(plan.features) * 4
    large = size > MAX_BYTES
    if large and not mapped and not path.name.lower().endswith((".npy", ".parquet", ".feather")):
        told = f"{source.n_rows:,} rows of {len(plan.features):,} columns take {size / 1e9:.1f} GB as float32"
        raise Refusal(f"{told}, more than {MAX_BYTES / 1e9:g}: save it as .npy or .parquet, or name fewer columns=")
    on_disk = large or mapped
    if on_disk and source.array is not None and plan.features == list(range(source.n_columns)):
        found = Collected(source.array, source.index, source.labels)
    else:
        found = collect(source, names, plan, in_map=on_disk)
    done = complete(found.values, [names[k] for k in plan.features], settings)
    values = done.values
    if on_disk:
        values.flags.writeable = False
    index, labels = (None if x is None else x[done.rows] for x in (found.index, found.labels))
    rows, features = (
        f"{count:,} {word}{'s' * (count != 1)}" for count, word in zip(values.shape, ("row", "column"), strict=True)
    )
    counted = f"{rows}, and {features} of numbers: {listed(done.columns)}"
    where = ["its rows are read from the disk as they are needed"] if on_disk else []
    notes = (counted, *source.notes, *plan.notes, *done.notes, *where)
    return Table(values, done.columns, index, labels, done.rows, source.n_rows, done.fill, notes)
