"""Controls of chapter 18: shuffling keeps single atoms as they are, a run gives its rows, a planted circle is found."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from experiments.language.controls import (
    circle_radius,
    draw_circle,
    plant_points,
    run_circle,
    run_controls,
    shuffle_sae,
)
from experiments.language.features import ARCHITECTURES, FeatureSettings, TokenData, load_tokens, run_features

SMALL = FeatureSettings("embedded", n_tokens=1000, n_held_out=300)


@pytest.mark.parametrize("activation", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_single_atoms_are_the_same_in_any_order(activation, tied, rng):
    """Fails if an encoder, a bias or a threshold stays behind, or the model itself changes."""
    for d in (1, 2):
        model = ARCHITECTURES[activation](12, 24 // d, d, n_active=4 // d, tied=tied, generator=rng)
        data = torch.randn(60, 12, generator=rng)
        model.prepare(data)
        with torch.no_grad():
            model.encoder_bias.normal_(generator=rng)
            before = model(data)[0]
            shuffled = shuffle_sae(model, generator=rng)(data)[0]
            torch.testing.assert_close(model(data)[0], before)
            assert torch.allclose(shuffled, before, atol=1e-4) == (d == 1)


def test_a_run_has_its_controls():
    """Fails if a control is trained with other settings, or the row of the trained one is not that of the grid."""
    rows = {row["control"]: row for row in run_controls(SMALL)}
    assert list(rows) == ["trained", "no revival", "shuffled", "random"]
    assert rows["trained"]["unexplained"] == run_features(SMALL)[0]["unexplained"]
    without = run_features(dataclasses.replace(SMALL, revival=0.0))[0]
    assert rows["no revival"]["unexplained"] == without["unexplained"]
    assert rows["random"]["unexplained"] > rows["trained"]["unexplained"]
    assert {"months_captured", "days_in_order_permuted", "dead_groups"} <= rows["shuffled"].keys()


def test_a_circle_is_planted_where_it_is_said(rng):
    """Fails if the radius is another, states without a point move, or more or fewer have one than asked for."""
    points = draw_circle(30, 5.0, generator=rng)
    assert circle_radius(points + 3) == pytest.approx(5, rel=1e-5)
    assert torch.linalg.vector_norm(points, dim=1).numpy() == pytest.approx(5, rel=1e-5)
    assert torch.linalg.vector_norm(points[1] - points[0]).item() == pytest.approx(
        10 * math.sin(math.pi / 12), rel=1e-5
    )
    tokens = TokenData(np.ones((4000, 30), dtype=np.float16), torch.ones(4000, 30))
    planted = plant_points(tokens, points, 0.1, generator=rng)
    for rows, before in ((planted.held_out, tokens.held_out), (torch.from_numpy(planted.train), torch.ones(4000, 30))):
        moved = rows.float() - before
        there = moved.abs().sum(dim=1) > 0
        assert there.double().mean().item() == pytest.approx(0.1, abs=0.03)
        nearest = torch.cdist(moved[there], points).min(dim=1)
        assert nearest.values.max() < 0.02 and len(nearest.indices.unique()) == 12
    assert (tokens.train == 1).all() and bool((tokens.held_out == 1).all())


def test_a_large_circle_is_found():
    """Fails if the score misses a circle that most of the variance is in, or sees one in random atoms."""
    often = dataclasses.replace(SMALL, group_size=1, batch_size=100, epochs=20)
    row = run_circle(often, frequency=0.5, size=2.0, n_seeds=1)[0]  # .93, and .03 by chance
    assert row["captured"] > 0.6 and row["random"] < 0.1
    tokens = load_tokens(SMALL.data, SMALL.n_tokens, SMALL.n_held_out)
    with pytest.raises(ValueError, match=r"frequency=0.0: expected a finite number > 0.0 and <= 1.0"):
        plant_points(tokens, torch.ones(1, 576), 0.0, generator=torch.Generator())
