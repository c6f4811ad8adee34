"""Clusterings of measured spectra of surfaces: what group norms earn on samples that are no images.

The protocol was written before its runs:

* Spectra are those of the package `earthlib` that were measured; 2,000 others are simulated. One library of soils has
  four in five of them: as many of it, at random, as all others together are kept.
* A spectrum is divided by its length, since brightness depends on light and distance. Nothing else is done to it.
* Methods and settings are those of `experiments.baselines.clustering`, fixed on digits; none is set anew. Autoencoders
  and the dictionaries of 200 groups, made for pixels, are left out.
* Kinds are those of one level of the labels, of at least LEAST spectra. They score, and choose nothing but how many
  clusters are asked for.
"""

import csv
import dataclasses
import io
import time
from typing import Any, Literal

import numpy as np
import torch
from sklearn.preprocessing import normalize

from experiments.baselines.clustering import METHODS, ONE_SEED, SEEDS
from gsae_book.data.files import read_verified
from gsae_lib._checks import check_choice
from gsae_lib.metrics import clustering_scores

BANDS = 180  # from 0.4 micrometres
LEAST = 30  # spectra of a kind
LEVELS = (2, 3)  # the first has two kinds, the fourth is the same for all that were measured
TRIED = (
    "group norms + spectral",
    "group norms, ten epochs + spectral",
    "ridge norms + spectral",
    "group norms + k-means",
    "k-means",
    "Gaussian mixture",
    "spectral, 15 eigenvectors",
    "k-subspaces",
    "SSC-OMP",
    "EnSC",
)


@dataclasses.dataclass(frozen=True)
class SpectraRun:
    """Scores of one run, its processor seconds, and how many spectra of how many kinds it had."""

    accuracy: float
    nmi: float
    seconds: float
    n_samples: int
    n_kinds: int


def load_spectra(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of unit length, (samples, BANDS) float32, and their kinds at a `level` of the labels, (samples,) texts.

    Raises:
        ValueError: another level. FileNotFoundError: the package earthlib is not installed.
    """
    check_choice("level", level, LEVELS)
    table = list(csv.DictReader(io.StringIO(read_verified("spectra", "earthlib/data/spectra.csv").decode())))
    values = np.frombuffer(read_verified("spectra", "earthlib/data/spectra.sli"), "<f4").reshape(len(table), BANDS)
    libraries = np.array([row["SOURCE"] for row in table])
    kinds = np.array([row[f"LEVEL_{level}"] for row in table])
    measured = np.flatnonzero([row["LEVEL_4"] == "measured" for row in table])
    names, counts = np.unique(libraries[measured], return_counts=True)
    is_largest = libraries[measured] == names[counts.argmax()]
    others = measured[~is_largest]
    some = np.random.default_rng(0).permutation(measured[is_largest])[: len(others)]
    kept = np.sort(np.concatenate([some, others]))
    names, counts = np.unique(kinds[kept], return_counts=True)
    kept = kept[np.isin(kinds[kept], names[counts >= LEAST])]
    return normalize(values[kept]), kinds[kept]


def measure_spectra(level: Literal[2, 3], method: str, *, seed: int) -> SpectraRun:
    """One method on the spectra, on one thread, with as many clusters as there are kinds.

    Raises:
        ValueError: another level or method. FileNotFoundError: the package earthlib is not installed.
    """
    check_choice("method", method, TRIED)
    torch.set_num_threads(1)
    data, kinds = load_spectra(level)
    names, labels = np.unique(kinds, return_inverse=True)
    start = time.process_time()
    clusters = METHODS[method](data, len(names), seed)
    seconds = time.process_time() - start
    scores = clustering_scores(labels, clusters)
    return SpectraRun(scores.accuracy, scores.nmi, seconds, len(data), len(names))


def plan() -> list[dict[str, Any]]:
    """Ten seeds of each method at both levels, one of those whose codes have no random part."""
    return [
        {"level": level, "method": method, "seed": seed}
        for level in LEVELS
        for method in TRIED
        for seed in range(1 if method in ONE_SEED else SEEDS)
    ]
