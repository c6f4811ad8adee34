"""Tests of experiments.layers.second_layer: norms of planted families, and where labels go."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.digits.ablation import ablate
from experiments.layers import second_layer
from experiments.layers.second_layer import SecondLayerSettings, cluster_norms
from gsae_lib.metrics import clustering_scores

WAYS = (
    {"method": "k-means"},
    {"method": "spectral"},
    {"method": "families"},
    {"start": "k-subspaces"},
    {"start": "k-means"},
    {"start": "k-means", "epochs": 3},
    {"start": "k-means", "epochs": 3, "n_iterations": 5},
)
TINY = SecondLayerSettings(group_size=3)


@pytest.fixture
def planted(rng):
    """Norms of 30 strokes in ten families of three, of which two are active, and the families."""
    families = torch.arange(300) % 10
    norms = torch.zeros(300, 30)
    for row, k in zip(norms, families, strict=True):
        row[3 * k + torch.randperm(3, generator=rng)[:2]] = 1 + torch.rand(2, generator=rng)
    return torch.nn.functional.normalize(norms), families


@pytest.mark.parametrize("way", [*WAYS, {"start": "digits"}], ids=str)
def test_planted_families_are_found(planted, way):
    """Fails if a way does not cluster what the model of chapter 19 makes, or families leave anything out."""
    run = cluster_norms(*planted, dataclasses.replace(TINY, **way), seed=0)
    assert run.accuracy > 0.6 and run.purity == pytest.approx(1)
    if "families" in way.values() or "digits" in way.values():
        assert run.accuracy == 1 and run.left_out < 1e-6 and run.coherence < 1e-5
        assert np.isnan(run.single) or run.single > 0.9


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_labels_only_score(planted, way, monkeypatch):
    """Fails if a clustering depends on the labels."""
    seen = []

    def keep(labels, clusters):
        seen.append(np.asarray(clusters))
        return clustering_scores(labels, clusters)

    monkeypatch.setattr(second_layer, "clustering_scores", keep)
    norms, labels = planted
    for given in (labels, labels.flip(0)):
        cluster_norms(norms, given, dataclasses.replace(TINY, centred=True, **way), seed=1)
    np.testing.assert_array_equal(*seen)


def test_what_is_left_out_by_hand(planted):
    """Fails if the energy outside of the clusters' best subspaces, or that of the mean, is not what numpy says."""
    norms, labels = planted
    run = cluster_norms(norms, labels, dataclasses.replace(TINY, start="digits", group_size=1), seed=0)
    rows = norms.numpy().astype(float)
    left = sum((np.linalg.svd(rows[labels.numpy() == k])[1][1:] ** 2).sum() for k in range(10))
    assert run.left_out == pytest.approx(left / (rows**2).sum(), rel=1e-4)
    assert run.mean_share == pytest.approx((rows.mean(0) ** 2).sum(), rel=1e-4)


def test_purity_by_hand():
    """Fails if a stroke that two digits share equally does not count half."""
    norms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]).repeat(10, 1)
    labels = torch.tensor([0, 1, 2]).repeat(10)
    assert second_layer._purity(norms, labels) == pytest.approx((1 / 2 * 20 + 40) / 60)


def test_norms_are_those_of_chapter_10(monkeypatch):
    """Fails if the strokes of a seed are not the codes that chapter 10 clusters."""
    rng = torch.Generator().manual_seed(0)
    samples, labels = torch.randn(700, 12, generator=rng), torch.arange(700) % 10
    base = dataclasses.replace(second_layer.BASE["pixels"], n_groups=20, group_size=2)
    monkeypatch.setattr(second_layer, "data", lambda features: (samples, labels))
    monkeypatch.setattr(second_layer, "BASE", {"pixels": base})
    second_layer.stroke_norms.cache_clear()
    norms, _ = second_layer.stroke_norms("pixels", 3)
    second_layer.stroke_norms.cache_clear()
    ours = cluster_norms(norms, labels, SecondLayerSettings("pixels", "k-means"), seed=3)
    theirs = ablate(samples, base, seeds=[3], methods=["k-means on group norms"])[0].train[0]
    assert ours.accuracy == clustering_scores(labels, theirs).accuracy
