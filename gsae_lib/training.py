"""Training: minimise the mean squared reconstruction error over arrays, mini-batches or endless streams."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm.auto import trange

from gsae_lib._checks import check_choice, check_device, check_int, check_matrix, check_real, describe
from gsae_lib.autoencoder import GroupSparseAutoencoder, SparseAutoencoder
from gsae_lib.dictionary import Dictionary, normalize_columns, orthonormalize_groups
from gsae_lib.generative import GroupSparseSample
from gsae_lib.groups import active_groups, group_norms
from gsae_lib.metrics import dictionary_error, match_groups, principal_angles, rotated_dictionary_error
from gsae_lib.structured import shallow_gradient
from gsae_lib.unfolded import tied_gradient

# Below this share of active (sample, group) pairs the structured gradient is faster: they cross between 0.19 and 0.34,
# depending on the processor, in benchmarks/structured_step.py.
STRUCTURED_SHARE = 0.15

Callback = Callable[[int, GroupSparseAutoencoder], Mapping[str, float] | None]


class TrainingError(RuntimeError):
    """Training cannot go on: the loss is not finite, or no group is active in any sample."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Args:
        epochs: passes over the data (streams: blocks of `steps_per_epoch` batches).
        learning_rate: of the optimizer.
        batch_size: samples a step, in a fresh random order each epoch; None for the full batch.
        optimizer: "adam", or "sgd" for the plain gradient descent of the paper's theory (eq. 14).
        normalize: after each step, scale the encoder's columns to unit norm ("columns"), make its groups
            orthonormal ("groups"), or leave it (None).
        steps_per_epoch: batches an epoch when the data are a stream.
        device: where to train, for example "cpu" or "cuda"; the model is moved there.
        progress: show a progress bar.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    normalize: Literal["columns", "groups"] | None = None
    steps_per_epoch: int = 1
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        check_int("epochs", self.epochs)
        check_real("learning_rate", self.learning_rate, strict=True)
        if self.batch_size is not None:
            check_int("batch_size", self.batch_size)
        check_choice("optimizer", self.optimizer, ("adam", "sgd"))
        check_choice("normalize", self.normalize, (None, "columns", "groups"))
        check_device(self.device)
        check_int("steps_per_epoch", self.steps_per_epoch)


@dataclasses.dataclass(frozen=True)
class History:
    """What training did: one value an epoch in each curve.

    curves["loss"] is the mean of 1/2 ||y - y_hat||^2 over the epoch's samples, each taken before its step;
    curves["active_groups"] the mean number of active groups a sample; further curves come from callbacks.
    """

    curves: Mapping[str, tuple[float, ...]]
    seconds: float

    @property
    def loss(self) -> tuple[float, ...]:
        """The loss, in squared units of the data, one value an epoch."""
        return self.curves["loss"]


@dataclasses.dataclass(frozen=True)
class DictionaryErrors:
    """The three errors of a dictionary side by side, as a callback for `train`: each per group.

    columns: the paper's error, `dictionary_error`; rotated: `rotated_dictionary_error`; angles: the sum of squared
    principal angles. Calling it as errors(epoch, model) measures model.weight against `true_dictionary`, after every
    `every` epochs; "measured_epoch" says after which. `match` orders the learned groups first, as `match_groups`, for a
    start that does not know the truth.
    """

    true_dictionary: Dictionary
    group_size: int
    every: int = 1
    match: bool = False

    def __call__(self, epoch: int, model: GroupSparseAutoencoder) -> dict[str, float]:
        """The errors by name, each divided by the number of groups; nothing between measurements."""
        if epoch % self.every:
            return {}
        dictionary, count = (
            model.weight.detach().to(self.true_dictionary),
            self.true_dictionary.shape[1] // self.group_size,
        )
        if self.match:
            dictionary, _ = match_groups(dictionary, self.true_dictionary, self.group_size)
        return {
            "measured_epoch": epoch,
            "columns": dictionary_error(dictionary, self.true_dictionary) / count,
            "rotated": rotated_dictionary_error(dictionary, self.true_dictionary, self.group_size) / count,
            "angles": principal_angles(dictionary, self.true_dictionary, self.group_size).square().sum().item() / count,
        }


def train(
    model: GroupSparseAutoencoder,
    data: Tensor | np.ndarray | Iterator[GroupSparseSample | Tensor],
    settings: TrainingSettings,
    *,
    generator: Generator,
    callbacks: Sequence[Callback] = (),
) -> History:
    r"""Train `model` in place on the reconstruction error (eq. 13).

    Tied networks use `unfolded.tied_gradient`, and shallow ones `structured.shallow_gradient` while few groups are
    active: the gradient of automatic differentiation at a fraction of its cost.

    .. math:: L(W) = \frac{1}{2N} \sum_{i=1}^N \|y_i - \hat y_i\|_2^2

    Args:
        model: any autoencoder of this library.
        data: (samples, features), or an iterator of batches (`GroupSparseSource.stream`), for which
            `settings.steps_per_epoch` batches make an epoch and `settings.batch_size` is not used.
        settings: see `TrainingSettings`.
        generator: order of the mini-batches.
        callbacks: called after each epoch as callback(epoch, model), epoch counting from 1, without
            gradients; a mapping that one returns adds a value to each curve it names. The model is on
            `settings.device` then, so what a callback compares it with must be brought there.

    Raises:
        ValueError: data that do not fit the model, before training starts; a stream that ends too early.
        TrainingError: a non-finite loss, or an epoch in which no group is active in any sample.
    """
    model.to(settings.device)
    parameters = list(model.parameters())
    optimizers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = optimizers[settings.optimizer](parameters, lr=settings.learning_rate)
    if isinstance(data, Tensor | np.ndarray):
        data = torch.as_tensor(data).to(settings.device, model.weight.dtype)
        check_matrix("data", data, columns=model.n_features)
        if not len(data):
            raise ValueError(f"data: expected at least one sample, got {describe(data)}")
    elif not isinstance(data, Iterator):
        raise ValueError(f"data: expected a tensor, an array or an iterator of batches, got {describe(data)}")
    curves: dict[str, list[float]] = {"loss": [], "active_groups": []}
    shallow = structured = _is_shallow(model)
    dense_gradient = _tied_gradient if _is_tied(model) else _autograd_gradient
    start = time.perf_counter()
    epochs = trange(1, settings.epochs + 1, desc="training", unit="epoch", disable=not settings.progress)
    for epoch in epochs:
        samples = 0
        total: float | Tensor = 0
        active: float | Tensor = 0
        for batch in _batches(data, settings, generator):
            batch = batch.to(settings.device, model.weight.dtype)
            optimizer.zero_grad(set_to_none=True)
            loss, pairs = (_structured_gradient if structured else dense_gradient)(model, batch)
            optimizer.step()
            _normalize(model, settings.normalize)
            samples += len(batch)
            total += loss * len(batch)
            active = active + pairs  # not in place: a count of one path, a mean of the other
            if shallow:
                structured = bool(pairs < STRUCTURED_SHARE * len(batch) * model.n_groups)
        mean_loss, mean_active = float(total) / samples, float(active) / samples
        if not np.isfinite(mean_loss):
            raise TrainingError(_explain_divergence(epoch, settings))
        if mean_active == 0:
            raise TrainingError(_explain_inactivity(epoch, model, batch))
        curves["loss"].append(mean_loss)
        curves["active_groups"].append(mean_active)
        epochs.set_postfix(loss=f"{mean_loss:.4g}", active=f"{mean_active:.3g}", refresh=False)
        with torch.no_grad():
            for callback in callbacks:
                for name, value in (callback(epoch, model) or {}).items():
                    curves.setdefault(name, []).append(float(value))
    seconds = time.perf_counter() - start
    return History({name: tuple(values) for name, values in curves.items()}, seconds)


def _batches(
    data: Tensor | Iterator[GroupSparseSample | Tensor], settings: TrainingSettings, generator: Generator
) -> Iterator[Tensor]:
    """The batches of one epoch."""
    if not isinstance(data, Tensor):
        for step in range(settings.steps_per_epoch):
            batch = next(data, None)
            if batch is None:
                raise ValueError(f"data: the stream ended; expected {settings.steps_per_epoch - step} more batches")
            yield batch.data if isinstance(batch, GroupSparseSample) else batch
    elif settings.batch_size is None or settings.batch_size >= len(data):
        yield data
    else:
        order = torch.randperm(len(data), generator=generator, device=generator.device).to(data.device)
        for chosen in order.split(settings.batch_size):
            yield data[chosen]


def _is_shallow(model: GroupSparseAutoencoder) -> bool:
    """Whether `shallow_gradient` computes this model's gradient."""
    plain = model.n_iterations == 1 and model.step_size == 1.0 and model.elementwise_penalty == 0
    plain = plain and model.weight.dtype in (torch.float32, torch.float64)  # sparse products take no other
    return plain and _is_tied(model) and model.penalty.ndim == 0 and bool(model.penalty > 0)


def _is_tied(model: GroupSparseAutoencoder) -> bool:
    """Whether `tied_gradient` computes this model's gradient."""
    known = type(model) in (GroupSparseAutoencoder, SparseAutoencoder)
    return known and model.gradient == "unrolled" and model.decoder_weight is None


def _structured_gradient(model: GroupSparseAutoencoder, batch: Tensor) -> tuple[float, float]:
    """Put the gradient at `batch` into the weight; the loss, and the number of active (sample, group) pairs."""
    penalty, size = model.penalty.item(), model.group_size
    found = shallow_gradient(batch, model.weight, penalty, size, nonnegative=model.nonnegative)
    model.weight.grad = found.gradient
    return found.loss, found.active_groups * len(batch)


def _tied_gradient(model: GroupSparseAutoencoder, batch: Tensor) -> tuple[float, Tensor]:
    """The same for any number of iterations and any activity."""
    loss, model.weight.grad, pairs = tied_gradient(batch, model.weight, model.unfolding())
    return loss, pairs


def _autograd_gradient(model: GroupSparseAutoencoder, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The same for any model, by automatic differentiation."""
    reconstruction, codes = model(batch)
    loss = 0.5 * (batch - reconstruction).square().sum(dim=1).mean()
    loss.backward()
    return loss.detach(), active_groups(codes.detach(), model.group_size).sum()


@torch.no_grad()
def _normalize(model: GroupSparseAutoencoder, how: str | None) -> None:
    if how is None or not bool(model.weight.isfinite().all()):
        return
    if how == "columns":
        model.weight.copy_(normalize_columns(model.weight))
    else:
        model.weight.copy_(orthonormalize_groups(model.weight, model.group_size))


def _explain_divergence(epoch: int, settings: TrainingSettings) -> str:
    return (
        f"epoch {epoch}: the loss is not finite; lower learning_rate (now {settings.learning_rate:g}) "
        "or step_size, or check the scale of the data"
    )


@torch.no_grad()
def _explain_inactivity(epoch: int, model: GroupSparseAutoencoder, batch: Tensor) -> str:
    largest = group_norms(batch @ model.weight, model.group_size).max().item()
    return (
        f"epoch {epoch}: no group is active in any sample; lower penalty "
        f"(now up to {model.penalty.max().item():g}) below the largest group norm of W^T y, {largest:.4g}"
    )
