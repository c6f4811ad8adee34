"""What sweeps gave, as one tidy table; a figure of it; and what moved between two of them.

Columns: the parameters; ``point.key``, ``point.seconds``, ``point.commit``, ``point.processor``; the metrics. Numbers
that a point repeats of its parameters are no metrics; a metric with the name of a parameter has ``result.`` before it.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsae_book.runs.parameters import ParameterError, shown
from gsae_book.runs.recording import POINT, format_value, read_points, tabulate
from gsae_book.runs.specification import describe
from gsae_book.runs.sweep import read_point

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MACHINE = ("seconds", "mib")  # how names of metrics end that depend on the machine
STANDARD_ERRORS = 3
MAX_CURVES = 10
MAX_COLUMNS = 10_000  # of a table that is read


@dataclass(frozen=True)
class Collation:
    """The table of a sweep, and how many of its points are done and have not run, and how many others lie there.

    target: the name of what was run. failed: of each point that failed, what the specification gave and the error.
    """

    table: pd.DataFrame
    n_done: int
    n_missing: int
    n_others: int
    target: str
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """One metric of the runs that agree in all but the seed, in two sweeps: mean and sample standard deviation.

    moved: the means differ by more than three standard errors of their difference, or one of them is no number.
    """

    where: str
    metric: str
    means: tuple[float, float]
    spreads: tuple[float, float]
    moved: bool


def collate(folder: Path) -> Collation:
    """Return the results of the sweep in ``folder``, one row each, in the order of its specification.

    Raises: ParameterError if ``folder`` is not that of a sweep.
    """

    try:
        keys = list(dict.fromkeys((folder / "keys.txt").read_text(encoding="utf8").split()))
    except (OSError, ValueError):
        raise ParameterError(f"{shown(str(folder))} is not the folder of a sweep") from None
    points = [point for key in keys if (point := read_point(folder / "points", key))]
    done = [point for point in points if point["status"] == "done"]
    table = _flat(tabulate(done))
    n_others = len({path.stem for path in (folder / "points").glob("*.json")} - {*keys})
    failed = [point for point in points if point["status"] == "failed"]
    told = tuple((_given(point), str(point.get("error", ""))) for point in failed)
    target = str(points[0].get("target", "")) if points else ""
    return Collation(table, len(done), len(keys) - len(points), n_others, target, told)


def read_table(path: Path) -> pd.DataFrame:
    """Return the table of a sweep: its folder's, or one that was written as CSV or Parquet.

    Raises: ParameterError for anything else.
    """
    import pandas as pd

    if path.is_dir():
        table = collate(path).table
    else:
        try:
            if path.suffix == ".json":
                table = _flat(tabulate([point for point in read_points(path) if not point.get("canary")]))
            elif path.suffix == ".parquet":
                table = pd.read_parquet(path)
            else:
                if not path.is_file():
                    raise ValueError("it is no file")
                with path.open("rb") as file:  # more cells than names would be an index of so many levels
                    if max(line.count(b",") for line in (file.readline(), file.readline())) >= MAX_COLUMNS:
                        raise ValueError(f"it has more than {MAX_COLUMNS} columns")
                table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]).apply(_read_column)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ParameterError(f"cannot read {shown(str(path))}: {str(error).splitlines()[0]}") from None
    if table.empty or POINT[0] not in table:
        raise ParameterError(f"{shown(str(path))} is not the table of a sweep, or holds no results")
    return table


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``table`` as CSV or Parquet, by the suffix of ``path``, in one step.

    A column of numbers and texts, which Parquet does not have, becomes one of texts there.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as aside:
        temporary = Path(aside) / path.name
        if path.suffix == ".parquet":
            mixed = [n for n in table if table[n].dtype == object and {*table[n].dropna().map(type)} != {bool}]
            table = table.assign(**{name: table[name].map(_text, na_action="ignore") for name in mixed})
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)
        temporary.replace(path)


def split_columns(table: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the parameters, of the metrics that are numbers, and of those that are texts."""
    columns = list(table.columns)
    start = columns.index(POINT[0])
    metrics = [name for name in columns[start:] if name not in POINT]
    numbers = [name for name in metrics if table[name].dtype.kind in "biuf"]
    return columns[:start], numbers, [name for name in metrics if name not in numbers]


def compare(a: pd.DataFrame, b: pd.DataFrame) -> tuple[list[Comparison], int, list[str]]:
    """Compare two tables of sweeps where the parameters other than seeds agree.

    Returned with it: how many settings one of them alone has, and the names of the metrics of one of them alone.

    Moved is what differs by more than three standard errors, the root of s_a^2 / n_a + s_b^2 / n_b with the sample
    standard deviations s over n seeds. A single run counts as without spread. Times and memory never count as moved.
    Where a point has several rows, metrics of text tell them apart; otherwise the share of each text is a metric.

    Raises: ParameterError if the tables share no points or no metric, or if one has a parameter with several values
    that the other lacks.
    """
    (names_a, numbers_a, texts_a), (names_b, numbers_b, texts_b) = split_columns(a), split_columns(b)
    for table, name in [*((a, n) for n in set(names_a) - {*names_b}), *((b, n) for n in set(names_b) - {*names_a})]:
        if table[name].nunique(dropna=False) > 1:
            raise ParameterError(f"one of them has several values of {name}, which the other lacks")
    by = [name for name in names_a if name in names_b and not is_seed(name)]
    metrics = [name for name in numbers_a if name in numbers_b]
    texts = [name for name in texts_a if name in texts_b]
    lone = sorted({*numbers_a, *texts_a, *numbers_b, *texts_b} - {*metrics, *texts})
    if any(t.duplicated(names).any() if names else len(t) > 1 for t, names in ((a, names_a), (b, names_b))):
        by += texts
    else:
        values = {n: sorted({*a[n].dropna(), *b[n].dropna()}, key=_text) for n in texts}
        shares = {f"{n}={_text(value)}": (n, value) for n in texts for value in values[n]}
        metrics += shares
        a, b = (t.assign(**{key: (t[n] == text).astype(float) for key, (n, text) in shares.items()}) for t in (a, b))
    groups_a, groups_b = ({tuple(map(_text, key)): g for key, g in _groups(table, by)} for table in (a, b))
    shared = [key for key in groups_a if key in groups_b]
    if not shared or not metrics:
        raise ParameterError(f"they share no {'points' if metrics else 'metric'}")
    varied = [k for k in range(len(by)) if len({key[k] for key in shared}) > 1]
    found = []
    for key in shared:
        where = ", ".join(f"{by[k]}={key[k]}" for k in varied) or "all"
        values = (
            (metric, *(groups[key][metric].astype(float) for groups in (groups_a, groups_b))) for metric in metrics
        )
        found += [_compare(where, *one) for one in values]
    return found, len(groups_a.keys() ^ groups_b.keys()), lone


def means_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return what varies but seeds, how many rows agree in it, and each metric as mean ± sample standard deviation."""
    import pandas as pd

    names, numbers, texts = split_columns(table)
    by = [name for name in (*names, *texts) if not is_seed(name) and table[name].nunique(dropna=False) > 1]
    rows = [
        dict(zip(by, map(_text, key), strict=True))
        | {"seeds": len(group)}
        | {name: format_value(group[name].mean(), _spread(group[name]) or None) for name in numbers}
        for key, group in _groups(table, by)
    ]
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame, metric: str, over: Sequence[str]) -> Figure:
    """Draw the mean of ``metric`` over one parameter, with one sample standard deviation, or over two as a map.

    There is a curve for each combination of what else varies, seeds apart.

    Raises: ParameterError for names that the table lacks, or if there would be more than ten curves.
    """
    import matplotlib.pyplot as plt

    from gsae_book.build.figures import PALETTE, heat_maps, set_style

    names, numbers, texts = split_columns(table)
    if metric not in numbers:
        raise ParameterError(f"--plot = {shown(metric)} is not allowed: it must be one of {', '.join(numbers)}")
    if not 1 <= len({*over}) == len(over) <= 2 or not {*over} <= {*names, *texts}:
        raise ParameterError(f"--over = {shown(','.join(over))} is not allowed: one or two of {', '.join(names)}")
    set_style()
    if len(over) == 2:
        means = table.pivot_table(metric, over[1], over[0], aggfunc="mean")
        return heat_maps({metric: means}, xlabel=over[0], ylabel=over[1], formats=".3g", upwards=True)
    others = [n for n in (*names, *texts) if n != over[0] and not is_seed(n) and table[n].nunique(dropna=False) > 1]
    curves = list(_groups(table, others))
    if len(curves) > MAX_CURVES:
        raise ParameterError(
            f"--over {over[0]} leaves {len(curves)} curves, of {', '.join(others)}: at most {MAX_CURVES}"
        )
    fig, ax = plt.subplots()
    for k, (key, rows) in enumerate(curves):
        found = rows.groupby(over[0])[metric].agg(["mean", "std"]).fillna({"std": 0.0})
        found.index = found.index.map(_text) if found.index.dtype == object else found.index
        label = ", ".join(
            f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in zip(others, key, strict=True)
        )
        ax.plot(found.index, found["mean"], ("-", "--", "-.", ":")[k % 4], color=PALETTE[k % len(PALETTE)], label=label)
        low, high = found["mean"] - found["std"], found["mean"] + found["std"]
        ax.fill_between(found.index, low, high, color=PALETTE[k % len(PALETTE)], alpha=0.2, linewidth=0)
    ax.set(xlabel=over[0], ylabel=metric)
    if others:
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def _given(point: dict[str, Any]) -> str:
    return describe({name: point["values"].get(name) for name in point.get("given", [])})


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` without what is a list or a mapping."""
    deep = [name for name in table if table[name].map(lambda item: isinstance(item, list | dict)).any()]
    return table.drop(columns=deep)


def _compare(where: str, metric: str, a: pd.Series, b: pd.Series) -> Comparison:
    means, spreads = (a.mean(), b.mean()), (_spread(a), _spread(b))
    error = math.sqrt(sum(s**2 / max(n.count(), 1) for s, n in zip(spreads, (a, b), strict=True)))
    difference, rounding = abs(means[0] - means[1]), 1e-12 * max(map(abs, means))
    moved = difference > max(STANDARD_ERRORS * error, rounding) or math.isnan(means[0]) != math.isnan(means[1])
    return Comparison(where, metric, means, spreads, bool(moved) and not metric.endswith(MACHINE))


def _spread(values: pd.Series) -> float:
    return float(values.std()) if values.count() > 1 else 0.0


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    return iter(table.groupby(list(by), dropna=False, sort=False)) if by else iter([((), table)])


def _read_column(column: pd.Series) -> pd.Series:
    """Return a column of texts as what was written: numbers, True and False, or texts, such as "true" and "None"."""
    texts = {*column.dropna()}
    if texts and texts <= {"True", "False"}:
        return column.map({"True": True, "False": False})
    for kind in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            return column.astype(kind)
    return column


def _text(value: Any) -> str:
    """Return a value as it is compared: 10.0 as 10, since a column of integers with a gap holds other numbers."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return str(int(value)) if whole else str(value)


def is_seed(name: str) -> bool:
    return name.rpartition(".")[2] == "seed"
