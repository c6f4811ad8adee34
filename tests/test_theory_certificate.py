"""The certificate: every fact against its own definition in an idealised case, its forms, and what it refuses."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from gsae_lib.dictionary import as_groups, block_coherence, from_groups, polar
from gsae_lib.generative import GroupSparseSample, GroupSparseSource, coherent_dictionary, gaussian_dictionary
from gsae_lib.groups import group_norms
from gsae_lib.metrics import principal_angles
from gsae_lib.theory.certificate import SECTIONS, Certificate, Fact, certify
from gsae_lib.theory.floors import coherence_bias
from gsae_lib.theory.gradient import riemannian_step, sample_gradient
from gsae_lib.theory.population import Population, designed_sample
from gsae_lib.theory.rates import equilibrium_norm, hessian_spectrum, largest_step, loss_hessian, plain_rates
from gsae_lib.theory.windows import crosstalk_bound, predicted_success, support_recovery_windows

DOUBLE = torch.float64
PLAIN_STEP = "largest stable step of plain gradient descent on this sample"


def gaussian(rng, *shape):
    """A standard Gaussian array in double precision."""
    return torch.randn(*shape, generator=rng, dtype=DOUBLE)


def orthogonal(n, groups, d, rng, coherence=0.0):
    """Orthonormal groups with A_g^T A_h = coherence * I."""
    return coherent_dictionary(n, groups, d, coherence / d, generator=rng, dtype=DOUBLE)


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
    found = certify(weights, truth, sample=sample, threshold=penalty, group_size=2)
    rho = equilibrium_norm(population, penalty)
    top = max(mode.eigenvalue for mode in hessian_spectrum(population, penalty))
    expected = {
        "column norm, smallest": rho,
        "column norm, mean": rho,
        "column norm, largest": rho,
        "in-group Gram matrix of unit columns, off identity": 0,
        "cosine of the nearest two spans, d mu_B": 0,
        "1: smallest norm of an active group, B_min": 3,
        "1: largest norm of an active group, B_max": 3,
        "2: active groups a sample, least and most equal": 2,
        "2: P(g in S), largest deviation": 0,
        "3: second moment of an active entry (printed: 1)": 4.5,
        "3: whiteness of active groups, deviation": 0,
        "4: orthonormal groups of the weights, deviation": rho**2 - 1,
        "delta, largest ||W_g - A*_g||_F, unit columns": 0,
        "block coherence of the truth, d mu_B": 0,
        "Prop. 1: weakest signal, at least rho B_min (1 - delta)": 3 * rho,
        "Prop. 2, corrected: loudest cross-talk, at most": 0,
        "supports exactly right; predicted for random directions": 1,
        "principal angles to the truth, largest, rad": 0,
        "kappa, the rate of spans of orthonormal groups": population.kappa,
        "column norm; predicted at rest for plain gradient descent": rho,
        "tangent of angles, rms; coherence bias below it": 0,
        "largest curvature predicted, orthogonal truth": top,
        "largest stable step predicted": 2 / top,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-12, rel=1e-12), name
    assert found[PLAIN_STEP].value == pytest.approx(2 / top, rel=1e-5)  # by power iteration, in float32
    assert {fact.name for fact in found.facts} == {*expected, PLAIN_STEP}
    references = {
        "column norm; predicted at rest for plain gradient descent": rho,
        "tangent of angles, rms; coherence bias below it": coherence_bias(population, penalty, "plain"),
        "supports exactly right; predicted for random directions": predicted_success(
            population, penalty, weight_norm=rho
        ),
        "Prop. 1: weakest signal, at least rho B_min (1 - delta)": 3 * rho,
        "2: P(g in S), largest deviation": 5 * math.sqrt(0.5 / len(sample.data)),
        "3: whiteness of active groups, deviation": 10 / math.sqrt(2 * len(sample.data)),
        "3: second moment of an active entry (printed: 1)": 1.0,
    }
    for name, value in references.items():
        assert found[name].reference == pytest.approx(value, rel=1e-9), name
    for name in ("2: active groups a sample, least and most equal", "2: P(g in S), largest deviation",
                 "3: whiteness of active groups, deviation",
                 "column norm; predicted at rest for plain gradient descent"):  # fmt: skip
        assert found[name].holds is True, name
    for name in ("3: second moment of an active entry (printed: 1)", "4: orthonormal groups of the weights, deviation"):
        assert found[name].holds is False, name
    assert found.num_samples == len(sample.data) and found.penalty == penalty
    assert [SECTIONS.index(fact.section) for fact in found.facts] == sorted(
        SECTIONS.index(fact.section) for fact in found.facts
    )


def test_windows_of_the_ideal_case(ideal):
    """Fails if the windows are those of another model: the worst-case ones are all [0, rho B_min) here."""
    truth, weights, sample, population, penalty = ideal
    found = certify(weights, truth, sample=sample, threshold=penalty, group_size=2)
    direct = support_recovery_windows(weights, truth, population)
    assert [window.name for window in found.windows] == list(direct)
    for window in found.windows:
        for end in ("lower", "upper"):
            assert getattr(window, end) == pytest.approx(getattr(direct[window.name], end), abs=1e-9)
        if window.name in ("corrected", "angles", "cumulative"):
            assert penalty in window and window.lower == pytest.approx(0, abs=1e-12)
            assert window.upper == pytest.approx(3 * equilibrium_norm(population, penalty))
    # All groups of the right support respond with rho c, the others not at all.
    np.testing.assert_allclose(found.silent_responses, 0, atol=1e-12)
    np.testing.assert_allclose(found.active_responses, 3 * equilibrium_norm(population, penalty), rtol=1e-12)
    assert len(found.silent_responses) == len(found.active_responses) == 11


def test_orthonormal_weights_meet_assumption_4(ideal):
    """Fails if unit norm is not recognised, or the weights' angle to the truth is not measured: 0.2 rad, one group."""
    truth, _, sample, _, penalty = ideal
    found = certify(truth, truth, sample=sample, threshold=penalty, group_size=2)
    assert found["4: orthonormal groups of the weights, deviation"].holds is True
    assert found["column norm; predicted at rest for plain gradient descent"].holds is False
    turned = truth.clone()
    away = torch.linalg.qr(torch.cat((truth, torch.ones(12, 1, dtype=DOUBLE)), dim=1)).Q[:, -1]
    turned[:, 3] = math.cos(0.2) * truth[:, 3] + math.sin(0.2) * away
    found = certify(turned, truth, sample=sample, threshold=penalty, group_size=2)
    assert found["principal angles to the truth, largest, rad"].value == pytest.approx(0.2)
    delta = 2 * math.sin(0.1)
    assert found["delta, largest ||W_g - A*_g||_F, unit columns"].value == pytest.approx(delta)
    assert found["tangent of angles, rms; coherence bias below it"].value == pytest.approx(math.tan(0.2) / 8**0.5)
    signal = found["Prop. 1: weakest signal, at least rho B_min (1 - delta)"]
    # The hexagon's points nearest to the turned column are 30 degrees from it.
    expected = 3 * math.sqrt(0.75 * math.cos(0.2) ** 2 + 0.25)
    assert signal.value == pytest.approx(expected) and signal.reference == pytest.approx(3 * (1 - delta))
    assert signal.holds is True


def test_rate_of_spans_is_the_plain_rate_near_rest(ideal, rng):
    """Fails if the measured rate is not <grad, gap> / ||gap||^2, within the angle's square of the prediction."""
    truth, weights, sample, population, penalty = ideal
    basis = torch.linalg.qr(torch.cat((truth, gaussian(rng, 12, 4)), dim=1)).Q[:, 8:]
    moved = weights + 1e-3 * basis @ gaussian(rng, 4, 8)
    fact = certify(moved, truth, sample=sample, threshold=penalty, group_size=2)[
        "rate of spans here; predicted at that norm"
    ]
    assert fact.reference == pytest.approx(plain_rates(population, penalty).outside, rel=1e-9)
    assert fact.value == pytest.approx(fact.reference, rel=1e-4)


def test_the_largest_step_is_that_of_the_samples_hessian(rng):
    """Fails if the power iteration is not near the top eigenvalue, or its factor 2 is missing: a noisy small model."""
    truth = orthogonal(9, 3, 2, rng)
    sample = GroupSparseSource(truth, 2, 2, snr_db=20.0).sample(150, generator=rng)
    weights = 1.25 * truth + 0.01 * gaussian(rng, 9, 6)
    top = torch.linalg.eigvalsh(loss_hessian(weights, sample.data, 2.0, 2))[-1].item()
    for dictionary in (truth, None):
        found = certify(weights, dictionary, sample=sample, threshold=2.0, group_size=2)
        assert found[PLAIN_STEP].value == pytest.approx(2 / top, rel=0.03)


def test_facts_of_a_noisy_model(rng):
    """Fails if a definition slips where nothing is ideal: signals, cross-talk, supports and deciles written out."""
    truth, weights, sample = noisy(rng)
    found = certify(weights, truth, sample=sample, threshold=2.0, group_size=2)
    w, a = (x.numpy() for x in (weights, truth))
    x = sample.codes.numpy().reshape(400, 6, 2)
    loudest, weakest = 0.0, math.inf
    for k in range(400):
        for g in range(6):
            block = w[:, 2 * g : 2 * g + 2]
            if sample.support[k, g]:
                weakest = min(weakest, np.linalg.norm(block.T @ a[:, 2 * g : 2 * g + 2] @ x[k, g]))
            else:
                loudest = max(loudest, np.linalg.norm(block.T @ a @ sample.codes[k].numpy()))
    signal = found["Prop. 1: weakest signal, at least rho B_min (1 - delta)"]
    talk = found["Prop. 2, corrected: loudest cross-talk, at most"]
    assert signal.value == pytest.approx(weakest) and talk.value == pytest.approx(loudest)
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
    assert found["supports exactly right; predicted for random directions"].value == pytest.approx(right)
    for values, mask in ((found.silent_responses, ~sample.support), (found.active_responses, sample.support)):
        np.testing.assert_allclose(values, np.quantile(responses[mask].numpy(), np.linspace(0, 1, 11)))
    second = x.reshape(-1, 2)[sample.support.numpy().flatten()]
    moment = np.mean(second**2)
    white = np.linalg.norm(second.T @ second / len(second) / moment - np.eye(2), 2)
    assert found["3: whiteness of active groups, deviation"].value == pytest.approx(white)
    assert found["3: second moment of an active entry (printed: 1)"].value == pytest.approx(moment)
    shares = sample.support.double().mean(dim=0)
    spread = (shares - 1 / 3).abs().max().item()
    assert found["2: P(g in S), largest deviation"].value == pytest.approx(spread)
    assert found["principal angles to the truth, largest, rad"].value == pytest.approx(
        principal_angles(weights, truth, 2).max().item()
    )


def test_unequal_supports_are_noticed(ideal):
    """Fails if Assumption 2 holds for samples with one and with two active groups."""
    truth, weights, sample, _, penalty = ideal
    codes = sample.codes.clone()
    rows = torch.arange(len(codes)) % 2 == 0
    first = sample.support.int().argmax(dim=1)
    blocks = codes.unflatten(1, (4, 2))
    blocks[rows, first[rows]] = 0.0
    mixed = GroupSparseSample(codes @ truth.T, codes, group_norms(codes, 2) > 0)
    fact = certify(weights, truth, sample=mixed, threshold=penalty, group_size=2)[
        "2: active groups a sample, least and most equal"
    ]
    assert (fact.value, fact.reference, fact.holds) == (1.0, 2.0, False)


# --- without a truth --------------------------------------------------------------------------------------------------


def test_facts_without_a_truth(ideal):
    """Fails if a fact that needs no truth is wrong: the eigengap of a group's active data is kappa here."""
    _, weights, sample, population, penalty = ideal
    found = certify(weights, sample=sample.data, threshold=penalty, group_size=2)
    kappa = population.kappa
    # Active samples of a group also hold another group, a third of the time each: eigenvalues kappa and kappa / 3.
    gap = kappa * (1 - population.q)
    expected = {
        "active groups a sample, mean": 2,
        "groups that are never active": 0,
        "samples with no active group, share": 0,
        "responses within 10 % of the threshold, share": 0,
        "eigengap of a group's active data, smallest": gap,
        "eigengap of a group's active data, largest": gap,
        "angle to the leading span of its active data, rms": 0,
        "column norm, mean": equilibrium_norm(population, penalty),
        "cosine of the nearest two spans, d mu_B": 0,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-9, abs=1e-7), name
    assert found["eigengap of a group's active data, smallest"].holds is True
    assert found[PLAIN_STEP].value == pytest.approx(largest_step(population, penalty), rel=1e-5)
    (window,) = found.windows
    assert window.lower == pytest.approx(0, abs=1e-12)
    assert window.upper == pytest.approx(3 * equilibrium_norm(population, penalty)) and penalty in window
    same = certify(weights, sample=sample, threshold=penalty, group_size=2)  # codes are ignored
    assert same == found
    with pytest.raises(KeyError, match="no fact is called 'delta'; there are column norm"):
        found["delta"]


def test_margins_and_dead_groups_without_a_truth(rng):
    """Fails if margins, silent samples or dead groups are miscounted: responses laid out by hand, groups of one."""
    responses = torch.tensor([[2.0, 0.1, 0.0], [1.05, 0.95, 0.0], [0.5, 0.5, 0.0], [3.0, 1.2, 0.0]], dtype=DOUBLE)
    basis = torch.linalg.qr(gaussian(rng, 5, 3)).Q
    found = certify(basis, sample=responses @ basis.T, threshold=1.0, group_size=1)
    assert found["active groups a sample, mean"].value == pytest.approx(1.0)
    assert found["groups that are never active"].value == 1
    assert found["samples with no active group, share"].value == pytest.approx(0.25)
    assert found["responses within 10 % of the threshold, share"].value == pytest.approx(2 / 12)
    squares = np.linalg.svd(responses[[0, 1, 3]].numpy(), compute_uv=False) ** 2 / 4
    assert found["eigengap of a group's active data, largest"].value == pytest.approx(squares[0] - squares[1])


def test_data_window_keeps_supports(rng):
    """Fails if the window without a truth changes the supports of over 2 % of the samples at either end."""
    _, weights, sample = noisy(rng)
    (window,) = certify(weights, sample=sample.data, threshold=2.2, group_size=2).windows
    norms = group_norms(sample.data @ weights, 2)
    for end in (window.lower, window.upper):
        assert ((norms > end) == (norms > 2.2)).all(dim=1).double().mean() > 0.98
    wider = window.lower - (2.2 - window.lower), window.upper + (window.upper - 2.2)
    for end in wider:
        assert ((norms > end) == (norms > 2.2)).all(dim=1).double().mean() < 0.995


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("threshold", [2.0, 0.01, 1e6])
def test_json_round_trip(with_truth, threshold, rng):
    """Fails if a field is lost, or not equal to itself after reading, whatever the threshold does to the supports."""
    truth, weights, sample = noisy(rng)
    found = certify(weights, truth if with_truth else None, sample=sample, threshold=threshold, group_size=2)
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
    found = certify(weights, truth if with_truth else None, sample=sample, threshold=2.0, group_size=2)
    table = found.table()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["section", "name", "value", "reference", "holds"]
    assert len(table) == len(found.facts) + len(found.windows) and set(table.section) <= set(SECTIONS)
    values = dict(zip(table.name, table.value, strict=True))
    assert all(values[fact.name] == fact.value for fact in found.facts)
    rows = table[table.name.str.startswith("window: ")]
    assert list(rows.holds) == [2.0 in window for window in found.windows]
    lines = str(found).splitlines()
    assert lines[0] == "certificate for threshold 2, 400 samples"
    assert [line for line in lines[1:] if line in SECTIONS] == [s for s in SECTIONS if s in set(table.section)]
    for fact in found.facts:
        (line,) = (line for line in lines if line.startswith(f"  {fact.name}  "))
        assert f"{fact.value:.4g}" in line
        assert line.endswith({True: "yes", False: "NO", None: ""}[fact.holds])


def test_single_precision_and_double_agree(rng):
    """Fails if weights or data in float32 change a fact by more than their rounding, or count as noise."""
    truth = orthogonal(12, 4, 2, rng)
    sample = GroupSparseSource(truth, 2, 1).sample(200, generator=rng)
    single = GroupSparseSample(sample.data.float(), sample.codes.float(), sample.support)
    settings = {"threshold": 2.0, "group_size": 2}
    exact = certify(1.2 * truth, truth, sample=sample, **settings)
    rounded = certify(1.2 * truth.float(), truth.float(), sample=single, **settings)
    for a, b in zip(exact.facts, rounded.facts, strict=True):
        assert (a.name, a.value) == (b.name, pytest.approx(b.value, abs=1e-4, rel=1e-4))
    assert [w.holds for w in exact.windows] == [w.holds for w in rounded.windows]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_threshold_that_silences_everything(with_truth, ideal):
    """Fails if it crashes, or a flat loss limits the step: no gradient anywhere, so any step is stable."""
    truth, weights, sample, _, _ = ideal
    found = certify(weights, truth if with_truth else None, sample=sample, threshold=1e6, group_size=2)
    assert "certificate" in str(found)
    if with_truth:
        assert found["supports exactly right; predicted for random directions"].value == 0
        assert 1e6 not in found.windows[1]
    else:
        assert found["groups that are never active"].value == 4
        assert found["samples with no active group, share"].value == 1
        assert found.active_responses == ()
        assert not math.isnan(found.windows[0].upper)
    assert found[PLAIN_STEP].value == math.inf


@pytest.mark.parametrize("groups, gamma", [(3, 3), (1, 1)])
def test_every_group_active(groups, gamma, rng):
    """Fails if a sample without a silent group, legal for `Population` and `GroupSparseSource`, cannot be certified."""
    truth = orthogonal(10, groups, 2, rng)
    sample = GroupSparseSource(truth, 2, gamma).sample(100, generator=rng)
    found = certify(truth, truth, sample=sample, threshold=1.0, group_size=2)
    assert found["supports exactly right; predicted for random directions"].value == 1
    assert found.silent_responses == ()


def test_the_stable_riemannian_step_is_stable(rng):
    """Fails if steps up to half of the certified one leave the leading span: one group, energies 16 and 1 in it.

    The mode of the direction with energy e shrinks by 1 - eta (e - e_other), so 2 / (16 - 0) is the bound, and not 2 /
    (1 - 0), from the eigengap, that contracts the slowest mode alone.
    """
    truth = torch.eye(6, 2, dtype=DOUBLE)
    codes = torch.tensor([[4.0, 0], [0, 1.0], [-4.0, 0], [0, -1.0]], dtype=DOUBLE) * 2**0.5
    data = codes @ truth.T
    weights = polar(truth + 1e-4 * gaussian(rng, 6, 2))
    facts = certify(weights, sample=data, threshold=0.5, group_size=2).facts
    (largest,) = (fact.value for fact in facts if fact.name.startswith("largest stable Riemannian step"))
    step = 0.5 * largest
    for _ in range(20):
        weights = riemannian_step(weights, sample_gradient(weights, data, 0.5, 2), step, 2)
        assert (group_norms(data @ weights, 2) > 0.5).all()
    assert principal_angles(weights, truth, 2).max().item() < 1e-4


BAD = [
    ({"threshold": 0.0}, "threshold=0.0"),
    ({"threshold": -1.0}, "threshold=-1.0"),
    ({"threshold": math.nan}, "threshold=nan"),
    ({"group_size": 3}, "group_size=3"),
    ({"group_size": 0}, "group_size=0"),
    ({"weights": torch.ones(12, dtype=DOUBLE)}, "weights: expected"),
    ({"weights": torch.full((12, 8), math.nan, dtype=DOUBLE)}, "weights: has non-finite"),
    ({"weights": torch.ones(12, 8, dtype=torch.int64)}, "weights: expected a floating"),
]


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("change, message", BAD, ids=[message for _, message in BAD])
def test_rejects(change, message, with_truth, ideal):
    """Fails if an argument that cannot work is not named, with a truth or without."""
    truth, weights, sample, _, penalty = ideal
    good = {"weights": weights, "dictionary": truth if with_truth else None, "sample": sample}
    with pytest.raises(ValueError, match=message):
        certify(**(good | {"threshold": penalty, "group_size": 2} | change))


def test_rejects_what_does_not_belong_together(ideal):
    """Fails if shapes, norms or codes that do not fit are not named."""
    truth, weights, sample, _, _ = ideal
    settings = {"threshold": 1.0, "group_size": 2}

    def refuses(message, weights=weights, dictionary=truth, sample=sample):
        with pytest.raises(ValueError, match=message):
            certify(weights, dictionary, sample=sample, **settings)

    refuses(r"dictionary: expected the weights' shape \(12, 8\), got \(12, 6\)", dictionary=truth[:, :6])
    refuses("dictionary: expected unit columns, got norms 2 to 2", dictionary=2 * truth)
    refuses("dictionary: has non-finite", dictionary=truth * math.inf)
    refuses("sample: expected a GroupSparseSample", sample=sample.data)
    refuses("sample: expected 12 columns", dictionary=None, sample=sample.data[:, :11])
    refuses("sample: has non-finite", dictionary=None, sample=sample.data * math.nan)
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
    refuses("weights: expected no zero column", weights=zero)


def test_the_sample_is_not_changed(ideal):
    """Fails if certifying writes to its arguments, or leaves a gradient on the weights."""
    truth, weights, sample, _, penalty = ideal
    kept = weights.clone(), truth.clone(), sample.data.clone(), sample.codes.clone()
    trained = weights.clone().requires_grad_()
    certify(trained, truth, sample=sample, threshold=penalty, group_size=2)
    assert trained.grad is None
    for before, after in zip(kept, (trained.detach(), truth, sample.data, sample.codes), strict=True):
        assert torch.equal(before, after)


def test_rotations_within_groups_change_nothing_that_is_identifiable(ideal, rng):
    """Fails if a fact about spans depends on the basis of a group, which no data determine."""
    truth, _, sample, _, penalty = ideal
    weights = from_groups(polar(as_groups(truth + 0.05 * gaussian(rng, 12, 8), 2)))
    turns = torch.stack([torch.linalg.qr(gaussian(rng, 2, 2)).Q for _ in range(4)])
    turned = from_groups(as_groups(weights, 2) @ turns)
    first, second = (certify(w, truth, sample=sample, threshold=penalty, group_size=2) for w in (weights, turned))
    for name in ("principal angles to the truth, largest, rad", "rate of spans here; predicted at that norm",
                 "Prop. 1: weakest signal, at least rho B_min (1 - delta)", "cosine of the nearest two spans, d mu_B",
                 "supports exactly right; predicted for random directions"):  # fmt: skip
        assert first[name].value == pytest.approx(second[name].value, rel=1e-7, abs=1e-12), name
