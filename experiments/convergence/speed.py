"""The live races of chapter 13, and what its tables take from the recorded benchmarks."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Generator, Tensor

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, alternating_minimization, train
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.metrics import principal_angles


@dataclasses.dataclass(frozen=True)
class RaceSettings:
    """Data with random orthonormal groups, and a start near the truth; Adam with unit columns.

    Args:
        n_features, n_groups, group_size, n_active, snr_db: the data, as in `GroupSparseSource`.
        penalty: lambda. start_correlation: mean correlation of the start's columns with the true ones.
        batch_size: samples a step. learning_rate: of Adam.
    """

    n_features: int
    n_groups: int
    group_size: int
    n_active: int
    penalty: float
    snr_db: float
    start_correlation: float
    batch_size: int
    learning_rate: float

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(n_features, n_groups, group_size)."""
        return self.n_features, self.n_groups, self.group_size

    def source(self, generator: Generator) -> GroupSparseSource:
        """A source with a new dictionary."""
        dictionary = orthonormal_groups_dictionary(*self.sizes, generator=generator)
        return GroupSparseSource(dictionary, self.group_size, self.n_active, snr_db=self.snr_db)

    def training(self, epochs: int, batch_size: int | None = None) -> TrainingSettings:
        """How the autoencoder is trained."""
        return TrainingSettings(
            epochs=epochs,
            learning_rate=self.learning_rate,
            batch_size=batch_size,
            normalize="columns",
            progress=False,
        )


def race_gradients(
    settings: RaceSettings, depths: Sequence[int], *, n_steps: int, seeds: Iterable[int]
) -> pd.DataFrame:
    """Train through all layers ("unrolled") and with the codes as given ("decoder"), with each number of iterations.

    A row for each run: depth, gradient, run (the seed, which draws dictionary, start and fresh data anew), and at the
    end angles (sum of squared principal angles per group), loss, active (groups a sample) and seconds a step.
    """
    rows = []
    for seed in seeds:
        for depth in depths:
            for gradient in ("unrolled", "decoder"):
                rng = Generator().manual_seed(seed)
                source = settings.source(rng)
                start = perturbed_dictionary(source.dictionary, settings.start_correlation, generator=rng)
                model = GroupSparseAutoencoder(
                    *settings.sizes, settings.penalty, n_iterations=depth, gradient=gradient, dictionary=start
                )
                stream = source.stream(settings.batch_size, generator=rng)
                history = train(model, stream, settings.training(n_steps), generator=rng)
                rows.append(
                    {
                        "depth": depth,
                        "gradient": gradient,
                        "run": seed,
                        "angles": angles_per_group(model.weight.detach(), source),
                        "loss": history.loss[-1],
                        "active": history.curves["active_groups"][-1],
                        "seconds": history.seconds / n_steps,
                    }
                )
    return pd.DataFrame(rows)


def race_learners(
    settings: RaceSettings, *, n_iterations: int, max_iter: int, seed: int
) -> dict[str, tuple[np.ndarray, list[float]]]:
    """Alternating minimisation, with all samples and online, and the autoencoder, on ten batches of fixed data.

    By name: seconds and `angles_per_group` at the start and after each pass, (max_iter + 1,). All have one start; the
    autoencoder has `n_iterations` layers and the decoder gradient. Seconds are shared out evenly over the passes.
    """
    rng = Generator().manual_seed(seed)
    source = settings.source(rng)
    data = source.sample(10 * settings.batch_size, generator=rng).data
    start = perturbed_dictionary(source.dictionary, settings.start_correlation, generator=rng)
    curves = {}
    for name, batch_size in (("alternating, all samples", None), ("online", settings.batch_size)):
        errors = [angles_per_group(start, source)]
        fit = alternating_minimization(
            data,
            start,
            settings.penalty,
            settings.group_size,
            max_iter=max_iter,
            batch_size=batch_size,
            generator=Generator().manual_seed(seed),
            callback=lambda _, dictionary, errors=errors: errors.append(angles_per_group(dictionary, source)),
            tol=1e-4,
        )
        curves[name] = np.linspace(0, fit.seconds, max_iter + 1), errors
    model = GroupSparseAutoencoder(
        *settings.sizes, settings.penalty, n_iterations=n_iterations, gradient="decoder", dictionary=start
    )
    errors = [angles_per_group(start, source)]
    history = train(
        model,
        data,
        settings.training(max_iter, settings.batch_size),
        generator=Generator().manual_seed(seed),
        callbacks=[lambda _, model: errors.append(angles_per_group(model.weight.detach(), source))],
    )
    curves["autoencoder"] = np.linspace(0, history.seconds, max_iter + 1), errors
    return curves


def angles_per_group(dictionary: Tensor, source: GroupSparseSource) -> float:
    """Sum of squared principal angles to the true spans, in squared radians, over the number of groups."""
    angles = principal_angles(dictionary, source.dictionary, source.group_size)
    return angles.square().sum().item() / source.n_groups


def read_benchmarks(folder: Path) -> dict[str, dict[str, Any]]:
    """What the programs of `benchmarks/` wrote into a folder, by the name of the program."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def median_seconds(rows: Sequence[Mapping[str, Any]], column: str) -> pd.DataFrame:
    """Median seconds of a benchmark: a row for each value of its `column`, a column for each task."""
    times = [{name: time["median"] for name, time in row["seconds"].items()} for row in rows]
    return pd.DataFrame(times, index=pd.Index([row[column] for row in rows], name=column))


def activation_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The benchmark of the group ReLU: milliseconds, times faster than the chain, megabytes kept; by size and kind."""
    table = {}
    for row in rows:
        size = f"{row['samples']:,} x {row['groups']} groups of {row['size']}"
        for kind, time in row["seconds"].items():
            table[size, kind] = {
                "ms": 1e3 * time["median"],
                "times faster": row["seconds"]["chain"]["median"] / time["median"],
                "kept MB": row["kept_bytes"].get(kind, np.nan) / 1e6,
            }
    return pd.DataFrame(table).T
