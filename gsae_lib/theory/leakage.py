r"""Data that are only approximately group-sparse: groups that should be silent leak.

One group is active in a sample, with second moment sigma^2 an entry; every other group sends white codes of variance
nu^2 an entry, uncorrelated with all else. Proofs on the theory page, section "Energy that leaks".
"""

import math

from gsae_lib._checks import check_int, check_real
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


def _checked(population: Population, leak: float) -> float:
    check_int("population.n_active", population.n_active, high=1)
    return check_real("leak", leak)
