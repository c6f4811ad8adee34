"""Recorded measurements: their text, their refusals, their way through a notebook's outputs."""

import json
import math

import numpy as np
import pytest
from built_site import ROOT
from children import git
from hypothesis import given
from hypothesis import strategies as st

from gsae_book.runs.environment import commit
from gsae_book.runs.recording import (
    collect_metrics,
    format_value,
    read_rows,
    record,
    select,
    write_rows,
)


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (0.85321, 0.0213, "0.853 ± 0.021"),
        (98.7654, 1.234, "98.8 ± 1.2"),
        (3, 0.5, "3.00 ± 0.50"),
        (123.4, 0.0, "123.4 ± 0.0"),
        (0.86965, 0.000098, "0.869650 ± 0.000098"),
        (0.5, None, "0.5000"),
        (12345.678, None, "12346"),
        (1.5e-9, None, "1.5e-09"),
        (0.0, None, "0.0"),
        (-0.25, None, "-0.2500"),
        (7, None, "7"),
        (True, None, "True"),
        ("not reproduced", None, "not reproduced"),
        (math.nan, None, "nan"),
        (math.inf, 1.0, "inf"),
    ],
)
def test_digits(value, spread, text):
    # Breaks if digits beyond the spread are shown, or fewer than the four that a lone number is given.
    assert format_value(value, spread) == text


@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_a_lone_number_formats_again(value):
    """Fails if myst-nb cannot turn the text back into a number for {glue:text}`name:.2f`."""
    assert math.isclose(float(format_value(value)), value, rel_tol=5.1e-3, abs_tol=1e-300)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (([1, 2, 6],), "3.0 ± 2.6"),
        ((np.array([1.0, 2.0, 6.0]),), "3.0 ± 2.6"),
        ((np.float32(0.25), np.array(0.5)), "0.25 ± 0.50"),
    ],
)
def test_runs_become_mean_and_sample_deviation(capsys, given, text):
    """Fails if the sum of squares is divided by the number of runs: of 1, 2, 6 it is 14, and 14 / 2 = 7."""
    record("runs", *given)
    assert capsys.readouterr().out == f"runs = {text}\n"


@pytest.mark.parametrize(
    ("name", "value", "spread", "error", "words"),
    [
        ("Bad name", 1, None, ValueError, "lower case letters"),
        ("a:b", 1, None, ValueError, "lower case letters"),
        ("x", float("nan"), None, ValueError, "finite number, not nan"),
        ("x", float("-inf"), None, ValueError, "finite number, not -inf"),
        ("x", 1.0, float("inf"), ValueError, "finite number, not inf"),
        ("x", 1.0, -0.1, ValueError, "not negative"),
        ("x", "text", 0.1, TypeError, "is not a number"),
        ("x", True, 0.1, TypeError, "is not a number"),
        ("x", (1, 2), None, TypeError, "takes a number"),
        ("x", np.ones((2, 2)), None, TypeError, "takes a number"),
        ("x", [1.0], None, ValueError, "two or more runs"),
        ("x", [1.0, 2.0], 0.5, ValueError, "and no spread"),
        ("x", [1.0, float("nan")], None, ValueError, "finite number"),
    ],
)
def test_refusals(name, value, spread, error, words):
    # Breaks if a NaN, which JSON cannot hold, or a name that glue cannot find, gets into a run.
    with pytest.raises(error, match=words):
        record(name, value, spread)


def test_a_name_is_recorded_once():
    output = {"metadata": {"gsae": {"name": "x", "value": 1, "spread": None}}}
    assert collect_metrics([{"outputs": [output]}, {}]) == {"x": {"value": 1, "spread": None}}
    with pytest.raises(ValueError, match="'x' is recorded twice"):
        collect_metrics([{"outputs": [output]}, {"outputs": [output]}])


@pytest.mark.parametrize(("preloaded", "named"), [("", None), ("/opt/lib/other.so", "other.so")])
def test_recorded_rows_name_what_was_preloaded(tmp_path, monkeypatch, preloaded, named):
    """Fails if a row is lost, or times taken with another mathematics library in front do not say so."""
    rows = [{"seed": 0, "accuracy": 0.5}, {"seed": 1, "accuracy": 0.25}]
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    write_rows(tmp_path / "rows.json", "rows", rows)
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["rows"] == rows and content["about"].get("preloaded") == named


def strict(text):
    """Read JSON, which has neither NaN nor Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_numbers_that_are_not_finite_are_null(tmp_path):
    """Fails if a NaN is written, which no other reader of JSON takes, or does not come back as one."""
    rows = [{"x": math.nan, "y": [1.0, math.inf], "z": math.nan}, {"x": 1.0, "y": [], "z": np.float64("-inf")}]
    write_rows(tmp_path / "rows.json", "rows", rows)
    assert strict((tmp_path / "rows.json").read_text())["rows"][0] == {"x": None, "y": [1.0, None], "z": None}
    found = read_rows(str(tmp_path / "rows.json"))
    assert math.isnan(found["x"][0]) and found["x"][1] == 1.0
    assert found["z"].isna().all() and all(isinstance(z, float) for z in found["z"])


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.json")), ids=lambda path: path.stem)
def test_recorded_results_are_json(path):
    assert strict(path.read_text(encoding="utf8"))


def test_rows_come_back_in_the_order_of_seeds_and_are_selected(tmp_path):
    """Fails if rows of two methods are paired by the order in which runs ended, or what is not there is no error."""
    rows = [{"seed": seed, "method": name} for seed in (2, 0, 1) for name in "ba"]
    write_rows(tmp_path / "rows.json", "rows", rows)
    found = read_rows(str(tmp_path / "rows.json"), "rows")
    assert found["seed"].tolist() == [0, 0, 1, 1, 2, 2] and found["method"].tolist() == [*"bababa"]
    assert select(found, method="a", seed=2).to_dict("records") == [rows[1]]
    assert len(select(found, seed=1)) == 2
    with pytest.raises(ValueError, match="seed=3: not in these rows, which have 0, 1, 2"):
        select(found, method="a", seed=3)


def test_a_commit_is_dirty_by_its_sources_alone(tmp_path):
    """Fails if results written while recording hide that the code is committed, or changed code passes as committed."""
    (tmp_path / "results" / "paper").mkdir(parents=True)
    for name in ("code.py", "results/paper/recorder.py", "results/paper/rows.json"):
        (tmp_path / name).write_text("1")
    for words in ("init -q", "add .", "commit -qm start"):
        git(tmp_path, *words.split())
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "results/paper/rows.json").write_text("2")
    assert commit(tmp_path) == clean
    (tmp_path / "results/paper/recorder.py").write_text("2")
    assert commit(tmp_path) == f"{clean}-dirty"
