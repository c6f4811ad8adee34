"""Time one training step of the shallow network: structured gradient against automatic differentiation.

At the size of the paper's simulation. All run interleaved in one process, beside the product Y W that none can do
without, the structured gradient with bfloat16 screening, and `tied_gradient`, to which `train` turns where many groups
are active. The threshold sets how many are; where the two gradients cross is `training.STRUCTURED_SHARE`.
"""

import functools

import timing
import torch

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.networks import shallow_gradient, tied_gradient

N, FEATURES, GROUPS, SIZE, ACTIVE = 10_000, 950, 500, 2, 3
PENALTIES = (2.0, 1.4, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4)
REPEATS = 7


def main() -> None:
    """Measure, print and write the table."""
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(FEATURES, GROUPS, SIZE, generator=rng)
    data = GroupSparseSource(dictionary, SIZE, ACTIVE, snr_db=1.0).sample(N, generator=rng).data
    rows = []
    for penalty in PENALTIES:
        model = GroupSparseAutoencoder(FEATURES, GROUPS, SIZE, penalty, step_size=1.0, dictionary=dictionary)

        def autograd(model: GroupSparseAutoencoder = model) -> None:
            model.weight.grad = None
            reconstruction, _ = model(data)
            (0.5 * (data - reconstruction).square().sum(dim=1).mean()).backward()

        def structured(screen: bool = False, penalty: float = penalty) -> float:
            return shallow_gradient(data, dictionary, penalty, SIZE, screen=screen).active_groups

        tasks = {"product": lambda: data @ dictionary, "structured": structured, "autograd": autograd}
        tasks["screened"] = lambda structured=structured: structured(screen=True)
        tasks["tied"] = functools.partial(tied_gradient, data, dictionary, model.unfolding())
        times = timing.interleave(tasks, REPEATS)
        row = {
            "penalty": penalty,
            "active_share": structured() / GROUPS,
            "seconds": times,
            "autograd_over_structured": times["autograd"]["median"] / times["structured"]["median"],
            "tied_over_structured": times["tied"]["median"] / times["structured"]["median"],
            "structured_over_product": times["structured"]["median"] / times["product"]["median"],
            "screened_over_product": times["screened"]["median"] / times["product"]["median"],
        }
        rows.append(row)
        print(
            f"active {row['active_share']:.2%}: structured {times['structured']['median']:.3f} s, "
            f"{row['autograd_over_structured']:.2f} x faster than autograd, "
            f"{row['tied_over_structured']:.2f} x than tied, {row['structured_over_product']:.2f} x the product, "
            f"screened {row['screened_over_product']:.2f} x the product"
        )
    size = {"samples": N, "features": FEATURES, "groups": GROUPS, "group_size": SIZE}
    timing.write("structured_step", size=size, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
