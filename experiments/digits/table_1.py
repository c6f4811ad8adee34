"""The paper's Table 1: a sweep of what the paper leaves out, and then its experiment at full size.

Sweep: 10,000 training images, 30 epochs, one seed, every setting listed by `sweep`. Full size: 60,000 images, 300
epochs, five seeds, for the settings that left the least training error unexplained in the sweep: one of the sparse
network and two of the group-sparse one, the second of another scaling than the first, since errors under different
scalings do not compare, and the best under one scaling differ in their start alone. Labels score, and choose nothing.
The start "class subspaces" uses them, as its name says, and no result called unsupervised comes from it.

Recorded by `gsae record 09_table_1` until it has no more points, since the sweep decides what is run at full size;
`python -m experiments.digits.table_1` then keeps the weights that figures show.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments import RESULTS
from gsae_book.data.images import load_images
from gsae_book.runs.recording import read_points
from gsae_lib import (
    GroupSparseAutoencoder,
    TrainingSettings,
    metrics,
    normalized_group_norms,
    train,
)
from gsae_lib.clustering import kmeans_clusters, positive_part, spectral_clusters
from gsae_lib.dictionary import from_groups
from gsae_lib.learning import initial_dictionary
from gsae_lib.penalty import GroupPenalty
from gsae_lib.training import TrainingError

PATH = RESULTS / "09_table_1.json"
WEIGHTS = RESULTS / "09_table_1.safetensors"
RAW = "raw"  # no network: pixels
CLASSES = "class subspaces (labels used)"
STARTS = ("random", "data", "neighbors", "k-subspaces")
SCALINGS = ("unit interval", "standardised", "unit norm", "centred, unit norm")
METHODS = ("k-means", "spectral")
NETWORKS = {"group-sparse": (10, 16, 0.2), "sparse": (160, 1, 0.03)}
ITERATIONS, RATE, SEEDS, NEIGHBORS = 15, 1e-3, 5, 1000
SIZES = {"sweep": (10_000, 30, (30,)), "full": (60_000, 300, (0, 1, 3, 10, 30, 100, 300))}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to fill in what the paper leaves out. step: 1 / ||W||^2 for "auto"; normalize: the weight, each step."""

    network: str = "group-sparse"
    start: str = "random"
    scaling: str = "unit interval"
    normalize: str | None = None
    batch_size: int = 100
    step: float | str = "auto"
    accelerated: bool = False
    nonnegative: bool = False


def sweep() -> list[Setting]:
    """Starts, scalings and normalisations with each other; the rest one at a time; the starts that use labels last."""
    settings = [
        Setting("group-sparse", *rest) for rest in itertools.product(STARTS, SCALINGS, (None, "columns", "groups"))
    ]
    settings += [
        Setting("sparse", *rest) for rest in itertools.product(("random", "data"), SCALINGS, (None, "columns"))
    ]
    for change in (
        {"batch_size": 500},
        {"batch_size": 2000},
        {"step": 0.1},
        {"accelerated": True},
        {"nonnegative": True},
    ):
        settings += [dataclasses.replace(Setting(network), **change) for network in NETWORKS]
    settings += [
        Setting(start=CLASSES, scaling=scaling, normalize=how) for scaling in SCALINGS for how in (None, "groups")
    ]
    return settings


def recorded_rows() -> list[dict[str, Any]]:
    """What is recorded so far, each row with the values of its point."""
    return [point["values"] | row for point in read_points(PATH) for row in point["rows"]]


def plan() -> list[dict[str, Any]]:
    """The sweep; once it is recorded, what it chooses at full size, the pixels alone, and Figure 5."""
    points: list[dict[str, Any]] = [{"stage": "sweep", "setting": setting, "seed": 0} for setting in sweep()]
    rows = recorded_rows()
    if len({_setting(row) for row in rows if row["stage"] == "sweep"}) < len(sweep()):
        return points
    points += [{"stage": "full", "setting": setting, "seed": seed} for setting, seed in full(rows)]
    points += [{"stage": "full", "setting": Setting(RAW), "seed": seed} for seed in range(SEEDS)]
    return points + [{"stage": "figure 5", "setting": first_of(name, rows), "seed": 0} for name in NETWORKS]


def full(rows: list[dict]) -> list[tuple[Setting, int]]:
    """What to run at full size, from the sweep's training errors alone; batches of 500 to keep a run in minutes."""
    best = {network: [] for network in NETWORKS}
    finished = (row for row in rows if row["stage"] == "sweep" and "failed" not in row and row["start"] != CLASSES)
    for row in sorted(finished, key=lambda row: row["unexplained"]):
        setting = _setting(row)
        if setting.batch_size == Setting.batch_size and setting not in best[setting.network]:
            best[setting.network].append(setting)
    first = best["group-sparse"][0]
    second = next(setting for setting in best["group-sparse"] if setting.scaling != first.scaling)
    chosen = [first, best["sparse"][0], second]
    chosen = [dataclasses.replace(setting, batch_size=500) for setting in chosen]
    jobs = [(setting, seed) for seed in range(SEEDS) for setting in chosen]
    with_labels = [(dataclasses.replace(setting, start=CLASSES), 0) for setting in (chosen[0], chosen[2])]
    return jobs[:3] + list(dict.fromkeys(with_labels)) + jobs[3:]


def first_of(network: str, rows: list[dict]) -> Setting:
    """The setting of a network at full size whose weight is kept: the best."""
    return next(setting for setting, _ in full(rows) if setting.network == network)


def run(stage: Literal["sweep", "full", "figure 5"], setting: Setting, *, seed: int) -> list[dict[str, Any]]:
    """The rows of one point of the plan.

    Raises:
        OSError: "figure 5" without the weights that `keep_weights` writes.
    """
    torch.set_num_threads(1)
    if stage == "figure 5":
        return contrasts(setting)
    if setting.network == RAW:
        _, _, points, labels = data("unit interval", 10_000)
        return score_points(points, labels, seed, view="pixels")
    return train_network(stage, setting, seed)[0]


def train_network(stage: str, setting: Setting, seed: int) -> tuple[list[dict[str, Any]], Tensor]:
    """Train one network and score its test codes at the epochs of the stage; rows, and the last weight.

    Training that cannot go on leaves one row, with the reason under "failed".
    """
    n_images, epochs, scored = SIZES[stage]
    train_data, train_labels, _, _ = data(setting.scaling, n_images)
    groups, size, _ = NETWORKS[setting.network]
    generator = torch.Generator().manual_seed(seed)
    if setting.start == CLASSES:
        start = _class_subspaces(train_data, train_labels, size)
    else:
        start = initial_dictionary(train_data, groups, size, setting.start, generator=generator)
    model = build_network(setting, start)
    training = TrainingSettings(
        epochs, RATE, batch_size=setting.batch_size, normalize=setting.normalize, progress=False
    )
    rows: list[dict[str, Any]] = []

    def score(epoch: int, model: GroupSparseAutoencoder) -> None:
        if epoch in scored:
            rows.extend(_scores(model, train_data, setting, seed, stage, epoch))

    with torch.no_grad():
        score(0, model)
    try:
        history = train(model, train_data, training, generator=generator, callbacks=[score])
    except TrainingError as error:
        return [{"failed": str(error)}], model.weight.detach()
    for row in rows:
        row["train_seconds"] = round(history.seconds, 1)
    return rows, model.weight.detach()


def build_network(setting: Setting, weight: Tensor) -> GroupSparseAutoencoder:
    """The network of a setting, at a weight (features, atoms)."""
    n_groups, size, penalty = NETWORKS[setting.network]
    return GroupSparseAutoencoder(
        len(weight),
        n_groups,
        penalty=GroupPenalty(penalty, size, nonnegative=setting.nonnegative),
        n_iterations=ITERATIONS,
        step_size=setting.step,
        accelerated=setting.accelerated,
        dictionary=weight,
    )


def _scores(
    model: GroupSparseAutoencoder, train_data: Tensor, setting: Setting, seed: int, stage: str, epoch: int
) -> list[dict[str, Any]]:
    """A row for each view of the test codes and each way to cluster it; spectral after the last epoch at full size."""
    _, _, test_data, labels = data(setting.scaling, len(train_data))
    size = model.group_size
    codes = model.encode(test_data)
    left = sum((part - model(part)[0]).square().sum().item() for part in train_data.split(2000))
    known = {
        "epochs": epoch,
        "unexplained": left / train_data.square().sum().item(),
        "active_share": metrics.mean_active_groups(codes, size) / model.n_groups,
    }
    views = {"codes": codes, "codes_+": positive_part(codes)}
    if size > 1:
        views["group norms"] = normalized_group_norms(codes, size)
    rows = []
    methods = METHODS if stage == "full" and epoch == SIZES[stage][1] else METHODS[:1]
    for view, points in views.items():
        rows += score_points(points, labels, seed, methods=methods, **known, view=view)
    return rows


def score_points(
    points: Tensor,
    labels: Tensor,
    seed: int,
    /,
    *,
    methods: Sequence[str] = METHODS,
    n_neighbors: int = NEIGHBORS,
    **tags: object,
) -> list[dict]:
    """A row for each method: the tags, and the scores of ten clusters, fitted and scored on the same points."""
    rows = []
    for method in methods:
        if method == "k-means":
            clusters, _ = kmeans_clusters(points, points[:1], 10, random_state=seed)
        else:
            clusters = spectral_clusters(points, 10, n_neighbors, random_state=seed)
        rows.append(tags | {"method": method} | dataclasses.asdict(metrics.clustering_scores(labels, clusters)))
    return rows


def contrasts(setting: Setting) -> list[dict[str, Any]]:
    """The paper's Figure 5 in numbers: `metrics.distance_contrast` of 100 test images a class, in a kept network."""
    weight = load_file(WEIGHTS)[setting.network]
    _, _, test_data, labels = data(setting.scaling, SIZES["full"][0])
    chosen = torch.cat([(labels == k).nonzero().flatten()[:100] for k in labels.unique()])
    codes = build_network(setting, weight.float()).encode(test_data[chosen]).detach()
    norms = normalized_group_norms(codes, NETWORKS[setting.network][1])
    views = {"pixels": test_data[chosen], "codes": codes, "group norms": norms}
    return [{"view": name, "contrast": metrics.distance_contrast(x, labels[chosen])} for name, x in views.items()]


def keep_weights() -> None:
    """Train the best network of each kind at full size, seed 0, and keep its weight in half precision, for figures."""
    torch.set_num_threads(1)
    weights = {name: train_network("full", first_of(name, recorded_rows()), 0)[1].half() for name in NETWORKS}
    save_file({name: weight.contiguous() for name, weight in weights.items()}, WEIGHTS)


@cache
def data(scaling: str, n_images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training pixels and labels, test pixels and labels. Means and scales come from the training images."""
    images = load_images("mnist", "train").subset(n_images, generator=torch.Generator().manual_seed(0))
    test_images = load_images("mnist", "test")
    parts = [images.images.flatten(1), test_images.images.flatten(1)]
    if scaling == "standardised":
        mean, scale = parts[0].mean(), parts[0].std()
        parts = [(part - mean) / scale for part in parts]
    if scaling == "centred, unit norm":
        centre = parts[0].mean(dim=0)
        parts = [part - centre for part in parts]
    if "unit norm" in scaling:
        parts = [part / torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in parts]
    return parts[0], images.labels, parts[1], test_images.labels


def _class_subspaces(points: Tensor, labels: Tensor, size: int) -> Tensor:
    """The leading singular vectors of each class: a start that knows the answer."""
    groups = [torch.linalg.svd(points[labels == k].T @ points[labels == k]).U[:, :size] for k in labels.unique()]
    return from_groups(torch.stack(groups))


def _setting(row: dict[str, Any]) -> Setting:
    return Setting(**{field.name: row[field.name] for field in dataclasses.fields(Setting)})


if __name__ == "__main__":
    keep_weights()
