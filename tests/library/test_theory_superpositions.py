"""Superpositions: effective noise and exact supports against codes of Gaussian dictionaries, in numpy throughout.

Codes, ridge and group lasso are written here anew and share no code with the library.
"""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from gsae_lib.theory import Population
from gsae_lib.theory.superpositions import (
    METHODS,
    EffectiveNoise,
    effective_noise,
    predicted_exact,
    transition_features,
)

SETTING = Population(200, 200, 2, 8, (4.0, 5.0), 0.2, orthonormal=False)


def draw(population, n_samples, seed):
    """Dictionary, data, codes (samples, groups, d) and supports of a random model."""
    rng = np.random.default_rng(seed)
    n, groups, d = population.n_features, population.n_groups, population.group_size
    dictionary = rng.standard_normal((n, groups * d))
    dictionary /= np.linalg.norm(dictionary, axis=0)
    support = np.zeros((n_samples, groups), dtype=bool)
    for row in support:
        row[rng.choice(groups, population.n_active, replace=False)] = True
    codes = rng.standard_normal((n_samples, groups, d))
    low, high = population.norm_range
    codes *= rng.uniform(low, high, (n_samples, groups, 1)) / np.linalg.norm(codes, axis=2, keepdims=True)
    codes *= support[:, :, None]
    data = codes.reshape(n_samples, -1) @ dictionary.T
    return dictionary, data + population.noise_std * rng.standard_normal(data.shape), codes, support


def filters(dictionary, data, population):
    """W^T y."""
    return data @ dictionary


def ridge(dictionary, data, population):
    """The minimiser of the mean squared error among linear codes, scaled so that active groups keep their length."""
    variance, n = population.kappa, len(dictionary)
    noisy = variance * dictionary @ dictionary.T + population.noise_std**2 * np.eye(n)
    filters = np.linalg.solve(noisy, variance * dictionary)
    return data @ filters / np.mean(np.sum(dictionary * filters, axis=0))


def group_lasso(dictionary, data, population, penalty):
    """Proximal gradient steps with momentum, until they are tiny."""
    d = population.group_size
    step = 1 / np.linalg.norm(dictionary, 2) ** 2
    codes = ahead = np.zeros((len(data), dictionary.shape[1]))
    t = 1.0
    for _ in range(3000):
        moved = (ahead + step * (data - ahead @ dictionary.T) @ dictionary).reshape(len(data), -1, d)
        length = np.linalg.norm(moved, axis=2, keepdims=True)
        new = (moved * np.maximum(1 - step * penalty / np.maximum(length, 1e-30), 0)).reshape(codes.shape)
        after = (1 + math.sqrt(1 + 4 * t**2)) / 2
        ahead, done = new + (t - 1) / after * (new - codes), np.abs(new - codes).max() < 1e-6
        codes, t = new, after
        if done:
            break
    return codes


def exact_share(codes, support, d):
    """Share of samples whose groups of largest norm are the active ones."""
    norms = np.linalg.norm(codes.reshape(len(codes), -1, d), axis=2)
    least = np.where(support, norms, np.inf).min(axis=1)
    return np.mean(least > np.where(support, 0, norms).max(axis=1))


@pytest.mark.parametrize(("method", "code"), [("filters", filters), ("ridge", ridge)])
def test_noise_of_linear_codes(method, code):
    """Fails if cross-talk, the ridge's fixed point, or the one group less beside an active one are wrong."""
    active, inactive = [], []
    for seed in range(4):
        dictionary, data, codes, support = draw(SETTING, 600, seed)
        found = code(dictionary, data, SETTING).reshape(codes.shape)
        inactive.append(np.mean(found[~support] ** 2))
        active.append(np.mean((found - codes)[support] ** 2))
    noise = effective_noise(SETTING, method)
    assert noise.inactive == pytest.approx(np.mean(inactive), rel=0.04)
    # Columns of a group are not orthogonal: m_2 / 2n more, of which ridge codes keep a part.
    oblique = SETTING.moment(2) / (2 * SETTING.n_features)
    assert noise.active < np.mean(active) < 1.03 * (noise.active + oblique)
    if method == "filters":
        assert noise.active + oblique == pytest.approx(np.mean(active), rel=0.03)
    assert noise.active < noise.inactive


@pytest.mark.parametrize(
    "population",
    [
        Population(100, 200, 2, 6, (4.0, 5.0), 0.11, orthonormal=False),
        Population(120, 160, 3, 5, (4.0, 5.0), 0.3, orthonormal=False),
    ],
)
def test_exact_supports(population):
    """Fails if the predicted shares of exact supports are off: dictionaries, codes and methods drawn anew."""
    shares = {"filters": [], "ridge": []}
    for seed in range(5):
        dictionary, data, _, support = draw(population, 500, seed)
        for name, code in (("filters", filters), ("ridge", ridge)):
            shares[name].append(exact_share(code(dictionary, data, population), support, population.group_size))
    for name, tolerance in (("filters", 0.06), ("ridge", 0.04)):
        predicted = predicted_exact(population, effective_noise(population, name))
        assert abs(predicted - np.mean(shares[name])) < tolerance, name
    assert np.mean(shares["ridge"]) > np.mean(shares["filters"]) + 0.05


def test_exact_supports_of_the_group_lasso():
    """Fails if its ranking is predicted wrongly where cross-talk and noise are large, and ridge codes fail."""
    population = Population(100, 40, 2, 10, (4.0, 5.0), 0.8, orthonormal=False)
    shares = {"ridge": [], "group lasso": []}
    for seed in range(3):
        dictionary, data, _, support = draw(population, 100, seed)
        lasso = [
            exact_share(group_lasso(dictionary, data, population, penalty), support, 2) for penalty in (0.8, 1.2, 1.6)
        ]
        shares["group lasso"].append(lasso)
        shares["ridge"].append(exact_share(ridge(dictionary, data, population), support, 2))
    predicted = {name: predicted_exact(population, effective_noise(population, name)) for name in shares}
    assert abs(predicted["group lasso"] - np.mean(shares["group lasso"], axis=0).max()) < 0.09
    assert abs(predicted["ridge"] - np.mean(shares["ridge"])) < 0.09
    assert predicted["group lasso"] > predicted["ridge"] + 0.15


def test_group_lasso_error():
    """Fails if state evolution is wrong: the squared error of the group lasso at its best penalty, on one draw."""
    population = Population(150, 150, 2, 10, (4.0, 5.0), 0.3, orthonormal=False)
    dictionary, data, codes, _ = draw(population, 60, 0)
    errors = [
        np.mean((group_lasso(dictionary, data, population, penalty) - codes.reshape(len(data), -1)) ** 2)
        for penalty in (0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    n, m = population.n_features, population.n_atoms
    noise = effective_noise(population, "group lasso")
    mean = population.p * noise.active + (1 - population.p) * noise.inactive
    predicted = (mean - population.noise_std**2) * n / m  # eta = s^2 + (m / n) error
    assert predicted == pytest.approx(min(errors), rel=0.06)


@given(st.integers(1, 5), st.integers(1, 12), st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.floats(0.0, 1.0))
@example(1, 4, 4.0, 1e-6)
@settings(deadline=None, max_examples=40)
def test_order_of_the_methods(d, gamma, ratio, noise_std):
    """Fails if a better use of what is known leaves more noise, or if the bound by the transition is broken."""
    groups = max(gamma + 1, round(60 * ratio / d))
    population = Population(60, groups, d, gamma, (4.0, 5.0), noise_std, orthonormal=False)
    noise = {name: effective_noise(population, name).inactive for name in METHODS}
    assert noise["ridge"] <= noise["filters"] * (1 + 1e-9)
    assert noise["group lasso"] <= noise["filters"] * (1 + 1e-6)
    share = transition_features(groups, d, gamma) * (1 - 1 / groups) / 60
    if share < 0.9 and noise_std:
        mean = population.p * effective_noise(population, "group lasso").active
        mean += (1 - population.p) * noise["group lasso"]
        assert mean <= noise_std**2 / (1 - share) * 1.02
    for value in noise.values():
        assert value >= noise_std**2 * (1 - 1e-9)


@pytest.mark.parametrize("n_groups", [25, 50, 100, 200, 400])
@pytest.mark.parametrize("noise_std", [0.0, 1e-6, 0.05, 1e8])
def test_one_active_group(n_groups, noise_std):
    """Fails if a limit is not a number: one active group, no noise, hardly any, or nothing else."""
    population = Population(100, n_groups, 2, 1, (4.0, 4.0), noise_std, orthonormal=False)
    for name in METHODS:
        noise = effective_noise(population, name)
        assert 0 <= noise.active <= noise.inactive < math.inf
        assert 0 <= predicted_exact(population, noise) <= 1
        if noise_std < 1:
            assert predicted_exact(population, noise) > 0.99


def test_ridge_in_closed_form():
    """Fails if the root is the wrong one: without noise kappa (m / n - 1), 0 for m < n, and s sqrt(kappa) at m = n."""
    population = Population(2000, 3000, 2, 300, (4.5, 4.5), 0.0, orthonormal=False)
    assert effective_noise(population, "ridge").inactive == pytest.approx(population.kappa * 2, rel=0.01)
    small = dataclasses.replace(population, n_groups=800, n_active=80)
    assert effective_noise(small, "ridge").inactive == 0
    square = dataclasses.replace(population, n_features=6000, noise_std=0.02)
    assert effective_noise(square, "ridge").inactive == pytest.approx(0.02 * square.kappa**0.5, rel=0.05)


def test_transition_of_single_atoms():
    """Fails if the statistical dimension is mistyped: the weak threshold of Donoho and Tanner, rho(1/2) = 0.3848."""
    assert transition_features(10_000, 1, 1924) == pytest.approx(5000, rel=0.002)
    assert transition_features(10, 3, 10) == pytest.approx(30)
    assert transition_features(80, 5, 10) == pytest.approx(113, abs=0.5)  # the theory page's


@pytest.mark.parametrize(("d", "gamma"), [(1, 40), (2, 20), (2, 60), (4, 10)])
def test_two_ways_to_the_transition(d, gamma):
    """Fails if state evolution or the statistical dimension is wrong: without noise one ends where the other says."""
    groups = 800 // d
    edge = transition_features(groups, d, gamma)
    for factor, recovers in ((1.1, True), (0.9, False)):
        population = Population(round(factor * edge), groups, d, gamma, (4.0, 5.0), 0.0, orthonormal=False)
        noise = effective_noise(population, "group lasso")
        assert (noise.inactive < 1e-3) == recovers


def test_what_recovers_without_noise():
    """Fails if the transition is not where the group lasso recovers codes."""
    groups, d, gamma = 100, 2, 6
    edge = transition_features(groups, d, gamma)
    errors = {}
    for factor in (0.75, 1.3):
        population = Population(round(factor * edge), groups, d, gamma, (4.0, 5.0), 0.0, orthonormal=False)
        dictionary, data, codes, _ = draw(population, 40, 3)
        found = group_lasso(dictionary, data, population, 0.02).reshape(codes.shape)
        errors[factor] = np.median(np.sum((found - codes) ** 2, axis=(1, 2)) / np.sum(codes**2, axis=(1, 2)))
    assert errors[1.3] < 1e-3 < 0.03 < errors[0.75]


def test_exact_supports_from_their_definition():
    """Fails if the integral is wrong: norms drawn through noise, active and inactive."""
    rng = np.random.default_rng(0)
    population = Population(50, 30, 3, 4, (1.0, 3.0))
    noise = EffectiveNoise(0.3, 0.4)
    lengths = rng.uniform(1, 3, (20_000, 4))
    active = np.sqrt(0.3 * stats.ncx2.rvs(3, lengths**2 / 0.3, random_state=rng))
    inactive = np.sqrt(0.4 * stats.chi2.rvs(3, size=(20_000, 26), random_state=rng))
    share = np.mean(active.min(axis=1) > inactive.max(axis=1))
    assert predicted_exact(population, noise) == pytest.approx(share, abs=0.012)
    share = np.mean(lengths.min(axis=1) > inactive.max(axis=1))
    assert predicted_exact(population, EffectiveNoise(0.0, 0.4)) == pytest.approx(share, abs=0.012)


def test_limits():
    """Fails if a limit breaks: nothing to confuse, no noise, more unknowns than equations, a chance draw."""
    alone = Population(20, 4, 2, 4)
    assert predicted_exact(alone, EffectiveNoise(9.0, 9.0)) == 1.0
    assert predicted_exact(SETTING, EffectiveNoise(0.0, 0.0)) == 1.0
    crowded = Population(20, 30, 2, 10, noise_std=0.1)
    noise = effective_noise(crowded, "least squares")
    assert noise.active == math.inf
    assert predicted_exact(crowded, noise) == pytest.approx(1 / math.comb(30, 10))
    assert effective_noise(Population(20, 8, 2, 1), "filters").active == 0.0
    with pytest.raises(ValueError, match="method='lasso'"):
        effective_noise(crowded, "lasso")
    with pytest.raises(ValueError, match="n_active"):
        transition_features(3, 2, 4)
