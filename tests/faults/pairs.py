"""Two commands at once in one folder: the second waits or is refused in one line, and neither damages the other."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from faults.commands import COMMANDS, slow_server
from faults.kills import changed_sources, ended, left_running, sources, start, whole_run

RUN, BUILD = "run of a notebook", "build of a book"
ALONE = ("sweep of a function, 100 points", "training, shallow", "data", RUN, BUILD, "clustering over an older one")
PAIRS = (*((name, name) for name in ALONE), (RUN, BUILD))
TIMES = 5  # each pair, with another delay


def run_pairs(rng: random.Random, say: Callable[[str], object], share: float = 1.0) -> Iterator[dict[str, Any]]:
    """Yield for each pair, started that share of `TIMES`: how often, how often one was refused, and what was wrong."""
    with slow_server() as port, tempfile.TemporaryDirectory(prefix="gsae-faults-") as folder:
        home = Path(folder)
        whole = {name: whole_run(COMMANDS[name], home / f"whole-{k}", port) for k, name in enumerate(ALONE)}
        for pair in PAIRS:
            found = {"commands": " and ".join(pair), "times": 0, "refused": 0, "wrong": []}
            for _ in range(max(1, round(share * TIMES))):
                _run_pair(pair, found, home / f"pair-{rng.random()}", port, whole, rng)
            say(f"{found['commands']}: {found['refused']} refused, {len(found['wrong'])} wrong")
            yield found


def _run_pair(
    pair: tuple[str, str],
    found: dict[str, Any],
    folder: Path,
    port: int,
    whole: Mapping[str, tuple[object, float]],
    rng: random.Random,
) -> None:
    """Start one, the other a moment later, and look at what they say and leave."""
    COMMANDS[pair[0]].prepare(folder)
    before, wrong = sources(folder), found["wrong"]
    first = start(COMMANDS[pair[0]], folder, f"{folder.name}-0", port)
    time.sleep(rng.uniform(0, 0.7 * whole[pair[0]][1]))
    second = start(COMMANDS[pair[1]], folder, f"{folder.name}-1", port)
    found["times"] += 1
    codes = []
    for name, process in zip(pair, (first, second), strict=True):
        code, told = ended(process)
        codes.append(code)
        lines = [line for line in told.splitlines() if line.strip()]
        if code and ("Traceback" in told or not lines or "another" not in lines[-1]):
            wrong.append(f"{name} ends with {code}: {told[-300:]}")
    found["refused"] += sum(bool(code) for code in codes)
    if all(codes):
        wrong.append("both were refused")
    for number, name in enumerate(pair):
        if COMMANDS[name].left(folder) != whole[name][0]:
            wrong.append(f"{name} leaves something else")
        wrong += left_running(f"{folder.name}-{number}")
    wrong += changed_sources(folder, before)
