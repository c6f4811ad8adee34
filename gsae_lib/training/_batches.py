"""The batches that training takes: of an array, in a fresh random order each epoch, or of a stream.

Both can be put back where they were: `drawn` is the state of the generator before the last draw.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from gsae_lib._checks import check_mapped, check_mask, check_matrix, describe, on_disk
from gsae_lib._saved import one_line
from gsae_lib.generative import GroupSparseSample
from gsae_lib.training.checkpoints import digest

Part = Callable[[Tensor], Tensor]
COMPARED_ROWS = 1000  # of an array: what tells two of the same shape apart


class ArrayBatches:
    """Mini-batches of an array, or all of it as one."""

    def __init__(
        self, data: Tensor | np.ndarray, like: Tensor, batch_size: int | None, generator: Generator, part: Part
    ) -> None:
        """The array as it is, which is taken to the device and precision of `like`, (features, atoms).

        At once, but for a memory map: that a batch at a time. part: which of the rows of a batch are wanted.
        """
        self.given, self.like = data, like
        if isinstance(data, np.ndarray) and on_disk(data):
            self.data: Tensor | np.ndarray = check_mapped("data", data, columns=len(like))
        else:
            check_mask("data", data)
            if isinstance(data, np.ndarray) and (min(data.strides, default=0) < 0 or not data.dtype.isnative):
                data = self.given = np.array(data, data.dtype.newbyteorder("="))  # torch takes neither
            try:
                given = torch.as_tensor(data)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"data: expected an array of numbers; {one_line(error)}") from None
            if given.is_complex() or given.layout != torch.strided:
                raise ValueError(f"data: expected a dense array of real numbers, got {describe(given)}")
            self.data = given.to(like.device, like.dtype)
            check_matrix("data", self.data, columns=len(like))
        if not len(self.data):
            raise ValueError(f"data: expected at least one sample, got {describe(self.data)}")
        whole = batch_size is None or batch_size >= len(self.data)
        self.batch_size = None if whole else batch_size
        self.generator, self.part = generator, part
        self.drawn = generator.get_state()

    def __len__(self) -> int:
        """Batches an epoch."""
        return 1 if self.batch_size is None else -(-len(self.data) // self.batch_size)

    def epoch(self, n_done: int) -> Iterator[tuple[Tensor, int]]:
        """The batches of an epoch but the first `n_done`: of each the part that is wanted, and its size in all."""
        if self.batch_size is None:
            chosen = self.part(torch.arange(len(self.data)))
            yield self._rows(slice(int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else slice(0)), len(self.data)
            return
        if not n_done:
            self._draw()
        for chosen in self.order.split(self.batch_size)[n_done:]:
            yield self._rows(self.part(chosen)), len(chosen)

    def identity(self) -> dict[str, Any]:
        """What tells these data from others: shape, dtype, and of 1,000 evenly spaced rows a weighted sum each."""
        count, width = self.given.shape
        rows = torch.linspace(0, count - 1, min(count, COMPARED_ROWS), dtype=torch.float64).long()
        sampled = self.given[rows.to(self.given.device) if isinstance(self.given, Tensor) else rows.numpy()]
        weights = torch.arange(1.0, width + 1, dtype=torch.float64).cos()
        sums = torch.as_tensor(sampled).cpu().double() @ weights
        dtype = str(self.given.dtype).removeprefix("torch.")
        return {"shape": str(tuple(self.given.shape)), "dtype": dtype, "rows": sums.tolist()}

    def mark(self) -> str:
        """What the last batch drawn was, for `resume`: nothing, since `identity` has told."""
        return ""

    def resume(self, drawn: Tensor, now: Tensor, n_epochs: int, n_done: int, mark: str) -> bool:
        """Go to where `n_done` batches of the present epoch are done; whether the batches are those of `mark`."""
        if n_done:
            self.generator.set_state(drawn)
            self._draw()
        self.generator.set_state(now)
        return True

    def _draw(self) -> None:
        self.drawn = self.generator.get_state()
        order = torch.randperm(len(self.data), generator=self.generator, device=self.generator.device)
        self.order = order.to(self.data.device if isinstance(self.data, Tensor) else "cpu")

    def _rows(self, chosen: Tensor | slice) -> Tensor:
        if isinstance(self.data, Tensor):
            return self.data[chosen]
        rows = self.data[chosen if isinstance(chosen, slice) else chosen.numpy()]
        return torch.from_numpy(np.array(rows)).to(self.like.device, self.like.dtype)


class StreamBatches:
    """Batches of an iterator, so many an epoch."""

    def __init__(
        self,
        data: Iterator[GroupSparseSample | Tensor],
        like: Tensor,
        steps_per_epoch: int,
        generator: Generator,
        part: Part,
    ) -> None:
        """The iterator, whose batches are taken to the device and precision of `like`."""
        if not isinstance(data, Iterator):
            raise ValueError(f"data: expected a tensor, an array or an iterator of batches, got {describe(data)}")
        self.data, self.like, self.steps_per_epoch = data, like, steps_per_epoch
        self.generator, self.part = generator, part
        self.drawn = generator.get_state()
        self.last: Tensor | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.steps_per_epoch

    def epoch(self, n_done: int) -> Iterator[tuple[Tensor, int]]:
        """As of an array; the first `n_done` were taken before."""
        for step in range(n_done, self.steps_per_epoch):
            batch = self._next(self.steps_per_epoch - step)
            yield self.part(batch).to(self.like.device, self.like.dtype), len(batch)

    def identity(self) -> dict[str, Any]:
        """Nothing: what a stream will give is not known before."""
        return {"shape": "stream"}

    def mark(self) -> str:
        """A checksum of the last batch."""
        return "" if self.last is None else digest(self.last)

    def resume(self, drawn: Tensor, now: Tensor, n_epochs: int, n_done: int, mark: str) -> bool:
        """Draw the last batch again and go on from there; whether it is that of `mark`.

        A stream that draws from the generator, and has no other state, gives it at once. Any other has to start anew,
        and all batches that were taken are taken again.
        """
        start, n_taken = self.generator.get_state(), n_epochs * self.steps_per_epoch + n_done
        self.generator.set_state(drawn)
        if n_taken:
            self._next(n_taken)
        if n_taken > 1 and self.mark() != mark:
            self.generator.set_state(start)
            for step in range(1, n_taken):
                self._next(n_taken - step)
        found = self.mark()
        self.drawn = drawn
        self.generator.set_state(now)
        return found == mark

    def _next(self, n_expected: int) -> Tensor:
        self.drawn = self.generator.get_state()
        batch = next(self.data, None)
        if batch is None:
            raise ValueError(f"data: the stream ended; expected {n_expected} more batches")
        batch = batch.data if isinstance(batch, GroupSparseSample) else batch
        if not isinstance(batch, Tensor | np.ndarray) or batch.shape[1:] != self.like.shape[:1] or not len(batch):
            raise ValueError(f"data: expected batches (samples, {len(self.like)}), got {describe(batch)}")
        self.last = torch.as_tensor(batch)
        return self.last
