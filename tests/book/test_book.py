"""The book's builder on a tiny book: what is done again, what fails, and that it fails again."""

import os
import re
import shutil
import threading
from xml.etree import ElementTree

import pytest
from built_site import ROOT
from children import git
from click.testing import CliRunner
from tiny_book import CODE, write_book, write_notebook

from gsae_book.build import book
from gsae_book.build.book import Layout, build_book, read_profiles
from gsae_book.build.claims import read_claims, verdict_table
from gsae_book.runs import execution
from gsae_book.runs.files import locked
from gsae_book.runs.parameters import ParameterError

BOTH = ["01_first", "02_second"]
pytestmark = pytest.mark.book


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny book, built once; the tests change copies of it."""
    root = write_book(tmp_path_factory.mktemp("built"))
    report = build_book(Layout(root))
    assert report.succeeded and report.executed == BOTH
    return root


@pytest.fixture
def tiny(built, tmp_path):
    """A copy of the built book, with the times of its files."""
    return Layout(shutil.copytree(built, tmp_path / "tiny", copy_function=shutil.copy2))


def test_the_pages_are_there(built):
    html = built / "_build" / "html"
    assert "book/intro.html" in (html / "index.html").read_text()
    assert "10.50 ± 0.25" in (html / "notebooks" / "01_first.html").read_text()
    status, verdict = (html / "book" / f"{name}.html" for name in ("status", "verdict"))
    for word in ("02_second", "default", "UTC", "CPU", "papermill"):
        assert word in status.read_text()
    for word in ("10.50 ± 0.25", "reproduced", "not yet checked", "../notebooks/01_first.html"):
        assert word in verdict.read_text()


def test_a_second_build_does_nothing(tiny):
    report = build_book(tiny)
    assert (report.executed, report.reused, report.pages_built, report.succeeded) == ([], BOTH, False, True)


def test_an_edited_notebook_alone_is_executed_and_its_numbers_are_rounded_once(tiny):
    """Fails if a format is given the text of a record: 0.27649 has the text 0.2765, which would be 0.277."""
    path = tiny.root / "notebooks" / "02_second.ipynb"
    write_notebook(path, CODE + "\nrecord('share', 0.27649)\nrecord('many', 12000)")
    shown = "{glue:text}`share`, {glue:text}`share:.3f`, {glue:text}`share:.0%`, {glue:text}`many:,`"
    path.write_text(path.read_text().replace("The size is {glue:text}`size`", shown))
    report = build_book(tiny)
    assert (report.executed, report.reused, report.pages_built, report.succeeded) == (BOTH[1:], BOTH[:1], True, True)
    page = re.sub("<[^>]+>", "", (tiny.html / "notebooks" / "02_second.html").read_text())
    assert "0.2765, 0.276, 28 %, 12,000." in page


def test_an_edited_style_reaches_the_pages(tiny):
    """Fails if Sphinx, which copies static files only when a page has changed, is trusted with them."""
    style = tiny.root / "_static" / "tiny.css"
    style.parent.mkdir(exist_ok=True)
    for text in ("p { margin: 0 }", "p { margin: 1px }"):
        style.write_text(text)
        assert build_book(tiny).succeeded
        assert (tiny.html / "_static" / "tiny.css").read_text() == text


def test_a_label_may_move_to_a_page_that_is_read_earlier(tiny):
    """Fails if pages that were read before make an error of a book that has none."""
    later, earlier = (tiny.root / "book" / name for name in ("status.md", "intro.md"))
    plain = later.read_text()
    equation = "\n$$\nx = 1\n$$ (eq-moved)\n"
    later.write_text(plain + equation)
    assert build_book(tiny).succeeded
    later.write_text(plain)
    earlier.write_text(earlier.read_text() + equation)
    assert build_book(tiny).succeeded
    earlier.write_text(earlier.read_text() + equation)
    assert not build_book(tiny).succeeded


def test_a_published_book_is_dated_and_mapped_and_opens_in_binder_and_colab(tiny, monkeypatch):
    """Fails if pages do not say when they changed, one is not in the site map, or links of a repository are wrong."""
    git(tiny.root, "init", "-q")
    git(tiny.root, "add", "book", "notebooks")
    git(tiny.root, "commit", "-q", "-m", "one", GIT_COMMITTER_DATE="2020-01-02T12:00:00")
    monkeypatch.setenv("GSAE_SITE_URL", "https://book.example/")
    monkeypatch.setenv("GSAE_REPOSITORY_URL", "https://github.com/us/book")
    assert build_book(tiny).succeeded
    entries = ElementTree.parse(tiny.html / "sitemap.xml").getroot()
    dated = {entry[0].text: [part.text for part in entry[1:]] for entry in entries}
    pages = ("book/intro", "book/status", "book/verdict", "notebooks/01_first", "notebooks/02_second")
    assert dated == {f"https://book.example/{page}.html": ["2020-01-02"] for page in pages}
    page = tiny.html / "notebooks" / "01_first.html"
    assert "Last updated on 2020-01-02" in page.read_text()
    published = (
        'property="og:url" content="https://book.example/notebooks/01_first.html"',
        "mybinder.org/v2/gh/us/book/main",
        "colab.research.google.com/github/us/book/blob/main/notebooks/01_first.ipynb",
    )
    assert all(part in page.read_text() for part in published)
    monkeypatch.delenv("GSAE_SITE_URL")
    monkeypatch.delenv("GSAE_REPOSITORY_URL")
    assert build_book(tiny).succeeded
    assert not any(part in page.read_text() for part in ("og:url", "mybinder.org", "colab.research.google.com"))


@pytest.mark.parametrize(
    ("name", "old", "new", "names"),
    [
        ("tiny/shape.py", "Return the area of a square.", "What a square covers.", []),
        ("tiny/shape.py", "side * side", "side**2", BOTH[:1]),
        ("gsae_book/build/pages.py", "import argparse", "import argparse\nimport ast", []),
        ("gsae_book/runs/recording.py", "import json", "import json\nimport ast", BOTH),
    ],
)
def test_an_edited_module_executes_the_notebooks_that_use_it(tiny, monkeypatch, name, old, new, names):
    """Fails if a docstring or the builder of pages executes a notebook, or what a notebook imports does not."""
    ran = []
    monkeypatch.setattr(book, "_execute_all", lambda layout, parameters, names, *_: ran.extend(names) or {})
    monkeypatch.setattr(book, "build_html", lambda *_: True)
    shutil.copytree(ROOT / "gsae_book", tiny.root / "gsae_book", ignore=shutil.ignore_patterns("__pycache__"))
    path = tiny.root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    report = build_book(tiny)
    assert (report.executed, ran) == (names, names)
    assert report.pages_built == (name.startswith("gsae_book") or bool(names))


def test_an_edited_sentence_reaches_the_page_and_executes_nothing(tiny):
    """Fails if the text of a chapter costs its execution, or if the page keeps the old one."""
    path = tiny.root / "notebooks" / f"{BOTH[0]}.ipynb"
    path.write_text(path.read_text().replace("The size is", "How large it is:"))
    report = build_book(tiny)
    assert (report.executed, report.updated, report.pages_built, report.succeeded) == ([], BOTH[:1], True, True)
    page = (tiny.html / "notebooks" / f"{BOTH[0]}.html").read_text()
    assert "How large it is:" in page and "10.50 ± 0.25" in page and "The size is" not in page


def test_what_is_broken_fails_twice_until_it_is_mended(tiny):
    """Fails if doctrees of a failed build stay, of which Sphinx has nothing to warn, or a failed run is a result."""
    page, notebook = tiny.root / "book" / "intro.md", tiny.root / "notebooks" / "01_first.ipynb"
    sound = {path: path.read_text() for path in (page, notebook)}
    page.write_text(sound[page] + "\nSee {ref}`nowhere`.\n")
    for _ in range(2):
        report = build_book(tiny)
        assert (report.executed, report.pages_built, report.succeeded) == ([], True, False)
    write_notebook(notebook, CODE + "\nassert n_groups == 11, 'not eleven'")
    page.write_text(sound[page])
    for _ in range(2):
        report = build_book(tiny)
        assert (report.executed, report.reused, report.succeeded) == (BOTH[:1], BOTH[1:], False)
        assert "AssertionError: not eleven" in report.failed["01_first"]
        assert not tiny.marker.exists()
    notebook.write_text(sound[notebook])
    assert build_book(tiny).succeeded


def test_a_page_that_is_gone_leaves_nothing(tiny):
    (tiny.root / "notebooks" / "02_second.ipynb").unlink()
    (tiny.root / "notebooks" / "profiles" / "smoke" / "02_second.yaml").unlink()
    toc = tiny.root / "_toc.yml"
    toc.write_text(toc.read_text().replace("  - file: notebooks/02_second\n", ""))
    assert build_book(tiny).succeeded
    assert os.listdir(tiny.html / "notebooks") == ["01_first.html"]


def test_profiles_are_checked_against_the_notebooks(tmp_path):
    """Fails if a file that sets nothing, or what the notebook does not know, or a folder's bad name goes unnoticed."""
    root = write_book(tmp_path)
    profiles = root / "notebooks" / "profiles"
    assert read_profiles(root) == {
        "default": {"01_first": {}, "02_second": {}},
        "smoke": {"01_first": {"n_groups": 3}, "02_second": {"n_groups": 3}},
    }
    with pytest.raises(ParameterError, match="no profile 'smok'; known are default, smoke"):
        build_book(Layout(root, "smok"))
    for folder, problem in (("default", "the profile default has no files"), ("Big one", "profile")):
        shutil.copytree(profiles / "smoke", profiles / folder)
        with pytest.raises(ParameterError, match=problem):
            read_profiles(root)
        shutil.rmtree(profiles / folder)
    (profiles / "smoke" / "03_third.yaml").write_text("")
    (profiles / "smoke" / "02_second.yaml").unlink()
    (profiles / "smoke" / "01_first.yaml").write_text("n_group: 3\n")
    with pytest.raises(ParameterError) as error:
        build_book(Layout(root))
    for problem in (
        "03_third.yaml belongs to no notebook",
        "02_second.yaml is missing",
        "01_first.yaml: n_group = '3': there is no parameter n_group; did you mean n_groups?",
    ):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    "name", ["{outside}", "../../outside", "..", ".", "", "smoke/../../..", "Smoke", "runs", "other"]
)
def test_a_name_that_is_no_profile_deletes_nothing(tmp_path, monkeypatch, name):
    """Fails if a build cleans up after a name that it has not looked at."""
    root = write_book(tmp_path / "book")
    outside = tmp_path / "outside"
    for folder in (outside, tmp_path, root / "_build", root / "_build" / "runs", root / "_build" / "other", root):
        (folder / "doctrees").mkdir(parents=True)
        (folder / "built").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(root)
    result = CliRunner().invoke(book.main, ["--profile", name.format(outside=outside)])
    assert result.exit_code == 2 and "profile" in result.output
    assert len(result.output.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_build_waits_for_the_first(tmp_path, monkeypatch, capsys):
    """Fails if two builds write to one folder at a time, or if waiting is not told."""
    layout, events = Layout(write_book(tmp_path)), []
    monkeypatch.setattr(book, "_build", lambda *_: events.append("second"))
    with locked(layout.folder / ".lock"):
        second = threading.Thread(target=build_book, args=(layout,))
        second.start()
        second.join(0.3)
        events.append("first")
    second.join(5)
    assert events == ["first", "second"]
    assert capsys.readouterr().err == "another build of the default book is running; waiting for it\n"


def test_a_folder_without_a_book_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(book.main, [])
    assert (result.exit_code, result.output) == (2, f"Error: there is no book in {tmp_path}: it has no _config.yml\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- {id: a, claim: x, where: y, paper: z, notbook: n}", "notbook"),
        ("- {id: a, claim: x, paper: z}", "where"),
        ("- {id: A b, claim: x, where: y, paper: z}", "pattern"),
        ("- {id: a, claim: x, where: y, paper: z}\n- {id: a, claim: x, where: y, paper: z}", "used twice: a"),
        ("- {id: a, id: b, claim: x, where: y, paper: z}", "'id' is given twice"),
        ("a: 1", "list"),
        ("[" * 10_000, "nests too deeply"),
        ("- 1\n" * 10_000, "and 9990 more"),
    ],
    ids=range(8),
)
def test_a_malformed_ledger_is_refused(tmp_path, text, problem):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=problem) as error:
        read_claims(path)
    assert len(str(error.value)) < 5000
    assert all(str(path) in line for line in str(error.value).splitlines()[:10])


def test_the_ledger_escapes_bars_says_what_is_ours_and_knows_its_verdicts(tmp_path, built):
    """Fails if a row hides that a reading, or another statement, took the place of the paper's."""
    path = tmp_path / "claims.yaml"
    ours = "regime: C, printed: P, reading: R, instead: I"
    path.write_text(f"- {{id: a, claim: '|S| is small', where: eq. 1, paper: 3, notebook: n, verdict: v, {ours}}}")
    claims = read_claims(path)
    table = verdict_table(claims, {})
    assert r"| \|S\| is small *(eq. 1)*" in table and "<br>Paper: 3 |" in table
    assert "*Conditions:* C<br>*Our reading:* R<br>*As printed:* P<br>*In its place:* I" in table
    run = execution.read_run(built / "_build" / "default" / "source" / "notebooks" / "01_first.ipynb")
    run.metrics["v"] = {"value": "nearly", "spread": None}
    with pytest.raises(ValueError, match="recorded v = 'nearly'; a verdict is one of 'reproduced'"):
        verdict_table(claims, {"n": run})
