"""Where zeros are needed: which groups are in a sum, by codes with zeros and codes without, over a map of settings.

A code ranks the groups of a sample by their norms. Penalties are chosen by reconstruction of held-out features, on
samples that nothing is measured on; no support is looked at.
"""

import dataclasses
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd
import torch
from torch import Generator, Tensor

from experiments.recovery.block_pursuit import block_pursuit
from experiments.simulation import Simulation
from gsae_lib._checks import check_choice, check_int, check_real
from gsae_lib.activations import group_relu
from gsae_lib.coding import NotConvergedWarning, group_sparse_code, largest_penalty
from gsae_lib.dictionary import Dictionary, as_groups, block_coherence, normalize_columns
from gsae_lib.generative import GroupSparseSample, GroupSparseSource
from gsae_lib.groups import group_norms
from gsae_lib.learning import GroupsMissingWarning, alternating_minimization, initial_dictionary
from gsae_lib.metrics import match_groups
from gsae_lib.networks import GroupSparseAutoencoder
from gsae_lib.theory import Population
from gsae_lib.theory.superpositions import effective_noise, predicted_exact
from gsae_lib.training import TrainingSettings, train

METHODS = ("filters", "ridge", "pursuit", "network", "iterations", "solver", "single atoms")
CODES = (*METHODS, "early stopping", "linear steps")
WITH_ZEROS = ("network", "iterations", "solver", "single atoms")
Code = Callable[[Tensor, Tensor, float], Tensor]
LAWS = {"filters": "filters", "network": "filters", "ridge": "ridge", "solver": "group lasso"}  # that predict them
DICTIONARIES = ("true", "pairs", "pairs, network", "pairs, solver", "k-subspaces")
N_ITERATIONS = 15
N_CHOICE = 50  # samples on which penalties are chosen
TOLERANCE = 1e-3  # of the solver: gap over objective
HELD_OUT = 5  # one feature in so many is held out
SHARES = tuple(2.0**-k for k in range(7))  # penalties tried, in shares of the median one that leaves no group
RIDGES = tuple(4.0**k for k in range(-6, 4))  # the same for ridge codes, atoms having unit norm
STEPS = tuple(2.0**k for k in range(7))  # gradient steps, in place of a penalty


@dataclasses.dataclass(frozen=True)
class SuperpositionSettings(Simulation):
    """One point of the map.

    Args:
        n_features, n_groups, group_size, n_active, smallest_norm, largest_norm, snr_db: the data. Columns are Gaussian
            of unit norm; the variance of feature k falls like k^-decay, so that atoms overlap more with a larger decay.
        dictionary: the "true" one; or one learned from n_samples: "pairs" as they start, trained after that by the
            shallow "network" or by alternation with the "solver", or "k-subspaces".
        n_test: samples that are coded and scored.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_features: int = 100
    n_groups: int = 200
    group_size: int = 2
    n_active: int = 6
    n_samples: int = 10_000
    snr_db: float = 20.0
    decay: float = 0.0
    dictionary: Literal["true", "pairs", "pairs, network", "pairs, solver", "k-subspaces"] = "true"
    n_test: int = 200

    def __post_init__(self) -> None:
        check_real("decay", self.decay)
        check_choice("dictionary", self.dictionary, DICTIONARIES)
        check_int("n_test", self.n_test)
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class SuperpositionRun:
    """What one method finds in the test samples.

    exact: share of samples whose gamma groups of largest norm are the active ones; share: of active groups among these.
    precision, recall: of the groups that the code leaves nonzero; nan for a code without zeros of its own. penalty:
    chosen, nan where there is none. coherence: d mu_B of the true dictionary. seconds: of the coding.
    """

    method: str
    exact: float
    share: float
    precision: float
    recall: float
    penalty: float
    coherence: float
    seconds: float


def draw_source(settings: SuperpositionSettings, *, generator: Generator) -> GroupSparseSource:
    """The source of a setting: a Gaussian dictionary whose features have a decaying variance."""
    atoms = settings.n_groups * settings.group_size
    gaussian = torch.randn(settings.n_features, atoms, generator=generator)
    scale = torch.arange(1, settings.n_features + 1) ** (-settings.decay / 2)
    return settings.source(normalize_columns(scale.unsqueeze(1) * gaussian))


def run_superpositions(
    settings: SuperpositionSettings, *, seed: int, methods: Sequence[str] = METHODS
) -> list[SuperpositionRun]:
    """Code the test samples by every method; the seed draws dictionary, data and what a learned dictionary draws.

    Raises:
        ValueError: an unknown method, or sizes that do not fit each other.
    """
    for method in methods:
        check_choice("methods", method, METHODS)
    rng = Generator().manual_seed(seed)
    source = draw_source(settings, generator=rng)
    choice = source.sample(N_CHOICE, generator=rng).data
    test = source.sample(settings.n_test, generator=rng)
    dictionary = _find_dictionary(settings, source, rng)
    coherence = block_coherence(source.dictionary, settings.group_size) * settings.group_size
    kept = draw_kept(settings.n_features, generator=rng)
    runs = []
    for method in methods:
        code, penalty = choose_code(method, choice, dictionary, settings.group_size, kept, settings.n_active)
        clock = time.perf_counter()
        codes = code(test.data, dictionary, penalty)
        seconds = time.perf_counter() - clock
        scores = score_codes(codes, test, settings, method in WITH_ZEROS)
        runs.append(SuperpositionRun(method, *scores, penalty, coherence, seconds))
    return runs


def draw_kept(n_features: int, *, generator: Generator) -> Tensor:
    """The features that codes are found from when penalties are chosen: all but one in five, at random."""
    return torch.randperm(n_features, generator=generator)[: n_features - n_features // HELD_OUT]


def choose_code(
    method: str, data: Tensor, dictionary: Dictionary, group_size: int, kept: Tensor, n_active: int | None = None
) -> tuple[Code, float]:
    """The code of a method, one of CODES, and its penalty: that of `choose_penalty`, nan for a code without one.

    A code is a function of data, dictionary and penalty. n_active: what the pursuit, and no other code, is told. "early
    stopping" is the linear code after so many steps of gradient descent on the reconstruction as its penalty says,
    "linear steps" that after as many as "iterations" has.

    Raises:
        ValueError: an unknown method, or a pursuit without n_active.
    """
    if check_choice("method", method, CODES) == "pursuit":
        check_int("n_active", n_active)
    code, penalties = _codes(method, data, dictionary, group_size, n_active)
    return code, choose_penalty(code, data, dictionary, kept, penalties) if penalties else float("nan")


def choose_penalty(
    code: Code,
    data: Tensor,
    dictionary: Dictionary,
    kept: Tensor,
    penalties: Sequence[float],
) -> float:
    """The penalty whose codes, found from the `kept` features, predict the others best, in squared error."""
    left = torch.ones(data.shape[1], dtype=torch.bool)
    left[kept] = False

    def error(penalty: float) -> float:
        codes = code(data[:, kept], dictionary[kept], penalty)
        return (data[:, left] - codes @ dictionary[left].T).square().sum().item()

    return min(penalties, key=error)


def score_codes(
    codes: Tensor, sample: GroupSparseSample, settings: SuperpositionSettings, with_zeros: bool
) -> tuple[float, float, float, float]:
    """(exact, share, precision, recall) of `SuperpositionRun`."""
    norms = group_norms(codes, settings.group_size)
    strongest = torch.zeros_like(sample.support).scatter_(1, norms.topk(settings.n_active).indices, True)
    exact = (strongest == sample.support).all(dim=1).double().mean().item()
    share = strongest[sample.support].double().mean().item()
    if not with_zeros:
        return exact, share, float("nan"), float("nan")
    nonzero = norms > 0
    hits = (nonzero & sample.support).sum().item()
    return exact, share, hits / max(int(nonzero.sum()), 1), hits / int(sample.support.sum())


def _codes(
    method: str, data: Tensor, dictionary: Dictionary, d: int, n_active: int | None
) -> tuple[Code, tuple[float, ...]]:
    """The code of a method as a function of data, dictionary and penalty, and the penalties to choose from, if any.

    data: unlabelled samples that set the scale of these penalties. d: the size of a group.
    """
    n_groups = dictionary.shape[1] // d
    size = 1 if method == "single atoms" else d
    largest = largest_penalty(data, dictionary, size).median().item()
    shares = tuple(largest * share for share in SHARES)

    def filters(data: Tensor, dictionary: Tensor, _: float) -> Tensor:
        return data @ dictionary

    def ridge(data: Tensor, dictionary: Tensor, penalty: float) -> Tensor:
        gram = dictionary @ dictionary.T + penalty * torch.eye(len(dictionary))
        return torch.linalg.solve(gram, data.T).T @ dictionary

    def pursuit(data: Tensor, dictionary: Tensor, _: float) -> Tensor:
        support, values = block_pursuit(data, as_groups(dictionary, d), n_active)
        codes = torch.zeros(len(data), n_groups, d)
        return codes.scatter_(1, support.unsqueeze(2).expand_as(values), values).flatten(1)

    def network(data: Tensor, dictionary: Tensor, penalty: float) -> Tensor:
        return group_relu(data @ dictionary, penalty, d)

    def iterations(data: Tensor, dictionary: Tensor, penalty: float, n_iterations: int = N_ITERATIONS) -> Tensor:
        sizes = (len(dictionary), n_groups, d)
        model = GroupSparseAutoencoder(*sizes, penalty, n_iterations=n_iterations, dictionary=dictionary)
        with torch.no_grad():
            return model.encode(data)

    def early(data: Tensor, dictionary: Tensor, n_steps: float) -> Tensor:
        return iterations(data, dictionary, 0.0, int(n_steps))

    def solver(data: Tensor, dictionary: Tensor, penalty: float) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # float32 reaches what it reaches
            return group_sparse_code(data, dictionary, penalty, size, tol=TOLERANCE, max_iter=2000).codes

    return {
        "filters": (filters, ()),
        "ridge": (ridge, RIDGES),
        "pursuit": (pursuit, ()),
        "network": (network, shares),
        "iterations": (iterations, shares),
        "solver": (solver, shares),
        "single atoms": (solver, shares),
        "early stopping": (early, STEPS),
        "linear steps": (early, (float(N_ITERATIONS),)),
    }[method]


def _find_dictionary(settings: SuperpositionSettings, source: GroupSparseSource, generator: Generator) -> Dictionary:
    """The true dictionary, or one learned from samples alone; its groups matched to the true ones, to score them."""
    if settings.dictionary == "true":
        return source.dictionary
    start, _, trained = settings.dictionary.partition(", ")
    data, d = source.sample(settings.n_samples, generator=generator).data, settings.group_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupsMissingWarning)
        dictionary = initial_dictionary(data, settings.n_groups, d, start, generator=generator)
    if trained:
        # Cross-talk and noise of the learned dictionary itself, from its responses, set the threshold.
        penalty = 2 * group_norms(data @ dictionary, d).median().item()
    if trained == "network":
        model = GroupSparseAutoencoder(
            settings.n_features, settings.n_groups, d, penalty, step_size=1.0, dictionary=dictionary
        )
        plan = TrainingSettings(epochs=20, learning_rate=1e-3, batch_size=1000, progress=False)
        train(model, data, plan, generator=generator)
        dictionary = model.weight.detach()
    elif trained == "solver":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)
            fit = alternating_minimization(
                data, dictionary, penalty / 4, d, max_iter=4, batch_size=1000, generator=generator
            )
        dictionary = fit.dictionary
    return match_groups(normalize_columns(dictionary), source.dictionary, d)[0]


def exact_table(
    settings: Sequence[SuperpositionSettings], seeds: Sequence[int], methods: Sequence[str]
) -> pd.DataFrame:
    """Means over seeds, measured now: a row for each setting and method.

    exact, precision, recall: as in `SuperpositionRun`. predicted: exact, by `predicted_exact`, or nan.
    """
    rows = []
    for one in settings:
        for method, runs in _by_method(one, seeds, methods).items():
            law = LAWS.get(method)
            noise = effective_noise(one.population, law) if law else None
            rows.append(
                {
                    "ratio": one.n_groups * one.group_size / one.n_features,
                    "n_active": one.n_active,
                    "method": method,
                    "exact": sum(run.exact for run in runs) / len(runs),
                    "precision": sum(run.precision for run in runs) / len(runs),
                    "recall": sum(run.recall for run in runs) / len(runs),
                    "predicted": predicted_exact(one.population, noise) if noise else float("nan"),
                }
            )
    return pd.DataFrame(rows)


def _by_method(
    settings: SuperpositionSettings, seeds: Sequence[int], methods: Sequence[str]
) -> dict[str, list[SuperpositionRun]]:
    runs = [run for seed in seeds for run in run_superpositions(settings, seed=seed, methods=methods)]
    return {method: [run for run in runs if run.method == method] for method in methods}


def most_active(population: Population, method: str, share: float = 0.9) -> int:
    """The largest number of active groups at which a code's predicted share of exact rankings is at least `share`.

    The noise is that of the population; 0 if one active group is too many. Searched up to half of all groups.
    """

    def good(n_active: int) -> bool:
        one = dataclasses.replace(population, n_active=n_active)
        return predicted_exact(one, effective_noise(one, method)) >= share

    low, high = 0, max(1, population.n_groups // 2)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    return low


def run_map_point(map: str, settings: SuperpositionSettings, *, seed: int) -> list[SuperpositionRun]:
    """`run_superpositions` for the map of this name, which changes nothing: maps share settings.

    Raises:
        ValueError: as `run_superpositions`.
    """
    return run_superpositions(settings, seed=seed)


def plan() -> list[dict[str, Any]]:
    """The settings of every map."""
    base, active = SuperpositionSettings(), (1, 2, 3, 4, 6, 8, 10, 12)

    def vary(**values: Sequence[Any]) -> list[SuperpositionSettings]:
        names = list(values)
        points = itertools.product(*values.values())
        return [dataclasses.replace(base, **dict(zip(names, point, strict=True))) for point in points]

    sizes = itertools.product((1, 2, 4, 5), active)
    maps = {
        "atoms": vary(n_groups=(25, 50, 100, 200, 400), n_active=active),
        "noise": vary(snr_db=(-5.0, 0.0, 5.0, 10.0, 20.0), n_active=active),
        "coherence": vary(n_groups=(100,), decay=(0.0, 0.25, 0.5, 0.75, 1.0), n_active=active),
        "size": [dataclasses.replace(base, group_size=d, n_groups=400 // d, n_active=k) for d, k in sizes],
        "learned": vary(n_groups=(50, 200), n_active=(1, 2, 3, 4, 6), dictionary=DICTIONARIES),
    }
    return [{"map": name, "settings": one} for name, many in maps.items() for one in many]
