"""Saved estimators: what comes back, what is refused, and that no file is half written."""

import json
import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save
from sklearn.base import clone

from gsae_lib import _saved
from gsae_lib.estimators import GroupSparseClustering, GroupSparseCoder, GroupSparseDictionaryLearning

SETTINGS = {"group_size": 2, "alpha": 0.3, "random_state": 0}
MODELS = {
    "coder": GroupSparseCoder(np.eye(6)[:4], groups=2),
    "learning": GroupSparseDictionaryLearning(3, **SETTINGS, max_iter=1),
    "kmeans": GroupSparseClustering(3, n_groups=5, **SETTINGS),
    "spectral": GroupSparseClustering(3, n_groups=5, assign="spectral", **SETTINGS),
    "argmax": GroupSparseClustering(3, assign="argmax", **SETTINGS),
    "auto": GroupSparseClustering("auto", random_state=0),
    "choice, groups": GroupSparseClustering(3, method="auto", scaling="none", random_state=0),
    "choice, kmeans": GroupSparseClustering(2, method="kmeans", scaling="standardize", random_state=0),
}


@pytest.fixture(scope="module")
def samples():
    """Samples on three planes in six dimensions."""
    rng = np.random.default_rng(0)
    codes = 3 * rng.normal(size=(60, 6)) * (np.repeat(range(3), 20)[:, None] == np.repeat(range(3), 2))
    return codes + 0.01 * rng.normal(size=(60, 6))


@pytest.fixture(scope="module")
def fitted(samples):
    """Each model, fitted once: tests do not change them."""
    return {name: clone(model).fit(samples) for name, model in MODELS.items()}


def sign(path, change, *, checksum=True):
    """Change what is saved, and give it the checksum that it should have."""
    text, packed = path.with_name("model.json"), path.with_name("model.safetensors")
    content, arrays = json.loads(text.read_text()), load_file(packed)
    content.pop("sha256")
    change(content, arrays)
    told = {"sha256": _saved.checksum(content, arrays)} if checksum else {}
    text.write_text(json.dumps(content | told))
    packed.write_bytes(save(arrays))


def refused(model, path):
    """The message, one line, with which a model is not loaded."""
    with pytest.raises(ValueError, match=r"path='.*model': not a saved ") as caught:
        type(model).load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_files_bring_back_the_same_answers(fitted, samples, tmp_path, name):
    """Fails if an attribute, a parameter or the scaling of new rows is lost on the way through safetensors and JSON."""
    model = fitted[name]
    model.save(tmp_path / "new" / "model-0.5")
    loaded = type(model).load(tmp_path / "new" / "model-0.5")
    assert vars(loaded).keys() == vars(model).keys()
    np.testing.assert_array_equal(loaded.transform(samples + 0.1), model.transform(samples + 0.1))
    assert loaded.score(samples) == model.score(samples)
    for known in ("evidence_", "fits_subspaces_", "reason_"):
        assert getattr(loaded, known, None) == getattr(model, known, None)
    if hasattr(model, "predict"):
        np.testing.assert_array_equal(loaded.predict(samples + 0.1), model.predict(samples + 0.1))
        np.testing.assert_array_equal(loaded.labels_, model.labels_)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model-0.5.json", "model-0.5.safetensors"}


@pytest.mark.parametrize("name", MODELS)
def test_every_byte_is_under_the_checksum(fitted, tmp_path, name):
    """Fails if a byte of either file may be another, or its end be lost, without a word."""
    fitted[name].save(tmp_path / "model")
    rng = np.random.default_rng(1)
    for file in (tmp_path / "model.json", tmp_path / "model.safetensors"):
        content = file.read_bytes()
        for place in rng.integers(0, len(content) - 1, 25):  # the last byte of JSON ends its last line
            for other in (content[:place], content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :]):
                file.write_bytes(other)
                refused(fitted[name], tmp_path / "model")
        file.write_bytes(content)


CHANGES = [
    ("kmeans", "parameters", "alpha", -1.0, "alpha=-1.0"),
    ("kmeans", "parameters", "alpha", "1", "alpha='1'"),
    ("kmeans", "parameters", "n_init", 0, "n_init=0"),
    ("kmeans", "parameters", "n_iterations", 10**9, "n_iterations=1000000000: expected .* to 100000"),
    ("kmeans", "parameters", "init", "zeros", "init='zeros'"),
    ("kmeans", "parameters", "init", ["data"], "init="),
    ("kmeans", "parameters", "device", "gpu!", "device='gpu!'"),
    ("kmeans", "parameters", "random_state", -1, "random_state=-1"),
    ("kmeans", "parameters", "n_groups", 4, "n_groups=4: what was fitted has 5"),
    ("kmeans", "parameters", "n_clusters", 4, "n_clusters=4: what was fitted has 3"),
    ("kmeans", "parameters", "assign", "spectral", "assign='spectral': what was fitted has 'kmeans'"),
    ("kmeans", "fitted", "evidence_", None, "evidence_: nothing that `fit` sets"),
    ("auto", "parameters", "intercept", -1.0, "intercept=-1.0"),
    ("auto", "fitted", "alpha_", 0.0, "alpha_=0.0"),
    ("auto", "fitted", "n_clusters_", 1.5, "n_clusters_=1.5"),
    ("auto", "fitted", "assign_", "strongest", "assign_='strongest'"),
    ("auto", "fitted", "intercept_", -1.0, "intercept_=-1.0"),
    ("auto", "fitted", "intercept_", 0.0, "n_features_in_=6: expected an integer from 7 to 7"),
    ("auto", "fitted", "evidence_", {"n_splits": 2}, "evidence_: expected the fields explained_by_subspaces"),
    ("auto", "fitted", "fits_subspaces_", "yes", "fits_subspaces_='yes': the evidence says"),
    ("choice, groups", "fitted", "method_", "kmeans", "alpha_: nothing that `fit` sets"),
    ("choice, groups", "fitted", "method_", "best", "method_='best'"),
    ("choice, groups", "parameters", "method", "groups", "nothing that `fit` sets"),
    ("choice, groups", "parameters", "method", "kmeans", "method='kmeans': what was fitted has 'groups'"),
    ("choice, groups", "fitted", "certainty_", None, "certainty_=None: expected a text"),
    ("choice, groups", "fitted", "scaling_method_", "log", "scaling_method_='log'"),
    ("choice, groups", "arrays", "mean_", np.zeros(5), r"mean_: expected an array of shape \(6\)"),
    ("choice, kmeans", "parameters", "scaling", "none", "scaling='none': what was fitted has 'standardize'"),
    ("choice, kmeans", "fitted", "fits_subspaces_", True, "fits_subspaces_=True: the evidence says None"),
    ("choice, kmeans", "arrays", "spread_", np.zeros(6), "spread_: expected numbers above 0"),
    ("choice, kmeans", "arrays", "confidence_", np.zeros(59), r"confidence_: expected an array of shape \(60\)"),
    ("choice, kmeans", "arrays", "cluster_centers_", np.zeros((2, 5)), r"cluster_centers_: expected .* \(2, 6\)"),
    ("kmeans", "parameters", "nope", 1, "nope"),
    ("kmeans", "parameters", "checkpoint", "../run", "checkpoint='../run': expected a file in the folder"),
    ("kmeans", "parameters", "checkpoint", "/etc/run", "checkpoint='/etc/run': expected a file in the folder"),
    ("argmax", "parameters", "n_clusters", 2, "n_clusters=2: what was fitted has 3"),
    ("coder", "parameters", "dictionary", [[1.0]], "dictionary: expected none"),
    ("coder", "parameters", "max_iter", 0, "max_iter=0"),
    ("learning", "fitted", "group_size_", 4, "group_size_=4"),
    ("learning", "fitted", "group_size_", "2", "group_size_='2'"),
    ("learning", "fitted", "n_features_in_", 5, "n_features_in_=5: expected an integer from 6 to 6"),
    ("learning", "fitted", "n_iter_", True, "n_iter_=True"),
    ("learning", "fitted", "transform_", 3, "transform_: nothing that `fit` sets"),
    ("kmeans", "arrays", "labels_", np.full(60, 3), "labels_: expected whole numbers from 0 to 2"),
    ("kmeans", "arrays", "labels_", np.zeros(60), "labels_: expected int32 or int64"),
    ("kmeans", "arrays", "cluster_centers_", np.full((3, 5), np.nan), "cluster_centers_: row 0, column 0 is NaN"),
    ("kmeans", "arrays", "cluster_centers_", np.zeros((3, 4)), r"cluster_centers_: expected an array .* \(3, 5\)"),
    ("kmeans", "arrays", "components_", np.zeros(6), r"components_: expected \(components, features\)"),
    ("kmeans", "arrays", "components_", np.zeros((10, 6), np.float16), "components_: expected float32 or float64"),
    ("kmeans", "arrays", "components_", np.full((10, 6), 1e300), "its square overflows"),
    ("spectral", "arrays", "reference_labels_", np.full(60, -1), "reference_labels_: expected whole numbers"),
    ("spectral", "arrays", "reference_norms_", np.zeros((59, 5)), r"reference_norms_: expected .* \(60, 5\)"),
]


@pytest.mark.parametrize(("name", "part", "field", "value", "message"), CHANGES)
def test_what_cannot_be_is_refused_field_by_field(fitted, tmp_path, name, part, field, value, message):
    """Fails if a file with the right checksum may hold what `fit` would never set: the model would misbehave later."""
    fitted[name].save(tmp_path / "model")
    sign(tmp_path / "model", lambda content, arrays: {**content, "arrays": arrays}[part].update({field: value}))
    assert re.search(message, refused(fitted[name], tmp_path / "model"))


@pytest.mark.parametrize("name", MODELS)
def test_nothing_may_be_missing(fitted, tmp_path, name):
    """Fails if a field of the JSON, a fitted number or an array is not looked for."""
    model = fitted[name]
    model.save(tmp_path / "model")
    content, arrays = json.loads((tmp_path / "model.json").read_text()), load_file(tmp_path / "model.safetensors")
    drops = [lambda content, arrays, field=field: content.pop(field) for field in content if field != "sha256"]
    drops += [lambda content, arrays, field=field: content["fitted"].pop(field) for field in content["fitted"]]
    drops += [lambda content, arrays, field=field: arrays.pop(field) for field in arrays]
    assert len(drops) > 8
    for drop in drops:
        model.save(tmp_path / "model")
        sign(tmp_path / "model", drop)
        refused(model, tmp_path / "model")


def test_files_that_save_did_not_write_are_refused(fitted, tmp_path):
    """Fails if a file without a checksum is taken for an old one, or one of anything else is an error of its own."""
    fitted["kmeans"].save(tmp_path / "model")
    sign(tmp_path / "model", lambda content, arrays: None, checksum=False)
    assert "it has no checksum, as files of version 0.2" in refused(fitted["kmeans"], tmp_path / "model")
    for text in ("", "[]", "{}", "{" * 100_000, '{"class": "GroupSparseCoder", "parameters": {"old_name": 1}}'):
        (tmp_path / "model.json").write_text(text)
        refused(fitted["coder"], tmp_path / "model")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_what_is_no_file_is_refused(fitted, tmp_path, suffix):
    """Fails if a pipe is waited for, or a device without end is read."""
    fitted["kmeans"].save(tmp_path / "model")
    file = tmp_path / f"model{suffix}"
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)):
        file.unlink() if not file.is_dir() else file.rmdir()
        make(file)
        assert "is no file" in refused(fitted["kmeans"], tmp_path / "model")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_write_that_fails_leaves_the_files_as_they_were(fitted, tmp_path, monkeypatch, suffix):
    """Fails if a file is written in place: a full disk would cost the model that was there."""
    fitted["kmeans"].save(tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace

    def fail(source, target):
        if str(target).endswith(suffix):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        fitted["kmeans"].save(tmp_path / "model")
    assert {path: path.read_bytes() for path in before} == before
    assert GroupSparseClustering.load(tmp_path / "model").alpha == 0.3


def test_a_model_that_fits_nothing_is_not_saved(samples, tmp_path):
    """Fails if a parameter that was set after `fit` is written beside what it does not fit: nobody could load it."""
    model = clone(MODELS["learning"]).fit(samples).set_params(n_groups=7)
    with pytest.raises(ValueError, match="n_groups=7: what was fitted has 3"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_given_dictionary_is_taken_again(samples, tmp_path):
    """Fails if a coder that was loaded, and is fitted again, codes with another dictionary than before."""
    for dictionary in (np.eye(6)[:4], np.eye(6)[:4].tolist(), pd.DataFrame(np.eye(6)[:4]), None):
        model = GroupSparseCoder(dictionary, groups=2).fit(samples)
        model.save(tmp_path / "model")
        again = clone(GroupSparseCoder.load(tmp_path / "model")).fit(samples)
        np.testing.assert_array_equal(again.transform(samples), model.transform(samples))


def test_a_checkpoint_elsewhere_is_not_kept(samples, tmp_path):
    """Fails if a model that comes from elsewhere makes `fit` write out of its folder."""
    inner, again = tmp_path / "inner", tmp_path / "again"
    for place, kept in ((tmp_path / "run", None), (inner / "run", inner / "run")):
        model = clone(MODELS["learning"]).set_params(checkpoint=place).fit(samples)
        model.save(inner / "model")
        assert GroupSparseDictionaryLearning.load(inner / "model").checkpoint == (kept and str(kept))
    again.mkdir()
    for suffix in (".json", ".safetensors"):
        (inner / f"model{suffix}").rename(again / f"model{suffix}")
    assert GroupSparseDictionaryLearning.load(again / "model").checkpoint == str(again / "run")


def test_names_of_columns_are_kept(samples, tmp_path):
    """Fails if a loaded model does not know its columns, or takes a table whose columns are in another order."""
    frame = pd.DataFrame(samples, columns=list("abcdef"))
    model = clone(MODELS["kmeans"]).fit(frame)
    model.save(tmp_path / "model")
    loaded = GroupSparseClustering.load(tmp_path / "model")
    assert loaded.feature_names_in_.tolist() == list("abcdef") and loaded.feature_names_in_.dtype == object
    np.testing.assert_array_equal(loaded.predict(frame), model.labels_)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[list("fedcba")])


BAD_DATA = {
    "X: row 1, column 2 is NaN": lambda x: np.where(np.arange(360).reshape(60, 6) == 8, np.nan, x),
    "X: row 0, column 0 is infinite": lambda x: x * np.inf,
    "X: row 0, column 0 is 1e+300, and its square overflows": lambda x: np.full_like(x, 1e300),
    "at most 1e+18 in size": lambda x: np.full(x.shape, 3e38, np.float32),
    "X: 360 entries of a masked array are missing": lambda x: np.ma.masked_array(x, mask=True),
    "X: holds dates": lambda x: x.astype("datetime64[s]"),
    "Use '.toarray()'": lambda x: __import__("scipy.sparse").sparse.csr_matrix(x),
    "make it one by to_dense()": lambda x: torch.from_numpy(x).to_sparse(),
    "Complex data": lambda x: x + 1j,
    "Reshape your data": lambda x: x[0],
    "could not convert": lambda x: np.full(x.shape, "a"),
    "column 'b' is NaN": lambda x: pd.DataFrame(x, columns=list("abcdef")).assign(b=np.nan),
    "input has ['int', 'str']": lambda x: pd.DataFrame(x).assign(t=1.0),
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_bad_data_are_refused_in_one_line(samples, message):
    """Fails if data that cannot be used are, or the message does not fit on a line or does not name X."""
    for model in (GroupSparseCoder(), MODELS["kmeans"]):
        with pytest.raises((ValueError, TypeError), match=re.escape(message)) as caught:
            clone(model).fit(BAD_DATA[message](samples))
        assert "\n" not in str(caught.value) and "X" in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(samples, tmp_path, device):
    """Fails if an error of torch tells that this machine has no such device, or a model of another cannot be loaded."""
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    model = GroupSparseCoder().fit(samples).set_params(device=device)
    for call in (lambda: GroupSparseCoder(device=device).fit(samples), lambda: model.transform(samples)):
        with pytest.raises(ValueError, match=f"^device='{device}': this machine has none; expected 'cpu'") as caught:
            call()
        assert "\n" not in str(caught.value)
    model.save(tmp_path / "model")
    loaded = GroupSparseCoder.load(tmp_path / "model").set_params(device="cpu")
    assert loaded.transform(samples).shape == (60, 6)


@pytest.mark.parametrize(("verbose", "shown"), [(False, False), (True, True), (2, True)])
def test_progress_is_shown_if_asked_for(samples, capfd, verbose, shown):
    """Fails if training, alternating minimisation or coding is silent where it should not be, or speaks unasked."""
    learner = MODELS["learning"]
    for model in (clone(learner), clone(learner).set_params(algorithm="alternating"), GroupSparseCoder()):
        model.set_params(verbose=verbose).fit_transform(samples)
        assert bool(capfd.readouterr().err) == shown


@pytest.mark.parametrize("name", MODELS)
def test_tables_and_pandas_output_change_nothing(fitted, samples, name):
    """Fails if a model trips over its own output in pandas, warns about names that are there, or loses the index."""
    frame = pd.DataFrame(samples, columns=list("abcdef"), index=np.arange(60) + 100)
    plain = fitted[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = clone(plain).set_output(transform="pandas").fit(frame)
        found = model.transform(frame)
        assert isinstance(found, pd.DataFrame) and found.index.equals(frame.index)
        np.testing.assert_array_equal(found.to_numpy(), plain.transform(samples))
        if hasattr(model, "predict"):
            np.testing.assert_array_equal(model.predict(frame), plain.predict(samples))
        if name in ("kmeans", "spectral"):
            np.testing.assert_array_equal(model.recluster(frame, 3).labels_, plain.labels_)
