"""The law of the data: moments against closed forms, designs against the sphere's moments, draws against both."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from true_groups import orthogonal

from gsae_lib.generative import (
    GroupSparseSample,
    GroupSparseSource,
    gaussian_dictionary,
    orthonormal_groups_dictionary,
)
from gsae_lib.theory import Population
from gsae_lib.theory.population import antithetic, designed_sample, orthonormality, spherical_design

SEEDS = st.integers(0, 2**31)
DOUBLE = torch.float64


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_design_has_the_moments_of_the_sphere(d):
    """Fails if a point is missing or misplaced: every monomial up to degree 5 against Gamma functions' closed form."""
    design = spherical_design(d)
    assert design.dtype == DOUBLE
    np.testing.assert_allclose(design.norm(dim=1).numpy(), 1, rtol=0, atol=1e-15)
    assert len(torch.unique(design.mul(1e6).round(), dim=0)) == len(design)
    for powers in itertools.product(range(6), repeat=d):
        degree = sum(powers)
        if degree > 5:
            continue
        found = design.pow(torch.tensor(powers)).prod(dim=1).mean().item()
        expected = 0.0
        if all(k % 2 == 0 for k in powers):
            # int of |x|^k exp(-x^2) factorises: the ratio of Gamma functions of Folland (2001).
            top = math.prod(math.gamma((k + 1) / 2) for k in powers) / math.gamma(0.5) ** d
            expected = top * math.gamma(d / 2) / math.gamma((degree + d) / 2)
        assert abs(found - expected) < 1e-14, (powers, found, expected)


@pytest.mark.parametrize("n, groups, d, active", [(12, 4, 1, 3), (9, 3, 2, 2), (14, 3, 3, 1), (16, 3, 4, 2)])
def test_designed_sample_is_the_population(rng, n, groups, d, active):
    """Fails if a support or a point is weighted wrongly: first, second and mixed fourth moments, and their number."""
    truth = gaussian_dictionary(n, groups, d, generator=rng, dtype=DOUBLE)
    sample = designed_sample(truth, d, active, 3.0)
    population = Population(n, groups, d, active, (3.0, 3.0))
    count = math.comb(groups, active) * len(spherical_design(d)) ** active
    assert len(sample.data) == len(sample.codes) == len(sample.support) == count
    torch.testing.assert_close(sample.data, sample.codes @ truth.T)
    assert torch.equal(sample.support, (sample.codes.unflatten(1, (groups, d)) != 0).any(dim=2))
    norms = torch.linalg.vector_norm(sample.codes.unflatten(1, (groups, d)), dim=2)
    np.testing.assert_allclose(norms[sample.support].numpy(), 3.0, rtol=1e-14)
    x = sample.codes
    assert x.mean(dim=0).abs().max() < 1e-13
    second = x.T @ x / count
    expected = population.kappa * torch.eye(groups * d, dtype=DOUBLE)
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-13 * 9)
    squares = x.square().T @ x.square() / count
    for i, j in itertools.combinations(range(groups * d), 2):
        within = 3.0**4 / (d * (d + 2)) * population.p
        across = population.p * population.q * population.sigma2**2
        assert squares[i, j].item() == pytest.approx(within if i // d == j // d else across, abs=1e-12)


@given(seed=SEEDS, d=st.integers(1, 3), active=st.integers(1, 4), snr=st.sampled_from([None, 3.0]))
@settings(max_examples=25, deadline=None)
def test_property_antithetic_signs(seed, d, active, snr):
    """Fails if a pattern of signs is lost or doubled, an odd cross term survives, or the noise stays."""
    rng = torch.Generator().manual_seed(seed)
    truth = orthogonal(20, 5, d, rng)
    sample = GroupSparseSource(truth, d, active, snr_db=snr).sample(7, generator=rng)
    signed = antithetic(sample, truth)
    assert len(signed.data) == 7 * 2 ** (active - 1)
    torch.testing.assert_close(signed.data, signed.codes @ truth.T)
    assert torch.equal(signed.support, sample.support.repeat(2 ** (active - 1), 1))
    blocks, original = signed.codes.unflatten(1, (5, d)), sample.codes.unflatten(1, (5, d))
    patterns = blocks.unflatten(0, (-1, 7))
    for k in range(7):
        groups = sample.support[k].nonzero().flatten()
        signs = (patterns[:, k, groups] / original[k, groups]).mean(dim=2)
        torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
        assert {tuple(row) for row in signs.round().int().tolist()} == {
            (1, *rest) for rest in itertools.product((1, -1), repeat=active - 1)
        }
    cross = torch.einsum("sgi,shj->ghij", blocks, blocks) / len(blocks)
    for g, h in itertools.permutations(range(5), 2):
        assert cross[g, h].abs().max() < 1e-13
    kept = torch.einsum("sgi,sgj->gij", original, original) / 7
    torch.testing.assert_close(cross[range(5), range(5)], kept)


@given(low=st.floats(0.1, 10.0), spread=st.floats(0.01, 3.0), k=st.integers(-2, 6))
@settings(max_examples=100, deadline=None)
def test_property_moments_of_a_uniform_norm(low, spread, k):
    """Fails if the quadrature is off: closed-form moments of the uniform law, for powers on both sides of 0."""
    high = low * (1 + spread)
    population = Population(50, 10, 2, 3, (low, high))
    expected = math.log(high / low) if k == -1 else (high ** (k + 1) - low ** (k + 1)) / (k + 1)
    assert population.moment(k) == pytest.approx(expected / (high - low), rel=1e-9)


@given(groups=st.integers(1, 12), d=st.integers(1, 4), seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_property_symbols(groups, d, seed):
    """Fails if p, q, sigma^2, kappa or m is not what the notation page says: by counting supports."""
    active = 1 + seed % groups
    population = Population(60, groups, d, active, (3.0, 3.0))
    supports = list(itertools.combinations(range(groups), active))
    first = [s for s in supports if 0 in s]
    assert population.p == pytest.approx(len(first) / len(supports))
    if groups > 1:
        assert population.q == pytest.approx(sum(1 in s for s in first) / len(first))
    else:
        assert population.q == 0
    assert population.sigma2 == pytest.approx(9 / d) and population.kappa == pytest.approx(9 / d * active / groups)
    assert population.n_atoms == groups * d


def test_constant_norm_keeps_the_second_moment():
    """Fails if the equal norm is the mean rather than the root mean square, or another setting changes."""
    population = Population(50, 10, 2, 3, (2.0, 5.0), 0.3, False)
    constant = population.with_constant_norm()
    assert constant.norm_range[0] == constant.norm_range[1] == pytest.approx(13**0.5)
    assert constant.kappa == pytest.approx(population.kappa)
    assert (constant.noise_std, constant.orthonormal, constant.n_active) == (0.3, False, 3)


def test_population_of_a_source_matches_its_draws(rng):
    """Fails if the noise level has another unit. Each tolerance is over 5.5 standard errors: chance below 1e-7."""
    truth = orthogonal(50, 10, 2, rng)
    source = GroupSparseSource(truth, 2, 3, snr_db=2.0)
    population = Population.of(source)
    sizes = (population.n_features, population.n_groups, population.group_size, population.n_active)
    assert sizes == (50, 10, 2, 3) and population.norm_range == (4.0, 5.0) and population.orthonormal
    sample = source.sample(8000, generator=rng)
    noise = sample.data - sample.codes @ truth.T
    # 400,000 entries of noise, 24,000 norms whose squares vary by 13 %: 0.14 % together.
    assert noise.square().mean().sqrt().item() == pytest.approx(population.noise_std, rel=0.008)
    # Second moment of an entry: 20 entries each active in 30 % of 8,000 samples; relative s.d. 2.1 of its square.
    assert sample.codes.square().mean().item() == pytest.approx(population.kappa, rel=5.5 * 2.1 / 8000**0.5 / 20**0.5)
    assert Population.of(GroupSparseSource(truth, 2, 3)).noise_std == 0


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_population_knows_whether_groups_are_orthonormal(rng, dtype):
    """Fails if single precision's rounding counts as coherence within a group, or Gaussian columns do not."""
    for make, expected in ((orthonormal_groups_dictionary, True), (gaussian_dictionary, False)):
        source = GroupSparseSource(make(40, 8, 3, generator=rng, dtype=dtype), 3, 2)
        assert Population.of(source).orthonormal is expected


@given(seed=SEEDS, n=st.integers(4, 9), groups=st.integers(1, 4), d=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_property_orthonormality(seed, n, groups, d):
    """Fails if another norm is taken, or a group is left out: eigenvalues in numpy, group by group."""
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, groups * d, generator=rng, dtype=DOUBLE)
    blocks = np.split(weight.numpy(), groups, axis=1)
    expected = max(np.abs(np.linalg.svd(b, compute_uv=False) ** 2 - 1).max() for b in blocks)
    assert orthonormality(weight, d) == pytest.approx(expected, rel=1e-9)


def test_noise_at_a_ratio_is_that_of_the_source():
    """Fails if signal power or decibels are mistaken: the noise that a source of this ratio adds."""
    truth = gaussian_dictionary(60, 10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = GroupSparseSource(truth, 2, 3, norm_range=(2.0, 5.0), snr_db=7.0)
    population = Population.at_snr((60, 10, 2, 3), (2.0, 5.0), 7.0, orthonormal=False)
    assert population.noise_std == pytest.approx(source.noise_std, rel=0.05)


ONES, EYE = torch.ones(8, 6), torch.eye(8, 6, dtype=DOUBLE)
UNEQUAL = torch.tensor([[True, True, False], [True, False, False]])


def signed(codes):
    """Antithetic samples of two supports with two and with one active group."""
    return antithetic(GroupSparseSample(codes @ EYE.T, codes, codes.unflatten(1, (3, 2)).any(dim=2)), EYE)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Population(0, 10, 2, 3), "n_features=0"),
        (lambda: Population(50, 1.5, 2, 3), "n_groups=1.5"),
        (lambda: Population(50, 10, 51, 3), "group_size=51"),
        (lambda: Population(50, 10, 2, 11), "n_active=11"),
        (lambda: Population(50, 10, 2, 3, (0.0, 5.0)), r"norm_range\[0\]=0.0"),
        (lambda: Population(50, 10, 2, 3, (5.0, 4.0)), r"norm_range\[1\]=4.0"),
        (lambda: Population(50, 10, 2, 3, noise_std=-1.0), "noise_std=-1.0"),
        (lambda: Population.of(GroupSparseSource(EYE, 2, 1, codes="gaussian")), "codes='gaussian'"),
        (lambda: Population.of(GroupSparseSource(EYE, 2, 1, nonnegative=True)), "nonn"),
        (lambda: spherical_design(5), "group_size=5"),
        (lambda: designed_sample(torch.ones(4), 2, 2, 1.0), "dictionary: expected"),
        (lambda: designed_sample(ONES, 4, 2, 1.0), "group_size=4"),
        (lambda: designed_sample(ONES, 2, 4, 1.0), "n_active=4"),
        (lambda: designed_sample(ONES, 2, 2, 0.0), "norm=0.0"),
        (
            lambda: signed(UNEQUAL.repeat_interleave(2, dim=1).double()),
            "equally many active groups, got 1 to 2",
        ),
        (lambda: signed(torch.zeros(2, 6, dtype=DOUBLE)), "got 0 to 0"),
        (lambda: orthonormality(torch.ones(5, 4), 3), "group_size=3"),
    ],
)
def test_population_theory_rejects(call, message):
    """Fails if what cannot be is not named, or a law or a sphere for which nothing is derived is taken."""
    with pytest.raises(ValueError, match=message):
        call()
