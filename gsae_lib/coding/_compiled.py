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
    x: Float[np.ndarray, " atoms"],
    thresholds: Float[np.ndarray, " groups"],
    l1: float,
    nonnegative: bool,
    starts: Int[np.ndarray, " starts"],
    n_groups: int,
) -> None:
    """`GroupPenalty.prox` of one sample, in place."""
    if nonnegative:
        for j in range(len(x)):
            x[j] = max(x[j] - l1, 0.0)
    elif l1 > 0:
        for j in range(len(x)):
            x[j] -= min(max(x[j], -l1), l1)
    if starts[n_groups] == n_groups:
        for j in range(len(x)):
            x[j] -= min(max(x[j], -thresholds[j]), thresholds[j])
        return
    for g in range(n_groups):
        square, threshold = 0.0, thresholds[g]
        for j in range(starts[g], starts[g + 1]):
            square += x[j] * x[j]
        scale = 1 - threshold / math.sqrt(square) if square > threshold * threshold else 0.0
        for j in range(starts[g], starts[g + 1]):
            x[j] *= scale


@compiled
def _dual_norm(
    correlations: Float[np.ndarray, " atoms"],
    product: Float[np.ndarray, " atoms"],
    first: int,
    last: int,
    nonnegative: bool,
    l1: float,
) -> float:
    """||S_e(h - G x)|| over the atoms from first to last."""
    square = 0.0
    for j in range(first, last):
        slope = correlations[j] - product[j]
        value = max((slope if nonnegative else abs(slope)) - l1, 0.0)
        square += value * value
    return math.sqrt(square)


@compiled
def _objective_and_gap(
    x: Float[np.ndarray, " atoms"],
    product: Float[np.ndarray, " atoms"],
    correlations: Float[np.ndarray, " atoms"],
    energy: float,
    penalty: float,
    l1: float,
    starts: Int[np.ndarray, " starts"],
    weights: Float[np.ndarray, " groups"],
    n_groups: int,
    largest: float,
) -> tuple[float, float]:
    """As `_solver.certify_codes`, from inner products, given the largest dual constraint of any group."""
    fit, square, penalties = 0.0, 0.0, 0.0
    for g in range(n_groups):
        total = 0.0
        for j in range(starts[g], starts[g + 1]):
            fit += x[j] * correlations[j]
            square += x[j] * product[j]
            total += x[j] * x[j]
            penalties += l1 * abs(x[j])
        penalties += penalty * weights[g] * math.sqrt(total)
    residual = max(energy - 2 * fit + square, 0.0)
    scale = penalty / largest if largest > penalty else 1.0
    objective = 0.5 * residual + penalties
    return objective, max(objective - scale * (energy - fit) + 0.5 * scale * scale * residual, 0.0)


@compiled
def _spread(
    whole: Float[np.ndarray, " atoms"],
    part: Float[np.ndarray, " kept"],
    starts: Int[np.ndarray, " starts"],
    kept: Int[np.ndarray, " groups"],
    n_kept: int,
) -> None:
    """Put the entries of the kept groups to their place among all, which are zero otherwise."""
    whole[:] = 0
    place = 0
    for g in range(n_kept):
        for j in range(starts[kept[g]], starts[kept[g] + 1]):
            whole[j] = part[place]
            place += 1


@compiled
def _gather(
    part: Float[np.ndarray, " kept"],
    whole: Float[np.ndarray, " atoms"],
    starts: Int[np.ndarray, " starts"],
    kept: Int[np.ndarray, " groups"],
    n_kept: int,
) -> None:
    """The entries of the kept groups."""
    place = 0
    for g in range(n_kept):
        for j in range(starts[kept[g]], starts[kept[g] + 1]):
            part[place] = whole[j]
            place += 1


@compiled
def _gather_square(
    part: Float[np.ndarray, "kept kept"],
    whole: Float[np.ndarray, "atoms atoms"],
    starts: Int[np.ndarray, " starts"],
    kept: Int[np.ndarray, " groups"],
    n_kept: int,
) -> float:
    """The rows and columns of the kept groups; the largest sum of moduli of a row, which bounds the eigenvalues."""
    largest, place = 0.0, 0
    for g in range(n_kept):
        for i in range(starts[kept[g]], starts[kept[g] + 1]):
            row = part[place]
            _gather(row, whole[i], starts, kept, n_kept)
            total = 0.0
            for j in range(len(row)):
                total += abs(row[j])
            largest = max(largest, total)
            place += 1
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
    starts: Int[np.ndarray, " starts"],
    weights: Float[np.ndarray, " groups"],
    nonnegative: bool,
    l1: float,
    tol: float,
    max_iter: int,
    codes: Float[np.ndarray, "samples atoms"],
    iterations: Int[np.ndarray, " samples"],
) -> None:
    r"""Solve the group lasso sample by sample in Gram form, by accelerated steps, from `codes`, in place.

    With H = Y W and G = W^T W, the dual constraint of a group is ||S_e(h - G x)|| / w_g. Groups with zero entries and a
    slack constraint rest: steps take the rows of G of atoms that are in use, and its columns of groups that do not
    rest, whose Lipschitz constant is at most the largest sum of moduli of a row. A look at the gap multiplies by G.

    Args:
        correlations: H. energies: ||y||^2. penalties: lambda > 0. gram: G. step: 1 over G's largest eigenvalue.
        starts: where each group begins, and the end. weights: w_g > 0. l1: e >= 0. iterations: gets the steps taken.
    """
    n_samples, n_atoms = correlations.shape
    n_groups = len(starts) - 1
    used, kept = np.empty(n_atoms, np.int64), np.empty(n_groups, np.int64)
    awake, wakes = np.empty(n_groups, np.bool_), np.empty(n_groups, np.bool_)
    whole, whole_point, whole_product = np.empty(n_atoms), np.empty(n_atoms), np.empty(n_atoms)
    rows, store = np.empty((7, n_atoms)), np.empty(0)
    ends, heavy, thresholds = np.empty(n_groups + 1, np.int64), np.empty(n_groups), np.empty(n_groups)
    for i in range(n_samples):
        energy, penalty = energies[i], penalties[i]
        rounding = 10 * np.finfo(np.float64).eps * energy
        width, n_kept, part, rate = n_atoms, n_groups, gram, step
        kept[:], awake[:] = np.arange(n_groups), True
        ends[:], heavy[:] = starts, weights  # of the kept groups
        for g in range(n_groups):
            thresholds[g] = rate * penalty * weights[g]
        h, x, gx, point, gpoint, new, gnew = _narrow(rows, width)
        h[:], x[:], point[:] = correlations[i], codes[i], codes[i]
        _multiply(gx, part, x, used, _find_nonzero(x, used))
        gpoint[:] = gx
        momentum, best, stale, iteration = 1.0, np.inf, 0, 0
        while True:
            if iteration % CHECK_EVERY == 0 or iteration == 1 or iteration == max_iter:
                _spread(whole, x, starts, kept, n_kept)
                _spread(whole_point, point, starts, kept, n_kept)
                if n_kept == n_groups:
                    whole_product[:] = gx
                else:
                    _multiply(whole_product, gram, whole, used, _find_nonzero(whole, used))
                largest, n_awake, woken = 0.0, 0, False
                for g in range(n_groups):
                    first, last = starts[g], starts[g + 1]
                    constraint = _dual_norm(correlations[i], whole_product, first, last, nonnegative, l1) / weights[g]
                    largest = max(largest, constraint)
                    wakes[g] = constraint > RESTING * penalty
                    for j in range(first, last):
                        wakes[g] = wakes[g] or whole[j] != 0 or whole_point[j] != 0
                    woken = woken or (wakes[g] and not awake[g])
                    n_awake += wakes[g]
                objective, gap = _objective_and_gap(x, gx, h, energy, penalty, l1, ends, heavy, n_kept, largest)
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
                            kept[n_kept], heavy[n_kept] = g, weights[g]
                            ends[n_kept + 1] = ends[n_kept] + starts[g + 1] - starts[g]
                            n_kept += 1
                    width = ends[n_kept]
                    if len(store) < width * width:
                        store = np.empty(width * width)
                    part = store[: width * width].reshape(width, width)
                    h, x, gx, point, gpoint, new, gnew = _narrow(rows, width)
                    _gather(h, correlations[i], starts, kept, n_kept)
                    _gather(x, whole, starts, kept, n_kept)
                    _gather(point, whole_point, starts, kept, n_kept)
                    bound = _gather_square(part, gram, starts, kept, n_kept)
                    rate = max(step, 1 / bound) if bound > 0 else step
                    for g in range(n_kept):
                        thresholds[g] = rate * penalty * heavy[g]
                    _multiply(gx, part, x, used, _find_nonzero(x, used))
                    _multiply(gpoint, part, point, used, _find_nonzero(point, used))
            for j in range(width):
                new[j] = point[j] + rate * (h[j] - gpoint[j])
            _shrink(new, thresholds, rate * l1, nonnegative, ends, n_kept)
            uphill = 0.0
            for j in range(width):
                uphill += (point[j] - new[j]) * (new[j] - x[j])
            before = 1.0 if uphill > 0 else momentum
            momentum = (1 + math.sqrt(1 + 4 * before * before)) / 2
            ahead = (before - 1) / momentum
            _multiply(gnew, part, new, used, _find_nonzero(new, used))
            for j in range(width):
                point[j] = new[j] + ahead * (new[j] - x[j])
                gpoint[j] = gnew[j] + ahead * (gnew[j] - gx[j])
            x[:], gx[:] = new, gnew
            iteration += 1
        iterations[i] = iteration
        _spread(codes[i], x, starts, kept, n_kept)
