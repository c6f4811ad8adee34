"""An ablation of clustering: what each ingredient earns.

`ablate` only clusters and takes no labels; `score_results` is where its results meet them.
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_choice, check_int, check_matrix, check_real
from gsae_lib.clustering import (
    Clusters,
    coactivation_groups,
    ensemble_clusters,
    kmeans_clusters,
    positive_part,
    spectral_clusters,
    strongest_group,
)
from gsae_lib.groups import normalized_group_norms
from gsae_lib.learning import initial_dictionary, k_subspaces
from gsae_lib.learning.initialization import STARTS, Start
from gsae_lib.metrics import Labels, clustering_scores, mean_active_groups
from gsae_lib.networks import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.training import TrainingSettings, train

METHODS = (
    "k-means",
    "spectral",
    "k-subspaces",
    "strongest group",
    "ensemble k-subspaces",
    "k-means on codes",
    "k-means on codes_+",
    "k-means on group norms",
    "spectral on codes",
    "spectral on group norms",
    "co-activation graph",
)


@dataclasses.dataclass(frozen=True)
class AblationSettings:
    """The ingredients of the ablation.

    Args:
        n_clusters: clusters to find.
        n_groups, group_size: the dictionary of small groups that codes are taken on.
        n_dictionaries: how many of them, from different draws; their codes are put side by side.
        cluster_group_size: dimension of a subspace where each cluster has exactly one.
        start: start of the dictionaries, as in `initial_dictionary`.
        n_init: runs of k-subspaces; the best by its own objective is kept.
        penalty: lambda of training, and of the codes unless `active_share` is given.
        active_share: the penalty of the codes is chosen, at every entry of `epochs`, so that samples use this share of
            the groups (`set_target_sparsity`).
        n_iterations: T, unfolded iterations.
        epochs: when to cluster the codes, counted in epochs of training; 0 is before any training.
        training: how to train between them (its own number of epochs is not used).
        n_neighbors: of the spectral graphs. n_components: as in `spectral_clusters`.
        n_ensemble: of ensemble k-subspaces. kmeans_n_init: of every k-means; the best by inertia is kept.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_clusters: int = 10
    n_groups: int = 100
    group_size: int = 4
    n_dictionaries: int = 1
    cluster_group_size: int = 16
    start: Start = "k-subspaces"
    n_init: int = 1
    penalty: float = 0.05
    active_share: float | None = None
    n_iterations: int = 10
    epochs: tuple[int, ...] = (0,)
    training: TrainingSettings = dataclasses.field(
        default_factory=lambda: TrainingSettings(batch_size=500, progress=False)
    )
    n_neighbors: int = 10
    n_components: int | None = None
    n_ensemble: int = 20
    kmeans_n_init: int = 10

    def __post_init__(self) -> None:
        for name in ("n_clusters", "n_groups", "group_size", "n_dictionaries", "cluster_group_size", "n_init"):
            check_int(name, getattr(self, name))
        for name in ("n_iterations", "n_neighbors", "n_ensemble", "kmeans_n_init"):
            check_int(name, getattr(self, name))
        if self.n_components is not None:
            check_int("n_components", self.n_components)
        check_choice("start", self.start, STARTS)
        check_real("penalty", self.penalty)
        if self.active_share is not None:
            check_real("active_share", self.active_share, strict=True, high=1.0)
        for epochs in self.epochs:
            check_int("epochs", epochs, low=0)
        if not self.epochs or len(set(self.epochs)) < len(self.epochs):
            raise ValueError(f"epochs={self.epochs}: expected different numbers of epochs, at least one")


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """One method, run once for each seed.

    method: what was clustered and how. epochs: of training before it. train, test: clusters, one array a
    seed (None: the method has none for that split). active_groups: mean number of active groups of a
    code in one dictionary, one a seed (nan where there are no codes), of the test data where there are any. seconds:
    for all seeds, since the method before; fitting a dictionary or training counts for the first that needs it.
    """

    method: str
    epochs: int
    train: tuple[Clusters | None, ...]
    test: tuple[Clusters | None, ...]
    active_groups: tuple[float, ...]
    seconds: float


def ablate(
    data: Float[Tensor, "samples features"],
    settings: AblationSettings,
    *,
    seeds: Sequence[int],
    methods: Sequence[str] = METHODS,
    test_data: Float[Tensor, "test features"] | None = None,
) -> tuple[MethodResult, ...]:
    """Cluster any data by each method, without labels: one task, an ingredient at a time.

    The methods are those of `METHODS`, in that order: "k-means" and "spectral" on the data; "k-subspaces", one subspace
    for each cluster, and an ensemble of such runs; and for each entry of `settings.epochs`, "strongest group", a
    group-sparse code on these subspaces, and, on the dictionaries of small groups, k-means or spectral clustering on
    the codes, on their positive parts, or on their normalised group norms, and the graph of groups that are active
    together.

    Args:
        data: features. seeds: one run for each. methods: which of them to run.
        test_data: more samples of the same kind. What can be predicted is then fitted on `data` and predicted on them;
            "spectral" and "ensemble" methods, which cannot predict, cluster the test data alone.

    Raises:
        ValueError: an unknown method, data that do not match, or too few samples for the sizes in `settings`.
    """
    parts = (check_matrix("data", data),)
    if test_data is not None:
        parts += (check_matrix("test_data", test_data, columns=data.shape[1]),)
    for method in methods:
        check_choice("methods", method, METHODS)
    runs: dict[tuple[str, int], list[_Run]] = {}
    for seed in seeds:
        clock = time.perf_counter()
        for run in _run_methods(parts, settings, seed, methods):
            now = time.perf_counter()
            runs.setdefault((run.method, run.epochs), []).append(run._replace(seconds=now - clock))
            clock = now
    return tuple(
        MethodResult(
            method,
            epochs,
            train=tuple(run.clusters[0] for run in found),
            test=tuple(run.clusters[1] if test_data is not None else None for run in found),
            active_groups=tuple(run.active_groups for run in found),
            seconds=sum(run.seconds for run in found),
        )
        for (method, epochs), found in runs.items()
    )


def score_results(
    results: Sequence[MethodResult],
    labels: Labels,
    test_labels: Labels | None = None,
    **tags: object,
) -> list[dict[str, object]]:
    """Score results against labels, as rows for a table: one for each method, split and seed.

    Each row has method, epochs, split ("train" are the data themselves), run (0, 1, ... in the order of the seeds),
    accuracy, nmi, ari, active_groups and the given tags.
    """
    rows = []
    for result in results:
        for split, true_labels, found in (("train", labels, result.train), ("test", test_labels, result.test)):
            for run, clusters in enumerate(found):
                if clusters is not None:
                    scores = dataclasses.asdict(clustering_scores(true_labels, clusters))
                    row = {"method": result.method, "epochs": result.epochs, "split": split, "run": run}
                    rows.append(tags | row | scores | {"active_groups": result.active_groups[run]})
    return rows


class _Run(NamedTuple):
    """One method on one seed: clusters of the data and, if there are any, of the test data."""

    method: str
    epochs: int
    clusters: tuple[Clusters | None, ...]
    active_groups: float = math.nan
    seconds: float = math.nan


def _codes(codes: Tensor, group_size: int) -> Tensor:
    return codes


def _positive_part(codes: Tensor, group_size: int) -> Tensor:
    return positive_part(codes)


# What clusters, and what it looks at: a view of the codes, or None for the data themselves.
_ALGORITHMS = {
    "k-means": ("k-means", None),
    "spectral": ("spectral", None),
    "k-means on codes": ("k-means", _codes),
    "k-means on codes_+": ("k-means", _positive_part),
    "k-means on group norms": ("k-means", normalized_group_norms),
    "spectral on codes": ("spectral", _codes),
    "spectral on group norms": ("spectral", normalized_group_norms),
    "co-activation graph": ("co-activation", normalized_group_norms),
}


def _run_methods(
    parts: tuple[Tensor, ...], settings: AblationSettings, seed: int, methods: Sequence[str]
) -> Iterator[_Run]:
    """The methods on one seed, in order."""
    for method in (name for name in ("k-means", "spectral") if name in methods):
        yield _Run(method, 0, _assign(method, parts, settings, seed))
    if {"k-subspaces", "strongest group"} & set(methods):
        runs = _one_subspace_each(parts, settings, seed)
        yield from (run for run in runs if run.method in methods)
    if "ensemble k-subspaces" in methods:
        sizes = (settings.n_clusters, settings.cluster_group_size)
        found = ensemble_clusters(parts[-1], *sizes, random_state=seed, n_runs=settings.n_ensemble)
        yield _Run("ensemble k-subspaces", 0, (*[None] * (len(parts) - 1), found))
    on_codes = [name for name in METHODS[METHODS.index("k-means on codes") :] if name in methods]
    if on_codes:
        sizes = (settings.n_groups, settings.group_size)
        rng = torch.Generator().manual_seed(seed)
        start = partial(initial_dictionary, parts[0], *sizes, settings.start, n_init=settings.n_init)
        dictionaries = [start(generator=rng) for _ in range(settings.n_dictionaries)]
        for epochs, codes in _codes_along_training(parts, dictionaries, sizes, settings, rng):
            active = mean_active_groups(codes[-1], sizes[1]) / settings.n_dictionaries
            for method in on_codes:
                yield _Run(method, epochs, _assign(method, codes, settings, seed), active)


def _assign(
    method: str, parts: tuple[Tensor, ...], settings: AblationSettings, seed: int
) -> tuple[Clusters | None, ...]:
    """Clusters of each part by a method, where the parts are codes if it clusters a view of codes."""
    algorithm, view = _ALGORITHMS[method]
    if view is not None:
        atoms = settings.n_groups * settings.group_size
        parts = [torch.cat([view(code, settings.group_size) for code in part.split(atoms, 1)], 1) for part in parts]
    if algorithm == "k-means":
        n_init = settings.kmeans_n_init
        found = kmeans_clusters(parts[0], parts[-1], settings.n_clusters, random_state=seed, n_init=n_init)
        return found[: len(parts)]
    if algorithm == "co-activation":
        sets = coactivation_groups(parts[0], settings.n_clusters, random_state=seed)
        return tuple((part @ sets).argmax(dim=1).cpu().numpy() for part in parts)
    sizes = (settings.n_clusters, settings.n_neighbors)
    found = spectral_clusters(parts[-1], *sizes, random_state=seed, n_components=settings.n_components)
    return (*[None] * (len(parts) - 1), found)


def _one_subspace_each(parts: tuple[Tensor, ...], settings: AblationSettings, seed: int) -> Iterator[_Run]:
    """One subspace for each cluster: the nearest one, and the strongest group of a code on all of them."""
    sizes = (settings.n_clusters, settings.cluster_group_size)
    rng = torch.Generator().manual_seed(seed)
    dictionary = k_subspaces(parts[0], *sizes, n_init=settings.n_init, generator=rng).dictionary
    yield _Run("k-subspaces", 0, tuple(strongest_group(part @ dictionary, sizes[1]) for part in parts))
    for epochs, codes in _codes_along_training(parts, [dictionary], sizes, settings, rng):
        clusters = tuple(strongest_group(code, sizes[1]) for code in codes)
        yield _Run("strongest group", epochs, clusters, mean_active_groups(codes[-1], sizes[1]))


def _codes_along_training(
    parts: tuple[Tensor, ...],
    dictionaries: Sequence[Tensor],
    sizes: tuple[int, int],
    settings: AblationSettings,
    generator: torch.Generator,
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """(epochs, codes of each part) at each entry of settings.epochs, of networks that start at the dictionaries.

    The codes of several networks stand side by side.
    """
    found: dict[int, list[tuple[Tensor, ...]]] = {epochs: [] for epochs in sorted(settings.epochs)}

    def keep_codes(epoch: int, model: GroupSparseAutoencoder) -> None:
        if epoch in found:
            found[epoch].append(_encode(model, parts, settings))

    for dictionary in dictionaries:
        shape, layers = (len(dictionary), *sizes), settings.n_iterations
        model = GroupSparseAutoencoder(*shape, settings.penalty, n_iterations=layers, dictionary=dictionary)
        keep_codes(0, model)
        if max(settings.epochs) > 0:
            training = dataclasses.replace(settings.training, epochs=max(settings.epochs))
            train(model, parts[0], training, generator=generator, callbacks=[keep_codes])
    for epochs, codes in found.items():
        yield epochs, tuple(torch.cat(part, dim=1) for part in zip(*codes, strict=True))


@torch.no_grad()
def _encode(model: GroupSparseAutoencoder, parts: tuple[Tensor, ...], settings: AblationSettings) -> tuple[Tensor, ...]:
    """Codes at the penalty of the settings, or at their activity; the model's penalty stays that of its training."""
    penalty = model.penalty
    try:
        if settings.active_share is not None:
            set_target_sparsity(model, parts[0], settings.active_share * model.n_groups)
        return tuple(model.encode(part.to(model.weight.device)).to(part.device) for part in parts)
    finally:
        model.set_penalty(penalty)
