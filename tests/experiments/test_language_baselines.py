"""Baselines of chapter 18 on data whose subspaces are known, and each of them run at a small size."""

import math

import numpy as np
import pytest
import torch

from experiments.language.baselines import (
    METHODS,
    BaselineSettings,
    Subspaces,
    cluster_atoms,
    cluster_subspaces,
    fit_subspaces,
    order_by_chance,
    run_baseline,
    score_subspaces,
    shuffle_atoms,
)
from experiments.language.features import TokenData
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.sae import synthetic_features
from gsae_lib.subspaces import match_subspaces, subspace_overlaps

SMALL = {"data": "embedded", "n_tokens": 1200, "n_held_out": 200}
KEYS = {"unexplained", "active_dimensions", "overlap", "overlap_shuffled", "months_captured", "months_shuffled"}
KEYS |= {"days_random", "months_in_order_permuted", "n_subspaces", "training_seed"}


def fans(rng, n_planes=4, n_atoms=6):
    """Atoms that fan out over a right angle in each of some orthogonal planes, in random order, and the planes."""
    planes = torch.linalg.qr(torch.randn(30, 2 * n_planes, generator=rng)).Q
    angles = torch.linspace(0, math.pi / 2, n_atoms)
    fan = torch.stack([angles.cos(), angles.sin()])
    atoms = torch.cat([planes[:, 2 * k : 2 * k + 2] @ fan for k in range(n_planes)], dim=1)
    labels = torch.arange(n_planes).repeat_interleave(n_atoms)
    order = torch.randperm(len(labels), generator=rng)
    return atoms[:, order], labels[order], planes


def test_atoms_of_a_plane_are_one_cluster_and_give_it_back(rng):
    """Fails if clusters are of other atoms than those that lie together, or a subspace is not what they rebuild."""
    atoms, labels, planes = fans(rng)
    found = cluster_atoms(atoms, 4, random_state=0)
    for k in range(4):
        assert len(found[labels == k].unique()) == 1
    codes = torch.rand(200, atoms.shape[1], generator=rng)
    codes *= torch.rand(200, atoms.shape[1], generator=rng) < 0.2
    spans = cluster_subspaces(atoms, codes, found, 2)
    assert match_subspaces(spans, planes, 2).overlap.min() > 1 - 1e-5
    mixed = cluster_subspaces(atoms, codes, labels[torch.randperm(24, generator=rng)], 2)
    assert match_subspaces(mixed, planes, 2).overlap.mean() < 0.9


def test_a_cluster_that_rebuilds_less_has_no_subspace(rng):
    """Fails if clusters of too few atoms, or of atoms that are never active, count as subspaces."""
    atoms, labels, _ = fans(rng, n_planes=3)
    codes = torch.rand(50, atoms.shape[1], generator=rng)
    codes[:, labels == 1] = 0
    assert cluster_subspaces(atoms, codes, labels, 2).shape == (30, 4)
    with pytest.raises(ValueError, match="group_size=7: expected a cluster of at least so many atoms"):
        cluster_subspaces(atoms, codes, labels, 7)


def on_subspaces(rng, n_groups, d, n_samples=3000):
    """Tokens near a union of subspaces, off the origin."""
    basis = orthonormal_groups_dictionary(24, n_groups, d, generator=rng)
    which = torch.randint(n_groups, (n_samples,), generator=rng)
    codes = torch.randn(n_samples, n_groups, d, generator=rng)
    codes *= torch.nn.functional.one_hot(which, n_groups).unsqueeze(2)
    data = 1 + codes.flatten(1) @ basis.T
    return basis, TokenData(data[:-500].numpy().astype(np.float16), data[-500:])


def test_k_subspaces_find_a_union_and_leave_nothing(rng):
    """Fails if the mean stays in, the nearest subspace is not the one that is used, or the share is of another sum."""
    _, tokens = on_subspaces(rng, 4, 12)
    found = fit_subspaces(BaselineSettings("embedded", "k-subspaces", 12), tokens, seed=0)
    assert found.dictionary.shape == (24, 48) and found.active_dimensions == 12
    assert found.unexplained < 0.02
    one = TokenData(tokens.train, tokens.held_out)
    whole = fit_subspaces(BaselineSettings("embedded", "k-subspaces", 24), one, seed=0)
    assert whole.unexplained == pytest.approx(0, abs=1e-4)


def test_components_are_those_of_the_states(rng):
    """Fails if components are not about the mean, out of order, or what they leave is of other states."""
    scales = torch.linspace(3, 0.1, 40)
    data = 2 + torch.randn(2500, 40, generator=rng) * scales
    tokens = TokenData(data[:2000].numpy().astype(np.float16), data[2000:])
    found = fit_subspaces(BaselineSettings("embedded", "principal components", 3), tokens, seed=0)
    assert found.dictionary.shape == (40, 39)
    assert subspace_overlaps(found.dictionary[:, :3], torch.eye(40)[:, :3], 3).item() > 0.8
    expected = scales[32:].square().sum() / scales.square().sum()
    assert found.unexplained == pytest.approx(expected.item(), rel=0.25)


def test_the_score_knows_a_group_that_holds_the_months(rng):
    """Fails if the group that holds most is not the one that is scored, or a control is scored in its place."""
    from experiments.language.features import load_names

    points = load_names("months").mean(dim=1)
    plane = torch.linalg.svd(points - points.mean(dim=0), full_matrices=False).Vh[:2].T
    others = orthonormal_groups_dictionary(576, 5, 2, generator=rng)
    spans = torch.cat([others, plane], dim=1)
    found = Subspaces(spans, shuffle_atoms(spans, 2, rng), 0.5, 32)
    tokens = TokenData(np.zeros((1, 576), dtype=np.float16), torch.zeros(1, 576))
    row = score_subspaces(found, 2, tokens, rng)
    assert row["months_captured"] == pytest.approx(1, abs=1e-5)
    assert row["months_in_order"] == 12 and row["months_in_order_permuted"] <= 6
    assert max(row["months_random"], row["days_random"]) < 0.2
    assert row["months_shuffled"] < 0.9
    assert order_by_chance(points, spans, 2, rng) <= 6


def test_planted_groups_are_scored_too(rng):
    """Fails if planted groups are scored by names, or a true dictionary is not found."""
    truth = synthetic_features(40, 10, n_active=2.0, sizes=(2,), generator=rng)
    spans = torch.cat(truth.groups, dim=1)
    tokens = TokenData(np.zeros((1, 40), dtype=np.float16), torch.zeros(1, 40), truth)
    row = score_subspaces(Subspaces(spans, shuffle_atoms(spans, 2, rng), 0.0, 2), 2, tokens, rng)
    assert row["found"] == 1 and row["found_random"] == 0 and row["found_shuffled"] < 0.5


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_repeats(method):
    """Fails if a method stops, a seed gives another run, or the first seed does not match itself."""
    rows = run_baseline(BaselineSettings(method=method, **SMALL), n_seeds=2)
    assert KEYS <= rows[0].keys() and [row["training_seed"] for row in rows] == [0, 1]
    assert rows[0]["overlap"] == pytest.approx(1, abs=1e-4)
    assert all(0 < row["unexplained"] < 1.2 for row in rows)
    again = run_baseline(BaselineSettings(method=method, **SMALL), n_seeds=1)[0]
    assert {k: v for k, v in again.items() if "seconds" not in k} == {
        k: v for k, v in rows[0].items() if "seconds" not in k
    }
