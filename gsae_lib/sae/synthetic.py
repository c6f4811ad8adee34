"""Synthetic features: a known truth that looks more like a language model's than `generative` does.

Groups of several dimensions in superposition, many more atoms than features, how often each is active falling like
Zipf's law, and children that are active with their parent alone. In the spirit of SynthSAEBench, whose features have
one dimension. All truths are returned.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from gsae_lib._checks import check_int, check_matrix, check_range, check_real, describe
from gsae_lib.generative import orthonormal_groups_dictionary


def zipf_frequencies(
    n_groups: int, n_active: float, *, exponent: float = 1.0, largest: float = 0.5
) -> Float[Tensor, " groups"]:
    r"""How often each group is active, in decreasing order, so that `n_active` are on average.

    .. math:: p_g = \min(p_{\max}, c\, g^{-a}), \qquad \sum_g p_g = k

    Args:
        n_active: k. exponent: a from 0 to 100. largest: p_max, at most 1.

    Raises:
        ValueError: a bad number, or more active groups than n_groups * largest.
    """
    check_int("n_groups", n_groups)
    check_real("exponent", exponent, high=100.0)
    check_real("largest", largest, strict=True, high=1.0)
    check_real("n_active", n_active, strict=True, high=n_groups * largest)
    falling = torch.arange(1, n_groups + 1, dtype=torch.float64).pow(-exponent)
    low, high = 0.0, largest / falling[-1].item()
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if (c * falling).clamp(max=largest).sum().item() < n_active else (low, c)
    return (high * falling).clamp(max=largest)


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticSample:
    """A draw: data (samples, features), codes (samples, atoms), support (samples, groups)."""

    data: Float[Tensor, "samples features"]
    codes: Float[Tensor, "samples atoms"]
    support: Bool[Tensor, "samples groups"]


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticFeatures:
    r"""Groups of different dimensions, their frequencies and parents, from which data are drawn.

    .. math:: y = \sum_{g \in S} A_g x_g + \text{noise}

    A root is active with probability p_g on its own; a child, if its parent is, with probability p_g / p_parent, so
    that p_g is how often it is active in all. An active x_g has a direction uniform on the sphere of its dimension and
    a norm uniform in `norm_range`; with `one_sided` the codes of one dimension are positive.

    Args:
        dictionary: A, (n_features, atoms); the columns of group 0 come first.
        group_sizes: the dimension of each group, atoms in all.
        frequencies: p_g, (groups,). parents: (groups,), each before its child and active as often; -1 for a root.
        norm_range: least and largest norm of an active x_g. noise_std: of each feature.
    """

    dictionary: Float[Tensor, "features atoms"]
    group_sizes: tuple[int, ...]
    frequencies: Float[Tensor, " groups"]
    parents: Int[Tensor, " groups"]
    norm_range: tuple[float, float] = (0.5, 1.5)
    noise_std: float = 0.0
    one_sided: bool = False

    def __post_init__(self) -> None:
        check_matrix("dictionary", self.dictionary)
        for size in self.group_sizes:
            check_int("group_sizes", size)
        if sum(self.group_sizes) != self.dictionary.shape[1]:
            raise ValueError(f"group_sizes: expected {self.dictionary.shape[1]} in all, got {sum(self.group_sizes)}")
        p, parents = self.frequencies, self.parents
        if p.shape != (self.n_groups,) or not bool(((p >= 0) & (p <= 1)).all()):
            raise ValueError(f"frequencies: expected {self.n_groups} values from 0 to 1, got {describe(p)}")
        own = torch.arange(self.n_groups)
        if parents.shape != p.shape or not bool(((parents >= -1) & (parents < own)).all()):
            raise ValueError(f"parents: expected -1 or an earlier group for each of {self.n_groups} groups")
        child = parents >= 0
        if bool((p[child] > p[parents[child]]).any()):
            raise ValueError("parents: expected each active at least as often as its children")
        check_range("norm_range", self.norm_range)
        check_real("noise_std", self.noise_std)

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(self.group_sizes)

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """A_g of each group, (features, its size)."""
        return self.dictionary.split(self.group_sizes, dim=1)

    def sample(self, n_samples: int, *, generator: Generator) -> SyntheticSample:
        """Draw `n_samples` independent samples."""
        check_int("n_samples", n_samples)
        dtype = self.dictionary.dtype
        drawn = torch.rand(n_samples, self.n_groups, generator=generator, dtype=torch.float64)
        child = self.parents >= 0
        given = torch.where(child, self.frequencies[self.parents], 1.0).double()
        support = drawn < self.frequencies / given.clamp(min=torch.finfo(torch.float64).tiny)
        for group in child.nonzero().flatten().tolist():  # a parent stands before its children
            support[:, group] &= support[:, self.parents[group]]
        low, high = self.norm_range
        norms = low + (high - low) * torch.rand(n_samples, self.n_groups, generator=generator, dtype=dtype)
        codes = torch.randn(n_samples, self.dictionary.shape[1], generator=generator, dtype=dtype)
        codes[codes == 0] = 1e-10  # a draw of exactly 0 has no direction
        owner = torch.arange(self.n_groups).repeat_interleave(torch.tensor(self.group_sizes))
        lengths = codes.new_zeros(n_samples, self.n_groups).index_add_(1, owner, codes.square()).sqrt()
        codes *= (norms / lengths * support)[:, owner]
        if self.one_sided:
            single = torch.tensor(self.group_sizes)[owner] == 1
            codes[:, single] = codes[:, single].abs()
        data = codes @ self.dictionary.T
        if self.noise_std:
            data += self.noise_std * torch.randn(data.shape, generator=generator, dtype=dtype)
        return SyntheticSample(data, codes, support)


def synthetic_features(
    n_features: int,
    n_groups: int,
    *,
    n_active: float,
    sizes: Sequence[int] = (1, 2, 3, 4),
    exponent: float = 1.0,
    children: float = 0.25,
    norm_range: tuple[float, float] = (0.5, 1.5),
    noise_std: float = 0.0,
    one_sided: bool = False,
    generator: Generator,
    dtype: torch.dtype = torch.float32,
) -> SyntheticFeatures:
    """Draw groups: random orthonormal bases, Zipf frequencies, sizes in turn in random order, and parents.

    Args:
        n_active: mean number of active groups. sizes: dimensions, each of as many groups, up to one.
        exponent: of Zipf's law, `zipf_frequencies`. children: the share of groups that have a parent, which is a random
            root among the groups that are active at least as often.
        norm_range, noise_std, one_sided: as `SyntheticFeatures`.
    """
    check_real("children", children, high=1.0)
    check_int("n_groups", n_groups)
    if not len(sizes):
        raise ValueError("sizes: expected at least one dimension")
    for size in sizes:
        check_int("sizes", size, high=check_int("n_features", n_features))
    frequencies = zipf_frequencies(n_groups, n_active, exponent=exponent)
    in_turn = torch.tensor([sizes[g % len(sizes)] for g in range(n_groups)])
    group_sizes = tuple(in_turn[torch.randperm(n_groups, generator=generator)].tolist())
    parents = torch.full((n_groups,), -1)
    later = 1 + torch.randperm(n_groups - 1, generator=generator)[: round(children * (n_groups - 1))]
    is_child = torch.zeros(n_groups, dtype=torch.bool)
    is_child[later] = True
    for group in sorted(later.tolist()):
        roots = (~is_child[:group]).nonzero().flatten()
        parents[group] = roots[torch.randint(len(roots), (), generator=generator)]
    groups = [
        orthonormal_groups_dictionary(n_features, 1, size, generator=generator, dtype=dtype) for size in group_sizes
    ]
    return SyntheticFeatures(
        torch.cat(groups, dim=1), group_sizes, frequencies, parents, norm_range, noise_std, one_sided
    )
