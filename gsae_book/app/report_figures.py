"""Pictures of the clusters of a table: their means in the data's own columns, the plane, and what was weighed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.metrics.cluster import contingency_matrix

from gsae_book.build.figures import PALETTE

if TYPE_CHECKING:
    pass

MARKERS = "osD^vPX*<>"
STYLES = ("-", "--", "-.", ":")
MAX_COLUMNS = 40  # of a heat map; more are drawn as curves
MAX_CURVE = 400  # columns that a curve shows, evenly spaced
MAX_CLUSTERS = 20  # that are drawn
MAX_POINTS = 3_000  # of a plane


def deviations(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters, and how far the mean of each is from that of all, (clusters, features), in the columns' deviations.

    A constant column has zeros.
    """
    kinds = np.unique(labels)
    values = np.asarray(values, dtype=np.float64)
    spread = values.std(axis=0)
    means = np.stack([values[labels == kind].mean(axis=0) for kind in kinds]) - values.mean(axis=0)
    return kinds, np.divide(means, spread, out=np.zeros_like(means), where=spread > 0)


def cluster_profiles(values: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> Figure:
    """The mean of each cluster: a heat map of `deviations`, or, of more than 40 columns, curves of means and spreads.

    Columns that are called pixels and fill a square are drawn as images.
    values: (samples, features), in the data's own units; labels: (samples,); columns: names of the features.
    """
    kinds, found = deviations(values, labels)
    kinds, found = kinds[:MAX_CLUSTERS], found[:MAX_CLUSTERS]
    if len(columns) <= MAX_COLUMNS:
        fig, ax = plt.subplots(figsize=(3.5 + 0.32 * len(columns), 2 + 0.32 * len(kinds)), layout="constrained")
        limit = max(1.0, float(np.abs(found).max()))
        mesh = ax.imshow(found, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        ax.set_xticks(range(len(columns)), [_short(name) for name in columns], rotation=90)
        ax.set_yticks(range(len(kinds)), kinds)
        ax.set(ylabel="cluster")
        fig.colorbar(mesh, ax=ax, label="deviations")
        return fig
    side = math.isqrt(len(columns))
    if side**2 == len(columns) and all(name.lower().startswith("pix") for name in columns):
        return _mean_images(values, labels, kinds, side)
    fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
    drawn = np.unique(np.linspace(0, len(columns) - 1, min(MAX_CURVE, len(columns))).astype(int))
    x = _places(columns)[drawn]
    for k, kind in enumerate(kinds):
        some = np.asarray(values[labels == kind][:, drawn], dtype=np.float64)
        mean, spread = some.mean(axis=0), some.std(axis=0)
        color = PALETTE[k % len(PALETTE)]
        ax.plot(x, mean, STYLES[k // len(PALETTE) % 4], color=color, label=str(kind), linewidth=1.2)
        ax.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.12, linewidth=0)
    some_columns = f"column, {len(drawn)} of {len(columns):,}" if len(drawn) < len(columns) else "column"
    ax.set(xlabel=some_columns, ylabel="mean, ± a standard deviation")
    ax.legend(title="cluster", ncols=1 + len(kinds) // 8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def clusters_in_plane(data: np.ndarray, clusterings: Mapping[str, np.ndarray], *, seed: int = 0) -> Figure:
    """Samples on the first two principal components of the scaled data, a panel for each clustering, by name.

    A cluster has the colour of that of the first panel with which it shares most.
    data: (samples, features), of which at most 3,000, drawn at random, are shown.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:MAX_POINTS])
    some = np.asarray(data[rows], dtype=np.float64)
    plane, shares = np.zeros((len(some), 2)), np.zeros(2)
    count = min(2, *some.shape)
    if np.ptp(some, axis=0).any():
        fitted = PCA(count, random_state=seed).fit(some)
        plane[:, :count], shares[:count] = fitted.transform(some), fitted.explained_variance_ratio_
    size = (4.0 * len(clusterings) + 0.8, 4.8)
    fig, axes = plt.subplots(1, len(clusterings), figsize=size, squeeze=False, sharey=True, layout="constrained")
    first = next(iter(clusterings.values()))
    for ax, (name, labels) in zip(axes[0], clusterings.items(), strict=True):
        kinds = np.unique(labels)
        looks = _matched(first, labels)
        for kind, k in zip(kinds, looks, strict=True):
            shown = plane[labels[rows] == kind]
            look = {"color": PALETTE[k % len(PALETTE)], "marker": MARKERS[(k + k // len(PALETTE)) % len(MARKERS)]}
            ax.scatter(*shown.T, s=14, alpha=0.7, linewidths=0, label=str(kind), rasterized=len(rows) > 500, **look)
        ax.set(title=name, xlabel=f"first principal component ({shares[0]:.0%} of the variance)")
        if len(kinds) <= MAX_CLUSTERS:
            ax.legend(title="cluster", fontsize="small", ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    axes[0, 0].set(ylabel=f"second ({shares[1]:.0%})")
    return fig


def evidence_bars(evidence: Mapping[str, float]) -> Figure:
    """Subspaces beside centres: variance explained on samples that were held out, and agreement of two halves.

    evidence: as `GroupSparseClustering.evidence_`.
    """
    fig, ax = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
    bars = {
        "group norms": (evidence["explained_by_subspaces"], evidence["stability_of_model"]),
        "k-means": (evidence["explained_by_centres"], evidence["stability_of_centres"]),
    }
    for k, (name, values) in enumerate(bars.items()):
        drawn = ax.barh(np.arange(2) + 0.2 - 0.4 * k, values, 0.36, color=PALETTE[k], label=name, hatch=("", "//")[k])
        ax.bar_label(drawn, fmt="%.2f", padding=3)
    ax.set_yticks(range(2), ["explained variance, held out", "agreement of two halves"])
    ax.set(xlim=(min(0.0, *(value for values in bars.values() for value in values)), 1.15), xlabel="1 is perfect")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def _mean_images(values: np.ndarray, labels: np.ndarray, kinds: np.ndarray, side: int) -> Figure:
    across = min(10, len(kinds))
    down = -(-len(kinds) // across)
    size = (0.9 * across + 0.4, 1.15 * down + 0.2)
    fig, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, kind in zip(axes.flat, kinds, strict=False):
        ax.imshow(values[labels == kind].mean(axis=0).reshape(side, side), cmap="gray_r")
        ax.set_title(str(kind), fontsize="small")
    return fig


def _places(columns: Sequence[str]) -> np.ndarray:
    """The columns' names where they are numbers that rise, such as wavelengths, and their places otherwise."""
    try:
        found = np.array([float(name) for name in columns])
    except ValueError:
        return np.arange(len(columns))
    return found if (np.diff(found) > 0).all() else np.arange(len(columns))


def _matched(first: np.ndarray, labels: np.ndarray) -> list[int]:
    """For each cluster of `labels` the place of its partner among those of `first`; places after them without one."""
    counts = contingency_matrix(labels, first)
    partners = dict(zip(*(side.tolist() for side in linear_sum_assignment(counts, maximize=True)), strict=True))
    free = itertools.count(counts.shape[1])
    return [partners[k] if k in partners else next(free) for k in range(len(counts))]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:22]}…"
