"""What a notebook measures, kept for its text, for the run's JSON and for the book's verdicts; and long runs' files."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsae_book.runs.environment import about, find_root
from gsae_lib._files import replace_file

if TYPE_CHECKING:
    import pandas as pd

GLUE_PREFIX = "application/papermill.record/"
METADATA_KEY = "gsae"

POINT = ("point.key", "point.seconds", "point.commit", "point.processor")

Value = bool | int | float | str


def record(name: str, value: Any, spread: float | None = None) -> None:
    r"""Record a measurement under ``name``: a number, ``value ± spread``, a text, or true or false.

    A list or one-dimensional array ``value`` holds one number for each independent run, and is recorded as its mean
    ± its sample standard deviation (with one less than the number of runs below the sum of squares).

    In a notebook it emits one invisible output, which the text glues with ``{glue:text}`name` `` (a number
    without spread takes a format: ``{glue:text}`name:.2f` ``) and which a run collects in its JSON. Elsewhere it
    prints ``name = value``. ``value`` and ``spread`` may be 0-d arrays or tensors.

    A cell that records a time carries the tag ``nbval-ignore-output``: times never repeat.

    Raises: ValueError for a name that is not lower_case_with_underscores, a number that is not finite, fewer than two
    runs, or a spread beside runs; TypeError for a value of another type.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"a record's name is lower case letters, digits and underscores, not {name!r}")
    if isinstance(value, list) or getattr(value, "ndim", None) == 1:
        value, spread = _mean_and_spread(name, value, spread)
    value, spread = _plain(name, value), _plain_spread(name, spread)
    if spread is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"record {name!r} has the spread {spread}, but its value {value!r} is not a number")
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        print(f"{name} = {format_value(value, spread)}")
        return
    from IPython.display import publish_display_data

    # What myst_nb.glue(name, text, display=False) puts out, which would bring the builder of pages into every kernel.
    # The numbers travel as metadata: nbval compares data exactly, and the rounded text is what has to repeat.
    publish_display_data(
        {GLUE_PREFIX + "text/plain": format_value(value, spread)},
        metadata={
            "scrapbook": {"name": name, "mime_prefix": GLUE_PREFIX},
            METADATA_KEY: {"name": name, "value": value, "spread": spread},
        },
    )


def collect_metrics(cells: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what the executed ``cells`` recorded: name -> {"value": ..., "spread": ...}.

    Raises: ValueError if a name was recorded twice.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for cell in cells:
        for output in cell.get("outputs", ()):
            metric = output.get("metadata", {}).get(METADATA_KEY)
            if metric is None:
                continue
            if metric["name"] in metrics:
                raise ValueError(f"the name {metric['name']!r} is recorded twice; each record needs its own")
            metrics[metric["name"]] = {"value": metric["value"], "spread": metric["spread"]}
    return metrics


def format_value(value: Value, spread: float | None = None) -> str:
    """Return ``value`` to four significant digits, or with ``spread`` to two digits of the spread.

    >>> format_value(0.85321, 0.0213)
    '0.853 ± 0.021'
    """
    if isinstance(value, bool | str) or (isinstance(value, int) and spread is None) or not math.isfinite(value):
        return str(value)
    if spread is None:
        return _number(value, _decimals(value, 4))
    # A spread of zero, or one far below the value's own digits, must not print twenty decimals.
    decimals = min(_decimals(spread, 2), _decimals(value, 4) + 2) if spread else _decimals(value, 4)
    shown = _number(value, decimals)
    return f"{shown} ± {_number(spread, decimals) if 'e' in shown else f'{spread:.{max(decimals, 0)}f}'}"


def write_rows(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the results of long runs as JSON, one row a line under ``name``, beside "about": when, where, which commit.

    A number that is not finite, which JSON does not have, is null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(to_json(row) for row in rows)
    replace_file(path, f'{{"about": {to_json(about())},\n"{name}": [\n{lines}\n]}}\n')


def read_points(path: Path) -> list[dict[str, Any]]:
    """Return the points of the file of a record (`gsae_book.runs.records`), or none if there is no such file.

    The ``key`` of a point is its number there.

    Raises: ValueError for another file.
    """
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        points = [
            point | {"key": str(k), "about": content["about"][point["about"]]}
            for k, point in enumerate(content["points"])
        ]
        for point in points:
            if isinstance(rows := point["rows"], dict):  # a list for each name
                point["rows"] = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
            if not is_result(point):
                raise ValueError(f"point {point['key']} has no values, rows or seconds that can be")
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is no file of a record: {type(error).__name__}: {error}") from None
    return points


def is_result(point: Mapping[str, Any]) -> bool:
    """Say whether a point has what a finished one has: values, rows, how long it took, where and by which code."""
    seconds, about, rows = point["seconds"], point["about"], point["rows"]
    whole = isinstance(point["values"], dict) and isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    timed = seconds is None or (isinstance(seconds, int | float) and not isinstance(seconds, bool))
    return whole and timed and isinstance(about, dict) and {"commit", "processor"} <= about.keys()


def tabulate(points: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows of finished ``points`` as one table, each beside the values of its point.

    A value that is a list becomes its JSON; what the rows have in lists stays.
    """
    import pandas as pd

    names = list(dict.fromkeys(name for point in points for name in point["values"]))
    rows = [(point, row) for point in points for row in point["rows"]]
    repeated = {
        name for name in names if all(name not in row or row[name] == point["values"].get(name) for point, row in rows)
    }
    table = pd.DataFrame([_row(point, row, names, repeated) for point, row in rows])
    empty = [name for name in table if table[name].isna().all()]
    return table.astype(dict.fromkeys(empty, float))


def read_rows(path: str, name: str = "rows") -> pd.DataFrame:
    """Return the recorded rows of the file at ``path``, in the order of their seeds, if they have any; null is NaN.

    ``path`` counts from the project's folder. Of the file of a record (`gsae_book.runs.records`) it is the table that
    `tabulate` makes of all points but canaries; of what `write_rows` wrote, the rows under ``name``.
    """
    import pandas as pd

    place = find_root() / path
    content = json.loads(place.read_text(encoding="utf8"))
    if "points" in content:
        rows = tabulate([point for point in read_points(place) if not point.get("canary")])
    else:
        rows = pd.DataFrame(content[name])
    rows = rows.where(rows.notna(), np.nan)
    return rows.sort_values("seed", kind="stable", ignore_index=True) if "seed" in rows else rows


def to_json(content: Any, indent: int | None = None) -> str:
    """Return ``content`` as JSON, with null for each number that is not finite."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def select(rows: pd.DataFrame, **tags: Any) -> pd.DataFrame:
    """Return the rows whose columns equal the ``tags``.

    Raises: ValueError if there is none; names the tag that leaves none, its value and what the column then holds.
    """
    for column, value in tags.items():
        found = rows[rows[column] == value]
        if found.empty:
            values = ", ".join(map(str, rows[column].unique()))
            raise ValueError(f"{column}={value!r}: not in these rows, which have {values}")
        rows = found
    return rows


def _row(point: dict[str, Any], row: dict[str, Any], names: Sequence[str], repeated: set[str]) -> dict[str, Any]:
    values = {name: point["values"].get(name) for name in names}
    values = {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
    about = point["about"]
    told = (point["key"], point["seconds"], about["commit"], about["processor"])
    metrics = {
        (f"result.{name}" if name in names else name): value for name, value in row.items() if name not in repeated
    }
    return values | dict(zip(POINT, told, strict=True)) | metrics


def _decimals(value: float, digits: int) -> int:
    return digits - 1 - math.floor(math.log10(abs(value))) if value else 1


def _number(value: float, decimals: int) -> str:
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{max(decimals, 0)}f}"


def _plain(name: str, value: Any) -> Value:
    """Return a built-in value that JSON can hold."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str | bool):
        return value
    if not isinstance(value, int | float):
        raise TypeError(f"record {name!r} takes a number, a text, or true or false, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"record {name!r} takes a finite number, not {value}")
    return value


def _mean_and_spread(name: str, runs: Any, spread: float | None) -> tuple[float, float]:
    runs = np.asarray(runs, dtype=float)
    if len(runs) < 2 or spread is not None:
        raise ValueError(f"record {name!r} takes two or more runs and no spread, not {len(runs)} and {spread}")
    return float(runs.mean()), float(runs.std(ddof=1))


def _plain_spread(name: str, spread: Any) -> float | None:
    if spread is None:
        return None
    spread = _plain(name, spread)
    if isinstance(spread, str | bool) or spread < 0:
        raise ValueError(f"the spread of {name!r} is a number that is not negative, not {spread!r}")
    return spread
