"""The notebooks as committed: stripped, typed, with a file in each profile, and figures that are described."""

import ast
import json
import re
import textwrap

import pytest
from built_site import ROOT

from gsae_book.build.book import read_profiles
from gsae_book.runs.parameters import read_cells, read_parameters

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_it_is_stripped(path):
    # Breaks if a notebook is committed as it was executed.
    cells = read_cells(path)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    tags = [tag for cell in cells for tag in cell["metadata"].get("tags", [])]
    assert "injected-parameters" not in tags
    metadata = json.loads(path.read_text(encoding="utf8"))["metadata"]
    assert not {"papermill", "widgets", "gsae"} & metadata.keys()


@each_notebook
def test_its_parameters_are_typed_and_told(path):
    """Fails if `gsae show` has no meaning for one of them."""
    found = read_parameters(path).values()
    assert found and [parameter.name for parameter in found if not parameter.meaning] == []


def test_every_notebook_has_its_file_in_each_profile():
    # read_profiles refuses missing and stale files, and values that a notebook does not allow.
    assert {"default", "smoke", "paper"} <= read_profiles(ROOT).keys()


@each_notebook
def test_its_title_and_name_agree_on_an_action(path):
    assert re.fullmatch(r"\d\d_[a-z]+(_[a-z]+)+", path.stem)
    first = read_cells(path)[0]
    assert first["cell_type"] == "markdown" and first["source"].startswith("# ")
    verb = path.stem.split("_")[1]
    assert first["source"].removeprefix("# ").lower().startswith(verb), f"the title should start with {verb!r}"


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
    cells = [cell for cell in read_cells(path) if cell["cell_type"] == "code"]
    drawn = [n for n, cell in enumerate(cells) if calls(ast.parse(cell["source"])) & drawing_maps]
    assert [n for n, cell in enumerate(cells) if "map" in cell["metadata"].get("tags", [])] == drawn


@each_notebook
def test_its_figures_have_captions_and_descriptions(path):
    # Breaks if a cell that shows a figure lacks what a reader who does not see it needs.
    bare = []
    for cell in read_cells(path):
        if cell["cell_type"] == "code" and "plt.show()" in cell["source"]:
            settings = cell["metadata"].get("mystnb", {})
            if not settings.get("figure", {}).get("caption") or not settings.get("image", {}).get("alt"):
                bare.append(cell["source"])
    assert not bare, "\n---\n".join(bare)


@each_notebook
def test_what_is_folded_says_what_it_is(path):
    # Breaks if a button says "Show code cell source".
    tags = FOLDED - {"remove-input", "remove-cell"} | {"hide-output"}
    folded = [cell for cell in read_cells(path) if tags & set(cell["metadata"].get("tags", []))]
    labels = [cell["metadata"].get("mystnb", {}) for cell in folded]
    assert all(label.get("code_prompt_show") and label.get("code_prompt_hide") for label in labels)


@each_notebook
def test_its_code_leaves_room_for_words(path):
    # Breaks if more than half of the lines that are not folded away are code. A line of text has 88 columns.
    code = text = 0
    for cell in read_cells(path):
        lines = [line for line in cell["source"].split("\n") if line.strip()]
        if cell["cell_type"] == "markdown":
            text += sum(len(textwrap.wrap(line, 88)) for line in lines)
        elif not FOLDED & set(cell["metadata"].get("tags", [])):
            code += len(lines)
    assert code <= text


@each_notebook
def test_it_defines_no_algorithm(path):
    # Breaks if a notebook has a function or a class: it belongs into a module, where it is documented and tested.
    trees = [ast.parse(cell["source"]) for cell in read_cells(path) if cell["cell_type"] == "code"]
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert not [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, defined)]
