"""The solver of the group lasso, one sample at a time: compiled steps that take what is in use of the Gram matrix."""

import math

import numpy as np
from jaxtyping import Float, Int

from gsae_lib._loops import compiled

# Iterations between two looks at the gap, beside one after the first, which finds most groups that stay inactive.
CHECK_EVERY = 5
# Looks without a smaller gap after which a sample is given up, if its gap is near rounding.
PATIENCE = 60
# How near, in units of the rounding of a gap.
NEAR_ROUNDING = 3
# Groups whose dual constraint is at most this share of the penalty, and whose entries are zero, rest.
RESTING = 0.9
# What an iteration costs beside its product, in passes over the atoms that do not rest.
PASSES = 12


@compiled
def _find_nonzero(x: Float[np.ndarray, " atoms"], used: Int[np.ndarray, " atoms"]) -> int:
    """Write where x is not zero into `used`; how many there are."""
    count = 0
    for j in range(len(x)):
        if x[j] != 0:
            used[count] = j
            count += 1
    return count


@compiled
def _multiply(
    product: Float[np.ndarray, " atoms"],
    matrix: Float[np.ndarray, "atoms atoms"],
    x: Float[np.ndarray, " atoms"],
    used: Int[np.ndarray, " atoms"],
    n_used: int,
) -> None:
    """product = M x, for a symmetric M, from the rows of what is used, four at a time."""
    product[:] = 0
    fours = n_used // 4 * 4
    for q in range(0, fours, 4):
        a, b, c, d = used[q], used[q + 1], used[q + 2], used[q + 3]
        xa, xb, xc, xd = x[a], x[b], x[c], x[d]
        row_a, row_b, row_c, row_d = matrix[a], matrix[b], matrix[c], matrix[d]
        for j in range(len(product)):
            product[j] += (xa * row_a[j] + xb * row_b[j]) + (xc * row_c[j] + xd * row_d[j])
    for q in range(fours, n_used):
        value, row = x[used[q]], matrix[used[q]]
        for j in range(len(product)):
            product[j] += value * row[j]


@compiled
def _shrink(
    x: Float[np.ndarray, " atoms"], threshold: float, elementwise: float, nonnegative: bool, group_size: int
) -> None:
    """`activations.shrink_groups` of one sample, in place."""
    if nonnegative:
        for j in range(len(x)):
            x[j] = max(x[j] - elementwise, 0.0)
    elif elementwise > 0:
        for j in range(len(x)):
            x[j] -= min(max(x[j], -elementwise), elementwise)
    if group_size == 1:
        for j in range(len(x)):
            x[j] -= min(max(x[j], -threshold), threshold)
        return
    for first in range(0, len(x), group_size):
        square = 0.0
        for j in range(first, first + group_size):
            square += x[j] * x[j]
        scale = 1 - threshold / math.sqrt(square) if square > threshold * threshold else 0.0
        for j in range(first, first + group_size):
            x[j] *= scale


@compiled
def _dual_norm(
    correlations: Float[np.ndarray, " atoms"],
    product: Float[np.ndarray, " atoms"],
    first: int,
    last: int,
    nonnegative: bool,
    elementwise: float,
) -> float:
    """||S_e(h - G x)|| over the atoms from first to last."""
    square = 0.0
    for j in range(first, last):
        slope = correlations[j] - product[j]
        value = max((slope if nonnegative else abs(slope)) - elementwise, 0.0)
        square += value * value
    return math.sqrt(square)


@compiled
def _objective_and_gap(
    x: Float[np.ndarray, " atoms"],
    product: Float[np.ndarray, " atoms"],
    correlations: Float[np.ndarray, " atoms"],
    energy: float,
    penalty: float,
    elementwise: float,
    group_size: int,
    largest: float,
) -> tuple[float, float]:
    """As `_group_lasso.certify_codes`, from inner products, given the largest dual constraint of any group."""
    fit, square, penalties = 0.0, 0.0, 0.0
    for first in range(0, len(x), group_size):
        total = 0.0
        for j in range(first, first + group_size):
            fit += x[j] * correlations[j]
            square += x[j] * product[j]
            total += x[j] * x[j]
            penalties += elementwise * abs(x[j])
        penalties += penalty * math.sqrt(total)
    residual = max(energy - 2 * fit + square, 0.0)
    scale = penalty / largest if largest > penalty else 1.0
    objective = 0.5 * residual + penalties
    return objective, max(objective - scale * (energy - fit) + 0.5 * scale * scale * residual, 0.0)


@compiled
def _spread(
    whole: Float[np.ndarray, " atoms"],
    part: Float[np.ndarray, " kept"],
    kept: Int[np.ndarray, " groups"],
    n_kept: int,
    group_size: int,
) -> None:
    """Put the entries of the kept groups to their place among all, which are zero otherwise."""
    whole[:] = 0
    for g in range(n_kept):
        for k in range(group_size):
            whole[kept[g] * group_size + k] = part[g * group_size + k]


@compiled
def _gather(
    part: Float[np.ndarray, " kept"],
    whole: Float[np.ndarray, " atoms"],
    kept: Int[np.ndarray, " groups"],
    n_kept: int,
    group_size: int,
) -> None:
    """The entries of the kept groups."""
    for g in range(n_kept):
        for k in range(group_size):
            part[g * group_size + k] = whole[kept[g] * group_size + k]


@compiled
def _gather_square(
    part: Float[np.ndarray, "kept kept"],
    whole: Float[np.ndarray, "atoms atoms"],
    kept: Int[np.ndarray, " groups"],
    n_kept: int,
    group_size: int,
) -> float:
    """The rows and columns of the kept groups; the largest sum of moduli of a row, which bounds the eigenvalues."""
    largest = 0.0
    for g in range(n_kept):
        for k in range(group_size):
            row = part[g * group_size + k]
            _gather(row, whole[kept[g] * group_size + k], kept, n_kept, group_size)
            total = 0.0
            for j in range(len(row)):
                total += abs(row[j])
            largest = max(largest, total)
    return largest


@compiled
def _narrow(rows: Float[np.ndarray, "7 atoms"], width: int) -> tuple[Float[np.ndarray, " kept"], ...]:
    """The beginnings of the rows; one by one, so that each is known to be contiguous."""
    first, second, third, fourth = rows[0][:width], rows[1][:width], rows[2][:width], rows[3][:width]
    return first, second, third, fourth, rows[4][:width], rows[5][:width], rows[6][:width]


@compiled
def solve_rows(
    correlations: Float[np.ndarray, "samples atoms"],
    energies: Float[np.ndarray, " samples"],
    penalties: Float[np.ndarray, " samples"],
    gram: Float[np.ndarray, "atoms atoms"],
    step: float,
    group_size: int,
    nonnegative: bool,
    elementwise: float,
    tol: float,
    max_iter: int,
    codes: Float[np.ndarray, "samples atoms"],
    iterations: Int[np.ndarray, " samples"],
) -> float:
    r"""Solve the group lasso sample by sample in Gram form, by accelerated steps, from `codes`, in place.

    With H = Y W and G = W^T W, the dual constraint of a group is ||S_e(h - G x)||. Groups with zero entries and a slack
    constraint rest: steps take the rows of G of atoms that are in use, and its columns of groups that do not rest,
    whose Lipschitz constant is at most the largest sum of moduli of a row. A look at the gap multiplies by all of G.

    Args:
        correlations: H. energies: ||y||^2. penalties: lambda > 0. gram: G. step: 1 over G's largest eigenvalue.
        elementwise: e >= 0. iterations: gets the steps taken.

    Returns:
        the multiplications of the steps, as a share of those of as many products with all of G.
    """
    n_samples, n_atoms = correlations.shape
    n_groups = n_atoms // group_size
    used, kept = np.empty(n_atoms, np.int64), np.empty(n_groups, np.int64)
    awake, wakes = np.empty(n_groups, np.bool_), np.empty(n_groups, np.bool_)
    whole, whole_point, whole_product = np.empty(n_atoms), np.empty(n_atoms), np.empty(n_atoms)
    rows, store, work = np.empty((7, n_atoms)), np.empty(0), 0.0
    for i in range(n_samples):
        energy, penalty = energies[i], penalties[i]
        rounding = 10 * np.finfo(np.float64).eps * energy
        width, n_kept, part, rate = n_atoms, n_groups, gram, step
        kept[:], awake[:] = np.arange(n_groups), True
        h, x, gx, point, gpoint, new, gnew = _narrow(rows, width)
        h[:], x[:], point[:] = correlations[i], codes[i], codes[i]
        _multiply(gx, part, x, used, _find_nonzero(x, used))
        gpoint[:] = gx
        momentum, best, stale, iteration = 1.0, np.inf, 0, 0
        while True:
            if iteration % CHECK_EVERY == 0 or iteration == 1 or iteration == max_iter:
                _spread(whole, x, kept, n_kept, group_size)
                _spread(whole_point, point, kept, n_kept, group_size)
                if n_kept == n_groups:
                    whole_product[:] = gx
                else:
                    _multiply(whole_product, gram, whole, used, _find_nonzero(whole, used))
                largest, n_awake, woken = 0.0, 0, False
                for g in range(n_groups):
                    first, last = g * group_size, (g + 1) * group_size
                    constraint = _dual_norm(correlations[i], whole_product, first, last, nonnegative, elementwise)
                    largest = max(largest, constraint)
                    wakes[g] = constraint > RESTING * penalty
                    for j in range(first, last):
                        wakes[g] = wakes[g] or whole[j] != 0 or whole_point[j] != 0
                    woken = woken or (wakes[g] and not awake[g])
                    n_awake += wakes[g]
                objective, gap = _objective_and_gap(x, gx, h, energy, penalty, elementwise, group_size, largest)
                stale = 0 if gap < 0.99 * best else stale + 1
                best = min(best, gap)
                given_up = stale >= PATIENCE and best <= NEAR_ROUNDING * rounding
                if gap <= tol * objective or given_up or iteration == max_iter:
                    break
                if woken or n_awake < 0.8 * n_kept:
                    n_kept = 0
                    for g in range(n_groups):
                        awake[g] = wakes[g] or (woken and awake[g])
                        if awake[g]:
                            kept[n_kept] = g
                            n_kept += 1
                    width = n_kept * group_size
                    if len(store) < width * width:
                        store = np.empty(width * width)
                    part = store[: width * width].reshape(width, width)
                    h, x, gx, point, gpoint, new, gnew = _narrow(rows, width)
                    _gather(h, correlations[i], kept, n_kept, group_size)
                    _gather(x, whole, kept, n_kept, group_size)
                    _gather(point, whole_point, kept, n_kept, group_size)
                    bound = _gather_square(part, gram, kept, n_kept, group_size)
                    rate = max(step, 1 / bound) if bound > 0 else step
                    _multiply(gx, part, x, used, _find_nonzero(x, used))
                    _multiply(gpoint, part, point, used, _find_nonzero(point, used))
            for j in range(width):
                new[j] = point[j] + rate * (h[j] - gpoint[j])
            _shrink(new, rate * penalty, rate * elementwise, nonnegative, group_size)
            uphill = 0.0
            for j in range(width):
                uphill += (point[j] - new[j]) * (new[j] - x[j])
            before = 1.0 if uphill > 0 else momentum
            momentum = (1 + math.sqrt(1 + 4 * before * before)) / 2
            ahead = (before - 1) / momentum
            n_used = _find_nonzero(new, used)
            _multiply(gnew, part, new, used, n_used)
            for j in range(width):
                point[j] = new[j] + ahead * (new[j] - x[j])
                gpoint[j] = gnew[j] + ahead * (gnew[j] - gx[j])
            x[:], gx[:] = new, gnew
            work += (n_used + PASSES) * width
            iteration += 1
        iterations[i] = iteration
        _spread(codes[i], x, kept, n_kept, group_size)
    return work / max(1.0, float(iterations.sum()) * n_atoms * n_atoms)
