"""Sweeps: points of a specification, checked before anything runs, kept by their keys, and never run twice.

A folder holds ``spec.yaml``, ``keys.txt`` (the keys of its points, in order) and ``points/KEY.json``. The key of a
point is a hash of its target's code, its values, the files that these name, and the versions of packages: other code is
another key, so that what lies there is never taken for what the code of today gives.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsae_book.runs.files import Busy, locked
from gsae_book.runs.functions import (
    to_plain,
)
from gsae_book.runs.parameters import (
    ParameterError,
    shown,
)
from gsae_book.runs.specification import Point, Sweep, Target
from gsae_book.runs.targets import check_target
from gsae_lib._files import replace_file

LOCK = "sweep.lock"


@dataclass(frozen=True)
class Counts:
    """How many points there are, how many are done, how many of these were so before, and which failed."""

    n_points: int
    n_done: int
    n_before: int
    failed: tuple[str, ...]


def check_folder(out: Path) -> None:
    """Return if a sweep may write to the folder ``out``: a new or empty one, or a sweep's.

    Raises: ParameterError otherwise, and as `check_target`.
    """
    refused = f"-o = {shown(str(out))} is not allowed: it must be"
    if out.is_symlink() and not out.exists():
        raise ParameterError(f"{refused} a folder")
    for name in ("spec.yaml", "keys.txt", LOCK, f"points/{'0' * 64}.failed.ipynb.tmp"):
        check_target("-o", out / name, replace=True)
    if os.path.lexists(out) and not out.is_dir():
        raise ParameterError(f"{refused} a folder")
    real = Path(os.path.realpath(out))  # NEW/../FOLDER is FOLDER as soon as NEW is made
    if real.is_dir() and any(real.iterdir()) and not (real / LOCK).is_file():
        raise ParameterError(f"{refused} new, empty, or the folder of a sweep")


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
) -> Counts:
    """Run the points of ``sweep`` that are not in ``out`` yet, and write each there as it ends.

    At most ``jobs`` at a time (by default one for each core), or on the workers of the dask scheduler at an address.

    Raises: ParameterError if another sweep writes to ``out``, or no scheduler answers; SweepError if the workers cannot
    run it; OSError if a result cannot be written.
    """
    from gsae_book.runs.workers import open_client, run_points

    folder = out / "points"
    out.mkdir(parents=True, exist_ok=True)
    with _only_sweep(out), contextlib.ExitStack() as stack:
        folder.mkdir(exist_ok=True)  # after the lock, by which a folder is known as a sweep's
        states = {point.key: (read_point(folder, point.key) or {}).get("status") for point in sweep.points}
        finished = ("done",) if retry_failed else ("done", "failed")
        todo = [point for point in sweep.points if states[point.key] not in finished]
        before = sum(state == "done" for state in states.values())
        client = stack.enter_context(open_client(jobs, len(todo), scheduler)) if todo else None
        for left in folder.glob(f"{'?' * 64}.*.tmp"):  # by a driver that was killed
            left.unlink()
        replace_file(out / "spec.yaml", sweep.text)
        replace_file(out / "keys.txt", "".join(f"{point.key}\n" for point in sweep.points))
        for point, result in run_points(client, sweep, todo) if client else ():
            _write_point(folder, sweep.target, point, result)
            states[point.key] = result["status"]
    failed = tuple(key for key, state in states.items() if state == "failed")
    return Counts(len(states), sum(state == "done" for state in states.values()), before, failed)


def read_point(folder: Path, key: str) -> dict[str, Any] | None:
    """Return what ``folder`` holds of the point ``key``, or None: also if that is damaged."""
    try:
        content = json.loads((folder / f"{key}.json").read_text(encoding="utf8"))
        whole = content["key"] == key and isinstance(content["values"], dict)
        if whole and content["status"] == "done":
            from gsae_book.runs.recording import is_result

            whole = is_result(content)
        return content if whole and content["status"] in ("done", "failed") else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_point(folder: Path, target: Target, point: Point, result: Mapping[str, Any]) -> None:
    from gsae_book.runs.recording import to_json

    kept = {name: value for name, value in result.items() if name != "notebook"}
    failed = folder / f"{point.key}.failed.ipynb"
    if text := result.get("notebook"):
        replace_file(folder / f"{point.key}.ipynb" if result["status"] == "done" else failed, text)
    values = {name: to_plain(value) for name, value in point.values.items()}
    content = {"key": point.key, "target": target.name, "values": values, "given": list(point.given), **kept}
    replace_file(folder / f"{point.key}.json", to_json(content) + "\n")
    if result["status"] == "done":
        failed.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_sweep(out: Path) -> Iterator[None]:
    try:
        with locked(out / LOCK):
            yield
    except Busy:
        raise ParameterError(f"-o = {shown(str(out))}: another sweep is writing there") from None
