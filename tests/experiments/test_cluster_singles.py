"""Tests of experiments.cluster_singles: kinds that lie apart, and a record that resumes."""

import json

import numpy as np
import pytest
import torch

from experiments import cluster_singles
from experiments.cluster_singles import methods, record_clusters
from experiments.real_sums import Pool
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


def test_a_record_resumes(pool, tmp_path, monkeypatch):
    """Fails if a recorded run is repeated or lost, or labels reach a method."""
    calls = []

    def fake(samples, n_clusters):
        def cluster(seed):
            calls.append((len(samples), seed))
            return np.arange(len(samples)) % n_clusters

        return {"one": cluster}

    monkeypatch.setattr(cluster_singles, "load_pool", lambda name: pool)
    monkeypatch.setattr(cluster_singles, "methods", fake)
    monkeypatch.setattr(cluster_singles, "SEEDS", range(2))
    path = tmp_path / "rows.json"
    record_clusters(path)
    rows = json.loads(path.read_text())["rows"]
    record_clusters(path)
    assert json.loads(path.read_text())["rows"] == rows and len(rows) == len(calls) == 4
    assert {row["data"] for row in rows} == {"jets", "galaxies"} and set(calls) == {(120, 0), (120, 1)}
