"""Tests of experiments.recovery.violations: each by its own statistics, the certificate's verdict, and small runs."""

import dataclasses
import itertools
import math

import pytest
import torch

from experiments.recovery import violations
from experiments.recovery.violations import (
    VIOLATIONS,
    ViolationSettings,
    certificate_says,
    draw_groups,
    draw_sample,
    run_map_point,
    run_violation,
)
from gsae_lib.theory import Certificate, Quantity
from gsae_lib.theory.certificate import Fact

TINY = ViolationSettings(n_features=50, n_groups=6, n_active=1, n_samples=500, epochs=5)


def drawn(rng, violation, strength, n_samples=4000, **settings):
    """Groups and a sample of one violation."""
    one = dataclasses.replace(TINY, violation=violation, strength=strength, **settings)
    groups = draw_groups(one, generator=rng)
    return one, groups, draw_sample(one, groups, n_samples, generator=rng)


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_strength_zero_is_the_model(violation, rng):
    """Fails if a violation of strength 0 changes norms, supports, groups or noise."""
    settings, groups, sample = drawn(rng, violation, 0.0)
    dictionary = torch.cat(groups, dim=1)
    assert dictionary.shape == (50, 12) and bool(sample.modelled.all())
    assert (sample.support.sum(dim=1) == 1).all()
    assert ((sample.support.double().mean(dim=0) - 1 / 6).abs() < 0.03).all()
    codes = (sample.data @ dictionary).unflatten(1, (6, 2)).norm(dim=2)[sample.support]
    assert 3.3 < codes.min() and codes.max() < 5.7
    own = torch.stack(groups)[sample.support.int().argmax(dim=1)]  # (samples, features, size)
    rest = sample.data - (own @ (own.mT @ sample.data.unsqueeze(2))).squeeze(2)
    expected = settings.population.noise_std * math.sqrt(48 / 50)
    assert rest.square().mean().sqrt() == pytest.approx(expected, rel=0.02)


def test_leak_fills_silent_groups(rng):
    """Fails if silent groups do not leak with the given share of an active entry's deviation."""
    settings, groups, sample = drawn(rng, "leak", 0.5, snr_db=100.0, n_features=4000, n_groups=4, n_samples=10)
    codes = (sample.data @ torch.cat(groups, dim=1)).unflatten(1, (4, 2))
    silent = codes[~sample.support].square().mean().sqrt()
    assert silent == pytest.approx(0.5 * math.sqrt(settings.population.sigma2), rel=0.1)


def test_sizes_and_overlap_of_groups(rng):
    """Fails if the share of changed groups, their sizes, or the cosine of neighbours is wrong."""
    assert [g.shape[1] for g in drawn(rng, "larger groups", 0.5, 10)[1]] == [3, 3, 3, 2, 2, 2]
    assert [g.shape[1] for g in drawn(rng, "smaller groups", 1.0, 10)[1]] == [1] * 6
    for cosine in (0.4, 1.0):
        groups = drawn(rng, "overlap", cosine, 10)[1]
        for one, other in itertools.pairwise(groups):
            assert torch.linalg.svdvals(one.T @ other)[0].item() >= cosine - 1e-5
            torch.testing.assert_close(other.T @ other, torch.eye(2), atol=1e-5, rtol=0)


def test_partners_and_frequencies(rng):
    """Fails if partners are not together with the given chance, or frequencies do not follow the power law."""
    support = drawn(rng, "together", 1.0, n_active=2)[2].support
    assert torch.equal(support[:, ::2], support[:, 1::2]) and (support.sum(dim=1) == 2).all()
    half = drawn(rng, "together", 0.5, n_active=2)[2].support
    assert (half[:, ::2] == half[:, 1::2]).all(dim=1).double().mean() == pytest.approx(0.5 + 0.5 / 5, abs=0.03)
    shares = drawn(rng, "frequencies", 1.0)[2].support.double().mean(dim=0)
    assert shares[0] / shares[2] == pytest.approx(3, rel=0.15) and shares[0] / shares[5] == pytest.approx(6, rel=0.25)


def test_noise_that_is_not_white_or_gaussian(rng):
    """Fails if the total power changes, tails do not grow, or the spectrum does not fall."""
    shape, base = torch.Size((4000, 50)), dataclasses.replace(TINY, violation="heavy tails", strength=0.5)
    heavy = violations._noise(base, shape, rng)
    assert heavy.square().mean() == pytest.approx(1, rel=0.1) and (heavy.abs() > 5).double().mean() > 1e-4
    colour = dataclasses.replace(TINY, violation="coloured noise", strength=1.0)
    power = violations._noise(colour, shape, rng).square().mean(dim=0)
    assert power.mean() == pytest.approx(1, rel=0.02) and power[0] / power[9] == pytest.approx(10, rel=0.2)


def test_samples_without_the_model(rng):
    """Fails if the share, the length of outliers, or the second moment of samples without structure is wrong."""
    outliers = drawn(rng, "outliers", 0.1)[2]
    assert (~outliers.modelled).double().mean() == pytest.approx(0.1, abs=0.02)
    lengths = outliers.data.norm(dim=1)
    assert lengths[~outliers.modelled].min() > 5 * lengths[outliers.modelled].mean()
    plain = drawn(rng, "no structure", 0.5)[2]
    one, other = (plain.data[m].square().sum(dim=1).mean().item() for m in (plain.modelled, ~plain.modelled))
    assert one == pytest.approx(other, rel=0.05)
    norms = drawn(rng, "small norms", 1.0, snr_db=60.0)
    codes = (norms[2].data @ torch.cat(norms[1], dim=1)).unflatten(1, (6, 2)).norm(dim=2)[norms[2].support]
    assert codes.min() < 0.1


def test_certificate_says():
    """Fails if a fact that does not hold is no doubt, or what has no verdict is."""
    facts = (
        Fact(Quantity.ANISOTROPY, 2.0, 1.0, False),
        Fact(Quantity.NEAREST_SPANS, 0.3),
        Fact(Quantity.NEAR_PENALTY, 0.0, 0.1, True),
    )
    assert certificate_says(Certificate(2.0, 10, facts, (), (), ())) == ["ANISOTROPY"]
    assert certificate_says(Certificate(2.0, 10, facts[1:], (), (), ())) == []


def test_the_model_is_recovered_and_believed():
    """Fails if without a violation groups are not found, or a second run does not repeat them."""
    (run,) = run_violation(dataclasses.replace(TINY, epochs=20), seed=0)
    assert run.found == run.genuine == run.repeated == 1 and run.exact > 0.9 and run.dead == 0
    assert 0 < run.predicted_angle < run.rms_angle < 10


def test_half_as_many_groups_cannot_be_recovered():
    """Fails if a network with half of the groups counts as having found them, or its numbers are inconsistent."""
    (run,) = run_map_point("x", dataclasses.replace(TINY, violation="wrong count", strength=-1.0), seed=0)
    assert run.found <= 0.5 and run.says_twice <= run.says and bool(run.doubts) != run.says_twice


def test_training_that_fails_is_a_no(rng):
    """Fails if a penalty at which nothing is active ends the whole run."""
    (run,) = run_violation(dataclasses.replace(TINY, penalty=50.0), seed=0)
    assert not run.says and run.found == 0 and "no group is active" in run.doubts


def test_learned_sizes():
    """Fails if what is learned has not the size and number that a mend or a wrong count ask for."""
    assert (TINY.learned_groups, TINY.learned_size) == (6, 2)
    assert dataclasses.replace(TINY, mend="one size up").learned_size == 3
    assert dataclasses.replace(TINY, mend="twice the groups").learned_groups == 12
    half = dataclasses.replace(TINY, violation="wrong count", strength=-1.0)
    assert half.learned_groups == 3 and dataclasses.replace(half, mend="twice the groups").learned_groups == 6


@pytest.mark.parametrize("mend", ["target sparsity", "trimming", "one size up", "twice the groups"])
def test_mends_run(mend):
    """Fails if a mend does not train, or groups that are no true ones count as true beside the found ones."""
    (run,) = run_violation(dataclasses.replace(TINY, mend=mend, epochs=20 if mend == "twice the groups" else 5), seed=0)
    assert 0 <= run.found <= 1
    if mend == "twice the groups":
        assert run.found == 1 and (run.genuine < 1 or run.dead > 0)
