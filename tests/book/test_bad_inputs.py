"""Bad inputs: some of the campaign in `faults`, and what it has found that is told in one line now."""

import json
import os
import shutil
import warnings

import pandas as pd
import pytest
from click.testing import CliRunner
from faults import bad_commands, bad_inputs, valid_calls
from faults.judging import Attempt, judge
from faults.scratch_project import notebook, sweep_point, write_project, write_sweep
from faults.stories import CELLS
from tiny_book import write_book, write_notebook

from gsae_book.app import collate
from gsae_book.app.cli import main
from gsae_book.runs import workers
from gsae_book.runs.execution import run_notebook
from gsae_book.runs.parameters import ParameterError, parse_parameters, parse_yaml, read_cells
from gsae_book.runs.recording import format_value, read_points
from gsae_book.runs.targets import check_target


def test_some_of_the_campaign(tmp_path):
    """Fails if the campaign does not run, finds a flaw, or stops before its end."""
    outcomes = list(bad_inputs.run_bad_inputs(tmp_path, seed=1, n_cases=20))
    assert len(outcomes) == 20 and len({one.family for one in outcomes}) > 1
    assert [one for one in outcomes if one.verdict not in bad_inputs.SOUND] == []


def test_what_is_spoiled_is_valid():
    """Fails if a call is refused whatever its arguments, so that a bad one among them is not seen."""
    for function, given in valid_calls.library_calls().values():
        function(**valid_calls.made(given))


def test_what_is_spoiled_is_a_command(tmp_path):
    """Fails if a command is refused whatever its words; the project is no repository and has no data."""
    (tmp_path / "tmp").mkdir()
    for line in bad_commands.LINES:
        if line[0] in ("record", "data"):
            continue
        write_project(tmp_path / "project")
        case = bad_inputs.Case("", "", bad_inputs.Command(bad_commands.good_words(line), accepted=True), ("*",))
        _, verdict, message, _ = bad_inputs._try_command(case, tmp_path, tmp_path / "project")
        assert verdict == "handled", (case.run.arguments, message)
        shutil.rmtree(tmp_path / "project")


def documented(x):
    """A function.

    Raises:
        ValueError: x is bad.
    """
    return x(x)


def fail(error):
    def call(x):
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        (fail(ValueError("size=3: expected more")), "one line"),
        (fail(ValueError("expected more")), "traceback"),
        (fail(ValueError("size=3:\nexpected more")), "traceback"),
        (fail(ValueError("size" * 3000)), "traceback"),
        (fail(RuntimeError("size is bad")), "traceback"),
        (lambda x: warnings.warn("x is bad", stacklevel=1), "silent"),
        (lambda x: float("nan"), "silent"),
        (lambda x: 7, "handled"),
    ],
)
def test_the_judge_is_awake(call, verdict):
    """Fails if an error that is not documented, names nothing, or takes several lines passes; or a warning alone."""
    right = (lambda found: True) if verdict == "handled" else None
    assert judge(Attempt(documented, (call,), {}, ("size",), right))[1] == verdict


def test_the_campaign_sees_hangs_code_and_changes(tmp_path):
    """Fails if a command that runs code of its input, changes a file, prints a traceback or never ends is sound."""
    case = bad_inputs.Case("", "", bad_inputs.Command(("run", "1")))
    write_project(tmp_path / "project")
    (tmp_path / "tmp").mkdir()
    deeds = {
        "executed": lambda: open("executed", "w").close() or exit_with("Error: x", 2),
        "changed": lambda: open("mine.txt", "a").write("x") and exit_with("Error: x", 2),
        "traceback": lambda: 1 / 0,
        "one line": lambda: exit_with("Error: x", 2),
        "silent": lambda: None,
    }
    for verdict, deed in deeds.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bad_inputs, "_call_command", lambda run, project, deed=deed: (os.chdir(project), deed()))
            assert bad_inputs._try_command(case, tmp_path, tmp_path / "project")[1] == verdict


def exit_with(message, code):
    os.write(2, f"{message}\n".encode())
    raise SystemExit(code)


# What it has found


@pytest.fixture
def gsae(tmp_path, monkeypatch):
    """A function that calls the command in the campaign's project, where no worker may start."""
    write_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(workers, "open_client", lambda *_: pytest.fail("a cluster was started"))

    def call(*arguments):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code in (0, 1, 2) and not isinstance(result.exception, OSError | ValueError), (
            result.exception
        )
        return result

    return call


@pytest.mark.parametrize("text", ["!!python/name:os.system ''", "!!str 3", "!mine x", "!!binary aGFsbG8="])
def test_a_tag_of_yaml_is_refused(tmp_path, text):
    """Fails if a tag is ignored, so that the value is another than what is written."""
    with pytest.raises(ParameterError, match=r"the tag .* is not allowed"):
        parse_yaml(f"name: {text}\n", tmp_path / "p.yaml")
    assert parse_yaml("name: '!mine x'\n", tmp_path / "p.yaml") == {"name": "!mine x"}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_parameters_is_read_and_never_run(name, tmp_path, monkeypatch):
    """Fails if a type that cannot be checked ends in an error of pydantic, on many lines, or in what the cell calls."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError) as error:
        parse_parameters(CELLS[name])
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 2000 and not os.listdir(tmp_path)


@pytest.mark.parametrize("tags", [None, 5, "parameters", {"parameters": 1}, [1]])
def test_tags_are_texts(tmp_path, tags):
    """Fails if tags of another kind are an error of Python, or a text that contains the word counts as the tag."""
    content = notebook()
    content["cells"][2]["metadata"]["tags"] = tags
    (tmp_path / "n.ipynb").write_text(json.dumps(content))
    with pytest.raises(ParameterError, match="tags of a cell must be a list of texts"):
        read_cells(tmp_path / "n.ipynb")


@pytest.mark.parametrize("change", [{"nbformat": 3}, {"nbformat": 99}, {"metadata": None}, {"nbformat_minor": "x"}])
def test_another_format_is_refused_before_a_kernel(tmp_path, change):
    """Fails if a notebook that cannot be written is found out by a kernel."""
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook() | change))
    with pytest.raises(ParameterError, match=r"n\.ipynb is not a notebook") as error:
        run_notebook(tmp_path / "n.ipynb", tmp_path / "out.ipynb", root=tmp_path)
    assert len(str(error.value).splitlines()) == 1 and os.listdir(tmp_path) == ["n.ipynb"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/proc/new.ipynb", "No such file|Permission denied"),  # for root, and for others
        ("nowhere/../mine.txt/x", "Not a directory"),
        ("nowhere/x", "Not a directory"),
    ],
)
def test_a_place_where_nobody_can_write(gsae, path, reason):
    """Fails if a system folder, or a link that leads nowhere, is found out after the run."""
    from pathlib import Path

    with pytest.raises(ParameterError, match=reason):
        check_target("-o", Path(path), replace=False)
    assert gsae("run", "1", "-o", f"{path.removesuffix('.ipynb')}.ipynb").exit_code == 2


def test_a_notebook_of_another_project_is_not_swept(gsae, tmp_path):
    """Fails if a specification makes a sweep run code from outside its project."""
    write_book(tmp_path / "other")
    write_notebook(tmp_path / "outside.ipynb")
    for name in (
        "../outside.ipynb",
        str(tmp_path / "other" / "notebooks" / "01_first.ipynb"),
        "../other/notebooks/01_first.ipynb",
    ):
        (tmp_path / "project" / "s.yaml").write_text(f"notebook: {name}\n")
        result = gsae("sweep", "s.yaml", "-o", "out")
        assert result.exit_code == 2 and "is not allowed: it must be in" in result.output
        assert len(result.output.splitlines()) == 1


def test_results_that_are_no_numbers_are_collated(gsae):
    """Fails if a metric without a number, which JSON has as null, is an error."""
    write_sweep(collate.Path("odd"), {p["key"]: json.dumps(p) for p in [sweep_point(0) | {"rows": [{"value": None}]}]})
    assert gsae("collate", "odd", "-o", "out.csv").exit_code == 0
    assert pd.read_csv("out.csv")["value"].isna().all()
    assert (format_value(float("nan")), format_value(float("inf"), 1.0)) == ("nan", "inf")


@pytest.mark.parametrize(
    ("name", "value"), [("seconds", "x"), ("seconds", [1]), ("rows", "x"), ("rows", [1]), ("about", {}), ("values", [])]
)
def test_a_damaged_point_is_not_taken(gsae, name, value):
    """Fails if a point of a sweep, or of recorded results, with a field of another kind is read."""
    key = sweep_point(0)["key"]
    (collate.Path("sweep") / "points" / f"{key}.json").write_text(json.dumps(sweep_point(0) | {name: value}))
    assert "1 rows of 1 points" in gsae("collate", "sweep", "-o", "out.csv").output
    record = collate.Path("results/paper/first.json")
    content = json.loads(record.read_text())
    target = content["about"][0] if name == "about" else content["points"][0]
    target.clear() if name == "about" else target.update({name: value})
    record.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"first\.json is no file of a record"):
        read_points(record)


@pytest.mark.parametrize("text", ["", "[]", "[" * 10**5, "\x00"])
def test_damaged_verifications_are_told_before_a_run(gsae, text):
    """Fails if the canaries run for minutes before what they find cannot be written."""
    collate.Path("results/verified.json").write_text(text)
    result = gsae("verify", "first")
    assert result.exit_code == 2 and "verified.json" in result.output and len(result.output.splitlines()) == 1


def test_sources_that_fail_are_told_once(gsae, tmp_path, monkeypatch):
    """Fails if what was tried is told twice, or on many lines; or not at all where a later source has worked."""
    from gsae_book.data import files as data_files

    def sources(description, folder, progress):
        def fail(file):
            raise OSError("no\nnetwork")

        yield "one", fail
        yield "two", fail

    monkeypatch.setattr(data_files, "sources", sources)
    monkeypatch.setenv("GSAE_CACHE", str(tmp_path / "cache"))
    result = gsae("data", "mnist")
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert result.output.startswith("Error: mnist: no source works: one: no network; two: no network. Connect")
