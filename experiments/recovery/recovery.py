"""The paper's simulation: train a shallow network on the generative model and watch it recover the dictionary.

Source: arXiv 2102.07003, Section 4 and Figure 3.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from experiments.simulation import Simulation
from gsae_book.runs.environment import find_root
from gsae_book.runs.recording import read_points
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import gaussian_dictionary, orthonormal_groups_dictionary
from gsae_lib.learning import initial_dictionary
from gsae_lib.metrics import SupportRecovery, match_groups, principal_angles, support_recovery
from gsae_lib.networks import GroupSparseAutoencoder
from gsae_lib.penalty import GroupPenalty
from gsae_lib.sae import GroupJumpReLUSAE, GroupSAE, GroupTopKSAE
from gsae_lib.theory import predicted_success
from gsae_lib.theory.entrywise import predicted_entry_recall, predicted_entry_success
from gsae_lib.training import DictionaryErrors, TrainingSettings, train

NETWORKS = ("group-sparse", "soft threshold", "biased ReLU")
SELECTING = ("group hard threshold", "group top-k")
STARTS = ("near", "random", "data", "neighbors", "k-subspaces", "pairs")
SPANNED = math.radians(30)  # a start spans a true group when its largest principal angle is below this
FOUND = math.radians(15)  # a true group is found when its largest principal angle is below this


@dataclasses.dataclass(frozen=True)
class RecoverySettings(Simulation):
    """One simulation; the defaults are the paper's, but for the start, from its Figure 3 (0.555), and fresh samples.

    Args:
        network: "group-sparse"; with groups of one, the two-sided "soft threshold" or the one-sided "biased ReLU"; or
            networks that keep the groups they select as they are, those above the threshold ("group hard threshold") or
            the n_active strongest ("group top-k").
        n_features, n_groups, group_size, n_active, smallest_norm, largest_norm, snr_db: as in `Simulation`; the SNR is
            that of each draw of N samples, as in the paper. n_samples: N, samples in an epoch (one full-batch step).
        fresh: draw new samples each epoch (the theory's infinite data), or keep the first ones.
        orthonormal: make each true group orthonormal, in place of Gaussian unit columns.
        penalty: lambda. start: "near" the truth, with start_correlation as the mean correlation of columns; or from the
            first batch alone, as in `initialization.initial_dictionary`.
        epochs, learning_rate: of Adam. measure_every: epochs between two measurements of the errors.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_features: int = 950
    n_groups: int = 500
    group_size: int = 2
    n_active: int = 3
    n_samples: int = 10_000
    snr_db: float = 1.0
    network: Literal["group-sparse", "soft threshold", "biased ReLU", "group hard threshold", "group top-k"] = (
        "group-sparse"
    )
    fresh: bool = True
    penalty: float = 2.0
    start_correlation: float = 0.555
    epochs: int = 300
    learning_rate: float = 1e-3
    measure_every: int = 10
    orthonormal: bool = False
    start: Literal["near", "random", "data", "neighbors", "k-subspaces", "pairs"] = "near"

    def __post_init__(self) -> None:
        check_choice("network", self.network, NETWORKS + SELECTING)
        check_choice("start", self.start, STARTS)
        check_int("epochs", self.epochs)
        check_int("measure_every", self.measure_every, high=self.epochs)
        check_real("penalty", self.penalty, strict=True)
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What one simulation gave.

    epochs: when the errors were measured, 0 first. columns, rotated, angles: the three errors of
    `DictionaryErrors`, for the whole dictionary (summed over groups). loss: sum ||y - y_hat||^2 / (n N^2) for every
    epoch, which fits the size of the paper's Figure 3b (its axis: 1/n ||y - y_hat||^2). groups, entries: support
    recovery on a last fresh draw, by group and by entry. column_norm: mean norm of a learned column. found: share
    of true groups whose largest principal angle to their learned group is below 15 degrees at the end. From a start
    that does not know the truth, learned groups are matched to true ones for the errors and for found, and groups
    and entries mean nothing. start_found, start_spanned: share of true groups within 15 and 30 degrees of a learned one
    at the start; start_seconds: what the start took.
    """

    settings: RecoverySettings
    seed: int
    epochs: tuple[int, ...]
    columns: tuple[float, ...]
    rotated: tuple[float, ...]
    angles: tuple[float, ...]
    loss: tuple[float, ...]
    groups: SupportRecovery
    entries: SupportRecovery
    column_norm: float
    seconds: float
    found: float = math.nan
    start_found: float = math.nan
    start_spanned: float = math.nan
    start_seconds: float = math.nan


def recover_dictionary(settings: RecoverySettings, *, seed: int) -> Recovery:
    """Run one simulation; the seed draws dictionary, codes, noise and start anew.

    Raises:
        ValueError: sizes that do not fit each other.
        TrainingError: training diverged, or no unit is active.
    """
    rng = Generator().manual_seed(seed)
    sizes = settings.sizes
    make = orthonormal_groups_dictionary if settings.orthonormal else gaussian_dictionary
    true_dictionary = make(*sizes, generator=rng)
    source = settings.source(true_dictionary, snr_of="sample")
    first_batch, clock = None, time.perf_counter()
    if settings.start == "near":
        start = perturbed_dictionary(true_dictionary, settings.start_correlation, generator=rng)
    else:
        first_batch = source.sample(settings.n_samples, generator=rng).data
        clock = time.perf_counter()
        start = initial_dictionary(first_batch, *sizes[1:], settings.start, generator=rng)
    start_seconds = time.perf_counter() - clock
    if settings.network in NETWORKS[1:]:
        sizes = (settings.n_features, start.shape[1], 1)
    one_sided = settings.network == "biased ReLU"
    model: GroupSparseAutoencoder | GroupSAE
    if settings.network in SELECTING:
        model = _selecting(settings, start)
    else:
        penalty = GroupPenalty(settings.penalty, sizes[2], nonnegative=one_sided)
        model = GroupSparseAutoencoder(*sizes[:2], penalty=penalty, step_size=1.0, dictionary=start)
    errors = DictionaryErrors(
        true_dictionary, settings.group_size, settings.measure_every, match=settings.start != "near"
    )
    first = errors(0, model)
    at_start = _largest_angles(start, errors)
    data = source.stream(settings.n_samples, generator=rng)
    if not settings.fresh:
        data = next(data).data if first_batch is None else first_batch
    plan = TrainingSettings(epochs=settings.epochs, learning_rate=settings.learning_rate, progress=False)
    history = train(model, data, plan, generator=rng, callbacks=[errors])
    curves = {
        name: tuple(settings.n_groups * value for value in (first[name], *history.curves[name]))
        for name in ("columns", "rotated", "angles")
    }
    sample = source.sample(settings.n_samples, generator=rng)
    with torch.no_grad():
        codes = model.encode(sample.data)
    scale = 2 / (settings.n_features * settings.n_samples)
    at_end = _largest_angles(model.weight.detach(), errors)
    return Recovery(
        settings,
        seed,
        epochs=(0, *(int(epoch) for epoch in history.curves["measured_epoch"])),
        **curves,
        loss=tuple(scale * loss for loss in history.loss),
        groups=support_recovery(codes, sample.codes, settings.group_size),
        entries=support_recovery(codes, sample.codes, 1),
        column_norm=torch.linalg.vector_norm(model.weight.detach(), dim=0).mean().item(),
        seconds=history.seconds,
        found=(at_end < FOUND).double().mean().item(),
        start_found=(at_start < FOUND).double().mean().item(),
        start_spanned=(at_start < SPANNED).double().mean().item(),
        start_seconds=start_seconds,
    )


def _selecting(settings: RecoverySettings, start: Tensor) -> GroupSAE:
    """An SAE that is the paper's network but for its activation: tied, without biases, norms or revival."""
    sizes = (settings.n_features, settings.n_groups, settings.group_size)
    plain: dict[str, Any] = {"decoder": "free", "tied": True, "bias": False, "revival": 0.0, "dictionary": start}
    if settings.network == "group top-k":
        return GroupTopKSAE(*sizes, n_active=settings.n_active, **plain)
    return GroupJumpReLUSAE(*sizes, threshold=settings.penalty, **plain)


def _largest_angles(dictionary: Tensor, errors: DictionaryErrors) -> Tensor:
    """The largest principal angle of each true group to its learned one, matched as the errors are."""
    if errors.match:
        dictionary, _ = match_groups(dictionary, errors.true_dictionary, errors.groups)
    return principal_angles(dictionary, errors.true_dictionary, errors.groups).amax(dim=1)


def run_recoveries(settings: RecoverySettings, seeds: Iterable[int]) -> list[Recovery]:
    """Run one setting from every seed.

    Raises:
        ValueError: as `recover_dictionary`.
    """
    return [recover_dictionary(settings, seed=seed) for seed in seeds]


def predicted_recalls(runs: Iterable[Recovery]) -> np.ndarray:
    """`predicted_entry_recall` of each run, at the column norm that it learned."""
    return np.array(
        [
            predicted_entry_recall(
                run.settings.population,
                run.settings.penalty,
                column_norm=run.column_norm,
                nonnegative=run.settings.network == "biased ReLU",
            )
            for run in runs
        ]
    )


def predicted_share(runs: Sequence[Recovery], name: str) -> float:
    """The closed form of "groups.exact", "entries.exact" or "entries.recall" for runs of one setting, as they learned.

    The two of whole supports are taken at the mean column norm of the runs, the recall at the norm of each.
    """
    if name == "entries.recall":
        return float(predicted_recalls(runs).mean())
    law = {"groups.exact": predicted_success, "entries.exact": predicted_entry_success}[name]
    settings = runs[0].settings
    return law(settings.population, settings.penalty, column_norm=stack(runs, "column_norm").mean())


def stack(runs: Iterable[Recovery], name: str) -> np.ndarray:
    """One row for each run: the field `name`, such as "columns" or "groups.exact"."""
    return np.array([attrgetter(name)(run) for run in runs])


def group_runs(runs: Iterable[Recovery], *names: str) -> dict[tuple, list[Recovery]]:
    """Runs by the values of the named settings, in order of appearance."""
    groups: dict[tuple, list[Recovery]] = {}
    for run in runs:
        groups.setdefault(tuple(getattr(run.settings, name) for name in names), []).append(run)
    return groups


def vary(
    runs: Iterable[Recovery], base: RecoverySettings, *names: str, also: Sequence[str] = ()
) -> dict[tuple, list[Recovery]]:
    """`group_runs` of those that differ from `base` in the named settings alone, and in `also`, which do not group."""
    same = {name: getattr(base, name) for name in (*names, *also)}
    return group_runs((run for run in runs if dataclasses.replace(run.settings, **same) == base), *names)


def table_of_means(groups: dict[tuple, list[Recovery]], name: str) -> pd.DataFrame:
    """The mean field of runs grouped by two settings, rows and columns in order; no column that lacks a row."""
    means = pd.Series({values: stack(runs, name).mean() for values, runs in groups.items()})
    return means.unstack().dropna(axis=1)


def read_recoveries(path: str) -> list[Recovery]:
    """The recorded simulations at `path` in the project's folder; null is nan.

    Raises:
        FileNotFoundError: no such file.
    """
    place, runs = find_root() / path, []
    if not place.is_file():
        raise FileNotFoundError(f"path={path!r}: expected a file of recorded simulations")
    for point in read_points(place):
        if point.get("canary"):
            continue
        (row,) = point["rows"]
        row = {name: _read(value) for name, value in row.items()}
        shares = {name: _build(SupportRecovery, row, f"{name}.") for name in ("groups", "entries")}
        rest = {name: value for name, value in row.items() if "." not in name}
        runs.append(Recovery(_build(RecoverySettings, point["values"]), **rest, **shares))
    return runs


def _read(value: object) -> object:
    if isinstance(value, list):
        return tuple(math.nan if item is None else item for item in value)
    return math.nan if value is None else value


def _build(kind: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    return kind(**{field.name: values[prefix + field.name] for field in dataclasses.fields(kind)})


# Chapter 11: a small size, 1,500 fresh samples an epoch.
SMALL = RecoverySettings(
    n_features=150, n_groups=50, n_active=1, n_samples=1500, epochs=200, learning_rate=0.003, measure_every=50
)
CLEAN = dataclasses.replace(SMALL, snr_db=20.0, epochs=400)


def figure_3() -> list[RecoverySettings]:
    """The runs behind Figure 3 in chapter 07, at the paper's size."""
    plan = [RecoverySettings(network=n, snr_db=s) for s in (1.0, 5.0, 10.0) for n in ("group-sparse", "biased ReLU")]
    plan += [RecoverySettings(network="soft threshold", snr_db=s) for s in (1.0, 5.0, 10.0)]
    plan += [RecoverySettings(snr_db=s, fresh=False) for s in (1.0, 5.0, 10.0)]
    plan.append(RecoverySettings(snr_db=1.0, start_correlation=0.15))  # the start that the paper prints
    # Two networks on orthonormal true groups, to see what the rise of the biased ReLU's error is made of.
    plan += [RecoverySettings(network=n, snr_db=1.0, orthonormal=True) for n in ("group-sparse", "biased ReLU")]
    return plan


def explore() -> list[RecoverySettings]:
    """Every point of every figure of chapter 11; points that figures share appear once."""
    many = [
        # A random start answers with less than 2 to everything, and nothing would fire.
        dataclasses.replace(CLEAN, start=start, n_active=k, penalty=1.0 if start == "random" else 2.0)
        for start, k in itertools.product(STARTS, (1, 2, 3))
    ]
    many += [
        dataclasses.replace(SMALL, n_active=k, snr_db=snr)
        for k, snr in itertools.product((1, 2, 4, 6, 8), (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0))
    ]
    many += [
        dataclasses.replace(SMALL, group_size=d, n_groups=100 // d, snr_db=snr)
        for d, snr in itertools.product((1, 2, 4, 5, 10, 20), (-10.0, -5.0, 0.0, 5.0, 10.0))
    ]
    many += [
        dataclasses.replace(SMALL, network=network, penalty=penalty)
        for network, penalty in itertools.product((*NETWORKS, SELECTING[0]), (1.0, 1.5, 2.0, 2.5, 3.0, 3.5))
    ]
    many += [dataclasses.replace(SMALL, network=SELECTING[1])]
    many += [dataclasses.replace(SMALL, learning_rate=rate) for rate in (0.0003, 0.001, 0.003, 0.01, 0.03)]
    many += [dataclasses.replace(SMALL, start_correlation=c) for c in (0.15, 0.25, 0.35, 0.45, 0.555, 0.7)]
    return list(dict.fromkeys(many))


def from_data() -> list[RecoverySettings]:
    """Chapter 15, at the paper's size: from pairs, beside a start next to the truth, to where training ends."""
    cells = [RecoverySettings(n_active=k, snr_db=snr) for k, snr in itertools.product((3, 1, 5, 10), (1.0, 5.0, 10.0))]
    pairs = [dataclasses.replace(cell, start="pairs", epochs=80, measure_every=20) for cell in cells]
    near = [dataclasses.replace(cell, start_correlation=0.98, epochs=80, measure_every=20) for cell in cells]
    fixed = [dataclasses.replace(cell, fresh=False) for cell in pairs if cell.n_active == 3]
    return pairs + near + fixed
