"""Choices without labels, for your own data: read a table, hold the activity, ask whether clusters are stable."""

import dataclasses
import logging
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from gsae_lib._checks import check_int, check_matrix
from gsae_lib.autoencoder import GroupSparseAutoencoder, hold_activity
from gsae_lib.estimators import GroupSparseClustering

logger = logging.getLogger(__name__)

READERS = (".npy", ".csv", ".parquet")


def read_table(path: str | Path) -> np.ndarray:
    """A table of numbers, (samples, features), from a NumPy, CSV or Parquet file.

    A CSV file has commas between its cells. Its first line is a header if a cell of it is neither a number nor empty,
    and otherwise a sample; a line of the log (INFO) says which. A blank line is a sample with missing values. Parquet
    needs the package pyarrow (`pip install "gsae_lib[tables]"`).

    Raises:
        ValueError: a file of another kind, or one that is not a finite table of numbers, at least one; names the file
            and the first cell that is no number, by row (the first sample is 0) and column.
        OSError: no such file.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"path={str(path)!r}: expected a file that ends with one of {', '.join(READERS)}")
    if path.suffix == ".npy":
        table = np.load(path, allow_pickle=False)
        names = range(table.shape[-1]) if table.ndim else ()
    else:
        table, names = _read_frame(path)
    if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.number) or np.iscomplexobj(table):
        raise ValueError(f"path={str(path)!r}: expected a table of real numbers, got {table.shape} {table.dtype}")
    table = table.astype(np.float32 if table.dtype == np.float32 else np.float64)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        where = f"row {row}, column {names[column]!r}"
        raise ValueError(f"path={str(path)!r}: {where} is missing or infinite, as are {len(bad)} cells in all")
    return table


def _read_frame(path: Path) -> tuple[np.ndarray, Sequence]:
    """The table in a Parquet or CSV file and the names of its columns."""
    import pandas as pd

    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        names = list(frame)
    else:
        settings = {"encoding": "utf-8-sig", "skip_blank_lines": False, "index_col": False}
        try:
            with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
                first = pd.read_csv(path, header=None, nrows=1, **settings)
                named = not all(map(pd.api.types.is_numeric_dtype, first.dtypes))
                frame = pd.read_csv(path, header=0 if named else None, **settings)
        except (ValueError, pd.errors.ParserWarning) as error:  # not UTF-8, no cells, or lines of different lengths
            raise ValueError(f"path={str(path)!r}: {str(error).strip()}") from None
        cells = ["" if pd.isna(cell) else str(cell) for cell in first.iloc[0]]
        shown = textwrap.shorten(", ".join(cells), 200)
        logger.info("%s: the first line is %s: %s", path, "a header" if named else "a sample", shown)
        names = cells if named else list(frame)
        if "" in names:
            raise ValueError(f"path={str(path)!r}: expected a name for each column, got the header {names}")
    texts = [k for k, kind in enumerate(frame.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    if texts and len(frame):
        cells = frame.iloc[:, texts[0]]
        row = int(np.argmax(pd.to_numeric(cells, errors="coerce").isna() & cells.notna()))
        where = f"row {row}, column {names[texts[0]]!r}"
        raise ValueError(f"path={str(path)!r}: {where}: {cells.iloc[row]!r} is not a number; drop or encode the column")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), names


def alpha_for_activity(
    X: np.ndarray,
    components: np.ndarray,
    group_size: int,
    active: float,
    *,
    n_layers: int = 10,
    tol: float = 0.05,
) -> float:
    """The penalty at which samples use `active` groups on average, by bisection on its logarithm.

    Holding the activity, and not the penalty, makes dictionaries comparable.

    Args:
        X (samples, features), of which at most 1,000 are used, evenly spaced.
        components (atoms, features): the dictionary's rows. active: groups a sample, more than 0.
        n_layers: of the network that codes, as in the estimators.
        tol: relative, on the activity.

    Raises:
        ValueError: an activity that cannot be reached, X that is not a finite matrix, or a group_size that does not
            divide the number of components.
    """
    data = check_matrix("X", torch.from_numpy(np.array(X, dtype=np.float64)))
    weight = torch.from_numpy(np.array(components.T, dtype=np.float64))
    groups, rest = divmod(weight.shape[1], check_int("group_size", group_size))
    if rest:
        raise ValueError(f"group_size={group_size}: does not divide {weight.shape[1]} components")
    model = GroupSparseAutoencoder(*data.shape[1:], groups, group_size, 0.0, num_iterations=n_layers, weight=weight)
    return hold_activity(model, data, active, tol=tol)


def cluster_stability(
    model: GroupSparseClustering, X: np.ndarray, counts: Sequence[int], *, repeats: int = 5, seed: int = 0
) -> np.ndarray:
    """How far clusterings of two random halves agree on all samples: adjusted Rand index, (repeats, counts).

    A number of clusters at which halves of the data tell the same story is one that the data support. 1 is perfect, 0
    is chance. (A single cluster always agrees: do not ask about it.) A half's dictionary is learned once.

    Args:
        model: what clusters, with n_groups a number; copies of it are fitted.
        counts: numbers of clusters to try. repeats: splits in halves.

    Raises:
        ValueError: as `GroupSparseClustering.fit` and `recluster`, for one half; no counts; n_groups="auto", which
            depends on the number of clusters.
    """
    if not len(counts):
        raise ValueError(f"counts={counts}: expected at least one number of clusters")
    if model.n_groups == "auto":
        raise ValueError("n_groups='auto': expected a number, the same for all counts")
    X = np.asarray(X)
    rng = np.random.default_rng(seed)
    found = np.zeros((check_int("repeats", repeats), len(counts)))
    for row in found:
        halves = np.array_split(rng.permutation(len(X)), 2)
        fitted = [clone(model).set_params(n_clusters=counts[0]).fit(X[half]) for half in halves]
        for column, count in enumerate(counts):
            pairs = zip(fitted, halves, strict=True)
            row[column] = adjusted_rand_score(*(one.recluster(X[half], count).predict(X) for one, half in pairs))
    return found


@dataclasses.dataclass(frozen=True)
class Steadiest:
    """The steadiest of several ways to cluster.

    model: a copy of the one chosen, with its number of clusters set, not fitted; index: its place among the candidates;
    column: the place of its number of clusters; agreement (candidates, repeats, counts): what `cluster_stability` found
    for all of them.
    """

    model: GroupSparseClustering
    index: int
    column: int
    agreement: np.ndarray


def choose_steadiest(
    candidates: Sequence[GroupSparseClustering],
    X: np.ndarray,
    counts: Sequence[int],
    *,
    repeats: int = 5,
    seed: int = 0,
) -> Steadiest:
    """The candidate, and the number of clusters, on which halves of the data agree best; ties go to fewer atoms.

    A tie is a mean agreement within one standard error, over the repeats, of the best. Each candidate stands with its
    own steadiest number of clusters. No labels are used.

    Args:
        candidates: what to choose from, each with n_groups a number. counts: numbers of clusters to try.
        repeats: splits in halves, the same for all candidates; 2 or more.

    Raises:
        ValueError: no candidates, fewer than two repeats, or as `cluster_stability`.
    """
    if not len(candidates):
        raise ValueError("candidates=[]: expected at least one")
    check_int("repeats", repeats, low=2)
    agreement = np.stack([cluster_stability(model, X, counts, repeats=repeats, seed=seed) for model in candidates])
    means = agreement.mean(axis=1)
    best, column = np.unravel_index(means.argmax(), means.shape)
    error = agreement[best, :, column].std(ddof=1) / np.sqrt(repeats)
    near = np.flatnonzero(means.max(axis=1) >= means.max() - error)
    index = int(min(near, key=lambda k: candidates[k].n_groups * candidates[k].group_size))
    column = int(means[index].argmax())
    model = clone(candidates[index]).set_params(n_clusters=counts[column])
    return Steadiest(model, index, column, agreement)
