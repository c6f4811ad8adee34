"""Group-sparse autoencoders: the model, its training, its metrics, and the runs behind the book."""

import importlib

__version__ = "0.1.0"

_EXPORTS = {
    "groups": "active_groups group_norms normalized_group_norms to_groups",
    "activations": "GroupReLU biased_relu group_hard_threshold group_relu group_top_k soft_threshold",
    "generative": "GroupSparseSample GroupSparseSource",
    "autoencoder": "GroupSparseAutoencoder SparseAutoencoder",
    "coding": "SparseCodingResult duality_gap group_lasso_objective group_sparse_code penalty_path",
    "dictionary_learning": "alternating_minimization",
    "training": "History TrainingError TrainingSettings train",
    "datasets": "Images load_images",
    "features": "PixelFeatures ScatteringFeatures",
    "theory": "Certificate Population certify predicted_success support_recovery_windows",
    "ladder": "LadderSettings ablate score_rungs",
    "estimators": "GroupSparseClustering GroupSparseCoder GroupSparseDictionaryLearning",
    "runs.recording": "record",
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names.split()}
__all__ = sorted(_HOME)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*globals(), *__all__]


def __getattr__(name: str) -> object:
    """Import public names when first used, so that the command starts without torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'gsae_lib' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gsae_lib.{_HOME[name]}"), name)
