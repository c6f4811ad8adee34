"""Tables of your own: NumPy, CSV and Parquet files as arrays of finite numbers."""

import dataclasses
import logging
import math
import os
import tempfile
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import numpy as np

from gsae_lib._checks import as_table, check_choice, describe, on_disk, rows_at_a_time
from gsae_lib._extras import require

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

READERS = (".npy", ".csv", ".parquet")
PARQUET_ROWS = 10_000  # read at a time


def read_table(path: str | Path) -> np.ndarray:
    """A table of numbers, (samples, features), from a NumPy, CSV or Parquet file.

    A CSV file has commas between its cells. Its first line is a header if a cell of it is neither a number nor empty,
    and otherwise a sample; a line of the log (INFO) says which. A blank line is a sample with missing values. CSV
    and Parquet files need the extra `tables`.

    Raises:
        ValueError: a file of another kind, or one that is not a finite table of numbers, at least one; names the file
            and the first cell that is no number, by row (the first sample is 0) and column.
        OSError: no such file. ModuleNotFoundError: the extra is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"path={str(path)!r}: expected a file that ends with one of {', '.join(READERS)}")
    if suffix == ".npy":
        try:
            table = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"path={str(path)!r}: {error}") from None
        names: Sequence[object] = range(table.shape[-1]) if table.ndim else ()
    else:
        table, names = _read_frame(path)
    _check_table(path, table)
    table = table.astype(np.float32 if table.dtype == np.float32 else np.float64)
    _check_finite(path, table, names)
    return table


def open_table(path: str | Path) -> np.ndarray:
    """As `read_table`, for tables larger than memory: a read-only memory map, whose rows are read as they are needed.

    A NumPy file is mapped as it is, in its own dtype. A Parquet file is copied first to a file of float64 in the folder
    of temporary files ($TMPDIR), which has no name and vanishes with the map; memory holds one of its row groups. A CSV
    file is read into memory.

    Raises:
        ValueError: as `read_table`.
        OSError: no such file, or no room for the copy. ModuleNotFoundError: the extra is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _map_parquet(path)
    if suffix != ".npy":
        return read_table(path)
    try:
        table = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None
    _check_table(path, table)
    _check_finite(path, table, range(table.shape[1]))
    return table


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    r"""What a table's columns, and then its rows, are divided by.

    .. math:: y \mapsto (y - \text{mean}) / \text{spread}, \qquad \text{then, if unit, } y \mapsto y / \|y\|_2

    mean, spread: (features,), in the units of the data. A row of zeros stays.
    """

    mean: np.ndarray
    spread: np.ndarray
    unit: bool

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """The table scaled, (samples, features), float32 or float64; of a memory map a map of a file, as `open_table`.

        Raises:
            ValueError: another number of columns, or what is no matrix of numbers.
        """
        table = as_table("table", table)
        if table.ndim != 2 or table.shape[1] != len(self.mean):
            raise ValueError(f"table: expected {len(self.mean)} columns, got {describe(table)}")
        dtype = np.dtype(np.float32 if table.dtype == np.float32 else np.float64)
        scaled = _unnamed(table.shape, dtype) if on_disk(table) else np.empty(table.shape, dtype)
        for rows in _row_blocks(table):
            block = (np.asarray(table[rows], dtype=np.float64) - self.mean) / self.spread
            if self.unit:
                lengths = np.linalg.norm(block, axis=1, keepdims=True)
                block /= np.where(lengths > 0, lengths, 1.0)
            scaled[rows] = block
        return scaled


def fit_scaling(table: np.ndarray, method: Literal["unit norm", "standardize", "none"]) -> Scaling:
    """The scaling of a table, from its rows, some at a time.

    "unit norm": subtract the mean row, then give each row unit length. "standardize": subtract the mean of each column
    and divide by its standard deviation, or by 1 where that is 0. "none": leave it.

    Raises:
        ValueError: another method, or a table that is no matrix of finite numbers.
    """
    check_choice("method", method, get_args(get_type_hints(fit_scaling)["method"]))
    table = as_table("table", table)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"table: expected (samples, features), got {describe(table)}")
    mean, spread = np.zeros(table.shape[1]), np.ones(table.shape[1])
    if method != "none":
        first = np.asarray(table[0], dtype=np.float64)  # sums of differences from it keep a constant column exact
        mean = first + sum((table[rows] - first).sum(axis=0) for rows in _row_blocks(table)) / len(table)
    if method == "standardize":
        squares = sum(np.square(table[rows] - mean).sum(axis=0) for rows in _row_blocks(table))
        deviation = np.sqrt(squares / len(table))
        spread = np.where(deviation > 0, deviation, 1.0)
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        raise ValueError(f"table: has entries that are missing, infinite or too large ({describe(table)})")
    return Scaling(mean, spread, method == "unit norm")


def _check_table(path: Path, table: np.ndarray) -> None:
    if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.number) or np.iscomplexobj(table):
        raise ValueError(f"path={str(path)!r}: expected a table of real numbers, got {table.shape} {table.dtype}")


def _check_finite(path: Path, table: np.ndarray, names: Sequence[object]) -> None:
    """ValueError, with the first cell that is missing or infinite, and how many there are."""
    first, count = "", 0
    for rows in _row_blocks(table):
        bad = np.argwhere(~np.isfinite(table[rows]))
        if len(bad) and not count:
            first = f"row {rows.start + bad[0][0]}, column {names[bad[0][1]]!r}"
        count += len(bad)
    if count:
        raise ValueError(f"path={str(path)!r}: {first} is missing or infinite, as are {count} cells in all")


def _row_blocks(table: np.ndarray) -> Iterator[slice]:
    step = rows_at_a_time(table.shape[1])
    return (slice(start, start + step) for start in range(0, len(table), step))


def _unnamed(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """A memory map of a file without a name, of that shape; OSError if the disk is too small."""
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that is full would end the process
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _map_parquet(path: Path) -> np.ndarray:
    require("pandas", "tables")
    require("pyarrow", "tables")
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, memory_map=True)
    except ArrowInvalid as error:
        raise ValueError(f"path={str(path)!r}: {error}") from None
    with file:
        count, start, table = file.metadata.num_rows, 0, np.empty((0, 0))
        names: list[object] = []
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            frame = batch.to_pandas()
            if not start:
                names = list(frame)
                table = _unnamed((count, len(names)), np.dtype(np.float64)) if names else table
            table[start : start + len(frame)] = _numbers(path, frame, names, start)
            start += len(frame)
    _check_table(path, table)
    _check_finite(path, table, names)
    table.flags.writeable = False
    return table


def _read_frame(path: Path) -> tuple[np.ndarray, Sequence[object]]:
    """The table in a Parquet or CSV file and the names of its columns."""
    require("pandas", "tables")
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        frame = pd.read_parquet(path)
        names = list(frame)
    else:
        settings = {"encoding": "utf-8-sig", "skip_blank_lines": False, "index_col": False}
        try:
            with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
                first = pd.read_csv(path, header=None, nrows=1, **settings)
                named = not all(map(pd.api.types.is_numeric_dtype, first.dtypes))
                frame = pd.read_csv(path, header=0 if named else None, **settings)
        except (ValueError, pd.errors.ParserWarning) as error:  # not UTF-8, no cells, or lines of different lengths
            raise ValueError(f"path={str(path)!r}: {str(error).strip()}") from None
        cells = ["" if pd.isna(cell) else str(cell) for cell in first.iloc[0]]
        shown = textwrap.shorten(", ".join(cells), 200)
        logger.info("%s: the first line is %s: %s", path, "a header" if named else "a sample", shown)
        names = cells if named else list(frame)
        if "" in names:
            raise ValueError(f"path={str(path)!r}: expected a name for each column, got the header {names}")
    return _numbers(path, frame, names, 0), names


def _numbers(path: Path, frame: "pd.DataFrame", names: Sequence[object], first_row: int) -> np.ndarray:
    """The numbers of a frame, or ValueError with its first text; its rows are `first_row` and those after it."""
    import pandas as pd

    texts = [k for k, kind in enumerate(frame.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    if texts and len(frame):
        cells = frame.iloc[:, texts[0]]
        row = int(np.argmax(pd.to_numeric(cells, errors="coerce").isna() & cells.notna()))
        where = f"row {first_row + row}, column {names[texts[0]]!r}"
        raise ValueError(f"path={str(path)!r}: {where}: {cells.iloc[row]!r} is not a number; drop or encode the column")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)
