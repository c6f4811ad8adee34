r"""Windows for the penalty: for which lambda does one layer find the support?

delta = max_g ||W_g - A*_g||_F, theta the largest principal angle, mu_B the block coherence of the true dictionary
(largest spectral norm of A*_g^T A*_h, over d). Proofs on the theory page.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import betainc, betaincinv
from scipy.stats import chi2, ncx2, norm
from torch import Tensor

from gsae_lib._checks import check_devices, check_matrix, check_real, describe, without_autocast
from gsae_lib.dictionary import Dictionary, as_groups, block_coherence, polar
from gsae_lib.generative import GroupSparseSample, GroupSparseSource
from gsae_lib.groups import active_groups, group_norms
from gsae_lib.metrics import principal_angles
from gsae_lib.theory.population import ORTHONORMAL_TOLERANCE, Population, orthonormality

DRAWS = 4000  # samples on which the window for random directions is tried


@dataclasses.dataclass(frozen=True)
class Window:
    """Thresholds from lower (included) to upper (excluded) that recover a support with probability `success` or more.

    `holds` says whether `requires` is met; if it is not, the window promises nothing.
    """

    name: str
    lower: float
    upper: float
    requires: str
    holds: bool
    success: float = 1.0

    @property
    def empty(self) -> bool:
        """Whether no penalty qualifies."""
        return not self.lower < self.upper

    def __contains__(self, penalty: float) -> bool:
        return bool(self.holds and self.lower <= penalty < self.upper)


def signal_bound(norm: float, delta: float) -> float:
    """||W_g^T A*_g x|| >= ||x|| (1 - delta) if W_g or A*_g is orthonormal (Proposition 1; eq. 20 of the paper)."""
    return norm * (1 - delta)


def signal_bound_angle(norm: float, angle: float) -> float:
    """||W_g^T A*_g x|| >= ||x|| cos(theta) if W_g and A*_g are orthonormal."""
    return norm * math.cos(angle)


def crosstalk_bound(
    n_active: int,
    largest_norm: float,
    group_size: int,
    block_coherence: float,
    delta: float,
    spectral_norm: float = 1.0,
) -> float:
    r"""|| sum over k groups of W_v^T A*_h x_h || <= k B_max (d mu_B + delta ||A*_h||_2): Proposition 2, corrected."""
    return n_active * largest_norm * (group_size * block_coherence + delta * spectral_norm)


def crosstalk_bound_printed(n_active: int, largest_norm: float, block_coherence: float, delta: float) -> float:
    """k B_max (mu_B + delta): eq. 21 of the paper, which is too small by a factor of up to d."""
    return n_active * largest_norm * (block_coherence + delta)


def crosstalk_bound_angle(
    n_active: int, largest_norm: float, group_size: int, block_coherence: float, angle: float
) -> float:
    r"""k B_max sin(theta + arcsin(d mu_B)) for orthonormal groups (k B_max beyond a right angle).

    The triangle inequality of angles: a vector of span W_v is at most theta from span A*_v, which is at least
    arccos(d mu_B) from span A*_h.
    """
    total = angle + math.asin(min(group_size * block_coherence, 1.0))
    return n_active * largest_norm * (math.sin(total) if total < math.pi / 2 else 1.0)


@without_autocast
def support_recovery_windows(
    dictionary: Dictionary, true_dictionary: Dictionary, population: Population, *, failure: float = 0.01
) -> dict[str, Window]:
    r"""All windows for one dictionary, by name.

    * "printed": Lemma 1 of the paper, [gamma B_max (mu_B + delta), B_min (1 - delta) - gamma B_max (mu_B + delta)].
    * "corrected": the same statement with d mu_B, gamma - 1 terms for an active group, and the singular values of A*_g,
      which are not 1 unless groups are orthonormal.
    * "angles": with principal angles, for orthonormal groups, at most as wide as the cross-talk allows:
      [gamma B_max sin(theta + phi), B_min cos(theta) - (gamma - 1) B_max sin(theta + phi)], sin(phi) = d mu_B.
    * "cumulative": from the matrices W_g^T A*_h themselves, with sums of the gamma largest ones.
    * "basin": not for this W alone but for all of gradient descent from it, see `basin_window`.
    * "random": not a worst case. For random directions, first order in n^{-1/2}. Whether this dictionary's directions
      are random enough is tried: at either end at most `failure` / 2 of DRAWS samples may be wrong, else it does not
      hold.

    All are for codes with norms in the population's range. Without noise "corrected", "angles" and "cumulative" never
    fail. White noise of standard deviation s costs them the margins of `noise_margins`, and "random" is made of it: a
    support is then wrong with a probability of at most `failure`. "printed" is as printed, without noise, and "basin"
    holds without noise only. Columns of W are scaled to unit length first, and windows back by their norms: lower ends
    by the largest, upper ends by the smallest.

    Args:
        dictionary: W. true_dictionary: A*. population: gamma, the range of norms, the noise. failure: in (0, 1).
    """
    failure = check_real("failure", failure, high=1.0, strict=True)
    d, gamma, (low, high) = population.group_size, population.n_active, population.norm_range
    dictionary, true_dictionary = _check_shapes(dictionary, true_dictionary, population)
    norms = torch.linalg.vector_norm(dictionary, dim=0)
    if not bool((norms > 0).all()):
        raise ValueError(f"dictionary: expected no zero column, got {int((norms == 0).sum())}")
    unit = dictionary / norms
    delta = torch.linalg.matrix_norm(as_groups(unit - true_dictionary, d)).max().item()
    mu = block_coherence(true_dictionary, d)
    singular = torch.linalg.svdvals(as_groups(true_dictionary, d))
    smallest, largest = singular.min().item(), singular.max().item()
    cross = crosstalk_bound_printed(gamma, high, mu, delta)
    printed = Window(
        "printed", cross, signal_bound(low, delta) - cross, "a bound on cross-talk without the factor d", False
    )
    corrected = Window(
        "corrected",
        crosstalk_bound(gamma, high, d, mu, delta, largest),
        low * (smallest**2 - delta * largest) - crosstalk_bound(gamma - 1, high, d, mu, delta, largest),
        "nothing",
        True,
    )
    angle = principal_angles(dictionary, true_dictionary, d).max().item()
    worst = max(orthonormality(unit, d), orthonormality(true_dictionary, d))
    angles = Window(
        "angles",
        crosstalk_bound_angle(gamma, high, d, mu, angle),
        signal_bound_angle(low, angle) - crosstalk_bound_angle(gamma - 1, high, d, mu, angle),
        "orthonormal groups",
        worst < ORTHONORMAL_TOLERANCE,
    )
    gain = torch.linalg.svdvals(as_groups(unit, d)).max().item()
    inactive, active = noise_margins(population, failure, gain)
    success = 1 - failure if population.noise_std else 1.0
    windows = [printed]
    for w in (corrected, angles, _cumulative(unit, true_dictionary, population)):
        windows.append(dataclasses.replace(w, lower=w.lower + inactive, upper=w.upper - active, success=success))
    windows.append(basin_window(dictionary, true_dictionary, population))
    windows.append(_random(angle, population, failure))
    scale = norms.max().item(), norms.min().item()
    windows = [dataclasses.replace(w, lower=scale[0] * w.lower, upper=scale[1] * w.upper) for w in windows]
    windows[-1] = dataclasses.replace(
        windows[-1], holds=_keeps_its_promise(windows[-1], dictionary, true_dictionary, population)
    )
    return {w.name: w for w in windows}


def _check_shapes(dictionary: Tensor, true_dictionary: Tensor, population: Population) -> tuple[Tensor, Tensor]:
    """The two dictionaries in one precision, without gradients."""
    check_devices(dictionary=dictionary, true_dictionary=true_dictionary)
    expected = (population.n_features, population.n_atoms)
    for name, x in (("dictionary", dictionary), ("true_dictionary", true_dictionary)):
        if check_matrix(name, x).shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {describe(x)}")
    dtype = torch.promote_types(torch.promote_types(dictionary.dtype, true_dictionary.dtype), torch.float32)
    return dictionary.detach().to(dtype), true_dictionary.detach().to(dtype)


def noise_margins(population: Population, failure: float, gain: float = 1.0) -> tuple[float, float]:
    r"""What white noise costs a window at its lower and at its upper end, if a support may fail with `failure`.

    .. math:: s \|W_v\|_2\, \chi_d^{-1}\Big(1 - \frac{\epsilon}{2 (\Gamma - \gamma)}\Big), \qquad
              s \|W_g\|_2\, z_{1 - \epsilon / 2 \gamma}

    Noise adds W_v^T e to an inactive group, at most s ||W_v||_2 times a chi variable of d degrees of freedom. It
    shortens the response of an active group by at most its part along that response, a Gaussian number. `gain` is
    the largest ||W_g||_2, 1 for orthonormal groups.
    """
    failure = check_real("failure", failure, high=1.0, strict=True)
    outside, gamma = max(population.n_groups - population.n_active, 1), population.n_active
    inactive = math.sqrt(float(chi2.isf(failure / (2 * outside), population.group_size)))
    active = float(norm.isf(failure / (2 * gamma)))
    return population.noise_std * gain * inactive, population.noise_std * gain * max(active, 0.0)


def _cumulative(dictionary: Tensor, true_dictionary: Tensor, population: Population) -> Window:
    d, gamma, (low, high) = population.group_size, population.n_active, population.norm_range
    groups, true = as_groups(dictionary, d), as_groups(true_dictionary, d)
    inactive = active = 0.0
    signal = math.inf
    for g, group in enumerate(groups):
        overlaps = torch.linalg.matrix_norm(group.T @ true, ord=2)
        overlaps[g] = 0.0
        sums = overlaps.sort(descending=True).values.cumsum(0)
        inactive = max(inactive, sums[min(gamma, len(sums)) - 1].item())
        active = max(active, sums[gamma - 2].item() if gamma > 1 else 0.0)
        signal = min(signal, torch.linalg.svdvals(group.T @ true[g])[-1].item())
    return Window("cumulative", high * inactive, low * signal - high * active, "nothing", True)


def _random(angle: float, population: Population, failure: float) -> Window:
    d, gamma, (low, high) = population.group_size, population.n_active, population.norm_range
    outside = max(population.n_groups - gamma, 1)
    variance = population.noise_std**2 + gamma * high**2 / population.n_features
    lower = math.sqrt(variance * float(chi2.isf(failure / (2 * outside), d)))
    variance = population.noise_std**2 + (gamma - 1) * high**2 / population.n_features
    margin = float(norm.isf(failure / (2 * gamma))) * math.sqrt(variance)
    return Window("random", lower, low * math.cos(angle) - margin, "random directions", True, 1 - failure)


def _keeps_its_promise(window: Window, dictionary: Tensor, true_dictionary: Tensor, population: Population) -> bool:
    """Whether at either end of the window at most half of the failures that it allows occur, in DRAWS samples."""
    rng = torch.Generator().manual_seed(0)
    sizes = (population.group_size, population.n_active)
    source = GroupSparseSource(true_dictionary, *sizes, norm_range=population.norm_range, snr_db=None)
    sample = source.sample(DRAWS, generator=rng)
    noise = torch.randn(sample.data.shape, generator=rng, dtype=true_dictionary.dtype, device="cpu").to(true_dictionary)
    largest_inactive, smallest_active = _margins(sample.data + population.noise_std * noise, dictionary, sample.support)
    wrong = max((largest_inactive > window.lower).mean(), (smallest_active < window.upper).mean())
    return bool(wrong <= (1 - window.success) / 2)


def haar_window(population: Population, *, failure: float = 0.01) -> Window:
    r"""A proven window for random orthonormal groups, W = A*: wrong with probability at most `failure`.

    With k_e the radius that a uniformly random subspace exceeds with probability e, T(k_e) = e for the T of
    `predicted_success`, and l_e the same for subspaces of dimension 1,

    .. math:: R_\gamma\, k_{\epsilon / 3(\Gamma - \gamma)} \le \lambda <
              B_{\min} - R_{\gamma - 1}\, l_{2 \epsilon / 3 \gamma}, \qquad
              R_i = B_{\max} \sqrt{i\, (1 + (i - 1)\, l_{4 \epsilon / 3 \gamma (\gamma - 1)})}

    without noise: R_i bounds the length of what i groups send together. For one active group it is [B_max k_e, B_min)
    with e = epsilon / (Gamma - 1). With noise, which lengthens what is sent, R_gamma and R_{gamma - 1} become quantiles
    of ||y + e|| at ||y|| = R, exceeded with probabilities epsilon / 8 and epsilon / 8 gamma, and 3 becomes 4.
    """
    failure = check_real("failure", failure, high=1.0, strict=True)
    n, d, gamma, (low, high) = (
        population.n_features,
        population.group_size,
        population.n_active,
        population.norm_range,
    )
    check_real("group_size", float(d), high=n - 1.0)
    s, outside = population.noise_std, max(population.n_groups - gamma, 1)
    share = failure / 4 if s else failure / 3 if gamma > 1 else failure  # for each kind of event

    def radius(chance: float, size: int) -> float:
        return math.sqrt(1 - betaincinv((n - size) / 2, size / 2, chance))

    def sent(count: int, chance: float) -> float:
        cosine = radius(4 * share / (gamma * (gamma - 1)), 1) if count > 1 else 0.0
        length = high * math.sqrt(count * (1 + (count - 1) * cosine))
        return s * math.sqrt(float(ncx2.isf(chance, n, (length / s) ** 2))) if s else length

    inactive = sent(gamma, share / 2) * radius(share / outside, d)
    active = sent(gamma - 1, share / (2 * gamma)) * radius(2 * share / gamma, 1) if gamma > 1 or s else 0.0
    return Window("haar", inactive, low - active, "independent, uniformly random groups", True, 1 - failure)


def predicted_success(population: Population, penalty: float, *, column_norm: float = 1.0) -> float:
    r"""P(the support of one layer is exactly right) at W = rho A* for a random dictionary; to first order in n^{-1/2}.

    .. math:: P = \mathbb{E}_y\, (1 - T(\lambda / \rho\|y\|))^{\Gamma - \gamma} \cdot
                  \mathbb{E}_f\, P\big( \|(c + m_1 f / \sqrt{n})\,e_1 + \sqrt{v}\,\xi\| > \lambda / \rho \big)^{\gamma},
              \qquad v = s^2 + \frac{(\gamma - 1) m_2 - m_1^2}{n} + w

    The first factor is for inactive groups: T(r) = 1 - I_{r^2}(d/2, (n - d)/2) is the chance that a uniformly random
    subspace holds more than r of the length of a vector, and ||y||^2 is taken as Gaussian with its mean and variance.
    The second is for active ones: xi is a standard Gaussian vector of d entries, and f, a standard Gaussian number, is
    what active groups share, since the cross-talk of two groups is the same number seen from either side. For gamma = 1
    there is no f, and v = s^2 + w. Across the group the shared part is given back, as the power (d - 1) m_1^2 / n.
    Gaussian unit columns add w = 2 (d - 1) m_2 / ((d + 2) n). For norms of small spread.
    """
    inactive, active, weights = _firing_shares(population, penalty, column_norm)
    gamma = population.n_active
    return float((1 - inactive) ** (population.n_groups - gamma) @ weights) * float(active**gamma @ weights)


def predicted_activity(population: Population, penalty: float, *, column_norm: float = 1.0) -> float:
    r"""E of the number of active groups of one layer at W = rho A*, by the laws of `predicted_success`.

    .. math:: (\Gamma - \gamma)\, \mathbb{E}_y\, T(\lambda / \rho\|y\|) + \gamma\, P\big( \|(c + m_1 f / \sqrt{n})\,e_1
              + \sqrt{v}\,\xi\| > \lambda / \rho \big)
    """
    inactive, active, weights = _firing_shares(population, penalty, column_norm)
    gamma = population.n_active
    return float((population.n_groups - gamma) * (inactive @ weights) + gamma * (active @ weights))


def _firing_shares(
    population: Population, penalty: float, column_norm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(an inactive group exceeds the penalty) given ||y||, P(an active one does) given f, and weights of both."""
    cut = check_real("penalty", penalty, strict=True) / check_real("column_norm", column_norm, strict=True)
    n, d, gamma = population.n_features, population.group_size, population.n_active
    m2, s2 = population.moment(2), population.noise_std**2
    shape = 0.0 if population.orthonormal else 2 * (d - 1) / ((d + 2) * n)
    mean = gamma * m2 + n * s2
    variance = gamma * (population.moment(4) * (1 + shape) - m2**2) + 2 * n * s2**2
    variance += 4 * gamma * m2 * s2 + 2 * gamma * (gamma - 1) * m2**2 / n
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    powers = np.maximum(mean + math.sqrt(max(variance, 0.0)) * nodes, 1e-12)  # equal norms: 0 up to rounding
    tails = betainc((n - d) / 2, d / 2, 1 - np.minimum(cut**2 / powers, 1.0))
    common = population.moment(1) ** 2 / n if gamma > 1 else 0.0
    spread = s2 + (gamma - 1) * m2 / n - common + shape * m2
    fires = [_firing(population, cut, math.sqrt(common) * f, (d - 1) * common, spread) for f in nodes]
    return tails, np.array(fires), weights


def _firing(population: Population, cut: float, shift: float, across: float, spread: float) -> float:
    """P(a group of norm c + shift, with power `across` across it and isotropic noise, exceeds the cut)."""
    if spread == 0:
        low, high = population.norm_range
        edge = math.sqrt(max(cut**2 - across, 0.0)) - shift
        return float(low > edge) if low == high else min(max((high - edge) / (high - low), 0.0), 1.0)
    return population.mean(
        lambda c: ncx2.sf(cut**2 / spread, population.group_size, ((c + shift) ** 2 + across) / spread)
    )


@without_autocast
def basin_window(dictionary: Dictionary, true_dictionary: Dictionary, population: Population) -> Window:
    r"""Thresholds for which the replacement of Theorem 2 holds from the start W: whether W lies in its basin.

    .. math:: B_{\max} \max_{v \ne h} \big( \|A_h^{\star T} A^\star_v\|_2
              + \|A_h^{\star T} (I - P_v) W_v\|_2 \big) \le \lambda < B_{\min} \min_g \cos\theta_{\max}(W_g)

    with P_v the projector on span A*_v; orthonormal bases of the groups' spans stand for W_v and A*_v. For one active
    group, orthonormal groups and no noise: supports are then right at every Riemannian step, on the expected loss with
    0 < eta kappa < 2 or on any batches with eta B_max^2 <= 2, and on the expected loss all angles go to zero linearly.

    Args:
        dictionary: the start W. true_dictionary: A*. population: gamma, the range of norms, the noise.
    """
    d, (low, high) = population.group_size, population.norm_range
    dictionary, true_dictionary = _check_shapes(dictionary, true_dictionary, population)
    worst = max(orthonormality(dictionary, d), orthonormality(true_dictionary, d))
    groups, true = (polar(as_groups(x, d)) for x in (dictionary, true_dictionary))
    crosstalk, signal = 0.0, 1.0
    for v, (group, own) in enumerate(zip(groups, true, strict=True)):
        inside = own.T @ group
        overlaps = torch.linalg.matrix_norm(true.mT @ own, ord=2)
        overlaps += torch.linalg.matrix_norm(true.mT @ (group - own @ inside), ord=2)
        overlaps[v] = 0.0
        crosstalk = max(crosstalk, overlaps.max().item())
        signal = min(signal, torch.linalg.svdvals(inside)[-1].item())
    holds = population.n_active == 1 and not population.noise_std and worst < ORTHONORMAL_TOLERANCE
    return Window("basin", high * crosstalk, low * signal, "one active group, orthonormal groups, no noise", holds)


def convergence_window(population: Population, max_angle: float, block_coherence: float = 0.0) -> Window:
    r"""`basin_window` where only the largest principal angle theta_0 of the start and the coherence are known.

    .. math:: B_{\max} \sin(\theta_0 + \arcsin d\mu_B) \le \lambda < B_{\min} \cos\theta_0

    for one active group, orthonormal groups and no noise: supports then stay right, and all angles go to zero linearly.
    It assumes that a start leans towards another true group as far as its angle allows.
    """
    angle = check_real("max_angle", max_angle, high=math.pi / 2)
    low, high = population.norm_range
    lower = crosstalk_bound_angle(1, high, population.group_size, block_coherence, angle)
    holds = population.n_active == 1 and population.noise_std == 0 and population.orthonormal
    requires = "one active group, orthonormal groups, no noise"
    return Window("convergence", lower, signal_bound_angle(low, angle), requires, holds)


def measured_success(
    sample: GroupSparseSample,
    dictionary: Dictionary,
    penalties: Sequence[float] | Float[np.ndarray, " penalties"],
    group_size: int,
) -> Float[np.ndarray, " penalties"]:
    """Share of samples whose support one layer finds exactly, for each penalty; `group_size` 1 counts entries.

    A sample counts at lambda when the largest response of its inactive groups is at most lambda and the smallest of its
    active ones is more, so one product serves all penalties.
    """
    active = active_groups(sample.codes, group_size)
    if dictionary.shape[1] != sample.codes.shape[1]:
        raise ValueError(f"dictionary: expected {sample.codes.shape[1]} columns, got {describe(dictionary)}")
    largest_inactive, smallest_active = _margins(sample.data, dictionary, active)
    return np.array([((largest_inactive <= penalty) & (smallest_active > penalty)).mean() for penalty in penalties])


def _margins(data: Tensor, dictionary: Tensor, active: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of each sample, the largest response of its inactive groups and the smallest of its active ones."""
    norms = group_norms(data @ dictionary, dictionary.shape[1] // active.shape[1])
    largest_inactive = torch.where(active, 0.0, norms).amax(dim=1).cpu().numpy()
    smallest_active = torch.where(active, norms, math.inf).amin(dim=1).cpu().numpy()
    return largest_inactive, smallest_active
