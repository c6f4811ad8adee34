"""Group-sparse autoencoders: the generative model, the networks and their training, the solver, estimators, theory.

The names here are the ones that most programs need; every module has more.
"""

from gsae_lib._version import __version__
from gsae_lib.activations import (
    GroupReLU,
    batch_group_top_k,
    biased_relu,
    group_hard_threshold,
    group_jump_relu,
    group_relu,
    group_top_k,
    soft_threshold,
)
from gsae_lib.networks.autoencoder import GroupSparseAutoencoder, SparseAutoencoder
from gsae_lib.training.checkpoints import Checkpoint
from gsae_lib.coding.group_lasso import (SparseCodingResult, duality_gap, group_lasso_objective, group_sparse_code, penalty_path,)
from gsae_lib.datasets import Images, load_images
from gsae_lib.learning.alternating import alternating_minimization
from gsae_lib.estimators.estimators import GroupSparseClustering, GroupSparseCoder, GroupSparseDictionaryLearning
from gsae_lib.sae.scores import FeaturizerScores, score_featurizer
from gsae_lib.features import PixelFeatures, ScatteringFeatures
from gsae_lib.sae.architectures import GroupSparseFeaturizer
from gsae_lib.generative import GroupSparseSample, GroupSparseSource
from gsae_lib.groups import active_groups, group_norms, normalized_group_norms, to_groups
from gsae_lib.networks.layered import LayeredAutoencoder, LayeredSample, LayeredSource
from gsae_lib.learning.pairwise import FoundGroups, find_groups
from gsae_lib.estimators.selection import choose_clustering
from gsae_lib.theory.certificate import Certificate, certify
from gsae_lib.theory.population import Population
from gsae_lib.theory.windows import predicted_success, support_recovery_windows
from gsae_lib.training.loop import (History, TrainingError, TrainingSettings, train, train_layers,)

__all__ = [
    "Certificate",
    "Checkpoint",
    "FeaturizerScores",
    "FoundGroups",
    "GroupReLU",
    "GroupSparseAutoencoder",
    "GroupSparseClustering",
    "GroupSparseCoder",
    "GroupSparseDictionaryLearning",
    "GroupSparseFeaturizer",
    "GroupSparseSample",
    "GroupSparseSource",
    "History",
    "Images",
    "LayeredAutoencoder",
    "LayeredSample",
    "LayeredSource",
    "PixelFeatures",
    "Population",
    "ScatteringFeatures",
    "SparseAutoencoder",
    "SparseCodingResult",
    "TrainingError",
    "TrainingSettings",
    "__version__",
    "active_groups",
    "alternating_minimization",
    "batch_group_top_k",
    "biased_relu",
    "certify",
    "choose_clustering",
    "duality_gap",
    "find_groups",
    "group_hard_threshold",
    "group_jump_relu",
    "group_lasso_objective",
    "group_norms",
    "group_relu",
    "group_sparse_code",
    "group_top_k",
    "load_images",
    "normalized_group_norms",
    "penalty_path",
    "predicted_success",
    "score_featurizer",
    "soft_threshold",
    "support_recovery_windows",
    "to_groups",
    "train",
    "train_layers",
]
