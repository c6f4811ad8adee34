"""How the jets and galaxies of chapter 17 cluster one at a time.

The settings are those of chapter 14, with the library's groups of four. Labels score; they choose nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from experiments.digits.group_norms import ridge_codes
from experiments.signals.signals import RESTARTS, group_sparse
from experiments.sums.real_sums import SumSettings, draw_data, load_pool
from gsae_lib._checks import check_choice
from gsae_lib.clustering import spectral_clusters
from gsae_lib.groups import normalized_group_norms
from gsae_lib.learning import k_subspaces
from gsae_lib.metrics import ClusteringScores, clustering_scores

GROUP_SIZE = 4


def cluster_singles(data: Literal["jets", "galaxies"], method: str, *, seed: int) -> ClusteringScores:
    """Cluster singles by one of `methods`; the seed draws their noise, and four fifths of the pool.

    Raises:
        ValueError: unknown data, or an unknown method.
    """
    pool = load_pool(data)
    drawn = draw_data(pool, SumSettings(data), generator=torch.Generator().manual_seed(seed))
    singles = torch.nn.functional.normalize(drawn.singles).double().numpy()
    known = methods(singles, len(pool.kinds))
    return clustering_scores(drawn.labels, known[check_choice("method", method, tuple(known))](seed))


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
