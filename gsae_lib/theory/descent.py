"""Gradient descent beside the truth, measured at every step, and its factors a step against the exact recursion."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import Dictionary, as_groups, polar
from gsae_lib.generative import GroupSparseSource
from gsae_lib.metrics import dictionary_error, principal_angles, rotated_dictionary_error
from gsae_lib.structured import shallow_gradient
from gsae_lib.theory.gradient import riemannian_step
from gsae_lib.theory.population import antithetic
from gsae_lib.theory.rates import METHODS, tangent_step


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
    penalty: float | Callable[[int, Tensor], float],
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
        weight: the start. source: the data and the truth. penalty: lambda, or lambda as a function of the step
            and of the weight then.
        method: "riemannian" keeps groups orthonormal (`riemannian_step`), "plain" is W - eta G, "adam" has eta as its
            learning rate.
        step: eta. steps: how many. batch_size: samples a step.
        signs: take each sample without noise and with all signs of its groups (`antithetic`), which removes the noise
            of batches to first order.

    Raises:
        ValueError: an unknown method, or settings out of range.
    """
    check_choice("method", method, (*METHODS, "adam"))
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
        current = penalty(k, weight) if callable(penalty) else penalty
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
