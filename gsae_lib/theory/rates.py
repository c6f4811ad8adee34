r"""Rates near the truth: of spans, of the norm that plain gradient descent settles at, its Hessian, the largest step.

Everything is for the shallow tied network with threshold lambda, supports right. tau = 1 - lambda / c is what the group
ReLU leaves of an active group at W = A*, j = E[tau + (1 - tau) / d] the mean of its Jacobian's eigenvalues, t =
E[tau c^2] / d. "Exact" and "first order" are said where they apply; proofs on the theory page.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_choice, check_devices, check_int, check_real
from gsae_lib.activations import group_relu
from gsae_lib.dictionary import Dictionary
from gsae_lib.theory.population import Population

METHODS = ("riemannian", "plain")


def tangent_step(tangent: np.ndarray | float, rate: float) -> np.ndarray | float:
    r"""Exact: tangents of the principal angles after one Riemannian step, `rate` a = eta kappa, one active group.

    .. math:: \tan\theta^+ = \tan\theta\, \frac{|1 - a \cos^2\theta|}{1 + a \sin^2\theta}
    """
    square = np.square(tangent)
    return tangent * np.abs(1 + square - rate) / (1 + (1 + rate) * square)


@dataclasses.dataclass(frozen=True)
class SpanRates:
    """Rates of the modes of spans near the truth: a small tangent shrinks by 1 - eta * rate a step.

    outside: towards directions outside all true spans. antisymmetric, symmetric: between the spans of two groups, M_gh
    = -M_hg^T or M_gh = M_hg^T, where the columns of W_g move by A*_h M_hg.
    """

    outside: float
    antisymmetric: float
    symmetric: float


def jacobian_moments(population: Population, penalty: float) -> tuple[float, float]:
    """(j, t) at W = A*: j = E[tau + (1 - tau) / d] and t = E[tau c^2] / d."""
    low, d = population.norm_range[0], population.group_size
    check_real("penalty", penalty, high=low, strict=True)
    tau = _tau(penalty)
    return population.mean(lambda c: tau(c) + (1 - tau(c)) / d), population.mean(lambda c: tau(c) * c**2) / d


def riemannian_rates(population: Population, penalty: float) -> SpanRates:
    r"""First order: rates at W = A*, orthogonal truth, orthonormal groups; lambda enters one of them alone.

    .. math:: \kappa, \qquad \kappa (1 - q), \qquad \kappa (1 - q) + 4 \kappa q\, \frac{j t}{\sigma^2}
    """
    j, t = jacobian_moments(population, penalty)
    kappa, q = population.kappa, population.q
    return SpanRates(kappa, kappa * (1 - q), kappa * (1 - q) + 4 * kappa * q * j * t / population.sigma2)


def pair_rates(population: Population, penalty: float, first: float, second: float, both: float) -> tuple[float, float]:
    r"""First order: the two rates between the spans of groups g and h under any law of the support, slower one first.

    .. math:: \begin{pmatrix} (p_g - x)\, \sigma^2 + a & a \\ a & (p_h - x)\, \sigma^2 + a \end{pmatrix},
              \qquad a = 2 x j t

    are the rates of (M_hg, M_gh^T) at W = A*, orthogonal truth, orthonormal groups, independent isotropic codes of one
    law of norms, p_g = `first` = P(g in S), p_h = `second`, x = `both` = P(g and h in S). Both are positive unless the
    two groups are always active together. Of the population only the norms and the group size count. For uniform
    supports they are those of `riemannian_rates`.
    """
    first, second = (check_real(name, x, high=1.0, strict=True) for name, x in (("first", first), ("second", second)))
    least, most = max(first + second - 1, 0.0), min(first, second)
    both = min(check_real("both", both, low=max(least - 1e-12, 0.0), high=most + 1e-12), most)  # but for rounding
    j, t = jacobian_moments(population, penalty)
    own, other = (first - both) * population.sigma2, (second - both) * population.sigma2
    shared = 2 * both * j * t
    fast = (own + other) / 2 + shared + math.hypot((own - other) / 2, shared)
    return (own * other + shared * (own + other)) / fast, fast


def equilibrium_norm(population: Population, penalty: float) -> float:
    r"""Exact for orthogonal truth without noise: the column norm rho at which plain gradient descent rests, above 1.

    .. math:: 2 m_2 \rho^3 - 3 \lambda m_1 \rho^2 + (\lambda^2 - 2 m_2) \rho + \lambda m_1 = 0

    the largest root. For equal norms c it is rho - 1/rho = lambda / c, where the loss is 0 without noise.

    Raises:
        ValueError: a penalty so large that the smallest group would become inactive.
    """
    penalty = check_real("penalty", penalty, strict=True)
    m1, m2 = population.moment(1), population.moment(2)
    roots = np.roots([2 * m2, -3 * penalty * m1, penalty**2 - 2 * m2, penalty * m1])
    rho = float(roots[abs(roots.imag) < 1e-9].real.max())
    if rho * population.norm_range[0] <= penalty:
        raise ValueError(f"penalty={penalty}: zeroes the smallest group at the norm {rho:.4g} it leads to")
    return rho


def plain_rates(population: Population, penalty: float) -> SpanRates:
    r"""First order: rates of plain gradient descent at rho A*, orthogonal truth.

    With w = 1 - rho^2 + rho lambda / c, zeta = rho - lambda / c, and j, j_2 the means of the Jacobian and of its square
    at tau = 1 - lambda / (rho c),

    .. math:: r = \frac pd\, \mathbb{E}(\rho c - \lambda)^2, \qquad
              r + p q \Big[ \rho^2 j_2 \sigma^2 - \frac{2 j}{d} \mathbb{E} w c^2
              - \Big(1 - \frac1d\Big) \sigma^2\, \mathbb{E} \frac{\lambda w}{\rho c}
              \pm \frac{2 \rho j}{d} \mathbb{E} \zeta c^2 \Big]

    outside all spans, and between two groups (+ symmetric, - antisymmetric). For equal norms w = 0, and r is kappa
    over rho^2.
    """
    rho, d, p = equilibrium_norm(population, penalty), population.group_size, population.p
    mean, sigma2 = population.mean, population.sigma2

    def tau(c: np.ndarray) -> np.ndarray:
        return 1 - penalty / (rho * c)

    def left(c: np.ndarray) -> np.ndarray:
        return 1 - rho**2 + rho * penalty / c

    j = mean(lambda c: tau(c) + (1 - tau(c)) / d)
    j2 = mean(lambda c: tau(c) ** 2 + (1 - tau(c) ** 2) / d)
    outside = p * mean(lambda c: (rho * c - penalty) ** 2) / d
    shared = rho**2 * j2 * sigma2 - 2 * j * mean(lambda c: left(c) * c**2) / d
    shared -= (1 - 1 / d) * sigma2 * mean(lambda c: penalty * left(c) / (rho * c))
    swapped = 2 * rho * j * mean(lambda c: (rho - penalty / c) * c**2) / d
    pq = p * population.q
    return SpanRates(outside, outside + pq * (shared - swapped), outside + pq * (shared + swapped))


@dataclasses.dataclass(frozen=True)
class Mode:
    """An eigenvalue of the Hessian and the dimension of its eigenspace."""

    name: str
    eigenvalue: float
    multiplicity: int


def hessian_spectrum(population: Population, penalty: float) -> tuple[Mode, ...]:
    r"""Exact: the Hessian of the expected loss at rho A*, orthogonal truth, independent isotropic groups, no noise.

    With tau = 1 - lambda / (rho c) and w = 1 - rho^2 + rho lambda / c,

    * rotations within a group: 0
    * outside all spans, and between groups, antisymmetric or symmetric: `plain_rates`
    * within a group, traceless:

      .. math:: \frac pd\, \mathbb{E}\, c^2 \Big[ 4 \rho^2 \tau^2 + \frac{2 \rho^2 (1 - \tau)(1 + 3\tau)}{d + 2}
                - w \Big( 1 + \tau + \frac{2 (1 - \tau)}{d + 2} \Big) \Big]

    * within a group, radial: p (6 m_2 rho^2 - 6 lambda m_1 rho + lambda^2 - 2 m_2) / d

    For equal norms w = 0 and tau = 1 / rho^2; in units of kappa the traceless one is then 4/rho^2 + 2/(d + 2) (rho^2 +
    2 - 3/rho^2), and the radial one (rho + 1/rho)^2, the largest of all.

    Raises:
        ValueError: noise, or m > n.
    """
    if population.noise_std:
        raise ValueError(f"noise_std={population.noise_std}: expected 0")
    n, groups, d = population.n_features, population.n_groups, population.group_size
    check_int("n_groups * group_size", population.n_atoms, high=n)
    rates = plain_rates(population, penalty)
    traceless, radial = _within_group_curvatures(population, penalty)
    pairs = groups * (groups - 1) // 2 * d**2
    return (
        Mode("rotations", 0.0, groups * d * (d - 1) // 2),
        Mode("outside", rates.outside, d * groups * (n - population.n_atoms)),
        Mode("antisymmetric", rates.antisymmetric, pairs),
        Mode("symmetric", rates.symmetric, pairs),
        Mode("traceless", traceless, groups * (d * (d + 1) // 2 - 1)),
        Mode("radial", radial, groups),
    )


def _within_group_curvatures(population: Population, penalty: float) -> tuple[float, float]:
    """The traceless and the radial eigenvalue of `hessian_spectrum`; a group of one has no traceless motion, 0."""
    rho, d = equilibrium_norm(population, penalty), population.group_size
    m1, m2 = population.moment(1), population.moment(2)

    def traceless(c: np.ndarray) -> np.ndarray:
        tau, left = 1 - penalty / (rho * c), 1 - rho**2 + rho * penalty / c
        curvature = 4 * rho**2 * tau**2 + 2 * rho**2 * (1 - tau) * (1 + 3 * tau) / (d + 2)
        return c**2 * (curvature - left * (1 + tau + 2 * (1 - tau) / (d + 2)))

    scale = population.p / d
    radial = scale * (6 * m2 * rho**2 - 6 * penalty * m1 * rho + penalty**2 - 2 * m2)
    return scale * population.mean(traceless) if d > 1 else 0.0, radial


def loss_hessian(
    data: Float[Tensor, "samples features"], dictionary: Dictionary, penalty: float, group_size: int
) -> Float[Tensor, "entries entries"]:
    """Hessian of 1/(2N) sum ||y - y_hat||^2 in the entries of W, row by row, by automatic differentiation.

    For small networks: (n m)^2 numbers.
    """
    check_devices(data=data, dictionary=dictionary)

    def loss(entries: Tensor) -> Tensor:
        w = entries.reshape(dictionary.shape)
        residual = data - group_relu(data @ w, penalty, group_size) @ w.T
        return residual.square().sum() / (2 * len(data))

    return torch.autograd.functional.hessian(loss, dictionary.flatten(), vectorize=True)


def largest_step(population: Population, penalty: float, method: Literal["riemannian", "plain"] = "plain") -> float:
    r"""The step eta beyond which gradient descent leaves the solution: 2 over the largest rate.

    .. math:: \frac{2}{\max(\kappa, \kappa_s)} \text{ (Riemannian)}, \qquad
              \frac{2}{\kappa (\rho + 1/\rho)^2} \text{ (plain; exact for equal norms)}

    with kappa_s the symmetric one of `riemannian_rates`, kappa for one active group. For norms that differ, the plain
    one is 2 over the largest eigenvalue of `hessian_spectrum`.
    """
    if check_choice("method", method, METHODS) == "riemannian":
        return 2 / max(dataclasses.astuple(riemannian_rates(population, penalty)))
    rates = dataclasses.astuple(plain_rates(population, penalty))
    return 2 / max(*rates, *_within_group_curvatures(population, penalty))


def printed_rate(
    step: float, tau: float, p: float, group_size: int, alpha_min: float, alpha_max: float, delta: float
) -> float:
    r"""rho of the paper's Theorem 2, which promises a factor 1 - rho a step; it is never positive.

    .. math:: \rho = \eta\, \tau (2 - \tau) p \Big( \alpha_{\min} - d\,
              \frac{(\alpha_{\max} \sqrt{d^2 + 1} + \delta)^2}{\alpha_{\min}} \Big)
              \le \eta\, \tau (2 - \tau) p\, \alpha_{\min} \big( 1 - d (d^2 + 1) \big) < 0
    """
    step = check_real("step", step, strict=True)
    alpha_min = check_real("alpha_min", alpha_min, strict=True, high=alpha_max)
    worst = (alpha_max * math.sqrt(group_size**2 + 1) + delta) ** 2 / alpha_min
    return step * tau * (2 - tau) * p * (alpha_min - group_size * worst)


def printed_largest_step(tau: float, p: float, alpha_max: float = 1.0) -> float:
    """The step that Theorem 2 allows, 1 / (tau (2 - tau) p alpha_max), for codes of second moment 1.

    For others it is divided by sigma^2, and then at least twice the largest stable plain one.
    """
    tau, p = (check_real(name, x, high=1.0, strict=True) for name, x in (("tau", tau), ("p", p)))
    check_real("alpha_max", alpha_max, strict=True)
    return 1 / (tau * (2 - tau) * p * alpha_max)


def _tau(penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda c: 1 - penalty / c
