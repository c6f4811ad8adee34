"""Processes that end with the one that started them, even if that is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def follow(parent: int) -> None:
    """Make this process, a child of the process ``parent``, end within a second of it; Ctrl-C is the parent's alone.

    A killed parent can tell nobody, so a thread looks whether the system has given this process another one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


@contextmanager
def process_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, ``jobs`` at a time, that end with this one; an error in the body, or Ctrl-C, ends them at once.

    Fresh, not forks: a fork copies threads' locks, and the peak memory that it is charged with.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=follow, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
