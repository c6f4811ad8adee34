"""Starts from data alone: what share of the groups is found, what is estimated, and where it ends.

Nothing is trained here. Every run draws a true dictionary, data and a start from one seed; the truth is looked at only
to measure.
"""

import dataclasses
import functools
import itertools
import math
import time
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from experiments.digits.ablation import AblationSettings, ablate, score_results
from experiments.recovery.recovery import (
    FOUND,
    SPANNED,
    Recovery,
    RecoverySettings,
    from_data,
    stack,
)
from experiments.simulation import Simulation
from gsae_book.data.features import PixelFeatures, ScatteringFeatures
from gsae_book.data.images import load_images
from gsae_book.runs.processes import peak_mib
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import Dictionary, as_groups, from_groups, orthonormalize_groups
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.learning import FoundGroups, GroupsMissingWarning, find_groups, initial_dictionary
from gsae_lib.learning.pairwise import _Search
from gsae_lib.metrics import Labels

BLOCK = 10_000  # samples drawn at a time
WRONG = math.radians(45)  # a learned group is wrong when it is farther than this from every true one
NOTHING = "nothing"
NO_SIGNAL = -60.0  # dB
DIGIT_METHODS = ("k-means on group norms", "spectral on group norms")


@dataclasses.dataclass(frozen=True)
class StartSettings(Simulation):
    """One start; the defaults are the small size of chapter 11 with more samples.

    Args:
        n_features, n_groups, group_size, n_active, smallest_norm, largest_norm: the data, with Gaussian unit columns.
        snr_db: of the source. frequency_ratio: of the most to the least frequent group; frequencies are spaced evenly
            on a logarithmic scale.
        n_samples: N, all that there is.
        method: "pairs", another start of `initial_dictionary`, or one of `start_baselines.METHODS`.
        told: "sizes" (group size and number of groups) or "nothing".

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_features: int = 150
    n_groups: int = 50
    group_size: int = 2
    n_active: int = 2
    n_samples: int = 3000
    snr_db: float = 10.0
    frequency_ratio: float = 1.0
    method: str = "pairs"
    told: Literal["sizes", "nothing"] = "sizes"

    def __post_init__(self) -> None:
        check_int("n_samples", self.n_samples, low=2)
        check_real("frequency_ratio", self.frequency_ratio, low=1.0)
        check_choice("told", self.told, ("sizes", NOTHING))
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class StartRun:
    """What one start gave.

    found, spanned: shares of true groups within 15 and 30 degrees of a learned one. n_found: learned groups. wrong:
    those more than 45 degrees from all true ones. median_angle: over true groups, of the largest principal angle to the
    nearest learned one, in degrees. estimated_group_size, estimated_n_active, noise_std, penalty: estimates, the last
    three nan for other methods than "pairs"; true_noise_std beside them. n_tries: pairs tried. seconds: of the start
    alone. peak_mib: the process's.
    """

    found: float
    spanned: float
    n_found: int
    wrong: int
    median_angle: float
    estimated_group_size: int
    estimated_n_active: float
    noise_std: float
    true_noise_std: float
    penalty: float
    n_tries: int
    seconds: float
    peak_mib: float


def draw_data(settings: StartSettings, true_dictionary: Dictionary, *, generator: Generator) -> Tensor:
    """Samples of the model, (samples, features), a block at a time, with groups of unequal frequency if asked.

    Supports are drawn without replacement with chances proportional to the frequencies.
    """
    d, groups = settings.group_size, settings.n_groups
    weights = torch.logspace(0, -math.log10(settings.frequency_ratio), groups)
    data = torch.empty(settings.n_samples, len(true_dictionary))
    for rows in data.split(BLOCK):
        support = torch.multinomial(weights.expand(len(rows), groups), settings.n_active, generator=generator)
        values = torch.randn(*support.shape, d, generator=generator)
        low, high = settings.smallest_norm, settings.largest_norm
        norms = low + (high - low) * torch.rand(*support.shape, 1, generator=generator)
        codes = torch.zeros(len(rows), groups, d)
        values *= norms / torch.linalg.vector_norm(values, dim=2, keepdim=True)
        codes.scatter_(1, support.unsqueeze(2).expand_as(values), values)
        torch.matmul(codes.flatten(1), true_dictionary.T, out=rows)
        rows += settings.population.noise_std * torch.randn(rows.shape, generator=generator)
    return data


def nearest_angles(dictionary: Dictionary, true_dictionary: Dictionary, size: int, true_size: int) -> Tensor:
    """Largest principal angle between each true group and each learned one, (true groups, groups), in radians.

    A learned group of another size contains, or is contained in, a true one at angle 0. Pairs that share hardly any
    direction are at a right angle.
    """
    truth = as_groups(orthonormalize_groups(true_dictionary, true_size), true_size)
    learned = as_groups(dictionary, size)
    angles = torch.full((len(truth), len(learned)), math.pi / 2)
    overlap = (from_groups(truth).T @ dictionary).unflatten(0, (-1, true_size)).unflatten(2, (-1, size))
    energy = overlap.square().sum(dim=(1, 3))
    rows, columns = (energy > 0.25 * min(size, true_size)).nonzero(as_tuple=True)
    if len(rows):
        smallest = torch.linalg.svdvals(overlap[rows, :, columns]).amin(dim=1)
        angles[rows, columns] = smallest.clamp(max=1.0).arccos()
    return angles


def run_start(settings: StartSettings, *, seed: int) -> StartRun:
    """Run one start; the seed draws the dictionary, the data and what the start draws.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng = Generator().manual_seed(seed)
    sizes = (settings.n_groups, settings.group_size)
    true_dictionary = gaussian_dictionary(settings.n_features, *sizes, generator=rng)
    data = draw_data(settings, true_dictionary, generator=rng)
    clock = time.perf_counter()
    found = find_start(data, settings, rng)
    seconds = time.perf_counter() - clock
    angles = nearest_angles(found.dictionary, true_dictionary, found.group_size, settings.group_size)
    nearest = angles.amin(dim=1) if found.n_groups else angles.new_full((settings.n_groups,), math.pi / 2)
    return StartRun(
        found=(nearest < FOUND).double().mean().item(),
        spanned=(nearest < SPANNED).double().mean().item(),
        n_found=found.n_groups,
        wrong=int((angles.amin(dim=0) > WRONG).sum()) if found.n_groups else 0,
        median_angle=math.degrees(nearest.median().item()),
        estimated_group_size=found.group_size,
        estimated_n_active=found.n_active,
        noise_std=found.noise_std,
        true_noise_std=settings.population.noise_std,
        penalty=found.penalty,
        n_tries=found.n_tries,
        seconds=seconds,
        peak_mib=peak_mib(),
    )


def find_start(data: Tensor, settings: StartSettings, generator: Generator) -> FoundGroups:
    """The start of the settings, as `FoundGroups`; estimates are nan for another method than "pairs"."""
    if settings.told == NOTHING:
        return find_groups(data, generator=generator)
    sizes = (settings.n_groups, settings.group_size)
    if settings.method == "pairs":
        return find_groups(data, *sizes, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupsMissingWarning)
        dictionary = initial_dictionary(data, *sizes, settings.method, generator=generator)
    counts, ones = torch.zeros(sizes[0], dtype=torch.long), torch.ones(sizes[0])
    return FoundGroups(dictionary, sizes[1], counts, ones, ones, math.nan, math.nan, math.nan, 0)


def lines_and_planes(settings: StartSettings, *, seed: int) -> dict[str, tuple[int, int]]:
    """How many of the first 64 pairs end in a true group, and how many in a mixed span: lines first, or spans at once.

    Both begin with the samples that the pairs select. True: all angles to one true group are
    below 45 degrees. Mixed: to none, but a direction of each of two true groups is within 45 degrees of the span.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng = Generator().manual_seed(seed)
    sizes = (settings.n_groups, settings.group_size)
    true_dictionary = gaussian_dictionary(settings.n_features, *sizes, generator=rng)
    search = _FirstSelection(draw_data(settings, true_dictionary, generator=rng), sizes[1], sizes[0], rng)
    lines, active = search.lines()
    truth = as_groups(orthonormalize_groups(true_dictionary, sizes[1]), sizes[1])
    found = {}
    for name, start in (("lines", (lines, active)), ("spans", search.selection)):
        spans = search.expand(*start)[0]
        cosines = torch.linalg.svdvals(torch.einsum("gnd,bne->bgde", truth, spans))
        right = (cosines[..., -1] > math.cos(WRONG)).any(dim=1)
        mixed = ~right & ((cosines[..., 0] > math.cos(WRONG)).sum(dim=1) > 1)
        found[name] = (int(right.sum()), int(mixed.sum()))
    return found


class _FirstSelection(_Search):
    """A search that keeps what its pairs selected, before the first round."""

    selection: tuple[Tensor, Tensor] | None = None

    def refine(self, spans: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As in the search."""
        self.selection = self.selection or (spans, active)
        return super().refine(spans, active)


def run_map_point(map: str, settings: StartSettings, *, seed: int) -> StartRun:
    """`run_start` for the map of this name, which changes nothing: maps share settings.

    Raises:
        ValueError: as `run_start`.
    """
    return run_start(settings, seed=seed)


def plan() -> list[dict[str, Any]]:
    """The points of every map, seed by seed: two seeds, but one of the large start."""
    small, active = StartSettings(), (1, 2, 3, 4, 6, 8, 10)
    paper = StartSettings(950, 500, 2, 3, 10_000, 1.0)

    def vary(base: StartSettings, **values: Sequence[Any]) -> list[StartSettings]:
        names = list(values)
        return [
            dataclasses.replace(base, **dict(zip(names, v, strict=True))) for v in itertools.product(*values.values())
        ]

    untold = dataclasses.replace(small, told=NOTHING)
    nothing = [dataclasses.replace(small, snr_db=NO_SIGNAL, group_size=d, n_groups=100 // d) for d in (1, 2, 4)]
    sizes = itertools.product((1, 2, 4, 5, 10), (300, 1000, 3000, 10_000), (1, 2))
    told = itertools.product((1, 2, 4, 5), (1, 2, 3), (5.0, 20.0))
    maps = {
        "samples": vary(small, n_samples=(300, 1000, 3000, 10_000, 30_000), n_active=active),
        "noise": vary(small, snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 20.0), n_active=active),
        "size": [
            dataclasses.replace(small, group_size=d, n_groups=100 // d, n_samples=n, n_active=k) for d, n, k in sizes
        ],
        "atoms": vary(dataclasses.replace(small, n_features=100), n_groups=(25, 50, 100, 200), n_active=active),
        "frequency": vary(small, frequency_ratio=(1.0, 3.0, 10.0, 30.0, 100.0), n_active=(1, 2, 4)),
        "norms": vary(small, smallest_norm=(0.5, 1.0, 2.0, 3.0, 4.0), n_active=(1, 2, 4)),
        "untold": [
            dataclasses.replace(untold, group_size=d, n_groups=100 // d, n_active=k, snr_db=snr) for d, k, snr in told
        ],
        "untold, paper's size": [dataclasses.replace(paper, told=NOTHING)],
        "paper's size": [
            paper,
            *vary(paper, n_samples=(2000, 5000), snr_db=(1.0, 10.0)),
            *vary(paper, n_active=(20,), snr_db=(10.0,)),
            *vary(paper, n_features=(475, 238), snr_db=(1.0, 10.0)),
            *(dataclasses.replace(paper, group_size=d, n_groups=1000 // d) for d in (1, 4, 8)),
        ],
        "more samples": vary(small, n_samples=(100_000,), n_active=(1, 3, 6, 10)),
        "no signal": [
            *(dataclasses.replace(one, n_samples=n) for one in nothing for n in (1500, 10_000)),
            dataclasses.replace(paper, snr_db=NO_SIGNAL),
        ],
        "large": [StartSettings(2000, 5000, 2, 3, 100_000, 10.0)],
    }
    return [
        {"map": name, "settings": one, "seed": seed}
        for seed in (0, 1)
        for name, many in maps.items()
        if name != "large" or seed == 0
        for one in many
    ]


def map_table(starts: pd.DataFrame, name: str, row: str, column: str, value: str = "spanned") -> pd.DataFrame:
    """Means over seeds of one map: a row and a column for each value of two settings, in order."""
    chosen = starts[starts["map"] == name]
    return chosen.pivot_table(value, row, column, aggfunc="mean")


def around_table(starts: pd.DataFrame) -> pd.DataFrame:
    """Starts around the paper's size, and the large one: means over seeds, a row for each setting.

    tries: pairs. seconds: of the start, on one thread.
    """
    chosen = starts[starts["map"].isin(["paper's size", "large"])]
    names = ["n_features", "n_groups", "group_size", "n_active", "n_samples", "snr_db"]
    return (
        chosen.groupby(names)
        .agg(
            seeds=("seed", "nunique"),
            found=("found", "mean"),
            spanned=("spanned", "mean"),
            median_angle=("median_angle", "mean"),
            tries=("n_tries", "mean"),
            seconds=("seconds", "mean"),
        )
        .reset_index()
    )


def estimate_table(starts: pd.DataFrame) -> pd.DataFrame:
    """What "pairs" estimates when nothing is told, beside the truth: means over seeds, a row for each setting.

    exact: share of runs in which group size and number of groups are right.
    """
    untold = starts[starts["told"] == NOTHING]
    exact = (untold["estimated_group_size"] == untold["group_size"]) & (untold["n_found"] == untold["n_groups"])
    names = ["n_features", "group_size", "n_groups", "n_active", "snr_db"]
    return (
        untold.assign(exact=exact)
        .groupby(names)
        .agg(
            size=("estimated_group_size", "mean"),
            groups=("n_found", "mean"),
            wrong=("wrong", "mean"),
            active=("estimated_n_active", "mean"),
            noise=("noise_std", "mean"),
            true_noise=("true_noise_std", "mean"),
            exact=("exact", "mean"),
        )
        .reset_index()
    )


def trained_table(runs: Sequence[Recovery], *, fresh: bool = True) -> pd.DataFrame:
    """Training from "pairs" at the paper's size, by noise and active groups, beside a start next to the truth.

    start_seconds: of the start, mean. seconds: start and training, mean. spanned: least share of groups within 30
    degrees at the start. found: least share within 15 degrees at the end. complete: runs in which it is 1. angles,
    spread: squared angles at the end, mean and sample deviation; near, near_spread: those from next to the truth, on
    fresh data.
    """
    rows = []
    ends: dict[RecoverySettings, list[float]] = {}
    for run in runs:
        ends.setdefault(run.settings, []).append(run.angles[-1])
    for one, near in zip(*(_cells(start) for start in ("pairs", "near")), strict=True):
        one = dataclasses.replace(one, fresh=fresh)
        found = [run for run in runs if run.settings == one]
        if not found:
            continue
        seconds = stack(found, "start_seconds")
        rows.append(
            {
                "snr_db": one.snr_db,
                "n_active": one.n_active,
                "seeds": len(found),
                "start_seconds": seconds.mean(),
                "seconds": (seconds + stack(found, "seconds")).mean(),
                "spanned": stack(found, "start_spanned").min(),
                "found": stack(found, "found").min(),
                "complete": int((stack(found, "found") == 1).sum()),
                **_mean_and_spread("angles", "spread", np.array(ends[one])),
                **_mean_and_spread("near", "near_spread", np.array(ends.get(near, []))),
            }
        )
    return pd.DataFrame(rows).sort_values(["snr_db", "n_active"], ignore_index=True)


def _cells(start: str) -> list[RecoverySettings]:
    return [one for one in from_data() if one.start == start and one.fresh]


def _mean_and_spread(mean: str, spread: str, values: np.ndarray) -> dict[str, float]:
    deviation = values.std(ddof=1) if len(values) > 1 else math.nan
    return {mean: values.mean() if len(values) else math.nan, spread: deviation}


def cluster_digits(
    features: Literal["root scattering", "pixels"], start: Literal["k-subspaces", "pairs"], *, seed: int
) -> list[dict[str, object]]:
    """Clusters of 4,000 digits from a start: rows of `score_results`, and the warning of the start or "".

    The ablation of chapters 09 and 10 at its defaults, 100 groups of 4, on the start itself; labels only score it.

    Raises:
        ValueError: unknown features, or an unknown start.
    """
    data, labels = _load_digits(features)
    with warnings.catch_warnings(record=True) as missing:
        warnings.simplefilter("always", GroupsMissingWarning)
        results = ablate(data, AblationSettings(start=start), seeds=[seed], methods=DIGIT_METHODS)
    told = [str(one.message) for one in missing if issubclass(one.category, GroupsMissingWarning)]
    return score_results(results, labels, warning=told[0] if told else "")


@functools.cache
def _load_digits(features: str) -> tuple[Tensor, Labels]:
    known = {"root scattering": ScatteringFeatures(root=True), "pixels": PixelFeatures()}
    images = load_images("mnist-5k", "train")
    return torch.from_numpy(known[check_choice("features", features, known)].fit_transform(images)), images.labels
