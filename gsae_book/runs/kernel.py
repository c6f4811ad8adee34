"""Execute one notebook in a fresh kernel: what decides its outputs, and therefore a part of every notebook's key."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from gsae_lib._files import replace_file

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Runs last in the kernel, so that device and memory are those of the process that computed; it is then removed.
PROBE = """\
import json as _json
from gsae_book.runs.environment import describe_process as _describe_process
print(_json.dumps(_describe_process()))"""


class NotebookError(RuntimeError):
    """A notebook whose execution failed; the message holds the failing cell and its error."""


def execute(
    path: Path, given: Mapping[str, Any], failed: Path, *, root: Path, threads: int | None, progress: bool
) -> tuple[Any, dict[str, Any]]:
    """Return the notebook ``path`` executed in ``root`` with the ``given`` values, cleaned, and the kernel's report.

    Raises: NotebookError if a cell fails or the kernel dies; the failed notebook is then at ``failed``.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    notebook = nbformat.read(path, as_version=4)
    inject(notebook, given)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    with tempfile.TemporaryDirectory() as folder, _environment(threads):
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
            clean(notebook)
            return notebook, json.loads(probe.outputs[0].text)
        except DeadKernelError:
            raise NotebookError(f"{path.name}: the kernel died; it may have run out of memory") from None
        except papermill.PapermillExecutionError as error:
            failing = nbformat.read(running, as_version=4)
            failing.cells.pop()
            clean(failing)
            replace_file(failed, to_text(failing))
            traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback[-2:]))
            raise NotebookError(
                f"{path.name}, cell {error.cell_index + 1} of {len(failing.cells)} failed (kept in {failed}):\n"
                f"{traceback.strip()}"
            ) from None


def inject(notebook: Any, given: Mapping[str, Any]) -> None:
    """Put the given values after the parameters cell, as papermill does but for any checked type."""
    import nbformat

    if not given:
        return
    source = "\n".join(["# Parameters of this run", *(f"{name} = {value!r}" for name, value in given.items())])
    label = "Parameters of this run"
    labels = {"code_prompt_show": label, "code_prompt_hide": label}
    metadata = {"tags": ["injected-parameters", "hide-input"], "mystnb": labels}
    cell = nbformat.v4.new_code_cell(source, id="injected-parameters", metadata=metadata)
    index = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    notebook.cells.insert(index + 1, cell)


def clean(notebook: Any) -> None:
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


def to_text(notebook: Any) -> str:
    import nbformat

    return nbformat.writes(notebook) + "\n"


@contextlib.contextmanager
def _environment(threads: int | None) -> Iterator[None]:
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
