"""The gradients of chapter 05, by Monte Carlo: the paper's proxy beside the exact one, and the repaired Theorem 1."""

import dataclasses

import torch
from torch import Generator

from gsae_lib.dictionary import Dictionary, as_groups, from_groups, polar
from gsae_lib.generative import GroupSparseSource
from gsae_lib.metrics import principal_angles
from gsae_lib.theory import Population, expected_gradient, gradient_alignment, horizontal
from gsae_lib.theory.gradient import flow_correlation


@dataclasses.dataclass(frozen=True)
class ProxyLengths:
    """Length of the proxy over that of the exact gradient, and the cosine between the two.

    across: for the part that moves spans; along: for the rest, which stretches columns.
    """

    across: float
    along: float
    cosine: float


def compare_proxy(
    source: GroupSparseSource, dictionary: Dictionary, penalty: float, *, n_samples: int, seed: int
) -> ProxyLengths:
    """Compare the expected proxy gradient with the exact one at a dictionary; both see the same samples.

    Raises:
        ValueError: as `expected_gradient`.
    """
    gradients, parts = {}, {}
    for kind in ("exact", "proxy"):
        settings = {"kind": kind, "n_samples": n_samples, "generator": Generator().manual_seed(seed)}
        gradients[kind] = expected_gradient(source, dictionary, penalty, **settings).gradient
        across = horizontal(dictionary, gradients[kind], source.group_size)
        parts[kind] = torch.stack([across, gradients[kind] - across]).flatten(1).norm(dim=1)
    exact, proxy = gradients["exact"], gradients["proxy"]
    across, along = (parts["proxy"] / parts["exact"]).tolist()
    return ProxyLengths(across, along, ((exact * proxy).sum() / exact.norm() / proxy.norm()).item())


def correlation_ratio(
    source: GroupSparseSource, dictionary: Dictionary, penalty: float, *, n_samples: int, generator: Generator
) -> tuple[float, float]:
    r"""Left over right side of the repaired Theorem 1 at b = 1/2, and the largest principal angle in radians.

    .. math:: \frac{\langle G, W - A^\star Q \rangle}{\alpha \|W - A^\star Q\|^2 + \beta \|G\|^2}

    with G the expected horizontal gradient at W and (alpha, beta) of `flow_correlation` at that angle.

    Raises:
        ValueError: as `expected_gradient`, or an angle of 90 degrees.
    """
    truth, d = source.dictionary, source.group_size
    gradient = expected_gradient(source, dictionary, penalty, n_samples=n_samples, generator=generator).gradient
    found = gradient_alignment(dictionary, truth, horizontal(dictionary, gradient, d), d)
    angle = principal_angles(dictionary, truth, d).max().item()
    alpha, beta = flow_correlation(angle, Population.of(source).kappa)
    return found.inner / (alpha * found.distance + beta * found.gradient), angle


def turned(dictionary: Dictionary, group_size: int, angle: float, *, generator: Generator) -> Dictionary:
    """Orthonormal groups whose principal angles to the given ones are all `angle`, as far as there is room.

    Each group turns towards random directions of its complement; in a space of fewer than twice its size some of its
    directions stay.
    """
    groups = as_groups(dictionary, group_size)
    away = torch.randn(groups.shape, generator=generator, dtype=groups.dtype)
    away = away - groups @ (groups.mT @ away)
    u, s, vh = torch.linalg.svd(away, full_matrices=False)
    room = (s > 1e-6 * s.amax(dim=1, keepdim=True)).to(groups.dtype) * angle
    moved = groups @ vh.mT * room.cos().unsqueeze(1) + u * room.sin().unsqueeze(1)
    return from_groups(polar(moved))
