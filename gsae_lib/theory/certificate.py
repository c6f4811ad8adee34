"""A certificate: every constant, assumption, window, rate, norm and floor of the theory, for one trained model."""

import dataclasses
import enum
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from gsae_lib._checks import (
    check_devices,
    check_matrix,
    check_real,
    check_samples,
    describe,
    without_autocast,
)
from gsae_lib._extras import require
from gsae_lib.dictionary import Dictionary, as_groups, block_coherence, normalize_columns, orthonormalize_groups
from gsae_lib.generative import GroupSparseSample
from gsae_lib.groups import GroupLayout, Groups, group_norms, to_groups
from gsae_lib.learning.pairwise import code_anisotropy
from gsae_lib.metrics import principal_angles
from gsae_lib.penalty import GroupPenalty
from gsae_lib.subspaces import match_subspaces, span_products
from gsae_lib.theory.floors import coherence_bias
from gsae_lib.theory.gradient import gradient_alignment, horizontal, sample_gradient
from gsae_lib.theory.population import ORTHONORMAL_TOLERANCE, Population, orthonormality
from gsae_lib.theory.rates import equilibrium_norm, hessian_spectrum, largest_step, plain_rates
from gsae_lib.theory.windows import (
    Window,
    crosstalk_bound,
    predicted_activity,
    predicted_success,
    signal_bound,
    support_recovery_windows,
)

if TYPE_CHECKING:
    import pandas

DOUBLED = 0.7  # mean squared cosine of two spans that are one
SAME_SPAN, REPEATED = 0.9, 0.95  # mean squared cosine of spans of two runs, and the share of groups that have one
LANCZOS = 8  # vectors that the largest curvature is found with
NEAR = 0.1  # of the samples may have a response near the penalty: about half of these supports are wrong
SECTIONS = ("dictionary", "data", "assumptions", "support", "convergence")


class Quantity(enum.StrEnum):
    """What a certificate may hold, by section.

    In any case "dictionary" (repeated groups with a second one), anisotropy and mixed groups, and the stable step;
    without a truth the rest of "data", and what is said of active data under "convergence"; with one all else.
    """

    section: str

    def __new__(cls, section: str, label: str) -> "Quantity":
        """A member is its label, and knows its section."""
        member = str.__new__(cls, label)
        member._value_, member.section = label, section
        return member

    SMALLEST_NORM = "dictionary", "column norm, smallest"
    MEAN_NORM = "dictionary", "column norm, mean"
    LARGEST_NORM = "dictionary", "column norm, largest"
    GROUP_GRAM = "dictionary", "in-group Gram matrix of unit columns, off identity"
    NEAREST_SPANS = "dictionary", "cosine of the nearest two spans, d mu_B"
    DOUBLED_GROUPS = "dictionary", "doubled groups (mean squared cosine over 0.7)"
    REPEATED_SPANS = "dictionary", "groups that the second dictionary repeats, at least"
    ACTIVE_GROUPS = "data", "active groups a sample, mean"
    DEAD_GROUPS = "data", "dead groups (active in no sample)"
    INACTIVE_SAMPLES = "data", "samples with no active group, share"
    NEAR_PENALTY = "data", "samples with a response within 10 % of the penalty, at most"
    ANISOTROPY = "data", "anisotropy of a group's codes, worst; at most by chance"
    MIXED_GROUPS = "data", "groups with codes less isotropic than by chance"
    SMALLEST_CODE_NORM = "assumptions", "1: smallest norm of an active group, B_min"
    LARGEST_CODE_NORM = "assumptions", "1: largest norm of an active group, B_max"
    SUPPORT_SIZES = "assumptions", "2: active groups a sample, least and most equal"
    SUPPORT_SHARES = "assumptions", "2: P(g in S), largest deviation"
    SECOND_MOMENT = "assumptions", "3: second moment of an active entry (printed: 1)"
    WHITENESS = "assumptions", "3: whiteness of active groups, deviation"
    ORTHONORMALITY = "assumptions", "4: orthonormal groups of the dictionary, deviation"
    DISTANCE = "support", "delta, largest ||W_g - A*_g||_F, unit columns"
    BLOCK_COHERENCE = "support", "block coherence of the truth, d mu_B"
    WEAKEST_SIGNAL = "support", "Prop. 1: weakest signal, at least rho B_min (1 - delta)"
    LARGEST_CROSSTALK = "support", "Prop. 2, corrected: largest cross-talk, at most"
    ACTIVITY = "support", "active groups a sample; predicted for random directions"
    EXACT_SUPPORTS = "support", "supports exactly right; predicted for random directions"
    SMALLEST_EIGENGAP = "convergence", "eigengap of a group's active data, smallest"
    LARGEST_EIGENGAP = "convergence", "eigengap of a group's active data, largest"
    LEADING_SPAN = "convergence", "angle to the leading span of its active data, rms"
    RIEMANNIAN_STEP = "convergence", "largest stable Riemannian step, one active group"
    LARGEST_ANGLE = "convergence", "principal angles to the truth, largest, rad"
    KAPPA = "convergence", "kappa, the rate of spans of orthonormal groups"
    EQUILIBRIUM_NORM = "convergence", "column norm; predicted at rest for plain gradient descent"
    SPAN_RATE = "convergence", "rate of spans here; predicted at that norm"
    TANGENT = "convergence", "tangent of angles, rms; coherence bias below it"
    CURVATURE = "convergence", "largest curvature predicted, orthogonal truth"
    PREDICTED_STEP = "convergence", "largest stable step predicted"
    STABLE_STEP = "convergence", "largest stable step of plain gradient descent on this sample"


@dataclasses.dataclass(frozen=True)
class Fact:
    """One line: what was measured, what the theory says it should be or be bounded by, and whether that holds.

    reference and holds are None where there is nothing to compare with.
    """

    quantity: Quantity
    value: float
    reference: float | None = None
    holds: bool | None = None


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What the theory can say of one dictionary, one threshold and one sample; made by `certify`.

    facts: in the order of SECTIONS. windows: for the penalty. inactive_responses, active_responses: deciles,
    from 0 to 100 %, of the norms ||W_g^T y|| of groups that should be inactive or active (with a truth), or that are.
    """

    penalty: float
    n_samples: int
    facts: tuple[Fact, ...]
    windows: tuple[Window, ...]
    inactive_responses: tuple[float, ...]
    active_responses: tuple[float, ...]

    def __getitem__(self, quantity: Quantity) -> Fact:
        """The fact about a quantity; KeyError if this certificate does not have it."""
        for fact in self.facts:
            if fact.quantity is quantity:
                return fact
        known = ", ".join(fact.quantity.name for fact in self.facts)
        raise KeyError(f"no fact about {quantity!r}; there are {known}")

    def table(self) -> "pandas.DataFrame":
        """Facts and windows as a table: section, quantity, value, reference, holds."""
        require("pandas", "tables")
        import pandas as pd

        return pd.DataFrame(self._lines(), columns=["section", "quantity", "value", "reference", "holds"])

    def __str__(self) -> str:
        words = {True: "yes", False: "NO", None: ""}
        lines = [f"certificate for penalty {self.penalty:g}, {self.n_samples} samples"]
        previous = ""
        for section, quantity, value, reference, holds in self._lines():
            if section != previous:
                lines.append(section)
                previous = section
            shown = "" if reference is None else f"{reference:.4g}"
            lines.append(f"  {quantity:<58} {value:>10.4g} {shown:>10} {words[holds]:>4}".rstrip())
        return "\n".join(lines)

    def _lines(self) -> list[tuple[str, str, float, float | None, bool | None]]:
        """The rows of the table: all facts, and one row for each window, whether the penalty is in it."""
        rows = [(f.quantity.section, f.quantity.value, f.value, f.reference, f.holds) for f in self.facts]
        rows += [
            ("support", f"window: {w.name} [{w.lower:.3g}, {w.upper:.3g})", self.penalty, None, self.penalty in w)
            for w in self.windows
        ]
        return sorted(rows, key=lambda row: SECTIONS.index(row[0]))

    def to_json(self) -> str:
        """As JSON, read back by `from_json` to an equal certificate. What is unbounded, a step or a window, is null."""
        fields = dataclasses.asdict(self)
        for row, key in [(x, "value") for x in fields["facts"]] + [(x, "upper") for x in fields["windows"]]:
            row[key] = None if row[key] == math.inf else row[key]
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Read what `to_json` wrote.

        Raises:
            ValueError: text that is not such JSON.
        """
        try:
            fields = json.loads(text)
            for row, key in [(x, "value") for x in fields["facts"]] + [(x, "upper") for x in fields["windows"]]:
                row[key] = math.inf if row[key] is None else row[key]
            facts = (fact | {"quantity": _QUANTITIES[fact["quantity"]]} for fact in fields["facts"])
            fields["facts"] = tuple(Fact(**fact) for fact in facts)
            fields["windows"] = tuple(Window(**window) for window in fields["windows"])
            for name in ("inactive_responses", "active_responses"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"text: not a certificate: {error}") from error


_QUANTITIES = {quantity.value: quantity for quantity in Quantity}


@without_autocast
@torch.no_grad()
def certify(
    sample: GroupSparseSample | Float[Tensor, "samples features"],
    dictionary: Dictionary,
    penalty: float,
    groups: Groups,
    *,
    weights: Tensor | Sequence[float] | None = None,
    true_dictionary: Dictionary | None = None,
    second_dictionary: Float[Tensor, "features others"] | None = None,
) -> Certificate:
    r"""Evaluate the theory on one trained shallow network; in float64.

    With a true dictionary, and a `sample` that knows its codes, everything is compared with the truth: assumptions,
    bounds, windows, predicted and measured rate, norm and floor. Without one there is what is defined then: the shape
    of the dictionary, margins, the eigengap that drives each group's span, and the curvature that bounds the step (of
    the first 4,000 samples).

    With and without a truth, two kinds of wrong groups are looked for. A group is doubled if its span and that of an
    earlier one have a mean squared cosine above 0.7. It is suspected to mix two groups if the `code_anisotropy` of its
    active samples, those with ||W_g^T y|| > lambda, is above the edge of what uniform directions have,

    .. math:: (1 + \sqrt{D / N_g})^2, \qquad D = \tfrac12 d (d + 1) - 1

    for N_g of them. That is a level, not a bound: of groups with uniform directions none in 1,600 exceeds it for d = 2,
    up to 1 % do for d = 3, 7 % for d = 5 and 17 % for d = 8. Codes of real data need not be isotropic in any group.

    Supports are in doubt where responses lie close to the penalty: a window between active and inactive ones is there
    with any data. At most a tenth of the samples should have one within 10 % of it.

    Without a truth a dictionary can be at rest, and wrong. What is wrong seldom comes out twice: train again from a
    start of its own on half of the samples, and hand it over as `second_dictionary`. A group is repeated if its partner
    there, of `match_subspaces`, has a mean squared cosine of at least 0.9 with it; 95 % of the groups should be.

    Args:
        sample: a draw from the model, or data alone. dictionary: W. penalty: lambda.
        groups: d; without a truth also a list of sizes or of lists of atoms (`gsae_lib.groups`).
        weights: of the penalty, w_g > 0 for each group, without a truth; None for 1. Responses are ||W_g^T y|| / w_g.
        true_dictionary: A*, of the same shape, groups and columns in the same order, or None.
        second_dictionary: of another run, of the same groups, or None.

    Raises:
        ValueError: codes that are missing or all zero beside a true dictionary, or one without unit columns.
    """
    penalty = check_real("penalty", penalty, strict=True)
    omega = GroupPenalty(penalty, groups, weights)
    data = sample.data if isinstance(sample, GroupSparseSample) else sample
    others = {"true_dictionary": true_dictionary, "second_dictionary": second_dictionary}
    check_devices(sample=data, dictionary=dictionary, **others)
    dictionary = check_matrix("dictionary", dictionary).double()
    data = check_samples("sample", data, columns=len(dictionary)).double()
    if not bool((dictionary != 0).any(dim=0).all()):
        raise ValueError(f"dictionary: expected no zero column, got {int((dictionary == 0).all(dim=0).sum())}")
    omega.check(dictionary)
    responses = group_norms(data @ dictionary, groups)
    if isinstance(omega.weights, Tensor):
        if not bool((omega.weights > 0).all()):
            raise ValueError(f"weights: expected positive values, got {omega.weights.min():.4g}")
        responses = responses / omega.weights.to(responses)
    facts = _weight_facts(dictionary, omega.layout)
    if second_dictionary is not None:
        facts.append(_repeated(dictionary, second_dictionary, omega.layout))
    active = responses > penalty
    facts += _isotropy_facts(dictionary, data, active, omega.layout)
    if true_dictionary is None:
        facts += _data_facts(dictionary, data, responses, penalty, omega.layout)
        windows: tuple[Window, ...] = (_data_window(responses, penalty),)
    else:
        if omega.layout.sizes is not None or weights is not None:
            raise ValueError("true_dictionary: the theory knows groups of one size, without weights; expected None")
        d = omega.layout.width
        truth = check_matrix("true_dictionary", true_dictionary).double()
        codes = _checked_codes(dictionary, truth, sample, d)
        active = group_norms(codes, d) > 0
        population = _fitted_population(truth, data, codes, d)
        facts += _assumption_facts(dictionary, truth, codes, population)
        facts += _support_facts(dictionary, truth, codes, data, responses, penalty, population)
        facts += _convergence_facts(dictionary, truth, data, codes, penalty, population)
        windows = tuple(support_recovery_windows(dictionary, truth, population).values())
    curvature = _largest_curvature(dictionary.float(), data[:4000].float(), omega)
    step = 2 / curvature if curvature > 0 else math.inf
    facts.append(Fact(Quantity.STABLE_STEP, step))
    facts = sorted(facts, key=lambda fact: SECTIONS.index(fact.quantity.section))
    return Certificate(
        penalty, len(data), tuple(facts), windows, _deciles(responses[~active]), _deciles(responses[active])
    )


def _weight_facts(dictionary: Tensor, layout: GroupLayout) -> list[Fact]:
    norms = torch.linalg.vector_norm(dictionary, dim=0)
    nearest, doubled = _nearest_spans(dictionary, layout)
    return [
        Fact(Quantity.SMALLEST_NORM, norms.min().item()),
        Fact(Quantity.MEAN_NORM, norms.mean().item()),
        Fact(Quantity.LARGEST_NORM, norms.max().item()),
        Fact(Quantity.GROUP_GRAM, orthonormality(normalize_columns(dictionary), layout.groups), 0.0),
        Fact(Quantity.NEAREST_SPANS, nearest),
        Fact(Quantity.DOUBLED_GROUPS, float(doubled), 0.0, doubled == 0),
    ]


def _nearest_spans(dictionary: Tensor, layout: GroupLayout) -> tuple[float, int]:
    """The largest cosine between two spans, and how many groups have the span of an earlier one."""
    bases = as_groups(orthonormalize_groups(dictionary, layout.groups), layout.groups)
    sizes = bases.new_tensor(layout.size_of_each(dictionary.shape[1]))
    nearest, doubled = 0.0, 0
    for g in range(1, len(bases)):
        nearest = max(nearest, torch.linalg.matrix_norm(bases[g].T @ bases[:g], ord=2).max().item())
        overlaps = span_products(bases[g : g + 1], bases[:g])[0] / sizes[:g].clamp(min=sizes[g])
        doubled += int((overlaps > DOUBLED).any())
    return nearest, doubled


def _repeated(dictionary: Tensor, other: Tensor, layout: GroupLayout) -> Fact:
    """The share of the groups that another dictionary has, too."""
    other = check_matrix("second_dictionary", other).double()
    try:
        layout.check(other)
        fits = len(other) == len(dictionary)
    except ValueError:
        fits = False
    if not fits:
        wanted = f"groups of {layout.width}" if layout.n_atoms is None else f"{layout.n_atoms}"
        raise ValueError(
            f"second_dictionary: expected {len(dictionary)} rows and {wanted} columns, got {describe(other)}"
        )
    repeated = match_subspaces(dictionary, other, layout.groups).overlap >= SAME_SPAN
    share = int(repeated.sum()) / layout.count(dictionary.shape[1])
    return Fact(Quantity.REPEATED_SPANS, share, REPEATED, share >= REPEATED)


def _isotropy_facts(dictionary: Tensor, data: Tensor, active: Tensor, layout: GroupLayout) -> list[Fact]:
    """The group whose codes are farthest above what is isotropic by chance, and how many are above."""
    codes = to_groups(data @ orthonormalize_groups(dictionary, layout.groups), layout.groups)
    found = []
    for g, (used, d) in enumerate(zip(active.T, layout.size_of_each(dictionary.shape[1]), strict=True)):
        count = int(used.sum())
        if count:
            level = (1 + math.sqrt((d * (d + 1) / 2 - 1) / count)) ** 2
            found.append((code_anisotropy(codes[used, g, :d])[0], level))
    if not found:
        return []
    value, level = max(found, key=lambda pair: pair[0] / pair[1])
    mixed = sum(value > level for value, level in found)
    return [Fact(Quantity.ANISOTROPY, value, level, value <= level), Fact(Quantity.MIXED_GROUPS, float(mixed))]


def _data_facts(dictionary: Tensor, data: Tensor, responses: Tensor, penalty: float, layout: GroupLayout) -> list[Fact]:
    active = responses > penalty
    gaps, spreads, angles = _eigengaps(dictionary, data, active, layout)
    near = ((responses - penalty).abs() < 0.1 * penalty).any(dim=1).double().mean().item()
    facts = [
        Fact(Quantity.ACTIVE_GROUPS, active.sum(dim=1).double().mean().item()),
        Fact(Quantity.DEAD_GROUPS, float((~active.any(dim=0)).sum())),
        Fact(Quantity.INACTIVE_SAMPLES, (~active.any(dim=1)).double().mean().item()),
        Fact(Quantity.NEAR_PENALTY, near, NEAR, near <= NEAR),
    ]
    if gaps:
        facts += [
            Fact(Quantity.SMALLEST_EIGENGAP, min(gaps), 0.0, min(gaps) > 0),
            Fact(Quantity.LARGEST_EIGENGAP, max(gaps)),
            Fact(Quantity.LEADING_SPAN, _rms(angles)),
            Fact(Quantity.RIEMANNIAN_STEP, 2 / max(spreads) if max(spreads) > 0 else math.inf),
        ]
    return facts


def _checked_codes(dictionary: Tensor, truth: Tensor, sample: object, group_size: int) -> Tensor:
    if truth.shape != dictionary.shape:
        raise ValueError(
            f"true_dictionary: expected the dictionary's shape {tuple(dictionary.shape)}, got {describe(truth)}"
        )
    norms = torch.linalg.vector_norm(truth, dim=0)
    if (norms - 1).abs().max().item() > ORTHONORMAL_TOLERANCE:
        raise ValueError(f"true_dictionary: expected unit columns, got norms {norms.min():.4g} to {norms.max():.4g}")
    if not isinstance(sample, GroupSparseSample):
        raise ValueError("sample: expected a GroupSparseSample, whose codes are known, beside a true dictionary")
    codes = check_matrix("sample.codes", sample.codes, columns=truth.shape[1]).double()
    if len(codes) != len(sample.data) or not bool((group_norms(codes, group_size) > 0).any(dim=1).all()):
        raise ValueError("sample.codes: expected an active group in each of as many samples as data")
    return codes


def _fitted_population(truth: Tensor, data: Tensor, codes: Tensor, group_size: int) -> Population:
    """The population of `GroupSparseSource` nearest to a sample."""
    norms = group_norms(codes, group_size)
    counts, active = (norms > 0).sum(dim=1), norms[norms > 0]
    noise = (data - codes @ truth.T).square().mean().sqrt().item()
    sizes = (truth.shape[0], norms.shape[1], group_size, int(counts.max()))
    orthonormal = orthonormality(truth, group_size) < ORTHONORMAL_TOLERANCE
    # Rounding, and no noise, look alike in float32.
    noise = noise if noise > 1e-5 * data.square().mean().sqrt().item() else 0.0
    return Population(*sizes, (active.min().item(), active.max().item()), noise, orthonormal)


def _assumption_facts(dictionary: Tensor, truth: Tensor, codes: Tensor, population: Population) -> list[Fact]:
    d = population.group_size
    blocks = codes.unflatten(1, (-1, d))
    active = torch.linalg.vector_norm(blocks, dim=2) > 0
    drawn = blocks[active]
    second = drawn.T @ drawn / len(drawn)
    moment = second.diagonal().mean().item()
    white = torch.linalg.matrix_norm(
        second / moment - torch.eye(d, dtype=second.dtype, device=second.device), ord=2
    ).item()
    counts = active.sum(dim=1)
    shares = active.double().mean(dim=0)
    noise_level = 5 * math.sqrt(population.p / len(codes))
    spread = (shares - population.p).abs().max().item()
    deviation = orthonormality(dictionary, d)
    return [
        Fact(Quantity.SMALLEST_CODE_NORM, population.norm_range[0]),
        Fact(Quantity.LARGEST_CODE_NORM, population.norm_range[1]),
        Fact(Quantity.SUPPORT_SIZES, float(counts.min()),
             float(counts.max()), bool(counts.min() == counts.max())),
        Fact(Quantity.SUPPORT_SHARES, spread, noise_level, spread < noise_level),
        Fact(Quantity.SECOND_MOMENT, moment, 1.0, abs(moment - 1) < 0.1),
        Fact(Quantity.WHITENESS, white, 5 * d / len(drawn) ** 0.5,
             white < 5 * d / len(drawn) ** 0.5),
        Fact(Quantity.ORTHONORMALITY, deviation, ORTHONORMAL_TOLERANCE,
             deviation < ORTHONORMAL_TOLERANCE),
    ]  # fmt: skip


def _support_facts(
    dictionary: Tensor,
    truth: Tensor,
    codes: Tensor,
    data: Tensor,
    responses: Tensor,
    penalty: float,
    population: Population,
) -> list[Fact]:
    d, (low, high) = population.group_size, population.norm_range
    groups, true, blocks = as_groups(dictionary, d), as_groups(truth, d), codes.unflatten(1, (-1, d))
    active = torch.linalg.vector_norm(blocks, dim=2) > 0
    signals = torch.einsum("sgd,gde->sge", blocks, true.mT @ groups)
    clean = (codes @ truth.T @ dictionary).unflatten(1, (-1, d))
    weakest = torch.linalg.vector_norm(signals, dim=2)[active].min().item()
    inactive = torch.linalg.vector_norm(clean, dim=2)[~active]
    crosstalk = inactive.max().item() if len(inactive) else 0.0
    norms = torch.linalg.vector_norm(dictionary, dim=0)
    delta = torch.linalg.matrix_norm(as_groups(normalize_columns(dictionary), d) - true).max().item()
    mu = block_coherence(truth, d)
    largest = torch.linalg.svdvals(true).max().item()
    least = norms.min().item() * signal_bound(low, delta)
    bound = norms.max().item() * crosstalk_bound(population.n_active, high, d, mu, delta, largest)
    success = ((responses > penalty) == active).all(dim=1).double().mean().item()
    rho = norms.mean().item()
    predicted = predicted_success(population, penalty, column_norm=rho)
    within = 3 * math.sqrt(max(predicted * (1 - predicted), 1 / len(data)) / len(data)) + 0.01
    activity = (responses > penalty).sum(dim=1).double().mean().item()
    expected = predicted_activity(population, penalty, column_norm=rho)
    return [
        Fact(Quantity.DISTANCE, delta),
        Fact(Quantity.BLOCK_COHERENCE, d * mu),
        Fact(Quantity.WEAKEST_SIGNAL, weakest, least,
             weakest >= least),
        Fact(Quantity.LARGEST_CROSSTALK, crosstalk, bound, crosstalk <= bound),
        Fact(Quantity.ACTIVITY, activity, expected,
             abs(activity - expected) < 0.05 * expected),
        Fact(Quantity.EXACT_SUPPORTS, success, predicted,
             abs(success - predicted) < within),
    ]  # fmt: skip


def _convergence_facts(
    dictionary: Tensor, truth: Tensor, data: Tensor, codes: Tensor, penalty: float, population: Population
) -> list[Fact]:
    d = population.group_size
    rho = torch.linalg.vector_norm(dictionary, dim=0).mean().item()
    angles = principal_angles(dictionary, truth, d)
    tangent = _rms(angles.tan().flatten().tolist())
    facts = [Fact(Quantity.LARGEST_ANGLE, angles.max().item())]
    direction = horizontal(dictionary, sample_gradient(data, dictionary, penalty, d), d)
    aligned = gradient_alignment(dictionary, rho * truth, direction, d)
    active = group_norms(codes, d)
    second = active.square().sum().item() / active.numel() / d
    facts.append(Fact(Quantity.KAPPA, second))
    try:
        predicted = equilibrium_norm(population, penalty)
        facts.append(Fact(Quantity.EQUILIBRIUM_NORM, rho, predicted,
                          abs(rho / predicted - 1) < 0.02))  # fmt: skip
        if tangent > 1e-6:
            measured = aligned.inner / aligned.distance
            expected = plain_rates(population, penalty).outside
            facts.append(Fact(Quantity.SPAN_RATE, measured, expected))
        bias = coherence_bias(population, penalty, "plain")
        facts.append(Fact(Quantity.TANGENT, tangent, bias))
        if population.n_atoms <= population.n_features:
            clean = dataclasses.replace(population, noise_std=0.0)
            top = max(mode.eigenvalue for mode in hessian_spectrum(clean, penalty))
            facts.append(Fact(Quantity.CURVATURE, top))
        facts.append(Fact(Quantity.PREDICTED_STEP, largest_step(population, penalty)))
    except ValueError:  # the threshold zeroes groups: these predictions are not defined
        facts.append(Fact(Quantity.TANGENT, tangent))
    return facts


def _eigengaps(
    dictionary: Tensor, data: Tensor, active: Tensor, layout: GroupLayout
) -> tuple[list[float], list[float], list[float]]:
    r"""For each group, of M = (1/N) sum over active y y^T: gap, spread, and the angles to its leading span.

    The horizontal-gradient theorem: one active group follows Oja's flow on M. Near the leading span a motion from its
    i-th eigenvector towards the k-th one shrinks by 1 - eta (lambda_i - lambda_k) a step, so the slowest rate is the
    gap lambda_d - lambda_{d+1}, and the fastest the spread lambda_1 - lambda_n.
    """
    gaps, spreads, angles = [], [], []
    bases = as_groups(orthonormalize_groups(dictionary, layout.groups), layout.groups)
    for g, (basis, d) in enumerate(zip(bases, layout.size_of_each(dictionary.shape[1]), strict=True)):
        rows = data[active[:, g]]
        if len(rows) <= d:
            continue
        _, singular, vh = torch.linalg.svd(rows if len(rows) < len(dictionary) else torch.linalg.qr(rows).R)
        squares = data.new_zeros(max(len(dictionary), d + 1))
        squares[: len(singular)] = singular.square() / len(data)
        gaps.append((squares[d - 1] - squares[d]).item())
        spreads.append((squares[0] - squares[len(dictionary) - 1]).item())
        angles += torch.arccos(torch.linalg.svdvals(vh[:d] @ basis[:, :d]).clamp(max=1.0)).tolist()
    return gaps, spreads, angles


def _data_window(responses: Tensor, penalty: float) -> Window:
    """Thresholds that leave the supports of 99 % of the samples as they are."""
    active = responses > penalty
    below = torch.where(active, 0.0, responses).amax(dim=1)
    above = torch.where(active, responses, math.inf).amin(dim=1)
    cut = len(responses) // 200
    lower, upper = below.sort(descending=True).values[cut].item(), above.sort().values[cut].item()
    return Window("same supports, 99 %", lower, upper, "nothing", True, 0.99)


def _largest_curvature(dictionary: Tensor, data: Tensor, omega: GroupPenalty) -> float:
    """Largest eigenvalue of the Hessian of the loss on these samples, by Lanczos on Hessian-vector products; 1 %."""
    with torch.enable_grad():
        w = dictionary.detach().clone().requires_grad_()
        residual = data - omega.prox(data @ w) @ w.T
        loss = residual.square().sum() / (2 * len(data))
        gradient = torch.autograd.grad(loss, w, create_graph=True)[0]
    if not bool((gradient != 0).any()):
        return 0.0

    def product(vector: np.ndarray) -> np.ndarray:
        along = torch.from_numpy(vector.reshape(dictionary.shape)).to(dictionary)
        return torch.autograd.grad(gradient, w, along, retain_graph=True)[0].flatten().cpu().numpy()

    start = dictionary.flatten().cpu().numpy()  # radial: the largest curvature there is at a solution
    operator = LinearOperator((len(start), len(start)), product, dtype=start.dtype)
    if len(start) <= LANCZOS:
        return float(np.linalg.eigvalsh(operator @ np.eye(len(start), dtype=start.dtype)).max())
    return float(eigsh(operator, 1, which="LA", v0=start, tol=1e-2, ncv=LANCZOS, return_eigenvectors=False)[0])


def _deciles(values: Tensor) -> tuple[float, ...]:
    """Eleven deciles; of at most 100,000 values, evenly spaced in order; empty for none."""
    if not len(values):
        return ()
    values = values[:: max(len(values) // 100_000, 1)]
    return tuple(torch.quantile(values, torch.linspace(0, 1, 11, dtype=values.dtype, device=values.device)).tolist())


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))
