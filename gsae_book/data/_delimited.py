"""Text tables: what separates their cells, which mark is decimal, and whether the first line names the columns.

pandas parses them. Its own way to find a separator, as that of Python's `csv.Sniffer`, takes the commas of "1,5;2,5"
for it. So each separator and decimal mark is tried on the first lines, and the one stays under which most cells are
numbers and most lines equally long.
"""

import csv
import dataclasses
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Opener = Callable[[str], TextIO]  # opens the text in an encoding, with the ends of lines as they are

SAMPLE = 200  # lines that are looked at first, at most
SEEN, FEW = 200_000, 20  # characters after which no more are, and lines that are in any case
SPACES = " "  # any white space
SEPARATORS = (",", ";", "\t", "|", SPACES)
ONE_COLUMN = "\x1f"  # a separator that no text has
MISSING = (
    *("", "NA", "na", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-NaN", "-nan", "NULL", "Null", "null"),
    *("None", "none", "missing", "Missing", "?", "-", "--", "."),
    *("#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!"),
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", flags=re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")  # 1,234, whose comma may be decimal, or 1,234,567
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', flags=re.IGNORECASE)
LONGEST_CELL = 2**31 - 1  # characters: under a wrong separator a line of a wide table is one cell
LIMITING = threading.Lock()  # Python's limit of a cell is one for all threads
NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", SPACES: "spaces", "": "nothing: one column"}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    names: of its columns, or () without a header; width: cells of a line; separator: "" for a single column; skip:
    lines before the first sample; comments: numbers of lines that are left out, from 0; n_lines: samples at most;
    commas: whether they may be decimal marks all the same; notes: what was understood, a line each.
    """

    encoding: str
    separator: str
    decimal: str
    names: tuple[str, ...]
    width: int
    skip: int
    comments: frozenset[int]
    n_lines: int
    commas: bool
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Lines:
    """The first lines with their numbers, counts of all, and the last comment above them."""

    first: list[tuple[int, str]]
    n_lines: int
    n_blank: int
    comments: list[int]
    last_comment: str


def understand(open_text: Opener, *, separator: str | None, decimal: str | None, header: bool | None) -> Dialect:
    """How a text is written, from its first lines; what is given is not searched for.

    Commas are decimal marks if one of them cannot separate thousands; cells such as 1,234 alone do not tell.

    Raises:
        ValueError: a text without cells, or with a header of another length than its lines; the message says why, and
            not where.
    """
    encoding, lines, notes = _scan(open_text)
    line = SEPARATOR_LINE.fullmatch(lines.first[0][1].strip()) if lines.first else None
    if line and separator in (None, line[1]):  # as Excel reads it
        separator = line[1]
        lines = dataclasses.replace(lines, first=lines.first[1:], n_lines=lines.n_lines - 1)
        notes.append(f"its first line tells the separator, {separator!r}")
    if not lines.first:
        raise ValueError("it is empty" if not lines.comments else "it holds comments alone")
    given = decimal is not None
    separator, decimal, rows, ends = _find_separator(lines, separator, decimal)
    cells = [cell for row in rows for cell in row]
    unsure = not given and all(THOUSANDS.fullmatch(cell) for cell in cells if "," in cell and _is_number(cell, ","))
    mark = "." if unsure else decimal
    seen = any(mark in cell and _is_number(cell, mark) for cell in cells)
    notes += [f"cells are separated by {NAMED.get(separator, repr(separator))}" + f", decimals by {mark!r}" * seen]
    if lines.comments:
        above = f", {cut(lines.last_comment, 120)!r} above the table" if lines.last_comment else ""
        notes.append(f"{_count(len(lines.comments), 'comment')} left out{above}")
    width = Counter(len(row) for row in rows[1:] or rows).most_common(1)[0][0]
    if lines.n_blank and width > 1:
        notes.append(f"{_count(lines.n_blank, 'blank line')} left out")
    told = header is not None
    header = _is_header(rows, decimal) if header is None else header
    how = "" if told else f"; header={not header} says otherwise"
    notes.append(f"the first line is a {'header' if header else 'sample'}: {cut(', '.join(rows[0]), 120)}{how}")
    names: tuple[str, ...] = ()
    if header:
        names, width = _fit_names(rows, width, notes)
    elif lines.last_comment:
        noted = _split([lines.last_comment.lstrip("# ")], separator)[0][0]
        if len(noted) == width > 1 and not any(_is_number(cell, decimal) for cell in noted):
            names = tuple(noted)
            notes.append("the comment above names the columns")
    skip = lines.first[ends[0] - 1][0] + 1 if header else lines.first[0][0]
    count = lines.n_lines - (ends[0] if header else 0) + (lines.n_blank if width == 1 else 0)
    commas = not given and not any(map(_has_no_decimal_comma, cells))
    left_out = frozenset(lines.comments)
    return Dialect(encoding, separator, mark, names, width, skip, left_out, count, commas, tuple(notes))


def read_frames(open_text: Opener, dialect: Dialect, texts: Sequence[int], rows: int) -> Iterator["pd.DataFrame"]:
    """The samples, some rows at a time, in columns that are numbered; `texts` are columns that stay as they are.

    Raises:
        ValueError: a line with too many cells.
    """
    import pandas as pd

    settings: dict[str, Any] = {
        "sep": r"\s+" if dialect.separator == SPACES else dialect.separator or ONE_COLUMN,
        "decimal": dialect.decimal,
        "header": None,
        "names": range(dialect.width),
        "index_col": False,
        "skipinitialspace": True,
        "keep_default_na": False,
        "na_values": {k: list(MISSING) for k in range(dialect.width) if k not in texts} if texts else list(MISSING),
        "dtype": dict.fromkeys(texts, str),
        "skip_blank_lines": dialect.width > 1,
        "low_memory": False,
        "chunksize": rows,
    }
    with open_text(dialect.encoding) as file, warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
        samples = (line for k, line in enumerate(file) if k >= dialect.skip and k not in dialect.comments)
        try:
            yield from pd.read_csv(_Text(_without_last_blanks(samples, dialect.separator)), **settings)
        except pd.errors.EmptyDataError:
            return
        except pd.errors.ParserWarning:  # the first line of all is longer than the others
            raise ValueError(f"row 0 has more than {dialect.width} cells, as many as the others") from None
        except pd.errors.ParserError as error:
            found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
            if not found:
                raise ValueError(str(error).strip()) from None
            line = int(found[2]) + dialect.skip
            line += sum(dialect.skip <= comment < line for comment in sorted(dialect.comments))
            raise ValueError(f"line {line} has {found[3]} cells, and {found[1]} are expected") from None


class _Text:
    """Lines as the file that pandas reads."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines, self.rest = iter(lines), ""

    def __iter__(self) -> Iterator[str]:
        return self.lines

    def read(self, size: int = -1) -> str:
        """The next `size` characters, or all."""
        parts, length = [self.rest], len(self.rest)
        for line in self.lines if size < 0 or length < size else ():
            parts.append(line)
            length += len(line)
            if 0 <= size <= length:
                break
        text = "".join(parts)
        self.rest = text[size:] if size >= 0 else ""
        return text[:size] if size >= 0 else text


def _without_last_blanks(lines: Iterable[str], separator: str) -> Iterator[str]:
    """The lines, without blank ones at the end, which are no samples in a single column either."""
    held: list[str] = []
    blanks = " \r\n" if separator == "\t" else None  # any white space
    for line in lines:
        if not line.strip(blanks):
            held.append(line)
            continue
        yield from held
        held.clear()
        yield line


def _scan(open_text: Opener) -> tuple[str, _Lines, list[str]]:
    """The encoding, the first lines and counts, and notes."""
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            with open_text(encoding) as file:
                lines = _count_lines(file, comments=True)
            start = lines.first[0][0] if lines.first else 0
            if sum(number >= start for number in lines.comments) > lines.n_lines:  # such as colours, #aa00ff
                with open_text(encoding) as file:
                    lines = _count_lines(file, comments=False)
            return encoding, lines, [] if encoding == "utf-8-sig" else ["it is not UTF-8, and read as Windows-1252"]
        except UnicodeDecodeError:
            continue
    raise ValueError("it is neither UTF-8 nor Windows-1252")


def _count_lines(file: TextIO, *, comments: bool) -> _Lines:
    first: list[tuple[int, str]] = []
    found, last, n_lines, n_blank, pending, seen = [], "", 0, 0, 0, 0
    for number, line in enumerate(file):
        if line.isspace() and not line.strip(" \r\n"):
            pending += 1
            continue
        if comments and line[0] == "#":
            found.append(number)
            last = last if n_lines else line.strip()
            continue
        n_blank, pending = n_blank + (pending if n_lines else 0), 0
        n_lines += 1
        if len(first) < SAMPLE and (len(first) < FEW or seen < SEEN):
            seen += len(line)
            if "\0" in line:
                raise ValueError("it holds bytes that are no text")
            first.append((number, line))
    return _Lines(first, n_lines, n_blank, found, last)


def _find_separator(
    lines: _Lines, separator: str | None, decimal: str | None
) -> tuple[str, str, list[list[str]], list[int]]:
    """Separator, decimal mark, the cells of the first records, and at which of the lines each of those ends."""
    texts = [line for _, line in lines.first]
    best: tuple[float, str, str, list[list[str]], list[int]] | None = None
    for sep in (*SEPARATORS, "") if separator is None else (separator,):
        rows, ends = _split(texts, sep)
        if len(rows) > 1 and len(texts) < lines.n_lines:
            rows, ends = rows[:-1], ends[:-1]  # the last may go on
        if separator is None and (max(map(len, rows)) < 2 if sep else _is_cut(rows[0][0])):
            continue
        for mark in (".", ",") if decimal is None else (decimal,):
            score = _score(rows, mark)
            if best is None or score > best[0] + 1e-9:
                best = score, sep, mark, rows, ends
    assert best is not None
    return best[1:]


def _is_cut(line: str) -> bool:
    """Whether a first line has a separator, without which its text would not be one name."""
    return any(sep in line for sep in SEPARATORS if sep != SPACES) and not _is_number(line, ",")


def _split(lines: Sequence[str], separator: str) -> tuple[list[list[str]], list[int]]:
    """Cells of the records in lines, and the number of lines up to the end of each."""
    if separator == SPACES:
        rows = [[cell.strip('"') for cell in re.findall(r'"[^"]*"|\S+', line)] for line in lines]
        return rows, list(range(1, len(lines) + 1))
    reader = csv.reader(lines, delimiter=separator or ONE_COLUMN, skipinitialspace=True)
    rows, ends = [], []
    with LIMITING:
        limit = csv.field_size_limit(LONGEST_CELL)
        try:
            for row in reader:
                rows.append([cell.strip() for cell in row])
                ends.append(reader.line_num)
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        finally:
            csv.field_size_limit(limit)
    return rows, ends


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


def _fit_names(rows: Sequence[Sequence[str]], width: int, notes: list[str]) -> tuple[tuple[str, ...], int]:
    """The names in the first line, one for each cell of the others, "" where there is none, and how many."""
    names, body = list(rows[0]), rows[1:]
    if not body:
        return tuple(names), len(names)
    if len(names) == width - 1:
        firsts = [row[0] for row in body]
        counts = [str(k) for k in range(int(firsts[0]), int(firsts[0]) + len(body))] if firsts[0].isdecimal() else []
        if all(len(row) < width or not row[-1] for row in body):
            names.append("")
        elif firsts == counts or not any(NUMBER.fullmatch(cell) for cell in firsts):
            names.insert(0, "")
            notes.append("the header leaves out the first column")
    while len(names) > width and not names[-1]:
        names.pop()
    if len(names) != width:
        told = f"the header names {len(names)} columns, and the lines have {width} cells"
        raise ValueError(f"{told}: {cut(', '.join(names), 120)}; name them all, or take the line out")
    return tuple(names), width


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{' is' if number == 1 else 's are'}"


def cut(text: object, most: int = 40) -> str:
    """The first characters of a text, on one line, and dots if there are more."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 4].rstrip()} ..."
