"""Subspaces that were learned: which are those of another run, and how much of a known set of points they hold.

A group is known up to a rotation within it, so groups are compared by their spans: the sum of the squared cosines of
their principal angles, divided by the larger dimension. With groups of one these are the squared cosines of atoms.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gsae_lib._checks import check_choice, check_int, check_matrix, describe
from gsae_lib.dictionary import Dictionary, as_groups, from_groups, orthonormalize_groups
from gsae_lib.groups import Groups, group_layout


@dataclasses.dataclass(frozen=True, eq=False)
class SubspaceMatch:
    r"""Groups of two dictionaries, each with at most one of the other, in the order of `first`.

    overlap: as `subspace_overlaps`, between 0 and 1. For groups of one
    its root is the \|cosine\| of two atoms, whose mean over pairs others call MCC.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    overlap: Float[Tensor, " pairs"]


def subspace_overlaps(
    dictionary: Dictionary, other: Float[Tensor, "features others"], groups: Groups
) -> Float[Tensor, "groups other_groups"]:
    r"""How much of each group of one dictionary lies in each of another's, between 0 and 1 (equal spans).

    .. math:: \frac{\|Q_g^T Q_h\|_F^2}{\max(d_g, d_h)} = \frac1{\max(d_g, d_h)} \sum_i \cos^2 \theta_i

    with orthonormal bases Q_g, Q_h of the spans and their principal angles; `groups` are those of both. Memory for m
    times m' numbers.
    """
    check_matrix("dictionary", dictionary)
    if check_matrix("other", other).shape[0] != dictionary.shape[0]:
        raise ValueError(f"other: expected {dictionary.shape[0]} rows as the dictionary, got {describe(other)}")
    stacks = [as_groups(orthonormalize_groups(one, groups), groups).to(dictionary) for one in (dictionary, other)]
    layout = group_layout(groups)
    sizes = [stacks[0].new_tensor(layout.size_of_each(one.shape[1])) for one in (dictionary, other)]
    return span_products(*stacks) / torch.maximum(sizes[0].unsqueeze(1), sizes[1])


def span_products(
    bases: Float[Tensor, "groups features size"], others: Float[Tensor, "others features size"]
) -> Float[Tensor, "groups others"]:
    """The squared Frobenius norm of Q_g^T Q_h for stacks of groups: the sum of squared cosines of orthonormal ones."""
    squares = (from_groups(bases).T @ from_groups(others)).square()
    return (
        squares.unflatten(1, (len(others), others.shape[2])).unflatten(0, (len(bases), bases.shape[2])).sum(dim=(1, 3))
    )


def match_subspaces(dictionary: Dictionary, other: Float[Tensor, "features others"], groups: Groups) -> SubspaceMatch:
    """Match the groups of two dictionaries, of two runs for example, so that the sum of overlaps is largest.

    By the Hungarian method; they may have different numbers of groups, and then some have no partner. Groups of one
    match atoms.
    """
    overlaps = subspace_overlaps(dictionary, other, groups)
    rows, columns = (torch.as_tensor(x) for x in linear_sum_assignment(overlaps.cpu().double().numpy(), maximize=True))
    return SubspaceMatch(rows, columns, overlaps.cpu()[rows, columns])


def subspace_capture(
    points: Float[Tensor, "points features"], dictionary: Dictionary, groups: Groups, *, about: str = "mean"
) -> Float[Tensor, " groups"]:
    r"""The share of the points' energy that lies in each group's span, between 0 and 1.

    .. math:: \frac{\sum_i \|Q_g^T (y_i - \bar y)\|^2}{\sum_i \|y_i - \bar y\|^2}

    It asks what one group could hold, whatever its codes are. The columns of a true group, about 0, give what of that
    group each learned one has.

    Args:
        points: a known set, such as twelve mean states. about: "mean", or "zero" to leave their mean in.

    Raises:
        ValueError: points without energy.
    """
    check_matrix("points", points, columns=check_matrix("dictionary", dictionary).shape[0])
    bases = as_groups(orthonormalize_groups(dictionary, groups), groups)
    return _capture(_centred(points.to(dictionary), about), bases)


def group_captures(
    true_groups: Sequence[Tensor], dictionary: Dictionary, groups: Groups
) -> Float[Tensor, "true_groups groups"]:
    """The share of each known group, of any dimension, that each learned one has, between 0 and 1.

    A learned group of d dimensions holds at most d / d' of one of d' > d.

    Args:
        true_groups: (features, dimension) each; their columns count as they are, orthonormal ones equally.
    """
    if not len(true_groups):
        raise ValueError("true_groups: expected at least one")
    check_matrix("dictionary", dictionary)
    for k, group in enumerate(true_groups):
        check_matrix(f"true_groups[{k}]", group.T, columns=dictionary.shape[0])
    bases = as_groups(orthonormalize_groups(dictionary, groups), groups)
    return torch.stack([_capture(_centred(group.T.to(dictionary), "zero"), bases) for group in true_groups])


def largest_capture(points: Float[Tensor, "points features"], dimension: int, *, about: str = "mean") -> float:
    """What the best subspace of that dimension captures of the points: their first principal components.

    Raises:
        ValueError: points without energy.
    """
    check_int("dimension", dimension, high=min(check_matrix("points", points).shape))
    energies = torch.linalg.svdvals(_centred(points.double(), about)).square()
    return (energies[:dimension].sum() / energies.sum()).item()


def _capture(points: Tensor, bases: Tensor) -> Tensor:
    return (points @ bases).square().sum(dim=(1, 2)) / points.square().sum()


def _centred(points: Tensor, about: str) -> Tensor:
    check_choice("about", about, ("mean", "zero"))
    centred = points - points.mean(dim=0) if about == "mean" else points
    if not bool(centred.square().sum() > 0):
        raise ValueError(f"points: expected points that differ, got no energy in {len(points)}")
    return centred
