"""Running one notebook: what it leaves, what a failure leaves, and how a new text comes to kept outputs."""

import hashlib
import json
import os

import nbformat
import pytest
from tiny_book import CODE, write_notebook

from gsae_book.runs import execution
from gsae_book.runs.execution import read_run, run_notebook, update_text
from gsae_book.runs.kernel import NotebookError
from gsae_book.runs.keys import notebook_key
from gsae_book.runs.parameters import check_values, read_parameters

pytestmark = pytest.mark.book


def key_of(path, **given):
    return notebook_key(path, check_values(read_parameters(path), given), given=given)


def test_a_run_leaves_notebook_and_record(tmp_path):
    path, out = tmp_path / "n.ipynb", tmp_path / "a {brace}" / "out.ipynb"
    code = CODE + "\nimport os\nprint(os.getcwd(), os.environ['OMP_NUM_THREADS'], rate)"
    write_notebook(path, code)
    environment = dict(os.environ)
    run = run_notebook(path, out, parameters={"n_groups": "3", "rate": "1e-3"}, root=tmp_path, threads=1)

    assert run.parameters == {"n_groups": 3, "rate": 1e-3, "seed": 0}
    assert run.metrics["size"] == {"value": 3.5, "spread": 0.25}
    assert run.seeds == {"seed": 0}
    assert run.versions["python"] and run.device and run.seconds > 0
    assert run.commit is None
    assert read_run(out) == run
    assert read_run(out, key_of(path, n_groups=3, rate=1e-3)) == run
    assert read_run(out, key_of(path, n_groups=4)) is None
    assert sorted(os.listdir(out.parent)) == ["out.ipynb", "out.json"]
    assert dict(os.environ) == environment

    notebook = json.loads(out.read_text())
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    assert notebook["metadata"]["gsae"] == {"key": run.key, "source": source, "success": True}
    assert "papermill" not in notebook["metadata"]
    # Breaks if times, papermill's notes or the probe stay in the cells: the pages would change at each run.
    assert len(notebook["cells"]) == 5
    assert all(not {"papermill", "execution"} & cell["metadata"].keys() for cell in notebook["cells"])
    injected = notebook["cells"][3]
    assert injected["metadata"]["tags"] == ["injected-parameters", "hide-input"]
    assert "".join(injected["source"]).splitlines()[1:] == ["n_groups = 3", "rate = 0.001"]
    printed = [output for output in notebook["cells"][4]["outputs"] if output["output_type"] == "stream"]
    assert "".join(printed[0]["text"]) == f"{tmp_path} 1 0.001\n"


OUTPUTS = """
import sys, time
from myst_nb import glue
class Text:
    def __repr__(self):
        return '10.50 ± 0.25'
record('ours', 10.5, 0.25)
glue('theirs', Text(), display=False)
for k in range(3):
    print(k, end=' ', flush=True)
    print('warning', file=sys.stderr, flush=True)
    time.sleep(0.3)
display(object())
print('last')
"""


def test_outputs_are_those_of_glue_and_do_not_depend_on_when_they_came(tmp_path):
    """Fails if a page would not find a record, or what is printed stays in pieces or passes a figure."""
    path, out = tmp_path / "n.ipynb", tmp_path / "out.ipynb"
    write_notebook(path, OUTPUTS)
    run_notebook(path, out, root=tmp_path)
    ours, theirs, *outputs = json.loads(out.read_text())["cells"][-1]["outputs"]
    assert (ours["output_type"], ours["data"]) == (theirs["output_type"], theirs["data"])
    assert ours["metadata"].pop("gsae") == {"name": "ours", "value": 10.5, "spread": 0.25}
    theirs["metadata"]["scrapbook"]["name"] = "ours"
    assert ours["metadata"] == theirs["metadata"]
    shown = [o.get("name", "".join(o.get("data", {}).get("text/plain", ""))) for o in outputs]
    assert shown == ["stdout", "stderr", "<object at 0x000000>", "stdout"]
    assert ["".join(o["text"]) for o in outputs if "text" in o] == ["0 1 2 ", "warning\n" * 3, "last\n"]


def test_a_failing_cell(tmp_path):
    path, out = tmp_path / "n.ipynb", tmp_path / "out.ipynb"
    write_notebook(path, "assert n_groups > 11, f'only {n_groups}'")
    with pytest.raises(NotebookError, match=r"n\.ipynb, cell 4 of 4 failed(.|\n)*AssertionError: only 10"):
        run_notebook(path, out, root=tmp_path)
    # Breaks if a failed notebook stands where a reader takes it for a result.
    assert sorted(os.listdir(tmp_path)) == ["n.ipynb", "out.failed.ipynb"]
    run_notebook(path, out, parameters={"n_groups": 12}, root=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["n.ipynb", "out.ipynb", "out.json"]


@pytest.mark.parametrize("given", [{}, {"n_groups": 3}])
def test_a_new_text_comes_to_the_kept_outputs(tmp_path, monkeypatch, given):
    """Fails if what results is not what executing the notebook with its new text would have given."""
    path, kept, fresh = (tmp_path / f"{name}.ipynb" for name in ("n", "kept", "fresh"))
    write_notebook(path, CODE + "\nprint(n_groups)")
    before = run_notebook(path, kept, parameters=given, root=tmp_path)
    assert not update_text(path, kept)

    notebook = nbformat.read(path, as_version=4)
    title, *code = notebook.cells
    title.source = "# Read another title"
    code[0].source += "  # a comment"
    code[1].metadata["tags"].append("hide-input")
    code[2].metadata = {"mystnb": {"figure": {"caption": "A caption."}}, "tags": []}
    section = nbformat.v4.new_markdown_cell("## A section", id="section")
    notebook.cells = [title, code[0], section, *code[1:]]
    notebook.metadata["authors"] = [{"name": "Somebody"}]
    nbformat.write(notebook, path)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "execute", lambda *_, **__: pytest.fail("a kernel was started"))
        assert update_text(path, kept) and not update_text(path, kept)
    assert read_run(kept, key_of(path, **given)) == before
    run_notebook(path, fresh, parameters=given, root=tmp_path)
    assert kept.read_text() == fresh.read_text()
    assert ("another title" in kept.read_text() and "10.50 ± 0.25" in kept.read_text()) or given


@pytest.mark.parametrize("damage", ["no json", "no success", "other key", "not a notebook"])
def test_an_incomplete_run_is_not_reused(tmp_path, damage):
    out = tmp_path / "out.ipynb"
    fields = dict.fromkeys(execution.RunRecord.__dataclass_fields__, "") | {"key": "k"}
    state = {"key": "other" if damage == "other key" else "k", "success": damage != "no success"}
    out.write_text("" if damage == "not a notebook" else json.dumps({"metadata": {"gsae": state}}))
    if damage != "no json":
        out.with_suffix(".json").write_text(json.dumps(fields))
    assert read_run(out) is None
