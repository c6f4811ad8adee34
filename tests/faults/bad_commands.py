"""Commands with a word spoiled, or with a file that they read damaged: parameters, specifications, notebooks."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st
from tiny_book import cell, notebook

from faults import stories
from faults.bad_values import DAMAGED, Spoiling, draw, json_changes, short, texts
from faults.judging import Case, Command
from faults.scratch_project import PARAMETERS, RECORD, RECORDS, SPEC, TABLE, sweep_point, write_sweep

PER_LINE, PER_FILE = 16, 16
MANY = 11  # lines of a message, where several things are wrong
OUTPUTS = ("_build/*", "out*", "results/verified.json", ".*", "ran.txt")


class Slot(NamedTuple):
    """A word of a command, and what cannot stand there."""

    good: str
    bad: st.SearchStrategy


def _no(good: str, *values: str, random: bool = True) -> Slot:
    """A slot for which some values are bad, and random letters, unless it is a place, where they may be a new one."""
    bad = st.sampled_from(values)
    no_letters = st.characters(exclude_categories=["Nd", "No", "Nl", "Cs"], exclude_characters="\0 ,-")
    return Slot(good, bad | st.text(no_letters, min_size=4) if random else bad)


def _place(good: str, *values: str, suffix: str = "") -> Slot:
    return _no(good, *values, *(f"{p}{suffix}" for p in stories.PROTECTED + stories.UNWRITABLE), random=False)


NOTEBOOK = _no("1", *stories.NO_NOTEBOOKS)
VALUES = {
    "n_groups": _no("3", *stories.NO_VALUES, "0", "-1", "1" + "0" * 40, "1.5", "true", "1e3", "1j"),
    "rate": _no("0.1", *stories.NO_VALUES, "0", "-0.5", "true", "1j", "0.5 0.6"),
    "kind": _no("a", "c", "A", "a ", "", "ab", "a\n", "['a']"),
    "clusters": _no("auto", *stories.NO_VALUES, "1", "Auto", "auto ", "2.0"),
    "flag": _no("true", "", "1", "0", "2", "None", "[true]"),
    "seeds": _no("[1]", "", "[]", "1", "[1.5]", "['a']", "[[1]]", "[1", "range(3)", "[" * 3000, "[true]", "[1e400]"),
    "sizes": _no("[1.0]", "", "1", "[true]", "['a']", "(1,", "nan", "[inf]", "[1, [2]]", "{}"),
}
SWEEP = _no("sweep", *stories.NO_FILES, "mine.txt", "book", "notebooks/01_first.ipynb", "/dev/null")
OUT = _no("out.ipynb", "", ".", "/", "out.txt", "mine.ipynb", "folder.ipynb", "link.ipynb", "out.ipynb\n")
FOLDER = _no("out", *stories.PROTECTED, "mine.txt/", random=False)
CHECKPOINT = _no("out", *stories.PROTECTED, "new/", ".", "/", "mine.txt/", random=False)
NEW_FOLDER = _no("out", "mine.txt", "book", "", "nowhere", "sweep/points", "/", random=False)
METRIC, OVER = _no("value", "", "x" * 5000, "point.key"), _no("seed", "", ",", "seed,seed")
RECORDED = _no("first", "", "../counting/first", "first.yaml", "../../x", "\x1b[2J", "\udcff", "a\nb", "x" * 5000)
DATA_SET = _no("mnist", "", "../mnist", "\x1b[2J", "MNIST", "x" * 10_000)
JOBS = _no("1", "0", "-1", "1e3", "", "x")
LINES: list[tuple[str | Slot, ...]] = [
    *(("run", "1", "-p", name, slot) for name, slot in VALUES.items()),
    ("run", NOTEBOOK, "-p", _no("n_groups", *stories.NO_NAMES), "1"),
    ("run", "1", "-f", _no("p.yaml", *stories.NO_FILES)),
    ("run", "1", "-o", _place("out.ipynb", suffix=".ipynb"), "--force"),
    ("run", "1", "-o", OUT),
    ("run", "1", "-p", "save_to", FOLDER),
    ("run", "1", "-p", "checkpoint", CHECKPOINT, "--force"),
    ("show", NOTEBOOK),
    ("sweep", _no("spec.yaml", *stories.NO_FILES), "-o", _place("out"), "--jobs", JOBS),
    ("sweep", "spec.yaml", "-o", NEW_FOLDER),
    ("collate", SWEEP, "-o", _place("out.csv", "out", "", ".", "table.csv", suffix=".csv")),
    ("collate", "sweep", "-o", "out.csv", "--plot", METRIC, "--over", OVER),
    ("diff", "sweep", SWEEP),
    ("record", RECORDED, "--jobs", JOBS),
    ("verify", RECORDED, "--jobs", JOBS),
    ("data", DATA_SET, "--from", _no(".", "mine.txt", "")),
]


def good_words(line: tuple[str | Slot, ...]) -> tuple[str, ...]:
    """The words of a valid command."""
    return tuple(word.good if isinstance(word, Slot) else word for word in line)


def bad_lines(line: tuple[str | Slot, ...]) -> st.SearchStrategy:
    """Pairs of the words of a command and whether they may be right: a slot is filled badly, or a word is too much."""
    words = good_words(line)
    slots = [k for k, word in enumerate(line) if isinstance(word, Slot)]
    filled = [line[k].bad.map(lambda bad, k=k: ((*words[:k], bad, *words[k + 1 :]), False)) for k in slots]
    places = st.integers(0, len(words) - 1)
    gone = places.map(lambda k: ((*words[:k], *words[k + 1 :]), True))
    more = st.builds(
        lambda k, word: ((*words[: k + 1], word, *words[k + 1 :]), True),
        places,
        st.sampled_from(["--nope", "-1", "", "x"]),
    )
    return st.one_of(*filled, *filled, gone, more)


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    """A function that writes a file of that name and content below a folder."""
    packed = content if isinstance(content, bytes) else content.encode("utf8", "surrogatepass")
    return lambda root: (root / name).write_bytes(packed)


def command_cases(rng: random.Random) -> Iterator[Case]:
    """Command lines, and commands on a project of which a file is damaged."""
    for line in LINES:
        n_cases = PER_LINE * sum(isinstance(word, Slot) for word in line)
        for words, accepted in draw(bad_lines(line), n_cases, rng):
            yield _case(" ".join(map(short, words))[:200], *words, accepted=accepted)
    for text in stories.HOSTILE:
        arguments = ("run", "1", "-p", "name", text, "-o", "out.ipynb")
        yield _case(f"a hostile text {short(text)}", *arguments, fresh="system" in text, accepted=True)
    for place in ("mine.txt", "/dev/null", "/proc", "\udcff", "nowhere"):
        yield _case(f"GSAE_CACHE={short(place)}: info", "info", environment={"GSAE_CACHE": place}, accepted=True)
    for command in ("run 1", "sweep spec.yaml -o out", "collate sweep -o out.csv", "verify first", "diff sweep other"):
        gone = {"prepare": lambda root: (root / "gone").mkdir(), "folder": "gone!", "may_change": ("gone",)}
        yield _case(f"{command} in a folder that is gone", *command.split(), **gone)
    names = [argument for k in range(2000) for argument in ("-p", f"n{k}", "1")]
    yield _case("2,000 unknown names", "run", "1", *names, n_lines=MANY)
    yield _case("-o twice, the last one protected", "run", "1", "-o", "out.ipynb", "-o", "notebooks/x.ipynb")
    yield from _damaged_projects(rng)


def _case(name: str, *arguments: str, may_change: tuple[str, ...] | None = None, **settings: Any) -> Case:
    if may_change is None:
        may_change = OUTPUTS if settings.get("accepted") else ("_build/*",)
    return Case("command lines", name, Command(arguments, **settings), may_change)


READ: dict[str, tuple[Any, list[str]]] = {  # files of the project, what they hold, and commands that read them
    "results/paper/first.json": (RECORD, ["verify first", "diff results/paper/first.json sweep"]),
    "results/verified.json": ({"first": {"date": "2026-01-01"}}, ["verify first"]),
    "experiments/counting/first.yaml": (SPEC, ["verify first"]),
    "sweep/keys.txt": (f"{0:064d}\n{1:064d}\n", ["collate sweep -o out.csv"]),
    "sweep/spec.yaml": (SPEC, ["collate sweep -o out.csv"]),
    f"sweep/points/{0:064d}.json": (sweep_point(0), ["collate sweep -o out.csv", "diff sweep other"]),
    "t.csv": (TABLE, ["diff t.csv table.csv"]),
    "t.parquet": ("mine, and no table", ["diff t.parquet sweep"]),
}
ODD_RESULTS = (10**400, "9" * 5000, float("nan"), True, None, "text", [1, [2]], {"a": 1})


def _damaged_projects(rng: random.Random) -> Iterator[Case]:
    settings = {"accepted": True, "n_lines": MANY}
    for path, (content, commands) in READ.items():
        whole = content if isinstance(content, str) else json.dumps(content)
        changes = texts(whole).map(text_change) if isinstance(content, str) else json_changes(content, depth=5)
        for line in commands:
            for damage in draw(DAMAGED, PER_FILE, rng):
                prepare = write(path, damage.change(whole.encode()))
                yield _case(f"{line}, {path}: {damage.name}", *line.split(), prepare=prepare, **settings)
            for change in draw(changes, PER_FILE, rng):
                prepare = write(path, as_text(change.change(content)))
                yield _case(f"{line}, {path}: {change.name}", *line.split(), prepare=prepare, **settings)
    for value in ODD_RESULTS:
        point = sweep_point(0, rows=[{"value": value}])
        prepare = lambda root, point=point: write_sweep(root / "odd", point)  # noqa: E731
        for line in ("collate odd -o out.csv", "collate odd -o out.parquet", "diff odd odd"):
            yield _case(f"{line}, a result {short(value)}", *line.split(), prepare=prepare, accepted=True)


def text_change(text: str) -> Spoiling:
    """What puts a text in the place of another."""
    return Spoiling(short(text[-40:]), lambda _: text)


def as_text(content: Any) -> str | bytes:
    """A text or bytes as they are, and anything else as JSON."""
    return content if isinstance(content, str | bytes) else json.dumps(content)


def parameter_file_cases(rng: random.Random) -> Iterator[Case]:
    """Files of parameters, and specifications."""

    def case(line: str, name: str, content: str | bytes, accepted: bool = False) -> Case:
        fresh = "executed" in str(content) or content == stories.BOMB.encode()
        run = Command(tuple(line.split()), write("bad.yaml", content), accepted=accepted, n_lines=MANY, fresh=fresh)
        return Case("YAML and specifications", f"{line}: {name}", run, OUTPUTS if accepted else ("_build/*",))

    run, sweep = "run 1 -f bad.yaml", "sweep bad.yaml -o out"
    for content in stories.YAML:
        yield case(run, short(content), content)
        yield case(sweep, short(content), stories.MEASURE.encode() + content)
    for text in stories.SPECS:
        yield case(sweep, short(text), text)
    values = {"n_groups": 3, "rate": 0.5, "kind": "a", "seeds": [1, 2], "sizes": [1.0]}
    ranges = {"n_points": 2, "seed": 0, "ranges": {"rate": [1, 2]}, "log": ["rate"]}
    spec = {"function": "sweep_tasks.measure", "grid": {"seed": [0, 1], "kind": ["a"]}, "list": [{"size": 1}]}
    spec |= {"random": ranges, "limits": {"seconds": 5}}
    for line, good in ((run, values), (sweep, spec)):
        for change in draw(json_changes(good), 4 * PER_FILE, rng):
            yield case(line, change.name, json.dumps(change.change(good)), accepted=True)
        for text in draw(texts(json.dumps(good)), 2 * PER_FILE, rng):
            yield case(line, short(text[-40:]), text, accepted=True)


def notebook_cases(rng: random.Random) -> Iterator[Case]:
    """Notebooks: the cell of parameters, other cells, the file."""

    def case(name: str, content: Any, accepted: bool = False, **settings: Any) -> Case:
        prepare = write("bad.ipynb", as_text(content))
        return Case(
            "notebooks", name, Command(("run", "bad.ipynb", "-o", "out.ipynb"), prepare, accepted, **settings), OUTPUTS
        )

    for source in stories.CELLS:
        yield case(f"parameters: {short(source)}", notebook(source))
    yield case("code in the parameters cell", notebook("open('executed', 'w')\nx: int = 1"), fresh=True)
    good = notebook(PARAMETERS, RECORDS)
    long = cell("1") | {"outputs": [{"output_type": "stream", "name": "stdout", "text": "x" * 20_000_000}]}
    yield case("an output of 20 MB", good | {"cells": [*good["cells"], long]}, accepted=True)
    yield case("two parameters cells", good | {"cells": [*good["cells"], good["cells"][2]]})
    yield case("parameters in a cell of text", good | {"cells": [good["cells"][2] | {"cell_type": "markdown"}]})
    for text in draw(texts(PARAMETERS), 3 * PER_FILE, rng):
        yield case(f"parameters: {short(text[-40:])}", notebook(text, RECORDS), accepted=True, n_lines=MANY)
    for change in draw(json_changes(good, depth=5), 4 * PER_FILE, rng):
        yield case(change.name, change.change(good), accepted=True, n_lines=MANY)
    for damage in draw(DAMAGED, 2 * PER_FILE, rng):
        yield case(damage.name, damage.change(json.dumps(good).encode()), accepted=True, n_lines=MANY)
