"""The command ``gsae``: run a notebook with checked parameters, bring data, tell about the installation.

Heavy imports stand inside the commands, so that help and parameter errors come at once.
"""

from __future__ import annotations

from pathlib import Path

import click

import gsae_lib


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gsae_lib.__version__, package_name="gsae_lib")
def main() -> None:
    """Group-sparse autoencoders: run the book's notebooks with your parameters, and bring their data."""


@main.command()
@click.argument("notebook")
@click.option("-p", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("-f", "file", type=Path, metavar="FILE.yaml", help="Set the parameters in a YAML file; -p goes above it.")
@click.option("-o", "out", type=Path, metavar="OUT.ipynb", help="Where to write [default: in _build/runs].")
def run(notebook: str, parameters: tuple[tuple[str, str], ...], file: Path | None, out: Path | None) -> None:
    """Run NOTEBOOK: a path, or the name or number of one in ./notebooks.

    Leaves OUT.ipynb, OUT.json with what was measured, and a rendered page under _build/runs. A parameter that
    the notebook does not declare or allow ends with exit code 2 before anything runs, a failing cell with 1.
    """
    try:
        from gsae_lib.runs.environment import find_root
        from gsae_lib.runs.execution import NotebookError, notebook_key, run_notebook
        from gsae_lib.runs.parameters import ParameterError, check_values, read_parameters, read_values
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is needed to run notebooks: pip install -e '.[book]'") from error

    root = find_root()
    path = _find_notebook(notebook, root)
    try:
        given = {**(read_values(file) if file else {}), **dict(parameters)}
        values = check_values(read_parameters(path), given)
        out = out or root / "_build" / "runs" / f"{path.stem}-{notebook_key(path, values)[:8]}.ipynb"
        if out.suffix != ".ipynb" or out.resolve() == path.resolve():
            raise ParameterError(f"-o {out}: the output is another notebook than the one that is run, OUT.ipynb")
    except ParameterError as error:
        raise click.UsageError(str(error)) from None
    try:
        record = run_notebook(path, out, parameters=given, root=root, progress=True)
    except NotebookError as error:
        raise click.ClickException(str(error)) from None

    from gsae_lib.runs.pages import publish_run
    from gsae_lib.runs.recording import format_value

    for name, metric in record.metrics.items():
        click.echo(f"{name} = {format_value(**metric)}")
    click.echo(f"{out}\n{out.with_suffix('.json')}")
    page = publish_run(root, out)
    click.echo(page or "No page was rendered: that needs jupyter-book (pip install -e '.[book]').")


@main.command()
@click.argument("name")
@click.option("--from", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder.")
def data(name: str, folder: Path | None) -> None:
    """Bring the data set NAME into the cache from the first source that works, and verify each file."""
    from gsae_lib.data_files import DATASETS, fetch

    if name not in DATASETS:
        raise click.UsageError(f"there is no data set {name!r}; known are {', '.join(DATASETS)}")
    try:
        files = fetch(name, folder=folder)
    except OSError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(map(str, files)) or f"{name} comes with an installed package")


@main.command()
def info() -> None:
    """Show versions, device, threads, the cache folder, and which data sets are present and verified."""
    import torch

    from gsae_lib.data_files import available, cache_folder
    from gsae_lib.runs.environment import versions

    rows = versions()
    rows["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    rows["threads"] = str(torch.get_num_threads())
    rows["cache"] = str(cache_folder())
    rows |= {f"data {name}": state for name, state in available().items()}
    width = max(map(len, rows))
    for name, value in rows.items():
        click.echo(f"{name:<{width}}  {value}")


def _find_notebook(name: str, root: Path) -> Path:
    """Return the notebook at the path ``name``, or the one in ``root``/notebooks of that name or number."""
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    known = sorted((root / "notebooks").glob("*.ipynb"))
    number = f"{int(name):02d}" if name.isdecimal() else name
    for path in known:
        if number in (path.name, path.stem, path.stem.split("_")[0]):
            return path
    listed = ", ".join(path.stem for path in known) or f"none in {root / 'notebooks'}"
    raise click.UsageError(f"there is no notebook {name!r}; known are {listed}")
