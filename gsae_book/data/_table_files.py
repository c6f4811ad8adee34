"""Table files of every kind, as names of columns and blocks of rows.

pandas parses text, once its separator, decimal mark and header are known. Its own way to find a separator, as that of
`csv.Sniffer`, takes the commas of "1,5;2,5" for it. So each separator and decimal mark is tried on the first lines,
and the one stays under which most cells are numbers and most lines equally long.
"""

import contextlib
import csv
import dataclasses
import gzip
import io
import math
import re
import stat
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gsae_lib._checks import rows_at_a_time
from gsae_lib._extras import require

if TYPE_CHECKING:
    import pandas as pd

TEXTS = (".csv", ".tsv", ".txt", ".dat", ".tab")
READERS = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".xlsx", ".xlsm", ".parquet", ".feather", ".npy", ".npz")
MAX_BYTES = 2 * 10**9  # in memory: of a text, of a sheet, of an array in an archive
PARQUET_ROWS = 10_000  # read at a time
SAMPLE = 200  # lines that are looked at first, at most
SEEN, FEW = 200_000, 20  # characters after which no more are, and lines that are in any case
SPACES = " "  # any white space
SEPARATORS = (",", ";", "\t", "|", SPACES)
ONE_COLUMN = "\x1f"  # a separator that no text has
NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", SPACES: "spaces", "": "nothing: one column"}
MISSING = (
    *("", "NA", "na", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-NaN", "-nan", "NULL", "Null", "null"),
    *("None", "none", "missing", "Missing", "?", "-", "--", "."),
    *("#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!"),
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", flags=re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")  # 1,234, whose comma may be decimal, or 1,234,567

Missing = Literal["refuse", "drop rows", "impute"]


class Refusal(Exception):
    """Why a file is not read: the rest of a line that starts with its path."""


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


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A file before its columns are told apart.

    names: of its columns, "" where there is none, or () if nothing names them; blocks: of its rows, frames with
    numbered columns or arrays; texts: a column as it is written, if it is text; array: of a .npy file, all of it;
    labels: of an .npz file; index: names of the rows that are no column; commas: whether decimal="," may read cells
    that are no numbers now.
    """

    names: tuple[str, ...]
    n_columns: int
    n_rows: int
    blocks: Callable[[], Iterator["pd.DataFrame | np.ndarray"]]
    notes: tuple[str, ...]
    texts: Callable[[int], np.ndarray] | None = None
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
    suffix = next((known for known in READERS if path.name.lower().endswith(known)), None)
    if suffix is None:
        raise Refusal(f"expected a file that ends with one of {', '.join(READERS)}")
    if not path.stat().st_size:
        raise Refusal("it is empty")
    if suffix not in (".npy", ".npz"):
        require("pandas", "tables")
    if settings.part is not None and suffix not in (".npz", ".xlsx", ".xlsm"):
        raise Refusal(f"part={settings.part!r}: it has no parts, as .xlsx and .npz files have")
    readers = {".npy": _open_npy, ".npz": _open_npz, ".parquet": _open_arrow, ".feather": _open_arrow}
    readers |= {".xlsx": _open_excel, ".xlsm": _open_excel}
    return readers.get(suffix, _open_text)(path, settings)


@contextlib.contextmanager
def _reading(kind: str) -> Iterator[None]:
    """Refuse a file of which another library says, in whatever way, that it cannot read it."""
    try:
        yield
    except Refusal:
        raise
    except MemoryError:
        raise Refusal("it does not fit into memory") from None
    except Exception as error:
        told = cut(str(error) or type(error).__name__, 300)
        raise Refusal(f"it is no {kind} file, or a damaged one: {told}") from None


def _check_fits(size: int, told: str) -> None:
    if size > MAX_BYTES:
        raise Refusal(f"{told} takes {size / 1e9:.1f} GB, more than {MAX_BYTES / 1e9:g}; save it as .npy or .parquet")


# Text


def _open_text(path: Path, settings: Reading) -> Source:
    notes: list[str] = []
    return _parse_text(_decoded(path, notes), settings, notes)


def _decoded(path: Path, notes: list[str]) -> str:
    content = bytearray()
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            while piece := file.read(2**24):
                content += piece
                _check_fits(len(content), "its text")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise Refusal(f"it is a damaged .gz file: {error}") from None
    for start, kind in {b"PK\x03\x04": "a ZIP archive, such as an Excel file", b"PAR1": "a Parquet file"}.items():
        if content.startswith(start):
            raise Refusal(f"it is {kind}, and not text; its name should end with .xlsx, or .parquet")
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            notes += ["it is not UTF-8, and read as Windows-1252"] if encoding == "cp1252" else []
            return text
    raise Refusal("it is neither UTF-8 nor Windows-1252")


def _parse_text(text: str, settings: Reading, notes: list[str]) -> Source:
    """A text as a source; what is given is not searched for.

    Commas are decimal marks if one of them cannot separate thousands; cells such as 1,234 alone do not tell.
    """
    import pandas as pd

    if "\0" in text:
        raise Refusal("it holds bytes that are no text")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip(" \n") + "\n"
    start = _end(r"(?: *\n|#.*\n)*", text)  # of the table, below blank lines and comments
    has_comments = start < len(text) and 2 * text.count("\n#", start) <= text.count("\n", start)
    above = re.findall("(?m)^#.*", text[:start]) if has_comments else []
    start = start if has_comments else _end(r"(?: *\n)*", text)  # else they are such as colours, #aa00ff
    separator = settings.separator
    line = re.compile(r'"?sep=(.)"?\n', flags=re.IGNORECASE).match(text, start)  # as Excel reads it
    if line and separator in (None, line[1]):
        separator, start = line[1], line.end()
        notes.append(f"its first line tells the separator, {separator!r}")
    lines, ends = [], []
    for found in re.compile(r".*\n").finditer(text, start):
        if found[0].strip(" \n") and not (has_comments and found[0].startswith("#")):
            lines.append(found[0])
            ends.append(found.end())
        if len(lines) == SAMPLE or (len(lines) >= FEW and found.end() - start > SEEN):
            break
    if not lines:
        raise Refusal("it is empty")
    separator, decimal, rows, length = _find_separator(lines, ends[-1] == len(text), separator, settings.decimal)

    cells = [cell for row in rows for cell in row]
    numbers = [cell for cell in cells if "," in cell and _is_number(cell, ",")]
    unsure = settings.decimal is None and all(map(THOUSANDS.fullmatch, numbers))
    mark = "." if unsure else decimal
    seen = any(mark in cell and _is_number(cell, mark) for cell in cells)
    notes.append(f"cells are separated by {NAMED.get(separator, repr(separator))}" + f", decimals by {mark!r}" * seen)
    width = Counter(map(len, rows[1:] or rows)).most_common(1)[0][0]
    n_inside = has_comments * text.count("\n#", start)
    if n_comments := len(above) + n_inside:
        told = f", {cut(above[-1], 120)!r} above the table" if above else ""
        notes.append(f"{_count(n_comments, 'comment')} left out{told}")
    n_blank = sum(found[0].count("\n") - 1 for found in re.compile(r"\n(?: *\n)+").finditer(text, start))
    if n_blank and width > 1:
        notes.append(f"{_count(n_blank, 'blank line')} left out")
    header = _is_header(rows, decimal) if settings.header is None else settings.header
    how = "" if settings.header is not None else f"; header={not header} says otherwise"
    notes.append(f"the first line is a {'header' if header else 'sample'}: {cut(', '.join(rows[0]), 120)}{how}")
    names: tuple[str, ...] = ()
    if header:
        names = _fit_names(rows, width, notes)
        width, start = len(names), ends[length - 1]
    elif above:
        noted = _split([above[-1].lstrip("# ")], separator)[0][0]
        if len(noted) == width > 1 and not any(_is_number(cell, decimal) for cell in noted):
            names = tuple(noted)
            notes.append("the comment above names the columns")

    above_table, text = text.count("\n", 0, start), text[start:]
    if n_inside:
        text = re.sub("(?m)^#.*\n", "" if width == 1 else "\n", text)
    body = text.encode()
    del text  # memory holds a large file once

    def parse(**given: Any) -> "pd.DataFrame":
        return pd.read_csv(
            io.BytesIO(body),
            sep=r"\s+" if separator == SPACES else separator or ONE_COLUMN,
            decimal=mark,
            header=None,
            names=range(width),
            index_col=False,
            skipinitialspace=True,
            keep_default_na=False,
            skip_blank_lines=width > 1,
            low_memory=True,
            **given,
        )

    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # a column of mixed cells is refused below
            frame = parse(na_values=list(MISSING))
    except pd.errors.EmptyDataError:
        raise Refusal("it has no rows") from None
    except pd.errors.ParserWarning:  # the first line of all is longer than the others
        raise Refusal(f"row 0 has more than {width} cells, as many as the others") from None
    except pd.errors.ParserError as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if not found:
            raise Refusal(cut(error, 300)) from None
        raise Refusal(f"line {int(found[2]) + above_table} has {found[3]} cells, and {found[1]} are expected") from None

    def texts(column: int) -> np.ndarray:
        return parse(usecols=[column], dtype=str)[column].to_numpy(object)

    commas = settings.decimal is None and not any(map(_has_no_decimal_comma, cells))
    return Source(names, width, len(frame), lambda: iter([frame]), tuple(notes), texts=texts, commas=commas)


def _end(pattern: str, text: str) -> int:
    """Where the start of a text that matches ends."""
    return re.match(pattern, text).end()


def _find_separator(
    lines: Sequence[str], whole: bool, separator: str | None, decimal: str | None
) -> tuple[str, str, list[list[str]], int]:
    """Separator, decimal mark, the cells of the first records, and of how many lines the first is."""
    best: tuple[float, str, str, list[list[str]], int] | None = None
    told = ""
    for sep in (*SEPARATORS, "") if separator is None else (separator,):
        try:
            rows, length = _split(lines, sep)
        except csv.Error as error:  # such as a cell of more than 131,072 characters, under a wrong separator
            told = f": {error}"
            continue
        rows = rows[:-1] if len(rows) > 1 and not whole else rows  # the last may go on
        if separator is None and (max(map(len, rows)) < 2 if sep else _is_cut(rows[0][0])):
            continue
        for mark in (".", ",") if decimal is None else (decimal,):
            score = _score(rows, mark)
            if best is None or score > best[0] + 1e-9:
                best = score, sep, mark, rows, length
    if best is None:
        raise Refusal(f"its first lines are no table{told}")
    return best[1:]


def _split(lines: Sequence[str], separator: str) -> tuple[list[list[str]], int]:
    """Cells of the records in lines, and of how many lines the first is."""
    if separator == SPACES:
        lines = [" ".join(line.split()) for line in lines]
    reader = csv.reader(lines, delimiter=separator or ONE_COLUMN, skipinitialspace=True)
    first, length = next(reader), reader.line_num
    return [[cell.strip() for cell in row] for row in (first, *reader)], length


def _is_cut(line: str) -> bool:
    """Whether a first line has a separator, without which its text would not be one name."""
    return any(sep in line for sep in SEPARATORS if sep != SPACES) and not _is_number(line, ",")


def _score(rows: Sequence[Sequence[str]], decimal: str) -> float:
    """Share of lines that are equally long, times the share of cells that are numbers."""
    body = rows[1:] or rows
    width = Counter(map(len, body)).most_common(1)[0][0]
    equal = sum(len(row) == width for row in rows) + (len(rows[0]) == width - 1 >= 2)  # names may miss the index's
    cells = [cell for row in body for cell in row if cell not in MISSING]
    numbers = sum(_is_number(cell, decimal) for cell in cells) / max(1, len(cells))
    return equal / len(rows) * (0.01 + numbers)


def _is_number(cell: str, decimal: str) -> bool:
    if decimal != ".":
        cell = cell.replace(".", "x").replace(decimal, ".")
    return NUMBER.fullmatch(cell) is not None


def _has_no_decimal_comma(cell: str) -> bool:
    """Whether a number has a decimal point, or commas between thousands: 1.5, 1,234.5 or 1,234,567."""
    told = cell.rfind(".") > cell.rfind(",") or cell.count(",") > 1
    return told and _is_number(cell.replace(",", ""), ".")


def _is_header(rows: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether the first line names the columns: a text above numbers, or numbers that count, name years, or a scale."""
    first, body = rows[0], rows[1:]
    filled = [cell not in MISSING for cell in first]
    texts = [kept and not _is_number(cell, decimal) for cell, kept in zip(first, filled, strict=True)]
    columns = [[row[k] for row in body if k < len(row) and row[k] not in MISSING] for k in range(len(first))]
    shares = [np.mean([_is_number(cell, decimal) for cell in column]) if column else 0.0 for column in columns]
    if not body or max(shares) == 0:
        return any(texts)
    if any(text and share > 0.5 for text, share in zip(texts, shares, strict=True)):
        return True
    if all(texts) and all(len(row) == len(first) + 1 for row in body):
        return True
    if not filled[0] and all(filled[1:]) and len(columns[0]) == len(body) > 1:
        return True
    numbers = [k for k, share in enumerate(shares) if share > 0.5]
    lines = [[row[k] for k in numbers if k < len(row) and _is_number(row[k], decimal)] for row in rows]
    lines = [line for k, line in enumerate(lines) if k == 0 or len(line) == len(numbers)]
    whole = all(cell.isdecimal() for line in lines[1:] for cell in line)
    if len(lines[0]) < len(numbers) or not _is_scale(lines[0], decimal, whole):
        return False
    return sum(_is_scale(line, decimal, whole) for line in lines[1:]) <= 0.1 * (len(lines) - 1)


def _is_scale(cells: Sequence[str], decimal: str, among_whole: bool) -> bool:
    """Whether numbers look like names: 0, 1, 2; years; equal steps; or eight and more that rise or fall.

    among_whole: whether all samples are integers, so that 0, 1 may be one of them.
    """
    values = np.array([float(cell.replace(decimal, ".")) for cell in cells])
    count, steps = len(values), np.diff(values)
    if count < 2 or not np.isfinite(values).all():
        return False
    whole = all(cell.isdecimal() for cell in cells)
    if whole and (steps == 1).all() and ((values[0] in (0, 1) and count > 2) or (values[0] == 0 and not among_whole)):
        return True
    if whole and values.min() >= 1800 and values.max() <= 2200 and (steps > 0).all():
        return True
    if count > 2 and steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-3, atol=0):
        return True
    return count >= 8 and bool((steps > 0).all() or (steps < 0).all())


def _fit_names(rows: Sequence[Sequence[str]], width: int, notes: list[str]) -> tuple[str, ...]:
    """The names in the first line, one for each cell of the others, "" where there is none."""
    names, body = list(rows[0]), rows[1:]
    if body and len(names) == width - 1:
        firsts = [row[0] for row in body]
        counts = [str(k) for k in range(int(firsts[0]), int(firsts[0]) + len(body))] if firsts[0].isdecimal() else []
        if all(len(row) < width or not row[-1] for row in body):
            names.append("")
        elif firsts == counts or not any(NUMBER.fullmatch(cell) for cell in firsts):
            names.insert(0, "")
            notes.append("the header leaves out the first column")
    while len(names) > width and not names[-1]:
        names.pop()
    if body and len(names) != width:
        told = f"the header names {len(names)} columns, and the lines have {width} cells"
        raise Refusal(f"{told}: {cut(', '.join(names), 120)}; name them all, or take the line out")
    return tuple(names)


# Excel, Parquet, Feather, NumPy


def _open_excel(path: Path, settings: Reading) -> Source:
    """A sheet, written as text in memory, and read as such."""
    require("openpyxl", "tables")
    import pandas as pd

    with _reading("Excel"):
        with zipfile.ZipFile(path) as archive:
            _check_fits(sum(member.file_size for member in archive.infolist()), "unpacked it")
        with pd.ExcelFile(path, engine="openpyxl") as book:
            sheets = [sheet.title for sheet in book.book.worksheets]
            sheet = sheets[0] if settings.part is None else settings.part
            if sheet not in sheets:
                raise Refusal(f"part={sheet!r}: there is no such sheet; it has {listed(sheets)}")
            cells = book.parse(sheet, header=None, dtype=object, na_filter=False)
    blank = (cells == "").all(axis=1)
    if blank.all():
        raise Refusal(f"the sheet {sheet!r} is empty; part= takes another of {listed(sheets)}")
    notes = [f"sheet {sheet!r}" + (f" of {listed(sheets)}; part= takes another" if len(sheets) > 1 else "")]
    if cells.shape[1] > 1:
        cells.loc[blank, 0] = None
    text = cells.to_csv(header=False, index=False)
    if cells.shape[1] > 1:
        text = re.sub(r"(?m)^,+$", "", text)
    return _parse_text(text, dataclasses.replace(settings, separator=",", decimal="."), notes)


def _open_arrow(path: Path, settings: Reading) -> Source:
    """Parquet and Feather, of which a batch of rows is read at a time."""
    require("pyarrow", "tables")
    from pyarrow import feather, parquet

    kind = "Feather" if path.name.lower().endswith(".feather") else "Parquet"
    with _reading(kind):
        if kind == "Feather":
            whole = feather.read_table(path, memory_map=True)
            schema, n_rows = whole.schema, whole.num_rows
        else:
            whole = parquet.ParquetFile(path, memory_map=True)
            schema, n_rows = whole.schema_arrow, whole.metadata.num_rows
        empty = schema.empty_table().to_pandas()

    def blocks() -> Iterator["pd.DataFrame"]:
        with _reading(kind):
            batches = whole.to_batches(PARQUET_ROWS) if kind == "Feather" else whole.iter_batches(PARQUET_ROWS)
            for batch in batches:
                frame = batch.to_pandas()
                frame.columns = range(frame.shape[1])
                yield frame

    counts = empty.index.name is None and empty.index.dtype.kind in "iu"  # the rows
    index = None
    if b"pandas" in (schema.metadata or {}) and not counts:
        index = np.concatenate([frame.index.map(str).to_numpy(object) for frame in blocks()] or [np.array([])])
    notes = (f"a {kind} file",) + (("the rows have names of their own",) if index is not None else ())
    return Source(tuple(map(str, empty.columns)), empty.shape[1], n_rows, blocks, notes, index=index)


def _open_npy(path: Path, settings: Reading) -> Source:
    with _reading("NumPy"):
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    if isinstance(array, np.lib.npyio.NpzFile):
        raise Refusal("it is a NumPy archive, which should end with .npz")
    return _array_source(array, ["a NumPy file"])


def _open_npz(path: Path, settings: Reading) -> Source:
    """A table of an archive, and the label; no other array is unpacked."""
    with _reading("NumPy archive"), zipfile.ZipFile(path) as archive:
        shapes = {info.filename.removesuffix(".npy"): _shape(archive, info) for info in archive.infolist()}
    tables = [name for name, (shape, dtype) in shapes.items() if len(shape or ()) == 2 or dtype.names]
    held = listed(f"{name} {'(no array)' if shape is None else shape}" for name, (shape, _) in shapes.items())
    part = settings.part if settings.part is not None else tables[0] if len(tables) == 1 else None
    shape, dtype = shapes.get(part, (None, None))
    if shape is None:
        said = "" if settings.part is None else f"part={part!r}: "
        raise Refusal(f"{said}expected one table (samples, features), or part= its name; it holds {held}")
    _check_fits(math.prod(shape) * dtype.itemsize, f"the array {part!r}")
    labels = None
    with _reading("NumPy archive"), np.load(path, allow_pickle=False) as arrays:
        array = arrays[part]
        if isinstance(settings.label, str) and settings.label in arrays and settings.label != part:
            labels = arrays[settings.label]
            if labels.shape != array.shape[:1]:
                raise Refusal(f"label={settings.label!r}: expected ({len(array)},), got {labels.shape} {labels.dtype}")
            labels = labels.astype(str).astype(object)
    others = f", beside {listed(name for name in shapes if name != part)}" if len(shapes) > 1 else ""
    return _array_source(array, [f"the array {part!r} of a NumPy archive{others}"], labels=labels)


def _shape(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...] | None, np.dtype[Any]]:
    """Shape and dtype of a member, from its header, or None if it is no array."""
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError:
            return None, np.dtype("V")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return shape, dtype


def _array_source(array: np.ndarray, notes: list[str], labels: np.ndarray | None = None) -> Source:
    """An array as a source; the fields of records are columns."""
    shape, dtype = array.shape, array.dtype
    if dtype.names and len(shape) == 1:
        require("pandas", "tables")
        import pandas as pd

        bad = next((name for name in dtype.names if dtype[name].shape or dtype[name].kind not in "fiubSU"), None)
        if bad is not None:
            raise Refusal(f"the field {bad!r}: expected a number or a text, got {dtype[bad]}")
        frame = pd.DataFrame({k: array[name] for k, name in enumerate(dtype.names)})
        notes = [*notes, "its fields are columns"]
        return Source(dtype.names, len(dtype.names), len(array), lambda: iter([frame]), tuple(notes), labels=labels)
    if len(shape) != 2 or 0 in shape or dtype.kind not in "fiub":
        hint = f"; reshape it to {(shape[0], math.prod(shape[1:]))}" if len(shape) > 2 and 0 not in shape else ""
        raise Refusal(f"expected a table of real numbers, (samples, features), got {shape} {cut(dtype, 100)}{hint}")
    mapped = array if isinstance(array, np.memmap) else None

    def blocks() -> Iterator[np.ndarray]:
        return (array[rows] for rows in row_blocks(array))

    return Source((), shape[1], shape[0], blocks, tuple(notes), array=mapped, labels=labels)


def row_blocks(table: np.ndarray) -> Iterator[slice]:
    """Slices of its rows, of some megabytes each."""
    step = rows_at_a_time(table[:1].size)
    return (slice(start, start + step) for start in range(0, len(table), step))


# Words


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{' is' if number == 1 else 's are'}"


def cut(text: object, most: int = 40) -> str:
    """The first characters of a text, on one line, and dots if there are more."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 4].rstrip()} ..."


def listed(names: Iterable[object], most: int = 8) -> str:
    """The first names, and how many more there are."""
    found = [str(name) for name in names]
    return ", ".join(map(cut, found[:most])) + (f" and {len(found) - most:,} more" if len(found) > most else "")
