"""Group-sparse coding: the group lasso, its duality gap, and a solver that stops on it."""

from gsae_lib.coding.group_lasso import (
    NotConvergedWarning,
    SparseCodingResult,
    duality_gap,
    excess_objective,
    group_lasso_objective,
    group_sparse_code,
    largest_penalty,
    penalty_path,
)

__all__ = [
    "NotConvergedWarning",
    "SparseCodingResult",
    "duality_gap",
    "excess_objective",
    "group_lasso_objective",
    "group_sparse_code",
    "largest_penalty",
    "penalty_path",
]
