"""Two commands at once in one folder: the second waits or is refused in one line, and neither damages the other."""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faults.commands import COMMANDS, slow_server
from faults.kills import LONG, left_running, sources, start, whole_run

SWEEP, TRAINING, DATA, RUN, BUILD, CLUSTER = (
    "sweep of a function, 100 points",
    "training, shallow",
    "data",
    "run of a notebook",
    "build of a book",
    "clustering over an older one",
)
PAIRS = (
    (SWEEP, SWEEP),
    (TRAINING, TRAINING),
    (DATA, DATA),
    (RUN, RUN),
    (RUN, BUILD),
    (BUILD, BUILD),
    (CLUSTER, CLUSTER),
)
TIMES = 5  # each pair, with another delay


@dataclass
class Together:
    """What starting two commands at once gave: how often, how often one was refused, and what was wrong."""

    commands: str
    times: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def run_pairs(rng: random.Random, say: Callable[[str], object], share: float = 1.0) -> Iterator[Together]:
    """Yield what each pair of `PAIRS` gave, started that share of `TIMES`."""
    with slow_server() as port, tempfile.TemporaryDirectory(prefix="gsae-faults-") as folder:
        home, whole = Path(folder), {}
        for pair in PAIRS:
            for name in pair:
                if name not in whole:
                    whole[name] = whole_run(COMMANDS[name], home / f"whole-{len(whole)}", port)
            found = Together(" and ".join(pair))
            for _ in range(max(1, round(share * TIMES))):
                _run_pair(pair, found, home / f"pair-{rng.random()}", port, whole, rng)
            say(f"{found.commands}: {found.times} times, {found.refused} refused, {len(found.wrong)} wrong")
            yield found


def _run_pair(
    pair: tuple[str, str],
    found: Together,
    folder: Path,
    port: int,
    whole: Mapping[str, tuple[object, float]],
    rng: random.Random,
) -> None:
    """Start one, the other a moment later, and look at what they say and leave; what was refused is given again."""
    COMMANDS[pair[0]].prepare(folder)
    before = sources(folder)
    first = start(COMMANDS[pair[0]], folder, f"{folder.name}-0", port)
    time.sleep(rng.uniform(0, 0.7 * whole[pair[0]][1]))
    second = start(COMMANDS[pair[1]], folder, f"{folder.name}-1", port)
    found.times += 1
    for name, process in zip(pair, (first, second), strict=True):
        try:
            _, told = process.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            process.kill()
            found.wrong.append(f"{name} hangs")
            continue
        if process.returncode:
            found.refused += 1
            lines = [line for line in told.splitlines() if line.strip()]
            if "Traceback" in told or not lines or "another" not in lines[-1]:
                found.wrong.append(f"{name} ends with {process.returncode}: {told[-300:]}")
    if first.returncode and second.returncode:
        found.wrong.append("both were refused")
    for number, name in enumerate(pair):
        if COMMANDS[name].left(folder) != whole[name][0]:
            found.wrong.append(f"{name} leaves something else")
        found.wrong += [f"left running: {one}" for one in left_running(f"{folder.name}-{number}")]
    now = sources(folder)
    found.wrong += [f"changed: {name}" for name in before if now.get(name) != before[name]]
