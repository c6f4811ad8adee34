"""Bad inputs: some of the campaign in `faults`, whether it is awake, and what ends in one line before any work."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from faults import bad_commands, bad_inputs, valid_calls
from faults.judging import Attempt, judge
from faults.scratch_project import sweep_point, write_project, write_sweep
from faults.stories import CELLS, SPECS, YAML
from tiny_book import write_book, write_notebook

from gsae_book.app.cli import main
from gsae_book.runs import workers
from gsae_book.runs.parameters import ParameterError, parse_parameters, read_values


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


@pytest.mark.parametrize(
    ("verdict", "deed"),
    [
        ("executed", lambda: open("executed", "w").close() or exit_with("Error: x", 2)),
        ("changed", lambda: open("mine.txt", "a").write("x") and exit_with("Error: x", 2)),
        ("traceback", lambda: 1 / 0),
        ("one line", lambda: exit_with("Error: x", 2)),
        ("silent", lambda: None),
    ],
)
def test_the_campaign_sees_code_and_changes(tmp_path, monkeypatch, verdict, deed):
    """Fails if a command that runs code of its input, changes a file, or prints a traceback is sound."""
    case = bad_inputs.Case("", "", bad_inputs.Command(("run", "1")))
    write_project(tmp_path / "project")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(bad_inputs, "_call_command", lambda run, project: (os.chdir(project), deed()))
    assert bad_inputs._try_command(case, tmp_path, tmp_path / "project")[1] == verdict


def exit_with(message, code):
    os.write(2, f"{message}\n".encode())
    raise SystemExit(code)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """The campaign's project, beside a notebook and another project; no test may change it."""
    folder = tmp_path_factory.mktemp("campaign")
    write_notebook(folder / "outside.ipynb")
    write_book(folder / "other")
    root = write_project(folder / "project")
    (root / "taken" / "keys.txt").mkdir(parents=True)
    before = bad_inputs.listing(root)
    yield root
    assert bad_inputs.listing(root) == before


@pytest.fixture
def gsae(scratch, monkeypatch):
    """A function that calls the command in the campaign's project, where no worker may start."""
    monkeypatch.chdir(scratch)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr(workers, "open_client", lambda *_: pytest.fail("a cluster was started"))
    return lambda *arguments: CliRunner().invoke(main, arguments)


def refused(result):
    """The one line of a command that refuses."""
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
    return result.output


@pytest.mark.parametrize(("text", "reason"), SPECS.items(), ids=range(len(SPECS)))
def test_a_specification_is_refused_in_one_line(gsae, tmp_path, text, reason):
    """Fails if a point runs before another has been refused, or if a folder is left."""
    (tmp_path / "spec.yaml").write_text(text, encoding="utf8")
    assert reason in refused(gsae("sweep", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "out")))
    assert os.listdir(tmp_path) == ["spec.yaml"]


def test_a_notebook_of_another_project_is_not_swept(gsae, scratch, tmp_path):
    """Fails if a whole path makes a sweep run code from outside its project."""
    path = scratch.parent / "other" / "notebooks" / "01_first.ipynb"
    (tmp_path / "spec.yaml").write_text(f"notebook: {path}\n")
    assert "is not allowed: it must be in" in refused(gsae("sweep", str(tmp_path / "spec.yaml"), "-o", "out"))


@pytest.mark.parametrize(("content", "reason"), YAML.items(), ids=range(len(YAML)))
def test_a_file_of_parameters_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(ParameterError) as error:
        read_values(tmp_path / "p.yaml")
    assert reason in str(error.value) and str(tmp_path / "p.yaml") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("source", "reason"), CELLS.items(), ids=range(len(CELLS)))
def test_a_cell_of_parameters_is_read_and_never_run(tmp_path, monkeypatch, source, reason):
    """Fails if a line is skipped, an error is one of pydantic on many lines, or what a cell calls is called."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError) as error:
        parse_parameters(source)
    assert reason in str(error.value) and len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 2000 and not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("results/new", "must be outside"),
        ("results", "must be outside"),
        ("sweep/points", "it must be new, empty, or the folder of a sweep"),
        ("new/../sweep/points", "it must be new, empty, or the folder of a sweep"),
        ("helpers.py", "Not a directory"),
        ("nowhere", "it must be a folder"),
        ("taken", "'taken/keys.txt' is not allowed: it must be a file, and is a folder"),
    ],
)
def test_a_folder_that_is_not_a_sweep_s_is_left_alone(gsae, out, message):
    assert message in refused(gsae("sweep", "spec.yaml", "-o", out))


def test_results_that_are_no_numbers_are_collated(tmp_path):
    """Fails if a metric without a number, which JSON has as null, is an error."""
    write_sweep(tmp_path / "odd", sweep_point(0, rows=[{"value": None}]))
    collated = CliRunner().invoke(main, ["collate", str(tmp_path / "odd"), "-o", str(tmp_path / "out.csv")])
    assert collated.exit_code == 0 and pd.read_csv(tmp_path / "out.csv")["value"].isna().all()


@pytest.mark.parametrize("text", ["", "[]", "[" * 10**5, "\x00"])
def test_damaged_verifications_are_told_before_a_run(tmp_path, monkeypatch, text):
    """Fails if the canaries run for minutes before what they find cannot be written."""
    monkeypatch.chdir(write_project(tmp_path / "project"))
    monkeypatch.setattr(workers, "open_client", lambda *_: pytest.fail("a cluster was started"))
    Path("results/verified.json").write_text(text)
    assert "verified.json" in refused(CliRunner().invoke(main, ["verify", "first"]))


@pytest.mark.parametrize(
    ("name", "value"), [("seconds", "x"), ("seconds", [1]), ("rows", "x"), ("rows", [1]), ("about", {}), ("values", [])]
)
def test_a_damaged_record_is_not_taken(tmp_path, monkeypatch, name, value):
    """Fails if a point of recorded results with a field of another kind is read."""
    monkeypatch.chdir(write_project(tmp_path / "project"))
    record = Path("results/paper/first.json")
    content = json.loads(record.read_text())
    if name == "about":
        content["about"] = [value]
    else:
        content["points"][0][name] = value
    record.write_text(json.dumps(content))
    assert "first.json is no file of a record" in refused(CliRunner().invoke(main, ["verify", "first"]))
