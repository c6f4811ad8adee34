"""Typed parameter cells: what is read, what is refused, and what the refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_book import write_notebook

from gsae_lib.runs.parameters import ParameterError, check_values, parse_parameters, read_parameters, read_values

CELL = """\
# comments may stand here
num_groups: Annotated[int, Ge(1)] = 10  # and here
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
        ("num_groups", "20", 20),
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
        ("num_groups", "-1", "an integer, at least 1"),
        ("num_groups", "abc", "an integer, at least 1"),
        ("num_groups", "true", "an integer, at least 1"),
        ("num_groups", True, "an integer, at least 1"),
        ("num_groups", 2.0, "an integer, at least 1"),
        ("num_groups", None, "an integer, at least 1"),
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
    ],
)
def test_a_refusal_names_parameter_value_and_what_is_allowed(declared, name, value, allowed):
    # Breaks if pydantic's lax conversions come back, or if the message loses one of its three parts.
    with pytest.raises(ParameterError) as error:
        check_values(declared, {name: value})
    assert str(error.value) == f"{name} = {value!r} is not allowed: it must be {allowed}"


def test_all_problems_are_reported_at_once(declared):
    with pytest.raises(ParameterError) as error:
        check_values(declared, {"num_group": 20, "rate": 7, "flag": 0, "zzz": 1})
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "there is no parameter num_group; did you mean num_groups? This notebook has num_groups, rate" in lines[0]
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
        ("x: int | None = 1", "'int | None' is not a parameter type"),
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
    assert list(read_parameters(path)) == ["num_groups", "rate", "seed"]
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
    for text in ("- a\n", "1: 2\n", "a: [\n"):
        path.write_text(text)
        with pytest.raises(ParameterError, match=r"p\.yaml"):
            read_values(path)
    with pytest.raises(ParameterError, match="No such file"):
        read_values(tmp_path / "none.yaml")


@given(st.integers(1, 10**12), st.floats(1e-300, 0.999), st.lists(st.integers(), min_size=1))
def test_what_python_prints_is_read_back(whole, real, items):
    # Breaks if a digit is lost between the command line and the injected value.
    declared = parse_parameters(CELL)
    given_values = {"num_groups": str(whole), "rate": repr(real), "seeds": str(items)}
    checked = check_values(declared, given_values)
    assert (checked["num_groups"], checked["rate"], checked["seeds"]) == (whole, real, items)
