"""What the recorded yardstick says: a table of every method on every data table, ranks, and errors of the judgement."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.tables.agreement import (
    CHOICE,
    CHOOSING,
    IMAGES,
    OURS,
    RANKED,
    REPORTED,
    SUBSPACES,
)
from gsae_book.runs.recording import select

HALVES = {"reported": REPORTED, "chose the defaults": CHOOSING}
BOUND = 0.05  # of the adjusted Rand index: what the choice may lose against k-means, and what counts as an error


def agreements(rows: pd.DataFrame, told: bool) -> pd.DataFrame:
    """Adjusted Rand index, the mean over seeds: a row for each table, a column for each method and for the choice.

    Raises:
        ValueError: no such rows.
    """
    means = select(rows, told=told).pivot_table(index="table", columns="method", values="agreement", sort=False)
    return means[[*RANKED, CHOICE]]


def by_table(rows: pd.DataFrame, told: bool) -> pd.DataFrame:
    """The same as text, "mean (worst)", with the share of seeds on which the choice fell back to k-means.

    Raises:
        ValueError: no such rows.
    """
    groups = select(rows, told=told).groupby(["table", "method"], sort=False)["agreement"]
    text = groups.mean().map("{:.2f}".format) + groups.min().map(" ({:.2f})".format)
    shown = text.unstack()[[OURS, CHOICE, *(name for name in RANKED if name != OURS)]]
    shown.insert(2, "fell back", _fell_back(select(rows, told=told)).map("{:.0%}".format))
    return shown


def ranks(rows: pd.DataFrame, told: bool, method: str = OURS) -> pd.Series:
    """The rank of the model alone, or of the choice in its place, among RANKED on each table, by its mean.

    1 is best, and equals share the mean rank.

    Raises:
        ValueError: no such rows.
    """
    others = [name for name in RANKED if name != OURS]
    return agreements(rows, told)[[method, *others]].round(3).rank(axis=1, ascending=False)[method]


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """For each half of the tables, told and not: what was asked of the defaults, and what they gave.

    "median rank" and "best of all" (tables) are of the model alone, "largest loss to k-means" of the choice: its
    mean on a table below that of k-means; "rank of the choice" and "loss of the model" are the other way round.
    "largest loss to the better" is the same for the better of model and k-means, and "in a run" for single runs,
    against k-means. "kept wrongly" and "fell back wrongly": shares of the runs in which the other clustering was better
    by more than BOUND.

    Raises:
        ValueError: no such rows.
    """
    found = []
    for half, told in ((half, told) for half in HALVES for told in (True, False)):
        some = rows[rows["table"].isin(HALVES[half])]
        means, places = agreements(some, told), ranks(some, told)
        row = {"half": half, "number of kinds": "told" if told else "not told", "tables": len(means)}
        row |= {"median rank": places.median(), "best of all": int((places < 2).sum())}
        row |= {"largest loss to k-means": (means["k-means"] - means[CHOICE]).max()}
        row |= {"rank of the choice": ranks(some, told, CHOICE).median()}
        row |= {"loss of the model": (means["k-means"] - means[OURS]).max()}
        row |= {"largest loss to the better": (means[[OURS, "k-means"]].max(axis=1) - means[CHOICE]).max()}
        row |= _errors(select(some, told=told))
        found.append(row)
    return pd.DataFrame(found).set_index(["half", "number of kinds"])


def leads(rows: pd.DataFrame, told: bool, tables: Sequence[str] = (*SUBSPACES, *IMAGES)) -> pd.Series:
    """By how much the model alone is ahead of the best other method on each table, negative where it is behind.

    Raises:
        ValueError: no such rows.
    """
    means = agreements(rows, told).loc[list(tables)]
    return means[OURS] - means[[name for name in RANKED if name != OURS]].max(axis=1)


def seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds of one core that a table takes: the median over tables and seeds, and the longest, told and not.

    Those of the model alone are those of the choice, with the evidence.

    Raises:
        ValueError: no such rows.
    """
    columns = {}
    for told, name in ((True, "told"), (False, "not told")):
        groups = select(rows, told=told).groupby("method", sort=False)["seconds"]
        columns |= {f"{name}, median": groups.median(), f"{name}, longest": groups.max()}
    return pd.DataFrame(columns).loc[[CHOICE, *(name for name in RANKED if name != OURS)]]


def _runs(rows: pd.DataFrame) -> pd.DataFrame:
    """The agreement of each method, and whether the model was kept, by table and seed."""
    runs = rows.pivot_table(index=["table", "seed"], columns="method", values="agreement", sort=False)
    kept = select(rows, method=CHOICE).set_index(["table", "seed"])["fits"].astype(bool)
    return runs.assign(kept=kept)


def _fell_back(rows: pd.DataFrame) -> pd.Series:
    return 1 - _runs(rows)["kept"].groupby(level="table", sort=False).mean()


def _errors(rows: pd.DataFrame) -> dict[str, float]:
    runs = _runs(rows)
    lead, kept = runs[OURS] - runs["k-means"], runs["kept"].to_numpy(dtype=bool)
    return {
        "largest loss in a run": float((runs["k-means"] - runs[CHOICE]).max()),
        "fell back": float(np.mean(~kept)),
        "kept wrongly": float(np.mean(kept & (lead < -BOUND))),
        "fell back wrongly": float(np.mean(~kept & (lead > BOUND))),
    }
