"""Other ways to subspaces of states, beside groups that were trained, all scored alike.

Clustered atoms: those of a TopK autoencoder, by their cosines, after training, as Engels et al. (arXiv 2405.14860)
found circles; a cluster's subspace is that of the leading components of what it rebuilds. k-subspaces: one subspace a
state. Principal components, in groups of consecutive ones. What one subspace holds of names is compared with what the
best of its dimension holds; controls are subspaces of the same atoms shuffled, and random ones.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Generator, Tensor

from experiments.language.features import (
    ACTIVE_DIMENSIONS,
    DATA,
    N_FREQUENT,
    N_PERMUTATIONS,
    FeatureSettings,
    TokenData,
    found_groups,
    in_order,
    inside_group,
    largest_share,
    load_names,
    load_tokens,
    name_scores,
    train_features,
)
from gsae_lib._checks import check_choice, check_int
from gsae_lib.dictionary import Dictionary, from_groups, orthonormalize_groups
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.learning import k_subspaces
from gsae_lib.sae import GroupSAE, score_sae
from gsae_lib.subspaces import match_subspaces

METHODS = (
    "groups",
    "clustered atoms",
    "clustered atoms, 24 a cluster",
    "k-subspaces",
    "principal components",
)
CLUSTER = 24  # atoms a cluster, about as many as theirs have: 24,576 in 1,000
N_CODED = 10_000  # states whose codes say what a cluster rebuilds
N_FITTED = 20_000  # states of k-subspaces and components, others with each seed
MAX_ITERATIONS = 30  # of k-subspaces


@dataclasses.dataclass(frozen=True)
class BaselineSettings:
    """One way to subspaces.

    Args:
        data: as `FeatureSettings`. method: see above; "groups" are those of batch top-k with unit columns.
        group_size: d, dimensions of a subspace. There are 2 n / d of them, clusters and components apart.
        n_tokens, n_held_out: as `FeatureSettings`.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    data: Literal["smollm2", "planted", "embedded", "addresses"] = "smollm2"
    method: Literal[
        "groups", "clustered atoms", "clustered atoms, 24 a cluster", "k-subspaces", "principal components"
    ] = "groups"
    group_size: int = 2
    n_tokens: int = 100_000
    n_held_out: int = 10_000

    def __post_init__(self) -> None:
        check_choice("data", self.data, DATA)
        check_choice("method", self.method, METHODS)
        for name in ("group_size", "n_tokens", "n_held_out"):
            check_int(name, getattr(self, name))


@dataclasses.dataclass(frozen=True, eq=False)
class Subspaces:
    """Orthonormal groups of d, the same of shuffled atoms, what is left of held-out states, and active dimensions."""

    dictionary: Dictionary
    shuffled: Dictionary
    unexplained: float
    active_dimensions: float


def run_baseline(settings: BaselineSettings, *, n_seeds: int = 5) -> list[dict[str, Any]]:
    """Seeds from 0, a row each: what is left, what one subspace holds of names or planted groups, and what repeats.

    overlap: of the subspaces of the first seed with those of this one, matched. overlap_shuffled: the same of shuffled
    atoms, both times.

    Raises:
        ValueError: settings that do not fit the data. FileNotFoundError: states that were not extracted.
    """
    torch.set_num_threads(1)
    check_int("n_seeds", n_seeds)
    tokens = load_tokens(settings.data, settings.n_tokens, settings.n_held_out)
    rows: list[dict[str, Any]] = []
    first: Subspaces | None = None
    for seed in range(n_seeds):
        clock = time.perf_counter()
        found = fit_subspaces(settings, tokens, seed=seed)
        row = {"training_seed": seed, "training_seconds": time.perf_counter() - clock}
        row |= {"unexplained": found.unexplained, "active_dimensions": found.active_dimensions}
        row["n_subspaces"] = found.dictionary.shape[1] // settings.group_size
        row |= score_subspaces(found, settings.group_size, tokens, Generator().manual_seed(seed + 1))
        first = found if first is None else first
        for name, one, other in (
            ("overlap", first.dictionary, found.dictionary),
            ("overlap_shuffled", first.shuffled, found.shuffled),
        ):
            row[name] = match_subspaces(one, other, settings.group_size).overlap.mean().item()
        rows.append(row)
    return rows


def fit_subspaces(settings: BaselineSettings, tokens: TokenData, *, seed: int) -> Subspaces:
    """The subspaces of a method.

    Raises:
        ValueError: fewer states than a method needs, or no cluster with as many atoms as dimensions.
    """
    fits: dict[str, Callable[[BaselineSettings, TokenData, int], Subspaces]] = {
        "groups": _groups,
        "clustered atoms": _clustered_atoms,
        "clustered atoms, 24 a cluster": _clustered_atoms,
        "k-subspaces": _k_subspaces,
        "principal components": _components,
    }
    return fits[settings.method](settings, tokens, seed)


def score_subspaces(found: Subspaces, d: int, tokens: TokenData, rng: Generator) -> dict[str, Any]:
    """`score_dictionary`, and the most that one of the shuffled and of as many random subspaces holds."""
    count = found.dictionary.shape[1] // d
    control = orthonormal_groups_dictionary(len(found.dictionary), count, d, generator=rng)
    row = score_dictionary(found.dictionary, d, tokens, rng)
    for name, other in (("shuffled", found.shuffled), ("random", control)):
        if tokens.truth is not None:
            row[f"found_{name}"] = found_groups(other, tokens.truth, d)[0].mean().item()
            continue
        for kind in ("months", "days"):
            row[f"{kind}_{name}"] = largest_share(load_names(kind).mean(dim=1), other, d)[0]
    return row


def score_dictionary(dictionary: Dictionary, d: int, tokens: TokenData, rng: Generator) -> dict[str, Any]:
    """What one group holds of names, see `name_scores`, or which planted groups are found.

    in_order_permuted: so many neighbours in order at most, in 95 of 100 random orders of the names.
    """
    if tokens.truth is not None:
        planted = found_groups(dictionary, tokens.truth, d)[0]
        return {"found": planted.mean().item(), "found_frequent": planted[:N_FREQUENT].mean().item()}
    row: dict[str, Any] = {}
    for kind in ("months", "days"):
        points = load_names(kind).mean(dim=1)
        row |= {f"{kind}_{name}": value for name, value in name_scores(points, dictionary, d, rng).items()}
        row[f"{kind}_in_order_permuted"] = order_by_chance(points, dictionary, d, rng) if d > 1 else None
    return row


def order_by_chance(points: Tensor, dictionary: Dictionary, d: int, rng: Generator) -> float:
    """The 95 % quantile of `in_order` over random orders of the points, in the group that holds most of them."""
    inside = inside_group(points, dictionary, d, largest_share(points, dictionary, d)[1])
    counts = [in_order(inside[torch.randperm(len(points), generator=rng)]) for _ in range(N_PERMUTATIONS)]
    return float(np.quantile(counts, 0.95))


def cluster_atoms(dictionary: Dictionary, n_clusters: int, *, random_state: int) -> Tensor:
    r"""Spectral clusters of atoms on the graph of their positive cosines: a number for each atom.

    The rows of the n_clusters leading eigenvectors of D^{-1/2} C D^{-1/2}, scaled to unit length, are clustered by
    k-means (Ng, Jordan and Weiss 2001).

    Raises:
        ValueError: more clusters than atoms.
    """
    check_int("n_clusters", n_clusters, high=dictionary.shape[1])
    unit = torch.nn.functional.normalize(dictionary.double(), dim=0)
    graph = (unit.T @ unit).clamp(min=0)
    scale = graph.sum(dim=1).rsqrt()
    vectors = torch.linalg.eigh(scale.unsqueeze(1) * graph * scale).eigenvectors[:, -n_clusters:]
    rows = torch.nn.functional.normalize(vectors, dim=1).numpy()
    return torch.from_numpy(KMeans(n_clusters, n_init=1, random_state=random_state).fit_predict(rows)).long()


def cluster_subspaces(dictionary: Dictionary, codes: Tensor, labels: Tensor, d: int) -> Dictionary:
    """The d leading components of what each cluster of at least d atoms rebuilds, where it rebuilds anything.

    Raises:
        ValueError: no cluster has d atoms whose codes span d dimensions.
    """
    groups = []
    for k in range(int(labels.max()) + 1):
        atoms = dictionary[:, labels == k].double()
        own = codes[:, labels == k].double()
        own = own[(own != 0).any(dim=1)]
        if atoms.shape[1] < d or len(own) <= d:
            continue
        centred = own - own.mean(dim=0)
        left, values, _ = torch.linalg.svd(atoms @ torch.linalg.qr(centred).R.T, full_matrices=False)
        if values[d - 1] > 1e-9 * values[0]:
            groups.append(left[:, :d])
    if not groups:
        raise ValueError(f"group_size={d}: expected a cluster of at least so many atoms")
    return from_groups(torch.stack(groups)).to(dictionary.dtype)


def shuffle_atoms(dictionary: Dictionary, d: int, rng: Generator) -> Dictionary:
    """The same atoms in groups that are drawn at random, orthonormalised."""
    return orthonormalize_groups(dictionary[:, torch.randperm(dictionary.shape[1], generator=rng)], d)


def _groups(settings: BaselineSettings, tokens: TokenData, seed: int) -> Subspaces:
    model = _trained(settings, tokens, settings.group_size, "batch top-k", seed)
    weight = model.weight.detach()
    scores = score_sae(model, tokens.held_out)
    shuffled = shuffle_atoms(weight, settings.group_size, Generator().manual_seed(seed + 1))
    basis = orthonormalize_groups(weight, settings.group_size)
    return Subspaces(basis, shuffled, scores.unexplained, scores.active_dimensions)


@torch.no_grad()
def _clustered_atoms(settings: BaselineSettings, tokens: TokenData, seed: int) -> Subspaces:
    """Clusters of a TopK autoencoder's atoms, d or 24 in each on average, and clusters of the same sizes at random."""
    with torch.enable_grad():
        model = _trained(settings, tokens, 1, "group top-k", seed)
    weight, d = model.weight.detach(), settings.group_size
    each = d if settings.method == "clustered atoms" else CLUSTER
    labels = cluster_atoms(weight, max(1, weight.shape[1] // each), random_state=seed)
    rows = torch.from_numpy(np.array(tokens.train[:N_CODED], dtype=np.float32))
    codes = torch.cat([model.encode(part) for part in rows.split(2000)])
    mixed = labels[torch.randperm(len(labels), generator=Generator().manual_seed(seed + 1))]
    scores = score_sae(model, tokens.held_out)
    found, shuffled = (cluster_subspaces(weight, codes, some, d) for some in (labels, mixed))
    return Subspaces(found, shuffled, scores.unexplained, scores.active_dimensions)


def _k_subspaces(settings: BaselineSettings, tokens: TokenData, seed: int) -> Subspaces:
    """Subspaces about the mean, each state in its nearest."""
    rng, d = Generator().manual_seed(seed), settings.group_size
    rows = _some(tokens, rng)
    mean, n_groups = rows.mean(dim=0), 2 * rows.shape[1] // d
    basis = k_subspaces(rows - mean, n_groups, d, max_iter=MAX_ITERATIONS, generator=rng).dictionary
    centred = tokens.held_out - mean
    held = torch.cat(
        [(part @ basis).unflatten(1, (-1, d)).square().sum(dim=2).amax(dim=1) for part in centred.split(2000)]
    )
    left = centred.square().sum() - held.sum()
    return Subspaces(basis, shuffle_atoms(basis, d, rng), _share(left, tokens), d)


def _components(settings: BaselineSettings, tokens: TokenData, seed: int) -> Subspaces:
    """Consecutive components; what the first 32 leave."""
    rng, d = Generator().manual_seed(seed), settings.group_size
    rows = _some(tokens, rng).double()
    mean = rows.mean(dim=0)
    leading = torch.linalg.svd((rows - mean).T @ (rows - mean)).U
    centred = tokens.held_out.double() - mean
    inside = centred @ leading[:, :ACTIVE_DIMENSIONS]
    left = centred.square().sum() - inside.square().sum()
    basis = leading[:, : leading.shape[1] // d * d].float()
    return Subspaces(basis, shuffle_atoms(basis, d, rng), _share(left, tokens), ACTIVE_DIMENSIONS)


def _trained(
    settings: BaselineSettings, tokens: TokenData, d: int, activation: Literal["group top-k", "batch top-k"], seed: int
) -> GroupSAE:
    same = FeatureSettings(settings.data, activation, d, n_tokens=settings.n_tokens, n_held_out=settings.n_held_out)
    return train_features(same, tokens, seed=seed)


def _some(tokens: TokenData, rng: Generator) -> Tensor:
    """At most 20,000 states to train on, drawn without repetition."""
    chosen = torch.randperm(len(tokens.train), generator=rng)[:N_FITTED].numpy()
    return torch.from_numpy(np.array(tokens.train[chosen], dtype=np.float32))


def _share(left: Tensor, tokens: TokenData) -> float:
    """Of the variance of held-out states."""
    held_out = tokens.held_out.double()
    return (left.double() / (held_out - held_out.mean(dim=0)).square().sum()).item()
