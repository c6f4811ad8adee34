"""Learn a dictionary of groups: by a group-sparse autoencoder, or by alternating minimisation."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Generator, Tensor

from gsae_lib._checks import (
    RandomState,
    as_table,
    check_int,
    check_real,
    check_samples,
    on_disk,
    without_autocast,
)
from gsae_lib.coding.group_lasso import group_sparse_code
from gsae_lib.estimators._base import SCORED_SHARE, Estimator, Output, fitting_layout, precision
from gsae_lib.groups import GroupLayout, Groups, group_layout, group_norms
from gsae_lib.learning.alternating import alternating_minimization
from gsae_lib.learning.initialization import Start, initial_dictionary
from gsae_lib.networks.autoencoder import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.training.checkpoints import Checkpoint
from gsae_lib.training.loop import TrainingSettings, train

MANY_GROUPS = 20  # from which on one run of k-subspaces is made
START_SAMPLES = 10_000  # that a start is found from, at most
AUTO_GROUP_SIZE = 4


class Learner(Estimator):
    """Estimators that learn a dictionary first."""

    group_size_: Any  # d, or the size of each group

    def _learn(self, X: np.ndarray, n_groups: int, layout: GroupLayout, rng: Generator) -> None:
        """Set components_, group_size_, n_iter_."""
        self._check_checkpoint()
        groups = layout.groups
        if len(X) < n_groups * layout.width:
            needed = f"at least {n_groups * layout.width} for {n_groups} groups of {layout.width}"
            raise ValueError(f"n_samples={len(X)}: expected {needed}")
        size = None if self.batch_size is None else min(self.batch_size, len(X))
        few = len(X) <= START_SAMPLES
        sample = self._tensor(X if few else X[torch.randperm(len(X), generator=rng)[:START_SAMPLES].numpy()])
        self._set_intercept(sample)
        sample = self._lift(sample)
        n_init = self.n_init if self.n_init != "auto" else 10 if n_groups < MANY_GROUPS else 1
        dictionary = initial_dictionary(sample, n_groups, groups, self.init, n_init=n_init, generator=rng)
        self.alpha_ = self.alpha if self.alpha != "auto" else self._auto_alpha(sample, dictionary, layout)
        if self.max_iter and self.algorithm == "autoencoder":
            model = _network(dictionary, groups, self.alpha_, self.n_iterations)
            settings = TrainingSettings(
                epochs=self.max_iter,
                learning_rate=self.learning_rate,
                batch_size=size,
                device=self.device,
                progress=bool(self.verbose),
            )
            if on_disk(X) and self._has_intercept():
                raise ValueError("intercept: expected 0 to train on a memory map; or load it, or max_iter=0")
            data = X if on_disk(X) else self._lift(self._tensor(X))
            train(model, data, settings, generator=rng, checkpoint=self.checkpoint)
            dictionary = model.weight.detach()
        elif self.max_iter:
            dictionary = alternating_minimization(
                self._tensor(X),
                dictionary,
                self.alpha_,
                groups,
                max_iter=self.max_iter,
                batch_size=size,
                generator=rng,
                progress=bool(self.verbose),
            ).dictionary
        self.components_ = dictionary.T.contiguous().cpu().numpy()
        self.group_size_ = groups
        self.n_iter_ = max(self.max_iter, 1)

    def _tensor(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(X, dtype=precision(X), order="C")).to(self.device)

    @torch.no_grad()
    def _codes(self, block: Tensor) -> Tensor:
        dictionary = self._weight(block)
        if self.algorithm == "alternating":
            return group_sparse_code(block, dictionary, self.alpha_, self.group_size_).codes
        return _network(dictionary, self.group_size_, self.alpha_, self.n_iterations).encode(self._lift(block))

    def _set_intercept(self, sample: Tensor) -> None:
        """Set intercept_, if the estimator has one."""

    def _has_intercept(self) -> bool:
        return False

    def _active_groups(self, n_groups: int, n_atoms: int, n_features: int) -> float:
        """Groups that a sample uses at alpha="auto"."""
        return min(max(1.0, n_features / (SCORED_SHARE * n_atoms / n_groups)), 0.5 * n_groups)

    def _auto_alpha(self, sample: Tensor, dictionary: Tensor, layout: GroupLayout) -> float:
        """The penalty of the target sparsity, or, if none has it, a thousandth of that at which no group is active."""
        n_features, n_atoms = dictionary.shape
        model = _network(dictionary, layout.groups, 0.0, self.n_iterations)
        try:
            return set_target_sparsity(model, sample, self._active_groups(model.n_groups, n_atoms, n_features))
        except ValueError:
            largest = group_norms(sample @ dictionary, layout.groups).max().item()
            return max(1e-3 * largest, torch.finfo(sample.dtype).tiny)

    def _sizes(self, X: np.ndarray, wanted: int) -> tuple[int, GroupLayout]:
        """How many groups, and of which sizes.

        "auto" is a size of at most 4 and half the features, and `wanted` groups if there are samples for them.
        """
        size = self.group_size
        if size == "auto":
            size = max(1, min(self._auto_group_size(), X.shape[1] // 2, len(X) // 2))
        layout = group_layout(size)
        check_int("group_size", layout.width, high=X.shape[1])
        groups = self.n_groups
        if layout.sizes is not None:
            if layout.columns is not None or groups not in ("auto", len(layout.sizes)):
                raise ValueError(f"group_size={size}: expected d, or a list with the size of each of {groups} groups")
            groups = len(layout.sizes)
        elif groups == "auto":
            groups = max(1, min(wanted, len(X) // (2 * layout.width)))
        return check_int("n_groups", groups), layout

    def _expected(self) -> dict[str, Any]:
        return super()._expected() | {"alpha_": partial(check_real, strict=True)}

    def _auto_group_size(self) -> int:
        return AUTO_GROUP_SIZE

    def _check_checkpoint(self) -> None:
        """Only training with `train` has one, and only a seed gives the same start again."""
        if self.checkpoint is None:
            return
        Checkpoint(self.checkpoint)
        given = f"checkpoint={str(self.checkpoint)!r}: expected None with"
        if self.algorithm != "autoencoder":
            raise ValueError(f"{given} algorithm={self.algorithm!r}, which trains no network")
        if not self.max_iter:
            raise ValueError(f"{given} max_iter=0, which trains nothing")
        if self.random_state is None:
            raise ValueError(f"{given} random_state=None, which starts elsewhere each time")

    def _generator(self) -> Generator:
        try:
            seed = check_random_state(self.random_state).randint(2**31 - 1)
        except ValueError:
            allowed = "an integer from 0 to 2**32 - 1, a RandomState or None"
            raise ValueError(f"random_state={self.random_state!r}: expected {allowed}") from None
        return Generator().manual_seed(int(seed))


class GroupSparseDictionaryLearning(Learner):
    r"""Learn a dictionary of groups, by a group-sparse autoencoder or by alternating minimisation.

    For samples in which several groups are active at once, best with init="pairs" and algorithm="alternating". For one
    at a time k-subspaces is enough: see "Which method do I need?" in the book.

    Args:
        n_groups: Gamma, or "auto" for 32, fewer for few samples.
        group_size: d, or "auto" for 4, fewer for few features; or a list with the size of each group, with which a
            larger group explains more samples.
        alpha: the penalty, > 0, in the units of the data: groups whose norm stays below it are inactive; or "auto" for
            that at which, on the start, samples use as many groups as hold a tenth of n_features numbers, at least one
            and at most half of them.
        algorithm: "autoencoder" (transform runs the network), or "alternating" (transform solves the group lasso).
        n_iterations: T, unfolded iterations of the network.
        init: start, "random", "data", "k-means", "neighbors", "k-subspaces", or, for several active groups in a
            sample, "pairs", as in `initialization.initial_dictionary`, from at most 10,000 samples.
        n_init: runs of k-subspaces; the best by its own objective is kept.
        max_iter: epochs, or passes; 0 keeps the start.
        batch_size: samples a step; None for all at once, with which "alternating" is
            `alternating_minimization` on the whole data and never raises its objective.
        learning_rate: of the autoencoder's training.
        checkpoint: a file from which `fit` goes on where an earlier one on the same data was ended, as in `train`; it
            needs a random_state, and the start is found again first.
        output: what `transform` returns: "codes", "norms" of groups, or "normalized norms".
        random_state, device: as in scikit-learn; where to compute. verbose: show progress of training.

    Attributes:
        components_ (components, features), group_size_, alpha_, n_iter_, n_features_in_.
    """

    def __init__(
        self,
        n_groups: int | Literal["auto"] = "auto",
        *,
        group_size: int | Sequence[int] | Literal["auto"] = "auto",
        alpha: float | Literal["auto"] = "auto",
        algorithm: Literal["autoencoder", "alternating"] = "autoencoder",
        n_iterations: int = 10,
        init: Start = "k-subspaces",
        n_init: int = 1,
        max_iter: int = 10,
        batch_size: int | None = 256,
        learning_rate: float = 1e-3,
        checkpoint: str | Path | None = None,
        output: Output = "codes",
        random_state: RandomState = None,
        device: str = "cpu",
        verbose: bool | int = False,
    ) -> None:
        self.n_groups = n_groups
        self.group_size = group_size
        self.alpha = alpha
        self.algorithm = algorithm
        self.n_iterations = n_iterations
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.checkpoint = checkpoint
        self.output = output
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @without_autocast
    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the dictionary; y is ignored.

        Raises:
            TrainingError: no group is active in any sample (lower alpha), or training diverged.
            TypeError: X that is sparse, or holds objects.
        """
        X = self._validate(X, reset=True)
        self._learn(X, *self._sizes(X, 32), self._generator())
        return self


def alpha_for_target_sparsity(
    X: np.ndarray,
    components: np.ndarray,
    groups: Groups,
    n_active: float,
    *,
    n_iterations: int = 10,
    tol: float = 0.05,
) -> float:
    """The penalty at which samples use `n_active` groups on average, by bisection on its logarithm.

    A target sparsity, in place of a penalty, makes dictionaries comparable.

    Args:
        X (samples, features), of which at most 1,000 are used, evenly spaced.
        components (atoms, features): the dictionary's rows. n_active: groups a sample, more than 0.
        n_iterations: of the network that codes, as in the estimators.
        tol: relative, on the activity.

    Raises:
        ValueError: an activity that cannot be reached.
    """
    data = check_samples("X", torch.from_numpy(np.array(as_table("X", X), dtype=np.float64)))
    given = torch.from_numpy(np.array(as_table("components", components), dtype=np.float64))
    dictionary = check_samples("components", given, columns=data.shape[1]).T
    fitting_layout("groups", groups, dictionary.shape[1])
    return set_target_sparsity(_network(dictionary, groups, 0.0, n_iterations), data, n_active, tol=tol)


def _network(dictionary: Tensor, groups: Groups, alpha: float, n_iterations: int) -> GroupSparseAutoencoder:
    n_groups = group_layout(groups).count(dictionary.shape[1])
    return GroupSparseAutoencoder(
        len(dictionary), n_groups, groups, alpha, n_iterations=n_iterations, dictionary=dictionary
    )
