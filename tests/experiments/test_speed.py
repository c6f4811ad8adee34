"""Races repeat but for their times, all runners start at one place, and tables hold what the benchmarks wrote."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.convergence.speed import (
    RaceSettings,
    activation_table,
    angles_per_group,
    race_gradients,
    race_learners,
)
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import GroupSparseSource

TINY = RaceSettings(
    n_features=12,
    n_groups=4,
    group_size=2,
    n_active=1,
    penalty=0.5,
    snr_db=20.0,
    start_correlation=0.7,
    batch_size=50,
    learning_rate=0.01,
)


def test_each_gradient_runs_at_each_depth_from_each_seed():
    """Fails if a run is missing, a seed does not fix it, or depth or gradient does not reach the network."""
    race = race_gradients(TINY, [1, 3], n_steps=8, seeds=[5, 6])
    assert len(race) == 8 and not race.duplicated(["depth", "gradient", "run"]).any()
    again = race_gradients(TINY, [1, 3], n_steps=8, seeds=[5, 6])
    pd.testing.assert_frame_equal(race.drop(columns="seconds"), again.drop(columns="seconds"))
    assert race["angles"].nunique() == 8 and (race["seconds"] > 0).all()


def test_training_moves_towards_the_truth():
    """Fails if the error is not taken at the end: more steps, smaller angles."""
    short, long = (race_gradients(TINY, [4], n_steps=n, seeds=[0]).set_index("gradient")["angles"] for n in (1, 80))
    assert long["decoder"] < 0.5 * short["decoder"]


def test_learners_share_start_and_data():
    """Fails if starts differ, a pass is not measured, or a clock does not begin at zero."""
    curves = race_learners(TINY, n_iterations=8, max_iter=6, seed=2)
    assert list(curves) == ["alternating, all samples", "online", "autoencoder"]
    rng = torch.Generator().manual_seed(2)
    source = TINY.source(rng)
    source.sample(500, generator=rng)
    start = angles_per_group(perturbed_dictionary(source.dictionary, 0.7, generator=rng), source)
    for seconds, errors in curves.values():
        assert len(seconds) == len(errors) == 7
        assert errors[0] == pytest.approx(start) and errors[-1] < 0.8 * errors[0]
        assert seconds[0] == 0 and (np.diff(seconds) > 0).all()
    repeated = race_learners(TINY, n_iterations=8, max_iter=6, seed=2)
    assert all(repeated[name][1] == errors for name, (_, errors) in curves.items())


def test_angles_of_a_turned_dictionary():
    """Fails if squares are not summed within, and averaged over, groups: two lines, one of them turned by 0.3."""
    source = GroupSparseSource(torch.eye(3, 2, dtype=torch.float64), 1, 1)
    turned = torch.tensor([[1.0, 0.0], [0.0, np.cos(0.3)], [0.0, np.sin(0.3)]], dtype=torch.float64)
    assert angles_per_group(turned, source) == pytest.approx(0.3**2 / 2)


def test_activation_table_is_relative_to_the_chain():
    """Fails if ratios are upside down, units are others, or a kind without bytes gets some."""
    row = {
        "samples": 60000,
        "groups": 10,
        "size": 16,
        "seconds": {"chain": {"median": 0.08}, "group_relu": {"median": 0.02}, "chain, compiled": {"median": 0.04}},
        "kept_bytes": {"chain": 7_200_000, "group_relu": 2_400_000},
    }
    table = activation_table([row]).loc["60,000 x 10 groups of 16"]
    assert table["ms"].tolist() == [80.0, 20.0, 40.0]
    assert table["times faster"].tolist() == [1.0, 4.0, 2.0]
    assert table["kept MB"].tolist()[:2] == [7.2, 2.4] and np.isnan(table.loc["chain, compiled", "kept MB"])
