"""Bad command lines, parameter files, specifications and notebooks, each given to `gsae` in a scratch project."""

import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from faults.inputs_cases import Case, Command
from faults.inputs_project import PARAMETERS, cell, notebook, sweep_point, write_sweep

RUN_FILES = ("_build/*", "out*")
NUMBERS = [
    "",
    " ",
    "abc",
    "None",
    "[1]",
    "{}",
    "1\n2",
    "\t",
    "1;2",
    "0x",
    "1e",
    "--",
    "1,5",
    "\x1b[2J",
    "\u0661",
    "\udcff",
]
NUMBERS += [
    "nan",
    "inf",
    "-inf",
    "1e999",
    "9" * 5000,
    "x" * 100_000,
    "(lambda: 1)()",
    "1 if 1 else 2",
    "\u202e1",
    "1" + "+1" * 5000,
]
VALUES = {
    "n_groups": [*NUMBERS, "0", "-1", "1" + "0" * 40, str(2**63), "1.5", "true", "1e3", "10.0", "0b", "1j"],
    "rate": [*NUMBERS, "0", "-0.5", "true", "1j", "'0.5'", "0.5 0.6"],
    "kind": ["c", "A", "a ", "", "ab", "a\n", "['a']", "\x00".join("ab").replace("\x00", "\x01")],
    "clusters": [*NUMBERS, "1", "Auto", "auto ", "three", "2.0"],
    "flag": ["", "1", "0", "2", "yes", "tru", "None", "[true]"],
    "seeds": ["", "[]", "1", "[1.5]", "['a']", "[[1]]", "[1", "{1}", "range(3)", "[" * 3000, "[true]", "[1e400]"],
    "sizes": ["", "1", "[true]", "['a']", "(1,", "nan", "[inf]", "[1, [2]]", "{}"],
}
NAMES = [
    "n_group",
    "",
    " ",
    "n_groups ",
    "n_groups=3",
    "__class__",
    "self",
    "\uff4e_groups",
    "x" * 10_000,
    "a\nb",
    "\x1b]0;t\x07",
    "n-groups",
    "field_0",
    "schema",
    "\u202en_groups",
]
NOTEBOOKS = [
    "99",
    "nope",
    "",
    " ",
    "../01_first",
    "/etc/passwd",
    "notebooks",
    "notebooks/",
    "01_first.ipynb/",
    "\n",
    "x" * 5000,
    "http://x/y.ipynb",
    "01*",
    "/dev/zero",
    "folder.ipynb",
    "loop.ipynb",
    "mine.ipynb",
    "mine.txt",
    "0" * 20,
    "\u00b2",
    "\x1b[2J",
    "~",
    "$HOME",
    "'1'",
    "1; touch executed",
]
PROTECTED = [
    "notebooks/x",
    "NOTEBOOKS/x",
    "new/../notebooks/x",
    "link/x",
    "results/x",
    "book/x",
    "gsae_lib/x",
    "gsae_book/x",
    "experiments/x",
    "tests/x",
    "benchmarks/x",
    "locks/x",
    "_static/x",
    ".hidden/x",
    ".git/x",
]
UNWRITABLE = ["mine.txt/x", "/proc/x", "/dev/null/x", "/sys/x", "x" * 300, "nowhere/../mine.txt/x", "\udcff/\udcff"]
WORDS = {
    "run": [
        ["run"],
        ["run", "1", "2"],
        ["run", "1", "-p"],
        ["run", "1", "-p", "n_groups"],
        ["run", "1", "-o"],
        ["run", "1", "--nope"],
        ["run", "1", "--force=1"],
        ["run", "-1"],
        ["run", "1", "-f"],
    ],
    "sweep": [
        ["sweep"],
        ["sweep", "spec.yaml"],
        ["sweep", "spec.yaml", "-o"],
        ["sweep", "-o", "out"],
        ["sweep", "spec.yaml", "-o", "out", "--jobs", "0"],
        ["sweep", "spec.yaml", "-o", "out", "--jobs", "-1"],
        ["sweep", "spec.yaml", "-o", "out", "--jobs", "1e3"],
        ["sweep", "spec.yaml", "-o", "out", "--jobs", ""],
        ["sweep", "spec.yaml", "-o", "out", "--jobs", "1", "--scheduler", "x"],
        ["sweep", "spec.yaml", "spec.yaml", "-o", "out"],
    ],
    "collate": [
        ["collate"],
        ["collate", "sweep"],
        ["collate", "-o", "out.csv"],
        ["collate", "sweep", "-o", "out.csv", "--plot", "value"],
        ["collate", "sweep", "-o", "out.csv", "--over", "rate"],
    ],
    "diff": [["diff"], ["diff", "sweep"], ["diff", "sweep", "other", "sweep"]],
    "record": [
        ["record", "nope"],
        ["record", ""],
        ["record", "../counting/first"],
        ["record", "first", "--jobs", "0"],
        ["record", "first", "nope"],
        ["record", "\x1b[2J"],
        ["record", "first.yaml"],
        ["record", "x" * 5000],
        ["record", "first"],
    ],
    "verify": [
        ["verify", "nope"],
        ["verify", ""],
        ["verify", "../../x"],
        ["verify", "--jobs", "x"],
        ["verify", "\udcff"],
        ["verify", "a\nb"],
    ],
    "data": [
        ["data"],
        ["data", "nope"],
        ["data", ""],
        ["data", "../mnist"],
        ["data", "a\nb"],
        ["data", "\x1b[2J"],
        ["data", "x" * 10_000],
        ["data", "mnist", "--from", "nope"],
        ["data", "mnist", "--from", "mine.txt"],
        ["data", "mnist", "--from", ""],
        ["data", "mnist", "fashion-mnist"],
        ["data", "MNIST"],
    ],
    "info": [["info", "x"], ["info", "--all"]],
    "": [["nope"], [""], ["\x1b[2J"], ["--nope"], ["run\n"], ["RUN", "1"], ["x" * 5000]],
}


def commands(draw: random.Random) -> Iterator[Case]:
    """Family: command lines."""

    def case(name: str, *arguments: str, **settings: Any) -> Case:
        may_change = settings.pop("may_change", ())
        return Case("command lines", name, Command(arguments, **settings), may_change)

    for lines in WORDS.values():
        for line in lines:
            yield case(f"words {short(line)}", *line)
    for name, values in VALUES.items():
        for value in draw.sample(values, min(len(values), 10)):
            yield case(f"-p {name} {short(value)}", "run", "1", "-p", name, value)
    for name in NAMES:
        yield case(f"-p {short(name)} 1", "run", "1", "-p", name, "1")
    for name in NOTEBOOKS:
        yield case(f"notebook {short(name)}", "run", name)
    for place in PROTECTED:
        yield case(f"run -o {short(place)}", "run", "1", "-o", f"{place}.ipynb", "--force")
        command, option = draw.choice([("save_to", ""), ("checkpoint", "")])
        yield case(f"-p {command} {short(place)}", "run", "1", "-p", command, place + option, "--force")
        yield case(f"sweep -o {short(place)}", "sweep", "spec.yaml", "-o", place)
        yield case(f"collate -o {short(place)}", "collate", "sweep", "-o", f"{place}.csv", "--force")
    for place in UNWRITABLE:
        yield case(f"run -o {short(place)}", "run", "1", "-o", f"{place}.ipynb")
        yield case(f"sweep -o {short(place)}", "sweep", "spec.yaml", "-o", place)
        yield case(f"collate -o {short(place)}", "collate", "sweep", "-o", f"{place}.csv")
    for place in (
        "",
        ".",
        "/",
        "out.txt",
        "mine.ipynb",
        "mine.ipynb/",
        "folder.ipynb",
        "notebooks/01_first.ipynb",
        "link.ipynb",
        "out.ipynb/",
        "..ipynb",
        "out.ipynb\n",
    ):
        accepted = place in ("out.ipynb/", "..ipynb")
        may_change = (*RUN_FILES, ".*") if accepted else ()
        yield case(f"run -o {short(place)}", "run", "1", "-o", place, accepted=accepted, may_change=may_change)
    for place in ("", ".", "..", "new/", "/", "mine.txt/", "a/..", "~"):
        for name in ("save_to", "checkpoint"):
            accepted = place in ("", "~") or (name == "save_to" and place != "mine.txt/")  # which is a folder
            yield case(
                f"-p {name} {short(place)}", "run", "1", "-p", name, place, accepted=accepted, may_change=RUN_FILES
            )
    for place in ("mine.txt", "book", "", "nowhere", "sweep/points", "/"):
        yield case(f"sweep -o {short(place)}", "sweep", "spec.yaml", "-o", place)
    for place in ("out", "out.txt", "", ".", ".csv", "folder.ipynb", "table.csv", "out.CSV", "out.csv/", "out.csv.gz"):
        accepted = place == "out.csv/"
        may_change = ("out.*",) if accepted else ()
        yield case(
            f"collate -o {short(place)}", "collate", "sweep", "-o", place, accepted=accepted, may_change=may_change
        )
    for metric, over in [
        ("nope", "seed"),
        ("value", "nope"),
        ("value", ""),
        ("", "seed"),
        ("value", "seed,seed"),
        ("value", "seed,rate,seed"),
        ("value", ","),
        ("value", "value"),
        ("point.key", "seed"),
        ("seed", "seed"),
        ("x" * 5000, "seed"),
        ("value", "\x1b[2J"),
    ]:
        arguments = ("collate", "sweep", "-o", "out.csv", "--plot", metric, "--over", over)
        yield case(f"--plot {short(metric)} --over {short(over)}", *arguments)
    for place in ("nope", "mine.txt", "book", "", "/dev/null", "/dev/zero", "notebooks/01_first.ipynb", "\udcff", "/"):
        yield case(f"collate {short(place)}", "collate", place, "-o", "out.csv")
        yield case(f"diff sweep {short(place)}", "diff", "sweep", place)
    for name in (
        "nope.yaml",
        "",
        "notebooks",
        "/dev/zero",
        "/dev/null",
        "/proc/self/mem",
        "mine.txt",
        "\udcff",
        "loop.ipynb",
    ):
        accepted = name == "/dev/null"
        yield case(f"run -f {short(name)}", "run", "1", "-f", name, accepted=accepted, may_change=RUN_FILES)
        yield case(f"sweep {short(name)}", "sweep", name, "-o", "out")
    for address in (
        "",
        "x",
        "tcp://127.0.0.1:1",
        "file:///etc/passwd",
    ):
        arguments = ("sweep", "spec.yaml", "-o", "out", "--scheduler", address)
        yield case(f"--scheduler {short(address)}", *arguments, fresh=True, may_change=("out*",))
    twice = ("run", "1", "-p", "rate", "1", "-p", "rate", "1")
    yield case("-p twice", *twice)
    yield case("-o twice, the last one protected", "run", "1", "-o", "out.ipynb", "-o", "notebooks/x.ipynb")
    yield case("three problems", "run", "1", "-p", "rate", "0", "-p", "seed", "x", "-p", "nope", "1", n_lines=3)
    names = [argument for k in range(2000) for argument in ("-p", f"n{k}", "1")]
    yield case("2,000 unknown names", "run", "1", *names, n_lines=11)
    for command in (
        ("run", "1"),
        ("sweep", "spec.yaml", "-o", "out"),
        ("collate", "sweep", "-o", "out.csv"),
        ("record", "first"),
        ("verify", "first"),
        ("diff", "sweep", "other"),
    ):
        yield case(
            f"{command[0]} in a folder that is gone",
            *command,
            prepare=lambda root: (root / "gone").mkdir(),
            folder="gone!",
            may_change=("gone",),
        )
    for place in ("mine.txt", "/dev/null", "/proc", "\udcff", "nowhere"):
        yield case(f"GSAE_CACHE={short(place)}: info", "info", environment={"GSAE_CACHE": place}, accepted=True)
        yield case(
            f"GSAE_CACHE={short(place)}: data",
            "data",
            "mnist",
            environment={"GSAE_CACHE": place},
            may_change=("\udcff*",),
        )
    hostile = "'); __import__('os').system('touch executed') #"
    for value in (
        hostile,
        "\n__import__('os').system('touch executed')\n",
        '"""+str(open("executed", "w"))+"""',
        "{{executed}}",
        "é\u2028\u202e",
        "\\",
    ):
        arguments = ("run", "1", "-p", "name", value, "-o", "out.ipynb")
        yield case(
            f"a hostile text {short(value)}", *arguments, fresh=value is hostile, accepted=True, may_change=RUN_FILES
        )
    yield from _damaged_projects(case)


def _damaged_projects(case: Callable[..., Case]) -> Iterator[Case]:
    """Files of the project that are read, damaged: recorded results, verifications, the points of sweeps, tables."""
    record = "results/paper/first.json"
    spec = "experiments/counting/first.yaml"
    good = json.dumps(sweep_point(0))
    bad = {
        "empty": "",
        "cut": good[: len(good) // 2],
        "a list": "[]",
        "null": "null",
        "deep": "[" * 10**5,
        "not UTF-8": b"\xff",
        "a number": "1e999",
        "NUL": "\x00",
        "many digits": '{"points": ' + "9" * 5000 + "}",
    }
    for what, text in bad.items():
        yield case(
            f"verify, recorded results: {what}",
            "verify",
            "first",
            prepare=write(record, text),
            fresh=what in ("empty", "deep"),
            may_change=("results/verified.json",),
        )
        yield case(f"diff, recorded results: {what}", "diff", record, "sweep", prepare=write(record, text))
        yield case(f"verify, verifications: {what}", "verify", "first", prepare=write("results/verified.json", text))
        yield case(f"verify, specification: {what}", "verify", "first", prepare=write(spec, text))
        yield case(
            f"collate, keys: {what}",
            "collate",
            "sweep",
            "-o",
            "out.csv",
            prepare=write("sweep/keys.txt", text),
            accepted=True,
            may_change=("out.*",),
        )
        yield case(
            f"collate, specification: {what}",
            "collate",
            "sweep",
            "-o",
            "out.csv",
            prepare=write("sweep/spec.yaml", text),
            accepted=True,
            may_change=("out.*",),
        )
        yield case(f"diff, a table: {what}", "diff", "t.csv", "sweep", prepare=write("t.csv", text))
        yield case(f"diff, a Parquet table: {what}", "diff", "t.parquet", "sweep", prepare=write("t.parquet", text))
    for section in (
        "record: 3",
        "record: {}",
        "record: {canaries: []}",
        "record: {canaries: [3]}",
        "record: {canaries: [{seed: 0}], jobs: 0}",
        "record: {canaries: [{seed: 0}], relative: -1}",
        "record: {canaries: [{seed: 0}], needs: mnist}",
        "record: {canaries: [{seed: 0}], nope: 1}",
        "record: {canaries: [{nope: 0}]}",
        "notebook: 1",
    ):
        text = f"function: experiments.tasks.count\ngrid: {{seed: [0]}}\n{section}\n"
        yield case(f"verify, {section}", "verify", "first", prepare=write(spec, text))
    about = {"date": "2026-01-01", "commit": "c", "processor": "p", "versions": {}}
    points = [{"values": {"seed": 0}, "about": 0, "seconds": 0.1, "rows": [{"value": 1.0}]}]
    whole = {"spec": spec, "about": [about], "points": points}
    for name, value in {"about": 3, "points": 3}.items():
        yield case(
            f"verify, recorded {name} = {value}",
            "verify",
            "first",
            prepare=write(record, json.dumps(whole | {name: value})),
        )
    for name, value in {"values": [], "about": 7, "rows": "x", "seconds": "x"}.items():
        text = json.dumps(whole | {"points": [points[0] | {name: value}]})
        yield case(f"verify, a recorded point's {name} = {value!r}", "verify", "first", prepare=write(record, text))
        yield case(f"diff, a recorded point's {name} = {value!r}", "diff", record, "sweep", prepare=write(record, text))
    for name in ("values", "rows", "seconds", "about", "given", "key", "status", "target"):
        for value in (None, 3, "x", [], [[1]], {}, {"a": {"b": [1]}}):
            text = json.dumps(sweep_point(0) | {name: value})
            prepare = write(f"sweep/points/{0:064d}.json", text)
            yield case(
                f"collate, a point's {name} = {short(value)}",
                "collate",
                "sweep",
                "-o",
                "out.csv",
                prepare=prepare,
                accepted=True,
                may_change=("out.*",),
            )
    header = "seed,rate,point.key,point.seconds,point.commit,point.processor,value\n"
    tables = {
        "no rows": header,
        "no columns": "\n",
        "other columns": "a,b\n1,2\n",
        "texts for numbers": header + "x,y,z,w,a,b,c\n",
        "a quote without end": header + '"0,1,a,1,c,p,1\n',
        "rows of other lengths": header + "0,1,a\n0,1,a,1,c,p,1,2,3\n",
        "a column twice": header.replace("rate", "seed") + "0,1,a,1,c,p,1\n",
        "many digits": header + "9" * 5000 + ",1,a,1,c,p,1\n",
        "infinite": header + "0,1,a,inf,c,p,inf\n",
        "a pickle": pickle.dumps(_Bomb()),
        "a long line": header + "0," * 50_000 + "\n",
    }
    for what, text in tables.items():
        accepted = what in ("infinite", "many digits", "a column twice")
        yield case(
            f"diff, a table: {what}", "diff", "t.csv", "table.csv", prepare=write("t.csv", text), accepted=accepted
        )
    for value in (10**400, "9" * 5000, float("nan"), True, None, "text", [1, [2]], {"a": 1}):
        point = sweep_point(0) | {"rows": [{"value": value}]}
        prepare = lambda root, point=point: write_sweep(root / "odd", {point["key"]: json.dumps(point)})  # noqa: E731
        yield case(
            f"collate, a result {short(value)}",
            "collate",
            "odd",
            "-o",
            "out.csv",
            prepare=prepare,
            accepted=True,
            may_change=("out.*",),
        )
        yield case(
            f"collate to Parquet, a result {short(value)}",
            "collate",
            "odd",
            "-o",
            "out.parquet",
            prepare=prepare,
            accepted=True,
            may_change=("out.*",),
        )
        yield case(f"diff, a result {short(value)}", "diff", "odd", "odd", prepare=prepare, accepted=True)


BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}]\n" for p, n in pairwise("abcdefghijklmnop"))
YAML: dict[str, str | bytes] = {
    "billion laughs": BOMB,
    "an anchor and its alias": "seed: &s 1\nn_groups: *s\n",
    "an alias of itself": "seeds: &s [*s]\n",
    "a merge key": "<<: {n_groups: 3}\n",
    "a system call": "n_groups: !!python/object/apply:os.system ['touch executed']\n",
    "a system call as a text": "name: !!python/object/apply:os.system ['touch executed']\n",
    "a name of Python": "name: !!python/name:os.system ''\n",
    "a module of Python": "name: !!python/module:os ''\n",
    "a new object": "name: !!python/object/new:subprocess.Popen [['touch', 'executed']]\n",
    "a tag": "n_groups: !!str 3\n",
    "a tag for the whole": "!!python/object/apply:os.system ['touch executed']\n",
    "a tag of its own": "name: !mine x\n",
    "binary": "name: !!binary aGFsbG8=\n",
    "a tab": "\tn_groups: 3\n",
    "a key twice": "n_groups: 3\nn_groups: 4\n",
    "a key twice, inside": "seeds: {a: 1, a: 2}\n",
    "a list": "- n_groups\n",
    "a text": "n_groups\n",
    "a number": "3\n",
    "two documents": "---\nn_groups: 3\n---\nn_groups: 4\n",
    "another version": "%YAML 3.0\n---\nn_groups: 3\n",
    "an unknown directive": "%NOPE x\n---\nn_groups: 0\n",
    "no end": "seeds: [1, 2\n",
    "a quote without end": 'name: "x\n',
    "brackets that do not match": "seeds: [1}\n",
    "no name": ": 1\n",
    "a name that is a list": "? [a]\n: 1\n",
    "a name that is a number": "3: 1\n",
    "a name that is null": "~: 1\n",
    "NaN": "rate: .nan\n",
    "infinite": "rate: .inf\n",
    "a date": "n_groups: 2021-01-01\n",
    "base sixty": "n_groups: 1:30\n",
    "an octal": "n_groups: 0o17x\n",
    "nothing": "n_groups:\n",
    "null": "n_groups: null\n",
    "a mapping": "n_groups: {a: 1}\n",
    "a list for a number": "n_groups: [3]\n",
    "a block": "n_groups: |\n  3\n  4\n",
    "an escape": "name: \x1b[2J\n",
    "a NUL": "name: \x00\n",
    "a surrogate": b"name: \xed\xa0\x80\n",
    "not UTF-8": b"name: \xff\n",
    "UTF-16": "n_groups: 3\n".encode("utf-16"),
    "random bytes": bytes(random.Random(0).randbytes(3000)),
    "a pickle": b"",
    "deep in brackets": "seeds: " + "[" * 50_000,
    "deep in braces": "seeds: " + "{a: " * 20_000,
    "deep in dashes": "seeds:\n" + "- " * 50_000,
    "deep by indentation": "".join(f"{' ' * k}a:\n" for k in range(600)),
    "larger than allowed": "seeds: [" + "1, " * 100_000 + "]",
    "a long list": "seeds: [" + "1," * 60_000 + "x]",
    "a long text": "n_groups: " + "x" * 190_000,
    "a long name": "x" * 190_000 + ": 1\n",
    "many names": "".join(f"n{k}: 1\n" for k in range(10_000)),
    "many digits": "n_groups: " + "9" * 5000,
    "many digits, hexadecimal": "n_groups: 0x" + "f" * 5000 + "z",
}
SPECS: dict[str, str] = {
    "no target": "grid: {seed: [0]}",
    "two targets": "function: experiments.tasks.count\nnotebook: '1'",
    "a system call": "function: os.system\ngrid: {command: ['touch executed']}",
    "a builtin": "function: builtins.eval\ngrid: {source: ['1']}",
    "two dots": "function: experiments..tasks.count",
    "dots before": "function: ..x",
    "a dot before": "function: .tasks.count",
    "a dot behind": "function: experiments.tasks.",
    "a path": "function: ../experiments/tasks.count",
    "an expression": "function: __import__('os').system",
    "an attribute of the function": "function: experiments.tasks.count.__globals__",
    "a module inside": "function: experiments.tasks.os.system",
    "a class": "function: experiments.tasks.Settings",
    "a generator": "function: experiments.tasks.endless\ngrid: {seed: [0]}",
    "the folder of another library": "function: html.escape",
    "a name in full width": "function: \uff45xperiments.tasks.count",
    "a line break": 'function: "experiments.tasks.count\\n"',
    "an escape": 'function: "\\e[2J.x"',
    "a list": "function: [experiments.tasks.count]",
    "no text": "function:",
    "a long name": f"function: {'a.' * 5000}b",
    "the command itself": "function: gsae_book.app.cli.main",
    "a function that writes": "function: gsae_lib._files.replace_file\ngrid: {path: [mine.txt], text: [x]}",
    "a notebook outside": "notebook: ../outside.ipynb",
    "a notebook outside, absolute": "notebook: OUTSIDE",
    "a notebook that is a link": "notebook: link.ipynb\ngrid: {n_groups: [0]}",
    "no notebook": "notebook: '99'",
    "a notebook's save_to": "notebook: '1'\ngrid: {save_to: [x]}",
    "a notebook's checkpoint": "notebook: '1'\ngrid: {checkpoint: [x]}",
}
GRIDS: dict[str, str] = {
    "an unknown section": "grid: {seed: [0]}\nnope: 1",
    "an empty grid": "grid: {}",
    "a grid that is a list": "grid: [seed]",
    "a grid of no values": "grid: {seed: []}",
    "a grid of a number": "grid: {seed: 0}",
    "a grid of null": "grid:",
    "an unknown name": "grid: {seed: [0], nope: [1]}",
    "a name of Python": "grid: {seed: [0], __class__: [1]}",
    "a name that is no text": "grid: {seed: [0], 3: [1]}",
    "a name that is empty": "grid: {seed: [0], '': [1]}",
    "a bad value among good ones": "grid: {seed: [0, 1, x]}",
    "NaN": "grid: {seed: [0], rate: [.nan]}",
    "infinite": "grid: {seed: [0], rate: [1e999]}",
    "a list for a number": "grid: {seed: [[0]]}",
    "a mapping for a number": "grid: {seed: [{a: 1}]}",
    "null for a number": "grid: {seed: [null]}",
    "too many points": f"grid: {{seed: {list(range(400))}, size: {list(range(1, 400))}}}",
    "a list that is a mapping": "list: {seed: 0}",
    "a list of texts": "list: [seed]",
    "an empty list": "list: []",
    "a name twice": "grid: {seed: [0]}\nlist: [{seed: 1}]",
    "no points at random": "grid: {seed: [0]}\nrandom: {n_points: 0, ranges: {rate: [1, 2]}}",
    "a billion points": "grid: {seed: [0]}\nrandom: {n_points: 1000000000, ranges: {rate: [1, 2]}}",
    "random without ranges": "grid: {seed: [0]}\nrandom: {n_points: 2}",
    "a range of one number": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [1]}}",
    "a range backwards": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [2, 1]}}",
    "a range of NaN": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [.nan, 1]}}",
    "a range without end": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [1, .inf]}}",
    "a range too wide": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [-1e308, 1e308]}}",
    "a range of texts": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {kind: [a, b]}}",
    "a range for an unknown name": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {nope: [0, 1]}}",
    "a logarithm of nothing": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [0, 1]}, log: [rate]}",
    "a logarithm of an unknown name": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [1, 2]}, log: [nope]}",
    "a logarithm that is a mapping": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [1, 2]}, log: {rate: 1}}",
    "a logarithm of a list": "grid: {seed: [0]}\nrandom: {n_points: 2, ranges: {rate: [1, 2]}, log: [[rate]]}",
    "a seed that is a text": "grid: {seed: [0]}\nrandom: {n_points: 2, seed: x, ranges: {rate: [1, 2]}}",
    "a limit of nothing": "grid: {seed: [0]}\nlimits: {seconds: 0}",
    "a limit that is infinite": "grid: {seed: [0]}\nlimits: {seconds: .inf}",
    "an unknown limit": "grid: {seed: [0]}\nlimits: {hours: 1}",
    "limits that are a list": "grid: {seed: [0]}\nlimits: [1]",
    "a plan that is a number": "plan: 3\ngrid: {seed: [0]}",
    "a plan of the system": "plan: os.getcwd\ngrid: {seed: [0]}",
    "a plan that is no plan": "plan: experiments.tasks.count\ngrid: {seed: [0]}",
    "a plan and a grid of one name": "plan: experiments.tasks.planned\ngrid: {seed: [0], size: [1]}",
    "a value that a dataclass refuses": "grid: {seed: [0], rate: [0]}",
    "many digits": f"grid: {{seed: [{'9' * 5000}]}}",
    "a record in it that is no record": "grid: {seed: [0]}\nrecord: 3",
}
SPEC_ACCEPTED = ("a record in it that is no record",)


def parameter_files(draw: random.Random) -> Iterator[Case]:
    """Family: YAML and specifications."""
    family = "YAML and specifications"
    for name, content in YAML.items():
        content = pickle.dumps(_Bomb()) if name == "a pickle" else content
        fresh = "system" in name or name in ("a new object", "billion laughs", "a pickle")
        n_lines = 11 if name == "many names" else 1
        command = Command(("run", "1", "-f", "bad.yaml"), write("bad.yaml", content), fresh=fresh, n_lines=n_lines)
        yield Case(family, f"parameters: {name}", command, RUN_FILES if name == "an escape" else ())
        if draw.random() < 0.6 or fresh:
            text = content if isinstance(content, bytes) else f"function: experiments.tasks.measure\ngrid:\n{content}"
            yield Case(family, f"sweep: {name}", Command(("sweep", "bad.yaml", "-o", "out"), write("bad.yaml", text)))
    texts = {**SPECS, **{name: f"function: experiments.tasks.measure\n{text}" for name, text in GRIDS.items()}}
    for name, text in texts.items():
        fresh = name in ("a system call", "a function that writes", "an expression")
        accepted = name in SPEC_ACCEPTED
        command = Command(("sweep", "bad.yaml", "-o", "out"), _specification(text), fresh=fresh, accepted=accepted)
        yield Case(family, f"specification: {name}", command, ("out*",) if accepted else ())
    for cut in range(8):
        text = b"function: experiments.tasks.measure\ngrid: {seed: [0, 1], rate: [0.5]}\nlimits: {seconds: 5}\n"
        place = draw.randrange(3, len(text) - 3)
        other = text[:place] + bytes([draw.choice(b"\x00\x80\xff\t[]{}&*!%@`\"'")]) + text[place + 1 :]
        command = Command(("sweep", "bad.yaml", "-o", "out"), write("bad.yaml", other), accepted=True)
        yield Case(family, f"specification: byte {place} is {other[place]}, {cut}", command, ("out*",))


def _specification(text: str) -> Callable[[Path], object]:
    def prepare(root: Path) -> None:
        outside = root.parent / "outside.ipynb"
        outside.write_text(json.dumps(notebook()))
        (root / "html").mkdir()
        (root / "bad.yaml").write_text(text.replace("OUTSIDE", str(outside)))

    return prepare


CELLS = {
    "no default": "x: int",
    "no type": "x = 1",
    "two in a line": "x: int = 1; y: int = 2",
    "two lines": "x: int = (\n    1)",
    "twice": "x: int = 1\nx: int = 2",
    "an import": "import os",
    "a call": "x: int = __import__('os').system('touch executed')",
    "a call in a type": "x: list[open('executed', 'w')] = []",
    "a call in a constraint": "x: Annotated[int, Ge(open('executed', 'w').fileno())] = 1",
    "a call in an index": "x: int = [1][print(open('executed', 'w'))]",
    "an f-string": "x: str = f\"{open('executed', 'w')}\"",
    "a comprehension": "x: list = [open('executed', 'w') for _ in [1]]",
    "an unknown type": "x: Path = 1",
    "a text as a type": "x: 'int' = 1",
    "null as a type": "x: int | None = 1",
    "a constraint that is a text": "x: Annotated[int, Ge('a')] = 1",
    "a constraint for another type": "x: Annotated[str, Ge(1)] = 'a'",
    "a constraint of lengths for a number": "x: Annotated[int, MinLen(2)] = 1",
    "a multiple of nothing": "x: Annotated[int, MultipleOf(0)] = 1",
    "a negative length": "x: Annotated[list, MinLen(-1)] = []",
    "a constraint for a list": "x: Annotated[list[int], MultipleOf(2)] = [1]",
    "no constraint": "x: Annotated[int] = 1",
    "no arguments": "x: Annotated[int, Ge()] = 1",
    "no choices": "x: Literal[()] = 1",
    "choices that are lists": "x: Literal[[1]] = [1]",
    "choices that are mappings": "x: Literal[{1: 2}] = 1",
    "an ellipsis": "x: tuple[...] = ()",
    "an ellipsis first": "x: tuple[..., int] = (1,)",
    "two types in a list": "x: list[int, int] = [1]",
    "a default out of range": "x: Annotated[int, Ge(2)] = 1",
    "a default of another type": "x: int = True",
    "an infinite default": "x: float = 1e999",
    "many digits": "x: int = " + "9" * 5000,
    "a magic": "%matplotlib inline",
    "a shell line": "!touch executed",
    "a syntax error": "x: int = = 1",
    "a NUL": "x: int = '\0'",
    "a surrogate": "x: str = '\ud800'",
    "deep": "x: int = " + "(" * 1000,
    "long": "x: int = " + "-" * 10**5 + "1",
    "a word of Python": "class: int = 1",
    "an attribute": "x.y: int = 1",
    "10,000 bad lines": "x = 1\n" * 10_000,
}


def notebooks(draw: random.Random) -> Iterator[Case]:
    """Family: notebooks."""

    def case(name: str, content: Any, accepted: bool = False, **settings: Any) -> Case:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        command = Command(("run", "bad.ipynb", "-o", "out.ipynb"), write("bad.ipynb", text), accepted, **settings)
        return Case("notebooks", name, command, RUN_FILES)

    for name, source in CELLS.items():
        yield case(f"parameters: {name}", notebook(source), n_lines=1)
    good = notebook()
    whole = json.dumps(good)
    parameters = good["cells"][2]
    for name, cells in {
        "no parameters cell": good["cells"][:2],
        "two parameters cells": [*good["cells"], parameters],
        "a parameters cell that is text": [cell(PARAMETERS, "markdown", tags=["parameters"])],
        "a raw parameters cell": [cell(PARAMETERS, "raw", tags=["parameters"])],
        "no cells": [],
        "cells that are null": None,
        "cells that are a text": "abc",
        "cells that are a mapping": {},
        "a cell that is null": [None],
        "a cell that is a number": [3],
        "a cell without source": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}}],
        "a source that is null": [parameters | {"source": None}],
        "a source that is numbers": [parameters | {"source": [1, 2]}],
        "metadata that are null": [parameters | {"metadata": None}],
        "metadata that are a list": [parameters | {"metadata": [1]}],
        "tags that are null": [parameters | {"metadata": {"tags": None}}],
        "tags that are a number": [parameters | {"metadata": {"tags": 5}}],
        "tags that are a text": [parameters | {"metadata": {"tags": "no-parameters-here"}}],
        "tags that are a mapping": [parameters | {"metadata": {"tags": {"parameters": 1}}}],
        "tags of numbers": [parameters | {"metadata": {"tags": [1, None, "parameters"]}}, cell("1 / 0")],
        "a type that is null": [parameters | {"cell_type": None}],
        "an unknown type": [parameters, parameters | {"cell_type": "nope", "metadata": {}}],
        "outputs that are a text": [parameters | {"outputs": "x"}],
        "a surrogate in code": [*good["cells"][:3], cell("x = '\ud800'")],
    }.items():
        yield case(name, good | {"cells": cells}, accepted=name == "tags of numbers")
    for name, content in {
        "nbformat 3": {"worksheets": [{"cells": good["cells"]}], "metadata": {}, "nbformat": 3, "nbformat_minor": 0},
        "nbformat 3, cells of 4": good | {"nbformat": 3},
        "nbformat 99": good | {"nbformat": 99},
        "nbformat that is a text": good | {"nbformat": "four"},
        "no nbformat": {name: value for name, value in good.items() if name != "nbformat"},
        "no metadata": {name: value for name, value in good.items() if name != "metadata"},
        "metadata null": good | {"metadata": None},
        "empty": "",
        "a list": [],
        "null": "null",
        "not JSON": "mine",
        "half of it": whole[: len(whole) // 2],
        "not UTF-8": whole.encode().replace(b"title", b"\xff\xfe"),
        "UTF-16": whole.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + whole.encode(),
        "deep": "[" * 10**5,
        "many digits": whole.replace('"nbformat": 4', f'"nbformat": {"4" * 5000}'),
        "a pickle": pickle.dumps(_Bomb()),
        "NUL": "\x00" * 100,
    }.items():
        yield case(name, content)
    yield case(
        "an output of 20 MB",
        good
        | {
            "cells": [
                *good["cells"],
                cell("1") | {"outputs": [{"output_type": "stream", "name": "stdout", "text": "x" * 20_000_000}]},
            ]
        },
        accepted=True,
    )
    for k in range(6):
        place = draw.randrange(len(whole))
        yield case(f"cut at byte {place}, {k}", whole[:place])
    code = "open('executed', 'w')\nx: int = 1"
    yield case("code in the parameters cell", notebook(code), fresh=True)


class _Bomb:
    """What a pickle may hold: it runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    """A function that writes a file of that name and content below a folder."""

    def prepare(root: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf8", "surrogatepass")
        (root / name).write_bytes(data)

    return prepare


def short(value: object) -> str:
    """A value as the name of a case shows it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
