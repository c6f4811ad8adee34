"""Clustering with group-sparse codes, and the ladder that shows what each ingredient buys.

`ablate` only clusters and takes no labels; `score_rungs` is where its results meet them.
Source: arXiv 2102.07003, Section 5, and the links to k-means and spectral methods it asks for.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans, SpectralClustering
from torch import Tensor

from gsae_lib._checks import check_choice, check_int, check_matrix, check_real
from gsae_lib.autoencoder import GroupSparseAutoencoder
from gsae_lib.dictionary import initial_dictionary, k_subspaces
from gsae_lib.groups import group_norms, normalized_group_norms
from gsae_lib.metrics import clustering_scores, mean_active_groups
from gsae_lib.training import TrainingSettings, train

Clusters = Int[np.ndarray, " _"]

METHODS = (
    "k-means",
    "spectral",
    "k-subspaces",
    "strongest group",
    "k-means on codes",
    "k-means on codes_+",
    "k-means on group norms",
)


def positive_part(codes: Float[Tensor, "samples atoms"]) -> Float[Tensor, "samples atoms"]:
    """The paper's (.)_+: negative entries cut, then each sample scaled to sum 1; a zero code stays zero."""
    positive = codes.clamp(min=0)
    total = positive.sum(dim=1, keepdim=True)
    return positive / torch.where(total > 0, total, 1.0)


def strongest_group(codes: Float[Tensor, "samples atoms"], group_size: int) -> Clusters:
    """The group of largest norm in each sample, the paper's reading of a code as a cluster.

    Raises:
        ValueError: a bad group size.
    """
    return group_norms(codes, group_size).argmax(dim=1).cpu().numpy()


def kmeans_clusters(
    train_features: Float[Tensor, "train features"],
    test_features: Float[Tensor, "test features"],
    num_clusters: int,
    *,
    seed: int,
    restarts: int = 10,
) -> tuple[Clusters, Clusters]:
    """Clusters of k-means, fitted on the training features; test samples go to the nearest centre.

    Raises:
        ValueError: more clusters than training samples, or features that do not match.
    """
    check_int("num_clusters", num_clusters, high=len(train_features))
    check_matrix("test_features", test_features, columns=train_features.shape[1])
    model = KMeans(num_clusters, n_init=check_int("restarts", restarts), random_state=seed)
    return model.fit_predict(train_features.cpu().numpy()), model.predict(test_features.cpu().numpy())


def spectral_clusters(
    features: Float[Tensor, "samples features"], num_clusters: int, num_neighbors: int, *, seed: int
) -> Clusters:
    """Spectral clustering on the graph of nearest neighbours; it clusters the samples it is given and no others.

    Raises:
        ValueError: num_clusters or num_neighbors is not between 1 and the number of samples.
    """
    check_int("num_clusters", num_clusters, high=len(features))
    check_int("num_neighbors", num_neighbors, high=len(features))
    model = SpectralClustering(
        num_clusters,
        affinity="nearest_neighbors",
        n_neighbors=num_neighbors,
        assign_labels="cluster_qr",
        random_state=seed,
    )
    with warnings.catch_warnings():  # a graph in several parts is an answer, not a failure
        warnings.filterwarnings("ignore", message="Graph is not fully connected", category=UserWarning)
        return model.fit_predict(features.cpu().numpy())


@dataclasses.dataclass(frozen=True)
class LadderSettings:
    """The ingredients of the ladder.

    Args:
        num_clusters: clusters to find.
        num_groups, group_size: the dictionary of small groups that codes are taken on.
        cluster_group_size: dimension of a subspace where each cluster has exactly one.
        start: start of both dictionaries, as in `initial_dictionary`.
        restarts: runs of k-subspaces; the best by its own objective is kept.
        penalty: lambda of the codes. num_iterations: T, unfolded iterations.
        epochs: when to cluster the codes, counted in epochs of training; 0 is before any training.
        training: how to train between them (its own number of epochs is not used).
        num_neighbors: of the spectral graph. kmeans_restarts: of every k-means; the best by inertia is kept.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    num_clusters: int = 10
    num_groups: int = 100
    group_size: int = 4
    cluster_group_size: int = 16
    start: Literal["random", "data", "neighbors", "k-subspaces"] = "k-subspaces"
    restarts: int = 1
    penalty: float = 0.3
    num_iterations: int = 10
    epochs: tuple[int, ...] = (0,)
    training: TrainingSettings = dataclasses.field(
        default_factory=lambda: TrainingSettings(batch_size=500, progress=False)
    )
    num_neighbors: int = 10
    kmeans_restarts: int = 10

    def __post_init__(self) -> None:
        for name in ("num_clusters", "num_groups", "group_size", "cluster_group_size", "restarts", "num_iterations"):
            check_int(name, getattr(self, name))
        check_int("num_neighbors", self.num_neighbors)
        check_int("kmeans_restarts", self.kmeans_restarts)
        check_real("penalty", self.penalty)
        for epochs in self.epochs:
            check_int("epochs", epochs, low=0)
        if not self.epochs or len(set(self.epochs)) < len(self.epochs):
            raise ValueError(f"epochs={self.epochs}: expected different numbers of epochs, at least one")


@dataclasses.dataclass(frozen=True)
class Rung:
    """One step of the ladder, run once for each seed.

    method: what was clustered and how. epochs: of training before it. train, test: clusters, one array a
    seed (None: the method has none for that split). active_groups: mean number of active groups of a test
    code, one a seed (nan where there are no codes). seconds: for all seeds, since the rung before; fitting a dictionary
    or training counts for the first rung that needs it.
    """

    method: str
    epochs: int
    train: tuple[Clusters | None, ...]
    test: tuple[Clusters | None, ...]
    active_groups: tuple[float, ...]
    seconds: float


def ablate(
    train_data: Float[Tensor, "train features"],
    test_data: Float[Tensor, "test features"],
    settings: LadderSettings,
    *,
    seeds: Sequence[int],
    methods: Sequence[str] = METHODS,
) -> tuple[Rung, ...]:
    """Climb the ladder on any data, without labels: one task, an ingredient at a time.

    The rungs are those of `METHODS`, in that order: "k-means" on the data; "spectral" (the test samples alone,
    fitted on them as in the paper); "k-subspaces", one subspace for each cluster; and for each entry of
    `settings.epochs`, "strongest group", a group-sparse code on these subspaces, and, on the dictionary of small
    groups, k-means on the codes, on their positive parts, and on their normalised group norms. Everything but
    "spectral" is fitted on the training data only.

    Args:
        train_data, test_data: features of one data set.
        seeds: one run for each.
        methods: the rungs to climb.

    Raises:
        ValueError: an unknown method, data that do not match, or too few samples for the sizes in `settings`.
    """
    check_matrix("test_data", test_data, columns=check_matrix("train_data", train_data).shape[1])
    for method in methods:
        check_choice("methods", method, METHODS)
    runs: dict[tuple[str, int], list[_Run]] = {}
    for seed in seeds:
        clock = time.perf_counter()
        for run in _climb(train_data, test_data, settings, seed, methods):
            now = time.perf_counter()
            runs.setdefault((run.method, run.epochs), []).append(run._replace(seconds=now - clock))
            clock = now
    return tuple(
        Rung(
            method,
            epochs,
            train=tuple(run.train for run in found),
            test=tuple(run.test for run in found),
            active_groups=tuple(run.active_groups for run in found),
            seconds=sum(run.seconds for run in found),
        )
        for (method, epochs), found in runs.items()
    )


def score_rungs(
    rungs: Sequence[Rung], train_labels: Int[Tensor, " train"], test_labels: Int[Tensor, " test"], **tags: object
) -> list[dict[str, object]]:
    """Score the ladder against labels, as rows for a table: one for each rung, split and seed.

    Each row has method, epochs, split, run (0, 1, ... in the order of the seeds), accuracy, nmi, ari,
    active_groups and the given tags.
    """
    rows = []
    for rung in rungs:
        for split, labels, found in (("train", train_labels, rung.train), ("test", test_labels, rung.test)):
            for run, clusters in enumerate(found):
                if clusters is not None:
                    scores = dataclasses.asdict(clustering_scores(labels, clusters))
                    row = {"method": rung.method, "epochs": rung.epochs, "split": split, "run": run}
                    rows.append(tags | row | scores | {"active_groups": rung.active_groups[run]})
    return rows


class _Run(NamedTuple):
    """One rung of one seed."""

    method: str
    epochs: int
    train: Clusters | None
    test: Clusters | None
    active_groups: float = math.nan
    seconds: float = math.nan


def _climb(
    train_data: Tensor, test_data: Tensor, settings: LadderSettings, seed: int, methods: Sequence[str]
) -> Iterator[_Run]:
    """The rungs of one seed, in order."""
    count = settings.num_clusters
    kmeans = partial(kmeans_clusters, num_clusters=count, seed=seed, restarts=settings.kmeans_restarts)
    if "k-means" in methods:
        yield _Run("k-means", 0, *kmeans(train_data, test_data))
    if "spectral" in methods:
        yield _Run("spectral", 0, None, spectral_clusters(test_data, count, settings.num_neighbors, seed=seed))
    if {"k-subspaces", "strongest group"} & set(methods):
        runs = _one_subspace_each(train_data, test_data, settings, seed)
        yield from (run for run in runs if run.method in methods)
    views = {
        "k-means on codes": lambda codes: codes,
        "k-means on codes_+": positive_part,
        "k-means on group norms": lambda codes: normalized_group_norms(codes, settings.group_size),
    }
    if views.keys() & set(methods):
        sizes = (settings.num_groups, settings.group_size)
        generator = torch.Generator().manual_seed(seed)
        start, restarts = settings.start, settings.restarts
        dictionary = initial_dictionary(train_data, *sizes, start, restarts=restarts, generator=generator)
        along = _codes_along_training(train_data, test_data, dictionary, sizes, settings, generator)
        for epochs, train_codes, test_codes in along:
            active = mean_active_groups(test_codes, settings.group_size)
            for method in (name for name in views if name in methods):
                view = views[method]
                yield _Run(method, epochs, *kmeans(view(train_codes), view(test_codes)), active)


def _one_subspace_each(train_data: Tensor, test_data: Tensor, settings: LadderSettings, seed: int) -> Iterator[_Run]:
    """One subspace for each cluster: the nearest one, and the strongest group of a code on all of them."""
    sizes = (settings.num_clusters, settings.cluster_group_size)
    generator = torch.Generator().manual_seed(seed)
    dictionary = k_subspaces(train_data, *sizes, restarts=settings.restarts, generator=generator).dictionary
    nearest = (strongest_group(data @ dictionary, sizes[1]) for data in (train_data, test_data))
    yield _Run("k-subspaces", 0, *nearest)
    for epochs, *codes in _codes_along_training(train_data, test_data, dictionary, sizes, settings, generator):
        clusters = (strongest_group(part, sizes[1]) for part in codes)
        yield _Run("strongest group", epochs, *clusters, mean_active_groups(codes[1], sizes[1]))


def _codes_along_training(
    train_data: Tensor,
    test_data: Tensor,
    dictionary: Tensor,
    sizes: tuple[int, int],
    settings: LadderSettings,
    generator: torch.Generator,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(epochs, train codes, test codes) of a network that starts at `dictionary`, at each entry of settings.epochs."""
    model = GroupSparseAutoencoder(
        len(dictionary), *sizes, settings.penalty, num_iterations=settings.num_iterations, weight=dictionary
    )
    if 0 in settings.epochs:
        yield 0, _encode(model, train_data), _encode(model, test_data)
    if max(settings.epochs) > 0:
        codes = {}

        def keep_codes(epoch: int, model: GroupSparseAutoencoder) -> None:
            if epoch in settings.epochs:
                codes[epoch] = (_encode(model, train_data), _encode(model, test_data))

        training = dataclasses.replace(settings.training, epochs=max(settings.epochs))
        train(model, train_data, training, generator=generator, callbacks=[keep_codes])
        for epoch, found in codes.items():
            yield epoch, *found


@torch.no_grad()
def _encode(model: GroupSparseAutoencoder, data: Tensor) -> Tensor:
    return model.encode(data)
