"""Which kinds are in a sum: of digits, signals, jets and galaxies, and of groups of the model, by two and three.

A dictionary is learned from sums alone, from singles without labels, or from labelled singles; a code gives a sample an
energy for each group. A few labelled singles then say which kinds the groups answer to.
"""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from scipy.signal import stft
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import normalize
from torch import Generator, Tensor

from experiments import RESULTS
from experiments.recovery.superpositions import N_ITERATIONS, choose_code, draw_kept
from gsae_book.data.images import load_images
from gsae_lib._checks import check_choice, check_int
from gsae_lib.coding import NotConvergedWarning
from gsae_lib.dictionary import as_groups, from_groups, normalize_columns
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.groups import group_norms
from gsae_lib.learning import GroupsMissingWarning, alternating_minimization, initial_dictionary
from gsae_lib.networks import GroupSparseAutoencoder
from gsae_lib.training import TrainingSettings, train

DATA = ("digits", "signals", "jets", "galaxies", "model")
FROM_SUMS = ("k-subspaces", "pairs", "pairs, ridge", "network", "solver", "k-subspaces, solver", "single atoms")
DICTIONARIES = (*FROM_SUMS, "unlabelled singles", "labelled singles", "all labels")
SAME_START = "single atoms, pairs"  # a control of its own, 17_same_start
CODES = ("filters", "ridge", "early stopping", "linear steps", "iterations", "solver")
BASELINES = ("k-means", "NMF", "NMF, as many atoms", "labelled sums")  # with codes of their own
METHODS = (*DICTIONARIES, *BASELINES)
ONLY_TWO = (
    "pairs",
    "pairs, ridge",
    "network",
    "k-subspaces, solver",
    "NMF, as many atoms",
)  # ablations, on sums of two
READOUTS = ("names", "profiles", "amplitudes")
TEST_SHARE = 0.2  # of the pool
N_CHOICE = 100  # sums on which penalties are chosen
LEARNING = 4.0  # penalty while a dictionary is learned, over the one chosen for its start
PRESENT = 0.5  # when the number of kinds is not told: those with at least this share of the largest norm


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Single samples that can be added, without noise and at unit norm.

    singles: (samples, features). labels: kinds as 0, 1, ... kinds: their names. norms: between which the norm of each
    part of a sum is drawn, uniform in its logarithm. noise_std: of the white noise added to a sum. magnitudes: what
    non-negative matrix factorisation sees of (samples, features).
    """

    singles: Tensor
    labels: Tensor
    kinds: tuple[str, ...]
    norms: tuple[float, float]
    noise_std: float
    magnitudes: Callable[[np.ndarray], np.ndarray] = np.abs


@dataclasses.dataclass(frozen=True)
class SumSettings:
    """One kind of sums.

    Args:
        data: one of DATA. n_present: different kinds in a sum. n_train, n_test: sums to learn from and to score.
        n_labelled: labelled singles of each kind, that say what groups answer to. groups_per_kind, group_size: of a
            dictionary that is learned.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    data: Literal["digits", "signals", "jets", "galaxies", "model"] = "digits"
    n_present: int = 2
    n_train: int = 3000
    n_test: int = 500
    n_labelled: int = 10
    groups_per_kind: int = 10
    group_size: int = 4

    def __post_init__(self) -> None:
        check_choice("data", self.data, DATA)
        for name in ("n_present", "n_train", "n_test", "n_labelled", "groups_per_kind", "group_size"):
            check_int(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class SumRun:
    """What one code and readout tell of the test sums, with the dictionary of a method.

    share: of the kinds present among as many of the largest norm; exact: share of sums in which these are all of them.
    precision, recall: of the kinds with at least half of the largest norm. penalty: chosen. n_atoms, coherence: of the
    dictionary, `mean_coherence`. The last three are nan for a baseline.
    """

    code: str
    readout: str
    share: float
    exact: float
    precision: float
    recall: float
    penalty: float = math.nan
    n_atoms: float = math.nan
    coherence: float = math.nan


@dataclasses.dataclass(frozen=True)
class SumData:
    """What one seed draws: sums to learn from and to score, and single samples, all with noise.

    train, test: sums. train_present, present: (sums, kinds), which are in them. singles, labels: single samples of the
    part that is learned from. few: places of the labelled ones among these; others: of as many, for "labelled singles".
    """

    train: Tensor
    test: Tensor
    train_present: Tensor
    present: Tensor
    singles: Tensor
    labels: Tensor
    few: Tensor
    others: Tensor


@cache
def load_pool(name: str) -> Pool:
    """The singles of a kind of data.

    Digits are 14 x 14 pixels, each the mean of four. "model": 100 groups of two Gaussian atoms in 100 dimensions, the
    same for all seeds; a kind is a group.

    Raises:
        ValueError: an unknown name.
    """
    if check_choice("data", name, DATA) == "digits":
        images = load_images("mnist-5k", "all")
        pixels = torch.nn.functional.avg_pool2d(images.images.float().unsqueeze(1), 2).flatten(1)
        kinds = tuple(str(digit) for digit in range(10))
        return Pool(torch.nn.functional.normalize(pixels), images.labels, kinds, (1.0, 1.0), 0.0, _clipped)
    if name == "model":
        rng = Generator().manual_seed(17)
        groups = as_groups(gaussian_dictionary(100, 100, 2, generator=rng), 2)
        singles = torch.einsum("gnd,gkd->gkn", groups, torch.randn(100, 60, 2, generator=rng)).flatten(0, 1)
        labels, kinds = torch.arange(100).repeat_interleave(60), tuple(map(str, range(100)))
        return Pool(torch.nn.functional.normalize(singles), labels, kinds, (4.0, 5.0), 0.1, _signed_parts)
    with np.load(RESULTS / f"17_{name}.npz") as content:
        singles = torch.nn.functional.normalize(torch.from_numpy(content["singles"].astype(np.float32)))
        labels, kinds = torch.from_numpy(content["labels"].astype(int)), tuple(map(str, content["types"]))
    norms, noise = {"signals": ((6.0, 20.0), 1.0), "jets": ((1.0, 1.0), 0.0), "galaxies": ((1.0, 1.0), 1 / 30)}[name]
    return Pool(singles, labels, kinds, norms, noise, _spectrogram if name == "signals" else _clipped)


def _clipped(samples: np.ndarray) -> np.ndarray:
    return samples.clip(min=0)


def _signed_parts(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([samples, -samples], axis=1).clip(min=0)


def _spectrogram(samples: np.ndarray) -> np.ndarray:
    _, _, cells = stft(samples, nperseg=32, noverlap=24, boundary=None, padded=False)  # as in chapter 14
    return np.abs(cells).reshape(len(samples), -1)


def draw_data(pool: Pool, settings: SumSettings, *, generator: Generator) -> SumData:
    """Split the pool, and draw sums and noisy singles of its parts.

    Raises:
        ValueError: more kinds in a sum than there are.
    """
    n_kinds = len(pool.kinds)
    check_int("n_present", settings.n_present, high=n_kinds)
    order = torch.randperm(len(pool.labels), generator=generator)
    test, train = order.split([round(TEST_SHARE * len(order)), len(order) - round(TEST_SHARE * len(order))])
    sums = {}
    for name, rows, count in (("train", train, settings.n_train), ("test", test, settings.n_test)):
        kinds = torch.rand(count, n_kinds, generator=generator).argsort(dim=1)[:, : settings.n_present]
        sums[name] = _noisy(_add(pool, rows, kinds, generator), pool, generator), kinds
    train_present, present = (
        torch.zeros(len(kinds), n_kinds, dtype=torch.bool).scatter_(1, kinds, True)
        for kinds in (sums["train"][1], sums["test"][1])
    )
    labels = pool.labels[train]
    singles = _noisy(_scale(pool.singles[train], pool, generator), pool, generator)
    places = [(labels == kind).nonzero().flatten().split(settings.n_labelled)[:2] for kind in range(n_kinds)]
    few, others = map(torch.cat, zip(*places, strict=True))
    return SumData(sums["train"][0], sums["test"][0], train_present, present, singles, labels, few, others)


def _add(pool: Pool, rows: Tensor, kinds: Tensor, generator: Generator) -> Tensor:
    """Sums of singles among `rows`, one of each of the kinds (sums, kinds in each)."""
    total = torch.zeros(len(kinds), pool.singles.shape[1])
    for kind in range(len(pool.kinds)):
        own = rows[pool.labels[rows] == kind]
        for column in kinds.T:
            here = (column == kind).nonzero().flatten()
            chosen = own[torch.randint(len(own), (len(here),), generator=generator)]
            total[here] += _scale(pool.singles[chosen], pool, generator)
    return total


def _scale(singles: Tensor, pool: Pool, generator: Generator) -> Tensor:
    low, high = pool.norms
    return singles * low * (high / low) ** torch.rand(len(singles), 1, generator=generator)


def _noisy(samples: Tensor, pool: Pool, generator: Generator) -> Tensor:
    return samples + pool.noise_std * torch.randn(samples.shape, generator=generator)


def run_sums(settings: SumSettings, method: str, *, seed: int, pool: Pool | None = None) -> list[SumRun]:
    """Learn by one of METHODS, or SAME_START, code the test sums by every code, and read which kinds are in them.

    The seed draws the data, the same for all methods, and what a method draws. A baseline has its own code. Labels
    of singles beyond the few are used by "all labels" alone, those of sums by "labelled sums" alone, a supervised
    reference without a readout. pool: instead of that of `load_pool`.

    Raises:
        ValueError: an unknown method, or sizes that do not fit the data.
    """
    check_choice("method", method, (*METHODS, SAME_START))
    pool = load_pool(settings.data) if pool is None else pool
    data = draw_data(pool, settings, generator=Generator().manual_seed(seed))
    n_kinds, labels = len(pool.kinds), data.labels[data.few]

    def read(code: str, singles: Tensor, sums: Tensor, *facts: float) -> list[SumRun]:
        found = read_kinds(singles, labels, sums, n_kinds).items()
        return [SumRun(code, name, *score_kinds(norms, data.present), *facts) for name, norms in found]

    if method == "labelled sums":
        return [SumRun("own", "none", *score_kinds(_supervised(data, seed), data.present))]
    if method in BASELINES:
        n_parts = settings.groups_per_kind * n_kinds * (settings.group_size if method == "NMF, as many atoms" else 1)
        return read("own", *_BASELINES[method](data, n_parts, pool, seed))
    rng, runs = Generator().manual_seed(seed), []
    kept = draw_kept(data.train.shape[1], generator=rng)
    dictionary, size = find_dictionary(method, data, n_kinds, settings, kept, generator=rng)
    facts = (dictionary.shape[1], mean_coherence(dictionary, size))
    for name in CODES:
        code, penalty = choose_code(name, data.train[:N_CHOICE], dictionary, size, kept)
        parts = (group_norms(code(rows, dictionary, penalty), size) for rows in (data.singles[data.few], data.test))
        runs += read(name, *parts, penalty, *facts)
    return runs


def find_dictionary(
    name: str, data: SumData, n_kinds: int, settings: SumSettings, kept: Tensor, *, generator: Generator
) -> tuple[Tensor, int]:
    """A dictionary of unit columns, and the size of its groups.

    From sums: "k-subspaces"; "pairs", the start of chapter 15; "network", after that ten epochs of the network with 15
    layers; "solver", after "pairs" or "k-subspaces" four passes of alternation; "pairs, ridge", as many rounds of ridge
    codes and least squares, without zeros; "single atoms", four passes after k-subspaces with d = 1 and as many atoms;
    "single atoms, pairs", four passes with d = 1 after the groups of "pairs", the start of "solver".
    From singles: "unlabelled singles", k-subspaces; "labelled singles", the others, a group for each kind; "all
    labels", as many principal directions of each kind.

    Raises:
        ValueError: an unknown dictionary, or sizes that do not fit the data.
    """
    n_groups, d = settings.groups_per_kind * n_kinds, settings.group_size
    if name in ("labelled singles", "all labels"):
        rows = data.others if name == "labelled singles" else torch.arange(len(data.labels))
        samples, labels = data.singles[rows], data.labels[rows]
        directions = [torch.linalg.svd(samples[labels == kind], full_matrices=False).Vh for kind in range(n_kinds)]
        return from_groups(torch.stack([vh[: settings.n_labelled].T for vh in directions])), settings.n_labelled
    if name == "unlabelled singles":
        return initial_dictionary(data.singles, n_groups, d, generator=generator), d
    if name == "single atoms":
        n_groups, d = n_groups * d, 1
    check_choice("name", name, (*DICTIONARIES, SAME_START))
    start = "pairs" if name in ("pairs", "pairs, ridge", "network", "solver", SAME_START) else "k-subspaces"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupsMissingWarning)
        dictionary = initial_dictionary(data.train, n_groups, d, start, generator=generator)
    if name == start:
        return dictionary, d
    d = 1 if name == SAME_START else d
    if name == "pairs, ridge":
        code, penalty = choose_code("ridge", data.train[:N_CHOICE], dictionary, d, kept)
        for _ in range(24):  # as many as batches in four passes
            codes = code(data.train, dictionary, penalty)
            dictionary = normalize_columns(torch.linalg.lstsq(codes, data.train, driver="gelsd").solution.T)
        return dictionary, d
    if name == "network":
        _, penalty = choose_code("iterations", data.train[:N_CHOICE], dictionary, d, kept)
        model = GroupSparseAutoencoder(
            len(dictionary), n_groups, d, LEARNING * penalty, n_iterations=N_ITERATIONS, dictionary=dictionary
        )
        plan = TrainingSettings(epochs=10, learning_rate=1e-3, batch_size=100, progress=False)
        train(model, data.train, plan, generator=generator)
        return normalize_columns(model.weight.detach()), d
    _, penalty = choose_code("solver", data.train[:N_CHOICE], dictionary, d, kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        fit = alternating_minimization(
            data.train, dictionary, LEARNING * penalty, d, max_iter=4, batch_size=500, generator=generator, tol=1e-2
        )
    return normalize_columns(fit.dictionary), d


def mean_coherence(dictionary: Tensor, group_size: int) -> float:
    """The mean, over pairs of groups of a dictionary (features, atoms), of the largest cosine between them."""
    bases = torch.linalg.qr(as_groups(dictionary, group_size).double()).Q
    cosines = torch.linalg.matrix_norm(torch.einsum("gni,hnj->ghij", bases, bases), ord=2)
    return cosines[~torch.eye(len(bases), dtype=torch.bool)].mean().item()


def _k_means(data: SumData, n_centres: int, pool: Pool, seed: int) -> tuple[Tensor, Tensor]:
    """How much nearer a centre is than the centres on average, if it is, the pool's magnitudes at unit norm.

    Source: Coates, Ng, Learning feature representations with k-means, 2012 (their "triangle" code).
    """
    train, few, test = (
        normalize(pool.magnitudes(rows.numpy())) for rows in (data.train, data.singles[data.few], data.test)
    )
    model = KMeans(n_centres, n_init=3, random_state=seed).fit(train)
    few, test = (torch.from_numpy(model.transform(rows)) for rows in (few, test))
    few, test = ((rows.mean(dim=1, keepdim=True) - rows).clamp(min=0) for rows in (few, test))
    return few, test


def _nmf(data: SumData, n_parts: int, pool: Pool, seed: int) -> tuple[Tensor, Tensor]:
    """Non-negative matrix factorisation of the pool's magnitudes."""
    return _parts(NMF(n_parts, init="nndsvda", max_iter=500, random_state=seed), data, pool)


def _nmf_of_many(data: SumData, n_parts: int, pool: Pool, seed: int) -> tuple[Tensor, Tensor]:
    """The same by mini-batches from a random start: the usual one has at most as many parts as there are features."""
    return _parts(MiniBatchNMF(n_parts, init="random", batch_size=500, max_iter=50, random_state=seed), data, pool)


def _parts(model: NMF | MiniBatchNMF, data: SumData, pool: Pool) -> tuple[Tensor, Tensor]:
    train, few, test = (pool.magnitudes(rows.numpy()) for rows in (data.train, data.singles[data.few], data.test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train)
        few, test = (torch.from_numpy(model.transform(rows)) for rows in (few, test))
    lengths = torch.from_numpy(np.linalg.norm(model.components_, axis=1))
    return few * lengths, test * lengths


def _supervised(data: SumData, seed: int) -> Tensor:
    """Probabilities of kinds in the test sums, by a perceptron with one layer of 256, trained on labelled sums."""
    scale = data.train.square().mean().sqrt()
    model = MLPClassifier((256,), early_stopping=True, random_state=seed)
    model.fit((data.train / scale).numpy(), data.train_present.numpy())
    return torch.from_numpy(model.predict_proba((data.test / scale).numpy()))


_BASELINES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "k-means": _k_means,
    "NMF": _nmf,
    "NMF, as many atoms": _nmf_of_many,
}


def read_kinds(singles: Tensor, labels: Tensor, sums: Tensor, n_kinds: int) -> dict[str, Tensor]:
    """Norms of kinds, (sums, kinds), from norms of groups, by each readout.

    A kind's profile is the mean over its labelled singles of the shares of energy of the groups. "names": each group
    belongs to the kind in whose profile it is largest, and energies are added. "profiles": the non-negative combination
    of profiles that fits a sum's energies best, its weights' roots. "amplitudes": the same of norms, without a root.
    """
    found: dict[str, Tensor] = {}
    for readout, power in (("profiles", 2), ("amplitudes", 1)):
        shares = torch.nn.functional.normalize(singles.double() ** power, p=1.0)
        profiles = torch.stack([shares[labels == kind].mean(dim=0) for kind in range(n_kinds)])
        shares = torch.nn.functional.normalize(sums.double() ** power, p=1.0)
        if readout == "profiles":
            named = torch.nn.functional.one_hot(profiles.argmax(dim=0), n_kinds).double()
            found["names"] = (shares @ named).sqrt()
        weights = np.array([nnls(profiles.numpy().T, row)[0] for row in shares.numpy()])
        found[readout] = torch.from_numpy(weights) ** (1 / power)
    return found


def score_kinds(norms: Tensor, present: Tensor) -> tuple[float, float, float, float]:
    """(share, exact, precision, recall) of `SumRun`; present (sums, kinds) with equally many in each sum."""
    n_present = int(present[0].sum())
    largest = torch.zeros_like(present).scatter_(1, norms.topk(n_present).indices, True)
    share = largest[present].double().mean().item()
    exact = (largest == present).all(dim=1).double().mean().item()
    top = norms.amax(dim=1, keepdim=True)
    called = (norms >= PRESENT * top) & (top > 0)
    hits = (called & present).sum().item()
    return share, exact, hits / max(int(called.sum()), 1), hits / int(present.sum())


def plan() -> list[dict[str, Any]]:
    """Every method on sums of two of every kind of data, then without the ablations on sums of three, and on singles.

    Of the model each group is a kind.
    """
    sizes = {"model": {"n_labelled": 2, "groups_per_kind": 1, "group_size": 2}}
    return [
        {"settings": SumSettings(data, n_present, **sizes.get(data, {})), "method": method}
        for n_present, data, method in itertools.product((2, 3, 1), DATA, METHODS)
        if n_present == 2 or method not in ONLY_TWO
    ]


def best_scores(rows: pd.DataFrame, name: str, method: str, codes: Sequence[str], column: str = "exact") -> np.ndarray:
    """The scores of the seeds for sums of the data `name`, by one of the `codes` of a method and a readout.

    They are the two that are exact most often on average, which favours a method with more codes a little.
    """
    here = rows[(rows["data"] == name) & (rows["method"] == method) & rows["code"].isin(codes)]
    exact = here.pivot(index="seed", columns=["code", "readout"], values="exact")
    scores = here.pivot(index="seed", columns=["code", "readout"], values=column)
    return scores[exact.mean().idxmax()].to_numpy()


def exact_table(rows: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Exact shares, mean and deviation over seeds: a row for each (method, code), a column for each data."""
    cells = {
        (method, code, name): shown(best_scores(rows, name, method, [code]))
        for (method, code), name in itertools.product(pairs, DATA)
    }
    return pd.Series(cells).unstack()[list(DATA)].loc[list(pairs)]


def shown(values: np.ndarray, sign: str = "") -> str:
    """Mean ± sample deviation to three decimals, on one line in a table; sign "+" shows that of the mean."""
    return f"{values.mean():{sign}.3f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{values.std(ddof=1):.3f}"


def is_clear(gains: np.ndarray) -> bool:
    """Whether the mean of the gains of the seeds is at least 0.01 and three standard errors."""
    return bool(gains.mean() > max(0.01, 3 * gains.std(ddof=1) / len(gains) ** 0.5))
