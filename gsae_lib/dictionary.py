"""Dictionaries: normalisation, coherence, groups, and an initialization near the truth.

A dictionary is W, (features, atoms); group g is W_g, its columns as `gsae_lib.groups` says.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gsae_lib._checks import at_least_single, check_int, check_matrix, check_real, check_size, without_autocast
from gsae_lib.groups import GroupLayout, Groups, disjoint_layout, to_groups

Dictionary = Float[Tensor, "features atoms"]


def normalize_columns(dictionary: Dictionary) -> Dictionary:
    """Scale every column to unit norm, w_i / ||w_i||_2; a zero column stays zero."""
    norms = torch.linalg.vector_norm(check_matrix("dictionary", dictionary), dim=0)
    return dictionary / torch.where(norms > 0, norms, 1.0)


def orthonormalize_groups(dictionary: Dictionary, groups: Groups) -> Dictionary:
    r"""The nearest dictionary whose groups are orthonormal: the polar factor of each W_g.

    .. math:: W_g = U S V^T \mapsto U V^T

    It keeps the span of a group of full rank and, unlike QR, turns its columns as little as possible.
    """
    layout, n_features = disjoint_layout(groups), check_matrix("dictionary", dictionary).shape[0]
    check_int("group_size", layout.width, high=n_features)
    return from_groups(polar_groups(as_groups(dictionary, groups), layout), layout)


@torch.no_grad()
def normalize_weight(weight: Tensor, groups: Groups, how: str | None) -> None:
    """Normalise a weight in place: its "columns", its "groups", or nothing (None). One that is not finite stays."""
    if how is None:
        return
    try:
        check_size("weight", weight)
    except ValueError:
        return
    weight.copy_(normalize_columns(weight) if how == "columns" else orthonormalize_groups(weight, groups))


def coherence(dictionary: Dictionary) -> float:
    r"""Coherence of the columns, scaled to unit norm; 0 for one column.

    .. math:: \mu = \max_{i \ne j} |a_i^T a_j|
    """
    unit = normalize_columns(dictionary)
    return (unit.T @ unit).abs().fill_diagonal_(0).max().item()


def block_coherence(dictionary: Dictionary, groups: Groups) -> float:
    r"""Block coherence, with the spectral norm; 0 for one group. Source: arXiv 2102.07003, eq. 3.

    .. math:: \mu_B = \max_{g \ne h} \frac{\|A_g^T A_h\|_2}{\sqrt{d_g d_h}}

    with the sizes d_g of the groups; where all have size d, it is 1/d times the norm. Columns are taken as they are.
    Time O(m^2 (n + d)), memory O(m d) beyond the dictionary.
    """
    blocks = as_groups(at_least_single(check_matrix("dictionary", dictionary)), groups)
    sizes = blocks.new_tensor(disjoint_layout(groups).size_of_each(dictionary.shape[1]))
    largest = 0.0
    for g in range(len(blocks) - 1):
        norms = torch.linalg.matrix_norm(blocks[g].T @ blocks[g + 1 :], ord=2)
        largest = max(largest, (norms / (sizes[g] * sizes[g + 1 :]).sqrt()).max().item())
    return largest


def perturbed_dictionary(dictionary: Dictionary, mean_correlation: float, *, generator: Generator) -> Dictionary:
    r"""An initialization near the truth: unit columns of A + B, B Gaussian, with mean column correlation c.

    .. math:: B_{ij} \sim N(0, \sigma_B^2), \qquad \sigma_B = \sqrt{(1/c^2 - 1)/n}

    for unit columns of A and large n. The paper's error then starts at ||A - W||_F^2 = 2 m (1 - c).
    """
    c = check_real("mean_correlation", mean_correlation, high=1.0, strict=True)
    unit = normalize_columns(dictionary)
    sigma = ((1 / c**2 - 1) / max(unit.shape[0], 1)) ** 0.5
    noise = torch.randn(unit.shape, generator=generator, dtype=unit.dtype, device=generator.device)
    return normalize_columns(unit + sigma * noise.to(unit.device))


def as_groups(dictionary: Tensor, groups: Groups) -> Float[Tensor, "groups features size"]:
    """A dictionary as a stack of its groups: (groups, features, size), with zeros behind smaller ones."""
    return to_groups(dictionary, groups).movedim(1, 0)


def from_groups(stack: Tensor, layout: GroupLayout | None = None) -> Dictionary:
    """The inverse of `as_groups`, (groups, features, size) -> (features, atoms); without a layout all have one size."""
    return stack.movedim(0, 1).flatten(1) if layout is None else layout.from_blocks(stack.movedim(0, 1))


def polar_groups(stack: Tensor, layout: GroupLayout) -> Tensor:
    """`polar` of each group of a stack, (groups, features, size), with zeros behind smaller ones."""
    if layout.sizes is None:
        return polar(stack)
    orthonormal = torch.zeros_like(stack)
    for size, which in layout.by_size():
        orthonormal[which, :, :size] = polar(stack[which, :, :size])
    return orthonormal


@without_autocast
def polar(groups: Tensor) -> Tensor:
    r"""Polar factor of each matrix in a batch, (..., features, size): the nearest one with orthonormal columns.

    .. math:: U S V^T \mapsto U V^T
    """
    u, _, vh = torch.linalg.svd(at_least_single(groups), full_matrices=False)
    return (u @ vh).to(groups.dtype)
