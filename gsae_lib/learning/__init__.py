"""Dictionaries from data: initializations, groups from pairs of samples, k-subspaces, alternating minimisation."""

from gsae_lib.learning.alternating import (
    DictionaryFit,
    alternating_minimization,
)
from gsae_lib.learning.initialization import (
    GroupsMissingWarning,
    KSubspaces,
    initial_dictionary,
    k_subspaces,
)
from gsae_lib.learning.pairwise import (
    FoundGroups,
    code_anisotropy,
    estimate_group_size,
    find_groups,
    repeat_on_halves,
)

__all__ = [
    "DictionaryFit",
    "FoundGroups",
    "GroupsMissingWarning",
    "KSubspaces",
    "alternating_minimization",
    "code_anisotropy",
    "estimate_group_size",
    "find_groups",
    "initial_dictionary",
    "k_subspaces",
    "repeat_on_halves",
]
