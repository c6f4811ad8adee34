"""The command: exit codes, messages, and what a run of it leaves."""

import shutil
import subprocess
import sys

import nbformat
import pytest
from built_site import ROOT
from click.testing import CliRunner
from faults.stories import PROTECTED
from sweep_project import write_project
from tiny_book import write_book, write_notebook

from gsae_book.app.cli import main
from gsae_book.build.pages import PageError, _with_own_labels, publish_run
from gsae_book.data import states
from gsae_book.runs import execution
from gsae_book.runs.execution import find_notebook
from gsae_book.runs.files import lock_beside, locked


@pytest.fixture
def gsae(tmp_path, monkeypatch):
    """Return a function that calls the command in a tiny book and returns its result."""
    write_book(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def contents(root):
    """Every file and link under ``root``, with its bytes."""
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.fixture
def crowded(gsae, tmp_path, monkeypatch):
    """The function `gsae`, in a tiny book with results, links and files in the way, where no kernel may start."""
    (tmp_path / "results" / "paper").mkdir(parents=True)
    (tmp_path / "saved").mkdir()
    for name in ("mine.ipynb", "mine.json", "other.json", "saved/labels.csv", "file", "results/paper/07.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "null.yaml").write_text('data: "a\\0b"\ncheckpoint: run')
    (tmp_path / "folder.ipynb").mkdir()
    for link, place in (
        ("link", "notebooks"),
        ("nowhere", "no/folder"),
        ("link.ipynb", "notebooks/02_second.ipynb"),
        ("link.csv", "saved/labels.csv"),
        ("record.json", "results/paper/07.json"),
    ):
        (tmp_path / link).symlink_to(place)
    declared = "data: str = ''\nsave_to: str = ''\ncheckpoint: str = ''"
    write_notebook(tmp_path / "notebooks" / "03_third.ipynb", parameters=declared)
    (tmp_path / "hard.ipynb").hardlink_to(tmp_path / "notebooks" / "03_third.ipynb")
    monkeypatch.setattr(execution, "execute", lambda *_, **__: pytest.fail("a kernel was started"))
    return gsae


@pytest.mark.parametrize(
    "out", [*PROTECTED, "notebooks/02_second", "link", "results/paper/07", "record", "_static/new/new"]
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_sources_and_results_are_never_written(crowded, tmp_path, monkeypatch, out, elsewhere):
    """Fails if a way around remains: a name's case, a link, a path from another folder, --force."""
    before, first = contents(tmp_path), str(tmp_path / "notebooks" / "01_first.ipynb")
    if elsewhere:
        monkeypatch.chdir("/")
    places = {str(tmp_path / out)} if elsewhere else {out, str(tmp_path / out)}
    results = [crowded("run", first, "-o", f"{place}.ipynb", "--force") for place in places]
    if not elsewhere and out != "record":  # a new folder
        results += [crowded("run", "03", "-p", "save_to", place, "--force") for place in places]
    for result in results:
        assert result.exit_code == 2 and "is not allowed: it must be" in result.output
        assert len(result.output.splitlines()) == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["01", "-p", "n_group", "20"], "there is no parameter n_group; did you mean n_groups?"),
        (["01", "-p", "n_groups", "-1"], "n_groups = '-1' is not allowed: it must be an integer, at least 1"),
        (["01", "-p", "num_groups", "5"], "num_groups = '5': is now called n_groups"),
        (["01", "-p", "n_groups", "20", "-p", "n_groups", "30"], "-p 'n_groups' is given twice"),
        (["01", "-p", "\x1b[2J", "1"], r"there is no parameter '\x1b[2J'"),
        (["01", "-f", "none.yaml"], "cannot read 'none.yaml'"),
        (["01", "-f", "notebooks"], "cannot read 'notebooks'"),
        *(
            ([name], f"there is no notebook '{name[:100]}'; known are 01_first, 02_second")
            for name in ("nope", "7", "nope.ipynb", "9" * 5000, "x" * 5000 + ".ipynb")
        ),
        (["01", "-o", "out.txt"], "-o = 'out.txt' is not allowed: it must be another notebook"),
        (["01", "-o", "notebooks/01_first.ipynb"], "it must be another notebook, OUT.ipynb"),
        (["01", "-o", "mine.ipynb"], "'mine.ipynb' is not allowed: it must be a new file"),
        (["01", "-o", "other.ipynb"], "'other.json' is not allowed: it must be a new file"),
        (["01", "-o", "folder.ipynb"], "it must be a file, and is a folder"),
        (["01", "-o", "file/new.ipynb"], "Not a directory"),
        (["01", "-o", "nowhere/new.ipynb"], "Not a directory"),
        (["01", "-o", "nowhere/../file/new.ipynb"], "Not a directory"),
        (["01", "-o", "/proc/new.ipynb"], "/proc/new.ipynb"),  # for root another reason than for others
        (["01", "-o", f"new/{'x' * 245}.ipynb"], "File name too long"),
        (["01", "-o", "\udcff.ipynb"], "UTF-8"),
        (["03", "-p", "save_to", "saved"], "saved/labels.csv' is not allowed: it must be a new file"),
        (["03", "-p", "save_to", "file/model"], "Not a directory"),
        (["03", "-p", "save_to", "file"], "file' is not allowed: it must be a folder"),
        (["03", "-p", "checkpoint", "link/run"], "it must be outside"),
        (["03", "-p", "checkpoint", "folder.ipynb"], "it must be a file, and is a folder"),
        (["03", "-p", "checkpoint", "file/run"], "Not a directory"),
        (["03", "-p", "checkpoint", "new/"], "checkpoint = 'new/' is not allowed: it must end with the name of a file"),
        (["03", "-f", "null.yaml", "-o", "null.yaml.ipynb", "-p", "save_to", "notebooks"], "it must be outside"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_a_kernel(crowded, tmp_path, arguments, reason):
    """Fails if the run starts all the same, or leaves the folders it would have written in."""
    before = contents(tmp_path)
    result = crowded("run", *arguments)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1) and reason in result.output
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-p", "data", "saved/labels.csv", "-p", "save_to", "saved"], "save_to"),
        (["-p", "data", "link.csv", "-p", "save_to", "saved"], "save_to"),
        (["-p", "data", "mine.json", "-o", "mine.ipynb"], "-o"),
        (["-f", "mine.json", "-o", "mine.ipynb"], "-o"),
        (["-o", "hard.ipynb"], "-o"),
        (["-p", "data", "file", "-p", "checkpoint", "file"], "checkpoint"),
    ],
)
def test_a_run_never_replaces_what_it_reads(crowded, tmp_path, arguments, name):
    """Fails if --force replaces a file that a parameter, or -f, names, by its name or through a link."""
    before = contents(tmp_path)
    result = crowded("run", "03", *arguments, "--force")
    assert result.exit_code == 2 and result.output.startswith(f"Error: {name} = ")
    assert "is not allowed: the command reads this file" in result.output
    assert contents(tmp_path) == before


@pytest.mark.book
def test_force_replaces_and_a_failed_run_does_not(gsae, tmp_path):
    for name in ("mine.ipynb", "mine.json"):
        (tmp_path / name).write_text("mine")
    write_notebook(tmp_path / "notebooks" / "02_second.ipynb", "assert n_groups == 11, 'not eleven'")
    failed = gsae("run", "2", "-o", "mine.ipynb", "--force")
    assert failed.exit_code == 1 and "AssertionError: not eleven" in failed.output
    assert {(tmp_path / name).read_text() for name in ("mine.ipynb", "mine.json")} == {"mine"}
    assert gsae("run", "2", "-o", "mine.ipynb", "-p", "n_groups", "11", "--force").exit_code == 0
    assert execution.read_run(tmp_path / "mine.ipynb").parameters["n_groups"] == 11
    assert not list(tmp_path.glob("mine.failed*"))


def test_a_second_run_into_one_file_is_refused(gsae, tmp_path):
    """Fails if two runs write to one file, or if the refusal is no line or leaves something."""
    with locked(lock_beside(tmp_path / "mine.ipynb")):
        result = gsae("run", "01", "-o", "mine.ipynb")
    assert (result.exit_code, result.output) == (2, "Error: -o = 'mine.ipynb': another run is writing there\n")
    assert not list(tmp_path.glob("mine*"))


@pytest.mark.parametrize("name", ["1", "01", "01_first", "01_first.ipynb", "notebooks/01_first.ipynb"])
def test_a_notebook_is_found_by_path_name_or_number(gsae, tmp_path, name):
    assert find_notebook(name, tmp_path).resolve() == tmp_path / "notebooks" / "01_first.ipynb"


@pytest.mark.book
def test_a_run_and_its_page(gsae, tmp_path):
    (tmp_path / "p.yaml").write_text("n_groups: 4\nrate: 2\n")
    result = gsae("run", "1", "-f", "p.yaml", "-p", "rate", "-1e-3", "-o", "out/mine.ipynb")
    assert result.exit_code == 0, result.output
    assert "size = 4.50 ± 0.25" in result.output
    run = execution.read_run(tmp_path / "out" / "mine.ipynb")
    # Breaks if the file goes above the command line, or if a negative number is taken for an option.
    assert run.parameters == {"n_groups": 4, "rate": -1e-3, "seed": 0}
    page = tmp_path / "_build" / "runs" / "html" / "runs" / "mine.html"
    assert "4.50 ± 0.25" in page.read_text()
    assert "runs/mine.html" in (page.parents[1] / "index.html").read_text()
    # Breaks if a single run touches the book.
    assert not (tmp_path / "_build" / "html").exists()
    # Breaks if a name that means something to YAML or Markdown takes the other pages with it.
    bad = tmp_path / "out" / "a: b [c](d) | `e` * é.ipynb"
    for suffix in (".ipynb", ".json"):
        shutil.copy(tmp_path / "out" / f"mine{suffix}", bad.with_suffix(suffix))
    other = publish_run(tmp_path, bad)
    assert "4.50 ± 0.25" in other.read_text()
    index = (page.parents[1] / "index.html").read_text()
    assert "runs/mine.html" in index and f"runs/{other.name}" in index


def test_pages_of_two_runs_of_one_notebook_share_no_label():
    """Fails if a reference leads to another run's equation or figure, or no longer to the theory's."""
    lines = ["(here)=", "# Title", "$$", "a = b", "$$ (eq-a)", "$$ c $$ (eq-b)", ":::{exercise}", ":label: ex-a", ":::"]
    lines += ["{eq}`eq-a`, {eq}`eq-a-long`, {numref}`fig-a`, {ref}`here`", ":::{solution} ex-a", ":::"]
    figure = {"mystnb": {"figure": {"name": "fig-a", "caption": "A figure"}}}
    cells = [nbformat.v4.new_markdown_cell("\n".join(lines)), nbformat.v4.new_code_cell("eq_a = 1", metadata=figure)]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    words, code = nbformat.reads(_with_own_labels(text, "run-1"), as_version=4).cells
    expected = "\n".join(lines).replace("eq-a-long", "LONG")
    for label in ("here", "eq-a", "eq-b", "ex-a", "fig-a"):
        expected = expected.replace(label, f"{label}-run-1")
    assert words.source == expected.replace("LONG", "eq-a-long")
    assert code.metadata["mystnb"]["figure"] == {"name": "fig-a-run-1", "caption": "A figure"}
    assert code.source == "eq_a = 1"


def test_a_page_that_cannot_be_built_says_why_and_is_taken_back(gsae, tmp_path, monkeypatch):
    """Fails if every failure is blamed on jupyter-book, or if a page on which Sphinx fails stays for the next run."""
    for suffix in (".ipynb", ".json"):
        (tmp_path / f"out{suffix}").write_text("{}")
    with pytest.raises(PageError, match="it has no _config"):
        publish_run(tmp_path / "book", tmp_path / "out.ipynb")
    monkeypatch.setattr("gsae_book.build.pages.build_html", lambda *_, **__: False)
    with pytest.raises(PageError, match="Sphinx failed"):
        publish_run(tmp_path, tmp_path / "out.ipynb")
    assert not list((tmp_path / "_build" / "runs" / "source" / "runs").glob("*.ipynb"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PageError, match="jupyter-book is not installed"):
        publish_run(tmp_path, tmp_path / "out.ipynb")


HEAVY = """
import sys
from pathlib import Path
from click.testing import CliRunner
import gsae_book.build.book
from gsae_book.app.cli import main
from gsae_book.runs.keys import notebook_key
call = CliRunner().invoke
assert call(main, ["--help"]).exit_code == 0
assert call(main, ["run", "1", "-p", "n_groups", "0"]).exit_code == 2
assert call(main, ["sweep", "spec.yaml", "-o", "out"]).exit_code == 2
notebook_key(Path(sys.argv[1]), {"dataset": "digits"})
heavy = {"torch", "papermill", "sphinx", "nbformat", "matplotlib", "distributed", "pandas"}
print(heavy & sys.modules.keys())
import gsae_lib
gsae_lib.train
"""


def test_help_refusals_and_keys_import_nothing_heavy(gsae, tmp_path):
    """Fails if an error, or a build that has nothing to do, takes seconds since it imports torch."""
    (tmp_path / "spec.yaml").write_text("function: sweep_tasks.measure\ngrid: {seed: [x]}\n")
    write_project(tmp_path)
    digits = ROOT / "notebooks" / "09_cluster_digits.ipynb"
    done = subprocess.run([sys.executable, "-c", HEAVY, digits], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr


def test_data(gsae, monkeypatch, tmp_path):
    """Fails if the name or the folder does not reach the data sets, or what is missing is another exit code."""

    def fetch(name, folder):
        asked.append((name, folder))
        if folder is None:
            raise OSError("no source works")
        return []

    asked = []
    monkeypatch.setattr("gsae_book.data.files.fetch", fetch)
    assert gsae("data", "nope").exit_code == 2 and asked == []
    assert gsae("data", "mnist", "--from", str(tmp_path)).exit_code == 0
    result = gsae("data", "mnist")
    assert asked == [("mnist", tmp_path), ("mnist", None)]
    assert result.exit_code == 1 and "no source works" in result.output and len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist", "--layer", "6"], "--layer is for language models, and mnist is a data set"),
        (["smollm2", "--from", "."], "--from is for data sets"),
        (["smollm2", "--layer", "0"], "0 is not in the range"),
        (["smollm2", "--tokens", "many"], "not a valid integer"),
        (
            ["smollm2", "--text", "absent.txt"],
            "'absent.txt' is not allowed: it must be a file, or wordnet or addresses",
        ),
        (["smollm2", "--text", "a" * 5000], "it must be a file, or wordnet or addresses"),
        (["smollm2", "-o", "states.txt"], "it must be STATES.npy"),
        (["smollm"], "smollm2, and language models, owner/model"),
    ],
)
def test_states_that_cannot_be_written_exit_2_before_a_model(gsae, monkeypatch, arguments, message):
    # Breaks if a model is loaded, or a text brought, before the arguments are looked at.
    for name in ("load_language_model", "require_model"):
        monkeypatch.setattr(f"gsae_book.data.states.{name}", lambda *_: pytest.fail("it went on"))
    result = gsae("data", *arguments)
    assert result.exit_code == 2 and message in result.output


@pytest.fixture
def model_of_language(monkeypatch):
    """A stand-in for a model whose states are its tokens, the bytes of a text, plus a thousandth of the layer."""

    def load(name, layer):
        return lambda text: list(text.encode()), lambda tokens: tokens[..., None] + layer / 1000, 1

    monkeypatch.setattr(states, "require_model", lambda name: None)
    monkeypatch.setattr(states, "load_language_model", load)


def test_states_of_a_text(gsae, model_of_language, tmp_path):
    """Fails if layer, text or number of tokens do not reach the file, or too short a text is not one line."""
    (tmp_path / "book.txt").write_text("a" * 1000)
    arguments = ("data", "owner/model", "--layer", "500", "--text", "book.txt", "-o", "new/states.npy")
    result = gsae(*arguments, "--tokens", "300")
    assert result.exit_code == 0, result.output
    found = states.open_states(tmp_path / "new" / "states.npy")
    assert found.shape == (300, 1) and (found == 97.5).all()
    assert states.verify_states(tmp_path / "new" / "states")["text"] == "book.txt"
    result = gsae(*arguments, "--tokens", "100000")
    assert result.exit_code == 2 and "text: expected at least 100864 tokens, got 1001" in result.output
    result = gsae(*arguments, "--tokens", "200")
    assert result.exit_code == 2 and "holds other states" in result.output and result.output.count("\n") == 1


def test_states_of_a_data_set_lie_beside_those_of_another(gsae, model_of_language, monkeypatch, tmp_path):
    """Fails if the text is not the one that is named, or its states take the place of WordNet's."""
    monkeypatch.setattr("gsae_book.data.files.fetch", lambda name: [])
    monkeypatch.setenv("GSAE_CACHE", str(tmp_path))
    texts = {"wordnet": lambda *, generator: ["a" * 300], "addresses": lambda *, generator: ["b" * 300]}
    monkeypatch.setattr(states, "TEXTS", texts)
    for name, ending, letter in (("wordnet", "", "a"), ("addresses", "-addresses", "b")):
        result = gsae("data", "owner/model", "--layer", "1", "--tokens", "127", "--text", name)
        assert result.exit_code == 0, result.output
        found = states.open_states(tmp_path / "states" / f"owner-model-1-127{ending}.npy")
        assert (found.round() == ord(letter)).all()


def test_info_names_versions_device_and_data(gsae):
    output = gsae("info").output
    for word in ("python", "torch", "device", "threads", "cache", "data mnist-5k"):
        assert word in output


def test_show_lists_what_a_parameter_allows_and_means(gsae, tmp_path):
    """Fails if a range, a default or a meaning is lost, or a comment is taken for that of another parameter."""
    lines = "# how many\n# there are\nn_groups: Annotated[int, Ge(1)] = 10\nname: str = '#'  # what it is called\n"
    lines += "seed: int = 0"
    write_notebook(tmp_path / "notebooks" / "03_third.ipynb", parameters=lines)
    result = gsae("show", "3")
    assert result.exit_code == 0 and result.output.splitlines() == [
        "-p n_groups 10",
        "    an integer, at least 1",
        "    how many there are",
        "-p name '#'",
        "    a text",
        "    what it is called",
        "-p seed 0",
        "    an integer",
    ]
    assert gsae("show", "nope").exit_code == 2
