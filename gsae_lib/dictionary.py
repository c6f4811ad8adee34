"""Dictionaries: normalisation, coherence, groups, and a start near the truth.

A dictionary is W, (n_features, n_groups * group_size); group g is W_g, its columns g*d, ..., (g+1)*d - 1.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gsae_lib._checks import at_least_single, check_int, check_matrix, check_real, check_size, without_autocast
from gsae_lib.groups import to_groups

Dictionary = Float[Tensor, "features atoms"]


def normalize_columns(dictionary: Dictionary) -> Dictionary:
    """Scale every column to unit norm, w_i / ||w_i||_2; a zero column stays zero.

    Raises:
        ValueError: not a finite matrix.
    """
    norms = torch.linalg.vector_norm(check_matrix("dictionary", dictionary), dim=0)
    return dictionary / torch.where(norms > 0, norms, 1.0)


def orthonormalize_groups(dictionary: Dictionary, group_size: int) -> Dictionary:
    r"""The nearest dictionary whose groups are orthonormal: the polar factor of each W_g.

    .. math:: W_g = U S V^T \mapsto U V^T

    It keeps the span of a group of full rank and, unlike QR, turns its columns as little as possible.

    Raises:
        ValueError: not a finite matrix, a bad group size, or group_size > n_features.
    """
    check_int("group_size", group_size, high=check_matrix("dictionary", dictionary).shape[0])
    return from_groups(polar(as_groups(dictionary, group_size)))


@torch.no_grad()
def normalize_weight(weight: Tensor, group_size: int, how: str | None) -> None:
    """Normalise a weight in place: its "columns", its "groups", or nothing (None). One that is not finite stays.

    Raises:
        ValueError: groups that have more columns than features cannot be orthonormal.
    """
    if how is None:
        return
    try:
        check_size("weight", weight)
    except ValueError:  # the loss is not finite, and says so
        return
    weight.copy_(normalize_columns(weight) if how == "columns" else orthonormalize_groups(weight, group_size))


def coherence(dictionary: Dictionary) -> float:
    r"""Coherence of the columns, scaled to unit norm; 0 for one column.

    .. math:: \mu = \max_{i \ne j} |a_i^T a_j|

    Raises:
        ValueError: not a finite matrix.
    """
    unit = normalize_columns(dictionary)
    return (unit.T @ unit).abs().fill_diagonal_(0).max().item()


def block_coherence(dictionary: Dictionary, group_size: int) -> float:
    r"""Block coherence, with the spectral norm; 0 for one group. Source: arXiv 2102.07003, eq. 3.

    .. math:: \mu_B = \max_{g \ne h} \tfrac1d \|A_g^T A_h\|_2

    Columns are taken as they are. Time O(m^2 (n + d)), memory O(m d) beyond the dictionary.

    Raises:
        ValueError: not a finite matrix, or a bad group size.
    """
    groups = as_groups(at_least_single(check_matrix("dictionary", dictionary)), group_size)
    largest = 0.0
    for g in range(len(groups) - 1):
        cross = groups[g].T @ groups[g + 1 :]
        largest = max(largest, torch.linalg.matrix_norm(cross, ord=2).max().item())
    return largest / group_size


def perturbed_dictionary(dictionary: Dictionary, mean_correlation: float, *, generator: Generator) -> Dictionary:
    r"""A start near the truth: unit columns of A + B, B Gaussian, with mean column correlation c.

    .. math:: B_{ij} \sim N(0, \sigma_B^2), \qquad \sigma_B = \sqrt{(1/c^2 - 1)/n}

    for unit columns of A and large n. The paper's error then starts at ||A - W||_F^2 = 2 m (1 - c).

    Raises:
        ValueError: not a finite matrix, or a correlation outside (0, 1].
    """
    c = check_real("mean_correlation", mean_correlation, high=1.0, strict=True)
    unit = normalize_columns(dictionary)
    sigma = ((1 / c**2 - 1) / max(unit.shape[0], 1)) ** 0.5
    noise = torch.randn(unit.shape, generator=generator, dtype=unit.dtype, device=generator.device)
    return normalize_columns(unit + sigma * noise.to(unit.device))


def as_groups(dictionary: Tensor, group_size: int) -> Float[Tensor, "groups features size"]:
    """A dictionary as a stack of its groups: (features, atoms) -> (groups, features, size).

    Raises:
        ValueError: as `to_groups`.
    """
    return to_groups(dictionary, group_size).movedim(1, 0)


def from_groups(groups: Tensor) -> Dictionary:
    """The inverse of `as_groups`: (groups, features, size) -> (features, atoms)."""
    return groups.movedim(0, 1).flatten(1)


@without_autocast
def polar(groups: Tensor) -> Tensor:
    r"""Polar factor of each matrix in a batch, (..., features, size): the nearest one with orthonormal columns.

    .. math:: U S V^T \mapsto U V^T
    """
    u, _, vh = torch.linalg.svd(at_least_single(groups), full_matrices=False)
    return (u @ vh).to(groups.dtype)
