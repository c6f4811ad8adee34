"""Alternating minimisation: the objective falls, each column is optimal, and a planted dictionary is found."""

import pytest
import torch

from gsae_lib.coding import group_lasso_objective, group_sparse_code
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.learning import alternating_minimization
from gsae_lib.learning.alternating import _update
from gsae_lib.metrics import principal_angles


@pytest.fixture
def planted(rng):
    """(data, truth, start): ten groups of two in 30 dimensions, two active, little noise."""
    truth = orthonormal_groups_dictionary(30, 10, 2, generator=rng, dtype=torch.float64)
    data = GroupSparseSource(truth, 2, 2, snr_db=30.0).sample(400, generator=rng).data
    return data, truth, perturbed_dictionary(truth, 0.7, generator=rng)


def angles(dictionary, truth):
    return principal_angles(dictionary, truth, 2).square().sum().item()


def test_objective_never_rises_and_is_the_equation(planted):
    """Fails if either half does not minimise: the curve must fall, and be the objective of the codes returned."""
    data, _, start = planted
    before = []
    fit = alternating_minimization(
        data, start, 0.3, 2, max_iter=8, tol=1e-9, callback=lambda _, w: before.append(w.clone())
    )
    assert all(b <= a * (1 + 1e-8) for a, b in zip(fit.objective, fit.objective[1:], strict=False))
    expected = group_lasso_objective(data, before[-2], fit.codes, 0.3, 2).mean().item()
    assert fit.objective[-1] == pytest.approx(expected, rel=1e-9)
    assert torch.equal(fit.dictionary, before[-1]) and (fit.dictionary.norm(dim=0) <= 1 + 1e-12).all()


def test_a_column_is_the_best_one(planted, rng):
    """Fails if the sweep forgets a term: no other column of norm at most 1 in the last place fits better."""
    data, _, start = planted
    codes = group_sparse_code(data, start, 0.3, 2).codes
    dictionary = _update(start, codes.T @ codes, data.T @ codes)

    def misfit(column):
        changed = dictionary.clone()
        changed[:, -1] = column
        return (data - codes @ changed.T).square().sum().item()

    best = misfit(dictionary[:, -1])
    for scale in (1e-4, 1e-2, 1.0):
        for step in scale * torch.randn(20, 30, generator=rng, dtype=torch.float64):
            column = dictionary[:, -1] + step
            assert misfit(column / max(1.0, column.norm().item())) >= best - 1e-9


def test_the_best_column_may_be_short():
    """Fails if a column is stretched to unit norm where a shorter one fits better."""
    truth = torch.tensor([[0.3, 0.0], [0.4, 2.0]], dtype=torch.float64)
    found = _update(torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64), truth)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.0], [0.4, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("batch_size", [None, 100])
def test_a_planted_dictionary_is_found(batch_size, planted, rng):
    """Fails if the dictionary does not move to the truth's subspaces: squared angles fall 20 times or more."""
    data, truth, start = planted
    settings = {"batch_size": batch_size, "generator": rng, "max_iter": 20}
    fit = alternating_minimization(data, start, 0.3, 2, **settings)
    assert angles(fit.dictionary, truth) < angles(start, truth) / 20
    assert fit.objective[-1] < 0.7 * fit.objective[0]


def test_online_averages_are_weighted_by_hand(planted):
    """Fails if earlier batches are forgotten or weighted otherwise: two batches, weights 1 and 2^(-3/4), by hand."""
    data, _, start = planted
    rng = torch.Generator().manual_seed(5)
    fit = alternating_minimization(data, start, 0.3, 2, max_iter=1, batch_size=200, generator=rng)
    first, second = torch.randperm(400, generator=torch.Generator().manual_seed(5)).split(200)
    dictionary = start / start.norm(dim=0).clamp(min=1.0)
    codes = group_sparse_code(data[first], dictionary, 0.3, 2).codes
    squares, cross = codes.T @ codes / 200, data[first].T @ codes / 200
    dictionary = _update(dictionary, squares, cross)
    codes = group_sparse_code(data[second], dictionary, 0.3, 2).codes
    share = 2**-0.75
    squares = (1 - share) * squares + share * codes.T @ codes / 200
    cross = (1 - share) * cross + share * data[second].T @ codes / 200
    torch.testing.assert_close(fit.dictionary, _update(dictionary, squares, cross))


def test_unused_columns_stay(planted):
    """Fails if a column that no code uses becomes nan."""
    data, _, start = planted
    fit = alternating_minimization(data, start, 1e3, 2, max_iter=2)
    torch.testing.assert_close(fit.dictionary, start / start.norm(dim=0).clamp(min=1.0))
    assert not fit.codes.any()
