"""Loops over the pairs of a sample and a group, compiled by numba for the CPU: each row of the data is read once.

Without numba nothing here is called: what uses these loops has another way, by torch alone.
"""

import functools
import importlib
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int


def _find_numba() -> tuple[Any, str]:
    """The package, or None and why there is none: it is not installed, or too old for this NumPy."""
    try:
        return importlib.import_module("numba"), ""
    except ImportError as error:
        return None, str(error)


numba, WHY_NOT = _find_numba()
# Entries that are compared at a time, without a branch.
STRETCH = 8


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """`loop`, compiled at its first call and kept in a cache on disk, if there is a place for it.

    Sums may be taken in another order, but what is not a number stays so. Other threads go on meanwhile. Without numba
    it is the loop of Python.
    """
    if numba is None:
        return loop
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc"}}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(loop)


@functools.cache
def are_compiled() -> bool:
    """Whether numba compiles these loops; where it is missing, one line says so, once."""
    if numba is None:
        message = "no numba (%s): what it would compile is computed by torch, slower; pip install 'gsae_lib[fast]'"
        logging.getLogger(__name__).warning(message, WHY_NOT)
    return numba is not None


@compiled
def groups_above(
    response: Float[np.ndarray, "samples atoms"],
    least: Float[np.ndarray, " samples"],
    group_size: int,
    nonnegative: bool,
) -> tuple[Int[np.ndarray, " starts"], Int[np.ndarray, " pairs"]]:
    """The groups of each sample whose squared norm is not at most `least`, which is all of them if that is negative.

    A group above it has an entry whose square is above least / group_size, so most entries are compared only.

    Returns:
        (starts, groups): those of sample i are groups[starts[i] : starts[i + 1]], in order.
    """
    n_samples, n_atoms = response.shape
    starts, groups, count = np.zeros(n_samples + 1, np.int64), np.empty(4 * n_samples + 64, np.int64), 0
    zero = response.dtype.type(0)
    width = max(1, STRETCH // group_size) * group_size
    for i in range(n_samples):
        row, bound = response[i], least[i]
        limit = zero - 1  # below every entry
        if bound >= 0:  # a little lower than it need be, since the group's norm is rounded, too
            limit = response.dtype.type(math.sqrt(bound / group_size) * (1 - 1e-5))
        for first in range(0, n_atoms, width):
            last = min(first + width, n_atoms)
            high = False
            for j in range(first, last):
                high |= not abs(row[j]) <= limit
            if not high:
                continue
            for g in range(first // group_size, last // group_size):
                square = zero
                for j in range(g * group_size, (g + 1) * group_size):
                    value = max(row[j], zero) if nonnegative else row[j]
                    square += value * value
                if not square <= bound:
                    if count == len(groups):
                        groups = np.concatenate((groups, np.empty(count, np.int64)))
                    groups[count] = g
                    count += 1
        starts[i + 1] = count
    return starts, groups[:count]


@compiled
def add_gradient(
    rows: Float[np.ndarray, "samples features"],
    atoms: Float[np.ndarray, "atoms features"],
    starts: Int[np.ndarray, " starts"],
    groups: Int[np.ndarray, " pairs"],
    penalty: float,
    group_size: int,
    nonnegative: bool,
    gradient: Float[np.ndarray, "atoms features"],
) -> tuple[float, int]:
    r"""Add the rows' part of the gradient of `networks.shallow_gradient`, times -N, to `gradient`.

    The pairs are those that may be active; a pair is if its norm, computed here, is above the penalty.

    Returns:
        the sum of \|r\|^2, and the number of active pairs.
    """
    n_features, zero, one = rows.shape[1], rows.dtype.type(0), rows.dtype.type(1)
    most = 0
    for i in range(len(rows)):
        most = max(most, starts[i + 1] - starts[i])
    h, z = np.empty((most, group_size), rows.dtype), np.empty((most, group_size), rows.dtype)
    norms, active = np.empty(most, rows.dtype), np.empty(most, np.int64)
    u, residual = np.empty(group_size, rows.dtype), np.empty(n_features, rows.dtype)
    squares, n_pairs = 0.0, 0
    for i in range(len(rows)):
        row, count = rows[i], 0
        residual[:] = row
        for p in range(starts[i], starts[i + 1]):
            first, square = groups[p] * group_size, zero
            for k in range(group_size):
                atom, total = atoms[first + k], zero
                for j in range(n_features):
                    total += atom[j] * row[j]
                if nonnegative:
                    total = max(total, zero)
                h[count, k] = total
                square += total * total
            norm = math.sqrt(square)
            if norm > penalty:
                tau = one - penalty / norm
                for k in range(group_size):
                    z[count, k] = value = tau * h[count, k]
                    atom = atoms[first + k]
                    for j in range(n_features):
                        residual[j] -= value * atom[j]
                norms[count], active[count] = norm, groups[p]
                count += 1
        total = zero
        for j in range(n_features):
            total += residual[j] * residual[j]
        squares += total
        n_pairs += count
        for p in range(count):
            first, along = active[p] * group_size, zero
            for k in range(group_size):
                atom, total = atoms[first + k], zero
                if not (nonnegative and h[p, k] <= 0):
                    for j in range(n_features):
                        total += atom[j] * residual[j]
                u[k] = total
                along += h[p, k] * total
            tau = one - penalty / norms[p]
            bend = (one - tau) * along / (norms[p] * norms[p])
            for k in range(group_size):
                back, value, target = tau * u[k] + bend * h[p, k], z[p, k], gradient[first + k]
                for j in range(n_features):
                    target[j] += back * row[j] + value * residual[j]
    return squares, n_pairs
