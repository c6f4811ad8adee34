"""Files that are whole whatever is killed: the one way in which this project writes over a file."""

import contextlib
import os
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file in one step, on the disk before it has its name; a link is followed.

    At any time the path holds the old content or the new, whatever ends the process.

    Raises:
        OSError: it cannot be written, or another process does so; `path` is as it was.
    """
    replace_and_lock(path, content).close()


def replace_and_lock(path: Path, content: bytes | str) -> IO[bytes]:
    """As `replace_file`; the file is returned open, and no other process replaces it before it is closed."""
    path = Path(os.path.realpath(path))
    partial = path.with_name(path.name + ".tmp")
    file = open_locked(partial, "ab")
    try:
        file.truncate(0)
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        file.close()
        raise
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return file


def open_locked(path: Path, mode: str) -> IO[bytes]:
    """Open a file and lock it, where the system has locks; the lock ends with the file or the process.

    Raises:
        OSError: another process holds it.
    """
    file = open(path, mode)
    if HAS_LOCKS:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OSError("another process writes there") from None
    return file
