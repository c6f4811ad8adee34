"""Group-sparse coding: the objective that the encoder descends, a certificate, and a solver that stops on it.

`penalty` is lambda, a number or one for each sample, beside `groups`; or a `GroupPenalty`, which has both, and weights,
non-negativity and ||x||_1 besides.

Source: arXiv 2102.07003, eq. 6; gap and screening are those of Ndiaye et al., "Gap safe screening rules" (2017); the
accelerated steps are FISTA (Beck and Teboulle, 2009) with restarts (O'Donoghue and Candes, 2015).
"""

import dataclasses
import math
import warnings
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gsae_lib._checks import check_devices, check_int, check_matrix, check_real, describe, without_autocast
from gsae_lib.coding._solver import Solver, certify_codes
from gsae_lib.groups import Groups
from gsae_lib.penalty import GroupPenalty, as_penalty

Penalty = float | Float[Tensor, " samples"] | GroupPenalty
# The relative gap asked for by default: what each precision reaches.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6}


class NotConvergedWarning(UserWarning):
    """Some codes are further from the minimum than was asked for."""


@without_autocast
def group_lasso_objective(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: Penalty,
    groups: Groups | None = None,
) -> Float[Tensor, " samples"]:
    r"""Objective of each sample, in squared units of the data, computed in float64.

    .. math:: P(x) = \tfrac12 \|y - W x\|^2 + \lambda \sum_g w_g \|x_g\| + e \|x\|_1

    Where groups overlap, dictionary and codes are those of the copies.
    """
    return certify_codes(*_checked(data, dictionary, codes, as_penalty(penalty, groups)))[0]


@without_autocast
def duality_gap(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: Penalty,
    groups: Groups | None = None,
) -> Float[Tensor, " samples"]:
    r"""Duality gap of each sample: an upper bound on objective(x) - minimum, and 0 only at a minimiser.

    .. math:: P(x) - D(\theta), \qquad D(\theta) = \tfrac12\|y\|^2 - \tfrac12\|y - \theta\|^2, \qquad
              \theta = r \min\Big(1, \min_g \frac{\lambda w_g}{\|S_e(W_g^T r)\|}\Big), \quad r = y - W x

    where S_e is the soft threshold at e (for `nonnegative`, (. - e)_+), and theta is feasible:
    ||S_e(W_g^T theta)|| <= lambda w_g for all g. Computed in float64. Arguments as `group_lasso_objective`.
    """
    return certify_codes(*_checked(data, dictionary, codes, as_penalty(penalty, groups)))[1]


@dataclasses.dataclass(frozen=True, eq=False)
class SparseCodingResult:
    """What the solver found, one value a sample.

    codes: (samples, atoms). penalty: lambda. objective: P at the codes. gap: the duality gap, so objective - gap is a
    lower bound of the minimum; both recomputed from the codes in float64. n_iter: proximal steps taken.
    converged: whether gap <= tol * objective. copies: where groups overlap, the codes of the copies of atoms, whose
    sums are the codes; objective and gap are theirs.
    """

    codes: Float[Tensor, "samples atoms"]
    penalty: Float[Tensor, " samples"]
    objective: Float[Tensor, " samples"]
    gap: Float[Tensor, " samples"]
    n_iter: Int[Tensor, " samples"]
    converged: Bool[Tensor, " samples"]
    copies: Float[Tensor, "samples copies"] | None = None


@without_autocast
def largest_penalty(
    data: Float[Tensor, "samples features"], dictionary: Float[Tensor, "features atoms"], groups: Groups | GroupPenalty
) -> Float[Tensor, " samples"]:
    r"""The smallest lambda at which each sample's code is zero.

    .. math:: \lambda_{\max} = \max_g \frac{\|S_e(W_g^T y)\|}{w_g}

    Args:
        groups: those of the penalty, or a `GroupPenalty`, whose own lambda does not count.
    """
    penalty = groups if isinstance(groups, GroupPenalty) else GroupPenalty(0.0, groups)
    _check_problem(data, dictionary, penalty)
    return penalty.copied.dual_norms(_copied(data @ dictionary, penalty)).amax(dim=1)


@without_autocast
def group_sparse_code(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    penalty: Penalty,
    groups: Groups | None = None,
    *,
    tol: float | None = None,
    max_iter: int = 10_000,
    init: Float[Tensor, "samples atoms"] | None = None,
    progress: bool = False,
) -> SparseCodingResult:
    r"""Solve the group lasso for each sample to a certified gap.

    .. math:: \min_x \tfrac12 \|y - W x\|^2 + \lambda \sum_g w_g \|x_g\| + e \|x\|_1 \quad (x \ge 0)

    Accelerated proximal gradient steps: each sample has its own momentum, which restarts when it points uphill, and
    ends when its gap is small enough. On a CPU a sample takes its steps alone, in float64: an iteration costs k d m'
    multiplications, for k groups in use and m' atoms of groups whose dual constraint is nearly tight. Without numba,
    with more than 4,096 atoms, and on a GPU, all samples take them together, for min(m^2, 2 n m) each, and groups that
    the gap proves to be zero in all samples that are left are dropped. The first call on a CPU compiles for seconds.

    Args:
        data: Y, float32 or float64. dictionary: W, of the same dtype and device.
        penalty: lambda > 0, a number or one for each sample, beside `groups`; or a `GroupPenalty`. Groups that overlap
            are solved with a copy of an atom for each of them: objective and gap are those of that problem.
        tol: stop a sample at gap <= tol * objective; None for 1e-6 in float64 and 1e-4 in float32. That reaches
            1e-6 where atoms are nearly orthogonal; otherwise what the rounding of codes allows on a CPU, whose sums are
            in float64, and less on a GPU.
        max_iter: proximal steps a sample; 0 only certifies the initial codes.
        init: codes to start from, for example those of a nearby penalty; where groups overlap, `copies`.
        progress: show a progress bar over blocks of samples.

    Warns:
        NotConvergedWarning: some samples reached `max_iter`, or a gap that rounding does not let them lower;
            `converged` says which.
    """
    penalty = as_penalty(penalty, groups)
    check_devices(data=data, dictionary=dictionary, init=init)
    _check_problem(data, dictionary, penalty)
    if data.dtype not in TOLERANCES:
        raise ValueError(f"data: expected float32 or float64, got {describe(data)}")
    lambdas = _per_sample(penalty.penalty, data)
    if not bool((lambdas > 0).all()):
        raise ValueError(f"penalty={lambdas.min().item():g}: expected values > 0")
    if isinstance(penalty.weights, Tensor) and not bool((penalty.weights > 0).all()):
        raise ValueError(f"weights={penalty.weights.tolist()}: expected values > 0")
    tol = TOLERANCES[data.dtype] if tol is None else check_real("tol", tol, strict=True)
    max_iter = check_int("max_iter", max_iter, low=0)
    copied = _copied(dictionary.detach(), penalty)
    shape = (len(data), copied.shape[1])
    codes = torch.zeros(shape, dtype=data.dtype, device=data.device)
    if init is not None:
        init = init if penalty.layout.overlaps else _copied(init, penalty)
        if getattr(init, "shape", None) != shape or init.dtype != data.dtype:
            raise ValueError(f"init: expected {shape} {data.dtype}, got {describe(init)}")
        check_matrix("init", init)
        codes = init.detach().clamp(min=0) if penalty.nonnegative else init.detach().clone()
    solver = Solver(copied, penalty.copied, tol, max_iter)
    codes, iterations, objective, gap = solver.solve(data, lambdas, codes, progress)
    converged = gap.isfinite() & (gap <= tol * objective)
    if not bool(converged.all()):
        worst = (gap / objective)[~converged].max().item()
        warnings.warn(
            f"{int((~converged).sum())} of {len(data)} samples have a relative gap above tol={tol:g} "
            f"(up to {worst:.1e}) after max_iter={max_iter}, or where {data.dtype} allows no more",
            NotConvergedWarning,
            stacklevel=3,  # `without_autocast` is between
        )
    columns = penalty.layout.columns
    if columns is None:
        return SparseCodingResult(codes, lambdas, objective, gap, iterations, converged)
    summed = codes.new_zeros(len(data), dictionary.shape[1]).index_add_(1, columns.to(codes.device), codes)
    copies = codes if penalty.layout.overlaps else None
    return SparseCodingResult(summed, lambdas, objective, gap, iterations, converged, copies)


def excess_objective(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: Penalty,
    groups: Groups | None = None,
    *,
    tol: float | None = None,
) -> Float[Tensor, " samples"]:
    r"""How far codes are from the minimum of the group lasso, relative to it: 0 is the best, .05 is five per cent.

    .. math:: \frac{P(x)}{P(x^*)} - 1

    The minimum is that of `group_sparse_code`, so the number is too small by at most its relative gap. Samples whose
    minimum is 0, all of them zero, have excess 0 or infinity.

    Args:
        codes: x, of any encoder. Other arguments as `group_sparse_code`.
    """
    penalty = as_penalty(penalty, groups)
    best = group_sparse_code(data, dictionary, penalty, tol=tol, init=codes).objective
    reached = group_lasso_objective(data, dictionary, codes, penalty)
    excess = reached / torch.where(best > 0, best, 1.0) - 1
    return torch.where(best > 0, excess, torch.where(reached > 0, torch.inf, 0.0))


def penalty_path(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    groups: Groups | GroupPenalty,
    *,
    n_penalties: int = 20,
    ratio: float = 0.01,
    **settings: Any,
) -> tuple[SparseCodingResult, ...]:
    r"""Codes along decreasing penalties, each started from the one before.

    .. math:: \lambda_k = \lambda_{\max} \, \text{ratio}^{k / (K - 1)}, \qquad k = 0, \ldots, K - 1

    lambda_max, each sample's own, is `largest_penalty`; a zero sample takes lambda_max = 1. Further settings are those
    of `group_sparse_code`.

    Args:
        groups: as `largest_penalty`.

    Raises:
        ValueError: fewer than two penalties, a ratio outside (0, 1), or as `group_sparse_code`.
    """
    check_int("n_penalties", n_penalties, low=2)
    check_real("ratio", ratio, high=math.nextafter(1.0, 0.0), strict=True)
    penalty = groups if isinstance(groups, GroupPenalty) else GroupPenalty(1.0, groups)
    largest = largest_penalty(data, dictionary, penalty)
    largest = torch.where(largest > 0, largest, 1.0)
    results: list[SparseCodingResult] = []
    for k in range(n_penalties):
        last = results[-1] if results else None
        init = None if last is None else last.copies if last.copies is not None else last.codes
        now = penalty.with_penalty(largest * ratio ** (k / (n_penalties - 1)))
        results.append(group_sparse_code(data, dictionary, now, init=init, **settings))
    return tuple(results)


def _copied(x: Tensor, penalty: GroupPenalty) -> Tensor:
    """The columns in the order of the groups, one for each group that has an atom."""
    columns = penalty.layout.columns
    return x if columns is None else x[:, columns.to(x.device)]


def _check_problem(data: Tensor, dictionary: Tensor, penalty: GroupPenalty) -> None:
    check_devices(data=data, dictionary=dictionary)
    check_matrix("dictionary", dictionary)
    check_matrix("data", data, columns=dictionary.shape[0])
    if data.dtype != dictionary.dtype:
        raise ValueError(f"data: expected dtype {dictionary.dtype} as the dictionary, got {describe(data)}")
    penalty.check(dictionary)


def _per_sample(penalty: float | Tensor, data: Tensor) -> Tensor:
    """One penalty a sample, in float64."""
    if not isinstance(penalty, Tensor) or not penalty.ndim:
        return torch.full((len(data),), float(penalty), dtype=torch.float64, device=data.device)
    if penalty.shape != (len(data),):
        raise ValueError(f"penalty: expected a number or {len(data)} finite values >= 0, got {describe(penalty)}")
    return penalty.to(data.device, torch.float64)


def _checked(
    data: Tensor, dictionary: Tensor, codes: Tensor, penalty: GroupPenalty
) -> tuple[Tensor, Tensor, Tensor, GroupPenalty]:
    """What `certify_codes` takes: checked, in float64; the columns in the order of the groups."""
    check_devices(data=data, dictionary=dictionary, codes=codes)
    check_matrix("dictionary", dictionary)
    check_matrix("data", data)
    check_matrix("codes", codes)
    if data.shape != (len(codes), dictionary.shape[0]) or codes.shape[1] != dictionary.shape[1]:
        shapes = ", ".join(describe(x) for x in (data, dictionary, codes))
        raise ValueError(f"data, dictionary, codes: expected (N, n), (n, m), (N, m), got {shapes}")
    exact = penalty.with_penalty(_per_sample(penalty.penalty, data))
    if penalty.layout.overlaps:
        exact = exact.copied  # of the copies, which these are
    exact.check(dictionary)
    return data.double(), dictionary.double(), codes.double(), exact
