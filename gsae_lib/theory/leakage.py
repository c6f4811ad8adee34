r"""Data that are only approximately group-sparse: groups that should be silent leak.

One group is active in a sample, with second moment sigma^2 an entry; every other group sends white codes of variance
nu^2 an entry, uncorrelated with all else. Proofs on the theory page, section "Energy that leaks".
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_int, check_real
from gsae_lib.dictionary import Dictionary, as_groups, polar
from gsae_lib.theory.population import Population


def leak_tangent(population: Population, leak: float, n_samples: int | None = None) -> float:
    r"""Root mean square tangent at which spans rest, random truth; first order in nu^2 / sigma^2.

    .. math:: \frac{\nu^2}{\sigma^2 - \nu^2} \sqrt{\frac{m - d}{n}}

    On N fixed samples the leak is noise, too, and the square of this gets a part that falls with N:

    .. math:: \frac{n - d}{N \kappa} \Big( s^2 + \nu^2\, \frac{m - d}{n} \Big)

    Args:
        population: one active group; its noise counts with `n_samples` only. leak: nu. n_samples: N; None for infinite
            data.
    """
    leak = _checked(population, leak)
    check_real("leak", leak, high=math.sqrt(population.sigma2) * (1 - 1e-9))
    share = (population.n_atoms - population.group_size) / population.n_features
    bias = leak**2 / (population.sigma2 - leak**2) * math.sqrt(share)
    if n_samples is None:
        return bias
    power = population.noise_std**2 + leak**2 * share
    outside = population.n_features - population.group_size
    return math.sqrt(bias**2 + outside * power / (check_int("n_samples", n_samples) * population.kappa))


def leak_span(dictionary: Dictionary, group: int, group_size: int, sigma2: float, leak: float) -> Tensor:
    r"""Where the flow of one group rests: the leading span of its second moment, (features, size).

    .. math:: M_g \propto (\sigma^2 - \nu^2) A_g A_g^T + \nu^2 A A^T
    """
    groups = as_groups(dictionary.double(), group_size)
    own = groups[check_int("group", group, low=0, high=len(groups) - 1)]
    leak, sigma2 = check_real("leak", leak), check_real("sigma2", sigma2, strict=True)
    moment = (sigma2 - leak**2) * own @ own.T + leak**2 * dictionary.double() @ dictionary.double().T
    return torch.linalg.eigh(moment).eigenvectors[:, -group_size:]


def leak_bound(dictionary: Dictionary, group_size: int, sigma2: float, leak: float) -> Float[Tensor, " groups"]:
    r"""Largest tangent of each group at rest, at most; exact for any truth with orthonormal groups. Infinite: no bound.

    .. math:: \tan 2\theta \le \frac{2 \nu^2 \|B^T A A^T A_g\|_2}{\sigma^2 - \nu^2 + \nu^2
              \big( \lambda_{\min}(A_g^T A A^T A_g) - \lambda_{\max}(B^T A A^T B) \big)}

    B is an orthonormal basis of the complement of span A_g.
    """
    variance, sigma2 = check_real("leak", leak) ** 2, check_real("sigma2", sigma2, strict=True)
    truth, bounds = dictionary.double(), []
    for own in polar(as_groups(truth, group_size)):
        sent = truth.T @ own
        rest = truth - own @ sent.T
        gap = (
            sigma2
            - variance
            + variance * (torch.linalg.eigvalsh(sent.T @ sent)[0] - torch.linalg.matrix_norm(rest, ord=2) ** 2)
        )
        twice = 2 * variance * torch.linalg.matrix_norm(rest @ sent, ord=2)
        bounds.append(math.tan(math.atan2(twice.item(), gap.item()) / 2) if gap > 0 else math.inf)
    return torch.tensor(bounds, dtype=torch.float64)


def _checked(population: Population, leak: float) -> float:
    check_int("population.n_active", population.n_active, high=1)
    return check_real("leak", leak)
