"""Time both ways of the group-lasso solver, samples one by one and together, on one core.

From a few groups in use to most of them, for small and large Gram matrices. `share` is that of the multiplications of
all samples together which one by one takes; the times cross at `FEW` and `FEW_OF_MANY` of `gsae_lib.coding._solver`.
"""

import timing
import torch

from gsae_lib.coding import largest_penalty
from gsae_lib.coding._solver import PROBED, Solver
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary

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
            solver = Solver(dictionary, size, False, 0.0, TOL, 10_000)
            given = (data, penalty, start, 10_000)
            times = timing.interleave(
                {
                    "one by one": lambda solver=solver, given=given: solver._solve_one_by_one(*given),
                    "together": lambda solver=solver, given=given: solver._solve_together(*given),
                },
                REPEATS,
            )
            probed = [x[:PROBED] for x in given[:3]]
            codes, *_ = solver._solve_one_by_one(*given)
            row = {"features": features, "groups": groups, "group_size": size, "penalty_share": share}
            row |= {
                "active_share": (codes != 0).double().mean().item(),
                "share": solver._solve_each(*probed, 10_000)[2],
                "chosen": solver._ways(*given[:3])[0].__name__.removeprefix("_solve_").replace("_", " "),
                "milliseconds_per_sample": {name: 1e3 * t["median"] / SAMPLES for name, t in times.items()},
                "together_over_one_by_one": times["together"]["median"] / times["one by one"]["median"],
            }
            rows.append(row)
            print(row, flush=True)
    timing.write("coding_ways", samples=SAMPLES, tolerance=TOL, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
