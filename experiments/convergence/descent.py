"""Gradient descent beside the truth, measured at every step, and its factor a step and floor against the theory."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import Dictionary, as_groups, orthonormalize_groups, polar
from gsae_lib.generative import GroupSparseSource, coherent_dictionary, orthonormal_groups_dictionary
from gsae_lib.metrics import dictionary_error, principal_angles, rotated_dictionary_error
from gsae_lib.networks import shallow_gradient
from gsae_lib.theory import Population, equilibrium_norm, riemannian_step
from gsae_lib.theory.floors import coherence_bias, noise_floor
from gsae_lib.theory.gradient import sample_gradient
from gsae_lib.theory.population import antithetic
from gsae_lib.theory.rates import METHODS, largest_step, plain_rates, tangent_step

KINDS = ("orthogonal", "random", "coherent")


@dataclasses.dataclass(frozen=True)
class Descent:
    """A run of gradient descent, measured before the first and after every step.

    tangents (n_steps + 1, groups, group_size): of the principal angles to the true spans. norms (n_steps + 1,): mean
    column norm. columns, rotated (n_steps + 1,): the paper's error, and after the best rotation within each group, per
    group.
    rotations (n_steps + 1,): mean of ||Q_g - I||_F^2 over groups, Q_g that best rotation of W_g onto A*_g.
    supports (n_steps,): share of the samples of each step with exactly the right support. dictionary: the last one.
    """

    tangents: np.ndarray
    norms: np.ndarray
    columns: np.ndarray
    rotated: np.ndarray
    rotations: np.ndarray
    supports: np.ndarray
    dictionary: Tensor

    @property
    def rms(self) -> np.ndarray:
        """Root mean square of the tangents over groups and angles, (n_steps + 1,)."""
        return np.sqrt(np.square(self.tangents).mean(axis=(1, 2)))


def descend(
    source: GroupSparseSource,
    dictionary: Dictionary,
    penalty: float | Callable[[int, Tensor], float],
    *,
    method: Literal["riemannian", "plain", "adam"],
    step: float,
    n_steps: int,
    batch_size: int,
    signs: bool = False,
    generator: Generator,
) -> Descent:
    """Gradient descent on fresh batches with a constant step, beside the truth; measured at every step.

    Args:
        dictionary: the start. source: the data and the truth. penalty: lambda, or lambda as a function of the step
            and of the dictionary then.
        method: "riemannian" keeps groups orthonormal (`riemannian_step`), "plain" is W - eta G, "adam" has eta as its
            learning rate.
        step: eta. n_steps: how many. batch_size: samples a step.
        signs: take each sample without noise and with all signs of its groups (`antithetic`), which removes the noise
            of batches to first order.

    Raises:
        ValueError: an unknown method, or settings out of range.
    """
    check_choice("method", method, (*METHODS, "adam"))
    check_real("step", step, strict=True)
    check_int("n_steps", n_steps)
    true_dictionary, d = source.dictionary, source.group_size
    dictionary = dictionary.clone()
    optimizer = torch.optim.Adam([dictionary], lr=step) if method == "adam" else None
    measured, supports = [_measure(dictionary, true_dictionary, d)], []
    for k in range(n_steps):
        sample = source.sample(batch_size, generator=generator)
        if signs:
            sample = antithetic(sample, true_dictionary)
        current = penalty(k, dictionary) if callable(penalty) else penalty
        gradient = shallow_gradient(sample.data, dictionary, current, d).gradient
        supports.append(_exact_supports(dictionary, sample.data[:1000], sample.support[:1000], current, d))
        if method == "riemannian":
            dictionary = riemannian_step(dictionary, gradient, step, d)
        elif method == "plain":
            dictionary = dictionary - step * gradient
        else:
            dictionary.grad = gradient
            optimizer.step()
        measured.append(_measure(dictionary, true_dictionary, d))
    curves = (np.array(values) for values in zip(*measured, strict=True))
    return Descent(*curves, supports=np.array(supports), dictionary=dictionary.detach())


def riemannian_path(
    data: Float[Tensor, "samples features"],
    dictionary: Dictionary,
    true_dictionary: Dictionary,
    penalty: float,
    group_size: int,
    *,
    step: float,
    n_steps: int,
) -> Float[np.ndarray, "points groups size"]:
    """Tangents of the principal angles to the true spans, at the start and after each Riemannian step on all of `data`.

    For data that are a whole population (`designed_sample`): nothing is random.

    Raises:
        ValueError: as `sample_gradient`, or n_steps that is not a positive integer.
    """
    tangents = [principal_angles(dictionary, true_dictionary, group_size).tan().numpy()]
    for _ in range(check_int("n_steps", n_steps)):
        gradient = sample_gradient(data, dictionary, penalty, group_size)
        dictionary = riemannian_step(dictionary, gradient, step, group_size)
        tangents.append(principal_angles(dictionary, true_dictionary, group_size).tan().numpy())
    return np.array(tangents)


def remaining_error(
    source: GroupSparseSource,
    start: Dictionary,
    penalty: float,
    *,
    method: Literal["riemannian", "plain"],
    share: float,
    n_steps: int = 60,
    batch_size: int = 1000,
    generator: Generator,
) -> float:
    """What is left after steps of `share` times `largest_step`, from orthonormal groups near the truth, all signs.

    The larger of the root mean square tangent and the largest deviation of a column's norm, relative to that at rest.

    Raises:
        ValueError: as `largest_step` and `descend`.
    """
    population = Population.of(source)
    rest = equilibrium_norm(population, penalty) if method == "plain" else 1.0
    step = share * largest_step(population, penalty, method)
    settings = {"method": method, "step": step, "n_steps": n_steps, "batch_size": batch_size, "signs": True}
    end = descend(source, rest * start, penalty, **settings, generator=generator)
    uneven = (torch.linalg.vector_norm(end.dictionary, dim=0) / rest - 1).abs().max().item()
    return max(end.rms[-1], uneven)


def measured_factor(tangents: np.ndarray, floor: float = 0.0) -> float:
    """Mean factor a step of a tangent, (n_steps + 1,), while above ten floors; nan if it never is after a step."""
    above = np.flatnonzero(tangents > 10 * floor)
    last = above[-1] if len(above) else 0
    return float((tangents[last] / tangents[0]) ** (1 / last)) if last else math.nan


def predicted_factor(tangents: Float[np.ndarray, "groups size"], rate: float, n_steps: int) -> float:
    """The same from the exact recursion `tangent_step` of one active group, over `n_steps` steps from these angles.

    Raises:
        ValueError: n_steps that is not a positive integer.
    """
    values = np.asarray(tangents)
    for _ in range(check_int("n_steps", n_steps)):
        values = tangent_step(values, rate)
    return float(np.sqrt(np.mean(values**2) / np.mean(np.square(tangents))) ** (1 / n_steps))


def _measure(
    dictionary: Tensor, true_dictionary: Tensor, group_size: int
) -> tuple[np.ndarray, float, float, float, float]:
    """Tangents, mean norm, the paper's error and the rotated one a group, and the rotation; nan when it diverged."""
    groups, true = as_groups(dictionary, group_size), as_groups(true_dictionary, group_size)
    if not bool(dictionary.isfinite().all()):
        return np.full((len(true), group_size), math.nan), math.nan, math.nan, math.nan, math.nan
    rotations = polar(groups.mT @ true) - torch.eye(group_size, dtype=dictionary.dtype, device=dictionary.device)
    return (
        np.tan(principal_angles(dictionary, true_dictionary, group_size).cpu().numpy()),
        torch.linalg.vector_norm(dictionary, dim=0).mean().item(),
        dictionary_error(dictionary, true_dictionary) / len(true),
        rotated_dictionary_error(dictionary, true_dictionary, group_size) / len(true),
        rotations.square().sum().item() / len(true),
    )


def _exact_supports(dictionary: Tensor, data: Tensor, support: Tensor, penalty: float, group_size: int) -> float:
    norms = torch.linalg.vector_norm((data @ dictionary).unflatten(1, (-1, group_size)), dim=2)
    return ((norms > penalty) == support).all(dim=1).double().mean().item()


@dataclasses.dataclass(frozen=True)
class DescentSettings:
    """One measurement, without noise; the norms of active groups are uniform in [4, 5].

    Args:
        method: "riemannian" or "plain", as in `descend`. n_features, n_groups, group_size, n_active: sizes.
        kind: of the true dictionary: "orthogonal"; "random" orthonormal groups; or "coherent", with A_g^T A_h = 0.05 I
            for all pairs.
        penalty: lambda. batch_size: samples a step.
        rate: eta kappa for the Riemannian step, eta over `largest_step` for the plain one.
        n_steps: how many. start: standard deviation of what is added to the truth, entry by entry; 0 starts at it.
        signs: as in `descend`.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    method: Literal["riemannian", "plain"] = "riemannian"
    n_features: int = 300
    n_groups: int = 40
    group_size: int = 3
    n_active: int = 2
    kind: Literal["orthogonal", "random", "coherent"] = "orthogonal"
    penalty: float = 2.0
    batch_size: int = 20_000
    rate: float = 0.2
    n_steps: int = 30
    start: float = 0.03
    signs: bool = False

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("kind", self.kind, KINDS)
        check_int("batch_size", self.batch_size)
        check_int("n_steps", self.n_steps)
        check_real("rate", self.rate, strict=True)
        check_real("start", self.start)
        self.population  # noqa: B018  (its own checks)
        check_real("penalty", self.penalty, strict=True)

    @property
    def population(self) -> Population:
        """The population that the run draws from."""
        return Population(self.n_features, self.n_groups, self.group_size, self.n_active)

    @property
    def step(self) -> float:
        """The step eta."""
        if self.method == "riemannian":
            return self.rate / self.population.kappa
        return self.rate * largest_step(self.population, self.penalty)

    @property
    def floor(self) -> float:
        """Predicted root mean square tangent at rest: noise of batches and bias of coherence, in quadrature.

        The bias of a "coherent" dictionary, which the theory of random ones does not give, is left out.
        """
        law, penalty = self.population, self.penalty
        noise = 0.0 if self.signs else noise_floor(law, penalty, self.step, self.batch_size, self.method)
        bias = coherence_bias(law, penalty, self.method) if self.kind == "random" else 0.0
        return math.hypot(noise, bias)


def run_descent(
    settings: DescentSettings, *, seed: int, schedule: Callable[[int, Tensor, Tensor], float] | None = None
) -> Descent:
    """Run one measurement in float64; the seed draws dictionary, start and data anew.

    `schedule`, the threshold as a function of the step, the dictionary then and the truth, replaces the constant one.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng = Generator().manual_seed(seed)
    true_dictionary = _dictionary(settings, rng)
    noise = torch.randn(true_dictionary.shape, generator=rng, dtype=true_dictionary.dtype)
    start = orthonormalize_groups(true_dictionary + settings.start * noise, settings.group_size)
    if settings.method != "riemannian":
        start = equilibrium_norm(settings.population, settings.penalty) * start
    source = GroupSparseSource(true_dictionary, settings.group_size, settings.n_active, snr_db=None)
    return descend(
        source,
        start,
        settings.penalty if schedule is None else lambda k, dictionary: schedule(k, dictionary, true_dictionary),
        method=settings.method,
        step=settings.step,
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        signs=settings.signs,
        generator=rng,
    )


@dataclasses.dataclass(frozen=True)
class Rate:
    """A measured and a predicted factor a step, over the `steps` steps in which the tangent is above ten floors.

    floor is the mean root mean square tangent of the last five steps, beside settings.floor of the theory; supports the
    least share of exact ones.
    """

    settings: DescentSettings
    seed: int
    measured: float
    predicted: float
    n_steps: int
    floor: float
    supports: float
    norm: float


def measure_rate(settings: DescentSettings, *, seed: int) -> Rate:
    """Run one descent and compare its factor a step with the theory.

    Raises:
        ValueError: as `run_descent`.
    """
    descent = run_descent(settings, seed=seed)
    floor = float(descent.rms[-5:].mean())
    above = np.flatnonzero(descent.rms > 10 * floor)
    n_steps = int(above[-1]) if len(above) else 0
    predicted = math.nan
    if n_steps and settings.method == "riemannian":
        predicted = predicted_factor(descent.tangents[0], settings.rate, n_steps)
    elif n_steps:
        predicted = abs(1 - settings.step * plain_rates(settings.population, settings.penalty).outside)
    return Rate(
        settings,
        seed,
        measured_factor(descent.rms, floor),
        predicted,
        n_steps,
        floor,
        float(descent.supports.min()),
        float(descent.norms[-1]),
    )


def _dictionary(settings: DescentSettings, rng: Generator) -> Tensor:
    sizes = (settings.n_features, settings.n_groups, settings.group_size)
    if settings.kind == "random":
        return orthonormal_groups_dictionary(*sizes, generator=rng, dtype=torch.float64)
    overlap = 0.05 if settings.kind == "coherent" else 0.0
    return coherent_dictionary(*sizes, overlap / settings.group_size, generator=rng, dtype=torch.float64)
