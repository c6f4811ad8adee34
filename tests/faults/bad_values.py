"""What a valid call is spoiled by: strategies of values of another type, shape, precision, range, or of damaged bytes.

`draw` takes a number of examples of a strategy, the same for the same seed.
"""

import gzip
import json
import math
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pandas as pd
import scipy.sparse
import torch
from hypothesis import strategies as st
from torch import Tensor

Strategy = st.SearchStrategy


def draw(strategy: Strategy, n: int, seed: random.Random | int) -> list[Any]:
    """Up to ``n`` different examples."""
    found = []
    only = {"database": None, "deadline": None, "phases": [hypothesis.Phase.generate]}

    @hypothesis.seed(seed if isinstance(seed, int) else seed.randrange(2**32))
    @hypothesis.settings(max_examples=n, suppress_health_check=list(hypothesis.HealthCheck), **only)
    @hypothesis.given(strategy)
    def keep(example: Any) -> None:
        found.append(example)

    keep()
    return found


def short(value: object) -> str:
    """A value as the name of a case shows it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


class Bomb:
    """What a pickle may hold: it runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


# Numbers and choices. None is among the others; whoever may be given it takes it out.

OTHERS = st.sampled_from([None, True, "2", b"2", [2], {}, 3 + 0j, (), object])
OTHERS |= st.text(max_size=4) | st.lists(st.integers(-9, 9), min_size=1, max_size=2).filter(lambda x: sum(x) != 8)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf, np.float64("nan"), 10**400])


def whole(least: int = 1, most: int | None = None) -> Strategy:
    """What is no whole number of a range."""
    above = st.integers(min_value=2**63 if most is None else most + 1)
    return OTHERS | NOT_FINITE | st.integers(max_value=least - 1) | st.floats() | above


def real(least: float = 0.0, most: float = math.inf, *, strict: bool = False) -> Strategy:
    """What is no finite number of a range; strict: without its lower end."""
    below = st.floats(max_value=least, allow_infinity=False, exclude_max=not strict)
    found = OTHERS | NOT_FINITE | (below if math.isfinite(least) else st.nothing())
    return found | (st.floats(min_value=most, exclude_min=True) if math.isfinite(most) else st.nothing())


def choice(*allowed: object) -> Strategy:
    """What is none of some values."""
    return (OTHERS | st.integers() | st.sampled_from([f"{allowed[0]} ", [allowed[0]]])).filter(
        lambda x: x not in allowed
    )


# Arrays. What a function may do with one: refuse it alone ("never"), answer as if nothing had been done ("same", "near"
# within the precision), answer in any way that is finite ("finite"), or show that the entry was bad ("spoiled").


class Spoiling(NamedTuple):
    """A change of a value, and how a function may take it."""

    name: str
    change: Callable[[Any], Any]
    use: str = "never"


def _entry(place: tuple[int, int], value: float) -> Spoiling:
    def change(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.result_type(x, np.float32))
        x[(place[0] % len(x), *(place[1] % n for n in x.shape[1:]))] = value
        return x

    return Spoiling(f"{value} at {place}", change, "spoiled")


NUMBERS = [
    Spoiling("all 1e200", lambda x: np.full_like(x, 1e200), "spoiled"),
    Spoiling("complex", lambda x: x + 0j),
    Spoiling("integers", lambda x: np.rint(3 * x).astype(np.int64), "finite"),
    Spoiling("booleans", lambda x: x > 0, "finite"),
    Spoiling("zeros", np.zeros_like, "finite"),
    Spoiling("one value", np.ones_like, "finite"),
    Spoiling("1e-310", lambda x: x * 1e-310, "finite"),
    Spoiling("one row again and again", lambda x: np.repeat(x[:1], len(x), axis=0), "finite"),
    Spoiling("one axis", lambda x: x.reshape(-1), "shape"),
    Spoiling("an axis more", lambda x: x[None], "shape"),
    Spoiling("no axis", lambda x: x.reshape(-1)[0].reshape(())),
    Spoiling("no rows", lambda x: x[:0], "shape"),
    Spoiling("no columns", lambda x: x[..., :0], "shape"),
    Spoiling("one row", lambda x: x[:1], "shape"),
    Spoiling("a column more", lambda x: np.concatenate([x, x[..., :1]], axis=-1), "shape"),
]
OBJECTS = [
    Spoiling("null", lambda x: None),
    Spoiling("a text", lambda x: "x"),
    Spoiling("a mapping", lambda x: {"a": 1}),
    Spoiling("an object", lambda x: object()),
    Spoiling("a number", lambda x: 3.0),
]


def _tensor(name: str, change: Callable[[Tensor], Any], use: str = "same") -> Spoiling:
    return Spoiling(name, lambda x: change(torch.from_numpy(x)), use)


TENSORS = [
    _tensor("a list", lambda x: x.tolist(), "never"),
    _tensor("an array", lambda x: x.numpy()),
    _tensor("a frame", lambda x: pd.DataFrame(x.numpy())),
    _tensor("sparse", lambda x: x.to_sparse()),
    _tensor("half", lambda x: x.half(), "near"),
    _tensor("single", lambda x: x.float(), "near"),
    _tensor("not contiguous", lambda x: x.mT.contiguous().mT),
    _tensor("every second row of a larger one", lambda x: x.repeat_interleave(2, dim=0)[::2]),
    _tensor("a parameter", lambda x: torch.nn.Parameter(x.clone())),
]
TABLES = [
    Spoiling("3e38 in float32", lambda x: np.full(x.shape, 3e38, np.float32)),
    Spoiling("texts", lambda x: np.full(x.shape, "a")),
    Spoiling("bytes", lambda x: np.full(x.shape, b"a")),
    Spoiling("objects", lambda x: np.full(x.shape, object())),
    Spoiling("an array of null", lambda x: np.full(x.shape, None)),
    Spoiling("rows of other lengths", lambda x: [*x.tolist()[:-1], [1.0]]),
    Spoiling("dates", lambda x: x.astype("datetime64[s]")),
    Spoiling("fields", lambda x: np.zeros(len(x), dtype=[("a", float), ("b", float)])),
    Spoiling("masked", lambda x: np.ma.masked_array(x, x > np.median(x))),
    Spoiling("a matrix", np.asmatrix),
    Spoiling("sparse", scipy.sparse.csr_matrix),
    Spoiling("a sparse array", scipy.sparse.coo_array),
    Spoiling("a frame with a text column", lambda x: pd.DataFrame(x).assign(t="a")),
    Spoiling("a frame of null", lambda x: pd.DataFrame(x).astype("Float64").mask(x > np.median(x))),
    Spoiling("a frame of names of two kinds", lambda x: pd.DataFrame(x).assign(t=1.0)),
    Spoiling("a series", lambda x: pd.Series(x[:, 0])),
    Spoiling("a frame of names twice", lambda x: pd.DataFrame(x, columns=["a"] * x.shape[1]), "same"),
    Spoiling("a frame", lambda x: pd.DataFrame(x, columns=[f"x{k}" for k in range(x.shape[1])]), "same"),
    Spoiling("a list", lambda x: x.tolist(), "same"),
    Spoiling("a tuple of arrays", tuple, "same"),
    Spoiling("objects that are numbers", lambda x: x.astype(object), "same"),
    Spoiling("big-endian", lambda x: x.astype(">f8"), "same"),
    Spoiling("long double", lambda x: x.astype(np.longdouble), "same"),
    Spoiling("half", lambda x: x.astype(np.float16), "near"),
    Spoiling("by columns", np.asfortranarray, "same"),
    Spoiling("backwards in memory", lambda x: x[::-1].copy()[::-1], "same"),
    Spoiling("read-only", lambda x: np.lib.stride_tricks.as_strided(x, writeable=False), "same"),
    Spoiling(
        "not aligned", lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view("f8").reshape(x.shape), "same"
    ),
    Spoiling("large integers", lambda x: np.full(x.shape, 2**63, np.uint64), "finite"),
    _tensor("a sparse tensor", lambda x: x.to_sparse(), "never"),
    _tensor("a brain float tensor", lambda x: x.bfloat16(), "near"),
    _tensor("a tensor with a gradient", lambda x: x.requires_grad_()),
]
ENTRIES = st.builds(
    _entry,
    st.tuples(st.integers(0, 39), st.integers(0, 7)),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300]) | st.floats(min_value=1e160, allow_infinity=False),
)


def arrays(tensor: bool, ndim: int = 2) -> Strategy:
    """Spoilings of a tensor, or of an array that stands for a table."""
    numbers = ENTRIES | st.sampled_from(NUMBERS)
    if tensor:
        numbers = numbers.map(lambda s: s._replace(change=lambda x: torch.from_numpy(np.array(s.change(x)))))
    flat = ("frame", "series", "sparse", "matrix")  # of what has more axes there is no such thing
    others = [s for s in (TENSORS if tensor else TABLES) if ndim == 2 or not any(word in s.name for word in flat)]
    return numbers | st.sampled_from(OBJECTS + others)


# Bytes, JSON, places.


def _cut(share: float) -> Spoiling:
    return Spoiling(f"cut at {share:.3f}", lambda content: content[: int(share * len(content))])


def _flip(share: float, bit: int) -> Spoiling:
    def change(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]

    return Spoiling(f"bit {bit} flipped at {share:.3f}", change)


OTHER_FILES = [
    Spoiling("empty", lambda _: b""),
    Spoiling("a text", lambda _: b"mine\n"),
    Spoiling("a list", lambda _: b"[]"),
    Spoiling("null", lambda _: b"null"),
    Spoiling("JSON", lambda _: b"{}"),
    Spoiling("deep", lambda _: b"[" * 10**5),
    Spoiling("many digits", lambda _: b'{"a": ' + b"9" * 5000 + b"}"),
    Spoiling("not UTF-8", lambda _: b"\xff"),
    Spoiling("a pickle", lambda _: pickle.dumps(Bomb())),
    Spoiling("zeros", lambda content: bytes(len(content) + 1)),
    Spoiling("random bytes", lambda content: random.Random(0).randbytes(len(content) + 9)),
    Spoiling("a gzip", gzip.compress),
]
DAMAGES = [
    Spoiling("a byte more", lambda content: content + b"x"),
    Spoiling("twice", lambda content: content + content),
    Spoiling("a header without end", lambda content: struct.pack("<Q", 2**63) + content[8:]),
    Spoiling("a header of 4 GB", lambda content: struct.pack("<Q", 2**32) + content[8:]),
]
SHARES = st.floats(0, 1, exclude_max=True)
OTHER = st.sampled_from(OTHER_FILES)
DAMAGED = OTHER | st.sampled_from(DAMAGES) | st.builds(_cut, SHARES) | st.builds(_flip, SHARES, st.integers(0, 7))


def texts(content: str) -> Strategy:
    """A text with some characters replaced by others, or cut."""
    marks = st.text(st.sampled_from("\x00\t\x1b\u2028\ud800[]{}&*!%@`\"':,-#|>\\é9"), min_size=1, max_size=3)
    places = st.integers(3, len(content) - 3)
    spoiled = st.builds(lambda k, mark, n: content[:k] + mark + content[k + n :], places, marks, st.integers(0, 2))
    return spoiled | places.map(lambda k: content[:k])


JSON = st.sampled_from(
    [None, True, "x", "", -1, 0, 1.5, 10**30, 1e308, [], [1], [[1]], {}, {"a": {"b": [1]}}, math.nan]
)
JSON |= st.text(max_size=3) | st.floats() | st.integers(-9, 9)


def _places(content: Any, depth: int) -> list[tuple[Any, ...]]:
    """The paths of all that JSON holds, down to a depth."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [
        place for key, value in inner for place in [(key,), *((key, *p) for p in _places(value, depth - 1))] if depth
    ]


def json_changes(content: Any, depth: int = 4, values: Strategy = JSON) -> Strategy:
    """Spoilings of what JSON holds: a value at any place is another, or is gone, or there is one more."""
    places = st.sampled_from(_places(content, depth))
    words = st.sampled_from(["put", "put", "put", "no", "also"])

    def spoil(place: tuple[Any, ...], word: str, value: Any) -> Spoiling:
        def change(found: Any) -> Any:
            *above, last = place
            found = inner = json.loads(json.dumps(found))
            for key in above:
                inner = inner[key]
            if word == "no":
                inner.pop(last, None) if isinstance(inner, dict) else inner.pop(last)
            else:
                inner[f"{last}x" if word == "also" and isinstance(inner, dict) else last] = value
            return found

        where = ".".join(map(str, place))
        return Spoiling(f"no {where}" if word == "no" else f"{word} {where} = {short(value)}", change)

    return st.builds(spoil, places, words, values)


def obstacle(kind: str) -> Callable[[Path], object]:
    """Something else in the place of a file."""

    def put(path: Path) -> None:
        path.unlink(missing_ok=True)
        links = {"a device": "/dev/zero", "a link to itself": path.name, "a link to a folder": path.parent}
        if kind in links:
            path.symlink_to(links[kind])
        elif kind == "a folder":
            path.mkdir()
        elif kind == "a pipe":
            os.mkfifo(path)

    return put


OBSTACLES = ("a device", "a link to itself", "a link to a folder", "a folder", "a pipe", "missing")
