"""Inputs with a story: what strangers and attackers really bring, each of which once went wrong or would be bad."""

import io
import json
import pickle
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from faults.bad_values import Bomb
from faults.scratch_project import notebook

# Tables, by suffix and name: the content, and whether a reader may take it (and leave out a column, with a word).


def npy(array: np.ndarray, **settings: Any) -> bytes:
    """An array as a file of NumPy."""
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def _header(text: str) -> bytes:
    """A NumPy file with that header."""
    head = text.encode("latin1") + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64)


def _shape(text: str, kind: str = "<f8") -> bytes:
    return _header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {text}, }}")


X = np.linspace(-2.0, 2.0, 32).reshape(4, 8)
NPY_HEADERS = {
    (".npy", f"a header {name}"): (content, False)
    for name, content in {
        "of a shape of 10^12": _shape("(1000000, 1000000)"),
        "of a shape of 10^30": _shape("(10**30, 2)"),
        "of a shape of many digits": _shape(f"({'9' * 30}, 2)"),
        "of a negative shape": _shape("(-1, 2)"),
        "of a shape of texts": _shape("('a', 2)"),
        "that calls": _shape("__import__('os').system('touch executed')"),
        "of an unknown type": _shape("(2, 2)", "<q9"),
        "of objects": _shape("(2, 2)", "|O"),
        "without a shape": _header("{'descr': '<f8', 'fortran_order': False, }"),
        "that is long": _header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }" + " " * 20_000),
        "that is deep": _header("(" * 5000),
    }.items()
}
TABLES = {
    (".npy", "pickled objects"): (npy(np.array([[Bomb()]], dtype=object), allow_pickle=True), False),
    (".npy", "an NPZ of nothing"): (b"PK\x05\x06" + bytes(18), False),
    (".npy", "fields"): (npy(np.zeros(4, dtype=[("a", float), ("b", float)])), True),
    (".npy", "dates"): (npy(np.zeros((4, 2), dtype="datetime64[s]")), True),
    (".npy", "complex"): (npy(X + 1j), False),
    (".npy", "no axis"): (npy(np.array(3.0)), False),
    (".npy", "nan"): (npy(np.where(X > 1, np.nan, X)), False),
    (".csv", "NUL"): (b"a,b\n1,\x00\n", False),
    (".csv", "many digits"): (b"a,b\n1," + b"9" * 5000 + b"\n", False),
    (".csv", "a formula"): (b"a,b\n1,\"=cmd|'/c touch executed'!A0\"\n", True),
    (".csv", "100,000 columns and one line"): (b"0," * 100_000 + b"0\n" + b"1\n", False),
    (".csv", "one long cell"): (b"a,b\n1," + b"x" * 10**6 + b"\n", True),
    (".parquet", "lists"): (pd.DataFrame({"a": [[1], [2]]}).to_parquet(), False),
    (".parquet", "a footer of 2 GB"): (b"PAR1" + bytes(100) + struct.pack("<I", 2**31 - 1) + b"PAR1", False),
}

# Parameter files.
BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}]\n" for p, n in pairwise("abcdefghijklmnop"))
YAML: dict[str, str | bytes] = {
    "billion laughs": BOMB,
    "an alias of itself": "seeds: &s [*s]\n",
    "a system call": "n_groups: !!python/object/apply:os.system ['touch executed']\n",
    "a new object": "name: !!python/object/new:subprocess.Popen [['touch', 'executed']]\n",
    "a tag for the whole": "!!python/object/apply:os.system ['touch executed']\n",
    "a key twice": "n_groups: 3\nn_groups: 4\n",
    "two documents": "---\nn_groups: 3\n---\nn_groups: 4\n",
    "a name that is a list": "? [a]\n: 1\n",
    "a surrogate": b"name: \xed\xa0\x80\n",
    "a pickle": pickle.dumps(Bomb()),
    "deep in brackets": "seeds: " + "[" * 50_000,
    "deep in dashes": "seeds:\n" + "- " * 50_000,
    "larger than allowed": "seeds: [" + "1, " * 100_000 + "]",
    "a long name": "x" * 190_000 + ": 1\n",
    "many digits": "n_groups: " + "9" * 5000,
}

# Specifications of sweeps: what is run, and over what.
FUNCTION = "function: experiments.tasks.measure\n"
MEASURE = f"{FUNCTION}grid: {{seed: [0]}}\n"
SPECS: dict[str, str] = {
    "a system call": "function: os.system\ngrid: {command: ['touch executed']}",
    "an expression": "function: __import__('os').system",
    "an attribute of the function": "function: experiments.tasks.count.__globals__",
    "a class": "function: experiments.tasks.Settings",
    "a generator": "function: experiments.tasks.endless\ngrid: {seed: [0]}",
    "the folder of another library": "function: html.escape",
    "a name in full width": "function: \uff45xperiments.tasks.count",
    "an escape": 'function: "\\e[2J.x"',
    "a function that writes": "function: gsae_lib._files.replace_file\ngrid: {path: [mine.txt], text: [x]}",
    "a notebook outside": "notebook: ../outside.ipynb",
    "a notebook that is a link": "notebook: link.ipynb\ngrid: {n_groups: [0]}",
    "a notebook's save_to": "notebook: '1'\ngrid: {save_to: [x]}",
    "too many points": f"{FUNCTION}grid: {{seed: {list(range(400))}, size: {list(range(400))}}}",
    "a billion points": f"{MEASURE}random: {{n_points: 1000000000, ranges: {{rate: [1, 2]}}}}",
    "a range of NaN": f"{MEASURE}random: {{n_points: 2, ranges: {{rate: [.nan, 1]}}}}",
    "a range too wide": f"{MEASURE}random: {{n_points: 2, ranges: {{rate: [-1e308, 1e308]}}}}",
    "a logarithm of nothing": f"{MEASURE}random: {{n_points: 2, ranges: {{rate: [0, 1]}}, log: [rate]}}",
    "a limit that is infinite": f"{MEASURE}limits: {{seconds: .inf}}",
    "a plan of the system": f"{MEASURE}plan: os.getcwd",
    "a plan and a grid of one name": f"{FUNCTION}grid: {{size: [1]}}\nplan: experiments.tasks.planned",
}

# Cells of parameters, which are read and never run.
CELLS = {
    "a call": "x: int = __import__('os').system('touch executed')",
    "a call in a type": "x: list[open('executed', 'w')] = []",
    "a call in a constraint": "x: Annotated[int, Ge(open('executed', 'w').fileno())] = 1",
    "a call in an index": "x: int = [1][print(open('executed', 'w'))]",
    "an f-string": "x: str = f\"{open('executed', 'w')}\"",
    "a constraint that is a text": "x: Annotated[int, Ge('a')] = 1",
    "a constraint for another type": "x: Annotated[str, Ge(1)] = 'a'",
    "a multiple of nothing": "x: Annotated[int, MultipleOf(0)] = 1",
    "no choices": "x: Literal[()] = 1",
    "choices that are lists": "x: Literal[[1]] = [1]",
    "no constraint": "x: Annotated[int] = 1",
    "an ellipsis": "x: tuple[...] = ()",
    "an ellipsis first": "x: tuple[..., int] = (1,)",
    "an infinite default": "x: float = 1e999",
    "many digits": "x: int = " + "9" * 5000,
    "a shell line": "!touch executed",
    "a NUL": "x: int = '\0'",
    "a surrogate": "x: str = '\ud800'",
    "deep": "x: int = " + "(" * 1000,
    "long": "x: int = " + "-" * 10**5 + "1",
    "10,000 bad lines": "x = 1\n" * 10_000,
}
CODE_IN_CELL = json.dumps(notebook("open('executed', 'w')\nx: int = 1"))

# Texts that a parameter takes, and which must stay texts.
HOSTILE = [
    "'); __import__('os').system('touch executed') #",
    "\n__import__('os').system('touch executed')\n",
    '"""+str(open("executed", "w"))+"""',
    "{{executed}}",
    "é\u2028\u202e",
    "\\",
]
# Texts that are no number, nor another value; and names that nothing has.
NO_VALUES = ["", " ", "abc", "None", "[1]", "{}", "1\n2", "1;2", "0x", "--", "1,5", "\x1b[2J", "\u0661", "\udcff"]
NO_VALUES += ["nan", "-inf", "1e999", "9" * 5000, "x" * 100_000, "(lambda: 1)()", "\u202e1", "1" + "+1" * 5000]
NO_NAMES = [
    "",
    " ",
    "n_groups ",
    "__class__",
    "\uff4e_groups",
    "x" * 10_000,
    "a\nb",
    "\x1b]0;t\x07",
    "n-groups",
    "self",
]
NO_NOTEBOOKS = ["99", "../01_first", "/etc/passwd", "notebooks", "01_first.ipynb/", "x" * 5000, "http://x/y.ipynb"]
NO_NOTEBOOKS += ["/dev/zero", "folder.ipynb", "loop.ipynb", "mine.ipynb", "\u00b2", "~", "1; touch executed", "", "01*"]
NO_FILES = ["nope", "", "mine.ipynb", "/dev/zero", "/proc/self/mem", "\udcff", "loop.ipynb", "/", "a\nb"]
PROTECTED = [
    "notebooks/x",
    "NOTEBOOKS/x",
    "new/../notebooks/x",
    "link/x",
    "results/x",
    "book/x",
    "gsae_lib/x",
    ".git/x",
]
PROTECTED += ["gsae_book/x", "experiments/x", "tests/x", "benchmarks/x", "locks/x", "_static/x", ".hidden/x"]
UNWRITABLE = ["mine.txt/x", "/proc/x", "/dev/null/x", "/sys/x", "x" * 300, "nowhere/../mine.txt/x", "\udcff/\udcff"]
