"""Group-sparse coding: the objective that the encoder descends, a certificate, and a solver that stops on it.

Source: arXiv 2102.07003, eq. 6; gap and screening are those of Ndiaye et al., "Gap safe screening rules" (2017); the
accelerated steps are FISTA (Beck and Teboulle, 2009) with restarts (O'Donoghue and Candes, 2015).
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from gsae_lib._checks import check_int, check_matrix, check_real, describe
from gsae_lib._descent import CHECK_EVERY, NEAR_ROUNDING, PATIENCE, solve_rows
from gsae_lib._threads import map_blocks
from gsae_lib.activations import shrink_groups
from gsae_lib.groups import group_norms, to_groups

Penalty = float | Float[Tensor, " samples"]
_Solved = tuple[Tensor, Tensor, Tensor, Tensor]  # codes, iterations, objective, gap
_Way = Callable[[Tensor, Tensor, Tensor, int], _Solved]

# Entries of a block of samples on the CPU: its temporaries fit in the second-level cache.
BLOCK_ENTRIES = 2**18
# The same where samples are solved one by one, so that there is a block for each thread sooner.
ALONE_ENTRIES = 2**14
# Samples that are solved one by one to see whether that takes few multiplications, and how many there must be.
PROBED, PROBED_OF = 8, 64
# It does below these shares of those of all samples together: Gram matrices of up to 512 KiB, which stay in the
# second-level cache, and larger ones. Measured by benchmarks/coding_ways.py.
FEW, FEW_OF_MANY = 0.35, 0.1
SMALL_GRAM, LARGEST_GRAM = 2**16, 2**24  # entries
# The relative gap asked for by default: what each precision reaches.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6}


class NotConvergedWarning(UserWarning):
    """Some codes are further from the minimum than was asked for."""


def group_lasso_objective(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: Penalty,
    group_size: int,
    *,
    nonnegative: bool = False,
    elementwise_penalty: float = 0.0,
) -> Float[Tensor, " samples"]:
    r"""Objective of each sample, in squared units of the data, computed in float64.

    .. math:: P(x) = \tfrac12 \|y - W x\|^2 + \lambda \sum_g \|x_g\| + e \|x\|_1

    Args:
        penalty: lambda >= 0, a number or one for each sample.
        nonnegative: codes with a negative entry have objective infinity.
        elementwise_penalty: e >= 0.

    Raises:
        ValueError: shapes that do not match, a negative penalty, or a bad group size.
    """
    check_real("elementwise_penalty", elementwise_penalty)
    checked = _checked(data, dictionary, codes, penalty)
    return _certificate(*checked, group_size, nonnegative, elementwise_penalty)[0]


def duality_gap(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: Penalty,
    group_size: int,
    *,
    nonnegative: bool = False,
    elementwise_penalty: float = 0.0,
) -> Float[Tensor, " samples"]:
    r"""Duality gap of each sample: an upper bound on objective(x) - minimum, and 0 only at a minimiser.

    .. math:: P(x) - D(\theta), \qquad D(\theta) = \tfrac12\|y\|^2 - \tfrac12\|y - \theta\|^2, \qquad
              \theta = r \min\Big(1, \frac{\lambda}{\max_g \|S_e(W_g^T r)\|}\Big), \quad r = y - W x

    where S_e is the soft threshold at the elementwise penalty e (for `nonnegative`, (. - e)_+), and theta is feasible:
    ||S_e(W_g^T theta)|| <= lambda for all g. Computed in float64. Arguments as `group_lasso_objective`.

    Raises:
        ValueError: as `group_lasso_objective`.
    """
    check_real("elementwise_penalty", elementwise_penalty)
    checked = _checked(data, dictionary, codes, penalty)
    return _certificate(*checked, group_size, nonnegative, elementwise_penalty)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class SparseCodingResult:
    """What the solver found, one value a sample.

    codes: (samples, atoms). penalty: lambda. objective: P at the codes. gap: the duality gap, so objective - gap is a
    lower bound of the minimum; both recomputed from the codes in float64. n_iter: proximal steps taken.
    converged: whether gap <= tol * objective.
    """

    codes: Float[Tensor, "samples atoms"]
    penalty: Float[Tensor, " samples"]
    objective: Float[Tensor, " samples"]
    gap: Float[Tensor, " samples"]
    n_iter: Int[Tensor, " samples"]
    converged: Bool[Tensor, " samples"]


def largest_penalty(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    group_size: int,
    *,
    nonnegative: bool = False,
    elementwise_penalty: float = 0.0,
) -> Float[Tensor, " samples"]:
    r"""The smallest lambda at which each sample's code is zero.

    .. math:: \lambda_{\max} = \max_g \|S_e(W_g^T y)\|

    Raises:
        ValueError: shapes that do not match, or a bad group size.
    """
    check_matrix("data", data, columns=check_matrix("dictionary", dictionary).shape[0])
    return _dual_norms(data @ dictionary, group_size, nonnegative, elementwise_penalty).amax(dim=1)


def group_sparse_code(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    penalty: Penalty,
    group_size: int,
    *,
    nonnegative: bool = False,
    elementwise_penalty: float = 0.0,
    tol: float | None = None,
    max_iter: int = 10_000,
    start: Float[Tensor, "samples atoms"] | None = None,
    progress: bool = False,
) -> SparseCodingResult:
    r"""Solve the group lasso for each sample to a certified gap.

    .. math:: \min_x \tfrac12 \|y - W x\|^2 + \lambda \sum_g \|x_g\| + e \|x\|_1 \quad (x \ge 0)

    Accelerated proximal gradient steps: each sample has its own momentum, which restarts when it points uphill, and
    ends when its gap is small enough. On a CPU a sample takes its steps alone, in float64, where a few samples show
    that few groups are in use: an iteration then costs k d m' multiplications, for k groups in use and m' atoms of
    groups whose dual constraint is nearly tight. Otherwise, and on a GPU, all samples take them together, for
    min(m^2, 2 n m) each, and groups that the gap proves to be zero in all samples that are left are dropped. What one
    way does not bring to its gap, the other goes on with. The first call on a CPU compiles, which takes some seconds.

    Args:
        data: Y, float32 or float64. dictionary: W, of the same dtype and device.
        penalty: lambda > 0, a number or one for each sample. group_size: d.
        nonnegative, elementwise_penalty: as `group_lasso_objective`.
        tol: stop a sample at gap <= tol * objective; None for 1e-6 in float64 and 1e-4 in float32. That reaches
            1e-6 where atoms are nearly orthogonal; otherwise what the rounding of codes allows on a CPU, whose sums are
            in float64, and less on a GPU.
        max_iter: proximal steps a sample; 0 only certifies the start.
        start: codes to start from, for example those of a nearby penalty.
        progress: show a progress bar over blocks of samples.

    Warns:
        NotConvergedWarning: some samples reached `max_iter`, or a gap that rounding does not let them lower;
            `converged` says which.

    Raises:
        ValueError: shapes or dtypes that do not match, a penalty that is not positive, or a bad setting.
    """
    check_matrix("dictionary", dictionary)
    check_matrix("data", data, columns=dictionary.shape[0])
    if data.dtype != dictionary.dtype:
        raise ValueError(f"data: expected dtype {dictionary.dtype} as the dictionary, got {describe(data)}")
    if data.dtype not in TOLERANCES:
        raise ValueError(f"data: expected float32 or float64, got {describe(data)}")
    to_groups(dictionary, group_size)
    penalty = _per_sample(penalty, data)
    if not bool((penalty > 0).all()):
        raise ValueError(f"penalty={penalty.min().item():g}: expected values > 0")
    check_real("elementwise_penalty", elementwise_penalty)
    tol = TOLERANCES[data.dtype] if tol is None else check_real("tol", tol, strict=True)
    max_iter = check_int("max_iter", max_iter, low=0)
    shape = (len(data), dictionary.shape[1])
    codes = torch.zeros(shape, dtype=data.dtype, device=data.device) if start is None else start.detach().clone()
    if codes.shape != shape or codes.dtype != data.dtype:
        raise ValueError(f"start: expected {shape} {data.dtype}, got {describe(codes)}")
    solver = _Solver(dictionary.detach(), group_size, nonnegative, elementwise_penalty, tol, max_iter)
    codes, iterations, objective, gap = solver.solve(data, penalty, codes, progress)
    converged = gap <= tol * objective
    if not bool(converged.all()):
        worst = (gap / objective)[~converged].max().item()
        warnings.warn(
            f"{int((~converged).sum())} of {len(data)} samples have a relative gap above tol={tol:g} "
            f"(up to {worst:.1e}) after max_iter={max_iter}, or where {data.dtype} allows no more",
            NotConvergedWarning,
            stacklevel=2,
        )
    return SparseCodingResult(codes, penalty, objective, gap, iterations, converged)


def excess_objective(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: Penalty,
    group_size: int,
    *,
    nonnegative: bool = False,
    tol: float | None = None,
) -> Float[Tensor, " samples"]:
    r"""How far codes are from the minimum of the group lasso, relative to it: 0 is the best, .05 is five per cent.

    .. math:: \frac{P(x)}{P(x^*)} - 1

    The minimum is that of `group_sparse_code`, so the number is too small by at most its relative gap. Samples whose
    minimum is 0, all of them zero, have excess 0 or infinity.

    Args:
        codes: x, of any encoder. penalty: lambda > 0, a number or one for each sample. Other arguments as
            `group_sparse_code`.

    Raises:
        ValueError: as `group_sparse_code`.
    """
    settings = {"nonnegative": nonnegative}
    best = group_sparse_code(data, dictionary, penalty, group_size, tol=tol, start=codes, **settings).objective
    found = group_lasso_objective(data, dictionary, codes, penalty, group_size, **settings)
    excess = found / torch.where(best > 0, best, 1.0) - 1
    return torch.where(best > 0, excess, torch.where(found > 0, torch.inf, 0.0))


def penalty_path(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    group_size: int,
    *,
    n_penalties: int = 20,
    ratio: float = 0.01,
    **settings: Any,
) -> tuple[SparseCodingResult, ...]:
    r"""Codes along decreasing penalties, each started from the one before.

    .. math:: \lambda_k = \lambda_{\max} \, \text{ratio}^{k / (K - 1)}, \qquad k = 0, \ldots, K - 1

    lambda_max, each sample's own, is `largest_penalty`; a zero sample takes lambda_max = 1. Further settings are those
    of `group_sparse_code`.

    Raises:
        ValueError: fewer than two penalties, a ratio outside (0, 1), or as `group_sparse_code`.
    """
    check_int("n_penalties", n_penalties, low=2)
    check_real("ratio", ratio, high=1.0, strict=True)
    options: dict[str, Any] = {k: v for k, v in settings.items() if k in ("nonnegative", "elementwise_penalty")}
    largest = largest_penalty(data, dictionary, group_size, **options)
    largest = torch.where(largest > 0, largest, 1.0)
    results: list[SparseCodingResult] = []
    for k in range(n_penalties):
        start = results[-1].codes if results else None
        penalty = largest * ratio ** (k / (n_penalties - 1))
        results.append(group_sparse_code(data, dictionary, penalty, group_size, start=start, **settings))
    return tuple(results)


class _Solver:
    """Accelerated proximal gradient steps for blocks of samples on one dictionary.

    With H = Y W and C = H - X G (G = W^T W), the correlations W^T (y - W x), one product a step is enough: what C is
    at the extrapolated point follows from its last two values.
    """

    def __init__(
        self,
        dictionary: Tensor,
        group_size: int,
        nonnegative: bool,
        elementwise_penalty: float,
        tol: float,
        max_iter: int,
    ) -> None:
        self.dictionary, self.exact_dictionary, self.group_size = dictionary, dictionary.double(), group_size
        self.nonnegative, self.elementwise_penalty = nonnegative, elementwise_penalty
        self.tol, self.max_iter = tol, max_iter
        n, m = dictionary.shape
        self.gram = dictionary.T @ dictionary if m <= 2 * n else None
        smaller = self.gram if self.gram is not None and m <= n else dictionary @ dictionary.T
        largest = torch.linalg.eigvalsh(smaller)[-1]
        self.step = (1 / largest).item() if largest > 0 else 1.0
        blocks = to_groups(dictionary, group_size).movedim(1, 0)
        self.norms = torch.linalg.eigvalsh(blocks.mT @ blocks)[:, -1].clamp(min=0).sqrt()  # spectral norm of each group

    def solve(self, data: Tensor, penalty: Tensor, start: Tensor, progress: bool) -> _Solved:
        """Codes, iterations, objective and gap of all samples; what one way leaves, the other goes on with."""
        way, *others = self._ways(data, penalty, start)
        found = self._in_blocks(way, data, penalty, start, self.max_iter, progress)
        codes, iterations, objective, gap = found
        for other in others:
            left = (gap > self.tol * objective) & (iterations < self.max_iter)
            if bool(left.any()):
                steps = self.max_iter - int(iterations[left].max())
                again = self._in_blocks(other, data[left], penalty[left], codes[left], steps, progress)
                codes[left], objective[left], gap[left] = again[0], again[2], again[3]
                iterations[left] += again[1]
        return found

    def _ways(self, data: Tensor, penalty: Tensor, start: Tensor) -> list[_Way]:
        """One by one and together, or the other way round."""
        n_atoms = self.dictionary.shape[1]
        if data.device.type != "cpu" or n_atoms**2 > LARGEST_GRAM:
            return [self._solve_together]
        few = FEW if n_atoms**2 <= SMALL_GRAM else FEW_OF_MANY
        probed = (x[:PROBED] for x in (data, penalty, start))
        if len(data) >= PROBED_OF and self._solve_each(*probed, self.max_iter)[1] > few:
            return [self._solve_together, self._solve_one_by_one]
        return [self._solve_one_by_one, self._solve_together]

    def _in_blocks(
        self, way: _Way, data: Tensor, penalty: Tensor, start: Tensor, max_iter: int, progress: bool
    ) -> _Solved:
        entries = ALONE_ENTRIES if way == self._solve_one_by_one else BLOCK_ENTRIES
        rows = max(1, entries // start.shape[1]) if data.device.type == "cpu" else max(1, len(data))
        blocks = zip(data.split(rows), penalty.split(rows), start.split(rows), strict=True)
        solved = map_blocks(lambda block: way(*block, max_iter), blocks, data.device)
        found = list(tqdm(solved, "coding", -(-len(data) // rows), unit="block", disable=not progress))
        codes, iterations, objective, gap = (torch.cat(parts) for parts in zip(*found, strict=True))
        return codes, iterations, objective, gap

    def _solve_one_by_one(self, data: Tensor, penalty: Tensor, start: Tensor, max_iter: int) -> _Solved:
        found, _ = self._solve_each(data, penalty, start, max_iter)
        codes = found[0].to(start.dtype)
        every = torch.arange(len(data))
        return codes, found[1], *self._certify(data, codes, penalty, every)

    def _solve_each(
        self, data: Tensor, penalty: Tensor, start: Tensor, max_iter: int
    ) -> tuple[tuple[Tensor, Tensor], float]:
        """Codes in float64 and iterations; the multiplications, as a share of those of all samples together."""
        exact = data.double()
        codes, iterations = start.double().contiguous().clone(), torch.zeros(len(data), dtype=torch.long)
        # Codes in float32 are rounded at the end.
        tol = self.tol * (0.5 if data.dtype == torch.float32 else 0.99)
        share = solve_rows(
            (exact @ self.exact_dictionary).numpy(),
            exact.square().sum(dim=1).numpy(),
            penalty.contiguous().numpy(),
            self.exact_gram.numpy(),
            self.step,
            self.group_size,
            self.nonnegative,
            float(self.elementwise_penalty),
            tol,
            max_iter,
            codes.numpy(),
            iterations.numpy(),
        )
        return (codes, iterations), share

    @functools.cached_property
    def exact_gram(self) -> Tensor:
        """G = W^T W in float64."""
        return self.exact_dictionary.T @ self.exact_dictionary

    @torch.no_grad()
    def _solve_together(self, data: Tensor, exact_penalty: Tensor, start: Tensor, max_iter: int) -> _Solved:
        penalty = exact_penalty.to(data.dtype)
        gram, dictionary, norms = self.gram, self.dictionary, self.norms

        def project(x: Tensor) -> Tensor:
            return x @ gram if gram is not None else (x @ dictionary.T) @ dictionary

        codes = torch.zeros_like(start)
        iterations = torch.zeros(len(data), dtype=torch.long, device=data.device)
        objective, gap = torch.empty_like(exact_penalty), torch.empty_like(exact_penalty)
        samples = torch.arange(len(data), device=data.device)  # those that are left
        atoms = torch.arange(dictionary.shape[1], device=data.device)
        energy, correlations = data.square().sum(dim=1), data @ dictionary
        x = point = start
        projected = point_projected = project(x)
        momentum = torch.ones_like(energy).unsqueeze(1)
        best, stale = torch.full_like(energy, torch.inf), torch.zeros_like(energy)
        for iteration in range(max_iter + 1):
            last = iteration == max_iter
            if iteration % CHECK_EVERY == 0 or last:
                value, bound, slack = self._gap(x, projected, correlations, energy, penalty[samples])
                bound = bound.clamp(min=0)  # rounding can make it negative
                rounding = 10 * torch.finfo(x.dtype).eps * energy
                stale = torch.where(bound < 0.99 * best, 0.0, stale + 1)
                best = torch.minimum(best, bound)
                stuck = ((stale >= PATIENCE) & (best <= NEAR_ROUNDING * rounding)) | last
                candidates = (bound <= self.tol * value) | stuck
                if bool(candidates.any()):
                    leaving = samples[candidates]
                    codes[leaving.unsqueeze(1), atoms] = x[candidates]
                    objective[leaving], gap[leaving] = self._certify(data, codes, exact_penalty, leaving)
                    iterations[leaving] = iteration
                    candidates[candidates.clone()] = (gap[leaving] <= self.tol * objective[leaving]) | stuck[candidates]
                if bool(candidates.all()):
                    break
                keep = ~candidates
                samples, correlations, energy, best, stale = (
                    v[keep] for v in (samples, correlations, energy, best, stale)
                )
                x, point, momentum = x[keep], point[keep], momentum[keep]
                projected, point_projected, slack = projected[keep], point_projected[keep], slack[keep]
                # Gap safe: no optimum uses a group whose dual constraint stays slack in the whole ball around theta.
                radius = (2 * bound[keep] + rounding[keep]).sqrt().unsqueeze(1)
                used = (slack <= radius * norms).any(dim=0)
                if used.sum() < 0.8 * len(used):
                    columns = used.repeat_interleave(self.group_size)
                    atoms, norms, dictionary = atoms[columns], norms[used], dictionary[:, columns]
                    gram = gram[columns][:, columns] if gram is not None else None
                    correlations, x, point = correlations[:, columns], x[:, columns], point[:, columns]
                    projected, point_projected = project(x), project(point)
            stepped = self._prox(point + self.step * (correlations - point_projected), penalty[samples])
            change = stepped - x
            uphill = ((point - stepped) * change).sum(dim=1, keepdim=True) > 0
            before = torch.where(uphill, 1.0, momentum)
            momentum = (1 + (1 + 4 * before.square()).sqrt()) / 2
            ahead = (before - 1) / momentum
            stepped_projected = project(stepped)
            point = torch.addcmul(stepped, ahead, change)
            point_projected = torch.addcmul(stepped_projected, ahead, stepped_projected - projected)
            x, projected = stepped, stepped_projected
        return codes, iterations, objective, gap

    def _certify(self, data: Tensor, codes: Tensor, penalty: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(objective, gap) of some samples, recomputed in float64."""
        exact = (data[rows].double(), self.exact_dictionary, codes[rows].double(), penalty[rows])
        return _certificate(*exact, self.group_size, self.nonnegative, self.elementwise_penalty)

    def _prox(self, x: Tensor, penalty: Tensor) -> Tensor:
        blocks = to_groups(x, self.group_size)
        thresholds = self.step * penalty.unsqueeze(1)
        return shrink_groups(blocks, thresholds, self.nonnegative, self.step * self.elementwise_penalty).flatten(-2)

    def _gap(
        self, x: Tensor, projected: Tensor, correlations: Tensor, energy: Tensor, penalty: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(objective, gap, slack of each group's dual constraint) from inner products, without forming a residual."""
        fit = (x * correlations).sum(dim=1)
        residual = (energy - 2 * fit + (x * projected).sum(dim=1)).clamp(min=0)  # ||y - W x||^2
        constraint = _dual_norms(correlations - projected, self.group_size, self.nonnegative, self.elementwise_penalty)
        scale = _dual_scale(penalty, constraint.amax(dim=1))
        dual = scale * (energy - fit) - 0.5 * scale.square() * residual
        objective = 0.5 * residual + _penalties(x, penalty, self.group_size, self.elementwise_penalty)
        # The constraint at scale * r is at most scale times that at r, with equality without an elementwise penalty.
        return objective, objective - dual, penalty.unsqueeze(1) - scale.unsqueeze(1) * constraint


def _certificate(
    data: Tensor,
    dictionary: Tensor,
    codes: Tensor,
    penalty: Tensor,
    group_size: int,
    nonnegative: bool,
    elementwise_penalty: float,
) -> tuple[Tensor, Tensor]:
    """(objective, duality gap), from the residual; unchecked."""
    residual = data - codes @ dictionary.T
    objective = 0.5 * residual.square().sum(dim=1) + _penalties(codes, penalty, group_size, elementwise_penalty)
    if nonnegative:
        objective = torch.where((codes < 0).any(dim=1), torch.inf, objective)
    largest = _dual_norms(residual @ dictionary, group_size, nonnegative, elementwise_penalty).amax(dim=1)
    feasible = residual * _dual_scale(penalty, largest).unsqueeze(1)
    dual = 0.5 * data.square().sum(dim=1) - 0.5 * (data - feasible).square().sum(dim=1)
    return objective, objective - dual


def _penalties(codes: Tensor, penalty: Tensor, group_size: int, elementwise_penalty: float) -> Tensor:
    value = penalty * group_norms(codes, group_size).sum(dim=1)
    return value + elementwise_penalty * codes.abs().sum(dim=1) if elementwise_penalty else value


def _dual_norms(correlations: Tensor, group_size: int, nonnegative: bool, elementwise_penalty: float) -> Tensor:
    """||S_e(c_g)|| of each group, which the dual constraint compares with lambda: (samples, groups)."""
    if nonnegative:
        correlations = (correlations - elementwise_penalty).clamp(min=0)
    elif elementwise_penalty:
        correlations = torch.nn.functional.softshrink(correlations, elementwise_penalty)
    return group_norms(correlations, group_size)


def _dual_scale(penalty: Tensor, largest: Tensor) -> Tensor:
    """How far to shrink a residual until it is feasible, at most 1."""
    return (penalty / torch.where(largest > 0, largest, 1.0)).clamp(max=1.0).where(largest > 0, 1.0)


def _per_sample(penalty: Penalty, data: Tensor) -> Tensor:
    """One penalty a sample, in float64."""
    if not isinstance(penalty, Tensor):
        check_real("penalty", penalty)
        return torch.full((len(data),), penalty, dtype=torch.float64, device=data.device)
    if penalty.shape != (len(data),) or not bool(((penalty >= 0) & penalty.isfinite()).all()):
        raise ValueError(f"penalty: expected a number or {len(data)} finite values >= 0, got {describe(penalty)}")
    return penalty.to(data.device, torch.float64)


def _checked(
    data: Tensor, dictionary: Tensor, codes: Tensor, penalty: Penalty
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_certificate` takes: checked, in float64."""
    check_matrix("dictionary", dictionary)
    check_matrix("data", data)
    check_matrix("codes", codes)
    if data.shape != (len(codes), dictionary.shape[0]) or codes.shape[1] != dictionary.shape[1]:
        shapes = ", ".join(describe(x) for x in (data, dictionary, codes))
        raise ValueError(f"data, dictionary, codes: expected (N, n), (n, m), (N, m), got {shapes}")
    return data.double(), dictionary.double(), codes.double(), _per_sample(penalty, data)
