"""``python -m faults``: count what commands do when they are ended, doubled or fed badly; into results/faults.json."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from built_site import ROOT

from faults.bad_inputs import SOUND, make_cases, run_bad_inputs
from faults.kills import run_kills
from faults.pairs import run_pairs
from faults.repeats import run_repeats, run_versions
from faults.tables import run_tables
from gsae_book.build.faults import write_part
from gsae_book.runs.environment import about

PARTS = ("kills", "pairs", "inputs", "tables", "repeats", "versions")


def rows_of(part: str, seed: int, share: float, other: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part, with that share of its cases."""
    rng, say = random.Random(seed), click.echo
    if part == "kills":
        yield from run_kills(rng, say, share)
    elif part == "pairs":
        yield from run_pairs(rng, say, share)
    elif part == "inputs":
        yield from _by_family(seed, share)
    elif part == "tables":
        yield from run_tables()
    elif part == "repeats":
        yield from run_repeats(say)
    elif part == "versions" and other:
        yield from run_versions(say, other)


def _by_family(seed: int, share: float) -> Iterator[dict[str, Any]]:
    """Yield for each family of bad inputs how many cases there are, what came of them, and what is wrong."""
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="gsae-faults-") as folder:
        n_cases = None if share >= 1 else max(1, round(share * len(make_cases(seed))))
        for outcome in run_bad_inputs(Path(folder), seed, progress=True, n_cases=n_cases):
            row = rows.setdefault(outcome.family, {"family": outcome.family, "cases": 0, "one line": 0, "handled": 0})
            row["cases"] += 1
            if outcome.verdict in SOUND:
                row[outcome.verdict] += 1
            else:
                row.setdefault("wrong", []).append(f"{outcome.name}: {outcome.verdict}: {outcome.message[:300]}")
    yield from ({**row, "wrong": row.get("wrong", [])} for row in rows.values())


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--seed", default=0, show_default=True)
@click.option("--share", default=1.0, show_default=True, help="Of the cases; below 1 nothing is written.")
@click.option("--other", metavar="PYTHON", help="Of an environment with another torch, for versions.")
def main(parts: tuple[str, ...], seed: int, share: float, other: str | None) -> None:
    """Run PARTS, or all, and write what was found; exit code 1 if anything is wrong."""
    n_wrong, run = 0, about() | {"seed": seed}  # of the commit before the first part is written
    if "versions" in parts and not other:
        raise click.UsageError("versions needs --other")
    for part in parts or (PARTS if other else PARTS[:-1]):
        rows = list(rows_of(part, seed, share, other))
        n_wrong += sum(len(row.get("wrong", ())) for row in rows)
        for row in rows:
            for one in row.get("wrong", ()):
                click.echo(f"WRONG: {row}: {one}"[:1000])
        if share >= 1:
            write_part(part, rows, ROOT, run=run)
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
