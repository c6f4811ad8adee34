"""What the estimators share: validation, coding in blocks, the score, files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from gsae_lib._checks import check_mapped, on_disk
from gsae_lib.groups import group_norms, normalized_group_norms
from gsae_lib.metrics import reconstruct_from_strongest

BLOCK = 10_000  # samples coded at a time
SCORED_SHARE = 10  # the score keeps one number in so many

Output = Literal["codes", "norms", "normalized norms"]
NORMS = {"norms": group_norms, "normalized norms": normalized_group_norms}


class Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Codes with components_, in groups of group_size_, and what is made of them: `output` says what is returned."""

    def save(self, path: str | Path) -> None:
        """Write parameters and what was fitted: arrays to path.safetensors, the rest to path.json; folders are made.

        A `random_state` that is a generator is not kept.

        Raises:
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        fitted = {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}
        arrays = {k: np.ascontiguousarray(v) for k, v in fitted.items() if isinstance(v, np.ndarray)}
        plain = {k: _built_in(v) for k, v in fitted.items() if k not in arrays}
        dropped = (np.ndarray, np.random.RandomState)  # a given dictionary, which is fitted too; a generator
        parameters = {k: _built_in(v) for k, v in self.get_params(deep=False).items() if not isinstance(v, dropped)}
        names = arrays.pop("feature_names_in_", None)
        content = {
            "class": type(self).__name__,
            "parameters": parameters,
            "fitted": plain,
            "feature_names": None if names is None else [str(name) for name in names],
        }
        text = json.dumps(content, indent=1, allow_nan=False)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, _beside(path, ".safetensors"))
        _beside(path, ".json").write_text(text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; nothing in the files is executed.

        Raises:
            ValueError: files of another class, or damaged ones. OSError: no such files.
        """
        text = _beside(path, ".json").read_text()
        try:
            content = json.loads(text)
            found = content["class"]
            if found != cls.__name__:
                raise ValueError(f"it holds a {found}, expected a {cls.__name__}")
            estimator = cls(**content["parameters"])
            fitted = {**content["fitted"], **load_file(_beside(path, ".safetensors"))}
        except (ValueError, TypeError, KeyError, SafetensorError) as error:
            raise ValueError(f"path={str(path)!r}: not a saved {cls.__name__}: {error}") from error
        if content.get("feature_names") is not None:
            fitted["feature_names_in_"] = np.array(content["feature_names"], dtype=object)
        for name, value in fitted.items():
            setattr(estimator, name, value)
        return estimator

    def transform(self, X: Any) -> np.ndarray:
        """Codes, (samples, components), or group norms, (samples, groups): see the class.

        Raises:
            ValueError: X that does not fit what was fitted. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        return self._represent(self._validate(X, reset=False))

    def _represent(self, X: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """What `transform` returns, as an array, of samples that are validated, or of some of them."""
        shown = np.empty((len(X if rows is None else rows), self._n_features_out), dtype=precision(X))
        start = 0
        for block in self._represented(X, rows):
            shown[start : start + len(block)] = block
            start += len(block)
        return shown

    def _represented(self, X: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The same, a block at a time."""
        for block in self._blocks(X, rows):
            codes = self._codes(block)
            if self.output in NORMS:
                codes = NORMS[self.output](codes, self.group_size_)
            yield codes.cpu().numpy()

    def score(self, X: Any, y: object = None) -> float:
        r"""Explained variance of X at equal sparsity: 1 is perfect, 0 is the mean of X.

        Each sample is rebuilt, by least squares, from the strongest groups of its code alone
        (`metrics.reconstruct_from_strongest`): as many as hold a tenth of n_features numbers, at least one. A smaller
        alpha has no advantage then, so a search by this score on held-out data can choose alpha. It does not see the
        clusters.

        Raises:
            ValueError: X that does not fit what was fitted, or without variance. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        first = torch.from_numpy(np.array(X[0], dtype=np.float64)).to(self.device)
        mean = first + sum((block - first).sum(dim=0) for block in self._blocks(X)) / len(X)
        count = min(max(1, X.shape[1] // (SCORED_SHARE * self.group_size_)), len(self.components_) // self.group_size_)
        left = variance = 0.0
        for block in self._blocks(X):
            variance += (block - mean).square().sum().item()
            left += (block - self._rebuilt(block, count)).square().sum(dtype=torch.float64).item()
        if variance == 0:
            raise ValueError(f"X: expected samples that differ, got no variance in {len(X)}")
        return 1 - left / variance

    def _rebuilt(self, block: Tensor, count: int) -> Tensor:
        """Samples rebuilt from the strongest groups of their codes alone."""
        codes, weight = self._codes(block), self._weight(block)
        return reconstruct_from_strongest(block, weight, codes, count, self.group_size_)

    def _validate(self, X: Any, *, reset: bool) -> np.ndarray:
        """X, checked: float32 or float64, or a memory map as it is."""
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        if on_disk(X):
            return check_mapped("X", validate_data(self, X, dtype=None, reset=reset, ensure_all_finite=False))
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)

    def _blocks(self, X: np.ndarray, rows: np.ndarray | None = None) -> Iterator[Tensor]:
        """Copies of the samples, or of some, a block at a time, on the device."""
        for start in range(0, len(X if rows is None else rows), BLOCK):
            block = X[start : start + BLOCK] if rows is None else X[rows[start : start + BLOCK]]
            yield torch.from_numpy(np.array(block, dtype=precision(X))).to(self.device)

    def _weight(self, like: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.components_.T)).to(self.device, like.dtype)

    def _codes(self, block: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def _n_features_out(self) -> int:
        return len(self.components_) // (self.group_size_ if self.output in NORMS else 1)


def precision(X: np.ndarray) -> type[np.floating[Any]]:
    """float32 for float32, and float64 for everything else."""
    return np.float32 if X.dtype == np.float32 else np.float64


def _built_in(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value


def _beside(path: str | Path, suffix: str) -> Path:
    """The path with a suffix added; `Path.with_suffix` would cut "run-0.1"."""
    path = Path(path)
    return path.with_name(path.name + suffix)
