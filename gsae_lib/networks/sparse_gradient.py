"""The gradient of the shallow tied autoencoder from its active groups alone.

The network is x = sigma_lambda(W^T y), y_hat = W x with tied weights (arXiv 2102.07003, eq. 11-13, T = 1). Where few
groups fire, almost all of the work of automatic differentiation is multiplication by zeros. With N samples, n features,
m atoms and P active (sample, group) pairs, one call here costs one product Y W (N n m multiplications), and 4 P d n
for the rest; automatic differentiation costs about ten Y W.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_devices, check_int, check_real, describe, without_autocast
from gsae_lib._loops import add_gradient, are_compiled, groups_above
from gsae_lib._threads import BlockThreads
from gsae_lib.groups import group_norms, to_groups
from gsae_lib.penalty import GroupPenalty, as_penalty

# Samples at a time: the temporaries of a chunk are a few times (chunk, atoms).
CHUNK = 1250
# How far below the threshold, relatively, a squared norm in float may round: such pairs are looked at again.
NEARLY = 1e-5
# Steps with screening, and as many without, that are timed before the faster way is taken.
TRIALS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class ShallowGradient:
    """Loss 1/(2N) sum ||y - y_hat||^2, its gradient (features, atoms), and the mean number of active groups."""

    loss: float
    gradient: Tensor
    active_groups: float


@without_autocast
@torch.no_grad()
def shallow_gradient(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    penalty: float | GroupPenalty,
    group_size: int | None = None,
    *,
    chunk: int = CHUNK,
    screen: bool = False,
) -> ShallowGradient:
    r"""Loss and gradient of the shallow tied autoencoder with unit step; equal to automatic differentiation.

    With h = W_g^T y and, on the active pairs, z = tau h, r = y - W z, u = W_g^T r and
    J = tau I + (1 - tau) h h^T / \|h\|^2,

    .. math:: \nabla L = -\tfrac1N \big( R^T Z + Y^T J U \big), \qquad 2 N L = \|R\|_F^2

    where Z, U and J are sparse. A `nonnegative` penalty cuts negative entries first. Penalty 0 is not
    supported: every pair would be active. On the CPU chunks go to as many threads as torch has, each working alone; the
    result is the same for any number of them.

    Args:
        dictionary: the dictionary W.
        data: Y, with W's dtype and device.
        penalty: lambda > 0, beside group_size d; or a `GroupPenalty` without weights and l1, of groups of one size.
        chunk: samples at a time; bounds the memory. Non-finite data, or a non-finite dictionary, give such a loss.
        screen: find the pairs that may be active from a product in bfloat16 (float32 on the CPU only, and with numba).
            The result is the same, bit by bit. It pays where the processor multiplies bfloat16 much faster and few
            pairs are active; `TimedGradient` measures whether it does.

    Raises:
        ValueError: shapes that do not match, a penalty that is not positive, a bad chunk, or screening in another
            precision, on another device, or without numba.
    """
    if screen and not can_screen(data):
        raise ValueError(
            f"screen=True: expected float32 data on the CPU, and numba; got {describe(data)} on {data.device}"
        )
    for name, x in (("data", data), ("dictionary", dictionary)):
        if not isinstance(x, Tensor) or x.ndim != 2 or x.layout != torch.strided or not x.numel():
            raise ValueError(f"{name}: expected a dense matrix, got {describe(x)}")
    if data.dtype not in (torch.float32, torch.float64) and data.device.type == "cpu":
        raise ValueError(f"data: expected float32 or float64 on the CPU, got {describe(data)}")
    check_devices(data=data, dictionary=dictionary)
    if data.shape[1] != dictionary.shape[0] or data.dtype != dictionary.dtype:
        raise ValueError(f"data: expected (samples, {dictionary.shape[0]}) {dictionary.dtype}, got {describe(data)}")
    asked = as_penalty(penalty, group_size)
    if not is_plain(asked):
        raise ValueError(
            "penalty: expected a GroupPenalty of one size, without weights and l1 (`tied_gradient` takes others)"
        )
    asked.check(dictionary)
    penalty, group_size = check_real("penalty", float(asked.penalty), strict=True), asked.layout.width
    chunks = data.detach().split(check_int("chunk", chunk))
    with BlockThreads(data.device) as threads:
        return _add_chunks(threads, chunks, dictionary.detach(), penalty, group_size, asked.nonnegative, screen)


def is_plain(penalty: GroupPenalty) -> bool:
    """Whether a penalty is lambda times the sum of the norms of groups of one size."""
    return (
        type(penalty) is GroupPenalty and penalty.layout.sizes is None and penalty.weights is None and penalty.l1 == 0
    )


class TimedGradient:
    """`shallow_gradient`, screened where that is faster: the first steps time both ways in turn.

    Screening gives the same bits, so the result does not depend on the times.
    """

    def __init__(self) -> None:
        self.seconds: dict[bool, list[float]] = {False: [], True: []}  # a sample, by whether pairs are screened

    def __call__(self, data: Tensor, dictionary: Tensor, penalty: GroupPenalty) -> ShallowGradient:
        """As `shallow_gradient`."""
        screen, start = self._screens(data), time.perf_counter()
        found = shallow_gradient(data, dictionary, penalty, screen=screen)
        if len(self.seconds[screen]) < TRIALS:
            self.seconds[screen].append((time.perf_counter() - start) / len(data))
        return found

    def _screens(self, data: Tensor) -> bool:
        if not can_screen(data):
            return False
        plain, screened = self.seconds[False], self.seconds[True]
        if len(plain) < TRIALS or len(screened) < TRIALS:
            return len(screened) < len(plain)
        return min(screened) < min(plain)


def can_screen(data: Tensor) -> bool:
    """Whether the pairs of these data that may be active can be found in bfloat16."""
    return data.dtype == torch.float32 and data.device.type == "cpu" and are_compiled()


def _add_chunks(
    threads: BlockThreads,
    chunks: Sequence[Tensor],
    dictionary: Tensor,
    penalty: float,
    group_size: int,
    nonnegative: bool,
    screen: bool,
) -> ShallowGradient:
    atoms, weight = dictionary.T.contiguous(), dictionary.bfloat16() if screen else dictionary
    largest = torch.linalg.vector_norm(to_groups(dictionary, group_size), dim=(0, 2)).max()

    def step(rows: Tensor) -> tuple[Tensor, float | Tensor, int]:
        if rows.device.type != "cpu" or not are_compiled():
            return _by_sparse_products(rows, dictionary, atoms, penalty, group_size, nonnegative)
        product, least = _product(rows, weight, largest, penalty)
        starts, groups = groups_above(product.numpy(), least.numpy(), group_size, nonnegative)
        pulled, exact = torch.zeros_like(atoms), rows.contiguous().numpy()
        weights = (exact.dtype.type(penalty), group_size, nonnegative, pulled.numpy())
        return pulled, *add_gradient(exact, atoms.numpy(), starts, groups, *weights)

    # What is not finite in the dictionary would make its groups inactive, and no more.
    pulled, twice_loss, pairs = torch.zeros_like(atoms), 0 * torch.linalg.vector_norm(atoms).square(), 0
    for part, loss, count in threads.map(step, chunks):
        pulled += part
        twice_loss += loss
        pairs += count
    n_samples = sum(map(len, chunks))
    return ShallowGradient(twice_loss.item() / (2 * n_samples), pulled.T / -n_samples, pairs / n_samples)


def _product(rows: Tensor, weight: Tensor, largest: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    r"""Y W, and for each sample the squared norm up to which a group of it is surely inactive (-1: no group is).

    With g = n v / (1 - n v) and v the unit roundoff, n products added up in any order miss an exact response h by at
    most g \|y\| \|W_g\|_F, and two such sums differ by twice that. The product of bfloat16, whose unit roundoff is
    u = 2^-8, accumulated in float32 and rounded to bfloat16, misses it by at most

    .. math:: \|\tilde h - h\| \le \big((1 + u)^2 (1 + g) - 1\big) \|y\| \max_g \|W_g\|_F
              + \tfrac{u}{1 - u} \|\tilde h\|,

    since an entry's error is at most that factor times the sum of the moduli of y_i w_i, which Cauchy and Schwarz
    bound, plus the rounding of the result; and the loops of float32 miss it by g \|y\| \|W_g\|_F, as before.
    """
    additions = len(weight) * torch.finfo(rows.dtype).eps / 2
    g = additions / (1 - additions)
    product = (rows.to(weight.dtype) @ weight).to(rows.dtype)
    if weight.dtype == torch.bfloat16:
        u = torch.finfo(torch.bfloat16).eps / 2
        share, factor = 1 - u, (1 + u) ** 2 * (1 + g) - 1 + g
    else:
        share, factor = 1.0, 2 * g
    certain = penalty - factor * largest * torch.linalg.vector_norm(rows, dim=1)
    least = torch.where(certain > 0, (share * certain).square() * (1 - NEARLY), -1.0)
    return product, least


def _by_sparse_products(
    rows: Tensor, dictionary: Tensor, atoms: Tensor, penalty: float, group_size: int, nonnegative: bool
) -> tuple[Tensor, Tensor, int]:
    """What the compiled loops compute, by torch alone: (-N times the gradient's transpose, sum ||r||^2, pairs)."""
    response = rows @ dictionary
    if nonnegative:
        response = response.relu_()
    norms = group_norms(response, group_size)
    sample, group = active = (norms > penalty).nonzero(as_tuple=True)
    h, norm = to_groups(response, group_size)[active], norms[active].unsqueeze(1)
    tau = 1 - penalty / norm
    z = tau * h
    code = ActivePairs((sample, group), torch.Size((len(rows), atoms.shape[0] // group_size, group_size)))
    codes = code.rows(z)
    residual = torch.addmm(rows, codes, atoms, alpha=-1)
    u = torch.sparse.sampled_addmm(codes, residual, atoms.T, beta=0.0).values().view_as(z)
    if nonnegative:
        u *= h > 0
    back = tau * u + (1 - tau) * h * ((h * u).sum(dim=1, keepdim=True) / norm.square())
    pulled = torch.addmm(code.columns(back) @ rows, code.columns(z), residual)
    return pulled, residual.square().sum(), len(z)


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
