"""Tests of experiments.layers.layers: the source, the starts, and small runs in which the upper layer is exact."""

import dataclasses
import math

import pytest
import torch

from experiments.convergence.gradients import turned
from experiments.layers.layers import (
    LayerSettings,
    make_source,
    run_layers,
    run_map_point,
    window_angle,
)
from gsae_lib.dictionary import as_groups
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.metrics import principal_angles
from gsae_lib.networks import sibling_dictionary

TINY = LayerSettings(n_top=2, n_features=30, n_samples=400, n_test=300, epochs=60)


def test_sizes_of_layers(rng):
    """Fails if a layer does not have a group for each child of the next, or the noise or coherence is lost."""
    source = make_source(dataclasses.replace(TINY, n_layers=3, n_features=60, overlap=0.1), generator=rng)
    # Two families of three with one more shared block: nine groups, then nine families: thirty, and the lowest atoms.
    assert source.n_groups == (30, 9, 2) and source.group_sizes == (2, 3, 3)
    assert source.snr_db == 20.0
    lowest = as_groups(make_source(dataclasses.replace(TINY, coherence=0.2), generator=rng).dictionaries[0], 2)
    assert torch.linalg.matrix_norm(lowest[0].T @ lowest[1], ord=2).item() == pytest.approx(0.2, abs=1e-5)


def test_starts_have_the_angle_where_there_is_room(rng):
    """Fails if a start is nearer or farther than said, or a group of coordinates in a narrow space breaks it."""
    truth = orthonormal_groups_dictionary(20, 5, 3, generator=rng)
    angles = principal_angles(turned(truth, 3, 0.3, generator=rng), truth, 3)
    torch.testing.assert_close(angles, torch.full((5, 3), 0.3), rtol=1e-4, atol=1e-4)
    narrow = sibling_dictionary(2, 3)[:, :6]
    assert principal_angles(turned(narrow, 3, 0.3, generator=rng), narrow, 3).max().item() == pytest.approx(0.3, 1e-3)
    single = torch.eye(3)
    assert principal_angles(turned(single, 3, 0.3, generator=rng), single, 3).max().item() < 1e-3  # no room at all


@pytest.mark.parametrize("passed", ["shrunk", "restored", "kept"])
def test_upper_layer_is_exact_and_the_lower_one_is_not(passed):
    """Fails if families are not found to a thousandth of a degree, while noise keeps the lowest layer off its spans."""
    lower, upper = run_layers(dataclasses.replace(TINY, passed=passed), seed=0)
    assert lower.layer == 1 and lower.found == 1 and lower.exact > 0.99 and lower.largest_angle > 0.5
    assert upper.layer == 2 and upper.found == 1 and upper.exact > 0.99
    assert upper.largest_angle < 0.05 and upper.predicted_angle == 0
    assert math.isnan(lower.predicted_angle)
    proved = math.degrees(math.atan(4 / ((2**0.5 + 1) * 5)))  # for norms in [4, 5]; those of the samples are inside
    assert proved <= lower.window_angle < 1.003 * proved


def test_windows_are_those_of_the_norms_that_a_layer_has():
    """Fails if the norms of the top layer are taken for those below it, or a window is told where none is proved.

    Norms at the top are in [4, 5]; two children share one by their squares, so that in three layers those of the lowest
    one have a ratio of up to 25 / 16.
    """
    deep = dataclasses.replace(TINY, n_layers=3, n_features=120, epochs=2)
    lowest = run_layers(deep, seed=0)[0]
    expected = math.degrees(math.atan(16 / 25 / (2 + 3**0.5)))
    assert expected - 0.01 <= lowest.window_angle < expected + 0.8
    assert math.isnan(run_layers(dataclasses.replace(TINY, coherence=0.1, epochs=2), seed=0)[0].window_angle)
    assert window_angle(torch.eye(4), torch.tensor([0.0, 4.0]), 2) == 0  # what shrinking thrice leaves can be nothing


def test_false_alarms_below_are_what_turns_the_upper_layer():
    """Fails if at 0 dB the upper angle is not near its prediction from the false alarms of the lower layer."""
    lower, upper = run_map_point("noise", LayerSettings(snr_db=0.0, epochs=120, n_samples=3000), seed=0)
    assert lower.exact < 0.5
    assert upper.largest_angle == pytest.approx(upper.predicted_angle, rel=0.35)


def test_training_together_and_a_failure(monkeypatch):
    """Fails if training together does not run, or training that ends with an error is not counted as nothing found."""
    runs = run_layers(dataclasses.replace(TINY, training="together", epochs=10), seed=1)
    assert [run.layer for run in runs] == [1, 2] and runs[0].start_angle == pytest.approx(10, abs=0.01)
    failed = run_layers(dataclasses.replace(TINY, step=1e9, epochs=3, snr_db=None), seed=0)
    assert len(failed) == 2
