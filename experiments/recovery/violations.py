"""Leaving the model: one violation at a time, what is still recovered, and whether the certificate says so.

Training sees data alone, and the certificate is the one without a truth. Strength 0 is the model, for every violation.
"""

import dataclasses
import itertools
import math
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, get_args

import pandas as pd
import torch
from scipy.stats import t as student
from torch import Generator, Tensor

from experiments.recovery.recovery import FOUND
from experiments.simulation import Simulation
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import as_groups, orthonormalize_groups
from gsae_lib.generative import uniform_supports
from gsae_lib.groups import active_groups
from gsae_lib.learning import GroupsMissingWarning, initial_dictionary
from gsae_lib.networks import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.theory import Certificate, Quantity, certify
from gsae_lib.theory.leakage import leak_tangent
from gsae_lib.training import TrainingError, TrainingSettings, train

Violation = Literal[
    "leak",
    "larger groups",
    "smaller groups",
    "overlap",
    "together",
    "frequencies",
    "small norms",
    "heavy tails",
    "coloured noise",
    "outliers",
    "wrong count",
    "no structure",
]
VIOLATIONS = get_args(Violation)
Mend = Literal["nothing", "target sparsity", "trimming", "one size up", "twice the groups"]
TRIMMED = 0.1  # of the samples, those of largest norm
RECOVERED = 0.95  # share of the true groups to be found, and of the learned ones to be true, for a "yes" to be right
STRENGTHS: dict[str, tuple[float, ...]] = {
    "leak": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5),
    "larger groups": (0.0, 0.1, 0.25, 0.5, 1.0),
    "smaller groups": (0.0, 0.1, 0.25, 0.5, 1.0),
    "overlap": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "together": (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
    "frequencies": (0.0, 0.5, 1.0, 1.5, 2.0),
    "small norms": (0.0, 0.25, 0.5, 0.75, 1.0),
    "heavy tails": (0.0, 0.25, 0.5, 1.0, 2.0),
    "coloured noise": (0.0, 0.5, 1.0, 1.5, 2.0),
    "outliers": (0.0, 0.003, 0.01, 0.03, 0.1),
    "wrong count": (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0),
    "no structure": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
}


@dataclasses.dataclass(frozen=True)
class ViolationSettings(Simulation):
    """One violation at one strength.

    Args:
        violation, strength: "leak": standard deviation of an entry of silent groups, in shares of that of active ones.
            "larger groups", "smaller groups": share of the groups that have a dimension more, or less, than assumed.
            "overlap": cosine between a direction of each group and one of the next. "together": chance that a group's
            partner is active with it, in place of any other. "frequencies": exponent s of frequencies 1 / g^s (Zipf).
            "small norms": norms are uniform from (1 - strength) times the smallest one. "heavy tails": noise of
            Student's law with 2 + 1 / strength degrees of freedom, of the same variance. "coloured noise": its variance
            falls like k^-strength, of the same total. "outliers": share of samples that are a random direction of ten
            times the usual length. "wrong count": log2 of the number of groups learned over the true one. "no
            structure": share of samples that are Gaussian, with the second moment of the others.
        n_features, n_groups, group_size, n_active, smallest_norm, largest_norm, snr_db: of the data, with random
            orthonormal groups.
        start: of `initial_dictionary`. penalty, epochs, learning_rate: of the network.
        mend: "target sparsity" sets the penalty so that n_active groups are active on average, and trains again;
            "trimming" drops the tenth of the training samples that have the largest norms; "one size up" learns groups
            of a dimension more, "twice the groups" twice as many.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_features: int = 150
    n_groups: int = 30
    group_size: int = 2
    n_active: int = 2
    n_samples: int = 5000
    snr_db: float = 15.0
    violation: Violation = "leak"
    strength: float = 0.0
    orthonormal: ClassVar[bool] = True
    start: Literal["pairs", "k-subspaces", "data"] = "pairs"
    penalty: float = 3.0
    epochs: int = 40
    learning_rate: float = 0.003
    mend: Mend = "nothing"

    def __post_init__(self) -> None:
        check_choice("violation", self.violation, VIOLATIONS)
        check_choice("mend", self.mend, get_args(Mend))
        check_choice("start", self.start, ("pairs", "k-subspaces", "data"))
        check_real("strength", self.strength, low=-2.0 if self.violation == "wrong count" else 0.0, high=5.0)
        shares = ("larger groups", "smaller groups", "overlap", "together", "small norms", "outliers", "no structure")
        if self.violation in shares:
            check_real("strength", self.strength, high=1.0)
        check_int("epochs", self.epochs)
        super().__post_init__()

    @property
    def learned_size(self) -> int:
        """Dimension of the groups that are learned."""
        return self.group_size + (self.mend == "one size up")

    @property
    def learned_groups(self) -> int:
        """How many groups are learned."""
        doubled = self.mend == "twice the groups"
        return max(1, round(self.n_groups * 2 ** (self.get("wrong count") + doubled)))

    def get(self, violation: str, default: float = 0.0) -> float:
        """The strength of a violation: that of the setting if it is the one, else `default`."""
        return self.strength if self.violation == violation else default


@dataclasses.dataclass(frozen=True)
class ViolatedSample:
    """Data, the support of the true groups, and which samples follow the model at all: (samples,)."""

    data: Tensor
    support: Tensor
    modelled: Tensor


@dataclasses.dataclass(frozen=True)
class ViolationRun:
    """What became of one point.

    found: share of the true groups with a learned one within 15 degrees, all principal angles that the smaller of the
    two has. genuine: share of the learned groups, those ever active, that are so near to a true one. rms_angle: of the
    angles from true groups to the nearest learned ones, degrees. exact: share of the samples of the model whose support
    is right, read off those groups. predicted_angle: where there is a prediction, else nan. dead: groups never active.
    repeated: share of the learned groups that a second network has, from another start on half of the data. says: the
    certificate has no objection; says_twice: nor has it one against what is repeated. doubts: its objections. seconds:
    of all.
    """

    found: float
    genuine: float
    rms_angle: float
    exact: float
    predicted_angle: float
    dead: int
    repeated: float
    says: bool
    says_twice: bool
    doubts: str
    seconds: float


def draw_groups(settings: ViolationSettings, *, generator: Generator) -> list[Tensor]:
    """Orthonormal bases of the true groups, (features, size) each; sizes differ for groups larger or smaller."""
    d, count = settings.group_size, settings.n_groups
    sizes = [d] * count
    for name, size in (("larger groups", d + 1), ("smaller groups", max(d - 1, 1))):
        changed = round(settings.get(name) * count)
        sizes[:changed] = [size] * changed
    bases = []
    for size in sizes:
        drawn = torch.randn(settings.n_features, size, generator=generator)
        if bases and settings.violation == "overlap":
            cosine = settings.strength
            drawn = torch.linalg.qr(drawn).Q
            last = bases[-1][:, -1]
            across = drawn[:, 0] - last * (last @ drawn[:, 0])
            drawn[:, 0] = cosine * last + math.sqrt(1 - cosine**2) * across / across.norm()
        bases.append(torch.linalg.qr(drawn).Q)
    return bases


def draw_sample(
    settings: ViolationSettings, groups: Sequence[Tensor], n_samples: int, *, generator: Generator
) -> ViolatedSample:
    """Samples of the true groups, with the violation."""
    support = _supports(settings, n_samples, generator)
    low = settings.smallest_norm * (1 - settings.get("small norms"))
    norms = low + (settings.largest_norm - low) * torch.rand(support.shape, generator=generator)
    deviation = settings.get("leak") * math.sqrt(settings.population.sigma2)
    data = torch.zeros(n_samples, settings.n_features)
    for g, basis in enumerate(groups):
        drawn = torch.randn(n_samples, basis.shape[1], generator=generator)
        active = norms[:, g : g + 1] * drawn / drawn.norm(dim=1, keepdim=True)
        data += torch.where(support[:, g : g + 1], active, deviation * drawn) @ basis.T
    data += settings.population.noise_std * _noise(settings, data.shape, generator)
    modelled = torch.ones(n_samples, dtype=torch.bool)
    for name in ("outliers", "no structure"):
        chosen = torch.rand(n_samples, generator=generator) < settings.get(name)
        if settings.violation == name and bool(chosen.any()):
            modelled = ~chosen
            data[chosen] = _replaced(name, data, int(chosen.sum()), generator)
    return ViolatedSample(data, support, modelled)


def _supports(settings: ViolationSettings, n_samples: int, generator: Generator) -> Tensor:
    count, active = settings.n_groups, settings.n_active
    if settings.violation == "frequencies":
        weights = torch.arange(1, count + 1) ** -settings.strength
        chosen = torch.multinomial(weights.expand(n_samples, count), active, generator=generator)
        return torch.zeros(n_samples, count, dtype=torch.bool).scatter_(1, chosen, True)
    support = uniform_supports(n_samples, count, active, generator=generator)
    if settings.violation == "together":
        together = torch.rand(n_samples, generator=generator) < settings.strength
        pair = torch.randint(count // 2, (n_samples,), generator=generator)
        paired = torch.zeros_like(support)
        rows = torch.arange(n_samples)
        paired[rows, 2 * pair] = paired[rows, 2 * pair + 1] = True
        support = torch.where(together.unsqueeze(1), paired, support)
    return support


def _noise(settings: ViolationSettings, shape: torch.Size, generator: Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if settings.get("heavy tails") > 0:
        freedom = 2 + 1 / settings.strength
        chance = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-15, 1 - 1e-15)
        noise = torch.from_numpy(student.ppf(chance.numpy(), freedom) * math.sqrt((freedom - 2) / freedom)).float()
    if settings.violation == "coloured noise":
        scale = torch.arange(1, shape[1] + 1) ** (-settings.strength / 2)
        noise = noise * scale / scale.square().mean().sqrt()
    return noise


def _replaced(name: str, data: Tensor, count: int, generator: Generator) -> Tensor:
    drawn = torch.randn(count, data.shape[1], generator=generator)
    if name == "outliers":
        length = data.norm(dim=1).mean()
        return 10 * length * drawn / drawn.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(data.T @ data / len(data))
    return drawn * values.clamp(min=0).sqrt() @ vectors.T


def certificate_says(certificate: Certificate) -> list[str]:
    """What a certificate without a truth says no to: its facts that do not hold; its window always does."""
    return [fact.quantity.name for fact in certificate.facts if fact.holds is False]


def run_violation(settings: ViolationSettings, *, seed: int) -> list[ViolationRun]:
    """Draw groups and data, start and train from the data alone, ask the certificate, then look at the truth.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng, clock = Generator().manual_seed(seed), time.perf_counter()
    groups = draw_groups(settings, generator=rng)
    data = draw_sample(settings, groups, settings.n_samples, generator=rng).data
    test = draw_sample(settings, groups, 2000, generator=rng)
    if settings.mend == "trimming":
        data = data[data.norm(dim=1).argsort()[: round((1 - TRIMMED) * len(data))]]
    try:
        model = _trained(settings, data, rng)
    except TrainingError as error:
        return [_failed(str(error).partition(";")[0], clock)]
    weight = model.weight.detach()
    half = data[torch.randperm(len(data), generator=rng)[: len(data) // 2]]
    try:
        second = _trained(settings, half, rng).weight.detach()
    except TrainingError:
        second = torch.eye(*weight.shape)  # repeats nothing
    certificate = certify(test.data, weight, model.penalty.item(), settings.learned_size, second_dictionary=second)
    return [_scored(settings, groups, test, model, certificate, clock)]


def _failed(reason: str, clock: float) -> ViolationRun:
    """Training that ends with an error finds nothing, and is an objection."""
    nan = math.nan
    return ViolationRun(0.0, 0.0, nan, 0.0, nan, 0, 0.0, False, False, reason, time.perf_counter() - clock)


def _trained(settings: ViolationSettings, data: Tensor, rng: Generator) -> GroupSparseAutoencoder:
    sizes = (settings.learned_groups, settings.learned_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupsMissingWarning)
        start = initial_dictionary(data, *sizes, settings.start, generator=rng)
    model = GroupSparseAutoencoder(settings.n_features, *sizes, settings.penalty, step_size=1.0, dictionary=start)
    plan = TrainingSettings(settings.epochs, settings.learning_rate, batch_size=500, progress=False)
    train(model, data, plan, generator=rng)
    if settings.mend == "target sparsity":
        set_target_sparsity(model, data, settings.n_active)
        train(model, data, plan, generator=rng)
    return model


@torch.no_grad()
def _scored(
    settings: ViolationSettings,
    groups: Sequence[Tensor],
    test: ViolatedSample,
    model: GroupSparseAutoencoder,
    certificate: Certificate,
    clock: float,
) -> ViolationRun:
    predicted = math.nan
    if settings.violation == "leak" and settings.n_active == 1 and settings.strength < 1:
        leak = settings.strength * math.sqrt(settings.population.sigma2)
        predicted = math.degrees(math.atan(leak_tangent(settings.population, leak, settings.n_samples)))
    size = settings.learned_size
    angles, nearest = _nearest(groups, as_groups(orthonormalize_groups(model.weight, size), size))
    active = active_groups(model.encode(test.data), size)
    alive = active.any(dim=0)
    learned = as_groups(orthonormalize_groups(model.weight, size), size)[alive]
    back, _ = _nearest([*learned], groups)
    right = (active[:, nearest] == test.support).all(dim=1)[test.modelled]
    doubts = certificate_says(certificate)
    return ViolationRun(
        found=sum(bool(a.max() < FOUND) for a in angles) / len(groups),
        genuine=sum(bool(a.max() < FOUND) for a in back) / max(len(back), 1),
        rms_angle=math.degrees(torch.cat(angles).square().mean().sqrt().item()),
        exact=right.double().mean().item() if len(right) else 0.0,
        predicted_angle=predicted,
        dead=int((~alive).sum()),
        repeated=certificate[Quantity.REPEATED_SPANS].value,
        says=doubts in ([], [Quantity.REPEATED_SPANS.name]),
        says_twice=not doubts,
        doubts=", ".join(doubts),
        seconds=time.perf_counter() - clock,
    )


def _nearest(groups: Sequence[Tensor], others: Iterable[Tensor]) -> tuple[list[Tensor], list[int]]:
    """For each group its angles to the other one with the smallest largest angle, and which that is.

    Of orthonormal bases (features, size), with all angles that the smaller of two has.
    """
    others, angles, nearest = [*others], [], []
    for basis in groups:
        each = [torch.linalg.svdvals(other.mT @ basis.to(other)).clamp(max=1.0).arccos() for other in others]
        nearest.append(min(range(len(each)), key=lambda k: each[k].max().item()))
        angles.append(each[nearest[-1]])
    return angles, nearest


def run_map_point(map: str, settings: ViolationSettings, *, seed: int) -> list[ViolationRun]:
    """`run_violation` for the map of this name, which changes nothing: maps share settings.

    Raises:
        ValueError: as `run_violation`.
    """
    return run_violation(settings, seed=seed)


def plan() -> list[dict[str, Any]]:
    """The settings of every map of chapter 20: each violation over its strengths, and what mends it."""
    base = ViolationSettings()
    points: list[dict[str, Any]] = []
    for violation, strengths in STRENGTHS.items():
        for strength, active in itertools.product(strengths, (1, 2)):
            one = dataclasses.replace(base, violation=violation, strength=strength, n_active=active)
            points.append({"map": "violations", "settings": one})
    for mend, (violation, strengths) in itertools.product(get_args(Mend)[1:], STRENGTHS.items()):
        strength = -0.5 if violation == "wrong count" else strengths[-2]
        one = dataclasses.replace(base, violation=violation, strength=strength, mend=mend)
        points.append({"map": "mended", "settings": one})
    return points


def breaking_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The smallest strength of each violation from which less than 0.95 is found, or right, in the mean over seeds.

    A row for each violation, two for a wrong count; columns (score, active groups): "found" of the true groups,
    "genuine" of the learned ones, "exact" of the supports. NaN: at no strength of the rows.
    """
    table = {}
    for name, one in rows.groupby("violation", sort=False):
        sides = {name: one} if name != "wrong count" else {
            "wrong count, fewer": one[one["strength"] <= 0], "wrong count, more": one[one["strength"] >= 0]
        }  # fmt: skip
        for side, chosen in sides.items():
            means = chosen.assign(strength=chosen["strength"].abs()).pivot_table(
                ["found", "genuine", "exact"], "strength", "n_active"
            )
            table[side] = (means < RECOVERED).apply(lambda low: low.index[low].min() if low.any() else math.nan)
    return pd.DataFrame(table).T.rename_axis(index="violation")


def mend_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of what is found and of supports that are right: violations by mends, "nothing" first.

    At the strengths, and with as many active groups, as the mends were tried.
    """
    keys = ["violation", "strength", "n_active"]
    tried = rows[rows["mend"] != "nothing"]
    same = rows[rows["mend"] == "nothing"].merge(tried[keys].drop_duplicates(), on=keys)
    means = pd.concat([same, tried]).pivot_table(["found", "exact"], ["violation", "strength"], "mend", sort=False)
    return means.reindex(columns=[(score, mend) for score in ("found", "exact") for mend in get_args(Mend)])
