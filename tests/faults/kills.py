"""Random kills: a command is ended at a random moment, looked at, and given again, until it ends as it would have.

After each kill nothing may run on, every file that is there has to be whole, and the sources are as they were. The last
call has to leave, number by number, what a call without kills leaves; what was done before a kill is not done again.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from children import popen

from faults.commands import COMMANDS, Command, environment, slow_server

LONG = 240  # seconds after which a command hangs
GONE = 5  # seconds that the processes of a killed command may take to end
KILLS = {
    "sweep of a function, 100 points": (60, 5),  # kills in all, and of one folder at most before it is let go on
    "sweep of a notebook": (12, 3),
    "training, shallow": (25, 3),
    "training, unfolded": (25, 3),
    "training, estimator": (15, 3),
    "data": (40, 3),
    "run of a notebook": (20, 2),
    "build of a book": (20, 2),
    "clustering over an older one": (40, 5),
    "new rows of a clustering": (20, 5),
}


def run_kills(rng: random.Random, say: Callable[[str], object], share: float = 1.0) -> Iterator[dict[str, Any]]:
    """Yield for each command of `KILLS`, with that share of its kills: how many, and what was wrong."""
    with slow_server() as port, tempfile.TemporaryDirectory(prefix="gsae-faults-") as folder:
        for name, (n_kills, at_most) in KILLS.items():
            tally = {"command": name, "kills": 0, "of_driver": 0, "resumed": 0, "wrong": []}
            _kill_command(COMMANDS[name], tally, max(1, round(share * n_kills)), at_most, Path(folder), port, rng)
            say(f"{name}: {tally['kills']} kills, {tally['resumed']} times to the end, {len(tally['wrong'])} wrong")
            yield tally


def start(command: Command, folder: Path, mark: str, port: int) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return popen(command.line(port), cwd=folder, env=environment(folder, mark), **pipes)


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that run with the ``mark`` in their environment, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("GSAE_FAULTS") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sources(folder: Path) -> dict[str, str]:
    """Return the hash of each file that no command may change."""
    made = ("_build", "out", "cache", "run", "ran.txt", "mine.")
    named = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: sha256(path.read_bytes()).hexdigest() for name, path in named.items() if not name.startswith(made)}


def changed_sources(folder: Path, before: dict[str, str]) -> list[str]:
    """Return what has become of files that no command may change."""
    now = sources(folder)
    return [f"changed: {name}" for name in before if now.get(name) != before[name]]


def left_running(mark: str) -> list[str]:
    """Return what still runs with the ``mark`` some seconds from now, and end it."""
    end = time.monotonic() + GONE
    while (alive := marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    told = []
    for process in alive:
        with contextlib.suppress(psutil.Error):
            told.append(f"left running: {' '.join(process.cmdline())[:120]}")
            process.kill()
    return told


def whole_run(command: Command, folder: Path, port: int) -> tuple[object, float]:
    """Return what the command leaves without kills, and its seconds."""
    command.prepare(folder)
    clock = time.monotonic()
    process = start(command, folder, folder.name, port)
    _, told = process.communicate(timeout=LONG)
    if process.returncode:
        raise RuntimeError(f"{command.arguments} fails by itself: {told[-2000:]}")
    return command.left(folder), time.monotonic() - clock


def _kill_command(
    command: Command, tally: dict[str, Any], n_kills: int, at_most: int, home: Path, port: int, rng: random.Random
) -> None:
    expected, seconds = whole_run(command, home / f"whole-{rng.random()}", port)
    while tally["kills"] < n_kills:
        folder = home / f"killed-{rng.random()}"
        command.prepare(folder)
        before = sources(folder)
        for _ in range(min(rng.randint(1, at_most), n_kills - tally["kills"])):
            kept = command.kept(folder)
            if not _kill_once(command, tally, folder, seconds, port, rng):
                break
            tally["wrong"] += _look(command, folder, before, kept)
        kept = command.kept(folder)
        mark = f"{folder.name}-last"
        code, told = ended(start(command, folder, mark, port))
        tally["wrong"] += _look(command, folder, before, kept)
        if code:
            tally["wrong"].append(f"the last call ends with {code}: {told[-300:]}")
        elif command.left(folder) != expected:
            tally["wrong"].append("the last call leaves something else")
        else:
            tally["resumed"] += 1
        tally["wrong"] += left_running(mark)
        for path in (folder, folder.parent / f"{folder.name}.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def ended(process: subprocess.Popen[str]) -> tuple[int | str, str]:
    """Return the exit code of a process and its messages; "hang" if it does not end."""
    try:
        _, told = process.communicate(timeout=LONG)
        return process.returncode, told
    except subprocess.TimeoutExpired:
        process.kill()
        return "hang", ""


def _kill_once(
    command: Command, tally: dict[str, Any], folder: Path, seconds: float, port: int, rng: random.Random
) -> bool:
    """Start, wait, kill the command or a process of it, and say whether it was still there to be killed."""
    mark = f"{folder.name}-{rng.random()}"
    process = start(command, folder, mark, port)
    time.sleep(rng.uniform(0, 1.05 * seconds))
    with contextlib.suppress(psutil.Error):
        victims = [one for one in marked(mark) if one.pid != process.pid]
        if process.poll() is not None:
            return False
        driver = not victims or rng.random() < 0.6
        victim = process.pid if driver else rng.choice(victims).pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, rng.choices((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (8, 1, 1))[0])
        tally["kills"] += 1
        tally["of_driver"] += driver
    if ended(process)[0] == "hang":
        tally["wrong"].append("it hangs after a kill")
    tally["wrong"] += left_running(mark)
    return True


def _look(command: Command, folder: Path, before: dict[str, str], kept: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with the files: not whole, of the sources, or written again."""
    wrong = changed_sources(folder, before)
    try:
        command.left(folder)
    except (ValueError, KeyError, OSError) as error:
        wrong.append(f"not whole: {error}")
    again = command.kept(folder)
    return wrong + [f"done again: {name}" for name, content in kept.items() if again.get(name) != content]
