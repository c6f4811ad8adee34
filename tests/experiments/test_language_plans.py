"""Which points of chapter 18 are run next: the rule on a table whose answer is known, and the plans."""

import pandas as pd
import pytest

from experiments.language.plans import (
    chosen_variants,
)


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
