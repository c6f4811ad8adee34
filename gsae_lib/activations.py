"""Activations that select groups: the group ReLU (GReLU) and its relatives.

Each looks at the norms of groups, and shrinks or zeroes whole groups. Most are proximal operators,
prox_f(x) = argmin_z 1/2 ||z - x||^2 + f(z); each docstring says of which f.
Source: arXiv 2102.07003, eq. 7; the compositions are those of Yu, "On decomposing the proximal map" (2013).
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from gsae_lib._checks import check_int, check_real, describe
from gsae_lib.groups import to_groups

Threshold = float | Tensor


def group_relu(
    x: Float[Tensor, "*batch atoms"],
    threshold: Threshold,
    group_size: int,
    *,
    nonnegative: bool = False,
    elementwise_threshold: float = 0.0,
) -> Float[Tensor, "*batch atoms"]:
    r"""Group ReLU: shrink each group's norm by `threshold`, and zero the groups that are shorter.

    .. math:: \sigma_\lambda(x_g) = \left(1 - \frac{\lambda}{\|x_g\|_2}\right)_+ x_g

    It is the proximal operator of lambda * sum_g ||x_g||_2. With `elementwise_threshold` = e > 0 it is
    that of lambda * sum_g ||x_g||_2 + e ||x||_1 (sparse-group lasso: entries first, then groups); with
    `nonnegative` the constraint x >= 0 is added (negative entries are cut first, then groups shrink).
    Group size 1 is the soft threshold; group size 1 with `nonnegative` is the biased ReLU.

    Threshold 0 is the identity, with derivative 1 also at a zero group. A group whose norm is at or below
    a positive threshold has value 0 and derivative 0. Half precisions are computed in float32. Transforms of torch.func
    apply, except vmap over thresholds, whose values it does not let us check.

    Args:
        x: (..., Gamma * d), floating point; the result has its shape and dtype.
        threshold: lambda >= 0, in the units of x; a number or one value for each group, shape (Gamma,).
        group_size: d.
        nonnegative: cut negative entries first.
        elementwise_threshold: e >= 0, in the units of x.

    Raises:
        ValueError: a bad group size, a negative or non-finite threshold, a threshold of another shape,
            or an integer x.
    """
    blocks = _blocks(x, group_size)
    threshold = _per_group(threshold, blocks)
    check_real("elementwise_threshold", elementwise_threshold)
    return shrink_groups(blocks, threshold, nonnegative, elementwise_threshold).flatten(-2).to(x.dtype)


def soft_threshold(x: Float[Tensor, "*atoms"], threshold: Threshold) -> Float[Tensor, "*atoms"]:
    r"""Soft threshold: the group ReLU of groups of one, the proximal operator of lambda ||x||_1.

    .. math:: x \mapsto \mathrm{sign}(x) (|x| - \lambda)_+

    Raises:
        ValueError: as `group_relu`.
    """
    return group_relu(x, threshold, 1)


def biased_relu(x: Float[Tensor, "*atoms"], threshold: Threshold) -> Float[Tensor, "*atoms"]:
    r"""Biased ReLU: the proximal operator of lambda ||x||_1 plus the constraint x >= 0.

    .. math:: x \mapsto (x - \lambda)_+

    Raises:
        ValueError: as `group_relu`.
    """
    return group_relu(x, threshold, 1, nonnegative=True)


def group_hard_threshold(
    x: Float[Tensor, "*batch atoms"], threshold: Threshold, group_size: int
) -> Float[Tensor, "*batch atoms"]:
    """Keep the groups with ||x_g||_2 > lambda unchanged and zero the others.

    It is a proximal operator of the non-convex (lambda^2 / 2) * #{g : x_g != 0}; at ||x_g|| = lambda, where
    that operator has two values, this takes 0. Threshold 0 is the identity.

    Raises:
        ValueError: as `group_relu`.
    """
    blocks = _blocks(x, group_size)
    threshold = _per_group(threshold, blocks)
    keep = ~(torch.linalg.vector_norm(blocks, dim=-1) <= threshold) | (threshold == 0)
    return torch.where(keep.unsqueeze(-1), blocks, 0.0).flatten(-2).to(x.dtype)


def group_top_k(x: Float[Tensor, "*batch atoms"], k: int, group_size: int) -> Float[Tensor, "*batch atoms"]:
    """Keep the k groups of largest norm and zero the others (ties: the ones that topk returns).

    It is a Euclidean projection onto {x : at most k groups are non-zero}, so no threshold is needed and
    nothing is shrunk; the set is not convex, so with ties the projection is not unique.

    Raises:
        ValueError: k is not between 1 and the number of groups, or a bad group size.
    """
    blocks = _blocks(x, group_size)
    check_int("k", k, low=1, high=blocks.shape[-2])
    norms = torch.linalg.vector_norm(blocks.detach(), dim=-1)
    keep = torch.zeros_like(norms, dtype=torch.bool).scatter_(-1, norms.topk(k, dim=-1).indices, True)
    return torch.where(keep.unsqueeze(-1), blocks, 0.0).flatten(-2).to(x.dtype)


def batch_group_top_k(
    x: Float[Tensor, "samples atoms"], k: int | float, group_size: int
) -> Float[Tensor, "samples atoms"]:
    """Keep the round(k N) groups of largest norm among all of N samples, k a sample on average, and zero the others.

    It is the Euclidean projection onto the batches with that many non-zero groups. What a sample keeps depends on the
    batch that it is in; with one sample it is `group_top_k`. Source: Bussmann, Leask and Nanda, "BatchTopK sparse
    autoencoders" (arXiv 2412.06410), for groups of one.

    Raises:
        ValueError: x without two axes, k is not above 0 and at most the number of groups, or a bad group size.
    """
    if x.ndim != 2:
        raise ValueError(f"x: expected two axes, (samples, atoms), got {describe(x)}")
    blocks = _blocks(x, group_size)
    count = round(check_real("k", k, high=float(blocks.shape[-2]), strict=True) * len(blocks))
    norms = torch.linalg.vector_norm(blocks.detach(), dim=-1)
    keep = torch.zeros_like(norms, dtype=torch.bool)
    keep.view(-1)[norms.flatten().topk(count).indices] = True
    return torch.where(keep.unsqueeze(-1), blocks, 0.0).flatten(-2).to(x.dtype)


def group_jump_relu(
    x: Float[Tensor, "*batch atoms"], threshold: Threshold, group_size: int, *, bandwidth: float
) -> Float[Tensor, "*batch atoms"]:
    r"""Group JumpReLU: `group_hard_threshold` with a pseudo-derivative in the threshold, so that it can be learned.

    .. math:: z_g = x_g \, 1\{\|x_g\| > \theta_g\}, \qquad
              \frac{\partial z_g}{\partial \theta_g} := -\frac{\theta_g}{\varepsilon} \,
              1\big\{ |\|x_g\| - \theta_g| < \tfrac{\varepsilon}{2} \big\} \frac{x_g}{\|x_g\|}

    The derivative in x is the gate alone. Groups of one on non-negative x are the JumpReLU of Rajamanoharan et al.
    (arXiv 2407.14435, eq. 11), whose kernel is this rectangle.

    Args:
        x: (..., Gamma * d). threshold: theta >= 0, a number or one value for each group, in the units of x.
        group_size: d.
        bandwidth: epsilon > 0, in the units of x: the width around the threshold within which a group moves it.

    Raises:
        ValueError: a bandwidth that is not positive, or as `group_relu`.
    """
    blocks = _blocks(x, group_size)
    threshold = torch.as_tensor(_per_group(threshold, blocks), dtype=blocks.dtype, device=blocks.device)
    width = torch.as_tensor(check_real("bandwidth", bandwidth, strict=True), dtype=blocks.dtype, device=blocks.device)
    return gate_groups(blocks, threshold, width)[0].flatten(-2).to(x.dtype)


class GroupReLU(nn.Module):
    """The group ReLU as a layer; arguments as `group_relu`. The threshold is a buffer.

    Raises:
        ValueError: a bad group size, or a threshold that is negative, not finite, or has several axes.
    """

    threshold: Tensor

    def __init__(
        self,
        threshold: Threshold,
        group_size: int,
        *,
        nonnegative: bool = False,
        elementwise_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.group_size = check_int("group_size", group_size)
        self.nonnegative = nonnegative
        self.elementwise_threshold = check_real("elementwise_threshold", elementwise_threshold)
        # A number is kept in double precision, so that the layer is exact for inputs of any precision.
        kept = threshold.detach() if isinstance(threshold, Tensor) else torch.tensor(threshold, dtype=torch.float64)
        if kept.ndim > 1:
            raise ValueError(f"threshold: expected a number, or one for each group, got {describe(kept)}")
        self.register_buffer("threshold", _check_threshold(kept.clone()))
        load_any_shape(self, "threshold")

    def forward(self, x: Float[Tensor, "*batch atoms"]) -> Float[Tensor, "*batch atoms"]:
        """(..., Gamma * d) -> (..., Gamma * d)."""
        blocks = _blocks(x, self.group_size)
        threshold = _fitting(self.threshold, blocks)  # its values were checked when the layer was made
        return shrink_groups(blocks, threshold, self.nonnegative, self.elementwise_threshold).flatten(-2).to(x.dtype)

    def extra_repr(self) -> str:
        """The settings that differ from a plain ReLU."""
        threshold = self.threshold.tolist() if self.threshold.ndim == 0 else f"{self.threshold.numel()} values"
        return f"threshold={threshold}, group_size={self.group_size}, nonnegative={self.nonnegative}"


def load_any_shape(module: nn.Module, name: str) -> None:
    """Let `load_state_dict` turn a buffer of one number into one value for each group, and back."""
    module.register_load_state_dict_pre_hook(partial(_take_shape, name))


def _take_shape(name: str, module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    saved, buffer = state.get(prefix + name), getattr(module, name)
    if (
        saved is not None
        and saved.ndim != buffer.ndim
        and saved.shape in ((), (getattr(module, "n_groups", saved.numel()),))
    ):
        setattr(module, name, buffer.new_empty(saved.shape))


def shrink_groups(blocks: Tensor, threshold: Threshold, nonnegative: bool, elementwise_threshold: Threshold) -> Tensor:
    """The kernel, unchecked: blocks (..., Gamma, d), a threshold that broadcasts to (..., Gamma).

    An elementwise threshold that is a tensor is positive. A device-specific kernel replaces `_Shrink` and nothing else.
    """
    cuts = isinstance(elementwise_threshold, Tensor) or elementwise_threshold > 0
    if nonnegative:
        blocks = torch.relu(blocks - elementwise_threshold if cuts else blocks)
    elif isinstance(elementwise_threshold, Tensor):
        limit = elementwise_threshold.to(blocks.dtype)
        blocks = blocks - blocks.clamp(-limit, limit)
    elif cuts:
        blocks = torch.nn.functional.softshrink(blocks, elementwise_threshold)
    if blocks.shape[-1] == 1 and not isinstance(threshold, Tensor) and not torch.is_grad_enabled():
        return torch.nn.functional.softshrink(blocks, threshold)
    threshold = torch.as_tensor(threshold, dtype=blocks.dtype, device=blocks.device)
    if not torch.is_grad_enabled():
        norms = torch.linalg.vector_norm(blocks, dim=-1)
    elif torch.compiler.is_compiling() or any(unpack_dual(x).tangent is not None for x in (blocks, threshold)):
        norms = _safe_norms(blocks)  # torch compiles no custom forward mode, and does not nest it
    else:
        return _Shrink.apply(blocks, threshold)[0]
    return _scale(norms, threshold).unsqueeze(-1) * blocks


def gate_groups(blocks: Tensor, threshold: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel of `group_jump_relu`, unchecked: its values and the gates 1{||x_g|| > theta}, which can be summed.

    blocks (..., d); threshold and bandwidth broadcast to the norms (...). The pseudo-derivative of a gate in its
    threshold is -1 / epsilon within the bandwidth; it has none in x.
    """
    return _Gate.apply(blocks, threshold, bandwidth)


class _Gate(torch.autograd.Function):
    """x_g 1{||x_g|| > theta} and the gates, with the derivatives that `gate_groups` states."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, threshold: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.linalg.vector_norm(blocks, dim=-1)
        gates = (norms > threshold).to(blocks.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(blocks, norms, gates, threshold, bandwidth)
        return gates.unsqueeze(-1) * blocks, gates

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_gates: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        blocks, norms, gates, threshold, bandwidth = ctx.saved_tensors
        pulled = None if grad is None else gates.unsqueeze(-1) * grad
        if not ctx.needs_input_grad[1]:
            return pulled, None, None
        moved = torch.zeros_like(norms) if grad_gates is None else grad_gates
        if grad is not None:
            along = torch.linalg.vecdot(blocks, grad) / norms.clamp(min=torch.finfo(norms.dtype).tiny)
            moved = moved + threshold * along
        near = (norms - threshold).abs() < bandwidth / 2
        return pulled, torch.where(near, -moved / bandwidth, 0.0).sum_to_size(threshold.shape), None


class _Shrink(torch.autograd.Function):
    """z = (1 - threshold / ||x_g||)_+ x_g and the norms ||x_g||; the derivatives keep these two, and not x.

    With s = (1 - threshold / ||x_g||)_+ and u = z_g / ||z_g||, which is also the direction of x_g, the Jacobian of an
    active group is s I + (1 - s) u u^T in x_g and -u in the threshold, and u^T that of its norm; all are 0 for an
    inactive one. The norms are a result so that second derivatives reach x through them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(blocks: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.linalg.vector_norm(blocks, dim=-1)
        return _scale(norms, threshold).unsqueeze(-1) * blocks, norms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)  # the norms rarely have one
        ctx.save_for_backward(*output, inputs[1])
        ctx.save_for_forward(*output, inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_norms: Tensor | None) -> tuple[Tensor, Tensor | None]:
        shrunk, norms, threshold = ctx.saved_tensors
        grad = torch.zeros_like(shrunk) if grad is None else grad
        scale, inverse, along = _parts(shrunk, norms, threshold, grad)
        bend = (1 - scale) * along if grad_norms is None else (1 - scale) * along + grad_norms
        add = torch.addcmul if torch.is_grad_enabled() else Tensor.addcmul_  # in place unless transformed
        pulled = add(scale.unsqueeze(-1) * grad, (bend * inverse).unsqueeze(-1), shrunk)
        return pulled, -along.sum_to_size(threshold.shape) if ctx.needs_input_grad[1] else None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, tangent_threshold: Tensor | None) -> tuple[Tensor, Tensor]:
        shrunk, norms, threshold = ctx.saved_tensors
        tangent = torch.zeros_like(shrunk) if tangent is None else tangent
        scale, inverse, along = _parts(shrunk, norms, threshold, tangent)
        bend = (1 - scale) * along if tangent_threshold is None else (1 - scale) * along - tangent_threshold
        return torch.addcmul(scale.unsqueeze(-1) * tangent, (bend * inverse).unsqueeze(-1), shrunk), along


def _parts(shrunk: Tensor, norms: Tensor, threshold: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s, 1 / ||z_g|| and <u, v>; the last two are 0 for an inactive group, and for one of infinite norm."""
    scale = _scale(norms, threshold)
    lengths = scale * norms
    usable = (lengths > 0) & lengths.isfinite()
    inverse = torch.where(usable, 1 / torch.where(usable, lengths, 1.0), 0.0)
    return scale, inverse, torch.where(usable, torch.linalg.vecdot(shrunk, v) * inverse, 0.0)


def _safe_norms(blocks: Tensor) -> Tensor:
    """Norms of the groups, with derivatives 0, and not nan, at a zero group."""
    inactive = (blocks == 0).all(dim=-1)
    norms = torch.linalg.vector_norm(torch.where(inactive.unsqueeze(-1), 1.0, blocks), dim=-1)
    return torch.where(inactive, 0.0, norms)


def _scale(norms: Tensor, threshold: Tensor) -> Tensor:
    """(1 - threshold / norms)_+; 1 where the threshold is 0, also at a zero norm."""
    return torch.relu(1 - threshold / norms.clamp(min=torch.finfo(norms.dtype).tiny))


def _blocks(x: Tensor, group_size: int) -> Tensor:
    """x as (..., Gamma, d), in float32 when it comes in half precision."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"x: expected a floating-point tensor, got {describe(x)}")
    blocks = to_groups(x, group_size)
    return blocks.float() if x.dtype in (torch.float16, torch.bfloat16) else blocks


def _per_group(value: Threshold, blocks: Tensor) -> Threshold:
    """A threshold that broadcasts to one value for each group, checked."""
    return _check_threshold(_fitting(value, blocks)) if isinstance(value, Tensor) else check_real("threshold", value)


def _fitting(threshold: Tensor, blocks: Tensor) -> Tensor:
    """A threshold like the blocks, or ValueError unless it is one number, or one for each group."""
    tensor = threshold.to(blocks)
    if tensor.ndim > 1 or (tensor.ndim == 1 and tensor.shape[0] != blocks.shape[-2]):
        allowed = f"a number or {blocks.shape[-2]} values, one for each group"
        raise ValueError(f"threshold: expected {allowed}, got {describe(tensor)}")
    return tensor


def _check_threshold(threshold: Tensor) -> Tensor:
    """The threshold, or ValueError; while torch compiles or exports it has no value to check."""
    if not torch.compiler.is_compiling() and not bool(((threshold >= 0) & threshold.isfinite()).all()):
        raise ValueError(f"threshold={threshold.tolist()}: expected finite values >= 0")
    return threshold
