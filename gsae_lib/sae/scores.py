"""What the codes of a sparse autoencoder (SAE) cost, and what they leave of the data: measured a block at a time."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsae_lib._checks import check_int, check_mapped, check_matrix, check_real, describe
from gsae_lib.dictionary import Dictionary, as_groups
from gsae_lib.groups import active_groups, to_groups
from gsae_lib.sae.architectures import GroupSAE


@dataclasses.dataclass(frozen=True)
class SAEScores:
    """How a sparse autoencoder does on data.

    unexplained: fraction of variance unexplained, sum ||y - y_hat||^2 / sum ||y - mean||^2. active_groups,
    active_dimensions: means a sample. dead_groups: share of groups that are active in no sample. bits: description
    length of a code, see `description_length`.
    """

    unexplained: float
    active_groups: float
    active_dimensions: float
    dead_groups: float
    bits: float


@torch.no_grad()
def score_sae(
    model: GroupSAE, data: Tensor | np.ndarray, *, distortion: float | None = None, block: int = 4096
) -> SAEScores:
    """Encode and rebuild data, a block at a time, whatever their size: see `SAEScores`.

    Args:
        data: (samples, n_features), a memory map too.
        distortion: at which codes are counted in bits, as a share of the variance, the same for all that are to be
            compared; None for the model's own `unexplained`.
        block: samples at a time.

    Raises:
        ValueError: data that do not fit, without variance or with non-finite entries; a distortion that is not above 0
            and at most 1, or a code that leaves nothing, which has none of its own.
    """
    check_int("block", block)
    if distortion is not None:
        check_real("distortion", distortion, strict=True, high=1.0)
    left = square = dimensions = 0.0
    size, n = model.group_size, model.n_features
    first, sums = None, torch.zeros(n, dtype=torch.float64)
    moments = CodeMoments(model.n_groups, size)
    for rows in _blocks(model, data, block):
        rebuilt, codes = model(rows)
        left += (rows - rebuilt).double().square().sum().item()
        dimensions += (codes != 0).sum().item()
        moments.add(codes * model.scale)
        first = rows.double().mean(dim=0).cpu() if first is None else first
        shifted = rows.double().cpu() - first
        sums += shifted.sum(dim=0)
        square += shifted.square().sum().item()
    count = moments.n_samples
    variance = square - (sums.square().sum() / count).item()
    if not variance > 0:
        raise ValueError(f"data: expected samples that differ, got no variance in {count}")
    share = left / variance if distortion is None else distortion
    if not share > 0:
        raise ValueError("distortion=None: expected a number, since the code leaves nothing")
    return SAEScores(
        unexplained=left / variance,
        active_groups=moments.n_active.sum().item() / count,
        active_dimensions=dimensions / count,
        dead_groups=(moments.n_active == 0).double().mean().item(),
        bits=moments.bits(model.weight.detach(), share * variance / (count * n)),
    )


@torch.no_grad()
def description_length(
    codes: Float[Tensor, "samples atoms"], dictionary: Dictionary, group_size: int, distortion: float
) -> float:
    r"""Bits for a code: which groups are active, and their values as finely as the distortion asks.

    .. math:: \sum_g \Big[ H(p_g) + \tfrac{p_g}{2} \log_2 \det \big( I + \tfrac1D W_g^T W_g \Sigma_g \big) \Big]

    p_g is how often group g is active, H(p) = -p log2 p - (1 - p) log2(1 - p), Sigma_g the covariance of its codes
    while it is, and D the distortion, a variance a feature. It is the cost of a code that takes groups for independent
    and their values for Gaussian, at the capacity of a channel with noise D. It does not change when the coordinates
    within a group do (W_g R, R^-1 x_g). Groups and single atoms are on one scale, and so are codes that share values
    among fewer groups: in the spirit of Ayonrinde et al., "Interpretability as compression" (arXiv 2410.11179), whose
    values have a fixed precision.
    """
    check_matrix("dictionary", dictionary)
    check_matrix("codes", codes, columns=dictionary.shape[1])
    if not len(codes):
        raise ValueError(f"codes: expected at least one sample, got {describe(codes)}")
    moments = CodeMoments(to_groups(codes, group_size).shape[1], group_size)
    moments.add(codes)
    return moments.bits(dictionary, check_real("distortion", distortion, strict=True))


class CodeMoments:
    """Counts and moments of each group's codes, added up a block at a time, in float64."""

    def __init__(self, n_groups: int, group_size: int) -> None:
        """None yet."""
        self.group_size, self.n_samples = group_size, 0
        self.n_active = torch.zeros(n_groups, dtype=torch.float64)
        self.sums = torch.zeros(n_groups, group_size, dtype=torch.float64)
        self.products = torch.zeros(n_groups, group_size, group_size, dtype=torch.float64)

    def add(self, codes: Float[Tensor, "samples atoms"]) -> None:
        """The codes of more samples."""
        blocks = to_groups(codes.double(), self.group_size).movedim(0, 1)
        self.n_samples += len(codes)
        self.n_active += active_groups(codes, self.group_size).sum(dim=0).cpu()
        self.sums += blocks.sum(dim=1).cpu()
        self.products += (blocks.mT @ blocks).cpu()

    def bits(self, dictionary: Dictionary, distortion: float) -> float:
        """See `description_length`."""
        share = self.n_active / self.n_samples
        count = self.n_active.clamp(min=1)
        mean = self.sums / count.unsqueeze(1)
        covariance = self.products / count[:, None, None] - mean.unsqueeze(2) * mean.unsqueeze(1)
        groups = as_groups(dictionary.double().cpu(), self.group_size)
        ratio = torch.eye(self.group_size, dtype=torch.float64) + groups.mT @ groups @ covariance / distortion
        values = share * torch.linalg.slogdet(ratio).logabsdet / 2
        silent = 1 - share
        which = -(torch.xlogy(share, share) + torch.xlogy(silent, silent))
        return ((which + values).sum() / np.log(2)).item()


def _blocks(model: GroupSAE, data: Tensor | np.ndarray, block: int) -> Iterator[Tensor]:
    """The data as tensors of the weight's precision and device, checked first."""
    if isinstance(data, np.ndarray):
        check_mapped("data", data, columns=model.n_features)
    else:
        check_matrix("data", data, columns=model.n_features)
    if not len(data):
        raise ValueError(f"data: expected at least one sample, got {describe(data)}")
    for start in range(0, len(data), block):
        rows = data[start : start + block]
        rows = torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
        yield rows.to(model.weight.device, model.weight.dtype)
