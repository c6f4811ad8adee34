"""The runs of chapter 18: data, scores on dictionaries whose scores are known, and the plan."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from experiments.language import features as language_features
from experiments.language.features import (
    FeatureSettings,
    captured_by_several,
    circle_scores,
    in_order,
    load_names,
    load_tokens,
    run_features,
    run_seeds,
    train_features,
    usual,
)
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.sae import BatchTopKSAE
from gsae_lib.subspaces import largest_capture

SMALL = FeatureSettings("embedded", n_tokens=1000, n_held_out=300)


def circle(n_points, n_features, rng):
    """Points on a circle in a random plane, off the origin, and the plane."""
    plane = orthonormal_groups_dictionary(n_features, 1, 2, generator=rng)
    angles = 2 * math.pi * torch.arange(n_points) / n_points
    return 3 + torch.stack([angles.cos(), angles.sin()], dim=1) @ plane.T, plane


def test_a_circle_in_a_group_is_seen(rng):
    """Fails if a group that holds the circle does not have all of it, in order, in the first harmonic."""
    points, plane = circle(12, 20, rng)
    others = orthonormal_groups_dictionary(20, 9, 2, generator=rng)
    model = BatchTopKSAE(20, 10, 2, n_active=10, dictionary=torch.cat([others, plane], dim=1))
    model.prepare(points)
    found = circle_scores(model, points.unsqueeze(1).repeat(1, 3, 1), rng)
    assert found["captured"] == pytest.approx(1, abs=1e-5)
    assert found["harmonic"] == pytest.approx(1, abs=1e-5)
    assert found["harmonic_permuted"] < 0.6
    assert found["in_order"] == 12
    assert found["used"] == 1


def test_order_is_that_of_the_cycle(rng):
    """Fails if a permuted circle counts as ordered, or one that runs the other way does not."""
    points, _ = circle(7, 5, rng)
    centred = points - points.mean(dim=0)
    assert in_order(centred) == in_order(centred.flip(0)) == in_order(centred.roll(3, 0)) == 7
    assert in_order(centred[torch.tensor([0, 2, 4, 6, 1, 3, 5])]) == 0


def test_several_groups_hold_what_their_span_does(rng):
    """Fails if groups that overlap are counted twice, or what was chosen is chosen again."""
    points = torch.randn(12, 30, generator=rng)
    leading = torch.linalg.svd(points - points.mean(dim=0), full_matrices=False).Vh[:8].T
    turned = leading @ torch.linalg.qr(torch.randn(8, 8, generator=rng)).Q
    assert captured_by_several(points, turned, 2) == pytest.approx(1, abs=1e-5)
    doubled = torch.cat([turned[:, :2]] * 4, dim=1)
    alone = captured_by_several(points, doubled, 2)
    inside = (points - points.mean(dim=0)) @ turned[:, :2]
    share = (inside.square().sum() / (points - points.mean(dim=0)).square().sum()).item()
    assert alone <= share / largest_capture(points, 2) + 1e-5


def test_states_of_unusual_norm_are_left_out():
    """Fails if the rule is another than three times the median."""
    states = np.full((60, 4), 1.0, dtype=np.float16)
    states[7], states[9] = 3.1, 2.9
    assert usual(states).tolist() == [k != 7 for k in range(60)]
    kept = load_tokens("embedded", 1000, 300)
    assert len(kept.train) == 1000 and kept.held_out.shape == (300, 576)
    assert load_names("months").shape == (12, 8, 576) and load_names("days").shape == (7, 8, 576)


def test_missing_states_and_too_few_are_one_line(tmp_path, monkeypatch):
    """Fails if training starts without its data, or the message does not say what brings them."""
    monkeypatch.setattr(language_features, "cache_folder", lambda: tmp_path)
    load_tokens.cache_clear()
    with pytest.raises(FileNotFoundError, match="gsae data smollm2 --layer 6 --tokens 200000"):
        run_features(FeatureSettings())
    with pytest.raises(ValueError, match="n_tokens=10000, n_held_out=300: expected at most"):
        run_features(dataclasses.replace(SMALL, n_tokens=10_000))


def test_a_true_dictionary_is_found(monkeypatch):
    """Fails if the planted groups are not counted as found where the dictionary is the true one."""
    tokens = load_tokens("planted", 1000, 500)
    pairs = [group for group in tokens.truth.groups if group.shape[1] == 2]
    model = BatchTopKSAE(576, len(pairs), 2, n_active=3, dictionary=torch.cat(pairs, dim=1))
    model.prepare(tokens.train)
    row = language_features._recovery(model, tokens)
    assert row["share_of_2"] == pytest.approx(1, abs=1e-5)
    assert row["found"] >= len(pairs) / 460
    assert max(row["share_of_1"], row["share_of_3"], row["share_of_4"]) < 0.5


def test_runs_give_one_row_a_seed():
    """Fails if a run stops, a seed gives another run, or the first seed does not match itself."""
    rows = run_seeds(SMALL, n_seeds=2)
    assert [row["training_seed"] for row in rows] == [0, 1]
    assert rows[0]["overlap"] == pytest.approx(1, abs=1e-5)
    assert rows[1]["overlap"] < 0.5
    single = run_features(SMALL, seed=1)[0]
    assert single["unexplained"] == rows[1]["unexplained"]
    assert {"months_captured", "days_random", "pursued", "excess", "gain"} <= single.keys()


def test_more_passes_leave_less():
    """Fails if passes are not made: ten leave far less than one of data that are seen again."""
    once, ten = (run_features(dataclasses.replace(SMALL, epochs=k))[0]["unexplained"] for k in (1, 10))
    assert ten < 0.95 * once


def test_single_atoms_with_fewer_active_and_with_signs():
    """Fails if a token does not use as many dimensions as asked for, or codes are negative where they may not be."""
    tokens = load_tokens(SMALL.data, SMALL.n_tokens, SMALL.n_held_out)
    for signed in (False, True):
        few = dataclasses.replace(SMALL, group_size=1, active_dimensions=8, signed=signed)
        model = train_features(few, tokens, seed=0)
        codes = model.encode(torch.from_numpy(tokens.train.astype(np.float32)))
        assert (codes != 0).sum().item() / len(codes) == pytest.approx(8, rel=0.01)
        assert bool((codes < 0).any()) == signed
