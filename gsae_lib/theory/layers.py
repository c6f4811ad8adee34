r"""Groups of groups: what the norms of one layer tell the next, and how errors of the lower layer reach the upper one.

The lower layer has orthonormal groups and an orthogonal truth; theta is its largest principal angle, gamma the number
of its active groups in a sample, [B_min, B_max] the range of their norms. Proofs on the theory page, section "Layers".
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_int, check_matrix, check_range, check_real, describe


def largest_layer_angle(n_active: int, norm_range: tuple[float, float]) -> float:
    r"""The angle up to which some threshold finds every support of one layer: orthogonal truth, no noise.

    .. math:: \sqrt\gamma\, B_{\max} \sin\theta \le \lambda <
              B_{\min} \cos\theta - \sqrt{\gamma - 1}\, B_{\max} \sin\theta, \qquad
              \tan\theta < \frac{B_{\min}}{(\sqrt\gamma + \sqrt{\gamma - 1})\, B_{\max}}
    """
    gamma, (low, high) = check_int("n_active", n_active), check_range("norm_range", norm_range)
    return math.atan(low / ((math.sqrt(gamma) + math.sqrt(gamma - 1)) * high))


def false_alarm_tangent(
    second: Float[Tensor, "size size"],
    mean: Float[Tensor, " size"],
    n_others: int,
    rate: float,
    moments: tuple[float, float],
) -> float:
    r"""Largest tangent of a group of coordinates when children of other groups fire by mistake, in the mean.

    The leading span of the second moment of what is passed up while group k is active; first order in the rate

    .. math:: \tan\theta_2 \approx \pi v_1 \sqrt{q}\; \|\Sigma_k^{-1} \mu_k\|

    Args:
        second: Sigma_k = E z z^T and
        mean: mu_k = E z, of the norms of its own children.
        n_others: q, children of others. rate: pi, how often each of them fires, independently of all else.
        moments: (v_1, v_2), mean and mean square of what is then passed up.
    """
    size = check_matrix("second", second).shape[0]
    if second.shape != (size, size) or mean.shape != (size,):
        raise ValueError(f"mean: expected {size} entries beside second {tuple(second.shape)}, got {describe(mean)}")
    q, pi = check_int("n_others", n_others), check_real("rate", rate, high=1.0)
    first, square = (check_real(f"moments[{k}]", moments[k]) for k in (0, 1))
    joint = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    joint[:size, :size] = second.double()
    joint[:size, size] = joint[size, :size] = math.sqrt(q) * pi * first * mean.double()
    joint[size, size] = pi * square + (q - 1) * (pi * first) ** 2
    sine = torch.linalg.vector_norm(torch.linalg.eigh(joint).eigenvectors[size, 1:]).item()
    return sine / math.sqrt(1 - sine**2) if sine < 1 else math.inf
