"""From a table to a folder: what is in it, that it repeats, what is refused, and that nothing is lost on the way."""

import contextlib
import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

from gsae_book.app import own_data
from gsae_book.app.cli import main
from gsae_book.app.own_data import command_line, predict_table
from gsae_book.runs.files import lock_beside, locked
from gsae_book.runs.targets import CLUSTERING

COLUMNS = [f"c{k}" for k in range(6)]
ROWS = 240
WRITTEN = [name for name in CLUSTERING if not name.startswith("trained")]


def flats(n_samples=ROWS):
    """Three planes through the origin in six dimensions, and which of them each sample lies near."""
    rng = np.random.default_rng(0)
    bases = np.linalg.qr(rng.standard_normal((3, 6, 2)))[0]
    kinds = np.arange(n_samples) % 3
    values = np.einsum("nij,nj->ni", bases[kinds], 3 * rng.standard_normal((n_samples, 2)))
    return values + 0.02 * rng.standard_normal(values.shape), kinds


def balls(n_samples=ROWS):
    """Three balls."""
    rng = np.random.default_rng(0)
    kinds = np.arange(n_samples) % 3
    return 8 * rng.standard_normal((3, 6))[kinds] + rng.standard_normal((n_samples, 6)), kinds


def write_table(path, values, kinds, **settings):
    frame = pd.DataFrame(values, columns=COLUMNS)
    frame["kind"] = np.array(["ant", "bee", "cat"])[kinds]
    frame.to_csv(path, **{"index": False} | settings)


@pytest.fixture
def gsae(tmp_path, monkeypatch):
    """A function that calls the command in a folder that is no project."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module", params=["flats", "balls"])
def results(request, tmp_path_factory):
    """A table, and the folder that the command makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    values, kinds = {"flats": flats, "balls": balls}[request.param]()
    write_table(folder / "my.csv", values, kinds, sep=";", decimal=",")
    arguments = ["cluster", str(folder / "my.csv"), "--clusters", "3", "--label", "kind", "-o", str(folder / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return request.param, folder, result


def test_labels_of_each_row(results):
    """Fails if a row is lost or shifted, or if the label takes part in what it is to judge."""
    kind, folder, result = results
    labels = pd.read_csv(folder / "out" / "labels.csv")
    assert list(labels)[:4] == ["row", "cluster", "confidence", "distance_to_next"]
    assert labels["row"].tolist() == list(range(ROWS)) and labels["cluster"].nunique() == 3
    assert labels["confidence"].between(0, 1).all() and labels["distance_to_next"].between(-1, 1).all()
    assert pd.crosstab(np.arange(ROWS) % 3, labels["cluster"]).max(axis=1).sum() >= 0.9 * ROWS
    chosen = "k_means" if kind == "balls" else "group_norms"
    assert (labels["cluster"] == labels[chosen]).all()
    assert "separated by semicolons, decimals by ','" in result.stderr and "s more" in result.stderr
    assert "labels.csv" in result.stdout and ("k-means is the better tool" in result.stdout) == (kind == "balls")


def test_the_lines_of_python_repeat_it(results, capsys):
    """Fails if repeat.py gives other labels than labels.csv."""
    _, folder, _ = results
    names = runpy.run_path(str(folder / "out" / "repeat.py"))
    assert names["labels"].tolist() == pd.read_csv(folder / "out" / "labels.csv")["cluster"].tolist()
    assert capsys.readouterr().out == f"{ROWS} rows in 3 clusters\n"


def test_a_name_of_a_file_does_not_end_the_program(gsae):
    """Fails if a file whose name has quotes, escapes or ends of lines makes a repeat.py that is no Python."""
    name = 'a\\N""" \n{x}.csv'
    write_table(name, *balls(20))
    result = gsae("cluster", name, "--clusters", "2", "--label", "kind", "-o", "out")
    assert result.exit_code == 0, result.output
    names = runpy.run_path("out/repeat.py")
    assert names["labels"].tolist() == pd.read_csv("out/labels.csv")["cluster"].tolist()


@pytest.mark.parametrize(("value", "scaling"), [(0.0, "auto"), (3.5, "standardize")])
def test_a_constant_table_has_a_report(gsae, value, scaling):
    """Fails if a table in which nothing varies ends in a trace of the program."""
    write_table("my.csv", np.full((40, 6), value), np.zeros(40, dtype=int))
    result = gsae("cluster", "my.csv", "--label", "kind", "--scaling", scaling)
    assert result.exit_code == 0, result.output
    assert "the samples are all zero, or nearly, once scaled" in result.stdout
    assert "There is no other clustering, for the reason above." in Path("my-clusters/report.html").read_text()
    assert pd.read_csv("my-clusters/labels.csv")["cluster"].tolist() == [0] * 40


def test_the_report_stands_alone(results):
    """Fails if the page asks for anything of another file, or lacks what it promises, or a reader of it is left out."""
    kind, folder, _ = results
    text = (folder / "out" / "report.html").read_text(encoding="utf8")
    assert len(text) < 2_000_000
    page = BeautifulSoup(text, "html.parser")
    sources = [tag[name] for tag in page.find_all(True) for name in ("src", "href", "action") if tag.has_attr(name)]
    assert sources and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not page.find_all(["script", "link", "iframe"]) and page.html["lang"] == "en"
    assert all(len(image["alt"]) > 20 for image in page.find_all("img"))
    assert all(table.caption and table.find("th", scope="col") for table in page.find_all("table"))
    titles = [title.text for title in page.find_all("h2")]
    assert [title for title in titles if title != "Groups as features"] == [
        "What was read",
        "What was chosen, and why",
        "The clusters",
        "Typical and doubtful rows",
        "The baseline beside it",
        "Against the label kind",
        "When not to trust this",
        "Again",
    ]
    assert ("Groups as features" in titles) == (kind == "flats")
    assert "semicolons" in page.text and "c0" in page.text and "ant" in page.text and "nan" not in page.text.split()
    repeat = (folder / "out" / "repeat.py").read_text(encoding="utf8")
    assert page.pre.text.strip() == repeat.strip()


def test_new_rows_take_the_old_clusters(results, gsae, tmp_path):
    """Fails if new rows are scaled or clustered otherwise than the old ones, or columns are taken by their place."""
    _, folder, _ = results
    old = pd.read_csv(folder / "out" / "labels.csv")
    again = predict_table(folder / "out", folder / "my.csv")
    assert again["cluster"].tolist() == old["cluster"].tolist()
    np.testing.assert_allclose(again["distance_to_next"], old["distance_to_next"], atol=2e-6)
    frame = pd.read_csv(folder / "my.csv", sep=";", decimal=",")
    frame[[*COLUMNS[::-1], "kind"]][::-1].assign(more=1).to_csv(tmp_path / "new.csv", index=False)
    result = gsae("predict", folder / "out", "new.csv", "-o", "new/labels.csv")
    assert result.exit_code == 0, result.output
    assert pd.read_csv("new/labels.csv")["cluster"].tolist() == old["cluster"].tolist()[::-1]
    result = gsae("predict", folder / "out", "new.csv", "-o", "new/labels.csv")
    assert result.exit_code == 2 and "it must be a new file, or --force be given" in result.output
    frame.loc[4, COLUMNS] = np.nan
    frame.to_csv(tmp_path / "gap.csv", index=False)
    result = gsae("predict", folder / "out", "gap.csv", "-o", "gap_labels.csv")
    assert result.exit_code == 2 and "row 4, column 'c0' is missing" in result.output
    assert gsae("predict", folder / "out", "gap.csv", "-o", "gap_labels.csv", "--missing", "impute").exit_code == 0
    assert (pd.read_csv("gap_labels.csv")["cluster"] == old["cluster"]).drop(4).all()
    assert gsae("predict", folder / "out", "gap.csv", "-o", "drop_labels.csv", "--missing", "drop-rows").exit_code == 0
    assert pd.read_csv("drop_labels.csv")["cluster"].isna().to_numpy().nonzero()[0].tolist() == [4]
    few = pd.DataFrame(np.full((2, 6), 1.234), columns=COLUMNS)
    few.to_csv(tmp_path / "few.csv", sep=";", decimal=",", index=False)
    result = gsae("predict", folder / "out", "few.csv", "-o", "few_labels.csv")
    assert result.exit_code == 2 and "'1,234' may be 1.234 or 1234; --decimal ',' says the first" in result.output
    assert gsae("predict", folder / "out", "few.csv", "-o", "few_labels.csv", "--decimal", ",").exit_code == 0
    frame.drop(columns="c3").to_csv(tmp_path / "less.csv", index=False)
    result = gsae("predict", folder / "out", "less.csv", "-o", "less_labels.csv")
    assert result.exit_code == 2 and "there is no such column" in result.output and "'c3'" in result.output
    assert not Path("less_labels.csv").exists()


@pytest.mark.parametrize("kind", ["flats", "balls"])
def test_a_folder_of_version_0_3_is_read(kind):
    """Fails if a folder that version 0.3 wrote gives other clusters or distances than it gave then."""
    folder = Path(__file__).with_name("version_0_3") / kind
    found = predict_table(folder, folder / "rows.csv")
    pd.testing.assert_frame_equal(found, pd.read_csv(folder / "expected.csv"), check_dtype=False, atol=2e-6)


@pytest.mark.parametrize("damage", ["clustering.json", "arrays.npz", "none"])
def test_a_damaged_folder_is_refused(results, gsae, tmp_path, damage):
    """Fails if a folder that is not whole gives labels, or a raw error."""
    _, folder, _ = results
    (tmp_path / "copy").mkdir()
    for path in (folder / "out").iterdir():
        content = path.read_bytes()
        (tmp_path / "copy" / path.name).write_bytes(content[: len(content) // 2] if path.name == damage else content)
    if damage == "none":
        (tmp_path / "copy" / "clustering.json").unlink()
    result = gsae("predict", "copy", folder / "my.csv", "-o", "labels.csv")
    assert result.exit_code == 2 and "copy holds no clustering" in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "there is no such file"),
        (["my.csv", "--clusters", "three"], "--clusters 'three' is not allowed: it must be auto or an integer, from 2"),
        (["my.csv", "--clusters", "1"], "--clusters '1' is not allowed: it must be auto or an integer, from 2"),
        (["none.csv"], "path='none.csv': there is no such file"),
        (["my.csv", "--clusters", "1000"], "n_clusters=1000"),
        (["my.csv", "--label", "kinds"], "--label 'kinds': there is no such column; did you mean 'kind'?"),
        (["my.csv", "--drop", "c0,c9"], "--drop 'c9': there is no such column"),
        (["my.csv", "--columns", "kind"], "row 0, column 'kind': 'ant' is not a number; --drop 'kind' leaves"),
        (
            ["large.csv"],
            "'1,234' may be 1.234 or 1234; --decimal ',' says the first, for the second take the commas out",
        ),
        (["gaps.csv"], "row 1, column 'b' is missing or infinite, as are 1 cells in all; --missing drop-rows or"),
        (["pipe.csv"], "it is a pipe, expected a file"),
        (["my.csv", "-o", "my.csv"], "-o = 'my.csv' is not allowed: it must be a folder"),
        (["my.csv", "-o", "my.csv/out"], "Not a directory"),
        (["my.csv", "-o", "project/notebooks/out"], "it must be outside"),
        (["my.csv", "-o", "project/results"], "it must be outside"),
        (["my.csv", "-o", "old"], "old/labels.csv' is not allowed: it must be a new file, or --force be given"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(gsae, tmp_path, arguments, message):
    """Fails if a mistake leaves a trace of the program, or a file, or is noticed after the work."""
    write_table("my.csv", *flats())
    Path("gaps.csv").write_text("a,b\n1,2\n3,\n4,5\n")
    Path("large.csv").write_text('a,b\n1,"1,234"\n2,"5,678"\n')
    os.mkfifo("pipe.csv")
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "project" / "_config.yml").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "labels.csv").write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    result = gsae("cluster", *arguments)
    assert result.exit_code == 2 and message in result.output, result.output
    assert result.output.strip().splitlines()[-1].startswith("Error: ") and "Traceback" not in result.output
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_force_replaces_results_and_nothing_else(gsae, tmp_path, monkeypatch):
    """Fails if a run destroys what it did not write, leaves a file of older results, or half of its own."""
    write_table("my.csv", *flats())
    write_table("balls.csv", *balls())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert gsae("cluster", "my.csv", "--clusters", "3", "-o", "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*WRITTEN, "notes.txt"}
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(
            "gsae_book.app.report.report_page", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        result = gsae("cluster", "balls.csv", "--clusters", "3", "-o", "out", "--force")
    assert result.exit_code == 2 and "No space left" in result.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "trained.json").write_text("of older results")
    assert gsae("cluster", "balls.csv", "--clusters", "3", "-o", "out", "--force").exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*WRITTEN, "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {"my.csv", "balls.csv", "out"}


def test_rows_that_are_left_out_keep_their_place(gsae, tmp_path):
    """Fails if labels of a table with gaps stand beside other rows than theirs."""
    values, kinds = flats()
    values[[3, 40], 1] = np.nan
    write_table("my.csv", values, kinds)
    assert gsae("cluster", "my.csv", "--clusters", "3", "--missing", "drop-rows", "--drop", "kind").exit_code == 0
    labels = pd.read_csv("my-clusters/labels.csv")
    assert labels["row"].tolist() == list(range(ROWS)) and labels["cluster"].isna().to_numpy().nonzero()[
        0
    ].tolist() == [
        3,
        40,
    ]
    lines = Path("my-clusters/labels.csv").read_text().splitlines()
    assert lines[4].startswith("3,,") and re.match(r"4,\d,", lines[5])
    write_table("named.csv", values, kinds, index=True)
    result = gsae("cluster", "named.csv", "--clusters", "3", "--missing", "impute", "--label", "kind")
    assert result.exit_code == 0, result.output
    with Path("named-clusters/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == [str(k) for k in range(ROWS)]
    saved = json.loads(Path("named-clusters/clustering.json").read_text())
    assert saved["fill"]["c1"] == pytest.approx(np.nanmedian(values[:, 1]))
    again = predict_table(Path("named-clusters"), Path("named.csv"))
    assert again["cluster"].tolist() == [int(row["cluster"]) for row in rows]


@pytest.mark.parametrize("rows", [2, 5, 20])
def test_small_tables_get_an_answer(gsae, rows):
    """Fails if a table that is too small for a dictionary gets an error in place of a simpler model."""
    write_table("my.csv", *flats(rows))
    result = gsae("cluster", "my.csv", "--label", "kind")
    assert result.exit_code == 0, result.output
    assert len(pd.read_csv("my-clusters/labels.csv")) == rows


def test_it_needs_no_project_and_no_notebooks(tmp_path):
    """Fails if the command imports what runs notebooks or makes the book."""
    write_table(tmp_path / "my.csv", *flats())
    others = ["papermill", "nbformat", "nbclient", "IPython", "jupyter_book", "distributed", "pydantic"]
    code = (
        f"import sys; sys.modules |= dict.fromkeys({others})\n"
        "from gsae_book.app.cli import main\n"
        "main(['cluster', 'my.csv', '--clusters', '3'], standalone_mode=False)\n"
        "main(['predict', 'my-clusters', 'my.csv', '-o', 'new.csv'], standalone_mode=False)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MPLBACKEND": "agg"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-clusters", "my.csv", "new.csv"]


def test_messages_speak_the_language_of_the_command():
    """Fails if a message tells to type what the command does not know."""
    for text, expected in {
        "drop=['a b'] leaves": "--drop 'a b' leaves",
        "missing='drop rows' or missing='impute' goes": "--missing drop-rows or --missing impute goes",
        "a header: a, b; header=False says": "a header: a, b; --no-header says",
        "index='' makes; part= takes; label='x': no": "--index '' makes; --part  takes; --label 'x': no",
        "decimal=',' reads": "--decimal ',' reads",
        "path='a=b'": "path='a=b'",
    }.items():
        assert command_line(text).split() == expected.split()


def copy_of(folder, to, *, without=()):
    """A copy of the results in a folder."""
    to.mkdir()
    for path in folder.iterdir():
        if path.name not in without:
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_what_was_changed_is_refused(results, gsae, tmp_path):
    """Fails if a model that was edited, mixed with another or made without a checksum gives labels, or a trace."""
    _, folder, _ = results
    text = (folder / "out" / "clustering.json").read_text()
    saved = json.loads(text)
    old = {name: value for name, value in saved.items() if name not in ("files", "sha256")}
    edits = {
        "swapped": json.dumps(saved | {"columns": saved["columns"][::-1]}),
        "kinds": json.dumps(saved | {"reading": 3, "fill": None}),
        "list": "[1]",
        "deep": "[" * 10**5,
        "version 0.3": json.dumps(old),
    }
    for name, edit in edits.items():
        copy_of(folder / "out", tmp_path / name)
        (tmp_path / name / "clustering.json").write_text(edit)
    other = dict(np.load(folder / "out" / "arrays.npz"))
    copy_of(folder / "out", tmp_path / "mixed")
    np.savez(tmp_path / "mixed" / "arrays.npz", **other | {"means": other["means"] + 1})
    for name in [*edits, "mixed"]:
        result = gsae("predict", name, folder / "my.csv", "-o", "labels.csv")
        assert result.exit_code == 2 and f"{name} holds no clustering that can be read: " in result.output
        assert len(result.output.strip().splitlines()) == 1 and not (tmp_path / "labels.csv").exists()
        assert ("gsae cluster TABLE -o FOLDER --force makes it anew" in result.output) == (name == "version 0.3")
    (copy_of(folder / "out", tmp_path / "kept") / "labels.csv").write_text("seen in a spreadsheet")
    assert gsae("predict", "kept", folder / "my.csv", "-o", "labels.csv").exit_code == 0


class Killed(BaseException):
    """Ends a call in between, as a kill does: nothing catches it."""


def test_a_killed_replacement_leaves_the_old_or_the_new(gsae, tmp_path, monkeypatch):
    """Fails if files of two clusterings ever stand beside each other, or a kill loses both, or a file of the user."""
    write_table("flats.csv", *flats())
    write_table("balls.csv", *balls())
    found = {}
    for name, table in {"old": "flats.csv", "new": "balls.csv"}.items():
        assert gsae("cluster", table, "--clusters", "3", "--label", "kind", "-o", name).exit_code == 0
        found[name] = {path.name: path.read_bytes() for path in Path(name).iterdir()}
    expected = predict_table(Path("new"), Path("balls.csv"))
    replace_file, unlink, moments = os.replace, Path.unlink, 0
    for moment in range(40):
        out = copy_of(Path("old"), tmp_path / f"killed {moment}")
        copy_of(Path("new"), out / ".gsae-whole")
        copy_of(Path("old"), out / ".gsae-torn", without=["clustering.json"])
        (out / "notes.txt").write_text("mine")
        for left in (moment, moment // 2):  # the first call is killed, and the one that ends it, too
            steps = iter(range(left))

            def step(call, steps=steps):
                def counted(*given, **settings):
                    if next(steps, None) is None:
                        raise Killed
                    return call(*given, **settings)

                return counted

            with monkeypatch.context() as patch, contextlib.suppress(Killed):
                patch.setattr(os, "replace", step(replace_file))
                patch.setattr(Path, "unlink", step(unlink))
                own_data._end_replacing(out)
                moments = moments or moment
            files = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
            assert files.pop("notes.txt") == b"mine"
            assert any(files.items() <= one.items() for one in found.values()), sorted(files)
        pd.testing.assert_frame_equal(predict_table(out, Path("balls.csv")), expected)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == found["new"] | {
            "notes.txt": b"mine"
        }
    assert 5 < moments < 40, "the last of them were not killed"
    assert gsae("cluster", "balls.csv", "--clusters", "3", "--label", "kind", "-o", out, "--force").exit_code == 0
    assert {path.name for path in out.iterdir()} == {*found["new"], "notes.txt"}


def test_one_clustering_at_a_time_is_made_in_a_folder(gsae):
    """Fails if two commands work for one folder, and the later replaces what the other has just made."""
    write_table("my.csv", *balls())
    with locked(lock_beside(Path("out/labels.csv"))):
        result = gsae("cluster", "my.csv", "-o", "out", "--force")
    assert result.exit_code == 2 and result.output == "Error: -o = 'out': another clustering is made there\n"


@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
def test_no_command_writes_over_what_it_reads(gsae, tmp_path, link):
    """Fails if --force replaces the table or the model that the command reads, by its name or through a link."""
    write_table("my.csv", *balls(), index=True)
    assert gsae("cluster", "my.csv", "--clusters", "3", "--drop", "kind", "-o", "out").exit_code == 0

    def named(path):
        if link == "none":
            return path
        other = tmp_path / f"link-{Path(path).name}"
        other.symlink_to(tmp_path / path) if link == "symbolic" else os.link(path, other)
        return other.name

    calls = [["predict", "out", "my.csv", "-o", named("my.csv"), "--force"]]
    calls += [
        ["predict", "out", "my.csv", "-o", named(f"out/{path.name}"), "--force"] for path in Path("out").iterdir()
    ]
    Path("apart").mkdir()
    os.link("out/labels.csv", "apart/labels.csv")
    calls += [["cluster", "out/labels.csv", "-o", "out", "--force"]]
    calls += [["cluster", "out/labels.csv", "-o", "apart", "--force"]]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for call in calls:
        result = gsae(*call)
        assert result.exit_code == 2 and "is not allowed: the command reads this file" in result.output, call
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert gsae("predict", "out", "my.csv", "-o", "out/new.csv").exit_code == 0


def test_a_spreadsheet_runs_no_name(gsae):
    """Fails if a name of a row that a spreadsheet takes for a formula stands as it is in a table of labels."""
    values, kinds = balls(9)
    write_table("my.csv", values, kinds)
    names = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "-3", "+4.5e-3", "plain", "'quoted", "a=b"]
    frame = pd.read_csv("my.csv")
    frame.insert(0, "id", names)
    frame.to_csv("my.csv", index=False)
    assert gsae("cluster", "my.csv", "--clusters", "2", "--label", "kind", "--index", "id", "-o", "out").exit_code == 0
    assert gsae("predict", "out", "my.csv", "-o", "new.csv").exit_code == 0
    for path in ("out/labels.csv", "new.csv"):
        assert pd.read_csv(path)["index"].tolist() == [f"'{name}" for name in names[:4]] + names[4:]


def test_a_name_that_is_not_utf8(gsae, tmp_path):
    """Fails if a table whose name is no UTF-8 is refused after the work, or without its name."""
    name = os.fsdecode(b"my\xff.csv")
    try:
        write_table(name, *balls())
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    result = gsae("cluster", name, "--clusters", "3", "--label", "kind")
    assert result.exit_code == 2 and r"-o = 'my\udcff-clusters/labels.csv' is not allowed" in result.output
    assert gsae("cluster", name, "--clusters", "3", "--label", "kind", "-o", "out").exit_code == 0
    assert gsae("predict", "out", name, "-o", "new.csv").exit_code == 0
    assert r"my\udcff.csv" in Path("out/report.html").read_text(encoding="utf8")
    assert runpy.run_path("out/repeat.py")["labels"].tolist() == pd.read_csv("new.csv")["cluster"].tolist()
