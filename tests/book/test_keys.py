"""Keys of notebooks: what changes one, and what leaves it alone. Nothing is executed here."""

import shutil

import nbformat
import pytest
from built_site import ROOT
from tiny_book import write_book, write_notebook

from gsae_book.runs import keys
from gsae_book.runs.keys import key_parts, notebook_key
from gsae_book.runs.parameters import check_values, read_parameters

FIRST, SECOND = "01_first", "02_second"


@pytest.fixture
def tiny(tmp_path):
    """The folder of a tiny book."""
    return write_book(tmp_path)


def keys_of(root):
    """The key of each notebook in ``root``, with its defaults."""
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    return {path.stem: notebook_key(path, check_values(read_parameters(path), {}), root) for path in paths}


def edit(root, place, old, new):
    """Replace ``old`` by ``new`` in a file, or in the cell CELL of a notebook if ``place`` is "NOTEBOOK:CELL"."""
    name, _, cell = place.partition(":")
    path = root / "notebooks" / f"{name}.ipynb" if cell else root / name
    if cell:
        notebook = nbformat.read(path, as_version=4)
        holder = next(c for c in notebook.cells if c.id == cell)
        text = holder.source
        holder.source = text.replace(old, new)
        nbformat.write(notebook, path)
    else:
        text = path.read_text(encoding="utf8")
        path.write_text(text.replace(old, new), encoding="utf8")
    assert old in text


def changed_by(root, *edits):
    """The notebooks that have another key after the edits."""
    before = keys_of(root)
    for each in edits:
        edit(root, *each)
    after = keys_of(root)
    return [stem for stem in before if before[stem] != after[stem]]


@pytest.mark.parametrize(
    ("place", "old", "new", "changed"),
    [
        ("tiny/shape.py", "Return the area of a square.", "What a square covers.", []),
        ("tiny/shape.py", "def area", '"""A module."""\n\n\ndef area', []),
        ("tiny/shape.py", "    return", "    # a comment\n\n    return", []),
        ("tiny/shape.py", "Tensor", "Generator", []),
        ("tiny/__init__.py", "from tiny.colour", '"""A package."""\nfrom tiny.unused import x\nfrom tiny.colour', []),
        ("tiny/unused.py", "1", "2", []),
        (f"{FIRST}:title", "The size is", "How large it is:", []),
        (f"{FIRST}:code", "from tiny import area", "# a comment\nfrom tiny import area  # another", []),
        (f"{FIRST}:parameters", "= 10", "= 10  # groups", []),
        ("tiny/shape.py", "side * side", "side**2", [FIRST]),
        ("tiny/shape.py", "def area", "déf (area", [FIRST]),
        ("tiny/colour.py", "2", "3", [SECOND]),
        ("tiny/__init__.py", "from tiny.shape", "print()\nfrom tiny.shape", [FIRST, SECOND]),
        ("tiny/__init__.py", "from tiny.shape import area", "from tiny.colour import mix as area", [FIRST]),
        ("tiny/__init__.py", "from tiny.shape import area", "from tiny.shape import length as area", [FIRST]),
        (f"{FIRST}:code", "0.25", "0.125", [FIRST]),
        (f"{FIRST}:parameters", "= 10", "= 11", [FIRST]),
        (f"{SECOND}:code", "\nn_groups", "\nn_groups;  # not shown", [SECOND]),
        (f"{SECOND}:code", "\nn_groups", "\nn_groups\n'a text is shown'", [SECOND]),
    ],
)
def test_an_edit_changes_the_keys_of_the_notebooks_whose_outputs_it_may_decide(tiny, place, old, new, changed):
    """Fails if a comment, a text, a type or a module that nobody imports is part of a key, or an import is not."""
    (tiny / "tiny" / "unused.py").write_text("x = 1\n")
    edit(tiny, "tiny/shape.py", "def area", "if TYPE_CHECKING:\n    from torch import Tensor\n\n\ndef area")
    assert changed_by(tiny, (place, old, new)) == changed


def test_of_a_cell_s_metadata_count_the_tags_that_decide_its_outputs(tiny):
    """Fails if a caption executes a notebook, or if a cell that may fail from now on does not."""
    path = tiny / "notebooks" / f"{FIRST}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    found = [keys_of(tiny)[FIRST]]
    for metadata in ({"mystnb": {"figure": {"caption": "A figure."}}}, {"tags": ["hide-input"]}):
        notebook.cells[-1].metadata = metadata
        nbformat.write(notebook, path)
        assert keys_of(tiny)[FIRST] == found[0]
    notebook.cells[-1].metadata = {"tags": ["raises-exception"]}
    nbformat.write(notebook, path)
    found.append(keys_of(tiny)[FIRST])
    edit(tiny, f"{FIRST}:code", "from tiny", "# a comment, which a traceback shows\nfrom tiny")
    found.append(keys_of(tiny)[FIRST])
    assert len(set(found)) == 3


ALL = {"tiny", "tiny.colour", "tiny.shape"}
LAZY = """from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from tiny.shape import area
_ROOMS = {"shape": ("area",)}
"""


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("from tiny import area", {"tiny.shape"}),
        ("from tiny import area as square\nsquare(2)", {"tiny.shape"}),
        ("from tiny.shape import area", {"tiny.shape"}),
        ("from tiny import shape", {"tiny.shape"}),
        ("import tiny.shape as shape", {"tiny.shape"}),
        ("import tiny.shape\ntiny.shape.area(2)", {"tiny.shape"}),
        ("import tiny\ntiny.area(2)", {"tiny.shape"}),
        ("import tiny\n\n\ndef f():\n    return [tiny.area for _ in range(2)]", {"tiny.shape"}),
        ("def f():\n    from tiny import area", {"tiny.shape"}),
        ("%%time\n%matplotlib inline\nfrom tiny import area", {"tiny.shape"}),
        ("from tiny import deep", {"tiny.deep", "tiny.deep.solid", "tiny.shape"}),
        ("from tiny import deep\ndeep.volume(2)", {"tiny.deep.solid", "tiny.shape"}),
        ("from tiny.deep import volume", {"tiny.deep.solid", "tiny.shape"}),
        ("import tiny.deep.solid\ntiny.deep.volume", {"tiny.deep.solid", "tiny.shape"}),
        ("import tiny\ngetattr(tiny, 'area')", ALL),
        ("import tiny", ALL),
        ("from tiny import *", ALL),
        ("from tiny import unknown", ALL),
        ("files = !ls", {*ALL, "tiny.lazy", "tiny.deep", "tiny.deep.solid"}),
        ("import json, numpy as np\nnp.linalg.norm", set()),
        ("from tiny.lazy import area", {"tiny.shape"}),
    ],
)
def test_an_import_leads_to_the_modules_that_it_needs(tiny, code, modules):
    """Fails if a way of importing is overlooked, or if one name of a package brings all that its others need."""
    (tiny / "tiny" / "deep").mkdir()
    (tiny / "tiny" / "deep" / "__init__.py").write_text("from .solid import volume\n")
    (tiny / "tiny" / "deep" / "solid.py").write_text("from .. import area\n\n\nclass Solid:\n    pass\n")
    (tiny / "tiny" / "lazy").mkdir()
    (tiny / "tiny" / "lazy" / "__init__.py").write_text(LAZY)
    path = tiny / "n.ipynb"
    write_notebook(path, code)
    found = key_parts(path, {}, tiny)["modules"]
    assert {name for name in found if name.startswith("tiny") and not name.endswith(", imported")} == modules


def test_files_data_and_versions_change_the_key(tmp_path, monkeypatch):
    """Fails if what a notebook reads, by a parameter or by a text in its code, is not part of its key."""
    path = tmp_path / "n.ipynb"
    write_notebook(path, "from gsae_book.runs.recording import read_rows\nread_rows('folder/literal.json')")
    (tmp_path / "folder").mkdir()
    found = []
    for name in ("literal.json", "named.json", "listed.json"):
        for content in ("1", "2"):
            (tmp_path / "folder" / name).write_text(content)
            values = {"recorded": "folder/named.json", "names": ["folder/listed.json"]}
            found.append(notebook_key(path, values, tmp_path))
    found.append(notebook_key(path, {"folder": "folder"}, tmp_path))
    (tmp_path / "folder" / "another.json").write_text("1")
    found.append(notebook_key(path, {"folder": "folder"}, tmp_path))
    found.append(notebook_key(path, {"data": "mnist-5k"}, tmp_path))
    monkeypatch.setattr(keys, "versions", lambda: {"torch": "0"})
    found.append(notebook_key(path, {"data": "mnist-5k"}, tmp_path))
    monkeypatch.setattr("gsae_book.data.files.data_checksum", lambda name: f"flipped {name}")
    found.append(notebook_key(path, {"data": "mnist-5k"}, tmp_path))
    assert len(set(found)) == len(found)


def test_the_key_reads_no_folder_outside_the_project(tmp_path):
    """Fails if a text that happens to name a folder of the system, or the project's own, has all of it read."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (project / "inside", outside):
        folder.mkdir(parents=True)
        (folder / "x").write_text("1")
    path = project / "n.ipynb"
    write_notebook(path)
    found = []
    for content in ("1", "2"):
        (outside / "x").write_text(content)
        found += [{notebook_key(path, {"data": text}) for text in (str(outside), "..", ".")}]
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of what the keys of this project are made of, with some of its notebooks."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "_config.yml", root)
    left_out = shutil.ignore_patterns(
        "__pycache__", ".ipynb_checkpoints", "0[5-9]*.ipynb", "1[15-9]*.ipynb", "2*.ipynb"
    )
    for name in ("gsae_lib", "gsae_book", "experiments", "notebooks", "results"):
        shutil.copytree(ROOT / name, root / name, ignore=left_out)
    return root


def numbers_changed_by(root, *edits):
    return [stem[:2] for stem in changed_by(root, *edits)]


def with_function(name, before="\ndef "):
    """The edit of a module that puts a function before another."""
    return (name, before, f"\ndef _new():\n    return 1\n\n{before}")


def test_a_function_of_the_library_executes_the_chapters_that_use_it(copied):
    """Fails if all chapters depend on all modules, as they did when the library was one hash."""
    changed = numbers_changed_by(copied, with_function("gsae_lib/training/loop.py", "\ndef train("))
    assert "03" in changed and not {"01", "02", "04"} & set(changed)
    everywhere = with_function("gsae_lib/groups.py", "\ndef to_groups(")
    assert len(changed_by(copied, everywhere)) == len(keys_of(copied))


def test_the_machinery_executes_what_imports_it(copied):
    """Fails if an edit of the builder of pages executes a notebook, or if one of what runs them executes none."""

    def changed(*names):
        return numbers_changed_by(copied, *(with_function(f"gsae_book/{name}.py") for name in names))

    assert changed("build/book", "build/claims", "app/cli", "runs/execution", "runs/keys", "build/pages") == []
    assert changed("runs/parameters", "runs/targets") == ["12"]  # for its folder
    for name in ("runs/recording", "runs/kernel"):
        assert len(changed(name)) == len(keys_of(copied))
    assert "01" in changed("build/figures")


def test_a_recorded_result_executes_the_chapters_that_read_it(copied):
    assert numbers_changed_by(copied, ("results/paper/14_signals.json", '"rows": [', '"rows":  [')) == ["14"]
