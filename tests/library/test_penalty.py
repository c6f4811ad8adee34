"""GroupPenalty: value, prox, pullback and dual norms against NumPy, optimality and brute force; all kinds of groups."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from gsae_lib import GroupSparseAutoencoder, group_sparse_code
from gsae_lib.coding import duality_gap, group_lasso_objective, largest_penalty, penalty_path
from gsae_lib.groups import group_layout, to_groups
from gsae_lib.penalty import GroupPenalty, as_penalty

GROUPS = {
    "one size": (2, [[0, 1], [2, 3], [4, 5]]),
    "singles": (1, [[k] for k in range(6)]),
    "sizes": ([3, 1, 2], [[0, 1, 2], [3], [4, 5]]),
    "lists": ([[4, 0], [1, 2, 5], [3]], [[4, 0], [1, 2, 5], [3]]),
}
OVERLAPPING = [[0, 1, 2], [2, 3], [3, 4, 5, 0]]
KINDS = [{}, {"l1": 0.2}, {"nonnegative": True}, {"nonnegative": True, "l1": 0.2}]
case = pytest.mark.parametrize("name", GROUPS)
kind = pytest.mark.parametrize("kind", KINDS, ids=str)
weighted = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights"])


def make(name, kind, weighted, penalty=0.7):
    """The penalty, the atoms of each group, and the weights."""
    groups, atoms = GROUPS[name]
    weights = np.linspace(0.5, 1.5, len(atoms)) if weighted else np.ones(len(atoms))
    return GroupPenalty(penalty, groups, weights=weights if weighted else None, **kind), atoms, weights


def omega(x, penalty, atoms, weights):
    """The penalty of one sample, by its formula."""
    norms = sum(w * np.sqrt(sum(x[j] ** 2 for j in group)) for w, group in zip(weights, atoms, strict=True))
    return penalty.penalty * norms + penalty.l1 * np.abs(x).sum()


def smooth_minimum(fit, penalty, atoms, weights, m):
    """The minimum of fit + Omega over x = p - n, p >= 0, n >= 0, by L-BFGS-B with norms smoothed by 1e-15."""

    def value(z):
        x = z[:m] - z[m:]
        f, slope = fit(x)
        for w, group in zip(weights, atoms, strict=True):
            norm = np.sqrt((x[group] ** 2).sum() + 1e-15)
            f += penalty.penalty * w * norm
            slope[group] += penalty.penalty * w * x[group] / norm
        return f + penalty.l1 * z.sum(), np.concatenate([slope + penalty.l1, -slope + penalty.l1])

    bounds = [(0, None)] * m + [(0, 0 if penalty.nonnegative else None)] * m
    options = {"maxiter": 20000, "maxfun": 10**6, "ftol": 1e-16, "gtol": 1e-13}
    return minimize(value, np.full(2 * m, 0.1), jac=True, bounds=bounds, method="L-BFGS-B", options=options).fun


@case
@kind
@weighted
def test_value_is_the_formula(name, kind, weighted, rng):
    """Fails if a weight meets another group, samples are summed, or a negative code passes for a non-negative one."""
    penalty, atoms, weights = make(name, kind, weighted)
    x = torch.randn(5, 6, generator=rng, dtype=torch.float64)
    x[0, 3], x[1] = -1e-9, x[1].abs()
    positive = x.abs()
    expected = [omega(one, penalty, atoms, weights) for one in positive.numpy()]
    np.testing.assert_allclose(penalty.value(positive), expected, rtol=1e-12)
    assert torch.equal(penalty.value(x).isinf(), (x < 0).any(dim=1) & penalty.nonnegative)
    several = penalty.with_penalty(torch.tensor([0.0, 0.7, 1.4, 2.1, 2.8], dtype=torch.float64))
    norms = np.array(expected) - penalty.l1 * positive.sum(dim=1).numpy()
    difference = several.value(positive) - penalty.value(positive)
    np.testing.assert_allclose(difference, (np.arange(5) - 1) * norms, atol=1e-12)


@case
@kind
@weighted
def test_prox_is_the_minimiser(name, kind, weighted, rng):
    """Fails if the prox is another map: its objective is the minimum that smooth optimisation finds."""
    penalty, atoms, weights = make(name, kind, weighted)
    x, zeros = torch.randn(4, 6, generator=rng, dtype=torch.float64), 0
    for step in (1.0, 0.4):
        scaled = GroupPenalty(step * 0.7, penalty.groups, weights=penalty.weights, **{**kind, "l1": step * penalty.l1})
        z = penalty.prox(x, step)
        for one, target in zip(z.numpy(), x.numpy(), strict=True):
            found = 0.5 * ((one - target) ** 2).sum() + omega(one, scaled, atoms, weights)
            best = smooth_minimum(
                lambda u, target=target: (0.5 * ((u - target) ** 2).sum(), u - target), scaled, atoms, weights, 6
            )
            assert best - 1e-3 < found < best + 2e-7  # the optimiser may stop early
        zeros += int((z == 0).sum())
    assert zeros


@case
@kind
@weighted
def test_pullback_is_that_of_the_prox(name, kind, weighted, rng):
    """Fails if the derivative from the value alone is not that of automatic differentiation through the prox."""
    penalty, *_ = make(name, kind, weighted)
    x = torch.randn(40, 6, generator=rng, dtype=torch.float64).requires_grad_()
    grad = torch.randn(40, 6, generator=rng, dtype=torch.float64)
    z = penalty.prox(x, 0.6)
    (expected,) = torch.autograd.grad((grad * z).sum(), x)
    torch.testing.assert_close(penalty.pullback(z.detach(), grad, 0.6), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda u: penalty.prox(u, 0.6), (x[:3],))


@case
@kind
@weighted
def test_dual_norm_is_where_zero_stops_to_be_the_minimum(name, kind, weighted, rng):
    """Fails if the dual norm has another threshold or weight: the prox of c is zero from it on, not before."""
    penalty, *_ = make(name, kind, weighted)
    c = 3 * torch.randn(50, 6, generator=rng, dtype=torch.float64)
    largest = penalty.dual_norms(c).amax(dim=1)
    assert (largest > 0).any()
    for factor, stays in ((1.0 + 1e-9, 0), (1.0 - 1e-6, 1)):
        z = penalty.with_penalty(factor * largest).prox(c)
        assert torch.equal(z.any(dim=1), (largest > 0) if stays else torch.zeros(50, dtype=torch.bool))


@case
@kind
@weighted
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=pytest.mark.numba), False], ids=["alone", "together"])
def test_solver_reaches_the_minimum(name, kind, weighted, compiled, rng, monkeypatch):
    """Fails if groups, weights or signs are mixed up in the solver, or the gap is of another problem."""
    monkeypatch.setattr("gsae_lib.coding._solver.are_compiled", lambda: compiled)
    penalty, atoms, weights = make(name, kind, weighted, penalty=0.15)
    dictionary = torch.randn(5, 6, generator=rng, dtype=torch.float64) / 2
    data = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    result = group_sparse_code(data, dictionary, penalty, tol=1e-10)
    w = dictionary.numpy()
    for y, x, objective in zip(data.numpy(), result.codes.numpy(), result.objective.tolist(), strict=True):
        assert objective == pytest.approx(0.5 * ((y - w @ x) ** 2).sum() + omega(x, penalty, atoms, weights), rel=1e-9)

        def fit(u, y=y):
            return 0.5 * ((y - w @ u) ** 2).sum(), -w.T @ (y - w @ u)

        assert objective == pytest.approx(smooth_minimum(fit, penalty, atoms, weights, 6), abs=1e-6)
    assert result.converged.all() and 0 < (result.codes == 0).double().mean() < 1
    torch.testing.assert_close(duality_gap(data, dictionary, result.codes, penalty), result.gap, rtol=0, atol=1e-12)
    largest = largest_penalty(data, dictionary, penalty)
    assert not group_sparse_code(data, dictionary, penalty.with_penalty(1.001 * largest)).codes.any()
    assert group_sparse_code(data, dictionary, penalty.with_penalty(0.99 * largest)).codes.any(dim=1).all()


@pytest.mark.parametrize(
    ("n_features", "sizes"),
    [(6, [2] * 4), (20, [2] * 4), (6, [2] * 20), (30, [3, 1, 2, 4] * 8)],
    ids=["wide", "tall", "very wide", "sizes"],
)
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=pytest.mark.numba), False], ids=["alone", "together"])
def test_solver_with_weights_and_resting_groups(n_features, sizes, compiled, rng, monkeypatch):
    """Fails if a group that rests, or is screened, is not the one that its weight allows: the optimality conditions."""
    monkeypatch.setattr("gsae_lib.coding._solver.are_compiled", lambda: compiled)
    weights = torch.linspace(0.5, 3.0, len(sizes), dtype=torch.float64)[torch.randperm(len(sizes), generator=rng)]
    dictionary = torch.randn(n_features, sum(sizes), generator=rng, dtype=torch.float64)
    data = torch.randn(9, n_features, generator=rng, dtype=torch.float64)
    penalty = GroupPenalty(1.0, sizes, weights=weights)
    penalty = penalty.with_penalty(0.4 * largest_penalty(data, dictionary, penalty))
    codes = group_sparse_code(data, dictionary, penalty, tol=1e-12).codes
    slopes = (data - codes @ dictionary.T) @ dictionary
    for x, slope, level in zip(codes, slopes, penalty.penalty, strict=True):
        for block, c, weight in zip(x.split(sizes), slope.split(sizes), weights, strict=True):
            if block.any():
                torch.testing.assert_close(
                    c, weight * level * block / block.norm(), rtol=0, atol=1e-5 * (weight * level).item()
                )
            else:
                assert c.norm() <= weight * level * (1 + 1e-6)
    assert 0 < (codes == 0).double().mean() < 1


def test_groups_that_overlap_are_solved_by_copies(rng):
    """Fails if a shared atom's copies are not added, or objective and gap are of another problem than theirs."""
    dictionary = torch.randn(5, 6, generator=rng, dtype=torch.float64) / 2
    data = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    weights = [1.0, 0.5, 1.3]
    penalty = GroupPenalty(0.2, OVERLAPPING, weights=weights)
    result = group_sparse_code(data, dictionary, penalty, tol=1e-10)
    columns = [*itertools.chain(*OVERLAPPING)]
    copies, sizes = dictionary[:, columns], [3, 2, 4]
    expected = group_sparse_code(data, copies, GroupPenalty(0.2, sizes, weights=weights), tol=1e-10)
    torch.testing.assert_close(result.copies, expected.codes)
    torch.testing.assert_close(result.gap, expected.gap, rtol=0, atol=1e-12)
    summed = torch.zeros_like(result.codes)
    for k, column in enumerate(columns):
        summed[:, column] += expected.codes[:, k]
    torch.testing.assert_close(result.codes, summed)
    torch.testing.assert_close(result.codes @ dictionary.T, expected.codes @ copies.T)
    torch.testing.assert_close(group_lasso_objective(data, copies, result.copies, penalty), result.objective)
    again = group_sparse_code(data, dictionary, penalty, init=result.copies, tol=1e-9)
    assert not again.n_iter.any()
    assert not penalty_path(data, dictionary, penalty, n_penalties=3)[0].codes.any()
    with pytest.raises(ValueError, match="`copied` is the penalty of its copies"):
        penalty.prox(data)
    with pytest.raises(ValueError, match="an atom is in several"):
        to_groups(data, [[0, 1], [1, 2, 3, 4]])


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_property_blocks_and_back(sizes, seed):
    """Fails if an atom is lost on the way to blocks and back, in any order, or the padding is not zero."""
    rng, m = np.random.default_rng(seed), sum(sizes)
    order = rng.permutation(m).tolist()
    bounds = np.cumsum([0, *sizes])
    x = torch.from_numpy(rng.standard_normal((2, 3, m)))
    for groups in (sizes, [order[a:b] for a, b in itertools.pairwise(bounds)]):
        layout = group_layout(groups)
        blocks = layout.to_blocks(x)
        assert blocks.shape == (2, 3, len(sizes), max(sizes)) and torch.equal(layout.from_blocks(blocks), x)
        atoms = order if groups is not sizes else [*range(m)]
        for g, size in enumerate(sizes):
            assert torch.equal(blocks[..., g, :size], x[..., atoms[bounds[g] : bounds[g + 1]]])
            assert not blocks[..., g, size:].any()


def test_a_number_with_groups_is_short_for_a_penalty():
    """Fails if two doors lead to different rooms, or both may be open at once."""
    penalty = as_penalty(0.3, [1, 2])
    assert (penalty.penalty, penalty.groups) == (0.3, (1, 2)) and as_penalty(penalty, None) is penalty
    for both in ((0.3, None), (penalty, 2)):
        with pytest.raises(ValueError, match=r"^groups="):
            as_penalty(*both)


class Twice(GroupPenalty):
    """A penalty of one's own: 2 Omega."""

    def value(self, x):
        return 2 * super().value(x)

    def prox(self, x, step=1.0):
        return super().prox(x, 2 * step)

    def pullback(self, z, grad, step=1.0):
        return super().pullback(z, grad, 2 * step)

    def dual_norms(self, c):
        return super().dual_norms(c) / 2


@pytest.mark.parametrize("few_active", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_penalty_of_ones_own_is_asked(few_active, layers, rng):
    """Fails if the solver or a network takes a way that knows the group lasso alone."""
    dictionary = torch.randn(8, 12, generator=rng, dtype=torch.float64)
    data = torch.randn(30, 8, generator=rng, dtype=torch.float64)
    own, same = Twice(0.4, 2), GroupPenalty(0.8, 2)
    found = [group_sparse_code(data, dictionary, penalty, tol=1e-10) for penalty in (own, same)]
    assert found[0].converged.all()
    torch.testing.assert_close(found[0].codes, found[1].codes, atol=1e-6, rtol=0)
    gradients = []
    for penalty in (own, same):
        settings = {"n_iterations": layers, "step_size": 1.0, "dictionary": dictionary / 6}
        model = GroupSparseAutoencoder(8, 6, penalty=penalty, **settings)
        loss, _ = model.training_step(data, few_active=few_active)
        gradients.append((float(loss), model.weight.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
