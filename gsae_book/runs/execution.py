"""Run one notebook, keep what it leaves, and bring a new text to outputs that are kept."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gsae_book.runs.environment import commit, find_root, versions
from gsae_book.runs.kernel import NotebookError, clean, execute, to_text
from gsae_book.runs.keys import notebook_key
from gsae_book.runs.parameters import ParameterError, check_values, read_parameters, shown
from gsae_book.runs.recording import collect_metrics, to_json
from gsae_lib._files import replace_file

EXECUTED = ("kernelspec", "language_info", "widgets")  # metadata of a notebook that its execution writes


@dataclass(frozen=True)
class RunRecord:
    """What one run of a notebook left: the content of its JSON file."""

    notebook: str
    output: str
    key: str
    parameters: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    seeds: dict[str, Any]
    versions: dict[str, str]
    device: str
    peak_memory_mib: float | None
    commit: str | None
    date: str
    seconds: float


def run_notebook(
    path: Path,
    out: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    root: Path | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> RunRecord:
    """Execute the notebook ``path`` with checked ``parameters`` into ``out``, and write ``out``'s JSON beside it.

    The kernel starts in ``root`` (the project's folder) with ``threads`` computing threads (None: as many as it
    likes). The notebook is moved to ``out`` in one step once it has succeeded; a failed one is kept as
    ``*.failed.ipynb``, and ``out`` is as it was.

    Raises: ParameterError before any kernel starts, also for a file that is not in the format of notebooks;
    NotebookError if a cell fails.
    """
    path, out = Path(path), Path(out)
    root = find_root() if root is None else Path(root)
    values = check_values(read_parameters(path), parameters or {})
    key = notebook_key(path, values, root, parameters or ())
    source = _checksum(path)
    _check_format(path)
    given = {name: values[name] for name in parameters or {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_suffix(".failed.ipynb")
    date, start = datetime.now(UTC), time.perf_counter()
    notebook, process = execute(path, given, failed, root=root, threads=threads, progress=progress)
    seconds = time.perf_counter() - start
    try:
        metrics = collect_metrics(notebook.cells)
    except ValueError as error:
        raise NotebookError(f"{path.name}: {error}") from error
    record = RunRecord(
        notebook=path.name,
        output=out.name,
        key=key,
        parameters=values,
        metrics=metrics,
        seeds={name: value for name, value in values.items() if "seed" in name},
        versions=versions(),
        device=process["device"],
        peak_memory_mib=process["peak_memory_mib"],
        commit=commit(root),
        date=date.strftime("%Y-%m-%d %H:%M UTC"),
        seconds=round(seconds, 2),
    )
    notebook.metadata["gsae"] = {"key": key, "source": source, "success": True}
    # The notebook comes last: it is what says that the run is complete.
    replace_file(out.with_suffix(".json"), to_json(asdict(record), indent=2) + "\n")
    replace_file(out, to_text(notebook))
    failed.unlink(missing_ok=True)
    return record


def read_run(out: Path, key: str | None = None) -> RunRecord | None:
    """Return the record of the complete run at ``out``, or None without one, or if its key is not ``key``."""
    try:
        state = json.loads(out.read_text(encoding="utf8"))["metadata"]["gsae"]
        record = RunRecord(**json.loads(out.with_suffix(".json").read_text(encoding="utf8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = state.get("success") is True and state.get("key") == record.key
    return record if complete and key in (None, record.key) else None


def update_text(path: Path, out: Path) -> bool:
    """Give the complete run at ``out`` the text of its notebook ``path``, and say whether that was another one.

    All but the outputs comes from ``path``: Markdown cells, comments in code, captions. The key, which has to be the
    same, says that the code is, so that the outputs of its cells are kept, in order.
    """
    import nbformat

    executed = nbformat.read(out, as_version=4)
    state = executed.metadata["gsae"]
    source = _checksum(path)
    if state.get("source") == source:
        return False
    notebook = nbformat.read(path, as_version=4)
    tagged = {tag: k for k, cell in enumerate(notebook.cells) for tag in cell.metadata.get("tags", [])}
    kept = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in kept if "injected-parameters" in cell.metadata.get("tags", [])]
    if injected:
        notebook.cells[tagged["parameters"] + 1 : tagged["parameters"] + 1] = injected
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, old in zip(cells, kept, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    made = {name: executed.metadata[name] for name in EXECUTED if name in executed.metadata}
    notebook.metadata |= made | {"gsae": state | {"source": source}}
    clean(notebook)
    replace_file(out, to_text(notebook))
    return True


def _check_format(path: Path) -> None:
    """Return if ``path`` is a notebook by the letter.

    Raises: ParameterError otherwise.
    """
    import nbformat

    try:
        with warnings.catch_warnings(action="ignore"):  # it mends what it warns of
            nbformat.validate(nbformat.read(path, as_version=4))
    except Exception as error:  # whatever its readers make of it
        reason = str(getattr(error, "message", "") or error) or type(error).__name__
        raise ParameterError(f"{path} is not a notebook: {shown(reason.splitlines()[0])}") from None


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_notebook(name: str, root: Path) -> Path:
    """Return the notebook at the path ``name``, or the one in ``root``/notebooks of that name or number.

    Raises: ParameterError if there is none.
    """
    if name.endswith(".ipynb") and os.path.isfile(name):
        return Path(name)
    known = sorted((root / "notebooks").glob("*.ipynb"))
    number = f"{int(name):02d}" if name.isdecimal() and len(name) < 10 else name
    for path in known:
        if number in (path.name, path.stem, path.stem.split("_")[0]):
            return path
    listed = ", ".join(path.stem for path in known) or f"none in {root / 'notebooks'}"
    raise ParameterError(f"there is no notebook {name[:100]!r}; known are {listed}")
