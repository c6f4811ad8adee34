"""Record how the jets and galaxies of chapter 17 cluster one at a time; what the file has is not repeated.

The settings are those of chapter 14, with the library's groups of four. Labels score; they choose nothing.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from experiments import RESULTS
from experiments.group_norms import ridge_codes
from experiments.real_sums import SumSettings, draw_data, load_pool
from experiments.signals import RESTARTS, group_sparse
from gsae_book.recording import write_rows
from gsae_lib.clustering import spectral_clusters
from gsae_lib.groups import normalized_group_norms
from gsae_lib.initialization import k_subspaces
from gsae_lib.metrics import clustering_scores

PATH = RESULTS / "17_clusters.json"
DATA = ("jets", "galaxies")
SEEDS = range(10)
GROUP_SIZE = 4


def record_clusters(path: Path = PATH) -> None:
    """Cluster the singles by every method and write after each seed, which draws noise and four fifths of the pool."""
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    for seed in SEEDS:
        for name in DATA:
            pool = load_pool(name)
            data = draw_data(pool, SumSettings(name), generator=torch.Generator().manual_seed(seed))
            singles = torch.nn.functional.normalize(data.singles).double().numpy()
            for method, cluster in methods(singles, len(pool.kinds)).items():
                if any((row["data"], row["method"], row["seed"]) == (name, method, seed) for row in rows):
                    continue
                start = time.perf_counter()
                scores = dataclasses.asdict(clustering_scores(data.labels, cluster(seed)))
                seconds = round(time.perf_counter() - start, 2)
                rows.append({"data": name, "method": method, "seed": seed, "seconds": seconds} | scores)
        write_rows(path, "rows", rows)
        print(seed, {(row["data"], row["method"]): round(row["accuracy"], 3) for row in rows if row["seed"] == seed})


def methods(samples: np.ndarray, n_clusters: int) -> dict[str, Callable[[int], np.ndarray]]:
    """Name -> seed -> clusters of samples (samples, features) at unit norm."""

    def kmeans(seed: int) -> np.ndarray:
        return KMeans(n_clusters, n_init=RESTARTS, random_state=seed).fit_predict(samples)

    def mixture(seed: int) -> np.ndarray:
        rows = PCA(20, random_state=0).fit_transform(samples)
        return GaussianMixture(n_clusters, n_init=RESTARTS, random_state=seed).fit_predict(rows)

    def spectral(seed: int) -> np.ndarray:
        return spectral_clusters(torch.from_numpy(samples), n_clusters, 10, random_state=seed)

    def subspaces(seed: int) -> np.ndarray:
        rng, data = torch.Generator().manual_seed(seed), torch.from_numpy(samples)
        return k_subspaces(data, n_clusters, GROUP_SIZE, n_init=RESTARTS, generator=rng).labels.numpy()

    def ridge(seed: int) -> np.ndarray:
        rng, data = torch.Generator().manual_seed(seed), torch.from_numpy(samples)
        found = k_subspaces(data, 10 * n_clusters, GROUP_SIZE, n_init=RESTARTS, generator=rng)
        norms = normalized_group_norms(ridge_codes(data, found.dictionary, 1.0), GROUP_SIZE).numpy()
        return KMeans(n_clusters, n_init=RESTARTS, random_state=seed).fit_predict(norms)

    ours = partial(group_sparse, samples, n_clusters, GROUP_SIZE)
    return {
        "k-means": kmeans,
        "Gaussian mixture, 20 components": mixture,
        "spectral": spectral,
        "k-subspaces": subspaces,
        "k-means, filter outputs": partial(ours, "filters"),
        "k-means, ridge norms": ridge,
        "k-means, group norms": partial(ours, "kmeans"),
        "spectral, group norms": partial(ours, "spectral", n_components=n_clusters + n_clusters // 2),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    record_clusters()
