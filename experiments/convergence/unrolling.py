r"""The encoder's iterations as depth: what T of them do to the gradient of the dictionary, and to where that rests.

P(x; W) = 1/2 ||y - W x||^2 + lambda sum_g ||x_g|| has the minimiser x*, which T proximal gradient steps (ISTA from 0)
approach. Three gradients of W are in use, by which loss is differentiated, and whether through the steps:

* decoder: -(y - W x^T) x^T', the codes held fixed;
* penalised: P(x^T(W); W), through the steps;
* unrolled: 1/2 ||y - W x^T(W)||^2, through the steps, as the autoencoder is trained.

The first two go to the gradient of min_x P, the third to another limit. Sources: Ablin, Peyre and Moreau (2020),
Malezieux, Moreau and Kowalski (2022), Tolooshams and Ba (2022).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor

from experiments.convergence.gradients import turned
from gsae_lib._checks import check_int, check_real
from gsae_lib.dictionary import Dictionary
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.groups import active_groups, group_norms, to_groups
from gsae_lib.metrics import principal_angles
from gsae_lib.networks import GroupSparseAutoencoder
from gsae_lib.training import TrainingSettings, train

CONVERGED = 2000  # steps, of codes that count as minimisers


@dataclasses.dataclass(frozen=True)
class UnrollingSettings:
    """Data with random orthonormal groups, and a network near the truth; the defaults are those of chapter 05.

    Args:
        n_features, n_groups, group_size, n_active, snr_db, n_samples: the data, as in `GroupSparseSource`; snr_db None
            for no noise.
        penalty: lambda. start_angle: of every group to the truth, degrees, where gradients are compared.
        epochs: until a network counts as at rest. step: of descent, in shares of 1 / E ||y||^2.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_features: int = 40
    n_groups: int = 20
    group_size: int = 2
    n_active: int = 2
    snr_db: float | None = None
    n_samples: int = 200
    penalty: float = 1.5
    start_angle: float = 10.0
    epochs: int = 40
    step: float = 15.0

    def __post_init__(self) -> None:
        check_int("n_samples", self.n_samples)
        check_int("epochs", self.epochs)
        check_real("penalty", self.penalty, strict=True)
        check_real("start_angle", self.start_angle, high=89.0)
        check_real("step", self.step, strict=True)

    def source(self, generator: Generator) -> GroupSparseSource:
        """A source with a new dictionary, in float64."""
        sizes = (self.n_features, self.n_groups, self.group_size)
        dictionary = orthonormal_groups_dictionary(*sizes, generator=generator, dtype=torch.float64)
        return GroupSparseSource(dictionary, self.group_size, self.n_active, snr_db=self.snr_db)

    def network(self, dictionary: Dictionary, n_iterations: int, **changes: Any) -> GroupSparseAutoencoder:
        """T steps without momentum, whose size is 1 / ||W||^2."""
        sizes = (self.n_features, self.n_groups, self.group_size, self.penalty)
        return GroupSparseAutoencoder(
            *sizes, n_iterations=n_iterations, accelerated=False, dictionary=dictionary, **changes
        )


def contraction_rates(codes: Tensor, dictionary: Dictionary, penalty: float, group_size: int, step: float) -> Tensor:
    r"""How fast the steps close in on a minimiser once its support is found, for each sample: (samples,).

    .. math:: x^{k+1} - x^\star \approx J (I - \eta G_S) (x^k - x^\star), \qquad
              J_g = \tau_g I + (1 - \tau_g)\, \hat x_g \hat x_g^T, \quad
              \tau_g = \frac{\|x_g\|}{\|x_g\| + \eta \lambda}

    on the active groups S, G = W^T W: the largest modulus of an eigenvalue of J (I - eta G_S).

    Args:
        codes: minimisers (samples, atoms). dictionary: W. penalty: lambda. step: eta.
    """
    jacobian = _prox_jacobian(codes, penalty, group_size, step)
    vectors, values = torch.linalg.eigh(jacobian)[::-1]
    root = vectors @ torch.diag_embed(values.clamp(min=0).sqrt()) @ vectors.mT
    inner = torch.eye(dictionary.shape[1], dtype=codes.dtype) - step * dictionary.T @ dictionary
    return torch.linalg.eigvalsh(root @ inner @ root).abs().amax(dim=1)


def limit_gradients(
    data: Tensor, codes: Tensor, dictionary: Dictionary, penalty: float, group_size: int, step: float
) -> tuple[Dictionary, Dictionary]:
    r"""The gradients at minimisers: of min_x P, and of the reconstruction error 1/2 ||y - W x*(W)||^2.

    .. math:: -\,r x^{\star T} \qquad \text{and} \qquad -\,r x^{\star T} + r q^T - W q\, x^{\star T}, \qquad
              q = \eta J \big( I - (I - \eta G) J \big)^{-1} (-W^T r)

    with r = y - W x*; the first by the envelope theorem, the second by implicit differentiation of the fixed point.
    The size of the step changes neither. Means over the samples, (features, atoms).
    """
    eye = torch.eye(dictionary.shape[1], dtype=codes.dtype)
    jacobian = _prox_jacobian(codes, penalty, group_size, step)
    residual = data - codes @ dictionary.T
    inner = eye - step * dictionary.T @ dictionary
    q = torch.linalg.solve(eye - inner @ jacobian, -(residual @ dictionary).unsqueeze(2))
    q = step * (jacobian @ q).squeeze(2)
    envelope = -residual.T @ codes / len(data)
    return envelope, envelope + (residual.T @ q - (q @ dictionary.T).T @ codes) / len(data)


def _prox_jacobian(codes: Tensor, penalty: float, group_size: int, step: float) -> Tensor:
    """The derivative of the proximal step at a fixed point, (samples, atoms, atoms), 0 on inactive groups."""
    blocks = to_groups(codes, group_size)
    norms = torch.linalg.vector_norm(blocks, dim=-1)[..., None, None]
    unit = blocks.unsqueeze(-1) / torch.where(norms > 0, norms, 1.0)
    tau = norms / (norms + step * penalty)
    parts = tau * torch.eye(group_size, dtype=codes.dtype) + (1 - tau) * unit @ unit.mT
    parts = torch.where(norms > 0, parts, 0.0)
    found = codes.new_zeros(*blocks.shape[:2], group_size, *blocks.shape[1:])
    groups = torch.arange(blocks.shape[1])
    found[:, groups, :, groups, :] = parts.movedim(1, 0)
    return found.flatten(3).flatten(1, 2)


def gradient_errors(settings: UnrollingSettings, depths: Sequence[int], *, seed: int) -> pd.DataFrame:
    """How far codes and gradients after T steps are from their limits, at one dictionary near the truth.

    A row for each depth T: codes, decoder, penalised and unrolled are ||found - limit|| over ||limit||, the limit of
    "unrolled" its own; rate, the same in all rows, is the largest of `contraction_rates`; apart, ||difference|| of the
    two limits over the length of the first; supports, the share of samples with the support of the minimiser.

    Raises:
        ValueError: a depth that is not a positive integer.
    """
    rng = Generator().manual_seed(seed)
    source = settings.source(rng)
    data = source.sample(settings.n_samples, generator=rng).data
    size, weight = settings.group_size, turned(source.dictionary, settings.group_size, _angle(settings), generator=rng)
    final = settings.network(weight, CONVERGED)
    step = final.unfolding().step
    with torch.no_grad():
        codes = final.encode(data)
    envelope, implicit = limit_gradients(data, codes, weight, settings.penalty, size, step)
    rate = contraction_rates(codes, weight, settings.penalty, size, step).max().item()
    apart = _relative(implicit, envelope)
    rows = []
    for depth in depths:
        model = settings.network(weight, depth)
        reconstruction, found = model(data)
        misfit = 0.5 * (data - reconstruction).square().sum() / len(data)
        penalised = misfit + settings.penalty * group_norms(found, size).sum() / len(data)
        gradients = [torch.autograd.grad(loss, model.weight, retain_graph=True)[0] for loss in (misfit, penalised)]
        decoder = -(data - reconstruction).T @ found / len(data)
        same = active_groups(found, size) == active_groups(codes, size)
        rows.append(
            {
                "depth": depth,
                "codes": _relative(found, codes),
                "decoder": _relative(decoder, envelope),
                "penalised": _relative(gradients[1], envelope),
                "unrolled": _relative(gradients[0], implicit),
                "rate": rate,
                "apart": apart,
                "supports": same.all(dim=1).double().mean().item(),
            }
        )
    return pd.DataFrame(rows)


def rest_angles(settings: UnrollingSettings, depths: Sequence[int], *, seed: int) -> pd.DataFrame:
    """Where networks of each depth come to rest that start at the truth, by the gradient that they follow.

    A row for each depth and gradient ("unrolled" or "decoder"): angle, the rms of all principal angles to the truth, in
    degrees; moved, the same of what it still moved in the last tenth of the epochs; exact, the share of fresh samples
    with the true support; active, groups a sample.

    Raises:
        ValueError: a depth that is not a positive integer.
        TrainingError: as `train`.
    """
    rows = []
    for depth in depths:
        for gradient in ("unrolled", "decoder"):
            rng = Generator().manual_seed(seed)
            source = settings.source(rng)
            data = source.sample(settings.n_samples, generator=rng).data
            model = settings.network(source.dictionary, depth, gradient=gradient)
            rate = settings.step / data.square().sum(dim=1).mean().item()
            last = max(1, settings.epochs // 10)
            for epochs in (settings.epochs - last, last):
                before = model.weight.detach().clone()
                plan = TrainingSettings(max(1, epochs), rate, optimizer="sgd", normalize="groups", progress=False)
                train(model, data, plan, generator=rng)
            sample = source.sample(settings.n_samples, generator=rng)
            with torch.no_grad():
                found = active_groups(model.encode(sample.data), settings.group_size)
            rows.append(
                {
                    "depth": depth,
                    "gradient": gradient,
                    "angle": _rms_angle(model.weight.detach(), source.dictionary, settings.group_size),
                    "moved": _rms_angle(model.weight.detach(), before, settings.group_size),
                    "exact": (found == sample.support).all(dim=1).double().mean().item(),
                    "active": found.sum(dim=1).double().mean().item(),
                }
            )
    return pd.DataFrame(rows)


def _angle(settings: UnrollingSettings) -> float:
    return math.radians(settings.start_angle)


def _relative(found: Tensor, limit: Tensor) -> float:
    return ((found - limit).norm() / limit.norm()).item()


def _rms_angle(dictionary: Dictionary, other: Dictionary, group_size: int) -> float:
    return math.degrees(principal_angles(dictionary, other, group_size).square().mean().sqrt().item())
