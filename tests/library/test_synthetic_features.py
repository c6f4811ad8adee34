"""Planted features: what is drawn against what was asked for, counted sample by sample."""

import dataclasses

import numpy as np
import pytest
import torch

from gsae_lib.sae import synthetic_features, zipf_frequencies
from gsae_lib.subspaces import group_captures


@pytest.mark.parametrize("n_groups, n_active, exponent", [(1000, 10.0, 1.0), (50, 20.0, 2.0), (7, 2.0, 0.0)])
def test_frequencies_fall_like_zipf(n_groups, n_active, exponent):
    """Fails if the sum is another, the law has another exponent, or the cap is passed."""
    p = zipf_frequencies(n_groups, n_active, exponent=exponent).numpy()
    assert p.sum() == pytest.approx(n_active) and p.max() <= 0.5
    free = p < 0.5 - 1e-12
    constant = (p * np.arange(1, n_groups + 1) ** exponent)[free]
    np.testing.assert_allclose(constant, constant[0], rtol=1e-9)


@pytest.fixture(scope="module")
def planted():
    """60 groups in 12 features, 150 atoms."""
    rng = torch.Generator().manual_seed(3)
    features = synthetic_features(12, 60, n_active=6.0, children=0.4, generator=rng, dtype=torch.float64)
    return features, features.sample(20_000, generator=rng)


def test_groups_are_orthonormal_and_more_than_fit(planted):
    """Fails if a basis is not orthonormal, sizes are not shared out, or atoms are no more than features."""
    features, _ = planted
    assert sorted(features.group_sizes) == sorted([1, 2, 3, 4] * 15) and features.dictionary.shape == (12, 150)
    for group in features.groups:
        torch.testing.assert_close(group.T @ group, torch.eye(group.shape[1]).double())
    ranks = np.corrcoef(range(60), features.group_sizes)[0, 1]
    assert abs(ranks) < 0.4  # sizes do not follow frequencies


def test_each_group_is_active_as_often_as_told(planted):
    """Fails if a child's frequency is conditional, or a root's depends on another."""
    features, sample = planted
    p = features.frequencies
    assert ((sample.support.double().mean(dim=0) - p).abs() < 4.5 * (p * (1 - p) / 20_000).sqrt()).all()
    assert sample.support.sum(dim=1).double().mean() == pytest.approx(6, rel=0.02)


def test_children_are_active_with_their_parent_alone(planted):
    """Fails if a child is active without its parent, no group is one, or a child is a parent."""
    features, sample = planted
    children = [g for g in range(60) if features.parents[g] >= 0]
    assert len(children) == round(0.4 * 59)
    for g in children:
        parent = features.parents[g]
        assert features.parents[parent] == -1 and not (sample.support[:, g] & ~sample.support[:, parent]).any()


def test_data_are_the_sum_of_active_groups(planted):
    """Fails if a code is not in its group's place, its norm is outside the range, or a direction is favoured."""
    features, sample = planted
    starts = np.cumsum([0, *features.group_sizes])
    for i in range(30):
        y = np.zeros(12)
        for g in range(60):
            x = sample.codes[i, starts[g] : starts[g + 1]].numpy()
            assert (0.5 <= np.linalg.norm(x) <= 1.5) if sample.support[i, g] else not x.any()
            y += features.groups[g].numpy() @ x
        np.testing.assert_allclose(sample.data[i], y, atol=1e-12)
    first = next(g for g in range(60) if features.group_sizes[g] == 3)
    x = sample.codes[sample.support[:, first]][:, starts[first] : starts[first + 1]]
    unit = x / x.norm(dim=1, keepdim=True)
    assert (unit.T @ unit / len(unit) - torch.eye(3) / 3).abs().max() < 0.05


def test_noise_and_signs(planted):
    """Fails if noise has another level, or one-sided codes change groups of more dimensions."""
    features, _ = planted
    loud = dataclasses.replace(features, noise_std=0.3, one_sided=True)
    sample = loud.sample(5000, generator=torch.Generator().manual_seed(0))
    noise = sample.data - sample.codes @ features.dictionary.T
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    sizes = torch.tensor(features.group_sizes).repeat_interleave(torch.tensor(features.group_sizes))
    assert (sample.codes[:, sizes == 1] >= 0).all() and (sample.codes[:, sizes > 1] < 0).any()


def test_the_truth_captures_itself(planted):
    """Fails if a true group is not wholly in a learned one that contains it, or the shares are transposed."""
    features, _ = planted
    pairs = [g for g in range(60) if features.group_sizes[g] <= 2][:4]
    learned = torch.cat(
        [torch.linalg.qr(torch.cat([features.groups[g], torch.eye(12)[:, :1]], 1)).Q[:, :2] for g in pairs], 1
    )
    found = group_captures([features.groups[g] for g in pairs], learned, 2)
    assert found.shape == (4, 4)
    torch.testing.assert_close(found.diagonal(), torch.ones(4).double())
    assert (found.sum() - found.trace()) / 12 < 0.9
