"""Table files of every kind, as rows that are read some at a time."""

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from gsae_book.data._delimited import cut, read_frames, understand
from gsae_lib._checks import rows_at_a_time
from gsae_lib._extras import require

if TYPE_CHECKING:
    import pandas as pd

TEXTS = (".csv", ".tsv", ".txt", ".dat", ".tab")
READERS = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".xlsx", ".xlsm", ".parquet", ".feather", ".npy", ".npz")
PARQUET_ROWS = 10_000  # read at a time
XML_IN_MEMORY = 4  # bytes that a byte of an Excel file takes, unpacked: short texts are the worst
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
    except MemoryError:
        raise Refusal("it does not fit into memory") from None
    except Exception as error:
        told = cut(str(error) or type(error).__name__, 300)
        raise Refusal(f"it is no {kind} file, or a damaged one: {told}") from None


def check_fits(size: int, told: str) -> None:
    """Refuse what would take more than half of the memory that is free; the sizes are those that files declare."""
    free = _free_memory()
    if size > free / 2:
        sizes = f"{size / 1e9:.1f} GB of memory, more than half of the {free / 1e9:.1f} GB that are free"
        raise Refusal(f"{told} may take {sizes}; save it as .csv or .parquet")


def _free_memory() -> int:
    """Bytes of memory that are free, or all there are where the system does not say; 8 GB where it says neither."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as file:
        return 1024 * int(next(line for line in file if line.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * 10**9


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

    with reading("Excel"), zipfile.ZipFile(path) as archive:
        check_fits(XML_IN_MEMORY * sum(member.file_size for member in archive.infolist()), "it")
    with reading("Excel"), contextlib.closing(load_workbook(path, read_only=True, data_only=True)) as book:
        sheets = [sheet.title for sheet in book.worksheets]
        if settings.part is not None and settings.part not in sheets:
            raise Refusal(f"part={settings.part!r}: there is no such sheet; it has {listed(sheets)}")
        sheet = book[settings.part] if settings.part is not None else book.worksheets[0]
        sheet.reset_dimensions()  # those that a file declares may be a million rows of 16,384 empty cells
        rows = [[_excel_cell(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
        width = max(map(len, rows), default=0)
        text = io.StringIO()
        csv.writer(text).writerows([*row, *[""] * (width - len(row))] if any(row) else [] for row in rows)
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

    def rows() -> Iterator[np.ndarray]:
        return (array[some] for some in row_blocks(array))

    return _array_source(array.shape, array.dtype, rows, ["a NumPy file"], array=array)


@dataclasses.dataclass(frozen=True)
class _Member:
    """An array of an archive, as its header tells: nothing else of it is unpacked. start: of its numbers, in bytes."""

    file: str
    start: int
    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return str(self.shape)


def _open_npz(path: Path, settings: Reading) -> Source:
    """A table of an archive, some of whose rows are unpacked at a time, and the label; no other array is."""
    with reading("NumPy archive"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): _read_header(archive, info) for info in archive.infolist()}
    arrays = {name: member for name, member in members.items() if member is not None}
    tables = [name for name, array in arrays.items() if len(array.shape) == 2 or array.dtype.names]
    held = listed(f"{name} {'(no array)' if member is None else member}" for name, member in members.items())
    part = settings.part if settings.part is not None else tables[0] if len(tables) == 1 else None
    if part is None or part not in arrays:
        said = "" if settings.part is None else f"part={part!r}: "
        raise Refusal(f"{said}expected one table (samples, features), or part= its name; it holds {held}")
    table, labels = arrays[part], None
    if isinstance(settings.label, str) and settings.label in arrays and settings.label != part:
        label = arrays[settings.label]
        if label.shape != table.shape[:1] or label.dtype.hasobject:
            raise Refusal(f"label={settings.label!r}: expected ({table.shape[0]},), got {label} {label.dtype}")
        check_fits(label.size, f"the array {settings.label!r}")
        labels = np.concatenate([rows.astype(str).astype(object) for rows in _unpack_rows(path, label)])
    others = f", beside {listed(name for name in members if name != part)}" if len(members) > 1 else ""
    notes = [f"the array {part!r} of a NumPy archive{others}"]
    if table.by_columns:
        check_fits(table.size, f"the array {part!r}, which is stored by columns,")
    return _array_source(table.shape, table.dtype, lambda: _unpack_rows(path, table), notes, labels=labels)


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member | None:
    """What the header of a member tells, or None if it is no array."""
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError:
            return None
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if dtype.names and version == (3, 0):  # whose header is UTF-8, and read as Latin-1
            dtype.names = tuple(name.encode("latin-1").decode() for name in dtype.names)
        member = _Member(info.filename, file.tell(), shape, by_columns and len(shape) > 1, dtype)
    if not dtype.hasobject and member.start + member.size > info.file_size:
        raise Refusal(f"it is damaged: {info.filename!r} is shorter than {shape} {dtype}")
    return member


def _unpack_rows(path: Path, member: _Member) -> Iterator[np.ndarray]:
    """The rows of an array of an archive, some at a time; all at once where it is stored by columns."""
    n_rows, *rest = member.shape
    width = math.prod(rest)
    step = n_rows if member.by_columns else rows_at_a_time(width)
    with reading("NumPy archive"), zipfile.ZipFile(path) as archive, archive.open(member.file) as file:
        file.read(member.start)
        for start in range(0, n_rows, max(1, step)):
            count = min(step, n_rows - start)
            found = np.frombuffer(file.read(count * width * member.dtype.itemsize), member.dtype)
            yield found.reshape((count, *rest), order="F" if member.by_columns else "C")


def _array_source(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rows: Callable[[], Iterator[np.ndarray]],
    notes: list[str],
    *,
    labels: np.ndarray | None = None,
    array: np.ndarray | None = None,
) -> Source:
    """An array of that shape as a source, whose ``rows`` are read some at a time; the fields of records are columns."""
    if dtype.names and len(shape) == 1:
        return _record_source(shape, dtype, rows, notes, labels)
    if len(shape) != 2 or 0 in shape or dtype.kind not in "fiub":
        hint = f"; reshape it to {(shape[0], math.prod(shape[1:]))}" if len(shape) > 2 and 0 not in shape else ""
        raise Refusal(f"expected a table of real numbers, (samples, features), got {shape} {cut(dtype, 100)}{hint}")
    return Source((), shape[1], shape[0], lambda _: rows(), tuple(notes), array=array, labels=labels)


def _record_source(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rows: Callable[[], Iterator[np.ndarray]],
    notes: list[str],
    labels: np.ndarray | None,
) -> Source:
    require("pandas", "tables")
    import pandas as pd

    names = tuple(dtype.names or ())
    for name in names:
        if (field := dtype[name]).shape or field.kind not in "fiubSUMm":
            raise Refusal(f"the field {name!r}: expected a number or a text, got {cut(field)}")

    def blocks(texts: Sequence[int]) -> Iterator["pd.DataFrame"]:
        for some in rows():
            with reading("NumPy"):
                frame = pd.DataFrame({k: some[name] for k, name in enumerate(names)})
            yield frame

    return Source(names, len(names), shape[0], blocks, (*notes, "its fields are columns"), labels=labels)


def row_blocks(table: np.ndarray) -> Iterator[slice]:
    """Slices of its rows, of some megabytes each."""
    step = rows_at_a_time(table[:1].size)
    return (slice(start, start + step) for start in range(0, len(table), step))


def listed(names: Iterable[object], most: int = MAX_NAMED) -> str:
    """The first names, and how many more there are."""
    found = [str(name) for name in itertools.islice(names, 100_000)]
    more = f" and {len(found) - most:,} more" if len(found) > most else ""
    return ", ".join(cut(name) for name in found[:most]) + more
