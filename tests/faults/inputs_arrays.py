"""Bad arrays and bad numbers, given to the public functions and the estimators of the library."""

import dataclasses
import functools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from torch import Tensor

from faults.inputs_cases import Attempt, Call, Case, finite, same
from faults.inputs_commands import short
from gsae_book.data import features
from gsae_lib import (
    activations,
    clustering,
    dictionary,
    groups,
    metrics,
)
from gsae_lib.coding import group_lasso as coding
from gsae_lib.estimators import (
    GroupSparseClustering,
    GroupSparseCoder,
    GroupSparseDictionaryLearning,
    alpha_for_target_sparsity,
    scaling,
)
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.learning import alternating as dictionary_learning
from gsae_lib.learning import initialization
from gsae_lib.learning import pairwise as pairs
from gsae_lib.networks import autoencoder
from gsae_lib.networks import sparse_gradient as structured
from gsae_lib.theory import certificate, gradient, population, windows
from gsae_lib.training import loop as training

FAMILY = "arrays"
N, FEATURES, GROUPS, SIZE = 40, 8, 4, 2
BAD_ROW = 3
NUMBERS: list[Any] = [0, -1, 1.5, math.nan, math.inf, "2", None, True, 10**30, [2], 3 + 0j, np.float64("nan"), b"2"]
REALS: list[Any] = [-1.0, math.nan, math.inf, "1", True, [1.0], 1j, b"1", {}]


def rng(seed: int = 0) -> torch.Generator:
    """A generator of torch."""
    return torch.Generator().manual_seed(seed)


def truth() -> Tensor:
    """A dictionary of four planes in eight dimensions."""
    return orthonormal_groups_dictionary(FEATURES, GROUPS, SIZE, generator=rng(), dtype=torch.float64)


def drawn() -> Any:
    """Samples of one active group each."""
    return GroupSparseSource.union_of_subspaces(truth(), SIZE, snr_db=25.0).sample(N, generator=rng(1))


def data() -> Tensor:
    """The samples, (40, 8)."""
    return drawn().data


def codes() -> Tensor:
    """Their codes, (40, 8)."""
    return drawn().codes


def model() -> autoencoder.GroupSparseAutoencoder:
    """A network on the dictionary."""
    return autoencoder.GroupSparseAutoencoder(FEATURES, GROUPS, SIZE, 0.5, n_iterations=2, dictionary=truth())


def trained(x: Any) -> Any:
    """The curve of two epochs of training."""
    settings = training.TrainingSettings(epochs=2, batch_size=10, progress=False)
    return training.train(model(), x, settings, generator=rng()).curves


trained.__doc__ = training.train.__doc__


def law() -> population.Population:
    """The law of the samples."""
    return population.Population(FEATURES, GROUPS, SIZE, 1)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A function, good arguments, and which are attacked: arrays by position, numbers by name with what is bad.

    pointwise: a function of each sample alone, whose results say nan where nan was given. fixed: the number of columns
    is known. tells: whether a result says that an array is not finite.
    """

    function: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]
    arrays: Mapping[int, str]
    keywords: Callable[[], dict[str, Any]] = dict
    numbers: Mapping[str, list[Any]] = dataclasses.field(default_factory=dict)
    pointwise: bool = False
    fixed: bool = False
    tells: Callable[[Any], bool] | None = None

    @property
    def name(self) -> str:
        """The function's."""
        return getattr(self.function, "__qualname__", type(self.function).__name__)


def _seeded(**more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"generator": rng(), **more}


GROUP = {"groups": [0, -1, 1.5, "2", True, 3, 10**30, math.nan, [3, 4], [2.0, 6], [[0, 1], [7, 8]], [[0, 0]], []]}
SIZE_ALONE = {"group_size": [0, -1, 1.5, "2", None, True, 3, 10**30, math.nan]}
PENALTY = {"penalty": REALS}
CODING = GROUP | {"penalty": [*REALS, 0.0], "tol": [*REALS, 0.0], "max_iter": [-1, 1.5, "2", None, True]}
SUBJECTS = [
    Subject(groups.to_groups, lambda: (codes(),), {0: "x"}, lambda: {"groups": SIZE}, GROUP, pointwise=True),
    Subject(groups.group_norms, lambda: (codes(),), {0: "x"}, lambda: {"groups": SIZE}, GROUP, pointwise=True),
    Subject(
        groups.normalized_group_norms, lambda: (codes(),), {0: "x"}, lambda: {"groups": SIZE}, GROUP, pointwise=True
    ),
    Subject(groups.active_groups, lambda: (codes(),), {0: "x"}, lambda: {"groups": SIZE}, GROUP, pointwise=True),
    Subject(
        activations.group_relu,
        lambda: (codes(),),
        {0: "x"},
        lambda: {"threshold": 0.5, "groups": SIZE},
        GROUP | {"threshold": REALS, "elementwise_threshold": REALS},
        pointwise=True,
    ),
    Subject(
        activations.soft_threshold,
        lambda: (codes(),),
        {0: "x"},
        lambda: {"threshold": 0.5},
        {"threshold": REALS},
        pointwise=True,
    ),
    Subject(
        activations.biased_relu,
        lambda: (codes(),),
        {0: "x"},
        lambda: {"threshold": 0.5},
        {"threshold": REALS},
        pointwise=True,
    ),
    Subject(
        activations.group_hard_threshold,
        lambda: (codes(),),
        {0: "x"},
        lambda: {"threshold": 0.5, "groups": SIZE},
        GROUP | {"threshold": REALS},
        pointwise=True,
    ),
    Subject(
        activations.group_top_k,
        lambda: (codes(),),
        {0: "x"},
        lambda: {"k": 1, "groups": SIZE},
        GROUP | {"k": [*NUMBERS, 5]},
        pointwise=True,
    ),
    Subject(dictionary.normalize_columns, lambda: (truth(),), {0: "dictionary"}),
    Subject(dictionary.orthonormalize_groups, lambda: (truth(),), {0: "dictionary"}, lambda: {"groups": SIZE}, GROUP),
    Subject(dictionary.coherence, lambda: (truth(),), {0: "dictionary"}),
    Subject(dictionary.block_coherence, lambda: (truth(),), {0: "dictionary"}, lambda: {"groups": SIZE}, GROUP),
    Subject(dictionary.perturbed_dictionary, lambda: (truth(), 0.5), {0: "dictionary"}, _seeded()),
    Subject(
        coding.group_sparse_code,
        lambda: (data(), truth()),
        {0: "data", 1: "dictionary"},
        lambda: {"penalty": 0.5, "groups": SIZE},
        CODING,
    ),
    Subject(
        coding.largest_penalty,
        lambda: (data(), truth()),
        {0: "data", 1: "dictionary"},
        lambda: {"groups": SIZE},
        GROUP,
    ),
    Subject(
        coding.group_lasso_objective,
        lambda: (data(), truth(), codes()),
        {0: "data", 1: "dictionary", 2: "codes"},
        lambda: {"penalty": 0.5, "groups": SIZE},
        GROUP | PENALTY,
    ),
    Subject(
        coding.duality_gap,
        lambda: (data(), truth(), codes()),
        {0: "data", 1: "dictionary", 2: "codes"},
        lambda: {"penalty": 0.5, "groups": SIZE},
        GROUP | PENALTY,
    ),
    Subject(
        coding.penalty_path,
        lambda: (data(), truth()),
        {0: "data", 1: "dictionary"},
        lambda: {"groups": SIZE, "n_penalties": 3},
        GROUP | {"ratio": [*REALS, 0.0, 2.0], "n_penalties": [*NUMBERS, 1]},
    ),
    Subject(
        dictionary_learning.alternating_minimization,
        lambda: (data(), truth()),
        {0: "data", 1: "init"},
        lambda: {"penalty": 0.5, "groups": SIZE, "max_iter": 2},
        GROUP | {"penalty": [*REALS, 0.0], "max_iter": NUMBERS, "batch_size": [0, -1, 1.5, "2", True, 5]},
    ),
    Subject(
        structured.shallow_gradient,
        lambda: (data(), truth()),
        {0: "data", 1: "dictionary"},
        lambda: {"penalty": 0.5, "group_size": SIZE},
        SIZE_ALONE | {"penalty": [*REALS, 0.0], "chunk": NUMBERS},
        tells=lambda result: not math.isfinite(result.loss),
    ),
    Subject(
        initialization.k_subspaces,
        lambda: (data(), GROUPS, SIZE),
        {0: "data"},
        _seeded(),
        {"n_init": NUMBERS, "max_iter": NUMBERS, "tol": REALS},
    ),
    *(
        Subject(
            initialization.initial_dictionary,
            lambda method=method: (data(), GROUPS, SIZE, method),
            {0: "data"},
            _seeded(),
        )
        for method in initialization.STARTS
    ),
    Subject(
        initialization.initial_dictionary,
        lambda: (data(),),
        {0: "data"},
        _seeded(n_groups=GROUPS, group_size=SIZE),
        {
            "n_groups": [*NUMBERS, 21],
            "group_size": [*NUMBERS, 9],
            "method": ["zeros", 3, None, ["data"]],
            "n_init": NUMBERS,
        },
    ),
    Subject(pairs.find_groups, lambda: (data(), GROUPS, SIZE), {0: "data"}, _seeded(max_tries=64), tells=finite),
    Subject(
        pairs.find_groups,
        lambda: (data(),),
        {},
        _seeded(n_groups=GROUPS, group_size=SIZE, max_tries=64),
        {
            "n_groups": [0, -1, 1.5, "2", True],
            "group_size": [0, -1, 1.5, "2", True, 9],
            "max_tries": [0, -1, 1.5, "2", True],
        },
    ),
    Subject(pairs.estimate_group_size, lambda: (data(),), {0: "data"}, _seeded(), tells=finite),
    Subject(clustering.positive_part, lambda: (codes(),), {0: "codes"}, pointwise=True),
    Subject(clustering.strongest_group, lambda: (codes(), SIZE), {0: "codes"}),
    Subject(
        clustering.kmeans_clusters,
        lambda: (data(), data()),
        {0: "train_features", 1: "test_features"},
        lambda: {"n_clusters": 4, "random_state": 0},
        {"n_clusters": [*NUMBERS, 41], "n_init": NUMBERS, "random_state": [-1, 1.5, "0", 2**40]},
    ),
    Subject(
        clustering.spectral_clusters,
        lambda: (data(), 4, 5),
        {0: "features"},
        lambda: {"random_state": 0},
        {"n_components": [0, -1, 1.5, "2", True, 40], "random_state": [-1, 1.5, "0", 2**40]},
    ),
    Subject(
        clustering.ensemble_clusters,
        lambda: (data(), 4, SIZE),
        {0: "data"},
        lambda: {"random_state": 0, "n_runs": 2},
        {"n_runs": NUMBERS, "random_state": [-1, 1.5, "0"]},
    ),
    Subject(
        clustering.coactivation_groups,
        lambda: (groups.group_norms(codes(), SIZE), 2),
        {0: "norms"},
        lambda: {"random_state": 0},
    ),
    Subject(metrics.dictionary_error, lambda: (truth(), truth()), {0: "dictionary", 1: "dictionary"}),
    Subject(metrics.rotated_dictionary_error, lambda: (truth(), truth(), SIZE), {0: "dictionary", 1: "dictionary"}),
    Subject(metrics.principal_angles, lambda: (truth(), truth(), SIZE), {0: "dictionary", 1: "dictionary"}),
    Subject(metrics.match_groups, lambda: (truth(), truth(), SIZE), {0: "dictionary", 1: "dictionary"}),
    Subject(metrics.support_recovery, lambda: (codes(), codes(), SIZE), {0: "codes", 1: "codes"}),
    Subject(metrics.clustering_scores, lambda: (drawn().labels, drawn().labels), {}, dict),
    Subject(metrics.distance_contrast, lambda: (data(), drawn().labels), {0: "points"}),
    Subject(metrics.dead_groups, lambda: (codes(), SIZE), {0: "codes"}),
    Subject(metrics.mean_active_groups, lambda: (codes(), SIZE), {0: "codes"}),
    Subject(metrics.explained_variance, lambda: (data(), data()), {0: "data", 1: "reconstruction"}),
    Subject(
        metrics.reconstruct_from_strongest,
        lambda: (data(), truth(), codes()),
        {0: "data", 1: "dictionary", 2: "codes"},
        lambda: {"n_active": 1, "groups": SIZE},
        GROUP | {"n_active": [*NUMBERS, 5]},
    ),
    Subject(
        autoencoder.GroupSparseAutoencoder,
        lambda: (FEATURES, GROUPS, SIZE, 0.5),
        {},
        _seeded(),
        {
            "n_iterations": NUMBERS,
            "step_size": [*REALS, 0.0, "big"],
            "gradient": ["both", 3],
            "dictionary": [
                torch.zeros(3, 3),
                "x",
                3,
                np.zeros((8, 8)),
                torch.full((8, 8), math.nan),
                torch.zeros(8, 8, dtype=torch.int64),
            ],
        },
    ),
    Subject(model().encode, lambda: (data(),), {0: "data"}, pointwise=True, fixed=True),
    Subject(autoencoder.set_target_sparsity, lambda: (model(), data(), 1.0), {1: "data"}, fixed=True),
    Subject(autoencoder.summarize_codes, lambda: (model(), data(), drawn().labels), {1: "data"}, fixed=True),
    Subject(trained, lambda: (data(),), {0: "data"}, fixed=True),
    Subject(
        training.TrainingSettings,
        lambda: (),
        {},
        dict,
        {
            "epochs": NUMBERS,
            "learning_rate": [*REALS, 0.0],
            "batch_size": [0, -1, 1.5, "2", True],
            "optimizer": ["lbfgs", 3, None],
            "normalize": ["rows", 3],
            "device": ["gpu!", 1.5, "cuda", "cuda:99", "meta", "mps", "", None, []],
            "steps_per_epoch": NUMBERS,
        },
    ),
    Subject(
        GroupSparseSource,
        lambda: (truth(),),
        {0: "dictionary"},
        lambda: {"group_size": SIZE},
        SIZE_ALONE
        | {
            "n_active": [*NUMBERS, 5],
            "codes": ["cauchy", 3],
            "norm_range": [(1,), (2, 1), (0, 1), "ab", (math.nan, 1), 3, None, (1, 2, 3)],
            "snr_db": [math.nan, math.inf, "1", 1e9],
            "snr_of": ["both", 3],
        },
    ),
    Subject(GroupSparseSource.gaussian_mixture, lambda: (truth(),), {0: "means"}, lambda: {"snr_db": 10.0}),
    Subject(
        alpha_for_target_sparsity,
        lambda: (data().numpy(), truth().T.numpy(), SIZE, 1.0),
        {0: "X", 1: "components"},
    ),
    Subject(scaling.fit_scaling, lambda: (data().numpy(), "standardize"), {0: "table"}),
    Subject(scaling.fit_scaling(data().numpy(), "standardize"), lambda: (data().numpy(),), {0: "table"}, fixed=True),
    Subject(features.PixelFeatures().fit, lambda: (data().numpy().reshape(-1, 2, 4),), {0: "images"}),
    Subject(certificate.certify, lambda: (data(), truth(), 0.5, SIZE), {0: "sample", 1: "dictionary"}),
    Subject(
        functools.wraps(certificate.certify)(
            lambda second: certificate.certify(data(), truth(), 0.5, SIZE, second_dictionary=second)
        ),
        lambda: (truth(),),
        {0: "second_dictionary"},
    ),
    Subject(
        windows.support_recovery_windows, lambda: (truth(), truth(), law()), {0: "dictionary", 1: "true_dictionary"}
    ),
    Subject(gradient.horizontal, lambda: (truth(), truth(), SIZE), {0: "dictionary", 1: "gradient"}),
    Subject(population.orthonormality, lambda: (truth(), SIZE), {0: "dictionary"}),
]


def _put(x: Tensor, value: float, row: int = BAD_ROW) -> Tensor:
    other = x.clone()
    other[row, 1] = value
    return other


# What becomes of a tensor; and whether a function may take it: never, as if nothing had been done to it, or in any way
# that gives finite numbers.
TENSORS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "nan": (lambda x: _put(x, math.nan), "spoiled"),
    "inf": (lambda x: _put(x, math.inf), "spoiled"),
    "-inf": (lambda x: _put(x, -math.inf), "spoiled"),
    "1e300": (lambda x: _put(x, 1e300), "spoiled"),
    "all 1e200": (lambda x: torch.full_like(x, 1e200), "spoiled"),
    "integers": (lambda x: x.long(), "finite"),
    "booleans": (lambda x: x > 0, "finite"),
    "complex": (lambda x: x + 0j, "never"),
    "one axis": (lambda x: x.flatten(), "shape"),
    "three axes": (lambda x: x.unsqueeze(0), "shape"),
    "no axis": (lambda x: x[0, 0], "never"),
    "no rows": (lambda x: x[:0], "finite"),
    "no columns": (lambda x: x[:, :0], "finite"),
    "a column more": (lambda x: torch.cat([x, x[:, :1]], dim=1), "shape"),
    "a list": (lambda x: x.tolist(), "never"),
    "an array": (lambda x: x.numpy(), "same"),
    "a frame": (lambda x: pd.DataFrame(x.numpy()), "same"),
    "null": (lambda x: None, "never"),
    "a text": (lambda x: "x", "never"),
    "an object": (lambda x: object(), "never"),
    "sparse": (lambda x: x.to_sparse(), "same"),
    "half": (lambda x: x.half(), "near"),
    "single": (lambda x: x.float(), "near"),
    "not contiguous": (lambda x: x.T.contiguous().T, "same"),
    "every second row of a larger one": (lambda x: torch.repeat_interleave(x, 2, dim=0)[::2], "same"),
    "with a gradient": (lambda x: x.clone().requires_grad_(), "same"),
    "a parameter": (lambda x: torch.nn.Parameter(x.clone()), "same"),
    "zeros": (torch.zeros_like, "finite"),
    "one value": (torch.ones_like, "finite"),
    "1e-310": (lambda x: x * 1e-310, "finite"),
    "one row again and again": (lambda x: x[:1].expand(x.shape), "finite"),
}
ARRAYS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "nan": (lambda x: _put(torch.from_numpy(x), math.nan).numpy(), "never"),
    "inf": (lambda x: _put(torch.from_numpy(x), math.inf).numpy(), "never"),
    "1e300": (lambda x: _put(torch.from_numpy(x), 1e300).numpy(), "never"),
    "all 1e200": (lambda x: np.full_like(x, 1e200), "never"),
    "3e38 in float32": (lambda x: np.full(x.shape, 3e38, np.float32), "never"),
    "complex": (lambda x: x + 0j, "never"),
    "texts": (lambda x: np.full(x.shape, "a"), "never"),
    "bytes": (lambda x: np.full(x.shape, b"a"), "never"),
    "objects": (lambda x: np.full(x.shape, object()), "never"),
    "null": (lambda x: None, "never"),
    "an array of null": (lambda x: np.full(x.shape, None), "never"),
    "a text": (lambda x: "x", "never"),
    "a mapping": (lambda x: {"a": 1}, "never"),
    "a number": (lambda x: 3.0, "never"),
    "one axis": (lambda x: x[:, 0], "never"),
    "three axes": (lambda x: x[None], "never"),
    "no rows": (lambda x: x[:0], "never"),
    "no columns": (lambda x: x[:, :0], "never"),
    "rows of other lengths": (lambda x: [*x.tolist()[:-1], [1.0]], "never"),
    "dates": (lambda x: x.astype("datetime64[s]"), "never"),
    "fields": (lambda x: np.zeros(len(x), dtype=[("a", float), ("b", float)]), "never"),
    "masked": (lambda x: np.ma.masked_array(x, x > 1), "never"),
    "a matrix": (lambda x: np.asmatrix(x), "never"),
    "sparse": (scipy.sparse.csr_matrix, "never"),
    "a sparse array": (scipy.sparse.coo_array, "never"),
    "a sparse tensor": (lambda x: torch.from_numpy(x).to_sparse(), "never"),
    "a brain float tensor": (lambda x: torch.from_numpy(x).bfloat16(), "near"),
    "a frame with a text column": (lambda x: pd.DataFrame(x).assign(t="a"), "never"),
    "a frame with a gap": (lambda x: pd.DataFrame(x).mask(pd.DataFrame(x) > 2), "never"),
    "a frame of null": (lambda x: pd.DataFrame(x).astype("Float64").mask(pd.DataFrame(x) > 2), "never"),
    "a frame with dates": (lambda x: pd.DataFrame(x).assign(t=pd.Timestamp("2020-01-01")), "never"),
    "a frame of names of two kinds": (lambda x: pd.DataFrame(x).assign(t=1.0), "never"),
    "a frame of names twice": (lambda x: pd.DataFrame(x, columns=["a"] * x.shape[1]), "same"),
    "a series": (lambda x: pd.Series(x[:, 0]), "never"),
    "a list": (lambda x: x.tolist(), "same"),
    "a tuple of arrays": (lambda x: tuple(x), "same"),
    "objects that are numbers": (lambda x: x.astype(object), "same"),
    "big-endian": (lambda x: x.astype(">f8"), "same"),
    "long double": (lambda x: x.astype(np.longdouble), "same"),
    "half": (lambda x: x.astype(np.float16), "near"),
    "by columns": (np.asfortranarray, "same"),
    "backwards in memory": (lambda x: x[::-1].copy()[::-1], "same"),
    "every second row of a larger one": (lambda x: np.repeat(x, 2, axis=0)[::2], "same"),
    "read-only": (lambda x: _read_only(x), "same"),
    "a frame": (lambda x: pd.DataFrame(x, columns=[f"x{k}" for k in range(x.shape[1])]), "same"),
    "a tensor with a gradient": (lambda x: torch.from_numpy(x).requires_grad_(), "same"),
    "a tensor": (lambda x: torch.from_numpy(x), "same"),
    "not aligned": (lambda x: _not_aligned(x), "same"),
    "one sample": (lambda x: x[:1], "finite"),
    "zeros": (np.zeros_like, "finite"),
    "one value": (np.ones_like, "finite"),
    "integers": (lambda x: np.rint(3 * x).astype(np.int64), "finite"),
    "large integers": (lambda x: np.full(x.shape, 2**63, np.uint64), "finite"),
    "booleans": (lambda x: x > 0, "finite"),
    "1e-310": (lambda x: x * 1e-310, "finite"),
}
# Functions that draw other numbers in another precision, or take its rounding for what it is.
RANDOM = ("k_subspaces", "initial_dictionary", "ensemble_clusters", "find_groups", "estimate_group_size")
RANDOM += ("perturbed_dictionary", "support_recovery_windows")
WITHOUT_SIGN = ("positive_part", "biased_relu")  # what is negative is cut, however large it is


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _not_aligned(x: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(x.dtype).reshape(x.shape)


def arrays(draw: random.Random) -> Iterator[Case]:
    """Family: arrays."""
    for subject in SUBJECTS:
        for position, named in subject.arrays.items():
            good = subject.arguments()[position]
            table = TENSORS if isinstance(good, Tensor) else ARRAYS
            core = [name for name in ("nan", "1e300", "no rows", "one axis") if name in table]
            chosen = {*core, *draw.sample(list(table), 6 if len(subject.arrays) == 1 else 4)}
            chosen -= {"-inf"} if subject.name in WITHOUT_SIGN else set()
            if good.ndim == 3:  # of what has two axes alone there is no such thing
                chosen = {name for name in chosen if not re.search("frame|series|sparse|matrix|column", name)}
            for name in sorted(chosen):
                change, use = table[name]
                run = Call(lambda _, s=subject, k=position, n=named, c=change, u=use: _attack(s, k, n, c, u))
                yield Case(FAMILY, f"{subject.name}, {named}: {name}", run)
        for keyword, values in subject.numbers.items():
            for value in draw.sample(values, min(4, len(values))):
                run = Call(lambda _, s=subject, k=keyword, v=value: _attack_number(s, k, v))
                yield Case(FAMILY, f"{subject.name}, {keyword} = {short(value)}", run)
    yield from _estimator_cases()
    yield from _label_cases()


def _attack(subject: Subject, position: int, named: str, change: Callable[[Any], Any], use: str) -> Attempt:
    given = list(subject.arguments())
    plain = given[position]
    given[position] = change(plain.clone() if isinstance(plain, Tensor) else plain.copy())
    tolerance = {"same": 1e-9, "near": 0.1}.get(use, 0.0)

    def like_plain(result: Any) -> bool:
        return same(subject.function(*subject.arguments(), **subject.keywords()), result, tolerance, tolerance)

    def shows(result: Any) -> bool:
        """Nothing is hidden: other samples have their results, and that of the bad one is not a plain number."""
        expected = subject.function(*subject.arguments(), **subject.keywords())
        others = [k for k in range(N) if k != BAD_ROW]
        all_bad = bool((given[position].abs() > 1e150).all())
        right = all_bad or same(expected[others], result[others], 1e-9, 1e-9)
        return right and _shows(result[BAD_ROW], given[position][BAD_ROW])

    alone = len(subject.arrays) == 1 and not subject.fixed
    rights = {"same": like_plain, "near": finite if subject.name in RANDOM else like_plain, "finite": finite}
    rights |= {"shape": finite} if alone else {}
    rights |= {"spoiled": shows} if subject.pointwise else {"spoiled": subject.tells} if subject.tells else {}
    right = finite if subject.pointwise and use == "never" else rights.get(use)
    if isinstance(subject.function, scaling.Scaling) and use == "never":
        right = lambda result: finite(result) == finite(given[position])  # noqa: E731
    if use == "finite" and subject.function is metrics.distance_contrast:
        right = lambda result: isinstance(result, float)  # noqa: E731, nan where all samples coincide
    return Attempt(subject.function, tuple(given), subject.keywords(), (named, "x:", "expected two matrices"), right)


def _shows(result: Tensor, given: Tensor) -> bool:
    """Whether a result of one sample shows that a number was not finite, or is right for one that is merely large."""
    if result.dtype == torch.bool:
        return bool(result[0])
    if bool(given.isfinite().all()) and finite(result):
        return bool(result.abs().max() <= given.abs().max() and result.abs().max() > 0)
    return not finite(result)


def _attack_number(subject: Subject, keyword: str, value: Any) -> Attempt:
    keywords = subject.keywords() | {keyword: value}
    return Attempt(subject.function, subject.arguments(), keywords, (keyword,))


ESTIMATORS: dict[str, Callable[..., Any]] = {
    "GroupSparseCoder": lambda **more: GroupSparseCoder(truth().T.numpy(), **{"group_size": SIZE, **more}),
    "GroupSparseDictionaryLearning": lambda **more: GroupSparseDictionaryLearning(
        GROUPS, **{"group_size": SIZE, "max_iter": 1, "random_state": 0, **more}
    ),
    "GroupSparseClustering": lambda **more: GroupSparseClustering(
        GROUPS, **{"n_groups": 8, "group_size": SIZE, "random_state": 0, **more}
    ),
}
PARAMETERS: dict[str, list[Any]] = {
    "group_size": [0, -1, 1.5, "2", True, 9, math.nan, [2], None],
    "alpha": [*REALS, 0.0],
    "max_iter": [-1, 1.5, "2", True, None],
    "device": ["gpu!", 1.5, "cuda", "cuda:99", "meta", "mps", "", None],
    "output": ["both", 3, None, ["codes"]],
    "tol": [-1.0, 0.0, "1", math.nan, True],
    "n_groups": [0, -1, 1.5, "2", True, 21, None],
    "algorithm": ["svd", 3, None, ["autoencoder"]],
    "n_iterations": NUMBERS,
    "init": ["zeros", 3, None, ["data"]],
    "n_init": NUMBERS,
    "batch_size": [0, -1, 1.5, "2", True],
    "learning_rate": [*REALS, 0.0],
    "random_state": [-1, 1.5, "0", 2**40, [1], math.nan],
    "checkpoint": ["", ".", "new/", 5, True, "a\0b", "/proc/x", "/dev/null"],
    "n_clusters": [*NUMBERS, 41],
    "assign": ["vote", 3, None, ["kmeans"]],
    "n_components": [0, -1, 1.5, "2", True, 40],
    "method": ["best", 3, None, ["auto"]],
    "scaling": ["robust", 3, None, ["none"]],
    "seconds": [*REALS, 0.0],
    "n_splits": NUMBERS,
    "dictionary": [
        "x",
        3,
        np.zeros((3, 3)),
        np.full((4, 8), np.nan),
        np.zeros((0, 8)),
        np.zeros((4, 8), int),
        np.zeros((4, 8), complex),
        [[1.0] * 8, [1.0]],
        np.full((4, 8), 1e300),
        np.full((4, 8), "a"),
        scipy.sparse.eye(8).tocsr(),
    ],
}


def _estimator_cases() -> Iterator[Case]:
    """Estimators: X in `fit` and after it, and the parameters."""
    for name, make in ESTIMATORS.items():
        for what, (change, use) in ARRAYS.items():
            for where in ("fit", "transform"):
                run = Call(lambda _, m=make, c=change, u=use, w=where, k=what: _attack_estimator(m, c, u, w, k))
                yield Case(FAMILY, f"{name}.{where}: {what}", run)
        known = make().get_params()
        for keyword, values in PARAMETERS.items():
            for value in values if keyword in known else ():
                run = Call(lambda _, m=make, k=keyword, v=value: _attack_parameter(m, k, v))
                yield Case(FAMILY, f"{name}, {keyword} = {short(value)}", run)
        for what, columns in {
            "other names": "hgfedcbx",
            "names in another order": "hgfedcba",
            "a name more": "abcdefghi",
            "a name less": "abcdefg",
        }.items():

            def prepare(_: Path, make: Any = make, columns: str = columns) -> Attempt:
                x = data().numpy()
                wide = np.concatenate([x, x], axis=1)[:, : len(columns)]
                fitted = make().fit(pd.DataFrame(x, columns=list("abcdefgh")))
                other = pd.DataFrame(wide, columns=list(columns))
                return Attempt(fitted.transform, (other,), {}, ("X", "feature names"), None, n_lines=9)

            yield Case(FAMILY, f"{name}.transform, a frame: {what}", Call(prepare))


def _attack_estimator(make: Any, change: Any, use: str, where: str, what: str) -> Attempt:
    x = data().numpy()
    bad = change(x.copy())
    names = ("X", "n_samples", "Found array with", "alpha", "penalty", "n_features")

    def expected() -> np.ndarray:
        return make().fit(x).transform(x)

    def right(result: Any) -> bool:
        if use == "finite":
            return finite(np.asarray(result))
        tolerance = {"same": 1e-6, "near": 0.2}[use]
        return use != "never" and same(expected(), np.asarray(result), tolerance, tolerance)

    fitted = make() if where == "fit" else make().fit(x)
    method = fitted.fit_transform if where == "fit" else fitted.transform
    if where == "fit":

        def method(given: Any) -> Any:
            return fitted.fit(given).transform(given)

        method.__doc__ = f"{type(fitted).fit.__doc__}\n{type(fitted).transform.__doc__}"
    return Attempt(method, (bad,), {}, names, right)


def _attack_parameter(make: Any, keyword: str, value: Any) -> Attempt:
    x = data().numpy()

    def fit() -> Any:
        return make().set_params(**{keyword: value}).fit(x).transform(x)

    fit.__doc__ = type(make()).fit.__doc__
    return Attempt(fit, (), {}, (keyword, "n_samples"))


def _label_cases() -> Iterator[Case]:
    """Labels of clusterings."""
    good = drawn().labels.numpy()
    bad: dict[str, Any] = {
        "another length": good[:-1],
        "none": good[:0],
        "two axes": good[:, None],
        "null": None,
        "a gap": [None, *good[1:].tolist()],
        "nan": np.where(good == 0, np.nan, good),
        "a mapping": {"a": 1},
        "a text among numbers": ["a", *good[1:].tolist()],
        "sparse": scipy.sparse.csr_matrix(good),
        "complex": good + 1j,
        "a number": 3,
    }
    for name, value in bad.items():
        right = finite if name == "a text among numbers" else None
        run = Call(lambda _, v=value, r=right: Attempt(metrics.clustering_scores, (good, v), {}, (), r))
        yield Case(FAMILY, f"clustering_scores, clusters: {name}", run)
        run = Call(lambda _, v=value: Attempt(metrics.distance_contrast, (data(), v), {}, ("labels",)))
        yield Case(FAMILY, f"distance_contrast, labels: {name}", run)
