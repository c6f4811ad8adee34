"""Time the group ReLU, forward and backward, against the obvious chain of operations, eager and compiled."""

import timing
import torch
from torch import Tensor

from gsae_lib.activations import group_relu

SIZES = ((60_000, 10, 16), (10_000, 500, 2))
ACTIVE_SHARE = 0.1
REPEATS = 9


def chain(x: Tensor, threshold: float, group_size: int) -> Tensor:
    """What one writes first."""
    blocks = x.unflatten(-1, (-1, group_size))
    norms = blocks.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return (torch.relu(1 - threshold / norms) * blocks).flatten(-2)


def kept_bytes(function: object, *args: object) -> int:
    """Bytes that autograd keeps for the backward pass besides input and result, each storage counted once."""
    storages = {}

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = function(*args)
    for tensor in (args[0], result):
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def main() -> None:
    """Measure, print and write the table."""
    functions = {
        "chain": chain,
        "group_relu": group_relu,
        "chain, compiled": torch.compile(chain),
        "group_relu, compiled": torch.compile(group_relu),
    }
    rows = []
    for samples, groups, size in SIZES:
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(samples, groups * size, generator=rng).requires_grad_()
        grad = torch.randn(samples, groups * size, generator=rng)
        norms = x.detach()[:2000].unflatten(-1, (-1, size)).norm(dim=-1).flatten()
        threshold = norms.quantile(1 - ACTIVE_SHARE).item()

        def task(function: object, x: Tensor = x, grad: Tensor = grad, args: tuple = (threshold, size)) -> object:
            def work() -> None:
                x.grad = None
                function(x, *args).backward(grad)

            return work

        times = timing.interleave({name: task(function) for name, function in functions.items()}, REPEATS)
        kept = {name: kept_bytes(functions[name], x, threshold, size) for name in ("chain", "group_relu")}
        ratios = {name: times["chain"]["median"] / value["median"] for name, value in times.items()}
        rows.append({"samples": samples, "groups": groups, "size": size, "seconds": times, "kept_bytes": kept})
        print(samples, groups, size, {name: f"{ratio:.2f} x" for name, ratio in ratios.items()}, kept)
    timing.write("group_relu", active_share=ACTIVE_SHARE, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
