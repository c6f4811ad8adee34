"""Controls of chapter 18: shuffling keeps single atoms as they are, and a run gives its four rows."""

import dataclasses

import pytest
import torch

from experiments.language_controls import run_controls, shuffle_featurizer
from experiments.language_features import FeatureSettings, run_features
from gsae_lib import GroupSparseFeaturizer

SMALL = FeatureSettings("embedded", n_tokens=1000, n_held_out=300)


@pytest.mark.parametrize("activation", ["group ReLU", "group top-k", "batch top-k", "group JumpReLU"])
@pytest.mark.parametrize("tied", [False, True])
def test_single_atoms_are_the_same_in_any_order(activation, tied, rng):
    """Fails if an encoder, a bias or a threshold stays behind, or the model itself changes."""
    for d in (1, 2):
        model = GroupSparseFeaturizer(12, 24 // d, d, activation=activation, n_active=4 // d, tied=tied, generator=rng)
        data = torch.randn(60, 12, generator=rng)
        model.prepare(data)
        with torch.no_grad():
            model.encoder_bias.normal_(generator=rng)
            before = model(data)[0]
            shuffled = shuffle_featurizer(model, generator=rng)(data)[0]
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
