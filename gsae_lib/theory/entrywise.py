r"""Scalar thresholds on groups: what soft threshold and biased ReLU keep of isotropic groups, by geometry.

A column of norm rho answers rho c u_1 to a group of norm c and uniform direction u, when cross-talk and noise are
ignored. Source: our reading of arXiv 2102.07003, Figure 3, whose baselines threshold single entries.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import betainc

from gsae_lib._checks import check_int, check_real
from gsae_lib.theory.population import Population


def predicted_entry_recall(
    population: Population, penalty: float, *, column_norm: float = 1.0, nonnegative: bool = False
) -> float:
    r"""Share of truly active entries that a scalar threshold keeps.

    The entry is lost when the size of rho c u_1 is at most lambda, so

    .. math:: \text{recall} = 1 - \mathbb{E}_c\, I_{a^2}\big(\tfrac12, \tfrac{d-1}{2}\big),
              \qquad a = \frac{\lambda}{\rho c}

    with I the regularised incomplete beta function and c uniform in the range of norms; for d = 2 this is
    1 - (2 / pi) E asin(a). On codes of either sign the biased ReLU (`nonnegative`) keeps half of it: it loses the
    negative entries.
    """
    check_int("group_size", population.group_size, low=2)
    cut = check_real("penalty", penalty, strict=True) / check_real("column_norm", column_norm, strict=True)
    norms = np.linspace(*population.norm_range, 1001)
    two_sided = 1 - betainc(0.5, (population.group_size - 1) / 2, np.minimum(cut / norms, 1.0) ** 2).mean()
    return float(two_sided / 2 if nonnegative else two_sided)


def predicted_entry_success(population: Population, penalty: float, *, column_norm: float = 1.0) -> float:
    r"""P(all entries of an active code exceed a scalar threshold): the sparse law, by geometry alone.

    .. math:: \big( P(|u_1|, \dots, |u_d| > \lambda / \rho c) \big)^\gamma, \qquad
              1 - \tfrac4\pi \mathbb{E} \arcsin \frac{\lambda}{\rho c} \text{ in the bracket, for } d = 2

    with u uniform on the circle; cross-talk and noise are ignored. For d = 2 only.
    """
    cut = check_real("penalty", penalty, strict=True) / check_real("column_norm", column_norm, strict=True)
    if population.group_size != 2:
        raise ValueError(f"group_size={population.group_size}: expected 2")
    kept = population.mean(lambda c: np.maximum(1 - 4 / np.pi * np.arcsin(np.minimum(cut / c, 1.0)), 0.0))
    return kept**population.n_active


def one_sided_equilibrium(population: Population, penalty: float) -> tuple[float, float]:
    r"""Where the biased ReLU comes to rest in one isotropic group of two: (angle between its columns, their norm).

    Active together, two units of a group both answer with positive codes, which on average are not there: a group's
    code has either sign. Descent therefore moves each column against the other, w_1 by - rho E[z_1 z_2] a_2 at
    right angles, until they stand at an obtuse angle. The function minimises

    .. math:: \mathbb{E} \Big\| x - \sum_{i=1}^2 (w_i^T x - \lambda)_+ w_i \Big\|^2, \qquad
              w_{1,2} = \rho\, (\cos(\pi/4 \pm \psi/2), \sin(\pi/4 \pm \psi/2))

    over rho and the angle psi (radians), x uniform in direction with the norms of the population. Noise, cross-talk and
    columns that are not at right angles are left out.
    """
    check_int("group_size", population.group_size, low=2, high=2)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    low, high = population.norm_range
    cut = check_real("penalty", penalty, strict=True)
    turns = 2 * np.pi * (np.arange(8000) + 0.5) / 8000  # many: the loss is flat, and has a kink where a unit starts
    x = ((low + high + (high - low) * nodes) / 2)[:, None, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)

    def loss(parameters: np.ndarray) -> float:
        rho, psi = parameters
        angles = np.pi / 4 + psi / 2 * np.array([-1, 1])
        columns = rho * np.stack([np.cos(angles), np.sin(angles)])
        codes = np.maximum(x @ columns - cut, 0)
        return float(np.square(x - codes @ columns.T).sum(axis=2).mean(axis=1) @ weights / 2)

    found = minimize(loss, (1.3, 1.7), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    return float(found.x[1]), float(found.x[0])
