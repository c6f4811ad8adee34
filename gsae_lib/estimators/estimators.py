r"""scikit-learn estimators: code with a dictionary, learn one, cluster with group norms.

Names and shapes are scikit-learn's here: `alpha` is the penalty lambda, `components_` the transposed dictionary W^T,
(components, features), and arrays are numpy arrays. float32 stays float32, everything else becomes float64. Samples are
coded in blocks, so memory beyond the data and the result does not grow.

Data may be larger than memory, as a numpy memory map of any real dtype (`np.load(path, mmap_mode="r")`). They are
checked first, from beginning to end, and then read a block or a batch at a time. Memory holds 8 bytes a sample in
`fit`, for their order; what `transform` returns; labels; and norms of at most 1,000,000 samples, or of all for
assign="spectral". `batch_size=None` and algorithm="alternating" hold all data, the latter the codes too.

`output` says what `transform` returns: "codes" x, "norms" of groups ||x_g||, in the units of the code, or "normalized
norms" ||x_g|| / ||x||, of unit length, zero for a zero code. `GroupSparseClustering` clusters, and returns, the last.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast, get_args, get_type_hints

import numpy as np
import torch
from sklearn.base import ClusterMixin, clone
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from gsae_lib._checks import (
    LARGEST,
    RandomState,
    check_choice,
    check_columns,
    check_int,
    check_real,
    on_disk,
    without_autocast,
)
from gsae_lib.clustering import cluster_norms, spectral_clusters
from gsae_lib.coding.group_lasso import group_sparse_code
from gsae_lib.estimators._base import SCORED_SHARE, Estimator, Output, precision
from gsae_lib.estimators.evidence import (
    Split,
    SubspaceEvidence,
    WeighedSubspaces,
    fits_subspaces,
    held_out_log_likelihood,
    principal_components,
    split_samples,
    weigh_subspaces,
)
from gsae_lib.groups import group_norms
from gsae_lib.learning.alternating import alternating_minimization
from gsae_lib.learning.initialization import Start, initial_dictionary
from gsae_lib.metrics import reconstruct_from_strongest
from gsae_lib.networks.autoencoder import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.training.checkpoints import Checkpoint
from gsae_lib.training.loop import TrainingError, TrainingSettings, train

Assignment = Literal["kmeans", "argmax", "spectral"]

MANY_GROUPS = 20  # from which on one run of k-subspaces is made
START_SAMPLES = 10_000  # that a start is found from, at most
CLUSTERED = 1_000_000  # samples that k-means clusters, at most, evenly spaced; the others take the nearest cluster
GRAPHED = 100_000  # samples that a spectral clustering puts in its graph, at most, evenly spaced
REFERENCES = 10_000  # samples that a spectral clustering keeps to predict new ones
AUTO_GROUP_SIZE = 4
LARGEST_INTERCEPT = 10**6  # in units of the samples' lengths
AUTO_LIFTED_GROUP_SIZE = 2  # of samples with an intercept
AUTO_SHARE = 0.35  # of the groups that a sample uses at alpha="auto", for clusters
AUTO_COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20)  # of clusters that "auto" tries
TOLERANCE = 0.2  # in the agreement of halves, within which numbers of clusters are equally stable
JUDGED = 2_000  # samples that weigh subspaces against centres, at most


class GroupSparseCoder(Estimator):
    r"""Group-sparse codes with a given dictionary, to a certified gap.

    .. math:: \min_x \tfrac12 \|y - D^T x\|^2 + \alpha \sum_g \|x_g\|

    For samples in which several groups are active at once. With one, or with fewer components than features, filters or
    ridge regression tell as much: see "Which method do I need?" in the book.

    Args:
        dictionary: D, (components, features), groups of adjacent rows; None for the identity, with which coding is the
            group ReLU.
        group_size: d. alpha: the penalty, > 0, in the units of the data.
        output: "codes", "norms" of groups, or "normalized norms".
        max_iter, tol: of `group_sparse_code`. device: where to compute. verbose: show progress of coding.
    """

    LEAST: ClassVar[dict[str, int]] = Estimator.LEAST | {"max_iter": 1}

    def __init__(
        self,
        dictionary: np.ndarray | None = None,
        *,
        group_size: int = 1,
        alpha: float = 0.1,
        output: Output = "codes",
        max_iter: int = 10_000,
        tol: float | None = None,
        device: str = "cpu",
        verbose: bool | int = False,
    ) -> None:
        self.dictionary = dictionary
        self.group_size = group_size
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
            ValueError: names the parameter, its value and what is allowed; X that is no finite matrix. TypeError: X
                that is sparse, or holds objects.
        """
        X = self._validate(X, reset=True)
        components = np.eye(X.shape[1], dtype=precision(X)) if self.dictionary is None else _matrix(self.dictionary)
        if components.ndim != 2 or not len(components) or components.shape[1] != X.shape[1]:
            raise ValueError(f"dictionary: expected (components, {X.shape[1]}), got {components.shape}")
        if components.dtype not in (np.float32, np.float64) or not np.isfinite(components).all():
            raise ValueError(f"dictionary: expected finite float32 or float64, got {components.dtype}")
        check_columns("dictionary", components)
        if len(components) % check_int("group_size", self.group_size):
            raise ValueError(f"group_size={self.group_size}: does not divide {len(components)} components")
        self.components_ = components
        self.group_size_ = int(self.group_size)
        self.n_iter_ = 1  # nothing is learned; max_iter is a limit of coding
        return self

    def _codes(self, block: Tensor) -> Tensor:
        found = group_sparse_code(
            block,
            self._weight(block),
            self.alpha,
            self.group_size_,
            tol=self.tol,
            max_iter=self.max_iter,
            progress=bool(self.verbose),
        )
        return found.codes


class _Learner(Estimator):
    """Estimators that learn a dictionary first."""

    def _learn(self, X: np.ndarray, n_groups: int, group_size: int, rng: Generator) -> None:
        """Set components_, group_size_, n_iter_."""
        self._check_checkpoint()
        if len(X) < n_groups * group_size:
            needed = f"at least {n_groups * group_size} for {n_groups} groups of {group_size}"
            raise ValueError(f"n_samples={len(X)}: expected {needed}")
        size = None if self.batch_size is None else min(self.batch_size, len(X))
        few = len(X) <= START_SAMPLES
        sample = self._tensor(X if few else X[torch.randperm(len(X), generator=rng)[:START_SAMPLES].numpy()])
        self._set_intercept(sample)
        sample = self._lift(sample)
        n_init = self.n_init if self.n_init != "auto" else 10 if n_groups < MANY_GROUPS else 1
        dictionary = initial_dictionary(sample, n_groups, group_size, self.init, n_init=n_init, generator=rng)
        self.alpha_ = self.alpha if self.alpha != "auto" else self._auto_alpha(sample, dictionary, group_size)
        if self.max_iter and self.algorithm == "autoencoder":
            model = self._network(dictionary, group_size)
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
                group_size,
                max_iter=self.max_iter,
                batch_size=size,
                generator=rng,
                progress=bool(self.verbose),
            ).dictionary
        self.components_ = dictionary.T.contiguous().cpu().numpy()
        self.group_size_ = group_size
        self.n_iter_ = max(self.max_iter, 1)

    def _tensor(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(X, dtype=precision(X), order="C")).to(self.device)

    def _network(self, dictionary: Tensor, group_size: int) -> GroupSparseAutoencoder:
        sizes = (dictionary.shape[0], dictionary.shape[1] // group_size, group_size)
        return GroupSparseAutoencoder(*sizes, self.alpha_, n_iterations=self.n_iterations, dictionary=dictionary)

    @torch.no_grad()
    def _codes(self, block: Tensor) -> Tensor:
        dictionary = self._weight(block)
        if self.algorithm == "alternating":
            return group_sparse_code(block, dictionary, self.alpha_, self.group_size_).codes
        return self._network(dictionary, self.group_size_).encode(self._lift(block))

    def _set_intercept(self, sample: Tensor) -> None:
        """Set intercept_, if the estimator has one."""

    def _lift(self, block: Tensor) -> Tensor:
        """What is coded in place of the samples."""
        return block

    def _has_intercept(self) -> bool:
        return False

    def _active_groups(self, n_groups: int, group_size: int, n_features: int) -> float:
        """Groups that a sample uses at alpha="auto"."""
        return min(max(1.0, n_features / (SCORED_SHARE * group_size)), 0.5 * n_groups)

    def _auto_alpha(self, sample: Tensor, dictionary: Tensor, group_size: int) -> float:
        """The penalty of the target sparsity, or, if none has it, a thousandth of that at which no group is active."""
        n_features, n_groups = len(dictionary), dictionary.shape[1] // group_size
        model = GroupSparseAutoencoder(
            n_features, n_groups, group_size, 0.0, n_iterations=self.n_iterations, dictionary=dictionary
        )
        try:
            return set_target_sparsity(model, sample, self._active_groups(n_groups, group_size, n_features))
        except ValueError:
            largest = group_norms(sample @ dictionary, group_size).max().item()
            return max(1e-3 * largest, torch.finfo(sample.dtype).tiny)

    def _sizes(self, X: np.ndarray, wanted: int) -> tuple[int, int]:
        """(groups, group size), "auto" resolved: at most 4 and half the features; `wanted` groups if samples allow."""
        size = self.group_size
        if size == "auto":
            size = max(1, min(self._auto_group_size(), X.shape[1] // 2, len(X) // 2))
        check_int("group_size", size, high=X.shape[1])
        groups = self.n_groups
        if groups == "auto":
            groups = max(1, min(wanted, len(X) // (2 * size)))
        return check_int("n_groups", groups), size

    def _expected(self, n_components: int, n_features: int) -> dict[str, Any]:
        return super()._expected(n_components, n_features) | {"alpha_": partial(check_real, strict=True)}

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


class GroupSparseDictionaryLearning(_Learner):
    r"""Learn a dictionary of groups, by a group-sparse autoencoder or by alternating minimisation.

    For samples in which several groups are active at once, best with init="pairs" and algorithm="alternating". For one
    at a time k-subspaces is enough: see "Which method do I need?" in the book.

    Args:
        n_groups: Gamma, or "auto" for 32, fewer for few samples.
        group_size: d, or "auto" for 4, fewer for few features.
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
            `dictionary_learning.alternating_minimization` on the whole data and never raises its objective.
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
        group_size: int | Literal["auto"] = "auto",
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
            ValueError: names the parameter, its value and what is allowed; data that are not a finite matrix.
            TypeError: X that is sparse, or holds objects.
            TrainingError: no group is active in any sample (lower alpha), or training diverged.
        """
        X = self._validate(X, reset=True)
        self._learn(X, *self._sizes(X, 32), self._generator())
        return self


class GroupSparseClustering(ClusterMixin, _Learner):
    r"""Cluster samples by which groups explain them.

    A dictionary of small groups is learned, samples are coded, and the normalised norms ||x_g|| / ||x|| of their groups
    are clustered; `transform` returns them. With alpha="auto" and nothing else said, everything is chosen from the
    data, in any units: a constant feature, c times the root mean square of the samples' lengths, is added to each
    sample, which is then given unit length. Subspaces of these are flats that need not pass through the origin, so that
    balls are not lost: two of them on opposite sides of the origin lie in one subspace, and in different flats.

    Whether the data look like a union of subspaces, or like balls around centres, for which k-means is the better tool,
    is told by `fits_subspaces_`, with the evidence. Columns of different units need scaling first:
    `selection.choose_clustering` chooses that too.

    Args:
        n_clusters: clusters to find, or "auto": of the numbers from 2 to 20 on which halves of the samples agree nearly
            as well as on any, by 0.2 in adjusted Rand index, that in whose clusters samples that were held out are
            likeliest, as `unions.held_out_log_likelihood` says.
        n_groups, group_size, n_iterations, init, batch_size, learning_rate, random_state, device: as
            `GroupSparseDictionaryLearning`; n_groups="auto" takes 10 groups a cluster, and 100 for n_clusters="auto";
            group_size="auto" takes 2 where there is an intercept.
        n_init: runs of k-subspaces, the best by its own objective is kept; "auto" makes ten for fewer than 20 groups,
            of which a single run often misses some, and one for more.
        alpha: the penalty, > 0, in the units of what is coded, or "auto" for that at which samples use 0.35 of the
            groups.
        intercept: c from 0 to 1,000,000; 0 codes the samples as they are; "auto" is 1 with alpha="auto", and 0 with a
            number.
        checkpoint, verbose: as `GroupSparseDictionaryLearning`.
        max_iter: epochs of training; 0, the default, codes on the start, which on digits is nearly as good.
        assign: "kmeans" on the norms; "spectral", on the graph of 10 nearest neighbours of at most 100,000 samples,
            evenly spaced, others and new ones taking the cluster of the nearest one of at most 10,000 kept; "argmax",
            one group a cluster, the strongest decides; or "auto": with alpha="auto" the one of the first two on which
            halves of the samples agree better, and "kmeans" with a number.
        n_components: eigenvectors of "spectral", as in `clustering.spectral_clusters`; None takes n_clusters, and half
            as many more separate clusters that touch.

    Attributes:
        labels_ (samples,), n_clusters_, components_, with a column more where there is an intercept, group_size_,
        alpha_, assign_, intercept_, the constant in the units of the data, n_iter_, n_features_in_, assign_seed_, and
        cluster_centers_ for "kmeans". With alpha="auto" also evidence_, a dictionary of the fields of
        `unions.SubspaceEvidence`, from at most 2,000 samples, and fits_subspaces_; None for fewer than four samples a
        cluster.
    """

    LEAST: ClassVar = _Learner.LEAST | {"intercept": 0}
    MOST: ClassVar = _Learner.MOST | {"intercept": LARGEST_INTERCEPT}

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = 8,
        *,
        n_groups: int | Literal["auto"] = "auto",
        group_size: int | Literal["auto"] = "auto",
        alpha: float | Literal["auto"] = "auto",
        intercept: float | Literal["auto"] = "auto",
        n_iterations: int = 10,
        init: Start = "k-subspaces",
        n_init: int | Literal["auto"] = "auto",
        max_iter: int = 0,
        batch_size: int | None = 256,
        learning_rate: float = 1e-3,
        checkpoint: str | Path | None = None,
        assign: Literal["auto"] | Assignment = "auto",
        n_components: int | None = None,
        random_state: RandomState = None,
        device: str = "cpu",
        verbose: bool | int = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_groups = n_groups
        self.group_size = group_size
        self.alpha = alpha
        self.intercept = intercept
        self.n_iterations = n_iterations
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.checkpoint = checkpoint
        self.assign = assign
        self.n_components = n_components
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    algorithm = "autoencoder"
    output = "normalized norms"

    @without_autocast
    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the dictionary and the clusters; y is ignored.

        Raises:
            ValueError: names the parameter, its value and what is allowed; data that are not a finite matrix.
            TypeError: X that is sparse, or holds objects.
            TrainingError: no group is active in any sample (lower alpha), or training diverged.
        """
        X = self._validate(X, reset=True)
        self._learn_groups(X)
        judged, splits = np.empty((0, X.shape[1])), []
        if "auto" in (self.alpha, self.n_clusters):
            judged = np.array(X[_spread_rows(len(X), JUDGED)], dtype=np.float64)
            splits = self._split(judged, 2)
        self._cluster(X, judged, splits)
        if self.alpha == "auto":
            weighed = self._weigh(judged, splits)
            self.evidence_ = None if weighed is None else dataclasses.asdict(weighed.evidence)
            self.fits_subspaces_ = None if weighed is None else fits_subspaces(weighed.evidence)
        return self

    def _learn_groups(self, X: np.ndarray) -> None:
        """The first part of `fit`: the dictionary, of samples that are validated."""
        self._forget("evidence_", "fits_subspaces_")
        wanted, groups = self._wanted_clusters(X), self._auto_groups()
        if len(X) < wanted + (self.assign == "spectral"):
            relation = ">" if self.assign == "spectral" else ">="
            raise ValueError(f"n_samples={len(X)} should be {relation} n_clusters={wanted}")
        if self.n_components is not None:
            check_int("n_components", self.n_components, high=max(1, len(X) - 1))
        groups, size = self._sizes(X, groups)
        if self.assign == "argmax" and self.n_groups == "auto":
            groups = wanted
        if self.assign == "argmax" and groups != wanted:
            raise ValueError(f"n_groups={groups}: expected n_clusters={wanted} for assign='argmax'")
        rng = self._generator()
        self._learn(X, groups, size, rng)
        self.assign_seed_ = int(torch.randint(2**31 - 1, (), generator=rng))

    def _forget(self, *names: str) -> None:
        for name in names:
            if hasattr(self, name):
                delattr(self, name)

    def _wanted_clusters(self, X: np.ndarray) -> int:
        """The number of clusters, the smallest for "auto"."""
        if self.n_clusters != "auto":
            return int(self.n_clusters)
        if self.assign == "argmax":
            raise ValueError("n_clusters='auto': expected a number for assign='argmax', one group a cluster")
        return 3  # samples, at least

    def _auto_groups(self) -> int:
        return 100 if self.n_clusters == "auto" else (1 if self.assign == "argmax" else 10) * self.n_clusters

    def _split(self, X: np.ndarray, n_splits: int) -> list[Split]:
        """Copies with the same penalty, fitted to halves of the samples.

        None where these are too few, or no group is active in one.
        """
        size, count = self.group_size_, 2 if self.n_clusters == "auto" else self.n_clusters
        if len(X) < 4 * count:
            return []
        groups = count if self.assign == "argmax" else min(len(self.components_) // size, len(X) // (4 * size))
        one = clone(self).set_params(n_clusters=count, n_groups=max(1, groups), group_size=size, alpha=self.alpha_)
        one.set_params(intercept=self._intercept(), max_iter=0, checkpoint=None, random_state=self.assign_seed_)
        try:
            return split_samples(len(X), lambda rows: clone(one).fit(X[rows]), n_splits, random_state=self.assign_seed_)
        except TrainingError:  # a half in which no group is active tells nothing
            return []

    def _cluster(self, X: np.ndarray, judged: np.ndarray, splits: Sequence[Split]) -> None:
        """The second part of `fit`: how many clusters, and how they are assigned; `judged` are some of the samples."""
        counts = [2 if self.n_clusters == "auto" else int(self.n_clusters)]
        if self.n_clusters == "auto" and splits:
            counts = numbers_of_clusters(len(judged))
        if self.assign != "auto":
            ways: tuple[Assignment, ...] = (self.assign,)
        elif self.alpha == "auto" and splits:
            ways = ("kmeans", "spectral")
        else:
            ways = ("kmeans",)
        self.n_clusters_, self.assign_ = counts[0], ways[0]
        if len(counts) > 1 or len(ways) > 1:
            self.n_clusters_, self.assign_ = self._choose(judged, splits, counts, ways)
        self._assign(X)

    def _choose(
        self, X: np.ndarray, splits: Sequence[Split], counts: Sequence[int], ways: Sequence[Assignment]
    ) -> tuple[int, Assignment]:
        """For each number of clusters the way on which halves agree best; of these numbers, among those on which they

        agree within TOLERANCE of the best, the one in whose clusters samples that were held out are likeliest.
        """
        agreement = np.zeros((len(counts), len(ways), len(splits)))
        likelihood = np.zeros((len(counts), len(ways)))
        shown, seed = principal_components(X), self.assign_seed_
        for column, split in enumerate(splits):
            halves = ((cast(GroupSparseClustering, model), half) for model, half in split.pairs())
            norms = [(model._represent(X[half]), model._represent(X)) for model, half in halves]
            for (row, count), (k, way) in itertools.product(enumerate(counts), enumerate(ways)):
                pairs = [cluster_norms(*pair, count, way, random_state=seed) for pair in norms]
                agreement[row, k, column] = adjusted_rand_score(pairs[0][1], pairs[1][1])
                for (labels, _), half, other in zip(pairs, split.halves, split.halves[::-1], strict=True):
                    likelihood[row, k] += held_out_log_likelihood(shown[half], labels, shown[other]).sum()
        means = agreement.mean(axis=2)
        best = means.argmax(axis=1)
        stable = means.max(axis=1) >= means.max() - TOLERANCE
        row = int(np.where(stable, likelihood[np.arange(len(counts)), best], -np.inf).argmax())
        return counts[row], ways[best[row]]

    def _recut(self, X: np.ndarray, splits: Sequence[Split], assign: Assignment) -> list[Split]:
        """The same halves and dictionaries with this number of clusters, assigned so; groups stay clusters."""
        if assign == "argmax":
            return list(splits)
        cut = []
        for split in splits:
            pairs = ((cast(GroupSparseClustering, model), half) for model, half in split.pairs())
            one, other = (model._cut(X[half], self.n_clusters_, assign) for model, half in pairs)
            cut.append(Split(split.halves, (one, other)))
        return cut

    def _cut(self, X: np.ndarray, n_clusters: int, assign: Assignment) -> "GroupSparseClustering":
        return copy.deepcopy(self).set_params(assign=assign).recluster(X, n_clusters)

    def _assignment(self) -> Assignment:
        return self.assign_ if self.assign == "auto" else self.assign

    def _weigh(self, X: np.ndarray, splits: Sequence[Split]) -> WeighedSubspaces | None:
        """The evidence of the splits, at the number of clusters; None for too few samples, or one cluster."""
        count = self.n_clusters_
        if not splits or not 2 <= count <= len(X) // 4:
            return None
        splits = self._recut(X, splits, self._assignment())
        return weigh_subspaces(X, splits, count, self.group_size_, random_state=self.assign_seed_)

    def _intercept(self) -> float:
        """The intercept in units of the samples' lengths, "auto" resolved."""
        if self.intercept == "auto":
            return 1.0 if self.alpha == "auto" else 0.0
        return check_real("intercept", self.intercept, high=LARGEST_INTERCEPT)

    def _set_intercept(self, sample: Tensor) -> None:
        self.intercept_ = self._intercept() * sample.square().sum(dim=1, dtype=torch.float64).mean().sqrt().item()

    def _has_intercept(self) -> bool:
        return self.intercept_ != 0

    def _lift(self, block: Tensor) -> Tensor:
        """The samples with the constant, at unit length, or as they are without one."""
        constant = self.intercept_
        if constant == 0:
            return block
        lifted = torch.nn.functional.pad(block, (0, 1), value=constant)
        return lifted / torch.linalg.vector_norm(lifted, dim=1, keepdim=True)

    def _active_groups(self, n_groups: int, group_size: int, n_features: int) -> float:
        return AUTO_SHARE * n_groups

    def _auto_group_size(self) -> int:
        return AUTO_LIFTED_GROUP_SIZE if self._intercept() else AUTO_GROUP_SIZE

    def _rebuilt(self, block: Tensor, count: int) -> Tensor:
        codes, lifted = self._codes(block), self._lift(block)
        rebuilt = reconstruct_from_strongest(lifted, self._weight(block), codes, count, self.group_size_)
        if lifted is block:
            return rebuilt
        return rebuilt[:, :-1] * (self.intercept_ / lifted[:, -1:])

    @without_autocast
    def recluster(self, X: Any, n_clusters: int) -> Self:
        """A fitted copy with other clusters of the same dictionary, for a fraction of the time of `fit`.

        What weighed the clusters before says nothing of them: `evidence_` is None.

        Args:
            X: the data to cluster, those of `fit` as a rule. n_clusters: 1 to the number of samples, one less for
                "spectral".

        Raises:
            ValueError: X that does not fit what was fitted, n_clusters out of range, or assign="argmax", in which
                clusters are groups. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if self._assignment() == "argmax":
            raise ValueError("assign='argmax': expected 'kmeans' or 'spectral', to change the number of clusters")
        check_int("n_clusters", n_clusters, high=len(X) - (self._assignment() == "spectral"))
        other = copy.deepcopy(self).set_params(n_clusters=n_clusters)
        other.n_clusters_ = n_clusters
        if self.alpha == "auto":  # they were about the clusters before
            other.evidence_ = other.fits_subspaces_ = None
        other._assign(X)
        return other

    def _assign(self, X: np.ndarray) -> None:
        """Set labels_ and what `predict` needs, and nothing of an assignment before."""
        self._forget("cluster_centers_", "reference_norms_", "reference_labels_")
        seed, rows = self.assign_seed_, None
        most = GRAPHED if self._assignment() == "spectral" else CLUSTERED
        if len(X) > most:
            rows = np.linspace(0, len(X) - 1, most).astype(np.int64)
        norms = self._represent(X, rows)
        if not norms.any():
            blocks = self._blocks(X, rows)
            lifted = (self._lift(block) for block in blocks)
            largest = max(group_norms(b @ self._weight(b), self.group_size_).max().item() for b in lifted)
            if not largest:
                raise TrainingError("X: all samples are zero, or so small that their squares are")
            raise TrainingError(f"alpha={self.alpha_}: no group is active in any sample; expected below {largest:.3g}")
        if self._assignment() == "argmax":
            self.labels_ = norms.argmax(axis=1)
        elif self._assignment() == "kmeans":
            found = KMeans(self.n_clusters_, n_init=10, random_state=seed).fit(norms)
            self.labels_, self.cluster_centers_ = found.labels_, found.cluster_centers_
        else:
            neighbors, count = min(10, len(norms)), self.n_components
            settings = {"random_state": seed, "n_components": count}
            self.labels_ = spectral_clusters(torch.from_numpy(norms), self.n_clusters_, neighbors, **settings)
            kept = np.sort(np.random.default_rng(seed).permutation(len(norms))[:REFERENCES])
            self.reference_norms_, self.reference_labels_ = norms[kept], self.labels_[kept]
        if rows is not None:
            found, self.labels_ = self.labels_, self._labels(X)
            self.labels_[rows] = found

    @without_autocast
    def predict(self, X: Any) -> np.ndarray:
        """The cluster of each sample, (samples,), of new data too.

        Raises:
            ValueError: X that does not fit what was fitted. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        return self._labels(self._validate(X, reset=False))

    def _labels(self, X: np.ndarray) -> np.ndarray:
        """The cluster of each sample, a block at a time."""
        return np.concatenate([self._nearest(norms) for norms in self._represented(X)])

    def _nearest(self, norms: np.ndarray) -> np.ndarray:
        """The cluster of each row of norms."""
        if self._assignment() == "argmax":
            return norms.argmax(axis=1)
        if self._assignment() == "kmeans":
            return pairwise_distances_argmin(norms, self.cluster_centers_.astype(norms.dtype)).astype(np.int32)
        return self.reference_labels_[pairwise_distances_argmin(norms, self.reference_norms_)]

    def _expected(self, n_components: int, n_features: int) -> dict[str, Any]:
        """Also labels, what `predict` needs, and what was chosen."""
        count = check_int("n_clusters_", getattr(self, "n_clusters_", 0))
        if self.n_clusters not in ("auto", count):
            raise ValueError(f"n_clusters={self.n_clusters}: what was fitted has {count}")
        n_groups, last = n_components // self.group_size_, count - 1
        check_choice("assign_", getattr(self, "assign_", None), get_args(Assignment))
        if self.assign not in ("auto", self.assign_):
            raise ValueError(f"assign={self.assign!r}: what was fitted has {self.assign_!r}")
        self.intercept_ = check_real("intercept_", getattr(self, "intercept_", -1.0), high=LARGEST[torch.float64])
        n_given = n_features - self._has_intercept()
        more: dict[str, Any] = {"n_clusters_": (1, count), "assign_": _allow, "intercept_": _allow}
        more |= {"labels_": (0, last, (None,)), "assign_seed_": (0, 2**31 - 1), "n_features_in_": (n_given, n_given)}
        if self.alpha == "auto":
            more |= {"evidence_": _check_evidence, "fits_subspaces_": self._check_verdict}
        if self.assign_ == "kmeans":
            more["cluster_centers_"] = (None, None, (count, n_groups))
        elif self.assign_ == "spectral":
            n_kept = min(len(getattr(self, "labels_", ())), REFERENCES)
            more |= {"reference_norms_": (None, None, (n_kept, n_groups)), "reference_labels_": (0, last, (n_kept,))}
        elif n_groups != count:
            raise ValueError(f"n_clusters_={count}: what was fitted has {n_groups} groups, one a cluster")
        return super()._expected(n_components, n_features) | more

    def _check_verdict(self, name: str, value: Any) -> None:
        wanted = None if self.evidence_ is None else fits_subspaces(SubspaceEvidence(**self.evidence_))
        if value is not wanted:
            raise ValueError(f"{name}={value!r}: the evidence says {wanted}")


def _allow(name: str, value: Any) -> None:
    """What is checked elsewhere."""


def _check_evidence(name: str, value: Any) -> None:
    """ValueError unless a value has the fields of `SubspaceEvidence`, or is None."""
    if value is None:
        return
    fields = get_type_hints(SubspaceEvidence)
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise ValueError(f"{name}: expected the fields {', '.join(fields)}")
    for field, kind in fields.items():
        if kind is int:
            check_int(field, value[field])
        elif isinstance(value[field], bool) or not isinstance(value[field], int | float):
            raise ValueError(f"{name}: {field}={str(value[field])[:40]!r}: expected a number")


def _matrix(dictionary: Any) -> np.ndarray:
    """A given dictionary as an array, or ValueError."""
    try:
        return np.array(dictionary, order="C")
    except ValueError as error:  # rows of other lengths
        raise ValueError(f"dictionary: {error}") from None


def numbers_of_clusters(n_samples: int) -> list[int]:
    """The numbers of clusters that "auto" tries: those with ten samples a cluster, or 2.

    Raises:
        ValueError: fewer than three samples.
    """
    check_int("n_samples", n_samples, low=3)
    return [count for count in AUTO_COUNTS if 10 * count <= n_samples] or [2]


def _spread_rows(n_samples: int, most: int) -> np.ndarray:
    """Rows, evenly spaced, at most so many."""
    return np.unique(np.linspace(0, n_samples - 1, min(most, n_samples)).astype(np.int64))
