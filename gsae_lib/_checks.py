"""Argument checks whose messages name the parameter, its value and what is allowed."""

import math
from collections.abc import Collection
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

BLOCK_ENTRIES = 2**22

RandomState = int | np.random.RandomState | None  # as in scikit-learn: None is numpy's global state


def check_int(name: str, value: int, *, low: int = 1, high: int | None = None) -> int:
    """Return `value` as int, or raise ValueError unless low <= value (<= high)."""
    allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name}={value!r}: expected {allowed}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name}={value}: expected {allowed}")
    return int(value)


def check_real(name: str, value: float, *, low: float = 0.0, high: float = math.inf, strict: bool = False) -> float:
    """Return `value` as float, or raise ValueError unless it is finite and in [low, high] ((low, high] if strict)."""
    allowed = f"a finite number {'>' if strict else '>='} {low}"
    if high < math.inf:
        allowed += f" and <= {high}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r}: expected {allowed}")
    value = float(value)
    if not math.isfinite(value) or value < low or value > high or (strict and value == low):
        raise ValueError(f"{name}={value}: expected {allowed}")
    return value


def check_choice(name: str, value: object, allowed: Collection[object]) -> object:
    """Return `value`, or raise ValueError unless it is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(repr(a) for a in allowed)}")
    return value


def check_matrix(name: str, x: Tensor, *, columns: int | None = None) -> Tensor:
    """Return `x`, or raise ValueError unless it is a finite floating matrix (with that many columns)."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 2:
        raise ValueError(f"{name}: expected a floating-point tensor with two axes, got {describe(x)}")
    if columns is not None and x.shape[1] != columns:
        raise ValueError(f"{name}: expected {columns} columns, got {describe(x)}")
    if not all(bool(torch.isfinite(rows).all()) for rows in x.split(rows_at_a_time(x.shape[1]))):
        raise ValueError(f"{name}: has non-finite entries ({describe(x)})")
    return x


def rows_at_a_time(columns: int) -> int:
    """Rows of a matrix to look at together, so that temporaries stay small beside it."""
    return max(1, BLOCK_ENTRIES // max(1, columns))


def on_disk(x: object) -> bool:
    """Whether an array is a memory map, or a view of one, so that its rows are better read when they are needed."""
    while isinstance(x, np.ndarray):
        if isinstance(x, np.memmap):
            return True
        x = x.base
    return False


def check_mapped(name: str, x: np.ndarray, *, columns: int | None = None) -> np.ndarray:
    """Return `x`, or raise ValueError unless it is a finite matrix of numbers (with that many columns).

    It is read once from beginning to end, a block of rows at a time.
    """
    if x.ndim != 2 or x.dtype.kind not in "fiub" or (columns is not None and x.shape[1] != columns):
        wanted = "columns" if columns is None else f"{columns} columns"
        raise ValueError(f"{name}: expected a matrix of real numbers with {wanted}, got {describe(x)}")
    step = rows_at_a_time(x.shape[1])
    if x.dtype.kind == "f" and not all(np.isfinite(x[i : i + step]).all() for i in range(0, len(x), step)):
        raise ValueError(f"{name}: has non-finite entries ({describe(x)})")
    return x


def as_seed(random_state: RandomState) -> int:
    """An int as it is, else one drawn from the state, or ValueError: for what takes a seed and no state."""
    if isinstance(random_state, Integral):
        return check_int("random_state", random_state, low=0)
    return int(check_random_state(random_state).randint(2**31 - 1))


def check_device(device: str) -> str:
    """Return `device`, or raise ValueError unless it is the name of a device of torch."""
    try:
        torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device={device!r}: expected a device of torch, such as 'cpu' or 'cuda'") from None
    return device


def describe(x: object) -> str:
    """Shape and dtype of a tensor or an array, or the type of anything else, for error messages."""
    if isinstance(x, Tensor | np.ndarray):
        return f"{'' if isinstance(x, Tensor) else 'ndarray '}{tuple(x.shape)} {x.dtype}"
    return type(x).__name__
