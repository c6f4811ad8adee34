"""Recorded results: what the sweeps beside the experiments gave, one file of results/paper each, and whether they hold.

A file holds the points of its specification, each with its values, its rows, and the number of what there is to know
about its run: date, commit, processor, versions, and a hash of the code behind it. A point that is there is not run
again, whatever code has changed since, unless its commit was not all of its code; a few points, the canaries of the
specification, tell whether it still gives what is recorded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import annotated_types as at

from gsae_book.runs.environment import about, commit
from gsae_book.runs.files import lock_beside, locked
from gsae_book.runs.functions import function_parts, to_plain
from gsae_book.runs.parameters import (
    REQUIRED,
    Parameter,
    ParameterError,
    check_values,
    parse_yaml,
    read_text,
    shown,
)
from gsae_book.runs.recording import read_points, to_json
from gsae_book.runs.specification import (
    Point,
    Sweep,
    as_list,
    as_mapping,
    check_names,
    check_point,
    hash_content,
    read_sweep,
)
from gsae_book.runs.sweep import read_point, run_sweep
from gsae_lib._files import replace_file

SPECS = "experiments/*/*.yaml"
RESULTS = Path("results/paper")
VERIFIED = Path("results/verified.json")
WORK = Path("_build/records")
SETTINGS = {
    "jobs": Parameter("jobs", Annotated[int, at.Ge(1)] | None, None),
    "needs": Parameter("needs", list[str], []),
    "relative": Parameter("relative", Annotated[float, at.Ge(0)], 1e-3),
    "absolute": Parameter("absolute", Annotated[float, at.Ge(0)], 1e-6),
}
MACHINE = {"seconds", "mib", "processor", "commit", "partition"}  # words in names of what depends on the machine


@dataclass(frozen=True)
class Record:
    """The specification ``name``: its sweep, its canaries, the file of its results, and the data sets that it needs.

    A canary is as recorded if each of its numbers is within ``relative`` times the recorded one, or ``absolute``.
    """

    name: str
    sweep: Sweep
    canaries: tuple[Point, ...]
    path: Path
    spec: Path
    jobs: int | None
    needs: list[str]
    relative: float
    absolute: float

    def points(self) -> dict[str, Point]:
        """Return all points by what identifies them, canaries too."""
        points = (*self.sweep.points, *self.canaries)
        return {self.identity({n: to_plain(v) for n, v in point.values.items()}): point for point in points}

    def identity(self, values: Mapping[str, Any]) -> str:
        """Return the text by which a point is known: its values, and defaults where it was run before there was one."""
        declared = self.sweep.target.declared.items()
        defaults = {
            name: to_plain(parameter.default) for name, parameter in declared if parameter.default is not REQUIRED
        }
        return to_json(dict(sorted({**defaults, **values}.items())))


@dataclass(frozen=True)
class Verification:
    """What the canaries of a record gave: how many points and numbers were compared, and what moved.

    largest: the largest difference, in units of what is allowed.
    """

    n_points: int
    n_numbers: int
    largest: float
    moved: tuple[str, ...]


def record_names(root: Path) -> list[str]:
    """Return the names of the specifications in ``root``, experiments/ROOM/NAME.yaml."""
    return sorted(_specifications(root))


def _specifications(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in root.glob(SPECS)}


def read_record(name: str, root: Path) -> Record:
    """Return the record ``name``, its points and canaries checked.

    Raises: ParameterError, of one line, if there is none, or for the first thing that is wrong.
    """
    path = _specifications(root).get(name)
    if path is None:
        raise ParameterError(f"there is no record {shown(name)}; known are {', '.join(record_names(root))}")
    sweep = read_sweep(path, root)
    try:
        section = as_mapping(parse_yaml(read_text(path), path).get("record"), "record")
        check_names(section, (*SETTINGS, "canaries"), "part of record")
        settings = check_values(SETTINGS, {name: section[name] for name in SETTINGS if name in section})
        given = [as_mapping(one, "a canary") for one in as_list(section.get("canaries"), "canaries")]
        canaries = tuple(check_point(sweep.target, one) for one in given)
    except ParameterError as error:
        raise ParameterError(f"{path}: {'; '.join(str(error).splitlines())}") from None
    return Record(name, sweep, canaries, root / RESULTS / f"{name}.json", path.relative_to(root), **settings)


def write_points(path: Path, spec: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Write ``points``, as `recording.read_points` returns them, one a line; rows that are alike as lists of each."""
    runs: list[Any] = []
    for point in points:
        if point["about"] not in runs:
            runs.append(point["about"])
    lines = []
    for point in points:
        rows = point["rows"]
        alike = len(rows) > 1 and len({tuple(row) for row in rows}) == 1
        told = {name: [row[name] for row in rows] for name in rows[0]} if alike else rows
        named = {name: value for name, value in point.items() if name != "key"}
        lines.append(to_json(named | {"about": runs.index(point["about"]), "rows": told}))
    head = ",\n".join(map(to_json, runs))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f'{{"spec": "{spec.as_posix()}",\n"about": [\n{head}\n],\n"points": [\n' + ",\n".join(lines) + "\n]}\n"
    replace_file(path, text)


def record_missing(record: Record, root: Path, *, jobs: int | None = None, again: bool = False) -> tuple[int, int]:
    """Run the points that the file of ``record`` lacks, or all; add them, and return how many ran and failed.

    A point that was run from a tree with other changes is lacking, too. It stands, as any, until its new one is done.
    What has ended is kept in ``_build/records`` and not run again by the next call, whatever ended this one.

    Raises: ParameterError if the working tree differs from its commit; and as `run_sweep`.
    """
    if _differs(commit(root)):
        raise ParameterError("results are recorded from a commit: the working tree has other changes")
    folder = root / WORK / record.name
    points = record.points()
    kept = {record.identity(point["values"]): point for point in read_points(record.path)}
    sound = {identity for identity, point in kept.items() if not _differs(point["about"]["commit"])}
    todo = {identity: point for identity, point in points.items() if again or identity not in sound}
    code = code_hash(record.sweep.target.name, root)
    try:
        if todo:
            run_sweep(
                replace(record.sweep, points=tuple(todo.values())), folder, jobs=jobs or record.jobs, retry_failed=True
            )
    finally:
        canaries = {point.key for point in record.canaries} - {point.key for point in record.sweep.points}
        n_done = 0
        for identity, point in todo.items():
            content = read_point(folder / "points", point.key)
            if content is None or content["status"] != "done":
                continue
            if _differs(content["about"]["commit"]):
                continue
            told = {name: content[name] for name in ("values", "about", "seconds", "rows")}
            told["about"] = told["about"] | {"code": code}
            kept[identity] = told | ({"canary": True} if point.key in canaries else {})
            n_done += 1
        if n_done:
            write_points(record.path, record.spec, [kept[name] for name in points if name in kept])
    return n_done, len(todo) - n_done


def _differs(commit: str | None) -> bool:
    """Return whether a run's code was more than its commit, or there was none."""
    return commit is None or commit.endswith("-dirty")


def code_hash(function: str, root: Path) -> str:
    """Return a hash of the code that the ``function`` leads to, without comments; versions do not count."""
    return hash_content(function_parts(function, root)["modules"])[:16]


def absent_data(record: Record) -> list[str]:
    """Return the data sets that ``record`` needs and this machine lacks."""
    from gsae_book.data.files import available

    states = available() if record.needs else {}
    return [name for name in record.needs if states.get(name) == "absent"]


def verify_record(record: Record, folder: Path, *, jobs: int | None = None) -> Verification:
    """Run the canaries of ``record`` anew, in ``folder``, and compare them with what is recorded.

    Raises: as `run_sweep`.
    """
    recorded = {record.identity(point["values"]): point["rows"] for point in read_points(record.path)}
    run_sweep(replace(record.sweep, points=record.canaries), folder, jobs=jobs or record.jobs)
    n_numbers, largest, moved = 0, 0.0, []
    for point in record.canaries:
        content = read_point(folder / "points", point.key) or {}
        where = ", ".join(f"{name}={value}" for name, value in point.given.items())
        before = recorded.get(record.identity(content.get("values", {})))
        if before is None or content.get("status") != "done":
            moved.append(f"{where}: {content.get('error') or 'it is not recorded'}")
            continue
        for name, old, new in _pairs(before, json.loads(to_json(content["rows"]))):
            excess = _excess(old, new, record.relative, record.absolute)
            n_numbers += 1
            largest = max(largest, excess)
            if excess > 1:
                moved.append(f"{where}: {name} {shown(old)} -> {shown(new)}")
    return Verification(len(record.canaries), n_numbers, largest, tuple(moved))


def write_verification(name: str, found: Verification, root: Path) -> None:
    """Add what was ``found`` of the record ``name`` to results/verified.json, with date, commit and processor."""
    path = root / VERIFIED
    here = about()
    one = {key: here[key] for key in ("date", "commit", "processor")} | {
        "points": found.n_points,
        "numbers": found.n_numbers,
        "moved": len(found.moved),
        "largest": found.largest,
    }
    with locked(lock_beside(path), waiting=f"{path}: waiting for another verification"):
        kept = read_verifications(root)
        replace_file(path, to_json(dict(sorted((kept | {name: one}).items())), indent=1) + "\n")


def read_verifications(root: Path) -> dict[str, Any]:
    """Return what results/verified.json says of each record; nothing if there is no such file.

    Raises: ParameterError for another file.
    """
    path = root / VERIFIED
    try:
        content = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ParameterError(f"{path} is no file of verifications: {shown(str(error))}") from None
    return as_mapping(content, str(path))


def records_table(root: Path) -> str:
    """Return Markdown for ``book/status.md``: a row for each recorded file; nothing if there are none."""
    verified = read_verifications(root)
    rows = []
    for name in record_names(root):
        spec = _specifications(root)[name]
        points = read_points(root / RESULTS / f"{name}.json")
        code = code_hash(parse_yaml(read_text(spec), spec)["function"], root)
        runs = [point["about"] for point in points]
        one = verified.get(name)
        cells = [
            name,
            len(points),
            _hours(points),
            ", ".join(sorted({run["date"] for run in runs})),
            ", ".join(dict.fromkeys(run["commit"] for run in runs)),
            ", ".join(dict.fromkeys(run["processor"] for run in runs)),
            sum(run.get("code") == code for run in runs),
            f"{one['date']}, at {one['commit']}: {one['moved']} of {one['numbers']}" if one else "not yet",
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    if not rows:
        return ""
    head = "| File | Points | Hours | Recorded | Commit | Processor | By today's code | Verified: numbers that moved |"
    return "\n".join([head, "| --- | ---: | ---: | --- | --- | --- | ---: | --- |", *rows, ""])


def _hours(points: Sequence[Mapping[str, Any]]) -> str:
    seconds = [point["seconds"] for point in points if point["seconds"] is not None]
    return f"{sum(seconds) / 3600:.2f}" if seconds else "not noted"


def _pairs(before: Any, after: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield name, recorded and new value of each leaf that does not depend on the machine; a missing one is None."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            if not MACHINE & {*re.split(r"\W|_", key.lower())}:
                yield from _pairs(before.get(key), after.get(key), f"{name}.{key}" if name else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for k, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _pairs(old, new, f"{name}[{k}]")
    else:
        yield name, before, after


def _excess(old: Any, new: Any, relative: float, absolute: float) -> float:
    """Return the difference in units of what is allowed: infinite for texts that differ, or for what is no number."""
    numbers = (int, float)
    if not isinstance(old, numbers) or not isinstance(new, numbers) or isinstance(old, bool) or isinstance(new, bool):
        return 0.0 if old == new else math.inf
    allowed = max(relative * abs(old), absolute)
    return 0.0 if old == new else abs(new - old) / allowed if allowed else math.inf
