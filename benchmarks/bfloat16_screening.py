"""Time a step of the shallow network with and without bfloat16 screening, beside the products.

At the size of the paper's simulation, and smaller; the gradients are the same bit by bit.
"""

import timing
import torch

from gsae_lib import GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.networks import shallow_gradient

N, SIZE, ACTIVE, PENALTY = 10_000, 2, 3, 2.0
SHAPES = ((950, 500), (475, 250), (240, 125), (120, 60))
REPEATS = 9


def main() -> None:
    """Check that gradients agree, measure, print and write the table."""
    rows = []
    for features, groups in SHAPES:
        rng = torch.Generator().manual_seed(0)
        dictionary = gaussian_dictionary(features, groups, SIZE, generator=rng)
        data = GroupSparseSource(dictionary, SIZE, ACTIVE, snr_db=1.0).sample(N, generator=rng).data
        low = (data.bfloat16(), dictionary.bfloat16())

        def step(screen: bool, data: torch.Tensor = data, dictionary: torch.Tensor = dictionary) -> torch.Tensor:
            return shallow_gradient(data, dictionary, PENALTY, SIZE, screen=screen).gradient

        if not torch.equal(step(False), step(True)):
            raise AssertionError("the gradients differ")
        tasks = {
            "float32 product": lambda data=data, dictionary=dictionary: data @ dictionary,
            "bfloat16 product": lambda low=low: low[0] @ low[1],
            "step, float32": lambda step=step: step(False),
            "step, bfloat16": lambda step=step: step(True),
        }
        times = timing.interleave(tasks, REPEATS)
        median = {name: value["median"] for name, value in times.items()}
        gain = median["step, float32"] / median["step, bfloat16"]
        over_product = median["step, bfloat16"] / median["float32 product"]
        rows.append(
            {"features": features, "groups": groups, "seconds": times, "gain": gain, "over_product": over_product}
        )
        print(features, groups, {name: f"{value:.4f} s" for name, value in median.items()}, gain, over_product)
    timing.write("bfloat16_screening", samples=N, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
