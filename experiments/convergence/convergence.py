"""The measurements behind chapter 06, and two certificates.

Rates and floors: n = 300, 40 groups, without noise, in float64, five seeds each. (At the paper's n = 950 and N = 10,000
a group is seen 60 times a step, and the floor is too high for a rate to be read above it.) Certificates: the paper's
simulation at its own size, and a shallow network on digits, which has no true dictionary.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from experiments.convergence.descent import (
    KINDS,
    Descent,
    DescentSettings,
    Rate,
    descend,
    measure_rate,
    run_descent,
)
from experiments.recovery.recovery import Recovery, stack
from gsae_book.data.features import PixelFeatures
from gsae_book.data.images import load_images
from gsae_book.runs.environment import find_root
from gsae_book.runs.recording import read_points, read_rows
from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, train
from gsae_lib.dictionary import Dictionary, as_groups, perturbed_dictionary, polar
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.learning import initial_dictionary
from gsae_lib.theory import Certificate, certify, support_recovery_windows

PENALTIES = (1.8, 2.2, 2.6, 3.0)
BIAS_PENALTIES = (1.6, 1.9, 2.2, 2.25, 2.45, 2.7, 3.0, 3.5)

# From the truth, with all signs and small steps, so that the noise of batches does not cover the bias.
BIAS = {"start": 0.0, "kind": "random", "rate": 0.1, "n_steps": 45, "batch_size": 5000, "signs": True}


def plan() -> list[dict[str, Any]]:
    """Name and settings of every experiment."""
    sizes = (2, 3, 4)
    grid = itertools.product(sizes, PENALTIES)
    experiments = {
        "rates": [
            DescentSettings(group_size=d, penalty=penalty, kind=kind)
            for d, penalty, kind in itertools.product(sizes, PENALTIES, KINDS)
        ],
        "plain rates": [
            DescentSettings("plain", group_size=d, penalty=penalty, batch_size=5000, rate=0.3, n_steps=120)
            for d, penalty in grid
        ],
        "floor against batch": [DescentSettings(start=0.0, batch_size=size) for size in (5000, 20_000, 80_000)],
        "floor against active groups": [DescentSettings(start=0.0, n_active=k) for k in (1, 2, 3, 4)],
        "floor against penalty": [DescentSettings(start=0.0, penalty=penalty) for penalty in PENALTIES],
        "bias against coherence": [DescentSettings(n_features=n, **BIAS) for n in (150, 300, 600)],
        "bias against penalty": [
            DescentSettings(group_size=d, penalty=penalty, **BIAS)
            for d, penalty in itertools.product((2, 3), BIAS_PENALTIES)
        ],
    }
    return [{"experiment": name, "settings": one} for name, many in experiments.items() for one in many]


def measure(experiment: str, settings: DescentSettings, *, seed: int) -> Rate:
    """`measure_rate` at a point of the `experiment` of the plan."""
    return measure_rate(settings, seed=seed)


def read_rates(path: str) -> pd.DataFrame:
    """The recorded rates at `path` in the project's folder: a row for each run, with its settings as columns.

    miss: how far the measured factor is from the predicted one. predicted_floor: of its settings.
    """
    table = read_rows(path)
    names = [field.name for field in dataclasses.fields(DescentSettings)]
    settings = [DescentSettings(**row) for row in table[names].to_dict("records")]
    floors = {one: one.floor for one in set(settings)}
    table["miss"] = (table["measured"] - table["predicted"]).abs()
    return table.assign(predicted_floor=[floors[one] for one in settings])


def floor_table(rates: pd.DataFrame, experiment: str, *settings: str) -> pd.DataFrame:
    """Floors of an experiment by the values of settings: mean and sample deviation over seeds, and the prediction.

    supports: the least share of exact supports in a step of any run.
    """
    return (
        rates[rates["experiment"] == experiment]
        .groupby(list(settings))
        .agg(
            measured=("floor", "mean"),
            spread=("floor", "std"),
            predicted=("predicted_floor", "first"),
            supports=("supports", "min"),
        )
    )


def follow_window(settings: DescentSettings, *, seed: int) -> tuple[Descent, np.ndarray]:
    """`run_descent` with, at each step, the lower edge of the cumulative window of the weights then; and these edges.

    Raises:
        ValueError: as `run_descent`.
    """
    law, edges = settings.population, []

    def lower_edge(_: int, dictionary: torch.Tensor, true_dictionary: torch.Tensor) -> float:
        edges.append(support_recovery_windows(dictionary, true_dictionary, law)["cumulative"].lower)
        return edges[-1]

    return run_descent(settings, seed=seed, schedule=lower_edge), np.array(edges)


def descend_and_turn(
    source: GroupSparseSource, start: Dictionary, penalty: float, **settings: Any
) -> tuple[Descent, np.ndarray]:
    """`descend` with `settings`, and how far columns have turned within their span since the start, (n_steps + 1,).

    That is the mean of ||Q_g - Q_g^0||_F^2 over groups, Q_g the rotation that takes W_g nearest to the true group.

    Raises:
        ValueError: as `descend`.
    """
    d, found = source.group_size, []

    def watched(_: int, dictionary: torch.Tensor) -> float:
        groups = as_groups(dictionary.detach(), d)
        found.append(polar(groups.mT @ as_groups(source.dictionary, d)))
        return penalty

    run = descend(source, start, watched, **settings)
    watched(0, run.dictionary)
    rotations = torch.stack(found)
    return run, (rotations - rotations[0]).square().sum(dim=(2, 3)).mean(dim=1).numpy()


def budget_parts(runs: Sequence[Recovery]) -> dict[str, np.ndarray]:
    """The paper's error at the end of each run in parts, (runs,): rotation within spans, tilt, and squared angles."""
    columns, rotated, angles = (stack(runs, name)[:, -1] for name in ("columns", "rotated", "angles"))
    return {"rotation": columns - rotated, "tilt": rotated - angles, "angles": angles}


def certificate(name: Literal["digits", "simulation"]) -> Certificate:
    """The certificate of a trained network, `digits` or `simulation`."""
    return {"digits": digits, "simulation": simulation}[name]()


def read_certificate(path: str, name: str) -> Certificate:
    """The recorded certificate `name` in the file at `path` in the project's folder.

    Raises:
        ValueError: there is none.
    """
    found = [point["rows"] for point in read_points(find_root() / path) if point["values"]["name"] == name]
    if not found:
        raise ValueError(f"name={name!r}: not in {path}")
    return Certificate.from_json(json.dumps(found[0][0]))


def simulation() -> Certificate:
    """The group-sparse network of Figure 3 at 1 dB after 300 epochs of fresh data, seed 0."""
    rng = torch.Generator().manual_seed(0)
    true_dictionary = gaussian_dictionary(950, 500, 2, generator=rng)
    source = GroupSparseSource(true_dictionary, 2, 3, snr_db=1.0, snr_of="sample")
    start = perturbed_dictionary(true_dictionary, 0.555, generator=rng)
    model = GroupSparseAutoencoder(950, 500, 2, 2.0, step_size=1.0, dictionary=start)
    train(model, source.stream(10_000, generator=rng), TrainingSettings(epochs=300, progress=False), generator=rng)
    sample = source.sample(10_000, generator=rng)
    return certify(sample, model.weight.detach(), 2.0, 2, true_dictionary=true_dictionary)


def digits() -> Certificate:
    """A shallow network of 50 groups of 4 on unit-norm pixels of 4,000 digits, from k-subspaces, 20 epochs, seed 0."""
    rng = torch.Generator().manual_seed(0)
    data = torch.from_numpy(PixelFeatures().fit_transform(load_images("mnist-5k", "train")))
    start = initial_dictionary(data, 50, 4, generator=rng)
    model = GroupSparseAutoencoder(data.shape[1], 50, 4, 0.5, step_size=1.0, dictionary=start)
    train(model, data, TrainingSettings(epochs=20, batch_size=200, progress=False), generator=rng)
    return certify(data, model.weight.detach(), 0.5, 4)
