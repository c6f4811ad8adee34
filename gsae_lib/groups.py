"""Groups of atoms: blocks of one size, blocks of several sizes, or any lists of atoms.

A code x in R^m is read as Gamma groups x_g. Everywhere in this library `groups` is, as in skglm and celer,

* an int d: groups of d adjacent coordinates, of which there are m / d (arXiv 2102.07003, eq. 2);
* a list of ints: groups of adjacent coordinates, of these sizes;
* a list of lists of ints: the coordinates of each group, in any order. They may overlap only where that is said.

Groups of one size are views of a tensor. Others are gathered into blocks as wide as the largest, with zeros behind the
smaller ones, so that one kernel computes both. A function that takes `group_size` knows groups of one size alone,
unless it says that a list of sizes will do.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsae_lib._checks import check_int, describe

Groups = int | Sequence[int] | Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True, eq=False)
class GroupLayout:
    """Where the atoms of each group are: what `groups` says, checked.

    width: atoms of the largest group. sizes: atoms of each group, or None if all have `width`, however many there are.
    columns: the atom at each place, group after group, or None if they are in order. n_atoms: m, or None if any
    multiple of the width will do. overlaps: whether an atom is in several groups.
    """

    width: int
    sizes: tuple[int, ...] | None = None
    columns: Tensor | None = None
    n_atoms: int | None = dataclasses.field(init=False, default=None)
    overlaps: bool = dataclasses.field(init=False, default=False)
    # Where in the flattened blocks each place is, and the atom at each place of the blocks, m where there is none.
    _places: Tensor | None = dataclasses.field(init=False, default=None)
    _gathered: Tensor | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.sizes is None:
            return
        n_places = sum(self.sizes)
        n_atoms = n_places if self.columns is None else int(self.columns.max()) + 1
        places = [g * self.width + k for g, size in enumerate(self.sizes) for k in range(size)]
        gathered = torch.full((len(self.sizes) * self.width,), n_atoms, dtype=torch.long, device="cpu")
        gathered[places] = torch.arange(n_places, device="cpu") if self.columns is None else self.columns
        for name, value in {
            "n_atoms": n_atoms,
            "overlaps": n_places > n_atoms,
            "_places": torch.tensor(places, dtype=torch.long, device="cpu"),
            "_gathered": gathered.unflatten(0, (-1, self.width)),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def groups(self) -> Groups:
        """What `group_layout` makes this of: d, sizes, or the atoms of each group."""
        if self.sizes is None:
            return self.width
        if self.columns is None:
            return self.sizes
        return tuple(tuple(atoms.tolist()) for atoms in self.columns.split(self.sizes))

    def count(self, n_atoms: int) -> int:
        """Gamma, for m atoms."""
        return n_atoms // self.width if self.sizes is None else len(self.sizes)

    def size_of_each(self, n_atoms: int) -> tuple[int, ...]:
        """The number of atoms of each group."""
        return self.sizes if self.sizes is not None else (self.width,) * (n_atoms // self.width)

    def by_size(self) -> list[tuple[int, slice | Tensor]]:
        """Each size that groups have, ascending, and which groups have it: an index into a stack of groups."""
        if self.sizes is None:
            return [(self.width, slice(None))]
        sizes = torch.tensor(self.sizes, device="cpu")
        return [(size, sizes == size) for size in sorted({*self.sizes})]

    def check(self, x: Tensor, name: str = "x") -> None:
        """Refuse an x whose last axis has not the atoms of these groups."""
        if not isinstance(x, Tensor) or x.layout != torch.strided:
            raise ValueError(f"{name}: expected a dense tensor, got {describe(x)}")
        if x.ndim == 0 or (x.shape[-1] % self.width if self.n_atoms is None else x.shape[-1] != self.n_atoms):
            said = (
                f"group_size={self.width}: does not divide" if self.n_atoms is None else f"groups: {self.n_atoms} atoms"
            )
            tail = "the last axis of" if self.n_atoms is None else "expected, got"
            raise ValueError(f"{said} {tail} {describe(x)}")

    def to_blocks(self, x: Tensor) -> Tensor:
        """(..., m) -> (..., Gamma, width), with zeros behind smaller groups; unchecked."""
        if self._gathered is None:
            return x.unflatten(-1, (-1, self.width))
        padded = torch.nn.functional.pad(x, (0, 1))
        return padded[..., self._gathered.to(x.device)]

    def from_blocks(self, blocks: Tensor) -> Tensor:
        """The inverse of `to_blocks`, (..., Gamma, width) -> (..., m); of overlapping groups the sum; unchecked."""
        flat = blocks.flatten(-2)
        if self._places is None:
            return flat
        placed = flat[..., self._places.to(blocks.device)]
        if self.columns is None:
            return placed
        total = placed.new_zeros(*placed.shape[:-1], self.n_atoms or 0)
        return total.index_add(-1, self.columns.to(blocks.device), placed)

    def per_atom(self, values: Tensor) -> Tensor:
        """One value for each group as one for each place, (..., Gamma) -> (..., places)."""
        if self.sizes is None:
            return values.repeat_interleave(self.width, dim=-1)
        return values.repeat_interleave(torch.tensor(self.sizes, device=values.device), dim=-1)

    def part(self, used: Tensor) -> "GroupLayout":
        """The layout of some groups alone, of atoms in order."""
        if self.sizes is None:
            return self
        return _of_sizes(tuple(s for s, keep in zip(self.sizes, used.tolist(), strict=True) if keep))

    def in_order(self) -> "GroupLayout":
        """The layout of the atoms `columns`, a copy for each group that has an atom: adjacent groups."""
        return self if self.columns is None else _of_sizes(self.sizes or ())


def group_layout(groups: Groups) -> GroupLayout:
    """What `groups` says, checked.

    Raises:
        ValueError: no positive int, no list of such, and no list of lists of atoms in which each atom from 0 to the
            largest is at least once, and in each group at most once.
    """
    if isinstance(groups, int | np.integer) or not isinstance(groups, Sequence | np.ndarray | Tensor):
        return GroupLayout(check_int("group_size", groups))
    listed: list[Any] = groups.tolist() if isinstance(groups, np.ndarray | Tensor) else list(groups)
    if not listed:
        raise ValueError("groups=[]: expected at least one group")
    if not any(isinstance(group, Sequence | np.ndarray | Tensor) for group in listed):
        return _of_sizes(tuple(check_int(f"groups[{g}]", size) for g, size in enumerate(listed)))
    atoms = []
    for g, group in enumerate(listed):
        if not isinstance(group, Sequence | np.ndarray | Tensor) or isinstance(group, str) or not len(group):
            raise ValueError(f"groups[{g}]={group!r}: expected a list of at least one atom")
        atoms.append([check_int(f"groups[{g}]", atom, low=0) for atom in group])
        if len({*atoms[-1]}) < len(atoms[-1]):
            raise ValueError(f"groups[{g}]={group!r}: an atom is there twice")
    columns = [atom for group in atoms for atom in group]
    missing = sorted({*range(max(columns) + 1)} - {*columns})
    if missing:
        raise ValueError(f"groups: the atom {missing[0]} is in none of them")
    if columns == sorted({*columns}):
        return _of_sizes(tuple(map(len, atoms)))
    return GroupLayout(max(map(len, atoms)), tuple(map(len, atoms)), torch.tensor(columns, device="cpu"))


@functools.lru_cache(maxsize=64)
def _of_sizes(sizes: tuple[int, ...]) -> GroupLayout:
    return GroupLayout(max(sizes, default=1), sizes)


def disjoint_layout(groups: Groups) -> GroupLayout:
    """As `group_layout`, for groups that share no atom."""
    layout = group_layout(groups)
    if layout.overlaps:
        raise ValueError(
            "groups: an atom is in several of them, expected each in one (`group_sparse_code` takes others)"
        )
    return layout


def to_groups(x: Tensor, groups: Groups) -> Tensor:
    """The last axis as groups: x (..., m) -> (..., Gamma, d), d the size of the largest, zeros behind smaller ones.

    A view if all have one size.
    """
    layout = disjoint_layout(groups)
    layout.check(x)
    return layout.to_blocks(x)


def group_norms(x: Float[Tensor, "*batch atoms"], groups: Groups) -> Float[Tensor, "*batch groups"]:
    """Euclidean norm of each group, ||x_g||_2: (..., m) -> (..., Gamma).

    Differentiable, with gradient 0 at a zero group.
    """
    blocks = to_groups(x, groups)
    if not (blocks.is_floating_point() or blocks.is_complex()):
        raise ValueError(f"x: expected floating-point numbers, got {describe(x)}")
    return torch.linalg.vector_norm(blocks, dim=-1)


def normalized_group_norms(x: Float[Tensor, "*batch atoms"], groups: Groups) -> Float[Tensor, "*batch groups"]:
    """Group norms scaled to unit length, ||x_g||_2 / ||x||_2: (..., m) -> (..., Gamma); zero stays zero.

    They say which subspaces a code uses and how much, and are blind to where in each subspace it lies.
    """
    norms = group_norms(x, groups)
    length = torch.linalg.vector_norm(norms, dim=-1, keepdim=True)
    return norms / torch.where(length > 0, length, 1.0)


def active_groups(x: Float[Tensor, "*batch atoms"], groups: Groups) -> Bool[Tensor, "*batch groups"]:
    """Support of a code: which groups have a non-zero entry, (..., m) -> (..., Gamma)."""
    return (to_groups(x, groups) != 0).any(dim=-1)
