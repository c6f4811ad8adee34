"""Tests of experiments.sums.cluster_singles: kinds that lie apart, and what a method sees."""

import numpy as np
import pytest
import torch

from experiments.sums import cluster_singles
from experiments.sums.cluster_singles import methods
from experiments.sums.real_sums import Pool
from gsae_lib.metrics import clustering_scores


@pytest.fixture
def pool(rng):
    """Three kinds of samples close to a direction each, signs at random only where a method forgets them."""
    centres = torch.linalg.qr(torch.randn(60, 3, generator=rng)).Q.T
    labels = torch.arange(150) % 3
    return Pool(centres[labels] + 0.01 * torch.randn(150, 60, generator=rng), labels, tuple("abc"), (1.0, 1.0), 0.0)


def test_kinds_that_lie_apart(pool):
    """Fails if a method does not cluster, or clusters something other than the samples."""
    for name, cluster in methods(pool.singles.double().numpy(), 3).items():
        clusters = cluster(0)
        assert clusters.shape == (150,) and set(np.unique(clusters)) == {0, 1, 2}, name
        assert clustering_scores(pool.labels, clusters).accuracy > 0.9, name


def test_labels_only_score(pool, monkeypatch):
    """Fails if labels reach a method, or the seed draws other samples for another method."""
    seen = []

    def fake(samples, n_clusters):
        seen.append(samples)
        return {"one": lambda seed: np.arange(len(samples)) % n_clusters, "two": lambda seed: np.zeros(len(samples))}

    monkeypatch.setattr(cluster_singles, "load_pool", lambda name: pool)
    monkeypatch.setattr(cluster_singles, "methods", fake)
    one, two = (cluster_singles.cluster_singles("jets", method, seed=1) for method in ("one", "two"))
    np.testing.assert_array_equal(*seen)
    assert seen[0].shape == (120, 60) and one.accuracy > two.accuracy
    with pytest.raises(ValueError, match="method='three'"):
        cluster_singles.cluster_singles("jets", "three", seed=1)
