"""The group lasso's objective against a loop, the duality gap against what it promises to bound, and the solver."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import ArpackNoConvergence

from gsae_lib.coding import (
    NotConvergedWarning,
    _solver,
    duality_gap,
    excess_objective,
    group_lasso_objective,
    group_sparse_code,
    largest_penalty,
    penalty_path,
)
from gsae_lib.generative import GroupSparseSource
from gsae_lib.networks import GroupSparseAutoencoder
from gsae_lib.penalty import GroupPenalty

VARIANTS = [{}, {"nonnegative": True}, {"l1": 0.1}, {"nonnegative": True, "l1": 0.1}]


def problem(rng):
    """Five samples in six dimensions and a dictionary of four groups of two."""
    dictionary = torch.randn(6, 8, generator=rng, dtype=torch.float64) / 2
    return torch.randn(5, 6, generator=rng, dtype=torch.float64), dictionary


def encode(data, dictionary, penalty, n_iterations):
    model = GroupSparseAutoencoder(6, 4, 2, penalty, n_iterations=n_iterations, dictionary=dictionary)
    return model.encode(data).detach()


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


def test_gaps_that_are_zero(rng):
    """Fails if the dual point is scaled up where x = 0 is optimal (theta = y), or at 0 / 0 without a penalty."""
    data, dictionary = problem(rng)
    np.testing.assert_allclose(duality_gap(data, dictionary, torch.zeros(5, 8).double(), 1e6, 2), 0, rtol=0, atol=1e-14)
    for function in (group_lasso_objective, duality_gap):
        assert function(0 * data, dictionary, torch.zeros(5, 8).double(), 0.0, 2).tolist() == [0.0] * 5


@pytest.fixture(params=[pytest.param("one by one", marks=pytest.mark.numba), "together"])
def way(request, monkeypatch):
    """Samples alone, and all together."""
    if request.param == "together":
        monkeypatch.setattr(_solver, "are_compiled", lambda: False)
    return request.param


@pytest.mark.numba
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(0, 7),
    features=st.integers(1, 9),
    groups=st.integers(1, 6),
    size=st.integers(1, 3),
    fraction=st.sampled_from([0.05, 0.5, 0.99, 1.0, 3.0]),
    variant=st.sampled_from(VARIANTS),
    block=st.sampled_from([4, 2**18]),
    compiled=st.booleans(),
)
def test_property_gap_is_met(seed, samples, features, groups, size, fraction, variant, block, compiled):
    """Fails for some shape, block or variant if a code is called converged and the gap of its own codes is larger."""
    rng = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(features, groups * size, generator=rng, dtype=torch.float64)
    data = torch.randn(samples, features, generator=rng, dtype=torch.float64)
    largest = largest_penalty(data, dictionary, GroupPenalty(1.0, size, **variant))
    penalty = fraction * torch.where(largest > 0, largest, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_solver, "BLOCK_ENTRIES", block)
        patch.setattr(_solver, "ALONE_ENTRIES", block)
        patch.setattr(_solver, "are_compiled", lambda: compiled)
        result = group_sparse_code(data, dictionary, GroupPenalty(penalty, size, **variant), tol=1e-7)
    gap = duality_gap(data, dictionary, result.codes, GroupPenalty(penalty, size, **variant))
    objective = group_lasso_objective(data, dictionary, result.codes, GroupPenalty(penalty, size, **variant))
    torch.testing.assert_close(result.gap, gap, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.objective, objective)
    assert result.converged.all() and (gap <= 1e-7 * objective + 1e-12).all()
    if fraction >= 1:
        assert not result.codes.any() and not result.n_iter.any()


MANY_ATOMS = {
    "random": lambda rng: torch.randn(150, 200, generator=rng, dtype=torch.float64),
    "orthonormal": lambda rng: torch.linalg.qr(torch.randn(200, 150, generator=rng, dtype=torch.float64)).Q,
    "one direction": lambda rng: torch.ones(140, 150, dtype=torch.float64),
    "tiny": lambda rng: 1e-100 * torch.randn(150, 200, generator=rng, dtype=torch.float64),
    "zero": lambda rng: torch.zeros(150, 200, dtype=torch.float64),
}


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MANY_ATOMS)
def test_step_is_one_over_the_largest_eigenvalue_of_many_atoms(kind, dtype, failing, rng, monkeypatch):
    """Fails if Lanczos iterations stop early, break down, or are not replaced where they do not converge."""
    dictionary = MANY_ATOMS[kind](rng).to(dtype)
    expected = torch.linalg.matrix_norm(dictionary.double(), ord=2).square().item()
    if kind == "tiny" and dtype == torch.float32:
        expected = 0.0  # its squares are

    def fail(*_, **__):
        raise ArpackNoConvergence("none", [], [])

    if failing:
        monkeypatch.setattr(_solver, "eigsh", fail)
    step = _solver.Solver(dictionary, GroupPenalty(1.0, 2), 1e-6, 10).step
    assert step == pytest.approx(1 / expected if expected else 1.0, rel=1e-5 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_screening_drops_groups_and_changes_nothing(variant, rng, monkeypatch):
    """Fails if a group of the optimum is dropped: many groups, few used, with screening and without."""
    dictionary = torch.randn(30, 60, generator=rng, dtype=torch.float64)
    data = torch.randn(4, 30, generator=rng, dtype=torch.float64)
    penalty = 0.7 * largest_penalty(data, dictionary, GroupPenalty(1.0, 2, **variant))
    widths = []
    original = _solver._gap

    def watch(x, *others):
        widths.append(x.shape[1])
        return original(x, *others)

    def blind(*args):
        objective, gap, slack = original(*args)
        return objective, gap, torch.full_like(slack, -torch.inf)

    monkeypatch.setattr(_solver, "are_compiled", lambda: False)
    monkeypatch.setattr(_solver, "_gap", watch)
    found = group_sparse_code(data, dictionary, GroupPenalty(penalty, 2, **variant), tol=1e-10)
    assert widths[0] == 60 and widths[-1] < 30
    monkeypatch.setattr(_solver, "_gap", blind)
    expected = group_sparse_code(data, dictionary, GroupPenalty(penalty, 2, **variant), tol=1e-10)
    torch.testing.assert_close(found.codes, expected.codes, rtol=0, atol=1e-5)
    assert torch.equal(found.codes != 0, expected.codes != 0)


@pytest.mark.numba
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(("size", "share"), [(1, 0.5), (2, 0.7), (5, 0.1), (5, 0.02)], ids=str)
def test_both_ways_find_the_same_codes(size, share, variant, rng, monkeypatch):
    """Fails if a group that rests is forgotten, woken with another entry, or its rows and columns are mixed up."""
    dictionary = torch.randn(30, 60, generator=rng, dtype=torch.float64)
    data = torch.randn(20, 30, generator=rng, dtype=torch.float64)
    penalty = share * largest_penalty(data, dictionary, GroupPenalty(1.0, size, **variant))
    found = {}
    for name in (True, False):
        monkeypatch.setattr(_solver, "are_compiled", lambda name=name: name)
        found[name] = group_sparse_code(data, dictionary, GroupPenalty(penalty, size, **variant), tol=1e-10)
        assert found[name].converged.all()
    alone, together = found.values()
    torch.testing.assert_close(alone.codes, together.codes, rtol=0, atol=2e-4)
    torch.testing.assert_close(alone.objective, together.objective, rtol=1e-9, atol=0)
    assert 0 < (together.codes != 0).double().mean() < 1


def test_what_requires_gradients_is_taken(way, rng):
    """Fails if a learned dictionary has to be detached, or the solver records its steps."""
    data, dictionary = problem(rng)
    expected = group_sparse_code(data, dictionary, 0.2, 2)
    found = group_sparse_code(data.requires_grad_(), dictionary.requires_grad_(), 0.2, 2)
    assert torch.equal(found.codes, expected.codes) and not found.codes.requires_grad


@pytest.mark.numba
def test_float32_reaches_small_gaps(rng, monkeypatch):
    """Fails if sums of float32 limit the gap: coherent atoms, a small penalty, and many samples."""
    common = torch.randn(80, 1, generator=rng)
    dictionary = torch.randn(80, 40, generator=rng) + 1.2 * common
    data = GroupSparseSource(dictionary, 4, 3, snr_db=20.0).sample(100, generator=rng).data
    penalty = 0.02 * largest_penalty(data, dictionary, 4).mean().item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = group_sparse_code(data, dictionary, penalty, 4, tol=1e-5)
    assert result.codes.dtype == torch.float32 and result.converged.all()
    monkeypatch.setattr(_solver, "are_compiled", lambda: False)
    with pytest.warns(NotConvergedWarning):
        group_sparse_code(data, dictionary, penalty, 4, tol=1e-5)


def test_warm_start(rng, way):
    """Fails if the start is ignored: at the optimum no step is taken, and 0 iterations only certify."""
    data, dictionary = problem(rng)
    result = group_sparse_code(data, dictionary, 0.1, 2)
    again = group_sparse_code(data, dictionary, 0.1, 2, init=result.codes)
    assert not again.n_iter.any() and torch.equal(again.codes, result.codes)
    with pytest.warns(NotConvergedWarning):
        certified = group_sparse_code(data, dictionary, 0.1, 2, init=torch.ones_like(result.codes), max_iter=0)
    assert torch.equal(certified.codes, torch.ones_like(result.codes)) and not certified.converged.any()


def test_not_converged_is_said_and_seen(rng, way):
    """Fails if a code that is not good enough passes silently."""
    data, dictionary = problem(rng)
    with pytest.warns(NotConvergedWarning, match=r"\d of 5 samples have a relative gap above tol=1e-12 .*max_iter=3"):
        result = group_sparse_code(data, dictionary, 0.05, 2, tol=1e-12, max_iter=3)
    assert not result.converged.all() and (result.gap[~result.converged] > 0).all()


def test_a_gap_below_rounding_is_given_up(rng, way):
    """Fails if the solver runs to the last iteration although float32 allows no smaller gap."""
    data, dictionary = problem(rng)
    with pytest.warns(NotConvergedWarning, match="float32 allows no more"):
        result = group_sparse_code(data.float(), dictionary.float(), 0.05, 2, tol=1e-14, max_iter=10**6)
    assert result.n_iter.max() < 10_000 and (result.gap < 1e-4 * result.objective).all()


def test_path(rng, way):
    """Fails if penalties are not geometric from lambda_max, or a warm start changes a solution."""
    data, dictionary = problem(rng)
    path = penalty_path(data, dictionary, 2, n_penalties=5, ratio=0.01, tol=1e-9)
    largest = largest_penalty(data, dictionary, 2)
    for k, result in enumerate(path):
        torch.testing.assert_close(result.penalty, largest * 0.01 ** (k / 4))
        cold = group_sparse_code(data, dictionary, result.penalty, 2, tol=1e-9)
        torch.testing.assert_close(result.objective, cold.objective, rtol=1e-8, atol=1e-10)
        assert result.converged.all()
    assert not path[0].codes.any() and path[-1].codes.any(dim=1).all()
    assert not penalty_path(torch.zeros(2, 6, dtype=torch.float64), dictionary, 2)[-1].codes.any()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_solver_in_both_precisions_on_every_device(variant, rng, dtype, device):
    """Fails if a dtype or device is mixed up; float32 codes agree with float64 codes to rounding."""
    data, dictionary = problem(rng)
    expected = group_sparse_code(data, dictionary, GroupPenalty(0.2, 2, **variant), tol=1e-9).codes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalty = GroupPenalty(0.2, 2, **variant)
        found = group_sparse_code(data.to(device, dtype), dictionary.to(device, dtype), penalty, tol=1e-5)
    assert found.codes.dtype == dtype and found.codes.device.type == device
    torch.testing.assert_close(found.codes.cpu().double(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("group_size", [1, 2])
def test_defaults_are_met_in_both_precisions(group_size, rng, dtype, way):
    """Fails if the default asks float32 for more than it has, or a slow sample is given up far from rounding."""
    dictionary = torch.randn(12, 40, generator=rng, dtype=torch.float64)
    dictionary /= torch.linalg.vector_norm(dictionary, dim=0)
    data = torch.randn(300, 12, generator=rng, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = group_sparse_code(data.to(dtype), dictionary.to(dtype), 0.1, group_size)
    assert result.converged.all() and result.n_iter.max() < 5000


def test_certificates_are_computed_in_float64(rng):
    """Fails if a gap is rounded to float32, where it is negative for a quarter of the samples near the optimum."""
    dictionary, data = torch.randn(12, 40, generator=rng), torch.randn(300, 12, generator=rng)
    exact = group_sparse_code(data.double(), dictionary.double(), 0.1, 2, tol=1e-9)
    args = (data, dictionary, exact.codes.float(), 0.1, 2)
    gap, objective = duality_gap(*args), group_lasso_objective(*args)
    assert gap.dtype == objective.dtype == torch.float64 and (gap >= -1e-14 * objective).all()


def test_excess_is_measured_from_the_minimum(rng):
    """Fails if the objective is not divided by the minimum, or a better code has a larger excess."""
    dictionary = torch.randn(6, 10, generator=rng, dtype=torch.float64)
    data = torch.randn(8, 6, generator=rng, dtype=torch.float64)
    data[0] = 0
    best = group_sparse_code(data, dictionary, 0.5, 2, tol=1e-10)
    for scale in (1.0, 1.1, 2.0):
        found = excess_objective(data, dictionary, scale * best.codes, 0.5, 2, tol=1e-10)
        for y, x, p, e in zip(data, scale * best.codes, best.objective, found, strict=True):
            value = 0.5 * (y - dictionary @ x).square().sum() + 0.5 * x.unflatten(0, (-1, 2)).norm(dim=1).sum()
            assert e.item() == pytest.approx(0.0 if p == 0 else (value / p).item() - 1, abs=1e-8)
    assert excess_objective(data, dictionary, torch.ones(8, 10).double(), 0.5, 2)[0] == torch.inf
