"""Metrics: how close a dictionary, a support, a clustering or a reconstruction is to the truth."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from gsae_lib._checks import at_least_single, check_devices, check_int, check_matrix, check_samples, describe
from gsae_lib.dictionary import (
    Dictionary,
    as_groups,
    from_groups,
    normalize_columns,
    orthonormalize_groups,
    polar,
)
from gsae_lib.groups import Groups, active_groups, disjoint_layout, group_layout, group_norms, to_groups
from gsae_lib.subspaces import subspace_overlaps

Labels = Sequence[Any] | np.ndarray | Tensor  # one for each sample

LARGEST_SYSTEMS = 2**23  # entries of the least-squares systems solved at a time


def dictionary_error(dictionary: Dictionary, true_dictionary: Dictionary) -> float:
    r"""The paper's error, both dictionaries with unit columns; between 0 and 4 m.

    .. math:: \|A - A^*\|_F^2

    It sees the order of groups and columns, the sign and the rotation within a group, none of which the
    data determine; `rotated_dictionary_error` and `principal_angles` are blind to the last two.

    Raises:
        ValueError: shapes that differ, or non-finite entries.
    """
    _same_shape(dictionary, true_dictionary)
    return (normalize_columns(dictionary) - normalize_columns(true_dictionary)).square().sum().item()


def rotated_dictionary_error(dictionary: Dictionary, true_dictionary: Dictionary, groups: Groups) -> float:
    r"""The paper's error after the best rotation within each group (orthogonal Procrustes).

    .. math:: \sum_g \min_{Q_g^T Q_g = I} \|A_g Q_g - A^*_g\|_F^2

    with unit columns before the rotation.

    Raises:
        ValueError: shapes that differ, non-finite entries, or a bad group size.
    """
    pair = _same_dtype(dictionary, true_dictionary)
    dictionary, true_dictionary = (as_groups(normalize_columns(a), groups) for a in pair)
    rotation = polar(dictionary.mT @ true_dictionary)
    return (dictionary @ rotation - true_dictionary).square().sum().item()


def principal_angles(
    dictionary: Dictionary, true_dictionary: Dictionary, groups: Groups
) -> Float[Tensor, "groups size"]:
    """Principal angles between span(W_g) and span(A*_g), ascending, in radians, with zeros behind smaller groups.

    Small angles come from sines and large ones from cosines, so both are accurate (Bjorck and Golub, 1973).
    """
    pair = _same_dtype(dictionary, true_dictionary)
    stack, true = (at_least_single(as_groups(orthonormalize_groups(a, groups), groups)) for a in pair)
    angles = stack.new_zeros(len(stack), stack.shape[2])
    for size, which in group_layout(groups).by_size():
        angles[which, :size] = _principal_angles(stack[which, :, :size], true[which, :, :size])
    return angles


def _principal_angles(bases: Tensor, true_bases: Tensor) -> Tensor:
    overlap = true_bases.mT @ bases
    cosines = torch.linalg.svdvals(overlap).clamp(max=1.0)
    sines = torch.linalg.svdvals(bases - true_bases @ overlap).flip(-1).clamp(max=1.0)
    return torch.where(cosines**2 < 0.5, torch.arccos(cosines), torch.arcsin(sines))


def match_groups(
    dictionary: Dictionary, true_dictionary: Dictionary, groups: Groups
) -> tuple[Dictionary, Int[Tensor, " groups"]]:
    r"""Reorder the learned groups to match the true ones, and say how.

    The assignment g -> p(g) maximises sum_g ||W_{p(g)}^T A*_g||_F^2 with orthonormalised groups (the sum of
    squared cosines of principal angles), by the Hungarian method. Groups are matched with groups of their size.

    Returns:
        the reordered dictionary and p, (groups,): group g of the result is group p[g] of `dictionary`.
    """
    pair = _same_dtype(dictionary, true_dictionary)
    layout, stack = disjoint_layout(groups), as_groups(dictionary, groups)
    affinity = subspace_overlaps(pair[1], pair[0], groups)
    sizes = torch.tensor(layout.size_of_each(dictionary.shape[1]), device=affinity.device)
    affinity = torch.where(sizes.unsqueeze(1) == sizes, affinity, -1.0)
    _, order = linear_sum_assignment(affinity.detach().cpu().numpy(), maximize=True)
    order = torch.as_tensor(order, device=dictionary.device)
    return from_groups(stack[order], layout), order


@dataclasses.dataclass(frozen=True)
class SupportRecovery:
    """Agreement of two supports, each number a share between 0 and 1.

    exact: samples whose support is exactly right; precision: active units that are truly active (pooled over
    samples; 1 when nothing is active); recall: truly active units that are found (1 when there are none).
    """

    exact: float
    precision: float
    recall: float


def support_recovery(
    codes: Float[Tensor, "samples atoms"], true_codes: Float[Tensor, "samples atoms"], groups: Groups
) -> SupportRecovery:
    """Recovery of the support, of groups; groups=1 counts single entries.

    Raises:
        ValueError: shapes that differ, no samples, non-finite entries, or a bad group size.
    """
    _same_shape(codes, true_codes)
    check_samples("codes", codes)
    check_matrix("true_codes", true_codes)
    found, true = active_groups(codes, groups), active_groups(true_codes, groups)
    hits, found_count, true_count = (int(mask.sum()) for mask in (found & true, found, true))
    return SupportRecovery(
        exact=(found == true).all(dim=1).float().mean().item(),
        precision=hits / found_count if found_count else 1.0,
        recall=hits / true_count if true_count else 1.0,
    )


@dataclasses.dataclass(frozen=True)
class ClusteringScores:
    """Agreement of a clustering with labels: accuracy after the best matching, NMI and ARI (1 is perfect)."""

    accuracy: float
    nmi: float
    ari: float


def clustering_scores(labels: Labels, clusters: Labels) -> ClusteringScores:
    """Score clusters against labels, up to their names, which may be integers, strings or anything that can be sorted.

    Accuracy assigns to each label a cluster of its own so that the share of agreement is largest (Hungarian
    method); clusters left over count as wrong. NMI is normalised by the arithmetic mean of the entropies.

    Raises:
        ValueError: lengths that differ, no samples, missing values (None or nan), or complex numbers.
    """
    labels, clusters = (np.asarray(x.cpu() if isinstance(x, Tensor) else x) for x in (labels, clusters))
    if labels.ndim != 1 or labels.shape != clusters.shape or not len(labels):
        raise ValueError(f"clusters: expected as many as labels {labels.shape} and at least one, got {clusters.shape}")
    if "c" in (labels.dtype.kind, clusters.dtype.kind):
        raise ValueError("clusters, labels: expected what can be sorted, got complex numbers")
    for name, values in (("labels", labels), ("clusters", clusters)):
        missing = [index for index, value in enumerate(values.tolist()) if value is None or value != value]
        if missing:
            raise ValueError(f"{name}: missing for {len(missing)} samples, first for number {missing[0]}")
    counts = contingency_matrix(labels, clusters)
    accuracy = counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels)
    nmi, ari = normalized_mutual_info_score(labels, clusters), adjusted_rand_score(labels, clusters)
    return ClusteringScores(float(accuracy), float(nmi), float(ari))


def distance_contrast(points: Float[Tensor, "samples features"], labels: Int[Tensor, " samples"]) -> float:
    """Mean distance within a class over mean distance between classes: 1 is no structure, 0 is perfect.

    Euclidean distances of all pairs of samples; a number for the similarity matrices of the paper's Figure 5. It is
    nan when all samples coincide.

    Raises:
        ValueError: labels of another length, or that are no whole numbers, or no two samples of one class, or of two;
            points that are not a finite matrix.
    """
    check_devices(points=points, labels=labels)
    check_matrix("points", points)
    if not isinstance(labels, Tensor) or labels.is_complex() or bool((labels != labels.double().round()).any()):
        raise ValueError(f"labels: expected a tensor of whole numbers, got {describe(labels)}")
    if labels.shape != points.shape[:1]:
        raise ValueError(f"labels: expected {len(points)}, one for each sample, got {describe(labels)}")
    first, second = torch.triu_indices(len(points), len(points), offset=1, device=points.device)
    within = labels[first] == labels[second]
    if not within.any() or within.all():
        raise ValueError("labels: expected at least two classes, one of them with two samples")
    distances = torch.nn.functional.pdist(at_least_single(points))
    return (distances[within].mean() / distances[~within].mean()).item()


def dead_groups(codes: Float[Tensor, "samples atoms"], groups: Groups) -> Bool[Tensor, " groups"]:
    """Which groups are active in no sample, (groups,).

    Raises:
        ValueError: not a finite matrix, or a bad group size.
    """
    return ~active_groups(check_matrix("codes", codes), groups).any(dim=0)


def mean_active_groups(codes: Float[Tensor, "samples atoms"], groups: Groups) -> float:
    """Mean number of active groups a sample.

    Raises:
        ValueError: not a finite matrix, no samples, or a bad group size.
    """
    return active_groups(check_samples("codes", codes), groups).sum(dim=1).float().mean().item()


def explained_variance(
    data: Float[Tensor, "samples features"], reconstruction: Float[Tensor, "samples features"]
) -> float:
    """1 - sum ||y - y_hat||^2 / sum ||y - mean(y)||^2: 1 is perfect, 0 is the mean, negative is worse.

    Raises:
        ValueError: shapes that differ, non-finite entries, or data without variance.
    """
    _same_shape(reconstruction, data)
    check_matrix("data", data)
    check_matrix("reconstruction", reconstruction)
    shifted = data - data[:1]  # of constant data the mean is not exact
    variance = (shifted - shifted.mean(dim=0)).square().sum()
    if not len(data) or variance == 0:
        raise ValueError("data: expected samples that differ, got no variance")
    return (1 - (data - reconstruction).square().sum() / variance).item()


def reconstruct_from_strongest(
    data: Float[Tensor, "samples features"],
    dictionary: Dictionary,
    codes: Float[Tensor, "samples atoms"],
    n_active: int,
    groups: Groups,
) -> Float[Tensor, "samples features"]:
    r"""Rebuild each sample, by least squares, from the strongest groups of its code alone.

    .. math:: \hat y = W_S \, \arg\min_z \|y - W_S z\|, \qquad S = \text{the `n_active` groups of largest } \|x_g\| > 0

    A code is used for what it selects, not for its values: penalties that differ are compared at equal sparsity, and
    what a penalty shrinks does not count. A sample with fewer active groups is rebuilt from those. Computed in float64.

    Raises:
        ValueError: shapes that do not match, a bad group size, or n_active not from 1 to the number of groups.
    """
    check_devices(data=data, dictionary=dictionary, codes=codes)
    check_matrix("data", data, columns=check_matrix("dictionary", dictionary).shape[0])
    if len(check_matrix("codes", codes, columns=dictionary.shape[1])) != len(data):
        raise ValueError(f"codes: expected {len(data)} samples, got {describe(codes)}")
    strength = group_norms(codes, groups)
    check_int("n_active", n_active, high=strength.shape[1])
    exact = to_groups(dictionary.double(), groups)  # smaller groups have columns of zeros, whose values are zero
    group_size = exact.shape[2]
    exact = exact.flatten(1)
    gram, rebuilt = exact.T @ exact, torch.empty_like(data)
    largest = gram.diagonal().max()
    rounding = 1e-14 * torch.where(largest > 0, largest, 1.0)  # a singular system keeps a solution
    within = torch.arange(group_size, device=data.device)
    rows = max(1, LARGEST_SYSTEMS // (n_active * group_size) ** 2)
    for part, norms, target in zip(data.split(rows), strength.split(rows), rebuilt.split(rows), strict=True):
        norms, chosen = norms.topk(n_active, dim=1)
        atoms = (chosen.unsqueeze(2) * group_size + within).flatten(1)
        used = (norms > 0).double().repeat_interleave(group_size, dim=1)
        system = gram[atoms.unsqueeze(2), atoms.unsqueeze(1)] * used.unsqueeze(2) * used.unsqueeze(1)
        system += torch.diag_embed(1 - used + rounding)
        values = torch.linalg.solve(system, (part.double() @ exact).gather(1, atoms) * used)
        refitted = torch.zeros(len(part), len(gram), dtype=torch.float64, device=data.device).scatter_(1, atoms, values)
        target.copy_(refitted @ exact.T)
    return rebuilt


def _same_dtype(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices of one shape, in the larger of their precisions."""
    _same_shape(x, reference)
    dtype = torch.promote_types(x.dtype, reference.dtype)
    return x.to(dtype), reference.to(dtype)


def _same_shape(x: Tensor, reference: Tensor) -> None:
    if not isinstance(x, Tensor) or not isinstance(reference, Tensor):
        raise ValueError(f"expected two matrices of one shape, got {describe(x)} and {describe(reference)}")
    check_devices(first=x, second=reference)
    if x.shape != reference.shape or x.ndim != 2:
        raise ValueError(f"expected two matrices of one shape, got {describe(x)} and {describe(reference)}")
