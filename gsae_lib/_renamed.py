"""What version 0.4 renamed: an old name is refused with the new one."""

import importlib.abc
import sys

# Modules of version 0.3, and where what they held is.
MODULES = {
    "autoencoder": "gsae_lib.networks",
    "checkpoints": "gsae_lib.training",
    "data_files": "gsae_book.data",
    "datasets": "gsae_book.data",
    "dictionary_learning": "gsae_lib.learning",
    "exports": "gsae_lib.sae",
    "feature_scores": "gsae_lib.sae",
    "features": "gsae_book.data",
    "featurizer": "gsae_lib.sae",
    "initialization": "gsae_lib.learning",
    "language": "gsae_book.data",
    "layers": "gsae_lib.networks",
    "pairs": "gsae_lib.learning",
    "planted": "gsae_lib.sae",
    "selection": "gsae_lib.estimators",
    "structured": "gsae_lib.networks",
    "tables": "gsae_book.data",
    "unfolded": "gsae_lib.networks",
    "unions": "gsae_lib.estimators",
}
# Names that gsae_lib itself had.
NAMES = {
    "FeaturizerScores": "gsae_lib.sae.SAEScores",
    "FoundGroups": "gsae_lib.learning.FoundGroups",
    "GroupSparseFeaturizer": "gsae_lib.sae, a class for each architecture",
    "Images": "gsae_book.data.Images",
    "LayeredSample": "gsae_lib.networks.LayeredSample",
    "LayeredSource": "gsae_lib.networks.LayeredSource",
    "PixelFeatures": "gsae_book.data.PixelFeatures",
    "ScatteringFeatures": "gsae_book.data.ScatteringFeatures",
    "SparseCodingResult": "gsae_lib.coding.SparseCodingResult",
    "batch_group_top_k": "gsae_lib.activations.batch_group_top_k",
    "biased_relu": "gsae_lib.activations.biased_relu",
    "choose_clustering": "gsae_lib.GroupSparseClustering(method='auto')",
    "group_hard_threshold": "gsae_lib.activations.group_hard_threshold",
    "group_jump_relu": "gsae_lib.activations.group_jump_relu",
    "group_lasso_objective": "gsae_lib.coding.group_lasso_objective",
    "group_top_k": "gsae_lib.activations.group_top_k",
    "load_images": "gsae_book.data.load_images",
    "penalty_path": "gsae_lib.coding.penalty_path",
    "predicted_success": "gsae_lib.theory.windows.predicted_success",
    "score_featurizer": "gsae_lib.sae.score_sae",
    "soft_threshold": "gsae_lib.activations.soft_threshold",
    "train_layers": "gsae_lib.training.train_layers",
}


def where_now(name: str) -> str:
    """What to say of a name that gsae_lib does not have."""
    place = NAMES.get(name) or MODULES.get(name)
    return f"gsae_lib.{name}: " + (f"since version 0.4 it is {place}" if place else "there is no such name")


class _OldModules(importlib.abc.MetaPathFinder):
    """Asked last, when no module was found."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        room, _, module = name.partition(".")
        if room == "gsae_lib" and module in MODULES:
            raise ModuleNotFoundError(where_now(module), name=name)


def refuse_old_modules() -> None:
    """Let the import of a module of version 0.3 say where it went."""
    sys.meta_path.append(_OldModules())
