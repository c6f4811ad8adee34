"""The whole book: stage its sources, execute the notebooks that changed, build the pages with warnings as errors.

``python -m gsae_book.build.book [--profile default|smoke|paper] [--jobs 2]``
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

from gsae_book.build.claims import Claim, read_claims, verdict_table
from gsae_book.build.coverage import coverage_table
from gsae_book.build.faults import COLUMNS as FAULTS
from gsae_book.build.faults import fault_table
from gsae_book.build.home import MODES, draw_start, new_lines, start_angles
from gsae_book.build.pages import build_html, copy_if_changed, status_table, write_if_changed
from gsae_book.runs.environment import find_root, hash_files, versions
from gsae_book.runs.execution import RunRecord, read_run, run_notebook, update_text
from gsae_book.runs.files import locked
from gsae_book.runs.keys import find_package, notebook_key
from gsae_book.runs.parameters import (
    ParameterError,
    check_values,
    listed,
    printable,
    read_parameters,
    read_values,
    shown,
)
from gsae_book.runs.processes import process_pool
from gsae_book.runs.records import records_table

DEFAULT = "default"  # the profile of the notebooks' own defaults, which has no parameter files
TAKEN = ("html", "rivals", "runs")  # folders of _build that are no profile's
STAGED = ("_toc.yml", "book/**/*", "_static/**/*", "results/**/*")
BUILDERS = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme", "sphinx-proof", "sphinx-exercise")
LAUNCH = {
    "notebook_interface": "jupyterlab",
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
}
CODE = ("gsae_lib", "gsae_book", "experiments")  # makes the pages, and is documented in them
GENERATED = (
    "book/_generated/status.md",
    "book/_generated/records.md",
    "book/_generated/verdict.md",
    *(f"book/_generated/faults_{part}.md" for part in FAULTS),
)
HOME = {"lines": "book/_generated/new.md"} | {mode: f"book/_generated/start_{mode}.svg" for mode in MODES}


@dataclass(frozen=True)
class Layout:
    """Where one profile of the book at ``root`` is staged and built.

    Raises: ParameterError if ``profile`` is not a plain name: folders of that name are emptied.
    """

    root: Path
    profile: str = DEFAULT

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.profile) or self.profile in TAKEN:
            allowed = f"lower case letters, digits and underscores, and none of {', '.join(TAKEN)}"
            raise ParameterError(f"profile = {shown(self.profile)} is not allowed: it must be {allowed}")

    @property
    def folder(self) -> Path:
        return self.root / "_build" / self.profile

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def doctrees(self) -> Path:
        return self.folder / "doctrees"

    @property
    def html(self) -> Path:
        return (self.root / "_build" if self.profile == DEFAULT else self.folder) / "html"

    @property
    def index(self) -> Path:
        return self.html / "index.html"

    @property
    def marker(self) -> Path:
        """Holds the hash of the inputs of the last build, if that succeeded."""
        return self.folder / "built"

    def is_built(self, inputs: str) -> bool:
        return self.index.is_file() and self.marker.is_file() and self.marker.read_text() == inputs

    def forget(self) -> None:
        """Drop what would let a failed build pass when it is called again."""
        self.marker.unlink(missing_ok=True)
        shutil.rmtree(self.doctrees, ignore_errors=True)


@dataclass
class BuildReport:
    """What a build did: the notebooks that it executed, reused, and saw fail (with the error), and its success.

    Of those reused, `updated` had another text, which stands by the kept outputs now.
    """

    executed: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    pages_built: bool = False
    succeeded: bool = False


def build_book(layout: Layout, jobs: int = 2) -> BuildReport:
    """Bring the book of ``layout`` up to date and report what was done; only what changed is done again.

    Raises: ParameterError if a profile's parameter files do not fit the notebooks; ValueError for a bad ledger.
    """
    if not (layout.root / "_config.yml").is_file():
        raise ParameterError(f"there is no book in {layout.root}: it has no _config.yml")
    profiles = read_profiles(layout.root)
    if layout.profile not in profiles:
        raise ParameterError(f"there is no profile {layout.profile!r}; known are {', '.join(profiles)}")
    parameters = profiles[layout.profile]
    claims = read_claims(layout.root / "book" / "claims.yaml")
    waiting = f"another build of the {layout.profile} book is running; waiting for it"
    with locked(layout.folder / ".lock", waiting=waiting):
        return _build(layout, parameters, claims, jobs)


def _build(
    layout: Layout, parameters: Mapping[str, Mapping[str, Any]], claims: Sequence[Claim], jobs: int
) -> BuildReport:
    report = BuildReport()
    try:
        stage(layout, list(parameters))
        runs = _execute(layout, parameters, jobs, report)
        if not report.failed:
            write_if_changed(
                layout.source / GENERATED[0],
                status_table(layout.profile, runs) + "\n" + coverage_table(layout.root / "results" / "coverage.json"),
            )
            write_if_changed(layout.source / GENERATED[1], records_table(layout.root) or "None.\n")
            write_if_changed(layout.source / GENERATED[2], verdict_table(claims, runs))
            for part, name in zip(FAULTS, GENERATED[3:], strict=True):
                write_if_changed(layout.source / name, fault_table(part, layout.root))
            if (new := layout.root / "book" / "new.yaml").is_file():
                write_if_changed(layout.source / HOME["lines"], new_lines(new, runs))
                angles = start_angles()
                for mode in MODES:
                    write_if_changed(layout.source / HOME[mode], draw_start(angles, mode))
            report.succeeded = _build_pages(layout, report)
    finally:
        if not report.succeeded:
            layout.forget()
    return report


def read_profiles(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return profile -> notebook's stem -> the values that the profile sets, every one of them checked.

    Raises: ParameterError listing each parameter file that belongs to no notebook, is missing, or holds a value
    that its notebook does not allow, and a folder without a profile's name.
    """
    notebooks = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    declared = {stem: read_parameters(path) for stem, path in notebooks.items()}
    profiles: dict[str, dict[str, dict[str, Any]]] = {DEFAULT: {stem: {} for stem in notebooks}}
    problems = []
    for folder in sorted(path for path in (root / "notebooks" / "profiles").glob("*") if path.is_dir()):
        if Layout(root, folder.name).profile == DEFAULT:
            problems.append(f"{folder}: the profile {DEFAULT} has no files")
        files = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
        problems += [f"{files[stem]} belongs to no notebook" for stem in files.keys() - notebooks.keys()]
        problems += [f"{folder / stem}.yaml is missing" for stem in notebooks.keys() - files.keys()]
        profiles[folder.name] = {}
        for stem in [stem for stem in notebooks if stem in files]:
            try:
                given = read_values(files[stem])
                values = check_values(declared[stem], given)
                profiles[folder.name][stem] = {name: values[name] for name in given}
            except ParameterError as error:
                problems.append(f"{files[stem]}: {error}")
    if problems:
        raise ParameterError(listed(sorted(problems)))
    return profiles


def stage(layout: Layout, notebooks: list[str]) -> None:
    """Mirror the book's own sources into the staged folder; remove there what belongs to no source."""
    files = {f.relative_to(layout.root) for pattern in STAGED for f in layout.root.glob(pattern) if f.is_file()}
    for file in files:
        copy_if_changed(layout.root / file, layout.source / file)
    write_if_changed(layout.source / "_config.yml", _configuration(layout.root))
    kept = files | {Path(name) for name in ("_config.yml", *GENERATED, *HOME.values())}
    kept |= {Path("notebooks", name + suffix) for name in notebooks for suffix in (".ipynb", ".json")}
    stale = [f for f in layout.source.rglob("*") if f.is_file() and f.relative_to(layout.source) not in kept]
    for file in stale:
        file.unlink()
    if stale:
        # Sphinx would leave the pages of sources that are gone.
        layout.forget()
        shutil.rmtree(layout.html, ignore_errors=True)


def _execute(
    layout: Layout, parameters: Mapping[str, Mapping[str, Any]], jobs: int, report: BuildReport
) -> dict[str, RunRecord]:
    """Execute the notebooks whose key changed, ``jobs`` at a time, give the rest their text; return every record."""
    runs: dict[str, RunRecord] = {}
    for name, given in parameters.items():
        path = layout.root / "notebooks" / f"{name}.ipynb"
        key = notebook_key(path, check_values(read_parameters(path), given), layout.root, given)
        run = read_run(_output(layout, name), key)
        if run is None:
            report.executed.append(name)
            continue
        report.reused.append(name)
        runs[name] = run
        if update_text(path, _output(layout, name)):
            report.updated.append(name)
    kept = f"{len(report.reused)} kept" + (f", {len(report.updated)} of them with new text" if report.updated else "")
    click.echo(f"{len(report.executed)} notebooks to execute, {kept}")
    runs |= _execute_all(layout, parameters, report.executed, jobs, report.failed)
    return {name: runs[name] for name in parameters if name in runs}


def _execute_all(
    layout: Layout,
    parameters: Mapping[str, Mapping[str, Any]],
    names: list[str],
    jobs: int,
    failed: dict[str, str],
) -> dict[str, RunRecord]:
    """Execute the notebooks ``names`` and return their records; the errors of the others go into ``failed``."""
    runs: dict[str, RunRecord] = {}
    with process_pool(jobs) as pool:
        futures = {
            pool.submit(
                run_notebook,
                layout.root / "notebooks" / f"{name}.ipynb",
                _output(layout, name),
                parameters=parameters[name],
                root=layout.root,
                threads=1,
            ): name
            for name in reversed(names)  # later chapters take longer, so they start first
        }
        for number, future in enumerate(as_completed(futures), start=1):
            name = futures[future]
            try:
                runs[name] = future.result()
                outcome = f"{runs[name].seconds:.1f} s"
            except Exception as error:  # a killed process as much as a failing cell: each is this notebook's failure
                failed[name] = str(error)
                outcome = "FAILED"
            click.echo(f"[{number}/{len(futures)}] {name}: {outcome}")
    return runs


def _configuration(root: Path) -> str:
    """Return the book's settings, with its addresses where the environment says which they are.

    With that of its repository, GSAE_REPOSITORY_URL, pages link there, and chapters to Binder and Colab, which open
    them; with that of its pages, GSAE_SITE_URL, they have a site map, and tell other sites what a link shows.
    """
    text = (root / "_config.yml").read_text(encoding="utf8")
    repository, site = (os.environ.get(name) for name in ("GSAE_REPOSITORY_URL", "GSAE_SITE_URL"))
    if not repository and not site:
        return text
    settings = yaml.safe_load(text)
    if repository:
        settings["repository"]["url"] = repository
        settings["html"] |= {"use_repository_button": True, "use_edit_page_button": True, "use_issues_button": True}
        settings["launch_buttons"] = LAUNCH
    if site:
        settings["html"]["baseurl"] = site
        settings["sphinx"]["config"]["extensions"].append("sphinxext.opengraph")
        settings["sphinx"]["config"] |= {"ogp_site_url": site, "ogp_site_name": settings["title"]}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _output(layout: Layout, name: str) -> Path:
    return layout.source / "notebooks" / f"{name}.ipynb"


def _build_pages(layout: Layout, report: BuildReport) -> bool:
    """Build the pages unless all that they are made from is as it was at the last success."""
    files = sorted(f for f in layout.source.rglob("*") if f.is_file())
    code = [_hash_package(name, layout.root) for name in CODE]
    inputs = f"{hash_files(files, layout.source)} {' '.join(code)} {versions(BUILDERS)}"
    if layout.is_built(inputs):
        click.echo("the pages are up to date")
        return True
    layout.marker.unlink(missing_ok=True)
    report.pages_built = True
    click.echo("building the pages")
    pages = (layout.source, layout.html, layout.doctrees)
    read_before = layout.doctrees.exists()
    if not build_html(*pages):
        # Sphinx reads changed pages alone, and takes a label that has moved from one to another for two.
        shutil.rmtree(layout.doctrees, ignore_errors=True)
        if not read_before or not build_html(*pages):
            return False
    layout.marker.write_text(inputs)
    return True


def _hash_package(name: str, root: Path) -> str:
    folder = find_package(name, root)
    return hash_files(sorted((folder / name).rglob("*.py")), folder) if folder else ""


@click.command()
@click.option("--profile", default=DEFAULT, show_default=True, help="A folder of notebooks/profiles, or default.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Notebooks executed at a time.")
def main(profile: str, jobs: int) -> None:
    """Execute the notebooks that changed and build the book's pages."""
    start = time.perf_counter()
    try:
        layout = Layout(find_root(), profile)
        report = build_book(layout, jobs)
    except ValueError as error:
        click.echo(f"Error: {printable(str(error))}", err=True)
        sys.exit(2 if isinstance(error, ParameterError) else 1)
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    seconds = time.perf_counter() - start
    if not report.succeeded:
        for error in report.failed.values():
            click.echo(f"\n{printable(error)}", err=True)
        what = f"these notebooks failed: {', '.join(report.failed)}" if report.failed else "the pages have errors"
        click.echo(f"\nThe {profile} book was not built in {seconds:.0f} s: {what}", err=True)
        sys.exit(1)
    click.echo(f"The {profile} book is ready after {seconds:.1f} s: {layout.index}")


if __name__ == "__main__":
    main()
