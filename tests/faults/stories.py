"""Inputs with a story: what strangers and attackers really bring, each of which once went wrong or would be bad."""

import io
import pickle
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from faults.bad_values import Bomb

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

# Files of parameters, and what the refusal of each says.
BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}]\n" for p, n in pairwise("abcdefghijklmnop"))
YAML: dict[bytes, str] = {
    BOMB.encode(): "*a refers to another part",
    b"seeds: &s [*s]\n": "*s refers to another part",
    b"n_groups: !!python/object/apply:os.system ['touch executed']\n": "the tag 'tag:yaml.org,2002:python/object/apply",
    b"name: !!python/object/new:subprocess.Popen [['touch', 'executed']]\n": "the tag 'tag:yaml.org,2002:python/object",
    b"!!python/object/apply:os.system ['touch executed']\n": "the tag 'tag:yaml.org,2002:python/object/apply",
    b"name: !!str 3\n": "the tag 'tag:yaml.org,2002:str' is not allowed",
    b"name: !mine x\n": "the tag '!mine' is not allowed",
    b"name: !!binary aGFsbG8=\n": "the tag 'tag:yaml.org,2002:binary' is not allowed",
    b"rate: 0.1\nflag: true\nrate: 0.2\n": "'rate' is given twice",
    b"---\nn_groups: 3\n---\nn_groups: 4\n": "found another document",
    b"? [a]\n: 1\n": "unhashable key",
    b"a: [\n": "line 2 is not YAML",
    b"- a\n": "must map parameter names to values",
    b"text\n": "must map parameter names to values",
    b"name: \xed\xa0\x80\n": "can't decode byte 0xed",
    b"name: \x1b\n": "special characters are not allowed",
    pickle.dumps(Bomb()): "can't decode byte 0x80",
    b"seeds: " + b"[" * 50_000: "nests too deeply",
    b"seeds:\n" + b"- " * 50_000: "nests too deeply",
    b"seeds: [" + b"1, " * 100_000 + b"]": "larger than 200000 bytes",
    b"x" * 190_000 + b": 1\n": "line 1 is not YAML",
}

# Specifications of sweeps: what is run, and over what; and what the refusal says.
FUNCTION = "function: sweep_tasks.measure\n"
MEASURE = f"{FUNCTION}grid: {{seed: [0]}}\n"


def _drawn(n_points: int, name: str, ends: str, log: str = "") -> str:
    """The specification of random points."""
    return f"{MEASURE}random: {{n_points: {n_points}, ranges: {{{name}: [{ends}]}}, log: [{log}]}}"


SPECS: dict[str, str] = {
    "grid: {seed: [0]}": "one function or one notebook is needed",
    f"{FUNCTION}notebook: '1'": "one function or one notebook is needed",
    "function: os.system\ngrid: {command: ['touch executed']}": "function = 'os.system' is not allowed",
    "function: __import__('os').system": "must be module.function",
    "function: sweep_tasks": "must be module.function",
    "function: sweep_tasks.nothing": "must be module.function of this project (AttributeError",
    "function: sweep_tasks.count.__globals__": "must be module.function of this project (ModuleNotFoundError",
    "function: sweep_tasks.Settings": "not a type",
    "function: sweep_tasks.escape": "must be module.function of this project; this one is from",
    "function: html.escape": "html/__init__.py",  # the project has a folder of that name
    "function: \uff53weep_tasks.count": "must be module.function",
    'function: "\\e[2J.x"': "must be module.function",
    "function: leaves.run": "must be module.function of this project (SystemExit: '0')",
    "function: gsae_lib._files.replace_file\ngrid: {path: [mine.txt], text: [x]}": "path has no default",
    "function: sweep_tasks.needs_an_object": "model has no default, and a sweep cannot set what is",
    "function: sweep_tasks.one_by_one\ngrid: {seed: [0]}": "it must not yield or be awaited",
    "function: sweep_tasks.by_place\ngrid: {seed: [0]}": "seed cannot be set by its name",
    "function: sweep_tasks.no_type": "the types of no_type cannot be read: ZeroDivisionError",
    "notebook: ../outside.ipynb": "is not allowed: it must be in",
    "notebook: ../other/notebooks/01_first.ipynb": "is not allowed: it must be in",
    "notebook: link.ipynb\ngrid: {n_groups: [0]}": "n_groups = '0' is not allowed",
    "notebook: '1'\ngrid: {save_to: [x]}": "save_to = 'x' is not allowed in a sweep",
    f"{MEASURE}limit: {{}}": "there is no section 'limit'; known are function, notebook, plan, grid",
    f"{MEASURE}limits: {{seconds: 0}}": "seconds = '0' is not allowed: it must be a number, more than 0",
    f"{MEASURE}limits: {{seconds: .inf}}": "seconds = '.inf' is not allowed",
    f"{MEASURE}limits: {{hours: 1}}": "there is no limit 'hours'; known are seconds, mib",
    f"{MEASURE}plan: os.getcwd": "'os.getcwd' is not allowed",
    f"{FUNCTION}plan: sweep_tasks.planned_nothing": "it has no points",
    f"{FUNCTION}plan: sweep_tasks.one_by_one": "must not yield",
    f"{FUNCTION}plan: sweep_tasks.go_wrong": "plan = 'sweep_tasks.go_wrong': go_wrong() missing 1",
    f"{FUNCTION}plan: 3": "function = '3' is not allowed",
    f"{FUNCTION}plan: sweep_tasks.planned\nlist: [{{size: 1}}]": "size is given twice, in two of plan, grid, list and",
    f"{FUNCTION}grid: {{seed: [0, x]}}": "point seed=x: seed = 'x' is not allowed: it must be an",
    f"{FUNCTION}grid: {{size: [1]}}": "point size=1: seed is needed: it must be an",
    f"{FUNCTION}grid: {{seed: [0], size: [0]}}": "point seed=0, size=0: size = '0' is not allowed: it must be an",
    f"{FUNCTION}grid: {{seed: [0], training.epochs: [0]}}": "training.epochs = '0' is not allowed: it must be an",
    f"{FUNCTION}grid: {{seed: [0], kind: [c]}}": "kind = 'c' is not allowed: it must be one of 'a', 'b'",
    f"{FUNCTION}grid: {{seed: [0], rate: [101]}}": "rate=101: rate = 101.0 is not allowed: it must be at most 100",
    f"{FUNCTION}grid: {{seed: [0], rate: [0]}}": "point seed=0, rate=0: ZeroDivisionError: 'float division by zero'",
    f"{FUNCTION}grid: {{seed: [0], siz: [1]}}": "there is no parameter siz; did you mean size? Known are size, rate",
    f"{FUNCTION}grid: {{seed: [0], device: [cpu]}}": "there is no parameter device",
    f"{FUNCTION}grid: {{seed: 0}}": "grid: seed = '0' is not allowed: it must be a list of values",
    f"{FUNCTION}grid: {{seed: []}}": "grid: seed = [] is not allowed",
    f"{FUNCTION}grid: [seed]": "grid must map names to values",
    f"{FUNCTION}grid: {{seed: {list(range(400))}, size: {list(range(1, 400))}}}": "159600 points are not allowed",
    f"{FUNCTION}list: {{seed: 0}}": "list must be a list",
    f"{FUNCTION}list: [seed]": "an item of list must map names to values",
    f"{MEASURE}list: [{{seed: 1}}]": "seed is given twice",
    f"{MEASURE}random: {{ranges: {{rate: [0, 1]}}}}": "n_points is needed",
    f"{MEASURE}random: {{n_points: 1}}": "random needs ranges",
    _drawn(0, "rate", "0, 1"): "n_points = '0' is not allowed",
    _drawn(10**9, "rate", "1, 2"): "n_points = 1000000000 is not allowed",
    _drawn(1, "rate", "1, 0"): "the lower number comes first",
    _drawn(1, "rate", "0, 1, 2"): "rate = ['0', '1', '2'] is not allowed",
    _drawn(1, "rate", ".nan, 1"): "rate = ['.nan', '1'] is not allowed",
    _drawn(1, "rate", "-1e308, 1e308"): "rate = inf is not allowed",
    _drawn(1, "rate", "0, 1", "rate"): "rate = ['0', '1'] is not allowed",
    _drawn(1, "rate", "0, 1", "size"): "there is no range 'size'",
    _drawn(1, "size", "0.2, 0.8"): "size = ['0.2', '0.8'] is not allowed",
    _drawn(1, "size", f"1, 1{400 * '0'}", "size"): "at most 1000000000000000000",
}

# Cells of parameters, which are read and never run, and what the refusal says.
CELLS: dict[str, str] = {
    "x = 1": "only 'name: type = default'",
    "import os": "only 'name: type = default'",
    "x.y: int = 1": "only 'name: type = default'",
    "x = 1\n" * 10_000: "line 1: only 'name: type = default'",
    "x: int": "a default is needed",
    "x: int = 1; y: int = 2": "one parameter a line",
    "x: int = (\n    1)": "one line a parameter",
    "x: int = 1\nx: int = 2": "x is declared twice",
    "%matplotlib inline": "line 1: invalid syntax",
    "!touch executed": "line 1: invalid syntax",
    "x: int = __import__('os').system('touch executed')": "is not a literal",
    "x: int = open('executed', 'w')": "is not a literal",
    "x: list[open('executed', 'w')] = []": "is not a parameter type",
    "x: Annotated[int, Ge(open('executed', 'w').fileno())] = 1": "is not a literal",
    "x: Annotated[int, open('executed', 'w')] = 1": "is not a constraint; known are Ge",
    "x: int = [1][print(open('executed', 'w'))]": "is not a literal",
    "x: str = f\"{open('executed', 'w')}\"": "is not a literal",
    "x: Path = 1": "'Path' is not a parameter type",
    "x: int | None = 1": "'None' is not a parameter type",
    "x: tuple[...] = ()": "'tuple[...]' is not a parameter type",
    "x: tuple[..., int] = (1,)": "'tuple[..., int]' is not a parameter type",
    "x: Annotated[int] = 1": "'Annotated[int]' is not a parameter type",
    "x: Literal[()] = 1": "its choices are texts or numbers",
    "x: Literal[[1]] = [1]": "its choices are texts or numbers",
    "x: Annotated[int, Ge(1, 2, 3)] = 1": "positional arguments",
    "x: Annotated[int, Ge('a')] = 1": "x: the type cannot be checked",
    "x: Annotated[str, Ge(1)] = 'a'": "x: the type cannot be checked",
    "x: Annotated[int, MultipleOf(0)] = 1": "x: the type cannot be checked",
    "x: Annotated[int, Ge(2)] = 1": "x = 1 is not allowed: it must be an integer, at least 2",
    "x: int = True": "x = True is not allowed: it must be an",
    "x: float = 1e999": "x = inf is not allowed",
    "x: int = " + "9" * 5000: "Exceeds the limit (4300 digits)",
    "x: int = '\0'": "cannot contain null bytes",
    "x: str = '\ud800'": "surrogates not allowed",
    "x: int = " + "(" * 1000: "too many nested parentheses",
    "x: int = " + "-" * 10**5 + "1": "it is not Python",
}

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
NO_NAMES = ["", " ", "n_groups ", "__class__", "\uff4e_groups", "x" * 10_000, "a\nb", "\x1b]0;t\x07", "n-groups"]
NO_NAMES += ["self"]
NO_NOTEBOOKS = ["99", "../01_first", "/etc/passwd", "notebooks", "01_first.ipynb/", "x" * 5000, "http://x/y.ipynb"]
NO_NOTEBOOKS += ["/dev/zero", "folder.ipynb", "loop.ipynb", "mine.ipynb", "\u00b2", "~", "1; touch executed", "", "01*"]
NO_FILES = ["nope", "", "mine.ipynb", "/dev/zero", "/proc/self/mem", "\udcff", "loop.ipynb", "/", "a\nb"]
PROTECTED = """
notebooks/x NOTEBOOKS/x new/../notebooks/x link/x results/x book/x gsae_lib/x .git/x gsae_book/x experiments/x tests/x
benchmarks/x locks/x _static/x .hidden/x
""".split()
UNWRITABLE = ["mine.txt/x", "/proc/x", "/dev/null/x", "/sys/x", "x" * 300, "nowhere/../mine.txt/x", "\udcff/\udcff"]
