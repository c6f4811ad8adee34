"""Training: one loop for every model that has the two methods of a trainable one, and checkpoints of it."""

from gsae_lib.training.checkpoints import (
    Checkpoint,
)
from gsae_lib.training.loop import (
    DictionaryErrors,
    History,
    TrainingError,
    TrainingSettings,
    train,
    train_layers,
)

__all__ = [
    "Checkpoint",
    "DictionaryErrors",
    "History",
    "TrainingError",
    "TrainingSettings",
    "train",
    "train_layers",
]
