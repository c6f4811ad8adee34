"""Choices without labels: a sparsity that is met, an alpha that is chosen, and clusters that are stable."""

import numpy as np
import pytest
import torch
from gsae_lib.estimators.selection import choose_most_stable

from gsae_lib import GroupSparseClustering, GroupSparseSource
from gsae_lib.estimators import alpha_for_target_sparsity, cluster_stability, selection
from gsae_lib.generative import orthonormal_groups_dictionary


@pytest.fixture
def planes():
    """Samples on four planes in twelve dimensions, and the dictionary."""
    rng = torch.Generator().manual_seed(5)
    truth = orthonormal_groups_dictionary(12, 4, 2, generator=rng, dtype=torch.float64)
    return GroupSparseSource.union_of_subspaces(truth, 2, snr_db=20.0).sample(400, generator=rng).data.numpy(), truth


@pytest.mark.parametrize("active", [0.5, 1.0, 2.5])
def test_activity_is_met(planes, active):
    """Fails if samples use another number of groups at the penalty found."""
    X, truth = planes
    alpha = alpha_for_target_sparsity(X, truth.T.numpy(), 2, active)
    model = GroupSparseClustering(4, n_groups=4, group_size=2, alpha=alpha, random_state=0)
    model.fit(X)
    model.components_ = truth.T.numpy()
    found = (model.transform(X) > 0).sum(axis=1).mean()
    assert found == pytest.approx(active, rel=0.06)


def test_rejects_an_activity_out_of_reach(planes):
    """Fails if more groups than there are can be asked for, or the search goes on for ever."""
    X, truth = planes
    with pytest.raises(ValueError, match=r"active=5"):
        alpha_for_target_sparsity(X, truth.T.numpy(), 2, 5)
    with pytest.raises(ValueError, match=r"active=1.0: not reached"):
        alpha_for_target_sparsity(np.zeros_like(X), truth.T.numpy(), 2, 1.0)


def test_the_true_number_of_clusters_is_the_most_stable(planes):
    """Fails if halves agree better on another number than the four planes there are."""
    X, _ = planes
    model = GroupSparseClustering(n_groups=20, group_size=2, alpha=0.5, n_init=3, random_state=0)
    found = cluster_stability(X, model, [2, 3, 4, 6, 8], n_repeats=3)
    assert found.shape == (3, 5) and found.mean(axis=0).argmax() == 2 and found[:, 2].mean() > 0.9


def test_candidates_are_split_alike(planes):
    """Fails if a `RandomState` draws other halves for the second candidate than for the first."""
    X, _ = planes
    model = GroupSparseClustering(n_groups=8, group_size=2, alpha=0.5, random_state=0)
    found = choose_most_stable(X, [model, model], [3, 4], n_repeats=2, random_state=np.random.RandomState(1))
    np.testing.assert_array_equal(*found.agreement)


def test_stability_needs_a_count(planes):
    """Fails if an empty list gives an empty answer, or the dictionary may depend on the order of the counts."""
    with pytest.raises(ValueError, match=r"counts=\[\]"):
        cluster_stability(planes[0], GroupSparseClustering(n_groups=4, group_size=2), [])
    with pytest.raises(ValueError, match="n_groups='auto'"):
        cluster_stability(planes[0], GroupSparseClustering(), [2])


def test_the_smaller_of_equally_stable_candidates_is_chosen(planes, monkeypatch):
    """Fails if a tie within a standard error is not one, a group size "auto" has no number of atoms, or if a number of
    clusters comes from another candidate.
    """
    X, _ = planes
    table = {  # n_groups: agreement of 2 repeats for 2 counts
        8: [[0.50, 0.60], [0.60, 0.50]],
        12: [[0.90, 0.20], [0.82, 0.40]],
        20: [[0.10, 0.95], [0.20, 0.85]],
    }
    monkeypatch.setattr(selection, "cluster_stability", lambda X, model, *_, **__: np.array(table[model.n_groups]))
    sizes = ((20, "auto"), (8, 2), (12, 2))
    candidates = [GroupSparseClustering(n_groups=groups, group_size=size, alpha=0.5) for groups, size in sizes]
    found = choose_most_stable(X, candidates, [3, 5], n_repeats=2)
    assert (found.index, found.column) == (2, 0)  # 0.86 is within 0.05 of 0.90, 0.55 is not
    assert found.model.get_params() == candidates[2].set_params(n_clusters=3).get_params()
    assert found.agreement.shape == (3, 2, 2)


def test_a_choice_needs_candidates_and_repeats(planes):
    """Fails if a standard error of a single repeat, which is not a number, decides."""
    with pytest.raises(ValueError, match=r"candidates=\[\]"):
        choose_most_stable(planes[0], [], [2])
    with pytest.raises(ValueError, match="n_repeats=1"):
        choose_most_stable(planes[0], [GroupSparseClustering(n_groups=4, group_size=2)], [2], n_repeats=1)
