r"""The flow of one group alone, at any place: where gradient descent carries its span, and how much data it sees.

A group is an orthonormal basis W, (features, size), of its span. A plane in space may be given by its unit normal.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_devices, check_matrix, check_real
from gsae_lib.theory.gradient import horizontal, sample_gradient


def span_flow(
    data: Float[Tensor, "samples features"], bases: Float[Tensor, "points features size"], penalty: float
) -> Float[Tensor, "points features size"]:
    r"""Velocity of each orthonormal basis under gradient descent, without the part that only stretches it.

    .. math:: \dot W = -(I - W W^T)\, \nabla L(W)

    Each basis is a network of one group; the bases do not see each other.
    """
    size = bases.shape[2]
    return torch.stack([-horizontal(w, sample_gradient(data, w, penalty, size), size) for w in bases])


def active_share(
    data: Float[Tensor, "samples features"], bases: Float[Tensor, "points features size"], penalty: float
) -> Float[Tensor, " points"]:
    """Share of the samples on which each group is active, ||W^T y|| > lambda."""
    check_devices(data=data, bases=bases)
    check_matrix("data", data, columns=bases.shape[1])
    norms = torch.linalg.vector_norm(data @ bases, dim=2)
    return (norms > check_real("penalty", penalty, strict=True)).to(data.dtype).mean(dim=1)


def plane_bases(normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3 2"]:
    """An orthonormal basis of the plane through the origin with each normal."""
    check_matrix("normals", normals, columns=3)
    return torch.linalg.svd(normals.unsqueeze(2), full_matrices=True).U[:, :, 1:]


def normal_flow(
    data: Float[Tensor, "samples 3"], normals: Float[Tensor, "points 3"], penalty: float
) -> Float[Tensor, "points 3"]:
    r"""Velocity of the unit normal a of a plane that moves by `span_flow`; it turns against the plane.

    .. math:: \dot a = -W \dot W^T a
    """
    bases = plane_bases(normals)
    moves = span_flow(data, bases, penalty)
    return -(bases @ (moves.mT @ normals.unsqueeze(2))).squeeze(2)
