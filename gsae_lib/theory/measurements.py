"""Measurements of convergence against the theory: one descent from a random start near the truth, in numbers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import orthonormalize_groups
from gsae_lib.generative import GroupSparseSource, coherent_dictionary, orthonormal_groups_dictionary
from gsae_lib.theory.descent import Descent, descend, measured_factor, predicted_factor
from gsae_lib.theory.floors import coherence_bias, noise_floor
from gsae_lib.theory.population import Population
from gsae_lib.theory.rates import METHODS, equilibrium_norm, largest_step, plain_rates

DICTIONARIES = ("orthogonal", "random", "coherent")


@dataclasses.dataclass(frozen=True)
class DescentSettings:
    """One measurement, without noise; the norms of active groups are uniform in [4, 5].

    Args:
        method: "riemannian" or "plain", as in `descend`. n_features, num_groups, group_size, num_active: sizes.
        dictionary: "orthogonal"; "random" orthonormal groups; or "coherent", with A_g^T A_h = 0.05 I for all pairs.
        penalty: lambda. batch_size: samples a step.
        rate: eta kappa for the Riemannian step, eta over `largest_step` for the plain one.
        steps: how many. start: standard deviation of what is added to the truth, entry by entry; 0 starts at it.
        signs: as in `descend`.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    method: Literal["riemannian", "plain"] = "riemannian"
    n_features: int = 300
    num_groups: int = 40
    group_size: int = 3
    num_active: int = 2
    dictionary: Literal["orthogonal", "random", "coherent"] = "orthogonal"
    penalty: float = 2.0
    batch_size: int = 20_000
    rate: float = 0.2
    steps: int = 30
    start: float = 0.03
    signs: bool = False

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("dictionary", self.dictionary, DICTIONARIES)
        check_int("batch_size", self.batch_size)
        check_int("steps", self.steps)
        check_real("rate", self.rate, strict=True)
        check_real("start", self.start)
        self.population  # noqa: B018  (its own checks)
        check_real("penalty", self.penalty, strict=True)

    @property
    def population(self) -> Population:
        """The population that the run draws from."""
        return Population(self.n_features, self.num_groups, self.group_size, self.num_active)

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
        bias = coherence_bias(law, penalty, self.method) if self.dictionary == "random" else 0.0
        return math.hypot(noise, bias)


def run_descent(
    settings: DescentSettings, *, seed: int, schedule: Callable[[int, Tensor, Tensor], float] | None = None
) -> Descent:
    """Run one measurement in float64; the seed draws dictionary, start and data anew.

    `schedule`, the threshold as a function of the step, the weight then and the truth, replaces the constant one.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng = Generator().manual_seed(seed)
    truth = _dictionary(settings, rng)
    noise = torch.randn(truth.shape, generator=rng, dtype=truth.dtype)
    start = orthonormalize_groups(truth + settings.start * noise, settings.group_size)
    if settings.method != "riemannian":
        start = equilibrium_norm(settings.population, settings.penalty) * start
    source = GroupSparseSource(truth, settings.group_size, settings.num_active, snr_db=None)
    return descend(
        start,
        source,
        settings.penalty if schedule is None else lambda k, weight: schedule(k, weight, truth),
        method=settings.method,
        step=settings.step,
        steps=settings.steps,
        batch_size=settings.batch_size,
        signs=settings.signs,
        generator=rng,
    )


@dataclasses.dataclass(frozen=True)
class Rate:
    """A measured and a predicted factor a step, over the `steps` steps in which the tangent is above ten floors.

    floor is the mean root mean square tangent of the last five steps; supports the least share of exact ones.
    """

    settings: DescentSettings
    seed: int
    measured: float
    predicted: float
    steps: int
    floor: float
    predicted_floor: float
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
    steps = int(above[-1]) if len(above) else 0
    predicted = math.nan
    if steps and settings.method == "riemannian":
        predicted = predicted_factor(descent.tangents[0], settings.rate, steps)
    elif steps:
        predicted = abs(1 - settings.step * plain_rates(settings.population, settings.penalty).outside)
    return Rate(
        settings,
        seed,
        measured_factor(descent.rms, floor),
        predicted,
        steps,
        floor,
        settings.floor,
        float(descent.supports.min()),
        float(descent.norms[-1]),
    )


def _dictionary(settings: DescentSettings, rng: Generator) -> Tensor:
    sizes = (settings.n_features, settings.num_groups, settings.group_size)
    if settings.dictionary == "random":
        return orthonormal_groups_dictionary(*sizes, generator=rng, dtype=torch.float64)
    overlap = 0.05 if settings.dictionary == "coherent" else 0.0
    return coherent_dictionary(*sizes, overlap / settings.group_size, generator=rng, dtype=torch.float64)
