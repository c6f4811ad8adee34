"""Tests of experiments.convergence.unrolling: limits of the gradients, rates, and networks at rest."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.convergence.unrolling import (
    UnrollingSettings,
    contraction_rates,
    gradient_errors,
    limit_gradients,
    rest_angles,
)
from gsae_lib.coding import group_sparse_code

SMALL = UnrollingSettings(n_features=16, n_groups=10, n_samples=60, epochs=20)


@pytest.fixture
def problem(rng):
    """Data, a dictionary, and codes of the solver, to rounding."""
    source = SMALL.source(rng)
    data = source.sample(40, generator=rng).data
    weight = SMALL.source(rng).dictionary * 0.3 + source.dictionary
    return data, weight, group_sparse_code(data, weight, 1.0, 2, tol=1e-14, max_iter=100_000).codes


def test_limits_are_derivatives_of_what_the_solver_finds(problem, rng):
    """Fails if a limit is not the slope of min P, or of the error at its minimiser; central differences, the solver."""
    data, weight, codes = problem
    direction = torch.randn(weight.shape, generator=rng, dtype=torch.float64)
    step = 1 / torch.linalg.matrix_norm(weight, ord=2).item() ** 2
    found = [(one * direction).sum().item() for one in limit_gradients(data, codes, weight, 1.0, 2, step)]
    other = [(one * direction).sum().item() for one in limit_gradients(data, codes, weight, 1.0, 2, step / 3)]
    slopes = []
    for sign in (1, -1):
        moved = weight + sign * 1e-5 * direction
        solved = group_sparse_code(data, moved, 1.0, 2, tol=1e-14, max_iter=100_000)
        error = 0.5 * (data - solved.codes @ moved.T).square().sum().item()
        slopes.append(np.array([solved.objective.sum().item(), error]) / len(data))
    np.testing.assert_allclose(found, (slopes[0] - slopes[1]) / 2e-5, rtol=1e-4)
    np.testing.assert_allclose(found, other, rtol=1e-6)


def test_rates_are_those_of_the_last_steps(problem):
    """Fails if, for a sample, the distance to the minimiser does not shrink by its rate in a late step; by loops."""
    data, weight, codes = problem
    step = 1 / torch.linalg.matrix_norm(weight, ord=2).item() ** 2
    rates = contraction_rates(codes, weight, 1.0, 2, step)
    for y, x_star, rate in zip(data[:8], codes, rates, strict=False):
        x, distances = torch.zeros_like(x_star), []
        while not distances or distances[-1] > 1e-6:
            u = (x + step * weight.T @ (y - weight @ x)).reshape(-1, 2)
            x = torch.cat([max(0.0, 1 - step / one.norm().item()) * one for one in u])
            distances.append((x - x_star).norm().item())
        assert distances[-1] / distances[-2] == pytest.approx(rate.item(), abs=0.01)


def test_the_penalised_gradient_is_as_good_as_the_square():
    """Fails if the decoder's error does not follow the rate, or that through the steps not its square, T times."""
    rows = gradient_errors(SMALL, (100, 200), seed=0)
    names = ["decoder", "penalised", "unrolled"]
    slopes = np.log(rows[names].iloc[1] / rows[names].iloc[0]) / 100 / np.log(rows["rate"][0])
    assert slopes["decoder"] == pytest.approx(1, rel=0.15)
    assert slopes["penalised"] == pytest.approx(2, rel=0.15)
    assert slopes["unrolled"] == pytest.approx(1, rel=0.15)
    assert (rows["apart"] > 0.01).all() and rows["supports"].iloc[1] == 1


def test_orders_of_the_bias(rng):
    """Fails if, supports held, the error does not rest at a distance of order lambda^2, or min P at one of lambda.

    Groups of one: with signs s, x = G^{-1} (W_S^T y - lambda s). Rest points by L-BFGS over unit columns.
    """
    truth = torch.nn.functional.normalize(torch.randn(24, 8, generator=rng, dtype=torch.float64), dim=0)
    pairs = torch.combinations(torch.arange(8)).repeat(3, 1)
    x = torch.randn(len(pairs), 2, generator=rng, dtype=torch.float64)
    x = x.sign() * (4 + x.abs())
    data = torch.einsum("nks,ks->kn", truth[:, pairs], x)

    def rest(penalty, penalised):
        free = truth.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [free], 1.0, 300, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            own = torch.nn.functional.normalize(free, dim=0)[:, pairs].movedim(1, 0)
            target = (own.mT @ data.unsqueeze(2)).squeeze(2) - penalty * x.sign()
            code = torch.linalg.solve(own.mT @ own, target)
            loss = 0.5 * (data - (own @ code.unsqueeze(2)).squeeze(2)).square().sum(dim=1)
            loss = (loss + penalised * penalty * (x.sign() * code).sum(dim=1)).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        found = torch.nn.functional.normalize(free.detach(), dim=0)
        return (found - truth).norm().item()

    error = [rest(penalty, 0.0) for penalty in (0.2, 0.1)]
    penalised = [rest(penalty, 1.0) for penalty in (0.2, 0.1)]
    assert error[0] / error[1] == pytest.approx(4, rel=0.1)
    assert penalised[0] / penalised[1] == pytest.approx(2, rel=0.1)
    assert error[1] < 0.1 * penalised[1]


def test_networks_come_to_rest():
    """Fails if a deep network does not find supports where one step does not, or it is still moving."""
    rows = rest_angles(dataclasses.replace(SMALL, epochs=60, penalty=1.5), (1, 20), seed=0).set_index(
        ["depth", "gradient"]
    )
    assert (rows["moved"] < 0.5 * rows["angle"]).all()
    assert rows.loc[20, "exact"].min() > rows.loc[1, "exact"].max()
