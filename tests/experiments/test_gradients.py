"""Gradients by Monte Carlo: lengths and correlations of small networks against their closed forms."""

import math

import pytest
import torch

from experiments.convergence.gradients import compare_proxy, correlation_ratio
from gsae_lib.dictionary import as_groups, from_groups
from gsae_lib.generative import GroupSparseSource, coherent_dictionary

DOUBLE = torch.float64


def turned(truth, angle, rng):
    """Each group of two turned by one angle towards its own directions outside all true spans."""
    full = torch.linalg.qr(torch.cat([truth, torch.randn(len(truth), len(truth), generator=rng, dtype=DOUBLE)], 1)).Q
    outside = as_groups(full[:, truth.shape[1] : 2 * truth.shape[1]], 2)
    return from_groups(math.cos(angle) * as_groups(truth, 2) + math.sin(angle) * outside)


@pytest.fixture
def source(rng):
    """Six orthogonal groups of two in 30 dimensions, one active, of norm 4.5, without noise."""
    truth = coherent_dictionary(30, 6, 2, 0.0, generator=rng, dtype=DOUBLE)
    return GroupSparseSource(truth, 2, 1, norm_range=(4.5, 4.5), snr_db=None)


def test_proxy_is_shorter_by_the_closed_forms(source, rng):
    """Fails if lengths are inverted, parts swapped, or the two gradients see different samples.

    With c = 4.5 and lambda = 2.5 the ratios are 1 - lambda^2 / c^2 = 0.691 across and 2 tau / (1 + tau) = 0.615 along.
    """
    near = turned(source.dictionary, 0.01, rng)
    found = compare_proxy(source, near, 2.5, n_samples=4000, seed=3)
    tau = 1 - 2.5 / 4.5
    assert found.across == pytest.approx(1 - (2.5 / 4.5) ** 2, abs=2e-3)
    assert found.along == pytest.approx(2 * tau / (1 + tau), abs=2e-3)
    assert 0.99 < found.cosine <= 1
    assert compare_proxy(source, near, 2.5, n_samples=4000, seed=3) == found
    assert compare_proxy(source, near, 2.5, n_samples=4000, seed=4) != found


@pytest.mark.parametrize("angle", [0.1, 0.5])
def test_correlation_is_that_of_equal_angles(source, rng, angle):
    """Fails if a side of the inequality is wrong: with equal angles both are known up to sampling, 3 %.

    For one pair, <G, W - AQ> = kappa sin^2 cos, ||W - AQ||^2 = 2 (1 - cos) and ||G||^2 = (kappa sin cos)^2.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    left = sine**2 * cosine
    right = cosine * (1 + cosine) / 4 * 2 * (1 - cosine) + (sine * cosine) ** 2 / 2
    moved = turned(source.dictionary, angle, rng)
    ratio, found = correlation_ratio(source, moved, 2.5, n_samples=40_000, generator=rng)
    assert found == pytest.approx(angle, abs=1e-9)
    assert ratio == pytest.approx(left / right, rel=0.03)
