"""``python -m mutants``: break the mathematics of a copy of the library, over and over; its tests must see it."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import click
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("gsae_lib", "tests", "pyproject.toml")
IMPORTED = ("pytest", "torch", "scipy.optimize", "sklearn.cluster", "hypothesis", "numba")  # once, and not once a run
NOT_RUN = 99  # exit code where the copy is not what is imported, or cannot be
LIMIT = 300.0  # seconds that the tests of one mutant may take; a mutant that hangs is killed, too
OPTIONS = ("-x", "-q", "--no-header", "--tb=no", "--no-summary", "-p", "no:cacheprovider", "--hypothesis-seed=0")


@dataclass(frozen=True)
class Mutant:
    """A mistake: in `file`, `old`, which is there once, becomes `new`; a test of `killed_by` fails then."""

    name: str
    file: str
    old: str
    new: str
    killed_by: tuple[str, ...]
    about: str

    @property
    def is_stale(self) -> bool:
        """Whether the file does not hold `old` exactly once."""
        path = ROOT / self.file
        return not path.is_file() or path.read_text("utf-8").count(self.old) != 1


def read_mutants() -> list[Mutant]:
    """The mutants of the files beside this one."""
    rows = [row for path in sorted(HERE.glob("*.yaml")) for row in yaml.safe_load(path.read_text("utf-8"))]
    return [Mutant(**row | {"killed_by": tuple(row["killed_by"])}) for row in rows]


def run_tests(copy: Path, tests: Sequence[str]) -> int | None:
    """The exit code of pytest over tests of the copy, or None if it takes too long."""
    process = multiprocessing.get_context("fork").Process(target=_run_here, args=(copy, tests))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _run_here(copy: Path, tests: Sequence[str]) -> None:
    """In a forked process: import the library from the copy, run the tests, exit with their code."""
    code = NOT_RUN
    try:
        os.chdir(copy)
        sys.path[:0] = paths = [str(copy), str(copy / "tests")]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        if Path(importlib.import_module("gsae_lib").__file__ or "").is_relative_to(copy):
            code = importlib.import_module("pytest").main([*OPTIONS, *tests])
    finally:
        os._exit(code)


def judge(mutant: Mutant, copy: Path) -> str:
    """Break the copy, run the tests that should see it, and mend it: killed, survived, stale, or another exit code."""
    if mutant.is_stale:
        return "stale"
    path = copy / mutant.file
    text = path.read_text("utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        code = run_tests(copy, mutant.killed_by)
    finally:
        path.write_text(text, "utf-8")
    return {1: "killed", None: "killed", 0: "survived"}.get(code, f"broken (exit code {code})")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--only", metavar="FILE", help="Mutants of one file, as in gsae_lib/groups.py.")
def main(names: tuple[str, ...], only: str | None) -> None:
    """Run the mutants NAMES, or all; exit code 1 if one survives, or is no longer in the source."""
    mutants = [m for m in read_mutants() if (not names or m.name in names) and only in (None, m.file)]
    if missing := set(names) - {m.name for m in mutants}:
        raise click.UsageError(f"NAMES={sorted(missing)}: no such mutants")
    if not mutants:
        raise click.UsageError(f"only={only}: no mutant of this file")
    sys.dont_write_bytecode = True  # two texts of one length, written in one second, would look alike
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(prefix="gsae-mutants-") as folder:
        copy = Path(folder).resolve()
        os.environ["NUMBA_CACHE_DIR"] = str(copy / "numba")
        for name in COPIED:
            source = ROOT / name
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
        for name in IMPORTED:
            importlib.import_module(name)
        for path, tests in groupby(sorted({x for m in mutants for x in m.killed_by}), lambda test: test.split("::")[0]):
            if (code := run_tests(copy, list(tests))) != 0:
                raise click.ClickException(f"{path}: a test fails without a mutant (exit code {code})")
        counts: Counter[str] = Counter()
        for mutant in mutants:
            clock = time.perf_counter()
            verdict = judge(mutant, copy)
            counts[verdict.split()[0]] += 1
            click.echo(f"{verdict:<9} {mutant.name:<32} {time.perf_counter() - clock:5.1f} s  {mutant.about}")
    click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    sys.exit(0 if counts["killed"] == len(mutants) else 1)


if __name__ == "__main__":
    main()
