"""Starts for training that use the data and no labels; every group of them is orthonormal.

Inside, a dictionary is a stack of its groups, (groups, features, width), with columns of zeros behind smaller ones:
these capture nothing.
"""

import dataclasses
import functools
import warnings
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Generator, Tensor

from gsae_lib._checks import check_choice, check_drawn, check_int, check_matrix, check_real, describe, without_autocast
from gsae_lib._threads import BlockThreads
from gsae_lib.dictionary import Dictionary, as_groups, from_groups, polar, polar_groups
from gsae_lib.groups import GroupLayout, Groups, group_layout, to_groups
from gsae_lib.learning.pairwise import find_groups

Start = Literal["random", "data", "k-means", "neighbors", "k-subspaces", "pairs"]
STARTS = get_args(Start)
BLOCK, GPU_BLOCK = 500, 2000  # samples at a time


class GroupsMissingWarning(UserWarning):
    """Fewer groups were found in the data than a start was to have; says how many, and what stands for the others."""


@without_autocast
def initial_dictionary(
    data: Float[Tensor, "samples features"],
    n_groups: int,
    group_size: Groups,
    method: Start = "k-subspaces",
    *,
    n_init: int = 1,
    generator: Generator,
) -> Dictionary:
    """A start for training that uses the data and no labels; every group is orthonormal.

    `group_size` is d, or a list with the size of each group.

    "random": uniformly random subspaces. "data": each group spans `group_size` samples, drawn without
    replacement. "k-means": each group fits one cluster of k-means, or the samples nearest to its centre where the
    cluster is smaller than a group. "neighbors": each group fits one sample and its nearest neighbours, the samples
    being spread out as in k-means++. "k-subspaces": the best of `n_init` runs of `k_subspaces`. "pairs": the groups,
    of one size, of `find_groups`, for data with several active ones; if it finds fewer, the others are "k-subspaces",
    the last of the dictionary, and a GroupsMissingWarning says so.

    Raises:
        ValueError: fewer than n_groups times the largest size of samples, or more than 2**24.
    """
    check_choice("method", method, STARTS)
    layout = _check_fit(data, n_groups, group_size)
    if method == "k-subspaces":
        return k_subspaces(data, n_groups, group_size, n_init=n_init, generator=generator).dictionary
    if method == "pairs" and layout.sizes is not None:
        raise ValueError(f"group_size={group_size}: expected one size for all groups with 'pairs'")
    return from_groups(_cut(_STARTS[method](data, n_groups, layout.width, generator), layout), layout)


@dataclasses.dataclass(frozen=True, eq=False)
class KSubspaces:
    """A run of k-subspaces.

    dictionary (features, atoms) with orthonormal groups; labels (samples,), the subspace nearest to each
    sample; objective, the mean squared distance of a sample to its subspace, in the data's squared units;
    n_iter, iterations used; converged, whether the objective stopped falling before the limit.
    """

    dictionary: Tensor
    labels: Int[Tensor, " samples"]
    objective: float
    n_iter: int
    converged: bool


@without_autocast
def k_subspaces(
    data: Float[Tensor, "samples features"],
    n_groups: int,
    group_size: Groups,
    *,
    n_init: int = 1,
    max_iter: int = 100,
    tol: float = 1e-4,
    generator: Generator,
) -> KSubspaces:
    r"""Fit `n_groups` linear subspaces of dimension `group_size` to the data: k-means with subspaces.

    .. math:: \min_{W, g} \frac1N \sum_i \|y_i - W_{g(i)} W_{g(i)}^T y_i\|^2, \qquad W_g^T W_g = I

    Each iteration gives every sample to its nearest subspace and then takes one orthogonal (power) iteration
    in every group, W_g <- polar(Y_g^T Y_g W_g). Neither part can raise the objective, and all groups move in
    two matrix products of N n m multiplications. A group that loses all samples restarts on the samples that
    are fitted worst. The start is that of `initial_dictionary(..., "neighbors")`. The best of `n_init` runs by
    the objective is returned; no labels are used. Of subspaces of several sizes, `group_size` being a list, a larger
    one is the nearest of more samples.

    Source: Bradley and Mangasarian, "k-plane clustering" (2000); Tseng, "Nearest q-flat" (2000).

    Raises:
        ValueError: fewer than n_groups times the largest size of samples, or more than 2**24.
    """
    layout = _check_fit(data, n_groups, group_size)
    check_int("n_init", n_init)
    check_int("max_iter", max_iter)
    check_real("tol", tol)
    runs = (_one_k_subspaces(data, n_groups, layout, max_iter, tol, generator) for _ in range(n_init))
    return min(runs, key=lambda run: run.objective)


def _one_k_subspaces(
    data: Tensor, n_groups: int, layout: GroupLayout, max_iter: int, tol: float, generator: Generator
) -> KSubspaces:
    group_size = layout.width
    with BlockThreads(data.device) as threads:
        groups = _cut(_spread_groups(threads, data, n_groups, group_size, generator), layout)
        energy = data.square().sum(dim=1)
        previous = float("inf")
        for iteration in range(1, max_iter + 1):
            dictionary = from_groups(groups)
            labels, captured, pulled = _assign(threads, data, dictionary, group_size)
            objective = (energy - captured).clamp(min=0).mean().item()  # rounding can make an exact fit negative
            converged = previous - objective <= tol * objective
            if converged or iteration == max_iter:
                break
            previous = objective
            groups = as_groups(pulled, group_size)
            empty = (torch.bincount(labels, minlength=n_groups) == 0).nonzero().flatten()
            if len(empty):
                worst = (energy - captured).topk(len(empty) * group_size).indices
                groups[empty] = as_groups(data[worst].T, group_size)
            groups = polar_groups(groups, layout)

        def distances(rows: Tensor) -> Tensor:  # the difference above can cancel
            own = _own_group(to_groups(rows @ dictionary, group_size))[0]
            return (rows - own @ dictionary.T).square().sum(dim=1)

        exact = torch.cat(list(threads.map(distances, _blocks(data)))).mean().item()
    dictionary = from_groups(as_groups(dictionary, group_size), layout)
    return KSubspaces(dictionary, labels, exact, iteration, converged)


def _cut(stack: Tensor, layout: GroupLayout) -> Tensor:
    """Orthonormal groups of the largest size, cut to their own."""
    return stack if layout.sizes is None else polar_groups(stack, layout)


def _blocks(data: Tensor) -> tuple[Tensor, ...]:
    return data.split(BLOCK if data.device.type == "cpu" else GPU_BLOCK)


def _assign(threads: BlockThreads, data: Tensor, dictionary: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each sample's nearest subspace, the energy that it captures, and the sum of y (W_g^T y)^T for the own groups."""

    def assign(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own, labels, captured = _own_group(to_groups(rows @ dictionary, group_size))
        return labels, captured, rows.T @ own

    found = threads.map(assign, _blocks(data))
    labels, captured, pulled = next(found)
    parts = [(labels, captured)]
    for labels, captured, more in found:
        parts.append((labels, captured))
        pulled += more
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), pulled


def _own_group(projections: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Projections with zeros outside each sample's strongest group, (samples, atoms), that group, and its energy."""
    captured, labels = torch.linalg.vector_norm(projections, dim=-1).square().max(dim=1)
    mask = torch.nn.functional.one_hot(labels, projections.shape[1]).to(projections.dtype).unsqueeze(-1)
    return (mask * projections).flatten(1), labels, captured


def _random_groups(data: Tensor, n_groups: int, group_size: int, generator: Generator) -> Tensor:
    """Uniformly random orthonormal groups."""
    shape = (n_groups, data.shape[1], group_size)
    return polar(torch.randn(shape, generator=generator, dtype=data.dtype, device=generator.device).to(data.device))


def _sample_groups(data: Tensor, n_groups: int, group_size: int, generator: Generator) -> Tensor:
    """Groups that span samples drawn without replacement."""
    order = torch.randperm(len(data), generator=generator, device=generator.device).to(data.device)
    return polar(as_groups(data[order[: n_groups * group_size]].T, group_size))


def _neighbor_groups(data: Tensor, n_groups: int, group_size: int, generator: Generator) -> Tensor:
    """Groups that fit a spread-out sample and its neighbours best, where nearness is the angle between lines."""
    with BlockThreads(data.device) as threads:
        return _spread_groups(threads, data, n_groups, group_size, generator)


def _spread_groups(threads: BlockThreads, data: Tensor, n_groups: int, group_size: int, generator: Generator) -> Tensor:
    """The leading singular vectors of the neighbours of each centre.

    Centres are drawn as in k-means++, with probability proportional to the squared sine of the angle to the
    nearest centre so far.
    """
    check_drawn("data", data)
    norms = torch.linalg.vector_norm(data, dim=1, keepdim=True)
    lines = data / torch.where(norms > 0, norms, 1.0)
    squared_sine = (norms > 0).flatten().to(data.dtype)  # a zero sample has no direction to start from
    similarity = []
    for _ in range(n_groups):
        chances = squared_sine.clamp(min=1e-6).to(generator.device)
        centre = lines[torch.multinomial(chances, 1, generator=generator).to(data.device)].flatten()
        cosines = torch.cat(list(threads.map(functools.partial(torch.mv, vec=centre), _blocks(lines))))
        similarity.append(cosines.abs())
        squared_sine = torch.minimum(squared_sine, 1 - similarity[-1].square())
    neighbors = torch.stack(similarity).topk(min(2 * group_size, len(data)), dim=1).indices
    return torch.linalg.svd(data[neighbors].mT, full_matrices=False).U[..., :group_size].contiguous()


def _kmeans_groups(data: Tensor, n_groups: int, group_size: int, generator: Generator) -> Tensor:
    """Groups that fit the clusters of k-means."""
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    model = KMeans(n_groups, random_state=seed).fit(data.cpu().numpy())
    clusters = torch.as_tensor(model.labels_, device=data.device)
    distances = torch.cdist(data, torch.as_tensor(model.cluster_centers_, dtype=data.dtype, device=data.device))
    groups = []
    for k in range(n_groups):
        members = (clusters == k).nonzero().flatten()
        if len(members) < group_size:
            members = distances[:, k].topk(group_size, largest=False).indices
        groups.append(torch.linalg.svd(data[members].T, full_matrices=False).U[:, :group_size])
    return torch.stack(groups)


def _pair_groups(data: Tensor, n_groups: int, group_size: int, generator: Generator) -> Tensor:
    """Groups from pairs of samples, and from k-subspaces where these are too few."""
    groups = as_groups(find_groups(data, n_groups, group_size, generator=generator).dictionary, group_size)
    missing = n_groups - len(groups)
    if not missing:
        return groups
    message = (
        f'"pairs" found {len(groups)} of {n_groups} groups in {len(data)} samples; the last {missing} are "k-subspaces"'
    )
    warnings.warn(message, GroupsMissingWarning, stacklevel=4)  # `without_autocast` is between
    others = k_subspaces(data, missing, group_size, generator=generator).dictionary
    return torch.cat([groups, as_groups(others, group_size)])


_STARTS = {
    "random": _random_groups,
    "data": _sample_groups,
    "k-means": _kmeans_groups,
    "neighbors": _neighbor_groups,
    "pairs": _pair_groups,
}


def _check_fit(data: Tensor, n_groups: int, group_size: Groups) -> GroupLayout:
    """Sizes that k-subspaces and data starts can work with, as a layout."""
    n_samples, n_features = check_matrix("data", data).shape
    if data.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"data: expected float32 or float64, got {describe(data)}")
    layout = group_layout(group_size)
    width = check_int("group_size", layout.width, high=n_features)
    if check_int("n_groups", n_groups) != layout.count(n_groups * width) or layout.columns is not None:
        raise ValueError(f"group_size={group_size}: expected d, or a list of {n_groups} sizes, one for each group")
    if n_samples < n_groups * width:
        raise ValueError(f"n_groups={n_groups}: needs {n_groups * width} samples ({width} a group), got {n_samples}")
    return layout
