r"""Groups of groups: what the norms of one layer tell the next, and how errors of the lower layer reach the upper one.

The lower layer has orthonormal groups and an orthogonal truth; theta is its largest principal angle, gamma the number
of its active groups in a sample, [B_min, B_max] the range of their norms. Proofs on the theory page, section "Layers".
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsae_lib._checks import check_int, check_matrix, check_range, check_real, describe
from gsae_lib.theory.windows import Window


def always_together(support: Bool[Tensor, "samples groups"]) -> Bool[Tensor, "groups groups"]:
    """Pairs of groups that are active in the same samples, at least one: their spans cannot be told apart."""
    if not isinstance(support, Tensor) or support.dtype != torch.bool or support.ndim != 2:
        raise ValueError(f"support: expected a Boolean matrix, got {describe(support)}")
    counts = support.double().T @ support.double()
    own = counts.diagonal()
    together = (counts == own.unsqueeze(0)) & (counts == own.unsqueeze(1)) & (counts > 0)
    return together & ~torch.eye(len(counts), dtype=torch.bool, device=support.device)


def pair_linearization(norms: Float[Tensor, "samples 2"], penalty: float, group_size: int) -> Float[Tensor, "two two"]:
    r"""First order: the rates between two spans when their norms have any joint law, of which these are samples.

    .. math:: \begin{pmatrix} E s_g - E_2 s_h + 2 E_2\, t_h j_g & E_2 (t_g j_h + t_h j_g) \\
              E_2 (t_g j_h + t_h j_g) & E s_h - E_2 s_g + 2 E_2\, t_g j_h \end{pmatrix}

    acts on (M_hg, M_gh^T) at W = A*: orthogonal truth, directions isotropic and independent of each other and of all
    norms. 0 stands for an inactive group, E_2 counts samples with both active; s = c^2 / d, t = tau s,
    j = tau + (1 - tau) / d and tau = 1 - lambda / c. The spans attract each other's truth, and the truth is no
    minimum, if the smaller eigenvalue is negative. With independent norms of one law it is `rates.pair_rates`.
    """
    check_matrix("norms", norms, columns=2)
    d, penalty = check_int("group_size", group_size), check_real("penalty", penalty, strict=True)
    active = norms > 0
    if bool((norms < 0).any()) or not bool(active.any()) or norms[active].min() <= penalty:
        raise ValueError(f"norms: expected 0 or values above the penalty {penalty:g}, got at least {norms.min():.4g}")
    tau = torch.where(active, 1 - penalty / torch.where(active, norms, 1.0), 0.0)
    s, j = norms.square() / d, tau + (1 - tau) / d
    both = active.all(dim=1).to(norms.dtype)
    first, second = ((tau[:, k] * s[:, k] * j[:, 1 - k] * both).mean() for k in (1, 0))  # t_h j_g and t_g j_h
    power, shared = s.mean(dim=0), (s * both.unsqueeze(1)).mean(dim=0)
    across = first + second
    rows = [power[0] - shared[1] + 2 * first, across, across, power[1] - shared[0] + 2 * second]
    return torch.stack(rows).reshape(2, 2)


def layer_window(angle: float, n_active: int, norm_range: tuple[float, float]) -> Window:
    r"""Thresholds that find every support of one layer at angles up to theta, orthogonal truth, no noise.

    .. math:: \sqrt\gamma\, B_{\max} \sin\theta \le \lambda <
              B_{\min} \cos\theta - \sqrt{\gamma - 1}\, B_{\max} \sin\theta
    """
    angle = check_real("angle", angle, high=math.pi / 2)
    gamma = check_int("n_active", n_active)
    low, high = check_range("norm_range", norm_range)
    lower = math.sqrt(gamma) * high * math.sin(angle)
    upper = low * math.cos(angle) - math.sqrt(gamma - 1) * high * math.sin(angle)
    return Window("layer", lower, upper, "orthogonal truth, no noise", True)


def largest_layer_angle(n_active: int, norm_range: tuple[float, float]) -> float:
    r"""The angle below which `layer_window` is not empty.

    .. math:: \tan\theta < \frac{B_{\min}}{(\sqrt\gamma + \sqrt{\gamma - 1})\, B_{\max}}
    """
    gamma, (low, high) = check_int("n_active", n_active), check_range("norm_range", norm_range)
    return math.atan(low / ((math.sqrt(gamma) + math.sqrt(gamma - 1)) * high))


def passed_range(
    angle: float,
    n_active: int,
    norm_range: tuple[float, float],
    n_children: tuple[int, int],
    penalty: float = 0.0,
) -> tuple[float, float]:
    r"""Norms of a group of the next layer, from the lower layer's angle, with supports right and no noise.

    .. math:: \sqrt{r_{\min}}\, (B_{\min} \cos\theta - \sqrt{\gamma - 1}\, B_{\max} \sin\theta - \lambda)
              \quad\text{to}\quad \sqrt{r_{\max}}\, (B_{\max} (1 + \sqrt{\gamma - 1} \sin\theta) - \lambda)

    if between r_min and r_max of its children are active. lambda is what the group ReLU has taken from each norm; 0 for
    a hard threshold, or where it is given back.
    """
    angle, penalty = check_real("angle", angle, high=math.pi / 2), check_real("penalty", penalty)
    gamma, (low, high) = check_int("n_active", n_active), check_range("norm_range", norm_range)
    fewest = check_int("n_children[0]", n_children[0])
    most = check_int("n_children[1]", n_children[1], low=fewest)
    cross = math.sqrt(gamma - 1) * high * math.sin(angle)
    smallest = low * math.cos(angle) - cross - penalty
    if smallest <= 0:
        raise ValueError(f"angle={angle}, penalty={penalty}: the smallest active group may be lost ({smallest:.4g})")
    return math.sqrt(fewest) * smallest, math.sqrt(most) * (high + cross - penalty)


def norm_error(angle: float, n_active: int) -> float:
    r"""Relative error of the norms of one sample, at most: any data with right supports, orthogonal truth, no noise.

    .. math:: \|\hat\nu - \nu\| \le c_1 \|\nu\|, \qquad c_1 = 1 - \cos\theta + \sqrt{\gamma - 1}\, \sin\theta
    """
    angle = check_real("angle", angle, high=math.pi / 2)
    return 1 - math.cos(angle) + math.sqrt(check_int("n_active", n_active) - 1) * math.sin(angle)


def mean_norm_error(angle: float, n_active: int, norm_ratio: float) -> float:
    r"""Relative error of the norms in the mean over signs of single groups, at most: of second order in the angle.

    .. math:: \|E[\hat\nu \mid \nu] - \nu\| \le c_2 \|\nu\|, \qquad
              c_2 = 1 - \cos\theta + \frac{(\gamma - 1)\, b \sin^2\theta}{2 \cos\theta}, \quad b = B_{\max} / B_{\min}
    """
    angle = check_real("angle", angle, high=math.pi / 2 - 1e-9)
    others, ratio = check_int("n_active", n_active) - 1, check_real("norm_ratio", norm_ratio, low=1.0)
    return 1 - math.cos(angle) + others * ratio * math.sin(angle) ** 2 / (2 * math.cos(angle))


def upper_tangent(error: float, spread: float) -> float:
    r"""Largest tangent to which errors of the norms can turn a span of the next layer; infinite if there is no bound.

    .. math:: \tan\theta_2 \le \frac{K u}{1 - 2 K u}, \qquad
              K = \frac{\operatorname{tr} \Sigma_k}{\lambda_{\min}(\Sigma_k)}, \quad \Sigma_k = E\, z_k z_k^T

    u is c_1 + c_1^2 for any data, c_2 + c_1^2 in the mean over signs; Sigma_k the second moment of the true codes of
    group k, whose norms nu = A_k z_k need not lie along coordinates.

    Args:
        error: u. spread: K, at least the size of the group.
    """
    scaled = check_real("error", error) * check_real("spread", spread, low=1.0)
    return scaled / (1 - 2 * scaled) if 2 * scaled < 1 else math.inf


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


def sufficient_orbits(rate: float, n_active: int, largest_norm: float, n_directions: int, failure: float) -> int:
    r"""How many samples, each with all signs of its active groups, make the truth a strict minimum, with 1 - failure.

    .. math:: N \ge \Big( \frac{98 R^4}{\mu^2} + \frac{20 R^2}{3 \mu} \Big) \log \frac{D}{\delta}, \qquad
              R^2 = \gamma B_{\max}^2

    mu is the smallest rate on infinite data (`pair_linearization`, `rates.pair_rates`, and p sigma^2), D the number
    of directions in which spans can move, Gamma d (n - d).
    """
    rate = check_real("rate", rate, strict=True)
    power = check_int("n_active", n_active) * check_real("largest_norm", largest_norm, strict=True) ** 2
    failure = check_real("failure", failure, high=1.0, strict=True)
    needed = 98 * (power / rate) ** 2 + 20 * power / (3 * rate)
    return math.ceil(needed * math.log(check_int("n_directions", n_directions) / failure))
