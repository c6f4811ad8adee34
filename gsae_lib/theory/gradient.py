r"""The expected gradient of the shallow autoencoder: exact and as in the paper, split along and across the spans.

For one sample with h_g = W_g^T y, z_g = sigma_lambda(h_g), r = y - W z and u_g = W_g^T r, the gradient of
1/2 ||r||^2 in group g is -(r z_g^T + y (J_g u_g)^T), where J_g is the Jacobian of the group ReLU. The paper's proxy
keeps tau_g I of it (arXiv 2102.07003, eq. 24-25).
"""

import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gsae_lib._checks import (
    check_choice,
    check_devices,
    check_int,
    check_matrix,
    check_real,
    describe,
    without_autocast,
)
from gsae_lib.dictionary import Dictionary, as_groups, from_groups, polar
from gsae_lib.generative import GroupSparseSource
from gsae_lib.groups import to_groups

KINDS = ("exact", "proxy")


@dataclasses.dataclass(frozen=True, eq=False)
class GradientEstimate:
    """A Monte Carlo mean: gradient and its standard error, entry by entry, (features, atoms)."""

    gradient: Tensor
    standard_error: Tensor
    n_samples: int


@without_autocast
def sample_gradient(
    data: Float[Tensor, "samples features"],
    dictionary: Dictionary,
    penalty: float,
    group_size: int,
    kind: Literal["exact", "proxy"] = "exact",
) -> Dictionary:
    r"""Gradient of 1/(2N) sum ||y - W sigma_lambda(W^T y)||^2 at W, in closed form, (features, atoms).

    .. math:: \nabla_g L = -\tfrac1N \sum_i \big( r_i z_{ig}^T + y_i (J_{ig} u_{ig})^T \big), \qquad
              J = \tau I + (1 - \tau) \hat h \hat h^T

    for "exact"; "proxy" has tau I in place of J. Written for the theory in dense form;
    `networks.shallow_gradient` computes the exact one at a fraction of the cost.
    """
    check_choice("kind", kind, KINDS)
    check_devices(data=data, dictionary=dictionary)
    check_matrix("data", data, columns=check_matrix("dictionary", dictionary).shape[0])
    penalty = check_real("penalty", penalty, strict=True)
    responses = to_groups(data @ dictionary, group_size)
    norms = torch.linalg.vector_norm(responses, dim=-1, keepdim=True)
    active = norms > penalty
    tau = torch.where(active, 1 - penalty / norms, 0.0)
    codes = (tau * responses).flatten(1)
    residual = data - codes @ dictionary.T
    u = to_groups(residual @ dictionary, group_size)
    back = tau * u
    if kind == "exact":
        along = (responses * u).sum(dim=-1, keepdim=True) / norms.square()
        back = back + torch.where(active, (1 - tau) * along, 0.0) * responses
    return -(residual.T @ codes + data.T @ back.flatten(1)) / len(data)


def expected_gradient(
    source: GroupSparseSource,
    dictionary: Dictionary,
    penalty: float,
    *,
    kind: Literal["exact", "proxy"] = "exact",
    n_samples: int = 20_000,
    n_batches: int = 20,
    generator: Generator,
) -> GradientEstimate:
    """The gradient's expectation over the data by Monte Carlo, with standard errors from independent batches."""
    check_int("n_batches", n_batches, low=2)
    size = check_int("n_samples", n_samples, low=n_batches) // n_batches
    total, squares = torch.zeros_like(dictionary), torch.zeros_like(dictionary)
    for _ in range(n_batches):
        data = source.sample(size, generator=generator).data
        gradient = sample_gradient(data, dictionary, penalty, source.group_size, kind)
        total += gradient
        squares += gradient.square()
    mean = total / n_batches
    variance = (squares / n_batches - mean.square()).clamp(min=0) * n_batches / (n_batches - 1)
    return GradientEstimate(mean, (variance / n_batches).sqrt(), size * n_batches)


@without_autocast
def horizontal(dictionary: Dictionary, gradient: Dictionary, group_size: int) -> Dictionary:
    r"""The part of a gradient that moves spans: (I - W_g W_g^T) G_g in each group, for orthonormal groups.

    For groups that are not orthonormal the projection is onto the complement of their span.
    """
    check_devices(dictionary=dictionary, gradient=gradient)
    pair = (check_matrix("dictionary", dictionary), check_matrix("gradient", gradient).to(dictionary.dtype))
    groups, moves = (as_groups(x, group_size) for x in pair)
    if groups.shape != moves.shape:
        raise ValueError(
            f"gradient: expected the dictionary's shape {tuple(dictionary.shape)}, got {describe(gradient)}"
        )
    basis = polar(groups)
    return from_groups(moves - basis @ (basis.mT @ moves))


def riemannian_step(dictionary: Dictionary, gradient: Dictionary, step: float, group_size: int) -> Dictionary:
    r"""One step of gradient descent on orthonormal groups: W_g <- polar(W_g - eta (I - W_g W_g^T) G_g).

    The loss does not change under rotations within a group, so the horizontal part is the whole Riemannian gradient.
    The retraction does not matter: the span of the result does not depend on it.
    """
    moved = dictionary - step * horizontal(dictionary, gradient, group_size)
    return from_groups(polar(as_groups(moved, group_size)))


@dataclasses.dataclass(frozen=True)
class Alignment:
    r"""How a gradient G points from W to the nearest dictionary with the true spans, A*Q; sums over groups.

    inner = <G, W - A*Q>, distance = ||W - A*Q||_F^2, gradient = ||G||_F^2, with Q_g the best rotation of each group.
    G is (alpha, beta, epsilon)-correlated with the direction to the truth if

    .. math:: \langle G, W - A^\star Q \rangle \ge \alpha \|W - A^\star Q\|^2 + \beta \|G\|^2 - \epsilon .
    """

    inner: float
    distance: float
    gradient: float

    def excess(self, alpha: float, beta: float) -> float:
        """inner - alpha distance - beta gradient: not negative where the correlation holds with epsilon = 0."""
        return self.inner - alpha * self.distance - beta * self.gradient


def gradient_alignment(
    dictionary: Dictionary, true_dictionary: Dictionary, gradient: Dictionary, group_size: int
) -> Alignment:
    """The three numbers of `Alignment` for one gradient, full or horizontal."""
    check_devices(dictionary=dictionary, true_dictionary=true_dictionary, gradient=gradient)
    for name, x in (("true_dictionary", true_dictionary), ("gradient", gradient)):
        if x.shape != dictionary.shape:
            raise ValueError(f"{name}: expected the dictionary's shape {tuple(dictionary.shape)}, got {describe(x)}")
    groups, true, moves = (as_groups(x, group_size) for x in (dictionary, true_dictionary, gradient))
    gap = groups - true @ polar(true.mT @ groups)
    return Alignment((moves * gap).sum().item(), gap.square().sum().item(), moves.square().sum().item())


def flow_correlation(max_angle: float, kappa: float, share: float = 0.5) -> tuple[float, float]:
    r"""(alpha, beta) with which the flow of spans is correlated with the direction to the truth, epsilon = 0.

    .. math:: \alpha = (1 - b)\,\kappa\,\frac{\cos\theta_0 (1 + \cos\theta_0)}{2}, \qquad \beta = \frac{b}{\kappa}

    for all principal angles up to theta_0 < pi/2, supports right and one group active; b = `share` in [0, 1].
    The replacement for the paper's (33)-(34).
    """
    angle = check_real("max_angle", max_angle, high=math.pi / 2)
    kappa = check_real("kappa", kappa, strict=True)
    share = check_real("share", share, high=1.0)
    cosine = math.cos(angle)
    return (1 - share) * kappa * cosine * (1 + cosine) / 2, share / kappa


@dataclasses.dataclass(frozen=True)
class PrintedCorrelation:
    r"""The paper's (33) and (34) for the columns of one group, with kappa_i = tau (2 - tau) p alpha_i.

    v_i = g_i - kappa_i (a_i - a*_i) is our reading: the manuscript bounds v_i and does not define it.
    identity: left minus right side of (33) without its O-term, in modulus, largest over columns. left: ||v_i||, largest
    over columns. right: the bound that (34) prints for it.
    """

    identity: float
    left: float
    right: float

    @property
    def holds(self) -> bool:
        """Whether (34) holds."""
        return self.left <= self.right


def printed_correlation(
    group: Float[Tensor, "features size"],
    true_dictionary: Float[Tensor, "features size"],
    gradient: Float[Tensor, "features size"],
    tau: float,
    p: float,
) -> PrintedCorrelation:
    r"""Evaluate (33) and (34) of the paper for one group A_g with unit columns.

    .. math:: 2 \langle g_i, a_i - a^\star_i \rangle = \kappa_i \|a_i - a^\star_i\|^2
              + \tfrac{1}{\kappa_i} (\|g_i\|^2 - \|v_i\|^2), \qquad
              \|v_i\| \le \tau (2 - \tau) p\, (\alpha_{\max} \sqrt{d^2 + 1} + \delta) \|A_g - A^\star_g\|_F

    Raises:
        ValueError: columns with alpha_i = a_i^T a*_i that is not positive.
    """
    scale = check_real("tau", tau, high=1.0, strict=True) * (2 - tau) * check_real("p", p, high=1.0, strict=True)
    check_devices(group=group, true_dictionary=true_dictionary, gradient=gradient)
    alpha = (group * true_dictionary).sum(dim=0)
    if not bool((alpha > 0).all()):
        raise ValueError(f"true_dictionary: expected columns with a positive correlation, got {alpha.tolist()}")
    gap, rate = group - true_dictionary, scale * alpha
    v = gradient - rate * gap
    left = 2 * (gradient * gap).sum(dim=0)
    right = rate * gap.square().sum(dim=0) + (gradient.square().sum(dim=0) - v.square().sum(dim=0)) / rate
    delta = torch.linalg.matrix_norm(gap).item()
    bound = scale * (alpha.max().item() * math.sqrt(group.shape[1] ** 2 + 1) + delta) * delta
    return PrintedCorrelation((left - right).abs().max().item(), torch.linalg.vector_norm(v, dim=0).max().item(), bound)
