"""Group-sparse coding: the objective that the encoder descends, and a certificate of how near its minimum a code is.

Source: arXiv 2102.07003, eq. 6; the gap is that of the group lasso (Ndiaye et al., 2017).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_matrix, check_real, describe
from gsae_lib.groups import group_norms


def group_lasso_objective(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: float,
    group_size: int,
) -> Float[Tensor, " samples"]:
    """Objective of each sample, 1/2 ||y - W x||^2 + lambda sum_g ||x_g||, in squared units of the data.

    Raises:
        ValueError: shapes that do not match, a negative penalty, or a bad group size.
    """
    residual = _residual(data, dictionary, codes, penalty)
    return 0.5 * residual.square().sum(dim=1) + penalty * group_norms(codes, group_size).sum(dim=1)


def duality_gap(
    data: Float[Tensor, "samples features"],
    dictionary: Float[Tensor, "features atoms"],
    codes: Float[Tensor, "samples atoms"],
    penalty: float,
    group_size: int,
) -> Float[Tensor, " samples"]:
    r"""Duality gap of each sample: an upper bound on objective(x) - minimum, and 0 only at a minimiser.

    .. math:: P(x) - D(\theta), \qquad D(\theta) = \tfrac12\|y\|^2 - \tfrac12\|y - \theta\|^2, \qquad
              \theta = r \min\Big(1, \frac{\lambda}{\max_g \|W_g^T r\|}\Big), \quad r = y - W x

    where theta is feasible, ||W_g^T theta|| <= lambda for all g. Use float64 for gaps below 1e-6 of the objective.

    Raises:
        ValueError: as `group_lasso_objective`.
    """
    residual = _residual(data, dictionary, codes, penalty)
    largest = group_norms(residual @ dictionary, group_size).amax(dim=1, keepdim=True)
    feasible = residual * (penalty / torch.where(largest > 0, largest, 1.0)).clamp(max=1.0)
    dual = 0.5 * data.square().sum(dim=1) - 0.5 * (data - feasible).square().sum(dim=1)
    return group_lasso_objective(data, dictionary, codes, penalty, group_size) - dual


def _residual(data: Tensor, dictionary: Tensor, codes: Tensor, penalty: float) -> Tensor:
    check_real("penalty", penalty)
    check_matrix("dictionary", dictionary)
    if data.shape != (len(codes), dictionary.shape[0]) or codes.shape[1] != dictionary.shape[1]:
        shapes = ", ".join(describe(x) for x in (data, dictionary, codes))
        raise ValueError(f"data, dictionary, codes: expected (N, n), (n, m), (N, m), got {shapes}")
    return data - codes @ dictionary.T
