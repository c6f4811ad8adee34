"""What a sweep costs beside its points: seconds a point, one worker against two, and a thousand workers simulated.

The simulated workers are threads that sleep in place of computing. Scheduler, messages, and the driver that writes
every result to the disk, are the real ones, on two cores together with the threads.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import timing
from distributed import Client, LocalCluster

from gsae_book.runs import workers
from gsae_book.runs.environment import about, find_root
from gsae_book.runs.specification import Sweep, read_sweep
from gsae_book.runs.sweep import run_sweep

FUNCTION = "benchmarks.spin.spin"
N_EMPTY, N_SPINNING, SPIN_SECONDS = 500, 60, 1.0
N_WORKERS, N_SIMULATED, SECONDS = 1000, 5000, (1.0, 5.0, 20.0)


def sweep_of(n_points: int, seconds: float, folder: Path) -> Sweep:
    """A sweep of so many points of so many seconds."""
    path = folder / "spec.yaml"
    path.write_text(f"function: {FUNCTION}\ngrid: {{seed: {list(range(n_points))}, seconds: [{seconds}]}}\n")
    return read_sweep(path, find_root())


def wall_seconds(n_points: int, seconds: float, **settings: Any) -> float:
    """Wall seconds of a sweep, its workers' start included."""
    with tempfile.TemporaryDirectory(dir=find_root() / "_build") as folder:
        sweep = sweep_of(n_points, seconds, Path(folder))
        start = time.perf_counter()
        run_sweep(sweep, Path(folder) / "out", **settings)
        return time.perf_counter() - start


def sleep_point(task: Mapping[str, Any], *, common: Mapping[str, Any]) -> dict[str, Any]:
    """What `workers.run_point` gives, after a sleep of as long as the point would compute."""
    time.sleep(task["values"]["seconds"])
    done = {"status": "done", "rows": [{"total": 0.0}], "seconds": task["values"]["seconds"], "peak_mib": None}
    return {"worker": "simulated", "about": ABOUT, **done}


def simulate(seconds: float) -> dict[str, float]:
    """A sweep on simulated workers: wall seconds, and which share of these the workers were busy."""
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=N_WORKERS, processes=False, dashboard_address=None, memory_limit=0
    )
    with cluster, Client(cluster), mock.patch.object(workers, "run_point", sleep_point):
        wall = wall_seconds(N_SIMULATED, seconds, scheduler=cluster.scheduler_address)
    return {"seconds": seconds, "wall_seconds": wall, "busy_share": N_SIMULATED * seconds / N_WORKERS / wall}


ABOUT = about()


def main() -> None:
    """Measure, print and write."""
    empty = {}
    for jobs in (1, 2):
        few, many = (wall_seconds(count, 0.0, jobs=jobs) for count in (jobs, N_EMPTY + jobs))
        empty[jobs] = {"start_seconds": few, "seconds_a_point": (many - few) / N_EMPTY}
        print(jobs, empty[jobs], flush=True)
    spinning = {jobs: wall_seconds(N_SPINNING, SPIN_SECONDS, jobs=jobs) for jobs in (1, 2)}
    print(spinning, f"{spinning[1] / spinning[2]:.2f} x", flush=True)
    simulated = []
    for seconds in SECONDS:
        simulated.append(simulate(seconds))
        print(simulated[-1], flush=True)
    timing.write(
        "sweep_overhead",
        size={"empty": N_EMPTY, "spinning": N_SPINNING, "spin_seconds": SPIN_SECONDS, "points": N_SIMULATED},
        n_workers=N_WORKERS,
        empty=empty,
        spinning=spinning,
        simulated=simulated,
    )


if __name__ == "__main__":
    main()
