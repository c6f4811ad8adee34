"""Pictures of dots, one after the other, for pages that play them: a training, and pairs of samples."""

import dataclasses

import numpy as np
import torch
from torch import Generator

from experiments.recovery.recovery import RecoverySettings
from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, train
from gsae_lib._checks import check_int
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import GroupSparseSample, gaussian_dictionary
from gsae_lib.groups import group_norms
from gsae_lib.metrics import principal_angles

FOUND = 15.0  # degrees between spans that count as one
PAIR_KINDS = ("a group of neither", "a group of one of them", "one group of each", "the group they share")


@dataclasses.dataclass(frozen=True)
class Watched:
    """points: of each picture (dots, 3), x, y and kind; names and notes: a text each."""

    points: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def watch_training(settings: RecoverySettings, *, n_pictures: int = 40, seed: int) -> Watched:
    """A training from next to the truth: a dot for each group, how far off it is, and how often it is found.

    x: largest principal angle to the true group, degrees. y: of fresh samples with the group, the share in which it is
    active. Kinds: 0 within FOUND degrees, 1 not.

    Raises:
        ValueError: settings that are not group-sparse and near, or sizes that do not fit each other.
    """
    if (settings.network, settings.start) != ("group-sparse", "near"):
        raise ValueError(f"settings: expected group-sparse and near, got {settings.network} and {settings.start}")
    check_int("n_pictures", n_pictures, low=2)
    rng = Generator().manual_seed(seed)
    sizes = (settings.n_features, settings.n_groups, settings.group_size)
    truth = gaussian_dictionary(*sizes, generator=rng)
    source = GroupSparseSource(truth, settings.group_size, settings.n_active, snr_db=settings.snr_db)
    start = perturbed_dictionary(truth, settings.start_correlation, generator=rng)
    model = GroupSparseAutoencoder(*sizes, settings.penalty, step_size=1.0, dictionary=start)
    fresh = source.sample(settings.n_samples, generator=rng)
    watched = np.unique(np.linspace(0, settings.epochs, n_pictures).round().astype(int)).tolist()
    points, notes = [], []

    def watch(epoch: int, model: GroupSparseAutoencoder) -> dict[str, float]:
        if epoch in watched:
            weight = model.weight.detach()
            angles = torch.rad2deg(principal_angles(weight, truth, settings.group_size).amax(dim=1))
            active = group_norms(model.encode(fresh.data), settings.group_size) > 0
            recall = (active & fresh.support).sum(dim=0) / fresh.support.sum(dim=0).clamp(min=1)
            points.append(torch.stack([angles, recall, (angles >= FOUND).to(angles)], dim=1).double().numpy())
            exact = (active == fresh.support).all(dim=1).double().mean()
            found = int((angles < FOUND).sum())
            told = f"Epoch {epoch}: {found} of {len(angles)} groups within {FOUND:g} degrees of the truth"
            notes.append(f"{told}; the support is exactly right in {exact:.2f} of fresh samples.")
        return {}

    with torch.no_grad():
        watch(0, model)
    plan = TrainingSettings(epochs=settings.epochs, learning_rate=settings.learning_rate, progress=False)
    train(model, source.stream(settings.n_samples, generator=rng), plan, generator=rng, callbacks=[watch])
    return Watched(tuple(points), tuple(str(epoch) for epoch in watched), tuple(notes))


def watch_pairs(sample: GroupSparseSample, *, n_pairs: int = 12, n_shown: int = 400, n_largest: int = 20) -> Watched:
    """Pairs of samples: a dot for each other sample, its inner products with the two, and what it has of their groups.

    The first sample is the same in all pairs; every fourth pair shares no group, the others exactly one. Kinds:
    PAIR_KINDS. Of samples that have no shared group at most n_shown are dots; the note counts all.

    Raises:
        ValueError: no sample that shares one group with the first.
    """
    data, support = sample.data, sample.support
    common = (support[:1] & support[1:]).sum(dim=1)
    one, none = (1 + (common == count).nonzero().squeeze(1) for count in (1, 0))
    if not len(one) or not len(none):
        raise ValueError("sample: expected samples that share one group with the first, and samples that share none")
    partners = [int((none if k % 4 == 3 else one)[k % len(none if k % 4 == 3 else one)]) for k in range(n_pairs)]
    found = [_pair(data, support, partner, n_shown, n_largest) for partner in partners]
    names = tuple(f"0 and {partner}" for partner in partners)
    return Watched(tuple(points for points, _ in found), names, tuple(note for _, note in found))


def _pair(
    data: torch.Tensor, support: torch.Tensor, partner: int, n_shown: int, n_largest: int
) -> tuple[np.ndarray, str]:
    products = [(data @ data[i]).abs() for i in (0, partner)]
    shared = support[0] & support[partner]
    has = (support & shared).any(dim=1)
    mine, theirs = ((support & support[i] & ~shared).any(dim=1) for i in (0, partner))
    kind = torch.where(has, 3, torch.where(mine & theirs, 2, torch.where(mine ^ theirs, 1, 0)))
    others = torch.ones(len(data), dtype=torch.bool)
    others[[0, partner]] = False
    rows = others.nonzero().squeeze(1)
    largest = rows[(products[0] * products[1])[rows].argsort(descending=True)[:n_largest]]
    shown = torch.cat([rows[kind[rows] == 3], rows[kind[rows] != 3][:n_shown]])
    points = torch.stack([products[0][shown], products[1][shown], kind[shown].to(data)], dim=1).double().numpy()
    told = f"Of the {len(largest)} other samples with the largest product"
    if not shared.any():
        return points, f"Samples 0 and {partner} share no group. {told}, none can tell of one."
    right = int(has[largest].sum())
    return points, f"Samples 0 and {partner} share one group. {told}, {right} have it."
