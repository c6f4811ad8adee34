r"""Floors: where gradient descent comes to rest, from the noise of batches, from coherence, and in the paper's error.

The setting and the symbols are those of `gsae_lib.theory.rates`.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Generator

from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.theory.population import Population
from gsae_lib.theory.rates import (
    METHODS,
    equilibrium_norm,
    jacobian_moments,
    largest_step,
    plain_rates,
    riemannian_rates,
)


def noise_floor(
    population: Population,
    penalty: float,
    step: float,
    batch_size: int,
    method: Literal["riemannian", "plain"] = "riemannian",
) -> float:
    r"""First order: root mean square of tan(theta) at rest, from fresh batches of N samples, orthogonal truth.

    With D(r) = eta^2 / (1 - (1 - eta r)^2), and kappa, kappa_a, kappa_s of `riemannian_rates`, its square is

    .. math:: \frac{p (\gamma - 1)}{N d}\, \mathbb{E}\, c_g^2 c_h^2 (1 - \tau_g \tau_h)^2\, D(\kappa_s)
              + \frac{\kappa s^2}{N} \Big[ (n - m) D(\kappa) + \frac{m - d}{2} (D(\kappa_s) + D(\kappa_a)) \Big]

    since cross-talk moves two groups symmetrically. For the plain step the rates are those of `plain_rates`, kappa s^2
    becomes p s^2 E c^2 (zeta + rho w)^2 / d, cross-talk has the coefficient b_gh = c_g c_h (w_h zeta_g + rho w_g),
    whose symmetric and antisymmetric parts go to either pair mode, and the whole is divided by rho^2. Noise inside the
    other true spans is counted as if their groups were inactive, an error of order q.

    Raises:
        ValueError: a step that is not below `largest_step`.
    """
    bound = largest_step(population, penalty, method)
    if not check_real("step", step, strict=True) < bound:
        raise ValueError(f"step={step}: expected less than {bound:.4g}, the largest stable one")
    n, m, d, p = population.n_features, population.n_atoms, population.group_size, population.p
    size = check_int("batch_size", batch_size)
    if method == "plain":
        rates, rho = plain_rates(population, penalty), equilibrium_norm(population, penalty)

        def left(c: Any) -> Any:
            return 1 - rho**2 + rho * penalty / c

        signal = p / d * population.mean(lambda c: c**2 * (rho - penalty / c + rho * left(c)) ** 2)

        def crosstalk(c: Any, b: Any) -> Any:
            return left(b) * (rho - penalty / c) + rho * left(c)

    else:
        rates, rho = riemannian_rates(population, penalty), 1.0
        signal = population.kappa

        def crosstalk(c: Any, b: Any) -> Any:
            return 1 - (1 - penalty / c) * (1 - penalty / b)

    def energy(sign: int) -> float:
        """E of the square of the symmetric (+1) or antisymmetric (-1) part of the cross-talk of two groups."""

        def inner(c: float) -> float:
            return population.mean(lambda b: (c * b * (crosstalk(c, b) + sign * crosstalk(b, c)) / 2) ** 2)

        return population.mean(lambda c: np.array([inner(value) for value in c]))

    def settled(rate: float, kick: float) -> float:
        """What is left at rest of kicks with this mean square, one a step, that a rate undoes."""
        if not kick:
            return 0.0
        return kick * step**2 / (1 - (1 - step * rate) ** 2) if rate else math.inf

    square, noise = 0.0, signal * population.noise_std**2 / size
    if n > m:
        square += (n - m) * settled(rates.outside, noise)
    if population.n_groups > 1:
        crossed, inside = p * (population.n_active - 1) / (size * d), (min(m, n) - d) / 2
        for sign, rate in ((1, rates.symmetric), (-1, rates.antisymmetric)):
            square += settled(rate, crossed * energy(sign) + inside * noise)
    return math.sqrt(square) / rho


def coherence_bias(
    population: Population, penalty: float, method: Literal["riemannian", "plain"] = "riemannian"
) -> float:
    r"""First order in the coherence: root mean square of tan(theta) at rest for a random, not orthogonal, dictionary.

    .. math:: \frac{q\, |1 - 3 j t / \sigma^2|}{1 - q + 4 q j t / \sigma^2} \sqrt{\frac{m - d}{n}}
              \text{ (Riemannian)}, \qquad
              \frac{q\, (2 + (\rho^2 - 1)(\rho^2 + 2)/d)}{1 + q \rho^2 (\rho^2 j_2 + 2 j)} \sqrt{\frac{m - d}{n}}
              \text{ (plain)}

    The first vanishes at `cancelling_penalty`. The second, for equal norms (else their root mean square), does not.
    """
    q, d = population.q, population.group_size
    cross = math.sqrt((population.n_atoms - d) / population.n_features)
    if check_choice("method", method, METHODS) == "riemannian":
        j, t = jacobian_moments(population, penalty)
        ratio = j * t / population.sigma2
        return q * abs(1 - 3 * ratio) / (1 - q + 4 * q * ratio) * cross
    square = equilibrium_norm(population.with_constant_norm(), penalty) ** 2
    tau = 1 / square
    j, j2 = tau + (1 - tau) / d, tau**2 + (1 - tau**2) / d
    return q * (2 + (square - 1) * (square + 2) / d) / (1 + q * square * (square * j2 + 2 * j)) * cross


def cancelling_penalty(population: Population) -> float:
    r"""The threshold at which the Riemannian coherence bias vanishes, 3 j t = sigma^2; c/2 for equal norms and d = 3.

    Raises:
        ValueError: norms that spread so much that there is none below B_min.
    """

    def excess(penalty: float) -> float:
        j, t = jacobian_moments(population, penalty)
        return 3 * j * t / population.sigma2 - 1

    low = population.norm_range[0]
    if excess(low * (1 - 1e-9)) > 0:
        raise ValueError(f"norm_range={population.norm_range}: no threshold below {low} cancels the bias")
    return brentq(excess, low * 1e-9, low * (1 - 1e-9))


@dataclasses.dataclass(frozen=True)
class ErrorBudget:
    """Where the paper's error ||A - A*||_F^2 comes from at rest, summed over groups; to first order.

    rotation: of columns within their span, kept from the start. tilt: learned groups become orthonormal, and overshoot,
    where the true columns are not. optimizer: Adam's noise. coherence: the bias of `coherence_bias`.
    """

    rotation: float
    tilt: float
    optimizer: float
    coherence: float

    @property
    def angles(self) -> float:
        """What the squared principal angles see: optimizer and coherence."""
        return self.optimizer + self.coherence

    @property
    def total(self) -> float:
        """The sum of the four."""
        return self.rotation + self.tilt + self.optimizer + self.coherence


def error_budget(
    population: Population,
    penalty: float,
    *,
    start_correlation: float,
    learning_rate: float,
    batch_size: int,
    n_steps: int,
    generator: Generator,
) -> ErrorBudget:
    r"""Predict the parts of the paper's error after Adam from A* + B, unit columns, at the equilibrium norm.

    * rotation: Gamma d (d - 1) sigma_B^2 / 2
    * tilt: Gamma d (d - 1) (1 - s/rho)^2 / (4 n), with s = -(rho^2 - 1) (2/(d + 2)) (rho + 1/rho) / w and w the
      traceless eigenvalue of `hessian_spectrum` in units of kappa; 0 for orthonormal true groups
    * optimizer: n m E x^2 / rho^2 for one entry x of W - rho A* that follows Adam on a quadratic of curvature kappa /
      rho^2 with gradient noise of variance kappa s^2 / (N rho^2): simulated, since Adam's running mean of squares
      remembers the first steps. It tends to (lr m / 2 rho) sqrt(m n / (N snr)) for long training.
    * coherence: m times the square of `coherence_bias`, plain
    """
    n, d, groups, m = population.n_features, population.group_size, population.n_groups, population.n_atoms
    c = check_real("start_correlation", start_correlation, high=1.0, strict=True)
    start_variance = (1 / c**2 - 1) / n
    equal = population.with_constant_norm()
    rho = equilibrium_norm(equal, penalty)
    tilt = 0.0
    if not population.orthonormal and d > 1:
        eigenvalue = 4 / rho**2 + 2 / (d + 2) * (rho**2 + 2 - 3 / rho**2)
        overshoot = (rho**2 - 1) * 2 / (d + 2) * (rho + 1 / rho) / eigenvalue
        tilt = groups * d * (d - 1) * (1 + overshoot / rho) ** 2 / (4 * n)
    noise = math.sqrt(equal.kappa / check_int("batch_size", batch_size)) * population.noise_std / rho
    settled = _adam_variance(
        equal.kappa / rho**2, noise, start_variance, check_int("n_steps", n_steps), learning_rate, generator
    )
    return ErrorBudget(
        groups * d * (d - 1) * start_variance / 2,
        tilt,
        n * m * settled / rho**2,
        m * coherence_bias(population, penalty, "plain") ** 2,
    )


def _adam_variance(
    curvature: float, noise: float, start: float, n_steps: int, learning_rate: float, generator: Generator
) -> float:
    """Mean square of an entry after Adam on a quadratic with noise, from a Gaussian start; 50,000 entries."""
    x = torch.randn(50_000, generator=generator, dtype=torch.float64, device=generator.device).mul_(start**0.5)
    optimizer = torch.optim.Adam([x], lr=check_real("learning_rate", learning_rate, strict=True))
    for _ in range(n_steps):
        x.grad = curvature * x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        optimizer.step()
    return x.square().mean().item()


def fixed_data_floor(population: Population, n_samples: int) -> float:
    r"""Error of least squares with the true codes on N fixed samples: what no training can undercut.

    .. math:: \|A - A^\star\|_F^2 \approx \frac{m^2}{N\, \mathrm{snr}}, \qquad
              \mathrm{snr} = \frac{\gamma\, \mathbb{E} c^2}{n s^2}

    Each entry of a column is averaged over N gamma / Gamma visits with codes of second moment E c^2 / d, in noise of
    variance s^2; n m such entries add up. First order in the noise; unit columns.
    """
    noise = population.n_features * population.noise_std**2 / (population.n_active * population.moment(2))
    return population.n_atoms**2 * noise / check_int("n_samples", n_samples)
