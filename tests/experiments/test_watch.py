"""What is watched of a training, and of pairs of samples."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.convergence.callbacks import FOUND, watch_pairs, watch_training
from experiments.recovery.recovery import SMALL
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary

TINY = dataclasses.replace(SMALL, n_features=60, n_groups=12, snr_db=20.0, n_samples=300, epochs=60, learning_rate=0.01)


def test_a_training_is_watched_from_its_start_to_its_end():
    """Fails if the first picture is not of the start, groups do not turn to the truth, or kinds are mixed up."""
    watched = watch_training(TINY, n_pictures=4, seed=0)
    assert watched.names == ("0", "20", "40", "60") and len(watched.notes) == 4
    assert all(points.shape == (12, 3) for points in watched.points)
    first, last = watched.points[0], watched.points[-1]
    # Unit columns with a mean correlation of 0.555 are 56 degrees from the true ones.
    assert 30 < first[:, 0].mean() < 65 and last[:, 0].max() < FOUND
    assert watched.notes[0].startswith("Epoch 0: 0 of 12") and watched.notes[-1].startswith("Epoch 60: 12 of 12")
    for points in watched.points:
        np.testing.assert_array_equal(points[:, 2] == 0, points[:, 0] < FOUND)
        assert (points[:, 1] >= 0).all() and (points[:, 1] <= 1).all()


def test_other_trainings_are_refused():
    with pytest.raises(ValueError, match="expected group-sparse and near, got biased ReLU and near"):
        watch_training(dataclasses.replace(TINY, network="biased ReLU"), seed=0)


def test_pairs_share_one_group_or_none():
    """Fails if kinds, products or counts are of other samples than those of the pair."""
    rng = torch.Generator().manual_seed(0)
    truth = gaussian_dictionary(80, 20, 2, generator=rng)
    sample = GroupSparseSource(truth, 2, 3, snr_db=20.0).sample(300, generator=rng)
    watched = watch_pairs(sample, n_pairs=4, n_shown=1000, n_largest=10)
    for k, (name, points, note) in enumerate(zip(watched.names, watched.points, watched.notes, strict=True)):
        partner = int(name.removeprefix("0 and "))
        shared = set(sample.support[0].nonzero().flatten().tolist()) & set(
            sample.support[partner].nonzero().flatten().tolist()
        )
        assert len(shared) == (0 if k == 3 else 1) and len(points) == 298
        has = {i for i in range(1, 300) if i != partner and any(sample.support[i, g] for g in shared)}
        assert (points[:, 2] == 3).sum() == len(has)
        products = {i: abs(float(sample.data[i] @ sample.data[0])) for i in range(300)}
        seconds = {i: abs(float(sample.data[i] @ sample.data[partner])) for i in range(300)}
        order = sorted((i for i in range(1, 300) if i != partner), key=lambda i: -products[i] * seconds[i])
        right = len(has & set(order[:10]))
        assert (f"{right} have it" in note) == (k != 3) and ("share no group" in note) == (k == 3)
    sample = dataclasses.replace(sample, support=torch.ones_like(sample.support))
    with pytest.raises(ValueError, match="expected samples that share one group"):
        watch_pairs(sample)
