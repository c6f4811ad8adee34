r"""Convergence: the rate of spans, the norm that plain gradient descent settles at, its Hessian, and the floors.

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
from scipy.optimize import brentq
from torch import Generator, Tensor

from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.activations import group_relu
from gsae_lib.dictionary import Dictionary, as_groups, polar
from gsae_lib.generative import GroupSparseSource
from gsae_lib.metrics import dictionary_error, principal_angles, rotated_dictionary_error
from gsae_lib.structured import shallow_gradient
from gsae_lib.theory.gradient import riemannian_step
from gsae_lib.theory.population import Population, antithetic

METHODS = ("riemannian", "plain", "adam")


def tangent_step(tangent: np.ndarray | float, rate: float) -> np.ndarray | float:
    r"""Exact: tangents of the principal angles after one Riemannian step, `rate` a = eta kappa, one active group.

    .. math:: \tan\theta^+ = \tan\theta\, \frac{|1 - a \cos^2\theta|}{1 + a \sin^2\theta}
    """
    square = np.square(tangent)
    return tangent * np.abs(1 + square - rate) / (1 + (1 + rate) * square)


def contraction_rate(max_angle: float, rate: float) -> float:
    r"""Exact: the worst factor of tan(theta) in a step, over all angles up to theta_0; below 1 iff 0 < a < 2.

    .. math:: \max\Big( |1 - a|,\; \frac{|1 - a \cos^2\theta_0|}{1 + a \sin^2\theta_0} \Big)

    Raises:
        ValueError: an angle outside [0, pi/2], or a rate that is not positive.
    """
    angle = check_real("max_angle", max_angle, high=math.pi / 2)
    rate = check_real("rate", rate, strict=True)
    sine2 = math.sin(angle) ** 2
    return max(abs(1 - rate), abs(1 - rate * (1 - sine2)) / (1 + rate * sine2))


@dataclasses.dataclass(frozen=True)
class SpanRates:
    """Rates of the modes of spans near the truth: a small tangent shrinks by 1 - eta * rate a step.

    outside: towards directions outside all true spans. antisymmetric, symmetric: between the spans of two groups, M_gh
    = -M_hg^T or M_gh = M_hg^T, where the columns of W_g move by A*_h M_hg.
    """

    outside: float
    antisymmetric: float
    symmetric: float


def riemannian_rates(population: Population, penalty: float) -> SpanRates:
    r"""First order: rates at W = A*, orthogonal truth, orthonormal groups; lambda enters one of them alone.

    .. math:: \kappa, \qquad \kappa (1 - q), \qquad \kappa (1 - q) + 4 \kappa q\, \frac{j t}{\sigma^2}

    Raises:
        ValueError: a penalty outside (0, B_min).
    """
    j, t = _jacobian_moments(population, penalty)
    kappa, q = population.kappa, population.q
    return SpanRates(kappa, kappa * (1 - q), kappa * (1 - q) + 4 * kappa * q * j * t / population.sigma2)


def equilibrium_norm(population: Population, penalty: float) -> float:
    r"""Exact for orthogonal truth without noise: the column norm rho at which plain gradient descent rests, above 1.

    .. math:: 2 m_2 \rho^3 - 3 \lambda m_1 \rho^2 + (\lambda^2 - 2 m_2) \rho + \lambda m_1 = 0

    the largest root. For equal norms c it is rho - 1/rho = lambda / c, where the loss is 0 without noise.

    Raises:
        ValueError: a penalty that is not positive, or so large that the smallest group would fall silent.
    """
    penalty = check_real("penalty", penalty, strict=True)
    m1, m2 = population.moment(1), population.moment(2)
    roots = np.roots([2 * m2, -3 * penalty * m1, penalty**2 - 2 * m2, penalty * m1])
    rho = float(roots[abs(roots.imag) < 1e-9].real.max())
    if rho * population.norm_range[0] <= penalty:
        raise ValueError(f"penalty={penalty}: silences the smallest group at the norm {rho:.4g} it leads to")
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

    Raises:
        ValueError: as `equilibrium_norm`.
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
    r"""Exact: the Hessian of the expected loss at rho A*, orthogonal truth, equal norms, no noise.

    There the loss is 0, so the Hessian is that of Gauss and Newton. In units of kappa, with tau = 1 / rho^2,
    j = tau + (1 - tau)/d and j_2 = tau^2 + (1 - tau^2)/d:

    * rotations within a group: 0
    * outside all spans: 1/rho^2
    * between groups, antisymmetric: (1 - q)/rho^2 + q lambda^2 / (d c^2)
    * between groups, symmetric: 1/rho^2 + q (rho^2 j_2 + 2 j)
    * within a group, traceless: 4/rho^2 + 2/(d + 2) (rho^2 + 2 - 3/rho^2)
    * within a group, radial: (rho + 1/rho)^2, the largest

    Raises:
        ValueError: norms that differ (use `Population.with_constant_norm`), noise, m > n, or as `equilibrium_norm`.
    """
    low, c = population.norm_range
    if low != c or population.noise_std:
        raise ValueError(f"population: expected equal norms and no noise, got {population}")
    n, groups, d, q = population.n_features, population.num_groups, population.group_size, population.q
    check_int("num_groups * group_size", population.num_atoms, high=n)
    rho = equilibrium_norm(population, penalty)
    tau = 1 / rho**2
    j, j2 = tau + (1 - tau) / d, tau**2 + (1 - tau**2) / d
    pairs = groups * (groups - 1) // 2 * d**2
    modes = (
        ("rotations", 0.0, groups * d * (d - 1) // 2),
        ("outside", tau, d * groups * (n - population.num_atoms)),
        ("antisymmetric", (1 - q) * tau + q * penalty**2 / (d * c**2), pairs),
        ("symmetric", tau + q * (rho**2 * j2 + 2 * j), pairs),
        ("traceless", 4 * tau + 2 / (d + 2) * (rho**2 + 2 - 3 * tau), groups * (d * (d + 1) // 2 - 1)),
        ("radial", (rho + 1 / rho) ** 2, groups),
    )
    return tuple(Mode(name, population.kappa * value, count) for name, value, count in modes)


def loss_hessian(
    weight: Dictionary, data: Float[Tensor, "samples features"], penalty: float, group_size: int
) -> Float[Tensor, "entries entries"]:
    """Hessian of 1/(2N) sum ||y - y_hat||^2 in the entries of W, row by row, by automatic differentiation.

    For small networks: (n m)^2 numbers.
    """

    def loss(entries: Tensor) -> Tensor:
        w = entries.reshape(weight.shape)
        residual = data - group_relu(data @ w, penalty, group_size) @ w.T
        return residual.square().sum() / (2 * len(data))

    return torch.autograd.functional.hessian(loss, weight.flatten(), vectorize=True)


def largest_step(population: Population, penalty: float, method: Literal["riemannian", "plain"] = "plain") -> float:
    r"""The step eta beyond which gradient descent leaves the solution: 2 over the largest rate.

    .. math:: \frac{2}{\max(\kappa, \kappa_s)} \text{ (Riemannian)}, \qquad
              \frac{2}{\kappa (\rho + 1/\rho)^2} \text{ (plain; exact for equal norms)}

    with kappa_s the symmetric one of `riemannian_rates`, kappa for one active group. For norms that differ, the plain
    one is 2 d / (p (6 m_2 rho^2 - 6 lambda m_1 rho + lambda^2 - 2 m_2)), from the slope of the equation of rho.

    Raises:
        ValueError: an unknown method, for "riemannian" a penalty outside (0, B_min), or as `equilibrium_norm`.
    """
    if check_choice("method", method, METHODS[:2]) == "riemannian":
        return 2 / max(dataclasses.astuple(riemannian_rates(population, penalty)))
    rho = equilibrium_norm(population, penalty)
    m1, m2 = population.moment(1), population.moment(2)
    slope = 6 * m2 * rho**2 - 6 * penalty * m1 * rho + penalty**2 - 2 * m2
    return 2 * population.group_size / (population.p * slope)


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
    becomes p s^2 E(rho c - lambda)^2 / d, cross-talk has the coefficient b_gh = c_g c_h (w_h zeta_g + rho w_g), whose
    symmetric and antisymmetric parts go to either pair mode, and the whole is divided by rho^2. Noise inside the other
    true spans is counted as if their groups were silent, an error of order q.

    Raises:
        ValueError: an unknown method, a step that is not below `largest_step`, a bad batch size, or as `largest_step`.
    """
    bound = largest_step(population, penalty, method)
    if not check_real("step", step, strict=True) < bound:
        raise ValueError(f"step={step}: expected less than {bound:.4g}, the largest stable one")
    n, m, d, p = population.n_features, population.num_atoms, population.group_size, population.p
    size = check_int("batch_size", batch_size)
    if method == "plain":
        rates, rho = plain_rates(population, penalty), equilibrium_norm(population, penalty)
        signal = rates.outside

        def crosstalk(c: float, b: np.ndarray) -> np.ndarray:
            return (1 - rho**2 + rho * penalty / b) * (rho - penalty / c) + rho * (1 - rho**2 + rho * penalty / c)

    else:
        rates, rho = riemannian_rates(population, penalty), 1.0
        signal = population.kappa

        def crosstalk(c: float, b: np.ndarray) -> np.ndarray:
            return 1 - (1 - penalty / c) * (1 - penalty / b)

    def energy(sign: int) -> float:
        """E of the square of the symmetric (+1) or antisymmetric (-1) part of the cross-talk of two groups."""

        def inner(c: float) -> float:
            return population.mean(lambda b: (c * b * (crosstalk(c, b) + sign * crosstalk(b, c)) / 2) ** 2)

        return population.mean(lambda c: np.array([inner(value) for value in c]))

    def settled(rate: float) -> float:
        return step**2 / (1 - (1 - step * rate) ** 2)

    pairs = (settled(rates.symmetric), settled(rates.antisymmetric)) if population.num_groups > 1 else (0.0, 0.0)
    square = p * (population.num_active - 1) / (size * d) * (energy(1) * pairs[0] + energy(-1) * pairs[1])
    outside, inside = max(n - m, 0), min(m, n) - d
    square += signal * population.noise_std**2 / size * (outside * settled(rates.outside) + inside * sum(pairs) / 2)
    return math.sqrt(square) / rho


def coherence_bias(
    population: Population, penalty: float, method: Literal["riemannian", "plain"] = "riemannian"
) -> float:
    r"""First order in the coherence: root mean square of tan(theta) at rest for a random, not orthogonal, dictionary.

    .. math:: \frac{q\, |1 - 3 j t / \sigma^2|}{1 - q + 4 q j t / \sigma^2} \sqrt{\frac{m - d}{n}}
              \text{ (Riemannian)}, \qquad
              \frac{q\, (2 + (\rho^2 - 1)(\rho^2 + 2)/d)}{1 + q \rho^2 (\rho^2 j_2 + 2 j)} \sqrt{\frac{m - d}{n}}
              \text{ (plain)}

    The first vanishes at `cancelling_threshold`. The second, for equal norms (else their root mean square), does not.

    Raises:
        ValueError: an unknown method, a penalty outside (0, B_min), or as `equilibrium_norm`.
    """
    q, d = population.q, population.group_size
    cross = math.sqrt((population.num_atoms - d) / population.n_features)
    if check_choice("method", method, METHODS[:2]) == "riemannian":
        j, t = _jacobian_moments(population, penalty)
        ratio = j * t / population.sigma2
        return q * abs(1 - 3 * ratio) / (1 - q + 4 * q * ratio) * cross
    square = equilibrium_norm(population.with_constant_norm(), penalty) ** 2
    tau = 1 / square
    j, j2 = tau + (1 - tau) / d, tau**2 + (1 - tau**2) / d
    return q * (2 + (square - 1) * (square + 2) / d) / (1 + q * square * (square * j2 + 2 * j)) * cross


def cancelling_threshold(population: Population) -> float:
    r"""The threshold at which the Riemannian coherence bias vanishes, 3 j t = sigma^2; c/2 for equal norms and d = 3.

    Raises:
        ValueError: norms that spread so much that there is none below B_min.
    """

    def excess(penalty: float) -> float:
        j, t = _jacobian_moments(population, penalty)
        return 3 * j * t / population.sigma2 - 1

    low = population.norm_range[0]
    if excess(low * (1 - 1e-9)) > 0:
        raise ValueError(f"norm_range={population.norm_range}: no threshold below {low} cancels the bias")
    return brentq(excess, low * 1e-9, low * (1 - 1e-9))


def printed_rate(
    step: float, tau: float, p: float, group_size: int, alpha_min: float, alpha_max: float, delta: float
) -> float:
    r"""rho of the paper's Theorem 2, which promises a factor 1 - rho a step; it is never positive.

    .. math:: \rho = \eta\, \tau (2 - \tau) p \Big( \alpha_{\min} - d\,
              \frac{(\alpha_{\max} \sqrt{d^2 + 1} + \delta)^2}{\alpha_{\min}} \Big)
              \le \eta\, \tau (2 - \tau) p\, \alpha_{\min} \big( 1 - d (d^2 + 1) \big) < 0

    Raises:
        ValueError: alpha_min that is not positive or above alpha_max, or a step that is not positive.
    """
    step = check_real("step", step, strict=True)
    alpha_min = check_real("alpha_min", alpha_min, strict=True, high=alpha_max)
    worst = (alpha_max * math.sqrt(group_size**2 + 1) + delta) ** 2 / alpha_min
    return step * tau * (2 - tau) * p * (alpha_min - group_size * worst)


def printed_largest_step(tau: float, p: float, alpha_max: float = 1.0) -> float:
    """The step that Theorem 2 allows, 1 / (tau (2 - tau) p alpha_max): at least 2 sigma^2 times the stable plain one.

    Raises:
        ValueError: tau or p outside (0, 1], or alpha_max that is not positive.
    """
    tau, p = (check_real(name, x, high=1.0, strict=True) for name, x in (("tau", tau), ("p", p)))
    check_real("alpha_max", alpha_max, strict=True)
    return 1 / (tau * (2 - tau) * p * alpha_max)


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
    steps: int,
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

    Raises:
        ValueError: settings out of range, or as `equilibrium_norm`.
    """
    n, d, groups, m = population.n_features, population.group_size, population.num_groups, population.num_atoms
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
        equal.kappa / rho**2, noise, start_variance, check_int("steps", steps), learning_rate, generator
    )
    return ErrorBudget(
        groups * d * (d - 1) * start_variance / 2,
        tilt,
        n * m * settled / rho**2,
        m * coherence_bias(population, penalty, "plain") ** 2,
    )


def _adam_variance(
    curvature: float, noise: float, start: float, steps: int, learning_rate: float, generator: Generator
) -> float:
    """Mean square of an entry after Adam on a quadratic with noise, from a Gaussian start; 50,000 entries."""
    x = torch.randn(50_000, generator=generator, dtype=torch.float64, device=generator.device).mul_(start**0.5)
    optimizer = torch.optim.Adam([x], lr=check_real("learning_rate", learning_rate, strict=True))
    for _ in range(steps):
        x.grad = curvature * x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        optimizer.step()
    return x.square().mean().item()


@dataclasses.dataclass(frozen=True)
class Descent:
    """A run of gradient descent, measured before the first and after every step.

    tangents (steps + 1, groups, group_size): of the principal angles to the true spans. norms (steps + 1,): mean column
    norm. columns, rotated (steps + 1,): the paper's error, and after the best rotation within each group, per group.
    rotations (steps + 1,): mean of ||Q_g - I||_F^2 over groups, Q_g that best rotation of W_g onto A*_g.
    supports (steps,): share of the samples of each step with exactly the right support. weight: the last one.
    """

    tangents: np.ndarray
    norms: np.ndarray
    columns: np.ndarray
    rotated: np.ndarray
    rotations: np.ndarray
    supports: np.ndarray
    weight: Tensor

    @property
    def rms(self) -> np.ndarray:
        """Root mean square of the tangents over groups and angles, (steps + 1,)."""
        return np.sqrt(np.square(self.tangents).mean(axis=(1, 2)))


def descend(
    weight: Dictionary,
    source: GroupSparseSource,
    penalty: float | Callable[[int], float],
    *,
    method: Literal["riemannian", "plain", "adam"],
    step: float,
    steps: int,
    batch_size: int,
    signs: bool = False,
    generator: Generator,
) -> Descent:
    """Gradient descent on fresh batches with a constant step, beside the truth; measured at every step.

    Args:
        weight: the start. source: the data and the truth. penalty: lambda, or lambda as a function of the step.
        method: "riemannian" keeps groups orthonormal (`riemannian_step`), "plain" is W - eta G, "adam" has eta as its
            learning rate.
        step: eta. steps: how many. batch_size: samples a step.
        signs: take each sample without noise and with all signs of its groups (`antithetic`), which removes the noise
            of batches to first order.

    Raises:
        ValueError: an unknown method, or settings out of range.
    """
    check_choice("method", method, METHODS)
    check_real("step", step, strict=True)
    check_int("steps", steps)
    truth, d = source.dictionary, source.group_size
    weight = weight.clone()
    optimizer = torch.optim.Adam([weight], lr=step) if method == "adam" else None
    measured, supports = [_measure(weight, truth, d)], []
    for k in range(steps):
        sample = source.sample(batch_size, generator=generator)
        if signs:
            sample = antithetic(sample, truth)
        current = penalty(k) if callable(penalty) else penalty
        gradient = shallow_gradient(weight, sample.data, current, d).gradient
        supports.append(_exact_supports(weight, sample.data[:1000], sample.support[:1000], current, d))
        if method == "riemannian":
            weight = riemannian_step(weight, gradient, step, d)
        elif method == "plain":
            weight = weight - step * gradient
        else:
            weight.grad = gradient
            optimizer.step()
        measured.append(_measure(weight, truth, d))
    curves = (np.array(values) for values in zip(*measured, strict=True))
    return Descent(*curves, supports=np.array(supports), weight=weight.detach())


def measured_factor(tangents: np.ndarray, floor: float = 0.0) -> float:
    """Mean factor a step of a tangent, (steps + 1,), while it is above ten floors; nan if it never is after a step."""
    above = np.flatnonzero(tangents > 10 * floor)
    last = above[-1] if len(above) else 0
    return float((tangents[last] / tangents[0]) ** (1 / last)) if last else math.nan


def predicted_factor(tangents: Float[np.ndarray, "groups size"], rate: float, steps: int) -> float:
    """The same from the exact recursion `tangent_step` of one active group, over `steps` steps from these angles.

    Raises:
        ValueError: steps that is not a positive integer.
    """
    values = np.asarray(tangents)
    for _ in range(check_int("steps", steps)):
        values = tangent_step(values, rate)
    return float(np.sqrt(np.mean(values**2) / np.mean(np.square(tangents))) ** (1 / steps))


def _measure(weight: Tensor, truth: Tensor, group_size: int) -> tuple[np.ndarray, float, float, float, float]:
    """Tangents, mean norm, the paper's error and the rotated one a group, and the rotation; nan when it diverged."""
    groups, true = as_groups(weight, group_size), as_groups(truth, group_size)
    if not bool(weight.isfinite().all()):
        return np.full((len(true), group_size), math.nan), math.nan, math.nan, math.nan, math.nan
    rotations = polar(groups.mT @ true) - torch.eye(group_size, dtype=weight.dtype, device=weight.device)
    return (
        np.tan(principal_angles(weight, truth, group_size).cpu().numpy()),
        torch.linalg.vector_norm(weight, dim=0).mean().item(),
        dictionary_error(weight, truth) / len(true),
        rotated_dictionary_error(weight, truth, group_size) / len(true),
        rotations.square().sum().item() / len(true),
    )


def _exact_supports(weight: Tensor, data: Tensor, support: Tensor, penalty: float, group_size: int) -> float:
    norms = torch.linalg.vector_norm((data @ weight).unflatten(1, (-1, group_size)), dim=2)
    return ((norms > penalty) == support).all(dim=1).double().mean().item()


def _tau(penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda c: 1 - penalty / c


def _jacobian_moments(population: Population, penalty: float) -> tuple[float, float]:
    """j = E[tau + (1 - tau) / d] and t = E[tau c^2] / d at W = A*."""
    low, d = population.norm_range[0], population.group_size
    check_real("penalty", penalty, high=low, strict=True)
    tau = _tau(penalty)
    return population.mean(lambda c: tau(c) + (1 - tau(c)) / d), population.mean(lambda c: tau(c) * c**2) / d
