"""What commands withstand: counted by `make faults`, recorded in results/faults.json, shown on a page of the book."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gsae_book.runs.recording import to_json
from gsae_lib._files import replace_file

FOUND = Path("results/faults.json")
NUMBERS: Mapping[str, str] = {
    "numbers": "Numbers",
    "equal": "Equal to the last bit",
    "within 1e-9": "Within 1e-9",
    "within 1e-6": "1e-6",
    "within 1e-3": "1e-3",
    "farther": "Farther",
}
# The columns of each part's table: the field of a row, and its title.
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "kills": {
        "command": "Command",
        "kills": "Kills",
        "of_driver": "Of the command's own process",
        "resumed": "Resumed to the same end",
        "wrong": "Wrong",
    },
    "pairs": {"commands": "Two at once", "times": "Times", "refused": "One was refused", "wrong": "Wrong"},
    "inputs": {
        "family": "Input",
        "cases": "Cases",
        "one line": "Ended in one line",
        "handled": "Usable after all",
        "wrong": "Wrong",
    },
    "tables": {"file": "File", "found": "What came of it"},
    "repeats": {"variant": "The same seed", **NUMBERS},
    "versions": {"variant": "Another torch", **NUMBERS},
}


def write_part(part: str, rows: Sequence[Mapping[str, Any]], root: Path, *, run: Mapping[str, Any]) -> None:
    """Replace the ``part`` of results/faults.json, and leave the others; ``run`` is what there is to know about it."""
    path = root / FOUND
    kept = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    content = kept | {part: {"about": run, "rows": list(rows)}}
    replace_file(path, to_json({name: content[name] for name in COLUMNS if name in content}, indent=1) + "\n")


def fault_table(part: str, root: Path) -> str:
    """Return Markdown for ``book/faults.md`` of what `write_part` wrote: sums, or each odd table."""
    path = root / FOUND
    content = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    if part not in content:
        return "Not counted yet.\n"
    found, columns = content[part], COLUMNS[part]
    run = found["about"]
    counted = f"Counted on {run['date']} at commit {run['commit']}, on {run['processor']}, seed {run['seed']}."
    if part == "tables":
        lines = ["| " + " | ".join(columns.values()) + " |", "| --- | --- |"]
        for row in found["rows"]:
            code = [_code(row[name]) for name in ("holds", "given") if row[name]]
            lines.append(f"| {'<br>'.join([_text(row['file']), *code])} | {_text(row['found'])} |")
        return "\n".join([*lines, "", counted]) + "\n"
    first, *others = columns
    sums: dict[str, list[int]] = {}
    for row in found["rows"]:
        values = [len(row[name]) if isinstance(row[name], list) else row[name] for name in others]
        sums[row[first]] = [a + b for a, b in zip(sums.get(row[first], [0] * len(others)), values, strict=True)]
    total = [sum(column) for column in zip(*sums.values(), strict=True)]
    lines = ["| " + " | ".join(columns.values()) + " |", "| --- |" + " ---: |" * len(others)]
    rows = [*sums.items()] + ([("All", total)] if part not in ("repeats", "versions") else [])
    lines += ["| " + " | ".join([name, *map(str, values)]) + " |" for name, values in rows]
    lines += ["", counted]
    told = [f"`{row['notebook']}`, {row['variant']}: {one}" for row in found["rows"] for one in row.get("far", ())]
    told += [f"{row[first]}: {one}" for row in found["rows"] for one in row.get("wrong", ())]
    lines += ["", *(f"* {one}" for one in told)] if told else []
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Text as Markdown in a cell of a table."""
    for mark in "\\|<*`$_":
        text = text.replace(mark, "&lt;" if mark == "<" else f"\\{mark}")
    return text


def _code(text: str) -> str:
    """Code as Markdown in a cell of a table, with marks for ends of lines and tabs."""
    visible = text.replace("\r", "\u240d").replace("\n", "\u21b5").replace("\t", "\u21e5").replace("|", "\\|")
    return f"`{visible}`"
