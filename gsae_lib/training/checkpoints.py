"""Checkpoints of training: one file, replaced as a whole, from which a call with the same arguments goes on.

A file is in the format safetensors: the arrays of the model and of the optimiser, the states of the generator, and as
metadata JSON with the position, the curves and what tells the run from others. Nothing in it is executed, and all of it
is under one checksum.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Generator, Tensor, nn

from gsae_lib._checks import check_int, check_real, describe
from gsae_lib._files import HAS_LOCKS, open_locked, replace_and_lock

FORMAT = 1
OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps for a parameter
SKETCHED = 1000  # numbers that tell one array from another
# How far numbers of the same run may differ, relative to the largest: the same computation in another process rounds
# otherwise now and then, and a start takes many steps.
ROUNDING, ROUNDING_OF_START = 1e-5, 1e-3
# What version 0.3 called attributes of its networks, and its one class of sparse autoencoders.
RENAMED = {"group_size": "groups", "elementwise_penalty": "l1"}
OLD_NETWORKS, OLD_SAE = ("GroupSparseAutoencoder", "SparseAutoencoder"), "GroupSparseFeaturizer"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and when training writes what it needs to go on: as it starts, at these times, and as it ends.

    Args:
        path: the file. Its folder is made. An existing file is continued or refused, never replaced by another run.
        every_epochs: write after every so many epochs; None for no such rule.
        every_minutes: write once so many minutes have passed since the last time, within an epoch too; None for no such
            rule. Both rules may hold.
    """

    path: str | Path
    every_epochs: int | None = None
    every_minutes: float | None = 1.0

    def __post_init__(self) -> None:
        named = isinstance(self.path, str | os.PathLike) and "\0" not in str(self.path)
        if not named or os.path.basename(self.path) in ("", ".", ".."):
            raise ValueError(f"checkpoint={self.path!r}: expected the path of a file")
        if self.every_epochs is not None:
            check_int("every_epochs", self.every_epochs)
        if self.every_minutes is not None:
            check_real("every_minutes", self.every_minutes, strict=True)

    @classmethod
    def of(cls, value: "str | Path | Checkpoint") -> "Checkpoint":
        """A checkpoint as it is; a path with the rules of default.

        Raises:
            ValueError: neither.
        """
        return value if isinstance(value, Checkpoint) else cls(value)


@dataclasses.dataclass
class Progress:
    """How far training is.

    epochs: that are done. steps: batches of the present epoch that are done; samples in them, and the sums of loss and
    active groups over them. structured: few groups were active at the last step, or there was
    none; the gradient of active groups alone is cheaper then. curves: so far. seconds: so far.
    """

    structured: bool
    epochs: int = 0
    steps: int = 0
    samples: int = 0
    loss: float = 0.0
    active: float = 0.0
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def add(self, values: Mapping[str, float]) -> None:
        """Values of the curves they name."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(float(value))

    def end_epoch(self, seconds: float) -> None:
        """The next epoch is the present one."""
        self.epochs, self.steps, self.samples, self.loss, self.active = self.epochs + 1, 0, 0, 0.0, 0.0
        self.seconds = seconds


@runtime_checkable
class _Batches(Protocol):
    """What a checkpoint asks of batches, see `gsae_lib.training._batches`."""

    drawn: Tensor

    def __len__(self) -> int: ...

    def identity(self) -> dict[str, Any]: ...

    def mark(self) -> str: ...

    def resume(self, drawn: Tensor, now: Tensor, n_epochs: int, n_done: int, mark: str) -> bool: ...


class CheckpointFile:
    """The checkpoint of one run: everything that training changes goes into the file, and comes back from it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: Generator,
        batches: _Batches,
        run: Mapping[str, Any],
        *,
        writes: bool = True,
    ) -> None:
        """`run` is what tells it from others, see `identify_run`. Of processes that train together one writes."""
        self.checkpoint, self.path = checkpoint, Path(os.path.realpath(checkpoint.path))
        self.model, self.optimizer, self.generator, self.batches = model, optimizer, generator, batches
        self.run, self.writes = run, writes
        self.written = time.monotonic()
        self.locked: IO[bytes] | None = None

    def __enter__(self) -> "CheckpointFile":
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write to the file."""
        if self.locked:
            self.locked.close()
            self.locked = None

    def resume(self, progress: Progress, n_epochs: int) -> Progress:
        """Go to where the file is, and say where; the given place, which is written, if there is no file.

        Raises:
            ValueError: see `train`.
        """
        try:
            if self.writes and self.path.is_file():
                self.locked = open_locked(self.path, "rb")
            found = read_checkpoint(self.path) if os.path.lexists(self.path) else None
            if found is not None:
                tensors, content = found
                progress = self._checked(content, n_epochs)
                self._check_tensors(tensors, progress)
                self._restore(tensors, content, progress)
            if progress.epochs < n_epochs:
                self.save(progress)  # what cannot be written is known now
        except OSError as error:
            raise self._error(f"expected a file that can be written ({error.strerror or error})") from None
        except _NotACheckpoint as error:
            raise self._error(str(error)) from None
        return progress

    def save_if_due(self, progress: Progress, *, last: bool = False) -> None:
        """Write after an epoch (`steps` is 0 then) or a batch, if the rules say so or it is the last time.

        Raises:
            OSError: the file cannot be written; the last one is still there.
        """
        epochs, minutes = self.checkpoint.every_epochs, self.checkpoint.every_minutes
        due = epochs is not None and not progress.steps and progress.epochs % epochs == 0
        if last or due or (minutes is not None and time.monotonic() - self.written >= 60 * minutes):
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write everything.

        Raises:
            OSError: the file cannot be written; the last one is still there.
        """
        if not self.writes:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        tensors |= {"generator.drawn": self.batches.drawn, "generator.now": self.generator.get_state()}
        content = {"run": self.run, "progress": dataclasses.asdict(progress), "mark": self.batches.mark()}
        others = self.path.exists() and not (
            self.locked and os.path.samestat(os.fstat(self.locked.fileno()), self.path.stat())
        )
        if others and HAS_LOCKS:
            raise OSError(f"{self.path}: another training has written there")
        written = write_checkpoint(self.path, tensors, content)
        if self.locked:
            self.locked.close()
        self.locked = written
        self.written = time.monotonic()

    def _checked(self, content: dict[str, Any], n_epochs: int) -> Progress:
        progress = _read_progress(content.get("progress"), len(self.batches))
        if not isinstance(content.get("run"), dict) or not isinstance(content.get("mark"), str):
            raise _NotACheckpoint("damaged: it does not say of which run it is")
        held = _renamed(content["run"])
        if held.get("model") == OLD_SAE:
            advice = "end it with that version and `save` the model, which `load` of gsae_lib.sae reads"
            raise self._error(f"it holds a run of {OLD_SAE} of version 0.3; {advice}, or give another path")
        if other := difference(held, self.run):
            raise self._error(
                f"it holds a run with {other[0]}, not {other[1]}; expected the same arguments, or another path"
            )
        if progress.epochs + (progress.steps > 0) > n_epochs:
            raise self._error(f"it holds {progress.epochs} epochs; expected at most epochs={n_epochs}")
        return progress

    def _check_tensors(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Refuse arrays that training would not have written, before any of them is used."""
        size = getattr(self.model, "n_groups", None)
        expected = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        expected |= {f"generator.{name}": self.generator.get_state() for name in ("drawn", "now")}
        if isinstance(self.optimizer, torch.optim.Adam):
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            known = {str(k): parameter for k, parameter in enumerate(parameters)}
            used = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
            if not used and progress.epochs + progress.steps:
                raise _NotACheckpoint("damaged: it lacks the state of the optimiser")
            for index in used & known.keys():
                like = {key: torch.zeros(()) if key == "step" else known[index] for key in OPTIMIZER}
                expected |= {f"optimizer.{index}.{key}": tensor for key, tensor in like.items()}
        for name in sorted(expected.keys() ^ tensors.keys()):
            raise _NotACheckpoint(
                f"damaged: the array {name} is {'missing' if name in expected else 'not of this run'}"
            )
        for name, like in expected.items():
            found = tensors[name]
            fits = found.shape == like.shape or (name == "model.penalty" and found.shape in ((), (size,)))
            if not fits or found.dtype != like.dtype:
                raise _NotACheckpoint(f"damaged: {name}: expected {describe(like)}, got {describe(found)}")
            if not bool(found.isfinite().all()) or (name == "model.penalty" and bool((found < 0).any())):
                raise _NotACheckpoint(f"{name} is not finite or negative: training has diverged, or it is damaged")
        try:
            for name in ("drawn", "now"):
                Generator(self.generator.device).set_state(tensors[f"generator.{name}"])
        except RuntimeError:
            raise _NotACheckpoint("damaged: the state of the generator is none") from None

    def _restore(self, tensors: dict[str, Tensor], content: dict[str, Any], progress: Progress) -> None:
        drawn, now = tensors["generator.drawn"], tensors["generator.now"]
        if not self.batches.resume(drawn, now, progress.epochs, progress.steps, content["mark"]):
            allowed = "a stream whose batches follow from the generator alone, or one that starts anew"
            raise self._error(f"the stream gives other batches than those that were used; expected {allowed}")
        self.model.load_state_dict(_below("model.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer.", tensors).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"checkpoint={str(self.checkpoint.path)!r}: {reason}")


class _NotACheckpoint(ValueError):
    """What is wrong with a file."""


def _read_progress(found: Any, n_batches: int) -> Progress:
    """How far training is, as a file tells it, or _NotACheckpoint."""
    kinds = {field.name: field.type for field in dataclasses.fields(Progress)}
    if not isinstance(found, dict) or found.keys() != kinds.keys():
        raise _NotACheckpoint("damaged: it does not say how far training is")
    curves = found["curves"]
    whole = isinstance(found["structured"], bool) and isinstance(curves, dict)
    whole = whole and all(_is_number(found[name], int) for name in ("epochs", "steps", "samples"))
    whole = whole and all(_is_number(found[name], float) for name in ("loss", "active", "seconds"))
    whole = whole and all(isinstance(v, list) and all(_is_number(x, float) for x in v) for v in curves.values())
    if whole:
        epochs, steps, samples = found["epochs"], found["steps"], found["samples"]
        whole = epochs >= 0 and 0 <= steps < max(n_batches, 1) and samples >= 0 and (samples > 0) == (steps > 0)
        whole = whole and 0 <= found["seconds"] < math.inf
        whole = whole and all(len(curves.get(name, ())) == epochs for name in ("loss", "active_groups"))
    if not whole:
        raise _NotACheckpoint("damaged: how far it says training is cannot be")
    return Progress(**found)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, int | kind) and not isinstance(value, bool)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> IO[bytes]:
    """Replace a file as a whole: at any time it holds the old content or the new, whatever ends the process.

    The file is returned open, and locked against another process that would write it.

    Raises:
        OSError: it cannot be written, or another process does so; `path` is as it was.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **content})
    metadata = {"checkpoint": text, "sha256": _checksum(text, kept)}
    path.parent.mkdir(parents=True, exist_ok=True)
    return replace_and_lock(path, to_bytes(kept, metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The arrays and the content of a file that `write_checkpoint` wrote.

    Raises:
        ValueError: it is no such file, damaged, or of another format. OSError: it cannot be read.
    """
    if not path.is_file():
        raise _NotACheckpoint("expected a file, and it is none")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        text = metadata["checkpoint"]
        intact = metadata["sha256"] == _checksum(text, tensors)
        content = json.loads(text)
        found = content["format"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _NotACheckpoint(f"no checkpoint of training, or damaged: {error}") from None
    if not intact:
        raise _NotACheckpoint("damaged: its checksum is another")
    if found != FORMAT:
        raise _NotACheckpoint(f"it has format {found!r}, expected {FORMAT}")
    return tensors, content


def digest(*tensors: Tensor) -> str:
    """SHA-256 of the numbers, whatever their shapes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def identify_run(
    model: nn.Module, generator: Generator, batches: _Batches, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What tells a run from others, before it starts: settings, kind and start of the model, generator, data."""
    found: dict[str, Any] = {"model": type(model).__qualname__}
    for path, module in model.named_modules(prefix="model"):
        attributes = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str) and k != "training"}
        found |= {f"{path}.{k}": v for k, v in attributes.items()}
        if isinstance(groups := getattr(module, "groups", None), tuple):
            found[f"{path}.groups"] = str(groups)
    found |= {f"model.{name}": sketch(tensor) for name, tensor in model.named_buffers()}
    for name, tensor in model.named_parameters():
        found |= {f"model.{name}": f"{tuple(tensor.shape)} {tensor.dtype}", f"start.{name}": sketch(tensor)}
    found |= {f"settings.{k}": v for k, v in settings.items()}
    found |= {f"data.{k}": v for k, v in batches.identity().items()}
    return found | {"generator": f"{generator.device.type} {digest(generator.get_state())}"}


def _renamed(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """What tells a run from others, with the names of today where version 0.3 wrote it."""
    if run.get("model") not in OLD_NETWORKS:
        return run
    words = {name: name.rpartition(".") for name in run}
    return {head + dot + RENAMED.get(word, word): run[name] for name, (head, dot, word) in words.items()}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first thing in which two runs differ by more than rounding, as (name=value, value)."""
    for name in sorted(one.keys() | other.keys()):
        start = name.startswith("start.")
        if not _same(one.get(name), other.get(name), ROUNDING_OF_START if start else ROUNDING):
            return f"{name}={_short(one.get(name))}", _short(other.get(name))
    return None


def sketch(tensor: Tensor) -> list[float]:
    """At most 1,000 numbers of a tensor, evenly spaced, by which it is known again up to rounding."""
    flat = tensor.detach().flatten()
    chosen = torch.linspace(0, len(flat) - 1, min(len(flat), SKETCHED), dtype=torch.float64).long()
    return flat[chosen.to(flat.device)].double().tolist()


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    described = [text, *(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}" for name in names)]
    sums = [digest(tensors[name]) for name in names]
    return hashlib.sha256("\n".join(described + sums).encode()).hexdigest()


def _same(ours: Any, theirs: Any, rounding: float) -> bool:
    if not (isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs)):
        return bool(ours == theirs)
    return np.allclose(ours, theirs, rtol=0, atol=rounding * max(np.abs(ours).max(initial=0.0), 1e-300))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
