"""Scores of sparse autoencoders against numpy on all data at once, and description lengths against entropies."""

import math

import numpy as np
import pytest
import torch

from gsae_lib.generative import GroupSparseSource, gaussian_dictionary
from gsae_lib.sae import GroupJumpReLUSAE, description_length, score_sae


@pytest.fixture
def fitted(rng):
    """A sparse autoencoder off the origin, and data."""
    source = GroupSparseSource(gaussian_dictionary(12, 8, 2, generator=rng), 2, 2, snr_db=10.0)
    data = 100 + 5 * source.sample(700, generator=rng).data
    model = GroupJumpReLUSAE(12, 8, 2, n_active=2, generator=rng)
    model.prepare(data)
    with torch.no_grad():
        model.log_threshold[3] = 50.0  # dead
    return model, data


@pytest.mark.parametrize("block", [64, 5000])
@pytest.mark.parametrize("mapped", [False, True])
def test_scores_are_those_of_all_data_at_once(block, mapped, fitted, tmp_path):
    """Fails if blocks are averaged with equal weight, the variance is not about the mean, or atoms are counted."""
    model, data = fitted
    np.save(tmp_path / "data.npy", data.numpy())
    given = np.load(tmp_path / "data.npy", mmap_mode="r") if mapped else data
    found = score_sae(model, given, block=block)
    with torch.no_grad():
        rebuilt, codes = (x.double().numpy() for x in model(data))
    y, active = data.double().numpy(), (codes.reshape(700, 8, 2) != 0).any(axis=2)
    unexplained = ((y - rebuilt) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    assert found.unexplained == pytest.approx(unexplained, rel=1e-4)
    assert found.active_groups == pytest.approx(active.sum() / 700) and found.dead_groups == 1 / 8
    assert found.active_dimensions == pytest.approx((codes != 0).sum() / 700)
    bits = description_length(
        torch.from_numpy(codes) * model.scale.item(),
        model.weight.detach().double(),
        2,
        ((y - rebuilt) ** 2).sum() / y.size,
    )
    assert found.bits == pytest.approx(bits, rel=1e-4)
    finer = score_sae(model, given, block=block, distortion=unexplained / 10)
    assert finer.bits > found.bits + 1 and finer.unexplained == found.unexplained


def test_description_length_of_known_codes(rng):
    """Fails if entropy or rate is in nats, per group in place of per sample, or a covariance not about the mean."""
    codes = torch.zeros(40_000, 4, dtype=torch.float64)
    codes[::4, 0] = 7 + 3 * torch.randn(10_000, generator=rng, dtype=torch.float64)
    codes[:, 2] = 1.0
    dictionary = torch.zeros(5, 4, dtype=torch.float64)
    dictionary[0, 0] = dictionary[1, 2] = 2.0
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    expected = entropy + 0.25 * 0.5 * math.log2(1 + 36 / 0.5)
    assert description_length(codes, dictionary, 1, 0.5) == pytest.approx(expected, rel=0.01)


def test_description_length_is_blind_to_coordinates_within_a_group(rng):
    """Fails if another basis of a group costs other bits."""
    codes = torch.randn(500, 6, generator=rng, dtype=torch.float64) * (torch.rand(500, 1, generator=rng) < 0.5)
    dictionary = torch.randn(7, 6, generator=rng, dtype=torch.float64)
    change = torch.block_diag(*(torch.randn(3, 3, generator=rng, dtype=torch.float64) for _ in range(2)))
    one = description_length(codes, dictionary, 3, 0.1)
    other = description_length(codes @ torch.linalg.inv(change).T, dictionary @ change, 3, 0.1)
    assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
def test_rejects_data_and_distortions_that_cannot_be(kind, fitted):
    """Fails if bad data give scores, or an error does not say what is wrong."""
    model, data = fitted
    bad = data.clone()
    bad[500, 3] = torch.nan
    spoiled = {"non-finite": bad, "12 columns": data[:, :5], "at least one": data[:0], "no variance": data[:1]}
    for message, given in spoiled.items():
        with pytest.raises(ValueError, match=message):
            score_sae(model, kind(given))
    for distortion in (0.0, 1.5):
        with pytest.raises(ValueError, match="distortion="):
            score_sae(model, data, distortion=distortion)
