"""The certificate: every fact against its own definition in an idealised case, its forms, and what it refuses."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from true_groups import at_angles, gaussian, orthogonal

from gsae_lib.dictionary import as_groups, block_coherence, from_groups, polar
from gsae_lib.generative import GroupSparseSample, GroupSparseSource, gaussian_dictionary
from gsae_lib.groups import group_norms
from gsae_lib.metrics import principal_angles
from gsae_lib.theory import (
    Certificate,
    Population,
    Quantity,
    certify,
    equilibrium_norm,
    hessian_spectrum,
    predicted_success,
    riemannian_step,
    support_recovery_windows,
)
from gsae_lib.theory.certificate import SECTIONS, Fact
from gsae_lib.theory.floors import coherence_bias
from gsae_lib.theory.gradient import sample_gradient
from gsae_lib.theory.population import designed_sample
from gsae_lib.theory.rates import largest_step, loss_hessian, plain_rates
from gsae_lib.theory.windows import crosstalk_bound, predicted_activity

DOUBLE = torch.float64


@pytest.fixture
def ideal(rng):
    """An orthogonal truth, its weights at rest, and a designed sample: everything the theory says is exact."""
    truth = orthogonal(12, 4, 2, rng)
    population, penalty = Population(12, 4, 2, 2, (3.0, 3.0)), 1.2
    rho = equilibrium_norm(population, penalty)
    return truth, rho * truth, designed_sample(truth, 2, 2, 3.0), population, penalty


def noisy(rng, groups=6, gamma=2, d=2, n=20):
    """A Gaussian dictionary, weights near it, and a noisy draw."""
    truth = gaussian_dictionary(n, groups, d, generator=rng, dtype=DOUBLE)
    weights = 1.1 * truth + 0.02 * gaussian(rng, *truth.shape)
    return truth, weights, GroupSparseSource(truth, d, gamma, snr_db=10.0).sample(400, generator=rng)


def test_facts_of_the_ideal_case(ideal):
    """Fails if a fact of a perfect model is not what the theory says, value and reference, or does not hold."""
    truth, weights, sample, population, penalty = ideal
    found = certify(sample, weights, penalty, 2, true_dictionary=truth)
    rho = equilibrium_norm(population, penalty)
    top = max(mode.eigenvalue for mode in hessian_spectrum(population, penalty))
    expected = {
        Quantity.SMALLEST_NORM: rho,
        Quantity.MEAN_NORM: rho,
        Quantity.LARGEST_NORM: rho,
        Quantity.GROUP_GRAM: 0,
        Quantity.NEAREST_SPANS: 0,
        Quantity.DOUBLED_GROUPS: 0,
        Quantity.ANISOTROPY: 1,
        Quantity.MIXED_GROUPS: 0,
        Quantity.SMALLEST_CODE_NORM: 3,
        Quantity.LARGEST_CODE_NORM: 3,
        Quantity.SUPPORT_SIZES: 2,
        Quantity.SUPPORT_SHARES: 0,
        Quantity.SECOND_MOMENT: 4.5,
        Quantity.WHITENESS: 0,
        Quantity.ORTHONORMALITY: rho**2 - 1,
        Quantity.DISTANCE: 0,
        Quantity.BLOCK_COHERENCE: 0,
        Quantity.WEAKEST_SIGNAL: 3 * rho,
        Quantity.LARGEST_CROSSTALK: 0,
        Quantity.ACTIVITY: 2,
        Quantity.EXACT_SUPPORTS: 1,
        Quantity.LARGEST_ANGLE: 0,
        Quantity.KAPPA: population.kappa,
        Quantity.EQUILIBRIUM_NORM: rho,
        Quantity.TANGENT: 0,
        Quantity.CURVATURE: top,
        Quantity.PREDICTED_STEP: 2 / top,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-12, rel=1e-12), name
    assert found[Quantity.STABLE_STEP].value == pytest.approx(2 / top, rel=1e-5)  # by power iteration, in float32
    assert {fact.quantity for fact in found.facts} == {*expected, Quantity.STABLE_STEP}
    references = {
        Quantity.EQUILIBRIUM_NORM: rho,
        Quantity.TANGENT: coherence_bias(population, penalty, "plain"),
        Quantity.ACTIVITY: predicted_activity(population, penalty, column_norm=rho),
        Quantity.EXACT_SUPPORTS: predicted_success(population, penalty, column_norm=rho),
        Quantity.WEAKEST_SIGNAL: 3 * rho,
        Quantity.SUPPORT_SHARES: 5 * math.sqrt(0.5 / len(sample.data)),
        Quantity.WHITENESS: 10 / math.sqrt(2 * len(sample.data)),
        Quantity.SECOND_MOMENT: 1.0,
    }
    for name, value in references.items():
        assert found[name].reference == pytest.approx(value, rel=1e-9), name
    for name in (Quantity.SUPPORT_SIZES, Quantity.SUPPORT_SHARES,
                 Quantity.WHITENESS,
                 Quantity.EQUILIBRIUM_NORM):  # fmt: skip
        assert found[name].holds is True, name
    for name in (Quantity.SECOND_MOMENT, Quantity.ORTHONORMALITY):
        assert found[name].holds is False, name
    assert found.n_samples == len(sample.data) and found.penalty == penalty
    assert [SECTIONS.index(fact.quantity.section) for fact in found.facts] == sorted(
        SECTIONS.index(fact.quantity.section) for fact in found.facts
    )


def test_windows_of_the_ideal_case(ideal):
    """Fails if the windows are those of another model: the worst-case ones are all [0, rho B_min) here."""
    truth, weights, sample, population, penalty = ideal
    found = certify(sample, weights, penalty, 2, true_dictionary=truth)
    direct = support_recovery_windows(weights, truth, population)
    assert [window.name for window in found.windows] == list(direct)
    for window in found.windows:
        for end in ("lower", "upper"):
            assert getattr(window, end) == pytest.approx(getattr(direct[window.name], end), abs=1e-9)
        if window.name in ("corrected", "angles", "cumulative"):
            assert penalty in window and window.lower == pytest.approx(0, abs=1e-12)
            assert window.upper == pytest.approx(3 * equilibrium_norm(population, penalty))
        assert window.name != "basin" or not window.holds  # two groups are active, and columns are longer than one
    # All groups of the right support respond with rho c, the others not at all.
    np.testing.assert_allclose(found.inactive_responses, 0, atol=1e-12)
    np.testing.assert_allclose(found.active_responses, 3 * equilibrium_norm(population, penalty), rtol=1e-12)
    assert len(found.inactive_responses) == len(found.active_responses) == 11


def test_orthonormal_weights_meet_assumption_4(ideal):
    """Fails if unit norm is not recognised, or the weights' angle to the truth is not measured: 0.2 rad, one group."""
    truth, _, sample, _, penalty = ideal
    found = certify(sample, truth, penalty, 2, true_dictionary=truth)
    assert found[Quantity.ORTHONORMALITY].holds is True
    assert found[Quantity.EQUILIBRIUM_NORM].holds is False
    turned = truth.clone()
    away = torch.linalg.qr(torch.cat((truth, torch.ones(12, 1, dtype=DOUBLE)), dim=1)).Q[:, -1]
    turned[:, 3] = math.cos(0.2) * truth[:, 3] + math.sin(0.2) * away
    found = certify(sample, turned, penalty, 2, true_dictionary=truth)
    assert found[Quantity.LARGEST_ANGLE].value == pytest.approx(0.2)
    delta = 2 * math.sin(0.1)
    assert found[Quantity.DISTANCE].value == pytest.approx(delta)
    assert found[Quantity.TANGENT].value == pytest.approx(math.tan(0.2) / 8**0.5)
    signal = found[Quantity.WEAKEST_SIGNAL]
    # The hexagon's points nearest to the turned column are 30 degrees from it.
    expected = 3 * math.sqrt(0.75 * math.cos(0.2) ** 2 + 0.25)
    assert signal.value == pytest.approx(expected) and signal.reference == pytest.approx(3 * (1 - delta))
    assert signal.holds is True


def test_a_certificate_says_whether_a_model_lies_in_the_basin(rng):
    """Fails if it is not in it at 70 degrees, in random directions, or in it beyond its window: orthonormal, d = 2."""
    truth = orthogonal(400, 6, 2, rng)
    weights = at_angles(truth, 2, torch.full((6, 2), math.radians(70), dtype=DOUBLE), rng)
    sample = GroupSparseSource(truth, 2, 1, norm_range=(4.0, 4.0)).sample(200, generator=rng)
    for penalty, within in ((1.2, True), (1.4, False)):  # 4 cos(70 degrees) = 1.37
        found = certify(sample, weights, penalty, 2, true_dictionary=truth)
        (window,) = (window for window in found.windows if window.name == "basin")
        assert window.upper == pytest.approx(4 * math.cos(math.radians(70)))
        assert (penalty in window) == within, window
        assert f"window: basin [{window.lower:.3g}, {window.upper:.3g})" in str(found)


def test_rate_of_spans_is_the_plain_rate_near_rest(ideal, rng):
    """Fails if the measured rate is not <grad, gap> / ||gap||^2, within the angle's square of the prediction."""
    truth, weights, sample, population, penalty = ideal
    basis = torch.linalg.qr(torch.cat((truth, gaussian(rng, 12, 4)), dim=1)).Q[:, 8:]
    moved = weights + 1e-3 * basis @ gaussian(rng, 4, 8)
    fact = certify(sample, moved, penalty, 2, true_dictionary=truth)[Quantity.SPAN_RATE]
    assert fact.reference == pytest.approx(plain_rates(population, penalty).outside, rel=1e-9)
    assert fact.value == pytest.approx(fact.reference, rel=1e-4)


def test_the_largest_step_is_that_of_the_samples_hessian(rng):
    """Fails if the power iteration is not near the top eigenvalue, or its factor 2 is missing: a noisy small model."""
    truth = orthogonal(9, 3, 2, rng)
    sample = GroupSparseSource(truth, 2, 2, snr_db=20.0).sample(150, generator=rng)
    weights = 1.25 * truth + 0.01 * gaussian(rng, 9, 6)
    top = torch.linalg.eigvalsh(loss_hessian(sample.data, weights, 2.0, 2))[-1].item()
    for dictionary in (truth, None):
        found = certify(sample, weights, 2.0, 2, true_dictionary=dictionary)
        assert found[Quantity.STABLE_STEP].value == pytest.approx(2 / top, rel=0.03)


def test_facts_of_a_noisy_model(rng):
    """Fails if a definition slips where nothing is ideal: signals, cross-talk, supports and deciles written out."""
    truth, weights, sample = noisy(rng)
    found = certify(sample, weights, 2.0, 2, true_dictionary=truth)
    w, a = (x.numpy() for x in (weights, truth))
    x = sample.codes.numpy().reshape(400, 6, 2)
    largest, weakest = 0.0, math.inf
    for k in range(400):
        for g in range(6):
            block = w[:, 2 * g : 2 * g + 2]
            if sample.support[k, g]:
                weakest = min(weakest, np.linalg.norm(block.T @ a[:, 2 * g : 2 * g + 2] @ x[k, g]))
            else:
                largest = max(largest, np.linalg.norm(block.T @ a @ sample.codes[k].numpy()))
    signal = found[Quantity.WEAKEST_SIGNAL]
    talk = found[Quantity.LARGEST_CROSSTALK]
    assert signal.value == pytest.approx(weakest) and talk.value == pytest.approx(largest)
    norms = np.linalg.norm(w, axis=0)
    delta = max(np.linalg.norm((w / norms - a)[:, 2 * g : 2 * g + 2]) for g in range(6))
    largest = torch.linalg.svdvals(as_groups(truth, 2)).max().item()
    active = group_norms(sample.codes, 2)
    bound = norms.max() * crosstalk_bound(2, active.max().item(), 2, block_coherence(truth, 2), delta, largest)
    assert talk.reference == pytest.approx(bound) and talk.holds is True
    low = active[active > 0].min().item()
    assert signal.reference == pytest.approx(norms.min() * low * (1 - delta))
    responses = torch.linalg.vector_norm((sample.data @ weights).unflatten(1, (6, 2)), dim=2)
    right = ((responses > 2.0) == sample.support).all(dim=1).double().mean().item()
    assert found[Quantity.EXACT_SUPPORTS].value == pytest.approx(right)
    for values, mask in ((found.inactive_responses, ~sample.support), (found.active_responses, sample.support)):
        np.testing.assert_allclose(values, np.quantile(responses[mask].numpy(), np.linspace(0, 1, 11)))
    second = x.reshape(-1, 2)[sample.support.numpy().flatten()]
    moment = np.mean(second**2)
    white = np.linalg.norm(second.T @ second / len(second) / moment - np.eye(2), 2)
    assert found[Quantity.WHITENESS].value == pytest.approx(white)
    assert found[Quantity.SECOND_MOMENT].value == pytest.approx(moment)
    shares = sample.support.double().mean(dim=0)
    spread = (shares - 1 / 3).abs().max().item()
    assert found[Quantity.SUPPORT_SHARES].value == pytest.approx(spread)
    assert found[Quantity.LARGEST_ANGLE].value == pytest.approx(principal_angles(weights, truth, 2).max().item())


def test_unequal_supports_are_noticed(ideal):
    """Fails if Assumption 2 holds for samples with one and with two active groups."""
    truth, weights, sample, _, penalty = ideal
    codes = sample.codes.clone()
    rows = torch.arange(len(codes)) % 2 == 0
    first = sample.support.int().argmax(dim=1)
    blocks = codes.unflatten(1, (4, 2))
    blocks[rows, first[rows]] = 0.0
    mixed = GroupSparseSample(codes @ truth.T, codes, group_norms(codes, 2) > 0)
    fact = certify(mixed, weights, penalty, 2, true_dictionary=truth)[Quantity.SUPPORT_SIZES]
    assert (fact.value, fact.reference, fact.holds) == (1.0, 2.0, False)


# --- without a truth --------------------------------------------------------------------------------------------------


def test_facts_without_a_truth(ideal):
    """Fails if a fact that needs no truth is wrong: the eigengap of a group's active data is kappa here."""
    _, weights, sample, population, penalty = ideal
    found = certify(sample.data, weights, penalty, 2)
    kappa = population.kappa
    # Active samples of a group also hold another group, a third of the time each: eigenvalues kappa and kappa / 3.
    gap = kappa * (1 - population.q)
    expected = {
        Quantity.ACTIVE_GROUPS: 2,
        Quantity.DEAD_GROUPS: 0,
        Quantity.INACTIVE_SAMPLES: 0,
        Quantity.NEAR_PENALTY: 0,
        Quantity.SMALLEST_EIGENGAP: gap,
        Quantity.LARGEST_EIGENGAP: gap,
        Quantity.LEADING_SPAN: 0,
        Quantity.MEAN_NORM: equilibrium_norm(population, penalty),
        Quantity.NEAREST_SPANS: 0,
        Quantity.DOUBLED_GROUPS: 0,
        Quantity.MIXED_GROUPS: 0,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-9, abs=1e-7), name
    assert found[Quantity.SMALLEST_EIGENGAP].holds is True
    assert found[Quantity.STABLE_STEP].value == pytest.approx(largest_step(population, penalty), rel=1e-5)
    (window,) = found.windows
    assert window.lower == pytest.approx(0, abs=1e-12)
    assert window.upper == pytest.approx(3 * equilibrium_norm(population, penalty)) and penalty in window
    same = certify(sample, weights, penalty, 2)  # codes are ignored
    assert same == found
    with pytest.raises(KeyError, match=r"no fact about .*DISTANCE.*; there are SMALLEST_NORM"):
        found[Quantity.DISTANCE]


def test_margins_and_dead_groups_without_a_truth(rng):
    """Fails if margins, inactive samples or dead groups are miscounted: responses laid out by hand, groups of one."""
    responses = torch.tensor([[2.0, 0.1, 0.0], [1.05, 0.95, 0.0], [0.5, 0.5, 0.0], [3.0, 1.2, 0.0]], dtype=DOUBLE)
    basis = torch.linalg.qr(gaussian(rng, 5, 3)).Q
    found = certify(responses @ basis.T, basis, 1.0, 1)
    assert found[Quantity.ACTIVE_GROUPS].value == pytest.approx(1.0)
    assert found[Quantity.DEAD_GROUPS].value == 1
    assert found[Quantity.INACTIVE_SAMPLES].value == pytest.approx(0.25)
    near = found[Quantity.NEAR_PENALTY]  # the second sample, in both groups
    assert (near.value, near.reference, near.holds) == (0.25, 0.1, False)
    squares = np.linalg.svd(responses[[0, 1, 3]].numpy(), compute_uv=False) ** 2 / 4
    assert found[Quantity.LARGEST_EIGENGAP].value == pytest.approx(squares[0] - squares[1])


def test_a_shared_line_does_not_double_a_group(rng):
    """Fails if squared cosines are not divided by d: one of two right angles is half of them, and not over 0.7."""
    first, second, third = torch.eye(3, dtype=DOUBLE)
    planes = [(first, second), (first, third), (first + second, first - second)]
    dictionary = torch.stack([column / column.norm() for plane in planes for column in plane], dim=1)
    assert certify(gaussian(rng, 50, 3), dictionary, 0.1, 2)[Quantity.DOUBLED_GROUPS].value == 1.0


def test_eigengap_of_a_plane_by_hand():
    """Fails if the gap is not that after the d-th eigenvalue, or the step not that of the spread: 26/6, 8/6, 2/6."""
    half = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [2.0, 0.0, -1.0]], dtype=DOUBLE)
    data = torch.cat([half, -half[:2]])
    found = certify(data, torch.eye(3, dtype=DOUBLE)[:, :2], 1.0, 2)
    gap, step = found[Quantity.SMALLEST_EIGENGAP], found[Quantity.RIEMANNIAN_STEP]
    assert gap.value == pytest.approx(1.0) and gap.holds and step.value == pytest.approx(0.5)
    assert found[Quantity.LEADING_SPAN].value == pytest.approx(0.0, abs=1e-7)


def test_data_window_keeps_supports(rng):
    """Fails if the window without a truth changes the supports of over 2 % of the samples at either end."""
    _, weights, sample = noisy(rng)
    (window,) = certify(sample.data, weights, 2.2, 2).windows
    norms = group_norms(sample.data @ weights, 2)
    for end in (window.lower, window.upper):
        assert ((norms > end) == (norms > 2.2)).all(dim=1).double().mean() > 0.98
    wider = window.lower - (2.2 - window.lower), window.upper + (window.upper - 2.2)
    for end in wider:
        assert ((norms > end) == (norms > 2.2)).all(dim=1).double().mean() < 0.995


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("with_truth", [True, False])
def test_mixed_and_doubled_groups_are_flagged(d, with_truth, rng):
    """Fails if a pair of mixed groups or a doubled one passes, or if the truth is flagged. 8 groups, two active, 20 dB.

    Groups 0 and 1 exchange a direction; 7 takes the span of 6, turned within and tilted by 0.3 rad.
    """
    truth = orthogonal(40, 8, d, rng)
    sample = GroupSparseSource(truth, d, 2, snr_db=20.0).sample(1500, generator=rng)
    mixed, doubled = truth.clone(), truth.clone()
    mixed[:, [0, d]] = truth[:, [d, 0]]
    turn = torch.linalg.qr(gaussian(rng, d, d)).Q
    tilted = math.cos(0.3) * truth[:, 6 * d : 7 * d] + math.sin(0.3) * truth[:, 7 * d :]
    doubled[:, 7 * d :] = tilted @ turn

    def flags(dictionary):
        found = certify(sample, dictionary, 2.0, d, true_dictionary=truth if with_truth else None)
        worst = found[Quantity.ANISOTROPY]
        assert worst.holds == (worst.value <= worst.reference)
        assert found[Quantity.DOUBLED_GROUPS].holds == (found[Quantity.DOUBLED_GROUPS].value == 0)
        return found[Quantity.DOUBLED_GROUPS].value, found[Quantity.MIXED_GROUPS].value, worst.holds

    assert flags(truth) == (0, 0, True)
    assert flags(mixed) == (0, 2, False)
    assert flags(doubled)[0] == 1


@pytest.mark.parametrize("lists", [False, True])
def test_groups_of_several_sizes_by_parts(lists, rng):
    """Fails if a fact of sizes 1, 3, 2, 3, 2 is not that of the parts of one size, or lists are not the sizes in order.

    Data of each part lie in a space of its own, so that no part knows of another; the third size's weights are 2.
    """
    sizes, weights = [1, 3, 2, 3, 2], torch.tensor([1.0, 1.0, 2.0, 1.0, 2.0], dtype=DOUBLE)
    bases = list(torch.linalg.qr(gaussian(rng, 14, 14)).Q.split([2, 7, 5], dim=1))
    blocks = [torch.linalg.qr(basis @ gaussian(rng, basis.shape[1], 6)[:, : basis.shape[1]]).Q for basis in bases]
    ones, threes, twos = blocks[0][:, :1], 1.1 * blocks[1][:, :6], blocks[2][:, :4] + 0.2 * gaussian(rng, 14, 4)
    twos = bases[2] @ (bases[2].T @ twos)
    whole = torch.cat([ones, threes[:, :3], twos[:, :2], threes[:, 3:], twos[:, 2:]], dim=1)
    data = [gaussian(rng, 90, basis.shape[1]) @ basis.T for basis in bases]
    groups = sizes
    if lists:
        order = torch.randperm(11, generator=rng)
        whole, places = whole[:, order], order.argsort()
        groups = [part.tolist() for part in places.split(sizes)]
    found = certify(torch.cat(data), whole, 0.5, groups, weights=weights)
    parts = [
        certify(rows, part, penalty, d)
        for rows, part, penalty, d in zip(data, (ones, threes, twos), (0.5, 0.5, 1.0), (1, 3, 2), strict=True)
    ]

    def of_parts(quantity):
        return [part[quantity].value for part in parts]

    for quantity, reduce in {
        Quantity.SMALLEST_NORM: min,
        Quantity.LARGEST_NORM: max,
        Quantity.GROUP_GRAM: max,
        Quantity.NEAREST_SPANS: max,
        Quantity.DOUBLED_GROUPS: sum,
        Quantity.DEAD_GROUPS: sum,
        Quantity.MIXED_GROUPS: sum,
        Quantity.ACTIVE_GROUPS: np.mean,
        Quantity.INACTIVE_SAMPLES: np.mean,
        Quantity.NEAR_PENALTY: np.mean,
        Quantity.SMALLEST_EIGENGAP: lambda values: min(values) / 3,  # M is over all samples
        Quantity.LARGEST_EIGENGAP: lambda values: max(values) / 3,
        Quantity.RIEMANNIAN_STEP: lambda values: min(values) * 3,
        Quantity.STABLE_STEP: lambda values: min(values) * 3,
    }.items():
        tolerance = 0.02 if quantity is Quantity.STABLE_STEP else 1e-9
        assert found[quantity].value == pytest.approx(reduce(of_parts(quantity)), rel=tolerance), quantity
    worst = max((part[Quantity.ANISOTROPY] for part in parts), key=lambda fact: fact.value / fact.reference)
    assert found[Quantity.ANISOTROPY].value == pytest.approx(worst.value)
    assert Certificate.from_json(found.to_json()) == found
    again = certify(torch.cat(data), whole, 0.5, groups, weights=weights, second_dictionary=whole)
    assert again[Quantity.REPEATED_SPANS].value == 1.0


def test_what_groups_of_several_sizes_refuse(ideal):
    """Fails if bounds of one size are given for several, or groups, weights and a second run need not fit."""
    truth, weights, sample, _, penalty = ideal
    for more, message in [
        ({"true_dictionary": truth}, "true_dictionary: the theory knows groups of one size"),
        ({"weights": [1.0]}, r"weights: expected 3 values"),
        ({"weights": [1.0, 0.0, 1.0]}, r"weights: expected positive values, got 0"),
        ({"second_dictionary": truth[:, :6]}, r"second_dictionary: expected 12 rows and 8 columns, got \(12, 6\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            certify(sample, weights, penalty, [2, 4, 2], **more)
    with pytest.raises(ValueError, match="groups: an atom is in several"):
        certify(sample, weights, penalty, [[0, 1, 2, 3], [3, 4, 5, 6, 7]])


@pytest.mark.parametrize("d", [1, 3])
def test_groups_that_a_second_run_repeats(d, rng):
    """Fails if turns within groups or their order count, if a tilted or missing group does not, or the level is off."""
    truth = orthogonal(60, 20, d, rng)
    sample = GroupSparseSource(truth, d, 2, snr_db=20.0).sample(300, generator=rng)
    away = at_angles(truth, d, torch.full((20, d), 0.4, dtype=DOUBLE), rng)

    def repeated(second):
        found = certify(sample.data, truth, 2.0, d, second_dictionary=second)[Quantity.REPEATED_SPANS]
        assert found.reference == 0.95
        return found.value, found.holds

    turned = as_groups(truth, d) @ torch.linalg.qr(gaussian(rng, 20, d, d)).Q
    assert repeated(from_groups(turned[torch.randperm(20, generator=rng)])) == (1, True)
    assert repeated(torch.cat([away[:, :d], truth[:, d:]], dim=1).float()) == (0.95, True)
    assert repeated(torch.cat([away[:, : 3 * d], truth[:, 3 * d :]], dim=1)) == (0.85, False)
    assert repeated(truth[:, : 10 * d]) == (0.5, False)


def test_anisotropy_of_a_mixed_plane_written_out(rng):
    """Fails if codes are those of other samples, or the level is another: d = 2 by 1 + |E exp(4 i phi)|.

    The columns of the second group are skew, and of norm 2: angles are those within its span.
    """
    basis = torch.linalg.qr(gaussian(rng, 10, 4)).Q
    data = gaussian(rng, 300, 4) ** 3 @ basis.T  # along the axes
    dictionary = torch.cat([basis[:, :2], 2 * basis[:, 2:] @ torch.tensor([[1.0, 0.5], [0.0, 0.75**0.5]]).double()], 1)
    found = certify(data, dictionary, 1.5, 2)[Quantity.ANISOTROPY]
    expected = []
    for g in range(2):
        rows = data.numpy() @ dictionary[:, 2 * g : 2 * g + 2].numpy()
        z = (data @ basis).numpy()[np.linalg.norm(rows, axis=1) > 1.5, 2 * g : 2 * g + 2] @ [1, 1j]
        expected.append((1 + abs(((z / abs(z)) ** 4).mean()), (1 + math.sqrt(2 / len(z))) ** 2))
    worst = max(expected, key=lambda pair: pair[0] / pair[1])
    assert (found.value, found.reference) == pytest.approx(worst)
    assert found.holds is False


def test_a_certificate_from_before_these_facts_is_read(rng):
    """Fails if recorded certificates, which know neither doubled nor mixed groups, cannot be read."""
    _, weights, sample = noisy(rng)
    found = certify(sample.data, weights, 2.2, 2)
    fields = json.loads(found.to_json())
    new = (Quantity.DOUBLED_GROUPS, Quantity.ANISOTROPY, Quantity.MIXED_GROUPS)
    fields["facts"] = [fact for fact in fields["facts"] if fact["quantity"] not in new]
    old = Certificate.from_json(json.dumps(fields))
    assert len(old.facts) == len(found.facts) - 3
    assert old[Quantity.NEAREST_SPANS] == found[Quantity.NEAREST_SPANS]
    with pytest.raises(KeyError, match="no fact about"):
        old[Quantity.MIXED_GROUPS]


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("threshold", [2.0, 0.01, 1e6])
def test_json_round_trip(with_truth, threshold, rng):
    """Fails if a field is lost, or not equal to itself after reading, whatever the threshold does to the supports."""
    truth, weights, sample = noisy(rng)
    found = certify(sample, weights, threshold, 2, true_dictionary=truth if with_truth else None)
    text = found.to_json()
    assert isinstance(json.loads(text, parse_constant=pytest.fail), dict)  # JSON has no Infinity and no NaN
    again = Certificate.from_json(text)
    assert isinstance(again.facts[0], Fact) and isinstance(again.windows, tuple)
    assert again == found
    assert str(again) == str(found)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"facts": [1]}', '{"facts": [], "windows": [{"x": 1}]}'])
def test_from_json_rejects(text):
    """Fails if text that is no certificate raises anything but a named error."""
    with pytest.raises(ValueError, match="text: not a certificate"):
        Certificate.from_json(text)


@pytest.mark.parametrize("with_truth", [True, False])
def test_table_and_text(with_truth, rng):
    """Fails if a fact or a window is missing in a form, or in the wrong section."""
    truth, weights, sample = noisy(rng)
    found = certify(sample, weights, 2.0, 2, true_dictionary=truth if with_truth else None)
    table = found.table()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["section", "quantity", "value", "reference", "holds"]
    assert len(table) == len(found.facts) + len(found.windows) and set(table.section) <= set(SECTIONS)
    values = dict(zip(table.quantity, table.value, strict=True))
    assert all(values[fact.quantity] == fact.value for fact in found.facts)
    rows = table[table.quantity.str.startswith("window: ")]
    assert list(rows.holds) == [2.0 in window for window in found.windows]
    lines = str(found).splitlines()
    assert lines[0] == "certificate for penalty 2, 400 samples"
    assert [line for line in lines[1:] if line in SECTIONS] == [s for s in SECTIONS if s in set(table.section)]
    for fact in found.facts:
        (line,) = (line for line in lines if line.startswith(f"  {fact.quantity}  "))
        assert f"{fact.value:.4g}" in line
        assert line.endswith({True: "yes", False: "NO", None: ""}[fact.holds])


def test_single_precision_and_double_agree(rng):
    """Fails if weights or data in float32 change a fact by more than their rounding, or count as noise."""
    truth = orthogonal(12, 4, 2, rng)
    sample = GroupSparseSource(truth, 2, 1).sample(200, generator=rng)
    single = GroupSparseSample(sample.data.float(), sample.codes.float(), sample.support)
    exact = certify(sample, 1.2 * truth, 2.0, 2, true_dictionary=truth)
    rounded = certify(single, 1.2 * truth.float(), 2.0, 2, true_dictionary=truth.float())
    for a, b in zip(exact.facts, rounded.facts, strict=True):
        assert (a.quantity, a.value) == (b.quantity, pytest.approx(b.value, abs=1e-4, rel=1e-4))
    assert [w.holds for w in exact.windows] == [w.holds for w in rounded.windows]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_threshold_that_zeroes_everything(with_truth, ideal):
    """Fails if it crashes, or a flat loss limits the step: no gradient anywhere, so any step is stable."""
    truth, weights, sample, _, _ = ideal
    found = certify(sample, weights, 1e6, 2, true_dictionary=truth if with_truth else None)
    assert "certificate" in str(found)
    if with_truth:
        assert found[Quantity.EXACT_SUPPORTS].value == 0
        assert 1e6 not in found.windows[1]
    else:
        assert found[Quantity.DEAD_GROUPS].value == 4
        assert found[Quantity.INACTIVE_SAMPLES].value == 1
        assert found.active_responses == ()
        assert not math.isnan(found.windows[0].upper)
    assert found[Quantity.STABLE_STEP].value == math.inf


@pytest.mark.parametrize("groups, gamma", [(3, 3), (1, 1)])
def test_every_group_active(groups, gamma, rng):
    """Fails if a sample without an inactive group, legal for `Population` and the source, cannot be certified."""
    truth = orthogonal(10, groups, 2, rng)
    sample = GroupSparseSource(truth, 2, gamma).sample(100, generator=rng)
    found = certify(sample, truth, 1.0, 2, true_dictionary=truth)
    assert found[Quantity.EXACT_SUPPORTS].value == 1
    assert found.inactive_responses == ()


def test_the_stable_riemannian_step_is_stable(rng):
    """Fails if steps up to half of the certified one leave the leading span: one group, energies 16 and 1 in it.

    The mode of the direction with energy e shrinks by 1 - eta (e - e_other), so 2 / (16 - 0) is the bound, and not 2 /
    (1 - 0), from the eigengap, that contracts the slowest mode alone.
    """
    truth = torch.eye(6, 2, dtype=DOUBLE)
    codes = torch.tensor([[4.0, 0], [0, 1.0], [-4.0, 0], [0, -1.0]], dtype=DOUBLE) * 2**0.5
    data = codes @ truth.T
    weights = polar(truth + 1e-4 * gaussian(rng, 6, 2))
    facts = certify(data, weights, 0.5, 2).facts
    (largest,) = (fact.value for fact in facts if fact.quantity is Quantity.RIEMANNIAN_STEP)
    step = 0.5 * largest
    for _ in range(20):
        weights = riemannian_step(weights, sample_gradient(data, weights, 0.5, 2), step, 2)
        assert (group_norms(data @ weights, 2) > 0.5).all()
    assert principal_angles(weights, truth, 2).max().item() < 1e-4


BAD = [
    ({"penalty": 0.0}, "penalty=0.0"),
    ({"penalty": -1.0}, "penalty=-1.0"),
    ({"penalty": math.nan}, "penalty=nan"),
    ({"groups": 3}, "group_size=3"),
    ({"groups": 0}, "group_size=0"),
    ({"dictionary": torch.ones(12, dtype=DOUBLE)}, "dictionary: expected"),
    ({"dictionary": torch.full((12, 8), math.nan, dtype=DOUBLE)}, "dictionary: has non-finite"),
    ({"dictionary": torch.ones(12, 8, dtype=torch.int64)}, "dictionary: expected a floating"),
    ({"second_dictionary": torch.ones(11, 8, dtype=DOUBLE)}, "second_dictionary: expected 12 rows and groups of 2"),
    ({"second_dictionary": torch.ones(12, 7, dtype=DOUBLE)}, "second_dictionary: expected 12 rows"),
]


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("change, message", BAD, ids=[message for _, message in BAD])
def test_rejects(change, message, with_truth, ideal):
    """Fails if an argument that cannot work is not named, with a truth or without."""
    truth, weights, sample, _, penalty = ideal
    good = {"dictionary": weights, "true_dictionary": truth if with_truth else None, "sample": sample}
    with pytest.raises(ValueError, match=message):
        certify(**(good | {"penalty": penalty, "groups": 2} | change))


def test_rejects_what_does_not_belong_together(ideal):
    """Fails if shapes, norms or codes that do not fit are not named."""
    truth, weights, sample, _, _ = ideal

    def refuses(message, dictionary=weights, true_dictionary=truth, sample=sample):
        with pytest.raises(ValueError, match=message):
            certify(sample, dictionary, 1.0, 2, true_dictionary=true_dictionary)

    refuses(r"true_dictionary: expected the dictionary's shape \(12, 8\), got \(12, 6\)", true_dictionary=truth[:, :6])
    refuses("true_dictionary: expected unit columns, got norms 2 to 2", true_dictionary=2 * truth)
    refuses("true_dictionary: has non-finite", true_dictionary=truth * math.inf)
    refuses("sample: expected a GroupSparseSample", sample=sample.data)
    refuses("sample: expected 12 columns", true_dictionary=None, sample=sample.data[:, :11])
    refuses("sample: has non-finite", true_dictionary=None, sample=sample.data * math.nan)
    refuses("sample.codes: expected 8 columns",
            sample=GroupSparseSample(sample.data, sample.codes[:, :6], sample.support))  # fmt: skip
    refuses("sample.codes: expected an active group",
            sample=GroupSparseSample(sample.data, 0 * sample.codes, sample.support))  # fmt: skip
    refuses("sample.codes: expected an active group in each of as many samples",
            sample=GroupSparseSample(sample.data[:-1], sample.codes, sample.support))  # fmt: skip
    refuses("sample.codes: has non-finite",
            sample=GroupSparseSample(sample.data, sample.codes * math.nan, sample.support))  # fmt: skip
    zero = weights.clone()
    zero[:, 0] = 0
    refuses("dictionary: expected no zero column", dictionary=zero)


def test_the_sample_is_not_changed(ideal):
    """Fails if certifying writes to its arguments, or leaves a gradient on the weights."""
    truth, weights, sample, _, penalty = ideal
    kept = weights.clone(), truth.clone(), sample.data.clone(), sample.codes.clone()
    trained = weights.clone().requires_grad_()
    certify(sample, trained, penalty, 2, true_dictionary=truth)
    assert trained.grad is None
    for before, after in zip(kept, (trained.detach(), truth, sample.data, sample.codes), strict=True):
        assert torch.equal(before, after)


def test_rotations_within_groups_change_nothing_that_is_identifiable(ideal, rng):
    """Fails if a fact about spans depends on the basis of a group, which no data determine."""
    truth, _, sample, _, penalty = ideal
    weights = from_groups(polar(as_groups(truth + 0.05 * gaussian(rng, 12, 8), 2)))
    turns = torch.stack([torch.linalg.qr(gaussian(rng, 2, 2)).Q for _ in range(4)])
    turned = from_groups(as_groups(weights, 2) @ turns)
    first, second = (certify(sample, w, penalty, 2, true_dictionary=truth) for w in (weights, turned))
    for name in (Quantity.LARGEST_ANGLE, Quantity.SPAN_RATE,
                 Quantity.WEAKEST_SIGNAL, Quantity.NEAREST_SPANS,
                 Quantity.EXACT_SUPPORTS):  # fmt: skip
        assert first[name].value == pytest.approx(second[name].value, rel=1e-7, abs=1e-12), name
