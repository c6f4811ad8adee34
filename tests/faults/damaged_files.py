"""Files that are damaged: checkpoints of training, saved models, data sets, tables.

Those that are signed anew come from an attacker, who knows how checksums are made; the others from a disk.
"""

import functools
import gzip
import io
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from sklearn.base import clone

from faults.bad_values import DAMAGED, ENTRIES, NUMBERS, OBSTACLES, draw, json_changes, obstacle, short
from faults.judging import Attempt, Call, Case, finite, same
from faults.stories import NPY_HEADERS, TABLES, npy
from faults.valid_calls import ESTIMATORS, data, model, rng, table
from gsae_book.data import files as data_sets
from gsae_book.data import images as datasets
from gsae_book.data import tables
from gsae_lib import _saved
from gsae_lib.training import Checkpoint, TrainingError, TrainingSettings, checkpoints, train

PER_FILE, PER_MODEL = 24, 90


def _seed(rng: random.Random) -> int:
    return rng.randrange(2**32)


def train_with(path: Path, epochs: int = 3) -> dict[str, Any]:
    """Weights and curves of a run with a checkpoint."""
    network, settings = model(), TrainingSettings(epochs=epochs, learning_rate=0.01, batch_size=10, progress=False)
    history = train(network, data(), settings, generator=rng(), checkpoint=Checkpoint(path))
    return {"weight": network.weight.detach().numpy(), "curves": {k: np.array(v) for k, v in history.curves.items()}}


train_with.__doc__ = train.__doc__


def array_changes(names: list[str]) -> st.SearchStrategy:
    """Pairs of a name and a function of an array, or None where it is gone."""
    gone = st.none() | st.none()
    return st.tuples(st.sampled_from(names), ENTRIES | st.sampled_from(NUMBERS) | gone)


def spoil_array(found: dict[str, Any], name: str, spoiling: Any) -> None:
    """Take an array away, or put another one into its place."""
    array = np.asarray(found.pop(name))
    if spoiling is not None:
        changed = np.array(spoiling.change(array if array.ndim else array[None]), order="C").real
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

    for damage in draw(DAMAGED, 2 * PER_FILE, _seed(draws)):
        yield case(damage.name, lambda path, d=damage: path.write_bytes(d.change(path.read_bytes())))
    for kind in OBSTACLES[:-1]:
        yield case(kind, obstacle(kind))
    progress = {"structured": True, "epochs": 2, "steps": 8, "samples": 80, "loss": 1.0, "active": 1.0, "seconds": 0.1}
    content = {"format": 1, "mark": "", "run": {}, "progress": progress | {"curves": {"loss": [1.0, 0.9]}}}
    for change in draw(json_changes(content, depth=2), 2 * PER_FILE, _seed(draws)):
        yield case(f"signed anew, {change.name}", lambda path, c=change: sign(path, c, None), _trained)
    names = ["model.weight", "model.penalty", "optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "generator.now"]
    for name, spoiling in draw(array_changes(names), 2 * PER_FILE, _seed(draws)):
        what = "gone" if spoiling is None else spoiling.name
        yield case(f"signed anew, {name}: {what}", lambda path, n=name, s=spoiling: sign(path, None, (n, s)), _trained)


def _trained(found: Any) -> bool:
    """Whether a run that went on with what an attacker wrote ends as one, with finite weights of the right shape."""
    return found["weight"].shape == model().weight.shape and finite(found["weight"])


def sign(path: Path, change: Any, spoiled: tuple[str, Any] | None) -> None:
    """Change the content or an array of a checkpoint, and give it the checksum that it should have."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["checkpoint"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    if change is not None:
        content = change.change(content)
    if spoiled is not None:
        spoil_array(tensors, *spoiled)
    before = checkpoints.FORMAT
    checkpoints.FORMAT = content.pop("format", None)
    try:
        checkpoints.write_checkpoint(path, {n: torch.as_tensor(t) for n, t in tensors.items()}, content)
    finally:
        checkpoints.FORMAT = before


KINDS = {
    "GroupSparseCoder": {},
    "GroupSparseDictionaryLearning": {},
    "GroupSparseClustering": {},
    "GroupSparseClustering, spectral": {"assign": "spectral"},
    "GroupSparseClustering, argmax": {"assign": "argmax", "n_groups": 4},
    "GroupSparseClustering, method auto": {"method": "auto"},
}


@functools.cache
def fitted_model(kind: str) -> Any:
    """An estimator of that kind."""
    return ESTIMATORS[kind.partition(",")[0]](**KINDS[kind]).fit(table())


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

    for suffix in (0, 1):
        named = ("JSON", "arrays")[suffix]
        for damage in draw(DAMAGED, PER_FILE, _seed(draws)):
            kind = draws.choice(list(KINDS))
            yield case(
                kind,
                f"{named}, {damage.name}",
                lambda *p, d=damage, k=suffix: p[k].write_bytes(d.change(p[k].read_bytes())),
            )
        for what in OBSTACLES:
            yield case("GroupSparseClustering", f"{named}, {what}", lambda *p, w=what, k=suffix: obstacle(w)(p[k]))
    for kind in KINDS:
        content, names = _content(fitted_model(kind))
        for change in draw(json_changes(content, depth=2), PER_MODEL, _seed(draws)):
            yield case(kind, f"signed anew, {change.name}", lambda *p, c=change: resign(*p, c.change))
        for name, spoiling in draw(array_changes(names), PER_MODEL // 2, _seed(draws)):
            what = "gone" if spoiling is None else spoiling.name
            yield case(kind, f"signed anew, {name}: {what}", lambda *p, n=name, s=spoiling: resign(*p, spoiled=(n, s)))
    for name, spoil in MODEL_STORIES.items():
        yield case("GroupSparseClustering", name, spoil)


def _content(fitted: Any) -> tuple[dict[str, Any], list[str]]:
    """What the JSON of a model holds, and the names of its arrays."""
    arrays = [name for name, value in vars(fitted).items() if name.endswith("_") and isinstance(value, np.ndarray)]
    others = {name: 0 for name in vars(fitted) if name.endswith("_") and name not in arrays}
    parameters = dict.fromkeys(fitted.get_params(deep=False), 0)
    return {"class": "", "parameters": parameters, "fitted": others, "feature_names": None}, arrays


def resign(text: Path, arrays: Path, change: Any = None, *, spoiled: Any = None, sign: bool = True) -> None:
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


def _other_file(suffix: str) -> Callable[[Path, Path], object]:
    def spoil(text: Path, arrays: Path) -> None:
        other = ESTIMATORS["GroupSparseClustering"](alpha=0.7, random_state=1).fit(table())
        other.save(text.parent / "other" / "model")
        os.replace(text.parent / "other" / f"model{suffix}", text.with_suffix(suffix))

    return spoil


def _rewrite(old: str, new: str) -> Callable[[Path, Path], object]:
    return lambda text, _: text.write_text(text.read_text().replace(old, new))


def _checkpoint(place: str) -> Callable[[Path, Path], object]:
    change = lambda content: content | {"parameters": content["parameters"] | {"checkpoint": place}}  # noqa: E731
    return lambda text, arrays: resign(text, arrays, change)


MODEL_STORIES: dict[str, Callable[[Path, Path], object]] = {
    "the arrays of another model": _other_file(".safetensors"),
    "the JSON of another model": _other_file(".json"),
    "no checksum": lambda text, arrays: resign(text, arrays, sign=False),
    "an unsigned change of a number": _rewrite('"alpha": 0.1', '"alpha": 0.2'),
    "a field twice": _rewrite('"alpha": 0.1', '"alpha": 0.1,\n"alpha": 0.7'),
    "NaN": _rewrite('"alpha": 0.1', '"alpha": NaN'),
    "many digits": _rewrite('"n_iter_": 1', '"n_iter_": ' + "1" * 5000),
    "a checkpoint elsewhere": _checkpoint("/etc/x"),
    "a checkpoint above": _checkpoint("../x"),
}


def data_file_cases(draws: random.Random) -> Iterator[Case]:
    """Tables, data sets and kept features."""

    def read(name: str, suffix: str, write: Callable[[Path], object], right: Any = None) -> Iterator[Case]:
        for function in (tables.read_table, tables.open_table):

            def prepare(folder: Path, function: Any = function) -> Attempt:
                write(folder / f"x{suffix}")
                return Attempt(function, (folder / f"x{suffix}",), {}, ("path", f"x{suffix}"), right)

            yield Case("data files", f"{function.__name__}, {suffix}: {name}", Call(prepare))

    x = table()
    frame = pd.DataFrame(x, columns=list("abcdefgh"))
    good = {".npy": npy(x), ".csv": frame.to_csv(index=False).encode(), ".parquet": frame.to_parquet()}
    for suffix, content in good.items():
        right = _is_table if suffix == ".csv" else _like(x)  # a text that lost a piece may be another table
        for damage in draw(DAMAGED, PER_FILE, _seed(draws)):
            yield from read(damage.name, suffix, lambda path, d=damage, c=content: path.write_bytes(d.change(c)), right)
        for kind in OBSTACLES:
            yield from read(kind, suffix, obstacle(kind))
    for (suffix, name), (content, usable) in (TABLES | NPY_HEADERS).items():
        write = lambda path, c=content: path.write_bytes(c() if callable(c) else c)  # noqa: E731
        yield from read(name, suffix, write, _is_table if usable else None)
    for path in ("", ".", "x", "x.txt", "x.pkl", "a\0b.npy", "\udcff.npy", 3, None, "x" * 300 + ".npy"):
        told = ("path", "x.", "a\0b", "No such file", "too long")
        run = Call(lambda _, p=path, told=told: Attempt(tables.read_table, (p,), {}, told))
        yield Case("data files", f"read_table({short(path)})", run)
    yield from _data_set_cases(draws)


def _is_table(found: Any) -> bool:
    values = np.asarray(getattr(found, "values", found))
    return values.ndim == 2 and values.dtype.kind in "fiub" and finite(values)


def _like(x: np.ndarray) -> Callable[[Any], bool]:
    """A table of the same shape, whose numbers are finite: flipped bits of a number cannot be told from a number."""
    return lambda found: _is_table(found) and np.asarray(getattr(found, "values", found)).shape == x.shape


IDX = b"\x00\x00\x08\x03" + struct.pack(">iii", 5, 2, 2) + bytes(20)
IDX_STORIES = {
    "another magic": b"\x00\x00\x0d\x03" + IDX[4:],
    "negative lengths": IDX[:4] + struct.pack(">iii", -5, 2, 2) + IDX[16:],
    "lengths of 10^27": IDX[:4] + struct.pack(">iii", *[2**31 - 1] * 3) + IDX[16:],
    "a fine file of other images": IDX,
}


def _bomb(size: int) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as zipped:
        for _ in range(size // 2**24):
            zipped.write(bytes(2**24))
    return file.getvalue()


def _data_set_cases(draws: random.Random) -> Iterator[Case]:
    """The IDX files of a data set, which no machine may take for intact if they are not, and packed ones."""
    changed = {damage.name: damage.change(IDX) for damage in draw(DAMAGED, PER_FILE, _seed(draws))} | IDX_STORIES
    for name, content in changed.items():

        def prepare(folder: Path, content: bytes = content) -> Attempt:
            (folder / "mnist").mkdir()
            for file in data_sets.IDX:
                (folder / "mnist" / file).write_bytes(content)
            return Attempt(datasets.load_images, ("mnist",), {"cache": folder}, ("train-images",))

        yield Case("data files", f"load_images, IDX: {name}", Call(prepare))
    packed = gzip.compress(IDX, mtime=0)
    made = {d.name: lambda d=d: d.change(packed) for d in draw(DAMAGED, PER_FILE // 2, _seed(draws))}
    made |= {"a bomb of 400 MB": lambda: _bomb(400 * 2**20), "a bomb in a bomb": lambda: gzip.compress(_bomb(2**27))}
    for name, make in made.items():

        def prepare(folder: Path, make: Callable[[], bytes] = make) -> Attempt:
            (folder / "from").mkdir()
            (folder / "cache").mkdir()
            content = make()
            for file in data_sets.IDX:
                (folder / "from" / f"{file}.gz").write_bytes(content)
            keywords = {"folder": folder / "from", "cache": folder / "cache", "progress": False}
            return Attempt(_quiet(data_sets.fetch), ("mnist",), keywords, ("train-images",), n_lines=9)

        yield Case("data files", f"fetch, gzip: {name}", Call(prepare), ("cache/mnist",))
    functions = (data_sets.fetch, data_sets.file_paths, data_sets.data_checksum, datasets.load_images)
    for name in ("nope", "", "../mnist", "/etc", None, 3, ["mnist"], "mnist\0"):
        for function in functions:
            run = Call(lambda _, f=function, n=name: Attempt(f, (n,), {}, ("name",)))
            yield Case("data files", f"{function.__name__}({short(name)})", run)
        name = str(name)
        run = Call(lambda folder, n=name: Attempt(data_sets.read_verified, ("mnist", n, folder), {}, ("file",)))
        yield Case("data files", f"read_verified, file = {name!r}", run)
