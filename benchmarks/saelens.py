"""SAELens in an environment of its own: `python saelens.py KIND STATES.npy ATOMS ACTIVE BATCH EPOCHS`.

KIND is batchtopk or topk, both dense, since sparse activations do not run on a CPU. STATES.npy holds activations
(samples, features), read a batch at a time in random order. Prints a JSON object: seconds of its own training loop
after one batch, tokens that it took, and the fraction of variance unexplained afterwards, in training form.
The caller sets the number of threads.
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


def batches(states: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Endless epochs of whole batches."""
    while True:
        order = rng.permutation(len(states))
        for start in range(0, len(states) - size + 1, size):
            yield torch.from_numpy(states[order[start : start + size]].astype(np.float32))


def main(kind: str, path: str, atoms: int, active: int, size: int, epochs: int) -> None:
    """Train and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = np.load(path, mmap_mode="r")
    some = torch.from_numpy(states[: 4 * size].astype(np.float32))
    settings = {"d_in": states.shape[1], "d_sae": atoms, "k": active, "normalize_activations": "none"}
    if kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**settings))
    else:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**settings))
    with torch.no_grad():
        sae.b_dec.copy_(some.mean(dim=0))
    total = epochs * (len(states) // size) * size
    config = SAETrainerConfig(total, size, lr=1e-3, lr_end=1e-4, logger=LoggingConfig(log_to_wandb=False))
    source = batches(states, size, np.random.default_rng(0))
    trainer = SAETrainer(config, sae, source)
    trainer.step(next(source))
    trainer.n_training_samples = 0
    start = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        left = (some - sae(some)).square().sum() / (some - some.mean(dim=0)).square().sum()
    found = {"tokens": total, "seconds": seconds, "unexplained": left.item(), "version": __version__}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
