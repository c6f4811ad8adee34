r"""Groups from pairs of samples: a start from data alone.

Two samples that share an active group have a large inner product, and a third that correlates with both most likely has
that group too. So a pair (u, v) selects a few samples, their leading direction is a line, and the samples that lie
along this line span the group. Lines come first because a line between two groups is no maximum of what is climbed
here, while a plane of one direction of each is one (`prop-lines` on the theory page).

Source for pairs of samples: Arora, Ge, Ma and Moitra, "Simple, efficient, and neural algorithms for sparse coding"
(2015), where groups are single atoms.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2
from torch import Generator, Tensor
from tqdm.auto import tqdm

from gsae_lib._checks import check_devices, check_drawn, check_int, check_matrix, describe, without_autocast
from gsae_lib.dictionary import Dictionary, from_groups, polar
from gsae_lib.groups import group_norms, to_groups
from gsae_lib.subspaces import span_products

PAIRS = 64  # tried at a time
PACK = 8  # spans whose few active samples are gathered together: they stay in the cache over the steps of a fit
FEW = 1 / 16  # of the samples, up to which it is faster to gather the active ones than to multiply them all
LINE_ROUNDS, SPAN_ROUNDS = 8, 4  # of finding the active samples of a line or a span and fitting it to them
POWER_STEPS, FIRST_POWER_STEPS = 3, 8  # of a fit, and of the first one
LINE_SHARE, SPAN_SHARE = 0.7, 0.5  # of the rms norm of active samples: below it a sample is not active
FALSE_SHARE = 0.2  # of active samples that may be inactive ones
SELECTED = 0.25  # of the samples of a group that a pair selects, once TYPICAL groups say how many samples they have
TYPICAL = 10
EXPLAINED = 0.02  # of the samples, those of which least is left: no pair starts there
LEAST = 6  # samples of a group
SCORE = 1.5  # from which a span is accepted
SAME = 0.7  # mean squared cosine of two spans that are one; cosine of a direction that two spans share
REMNANT = 4  # times as many samples use a span as what is left of it when its fit is poor
PATIENCE = 6  # batches of pairs with at most one new span, after which a search ends
SWEEPS = 6  # searches, each in what the spans found before leave
LARGEST_GROUP = 16  # that `estimate_group_size` looks for
SAMPLED = 4096  # samples that a median or a quantile is taken over
BLOCK = 2**25  # numbers in a block of responses of all spans, about


@dataclasses.dataclass(frozen=True, eq=False)
class FoundGroups:
    """What `find_groups` found, and what follows from it.

    dictionary: (features, groups * group_size), orthonormal groups, the most used first. n_samples: samples that use
    each group. scores: mean squared norm of a group's active samples, over the squared norm from which they count as
    active. anisotropy: `code_anisotropy` of each. n_active: mean number of groups a sample uses. noise_std: of one
    feature, in the units of the data; errors of the spans count as noise. penalty: a threshold between the responses
    of inactive and active groups, in these units too. n_tries: pairs tried.
    """

    dictionary: Dictionary
    group_size: int
    n_samples: Int[Tensor, " groups"]
    scores: Float[Tensor, " groups"]
    anisotropy: Float[Tensor, " groups"]
    n_active: float
    noise_std: float
    penalty: float
    n_tries: int

    @property
    def n_groups(self) -> int:
        """The number of groups found."""
        return len(self.n_samples)


@without_autocast
@torch.no_grad()
def find_groups(
    data: Float[Tensor, "samples features"],
    n_groups: int | None = None,
    group_size: int | None = None,
    *,
    max_tries: int | None = None,
    generator: Generator,
    progress: bool = False,
) -> FoundGroups:
    r"""Find the spans of groups, several of which may be active in a sample, from the data alone.

    A search tries 64 pairs at a time: draw a sample u with a probability that grows with the energy left in it, and v
    among those with the largest :math:`|\langle y, u \rangle|`; take the samples with the largest
    :math:`|\langle y, u \rangle \langle y, v \rangle|`; their leading direction is a first W. Then a few times

    .. math:: \mathcal A = \{ i : \|W_{(-i)}^T y_i\| > t \}, \qquad
              W \leftarrow \text{leading directions of } \sum_{i \in \mathcal A} y_i y_i^T,

    first with one direction, then with d of them. W_(-i) leaves sample i out of the last fit, so that a span of noise
    loses its samples. The threshold t is set for each W from the median of the norms, such that at most a fifth of the
    active samples should be inactive ones, and is at least half the root mean square norm of active samples, 0.7 of it
    for one direction. New spans are kept, and what they explain is subtracted before the next pairs are drawn. After a
    search all samples are coded greedily, every span is fitted to its own samples without the other groups of these,
    copies and remnants are dropped, and a span whose codes lie along two sets of axes is replaced by what either half
    of its samples spans. The next search looks at what is left.

    A group needs at least max(6, d + 2) samples, and most samples must not use it: the median of the norms stands for
    samples without it. In too few dimensions, where a sample of one group responds to all others, little is found. In
    noise alone spans can be accepted (observed, not excluded): `repeat_on_halves` tells them apart.

    Time O(N n d) for each pair. Memory beyond the data: they twice more, and the active samples of 64 spans.

    Args:
        data: y_1, ..., y_N, in float32 or float64; not centred here, and their unit does not matter.
        n_groups: to find; None to go on until nothing new is found. Fewer may be found, never more.
        group_size: d; None for `estimate_group_size`.
        max_tries: pairs, rounded up to a multiple of 64; None for 40 for each group to find, or 20,000. If spans still
            seem to mix groups, a last search without them takes up to 384 more.
        generator: draws the pairs.
        progress: show how many groups are found.

    Raises:
        ValueError: fewer than two samples, or more than 2**24.
    """
    n_samples, n_features = _check_samples(data)
    wanted = n_samples if n_groups is None else check_int("n_groups", n_groups)
    if max_tries is None:
        max_tries = 20_000 if n_groups is None else 40 * n_groups
    check_int("max_tries", max_tries)
    if group_size is None:
        group_size = estimate_group_size(data, n_groups, generator=generator)
    check_int("group_size", group_size, high=n_features)
    search = _Search(data, group_size, n_groups or 1, generator)
    with tqdm(total=n_groups, desc="groups", unit="group", disable=not progress) as bar:

        def show(n_found: int) -> None:
            bar.n = n_found if n_groups is None else min(n_found, n_groups)
            bar.refresh()

        search.run(wanted, max_tries, show)
    return search.result()


@without_autocast
@torch.no_grad()
def estimate_group_size(
    data: Float[Tensor, "samples features"], n_groups: int | None = None, *, generator: Generator
) -> int:
    r"""d, from the eigengap of samples that lie along a line: d eigenvalues of their second moment stand out.

    .. math:: \hat d = \max \Big\{ j : \frac{\lambda_j}{\lambda_{j+1}} - 1 > 3 \operatorname{median}_i
              \Big( \frac{\lambda_i}{\lambda_{i+1}} - 1 \Big) \Big\}

    with the median of the ratios over the lines of 64 pairs, at most 16. Where no gap but the first stands out it is 1.

    Raises:
        ValueError: fewer than two samples.
    """
    n_features = _check_samples(data)[1]
    groups = 1 if n_groups is None else check_int("n_groups", n_groups)
    search = _Search(data, 1, groups, generator)
    active = search.lines()[1]
    counts = active.sum(dim=1)
    largest = min(LARGEST_GROUP, n_features // 2, int(counts.median()) // 2)
    if largest < 2:
        return 1
    ratios = []
    for rows in active[counts >= 2 * largest]:
        values = torch.linalg.svdvals(search.data[rows])[: 2 * largest].square()
        ratios.append(values[:-1] / values[1:].clamp(min=1e-12 * values[0]))
    excess = torch.stack(ratios).median(dim=0).values - 1
    clear = (excess[1:largest] > 3 * excess[largest - 1 :].median()).nonzero().flatten()
    return int(clear.max()) + 2 if len(clear) else 1


@without_autocast
@torch.no_grad()
def repeat_on_halves(
    data: Float[Tensor, "samples features"], found: FoundGroups, *, generator: Generator, progress: bool = False
) -> Float[Tensor, "groups 2"]:
    r"""Whether the groups come back from either half of the samples: the angle of each to what that half gives.

    .. math:: \theta_{gj} = \arccos \sigma_{\min}(W_g^T V_{h}), \qquad h = \arg\max_h \|W_g^T V_h\|_F,

    the largest principal angle, in radians, between group g and the group h that `find_groups` finds in half j of the
    samples and that has most in common with it. Groups of noise hardly come back; a true group has small angles if half
    of its samples are enough to find it. The halves share no sample, but `found` saw both, so a chance group is drawn a
    little towards each. What comes back is in the data; whether it is one group is another question: a common mean, a
    mixed span and duplicated samples come back, too.

    Args:
        data: what the groups were found in. found: from `find_groups`, which is run twice more with its sizes.
        generator: draws the halves and the pairs. progress: show how many groups are found.
    """
    dictionary, d = found.dictionary, found.group_size
    check_devices(data=data, found=dictionary)
    check_matrix("data", data, columns=len(dictionary), any_size=True)
    order = torch.randperm(len(data), generator=generator, device=generator.device).to(data.device)
    angles = torch.full((found.n_groups, 2), math.pi / 2, dtype=dictionary.dtype, device=dictionary.device)
    for column, rows in zip(angles.T, order.tensor_split(2), strict=True):
        if not found.n_groups:
            break
        half = find_groups(data[rows], found.n_groups, d, generator=generator, progress=progress)
        if half.n_groups:
            overlap = (dictionary.T @ half.dictionary).unflatten(0, (-1, d)).unflatten(2, (-1, d)).transpose(1, 2)
            nearest = overlap.square().sum(dim=(2, 3)).argmax(dim=1)
            overlap = overlap[torch.arange(found.n_groups, device=overlap.device), nearest]
            column.copy_(torch.linalg.svdvals(overlap)[:, -1].clamp(max=1.0).arccos())
    return angles


@without_autocast
def code_anisotropy(codes: Float[Tensor, "samples size"]) -> tuple[float, Float[Tensor, "size size"]]:
    r"""How far directions of codes in one group are from uniform, and along which axes.

    .. math:: \frac{\lambda_{\max}(M)}{\operatorname{tr} M / D}, \qquad
              M = \mathbb{E}\, \operatorname{vec}(Q) \operatorname{vec}(Q)^T, \quad
              Q = \hat x \hat x^T - \tfrac1d I, \quad D = \tfrac12 d (d + 1) - 1

    the largest over the mean eigenvalue of the second moment of the traceless matrices Q, a fourth moment of
    directions. Uniform directions give 1, and up to about (1 + sqrt(D / N))^2 by chance; codes in a span that mixes
    directions of two groups lie along two sets of axes and give up to D. For d = 2 it is
    :math:`1 + |\mathbb{E} \exp(4 i \varphi)|`, where phi is the angle of a code. The matrix is the
    leading eigenvector: its eigenvectors of either sign are the two sets of axes. 1 and zeros for groups of one, or if
    all codes are zero.
    """
    d = check_matrix("codes", codes).shape[1]
    norms = torch.linalg.vector_norm(codes, dim=1)
    directions = codes[norms > 0] / norms[norms > 0].unsqueeze(1)
    if d == 1 or not len(directions):
        return 1.0, codes.new_zeros(d, d)
    identity = torch.eye(d, dtype=codes.dtype, device=codes.device)
    traceless = (directions.unsqueeze(2) * directions.unsqueeze(1) - identity / d).flatten(1)
    values, vectors = torch.linalg.eigh(traceless.T @ traceless / len(traceless))
    mean = (1 - 1 / d) / (d * (d + 1) / 2 - 1)
    return values[-1].item() / mean, vectors[:, -1].reshape(d, d)


@dataclasses.dataclass(frozen=True, eq=False)
class _Codes:
    """Greedy codes, one row for each use of a span by a sample, spans in order."""

    sample: Tensor
    span: Tensor
    values: Tensor

    def of(self, span: int) -> tuple[Tensor, Tensor]:
        """The samples that use a span, and their codes in it."""
        rows = self.span == span
        return self.sample[rows], self.values[rows]

    def keep(self, kept: Tensor) -> "_Codes":
        """Without the spans that are not kept; the others are numbered anew."""
        rows = kept[self.span]
        place = kept.long().cumsum(0) - 1
        return _Codes(self.sample[rows], place[self.span[rows]], self.values[rows])


class _Search:
    """Spans found so far, (groups, features, size), how many samples use each, and what they leave of the data."""

    def __init__(self, data: Tensor, group_size: int, n_groups: int, generator: Generator) -> None:
        self.group_size, self.generator = group_size, generator
        self.unit = 2.0 ** (math.frexp(float(data.abs().max()))[1] - 1)  # squares in another one can overflow or vanish
        self.data = data / self.unit
        self.energy = self.data.square().sum(dim=1)
        self.left = self.data.clone()
        self.spans = data.new_zeros(0, data.shape[1], group_size)
        self.counts = torch.zeros(0, dtype=torch.long, device=data.device)
        self.codes = _Codes(self.counts, self.counts, data.new_zeros(0, group_size))
        self.selected = min(max(4, len(data) // (2 * n_groups)), 32, len(data) - 1)
        self.least = max(group_size + 2, LEAST)
        self.n_tries = 0

    def run(self, wanted: int, max_tries: int, show: Callable[[int], object]) -> None:
        """Searches, each followed by a fit of all spans together and the split of mixed ones.

        Mixed spans that cannot be split are dropped before the last search, and come back if it finds nothing better.
        """
        suspects = self.spans.new_zeros(0, dtype=torch.bool)
        for _ in range(SWEEPS):
            before = len(self.spans)
            self.sweep(wanted + int(suspects.sum()), max_tries, show)
            suspects, n_split = self.fit_and_split()
            complete = len(self.spans) >= wanted + int(suspects.sum())
            stalled = self.n_tries >= max_tries or len(self.spans) <= before
            if not n_split and (complete or stalled):
                break
        if suspects.any():
            dropped, counts = self.spans[suspects], self.counts[suspects]
            self.keep(~suspects)
            self.fit_together()
            self.sweep(wanted, max_tries + PATIENCE * PAIRS, show)
            self.fit_and_split()
            for span, count in zip(dropped, counts, strict=True):
                if len(self.spans) < wanted and not _mean_squared_cosines(span, self.spans).gt(SAME).any():
                    self.spans = torch.cat([self.spans, span.unsqueeze(0)])
                    self.counts = torch.cat([self.counts, count.unsqueeze(0)])
        self.fit_together()
        order = self.counts.argsort(descending=True, stable=True)
        self.spans, self.counts = self.spans[order], self.counts[order]
        self.codes = dataclasses.replace(self.codes, span=order.argsort()[self.codes.span])
        self.keep(torch.arange(len(order), device=order.device) < wanted)

    def fit_and_split(self) -> tuple[Tensor, int]:
        """Fit all spans together, split mixed ones: which spans still seem mixed, and how many were split."""
        self.fit_together()
        self.fit_together()
        suspects, n_split = self.split_mixed()
        if n_split:
            self.fit_together()
            suspects = suspects.new_zeros(len(self.spans))  # numbered anew; the next round looks again
        return suspects, n_split

    def sweep(self, wanted: int, max_tries: int, show: Callable[[int], object]) -> None:
        """Try pairs until enough spans are found, or hardly any of late."""
        failures = 0
        while failures < PATIENCE and self.n_tries < max_tries and len(self.spans) < wanted:
            self.n_tries += PAIRS
            failures = 0 if self.add(*self.expand(*self.lines())) > 1 else failures + 1
            show(len(self.spans))

    def lines(self) -> tuple[Tensor, Tensor]:
        """Lines from pairs of what is left of the samples: (pairs, features, 1), and their active samples."""
        left = self.left
        energy = left.square().sum(dim=1)
        chances = (energy - energy.quantile(EXPLAINED)).clamp(min=0) + 1e-6 * energy.mean() + 1e-30
        drawn = torch.multinomial(chances.to(self.generator.device), PAIRS, replacement=True, generator=self.generator)
        first, pair = drawn.to(left.device), torch.arange(PAIRS, device=left.device)
        correlation = left[first] @ left.T
        correlation[pair, first] = 0
        place = torch.randint(self.selected, (PAIRS,), generator=self.generator, device=self.generator.device)
        second = correlation.abs().topk(self.selected, dim=1).indices[pair, place.to(left.device)]
        sign = torch.where(correlation[pair, second] < 0, -1.0, 1.0).to(left.dtype)
        both = (left[second] @ left.T).mul_(correlation).abs_()
        both[pair, second] = 0
        members = torch.cat([both.topk(self.selected, dim=1).indices, first[:, None], second[:, None]], dim=1)
        lines = polar((left[first] + sign[:, None] * left[second]).unsqueeze(2))
        lines = _power_steps(left[members], lines, FIRST_POWER_STEPS)[0]
        active = torch.zeros(PAIRS, len(left), dtype=torch.bool, device=left.device)
        active[pair.unsqueeze(1), members] = True
        return self.refine(lines, active)[:2]

    def expand(self, lines: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spans of the active samples of lines; their active samples and scores."""
        counts, size = active.sum(dim=1), self.group_size - 1
        shape = (len(active), max(1, int(counts.max())), size)
        drawn = torch.randn(shape, generator=self.generator, dtype=lines.dtype, device=self.generator.device)
        weights = lines.new_zeros(*active.shape, size)
        weights[active] = drawn.to(lines.device)[torch.arange(shape[1], device=counts.device) < counts.unsqueeze(1)]
        spans = torch.cat([lines, self.combine(weights.mT)], dim=2)
        spans = self.power_steps(active, torch.linalg.qr(spans).Q, FIRST_POWER_STEPS)[0]
        return self.refine(spans, active)

    def refine(self, spans: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fit spans to their active samples and find these again, a few times; active samples and scores.

        As many samples as a pair selects stay active all along, but for the last round of a whole span.
        """
        d = spans.shape[2]
        n_rounds = LINE_ROUNDS if d == 1 else SPAN_ROUNDS
        scores = spans.new_zeros(len(spans))
        for k in range(1, n_rounds + 1):
            spans, responses, full = self.fit(spans, active)
            power = responses.square().sum(dim=1)
            thresholds = _thresholds(power, d)
            if k < n_rounds or d < self.group_size:
                smallest = power.topk(self.selected, dim=1).values[:, -1]
                thresholds = torch.minimum(thresholds, 0.999 * smallest)  # rounding does not drop the smallest itself
            active = (power > thresholds.unsqueeze(1)) & full.unsqueeze(1)
            mean = (power * active).sum(dim=1) / active.sum(dim=1).clamp(min=1)
            scores = mean / thresholds.clamp(min=1e-30)
        return spans, active, scores

    def fit(self, spans: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spans fitted to their active samples, responses (spans, size, samples), and which spans have full rank.

        The last power step gives W = (sum of y_i z_i^T) R^{-1}, with codes z and a triangle R. An active sample
        responds to this sum without its own term.
        """
        spans, triangle, codes = self.power_steps(active, spans, POWER_STEPS)
        diagonal = triangle.diagonal(dim1=1, dim2=2).abs()
        full = diagonal.amin(dim=1) > 1e-5 * diagonal.amax(dim=1)
        identity = torch.eye(spans.shape[2], dtype=spans.dtype, device=spans.device)
        triangle = torch.where(full[:, None, None], triangle, identity)
        own = torch.linalg.solve_triangular(triangle.mT, codes.mul_(self.energy), upper=False)
        return spans, _project(self.data, spans).sub_(own), full

    def power_steps(self, active: Tensor, spans: Tensor, n_steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Power iterations of the second moments of active samples: spans, last triangle, last codes.

        The codes are (spans, size, samples), zero for samples that are not active.
        """
        counts, d = active.sum(dim=1), spans.shape[2]
        order = counts.argsort()
        few, many = order.tensor_split([int((counts <= FEW * len(self.data)).sum())])
        blocks = few.split(PACK) if len(few) else ()
        codes = spans.new_zeros(len(spans), d, len(self.data))
        fitted, triangles = [], []
        for block in blocks:
            members, samples = self.active_samples(active[block])
            found, triangle, own = _power_steps(samples, spans[block], n_steps)
            codes[block] = codes[block].scatter_add_(2, members.unsqueeze(1).expand(-1, d, -1), own.mT)
            fitted.append(found)
            triangles.append(triangle)
        if len(many):
            found, mask = spans[many], active[many].unsqueeze(1)
            for _ in range(n_steps):
                own = _project(self.data, found).mul_(mask)
                found, triangle = torch.linalg.qr(self.combine(own))
            codes[many] = own
            fitted.append(found)
            triangles.append(triangle)
        back = order.argsort()
        return torch.cat(fitted)[back], torch.cat(triangles)[back], codes

    def combine(self, weights: Float[Tensor, "spans size samples"]) -> Float[Tensor, "spans features size"]:
        """Sums of all samples with weights."""
        return (weights.flatten(0, 1) @ self.data).unflatten(0, weights.shape[:2]).mT

    def add(self, spans: Tensor, active: Tensor, scores: Tensor) -> int:
        """Keep spans that are accepted and new, subtract what they explain, and say how many."""
        before = len(self.spans)
        counts = active.sum(dim=1)
        accepted = ((scores >= SCORE) & (counts >= self.least)).nonzero().flatten()
        for b in accepted[counts[accepted].argsort(descending=True)].tolist():
            if _mean_squared_cosines(spans[b], self.spans).gt(SAME).any():
                continue
            self.spans = torch.cat([self.spans, spans[b : b + 1]])
            self.counts = torch.cat([self.counts, counts[b : b + 1]])
            rows = active[b].nonzero().flatten()
            self.left[rows] -= (self.left[rows] @ spans[b]) @ spans[b].T
        if len(self.counts) >= TYPICAL:
            self.selected = min(max(4, int(SELECTED * self.counts.median())), len(self.data) - 1)
        return len(self.spans) - before

    def fit_together(self) -> None:
        """Code all samples greedily, fit every span to its own samples, drop those that are not needed."""
        if not len(self.spans):
            return
        self.codes = self.greedy_codes()
        self.counts = torch.bincount(self.codes.span, minlength=len(self.spans))
        fitted = self.spans.clone()
        starts = self.counts.cumsum(0) - self.counts
        for block in self.counts.argsort().split(PACK):
            spans, counts = self.spans[block], self.counts[block]
            place = torch.arange(int(counts.max()), device=counts.device)
            rows = (starts[block].unsqueeze(1) + place).clamp(max=len(self.codes.sample) - 1)
            mask = place < counts.unsqueeze(1)
            own = self.left[self.codes.sample[rows]] + self.codes.values[rows] @ spans.mT
            enough = counts >= self.least
            own = own[enough] * mask[enough].unsqueeze(2)
            fitted[block[enough]] = _power_steps(own, spans[enough], POWER_STEPS)[0]
        kept = self.needed(fitted)
        lost = ~kept[self.codes.span]  # what a dropped span explained is left again
        dropped = (self.spans[self.codes.span[lost]] @ self.codes.values[lost].unsqueeze(2)).squeeze(2)
        self.left.index_add_(0, self.codes.sample[lost], dropped)
        self.spans = fitted
        self.keep(kept)

    def needed(self, spans: Tensor) -> Tensor:
        """Which spans have samples enough, and are neither a copy of a span that more samples use, nor its remnant.

        A remnant shares a direction with a span that REMNANT times as many samples use.
        """
        d, counts = self.group_size, self.counts
        needed = counts >= self.least
        dictionary = from_groups(spans)
        order = counts.argsort(descending=True, stable=True)
        rank = order.argsort()
        for g in order.tolist():
            if not needed[g]:
                continue
            cosines = to_groups(spans[g].T @ dictionary, d).movedim(1, 0)
            squares = cosines.square().sum(dim=(1, 2))
            copies = (rank > rank[g]) & (squares > SAME * d)
            remnants = ((REMNANT * counts < counts[g]) & (squares > SAME**2)).nonzero().flatten()
            shared = torch.linalg.matrix_norm(cosines[remnants], ord=2) > SAME
            needed &= ~copies
            needed[remnants[shared]] = False
        return needed

    def split_mixed(self) -> tuple[Tensor, int]:
        """Drop spans that mix groups, where half of their samples spans another one, which is kept.

        Of which spans the codes lie along two sets of axes, and how many were dropped.
        """
        halves = self.halves()
        suspects = torch.zeros(len(self.spans), dtype=torch.bool, device=self.spans.device)
        suspects[list(halves)] = True
        mixed = torch.zeros_like(suspects)
        pairs = [(g, half) for g, both in halves.items() for half in both if len(half) >= self.least]
        new = []
        for block in (pairs[start : start + PAIRS] for start in range(0, len(pairs), PAIRS)):
            active = mixed.new_zeros(len(block), len(self.data))
            for row, (_, half) in zip(active, block, strict=True):
                row[half] = True
            first = torch.stack([half[0] for _, half in block])
            lines = self.power_steps(active, polar(self.data[first].unsqueeze(2)), FIRST_POWER_STEPS)[0]
            spans, active, scores = self.expand(*self.refine(lines, active)[:2])
            for b, (g, _) in enumerate(block):
                codes = self.data[active[b]] @ spans[b]
                if _is_mixed(codes):
                    scores[b] = 0.0
                other = _mean_squared_cosines(spans[b], self.spans[g : g + 1]).item() <= SAME
                mixed[g] |= bool(other and scores[b] >= SCORE and len(codes) >= self.least)
            new.append((spans, active, scores))
        self.keep(~mixed)
        for found in new:
            self.add(*found)
        return suspects, int(mixed.sum())

    def halves(self) -> dict[int, tuple[Tensor, Tensor]]:
        """For each span whose codes lie along two sets of axes, the samples along either."""
        found = {}
        for g in range(len(self.spans)):
            sample, codes = self.codes.of(g)
            if not _is_mixed(codes):
                continue
            signs, vectors = torch.linalg.eigh(code_anisotropy(codes)[1])
            shares = (codes @ vectors).square() / codes.square().sum(dim=1, keepdim=True)
            first, second = (shares[:, side].sum(dim=1) > LINE_SHARE for side in (signs > 0, signs < 0))
            found[g] = sample[first], sample[second]
        return found

    def active_samples(self, active: Bool[Tensor, "spans samples"]) -> tuple[Tensor, Tensor]:
        """Which samples are active in each span, in rows of one length, and their data: zero where they fill a row."""
        span, sample = active.nonzero(as_tuple=True)
        counts = active.sum(dim=1)
        place = torch.arange(len(span), device=active.device) - (counts.cumsum(0) - counts)[span]
        members = sample.new_zeros(len(active), max(1, int(counts.max())))
        members[span, place] = sample
        mask = torch.zeros_like(members, dtype=torch.bool)
        mask[span, place] = True
        return members, self.data[members] * mask.unsqueeze(2)

    def keep(self, kept: Bool[Tensor, " groups"]) -> None:
        """Drop the other spans, and their codes."""
        self.spans, self.counts, self.codes = self.spans[kept], self.counts[kept], self.codes.keep(kept)

    def greedy_codes(self) -> _Codes:
        """Matching pursuit over groups: again and again the strongest response above its threshold. Sets `left`."""
        d, dictionary = self.group_size, from_groups(self.spans)
        gram = dictionary.T @ dictionary
        limit = self.thresholds().clamp(min=1e-30)
        parts = []
        for start, data in _blocks(self.data, max(1, BLOCK // dictionary.shape[1])):
            responses = data @ dictionary
            codes = torch.zeros_like(responses)
            live = torch.arange(len(data), device=data.device)
            for _ in range(4 * len(self.spans)):  # a limit; a span may be taken again after others
                excess, span = (group_norms(responses, d).square() / limit).max(dim=1)
                above = excess > 1
                live, span = live[above], span[above]
                if not len(live):
                    break
                responses = responses[above]
                columns = d * span.unsqueeze(1) + torch.arange(d, device=span.device)
                values = responses.gather(1, columns)
                codes[live.unsqueeze(1), columns] += values
                for column, value in zip(columns.T, values.T, strict=True):
                    responses.addcmul_(gram[column], value.unsqueeze(1), value=-1)
            used = to_groups(codes, d).ne(0).any(dim=2).nonzero()
            parts.append((used[:, 0] + start, used[:, 1], to_groups(codes, d)[used[:, 0], used[:, 1]]))
            self.left[start : start + len(data)] = data - codes @ dictionary.T
        sample, span, values = (torch.cat(part) for part in zip(*parts, strict=True))
        order = span.argsort(stable=True)
        return _Codes(sample[order], span[order], values[order])

    def result(self) -> FoundGroups:
        """What was found, and the estimates that follow."""
        (n_samples, n_features), d, n_groups = self.data.shape, self.group_size, len(self.spans)
        n_active = len(self.codes.sample) / n_samples
        powers = self.codes.values.square().sum(dim=1)
        mean = self.data.new_zeros(n_groups).index_add_(0, self.codes.span, powers) / self.counts.clamp(min=1)
        free = max(1 - n_active * d / n_features - n_groups * d / n_samples, 1 / n_features)
        kinds = [code_anisotropy(self.codes.of(g)[1])[0] for g in range(n_groups)]
        return FoundGroups(
            from_groups(self.spans),
            d,
            self.counts,
            scores=mean / self.thresholds() if n_groups else mean,
            anisotropy=torch.tensor(kinds, dtype=mean.dtype, device=mean.device),
            n_active=n_active,
            noise_std=self.unit * (self.left.square().mean().item() / free) ** 0.5,
            penalty=self.unit * self.penalty(),
            n_tries=self.n_tries,
        )

    def thresholds(self) -> Tensor:
        """Squared norms from which samples are active, one for each span."""
        parts = [_project(self.data, spans).square().sum(dim=1) for spans in self.spans.split(PAIRS)]
        return torch.cat([_thresholds(power, self.group_size) for power in parts])

    def penalty(self) -> float:
        """Midway between what one inactive group in a sample of twenty exceeds and all active groups but one in twenty.

        Zero if nothing was found.
        """
        if not len(self.spans):
            return 0.0
        step = -(-len(self.data) // SAMPLED)
        responses = group_norms(self.data[::step] @ from_groups(self.spans), self.group_size)
        active = torch.zeros_like(responses, dtype=torch.bool)
        seen = self.codes.sample % step == 0
        active[self.codes.sample[seen] // step, self.codes.span[seen]] = True
        inactive = responses[~active]
        n_false = max(1, len(responses) // 20)
        lower = inactive.topk(min(n_false, len(inactive))).values[-1] if len(inactive) else responses.new_tensor(0.0)
        upper = responses[active] if active.any() else torch.linalg.vector_norm(self.codes.values, dim=1)
        return float(lower + upper.kthvalue(max(1, len(upper) // 20)).values) / 2


def _check_samples(data: Tensor) -> tuple[int, int]:
    """The numbers of samples and features, or ValueError."""
    n_samples, n_features = check_matrix("data", data, any_size=True).shape  # they are scaled first
    check_drawn("data", data)
    if data.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"data: expected float32 or float64, got {describe(data)}")
    if n_samples < 2:
        raise ValueError(f"data: expected at least 2 samples, got {n_samples}")
    if not n_features:
        raise ValueError(f"data: expected at least one feature, got {describe(data)}")
    return n_samples, n_features


def _blocks(data: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """First row and rows of blocks of samples."""
    return ((start, data[start : start + size]) for start in range(0, len(data), size))


def _power_steps(samples: Tensor, spans: Tensor, n_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Power iterations of the second moments of (spans, samples, features): spans, last triangle, last codes."""
    for _ in range(n_steps):
        codes = samples @ spans
        spans, triangle = torch.linalg.qr(samples.mT @ codes)
    return spans, triangle, codes


def _project(data: Tensor, spans: Tensor) -> Float[Tensor, "spans size samples"]:
    return (spans.mT.flatten(0, 1) @ data.T).unflatten(0, (len(spans), -1))


def _thresholds(power: Float[Tensor, "spans samples"], size: int) -> Float[Tensor, " spans"]:
    """Squared norms from which samples are active in each span.

    Codes of inactive samples are taken as Gaussian, of the variance that the median norm has. The threshold is the
    lowest of eight tails at which no more than FALSE_SHARE of the active samples are expected to be inactive, or
    LINE_SHARE or SPAN_SHARE of the root mean square norm of active samples, if that is more.
    """
    share = SPAN_SHARE if size > 1 else LINE_SHARE
    n_samples = power.shape[1]
    variance = power[:, :: -(-n_samples // SAMPLED)].median(dim=1).values / float(chi2.median(size))
    threshold = variance * float(chi2.isf(1 / n_samples, size))
    for tail in torch.logspace(math.log10(1 / n_samples), -1, 8, dtype=torch.float32, device="cpu").tolist()[1:]:
        lower = variance * float(chi2.isf(tail, size))
        pure = tail * n_samples <= FALSE_SHARE * (power > lower.unsqueeze(1)).sum(dim=1)
        threshold = torch.where(pure, torch.minimum(threshold, lower), threshold)
    least = threshold
    for _ in range(3):
        above = power > threshold.unsqueeze(1)
        mean = (power * above).sum(dim=1) / above.sum(dim=1).clamp(min=1)
        threshold = torch.maximum(least, share**2 * mean)
    return threshold


def _mean_squared_cosines(span: Tensor, spans: Tensor) -> Float[Tensor, " spans"]:
    """Of the principal angles between a span and each of others."""
    return span_products(span.unsqueeze(0), spans)[0] / span.shape[1]


def _is_mixed(codes: Float[Tensor, "samples size"]) -> bool:
    """Whether `code_anisotropy` exceeds what uniform directions give by chance: the edge of Marchenko and Pastur."""
    n_codes, d = codes.shape
    edge = (1 + math.sqrt((d * (d + 1) / 2 - 1) / max(n_codes, 1))) ** 2
    return code_anisotropy(codes)[0] > edge
