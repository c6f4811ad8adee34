"""The ablation of chapters 09 and 10 at other sizes, on images that are clustered and images that were not seen.

Two data sets: the 5,000 embedded digits (4,000 to fit, 1,000 to score), and all of MNIST (60,000 and 10,000, after
`gsae data mnist`). Labels score; they choose nothing.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from experiments.digits.ablation import AblationSettings, ablate, score_results
from gsae_book.data.features import PixelFeatures, ScatteringFeatures
from gsae_book.data.images import load_images
from gsae_lib import TrainingSettings

SIZES = {"mnist-5k": (4000, 1000), "mnist": (60_000, 10_000)}
EPOCHS = {"mnist-5k": (0, 1, 3, 10), "mnist": (0, 1, 3)}
BATCH_SIZES = {"mnist-5k": 100, "mnist": 500}
SEEDS = {"mnist-5k": 10, "mnist": 5}
METHODS = (
    "k-means",
    "spectral",
    "k-subspaces",
    "strongest group",
    "k-means on codes",
    "k-means on codes_+",
    "k-means on group norms",
)
FEATURES = {"pixels": PixelFeatures, "scattering": ScatteringFeatures}


def cluster_digits(
    dataset: Literal["mnist-5k", "mnist"],
    features: Literal["pixels", "scattering"],
    *,
    seed: int,
    max_epochs: int | None = None,
    methods: Sequence[str] = METHODS,
) -> list[dict[str, Any]]:
    """Rows of `score_results`: each of the methods, epoch and split.

    max_epochs: train no longer than so many epochs; None for all of EPOCHS.
    """
    train_data, test_data, train_labels, test_labels = _data(dataset, features)
    training = TrainingSettings(batch_size=BATCH_SIZES[dataset], progress=False)
    epochs = tuple(epoch for epoch in EPOCHS[dataset] if max_epochs is None or epoch <= max_epochs)
    settings = AblationSettings(penalty=0.3, epochs=epochs, training=training)
    results = ablate(train_data, settings, seeds=[seed], methods=methods, test_data=test_data)
    return score_results(results, train_labels, test_labels)


@cache
def _data(dataset: str, features: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    sizes = dict(zip(("train", "test"), SIZES[dataset], strict=True))
    parts = [load_images(dataset, part).subset(n, generator=rng) for part, n in sizes.items()]
    maker = FEATURES[features]().fit(parts[0])
    return *(torch.from_numpy(maker.transform(part)) for part in parts), *(part.labels for part in parts)


def plan() -> list[dict[str, Any]]:
    """Data sets and seeds."""
    return [{"dataset": name, "seed": seed} for name, n_seeds in SEEDS.items() for seed in range(n_seeds)]
