"""What `certify` says of SAEs: predictions where groups of one size are planted, and doubts about real states.

A tied SAE is the paper's shallow network up to what it does with the groups that it keeps, and `certify` asks
which these are. Planted: groups of one size, as many active in each sample, found from pairs of samples (chapter 15)
and trained; nothing of the truth is used before the comparison. States: groups trained as in `language_features`.
"""

import dataclasses
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from experiments.language.features import (
    DATA,
    FeatureSettings,
    certified_parts,
    load_tokens,
    train_features,
)
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.dictionary import Dictionary, as_groups, from_groups, polar
from gsae_lib.generative import GroupSparseSample, GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.groups import to_groups
from gsae_lib.learning import find_groups
from gsae_lib.metrics import match_groups
from gsae_lib.sae import BatchTopKSAE
from gsae_lib.theory import Certificate, Quantity, certify
from gsae_lib.training import TrainingSettings, train

FACTORS = (0.7, 0.8, 1.0, 1.2)  # of the threshold at which the mean activity is the true one


@dataclasses.dataclass(frozen=True)
class CertificateSettings:
    """A sparse autoencoder to certify.

    Args:
        data: "planted", groups of one size; "smollm2", "embedded" or "addresses", states.
        group_size: d. n_features, n_groups, n_active, snr_db: of the planted source; norms from 4 to 5.
        n_samples: to train on. n_held_out: to certify with. epochs: over the planted samples.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    data: Literal["smollm2", "planted", "embedded", "addresses"] = "planted"
    group_size: int = 2
    n_features: int = 200
    n_groups: int = 200
    n_active: int = 4
    snr_db: float = 10.0
    n_samples: int = 20_000
    n_held_out: int = 4000
    epochs: int = 5

    def __post_init__(self) -> None:
        check_choice("data", self.data, DATA)
        for name in ("group_size", "n_features", "n_groups", "n_active", "n_samples", "n_held_out", "epochs"):
            check_int(name, getattr(self, name))
        check_real("snr_db", self.snr_db, low=-300.0, high=300.0)


def run_certificate(settings: CertificateSettings, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of what was predicted and measured, one for each threshold; for states one row of assumptions.

    activity, exact: active groups a sample, and the share of samples with exactly the true support; *_predicted: what
    `certify` predicts, which knows sizes, norms and noise, and neither spans nor codes. angle: the largest principal
    angle to the truth, in radians. control: "trained", or the same atoms "shuffled" into other groups. Of both: see
    `assumptions`.

    Raises:
        ValueError: settings that do not fit each other. FileNotFoundError: states that were not extracted.
    """
    torch.set_num_threads(1)
    if settings.data != "planted":
        same = FeatureSettings(settings.data, "batch top-k", settings.group_size, n_tokens=settings.n_samples)
        tokens = load_tokens(settings.data, settings.n_samples, settings.n_held_out)
        target, weight, penalty = certified_parts(train_features(same, tokens, seed=seed), tokens.held_out)
        return [assumptions(certify(target, weight, penalty, settings.group_size), weight, settings.group_size)]
    rng = Generator().manual_seed(seed)
    sizes = (settings.n_features, settings.n_groups, settings.group_size)
    truth = orthonormal_groups_dictionary(*sizes, generator=rng)
    source = GroupSparseSource(truth, settings.group_size, settings.n_active, snr_db=settings.snr_db)
    model = train_planted(source, settings, generator=rng)
    sample = source.sample(settings.n_held_out, generator=rng)
    scaled = GroupSparseSample(sample.data / model.scale, sample.codes / model.scale, sample.support)
    weight, threshold = model.weight.detach(), float(model.thresholds().mean())
    shuffled = weight[:, torch.randperm(weight.shape[1], generator=rng)]
    rows = []
    for control, dictionary, factors in (("trained", weight, FACTORS), ("shuffled", shuffled, (1.0,))):
        ordered, turned, own_truth = align_truth(dictionary, scaled, truth, settings.group_size)
        for factor in factors:
            penalty = factor * threshold
            found = certify(turned, ordered, penalty, settings.group_size, true_dictionary=own_truth)
            row = {"control": control, "factor": factor, "angle": found[Quantity.LARGEST_ANGLE].value}
            for name, quantity in (("activity", Quantity.ACTIVITY), ("exact", Quantity.EXACT_SUPPORTS)):
                fact = found[quantity]
                row |= {name: fact.value, f"{name}_predicted": fact.reference, f"{name}_holds": fact.holds}
            rows.append(row | assumptions(found, ordered, settings.group_size))
    return rows


def train_planted(source: GroupSparseSource, settings: CertificateSettings, *, generator: Generator) -> BatchTopKSAE:
    """Groups found from pairs of samples, missing ones drawn, then trained: tied, no bias, batch top-k, unit columns.

    Raises:
        ValueError: as `find_groups`.
    """
    data = source.sample(settings.n_samples, generator=generator).data
    n, count, d = settings.n_features, settings.n_groups, settings.group_size
    start = find_groups(data, count, d, generator=generator).dictionary
    missing = count - start.shape[1] // d
    if missing:
        start = torch.cat([start, orthonormal_groups_dictionary(n, missing, d, generator=generator)], dim=1)
    model = BatchTopKSAE(
        n, count, d, n_active=settings.n_active, tied=True, bias=False, dead_after=10_000, dictionary=start
    )
    model.prepare(data)
    plan = TrainingSettings(epochs=settings.epochs, batch_size=500, learning_rate=1e-3, progress=False)
    train(model, data, plan, generator=generator)
    model.calibrate(data)
    return model


def align_truth(
    dictionary: Dictionary, sample: GroupSparseSample, truth: Dictionary, d: int
) -> tuple[Dictionary, GroupSparseSample, Dictionary]:
    r"""Order learned groups as the true ones, and turn the latter within themselves, which changes no sample.

    .. math:: A_g \to A_g R_g, \quad x_g \to R_g^T x_g, \qquad R_g = \operatorname{polar}(A_g^T W_g)
    """
    ordered, _ = match_groups(dictionary, truth, d)
    groups = as_groups(truth, d)
    turns = torch.stack([polar(one) for one in groups.mT @ as_groups(ordered, d)])
    codes = torch.einsum("sgd,gde->sge", to_groups(sample.codes, d), turns).flatten(1)
    turned: Tensor = from_groups(groups @ turns)
    return ordered, GroupSparseSample(sample.data, codes, sample.support), turned


def assumptions(found: Certificate, dictionary: Dictionary, d: int) -> dict[str, Any]:
    """What a certificate says of assumptions without a truth.

    mixed: share of groups with active codes that are less isotropic than by chance. isotropic: whether the worst of
    them is within chance. doubled: share of groups whose span an earlier one has. nearest_spans: cosine.
    """
    count = dictionary.shape[1] // d
    known = {fact.quantity for fact in found.facts}
    told = Quantity.MIXED_GROUPS in known
    return {
        "mixed": found[Quantity.MIXED_GROUPS].value / count if told else None,
        "isotropic": found[Quantity.ANISOTROPY].holds if told else None,
        "doubled": found[Quantity.DOUBLED_GROUPS].value / count,
        "nearest_spans": found[Quantity.NEAREST_SPANS].value,
    }
