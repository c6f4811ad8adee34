"""What the benchmarks share: timing in turns or in fresh processes, and results as JSON with their machine."""

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from gsae_lib.runs.environment import about
from gsae_lib.runs.processes import process_pool
from gsae_lib.runs.recording import to_json

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def peak_mib() -> float:
    """The peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fresh(work: Callable[..., object], *args: object) -> object:
    """The result of a call in a fresh process on one thread.

    Its ru_maxrss starts at the parent's peak, so the parent should stay small.
    """
    os.environ.update(ONE_THREAD)
    with process_pool(1) as pool:
        return pool.submit(work, *args).result()


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
