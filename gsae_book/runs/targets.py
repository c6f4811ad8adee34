"""Where a run may write: never on a source or a recorded result, and on another existing file only if that is asked."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gsae_book.runs.parameters import ParameterError, shown

# Folders of a project that no command writes to; its hidden folders are among them.
SOURCES = (
    "notebooks",
    "book",
    "results",
    "gsae_lib",
    "gsae_book",
    "experiments",
    "tests",
    "benchmarks",
    "locks",
    "_static",
)
# What a clustering leaves in its folder; what chapter 12 has trained comes last.
CLUSTERING = (
    *("labels.csv", "report.html", "repeat.py", "clustering.json", "arrays.npz", "model.json", "model.safetensors"),
    *("trained.json", "trained.safetensors"),
)


def check_apart(name: str, targets: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Return if none of the files ``targets``, of the parameter ``name``, is one that the command reads.

    Raises: ParameterError for one that is, whatever link leads there, and whether it may be replaced or not.
    """
    read = list(inputs)
    for target in targets:
        if any(_is_same(target, source) for source in read):
            raise ParameterError(f"{name} = {shown(str(target))} is not allowed: the command reads this file")


def _is_same(path: Path, other: Path) -> bool:
    """Whether both are one file, or would be; a text that can be no path is none."""
    try:
        if path.exists() and other.exists():
            return os.path.samefile(path, other)
        return os.path.realpath(path) == os.path.realpath(other)
    except (OSError, ValueError):
        return False


def run_targets(out: Path) -> tuple[Path, ...]:
    """Return the files that a run writes: its notebook, its numbers, and the notebook of one that failed."""
    return out, out.with_suffix(".json"), out.with_suffix(".failed.ipynb")


def check_out(out: Path, notebook: Path, *, replace: bool) -> None:
    """Return if a run of ``notebook`` may write to ``out``, its JSON beside it and, if it fails, ``*.failed.ipynb``.

    Raises: ParameterError, as `check_target`.
    """
    if out.suffix != ".ipynb" or out.resolve() == notebook.resolve():
        raise ParameterError(f"-o = {shown(str(out))} is not allowed: it must be another notebook, OUT.ipynb")
    for target in (out, out.with_suffix(".json")):
        check_target("-o", target, replace=replace)
    check_target("-o", out.with_suffix(".failed.ipynb.tmp"), replace=True)  # the longest name of those to come


def check_kept(root: Path, name: str) -> None:
    """Return if a notebook, run in ``root``, may keep its training in the file ``checkpoint = name``.

    That an existing file holds the same run is seen when training starts, and it is not replaced by another.

    Raises: ParameterError, as `check_target`.
    """
    if os.path.basename(name) in ("", ".", ".."):
        raise ParameterError(f"checkpoint = {shown(name)} is not allowed: it must end with the name of a file")
    check_target("checkpoint", root / name, replace=True)
    check_target("checkpoint", root / f"{name}.tmp", replace=True)


def check_folder(name: str, folder: Path, *, replace: bool) -> None:
    """Return if a clustering may be written into ``folder``, the value of the parameter ``name``.

    What else is in it stays there.

    Raises: ParameterError, as `check_target`.
    """
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{name} = {shown(str(folder))} is not allowed: it must be a folder")
    for file in CLUSTERING:
        check_target(name, folder / file, replace=replace)


def check_target(name: str, path: Path, *, replace: bool) -> None:
    """Return if the file ``path``, the value of the parameter ``name``, may be written; ``replace`` allows it to exist.

    Raises: ParameterError for a file among the sources or results of a project (any folder with a ``_config.yml``),
    whatever link or case leads there; for an existing file that is not to be replaced; for a path that cannot be
    written: a folder, under a file, too long, not permitted.
    """
    refused = f"{name} = {shown(str(path))} is not allowed: it must be"
    try:
        real = Path(os.path.realpath(path))
        for folder in real.parents:
            source = folder.name.lower() in SOURCES or folder.name.startswith(".")
            if source and (folder.parent / "_config.yml").is_file():
                raise ParameterError(f"{refused} outside {shown(str(folder))}")
        nearest = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if real.is_dir():
            raise ParameterError(f"{refused} a file, and is a folder")
        if os.path.lexists(path) and not replace:
            raise ParameterError(f"{refused} a new file, or --force be given")
        _check_writable(real)
        str(path).encode()
    except OSError as error:
        raise ParameterError(f"{refused} a file that can be written ({error.strerror})") from None
    except UnicodeEncodeError:
        raise ParameterError(f"{refused} a name in UTF-8") from None


def _check_writable(path: Path) -> None:
    """Raise the OSError that creating ``path`` would, but create nothing."""
    folder = next(parent for parent in path.parents if parent.exists())
    for part in path.relative_to(folder).parts:
        with contextlib.suppress(FileNotFoundError):
            (folder / part).lstat()  # says what is wrong with the name
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if not path.exists():
        with tempfile.TemporaryFile(dir=folder):  # it has no name: /proc lets even root make no file
            pass
