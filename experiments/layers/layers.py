"""Several layers: recovery in each layer, training in turn and together, predicted and measured angles."""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from experiments.convergence.gradients import turned
from experiments.recovery.recovery import FOUND
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.activations import group_hard_threshold
from gsae_lib.dictionary import Dictionary
from gsae_lib.generative import coherent_dictionary
from gsae_lib.groups import active_groups, group_norms
from gsae_lib.metrics import principal_angles
from gsae_lib.networks import (
    GroupSparseAutoencoder,
    LayeredAutoencoder,
    LayeredSample,
    LayeredSource,
    sibling_dictionary,
)
from gsae_lib.theory.layers import false_alarm_tangent, largest_layer_angle
from gsae_lib.training import TrainingError, TrainingSettings, train, train_layers

Training = Literal["in turn", "together", "in turn, then together"]
Passed = Literal["shrunk", "restored", "kept"]


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """One network of several layers on data of as many; the defaults are the small size of chapter 19.

    Args:
        n_layers: L. n_top: families at the top. family_size: children of a group above the lowest layer; n_children of
            them are active with it. group_size: of the lowest layer. n_features: of the data, at least its atoms.
        coherence: d mu_B of the lowest true dictionary. overlap: the same of all upper ones.
        snr_db: of the data; None for no noise. smallest_norm, largest_norm: of the top layer's codes.
        n_samples: that train. n_test: others, that are coded and scored.
        training: "in turn", "together" on the reconstruction from the top, or one after the other.
        passed: norms as the group ReLU leaves them, "shrunk", or "restored"; or "kept" by layers with a hard threshold.
        start_angle: of all groups to the true ones, in random directions, in degrees.
        penalty_share: lambda of each layer, in shares of the smallest norm that its active groups have.
        epochs: of each training. step: of gradient descent, in shares of 1 / E ||input||^2 of a layer.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_layers: int = 2
    n_top: int = 4
    family_size: int = 3
    n_children: int = 2
    group_size: int = 2
    n_features: int = 60
    coherence: float = 0.0
    overlap: float = 0.0
    snr_db: float | None = 20.0
    smallest_norm: float = 4.0
    largest_norm: float = 5.0
    n_samples: int = 4000
    n_test: int = 2000
    training: Training = "in turn"
    passed: Passed = "shrunk"
    start_angle: float = 10.0
    penalty_share: float = 0.5
    epochs: int = 200
    step: float = 2.0

    def __post_init__(self) -> None:
        check_int("n_layers", self.n_layers)
        check_int("n_test", self.n_test)
        check_int("n_samples", self.n_samples)
        check_int("epochs", self.epochs)
        check_choice("training", self.training, get_args(Training))
        check_choice("passed", self.passed, get_args(Passed))
        check_real("start_angle", self.start_angle, high=89.0)
        check_real("penalty_share", self.penalty_share, strict=True, high=1.0)
        check_real("step", self.step, strict=True)


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """What became of one layer.

    layer: from 1. start_angle, largest_angle, rms_angle: degrees to the true spans. found: share of groups within 15
    degrees. exact: share of test samples whose support is right. norm_error: rms of what is passed up, less the true
    norms (those of a network with the true spans, shrunk alike), over their rms. window_angle: below which, without
    noise, some penalty is proved to find all supports, in degrees, for the norms of its true codes in the test samples,
    0 where one of these vanishes; nan where the truth is not orthogonal. predicted_angle: what the false alarms of the
    layer below make of this layer, nan for the lowest one. seconds: of all training.
    """

    layer: int
    start_angle: float
    largest_angle: float
    rms_angle: float
    found: float
    exact: float
    norm_error: float
    window_angle: float
    predicted_angle: float
    seconds: float


def make_source(settings: LayerSettings, *, generator: Generator) -> LayeredSource:
    """The source of a setting: families above, a random dictionary of the wanted coherence below.

    Raises:
        ValueError: fewer features than the lowest layer's dictionary needs.
    """
    upper: list[Dictionary] = []
    count = settings.n_top
    for _ in range(settings.n_layers - 1):
        upper.append(sibling_dictionary(count, settings.family_size, settings.overlap))
        count = len(upper[-1])
    size = settings.group_size
    lowest = coherent_dictionary(settings.n_features, count, size, settings.coherence / size, generator=generator)
    sizes = (size, *[settings.family_size] * len(upper))
    norms = (settings.smallest_norm, settings.largest_norm)
    return LayeredSource(
        (lowest, *upper[::-1]), sizes, n_children=settings.n_children, norm_range=norms, snr_db=settings.snr_db
    )


def make_network(
    settings: LayerSettings, source: LayeredSource, *, generator: Generator
) -> tuple[LayeredAutoencoder, list[TrainingSettings]]:
    """A network at its start, and how to train each of its layers.

    Penalties are shares of the smallest norms that true groups have in what a network with the true spans passes up.
    """
    tried = source.sample(1000, generator=generator)
    layers, plans, taken = [], [], 0.0
    for index, (truth, size) in enumerate(zip(source.dictionaries, source.group_sizes, strict=True)):
        start = turned(truth, size, math.radians(settings.start_angle), generator=generator)
        inputs = tried.inputs[index] if index == 0 else (tried.inputs[index] - taken).clamp(min=0)
        norms = group_norms(inputs @ truth, size)[tried.supports[index]]
        penalty = settings.penalty_share * torch.quantile(norms, 0.001 if index == 0 else 0.0).item()
        n, m = truth.shape
        kind = HardAutoencoder if settings.passed == "kept" else GroupSparseAutoencoder
        layers.append(kind(n, m // size, size, penalty, step_size=1.0, dictionary=start))
        rate = settings.step / inputs.square().sum(dim=1).mean().item()
        plans.append(TrainingSettings(settings.epochs, rate, optimizer="sgd", normalize="groups", progress=False))
        taken = penalty if settings.passed == "shrunk" else 0.0
    return LayeredAutoencoder(layers, restore=settings.passed == "restored"), plans


class HardAutoencoder(GroupSparseAutoencoder):
    """One layer that keeps groups longer than the penalty as they are."""

    def encode(self, data: Tensor) -> Tensor:
        """Codes of the kept groups: (samples, features) -> (samples, atoms)."""
        self._check_data(data)
        return group_hard_threshold(data @ self.weight, self.penalty, self.group_size)


def largest_angles(model: LayeredAutoencoder, source: LayeredSource) -> list[float]:
    """The largest principal angle of each layer to its truth, in degrees."""
    layers = zip(model.all_layers, source.dictionaries, source.group_sizes, strict=True)
    return [math.degrees(principal_angles(one.weight.detach(), truth, d).max().item()) for one, truth, d in layers]


def run_layers(settings: LayerSettings, *, seed: int) -> list[LayerRun]:
    """Draw layers, train a network from near the truth, and measure every layer; nothing is found if training fails.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng = Generator().manual_seed(seed)
    source = make_source(settings, generator=rng)
    data = source.sample(settings.n_samples, generator=rng).data
    model, plans = make_network(settings, source, generator=rng)
    starts, clock = largest_angles(model, source), time.perf_counter()
    try:
        if settings.training != "together":
            train_layers(model, data, plans, generator=rng)
        if settings.training != "in turn":
            slowest = min(plans, key=lambda plan: plan.learning_rate)
            train(model, data, slowest, generator=rng)
    except TrainingError:
        nan = math.nan
        return [LayerRun(k + 1, *[nan] * 3, 0.0, 0.0, *[nan] * 4) for k in range(settings.n_layers)]
    seconds = time.perf_counter() - clock
    sample = source.sample(settings.n_test, generator=rng)
    return _measured(settings, source, model, starts, sample, seconds)


@torch.no_grad()
def _measured(
    settings: LayerSettings,
    source: LayeredSource,
    model: LayeredAutoencoder,
    starts: Sequence[float],
    sample: LayeredSample,
    seconds: float,
) -> list[LayerRun]:
    runs, codes, below = [], model.encode(sample.data), None
    truth_passed = sample.inputs[0]
    for index, (layer, truth, size) in enumerate(
        zip(model.all_layers, source.dictionaries, source.group_sizes, strict=True)
    ):
        angles = principal_angles(layer.weight, truth, size)
        largest = angles.amax(dim=1)
        support, found = sample.supports[index], active_groups(codes[index], size)
        passed = model.pass_up(codes[index], index)
        true_norms = group_norms(truth_passed @ truth, size) * support if index else group_norms(sample.codes[0], size)
        taken = layer.penalty.item() if settings.passed == "shrunk" else 0.0
        expected = (true_norms - taken).clamp(min=0)
        active = int(support.sum(dim=1).max())
        runs.append(
            LayerRun(
                layer=index + 1,
                start_angle=starts[index],
                largest_angle=math.degrees(largest.max().item()),
                rms_angle=math.degrees(angles.square().mean().sqrt().item()),
                found=(largest < FOUND).double().mean().item(),
                exact=(found == support).all(dim=1).double().mean().item(),
                norm_error=((passed - expected).square().mean() / expected.square().mean()).sqrt().item(),
                window_angle=math.degrees(window_angle(truth, true_norms[support], active)),
                predicted_angle=math.nan if below is None else _predicted(*below, sample.supports[index], size),
                seconds=seconds,
            )
        )
        below, truth_passed = (passed, support), expected
    return runs


def window_angle(truth: Dictionary, norms: Tensor, n_active: int) -> float:
    """`largest_layer_angle` for norms of active groups; 0 if one vanishes, nan for a truth that is not orthogonal."""
    if (truth.T @ truth - torch.eye(truth.shape[1])).abs().max() > 1e-4:
        return math.nan
    ends = norms.min().item(), norms.max().item()
    return largest_layer_angle(n_active, ends) if ends[0] > 0 else 0.0


def _predicted(passed: Tensor, true_below: Tensor, families: Tensor, size: int) -> float:
    """The largest angle that false alarms below make of any family, in degrees; nan where children are shared."""
    groups = families.shape[1]
    if passed.shape[1] != groups * size or not bool((families.sum(dim=1) == 1).all()):
        return math.nan
    worst = 0.0
    for k in range(groups):
        rows = passed[families[:, k]].double()
        own = torch.zeros(passed.shape[1], dtype=torch.bool)
        own[k * size : (k + 1) * size] = True
        wrong = rows[:, ~own]
        alarms = wrong[wrong > 0]
        if not len(alarms):
            continue
        z = rows[:, own]
        moments = (alarms.mean().item(), alarms.square().mean().item())
        rate = len(alarms) / wrong.numel()
        found = false_alarm_tangent(z.T @ z / len(z), z.mean(dim=0), wrong.shape[1], rate, moments)
        worst = max(worst, math.degrees(math.atan(found)))
    return worst


def run_map_point(map: str, settings: LayerSettings, *, seed: int) -> list[LayerRun]:
    """`run_layers` for the map of this name, which changes nothing: maps share settings.

    Raises:
        ValueError: as `run_layers`.
    """
    return run_layers(settings, seed=seed)


def plan() -> list[dict[str, Any]]:
    """The settings of every map of chapter 19."""
    base = LayerSettings()
    deep = {1: 24, 2: 60, 3: 120, 4: 300}

    def vary(**values: Sequence[Any]) -> list[LayerSettings]:
        points = itertools.product(*values.values())
        return [dataclasses.replace(base, **dict(zip(values, point, strict=True))) for point in points]

    trainings, passed = get_args(Training), get_args(Passed)
    depth = [
        dataclasses.replace(base, n_layers=k, n_features=n, passed=way, training=training, start_angle=5.0, snr_db=30.0)
        for (k, n), way, training in itertools.product(deep.items(), passed, trainings[:2])
    ]
    maps = {
        "depth": depth,
        "start": vary(start_angle=(2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0), training=trainings, passed=passed),
        "noise": vary(snr_db=(-5.0, 0.0, 5.0, 10.0, 20.0), training=trainings[:2]),
        "sparsity": vary(n_children=(1, 2, 3), family_size=(3, 4), training=trainings[:2]),
        "coherence": vary(coherence=(0.0, 0.05, 0.1, 0.2, 0.3), training=trainings[:2]),
        "overlap": vary(overlap=(0.0, 0.05, 0.1, 0.2, 0.3), passed=passed),
        "samples": vary(n_samples=(200, 500, 1000, 2000, 4000, 8000)),
    }
    return [{"map": name, "settings": one} for name, many in maps.items() for one in many]
