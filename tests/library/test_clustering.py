"""Clustering: each helper against its definition."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.neighbors import kneighbors_graph

from gsae_lib import clustering
from gsae_lib.clustering import (
    coactivation_groups,
    ensemble_clusters,
    kmeans_clusters,
    positive_part,
    silhouettes,
    spectral_clusters,
    strongest_group,
)
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary


@pytest.fixture
def union(rng):
    """Data on four subspaces of dimension 3 in 20 dimensions, and labels."""
    dictionary = orthonormal_groups_dictionary(20, 4, 3, generator=rng)
    draw = GroupSparseSource.union_of_subspaces(dictionary, 3, snr_db=30.0).sample(240, generator=rng)
    return draw.data, draw.labels


def same_partition(labels, clusters):
    """Whether labels and clusters differ in names only."""
    pairs = set(zip(np.asarray(labels).tolist(), np.asarray(clusters).tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_positive_part_sums_to_one():
    """Fails if negative entries are reflected, the norm is not the sum, or a code without positive entries is nan."""
    codes = torch.tensor([[1.0, -2.0, 3.0], [-1.0, -1.0, 0.0], [0.0, 0.0, 0.5]])
    assert positive_part(codes).tolist() == [[0.25, 0.0, 0.75], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_strongest_group_has_the_largest_norm(device):
    """Fails if the largest entry or sum decides: norms of the groups are 5, 4.9 and 0."""
    codes = torch.tensor([[3.0, 4.0, 4.9, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 3.0, -5.0, 0.0]], device=device)
    assert strongest_group(codes, 2).tolist() == [0, 2]


def test_kmeans_is_fitted_on_train_and_predicts_test(rng):
    """Fails if clusters of test samples have other names, are fitted again, or depend on other test samples."""
    labels = torch.arange(60) % 3
    data = 20 * torch.eye(3)[labels] + torch.randn(60, 3, generator=rng)  # in far-apart balls
    clusters, test_clusters = kmeans_clusters(data[:40], data[40:], 3, random_state=0)
    assert same_partition(labels, np.concatenate([clusters, test_clusters]))
    alone = kmeans_clusters(data[:40], data[40:41], 3, random_state=0)
    assert alone[0].tolist() == clusters.tolist() and alone[1].tolist() == test_clusters[:1].tolist()


def test_more_eigenvectors_keep_apart_what_touches(rng):
    """Fails if n_components is not used, or rows are not scaled to unit length: the chain is then cut in pieces."""
    chain = torch.stack([torch.linspace(0, 75, 150), 40 + 0.1 * torch.randn(150, generator=rng)], dim=1)
    balls = torch.randn(300, 2, generator=rng)
    balls[150:, 0] += 4.5
    points, labels = torch.cat([chain, balls]), np.repeat([0, 1, 2], 150)
    for count in (None, 3):
        assert adjusted_rand_score(labels, spectral_clusters(points, 3, 8, random_state=0, n_components=count)) < 0.6
    for count in (4, 5, 6):
        assert adjusted_rand_score(labels, spectral_clusters(points, 3, 8, random_state=0, n_components=count)) > 0.9


@pytest.fixture
def three_clouds(rng):
    return torch.cat([torch.randn(80, 3, generator=rng) + shift for shift in (0.0, 3.0, 6.0)])


@pytest.mark.parametrize("n_neighbors", [8, 60])
@pytest.mark.parametrize("n_clusters", [2, 3, 7])
def test_spectral_clusters_are_those_of_scikit_learn(three_clouds, n_clusters, n_neighbors):
    """Fails if another graph is cut, other eigenvectors are taken, or they are read off otherwise."""
    graph = kneighbors_graph(three_clouds.numpy(), n_neighbors, include_self=True)
    settings = {"affinity": "precomputed", "assign_labels": "cluster_qr", "random_state": 0}
    oracle = SpectralClustering(n_clusters, **settings).fit_predict(0.5 * (graph + graph.T))
    assert same_partition(oracle, spectral_clusters(three_clouds, n_clusters, n_neighbors, random_state=0))


@pytest.mark.parametrize("n_components", [None, 4])
def test_factorised_graphs_have_the_same_clusters(three_clouds, monkeypatch, n_components):
    """Fails if an eigensolver that does not converge raises, or its stand-in finds other eigenvectors."""
    multiplied = spectral_clusters(three_clouds, 3, 8, random_state=0, n_components=n_components)
    monkeypatch.setattr(clustering, "RESTARTS", 1)
    factorised = spectral_clusters(three_clouds, 3, 8, random_state=0, n_components=n_components)
    assert adjusted_rand_score(factorised, multiplied) > 0.98


def test_a_long_chain_is_cut_in_pieces_of_like_length():
    """Fails if eigenvalues that are too close for multiplications end in an error, or in vectors that are none."""
    chain = torch.stack([torch.linspace(0, 300, 3000), torch.zeros(3000)], dim=1)
    clusters = spectral_clusters(chain, 3, 5, random_state=0)
    assert (np.diff(clusters) != 0).sum() == 2 and np.bincount(clusters).min() > 600


def test_ensemble_finds_a_planted_union(union):
    """Fails if the runs of k-subspaces are the same, or what they share is not what is clustered."""
    clusters = ensemble_clusters(union[0], 4, 3, random_state=0, n_runs=10)
    assert same_partition(union[1], clusters)


def test_coactivation_joins_groups_that_are_active_together():
    """Fails if the graph is not normalised by how often a group is active, or groups are marked without scaling."""
    pattern = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    norms = pattern.repeat_interleave(torch.tensor([30, 5]), dim=0) * torch.tensor([1.0, 0.1, 1.0, 2.0, 0.5])
    sets = coactivation_groups(norms, 2, random_state=0)
    assert torch.equal(sets @ sets.T > 0, pattern.T @ pattern > 0)
    torch.testing.assert_close(torch.linalg.vector_norm(sets, dim=0), torch.ones(2))
    assert same_partition([0] * 30 + [1] * 5, (norms @ sets).argmax(dim=1))


@pytest.mark.parametrize("lengths", [(12, 3), (3, 9, 6)])
def test_coactivation_sees_groups_that_are_never_active_together(lengths):
    """Fails if such groups have an edge (of 0.1 or more): chains of neighbours that are active together are cut."""
    pairs = [torch.eye(length) + torch.diag(torch.ones(length - 1), 1) for length in lengths]
    sets = coactivation_groups(torch.block_diag(*pairs), len(lengths), random_state=0)
    assert same_partition(np.repeat(np.arange(len(lengths)), lengths), sets.argmax(dim=1))


@pytest.mark.parametrize("cluster", [spectral_clusters, ensemble_clusters])
@pytest.mark.parametrize("state", [lambda: 0, lambda: np.random.RandomState(7)], ids=["number", "numpy"])
def test_clusters_repeat(union, cluster, state):
    """Fails if a `RandomState` is refused, or two in one state give different clusters."""
    first, second = (cluster(union[0], 4, 3, random_state=state()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_silhouettes_are_scikit_learns():
    """Fails if a mean is not scikit-learn's silhouette score, or its error not that of a mean."""
    X, _ = make_blobs(90, centers=3, random_state=1)
    found = silhouettes(X, [2, 3], random_state=0)
    labels = KMeans(3, n_init=10, random_state=0).fit_predict(X)
    assert found[3][0] == pytest.approx(silhouette_score(X, labels)) and 0 < found[3][1] < 0.1
    assert silhouettes(np.ones((5, 2)), [2], random_state=0)[2][0] == -1
