"""Training of layers one after the other."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from gsae_lib._checks import check_choice, without_autocast
from gsae_lib.networks.layered import LayeredAutoencoder
from gsae_lib.training.loop import Callback, History, TrainingSettings, train


@without_autocast
def train_layers(
    model: LayeredAutoencoder,
    data: Tensor | np.ndarray,
    settings: TrainingSettings | Sequence[TrainingSettings],
    *,
    generator: Generator,
    callbacks: Sequence[Callback] = (),
) -> tuple[History, ...]:
    """Train the layers of groups of groups one after the other, each as `train` does, on what the one below passes up.

    Each layer sees its own loss alone. Settings may be one for all layers, or one for each. Callbacks are called as
    callback(epoch, layer).

    Returns:
        a history for each layer.

    Raises:
        ValueError: a stack of dictionaries, whose layers are coded together; another number of settings than of
            layers; or as `train`.
        TrainingError: as `train`.
    """
    check_choice("model.passed", model.passed, ("norms",))
    layers = model.all_layers
    plans = [settings] * len(layers) if isinstance(settings, TrainingSettings) else list(settings)
    if len(plans) != len(layers):
        raise ValueError(f"settings: expected one, or one for each of {len(layers)} layers, got {len(plans)}")
    histories, inputs = [], torch.as_tensor(data)
    for index, (layer, plan) in enumerate(zip(layers, plans, strict=True)):
        inputs = inputs.to(plan.device, layer.weight.dtype)
        histories.append(train(layer, inputs, plan, generator=generator, callbacks=callbacks))
        with torch.no_grad():
            inputs = model.pass_up(layer.encode(inputs), index)
    return tuple(histories)
