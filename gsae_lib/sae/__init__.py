"""Sparse autoencoders (SAEs) with groups: architectures, scores, export, synthetic data."""

from gsae_lib.sae.architectures import (
    BatchTopKSAE,
    GroupJumpReLUSAE,
    GroupReLUSAE,
    GroupSAE,
    GroupTopKSAE,
)
from gsae_lib.sae.export import (
    export_sae_lens,
)
from gsae_lib.sae.scores import (
    CodeMoments,
    SAEScores,
    description_length,
    score_sae,
)
from gsae_lib.sae.synthetic import (
    SyntheticFeatures,
    SyntheticSample,
    synthetic_features,
    zipf_frequencies,
)

__all__ = [
    "BatchTopKSAE",
    "CodeMoments",
    "GroupJumpReLUSAE",
    "GroupReLUSAE",
    "GroupSAE",
    "GroupTopKSAE",
    "SAEScores",
    "SyntheticFeatures",
    "SyntheticSample",
    "description_length",
    "export_sae_lens",
    "score_sae",
    "synthetic_features",
    "zipf_frequencies",
]
