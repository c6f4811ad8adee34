"""The group lasso's objective against a loop, and the duality gap against what it promises to bound."""

import numpy as np
import pytest
import torch

from gsae_lib.autoencoder import GroupSparseAutoencoder
from gsae_lib.coding import duality_gap, group_lasso_objective


def problem(rng):
    """Five samples in six dimensions and a dictionary of four groups of two."""
    dictionary = torch.randn(6, 8, generator=rng, dtype=torch.float64) / 2
    return torch.randn(5, 6, generator=rng, dtype=torch.float64), dictionary


def encode(data, dictionary, penalty, num_iterations):
    model = GroupSparseAutoencoder(6, 4, 2, penalty, num_iterations=num_iterations, weight=dictionary)
    return model.encode(data).detach()


def test_objective_is_the_equation(rng):
    """Fails if 1/2, the penalty or the square is misplaced, or samples are summed."""
    data, dictionary = problem(rng)
    codes = torch.randn(5, 8, generator=rng, dtype=torch.float64)
    expected = [
        0.5 * np.linalg.norm(y - dictionary.numpy() @ x) ** 2 + 0.3 * sum(np.hypot(*block) for block in x.reshape(4, 2))
        for y, x in zip(data.numpy(), codes.numpy(), strict=True)
    ]
    np.testing.assert_allclose(group_lasso_objective(data, dictionary, codes, 0.3, 2), expected, rtol=1e-12)


@pytest.mark.parametrize("penalty", [0.05, 0.4, 100.0])
def test_gap_bounds_the_distance_to_the_minimum_and_closes(penalty, rng):
    """Fails if the dual point is infeasible (the gap would fall below the distance) or poor (it would not close)."""
    data, dictionary = problem(rng)
    optimum = encode(data, dictionary, penalty, 4000)
    minimum = group_lasso_objective(data, dictionary, optimum, penalty, 2)
    assert (duality_gap(data, dictionary, optimum, penalty, 2) < 1e-8).all()
    starts = [encode(data, dictionary, penalty, t) for t in (1, 3, 20)]
    for codes in [torch.zeros(5, 8).double(), torch.randn(5, 8, generator=rng, dtype=torch.float64), *starts]:
        distance = group_lasso_objective(data, dictionary, codes, penalty, 2) - minimum
        assert (duality_gap(data, dictionary, codes, penalty, 2) >= distance - 1e-12).all()


def test_gap_of_zero_codes_under_a_large_penalty_is_zero(rng):
    """Fails if the dual point is scaled up: with lambda above every ||W_g^T y||, x = 0 is optimal and theta = y."""
    data, dictionary = problem(rng)
    np.testing.assert_allclose(duality_gap(data, dictionary, torch.zeros(5, 8).double(), 1e6, 2), 0, rtol=0, atol=1e-14)


def test_zero_residual_and_zero_penalty(rng):
    """Fails at 0 / 0: a perfect code without a penalty has objective and gap 0."""
    data, codes = torch.zeros(2, 6), torch.zeros(2, 8)
    for function in (group_lasso_objective, duality_gap):
        assert function(data, torch.ones(6, 8), codes, 0.0, 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", [group_lasso_objective, duality_gap])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": -1.0}, "penalty=-1.0"),
        ({"penalty": float("nan")}, "penalty=nan"),
        ({"group_size": 3}, "group_size=3"),
        ({"data": torch.ones(4, 6)}, r"\(4, 6\).*\(6, 8\).*\(5, 8\)"),
        ({"codes": torch.ones(5, 7)}, r"\(5, 6\).*\(6, 8\).*\(5, 7\)"),
        ({"dictionary": torch.ones(6, 8) / 0}, "dictionary: .*non-finite"),
    ],
)
def test_rejects_bad_arguments(function, changes, message):
    """Fails if shapes are broadcast, or if the message does not quote them or the value."""
    good = {
        "data": torch.ones(5, 6),
        "dictionary": torch.ones(6, 8),
        "codes": torch.ones(5, 8),
        "penalty": 0.1,
        "group_size": 2,
    }
    with pytest.raises(ValueError, match=message):
        function(**good | changes)
