"""What chapter 18 shows: the circle of names, a reader's own activations, and tables of recorded runs."""

import copy
import math
import re
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from torch import Generator, Tensor

from experiments.language.features import TokenData, load_tokens, usual
from gsae_book.data.states import open_states
from gsae_book.runs.environment import find_root
from gsae_lib._checks import check_int, check_mapped
from gsae_lib.groups import to_groups
from gsae_lib.sae import GroupSAE

N_EMBEDDED = 2_350, 590  # tokens of the embedded states to train on and to score


def load_activations(path: str) -> TokenData:
    """Rows of a numpy file, (samples, features): four fifths to train on, the rest to score; "" for the embedded ones.

    A path counts from the project's folder. Rows whose norm is above three times the median are left out.

    Raises:
        ValueError: no such matrix, fewer than 1,000 rows that are left, or entries that are not finite. OSError: no
            such file.
    """
    if not path:
        return load_tokens("embedded", *N_EMBEDDED)
    rows = open_states(find_root() / path)
    check_mapped("activations", rows)
    rows = rows[usual(rows)]
    if len(rows) < 1000:
        raise ValueError(f"activations={path!r}: expected at least 1,000 rows of usual norm, got {len(rows)}")
    held_out = min(len(rows) // 5, 10_000)
    return TokenData(rows[:-held_out], torch.from_numpy(rows[-held_out:].astype("float32")))


def first_harmonic(points: Tensor) -> float:
    r"""The share of the variance of points that is in the first harmonic of their order, between 0 and 1.

    .. math:: \frac{2 \|F_1\|^2}{N \sum_k \|y_k - \bar y\|^2}, \qquad F_1 = \sum_k e^{-2 \pi i k / N} y_k

    It is 1 for points at equal distances on a circle, whatever its plane.
    """
    centred = (points - points.mean(dim=0)).double()
    energy = torch.fft.fft(centred, dim=0)[1].abs().square().sum()
    return (2 * energy / len(points) / centred.square().sum()).item()


def calendar_share(points: Tensor) -> float:
    """How much of the points the plane of their first harmonic holds, over what the best two dimensions hold."""
    centred = (points - points.mean(dim=0)).double()
    wave = torch.fft.fft(centred, dim=0)[1]
    plane = torch.linalg.qr(torch.stack([wave.real, wave.imag], dim=1)).Q
    best = torch.linalg.svdvals(centred)[:2].square().sum()
    return ((centred @ plane).square().sum() / best).item()


def permuted_harmonics(points: Tensor, count: int, *, generator: Generator) -> list[float]:
    """The same in so many random orders of the points.

    Raises:
        ValueError: a count that is not a positive integer.
    """
    check_int("count", count)
    return [first_harmonic(points[torch.randperm(len(points), generator=generator)]) for _ in range(count)]


def principal_plane(points: Tensor) -> Tensor:
    """Coordinates (points, 2) in the plane of the two principal components."""
    centred = (points - points.mean(dim=0)).double()
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T


@torch.no_grad()
def rotate_within_groups(model: GroupSAE, *, generator: Generator) -> GroupSAE:
    """The same SAE with each group's columns turned by a random rotation R_g: W_g R_g, U_g R_g, R_g^T b_g."""
    turned, d = copy.deepcopy(model), model.group_size
    for g in range(model.n_groups):
        rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=model.weight.dtype)).Q
        columns = slice(g * d, (g + 1) * d)
        for weight in (turned.weight, turned.encoder_weight):
            if weight is not None:
                weight[:, columns] = weight[:, columns] @ rotation
        if turned.encoder_bias is not None:
            turned.encoder_bias[columns] = to_groups(turned.encoder_bias, d)[g] @ rotation
    return turned


def equilibrium_ratio(rows: pd.DataFrame) -> pd.Series:
    r"""The column norm rho at which plain gradient descent would rest, from norms and thresholds that were measured.

    .. math:: \rho - \frac1\rho = \frac{\lambda}{c}, \qquad c = \frac{\|z_g\| + \lambda}{\rho_{\text{measured}}}

    since a tied encoder hears a group of norm c as rho c. It is proved for orthogonal groups of equal norm.
    """
    ratio = rows["threshold"] * rows["column_norm"] / (rows["code_norm"] + rows["threshold"])
    return (ratio + (ratio**2 + 4).map(math.sqrt)) / 2


def plain(rows: pd.DataFrame, data: str) -> pd.DataFrame:
    """The points of the grid on one kind of data with unit columns and an encoder of its own."""
    large = rows["n_tokens"] >= 50_000
    return rows[large & (rows["data"] == data) & (rows["decoder"] == "unit") & ~rows["tied"].astype(bool)]


def by_size(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One number of each run: activations down, group sizes across."""
    table = rows.pivot_table(column, "activation", "group_size", sort=False)
    return table.reindex(sorted(table.columns), axis=1).rename_axis(columns="group size")


def count_names(texts: Iterable[str], names: Sequence[str]) -> int:
    """How often names stand in texts as words of their own, in upper or lower case as they are given."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    return sum(len(pattern.findall(text)) for text in texts)
