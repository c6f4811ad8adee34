"""Training and the estimators on a file that need not fit in memory: seconds and the memory that they hold.

The file has 512 features of float32, samples on ten random subspaces of four dimensions with noise at 10 dB. It is
written in pieces into FOLDER and removed at the end. Each row is of a fresh process on one thread that reads the file
as a numpy memory map. `anonymous_mib` is the peak of its anonymous memory (RssAnon), which leaves out the pages of
files that the system keeps while it has room; `above_start_mib` is what it grew by since the file was opened,
`result_mib` what of that is the answer: norms and labels. Linux only.

With --states alone, and last of all: one epoch of an SAE on two million states of 576 features in float16.
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

from gsae_book.data.tables import open_table
from gsae_book.runs.processes import in_fresh_process
from gsae_book.runs.recording import write_rows
from gsae_lib import (
    GroupSparseAutoencoder,
    GroupSparseClustering,
    GroupSparseDictionaryLearning,
    GroupSparseSource,
    TrainingSettings,
    train,
)
from gsae_lib.estimators.scaling import fit_scaling
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.sae import BatchTopKSAE, score_sae

PATH = timing.RESULTS / "out_of_memory.json"
STATES_PATH = timing.RESULTS / "out_of_memory_states.json"
FEATURES, CLUSTERS, DIMENSION, SNR_DB, PIECE = 512, 10, 4, 10.0, 10_000
STATES, STATE_FEATURES = 2_000_000, 576
OURS = {"n_groups": 12, "group_size": 4, "alpha": 0.5, "max_iter": 1, "n_iterations": 1, "random_state": 0}


def write_samples(path: Path, count: int, n_features: int, dtype: type[np.floating]) -> None:
    """A file of so many samples, written in pieces."""
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(n_features, CLUSTERS, DIMENSION, generator=rng)
    source = GroupSparseSource.union_of_subspaces(dictionary, DIMENSION, snr_db=SNR_DB)
    table = np.lib.format.open_memmap(path, "w+", dtype, (count, n_features))
    for start in range(0, count, PIECE):
        table[start : start + PIECE] = source.sample(min(PIECE, count - start), generator=rng).data
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


def run_sae(X: np.ndarray) -> list[np.ndarray]:
    """prepare, one epoch in batches of 4,096, calibrate, and the score of a twentieth."""
    rng = torch.Generator().manual_seed(0)
    model = BatchTopKSAE(X.shape[1], X.shape[1] // 2, 4, n_active=8, generator=rng)
    model.prepare(X)
    train(model, X, TrainingSettings(epochs=1, batch_size=4096, progress=False), generator=rng)
    model.calibrate(X)
    score_sae(model, X[-len(X) // 20 :])
    return []


TASKS: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "train": run_train,
    "GroupSparseDictionaryLearning: fit, score, transform": run_learning,
    "GroupSparseClustering: fit, predict": run_clustering,
    "fit_scaling and its result": run_scaling,
}
STATE_TASKS: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "GroupSparseFeaturizer: prepare, train, calibrate, score": run_sae,  # the name that the record has
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
    results = (TASKS | STATE_TASKS)[name](X)
    row = {"task": name, "file_gib": X.nbytes / 2**30, "samples": len(X)}
    row |= {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - start}
    done.set()
    watcher.join()
    row |= {"anonymous_mib": peak[0], "above_start_mib": peak[0] - before}
    return row | {"result_mib": sum(result.nbytes for result in results) / 2**20}


@click.command()
@click.option("--gib", default=20.0, help="Length of the file; twice that is needed.", show_default=True)
@click.option("--folder", type=Path, default=Path("_build"), help="Where it is written.", show_default=True)
@click.option("--states", is_flag=True, help="The states alone.")
@click.option("--quick", is_flag=True, help="A file of 0.2 GiB, or 100,000 states; rows are printed and not written.")
def main(gib: float, folder: Path, states: bool, quick: bool) -> None:
    """Write a file, run every task on it, write the rows after each, and remove the file."""
    folder.mkdir(parents=True, exist_ok=True)
    gib = 0.2 if quick else gib
    if not states:
        count = int(gib * 2**30 / (4 * FEATURES * PIECE)) * PIECE
        if shutil.disk_usage(folder).free < 2.1 * gib * 2**30:
            raise click.ClickException(f"--gib {gib:g}: {folder} has less than twice that free")
        run_all(TASKS, folder / f"out_of_memory_{gib:g}.npy", (count, FEATURES, np.float32), None if quick else PATH)
    count = 100_000 if quick else STATES
    if shutil.disk_usage(folder).free < 2.1 * 2 * STATE_FEATURES * count:
        raise click.ClickException(f"--states: {folder} has less than twice {count:,} states free")
    sizes = (count, STATE_FEATURES, np.float16)
    run_all(STATE_TASKS, folder / f"out_of_memory_states_{count}.npy", sizes, None if quick else STATES_PATH)


def run_all(
    tasks: dict[str, Callable[[np.ndarray], list[np.ndarray]]],
    path: Path,
    sizes: tuple[int, int, type[np.floating]],
    results: Path | None,
) -> None:
    """Run tasks on a file of such sizes, each in a process of its own; rows go to `results`, if it is not None."""
    rows = []
    try:
        in_fresh_process(write_samples, path, *sizes)
        for name in tasks:
            rows.append(in_fresh_process(functools.partial(measure, name, path)))
            print(*(f"{x:.4g}" if isinstance(x, float) else x for x in rows[-1].values()), flush=True)
            if results:
                write_rows(results, "rows", rows)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
