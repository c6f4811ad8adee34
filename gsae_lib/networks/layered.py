r"""Several layers: data, and autoencoders in which each layer codes what the one below passes up.

Two readings of depth. Groups of groups: a layer codes the group norms of the codes below, which besides spans are all
that the layer below determines. A stack of dictionaries: a layer codes the codes below as they are,
y = A^1 A^2 ... A^L x^L with group-sparse codes at every layer. Layers are counted from 0 in code, from 1 in formulas.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gsae_lib._checks import check_choice, check_int, check_matrix, check_range, check_real, without_autocast
from gsae_lib.dictionary import Dictionary, normalize_columns
from gsae_lib.generative import GroupSparseSample, uniform_supports
from gsae_lib.groups import Groups, active_groups, group_layout, group_norms, to_groups
from gsae_lib.networks.autoencoder import GroupSparseAutoencoder, reconstruction_step
from gsae_lib.networks.unfolding import Unfolding, as_number, unfold
from gsae_lib.penalty import GroupPenalty

Passed = Literal["norms", "codes"]
PASSED = get_args(Passed)


def sibling_dictionary(
    n_groups: int, group_size: int, overlap: float = 0.0, *, dtype: torch.dtype = torch.float32
) -> Dictionary:
    r"""Groups of coordinates: group k says how large each of its `group_size` children is, (children, atoms).

    .. math:: A_k = \sqrt{1 - s}\, E_k + \sqrt{s}\, E_0

    E_k takes the k-th block of coordinates and s is the overlap. With s = 0 the dictionary is the identity, and groups
    share no child. With s > 0 every group has a share in one more block E_0, so that A_k^T A_l = s I. Entries are not
    negative.

    Raises:
        ValueError: sizes that are not positive integers, or an overlap outside [0, 1].
    """
    check_int("n_groups", n_groups)
    check_int("group_size", group_size)
    s = check_real("overlap", overlap, high=1.0)
    own = torch.eye(n_groups * group_size, dtype=dtype)
    if s == 0:
        return own
    shared = torch.eye(group_size, dtype=dtype).repeat(1, n_groups)
    return torch.cat([(1 - s) ** 0.5 * own, s**0.5 * shared])


def group_sparse_atoms(
    n_groups: int,
    group_size: int,
    n_atoms: int,
    n_used: int,
    *,
    generator: Generator,
    dtype: torch.dtype = torch.float32,
) -> Dictionary:
    """Unit columns that are Gaussian in `n_used` random groups and 0 elsewhere, (n_groups * group_size, n_atoms).

    An upper dictionary of a stack: what it makes is group-sparse for the layer below.

    Raises:
        ValueError: sizes that are not positive integers, or more groups used than there are.
    """
    check_int("group_size", group_size)
    used = uniform_supports(check_int("n_atoms", n_atoms), n_groups, n_used, generator=generator)
    values = torch.randn(n_atoms, n_groups, group_size, generator=generator, dtype=dtype, device=generator.device)
    return normalize_columns((values * used.unsqueeze(2)).flatten(1).T)


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredSample:
    """A draw from layers: what each layer sees, its codes and its support, the lowest layer first.

    inputs[0] are the data, inputs[l] what layer l - 1 passes up; codes[l] are (samples, atoms), supports[l] are
    (samples, groups).
    """

    inputs: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]
    supports: tuple[Tensor, ...]

    @property
    def data(self) -> Tensor:
        """The data, (samples, features)."""
        return self.inputs[0]

    def layer(self, index: int) -> GroupSparseSample:
        """One layer alone, as for a network that saw the truth of the layer below."""
        return GroupSparseSample(self.inputs[index], self.codes[index], self.supports[index])


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredSource:
    r"""Data with several layers of groups: a few groups are active at the top, and make what is below them.

    Groups of groups (passed="norms"): an active group of an upper layer chooses `n_children` of its entries, which are
    positive. Its dictionary turns them into the group norms of the layer below, whose directions are drawn anew.

    .. math:: \nu^{l-1} = A^l x^l, \qquad x^{l-1}_g = \nu^{l-1}_g u_g, \qquad
              y = A^1 x^1 + \text{noise}

    At the lowest layer u_g is uniform on the sphere, above it has `n_children` positive entries. Entries of the top
    layer are uniform in `norm_range`; those of layers between are so before they are scaled to the length nu_g. With
    two layers and the dictionary of `sibling_dictionary(..., 0)` on top, norms of the lower layer are thus independent
    and uniform in `norm_range`, as in `GroupSparseSource`, and only the support has a structure.

    A stack of dictionaries (passed="codes"): the top layer is that of `GroupSparseSource`, and

    .. math:: x^{l-1} = A^l x^l, \qquad y = A^1 \cdots A^L x^L + \text{noise},

    so that columns of upper dictionaries should be group-sparse (`group_sparse_atoms`); `n_children` is not used.

    Noise is white and Gaussian at the SNR of each draw, 10 log10 of sum ||A x||^2 / (N n s^2).

    Args:
        dictionaries: A^1 to A^L, the lowest first: (features, atoms) each. Features of an upper one are the groups of
            the layer below (norms), or its atoms (codes). Upper ones that make norms have no negative entries.
        group_sizes: of each layer.
        n_active: active groups of the top layer.
        n_children: active entries in an active group above the lowest layer.
        passed: "norms" or "codes".
        norm_range: (B_min, B_max) of the top layer.
        snr_db: SNR in dB; None for no noise.
    """

    dictionaries: tuple[Tensor, ...]
    group_sizes: tuple[int, ...]
    n_active: int = 1
    n_children: int = 2
    passed: Passed = "norms"
    norm_range: tuple[float, float] = (4.0, 5.0)
    snr_db: float | None = None

    def __post_init__(self) -> None:
        check_choice("passed", self.passed, PASSED)
        if not self.dictionaries or len(self.dictionaries) != len(self.group_sizes):
            raise ValueError(
                f"group_sizes={self.group_sizes}: expected one for each dictionary, of which there are "
                f"{len(self.dictionaries)}, at least one"
            )
        for index, (dictionary, size) in enumerate(zip(self.dictionaries, self.group_sizes, strict=True)):
            name = f"dictionaries[{index}]"
            to_groups(check_matrix(name, dictionary), size)
            if index:
                below = self.n_groups[index - 1]
                below *= self.group_sizes[index - 1] if self.passed == "codes" else 1
                if len(dictionary) != below:
                    raise ValueError(f"{name}: expected {below} rows, as the layer below has, got {len(dictionary)}")
                if self.passed == "norms" and bool((dictionary < 0).any()):
                    raise ValueError(f"{name}: expected no negative entries, since it makes norms")
                if self.passed == "norms":
                    check_int("n_children", self.n_children, high=size)
        check_int("n_active", self.n_active, high=self.n_groups[-1])
        check_range("norm_range", self.norm_range)
        if self.snr_db is not None:
            check_real("snr_db", self.snr_db, low=-300.0, high=300.0)

    @property
    def n_groups(self) -> tuple[int, ...]:
        """The number of groups of each layer."""
        return tuple(a.shape[1] // d for a, d in zip(self.dictionaries, self.group_sizes, strict=True))

    @without_autocast
    def sample(self, n_samples: int, *, generator: Generator) -> LayeredSample:
        """Draw `n_samples` independent samples."""
        top, like = len(self.dictionaries) - 1, self.dictionaries[0]
        support = uniform_supports(n_samples, self.n_groups[top], self.n_active, generator=generator)
        norms = support.to(like.device, like.dtype)
        if top == 0 or self.passed == "codes":
            norms = norms * self._uniform(norms.shape, generator)
        inputs, codes, supports = [], [], []
        for index in range(top, -1, -1):
            if self.passed == "norms" or index == top:
                drawn = self._directions(norms.shape, index, generator)
                if not (index == top > 0 and self.passed == "norms"):
                    drawn = drawn / torch.linalg.vector_norm(drawn, dim=2, keepdim=True)
                values = (norms.unsqueeze(2) * drawn).flatten(1)
            else:
                values = norms
            codes.append(values)
            supports.append(active_groups(values, self.group_sizes[index]))
            norms = values @ self.dictionaries[index].T
            inputs.append(norms)
        if self.snr_db is not None:
            power = inputs[-1].square().mean().sqrt().item() * 10 ** (-self.snr_db / 20)
            inputs[-1] = inputs[-1] + power * self._randn(inputs[-1].shape, generator)
        return LayeredSample(tuple(inputs[::-1]), tuple(codes[::-1]), tuple(supports[::-1]))

    def stream(self, batch_size: int, *, generator: Generator) -> Iterator[Tensor]:
        """Endless fresh batches of data."""
        check_int("batch_size", batch_size)
        return (self.sample(batch_size, generator=generator).data for _ in itertools.count())

    def _directions(self, shape: torch.Size, index: int, generator: Generator) -> Tensor:
        """What the entries of each group of a layer are, before they are scaled: (samples, groups, size)."""
        size = self.group_sizes[index]
        if index == 0 or self.passed == "codes":
            drawn = self._randn((*shape, size), generator)
            drawn[drawn == 0] = 1e-10  # a draw of exactly 0 has no direction
            return drawn
        chosen = uniform_supports(shape.numel(), size, self.n_children, generator=generator).to(
            self.dictionaries[0].device
        )
        return chosen.reshape(*shape, size) * self._uniform((*shape, size), generator)

    def _uniform(self, shape: Sequence[int], generator: Generator) -> Tensor:
        low, high = self.norm_range
        like = self.dictionaries[0]
        drawn = torch.rand(tuple(shape), generator=generator, dtype=like.dtype, device=generator.device)
        return low + (high - low) * drawn.to(like.device)

    def _randn(self, shape: Sequence[int], generator: Generator) -> Tensor:
        like = self.dictionaries[0]
        drawn = torch.randn(tuple(shape), generator=generator, dtype=like.dtype, device=generator.device)
        return drawn.to(like.device)


class LayeredAutoencoder(nn.Module):
    r"""Group-sparse autoencoders on top of each other, to be trained together (`train`) or in turn (`train_layers`).

    Groups of groups (passed="norms"): a layer codes the group norms of the codes below, and its reconstruction of them
    replaces them on the way down, while directions stay:

    .. math:: \nu^l_g = \|x^l_g\|, \qquad x^{l+1} = \mathrm{encode}_{l+1}(\nu^l), \qquad
              \hat x^l_g = \hat\nu^l_g\, \frac{u^l_g}{\|u^l_g\|}, \quad \hat\nu^l = W^{l+1} \hat x^{l+1}, \qquad
              \hat y = W^1 \hat x^1

    The direction is that of the code where a group is active, and elsewhere that of what the group sees of the rest,
    u = W_g^T (input - W x), held fixed by the gradient: so norms that are put on inactive groups count as errors. The
    loss does not change if any group of any layer is rotated. The group ReLU takes lambda from each active norm;
    `restore` gives it back before norms are passed up.

    A stack of dictionaries (passed="codes"): all codes at once take `n_iterations` proximal gradient steps towards

    .. math:: \min_{x^1, \dots, x^L}\; \sum_{l=1}^L \Big( \tfrac12 \|x^{l-1} - W^l x^l\|^2 +
              \lambda_l \sum_g \|x^l_g\| \Big), \qquad x^0 = y,

    from 0, with the step 1 / (1 + max_l ||W^l||_2)^2; the reconstruction is W^1 ... W^L x^L.

    Args:
        layers: the lowest first. Features of an upper one are the groups of the layer below (norms), or its atoms
            (codes). With "codes" only their weights, penalties and group sizes count.
        passed: "norms" or "codes".
        restore: pass up ||x_g|| + lambda of active groups, for orthonormal groups the norm of what they see.
        n_iterations: joint steps, with "codes".

    Raises:
        ValueError: no layer, sizes that do not fit, or an argument out of range.
    """

    def __init__(
        self,
        layers: Sequence[GroupSparseAutoencoder],
        *,
        passed: Passed = "norms",
        restore: bool = False,
        n_iterations: int = 50,
    ) -> None:
        super().__init__()
        check_choice("passed", passed, PASSED)
        self.passed = passed
        self.restore = restore
        self.n_iterations = check_int("n_iterations", n_iterations)
        if not layers:
            raise ValueError("layers: expected at least one")
        for index, (below, layer) in enumerate(itertools.pairwise(layers), 1):
            width = below.weight.shape[1] if passed == "codes" else below.n_groups
            if passed == "codes" and group_layout(below.groups).columns is not None:
                raise ValueError(f"layers[{index - 1}].groups: expected an int or a list of sizes, with passed='codes'")
            if layer.n_features != width:
                raise ValueError(f"layers[{index}]: expected n_features={width}, got {layer.n_features}")
        self.layers = nn.ModuleList(layers)
        each = (group_layout(layer.groups).size_of_each(layer.weight.shape[1]) for layer in layers)
        self._joint = GroupPenalty(1.0, [size for sizes in each for size in sizes])  # of all layers beside each other

    @property
    def all_layers(self) -> tuple[GroupSparseAutoencoder, ...]:
        """The layers, the lowest first."""
        return tuple(cast(GroupSparseAutoencoder, layer) for layer in self.layers)

    @property
    def weight(self) -> Tensor:
        """The weight of the lowest layer, which decides what data fit."""
        return self.all_layers[0].weight

    @property
    def penalty(self) -> Tensor:
        """The penalty of the lowest layer."""
        return self.all_layers[0].penalty

    @property
    def groups(self) -> Groups:
        """The groups of the lowest layer."""
        return self.all_layers[0].groups

    @property
    def n_groups(self) -> int:
        """Gamma of the lowest layer."""
        return self.all_layers[0].n_groups

    @property
    def n_features(self) -> int:
        """n, the features of the data."""
        return self.all_layers[0].n_features

    def encode(self, data: Float[Tensor, "samples features"]) -> tuple[Tensor, ...]:
        """Codes of all layers, the lowest first.

        Raises:
            ValueError: data that do not fit the lowest layer.
        """
        if self.passed == "codes":
            return self._encode_jointly(data)
        codes: list[Tensor] = []
        for index, layer in enumerate(self.all_layers):
            codes.append(layer.encode(data if index == 0 else self.pass_up(codes[-1], index - 1)))
        return tuple(codes)

    def pass_up(self, codes: Float[Tensor, "samples atoms"], index: int) -> Float[Tensor, "samples features"]:
        """What layer `index` passes up of its codes: group norms, or the codes.

        Raises:
            ValueError: an index that no layer has.
        """
        check_int("index", index, low=0, high=len(self.layers) - 1)
        if self.passed == "codes":
            return codes
        layer = self.all_layers[index]
        norms = group_norms(codes, layer.groups)
        if not self.restore:
            return norms
        steps = layer.unfolding()
        taken = layer.penalty * (steps.step if layer.n_iterations == 1 else 1.0)
        taken = taken if layer.weights is None else taken * layer.weights
        return torch.where(norms > 0, norms + taken, norms)

    def forward(
        self, data: Float[Tensor, "samples features"]
    ) -> tuple[Float[Tensor, "samples features"], Float[Tensor, "samples atoms"]]:
        """(reconstruction from the top, codes of the lowest layer)."""
        codes = self.encode(data)
        rebuilt: Tensor = self.all_layers[-1].decode(codes[-1])
        for index in range(len(self.layers) - 2, -1, -1):
            layer = self.all_layers[index]
            if self.passed == "norms":
                inputs = self.pass_up(codes[index - 1], index - 1) if index else data
                turned = rebuilt.unsqueeze(2) * _directions(inputs, codes[index], layer)
                rebuilt = group_layout(layer.groups).from_blocks(turned)
            rebuilt = layer.decode(rebuilt)
        return rebuilt, codes[0]

    def extra_repr(self) -> str:
        """What is passed up."""
        return f"passed={self.passed!r}, restore={self.restore}, n_iterations={self.n_iterations}"

    def _encode_jointly(self, data: Tensor) -> tuple[Tensor, ...]:
        """The steps of the unfolded encoder on all codes beside each other: their sum of squares is one quadratic."""
        layers = self.all_layers
        layers[0]._check_data(data)
        widths = [layer.weight.shape[1] for layer in layers]
        with torch.no_grad():
            lengths = [torch.linalg.matrix_norm(layer.weight, ord=2) for layer in layers]
            largest = as_number(torch.stack(lengths).max().double())
        rows = []
        for i, layer in enumerate(layers):
            own = layer.weight.T @ layer.weight
            if i + 1 < len(layers):
                own = own + torch.eye(widths[i], dtype=own.dtype, device=own.device)
            blocks = [own.new_zeros(widths[i], width) for width in widths]
            blocks[i] = own
            if i:
                blocks[i - 1] = -layer.weight.T
            if i + 1 < len(layers):
                blocks[i + 1] = -layers[i + 1].weight
            rows.append(torch.cat(blocks, dim=1))
        correlations = torch.nn.functional.pad(data @ layers[0].weight, (0, sum(widths[1:])))
        steps = Unfolding(1 / (1 + largest) ** 2, self._joint_penalty(), self.n_iterations, accelerated=False)
        return unfold(correlations, torch.cat(rows), steps).split(widths, dim=1)

    def _joint_penalty(self) -> GroupPenalty:
        """The groups of all layers, each weighted by the penalty of its layer."""
        weights = []
        for layer in self.all_layers:
            each = layer.penalty.expand(layer.n_groups)
            weights.append(each if layer.weights is None else each * layer.weights)
        return self._joint.with_penalty(1.0, torch.cat(weights))

    # What `train` asks for.

    several_processes: ClassVar[bool] = True

    def training_step(self, batch: Tensor, *, few_active: bool) -> tuple[Tensor, Tensor]:
        """Put the gradient of the reconstruction error from the top into the parameters; its mean, and active pairs."""
        return reconstruction_step(self, batch)

    def after_step(self, normalize: str | None) -> None:
        """Normalise the columns or the groups of all layers' weights, if so asked."""
        for layer in self.all_layers:
            layer.after_step(normalize)

    def explain_inactivity(self, batch: Tensor) -> str:
        """Why no group of the lowest layer is active, and what to do."""
        return self.all_layers[0].explain_inactivity(batch)


def _directions(inputs: Tensor, codes: Tensor, layer: GroupSparseAutoencoder) -> Float[Tensor, "samples groups size"]:
    """Unit vectors: of the code where a group is active, elsewhere of what the group sees of the rest."""
    blocks = to_groups(codes, layer.groups)
    with torch.no_grad():
        rest = to_groups((inputs - layer.decode(codes)) @ layer.weight, layer.groups)
    seen = torch.where((blocks != 0).any(dim=2, keepdim=True), blocks, rest)
    lengths = torch.linalg.vector_norm(seen, dim=2, keepdim=True)
    return seen / torch.where(lengths > 0, lengths, 1.0)
