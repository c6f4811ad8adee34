r"""The two readings of depth side by side: a layer on the norms below, and a layer on the codes below (a stack).

Three kinds of data with the same lowest layer, and for each one true group at the top in a sample. "families": norms
have a structure, directions have none. "linked": directions have one, y = A^1 A^2 x^2, where a group of the top copies
its code to three groups below, each time turned. "twins": the same, with two top groups on the same three groups, that
differ in the turns alone.
"""

import dataclasses
import math
import time
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from experiments.convergence.gradients import turned
from experiments.layers.layers import HardAutoencoder
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import Dictionary, as_groups, from_groups, polar
from gsae_lib.generative import coherent_dictionary
from gsae_lib.groups import group_norms
from gsae_lib.metrics import principal_angles
from gsae_lib.networks import GroupSparseAutoencoder, LayeredAutoencoder, LayeredSource, sibling_dictionary
from gsae_lib.training import TrainingSettings, train

Made = Literal["families", "linked", "twins"]
Network = Literal["norms", "codes", "codes, together", "one layer"]
SIZE = 2  # d of the lowest layer
FAMILY = 3  # groups of the lowest layer that belong to one of the top
OFFSETS = (0, 1, 3)  # of the groups that are linked: no pair of them is in two links


@dataclasses.dataclass(frozen=True)
class StackSettings:
    """One network on one kind of data; the defaults are those of chapter 19.

    Args:
        data: "families", "linked" or "twins".
        network: what its top layer codes: "norms" of the codes below, or the "codes", after the lower layer was trained
            (both with hard thresholds); "codes, together": all at once, unfolded jointly, trained from the top with the
            group ReLU; "one layer": the data themselves, without a layer below.
        n_groups: of the lowest layer. n_features, snr_db, n_samples: of the data; snr_db None for no noise.
        n_test: other samples, that are scored.
        start_angle: of every group of every layer to the truth, in random directions, degrees.
        penalty_share: lambda of a layer, in shares of the smallest norm of its active groups; for "codes, together"
            `joint_share`, since penalties of the layers add up there.
        n_iterations: joint steps. epochs: of each training. step: in shares of 1 / E ||input||^2.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    data: Made = "families"
    network: Network = "norms"
    n_groups: int = 12
    n_features: int = 60
    snr_db: float | None = 10.0
    n_samples: int = 400
    n_test: int = 1000
    start_angle: float = 10.0
    penalty_share: float = 0.5
    joint_share: float = 0.1
    n_iterations: int = 20
    epochs: int = 50
    step: float = 4.0

    def __post_init__(self) -> None:
        check_choice("data", self.data, get_args(Made))
        check_choice("network", self.network, get_args(Network))
        check_int("n_groups", self.n_groups, low=7)  # so that OFFSETS differ
        if self.n_groups % FAMILY:
            raise ValueError(f"n_groups={self.n_groups}: expected a multiple of {FAMILY}")
        check_int("n_features", self.n_features, low=SIZE * self.n_groups)
        check_int("n_test", self.n_test)
        check_int("n_samples", self.n_samples)
        check_int("epochs", self.epochs)
        check_real("start_angle", self.start_angle, high=89.0)
        check_real("penalty_share", self.penalty_share, strict=True, high=1.0)
        check_real("joint_share", self.joint_share, strict=True, high=1.0)
        check_real("step", self.step, strict=True)


@dataclasses.dataclass(frozen=True)
class StackRun:
    """What became of a network; angles are the largest principal angles of any group, in degrees.

    named: share of test samples whose strongest group at the top is the true one; half of that where a network has one
    group for both twins, and has to guess. upper_angle: of the top to the truth of its relations, for codes in the
    frames that the lower layer has come to. lower_angle: of the lowest layer. data_angle: of what a top group spans in
    the data, W^1 W^2_k to A^1 A^2_k. nan where a network has no such thing. seconds: of training.
    """

    named: float
    upper_angle: float
    lower_angle: float
    data_angle: float
    seconds: float


def linked_dictionary(n_groups: int, n_turns: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""Top groups of two atoms that copy their code to three groups of two, (2 n_groups, 2 n_groups n_turns).

    .. math:: A_{(i, t)} = \tfrac{1}{\sqrt 3} \big( E_i + E_{i+1} R^t + E_{i+3} R^{2t} \big)

    E_i takes the i-th pair of coordinates, i modulo n_groups, and R is a turn by 120 degrees. Group (i, t) is the
    (i n_turns + t)-th. Groups with one i are orthogonal, since 1 + R^t + R^{2t} = 0 for t = 1 and 2; others share at
    most one pair of coordinates.

    Raises:
        ValueError: fewer than 7 groups, or n_turns outside 1, 2, 3.
    """
    check_int("n_groups", n_groups, low=7)
    check_int("n_turns", n_turns, high=3)
    blocks = torch.zeros(n_groups * n_turns, n_groups, SIZE, SIZE, dtype=dtype)
    for i in range(n_groups):
        for t in range(n_turns):
            for k, offset in enumerate(OFFSETS):
                blocks[i * n_turns + t, (i + offset) % n_groups] = _turn(120.0 * t * k).to(dtype) / FAMILY**0.5
    return from_groups(blocks.flatten(1, 2))


def _turn(degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def make_source(settings: StackSettings, *, generator: Generator) -> LayeredSource:
    """The source of a setting, with a random orthogonal dictionary below."""
    n = settings.n_groups
    lowest = coherent_dictionary(settings.n_features, n, SIZE, 0.0, generator=generator)
    if settings.data == "families":
        top, size, passed = sibling_dictionary(n // FAMILY, FAMILY), FAMILY, "norms"
    else:
        top, size, passed = linked_dictionary(n, 2 if settings.data == "twins" else 1), SIZE, "codes"
    return LayeredSource((lowest, top), (SIZE, size), passed=passed, snr_db=settings.snr_db)


def upper_truth(source: LayeredSource, network: Network) -> tuple[Dictionary, int]:
    """What the top of a network has to find, and its group size: in the norms, the codes or the data.

    The span of what the top sees while a true group is active, if the lower layer is right: for codes of families all
    atoms of the children; for norms of linked groups the one direction in which the three are equally long, one for
    both of a pair of twins.
    """
    lowest, top = source.dictionaries
    in_codes, size = top, SIZE
    if source.passed == "norms":
        in_codes, size = torch.kron(top, torch.eye(SIZE)), FAMILY * SIZE
    if network == "norms":
        if source.passed == "norms":
            return top, FAMILY
        lengths = torch.linalg.matrix_norm(as_groups(top, SIZE).unflatten(1, (-1, SIZE)))
        lengths = lengths[:: len(lengths) // lengths.shape[1]]  # twins have the same
        return (lengths / torch.linalg.vector_norm(lengths, dim=1, keepdim=True)).T, 1
    return (lowest @ in_codes if network == "one layer" else in_codes), size


def in_frames(codes: Dictionary, weight: Dictionary, lowest: Dictionary) -> Dictionary:
    """An upper dictionary as codes of `weight` show it, whose groups have the frames nearest to those of `lowest`."""
    frames = polar(as_groups(lowest, SIZE).mT @ as_groups(weight, SIZE))
    return (frames.mT @ codes.unflatten(0, (-1, SIZE))).flatten(0, 1)


def run_stacks(settings: StackSettings, *, seed: int) -> StackRun:
    """Draw data, train one network from near its truth, and measure it.

    Raises:
        ValueError: a seed that torch does not take.
        TrainingError: as `train`.
    """
    rng = Generator().manual_seed(seed)
    source = make_source(settings, generator=rng)
    data = source.sample(settings.n_samples, generator=rng).data
    clock = time.perf_counter()
    train_network = _train_together if settings.network == "codes, together" else _train_in_turn
    lower, upper = train_network(settings, source, data, generator=rng)
    seconds = time.perf_counter() - clock
    return _measured(settings, source, lower, upper, seconds, generator=rng)


def _angle(settings: StackSettings) -> float:
    return math.radians(settings.start_angle)


def _penalty(share: float, inputs: Tensor, truth: Dictionary, size: int, support: Tensor) -> float:
    """A share of the smallest norm that active groups have in what a layer sees."""
    norms = group_norms(inputs @ truth, size)
    return share * norms[support.unflatten(1, (norms.shape[1], -1)).any(dim=2)].min().item()


def _plan(settings: StackSettings, inputs: Tensor) -> TrainingSettings:
    rate = settings.step / inputs.square().sum(dim=1).mean().item()
    return TrainingSettings(settings.epochs, rate, optimizer="sgd", normalize="groups", progress=False)


def _one_layer(
    settings: StackSettings, start: Dictionary, size: int, penalty: float, inputs: Tensor, *, generator: Generator
) -> HardAutoencoder:
    """A layer with a hard threshold, trained on its inputs."""
    n, m = start.shape
    layer = HardAutoencoder(n, m // size, size, penalty, step_size=1.0, dictionary=start)
    train(layer, inputs, _plan(settings, inputs), generator=generator)
    return layer


def _train_in_turn(
    settings: StackSettings, source: LayeredSource, data: Tensor, *, generator: Generator
) -> tuple[GroupSparseAutoencoder | None, GroupSparseAutoencoder]:
    """The lower layer, if there is one, then the upper one on its norms or codes."""
    tried = dataclasses.replace(source, snr_db=None).sample(1000, generator=generator)
    lowest, (truth, size) = source.dictionaries[0], upper_truth(source, settings.network)
    lower, inputs, seen = None, data, tried.data
    if settings.network != "one layer":
        penalty = _penalty(settings.penalty_share, tried.data, lowest, SIZE, tried.supports[0])
        start = turned(lowest, SIZE, _angle(settings), generator=generator)
        lower = _one_layer(settings, start, SIZE, penalty, data, generator=generator)
        inputs, seen = lower.encode(data).detach(), tried.codes[0]
        if settings.network == "norms":
            inputs, seen = group_norms(inputs, SIZE), group_norms(seen, SIZE)
    penalty = _penalty(settings.penalty_share, seen, truth, size, tried.supports[1])
    if settings.network == "codes":
        truth = in_frames(truth, lower.weight.detach(), lowest)
    start = turned(truth, size, _angle(settings), generator=generator)
    return lower, _one_layer(settings, start, size, penalty, inputs, generator=generator)


def _train_together(
    settings: StackSettings, source: LayeredSource, data: Tensor, *, generator: Generator
) -> tuple[GroupSparseAutoencoder, GroupSparseAutoencoder]:
    """Both layers of a stack, unfolded jointly, on the reconstruction from the top."""
    tried = dataclasses.replace(source, snr_db=None).sample(1000, generator=generator)
    lowest, (truth, size) = source.dictionaries[0], upper_truth(source, settings.network)
    start = turned(lowest, SIZE, _angle(settings), generator=generator)
    upper = turned(in_frames(truth, start, lowest), size, _angle(settings), generator=generator)
    seen = ((tried.data, lowest, SIZE), (tried.codes[0], truth, size))
    penalties = [_penalty(settings.joint_share, *one, tried.supports[k]) for k, one in enumerate(seen)]
    layers = [
        GroupSparseAutoencoder(len(w), w.shape[1] // d, d, penalty, dictionary=w)
        for w, d, penalty in zip((start, upper), (SIZE, size), penalties, strict=True)
    ]
    model = LayeredAutoencoder(layers, passed="codes", n_iterations=settings.n_iterations)
    train(model, data, _plan(settings, data), generator=generator)
    return layers[0], layers[1]


@torch.no_grad()
def _measured(
    settings: StackSettings,
    source: LayeredSource,
    lower: GroupSparseAutoencoder | None,
    upper: GroupSparseAutoencoder,
    seconds: float,
    *,
    generator: Generator,
) -> StackRun:
    sample, network = source.sample(settings.n_test, generator=generator), settings.network
    lowest, (truth, size) = source.dictionaries[0], upper_truth(source, network)
    lower_angle = data_angle = math.nan
    if lower is None:
        codes = upper.encode(sample.data)
        data_angle = _largest(upper.weight, truth, size)
    elif network == "codes, together":
        stack = LayeredAutoencoder([lower, upper], passed="codes", n_iterations=settings.n_iterations)
        codes = stack.encode(sample.data)[1]
    else:
        below = lower.encode(sample.data)
        codes = upper.encode(group_norms(below, SIZE) if network == "norms" else below)
    if lower is not None:
        lower_angle = _largest(lower.weight, lowest, SIZE)
        if network != "norms":
            data_angle = _largest(lower.weight @ upper.weight, lowest @ truth, size)
            truth = in_frames(truth, lower.weight, lowest)
    upper_angle = math.nan if lower is None else _largest(upper.weight, truth, size)
    strongest, right = group_norms(codes, size).max(dim=1), sample.supports[1].float().argmax(dim=1)
    alike = sample.supports[1].shape[1] // (codes.shape[1] // size)
    named = ((strongest.indices == right // alike) & (strongest.values > 0)).double().mean().item() / alike
    return StackRun(named, upper_angle, lower_angle, data_angle, seconds)


def _largest(weight: Dictionary, truth: Dictionary, size: int) -> float:
    return math.degrees(principal_angles(weight, truth, size).max().item())
