"""Recorded results: run from a commit, extended without a repetition, checked by canaries, and complete in results/."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from children import STUCK, git
from click.testing import CliRunner

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
WRONG = "function: sweep_tasks.go_wrong\ngrid: {how: [raise, nothing]}\nrecord: {canaries: [{how: nothing}]}\n"


@pytest.fixture
def project(project):
    """The project whose functions are swept under git, without specifications."""
    (project / "experiments" / "counting").mkdir(parents=True)
    (project / "results" / "paper").mkdir()
    (project / ".gitignore").write_text("_build\nran.txt\n__pycache__\n")
    git(project, "init", "-q")
    commit(project)
    return project


def commit(root, **files):
    """Commit everything, with the specifications of these names."""
    for name, text in files.items():
        (root / "experiments" / "counting" / f"{name}.yaml").write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "one")


def counting(function="count", seeds="[0, 1]", canary=9, more="jobs: 1"):
    return SPEC.format(function=function, seeds=seeds, canary=canary, more=more)


def gsae(*arguments):
    command = [sys.executable, "-m", "gsae_book", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STUCK)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, (done.stderr if done.returncode == 2 else done.stdout).strip().splitlines()


def test_points_are_added_and_none_is_repeated(project):
    """Fails if a recorded point runs again, a canary is taken for a result, or one of them is lost."""
    commit(project, counts=counting())
    assert gsae("record")[1][-1] == "counts: 3 points more, 0 failed"
    path = project / "results" / "paper" / "counts.json"
    seeds = [(point["values"]["seed"], point.get("canary", False)) for point in read_points(path)]
    assert seeds == [(0, False), (1, False), (9, True)]
    (project / "helpers.py").write_text("def area(side):\n    return side\n")
    commit(project, counts=counting(seeds="[2, 1]"))
    assert gsae("record", "counts")[1][-1] == "counts: 1 points more, 0 failed"
    assert (project / "ran.txt").read_text().split() == ["0", "1", "9", "2"]
    table = read_rows("results/paper/counts.json")
    assert table[["seed", "value"]].to_numpy().tolist() == [[1, 1 / 7], [2, 2 / 7]]
    assert len({point["about"]["commit"] for point in read_points(path)}) == 2
    assert gsae("record", "--again")[1][-1] == "counts: 3 points more, 0 failed"
    assert len((project / "ran.txt").read_text().split()) == 6  # seed 2 was run by the code of today


def test_results_come_from_a_commit(project):
    """Fails if a changed file is no obstacle, or a recorded result is one."""
    commit(project, counts=counting())
    (project / "helpers.py").write_text("def area(side):\n    return 0\n")
    code, lines = gsae("record")
    assert code == 2 and "the working tree has other changes" in lines[-1]
    assert not list((project / "results" / "paper").iterdir())
    commit(project)
    (project / "results" / "paper" / "counts.json").write_text('{"about": [], "points": []}')
    git(project, "add", "-A")
    assert gsae("record") == (0, ["counts: 3 points more, 0 failed"])


def test_what_came_from_other_changes_is_run_again(project):
    """Fails if a point of a dirty commit stays, is lost before its new one is done, or takes others with it."""
    commit(project, counts=counting())
    gsae("record")
    path = project / "results" / "paper" / "counts.json"
    content = json.loads(path.read_text())
    content["about"].append(content["about"][0] | {"commit": content["about"][0]["commit"] + "-dirty"})
    content["points"][1]["about"] = 1
    path.write_text(json.dumps(content))
    (project / "helpers.py").write_text("def area(side):\n    return side\n")  # or its result would be there
    commit(project)
    assert gsae("record") == (0, ["counts: 1 points more, 0 failed"])
    assert (project / "ran.txt").read_text().split() == ["0", "1", "9", "1"]
    points = read_points(path)
    assert len(points) == 3 and not any(point["about"]["commit"].endswith("-dirty") for point in points)


def test_what_fails_is_not_recorded_and_loses_nothing(project):
    """Fails if a failed point is recorded, not tried again, or lost where an older result of it is there."""
    commit(project, wrong=WRONG)
    code, lines = gsae("record", "wrong")
    assert code == 1 and lines[-1] == "wrong: 1 points more, 1 failed"
    assert len(read_rows("results/paper/wrong.json")) == 2
    (project / "mended").touch()
    (project / "results" / "verified.json").write_text("{}")
    commit(project)
    assert gsae("record", "wrong")[1][-1] == "wrong: 1 points more, 0 failed"
    assert gsae("verify") == (0, ["wrong: 0 of 2 numbers of 1 points moved"])  # no change that keeps from recording
    (project / "mended").unlink()
    tasks = (project / "sweep_tasks.py").read_text()
    (project / "sweep_tasks.py").write_text(tasks.replace('"on purpose"', '"on purpose, again"'))
    commit(project)
    assert gsae("record", "--again") == (1, ["wrong: 1 points more, 1 failed"])
    assert len(read_points(project / "results" / "paper" / "wrong.json")) == 2
    (project / "results" / "verified.json").write_text('{"changed": {}}')
    assert gsae("record") == (0, ["wrong: 0 points more, 0 failed"])


def test_canaries_tell_what_has_moved(project):
    """Fails if other code goes unseen, a tolerance is not kept, or a text or a row that differs is within it."""
    commit(project, areas=counting("measure", canary=0, more="jobs: 1, relative: 0.02"))
    gsae("record")
    assert gsae("verify") == (0, ["areas: 0 of 6 numbers of 1 points moved"])
    tasks = (project / "sweep_tasks.py").read_text()
    (project / "sweep_tasks.py").write_text(tasks.replace("helpers.area(settings.rate) + seed", "helpers.area(0)"))
    for area, moved in ((1.01, 0), (1.03, 1), ("'one'", 1)):
        (project / "helpers.py").write_text(f"def area(side):\n    return {area}\n")
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
        (counting(canary="x"), "seed = 'x' is not allowed"),
        (counting(more="jobs: 0"), "jobs = '0' is not allowed"),
        (counting(more="hours: 2"), "there is no part of record 'hours'"),
        (None, "there is no record 'bad'; known are counts"),
        (counting(), "counts.json is no file of a record"),
    ],
)
def test_bad_records_end_in_one_line(project, text, message):
    damaged = project / "results" / "paper" / "counts.json"
    damaged.write_text('{"points": [{}]')
    name = "counts" if text == counting() else "bad"
    files = {"counts": counting(), "bad": text} if text else {"counts": counting()}
    commit(project, **files)
    for command in ("record", "verify"):
        done = CliRunner().invoke(main, [command, name])
        assert done.exit_code == 2 and message in done.output and len(done.output.splitlines()) == 1
    assert damaged.read_text() == '{"points": [{}]'


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
    """Fails if a file of results is left that nobody can record again, or a name leads out of the folder."""
    files = {path.stem for path in (find_root() / "results" / "paper").glob("*.json")}
    assert files == {*record_names(find_root())}
    with pytest.raises(ParameterError, match="there is no record"):
        read_record("../07_recover_dictionaries", find_root())


def test_results_are_byte_for_byte_as_recorded():
    """Fails if a renaming, a formatter or a tool changed a recorded file; what was recorded on purpose is written
    down by `sha256sum * > ../../tests/book/results.sha256` in results/paper."""
    lines = Path(__file__).with_name("results.sha256").read_text().splitlines()
    files = sorted((find_root() / "results" / "paper").iterdir())
    assert [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files] == lines
