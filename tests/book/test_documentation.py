"""What the documents say to type: Python that runs in the order printed, commands that the notebooks accept."""

import ast
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys

import pytest
from built_site import ROOT

import gsae_book
import gsae_lib
from gsae_book.app.cli import main
from gsae_book.data.files import DATASETS
from gsae_book.runs.execution import find_notebook
from gsae_book.runs.parameters import check_values, read_cells, read_parameters
from gsae_lib.metrics import ClusteringScores

FENCE = r"^```{}\n(.*?)^```"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def text_of(path):
    """A document, or the text between the code of a notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf8")
    return "\n\n".join(cell["source"] for cell in read_cells(path) if cell["cell_type"] == "markdown")


def commands_in(text):
    """Each call of `gsae` in a shell block or in a code span, as a list of words."""
    blocks = re.findall(FENCE.format("bash"), text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", re.sub(FENCE.format(r"[^`\n]*"), "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()] + [" ".join(span.split()) for span in spans]
    calls = (shlex.split(call, comments=True) for line in lines if "gsae " in line for call in line.split("&&"))
    return [call for call in calls if call and call[0] in ("gsae", ".venv/bin/gsae")]


COMMANDS = {shlex.join(call): call[1:] for path in DOCUMENTS + NOTEBOOKS for call in commands_in(text_of(path))}


WITH_PYTHON = [path for path in DOCUMENTS if "\n```python\n" in text_of(path)]


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.name)
def test_python_in_a_document_runs_in_the_order_printed(path, tmp_path, monkeypatch):
    """Fails if a block needs a name that no earlier one leaves, or if the README's digits score other than it says."""
    monkeypatch.chdir(tmp_path)
    names, scores = {}, {}
    for block in re.findall(FENCE.format("python"), text_of(path), flags=re.MULTILINE | re.DOTALL):
        *statements, last = ast.parse(block).body
        kind = "eval" if isinstance(last, ast.Expr) else "exec"
        exec(compile(ast.Module(statements, []), "README.md", "exec"), names)
        tail = ast.Expression(last.value) if kind == "eval" else ast.Module([last], [])
        value = eval(compile(tail, "README.md", kind), names)
        if isinstance(value, ClusteringScores):
            scores = {name: float(number) for name, number in re.findall(r"(accuracy|NMI|ARI) (0\.\d+)", block)}
            found = {"accuracy": value.accuracy, "NMI": value.nmi, "ARI": value.ari}
            assert found == pytest.approx(scores, abs=0.005)
    assert scores.keys() == ({"accuracy", "NMI", "ARI"} if path.name == "README.md" else set())


@pytest.mark.slow
def test_the_script_for_several_processes_runs(tmp_path):
    """Fails if two processes cannot run the README's script, or it leaves no checkpoint."""
    (script,) = re.findall(FENCE.format("py"), text_of(ROOT / "README.md"), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "together.py").write_text(script, encoding="utf8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "together.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(torchrun, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(ast.literal_eval(result.stdout.strip())) == 5 and (tmp_path / "together").is_file()


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_in_the_text_is_accepted(words):
    """Fails if a document names a command, option, notebook, parameter, value or data set that is refused."""
    command = main.commands[words[0]]
    given = command.make_context(words[0], words[1:]).params
    if words[0] == "run":
        check_values(read_parameters(find_notebook(given["notebook"], ROOT)), dict(given["parameters"]))
    elif words[0] == "data":
        assert given["name"] in {*DATASETS, "smollm2"}


def test_commands_are_found():
    """Fails if the search above finds nothing in a shell block, or in a code span that goes over two lines."""
    assert commands_in(
        "```{include} x\n```\n```bash\n.venv/bin/gsae data mnist && .venv/bin/gsae run 1 # it\n```\n"
        "the `gsae run\n2 -p a b`"
    ) == [
        [".venv/bin/gsae", "data", "mnist"],
        [".venv/bin/gsae", "run", "1"],
        ["gsae", "run", "2", "-p", "a", "b"],
    ]
    assert {words[0] for words in COMMANDS.values()} == {
        *("run", "data", "info", "sweep", "collate", "diff", "record", "verify", "cluster", "predict", "show")
    }


def test_examples_in_docstrings_give_what_they_say():
    """Fails if an example in a docstring gives something else than is printed under it."""
    packages = (gsae_lib, gsae_book)
    names = [module.name for p in packages for module in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]
    found = [doctest.testmod(importlib.import_module(name)) for name in names if not name.endswith("__main__")]
    assert sum(result.failed for result in found) == 0 < sum(result.attempted for result in found)


def test_every_module_of_the_library_has_its_page():
    """Fails if a public module is documented nowhere, or a page documents another than its name says."""
    pages = {path.stem: path.read_text(encoding="utf8") for path in (ROOT / "book" / "api").glob("*.md")}
    modules = {
        module.name
        for module in pkgutil.walk_packages(gsae_lib.__path__, "gsae_lib.")
        if not module.ispkg and "._" not in module.name
    }
    shown = [name for text in pages.values() for name in re.findall(r"automodule:: (\S+)", text)]
    assert modules | pages.keys() <= {*shown} and len(shown) == len({*shown})
    assert all(
        name.startswith(page) for page, text in pages.items() for name in re.findall(r"automodule:: (\S+)", text)
    )
    table = (ROOT / "book" / "api.md").read_text(encoding="utf8")
    assert set(re.findall(r"^   ([a-z_.]+)$", table, flags=re.MULTILINE)) == pages.keys()
