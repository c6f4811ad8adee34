"""Damaged files: checkpoints of training, saved models, data sets, tables. Those that are signed anew come from an
attacker, who knows how checksums are made; the others from a disk."""

import functools
import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from sklearn.base import clone

from faults.inputs_arrays import ESTIMATORS, data, model, rng
from faults.inputs_cases import Attempt, Call, Case, finite, same
from faults.inputs_commands import _Bomb, short
from gsae_book.data import features, tables
from gsae_book.data import files as files
from gsae_book.data import images as datasets
from gsae_lib.training import Checkpoint
from gsae_lib.training import checkpoints as library
from gsae_lib.training import loop as training

Bytes = Callable[[bytes], bytes]


def damages(draw: random.Random, count: int) -> dict[str, Bytes]:
    """What a disk or a mistake does to a file, by name."""
    found: dict[str, Bytes] = {
        "empty": lambda _: b"",
        "a text": lambda _: b"mine\n",
        "a pickle": lambda _: pickle.dumps(_Bomb()),
        "zeros": lambda content: bytes(len(content)),
        "a byte more": lambda content: content + b"x",
        "twice": lambda content: content + content,
        "a gzip": gzip.compress,
        "JSON": lambda _: b"{}",
        "random bytes": lambda content: random.Random(0).randbytes(len(content)),
        "a header without end": lambda content: struct.pack("<Q", 2**63) + content[8:],
        "a header of 4 GB": lambda content: struct.pack("<Q", 2**32) + content[8:],
    }
    for k in range(count):
        share, bit = draw.random(), 1 << draw.randrange(8)
        found[f"cut at {share:.3f}"] = lambda content, s=share: content[: int(s * len(content))]

        def flip(content: bytes, s: float = draw.random(), b: int = bit) -> bytes:
            place = int(s * len(content))
            return content[:place] + bytes([content[place] ^ b]) + content[place + 1 :]

        found[f"a bit flipped, {k}"] = flip
    return found


def train_with(path: Path, epochs: int = 3, rate: float = 0.01, seed: int = 0, rows: int = 40) -> dict[str, Any]:
    """Weights and curves of a run with a checkpoint."""
    network = model()
    settings = training.TrainingSettings(epochs=epochs, learning_rate=rate, batch_size=10, progress=False)
    history = training.train(network, data()[:rows], settings, generator=rng(seed), checkpoint=Checkpoint(path))
    return {"weight": network.weight.detach().numpy(), "curves": {k: np.array(v) for k, v in history.curves.items()}}


train_with.__doc__ = training.train.__doc__


def checkpoints(draw: random.Random) -> Iterator[Case]:
    """Family: checkpoints."""

    def case(name: str, spoil: Callable[[Path], object]) -> Case:
        def prepare(folder: Path) -> Attempt:
            path = folder / "run"
            train_with(path, epochs=2)
            spoil(path)
            return Attempt(train_with, (path,), {}, ("checkpoint",))

        return Case("checkpoints", name, Call(prepare))

    for name, change in damages(draw, 12).items():
        yield case(name, lambda path, c=change: path.write_bytes(c(path.read_bytes())))
    yield case("another learning rate", lambda path: [path.unlink(), train_with(path, epochs=2, rate=0.02)])
    yield case("another seed", lambda path: [path.unlink(), train_with(path, epochs=2, seed=1)])
    yield case("other data", lambda path: [path.unlink(), train_with(path, epochs=2, rows=30)])
    yield case("more epochs than are asked for", lambda path: train_with(path, epochs=5))
    yield case("a folder", lambda path: [path.unlink(), path.mkdir()])
    yield case("a link to a folder", lambda path: [path.unlink(), path.symlink_to(path.parent)])
    yield case("a link to nowhere", lambda path: [path.unlink(), path.symlink_to("/proc/nowhere/run")])
    yield case("a link to itself", lambda path: [path.unlink(), path.symlink_to("run")])
    yield case("a link to a device", lambda path: [path.unlink(), path.symlink_to("/dev/zero")])
    yield case("a pipe", lambda path: [path.unlink(), os.mkfifo(path)])
    yield case("other arrays", lambda path: path.write_bytes(to_bytes({"weight": np.zeros(3)})))
    yield case(
        "a saved model",
        lambda path: [
            _fitted("GroupSparseClustering").save(path.parent / "m"),
            os.replace(path.parent / "m.safetensors", path),
        ],
    )
    progress: dict[str, list[Any]] = {
        "structured": ["x", None],
        "epochs": [-1, 1.5, "2", None, 10**30, [2]],
        "steps": [-1, 1.5, "2", None, 4, 10**9],
        "samples": [-1, "2", None],
        "loss": ["x", None, [1]],
        "active": ["x", None],
        "curves": [None, [], {"loss": 3}, {"loss": ["x", "y"]}, {}, {"loss": [1.0]}],
        "seconds": ["x", None, -1.0, 1e400],
        "nope": [1],
    }
    for name, values in progress.items():
        for value in values:

            def set_progress(
                content: dict[str, Any], tensors: dict[str, Any], name: str = name, value: Any = value
            ) -> None:
                content["progress"][name] = value

            yield case(f"signed anew, {name} = {short(value)}", lambda path, c=set_progress: sign(path, c))
    changes: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
        "no progress": lambda content, tensors: content.pop("progress"),
        "progress that is a list": lambda content, tensors: content.update(progress=[1]),
        "progress without epochs": lambda content, tensors: content["progress"].pop("epochs"),
        "no run": lambda content, tensors: content.pop("run"),
        "a run that is a list": lambda content, tensors: content.update(run=[]),
        "a run that is null": lambda content, tensors: content.update(run=None),
        "no mark": lambda content, tensors: content.pop("mark"),
        "a format that is a text": lambda content, tensors: content.update(format="1"),
        "no format": lambda content, tensors: content.pop("format"),
        "no weight": lambda content, tensors: tensors.pop("model.weight"),
        "a weight of another shape": lambda content, tensors: tensors.update({"model.weight": torch.zeros(3, 3)}),
        "a weight of another precision": lambda content, tensors: tensors.update(
            {"model.weight": tensors["model.weight"].float()}
        ),
        "a weight of integers": lambda content, tensors: tensors.update(
            {"model.weight": tensors["model.weight"].long()}
        ),
        "a weight of nan": lambda content, tensors: tensors["model.weight"].fill_(torch.nan),
        "an unknown array": lambda content, tensors: tensors.update({"model.nope": torch.zeros(3)}),
        "a penalty that is negative": lambda content, tensors: tensors["model.penalty"].fill_(-1),
        "a penalty of another shape": lambda content, tensors: tensors.update({"model.penalty": torch.zeros(3)}),
        "no state of the generator": lambda content, tensors: tensors.pop("generator.now"),
        "a short state of the generator": lambda content, tensors: tensors.update(
            {"generator.now": torch.zeros(3, dtype=torch.uint8)}
        ),
        "a state of the generator of zeros": lambda content, tensors: tensors["generator.now"].zero_(),
        "a state of floats": lambda content, tensors: tensors.update({"generator.drawn": torch.zeros(5056)}),
        "no optimiser": lambda content, tensors: [
            tensors.pop(name) for name in list(tensors) if name.startswith("optimizer")
        ],
        "half an optimiser": lambda content, tensors: tensors.pop("optimizer.0.exp_avg"),
        "an optimiser of another shape": lambda content, tensors: tensors.update(
            {"optimizer.0.exp_avg": torch.zeros(3)}
        ),
        "an optimiser of nan": lambda content, tensors: tensors["optimizer.0.exp_avg_sq"].fill_(torch.nan),
        "an optimiser of another parameter": lambda content, tensors: tensors.update(
            {"optimizer.7.exp_avg": torch.zeros(3)}
        ),
        "an optimiser without a number": lambda content, tensors: tensors.update(
            {"optimizer.x.exp_avg": torch.zeros(3)}
        ),
        "no arrays": lambda content, tensors: tensors.clear(),
    }
    for name, change in changes.items():
        yield case(f"signed anew, {name}", lambda path, c=change: sign(path, c))


def sign(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Change the content and the arrays of a checkpoint, and give it the checksum that it should have."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["checkpoint"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    change(content, tensors)
    before = library.FORMAT
    library.FORMAT = content.pop("format", None)
    try:
        library.write_checkpoint(path, tensors, content)
    finally:
        library.FORMAT = before


KINDS = {
    "GroupSparseCoder": {},
    "GroupSparseDictionaryLearning": {},
    "GroupSparseClustering": {},
    "GroupSparseClustering, spectral": {"assign": "spectral"},
    "GroupSparseClustering, argmax": {"assign": "argmax", "n_groups": 4},
    "GroupSparseClustering, method auto": {"method": "auto"},
}


@functools.cache
def _fitted(kind: str) -> Any:
    return ESTIMATORS[kind.partition(",")[0]](**KINDS[kind]).fit(data().numpy())


def _answers(estimator: Any) -> dict[str, Any]:
    """All that a fitted estimator says."""
    x = data().numpy()
    found = {"transform": estimator.transform(x), "score": np.float64(estimator.score(x))}
    if hasattr(estimator, "predict"):
        found |= {"predict": np.asarray(estimator.predict(x)), "labels": np.asarray(estimator.labels_)}
    return found


def _is_usable(loaded: Any, fitted: Any) -> bool:
    """Whether all that a model was loaded with is of its kind, so that it answers, and can be fitted again."""
    for name, value in vars(fitted).items():
        other = getattr(loaded, name, None)
        if (
            isinstance(value, np.ndarray)
            and name.endswith("_")
            and (type(other) is not np.ndarray or other.dtype.kind != value.dtype.kind)
        ):
            return False
        if name.endswith("_") and type(value) is int and (type(other) is not int or other < 0):
            return False
    labels = _answers(loaded)
    whole = all(
        finite(value) and np.asarray(value).shape == np.asarray(_answers(fitted)[name]).shape
        for name, value in labels.items()
        if name != "labels"
    )
    if "labels" in labels:
        clusters = np.concatenate([np.asarray(labels["labels"]), np.asarray(labels["predict"])])
        whole = whole and clusters.dtype.kind == "i" and 0 <= clusters.min() <= clusters.max() < loaded.n_clusters
    try:
        clone(loaded).fit(data().numpy())
    except training.TrainingError:  # an alpha that is too large is one all the same
        pass
    except (ValueError, TypeError) as error:
        if "checkpoint" not in str(error):  # which `fit` refuses where it has no use for one
            return False
    place = getattr(loaded, "checkpoint", None)
    return whole and (place is None or Path(place).resolve().is_relative_to(Path.cwd()))


def models(draw: random.Random) -> Iterator[Case]:
    """Family: saved models."""

    def case(kind: str, name: str, spoil: Callable[[Path, Path], object]) -> Case:
        def prepare(folder: Path) -> Attempt:
            fitted = _fitted(kind)
            fitted.save(folder / "model")
            (folder / "other").mkdir()
            spoil(folder / "model.json", folder / "model.safetensors")

            def right(loaded: Any) -> bool:
                if name.startswith("signed anew"):
                    return _is_usable(loaded, fitted)
                return loaded.get_params() == fitted.get_params() and same(_answers(fitted), _answers(loaded))

            return Attempt(type(fitted).load, (folder / "model",), {}, ("model",), right)

        return Case("saved models", f"{kind}: {name}", Call(prepare))

    for name, change in damages(draw, 8).items():
        kind = draw.choice(list(KINDS))
        yield case(kind, f"arrays, {name}", lambda _, arrays, c=change: arrays.write_bytes(c(arrays.read_bytes())))
        yield case(kind, f"JSON, {name}", lambda text, _, c=change: text.write_bytes(c(text.read_bytes())))
    for kind in KINDS:
        for field in ("parameters", "fitted"):
            yield from _field_cases(kind, field, case, draw)
        for field, values in {
            "class": [None, 3, "os.system", "GroupSparseCoderX", ""],
            "parameters": [None, [], 3],
            "fitted": [None, [], 3],
            "feature_names": [3, ["a"], "abcdefgh", [1] * 8, [None] * 8, {"a": 1}],
        }.items():
            for value in draw.sample(values, 2):
                yield case(
                    kind,
                    f"signed anew, {field} = {short(value)}",
                    lambda text, arrays, f=field, v=value: resign(
                        text, arrays, lambda content, _: content.update({f: v})
                    ),
                )
            yield case(
                kind,
                f"signed anew, no {field}",
                lambda text, arrays, f=field: resign(text, arrays, lambda content, _: content.pop(f)),
            )
        yield from _array_cases(kind, case, draw)
    kind = "GroupSparseClustering"
    yield case(
        kind,
        "signed anew, an unknown field",
        lambda text, arrays: resign(text, arrays, lambda content, _: content.update(nope=1)),
    )
    yield case(
        kind,
        "an unsigned change of a number",
        lambda text, _: text.write_text(text.read_text().replace('"alpha": 0.1', '"alpha": 0.2')),
    )
    yield case(kind, "no checksum", lambda text, arrays: resign(text, arrays, lambda content, _: None, sign=False))
    yield case(kind, "the arrays of another model", lambda _, arrays: _replace_arrays(arrays))
    yield case(kind, "the JSON of another model", lambda text, _: _replace_json(text))
    yield case(
        kind,
        "the files of another class",
        lambda text, _: ESTIMATORS["GroupSparseCoder"]().fit(data().numpy()).save(text.with_suffix("")),
    )
    yield case(kind, "no JSON", lambda text, _: text.unlink())
    yield case(kind, "no arrays", lambda _, arrays: arrays.unlink())
    yield case(kind, "a folder for JSON", lambda text, _: [text.unlink(), text.mkdir()])
    yield case(kind, "a folder for arrays", lambda _, arrays: [arrays.unlink(), arrays.mkdir()])
    yield case(kind, "a pipe for JSON", lambda text, _: [text.unlink(), os.mkfifo(text)])
    yield case(kind, "a pipe for arrays", lambda _, arrays: [arrays.unlink(), os.mkfifo(arrays)])
    yield case(kind, "a device for JSON", lambda text, _: [text.unlink(), text.symlink_to("/dev/zero")])
    yield case(kind, "a device for arrays", lambda _, arrays: [arrays.unlink(), arrays.symlink_to("/dev/zero")])
    yield case(kind, "a link to itself", lambda text, _: [text.unlink(), text.symlink_to(text.name)])
    yield case(kind, "deep JSON", lambda text, _: text.write_text('{"class": ' + "[" * 10**5))
    yield case(
        kind,
        "many digits",
        lambda text, _: text.write_text(text.read_text().replace('"n_iter_": 1', '"n_iter_": ' + "1" * 5000)),
    )
    yield case(kind, "NaN", lambda text, _: text.write_text(text.read_text().replace('"alpha": 0.1', '"alpha": NaN')))
    yield case(
        kind,
        "a field twice",
        lambda text, _: text.write_text(text.read_text().replace('"alpha": 0.1', '"alpha": 0.1,\n"alpha": 0.7')),
    )
    yield case(
        kind,
        "a checkpoint elsewhere",
        lambda text, arrays: resign(text, arrays, lambda content, _: content["parameters"].update(checkpoint="/etc/x")),
    )
    yield case(
        kind,
        "a checkpoint above",
        lambda text, arrays: resign(text, arrays, lambda content, _: content["parameters"].update(checkpoint="../x")),
    )


def _field_cases(kind: str, field: str, case: Any, draw: random.Random) -> Iterator[Case]:
    bad = [None, "x", "", -1, 0, 1.5, 10**30, True, [1], {"a": 1}, 1e308]
    known = _fitted(kind)
    names = (
        list(known.get_params(deep=False))
        if field == "parameters"
        else [n for n in vars(known) if n.endswith("_") and not isinstance(getattr(known, n), np.ndarray)]
    )
    for name in [*names, "nope", "__class__"]:
        for value in draw.sample(bad, 3 if name in names else 1):
            yield case(
                kind,
                f"signed anew, {field}.{name} = {short(value)}",
                lambda text, arrays, n=name, v=value: resign(
                    text, arrays, lambda content, _: content[field].update({n: v})
                ),
            )
        if field == "fitted" and name in names:
            yield case(
                kind,
                f"signed anew, no {field}.{name}",
                lambda text, arrays, n=name: resign(text, arrays, lambda content, _: content[field].pop(n)),
            )


def _array_cases(kind: str, case: Any, draw: random.Random) -> Iterator[Case]:
    known = _fitted(kind)
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "a row less": lambda x: x[:-1],
        "no rows": lambda x: x[:0],
        "an axis more": lambda x: x[None],
        "one number": lambda x: x.flatten()[0].reshape(()),
        "transposed": lambda x: np.ascontiguousarray(x.T) if x.ndim == 2 else x[::-1].copy() + 1,
        "integers": lambda x: (100 * x).astype(np.int64),
        "bytes": lambda x: (100 * x).astype(np.uint8),
        "half": lambda x: x.astype(np.float16),
        "booleans": lambda x: x > 0,
        "nan": lambda x: np.full(x.shape, np.nan),
        "infinite": lambda x: np.full(x.shape, np.inf),
        "1e300": lambda x: np.full(x.shape, 1e300),
        "-1": lambda x: np.full_like(x, -1) if x.dtype.kind == "i" else np.full(x.shape, -1),
        "99": lambda x: np.full_like(x, 99) if x.dtype.kind == "i" else np.full(x.shape, 99),
        "a column more": lambda x: np.concatenate([x, x[..., :1]], axis=-1),
    }
    for name in [n for n, v in vars(known).items() if n.endswith("_") and isinstance(v, np.ndarray)]:
        for what in draw.sample(list(changes), 6):
            yield case(
                kind,
                f"signed anew, {name}: {what}",
                lambda text, arrays, n=name, c=changes[what]: resign(
                    text, arrays, lambda _, found: found.update({n: np.ascontiguousarray(c(found[n]))})
                ),
            )
        yield case(
            kind,
            f"signed anew, no {name}",
            lambda text, arrays, n=name: resign(text, arrays, lambda _, found: found.pop(n)),
        )
    yield case(
        kind,
        "signed anew, an unknown array",
        lambda text, arrays: resign(text, arrays, lambda _, found: found.update(nope_=np.zeros(3))),
    )
    yield case(
        kind,
        "signed anew, a method as an array",
        lambda text, arrays: resign(text, arrays, lambda _, found: found.update(transform=np.zeros(3))),
    )


def resign(
    text: Path, arrays: Path, change: Callable[[dict[str, Any], dict[str, Any]], object], sign: bool = True
) -> None:
    """Change what a saved model holds, and give it the checksum that it should have, if it has one."""
    from gsae_lib import _saved

    content, found = json.loads(text.read_text()), load_file(arrays)
    signed = content.pop("sha256", None) is not None
    change(content, found)
    if signed and sign:
        content["sha256"] = _saved.checksum(content, found)
    text.write_text(json.dumps(content))
    arrays.write_bytes(to_bytes(found))


def _replace_arrays(arrays: Path) -> None:
    other = ESTIMATORS["GroupSparseClustering"](random_state=1).fit(data().numpy())
    other.save(arrays.parent / "other" / "model")
    os.replace(arrays.parent / "other" / "model.safetensors", arrays)


def _replace_json(text: Path) -> None:
    other = ESTIMATORS["GroupSparseClustering"](alpha=0.7, random_state=1).fit(data().numpy())
    other.save(text.parent / "other" / "model")
    os.replace(text.parent / "other" / "model.json", text)


def _npy(array: np.ndarray, **settings: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def _header(text: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A NumPy file with that header."""
    head = text.encode("latin1") + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(head)) + head + body


def _zip(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _tables() -> dict[str, dict[str, bytes]]:
    """Files that are no tables, by suffix and name."""
    x = data().numpy()
    frame = pd.DataFrame(x, columns=list("abcdefgh"))

    def parquet(table: pd.DataFrame) -> bytes:
        return table.to_parquet()

    return {
        ".npy": {
            "pickled objects": _npy(np.array([[_Bomb()]], dtype=object), allow_pickle=True),
            "a pickle": pickle.dumps(_Bomb()),
            "an NPZ": _zip(x=x),
            "an NPZ of nothing": _zip(),
            "a zip": _archive({"x.txt": b"mine"}),
            "fields": _npy(np.zeros(4, dtype=[("a", float), ("b", float)])),
            "dates": _npy(np.zeros((4, 2), dtype="datetime64[s]")),
            "texts": _npy(np.full((4, 2), "abc")),
            "complex": _npy(x + 1j),
            "booleans": _npy(x > 0),
            "no axis": _npy(np.array(3.0)),
            "one axis": _npy(x[0]),
            "three axes": _npy(x[None]),
            "no rows": _npy(x[:0]),
            "no columns": _npy(x[:, :0]),
            "nan": _npy(np.where(x > 1, np.nan, x)),
            "a shape of 10^12": _header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
            "a negative shape": _header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2), }", bytes(64)),
            "a shape of texts": _header("{'descr': '<f8', 'fortran_order': False, 'shape': ('a', 2), }", bytes(64)),
            "a shape of 10^30": _header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**30, 2), }", bytes(64)),
            "a shape of many digits": _header(
                f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({'9' * 30}, 2), }}", bytes(64)
            ),
            "a call in the header": _header(
                "{'descr': '<f8', 'fortran_order': False, 'shape': __import__('os').system('touch executed'), }"
            ),
            "an unknown type": _header("{'descr': '<q9', 'fortran_order': False, 'shape': (2, 2), }", bytes(64)),
            "a type of objects": _header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }", bytes(64)),
            "no shape": _header("{'descr': '<f8', 'fortran_order': False, }", bytes(64)),
            "a long header": _header(
                "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }" + " " * 20_000, bytes(64)
            ),
            "a deep header": _header("(" * 5000, bytes(64)),
            "another version": b"\x93NUMPY\x09\x00" + _npy(x)[8:],
        },
        ".csv": {
            "nothing but a header": b"a,b\n",
            "a text": b"a,b\n1,red\n",
            "NUL": b"a,b\n1,\x00\n",
            "a quote without end": b'a,b\n1,"2\n3,4\n',
            "UTF-16": "a,b\n1,2\n".encode("utf-16"),
            "not UTF-8": b"a,b\n1,\xff\n",
            "lines of other lengths": b"a,b\n1,2,3\n4\n",
            "infinite": b"a,b\n1,inf\n",
            "too large": b"a,b\n1,1e999\n",
            "many digits": b"a,b\n1," + b"9" * 5000 + b"\n",
            "a formula": b"a,b\n1,\"=cmd|'/c touch executed'!A0\"\n",
            "100,000 columns and one line": b"0," * 100_000 + b"0\n" + b"1\n",
            "one long cell": b"a,b\n1," + b"x" * 10**6 + b"\n",
            "blank": b"\n\n\n",
            "hexadecimal": b"a,b\n1,0x10\n",
            "a gap": b"a,b\n1,\n3,4\n",
            "a byte order mark alone": b"\xef\xbb\xbf",
        },
        ".parquet": {
            "texts": parquet(frame.assign(t="x")),
            "gaps": parquet(frame.mask(frame > 1)),
            "dates": parquet(frame.assign(t=pd.Timestamp("2020-01-01"))),
            "lists": parquet(pd.DataFrame({"a": [[1], [2]]})),
            "no rows": parquet(frame[:0]),
            "no columns": parquet(frame[[]]),
            "infinite": parquet(frame.where(frame < 1, np.inf)),
            "a footer of 2 GB": b"PAR1" + bytes(100) + struct.pack("<I", 2**31 - 1) + b"PAR1",
            "its marks alone": b"PAR1PAR1",
        },
    }


def _archive(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def data_files(draw: random.Random) -> Iterator[Case]:
    """Family: data files."""
    family = "data files"

    def table(name: str, suffix: str, content: bytes, right: Any = None) -> Iterator[Case]:
        for read in (tables.read_table, tables.open_table):

            def prepare(folder: Path, read: Any = read) -> Attempt:
                (folder / f"x{suffix}").write_bytes(content)
                return Attempt(read, (folder / f"x{suffix}",), {}, ("path",), right)

            yield Case(family, f"{read.__name__}, {suffix}: {name}", Call(prepare))

    x = data().numpy()
    frame = pd.DataFrame(x, columns=list("abcdefgh"))
    good = {".npy": _npy(x), ".csv": frame.to_csv(index=False).encode(), ".parquet": frame.to_parquet()}
    for suffix, named in _tables().items():
        for name, content in named.items():
            yield from table(name, suffix, content, _is_table if name in READABLE else None)
        for name, change in damages(draw, 6).items():
            if suffix == ".csv" and (
                "cut" in name or "flipped" in name or name in ("a byte more", "twice", "JSON", "a text")
            ):
                continue  # a text that lost a piece may be a table of other numbers: nothing can tell
            yield from table(name, suffix, change(good[suffix]), _like(x))
    for suffix in (".npy", ".csv", ".parquet"):
        for name, make in {
            "a folder": lambda p: p.mkdir(),
            "a pipe": os.mkfifo,
            "a device": lambda p: p.symlink_to("/dev/zero"),
            "a link to itself": lambda p: p.symlink_to(p.name),
            "missing": lambda p: None,
        }.items():

            def prepare(folder: Path, make: Any = make, suffix: str = suffix) -> Attempt:
                make(folder / f"x{suffix}")
                return Attempt(tables.read_table, (folder / f"x{suffix}",), {}, (f"x{suffix}",))

            yield Case(family, f"read_table, {suffix}: {name}", Call(prepare))
    for path in ("", ".", "x", "x.txt", "x.pkl", "a\0b.npy", "\udcff.npy", 3, None, "x" * 300 + ".npy"):
        told = ("path", "x.", "a\0b", "No such file", "too long")
        run = Call(lambda _, p=path, told=told: Attempt(tables.read_table, (p,), {}, told))
        yield Case(family, f"read_table({short(path)})", run)
    yield from _data_set_cases(draw)
    yield from _kept_cases(draw)


# A reader may leave out a column of text, and say so, know other encodings, or take true for 1.
READABLE = ("fields", "booleans", "a text", "UTF-16", "not UTF-8", "a formula", "texts", "dates")


def _is_table(found: Any) -> bool:
    values = np.asarray(getattr(found, "values", found))
    return values.ndim == 2 and values.dtype.kind in "fiub" and finite(values)


def _like(x: np.ndarray) -> Callable[[Any], bool]:
    """A table of the same shape, whose numbers are finite: flipped bits of a number cannot be told from a number."""

    def right(found: Any) -> bool:
        values = np.asarray(getattr(found, "values", found))
        return values.shape == x.shape and finite(values)

    return right


def _data_set_cases(draw: random.Random) -> Iterator[Case]:
    """The IDX files of a data set, which no machine may take for intact if they are not."""
    idx = b"\x00\x00\x08\x03" + struct.pack(">iii", 5, 2, 2) + bytes(20)
    changes = damages(draw, 6) | {
        "another magic": lambda content: b"\x00\x00\x0d\x03" + content[4:],
        "negative lengths": lambda content: content[:4] + struct.pack(">iii", -5, 2, 2) + content[16:],
        "lengths of 10^27": lambda content: (
            content[:4] + struct.pack(">iii", 2**31 - 1, 2**31 - 1, 2**31 - 1) + content[16:]
        ),
        "a fine file of other images": lambda content: content,
    }
    for name, change in changes.items():

        def prepare(folder: Path, change: Bytes = change) -> Attempt:
            (folder / "mnist").mkdir()
            for file in files.IDX:
                (folder / "mnist" / file).write_bytes(change(idx))
            return Attempt(datasets.load_images, ("mnist",), {"cache": folder}, ("train-images",))

        yield Case("data files", f"load_images, IDX: {name}", Call(prepare))
    gz: dict[str, Callable[[], bytes]] = {
        "cut": lambda: gzip.compress(idx)[:-9],
        "no gzip": lambda: b"mine",
        "flipped": lambda: _flip(gzip.compress(idx)),
        "two in one": lambda: gzip.compress(idx) * 2,
        "a bomb of 400 MB": lambda: _bomb(400 * 2**20),
        "a bomb in a bomb": lambda: gzip.compress(_bomb(200 * 2**20)),
    }
    for name, make in gz.items():

        def prepare(folder: Path, make: Callable[[], bytes] = make) -> Attempt:
            (folder / "from").mkdir()
            (folder / "cache").mkdir()
            content = make()
            for file in files.IDX:
                (folder / "from" / f"{file}.gz").write_bytes(content)
            keywords = {"folder": folder / "from", "cache": folder / "cache", "progress": False}
            return Attempt(_fetch, ("mnist",), keywords, ("train-images",), n_lines=9)

        yield Case("data files", f"fetch, gzip: {name}", Call(prepare), ("cache/mnist",))
    for name in ("nope", "", "../mnist", "/etc", None, 3, ["mnist"], "mnist\0"):
        for function in (files.fetch, files.read_verified, files.file_paths, files.data_checksum, datasets.load_images):
            arguments = (name, "x") if function is files.read_verified else (name,)
            run = Call(lambda _, f=function, a=arguments: Attempt(f, a, {}, ("name",)))
            yield Case("data files", f"{function.__name__}({short(name)})", run)
    for file in ("nope", "../x", "", None):
        run = Call(lambda folder, f=file: Attempt(files.read_verified, ("mnist", f, folder), {}, ("file",)))
        yield Case("data files", f"read_verified, file = {file!r}", run)


def _fetch(*arguments: Any, **keywords: Any) -> Any:
    import logging

    logging.getLogger("gsae_lib").setLevel(logging.CRITICAL)
    return files.fetch(*arguments, **keywords)


_fetch.__doc__ = files.fetch.__doc__


def _bomb(size: int) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as zipped:
        for _ in range(size // 2**24):
            zipped.write(bytes(2**24))
    return file.getvalue()


def _flip(content: bytes) -> bytes:
    return content[:20] + bytes([content[20] ^ 255]) + content[21:]


def _kept_cases(draw: random.Random) -> Iterator[Case]:
    """The file of features that is kept, damaged: they are computed again."""
    images = torch.rand(4, 8, 8, generator=rng())
    npz = {
        "an NPZ of another name": _zip(x=np.zeros(3)),
        "objects": _archive({"coefficients.npy": _npy(np.array([_Bomb()], dtype=object), allow_pickle=True)}),
        "a shape of 10^12": _archive(
            {"coefficients.npy": _header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }")}
        ),
        "a file of six bytes": _archive({"coefficients.npy": b"\x93NUMPY"}),
        "an array of another shape": _zip(coefficients=np.zeros((3, 3), np.float32)),
        "doubles": _zip(coefficients=np.zeros((4, 3), np.float64)),
        "deflated and damaged": _flip_in(_zip(coefficients=np.arange(4000, dtype=np.float32))),
    }
    for name, change in {
        **damages(draw, 4),
        **{name: (lambda _, c=content: c) for name, content in npz.items()},
    }.items():

        def prepare(folder: Path, change: Bytes = change) -> Attempt:
            import logging

            logging.getLogger("gsae_lib").setLevel(logging.CRITICAL)
            os.environ["TQDM_DISABLE"] = "1"
            expected = features.scattering_coefficients(images, 2, 4, cache=folder)
            [path] = (folder / "features").glob("*.npz")
            path.write_bytes(change(path.read_bytes()))

            def right(found: Any) -> bool:
                return same(expected, found, 1e-5, 1e-6)

            return Attempt(_kept, (images,), {"cache": folder}, (), right)

        yield Case("data files", f"kept features: {name}", Call(prepare), ("features/*",))


def _kept(images: Any, cache: Path) -> Any:
    return features.scattering_coefficients(images, 2, 4, cache=cache)


_kept.__doc__ = features.scattering_coefficients.__doc__


def _flip_in(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(40) + content[middle + 40 :]
