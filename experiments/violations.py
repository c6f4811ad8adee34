"""Leaving the model: one violation at a time, what is still recovered, and whether the certificate says so.

Training sees data alone, and the certificate is the one without a truth. Strength 0 is the model, for every violation.
"""

import dataclasses
import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from scipy.stats import t as student
from torch import Generator, Tensor

from experiments.recovery import FOUND
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.autoencoder import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.dictionary import Dictionary, as_groups, orthonormalize_groups
from gsae_lib.generative import uniform_supports
from gsae_lib.groups import active_groups
from gsae_lib.initialization import GroupsMissingWarning, initial_dictionary
from gsae_lib.theory.certificate import Certificate, certify
from gsae_lib.theory.leakage import leak_tangent
from gsae_lib.theory.population import Population
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
Mend = Literal["nothing", "target sparsity", "trimming"]
TRIMMED = 0.1  # of the samples, those of largest norm
RECOVERED = 0.95  # share of the groups to be found for a "yes" to be right; of the supports; of spans that repeat
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
class ViolationSettings:
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
            "trimming" drops the tenth of the training samples that have the largest norms.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    violation: Violation = "leak"
    strength: float = 0.0
    n_features: int = 150
    n_groups: int = 30
    group_size: int = 2
    n_active: int = 2
    n_samples: int = 5000
    snr_db: float = 15.0
    smallest_norm: float = 4.0
    largest_norm: float = 5.0
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
        check_real("snr_db", self.snr_db, low=-300.0, high=300.0)
        _ = self.population

    @property
    def population(self) -> Population:
        """The population of the data without the violation."""
        sizes = (self.n_features, self.n_groups, self.group_size, self.n_active)
        return Population.at_snr(sizes, (self.smallest_norm, self.largest_norm), self.snr_db)

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
    two has. rms_angle: of these angles to the nearest learned groups, degrees. exact: share of the samples of the
    model whose support is right, read off those groups. predicted_angle: where there is a prediction, else nan.
    dead: groups never active. says: what the certificate says, and doubts: what it says no to. repeated: share of the
    learned groups that a second network, from another start on half of the data, has within 15 degrees. recovered:
    whether found is at least 0.95. right: says equals recovered. false_yes: the certificate says yes, and groups are
    not recovered; false_yes_supports: it says yes, and exact is below 0.95; false_yes_repeated: it says yes, spans
    repeat, and groups are not recovered. seconds: of all.
    """

    found: float
    rms_angle: float
    exact: float
    predicted_angle: float
    dead: int
    says: bool
    doubts: str
    repeated: float
    recovered: bool
    right: bool
    false_yes: bool
    false_yes_supports: bool
    false_yes_repeated: bool
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
    """What a certificate without a truth says no to: its facts that do not hold, and windows without the penalty."""
    doubts = [fact.quantity.name for fact in certificate.facts if fact.holds is False]
    return doubts + [f"window {w.name}" for w in certificate.windows if certificate.penalty not in w]


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
    certificate = certify(test.data, weight, model.penalty.item(), settings.group_size)
    half = data[torch.randperm(len(data), generator=rng)[: len(data) // 2]]
    try:
        repeated = _repeated(weight, _trained(settings, half, rng).weight.detach(), settings.group_size)
    except TrainingError:
        repeated = 0.0
    return [_scored(settings, groups, test, model, certificate_says(certificate), repeated, clock)]


def _repeated(one: Dictionary, other: Dictionary, size: int) -> float:
    bases = [*as_groups(orthonormalize_groups(one, size), size)]
    angles, _ = _nearest(bases, orthonormalize_groups(other, size), size)
    return sum(bool(a.max() < FOUND) for a in angles) / len(bases)


def _failed(reason: str, clock: float) -> ViolationRun:
    """Training that ends with an error is a no, and right."""
    nan = math.nan
    seconds = time.perf_counter() - clock
    return ViolationRun(0.0, nan, 0.0, nan, 0, False, reason, 0.0, False, True, False, False, False, seconds)


def _trained(settings: ViolationSettings, data: Tensor, rng: Generator) -> GroupSparseAutoencoder:
    count = max(1, round(settings.n_groups * 2 ** settings.get("wrong count")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupsMissingWarning)
        start = initial_dictionary(data, count, settings.group_size, settings.start, generator=rng)
    sizes = (settings.n_features, count, settings.group_size)
    model = GroupSparseAutoencoder(*sizes, settings.penalty, step_size=1.0, dictionary=start)
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
    doubts: list[str],
    repeated: float,
    clock: float,
) -> ViolationRun:
    predicted = math.nan
    if settings.violation == "leak" and settings.n_active == 1 and settings.strength < 1:
        leak = settings.strength * math.sqrt(settings.population.sigma2)
        predicted = math.degrees(math.atan(leak_tangent(settings.population, leak, settings.n_samples)))
    angles, nearest = _nearest(groups, orthonormalize_groups(model.weight, settings.group_size), settings.group_size)
    found = sum(bool(a.max() < FOUND) for a in angles) / len(groups)
    active = active_groups(model.encode(test.data), settings.group_size)
    right = (active[:, nearest] == test.support).all(dim=1)[test.modelled]
    exact = right.double().mean().item() if len(right) else 0.0
    says, recovered = not doubts, found >= RECOVERED
    return ViolationRun(
        found=found,
        rms_angle=math.degrees(torch.cat(angles).square().mean().sqrt().item()),
        exact=exact,
        predicted_angle=predicted,
        dead=int((~active.any(dim=0)).sum()),
        says=says,
        doubts=", ".join(doubts),
        repeated=repeated,
        recovered=recovered,
        right=says == recovered,
        false_yes=says and not recovered,
        false_yes_supports=says and exact < RECOVERED,
        false_yes_repeated=says and repeated >= RECOVERED and not recovered,
        seconds=time.perf_counter() - clock,
    )


def _nearest(groups: Sequence[Tensor], learned: Dictionary, size: int) -> tuple[list[Tensor], list[int]]:
    """For each true group its angles to the learned one with the smallest largest angle, and which that is."""
    bases, angles, nearest = as_groups(learned, size), [], []
    for basis in groups:
        cosines = torch.linalg.svdvals(bases.mT @ basis.to(bases)).clamp(max=1.0)
        best = int(cosines[:, -1].argmax())
        nearest.append(best)
        angles.append(cosines[best].arccos())
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
    mends: dict[str, Callable[[ViolationSettings], ViolationSettings]] = {
        "target sparsity": lambda one: dataclasses.replace(one, mend="target sparsity"),
        "trimming": lambda one: dataclasses.replace(one, mend="trimming"),
    }
    for name, change in mends.items():
        for violation, strengths in STRENGTHS.items():
            one = dataclasses.replace(base, violation=violation, strength=strengths[-2])
            points.append({"map": f"mended by {name}", "settings": change(one)})
    return points
