"""Time one epoch of the unfolded network at the size of MNIST against the straightforward implementation.

The rival writes each iteration as two products with the weight and lets autograd do the rest. "tied" is what `train`
uses, the loss and its gradient from Y W and W^T W. Gradients agree; the decoder gradient is another quantity, and is
timed beside them.
"""

import timing
import torch
from torch import Tensor

from gsae_lib import GroupSparseAutoencoder
from gsae_lib.networks import tied_gradient

N, FEATURES, GROUPS, SIZE, DEPTH, PENALTY = 60_000, 784, 10, 16, 15, 0.1
BATCHES = (500, 60_000)
REPEATS = 3


def straightforward(data: Tensor, weight: Tensor) -> Tensor:
    """The reconstruction, from the equations as they are printed."""
    step = 1 / torch.linalg.matrix_norm(weight.detach(), 2) ** 2
    x = z = torch.zeros(len(data), GROUPS * SIZE)
    t = 1.0
    for _ in range(DEPTH):
        u = (z - step * (z @ weight.T - data) @ weight).unflatten(-1, (GROUPS, SIZE))
        norms = u.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        x_next = (torch.relu(1 - step * PENALTY / norms) * u).flatten(-2)
        t_next = (1 + (1 + 4 * t**2) ** 0.5) / 2
        z = x_next + (t - 1) / t_next * (x_next - x)
        x, t = x_next, t_next
    return x @ weight.T


def main() -> None:
    """Measure, print and write the table."""
    rng = torch.Generator().manual_seed(0)
    data = torch.rand(N, FEATURES, generator=rng)
    data /= data.norm(dim=1, keepdim=True)
    settings = {"n_iterations": DEPTH, "generator": rng}
    start = GroupSparseAutoencoder(FEATURES, GROUPS, SIZE, PENALTY, **settings).weight.detach()
    variants = {"unrolled": {}, "unrolled, checkpoint": {"checkpoint": True}, "decoder": {"gradient": "decoder"}}
    models = {
        name: GroupSparseAutoencoder(FEATURES, GROUPS, SIZE, PENALTY, n_iterations=DEPTH, dictionary=start, **variant)
        for name, variant in variants.items()
    }
    weight = start.clone().requires_grad_()
    rivals = {"straightforward": (weight, lambda batch: straightforward(batch, weight))}
    networks = rivals | {name: (m.weight, lambda batch, m=m: m(batch)[0]) for name, m in models.items()}
    rows = []
    for batch_size in BATCHES:

        def epoch(parameter: Tensor, reconstruct: object, limit: int = N, batch_size: int = batch_size) -> Tensor:
            parameter.grad = None
            for batch in data[:limit].split(batch_size):
                loss = 0.5 * (batch - reconstruct(batch)).square().sum() / limit
                loss.backward()
            return parameter.grad

        def tied(limit: int = N, batch_size: int = batch_size) -> Tensor:
            steps = models["unrolled"].unfolding()
            parts = data[:limit].split(batch_size)
            return sum(tied_gradient(part, start, steps)[1] * (len(part) / limit) for part in parts)

        expected = epoch(*networks["straightforward"], limit=2000)
        if (difference := (tied(limit=2000) - expected).norm() / expected.norm()) > 1e-5:
            raise AssertionError(f"tied: relative difference {difference:.1e}")
        for name in ("unrolled", "unrolled, checkpoint"):
            difference = (epoch(*networks[name], limit=2000) - expected).norm() / expected.norm()
            if difference > 1e-5:
                raise AssertionError(f"{name}: relative difference {difference:.1e}")
        tasks = {name: lambda network=network: epoch(*network) for name, network in networks.items()}
        times = timing.interleave(tasks | {"tied": tied}, REPEATS)
        rows.append({"batch_size": batch_size, "seconds": times})
        base = times["straightforward"]["median"]
        print(batch_size, {name: f"{v['median']:.2f} s, {base / v['median']:.2f} x" for name, v in times.items()})
    size = {"samples": N, "features": FEATURES, "groups": GROUPS, "group_size": SIZE, "depth": DEPTH}
    timing.write("unfolded_epoch", size=size, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
