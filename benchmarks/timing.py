"""What the benchmarks share: timing in turns or in fresh processes, and results as JSON with their machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from gsae_book.runs.environment import about
from gsae_book.runs.recording import to_json

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median and range in seconds of each task; all run in turn, so that what else the machine does meets all of them.

    The first round warms up and is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            times[name].append(seconds(task))
    return {
        name: {"median": statistics.median(values[1:]), "range": max(values[1:]) - min(values[1:])}
        for name, values in times.items()
    }


def write(name: str, **results: object) -> None:
    """Write results/benchmarks/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(to_json({"about": about() | {"threads": torch.get_num_threads()}} | results, indent=1) + "\n")
    print(path)
