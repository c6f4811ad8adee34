"""Sparse autoencoders (SAEs) with groups: architectures, scores, export, synthetic data."""

from gsae_lib.sae.architectures import (
    GroupSparseFeaturizer,
)
from gsae_lib.sae.export import (
    export_sae_lens,
)
from gsae_lib.sae.scores import (
    CodeMoments,
    FeaturizerScores,
    description_length,
    score_featurizer,
)
from gsae_lib.sae.synthetic import (
    PlantedFeatures,
    PlantedSample,
    plant_features,
    zipf_frequencies,
)

__all__ = [
    "CodeMoments",
    "FeaturizerScores",
    "GroupSparseFeaturizer",
    "PlantedFeatures",
    "PlantedSample",
    "description_length",
    "export_sae_lens",
    "plant_features",
    "score_featurizer",
    "zipf_frequencies",
]
