"""Starts from data: k-subspaces against its own objective, every start orthonormal, errors that say what is missing."""

import itertools

import numpy as np
import pytest
import torch
from true_groups import assert_orthonormal, blocks_of

from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.groups import to_groups
from gsae_lib.learning import initial_dictionary, initialization, k_subspaces


def union_of_subspaces(rng, n_samples=300, dtype=torch.float64, **noise):
    """Data on 4 subspaces of dimension 3 in 12 dimensions."""
    truth = orthonormal_groups_dictionary(12, 4, 3, generator=rng, dtype=dtype)
    return GroupSparseSource.union_of_subspaces(truth, 3, **noise).sample(n_samples, generator=rng)


@pytest.mark.parametrize("method", ["random", "data", "k-means", "neighbors", "k-subspaces"])
def test_starts_are_orthonormal_and_reproducible(method, rng, dtype, device):
    """Fails if a start is not orthonormal in each group, draws from global state, or leaves device or dtype."""
    data = union_of_subspaces(rng, dtype=dtype).data.to(device)
    starts = [
        initial_dictionary(data, 5, 3, method, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert starts[0].shape == (12, 15) and starts[0].dtype == dtype and starts[0].device == data.device
    assert_orthonormal(starts[0], 3)
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_data_start_spans_different_samples(rng):
    """Fails if samples repeat or groups mix: with just enough samples each lies in exactly one group's span."""
    data = torch.randn(12, 9, generator=rng, dtype=torch.float64)
    a = initial_dictionary(data, 4, 3, "data", generator=rng)
    distances = np.array([[np.linalg.norm(y - b @ (b.T @ y)) for b in blocks_of(a, 3)] for y in data.numpy()])
    inside = distances < 1e-10
    assert inside.sum(axis=1).tolist() == [1] * 12 and inside.sum(axis=0).tolist() == [3] * 4


def test_kmeans_start_fits_a_cluster_with_each_group(rng):
    """Fails if a group spans samples of two clusters, or a cluster smaller than a group leaves it short of columns."""
    centres = 10 * torch.eye(12)[:3]
    tight = 0.1 * torch.randn(3, 8, 12, generator=rng)
    data = torch.cat([centres[0] + tight[0], centres[1] + tight[1], centres[2] + tight[2, :1]])
    a = initial_dictionary(data, 3, 2, "k-means", generator=rng)
    assert a.shape == (12, 6)
    captured = to_groups(centres @ a, 2).norm(dim=-1) / 10
    assert (captured.amax(dim=1) > 0.99).all()
    assert captured.argmax(dim=1)[:2].unique().numel() == 2


@pytest.mark.parametrize("group_size", [1, 2])
def test_neighbors_start_fits_pure_groups_and_spreads_out(group_size, rng):
    """Fails if neighbours are not by angle, so that orthogonal subspaces mix, or if centres repeat a line."""
    data = torch.zeros(60, 3 * group_size, dtype=torch.float64)
    for i in range(59):
        block = slice(i % 3 * group_size, (i % 3 + 1) * group_size)
        data[i, block] = torch.randn(group_size, generator=rng, dtype=torch.float64) * 10 ** (i % 4)
    for _ in range(10):
        a = initial_dictionary(data, 3, group_size, "neighbors", generator=rng)
        shares = a.square().reshape(3, group_size, 3, group_size).sum(dim=(1, 3))  # true subspace, group
        energies = shares.T.round(decimals=10).tolist()
        assert all(sorted(energy) == [0, 0, group_size] for energy in energies)
        if group_size == 1:
            assert sorted(energies) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


# k-subspaces


def test_k_subspaces_objective_never_rises(rng):
    """Fails if an iteration is not a descent step, or if labels or objective belong to another dictionary."""
    data = union_of_subspaces(rng, snr_db=3.0).data
    objectives = []
    for max_iter in range(1, 16):
        same_start = torch.Generator().manual_seed(3)
        fit = k_subspaces(data, 5, 2, max_iter=max_iter, tol=0.0, generator=same_start)
        assert fit.n_iter == max_iter and not fit.converged
        assert_orthonormal(fit.dictionary, 2, atol=1e-12)
        y = data.numpy()
        squared = np.stack([np.sum((y - y @ b @ b.T) ** 2, axis=1) for b in blocks_of(fit.dictionary, 2)], axis=1)
        assert fit.labels.tolist() == squared.argmin(axis=1).tolist()
        assert fit.objective == pytest.approx(squared.min(axis=1).mean(), rel=1e-12)
        objectives.append(fit.objective)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(objectives))
    assert objectives[-1] < 0.9 * objectives[0]


def test_k_subspaces_is_a_fixed_point_of_pca(rng):
    """Fails if the fit of a group is not its principal subspace: one group must give the truncated SVD."""
    data = torch.randn(200, 8, generator=rng, dtype=torch.float64) * torch.linspace(1, 8, 8, dtype=torch.float64)
    fit = k_subspaces(data, 1, 3, tol=1e-14, max_iter=200, generator=rng)
    singular = np.linalg.svd(data.numpy())[1]
    assert fit.objective == pytest.approx((singular[3:] ** 2).sum() / 200, rel=1e-9)


def test_k_subspaces_recovers_a_planted_union(rng, dtype, device):
    """Fails if subspaces mix: noise-free data are fitted exactly and every true label has one cluster."""
    draw = union_of_subspaces(rng, dtype=dtype)
    fit = k_subspaces(draw.data.to(device), 4, 3, n_init=5, generator=rng)
    assert 0 <= fit.objective <= 1e-4 and fit.converged
    assert len(set(zip(draw.labels.tolist(), fit.labels.tolist(), strict=True))) == 4


def test_k_subspaces_keeps_the_best_restart(rng):
    """Fails if the last or first run is returned: the best of the same runs made one by one is the result."""
    data = union_of_subspaces(rng, n_samples=100, snr_db=5.0).data
    generator = torch.Generator().manual_seed(1)
    runs = [k_subspaces(data, 4, 3, generator=generator) for _ in range(4)]
    best = min(runs, key=lambda run: run.objective)
    assert best is not runs[0] and best is not runs[-1]
    fit = k_subspaces(data, 4, 3, n_init=4, generator=torch.Generator().manual_seed(1))
    start = initial_dictionary(data, 4, 3, n_init=4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fit.dictionary, best.dictionary) and torch.equal(start, best.dictionary)
    assert torch.equal(fit.labels, best.labels) and fit.objective == best.objective


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_k_subspaces_with_more_groups_than_the_data_have(lines, rng):
    """Fails if an empty group gives nan or stays undefined: repeated samples, or zeros, leave groups without any."""
    directions = torch.randn(lines, 6, generator=rng, dtype=torch.float64)
    data = directions.repeat(20, 1) if lines else torch.zeros(20, 6, dtype=torch.float64)
    fit = k_subspaces(data, 5, 2, generator=rng)
    assert_orthonormal(fit.dictionary, 2, atol=1e-12)
    assert fit.objective == pytest.approx(0, abs=1e-12)


def test_an_empty_group_restarts_where_the_fit_is_worst(monkeypatch, rng):
    """Fails if a group without samples is kept, or restarts on a fitted sample: its start repeats another group."""
    lines = torch.eye(4, dtype=torch.float64)[:, [0, 1, 3]].T
    data = torch.cat([lines[0].repeat(40, 1), lines[1].repeat(40, 1), 0.1 * lines[2].repeat(3, 1)])
    start = lines[[0, 1, 0]].unsqueeze(-1)
    monkeypatch.setattr(initialization, "_spread_groups", lambda *arguments: start)
    fit = k_subspaces(data, 3, 1, generator=rng)
    assert fit.objective == 0.0 and fit.labels.unique().numel() == 3


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_k_subspaces_does_not_depend_on_the_unit(scale, rng):
    """Fails if the tolerance is absolute: data in another unit (a power of two, so no rounding) go the same way."""
    data = union_of_subspaces(rng, snr_db=5.0).data
    fit, scaled = (k_subspaces(c * data, 4, 3, generator=torch.Generator().manual_seed(1)) for c in (1.0, scale))
    assert scaled.n_iter == fit.n_iter > 3 and torch.equal(scaled.labels, fit.labels)
    assert scaled.objective == pytest.approx(scale**2 * fit.objective, rel=1e-12)


def test_k_subspaces_reports_an_objective_that_does_not_cancel(rng):
    """Fails if the objective is the difference of two large float32 sums: the oracle forms residuals in float64."""
    data = torch.randn(300, 10, generator=rng) + 1000
    found = k_subspaces(data, 3, 2, generator=rng)
    groups = found.dictionary.double().unflatten(1, (3, 2)).movedim(1, 0)[found.labels]  # (samples, features, 2)
    inside = torch.einsum("ind,imd,im->in", groups, groups, data.double())
    assert found.objective == pytest.approx((data.double() - inside).square().sum(dim=1).mean().item(), rel=1e-2)


def test_k_subspaces_adds_up_its_blocks(dtype, monkeypatch):
    """Fails if a block of samples is dropped or counted twice: small blocks, the last one short, against one."""
    data = torch.randn(430, 12, generator=torch.Generator().manual_seed(0), dtype=dtype) * torch.arange(1, 13)
    found = []
    for block in (1000, 100):
        monkeypatch.setattr("gsae_lib.learning.initialization.BLOCK", block)
        rng = torch.Generator().manual_seed(0)
        found.append(k_subspaces(data, 4, 2, max_iter=4, generator=rng))
    whole, blocks = found
    assert whole.labels.equal(blocks.labels)
    torch.testing.assert_close(blocks.dictionary, whole.dictionary, atol=1e-4, rtol=0)
    assert blocks.objective == pytest.approx(whole.objective, rel=1e-5)
