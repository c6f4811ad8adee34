"""The scaling of a table: what its columns, and then its rows, are divided by, and which one its columns call for."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from scipy.stats import spearmanr

from gsae_lib._checks import as_table, check_choice, check_mapped, describe, rows_at_a_time

LOOKED_AT = 2_000  # rows that a scaling is chosen from, at most
SPREAD_RATIO = 4.0  # of a column's spread to the median one, above which columns have different units
CURVE_FEATURES = 16  # columns that a curve or an image has at least

ScalingMethod = Literal["unit norm", "standardize", "none"]


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    r"""What a table's columns, and then its rows, are divided by.

    .. math:: y \mapsto (y - \text{mean}) / \text{spread}, \qquad \text{then, if unit, } y \mapsto y / \|y\|_2

    mean, spread: (features,), in the units of the data. A row of zeros stays.
    """

    mean: np.ndarray
    spread: np.ndarray
    unit: bool

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """The table scaled, (samples, features), float32 or float64, in memory."""
        table = as_table("table", table)
        if table.ndim != 2 or table.shape[1] != len(self.mean):
            raise ValueError(f"table: expected {len(self.mean)} columns, got {describe(table)}")
        scaled = np.empty(table.shape, np.float32 if table.dtype == np.float32 else np.float64)
        for rows in _row_blocks(table):
            block = (np.asarray(table[rows], dtype=np.float64, order="C") - self.mean) / self.spread
            if self.unit:
                lengths = np.linalg.norm(block, axis=1, keepdims=True)
                block /= np.where(lengths > 0, lengths, 1.0)
            scaled[rows] = block
        return scaled


def fit_scaling(table: np.ndarray, method: ScalingMethod) -> Scaling:
    """The scaling of a table, from its rows, some at a time; a memory map is read as needed.

    "unit norm": subtract the mean row, then give each row unit length. "standardize": subtract the mean of each column
    and divide by its standard deviation, or by 1 where that is 0. "none": leave it.
    """
    check_choice("method", method, get_args(ScalingMethod))
    table = as_table("table", table)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"table: expected (samples, features), got {describe(table)}")
    mean, spread = np.zeros(table.shape[1]), np.ones(table.shape[1])
    if method != "none":
        first = np.asarray(table[0], dtype=np.float64)  # sums of differences from it keep a constant column exact
        blocks = (np.asarray(table[rows], order="C") for rows in _row_blocks(table))  # in any layout the same sums
        mean = first + sum((block - first).sum(axis=0) for block in blocks) / len(table)
    if method == "standardize":
        blocks = (np.asarray(table[rows], order="C") for rows in _row_blocks(table))
        squares = sum(np.square(block - mean).sum(axis=0) for block in blocks)
        deviation = np.sqrt(squares / len(table))
        spread = np.where(deviation > 0, deviation, 1.0)
    finite = method != "none" or all(np.isfinite(table[rows]).all() for rows in _row_blocks(table))
    if not (finite and np.isfinite(mean).all() and np.isfinite(spread).all()):
        raise ValueError(f"table: has entries that are missing, infinite or too large ({describe(table)})")
    return Scaling(mean, spread, method == "unit norm")


def _row_blocks(table: np.ndarray) -> Iterator[slice]:
    """Slices of its rows, of some megabytes each."""
    step = rows_at_a_time(table.shape[1])
    return (slice(start, start + step) for start in range(0, len(table), step))


@dataclasses.dataclass(frozen=True)
class ChosenScaling:
    """method, as in `fit_scaling`, and why, in one sentence."""

    method: ScalingMethod
    reason: str


def choose_scaling(table: np.ndarray) -> ChosenScaling:
    """How to scale a table, from its columns alone, of at most 2,000 rows.

    Columns that are principal components or an embedding, centred and uncorrelated, stay as they are: standardising
    would blow up the last of them. Columns whose largest spread (standard deviation) is more than SPREAD_RATIO times
    the median one have different units: "standardize". At least CURVE_FEATURES similar columns of which neighbours are
    much more alike than others are a curve or an image: "unit norm". Anything else stays.
    """
    table = check_mapped("table", as_table("table", table))
    rows = sample_rows(len(table), LOOKED_AT, 0)
    sample = np.asarray(table[rows], dtype=np.float64)
    spread = sample.std(axis=0)
    varied = spread > 1e-12 * np.abs(sample).max(axis=0, initial=0.0)
    if varied.sum() < 2:
        return ChosenScaling("none", "at most one column varies")
    sample, spread = sample[:, varied], spread[varied]
    correlation = np.abs(np.corrcoef(sample.T))
    others = correlation[~np.eye(len(spread), dtype=bool)]
    chance = 2 / math.sqrt(len(sample))
    if others.mean() < chance and np.abs(sample.mean(axis=0) / spread).mean() < chance and _decays(spread):
        return ChosenScaling("none", "the columns are centred, uncorrelated and ever narrower, as principal components")
    ratio = spread.max() / np.median(spread)
    if ratio > SPREAD_RATIO:
        reason = f"the largest spread of a column is {ratio:.3g} times the median one, as of different units"
        return ChosenScaling("standardize", reason)
    along = np.diag(correlation, 1)
    if len(spread) >= CURVE_FEATURES and (1 - along).mean() < 0.5 * (1 - others).mean():
        reason = "the columns have one unit, and neighbours are alike, as in curves and images"
        return ChosenScaling("unit norm", reason)
    return ChosenScaling("none", "the columns have similar spreads, as of one unit, and no order")


def _decays(spread: np.ndarray) -> bool:
    """Whether the spreads fall from the first to the last, nearly without exception, however steeply."""
    return len(spread) > 2 and bool(spearmanr(np.arange(len(spread)), spread).statistic < -0.9)


def sample_rows(n_samples: int, most: int, seed: int) -> np.ndarray:
    """Rows drawn at random, at most so many, in their order."""
    return np.sort(np.random.default_rng(seed).permutation(n_samples)[:most])
