"""Processes that end with the one that started them, even if that is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def follow(parent: int) -> None:
    """Make this process, a child of the process ``parent``, end within a second of it; Ctrl-C is the parent's alone.

    A killed parent can tell nobody, so a thread looks whether the system has given this process another one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


@contextmanager
def process_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, ``jobs`` at a time, that end with this one; an error in the body, or Ctrl-C, ends them at once.

    Fresh, not forks, which copy the locks of threads. Their temporary files are in one folder, which is removed.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _Pool(jobs, mp_context=spawn, initializer=_start, initargs=(os.getpid(), folder)) as pool,
    ):
        try:
            yield pool
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def in_fresh_process(work: Callable[..., object], *args: object) -> Any:
    """Return the result of a call in a fresh process on one thread.

    Its peak memory starts at the parent's, so the parent should stay small.
    """
    os.environ.update(ONE_THREAD)
    with process_pool(1) as pool:
        return pool.submit(work, *args).result()


def peak_mib() -> float:
    """Return the peak memory of this process so far, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


class _Pool(ProcessPoolExecutor):
    def submit(self, *args: Any, **kwargs: Any) -> Future:
        """Submit, with Ctrl-C held back: a process that starts here inherits that, until it has come to `follow`."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(parent: int, folder: str) -> None:
    follow(parent)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
