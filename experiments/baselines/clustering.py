"""Clustering methods on the same features: accuracy, seconds and peak memory, each run in a fresh process, one thread.

The features are made once for each data set, in a process of their own and outside what is measured. Every method
takes (features (N, n) float32, clusters to find, seed) and no labels; settings are the same everywhere.
`seconds` are of processor time, which other work on the machine changes little; with one thread they are the wall time
when idle. `peak_mib` is the process's ru_maxrss, `peak_mib_above_features` what it grew by since the features were
loaded.
SSC-OMP and EnSC run once: their codes have no random part. The map-normalised features are for these two alone. EnSC
needs the authors' solver: `pip install -e .[bench]`.
"""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csgraph, csr_array, identity, vstack
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize
from torch import nn

from experiments.digits.scores import mean_and_spread
from gsae_book.data.features import PixelFeatures, ScatteringFeatures, scattering_coefficients
from gsae_book.data.images import Images, load_images
from gsae_book.runs.processes import in_fresh_process, peak_mib
from gsae_lib._checks import check_choice
from gsae_lib.clustering import spectral_clusters
from gsae_lib.estimators import GroupSparseClustering
from gsae_lib.groups import normalized_group_norms
from gsae_lib.learning import k_subspaces
from gsae_lib.metrics import clustering_scores

CLUSTERS, SEEDS = 10, 10
DATASETS = {"mnist": "test", "mnist-5k": "all", "fashion-mnist": "test"}
COMPONENTS = 15  # eigenvectors of the spectral methods that take more of them than clusters


class MapNormalised:
    """The features that the authors of EnSC and SSC-OMP published their code with.

    Scattering of the images at 32 x 32 pixels, each map divided by its largest entry, on the 500 leading directions,
    neither centred nor scaled to unit length.
    """

    def fit_transform(self, images: Images) -> np.ndarray:
        """The features, (samples, 500)."""
        resized = nn.functional.interpolate(images.images.unsqueeze(1), (32, 32), mode="bilinear", antialias=True)
        maps = scattering_coefficients(resized.squeeze(1)).unflatten(1, (217, -1))
        rows = (maps / maps.abs().amax(dim=2, keepdim=True)).flatten(1).double()
        return (rows @ torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -500:]).float().numpy()


KINDS = {
    "root scattering": partial(ScatteringFeatures, root=True),
    "pixels": PixelFeatures,
    "map-normalised scattering": MapNormalised,
}

# Added to each variance, as a share of the mean variance of a feature: of 0.01, 0.03, 0.1, 0.3 and 1 the likeliest on
# 400 held-out digits (pixels, 1,600 fitted).
MIXTURE_FLOOR = 0.1
# SSC-OMP and EnSC: settings, solver (SPAMS) and features of the authors' code for MNIST, `run_mnist.py` in
# github.com/ChongYou/subspace-clustering. KEPT is its default.
NONZEROS = 5
TAU, GAMMA, KEPT, CANDIDATES = 0.9, 200.0, 50, 100
ROUNDS = 100  # of candidates, at most
OPTIMALITY = 1e-8  # of an elastic-net code, as a share of tau
CHECKED = 200  # samples on which it is checked again


def k_means(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """k-means, the best of ten starts by inertia."""
    return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(data)


def gaussian_mixture(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Gaussian mixture with full covariances, started from k-means, each variance raised by MIXTURE_FLOOR."""
    floor = MIXTURE_FLOOR * data.var(axis=0).mean()
    return GaussianMixture(n_clusters, reg_covar=floor, random_state=seed).fit_predict(data)


def spectral(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Spectral clustering on the graph of 10 nearest neighbours."""
    return spectral_clusters(torch.from_numpy(data), n_clusters, 10, random_state=seed)


def spectral_more(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The same with COMPONENTS eigenvectors."""
    return spectral_clusters(torch.from_numpy(data), n_clusters, 10, random_state=seed, n_components=COMPONENTS)


def subspaces(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """k-subspaces of dimension 16, the best of ten starts by its objective."""
    rng = torch.Generator().manual_seed(seed)
    return k_subspaces(torch.from_numpy(data), n_clusters, 16, n_init=10, generator=rng).labels.numpy()


def self_expressive(
    data: np.ndarray, n_clusters: int, seed: int, code: Callable[..., np.ndarray], neighbors: int | None = None
) -> np.ndarray:
    """Spectral clustering of codes (samples,), rows of C, of each sample in the others, as the authors' code does it.

    The rows of C get unit length. The graph is (|C| + |C|^T) / 2, or that of the `neighbors` nearest rows. Then the
    leading eigenvectors of the normalised graph, their rows scaled to unit length, and k-means, the best of 20 starts.
    """
    data = data.astype(np.float64)
    gram = data @ data.T
    codes = normalize(vstack([csr_array(code(data, gram, i)[None]) for i in range(len(data))], format="csr"))
    graph = kneighbors_graph(codes, neighbors) if neighbors else abs(codes)
    laplacian = csgraph.laplacian(graph + graph.T, normed=True)
    start = np.random.default_rng(seed).standard_normal(len(data))
    vectors = eigsh(identity(len(data)) - laplacian, n_clusters, which="LA", v0=start)[1]
    return KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(normalize(vectors))


def pursuit_code(data: np.ndarray, gram: np.ndarray, i: int) -> np.ndarray:
    """Orthogonal matching pursuit of sample i in the others, NONZEROS steps.

    Source: You, Robinson, Vidal, Scalable sparse subspace clustering by orthogonal matching pursuit, 2016.
    """
    chosen, correlations = [], gram[i]
    for _ in range(NONZEROS):
        strength = abs(correlations)
        strength[[i, *chosen]] = 0
        chosen.append(strength.argmax())
        values = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], gram[i, chosen])[0]
        correlations = gram[i] - values @ gram[chosen]
    code = np.zeros(len(gram))
    code[chosen] = values
    return code


def elastic_net_code(data: np.ndarray, gram: np.ndarray, i: int) -> np.ndarray:
    """The KEPT largest entries of `elastic_net`."""
    code = elastic_net(data, gram, i)
    code[np.argsort(abs(code))[:-KEPT]] = 0
    return code


def elastic_net(data: np.ndarray, gram: np.ndarray, i: int) -> np.ndarray:
    r"""Elastic-net code of sample i in the others; gram: inner products of the samples.

    .. math:: \min_c \tau \|c\|_1 + \tfrac{1-\tau}2 \|c\|^2 + \tfrac\gamma2 \|y_i - c Y\|^2, \qquad c_i = 0

    tau is TAU, gamma GAMMA times the smallest at which c is not zero. LARS solves it on CANDIDATES samples; those that
    violate the optimality of the whole problem by more than OPTIMALITY, the worst first, then take the place of those
    that are not used, until there are none.
    Source: You, Li, Robinson, Vidal, Oracle based active set algorithm for elastic net subspace clustering, 2016.
    """
    import spams

    correlations = gram[i].copy()
    correlations[i] = 0
    scale = abs(correlations).max() / (TAU * GAMMA)  # 1 / gamma
    settings = {"lambda1": TAU * scale, "lambda2": (1 - TAU) * scale, "numThreads": 1}
    sample, chosen = np.asfortranarray(data[i, :, None]), np.argpartition(-abs(correlations), CANDIDATES)[:CANDIDATES]
    for _ in range(ROUNDS):
        values = spams.lasso(sample, D=np.asfortranarray(data[chosen].T), **settings).toarray()[:, 0]
        used, values = chosen[values != 0], values[values != 0]
        excess = abs(correlations - values @ gram[used]) / (TAU * scale) - 1
        excess[chosen] = excess[i] = 0
        missing = np.argsort(-excess)[:CANDIDATES]
        missing = missing[excess[missing] > OPTIMALITY]
        if not len(missing):
            code = np.zeros(len(data))
            code[used] = values
            return code
        chosen = np.concatenate([used, missing])
    raise RuntimeError(f"sample {i}: not optimal after {ROUNDS} rounds")


def violation(data: np.ndarray) -> float:
    r"""The largest violation of the optimality of `elastic_net` in CHECKED samples, over all others, as a share of tau.

    .. math:: \gamma Y (y_i - c Y) - (1 - \tau) c \in \tau \, \partial \|c\|_1
    """
    data, found = data.astype(np.float64), []
    gram = data @ data.T
    for i in np.random.default_rng(0).choice(len(data), min(CHECKED, len(data)), replace=False):
        code, others = elastic_net(data, gram, i), np.arange(len(data)) != i
        gamma = GAMMA * TAU / abs(data[others] @ data[i]).max()
        slope = gamma * data @ (data[i] - code @ data) - (1 - TAU) * code
        excess = np.where(code != 0, abs(slope - TAU * np.sign(code)), abs(slope) - TAU)
        found.append(excess[others].max() / TAU)
    return float(max(found))


def autoencoder(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """k-means on the 10-dimensional bottleneck of an n-500-500-2000-10 autoencoder: Adam, 50 epochs, no labels."""
    torch.manual_seed(seed)
    sizes = (data.shape[1], 500, 500, 2000, 10)
    encoder, decoder = perceptron(*sizes), perceptron(*reversed(sizes))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    samples = torch.from_numpy(data)
    for _ in range(50):
        for batch in samples[torch.randperm(len(samples))].split(256):
            optimizer.zero_grad()
            nn.functional.mse_loss(decoder(encoder(batch)), batch).backward()
            optimizer.step()
    with torch.inference_mode():
        return k_means(encoder(samples).numpy(), n_clusters, seed)


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them."""
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def group_norms(
    data: np.ndarray, n_clusters: int, seed: int, assign: str, n_groups: int = 100, alpha: float = 0.05, epochs: int = 0
) -> np.ndarray:
    """The project's estimator: clusters of the normalised group norms of codes on groups of four."""
    settings = {"n_groups": n_groups, "group_size": 4, "alpha": alpha, "assign": assign, "n_components": COMPONENTS}
    return GroupSparseClustering(n_clusters, **settings, max_iter=epochs, random_state=seed).fit(data).labels_


def ridge_norms(
    data: np.ndarray, n_clusters: int, seed: int, n_groups: int = 100, weight_decay: float = 1.0
) -> np.ndarray:
    """The same without sparsity: group norms of (W^T W + mu I)^{-1} W^T y, W from k-subspaces, groups of 4."""
    rng, samples = torch.Generator().manual_seed(seed), torch.from_numpy(data)
    dictionary = k_subspaces(samples, n_groups, 4, generator=rng).dictionary
    gram = dictionary.T @ dictionary + weight_decay * torch.eye(dictionary.shape[1])
    codes = torch.linalg.solve(gram, (samples @ dictionary).T).T
    return spectral_more(normalized_group_norms(codes, 4).numpy(), n_clusters, seed)


METHODS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "k-means": k_means,
    "Gaussian mixture": gaussian_mixture,
    "spectral": spectral,
    "spectral, 15 eigenvectors": spectral_more,
    "k-subspaces": subspaces,
    "SSC-OMP": partial(self_expressive, code=pursuit_code),
    "EnSC": partial(self_expressive, code=elastic_net_code, neighbors=3),
    "autoencoder + k-means": autoencoder,
    "group norms + k-means": partial(group_norms, assign="kmeans"),
    "group norms + spectral": partial(group_norms, assign="spectral"),
    "group norms, ten epochs + spectral": partial(group_norms, assign="spectral", epochs=10),
    "norms of 200 groups + spectral": partial(group_norms, assign="spectral", n_groups=200, alpha=0.1),
    "ridge norms + spectral": ridge_norms,
    "ridge norms of 200 groups + spectral": partial(ridge_norms, n_groups=200, weight_decay=10.0),
}
ONE_SEED = ("SSC-OMP", "EnSC")
SETTINGS = dict.fromkeys(METHODS, "ours") | dict.fromkeys(ONE_SEED, "authors'") | {"k-means": "library's"}


def measure_baseline(
    dataset: Literal["mnist", "mnist-5k", "fashion-mnist"], features: str, method: str, *, seed: int
) -> dict[str, Any]:
    """One of METHODS on features of one of KINDS, in a fresh process: scores, seconds, memory, and whose settings.

    Raises:
        ValueError: unknown features, or an unknown method. FileNotFoundError: the data set is not in the cache.
    """
    check_choice("features", features, tuple(KINDS))
    check_choice("method", method, tuple(METHODS))
    return in_fresh_process(_measure, method, Path(_kept_features(dataset, features).name), seed)


@cache
def _kept_features(dataset: str, kind: str) -> Any:
    """A temporary file of features (N, n) and labels (N,), in random order, made in a process of its own."""
    file = tempfile.NamedTemporaryFile(suffix=".npz")
    in_fresh_process(_write_features, dataset, kind, Path(file.name))
    return file


def _write_features(dataset: str, kind: str, path: Path) -> None:
    images = load_images(dataset, DATASETS[dataset])
    images = images.subset(len(images.labels), generator=torch.Generator().manual_seed(0))
    np.savez(path, features=KINDS[kind]().fit_transform(images), labels=images.labels.numpy())


def _measure(method: str, path: Path, seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with np.load(path) as file:
        data, labels = file["features"], file["labels"]
    before, start = peak_mib(), time.process_time()
    clusters = METHODS[method](data, CLUSTERS, seed)
    seconds, peak = time.process_time() - start, peak_mib()
    row = {"samples": len(data)} | dataclasses.asdict(clustering_scores(labels, clusters))
    row |= {"seconds": seconds, "peak_mib": peak, "peak_mib_above_features": peak - before}
    row |= {"settings": SETTINGS[method]}
    return row | ({"violation": violation(data)} if method == "EnSC" else {})


def plan() -> list[dict[str, Any]]:
    """Every run: methods whose codes have no random part once, and they alone on the map-normalised features."""
    runs = [
        {"dataset": dataset, "features": kind, "method": method, "seed": seed}
        for dataset, kind, seed, method in itertools.product(DATASETS, KINDS, range(SEEDS), METHODS)
        if (not seed if method in ONE_SEED else kind != "map-normalised scattering")
    ]
    return [run for run in runs if (run["features"], run["method"]) != ("pixels", "EnSC")]  # its authors use none


def summary(rows: pd.DataFrame, machines: Mapping[str, str]) -> pd.DataFrame:
    """By features and method: scores, cost, number of runs, whose settings, and the short name of the processor."""
    groups = rows.groupby(["features", "method"], sort=False)
    columns = {
        "accuracy": mean_and_spread(groups["accuracy"]),
        "worst": groups["accuracy"].min().round(3),
        "nmi": groups["nmi"].mean().round(3),
        "seconds": groups["seconds"].mean().round(1),
        "MiB": groups["peak_mib_above_features"].mean().round().astype(int),
        "runs": groups["seed"].count(),
        "settings": groups["settings"].first(),
        "machine": groups["point.processor"].first().map(machines),
    }
    return pd.DataFrame(columns).sort_index(level=0, sort_remaining=False, kind="stable", ascending=False)
