"""Is our TopK autoencoder a weak one? What it leaves of held-out states, beside SAELens's, at the same size and data.

States of SmolLM2 as in chapter 18: 100,000 to train on, once each, in batches of 512, 10,000 others to score; 1,152
atoms, 32 of them active. SAELens has its own start, loss and loop, in an environment of its own, whose Python is named
by an option, and takes states as they are and brought to a mean norm of sqrt(features); a feature counts as dead after
20 steps, as ours after 10,000 states. The same three learning rates for both, two of them those that were tried for
chapter 18. The centre starts at the mean in all. One seed, one thread, one at a time; times are not kept.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import timing
import torch

from experiments.language.features import (
    ACTIVE_DIMENSIONS,
    FeatureSettings,
    TokenData,
    load_tokens,
    new_sae,
)
from gsae_lib import TrainingSettings, train
from gsae_lib.sae import score_sae

RIVAL = Path(__file__).parents[1] / "_build" / "rivals" / "saelens" / "bin" / "python"
RATES, BATCH, WINDOW = (1e-3, 3e-3, 1e-2), 512, 20


def measure(tokens: TokenData, rate: float) -> dict[str, Any]:
    """Ours."""
    rng = torch.Generator().manual_seed(0)
    model = new_sae(FeatureSettings(activation="group top-k", group_size=1), tokens, generator=rng)
    plan = TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=rate, progress=False)
    train(model, tokens.train, plan, generator=rng)
    return {"tokens": len(tokens.train), "unexplained": score_sae(model, tokens.held_out).unexplained}


def measure_rival(python: Path, folder: Path, n_features: int, rate: float, scaled: bool) -> dict[str, Any]:
    """SAELens, in its own process."""
    sizes = map(str, (2 * n_features, ACTIVE_DIMENSIONS, BATCH, 1, rate))
    command = [str(python), str(Path(__file__).with_name("saelens.py")), "topk", str(folder / "train.npy"), *sizes]
    command += [str(folder / "held_out.npy"), str(int(scaled)), str(WINDOW)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"SAELens failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[name] for name in ("tokens", "unexplained", "version")}


@click.command()
@click.option("--python", type=Path, default=RIVAL, help="An interpreter that has SAELens.", show_default=False)
@click.option("--quick", is_flag=True, help="One rate each on 10,000 states, printed and not written.")
def main(python: Path, quick: bool) -> None:
    """Measure all in turn."""
    torch.set_num_threads(1)
    try:
        tokens = load_tokens("smollm2", 10_000 if quick else 100_000, 10_000)
    except FileNotFoundError as error:
        print(f"nothing measured: {error}")
        return
    if not python.is_file():
        sys.exit(f"--python {python} is missing; `make bench` installs SAELens")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "train.npy", tokens.train)
        np.save(folder / "held_out.npy", tokens.held_out.numpy())
        for rate in RATES[1:2] if quick else RATES:
            rows.append({"method": "ours", "learning_rate": rate, "scaled": True} | measure(tokens, rate))
            print(rows[-1], flush=True)
        for scaled in (True,) if quick else (False, True):
            for rate in RATES[1:2] if quick else RATES:
                found = measure_rival(python, folder, tokens.train.shape[1], rate, scaled)
                rows.append({"method": "SAELens", "learning_rate": rate, "scaled": scaled} | found)
                print(rows[-1], flush=True)
    if not quick:
        sizes = {"atoms": 2 * tokens.train.shape[1], "active": ACTIVE_DIMENSIONS, "batch": BATCH}
        timing.write("featurizer_baseline", **sizes, rows=rows)


if __name__ == "__main__":
    main()
