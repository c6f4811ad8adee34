r"""Do data lie near a union of subspaces, or in balls around centres? Evidence from samples that were held out.

No labels are used. Two things are compared.

Explained variance. k subspaces of dimension d have k d n numbers in n features, and so have k d centres. Both are
fitted to one half of the samples; the other half is projected on its nearest subspace, or replaced by its nearest
centre. Subspaces keep d numbers a sample besides, so that elongated balls favour them too: this comparison describes,
and does not decide.

Likelihood. Two clusterings of the first half, by a model and by k-means, each give one Gaussian a cluster, with as many
numbers for both; the mixture that makes the other half likelier follows the data's shape better. A Gaussian is a ball
where the data are one and nearly flat where they are flat.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.metrics import adjusted_rand_score

from gsae_lib._checks import RandomState, as_seed, check_int
from gsae_lib.learning.initialization import k_subspaces

SHOWN = 20  # principal components that the Gaussians see, at most
STABLE = 0.3  # agreement of halves below which clusters are not believed


@dataclasses.dataclass(frozen=True)
class SubspaceEvidence:
    """What speaks for a union of subspaces, and what for centres; means over splits of the samples in halves.

    explained_by_subspaces, explained_by_centres: shares of the variance of held-out samples that the nearest of k
    subspaces, and the nearest of as many centres as have the same number of parameters, explain; at most 1.
    log_likelihood_of_model, log_likelihood_of_centres: of held-out samples, nats a sample, of Gaussians fitted to the
    model's clusters and to those of k-means. stability_of_model, stability_of_centres: adjusted Rand index of two
    clusterings, fitted on the two halves.
    n_clusters, group_size: k and d. n_splits: how many splits.
    """

    explained_by_subspaces: float
    explained_by_centres: float
    log_likelihood_of_model: float
    log_likelihood_of_centres: float
    stability_of_model: float
    stability_of_centres: float
    n_clusters: int
    group_size: int
    n_splits: int


def explained_by_subspaces(
    first: np.ndarray, other: np.ndarray, n_clusters: int, group_size: int, *, generator: torch.Generator
) -> float:
    r"""Share of the other samples' variance that the nearest of k subspaces explains, fitted to the first samples.

    .. math:: 1 - \frac{\sum_i \min_k \|y_i - W_k W_k^T y_i\|^2}{\sum_i \|y_i\|^2}

    with all samples less the mean of the first.
    """
    mean = first.mean(axis=0)
    fit = k_subspaces(torch.from_numpy(first - mean), n_clusters, group_size, n_init=3, generator=generator)
    left = other - mean
    captured = (left @ fit.dictionary.numpy()).reshape(len(other), n_clusters, group_size)
    captured = np.square(captured).sum(axis=2).max(axis=1)
    total = np.square(left).sum()
    return float(captured.sum() / total) if total > 0 else 1.0


def explained_by_centres(first: np.ndarray, other: np.ndarray, n_centres: int, *, random_state: int) -> float:
    r"""Share of the other samples' variance that the nearest of the centres explains, which k-means fits to the first.

    .. math:: 1 - \frac{\sum_i \min_k \|y_i - c_k\|^2}{\sum_i \|y_i - m\|^2}

    with m the mean of the first. It may be negative.
    """
    check_int("n_centres", n_centres, high=len(first))
    found = KMeans(n_centres, n_init=3, random_state=random_state).fit(first)
    total = np.square(other - first.mean(axis=0)).sum()
    return float(1 + found.score(other) / total) if total > 0 else 1.0


def held_out_log_likelihood(first: np.ndarray, labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    r"""Log-likelihood, in nats, of each of the other samples under one Gaussian a cluster of the first ones.

    .. math:: \log \sum_k \frac{n_k}{n} \, \mathcal N(y_i; m_k, S_k)

    S_k is the cluster's covariance, shrunk towards the mean variance s of a feature within clusters, as much as Ledoit
    and Wolf's estimate of the best shrinkage a says, and by 1 / n_k at least: S_k = (1 - a) C_k + a s I.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
    """
    n_samples, n_features = first.shape
    if labels.shape != (n_samples,):
        raise ValueError(f"labels: expected ({n_samples},), got {labels.shape}")
    unit = 2.0 ** math.frexp(float(np.abs(first).max(initial=0.0)))[1]  # exact, and fourth powers stay finite
    first, other = first / unit, other / unit
    kinds, place = np.unique(labels, return_inverse=True)
    counts = np.bincount(place)
    means = np.stack([first[place == k].mean(axis=0) for k in range(len(kinds))])
    within = max(float(np.square(first - means[place]).mean()), 1e-9 * float(first.var())) or 1.0
    terms = []
    for k, (count, mean) in enumerate(zip(counts, means, strict=True)):
        centred = first[place == k] - mean
        weight = 1 - (max(ledoit_wolf_shrinkage(centred, assume_centered=True), 1 / count) if count > 1 else 1.0)
        covariance = weight * centred.T @ centred / count + (1 - weight) * within * np.eye(n_features)
        root = np.linalg.cholesky(covariance + 1e-9 * within * np.eye(n_features))
        distances = np.square(solve_triangular(root, (other - mean).T, lower=True)).sum(axis=0)
        terms.append(np.log(count / n_samples) - distances / 2 - np.log(np.diag(root)).sum())
    return logsumexp(terms, axis=0) - n_features * (np.log(2 * np.pi) / 2 + np.log(unit))


def principal_components(X: np.ndarray, n_components: int = SHOWN) -> np.ndarray:
    """The samples in their first principal components, (samples, n_components), fewer for fewer features or samples."""
    centred = X - X.mean(axis=0)
    count = min(check_int("n_components", n_components), *X.shape)
    if X.shape[1] <= X.shape[0]:
        return centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    values, vectors = np.linalg.eigh(centred @ centred.T)
    return (vectors * np.sqrt(values.clip(min=0)))[:, ::-1][:, :count]


@runtime_checkable
class Clusterer(Protocol):
    """What clusters, fitted: `labels_` of its samples, `predict` for others, and what is clustered, by `transform`."""

    labels_: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The cluster of each sample."""

    def transform(self, X: np.ndarray) -> np.ndarray:
        """What is clustered, (samples, any number)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Samples in two random halves: their rows, and what was fitted to each."""

    halves: tuple[np.ndarray, np.ndarray]
    models: tuple[Clusterer, Clusterer]

    def pairs(self) -> Iterator[tuple[Clusterer, np.ndarray]]:
        """Each model beside the rows it was fitted to."""
        return zip(self.models, self.halves, strict=True)


@dataclasses.dataclass(frozen=True, eq=False)
class WeighedSubspaces:
    """The evidence, and what it is from: the model's clusterings of halves, and those of k-means, two a split.

    gains, leads: of each split, the model's log-likelihood less that of k-means, and its stability less that of k-means
    or STABLE, whichever is more.
    """

    evidence: SubspaceEvidence
    gains: tuple[float, ...]
    leads: tuple[float, ...]
    models: tuple[Clusterer, ...]
    centres: tuple[KMeans, ...]


def split_samples(
    n_samples: int, fit: Callable[[np.ndarray], Clusterer], n_splits: int, *, random_state: RandomState
) -> list[Split]:
    """Splits in random halves, each with two fits; `fit` is given rows."""
    check_int("n_samples", n_samples, low=4)
    rng, splits = np.random.default_rng(as_seed(random_state)), []
    for _ in range(check_int("n_splits", n_splits)):
        first, other = np.array_split(rng.permutation(n_samples), 2)
        splits.append(Split((first, other), (fit(first), fit(other))))
    return splits


def weigh_subspaces(
    X: np.ndarray, splits: Sequence[Split], n_clusters: int, group_size: int, *, random_state: RandomState
) -> WeighedSubspaces:
    """Evidence for subspaces and for centres from splits of the samples in random halves.

    Args:
        X (samples, features). splits: of them, at least one, with models that have n_clusters clusters.
        n_clusters: k. group_size: d.
    """
    if not len(splits):
        raise ValueError("splits=[]: expected at least one")
    rng = np.random.default_rng(as_seed(random_state))
    shown, rows, centres = principal_components(X), [], []
    size = max(1, min(check_int("group_size", group_size), X.shape[1], len(X) // 2 // n_clusters))
    for split in splits:
        seed = int(rng.integers(2**31 - 1))
        balls = [KMeans(n_clusters, n_init=10, random_state=seed).fit(X[half]) for half in split.halves]
        first, other = (X[half] for half in split.halves)
        generator = torch.Generator().manual_seed(seed)
        row = [
            explained_by_subspaces(first, other, n_clusters, size, generator=generator),
            explained_by_centres(first, other, n_clusters * size, random_state=seed),
        ]
        for pair in (split.models, balls):
            sides = zip(pair, split.halves, split.halves[::-1], strict=True)
            found = [held_out_log_likelihood(shown[a], one.labels_, shown[b]) for one, a, b in sides]
            row.append(float(np.concatenate(found).mean()))
        row += [adjusted_rand_score(*(one.predict(X) for one in pair)) for pair in (split.models, balls)]
        rows.append(row)
        centres += balls
    means = (float(value) for value in np.mean(rows, axis=0))
    names = (field.name for field in dataclasses.fields(SubspaceEvidence))
    values: dict[str, Any] = dict(zip(names, means, strict=False))
    evidence = SubspaceEvidence(**values, n_clusters=n_clusters, group_size=size, n_splits=len(splits))
    models = tuple(model for split in splits for model in split.models)
    gains, leads = ([row[k] - max(low, row[k + 1]) for row in rows] for k, low in ((2, -math.inf), (4, STABLE)))
    return WeighedSubspaces(evidence, tuple(gains), tuple(leads), models, tuple(centres))


def fits_subspaces(evidence: SubspaceEvidence) -> bool:
    """Whether to believe the model's clusters rather than those of k-means.

    Held-out samples are likelier in them, and halves of the data agree on them by more than STABLE, and by more than on
    those of k-means. STABLE, and that more is enough, gave the fewest errors, either way, on the half of the tables of
    chapter 12 that chose the defaults.
    """
    likelier = evidence.log_likelihood_of_model > evidence.log_likelihood_of_centres
    return likelier and evidence.stability_of_model > max(STABLE, evidence.stability_of_centres)


def judgement(evidence: SubspaceEvidence) -> str:
    """Whether `fits_subspaces`, and what decides it, in one sentence."""
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


def certainty(gains: Sequence[float], leads: Sequence[float]) -> str:
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
