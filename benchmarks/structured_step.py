"""Time one training step of the shallow network: structured gradient against automatic differentiation.

At the size of the paper's simulation. Both run interleaved in one process, beside the product Y W that neither can do
without. The threshold sets how many groups are active; where the ratio crosses 1 is `training.STRUCTURED_SHARE`.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.runs.environment import processor, versions
from gsae_lib.structured import shallow_gradient

N, FEATURES, GROUPS, SIZE, ACTIVE = 10_000, 950, 500, 2, 3
PENALTIES = (2.0, 1.4, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5)
REPEATS = 7
OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "structured_step.json"


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write the table."""
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(FEATURES, GROUPS, SIZE, generator=rng)
    data = GroupSparseSource(dictionary, SIZE, ACTIVE, snr_db=1.0).sample(N, generator=rng).data
    rows = []
    for penalty in PENALTIES:
        model = GroupSparseAutoencoder(FEATURES, GROUPS, SIZE, penalty, step_size=1.0, weight=dictionary)

        def autograd(model: GroupSparseAutoencoder = model) -> None:
            model.weight.grad = None
            reconstruction, _ = model(data)
            (0.5 * (data - reconstruction).square().sum(dim=1).mean()).backward()

        def structured(penalty: float = penalty) -> float:
            return shallow_gradient(dictionary, data, penalty, SIZE).active_groups

        tasks = {"product": lambda: data @ dictionary, "structured": structured, "autograd": autograd}
        times = {name: [] for name in tasks}
        for _ in range(REPEATS + 1):
            for name, task in tasks.items():
                times[name].append(seconds(task))
        median = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms up
        spread = {name: max(values[1:]) - min(values[1:]) for name, values in times.items()}
        row = {
            "penalty": penalty,
            "active_share": structured() / GROUPS,
            "median_seconds": median,
            "range_seconds": spread,
            "autograd_over_structured": median["autograd"] / median["structured"],
            "structured_over_product": median["structured"] / median["product"],
        }
        rows.append(row)
        print(
            f"active {row['active_share']:.2%}: structured {median['structured']:.3f} s, "
            f"{row['autograd_over_structured']:.2f} x faster than autograd, "
            f"{row['structured_over_product']:.2f} x the product"
        )
    size = {"samples": N, "features": FEATURES, "groups": GROUPS, "group_size": SIZE}
    where = {"processor": processor(), "threads": torch.get_num_threads(), "versions": versions()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"size": size, "repeats": REPEATS, "rows": rows, **where}, indent=2) + "\n")
    print(OUT)


if __name__ == "__main__":
    main()
