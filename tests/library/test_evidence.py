"""Subspaces against centres: explained variance and likelihood with known answers, and what is judged from them."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from gsae_lib.estimators import SubspaceEvidence, explained_by_centres, explained_by_subspaces
from gsae_lib.estimators.evidence import (
    certainty,
    fits_subspaces,
    held_out_log_likelihood,
    judgement,
    principal_components,
    split_samples,
    weigh_subspaces,
)


@pytest.fixture
def lines():
    """400 samples on four orthogonal axes of six, and on which: (samples, 6), (samples,)."""
    rng = np.random.default_rng(3)
    labels = rng.integers(4, size=400)
    return rng.normal(size=(400, 1)) * np.eye(6)[labels], labels


def test_lines_explain_lines(lines):
    """Fails if held-out samples are not projected on their nearest subspace, or the share is not that of squares."""
    X, _ = lines
    rng = torch.Generator().manual_seed(0)
    X = np.concatenate([X, -X])  # of mean zero
    found = explained_by_subspaces(X[::2], X[1::2], 4, 1, generator=rng)
    assert found == pytest.approx(1.0, abs=1e-3)
    two = explained_by_subspaces(X[::2], X[1::2], 1, 2, generator=rng)
    energy = np.sort(np.square(X[1::2]).sum(axis=0))[::-1]
    assert two == pytest.approx(energy[:2].sum() / energy.sum(), abs=0.05)


def test_held_out_samples_are_less_the_mean_of_the_first(rng):
    """Fails if held-out samples are centred by their own mean: what they are shifted by would be explained."""
    first = np.array([[3.0, 0.0], [-3.0, 0.0]] * 5)
    found = explained_by_subspaces(first, first + np.array([0.0, 4.0]), 1, 1, generator=rng)
    assert found == pytest.approx(9 / 25)


def test_centres_explain_points():
    """Fails if the variance is not about the mean of the first samples, or distances are not squared."""
    first = np.array([[0.0, 0.0], [4.0, 0.0]] * 10)
    other = np.array([[1.0, 0.0], [4.0, 1.0]])
    mean = first.mean(axis=0)
    wanted = 1 - (1 + 1) / np.square(other - mean).sum()
    assert explained_by_centres(first, other, 2, random_state=0) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="n_centres=21"):
        explained_by_centres(first, other, 21, random_state=0)


def test_likelihood_is_that_of_a_mixture_of_gaussians(rng):
    """Fails if the mixture, its weights, its means or its covariances are others than scipy's of the sample moments."""
    X = torch.randn(20_000, 2, generator=rng, dtype=torch.float64).numpy() @ np.array([[2.0, 0.0], [1.0, 0.5]])
    labels = (X[:, 0] > 1).astype(int)
    parts = [X[labels == k] for k in range(2)]
    densities = [len(p) / len(X) * multivariate_normal(p.mean(axis=0), np.cov(p.T)).pdf(X[:50]) for p in parts]
    np.testing.assert_allclose(held_out_log_likelihood(X, labels, X[:50]), np.log(sum(densities)), atol=0.02)
    with pytest.raises(ValueError, match="labels"):
        held_out_log_likelihood(X, labels[:-1], X)


@pytest.mark.parametrize("samples", [np.ones((12, 3)), np.eye(12, 3), np.zeros((12, 1))])
def test_degenerate_samples_have_a_likelihood(samples):
    """Fails if samples without variance, single ones or a single column end in an error or in nan."""
    labels = np.array([0] * 6 + [1] * 5 + [2])
    assert np.isfinite(held_out_log_likelihood(samples, labels, samples)).all()


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_principal_components_keep_distances(rng, shape):
    """Fails if all components do not give back distances, or the first is not the direction of largest variance."""
    X = torch.randn(shape, generator=rng, dtype=torch.float64).numpy()
    found = principal_components(X, 8)
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-9)
    assert np.square(found[:, 0]).sum() == pytest.approx(np.linalg.svd(centred)[1][0] ** 2)


class Nearest:
    """Clusters by the strongest coordinate: perfect for axes, and a function of the sample alone."""

    def __init__(self, X):
        self.labels_ = self.predict(X)

    def predict(self, X):
        return np.abs(X).argmax(axis=1)

    def transform(self, X):
        return np.abs(X) / np.linalg.norm(X, axis=1, keepdims=True)


def test_splits_are_halves(lines):
    """Fails if halves overlap, leave samples out, are all the same, or are not what models are fitted to."""
    X, _ = lines
    splits = split_samples(len(X), lambda rows: Nearest(X[rows]), 3, random_state=0)
    assert len(splits) == 3 and (splits[0].halves[0] != splits[1].halves[0]).any()
    for split in splits:
        assert sorted(np.concatenate(split.halves)) == list(range(400))
        for model, rows in split.pairs():
            np.testing.assert_array_equal(model.labels_, np.abs(X[rows]).argmax(axis=1))
    with pytest.raises(ValueError, match=r"splits=\[\]"):
        weigh_subspaces(X, [], 4, 1, random_state=0)


def test_evidence_of_lines(lines):
    """Fails if means are put under other names: lines beat centres in each of the three comparisons."""
    X = lines[0] + 0.05 * np.random.default_rng(0).normal(size=(400, 6))
    splits = split_samples(len(X), lambda rows: Nearest(X[rows]), 2, random_state=0)
    weighed = weigh_subspaces(X, splits, 4, 1, random_state=0)
    found = weighed.evidence
    assert found.explained_by_subspaces > 0.97 > found.explained_by_centres > 0
    assert found.log_likelihood_of_model > found.log_likelihood_of_centres
    assert found.stability_of_model > 0.9 > found.stability_of_centres
    assert (found.n_clusters, found.group_size, found.n_splits) == (4, 1, 2)
    assert len(weighed.models) == len(weighed.centres) == 4 and fits_subspaces(found)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("likelier in its clusters", {"log_likelihood_of_model": -1.0}),
        ("agree on its clusters", {"stability_of_centres": 0.95}),
        ("simpler tool", {"stability_of_model": 0.25, "stability_of_centres": 0.0}),
    ],
)
def test_each_condition_of_the_judgement_decides(words, change):
    """Fails if likelihood, agreement, or its lead over k-means could be left out, or is not named as what decided."""
    clear = SubspaceEvidence(0.9, 0.5, 1.0, 0.0, 0.9, 0.4, 3, 2, 3)
    other = dataclasses.replace(clear, **change)
    assert fits_subspaces(clear) and not fits_subspaces(other)
    assert words in judgement(other)


@pytest.mark.parametrize(
    ("likelihood", "stability", "words"),
    [
        ([0.5, 0.6, 0.4], [0.2, 0.2, 0.2], "^what decides, 0.5 nats of likelihood, is more than"),
        ([0.5, 0.6, 0.4], [0.1, -0.1, 0.06], "^this is nearly a tie: what decides, 0.02 of agree"),
        ([0.0016, -0.0004], [0.3, 0.31], "0.0006 nats of likelihood, is at most its spread over 2 splits, 0.0014"),
        ([-5.0, -5.1], [0.1, -0.1], "^what decides, 5 nats of likelihood, is more than"),
        ([0.0, 0.0], [0.3, 0.3], "nearly a tie: what decides, 0 nats of likelihood"),
        ([1.0], [1.0], "^how sure this is, one split does not tell$"),
    ],
)
def test_reasons_say_how_sure_they_are(likelihood, stability, words):
    """Fails if a judgement by a hair looks like a clear one, or the condition that decides is taken for the other."""
    assert re.search(words, certainty(likelihood, stability))
