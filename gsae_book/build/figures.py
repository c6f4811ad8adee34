"""Figures: one style, colour-blind-safe colours, one function for each kind of figure.

Every function draws on axes that it makes and returns the Figure; captions and alt texts stand in the notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binom
from torch import Tensor

from gsae_lib.groups import to_groups

if TYPE_CHECKING:  # a figure of a certificate needs none of the theory, nor do the keys of the notebooks that draw
    from gsae_lib.theory import Certificate, Window
    from gsae_lib.theory.floors import ErrorBudget

PALETTE = sns.color_palette("colorblind")
SEQUENTIAL = "viridis"


def set_style() -> None:
    """Set the book's style for all figures that follow: seaborn's ticks, the colour-blind palette, 120 dpi."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 120,
            "figure.figsize": (6.5, 3.6),
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": SEQUENTIAL,
            "legend.frameon": False,
        }
    )


def dictionary_mosaic(
    dictionary: Tensor,
    group_size: int,
    image_shape: tuple[int, int],
    *,
    max_groups: int = 10,
    columns: int | None = None,
) -> Figure:
    """Atoms as images, one row of the mosaic for each group: (features, atoms), features = height * width.

    Each atom has its own symmetric grey scale (mid-grey is zero), since the sign of an atom is arbitrary.

    Raises:
        ValueError: image_shape does not have n_features pixels.
    """
    height, width = image_shape
    if height * width != dictionary.shape[0]:
        raise ValueError(f"image_shape={image_shape}: expected {dictionary.shape[0]} pixels, one for each feature")
    atoms = to_groups(dictionary.detach().cpu().T.reshape(-1, height, width).movedim(0, -1), group_size)
    atoms = atoms.permute(2, 3, 0, 1)[:max_groups, :columns]
    rows, cols = atoms.shape[:2]
    atoms = atoms / atoms.abs().amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(atoms.dtype).tiny)
    tiles = torch.full((rows, cols, height + 1, width + 1), 1.0)
    tiles[:, :, :height, :width] = atoms
    fig, ax = plt.subplots(figsize=(6.5, 6.5 * rows * (height + 1) / (cols * (width + 1)) + 0.3))
    ax.imshow(tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_yticks((height + 1) * (np.arange(rows) + 0.5) - 0.5, [f"{g}" for g in range(rows)])
    ax.set_xticks([])
    ax.set_ylabel("group")
    sns.despine(ax=ax, left=True, bottom=True)
    return fig


def activation_pattern(codes: Mapping[str, Tensor], group_size: int) -> Figure:
    """Codes of a single sample as stems, one panel a code, groups told apart by shading: name -> (atoms,)."""
    fig, axes = plt.subplots(len(codes), 1, figsize=(6.5, 1.9 * len(codes)), sharex=True, squeeze=False)
    for ax, (name, code) in zip(axes[:, 0], codes.items(), strict=True):
        values = code.detach().cpu().numpy()
        for g in range(0, len(values) // group_size, 2):
            ax.axvspan(g * group_size - 0.5, (g + 1) * group_size - 0.5, color="0.93", zorder=0)
        ax.vlines(np.arange(len(values)), 0, values, color=PALETTE[0], linewidth=1)
        ax.axhline(0, color="0.4", linewidth=0.6)
        ax.set(title=name, ylabel="code entry", xlim=(-0.5, len(values) - 0.5))
    axes[-1, 0].set_xlabel(f"atom (shading: groups of {group_size})")
    return fig


def similarity_matrices(points: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """Pairwise Euclidean distances, samples sorted by label, one panel for each representation.

    Each panel is divided by its own median distance, so panels compare contrast, not scale.
    """
    order = torch.argsort(labels, stable=True)
    edges = torch.bincount(labels).cumsum(0)[:-1]
    columns = min(2, len(points))
    rows = -(-len(points) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.1 * columns + 0.9, 3.2 * rows), squeeze=False)
    for ax in axes.flat[len(points) :]:
        ax.remove()
    for ax, (name, x) in zip(axes.flat, points.items(), strict=False):
        distances = torch.cdist(x[order], x[order])
        image = ax.imshow(distances / distances.median(), vmin=0, vmax=1.5, interpolation="nearest")
        for edge in edges.tolist():
            ax.axhline(edge - 0.5, color="white", linewidth=0.4)
            ax.axvline(edge - 0.5, color="white", linewidth=0.4)
        ax.set(title=name, xticks=[], yticks=[])
    for ax in axes[:, 0]:
        ax.set_ylabel("samples, sorted by label")
    fig.colorbar(image, ax=axes, label="distance / median", shrink=0.6)
    return fig


def curves(series: Mapping[str, np.ndarray], x: Sequence[float], *, xlabel: str, ylabel: str, log: str = "") -> Figure:
    """Curves with spread: name -> (runs, points); the line is the mean, the band one sample standard deviation.

    A single curve named "" has no legend. `log` names the axes with a logarithmic scale: "", "x", "y" or "xy".
    """
    fig, ax = plt.subplots()
    _draw_curves(ax, series, x, list(series))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_xscale("log" if "x" in log else "linear")
    ax.set_yscale("log" if "y" in log else "linear")
    if "x" not in log and len(x) <= 10:
        ax.set_xticks(x)
    if len(series) > 4:
        fig.legend(loc="outside lower center", ncols=2)
    elif any(series):
        ax.legend()
    return fig


def _draw_curves(
    ax: Axes, series: Mapping[str, np.ndarray], x: Sequence[float] | Sequence[str], names: Sequence[str]
) -> None:
    """Means and bands; the place of a name among `names` decides its colour and line."""
    styles = ("-", "--", "-.", ":")
    for name, values in series.items():
        k, values = names.index(name), np.atleast_2d(values)
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
        ax.plot(x, mean, styles[k % 4], color=PALETTE[k % len(PALETTE)], label=name)
        ax.fill_between(x, mean - spread, mean + spread, color=PALETTE[k % len(PALETTE)], alpha=0.2, linewidth=0)


def phase_diagram(
    values: np.ndarray, x: Sequence[float], y: Sequence[float], *, xlabel: str, ylabel: str, label: str
) -> Figure:
    """A share between 0 and 1 over two parameters: values (len(y), len(x)), y upwards, with the 0.5 contour."""
    fig, ax = plt.subplots(figsize=(5.2, 3.8))
    mesh = ax.pcolormesh(x, y, values, vmin=0, vmax=1, shading="nearest")
    if np.min(values) < 0.5 < np.max(values):
        ax.contour(x, y, values, levels=[0.5], colors="white", linewidths=1.2)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    fig.colorbar(mesh, ax=ax, label=label)
    return fig


def vector_field(field: Callable[[Tensor], Tensor], *, radius: float, extent: float = 4.0, steps: int = 12) -> Figure:
    """A map of the plane, (points, 2) -> (points, 2), as arrows from x to field(x), with the circle ||x|| = radius."""
    line = torch.linspace(-extent, extent, steps)
    points = torch.cartesian_prod(line, line)
    moves = field(points) - points
    fig, ax = plt.subplots(figsize=(4.6, 4.6))
    inside = torch.linalg.vector_norm(points, dim=1) <= radius
    for mask, color, name in ((inside, PALETTE[3], "to zero"), (~inside, PALETTE[0], "shrunk")):
        ax.quiver(
            *points[mask].T,
            *moves[mask].T,
            color=color,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.004,
            label=name,
        )
    ax.add_patch(plt.Circle((0, 0), radius, fill=False, color="0.2", linestyle="--"))
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-extent, extent), ylim=(-extent, extent))
    ax.legend(loc="upper right", framealpha=0.9, frameon=True)
    return fig


def method_names(rows: pd.DataFrame) -> pd.Series:
    """A short name for the method of each row of `score_results`, for example "pixels: group norms, 2 epochs"."""
    trained = rows["epochs"].map(lambda epochs: f", {epochs} epoch{'s' * (epochs > 1)}" if epochs else "")
    return rows["features"] + ": " + rows["method"].str.removeprefix("k-means on ") + trained


def accuracy_by_method(rows: pd.DataFrame, *, reference: Mapping[str, float] | None = None) -> Figure:
    """Accuracies: for each method a dot for every run and a bar at their mean, methods in order of appearance.

    `rows` are those of `score_results`, tagged with `features`; `reference` draws named vertical lines.
    """
    names = method_names(rows)
    means = rows.groupby(names, sort=False)["accuracy"].mean()
    fig, ax = plt.subplots(figsize=(6.8, 0.36 * len(means) + 1.1))
    ax.barh(means.index, means, color="0.85", height=0.62)
    ax.plot(rows["accuracy"], names, "o", color=PALETTE[0], markersize=4.5, alpha=0.75, label="one run")
    for k, (name, level) in enumerate((reference or {}).items(), start=1):
        ax.axvline(level, color=PALETTE[k], linestyle="--", label=name)
    for position, mean in enumerate(means):
        ax.text(1.01, position, f"{mean:.3f}", va="center", fontsize=10)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="accuracy", ylabel="")
    fig.legend(loc="outside lower right", ncols=3)
    return fig


def curve_panels(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    x: Sequence[float] | Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    columns: int,
    log: bool = False,
) -> Figure:
    """`curves` in panels, with one legend: title -> name -> (runs, points); the panels of a row share their y axis.

    Texts in x are spaced evenly. The first panel has all the names. `log`: of the y axes.
    """
    rows = -(-len(panels) // columns)
    size = (2.6 * columns + 1.6, 2.5 * rows + 1.2)
    fig, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey="row", squeeze=False)
    names = list(next(iter(panels.values())))
    for ax, (title, series) in zip(axes.flat, panels.items(), strict=True):
        _draw_curves(ax, series, x, names)
        ax.set_yscale("log" if log else "linear")
        ax.set_title(title, fontsize=11)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    columns = 1 if max(map(len, names)) > 40 else 2
    fig.legend(axes[0, 0].lines, names, loc="outside lower center", ncols=columns)
    return fig


def robustness(rows: pd.DataFrame) -> Figure:
    """A panel for each violation of chapter 20: shares found (lines) and supports right (dashed) against its strength.

    rows: columns violation, strength, n_active, found, exact and says_twice. Means and ranges over the other columns; a
    marker is filled where at least half of the runs are believed.
    """
    names = list(rows["violation"].unique())
    fig, axes = plt.subplots(-(-len(names) // 3), 3, figsize=(9.4, 2.1 * -(-len(names) // 3) + 0.8), sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        for k, (active, one) in enumerate(rows[rows["violation"] == name].groupby("n_active")):
            at = one.groupby("strength")
            found, believed = at["found"].agg(["mean", "min", "max"]), at["says_twice"].mean() >= 0.5
            label, color = f"{active} active", PALETTE[k % len(PALETTE)]
            ax.fill_between(found.index, found["min"], found["max"], color=color, alpha=0.2, linewidth=0)
            ax.plot(found.index, found["mean"], color=color, label=f"groups found, {label}")
            ax.plot(found.index, at["exact"].mean(), "--", color=color, linewidth=1, label=f"supports right, {label}")
            for filled, places in ((True, believed), (False, ~believed)):
                style = {"color": color, "markersize": 5, "fillstyle": "full" if filled else "none"}
                ax.plot(found.index[places], found["mean"][places], "os^D"[k % 4], **style)
        ax.axvline(0, color="0.7", linewidth=1, zorder=0)
        ax.set(ylim=(-0.05, 1.05), xlabel="")
        ax.set_title(name, fontsize=11)
    for ax in axes[-1]:
        ax.set_xlabel("strength")
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    fig.supylabel("share", fontsize=11)
    lines = [line for line in axes.flat[0].lines if not str(line.get_label()).startswith("_")]
    fig.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=2)
    return fig


def heat_maps(
    tables: Mapping[str, pd.DataFrame],
    *,
    xlabel: str,
    ylabel: str,
    formats: str | Sequence[str] = "",
    limits: tuple[float | None, float | None] = (None, None),
    label: str = "",
    upwards: bool = False,
) -> Figure:
    """Tables as heat maps side by side: title -> table, its rows downwards or `upwards`.

    formats: of the numbers in the cells, for all tables or for each; zeros and "" stay blank. limits: of the colours.
    label: of a colour bar, which then is that of all tables.
    """
    formats = [formats] * len(tables) if isinstance(formats, str) else formats
    size = (6.8 if len(tables) == 1 else 7.6, max(2.4, 0.27 * max(map(len, tables.values())) + 1.5))
    fig, axes = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False)
    for ax, (title, table), how in zip(axes[0], tables.items(), formats, strict=True):
        text = table.map(lambda value, how=how: format(value, how) if how and value else "")
        low, high = limits
        colors = {"vmin": low, "vmax": high, "cmap": SEQUENTIAL, "cbar": False}
        named = max(1, table.shape[1] // 10)  # about ten columns have their names
        sns.heatmap(table, ax=ax, annot=text, fmt="", annot_kws={"fontsize": 8}, xticklabels=named, **colors)
        if upwards:
            ax.invert_yaxis()
        ax.set(title=title, xlabel=xlabel, ylabel="")
        ax.tick_params(left=False, bottom=False, rotation=0)
    axes[0, 0].set_ylabel(ylabel)
    if label:
        fig.colorbar(ax.collections[0], ax=axes, label=label)
    return fig


def scatter_by_label(points: Tensor, labels: Tensor, *, ax: Axes | None = None) -> Figure:
    """Points of the plane or of space by label, (samples, 2 or 3), with a marker and a colour for each label."""
    dims = points.shape[1]
    if ax is None:
        ax = plt.figure(figsize=(5.2, 4.4)).add_subplot(projection="3d" if dims == 3 else None)
    markers = "osD^vP*X<>"
    for k in range(int(labels.max()) + 1):
        chosen = points[labels == k].numpy()
        ax.plot(*chosen.T, markers[k % 10], markersize=3, alpha=0.6, color=PALETTE[k % len(PALETTE)])
    ax.set(xlabel="$y_1$", ylabel="$y_2$")
    if dims == 3:
        ax.set_zlabel("$y_3$")
        ax.set(xticklabels=[], yticklabels=[], zticklabels=[])
    return ax.figure


def dots_by_row(table: pd.DataFrame, *, xlabel: str, first: str = "") -> Figure:
    """A line for each row of a table, from its smallest to its largest number, and on it a dot for each column.

    The column `first` is drawn last, larger and in black.
    """
    fig, ax = plt.subplots(figsize=(7.2, 0.27 * len(table) + 1.6))
    ax.hlines(table.index, table.min(axis=1), table.max(axis=1), color="0.85", linewidth=1, zorder=0)
    markers = "osD^vP*X"
    for k, column in enumerate(name for name in table if name != first):
        ax.plot(table[column], table.index, markers[k % 8], color=PALETTE[k % len(PALETTE)], markersize=5, label=column)
    if first:
        ax.plot(table[first], table.index, "o", color="k", markersize=8, fillstyle="none", mew=2, label=first)
    ax.invert_yaxis()
    ax.set(xlabel=xlabel, ylabel="")
    fig.legend(loc="outside lower center", ncols=3)
    return fig


def comparison(
    x: Sequence[float],
    measured: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    ylabel: str,
    log: str = "",
) -> Figure:
    """Theory as lines, (points,), and measurements as dots with one sample deviation, (runs, points), by name.

    A name that is in both gets one colour. `log` as in `curves`.
    """
    fig, ax = plt.subplots()
    names = list(dict.fromkeys([*predicted, *measured]))
    markers = "osD^vP*X"
    for k, name in enumerate(names):
        color = PALETTE[k % len(PALETTE)]
        if name in predicted:
            ax.plot(x, predicted[name], color=color, label=name if name not in measured else None)
        if name in measured:
            values = np.atleast_2d(measured[name])
            spread = values.std(axis=0, ddof=min(1, len(values) - 1))
            ax.errorbar(x, values.mean(axis=0), spread, fmt=markers[k % 8], color=color, markersize=5, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_xscale("log" if "x" in log else "linear")
    ax.set_yscale("log" if "y" in log else "linear")
    ax.legend()
    return fig


def success_and_windows(
    thresholds: Sequence[float],
    measured: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    windows: Mapping[str, Window],
    *,
    n_samples: int,
) -> Figure:
    """Share of exact supports over the threshold, and under it the windows as bars; empty windows are crosses.

    Lines are predictions with their 99 % binomial band for `n_samples` samples, dots are measurements.
    """
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6.5, 5.4), sharex=True, height_ratios=(2.2, 1))
    markers = "osD^vP*X"
    for k, name in enumerate(measured):
        low, high = (binom.ppf(level, n_samples, predicted[name]) / n_samples for level in (0.005, 0.995))
        top.fill_between(thresholds, low, high, color=PALETTE[k], alpha=0.25, linewidth=0)
        top.plot(thresholds, predicted[name], color=PALETTE[k], linewidth=1)
        top.plot(thresholds, measured[name], markers[k], color=PALETTE[k], markersize=4.5, label=name)
    top.set(ylabel="share of exact supports", ylim=(-0.03, 1.03))
    top.legend(loc="center right")
    _draw_windows(bottom, list(windows.values()))
    bottom.set(xlabel=r"threshold $\lambda$")
    return fig


def certificate(found: Certificate) -> Figure:
    """A certificate: deciles of the responses of inactive and active groups, windows, and the penalty (dashed)."""
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6.5, 4.2), sharex=True, height_ratios=(1, 1.4))
    for k, deciles in enumerate((found.inactive_responses, found.active_responses)):
        if deciles:
            top.plot(deciles, np.full(11, k), "|-", color=PALETTE[k], markersize=14)
            top.plot(deciles[5], k, "o", color=PALETTE[k])
    top.set(yticks=(0, 1), yticklabels=("inactive", "active"), ylim=(-0.6, 1.6))
    top.set_title("responses $\\|W_g^T y\\|$: range, deciles and median", fontsize=11, loc="left")
    _draw_windows(bottom, list(found.windows))
    bottom.set_title("windows (a cross: empty)", fontsize=11, loc="left")
    for ax in (top, bottom):
        ax.axvline(found.penalty, color="0.3", linestyle="--", linewidth=1)
    bottom.set(xlabel=r"threshold $\lambda$", xlim=(0, None))
    return fig


def error_budgets(measured: Mapping[float, Mapping[str, np.ndarray]], predicted: Mapping[float, ErrorBudget]) -> Figure:
    """The paper's error in parts, as a pair of stacked bars for each SNR in dB: measured in runs, and predicted.

    measured holds "rotation", "tilt" and "angles", (runs,); the latter is the predicted optimizer and coherence.
    """
    fig, ax = plt.subplots()
    ticks, names = [], []
    for k, (snr, parts) in enumerate(measured.items()):
        budget = predicted[snr]
        seen = [parts[name].mean() for name in ("rotation", "tilt", "angles")]
        bars = {"measured": seen, "predicted": [budget.rotation, budget.tilt, budget.optimizer, budget.coherence]}
        for offset, (name, heights) in zip((-0.2, 0.2), bars.items(), strict=True):
            edges = np.cumsum([0.0, *heights])
            colors = PALETTE[: len(heights)]
            ax.bar([k + offset] * len(heights), heights, 0.36, bottom=edges[:-1], color=colors)
            ticks.append(k + offset)
            names.append(f"{name}\n{snr:g} dB")
    labels = ("rotation", "tilt", "angles / optimiser", "coherence")
    ax.legend([plt.Rectangle((0, 0), 1, 1, color=color) for color in PALETTE[:4]], labels)
    ax.set_xticks(ticks, names, fontsize=9)
    ax.set_ylabel(r"$\|A - A^\star\|_F^2$ at the end")
    return fig


def hemisphere_flow(
    flow: Callable[[Tensor], Tensor], shade: Callable[[Tensor], Tensor], marks: Tensor, *, title: str, ax: Axes
) -> None:
    """A flow on directions of space, up to sign, on the disc of Lambert's equal-area map of the upper hemisphere.

    flow and shade map points (points, 3) to velocities (points, 3) and to values (points,) between 0 and 1; marks,
    (count, 3), are drawn as stars.
    """
    line = torch.linspace(-1.4, 1.4, 57, dtype=torch.float64)
    disc = torch.cartesian_prod(line, line)
    points = _from_disc(disc)
    step = 1e-4
    moves = (_to_disc(points + step * flow(points)) - disc) / step
    moves[torch.linalg.vector_norm(disc, dim=1) > 1.38] = torch.nan
    values = shade(points)
    grid = (57, 57)
    mesh = ax.pcolormesh(
        line, line, values.reshape(grid).T, vmin=0, vmax=1, cmap="Greys", alpha=0.45, shading="nearest"
    )
    speed = torch.linalg.vector_norm(moves, dim=1)
    moves[speed < 1e-6 * speed.nan_to_num().max()] = torch.nan
    u, v = (moves[:, k].reshape(grid).T.numpy() for k in (0, 1))
    ax.streamplot(line.numpy(), line.numpy(), u, v, color=PALETTE[0], density=1.1, linewidth=0.9, arrowsize=0.9)
    ax.plot(*_to_disc(marks).T, "*", color=PALETTE[3], markersize=13)
    mesh.set_clip_path(ax.add_patch(plt.Circle((0, 0), 2**0.5, fill=False, color="0.3")))
    ax.set(aspect="equal", xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), xticks=[], yticks=[])
    ax.set_title(title, fontsize=11)
    sns.despine(ax=ax, left=True, bottom=True)


def _from_disc(disc: Tensor) -> Tensor:
    square = disc.square().sum(dim=1, keepdim=True).clamp(max=2.0)
    return torch.cat((disc * (1 - square / 4).sqrt(), 1 - square / 2), dim=1)


def _to_disc(points: Tensor) -> Tensor:
    points = torch.nn.functional.normalize(points, dim=1)
    points = torch.where(points[:, 2:] < 0, -points, points)
    return points[:, :2] * (2 / (1 + points[:, 2:])).sqrt()


def _draw_windows(ax: Axes, windows: Sequence[Window]) -> None:
    """One line for each window: a bar, or a cross in the middle of an empty one; grey where its assumption fails."""
    for row, window in enumerate(windows):
        color = PALETTE[2] if window.holds else "0.6"
        if window.empty:
            ax.plot((window.lower + window.upper) / 2, row, "x", color=color, markersize=8, markeredgewidth=2)
        else:
            ax.barh(row, window.upper - window.lower, left=window.lower, height=0.6, color=color)
            ax.plot([window.lower, window.upper], [row, row], "|", color=color, markersize=12)  # seen if thin
    ax.set_yticks(range(len(windows)), [window.name for window in windows])
    ax.invert_yaxis()


def hemisphere_flows(
    flow: Callable[[Tensor, float], Tensor],
    shade: Callable[[Tensor, float], Tensor],
    marks: Tensor,
    penalties: Sequence[float],
) -> Figure:
    """One disc of `hemisphere_flow` for each penalty, which flow and shade take as their second argument."""
    fig, panels = plt.subplots(1, len(penalties), figsize=(9.4, 3.5), squeeze=False)
    for ax, penalty in zip(panels[0], penalties, strict=True):
        hemisphere_flow(
            lambda points, penalty=penalty: flow(points, penalty),
            lambda points, penalty=penalty: shade(points, penalty),
            marks,
            title=rf"$\lambda = {penalty:g}$",
            ax=ax,
        )
    return fig
