"""The solver of `group_lasso`: steps for one sample at a time on a CPU, for all together elsewhere, and their gap.

Source: arXiv 2102.07003, eq. 6; gap and screening are those of Ndiaye et al., "Gap safe screening rules" (2017); the
accelerated steps are FISTA (Beck and Teboulle, 2009) with restarts (O'Donoghue and Candes, 2015).
"""

import functools

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor
from tqdm import tqdm

from gsae_lib._loops import are_compiled
from gsae_lib._threads import BlockThreads
from gsae_lib.coding._compiled import CHECK_EVERY, NEAR_ROUNDING, PATIENCE, solve_rows
from gsae_lib.penalty import GroupPenalty

_Solved = tuple[Tensor, Tensor, Tensor, Tensor]  # codes, iterations, objective, gap

# Entries of a block of samples on the CPU: its temporaries fit in the second-level cache.
BLOCK_ENTRIES = 2**18
# The same where samples are solved one by one, so that there is a block for each thread sooner.
ALONE_ENTRIES = 2**15
LARGEST_GRAM = 2**24  # entries of W^T W in float64, which one sample at a time needs
ALL_EIGENVALUES = 128  # rows of a matrix whose largest eigenvalue is no slower to have with all others


class Solver:
    """Accelerated proximal gradient steps for blocks of samples on one dictionary, whose groups are adjacent.

    With H = Y W and C = H - X G (G = W^T W), the correlations W^T (y - W x), one product a step is enough: what C is
    at the extrapolated point follows from its last two values.
    """

    def __init__(self, dictionary: Tensor, penalty: GroupPenalty, tol: float, max_iter: int) -> None:
        self.dictionary, self.exact_dictionary = dictionary, dictionary.double()
        self.penalty, self.tol, self.max_iter = penalty, tol, max_iter
        n, m = dictionary.shape
        self.gram = dictionary.T @ dictionary if m <= 2 * n else None
        second = self.gram if self.gram is not None else dictionary @ dictionary.T  # the same nonzero eigenvalues
        blocks = penalty.layout.to_blocks(dictionary).movedim(1, 0)
        with BlockThreads(dictionary.device):  # small products, between which several threads would only wait
            largest = _largest_eigenvalue(second)
            own = torch.linalg.eigvalsh(blocks.mT @ blocks)[:, -1]
        self.step = 1 / largest if largest > 0 else 1.0
        self.norms = own.clamp(min=0).sqrt()  # spectral norm of each group, in units of its weight
        if isinstance(penalty.weights, Tensor):
            self.norms = self.norms / penalty.weights.to(self.norms)
        # Samples alone take fewer multiplications wherever measured (benchmarks/coding_ways.py).
        self.alone = (
            dictionary.device.type == "cpu"
            and m**2 <= LARGEST_GRAM
            and are_compiled()
            and type(penalty) is GroupPenalty  # what is compiled knows no other
        )

    @torch.no_grad()
    def solve(self, data: Tensor, penalty: Tensor, start: Tensor, progress: bool) -> _Solved:
        """Codes, iterations, objective and gap of all samples."""
        entries = ALONE_ENTRIES if self.alone else BLOCK_ENTRIES
        rows = max(1, entries // start.shape[1]) if data.device.type == "cpu" else max(1, len(data))
        blocks = zip(data.split(rows), penalty.split(rows), start.split(rows), strict=True)
        way = self._solve_alone if self.alone else self._solve_together
        with BlockThreads(data.device) as threads:
            solved = threads.map(lambda block: way(*block), blocks)
            found = list(tqdm(solved, "coding", -(-len(data) // rows), unit="block", disable=not progress))
        codes, iterations, objective, gap = (torch.cat(parts) for parts in zip(*found, strict=True))
        return codes, iterations, objective, gap

    def _solve_alone(self, data: Tensor, penalty: Tensor, start: Tensor) -> _Solved:
        exact = data.double()
        codes, iterations = start.double().contiguous().clone(), torch.zeros(len(data), dtype=torch.long, device="cpu")
        # Codes in float32 are rounded at the end.
        tol = self.tol * (0.5 if data.dtype == torch.float32 else 0.99)
        solve_rows(
            (exact @ self.exact_dictionary).numpy(),
            exact.square().sum(dim=1).numpy(),
            penalty.contiguous().numpy(),
            self.exact_gram.numpy(),
            self.step,
            *self._starts_and_weights,
            self.penalty.nonnegative,
            float(self.penalty.l1),
            tol,
            self.max_iter,
            codes.numpy(),
            iterations.numpy(),
        )
        rounded = codes.to(start.dtype)
        return rounded, iterations, *self._certify(data, rounded, penalty, torch.arange(len(data), device="cpu"))

    @functools.cached_property
    def _starts_and_weights(self) -> tuple[np.ndarray, np.ndarray]:
        sizes = torch.tensor(self.penalty.layout.size_of_each(self.dictionary.shape[1]), device="cpu")
        weights = self.penalty.weights if self.penalty.weights is not None else torch.ones(len(sizes), device="cpu")
        starts = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        return starts.numpy(), torch.as_tensor(weights).cpu().double().numpy()

    @functools.cached_property
    def exact_gram(self) -> Tensor:
        """G = W^T W in float64."""
        if self.gram is not None and self.gram.dtype == torch.float64:
            return self.gram
        return self.exact_dictionary.T @ self.exact_dictionary

    def _solve_together(self, data: Tensor, exact_penalty: Tensor, start: Tensor) -> _Solved:
        lambdas, group_penalty, max_iter = exact_penalty.to(data.dtype), self.penalty, self.max_iter
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
                penalty = group_penalty.with_penalty(lambdas[samples])
                value, bound, slack = _gap(x, projected, correlations, energy, penalty)
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
                    columns = group_penalty.layout.per_atom(used)
                    group_penalty = group_penalty.part(used)
                    atoms, norms, dictionary = atoms[columns], norms[used], dictionary[:, columns]
                    gram = gram[columns][:, columns] if gram is not None else None
                    correlations, x, point = correlations[:, columns], x[:, columns], point[:, columns]
                    projected, point_projected = project(x), project(point)
            penalty = group_penalty.with_penalty(lambdas[samples])
            stepped = penalty.prox(point + self.step * (correlations - point_projected), self.step)
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
        return certify_codes(*exact[:3], self.penalty.with_penalty(exact[3]))


def certify_codes(
    data: Tensor, dictionary: Tensor, codes: Tensor, penalty: GroupPenalty
) -> tuple[Float[Tensor, " samples"], Float[Tensor, " samples"]]:
    """(objective, duality gap), from the residual; unchecked."""
    residual = data - codes @ dictionary.T
    square = torch.linalg.vecdot(residual, residual)
    objective = 0.5 * square + penalty.value(codes)
    scale = _dual_scale(penalty, penalty.dual_norms(residual @ dictionary).amax(dim=1))
    dual = scale * torch.linalg.vecdot(data, residual) - 0.5 * scale.square() * square
    return objective, objective - dual


def _gap(
    x: Tensor, projected: Tensor, correlations: Tensor, energy: Tensor, penalty: GroupPenalty
) -> tuple[Tensor, Tensor, Tensor]:
    """(objective, gap, slack of each group's dual constraint) from inner products, without forming a residual."""
    fit = (x * correlations).sum(dim=1)
    residual = (energy - 2 * fit + (x * projected).sum(dim=1)).clamp(min=0)  # ||y - W x||^2
    constraint = penalty.dual_norms(correlations - projected)
    scale = _dual_scale(penalty, constraint.amax(dim=1))
    dual = scale * (energy - fit) - 0.5 * scale.square() * residual
    objective = 0.5 * residual + penalty.value(x)
    # The constraint at scale * r is at most scale times that at r, with equality without an elementwise penalty.
    slack = torch.as_tensor(penalty.penalty).unsqueeze(1) - scale.unsqueeze(1) * constraint
    return objective, objective - dual, slack


def _dual_scale(penalty: GroupPenalty, largest: Tensor) -> Tensor:
    """How far to shrink a residual until it is feasible, at most 1."""
    return (penalty.penalty / torch.where(largest > 0, largest, 1.0)).clamp(max=1.0).where(largest > 0, 1.0)


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
