"""Tests of experiments.recovery.superpositions: the data, the choice of penalties, the scores, and a small run."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from experiments.recovery import superpositions
from experiments.recovery.superpositions import (
    DICTIONARIES,
    METHODS,
    SuperpositionSettings,
    choose_code,
    choose_penalty,
    draw_source,
    exact_table,
    most_active,
    run_superpositions,
    score_codes,
)
from gsae_lib.generative import GroupSparseSample
from gsae_lib.theory.superpositions import effective_noise, predicted_exact

TINY = SuperpositionSettings(30, 10, 2, 2, snr_db=30.0, n_samples=300, n_test=40)


def test_features_decay(rng):
    """Fails if variances do not fall as said, or columns are not of unit norm."""
    settings = dataclasses.replace(TINY, n_groups=2000, decay=1.0)
    dictionary = draw_source(settings, generator=rng).dictionary
    np.testing.assert_allclose(torch.linalg.vector_norm(dictionary, dim=0), 1, rtol=1e-5)
    power = dictionary.square().mean(dim=1)
    assert power[0] / power[1] == pytest.approx(2, rel=0.25) and power[0] / power[9] == pytest.approx(10, rel=0.35)


def test_penalty_is_chosen_on_features_left_out(rng):
    """Fails if the features that codes are fitted to choose, which would take the smallest penalty."""
    dictionary, data = torch.eye(4)[:, :2] + 0.1, torch.randn(6, 4, generator=rng)
    errors = {1.0: 3.0, 2.0: 1.0, 4.0: 2.0}

    def code(rows, atoms, penalty):
        assert rows.shape == (6, 2) and atoms.shape == (2, 2)
        left = data[:, [1, 3]] + (errors[penalty] / 12) ** 0.5
        return torch.linalg.solve(dictionary[[1, 3]], left.T).T

    assert choose_penalty(code, data, dictionary, torch.tensor([0, 2]), tuple(errors)) == 2.0


def test_scores_by_hand():
    """Fails if ranking and own support are mixed up: three groups of two, one sample right, one half right."""
    codes = torch.tensor([[3.0, 0, 0, 2, 0, 0.1], [0, 0, 1, 1, 0, 5]])
    support = torch.tensor([[True, True, False], [True, False, True]])
    sample = GroupSparseSample(torch.zeros(2, 4), torch.zeros(2, 6), support)
    settings = SuperpositionSettings(4, 3, 2, 2)
    assert score_codes(codes, sample, settings, True) == (0.5, 0.75, 0.6, 0.75)
    assert all(math.isnan(value) for value in score_codes(codes, sample, settings, False)[2:])


def test_small_run():
    """Fails if a method breaks, or ranks otherwise than it must: with few groups all but filters are exact."""
    runs = {run.method: run for run in run_superpositions(TINY, seed=0)}
    assert tuple(runs) == METHODS
    assert runs["network"].share == runs["filters"].share
    for name in ("ridge", "pursuit", "solver"):
        assert runs[name].exact > 0.9
    assert runs["solver"].recall > 0.95 and runs["solver"].precision > TINY.n_active / TINY.n_groups
    again = run_superpositions(TINY, seed=0, methods=("ridge",))[0]
    assert (again.exact, again.share, again.penalty) == (
        runs["ridge"].exact, runs["ridge"].share, runs["ridge"].penalty,
    )  # fmt: skip


@pytest.mark.parametrize("dictionary", DICTIONARIES[1:])
def test_learned_dictionaries_are_matched(dictionary):
    """Fails if a start or its training breaks, or if groups are scored in the order in which they were found."""
    settings = dataclasses.replace(TINY, n_active=1, n_samples=600, dictionary=dictionary)
    (run,) = run_superpositions(settings, seed=1, methods=("ridge",))
    assert run.share > 0.6  # chance: 0.1


def test_table_takes_means_and_laws():
    """Fails if methods or seeds are mixed up, or a prediction is that of another code."""
    table = exact_table([TINY], [0, 1], ["filters", "ridge", "pursuit"]).set_index("method")
    shares = [run_superpositions(TINY, seed=seed, methods=["filters"])[0].exact for seed in (0, 1)]
    assert table.loc["filters", "exact"] == pytest.approx(np.mean(shares))
    assert table.loc["filters", "predicted"] < table.loc["ridge", "predicted"]
    assert math.isnan(table.loc["pursuit", "predicted"])


def test_most_active_groups_by_counting():
    """Fails if the search by halves ends one too early or too late."""
    population = dataclasses.replace(TINY.population, n_features=60, n_groups=40, noise_std=0.3)
    for method in ("filters", "ridge"):
        shares = [
            predicted_exact(one, effective_noise(one, method))
            for one in (dataclasses.replace(population, n_active=k) for k in range(1, 21))
        ]
        counted = sum(share >= 0.9 for share in shares)
        assert shares[counted - 1] >= 0.9 and 0 < counted < 20
        assert most_active(population, method) == counted
    loud = dataclasses.replace(population, noise_std=9.0)
    assert most_active(loud, "filters") == 0


def test_early_stopping_is_linear_and_ends_at_least_squares(rng):
    """Fails if a threshold is left in it, or steps are not those of gradient descent on the reconstruction."""
    dictionary = torch.linalg.qr(torch.randn(30, 8, generator=rng, dtype=torch.float64)).Q
    dictionary = dictionary + 0.1 * torch.randn(30, 8, generator=rng, dtype=torch.float64)
    data = torch.randn(20, 30, generator=rng, dtype=torch.float64)
    code, steps = choose_code("early stopping", data, dictionary, 2, torch.arange(24))
    assert steps in superpositions.STEPS
    np.testing.assert_allclose(
        code(2 * data[:3] - data[3:6], dictionary, 4.0),
        2 * code(data[:3], dictionary, 4.0) - code(data[3:6], dictionary, 4.0),
    )
    size = 1 / torch.linalg.matrix_norm(dictionary, ord=2) ** 2
    np.testing.assert_allclose(code(data, dictionary, 1.0), size * data @ dictionary, rtol=1e-6)
    linear, steps = choose_code("linear steps", data, dictionary, 2, torch.arange(24))
    np.testing.assert_allclose(linear(data, dictionary, steps), code(data, dictionary, 15.0))
    least = torch.linalg.lstsq(dictionary, data.T).solution.T
    np.testing.assert_allclose(code(data, dictionary, 4000.0), least, atol=1e-8)
