"""Pictures of clusters: what is drawn is what was given."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gsae_book.app import report_figures

LABELS = np.array([0, 1, 1, 0, 2, 2])


@pytest.fixture(autouse=True)
def closed_figures():
    """Each test ends without open figures."""
    yield
    plt.close("all")


@pytest.fixture
def values():
    found = np.random.default_rng(0).normal(3, 2, size=(6, 4))
    found[:, 2] = 7
    return found


def test_deviations_are_those_of_the_columns(values):
    """Fails if a mean is of another cluster or not in deviations of its column, or a constant is divided by 0."""
    kinds, found = report_figures.deviations(values, LABELS)
    assert kinds.tolist() == [0, 1, 2]
    for k in kinds:
        for column in (0, 1, 3):
            mine = [values[i, column] for i in range(6) if LABELS[i] == k]
            z = (sum(mine) / 2 - sum(values[:, column]) / 6) / np.std(values[:, column])
            assert found[k, column] == pytest.approx(z)
    assert (found[:, 2] == 0).all()


def test_few_columns_are_a_heat_map_and_many_are_curves(values):
    """Fails if a row or a curve is of another cluster, or columns with numbers for names are not at their numbers."""
    figure = report_figures.cluster_profiles(
        values, LABELS, ["a", "b", "c", "a name that is much too long for an axis"]
    )
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), report_figures.deviations(values, LABELS)[1])
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["a", "b"]
    wide = np.tile(values, 11)
    ax = report_figures.cluster_profiles(wide, LABELS, [str(400 + 5 * k) for k in range(44)]).axes[0]
    for k, line in enumerate(ax.lines):
        np.testing.assert_allclose(line.get_xdata(), 400 + 5 * np.arange(44))
        np.testing.assert_allclose(line.get_ydata(), wide[LABELS == k].mean(axis=0))


def test_pixels_are_images():
    """Fails if the mean of a cluster is drawn under the name of another, or turned."""
    values = np.random.default_rng(0).normal(size=(6, 49))
    figure = report_figures.cluster_profiles(values, LABELS, [f"pixel_{k // 7}_{k % 7}" for k in range(49)])
    for k in range(3):
        assert figure.axes[k].get_title() == str(k)
        np.testing.assert_allclose(figure.axes[k].images[0].get_array()[2, 5], values[LABELS == k, 2 * 7 + 5].mean())


def test_the_same_cluster_has_the_same_colour_under_another_number(values):
    """Fails if colours follow numbers, so that two clusterings that agree look different."""
    figure = report_figures.clusters_in_plane(values, {"one": LABELS, "other": 2 - LABELS})
    looks = [
        {
            tuple(np.round(point, 6)): to_rgb(dots.get_facecolor()[0][:3])
            for dots in ax.collections
            for point in dots.get_offsets()
        }
        for ax in figure.axes
    ]
    assert looks[0] == looks[1] and len(set(looks[0].values())) == 3 and len(looks[0]) == 6


def test_one_column_has_a_plane_too():
    """Fails if a table of one column, or of two samples, stops the report."""
    for values in (np.arange(6.0)[:, None], np.ones((6, 3))):
        report_figures.clusters_in_plane(values, {"": LABELS})
        report_figures.cluster_profiles(values, LABELS, [str(k) for k in range(values.shape[1])])
