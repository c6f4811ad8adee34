"""Odd files that are given to `read_table`: how each is read, or the one line that refuses it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odd_tables import READ, REFUSED, write_odd

from gsae_book.data import read_table

SHOWN = 40  # characters of a file, at most


def run_tables() -> Iterator[dict[str, Any]]:
    """Yield for each odd file how it begins, what came of it, and what of that is wrong."""
    for case in (*READ, *REFUSED):
        name, content, arguments = (READ[case] if case in READ else REFUSED[case])[:3]
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        with tempfile.TemporaryDirectory(prefix="gsae-faults-") as folder:
            path = write_odd(Path(folder), name, content)
            try:
                table = read_table(path, **arguments)
                notes = [note.strip() for note in table.notes]
                found, refused = "; ".join(notes), False
            except ValueError as error:
                found, refused = str(error).removeprefix(f"path={str(path)!r}: "), True
        wrong = [] if refused == (case in REFUSED) and "\n" not in found else [found]
        holds = content if isinstance(content, str) else ""
        row = {"file": case, "name": name, "holds": holds[:SHOWN] + "..." * (len(holds) > SHOWN), "given": given}
        yield row | {"refused": refused, "found": found, "wrong": wrong}
