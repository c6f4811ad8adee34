"""Sparse autoencoders with groups as those use them who look for features in the activations of a neural network.

One linear encoder, an activation that selects groups, and a linear decoder: Goodfire's block-sparse featurizers
(arXiv 2606.25234), and, with groups of one and `nonnegative`, the TopK (Gao et al., arXiv 2406.04093), BatchTopK
(Bussmann et al., arXiv 2412.06410) and JumpReLU (Rajamanoharan et al., arXiv 2407.14435) sparse autoencoders. What they
share is `GroupSAE`; each architecture is a class with its own activation, rule for the threshold, and loss. They stand
beside `networks.GroupSparseAutoencoder`, whose codes step towards the minimum of a group lasso: here the encoder has a
weight and a bias of its own, sparsity is set by its target, and training is more than the reconstruction error.
"""

import abc
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gsae_lib._checks import (
    check_bool,
    check_choice,
    check_full_precision,
    check_int,
    check_matrix,
    check_real,
    describe,
)
from gsae_lib._saved import not_saved, read_saved, write_saved
from gsae_lib.activations import gate_groups
from gsae_lib.dictionary import as_groups, from_groups, normalize_columns, normalize_weight, polar
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.groups import to_groups
from gsae_lib.networks.sparse_gradient import ActivePairs, decode_pairs, selected_responses
from gsae_lib.penalty import shrink_groups

Constraint = Literal["free", "unit", "orthonormal"]
CONSTRAINTS = ("free", "unit", "orthonormal")
LOOKED_AT = 10_000  # samples from which centre, scale and threshold start
MOMENTUM = 0.1  # of the running mean of thresholds
# Below this share of active (sample, group) pairs the products with the active groups alone are faster.
SPARSE_SHARE = 0.15
# Smallest eigenvalue of W_g^T W_g, as a share of the largest, at which its inverse root is exact enough.
DEPENDENT = 1e-6
UNKNOWN = "threshold: not known yet; train the autoencoder, or call prepare(data) or calibrate(data)"


class GroupSAE(nn.Module, abc.ABC):
    r"""A sparse autoencoder for activations y, whose features are groups: subspaces of dimension d.

    .. math:: h_g = U_g^T \big( \tfrac{y}{s} - c \big) + b_g, \qquad z_g = \sigma(h)_g, \qquad
              \hat y = s \Big( c + \sum_g W_g z_g \Big)

    W is the dictionary (`weight`), U the encoder's weight, b its bias, c the decoder's bias or centre, s the scale of
    the input. `prepare` sets c, s and the threshold from data. sigma is the activation: `GroupReLUSAE`, `GroupTopKSAE`,
    `BatchTopKSAE` and `GroupJumpReLUSAE` have one each. With `n_active` = k the samples use k groups on average, k d
    active dimensions, in one run. Training minimises, in units of the scaled data,

    .. math:: \tfrac12 \|\tfrac{y}{s} - \tfrac{\hat y}{s}\|^2 + \tfrac{\alpha}{2} \|e - \hat e\|^2

    averaged over a batch, and what the architecture adds. The second term revives (Gao et al.): e is the residual, held
    fixed, and e_hat what the n / 2d strongest of the dead groups, unshrunk, make of it, a group being dead that was
    active in none of the last `dead_after` samples.

    `train` trains it. The products of training with W and the gradient of U are formed from the active groups while
    few are active. The decoder's constraint is restored after each step; the gradient is not projected. torch compiles
    and exports codes and reconstructions as one graph; an exported one has no pseudo-derivatives.

    Args:
        n_features: n. n_groups: Gamma. group_size: d; m = Gamma * d atoms.
        decoder: "free"; "unit", columns of unit norm; "orthonormal", W_g^T W_g = I, a point of a Grassmann manifold.
        tied: U is W. bias: learn b and c; otherwise both are 0.
        nonnegative: cut negative entries of h first, which groups of one need to be those of other libraries.
        revival: alpha >= 0; 0 for none. dead_after: samples.
        dictionary: the starting W, to which U is set too, copied; by default random orthonormal groups, for which a
            `generator` is required.
    """

    n_active: int | float | None  # k; None where the threshold is fixed
    scale: Tensor
    n_seen: Tensor
    last_active: Tensor

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        group_size: int,
        *,
        decoder: Constraint = "unit",
        tied: bool = False,
        bias: bool = True,
        nonnegative: bool = False,
        revival: float = 1 / 32,
        dead_after: int = 50_000,
        dictionary: Tensor | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_features = check_int("n_features", n_features)
        self.n_groups = check_int("n_groups", n_groups)
        self.group_size = check_int("group_size", group_size)
        self.decoder = check_choice("decoder", decoder, CONSTRAINTS)
        self.tied, self.bias = check_bool("tied", tied), check_bool("bias", bias)
        self.nonnegative = check_bool("nonnegative", nonnegative)
        self.revival = check_real("revival", revival)
        self.dead_after = check_int("dead_after", dead_after)
        if dictionary is None:
            if generator is None:
                raise ValueError("generator=None: expected a torch.Generator, since no dictionary is given")
            dictionary = orthonormal_groups_dictionary(n_features, n_groups, group_size, generator=generator)
        if getattr(dictionary, "shape", ()) != (n_features, n_groups * group_size):
            shape = (n_features, n_groups * group_size)
            raise ValueError(f"dictionary: expected shape {shape}, got {describe(dictionary)}")
        weight = check_matrix("dictionary", dictionary).detach()
        self.weight = nn.Parameter(weight.clone())
        self.encoder_weight = None if tied else nn.Parameter(weight.clone())
        self.encoder_bias = nn.Parameter(weight.new_zeros(weight.shape[1])) if bias else None
        self.centre = nn.Parameter(weight.new_zeros(n_features)) if bias else None
        self.register_buffer("scale", weight.new_ones(()))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("last_active", torch.zeros(n_groups, dtype=torch.long))
        self.constrain()

    # What an architecture says of itself.

    @abc.abstractmethod
    def thresholds(self) -> Tensor | None:
        """theta: one number, or one for each group; None if there is none.

        Raises:
            ValueError: it follows from data, and there were none yet.
        """

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What it was made with, by the names of the arguments."""
        names = ("n_features", "n_groups", "group_size", "decoder", "tied", "bias", "nonnegative", "revival")
        return {name: getattr(self, name) for name in (*names, "dead_after")}

    @abc.abstractmethod
    def _encode(self, blocks: Tensor) -> Tensor:
        """Codes of all responses (samples, groups, size), each sample's its own."""

    @abc.abstractmethod
    def _select(self, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a batch in training, norms (samples, groups): which groups are active, which have a gradient, and theta.

        theta is one number, 0 where there is none, or one for each group.
        """

    @abc.abstractmethod
    def _activate(self, blocks: Tensor, threshold: Tensor) -> Tensor:
        """Codes of the responses (..., size) of selected groups, at a threshold that broadcasts to (...)."""

    def _training_codes(self, blocks: Tensor, threshold: Tensor, n_samples: int) -> tuple[Tensor, float | Tensor]:
        """The same in training, and what the architecture adds to the loss."""
        return self._activate(blocks, threshold), 0.0

    @abc.abstractmethod
    def _calibrate(self, rows: Tensor) -> None:
        """Let samples use `n_active` groups on average."""

    # What all share.

    @torch.no_grad()
    def prepare(self, data: Tensor | np.ndarray) -> None:
        r"""Set what should follow from data before training: centre, scale, and the threshold of a target.

        .. math:: s^2 = \frac1n \mathbb{E} \|y - \bar y\|^2, \qquad c = \bar y / s

        so that scaled data have unit variance a feature on average. Without biases s^2 = E ||y||^2 / n. From at most
        10,000 samples, evenly spaced.

        Args:
            data: (samples, n_features), any floating dtype, a memory map too.

        Raises:
            ValueError: fewer than two samples, another width, non-finite entries, or data without variance.
        """
        rows = self._some(data)
        mean = rows.mean(dim=0) if self.centre is not None else torch.zeros_like(rows[0])
        scale = (rows - mean).square().mean().sqrt()
        if scale == 0:
            raise ValueError(f"data: expected samples that differ, got no variance in {len(rows)}")
        self.scale.copy_(scale)
        if self.centre is not None:
            self.centre.copy_(mean / scale)
        if self.n_active is not None:
            self._calibrate(rows)

    @torch.no_grad()
    def calibrate(self, data: Tensor | np.ndarray) -> None:
        """Scale the thresholds, if there are any, so that these data use `n_active` groups on average.

        From at most 10,000 samples, evenly spaced. Training leaves thresholds near the target by itself.

        Raises:
            ValueError: data as `prepare`, or there is no `n_active`.
        """
        if self.n_active is None:
            raise ValueError("n_active=None: expected a target, and threshold is fixed")
        self._calibrate(self._some(data))

    def encode(self, data: Float[Tensor, "samples features"]) -> Float[Tensor, "samples atoms"]:
        """Codes z, each sample's its own: (samples, features) -> (samples, atoms).

        Raises:
            ValueError: data of another shape, dtype or device than the weight's, or a threshold that is not known.
        """
        self._check_data(data)
        return self._encode(self._responses(data / self.scale)).flatten(1)

    def decode(self, codes: Float[Tensor, "samples atoms"]) -> Float[Tensor, "samples features"]:
        """Reconstructions s (c + W z): (samples, atoms) -> (samples, features)."""
        decoded = codes @ self.weight.T
        return self.scale * (decoded if self.centre is None else decoded + self.centre)

    def forward(
        self, data: Float[Tensor, "samples features"]
    ) -> tuple[Float[Tensor, "samples features"], Float[Tensor, "samples atoms"]]:
        """(reconstruction, codes), as `encode` and `decode` give them."""
        codes = self.encode(data)
        return self.decode(codes), codes

    def training_loss(self, data: Float[Tensor, "samples features"]) -> tuple[Tensor, Tensor]:
        """The loss of a batch, to be differentiated, and its number of active (sample, group) pairs.

        It counts the samples, notes which groups are active, and moves the running threshold.
        """
        self._check_data(data)
        x = data / self.scale
        with torch.no_grad():
            responses = self._responses(x)
            norms = torch.linalg.vector_norm(responses, dim=-1)
        keep, used, threshold = self._select(norms)
        self.n_seen += len(x)
        self.last_active[keep.any(dim=0)] = self.n_seen
        n_pairs = keep.sum()
        if n_pairs < SPARSE_SHARE * keep.numel() and x.dtype in (torch.float32, torch.float64):
            sample, group = torch.where(used)
            pairs = ActivePairs((sample, group), responses.shape)
            bias = self._encoding_bias()
            blocks = selected_responses(x, self._encoding_weight(), bias, responses, pairs)
            blocks = blocks * (responses[pairs.active] > 0) if self.nonnegative else blocks
            per_pair = threshold[group] if threshold.ndim else threshold
            codes, added = self._training_codes(blocks, per_pair, len(x))
            decoded = decode_pairs(codes, self.weight, pairs)
        else:
            blocks = torch.where(used.unsqueeze(-1), self._responses(x), 0.0)
            codes, added = self._training_codes(blocks, threshold, len(x))
            decoded = codes.flatten(1) @ self.weight.T
        error = (x if self.centre is None else x - self.centre) - decoded
        loss = 0.5 * error.square().sum(dim=1).mean() + added
        dead = self.dead_groups()
        if self.revival and bool(dead.any()):
            loss = loss + self.revival * self._revival_loss(x, error.detach(), dead)
        return loss, n_pairs

    # What `train` asks for. Processes with batches of their own would have thresholds and counts of their own.

    several_processes: ClassVar[bool] = False

    def training_step(self, batch: Tensor, *, few_active: bool) -> tuple[Tensor, Tensor]:
        """Put the gradient of `training_loss` into the parameters; the loss, and the active pairs.

        Each batch tells by itself whether few groups are active.
        """
        loss, pairs = self.training_loss(batch)
        loss.backward()
        return loss.detach(), pairs

    def after_step(self, normalize: str | None) -> None:
        """Normalise the columns or the groups of the weight, if so asked, and restore the decoder's constraint."""
        normalize_weight(self.weight, self.group_size, normalize)
        self.constrain()

    def explain_inactivity(self, batch: Tensor) -> str:
        """What to do where no group is active."""
        return "no group is active in any sample; lower threshold, or give n_active"

    def dead_groups(self) -> Tensor:
        """Which groups were active in none of the last `dead_after` samples of training, (groups,)."""
        return self.n_seen - self.last_active > self.dead_after

    @torch.no_grad()
    def constrain(self) -> None:
        """Restore the decoder's constraint: the nearest unit columns, or orthonormal groups."""
        if self.decoder == "free" or not bool(self.weight.isfinite().all()):
            return
        if self.decoder == "unit":
            self.weight.copy_(normalize_columns(self.weight))
        else:
            self.weight.copy_(from_groups(_nearest_orthonormal(as_groups(self.weight, self.group_size))))

    def save(self, path: str | Path) -> None:
        """Write arrays to path.safetensors, class and settings to path.json, as the estimators do; folders are made.

        Raises:
            ValueError: half precision, which the files do not hold. OSError: the files cannot be written.
        """
        check_full_precision("weight", self.weight)
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}
        write_saved(path, type(self).__name__, self.settings(), arrays)

    @classmethod
    def load(cls, path: str | Path) -> "GroupSAE":
        """Read what `save` of this class, or of one that derives from it, wrote, on the CPU; nothing is executed.

        `GroupSAE.load` reads all architectures, and returns a model of the one that was saved. Files of version 0.3,
        whose one class was GroupSparseFeaturizer, are read too.

        Raises:
            ValueError: files of another class, damaged ones, or ones that `save` did not write; names what is wrong.
            OSError: no such files.
        """
        family = _family(cls)
        content, arrays = read_saved(path, cls.__name__, (*family, OLD_CLASS))
        state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        try:
            kind = content["class"]
            if kind == OLD_CLASS:
                kind = _translate_old(content["parameters"], state)
                if kind not in family:
                    raise ValueError(f"it holds a {kind}, expected a {cls.__name__}")
            return family[kind]._from_saved(content, state)
        except (ValueError, TypeError, KeyError) as error:
            raise not_saved(path, cls.__name__, error) from error

    @classmethod
    def _from_saved(cls, content: dict[str, Any], state: dict[str, Tensor]) -> "GroupSAE":
        """The autoencoder that files hold, or ValueError or TypeError for what `save` would not have written."""
        settings, weight = content["parameters"], state["weight"]
        if content["fitted"] or content["feature_names"] is not None:
            raise ValueError("fitted, feature_names: expected none")
        check_full_precision("weight", weight)
        model = cls(**settings, dictionary=weight)
        for name in sorted(settings.keys() ^ model.settings().keys()):
            raise ValueError(f"{name}: {'no setting' if name in settings else 'missing'}")
        if not torch.allclose(model.weight, weight, rtol=0, atol=1e-4):
            raise ValueError(f"weight: expected decoder={model.decoder!r}, and it is not")
        own = model.state_dict()
        for name in sorted(own.keys() ^ state.keys()):
            raise ValueError(f"the array {name} is {'missing' if name in own else 'none of this model'}")
        for name, like in own.items():
            found = state[name]
            if found.shape != like.shape or found.dtype != like.dtype:
                raise ValueError(f"{name}: expected {describe(like)}, got {describe(found)}")
            if not bool(found.isfinite().all()):
                raise ValueError(f"{name}: expected finite numbers")
        for name in ("scale", "threshold"):
            if name in state and not bool(state[name] > 0):
                raise ValueError(f"{name}={state[name].item():g}: expected a number above 0")
        if bool((state["last_active"] < 0).any()) or bool((state["last_active"] > state["n_seen"]).any()):
            raise ValueError(f"last_active: expected from 0 to n_seen={state['n_seen'].item()}")
        model.load_state_dict(state)
        return model

    def extra_repr(self) -> str:
        """Sizes and settings."""
        target = "threshold fixed" if self.n_active is None else f"n_active={self.n_active:g}"
        return (
            f"n_features={self.n_features}, n_groups={self.n_groups}, group_size={self.group_size}, "
            f"{target}, decoder={self.decoder!r}, tied={self.tied}"
        )

    def _encoding_weight(self) -> Tensor:
        return self.weight if self.encoder_weight is None else self.encoder_weight

    def _encoding_bias(self) -> Tensor:
        """b - U^T c: with it the encoder's products are those of the data, which need no gradient."""
        if self.encoder_bias is None or self.centre is None:
            return self.weight.new_zeros(self.weight.shape[1])
        return self.encoder_bias - self.centre @ self._encoding_weight()

    def _responses(self, x: Tensor) -> Tensor:
        """h of scaled data, (samples, groups, size); without negative entries if so asked."""
        if self.encoder_bias is None:
            responses = x @ self._encoding_weight()
        else:
            responses = torch.addmm(self._encoding_bias(), x, self._encoding_weight())
        return to_groups(responses.relu() if self.nonnegative else responses, self.group_size)

    def _revival_loss(self, x: Tensor, error: Tensor, dead: Tensor) -> Tensor:
        """1/2 ||e - e_hat||^2, from the strongest dead groups of each sample."""
        atoms = dead.repeat_interleave(self.group_size)
        responses = x @ self._encoding_weight()[:, atoms] + self._encoding_bias()[atoms]
        blocks = to_groups(responses.relu() if self.nonnegative else responses, self.group_size)
        count = min(max(1, self.n_features // (2 * self.group_size)), blocks.shape[1])
        keep = _strongest(torch.linalg.vector_norm(blocks.detach(), dim=-1), count)
        codes = torch.where(keep.unsqueeze(-1), blocks, 0.0).flatten(1)
        return 0.5 * (error - codes @ self.weight[:, atoms].T).square().sum(dim=1).mean()

    def _some(self, data: Tensor | np.ndarray) -> Tensor:
        """At most 10,000 samples, evenly spaced, checked, in the precision of the weight."""
        if not isinstance(data, Tensor | np.ndarray) or data.ndim != 2 or data.shape[1] != self.n_features:
            raise ValueError(f"data: expected (samples, {self.n_features}), got {describe(data)}")
        if len(data) < 2:
            raise ValueError(f"data: expected at least two samples, got {describe(data)}")
        chosen = np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).astype(np.int64)
        rows = (
            torch.as_tensor(np.array(data[chosen])) if isinstance(data, np.ndarray) else data[torch.from_numpy(chosen)]
        )
        return check_matrix("data", rows.to(self.weight.device, self.weight.dtype))

    def _check_data(self, data: Tensor) -> None:
        if not isinstance(data, Tensor) or data.ndim != 2 or data.shape[1] != self.n_features:
            raise ValueError(f"data: expected (samples, {self.n_features}), got {describe(data)}")
        if data.dtype != self.weight.dtype or data.device != self.weight.device:
            wanted = f"{self.weight.dtype} on {self.weight.device}"
            raise ValueError(f"data: expected {wanted} as the weight, got {describe(data)} on {data.device}")


class GroupTopKSAE(GroupSAE):
    """Group top-k: z_g = h_g for the k groups of largest norm in each sample, and 0 elsewhere.

    Groups of one with `nonnegative` are the TopK sparse autoencoder (arXiv 2406.04093). There is no threshold.

    Args:
        n_active: k, a whole number, not larger than Gamma.
        shared: the other arguments, of `GroupSAE`.
    """

    n_active: int

    def __init__(self, n_features: int, n_groups: int, group_size: int, *, n_active: int, **shared: Any) -> None:
        super().__init__(n_features, n_groups, group_size, **shared)
        self.n_active = check_int("n_active", n_active, high=n_groups)

    def thresholds(self) -> None:
        """None: there is no threshold."""

    def settings(self) -> dict[str, Any]:
        """What it was made with, by the names of the arguments."""
        return super().settings() | {"n_active": self.n_active}

    def _encode(self, blocks: Tensor) -> Tensor:
        keep = _strongest(torch.linalg.vector_norm(blocks.detach(), dim=-1), self.n_active)
        return torch.where(keep.unsqueeze(-1), blocks, 0.0)

    def _select(self, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep = _strongest(norms, self.n_active)
        return keep, keep, norms.new_zeros(())

    def _activate(self, blocks: Tensor, threshold: Tensor) -> Tensor:
        return blocks

    def _calibrate(self, rows: Tensor) -> None:
        """Samples do so by themselves."""


class _ThresholdSAE(GroupSAE):
    """A code at one theta: a fixed one, or in training midway between the k N longest groups of a batch and the others.

    Afterwards it is the running mean of these.
    """

    threshold: Tensor
    known: Tensor  # whether the threshold is

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        group_size: int,
        *,
        n_active: int | float | None,
        threshold: float | None,
        **shared: Any,
    ) -> None:
        super().__init__(n_features, n_groups, group_size, **shared)
        if n_active is not None:
            n_active = check_real("n_active", n_active, high=float(n_groups), strict=True)
        self.n_active = n_active
        start = 1.0 if threshold is None else check_real("threshold", threshold, strict=True)
        self._start_threshold(self.weight.new_tensor(start))
        self.register_buffer("known", torch.tensor(threshold is not None))

    def thresholds(self) -> Tensor:
        """theta: one number, or one for each group.

        Raises:
            ValueError: it follows from data, and there were none yet.
        """
        if torch.compiler.is_compiling():
            torch._assert_async(self.known, UNKNOWN)
        elif not bool(self.known):
            raise ValueError(UNKNOWN)
        return self._threshold_now()

    def settings(self) -> dict[str, Any]:
        """What it was made with, by the names of the arguments."""
        return super().settings() | {"n_active": self.n_active}

    def _encode(self, blocks: Tensor) -> Tensor:
        return self._activate(blocks, self.thresholds())

    def _select(self, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        threshold = self.threshold
        if self.n_active is not None:
            known = bool(self.known)
            threshold = _boundary(norms, self.n_active, guess=self.threshold / 2 if known else None)
            self.threshold.copy_(torch.lerp(self.threshold, threshold, MOMENTUM) if known else threshold)
            self.known.fill_(True)
        keep = norms > threshold
        return keep, keep, threshold

    def _calibrate(self, rows: Tensor) -> None:
        norms = torch.linalg.vector_norm(self._responses(rows / self.scale), dim=-1)
        self._move_threshold(norms, self.n_active)

    @torch.no_grad()
    def _move_threshold(self, norms: Tensor, n_active: int | float | None) -> None:
        """Multiply theta, so that k N of these norms are above it."""
        if n_active is not None:
            self._multiply_threshold(_boundary(norms / self._threshold_now(), n_active))
            self.known.fill_(True)

    def _start_threshold(self, start: Tensor) -> None:
        """Keep theta as a buffer or parameter."""
        self.register_buffer("threshold", start)

    def _threshold_now(self) -> Tensor:
        """theta, whether it is known or not."""
        return self.threshold

    def _multiply_threshold(self, factor: Tensor) -> None:
        self.threshold *= factor


class BatchTopKSAE(_ThresholdSAE):
    """Batch top-k: in training z_g = h_g for the k N groups of largest norm in a batch of N samples, and 0 elsewhere.

    Afterwards it is so where ||h_g|| > theta, the running mean of the batches' thresholds, so that the code of a sample
    is its own. Groups of one with `nonnegative` are the BatchTopK sparse autoencoder (arXiv 2412.06410).

    Args:
        n_active: k, not larger than Gamma.
        shared: the other arguments, of `GroupSAE`.
    """

    def __init__(
        self, n_features: int, n_groups: int, group_size: int, *, n_active: int | float, **shared: Any
    ) -> None:
        check_real("n_active", n_active, strict=True)
        super().__init__(n_features, n_groups, group_size, n_active=n_active, threshold=None, **shared)

    def _activate(self, blocks: Tensor, threshold: Tensor) -> Tensor:
        return gate_groups(blocks, threshold, torch.zeros_like(threshold))[0]  # no bandwidth: theta is not learned


class GroupReLUSAE(_ThresholdSAE):
    r"""The group ReLU, the paper's activation (arXiv 2102.07003), with one theta for all groups.

    .. math:: z_g = (1 - \theta / \|h_g\|)_+ h_g

    Args:
        n_active: k, not larger than Gamma: in training theta is such that k N groups of a batch of N samples are
            longer, and afterwards the running mean of these. Either this or a threshold.
        threshold: a fixed theta > 0, in the units of h.
        shared: the other arguments, of `GroupSAE`.
    """

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        group_size: int,
        *,
        n_active: int | float | None = None,
        threshold: float | None = None,
        **shared: Any,
    ) -> None:
        _check_one_of(n_active, threshold)
        super().__init__(n_features, n_groups, group_size, n_active=n_active, threshold=threshold, **shared)

    def settings(self) -> dict[str, Any]:
        """What it was made with, by the names of the arguments."""
        return super().settings() | {"threshold": float(self.threshold) if self.n_active is None else None}

    def _activate(self, blocks: Tensor, threshold: Tensor) -> Tensor:
        return shrink_groups(blocks, threshold, False, 0.0)


class GroupJumpReLUSAE(_ThresholdSAE):
    r"""Group JumpReLU: z_g = h_g where ||h_g|| > theta_g, and 0 elsewhere, with one theta for each group.

    It learns log theta_g by the pseudo-derivatives of `activations.group_jump_relu`, and adds an L0 loss with a target,

    .. math:: \tfrac{\beta n}{2} \Big( \frac{L_0}{k} - 1 \Big)^2

    where L0 is the mean number of open gates (arXiv 2407.14435, eq. 12, and its appendix). With a fixed threshold it
    is the group hard threshold, and nothing is added. Groups of one with `nonnegative` are the JumpReLU sparse
    autoencoder.

    Args:
        n_active: k, not larger than Gamma. Either this or a threshold.
        threshold: a fixed theta > 0, in the units of h, of all groups.
        sparsity_weight: beta > 0. bandwidth: epsilon of the pseudo-derivatives, as a share of theta.
        shared: the other arguments, of `GroupSAE`.
    """

    log_threshold: nn.Parameter  # where it is learned, in place of the threshold

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        group_size: int,
        *,
        n_active: int | float | None = None,
        threshold: float | None = None,
        sparsity_weight: float = 5.0,
        bandwidth: float = 0.1,
        **shared: Any,
    ) -> None:
        _check_one_of(n_active, threshold)
        super().__init__(n_features, n_groups, group_size, n_active=n_active, threshold=threshold, **shared)
        self.sparsity_weight = check_real("sparsity_weight", sparsity_weight, strict=True)
        self.bandwidth = check_real("bandwidth", bandwidth, strict=True, high=2.0)

    def settings(self) -> dict[str, Any]:
        """What it was made with, by the names of the arguments."""
        own = {"sparsity_weight": self.sparsity_weight, "bandwidth": self.bandwidth}
        return super().settings() | own | {"threshold": float(self.threshold) if self.n_active is None else None}

    def _select(self, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.n_active is None:
            return super()._select(norms)
        if not bool(self.known):
            self._move_threshold(norms, self.n_active)
        threshold = self._threshold_now()
        fixed = threshold.detach()
        keep = norms > fixed
        near = (norms - fixed).abs() < self.bandwidth / 2 * fixed  # these move the threshold
        return keep, keep | near, threshold

    def _activate(self, blocks: Tensor, threshold: Tensor) -> Tensor:
        return gate_groups(blocks, threshold, self.bandwidth * threshold.detach())[0]

    def _training_codes(self, blocks: Tensor, threshold: Tensor, n_samples: int) -> tuple[Tensor, float | Tensor]:
        if self.n_active is None:
            return super()._training_codes(blocks, threshold, n_samples)
        codes, gates = gate_groups(blocks, threshold, self.bandwidth * threshold.detach())
        excess = gates.sum() / (n_samples * self.n_active) - 1
        return codes, self.sparsity_weight * self.n_features / 2 * excess.square()

    def _start_threshold(self, start: Tensor) -> None:
        if self.n_active is None:
            super()._start_threshold(start)
        else:
            self.log_threshold = nn.Parameter(start.log().repeat(self.n_groups))

    def _threshold_now(self) -> Tensor:
        return self.threshold if self.n_active is None else self.log_threshold.exp()

    def _multiply_threshold(self, factor: Tensor) -> None:
        self.log_threshold.data += factor.clamp(min=torch.finfo(factor.dtype).tiny).log()


# The class of version 0.3, and by its activation the class of today, with the settings that this one has no more.
OLD_CLASS = "GroupSparseFeaturizer"
OLD_ACTIVATIONS: dict[object, tuple[type[GroupSAE], tuple[str, ...]]] = {
    "group ReLU": (GroupReLUSAE, ("sparsity_weight", "bandwidth")),
    "group top-k": (GroupTopKSAE, ("sparsity_weight", "bandwidth", "threshold")),
    "batch top-k": (BatchTopKSAE, ("sparsity_weight", "bandwidth", "threshold")),
    "group JumpReLU": (GroupJumpReLUSAE, ()),
}


def _translate_old(settings: dict[str, Any], state: dict[str, Tensor]) -> str:
    """Take from settings and arrays of version 0.3 what the class of today does not have, and name that class."""
    activation = check_choice("activation", settings.pop("activation"), OLD_ACTIVATIONS)
    kind, unused = OLD_ACTIVATIONS[activation]
    for name in unused:
        del settings[name]
    if activation == "group top-k":
        del state["known"]
    return kind.__name__


def _family(kind: type[GroupSAE]) -> dict[str, type[GroupSAE]]:
    """A class and those that derive from it, by name."""
    found = {kind.__name__: kind}
    for one in kind.__subclasses__():
        found |= _family(one)
    return found


def _check_one_of(n_active: int | float | None, threshold: float | None) -> None:
    if (n_active is None) == (threshold is None):
        raise ValueError(f"n_active={n_active}, threshold={threshold}: expected one of them")


def _strongest(norms: Tensor, count: int) -> Tensor:
    """Which groups are the `count` longest of their sample."""
    return torch.zeros_like(norms, dtype=torch.bool).scatter_(-1, norms.topk(count, dim=-1).indices, True)


def _boundary(norms: Tensor, n_active: float, guess: Tensor | None = None) -> Tensor:
    """Midway between the round(k N) largest entries and the others; quicker if those are above the guess."""
    flat, count = norms.flatten(), max(1, round(n_active * len(norms)))
    if count >= len(flat):
        return flat.min() / 2
    if guess is not None:
        above = flat[flat > guess]
        flat = above if len(above) > count else flat
    return flat.topk(count + 1).values[-2:].mean()


def _nearest_orthonormal(groups: Tensor) -> Tensor:
    """W (W^T W)^{-1/2}, the polar factor, by one small matrix each, if the groups' columns are far from dependent."""
    exact = groups.double()
    values, vectors = torch.linalg.eigh(exact.mT @ exact)
    if not bool((values[..., 0] > DEPENDENT * values[..., -1]).all()):
        return polar(groups)
    inverse = (vectors / values.sqrt().unsqueeze(-2)) @ vectors.mT
    return (exact @ inverse).to(groups.dtype)
