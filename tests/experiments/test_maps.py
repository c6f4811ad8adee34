"""Tests of experiments.initialization.maps: the data, the measure, the tables, and recorded starts run again."""

import dataclasses
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.digits.ablation import MethodResult
from experiments.initialization import maps as start
from experiments.initialization import predictions as predictions
from experiments.initialization.baselines import baseline_table
from experiments.initialization.maps import (
    StartSettings,
    around_table,
    draw_data,
    estimate_table,
    lines_and_planes,
    map_table,
    nearest_angles,
    trained_table,
)
from experiments.recovery.recovery import RecoverySettings, from_data, recover_dictionary
from gsae_book.runs.environment import find_root
from gsae_book.runs.recording import read_rows
from gsae_lib.learning import GroupsMissingWarning

TINY = StartSettings(40, 8, 2, 1, 400, 20.0)


@pytest.fixture(scope="module")
def tiny_run():
    """A small run of `recover_dictionary`, to be given other settings and results."""
    return recover_dictionary(
        RecoverySettings(n_features=20, n_groups=4, n_samples=50, epochs=1, measure_every=1), seed=0
    )


def test_data_are_those_of_the_settings(rng):
    """Fails if norms, noise or the number of active groups are others: energies of one orthonormal dictionary."""
    settings = dataclasses.replace(TINY, n_features=60, n_active=3, n_samples=30_000, snr_db=10.0)
    truth = torch.linalg.qr(torch.randn(60, 16, generator=rng)).Q
    data = draw_data(settings, truth, generator=rng)
    powers = (data @ truth).square().unflatten(1, (8, 2)).sum(dim=2)
    noise = settings.population.noise_std
    assert data.square().sum(dim=1).mean().item() == pytest.approx(3 * (61 / 3) * 1.1, rel=0.01)
    active = powers > 4
    assert active.sum(dim=1).double().mean().item() == pytest.approx(3, abs=0.05)
    assert powers[active].mean().item() == pytest.approx(61 / 3 + 2 * noise**2, rel=0.01)


def test_frequencies_differ_by_the_ratio(rng):
    """Fails if groups are equally frequent, or the ratio is another: one active group, whose share is its weight."""
    settings = dataclasses.replace(TINY, n_features=16, n_samples=20_000, snr_db=40.0, frequency_ratio=10.0)
    truth = torch.eye(16)
    counts = (draw_data(settings, truth, generator=rng) @ truth).square().unflatten(1, (8, 2)).sum(dim=2) > 4
    share = counts.double().mean(dim=0)
    assert (share[0] / share[-1]).item() == pytest.approx(10, rel=0.15)


def test_angles_are_those_of_planes_turned_by_hand():
    """Fails if another angle than the largest is taken, or true and learned groups change places."""
    turned = torch.eye(6)
    angle = 0.3
    turned[:, 1] = math.cos(angle) * torch.eye(6)[:, 1] + math.sin(angle) * torch.eye(6)[:, 5]
    angles = nearest_angles(turned[:, [2, 3, 0, 1]], torch.eye(6)[:, :4], 2, 2)
    expected = np.array([[math.pi / 2, angle], [0.0, math.pi / 2]])
    np.testing.assert_allclose(angles, expected, atol=1e-3)
    assert nearest_angles(torch.eye(6)[:, :1], torch.eye(6)[:, :4], 1, 2).min().item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("told, method", [("sizes", "pairs"), ("nothing", "pairs"), ("sizes", "k-subspaces")])
def test_one_start(told, method):
    """Fails if the start is not found, counts are wrong, or estimates are missing."""
    run = start.run_map_point("a", dataclasses.replace(TINY, told=told, method=method), seed=3)
    assert run.n_found == 8 and run.seconds > 0
    assert (run.n_tries > 0) == (method == "pairs") and math.isnan(run.estimated_n_active) == (method != "pairs")
    if method == "pairs":
        assert run.found == run.spanned == 1.0 and run.wrong == 0 and run.estimated_group_size == 2
        assert run.noise_std == pytest.approx(run.true_noise_std, rel=0.2)


@pytest.mark.parametrize("warning", ["", "two groups of 100"])
def test_digits_are_clustered_from_a_start(warning, monkeypatch):
    """Fails if another start or seed is used, labels reach the clusters, or the warning of the start is lost."""

    def fake(data, settings, *, seeds, methods):
        assert (settings.start, seeds, data.shape) == ("pairs", [4], (6, 9))
        if warning:
            warnings.warn(warning, GroupsMissingWarning, stacklevel=1)
        return [MethodResult(methods[0], 0, (np.array([0, 0, 1, 1, 2, 0]),), (None,), (1.5,), 0.0)]

    monkeypatch.setattr(start, "ablate", fake)
    monkeypatch.setattr(start, "_load_digits", lambda name: (torch.zeros(6, 9), torch.tensor([5, 5, 6, 6, 7, 7])))
    (row,) = start.cluster_digits("pixels", "pairs", seed=4)
    assert row["warning"] == warning and row["accuracy"] == pytest.approx(5 / 6) and row["active_groups"] == 1.5


def test_tables_take_their_maps_alone():
    """Fails if rows of another map enter, rows and columns change places, or runs are counted for seeds."""
    rows = pd.DataFrame(
        {"map": ["a", "a", "a", "b"], "x": [1, 1, 2, 1], "y": [5, 5, 5, 5], "spanned": [0.0, 1.0, 1.0, 0.25]}
    )
    assert map_table(rows, "a", "x", "y").to_dict() == {5: {1: 0.5, 2: 1.0}}
    columns = dict.fromkeys(["n_features", "n_groups", "group_size", "n_active", "n_samples", "snr_db"], 3)
    columns |= dict.fromkeys(["found", "median_angle", "n_tries", "seconds"], 0.0)
    runs = [("large", 0, 1.0), ("paper's size", 0, 0.0), ("paper's size", 1, 1.0), ("noise", 2, 0.25)]
    runs = [{**columns, "map": name, "seed": seed, "spanned": spanned} for name, seed, spanned in runs]
    runs[0]["n_groups"] = 9
    table = around_table(pd.DataFrame(runs)).set_index("n_groups")
    assert table["spanned"].to_dict() == {3: 0.5, 9: 1.0} and table["seeds"].to_dict() == {3: 2, 9: 1}


def test_estimates_are_exact_where_both_sizes_are():
    """Fails if told runs enter, or a wrong size counts as exact."""
    columns = {"n_features": 9, "group_size": 2, "n_groups": 4, "n_active": 1, "snr_db": 1.0, "wrong": 0}
    columns |= {"estimated_n_active": 1.0, "noise_std": 0.1, "true_noise_std": 0.1}
    runs = [("nothing", 2, 4), ("nothing", 2, 5), ("nothing", 3, 4), ("sizes", 2, 4)]
    table = pd.DataFrame(
        [columns | dict(zip(("told", "estimated_group_size", "n_found"), r, strict=True)) for r in runs]
    )
    found = estimate_table(table)
    assert len(found) == 1 and found["exact"][0] == pytest.approx(1 / 3)


def test_theory_page_shows_the_recorded_predictions():
    """Fails if a table of the theory page is not what was recorded: means over seeds."""
    recorded_predictions = read_rows("results/paper/15_predictions.json")
    text = (find_root() / "book" / "theory.md").read_text()
    settings = ["n_features", "n_groups", "n_active", "n_samples", "snr_db"]
    table = recorded_predictions.groupby(settings, sort=False).mean(numeric_only=True).reset_index()
    assert len(table) == len(predictions.plan())
    for row in table.to_dict("records"):
        size = "{n_features}, {n_groups}, {n_active}, {n_samples:,}, {snr_db:g} dB".format(**row)
        angles = "{angle:.1f} | {drawn_angle:.1f} | {true_angle:.1f}".format(**row)
        pairs = " | ".join(
            f"{row[name]:.2f} / {row['true_' + name]:.2f}" for name in ("nearest", "selected", "success")
        )
        assert f"| {size} | {angles} |" in text and f"| {size} | {pairs} |" in text


def test_trained_table_sets_near_beside_pairs(tiny_run):
    """Fails if a cell takes the runs of another, or fixed data those of fresh ones."""
    cells = [one for one in from_data() if one.n_active == 3 and one.snr_db == 1.0]
    ends = {("pairs", True): (2.0, 10.0), ("near", True): (5.0, 7.0), ("pairs", False): (9.0, 9.5)}
    runs = [
        dataclasses.replace(tiny_run, settings=one, angles=(8.0, end), found=end / 10, start_seconds=1.0, seconds=2.0)
        for one in cells
        for end in ends[one.start, one.fresh]
    ]
    table = trained_table(runs)
    assert len(table) == 1 and table["seeds"][0] == 2 and table["seconds"][0] == 3.0
    assert (table["angles"][0], table["near"][0], table["found"][0], table["complete"][0]) == (6.0, 6.0, 0.2, 1)
    assert trained_table(runs, fresh=False)["angles"][0] == 9.25


def test_baseline_table_has_a_column_for_each_problem_and_time():
    """Fails if "pairs" takes the shares of a baseline, or another size or budget enters."""
    row = {"n_features": 150, "group_size": 2, "n_active": 3, "seed": 0, "budget_ratio": 1, "spanned": 0.25}
    rows = [row | {"method": "a"}, row | {"method": "a", "budget_ratio": 10, "spanned": 0.5}]
    rows += [row | {"method": "pairs", "budget_ratio": 0, "spanned": 1.0}, row | {"method": "a", "n_features": 950}]
    table = baseline_table(pd.DataFrame(rows))
    assert table["three groups, equal time"].to_dict() == {"pairs": 1.0, "a": 0.25}
    assert table["three groups, ten times"]["a"] == 0.5


def test_lines_end_in_groups_where_planes_mix():
    """Fails if both begin with the refined line, or true and mixed ends are confused: most planes mix two groups."""
    found = lines_and_planes(StartSettings(n_active=2, n_samples=1500, snr_db=20.0), seed=0)
    assert found["lines"][0] > 50 > found["spans"][0] and found["lines"][1] < found["spans"][1]
