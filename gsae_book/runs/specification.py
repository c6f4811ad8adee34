"""Specifications of sweeps: a function or a notebook, and the points at which it runs, all checked before any does."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types as at

from gsae_book.runs.functions import (
    build_arguments,
    find_function,
    function_parameters,
    function_parts,
    to_values,
    told,
)
from gsae_book.runs.keys import find_data, hash_data, hash_named, notebook_key
from gsae_book.runs.parameters import (
    REQUIRED,
    Parameter,
    ParameterError,
    check_values,
    parse_yaml,
    read_parameters,
    read_text,
    shown,
)

MAX_POINTS = 100_000
LARGEST = 10**18  # end of a logarithmic range
SECTIONS = ("function", "notebook", "plan", "grid", "list", "random", "limits", "record")
LIMITS = {name: Parameter(name, Annotated[float, at.Gt(0)], REQUIRED) for name in ("seconds", "mib")}
RANDOM = {"n_points": Parameter("n_points", Annotated[int, at.Ge(1)], REQUIRED), "seed": Parameter("seed", int, 0)}


class SweepError(RuntimeError):
    """A sweep that cannot go on; what it has done is kept."""


@dataclass(frozen=True)
class Target:
    """What is run at each point: ``function`` with its name, or the notebook at ``path``.

    code: a hash of the function's code. data: the recorded arrays that this names.
    """

    name: str
    root: Path
    declared: Mapping[str, Parameter]
    function: Callable[..., Any] | None = None
    path: Path | None = None
    code: str = ""
    data: tuple[Path, ...] = ()

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every parameter, those ``given`` checked.

        Raises: ParameterError for a value that is not allowed, by its type or by the function's dataclasses.
        """
        if self.path is not None:
            values = check_values(self.declared, given)
            for name in ("save_to", "checkpoint"):
                if values.get(name):
                    raise ParameterError(f"{name} = {shown(values[name])} is not allowed in a sweep")
            return values
        declared = self.declared
        if given.keys() <= declared.keys():  # defaults are the function's own business
            declared = {n: p for n, p in declared.items() if n in given or p.default is REQUIRED}
        values = {n: p.default for n, p in self.declared.items()} | check_values(declared, given)
        try:
            build_arguments(self.function, values)
        except (Exception, SystemExit) as error:  # whatever a dataclass does with its values
            raise ParameterError(told(error)) from None
        return values

    def key(self, values: Mapping[str, Any], given: Mapping[str, Any]) -> str:
        """Return the sha256 of all that decides what the target gives for ``values``."""
        if self.path is not None:
            return notebook_key(self.path, values, self.root, given)
        return hash_content([self.code, values, hash_named(values, (), self.root) | hash_data(self.data, self.root)])


@dataclass(frozen=True)
class Point:
    """One run of a sweep: all its values, and which of them the specification gives."""

    key: str
    values: Mapping[str, Any]
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A checked specification: ``text`` as it was written, its target, its points, and the limits of one."""

    text: str
    target: Target
    points: tuple[Point, ...]
    limits: Mapping[str, float]


def find_target(name: str, root: Path, *, notebook: bool = False) -> Target:
    """Return the function or notebook ``name`` of the project in ``root``.

    Raises: ParameterError if there is none, or if it has no parameters that can be set.
    """
    if notebook:
        from gsae_book.runs.environment import find_root
        from gsae_book.runs.execution import find_notebook

        path = find_notebook(name, root).resolve()
        home = find_root(path.parent)
        root = home if (home / "_config.yml").is_file() else root
        return Target(path.name, root, read_parameters(path), path=path)
    function = find_function(name, root)
    parts = function_parts(name, root)
    data = tuple(find_data(parts["modules"], root))
    return Target(name, root, function_parameters(function), function, code=hash_content(parts), data=data)


def read_sweep(path: Path, root: Path) -> Sweep:
    """Return the sweep that the YAML file at ``path`` specifies, all its points checked.

    Raises: ParameterError, of one line, for the first thing that is wrong.
    """
    text = read_text(path)
    content = as_mapping(parse_yaml(text, path), str(path))
    try:
        check_names(content, SECTIONS, "section")
        named = [name for name in ("function", "notebook") if name in content]
        if len(named) != 1 or not isinstance(content[named[0]], str):
            raise ParameterError("one function or one notebook is needed, by its name")
        target = find_target(content[named[0]], root, notebook=named == ["notebook"])
        if target.path is not None and root.resolve() not in target.path.parents:
            raise ParameterError(f"notebook = {shown(content['notebook'])} is not allowed: it must be in {root}")
        limits = as_mapping(content.get("limits", {}), "limits")
        check_names(limits, LIMITS, "limit")
        limits = check_values({name: LIMITS[name] for name in limits}, limits)
        points: dict[str, Point] = {}
        planned = read_plan(content["plan"], root) if "plan" in content else [{}]
        for given in _given(content, target.declared, planned):
            point = check_point(target, given)
            points.setdefault(point.key, point)
        return Sweep(text, target, tuple(points.values()), limits)
    except ParameterError as error:
        raise ParameterError(f"{path}: {'; '.join(str(error).splitlines())}") from None


def check_point(target: Target, given: Mapping[str, Any]) -> Point:
    """Return the point of ``target`` at the values ``given``.

    Raises: ParameterError, which names the point.
    """
    try:
        values = target.check(given)
    except ParameterError as error:
        raise ParameterError(f"point {describe(given)}: {error}") from None
    return Point(target.key(values, given), values, {name: values[name] for name in given})


def read_plan(name: Any, root: Path) -> list[dict[str, Any]]:
    """Return what the function ``name`` plans: for each point a mapping, or a dataclass, which stands for its fields.

    Raises: ParameterError if there is no such function without parameters, or if it returns anything else.
    """
    function = find_function(name if isinstance(name, str) else shown(name), root)
    try:
        rows = [to_values(row if isinstance(row, Mapping) else {"settings": row}) for row in function()]
    except (Exception, SystemExit) as error:  # whatever it does
        raise ParameterError(f"plan = {shown(name)}: {told(error)}") from None
    if not rows:
        raise ParameterError(f"plan = {shown(name)}: it has no points")
    return rows


def _given(
    content: Mapping[str, Any], declared: Mapping[str, Parameter], planned: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what the specification gives at each point: plan times grid times list times random."""
    grid = as_mapping(content.get("grid", {}), "grid")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ParameterError(f"grid: {name} = {shown(values)} is not allowed: it must be a list of values")
    rows = [as_mapping(row, "an item of list") for row in as_list(content.get("list", [{}]), "list")]
    drawn = _draw(as_mapping(content["random"], "random"), declared) if "random" in content else [{}]
    named = [set().union(*planned), grid.keys(), set().union(*rows), drawn[0].keys()]
    for first, second in itertools.combinations(named, 2):
        if twice := sorted(first & second):
            raise ParameterError(f"{twice[0]} is given twice, in two of plan, grid, list and random")
    if (n_points := math.prod(map(len, [planned, *grid.values(), rows, drawn]))) > MAX_POINTS:
        raise ParameterError(f"{n_points} points are not allowed: it must be at most {MAX_POINTS}")
    for *values, some, row, drawn_row in itertools.product(*grid.values(), planned, rows, drawn):
        yield some | dict(zip(grid, values, strict=True)) | row | drawn_row


def _draw(section: Mapping[str, Any], declared: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    check_names(section, (*RANDOM, "ranges", "log"), "part of random")
    settings = check_values(RANDOM, {name: section[name] for name in RANDOM if name in section})
    if settings["n_points"] > MAX_POINTS:
        raise ParameterError(f"n_points = {settings['n_points']} is not allowed: it must be at most {MAX_POINTS}")
    ranges = as_mapping(section.get("ranges", {}), "ranges")
    logarithmic = as_list(section.get("log", []), "log", empty=True)
    check_names(dict.fromkeys(map(str, logarithmic)), ranges, "range")
    whole = {name for name in ranges if name in declared and _is_whole(declared[name])}
    ends = {}
    for name, values in ranges.items():
        kind = int if name in whole else float
        kind = Annotated[kind, at.Gt(0), at.Le(LARGEST)] if name in logarithmic else kind
        ends[name] = check_values({name: Parameter(name, tuple[kind, kind], REQUIRED)}, {name: values})[name]
        if ends[name][0] > ends[name][1]:
            raise ParameterError(f"ranges: {name} = {shown(values)} is not allowed: the lower number comes first")
    if not ends:
        raise ParameterError("random needs ranges")
    draw = random.Random(settings["seed"])
    return [
        {name: _draw_one(draw, *ends[name], name in logarithmic, name in whole) for name in ends}
        for _ in range(settings["n_points"])
    ]


def _draw_one(draw: random.Random, low: Any, high: Any, logarithmic: bool, whole: bool) -> float:
    if whole and not logarithmic:
        return draw.randint(low, high)
    if not logarithmic:
        return draw.uniform(low, high)
    value = math.exp(draw.uniform(math.log(low), math.log(high)))
    value = min(max(value, low), high)  # rounding may lead out of the range
    return round(value) if whole else value


def _is_whole(parameter: Parameter) -> bool:
    """Say whether a parameter takes integers, and no other numbers."""
    takes = []
    for text in ("1", "0.5"):
        with contextlib.suppress(ParameterError):
            takes.append(check_values({"x": Parameter("x", parameter.annotation, REQUIRED)}, {"x": text})["x"])
    return [type(value) for value in takes] == [int]


def hash_content(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def as_mapping(content: Any, name: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ParameterError(f"{name} must map names to values; it holds {shown(content)}")
    return content


def as_list(content: Any, name: str, *, empty: bool = False) -> list[Any]:
    if not isinstance(content, list) or not (content or empty):
        raise ParameterError(f"{name} must be a list; it holds {shown(content)}")
    return content


def check_names(content: Mapping[str, Any], known: Any, noun: str) -> None:
    for name in content:
        if name not in known:
            raise ParameterError(f"there is no {noun} {shown(name)}; known are {', '.join(known)}")


def describe(values: Mapping[str, Any]) -> str:
    """Return ``values`` as a message shows them: 'seed=0, snr_db=10'."""
    text = ", ".join(f"{name}={value}" for name, value in values.items()) or "of the defaults"
    return text if len(text) <= 200 else f"{text[:200]}..."
