"""Run one notebook: its key, its execution by papermill, and the record that it leaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from gsae_book.environment import commit, find_root, hash_files, library_sources, versions
from gsae_book.parameters import check_values, read_cells, read_parameters
from gsae_book.recording import collect_metrics, to_json
from gsae_lib.data_files import DATASETS, data_checksum

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Runs last in the kernel, so that device and memory are those of the process that computed; it is then removed.
PROBE = """\
import json as _json
from gsae_book.environment import describe_process as _describe_process
print(_json.dumps(_describe_process()))"""


class NotebookError(RuntimeError):
    """A notebook whose execution failed; the message holds the failing cell and its error."""


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

    Raises: ParameterError before any kernel starts; NotebookError if a cell fails.
    """
    path, out = Path(path), Path(out)
    root = find_root() if root is None else Path(root)
    values = check_values(read_parameters(path), parameters or {})
    key = notebook_key(path, values)
    given = {name: values[name] for name in parameters or {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_suffix(".failed.ipynb")
    if progress:
        import tqdm.auto  # noqa: F401  (reads TQDM_DISABLE when first imported; that is meant for the kernel alone)
    date, start = datetime.now(UTC), time.perf_counter()
    with _kernel_environment(threads):
        notebook, process = _execute(path, given, failed, root, progress)
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
    notebook.metadata["gsae"] = {"key": key, "success": True}
    # The notebook comes last: it is what says that the run is complete.
    _write(out.with_suffix(".json"), to_json(asdict(record), indent=2) + "\n")
    _write(out, _to_text(notebook))
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


def notebook_key(path: Path, values: Mapping[str, Any]) -> str:
    """Return the sha256 of all that decides the outputs of ``path`` run with the checked ``values``.

    That is its cells, the values, every source file of the library, the versions of the packages, and the
    checksum of each data set, and of each file or folder of the project, that a value names.
    """
    cells = [[c["cell_type"], c["source"], c.get("metadata", {})] for c in read_cells(path)]
    sources = library_sources()
    parts = {
        "cells": cells,
        "parameters": dict(values),
        "library": hash_files(sources, sources[0].parent),
        "versions": versions(),
        "data": _data_checksums(values, find_root(path.parent)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _data_checksums(values: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Return the checksum of each data set, file or folder in ``root`` that a value, or its item, names."""
    items = [item for v in values.values() for item in (v if isinstance(v, list | tuple) else [v])]
    texts = {item for item in items if isinstance(item, str)}
    files = {text: hash_files([root / text], (root / text).parent) for text in texts if os.path.isfile(root / text)}
    for text in texts:  # not root itself, nor a folder of the system: they would take minutes
        if os.path.isdir(root / text) and root.resolve() in (root / text).resolve().parents:
            files[text] = hash_files(sorted(f for f in (root / text).rglob("*") if f.is_file()), root / text)
    return files | {name: data_checksum(name) for name in texts & DATASETS.keys()}


def _execute(
    path: Path, given: Mapping[str, Any], failed: Path, root: Path, progress: bool
) -> tuple[Any, dict[str, Any]]:
    """Return the executed notebook, cleaned, and what its kernel said of itself."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    notebook = nbformat.read(path, as_version=4)
    _inject(notebook, given)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    with tempfile.TemporaryDirectory() as folder:
        running = os.path.join(folder, "running.ipynb")
        nbformat.write(notebook, running)
        # papermill formats paths: a brace in a folder's name has to be doubled.
        target = running.replace("{", "{{").replace("}", "}}")
        try:
            notebook = papermill.execute_notebook(
                target,
                target,
                kernel_name="python3",
                cwd=root,
                progress_bar=progress,
                start_timeout=120,
                extra_arguments=["--log-level=CRITICAL"],
            )
            probe = notebook.cells.pop()
            _clean(notebook)
            return notebook, json.loads(probe.outputs[0].text)
        except DeadKernelError:
            raise NotebookError(f"{path.name}: the kernel died; it may have run out of memory") from None
        except papermill.PapermillExecutionError as error:
            failing = nbformat.read(running, as_version=4)
            failing.cells.pop()
            _clean(failing)
            _write(failed, _to_text(failing))
            traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback[-2:]))
            raise NotebookError(
                f"{path.name}, cell {error.cell_index + 1} of {len(failing.cells)} failed (kept in {failed}):\n"
                f"{traceback.strip()}"
            ) from None


def _inject(notebook: Any, given: Mapping[str, Any]) -> None:
    """Put the given values after the parameters cell, as papermill does but for any checked type."""
    import nbformat

    if not given:
        return
    source = "\n".join(["# Parameters of this run", *(f"{name} = {value!r}" for name, value in given.items())])
    metadata = {"tags": ["injected-parameters", "hide-input"]}
    cell = nbformat.v4.new_code_cell(source, id="injected-parameters", metadata=metadata)
    index = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    notebook.cells.insert(index + 1, cell)


def _clean(notebook: Any) -> None:
    """Remove what changes from one execution to the next: papermill's notes, times, addresses, pieces of streams."""
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        for output in cell.get("outputs", ()):
            if "text/plain" in output.get("data", {}):  # an object's address, which nbval.cfg does not compare either
                output.data["text/plain"] = re.sub(r"\b0x[0-9a-f]{6,}", "0x000000", output.data["text/plain"])
        if "outputs" in cell:
            cell.outputs = _merge_streams(cell.outputs)


def _merge_streams(outputs: Iterable[Any]) -> list[Any]:
    """Return the outputs with what is printed between two others in one piece, stdout first: pieces come by chance."""
    import nbformat

    merged = []
    for printed, group in groupby(outputs, key=lambda output: output.output_type == "stream"):
        pieces = list(group)
        if not printed:
            merged += pieces
            continue
        for name in ("stdout", "stderr"):
            if text := "".join(piece.text for piece in pieces if piece.name == name):
                merged.append(nbformat.v4.new_output("stream", name=name, text=text))
    return merged


def _to_text(notebook: Any) -> str:
    import nbformat

    return nbformat.writes(notebook) + "\n"


def _write(path: Path, text: str) -> None:
    """Write ``path`` in one step: a reader sees the old file or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf8")
    os.replace(temporary, path)


@contextlib.contextmanager
def _kernel_environment(threads: int | None) -> Iterator[None]:
    """Set what the kernel inherits: its threads, figures drawn inline, no progress bars in a page."""
    before = dict(os.environ)
    os.environ.pop("MPLBACKEND", None)
    os.environ["TQDM_DISABLE"] = "1"
    if threads is not None:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
