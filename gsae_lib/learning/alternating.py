"""Alternating minimisation, the classical baseline of the autoencoder: solve for the codes, then for the dictionary.

Source: arXiv 2102.07003, eq. 8-10; dictionary update and online form are those of Mairal et al., "Online learning for
matrix factorization and sparse coding" (2010).
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from tqdm import trange

from gsae_lib._checks import check_devices, check_int, check_matrix, check_samples, without_autocast
from gsae_lib.coding.group_lasso import group_sparse_code
from gsae_lib.groups import Groups
from gsae_lib.penalty import GroupPenalty, as_penalty


@dataclasses.dataclass(frozen=True, eq=False)
class DictionaryFit:
    """dictionary: (features, atoms), columns of norm at most 1. codes: of the data, on the last dictionary but one.

    objective: the mean of 1/2 ||y - W x||^2 + lambda sum ||x_g|| after the codes of each iteration, in squared units of
    the data (online: over the batches of the iteration, each on the dictionary of its time). seconds: in all.
    """

    dictionary: Float[Tensor, "features atoms"]
    codes: Float[Tensor, "samples atoms"]
    objective: tuple[float, ...]
    seconds: float


@without_autocast
def alternating_minimization(
    data: Float[Tensor, "samples features"],
    init: Float[Tensor, "features atoms"],
    penalty: float | GroupPenalty,
    groups: Groups | None = None,
    *,
    max_iter: int = 20,
    batch_size: int | None = None,
    generator: Generator | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    progress: bool = False,
    **coding: Any,
) -> DictionaryFit:
    r"""Learn a dictionary by turns: codes at a fixed dictionary, then the dictionary at fixed codes.

    .. math:: \min_{W, X} \tfrac12 \|Y - X W^T\|_F^2 + \lambda \sum_{i,g} \|x_{i,g}\|
              \quad \text{subject to } \|w_j\| \le 1

    The codes come from `group_sparse_code`, each time started from the last; the dictionary from a sweep of exact
    minimisation over one column after the other, which needs only X^T X and Y^T X. With all samples at once neither
    part can raise the objective, up to the tolerance of the codes. With `batch_size` each batch is coded once and the
    two matrices are running averages with weights k^{-3/4}, k counting batches: online dictionary learning.

    Args:
        data: Y. init: the initial dictionary; columns longer than 1 are scaled to 1. penalty, groups: as
            `group_sparse_code`, which takes all further settings.
        max_iter: passes over the data.
        batch_size: samples a batch, in a fresh random order each pass from `generator`; None for all at once.
        callback: called as callback(iteration, dictionary) after each iteration, from 1.

    Raises:
        ValueError: a batch size without a generator.
    """
    check_devices(data=data, init=init)
    check_samples("data", data, columns=check_matrix("init", init).shape[0])
    check_int("max_iter", max_iter)
    if batch_size is not None:
        check_int("batch_size", batch_size)
        if generator is None:
            raise ValueError("generator=None: expected a torch.Generator, since batch_size is given")
    penalty = as_penalty(penalty, groups)
    if penalty.layout.overlaps:
        raise ValueError("groups: an atom is in several of them, expected each in one")
    clock = time.perf_counter()
    dictionary = init / torch.linalg.vector_norm(init, dim=0).clamp(min=1.0)
    codes = torch.zeros(len(data), init.shape[1], dtype=data.dtype, device=data.device)
    second = torch.zeros(init.shape[1], init.shape[1], dtype=data.dtype, device=data.device)
    cross = torch.zeros_like(init)
    curve, count = [], 0
    for iteration in trange(1, max_iter + 1, desc="alternating minimisation", disable=not progress):
        total = 0.0
        for rows in _batches(len(data), batch_size, generator):
            found = group_sparse_code(data[rows], dictionary, penalty, init=codes[rows], **coding)
            codes[rows] = found.codes
            total += found.objective.sum().item()
            count += 1
            weight = 1.0 if batch_size is None else count**-0.75
            second += weight * (found.codes.T @ found.codes / len(rows) - second)
            cross += weight * (data[rows].T @ found.codes / len(rows) - cross)
            dictionary = _update(dictionary, second, cross)
        curve.append(total / len(data))
        if callback is not None:
            callback(iteration, dictionary)
    return DictionaryFit(dictionary, codes, tuple(curve), time.perf_counter() - clock)


def _batches(n_samples: int, batch_size: int | None, generator: Generator | None) -> tuple[Tensor, ...]:
    if batch_size is None:
        return (torch.arange(n_samples),)
    return torch.randperm(n_samples, generator=generator).split(batch_size)


def _update(dictionary: Tensor, second: Tensor, cross: Tensor) -> Tensor:
    """One sweep over the columns: each is the best of norm at most 1 with the others fixed; unused ones stay."""
    columns, targets = dictionary.T.clone(), cross.T
    for j in (second.diagonal() > 0).nonzero().flatten().tolist():
        column = columns[j] + (targets[j] - second[j] @ columns) / second[j, j]
        columns[j] = column / torch.linalg.vector_norm(column).clamp(min=1.0)
    return columns.T.contiguous()
