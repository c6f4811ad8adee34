"""Scores of clusterings in tables: accuracies of recorded rows, their spread, and which label is in which cluster."""

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from scipy.optimize import linear_sum_assignment

from gsae_book.runs.recording import select
from gsae_lib.metrics import Labels


def accuracies(rows: pd.DataFrame, **tags: object) -> np.ndarray:
    """The accuracies of the rows with these tags, in their order.

    Raises:
        ValueError: no such row, as in `select`.
    """
    return select(rows, **tags)["accuracy"].to_numpy()


def mean_and_spread(groups: SeriesGroupBy) -> pd.Series:
    """Each group as text: its mean ± one sample deviation to three decimals, or its mean alone if nothing varies."""
    spread = groups.std()
    return groups.mean().map("{:.3f}".format) + spread.map(" ± {:.3f}".format).where(spread > 0, "")


def matched_confusion(labels: Labels, clusters: Labels) -> pd.DataFrame:
    """How many samples of each label (rows) are in each cluster (columns), with as many as possible on the diagonal.

    Columns are in the order that matches the rows best (Hungarian method); what is left over comes last.
    """
    counts = pd.crosstab(np.asarray(labels), np.asarray(clusters))
    pairs = linear_sum_assignment(counts, maximize=True)
    orders = [[*found, *set(range(size)).difference(found)] for found, size in zip(pairs, counts.shape, strict=True)]
    return counts.iloc[tuple(orders)]
