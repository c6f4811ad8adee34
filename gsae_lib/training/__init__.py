"""Training: one loop for every model that is `Trainable`, and checkpoints of it."""

from gsae_lib.training.checkpoints import (
    Checkpoint,
)
from gsae_lib.training.layerwise import (
    train_layers,
)
from gsae_lib.training.loop import (
    DictionaryErrors,
    History,
    Trainable,
    TrainingError,
    TrainingSettings,
    train,
)

__all__ = [
    "Checkpoint",
    "DictionaryErrors",
    "History",
    "Trainable",
    "TrainingError",
    "TrainingSettings",
    "train",
    "train_layers",
]
