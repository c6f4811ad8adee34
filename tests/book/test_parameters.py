"""Typed parameter cells: what is read, what is refused, and what the refusal says."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_book import write_notebook

from gsae_book.runs.parameters import (
    ParameterError,
    check_values,
    parse_parameters,
    printable,
    read_parameters,
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
        ("n_groups", "abc", "an integer, at least 1"),
        ("n_groups", "true", "an integer, at least 1"),
        ("n_groups", True, "an integer, at least 1"),
        ("n_groups", 2.0, "an integer, at least 1"),
        ("n_groups", None, "an integer, at least 1"),
        ("gain", "inf", "a number"),
        ("gain", "-Infinity", "a number"),
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
        ("clusters", "three", "'auto' or an integer, at least 2"),
        ("clusters", "1", "'auto' or an integer, at least 2"),
        ("clusters", True, "'auto' or an integer, at least 2"),
        ("name", "\udcff", "a text"),
        ("n_groups", str(2**63), "an integer, at least 1, of 64 bits"),
        ("n_groups", str(-(10**40)), "an integer, at least 1, of 64 bits"),
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


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x = 1", "only 'name: type = default'"),
        ("x: int", "a default is needed"),
        ("x: int = 1; y: int = 2", "one parameter a line"),
        ("x: int = (\n    1)", "one line a parameter"),
        ("x: int = 1\nx: int = 2", "x is declared twice"),
        ("import os", "only 'name: type = default'"),
        ("x.y: int = 1", "only 'name: type = default'"),
        ("%matplotlib inline", "line 1: invalid syntax"),
        ("x: Path = 1", "'Path' is not a parameter type"),
        ("x: int | None = 1", "'None' is not a parameter type"),
        ("x: int = f()", "'f()' is not a literal"),
        ("x: Annotated[int, open('y')] = 1", "is not a constraint; known are Ge"),
        ("x: Annotated[int, Ge(1, 2, 3)] = 1", "positional arguments"),
        ("x: Annotated[int, Ge(2)] = 1", "x = 1 is not allowed: it must be an integer, at least 2"),
        ("x: int = True", "x = True is not allowed: it must be an integer"),
    ],
)
def test_a_cell_that_declares_badly_is_refused(line, reason):
    # Breaks if a line is skipped silently: its value would then be neither checked nor known.
    with pytest.raises(ParameterError) as error:
        parse_parameters(line)
    assert reason in str(error.value)


def test_nothing_is_executed(tmp_path):
    # Breaks if an annotation or a default is ever evaluated as code.
    target = tmp_path / "made"
    for cell in (f"x: int = open({str(target)!r}, 'w')", f"x: list[open({str(target)!r}, 'w')] = []"):
        with pytest.raises(ParameterError):
            parse_parameters(cell)
    assert not target.exists()


def test_the_notebook_has_one_parameters_cell(tmp_path):
    path = tmp_path / "n.ipynb"
    write_notebook(path)
    assert list(read_parameters(path)) == ["n_groups", "rate", "seed"]
    path.write_text(path.read_text().replace('"parameters"\n', '"other"\n'))
    with pytest.raises(ParameterError, match="0 cells tagged 'parameters'"):
        read_parameters(path)
    path.write_text("{}")
    with pytest.raises(ParameterError, match="is not a notebook"):
        read_parameters(path)


def test_parameter_files(tmp_path, declared):
    path = tmp_path / "p.yaml"
    path.write_text("rate: 1e-3\nseeds: [1, 2]\nsizes: [1e-3, 2]\n")
    checked = check_values(declared, read_values(path))
    assert (checked["rate"], checked["seeds"], checked["sizes"]) == (1e-3, [1, 2], (1e-3, 2.0))
    path.write_text("")
    assert read_values(path) == {}
    for text in ("- a\n", "text\n", "a: [\n"):
        path.write_text(text)
        with pytest.raises(ParameterError, match=r"p\.yaml"):
            read_values(path)
    with pytest.raises(ParameterError, match="No such file"):
        read_values(tmp_path / "none.yaml")


TEXTS = ["20", "-1", "010", "0x10", "1_0", "1:30", "1e-3", ".5", "inf", "true", "yes", "~", "null", "auto", "three"]


@pytest.mark.parametrize("text", [*TEXTS, "3", "2021-01-01", "[1, 2]", "[0x1, 2]", "9" * 5000, "0x" + "f" * 5000])
def test_a_file_and_the_command_line_judge_a_value_alike(tmp_path, declared, text):
    """Fails if YAML makes another number, a truth value or a date of a text before it is checked."""
    path = tmp_path / "p.yaml"
    for name in declared:
        path.write_text(f"{name}: {text}\n")
        if text.startswith("["):
            assert read_values(path)[name] == text.strip("[]").split(", ")
        else:
            assert read_values(path) == {name: text}
        outcomes = []
        for values in ({name: text}, read_values(path)):
            try:
                outcomes.append(repr(check_values(declared, values)[name]))
            except ParameterError:
                outcomes.append("refused")
        if name != "name" or not text.startswith("["):  # "[1, 2]" is a text on the command line, and a list in a file
            assert outcomes[0] == outcomes[1], name


BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}]\n" for p, n in pairwise("abcdefghijklmnop"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB.encode(), "*a refers to another part"),
        (b"rate: 0.1\nflag: true\nrate: 0.2\n", "'rate' is given twice"),
        (b"name: \xff\n", "can't decode byte 0xff"),
        (b"name: \x1b\n", "special characters are not allowed"),
        (b"seeds: " + b"[" * 50_000, "nests too deeply"),
        (b"seeds:\n" + b"- " * 50_000, "nests too deeply"),
        (b"seeds: [" + b"1, " * 100_000 + b"]", "larger than 200000 bytes"),
        (b"? [a]\n: 1\n", "unhashable key"),
        (b"a: [\n", "line 2 is not YAML"),
    ],
    ids=range(9),
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(ParameterError) as error:
        read_values(path)
    assert reason in str(error.value) and str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


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


@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"cells": [1]}', '{"cells": 3}', '{"cells": [{"source": "x"}]}', "\x00"]
)
def test_what_is_no_notebook_is_refused(tmp_path, content):
    path = tmp_path / "n.ipynb"
    path.write_text(content)
    with pytest.raises(ParameterError, match="is not a notebook"):
        read_parameters(path)


@pytest.mark.parametrize("line", ["x: int = " + "(" * 1000, "x: int = " + "-" * 10**5 + "1", "x: int = '\0'"])
def test_a_cell_that_python_cannot_read_is_refused(line):
    with pytest.raises(ParameterError):
        parse_parameters(line)


@given(st.integers(1, 10**12), st.floats(1e-300, 0.999), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_what_python_prints_is_read_back(whole, real, items):
    # Breaks if a digit is lost between the command line and the injected value.
    declared = parse_parameters(CELL)
    given_values = {"n_groups": str(whole), "rate": repr(real), "seeds": str(items)}
    checked = check_values(declared, given_values)
    assert (checked["n_groups"], checked["rate"], checked["seeds"]) == (whole, real, items)
