"""Clustering by k-means, by spectral methods, by subspaces, and by groups of a code; no labels.

What is random here is scikit-learn's, so `random_state` is too: an int gives the same clusters each time, and a
`RandomState` moves on.

Source: arXiv 2102.07003, Section 4.2.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from scipy.sparse import csgraph, csr_array, eye_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin, silhouette_samples
from sklearn.neighbors import kneighbors_graph
from torch import Tensor
from torch.nn.functional import one_hot

from gsae_lib._checks import (
    RandomState,
    as_seed,
    at_least_single,
    check_choice,
    check_int,
    check_matrix,
    check_samples,
    describe,
    without_autocast,
)
from gsae_lib.groups import group_norms
from gsae_lib.learning.initialization import k_subspaces

Clusters = Int[np.ndarray, " _"]

RESTARTS = 500  # of the eigensolver that multiplies by a graph, until the graph is factorised instead
SHIFT = 1e-9  # that makes the Laplacian of a graph one that can be factorised


def positive_part(codes: Float[Tensor, "samples atoms"]) -> Float[Tensor, "samples atoms"]:
    """The paper's (.)_+ as we read it: negative entries cut, each sample scaled to sum 1; a zero code stays zero.

    Raises:
        ValueError: not a dense matrix of floating-point numbers.
    """
    if not isinstance(codes, Tensor) or codes.ndim != 2 or not codes.is_floating_point() or codes.is_sparse:
        raise ValueError(f"codes: expected a floating-point tensor with two axes, got {describe(codes)}")
    positive = codes.clamp(min=0)
    total = positive.sum(dim=1, keepdim=True)
    return positive / torch.where(total > 0, total, 1.0)


def strongest_group(codes: Float[Tensor, "samples atoms"], group_size: int) -> Clusters:
    """The group of largest norm in each sample, where the paper speaks of the active group of a cluster."""
    return group_norms(check_matrix("codes", codes), group_size).argmax(dim=1).cpu().numpy()


def kmeans_clusters(
    train_features: Float[Tensor, "train features"],
    test_features: Float[Tensor, "test features"],
    n_clusters: int,
    *,
    random_state: RandomState,
    n_init: int = 10,
) -> tuple[Clusters, Clusters]:
    """Clusters of k-means, fitted on the training features; test samples go to the nearest centre.

    Raises:
        ValueError: more clusters than training samples, or features that do not match.
    """
    check_samples("train_features", train_features)
    check_int("n_clusters", n_clusters, high=len(train_features))
    check_samples("test_features", test_features, columns=train_features.shape[1])
    model = KMeans(n_clusters, n_init=check_int("n_init", n_init), random_state=random_state)
    train, test = _as_array(train_features), _as_array(test_features)
    return model.fit_predict(train), model.predict(test.astype(train.dtype, copy=False))


def spectral_clusters(
    features: Float[Tensor, "samples features"],
    n_clusters: int,
    n_neighbors: int,
    *,
    random_state: RandomState,
    n_components: int | None = None,
) -> Clusters:
    """Spectral clustering on the graph of nearest neighbours; it clusters the samples it is given and no others.

    By default as many eigenvectors as clusters, read off by pivoted QR. With `n_components`, that many eigenvectors,
    the rows of their matrix scaled to unit length, and k-means on them (Ng, Jordan and Weiss 2001): more eigenvectors
    than clusters keep apart clusters that a cut of the graph would rather leave together than cut off.

    Raises:
        ValueError: n_neighbors is not between 1 and the number of samples, or n_clusters or n_components is not
            between 1 and one less; not a finite matrix.
    """
    check_samples("features", features)
    check_int("n_clusters", n_clusters, high=len(features) - 1)
    check_int("n_neighbors", n_neighbors, high=len(features))
    if n_components is not None:
        check_int("n_components", n_components, high=len(features) - 1)
    seed = as_seed(random_state)
    graph = kneighbors_graph(_as_array(features), n_neighbors, include_self=True)
    rows = _spectral_rows(csr_array(0.5 * (graph + graph.T)), n_components or n_clusters, seed)
    return _pivoted_clusters(rows) if n_components is None else _cluster_directions(rows, n_clusters, seed)


def _spectral_rows(graph: csr_array, count: int, seed: int) -> np.ndarray:
    r"""D^{-1/2} V (samples, count) of a graph A with degrees D; V: leading eigenvectors of D^{-1/2} A D^{-1/2}.

    The diagonal of A does not count. The parts of the graph that no edge connects have the eigenvalue 1, and are known;
    if there are more of them than vectors to find, these mix them at random. Multiplications by the graph find the
    others in a tenth of the time that factorising it takes (20,000 digits, 10 neighbours). A long chain of samples,
    whose eigenvalues are too close for that, is easy to factorise.
    """
    rng = np.random.default_rng(seed)
    laplacian, roots = csgraph.laplacian(graph, normed=True, return_diag=True)
    n_parts, part = csgraph.connected_components(graph, directed=False)
    lengths = np.sqrt(np.bincount(part, roots**2))
    known = csr_array((roots / lengths[part], (np.arange(len(roots)), part)))
    if n_parts >= count:
        return known @ np.linalg.qr(rng.standard_normal((n_parts, count))).Q / roots[:, None]
    shape, start = laplacian.shape, rng.standard_normal(len(roots))

    def leading(multiply: Callable[[np.ndarray], np.ndarray], restarts: int | None) -> np.ndarray:
        def without_known(vector: np.ndarray) -> np.ndarray:
            return vector - known @ (known.T @ vector)

        operator = LinearOperator(shape, lambda x: without_known(multiply(without_known(x))), dtype=float)
        return eigsh(operator, count - n_parts, which="LA", v0=start, maxiter=restarts)[1]

    try:
        others = leading(lambda x: x - laplacian @ x, RESTARTS)
    except ArpackNoConvergence:
        others = leading(splu((laplacian + SHIFT * eye_array(len(roots))).tocsc()).solve, None)
    return np.hstack([known.toarray(), others]) / roots[:, None]


def _pivoted_clusters(rows: np.ndarray) -> Clusters:
    """As many clusters as columns: the sample of each cluster that a pivoted QR finds first is turned onto an axis.

    Source: Damle, Minden and Ying, "Simple, direct, and efficient multi-way spectral clustering" (2019).
    """
    first = scipy.linalg.qr(rows.T, pivoting=True, mode="economic")[2][: rows.shape[1]]
    left, _, right = np.linalg.svd(rows[first].T)
    return abs(rows @ (left @ right)).argmax(axis=1)


def _cluster_directions(rows: np.ndarray, n_clusters: int, random_state: RandomState) -> Clusters:
    """k-means on rows scaled to unit length."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1.0)
    return KMeans(n_clusters, n_init=10, random_state=random_state).fit_predict(unit)


@without_autocast
def ensemble_clusters(
    data: Float[Tensor, "samples features"],
    n_clusters: int,
    group_size: int,
    *,
    random_state: RandomState,
    n_runs: int = 20,
) -> Clusters:
    r"""Ensemble k-subspaces: spectral clustering on how often samples share a subspace, over many runs of k-subspaces.

    With F (samples, n_runs * clusters) marking the subspace of a sample in each run, the graph is F F^T; its
    eigenvectors are the left singular vectors of D^{-1/2} F, with D the degrees, so the graph is never formed.

    Source: Lipor, Hong, Tan and Balzano, "Subspace clustering using ensembles of k-subspaces" (2021), who also drop the
    weakest edges.

    Raises:
        ValueError: as `k_subspaces`, or n_runs not a positive integer.
    """
    check_samples("data", data)
    seed = as_seed(random_state)
    rng = torch.Generator().manual_seed(seed)
    fits = (k_subspaces(data, n_clusters, group_size, generator=rng) for _ in range(check_int("n_runs", n_runs)))
    marks = torch.cat([one_hot(fit.labels, n_clusters) for fit in fits], dim=1).double()
    degrees = marks @ marks.sum(dim=0)
    marks /= degrees.sqrt().unsqueeze(1)
    values, vectors = torch.linalg.eigh(marks.T @ marks)
    rows = marks @ vectors[:, -n_clusters:] / values[-n_clusters:].clamp(min=1e-12).sqrt()
    return _cluster_directions(rows.cpu().numpy(), n_clusters, seed)


@without_autocast
def coactivation_groups(
    norms: Float[Tensor, "samples groups"], n_clusters: int, *, random_state: RandomState
) -> Float[Tensor, "groups clusters"]:
    r"""Cluster the groups by how often they are active together; a sample then follows its strongest set of groups.

    .. math:: A_{gh} = \frac{\sum_i \nu_{ig} \nu_{ih}}{\sqrt{\sum_i \nu_{ig}^2 \sum_i \nu_{ih}^2}}

    is the graph of the groups, clustered spectrally. Column k of the result marks the groups of cluster k, scaled to
    unit length: `(norms @ result).argmax(1)` are clusters of samples.
    """
    check_samples("norms", norms)
    if check_int("n_clusters", n_clusters, high=norms.shape[1]) == norms.shape[1]:
        return torch.eye(n_clusters, dtype=norms.dtype, device=norms.device)
    unit = norms / torch.linalg.vector_norm(norms, dim=0).clamp(min=torch.finfo(norms.dtype).tiny)
    graph = (unit.T @ unit).clamp(min=0).detach().cpu().double().numpy()
    model = SpectralClustering(
        n_clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=random_state
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected", category=UserWarning)
        marks = one_hot(torch.from_numpy(model.fit_predict(graph).astype(np.int64)), n_clusters).to(norms)
    return marks / marks.sum(dim=0).clamp(min=1).sqrt()


def silhouettes(
    features: np.ndarray, counts: Sequence[int], *, random_state: RandomState
) -> dict[int, tuple[float, float]]:
    r"""The mean silhouette of the clusters of k-means for each number of clusters, and its standard error.

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}

    with a_i the mean distance of sample i to the others of its cluster, and b_i to those of the next cluster. Where all
    samples are in one cluster, or each in its own, it is -1.

    Source: Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis, 1987.

    Args:
        features (samples, features), of which all pairs are compared. counts: each from 2 to the number of samples.

    Raises:
        ValueError: no counts, or one out of range.
    """
    if not len(counts):
        raise ValueError(f"counts={counts}: expected at least one number of clusters")
    seed, found, distances = as_seed(random_state), {}, pairwise_distances(features)
    for count in counts:
        check_int("count", count, low=2, high=len(features))
        labels = KMeans(count, n_init=10, random_state=seed).fit_predict(features)
        each = np.array([-1.0])
        if 1 < len(np.unique(labels)) < len(features):
            each = silhouette_samples(distances, labels, metric="precomputed")
        found[count] = float(each.mean()), float(each.std() / len(each) ** 0.5)
    return found


def cluster_norms(
    norms: Float[np.ndarray, "samples groups"],
    others: Float[np.ndarray, "others groups"],
    n_clusters: int,
    method: Literal["kmeans", "spectral", "argmax"],
    *,
    random_state: RandomState,
) -> tuple[Clusters, Clusters]:
    """Clusters of norms, and of others, which go to the nearest centre, or to the cluster of the nearest of the norms.

    "argmax": the strongest group, whatever the number of clusters.

    Raises:
        ValueError: another method, or as `spectral_clusters`.
    """
    check_choice("method", method, ("kmeans", "spectral", "argmax"))
    others = others.astype(norms.dtype, copy=False)
    if method == "argmax":
        return norms.argmax(axis=1), others.argmax(axis=1)
    if method == "kmeans":
        model = KMeans(n_clusters, n_init=5, random_state=as_seed(random_state)).fit(norms)
        return model.labels_, model.predict(others)
    neighbors = min(10, len(norms))
    labels = spectral_clusters(torch.from_numpy(norms), n_clusters, neighbors, random_state=as_seed(random_state))
    return labels, labels[pairwise_distances_argmin(others, norms)]


def _as_array(features: Tensor) -> np.ndarray:
    """In a precision that scikit-learn knows."""
    return at_least_single(features.detach()).cpu().numpy()
