"""The unfolded encoder: T proximal gradient steps in Gram form, with their derivative written out.

With H = Y W and G = W^T W, one step costs N m^2 multiplications in place of the 2 N n m of two products with W. The
backward pass keeps the T iterates and nothing else, or recomputes them a block of samples at a time (`checkpoint`).
Source: arXiv 2102.07003, eq. 11-12; FISTA is Beck and Teboulle (2009).
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import without_autocast
from gsae_lib._threads import BlockThreads
from gsae_lib.groups import active_groups
from gsae_lib.penalty import GroupPenalty

# Entries of a block of samples on the CPU: a few temporaries of this size fit in the second-level cache. Fewer than so
# many blocks are one, on which torch's threads work together: threads with a small block each wait for Python's lock.
BLOCK_ENTRIES, FEWEST_BLOCKS = 2**16, 4
# A residual below this share of the data's energy is formed, not obtained as the difference of larger numbers.
CANCELLING = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Unfolding:
    """What T unfolded steps do; unchecked, since the autoencoder checks it.

    step: eta > 0. penalty: what the steps descend beside the quadratic. n_iterations: T. accelerated: FISTA if true.
    checkpoint: recompute the iterates in the backward pass. Numbers are tensors where torch compiles (`as_number`).
    """

    step: float | Tensor
    penalty: GroupPenalty
    n_iterations: int
    accelerated: bool = True
    checkpoint: bool = False

    def prox(self, x: Tensor) -> Tensor:
        """One proximal step, (samples, atoms) -> (samples, atoms)."""
        return self.penalty.prox(x, self.step)

    def momenta(self) -> Iterator[float]:
        """How far to extrapolate before each of the steps 2, ..., T; 0 for ISTA."""
        t = 1.0
        for _ in range(self.n_iterations - 1):
            last, t = t, (1 + (1 + 4 * t**2) ** 0.5) / 2
            yield (last - 1) / t if self.accelerated else 0.0


def as_number(x: Tensor) -> float | Tensor:
    """The value of a tensor that has one, or the tensor itself while torch compiles or exports: it has no value yet."""
    return x if torch.compiler.is_compiling() else x.item()


def unfold(
    correlations: Float[Tensor, "samples atoms"], gram: Float[Tensor, "atoms atoms"], steps: Unfolding
) -> Float[Tensor, "samples atoms"]:
    r"""Codes after T steps from 0, given H = Y W and G = W^T W.

    .. math:: x^{k+1} = \sigma_{\eta\lambda}\big(z^k + \eta (h - G z^k)\big), \qquad
              z^k = x^k + \beta_k (x^k - x^{k-1})

    Differentiable in both, twice as well. The backward pass follows the steps from the last to the first: with v the
    pullback of the step's gradient through the group ReLU, the gradient of H grows by eta v, that of G by
    -eta z^T v, and what reaches z^k is v - eta v G. Compiled, every step is seen, and the compiler plans the memory.
    """
    if torch.compiler.is_compiling():
        return _all_steps(steps)(correlations, gram)
    if torch.is_grad_enabled() and (correlations.requires_grad or gram.requires_grad):
        return _Unfold.apply(correlations, gram, steps)[0]
    return torch.cat([_last(_iterates(rows, gram, steps)) for rows in _blocks_of(correlations, correlations.shape[1])])


@without_autocast
@torch.no_grad()
def tied_gradient(
    data: Float[Tensor, "samples features"], dictionary: Float[Tensor, "features atoms"], steps: Unfolding
) -> tuple[float, Float[Tensor, "features atoms"], Tensor]:
    r"""Loss, its gradient, and the number of active (sample, group) pairs, for tied weights; no residual is formed.

    .. math:: L = \frac{1}{2N} \sum_i \|y_i - W x_i\|^2
                = \frac1N \sum_i \big( \tfrac12 \|y_i\|^2 - h_i^T x_i + \tfrac12 x_i^T G x_i \big)

    depends on W through H = Y W and G = W^T W alone, so the data enter two products of N n m multiplications, where
    automatic differentiation of y - W x needs five; the steps cost 3 T N m^2. Equal to automatic differentiation with
    the step held fixed. Where the loss is a small share of the data's energy, its sum cancels, and the residual is
    formed after all.
    """
    energy = torch.linalg.vector_norm(data).square()
    found = _tied_sums(data, dictionary, steps, with_residual=False)
    if found[0] < CANCELLING * energy:
        found = _tied_sums(data, dictionary, steps, with_residual=True)
    twice_loss, gradient, pairs = found
    return twice_loss.item() / (2 * len(data)), gradient / len(data), pairs


def _tied_sums(
    data: Tensor, dictionary: Tensor, steps: Unfolding, *, with_residual: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Twice the loss, its gradient, and the active pairs, summed over the samples."""
    gram = dictionary.T @ dictionary

    def sums(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        correlations = rows @ dictionary
        *_, code = codes = list(_iterates(correlations, gram, steps))
        grad_gram, n_pairs = torch.zeros_like(gram), active_groups(code, steps.penalty.groups).sum()
        if with_residual:
            residual = rows - code @ dictionary.T
            loss = residual.square().sum()
            gradient = rows.T @ _pull_steps(codes, gram, steps, -residual @ dictionary, grad_gram)
            gradient.addmm_(residual.T, code, alpha=-1)
        else:
            slope = torch.addmm(correlations, code, gram, beta=-1)
            loss = rows.square().sum() + (code * (slope - correlations)).sum()
            gradient = rows.T @ (_pull_steps(codes, gram, steps, slope, grad_gram) - code)
            grad_gram.addmm_(code.T, code, alpha=0.5)
        return loss, gradient, grad_gram, n_pairs

    blocks = _blocks_of(data, dictionary.shape[1], small=steps.checkpoint)
    with BlockThreads(data.device) as threads:
        found = threads.map(sums, blocks)
        twice_loss, gradient, grad_gram, pairs = next(found)
        for loss, more, more_gram, n_pairs in found:
            twice_loss, pairs = twice_loss + loss, pairs + n_pairs
            gradient += more
            grad_gram += more_gram
    return twice_loss, gradient.addmm_(dictionary, grad_gram + grad_gram.T), pairs


def _blocks_of(rows: Tensor, atoms: int, *, small: bool = False) -> tuple[Tensor, ...]:
    """The samples in blocks, so that temporaries stay in cache; all at once on a GPU, unless memory is short."""
    size = max(1, BLOCK_ENTRIES // atoms)
    if (rows.device.type != "cpu" and not small) or len(rows) <= FEWEST_BLOCKS * size:
        return (rows,)
    return rows.split(size)


def _iterates(correlations: Tensor, gram: Tensor, steps: Unfolding) -> Iterator[Tensor]:
    """x^1, ..., x^T of a block of samples; differentiable when gradients are on."""
    propagate = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - steps.step * gram
    correlations = steps.step * correlations
    previous = code = steps.prox(correlations)
    yield code
    for momentum in steps.momenta():
        point = torch.lerp(previous, code, 1 + momentum) if momentum else code
        previous, code = code, steps.prox(torch.addmm(correlations, point, propagate))
        yield code


def _last(iterates: Iterator[Tensor]) -> Tensor:
    return deque(iterates, maxlen=1).pop()


class _Unfold(torch.autograd.Function):
    """The codes, and for each block of samples its iterates, unless they are computed again (`checkpoint`)."""

    @staticmethod
    def forward(correlations: Tensor, gram: Tensor, steps: Unfolding) -> tuple[Tensor, ...]:
        blocks = (_iterates(rows, gram, steps) for rows in _blocks_of(correlations, correlations.shape[1]))
        if steps.checkpoint:
            return (torch.cat([_last(iterates) for iterates in blocks]),)
        kept = [list(iterates) for iterates in blocks]
        return torch.cat([codes[-1] for codes in kept]), *itertools.chain(*kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Unfolding], output: tuple[Tensor, ...]) -> None:
        correlations, gram, ctx.steps = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(correlations, gram, *output[1:])
        ctx.save_for_forward(correlations, gram, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, Tensor | None, None]:
        (correlations, gram, *kept), steps = ctx.saved_tensors, ctx.steps
        if grad is None:
            return None, None, None
        if torch.is_grad_enabled():  # a second derivative follows: let autograd see every step
            return *torch.func.vjp(_all_steps(steps), correlations, gram)[1](grad), None
        grad_correlations, grad_gram = torch.empty_like(correlations), torch.zeros_like(gram)
        start = 0
        for rows in _blocks_of(correlations, correlations.shape[1]):
            codes, kept = kept[: steps.n_iterations], kept[steps.n_iterations :]
            here = slice(start, start := start + len(rows))
            codes = codes or list(_iterates(rows, gram, steps))
            grad_correlations[here] = _pull_steps(codes, gram, steps, grad[here], grad_gram)
        return grad_correlations, grad_gram, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        correlations, gram, *kept = ctx.saved_tensors
        pairs = zip((correlations, gram), tangents[:2], strict=True)
        filled = tuple(torch.zeros_like(x) if t is None else t for x, t in pairs)
        return torch.func.jvp(_all_steps(ctx.steps), (correlations, gram), filled)[1], *(None for _ in kept)

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[Any, ...], correlations: Tensor, gram: Tensor, steps: Unfolding
    ) -> tuple[tuple[Tensor], tuple[int]]:
        if in_dims[1] is not None:
            return (torch.func.vmap(_all_steps(steps), in_dims[:2])(correlations, gram),), (0,)
        correlations = correlations.movedim(in_dims[0], 0)  # one dictionary: more samples
        return (unfold(correlations.flatten(0, 1), gram, steps).unflatten(0, correlations.shape[:2]),), (0,)


def _all_steps(steps: Unfolding) -> Callable[[Tensor, Tensor], Tensor]:
    """The codes as a function that automatic differentiation sees through."""
    return lambda correlations, gram: _last(_iterates(correlations, gram, steps))


def _pull_steps(codes: list[Tensor], gram: Tensor, steps: Unfolding, grad: Tensor, grad_gram: Tensor) -> Tensor:
    """The gradient of a block's H, given that of its last codes; that of G is added to `grad_gram`."""
    momenta, step = list(steps.momenta()), float(steps.step)
    total = torch.zeros_like(grad)
    pending = None  # what the step before last will receive through the momentum
    for k in range(len(codes) - 1, 0, -1):
        pulled = steps.penalty.pullback(codes[k], grad, steps.step)
        total += pulled
        momentum = momenta[k - 1]
        point = torch.lerp(codes[k - 2], codes[k - 1], 1 + momentum) if momentum else codes[k - 1]
        grad_gram.addmm_(point.T, pulled, alpha=-step)
        reaches = torch.addmm(pulled, pulled, gram.T, alpha=-step)
        grad = reaches if not momentum else (1 + momentum) * reaches
        grad = grad if pending is None else grad + pending
        pending = -momentum * reaches if momentum else None
    total += steps.penalty.pullback(codes[0], grad, steps.step)
    return total.mul_(step)
