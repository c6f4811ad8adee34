"""scikit-learn estimators: code with a dictionary, learn one, cluster, and weigh the evidence for subspaces."""

from gsae_lib.estimators.estimators import (
    GroupSparseClustering,
    GroupSparseCoder,
    GroupSparseDictionaryLearning,
)
from gsae_lib.estimators.evidence import (
    SubspaceEvidence,
    explained_by_centres,
    explained_by_subspaces,
)
from gsae_lib.estimators.selection import (
    ChosenClustering,
    alpha_for_target_sparsity,
    choose_clustering,
    cluster_stability,
)

__all__ = [
    "ChosenClustering",
    "GroupSparseClustering",
    "GroupSparseCoder",
    "GroupSparseDictionaryLearning",
    "SubspaceEvidence",
    "alpha_for_target_sparsity",
    "choose_clustering",
    "cluster_stability",
    "explained_by_centres",
    "explained_by_subspaces",
]
