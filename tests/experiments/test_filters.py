"""The control of clustering by a graph: what linear codes know of their dictionary, and whitening in its place."""

import numpy as np
import pytest
import torch

from experiments.baselines.filters import (
    CODES,
    GROUP_SIZE,
    N_GROUPS,
    encode,
    measure,
    same_label,
    whitened,
)
from experiments.digits.group_norms import ridge_codes
from gsae_lib.dictionary import normalize_columns
from gsae_lib.groups import normalized_group_norms


def filtered(samples, second, mu):
    """Inner products of the samples after S (S + mu I)^{-2}, by a dense inverse."""
    inverse = torch.linalg.inv(second + mu * torch.eye(len(second), dtype=second.dtype))
    return samples @ (second @ inverse @ inverse) @ samples.T


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_ridge_codes_know_their_dictionary_by_its_second_moment(rng, mu):
    """Fails if the equation of the module is another one; groups that are turned in the atoms' space change nothing."""
    samples = torch.randn(30, 12, generator=rng, dtype=torch.float64)
    dictionary = normalize_columns(torch.randn(12, 20, generator=rng, dtype=torch.float64))
    codes = ridge_codes(samples, dictionary, mu)
    torch.testing.assert_close(codes @ codes.T, filtered(samples, dictionary @ dictionary.T, mu))
    turn = torch.linalg.qr(torch.randn(20, 20, generator=rng, dtype=torch.float64)).Q
    turned = ridge_codes(samples, dictionary @ turn, mu)
    torch.testing.assert_close(turned @ turned.T, codes @ codes.T)
    assert not torch.allclose(normalized_group_norms(turned, 4), normalized_group_norms(codes, 4), atol=0.05)


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_whitening_is_a_ridge_code_on_the_second_moment_of_the_samples(rng, mu):
    """Fails if the trace is not that of unit atoms, the samples' scale matters, or gains are of other directions."""
    samples = torch.randn(50, 8, generator=rng, dtype=torch.float64) * torch.arange(1, 9)
    second = 20 * samples.T @ samples / samples.square().sum()
    found = whitened(samples, 20, mu)
    torch.testing.assert_close(found @ found.T, filtered(samples, second, mu))
    torch.testing.assert_close(whitened(3 * samples, 20, mu).abs(), 3 * found.abs())


def test_codes_are_of_their_sizes_and_lengths(rng):
    """Fails if a code is not scaled, or norms are not taken of groups."""
    samples = torch.nn.functional.normalize(torch.randn(450, 30, generator=rng), dim=1)
    sizes = {code: encode(samples, code, 1.0, seed=0).shape[1] for code in CODES}
    atoms = N_GROUPS * GROUP_SIZE
    assert sizes == dict(zip(CODES, (30, 30, atoms, N_GROUPS, atoms, N_GROUPS), strict=True))
    for code in CODES:
        lengths = encode(samples, code, 1.0, seed=0).norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(450), atol=1e-4, rtol=0)
    assert not torch.allclose(encode(samples, "whitened", 0.1, seed=0), encode(samples, "whitened", 1.0, seed=0))


def test_neighbours_of_a_sample_do_not_count_itself():
    """Fails if a sample is its own neighbour."""
    line = np.arange(12.0)[:, None]
    assert same_label(line, np.zeros(12)) == 1
    assert same_label(line, np.arange(12)) == 0


@pytest.mark.parametrize("change", [{"code": "vote"}, {"mu": 0.0}, {"n_samples": 10}])
def test_rejects_bad_settings_before_a_process_starts(change):
    """Fails if an unknown code, no filter, or too few samples start work."""
    with pytest.raises(ValueError, match=rf"^{next(iter(change))}"):
        measure(**({"dataset": "mnist-5k", "n_samples": 1000, "code": "whitened", "seed": 0} | change))
