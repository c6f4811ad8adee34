"""Pages: Sphinx through jupyter-book, the table of runs behind a book, and the small book of single runs.

``python -m gsae_lib.runs.pages SOURCE HTML`` is the child process that builds: Sphinx keeps state for as long as
its process lives.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gsae_lib.runs.execution import RunRecord, read_run
from gsae_lib.runs.recording import format_value

# A run's page cites the theory, so its book carries these pages along.
CITED_PAGES = ("theory.md", "notation.md", "references.md", "references.bib")


def build_html(source: Path, html: Path, doctrees: Path, *, strict: bool = True) -> bool:
    """Build the staged book at ``source`` into ``html`` and say whether that succeeded.

    ``strict`` makes each warning an error (all are shown before it fails) and checks every reference.
    """
    command = [sys.executable, "-m", "gsae_lib.runs.pages", str(source), str(html), str(doctrees)]
    if subprocess.run([*command, "--strict"] if strict else command, check=False).returncode != 0:
        return False
    for file in (source / "_static").glob("*"):  # Sphinx copies them only when a page has changed
        copy_if_changed(file, html / "_static" / file.name)
    return True


def status_table(profile: str, runs: Mapping[str, RunRecord]) -> str:
    """Return Markdown, beside ``book/status.md``: one row a run, and the versions that they ran with."""
    lines = [
        "| Notebook | Profile | Seconds | Memory (MiB) | Date | Commit | Device |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    versions: dict[str, set[str]] = {}
    for name, run in runs.items():
        memory = "unknown" if run.peak_memory_mib is None else f"{run.peak_memory_mib:.0f}"
        cells = [
            f"[{name}](../notebooks/{name}.ipynb)", profile, f"{run.seconds:.1f}", memory,
            run.date, run.commit or "no commit", run.device,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
        for package, version in run.versions.items():
            versions.setdefault(package, set()).add(version)
    lines += ["", "| Package | Version |", "| --- | --- |"]
    lines += [f"| {package} | {', '.join(sorted(found))} |" for package, found in versions.items()]
    return "\n".join(lines) + "\n"


def write_if_changed(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` unless it is there already: Sphinx reads again whatever is newer."""
    if not path.is_file() or path.read_text(encoding="utf8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")


def copy_if_changed(file: Path, target: Path) -> None:
    """Copy ``file`` to ``target`` unless the same bytes are there already."""
    if not target.is_file() or target.read_bytes() != file.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def publish_run(root: Path, out: Path) -> Path | None:
    """Add the run at ``out`` to the book of runs under ``_build/runs`` and return the address of its page.

    None where jupyter-book is not installed or the pages could not be built.
    """
    if importlib.util.find_spec("jupyter_book") is None:
        return None
    build = root / "_build" / "runs"
    source = build / "source"
    with _lock(build / ".lock"):
        for name in ("_config.yml", *(f"book/{page}" for page in CITED_PAGES)):
            if (root / name).is_file():
                copy_if_changed(root / name, source / name)
        for file in sorted((root / "_static").rglob("*.*")):
            copy_if_changed(file, source / file.relative_to(root))
        for suffix in (".ipynb", ".json"):
            copy_if_changed(out.with_suffix(suffix), source / "runs" / (out.stem + suffix))
        runs = {path.stem: read_run(path) for path in sorted((source / "runs").glob("*.ipynb"))}
        complete = {stem: run for stem, run in runs.items() if run is not None}
        write_if_changed(source / "index.md", _runs_index(complete))
        pages = [f"book/{page}" for page in CITED_PAGES if page.endswith(".md") and (source / "book" / page).is_file()]
        files = "".join(f"  - file: {page}\n" for page in [*(f"runs/{stem}.ipynb" for stem in complete), *pages])
        write_if_changed(source / "_toc.yml", f"format: jb-book\nroot: index\nchapters:\n{files}")
        if not build_html(source, build / "html", build / "doctrees", strict=False):
            return None
    return build / "html" / "runs" / f"{out.stem}.html"


def _runs_index(runs: Mapping[str, RunRecord]) -> str:
    lines = ["# Runs", "", "| Run | Notebook | Date | Seconds | Measured |", "| --- | --- | --- | ---: | --- |"]
    for stem, run in runs.items():
        measured = "; ".join(f"{name} = {format_value(**metric)}" for name, metric in run.metrics.items())
        cells = [f"[{stem}](runs/{stem}.ipynb)", run.notebook, run.date, f"{run.seconds:.1f}", measured]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time build the book of runs (where the system has file locks)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _main() -> int:
    from jupyter_book.sphinx import build_sphinx

    parser = argparse.ArgumentParser(description="Build the HTML pages of a staged book.")
    parser.add_argument("source", type=Path)
    parser.add_argument("html", type=Path)
    parser.add_argument("doctrees", type=Path)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    # What `jupyter-book build -W -n --keep-going` passes on; its own --path-output always adds a `_build` folder. Pages
    # of runs refer to chapters that are not among them, and say nothing about it.
    status = build_sphinx(
        options.source.resolve(),
        options.html.resolve(),
        doctreedir=options.doctrees.resolve(),
        noconfig=True,
        path_config=options.source.resolve() / "_config.yml",
        confoverrides={
            "external_toc_path": os.fspath(options.source.resolve() / "_toc.yml"),
            "latex_individualpages": False,
            "nitpicky": options.strict,
        }
        | ({} if options.strict else {"suppress_warnings": ["myst.domains", "myst.xref_missing"]}),
        warningiserror=options.strict,
        keep_going=options.strict,
        quiet=True,
    )
    return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(_main())
