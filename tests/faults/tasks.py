"""Programs that are killed: ``python -m faults.tasks train KIND CHECKPOINT OUT``, ``cluster - ...``, ``fetch PORT``."""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import numpy as np

IDX_BYTES = 400_000
FILES = {f"part-{k}": np.random.default_rng(k).bytes(IDX_BYTES) for k in range(4)}


def train(kind: str, checkpoint: str, out: str) -> None:
    """Train a small network with a checkpoint after each epoch, and write hashes of all that came out."""
    import torch

    from gsae_lib import GroupSparseAutoencoder, TrainingSettings
    from gsae_lib import train as run
    from gsae_lib.training import Checkpoint

    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(3)
    data = torch.randn(2_000, 64, generator=rng)
    start = torch.nn.functional.normalize(torch.randn(64, 120, generator=rng), dim=0)
    how = {"shallow": {}, "unfolded": {"n_iterations": 3}, "untied": {"tied": False}}[kind]
    model = GroupSparseAutoencoder(64, 40, 3, 1.5, dictionary=start, **how)
    settings = TrainingSettings(epochs=30, batch_size=100, progress=False)
    history = run(model, data, settings, generator=rng, checkpoint=Checkpoint(Path(checkpoint), every_epochs=1))
    sums = {name: sha256(tensor.detach().numpy().tobytes()).hexdigest() for name, tensor in model.state_dict().items()}
    _write(out, sums | {"loss": history.loss})


def cluster(_: str, checkpoint: str, out: str) -> None:
    """Fit the estimator of clusters with a checkpoint, and write what it found."""
    import torch

    from gsae_lib import GroupSparseClustering

    torch.set_num_threads(1)
    X = np.random.default_rng(0).normal(size=(1_000, 40))
    model = GroupSparseClustering(
        3, n_groups=10, group_size=3, alpha=1.0, max_iter=30, batch_size=100, random_state=0, checkpoint=checkpoint
    ).fit(X)
    sums = {"components": sha256(model.components_.tobytes()).hexdigest()}
    _write(out, sums | {"labels": sha256(model.labels_.tobytes()).hexdigest()})


def fetch(port: str) -> None:
    """Bring a data set of four files from the server at that port of this machine, with the command."""
    from gsae_book.app.cli import main
    from gsae_book.data import files as data_files

    sums = {name: sha256(content).hexdigest() for name, content in FILES.items()}
    noise = data_files.Description("noise", sums, mirrors=(f"http://127.0.0.1:{port}/",))
    data_files.DATASETS = MappingProxyType({**data_files.DATASETS, "noise": noise})
    main(["data", "noise"])


def _write(out: str, content: dict[str, object]) -> None:
    Path(f"{out}.tmp").write_text(json.dumps(content))
    os.replace(f"{out}.tmp", out)


if __name__ == "__main__":
    try:
        {"train": train, "cluster": cluster, "fetch": fetch}[sys.argv[1]](*sys.argv[2:])
    except (ValueError, OSError) as error:
        sys.exit(str(error))
