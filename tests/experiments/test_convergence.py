"""What chapter 06 reads from recorded runs: nothing lost, floors summarised by seed, errors taken apart."""

import dataclasses
import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.convergence.convergence import (
    budget_parts,
    descend_and_turn,
    floor_table,
    follow_window,
    read_certificate,
    read_rates,
)
from experiments.convergence.descent import DescentSettings
from gsae_book.runs.environment import find_root
from gsae_lib import GroupSparseSource
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.subspaces import match_subspaces

PATH = "results/paper/06_measure_convergence.json"


@pytest.fixture(scope="module")
def rows():
    """The rows as they stand in the file."""
    points = json.loads((find_root() / PATH).read_text())["points"]
    names = [field.name for field in dataclasses.fields(DescentSettings)]
    return [
        point["rows"][0]
        | {name: point["values"][name] for name in ("experiment", "seed")}
        | {"settings": {name: point["values"][name] for name in names}}
        for point in points
    ]


@pytest.fixture(scope="module")
def rates():
    """The rows as the chapter reads them."""
    return read_rates(PATH)


def test_rates_are_the_rows_of_the_file(rows, rates):
    """Fails if a run is lost or gets the settings of another one, or a miss or a floor is not its own."""
    assert len(rates) == len(rows)
    keys = ["experiment", "seed", "floor"]
    table = rates.set_index(keys)
    for row in rows[:: len(rows) // 7]:
        found = table.loc[tuple(row[key] for key in keys)]
        assert {name: found[name] for name in row["settings"]} == row["settings"]
        assert found["predicted_floor"] == DescentSettings(**row["settings"]).floor
        if row["predicted"] is None:
            assert np.isnan(found["miss"])
        else:
            assert found["miss"] == abs(row["measured"] - row["predicted"])


def test_floors_are_means_over_seeds(rows, rates):
    """Fails if a floor is averaged over more than its seeds, or the least supports are those of another setting."""
    table = floor_table(rates, "bias against penalty", "group_size", "penalty")
    chosen = [
        row
        for row in rows
        if row["experiment"] == "bias against penalty"
        and (row["settings"]["group_size"], row["settings"]["penalty"]) == (3, 2.7)
    ]
    floors = [row["floor"] for row in chosen]
    found = table.loc[(3, 2.7)]
    assert found["measured"] == pytest.approx(statistics.mean(floors))
    assert found["spread"] == pytest.approx(statistics.stdev(floors))
    assert found["supports"] == min(row["supports"] for row in chosen)
    assert found["predicted"] == DescentSettings(**chosen[0]["settings"]).floor


def test_the_parts_of_an_error_add_up():
    """Fails if a part is not the difference of two errors at the end, run by run."""
    runs = [
        SimpleNamespace(columns=(99.0, 7.0), rotated=(99.0, 4.0), angles=(99.0, 3.5)),
        SimpleNamespace(columns=(99.0, 6.0), rotated=(99.0, 5.0), angles=(99.0, 1.0)),
    ]
    parts = {name: part.tolist() for name, part in budget_parts(runs).items()}
    assert parts == {"rotation": [3.0, 1.0], "tilt": [0.5, 4.0], "angles": [3.5, 1.0]}


def test_certificates_are_read_by_their_names():
    """Fails if a certificate is taken for the other one, or a name without one for one."""
    path = "results/paper/06_certificates.json"
    digits, simulation = (read_certificate(path, name) for name in ("digits", "simulation"))
    assert (digits.penalty, digits.n_samples, simulation.penalty, simulation.n_samples) == (0.5, 4000, 2.0, 10_000)
    with pytest.raises(ValueError, match="name='images'"):
        read_certificate(path, "images")


def test_turning_is_that_of_columns_within_their_span(rng):
    """Fails if spans that move count as turning, or the start is not where it is counted from."""
    truth = gaussian_dictionary(40, 6, 2, generator=rng, dtype=torch.float64)
    source = GroupSparseSource(truth, 2, 1)
    start = perturbed_dictionary(truth, 0.9, generator=rng)
    settings = {"n_steps": 5, "batch_size": 200, "generator": rng}
    run, turn = descend_and_turn(source, start, 2.0, method="riemannian", step=0.5, **settings)
    assert len(turn) == 6 and turn[0] == 0
    assert match_subspaces(start, run.dictionary, 2).overlap.min() < 0.999  # spans moved
    assert turn[-1] < 1e-3
    _, adam = descend_and_turn(source, start, 2.0, method="adam", step=0.05, **settings)
    assert adam[-1] > 10 * turn[-1]


def test_a_penalty_follows_the_lower_edge():
    """Fails if an edge is that of another step, or the run has another penalty."""
    settings = DescentSettings(n_features=60, n_groups=10, group_size=2, n_steps=4)
    run, edges = follow_window(settings, seed=0)
    assert len(edges) == 4 and (edges > 0).all()
    again, same = follow_window(settings, seed=0)
    assert np.array_equal(edges, same) and torch.equal(run.dictionary, again.dictionary)
    _, larger = follow_window(dataclasses.replace(settings, start=0.06), seed=0)
    assert larger[0] > edges[0]
