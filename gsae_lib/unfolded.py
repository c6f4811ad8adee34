"""The unfolded encoder: T proximal gradient steps in Gram form, with their derivative written out.

With H = Y W and G = W^T W, one step costs N m^2 multiplications in place of the 2 N n m of two products with W. The
backward pass keeps the T iterates and nothing else, or recomputes them a block of samples at a time (`checkpoint`).
Source: arXiv 2102.07003, eq. 11-12; FISTA is Beck and Teboulle (2009).
"""

import dataclasses
from collections import deque
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib.activations import shrink_groups
from gsae_lib.groups import to_groups

# Entries of a block of samples on the CPU: a few temporaries of this size fit in the second-level cache.
BLOCK_ENTRIES = 2**18


@dataclasses.dataclass(frozen=True, eq=False)
class Unfolding:
    """What T unfolded steps do; unchecked, since the autoencoder checks it.

    step: eta > 0. penalty: lambda, a scalar or (Gamma,). group_size: d. num_iterations: T. accelerated: FISTA if true.
    nonnegative, elementwise_penalty: as in the autoencoder. checkpoint: recompute the iterates in the backward pass.
    """

    step: float
    penalty: Tensor
    group_size: int
    num_iterations: int
    accelerated: bool
    nonnegative: bool
    elementwise_penalty: float
    checkpoint: bool

    def threshold(self, x: Tensor) -> Tensor:
        """One proximal step, (samples, atoms) -> (samples, atoms)."""
        elementwise = self.step * self.elementwise_penalty
        blocks = to_groups(x, self.group_size)
        return shrink_groups(blocks, self.step * self.penalty, self.nonnegative, elementwise).flatten(-2)

    def momenta(self) -> Iterator[float]:
        """How far to extrapolate before each of the steps 2, ..., T; 0 for ISTA."""
        t = 1.0
        for _ in range(self.num_iterations - 1):
            last, t = t, (1 + (1 + 4 * t**2) ** 0.5) / 2
            yield (last - 1) / t if self.accelerated else 0.0


def unfold(
    drive: Float[Tensor, "samples atoms"], gram: Float[Tensor, "atoms atoms"], steps: Unfolding
) -> Float[Tensor, "samples atoms"]:
    r"""Codes after T steps from 0, given H = Y W and G = W^T W.

    .. math:: x^{k+1} = \sigma_{\eta\lambda}\big(z^k + \eta (h - G z^k)\big), \qquad
              z^k = x^k + \beta_k (x^k - x^{k-1})

    Differentiable in both, twice as well. The backward pass follows the steps from the last to the first: with v the
    pullback of the step's gradient through the group ReLU, the gradient of H grows by eta v, that of G by
    -eta z^T v, and what reaches z^k is v - eta v G.
    """
    if torch.is_grad_enabled() and (drive.requires_grad or gram.requires_grad):
        return _Unfold.apply(drive, gram, steps)
    return torch.cat([_last(_iterates(rows, gram, steps)) for rows in _blocks_of(drive)])


def _blocks_of(drive: Tensor) -> tuple[Tensor, ...]:
    """The samples in blocks, so that temporaries stay in cache; all at once where there is none to fill."""
    return drive.split(max(1, BLOCK_ENTRIES // drive.shape[1]) if drive.device.type == "cpu" else max(1, len(drive)))


def _iterates(drive: Tensor, gram: Tensor, steps: Unfolding) -> Iterator[Tensor]:
    """x^1, ..., x^T of a block of samples; differentiable when gradients are on."""
    propagate = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - steps.step * gram
    drive = steps.step * drive
    previous = code = steps.threshold(drive)
    yield code
    for momentum in steps.momenta():
        point = torch.lerp(previous, code, 1 + momentum) if momentum else code
        previous, code = code, steps.threshold(torch.addmm(drive, point, propagate))
        yield code


def _last(iterates: Iterator[Tensor]) -> Tensor:
    return deque(iterates, maxlen=1).pop()


class _Unfold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, drive: Tensor, gram: Tensor, steps: Unfolding) -> Tensor:
        ctx.steps = steps
        ctx.save_for_backward(drive, gram)
        if steps.checkpoint:
            ctx.kept = None
            return torch.cat([_last(_iterates(rows, gram, steps)) for rows in _blocks_of(drive)])
        ctx.kept = [list(_iterates(rows, gram, steps)) for rows in _blocks_of(drive)]
        return torch.cat([codes[-1] for codes in ctx.kept])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (drive, gram), steps = ctx.saved_tensors, ctx.steps
        if torch.is_grad_enabled():  # a second derivative follows: let autograd see every step
            codes = _last(_iterates(drive, gram, steps))
            return *torch.autograd.grad(codes, (drive, gram), grad, create_graph=True), None
        grad_drive, grad_gram = torch.empty_like(drive), torch.zeros_like(gram)
        start = 0
        for k, rows in enumerate(_blocks_of(drive)):
            codes = list(_iterates(rows, gram, steps)) if ctx.kept is None else ctx.kept[k]
            here = slice(start, start := start + len(rows))
            grad_drive[here] = _pull_steps(codes, gram, steps, grad[here], grad_gram)
        return grad_drive, grad_gram, None


def _pull_steps(codes: list[Tensor], gram: Tensor, steps: Unfolding, grad: Tensor, grad_gram: Tensor) -> Tensor:
    """The gradient of a block's H, given that of its last codes; that of G is added to `grad_gram`."""
    momenta = list(steps.momenta())
    total = torch.zeros_like(grad)
    pending = None  # what the step before last will receive through the momentum
    for k in range(len(codes) - 1, 0, -1):
        pulled = _pull_threshold(codes[k], grad, steps)
        total += pulled
        momentum = momenta[k - 1]
        point = torch.lerp(codes[k - 2], codes[k - 1], 1 + momentum) if momentum else codes[k - 1]
        grad_gram.addmm_(point.T, pulled, alpha=-steps.step)
        reaches = torch.addmm(pulled, pulled, gram.T, alpha=-steps.step)
        grad = reaches if not momentum else (1 + momentum) * reaches
        grad = grad if pending is None else grad + pending
        pending = -momentum * reaches if momentum else None
    total += _pull_threshold(codes[0], grad, steps)
    return total.mul_(steps.step)


def _pull_threshold(code: Tensor, grad: Tensor, steps: Unfolding) -> Tensor:
    """The pullback of `Unfolding.threshold`, from its value alone: ||x|| = ||z|| + threshold where z is active."""
    blocks, grad = to_groups(code, steps.group_size), to_groups(grad, steps.group_size)
    threshold = steps.step * steps.penalty
    lengths = torch.linalg.vector_norm(blocks, dim=-1)
    norms = lengths + threshold
    scale = torch.where(norms > 0, lengths / norms, 1.0)
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    bend = (1 - scale) * inverse * (torch.linalg.vecdot(blocks, grad) * inverse)
    pulled = torch.addcmul(scale.unsqueeze(-1) * grad, bend.unsqueeze(-1), blocks).flatten(-2)
    return pulled * (code != 0) if steps.nonnegative or steps.elementwise_penalty > 0 else pulled
