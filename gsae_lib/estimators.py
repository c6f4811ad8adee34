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
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from sklearn.base import ClusterMixin
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from gsae_lib._checks import RandomState, check_choice, check_columns, check_device, check_int, check_real, on_disk
from gsae_lib._estimator import Estimator, Output, precision
from gsae_lib.autoencoder import GroupSparseAutoencoder
from gsae_lib.checkpoints import Checkpoint
from gsae_lib.clustering import spectral_clusters
from gsae_lib.coding import group_sparse_code
from gsae_lib.dictionary_learning import alternating_minimization
from gsae_lib.groups import group_norms
from gsae_lib.initialization import STARTS, Start, initial_dictionary
from gsae_lib.training import TrainingError, TrainingSettings, train

START_SAMPLES = 10_000  # that a start is found from, at most
CLUSTERED = 1_000_000  # samples that k-means clusters, at most, evenly spaced; the others take the nearest cluster
REFERENCES = 10_000  # samples that a spectral clustering keeps to predict new ones
AUTO_GROUP_SIZE = 4


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

    def fit(self, X: Any, y: object = None) -> Self:
        """Check the parameters and the dictionary against the number of features; nothing is learned.

        Raises:
            ValueError: names the parameter, its value and what is allowed; X that is no finite matrix. TypeError: X
                that is sparse, or holds objects.
        """
        X = self._validate(X, reset=True)
        check_real("alpha", self.alpha, strict=True)
        check_choice("output", self.output, get_args(Output))
        check_int("max_iter", self.max_iter)
        check_device(self.device)
        if self.tol is not None:
            check_real("tol", self.tol, strict=True)
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
        check_real("alpha", self.alpha, strict=True)
        check_choice("algorithm", self.algorithm, ("autoencoder", "alternating"))
        check_int("max_iter", self.max_iter, low=0)
        check_int("n_iterations", self.n_iterations)
        check_choice("init", self.init, STARTS)
        check_real("learning_rate", self.learning_rate, strict=True)
        check_device(self.device)
        self._check_checkpoint()
        if len(X) < n_groups * group_size:
            needed = f"at least {n_groups * group_size} for {n_groups} groups of {group_size}"
            raise ValueError(f"n_samples={len(X)}: expected {needed}")
        size = self.batch_size
        if size is not None:
            size = min(check_int("batch_size", size), len(X))
        few = len(X) <= START_SAMPLES
        sample = self._tensor(X if few else X[torch.randperm(len(X), generator=rng)[:START_SAMPLES].numpy()])
        dictionary = initial_dictionary(sample, n_groups, group_size, self.init, n_init=self.n_init, generator=rng)
        if self.max_iter and self.algorithm == "autoencoder":
            model = self._network(dictionary, group_size)
            settings = TrainingSettings(
                epochs=self.max_iter,
                learning_rate=self.learning_rate,
                batch_size=size,
                device=self.device,
                progress=bool(self.verbose),
            )
            data = X if on_disk(X) else self._tensor(X)
            train(model, data, settings, generator=rng, checkpoint=self.checkpoint)
            dictionary = model.weight.detach()
        elif self.max_iter:
            dictionary = alternating_minimization(
                self._tensor(X),
                dictionary,
                self.alpha,
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
        return GroupSparseAutoencoder(*sizes, self.alpha, n_iterations=self.n_iterations, dictionary=dictionary)

    @torch.no_grad()
    def _codes(self, block: Tensor) -> Tensor:
        dictionary = self._weight(block)
        if self.algorithm == "alternating":
            return group_sparse_code(block, dictionary, self.alpha, self.group_size_).codes
        return self._network(dictionary, self.group_size_).encode(block)

    def _sizes(self, X: np.ndarray, wanted: int) -> tuple[int, int]:
        """(groups, group size), "auto" resolved: at most 4 and half the features; `wanted` groups if samples allow."""
        size = self.group_size
        if size == "auto":
            size = max(1, min(AUTO_GROUP_SIZE, X.shape[1] // 2, len(X) // 2))
        check_int("group_size", size, high=X.shape[1])
        groups = self.n_groups
        if groups == "auto":
            groups = max(1, min(wanted, len(X) // (2 * size)))
        return check_int("n_groups", groups), size

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
        alpha: the penalty, > 0, in the units of the data: groups whose norm stays below it are inactive.
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
        components_ (components, features), group_size_, n_iter_, n_features_in_.
    """

    def __init__(
        self,
        n_groups: int | Literal["auto"] = "auto",
        *,
        group_size: int | Literal["auto"] = "auto",
        alpha: float = 0.1,
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

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the dictionary; y is ignored.

        Raises:
            ValueError: names the parameter, its value and what is allowed; data that are not a finite matrix.
            TypeError: X that is sparse, or holds objects.
            TrainingError: no group is active in any sample (lower alpha), or training diverged.
        """
        X = self._validate(X, reset=True)
        check_choice("output", self.output, get_args(Output))
        self._learn(X, *self._sizes(X, 32), self._generator())
        return self


class GroupSparseClustering(ClusterMixin, _Learner):
    r"""Cluster samples by which groups explain them.

    A dictionary of small groups is learned, samples are coded, and the normalised norms ||x_g|| / ||x|| of their groups
    are clustered; `transform` returns them. Kinds that are points or clouds: k-means or a Gaussian mixture does better,
    see "Which method do I need?" in the book.

    Args:
        n_clusters: clusters to find.
        n_groups, group_size, alpha, n_iterations, init, n_init, batch_size, learning_rate, random_state, device: as
            `GroupSparseDictionaryLearning`; "auto" takes 10 groups a cluster.
        checkpoint, verbose: as `GroupSparseDictionaryLearning`.
        max_iter: epochs of training; 0, the default, codes on the start, which on digits is nearly as good.
        assign: "kmeans" on the norms; "spectral", on their graph of 10 nearest neighbours, new samples taking the
            cluster of the nearest one of at most 10,000 kept; or "argmax", one group a cluster, the strongest decides.
        n_components: eigenvectors of "spectral", as in `clustering.spectral_clusters`; None takes n_clusters, and half
            as many more separate clusters that touch.

    Attributes:
        labels_ (samples,), components_, group_size_, n_iter_, n_features_in_, assign_seed_, and cluster_centers_ for
        "kmeans".
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_groups: int | Literal["auto"] = "auto",
        group_size: int | Literal["auto"] = "auto",
        alpha: float = 0.1,
        n_iterations: int = 10,
        init: Start = "k-subspaces",
        n_init: int = 1,
        max_iter: int = 0,
        batch_size: int | None = 256,
        learning_rate: float = 1e-3,
        checkpoint: str | Path | None = None,
        assign: Literal["kmeans", "argmax", "spectral"] = "kmeans",
        n_components: int | None = None,
        random_state: RandomState = None,
        device: str = "cpu",
        verbose: bool | int = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_groups = n_groups
        self.group_size = group_size
        self.alpha = alpha
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

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the dictionary and the clusters; y is ignored.

        Raises:
            ValueError: names the parameter, its value and what is allowed; data that are not a finite matrix.
            TypeError: X that is sparse, or holds objects.
            TrainingError: no group is active in any sample (lower alpha), or training diverged.
        """
        X = self._validate(X, reset=True)
        check_int("n_clusters", self.n_clusters)
        check_choice("assign", self.assign, ("kmeans", "argmax", "spectral"))
        if len(X) < self.n_clusters + (self.assign == "spectral"):
            relation = ">" if self.assign == "spectral" else ">="
            raise ValueError(f"n_samples={len(X)} should be {relation} n_clusters={self.n_clusters}")
        if self.n_components is not None:
            check_int("n_components", self.n_components, high=max(1, len(X) - 1))
        groups, size = self._sizes(X, self.n_clusters if self.assign == "argmax" else 10 * self.n_clusters)
        if self.assign == "argmax" and self.n_groups == "auto":
            groups = self.n_clusters
        if self.assign == "argmax" and groups != self.n_clusters:
            raise ValueError(f"n_groups={groups}: expected n_clusters={self.n_clusters} for assign='argmax'")
        rng = self._generator()
        self._learn(X, groups, size, rng)
        self.assign_seed_ = int(torch.randint(2**31 - 1, (), generator=rng))
        self._assign(X)
        return self

    def recluster(self, X: Any, n_clusters: int) -> Self:
        """A fitted copy with other clusters of the same dictionary, for a fraction of the time of `fit`.

        Args:
            X: the data to cluster, those of `fit` as a rule. n_clusters: 1 to the number of samples, one less for
                "spectral".

        Raises:
            ValueError: X that does not fit what was fitted, n_clusters out of range, or assign="argmax", in which
                clusters are groups. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if self.assign == "argmax":
            raise ValueError("assign='argmax': expected 'kmeans' or 'spectral', to change the number of clusters")
        check_int("n_clusters", n_clusters, high=len(X) - (self.assign == "spectral"))
        other = copy.deepcopy(self).set_params(n_clusters=n_clusters)
        other._assign(X)
        return other

    def _assign(self, X: np.ndarray) -> None:
        """Set labels_ and what `predict` needs."""
        seed, rows = self.assign_seed_, None
        if len(X) > CLUSTERED and self.assign != "spectral":
            rows = np.linspace(0, len(X) - 1, CLUSTERED).astype(np.int64)
        norms = self._represent(X, rows)
        if not norms.any():
            blocks = self._blocks(X, rows)
            largest = max(group_norms(b @ self._weight(b), self.group_size_).max().item() for b in blocks)
            raise TrainingError(f"alpha={self.alpha}: no group is active in any sample; expected below {largest:.3g}")
        if self.assign == "argmax":
            self.labels_ = norms.argmax(axis=1)
        elif self.assign == "kmeans":
            found = KMeans(self.n_clusters, n_init=10, random_state=seed).fit(norms)
            self.labels_, self.cluster_centers_ = found.labels_, found.cluster_centers_
        else:
            neighbors, count = min(10, len(norms)), self.n_components
            settings = {"random_state": seed, "n_components": count}
            self.labels_ = spectral_clusters(torch.from_numpy(norms), self.n_clusters, neighbors, **settings)
            kept = np.sort(np.random.default_rng(seed).permutation(len(norms))[:REFERENCES])
            self.reference_norms_, self.reference_labels_ = norms[kept], self.labels_[kept]
        if rows is not None:
            self.labels_ = self._labels(X)

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
        if self.assign == "argmax":
            return norms.argmax(axis=1)
        if self.assign == "kmeans":
            return pairwise_distances_argmin(norms, self.cluster_centers_.astype(norms.dtype)).astype(np.int32)
        return self.reference_labels_[pairwise_distances_argmin(norms, self.reference_norms_)]

    def _expected(self, n_components: int, n_features: int) -> dict[str, tuple[Any, ...]]:
        """Also labels and what `predict` needs."""
        n_groups, last = n_components // self.group_size_, self.n_clusters - 1
        more: dict[str, tuple[Any, ...]] = {"labels_": (0, last, (None,)), "assign_seed_": (0, 2**31 - 1)}
        if self.assign == "kmeans":
            more["cluster_centers_"] = (None, None, (self.n_clusters, n_groups))
        elif self.assign == "spectral":
            n_kept = min(len(getattr(self, "labels_", ())), REFERENCES)
            more |= {"reference_norms_": (None, None, (n_kept, n_groups)), "reference_labels_": (0, last, (n_kept,))}
        elif n_groups != self.n_clusters:
            raise ValueError(f"n_clusters={self.n_clusters}: what was fitted has {n_groups} groups, one a cluster")
        return super()._expected(n_components, n_features) | more


def _matrix(dictionary: Any) -> np.ndarray:
    """A given dictionary as an array, or ValueError."""
    try:
        return np.array(dictionary)
    except ValueError as error:  # rows of other lengths
        raise ValueError(f"dictionary: {error}") from None
