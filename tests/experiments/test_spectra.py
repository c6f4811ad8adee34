"""Measured spectra: which of a package's rows are clustered, on a package whose rows are known."""

import numpy as np
import pytest

from experiments.baselines import clustering as baselines
from experiments.baselines import spectra

COLUMNS = "NAME,LEVEL_1,LEVEL_2,LEVEL_3,LEVEL_4,SOURCE"
ROWS = (
    [("pervious", "bare", "soil", "measured", "large")] * 400
    + [("impervious", "built", "road", "measured", "small")] * 60
    + [("impervious", "built", "glass", "measured", "small")] * 20
    + [("pervious", "bare", "sand", "measured", "other")] * 30
    + [("pervious", "vegetation", "canopy", "simulated", "model")] * 500
)


@pytest.fixture
def package(monkeypatch):
    """The rows above, with a spectrum each whose first two bands tell its row, in place of the package."""
    lines = [COLUMNS, *(",".join((f"row {k}", *row)) for k, row in enumerate(ROWS))]
    values = np.zeros((len(ROWS), spectra.BANDS), "<f4")
    values[:, 0], values[:, 1] = np.arange(len(ROWS)), 10.0
    files = {"spectra.csv": "\n".join(lines).encode(), "spectra.sli": values.tobytes()}
    monkeypatch.setattr(spectra, "read_verified", lambda name, file: files[file.rpartition("/")[2]])
    return values


def test_simulated_spectra_small_kinds_and_most_of_the_large_library_are_left_out(package):
    """Fails if simulated spectra stay, the large library is not cut to the size of all others, or small kinds stay."""
    data, kinds = spectra.load_spectra(3)
    assert dict(zip(*np.unique(kinds, return_counts=True), strict=True)) == {"road": 60, "sand": 30, "soil": 110}
    np.testing.assert_allclose(np.linalg.norm(data, axis=1), 1, rtol=1e-6)
    rows = np.rint(data[:, 0] / data[:, 1] * 10).astype(int)  # the length forgets brightness, and not the ratio
    assert [ROWS[row][2] for row in rows] == kinds.tolist() and len(set(rows)) == len(rows)
    assert spectra.load_spectra(2)[1].tolist().count("built") == 80


def test_a_run_asks_for_as_many_clusters_as_there_are_kinds(package, monkeypatch):
    """Fails if the number of clusters is another one, or labels reach the method."""
    asked = []

    def method(data, n_clusters, seed):
        asked.append((data.shape, n_clusters, seed))
        return np.arange(len(data)) % n_clusters

    monkeypatch.setitem(baselines.METHODS, "k-means", method)
    run = spectra.measure_spectra(3, "k-means", seed=4)
    assert asked == [((200, spectra.BANDS), 3, 4)] and (run.n_samples, run.n_kinds) == (200, 3)
    assert 0.3 < run.accuracy < 0.6


def test_rejects_levels_and_methods_that_are_not_compared(package):
    """Fails if a level without kinds is clustered, or a method of another experiment runs."""
    with pytest.raises(ValueError, match="level=1"):
        spectra.load_spectra(1)
    with pytest.raises(ValueError, match="method='autoencoder"):
        spectra.measure_spectra(3, "autoencoder + k-means", seed=0)
