"""Groups: contiguous blocks of `group_size` coordinates on a tensor's last axis.

A code x in R^m, m = Gamma * d, is read as Gamma groups x_g in R^d; group g holds
coordinates g*d, ..., (g+1)*d - 1.  Source: arXiv 2102.07003, eq. 2.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsae_lib._checks import check_int, describe


def to_groups(x: Tensor, group_size: int) -> Tensor:
    """View the last axis as groups: x (..., Gamma * d) -> (..., Gamma, d).

    Raises:
        ValueError: `group_size` is not a positive integer that divides the last axis.
    """
    check_int("group_size", group_size)
    if not isinstance(x, Tensor) or x.layout != torch.strided:
        raise ValueError(f"x: expected a dense tensor, got {describe(x)}")
    if x.ndim == 0 or x.shape[-1] % group_size:
        raise ValueError(f"group_size={group_size}: does not divide the last axis of {describe(x)}")
    return x.unflatten(-1, (-1, group_size))


def group_norms(x: Float[Tensor, "*batch atoms"], group_size: int) -> Float[Tensor, "*batch groups"]:
    """Euclidean norm of each group, ||x_g||_2: (..., Gamma * d) -> (..., Gamma).

    Differentiable, with gradient 0 at a zero group.

    Raises:
        ValueError: as `to_groups`, or whole numbers.
    """
    groups = to_groups(x, group_size)
    if not (groups.is_floating_point() or groups.is_complex()):
        raise ValueError(f"x: expected floating-point numbers, got {describe(x)}")
    return torch.linalg.vector_norm(groups, dim=-1)


def normalized_group_norms(x: Float[Tensor, "*batch atoms"], group_size: int) -> Float[Tensor, "*batch groups"]:
    """Group norms scaled to unit length, ||x_g||_2 / ||x||_2: (..., Gamma * d) -> (..., Gamma); zero stays zero.

    They say which subspaces a code uses and how much, and are blind to where in each subspace it lies.

    Raises:
        ValueError: as `to_groups`.
    """
    norms = group_norms(x, group_size)
    length = torch.linalg.vector_norm(norms, dim=-1, keepdim=True)
    return norms / torch.where(length > 0, length, 1.0)


def active_groups(x: Float[Tensor, "*batch atoms"], group_size: int) -> Bool[Tensor, "*batch groups"]:
    """Support of a code: which groups have a non-zero entry, (..., Gamma * d) -> (..., Gamma).

    Raises:
        ValueError: as `to_groups`.
    """
    return (to_groups(x, group_size) != 0).any(dim=-1)
