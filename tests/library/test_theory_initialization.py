"""The start from data alone: its angle against principal directions, its theorems against runs of start and training.

Start, training and selection are written here anew, in numpy where it is no detour, and share no code with the library.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gsae_lib.generative import GroupSparseSource, coherent_dictionary, gaussian_dictionary
from gsae_lib.theory import Population
from gsae_lib.theory.initialization import (
    correlated_share,
    end_to_end_guarantee,
    predicted_pairs,
    predicted_start_angle,
    smallest_start_samples,
    spike_strength,
    spiked_angle,
    start_angle_draws,
    sufficient_samples,
)

SEEDS = st.integers(0, 2**31)
DOUBLE = torch.float64
PAPER = Population(950, 500, 2, 3, (4.0, 5.0), 0.2258, orthonormal=False)  # 1 dB


def largest_angle(span, truth):
    """The largest principal angle of two orthonormal bases, accurate for small ones."""
    return math.asin(min(np.linalg.norm(truth - span @ (span.T @ truth), 2), 1.0))


def principal(rows, d):
    """The d leading principal directions of the rows, uncentred."""
    return np.linalg.svd(rows, full_matrices=False)[2][:d].T


@pytest.mark.parametrize(("strength", "n", "k"), [(4.0, 900, 300), (1.2, 300, 900), (40.0, 1500, 60)])
def test_angle_of_one_spike_in_white_noise(strength, n, k):
    """Fails if the limit is mistyped: the leading singular vector of large matrices, one direction plus white noise."""
    rng = np.random.default_rng(0)
    cosines = []
    for _ in range(8):
        noise = rng.standard_normal((k, n))
        noise[:, 0] += strength**0.5 * np.sqrt(k) * (code := rng.standard_normal(k)) / np.linalg.norm(code)
        cosines.append(abs(principal(noise, 1)[0, 0]))
    assert abs(np.mean(cosines) - math.cos(spiked_angle(strength, n / k))) < 0.015


def test_no_angle_below_the_transition():
    """Fails if the threshold is not l^2 = n / k."""
    assert spiked_angle(2.0, 4.0) == math.pi / 2 > spiked_angle(2.0, 3.99) > 1.4
    assert spiked_angle(math.inf, 5.0) == 0.0


@pytest.mark.parametrize(
    ("sizes", "n_samples", "snr_db"), [((500, 150, 2, 2), 3000, 1.0), ((300, 60, 3, 1), 1500, -2.0)]
)
def test_draws_predict_principal_directions_of_active_samples(sizes, n_samples, snr_db, rng):
    """Fails if strengths, the count of samples or the spread of the angles are wrong; the closed formula lies within.

    The oracle knows the supports and takes a singular value decomposition of each group's samples.
    """
    n, groups, d, gamma = sizes
    truth = gaussian_dictionary(n, groups, d, generator=rng, dtype=DOUBLE)
    source = GroupSparseSource(truth, d, gamma, snr_db=snr_db)
    sample = source.sample(n_samples, generator=rng)
    measured = []
    for g in range(groups):
        span = principal(sample.data[sample.support[:, g]].numpy(), d)
        basis = np.linalg.qr(truth[:, g * d : (g + 1) * d].numpy())[0]
        cosines = np.linalg.svd(basis.T @ span)[1]
        measured.append(np.degrees(np.arccos(np.minimum(cosines, 1.0))))
    population = Population.of(source)
    drawn = torch.rad2deg(start_angle_draws(population, n_samples, 1000, generator=rng)).numpy()
    found, predicted = np.median(measured, axis=0), np.median(drawn, axis=0)
    assert (np.diff(predicted) > 1).all()
    np.testing.assert_allclose(predicted, found, rtol=0.04)
    np.testing.assert_allclose(np.std(drawn, axis=0), np.std(measured, axis=0), rtol=0.35)
    assert predicted[0] < math.degrees(predicted_start_angle(population, n_samples)) < predicted[-1]


def test_paper_size(rng):
    """Fails if the values that the theory page quotes change: 21.0 and 22.2 degrees."""
    assert abs(math.degrees(predicted_start_angle(PAPER, 10_000)) - 21.0) < 0.05
    drawn = torch.rad2deg(start_angle_draws(PAPER, 10_000, 1000, generator=rng))[:, 1].median()
    assert abs(drawn - 22.2) < 0.3
    assert smallest_start_samples(PAPER, math.radians(30)) == 4437


@given(
    st.integers(20, 1000), st.integers(2, 100), st.integers(1, 4), st.floats(0.01, 2.0), st.floats(0.05, math.pi / 2)
)
def test_smallest_number_of_samples(n, groups, d, noise, angle):
    """Fails if the formula is not solved for N rightly: the angle is reached there and not with one sample less."""
    population = Population(n, groups, d, 1, (4.0, 5.0), noise)
    count = smallest_start_samples(population, angle)
    assert predicted_start_angle(population, count + 1) <= angle + 1e-9
    if count > 2:
        assert predicted_start_angle(population, count - 2) >= angle - 1e-9


def test_without_anything_else_the_angle_is_zero(rng):
    """Fails if one active group without noise is not exact, or if fewer samples than d are."""
    population = Population(50, 10, 3, 1)
    assert spike_strength(population) == math.inf
    assert predicted_start_angle(population, 31) == 0.0
    assert predicted_start_angle(population, 29) == math.pi / 2
    drawn = start_angle_draws(population, 30, 500, generator=rng)
    exact = (drawn == 0).all(dim=1)
    assert (exact | (drawn == math.pi / 2).all(dim=1)).all()
    assert abs(exact.double().mean().item() - 0.589) < 0.08  # P(Bin(30, 0.1) >= 3)


@pytest.mark.parametrize(
    ("sizes", "n_samples", "snr_db", "n_nearest", "n_selected"),
    [
        ((200, 100, 2, 6), 2000, 14.3, 15, 60),
        ((150, 50, 2, 3), 1500, 20.0, 15, 45),
        ((150, 50, 2, 1), 1500, 1.0, 15, 15),
        ((200, 60, 3, 2), 1800, 3.0, 20, 30),
    ],
)
def test_pairs_select_samples_as_predicted(sizes, n_samples, snr_db, n_nearest, n_selected, rng):
    """Fails if shared codes, common cross-talk or the rest are wrong: the ranking on data, by a loop over pairs."""
    n, groups, d, gamma = sizes
    draw = np.random.default_rng(0)
    nearest, selected, success, apart = [], [], [], []
    for _ in range(6):
        truth = gaussian_dictionary(n, groups, d, generator=rng, dtype=DOUBLE)
        source = GroupSparseSource(truth, d, gamma, snr_db=snr_db)
        sample = source.sample(n_samples, generator=rng)
        data, support = sample.data.numpy(), sample.support.numpy()
        for u in draw.choice(n_samples, 60, replace=False):
            first, shared = data @ data[u], support & support[u]
            apart.append(first[~shared.any(axis=1)])
            first[u] = 0
            closest = np.argsort(-abs(first))[:n_nearest]
            nearest.append(shared[closest].any(axis=1).mean())
            v = draw.choice(closest)
            score = abs(first * (data @ data[v]))
            score[v] = 0
            best = np.argsort(-score)[:n_selected]
            have = support[best][:, shared[v]].mean(axis=0).max(initial=0)
            if shared[v].any():
                selected.append(have)
            success.append(have > 0.5)
    population = Population.of(source)
    predicted = predicted_pairs(population, n_samples, n_nearest, n_selected, 400, generator=rng)
    assert abs(predicted.nearest - np.mean(nearest)) < 0.02
    assert abs(predicted.selected - np.mean(selected)) < 0.03
    assert abs(predicted.success - np.mean(success)) < 0.06
    spread = (gamma * population.moment(2) + n * population.noise_std**2) / n**0.5
    assert abs(spread / np.concatenate(apart).std() - 1) < 0.02


def test_pairs_without_a_signal_tell_nothing(rng):
    """Fails if the prediction is right for the wrong reason: drowned in noise, the shares are those of chance."""
    population = Population(100, 20, 2, 2, (4.0, 5.0), 100.0)
    predicted = predicted_pairs(population, 1000, 50, 50, 400, generator=rng)
    assert abs(predicted.nearest - (1 - math.comb(18, 2) / math.comb(20, 2))) < 0.02
    assert abs(predicted.selected - population.p) < 0.03
    assert predicted.success == 0


# One active group: the theorems.


def one_group_data(population, n_samples, overlap, seed):
    """(data, labels, groups of the truth): numpy arrays of one active group a sample, with A_g^T A_h = overlap * I."""
    rng = torch.Generator().manual_seed(seed)
    n, groups, d = population.n_features, population.n_groups, population.group_size
    truth = coherent_dictionary(n, groups, d, overlap / d, generator=rng, dtype=DOUBLE)
    draw = np.random.default_rng(seed)
    labels = draw.integers(groups, size=n_samples)
    codes = draw.standard_normal((n_samples, d))
    codes *= draw.uniform(*population.norm_range, (n_samples, 1)) / np.linalg.norm(codes, axis=1, keepdims=True)
    blocks = truth.numpy().T.reshape(groups, d, n)
    data = np.einsum("id,idn->in", codes, blocks[labels])
    return data + population.noise_std * draw.standard_normal(data.shape), labels, blocks.transpose(0, 2, 1)


def ranking_start(data, d):
    """The start of the theorem without noise: ranks, and asks exactly who is explained."""
    spans, left = [], np.arange(len(data))
    while len(left):
        u = data[left[0]]
        scores = abs(data @ u) / np.linalg.norm(data, axis=1)
        scores[left[0]] = -1
        chosen = np.r_[left[0], np.argsort(-scores)[: d - 1]]
        spans.append(principal(data[chosen], d))
        rest = data[left] - data[left] @ spans[-1] @ spans[-1].T
        left = left[np.linalg.norm(rest, axis=1) > 1e-8]
        left = left[left != chosen[0]]
    return spans


def finds_exactly(spans, truth):
    """Whether there is one span for each group, equal to its own to 1e-6."""
    angles = np.array([[largest_angle(w, a) for a in truth] for w in spans])
    return len(spans) == len(truth) and bool((angles.min(axis=0) < 1e-6).all())


def exact_start_samples(groups, d, overlap, failure):
    """The samples that the theorem without noise asks for."""
    lost = stats.beta.cdf(overlap**2, 0.5, (d - 1) / 2) if d > 1 else 0.0
    return math.ceil(2 * groups / (1 - lost) * (math.log(groups / failure) + d))


@pytest.mark.parametrize(("n", "groups", "d", "overlap"), [(40, 8, 2, 0.3), (30, 6, 3, 0.0), (20, 6, 1, 0.4)])
def test_start_is_exact_without_noise(n, groups, d, overlap):
    """Fails if the number of samples does not suffice with the chance promised, or would suffice when far smaller."""
    assert exact_start_samples(500, 2, 0.0, 0.01) == 12_820  # the theory page's
    population, count = Population(n, groups, d, 1), exact_start_samples(groups, d, overlap, 0.2)
    kept = [finds_exactly(ranking_start(x, d), a) for x, _, a in runs(population, count, overlap, 60)]
    assert np.mean(kept) > 0.8
    small = [finds_exactly(ranking_start(x, d), a) for x, _, a in runs(population, groups * d, overlap, 20)]
    assert np.mean(small) < 0.5


def runs(population, n_samples, overlap, n_runs):
    """Data sets of the population, seed by seed."""
    return (one_group_data(population, n_samples, overlap, seed) for seed in range(n_runs))


def threshold_start(data, guarantee, d):
    """The start of the theorem with noise, from a sample drawn at random among those that no span explains."""
    draw, spans = np.random.default_rng(1), []
    left = np.arange(len(data))
    while len(left) and len(spans) < 50:
        i = draw.choice(left)
        chosen = abs(data @ data[i]) > guarantee.correlation
        chosen[i] = True
        if chosen.sum() < d:
            break
        spans.append(principal(data[chosen], d))
        left = left[np.linalg.norm(data[left] @ spans[-1], axis=1) <= guarantee.lower]
        left = left[left != i]
    return spans


def train(data, labels, truth, spans, guarantee, n_steps):
    """Riemannian gradient descent by autograd on the loss of the autoencoder; angles and wrong supports, step by step.

    Groups are put in the order of the truth first. Returns the largest angles before each step and after the last,
    and the number of samples with a wrong support at any step.
    """
    if len(spans) != len(truth):
        return [math.pi / 2], len(data)
    order = [min(range(len(spans)), key=lambda k: largest_angle(spans[k], a)) for a in truth]
    if len(set(order)) != len(truth):
        return [math.pi / 2], len(data)
    penalty = (guarantee.lower + guarantee.upper) / 2
    x = torch.as_tensor(data)
    weight = torch.as_tensor(np.stack([spans[k] for k in order]))
    wrong, angles = 0, [max(largest_angle(w, a) for w, a in zip(weight.numpy(), truth, strict=True))]
    for _ in range(n_steps):
        weight.requires_grad_(True)
        response = torch.einsum("in,gnd->igd", x, weight)
        norms = response.norm(dim=2, keepdim=True)
        codes = torch.relu(1 - penalty / norms) * response
        loss = ((x - torch.einsum("igd,gnd->in", codes, weight)) ** 2).sum(dim=1).mean() / 2
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = weight.detach()
        active = (norms.detach().squeeze(2) > penalty).numpy()
        wrong += int((active != np.eye(len(truth), dtype=bool)[labels]).any(axis=1).sum())
        moved = weight - guarantee.step_size * (gradient - weight @ (weight.mT @ gradient))
        weight = torch.linalg.qr(moved).Q.contiguous()
        angles.append(max(largest_angle(w, a) for w, a in zip(weight.numpy(), truth, strict=True)))
    return angles, wrong


CASES = [
    (Population(40, 5, 2, 1, (4.0, 5.0), 0.05), 0.0, 3.0),
    (Population(30, 4, 2, 1, (4.0, 5.0), 0.02), 0.2, 2.0),
    (Population(30, 3, 1, 1, (4.0, 5.0), 0.08), 0.1, 2.0),
    (Population(25, 4, 3, 1, (4.0, 5.0), 0.05), 0.0, 3.0),
]


@pytest.mark.parametrize(("population", "overlap", "degrees"), CASES)
def test_from_data_to_the_truth(population, overlap, degrees):
    """Fails if a promise is broken: number of draws, start angle, supports at every step, angle after K steps and on.

    With five samples a group and the same thresholds most runs break it, so they can fail; with 30 none does, which the
    page quotes against the hundreds that are proved to suffice.
    """
    d = population.group_size
    guarantee = sufficient_samples(population, math.radians(degrees), block_coherence=overlap / d)
    assert guarantee.holds
    for data, labels, truth in runs(population, guarantee.n_samples, overlap, 3):
        spans = threshold_start(data, guarantee, d)
        assert len(spans) == population.n_groups
        angles, wrong = train(data, labels, truth, spans, guarantee, guarantee.n_steps + 3)
        assert wrong == 0
        assert max(angles) <= guarantee.start_angle
        assert max(angles[guarantee.n_steps :]) <= guarantee.max_angle
    kept = {5: 0, 30: 0}
    for samples_a_group in kept:
        for data, labels, truth in runs(population, samples_a_group * population.n_groups, overlap, 10):
            spans = threshold_start(data, guarantee, d)
            angles, wrong = train(data, labels, truth, spans, guarantee, guarantee.n_steps + 3)
            kept[samples_a_group] += wrong == 0 and angles[-1] <= guarantee.max_angle
    assert kept[5] <= 4
    assert kept[30] == 10


def test_a_step_that_may_turn_by_more_is_no_promise():
    """Fails if condition 4 of the theorem holds where r > 2 makes its left side negative: training then misses."""
    population = Population(40, 5, 1, 1, (5.0, 5.0), 0.05)
    found = end_to_end_guarantee(population, 100, 0.01)
    assert found.lower < found.upper and found.start_angle < 0.2 and not found.holds


def test_there_is_an_angle_that_no_number_of_samples_is_proved_to_reach():
    """Fails if the page's table of sufficient samples is another, or noise does not limit the angle."""
    population = Population(40, 5, 2, 1, (4.0, 5.0), 0.09)
    assert sufficient_samples(population, math.radians(5)).n_samples == 7793
    with pytest.raises(ValueError, match="no number of samples up to"):
        sufficient_samples(population, math.radians(1))


def test_training_has_work_to_do():
    """Fails if no step is promised to be needed: the angle asked for is below that of the start, and is reached."""
    population = Population(40, 5, 2, 1, (4.0, 5.0), 0.05)
    guarantee = sufficient_samples(population, math.radians(1.0))
    assert guarantee.n_samples == 27832
    assert guarantee.n_steps == 3 and guarantee.start_angle > 1.8 * guarantee.max_angle
    data, labels, truth = one_group_data(population, guarantee.n_samples, 0.0, 0)
    angles, wrong = train(data, labels, truth, threshold_start(data, guarantee, 2), guarantee, 3)
    assert wrong == 0
    assert angles[-1] < angles[0] and angles[-1] < guarantee.max_angle


def test_constants_are_those_of_the_theorem():
    """Fails if code and theory page differ: the page's display, in its symbols, for one case."""
    n, groups, d, low, high, s, overlap, delta, count = 60, 8, 3, 4.0, 5.0, 0.02, 0.1, 0.1, 150_000
    m2 = (low**2 + low * high + high**2) / 3
    kappa = m2 / (groups * d)
    z = math.sqrt(2 * math.log(2 * (2 * count**2 + count * groups + 4 * groups) / delta))
    k = (1 + math.sqrt(3 * groups / count * math.log(6 * groups / delta))) * count / groups
    r = s * z * (2 * high + s * (math.sqrt(n) + z))
    beta = overlap * high**2 + r
    cut = (beta + r) / low**2
    m = (count - 1) * m2 / (groups * d) * (1 - stats.beta.cdf(cut**2, 0.5, (d + 1) / 2))
    e2 = math.sqrt(2 * high**2 / m * math.log(6 * count * d / delta))
    e3 = math.sqrt(3 * high**2 / (count * kappa) * math.log(12 * groups * d / delta))
    nu = s * (math.sqrt(k) + math.sqrt(d) + z)
    theta = math.asin(s * (math.sqrt(k) + math.sqrt(n - d) + z) / (math.sqrt((1 - e2) * m) - nu))
    margin = s * (math.sqrt(d) + z + (math.sqrt(n) + z) * math.sin(theta))
    length = math.sqrt((1 + e3) * count * kappa) + nu
    eta = count / length**2
    alpha = eta / count * ((math.sqrt((1 - e3) * count * kappa) - nu) ** 2 - s**2 * k)
    v = math.sqrt(n - d) + z
    lower, upper = high * math.sin(theta + math.asin(overlap)) + margin, low * math.cos(theta) - margin

    def excess(t):
        z_norm = s / count * (math.sqrt(n - d) + math.sqrt(d) + z) * length
        omega = s**2 / count * (2 * math.sqrt(k) * v + v**2)
        push = eta / alpha * (z_norm * (1 + t**2) + omega * t)
        return (1 + t / 2) * push / (1 - push / 2) - alpha * t / (2 * (1 + alpha))

    population = Population(n, groups, d, 1, (low, high), s)
    for angle, holds in ((0.2 * theta, False), (0.7 * theta, True), (0.99 * theta, True)):
        found = end_to_end_guarantee(population, count, angle, block_coherence=overlap / d, failure=delta)
        values = (found.correlation, found.start_angle, found.lower, found.upper, found.step_size)
        assert values == pytest.approx((beta, theta, lower, upper, eta), rel=1e-12)
        assert found.holds == holds == (max(excess(math.tan(angle)), excess(math.tan(theta))) <= 0)
        if holds:
            steps = 2 * (1 + alpha) / alpha * math.log(math.tan(theta) / math.tan(angle))
            assert found.n_steps == math.ceil(steps)


@pytest.mark.parametrize(("d", "cosine"), [(1, 0.5), (2, 0.4), (3, 0.7), (5, 0.2)])
def test_share_of_a_direction_among_correlated_codes(d, cosine):
    """Fails if the Beta law is mistyped: the least eigenvalue of a sampled second moment, and through M the start."""
    w = np.random.default_rng(0).standard_normal((400_000, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    kept = w[abs(w[:, 0]) > cosine]
    assert abs(np.linalg.eigvalsh(kept.T @ kept / len(w))[0] - correlated_share(cosine, d)) < 0.003


def test_sufficient_samples_are_the_fewest():
    """Fails if the search stops early or late, or if less noise or a wider angle would take more samples."""
    population = Population(40, 5, 2, 1, (4.0, 5.0), 0.05)
    base = sufficient_samples(population, 0.05)
    assert not end_to_end_guarantee(population, base.n_samples - 1, 0.05).holds
    easier = (
        sufficient_samples(dataclasses.replace(population, noise_std=0.02), 0.05),
        sufficient_samples(population, 0.08),
        sufficient_samples(population, 0.05, failure=0.5),
        sufficient_samples(dataclasses.replace(population, n_features=30), 0.05),
    )
    assert all(other.n_samples < base.n_samples for other in easier)
    assert sufficient_samples(population, 0.05, block_coherence=0.02).n_samples >= base.n_samples


NOISY = Population(40, 5, 2, 1, (4.0, 5.0), 0.1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: end_to_end_guarantee(Population(40, 5, 2, 2), 100, 0.1), "n_active=2"),
        (lambda: end_to_end_guarantee(Population(40, 5, 2, 1, orthonormal=False), 100, 0.1), "orthonormal=False"),
        (lambda: end_to_end_guarantee(NOISY, 100, 0.1, block_coherence=0.5), "block_coherence"),
        (lambda: sufficient_samples(NOISY, 0.1), "no number of samples"),
        (lambda: smallest_start_samples(NOISY, 0.0), "max_angle"),
    ],
)
def test_start_theory_rejects(call, message):
    """Fails if a theorem for one active orthonormal group is applied elsewhere, or noise beyond reach gets a number."""
    with pytest.raises(ValueError, match=message):
        call()


# Lines and planes.

CONVEX = {
    "square": lambda u: u**2,
    "softplus": lambda u: np.log1p(np.exp(u - 6.0)),
    "hinge": lambda u: np.maximum(u - 5.0, 0.0),
}


def all_codes(d, n_draws=0):
    """Isotropic codes of norm 3 and 4 in equal shares: a grid of 120 angles for d = 2, for larger d draws."""
    if n_draws:
        codes = np.random.default_rng(0).standard_normal((n_draws, d))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    else:
        angles = (np.arange(120) + 0.5) * np.pi / 60
        codes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([3 * codes, 4 * codes])


def objective(frame, phi, codes, groups):
    """E phi(||W^T y||^2), one of the groups active, whose spans are coordinates; coordinates beyond are outside."""
    d = codes.shape[1]
    return np.mean([phi(((codes @ frame[g * d : (g + 1) * d]) ** 2).sum(axis=1)).mean() for g in range(groups)])


@pytest.mark.parametrize("phi", CONVEX.values(), ids=CONVEX)
def test_a_mixed_plane_is_a_local_maximum(phi):
    """Fails if any motion but rotations within the groups does not descend; and true planes must be higher."""
    rng, codes, groups, n = np.random.default_rng(1), all_codes(2), 3, 8
    mixed = np.eye(n)[:, [0, 2]]
    value = objective(mixed, phi, codes, groups)
    for _ in range(300):
        step = rng.standard_normal((n, 2)) * 10.0 ** rng.uniform(-2, 0, (n, 1))
        step[[0, 2]] = 0  # within the plane
        step[1, 0] = step[3, 1] = 0  # rotations within the groups
        step *= 0.1 / np.linalg.norm(step)
        assert objective(np.linalg.qr(mixed + step)[0], phi, codes, groups) < value - 1e-5
    turn = np.eye(n)[:, [0, 2]] * math.cos(0.4) + np.eye(n)[:, [1, 3]] * math.sin(0.4)
    assert objective(turn, phi, codes, groups) == pytest.approx(value, rel=2e-3)
    assert objective(np.eye(n)[:, :2], phi, codes, groups) > 1.1 * value


@pytest.mark.parametrize(("d", "shares"), [(3, (2, 1)), (4, (2, 2)), (5, (3, 2)), (5, (4, 1)), (6, (3, 2, 1))])
def test_which_mixtures_are_stable(d, shares):
    """Fails if the rule is wrong: stable if an incomplete group has at most one direction more than any other in it.

    Each direction of one group is turned a little towards a missing direction of another; draws of codes. A difference
    of two neither gains nor loses.
    """
    codes, groups, phi = all_codes(d, 60_000), len(shares), CONVEX["hinge"]
    columns = [g * d + i for g, k in enumerate(shares) for i in range(k)]
    frame = np.eye(groups * d)[:, columns]
    gains = {}
    for g, h in itertools.permutations(range(groups), 2):
        turned, last = frame.copy(), columns.index(h * d + shares[h] - 1)
        turned[:, last] = 0.05**0.5 * np.eye(groups * d)[g * d + shares[g]]
        turned[h * d + shares[h] - 1, last] = 0.95**0.5
        gains[g, h] = objective(turned, phi, codes, groups) - objective(frame, phi, codes, groups)
    for (g, h), gain in gains.items():
        if shares[g] - shares[h] == 2:
            assert gain > -1e-3 * max(map(abs, gains.values()))
        else:
            assert (gain < 0) == (shares[g] - shares[h] < 2)


@pytest.mark.parametrize(
    ("d", "groups", "holds"), [(1, 7, True), (1, 5, True), (1, 3, False), (2, 4, True), (2, 2, False)]
)
def test_fourth_moments_with_two_active_groups(d, groups, holds):
    """Fails if the condition q < (m_4 / m_2^2) d / (d + 2) is mistyped: all supports, codes on a circle.

    The right side is 1/3 for d = 1 and 1/2 for d = 2. With noise the moment of a Gaussian sum is added by its formula.
    """
    angles = np.pi * np.arange(8)[:, None] / (4 if d == 2 else 1)
    codes = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)[:, :d]
    rows = []
    for g, h in itertools.combinations(range(groups), 2):
        for x, z in itertools.product(codes, repeat=2):
            row = np.zeros((groups, d))
            row[g], row[h] = x, z
            rows.append(row.flatten())
    data = np.array(rows)

    def fourth(*shares, noise=0.3):
        line = np.zeros((groups, d))
        line[: len(shares), 0] = np.sqrt(shares)
        response = data @ line.flatten()
        return (response**4).mean() + 6 * noise**2 * (response**2).mean() + 3 * noise**4

    assert (fourth(1.0) > fourth(0.9, 0.1) > fourth(0.5, 0.5)) == holds
    assert (fourth(1.0) < fourth(0.9, 0.1) < fourth(0.5, 0.5)) == (not holds)
    assert fourth(0.9) < fourth(1.0)  # the rest of the line outside all spans
