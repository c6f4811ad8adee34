"""A table clustered without a word about it: planted truths, tiny tables, budgets, units, seeds, files, refusals."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, make_blobs
from sklearn.metrics import adjusted_rand_score

from gsae_lib import GroupSparseClustering, GroupSparseSource
from gsae_lib.estimators import _base
from gsae_lib.estimators.certainty import cluster_means, confidences, margins
from gsae_lib.estimators.clustering import numbers_of_clusters
from gsae_lib.generative import orthonormal_groups_dictionary


def choose(X, n_clusters="auto", **settings):
    """Clusters by the method that is chosen, from a seed."""
    return GroupSparseClustering(n_clusters, method="auto", **{"random_state": 0} | settings).fit(X)


@pytest.fixture(scope="module")
def planes():
    """500 samples on five planes in fifteen dimensions, 20 dB, and which plane."""
    rng = torch.Generator().manual_seed(7)
    truth = orthonormal_groups_dictionary(15, 5, 2, generator=rng, dtype=torch.float64)
    sample = GroupSparseSource.union_of_subspaces(truth, 2, snr_db=20.0).sample(500, generator=rng)
    return sample.data.numpy(), sample.labels.numpy()


@pytest.fixture(scope="module")
def balls():
    """300 samples in three round balls in four dimensions, one of them opposite another, and which ball."""
    centres = np.array([[6.0, 0, 0, 0], [-6.0, 0, 0, 0], [0, 6.0, 0, 0]])
    return make_blobs(300, centers=centres, cluster_std=1.0, random_state=0)


@pytest.mark.parametrize("told", [True, False])
def test_a_union_of_subspaces_is_recognised_and_recovered(planes, told):
    """Fails if the planes are not found, their number is not, or the judgement is for k-means, which finds nothing."""
    X, labels = planes
    found = choose(X, 5 if told else "auto")
    assert found.method_ == "groups" and found.fits_subspaces_ and "look like subspaces" in found.reason_
    assert found.n_clusters_ == 5 and adjusted_rand_score(labels, found.labels_) > 0.95
    assert adjusted_rand_score(labels, found.baseline_labels_) < 0.3
    np.testing.assert_array_equal(found.labels_, found.model_labels_)
    np.testing.assert_array_equal(found.predict(X), found.labels_)
    assert found.confidence_.mean() > 0.9 and 0 <= found.confidence_.min() <= found.confidence_.max() <= 1
    assert found.transform(X).shape == (500, len(found.components_) // found.group_size_) and found.score(X) > 0.5


@pytest.mark.parametrize("told", [True, False])
def test_balls_are_left_to_k_means(balls, told):
    """Fails if round balls are said to be subspaces, or the labels are not those of k-means then."""
    X, labels = balls
    found = choose(X, 3 if told else "auto")
    assert found.method_ == "kmeans" and found.fits_subspaces_ is False and "k-means is the" in found.reason_
    assert found.n_clusters_ == 3 and adjusted_rand_score(labels, found.labels_) > 0.95
    np.testing.assert_array_equal(found.labels_, found.baseline_labels_)
    np.testing.assert_array_equal(found.predict(X), found.labels_)
    np.testing.assert_array_equal(found.transform(X), found.scaling_(X))
    left = found.transform(X) - found.cluster_centers_[found.labels_]
    assert found.score(X) == pytest.approx(1 - np.square(left).sum() / np.square(X - X.mean(axis=0)).sum())
    assert not hasattr(found, "components_")


def test_a_choice_is_the_method_by_itself_on_the_scaled_table(planes, balls):
    """Fails if a choice does more than to scale, and to cluster as the group clustering or scikit-learn's k-means."""
    X = planes[0] * np.array([1e3, *np.ones(14)])
    found = choose(X, 5, scaling="standardize")
    alone = GroupSparseClustering(5, random_state=0).fit((X - X.mean(axis=0)) / X.std(axis=0))
    np.testing.assert_allclose(found.components_, alone.components_, atol=1e-9)
    assert adjusted_rand_score(found.model_labels_, alone.labels_) > 0.95
    X, _ = balls
    found = GroupSparseClustering(3, method="kmeans", scaling="standardize", random_state=0).fit(X)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_array_equal(found.labels_, KMeans(3, n_init=10, random_state=0).fit_predict(scaled))
    assert found.reason_ == found.scaling_reason_ == "as asked" and found.evidence_ is None is found.model_labels_


SECOND = [{"method": "auto"}, {"method": "kmeans"}, {"assign": "kmeans"}, {"assign": "spectral", "alpha": 0.1}]


@pytest.mark.parametrize("settings", SECOND, ids=str)
def test_a_second_fit_leaves_nothing_of_the_first(planes, balls, tmp_path, settings):
    """Fails if an attribute of another method or assignment stays, after which saving is refused."""
    X = planes[0][:150]
    for first in (choose(X, 5), GroupSparseClustering(3, assign="kmeans", random_state=0).fit(X)):
        fresh = GroupSparseClustering(3, random_state=0, **settings)
        model = first.set_params(**fresh.get_params()).fit(balls[0][:90])
        assert vars(model).keys() == vars(fresh.fit(balls[0][:90])).keys()
        model.save(tmp_path / "model")
        assert (GroupSparseClustering.load(tmp_path / "model").labels_ == model.labels_).all()


def test_a_choice_is_not_cut_anew_or_kept_on_the_way(planes, tmp_path):
    """Fails if a choice pretends to find other clusters of one dictionary, or to go on from a file."""
    with pytest.raises(ValueError, match="method='auto': expected 'groups'"):
        choose(planes[0], 5).recluster(planes[0], 3)
    with pytest.raises(ValueError, match="expected None with method='auto'"):
        choose(planes[0], 5, max_iter=1, checkpoint=str(tmp_path / "run"))


def test_balls_on_opposite_sides_are_kept_apart(balls):
    """Fails if there is no intercept by default: a line through the origin holds both balls then."""
    X, labels = balls
    with_it = GroupSparseClustering(3, random_state=0).fit(X)
    without = GroupSparseClustering(3, intercept=0.0, random_state=0).fit(X)
    assert adjusted_rand_score(labels, with_it.labels_) > 0.95 > 0.7 > adjusted_rand_score(labels, without.labels_)
    assert without.components_.shape[1] == 4 and with_it.components_.shape[1] == 5
    assert with_it.intercept_ == pytest.approx(np.sqrt(np.square(X).sum(axis=1).mean()))


def test_a_third_of_the_groups_is_used(planes):
    """Fails if alpha="auto" is not the penalty of its target sparsity, 0.35 of the groups, on the samples."""
    X, _ = planes
    model = GroupSparseClustering(5, random_state=0).fit(X)
    assert (model.transform(X) > 0).mean() == pytest.approx(0.35, rel=0.06)
    again = GroupSparseClustering(5, alpha=model.alpha_, intercept=1.0, group_size=2, assign=model.assign_)
    np.testing.assert_array_equal(again.set_params(random_state=0).fit(X).labels_, model.labels_)


def test_a_number_for_alpha_leaves_everything_else_as_it_was(planes):
    """Fails if an intercept, a smaller group or a judgement comes with a penalty that was given."""
    X, _ = planes
    model = GroupSparseClustering(5, alpha=0.3, random_state=0).fit(X)
    assert (model.intercept_, model.alpha_, model.group_size_, model.assign_) == (0.0, 0.3, 4, "kmeans")
    assert model.components_.shape[1] == 15 and not hasattr(model, "evidence_")


def test_the_estimator_judges(planes, balls):
    """Fails if the fitted attributes are missing or wrong, or samples are compared with lifted ones in the score."""
    for (X, _), count, fits in ((planes, 5, True), (balls, 3, False)):
        model = GroupSparseClustering("auto", random_state=0).fit(X)
        assert model.fits_subspaces_ is fits and model.n_clusters_ == count == model.evidence_["n_clusters"]
    assert 0.8 < GroupSparseClustering(5, group_size=3, random_state=0).fit(planes[0]).score(planes[0]) < 1


def test_iris_in_centimetres():
    """Fails if the model alone falls below k-means on the commonest table, or finds another number of kinds."""
    X, labels = load_iris(return_X_y=True)
    found = choose(X)
    assert found.scaling_method_ == "none" and len(np.unique(found.model_labels_)) == 3
    baseline = KMeans(3, n_init=10, random_state=0).fit_predict(X)
    assert adjusted_rand_score(labels, found.model_labels_) > adjusted_rand_score(labels, baseline)


@pytest.mark.parametrize("n_clusters", [2, "auto"])
@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (5, 4), (9, 1), (20, 1), (12, 60)])
def test_tiny_tables_have_an_answer(shape, n_clusters):
    """Fails if a small table ends in an error, or without a reason."""
    X = np.random.default_rng(0).normal(size=shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = choose(X, n_clusters)
    assert found.labels_.shape == found.margin_.shape == found.confidence_.shape == (len(X),) and found.reason_
    if len(X) < 8:
        assert found.evidence_ is None and found.method_ == "kmeans" and "too few" in found.reason_


@pytest.mark.parametrize("X", [np.ones((40, 3)), np.repeat(np.eye(4), 10, axis=0)])
def test_tables_that_repeat_themselves(X):
    """Fails if equal rows end in an error, or in different clusters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of fewer distinct points than clusters
        labels = choose(X, 4).labels_
    for row in np.unique(X, axis=0):
        assert len(np.unique(labels[(X == row).all(axis=1)])) == 1


@pytest.mark.parametrize("n_clusters", [3, "auto"])
@pytest.mark.parametrize(
    ("value", "scaling"), [(0.0, "auto"), (0.0, "none"), (2.5, "standardize"), (2.5, "unit norm"), (1e-200, "none")]
)
def test_samples_that_are_zero_once_scaled_are_left_to_k_means(value, scaling, n_clusters):
    """Fails if a constant table ends in an error of the dictionary that nothing can be learned from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of fewer distinct points than clusters
        found = choose(np.full((40, 3), value), n_clusters, scaling=scaling)
    assert found.method_ == "kmeans" and found.evidence_ is None and "all zero, or nearly" in found.reason_
    np.testing.assert_array_equal(found.labels_, np.zeros(40))


def test_nothing_is_left_to_chance_or_to_labels(planes):
    """Fails if a seed does not give the same twice, or labels that are handed over count."""
    X, labels = planes
    one = choose(X[:120], random_state=3)
    other = clone(one).fit(X[:120], labels[:120])
    np.testing.assert_array_equal(one.labels_, other.labels_)
    np.testing.assert_array_equal(one.confidence_, other.confidence_)
    assert one.evidence_ == other.evidence_


def test_the_budget_decides_how_many_samples_take_part(monkeypatch, planes):
    """Fails if a large table is used whole whatever the budget, or samples that do not take part have no cluster."""
    X = np.tile(planes[0], (6, 1)) + 1e-3 * np.random.default_rng(0).normal(size=(3000, 15))
    used = []
    learn = GroupSparseClustering._learn_groups
    monkeypatch.setattr(GroupSparseClustering, "_learn_groups", lambda self, X: used.append(len(X)) or learn(self, X))
    found = choose(X, 5, seconds=0.05)
    assert max(used) == 400 and found.evidence_["n_splits"] == 1 and found.labels_.shape == (3000,)
    assert adjusted_rand_score(np.tile(planes[1], 6), found.model_labels_) > 0.9


def test_progress_is_told(planes):
    """Fails if the callback is not called before each part, or its clock goes backwards."""
    told = []
    model = GroupSparseClustering(3, method="auto", random_state=0)
    model.fit(planes[0][:100], callback=lambda what, used: told.append((what, used)))
    assert len(told) >= 5 and told[-1][0] == "done" and [used for _, used in told] == sorted(used for _, used in told)


def test_tables_of_every_kind_are_clustered(tmp_path, monkeypatch, balls):
    """Fails if what is a table for every estimator is none here, gets other clusters, or is not predicted in blocks."""
    X = balls[0][:60].astype(np.float32)
    found = choose(X, 3)
    assert found.method_ == "kmeans"
    monkeypatch.setattr(_base, "BLOCK", 25)
    np.save(tmp_path / "X.npy", X)
    tables = [X, X.tolist(), pd.DataFrame(X), np.ma.masked_invalid(X), torch.from_numpy(X).requires_grad_()]
    tables.append(np.load(tmp_path / "X.npy", mmap_mode="r"))
    for table in tables:
        assert (choose(table, 3).labels_ == found.labels_).mean() > 0.999
        assert (found.predict(table) == found.labels_).mean() > 0.999
    for table in (X.round().astype(np.int64), X.astype(np.float16)):
        assert (found.predict(table) == found.labels_).mean() > 0.95


def test_confidence_is_the_share_of_clusterings_that_agree():
    """Fails if names of clusters count, or a cluster that has no partner agrees with one."""
    labels = np.array([0, 0, 1, 1, 2])
    others = [np.array([7, 7, 3, 3, 5]), np.array([1, 1, 1, 0, 0])]
    np.testing.assert_array_equal(confidences(labels, others), [1, 1, 0.5, 1, 0.5])
    np.testing.assert_array_equal(confidences(labels, []), np.ones(5))


def test_margins_compare_the_own_mean_with_the_next():
    """Fails if a margin is no share of the larger distance, or one cluster has any."""
    samples, labels = np.array([[0.0], [1.0], [4.0], [2.0]]), np.array([0, 0, 1, 1])
    kinds, means = cluster_means(samples[:3], labels[:3])
    np.testing.assert_array_equal(means, [[0.5], [4.0]])
    np.testing.assert_allclose(margins(samples, labels, kinds, means), [7 / 8, 5 / 6, 1, -1 / 4])
    np.testing.assert_array_equal(margins(samples, labels, kinds[:1], means[:1]), np.zeros(4))


def test_numbers_of_clusters_leave_ten_samples_each():
    """Fails if more clusters are tried than there are tens of samples, or none."""
    assert numbers_of_clusters(79) == [2, 3, 4, 5, 6] and numbers_of_clusters(5) == [2]
    with pytest.raises(ValueError, match="n_samples=2"):
        numbers_of_clusters(2)
