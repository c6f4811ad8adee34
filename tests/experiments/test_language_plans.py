"""Which points of chapter 18 are run next: the rule on a table whose answer is known, and the plans."""

import dataclasses

import pandas as pd
import pytest

from experiments.language.baselines import METHODS
from experiments.language.features import FeatureSettings, plan
from experiments.language.plans import (
    RECORDED,
    chosen_variants,
    plan_baselines,
    plan_controls,
    plan_longer,
    plan_rest,
    plan_variants,
)
from gsae_book.runs.recording import read_rows


def table(*rows):
    """Points as (data, activation, group size, decoder, tied, unexplained, months_captured)."""
    names = ["data", "activation", "group_size", "decoder", "tied", "unexplained", "months_captured"]
    return pd.DataFrame(rows, columns=names)


def every(left):
    """All activations alike."""
    return [
        ("smollm2", activation, *rest)
        for activation in ("group ReLU", "group top-k", "batch top-k", "group JumpReLU")
        for rest in left
    ]


def test_the_rule_takes_the_least_that_is_left_and_nothing_else():
    """Fails if free, tied or planted points are taken, single atoms count as groups, or names have a part in it."""
    rows = table(
        *every(
            [
                (1, "unit", False, 0.1, 0.0),
                (2, "unit", False, 0.5, 0.9),
                (4, "orthonormal", False, 0.4, 0.0),
                (8, "unit", False, 0.6, 1.0),
                (2, "free", False, 0.2, 1.0),
                (3, "unit", True, 0.3, 1.0),
            ]
        ),
        ("planted", "group ReLU", 8, "unit", False, 0.0, 1.0),
    )
    chosen = chosen_variants(rows)
    assert [(one.group_size, one.decoder) for one in chosen] == [(1, "unit"), (4, "orthonormal")] * 4
    assert {one.data for one in chosen} == {"smollm2"} and not any(one.tied for one in chosen)
    with pytest.raises(ValueError, match="rows: expected groups of one and others of the group JumpReLU, got 3 points"):
        chosen_variants(rows[(rows["activation"] != "group JumpReLU") | (rows["group_size"] > 1)])


def test_the_rule_on_what_is_recorded():
    """Fails if other variants are chosen than on the day on which the grid was recorded."""
    chosen = [(one.activation, one.group_size, one.decoder) for one in chosen_variants(read_rows(RECORDED))]
    assert chosen == [
        ("group ReLU", 1, "unit"),
        ("group ReLU", 2, "unit"),
        ("group top-k", 1, "unit"),
        ("group top-k", 2, "unit"),
        ("batch top-k", 1, "unit"),
        ("batch top-k", 2, "orthonormal"),
        ("group JumpReLU", 1, "unit"),
        ("group JumpReLU", 2, "unit"),
    ]
    points = plan_variants()
    assert len(points) == len({*points}) == 16
    assert {point.n_tokens for point in points} == {180_000}
    assert {point.data for point in points} == {"smollm2", "planted"}


def test_the_rest_completes_the_grid():
    """Fails if a point of the full grid is in neither plan, or one is in both."""
    own = {dataclasses.replace(point, certify=False) for point in plan()}
    rest = plan_rest()
    assert len(rest) == len({*rest}) == 71 and not own & {*rest}
    untied = {point for point in own if not point.tied} | {*rest}
    wanted = {
        FeatureSettings(data, activation, d, decoder)
        for data in ("smollm2", "planted")
        for activation in ("group ReLU", "group top-k", "batch top-k", "group JumpReLU")
        for d in (1, 2, 3, 4, 8)
        for decoder in ("unit", "free", "orthonormal")
        if (d, decoder) != (1, "orthonormal")
    }
    assert untied == wanted


def test_controls_and_baselines_are_planned_once_each():
    """Fails if a method, a kind of data or the constraint under which groups died is left out."""
    assert len({*plan_controls()}) == len(plan_controls()) == 18
    baselines = plan_baselines()
    assert len({*baselines}) == len(baselines) == 26
    assert {one.method for one in baselines} == {*METHODS}


def test_longer_trainings_differ_in_passes_alone():
    """Fails if a kind of data, a size or the activation that is behind is left out, or another setting moves."""
    points = plan_longer()
    assert len(points) == len({*points}) == 8
    assert {(point.epochs, point.n_tokens) for point in points} == {(10, 180_000)}
    short = {dataclasses.replace(point, certify=False) for point in plan()}
    assert {dataclasses.replace(point, epochs=1, n_tokens=100_000) for point in points} <= short
