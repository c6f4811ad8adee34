"""Blocks of samples on threads of their own, each of which works alone: one parallel region in place of many.

Where a core is shared with another program, many small regions all wait for the slower thread; here a thread that is
late has fewer blocks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

AHEAD = 4  # blocks a thread that are begun before the first of them is taken
Block = TypeVar("Block")
Result = TypeVar("Result")


def map_blocks(task: Callable[[Block], Result], blocks: Iterable[Block], device: torch.device) -> Iterator[Result]:
    """The results of the blocks, in order, from as many threads as torch has (`torch.get_num_threads`).

    In a thread torch has one thread and no gradients. The blocks do not depend on the number of threads, and a result
    that adds them up in order does not either. Those of a GPU, and a single one, are worked on here.
    """
    blocks, n_threads = list(blocks), torch.get_num_threads()
    if n_threads == 1 or len(blocks) < 2 or device.type != "cpu":
        yield from map(task, blocks)
        return

    def work(block: Block) -> Result:
        with torch.no_grad():
            return task(block)

    with ThreadPoolExecutor(min(n_threads, len(blocks)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        begun: deque[Future[Result]] = deque()
        for block in blocks:
            begun.append(pool.submit(work, block))
            if len(begun) >= AHEAD * n_threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
