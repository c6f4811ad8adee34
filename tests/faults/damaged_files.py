"""Files that are damaged: checkpoints of training, saved models, data sets, tables.

Those that are signed anew come from an attacker, who knows how checksums are made; the others from a disk.
"""

import gzip
import io
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from sklearn.base import clone
from torch import Tensor

from faults.bad_values import DAMAGED, ENTRIES, NUMBERS, OBSTACLES, Spoiling, draw, json_changes, obstacle, short
from faults.judging import Attempt, Call, Case, finite, same
from faults.stories import NPY_HEADERS, TABLES, npy
from faults.valid_calls import data, make, model, rng, table
from gsae_book.data import files as data_sets
from gsae_book.data import images as datasets
from gsae_book.data import tables
from gsae_lib import _saved
from gsae_lib.training import Checkpoint, TrainingError, TrainingSettings, checkpoints, train

PER_FILE, PER_MODEL = 24, 90


def train_with(path: Path, epochs: int = 3) -> Tensor:
    """The weights of a run with a checkpoint."""
    network, settings = model(), TrainingSettings(epochs=epochs, learning_rate=0.01, batch_size=10, progress=False)
    train(network, data(), settings, generator=rng(), checkpoint=Checkpoint(path))
    return network.weight.detach()


train_with.__doc__ = train.__doc__


def array_changes(names: list[str]) -> st.SearchStrategy:
    """Pairs of a name and a spoiling of an array."""
    gone = st.just(Spoiling("gone", lambda _: None))
    return st.tuples(st.sampled_from(names), ENTRIES | st.sampled_from(NUMBERS) | gone | gone)


def spoil_array(found: dict[str, Any], name: str, spoiling: Spoiling) -> None:
    """Take an array away, or put another one into its place."""
    array = np.asarray(found.pop(name))
    changed = spoiling.change(array if array.ndim else array[None])
    if changed is not None:
        changed = np.array(changed, order="C").real
        if array.ndim or changed.size:  # of one number nothing is left
            found[name] = changed if array.ndim or changed.size != 1 else changed.reshape(())


def checkpoint_cases(draws: random.Random) -> Iterator[Case]:
    """Checkpoints: bytes, what is there in their place, fields and arrays of those that are signed anew."""

    def case(name: str, spoil: Callable[[Path], object], right: Callable[[Any], bool] | None = None) -> Case:
        def prepare(folder: Path) -> Attempt:
            train_with(folder / "run", epochs=2)
            spoil(folder / "run")
            return Attempt(train_with, (folder / "run",), {}, ("checkpoint", "epoch"), right)

        return Case("checkpoints", name, Call(prepare), ("run",))

    for damage in draw(DAMAGED, 2 * PER_FILE, draws):
        yield case(damage.name, partial(spoil_file, damage))
    for kind in OBSTACLES[:-1]:
        yield case(kind, obstacle(kind))
    progress = {"structured": True, "epochs": 2, "steps": 8, "samples": 80, "loss": 1.0, "active": 1.0, "seconds": 0.1}
    content = {"format": 1, "mark": "", "run": {}, "progress": progress | {"curves": {"loss": [1.0, 0.9]}}}
    for change in draw(json_changes(content, depth=2), 2 * PER_FILE, draws):
        yield case(f"signed anew, {change.name}", partial(sign, change, None), _trained)
    names = ["model.weight", "model.penalty", "optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "generator.now"]
    for name, spoiling in draw(array_changes(names), 2 * PER_FILE, draws):
        yield case(f"signed anew, {name}: {spoiling.name}", partial(sign, None, (name, spoiling)), _trained)


def spoil_file(damage: Spoiling, path: Path) -> None:
    """Damage a file."""
    path.write_bytes(damage.change(path.read_bytes()))


def _trained(weight: Tensor) -> bool:
    """Whether a run that went on with what an attacker wrote ends as one, with finite weights of the right shape."""
    return weight.shape == model().weight.shape and finite(weight)


def sign(change: Spoiling | None, spoiled: tuple[str, Spoiling] | None, path: Path) -> None:
    """Change the content or an array of a checkpoint, and give it the checksum that it should have."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["checkpoint"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    if change is not None:
        content = change.change(content)
    if spoiled is not None:
        spoil_array(tensors, *spoiled)
    with mock.patch.object(checkpoints, "FORMAT", content.pop("format", None)):
        checkpoints.write_checkpoint(path, {n: torch.as_tensor(t) for n, t in tensors.items()}, content)


KINDS = {
    "GroupSparseCoder": {},
    "GroupSparseDictionaryLearning": {},
    "GroupSparseClustering": {},
    "GroupSparseClustering, spectral": {"assign": "spectral"},
    "GroupSparseClustering, argmax": {"assign": "argmax", "n_groups": 4},
    "GroupSparseClustering, method auto": {"method": "auto"},
}


@cache
def fitted_model(kind: str) -> Any:
    """An estimator of that kind."""
    return make(kind.partition(",")[0], **KINDS[kind]).fit(table())


def _answers(estimator: Any) -> dict[str, Any]:
    """All that a fitted estimator says."""
    found = {"transform": estimator.transform(table()), "score": np.float64(estimator.score(table()))}
    if hasattr(estimator, "predict"):
        found |= {"predict": np.asarray(estimator.predict(table())), "labels": np.asarray(estimator.labels_)}
    return found


def _is_usable(loaded: Any, fitted: Any) -> bool:
    """Whether all that a model was loaded with is of its kind, so that it answers, and can be fitted again."""
    for name, value in vars(fitted).items():
        other = getattr(loaded, name, None)
        if isinstance(value, np.ndarray) and name.endswith("_"):
            if type(other) is not np.ndarray or other.dtype.kind != value.dtype.kind:
                return False
        if name.endswith("_") and type(value) is int and (type(other) is not int or other < 0):
            return False
    found, expected = _answers(loaded), _answers(fitted)
    whole = all(finite(v) and np.shape(v) == np.shape(expected[name]) for name, v in found.items() if name != "labels")
    if "labels" in found:
        clusters = np.concatenate([found["labels"], found["predict"]])
        whole = whole and clusters.dtype.kind == "i" and 0 <= clusters.min() <= clusters.max() < loaded.n_clusters
    try:
        clone(loaded).fit(table())
    except TrainingError:  # an alpha that is too large is one all the same
        pass
    except (ValueError, TypeError) as error:
        if "checkpoint" not in str(error):  # which `fit` refuses where it has no use for one
            return False
    place = getattr(loaded, "checkpoint", None)
    return whole and (place is None or Path(place).resolve().is_relative_to(Path.cwd()))


def model_cases(draws: random.Random) -> Iterator[Case]:
    """Saved models: bytes, what is there in their place, fields and arrays of those that are signed anew."""

    def case(kind: str, name: str, spoil: Callable[[Path, Path], object]) -> Case:
        def prepare(folder: Path) -> Attempt:
            fitted = fitted_model(kind)
            fitted.save(folder / "model")
            spoil(folder / "model.json", folder / "model.safetensors")

            def right(loaded: Any) -> bool:
                if name.startswith("signed anew"):
                    return _is_usable(loaded, fitted)
                return loaded.get_params() == fitted.get_params() and same(_answers(fitted), _answers(loaded))

            return Attempt(type(fitted).load, (folder / "model",), {}, ("model",), right)

        kept = ("[!m]*",) if "parameters.checkpoint" in name else ()  # which the second fit writes
        return Case("saved models", f"{kind}: {name}", Call(prepare), kept)

    for k, named in enumerate(("JSON", "arrays")):
        damages = {damage.name: partial(spoil_file, damage) for damage in draw(DAMAGED, PER_FILE, draws)}
        for name, spoil in (damages | {kind: obstacle(kind) for kind in OBSTACLES}).items():
            kind = draws.choice(list(KINDS))
            yield case(kind, f"{named}, {name}", lambda *paths, k=k, spoil=spoil: spoil(paths[k]))
    for kind in KINDS:
        fitted = vars(fitted_model(kind))
        arrays = [name for name, value in fitted.items() if name.endswith("_") and isinstance(value, np.ndarray)]
        content = {"class": "", "parameters": dict.fromkeys(fitted_model(kind).get_params(deep=False), 0)}
        content["fitted"] = {name: 0 for name in fitted if name.endswith("_") and name not in arrays}
        for change in draw(json_changes(content | {"feature_names": None}, depth=2), PER_MODEL, draws):
            yield case(kind, f"signed anew, {change.name}", partial(resign, change=change.change))
        for name, spoiling in draw(array_changes(arrays), PER_MODEL // 2, draws):
            what = f"signed anew, {name}: {spoiling.name}"
            yield case(kind, what, partial(resign, spoiled=(name, spoiling)))
    for name, spoil in MODEL_STORIES.items():
        yield case("GroupSparseClustering", name, spoil)


def resign(text: Path, arrays: Path, *, change: Any = None, spoiled: Any = None, sign: bool = True) -> None:
    """Change what a saved model holds, and give it the checksum that it should have, if it has one."""
    content, found = json.loads(text.read_text()), load_file(arrays)
    signed = content.pop("sha256", None) is not None
    if change is not None:
        content = change(content)
    if spoiled is not None:
        spoil_array(found, *spoiled)
    if signed and sign:
        content["sha256"] = _saved.checksum(content, found)
    text.write_text(json.dumps(content))
    arrays.write_bytes(to_bytes(found))


def swap(k: int, *paths: Path) -> None:
    """Put a file of another model into the place of one."""
    other = make("GroupSparseClustering", alpha=0.7, random_state=1).fit(table())
    other.save(paths[0].parent / "other" / "model")
    os.replace(paths[0].parent / "other" / paths[k].name, paths[k])


def rewrite(old: str, new: str, text: Path, _: Path) -> None:
    """Change the JSON of a model, and not its checksum."""
    text.write_text(text.read_text().replace(old, new))


def move_checkpoint(place: str, content: dict[str, Any]) -> dict[str, Any]:
    """The content of a model with its checkpoint at another place."""
    return content | {"parameters": content["parameters"] | {"checkpoint": place}}


MODEL_STORIES: dict[str, Callable[[Path, Path], object]] = {
    "the JSON of another model": partial(swap, 0),
    "the arrays of another model": partial(swap, 1),
    "no checksum": partial(resign, sign=False),
    "an unsigned change of a number": partial(rewrite, '"alpha": 0.1', '"alpha": 0.2'),
    "a field twice": partial(rewrite, '"alpha": 0.1', '"alpha": 0.1,\n"alpha": 0.7'),
    "NaN": partial(rewrite, '"alpha": 0.1', '"alpha": NaN'),
    "many digits": partial(rewrite, '"n_iter_": 1', '"n_iter_": ' + "1" * 5000),
    "a checkpoint elsewhere": partial(resign, change=partial(move_checkpoint, "/etc/x")),
    "a checkpoint above": partial(resign, change=partial(move_checkpoint, "../x")),
}


def data_file_cases(draws: random.Random) -> Iterator[Case]:
    """Tables and data sets."""

    def read(name: str, suffix: str, write: Callable[[Path], object], right: Any = None) -> Iterator[Case]:
        for function in (tables.read_table, tables.open_table):

            def prepare(folder: Path, function: Any = function) -> Attempt:
                write(folder / f"x{suffix}")
                return Attempt(function, (folder / f"x{suffix}",), {}, ("path", f"x{suffix}"), right)

            yield _data_case(f"{function.__name__}, {suffix}: {name}", prepare)

    x = table()
    frame = pd.DataFrame(x, columns=list("abcdefgh"))
    good = {".npy": npy(x), ".csv": frame.to_csv(index=False).encode(), ".parquet": frame.to_parquet()}
    for suffix, content in good.items():
        for damage in draw(DAMAGED, PER_FILE, draws):
            # A text that lost a piece may be another table; flipped bits of a number cannot be told from a number.
            right = partial(_is_table, shape=None if suffix == ".csv" else x.shape)
            yield from read(damage.name, suffix, partial(Path.write_bytes, data=damage.change(content)), right)
        for kind in OBSTACLES:
            yield from read(kind, suffix, obstacle(kind))
    for (suffix, name), (content, usable) in (TABLES | NPY_HEADERS).items():
        yield from read(name, suffix, partial(Path.write_bytes, data=content), _is_table if usable else None)
    told = ("path", "x.", "a\0b", "No such file", "too long")
    for path in ("", ".", "x", "x.txt", "x.pkl", "a\0b.npy", "\udcff.npy", 3, None, "x" * 300 + ".npy"):
        yield _data_case(f"read_table({short(path)})", lambda _, p=path: Attempt(tables.read_table, (p,), {}, told))
    yield from _data_set_cases(draws)


def _data_case(name: str, prepare: Callable[[Path], Attempt], *may_change: str) -> Case:
    return Case("data files", name, Call(prepare), may_change)


def _is_table(found: Any, shape: tuple[int, int] | None = None) -> bool:
    """Whether something is a table of finite numbers, of that shape if there is one."""
    values = np.asarray(getattr(found, "values", found))
    return values.ndim == 2 and values.dtype.kind in "fiub" and finite(values) and shape in (None, values.shape)


IDX = b"\x00\x00\x08\x03" + struct.pack(">iii", 5, 2, 2) + bytes(20)
IDX_STORIES = {
    "another magic": b"\x00\x00\x0d\x03" + IDX[4:],
    "negative lengths": IDX[:4] + struct.pack(">iii", -5, 2, 2) + IDX[16:],
    "lengths of 10^27": IDX[:4] + struct.pack(">iii", *[2**31 - 1] * 3) + IDX[16:],
    "a fine file of other images": IDX,
}
NO_NAMES = ("nope", "", "../mnist", "/etc", None, 3, ["mnist"], "mnist\0")


def _bomb(size: int) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as zipped:
        for _ in range(size // 2**24):
            zipped.write(bytes(2**24))
    return file.getvalue()


def _data_set_cases(draws: random.Random) -> Iterator[Case]:
    """The IDX files of a data set, which no machine may take for intact if they are not, bombs, and names."""

    def read(content: bytes, folder: Path) -> Attempt:
        (folder / "mnist").mkdir()
        for file in data_sets.IDX:
            (folder / "mnist" / file).write_bytes(content)
        return Attempt(datasets.load_images, ("mnist",), {"cache": folder}, ("train-images",))

    def unpack(pack: Callable[[], bytes], folder: Path) -> Attempt:
        (folder / "cache").mkdir()
        content = pack()
        for file in data_sets.IDX:
            (folder / f"{file}.gz").write_bytes(content)
        keywords = {"folder": folder, "cache": folder / "cache", "progress": False}
        return Attempt(data_sets.fetch, ("mnist",), keywords, ("train-images",), n_lines=9)

    changed = {damage.name: damage.change(IDX) for damage in draw(DAMAGED, PER_FILE, draws)} | IDX_STORIES
    for name, content in changed.items():
        yield _data_case(f"load_images, IDX: {name}", partial(read, content))
    for name, pack in {"400 MB": lambda: _bomb(400 * 2**20), "a bomb": lambda: gzip.compress(_bomb(2**27))}.items():
        yield _data_case(f"fetch, a gzip of {name}", partial(unpack, pack), "cache/mnist")
    for name in NO_NAMES:
        for function in (data_sets.fetch, data_sets.file_paths, data_sets.data_checksum, datasets.load_images):
            attempt = Attempt(function, (name,), {}, ("name",))
            yield _data_case(f"{function.__name__}({short(name)})", lambda _, attempt=attempt: attempt)
        run = lambda folder, n=str(name): Attempt(data_sets.read_verified, ("mnist", n, folder), {}, ("file",))  # noqa: E731
        yield _data_case(f"read_verified, file = {name!r}", run)
