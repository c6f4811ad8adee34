"""Estimators on 10,000 to 1,000,000 samples of 64 features: seconds and peak memory, beside scikit-learn's.

Samples lie on ten random subspaces of four dimensions, with noise at 10 dB, float32, and are made outside what is
measured. Each run is a fresh process on one thread. `fit_seconds` and `apply_seconds` (predict, or transform) are of
processor time; `peak_mib` is the process's peak memory, data included, `peak_mib_above_data` what it grew by since they
were there. The dictionaries have 400 atoms and see every sample once, in batches of 256. `accuracy` is of the clusters
that were fitted, `agreement` the adjusted Rand index of these with what `predict` says of the same samples;
scikit-learn's k-means is there for its cost, since centres cannot tell subspaces apart; its dictionary learning, of
which no groups are asked, is left out at the largest size, where it would take half an hour.
"""

import functools
import time
import warnings
from collections.abc import Callable

import click
import numpy as np
import timing
import torch
from sklearn.base import BaseEstimator
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from gsae_book.runs.processes import in_fresh_process, peak_mib
from gsae_book.runs.recording import write_rows
from gsae_lib import GroupSparseClustering, GroupSparseDictionaryLearning, GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.metrics import clustering_scores

PATH = timing.RESULTS / "large_data.json"
SIZES = (10_000, 100_000, 1_000_000)
FEATURES, CLUSTERS, DIMENSION, SNR_DB = 64, 10, 4, 10.0
OURS = {"n_groups": 100, "group_size": 4, "alpha": 0.5, "random_state": 0}
METHODS: dict[str, Callable[[], BaseEstimator]] = {
    "GroupSparseClustering": lambda: GroupSparseClustering(CLUSTERS, **OURS),
    "GroupSparseClustering, spectral": lambda: GroupSparseClustering(
        CLUSTERS, assign="spectral", n_components=15, **OURS
    ),
    "GroupSparseClustering, one epoch": lambda: GroupSparseClustering(CLUSTERS, max_iter=1, **OURS),
    "MiniBatchKMeans": lambda: MiniBatchKMeans(CLUSTERS, n_init=10, random_state=0),
    "GroupSparseDictionaryLearning": lambda: GroupSparseDictionaryLearning(max_iter=1, **OURS),
    "MiniBatchDictionaryLearning": lambda: MiniBatchDictionaryLearning(
        400, alpha=0.5, max_iter=1, batch_size=256, fit_algorithm="cd", tol=0, max_no_improvement=None, random_state=0
    ),
}


def samples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples (count, 64) and the subspace of each."""
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(FEATURES, CLUSTERS, DIMENSION, generator=rng)
    source = GroupSparseSource.union_of_subspaces(dictionary, DIMENSION, snr_db=SNR_DB)
    blocks = [source.sample(10_000, generator=rng) for _ in range(count // 10_000)]
    data = torch.cat([block.data for block in blocks]).float().numpy()
    return data, torch.cat([block.support.int().argmax(dim=1) for block in blocks]).numpy()


def measure(name: str, count: int) -> dict[str, object]:
    """Fit a method and apply it to the same samples, in this process."""
    torch.set_num_threads(1)
    data, labels = samples(count)
    before, model = peak_mib(), METHODS[name]()
    seconds = [time.process_time()]
    with warnings.catch_warnings():  # scikit-learn's lasso, in float32, stops just short of its own tolerance
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(data)
    seconds.append(time.process_time())
    found = model.predict(data) if hasattr(model, "predict") else len(model.transform(data))
    seconds.append(time.process_time())
    row = {"method": name, "samples": count, "fit_seconds": seconds[1] - seconds[0]}
    row |= {"apply_seconds": seconds[2] - seconds[1], "peak_mib": peak_mib()}
    row |= {"peak_mib_above_data": row["peak_mib"] - before}
    if hasattr(model, "predict"):
        row |= {"accuracy": clustering_scores(labels, model.labels_).accuracy}
        row |= {"agreement": adjusted_rand_score(model.labels_, found)}
    return row


@click.command()
@click.option("--quick", is_flag=True, help="The smallest size only, printed and not written.")
def main(quick: bool) -> None:
    """Measure every method at every size and write the rows after each."""
    rows = []
    for count in SIZES[:1] if quick else SIZES:
        for name in METHODS:
            if name == "MiniBatchDictionaryLearning" and count > SIZES[1]:
                continue
            rows.append(in_fresh_process(functools.partial(measure, name, count)))
            print(*(f"{x:.4g}" if isinstance(x, float) else x for x in rows[-1].values()), flush=True)
            if not quick:
                write_rows(PATH, "rows", rows)


if __name__ == "__main__":
    main()
