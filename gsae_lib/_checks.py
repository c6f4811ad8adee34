"""Argument checks whose messages name the parameter, its value and what is allowed."""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Sequence
from numbers import Integral, Real
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

BLOCK_ENTRIES = 2**22
MOST_DRAWN = 2**24  # samples, of which torch draws some with chances that differ
# The largest entries of data: their squares can be added up and divided by, in the precision they come in.
LARGEST = {torch.float64: 1e150, torch.float32: 1e18, torch.bfloat16: 1e18}

AUTOCAST = ("cpu", "cuda")  # the devices for which autocast is turned off

P = ParamSpec("P")
R = TypeVar("R")
RandomState = int | np.random.RandomState | None  # as in scikit-learn: None is numpy's global state


def check_int(name: str, value: int, *, low: int = 1, high: int | None = None) -> int:
    """Return `value` as int, or raise ValueError unless low <= value (<= high)."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and low <= value < 2**63 and (high is None or value <= high):
        return int(value)
    allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if not whole:
        raise ValueError(f"{name}={value!r}: expected {allowed}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name}={value}: expected {allowed}")
    raise ValueError(f"{name}={str(value)[:40]}: expected {allowed}, below 2**63")


def check_real(name: str, value: float, *, low: float = 0.0, high: float = math.inf, strict: bool = False) -> float:
    """Return `value` as float, or raise ValueError unless it is finite and in [low, high] ((low, high] if strict)."""
    allowed = f"a finite number {'>' if strict else '>='} {low}"
    if high < math.inf:
        allowed += f" and <= {high}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r}: expected {allowed}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value) or value < low or value > high or (strict and value == low):
        raise ValueError(f"{name}={value}: expected {allowed}")
    return value


def check_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    """Return `value` as two floats, or raise ValueError unless they are two finite numbers with 0 < low <= high."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}={value!r}: expected two numbers")
    low = check_real(f"{name}[0]", value[0], strict=True)
    return low, check_real(f"{name}[1]", value[1], low=low)


def check_bool(name: str, value: bool) -> bool:
    """Return `value` as bool, or raise ValueError unless it is one."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r}: expected True or False")
    return bool(value)


def check_choice(name: str, value: object, allowed: Collection[object]) -> object:
    """Return `value`, or raise ValueError unless it is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(repr(a) for a in allowed)}")
    return value


def check_matrix(name: str, x: Tensor, *, columns: int | None = None, any_size: bool = False) -> Tensor:
    """Return `x`, or raise ValueError unless it is a finite floating matrix (with that many columns).

    Entries whose squares overflow are refused with the others that are not finite, unless they may have any size.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 2 or x.layout != torch.strided:
        raise ValueError(f"{name}: expected a floating-point tensor with two axes, got {describe(x)}")
    if columns is not None and x.shape[1] != columns:
        raise ValueError(f"{name}: expected {columns} columns, got {describe(x)}")
    check_size(name, x, any_size=any_size)
    return x


def at_least_single(x: Tensor) -> Tensor:
    """`x`, in float32 if it is half precision, for which LAPACK and numpy have nothing."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function, within torch.autocast too in the precision of what it is given."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.ExitStack() as stack:
            for device in AUTOCAST:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return called


def check_full_precision(name: str, x: Tensor) -> None:
    """Raise ValueError unless numpy, and a file, hold the numbers as they are."""
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: expected float32 or float64, got {describe(x)}")


def check_samples(name: str, x: Tensor, *, columns: int | None = None) -> Tensor:
    """Return `x`, as `check_matrix`, or raise ValueError unless it has a row."""
    if not len(check_matrix(name, x, columns=columns)):
        raise ValueError(f"{name}: expected at least one sample, got {describe(x)}")
    return x


def as_table(name: str, x: object) -> np.ndarray:
    """What has two axes and real numbers as an array, or ValueError: a tensor, a frame, lists, but nothing sparse."""
    if isinstance(x, Tensor):
        x = as_array(name, x)
    from scipy.sparse import issparse

    if issparse(x):
        raise ValueError(f"{name}: is a sparse matrix; expected a dense array, such as that of its toarray()")
    check_mask(name, x)
    try:
        found = np.asarray(x)
        found = (
            found
            if found.dtype.kind in "fiub"
            else found.astype(np.float64, casting="safe" if found.dtype.kind != "O" else "unsafe")
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected real numbers, got {describe(x)} ({str(error)[:100]})") from None
    if found.ndim != 2:
        raise ValueError(f"{name}: expected (samples, features), got {describe(found)}")
    return found


def as_array(name: str, x: Tensor) -> np.ndarray:
    """A tensor as an array, or ValueError if it is sparse."""
    if x.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense array, got {describe(x)}; make it one by to_dense()")
    x = x.detach().cpu()
    return (x if x.dtype != torch.bfloat16 else x.float()).numpy()


def check_mask(name: str, x: object) -> None:
    """Raise ValueError if entries of a masked array are missing: what stands there would be taken for numbers."""
    if isinstance(x, np.ma.MaskedArray) and (n_missing := np.ma.count_masked(x)):
        raise ValueError(f"{name}: {n_missing} entries of a masked array are missing; fill them")


def check_drawn(name: str, x: Tensor) -> None:
    """Raise ValueError for more samples than torch draws from with chances that differ."""
    if len(x) > MOST_DRAWN:
        raise ValueError(f"{name}: expected at most {MOST_DRAWN} samples to search, got {len(x)}; take some of them")


def check_size(name: str, x: Tensor, *, any_size: bool = False) -> None:
    """Raise ValueError unless all entries of a matrix are finite, and small enough for their squares to be."""
    limit = torch.finfo(x.dtype).max if any_size else LARGEST.get(x.dtype, torch.finfo(x.dtype).max)
    for rows in x.detach().split(rows_at_a_time(x.shape[1])) if x.numel() else ():
        low, high = rows.aminmax()
        size = max(-low.item(), high.item())
        if not size <= limit:  # which nan is not either
            raise ValueError(f"{name}: has {_too_large(size, limit)} ({describe(x)})")


def _too_large(size: float, limit: float) -> str:
    if not math.isfinite(size):
        return "non-finite entries"
    return f"entries up to {size:.2g}, whose squares overflow: scale them to at most {limit:g}"


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
    limit = LARGEST[torch.float32 if x.dtype == np.float32 else torch.float64]
    for start in range(0, len(x), step) if x.dtype.kind == "f" else ():
        size = float(np.abs(x[start : start + step]).max(initial=0))
        if not size <= limit:
            raise ValueError(f"{name}: has {_too_large(size, limit)} ({describe(x)})")
    return x


def check_columns(name: str, x: np.ndarray, columns: Sequence[object] | None = None) -> np.ndarray:
    """Return `x`, or raise ValueError, which names the first bad entry, unless all are finite, as are their squares."""
    limit = LARGEST[torch.float32 if x.dtype == np.float32 else torch.float64]
    step = rows_at_a_time(x.shape[-1] if x.ndim > 1 else 1)
    for start in range(0, len(x), step):
        block = x[start : start + step]
        if np.abs(block).max(initial=0) <= limit:
            continue
        place = tuple(int(k) for k in np.argwhere(~(np.abs(block) <= limit))[0])
        value = float(block[place])
        where = f"row {start + place[0]}" + (f", column {place[1]}" if x.ndim > 1 else "")
        if columns is not None:
            where = f"row {start + place[0]}, column {columns[place[1]]!r}"
        told = (
            "NaN"
            if math.isnan(value)
            else "infinite"
            if math.isinf(value)
            else f"{value:.3g}, and its square overflows"
        )
        raise ValueError(f"{name}: {where} is {told}; expected finite numbers, at most {limit:g} in size")
    return x


def as_seed(random_state: RandomState) -> int:
    """An int as it is, else one drawn from the state, or ValueError: for what takes a seed and no state."""
    if isinstance(random_state, Integral):
        return check_int("random_state", random_state, low=0, high=2**32 - 1)
    from sklearn.utils import check_random_state  # imported here: it takes as long as torch

    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError:
        allowed = "an integer from 0 to 2**32 - 1, a RandomState or None"
        raise ValueError(f"random_state={random_state!r}: expected {allowed}") from None


def check_device(device: str, *, present: bool = True) -> str:
    """Return `device`, or raise ValueError unless it is the name of a device of torch; `present`: that is here."""
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"device={device!r}: expected a device of torch, such as 'cpu' or 'cuda'") from None
    if present and kind != "cpu":
        try:
            torch.empty(1, device=device).cpu()  # "meta" has a shape and no numbers
        except Exception as error:  # whatever a back end says that is not there
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device={device!r}: this machine has none; expected 'cpu', for one ({reason})") from None
    return device


def check_devices(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all tensors, by name, are on one device."""
    devices = {name: str(x.device) for name, x in tensors.items() if isinstance(x, Tensor)}
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{', '.join(devices)}: expected one device, got {found}")


def describe(x: object) -> str:
    """Shape and dtype of a tensor or an array, or the type of anything else, for error messages."""
    if isinstance(x, Tensor | np.ndarray):
        kind = "ndarray " if isinstance(x, np.ndarray) else "" if x.layout == torch.strided else "sparse "
        return f"{kind}{tuple(x.shape)} {x.dtype}"
    return type(x).__name__
