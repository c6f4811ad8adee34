r"""Which groups are in a sum: what filters, ridge codes and the group lasso subtract, and where each of them fails.

A method that ranks groups by the norms of its codes sees each group through noise: that of the data, and what it leaves
of the other groups. For Gaussian dictionaries in the limit of many features and groups at a fixed ratio this is exact,

.. math:: \hat x_g \approx f(x_g + \sqrt\eta\, z), \qquad
          \eta = s^2 + \frac1n \sum_{h \ne g} \mathbb{E} \|x_h - \hat x_h\|^2, \qquad z \sim N(0, I_d),

with the method's own f (Tse and Hanly 1999 for ridge codes; Bayati and Montanari 2012 for the lasso), and here, at
finite sizes, first order. Filters subtract nothing, ridge codes a linear estimate, the group lasso a thresholded one.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import chi, chi2, ncx2

from gsae_lib._checks import check_choice, check_int
from gsae_lib.theory.population import Population

METHODS = ("filters", "ridge", "group lasso", "oracle")
THRESHOLDS = np.geomspace(0.25, 8.0, 36)  # alpha: the group lasso's threshold over the root of the noise
MAX_STEPS = 2000
_RADII, _RADIUS_WEIGHTS = np.polynomial.legendre.leggauss(80)
_HERMITE, _HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
_NORMS = np.concatenate([np.linspace(0, 12, 121), np.geomspace(12.2, 1000, 60)])  # of codes, over the root of the noise


@dataclasses.dataclass(frozen=True)
class EffectiveNoise:
    """Variance an entry of the noise through which a method sees a group that is `active` in a sample, or `inactive`.

    An active group has one active group less beside it.
    """

    active: float
    inactive: float


def effective_noise(
    population: Population, method: Literal["filters", "ridge", "group lasso", "oracle"]
) -> EffectiveNoise:
    r"""First order: the noise eta that each method leaves around a group, at its best penalty.

    .. math:: \text{filters: } \eta = s^2 + \tfrac mn \kappa, \qquad
              \text{ridge: } \eta = s^2 + \tfrac mn \frac{\kappa \eta}{\kappa + \eta}, \qquad
              \text{oracle: } \eta = \frac{s^2}{1 - \gamma d / n}

    in the limit; the group lasso's is the largest fixed point for the threshold alpha sqrt(eta) with the best alpha.
    Filters are W^T y, ridge codes (W^T W + mu I)^-1 W^T y. The oracle fits the active groups, which it knows, by least
    squares; it has infinite noise from gamma d = n on. Here the number of other active groups is exact.

    Raises:
        ValueError: an unknown method.
    """
    check_choice("method", method, METHODS)
    d, m2, kappa = population.group_size, population.moment(2), population.kappa
    if method == "filters":
        return _around(population, m2, 0.0)
    if method == "oracle":
        rest = 1 - population.n_active * d / population.n_features
        noise = population.noise_std**2 / rest if rest > 0 else math.inf
        return EffectiveNoise(noise, noise)
    if method == "ridge":

        def errors(noise: float) -> tuple[float, float]:
            weight = kappa / (kappa + noise)
            return (1 - weight) ** 2 * m2 + weight**2 * d * noise, weight**2 * d * noise

        return _fixed_point(population, errors)
    return min(
        (_fixed_point(population, _thresholding(population, alpha)) for alpha in THRESHOLDS),
        key=lambda noise: noise.active,
    )


def predicted_exact(population: Population, noise: EffectiveNoise) -> float:
    r"""First order: P(the gamma groups with the largest norms are the active ones), seen through noise.

    .. math:: \int F_0(t)^{\Gamma - \gamma}\, d\big[-\bar F_1(t)^\gamma\big]

    with F_0 the distribution of the norm of an inactive group and 1 - F_1 that of an active one: central and noncentral
    chi with d degrees of freedom. Groups are taken as independent.
    """
    d, gamma, others = population.group_size, population.n_active, population.n_groups - population.n_active
    if noise.active == math.inf:
        return 1 / math.comb(population.n_groups, gamma)
    if not others or noise.inactive == 0:
        return 1.0
    high = population.norm_range[1]
    t = np.linspace(0.0, high + (8 + math.sqrt(d)) * math.sqrt(max(noise.active, noise.inactive)), 1500)
    below = chi2.cdf(((t[1:] + t[:-1]) / 2) ** 2 / noise.inactive, d) ** others
    return float(below @ -np.diff(_above(population, t, noise.active) ** gamma))


def transition_features(n_groups: int, group_size: int, n_active: int) -> float:
    r"""Exact in the limit: features from which the group lasso recovers codes without noise, from Gaussian atoms.

    .. math:: n^\star = \min_\tau\; \gamma (d + \tau^2) + (\Gamma - \gamma)\, \mathbb{E} (\chi_d - \tau)_+^2

    the statistical dimension (Amelunxen, Lotz, McCoy and Tropp 2014; for groups Stojnic, Parvaresh and Hassibi 2009).
    With fewer features it fails, however small the penalty.

    Raises:
        ValueError: sizes below 1, or more active groups than there are.
    """
    groups, d = check_int("n_groups", n_groups), check_int("group_size", group_size)
    gamma = check_int("n_active", n_active, high=groups)

    def dimension(tau: float) -> float:
        return gamma * (d + tau**2) + (groups - gamma) * _excess(d, tau)

    found = minimize_scalar(
        dimension, bounds=(0.0, math.sqrt(d) + 2 * math.sqrt(math.log(groups) + 1)), method="bounded"
    )
    return float(min(found.fun, groups * d))


def _around(population: Population, active: float, inactive: float) -> EffectiveNoise:
    """The noise around a group if others have these mean squared errors when active and when not."""
    gamma, groups, n = population.n_active, population.n_groups, population.n_features
    noise = population.noise_std**2
    beside = noise + ((gamma - 1) * active + (groups - gamma) * inactive) / n
    outside = noise + (gamma * active + max(groups - gamma - 1, 0) * inactive) / n
    return EffectiveNoise(beside, outside)


def _above(population: Population, t: np.ndarray, noise: float) -> np.ndarray:
    """P(the norm of an active group exceeds t), seen through noise of this variance an entry."""
    low, high = population.norm_range
    if noise == 0:
        return np.where(t < low, 1.0, np.clip((high - t) / max(high - low, 1e-300), 0.0, 1.0))
    return np.array(
        [population.mean(lambda c, x=x: ncx2.sf(x**2 / noise, population.group_size, c**2 / noise)) for x in t]
    )


def _fixed_point(population: Population, errors: Callable[[float], tuple[float, float]]) -> EffectiveNoise:
    """The largest fixed point, from filters downwards; `errors` are those of active and of inactive groups."""
    share = population.p
    noise = _around(population, population.moment(2), 0.0)
    for _ in range(MAX_STEPS):
        mean = share * noise.active + (1 - share) * noise.inactive
        if mean == 0:
            break
        new = _around(population, *errors(mean))
        done = abs(new.inactive - noise.inactive) <= 1e-9 * noise.inactive
        noise = new
        if done:
            break
    return noise


def _thresholding(population: Population, alpha: float) -> Callable[[float], tuple[float, float]]:
    """Squared errors of an active and an inactive group under the threshold alpha sqrt(eta), as functions of eta."""
    table, excess = _active_errors(population.group_size, alpha), _excess(population.group_size, alpha)

    def errors(noise: float) -> tuple[float, float]:
        root = math.sqrt(noise)
        return population.mean(lambda c: np.interp(c / root, _NORMS, table)) * noise, excess * noise

    return errors


@functools.cache
def _active_errors(d: int, alpha: float) -> np.ndarray:
    """E ||S(x + z) - x||^2 for ||x|| in _NORMS, z standard Gaussian in R^d, S the threshold of the norm at alpha."""
    across, weights = np.zeros(1), np.ones(1)
    if d > 1:
        across = (_RADII + 1) * (math.sqrt(d) + 8) / 2
        density = chi.pdf(across, d - 1) * _RADIUS_WEIGHTS
        weights = density / density.sum()
    along = _NORMS[:, None, None] + _HERMITE[:, None]
    length = np.maximum(np.hypot(along, across), 1e-300)
    shrink = np.maximum(1 - alpha / length, 0.0)
    error = (shrink * along - _NORMS[:, None, None]) ** 2 + (shrink * across) ** 2
    return _HERMITE_WEIGHTS @ error @ weights / _HERMITE_WEIGHTS.sum()


def _excess(d: int, tau: float) -> float:
    r"""E (chi_d - tau)_+^2, from the gamma function and its tails."""
    tail = chi2.sf(tau**2, d)
    mean_tail = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) * chi2.sf(tau**2, d + 1)
    return float(d * chi2.sf(tau**2, d + 2) - 2 * tau * mean_tail + tau**2 * tail)
