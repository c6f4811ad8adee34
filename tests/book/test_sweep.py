"""Sweeps without a cluster: specifications and what they refuse, keys, results as rows, tables and what moved."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from faults.scratch_project import sweep_point, write_sweep
from sweep_project import write_project
from tiny_book import write_book

from gsae_book.app import collate as collation
from gsae_book.app.cli import main
from gsae_book.runs.functions import build_arguments, function_parts, to_rows
from gsae_book.runs.keys import find_data
from gsae_book.runs.parameters import ParameterError
from gsae_book.runs.specification import find_target, read_sweep
from gsae_book.runs.sweep import read_point


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder of the project whose functions are swept."""
    return write_project(tmp_path_factory.mktemp("swept"))


@pytest.fixture
def plan(project, tmp_path):
    """Return a function that reads a specification of a function from its text."""

    def read(text, function="measure"):
        path = tmp_path / "spec.yaml"
        path.write_text(f"function: sweep_tasks.{function}\n{text}")
        return read_sweep(path, project)

    return read


def test_a_plan_names_points(plan):
    """Fails if a dataclass does not stand for its fields, or a grid does not multiply a plan."""
    sweep = plan("plan: sweep_tasks.planned\ngrid: {seed: [0, 1]}")
    found = [(p.values["seed"], p.values["size"], p.values["training.epochs"]) for p in sweep.points]
    assert found == [(0, 2, 3), (0, 3, 7), (0, 4, 3), (1, 2, 3), (1, 3, 7), (1, 4, 3)]


def given(sweep):
    return [dict(point.given) for point in sweep.points]


def test_points_are_the_product_of_grid_list_and_random(plan):
    """Fails if a part is paired with another in place of multiplied, or a text is not what its type makes of it."""
    sweep = plan(
        "grid: {seed: [0, 1], names: [[a], [b, c]]}\n"
        "list: [{size: 2, kind: a}, {kind: b}]\n"
        "random: {n_points: 3, seed: 5, ranges: {rate: [1e-3, 10], training.epochs: [1, 4]},"
        " log: [rate, training.epochs]}"
    )
    assert len(sweep.points) == 2 * 2 * 2 * 3
    drawn = sorted({point.given["rate"] for point in sweep.points})
    epochs = {point.given["training.epochs"] for point in sweep.points}
    assert len(drawn) == 3 and 1e-3 <= drawn[0] < drawn[-1] <= 10
    assert all(type(number) is int and 1 <= number <= 4 for number in epochs)
    assert {point.given["names"] for point in sweep.points} == {("a",), ("b", "c")}
    assert [point.values["size"] for point in sweep.points[:4]] == [2, 2, 2, 1]
    arguments = build_arguments(sweep.target.function, sweep.points[0].values)
    assert arguments["settings"].size == 2 and arguments["settings"].training.epochs in epochs
    assert "device" not in sweep.target.declared


def test_points_are_drawn_anew_as_they_were(plan):
    """Fails if random points change from one reading to the next: nothing would be found again."""
    text = "grid: {seed: [0]}\nrandom: {n_points: 4, ranges: {rate: [0, 1], size: [1, 1000000]}}"
    first, second = plan(text), plan(text)
    assert [point.key for point in first.points] == [point.key for point in second.points]
    assert given(first) != given(plan(text.replace("n_points: 4", "n_points: 4, seed: 1")))


def test_a_logarithmic_range_has_its_ends(plan):
    """Fails by rounding: exp(log(100)) is more than 100, which is not allowed."""
    assert np.exp(np.log(100.0)) > 100
    sweep = plan("grid: {seed: [0]}\nrandom: {n_points: 1, ranges: {rate: [100, 100]}, log: [rate]}")
    assert given(sweep) == [{"seed": 0, "rate": 100.0}]


def test_a_point_that_is_given_twice_is_one(plan):
    sweep = plan("list: [{seed: 1}, {seed: 1, rate: 1}, {seed: '1'}, {seed: 1, rate: 2}]")
    assert given(sweep) == [{"seed": 1}, {"seed": 1, "rate": 2.0}]


def test_a_specification_may_come_through_a_pipe(project):
    """Fails if it is read twice: what is kept of it would be empty."""
    text = "function: sweep_tasks.count\ngrid: {seed: [0]}\n"
    end, start = os.pipe()
    os.write(start, text.encode())
    os.close(start)
    try:
        assert read_sweep(Path(f"/dev/fd/{end}"), project).text == text
    finally:
        os.close(end)


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("helpers", "side * side", "side**2", True),
        ("helpers", "    return", "    # a comment\n    return", False),
        ("sweep_tasks", '"""What is set."""', '"""What one sets."""', False),
        ("sweep_tasks", "# a comment", "pass", True),
    ],
)
def test_code_is_part_of_a_key_and_comments_are_not(tmp_path, name, old, new, changes):
    """Fails if a helper in another module does not count, or if a comment does."""
    root = write_project(tmp_path / "project")
    before = function_parts("sweep_tasks.measure", root)
    path = root / f"{name}.py"
    path.write_text(path.read_text().replace(old, new))
    assert (function_parts("sweep_tasks.measure", root) != before) == changes


def test_values_files_and_versions_are_part_of_a_key(project, plan, monkeypatch):
    """Fails if a file that a value names may change under a result."""
    found = [plan("grid: {data: [one.csv]}", "read").points[0].key]
    for content in ("1", "2"):
        (project / "one.csv").write_text(content)
        found.append(plan("grid: {data: [one.csv]}", "read").points[0].key)
    monkeypatch.setattr("gsae_book.runs.functions.versions", lambda: {"torch": "0"})
    found += [plan(f"grid: {{data: [{name}]}}", "read").points[0].key for name in ("one.csv", "two.csv")]
    assert len(set(found)) == 5


def test_recorded_arrays_that_code_names_are_part_of_a_key(tmp_path):
    """Fails if arrays that a function opens may change under a result, or if others, or recorded rows, count."""
    project = write_project(tmp_path / "project")
    point, results = {"seed": 1}, project / "results" / "paper"
    results.mkdir()

    def key(function="named"):
        return find_target(f"sweep_tasks.{function}", project).key(point, point)

    keys = [key()]
    for content in (b"1", b"23"):
        (results / "first_data.npz").write_bytes(content)
        keys.append(key())
    target = find_target("sweep_tasks.named", project)
    (results / "first_data.npz").write_bytes(b"456")
    keys.append(target.key(point, point))  # also where it changes after the target was found
    others = key("count")
    for name in ("data.npz", "first_data.json", "other.safetensors"):
        (results / name).touch()
    assert key() == keys[-1] and key("count") == others
    helpers = project / "helpers.py"
    helpers.write_text(f"PATH = 'other.safetensors'\n{helpers.read_text()}")
    for content in (b"1", b"23"):
        (results / "other.safetensors").write_bytes(content)
        keys.append(key())
    assert len(set(keys)) == 6


def test_the_arrays_of_sums_are_part_of_a_key():
    """Fails if what a recorded experiment opens by a name with a part that is filled in is not found."""
    root = Path(__file__).parents[2]
    modules = function_parts("experiments.sums.real_sums.load_pool", root)["modules"]
    names = {path.name for path in find_data(modules, root)}
    assert {"17_signals.npz", "17_jets.npz", "17_galaxies.npz"} <= names and "17_real_sums.json" not in names


POINT_FIELDS = ("key", "values", "status", "rows", "about")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"key": "k"', "[" * 100_000, "{}"),
        *(json.dumps(dict(sweep_point(0), **change)) for change in ({"key": "l"}, {"rows": "ab"}, {"rows": [1]})),
        *(json.dumps(sweep_point(0, **{name: value})) for name in POINT_FIELDS for value in (None, 5)),
        *(json.dumps({k: v for k, v in sweep_point(0).items() if k != name}) for name in (*POINT_FIELDS, "seconds")),
        *(json.dumps(sweep_point(0, seconds=seconds)) for seconds in ("x", [1])),
    ],
)
def test_a_damaged_point_is_one_that_has_not_run(tmp_path, text):
    """Fails if a table cannot be made since one file is broken, or if the point never runs again."""
    write_sweep(tmp_path / "sweep", damaged := sweep_point(0), sweep_point(1))
    points = tmp_path / "sweep" / "points"
    (points / f"{damaged['key']}.json").write_text(text)
    assert read_point(points, damaged["key"]) is None
    found = collation.collate(tmp_path / "sweep")
    assert (found.n_done, len(found.failed), found.n_missing, found.n_others, len(found.table)) == (1, 0, 1, 0, 1)


def test_results_become_rows_that_json_can_hold():
    """Fails if an argument is repeated, a number of numpy or torch stays one, or a result that is none passes."""

    @dataclasses.dataclass(frozen=True)
    class Settings:
        size: int = 1

    @dataclasses.dataclass(frozen=True)
    class Result:
        settings: Settings
        mean: object
        curve: object
        inner: object

    inner = {"a": torch.tensor(2.0), "b": {"c": (1, np.int64(2))}}
    rows = to_rows([Result(Settings(), np.float64(0.5), torch.arange(2), inner)], {"settings": Settings()})
    assert rows == [{"mean": 0.5, "curve": [0, 1], "inner.a": 2.0, "inner.b.c": [1, 2]}]
    assert type(rows[0]["mean"]) is float
    assert to_rows({"x": object}, {}) == [{"x": "<class 'object'>"}]
    for result in (None, 1.0, "text", [1.0]):
        with pytest.raises(TypeError, match="a sweep needs a dataclass, a mapping"):
            to_rows(result, {})


def table(values, name="area", **more):
    """A table of a sweep: one row for each value of each size."""
    rows = [
        {"size": size, "seed": seed, **dict.fromkeys(collation.POINT, "k"), name: value, **more}
        for size, many in values.items()
        for seed, value in enumerate(many)
    ]
    return pd.DataFrame(rows)


def compare(a, b):
    return collation.compare(a, b)[0]


def moved(a, b):
    return [one.moved for one in compare(a, b)]


SPREAD = np.array([-1.0, 1.0, 1.0, -1.0]) * np.sqrt(3 / 4)


def test_what_moved_by_more_than_three_standard_errors():
    """By hand: s = 1 and n = 4 in both give a standard error of sqrt(1/4 + 1/4) = 0.7071, and three are 2.1213."""
    before = table({1: SPREAD, 2: SPREAD})
    same, other = compare(before, table({1: SPREAD + 2.12, 2: SPREAD + 2.13}))
    assert (same.where, same.moved, other.where, other.moved) == ("size=1", False, "size=2", True)
    assert other.means == pytest.approx((0.0, 2.13)) and other.spreads == pytest.approx((1.0, 1.0))


def test_what_moves_without_a_spread_a_number_or_a_parameter():
    """Fails if nan is a move from nan and no other, a single run has a spread, or a time counts."""
    nan = [float("nan")] * 4
    assert moved(table({1: nan, 2: nan}), table({1: nan, 2: SPREAD})) == [False, True]
    assert moved(table({1: [1.0], 2: [1.0]}), table({1: [1.0], 2: [1.001]})) == [False, True]
    assert moved(table({1: SPREAD}, "seconds"), table({1: SPREAD + 100}, "seconds")) == [False]
    alone = table({1: [0.5]}).drop(columns=["size", "seed"])
    assert moved(alone, alone.assign(area=0.6)) == [True]


def test_texts_are_shares_of_one_row_and_tell_several_apart():
    by_text = [table({1: SPREAD}, method=method) for method in ("x", "y")]
    both = pd.concat(by_text, ignore_index=True)
    assert len(compare(both, both)) == 2
    assert [(one.metric, one.means, one.moved) for one in compare(*by_text)] == [
        ("area", (0.0, 0.0), False),
        ("method=x", (1.0, 0.0), True),
        ("method=y", (0.0, 1.0), True),
    ]
    found, n_alone, lone = collation.compare(both, pd.concat([both[both["method"] == "y"]] * 2))
    assert ([one.metric for one in found], n_alone, lone) == (["area"], 1, [])


def test_settings_that_differ_in_the_seventh_digit_are_two():
    """Fails if numbers are compared as they are shown: one of them would hide the other."""
    before = table({1234567.0: [0.0], 1234568.0: [0.0], 0.1 + 0.2: [0.0], 0.3: [0.0]})
    found = compare(before, before.assign(area=[1.0, 0.0, 0.0, 2.0]))
    wheres = ["size=1234567", "size=1234568", "size=0.30000000000000004", "size=0.3"]
    assert [(one.where, one.moved) for one in found] == list(zip(wheres, (True, False, False, True), strict=True))


def test_a_table_compares_as_the_folder_it_came_from(tmp_path):
    """Fails if a file turns a number, a text or a gap into another, or cannot hold numbers beside texts."""
    rows = table({"auto": [0.1], 3: [2.0], "None": [3.0], None: [4.0]}, clip=True)
    rows["clip"] = [True, None, False, True]
    rows.insert(0, "kind", "true")  # a text
    rows.insert(0, "x", [0.1 + 0.2, 1 / 3, 5e-324, 1e300])
    rows.insert(0, "n", [1, 2, 3, 10**17 + 1])
    rows["precision"] = [float("nan"), 0.1 + 0.2, 1e-300, 5.0]
    (tmp_path / "rows.csv.tmp").write_text("mine")
    for suffix in ("csv", "parquet"):
        collation.write_table(rows, tmp_path / f"rows.{suffix}")
        found, n_alone, lone = collation.compare(rows, collation.read_table(tmp_path / f"rows.{suffix}"))
        assert (n_alone, lone, [one for one in found if one.moved]) == (0, [], [])
        assert [one.where.split(", ")[-1] for one in found[::4]] == ["size=auto", "size=3", "size=None", "size=nan"]
        assert {one.metric for one in found} == {"area", "precision", "clip=True", "clip=False"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.csv.tmp", "rows.parquet"]
    assert (tmp_path / "rows.csv.tmp").read_text() == "mine"


def test_what_one_of_two_sweeps_measured_is_told(tmp_path):
    """Fails if a metric that became no number, or is gone, passes for one that stayed, or ends in a traceback."""
    rows = table({1: [0.7], 2: [0.5]}, precision=1.0, old=1.0)
    changed = rows.drop(columns="old").assign(area=[0.9, 0.5], precision=float("nan"))
    for name, one in (("a", rows), ("b", changed)):
        collation.write_table(one, tmp_path / f"{name}.csv")
    result = CliRunner().invoke(main, ["diff", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "size=2: area 0.5000 -> 0.5000",
        "size=1: area 0.7000 -> 0.9000, moved",
        "size=1: precision 1.000 -> no number, moved",
        "size=2: precision 1.000 -> no number, moved",
        "3 of 4 means moved by more than three standard errors; not in both: old",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: compare(one, table({3: [0.0]})), "share no points"),
        (lambda one: compare(one, table({1: [0.0]}, "volume")), "share no metric"),
        (lambda one: compare(one, one.drop(columns="size")), "several values of size"),
        (lambda one: collation.plot(one, "size", ["size"]), "--plot = 'size'"),
        (lambda one: collation.plot(one, "area", ["area"]), "--over = 'area'"),
        (lambda one: collation.plot(one, "area", ["size", "size"]), "--over = 'size,size'"),
    ],
)
def test_what_cannot_be_compared_or_drawn_is_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call(table({1: [0.0], 2: [1.0]}))


def test_a_figure_has_a_curve_for_each_of_what_else_varies():
    rows = pd.concat([table({1: [0.0, 2.0], 2: [1.0, 3.0]}, method=method) for method in ("x", "y")])
    figure = collation.plot(rows, "area", ["size"])
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["method=x", "method=y"]
    assert list(lines[0].get_xdata()) == [1, 2] and list(lines[0].get_ydata()) == [1.0, 2.0]
    assert len(collation.plot(rows, "area", ["size", "method"]).axes) == 1
    mixed = table({"auto": [0.0], 3: [1.0]})  # a number or a text
    assert {*collation.plot(mixed, "area", ["size"]).axes[0].lines[0].get_xdata()} == {"auto", "3"}


def test_a_notebook_is_a_target(tmp_path):
    target = find_target("2", write_book(tmp_path), notebook=True)
    values = target.check({"n_groups": "3"})
    assert (target.name, values["n_groups"]) == ("02_second.ipynb", 3)
    assert target.key(values, {"n_groups": 3}) != target.key(target.check({}), {})


def test_a_page_of_a_sweep_says_how_it_stands(tmp_path, monkeypatch):
    """Fails if a mean, a failure or the figure is missing, if a text becomes markup, or if an existing page is lost."""
    monkeypatch.chdir(tmp_path)
    shared = {"given": ["seed", "size"], "about": {"commit": "abc", "processor": "<b>fast</b>"}}
    points = [
        sweep_point(10 * size + seed, values={"seed": seed, "size": size}, rows=[{"area": size + seed / 10}], **shared)
        | {"seconds": 1800.0}
        for size in (1, 2)
        for seed in (0, 1, 2)
    ]
    points[-1] |= {"status": "failed", "error": "<script>no</script>", "rows": []}
    write_sweep(tmp_path / "out", *points, spec="function: tasks.count # <i>\n")
    with (tmp_path / "out" / "keys.txt").open("a") as file:
        file.write("missing\n")
    run = CliRunner().invoke
    assert run(main, ["collate", "out", "-o", "mine.csv", "--plot", "area", "--over", "size"]).exit_code == 0
    page = (tmp_path / "mine.html").read_text()
    assert "5 points are done, 1 failed, 1 have not run" in page and "2.50 hours" in page
    assert "<td>1</td><td>3</td><td>1.10 ± 0.10</td>" in page and "<td>2</td><td>2</td>" in page
    assert "seed=2, size=2" in page and "&lt;script&gt;no" in page and "<script" not in page and "<i>" not in page
    assert "&lt;b&gt;fast" in page and 'src="data:image/svg+xml;base64,' in page and 'alt="area over size' in page
    assert "http" not in page.replace("data:image", "")
    again = run(main, ["collate", "out", "-o", "mine.parquet"])
    assert again.exit_code == 2 and "mine.html" in again.output and not (tmp_path / "mine.parquet").exists()
    write_sweep(tmp_path / "none")
    assert run(main, ["collate", "none", "-o", "none.csv"]).exit_code == 0
    assert "0 points are done" in (tmp_path / "none.html").read_text()
