"""Group-sparse autoencoders: one network, several layers, the unfolded encoder, and cheap gradients."""

from gsae_lib.networks.autoencoder import (
    CodeSummary,
    GroupSparseAutoencoder,
    SparseAutoencoder,
    set_target_sparsity,
    summarize_codes,
)
from gsae_lib.networks.layered import (
    LayeredAutoencoder,
    LayeredSample,
    LayeredSource,
    group_sparse_atoms,
    sibling_dictionary,
)
from gsae_lib.networks.sparse_gradient import (
    ShallowGradient,
    shallow_gradient,
)
from gsae_lib.networks.unfolding import (
    Unfolding,
    tied_gradient,
    unfold,
)

__all__ = [
    "CodeSummary",
    "GroupSparseAutoencoder",
    "LayeredAutoencoder",
    "LayeredSample",
    "LayeredSource",
    "ShallowGradient",
    "SparseAutoencoder",
    "Unfolding",
    "group_sparse_atoms",
    "set_target_sparsity",
    "shallow_gradient",
    "sibling_dictionary",
    "summarize_codes",
    "tied_gradient",
    "unfold",
]
