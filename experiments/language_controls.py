"""What a featurizer of chapter 18 owes to its revival loss, to its groups and to its training: one row each.

No revival: the same training without that loss. Shuffled: the trained atoms, encoder and decoder, in groups that are
drawn at random. Random: the start, untrained. Each has its threshold set to the same activity.
"""

import copy
import dataclasses
from typing import Any

import torch
from torch import Generator

from experiments.language_features import FeatureSettings, load_tokens, new_featurizer, train_features
from experiments.language_rivals import score_dictionary
from gsae_lib.feature_scores import score_featurizer
from gsae_lib.featurizer import GroupSparseFeaturizer


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
        "shuffled": shuffle_featurizer(trained, generator=Generator().manual_seed(seed + 1)),
        "random": new_featurizer(settings, tokens, generator=rng),
    }
    rows = []
    for name, model in models.items():
        model.calibrate(tokens.train)
        scores = score_featurizer(model, tokens.held_out)
        row = {"control": name, "unexplained": scores.unexplained, "active_dimensions": scores.active_dimensions}
        row |= {"dead_groups": scores.dead_groups, "bits": scores.bits}
        order = Generator().manual_seed(seed + 1)
        rows.append(row | score_dictionary(model.weight.detach(), model.group_size, tokens, order))
    return rows


@torch.no_grad()
def shuffle_featurizer(model: GroupSparseFeaturizer, *, generator: Generator) -> GroupSparseFeaturizer:
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
