"""Sweeps on workers: what a bad point, a kill, a lock, a full disk or a lost worker leaves."""

import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from children import GONE, STUCK, popen
from click.testing import CliRunner
from tiny_book import write_book

from gsae_book.app.cli import main
from gsae_book.app.collate import collate
from gsae_book.runs import sweep as sweeps
from gsae_book.runs.recording import POINT

pytestmark = pytest.mark.book


def arguments_of(text, *more):
    with open("spec.yaml", "w") as file:
        file.write(text)
    return [sys.executable, "-m", "gsae_book", "sweep", "spec.yaml", "-o", "out", *more]


def gsae(text, *more):
    return subprocess.run(arguments_of(text, *more), capture_output=True, text=True, timeout=STUCK)


def start(arguments):
    return popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def descendants_of(process):
    return psutil.Process(process.pid).children(recursive=True)


def wait_for(condition, process=None, seconds=STUCK):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None), "it did not come"
        time.sleep(0.02)


def points(root):
    found = [json.loads(path.read_text()) for path in (root / "out" / "points").glob("*.json")]
    return {next(iter(point["values"].values())): point for point in found}


def ran(root):
    path = root / "ran.txt"
    return collections.Counter(map(int, path.read_text().split())) if path.is_file() else collections.Counter()


def still_there(processes):
    """Those of the processes that have not ended after some seconds."""
    return psutil.wait_procs(processes, timeout=GONE)[1]


def test_points_return_memory_as_the_system_does(project):
    """Fails if a point inherits dask's setting, which has freed memory given back at once: half the speed."""
    done = gsae("function: sweep_tasks.returns_memory\ngrid: {seed: [0]}\n")
    assert done.returncode == 0, done.stderr
    assert points(project)[0]["rows"][0]["value"] == "as the system does"


WRONG = "function: sweep_tasks.go_wrong\ngrid: {how: [raise, crash, leave, sleep, fill, nothing]}\n"
WRONG += "limits: {seconds: 2, mib: 250}\n"


def test_a_point_that_goes_wrong_takes_no_other_with_it(project, tmp_path):
    """Fails if a crash, an exit, or a point over a limit is not recorded, or ends the worker or the sweep."""
    done = gsae(WRONG, "--jobs", "1")
    assert done.returncode == 1, done.stderr
    assert done.stdout == "1 of 6 points are done, 0 of them before, in out\n"
    assert "5 failed, the first is out/points/" in done.stderr and "Traceback" not in done.stderr
    found = points(project)
    assert {how for how, point in found.items() if point["status"] == "done"} == {"nothing"}
    errors = {how: point.get("error") for how, point in found.items()}
    assert found["nothing"]["rows"] == [{"number": 1.0}, {"number": 2.0}]
    assert errors["raise"] == "RuntimeError: on purpose" and "in go_wrong" in found["raise"]["traceback"]
    assert errors["crash"] == "its process ended: SIGSEGV"
    assert errors["leave"] == "its process ended: exit code 0" and found["leave"]["traceback"] == "last words"
    assert errors["sleep"] == "it took more than 2 seconds, its limit" and 2 < found["sleep"]["seconds"] < GONE
    assert "its limit is 250" in errors["fill"] and found["fill"]["peak_mib"] > 250
    fields = ("key", "target", "values", "given", "status", "rows", "seconds", "peak_mib", "worker", "about")
    assert {*found["nothing"]} == {*fields}
    assert not list((tmp_path / "temporary").iterdir())

    # Nothing is run again unless that is asked, and then what has failed alone.
    (project / "mended").touch()
    whole = project / "out" / "points" / f"{found['nothing']['key']}.json"
    before = whole.stat().st_mtime_ns
    assert gsae(WRONG).stdout == "1 of 6 points are done, 1 of them before, in out\n"
    again = gsae(WRONG.replace("crash, leave, sleep, fill, ", ""), "--retry-failed")
    assert (again.returncode, again.stdout) == (0, "2 of 2 points are done, 1 of them before, in out\n")
    assert whole.stat().st_mtime_ns == before
    collation = collate(project / "out")
    assert (len(collation.table), collation.n_done, len(collation.failed), collation.n_others) == (4, 2, 0, 4)


COUNT = "function: sweep_tasks.count\ngrid: {{seed: [{}], seconds: [{}]}}\n"


@pytest.mark.slow
def test_a_sweep_that_is_killed_five_times_gives_the_same_table(project, tmp_path):
    """Fails if a point that was written runs again, one is lost, a process is left, or a number differs."""
    text = COUNT.format(", ".join(map(str, range(100))), 0.05)
    seen = {}  # how often a point had run when it was seen written
    for _ in range(5):
        before = len(points(project))
        process = start(arguments_of(text, "--jobs", "2"))
        wait_for(lambda before=before: len(points(project)) >= before + 8, process)
        descendants = descendants_of(process)
        process.kill()
        process.wait()
        assert still_there(descendants) == []
        written, counted = points(project), ran(project)
        assert all(point["status"] == "done" for point in written.values())
        seen |= {seed: counted[seed] for seed in written if seed not in seen}
    done = gsae(text)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "100 of 100 points are done"), done.stderr
    assert set(ran(project)) == set(range(100)) and {seed: ran(project)[seed] for seed in seen} == seen
    # At each kill two points were running, and some waited to be written: few, also on a busy machine.
    assert sum(ran(project).values()) <= 100 + 5 * 10
    killed = collate(project / "out").table.drop(columns=list(POINT[1:]))
    os.rename("out", "killed")
    assert gsae(text).returncode == 0
    whole = collate(project / "out").table.drop(columns=list(POINT[1:]))
    assert killed.equals(whole) and list(whole["value"]) == [seed / 7 for seed in range(100)]
    assert not list((project / "killed").rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_no_process(project, tmp_path, number):
    """Fails on a point that goes on; and, if it is interrupted, on a traceback, another exit code, or a file."""
    process = start(arguments_of(COUNT.format("0, 1, 2, 3", "0, 60"), "--jobs", "2"))
    wait_for(lambda: points(project), process)
    descendants = descendants_of(process)

    # A second one is refused while the first writes.
    second = gsae(COUNT.format("0, 1, 2, 3", "0, 60"))
    assert (second.returncode, second.stderr) == (2, "Error: -o = 'out': another sweep is writing there\n")

    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches a whole group
    _, messages = process.communicate(timeout=GONE)
    assert still_there(descendants) == []
    if number == signal.SIGINT:
        assert (process.returncode, messages) == (130, "Interrupted.\n")
        assert not list((tmp_path / "temporary").iterdir())


def test_a_worker_that_is_killed_as_it_starts_ends_the_sweep_in_one_line(project):
    process = start(arguments_of(COUNT.format("0, 1", 0), "--jobs", "1"))
    started = []

    def find():
        with contextlib.suppress(psutil.Error):
            started.extend(child for child in descendants_of(process) if "spawn_main" in " ".join(child.cmdline()))
        return started

    wait_for(find, process)
    started[0].kill()
    output, messages = process.communicate(timeout=STUCK)
    assert (process.returncode, output, len(messages.splitlines())) == (1, "", 1), messages
    assert "the workers cannot be started" in messages


def test_a_point_that_kills_its_workers_is_recorded(project):
    """Fails if such a point is tried for ever, or if the next one is blamed for it."""
    done = gsae("function: sweep_tasks.kill_its_worker\ngrid: {seed: [0, 1, 2, 3]}\n", "--jobs", "1")
    assert (done.returncode, done.stdout) == (1, "3 of 4 points are done, 0 of them before, in out\n"), done.stderr
    assert "its workers were killed" in points(project)[1]["error"]


def test_a_result_that_no_file_holds_is_its_point_s_error(project):
    """Fails if a number of thousands of digits, or a text that is not UTF-8, ends the sweep."""
    done = gsae("function: sweep_tasks.not_for_files\ngrid: {how: [number, text, raise, none]}\n", "--jobs", "1")
    assert (done.returncode, done.stdout) == (1, "1 of 4 points are done, 0 of them before, in out\n"), done.stderr
    found = points(project)
    assert "limit (4300 digits)" in found["number"]["error"] and found["text"]["error"].startswith("UnicodeEncodeError")
    assert found["raise"]["error"] == r"ValueError: \ud800"


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "tls://127.0.0.1:{}", "file:///etc/passwd", "nonsense", ""])
def test_what_is_no_scheduler_is_told_in_one_line(project, monkeypatch, address):
    """Fails if the command waits for ever for something that accepts connections and says nothing."""
    monkeypatch.setattr("gsae_book.runs.workers.WAIT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments = arguments_of(COUNT.format("7", 0), "--scheduler", address.format(silent.getsockname()[1]))
        result = CliRunner().invoke(main, arguments[3:])
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
    assert "no scheduler answers" in result.output and "event loop" not in result.output
    assert not (project / "out" / "keys.txt").exists()


def test_a_full_disk_ends_the_sweep_in_one_line(project, monkeypatch):
    """Fails if what could not be written counts as done, or if what was written is lost."""
    whole, calls = sweeps.replace_file, []

    def full(path, text):
        calls.append(path)
        if len(calls) > 4:  # the specification, the keys, and two points
            raise OSError(28, "No space left on device")
        whole(path, text)

    monkeypatch.setattr(sweeps, "replace_file", full)
    arguments = arguments_of(COUNT.format("0, 1, 2, 3, 4, 5", 0.2), "--jobs", "1")
    result = CliRunner().invoke(main, arguments[3:])
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1), result.output
    assert "the sweep has ended: [Errno 28] No space left on device" in result.output
    written = points(project)
    assert len(written) == 2 and all(point["status"] == "done" for point in written.values())


@pytest.mark.parametrize("kind", ["function", "data", "notebook"])
def test_what_changes_while_it_is_swept_ends_the_sweep(project, kind):
    """Fails if a result of other code than the key says is kept."""
    text, edited = COUNT.format("0, 1, 2", 0.1), project / "helpers.py"
    if kind == "data":
        edited = project / "mine.csv"
        edited.write_text("return")
        text = "function: sweep_tasks.read\ngrid: {data: [mine.csv]}\n"
    elif kind == "notebook":
        edited = write_book(project / "book") / "tiny" / "colour.py"
        text = "notebook: book/notebooks/02_second.ipynb\n"
    process = start(arguments_of(text, "--jobs", "1"))
    wait_for(lambda: (project / "out" / "keys.txt").is_file(), process)
    edited.write_text(edited.read_text().replace("return", "return 2 *"))
    messages = process.communicate(timeout=STUCK)[1]
    assert process.returncode == 1 and points(project) == {}
    assert "since the sweep began" in messages and len(messages.splitlines()) == 1


def test_points_of_a_notebook(tmp_path, monkeypatch):
    root = write_book(tmp_path)
    monkeypatch.chdir(root)
    for path in (root / "notebooks").glob("02*"):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[-1].source += "\nassert n_groups < 5"
        nbformat.write(notebook, path)
    done = gsae("notebook: '02'\ngrid: {n_groups: [4, 5]}\n", "--jobs", "1")
    assert done.returncode == 1 and done.stdout.startswith("1 of 2 points are done")
    found = points(root)
    good, bad = found[4], found[5]
    assert good["rows"] == [{"size": 4.5, "size_spread": 0.25, "verdict_a": "reproduced"}]
    assert "AssertionError" in bad["traceback"]
    names = {path.name for path in (root / "out" / "points").glob("*.ipynb")}
    assert names == {f"{good['key']}.ipynb", f"{bad['key']}.failed.ipynb"}
    assert collate(root / "out").table["size"].tolist() == [4.5]


def test_points_of_a_lost_worker_run_on_another(project, tmp_path):
    """Fails if a killed worker's points are lost or counted as failed, or if its child lives on."""
    place = tmp_path / "scheduler.json"
    command = [sys.executable, "-m"]
    own = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
    worker = ["distributed.cli.dask_worker", "--no-nanny", "--no-dashboard", "--nthreads", "1"]
    worker += ["--scheduler-file", str(place), "--local-directory", str(tmp_path)]
    others = [start([*command, *own, "--scheduler-file", str(place)])]
    try:
        wait_for(place.is_file)
        others += [start([*command, *worker]) for _ in range(2)]
        address = json.loads(place.read_text())["address"]
        process = start(arguments_of(COUNT.format("0, 1, 2, 3, 4, 5", 0.7), "--scheduler", address))
        wait_for(lambda: len(points(project)) >= 2, process)
        children = descendants_of(others[1])
        others[1].kill()
        output, messages = process.communicate(timeout=STUCK)
        assert (process.returncode, output) == (0, "6 of 6 points are done, 0 of them before, in out\n"), messages
        assert len({point["worker"] for point in points(project).values()}) == 2
        assert len(children) == 1 and still_there(children) == []
    finally:
        for one in others:
            one.kill()
            one.communicate()
    refused = gsae(COUNT.format("7", 0), "--scheduler", address)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "no scheduler answers" in refused.stderr
