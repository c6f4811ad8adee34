"""Time the search for the active pairs of the shallow network: float32 product against bfloat16 screening.

At the size of the paper's simulation, and smaller; the supports are the same.
"""

import timing
import torch

from gsae_lib import GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.structured import _pairs, screened_pairs, shallow_gradient

N, SIZE, ACTIVE, PENALTY = 10_000, 2, 3, 2.0
SHAPES = ((950, 500), (475, 250), (240, 125), (120, 60))
REPEATS = 9


def main() -> None:
    """Check that supports agree, measure, print and write the table."""
    rows = []
    for features, groups in SHAPES:
        rng = torch.Generator().manual_seed(0)
        dictionary = gaussian_dictionary(features, groups, SIZE, generator=rng)
        data = GroupSparseSource(dictionary, SIZE, ACTIVE, snr_db=1.0).sample(N, generator=rng).data
        args = (dictionary, PENALTY, SIZE)
        for part in data.split(2000):
            expected, found = _pairs(part, *args, False)[0], screened_pairs(part, *args)[0]
            if not all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)):
                raise AssertionError("the supports differ")
        low = (data.bfloat16(), dictionary.bfloat16())

        def pairs(find: object, data: torch.Tensor = data, args: tuple = args) -> None:
            for part in data.split(2000):
                find(part, *args, False)

        def step(screen: bool, data: torch.Tensor = data, args: tuple = args) -> None:
            shallow_gradient(data, *args, screen=screen)

        tasks = {
            "float32 product": lambda data=data, dictionary=dictionary: data @ dictionary,
            "bfloat16 product": lambda low=low: low[0] @ low[1],
            "pairs, float32": lambda pairs=pairs: pairs(_pairs),
            "pairs, bfloat16": lambda pairs=pairs: pairs(screened_pairs),
            "step, float32": lambda step=step: step(False),
            "step, bfloat16": lambda step=step: step(True),
        }
        times = timing.interleave(tasks, REPEATS)
        median = {name: value["median"] for name, value in times.items()}
        gains = {kind: median[f"{kind}, float32"] / median[f"{kind}, bfloat16"] for kind in ("pairs", "step")}
        rows.append({"features": features, "groups": groups, "seconds": times, "gains": gains})
        print(features, groups, {name: f"{value:.4f} s" for name, value in median.items()}, gains)
    timing.write("bfloat16_screening", samples=N, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
