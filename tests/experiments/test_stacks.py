"""Tests of experiments.layers.stacks: linked groups, what a layer on codes comes to, and what norms cannot tell."""

import dataclasses
import math

import pytest
import torch

from experiments.convergence.gradients import turned
from experiments.layers.layers import HardAutoencoder
from experiments.layers.stacks import (
    StackSettings,
    in_frames,
    linked_dictionary,
    make_source,
    run_stacks,
    upper_truth,
)
from gsae_lib.dictionary import as_groups
from gsae_lib.groups import active_groups
from gsae_lib.metrics import principal_angles
from gsae_lib.training import TrainingSettings, train

SMALL = StackSettings(n_samples=300, n_test=400)


def test_linked_groups():
    """Fails if a top group is not a copy in three groups, twins are not orthogonal, or others share two groups."""
    groups = as_groups(linked_dictionary(12, 2, dtype=torch.float64), 2)
    assert groups.shape == (24, 24, 2)
    norms = (groups @ torch.tensor([0.6, -0.8], dtype=torch.float64)).unflatten(1, (12, 2)).norm(dim=2)
    for row in norms:
        assert sorted(row.tolist()) == pytest.approx([0] * 9 + [1 / 3**0.5] * 3)
    used = (norms > 0.1).int()
    shared = (used @ used.T).fill_diagonal_(0)
    twins = torch.arange(24) ^ 1
    assert (shared[torch.arange(24), twins] == 3).all()
    assert (groups.mT @ groups[twins]).abs().max() < 1e-12
    shared[torch.arange(24), twins] = 0
    assert shared.max() <= 1


def test_a_layer_on_codes_is_exact_about_what_it_is_given(rng):
    r"""Fails if, at rest, layer 2 is not P_S W1^T A1 A2 exactly, without noise; and its angle beyond the bound."""
    source = make_source(dataclasses.replace(SMALL, data="linked", snr_db=None), generator=rng)
    (lowest, top), theta = source.dictionaries, math.radians(5)
    data = source.sample(300, generator=rng).data
    weight = turned(lowest, 2, theta, generator=rng)
    codes = HardAutoencoder(60, 12, 2, 1.2, step_size=1.0, dictionary=weight).encode(data).detach()
    truth = in_frames(top, weight, lowest)
    upper = HardAutoencoder(24, 12, 2, 2.0, step_size=1.0, dictionary=turned(truth, 2, theta, generator=rng))
    train(upper, codes, TrainingSettings(50, 0.5, optimizer="sgd", normalize="groups", progress=False), generator=rng)
    seen = weight.T @ lowest @ top
    kept = active_groups(top.T, 2).reshape(12, 2, 12).any(dim=1)  # (top groups, lower groups)
    seen = seen * kept.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1).T
    assert principal_angles(upper.weight.detach(), seen, 2).max() < 1e-3
    off = principal_angles(upper.weight.detach(), truth, 2).max()
    assert theta / 4 < off and off.sin() < 1 - math.cos(theta) + 2**0.5 * math.sin(theta)


def test_norms_forget_the_turns():
    """Fails if a layer on norms tells twins apart, or a layer on codes does not."""
    by_norms, by_codes = (
        run_stacks(dataclasses.replace(SMALL, data="twins", network=network), seed=0) for network in ("norms", "codes")
    )
    assert 0.45 < by_norms.named <= 0.5 and by_codes.named > 0.95
    assert by_norms.lower_angle == pytest.approx(by_codes.lower_angle, abs=1e-3)


def test_both_find_families_and_links():
    """Fails if families, or links with different groups, are not named by both, or families are not found exactly."""
    for network in ("norms", "codes"):
        families = run_stacks(dataclasses.replace(SMALL, network=network), seed=0)
        assert families.named == 1 and families.upper_angle < 0.1 < families.lower_angle
        links = run_stacks(dataclasses.replace(SMALL, data="linked", network=network), seed=0)
        assert links.named > 0.99
    assert links.upper_angle > 0.3


def test_together_and_alone():
    """Fails if the joint network or the single layer does not run, or misses the families near which it starts."""
    together = run_stacks(dataclasses.replace(SMALL, network="codes, together", epochs=5, n_samples=100), seed=0)
    assert together.named > 0.9 and 0 < together.lower_angle < 20 and together.data_angle > 0
    alone = run_stacks(dataclasses.replace(SMALL, network="one layer"), seed=0)
    assert alone.named == 1 and math.isnan(alone.lower_angle) and alone.data_angle < 10


def test_what_norms_have_to_find(rng):
    """Fails if linked groups are not directions of equal norms to a layer on norms."""
    source = make_source(dataclasses.replace(SMALL, data="twins"), generator=rng)
    truth, size = upper_truth(source, "norms")
    assert truth.shape == (12, 12) and size == 1
    norms = source.sample(50, generator=rng)
    expected = torch.linalg.vector_norm(norms.codes[0].unflatten(1, (12, 2)), dim=2)
    found = truth.T[norms.supports[1].float().argmax(dim=1) // 2]
    torch.testing.assert_close(expected / expected.norm(dim=1, keepdim=True), found)
    assert truth[:, 0].nonzero().flatten().tolist() == [0, 1, 3]
