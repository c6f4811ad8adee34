"""Time both ways of the group-lasso solver, samples one by one and together, on one core.

From a few groups in use to most of them, for small and large Gram matrices. On a CPU with numba the solver takes them
one by one.
"""

import timing
import torch

from gsae_lib.coding import largest_penalty
from gsae_lib.coding._solver import Solver
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary
from gsae_lib.penalty import GroupPenalty

SAMPLES, REPEATS, TOL = 300, 5, 1e-6
# Features, groups, their size, groups active in a sample, shares of the mean largest penalty.
PROBLEMS = (
    (784, 10, 16, 3, (0.3, 0.1, 0.03)),
    (64, 40, 4, 2, (0.3, 0.1, 0.02)),
    (64, 400, 1, 5, (0.3, 0.1, 0.02)),
    (950, 500, 2, 3, (0.3, 0.1, 0.05)),
)


def main() -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(1)
    rows = []
    for features, groups, size, active, shares in PROBLEMS:
        rng = torch.Generator().manual_seed(0)
        dictionary = gaussian_dictionary(features, groups, size, generator=rng, dtype=torch.float64)
        data = GroupSparseSource(dictionary, size, active, snr_db=10.0).sample(SAMPLES, generator=rng).data
        start = torch.zeros(SAMPLES, groups * size, dtype=torch.float64)
        for share in shares:
            penalty = share * largest_penalty(data, dictionary, size).mean().expand(SAMPLES)
            solver = Solver(dictionary, GroupPenalty(1.0, size), TOL, 10_000)
            given = (data, penalty, start)
            times = timing.interleave(
                {
                    "one by one": lambda solver=solver, given=given: solver._solve_alone(*given),
                    "together": lambda solver=solver, given=given: solver._solve_together(*given),
                },
                REPEATS,
            )
            codes, *_ = solver._solve_alone(*given)
            row = {"features": features, "groups": groups, "group_size": size, "penalty_share": share}
            row |= {
                "active_share": (codes != 0).double().mean().item(),
                "milliseconds_per_sample": {name: 1e3 * t["median"] / SAMPLES for name, t in times.items()},
                "together_over_one_by_one": times["together"]["median"] / times["one by one"]["median"],
            }
            rows.append(row)
            print(row, flush=True)
    timing.write("coding_ways", samples=SAMPLES, tolerance=TOL, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
