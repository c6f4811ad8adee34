"""The command: exit codes, messages, and what a run of it leaves."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from tiny_book import CODE, write_book, write_notebook

from gsae_lib.cli import _find_notebook, main
from gsae_lib.runs import execution


@pytest.fixture
def gsae(tmp_path, monkeypatch):
    """Return a function that calls the command in a tiny book and returns its result."""
    write_book(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "num_group", "20"], "there is no parameter num_group; did you mean num_groups?"),
        (["-p", "num_groups", "-1"], "num_groups = '-1' is not allowed: it must be an integer, at least 1"),
        (["-p", "num_groups", "abc"], "num_groups = 'abc' is not allowed: it must be an integer, at least 1"),
        (["-p", "num_groups", "true"], "num_groups = 'true' is not allowed"),
        (["-p", "rate", "inf"], "rate = 'inf' is not allowed: it must be a number"),
        (["-f", "none.yaml"], "cannot read the parameter file none.yaml"),
        (["-o", "out.txt"], "-o = 'out.txt' is not allowed: it must be another notebook"),
        (["-o", "notebooks/01_first.ipynb"], "it must be another notebook, OUT.ipynb"),
    ],
)
def test_what_cannot_be_run_exits_2_before_a_kernel(gsae, monkeypatch, arguments, message):
    # Breaks if a check moves behind the start of the kernel, or if the exit code of a usage error changes.
    monkeypatch.setattr(execution, "_execute", lambda *_: pytest.fail("a kernel was started"))
    result = gsae("run", "01_first", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_an_unknown_notebook_lists_the_known(gsae):
    for name in ("nope", "7", "nope.ipynb"):
        result = gsae("run", name)
        assert result.exit_code == 2
        assert f"there is no notebook '{name}'; known are 01_first, 02_second" in result.output


@pytest.mark.parametrize("name", ["1", "01", "01_first", "01_first.ipynb", "notebooks/01_first.ipynb"])
def test_a_notebook_is_found_by_path_name_or_number(gsae, tmp_path, name):
    assert _find_notebook(name, tmp_path).resolve() == tmp_path / "notebooks" / "01_first.ipynb"


@pytest.mark.book
def test_a_run_and_its_page(gsae, tmp_path):
    (tmp_path / "p.yaml").write_text("num_groups: 4\nrate: 2\n")
    result = gsae("run", "1", "-f", "p.yaml", "-p", "rate", "-1e-3", "-o", "out/mine.ipynb")
    assert result.exit_code == 0, result.output
    assert "size = 4.50 ± 0.25" in result.output
    run = execution.read_run(tmp_path / "out" / "mine.ipynb")
    # Breaks if the file goes above the command line, or if a negative number is taken for an option.
    assert run.parameters == {"num_groups": 4, "rate": -1e-3, "seed": 0}
    page = tmp_path / "_build" / "runs" / "html" / "runs" / "mine.html"
    assert "4.50 ± 0.25" in page.read_text()
    assert "runs/mine.html" in (page.parents[1] / "index.html").read_text()
    # Breaks if a single run touches the book.
    assert not (tmp_path / "_build" / "html").exists()


@pytest.mark.book
def test_a_failing_notebook_exits_1_with_its_error(gsae, tmp_path):
    write_notebook(tmp_path / "notebooks" / "01_first.ipynb", CODE + "\nassert num_groups == 11, 'not eleven'")
    result = gsae("run", "1")
    assert result.exit_code == 1
    assert "AssertionError: not eleven" in result.output


def test_help_and_parameter_errors_import_nothing_heavy(gsae):
    # Breaks if torch, papermill or Sphinx is imported before it is needed: an error would take seconds.
    code = (
        "import sys; from click.testing import CliRunner; from gsae_lib.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(main, ['run', '1', '-p', 'num_groups', '0']).exit_code == 2\n"
        "print({'torch', 'papermill', 'sphinx', 'nbformat', 'matplotlib'} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_data(gsae, monkeypatch, tmp_path):
    assert gsae("data", "nope").exit_code == 2
    asked = []
    monkeypatch.setattr("gsae_lib.data_files.fetch", lambda name, folder: asked.append((name, folder)) or [])
    assert gsae("data", "mnist", "--from", str(tmp_path)).exit_code == 0
    assert asked == [("mnist", tmp_path)]

    def fail(name, folder):
        raise OSError("no source works")

    monkeypatch.setattr("gsae_lib.data_files.fetch", fail)
    result = gsae("data", "mnist")
    assert (result.exit_code, "no source works" in result.output) == (1, True)


def test_info_names_versions_device_and_data(gsae):
    output = gsae("info").output
    for word in ("python", "torch", "device", "threads", "cache", "data mnist-5k"):
        assert word in output
