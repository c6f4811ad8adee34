"""The notebooks as committed: stripped, typed, described, with exercises whose solutions run, executable anywhere."""

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from built_site import ROOT

from gsae_book.build.book import read_profiles
from gsae_book.runs.parameters import read_cells, read_parameters

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
BUTTONS = {"hide-input", "hide-cell", "hide-output"}
LAST = ["Three lines to remember", "Exercises"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind):
    return [cell for cell in read_cells(path) if cell["cell_type"] == kind]


def tags_of(cell):
    return {*cell["metadata"].get("tags", [])}


def text_of(path):
    return "\n\n".join(cell["source"] for cell in cells_of(path, "markdown"))


def nodes_of(path, *kinds):
    """The parts of a notebook's Python of these kinds, outer ones first."""
    trees = (ast.parse(cell["source"]) for cell in cells_of(path, "code"))
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


@each_notebook
def test_it_is_stripped(path):
    """Fails if a notebook is committed as it was executed."""
    cells = read_cells(path)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert not any("injected-parameters" in tags_of(cell) for cell in cells)
    metadata = json.loads(path.read_text(encoding="utf8"))["metadata"]
    assert not {"papermill", "widgets", "gsae"} & metadata.keys()


@each_notebook
def test_its_parameters_are_typed_and_told(path):
    """Fails if `gsae show` has no meaning for one of them."""
    found = read_parameters(path).values()
    assert found and [parameter.name for parameter in found if not parameter.meaning] == []


def test_every_notebook_has_its_file_in_each_profile():
    """Fails on a missing or stale file, or a value that a notebook does not allow, which read_profiles refuses."""
    assert {"default", "smoke", "paper"} <= read_profiles(ROOT).keys()


@each_notebook
def test_its_title_and_name_agree_on_an_action(path):
    assert re.fullmatch(r"\d\d_[a-z]+(_[a-z]+)+", path.stem)
    first = read_cells(path)[0]
    assert first["cell_type"] == "markdown" and first["source"].lower().startswith(f"# {path.stem.split('_')[1]}")


def calls(code):
    """The names of the functions and methods that a piece of Python calls."""
    called = (node.func for node in ast.walk(code) if isinstance(node, ast.Call))
    return {getattr(one, "attr", getattr(one, "id", "")) for one in called}


@pytest.fixture(scope="module")
def drawing_maps():
    """The functions of the book, and of matplotlib and seaborn, whose figures give brightness a meaning."""
    found = {"imshow", "pcolormesh", "heatmap", "contourf"}
    bodies = {}
    for name in ("build/figures", "app/report_figures"):
        module = ast.parse((ROOT / "gsae_book" / f"{name}.py").read_text(encoding="utf8"))
        bodies |= {one.name: calls(one) for one in module.body if isinstance(one, ast.FunctionDef)}
    for _ in bodies:
        found |= {name for name, called in bodies.items() if called & found}
    return found


@each_notebook
def test_maps_and_nothing_else_keep_their_colours_in_dark_mode(path, drawing_maps):
    """Fails if a map has bright and dark exchanged on a dark page, or a plot of lines stays a white square there."""
    cells = cells_of(path, "code")
    drawn = [n for n, cell in enumerate(cells) if calls(ast.parse(cell["source"])) & drawing_maps]
    assert [n for n, cell in enumerate(cells) if "map" in tags_of(cell)] == drawn


@each_notebook
def test_what_is_folded_says_what_it_is(path):
    """Fails if a button says "Show code cell source"."""
    labels = [cell["metadata"].get("mystnb", {}) for cell in read_cells(path) if BUTTONS & tags_of(cell)]
    assert all(label.get("code_prompt_show") and label.get("code_prompt_hide") for label in labels)


@each_notebook
def test_its_code_leaves_room_for_words_and_defines_no_algorithm(path):
    """Fails if more than half of the lines that a reader sees are code, of text 88 columns wide, or it belongs away."""
    sources = [cell["source"] for cell in cells_of(path, "code") if not FOLDED & tags_of(cell)]
    code = [line for source in sources for line in source.split("\n") if line.strip()]
    text = [line for source in text_of(path).split("\n") for line in textwrap.wrap(source, 88)]
    assert len(code) <= len(text)
    assert not nodes_of(path, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


# Exercises


def blocks(text, kind):
    """The exercises or solutions of a text, by label."""
    found = re.findall(rf"^:::\{{{kind}\}}(.*?)^:::$", text, flags=re.MULTILINE | re.DOTALL)
    return {re.search(r"^(?::label:)? ?(ex-[\w-]+)$", block, flags=re.MULTILINE)[1]: block for block in found}


def codes(path):
    """The Python of each solution that has some, by label."""
    code = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
    found = {label: "\n".join(code.findall(block)) for label, block in blocks(text_of(path), "solution").items()}
    return {label: code for label, code in found.items() if code}


CODES = {label: code for path in NOTEBOOKS for label, code in codes(path).items()}


@each_notebook
def test_a_chapter_ends_with_verdict_three_lines_and_exercises(path):
    """Fails if one of them is missing or elsewhere, or if fewer than two exercises have solutions with code."""
    text = text_of(path)
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    if headings[-1] == "References":
        headings.pop()
    assert headings[-2:] == LAST and headings[-3].startswith("Verdict")
    (three,) = re.findall(rf"^## {LAST[0]}\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^\* ", three, flags=re.MULTILINE)) == 3
    assert blocks(text, "exercise").keys() == blocks(text, "solution").keys()
    assert len(codes(path)) >= 2


@pytest.mark.parametrize("label", CODES)
def test_the_code_of_a_solution_runs_alone(label, tmp_path, monkeypatch):
    """Fails if it needs a name that it does not make, or if what it asserts is not so."""
    code = CODES[label]
    assert "assert " in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, label, "exec"), {"__name__": label})


# In other hands: Jupyter's own executors, whose kernels start in the folder of the notebook


@pytest.mark.book
@pytest.mark.parametrize(
    ("words", "folder"),
    [(["execute", "--output={}"], "."), (["nbconvert", "--to=notebook", "--execute", "--output={}"], "notebooks")],
)
def test_jupyter_executes_a_notebook_as_it_is(tmp_path, words, folder):
    """Fails if a notebook runs only where papermill starts it, in the project's folder."""
    jupyter, out = Path(sys.executable).with_name("jupyter"), tmp_path / "out.ipynb"
    path = (ROOT / "notebooks" / "02_derive_the_group_relu.ipynb").relative_to(ROOT / folder)
    command = [jupyter, *(word.format(out) for word in words), path]
    done = subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(out, as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    assert any("gsae" in output.get("metadata", {}) for cell in cells for output in cell.get("outputs", ()))


@each_notebook
def test_files_of_the_project_are_found_from_the_folder_of_the_notebooks(path, monkeypatch):
    """Fails if a cell opens a file of the project by a path that counts from where its kernel happens to run."""
    monkeypatch.chdir(ROOT / "notebooks")
    names = {name: parameter.default for name, parameter in read_parameters(path).items()}
    files = {n for n, v in names.items() if isinstance(v, str) and v and (ROOT / v).exists()}
    exec(compile(ast.Module(nodes_of(path, ast.Import, ast.ImportFrom), []), path.name, "exec"), names)
    # The innermost call around each name of a file reads it, or makes a path of it.
    calls = {}
    for call in nodes_of(path, ast.Call):
        calls |= {n: call for n in ast.walk(call) if isinstance(n, ast.Name) and n.id in files}
    for call in calls.values():
        eval(compile(ast.Expression(call), path.name, "eval"), names)
