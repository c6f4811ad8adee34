r"""A start from data alone: its angle, what pairs of samples tell, and how many samples suffice.

A start takes samples that seem to share a group and returns their leading d principal directions. Two kinds of
statement, kept apart: angles and pairs are first order (other groups and noise taken as white), and the draws that they
average over are of codes alone; `end_to_end_guarantee` is proved, for one active group and a start from single samples.
Symbols: p = gamma / Gamma, sigma^2 = m_2 / d, s the noise of an entry, phi = arcsin(d mu_B). Proofs on the theory page.
"""

import dataclasses
import math

import torch
from jaxtyping import Float
from scipy.special import betainc
from torch import Tensor

from gsae_lib._checks import check_int, check_real
from gsae_lib.theory.population import Population

MAX_SAMPLES = 10**9  # the search for sufficient samples ends here


def spike_strength(population: Population) -> float:
    r"""Variance of an entry of an active group over that of everything else, infinite if there is nothing else.

    .. math:: \ell = \frac{\sigma^2}{s_e^2}, \qquad s_e^2 = \frac{(\gamma - 1)\, m_2}{n} + s^2
    """
    rest = _rest(population)
    return population.sigma2 / rest if rest else math.inf


def spiked_angle(strength: float, ratio: float) -> float:
    r"""First order: the angle, in radians, of a principal direction of k samples to the true one, at n = ratio k.

    .. math:: \cos^2\theta = \frac{1 - a / \ell^2}{1 + a / \ell}, \qquad a = n / k, \; \ell > \sqrt a

    and a right angle for weaker signals. It is the limit for k and n to infinity (Paul 2007; Benaych-Georges and
    Nadakuditi 2012).
    """
    if strength == math.inf:
        return 0.0
    strength, ratio = check_real("strength", strength), check_real("ratio", ratio)
    if strength**2 <= ratio:
        return math.pi / 2
    return math.acos(math.sqrt((1 - ratio / strength**2) / (1 + ratio / strength)))


def predicted_start_angle(population: Population, n_samples: int) -> float:
    r"""First order: the angle of a group's d leading principal directions, at its mean number k = N p of samples.

    `spiked_angle` at `spike_strength` and n / k, in radians; a right angle with fewer than d samples. The start's
    samples are taken to be all active samples of the group and no others.
    """
    count = check_int("n_samples", n_samples) * population.p
    if count < population.group_size:
        return math.pi / 2
    return spiked_angle(spike_strength(population), population.n_features / count)


def start_angle_draws(
    population: Population, n_samples: int, n_draws: int, *, generator: torch.Generator
) -> Float[Tensor, "draws size"]:
    r"""First order, with its spread: draws of a group's d start angles, ascending, in radians and float64.

    The number of active samples k is binomial (N, p). Given k codes, each principal direction has its own strength,

    .. math:: \ell_i = \frac{\lambda_i(X^T X)}{k\, s_e^2},

    and `spiked_angle` its angle: the weakest direction of the few codes there are makes the largest angle. Columns
    that are not orthonormal are drawn too, and enter as X R^T with A = Q R.
    """
    d, rest = population.group_size, _rest(population)
    trials = torch.tensor(float(check_int("n_samples", n_samples)), dtype=torch.float64)
    angles = torch.full((check_int("n_draws", n_draws), d), math.pi / 2, dtype=torch.float64)
    chance = torch.tensor(population.p, dtype=torch.float64)
    for row in angles:
        count = int(torch.binomial(trials, chance, generator=generator))
        if count < d:
            continue
        codes = draw_codes(population, count, generator)
        if not population.orthonormal:
            columns = torch.randn(population.n_features, d, generator=generator, dtype=torch.float64)
            codes = codes @ torch.linalg.qr(columns / torch.linalg.vector_norm(columns, dim=0)).R.T
        strengths = torch.linalg.eigvalsh(codes.T @ codes).flip(0) / count
        for i, value in enumerate(strengths.tolist()):
            strength = max(value, 0.0) / rest if rest else math.inf
            row[i] = spiked_angle(strength, population.n_features / count)
    return angles


def smallest_start_samples(population: Population, max_angle: float = math.pi / 2) -> int:
    r"""First order: the fewest samples N at which `predicted_start_angle` is at most `max_angle`.

    .. math:: N \ge \frac{n}{p} \cdot \frac{1 + C \ell}{\ell^2 (1 - C)}, \qquad C = \cos^2(\text{max\_angle}),

    and N >= d / p. At a right angle it is the phase transition, N p > n / l^2: with fewer, principal directions know
    nothing of the group. It counts samples whose group is known; that they must also be *found* is another condition,
    which `predicted_pairs` is about.
    """
    angle = check_real("max_angle", max_angle, high=math.pi / 2, strict=True)
    strength, square = spike_strength(population), math.cos(angle) ** 2
    count = float(population.group_size)
    if strength < math.inf:
        count = max(count, population.n_features * (1 + square * strength) / (strength**2 * (1 - square)))
    return math.ceil(count / population.p * (1 - 1e-12))


@dataclasses.dataclass(frozen=True)
class PairPrediction:
    """What a pair (u, v) tells: shares of draws, averaged.

    nearest: of the samples whose inner products with u are largest in modulus, from which v is drawn, that share a
    group with u. selected: of those with the largest products of the moduli with u and with v that have the group which
    u and v share, if they share one. success: that u and v share a group and most of the selected have it.
    """

    nearest: float
    selected: float
    success: float


def predicted_pairs(
    population: Population,
    n_samples: int,
    n_nearest: int,
    n_selected: int,
    n_draws: int = 200,
    *,
    generator: torch.Generator,
) -> PairPrediction:
    """First order: draws of pairs in which codes of shared groups are drawn, and all other inner products are Gaussian.

    Which groups of u and of v a sample has is drawn as for uniform supports. Its inner product with u is, over the
    groups that they share, x_g^T (u_g + f_g), with the code x_g and u's response u_g + f_g: its code and cross-talk.
    The rest of the sample adds a Gaussian number of variance (T - j m_2) T / n, T = gamma m_2 + n s^2, where they share
    j groups. No vector in R^n is drawn. It is for the first draws of a start, when nothing is subtracted yet.

    Args:
        population: the law. n_samples: N. n_nearest: among how many most correlated samples v is drawn. n_selected: how
            many samples are taken. n_draws: of pairs.

    Raises:
        ValueError: fewer than 2 gamma groups.
    """
    count = check_int("n_samples", n_samples, low=3)
    check_int("n_nearest", n_nearest, high=count - 1)
    check_int("n_selected", n_selected, high=count - 1)
    gamma, m2 = population.n_active, population.moment(2)
    check_int("n_groups", population.n_groups, low=2 * gamma)
    total = gamma * m2 + population.n_features * population.noise_std**2

    def members(before: Tensor) -> Tensor:
        chance = (gamma - before.sum(dim=0)) / (population.n_groups - len(before))
        return torch.rand(count - 1, generator=generator, dtype=torch.float64) < chance

    def responses(codes: Tensor) -> Tensor:
        crosstalk = math.sqrt((total - m2) / population.n_features)
        return codes + crosstalk * torch.randn(codes.shape, generator=generator, dtype=torch.float64)

    def rest(shared: Tensor) -> Tensor:
        variance = (total - shared.sum(dim=0) * m2) * total / population.n_features
        return variance.clamp(min=0).sqrt() * torch.randn(count - 1, generator=generator, dtype=torch.float64)

    near, right, success = [], [], []
    for _ in range(check_int("n_draws", n_draws)):
        shared = torch.zeros(0, count - 1, dtype=torch.bool)
        for _ in range(gamma):
            shared = torch.cat([shared, members(shared).unsqueeze(0)])
        codes = draw_codes(population, gamma * (count - 1), generator).unflatten(0, (gamma, -1)) * shared.unsqueeze(2)
        own = responses(draw_codes(population, gamma, generator))
        first = torch.einsum("gid,gd->i", codes, own) + rest(shared)
        nearest = first.abs().topk(n_nearest).indices
        near.append(shared[:, nearest].any(dim=0).double().mean().item())
        v = int(nearest[torch.randint(n_nearest, (1,), generator=generator)])
        common = shared[:, v].nonzero().flatten()
        if not len(common):
            success.append(0.0)
            continue
        own = responses(torch.cat([codes[common, v], draw_codes(population, gamma, generator)[len(common) :]]))
        has, parts, ours = shared[common], codes[common], shared
        for _ in range(gamma - len(common)):
            ours = torch.cat([ours, members(ours).unsqueeze(0)])
            has = torch.cat([has, ours[-1:]])
            parts = torch.cat([parts, (draw_codes(population, count - 1, generator) * ours[-1].unsqueeze(1))[None]])
        second = torch.einsum("gid,gd->i", parts, own) + rest(has)
        score = (first * second).abs()
        score[v] = -1.0
        taken = score.topk(n_selected).indices
        right.append(shared[common][:, taken].double().mean(dim=1).max().item())
        success.append(float(right[-1] > 0.5))
    return PairPrediction(_mean(near), _mean(right), _mean(success))


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def draw_codes(population: Population, n_codes: int, generator: torch.Generator) -> Float[Tensor, "codes size"]:
    """Codes of one active group: directions uniform on the sphere, norms uniform in their range, in float64."""
    low, high = population.norm_range
    codes = torch.randn(n_codes, population.group_size, generator=generator, dtype=torch.float64)
    norms = low + (high - low) * torch.rand(n_codes, 1, generator=generator, dtype=torch.float64)
    return norms * codes / torch.linalg.vector_norm(codes, dim=1, keepdim=True)


def _rest(population: Population) -> float:
    """s_e^2, the variance of an entry of everything but the group."""
    others = (population.n_active - 1) * population.moment(2) / population.n_features
    return others + population.noise_std**2


def correlated_share(cosine: float, group_size: int) -> float:
    r"""Exact: the least eigenvalue of E[w w^T; abs(w_1) > cosine], w uniform on the sphere of R^d.

    .. math:: \frac1d \Big( 1 - I_{\cos^2}\big(\tfrac12, \tfrac{d + 1}2\big) \Big)

    Codes that correlate with one code still point in all directions: this much in the weakest. 0 for a cosine of 1 or
    more.
    """
    if cosine >= 1:
        return 0.0
    tail = 1.0 if group_size == 1 else 1 - float(betainc(0.5, (group_size + 1) / 2, cosine**2))
    return tail / group_size


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What is proved of start and training on N samples; if not `holds`, nothing is.

    n_samples: N. correlation: samples are taken together if their inner product exceeds it in modulus. start_angle:
    theta_0, a bound on all principal angles from the start on, in radians. lower, upper: penalties with right supports
    throughout (lower included). step_size: of Riemannian gradient descent. n_steps: after which all principal
    angles are at most max_angle, and stay so. failure: the probability that any of this is wrong.
    """

    n_samples: int
    correlation: float
    start_angle: float
    lower: float
    upper: float
    step_size: float
    n_steps: int
    max_angle: float
    failure: float
    holds: bool


def end_to_end_guarantee(
    population: Population,
    n_samples: int,
    max_angle: float,
    *,
    block_coherence: float = 0.0,
    failure: float = 0.1,
) -> Guarantee:
    r"""Proved, one active group: whether N samples suffice for start and training to reach an angle; all constants.

    The conditions are those of the theorem on the theory page, where the constants are written out.

    Args:
        population: the law; one active group, orthonormal. n_samples: N. max_angle: epsilon, in (0, pi/2).
        block_coherence: mu_B, or a bound of it. failure: delta.
    """
    n, groups, d = population.n_features, population.n_groups, population.group_size
    low, high = population.norm_range
    count = check_int("n_samples", n_samples)
    angle = check_real("max_angle", max_angle, high=math.pi / 2 - 1e-9, strict=True)
    overlap, failure = _check_proved(population, block_coherence, failure)
    s, m2, mean = population.noise_std, population.moment(2), count / groups

    # Deviations of sums over samples, each with a third of failure / 2: counts, codes, codes that correlate with one.
    excess = math.sqrt(3 * math.log(6 * groups / failure) / mean)
    spread = math.sqrt(3 * d * high**2 / (mean * m2) * math.log(12 * groups * d / failure))
    most = (1 + excess) * mean

    # Gaussian events, all with the tail t.
    tail = math.sqrt(2 * math.log(2 * (2 * count**2 + count * groups + 4 * groups) / failure))
    noise_in = s * (math.sqrt(most) + math.sqrt(d) + tail)
    noise_out = s * (math.sqrt(most) + math.sqrt(n - d) + tail)
    error = s * tail * (2 * high + s * (math.sqrt(n) + tail))

    # Samples that correlate with one drawn, and their principal directions.
    correlation = overlap * high**2 + error
    power = (count - 1) * m2 / groups * correlated_share((correlation + error) / low**2, d)
    missing = math.sqrt(2 * high**2 / power * math.log(6 * count * d / failure)) if power else 1.0
    signal = math.sqrt(max(1 - missing, 0.0) * power) - noise_in
    start = max(math.asin(noise_out / signal), angle) if signal > noise_out else math.pi / 2

    # Supports.
    margin = s * (math.sqrt(d) + tail + math.sin(start) * (math.sqrt(n) + tail))
    total = start + math.asin(overlap)
    lower = high * (math.sin(total) if total < math.pi / 2 else 1.0) + margin
    upper = low * math.cos(start) - margin

    # Training.
    largest = math.sqrt((1 + spread) * mean * population.sigma2) + noise_in
    smallest = math.sqrt(max(1 - spread, 0.0) * mean * population.sigma2) - noise_in
    step = count / largest**2
    rate = step * (max(smallest, 0.0) ** 2 - s**2 * most) / count
    aside = step * s * (math.sqrt(n - d) + math.sqrt(d) + tail) * largest / count
    root = math.sqrt(n - d) + tail
    across = step * s**2 * (2 * math.sqrt(most) * root + root**2) / count

    def drift(tangent: float) -> float:
        push = (aside * (1 + tangent**2) + across * tangent) / rate
        return (1 + tangent / 2) * push / (1 - push / 2) if push < 2 else math.inf

    ends = math.tan(angle), math.tan(start)
    holds = max(excess, spread, missing) < 1 and start < math.pi / 2 and lower < upper and rate > 0
    holds = holds and all(drift(t) <= rate * t / (2 * (1 + rate)) for t in ends)
    steps = math.ceil(2 * (1 + rate) / rate * math.log(ends[1] / ends[0])) if holds else 0
    return Guarantee(count, correlation, start, lower, upper, step, steps, angle, failure, holds)


def sufficient_samples(
    population: Population, max_angle: float, *, block_coherence: float = 0.0, failure: float = 0.1
) -> Guarantee:
    """The guarantee with the fewest samples: `end_to_end_guarantee` at the smallest N at which it holds.

    With N the bounds on Gaussian events grow like sqrt(log N), so it may cease to hold again far above that N.

    Raises:
        ValueError: no N up to `MAX_SAMPLES` suffices: too much noise or coherence.
    """

    def tried(count: int) -> Guarantee:
        return end_to_end_guarantee(population, count, max_angle, block_coherence=block_coherence, failure=failure)

    below, above = 1, 2
    while not tried(above).holds:
        below, above = above, math.ceil(1.05 * above)
        if above > MAX_SAMPLES:
            raise ValueError(f"population: no number of samples up to {MAX_SAMPLES} is proved to suffice")
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if tried(middle).holds else (middle, above)
    return tried(above)


def _check_proved(population: Population, block_coherence: float, failure: float) -> tuple[float, float]:
    """(d mu_B, delta), or ValueError where the theorems do not apply."""
    check_int("n_active", population.n_active, high=1)
    if not population.orthonormal:
        raise ValueError("orthonormal=False: expected orthonormal groups")
    check_int("group_size", population.group_size, high=population.n_features - 1)
    overlap = population.group_size * check_real("block_coherence", block_coherence)
    check_real("group_size * block_coherence", overlap, high=1 - 1e-9)
    return overlap, check_real("failure", failure, high=1.0, strict=True)
