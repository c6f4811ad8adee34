"""Data larger than memory: a memory map gives what the array in memory gives, and is not read into memory."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone

from gsae_lib import _checks
from gsae_lib.estimators import (
    GroupSparseClustering,
    GroupSparseCoder,
    GroupSparseDictionaryLearning,
    _base,
    clustering,
    dictionary,
)
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.networks import GroupSparseAutoencoder
from gsae_lib.training import TrainingSettings, train

SIZES = (12, 6, 2)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Many blocks for few samples."""
    monkeypatch.setattr(_checks, "BLOCK_ENTRIES", 100)
    monkeypatch.setattr(_base, "BLOCK", 17)
    monkeypatch.setattr(dictionary, "START_SAMPLES", 40)


@pytest.fixture(params=[np.float64, np.float32, np.int16])
def table(request):
    truth = orthonormal_groups_dictionary(*SIZES, generator=torch.Generator().manual_seed(3))
    source = GroupSparseSource.union_of_subspaces(truth, 2, snr_db=20.0)
    data = source.sample(90, generator=torch.Generator().manual_seed(4)).data.numpy()
    return (10 * data).astype(request.param)


@pytest.fixture
def mapped(table, tmp_path):
    np.save(tmp_path / "x.npy", table)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("batch_size", [16, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_on_a_map_is_training_on_the_array(table, mapped, batch_size, dtype):
    """Fails if rows, their order, their conversion or the checkpoint depend on where the data are."""
    found = []
    for data in (table, mapped, mapped[:]):
        rng = torch.Generator().manual_seed(0)
        model = GroupSparseAutoencoder(*SIZES, 1.0, n_iterations=3, generator=rng).to(dtype)
        plan = TrainingSettings(epochs=3, batch_size=batch_size, progress=False)
        history = train(model, data, plan, generator=rng)
        found.append((history.curves, model.weight.detach()))
    for curves, weight in found[1:]:
        assert curves == found[0][0] and torch.equal(weight, found[0][1])


SETTINGS = {"n_groups": 6, "group_size": 2, "alpha": 10.0, "max_iter": 2, "batch_size": 16, "random_state": 0}


MODELS = [
    GroupSparseCoder(groups=2, alpha=10.0, output="norms"),
    GroupSparseDictionaryLearning(**SETTINGS),
    GroupSparseDictionaryLearning(**SETTINGS | {"max_iter": 1}, algorithm="alternating"),
    GroupSparseClustering(3, **SETTINGS),
    GroupSparseClustering(3, **SETTINGS, assign="spectral"),
    GroupSparseClustering(6, **SETTINGS, assign="argmax"),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_estimators_of_a_map_are_those_of_the_array(table, mapped, model):
    """Fails if anything that an estimator does depends on where the data are."""
    one, other = clone(model).fit(table), clone(model).fit(mapped)
    np.testing.assert_array_equal(one.components_, other.components_)
    np.testing.assert_array_equal(one.transform(table), other.transform(mapped))
    assert one.transform(table).dtype == other.transform(mapped).dtype
    assert one.score(table) == other.score(mapped) and one.n_features_in_ == other.n_features_in_
    if hasattr(model, "predict"):
        np.testing.assert_array_equal(one.labels_, other.labels_)
        np.testing.assert_array_equal(one.predict(table), other.predict(mapped))


@pytest.mark.parametrize("assign", ["kmeans", "argmax"])
def test_clusters_of_more_samples_than_are_clustered(table, monkeypatch, assign):
    """Fails if samples beyond the limit have no cluster, another than `predict` says, or all samples are clustered."""
    monkeypatch.setattr(clustering, "CLUSTERED", 50)
    sizes, kmeans = [], clustering.KMeans.fit
    monkeypatch.setattr(clustering.KMeans, "fit", lambda self, X: sizes.append(len(X)) or kmeans(self, X))
    model = GroupSparseClustering(6, **SETTINGS, assign=assign).fit(table)
    assert model.labels_.shape == (90,) and set(sizes) <= {50}
    np.testing.assert_array_equal(model.labels_, model.predict(table))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((90, 12), np.nan), "non-finite"),
        (np.ones((90, 12), dtype=np.complex128), "real numbers|omplex"),
        (np.ones(90), r"\(90,\)|1D array"),
    ],
)
def test_rejects_maps(tmp_path, bad, message):
    """Fails if a map is not checked as an array is."""
    np.save(tmp_path / "x.npy", bad)
    opened = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = GroupSparseAutoencoder(*SIZES, 1.0, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        train(model, opened, TrainingSettings(progress=False), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        GroupSparseDictionaryLearning(**SETTINGS).fit(opened)


MEASURE = """
import sys, threading, time
import numpy as np, torch
from gsae_lib import GroupSparseAutoencoder, TrainingSettings, train
from gsae_lib import GroupSparseClustering, GroupSparseDictionaryLearning
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024
X = np.load(sys.argv[1], mmap_mode="r")
rng = torch.Generator().manual_seed(0)
settings = {"n_groups": 8, "group_size": 4, "alpha": 2.0, "max_iter": 1, "n_iterations": 2, "init": "random",
            "batch_size": 512, "random_state": 0}
def work(X):
    model = GroupSparseAutoencoder(X.shape[1], 8, 4, 2.0, generator=rng)
    train(model, X, TrainingSettings(epochs=1, batch_size=512, progress=False), generator=rng)
    learner = GroupSparseDictionaryLearning(**settings, output="norms").fit(X)
    learner.score(X), learner.transform(X)
    GroupSparseClustering(8, **settings, assign="argmax").fit(X).predict(X)
def peak_of(X):
    peak, done = [0.0], threading.Event()
    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())
    thread = threading.Thread(target=watch)
    thread.start()
    work(X)
    done.set()
    thread.join()
    return peak[0]
print(peak_of(X[:20_000]), peak_of(X))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Fails if anything holds a copy of the data, or a mask of their size: 100 MiB of int16, 390 MiB as float64."""
    table = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.int16, (100_000, 512))
    rng = np.random.default_rng(0)
    for start in range(0, len(table), 10_000):
        table[start : start + 10_000] = rng.integers(-9, 10, (10_000, 512))
    del table
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "x.npy")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    some, everything = map(float, result.stdout.split())
    assert everything - some < 23  # MiB: labels, norms, the order of samples; a mask of the data would be 39 more
