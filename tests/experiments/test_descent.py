"""Measured rates and floors: settings that are checked, runs that repeat, predictions that hold on a small network."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from experiments.convergence.descent import (
    DescentSettings,
    measure_rate,
    remaining_error,
    riemannian_path,
    run_descent,
)
from gsae_lib.dictionary import as_groups, orthonormalize_groups
from gsae_lib.generative import GroupSparseSource, coherent_dictionary
from gsae_lib.theory.population import designed_sample
from gsae_lib.theory.rates import largest_step, plain_rates

SMALL = DescentSettings(n_features=60, n_groups=12, group_size=2, batch_size=4000, n_steps=24, start=0.05)


@pytest.mark.parametrize("kind, n_features", [("orthogonal", 60), ("random", 200)])
def test_rate_and_floor_of_the_riemannian_step(kind, n_features):
    """Fails if the factor is over 0.02, or the floor over 20 %, from the prediction."""
    rate = measure_rate(dataclasses.replace(SMALL, kind=kind, n_features=n_features), seed=1)
    assert rate.n_steps >= 2 and rate.measured == pytest.approx(rate.predicted, abs=0.02)
    assert rate.floor == pytest.approx(rate.settings.floor, rel=0.2)
    assert rate.norm == pytest.approx(1.0)


def test_rate_of_the_plain_step():
    """Fails if the plain step is not the named share of the largest one, or its factor is over 0.01 off."""
    settings = dataclasses.replace(SMALL, method="plain", rate=0.25, n_steps=80)
    assert settings.step == pytest.approx(0.25 * largest_step(settings.population, 2.0))
    rate = measure_rate(settings, seed=2)
    assert rate.predicted == pytest.approx(1 - settings.step * plain_rates(settings.population, 2.0).outside)
    assert rate.measured == pytest.approx(rate.predicted, abs=0.01)


def test_a_seed_is_a_run():
    """Fails if a run depends on anything but its settings and seed, a seed changes nothing, or shapes are others."""
    settings = dataclasses.replace(SMALL, n_steps=2, batch_size=200)
    first, again, other = (run_descent(settings, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.tangents, again.tangents)
    assert not np.array_equal(first.tangents, other.tangents)
    assert first.tangents.shape == (3, 12, 2)
    assert first.norms.shape == first.columns.shape == first.rotated.shape == (3,)
    groups = as_groups(first.dictionary, 2)
    torch.testing.assert_close(groups.mT @ groups, torch.eye(2, dtype=groups.dtype).expand(12, 2, 2), atol=1e-6, rtol=0)


def test_a_schedule_replaces_the_threshold():
    """Fails if the schedule is not asked: a threshold above all responses leaves the start where it is."""
    settings = dataclasses.replace(SMALL, n_steps=3, batch_size=200)
    still = run_descent(settings, seed=0, schedule=lambda *_: 1e3)
    assert still.rms[-1] == pytest.approx(still.rms[0], rel=1e-9)
    assert run_descent(settings, seed=0).rms[-1] < 0.9 * still.rms[0]


def test_a_path_on_a_whole_population_follows_the_recursion(rng):
    """Fails if a step, the penalty or the order of the points is wrong: the exact recursion in sines and cosines."""
    truth = coherent_dictionary(20, 5, 2, 0.0, generator=rng, dtype=torch.float64)
    start = orthonormalize_groups(truth + 0.05 * torch.randn(truth.shape, generator=rng, dtype=torch.float64), 2)
    data = designed_sample(truth, 2, 1, 4.5).data
    kappa = 4.5**2 / 2 / 5
    tangents = riemannian_path(data, start, truth, 2.0, 2, step=0.4 / kappa, n_steps=6)
    assert tangents.shape == (7, 5, 2)
    for before, after in itertools.pairwise(tangents):
        angles = np.arctan(before)
        expected = np.tan(angles) * (1 - 0.4 * np.cos(angles) ** 2) / (1 + 0.4 * np.sin(angles) ** 2)
        np.testing.assert_allclose(np.sort(after, axis=1), np.sort(expected, axis=1), rtol=0, atol=1e-12)
    still = riemannian_path(data, start, truth, 5.0, 2, step=0.4 / kappa, n_steps=1)
    np.testing.assert_allclose(still[0], still[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["riemannian", "plain"])
def test_the_largest_step_separates_rest_from_escape(method, rng):
    """Fails if the share does not multiply the bound of this method, or the error left is not that of the end."""
    truth = coherent_dictionary(24, 6, 2, 0.0, generator=rng, dtype=torch.float64)
    start = orthonormalize_groups(truth + 1e-3 * torch.randn(truth.shape, generator=rng, dtype=torch.float64), 2)
    source = GroupSparseSource(truth, 2, 2, snr_db=None)
    below, above = (
        remaining_error(source, start, 2.0, method=method, share=share, batch_size=400, generator=rng)
        for share in (0.8, 1.3)
    )
    assert below < 0.05 < above
