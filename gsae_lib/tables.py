"""Tables of your own: NumPy, CSV and Parquet files as arrays of finite numbers."""

import logging
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsae_lib._extras import require

logger = logging.getLogger(__name__)

READERS = (".npy", ".csv", ".parquet")


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
    if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.number) or np.iscomplexobj(table):
        raise ValueError(f"path={str(path)!r}: expected a table of real numbers, got {table.shape} {table.dtype}")
    table = table.astype(np.float32 if table.dtype == np.float32 else np.float64)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        where = f"row {row}, column {names[column]!r}"
        raise ValueError(f"path={str(path)!r}: {where} is missing or infinite, as are {len(bad)} cells in all")
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
    texts = [k for k, kind in enumerate(frame.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    if texts and len(frame):
        cells = frame.iloc[:, texts[0]]
        row = int(np.argmax(pd.to_numeric(cells, errors="coerce").isna() & cells.notna()))
        where = f"row {row}, column {names[texts[0]]!r}"
        raise ValueError(f"path={str(path)!r}: {where}: {cells.iloc[row]!r} is not a number; drop or encode the column")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), names
