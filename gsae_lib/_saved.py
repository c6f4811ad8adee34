"""Saved models: arrays in path.safetensors, everything else in path.json, under one checksum. Nothing is executed.

The fields of the JSON are format, class, parameters, fitted (what is no array), feature_names and sha256. Reading
checks the files; whether parameters and arrays can be those of a model, the model's own class does.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from gsae_lib._files import replace_file

FORMAT = 2
FIELDS = {"format", "class", "parameters", "fitted", "feature_names"}


def write_saved(
    path: str | Path,
    kind: str,
    parameters: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    fitted: Mapping[str, Any] | None = None,
    feature_names: Sequence[str] | None = None,
) -> None:
    """Write both files, each replaced as a whole; folders are made.

    Args:
        kind: the name of the model's class. parameters, fitted: for JSON.

    Raises:
        OSError: a file cannot be written; the old one is still there.
    """
    kept = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    content = {"format": FORMAT, "class": kind, "parameters": dict(parameters), "fitted": dict(fitted or {})}
    content["feature_names"] = None if feature_names is None else list(feature_names)
    text = json.dumps(content | {"sha256": checksum(content, kept)}, indent=1, allow_nan=False)
    Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
    replace_file(beside(path, ".safetensors"), to_bytes(kept))
    replace_file(beside(path, ".json"), text + "\n")


def read_saved(
    path: str | Path, kind: str, others: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The fields and the arrays that `write_saved` wrote, with dictionaries for parameters and fitted.

    Args:
        kind: the name of the model's class. others: names of classes that are taken, too.

    Raises:
        ValueError: files of another class, or damaged ones; one line. OSError: no such files.
    """
    text, packed = (_read(path, suffix, kind) for suffix in (".json", ".safetensors"))
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
        arrays = _unpack(packed)
        found = _field(content, "class", str)
        if found != kind and found not in others:
            raise ValueError(f"it holds a {found}, expected a {kind}")
        _check_signed(content, arrays)
        _field(content, "parameters", dict)
        _field(content, "fitted", dict)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise not_saved(path, kind, error) from error
    return content, arrays


def not_saved(path: str | Path, kind: str, error: Exception) -> ValueError:
    """The one line that says what is wrong with the files of a model."""
    return ValueError(f"path={str(path)!r}: not a saved {kind}: {one_line(error)}")


def checksum(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over what the files hold."""
    found = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape} {arrays[name].dtype.str}".encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


def one_line(error: Exception) -> str:
    """What an error says, without the arrays that some print, on one line."""
    text = str(error) or type(error).__name__
    if "\n" in text:
        text = re.sub(r"(array=)?\[.*\]\.?", "", text, flags=re.DOTALL)
    text = " ".join(text.split())
    return text if len(text) <= 500 else f"{text[:500]}..."


def beside(path: str | Path, suffix: str) -> Path:
    """The path with a suffix added; `Path.with_suffix` would cut "run-0.1"."""
    path = Path(path)
    return path.with_name(path.name + suffix)


def _check_signed(content: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """ValueError unless the files have the fields that are written, and their checksum, which is taken away.

    Files without one, of version 0.2 and before, are refused: a file that has lost it would look the same.
    """
    if "sha256" not in content:
        raise ValueError("it has no checksum, as files of version 0.2 and before; fit again, and save")
    told = content.pop("sha256")
    for name in sorted(FIELDS ^ content.keys()):
        raise ValueError(f"{name!r} is {'missing' if name in FIELDS else 'no field of it'}")
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {str(content['format'])[:20]}, expected {FORMAT}")
    if told != checksum(content, arrays):
        raise ValueError("damaged: its checksum is another")


def _read(path: str | Path, suffix: str, kind: str) -> bytes:
    """The content of a file beside the path; a pipe or a device, which may have no end, is refused."""
    file = beside(path, suffix)
    if file.exists() and not file.is_file():
        raise not_saved(path, kind, ValueError(f"{file.name} is no file"))
    return file.read_bytes()


def _unpack(packed: bytes) -> dict[str, np.ndarray]:
    try:
        return from_bytes(packed)
    except Exception as error:  # a header may say anything
        raise ValueError(f"its arrays are damaged ({one_line(error)})") from None


def _field(content: Any, name: str, kind: type) -> Any:
    """A field of JSON, or ValueError if it is missing or of another kind."""
    if not isinstance(content, dict) or not isinstance(content.get(name), kind):
        raise ValueError(f"{name!r} is missing, or no {kind.__name__}")
    return content[name]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, or ValueError if it has a name twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
