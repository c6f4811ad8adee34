"""The runs behind chapter 18: sparse autoencoders with groups, on states of a language model and on planted features.

All have the same number of parameters and, on average, the same number of active dimensions: m = 2 n = 1,152 atoms in
groups of d, of which a token uses k = 32 / d; single atoms may have fewer, as controls at equal bits. What varies is d,
the activation and the decoder's constraint. Settings of training were fixed by reconstruction alone; month and day
names score the results and choose nothing.
"""

import dataclasses
import itertools
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from experiments import RESULTS
from experiments.recovery.block_pursuit import block_pursuit
from gsae_book.data.files import cache_folder
from gsae_book.data.states import open_states
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.coding import excess_objective
from gsae_lib.dictionary import Dictionary, as_groups, normalize_columns, orthonormalize_groups
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.groups import active_groups, group_norms
from gsae_lib.penalty import GroupPenalty
from gsae_lib.sae import (
    BatchTopKSAE,
    GroupJumpReLUSAE,
    GroupReLUSAE,
    GroupSAE,
    GroupTopKSAE,
    SyntheticFeatures,
    score_sae,
    synthetic_features,
)
from gsae_lib.sae.architectures import CONSTRAINTS
from gsae_lib.subspaces import group_captures, largest_capture, match_subspaces, subspace_capture
from gsae_lib.theory import Quantity, certify
from gsae_lib.training import TrainingSettings, train

DATA = ("smollm2", "planted", "embedded", "addresses")
STATES = {  # of `gsae data smollm2 --layer 6 --tokens 200000`, the second one with `--text addresses`
    "smollm2": "smollm2-6-200000",
    "addresses": "smollm2-6-200000-addresses",
}
# The architectures by the names that the recorded runs have for them.
ARCHITECTURES: dict[str, type[GroupSAE]] = {
    "group ReLU": GroupReLUSAE,
    "group top-k": GroupTopKSAE,
    "batch top-k": BatchTopKSAE,
    "group JumpReLU": GroupJumpReLUSAE,
}
ACTIVATIONS = tuple(ARCHITECTURES)
SIZES = (1, 2, 3, 4, 8)
ACTIVE_DIMENSIONS = 32
# Of Adam: of .001 and .003 the one that rebuilt states better, in groups of 4 with unit columns.
LEARNING_RATES = {"group ReLU": 1e-3, "group top-k": 3e-3, "batch top-k": 3e-3, "group JumpReLU": 3e-3}
LARGEST_NORM = 3.0  # times the median: states beyond are left out, first tokens of sentences for the most part
N_PLANTED = 460  # groups of 1 to 4 dimensions, 1,150 atoms in all
DISTORTION = 0.4  # share of the variance at which codes are counted in bits
N_PURSUED, N_CERTIFIED, N_PERMUTATIONS = 300, 3000, 500
N_FREQUENT = 100  # of the planted groups, the most frequent ones
FOUND = 0.8  # share of a true group, of what d dimensions can hold, from which it counts as found
CAPTURED = 8  # dimensions of several groups together


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """One autoencoder.

    Args:
        data: states of "smollm2" on WordNet's glosses, or on "addresses"; "planted" features; or the "embedded" states
            that the chapter carries.
        activation: a name in `ARCHITECTURES`. group_size, decoder, tied: as `GroupSAE`; groups of one are nonnegative.
        n_tokens: to train on. epochs: passes over them. n_held_out: others, scored. batch_size: of Adam.
        certify: ask `certify` about the decoder, too. revival: weight of the loss that revives dead groups; 0 for none.
        active_dimensions: k d, what a token uses on average. signed: codes of single atoms may be negative.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    data: Literal["smollm2", "planted", "embedded", "addresses"] = "smollm2"
    activation: Literal["group ReLU", "group top-k", "batch top-k", "group JumpReLU"] = "batch top-k"
    group_size: int = 2
    decoder: Literal["free", "unit", "orthonormal"] = "unit"
    tied: bool = False
    n_tokens: int = 100_000
    n_held_out: int = 10_000
    batch_size: int = 512
    certify: bool = False
    revival: float = 1 / 32
    epochs: int = 1
    active_dimensions: int = ACTIVE_DIMENSIONS
    signed: bool = False

    def __post_init__(self) -> None:
        check_choice("data", self.data, DATA)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("decoder", self.decoder, CONSTRAINTS)
        for name in ("group_size", "n_tokens", "n_held_out", "batch_size", "epochs", "active_dimensions"):
            check_int(name, getattr(self, name))
        check_real("revival", self.revival)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenData:
    """Rows to train on, float16, and to score; with a truth also its groups and which are active in the latter."""

    train: np.ndarray
    held_out: Tensor
    truth: SyntheticFeatures | None = None
    support: Tensor | None = None


@cache
def load_tokens(data: str, n_tokens: int, n_held_out: int) -> TokenData:
    """The first rows to train on and the last ones to score; planted ones are the same for all seeds of training.

    Raises:
        ValueError: unknown data, or too few. FileNotFoundError: states that were not extracted.
    """
    check_choice("data", data, DATA)
    if data == "planted":
        rng = Generator().manual_seed(0)
        truth = synthetic_features(576, N_PLANTED, n_active=12.8, noise_std=0.02, one_sided=True, generator=rng)
        rows = np.empty((n_tokens, 576), dtype=np.float16)
        for start in range(0, n_tokens, 10_000):
            part = rows[start : start + 10_000]
            part[:] = truth.sample(len(part), generator=rng).data.numpy()
        test = truth.sample(n_held_out, generator=rng)
        return TokenData(rows, test.data, truth, test.support)
    if data == "embedded":
        with np.load(RESULTS / "18_states.npz") as content:
            states = content["tokens"]
    else:
        path = cache_folder() / "states" / f"{STATES[data]}.npy"
        if not path.is_file():
            text = " --text addresses" if data == "addresses" else ""
            raise FileNotFoundError(f"{path} is missing: gsae data smollm2 --layer 6 --tokens 200000{text}")
        states = open_states(path)
    rows = states[usual(states)]
    if len(rows) < n_tokens + n_held_out:
        raise ValueError(f"n_tokens={n_tokens}, n_held_out={n_held_out}: expected at most {len(rows)} in all")
    return TokenData(rows[:n_tokens], torch.from_numpy(rows[-n_held_out:].astype(np.float32)))


def usual(states: np.ndarray) -> np.ndarray:
    """Which states have a norm of at most 3 times the median."""
    norms = np.concatenate([np.linalg.norm(block.astype(np.float32), axis=1) for block in np.array_split(states, 50)])
    return norms <= LARGEST_NORM * np.median(norms)


def load_names(kind: Literal["months", "days"]) -> Tensor:
    """States of names in sentences, (names, sentences, features), that `embed_states` wrote."""
    with np.load(RESULTS / "18_states.npz") as content:
        return torch.from_numpy(content[kind].astype(np.float32))


def new_sae(settings: FeatureSettings, tokens: TokenData, *, generator: Generator) -> GroupSAE:
    """One that was not trained, with centre, scale and threshold from the tokens to train on."""
    n, d = tokens.train.shape[1], settings.group_size
    k: float = settings.active_dimensions / d
    if settings.activation == "group top-k":
        k = round(k)
    model = ARCHITECTURES[settings.activation](
        n,
        2 * n // d,
        d,
        n_active=k,
        decoder=settings.decoder,
        tied=settings.tied,
        nonnegative=d == 1 and not settings.signed,
        revival=settings.revival,
        dead_after=10_000,
        generator=generator,
    )
    model.prepare(tokens.train)
    return model


def train_features(settings: FeatureSettings, tokens: TokenData, *, seed: int) -> GroupSAE:
    """Train one, and set its threshold so that 10,000 tokens of training use k groups on average."""
    rng = Generator().manual_seed(seed)
    model = new_sae(settings, tokens, generator=rng)
    rate = LEARNING_RATES[settings.activation]
    steps = {"epochs": settings.epochs, "batch_size": settings.batch_size, "learning_rate": rate}
    plan = TrainingSettings(**steps, progress=False)
    train(model, tokens.train, plan, generator=rng)
    model.calibrate(tokens.train)
    return model


def run_features(settings: FeatureSettings, *, seed: int = 0) -> list[dict[str, Any]]:
    """Train one and score it: one row.

    Raises:
        ValueError: settings that do not fit the data. FileNotFoundError: states that were not extracted.
    """
    torch.set_num_threads(1)
    tokens = load_tokens(settings.data, settings.n_tokens, settings.n_held_out)
    model = train_features(settings, tokens, seed=seed)
    return [
        score_features(model, tokens, seed=seed) | (_certificate(model, tokens.held_out) if settings.certify else {})
    ]


def run_seeds(settings: FeatureSettings, *, n_seeds: int = 5) -> list[dict[str, Any]]:
    """The same with seeds from 0: a row each, and how much of its groups the first one's are, matched.

    Raises:
        ValueError: as `run_features`. FileNotFoundError: states that were not extracted.
    """
    torch.set_num_threads(1)
    check_int("n_seeds", n_seeds)
    tokens = load_tokens(settings.data, settings.n_tokens, settings.n_held_out)
    rows, first = [], None
    for seed in range(n_seeds):
        model = train_features(settings, tokens, seed=seed)
        row = {"training_seed": seed} | score_features(model, tokens, seed=seed)
        weight = model.weight.detach()
        first = weight if first is None else first
        row["overlap"] = match_subspaces(first, weight, settings.group_size).overlap.mean().item()
        row["overlap_of_atoms"] = match_subspaces(first, weight, 1).overlap.mean().item()
        rows.append(row)
    return rows


@torch.no_grad()
def score_features(model: GroupSAE, tokens: TokenData, *, seed: int) -> dict[str, Any]:
    """What there is to know of one; see the functions below."""
    rng = Generator().manual_seed(seed + 1)
    weight, d = model.weight.detach(), model.group_size
    row: dict[str, Any] = dataclasses.asdict(score_sae(model, tokens.held_out, distortion=DISTORTION))
    row["of_components"] = _unexplained_by_components(tokens)
    row |= _shrinkage(model, tokens.held_out) | _distances(model, tokens.held_out)
    control = orthonormal_groups_dictionary(model.n_features, model.n_groups, d, generator=rng)
    if tokens.truth is not None and tokens.support is not None:
        return (
            row | _recovery(model, tokens) | {"found_random": found_groups(control, tokens.truth, d)[0].mean().item()}
        )
    shuffled = weight[:, torch.randperm(weight.shape[1], generator=rng)]
    for kind in ("months", "days"):
        row |= {f"{kind}_{name}": value for name, value in circle_scores(model, load_names(kind), rng).items()}
        points = load_names(kind).mean(dim=1)
        for name, other in (("shuffled", shuffled), ("random", control)):
            row[f"{kind}_{name}"] = largest_share(points, other, d)[0]
        row[f"{kind}_several_random"] = captured_by_several(points, control, d)
    return row


def circle_scores(model: GroupSAE, states: Tensor, rng: Generator) -> dict[str, Any]:
    """What one group of an SAE holds of names: see `name_scores`.

    used: the share of states in which the group is active.
    """
    weight, d = model.weight.detach(), model.group_size
    best = largest_share(states.mean(dim=1), weight, d)[1]
    used = active_groups(model.encode(states.flatten(0, 1)), d)[:, best]
    return name_scores(states.mean(dim=1), weight, d, rng) | {"used": used.float().mean().item()}


def name_scores(points: Tensor, dictionary: Dictionary, d: int, rng: Generator) -> dict[str, Any]:
    """What one group of a dictionary holds of the mean states of names, in the order of their cycle.

    captured: of what d dimensions can. several: what 8 dimensions of several groups hold, chosen one after the other.
    harmonic: the share of the means' variance that is in the group and in the first harmonic of their order;
    harmonic_permuted: the same, 95 of 100 permutations of the names have less. in_order: names whose neighbour by
    angle, in the group's two principal components, is the next or the one before.
    """
    share, best = largest_share(points, dictionary, d)
    inside = inside_group(points, dictionary, d, best)
    variance = (points - points.mean(dim=0)).double().square().sum()

    def harmonic(order: Tensor) -> float:
        energy = torch.fft.fft(inside[order], dim=0)[1].abs().square().sum() * 2 / len(order)
        return (energy / variance).item()

    orders = [torch.randperm(len(points), generator=rng) for _ in range(N_PERMUTATIONS)]
    return {
        "captured": share,
        "several": captured_by_several(points, dictionary, d),
        "harmonic": harmonic(torch.arange(len(points))),
        "harmonic_permuted": float(np.quantile([harmonic(order) for order in orders], 0.95)),
        "in_order": in_order(inside) if d > 1 else None,
    }


def inside_group(points: Tensor, dictionary: Dictionary, d: int, group: int) -> Tensor:
    """Coordinates of points, about their mean, in an orthonormal basis of one group: (points, d)."""
    basis = orthonormalize_groups(dictionary[:, group * d : (group + 1) * d], d)
    return (points - points.mean(dim=0)).double() @ basis.double()


def in_order(points: Tensor) -> int:
    """How many neighbours by angle, in two principal components, are neighbours in the cycle of the rows."""
    plane = torch.linalg.svd(points, full_matrices=False).Vh[:2].T
    x, y = (points @ plane).T
    order = torch.atan2(y, x).argsort()
    steps = (order - order.roll(1)) % len(points)
    return int(((steps == 1) | (steps == len(points) - 1)).sum())


def largest_share(points: Tensor, dictionary: Dictionary, d: int) -> tuple[float, int]:
    """The most that one group holds of points about their mean, of what d dimensions can, and which group it is."""
    captures = subspace_capture(points, dictionary, d)
    return captures.max().item() / largest_capture(points, min(d, len(points))), int(captures.argmax())


def captured_by_several(points: Tensor, dictionary: Dictionary, d: int) -> float:
    """The same of what 8 // d groups, or one, hold together at most, each chosen for what the ones before have left."""
    centred = (points - points.mean(dim=0)).double()
    groups, chosen, left = dictionary.double(), torch.empty(len(dictionary), 0, dtype=torch.float64), centred
    for _ in range(max(1, CAPTURED // d)):
        best = int(subspace_capture(left, groups, d, about="zero").argmax())
        chosen = torch.linalg.qr(torch.cat([chosen, groups[:, best * d : (best + 1) * d]], dim=1)).Q
        left = centred - centred @ chosen @ chosen.T
    share = 1 - (left.square().sum() / centred.square().sum()).item()
    return share / largest_capture(points, min(chosen.shape[1], len(points)))


def _shrinkage(model: GroupSAE, data: Tensor) -> dict[str, Any]:
    """By which factor the reconstruction should be larger (gain), and norms: of columns, of active codes, theta."""
    codes = model.encode(data)
    decoded = codes @ model.weight.T
    norms = group_norms(codes, model.group_size)
    target = data / model.scale - (0.0 if model.centre is None else model.centre)
    left = (target - decoded).square().sum()
    gain = (target * decoded).sum() / decoded.square().sum()
    thresholds = model.thresholds()
    return {
        "gain": gain.item(),
        "unexplained_after_gain": ((target - gain * decoded).square().sum() / left).item(),
        "column_norm": torch.linalg.vector_norm(model.weight, dim=0).mean().item(),
        "code_norm": norms[norms > 0].mean().item(),
        "threshold": None if thresholds is None else thresholds.mean().item(),
    }


def _distances(model: GroupSAE, data: Tensor) -> dict[str, Any]:
    """How much better codes of the same dictionary can be, on 300 tokens.

    pursued: what orthogonal matching pursuit by groups leaves with as many groups, over what the encoder leaves.
    excess: of the group lasso's objective over its certified minimum, mean, at the penalty that an optimal code with
    the same residuals would have: the mean norm of W_g^T r over its active groups.
    """
    data, d = data[:N_PURSUED], model.group_size
    codes, weight = model.encode(data), model.weight.detach()
    target = data / model.scale - (0.0 if model.centre is None else model.centre)
    residual = target - codes @ weight.T
    unit = normalize_columns(weight)
    count = max(1, round(float(model.n_active or 1)))
    support, values = block_pursuit(target, as_groups(unit, d), count)
    dense = values.new_zeros(len(data), model.n_groups, d)
    dense.scatter_(1, support.unsqueeze(2).expand_as(values), values)
    pursued = (target - dense.flatten(1) @ unit.T).square().sum() / residual.square().sum()
    active = active_groups(codes, d)
    penalty = group_norms(residual @ weight, d)[active].mean().item()
    excess = excess_objective(target, weight, codes, GroupPenalty(penalty, d, nonnegative=model.nonnegative), tol=1e-3)
    return {"pursued": pursued.item(), "excess": excess.mean().item(), "penalty": penalty}


def _certificate(model: GroupSAE, data: Tensor) -> dict[str, Any]:
    """What `certify` says of the decoder, see `certified_parts`."""
    target, weight, penalty = certified_parts(model, data)
    found = certify(target, weight, penalty, model.group_size)
    mixed = [fact.value for fact in found.facts if fact.quantity is Quantity.MIXED_GROUPS]
    return {
        "doubled": found[Quantity.DOUBLED_GROUPS].value / model.n_groups,
        "nearest_spans": found[Quantity.NEAREST_SPANS].value,
        "mixed": mixed[0] / model.n_groups if mixed else None,
    }


@torch.no_grad()
def certified_parts(model: GroupSAE, data: Tensor) -> tuple[Tensor, Dictionary, float]:
    """The decoder as a tied network: centred data, its weight, and the penalty at which it uses k groups a token."""
    data, d = data[:N_CERTIFIED], model.group_size
    target = data / model.scale - (0.0 if model.centre is None else model.centre)
    norms = group_norms(target @ model.weight, d).flatten()
    penalty = norms.topk(round(float(model.n_active or 1) * len(data))).values[-1].item()
    return target, model.weight.detach(), penalty


def found_groups(dictionary: Dictionary, truth: SyntheticFeatures, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each true group: whether it is found, the largest share of it in a learned group, and in which."""
    captures = group_captures(truth.groups, dictionary, d).max(dim=1)
    possible = torch.tensor([min(1.0, d / size) for size in truth.group_sizes])
    return (captures.values / possible >= FOUND).float(), captures.values / possible, captures.indices


def _recovery(model: GroupSAE, tokens: TokenData) -> dict[str, Any]:
    """How much of the planted groups is found, of what d dimensions can hold, by their dimension; and of supports.

    found_frequent: of the 100 most frequent groups. f1: of a true group's tokens and those in which the learned group
    that has most of it is active, mean.
    """
    truth, support = tokens.truth, tokens.support
    if truth is None or support is None:
        raise ValueError("tokens: expected a truth")
    found, share, best = found_groups(model.weight.detach(), truth, model.group_size)
    active = torch.cat([active_groups(model.encode(part), model.group_size) for part in tokens.held_out.split(2000)])
    learned = active[:, best]
    both, all_of = (learned & support).sum(dim=0), learned.sum(dim=0) + support.sum(dim=0)
    row = {
        "found": found.mean().item(),
        "found_frequent": found[:N_FREQUENT].mean().item(),
        "f1": (2 * both / all_of.clamp(min=1)).mean().item(),
    }
    sizes = torch.tensor(truth.group_sizes)
    return row | {f"share_of_{size}": share[sizes == size].mean().item() for size in (1, 2, 3, 4)}


@cache
def _unexplained_by_components(tokens: TokenData) -> float:
    """What 32 principal components of the training tokens leave of the others."""
    rows = torch.from_numpy(tokens.train[:: max(len(tokens.train) // 20_000, 1)].astype(np.float64))
    mean = rows.mean(dim=0)
    leading = torch.linalg.svd((rows - mean).T @ (rows - mean)).U[:, :ACTIVE_DIMENSIONS]
    data = tokens.held_out.double() - mean
    centred = tokens.held_out.double() - tokens.held_out.double().mean(dim=0)
    return ((data - data @ leading @ leading.T).square().sum() / centred.square().sum()).item()


def plan() -> list[FeatureSettings]:
    """The grid: sizes and activations with unit columns, then one weight for both sides and other constraints.

    Planted features are without the group top-k, which is the batch top-k up to how groups are counted.
    """
    base = [
        FeatureSettings(data, activation, d, certify=activation == "batch top-k" and d <= 2)  # type: ignore[arg-type]
        for data, d, activation in itertools.product(DATA[:2], SIZES, ACTIVATIONS)
        if data == "smollm2" or activation != "group top-k"
    ]
    relu = FeatureSettings(activation="group ReLU")
    for d, tied, decoder in (
        (d, t, c) for d in (1, 2, 4) for t, c in ((True, "unit"), (True, "free"), (False, "free"))
    ):
        base.append(dataclasses.replace(relu, group_size=d, tied=tied, decoder=decoder))  # type: ignore[arg-type]
    return base + [FeatureSettings(group_size=d, decoder="orthonormal") for d in (2, 4, 8)]
