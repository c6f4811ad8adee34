"""Commands with a word spoiled, or with a file that they read damaged: parameters, specifications, notebooks."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from faults import stories
from faults.bad_values import DAMAGED, draw, json_changes, short, texts
from faults.judging import Case, Command
from faults.scratch_project import ABOUT, PARAMETERS, POINTS, SPEC, cell, notebook, sweep_point, write_sweep

PER_LINE, PER_FILE = 16, 16
MANY = 11  # lines of a message, where several things are wrong
OUTPUTS = ("_build/*", "out*", "results/verified.json", ".*")


class Slot(NamedTuple):
    """A word of a command, and what cannot stand there."""

    good: str
    bad: st.SearchStrategy


def _no(good: str, *values: str, random: bool = True) -> Slot:
    bad = st.sampled_from(values)
    letters = st.text(
        st.characters(exclude_categories=["Nd", "No", "Nl", "Cs"], exclude_characters="\0 ,-"), min_size=4
    )
    return Slot(good, bad | letters if random else bad)


def _target(good: str, suffix: str) -> Slot:
    return _no(good, *(f"{place}{suffix}" for place in stories.PROTECTED + stories.UNWRITABLE), random=False)


NOTEBOOK = _no("1", *stories.NO_NOTEBOOKS)
VALUES = {
    "n_groups": _no("3", *stories.NO_VALUES, "0", "-1", "1" + "0" * 40, "1.5", "true", "1e3", "1j"),
    "rate": _no("0.1", *(v for v in stories.NO_VALUES), "0", "-0.5", "true", "1j", "0.5 0.6"),
    "kind": _no("a", "c", "A", "a ", "", "ab", "a\n", "['a']"),
    "clusters": _no("auto", *stories.NO_VALUES, "1", "Auto", "auto ", "2.0"),
    "flag": _no("true", "", "1", "0", "2", "None", "[true]"),
    "seeds": _no("[1]", "", "[]", "1", "[1.5]", "['a']", "[[1]]", "[1", "range(3)", "[" * 3000, "[true]", "[1e400]"),
    "sizes": _no("[1.0]", "", "1", "[true]", "['a']", "(1,", "nan", "[inf]", "[1, [2]]", "{}"),
}
FILE = _no("p.yaml", *stories.NO_FILES)
SWEEP = _no("sweep", *stories.NO_FILES, "mine.txt", "book", "notebooks/01_first.ipynb", "/dev/null")
FOLDER = _target("out", "")
TABLE_OUT = _no(
    "out.csv", *(f"{p}.csv" for p in stories.PROTECTED + stories.UNWRITABLE), "out", "", ".", "table.csv", random=False
)
JOBS = _no("1", "0", "-1", "1e3", "", "x")
LINES: list[tuple[str | Slot, ...]] = [
    *(("run", "1", "-p", name, slot) for name, slot in VALUES.items()),
    ("run", NOTEBOOK, "-p", _no("n_groups", *stories.NO_NAMES), "1"),
    ("run", "1", "-f", FILE),
    ("run", "1", "-o", _target("out.ipynb", ".ipynb"), "--force"),
    (
        "run",
        "1",
        "-o",
        _no("out.ipynb", "", ".", "/", "out.txt", "mine.ipynb", "folder.ipynb", "link.ipynb", "out.ipynb\n"),
    ),
    ("run", "1", "-p", "save_to", _no("out", *stories.PROTECTED, "mine.txt/", random=False)),
    (
        "run",
        "1",
        "-p",
        "checkpoint",
        _no("out", *stories.PROTECTED, "new/", ".", "/", "mine.txt/", random=False),
        "--force",
    ),
    ("show", NOTEBOOK),
    ("sweep", _no("spec.yaml", *stories.NO_FILES), "-o", FOLDER, "--jobs", JOBS),
    ("sweep", "spec.yaml", "-o", _no("out", "mine.txt", "book", "", "nowhere", "sweep/points", "/", random=False)),
    ("collate", SWEEP, "-o", TABLE_OUT),
    (
        "collate",
        "sweep",
        "-o",
        "out.csv",
        "--plot",
        _no("value", "", "x" * 5000, "point.key"),
        "--over",
        _no("seed", "", ",", "seed,seed"),
    ),
    ("diff", "sweep", SWEEP),
    ("record", _no("first", "", "../counting/first", "first.yaml", "\x1b[2J", "x" * 5000), "--jobs", JOBS),
    ("verify", _no("first", "", "../../x", "\udcff", "a\nb"), "--jobs", JOBS),
    ("data", _no("mnist", "", "../mnist", "\x1b[2J", "MNIST", "x" * 10_000), "--from", _no(".", "mine.txt", "")),
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
        for words, accepted in draw(
            bad_lines(line), PER_LINE * sum(isinstance(w, Slot) for w in line), rng.randrange(2**32)
        ):
            settings = {"accepted": accepted, "may_change": OUTPUTS if accepted else ("_build/*",)}
            yield _case(f"{' '.join(map(short, words))}"[:200], *words, **settings)
    for text in stories.HOSTILE:
        arguments = ("run", "1", "-p", "name", text, "-o", "out.ipynb")
        yield _case(
            f"a hostile text {short(text)}", *arguments, fresh="system" in text, accepted=True, may_change=OUTPUTS
        )
    for place in ("mine.txt", "/dev/null", "/proc", "\udcff", "nowhere"):
        yield _case(f"GSAE_CACHE={short(place)}: info", "info", environment={"GSAE_CACHE": place}, accepted=True)
    for address in ("", "x", "tcp://127.0.0.1:1", "file:///etc/passwd"):
        arguments = ("sweep", "spec.yaml", "-o", "out", "--scheduler", address)
        yield _case(f"--scheduler {short(address)}", *arguments, fresh=True, may_change=("out*",))
    for command in ("run 1", "sweep spec.yaml -o out", "collate sweep -o out.csv", "verify first", "diff sweep other"):
        gone = {"prepare": lambda root: (root / "gone").mkdir(), "folder": "gone!", "may_change": ("gone",)}
        yield _case(f"{command} in a folder that is gone", *command.split(), **gone)
    names = [argument for k in range(2000) for argument in ("-p", f"n{k}", "1")]
    yield _case("2,000 unknown names", "run", "1", *names, n_lines=MANY)
    yield _case("-p twice", "run", "1", "-p", "rate", "1", "-p", "rate", "1")
    yield _case("-o twice, the last one protected", "run", "1", "-o", "out.ipynb", "-o", "notebooks/x.ipynb")
    yield from _damaged_projects(rng)


def _case(name: str, *arguments: str, may_change: tuple[str, ...] = (), **settings: Any) -> Case:
    return Case("command lines", name, Command(arguments, **settings), may_change)


RECORD = {"spec": "experiments/counting/first.yaml", "about": [ABOUT], "points": POINTS}
HEADER = "seed,rate,point.key,point.seconds,point.commit,point.processor,value\n"
READ: dict[str, tuple[str, Any, list[str]]] = {
    "recorded results": ("results/paper/first.json", RECORD, ["verify first", "diff results/paper/first.json sweep"]),
    "verifications": ("results/verified.json", {"first": {"date": "2026-01-01"}}, ["verify first"]),
    "a specification": ("experiments/counting/first.yaml", SPEC, ["verify first"]),
    "keys": ("sweep/keys.txt", f"{0:064d}\n{1:064d}\n", ["collate sweep -o out.csv"]),
    "the sweep's specification": ("sweep/spec.yaml", SPEC, ["collate sweep -o out.csv"]),
    "a point": (f"sweep/points/{0:064d}.json", sweep_point(0), ["collate sweep -o out.csv", "diff sweep other"]),
    "a table": ("t.csv", f"{HEADER}0,1.0,a,0.1,0123,p,0.0\n", ["diff t.csv table.csv"]),
    "a Parquet table": ("t.parquet", "mine, and no table", ["diff t.parquet sweep"]),
}


def _damaged_projects(rng: random.Random) -> Iterator[Case]:
    for what, (path, content, commands) in READ.items():
        whole = content if isinstance(content, str) else json.dumps(content)
        for line in commands:
            settings = {"accepted": True, "n_lines": MANY, "may_change": OUTPUTS}
            for damage in draw(DAMAGED, PER_FILE, rng.randrange(2**32)):
                prepare = write(path, damage.change(whole.encode()))
                yield _case(f"{line}, {what}: {damage.name}", *line.split(), prepare=prepare, **settings)
            changes = texts(content) if isinstance(content, str) else json_changes(content, depth=5)
            for change in draw(changes, PER_FILE, rng.randrange(2**32)):
                text = change if isinstance(change, str) else json.dumps(change.change(content))
                name = short(change) if isinstance(change, str) else change.name
                yield _case(f"{line}, {what}: {name}", *line.split(), prepare=write(path, text), **settings)
    for value in (10**400, "9" * 5000, float("nan"), True, None, "text", [1, [2]], {"a": 1}):
        point = sweep_point(0) | {"rows": [{"value": value}]}
        prepare = lambda root, point=point: write_sweep(root / "odd", {point["key"]: json.dumps(point)})  # noqa: E731
        for line in ("collate odd -o out.csv", "collate odd -o out.parquet", "diff odd odd"):
            settings = {"prepare": prepare, "accepted": True, "may_change": ("out.*",)}
            yield _case(f"{line}, a result {short(value)}", *line.split(), **settings)


def parameter_file_cases(rng: random.Random) -> Iterator[Case]:
    """Files of parameters, and specifications."""

    def cases(name: str, content: str | bytes, line: str, accepted: bool = False) -> Case:
        fresh = "system" in name or name in ("a new object", "billion laughs", "a pickle")
        run = Command(tuple(line.split()), _project_with(content), accepted=accepted, n_lines=MANY, fresh=fresh)
        return Case("YAML and specifications", f"{line}: {name}", run, OUTPUTS if accepted else ("_build/*",))

    run, sweep = "run 1 -f bad.yaml", "sweep bad.yaml -o out"
    for name, content in stories.YAML.items():
        yield cases(name, content, run)
        yield cases(name, content if isinstance(content, bytes) else f"{stories.MEASURE}{content}", sweep)
    for name, content in stories.SPECS.items():
        yield cases(name, content, sweep)
    values = {"n_groups": 3, "rate": 0.5, "kind": "a", "seeds": [1, 2], "sizes": [1.0]}
    ranges = {"n_points": 2, "seed": 0, "ranges": {"rate": [1, 2]}, "log": ["rate"]}
    spec = {"function": "experiments.tasks.measure", "grid": {"seed": [0, 1], "kind": ["a"]}, "list": [{"size": 1}]}
    spec |= {"random": ranges, "limits": {"seconds": 5}}
    for line, good in ((run, values), (sweep, spec)):
        for change in draw(json_changes(good), 4 * PER_FILE, rng.randrange(2**32)):
            yield cases(change.name, json.dumps(change.change(good)), line, accepted=True)
        for text in draw(texts(json.dumps(good)), 2 * PER_FILE, rng.randrange(2**32)):
            yield cases(short(text[-40:]), text, line, accepted=True)


def _project_with(content: str | bytes) -> Callable[[Path], object]:
    def prepare(root: Path) -> None:
        (root.parent / "outside.ipynb").write_text(json.dumps(notebook()))
        (root / "html").mkdir()
        write("bad.yaml", content)(root)

    return prepare


def notebook_cases(rng: random.Random) -> Iterator[Case]:
    """Notebooks: the cell of parameters, other cells, the file."""

    def case(name: str, content: Any, accepted: bool = False, **settings: Any) -> Case:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        run = Command(("run", "bad.ipynb", "-o", "out.ipynb"), write("bad.ipynb", text), accepted, **settings)
        return Case("notebooks", name, run, OUTPUTS)

    for name, source in stories.CELLS.items():
        yield case(f"parameters: {name}", notebook(source), n_lines=1)
    yield case("code in the parameters cell", stories.CODE_IN_CELL, fresh=True)
    good = notebook()
    whole = json.dumps(good)
    output = {"outputs": [{"output_type": "stream", "name": "stdout", "text": "x" * 20_000_000}]}
    yield case("an output of 20 MB", good | {"cells": [*good["cells"], cell("1") | output]}, accepted=True)
    yield case("two parameters cells", good | {"cells": [*good["cells"], good["cells"][2]]})
    yield case("parameters in a cell of text", good | {"cells": [cell(PARAMETERS, "markdown", tags=["parameters"])]})
    for name, change in {"nbformat": 3}.items():
        yield case(f"{name} {change}", good | {name: change})
    for text in draw(texts(PARAMETERS), 3 * PER_FILE, rng.randrange(2**32)):
        yield case(f"parameters: {short(text[-40:])}", notebook(text), accepted=True, n_lines=MANY)
    for change in draw(json_changes(good, depth=5), 4 * PER_FILE, rng.randrange(2**32)):
        yield case(change.name, change.change(good), accepted=True, n_lines=MANY)
    for damage in draw(DAMAGED, 2 * PER_FILE, rng.randrange(2**32)):
        yield case(damage.name, damage.change(whole.encode()), accepted=True, n_lines=MANY)
