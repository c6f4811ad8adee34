"""The estimators: scikit-learn's own checks, known answers, files, and what they refuse."""

import itertools
import warnings
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gsae_lib import GroupSparseSource, _saved
from gsae_lib.activations import group_relu
from gsae_lib.coding import NotConvergedWarning
from gsae_lib.estimators import (
    GroupSparseClustering,
    GroupSparseCoder,
    GroupSparseDictionaryLearning,
    _base,
    alpha_for_target_sparsity,
    clustering,
)
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.learning import alternating_minimization
from gsae_lib.learning.initialization import STARTS
from gsae_lib.metrics import match_groups, principal_angles
from gsae_lib.training import TrainingError

ALL = (GroupSparseCoder, GroupSparseDictionaryLearning, GroupSparseClustering)


@parametrize_with_checks([*(estimator() for estimator in ALL), GroupSparseClustering(3, method="auto", n_splits=1)])
def test_scikit_learn(estimator, check):
    """Fails where scikit-learn's own checks of estimators, transformers and clusterers fail, with default arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture
def planes():
    """Samples on four planes in twelve dimensions with little noise, which plane, and the dictionary."""
    rng = torch.Generator().manual_seed(5)
    truth = orthonormal_groups_dictionary(12, 4, 2, generator=rng, dtype=torch.float64)
    sample = GroupSparseSource.union_of_subspaces(truth, 2, snr_db=25.0).sample(600, generator=rng)
    return sample.data.numpy(), sample.labels.numpy(), truth


def test_a_coder_codes_with_its_dictionary(planes):
    """Fails if rows of the dictionary are not atoms, None is not the identity, or norms are not those of the codes."""
    X, labels, truth = planes
    np.testing.assert_allclose(
        GroupSparseCoder(groups=2, alpha=0.7).fit_transform(X), group_relu(torch.from_numpy(X), 0.7, 2), atol=1e-6
    )
    coder = GroupSparseCoder(truth.T.numpy(), groups=2, alpha=1.0).fit(X)
    codes = coder.transform(X)
    assert codes.shape == (600, 8) and coder.components_.shape == (8, 12) and len(coder.get_feature_names_out()) == 8
    norms = clone(coder).set_params(output="norms").fit_transform(X)
    np.testing.assert_allclose(norms, np.linalg.norm(codes.reshape(600, 4, 2), axis=2), rtol=1e-12)
    unit = clone(coder).set_params(output="normalized norms").fit_transform(X)
    np.testing.assert_allclose(unit, norms / np.linalg.norm(norms, axis=1, keepdims=True), rtol=1e-12)
    assert (norms.argmax(axis=1) == labels).mean() > 0.99
    settings = {"n_groups": 8, "group_size": 2, "alpha": 0.3, "n_init": 1, "max_iter": 2, "random_state": 0}
    clustered = GroupSparseClustering(4, **settings).fit_transform(X)
    learned = GroupSparseDictionaryLearning(output="normalized norms", **settings).fit_transform(X)
    np.testing.assert_array_equal(clustered, learned)


def test_without_batches_all_samples_take_each_step(planes):
    """Fails if batch_size=None is the online method with one large batch, which averages, or trains in batches."""
    X, _, _ = planes
    settings = {"group_size": 2, "alpha": 0.5, "random_state": 0}
    start = GroupSparseDictionaryLearning(4, max_iter=0, algorithm="alternating", **settings).fit(X)
    alternating = clone(start).set_params(max_iter=3, batch_size=None).fit(X)
    fit = alternating_minimization(torch.from_numpy(X), torch.from_numpy(start.components_.T), 0.5, 2, max_iter=3)
    np.testing.assert_allclose(alternating.components_.T, fit.dictionary, rtol=0, atol=1e-12)
    online = clone(alternating).set_params(batch_size=len(X)).fit(X)
    assert np.abs(online.components_ - alternating.components_).max() > 1e-6
    trained = clone(alternating).set_params(algorithm="autoencoder").fit(X)
    for size, same in ((len(X), True), (len(X) // 2, False)):
        other = clone(trained).set_params(batch_size=size).fit(X)
        assert np.array_equal(other.components_, trained.components_) == same


@pytest.mark.parametrize("estimator", [GroupSparseDictionaryLearning, GroupSparseClustering])
def test_starts_are_those_of_dictionaries(rng, estimator):
    """Fails if the type of `init` lists another start than there is, or one that does not work or warns."""
    truth = orthonormal_groups_dictionary(30, 6, 2, generator=rng, dtype=torch.float64)
    X = GroupSparseSource.union_of_subspaces(truth, 2, snr_db=25.0).sample(600, generator=rng).data.numpy()
    assert get_args(get_type_hints(estimator.__init__)["init"]) == STARTS
    settings = {"n_groups": 6, "group_size": 2, "alpha": 0.1, "max_iter": 0, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [estimator(init=start, **settings).fit(X).components_ for start in STARTS]
    for k, components in enumerate(found):
        assert not any(np.array_equal(components, other) for other in found[:k])


@pytest.mark.parametrize("assign, groups", [("kmeans", "auto"), ("spectral", "auto"), ("argmax", 4)])
def test_clusters_of_planes(planes, assign, groups):
    """Fails if the planes are not found, in a pipeline too, or new samples go to other clusters than their plane's."""
    X, labels, _ = planes
    settings = {"n_groups": groups, "group_size": 2, "alpha": 0.3, "assign": assign, "n_init": 5, "random_state": 1}
    model = GroupSparseClustering(4, **settings).fit(X[:400])
    assert adjusted_rand_score(labels[:400], model.labels_) > 0.9
    assert adjusted_rand_score(labels[400:], model.predict(X[400:])) > 0.9
    np.testing.assert_array_equal(model.predict(X[:400]), model.labels_)
    repeated = clone(model).fit(torch.from_numpy(X[:400]))
    np.testing.assert_array_equal(repeated.labels_, model.labels_)
    pipeline = make_pipeline(StandardScaler(with_std=False), clone(model))
    assert adjusted_rand_score(labels, pipeline.fit_predict(X)) > 0.8


@pytest.mark.parametrize("seed", range(8))
def test_as_many_groups_as_subspaces_find_them_from_any_start(seed):
    """Fails if a single run of k-subspaces is made for few groups: three seeds of eight then merge two planes."""
    rng = np.random.default_rng(0)
    bases = np.linalg.qr(rng.standard_normal((3, 20, 2)))[0]
    labels = rng.integers(3, size=300)
    X = np.einsum("nij,nj->ni", bases[labels], rng.standard_normal((300, 2)) + 2)
    found = GroupSparseClustering(3, n_groups=3, group_size=2, random_state=seed).fit(X)
    assert adjusted_rand_score(labels, found.labels_) > 0.97


@pytest.mark.parametrize("assign", ["kmeans", "spectral"])
def test_no_active_group_is_an_error(planes, assign):
    """Fails if samples without any active group are clustered, or the message does not say from which alpha on."""
    with pytest.raises(TrainingError, match=r"alpha=1000000.0: no group is active .* expected below 5"):
        GroupSparseClustering(4, group_size=2, alpha=1e6, assign=assign, random_state=0).fit(planes[0])


CLUSTERS = {"n_groups": 20, "group_size": 2, "alpha": 0.3, "n_init": 3, "random_state": 1}


@pytest.mark.parametrize("assign", ["kmeans", "spectral"])
def test_reclustering_keeps_the_dictionary(planes, assign):
    """Fails if another number of clusters learns anew, differs from a fit at that number, or changes what was asked."""
    X, labels, _ = planes
    model = GroupSparseClustering(2, assign=assign, **CLUSTERS).fit(X)
    before = model.predict(X)
    other = model.recluster(X, 4)
    assert (other.n_clusters, model.n_clusters) == (4, 2) and (other.components_ == model.components_).all()
    np.testing.assert_array_equal(other.predict(X), other.labels_)
    np.testing.assert_array_equal(clone(other).fit_predict(X), other.labels_)
    assert adjusted_rand_score(labels, other.labels_) > 0.9
    for count in (0, 601):
        with pytest.raises(ValueError, match=f"n_clusters={count}"):
            model.recluster(X, count)
    other.components_[:] = 0
    np.testing.assert_array_equal(model.predict(X), before)
    np.testing.assert_array_equal(model.labels_, before)
    with pytest.raises(ValueError, match="assign='argmax'"):
        GroupSparseClustering(4, n_groups=4, group_size=2, assign="argmax", random_state=0).fit(X).recluster(X, 3)


@pytest.mark.parametrize("algorithm, steps", [("autoencoder", 20), ("alternating", 4)])
def test_the_score_chooses_alpha_without_labels(algorithm, steps):
    """Fails if a search by the held-out score takes an end of the grid, or a dictionary far from the best one there."""
    rng = torch.Generator().manual_seed(3)
    truth = orthonormal_groups_dictionary(20, 8, 2, generator=rng, dtype=torch.float64)
    X = GroupSparseSource(truth, 2, 2, snr_db=20.0).sample(400, generator=rng).data.numpy()
    settings = {"algorithm": algorithm, "max_iter": steps, "learning_rate": 0.02, "random_state": 0}
    model = GroupSparseDictionaryLearning(8, group_size=2, **settings)
    alphas = [0.05, 0.8, 1.6, 3.2, 12.8]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.filterwarnings("ignore", message="One or more of the test scores are non-finite")
        search = GridSearchCV(model, {"alpha": alphas}, cv=2).fit(X)

    def error(alpha):
        learned = torch.from_numpy(clone(model).set_params(alpha=alpha).fit(X).components_.T)
        return principal_angles(match_groups(learned, truth, 2)[0], truth, 2).square().sum().item()

    errors = {alpha: error(alpha) for alpha in alphas[:-1]}
    assert search.best_params_["alpha"] in alphas[1:4]
    assert errors[search.best_params_["alpha"]] < 1.1 * min(errors.values()) < 0.8 * errors[alphas[0]]


def test_the_score_is_an_explained_variance():
    """Fails if the score keeps another share than a tenth of the features, or has another denominator."""
    X = np.random.default_rng(0).normal(size=(50, 20)) + 1.0
    left = np.sort(X**2, axis=1)[:, :-2].sum()  # with the identity, two of 20 entries are kept
    expected = 1 - left / ((X - X.mean(axis=0)) ** 2).sum()
    assert GroupSparseCoder(alpha=1e-3).fit(X).score(X) == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected samples that differ"):
        GroupSparseCoder().fit(X).score(np.ones((3, 20)))


def test_files_keep_numbers_of_numpy_and_are_of_one_class(planes, tmp_path):
    """Fails if a parameter from a numpy grid is dropped, a model overwrites another, or its class is ignored."""
    X, _, _ = planes
    for alpha in (0.5, 1.5):
        settings = {"group_size": np.int64(2), "n_iterations": np.int64(1), "alpha": np.float32(alpha)}
        model = GroupSparseDictionaryLearning(4, max_iter=0, random_state=0, **settings).fit(X)
        model.save(tmp_path / f"run-{alpha}")
        loaded = GroupSparseDictionaryLearning.load(tmp_path / f"run-{alpha}")
        np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert GroupSparseDictionaryLearning.load(tmp_path / "run-0.5").alpha == 0.5
    with pytest.raises(ValueError, match="holds a GroupSparseDictionaryLearning, expected a GroupSparseClustering"):
        GroupSparseClustering.load(tmp_path / "run-0.5")
    with pytest.raises(NotFittedError):
        GroupSparseCoder().save(tmp_path / "other")


def test_blocks_change_nothing(planes, monkeypatch):
    """Fails if rows are lost, repeated or mixed at the edge of a block."""
    X, _, _ = planes
    model = GroupSparseClustering(4, group_size=2, random_state=0).fit(X)
    whole, score = model.transform(X), model.score(X)
    monkeypatch.setattr(_base, "BLOCK", 97)
    np.testing.assert_allclose(model.transform(X), whole, rtol=1e-9, atol=1e-12)
    assert model.score(X) == pytest.approx(score)


def test_references_of_a_spectral_clustering_are_drawn_from_all(planes, monkeypatch):
    """Fails if more samples than allowed are kept, their labels are of others, or the first ones stand for all."""
    X, labels, _ = planes
    X, labels = X[labels.argsort()], np.sort(labels)  # the first samples all lie on one plane
    monkeypatch.setattr(clustering, "REFERENCES", 100)
    model = GroupSparseClustering(4, assign="spectral", **CLUSTERS).fit(X)
    assert len(model.reference_norms_) == len(model.reference_labels_) == 100
    assert len(np.unique(model.reference_labels_)) == 4
    assert adjusted_rand_score(labels, model.predict(X)) > 0.9


@pytest.mark.parametrize("n_components", [None, 6])
def test_samples_beyond_the_graph_take_the_nearest_cluster(planes, monkeypatch, n_components):
    """Fails if all samples are in the graph, its clusters are lost, or eigenvectors are not as many as told."""
    X, labels, _ = planes
    told, cluster = [], clustering.spectral_clusters
    monkeypatch.setattr(clustering, "GRAPHED", 300)
    monkeypatch.setattr(
        clustering,
        "spectral_clusters",
        lambda x, *args, **how: told.append((len(x), how["n_components"])) or cluster(x, *args, **how),
    )
    model = GroupSparseClustering(4, assign="spectral", n_components=n_components, **CLUSTERS).fit(X)
    assert told == [(300, n_components)]
    assert adjusted_rand_score(labels, model.labels_) > 0.9
    rows = np.linspace(0, len(X) - 1, 300).astype(int)
    graphed = torch.from_numpy(model.transform(X)[rows])
    found = cluster(graphed, 4, 10, random_state=model.assign_seed_, n_components=n_components)
    np.testing.assert_array_equal(model.labels_[rows], found)


def test_limits_may_be_numbers_of_numpy(planes):
    """Fails if an integer of numpy, as grids of settings have, is taken for another kind of number."""
    coder = GroupSparseCoder(planes[2].T.numpy(), groups=2, alpha=0.3, tol=1e-12)
    with pytest.warns(NotConvergedWarning):
        found = coder.set_params(max_iter=np.int64(2)).fit(planes[0]).transform(planes[0])
    with pytest.warns(NotConvergedWarning):
        np.testing.assert_array_equal(coder.set_params(max_iter=2).fit(planes[0]).transform(planes[0]), found)


@pytest.mark.parametrize("active", [0.5, 1.0, 2.5])
def test_a_target_sparsity_is_met(planes, active):
    """Fails if samples use another number of groups at the penalty found, or the search goes on for ever."""
    X, _, truth = planes
    alpha = alpha_for_target_sparsity(X, truth.T.numpy(), 2, active)
    model = GroupSparseClustering(4, n_groups=4, group_size=2, alpha=alpha, random_state=0).fit(X)
    model.components_ = truth.T.numpy()
    assert (model.transform(X) > 0).sum(axis=1).mean() == pytest.approx(active, rel=0.06)
    with pytest.raises(ValueError, match=r"active=5"):
        alpha_for_target_sparsity(X, truth.T.numpy(), 2, 5)
    with pytest.raises(ValueError, match=rf"active={active}: not reached"):
        alpha_for_target_sparsity(np.zeros_like(X), truth.T.numpy(), 2, active)


SIZES = (1, 3, 2)  # of groups that a list says


@pytest.fixture
def unequal():
    """Samples with one active group of several sizes, which group, and the dictionary."""
    rng = np.random.default_rng(3)
    components = np.linalg.qr(rng.normal(size=(12, 6)))[0].T
    labels = rng.integers(0, 3, 600)
    codes = rng.normal(size=(600, 6)) * (labels[:, None] == np.repeat(range(3), SIZES))
    return codes @ components + 0.01 * rng.normal(size=(600, 12)), labels, components


def test_a_coder_takes_groups_of_several_sizes_and_weights(unequal, tmp_path):
    """Fails if codes are not S_{alpha w_g} of each group, for lists of sizes or of components, or are lost in files."""
    X, _, components = unequal
    settings, order = {"weights": [2.0, 1.0, 0.5], "alpha": 0.3, "tol": 1e-10}, [4, 0, 5, 1, 3, 2]
    starts = np.cumsum((0, *SIZES))
    atoms = [[order.index(j) for j in range(a, b)] for a, b in itertools.pairwise(starts)]
    shrunk = []
    for w, block in zip(settings["weights"], np.split(X @ components.T, starts[1:-1], axis=1), strict=True):
        shrunk.append(block * np.maximum(1 - 0.3 * w / np.linalg.norm(block, axis=1, keepdims=True), 0))
    expected = np.concatenate(shrunk, axis=1)  # as the components are orthonormal
    norms = np.stack([np.linalg.norm(block, axis=1) for block in shrunk], axis=1)
    by_size = GroupSparseCoder(components, groups=SIZES, **settings).fit(X)
    by_list = GroupSparseCoder(components[order], groups=atoms, **settings).fit(X)
    for model, codes in ((by_size, expected), (by_list, expected[:, order])):
        np.testing.assert_allclose(model.transform(X), codes, atol=1e-6)
        model.save(tmp_path / "model")
        loaded = GroupSparseCoder.load(tmp_path / "model").set_params(output="norms")
        np.testing.assert_allclose(loaded.transform(X), norms, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["autoencoder", "alternating"])
def test_groups_of_several_sizes_are_learned(unequal, algorithm, tmp_path):
    """Fails if spans of 1, 3 and 2 dimensions do not come back, or if files or the score forget the sizes."""
    X, labels, components = unequal
    settings = {"group_size": [3, 1, 2], "alpha": 0.05, "n_init": 5, "max_iter": 3, "random_state": 0}
    model = GroupSparseDictionaryLearning(algorithm=algorithm, output="norms", **settings).fit(X)
    assert model.group_size_ == (3, 1, 2)
    truth = torch.from_numpy(components[[1, 2, 3, 0, 4, 5]].T.copy())  # in the order of the sizes
    matched, _ = match_groups(torch.from_numpy(model.components_.T.copy()), truth, [3, 1, 2])
    assert principal_angles(matched, truth, [3, 1, 2]).max() < 0.1
    norms = model.transform(X)
    assert (np.array([1, 0, 2])[norms.argmax(axis=1)] == labels).mean() > 0.95
    model.save(tmp_path / "model")
    loaded = GroupSparseDictionaryLearning.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), norms)
    assert loaded.score(X) == model.score(X) > 0.5


def test_a_coder_of_version_0_3_is_read(unequal, tmp_path):
    """Fails if files of version 0.3, which say `group_size`, are not read as `groups`."""
    X, _, components = unequal
    model = GroupSparseCoder(components, groups=2).fit(X)
    model.save(tmp_path / "model")
    content, arrays = _saved.read_saved(tmp_path / "model", "GroupSparseCoder")
    old = {k: v for k, v in content["parameters"].items() if k != "weights"}
    old["group_size"] = old.pop("groups")
    fitted = content["fitted"] | {"group_size_": 2}
    del fitted["groups_"]
    _saved.write_saved(tmp_path / "old", "GroupSparseCoder", old, arrays, fitted=fitted)
    np.testing.assert_array_equal(GroupSparseCoder.load(tmp_path / "old").transform(X), model.transform(X))
