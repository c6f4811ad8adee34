"""Clustering without labels against the number of samples: accuracy, processor seconds and memory, features included.

The protocol was written before its runs:

* Methods and settings are those of `experiments.baselines.clustering`, fixed at 10,000 samples and fewer; none is set
  anew for a size. Features are the same for all: root scattering, 500 directions, learned from the samples themselves.
* A run draws its samples at random, but for the first KEPT, which are in every run of a data set. It keeps their
  clusters, so that runs can be compared without labels: `agreement` is the mean adjusted Rand index of pairs of seeds.
* The method that is reported as the book's is the one of `OURS` whose seeds agree best at the largest size. Labels give
  the scores of what was chosen, and choose nothing.
* Each run is a fresh process on one thread. Its seconds are of the processor, from the images to the clusters.
"""

import dataclasses
import itertools
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize
from torch import Tensor

from experiments.baselines.clustering import CLUSTERS, METHODS, ONE_SEED, SEEDS
from experiments.digits.scores import mean_and_spread
from gsae_book.data.features import scattering_coefficients
from gsae_book.data.images import load_images
from gsae_book.runs.processes import in_fresh_process, peak_mib
from gsae_lib._checks import check_choice, check_int
from gsae_lib.metrics import clustering_scores

SIZES = (1000, 3000, 10_000, 30_000, 70_000)
KEPT = 500  # samples that are in every run
OURS = ("group norms + spectral", "group norms, ten epochs + spectral", "ridge norms + spectral")
BASELINES = ("k-means", "spectral, 15 eigenvectors", "k-subspaces", "SSC-OMP", "EnSC")
LARGEST = {"k-subspaces": 30_000, "SSC-OMP": 10_000, "EnSC": 10_000}  # the last two compare all pairs, dense


@dataclasses.dataclass(frozen=True)
class LabelFreeRun:
    """Scores, processor seconds and peak memory of one run.

    scattering_seconds: of the samples' coefficients, at the mean cost of an image; they are computed once a data set.
    direction_seconds: of the 500 directions. seconds: of the method. partition: clusters of the samples that all runs
    share, a digit each.
    """

    accuracy: float
    nmi: float
    scattering_seconds: float
    direction_seconds: float
    seconds: float
    peak_mib: float
    partition: str


def draw_rows(n_images: int, n_samples: int, *, seed: int) -> Tensor:
    """Which images a run takes: the first KEPT of a fixed order, then others at random.

    Raises:
        ValueError: fewer than KEPT, or more than there are.
    """
    check_int("n_samples", n_samples, low=KEPT, high=n_images)
    order = torch.randperm(n_images, generator=torch.Generator().manual_seed(0))
    others = torch.randperm(n_images - KEPT, generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat([order[:KEPT], order[KEPT:][others[: n_samples - KEPT]]])


def root_directions(coefficients: np.ndarray) -> np.ndarray:
    """What `ScatteringFeatures(root=True)` makes of scattering coefficients (samples, 3472), which it overwrites."""
    np.sqrt(coefficients.clip(min=0, out=coefficients), out=coefficients)
    return normalize(PCA(500, svd_solver="randomized", random_state=0).fit(coefficients).transform(coefficients))


def measure(
    dataset: Literal["mnist", "mnist-5k", "fashion-mnist"], n_samples: int, method: str, *, seed: int
) -> LabelFreeRun:
    """One method on `n_samples` of a whole data set, in a fresh process on one thread.

    Raises:
        ValueError: another method, or a number of samples out of range. FileNotFoundError: the data set is not in the
            cache.
    """
    check_choice("method", method, (*OURS, *BASELINES))
    check_int("n_samples", n_samples, low=KEPT, high=LARGEST.get(method))
    file, seconds = kept_coefficients(dataset)
    return in_fresh_process(_measure, dataset, Path(file.name), seconds, n_samples, method, seed)


@cache
def kept_coefficients(dataset: str) -> tuple[Any, float]:
    """A temporary file of the scattering coefficients of all images, and the seconds of one image."""
    file = tempfile.NamedTemporaryFile(suffix=".npy")
    return file, in_fresh_process(_write_coefficients, dataset, Path(file.name))


def _write_coefficients(dataset: str, path: Path) -> float:
    torch.set_num_threads(1)
    images = load_images(dataset, "all")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        start = time.process_time()
        coefficients = scattering_coefficients(images, cache=folder)
        seconds = time.process_time() - start
    np.save(path, coefficients.numpy())
    return seconds / len(coefficients)


def _measure(dataset: str, path: Path, image_seconds: float, n_samples: int, method: str, seed: int) -> LabelFreeRun:
    torch.set_num_threads(1)
    labels = load_images(dataset, "all").labels
    rows = draw_rows(len(labels), n_samples, seed=seed)
    coefficients = np.load(path, mmap_mode="r")[rows.numpy()]
    start = time.process_time()
    features = root_directions(coefficients)
    del coefficients
    middle = time.process_time()
    clusters = METHODS[method](features, CLUSTERS, seed)
    seconds = time.process_time() - middle
    scores = clustering_scores(labels[rows], clusters)
    kept = "".join(str(k) for k in clusters[:KEPT])
    costs = (image_seconds * n_samples, middle - start, seconds, peak_mib())
    return LabelFreeRun(scores.accuracy, scores.nmi, *costs, kept)


def plan() -> list[dict[str, Any]]:
    """Every run: ten seeds on MNIST and five on Fashion-MNIST.

    Three of a baseline at 30,000 samples and more, and one of those whose codes have no random part.
    """
    points = []
    for dataset, n_samples, method in itertools.product(("mnist", "fashion-mnist"), SIZES, (*OURS, *BASELINES)):
        seeds = SEEDS if dataset == "mnist" else 5
        if method in BASELINES and n_samples > 10_000:
            seeds = 3
        seeds = 1 if method in ONE_SEED else seeds
        if n_samples <= LARGEST.get(method, n_samples):
            points += [{"dataset": dataset, "n_samples": n_samples, "method": method, "seed": k} for k in range(seeds)]
    return points


def agreement(rows: pd.DataFrame) -> pd.Series:
    """Mean adjusted Rand index of the clusters of pairs of seeds, by data set, number of samples and method; no labels.

    NaN where there is one seed.
    """

    def mean_of_pairs(clusters: pd.Series) -> float:
        pairs = itertools.combinations([list(one) for one in clusters], 2)
        found = [adjusted_rand_score(*pair) for pair in pairs]
        return float(np.mean(found)) if found else float("nan")

    return rows.groupby(["dataset", "n_samples", "method"], sort=False)["partition"].agg(mean_of_pairs)


def chosen_method(rows: pd.DataFrame) -> str:
    """The one of OURS whose seeds agree best on MNIST at its largest size."""
    found = agreement(rows[rows["method"].isin(OURS)])["mnist"]
    return str(found[found.index.get_level_values("n_samples").max()].idxmax())


def total_seconds(rows: pd.DataFrame) -> pd.Series:
    """Processor seconds of each run from the images to the clusters."""
    return rows["scattering_seconds"] + rows["direction_seconds"] + rows["seconds"]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """By data set and method, at the largest number of samples it was run with: scores, agreement and cost."""
    by_method = ["dataset", "method"]
    largest = rows["n_samples"] == rows.groupby(by_method)["n_samples"].transform("max")
    rows = rows[largest].assign(total=total_seconds(rows))
    groups = rows.groupby(by_method, sort=False)
    columns = {
        "images": groups["n_samples"].first(),
        "accuracy": mean_and_spread(groups["accuracy"]),
        "worst": groups["accuracy"].min().round(3),
        "nmi": groups["nmi"].mean().round(3),
        "agree": agreement(rows).droplevel("n_samples").round(3),
        "seconds": groups["total"].mean().round().astype(int),
        "GiB": (groups["peak_mib"].max() / 1024).round(1),
        "runs": groups["seed"].count(),
    }
    return pd.DataFrame(columns).astype({"agree": object}).fillna("")
