"""Record the measurements behind chapter 06 and two certificates; what is already in the JSON files is not repeated.

Rates and floors: n = 300, 40 groups, without noise, in float64, five seeds each. (At the paper's n = 950 and N = 10,000
a group is seen 60 times a step, and the floor is too high for a rate to be read above it.) Certificates: the paper's
simulation at its own size, and a shallow network on digits, which has no true dictionary.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from experiments import RESULTS
from experiments.descent import KINDS, DescentSettings, measure_rate
from experiments.recovery import Recovery, stack
from gsae_book.recording import read_rows, write_rows
from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, PixelFeatures, TrainingSettings, load_images, train
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.initialization import initial_dictionary
from gsae_lib.theory import Certificate, certify

SEEDS = range(5)
PENALTIES = (1.8, 2.2, 2.6, 3.0)
BIAS_PENALTIES = (1.6, 1.9, 2.2, 2.25, 2.45, 2.7, 3.0, 3.5)

# From the truth, with all signs and small steps, so that the noise of batches does not cover the bias.
BIAS = {"start": 0.0, "kind": "random", "rate": 0.1, "n_steps": 45, "batch_size": 5000, "signs": True}


def plan() -> dict[str, list[DescentSettings]]:
    """The settings of each experiment."""
    sizes = (2, 3, 4)
    grid = itertools.product(sizes, PENALTIES)
    return {
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


def read_rates(path: str) -> pd.DataFrame:
    """The recorded rates at `path` in the project's folder: a row for each run, with its settings as columns.

    miss: how far the measured factor is from the predicted one. predicted_floor is computed anew from the settings.
    """
    table = read_rows(path, "rates").drop(columns="n_steps")
    settings = [DescentSettings(**row) for row in table.pop("settings")]
    floors = {one: one.floor for one in set(settings)}
    table = table.join(pd.DataFrame(map(dataclasses.asdict, settings)))
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


def budget_parts(runs: Sequence[Recovery]) -> dict[str, np.ndarray]:
    """The paper's error at the end of each run in parts, (runs,): rotation within spans, tilt, and squared angles."""
    columns, rotated, angles = (stack(runs, name)[:, -1] for name in ("columns", "rotated", "angles"))
    return {"rotation": columns - rotated, "tilt": rotated - angles, "angles": angles}


def record_rates(path: Path) -> None:
    """Measure what is missing, seed by seed, and write after each run."""
    rows = json.loads(path.read_text())["rates"] if path.is_file() else []
    done = {(row["experiment"], json.dumps(row["settings"]), row["seed"]) for row in rows}
    for seed in SEEDS:
        for experiment, settings in ((name, s) for name, many in plan().items() for s in many):
            if (experiment, json.dumps(dataclasses.asdict(settings)), seed) in done:
                continue
            rows.append({"experiment": experiment, **dataclasses.asdict(measure_rate(settings, seed=seed))})
            write_rows(path, "rates", rows)
            print(seed, experiment, f"{rows[-1]['measured']:.4f} {rows[-1]['predicted']:.4f}", flush=True)


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


def record_certificate(path: Path, make: Callable[[], Certificate]) -> None:
    """Make and write one certificate, unless it is there."""
    if not path.is_file():
        certificate = make()
        write_rows(path, "certificate", [json.loads(certificate.to_json())])
        print(certificate, flush=True)


def main(folder: Path) -> None:
    """Everything that is missing, certificates first."""
    jobs: Iterable[tuple[str, Callable[[], Certificate]]] = (("digits", digits), ("simulation", simulation))
    for name, make in jobs:
        record_certificate(folder / f"06_certificate_{name}.json", make)
    record_rates(folder / "06_measure_convergence.json")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(RESULTS)
