"""Choices without labels, for your own data: all of them at once, a target sparsity, and whether clusters are stable.

An estimator's `score` on held-out samples is another, for alpha and the start.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.metrics.cluster import contingency_matrix

from gsae_lib._checks import (
    RandomState,
    as_seed,
    as_table,
    check_choice,
    check_int,
    check_mapped,
    check_real,
    check_samples,
)
from gsae_lib.clustering import silhouettes
from gsae_lib.estimators.estimators import GroupSparseClustering, numbers_of_clusters
from gsae_lib.estimators.evidence import SubspaceEvidence, fits_subspaces
from gsae_lib.networks.autoencoder import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.tables import Scaling, fit_scaling

CHOSEN_FROM, FITTED = 2_000, 20_000  # samples that choose, and that the model is fitted to, at most
SAMPLES_A_SECOND = 20_000  # that choose, times their features and EFFORT more: what one core of 2020 manages
EFFORT = 100
SMALLEST = 200  # samples that choose, however short the time
SURE = 20_000  # samples of a table above which only the clusterings of one split tell the confidence
BLOCK = 10_000  # samples labelled at a time
SPREAD_RATIO = 4.0  # of a column's spread to the median one, above which columns have different units
CURVE_FEATURES = 16  # columns that a curve or an image has at least

ScalingMethod = Literal["unit norm", "standardize", "none"]


def alpha_for_target_sparsity(
    X: np.ndarray,
    components: np.ndarray,
    group_size: int,
    n_active: float,
    *,
    n_iterations: int = 10,
    tol: float = 0.05,
) -> float:
    """The penalty at which samples use `n_active` groups on average, by bisection on its logarithm.

    A target sparsity, in place of a penalty, makes dictionaries comparable.

    Args:
        X (samples, features), of which at most 1,000 are used, evenly spaced.
        components (atoms, features): the dictionary's rows. n_active: groups a sample, more than 0.
        n_iterations: of the network that codes, as in the estimators.
        tol: relative, on the activity.

    Raises:
        ValueError: an activity that cannot be reached, X that is not a finite matrix, or a group_size that does not
            divide the number of components.
    """
    data = check_samples("X", torch.from_numpy(np.array(as_table("X", X), dtype=np.float64)))
    given = torch.from_numpy(np.array(as_table("components", components), dtype=np.float64))
    dictionary = check_samples("components", given, columns=data.shape[1]).T
    groups, rest = divmod(dictionary.shape[1], check_int("group_size", group_size))
    if rest:
        raise ValueError(f"group_size={group_size}: does not divide {dictionary.shape[1]} components")
    model = GroupSparseAutoencoder(
        data.shape[1], groups, group_size, 0.0, n_iterations=n_iterations, dictionary=dictionary
    )
    return set_target_sparsity(model, data, n_active, tol=tol)


def cluster_stability(
    X: np.ndarray,
    model: GroupSparseClustering,
    counts: Sequence[int],
    *,
    n_repeats: int = 5,
    random_state: RandomState = 0,
) -> np.ndarray:
    """How far clusterings of two random halves agree on all samples: adjusted Rand index, (n_repeats, counts).

    A number of clusters at which halves of the data tell the same story is one that the data support. 1 is perfect, 0
    is chance. (A single cluster always agrees: do not ask about it.) A half's dictionary is learned once.

    Args:
        model: what clusters, with n_groups a number; copies of it, without its checkpoint, are fitted.
        counts: numbers of clusters to try. n_repeats: splits in halves, drawn from random_state, as in scikit-learn.

    Raises:
        ValueError: as `GroupSparseClustering.fit` and `recluster`, for one half; no counts; n_groups="auto", which
            depends on the number of clusters.
    """
    if not len(counts):
        raise ValueError(f"counts={counts}: expected at least one number of clusters")
    if model.n_groups == "auto":
        raise ValueError("n_groups='auto': expected a number, the same for all counts")
    X = as_table("X", X)
    rng = np.random.default_rng(as_seed(random_state))
    found = np.zeros((check_int("n_repeats", n_repeats), len(counts)))
    for row in found:
        halves = np.array_split(rng.permutation(len(X)), 2)
        fitted = [clone(model).set_params(n_clusters=counts[0], checkpoint=None).fit(X[half]) for half in halves]
        for column, count in enumerate(counts):
            pairs = zip(fitted, halves, strict=True)
            row[column] = adjusted_rand_score(*(one.recluster(X[half], count).predict(X) for one, half in pairs))
    return found


@dataclasses.dataclass(frozen=True)
class MostStable:
    """The most stable of several ways to cluster.

    model: a copy of the one chosen, with its number of clusters set, not fitted; index: its place among the candidates;
    column: the place of its number of clusters; agreement (candidates, n_repeats, counts): what `cluster_stability`
    found for all of them.
    """

    model: GroupSparseClustering
    index: int
    column: int
    agreement: np.ndarray


def choose_most_stable(
    X: np.ndarray,
    candidates: Sequence[GroupSparseClustering],
    counts: Sequence[int],
    *,
    n_repeats: int = 5,
    random_state: RandomState = 0,
) -> MostStable:
    """The candidate, and the number of clusters, on which halves of the data agree best; ties go to fewer atoms.

    A tie is a mean agreement within one standard error, over the repeats, of the best. Each candidate stands with its
    own most stable number of clusters. No labels are used.

    Args:
        candidates: what to choose from, each with n_groups a number. counts: numbers of clusters to try.
        n_repeats: splits in halves, the same for all candidates; 2 or more.

    Raises:
        ValueError: no candidates, fewer than two repeats, or as `cluster_stability`.
    """
    if not len(candidates):
        raise ValueError("candidates=[]: expected at least one")
    check_int("n_repeats", n_repeats, low=2)
    splits = {"n_repeats": n_repeats, "random_state": as_seed(random_state)}
    agreement = np.stack([cluster_stability(X, model, counts, **splits) for model in candidates])
    means = agreement.mean(axis=1)
    best, column = np.unravel_index(means.argmax(), means.shape)
    error = agreement[best, :, column].std(ddof=1) / np.sqrt(n_repeats)
    near = np.flatnonzero(means.max(axis=1) >= means.max() - error)
    atoms = [math.prod(model._sizes(np.asarray(X), 1)) for model in candidates]
    index = min(near.tolist(), key=atoms.__getitem__)
    column = int(means[index].argmax())
    model = clone(candidates[index]).set_params(n_clusters=counts[column])
    return MostStable(model, index, column, agreement)


@dataclasses.dataclass(frozen=True)
class ChosenScaling:
    """method, as in `tables.fit_scaling`, and why, in one sentence."""

    method: ScalingMethod
    reason: str


def choose_scaling(table: np.ndarray) -> ChosenScaling:
    """How to scale a table, from its columns alone, of at most 2,000 rows.

    Columns that are principal components or an embedding, centred and uncorrelated, stay as they are: standardising
    would blow up the last of them. Columns whose largest spread (standard deviation) is more than SPREAD_RATIO times
    the median one have different units: "standardize". At least CURVE_FEATURES similar columns of which neighbours are
    much more alike than others are a curve or an image: "unit norm". Anything else stays.

    Raises:
        ValueError: not a finite matrix of real numbers.
    """
    table = check_mapped("table", as_table("table", table))
    rows = _sample_rows(len(table), CHOSEN_FROM, 0)
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


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenClustering:
    """Clusters of a table, and what was chosen for them without labels.

    labels (n,): of `model`. n_clusters. scaling: what the table was scaled by; scaling_method and scaling_reason.
    model: fitted on the scaled table, a `GroupSparseClustering` where `fits`, and k-means otherwise.
    fits: whether the data look like a union of subspaces; reason: why, in one sentence; evidence, None where the table
    is too small for any, or all zero once scaled. Both compare the two at the model's number of clusters, from which
    n_clusters may differ where k-means is taken at a number of its own.
    model_labels (n,): of the group-sparse model, whether it fits or not, None where there is no evidence.
    baseline_labels (n,): of k-means, at the number of clusters given, or at its own.
    confidence (n,): from 0 to 1, the share of clusterings of random halves that put the sample in the same cluster.
    margin (n,): how much farther the next cluster is than the own one, as a share of the distance to the next, of the
    means of clusters: in the space of norms where `fits`, of the scaled data otherwise; negative where another
    cluster's mean is nearer.
    seconds: used.
    """

    labels: np.ndarray
    n_clusters: int
    scaling: Scaling
    scaling_method: ScalingMethod
    scaling_reason: str
    model: GroupSparseClustering | KMeans
    fits: bool
    reason: str
    evidence: SubspaceEvidence | None
    model_labels: np.ndarray | None
    baseline_labels: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    seconds: float

    def predict(self, table: np.ndarray) -> np.ndarray:
        """The clusters of new rows, not scaled yet: (samples,).

        Raises:
            ValueError: another number of columns.
        """
        return _predict(self.model, self.scaling(table))


def choose_clustering(
    X: np.ndarray,
    n_clusters: int | Literal["auto"] = "auto",
    *,
    scaling: ScalingMethod | Literal["auto"] = "auto",
    seconds: float = 60.0,
    n_splits: int = 3,
    random_state: RandomState = None,
    callback: Callable[[str, float], None] | None = None,
) -> ChosenClustering:
    """Scale a table, cluster it by group norms and by k-means, and say which of the two to believe; without labels.

    Args:
        X (samples, features), at least two; a memory map is read as needed.
        n_clusters: 2 or more, or "auto": as `GroupSparseClustering` for the model, the largest silhouette for k-means.
        scaling: as `tables.fit_scaling`, or "auto" for `choose_scaling`.
        seconds: what the choice may take, roughly. Of large tables it decides how many samples choose, at most 2,000,
            and how many the model is fitted to, at most 20,000; the others are given clusters at the end, which is not
            counted. If the clock runs ahead all the same, there are fewer splits.
        n_splits: splits in halves, for evidence and confidence.
        callback: called as callback(what is done next, seconds used).

    Raises:
        ValueError: X not a finite matrix of at least two samples, or an argument out of range.
    """
    clock = time.perf_counter()
    X = check_mapped("X", as_table("X", X))
    if len(X) < 2 or not X.shape[1]:
        raise ValueError(f"X: expected at least two samples and a feature, got {X.shape}")
    if n_clusters != "auto":
        check_int("n_clusters", n_clusters, low=2, high=len(X))
    check_choice("scaling", scaling, ("auto", *get_args(ScalingMethod)))
    check_real("seconds", seconds, strict=True)
    check_int("n_splits", n_splits)
    seed = as_seed(random_state)

    def tell(what: str) -> float:
        used = time.perf_counter() - clock
        if callback is not None:
            callback(what, used)
        return used

    tell("scale the columns")
    chosen = choose_scaling(X) if scaling == "auto" else ChosenScaling(scaling, "as asked")
    scale = fit_scaling(X, chosen.method)
    data = X if chosen.method == "none" else scale(X)
    affordable = max(SMALLEST, int(seconds * SAMPLES_A_SECOND / (X.shape[1] + EFFORT)))
    rows = _sample_rows(len(X), min(CHOSEN_FROM, affordable), seed)
    more = _sample_rows(len(X), min(FITTED, 2 * affordable), seed)
    some, many = (np.array(data[kept], dtype=np.float64) for kept in (rows, more))

    tell("cluster by k-means")
    count = n_clusters if n_clusters != "auto" else _most_separated(some, seed)
    centres = KMeans(min(count, len(many)), n_init=10, random_state=seed).fit(many)
    baseline_labels = _predict(centres, data)

    used = tell("cluster by group norms")
    model = GroupSparseClustering(n_clusters, random_state=seed)
    weighed = model_labels = None
    reason = f"{len(X)} samples are too few for a dictionary: k-means is the simpler model that fits"
    if not np.square(some).any():
        reason = "the samples are all zero, or nearly, once scaled: k-means is the simpler model that fits"
    elif len(some) >= 4 * (2 if n_clusters == "auto" else n_clusters):
        model._learn_groups(model._validate(some, reset=True))
        took = tell("weigh subspaces against centres") - used
        left = int((seconds - used - took) / (2 * took))  # halves take half as long, and clusters as long again
        splits = model._split(some, min(n_splits, max(1, left)))
        if not splits:
            reason = "in a half of the samples no group is active: k-means is the simpler model that fits"
        model._cluster(some, some, splits)
        weighed = model._weigh(some, splits)
    if weighed is not None:
        tell("label all samples")
        if len(many) > len(some):
            model = GroupSparseClustering(model.n_clusters_, assign=model.assign_, random_state=seed)
            model._learn_groups(model._validate(many, reset=True))
            model._cluster(many, some, [])
        model.evidence_ = dataclasses.asdict(weighed.evidence)
        model.fits_subspaces_ = fits_subspaces(weighed.evidence)
        model_labels = model.labels_ if len(many) == len(data) else _predict(model, data)
        reason = f"{_reason(weighed.evidence)}; {_certainty(weighed.gains, weighed.leads)}"
    fits = weighed is not None and fits_subspaces(weighed.evidence)
    final: GroupSparseClustering | KMeans = model if fits else centres
    labels = baseline_labels if model_labels is None or not fits else model_labels
    refits = () if weighed is None else weighed.models if fits else weighed.centres
    refits = refits[:2] if len(X) > SURE else refits
    shown = model.transform if fits else np.asarray
    return ChosenClustering(
        labels=labels,
        n_clusters=model.n_clusters_ if fits else centres.n_clusters,
        scaling=scale,
        scaling_method=chosen.method,
        scaling_reason=chosen.reason,
        model=final,
        fits=fits,
        reason=reason,
        evidence=None if weighed is None else weighed.evidence,
        model_labels=model_labels,
        baseline_labels=baseline_labels,
        confidence=_confidence(data, labels, refits),
        margin=_margin(data, labels, shown, rows),
        seconds=tell("done"),
    )


def _most_separated(data: np.ndarray, seed: int) -> int:
    """The number of clusters with the largest silhouette of k-means."""
    if len(data) < 3:
        return 2
    found = silhouettes(data, numbers_of_clusters(len(data)), random_state=seed)
    return max(found, key=found.__getitem__)


def _sample_rows(n_samples: int, most: int, seed: int) -> np.ndarray:
    """Rows drawn at random, at most so many, in their order."""
    return np.sort(np.random.default_rng(seed).permutation(n_samples)[:most])


def _reason(evidence: SubspaceEvidence) -> str:
    model, centres = evidence.stability_of_model, evidence.stability_of_centres
    gain = evidence.log_likelihood_of_model - evidence.log_likelihood_of_centres
    if fits_subspaces(evidence):
        return (
            f"your data look like subspaces: held-out samples are likelier in the model's clusters, by {gain:.2g} "
            f"nats, and halves agree on them by {model:.2f}, on those of k-means by {centres:.2f}"
        )
    if gain <= 0:
        told = f"held-out samples are likelier in its clusters, by {abs(gain):.2g} nats"
    elif model <= centres:
        told = f"halves agree on its clusters by {centres:.2f}, on the model's by {model:.2f}"
    else:
        return f"halves agree on the model's clusters by {model:.2f} only, and k-means is the simpler tool"
    return f"your data look like balls, not subspaces, and k-means is the better tool: {told}"


def _certainty(gains: Sequence[float], leads: Sequence[float]) -> str:
    """How sure the judgement is: its weaker condition, or the one that fails most, beside its spread over splits.

    gains, leads: as in `WeighedSubspaces`.
    """
    if len(gains) < 2:
        return "how sure this is, one split does not tell"
    conditions = {"likelihood": (gains, " nats"), "agreement": (leads, "")}
    found = {name: (float(np.mean(x)), float(np.std(x, ddof=1)), unit) for name, (x, unit) in conditions.items()}
    name = min(found, key=lambda name: found[name][0] / max(found[name][1], 1e-12))
    size, spread, unit = found[name]
    told = f"what decides, {abs(size):.2g}{unit} of {name}"
    if abs(size) <= spread:
        return f"this is nearly a tie: {told}, is at most its spread over {len(gains)} splits, {spread:.2g}"
    return f"{told}, is more than its spread over {len(gains)} splits, {spread:.2g}"


def _predict(model: GroupSparseClustering | KMeans, data: np.ndarray) -> np.ndarray:
    """The cluster of each sample, a block at a time."""
    blocks = (np.array(data[k : k + BLOCK], dtype=np.float64) for k in range(0, max(1, len(data)), BLOCK))
    return np.concatenate([model.predict(block) for block in blocks])


def _confidence(data: np.ndarray, labels: np.ndarray, refits: Sequence[GroupSparseClustering | KMeans]) -> np.ndarray:
    """The share of the refits that agree with the label, their clusters matched with the labels; 1 without any."""
    agree = np.zeros(len(labels))
    for refit in refits:
        found = _predict(refit, data)
        counts = contingency_matrix(labels, found)
        kinds, clusters = np.unique(labels), np.unique(found)
        pairs = dict(zip(*(side.tolist() for side in linear_sum_assignment(counts, maximize=True)), strict=True))
        partner = np.array([clusters[pairs[k]] if k in pairs else -1 for k in range(len(kinds))])
        agree += partner[np.searchsorted(kinds, labels)] == found
    return agree / len(refits) if len(refits) else np.ones(len(labels))


def _margin(
    data: np.ndarray, labels: np.ndarray, show: Callable[[np.ndarray], np.ndarray], rows: np.ndarray
) -> np.ndarray:
    """(next - own) / max(next, own) of the distances to the means of the clusters in `rows`; 0 for one cluster."""
    kinds, sample = np.unique(labels[rows]), show(np.array(data[rows], dtype=np.float64))
    margin = np.zeros(len(labels))
    if len(kinds) < 2:
        return margin
    means = np.stack([sample[labels[rows] == kind].mean(axis=0) for kind in kinds])
    for start in range(0, len(data), BLOCK):
        block = slice(start, start + BLOCK)
        distances = pairwise_distances(show(np.array(data[block], dtype=np.float64)), means)
        own = kinds == labels[block, None]
        nearest = np.where(own, distances, np.inf).min(axis=1)
        other = np.where(own, np.inf, distances).min(axis=1)
        nearest = np.where(np.isfinite(nearest), nearest, other)  # a cluster without a sample among the rows
        largest = np.maximum(nearest, other)
        margin[block] = np.where(largest > 0, (other - nearest) / np.where(largest > 0, largest, 1.0), 0.0)
    return margin
