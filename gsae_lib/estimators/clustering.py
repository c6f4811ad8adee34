r"""Cluster samples by which groups explain them, or by k-means where the data do not look like subspaces; no labels."""

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast, get_args, get_type_hints

import numpy as np
import torch
from sklearn.base import ClusterMixin, clone
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from gsae_lib._checks import LARGEST, RandomState, as_seed, check_choice, check_int, check_real, without_autocast
from gsae_lib.clustering import cluster_norms, silhouettes, spectral_clusters
from gsae_lib.estimators._base import allow
from gsae_lib.estimators.certainty import cluster_means, confidences, margins
from gsae_lib.estimators.dictionary import AUTO_GROUP_SIZE, Learner
from gsae_lib.estimators.evidence import (
    Clusterer,
    Split,
    SubspaceEvidence,
    WeighedSubspaces,
    certainty,
    fits_subspaces,
    held_out_log_likelihood,
    judgement,
    principal_components,
    split_samples,
    weigh_subspaces,
)
from gsae_lib.estimators.scaling import (
    ChosenScaling,
    Scaling,
    ScalingMethod,
    choose_scaling,
    fit_scaling,
    sample_rows,
)
from gsae_lib.groups import group_norms
from gsae_lib.learning.initialization import Start
from gsae_lib.training.loop import TrainingError

Assignment = Literal["kmeans", "argmax", "spectral"]
Callback = Callable[[str, float], None]

CLUSTERED = 1_000_000  # samples that k-means clusters, at most, evenly spaced; the others take the nearest cluster
GRAPHED = 100_000  # samples that a spectral clustering puts in its graph, at most, evenly spaced
REFERENCES = 10_000  # samples that a spectral clustering keeps to predict new ones
LARGEST_INTERCEPT = 10**6  # in units of the samples' lengths
AUTO_LIFTED_GROUP_SIZE = 2  # of samples with an intercept
AUTO_SHARE = 0.35  # of the groups that a sample uses at alpha="auto", for clusters
AUTO_COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20)  # of clusters that "auto" tries
TOLERANCE = 0.2  # in the agreement of halves, within which numbers of clusters are equally stable
JUDGED = 2_000  # samples that weigh subspaces against centres, at most

# With method="auto":
CHOSEN_FROM, FITTED = 2_000, 20_000  # samples that choose, and that the model is fitted to, at most
SAMPLES_A_SECOND = 20_000  # that choose, times their features and EFFORT more: what one core of 2020 manages
EFFORT = 100
SMALLEST = 200  # samples that choose, however short the time
SURE = 20_000  # samples above which only the clusterings of one split tell the confidence


class GroupSparseClustering(ClusterMixin, Learner):
    r"""Cluster samples by which groups explain them.

    A dictionary of small groups is learned, samples are coded, and the normalised norms ||x_g|| / ||x|| of their groups
    are clustered; `transform` returns them. With alpha="auto" and nothing else said, everything is chosen from the
    data, in any units: a constant feature, c times the root mean square of the samples' lengths, is added to each
    sample, which is then given unit length. Subspaces of these are flats that need not pass through the origin, so that
    balls are not lost: two of them on opposite sides of the origin lie in one subspace, and in different flats.

    Whether the data look like a union of subspaces, or like balls around centres, for which k-means is the better tool,
    is told by `fits_subspaces_`, with the evidence. With method="auto" it decides: samples are scaled as their columns
    call for, clustered by group norms and by k-means, and the clusters are those of the one to believe.

    Args:
        n_clusters: clusters to find, or "auto": of the numbers from 2 to 20 on which halves of the samples agree nearly
            as well as on any, by 0.2 in adjusted Rand index, that in whose clusters samples that were held out are
            likeliest, as `evidence.held_out_log_likelihood` says; for k-means that of the largest silhouette.
        method: "groups", by group norms; "kmeans"; or "auto", the one of the two that the evidence speaks for.
        scaling: with method="auto" and "kmeans", as `scaling.fit_scaling`, or "auto" for `scaling.choose_scaling`; with
            "groups" samples are taken as they are.
        seconds: with method="auto", what the choice may take, roughly. Of large tables it decides how many samples
            choose, at most 2,000, and how many the model is fitted to, at most 20,000; the others are given clusters at
            the end, which is not counted. If the clock runs ahead all the same, there are fewer splits.
        n_splits: with method="auto", splits in halves, for evidence and confidence.
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
        `evidence.SubspaceEvidence`, from at most 2,000 samples, and fits_subspaces_; None for fewer than four samples a
        cluster.

        With method="auto" or "kmeans" these are of the scaled samples, and those of the dictionary are there where
        method_, "groups" or "kmeans", says so; cluster_centers_ are in the space of what `transform` returns, which is
        the scaled samples for "kmeans". Besides there are mean_ and spread_ (features,), scaling_, the `Scaling` of
        both, scaling_method_ and scaling_reason_; evidence_ and fits_subspaces_, of the two at the model's number of
        clusters, None where the table is too small for any, or all zero once scaled; reason_ and certainty_, why
        method_ was taken and how sure that is, in a sentence each, the latter None without evidence; model_labels_, of
        group norms, None without evidence, and baseline_labels_, of k-means at n_clusters, or at a number of its own;
        confidence_ (samples,), from 0 to 1, the share of clusterings of random halves that put the sample in the same
        cluster; margin_ (samples,), how much farther the mean of the next cluster is than that of the own one, as a
        share of the distance to the next, negative where another is nearer; and seconds_, used.
    """

    LEAST: ClassVar = Learner.LEAST | {"intercept": 0}
    MOST: ClassVar = Learner.MOST | {"intercept": LARGEST_INTERCEPT}

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = 8,
        *,
        method: Literal["auto", "groups", "kmeans"] = "groups",
        scaling: Literal["auto"] | ScalingMethod = "auto",
        seconds: float = 60.0,
        n_splits: int = 3,
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
        self.method = method
        self.scaling = scaling
        self.seconds = seconds
        self.n_splits = n_splits
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

    labels_: np.ndarray
    n_clusters_: int
    assign_: Assignment

    algorithm = "autoencoder"
    output = "normalized norms"
    __metadata_request__fit: ClassVar[dict[str, str]] = {"callback": UNUSED}

    @without_autocast
    def fit(self, X: Any, y: object = None, *, callback: Callback | None = None) -> Self:
        """Learn the dictionary and the clusters; y is ignored.

        Args:
            callback: with method="auto" called as callback(what is done next, seconds used).

        Raises:
            TrainingError: no group is active in any sample (lower alpha), or training diverged.
            TypeError: X that is sparse, or holds objects.
        """
        X = self._validate(X, reset=True)
        self._forget(*(self._fitted().keys() - {"n_features_in_", "feature_names_in_"}))
        if self.method == "groups":
            self._fit_groups(X)
        else:
            self._choose_method(X, callback)
        return self

    def _fit_groups(self, X: np.ndarray) -> None:
        """`fit` with method="groups"."""
        self._learn_groups(X)
        judged, splits = np.empty((0, X.shape[1])), []
        if "auto" in (self.alpha, self.n_clusters):
            judged = np.array(X[_spread_rows(len(X), JUDGED)], dtype=np.float64)
            splits = self._split(judged, 2)
        self._cluster(X, judged, splits)
        if self.alpha == "auto":
            self._set_evidence(self._weigh(judged, splits))

    def _set_evidence(self, weighed: WeighedSubspaces | None) -> None:
        self.evidence_ = None if weighed is None else dataclasses.asdict(weighed.evidence)
        self.fits_subspaces_ = None if weighed is None else fits_subspaces(weighed.evidence)

    def _choose_method(self, X: np.ndarray, callback: Callback | None) -> None:
        """`fit` with method="auto" or "kmeans"."""
        clock = time.perf_counter()

        def tell(what: str) -> float:
            used = time.perf_counter() - clock
            if callback is not None:
                callback(what, used)
            return used

        least = 2 if self.n_clusters == "auto" else max(2, self.n_clusters)
        if len(X) < least:
            raise ValueError(f"n_samples={len(X)}: expected at least {least} for n_clusters={self.n_clusters!r}")
        if self.checkpoint is not None:
            raise ValueError(f"checkpoint={str(self.checkpoint)!r}: expected None with method={self.method!r}")
        seed = as_seed(self.random_state)
        tell("scale the columns")
        chosen = choose_scaling(X) if self.scaling == "auto" else ChosenScaling(self.scaling, "as asked")
        scaling = fit_scaling(X, chosen.method)
        self.mean_, self.spread_ = scaling.mean, scaling.spread
        self.scaling_method_, self.scaling_reason_ = chosen.method, chosen.reason
        affordable = max(SMALLEST, int(self.seconds * SAMPLES_A_SECOND / (X.shape[1] + EFFORT)))
        rows = sample_rows(len(X), min(CHOSEN_FROM, affordable), seed)
        some = self._scaled(X[rows])
        many = self._scaled(X[sample_rows(len(X), min(FITTED, 2 * affordable), seed)])

        tell("cluster by k-means")
        count = self.n_clusters if self.n_clusters != "auto" else _most_separated(some, seed)
        centres = KMeans(min(count, len(many)), n_init=10, random_state=seed).fit(many)
        self.baseline_labels_ = self._predicted(centres, X)

        found = self._weigh_groups(some, len(X), seed, tell) if self.method == "auto" else "as asked"
        self.method_, self.labels_, model_labels, weighed = "kmeans", self.baseline_labels_, None, None
        if isinstance(found, str):
            self.reason_, self.certainty_ = found, None
        else:
            model, weighed = found
            tell("label all samples")
            if len(many) > len(some):
                model = self._groups(seed, n_clusters=model.n_clusters_, assign=model.assign_)
                model._learn_groups(model._validate(many, reset=True))
                model._cluster(many, some, [])
            model_labels = model.labels_ if len(many) == len(X) else self._predicted(model, X)
            self.reason_, self.certainty_ = judgement(weighed.evidence), certainty(weighed.gains, weighed.leads)
            if fits_subspaces(weighed.evidence):
                self.method_ = "groups"
                for name, value in (model._fitted() | {"labels_": model_labels}).items():
                    setattr(self, name, value)
        if self.method_ == "kmeans":
            self.n_clusters_, self.n_iter_ = centres.n_clusters, centres.n_iter_
            self.cluster_centers_ = centres.cluster_centers_
        self.model_labels_ = model_labels
        self._set_evidence(weighed)
        refits = () if weighed is None else weighed.centres if self.method_ == "kmeans" else weighed.models
        refits = refits[:2] if len(X) > SURE else refits
        self.confidence_ = confidences(self.labels_, [self._predicted(refit, X) for refit in refits])
        self.margin_ = self._margins(X, rows)
        self.seconds_ = tell("done")

    def _weigh_groups(
        self, X: np.ndarray, n_samples: int, seed: int, tell: Callable[[str], float]
    ) -> "tuple[GroupSparseClustering, WeighedSubspaces] | str":
        """The model of some samples, and the evidence for its clusters; or why there is none, in a sentence."""
        used = tell("cluster by group norms")
        if not np.square(X).any():
            return "the samples are all zero, or nearly, once scaled: k-means is the simpler model that fits"
        if self.n_clusters == 1:
            return "there is one cluster, as asked: k-means is the simpler model that fits"
        too_few = f"{n_samples} samples are too few for a dictionary: k-means is the simpler model that fits"
        if len(X) < 4 * (2 if self.n_clusters == "auto" else self.n_clusters):
            return too_few
        model = self._groups(seed)
        model._learn_groups(model._validate(X, reset=True))
        took = tell("weigh subspaces against centres") - used
        left = int((self.seconds - used - took) / (2 * took))  # halves take half as long, and clusters as long again
        splits = model._split(X, min(self.n_splits, max(1, left)))
        if not splits:
            return "in a half of the samples no group is active: k-means is the simpler model that fits"
        model._cluster(X, X, splits)
        weighed = model._weigh(X, splits)
        return too_few if weighed is None else (model, weighed)

    def _groups(self, seed: int, **settings: Any) -> "GroupSparseClustering":
        """A copy by group norms, not fitted, for samples that are scaled."""
        return clone(self).set_params(method="groups", random_state=seed, **settings)

    @property
    def scaling_(self) -> Scaling:
        """The scaling of the samples, with method="auto" and "kmeans"."""
        return Scaling(self.mean_, self.spread_, self.scaling_method_ == "unit norm")

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        if hasattr(self, "mean_"):
            return np.asarray(self.scaling_(X), dtype=np.float64)
        return super()._scaled(X)

    def _by_centres(self) -> bool:
        """Whether the clusters are those of k-means, on the scaled samples."""
        return getattr(self, "method_", "groups") == "kmeans"

    def _represented(self, X: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        if self._by_centres():
            return (block.cpu().numpy() for block in self._blocks(X, rows))
        return super()._represented(X, rows)

    def _predicted(self, model: Clusterer, X: np.ndarray) -> np.ndarray:
        """The clusters that a model of the scaled samples gives to all, a block at a time."""
        return np.concatenate([model.predict(block.cpu().numpy()) for block in self._blocks(X)])

    def _margins(self, X: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """How far the next cluster is from each sample; the means are those of some rows."""
        kinds, means = cluster_means(np.concatenate(list(self._represented(X, rows))), self.labels_[rows])
        found: list[np.ndarray] = []
        start = 0
        for block in self._represented(X):
            found.append(margins(block, self.labels_[start : start + len(block)], kinds, means))
            start += len(block)
        return np.concatenate(found)

    def _learn_groups(self, X: np.ndarray) -> None:
        """The first part of `fit`: the dictionary, of samples that are validated."""
        wanted, groups = self._wanted_clusters(X), self._auto_groups()
        if len(X) < wanted + (self.assign == "spectral"):
            relation = ">" if self.assign == "spectral" else ">="
            raise ValueError(f"n_samples={len(X)} should be {relation} n_clusters={wanted}")
        if self.n_components is not None:
            check_int("n_components", self.n_components, high=max(1, len(X) - 1))
        groups, layout = self._sizes(X, groups)
        if self.assign == "argmax" and self.n_groups == "auto":
            groups = wanted
        if self.assign == "argmax" and groups != wanted:
            raise ValueError(f"n_groups={groups}: expected n_clusters={wanted} for assign='argmax'")
        rng = self._generator()
        self._learn(X, groups, layout, rng)
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
        if self._by_centres():
            return "kmeans"
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

    def _active_groups(self, n_groups: int, n_atoms: int, n_features: int) -> float:
        return AUTO_SHARE * n_groups

    def _auto_group_size(self) -> int:
        return AUTO_LIFTED_GROUP_SIZE if self._intercept() else AUTO_GROUP_SIZE

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_ if self._by_centres() else super()._n_features_out

    def _rebuilt(self, block: Tensor) -> Tensor:
        if self._by_centres():
            return torch.from_numpy(self.cluster_centers_[self._nearest(block.cpu().numpy())]).to(block)
        rebuilt = super()._rebuilt(block)
        if not self._has_intercept():
            return rebuilt
        return rebuilt[:, :-1] * (self.intercept_ / self._lift(block)[:, -1:])

    @without_autocast
    def recluster(self, X: Any, n_clusters: int) -> Self:
        """A fitted copy with other clusters of the same dictionary, for a fraction of the time of `fit`.

        What weighed the clusters before says nothing of them: `evidence_` is None.

        Args:
            X: the data to cluster, those of `fit` as a rule. n_clusters: 1 to the number of samples, one less for
                "spectral".

        Raises:
            ValueError: X that does not fit what was fitted, n_clusters out of range, another method than "groups", or
                assign="argmax", in which clusters are groups. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if self.method != "groups":
            raise ValueError(f"method={self.method!r}: expected 'groups', to change the number of clusters")
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
            TypeError: X that is sparse, or holds objects.
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

    def _expected(self) -> dict[str, Any]:
        """Also labels, what `predict` needs, and what was chosen."""
        chosen = {} if self.method == "groups" else self._expected_choice()
        count = check_int("n_clusters_", getattr(self, "n_clusters_", 0))
        expected = self._expected_centres(count) if self._by_centres() else self._expected_groups(count)
        return expected | {"n_clusters_": (1, count), "labels_": (0, count - 1, (None,))} | chosen

    def _expected_groups(self, count: int) -> dict[str, Any]:
        expected = super()._expected()
        n_components, n_features = self.components_.shape
        if self.n_clusters not in ("auto", count):
            raise ValueError(f"n_clusters={self.n_clusters}: what was fitted has {count}")
        n_groups, last = n_components // self.group_size_, count - 1
        check_choice("assign_", getattr(self, "assign_", None), get_args(Assignment))
        if self.assign not in ("auto", self.assign_):
            raise ValueError(f"assign={self.assign!r}: what was fitted has {self.assign_!r}")
        self.intercept_ = check_real("intercept_", getattr(self, "intercept_", -1.0), high=LARGEST[torch.float64])
        n_given = n_features - self._has_intercept()
        expected |= {"assign_": allow, "intercept_": allow, "assign_seed_": (0, 2**31 - 1)}
        expected["n_features_in_"] = (n_given, n_given)
        if self.alpha == "auto":
            expected |= {"evidence_": _check_evidence, "fits_subspaces_": self._check_verdict}
        if self.assign_ == "kmeans":
            expected["cluster_centers_"] = (None, None, (count, n_groups))
        elif self.assign_ == "spectral":
            chosen = self.method != "groups"  # from some of the samples
            n_kept = len(self.reference_labels_) if chosen else min(len(self.labels_), REFERENCES)
            expected["reference_norms_"] = (None, None, (n_kept, n_groups))
            expected["reference_labels_"] = (0, last, (n_kept,))
        elif n_groups != count:
            raise ValueError(f"n_clusters_={count}: what was fitted has {n_groups} groups, one a cluster")
        return expected

    def _expected_centres(self, count: int) -> dict[str, Any]:
        n_features = check_int("n_features_in_", getattr(self, "n_features_in_", 0))
        shape = {"cluster_centers_": (None, None, (count, n_features)), "n_features_in_": (1, n_features)}
        return shape | {"n_iter_": (1, 2**63)}

    def _expected_choice(self) -> dict[str, Any]:
        check_choice("method_", getattr(self, "method_", None), ("groups", "kmeans"))
        if self.method == "kmeans" and self.method_ == "groups":
            raise ValueError("method='kmeans': what was fitted has 'groups'")
        check_choice("scaling_method_", getattr(self, "scaling_method_", None), get_args(ScalingMethod))
        if self.scaling not in ("auto", self.scaling_method_):
            raise ValueError(f"scaling={self.scaling!r}: what was fitted has {self.scaling_method_!r}")
        if not (np.asarray(self.spread_) > 0).all():
            raise ValueError("spread_: expected numbers above 0")
        n_samples = len(getattr(self, "labels_", ()))
        columns, numbers = (None, None, (self.n_features_in_,)), (None, None, (n_samples,))
        labels = (0, 2**31, (n_samples,))
        expected = {"method_": allow, "scaling_method_": allow, "mean_": columns, "spread_": columns}
        expected |= dict.fromkeys(("reason_", "scaling_reason_", "certainty_"), _check_text)
        expected |= {"baseline_labels_": labels, "model_labels_": labels, "confidence_": numbers, "margin_": numbers}
        expected |= {"evidence_": _check_evidence, "fits_subspaces_": self._check_verdict, "seconds_": check_real}
        if self.evidence_ is None:
            expected |= dict.fromkeys(("certainty_", "model_labels_"), _check_none)
        return expected

    def _check_verdict(self, name: str, value: Any) -> None:
        wanted = None if self.evidence_ is None else fits_subspaces(SubspaceEvidence(**self.evidence_))
        if value is not wanted or (hasattr(self, "method_") and (self.method_ == "groups") is not bool(wanted)):
            raise ValueError(f"{name}={value!r}: the evidence says {wanted}")


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r}: expected a text")


def _check_none(name: str, value: Any) -> None:
    if value is not None:
        raise ValueError(f"{name}: expected None without evidence")


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


def numbers_of_clusters(n_samples: int) -> list[int]:
    """The numbers of clusters that "auto" tries: those with ten samples a cluster, or 2."""
    check_int("n_samples", n_samples, low=3)
    return [count for count in AUTO_COUNTS if 10 * count <= n_samples] or [2]


def _spread_rows(n_samples: int, most: int) -> np.ndarray:
    """Rows, evenly spaced, at most so many."""
    return np.unique(np.linspace(0, n_samples - 1, min(most, n_samples)).astype(np.int64))


def _most_separated(data: np.ndarray, seed: int) -> int:
    """The number of clusters with the largest silhouette of k-means."""
    if len(data) < 3:
        return 2
    found = silhouettes(data, numbers_of_clusters(len(data)), random_state=seed)
    return max(found, key=found.__getitem__)
