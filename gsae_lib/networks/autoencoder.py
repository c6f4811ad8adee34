"""Group-sparse autoencoders: an encoder that unfolds proximal gradient steps, and a linear decoder.

Source: arXiv 2102.07003, eq. 11-13; FISTA is Beck and Teboulle (2009).
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from gsae_lib._checks import check_bool, check_choice, check_int, check_matrix, check_real, check_samples, describe
from gsae_lib.dictionary import normalize_weight
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.groups import Groups, active_groups, disjoint_layout, group_norms, normalized_group_norms
from gsae_lib.metrics import dead_groups, distance_contrast, explained_variance, mean_active_groups
from gsae_lib.networks.sparse_gradient import TimedGradient, is_plain
from gsae_lib.networks.unfolding import Unfolding, as_number, tied_gradient, unfold
from gsae_lib.penalty import GroupPenalty, as_penalty


class GroupSparseAutoencoder(nn.Module):
    r"""An autoencoder whose codes minimise, or step towards the minimum of, the group lasso of its weight.

    .. math:: x^{k+1} = \sigma_{\eta\lambda}\big(z^k + \eta W^T (y - W z^k)\big), \qquad \hat y = W x^T

    starting at 0, where sigma is the group ReLU, lambda the penalty and eta the step. z^k is x^k for ISTA,
    and x^k + momentum for FISTA (`accelerated`). For T -> infinity the code solves

    .. math:: \min_x \tfrac12 \|y - W x\|_2^2 + \lambda \sum_g w_g \|x_g\|_2.

    The paper's shallow network sigma_lambda(W^T y) is `n_iterations=1, step_size=1.0`. For T > 1 the
    iteration runs in Gram form: one product with the data, then N m^2 multiplications an iteration. Transforms of
    torch.func apply; vmap over weights needs a number as `step_size`. torch compiles and exports it as one graph.

    Args:
        n_features: n. n_groups: Gamma. groups: d, for m = Gamma * d atoms; or a list of sizes, or of lists of atoms.
        penalty: lambda >= 0, in the units of the data; or, with groups=None, a `GroupPenalty`, which may have weights,
            non-negative codes, and ||x||_1 besides.
        n_iterations: T, unfolded proximal gradient steps.
        accelerated: FISTA if true, ISTA if false (the same thing for T = 1).
        step_size: eta > 0, or "auto" for 1 / ||W||_2^2, computed at each encoding and not differentiated.
        tied: decode with `weight`; otherwise with a parameter `decoder_weight` that starts as its copy.
        gradient: "unrolled" differentiates through the encoder; "decoder" holds the codes fixed, so that the gradient
            of the reconstruction error is that of dictionary learning, cheaper and without a path to the data.
        checkpoint: for T > 1, keep no iterates for the backward pass and recompute them, a block of samples at a time:
            about a third more time, and memory for T iterates of one block in place of all samples.
        dictionary: the initial dictionary (n_features, m), copied; by default random orthonormal groups, for which a
            `generator` is required.
    """

    penalty: Tensor
    weights: Tensor | None

    def __init__(
        self,
        n_features: int,
        n_groups: int,
        groups: Groups | None = None,
        penalty: float | Tensor | GroupPenalty | None = None,
        *,
        n_iterations: int = 1,
        accelerated: bool = True,
        step_size: float | Literal["auto"] = "auto",
        tied: bool = True,
        gradient: Literal["unrolled", "decoder"] = "unrolled",
        checkpoint: bool = False,
        dictionary: Tensor | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_features = check_int("n_features", n_features)
        self.n_groups = check_int("n_groups", n_groups)
        if penalty is None:
            raise ValueError("penalty=None: expected a number >= 0, or a GroupPenalty")
        self._penalty = as_penalty(penalty, groups)
        layout = disjoint_layout(self._penalty.groups)
        self.groups = self._penalty.groups
        n_atoms = layout.n_atoms or n_groups * layout.width
        if layout.count(n_atoms) != n_groups:
            raise ValueError(f"n_groups={n_groups}: expected {layout.count(n_atoms)}, the number of groups")
        self.n_iterations = check_int("n_iterations", n_iterations)
        self.accelerated = check_bool("accelerated", accelerated)
        self.step_size = step_size if step_size == "auto" else check_real("step_size", step_size, strict=True)
        self.nonnegative, self.l1 = self._penalty.nonnegative, float(self._penalty.l1)
        self.gradient = check_choice("gradient", gradient, ("unrolled", "decoder"))
        self.checkpoint = check_bool("checkpoint", checkpoint)
        if dictionary is None:
            if generator is None:
                raise ValueError("generator=None: expected a torch.Generator, since no weight is given")
            dictionary = orthonormal_groups_dictionary(n_features, n_groups, layout.width, generator=generator)
            dictionary = layout.from_blocks(dictionary.unflatten(1, (n_groups, layout.width)))
        if getattr(dictionary, "shape", ()) != (n_features, n_atoms):
            raise ValueError(f"dictionary: expected shape {(n_features, n_atoms)}, got {describe(dictionary)}")
        self.weight = nn.Parameter(check_matrix("dictionary", dictionary).detach().clone())
        self.decoder_weight = None if check_bool("tied", tied) else nn.Parameter(self.weight.detach().clone())
        self.register_buffer("penalty", self._checked_penalty(self._penalty.penalty))
        self._penalty.check(self.weight)
        weights = self._penalty.weights
        self.register_buffer("weights", None if weights is None else torch.as_tensor(weights).to(self.weight))
        self.register_load_state_dict_pre_hook(_take_penalties_of_0_3)

    @property
    def group_size(self) -> int:
        """d, if all groups have one size.

        Raises:
            ValueError: they have not; `groups` says which.
        """
        if isinstance(self.groups, int):
            return self.groups
        raise ValueError(f"groups={self.groups}: expected groups of one size here")

    def set_penalty(self, penalty: float | Tensor) -> None:
        """Change lambda, for example between training and coding."""
        self.penalty = self._checked_penalty(penalty)

    def encode(self, data: Float[Tensor, "samples features"]) -> Float[Tensor, "samples atoms"]:
        """Codes after `n_iterations` steps: (samples, features) -> (samples, atoms)."""
        self._check_data(data)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
            steps = self.unfolding()
            correlations = data @ self.weight
            if self.n_iterations == 1:
                return steps.prox(steps.step * correlations)
            return unfold(correlations, self.weight.T @ self.weight, steps)

    def decode(self, codes: Float[Tensor, "samples atoms"]) -> Float[Tensor, "samples features"]:
        """Reconstructions W x: (samples, atoms) -> (samples, features)."""
        return codes @ (self.weight if self.decoder_weight is None else self.decoder_weight).T

    def forward(
        self, data: Float[Tensor, "samples features"]
    ) -> tuple[Float[Tensor, "samples features"], Float[Tensor, "samples atoms"]]:
        """(reconstruction, codes)."""
        codes = self.encode(data)
        return self.decode(codes), codes

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return (
            f"n_features={self.n_features}, n_groups={self.n_groups}, groups={self.groups}, "
            f"n_iterations={self.n_iterations}, step_size={self.step_size}, "
            f"tied={self.decoder_weight is None}, nonnegative={self.nonnegative}"
        )

    def unfolding(self) -> Unfolding:
        """What the encoder does: its step at the present weight, its penalty and depth."""
        return Unfolding(
            step=self.step_size if self.step_size != "auto" else as_number(self._safe_step()),
            penalty=self.group_penalty(),
            n_iterations=self.n_iterations,
            accelerated=self.accelerated,
            checkpoint=self.checkpoint,
        )

    def group_penalty(self) -> GroupPenalty:
        """The penalty at the present lambda."""
        return self._penalty.with_penalty(as_number(self.penalty.double()), self.weights)

    @torch.no_grad()
    def _safe_step(self) -> Tensor:
        """1 / ||W||_2^2 from the smaller Gram matrix; a zero weight gives 1, a non-finite one nan.

        With nan the loss becomes nan, and training stops with an error that explains it.
        """
        w = self.weight if self.weight.dtype == torch.float64 else self.weight.float()
        gram = w.T @ w if w.shape[1] <= w.shape[0] else w @ w.T
        finite = gram.isfinite().all()
        largest = torch.linalg.eigvalsh(torch.where(finite, gram, 0.0))[-1].double()
        return torch.where(finite, torch.where(largest > 0, 1 / largest, 1.0), math.nan)

    def _check_data(self, data: Tensor) -> None:
        strided = isinstance(data, Tensor) and data.layout == torch.strided
        if not strided or data.ndim != 2 or data.shape[1] != self.n_features:
            raise ValueError(f"data: expected (samples, {self.n_features}), got {describe(data)}")
        if data.dtype != self.weight.dtype:
            raise ValueError(f"data: expected dtype {self.weight.dtype} as the weight, got {describe(data)}")
        if data.device != self.weight.device:
            raise ValueError(f"data: expected device {self.weight.device} as the weight, got {data.device}")

    def _checked_penalty(self, penalty: float | Tensor) -> Tensor:
        if np.ndim(penalty) != 0:
            shown = describe(penalty) if isinstance(penalty, Tensor) else repr(penalty)
            raise ValueError(f"penalty: expected a number, got {shown}; GroupPenalty has a weight for each group")
        number = penalty.item() if isinstance(penalty, Tensor) else penalty
        return self.weight.detach().new_tensor(check_real("penalty", number))

    # What `train` asks for.

    several_processes: ClassVar[bool] = True

    def training_step(self, batch: Tensor, *, few_active: bool) -> tuple[float | Tensor, float | Tensor]:
        """Put the gradient of the reconstruction error into the parameters; its mean, and the active pairs.

        By `shallow_gradient` while few groups are active and by `tied_gradient`, for the networks of which they are
        that gradient, and else by automatic differentiation.
        """
        if not self._has_tied_gradient():
            return reconstruction_step(self, batch)
        if few_active and self._has_shallow_gradient():
            found = self._timed_gradient(batch, self.weight, self.group_penalty())
            self.weight.grad = found.gradient
            return found.loss, found.active_groups * len(batch)
        loss, self.weight.grad, pairs = tied_gradient(batch, self.weight, self.unfolding())
        return loss, pairs

    def after_step(self, normalize: str | None) -> None:
        """Normalise the columns or the groups of the weight, if so asked."""
        normalize_weight(self.weight, self.groups, normalize)

    @torch.no_grad()
    def explain_inactivity(self, batch: Tensor) -> str:
        """Why no group is active, and what to do."""
        largest = group_norms(batch @ self.weight, self.groups).max().item() if len(batch) else 0.0
        return (
            f"no group is active in any sample; lower penalty (now up to {self.penalty.max().item():g}) "
            f"below the largest group norm of W^T y, {largest:.4g}"
        )

    def _has_tied_gradient(self) -> bool:
        """Whether it decodes with the weight that it encodes with, in the way that is known here."""
        known = type(self) in (GroupSparseAutoencoder, SparseAutoencoder)
        return known and self.gradient == "unrolled" and self.decoder_weight is None

    def _has_shallow_gradient(self) -> bool:
        """Whether a tied network is sigma_lambda(W^T y) with one penalty, in a precision that sparse products take."""
        plain = self.n_iterations == 1 and self.step_size == 1.0 and is_plain(self._penalty) and self.weights is None
        return plain and self.weight.dtype in (torch.float32, torch.float64) and bool(self.penalty > 0)

    @functools.cached_property
    def _timed_gradient(self) -> TimedGradient:
        """It measures once a model."""
        return TimedGradient()


def _take_penalties_of_0_3(model: Any, state: dict[str, Any], prefix: str, *_: object) -> None:
    """A penalty for each group, as version 0.3 saved it, becomes weights and lambda = 1; weights come as saved."""
    penalty = state.get(f"{prefix}penalty")
    if isinstance(penalty, Tensor) and penalty.ndim == 1:
        state[f"{prefix}weights"], state[f"{prefix}penalty"] = penalty, penalty.new_ones(())
    weights = state.get(f"{prefix}weights")
    if isinstance(weights, Tensor) and weights.shape == (model.n_groups,) and model.weights is None:
        model.weights = torch.empty_like(weights)


class SparseAutoencoder(GroupSparseAutoencoder):
    """The sparse baseline: the same network with groups of one (soft threshold, or biased ReLU if `nonnegative`).

    Arguments as `GroupSparseAutoencoder`, with `n_atoms` in place of groups.
    """

    def __init__(
        self, n_features: int, n_atoms: int, penalty: float, *, nonnegative: bool = False, **settings: Any
    ) -> None:
        super().__init__(n_features, n_atoms, penalty=GroupPenalty(penalty, 1, nonnegative=nonnegative), **settings)


@torch.no_grad()
def set_target_sparsity(
    model: GroupSparseAutoencoder, data: Float[Tensor, "samples features"], n_active: float, *, tol: float = 0.05
) -> float:
    """Set the model's penalty so that the samples use `n_active` groups on average, and return it.

    By bisection on its logarithm, on at most 1,000 samples, evenly spaced. A penalty has the units of the data; an
    activity makes dictionaries comparable. `tol` is relative, on the activity. An error leaves the old penalty.

    Raises:
        ValueError: an activity outside (0, number of groups], or one that no penalty reaches; data that do not fit.
    """
    check_samples("data", data, columns=model.n_features)
    wanted = check_real("n_active", n_active, strict=True, high=float(model.n_groups))
    check_real("tol", tol)
    spaced = torch.linspace(0, len(data) - 1, min(len(data), 1000), dtype=torch.float64, device=data.device)
    data = data[spaced.long()].to(model.weight)
    high = group_norms(data @ model.weight, model.groups).max().item()  # nothing is active
    low = 1e-6 * high
    before = model.penalty
    try:
        for _ in range(50):
            penalty = (low * high) ** 0.5
            model.set_penalty(penalty)
            found = active_groups(model.encode(data), model.groups).sum(dim=1).float().mean().item()
            if abs(found / wanted - 1) <= tol:
                before = model.penalty
                return penalty
            low, high = (penalty, high) if found > wanted else (low, penalty)
    finally:
        model.penalty = before
    where = f"at penalty {penalty:.4g} samples use {found:.4g} of {model.n_groups} groups"
    raise ValueError(f"n_active={n_active}: not reached; {where}")


@dataclasses.dataclass(frozen=True)
class CodeSummary:
    """What the codes of a model look like on some data.

    explained_variance of the reconstruction; active_share, the mean share of active groups in a sample; dead_groups,
    how many are active in no sample; contrast_codes and contrast_norms, `distance_contrast` of the codes and of
    their normalised group norms (nan without labels).
    """

    explained_variance: float
    active_share: float
    dead_groups: int
    contrast_codes: float
    contrast_norms: float


@torch.no_grad()
def summarize_codes(
    model: GroupSparseAutoencoder,
    data: Float[Tensor, "samples features"],
    labels: Int[Tensor, " samples"] | None = None,
) -> CodeSummary:
    """Encode `data` and summarise its codes; labels, if any, are used for the two contrasts alone."""
    check_samples("data", data, columns=model.n_features)
    reconstruction, codes = model(data)
    groups, contrasts = model.groups, [math.nan, math.nan]
    if labels is not None:
        views = (codes, normalized_group_norms(codes, groups))
        contrasts = [distance_contrast(view, labels) for view in views]
    return CodeSummary(
        explained_variance(data, reconstruction),
        mean_active_groups(codes, groups) / model.n_groups,
        int(dead_groups(codes, groups).sum()),
        *contrasts,
    )


def reconstruction_step(model: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    """A network's training step by automatic differentiation: the gradient goes into its parameters.

    Returns:
        the mean of 1/2 ||y - y_hat||^2, and the number of active (sample, group) pairs.
    """
    reconstruction, codes = model(batch)
    loss = 0.5 * (batch - reconstruction).square().sum(dim=1).mean()
    loss.backward()
    return loss.detach(), active_groups(codes.detach(), model.groups).sum()
