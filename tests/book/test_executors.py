"""Notebooks in other hands: Jupyter's own executors, whose kernels start in the folder of the notebook."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from built_site import ROOT

from gsae_book.runs.parameters import read_cells, read_parameters

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
    defaults = {name: parameter.default for name, parameter in read_parameters(path).items()}
    files = {n for n, v in defaults.items() if isinstance(v, str) and v and (ROOT / v).exists()}
    cells = [cell["source"] for cell in read_cells(path) if cell["cell_type"] == "code"]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names = dict(defaults)
    exec(compile(ast.Module(imports, []), path.name, "exec"), names)
    # The innermost call around each name of a file reads it, or makes a path of it.
    calls = {}
    for call in (node for node in nodes if isinstance(node, ast.Call)):  # outer ones first
        calls |= {n: call for n in ast.walk(call) if isinstance(n, ast.Name) and n.id in files}
    for call in calls.values():
        eval(compile(ast.Expression(call), path.name, "eval"), names)
