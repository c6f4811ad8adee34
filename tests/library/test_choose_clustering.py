"""A table clustered without a word about it: planted truths, tiny tables, budgets, units, seeds; and the estimator."""

import dataclasses
import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from gsae_lib.estimators.estimators import numbers_of_clusters
from gsae_lib.estimators.selection import choose_scaling
from scipy.sparse import csr_array
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_score

from gsae_lib import GroupSparseClustering, GroupSparseSource
from gsae_lib.clustering import silhouettes
from gsae_lib.estimators import choose_clustering
from gsae_lib.estimators import selection as selection_module
from gsae_lib.generative import orthonormal_groups_dictionary


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
    found = choose_clustering(X, 5 if told else "auto", random_state=0)
    assert found.fits and isinstance(found.model, GroupSparseClustering) and "look like subspaces" in found.reason
    assert found.n_clusters == 5 and adjusted_rand_score(labels, found.labels) > 0.95
    assert adjusted_rand_score(labels, found.baseline_labels) < 0.3
    np.testing.assert_array_equal(found.labels, found.model_labels)
    np.testing.assert_array_equal(found.predict(X), found.labels)
    assert found.confidence.mean() > 0.9 and 0 <= found.confidence.min() <= found.confidence.max() <= 1


@pytest.mark.parametrize("told", [True, False])
def test_balls_are_left_to_k_means(balls, told):
    """Fails if round balls are said to be subspaces, or the labels are not those of k-means then."""
    X, labels = balls
    found = choose_clustering(X, 3 if told else "auto", random_state=0)
    assert not found.fits and isinstance(found.model, KMeans) and "k-means is the" in found.reason
    assert found.n_clusters == 3 and adjusted_rand_score(labels, found.labels) > 0.95
    np.testing.assert_array_equal(found.labels, found.baseline_labels)
    np.testing.assert_array_equal(found.predict(X), found.labels)


def test_balls_on_opposite_sides_are_kept_apart(balls):
    """Fails if there is no intercept by default: a line through the origin holds both balls then."""
    X, labels = balls
    with_it = GroupSparseClustering(3, random_state=0).fit(X)
    without = GroupSparseClustering(3, intercept=0.0, random_state=0).fit(X)
    assert adjusted_rand_score(labels, with_it.labels_) > 0.95 > 0.7 > adjusted_rand_score(labels, without.labels_)
    assert without.components_.shape[1] == 4 and with_it.components_.shape[1] == 5
    assert with_it.intercept_ == pytest.approx(np.sqrt(np.square(X).sum(axis=1).mean()))


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_do_not_matter(planes, factor):
    """Fails if a default has the units of the data: another factor would give other clusters."""
    X, _ = planes
    one, other = (GroupSparseClustering(5, random_state=0).fit(x) for x in (X, factor * X))
    assert adjusted_rand_score(one.labels_, other.labels_) > 0.99
    assert other.intercept_ == pytest.approx(factor * one.intercept_)
    assert one.score(X) == pytest.approx(other.score(factor * X), abs=1e-3)


def test_a_score_is_in_the_space_of_the_data(planes):
    """Fails if samples are compared with the lifted ones that are coded: then a few groups could not explain planes."""
    X, _ = planes
    model = GroupSparseClustering(5, group_size=3, random_state=0).fit(X)
    assert 0.8 < model.score(X) < 1


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


def test_the_estimator_judges(planes, balls, tmp_path):
    """Fails if the fitted attributes are missing, wrong, or lost on the way through a file."""
    for (X, _), count, fits in ((planes, 5, True), (balls, 3, False)):
        model = GroupSparseClustering("auto", random_state=0).fit(X)
        assert model.fits_subspaces_ is fits and model.n_clusters_ == count == model.evidence_["n_clusters"]
        model.save(tmp_path / "model")
        loaded = GroupSparseClustering.load(tmp_path / "model")
        assert loaded.evidence_ == model.evidence_ and loaded.fits_subspaces_ is fits
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_iris_in_centimetres():
    """Fails if the model alone falls below k-means on the commonest table, or finds another number of kinds."""
    X, labels = load_iris(return_X_y=True)
    found = choose_clustering(X, random_state=0)
    assert found.scaling_method == "none" and len(np.unique(found.model_labels)) == 3
    baseline = KMeans(3, n_init=10, random_state=0).fit_predict(X)
    assert adjusted_rand_score(labels, found.model_labels) > adjusted_rand_score(labels, baseline)


@pytest.mark.parametrize("n_clusters", [2, "auto"])
@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (5, 4), (9, 1), (20, 1), (12, 60)])
def test_tiny_tables_have_an_answer(shape, n_clusters):
    """Fails if a small table ends in an error, or without a reason."""
    X = np.random.default_rng(0).normal(size=shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = choose_clustering(X, n_clusters, random_state=0)
    assert found.labels.shape == found.margin.shape == found.confidence.shape == (len(X),) and found.reason
    if len(X) < 8:
        assert found.evidence is None and not found.fits and "too few" in found.reason


@pytest.mark.parametrize("X", [np.ones((40, 3)), np.repeat(np.eye(4), 10, axis=0)])
def test_tables_that_repeat_themselves(X):
    """Fails if equal rows end in an error, or in different clusters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of fewer distinct points than clusters
        labels = choose_clustering(X, 4, random_state=0).labels
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
        found = choose_clustering(np.full((40, 3), value), n_clusters, scaling=scaling, random_state=0)
    assert isinstance(found.model, KMeans) and found.evidence is None and "all zero, or nearly" in found.reason
    np.testing.assert_array_equal(found.labels, np.zeros(40))


def test_nothing_is_left_to_chance_or_to_labels(planes):
    """Fails if a seed does not give the same twice, or a function takes labels at all."""
    X, _ = planes
    one, other = (choose_clustering(X[:200], random_state=3) for _ in range(2))
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.confidence, other.confidence)
    assert one.evidence == other.evidence
    assert not {"y", "labels"} & set(inspect.signature(choose_clustering).parameters)


def test_the_budget_decides_how_many_samples_take_part(monkeypatch, planes):
    """Fails if a large table is used whole whatever the budget, or samples that do not take part have no cluster."""
    X = np.tile(planes[0], (6, 1)) + 1e-3 * np.random.default_rng(0).normal(size=(3000, 15))
    used = []
    learn = GroupSparseClustering._learn_groups
    monkeypatch.setattr(GroupSparseClustering, "_learn_groups", lambda self, X: used.append(len(X)) or learn(self, X))
    found = choose_clustering(X, 5, seconds=0.05, random_state=0)
    assert max(used) == 400 and found.evidence.n_splits == 1 and found.labels.shape == (3000,)
    assert adjusted_rand_score(np.tile(planes[1], 6), found.model_labels) > 0.9


def test_progress_is_told(planes):
    """Fails if the callback is not called before each part, or its clock goes backwards."""
    told = []
    choose_clustering(planes[0][:100], 3, random_state=0, callback=lambda what, used: told.append((what, used)))
    assert len(told) >= 5 and told[-1][0] == "done" and [used for _, used in told] == sorted(used for _, used in told)


def test_a_memory_map_is_the_array(tmp_path, planes):
    """Fails if a table on disk is clustered otherwise than the same one in memory."""
    X = planes[0][:200].astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    one, other = (choose_clustering(x, 5, random_state=0) for x in (X, np.load(tmp_path / "X.npy", mmap_mode="r")))
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.fixture(scope="module")
def by_k_means(balls):
    """The clusters of balls in single precision."""
    X = balls[0].astype(np.float32)
    found = choose_clustering(X, 3, random_state=0)
    assert isinstance(found.model, KMeans)
    return X, found


@pytest.mark.parametrize("kind", ["float32", "integers", "frame", "lists", "tensor", "memory map", "float16"])
def test_k_means_predicts_tables_of_every_kind(tmp_path, monkeypatch, by_k_means, kind):
    """Fails if new rows have to be of the precision that k-means was fitted in, or are not labelled in blocks."""
    X, found = by_k_means
    monkeypatch.setattr(selection_module, "BLOCK", 70)
    np.save(tmp_path / "X.npy", X)
    made = {"float32": X, "integers": X.round().astype(np.int64), "frame": pd.DataFrame(X), "lists": X.tolist()}
    made |= {"tensor": torch.from_numpy(X), "memory map": np.load(tmp_path / "X.npy", mmap_mode="r")}
    made |= {"float16": X.astype(np.float16)}
    assert (found.predict(made[kind]) == found.labels).mean() > (0.95 if kind in ("integers", "float16") else 0.999)


def test_tables_of_every_kind_are_clustered(balls):
    """Fails if what is a table for every estimator is none for the choices, or gets other clusters."""
    X = balls[0][:60]
    kinds = [X.tolist(), pd.DataFrame(X), np.ma.masked_invalid(X), torch.from_numpy(X).requires_grad_()]
    wanted = choose_clustering(X, 3, random_state=0)
    for table in kinds:
        np.testing.assert_array_equal(choose_clustering(table, 3, random_state=0).labels, wanted.labels)
        assert choose_scaling(table).method == "none"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_clusters": 1}, "n_clusters=1"),
        ({"n_clusters": 501}, "n_clusters=501"),
        ({"scaling": "robust"}, "scaling='robust'"),
        ({"seconds": 0}, "seconds=0"),
        ({"n_splits": 0}, "n_splits=0"),
    ],
)
def test_arguments_out_of_range_are_named(planes, arguments, message):
    """Fails if a wrong argument is accepted, or its message does not name it."""
    with pytest.raises(ValueError, match=message):
        choose_clustering(planes[0], **arguments)


def test_tables_that_are_none_are_refused():
    """Fails if one sample, no columns or missing values are clustered."""
    for X in (np.ones((1, 3)), np.ones((4, 0)), np.array([[1.0, np.nan], [0.0, 1.0]])):
        with pytest.raises(ValueError, match="X: "):
            choose_clustering(X)


@pytest.mark.parametrize(
    "table",
    [[["a", "b"]] * 9, np.ma.masked_less(np.eye(9), 0.5), csr_array(np.eye(9)), [1.0, 2.0], 3.0, np.eye(9) * 1j],
)
def test_what_is_no_table_is_refused_in_a_line(table):
    """Fails if missing entries are taken for numbers, or another library speaks."""
    for function, name in ((choose_clustering, "X"), (choose_scaling, "table")):
        with pytest.raises(ValueError, match=f"^{name}: [^\\n]*$"):
            function(table)


def test_scalings_of_known_kinds():
    """Fails if different units, curves, an embedding or like quantities are taken for one another."""
    rng = np.random.default_rng(0)
    units = rng.normal(size=(200, 5)) * [1, 1, 1, 1, 1000]
    curves = np.cumsum(rng.normal(size=(200, 40)), axis=1)
    embedding = rng.normal(size=(2000, 300)) / np.arange(1, 301) ** 2  # ever narrower, and steeply
    alike = rng.uniform(size=(200, 20))
    wanted = {"standardize": units, "unit norm": curves, "none": embedding}
    for method, table in (*wanted.items(), ("none", alike)):
        found = choose_scaling(table)
        assert found.method == method and found.reason, method
    assert choose_scaling(curves[:, rng.permutation(40)]).method == "none"  # the order of columns is what tells


def test_silhouettes_are_scikit_learns():
    """Fails if a mean is not scikit-learn's silhouette score, or its error not that of a mean."""
    X, _ = make_blobs(90, centers=3, random_state=1)
    found = silhouettes(X, [2, 3], random_state=0)
    labels = KMeans(3, n_init=10, random_state=0).fit_predict(X)
    assert found[3][0] == pytest.approx(silhouette_score(X, labels)) and 0 < found[3][1] < 0.1
    assert silhouettes(np.ones((5, 2)), [2], random_state=0)[2][0] == -1
    with pytest.raises(ValueError, match="counts"):
        silhouettes(X, [], random_state=0)


def test_numbers_of_clusters_leave_ten_samples_each():
    """Fails if more clusters are tried than there are tens of samples, or none."""
    assert numbers_of_clusters(79) == [2, 3, 4, 5, 6] and numbers_of_clusters(5) == [2]
    with pytest.raises(ValueError, match="n_samples=2"):
        numbers_of_clusters(2)


def test_reasons_name_what_decided():
    """Fails if a judgement for k-means does not say which of the three conditions failed."""
    clear = selection_module.SubspaceEvidence(0.9, 0.5, 1.0, 0.0, 0.9, 0.4, 3, 2, 3)
    told = {
        "likelier in its clusters": {"log_likelihood_of_model": -1.0},
        "agree on its clusters": {"stability_of_centres": 0.95},
        "simpler tool": {"stability_of_model": 0.25, "stability_of_centres": 0.0},
    }
    for words, change in told.items():
        assert words in selection_module._reason(dataclasses.replace(clear, **change))


def test_reasons_say_how_sure_they_are():
    """Fails if a judgement by a hair looks like a clear one, or the condition that decides is taken for the other."""
    certainty = selection_module._certainty
    assert certainty([0.5, 0.6, 0.4], [0.2, 0.2, 0.2]).startswith("what decides, 0.5 nats of likelihood, is more than")
    assert certainty([0.5, 0.6, 0.4], [0.1, -0.1, 0.06]).startswith("this is nearly a tie: what decides, 0.02 of agree")
    assert "0.0006 nats of likelihood, is at most its spread over 2 splits, 0.0014" in certainty(
        [0.0016, -0.0004], [0.3, 0.31]
    )
    assert certainty([-5.0, -5.1], [0.1, -0.1]).startswith("what decides, 5 nats of likelihood, is more than")
    assert "nearly a tie: what decides, 0 nats of likelihood" in certainty([0.0, 0.0], [0.3, 0.3])
    assert certainty([1.0], [1.0]) == "how sure this is, one split does not tell"
