"""Saved models: arrays in path.safetensors, everything else in path.json, under one checksum. Nothing is executed.

The fields are those of saved estimators of format 2: class, parameters, fitted (numbers), feature_names, sha256.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

FORMAT = 2
FIELDS = {"format", "class", "parameters", "fitted", "feature_names", "sha256"}


def write_saved(path: str | Path, kind: str, parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write both files, each as a whole; folders are made.

    Raises:
        OSError: a file cannot be written; the old one is still there.
    """
    kept = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    content = {"format": FORMAT, "class": kind, "parameters": dict(parameters), "fitted": {}, "feature_names": None}
    text = json.dumps(content | {"sha256": checksum(content, kept)}, indent=1, allow_nan=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _replace(beside(path, ".safetensors"), to_bytes(kept))
    _replace(beside(path, ".json"), (text + "\n").encode())


def read_saved(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The parameters and arrays that `write_saved` wrote.

    Raises:
        ValueError: files of another kind, damaged ones, or no such files' content; one line. OSError: no such files.
    """
    text, packed = beside(path, ".json").read_bytes(), beside(path, ".safetensors").read_bytes()
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.keys() != FIELDS or not isinstance(content["parameters"], dict):
            raise ValueError("its fields are others")
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {str(content['format'])[:20]}, expected {FORMAT}")
        if content["class"] != kind:
            raise ValueError(f"it holds a {content['class']}, expected a {kind}")
        arrays = _unpack(packed)
        if content.pop("sha256") != checksum(content, arrays):
            raise ValueError("damaged: its checksum is another")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"path={str(path)!r}: not a saved {kind}: {' '.join(str(error).split())[:500]}") from error
    return content["parameters"], arrays


def checksum(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over what the files hold."""
    found = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape} {arrays[name].dtype.str}".encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


def beside(path: str | Path, suffix: str) -> Path:
    """The path with a suffix added; `Path.with_suffix` would cut "run-0.1"."""
    path = Path(path)
    return path.with_name(path.name + suffix)


def _unpack(packed: bytes) -> dict[str, np.ndarray]:
    try:
        return from_bytes(packed)
    except Exception as error:  # a header may say anything
        raise ValueError(f"its arrays are damaged ({error})") from None


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
