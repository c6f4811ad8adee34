"""Table files of every kind, as rows that are read some at a time."""

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import stat
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from gsae_lib._checks import rows_at_a_time
from gsae_lib._delimited import read_frames, understand
from gsae_lib._extras import require

if TYPE_CHECKING:
    import pandas as pd

TEXTS = (".csv", ".tsv", ".txt", ".dat", ".tab")
READERS = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".xlsx", ".xlsm", ".parquet", ".feather", ".npy", ".npz")
PARQUET_ROWS = 10_000  # read at a time
MAX_NAMED = 8  # columns, rows or values that a note names

Missing = Literal["refuse", "drop rows", "impute"]


class Refusal(Exception):
    """Why a file is not read: the rest of a line that starts with its path."""


@contextlib.contextmanager
def reading(kind: str) -> Iterator[None]:
    """Refuse a file of which another library says, in whatever way, that it cannot read it."""
    try:
        yield
    except (Refusal, ModuleNotFoundError):
        raise
    except Exception as error:
        told = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise Refusal(f"it is no {kind} file, or a damaged one: {told}") from None


@dataclasses.dataclass(frozen=True)
class Reading:
    """What `read_table` was given; strict: no column may be left out."""

    label: str | int | None = None
    drop: tuple[str | int, ...] = ()
    columns: tuple[str | int, ...] | None = None
    missing: Missing = "refuse"
    index: str | int | None = None
    header: bool | None = None
    separator: str | None = None
    decimal: str | None = None
    part: str | None = None
    fill: Mapping[str, float] | None = None
    strict: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """A file before its columns are told apart.

    names: of its columns, "" where there is none, or () if nothing names them; n_rows: at most; blocks: of its rows,
    frames or arrays, with texts in the columns named; array: of a .npy file, all of it; labels: of an .npz file; index:
    names of the rows that are no column; commas: whether decimal="," may read cells that are no numbers now.
    """

    names: tuple[str, ...]
    n_columns: int
    n_rows: int
    blocks: Callable[[Sequence[int]], Iterator["pd.DataFrame | np.ndarray"]]
    notes: tuple[str, ...]
    array: np.ndarray | None = None
    labels: np.ndarray | None = None
    index: np.ndarray | None = None
    commas: bool = False


def open_source(path: Path, settings: Reading) -> Source:
    """The file as a source of rows, once it is known to be a file of a known kind."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file") from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
        kind = next((kind for test, kind in kinds.items() if test(mode)), "a device")
        raise Refusal(f"it is {kind}, expected a file")
    name = path.name.lower()
    suffix = next((known for known in sorted(READERS, key=len, reverse=True) if name.endswith(known)), None)
    if suffix is None:
        raise Refusal(f"expected a file that ends with one of {', '.join(READERS)}")
    if not path.stat().st_size:
        raise Refusal("it is empty")
    if suffix not in (".npy", ".npz"):
        require("pandas", "tables")
    readers = {".npy": _open_npy, ".npz": _open_npz, ".parquet": _open_arrow, ".feather": _open_arrow}
    readers |= {".xlsx": _open_excel, ".xlsm": _open_excel}
    if settings.part is not None and suffix not in (".npz", ".xlsx", ".xlsm"):
        raise Refusal(f"part={settings.part!r}: it has no parts, as .xlsx and .npz files have")
    return readers.get(suffix, _open_text)(path, settings)


def _open_text(path: Path, settings: Reading) -> Source:
    zipped = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            start = file.read(4)
        if start.startswith(b"PK\x03\x04"):
            raise Refusal("it is a ZIP archive, such as an Excel file, which should end with .xlsx")
        if start == b"PAR1":
            raise Refusal("it is a Parquet file, which should end with .parquet")
        wide = start[:2] in (b"\xff\xfe", b"\xfe\xff")

        def opened(encoding: str) -> TextIO:
            encoding = "utf-16" if wide else encoding
            return (
                gzip.open(path, "rt", encoding=encoding, newline="")
                if zipped
                else path.open(encoding=encoding, newline="")
            )

        return _delimited(opened, settings, [])
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise Refusal(f"it is a damaged .gz file: {error}") from None


def _delimited(opened: Callable[[str], TextIO], settings: Reading, notes: list[str]) -> Source:
    try:
        dialect = understand(opened, separator=settings.separator, decimal=settings.decimal, header=settings.header)
    except ValueError as error:
        raise Refusal(str(error)) from None

    def blocks(texts: Sequence[int]) -> Iterator["pd.DataFrame"]:
        try:
            yield from read_frames(opened, dialect, texts, rows_at_a_time(dialect.width))
        except ValueError as error:
            raise Refusal(str(error)) from None

    notes = [*notes, *dialect.notes]
    return Source(dialect.names, dialect.width, dialect.n_lines, blocks, tuple(notes), commas=dialect.commas)


def _open_excel(path: Path, settings: Reading) -> Source:
    """A sheet, written as text in memory, and read as such."""
    require("openpyxl", "tables")
    from openpyxl import load_workbook

    with reading("Excel"), contextlib.closing(load_workbook(path, read_only=True, data_only=True)) as book:
        sheets = [sheet.title for sheet in book.worksheets]
        if settings.part is not None and settings.part not in sheets:
            raise Refusal(f"part={settings.part!r}: there is no such sheet; it has {listed(sheets)}")
        sheet = book[settings.part] if settings.part is not None else book.worksheets[0]
        text = io.StringIO()
        rows = ([_excel_cell(cell) for cell in row] for row in sheet.iter_rows(values_only=True))
        csv.writer(text).writerows(row if any(row) else [] for row in rows)
    if not text.getvalue().strip():
        raise Refusal(f"the sheet {sheet.title!r} is empty; part= takes another of {listed(sheets)}")
    notes = [f"sheet {sheet.title!r}" + (f" of {listed(sheets)}; part= takes another" if len(sheets) > 1 else "")]
    comma = dataclasses.replace(settings, separator=",", decimal=".")
    return _delimited(lambda encoding: io.StringIO(text.getvalue(), newline=""), comma, notes)


def _excel_cell(cell: object) -> str:
    return "" if cell is None else cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _open_arrow(path: Path, settings: Reading) -> Source:
    """Parquet and Feather, of which a batch of rows is read at a time."""
    require("pyarrow", "tables")
    from pyarrow import feather, parquet

    kind = "Feather" if path.name.lower().endswith(".feather") else "Parquet"
    with reading(kind):
        if path.name.lower().endswith(".feather"):
            whole = feather.read_table(path, memory_map=True)
            schema, count = whole.schema, whole.num_rows
        else:
            with parquet.ParquetFile(path, memory_map=True) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
        empty = schema.empty_table().to_pandas()
        names = tuple(map(str, empty.columns))

    def batches() -> Iterator[Any]:
        if path.name.lower().endswith(".feather"):
            yield from whole.to_batches(max_chunksize=PARQUET_ROWS)
        else:
            with parquet.ParquetFile(path, memory_map=True) as file:
                yield from file.iter_batches(batch_size=PARQUET_ROWS)

    def blocks(texts: Sequence[int]) -> Iterator["pd.DataFrame"]:
        with reading(kind):
            for batch in batches():
                frame = batch.to_pandas()
                frame.columns = range(frame.shape[1])
                yield frame

    index = None
    if b"pandas" in (schema.metadata or {}) and not _counts(empty.index):
        index = np.concatenate([frame.index.map(str).to_numpy(object) for frame in blocks(())] or [np.array([])])
    notes = (f"a {kind} file",) + (("the rows have names of their own",) if index is not None else ())
    return Source(names, len(names), count, blocks, notes, index=index)


def _counts(index: "pd.Index[Any]") -> bool:
    """Whether an index of pandas is a mere count of the rows."""
    import pandas as pd

    return isinstance(index, pd.RangeIndex) or (index.name is None and pd.api.types.is_integer_dtype(index.dtype))


def _open_npy(path: Path, settings: Reading) -> Source:
    with reading("NumPy"):
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    if isinstance(array, np.lib.npyio.NpzFile):
        raise Refusal("it is a NumPy archive, which should end with .npz")
    return _array_source(array, ["a NumPy file"], None, array)


def _open_npz(path: Path, settings: Reading) -> Source:
    with reading("NumPy archive"), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    tables = [name for name, array in arrays.items() if array.ndim == 2 or array.dtype.names]
    held = listed(f"{name} {array.shape}" for name, array in arrays.items())
    part = settings.part if settings.part is not None else tables[0] if len(tables) == 1 else None
    if part is None or part not in arrays:
        said = "" if settings.part is None else f"part={part!r}: "
        raise Refusal(f"{said}expected one table (samples, features), or part= its name; it holds {held}")
    labels = None
    if isinstance(settings.label, str) and settings.label in arrays and settings.label != part:
        labels = arrays[settings.label]
        if labels.shape != (len(arrays[part]),):
            raise Refusal(f"label={settings.label!r}: expected ({len(arrays[part])},), got {labels.shape}")
        labels = labels.astype(str).astype(object)
    others = f", beside {listed(name for name in arrays if name != part)}" if len(arrays) > 1 else ""
    return _array_source(arrays[part], [f"the array {part!r} of a NumPy archive{others}"], labels, None)


def _array_source(array: np.ndarray, notes: list[str], labels: np.ndarray | None, whole: np.ndarray | None) -> Source:
    if array.dtype.names and array.ndim == 1:
        require("pandas", "tables")
        import pandas as pd

        frame = pd.DataFrame.from_records(array)
        names = tuple(frame.columns)
        frame.columns = range(len(names))
        return Source(
            names, len(names), len(frame), lambda _: iter([frame]), (*notes, "its fields are columns"), labels=labels
        )
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        hint = f"; reshape it to {(len(array), array[0].size)}" if array.ndim > 2 and array.size else ""
        raise Refusal(f"expected a table of real numbers, (samples, features), got {array.shape} {array.dtype}{hint}")

    def blocks(texts: Sequence[int]) -> Iterator[np.ndarray]:
        return (array[rows] for rows in row_blocks(array))

    return Source((), array.shape[1], len(array), blocks, tuple(notes), array=whole, labels=labels)


def row_blocks(table: np.ndarray) -> Iterator[slice]:
    """Slices of its rows, of some megabytes each."""
    step = rows_at_a_time(table.shape[1])
    return (slice(start, start + step) for start in range(0, len(table), step))


def listed(names: Iterable[object], most: int = MAX_NAMED) -> str:
    """The first names, and how many more there are."""
    found = [str(name) for name in itertools.islice(names, 100_000)]
    more = f" and {len(found) - most:,} more" if len(found) > most else ""
    return ", ".join(cut(name) for name in found[:most]) + more


def cut(text: object) -> str:
    return textwrap.shorten(str(text), 40, placeholder=" ...") or str(text)[:40]
