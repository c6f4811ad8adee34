"""What of chapter 18 is run after its first grid: plans of specifications, and the rule that chooses variants."""

import dataclasses
import itertools

import pandas as pd

from experiments.language.baselines import BaselineSettings
from experiments.language.features import (
    ACTIVATIONS,
    DATA,
    SIZES,
    FeatureSettings,
    plan,
)
from gsae_book.runs.recording import read_rows
from gsae_lib.sae.architectures import CONSTRAINTS

RECORDED = "results/paper/18_features.json"
MORE_TOKENS = 180_000
REVIVED_SIZES = (1, 4, 8)


def chosen_variants(rows: pd.DataFrame) -> list[FeatureSettings]:
    """The eight variants that are run with five seeds, by the rule that was written before the first grid was run.

    For each activation groups of one, and of its other points with a norm constraint and an encoder of its own the one
    that leaves least of held-out states. Names of months and days have no part in it.

    Args:
        rows: of 18_features, one seed, as `read_rows` returns them.

    Raises:
        ValueError: an activation without such points.
    """
    allowed = rows[(rows["data"] == "smollm2") & (rows["decoder"] != "free") & ~rows["tied"].astype(bool)]
    chosen = []
    for activation in ACTIVATIONS:
        own = allowed[allowed["activation"] == activation]
        for part in (own[own["group_size"] == 1], own[own["group_size"] > 1]):
            if part.empty:
                raise ValueError(f"rows: expected groups of one and others of the {activation}, got {len(own)} points")
            best = part.loc[part["unexplained"].idxmin()]
            chosen.append(FeatureSettings("smollm2", activation, int(best["group_size"]), best["decoder"]))
    return chosen


def plan_variants() -> list[FeatureSettings]:
    """The eight variants at 180,000 states, and the same on as many planted samples."""
    return [
        dataclasses.replace(variant, data=data, n_tokens=MORE_TOKENS)  # type: ignore[arg-type]
        for data in DATA[:2]
        for variant in chosen_variants(read_rows(RECORDED))
    ]


def plan_longer() -> list[FeatureSettings]:
    """Batch top-k and the group ReLU with unit columns, ten times as long, on states and on planted features."""
    sizes: dict[str, tuple[int, ...]] = {"batch top-k": (1, 2, 4), "group ReLU": (2,)}
    return [
        FeatureSettings(data, activation, d, n_tokens=MORE_TOKENS, epochs=10)  # type: ignore[arg-type]
        for data in DATA[:2]
        for activation, some in sizes.items()
        for d in some
    ]


def plan_rest() -> list[FeatureSettings]:
    """What `plan` leaves out of sizes, activations and constraints on states and planted features, encoders untied.

    Orthonormal groups of one are unit columns.
    """
    known = {dataclasses.replace(point, certify=False) for point in plan()}
    full = (
        FeatureSettings(data, activation, d, decoder)  # type: ignore[arg-type]
        for data, decoder, d, activation in itertools.product(DATA[:2], CONSTRAINTS, SIZES, ACTIVATIONS)
        if d > 1 or decoder != "orthonormal"
    )
    return [point for point in full if point not in known]


def plan_controls() -> list[FeatureSettings]:
    """The points whose revival is turned off, and whose atoms are shuffled: `run_controls`."""
    return [
        FeatureSettings(data, activation, d)  # type: ignore[arg-type]
        for data, d, activation in itertools.product(DATA[:2], REVIVED_SIZES, ACTIVATIONS)
        if activation != "group top-k"
    ]


def plan_baselines() -> list[BaselineSettings]:
    """Groups, clustered atoms, k-subspaces and components at the sizes that are compared, on both kinds of data."""
    sizes = {
        "groups": (1, 2, 4),
        "clustered atoms": (2, 4),
        "clustered atoms, 24 a cluster": (2, 4),
        "k-subspaces": (2, 4, 32),
        "principal components": (2, 4, 32),
    }
    return [
        BaselineSettings(data, method, d)  # type: ignore[arg-type]
        for data in DATA[:2]
        for method, some in sizes.items()
        for d in some
    ]
