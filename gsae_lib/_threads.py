"""Blocks of samples on threads of their own, each of which works alone: one parallel region in place of many.

Where a core is shared with another program, many small regions all wait for the slower thread; here a thread that is
late has fewer blocks. And after each region of torch its threads wait busily for the next one, for some milliseconds:
beside blocks that is a thread too many, so there are none until all blocks are done.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import torch

AHEAD = 4  # blocks a thread that are begun before the first of them is taken
Block = TypeVar("Block")
Result = TypeVar("Result")


class BlockThreads:
    """As many threads as torch has, with one of torch's each; a context, in which torch has one here too.

    A single block is worked on here, by all of torch's threads, and so are those on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._n_threads = torch.get_num_threads()
        self._n_workers = self._n_threads if device.type == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_num_threads(self._n_threads)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, task: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """The results of the blocks, in order, without gradients where there are several threads.

        Several blocks do not depend on the number of threads, and a result that adds them up in order does not either.
        A single block, and what is computed beside the blocks, does within rounding.
        """
        blocks = list(blocks)
        if self._n_workers == 1 or len(blocks) < 2:
            torch.set_num_threads(self._n_threads)
            yield from map(task, blocks)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._n_workers, initializer=torch.set_num_threads, initargs=(1,))
        pool = self._pool

        def work(block: Block) -> Result:
            with torch.no_grad():
                return task(block)

        begun: deque[Future[Result]] = deque()
        for block in blocks:
            begun.append(pool.submit(work, block))
            if len(begun) >= AHEAD * self._n_workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
