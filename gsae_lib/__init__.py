"""Group-sparse autoencoders: the generative model, the penalty, networks and training, the solver, estimators, theory.

The names here are the ones that most programs need; each room has more. A name is imported when it is first used.

Every public function checks its arguments before it starts: one of another type, shape or range, or with entries that
are not finite, ends in a ValueError of one line, which names the argument, its value and what is allowed. A section
"Raises" tells only what goes beyond that.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gsae_lib._renamed import refuse_old_modules, where_now
from gsae_lib._version import __version__

if TYPE_CHECKING:
    from gsae_lib.activations import GroupReLU, group_relu
    from gsae_lib.coding.group_lasso import duality_gap, group_sparse_code
    from gsae_lib.estimators.clustering import GroupSparseClustering
    from gsae_lib.estimators.coder import GroupSparseCoder
    from gsae_lib.estimators.dictionary import GroupSparseDictionaryLearning
    from gsae_lib.generative import GroupSparseSample, GroupSparseSource
    from gsae_lib.groups import active_groups, group_norms, normalized_group_norms, to_groups
    from gsae_lib.learning.alternating import alternating_minimization
    from gsae_lib.learning.initialization import initial_dictionary, k_subspaces
    from gsae_lib.learning.pairwise import find_groups
    from gsae_lib.networks.autoencoder import GroupSparseAutoencoder, SparseAutoencoder
    from gsae_lib.networks.layered import LayeredAutoencoder
    from gsae_lib.penalty import GroupPenalty
    from gsae_lib.theory.certificate import certify
    from gsae_lib.theory.population import Population
    from gsae_lib.theory.windows import support_recovery_windows
    from gsae_lib.training.checkpoints import Checkpoint
    from gsae_lib.training.loop import History, TrainingError, TrainingSettings, train

_ROOMS = {
    "activations": ("GroupReLU", "group_relu"),
    "clustering": (),
    "coding": ("duality_gap", "group_sparse_code"),
    "dictionary": (),
    "estimators": ("GroupSparseClustering", "GroupSparseCoder", "GroupSparseDictionaryLearning"),
    "generative": ("GroupSparseSample", "GroupSparseSource"),
    "groups": ("active_groups", "group_norms", "normalized_group_norms", "to_groups"),
    "learning": ("alternating_minimization", "find_groups", "initial_dictionary", "k_subspaces"),
    "metrics": (),
    "networks": ("GroupSparseAutoencoder", "LayeredAutoencoder", "SparseAutoencoder"),
    "penalty": ("GroupPenalty",),
    "sae": (),
    "subspaces": (),
    "theory": ("Population", "certify", "support_recovery_windows"),
    "training": ("Checkpoint", "History", "TrainingError", "TrainingSettings", "train"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = ["__version__", *_ROOM_OF]

refuse_old_modules()


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"gsae_lib.{_ROOM_OF[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"gsae_lib.{name}")
    raise AttributeError(where_now(name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
