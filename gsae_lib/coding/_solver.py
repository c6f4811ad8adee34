"""The solver of `coding`: both of its ways, the duality gap that it stops on, and what decides between the ways.

Source: arXiv 2102.07003, eq. 6; gap and screening are those of Ndiaye et al., "Gap safe screening rules" (2017); the
accelerated steps are FISTA (Beck and Teboulle, 2009) with restarts (O'Donoghue and Candes, 2015).
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor
from tqdm import tqdm

from gsae_lib._loops import are_compiled
from gsae_lib._threads import BlockThreads
from gsae_lib.activations import shrink_groups
from gsae_lib.coding._compiled import CHECK_EVERY, NEAR_ROUNDING, PATIENCE, solve_rows
from gsae_lib.groups import group_norms, to_groups

_Solved = tuple[Tensor, Tensor, Tensor, Tensor]  # codes, iterations, objective, gap
_Way = Callable[[Tensor, Tensor, Tensor, int], _Solved]

# Entries of a block of samples on the CPU: its temporaries fit in the second-level cache.
BLOCK_ENTRIES = 2**18
# The same where samples are solved one by one, so that there is a block for each thread sooner.
ALONE_ENTRIES = 2**15
# Samples that are solved one by one to see whether that takes few multiplications, and how many there must be.
PROBED, PROBED_OF = 8, 64
# It does below these shares of those of all samples together: Gram matrices of up to 512 KiB, which stay in the
# second-level cache, and larger ones. Measured by benchmarks/coding_ways.py.
FEW, FEW_OF_MANY = 0.35, 0.1
SMALL_GRAM, LARGEST_GRAM = 2**16, 2**24  # entries
ALL_EIGENVALUES = 128  # rows of a matrix whose largest eigenvalue is no slower to have with all others


class Solver:
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
        second = self.gram if self.gram is not None else dictionary @ dictionary.T  # the same nonzero eigenvalues
        blocks = to_groups(dictionary, group_size).movedim(1, 0)
        with BlockThreads(dictionary.device):  # small products, between which several threads would only wait
            largest = _largest_eigenvalue(second)
            own = torch.linalg.eigvalsh(blocks.mT @ blocks)[:, -1]
        self.step = 1 / largest if largest > 0 else 1.0
        self.norms = own.clamp(min=0).sqrt()  # spectral norm of each group

    @torch.no_grad()
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
        if data.device.type != "cpu" or n_atoms**2 > LARGEST_GRAM or not are_compiled():
            return [self._solve_together]
        few = FEW if n_atoms**2 <= SMALL_GRAM else FEW_OF_MANY
        if len(data) >= PROBED_OF:
            share = self._solve_each(data[:PROBED], penalty[:PROBED], start[:PROBED], self.max_iter)[2]
            if share > few:
                return [self._solve_together, self._solve_one_by_one]
        return [self._solve_one_by_one, self._solve_together]

    def _in_blocks(
        self, way: _Way, data: Tensor, penalty: Tensor, start: Tensor, max_iter: int, progress: bool
    ) -> _Solved:
        entries = ALONE_ENTRIES if way == self._solve_one_by_one else BLOCK_ENTRIES
        rows = max(1, entries // start.shape[1]) if data.device.type == "cpu" else max(1, len(data))
        blocks = zip(data.split(rows), penalty.split(rows), start.split(rows), strict=True)
        with BlockThreads(data.device) as threads:
            solved = threads.map(lambda block: way(*block, max_iter), blocks)
            found = list(tqdm(solved, "coding", -(-len(data) // rows), unit="block", disable=not progress))
        codes, iterations, objective, gap = (torch.cat(parts) for parts in zip(*found, strict=True))
        return codes, iterations, objective, gap

    def _solve_one_by_one(self, data: Tensor, penalty: Tensor, start: Tensor, max_iter: int) -> _Solved:
        exact, iterations, _ = self._solve_each(data, penalty, start, max_iter)
        codes = exact.to(start.dtype)
        return codes, iterations, *self._certify(data, codes, penalty, torch.arange(len(data), device=data.device))

    def _solve_each(self, data: Tensor, penalty: Tensor, start: Tensor, max_iter: int) -> tuple[Tensor, Tensor, float]:
        """Codes in float64, and iterations; the multiplications, as a share of those of all samples together."""
        exact = data.double()
        codes, iterations = start.double().contiguous().clone(), torch.zeros(len(data), dtype=torch.long, device="cpu")
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
        return codes, iterations, share

    @functools.cached_property
    def exact_gram(self) -> Tensor:
        """G = W^T W in float64."""
        if self.gram is not None and self.gram.dtype == torch.float64:
            return self.gram
        return self.exact_dictionary.T @ self.exact_dictionary

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
        return certify_codes(*exact, self.group_size, self.nonnegative, self.elementwise_penalty)

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
        constraint = dual_norms(correlations - projected, self.group_size, self.nonnegative, self.elementwise_penalty)
        scale = _dual_scale(penalty, constraint.amax(dim=1))
        dual = scale * (energy - fit) - 0.5 * scale.square() * residual
        objective = 0.5 * residual + _penalties(x, penalty, self.group_size, self.elementwise_penalty)
        # The constraint at scale * r is at most scale times that at r, with equality without an elementwise penalty.
        return objective, objective - dual, penalty.unsqueeze(1) - scale.unsqueeze(1) * constraint


def certify_codes(
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
    square = torch.linalg.vecdot(residual, residual)
    objective = 0.5 * square + _penalties(codes, penalty, group_size, elementwise_penalty)
    if nonnegative:
        objective = torch.where((codes < 0).any(dim=1), torch.inf, objective)
    largest = dual_norms(residual @ dictionary, group_size, nonnegative, elementwise_penalty).amax(dim=1)
    scale = _dual_scale(penalty, largest)
    dual = scale * torch.linalg.vecdot(data, residual) - 0.5 * scale.square() * square
    return objective, objective - dual


def _penalties(codes: Tensor, penalty: Tensor, group_size: int, elementwise_penalty: float) -> Tensor:
    value = penalty * group_norms(codes, group_size).sum(dim=1)
    return value + elementwise_penalty * codes.abs().sum(dim=1) if elementwise_penalty else value


def dual_norms(correlations: Tensor, group_size: int, nonnegative: bool, elementwise_penalty: float) -> Tensor:
    """||S_e(c_g)|| of each group, which the dual constraint compares with lambda: (samples, groups)."""
    if nonnegative:
        correlations = (correlations - elementwise_penalty).clamp(min=0)
    elif elementwise_penalty:
        correlations = torch.nn.functional.softshrink(correlations, elementwise_penalty)
    return group_norms(correlations, group_size)


def _dual_scale(penalty: Tensor, largest: Tensor) -> Tensor:
    """How far to shrink a residual until it is feasible, at most 1."""
    return (penalty / torch.where(largest > 0, largest, 1.0)).clamp(max=1.0).where(largest > 0, 1.0)


def _largest_eigenvalue(gram: Tensor) -> float:
    """The largest eigenvalue of a positive semidefinite matrix: from Lanczos iterations where there are many."""
    trace = gram.trace().item()
    if len(gram) <= ALL_EIGENVALUES or not trace > 0:
        return float(torch.linalg.eigvalsh(gram)[-1])
    scaled = gram.double().cpu() / trace  # no product with it can underflow to zero
    product = LinearOperator(scaled.shape, lambda x: scaled.mv(torch.from_numpy(x.ravel())).numpy(), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(len(gram))
    try:
        return float(trace * eigsh(product, 1, which="LA", v0=start, tol=1e-10, return_eigenvectors=False)[0])
    except ArpackNoConvergence:
        return float(torch.linalg.eigvalsh(gram)[-1])
