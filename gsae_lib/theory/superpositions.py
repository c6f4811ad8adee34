r"""Which groups are in a sum: what filters, ridge codes and the group lasso leave of the other groups.

A code sees each group through noise: that of the data, and what it leaves of the others,

.. math:: \hat x_g = f(x_g + \sqrt\eta\, z), \qquad
          \eta = s^2 + \frac1n \sum_{h \ne g} \mathbb{E} \|x_h - \hat x_h\|^2, \qquad z \sim N(0, I_d),

with the method's own f. For large Gaussian dictionaries at fixed ratios n : m : gamma the errors are known to follow
this for ridge codes (Tse and Hanly 1999) and for the lasso (Bayati and Montanari 2012). Here it is taken over for
groups and for finite sizes: first order throughout.
"""

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ive
from scipy.stats import chi, chi2, ncx2, norm

from gsae_lib._checks import check_choice, check_int
from gsae_lib.theory.population import Population

METHODS = ("filters", "ridge", "group lasso", "least squares")
TINY = 1e-12  # noise below this share of the weakest group's energy counts as none
LONG = 1e3  # norms over the root of the noise from which the length of x + z is Gaussian
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(60)
_NORMS = np.linspace(0.0, 40.0, 401)  # of codes, over the root of the noise


@dataclasses.dataclass(frozen=True)
class EffectiveNoise:
    """Variance an entry of the noise through which a method sees a group that is `active` in a sample, or `inactive`.

    An active group has one active group less beside it.
    """

    active: float
    inactive: float


def effective_noise(
    population: Population, method: Literal["filters", "ridge", "group lasso", "least squares"]
) -> EffectiveNoise:
    r"""First order: the noise eta around a group in each code, at the best penalty.

    .. math:: \text{filters: } \eta = s^2 + b\kappa, \qquad
              \text{ridge: } \eta = s^2 + b\, \frac{\kappa \eta}{\kappa + \eta}, \qquad
              \text{group lasso: } \eta = s^2 + b \min_\alpha \frac{\eta}{d}\, \mathbb{E}\, r_\alpha(\|x\| / \sqrt\eta),

    with b = (1 - 1 / Gamma) m / n, and r_alpha the squared error of the soft threshold alpha on the norm of x + z. Here
    eta is the mean over active and inactive groups; the two have gamma - 1 and gamma active ones beside them. Filters
    are :math:`W^T y`, ridge codes :math:`(W^T W + \mu I)^{-1} W^T y`. For comparison "least squares" on the active
    groups alone, as if they were known: :math:`s^2 / (1 - \gamma d / n)`, infinite from gamma d = n on.
    """
    check_choice("method", method, METHODS)
    d, m2, kappa, noise = population.group_size, population.moment(2), population.kappa, population.noise_std**2
    ratio = (1 - 1 / population.n_groups) * population.n_atoms / population.n_features
    if method == "filters":
        return _around(population, m2, 0.0)
    if method == "least squares":
        left = 1 - population.n_active * d / population.n_features
        value = noise / left if left > 0 else math.inf
        return EffectiveNoise(value, value)
    if method == "ridge":
        linear = noise + (ratio - 1) * kappa
        root = math.sqrt(linear**2 + 4 * noise * kappa)
        mean = (linear + root) / 2 if linear >= 0 else 2 * noise * kappa / (root - linear)
        weight = kappa / (kappa + mean)
        inactive = weight**2 * d * mean
        return _around(population, (1 - weight) ** 2 * m2 + inactive, inactive)
    mean = _thresholding_noise(population, ratio)
    if not mean:
        return EffectiveNoise(0.0, 0.0)
    active, inactive = _threshold_errors(population, mean)
    return _around(population, active, inactive)


def predicted_exact(population: Population, noise: EffectiveNoise) -> float:
    r"""First order: P(the gamma groups with the largest norms are the active ones), seen through noise.

    .. math:: \int F_0(t)^{\Gamma - \gamma}\, d\big[-\bar F_1(t)^\gamma\big]

    with F_0 the distribution of the norm of an inactive group and 1 - F_1 that of an active one: central and noncentral
    chi with d degrees of freedom. Groups are treated as independent.
    """
    d, gamma, others = population.group_size, population.n_active, population.n_groups - population.n_active
    low, high = population.norm_range
    if not others or noise.inactive <= TINY * low**2:
        return 1.0
    if noise.active == math.inf:
        return 1 / math.comb(population.n_groups, gamma)
    t = np.linspace(0.0, high + (8 + math.sqrt(d)) * math.sqrt(max(noise.active, noise.inactive)), 500)
    below = chi2.cdf(((t[1:] + t[:-1]) / 2) ** 2 / noise.inactive, d) ** others
    exact = below @ -np.diff(_above(population, t, noise.active) ** gamma)
    return min(1.0, float(exact))  # the sum of the differences may be rounded up


def transition_features(n_groups: int, group_size: int, n_active: int) -> float:
    r"""Features from which the group lasso returns codes exactly: no noise, Gaussian atoms, penalty towards 0.

    .. math:: n^\star = \min_\tau\; \gamma (d + \tau^2) + (\Gamma - \gamma)\, \mathbb{E} (\chi_d - \tau)_+^2

    up to a relative error that vanishes for large sizes at fixed ratios: the statistical dimension of the group norm
    (Amelunxen, Lotz, McCoy and Tropp 2014; the formula for groups: Stojnic 2009). With fewer features codes are not
    exact; which groups rank first may still be right.
    """
    groups, d = check_int("n_groups", n_groups), check_int("group_size", group_size)
    gamma = check_int("n_active", n_active, high=groups)

    def dimension(tau: float) -> float:
        return gamma * (d + tau**2) + (groups - gamma) * _excess(d, tau)

    largest = math.sqrt(d) + 2 * math.sqrt(math.log(groups) + 1)
    found = minimize_scalar(dimension, bounds=(0.0, largest), method="bounded")
    return float(min(found.fun, groups * d))


def _around(population: Population, active: float, inactive: float) -> EffectiveNoise:
    """The noise around a group if others have these mean squared errors when active and when not."""
    gamma, groups, n = population.n_active, population.n_groups, population.n_features
    noise = population.noise_std**2
    beside = noise + ((gamma - 1) * active + (groups - gamma) * inactive) / n
    outside = noise + (gamma * active + max(groups - gamma - 1, 0) * inactive) / n
    return EffectiveNoise(beside, outside)


def _thresholding_noise(population: Population, ratio: float) -> float:
    """The largest fixed point of the group lasso's equation, 0 included: its right side is concave in eta."""
    noise, share, d = population.noise_std**2, population.p, population.group_size
    alphas = _thresholds(d)[0]
    slopes = ratio / d * (share * (d + alphas**2) + (1 - share) * np.array([_excess(d, a) for a in alphas]))
    if noise == 0 and slopes.min() <= 1:
        return 0.0

    def left(eta: float) -> float:
        active, inactive = _threshold_errors(population, eta)
        return noise + ratio / d * (share * active + (1 - share) * inactive) - eta

    high = noise + ratio * population.kappa  # nothing is subtracted
    low = noise if noise else high
    while left(low) <= 0 and low > TINY * high:
        low /= 2
    if left(high) >= 0:
        return high
    return float(brentq(left, low, high, xtol=1e-12 * low, rtol=1e-10))  # eta has a unit


def _threshold_errors(population: Population, eta: float) -> tuple[float, float]:
    """Squared errors of an active and an inactive group, at the threshold that makes their mean least.

    The last candidate leaves out all groups: for long codes no threshold of the table does.
    """
    share, d = population.p, population.group_size
    alphas, risk = _thresholds(d)
    c, weights = population.norm_nodes
    norms = (c / math.sqrt(eta))[:, None]
    far = d + alphas**2 - 2 * alphas * (d - 1) / np.maximum(norms, _NORMS[-1])
    risks = np.where(norms < _NORMS[-1], risk(np.minimum(norms[:, 0], _NORMS[-1])), far)
    active = np.append(eta * (weights @ risks), population.moment(2))
    inactive = np.append(eta * risk(0.0), 0.0)
    best = int((share * active + (1 - share) * inactive).argmin())
    return float(active[best]), float(inactive[best])


@functools.cache
def _thresholds(d: int) -> tuple[np.ndarray, CubicSpline]:
    r"""Thresholds alpha, and the squared error E ||S(x + z) - x||^2 for ||x|| up to 40, all alphas at once.

    By Stein's identity it is d + E h(||x + z||), with h(t) = t^2 - 2 d below alpha and
    alpha^2 - 2 alpha (d - 1) / t above.
    """
    alphas = np.geomspace(0.05, math.sqrt(d) + 7, 48)
    risks = np.empty((len(_NORMS), len(alphas)))
    for column, alpha in zip(risks.T, alphas, strict=True):
        total = np.full(len(_NORMS), float(d))
        starts = np.maximum(alpha, _NORMS - 9)
        for low, high, inside in (
            (np.maximum(0.0, np.minimum(alpha, _NORMS - 9)), alpha, True),
            (starts, np.maximum(starts, _NORMS) + 9 + math.sqrt(d), False),
        ):
            t = (low + (high - low) * (_NODES[:, None] + 1) / 2).T
            h = t**2 - 2 * d if inside else alpha**2 - 2 * alpha * (d - 1) / t
            total += (_length_density(t, _NORMS[:, None], d) * h) @ _WEIGHTS * (high - low) / 2
        column[:] = total
    return alphas, CubicSpline(_NORMS, risks)


def _length_density(t: np.ndarray, norms: np.ndarray, d: int) -> np.ndarray:
    """Density of ||x + z|| at t for ||x|| = norms: noncentral chi, from the scaled Bessel function."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = norms * (t / norms) ** (d / 2) * np.exp(-((t - norms) ** 2) / 2) * ive(d / 2 - 1, t * norms)
    return np.where(norms > 0, scaled, chi.pdf(t, d))


def _above(population: Population, t: np.ndarray, noise: float) -> np.ndarray:
    """P(the norm of an active group exceeds t), seen through noise of this variance an entry."""
    low, high = population.norm_range
    if noise <= TINY * low**2:
        return np.where(t <= low, 1.0, np.clip((high - t) / (high - low), 0.0, 1.0) if high > low else 0.0)
    root, (c, weights) = math.sqrt(noise), population.norm_nodes
    if low > LONG * root:
        return norm.sf((t[:, None] - c) / root) @ weights
    return ncx2.sf((t[:, None] / root) ** 2, population.group_size, (c / root) ** 2) @ weights


def _excess(d: int, tau: float) -> float:
    """E (chi_d - tau)_+^2, from tails of chi squared."""
    mean_tail = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) * chi2.sf(tau**2, d + 1)
    return float(d * chi2.sf(tau**2, d + 2) - 2 * tau * mean_tail + tau**2 * chi2.sf(tau**2, d))
