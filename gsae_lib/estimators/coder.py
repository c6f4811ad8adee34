"""Codes with a dictionary that is given."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from gsae_lib._checks import check_columns, check_mask, without_autocast
from gsae_lib.coding.group_lasso import group_sparse_code
from gsae_lib.estimators._base import Estimator, Output, fitting_layout, precision
from gsae_lib.penalty import GroupPenalty


class GroupSparseCoder(Estimator):
    r"""Group-sparse codes with a given dictionary, to a certified gap.

    .. math:: \min_x \tfrac12 \|y - D^T x\|^2 + \alpha \sum_g w_g \|x_g\|

    For samples in which several groups are active at once. With one, or with fewer components than features, filters or
    ridge regression tell as much: see "Which method do I need?" in the book.

    Args:
        dictionary: D, (components, features); None for the identity, with which coding is the group ReLU.
        groups: of components: d for groups of d adjacent ones, a list of sizes, or a list of lists of components, each
            in one group. weights: w_g >= 0, one for each group; None for 1.
        alpha: the penalty, > 0, in the units of the data.
        output: "codes", "norms" of groups, or "normalized norms".
        max_iter, tol: of `group_sparse_code`. device: where to compute. verbose: show progress of coding.
    """

    GROUPS: ClassVar[str] = "groups"
    LEAST: ClassVar[dict[str, int]] = Estimator.LEAST | {"max_iter": 1}

    def __init__(
        self,
        dictionary: np.ndarray | None = None,
        *,
        groups: int | Sequence[int] | Sequence[Sequence[int]] = 1,
        weights: np.ndarray | Sequence[float] | None = None,
        alpha: float = 0.1,
        output: Output = "codes",
        max_iter: int = 10_000,
        tol: float | None = None,
        device: str = "cpu",
        verbose: bool | int = False,
    ) -> None:
        self.dictionary = dictionary
        self.groups = groups
        self.weights = weights
        self.alpha = alpha
        self.output = output
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.verbose = verbose

    @without_autocast
    def fit(self, X: Any, y: object = None) -> Self:
        """Check the parameters and the dictionary against the number of features; nothing is learned.

        Raises:
            TypeError: X that is sparse, or holds objects.
        """
        X = self._validate(X, reset=True)
        components = np.eye(X.shape[1], dtype=precision(X)) if self.dictionary is None else _matrix(self.dictionary)
        if components.ndim != 2 or not len(components) or components.shape[1] != X.shape[1]:
            raise ValueError(f"dictionary: expected (components, {X.shape[1]}), got {components.shape}")
        if components.dtype not in (np.float32, np.float64) or not np.isfinite(components).all():
            raise ValueError(f"dictionary: expected finite float32 or float64, got {components.dtype}")
        check_columns("dictionary", components)
        self.groups_ = fitting_layout("groups", self.groups, len(components)).groups
        self.components_ = components
        self._penalty().check(torch.from_numpy(components.T))
        self.n_iter_ = 1  # nothing is learned; max_iter is a limit of coding
        return self

    def _codes(self, block: Tensor) -> Tensor:
        found = group_sparse_code(
            block,
            self._weight(block),
            self._penalty(),
            tol=self.tol,
            max_iter=self.max_iter,
            progress=bool(self.verbose),
        )
        return found.codes

    def _penalty(self) -> GroupPenalty:
        weights = None if self.weights is None else torch.as_tensor(np.asarray(self.weights))
        return GroupPenalty(self.alpha, self.groups_, weights)

    def _expected(self) -> dict[str, Any]:
        expected = super()._expected()
        self._penalty().check(torch.from_numpy(self.components_.T))
        return expected


def _matrix(dictionary: Any) -> np.ndarray:
    """A given dictionary as an array, or ValueError."""
    check_mask("dictionary", dictionary)
    try:
        return np.array(dictionary, order="C")
    except (ValueError, TypeError) as error:  # rows of other lengths, a sparse tensor
        raise ValueError(f"dictionary: {error}") from None
