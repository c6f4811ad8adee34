"""The penalty of group-sparse codes: its value, its proximal operator with derivatives, and its dual norm.

Whoever asks for group sparsity asks a `GroupPenalty`: networks for its prox and pullback, the solver for its value and
dual norm too, theory and estimators for its groups. A penalty of your own is a subclass that overrides these four,
computed by torch, since the compiled loops know the group lasso alone.
Source: arXiv 2102.07003, eq. 6-7; the composition with ||x||_1 and with x >= 0 is that of Yu, "On decomposing the
proximal map" (2013).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from gsae_lib._checks import check_bool, check_real, describe
from gsae_lib.groups import GroupLayout, Groups, group_layout

Threshold = float | Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class GroupPenalty:
    r"""The sparse-group lasso with weights, and with the constraint x >= 0 if `nonnegative`.

    .. math:: \Omega(x) = \lambda \sum_g w_g \|x_g\|_2 + e \|x\|_1

    Codes are (samples, atoms), groups within them as `groups.Groups` says. Where groups overlap an atom has a copy in
    each of its groups, and the value is that of the copies (latent group lasso: Jacob, Obozinski and Vert, 2009):
    `copied` is the penalty of the copies, and value, prox, pullback and dual norms are its.

    Args:
        penalty: lambda >= 0, in the units of the data; a number, or one for each sample.
        groups: d, a list of sizes, or a list of lists of atoms.
        weights: w_g >= 0, one for each group; None for 1.
        nonnegative: codes with a negative entry have value infinity.
        l1: e >= 0.
    """

    penalty: Threshold
    groups: Groups
    weights: Float[Tensor, " groups"] | Sequence[float | int] | None = None
    nonnegative: bool = False
    l1: float = 0.0
    layout: GroupLayout = dataclasses.field(init=False, repr=False)  # where the atoms of each group are

    def __post_init__(self) -> None:
        if isinstance(self.penalty, Tensor):
            check_values("penalty", self.penalty)
            if self.penalty.ndim > 1:
                raise ValueError(f"penalty: expected a number, or one for each sample, got {describe(self.penalty)}")
        else:
            check_real("penalty", self.penalty)
        check_bool("nonnegative", self.nonnegative)
        check_real("l1", self.l1)
        layout = group_layout(self.groups)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "groups", layout.groups)  # no list of the caller's, who may change it
        if self.weights is not None:
            weights = torch.as_tensor(
                np.asarray(self.weights) if not isinstance(self.weights, Tensor) else self.weights
            )
            check_values("weights", weights)
            if weights.ndim != 1 or (layout.sizes is not None and len(weights) != len(layout.sizes)):
                wanted = "one for each group" if layout.sizes is None else f"{len(layout.sizes)} values"
                raise ValueError(f"weights: expected {wanted}, got {describe(weights)}")
            object.__setattr__(self, "weights", weights.detach())

    @property
    def copied(self) -> "GroupPenalty":
        """The penalty of the atoms `layout.columns`, a copy for each group that has one: of adjacent groups."""
        layout = self.layout.in_order()
        return self if layout is self.layout else self._of(layout)

    def with_penalty(self, penalty: Threshold, weights: Tensor | None = None) -> "GroupPenalty":
        """The same with another lambda, and with other weights if they are given; unchecked."""
        other = self._of(self.layout)
        object.__setattr__(other, "penalty", penalty)
        if weights is not None:
            object.__setattr__(other, "weights", weights)
        return other

    def part(self, used: Tensor) -> "GroupPenalty":
        """The penalty of some groups alone, of which `used` (groups,) says which; their atoms are adjacent."""
        layout = self.layout.part(used)
        other = self._of(layout)
        if isinstance(self.weights, Tensor):
            object.__setattr__(other, "weights", self.weights[used.to(self.weights.device)])
        return other

    def check(self, x: Tensor, name: str = "dictionary") -> int:
        """Gamma, for the m atoms of the last axis of x.

        Raises:
            ValueError: the groups are of another number of atoms, or the weights of another number of groups.
        """
        self.layout.check(x, name)
        count = self.layout.count(x.shape[-1])
        if isinstance(self.weights, Tensor) and len(self.weights) != count:
            raise ValueError(f"weights: expected {count} values, one for each group, got {describe(self.weights)}")
        return count

    def value(self, x: Float[Tensor, "samples atoms"]) -> Float[Tensor, " samples"]:
        """Omega of each sample."""
        norms = torch.linalg.vector_norm(self._blocks(x), dim=-1)
        value = self.penalty * (norms if self.weights is None else norms * self._weights(norms)).sum(dim=-1)
        if self.l1:
            value = value + self.l1 * x.abs().sum(dim=-1)
        return torch.where((x < 0).any(dim=-1), torch.inf, value) if self.nonnegative else value

    def prox(self, x: Float[Tensor, "*batch atoms"], step: Threshold = 1.0) -> Float[Tensor, "*batch atoms"]:
        r"""argmin_z 1/2 ||z - x||^2 + step * Omega(z): entries shrink first, then groups.

        .. math:: z_g = \Big(1 - \frac{\eta\lambda w_g}{\|s_g\|}\Big)_+ s_g, \qquad s = S_{\eta e}(x),

        with the soft threshold S, or (x - \eta e)_+ for `nonnegative`. Derivatives of any order, forward and backward.
        """
        shrunk = shrink_groups(
            self._blocks(x), self._thresholds(step, x), self.nonnegative, step * self.l1 if self.l1 else 0.0
        )
        return self.layout.from_blocks(shrunk)

    def pullback(
        self, z: Float[Tensor, "*batch atoms"], grad: Float[Tensor, "*batch atoms"], step: Threshold = 1.0
    ) -> Float[Tensor, "*batch atoms"]:
        r"""The pullback of `prox` from its value z alone: ||s_g|| = ||z_g|| + step lambda w_g where z_g is active.

        .. math:: \tau v_g + (1 - \tau) u u^T v_g, \qquad \tau = \|z_g\| / \|s_g\|, \quad u = z_g / \|z_g\|
        """
        thresholds, only_shrinks = self._thresholds(step, z), not (self.nonnegative or self.l1)
        if self.layout.width == 1 and self.layout.sizes is None:
            inactive = (z == 0) & (thresholds != 0) if only_shrinks else z == 0
            return torch.where(inactive, 0.0, grad)
        blocks, grad = self._blocks(z), self._blocks(grad)
        lengths = torch.linalg.vector_norm(blocks, dim=-1)
        norms = lengths + thresholds
        scale = torch.where(norms > 0, lengths / norms, 1.0)
        inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
        bend = (1 - scale) * inverse * (torch.linalg.vecdot(blocks, grad) * inverse)
        pulled = self.layout.from_blocks(torch.addcmul(scale.unsqueeze(-1) * grad, bend.unsqueeze(-1), blocks))
        return pulled if only_shrinks else pulled * (z != 0)

    def dual_norms(self, c: Float[Tensor, "samples atoms"]) -> Float[Tensor, "samples groups"]:
        r"""||S_e(c_g)|| / w_g of each group, whose largest is the least lambda for which 0 minimises Omega(x) - <c, x>.

        S_e is the soft threshold, or (. - e)_+ for `nonnegative`.
        """
        if self.nonnegative:
            c = (c - self.l1).clamp(min=0)
        elif self.l1:
            c = torch.nn.functional.softshrink(c, self.l1)
        norms = torch.linalg.vector_norm(self._blocks(c), dim=-1)
        return norms if self.weights is None else norms / self._weights(norms)

    def _blocks(self, x: Tensor) -> Tensor:
        """Groups as blocks; of groups that overlap only copies have some."""
        if self.layout.overlaps:
            raise ValueError("groups: an atom is in several of them; `copied` is the penalty of its copies")
        return self.layout.to_blocks(x)

    def _weights(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.weights).to(like)

    def _thresholds(self, step: Threshold, x: Tensor) -> Threshold:
        """step * lambda * w_g: a number, or what broadcasts to (..., groups)."""
        penalty = self.penalty.unsqueeze(-1) if isinstance(self.penalty, Tensor) and self.penalty.ndim else self.penalty
        thresholds = step * penalty
        return thresholds if self.weights is None else thresholds * self._weights(x)

    def _of(self, layout: GroupLayout) -> "GroupPenalty":
        """The same with another layout; unchecked."""
        other = object.__new__(type(self))
        for field in dataclasses.fields(self):
            object.__setattr__(other, field.name, getattr(self, field.name))
        object.__setattr__(other, "groups", layout.groups)
        object.__setattr__(other, "layout", layout)
        return other


def as_penalty(penalty: Threshold | GroupPenalty, groups: Groups | None) -> GroupPenalty:
    """A penalty as it is, or that of a number and groups.

    Raises:
        ValueError: a `GroupPenalty` beside groups, a number without, or as `GroupPenalty`.
    """
    if isinstance(penalty, GroupPenalty):
        if groups is not None:
            raise ValueError(f"groups={groups!r}: expected None beside a GroupPenalty, which has its own")
        return penalty
    if groups is None:
        raise ValueError("groups=None: expected an int or a list beside a penalty that is a number")
    return GroupPenalty(penalty, groups)


def check_values(name: str, values: Tensor) -> None:
    """Return if all are finite and >= 0; while torch compiles or exports they have no values to check.

    Raises:
        ValueError: they are not.
    """
    if not torch.compiler.is_compiling() and not bool(((values >= 0) & values.isfinite()).all()):
        raise ValueError(f"{name}={values.tolist()}: expected finite values >= 0")


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
