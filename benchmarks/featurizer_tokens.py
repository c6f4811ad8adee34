"""Training a sparse autoencoder: tokens a second, beside the dense products and beside SAELens at the same size.

The states are planted, 576 features of float16 in a file that is read as a memory map, as those of SmolLM2-135M would
be. Batches have 4,096 tokens, codes 32 active dimensions. Ours is batch top-k with unit columns and an encoder of its
own, by the products of the active groups alone (`sparse`) or by dense ones (`dense`); SAELens's are BatchTopK and
TopK, in an environment of its own. Each run is a fresh process on one thread; they take turns, and
`range` is over the rounds. `unexplained` is a check that each learns, not a comparison: the starts differ.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import timing
import torch

from gsae_book.runs.processes import in_fresh_process
from gsae_lib import TrainingSettings, train
from gsae_lib.sae import BatchTopKSAE, architectures, score_sae, synthetic_features

RIVAL = Path(__file__).parents[1] / "_build" / "rivals" / "saelens" / "bin" / "python"
FEATURES, BATCH, ACTIVE, EPOCHS, ROUNDS = 576, 4096, 32, 1, 3
ATOMS, GROUP_SIZES, TOKENS = (1152, 4608), (1, 2, 4), 10 * 4096


def write_states(path: str, n_tokens: int) -> None:
    """Planted states off the origin, in pieces."""
    rng = torch.Generator().manual_seed(0)
    features = synthetic_features(FEATURES, 2000, n_active=15.0, noise_std=0.02, generator=rng)
    states = np.lib.format.open_memmap(path, "w+", np.float16, (n_tokens, FEATURES))
    for start in range(0, n_tokens, BATCH):
        states[start : start + BATCH] = 1 + features.sample(min(BATCH, n_tokens - start), generator=rng).data.numpy()
    states.flush()


def measure(path: str, atoms: int, group_size: int, sparse: bool, epochs: int) -> dict[str, Any]:
    """Ours, in this process: seconds of training after one batch."""
    torch.set_num_threads(1)
    architectures.SPARSE_SHARE = 0.15 if sparse else 0.0
    states, rng = np.load(path, mmap_mode="r"), torch.Generator().manual_seed(0)
    sizes = (FEATURES, atoms // group_size, group_size)
    model = BatchTopKSAE(*sizes, n_active=ACTIVE / group_size, nonnegative=group_size == 1, generator=rng)
    model.prepare(states)
    model.training_loss(torch.from_numpy(states[:BATCH].astype(np.float32)))[0].backward()
    plan = TrainingSettings(epochs=epochs, batch_size=BATCH, learning_rate=1e-3, progress=False)
    seconds = train(model, states, plan, generator=rng).seconds
    left = score_sae(model, states[: 4 * BATCH]).unexplained
    return {"tokens": epochs * len(states), "seconds": seconds, "unexplained": left}


def measure_rival(path: str, atoms: int, kind: str, epochs: int) -> dict[str, Any]:
    """SAELens, in its own process."""
    command = [str(RIVAL), str(Path(__file__).with_name("saelens.py")), kind, path]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command += map(str, (atoms, ACTIVE, BATCH, epochs))
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"SAELens failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


@click.command()
@click.option("--quick", is_flag=True, help="One round at the smaller size on few tokens, printed and not written.")
def main(quick: bool) -> None:
    """Measure all in turn."""
    rounds, epochs, tokens = (1, 1, 3 * BATCH) if quick else (ROUNDS, EPOCHS, TOKENS)
    if not RIVAL.is_file():
        if not quick:
            sys.exit(f"{RIVAL} is missing; `make bench` installs SAELens there")
        print(f"{RIVAL} is missing: ours alone")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "states.npy"))
        in_fresh_process(write_states, path, tokens)
        for atoms in ATOMS[:1] if quick else ATOMS:
            tasks: dict[tuple[str, int], Any] = {
                (f"ours, {name}", size): (measure, path, atoms, size, name == "sparse", epochs)
                for size in GROUP_SIZES
                for name in ("sparse", "dense")
            }
            if RIVAL.is_file():
                tasks |= {
                    (f"SAELens, {kind}", 1): (measure_rival, path, atoms, kind, epochs)
                    for kind in ("batchtopk", "topk")
                }
            found: dict[tuple[str, int], list[dict[str, Any]]] = {key: [] for key in tasks}
            for _ in range(rounds):
                for key, (work, *arguments) in tasks.items():
                    run = work(*arguments) if work is measure_rival else in_fresh_process(work, *arguments)
                    found[key].append(run)
            for (name, size), runs in found.items():
                speeds = [run["tokens"] / run["seconds"] for run in runs]
                row = {"method": name, "atoms": atoms, "group_size": size, "tokens": runs[0]["tokens"]}
                row |= {"tokens_per_second": statistics.median(speeds), "range": max(speeds) - min(speeds)}
                rows.append(row | {"unexplained": runs[0]["unexplained"], "version": runs[0].get("version", "")})
                print(rows[-1])
    if not quick:
        timing.write("featurizer_tokens", features=FEATURES, batch=BATCH, active=ACTIVE, rounds=rounds, rows=rows)


if __name__ == "__main__":
    main()
