"""Notebooks in other hands: Jupyter's own executors, whose kernels start in the folder of the notebook."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from built_site import ROOT

from gsae_book.environment import find_root
from gsae_book.parameters import read_cells, read_parameters

NOTEBOOK = "02_derive_the_group_relu.ipynb"
COMMANDS = {
    "execute": ["execute", "--output={out}"],
    "nbconvert": ["nbconvert", "--to=notebook", "--execute", "--output={out}"],
}


@pytest.mark.book
@pytest.mark.parametrize("folder", [".", "notebooks"])
@pytest.mark.parametrize("command", COMMANDS)
def test_jupyter_executes_a_notebook_as_it_is(tmp_path, command, folder):
    """Fails if a notebook runs only where papermill starts it, in the project's folder."""
    if command == "nbconvert":
        pytest.importorskip("nbconvert")
    jupyter, out = Path(sys.executable).with_name("jupyter"), tmp_path / "out.ipynb"
    words = [word.format(out=out) for word in COMMANDS[command]]
    path = (ROOT / "notebooks" / NOTEBOOK).relative_to(ROOT / folder)
    done = subprocess.run([jupyter, *words, path], cwd=ROOT / folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(out, as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    assert any("gsae" in output.get("metadata", {}) for cell in cells for output in cell.get("outputs", ()))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_files_of_the_project_are_found_from_the_folder_of_the_notebooks(path, monkeypatch):
    """Fails if a cell opens a file of the project by a path that counts from where its kernel happens to run."""
    monkeypatch.chdir(ROOT / "notebooks")
    files = {
        name
        for name, parameter in read_parameters(path).items()
        if isinstance(parameter.default, str) and parameter.default and (ROOT / parameter.default).exists()
    }
    assert all((find_root() / read_parameters(path)[name].default).exists() for name in files)
    code = [ast.parse(c["source"]) for c in read_cells(path) if c["cell_type"] == "code"]
    sound = set()
    for node in (node for tree in code for node in ast.walk(tree)):
        if isinstance(node, ast.BinOp) and ast.unparse(node.left) == "find_root()":
            sound.add(node.right)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "read_rows":
            sound.update(node.args)
    reads = [node for tree in code for node in ast.walk(tree) if isinstance(node, ast.Name)]
    loose = [node.id for node in reads if node.id in files and isinstance(node.ctx, ast.Load) and node not in sound]
    assert not loose
