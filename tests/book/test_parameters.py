"""Typed parameter cells: what is read, what is refused, and what the refusal says."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_book import notebook

from gsae_book.runs.execution import run_notebook
from gsae_book.runs.parameters import (
    ParameterError,
    check_values,
    parse_parameters,
    printable,
    read_values,
)

CELL = """\
# comments may stand here
n_groups: Annotated[int, Ge(1)] = 10  # and here
rate: Annotated[float, Gt(0), Lt(1)] = 1e-3
feature: Literal["pixels", "scattering"] = "pixels"
depth: Literal[1, 2] = 1
name: str = "x"
flag: bool = True
seeds: Annotated[list[int], MinLen(1)] = [0, 1]
sizes: tuple[float, ...] = (0.5, 2)
share: Annotated[float, Interval(ge=0, le=1)] = 0.5
model_schema: int = -3
gain: float = 1.0
clusters: Literal["auto"] | Annotated[int, Ge(2)] = "auto"
"""


@pytest.fixture(scope="module")
def declared():
    return parse_parameters(CELL)


def test_defaults_are_the_cell_as_written(declared):
    # Breaks if a literal is read differently from what executing the cell would give.
    executed: dict = {}
    exec("from typing import *\nfrom annotated_types import *\n" + CELL, executed)
    assert check_values(declared, {}) == {name: executed[name] for name in declared}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_groups", "20", 20),
        ("rate", "1e-3", 1e-3),
        ("rate", ".5", 0.5),
        ("feature", "scattering", "scattering"),
        ("depth", "2", 2),
        ("name", "1e-3", "1e-3"),
        ("name", "true", "true"),
        ("flag", "false", False),
        ("flag", "True", True),
        ("seeds", "[3, 4]", [3, 4]),
        ("seeds", ["3", 4], [3, 4]),
        ("sizes", "[1, 2.5]", (1.0, 2.5)),
        ("share", 1, 1.0),
        ("model_schema", "-7", -7),
        ("clusters", "auto", "auto"),
        ("clusters", "3", 3),
        ("clusters", 3, 3),
    ],
)
def test_texts_become_the_declared_type(declared, name, text, value):
    # Breaks if YAML's 1e-3 stays a text, if a text parameter is parsed, or if an int is refused for a float.
    checked = check_values(declared, {name: text})[name]
    assert checked == value
    assert type(checked) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("n_groups", "-1", "an integer, at least 1"),
        ("n_groups", True, "an integer, at least 1"),
        ("n_groups", 2.0, "an integer, at least 1"),
        ("n_groups", None, "an integer, at least 1"),
        ("gain", "inf", "a number"),
        ("gain", "1e999", "a number"),
        ("gain", float("nan"), "a number"),
        ("rate", True, "a number, more than 0, less than 1"),
        ("rate", 1, "a number, more than 0, less than 1"),
        ("feature", "pixel", "one of 'pixels', 'scattering'"),
        ("depth", True, "one of 1, 2"),
        ("name", 3, "a text"),
        ("flag", "1", "true or false"),
        ("seeds", "[]", "a list whose items are each an integer, of a length of at least 1"),
        ("sizes", "[1, true]", "a tuple of a number and any number more"),
        ("share", 1.5, "a number, at least 0, at most 1"),
        ("clusters", "1", "'auto' or an integer, at least 2"),
        ("clusters", True, "'auto' or an integer, at least 2"),
        ("name", "\udcff", "a text"),
        ("n_groups", str(2**63), "an integer, at least 1, of 64 bits"),
        ("seeds", f"[{2**63}]", "a list whose items are each an integer, of a length of at least 1"),
    ],
)
def test_a_refusal_names_parameter_value_and_what_is_allowed(declared, name, value, allowed):
    # Breaks if pydantic's lax conversions come back, or if the message loses one of its three parts.
    with pytest.raises(ParameterError) as error:
        check_values(declared, {name: value})
    assert str(error.value) == f"{name} = {value!r} is not allowed: it must be {allowed}"


def test_all_problems_are_reported_at_once(declared):
    with pytest.raises(ParameterError) as error:
        check_values(declared, {"n_group": 20, "rate": 7, "flag": 0, "zzz": 1})
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "there is no parameter n_group; did you mean n_groups? Known are n_groups, rate" in lines[0]
    assert "did you mean" not in lines[1]


def test_a_file_may_be_empty_and_must_be_there(tmp_path):
    (tmp_path / "p.yaml").write_text("")
    assert read_values(tmp_path / "p.yaml") == {}
    with pytest.raises(ParameterError, match="No such file"):
        read_values(tmp_path / "none.yaml")


TEXTS = ["20", "-1", "010", "0x10", "1_0", "1:30", "1e-3", ".5", "inf", "true", "yes", "~", "null", "auto", "three"]
TEXTS += ["3", "2021-01-01", "[1, 2]", "[1e-3, 2]", "[0x1, 2]", "9" * 5000, "0x" + "f" * 5000, "'!mine x'"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_file_and_the_command_line_judge_a_value_alike(tmp_path, declared, text):
    """Fails if YAML makes another number, a truth value or a date of a text before it is checked."""
    path, unquoted = tmp_path / "p.yaml", text.strip("'")

    def judged(name, value):
        try:
            return repr(check_values(declared, {name: value})[name])
        except ParameterError:
            return "refused"

    for name in declared:
        path.write_text(f"{name}: {text}\n")
        value = read_values(path)[name]
        assert value == (text.strip("[]").split(", ") if text.startswith("[") else unquoted)
        if name != "name" or not text.startswith("["):  # "[1, 2]" is a text on the command line, and a list in a file
            assert judged(name, value) == judged(name, unquoted), name


def test_messages_stay_short_and_printable(declared):
    """Fails if a value of a million characters, or one that moves the terminal's cursor, is shown as it is."""
    long, escape = "x" * 10**6, "\x1b[2J"
    for values in ({"rate": long}, {"seeds": [long] * 10}, {long: "1"}, {f"n{k}": "1" for k in range(1000)}):
        with pytest.raises(ParameterError) as error:
            check_values(declared, values)
        assert len(str(error.value)) < 5000
    for values in ({"rate": escape}, {escape: "1"}):
        with pytest.raises(ParameterError) as error:
            check_values(declared, values)
        assert "\x1b" not in printable(str(error.value)) and r"\x1b[2J" in printable(str(error.value))


def test_an_old_name_is_refused_with_its_new_one():
    """Fails if a name that was changed is unknown like any other, or if a new name is told that this notebook lacks."""
    declared = parse_parameters("n_groups: int = 1\nn_init: int = 1\npenalties: list[float] = [1.0]\nnum_it: int = 1")
    old = {"num_groups": "5", "restarts": 3, "thresholds": [2.0], "num_it": 4, "max_iterations": 6, "num_x": 7}
    with pytest.raises(ParameterError) as error:
        check_values(declared, old)
    lines = str(error.value).splitlines()
    assert lines[:3] == [
        "num_groups = '5': is now called n_groups",
        "restarts = 3: is now called n_init",
        "thresholds = [2.0]: is now called penalties",
    ]
    assert [line.split(":")[1].split(" no ")[0] for line in lines[3:]] == [" there is"] * 2


def changed(cell=2, **parts):
    """A notebook of which parts, or parts of a cell, are others."""
    found = notebook()
    for name, value in parts.items():
        place = found["cells"][cell]["metadata"] if name == "tags" else found
        place[name] = value
    return json.dumps(found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *(
            (content, "n.ipynb is not a notebook")
            for content in ("{}", "[" * 10**5, '{"cells": [1]}', '{"cells": 3}', '{"cells": [{"source": "x"}]}', "\x00")
        ),
        *(
            (changed(**change), "n.ipynb is not a notebook")
            for change in ({"nbformat": 3}, {"nbformat": 99}, {"metadata": None}, {"nbformat_minor": "x"})
        ),
        *(
            (changed(tags=tags), "tags of a cell must be a list of texts")
            for tags in (None, 5, "parameters", {"parameters": 1}, [1])
        ),
        (changed(tags=["other"]), "0 cells tagged 'parameters'"),
        (changed(cell=3, tags=["parameters"]), "2 cells tagged 'parameters'"),
    ],
    ids=range(17),
)
def test_what_is_no_notebook_is_refused_before_a_kernel(tmp_path, content, reason):
    """Fails if a notebook that cannot be read, or be written, is found out by a kernel, or by an error of Python."""
    (tmp_path / "n.ipynb").write_text(content)
    with pytest.raises(ParameterError) as error:
        run_notebook(tmp_path / "n.ipynb", tmp_path / "out.ipynb", root=tmp_path)
    assert reason in str(error.value) and len(str(error.value).splitlines()) == 1
    assert os.listdir(tmp_path) == ["n.ipynb"]


@given(st.integers(1, 10**12), st.floats(1e-300, 0.999), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_what_python_prints_is_read_back(whole, real, items):
    # Breaks if a digit is lost between the command line and the injected value.
    declared = parse_parameters(CELL)
    given_values = {"n_groups": str(whole), "rate": repr(real), "seeds": str(items)}
    checked = check_values(declared, given_values)
    assert (checked["n_groups"], checked["rate"], checked["seeds"]) == (whole, real, items)
