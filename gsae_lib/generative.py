"""The generative model y = A x + noise with group-sparse codes x, and its special cases.

Dictionaries A are (n_features, n_groups * group_size); data are (samples, features); codes are
(samples, atoms). Source: arXiv 2102.07003, eq. 2-3 and Section 4; symbols as on the notation page.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from scipy.special import beta
from torch import Generator, Tensor

from gsae_lib._checks import (
    check_choice,
    check_int,
    check_matrix,
    check_range,
    check_real,
    check_samples,
    without_autocast,
)
from gsae_lib.dictionary import normalize_columns, orthonormalize_groups
from gsae_lib.groups import to_groups

# Share of active atoms below which a sample is the sum of its own columns, and not a product with all of them.
SPARSE_SHARE = 0.1


def gaussian_dictionary(
    n_features: int, n_groups: int, group_size: int, *, generator: Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "features atoms"]:
    """Gaussian entries, columns scaled to unit norm (the paper's simulations)."""
    shape = _dictionary_shape(n_features, n_groups, group_size)
    return normalize_columns(torch.randn(shape, generator=generator, dtype=dtype, device=generator.device))


def orthonormal_groups_dictionary(
    n_features: int, n_groups: int, group_size: int, *, generator: Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "features atoms"]:
    """Random groups with A_g^T A_g = I: each spans a uniformly random subspace.

    The paper asks it of the weights (Assumption 4).
    """
    shape = _dictionary_shape(n_features, n_groups, group_size)
    gaussian = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
    return orthonormalize_groups(gaussian, group_size)


def coherent_dictionary(
    n_features: int,
    n_groups: int,
    group_size: int,
    block_coherence: float,
    *,
    generator: Generator,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "features atoms"]:
    r"""Orthonormal groups with A_g^T A_h = d mu_B I for every pair, so the block coherence is exactly mu_B.

    .. math:: A_g = \sqrt{s}\, C + \sqrt{1 - s}\, N_g, \qquad s = d \mu_B

    with C and all N_g orthonormal and mutually orthogonal: 0 makes all groups orthogonal, 1/d makes
    them equal.

    Raises:
        ValueError: block_coherence outside [0, 1/d], or (n_groups + 1) * group_size > n_features, where
            no such dictionary exists (n_groups * group_size > n_features for block_coherence 0).
    """
    _dictionary_shape(n_features, n_groups, group_size)
    s = group_size * check_real("block_coherence", block_coherence, high=1 / group_size)
    needed = (n_groups + (s > 0)) * group_size
    if needed > n_features:
        raise ValueError(f"n_features={n_features}: expected at least {needed} for exact block coherence")
    gaussian = torch.randn(n_features, needed, generator=generator, dtype=dtype, device=generator.device)
    basis = torch.linalg.qr(gaussian).Q
    own, shared = basis[:, : n_groups * group_size], basis[:, n_groups * group_size :]
    return own if s == 0 else s**0.5 * shared.repeat(1, n_groups) + (1 - s) ** 0.5 * own


def uniform_supports(
    n_samples: int, n_groups: int, n_active: int, *, generator: Generator
) -> Bool[Tensor, "samples groups"]:
    """Exactly `n_active` active groups a sample, every such set equally likely (within Assumption 2)."""
    check_int("n_samples", n_samples)
    check_int("n_active", n_active, high=check_int("n_groups", n_groups))
    chosen = torch.rand(n_samples, n_groups, generator=generator, dtype=torch.float32, device=generator.device)
    chosen = chosen.topk(n_active, dim=1, sorted=False).indices
    support = torch.zeros(n_samples, n_groups, dtype=torch.bool, device=generator.device)
    return support.scatter_(1, chosen, True)


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSparseSample:
    """A draw from the model: data (samples, features), codes (samples, atoms), support (samples, groups)."""

    data: Tensor
    codes: Tensor
    support: Tensor

    @property
    def labels(self) -> Tensor:
        """The active group of each sample, (samples,), for sources with one active group: its cluster.

        Raises:
            ValueError: some sample has another number of active groups than one.
        """
        if not (self.support.sum(dim=1) == 1).all():
            raise ValueError("labels: defined only where each sample has exactly one active group")
        return self.support.int().argmax(dim=1)


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSparseSource:
    r"""The model of the data: a few active groups of a dictionary, plus white noise.

    .. math:: y = \sum_{g \in S} A_g x_g + \text{noise}, \qquad S \text{ uniform with } \gamma \text{ groups}

    Each active x_g has a direction uniform on the sphere and a norm uniform in `norm_range` (Assumption 1,
    the paper's simulations), or, with codes="gaussian", independent N(0, 1) entries. So
    E[x_g x_g^T] = (E ||x_g||^2 / d) I for an active group. `nonnegative` takes absolute values of codes, which
    are then no longer white.

    Noise is white and Gaussian, with variance s^2 in each of the n features. Its SNR in decibels is that of the source,
    one level for all draws (`noise_std`), or with snr_of="sample" that of the N samples of each draw, as in the paper,
    whose noise is then larger where a draw happens to be:

    .. math:: \mathrm{SNR} = 10 \log_{10} \frac{\mathbb{E} \|A x\|^2}{n s^2} \quad \text{or} \quad
              10 \log_{10} \frac{\sum_i \|A x_i\|^2}{N n s^2}

    Args:
        dictionary: A, (n_features, n_groups * group_size); its dtype is the sample's.
        group_size: d.
        n_active: gamma, active groups in each sample.
        codes: "sphere" or "gaussian".
        norm_range: (B_min, B_max), used by "sphere".
        nonnegative: non-negative codes.
        snr_db: SNR in dB; None for no noise.
        snr_of: "source" or "sample", whose energy the SNR compares with the noise.
    """

    dictionary: Tensor
    group_size: int
    n_active: int = 1
    codes: Literal["sphere", "gaussian"] = "sphere"
    norm_range: tuple[float, float] = (4.0, 5.0)
    nonnegative: bool = False
    snr_db: float | None = None
    snr_of: Literal["source", "sample"] = "source"

    def __post_init__(self) -> None:
        check_matrix("dictionary", self.dictionary)
        to_groups(self.dictionary, self.group_size)
        check_int("n_active", self.n_active, high=self.n_groups)
        check_choice("codes", self.codes, ("sphere", "gaussian"))
        check_range("norm_range", self.norm_range)
        if self.snr_db is not None:
            check_real("snr_db", self.snr_db, low=-300.0, high=300.0)
        check_choice("snr_of", self.snr_of, ("source", "sample"))

    @classmethod
    def sparse(cls, dictionary: Tensor, n_active: int, **settings: Any) -> "GroupSparseSource":
        """Sparse codes: groups of one, of either sign, or non-negative with nonnegative=True."""
        return cls(dictionary, 1, n_active, **settings)

    @classmethod
    def union_of_subspaces(cls, dictionary: Tensor, group_size: int, **settings: Any) -> "GroupSparseSource":
        """One active group a sample: data on Gamma subspaces of dimension d; `sample.labels` says which."""
        return cls(dictionary, group_size, 1, **settings)

    @classmethod
    def gaussian_mixture(cls, means: Tensor, *, snr_db: float | None) -> "GroupSparseSource":
        """An isotropic Gaussian mixture with equal weights: means (components, features), codes one-hot.

        Raises:
            ValueError: means that are not a finite matrix, or a bad SNR.
        """
        return cls(check_samples("means", means).T, 1, 1, norm_range=(1.0, 1.0), nonnegative=True, snr_db=snr_db)

    @property
    def n_groups(self) -> int:
        """Gamma, the number of groups."""
        return self.dictionary.shape[1] // self.group_size

    @functools.cached_property
    def energy(self) -> float:
        r"""E ||A x||^2, exactly. Of an active group let sigma^2 = E ||x_g||^2 / d; codes of either sign give

        .. math:: p\, \sigma^2 \|A\|_F^2, \qquad p = \gamma / \Gamma.

        Non-negative ones have E[x_i x_j] = 2 sigma^2 / pi within a group, and mu^2 between two active ones:

        .. math:: p\, \sigma^2 \Big( (1 - \tfrac{2}{\pi}) \|A\|_F^2 + \tfrac{2}{\pi} \sum_g \|A_g \mathbf{1}\|^2 \Big)
                  + p q\, \mu^2 \Big( \|A \mathbf{1}\|^2 - \sum_g \|A_g \mathbf{1}\|^2 \Big),
                  \qquad q = \frac{\gamma - 1}{\Gamma - 1},

        with mu = sqrt(2 / pi) for Gaussian codes, and E ||x_g|| B(d/2, 1/2) / pi on the sphere.
        """
        d, p = self.group_size, self.n_active / self.n_groups
        low, high = self.norm_range
        if self.codes == "sphere":
            variance = (low**2 + low * high + high**2) / 3 / d
            mean = (low + high) / 2 * beta(d / 2, 0.5) / math.pi
        else:
            variance, mean = 1.0, (2 / math.pi) ** 0.5
        dictionary = self.dictionary.double()
        columns = dictionary.square().sum().item()
        if not self.nonnegative:
            return p * variance * columns
        sums = to_groups(dictionary, d).sum(dim=2)
        groups, all_groups = sums.square().sum().item(), sums.sum(dim=1).square().sum().item()
        q = (self.n_active - 1) / max(self.n_groups - 1, 1)
        within = (1 - 2 / math.pi) * columns + 2 / math.pi * groups
        return p * (variance * within + q * mean**2 * (all_groups - groups))

    @property
    def noise_std(self) -> float:
        """s, the standard deviation of the noise of one feature: that of every draw, or what it tends to for large N
        with snr_of="sample"; 0 without noise."""
        return self._noise_std(self.energy)

    @without_autocast
    def sample(self, n_samples: int, *, generator: Generator) -> GroupSparseSample:
        """Draw `n_samples` independent samples."""
        support = uniform_supports(n_samples, self.n_groups, self.n_active, generator=generator)
        support = support.to(self.dictionary.device)
        values = self._randn((n_samples * self.n_active, self.group_size), generator)
        if self.codes == "sphere":
            low, high = self.norm_range
            norms = torch.rand(len(values), 1, generator=generator, dtype=values.dtype, device=generator.device)
            norms = low + (high - low) * norms.to(values.device)
            values[values == 0] = 1e-10  # a draw of exactly 0 has no direction
            values = norms * values / torch.linalg.vector_norm(values, dim=1, keepdim=True)
        if self.nonnegative:
            values = values.abs()
        codes = values.new_zeros(n_samples, self.n_groups, self.group_size)
        codes[support] = values
        codes = codes.flatten(1)
        data = self._decode(codes, values, support)
        if self.snr_db is not None:
            sampled = self.snr_of == "sample"
            energy = torch.linalg.vector_norm(data).item() ** 2 / n_samples if sampled else self.energy
            data.add_(self._randn(data.shape, generator), alpha=self._noise_std(energy))
        return GroupSparseSample(data, codes, support)

    def stream(self, batch_size: int, *, generator: Generator, ahead: bool = False) -> Iterator[GroupSparseSample]:
        """Endless fresh batches: the theory's infinite data.

        Args:
            ahead: draw each batch in a thread of its own while the one before is used, from a generator of its own that
                `generator` seeds. The batches are others than without, and the same for any number of threads.
        """
        check_int("batch_size", batch_size)
        if not ahead:
            return (self.sample(batch_size, generator=generator) for _ in itertools.count())
        own = Generator(device=generator.device)
        own.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        return self._stream_ahead(batch_size, own)

    def _stream_ahead(self, batch_size: int, generator: Generator) -> Iterator[GroupSparseSample]:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            coming = pool.submit(self.sample, batch_size, generator=generator)
            while True:
                batch = coming.result()
                coming = pool.submit(self.sample, batch_size, generator=generator)
                yield batch

    def _decode(self, codes: Tensor, values: Tensor, support: Tensor) -> Tensor:
        """A x, from the active groups alone where they are few: `values` are theirs, in the order of the samples."""
        n_entries = self.n_active * self.group_size
        if n_entries > SPARSE_SHARE * codes.shape[1]:
            return codes @ self.dictionary.T
        groups = support.nonzero()[:, 1].view(-1, self.n_active, 1)
        atoms = groups * self.group_size + torch.arange(self.group_size, device=groups.device)
        weights, table = values.view(-1, n_entries), self.dictionary.T.contiguous()
        return torch.nn.functional.embedding_bag(atoms.flatten(1), table, per_sample_weights=weights, mode="sum")

    def _noise_std(self, energy: float) -> float:
        if self.snr_db is None:
            return 0.0
        return (energy / self.dictionary.shape[0]) ** 0.5 * 10 ** (-self.snr_db / 20)

    def _randn(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=self.dictionary.dtype, device=generator.device)
        return drawn.to(self.dictionary.device)


def _dictionary_shape(n_features: int, n_groups: int, group_size: int) -> tuple[int, int]:
    check_int("n_features", n_features)
    check_int("group_size", group_size, high=n_features)
    return n_features, check_int("n_groups", n_groups) * group_size
