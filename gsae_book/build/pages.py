"""Pages: Sphinx through jupyter-book, the table of runs behind a book, and the small book of single runs.

``python -m gsae_book.build.pages`` is the child process that builds: Sphinx keeps state for as long as
its process lives.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gsae_book.runs.execution import RunRecord, read_run
from gsae_book.runs.files import locked
from gsae_book.runs.processes import follow
from gsae_book.runs.recording import format_value

MATHJAX = "tex-chtml.js"  # the bundle that Sphinx's pages load
# What declares a label of an equation, an exercise or a place in a cell of text.
LABEL = re.compile(r"\$\$ \(([\w-]+)\)\s*$|^:label: ([\w-]+)\s*$|^\(([\w-]+)\)=\s*$", re.MULTILINE)
# A run's page cites the theory, so its book carries these pages along.
CITED_PAGES = ("theory.md", "notation.md", "glossary.md", "references.md", "references.bib")


class PageError(RuntimeError):
    """A run whose page could not be built; the message says why."""


def build_html(source: Path, html: Path, doctrees: Path, *, strict: bool = True) -> bool:
    """Build the staged book at ``source`` into ``html`` and say whether that succeeded.

    ``strict`` makes each warning an error (all are shown before it fails) and checks every reference.
    """
    command = [sys.executable, "-m", "gsae_book.build.pages", str(source), str(html), str(doctrees), str(os.getpid())]
    command += ["--strict"] if strict else []
    # In a session of its own, Ctrl-C does not reach it: this process, which it does reach, ends it.
    if subprocess.run(command, check=False, start_new_session=True).returncode != 0:
        return False
    for file in (source / "_static").glob("*"):  # Sphinx copies them only when a page has changed
        copy_if_changed(file, html / "_static" / file.name)
    for file in (html / "_static" / "mathjax").glob("*.js"):  # 14 MB of other bundles, which no page loads
        if file.name != MATHJAX:
            file.unlink()
    return True


def status_table(profile: str, runs: Mapping[str, RunRecord]) -> str:
    """Return Markdown, beside ``book/status.md``: one row a run, one for all, and the versions that they ran with."""
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
    memories = [run.peak_memory_mib for run in runs.values() if run.peak_memory_mib is not None]
    largest = f"{max(memories):.0f}" if memories else "unknown"
    seconds = sum(run.seconds for run in runs.values())
    lines.append(f"| *all: sum, largest* | {profile} | {seconds:.1f} | {largest} | | | |")
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


def publish_run(root: Path, out: Path) -> Path:
    """Add the run at ``out`` to the book of runs under ``_build/runs`` and return the address of its page.

    Raises: PageError where jupyter-book is not installed, ``root`` is no project, or Sphinx fails on the page, which
    is then not among the others.
    """
    if importlib.util.find_spec("jupyter_book") is None:
        raise PageError("jupyter-book is not installed: pip install -e '.[book]'")
    if not (root / "_config.yml").is_file():
        raise PageError(f"{root} is not the folder of a project: it has no _config.yml")
    build = root / "_build" / "runs"
    source = build / "source"
    page = source / "runs" / f"{_page_name(out.stem)}.ipynb"
    with locked(build / ".lock", waiting="another page of a run is being built; waiting for it"):
        for name in ("_config.yml", *(f"book/{page}" for page in CITED_PAGES)):
            if (root / name).is_file():
                copy_if_changed(root / name, source / name)
        for file in sorted((root / "_static").rglob("*.*")):
            copy_if_changed(file, source / file.relative_to(root))
        write_if_changed(page, _with_own_labels(out.read_text(encoding="utf8"), page.stem))
        copy_if_changed(out.with_suffix(".json"), page.with_suffix(".json"))
        runs = {path.stem: read_run(path) for path in sorted((source / "runs").glob("*.ipynb"))}
        complete = {stem: run for stem, run in runs.items() if run is not None and stem == _page_name(stem)}
        write_if_changed(source / "index.md", _runs_index(complete))
        pages = [f"book/{page}" for page in CITED_PAGES if page.endswith(".md") and (source / "book" / page).is_file()]
        files = "".join(f"  - file: {page}\n" for page in [*(f"runs/{stem}.ipynb" for stem in complete), *pages])
        write_if_changed(source / "_toc.yml", f"format: jb-book\nroot: index\nchapters:\n{files}")
        if not build_html(source, build / "html", build / "doctrees", strict=False):
            page.unlink()
            shutil.rmtree(build / "doctrees", ignore_errors=True)
            raise PageError("Sphinx failed; its messages are above")
    return build / "html" / "runs" / f"{page.stem}.html"


def _with_own_labels(notebook: str, page: str) -> str:
    """Return the text of ``notebook`` with ``page`` in its labels: pages of two runs of one notebook share none."""
    content = json.loads(notebook)
    cells = content.get("cells", [])
    texts = {k: "".join(cell["source"]) for k, cell in enumerate(cells) if cell["cell_type"] == "markdown"}
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in cells]
    labels = {label for text in texts.values() for groups in LABEL.findall(text) for label in groups if label}
    labels |= {figure["name"] for figure in figures if "name" in figure}
    if labels:
        own = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(labels)))})(?![\w-])")
        for k, text in texts.items():
            cells[k]["source"] = own.sub(rf"\1-{page}", text)
        for figure in figures:
            if "name" in figure:
                figure["name"] += f"-{page}"
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _page_name(stem: str) -> str:
    """Return ``stem``, or a name made from it that means nothing to YAML, Markdown and Sphinx."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", stem):
        return stem
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)}-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"


def _runs_index(runs: Mapping[str, RunRecord]) -> str:
    lines = ["# Runs", "", "| Run | Notebook | Date | Seconds | Measured |", "| --- | --- | --- | ---: | --- |"]
    for stem, run in runs.items():
        measured = "; ".join(f"{name} = {format_value(**metric)}" for name, metric in run.metrics.items())
        cells = [f"[{stem}](runs/{stem}.ipynb)", run.notebook, run.date, f"{run.seconds:.1f}", measured]
        lines.append("| " + " | ".join(map(table_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def table_cell(text: str) -> str:
    """Return ``text`` as it may stand in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")


def _main() -> int:
    parser = argparse.ArgumentParser(description="Build the HTML pages of a staged book.")
    parser.add_argument("source", type=Path)
    parser.add_argument("html", type=Path)
    parser.add_argument("doctrees", type=Path)
    parser.add_argument("parent", type=int)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    follow(options.parent)  # before the imports, which take seconds
    from jupyter_book.sphinx import build_sphinx

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
        | ({} if options.strict else {"suppress_warnings": ["myst.domains", "myst.xref_missing", "ref.eq"]}),
        warningiserror=options.strict,
        keep_going=options.strict,
        quiet=True,
    )
    return 0 if status == 0 else 1


if __name__ == "__main__":
    sys.exit(_main())
