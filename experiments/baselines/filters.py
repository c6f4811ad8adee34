r"""What clusters by a graph: groups, a dictionary, or the filter of directions that a linear code on it amounts to.

Ridge codes x = (W^T W + mu I)^{-1} W^T y know their dictionary only by S = W W^T:

.. math:: \langle x, x' \rangle = y^T S (S + \mu I)^{-2} y'

so a graph of ridge codes is one of filtered features, and groups come in with norms alone. The control has no groups
and no dictionary: S = m Y^T Y / \|Y\|^2, the second moment of the samples themselves with the trace of m unit atoms.
That is regularised whitening of principal components.

Samples are those of `experiments.baselines.label_free`, mu = 1 that of chapter 10. The control was thought of after
that protocol was written, with labels in sight.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from experiments.baselines.clustering import CLUSTERS, k_means, spectral_more
from experiments.baselines.label_free import KEPT, draw_rows, kept_coefficients, root_directions
from experiments.digits.group_norms import ridge_codes
from gsae_book.data.images import load_images
from gsae_book.runs.processes import in_fresh_process, peak_mib
from gsae_lib import GroupSparseAutoencoder
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.groups import normalized_group_norms
from gsae_lib.learning import k_subspaces
from gsae_lib.metrics import clustering_scores

N_GROUPS, GROUP_SIZE, PENALTY, STEPS = 100, 4, 0.05, 10  # those of chapter 10
NEIGHBORS = 10
CODES = ("features", "whitened", "ridge codes", "ridge norms", "sparse codes", "sparse norms")
SIZES = {"mnist-5k": 5000, "mnist": 10_000, "fashion-mnist": 10_000}
LARGEST = 70_000


@dataclasses.dataclass(frozen=True)
class FilterRun:
    """What a code is worth to a graph and to k-means.

    same_label: share of the ten nearest samples that have a sample's label. seconds: processor time of the code and its
    spectral clusters; direction_seconds, scattering_seconds, peak_mib and partition: as in `LabelFreeRun`.
    """

    same_label: float
    graph_accuracy: float
    graph_nmi: float
    kmeans_accuracy: float
    kmeans_nmi: float
    scattering_seconds: float
    direction_seconds: float
    seconds: float
    peak_mib: float
    partition: str


def whitened(samples: Float[Tensor, "samples features"], n_atoms: int, mu: float) -> Float[Tensor, "samples features"]:
    r"""Regularised whitening: ridge codes on a dictionary that has the second moment of the samples.

    .. math:: x = (\Lambda + \mu I)^{-1} \Lambda^{1/2} V^T y, \qquad V \Lambda V^T = m Y^T Y / \|Y\|^2

    Source: the distances are those of (W^T W + mu I)^{-1} W^T y for any W with W W^T = V \Lambda V^T.
    """
    second = n_atoms * (samples.T @ samples).double() / samples.double().square().sum()
    values, vectors = torch.linalg.eigh(second)
    gains = values.clamp(min=0).sqrt() / (values.clamp(min=0) + mu)
    return samples @ (vectors * gains).to(samples.dtype)


def encode(
    samples: Float[Tensor, "samples features"], code: str, mu: float, *, seed: int
) -> Float[Tensor, "samples atoms"]:
    """One of CODES of unit length, or the share of each group; dictionaries are of k-subspaces.

    Raises:
        ValueError: another code.
    """
    check_choice("code", code, CODES)
    if code == "features":
        return samples
    if code == "whitened":
        return torch.nn.functional.normalize(whitened(samples, N_GROUPS * GROUP_SIZE, mu), dim=1)
    rng = torch.Generator().manual_seed(seed)
    dictionary = k_subspaces(samples, N_GROUPS, GROUP_SIZE, generator=rng).dictionary
    if code.startswith("ridge"):
        codes = ridge_codes(samples, dictionary, mu)
    else:
        sizes = (len(dictionary), N_GROUPS, GROUP_SIZE, PENALTY)
        model = GroupSparseAutoencoder(*sizes, n_iterations=STEPS, dictionary=dictionary)
        with torch.inference_mode():
            codes = model.encode(samples)
    if code.endswith("norms"):
        return normalized_group_norms(codes, GROUP_SIZE)
    return torch.nn.functional.normalize(codes, dim=1)


def measure(
    dataset: Literal["mnist", "mnist-5k", "fashion-mnist"], n_samples: int, code: str, mu: float = 1.0, *, seed: int
) -> FilterRun:
    """One code of `n_samples` of a whole data set, in a fresh process on one thread.

    Raises:
        ValueError: another code, or a number out of range. FileNotFoundError: the data set is not in the cache.
    """
    check_choice("code", code, CODES)
    check_int("n_samples", n_samples, low=KEPT)
    check_real("mu", mu, strict=True)
    file, seconds = kept_coefficients(dataset)
    return in_fresh_process(_measure, dataset, Path(file.name), seconds, n_samples, code, mu, seed)


def _measure(
    dataset: str, path: Path, image_seconds: float, n_samples: int, code: str, mu: float, seed: int
) -> FilterRun:
    torch.set_num_threads(1)
    labels = load_images(dataset, "all").labels
    rows = draw_rows(len(labels), n_samples, seed=seed)
    labels, coefficients = labels[rows], np.load(path, mmap_mode="r")[rows.numpy()]
    start = time.process_time()
    features = root_directions(coefficients)
    del coefficients
    middle = time.process_time()
    codes = encode(torch.from_numpy(features), code, mu, seed=seed).numpy()
    clusters = spectral_more(codes, CLUSTERS, seed)
    costs = (image_seconds * n_samples, middle - start, time.process_time() - middle, peak_mib())
    kept = "".join(str(k) for k in clusters[:KEPT])
    graph, centres = (clustering_scores(labels, found) for found in (clusters, k_means(codes, CLUSTERS, seed)))
    scores = (graph.accuracy, graph.nmi, centres.accuracy, centres.nmi)
    return FilterRun(same_label(codes, labels.numpy()), *scores, *costs, kept)


def same_label(codes: np.ndarray, labels: np.ndarray) -> float:
    """The share of each sample's NEIGHBORS nearest others that have its label."""
    nearest = NearestNeighbors(n_neighbors=NEIGHBORS).fit(codes).kneighbors(return_distance=False)
    return float((labels[nearest] == labels[:, None]).mean())


def plan() -> list[dict[str, Any]]:
    """Five seeds of each code, of whitened features with another mu too, and three of these on all of MNIST."""
    points = [
        {"dataset": dataset, "n_samples": n_samples, "code": code, "mu": mu, "seed": seed}
        for (dataset, n_samples), code, mu, seed in itertools.product(SIZES.items(), CODES, (1.0, 0.3, 3.0), range(5))
        if mu == 1 or code == "whitened"
    ]
    whole = {"dataset": "mnist", "n_samples": LARGEST, "code": "whitened", "mu": 1.0}
    return points + [{**whole, "seed": seed} for seed in range(3)]
