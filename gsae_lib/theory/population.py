"""The law of the data in a few numbers, and small data sets whose averages are exactly those of the law.

Symbols as on the notation page: p = gamma / Gamma, q = (gamma - 1) / (Gamma - 1), c = ||x_g||, m_k = E c^k,
sigma^2 = m_2 / d and kappa = p sigma^2, the second moment of a code entry over all samples.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import (
    at_least_single,
    check_choice,
    check_devices,
    check_int,
    check_matrix,
    check_range,
    check_real,
)
from gsae_lib.dictionary import as_groups
from gsae_lib.generative import GroupSparseSample, GroupSparseSource
from gsae_lib.groups import Groups, to_groups

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
ORTHONORMAL_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Population:
    """What the theory needs to know of the data: uniform supports, isotropic groups, white Gaussian noise.

    Args:
        n_features: n. n_groups: Gamma. group_size: d. n_active: gamma.
        norm_range: (B_min, B_max); the norm c of an active group is uniform in it.
        noise_std: s, of one feature, in the units of the data.
        orthonormal: whether the true groups are orthonormal; if not, their columns are Gaussian of unit norm.
    """

    n_features: int
    n_groups: int
    group_size: int
    n_active: int
    norm_range: tuple[float, float] = (4.0, 5.0)
    noise_std: float = 0.0
    orthonormal: bool = True

    def __post_init__(self) -> None:
        check_int("n_features", self.n_features)
        check_int("n_groups", self.n_groups)
        check_int("group_size", self.group_size, high=self.n_features)
        check_int("n_active", self.n_active, high=self.n_groups)
        check_range("norm_range", self.norm_range)
        check_real("noise_std", self.noise_std)

    @classmethod
    def of(cls, source: GroupSparseSource) -> "Population":
        """The population that a source draws from.

        Raises:
            ValueError: codes that are Gaussian or non-negative, for which the formulas are not derived.
        """
        check_choice("codes", source.codes, ("sphere",))
        check_choice("nonnegative", source.nonnegative, (False,))
        orthonormal = orthonormality(source.dictionary, source.group_size) < ORTHONORMAL_TOLERANCE
        sizes = (source.dictionary.shape[0], source.n_groups, source.group_size, source.n_active)
        low, high = source.norm_range
        return cls(*sizes, (low, high), source.noise_std, orthonormal)

    @property
    def norm_nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Norms of an active group and weights that sum to 1: Gauss-Legendre quadrature with 64 nodes."""
        low, high = self.norm_range
        return (low + high) / 2 + (high - low) / 2 * _NODES, _WEIGHTS / 2

    @classmethod
    def at_snr(
        cls,
        sizes: tuple[int, int, int, int],
        norm_range: tuple[float, float],
        snr_db: float,
        *,
        orthonormal: bool = True,
    ) -> "Population":
        r"""With the noise that gives this ratio of mean signal power to noise power, in decibels.

        .. math:: s^2 = \frac{\gamma m_2}{n}\, 10^{-\mathrm{snr\_db} / 10}

        Args:
            sizes: (n_features, n_groups, group_size, n_active).
        """
        clean = cls(*sizes, norm_range, orthonormal=orthonormal)
        power = clean.n_active * clean.moment(2) / clean.n_features
        return dataclasses.replace(clean, noise_std=(power * 10 ** (-snr_db / 10)) ** 0.5)

    def mean(self, f: Callable[[np.ndarray], np.ndarray]) -> float:
        """E f(c) over the norm c of an active group, by the quadrature of `norm_nodes`."""
        norms, weights = self.norm_nodes
        return float(f(norms) @ weights)

    def moment(self, k: int) -> float:
        """m_k = E c^k."""
        return self.mean(lambda c: c**k)

    @property
    def p(self) -> float:
        """P(g in S) = gamma / Gamma."""
        return self.n_active / self.n_groups

    @property
    def q(self) -> float:
        """P(h in S | g in S) = (gamma - 1) / (Gamma - 1); 0 for one group."""
        return (self.n_active - 1) / max(self.n_groups - 1, 1)

    @property
    def sigma2(self) -> float:
        """sigma^2 = m_2 / d, the second moment of an entry of an active group."""
        return self.moment(2) / self.group_size

    @property
    def kappa(self) -> float:
        """kappa = p sigma^2, the rate of the flow of a span."""
        return self.p * self.sigma2

    @property
    def n_atoms(self) -> int:
        """m = Gamma d."""
        return self.n_groups * self.group_size

    def with_constant_norm(self) -> "Population":
        """The same with all norms equal to the root mean square, sqrt(m_2), which keeps sigma^2."""
        root = self.moment(2) ** 0.5
        return dataclasses.replace(self, norm_range=(root, root))


def orthonormality(dictionary: Tensor, groups: Groups) -> float:
    """How far groups are from orthonormal: max over g of the spectral norm of W_g^T W_g - I; 0 if they are."""
    stack = as_groups(at_least_single(check_matrix("dictionary", dictionary)), groups)
    identity = torch.diag_embed(to_groups(stack.new_ones(dictionary.shape[1]), groups))
    return torch.linalg.matrix_norm(stack.mT @ stack - identity, ord=2).max().item()


def spherical_design(group_size: int) -> Float[Tensor, "points size"]:
    """Points of the unit sphere in R^d whose averages of polynomials up to degree 5 are those of the sphere.

    d = 1: both signs; d = 2: the hexagon; d = 3: the icosahedron; d = 4: the 24-cell. In float64.
    """
    d = check_int("group_size", group_size, high=4)
    points: list[tuple[float, ...]]
    if d == 1:
        points = [(1.0,), (-1.0,)]
    elif d == 2:
        points = [(np.cos(a), np.sin(a)) for a in np.arange(6) * np.pi / 3]
    elif d == 3:
        golden = (1 + 5**0.5) / 2
        first = [(0.0, a, b * golden) for a in (1.0, -1.0) for b in (1.0, -1.0)]
        points = [x[k:] + x[:k] for x in first for k in range(3)]
    else:
        pairs = itertools.combinations(range(4), 2)
        signs = list(itertools.product((1.0, -1.0), repeat=2))
        points = [tuple(a if i == j else b if i == k else 0.0 for i in range(4)) for j, k in pairs for a, b in signs]
    design = torch.tensor(points, dtype=torch.float64)
    return design / torch.linalg.vector_norm(design, dim=1, keepdim=True)


def designed_sample(
    dictionary: Float[Tensor, "features atoms"], group_size: int, n_active: int, norm: float
) -> GroupSparseSample:
    """All supports with all points of a spherical design in each active group: a finite population without noise.

    Its average of any polynomial of degree up to 5 in each group is exactly that of uniform supports and isotropic,
    independent groups of constant norm, so what depends on second and fourth moments alone comes out to rounding.
    The number of samples is binomial(Gamma, gamma) times (points of the design)^gamma.
    """
    n_groups = as_groups(check_matrix("dictionary", dictionary), group_size).shape[0]
    check_int("n_active", n_active, high=n_groups)
    norm = check_real("norm", norm, strict=True)
    design = norm * spherical_design(group_size).to(dictionary)
    supports = list(itertools.combinations(range(n_groups), n_active))
    points = torch.cartesian_prod(*[torch.arange(len(design))] * n_active).reshape(-1, n_active)
    codes = torch.zeros(len(supports), len(points), n_groups, group_size, dtype=dictionary.dtype)
    for row, support in enumerate(supports):
        codes[row][:, list(support)] = design.cpu()[points]
    codes = codes.flatten(0, 1).to(dictionary.device)
    return GroupSparseSample(codes.flatten(1) @ dictionary.T, codes.flatten(1), (codes != 0).any(dim=2))


def antithetic(sample: GroupSparseSample, dictionary: Float[Tensor, "features atoms"]) -> GroupSparseSample:
    """Each sample, without its noise, with every pattern of signs of its active groups: 2^(gamma - 1) samples for one.

    Terms that are odd in a group cancel exactly. (A change of all signs changes nothing: the loss is even.)

    Raises:
        ValueError: samples with different numbers of active groups.
    """
    check_devices(sample=sample.codes, dictionary=dictionary)
    counts = sample.support.sum(dim=1)
    active = int(counts.max())
    if int(counts.min()) != active or not active:
        raise ValueError(f"sample: expected equally many active groups, got {int(counts.min())} to {active}")
    codes = sample.codes.unflatten(1, (sample.support.shape[1], -1))
    groups = sample.support.nonzero()[:, 1].reshape(-1, active)
    rows = torch.arange(len(codes), device=codes.device).unsqueeze(1)
    drawn = []
    for pattern in itertools.product((1.0, -1.0), repeat=active - 1):
        signs = codes.new_ones(codes.shape[:2])
        signs[rows, groups] = codes.new_tensor((1.0, *pattern))
        drawn.append((signs.unsqueeze(2) * codes).flatten(1))
    codes = torch.cat(drawn)
    return GroupSparseSample(codes @ dictionary.T, codes, sample.support.repeat(len(drawn), 1))
