"""The gradient of the shallow tied autoencoder from its active groups alone.

The network is x = sigma_lambda(W^T y), y_hat = W x with tied weights (arXiv 2102.07003, eq. 11-13, T = 1). Where few
groups fire, almost all of the work of automatic differentiation is multiplication by zeros. With N samples, n features,
m atoms and P active (sample, group) pairs, one call here costs one product Y W (N n m multiplications), the Gram matrix
W^T W and one product of that size (n m^2 each), and P d n for the rest; automatic differentiation costs about ten Y W.
"""

import dataclasses
import functools
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_int, check_real, describe
from gsae_lib.groups import to_groups

# Samples at a time: the temporaries of a chunk are a few times (chunk, atoms).
CHUNK = 2000


@dataclasses.dataclass(frozen=True)
class ShallowGradient:
    """Loss 1/(2N) sum ||y - y_hat||^2, its gradient (features, atoms), and the mean number of active groups."""

    loss: float
    gradient: Tensor
    active_groups: float


@torch.no_grad()
def shallow_gradient(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    penalty: float,
    group_size: int,
    *,
    nonnegative: bool = False,
    chunk: int = CHUNK,
    screen: bool = False,
) -> ShallowGradient:
    r"""Loss and gradient of the shallow tied autoencoder with unit step; equal to automatic differentiation.

    With H = Y W and, on the active pairs, z = tau h, u = W_g^T r = h - (Z W^T W)_g and
    J = tau I + (1 - tau) h h^T / \|h\|^2,

    .. math:: \nabla L = -\tfrac1N \big( Y^T (Z + J U) - W Z^T Z \big), \qquad
              2 N L = \|Y\|_F^2 - \langle Z, H \rangle - \langle Z, U \rangle

    so no residual is formed. `nonnegative` cuts negative entries first, as in `group_relu`. Penalty 0 is not
    supported: every pair would be active.

    Args:
        dictionary: the dictionary W.
        data: Y, with W's dtype and device.
        penalty: lambda > 0. group_size: d.
        chunk: samples at a time; bounds the memory. Non-finite data, or a non-finite dictionary, give such a loss.
        screen: find the active pairs with a bfloat16 product first (float32 on the CPU only), see `screened_pairs`.
            The result is the same. It pays where the processor multiplies bfloat16 much faster and few pairs are
            active, as a benchmark shows; `train` does not use it.

    Raises:
        ValueError: shapes that do not match, a penalty that is not positive, a bad chunk, or screening in another
            precision or on another device.
    """
    if screen and (data.dtype != torch.float32 or data.device.type != "cpu"):
        raise ValueError(f"screen=True: expected float32 data on the CPU, got {describe(data)} on {data.device}")
    for name, x in (("data", data), ("dictionary", dictionary)):
        if not isinstance(x, Tensor) or x.ndim != 2 or x.layout != torch.strided or not x.numel():
            raise ValueError(f"{name}: expected a dense matrix, got {describe(x)}")
    if data.shape[1] != dictionary.shape[0] or data.dtype != dictionary.dtype:
        raise ValueError(f"data: expected (samples, {dictionary.shape[0]}) {dictionary.dtype}, got {describe(data)}")
    penalty = check_real("penalty", penalty, strict=True)
    gram = dictionary.T @ dictionary
    pulled, second_moment = torch.zeros_like(dictionary.T), torch.zeros_like(gram)
    # What is not finite in the dictionary would make its groups inactive, and no more.
    twice_loss, pairs = torch.linalg.vector_norm(data).square() + 0 * gram.diagonal().sum(), 0
    for rows in data.split(check_int("chunk", chunk)):
        find = screened_pairs if screen else _pairs
        active, h = find(rows, dictionary, penalty, group_size, nonnegative)
        norm = torch.linalg.vector_norm(h, dim=1, keepdim=True)
        tau = 1 - penalty / norm
        z = tau * h
        code = ActivePairs(active, torch.Size((len(rows), gram.shape[0] // group_size, group_size)))
        codes, transposed = code.rows(z), code.columns(z)
        u = h - to_groups(codes @ gram, group_size)[active]
        if nonnegative:
            u *= h > 0
        back = tau * u + (1 - tau) * h * ((h * u).sum(dim=1, keepdim=True) / norm.square())
        pulled += code.columns(z + back) @ rows
        second_moment += transposed @ codes.to_dense()  # torch 2.13 leaks memory in sparse times sparse
        twice_loss -= (z * (h + u)).sum()
        pairs += len(z)
    gradient = (dictionary @ second_moment - pulled.T) / len(data)
    return ShallowGradient(twice_loss.item() / (2 * len(data)), gradient, pairs / len(data))


def _pairs(
    rows: Tensor, dictionary: Tensor, penalty: float, group_size: int, nonnegative: bool
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The active pairs as (samples, groups), and their responses W_g^T y (cut at zero if nonnegative)."""
    response = to_groups(rows @ dictionary, group_size)
    if nonnegative:
        response = response.relu_()
    active = (torch.linalg.vector_norm(response, dim=-1) > penalty).nonzero(as_tuple=True)
    return active, response[active]


def screened_pairs(
    rows: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    penalty: float,
    group_size: int,
    nonnegative: bool = False,
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    r"""The active pairs and their responses, from a product in bfloat16 and a few responses in float32.

    With u = 2^-9, the unit roundoff of bfloat16, and g = n v / (1 - n v), v = 2^-24, for n additions in float32, the
    product of rounded inputs, accumulated in float32 and rounded to bfloat16, misses the exact response h of a group by
    at most

    .. math:: \|\tilde h - h\| \le \big((1 + u)^2 (1 + g) - 1\big) \|y\| \|W_g\|_F + \tfrac{u}{1 - u} \|\tilde h\|,

    since an entry's error is at most that factor times the sum of the moduli of y_i w_i, which Cauchy and Schwarz
    bound, plus the rounding of the result. float32 misses h by at most g ||y|| ||W_g||_F. A pair whose norm in bfloat16
    plus both bounds is at most the threshold is inactive in float32 too; all others are computed again in float32.

    Returns:
        ((samples, groups), responses (pairs, group_size)), as the float32 product gives them, up to its own rounding.
    """
    u, additions = 2.0**-9, len(dictionary) * 2.0**-24
    g = additions / (1 - additions)
    factor = (1 + u) ** 2 * (1 + g) - 1 + g
    rough = to_groups((rows.bfloat16() @ dictionary.bfloat16()).float(), group_size)
    if nonnegative:
        rough = rough.relu_()
    norms = torch.linalg.vector_norm(rough, dim=-1) / (1 - u)
    sizes = torch.linalg.vector_norm(to_groups(dictionary, group_size), dim=(0, 2))
    reach = factor * torch.linalg.vector_norm(rows, dim=1, keepdim=True) * sizes
    sample, group = (~(norms + reach <= penalty)).nonzero(as_tuple=True)  # not a number is never excluded
    pattern = ActivePairs((sample, group), rough.shape).rows(torch.zeros(len(sample), group_size))
    h = torch.sparse.sampled_addmm(pattern, rows, dictionary).values().view(-1, group_size)
    if nonnegative:
        h = h.relu()
    keep = torch.linalg.vector_norm(h, dim=1) > penalty
    return (sample[keep], group[keep]), h[keep]


class ActivePairs:
    """Where a batch of codes is active, as sparse matrices: one entry for each active (sample, group) pair and atom."""

    def __init__(self, active: tuple[Tensor, Tensor], shape: torch.Size) -> None:
        """The pairs as (samples, groups), in the order of `Tensor.nonzero`, of codes (samples, groups, group_size)."""
        _take_beta_warning()
        sample, group = active
        self.active = active
        samples, groups, size = shape
        self.shape = (samples, groups * size)
        atom = (group.unsqueeze(1) * size + torch.arange(size, device=group.device)).flatten()
        sample = sample.repeat_interleave(size)
        self.order = torch.argsort(atom, stable=True)
        self.by_sample = (_starts(sample, self.shape[0]), atom)
        self.by_atom = (_starts(atom, self.shape[1]), sample[self.order])

    def rows(self, values: Tensor) -> Tensor:
        """(samples, atoms), from values (pairs, group_size)."""
        return torch.sparse_csr_tensor(*self.by_sample, values.flatten(), self.shape, check_invariants=False)

    def columns(self, values: Tensor) -> Tensor:
        """The transpose, (atoms, samples)."""
        return torch.sparse_csr_tensor(
            *self.by_atom, values.flatten()[self.order], self.shape[::-1], check_invariants=False
        )


def selected_responses(
    data: Float[Tensor, "samples features"],
    weight: Float[Tensor, "features atoms"],
    bias: Float[Tensor, " atoms"],
    responses: Float[Tensor, "samples groups size"],
    pairs: ActivePairs,
) -> Float[Tensor, "pairs size"]:
    """The active pairs' rows of `responses`, which are Y W + b without gradients; here W and b get theirs.

    That of W costs P d n multiplications for P pairs, in place of N n m. The data get none.
    """
    found: Tensor = _Selected.apply(data, weight, bias, responses, pairs)
    return found


def decode_pairs(
    values: Float[Tensor, "pairs size"], dictionary: Float[Tensor, "features atoms"], pairs: ActivePairs
) -> Float[Tensor, "samples features"]:
    r"""Reconstructions from the active pairs alone, with gradients: P d n multiplications for P pairs.

    .. math:: \hat y_i = \sum_{g \in S_i} W_g z_{ig}
    """
    found: Tensor = _Decode.apply(values, dictionary, pairs)
    return found


class _Selected(torch.autograd.Function):
    """A gather, whose derivative in the weight is a sparse product."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, weight: Tensor, bias: Tensor, responses: Tensor, pairs: ActivePairs) -> Tensor:
        ctx.save_for_backward(data)
        ctx.pairs = pairs
        return responses[pairs.active]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        (data,), pairs = ctx.saved_tensors, ctx.pairs
        bias = grad.new_zeros(pairs.shape[1] // grad.shape[1], grad.shape[1]).index_add_(0, pairs.active[1], grad)
        return None, (pairs.columns(grad) @ data).T, bias.flatten(), None, None


class _Decode(torch.autograd.Function):
    """A sparse product, whose derivatives are another one and the product with the dictionary, sampled at the pairs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dictionary: Tensor, pairs: ActivePairs) -> Tensor:
        ctx.save_for_backward(values, dictionary)
        ctx.pairs = pairs
        return pairs.rows(values) @ dictionary.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (values, dictionary), pairs = ctx.saved_tensors, ctx.pairs
        pattern = pairs.rows(torch.zeros_like(values))
        sampled = torch.sparse.sampled_addmm(pattern, grad, dictionary).values().view_as(values)
        return sampled, (pairs.columns(values) @ grad).T, None


@functools.cache
def _take_beta_warning() -> None:
    """Take torch's one warning a process that sparse CSR is in beta, so that no filter has to stay for others.

    Filters belong to the process: a warning of another thread during this one call can be lost.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()


def _starts(index: Tensor, count: int) -> Tensor:
    """Where each of `count` rows starts in a list of entries, given the row of each entry."""
    return torch.nn.functional.pad(torch.bincount(index, minlength=count).cumsum(0), (1, 0))
