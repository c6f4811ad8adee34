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

from gsae_lib._checks import check_int, check_real, describe
from gsae_lib.groups import Groups, disjoint_layout, group_layout, to_groups
from gsae_lib.penalty import Threshold, check_values, shrink_groups


def group_relu(
    x: Float[Tensor, "*batch atoms"],
    threshold: Threshold,
    groups: Groups,
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
        x: (..., m), floating point; the result has its shape and dtype.
        threshold: lambda >= 0, in the units of x; a number or one value for each group, shape (Gamma,).
        groups: d, or a list of sizes or of lists of atoms (`gsae_lib.groups`).
        nonnegative: cut negative entries first.
        elementwise_threshold: e >= 0, in the units of x.
    """
    blocks = _blocks(x, groups)
    threshold = _per_group(threshold, blocks)
    check_real("elementwise_threshold", elementwise_threshold)
    return _restored(shrink_groups(blocks, threshold, nonnegative, elementwise_threshold), groups, x)


def soft_threshold(x: Float[Tensor, "*atoms"], threshold: Threshold) -> Float[Tensor, "*atoms"]:
    r"""Soft threshold: the group ReLU of groups of one, the proximal operator of lambda ||x||_1.

    .. math:: x \mapsto \mathrm{sign}(x) (|x| - \lambda)_+
    """
    return group_relu(x, threshold, 1)


def biased_relu(x: Float[Tensor, "*atoms"], threshold: Threshold) -> Float[Tensor, "*atoms"]:
    r"""Biased ReLU: the proximal operator of lambda ||x||_1 plus the constraint x >= 0.

    .. math:: x \mapsto (x - \lambda)_+
    """
    return group_relu(x, threshold, 1, nonnegative=True)


def group_hard_threshold(
    x: Float[Tensor, "*batch atoms"], threshold: Threshold, groups: Groups
) -> Float[Tensor, "*batch atoms"]:
    """Keep the groups with ||x_g||_2 > lambda unchanged and zero the others.

    It is a proximal operator of the non-convex (lambda^2 / 2) * #{g : x_g != 0}; at ||x_g|| = lambda, where
    that operator has two values, this takes 0. Threshold 0 is the identity.
    """
    blocks = _blocks(x, groups)
    threshold = _per_group(threshold, blocks)
    keep = ~(torch.linalg.vector_norm(blocks, dim=-1) <= threshold) | (threshold == 0)
    return _restored(torch.where(keep.unsqueeze(-1), blocks, 0.0), groups, x)


def group_top_k(x: Float[Tensor, "*batch atoms"], k: int, groups: Groups) -> Float[Tensor, "*batch atoms"]:
    """Keep the k groups of largest norm and zero the others (ties: the ones that topk returns).

    It is a Euclidean projection onto {x : at most k groups are non-zero}, so no threshold is needed and
    nothing is shrunk; the set is not convex, so with ties the projection is not unique.
    """
    blocks = _blocks(x, groups)
    check_int("k", k, low=1, high=blocks.shape[-2])
    norms = torch.linalg.vector_norm(blocks.detach(), dim=-1)
    keep = torch.zeros_like(norms, dtype=torch.bool).scatter_(-1, norms.topk(k, dim=-1).indices, True)
    return _restored(torch.where(keep.unsqueeze(-1), blocks, 0.0), groups, x)


def batch_group_top_k(
    x: Float[Tensor, "samples atoms"], k: int | float, groups: Groups
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
    blocks = _blocks(x, groups)
    count = round(check_real("k", k, high=float(blocks.shape[-2]), strict=True) * len(blocks))
    norms = torch.linalg.vector_norm(blocks.detach(), dim=-1)
    keep = torch.zeros_like(norms, dtype=torch.bool)
    keep.view(-1)[norms.flatten().topk(count).indices] = True
    return _restored(torch.where(keep.unsqueeze(-1), blocks, 0.0), groups, x)


def group_jump_relu(
    x: Float[Tensor, "*batch atoms"], threshold: Threshold, groups: Groups, *, bandwidth: float
) -> Float[Tensor, "*batch atoms"]:
    r"""Group JumpReLU: `group_hard_threshold` with a pseudo-derivative in the threshold, so that it can be learned.

    .. math:: z_g = x_g \, 1\{\|x_g\| > \theta_g\}, \qquad
              \frac{\partial z_g}{\partial \theta_g} := -\frac{\theta_g}{\varepsilon} \,
              1\big\{ |\|x_g\| - \theta_g| < \tfrac{\varepsilon}{2} \big\} \frac{x_g}{\|x_g\|}

    The derivative in x is the gate alone. Groups of one on non-negative x are the JumpReLU of Rajamanoharan et al.
    (arXiv 2407.14435, eq. 11), whose kernel is this rectangle.

    Args:
        x: (..., m). threshold: theta >= 0, a number or one value for each group, in the units of x.
        groups: d, or a list of sizes or of lists of atoms (`gsae_lib.groups`).
        bandwidth: epsilon > 0, in the units of x: the width around the threshold within which a group moves it.
    """
    blocks = _blocks(x, groups)
    threshold = torch.as_tensor(_per_group(threshold, blocks), dtype=blocks.dtype, device=blocks.device)
    width = torch.as_tensor(check_real("bandwidth", bandwidth, strict=True), dtype=blocks.dtype, device=blocks.device)
    return _restored(gate_groups(blocks, threshold, width)[0], groups, x)


class GroupReLU(nn.Module):
    """The group ReLU as a layer; arguments as `group_relu`. The threshold is a buffer.

    Raises:
        ValueError: a bad group size, or a threshold that is negative, not finite, or has several axes.
    """

    threshold: Tensor

    def __init__(
        self,
        threshold: Threshold,
        groups: Groups,
        *,
        nonnegative: bool = False,
        elementwise_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        disjoint_layout(groups)
        self.groups = groups
        self.nonnegative = nonnegative
        self.elementwise_threshold = check_real("elementwise_threshold", elementwise_threshold)
        # A number is kept in double precision, so that the layer is exact for inputs of any precision.
        kept = threshold.detach() if isinstance(threshold, Tensor) else torch.tensor(threshold, dtype=torch.float64)
        if kept.ndim > 1:
            raise ValueError(f"threshold: expected a number, or one for each group, got {describe(kept)}")
        check_values("threshold", kept)
        self.register_buffer("threshold", kept.clone())
        load_any_shape(self, "threshold")

    def forward(self, x: Float[Tensor, "*batch atoms"]) -> Float[Tensor, "*batch atoms"]:
        """(..., m) -> (..., m)."""
        blocks = _blocks(x, self.groups)
        threshold = _fitting(self.threshold, blocks)  # its values were checked when the layer was made
        return _restored(shrink_groups(blocks, threshold, self.nonnegative, self.elementwise_threshold), self.groups, x)

    def extra_repr(self) -> str:
        """The settings that differ from a plain ReLU."""
        threshold = self.threshold.tolist() if self.threshold.ndim == 0 else f"{self.threshold.numel()} values"
        return f"threshold={threshold}, groups={self.groups}, nonnegative={self.nonnegative}"


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


def _blocks(x: Tensor, groups: Groups) -> Tensor:
    """x as (..., Gamma, d), in float32 when it comes in half precision."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"x: expected a floating-point tensor, got {describe(x)}")
    blocks = to_groups(x, groups)
    return blocks.float() if x.dtype in (torch.float16, torch.bfloat16) else blocks


def _restored(blocks: Tensor, groups: Groups, x: Tensor) -> Tensor:
    """The inverse of `_blocks`."""
    return group_layout(groups).from_blocks(blocks).to(x.dtype)


def _per_group(value: Threshold, blocks: Tensor) -> Threshold:
    """A threshold that broadcasts to one value for each group, checked."""
    if not isinstance(value, Tensor):
        return check_real("threshold", value)
    check_values("threshold", value)
    return _fitting(value, blocks)


def _fitting(threshold: Tensor, blocks: Tensor) -> Tensor:
    """A threshold like the blocks, or ValueError unless it is one number, or one for each group."""
    tensor = threshold.to(blocks)
    if tensor.ndim > 1 or (tensor.ndim == 1 and tensor.shape[0] != blocks.shape[-2]):
        allowed = f"a number or {blocks.shape[-2]} values, one for each group"
        raise ValueError(f"threshold: expected {allowed}, got {describe(tensor)}")
    return tensor
