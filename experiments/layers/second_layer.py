r"""A second layer on the group norms of chapter 10: does it make digits of strokes?

The first layer is chapter 10's: 100 groups of four on the 5,000 embedded digits, and what is passed up are the
normalised norms nu_g = ||x_g|| / ||x||. The second has ten groups, and a digit belongs to the strongest. Labels score.
A start from the digits is no clustering, and shows what the layer could do if it knew them.
"""

import dataclasses
import math
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from experiments.digits.group_norms import BASE, data
from gsae_lib._checks import check_choice, check_int, check_matrix
from gsae_lib.clustering import coactivation_groups, kmeans_clusters, spectral_clusters
from gsae_lib.dictionary import Dictionary, as_groups, from_groups
from gsae_lib.groups import group_norms, normalized_group_norms
from gsae_lib.learning import initial_dictionary, k_subspaces
from gsae_lib.metrics import clustering_scores
from gsae_lib.networks import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.training import TrainingSettings, train

N_DIGITS = 10
EPOCHS = 10
Method = Literal["k-means", "spectral", "families", "second layer"]
Start = Literal["k-subspaces", "k-means", "digits"]


@dataclasses.dataclass(frozen=True)
class SecondLayerSettings:
    """One way to make ten clusters of the norms.

    Args:
        features: of the first layer, as in chapter 10.
        method: "k-means" and "spectral" (10 neighbours, 15 eigenvectors), as in chapter 10; "families", its graph of
            groups that are active together: ten sets of strokes; "second layer", ten groups of which the strongest
            counts.
        start: of the second layer: "k-subspaces", the best of three; "k-means", a group for each cluster of it; or
            "digits", a group for each true digit, which is no clustering.
        group_size: of the second layer. Ten of the 100 strokes for each digit would be ten.
        centred: the mean norms are subtracted first.
        n_iterations: of the second layer. epochs: of its training; 0 for none: a sample then goes to the nearest span.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    features: Literal["pixels", "scattering", "root scattering"] = "root scattering"
    method: Method = "second layer"
    start: Start = "k-subspaces"
    group_size: int = 10
    centred: bool = False
    n_iterations: int = 1
    epochs: int = 0

    def __post_init__(self) -> None:
        check_choice("features", self.features, tuple(BASE))
        check_choice("method", self.method, get_args(Method))
        check_choice("start", self.start, get_args(Start))
        check_int("group_size", self.group_size)
        check_int("n_iterations", self.n_iterations)
        check_int("epochs", self.epochs, low=0)


@dataclasses.dataclass(frozen=True)
class SecondLayerRun:
    """What one clustering scores, and how well its clusters are what a second layer asks for.

    accuracy, nmi, ari: against the digits. left_out: what the best subspaces of `group_size` dimensions, one for each
    cluster, leave of the energy of what is clustered. coherence: the largest cosine between those of two clusters.
    mean_share: of that energy, in the direction of its mean. purity: of a stroke's energy, the share in the digit that
    uses it most; mean over strokes, weighted by energy. single: share of samples in which exactly one group of the
    second layer is active, one on average; nan where there is none.
    """

    accuracy: float
    nmi: float
    ari: float
    left_out: float
    coherence: float
    mean_share: float
    purity: float
    single: float


@cache
def stroke_norms(features: str, seed: int) -> tuple[Tensor, Tensor]:
    """What chapter 10's first layer passes up for a seed, (samples, 100), and the labels, which only score.

    Raises:
        ValueError: as `initial_dictionary`.
    """
    samples, labels = data(features)
    base = BASE[features]
    sizes = (base.n_groups, base.group_size)
    rng = Generator().manual_seed(seed)
    dictionary = initial_dictionary(samples, *sizes, base.start, generator=rng)
    model = GroupSparseAutoencoder(
        samples.shape[1], *sizes, base.penalty, n_iterations=base.n_iterations, dictionary=dictionary
    )
    with torch.no_grad():
        return normalized_group_norms(model.encode(samples), base.group_size), labels


def run_second_layer(settings: SecondLayerSettings, *, seed: int) -> SecondLayerRun:
    """Cluster the norms of chapter 10's digits by one method, and score it.

    Raises:
        ValueError: as the method.
    """
    torch.set_num_threads(1)
    return cluster_norms(*stroke_norms(settings.features, seed), settings, seed=seed)


def cluster_norms(norms: Tensor, labels: Tensor, settings: SecondLayerSettings, *, seed: int) -> SecondLayerRun:
    """The same for any norms (samples, groups) with labels (samples,), in ten clusters.

    Raises:
        ValueError: norms that are no matrix, or as the method.
    """
    check_matrix("norms", norms)
    inputs = norms - norms.mean(dim=0) if settings.centred else norms
    single = math.nan
    if settings.method == "k-means":
        clusters = kmeans_clusters(inputs, inputs, N_DIGITS, random_state=seed)[0]
    elif settings.method == "spectral":
        clusters = spectral_clusters(inputs, N_DIGITS, 10, random_state=seed, n_components=15)
    elif settings.method == "families":
        clusters = (norms @ coactivation_groups(norms, N_DIGITS, random_state=seed)).argmax(dim=1).numpy()
    else:
        clusters, single = _strongest(inputs, labels, settings, seed)
    scores = dataclasses.asdict(clustering_scores(labels, clusters))
    return SecondLayerRun(
        **scores,
        **_as_subspaces(inputs, torch.as_tensor(clusters), settings.group_size),
        mean_share=(inputs.mean(dim=0).square().sum() / inputs.square().sum(dim=1).mean()).item(),
        purity=_purity(norms, labels),
        single=single,
    )


def plan() -> list[dict[str, Any]]:
    """Chapter 10's ways, then the second layer: by start, group size, with and without the mean, trained and not."""
    base = SecondLayerSettings()
    points = [dataclasses.replace(base, method=method) for method in ("k-means", "spectral", "families")]
    points += [dataclasses.replace(base, start=start) for start in get_args(Start)]
    points += [dataclasses.replace(base, start=start, epochs=EPOCHS) for start in get_args(Start)]
    points += [dataclasses.replace(base, n_iterations=10, epochs=EPOCHS)]
    points += [dataclasses.replace(base, start="k-means", group_size=size) for size in (5, 20)]
    points += [dataclasses.replace(base, centred=True, epochs=epochs) for epochs in (0, EPOCHS)]
    return [{"settings": one} for one in points]


def _strongest(inputs: Tensor, labels: Tensor, settings: SecondLayerSettings, seed: int) -> tuple[np.ndarray, float]:
    """The strongest group of the second layer for each sample, and in which share of them exactly one is active.

    Its penalty is such that one group is active on average, before training and again after it. Where none is, the
    strongest response counts.
    """
    rng, size = Generator().manual_seed(seed), settings.group_size
    if settings.start == "k-subspaces":
        start = k_subspaces(inputs, N_DIGITS, size, n_init=3, generator=rng).dictionary
    elif settings.start == "k-means":
        start = _leading(inputs, torch.as_tensor(kmeans_clusters(inputs, inputs, N_DIGITS, random_state=seed)[0]), size)
    else:
        start = _leading(inputs, labels, size)
    steps = {"n_iterations": settings.n_iterations, "step_size": 1.0 if settings.n_iterations == 1 else "auto"}
    model = GroupSparseAutoencoder(inputs.shape[1], N_DIGITS, size, 1.0, dictionary=start, **steps)
    set_target_sparsity(model, inputs, 1.0)
    if settings.epochs:
        epochs = TrainingSettings(settings.epochs, batch_size=500, normalize="groups", progress=False)
        train(model, inputs, epochs, generator=rng)
        set_target_sparsity(model, inputs, 1.0)
    with torch.no_grad():
        codes = group_norms(model.encode(inputs), size)
        responses = group_norms(inputs @ model.weight, size)
    n_active = (codes > 0).sum(dim=1)
    clusters = torch.where(n_active.unsqueeze(1) > 0, codes, responses).argmax(dim=1).numpy()
    return clusters, (n_active == 1).double().mean().item()


def _leading(inputs: Tensor, clusters: Tensor, size: int) -> Dictionary:
    """The leading directions of the samples of each cluster, as groups: (features, clusters * size)."""
    spans = []
    for k in clusters.unique():
        rows = inputs[clusters == k]
        directions = torch.linalg.svd(rows, full_matrices=False).Vh[:size].T
        spans.append(torch.nn.functional.pad(directions, (0, size - directions.shape[1])))
    return from_groups(torch.stack(spans))


def _as_subspaces(inputs: Tensor, clusters: Tensor, size: int) -> dict[str, float]:
    """left_out and coherence of `SecondLayerRun`."""
    groups = as_groups(_leading(inputs, clusters, size), size)
    kept = sum((inputs[clusters == k] @ span).square().sum() for k, span in zip(clusters.unique(), groups, strict=True))
    pairs = torch.linalg.matrix_norm(groups.mT.unsqueeze(1) @ groups.unsqueeze(0), ord=2)
    return {
        "left_out": (1 - kept / inputs.square().sum()).item(),
        "coherence": pairs.fill_diagonal_(0).max().item(),
    }


def _purity(norms: Tensor, labels: Tensor) -> float:
    digits = torch.nn.functional.one_hot(labels.long()).to(norms.dtype)
    energy = norms.square().T @ digits
    return (energy.amax(dim=1).sum() / energy.sum()).item()
