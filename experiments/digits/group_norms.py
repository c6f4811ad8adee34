"""The runs behind chapter 10.

The 5,000 embedded digits, clustered as they are: no split, no labels. `plan` lists every point of every figure; labels
score the results and nothing else. Settings were chosen on 10,000 digits of MNIST's training set, 844 of
which are among the 5,000 here, with their labels in sight (pixels' group size and penalty stand since before).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from experiments.digits.ablation import METHODS, AblationSettings, ablate, score_results
from gsae_book.data.features import PixelFeatures, ScatteringFeatures
from gsae_book.data.images import load_images
from gsae_lib import GroupSparseAutoencoder, train
from gsae_lib.clustering import kmeans_clusters, spectral_clusters
from gsae_lib.groups import normalized_group_norms
from gsae_lib.learning import initial_dictionary
from gsae_lib.metrics import clustering_scores

FEATURES = {
    "pixels": PixelFeatures(),
    "scattering": ScatteringFeatures(),
    "root scattering": ScatteringFeatures(root=True),
}
SMALL = AblationSettings(n_components=15)
BASE = {
    "pixels": dataclasses.replace(SMALL, group_size=8, penalty=0.1),
    "scattering": SMALL,
    "root scattering": SMALL,
}
NORMS = ("k-means on group norms", "spectral on group norms")
EPOCHS = (0, 1, 3, 10, 30)
ITERATIONS = (1, 2, 5, 10, 20, 40, 100)


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of (part of) the ablation: `name` says which figure and which ingredient differs."""

    name: str
    features: str
    seed: int
    settings: AblationSettings
    methods: Sequence[str] = NORMS


def plan() -> list[Point]:
    """Every point, the most useful first."""
    return list(_points())


def _points() -> Iterator[Point]:
    for seed, (features, base) in itertools.product(range(10), BASE.items()):
        yield Point("ablation", features, seed, base, METHODS)
    for seed, (features, base) in itertools.product(range(5), BASE.items()):
        changes = {f"start: {start}": {"start": start} for start in ("random", "data", "k-means", "neighbors")}
        changes |= {
            "projection energies": {"penalty": 0.0, "n_iterations": 1},
            "penalty 0.3": {"penalty": 0.3},
            "three dictionaries": {"n_dictionaries": 3},
            "as many eigenvectors as clusters": {"n_components": None},
        }
        for name, change in changes.items():
            methods = ("spectral", "spectral on codes", *NORMS) if "eigenvectors" in name else NORMS
            yield Point(name, features, seed, dataclasses.replace(base, **change), methods)
    root = BASE["root scattering"]
    penalties, sizes = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4), (1, 2, 4, 8, 16)
    for seed, penalty, size in itertools.product(range(3), penalties, sizes):
        settings = dataclasses.replace(root, penalty=penalty, group_size=size)
        yield Point("penalty and size", "root scattering", seed, settings)
    for seed, groups in itertools.product(range(10), (10, 25, 50, 100, 200, 400)):
        yield Point("groups", "root scattering", seed, dataclasses.replace(root, n_groups=groups))
    for seed, steps, penalty in itertools.product(range(3), ITERATIONS, (0.0, 0.01, 0.05, 0.1, 0.3)):
        settings = dataclasses.replace(root, n_iterations=steps, penalty=penalty)
        yield Point(f"iterations {steps}", "root scattering", seed, settings)
    shapes = ((800, 1), (400, 2), (200, 4), (100, 8))
    for seed, shape, steps, penalty in itertools.product(range(3), shapes, (1, 3, 10), (0.05, 0.1, 0.2)):
        changes = {"n_groups": shape[0], "group_size": shape[1], "n_iterations": steps, "penalty": penalty}
        settings = dataclasses.replace(BASE["pixels"], **changes)
        yield Point(f"800 atoms, iterations {steps}", "pixels", seed, settings)
    for seed, (features, base) in itertools.product(range(10), BASE.items()):
        yield Point("no penalty", features, seed, dataclasses.replace(base, penalty=0.0))
        yield Point("one iteration", features, seed, dataclasses.replace(base, n_iterations=1))
        atoms = base.n_groups * base.group_size
        yield Point("groups of one", features, seed, dataclasses.replace(base, n_groups=atoms, group_size=1))
        for penalty in (0.1, 1.0, 10.0):
            yield Point("ridge", features, seed, dataclasses.replace(base, penalty=penalty))
        best_of_ten = dataclasses.replace(base, n_init=10)
        yield Point("best of ten", features, seed, best_of_ten, ("k-subspaces", "strongest group"))
    for features, seed in [("root scattering", k) for k in range(5)] + [("pixels", k) for k in range(2)]:
        base = BASE[features]
        share = 0.95 if features == "root scattering" else 0.75  # what the untrained dictionary uses at its penalty
        orthonormal = dataclasses.replace(base.training, normalize="groups")
        changes = {
            "same penalty": {},
            "large penalty": {"penalty": 0.3},
            "large penalty, target sparsity": {"penalty": 0.3, "active_share": share},
            "orthonormal groups, target sparsity": {"penalty": 0.1, "active_share": share, "training": orthonormal},
        }
        for name, change in changes.items():
            yield Point(f"training: {name}", features, seed, dataclasses.replace(base, epochs=EPOCHS, **change))
    for seed, features in itertools.product(range(10), ("root scattering", "pixels")):
        if features == "root scattering" or seed < 3:
            settings = dataclasses.replace(BASE[features], epochs=(0, 10, 30))
            yield Point("linear after training", features, seed, settings)


@cache
def data(features: str) -> tuple[Tensor, Tensor]:
    """Features and labels of all 5,000 digits, in random order."""
    images = load_images("mnist-5k", "all").subset(5000, generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(FEATURES[features].fit_transform(images)), images.labels


def run_point(point: Point) -> list[dict]:
    """The rows of one point."""
    torch.set_num_threads(1)
    samples, labels = data(point.features)
    if point.name in ("ridge", "linear after training"):
        return linear(point, samples, labels)
    results = ablate(samples, point.settings, seeds=[point.seed], methods=point.methods)
    rows = score_results(results, labels, **_tags(point))
    for row, result in zip(rows, results, strict=True):
        row["seconds"] = round(result.seconds, 2)
    return rows


def linear(point: Point, samples: Tensor, labels: Tensor) -> list[dict]:
    r"""Norms of codes that are linear in the sample: ridge codes, and after training projections too.

    .. math:: x = (W^\top W + \mu I)^{-1} W^\top y \qquad \text{or} \qquad x = W^\top y

    mu is the point's penalty without training, 1 after it (the penalty is then that of training, and `code` tells).
    """
    settings, rows = point.settings, []
    rng = torch.Generator().manual_seed(point.seed)
    sizes = (settings.n_groups, settings.group_size)
    dictionary = initial_dictionary(samples, *sizes, settings.start, generator=rng)
    if point.name == "ridge":
        return score_linear(point, ridge_codes(samples, dictionary, settings.penalty), labels, epochs=0)

    def score(epoch: int, model: GroupSparseAutoencoder) -> None:
        if epoch in settings.epochs:
            w = model.weight.detach()
            spectrum = torch.linalg.eigvalsh((w.T @ w).double()).clamp(min=0)
            tags = {"epochs": epoch, "degrees_of_freedom": float((spectrum / (spectrum + 1)).sum())}
            for code, codes in {"projections": samples @ w, "ridge": ridge_codes(samples, w, 1.0)}.items():
                rows.extend(score_linear(point, codes, labels, code=code, **tags))

    model = GroupSparseAutoencoder(
        len(dictionary), *sizes, settings.penalty, n_iterations=settings.n_iterations, dictionary=dictionary
    )
    score(0, model)
    training = dataclasses.replace(settings.training, epochs=max(settings.epochs))
    train(model, samples, training, generator=rng, callbacks=[score])
    return rows


def ridge_codes(samples: Tensor, dictionary: Tensor, mu: float) -> Tensor:
    """(samples, atoms) codes of ridge regression on the dictionary."""
    gram = dictionary.T @ dictionary + mu * torch.eye(dictionary.shape[1])
    return torch.linalg.solve(gram, (samples @ dictionary).T).T


def score_linear(point: Point, codes: Tensor, labels: Tensor, **tags: object) -> list[dict]:
    """Rows for k-means and spectral clustering on the norms of codes in which every group is active."""
    settings, seed = point.settings, point.seed
    norms = normalized_group_norms(codes, settings.group_size)
    found = {
        NORMS[0]: kmeans_clusters(norms, norms, 10, random_state=seed, n_init=settings.kmeans_n_init)[0],
        NORMS[1]: spectral_clusters(
            norms, 10, settings.n_neighbors, random_state=seed, n_components=settings.n_components
        ),
    }
    tags = _tags(point) | {"split": "train", "active_groups": float(settings.n_groups)} | tags
    scores = {method: dataclasses.asdict(clustering_scores(labels, clusters)) for method, clusters in found.items()}
    return [tags | {"method": method} | score for method, score in scores.items()]


def _tags(point: Point) -> dict:
    return {"point": point.name, "features": point.features, "seed": point.seed} | {
        name: getattr(point.settings, name) for name in ("penalty", "group_size", "n_groups")
    }
