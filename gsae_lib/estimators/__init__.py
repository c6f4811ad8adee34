"""scikit-learn estimators: code with a dictionary, learn one, cluster, and weigh the evidence for subspaces."""

from gsae_lib.estimators.clustering import GroupSparseClustering
from gsae_lib.estimators.coder import GroupSparseCoder
from gsae_lib.estimators.dictionary import GroupSparseDictionaryLearning, alpha_for_target_sparsity
from gsae_lib.estimators.evidence import SubspaceEvidence, explained_by_centres, explained_by_subspaces

__all__ = [
    "GroupSparseClustering",
    "GroupSparseCoder",
    "GroupSparseDictionaryLearning",
    "SubspaceEvidence",
    "alpha_for_target_sparsity",
    "explained_by_centres",
    "explained_by_subspaces",
]
