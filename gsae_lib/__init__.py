"""Group-sparse autoencoders: the generative model, the penalty, networks and training, the solver, estimators, theory.

The names here are the ones that most programs need; each room has more. A name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gsae_lib._renamed import refuse_old_modules, where_now
from gsae_lib._version import __version__

if TYPE_CHECKING:
    from gsae_lib.activations import GroupReLU, group_relu
    from gsae_lib.coding import duality_gap, group_sparse_code
    from gsae_lib.estimators import GroupSparseClustering, GroupSparseCoder, GroupSparseDictionaryLearning
    from gsae_lib.generative import GroupSparseSample, GroupSparseSource
    from gsae_lib.groups import active_groups, group_norms, normalized_group_norms, to_groups
    from gsae_lib.learning import alternating_minimization, find_groups, initial_dictionary, k_subspaces
    from gsae_lib.networks import GroupSparseAutoencoder, LayeredAutoencoder, SparseAutoencoder
    from gsae_lib.theory import Population, certify, support_recovery_windows
    from gsae_lib.training import Checkpoint, History, TrainingError, TrainingSettings, train

_ROOMS = {
    "activations": ("GroupReLU", "group_relu"),
    "coding": ("duality_gap", "group_sparse_code"),
    "estimators": ("GroupSparseClustering", "GroupSparseCoder", "GroupSparseDictionaryLearning"),
    "generative": ("GroupSparseSample", "GroupSparseSource"),
    "groups": ("active_groups", "group_norms", "normalized_group_norms", "to_groups"),
    "learning": ("alternating_minimization", "find_groups", "initial_dictionary", "k_subspaces"),
    "networks": ("GroupSparseAutoencoder", "LayeredAutoencoder", "SparseAutoencoder"),
    "theory": ("Population", "certify", "support_recovery_windows"),
    "training": ("Checkpoint", "History", "TrainingError", "TrainingSettings", "train"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = ["__version__", *_ROOM_OF]

refuse_old_modules()


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"gsae_lib.{_ROOM_OF[name]}"), name)
    raise AttributeError(where_now(name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
