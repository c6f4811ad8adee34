"""Training: minimise the mean squared reconstruction error over arrays, mini-batches or endless streams."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor, nn
from tqdm.auto import tqdm

from gsae_lib._checks import (
    check_choice,
    check_device,
    check_int,
    check_matrix,
    check_real,
    describe,
    without_autocast,
)
from gsae_lib.dictionary import Dictionary
from gsae_lib.generative import GroupSparseSample
from gsae_lib.groups import Groups, group_layout, to_groups
from gsae_lib.metrics import dictionary_error, match_groups, principal_angles, rotated_dictionary_error
from gsae_lib.training._batches import ArrayBatches, StreamBatches
from gsae_lib.training._processes import Processes
from gsae_lib.training.checkpoints import Checkpoint, CheckpointFile, Progress, identify_run

# Below this share of active (sample, group) pairs the structured gradient is faster. It crosses the other at 0.45 on an
# EPYC, where products in MKL take twice as long as they could, and earlier elsewhere (benchmarks/structured_step.py).
STRUCTURED_SHARE = 0.15

Callback = Callable[[int, Any], Mapping[str, float] | None]


@runtime_checkable
class Trainable(Protocol):
    """What `train` asks of a model, which is an nn.Module too. All autoencoders of this library are so.

    weight: (features, atoms), which data must fit: its number of rows, its dtype and its device. n_groups: of which a
    sample activates some. several_processes: whether processes, each with a part of a batch, can train it together,
    which asks that the gradient of a batch is the mean over its samples.
    """

    if TYPE_CHECKING:  # isinstance does not see the parameters of an nn.Module
        several_processes: ClassVar[bool]

        @property
        def weight(self) -> Tensor: ...

        @property
        def n_groups(self) -> int: ...

    def training_step(self, batch: Tensor, *, few_active: bool) -> tuple[float | Tensor, float | Tensor]:
        """Put the gradient of the batch's mean loss into the parameters.

        Args:
            batch: (samples, features), at least one sample.
            few_active: whether few groups were active at the last step, or there was none: a gradient of active groups
                alone is cheaper then.

        Returns:
            the loss, and the number of active (sample, group) pairs.
        """

    def after_step(self, normalize: str | None) -> None:
        """Restore what must hold after the optimiser's step, and what `TrainingSettings.normalize` asks."""

    def explain_inactivity(self, batch: Tensor) -> str:
        """What is wrong where no group is active in any sample of an epoch, and what to do."""


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

    curves["loss"] is the mean of 1/2 ||y - y_hat||^2 over the epoch's samples, each taken before its step, or of the
    loss of an SAE;
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
    groups: Groups
    every: int = 1
    match: bool = False

    def __post_init__(self) -> None:
        to_groups(check_matrix("true_dictionary", self.true_dictionary), self.groups)
        check_int("every", self.every)

    def __call__(self, epoch: int, model: Trainable) -> dict[str, float]:
        """The errors by name, each divided by the number of groups; nothing between measurements."""
        if epoch % self.every:
            return {}
        dictionary = model.weight.detach().to(self.true_dictionary)
        count = group_layout(self.groups).count(dictionary.shape[1])
        if self.match:
            dictionary, _ = match_groups(dictionary, self.true_dictionary, self.groups)
        return {
            "measured_epoch": epoch,
            "columns": dictionary_error(dictionary, self.true_dictionary) / count,
            "rotated": rotated_dictionary_error(dictionary, self.true_dictionary, self.groups) / count,
            "angles": principal_angles(dictionary, self.true_dictionary, self.groups).square().sum().item() / count,
        }


@without_autocast
def train(
    model: Trainable,
    data: Tensor | np.ndarray | Iterator[GroupSparseSample | Tensor],
    settings: TrainingSettings,
    *,
    generator: Generator,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | Checkpoint | None = None,
) -> History:
    r"""Train `model` in place, the networks on the reconstruction error (eq. 13), an SAE on its own loss.

    .. math:: L(W) = \frac{1}{2N} \sum_{i=1}^N \|y_i - \hat y_i\|_2^2

    Tied networks use `tied_gradient`, and shallow ones `shallow_gradient` while few groups are active: the gradient of
    automatic differentiation at a fraction of its cost. The first steps of the latter measure whether screening in
    bfloat16 pays here; the result does not depend on it.

    It runs in the precision of the model, within torch.autocast too, as all fits and certificates of this library do.

    With a checkpoint, a call goes on where an earlier one with the same arguments was ended, whatever ended it. On one
    thread of a CPU it then gives the weights and curves, bit by bit, that a call without interruption gives, and a call
    after the last epoch returns them at once. More epochs than before go on, too.

    Arguments are the same if these are equal: the settings (but epochs, device and progress), the kind of model, the
    number of callbacks, the state of the generator, shape and dtype of the data; and these up to rounding: the penalty,
    the starting weights, 1,000 rows of the data. A stream is told by its last batch. It goes on at once if its batches
    follow from `generator` alone, as those of `GroupSparseSource.stream` do. Any other has to start anew: the batches
    that were used are taken and dropped. What callbacks keep to themselves is not kept.

    Where torch.distributed is initialised, processes train together. Each calls `train` with the same arguments, takes
    its part of each batch, and adds up gradients with the others, so that all end with the weights and curves of one
    process, within the rounding of sums. Each draws all of a stream; callbacks run in each; process 0 writes the
    checkpoint, which all must see. If a process ends, the others raise an error, after the timeout of
    `init_process_group` at the latest.

    Args:
        model: any autoencoder of this library, or an nn.Module of your own that is `Trainable`. All layers of a
            `LayeredAutoencoder` are trained together, on the reconstruction from its top.
        data: (samples, features), or an iterator of batches (`GroupSparseSource.stream`), for which
            `settings.steps_per_epoch` batches make an epoch and `settings.batch_size` is not used. An array is brought
            to the model's device and precision at once; a numpy memory map (`np.load(path, mmap_mode="r")`) a batch at
            a time, whatever its dtype, so that it may be larger than memory. That then holds 8 bytes a sample, for
            their order, and one batch.
        settings: see `TrainingSettings`.
        generator: order of the mini-batches.
        callbacks: called after each epoch as callback(epoch, model), epoch counting from 1, without
            gradients; a mapping that one returns adds a value to each curve it names. The model is on
            `settings.device` then, so what a callback compares it with must be brought there.
        checkpoint: a file to write each minute and at the end, or a `Checkpoint`, which says when.

    Raises:
        ValueError: before training starts: a model that is not trainable; data that do not fit it; callbacks that are
            no functions; an SAE in several processes; a checkpoint that cannot be written, that is damaged, no
            checkpoint, or one of other arguments; processes whose arguments differ. A stream that ends too early, or
            whose batches do not fit.
        TrainingError: a non-finite loss, or an epoch in which no group is active in any sample.
        OSError: a checkpoint that can no longer be written; the last one is still there.
    """
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ValueError(f"callbacks={callbacks!r}: expected a sequence of functions")
    if not isinstance(model, nn.Module) or not isinstance(model, Trainable):
        raise ValueError(f"model: expected an nn.Module that is Trainable, got {describe(model)}")
    processes = Processes()
    if processes.count > 1 and not model.several_processes:
        raise ValueError(f"model: expected one process for a {type(model).__name__}, got {processes.count}")
    model.to(settings.device)
    optimizers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = optimizers[settings.optimizer](model.parameters(), lr=settings.learning_rate)
    batches: ArrayBatches | StreamBatches
    if isinstance(data, Tensor | np.ndarray):
        batches = ArrayBatches(data, model.weight, settings.batch_size, generator, processes.part)
    else:
        batches = StreamBatches(data, model.weight, settings.steps_per_epoch, generator, processes.part)
    progress, file, run = Progress(structured=True), None, {}
    if checkpoint is not None or processes.count > 1:
        run = identify_run(model, generator, batches, _compared(settings) | {"callbacks": len(callbacks)})
    if checkpoint is not None:
        file = CheckpointFile(
            Checkpoint.of(checkpoint), model, optimizer, generator, batches, run, writes=processes.rank == 0
        )
    with file or contextlib.nullcontext():
        if file:
            progress = file.resume(progress, settings.epochs)
        processes.agree(run | {"epochs": progress.epochs, "steps": progress.steps}, model, model.weight.device)
        clock = time.perf_counter() - progress.seconds
        epochs = tqdm(
            range(progress.epochs + 1, settings.epochs + 1),
            desc="training",
            unit="epoch",
            initial=progress.epochs,
            total=settings.epochs,
            disable=not settings.progress or processes.rank > 0,
        )
        for epoch in epochs:
            for batch, n_samples in batches.epoch(progress.steps):
                optimizer.zero_grad(set_to_none=True)
                loss: float | Tensor = 0.0
                pairs: float | Tensor = 0.0
                if len(batch):  # of several processes some may have no sample
                    loss, pairs = model.training_step(batch, few_active=progress.structured)
                loss, pairs = processes.add(model, loss, pairs, len(batch), n_samples)
                optimizer.step()
                model.after_step(settings.normalize)
                progress.steps += 1
                progress.samples += n_samples
                progress.loss += float(loss) * n_samples
                progress.active += float(pairs)
                progress.structured = bool(pairs < STRUCTURED_SHARE * n_samples * model.n_groups)
                if file and progress.steps < len(batches):
                    progress.seconds = time.perf_counter() - clock
                    file.save_if_due(progress)
            mean_loss, mean_active = progress.loss / progress.samples, progress.active / progress.samples
            if not np.isfinite(mean_loss):
                raise TrainingError(_explain_divergence(epoch, settings, batch))
            if mean_active == 0:
                raise TrainingError(f"epoch {epoch}: {model.explain_inactivity(batch)}")
            progress.add({"loss": mean_loss, "active_groups": mean_active})
            epochs.set_postfix(loss=f"{mean_loss:.4g}", active=f"{mean_active:.3g}", refresh=False)
            with torch.no_grad():
                for callback in callbacks:
                    progress.add(callback(epoch, model) or {})
            progress.end_epoch(time.perf_counter() - clock)
            if file:
                file.save_if_due(progress, last=epoch == settings.epochs)
    return History({name: tuple(values) for name, values in progress.curves.items()}, progress.seconds)


def _compared(settings: TrainingSettings) -> dict[str, object]:
    """The settings in which two calls with one checkpoint, or in two processes, must agree."""
    free = ("epochs", "device", "progress")
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in free}


def _explain_divergence(epoch: int, settings: TrainingSettings, batch: Tensor) -> str:
    if not bool(batch.isfinite().all()):
        return f"epoch {epoch}: the loss is not finite; data: a batch holds entries that are not finite"
    return (
        f"epoch {epoch}: the loss is not finite; lower learning_rate (now {settings.learning_rate:g}) "
        "or step_size, or check the scale of the data"
    )
