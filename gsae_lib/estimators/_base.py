"""What the estimators share: validation, coding in blocks, the score, files."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from gsae_lib._checks import (
    as_array,
    check_choice,
    check_columns,
    check_device,
    check_int,
    check_mapped,
    check_mask,
    check_real,
    describe,
    on_disk,
    without_autocast,
)
from gsae_lib._saved import not_saved, one_line, read_saved, write_saved
from gsae_lib.groups import GroupLayout, disjoint_layout, group_layout, group_norms, normalized_group_norms
from gsae_lib.metrics import reconstruct_from_strongest

BLOCK = 10_000  # samples coded at a time
SCORED_SHARE = 10  # the score keeps one number in so many

Output = Literal["codes", "norms", "normalized norms"]
NORMS = {"norms": group_norms, "normalized norms": normalized_group_norms}


class Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Codes with components_, in groups, and what is made of them: `output` says what is returned."""

    # Of whole parameters the least value, where it is not 1, and the largest. Real ones are above 0, or from 0 if it is
    # here.
    LEAST: ClassVar[dict[str, int]] = {"max_iter": 0, "verbose": 0, "random_state": 0}
    MOST: ClassVar[dict[str, int]] = {"n_iterations": 100_000, "random_state": 2**32 - 1}
    GROUPS: ClassVar[str] = "group_size"  # the parameter that says the groups; with _ behind it, what `fit` made of it

    def save(self, path: str | Path) -> None:
        """Write parameters and what was fitted: arrays to path.safetensors, the rest to path.json; folders are made.

        Each file is replaced as a whole, and a checksum over both is in the second. Not kept are a `random_state` that
        is a generator, and a `checkpoint` that is not in the folder of the files or below it.

        Raises:
            ValueError: a parameter was set to what does not fit what was fitted. NotFittedError: before `fit`.
            OSError: the files cannot be written.
        """
        check_is_fitted(self)
        self._check_parameters()
        self._check_fitted()
        fitted = self._fitted()
        names = fitted.pop("feature_names_in_", None)
        arrays = {k: v for k, v in fitted.items() if isinstance(v, np.ndarray)}
        parameters = {k: _built_in(v) for k, v in self.get_params(deep=False).items() if _is_plain(k, v)}
        if parameters.get("checkpoint") is not None:
            parameters["checkpoint"] = _below(Path(os.path.realpath(path)).parent, parameters["checkpoint"])
        write_saved(
            path,
            type(self).__name__,
            parameters,
            arrays,
            fitted={k: _built_in(v) for k, v in fitted.items() if k not in arrays},
            feature_names=None if names is None else [str(name) for name in names],
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; nothing in the files is executed.

        Everything is checked: the checksum, types, ranges and shapes, and that arrays and parameters agree. A
        `checkpoint` is in the folder of the files or below it.

        Raises:
            ValueError: files of another class, damaged ones, or ones that `save` did not write; names the file and what
                is wrong. OSError: no such files.
        """
        content, arrays = read_saved(path, cls.__name__)
        parameters = content["parameters"]
        if cls.GROUPS == "groups" and "group_size" in parameters:  # of version 0.3
            parameters["groups"] = parameters.pop("group_size")
            content["fitted"]["groups_"] = content["fitted"].pop("group_size_", None)
        try:
            estimator = cls(**parameters)
            if parameters.get("dictionary") is not None:
                raise ValueError("dictionary: expected none among the parameters")
            if "dictionary" in estimator.get_params() and "dictionary" not in parameters:
                estimator.dictionary = arrays["components_"]  # it was given, so that `fit` takes it again
            if getattr(estimator, "checkpoint", None) is not None:
                estimator.checkpoint = _in_folder(path, estimator.checkpoint)
            estimator._check_parameters()
            for name, value in (content["fitted"] | arrays).items():
                if not re.fullmatch("[a-z][a-z_]*_", name):
                    raise ValueError(f"{name!r} is nothing that `fit` sets")
                setattr(estimator, name, value)
            if (names := content["feature_names"]) is not None:
                estimator.feature_names_in_ = np.array(names, dtype=object)
            estimator._check_fitted()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise not_saved(path, cls.__name__, error) from error
        return estimator

    @without_autocast
    def transform(self, X: Any) -> np.ndarray:
        """Codes, (samples, components), or group norms, (samples, groups): see the class.

        Raises:
            TypeError: X that is sparse, or holds objects.
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
                codes = NORMS[self.output](codes, self._layout.groups)
            yield codes.cpu().numpy()

    @without_autocast
    def score(self, X: Any, y: object = None) -> float:
        r"""Explained variance of X at equal sparsity: 1 is perfect, 0 is the mean of X.

        Each sample is rebuilt, by least squares, from the strongest groups of its code alone
        (`metrics.reconstruct_from_strongest`): as many as hold a tenth of n_features numbers, at least one. A smaller
        alpha has no advantage then, so a search by this score on held-out data can choose alpha. It does not see the
        clusters.

        Raises:
            TypeError: X that is sparse, or holds objects.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        first = next(self._blocks(X[:1]))[0].double()
        mean = first + sum((block - first).sum(dim=0) for block in self._blocks(X)) / len(X)
        left = variance = 0.0
        for block in self._blocks(X):
            variance += (block - mean).square().sum().item()
            left += (block - self._rebuilt(block)).square().sum(dtype=torch.float64).item()
        if variance == 0:
            raise ValueError(f"X: expected samples that differ, got no variance in {len(X)}")
        return 1 - left / variance

    def _rebuilt(self, block: Tensor) -> Tensor:
        """Samples rebuilt from the strongest groups of their codes alone, a tenth of n_features numbers."""
        codes, weight = self._codes(block), self._weight(block)
        n_components, layout = len(self.components_), self._layout
        n_groups = layout.count(n_components)
        n_active = min(max(1, self.n_features_in_ * n_groups // (SCORED_SHARE * n_components)), n_groups)
        return reconstruct_from_strongest(self._lift(block), weight, codes, n_active, layout.groups)

    def _lift(self, block: Tensor) -> Tensor:
        """What is coded in place of the samples."""
        return block

    def _validate(self, X: Any, *, reset: bool) -> np.ndarray:
        """X, checked: float32 or float64, or a memory map as it is; before `fit` (reset) the parameters, too."""
        if reset:
            self._check_parameters()
        check_device(self.device)
        X = as_array("X", X) if isinstance(X, Tensor) else X
        check_mask("X", X)
        kinds = [X.dtype] if hasattr(X, "dtype") else list(getattr(X, "dtypes", ()))
        if any(getattr(kind, "kind", "") in "mM" for kind in kinds):
            raise ValueError("X: holds dates or times; expected numbers, such as the seconds since one of them")
        mapped = on_disk(X)
        settings = {"dtype": None if mapped else [np.float64, np.float32], "ensure_all_finite": False}
        try:
            X = validate_data(self, X, reset=reset, **settings)
        except (ValueError, TypeError) as error:
            if "feature names should match" in str(error):  # scikit-learn's checks want its own lines
                raise
            kind, text = TypeError if isinstance(error, TypeError) else ValueError, one_line(error)
            raise kind(text if re.search(r"\bX\b", text) else f"X: {text}") from None
        return check_mapped("X", X) if mapped else check_columns("X", X, getattr(self, "feature_names_in_", None))

    def _check_parameters(self) -> None:
        """ValueError unless each parameter is what its type says and in its range."""
        kinds = get_type_hints(type(self).__init__)
        for name, value in self.get_params(deep=False).items():
            if name == "device":
                check_device(value, present=False)
            elif not {np.ndarray, Path} & {*get_args(kinds[name])}:  # `fit` checks a dictionary, and a checkpoint
                _check_parameter(name, value, kinds[name], self.LEAST.get(name, 1), self.MOST.get(name))

    def _check_fitted(self) -> None:
        """ValueError unless each attribute that `fit` sets is there, is what it should be, and fits the others."""
        found, expected = self._fitted(), self._expected()
        names = found.pop("feature_names_in_", None)
        for name in sorted(found.keys() ^ expected.keys()):
            raise ValueError(f"{name}: {'missing' if name in expected else 'nothing that `fit` sets'}")
        for name, allowed in expected.items():
            if callable(allowed):
                allowed(name, found[name])
            else:
                _check_attribute(name, found[name], *allowed)
        count = found["n_features_in_"]
        if names is not None and (len(names) != count or not all(isinstance(name, str) for name in names)):
            raise ValueError(f"feature_names: expected {count} texts, got {str(names)[:100]}")

    def _fitted(self) -> dict[str, Any]:
        """What `fit` set, by name."""
        return {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}

    def _expected(self) -> dict[str, Any]:
        """What `fit` sets, by name: least and largest value; of an array its shape, None for a length that is free.

        An array without a largest value holds real numbers, and one with it whole ones. Or a function of the name and
        the value, which raises ValueError for what cannot be.
        """
        components = getattr(self, "components_", None)
        if not isinstance(components, np.ndarray) or components.ndim != 2 or not components.size:
            raise ValueError(f"components_: expected (components, features), got {describe(components)}")
        n_components, n_features = components.shape
        fitted = f"{self.GROUPS}_"
        setattr(self, fitted, fitting_layout(fitted, getattr(self, fitted, 0), n_components).groups)
        count = self._layout.count(n_components)
        for name, found in {self.GROUPS: self._layout.groups, "n_groups": count}.items():
            given: Any = getattr(self, name, "auto")
            if given != "auto" and group_layout(given).groups != found:
                raise ValueError(f"{name}={given}: what was fitted has {found}")
        return {
            "components_": (None, None, (n_components, n_features)),
            fitted: allow,
            "n_iter_": (1, 2**63),
            "n_features_in_": (n_features, n_features),
        }

    def _blocks(self, X: np.ndarray, rows: np.ndarray | None = None) -> Iterator[Tensor]:
        """Copies of the samples, or of some, a block at a time, on the device."""
        for start in range(0, len(X if rows is None else rows), BLOCK):
            block = X[start : start + BLOCK] if rows is None else X[rows[start : start + BLOCK]]
            yield torch.from_numpy(self._scaled(block)).to(self.device)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        """A copy of the samples, as they are coded."""
        return np.array(X, dtype=precision(X), order="C")

    def _weight(self, like: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.components_.T)).to(self.device, like.dtype)

    def _codes(self, block: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def _layout(self) -> GroupLayout:
        """The groups of the components."""
        return group_layout(getattr(self, f"{self.GROUPS}_"))

    @property
    def _n_features_out(self) -> int:
        n_components = len(self.components_)
        return self._layout.count(n_components) if self.output in NORMS else n_components


def fitting_layout(name: str, groups: Any, n_components: int) -> GroupLayout:
    """The layout of groups that share no component, or ValueError if they are not those of so many components."""
    try:
        layout = disjoint_layout(groups)
    except ValueError as error:
        raise ValueError(f"{name}={groups!r}: {error}") from None
    if n_components % layout.width if layout.n_atoms is None else n_components != layout.n_atoms:
        said = "does not divide" if layout.n_atoms is None else f"expected {layout.n_atoms} components, got"
        raise ValueError(f"{name}={groups!r}: {said} {n_components}{' components' if layout.n_atoms is None else ''}")
    return layout


def allow(name: str, value: Any) -> None:
    """Checked already."""


def precision(X: np.ndarray) -> type[np.floating[Any]]:
    """float32 for float32, and float64 for everything else."""
    return np.float32 if X.dtype == np.float32 else np.float64


def _check_parameter(name: str, value: Any, kind: Any, least: int, most: int | None) -> None:
    """ValueError unless a value is one that a type of a parameter allows; numbers in their range."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]
    if any(type(value) is type(choice) and value == choice for choice in choices) or (
        value is None and NoneType in kinds
    ):
        return
    if bool in kinds and isinstance(value, bool):
        return
    if any(get_origin(one) is Sequence for one in kinds) and isinstance(value, Sequence) and not isinstance(value, str):
        return  # `fit` checks groups, which have to fit the data
    if isinstance(value, tuple(one for one in kinds if isinstance(one, type) and one not in (int, float, bool))):
        return
    if choices and not {int, float} & {*kinds}:
        check_choice(name, value, choices)
    if choices and isinstance(value, str):
        raise ValueError(f"{name}={value!r}: expected a number or {', '.join(map(repr, choices))}")
    if float in kinds:
        check_real(name, value, high=math.inf if most is None else most, strict=bool(least))
    elif int in kinds:
        check_int(name, value, low=least, high=most)
    elif str in kinds:
        raise ValueError(f"{name}={value!r}: expected a text")


def _check_attribute(name: str, value: Any, low: int | None, high: int | None, shape: tuple[Any, ...] = ()) -> None:
    """ValueError unless a fitted attribute is a whole number in a range, or an array of that shape, finite or so."""
    if not shape:
        check_int(name, value, low=low or 0, high=high)
        return
    wanted = ", ".join("any" if length is None else str(length) for length in shape)
    fits = isinstance(value, np.ndarray) and value.ndim == len(shape)
    if not fits or any(length not in (None, found) for length, found in zip(shape, value.shape, strict=True)):
        raise ValueError(f"{name}: expected an array of shape ({wanted}), got {describe(value)}")
    if high is None:
        if value.dtype not in (np.float32, np.float64):
            raise ValueError(f"{name}: expected float32 or float64, got {describe(value)}")
        check_columns(name, value)
    elif value.dtype not in (np.int32, np.int64):
        raise ValueError(f"{name}: expected int32 or int64, got {describe(value)}")
    elif value.size and not low <= value.min() <= value.max() <= high:
        raise ValueError(f"{name}: expected whole numbers from {low} to {high}, got {value.min()} to {value.max()}")


def _below(folder: Path, file: str) -> str | None:
    """A path that counts from a folder, or None if it leads out of it."""
    relative = os.path.relpath(os.path.realpath(file), folder)
    return None if relative.split(os.sep)[0] == ".." else relative


def _in_folder(path: str | Path, file: Any) -> str:
    """The path that `_below` made one of the folder, or ValueError if it leads out of it."""
    folder = Path(path).parent
    real = Path(os.path.realpath(folder))
    if not isinstance(file, str) or "\0" in file or not Path(os.path.realpath(real / file)).is_relative_to(real):
        raise ValueError(f"checkpoint={str(file)[:100]!r}: expected a file in the folder of the model")
    return str(folder / file)


def _is_plain(name: str, value: Any) -> bool:
    """Whether a parameter is kept as it is: not a given dictionary, which is fitted too, and not a generator."""
    return (name != "dictionary" or value is None) and not isinstance(value, np.random.RandomState)


def _built_in(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
