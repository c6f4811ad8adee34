"""What an SAE of chapter 18 owes to its revival loss, to its groups and to its training: one row each.

No revival: the same training without that loss. Shuffled: the trained atoms, encoder and decoder, in groups that are
drawn at random. Random: the start, untrained. Each has its threshold set to the same activity. And a positive control
of the chapter's score: a circle of the months' size that was planted into the states.
"""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from experiments.language.baselines import score_dictionary, shuffle_atoms
from experiments.language.features import (
    FeatureSettings,
    TokenData,
    circle_scores,
    largest_share,
    load_names,
    load_tokens,
    new_sae,
    train_features,
)
from experiments.language.tables import first_harmonic
from gsae_lib._checks import check_int, check_real
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.sae import GroupSAE, score_sae

N_POINTS, N_SENTENCES = 12, 8  # of a planted circle, as of the months


def run_controls(settings: FeatureSettings, *, seed: int = 0) -> list[dict[str, Any]]:
    """Train with revival and without, and score both, the first one's atoms shuffled, and its start.

    Raises:
        ValueError: settings that do not fit the data. FileNotFoundError: states that were not extracted.
    """
    torch.set_num_threads(1)
    tokens = load_tokens(settings.data, settings.n_tokens, settings.n_held_out)
    rng = Generator().manual_seed(seed)
    trained = train_features(settings, tokens, seed=seed)
    models = {
        "trained": trained,
        "no revival": train_features(dataclasses.replace(settings, revival=0.0), tokens, seed=seed),
        "shuffled": shuffle_sae(trained, generator=Generator().manual_seed(seed + 1)),
        "random": new_sae(settings, tokens, generator=rng),
    }
    rows = []
    for name, model in models.items():
        model.calibrate(tokens.train)
        scores = score_sae(model, tokens.held_out)
        row = {"control": name, "unexplained": scores.unexplained, "active_dimensions": scores.active_dimensions}
        row |= {"dead_groups": scores.dead_groups, "bits": scores.bits}
        order = Generator().manual_seed(seed + 1)
        rows.append(row | score_dictionary(model.weight.detach(), model.group_size, tokens, order))
    return rows


@torch.no_grad()
def shuffle_sae(model: GroupSAE, *, generator: Generator) -> GroupSAE:
    """The same atoms, with their encoder and bias, in other groups; one threshold where there are several."""
    shuffled = copy.deepcopy(model)
    order = torch.randperm(model.weight.shape[1], generator=generator)
    shuffled.weight.copy_(model.weight[:, order])
    if shuffled.encoder_weight is not None and model.encoder_weight is not None:
        shuffled.encoder_weight.copy_(model.encoder_weight[:, order])
    if shuffled.encoder_bias is not None and model.encoder_bias is not None:
        shuffled.encoder_bias.copy_(model.encoder_bias[order])
    if hasattr(shuffled, "log_threshold"):
        shuffled.log_threshold.fill_(float(model.log_threshold.mean()))
    return shuffled


def run_circle(
    settings: FeatureSettings, *, frequency: float = 0.02, size: float = 1.0, n_seeds: int = 3
) -> list[dict[str, Any]]:
    """Plant a circle into the states, train, and score what one group holds of it as of the months: a row a seed.

    The seed draws the plane, which states have a point of the circle, and the training. shuffled, random: the most that
    a group of the same atoms shuffled, and of a random dictionary, holds.

    Args:
        frequency: share of the states that have a point of the circle. size: its radius over that of the months.

    Raises:
        ValueError: settings that do not fit the data, or a number that is not allowed. FileNotFoundError: states that
            were not extracted.
    """
    torch.set_num_threads(1)
    check_int("n_seeds", n_seeds)
    tokens, d = load_tokens(settings.data, settings.n_tokens, settings.n_held_out), settings.group_size
    radius = check_real("size", size, strict=True) * circle_radius(load_names("months").mean(dim=1))
    rows = []
    for seed in range(n_seeds):
        rng = Generator().manual_seed(seed)
        points = draw_circle(tokens.held_out.shape[1], radius, generator=rng)
        planted = plant_points(tokens, points, frequency, generator=rng)
        model = train_features(settings, planted, seed=seed)
        scores, weight = score_sae(model, planted.held_out), model.weight.detach()
        row = {"training_seed": seed, "unexplained": scores.unexplained, "dead_groups": scores.dead_groups}
        states = points.unsqueeze(1) + tokens.held_out[:N_SENTENCES]
        row |= circle_scores(model, states, rng)
        control = orthonormal_groups_dictionary(len(weight), model.n_groups, d, generator=rng)
        for name, other in (("shuffled", shuffle_atoms(weight, d, rng)), ("random", control)):
            row[name] = largest_share(points, other, d)[0]
        rows.append(row)
    return rows


def circle_radius(points: Tensor) -> float:
    """The radius of the circle that has the first harmonic of points in their order."""
    variance = (points - points.mean(dim=0)).double().square().sum(dim=1).mean().item()
    return math.sqrt(first_harmonic(points) * variance)


def draw_circle(n_features: int, radius: float, *, generator: Generator) -> Tensor:
    """Points at equal distances on a circle about zero, in a random plane: (points, n_features)."""
    plane = orthonormal_groups_dictionary(n_features, 1, 2, generator=generator)
    angles = 2 * math.pi * torch.arange(N_POINTS) / N_POINTS
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1) @ plane.T


def plant_points(tokens: TokenData, points: Tensor, frequency: float, *, generator: Generator) -> TokenData:
    """The tokens, to each of which, with the probability `frequency`, one of the points was added.

    Raises:
        ValueError: a frequency that is not above 0 and at most 1.
    """
    check_real("frequency", frequency, strict=True, high=1.0)

    def added(count: int) -> tuple[Tensor, Tensor]:
        chosen = (torch.rand(count, generator=generator) < frequency).nonzero().flatten()
        return chosen, points[torch.randint(len(points), chosen.shape, generator=generator)]

    train, held_out = np.array(tokens.train), tokens.held_out.clone()
    chosen, rows = added(len(train))
    train[chosen.numpy()] += rows.numpy().astype(train.dtype)
    chosen, rows = added(len(held_out))
    held_out[chosen] += rows
    return TokenData(train, held_out)
