"""What a bad input is, what may come of it, and how that is judged.

A case is sound if it ends in one line that says what is wrong ("one line"), or if the input is usable after all and the
answer is right ("handled"). Everything else is a flaw: a raw error ("traceback"), an answer without a word ("silent"),
code of the input that ran ("executed"), a file or an array that is another afterwards ("changed"), no end ("hang").
"""

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

SOUND = ("one line", "handled")
LONGEST = 2000  # characters of a message that is still clear


@dataclasses.dataclass(frozen=True)
class Command:
    """A call of `gsae` in a scratch project, after `prepare` has put the input there.

    accepted: the input may be used. n_lines: of the message, where one command finds several things wrong. fresh: in a
    process of its own, with kernels and workers; else in a fork, where these are not started. environment: on top.
    """

    arguments: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda root: None
    accepted: bool = False
    n_lines: int = 1
    fresh: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: str = "."


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A call of the library.

    names: the message has to contain one of these. right: whether a result is the right one; None if there is none that
    would be. n_lines: of the message, where another library asks for more.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    right: Callable[[Any], bool] | None = None
    n_lines: int = 1


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of the library in a fork, in an empty folder: `prepare` writes files there and says what is called."""

    prepare: Callable[[Path], Attempt]


@dataclasses.dataclass(frozen=True)
class Case:
    """One bad input. may_change: patterns of the names of files that the command may write all the same."""

    family: str
    name: str
    run: Command | Call
    may_change: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case: the exit code, or the type of the exception; the verdict; the message."""

    family: str
    name: str
    code: int | str
    verdict: str
    seconds: float
    message: str


def judge(attempt: Attempt) -> tuple[str, str, str]:
    """Make the call, and return (type of the exception, verdict, message)."""
    given = [*attempt.arguments, *attempt.keywords.values()]
    before = [snapshot(one) for one in given]
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = attempt.function(*attempt.arguments, **attempt.keywords)
    except Exception as error:
        kind, text = type(error).__name__, str(error)
        verdict = "one line" if is_clear(error, attempt) else "traceback"
    else:
        said = "; ".join(sorted({f"{one.category.__name__}: {one.message}" for one in warned}))[:300]
        kind, text = "", f"returned {' '.join(repr(result).split())[:200]} {said}"
        try:
            verdict = "handled" if attempt.right is not None and attempt.right(result) else "silent"
        except Exception as error:  # a result of another kind
            verdict, text = "silent", f"{text} ({type(error).__name__}: {error})"
    if any(not same(one, snapshot(now)) for one, now in zip(before, given, strict=True)):
        verdict = "changed"
    return kind, verdict, text[:LONGEST]


def is_clear(error: Exception, attempt: Attempt) -> bool:
    """Whether an exception is documented, of one line, and says what is wrong with what."""
    documented = isinstance(error, ValueError) or any(
        kind.__name__ in raised_by(attempt.function) for kind in type(error).__mro__[:-2]
    )
    text = str(error)
    lines = len(text.strip().splitlines())
    named = not attempt.names or any(name in text for name in (*attempt.names, *parameters_of(attempt.function)))
    return documented and 0 < lines <= attempt.n_lines and len(text) <= LONGEST and named


def parameters_of(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters of a function, of more than one letter."""
    try:
        return [name for name in inspect.signature(function).parameters if len(name) > 1]
    except (TypeError, ValueError):
        return []


def raised_by(function: Callable[..., Any]) -> str:
    """The sections `Raises:` of a function, its class and the classes above it."""
    owners = [function, getattr(function, "__func__", None)]
    owner = getattr(function, "__self__", None)
    owners += (owner if inspect.isclass(owner) else type(owner)).__mro__ if owner is not None else ()
    owners += function.__mro__ if inspect.isclass(function) else (type(function).__call__,)
    texts = [inspect.getdoc(one) or "" for one in owners if one is not None]
    return "\n".join(part for text in texts for part in re.findall(r"Raises:(.*)", text, flags=re.DOTALL))


def snapshot(value: Any) -> Any:
    """A copy by which a change is seen: of arrays and tensors the numbers, of anything else nothing."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.layout == torch.strided else None
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.copy()
    return None


def same(one: Any, other: Any, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether two results are the same within rounding, dataclasses and sequences item by item; nan is nan."""
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one) if field.name != "seconds"]
        return all(same(getattr(one, name), getattr(other, name), rtol, atol) for name in fields)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(same(a, b, rtol, atol) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name], rtol, atol) for name in one)
    one, other = (as_numbers(x) if isinstance(x, torch.Tensor) else x for x in (one, other))
    if isinstance(one, np.ndarray | np.generic | float | int) and not isinstance(one, bool):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape:
            return False
        if one.dtype.kind in "OSUV":
            return bool((one == other).all())
        return np.allclose(one.astype(complex), other.astype(complex), rtol=rtol, atol=atol, equal_nan=True)
    return bool(one == other)


def as_numbers(x: torch.Tensor) -> np.ndarray:
    """A tensor as an array, which has no bfloat16."""
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def finite(value: Any) -> bool:
    """Whether no number in a result is nan or infinite."""
    if dataclasses.is_dataclass(value):
        return all(finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple | list):
        return all(map(finite, value))
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, np.ndarray | float) and np.asarray(value).dtype.kind in "fc":
        return bool(np.isfinite(value).all())
    return True
