"""Locks: what one command at a time does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click


class Busy(RuntimeError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, waiting: str | None = None) -> Iterator[None]:
    """Hold the lock of the file ``path``, which stays; the system frees it when this process ends, however it does.

    If another process holds it, say ``waiting`` and wait. Where the system has no file locks, nothing is held.

    Raises: Busy if another process holds it and ``waiting`` is None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file, contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise Busy(f"{path} is locked") from None
                click.echo(waiting, err=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            held.callback(fcntl.flock, file, fcntl.LOCK_UN)
        yield


def lock_beside(path: Path) -> Path:
    """Return the file whose lock stands for ``path``: among temporary files, so that nothing is left beside it."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"gsae-{user}" / f"{name}.lock"
