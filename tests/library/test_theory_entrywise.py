"""Scalar thresholds on groups: each closed form against drawn directions, a grid of angles, or descent itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsae_lib.theory import Population
from gsae_lib.theory.entrywise import one_sided_equilibrium, predicted_entry_recall, predicted_entry_success


@pytest.mark.parametrize("size", [2, 3, 5])
def test_predicted_recall_matches_drawn_directions(size, rng):
    """Fails if the closed form is not the share of entries above the threshold; 6 standard errors, P < 1e-8."""
    population = Population(60, 10, size, 1)
    draws = 200_000
    directions = torch.randn(draws, size, generator=rng, dtype=torch.float64)
    norms = 4 + torch.rand(draws, 1, generator=rng, dtype=torch.float64)
    entry = 1.3 * norms[:, 0] * (directions[:, 0] / directions.norm(dim=1)).abs()
    share = (entry > 2.0).double().mean().item()
    predicted = predicted_entry_recall(population, 2.0, column_norm=1.3)
    assert predicted == pytest.approx(share, abs=6 * 0.5 / draws**0.5)
    assert predicted_entry_recall(population, 2.0, column_norm=1.3, nonnegative=True) == predicted / 2


@given(penalty=st.floats(0.1, 6.0), rho=st.floats(0.5, 2.0), gamma=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_property_predicted_entry_success_by_angles(penalty, rho, gamma):
    """Fails if the arcs are miscounted: directions and norms on a fine grid, up to the grid's resolution."""
    population = Population(1000, 500, 2, gamma)
    angles = (np.arange(20_000) + 0.5) * (2 * np.pi / 20_000)
    norms = 4 + (np.arange(50) + 0.5) / 50
    entries = np.minimum(np.abs(np.cos(angles)), np.abs(np.sin(angles)))
    kept = np.mean([(entries > penalty / (rho * c)).mean() for c in norms])
    found = predicted_entry_success(population, penalty, column_norm=rho)
    assert found == pytest.approx(kept**gamma, abs=3e-3)


def test_entries_at_the_papers_size():
    """Fails if the theory page's 0.167, for two-sided thresholding at the learned norm and lambda = 2, is not this."""
    assert predicted_entry_success(Population(1000, 500, 2, 3), 2.0, column_norm=1.29) == pytest.approx(0.167, abs=0.01)


def test_one_sided_equilibrium_is_where_descent_ends():
    """Fails if the equilibrium is another: gradient descent by automatic differentiation on one group.

    It shares no code with the minimiser, starts at right angles, and leaves all four entries free.
    """
    turns = 2 * np.pi * (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    x = 4.5 * torch.stack([turns.cos(), turns.sin()], dim=1)
    columns = (1.2 * torch.eye(2, dtype=torch.float64)).requires_grad_()
    first = None
    for _ in range(3000):
        loss = (x - torch.relu(x @ columns - 2.0) @ columns.T).square().sum(dim=1).mean()
        (gradient,) = torch.autograd.grad(loss, columns)
        first = gradient if first is None else first
        columns = (columns - 0.02 * gradient).detach().requires_grad_()
    assert (first[0, 1] > 0) and (first[1, 0] > 0)  # descent pushes each column against the other
    columns = columns.detach()
    norm = torch.linalg.vector_norm(columns, dim=0)
    cosine = (columns[:, 0] @ columns[:, 1] / norm.prod()).item()
    angle, rho = one_sided_equilibrium(Population(950, 500, 2, 3, (4.5, 4.5)), 2.0)
    assert np.cos(angle) == pytest.approx(cosine, abs=1e-3) and angle > np.pi / 2
    assert rho == pytest.approx(norm[0].item(), rel=1e-4)


PAIRS, TRIPLES = Population(50, 10, 2, 2), Population(50, 10, 3, 2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: predicted_entry_success(TRIPLES, 1.0), "group_size=3"),
        (lambda: predicted_entry_success(PAIRS, 1.0, column_norm=0.0), "column_norm=0.0"),
        (lambda: predicted_entry_recall(PAIRS, 0.0), "penalty=0.0"),
        (lambda: predicted_entry_recall(PAIRS, 1.0, column_norm=0.0), "column_norm=0.0"),
        (lambda: one_sided_equilibrium(TRIPLES, 2.0), "group_size=3"),
    ],
)
def test_entrywise_theory_rejects(call, message):
    """Fails if the formulas of the circle are used on a sphere, or a number that is not positive is not named."""
    with pytest.raises(ValueError, match=message):
        call()
