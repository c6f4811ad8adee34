"""Figures: what is drawn is what was given, and bad shapes are refused."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection

from gsae_book.build import figures
from gsae_lib.activations import group_relu
from gsae_lib.theory import Certificate, Window
from gsae_lib.theory.floors import ErrorBudget


@pytest.fixture(autouse=True)
def closed_figures():
    """Each test starts and ends without open figures."""
    yield
    plt.close("all")


def test_mosaic_shows_each_atom_on_its_own_scale(rng):
    """Fails if atoms are mixed up, not scaled one by one, outside their tile, or of pixels that are not theirs."""
    dictionary = torch.randn(6, 8, generator=rng)
    image = figures.dictionary_mosaic(dictionary, 4, (2, 3)).axes[0].images[0].get_array()
    assert image.shape == (2 * 3, 4 * 4)  # two groups of four tiles of (2 + 1) x (3 + 1)
    atom = dictionary[:, 5].reshape(2, 3)  # group 1, column 1
    np.testing.assert_allclose(image[3:5, 4:7], atom / atom.abs().max(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"image_shape=\(2, 2\).* 6 pixels"):
        figures.dictionary_mosaic(dictionary, 4, (2, 2))


def test_activation_pattern_has_a_panel_for_each_code(rng):
    """Fails if a code is dropped or its stems do not end at its entries."""
    codes = {"one": torch.randn(12, generator=rng), "two": torch.randn(12, generator=rng)}
    figure = figures.activation_pattern(codes, 3)
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    tops = [segment[1, 1] for segment in figure.axes[1].collections[-1].get_segments()]
    np.testing.assert_allclose(tops, codes["two"], rtol=1e-6)


def test_similarity_matrices_sort_by_label(rng):
    """Fails if rows are not sorted by label, or distances are not divided by their median."""
    labels = torch.tensor([1, 0, 1, 0])
    points = torch.tensor([[1.0], [0.0], [1.1], [0.1]])
    figure = figures.similarity_matrices({"points": points}, labels)
    image = figure.axes[0].images[0].get_array()
    distances = np.abs(np.subtract.outer([0.0, 0.1, 1.0, 1.1], [0.0, 0.1, 1.0, 1.1]))
    scale = image[0, 2] / distances[0, 2]
    np.testing.assert_allclose(image, scale * distances, atol=1e-5)


def test_curves_draw_mean_and_spread():
    """Fails if the line is not the mean over runs or the band not one sample standard deviation."""
    runs = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 9.0]])
    figure = figures.curves({"a": runs}, [1, 2, 3], xlabel="x", ylabel="y", log="y")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [2, 3, 6])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    # The sample standard deviation of two values is their distance over sqrt 2: 2 and 6 lie between.
    assert band.min() == pytest.approx(2 - 2**0.5) and band.max() == pytest.approx(6 + 3 * 2**0.5)
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_phase_diagram_marks_one_half():
    """Fails if the contour at one half is missing where values cross it, or drawn where they do not."""
    crossing = np.linspace(0, 1, 12).reshape(3, 4)
    settings = {"xlabel": "x", "ylabel": "y", "label": "share"}
    contours = [
        sum(isinstance(c, matplotlib.contour.QuadContourSet) for c in ax.collections)
        for values in (crossing, np.zeros((3, 4)))
        for ax in figures.phase_diagram(values, range(4), range(3), **settings).axes[:1]
    ]
    assert contours == [1, 0]


def test_vector_field_tells_zero_from_shrinkage():
    """Fails if points inside the circle are drawn as shrunk, or arrows do not end at the images."""
    figure = figures.vector_field(lambda x: group_relu(x, 1.0, 2), radius=1.0, extent=2.0, steps=5)
    inactive, shrunk = figure.axes[0].collections[:2]
    assert len(inactive.U) == 5 and len(shrunk.U) == 20  # the cross of five points within distance one
    np.testing.assert_allclose(np.hypot(shrunk.U, shrunk.V), 1.0, rtol=1e-5)


def test_accuracy_by_method_keeps_the_order_and_shows_the_means():
    """Fails if methods are reordered, a bar is not the mean of its runs, or a reference line is lost."""
    rows = pd.DataFrame(
        {
            "features": ["pixels"] * 4,
            "method": ["spectral", "k-means on codes", "spectral", "k-means on codes"],
            "epochs": [0, 2, 0, 2],
            "accuracy": [0.5, 0.8, 0.7, 0.6],
        }
    )
    axes = figures.accuracy_by_method(rows, reference={"paper": 0.75}).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["pixels: spectral", "pixels: codes, 2 epochs"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.6, 0.7])
    assert "paper" in axes.get_legend_handles_labels()[1]


def test_curve_panels_put_each_series_into_its_panel():
    """Fails if panels are mixed up, a name has two colours or is not in the legend, or the y axis is linear."""
    runs = np.array([[1.0, 2.0], [3.0, 4.0]])
    panels = {"left": {"a": runs, "b": 2 * runs}, "right": {"b": 10 * runs}}
    figure = figures.curve_panels(panels, ["0", "10"], xlabel="x", ylabel="y", columns=2, log=True)
    left, right = figure.axes
    np.testing.assert_allclose([line.get_ydata() for line in left.lines], [[2, 3], [4, 6]])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [20, 30])
    assert right.lines[0].get_color() == left.lines[1].get_color() != left.lines[0].get_color()
    assert [ax.get_title() for ax in figure.axes] == ["left", "right"] and left.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_heat_maps_print_their_tables():
    """Fails if a number, a row or a column stands in the wrong place, a zero is printed, or rows are not turned up."""
    tables = {"one": pd.DataFrame([[0.5, 0.0]], columns=["p", "q"]), "two": pd.DataFrame([[7, 8]], columns=["p", "q"])}
    figure = figures.heat_maps(tables, xlabel="x", ylabel="y", formats=(".2f", "d"), label="z", upwards=True)
    one, two, bar = figure.axes
    assert [[text.get_text() for text in ax.texts] for ax in (one, two)] == [["0.50", ""], ["7", "8"]]
    assert [text.get_text() for text in two.get_xticklabels()] == ["p", "q"]
    assert one.get_ylim() == (0.0, 1.0) and bar.get_ylabel() == "z"


@pytest.mark.parametrize("dims", [2, 3])
def test_scatter_draws_every_point(rng, dims):
    """Fails if a label is left out."""
    labels = torch.tensor([0, 1, 2, 1, 0])
    figure = figures.scatter_by_label(torch.randn(5, dims, generator=rng), labels)
    assert [len(line.get_data_3d()[0] if dims == 3 else line.get_xdata()) for line in figure.axes[0].lines] == [2, 2, 1]


WINDOW = Window("wide", 1.0, 2.0, "nothing", True)


def test_dots_by_row():
    """Fails if a number is not where its row and column say, or the first column is not drawn last."""
    table = pd.DataFrame({"a": [0.1, 0.5], "b": [0.7, 0.2], "c": [0.3, 0.4]}, index=["x", "y"])
    ax = figures.dots_by_row(table, xlabel="z", first="b").axes[0]
    drawn = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert drawn == {"a": [0.1, 0.5], "c": [0.3, 0.4], "b": [0.7, 0.2]} and list(drawn)[-1] == "b"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["x", "y"] and ax.yaxis_inverted()


def test_comparison_pairs_colours():
    """Fails if a measurement and its prediction differ in colour, or dots are not the means of the runs."""
    measured = {"a": np.array([[1.0, 2.0], [3.0, 4.0]])}
    figure = figures.comparison([0, 1], measured, {"a": [2.1, 3.1], "b": [0.0, 0.0]}, xlabel="x", ylabel="y")
    line, dots = figure.axes[0].lines[:2]
    np.testing.assert_allclose(dots.get_ydata(), [2.0, 3.0])
    assert line.get_color() == dots.get_color() and len(figure.axes[0].lines) == 3


def test_success_and_windows_draw_bands_and_bars():
    """Fails if a window's bar has other ends, or an empty window is a bar."""
    thresholds, empty = [1.0, 1.5], Window("none", 3.0, 2.0, "nothing", True)
    figure = figures.success_and_windows(
        thresholds, {"1 dB": [0.4, 1.0]}, {"1 dB": [0.5, 1.0]}, {"wide": WINDOW, "none": empty}, n_samples=100
    )
    top, bottom = figure.axes
    band = top.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.37) and band.max() == pytest.approx(1.0)  # 99 % of 100 tosses: 37 to 63
    (bar,) = bottom.patches
    assert (bar.get_x(), bar.get_width()) == (1.0, 1.0)
    assert [t.get_text() for t in bottom.get_yticklabels()] == ["wide", "none"]


def test_certificate_draws_threshold_windows_and_deciles():
    """Fails if the threshold is not marked in both panels, or the medians are others."""
    found = Certificate(1.5, 10, (), (WINDOW,), tuple(np.linspace(0, 1, 11)), tuple(np.linspace(2, 4, 11)))
    top, bottom = figures.certificate(found).axes
    medians = [line.get_xdata()[0] for line in top.lines if line.get_marker() == "o"]
    assert medians == pytest.approx([0.5, 3.0])
    for ax in (top, bottom):
        assert any(list(line.get_xdata()) == [1.5, 1.5] for line in ax.lines)


def test_error_budgets_stack_to_the_totals():
    """Fails if a part is missing from a bar: the tops are the sums."""
    parts = {"rotation": np.array([1.0, 2.0]), "tilt": np.array([0.5]), "angles": np.array([2.0])}
    budget = ErrorBudget(1.0, 0.25, 2.0, 0.125)
    tops = {}
    for bar in figures.error_budgets({5.0: parts}, {5.0: budget}).axes[0].patches:
        place = round(bar.get_x(), 2)
        tops[place] = max(tops.get(place, 0.0), bar.get_y() + bar.get_height())
    assert sorted(tops.values()) == pytest.approx([budget.total, 4.0])


POLE = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)


def test_hemisphere_flow_leads_to_its_sink():
    """Fails if velocities are mapped wrongly: the flow to the pole points at the middle of the disc."""
    _, ax = plt.subplots()
    figures.hemisphere_flow(lambda x: POLE - x * x[:, 2:], lambda x: x[:, 2], POLE, title="t", ax=ax)
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    starts, moves = np.array([(s[0], s[-1] - s[0]) for s in lines.get_segments()]).swapaxes(0, 1)
    assert (np.sum(starts * moves, axis=1) < 0).mean() > 0.95
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(np.hstack(star.get_data()), [0.0, 0.0], atol=1e-12)


def test_hemisphere_flows_give_each_panel_its_penalty():
    """Fails if a panel is drawn with the penalty of another one, or a penalty has no panel."""
    shade = lambda x, penalty: (x[:, 2] > penalty).double()  # noqa: E731
    figure = figures.hemisphere_flows(lambda x, penalty: penalty * (POLE - x * x[:, 2:]), shade, POLE, [0.2, 0.9])
    assert [ax.get_title() for ax in figure.axes] == [r"$\lambda = 0.2$", r"$\lambda = 0.9$"]
    shares = [ax.collections[0].get_array().mean() for ax in figure.axes]
    assert shares[0] > 2 * shares[1] > 0
