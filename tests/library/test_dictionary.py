"""Dictionaries: normalisation and coherence against naive loops, perturbed starts against their law."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from true_groups import assert_orthonormal, blocks_of

from gsae_lib.dictionary import (
    block_coherence,
    coherence,
    normalize_columns,
    orthonormalize_groups,
    perturbed_dictionary,
)


def random_dictionary(rng, n_features=7, n_groups=4, group_size=3, dtype=torch.float64):
    return torch.randn(n_features, n_groups * group_size, generator=rng, dtype=dtype)


def test_normalize_columns(rng, dtype):
    """Fails if rows are scaled, a direction changes, or a zero column becomes nan."""
    a = random_dictionary(rng, dtype=dtype)
    a[:, 5] = 0
    unit = normalize_columns(a)
    for before, after in zip(a.T.numpy(), unit.T.numpy(), strict=True):
        length = np.sqrt((before.astype(np.float64) ** 2).sum())
        np.testing.assert_allclose(after, before / length if length else 0, rtol=1e-6)
    torch.testing.assert_close(normalize_columns(unit), unit)


@pytest.mark.parametrize("group_size", [1, 3])
def test_polar_is_the_nearest_orthonormal_group(group_size, rng, dtype):
    """Fails if QR or another basis of the span is returned, or a group that is orthonormal already is turned."""
    a = random_dictionary(rng, group_size=group_size, dtype=dtype)
    nearest = orthonormalize_groups(a, group_size)
    atol = 2e-6 if dtype == torch.float32 else 1e-12
    for block, found in zip(blocks_of(a, group_size), blocks_of(nearest, group_size), strict=True):
        np.testing.assert_allclose(found, scipy.linalg.polar(block)[0], rtol=0, atol=atol)
    torch.testing.assert_close(orthonormalize_groups(nearest, group_size), nearest, rtol=0, atol=atol)


def test_rank_deficient_groups_become_orthonormal():
    """Fails if a zero or a repeated column gives nan: some orthonormal basis is returned."""
    a = torch.zeros(5, 4, dtype=torch.float64)
    a[0, 2:] = 1.0
    assert_orthonormal(orthonormalize_groups(a, 2), 2, atol=1e-12)


@pytest.mark.parametrize("group_size", [1, 2, 3, 6])
def test_coherences_match_double_loops(group_size, rng, dtype):
    """Fails if 1/d, the spectral norm, a pair, or the normalisation of columns (in mu, not in mu_B) is missing."""
    a = random_dictionary(rng, 9, 6 // group_size * 2, group_size, dtype)
    columns = [c / np.linalg.norm(c) for c in a.numpy().T]
    mu = max(abs(x @ y) for x, y in itertools.combinations(columns, 2))
    pairs = itertools.combinations(blocks_of(a, group_size), 2)
    mu_block = max(np.linalg.svd(x.T @ y)[1][0] for x, y in pairs) / group_size
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert coherence(a) == pytest.approx(mu, rel=tolerance)
    assert block_coherence(a, group_size) == pytest.approx(mu_block, rel=tolerance)


def test_coherence_limits():
    """Fails if one column or one group has coherence other than 0, or a repeated one other than 1 (mu) and 1/d."""
    assert coherence(torch.ones(3, 1)) == 0.0 and block_coherence(torch.ones(3, 2), 2) == 0.0
    twice = torch.eye(4)[:, :2].repeat(1, 2)
    assert coherence(-3 * twice) == pytest.approx(1.0)
    assert block_coherence(twice, 2) == pytest.approx(0.5)


@pytest.mark.parametrize("correlation", [0.15, 0.555, 0.9, 1.0])
def test_perturbed_dictionary_has_the_mean_correlation(correlation, rng):
    """Fails if sigma_B is off: one correlation varies by about 1/sqrt(n), so the mean of 400 by 0.0016 (6 of them)."""
    truth = normalize_columns(random_dictionary(rng, 1000, 200, 2))
    start = perturbed_dictionary(3 * truth, correlation, generator=rng)
    found = torch.einsum("ni,ni->i", truth, start)
    bound = 6 / (1000 * 400) ** 0.5 if correlation < 1 else 1e-12
    assert found.mean().item() == pytest.approx(correlation, abs=bound)
    torch.testing.assert_close(torch.linalg.vector_norm(start, dim=0), torch.ones(400, dtype=torch.float64))
