"""Choices without labels, for your own data: a target sparsity, and whether clusters are stable.

An estimator's `score` on held-out samples is another, for alpha and the start.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from gsae_lib._checks import RandomState, as_seed, as_table, check_int, check_samples
from gsae_lib.autoencoder import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.estimators import GroupSparseClustering


def alpha_for_target_sparsity(
    X: np.ndarray,
    components: np.ndarray,
    group_size: int,
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
        ValueError: an activity that cannot be reached, X that is not a finite matrix, or a group_size that does not
            divide the number of components.
    """
    data = check_samples("X", torch.from_numpy(np.array(as_table("X", X), dtype=np.float64)))
    given = torch.from_numpy(np.array(as_table("components", components), dtype=np.float64))
    dictionary = check_samples("components", given, columns=data.shape[1]).T
    groups, rest = divmod(dictionary.shape[1], check_int("group_size", group_size))
    if rest:
        raise ValueError(f"group_size={group_size}: does not divide {dictionary.shape[1]} components")
    model = GroupSparseAutoencoder(
        data.shape[1], groups, group_size, 0.0, n_iterations=n_iterations, dictionary=dictionary
    )
    return set_target_sparsity(model, data, n_active, tol=tol)


def cluster_stability(
    X: np.ndarray,
    model: GroupSparseClustering,
    counts: Sequence[int],
    *,
    n_repeats: int = 5,
    random_state: RandomState = 0,
) -> np.ndarray:
    """How far clusterings of two random halves agree on all samples: adjusted Rand index, (n_repeats, counts).

    A number of clusters at which halves of the data tell the same story is one that the data support. 1 is perfect, 0
    is chance. (A single cluster always agrees: do not ask about it.) A half's dictionary is learned once.

    Args:
        model: what clusters, with n_groups a number; copies of it, without its checkpoint, are fitted.
        counts: numbers of clusters to try. n_repeats: splits in halves, drawn from random_state, as in scikit-learn.

    Raises:
        ValueError: as `GroupSparseClustering.fit` and `recluster`, for one half; no counts; n_groups="auto", which
            depends on the number of clusters.
    """
    if not len(counts):
        raise ValueError(f"counts={counts}: expected at least one number of clusters")
    if model.n_groups == "auto":
        raise ValueError("n_groups='auto': expected a number, the same for all counts")
    X = as_table("X", X)
    rng = np.random.default_rng(as_seed(random_state))
    found = np.zeros((check_int("n_repeats", n_repeats), len(counts)))
    for row in found:
        halves = np.array_split(rng.permutation(len(X)), 2)
        fitted = [clone(model).set_params(n_clusters=counts[0], checkpoint=None).fit(X[half]) for half in halves]
        for column, count in enumerate(counts):
            pairs = zip(fitted, halves, strict=True)
            row[column] = adjusted_rand_score(*(one.recluster(X[half], count).predict(X) for one, half in pairs))
    return found


@dataclasses.dataclass(frozen=True)
class MostStable:
    """The most stable of several ways to cluster.

    model: a copy of the one chosen, with its number of clusters set, not fitted; index: its place among the candidates;
    column: the place of its number of clusters; agreement (candidates, n_repeats, counts): what `cluster_stability`
    found for all of them.
    """

    model: GroupSparseClustering
    index: int
    column: int
    agreement: np.ndarray


def choose_most_stable(
    X: np.ndarray,
    candidates: Sequence[GroupSparseClustering],
    counts: Sequence[int],
    *,
    n_repeats: int = 5,
    random_state: RandomState = 0,
) -> MostStable:
    """The candidate, and the number of clusters, on which halves of the data agree best; ties go to fewer atoms.

    A tie is a mean agreement within one standard error, over the repeats, of the best. Each candidate stands with its
    own most stable number of clusters. No labels are used.

    Args:
        candidates: what to choose from, each with n_groups a number. counts: numbers of clusters to try.
        n_repeats: splits in halves, the same for all candidates; 2 or more.

    Raises:
        ValueError: no candidates, fewer than two repeats, or as `cluster_stability`.
    """
    if not len(candidates):
        raise ValueError("candidates=[]: expected at least one")
    check_int("n_repeats", n_repeats, low=2)
    splits = {"n_repeats": n_repeats, "random_state": as_seed(random_state)}
    agreement = np.stack([cluster_stability(X, model, counts, **splits) for model in candidates])
    means = agreement.mean(axis=1)
    best, column = np.unravel_index(means.argmax(), means.shape)
    error = agreement[best, :, column].std(ddof=1) / np.sqrt(n_repeats)
    near = np.flatnonzero(means.max(axis=1) >= means.max() - error)
    atoms = [math.prod(model._sizes(np.asarray(X), 1)) for model in candidates]
    index = min(near.tolist(), key=atoms.__getitem__)
    column = int(means[index].argmax())
    model = clone(candidates[index]).set_params(n_clusters=counts[column])
    return MostStable(model, index, column, agreement)
