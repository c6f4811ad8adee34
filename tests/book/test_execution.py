"""Running one notebook: what it leaves, what a failure leaves, and what its key depends on."""

import json
import os

import pytest
from tiny_book import CODE, write_notebook

from gsae_book import execution
from gsae_book.execution import NotebookError, notebook_key, read_run, run_notebook
from gsae_book.parameters import ParameterError, check_values, read_parameters

pytestmark = pytest.mark.book


def key_of(path, **given):
    return notebook_key(path, check_values(read_parameters(path), given))


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
    assert notebook["metadata"]["gsae"] == {"key": run.key, "success": True}
    assert "papermill" not in notebook["metadata"]
    # Breaks if times, papermill's notes or the probe stay in the cells: the pages would change at each run.
    assert len(notebook["cells"]) == 5
    assert all(not {"papermill", "execution"} & cell["metadata"].keys() for cell in notebook["cells"])
    injected = notebook["cells"][3]
    assert injected["metadata"]["tags"] == ["injected-parameters", "hide-input"]
    assert "".join(injected["source"]).splitlines()[1:] == ["n_groups = 3", "rate = 0.001"]
    printed = [output for output in notebook["cells"][4]["outputs"] if output["output_type"] == "stream"]
    assert "".join(printed[0]["text"]) == f"{tmp_path} 1 0.001\n"


PIECES = """
import sys, time
for k in range(3):
    print(k, end=' ', flush=True)
    print('warning', file=sys.stderr, flush=True)
    time.sleep(0.3)
display(object())
print('last')
"""


def test_outputs_do_not_depend_on_when_they_came(tmp_path):
    """Fails if what is printed with pauses stays in pieces, is moved over a figure, or an address stays."""
    path, out = tmp_path / "n.ipynb", tmp_path / "out.ipynb"
    write_notebook(path, PIECES)
    run_notebook(path, out, root=tmp_path)
    outputs = json.loads(out.read_text())["cells"][-1]["outputs"]
    assert [o.get("name", "".join(o.get("data", {}).get("text/plain", ""))) for o in outputs] == [
        "stdout",
        "stderr",
        "<object at 0x000000>",
        "stdout",
    ]
    assert ["".join(o["text"]) for o in outputs if "text" in o] == ["0 1 2 ", "warning\n" * 3, "last\n"]


def test_the_key_reads_no_folder_outside_the_project(tmp_path):
    """Fails if a text that happens to name a folder of the system, or the project's own, has all of it read."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (project / "inside", outside):
        folder.mkdir(parents=True)
        (folder / "x").write_text("1")
    path = project / "n.ipynb"
    write_notebook(path)
    keys = []
    for content in ("1", "2"):
        (outside / "x").write_text(content)
        keys += [{notebook_key(path, {"data": text}) for text in (str(outside), "..", ".")}]
    assert keys[0] == keys[1]


def test_a_failing_cell(tmp_path):
    path, out = tmp_path / "n.ipynb", tmp_path / "out.ipynb"
    write_notebook(path, "assert n_groups > 11, f'only {n_groups}'")
    with pytest.raises(NotebookError, match=r"n\.ipynb, cell 4 of 4 failed(.|\n)*AssertionError: only 10"):
        run_notebook(path, out, root=tmp_path)
    # Breaks if a failed notebook stands where a reader takes it for a result.
    assert sorted(os.listdir(tmp_path)) == ["n.ipynb", "out.failed.ipynb"]
    run_notebook(path, out, parameters={"n_groups": 12}, root=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["n.ipynb", "out.ipynb", "out.json"]


def test_bad_parameters_start_no_kernel(tmp_path, monkeypatch):
    path = tmp_path / "n.ipynb"
    write_notebook(path)
    monkeypatch.setattr(execution, "_execute", lambda *_: pytest.fail("a kernel was started"))
    with pytest.raises(ParameterError, match="n_groups = 0 is not allowed"):
        run_notebook(path, tmp_path / "out.ipynb", parameters={"n_groups": 0})


def test_the_key_changes_with_all_that_decides_the_outputs(tmp_path, monkeypatch):
    # Breaks if one of the parts is left out of the key: an old result would then be reused.
    path = tmp_path / "n.ipynb"
    write_notebook(path)
    keys = {"plain": key_of(path)}
    assert key_of(path) == keys["plain"]
    keys["parameter"] = key_of(path, n_groups=11)
    with monkeypatch.context() as patch:
        module = tmp_path / "module.py"
        module.write_text("x = 1\n")
        patch.setattr(execution, "library_sources", lambda: [module])
        keys["library"] = key_of(path)
        module.write_text("x = 2\n")
        keys["library edit"] = key_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "versions", lambda: {"torch": "0"})
        keys["version"] = key_of(path)
    write_notebook(path, CODE + "\n")
    keys["cell"] = key_of(path)
    values = {"data": "mnist-5k", "names": ["digits"]}
    keys["data names"] = notebook_key(path, values)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "data_checksum", lambda name: f"flipped {name}")
        keys["data bytes"] = notebook_key(path, values)
    for content in ("1", "2"):  # a file of the project that a parameter names
        (path.parent / "recorded.json").write_text(content)
        keys[f"recorded {content}"] = notebook_key(path, {"recorded": "recorded.json"})
    for content in ("1", "2"):  # a file in a folder of the project that a parameter names
        (path.parent / "folder").mkdir(exist_ok=True)
        (path.parent / "folder" / "recorded.json").write_text(content)
        keys[f"folder {content}"] = notebook_key(path, {"recorded": "folder"})
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize("damage", ["no json", "no success", "other key", "not a notebook"])
def test_an_incomplete_run_is_not_reused(tmp_path, damage):
    out = tmp_path / "out.ipynb"
    fields = dict.fromkeys(execution.RunRecord.__dataclass_fields__, "") | {"key": "k"}
    state = {"key": "other" if damage == "other key" else "k", "success": damage != "no success"}
    out.write_text("" if damage == "not a notebook" else json.dumps({"metadata": {"gsae": state}}))
    if damage != "no json":
        out.with_suffix(".json").write_text(json.dumps(fields))
    assert read_run(out) is None
