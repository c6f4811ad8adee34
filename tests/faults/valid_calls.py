"""Valid calls of the library, and what each is spoiled by: one argument is another, or a file of it is damaged.

Arguments are known by their names, which mean the same in every function (`GOOD`), and so is what is not allowed for
them (`BAD`): a public function whose arguments have such names is called without a line here.
"""

import inspect
import math
import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from public_surface import public_objects
from torch import Tensor

from faults.bad_values import OTHERS, TABLES, Spoiling, arrays, choice, draw, real, short, whole
from faults.judging import Attempt, Call, Case, finite, same
from gsae_book.data.features import PixelFeatures
from gsae_lib import GroupPenalty, groups
from gsae_lib.estimators import GroupSparseClustering, GroupSparseCoder, GroupSparseDictionaryLearning
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.learning import initialization
from gsae_lib.networks import autoencoder
from gsae_lib.theory.population import Population
from gsae_lib.training import TrainingSettings, train

N, FEATURES, GROUPS, SIZE = 40, 8, 4, 2
PER_CALL, PER_ESTIMATOR = 14, 220
ROOMS = """
activations clustering coding.group_lasso dictionary estimators.dictionary estimators.scaling generative groups
learning.alternating learning.initialization learning.pairwise metrics networks.autoencoder networks.sparse_gradient
sae.scores subspaces theory.certificate theory.entrywise theory.floors theory.flows theory.gradient
theory.initialization theory.layers theory.leakage theory.population theory.rates theory.superpositions theory.windows
""".split()


def rng(seed: int = 0) -> torch.Generator:
    """A generator of torch."""
    return torch.Generator().manual_seed(seed)


@cache
def _truth() -> Tensor:
    return orthonormal_groups_dictionary(FEATURES, GROUPS, SIZE, generator=rng(), dtype=torch.float64)


@cache
def _drawn() -> Any:
    """Samples of one active group each."""
    return GroupSparseSource.union_of_subspaces(_truth(), SIZE, snr_db=25.0).sample(N, generator=rng(1))


def truth() -> Tensor:
    """A dictionary of four planes in eight dimensions."""
    return _truth().clone()


def data() -> Tensor:
    """The samples, (40, 8)."""
    return _drawn().data.clone()


def codes() -> Tensor:
    """Their codes, (40, 8)."""
    return _drawn().codes.clone()


def table() -> np.ndarray:
    """The samples as an array."""
    return data().numpy()


def model() -> autoencoder.GroupSparseAutoencoder:
    """A network on the dictionary."""
    return autoencoder.GroupSparseAutoencoder(FEATURES, GROUPS, SIZE, 0.5, n_iterations=2, dictionary=truth())


def law() -> Population:
    """The law of the samples."""
    return Population(FEATURES, GROUPS, SIZE, 1)


# What each parameter is given where it has no default, and in the calls below.
GOOD: dict[str, Any] = {
    **dict.fromkeys(("means", "dictionary", "true_dictionary", "init", "gradient"), truth),
    **dict.fromkeys(("x", "codes", "true_codes", "features"), codes),
    **dict.fromkeys(("data", "train_features", "test_features", "points", "reconstruction"), data),
    **dict.fromkeys(("X", "table"), table),
    **dict.fromkeys(("groups", "group_size"), SIZE),
    **dict.fromkeys(("labels", "clusters"), lambda: _drawn().labels),
    **{"n_groups": GROUPS, "n_features": FEATURES, "n_samples": 100, "n_active": 1, "n_clusters": 4, "n_neighbors": 5},
    **{"penalty": 0.5, "threshold": 0.5, "bandwidth": 0.1, "k": 1, "random_state": 0, "norm": 4.0, "max_angle": 0.3},
    **{"generator": rng, "model": model, "population": law, "sample": _drawn, "support": lambda: _drawn().support},
    **{"components": lambda: truth().T.numpy(), "norms": lambda: groups.group_norms(codes(), SIZE), "delta": 0.1},
    **{"angle": 0.1, "mean_correlation": 0.5, "block_coherence": 0.1, "norm_range": (4.0, 5.0), "largest_norm": 5.0},
    **{"n_draws": 5, "leak": 0.1, "rate": 0.5, "failure": 0.1, "sigma2": 0.1, "tau": 0.5, "p": 0.25, "alpha_min": 0.5},
}
WHOLE = "n_groups group_size n_active n_features n_clusters n_neighbors n_samples n_draws k n_init n_iterations chunk"
WHOLE += " epochs steps_per_epoch n_runs n_components max_tries n_splits batch_size n_batches"
POSITIVE = "penalty alpha learning_rate step_size seconds"
BAD: dict[str, st.SearchStrategy] = {
    **dict.fromkeys(WHOLE.split(), whole()),
    **dict.fromkeys(POSITIVE.split(), real(strict=True)),
    "threshold": real(),
    "groups": whole(1, 8) | st.sampled_from([3, [3, 4], [2.0, 6], [[0, 1], [7, 8]], [[0, 0]], []]),
    "max_iter": whole(0),
    "n_penalties": whole(2),
    "tol": real(),
    "failure": real(0.0, 1.0, strict=True),
    "snr_db": OTHERS | st.sampled_from([math.nan, math.inf]),
    "random_state": whole(0, 2**32 - 1),
    "norm_range": st.sampled_from([(1,), (2, 1), (0, 1), "ab", (math.nan, 1), 3, (1, 2, 3), {}, 1j, True]),
    "device": choice("cpu") | st.sampled_from(["gpu!", 1.5, "cuda:99", "meta", "mps", ""]),
    "optimizer": choice("adam", "sgd"),
    "codes": choice("sphere", "gaussian"),
    "snr_of": choice("source", "sample"),
    "output": choice("codes", "norms", "normalized norms"),
    "algorithm": choice("autoencoder", "alternating"),
    "assign": choice("auto", "kmeans", "spectral", "argmax"),
    "scaling": choice("auto", "unit norm", "standardize", "none"),
    "kind": choice("exact", "proxy"),
    "normalize": choice("columns", "groups"),
    "checkpoint": st.sampled_from(["", ".", "new/", 5, True, "a\0b", "/proc/x", "/dev/null"]),
}
# What some are given besides, or instead, and what is not allowed for an argument of a function alone.
WITH_GROUPS = ("group_sparse_code", "duality_gap", "group_lasso_objective")
MORE: dict[str, dict[str, Any]] = {
    **{name: {"groups": SIZE} for name in WITH_GROUPS},
    "shallow_gradient": {"group_size": SIZE},
    "find_groups": {"max_tries": 64},
    "penalty_path": {"groups": SIZE, "n_penalties": 3, "settings": None},
    "alternating_minimization": {"groups": SIZE, "max_iter": 2, "coding": None},
    "fit_scaling": {"method": "standardize"},
    "initial_dictionary": {"method": "k-subspaces"},
    "cap_tail": {"ratio": 0.5},
    "printed_rate": {"step": 0.1, "alpha_max": 1.0},
    "flow_correlation": {"kappa": 0.5},
    "spiked_angle": {"strength": 3.0, "ratio": 0.5},
    "effective_noise": {"method": "filters"},
    "sufficient_steps": {"tangent": 0.1, "step": 0.02},
    "coherent_dictionary": {"n_features": 16},
    "GroupSparseAutoencoder": {"groups": SIZE, "penalty": 0.5, "generator": rng},
    "fit": {"X": lambda: table().reshape(-1, 2, 4)},
}
ALONE: dict[str, st.SearchStrategy] = {
    "penalty_path.ratio": real(0.0, 1.0, strict=True),
    "group_top_k.k": whole(1, GROUPS),
    "reconstruct_from_strongest.n_active": whole(1, GROUPS),
    "kmeans_clusters.n_clusters": whole(1, N),
    "GroupPenalty.groups": st.integers(max_value=0) | st.floats(),
    "kmeans_clusters.random_state": whole(0, 2**32 - 1).filter(lambda value: value is not True),
    "initial_dictionary.method": choice(*initialization.STARTS),
    "fit_scaling.method": choice("unit norm", "standardize", "none"),
    "GroupSparseAutoencoder.gradient": choice("exact", "proxy"),
    "GroupSparseClustering.method": choice("auto", "groups", "kmeans"),
    "GroupSparseClustering.group_size": whole(1, FEATURES),
    "GroupSparseClustering.n_components": whole(1, N - 1),
    "GroupSparseClustering.n_clusters": whole(1, N),
    "GroupSparseDictionaryLearning.init": choice(*initialization.STARTS),
    "GroupSparseDictionaryLearning.group_size": whole(1, FEATURES),
    "GroupSparseCoder.dictionary": st.sampled_from(TABLES)
    .filter(lambda s: s.use == "never" and s.name != "a matrix")
    .map(lambda s: s.change(truth().T.numpy())),
}
# Functions of each entry or sample alone, which pass on what is not finite.
POINTWISE = "to_groups group_norms normalized_group_norms active_groups group_relu soft_threshold biased_relu encode"
POINTWISE += " group_hard_threshold group_top_k positive_part group_jump_relu"
# Functions that draw other numbers in another precision, or take its rounding for what it is.
RANDOM = "k_subspaces initial_dictionary ensemble_clusters find_groups estimate_group_size perturbed_dictionary"
RANDOM += " support_recovery_windows basin_window"
DEGENERATE = ("distance_contrast", "certify")  # which are nan or infinite where all samples are one, or nothing is left
OPTIONAL = ("n_components", "dictionary", "tol", "random_state", "batch_size")  # parameters that may be None
# What a message may name in place of the argument.
TOLD = "x:, expected two matrices, data, dictionary, groups, group_size, penalty, images, feature, n_samples, alpha"
TOLD += ", Found array with"
# What shows that an entry was bad, where it is not refused.
TELLS = {"find_groups": finite, "estimate_group_size": finite, "fit_scaling": finite}
TELLS["shallow_gradient"] = lambda result: not math.isfinite(result.loss)
SAMPLES = "x data X table codes points features images norms"  # where fewer of them are a valid call
# Called with what others have checked; and what the library does not check yet.
LEFT_OUT = "as_groups from_groups polar disjoint_layout group_layout can_screen is_plain normalize_weight score_sae"
LEFT_OUT += " printed_rate loss_hessian crosstalk_bound crosstalk_bound_printed crosstalk_bound_angle antithetic"
LEFT_OUT += " gradient_alignment predicted_entry_recall batch_group_top_k code_anisotropy"
LEFT_OUT += " coactivation_groups excess_objective"
UNCHECKED = [f"{name}, dictionary: no columns" for name in ("largest_penalty", "coherence", "orthonormality")]
UNCHECKED += ["strongest_group, codes: no columns", "sample_gradient, data: single", "sample_gradient, data: half"]


def train_briefly(data: Any) -> Any:
    """The curve of two epochs of training.

    Raises: TrainingError.
    """
    return train(model(), data, TrainingSettings(epochs=2, batch_size=10, progress=False), generator=rng()).curves


ESTIMATORS: dict[str, Callable[..., Any]] = {
    "GroupSparseCoder": partial(GroupSparseCoder, groups=SIZE),
    "GroupSparseDictionaryLearning": partial(
        GroupSparseDictionaryLearning, n_groups=GROUPS, group_size=SIZE, max_iter=1, random_state=0
    ),
    "GroupSparseClustering": partial(
        GroupSparseClustering, n_clusters=GROUPS, n_groups=8, group_size=SIZE, random_state=0
    ),
}


def make(kind: str, **parameters: Any) -> Any:
    """An estimator of that kind."""
    more = {"dictionary": truth().T.numpy()} if kind == "GroupSparseCoder" else {}
    return ESTIMATORS[kind](**{**more, **parameters})


def fit_transform(kind: str) -> Callable[..., Any]:
    """A function of a table and of the parameters of an estimator, which fits it and transforms the table."""

    def call(X: Any, **parameters: Any) -> Any:
        return make(kind, **parameters).fit(X).transform(X)

    parameters = [inspect.Parameter("X", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, default in make(kind).get_params().items():
        optional = None if name in OPTIONAL else default
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=optional))
    call.__signature__ = inspect.Signature(parameters)
    call.__name__ = call.__qualname__ = kind
    call.__doc__ = f"{type(make(kind)).fit.__doc__}\n{type(make(kind)).transform.__doc__}"
    return call


def library_calls() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Functions and their arguments, by name; an argument may be a function that makes it."""
    found = [
        f
        for f in public_objects([f"gsae_lib.{room}" for room in ROOMS]).values()
        if inspect.isfunction(f) and "." not in f.__qualname__ and f.__name__ not in LEFT_OUT.split()
    ]
    found += [train_briefly, TrainingSettings, GroupSparseSource, GroupSparseSource.gaussian_mixture, Population]
    found += [autoencoder.GroupSparseAutoencoder, model().encode, PixelFeatures().fit, GroupPenalty]
    found += [*map(fit_transform, ESTIMATORS), *(make(kind).fit(table()).transform for kind in ESTIMATORS)]
    calls = {}
    for function in found:
        more = MORE.get(function.__name__, {})
        parameters = inspect.signature(function).parameters
        needed = {n for n, p in parameters.items() if p.default is p.empty or n in more}
        known = GOOD | more
        given = {name: known[name] for name in parameters if name in needed and known.get(name) is not None}
        if not {n for n in needed if parameters[n].kind is not inspect.Parameter.VAR_KEYWORD} - {*given}:
            calls[function.__qualname__] = (function, given)
    return calls


def made(given: dict[str, Any]) -> dict[str, Any]:
    """Fresh arguments."""
    return {name: value() if callable(value) else value for name, value in given.items()}


def bad_arguments(function: Callable[..., Any], given: dict[str, Any]) -> st.SearchStrategy:
    """Pairs of an argument's name and what becomes of it, if something is known for it."""
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        good = made({name: given[name]})[name] if name in given else None
        bad = ALONE.get(f"{function.__name__}.{name}", BAD.get(name))
        if isinstance(good, Tensor | np.ndarray) and good.dtype not in (torch.int64, torch.bool):
            spoilings = arrays(isinstance(good, Tensor), good.ndim)
        elif bad is not None and not isinstance(good, Tensor):
            optional = parameter.default is None or "None" in str(parameter.annotation)
            values = bad.filter(lambda value: value is not None) if optional else bad
            spoilings = values.map(lambda value: Spoiling(f"= {short(value)}", lambda _: value))
        else:
            continue
        found.append(st.tuples(st.just(name), spoilings))
    return st.one_of(found)


def library_cases(rng: random.Random) -> Iterator[Case]:
    """Functions and estimators with an argument spoiled."""
    for named, (function, given) in library_calls().items():
        bad = bad_arguments(function, given)
        n_cases = PER_ESTIMATOR if "X" in given else PER_CALL
        for name, spoiling in draw(bad, n_cases, rng) if not bad.is_empty else ():
            run = Call(lambda _, f=function, g=given, n=name, s=spoiling: attack(f, g, n, s))
            if (what := f"{named}, {name}: {spoiling.name}") not in UNCHECKED:
                yield Case("arrays", what, run)


def attack(function: Callable[..., Any], given: dict[str, Any], name: str, spoiling: Spoiling) -> Attempt:
    """The call with one argument spoiled."""
    plain = made(given)
    good = plain.get(name)
    tensor = isinstance(good, Tensor)
    bad = spoiling.change(good.numpy() if tensor else good)
    others = [n for n, value in plain.items() if isinstance(value, Tensor | np.ndarray) and n not in (name, "labels")]
    fewer = spoiling.name in ("one row", "no rows") and not {*others} & {*SAMPLES.split(), "reconstruction"}
    pointwise = function.__name__ in POINTWISE.split()
    estimator = "X" in given and not tensor
    rounding = 1e-6 if estimator else 1e-9
    tolerance = {"same": rounding, "near": 0.2 if estimator else 0.1}.get(spoiling.use, 0.0)

    def like_plain(result: Any) -> bool:
        return same(function(**made(given)), result, tolerance, tolerance)

    def shows(result: Tensor) -> bool:
        """Other samples have their results, and nan and infinity are not hidden."""
        finite_rows = bad.isfinite().all(dim=1)
        fine = (bad.abs() < 1e150).all(dim=1)
        hidden = ~finite_rows & ~bad.isneginf().any(dim=1)
        told = torch.stack([~row.isfinite().all() if row.is_floating_point() else row.any() for row in result])
        return same(function(**made(given))[fine], result[fine], 1e-9, 1e-9) and bool(told[hidden].all())

    rights: dict[str, Any] = {"same": like_plain, "finite": finite}
    if function.__name__ in DEGENERATE:
        rights["finite"] = lambda result: result is not None
    rights["near"] = finite if function.__name__ in RANDOM.split() else like_plain
    if estimator:
        rights |= {"shape": finite} if spoiling.name in ("one row", "a column more") else {}
    elif not others or (fewer and name in SAMPLES.split()):
        rights["shape"] = finite
    rights |= {"spoiled": TELLS[function.__name__]} if function.__name__ in TELLS else {}
    rights |= {"spoiled": shows, "never": finite} if pointwise and tensor else {}
    return Attempt(function, (), plain | {name: bad}, (name, *TOLD.split(", ")), rights.get(spoiling.use))
