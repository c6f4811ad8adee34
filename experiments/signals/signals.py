"""The comparison of chapter 14: many ways to cluster the same signals.

The signals are those of simulate_signals.py, the same for every method and seed. Labels score; they choose nothing.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.signal import stft
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from experiments import RESULTS
from experiments.digits.scores import matched_confusion
from gsae_lib._checks import check_choice
from gsae_lib.clustering import spectral_clusters
from gsae_lib.estimators import GroupSparseClustering, GroupSparseDictionaryLearning, alpha_for_target_sparsity
from gsae_lib.groups import normalized_group_norms
from gsae_lib.learning import k_subspaces
from gsae_lib.metrics import clustering_scores

BINS = {"6 to 9": (6, 9), "9 to 13": (9, 13), "13 to 20": (13, 21)}
RESTARTS = 10  # of k-means, mixtures and k-subspaces, also where a dictionary starts; the best by its own objective
SHARE = 0.35  # of the groups that a signal uses


def cluster_signals(method: str, *, seed: int) -> dict[str, float]:
    """Cluster the signals, the same for every method and seed, by one of `methods`; scores, and accuracies by SNR.

    Raises:
        ValueError: an unknown method.
    """
    signals, labels, snrs, n_clusters = _load()
    known = methods(_views(signals), n_clusters)
    clusters = known[check_choice("method", method, tuple(known))](seed)
    scores = dataclasses.asdict(clustering_scores(labels, clusters))
    matched = matched_confusion(labels, clusters)  # one matching for all signals
    types = dict(zip(matched.columns, matched.index, strict=False))
    right = np.array([types.get(cluster) for cluster in clusters]) == labels
    for title, (low, high) in BINS.items():
        scores[f"accuracy, SNR {title}"] = float(right[(snrs >= low) & (snrs < high)].mean())
    return scores


def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    with np.load(RESULTS / "14_signals.npz") as content:
        signals, labels = content["signals"].astype(float), content["labels"].astype(int)
        return signals, labels, content["snrs"], len(content["types"])


def _views(signals: np.ndarray) -> dict[str, np.ndarray]:
    """What is clustered, each sample at unit norm: signals, magnitudes of their spectrum, and of their spectrogram."""
    _, _, cells = stft(
        signals, nperseg=32, noverlap=24, boundary=None, padded=False
    )  # 31 ms, the best of four on seed 7
    spectrogram = np.abs(cells).reshape(len(signals), -1)
    views = {"signals": signals, "spectrum": np.abs(np.fft.rfft(signals)), "spectrogram": spectrogram}
    views = {name: view / np.linalg.norm(view, axis=1, keepdims=True) for name, view in views.items()}
    views["components"] = PCA(20, random_state=0).fit_transform(views["signals"])
    return views


def methods(views: dict[str, np.ndarray], n_clusters: int) -> dict[str, Callable[[int], np.ndarray]]:
    """Name -> seed -> clusters."""
    signals = torch.from_numpy(views["signals"])

    def kmeans(view: str, seed: int) -> np.ndarray:
        return KMeans(n_clusters, n_init=RESTARTS, random_state=seed).fit_predict(views[view])

    def spectral(view: str, seed: int) -> np.ndarray:
        return spectral_clusters(torch.from_numpy(views[view]), n_clusters, 10, random_state=seed)

    def mixture(view: str, covariance: str, seed: int) -> np.ndarray:
        model = GaussianMixture(n_clusters, covariance_type=covariance, n_init=RESTARTS, random_state=seed)
        return model.fit_predict(views[view])

    def subspaces(size: int, seed: int) -> np.ndarray:
        rng = torch.Generator().manual_seed(seed)
        return k_subspaces(signals, n_clusters, size, n_init=RESTARTS, generator=rng).labels.numpy()

    return {
        "k-means, signals": partial(kmeans, "signals"),
        "k-means, spectrum": partial(kmeans, "spectrum"),
        "k-means, spectrogram": partial(kmeans, "spectrogram"),
        "Gaussian mixture, signals (diagonal)": partial(mixture, "signals", "diag"),
        "Gaussian mixture, 20 components (full)": partial(mixture, "components", "full"),
        "spectral, signals": partial(spectral, "signals"),
        "spectral, spectrum": partial(spectral, "spectrum"),
        "spectral, spectrogram": partial(spectral, "spectrogram"),
        "k-subspaces, signals, d = 2": partial(subspaces, 2),
        "k-subspaces, signals, d = 4": partial(subspaces, 4),
        "k-means, codes, d = 2": partial(group_sparse, views["signals"], n_clusters, 2, "codes"),
        "k-means, group norms, d = 1": partial(group_sparse, views["signals"], n_clusters, 1, "kmeans"),
        "k-means, group norms, d = 2": partial(group_sparse, views["signals"], n_clusters, 2, "kmeans"),
        "k-means, group norms, d = 4": partial(group_sparse, views["signals"], n_clusters, 4, "kmeans"),
        "spectral, group norms, d = 2": partial(group_sparse, views["signals"], n_clusters, 2, "spectral"),
        "spectral, group norms, d = 4": partial(group_sparse, views["signals"], n_clusters, 4, "spectral"),
        "k-means, filter outputs, d = 2": partial(group_sparse, views["signals"], n_clusters, 2, "filters"),
        "spectral (1.5 x eigenvectors), group norms, d = 2": partial(
            group_sparse, views["signals"], n_clusters, 2, "spectral", n_components=n_clusters + n_clusters // 2
        ),
        "spectral (2 x eigenvectors), group norms, d = 2": partial(
            group_sparse, views["signals"], n_clusters, 2, "spectral", n_components=2 * n_clusters
        ),
    }


def group_sparse(
    signals: np.ndarray, n_clusters: int, group_size: int, assign: str, seed: int, n_components: int | None = None
) -> np.ndarray:
    """Clusters at the target sparsity, ten groups a cluster, as the library's "auto".

    assign: of the estimator, or "codes", k-means on codes, or "filters", k-means on the normalised ||W_g^T y||.
    n_components: eigenvectors of "spectral".
    """
    shared = {"n_groups": 10 * n_clusters, "group_size": group_size, "n_init": RESTARTS, "random_state": seed}
    first = GroupSparseClustering(2, alpha=1e-3, **shared).fit(signals)
    alpha = alpha_for_target_sparsity(signals, first.components_, group_size, SHARE * 10 * n_clusters)
    if assign == "filters":
        outputs = normalized_group_norms(torch.from_numpy(signals @ first.components_.T), group_size).numpy()
        return KMeans(n_clusters, n_init=RESTARTS, random_state=seed).fit_predict(outputs)
    if assign == "codes":
        codes = GroupSparseDictionaryLearning(alpha=alpha, max_iter=0, **shared).fit(signals).transform(signals)
        codes /= np.linalg.norm(codes, axis=1, keepdims=True).clip(1e-12)
        return KMeans(n_clusters, n_init=RESTARTS, random_state=seed).fit_predict(codes)
    model = GroupSparseClustering(n_clusters, alpha=alpha, assign=assign, n_components=n_components, **shared)
    return model.fit(signals).labels_
