"""Training and the estimators on a file that need not fit in memory: seconds and the memory that they hold.

The file has 512 features of float32, samples on ten random subspaces of four dimensions with noise at 10 dB. It is
written in pieces into FOLDER and removed at the end. Each row is of a fresh process on one thread that reads the file
as a numpy memory map. `anonymous_mib` is the peak of its anonymous memory (RssAnon), which leaves out the pages of
files that the system keeps while it has room; `above_start_mib` is what it grew by since the file was opened,
`result_mib` what of that is the answer: norms and labels. Linux only.
"""

import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import timing
import torch

from gsae_book.processes import in_fresh_process
from gsae_book.recording import write_rows
from gsae_lib import (
    GroupSparseAutoencoder,
    GroupSparseClustering,
    GroupSparseDictionaryLearning,
    GroupSparseSource,
    TrainingSettings,
    train,
)
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.tables import fit_scaling, open_table

PATH = timing.RESULTS / "out_of_memory.json"
FEATURES, CLUSTERS, DIMENSION, SNR_DB, PIECE = 512, 10, 4, 10.0, 10_000
OURS = {"n_groups": 12, "group_size": 4, "alpha": 0.5, "max_iter": 1, "n_iterations": 1, "random_state": 0}


def write_samples(path: Path, gib: float) -> None:
    """A file of so many GiB, written in pieces."""
    count = int(gib * 2**30 / (4 * FEATURES * PIECE)) * PIECE
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(FEATURES, CLUSTERS, DIMENSION, generator=rng)
    source = GroupSparseSource.union_of_subspaces(dictionary, DIMENSION, snr_db=SNR_DB)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (count, FEATURES))
    for start in range(0, count, PIECE):
        table[start : start + PIECE] = source.sample(PIECE, generator=rng).data
    table.flush()


def run_train(X: np.ndarray) -> list[np.ndarray]:
    """One epoch of the network, in batches of 256."""
    rng = torch.Generator().manual_seed(0)
    model = GroupSparseAutoencoder(FEATURES, 12, 4, 0.5, generator=rng)
    train(model, X, TrainingSettings(epochs=1, batch_size=256, progress=False), generator=rng)
    return []


def run_learning(X: np.ndarray) -> list[np.ndarray]:
    """fit, score and transform, to norms."""
    model = GroupSparseDictionaryLearning(**OURS, output="norms").fit(X)
    model.score(X)
    return [model.transform(X)]


def run_clustering(X: np.ndarray) -> list[np.ndarray]:
    """fit and predict."""
    model = GroupSparseClustering(CLUSTERS, **OURS).fit(X)
    return [model.labels_, model.predict(X)]


def run_scaling(X: np.ndarray) -> list[np.ndarray]:
    """The scaling of chapter 12, whose result is another file."""
    fit_scaling(X, "unit norm")(X)
    return []


TASKS: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "train": run_train,
    "GroupSparseDictionaryLearning: fit, score, transform": run_learning,
    "GroupSparseClustering: fit, predict": run_clustering,
    "fit_scaling and its result": run_scaling,
}


def anonymous_mib() -> float:
    """Anonymous memory of this process now, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(name: str, path: Path) -> dict[str, object]:
    """Run a task on the file, in this process, and watch its memory."""
    torch.set_num_threads(1)
    tempfile.tempdir = str(path.parent)  # for the file of the scaled samples
    X = open_table(path)
    before, peak, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    clock, start = time.perf_counter(), time.process_time()
    results = TASKS[name](X)
    row = {"task": name, "file_gib": X.nbytes / 2**30, "samples": len(X)}
    row |= {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - start}
    done.set()
    watcher.join()
    row |= {"anonymous_mib": peak[0], "above_start_mib": peak[0] - before}
    return row | {"result_mib": sum(result.nbytes for result in results) / 2**20}


@click.command()
@click.option("--gib", default=20.0, help="Length of the file; twice that is needed.", show_default=True)
@click.option("--folder", type=Path, default=Path("_build"), help="Where it is written.", show_default=True)
@click.option("--quick", is_flag=True, help="A file of 0.2 GiB, and the rows printed and not written.")
def main(gib: float, folder: Path, quick: bool) -> None:
    """Write the file, run every task on it, write the rows after each, and remove the file."""
    folder.mkdir(parents=True, exist_ok=True)
    gib = 0.2 if quick else gib
    if shutil.disk_usage(folder).free < 2.1 * gib * 2**30:
        raise click.ClickException(f"--gib {gib:g}: {folder} has less than twice that free")
    path, rows = folder / f"out_of_memory_{gib:g}.npy", []
    try:
        write_samples(path, gib)
        for name in TASKS:
            rows.append(in_fresh_process(functools.partial(measure, name, path)))
            print(*(f"{x:.4g}" if isinstance(x, float) else x for x in rows[-1].values()), flush=True)
            if not quick:
                write_rows(PATH, "rows", rows)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
