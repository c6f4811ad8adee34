"""The processes that train together: those of torch.distributed where it is initialised, and else this one alone."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from gsae_lib.training.checkpoints import difference


class Processes:
    """Which of the processes this is (`rank`), of how many (`count`), and what they do together."""

    def __init__(self) -> None:
        """As torch.distributed says."""
        together = distributed.is_available() and distributed.is_initialized()
        self.rank, self.count = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)

    def part(self, rows: Tensor) -> Tensor:
        """The rows of a batch that are this process's: as many as the others', or one more."""
        return rows.tensor_split(self.count)[self.rank]

    def agree(self, run: Mapping[str, Any], model: nn.Module, device: torch.device) -> None:
        """Take the weights of process 0, which are the same up to rounding.

        Raises:
            ValueError: in every process, if their arguments or places differ.
        """
        if self.count == 1:
            return
        content = torch.tensor(list(json.dumps(run).encode()), dtype=torch.uint8, device=device)
        size = torch.tensor(len(content), device=device)
        distributed.broadcast(size, 0)
        if self.rank:
            content = torch.empty(int(size), dtype=torch.uint8, device=device)
        distributed.broadcast(content, 0)
        other = difference(json.loads(bytes(content.tolist())), run)
        differ = torch.tensor(float(bool(other)), device=device)
        distributed.all_reduce(differ)
        if differ:
            found = f": process 0 has {other[0]}, process {self.rank} {other[1]}" if other else ""
            raise ValueError(f"expected the same arguments in all {self.count} processes{found}")
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)

    @torch.no_grad()
    def add(
        self, model: nn.Module, loss: float | Tensor, pairs: float | Tensor, n_part: int, n_samples: int
    ) -> tuple[float | Tensor, float | Tensor]:
        """Loss and active pairs of a batch, and its gradient in the parameters, from those of each process's part.

        A loss and its gradient are means over a part of n_part samples, and become means over n_samples.
        """
        if self.count == 1:
            return loss, pairs
        parameters = list(model.parameters())
        dtype = torch.promote_types(parameters[0].dtype, torch.float32)
        gradients = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters]
        gradient = torch.cat(gradients).to(dtype) * (n_part / n_samples)
        sums = torch.tensor([float(loss) * (n_part / n_samples), float(pairs)], dtype=torch.float64)
        sums = sums.to(gradient.device)
        distributed.all_reduce(gradient)
        distributed.all_reduce(sums)
        pieces = gradient.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        mean_loss, all_pairs = sums.tolist()
        return mean_loss, all_pairs
