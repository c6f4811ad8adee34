"""Recorded results: run from a commit, extended without a repetition, checked by canaries, and complete in results/."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from children import STUCK
from click.testing import CliRunner
from sweep_project import write_project

from gsae_book.app.cli import main
from gsae_book.runs.environment import find_root
from gsae_book.runs.parameters import ParameterError
from gsae_book.runs.recording import read_points, read_rows
from gsae_book.runs.records import (
    Verification,
    read_record,
    record_names,
    records_table,
    write_verification,
)

pytestmark = pytest.mark.book
SPEC = "function: sweep_tasks.{function}\ngrid: {{seed: {seeds}}}\nrecord: {{canaries: [{{seed: {canary}}}], {more}}}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project under git, without specifications, as the working folder."""
    root = write_project(tmp_path / "project")
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.path", [str(root), *sys.path])
    (root / "experiments" / "counting").mkdir(parents=True)
    (root / ".gitignore").write_text("_build\nran.txt\n__pycache__\n")
    git("init", "-q")
    commit()
    yield root
    for name in ("sweep_tasks", "helpers"):
        sys.modules.pop(name, None)


def git(*arguments):
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True, capture_output=True)


def commit():
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", "one")


def write_spec(root, function="count", seeds="[0, 1]", canary=9, more="jobs: 1", name="counts"):
    text = SPEC.format(function=function, seeds=seeds, canary=canary, more=more)
    (root / "experiments" / "counting" / f"{name}.yaml").write_text(text)
    commit()


def gsae(*arguments):
    command = [sys.executable, "-m", "gsae_book", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STUCK)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, (done.stderr if done.returncode == 2 else done.stdout).strip().splitlines()


def test_points_are_added_and_none_is_repeated(project):
    """Fails if a recorded point runs again, a canary is taken for a result, or one of them is lost."""
    write_spec(project)
    assert gsae("record")[1][-1] == "counts: 3 points more, 0 failed"
    path = project / "results" / "paper" / "counts.json"
    assert [(p["values"]["seed"], p.get("canary", False)) for p in read_points(path)] == [
        (0, False),
        (1, False),
        (9, True),
    ]
    write_spec(project, seeds="[2, 1]")
    (project / "helpers.py").write_text("def area(side):\n    return side\n")
    commit()
    assert gsae("record", "counts")[1][-1] == "counts: 1 points more, 0 failed"
    assert (project / "ran.txt").read_text().split() == ["0", "1", "9", "2"]
    table = read_rows("results/paper/counts.json")
    assert table[["seed", "value"]].to_numpy().tolist() == [[1, 1 / 7], [2, 2 / 7]]
    assert len({point["about"]["commit"] for point in read_points(path)}) == 2
    assert gsae("record", "--again")[1][-1] == "counts: 3 points more, 0 failed"
    assert len((project / "ran.txt").read_text().split()) == 6  # seed 2 was run by the code of today


def test_results_come_from_a_commit(project):
    """Fails if a changed file is no obstacle, or a recorded result is one."""
    write_spec(project)
    (project / "helpers.py").write_text("def area(side):\n    return 0\n")
    code, lines = gsae("record")
    assert code == 2 and "the working tree has other changes" in lines[-1] and not (project / "results/paper").exists()
    commit()
    (project / "results" / "paper").mkdir()
    (project / "results" / "paper" / "counts.json").write_text('{"about": [], "points": []}')
    git("add", "-A")
    assert gsae("record") == (0, ["counts: 3 points more, 0 failed"])


def test_what_came_from_other_changes_is_run_again(project):
    """Fails if a point stays whose commit is not all of its code, is lost before its new one is done, or takes others
    with it."""
    write_spec(project)
    gsae("record")
    path = project / "results" / "paper" / "counts.json"
    content = json.loads(path.read_text())
    content["about"].append(content["about"][0] | {"commit": content["about"][0]["commit"] + "-dirty"})
    content["points"][1]["about"] = 1
    path.write_text(json.dumps(content))
    commit()
    (project / "helpers.py").write_text("def area(side):\n    return side\n")  # or its result would be there
    commit()
    assert gsae("record") == (0, ["counts: 1 points more, 0 failed"])
    assert (project / "ran.txt").read_text().split() == ["0", "1", "9", "1"]
    points = read_points(path)
    assert len(points) == 3 and not any(point["about"]["commit"].endswith("-dirty") for point in points)


def test_what_fails_is_not_recorded(project):
    """Fails if a failed point is recorded, takes others with it, or is not tried again."""
    spec = "function: sweep_tasks.go_wrong\ngrid: {how: [raise, nothing]}\nrecord: {canaries: [{how: nothing}]}\n"
    (project / "experiments" / "counting" / "wrong.yaml").write_text(spec)
    commit()
    code, lines = gsae("record", "wrong")
    assert code == 1 and lines[-1] == "wrong: 1 points more, 1 failed"
    assert len(read_rows("results/paper/wrong.json")) == 2
    (project / "mended").touch()
    assert gsae("record", "wrong")[1][-1] == "wrong: 1 points more, 0 failed"


def test_again_loses_nothing(project):
    """Fails if a recorded point is lost since it now fails, or if a verification makes the tree one with changes."""
    (project / "mended").touch()
    spec = "function: sweep_tasks.go_wrong\ngrid: {how: [raise, nothing]}\nrecord: {canaries: [{how: nothing}]}\n"
    (project / "experiments" / "counting" / "wrong.yaml").write_text(spec)
    commit()
    assert gsae("record")[1][-1] == "wrong: 2 points more, 0 failed"
    (project / "results" / "verified.json").write_text("{}")
    commit()
    assert gsae("verify") == (0, ["wrong: 0 of 2 numbers of 1 points moved"])
    (project / "mended").unlink()
    tasks = (project / "sweep_tasks.py").read_text()
    (project / "sweep_tasks.py").write_text(tasks.replace('"on purpose"', '"on purpose, again"'))
    commit()
    assert gsae("record", "--again") == (1, ["wrong: 1 points more, 1 failed"])
    assert len(read_points(project / "results" / "paper" / "wrong.json")) == 2
    (project / "results" / "verified.json").write_text('{"changed": {}}')
    assert gsae("record") == (0, ["wrong: 0 points more, 0 failed"])


def test_canaries_tell_what_has_moved(project):
    """Fails if other code goes unseen, a tolerance is not kept, or a text or a row that differs is within it."""
    write_spec(project, "measure", canary=0, more="jobs: 1, relative: 0.02", name="areas")
    gsae("record")
    assert gsae("verify") == (0, ["areas: 0 of 6 numbers of 1 points moved"])
    for area, moved in ((1.01, 0), (1.03, 1), ("'one'", 1)):
        (project / "helpers.py").write_text(f"def area(side):\n    return {area}\n")
        tasks = (
            (project / "sweep_tasks.py").read_text().replace("helpers.area(settings.rate) + seed", "helpers.area(0)")
        )
        (project / "sweep_tasks.py").write_text(tasks)
        code, lines = gsae("verify", "areas")
        assert (code, lines[-1]) == (moved, f"areas: {moved} of 6 numbers of 1 points moved")
    told = json.loads((project / "results" / "verified.json").read_text())["areas"]
    assert told["moved"] == 1 and told["largest"] is None and told["commit"].endswith("-dirty")
    table = records_table(project)
    assert "| areas | 2 |" in table and "| 0 |" in table and "1 of 6 |" in table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("function: sweep_tasks.count\ngrid: {seed: [1]}\n", "record must map names to values"),
        (SPEC.format(function="count", seeds="[1]", canary="x", more=""), "seed = 'x' is not allowed"),
        (SPEC.format(function="count", seeds="[1]", canary="1", more="jobs: 0"), "jobs = '0' is not allowed"),
        (SPEC.format(function="count", seeds="[1]", canary="1", more="hours: 2"), "there is no part of record 'hours'"),
    ],
)
def test_bad_records_end_in_one_line(project, text, message):
    (project / "experiments" / "counting" / "bad.yaml").write_text(text)
    for command in ("record", "verify"):
        done = CliRunner().invoke(main, [command, "bad"])
        assert done.exit_code == 2 and message in done.output and len(done.output.splitlines()) == 1


def test_unknown_names_and_damaged_files_end_in_one_line(project):
    write_spec(project)
    assert gsae("verify", "none")[1] == ["Error: there is no record 'none'; known are counts"]
    (project / "results" / "paper").mkdir()
    (project / "results" / "paper" / "counts.json").write_text('{"points": [{}]')
    for command in ("record", "verify"):
        code, lines = gsae(command)
        assert code == 2 and len(lines) == 1 and "counts.json is no file of a record" in lines[0]
    assert (project / "results" / "paper" / "counts.json").read_text() == '{"points": [{}]'


def test_verifications_are_kept_side_by_side(project):
    write_verification("b", Verification(1, 2, 0.5, ()), project)
    write_verification("a", Verification(1, 2, 3.0, ("moved",)), project)
    kept = json.loads((project / "results" / "verified.json").read_text())
    assert {name: (one["moved"], one["largest"]) for name, one in kept.items()} == {"a": (1, 3.0), "b": (0, 0.5)}


@pytest.mark.parametrize("name", record_names(find_root()))
def test_results_are_what_their_specifications_say(name):
    """Fails if a point of a specification is not recorded, or a file has another one, or there is no canary."""
    record = read_record(name, find_root())
    found = [record.identity(point["values"]) for point in read_points(record.path)]
    assert sorted(found) == sorted(record.points()) and record.canaries


def test_every_result_has_a_specification():
    """Fails if a file of results is left that nobody can record again."""
    files = {path.stem for path in (find_root() / "results" / "paper").glob("*.json")}
    assert files == {*record_names(find_root())}


def test_results_are_byte_for_byte_as_recorded():
    """Fails if a renaming, a formatter or a tool changed a recorded file; what was recorded on purpose is written
    down by `sha256sum * > ../../tests/book/results.sha256` in results/paper."""
    lines = Path(__file__).with_name("results.sha256").read_text().splitlines()
    files = sorted((find_root() / "results" / "paper").iterdir())
    assert [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files] == lines


def test_record_names_refuses_nothing_else():
    with pytest.raises(ParameterError, match="there is no record"):
        read_record("../07_recover_dictionaries", find_root())
