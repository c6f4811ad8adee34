"""Clustering methods on the same features: accuracy, seconds and peak memory, each run in a fresh process, one thread.

The features are made once for each data set, in a process of their own and outside what is measured. Every method
takes (features (N, n) float32 of unit norm, clusters to find, seed) and no labels; settings are the same everywhere.
Rows go to results/benchmarks/clustering_rivals.json after each run, and runs already there are not repeated. `seconds`
are of processor time, which other work on the machine changes little; with one thread they are the wall time when idle.
`peak_mib` is the process's ru_maxrss, `peak_mib_above_features` what it grew by since the features were loaded.
SSC-OMP and elastic-net SSC, the slowest, run once: their codes have no random part, and the seed only starts the
eigenvalue solver, as in plain spectral clustering, which ten seeds moved by less than 0.001. The map-normalised
features are for these two alone.
"""

import dataclasses
import itertools
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import timing
import torch
from scipy.sparse import csc_array
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path, orthogonal_mp
from sklearn.mixture import GaussianMixture
from torch import nn

from gsae_lib import Images, PixelFeatures, ScatteringFeatures, load_images
from gsae_lib.clustering import spectral_clusters
from gsae_lib.dictionary import k_subspaces
from gsae_lib.estimators import GroupSparseClustering
from gsae_lib.features import scattering_coefficients
from gsae_lib.groups import normalized_group_norms
from gsae_lib.metrics import clustering_scores
from gsae_lib.runs.recording import write_rows

PATH = timing.RESULTS / "clustering_rivals.json"
CLUSTERS, SEEDS, QUICK_SAMPLES = 10, 10, 1000
DATASETS = {"mnist": "test", "mnist-5k": "all", "fashion-mnist": "test"}
COMPONENTS = 15  # eigenvectors of the spectral methods that take more of them than clusters


class MapNormalised:
    """Scattering with each map of an image at unit length, on 500 directions that are not centred, at unit norm.

    SSC was published on features like these; on centred ones it fails.
    """

    def fit_transform(self, images: Images) -> torch.Tensor:
        """The features, (samples, 500)."""
        maps = scattering_coefficients(images).unflatten(1, (217, -1))
        rows = nn.functional.normalize(maps, dim=2).flatten(1)
        directions = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -500:]
        return nn.functional.normalize(rows @ directions, dim=1)


KINDS = {
    "root scattering": partial(ScatteringFeatures, root=True),
    "pixels": PixelFeatures,
    "map-normalised scattering": MapNormalised,
}

# Added to each variance, as a share of the mean variance of a feature: of 0.01, 0.03, 0.1, 0.3 and 1 the likeliest on
# 400 held-out digits (pixels, 1,600 fitted).
MIXTURE_FLOOR = 0.1
NONZEROS = 10  # of an SSC-OMP code
L1_SHARE, GAMMA_RATIO, CANDIDATES = 0.95, 3.0, 500  # of elastic-net SSC
CHECKED = 50  # samples on which the restriction to candidates is checked


def features(dataset: str, kind: str, path: Path, limit: int | None = None) -> None:
    """Write features (N, n) and labels (N,) to `path`, in random order; `limit` keeps the first so many."""
    images = load_images(dataset, DATASETS[dataset])
    images = images.subset(limit or len(images.labels), generator=torch.Generator().manual_seed(0))
    np.savez(path, features=KINDS[kind]().fit_transform(images).numpy(), labels=images.labels.numpy())


def k_means(data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means, the best of ten starts by inertia."""
    return KMeans(count, n_init=10, random_state=seed).fit_predict(data)


def gaussian_mixture(data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Gaussian mixture with full covariances, started from k-means, each variance raised by MIXTURE_FLOOR."""
    floor = MIXTURE_FLOOR * data.var(axis=0).mean()
    return GaussianMixture(count, reg_covar=floor, random_state=seed).fit_predict(data)


def spectral(data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Spectral clustering on the graph of 10 nearest neighbours."""
    return spectral_clusters(torch.from_numpy(data), count, 10, seed=seed)


def spectral_more(data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The same with COMPONENTS eigenvectors."""
    return spectral_clusters(torch.from_numpy(data), count, 10, seed=seed, num_components=COMPONENTS)


def subspaces(data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-subspaces of dimension 16, the best of ten starts by its objective."""
    rng = torch.Generator().manual_seed(seed)
    return k_subspaces(torch.from_numpy(data), count, 16, restarts=10, generator=rng).labels.numpy()


def self_expressive(
    data: np.ndarray, count: int, seed: int, code: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Spectral clustering on |C| + |C|^T, the columns of C, codes of each sample in the others, scaled to max 1."""
    codes = [code(data, i) for i in range(len(data))]
    values = np.concatenate([abs(value) / max(abs(value).max(initial=0), 1e-12) for _, value in codes])
    index = np.concatenate([index for index, _ in codes]).astype(np.int32)  # spectral clustering takes no int64
    starts = np.cumsum([0] + [len(value) for _, value in codes], dtype=np.int32)
    matrix = csc_array((values, index, starts), shape=(len(data), len(data)))
    model = SpectralClustering(count, affinity="precomputed", assign_labels="cluster_qr", random_state=seed)
    with warnings.catch_warnings():  # a graph in several parts is an answer, not a failure
        warnings.filterwarnings("ignore", message="Graph is not fully connected", category=UserWarning)
        return model.fit_predict((matrix + matrix.T).tocsr())


def pursuit_code(data: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal matching pursuit of sample i in the others: (indices, values) of NONZEROS entries, up to scale.

    Source: You, Robinson, Vidal, Scalable sparse subspace clustering by orthogonal matching pursuit, 2016.
    """
    sample = data[i].copy()
    data[i] = 0  # a zero column is never chosen
    with warnings.catch_warnings():  # an exact fit stops early
        warnings.simplefilter("ignore", RuntimeWarning)
        # The factor scales the code alone, and keeps clear of a float32 threshold that would end some pursuits early.
        code = orthogonal_mp(data.T, 1e3 * sample, n_nonzero_coefs=NONZEROS)
    data[i] = sample
    index = np.flatnonzero(code)
    return index, code[index]


def elastic_net_code(data: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Elastic-net code of sample i in the others: (indices, values) of the entries that are not zero.

    .. math:: \min_c \lambda \|c\|_1 + \tfrac{1-\lambda}2 \|c\|^2 + \tfrac\gamma2 \|y_i - Y c\|^2, \qquad c_i = 0

    lambda is L1_SHARE, gamma GAMMA_RATIO times the smallest at which c is not zero. For speed only the CANDIDATES
    samples of largest |y_i^T y_j| take part; `violations` says how often that changes the solution. GAMMA_RATIO is 3
    because there it changes none: on the pixels of 2,000 digits it changes 0, 92, 100 and 100 % of the codes at 3, 10,
    50 and 120 (with accuracies of 0.55, 0.42, 0.52 and 0.57).
    Source: You, Li, Robinson, Vidal, Oracle based active set algorithm for elastic net subspace clustering, 2016.
    """
    correlations = data @ data[i]
    chosen = candidates(correlations, i)
    atoms = data[chosen]
    penalty = abs(correlations[chosen]).max() / (L1_SHARE * GAMMA_RATIO * data.shape[1])  # 1 / (gamma n)
    settings = {"l1_ratio": L1_SHARE, "alphas": [penalty], "tol": 1e-3, "check_input": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = enet_path(atoms.T, data[i], precompute=atoms @ atoms.T, Xy=correlations[chosen], **settings)
    code = path[1][:, 0]
    index = np.flatnonzero(code)
    return chosen[index], code[index]


def candidates(correlations: np.ndarray, i: int) -> np.ndarray:
    """The CANDIDATES samples other than i of largest absolute correlation with it."""
    strength = abs(correlations)
    strength[i] = -1
    count = min(CANDIDATES, len(strength) - 1)
    return np.argpartition(-strength, count)[:count]


def violations(data: np.ndarray) -> dict[str, float]:
    """How often the candidates of `elastic_net_code` leave out a sample that the solution over all would use.

    violated_samples: share of CHECKED samples with gamma |y_j^T r| > lambda, by 1 %, for some j that was no candidate,
    r the residual; worst_ratio: the largest gamma |y_j^T r| / lambda of such a j.
    """
    ratios = []
    for i in np.random.default_rng(0).choice(len(data), min(CHECKED, len(data)), replace=False):
        correlations = data @ data[i]
        chosen = candidates(correlations, i)
        index, value = elastic_net_code(data, i)
        ratio = GAMMA_RATIO * abs(data @ (data[i] - value @ data[index])) / abs(correlations[chosen]).max()
        ratio[chosen] = ratio[i] = 0
        ratios.append(ratio.max())
    return {"violated_samples": float(np.mean(np.array(ratios) > 1.01)), "worst_ratio": float(max(ratios))}


def autoencoder(data: np.ndarray, count: int, seed: int) -> np.ndarray:
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
        return k_means(encoder(samples).numpy(), count, seed)


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them."""
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def group_norms(
    data: np.ndarray, count: int, seed: int, assign: str, groups: int = 100, alpha: float = 0.05, epochs: int = 0
) -> np.ndarray:
    """The project's estimator: clusters of the normalised group norms of codes on groups of four."""
    settings = {"n_groups": groups, "group_size": 4, "alpha": alpha, "assign": assign, "n_components": COMPONENTS}
    return GroupSparseClustering(count, **settings, max_iter=epochs, random_state=seed).fit(data).labels_


def ridge_norms(data: np.ndarray, count: int, seed: int, groups: int = 100, weight_decay: float = 1.0) -> np.ndarray:
    """The same without sparsity: group norms of (W^T W + mu I)^{-1} W^T y, W from k-subspaces, groups of 4."""
    rng, samples = torch.Generator().manual_seed(seed), torch.from_numpy(data)
    weight = k_subspaces(samples, groups, 4, generator=rng).dictionary
    gram = weight.T @ weight + weight_decay * torch.eye(weight.shape[1])
    codes = torch.linalg.solve(gram, (samples @ weight).T).T
    return spectral_more(normalized_group_norms(codes, 4).numpy(), count, seed)


METHODS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "k-means": k_means,
    "Gaussian mixture": gaussian_mixture,
    "spectral": spectral,
    "spectral, 15 eigenvectors": spectral_more,
    "k-subspaces": subspaces,
    "SSC-OMP": partial(self_expressive, code=pursuit_code),
    "elastic-net SSC": partial(self_expressive, code=elastic_net_code),
    "autoencoder + k-means": autoencoder,
    "group norms + k-means": partial(group_norms, assign="kmeans"),
    "group norms + spectral": partial(group_norms, assign="spectral"),
    "group norms, ten epochs + spectral": partial(group_norms, assign="spectral", epochs=10),
    "norms of 200 groups + spectral": partial(group_norms, assign="spectral", groups=200, alpha=0.1),
    "ridge norms + spectral": ridge_norms,
    "ridge norms of 200 groups + spectral": partial(ridge_norms, groups=200, weight_decay=10.0),
}
ONE_SEED = ("SSC-OMP", "elastic-net SSC")


def measure(method: str, path: Path, seed: int) -> dict[str, float]:
    """Run a method on the features at `path` in this process."""
    torch.set_num_threads(1)
    with np.load(path) as file:
        data, labels = file["features"], file["labels"]
    before, start = timing.peak_mib(), time.process_time()
    clusters = METHODS[method](data, CLUSTERS, seed)
    seconds, peak = time.process_time() - start, timing.peak_mib()
    row = {"samples": len(data)} | dataclasses.asdict(clustering_scores(labels, clusters))
    row |= {"seconds": seconds, "peak_mib": peak, "peak_mib_above_features": peak - before}
    return row | (violations(data) if method == "elastic-net SSC" else {})


def plan(dataset: str | None, kind: str | None, methods: tuple[str, ...], seeds: int) -> dict[tuple[str, str], list]:
    """The runs (method, seed) of each (data set, features), seeds outermost."""
    pairs = [(d, k) for d in DATASETS for k in KINDS if dataset in (None, d) and kind in (None, k)]
    names = [name for name in METHODS if name in (methods or METHODS)]
    runs = [(name, seed) for seed in range(seeds) for name in names if not (seed and name in ONE_SEED)]
    return {
        (images, space): [run for run in runs if space != "map-normalised scattering" or run[0] in ONE_SEED]
        for images, space in pairs
    }


@click.command()
@click.option("--dataset", type=click.Choice(list(DATASETS)), help="By default all.")
@click.option("--features", "kind", type=click.Choice(list(KINDS)), help="By default all.")
@click.option("--method", "methods", type=click.Choice(list(METHODS)), multiple=True, help="By default all.")
@click.option("--seeds", default=SEEDS, show_default=True, help="Runs 0, 1, ... of the methods that depend on it.")
@click.option("--quick", is_flag=True, help=f"One seed on {QUICK_SAMPLES} samples, printed and not written.")
def main(dataset: str | None, kind: str | None, methods: tuple[str, ...], seeds: int, quick: bool) -> None:
    """Measure every run that is missing and write the rows after each."""
    rows = json.loads(PATH.read_text())["rows"] if PATH.is_file() and not quick else []
    for (images, space), runs in plan(dataset, kind, methods, 1 if quick else seeds).items():
        tagged = [{"dataset": images, "features": space, "method": name, "seed": seed} for name, seed in runs]
        missing = [tags for tags in tagged if not any(tags.items() <= row.items() for row in rows)]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features.npz"
            try:
                timing.fresh(features, images, space, path, QUICK_SAMPLES if quick else None)
            except FileNotFoundError as error:
                print(f"{images} is left out: {error}", flush=True)
                continue
            for tags in missing:
                rows.append(tags | timing.fresh(measure, tags["method"], path, tags["seed"]))
                print(*(f"{x:.4g}" if isinstance(x, float) else x for x in rows[-1].values()), flush=True)
                if not quick:
                    write_rows(PATH, "rows", rows)


if __name__ == "__main__":
    main()
