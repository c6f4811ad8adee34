"""SAELens in an environment of its own: `python saelens.py KIND STATES.npy ATOMS ACTIVE BATCH EPOCHS [...]`.

KIND is batchtopk or topk, both dense, since sparse activations do not run on a CPU. STATES.npy holds activations
(samples, features), read a batch at a time in random order. Prints a JSON object: seconds of its own training loop
after one batch, tokens that it took, and the fraction of variance unexplained afterwards, in training form.
The caller sets the number of threads.

`[RATE HELD_OUT.npy SCALED WINDOW]` are the learning rate, other states to score on in place of the first batches, 1 to
bring states to a mean norm of sqrt(features), as "expected_average_only_in" does, and the steps after which a feature
that is not active counts as dead.
"""

import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from sae_lens import __version__
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer


def batches(states: np.ndarray, size: int, scale: float, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Endless epochs of whole batches."""
    while True:
        order = rng.permutation(len(states))
        for start in range(0, len(states) - size + 1, size):
            yield scale * torch.from_numpy(states[order[start : start + size]].astype(np.float32))


def main(
    kind: str,
    path: str,
    atoms: str,
    active: str,
    batch: str,
    epochs: str,
    rate: str = "1e-3",
    held_out: str = "",
    scaled: str = "0",
    window: str = "1000",
) -> None:
    """Train and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = int(batch)
    states = np.load(path, mmap_mode="r")
    some = torch.from_numpy(states[: 4 * size].astype(np.float32))
    scale = states.shape[1] ** 0.5 / some.norm(dim=1).mean().item() if scaled == "1" else 1.0
    settings = {"d_in": states.shape[1], "d_sae": int(atoms), "k": int(active), "normalize_activations": "none"}
    if kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**settings))
    else:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**settings))
    with torch.no_grad():
        sae.b_dec.copy_(scale * some.mean(dim=0))
    total = int(epochs) * (len(states) // size) * size
    config = SAETrainerConfig(
        total,
        size,
        lr=float(rate),
        lr_end=float(rate) / 10,
        dead_feature_window=int(window),
        logger=LoggingConfig(log_to_wandb=False),
    )
    source = batches(states, size, scale, np.random.default_rng(0))
    trainer = SAETrainer(config, sae, source)
    trainer.step(next(source))
    trainer.n_training_samples = 0
    start = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        tested = torch.from_numpy(np.load(held_out).astype(np.float32)) if held_out else some
        tested = scale * tested
        left = (tested - sae(tested)).square().sum() / (tested - tested.mean(dim=0)).square().sum()
    found = {"tokens": total, "seconds": seconds, "unexplained": left.item(), "version": __version__}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
