"""The counts of what commands withstand: how they are kept, shown, and compared."""

import math

import pytest
from faults.repeats import compare, distance

from gsae_book.build.faults import COLUMNS, fault_table, write_part

RUN = {"date": "2026-01-02", "commit": "abc", "processor": "P", "seed": 3}


def test_a_part_is_replaced_and_shown_by_sums(tmp_path):
    """Fails if counting one part drops another, or if what is wrong is not told."""
    (tmp_path / "results").mkdir()
    kills = [{"command": "a", "kills": 4, "of_driver": 3, "resumed": 2, "wrong": ["it hangs"]}]
    write_part("kills", kills, tmp_path, run=RUN)
    repeats = [
        {"notebook": name, "variant": "two threads", "numbers": 3, "equal": 1, **dict.fromkeys(bounds, 0), "farther": 2}
        | {"far": ["x: 1 and 2"] * (name == "02")}
        for name in ("01", "02")
        for bounds in [[name for name in COLUMNS["repeats"] if name.startswith("within")]]
    ]
    write_part("repeats", repeats, tmp_path, run=RUN)
    write_part("kills", [*kills, kills[0] | {"command": "b", "wrong": []}], tmp_path, run=RUN)
    told = fault_table("kills", tmp_path)
    assert "| a | 4 | 3 | 2 | 1 |" in told and "| All | 8 | 6 | 4 | 1 |" in told
    assert "on 2026-01-02 at commit abc, on P, seed 3" in told and "* a: it hangs" in told
    told = fault_table("repeats", tmp_path)
    assert "| two threads | 6 | 2 | 0 | 0 | 0 | 4 |" in told and "* `02`, two threads: x: 1 and 2" in told
    assert fault_table("pairs", tmp_path) == "Not counted yet.\n"


def test_odd_tables_are_shown_one_by_one(tmp_path):
    """Fails if a mark of Markdown in a file or a message breaks the table."""
    (tmp_path / "results").mkdir()
    row = {"file": "bars", "name": "x.csv", "holds": "a|b\n1|2\n", "given": "drop=['a']", "found": "a | b, 5 * 2"}
    write_part("tables", [row | {"refused": False, "wrong": []}], tmp_path, run=RUN)
    told = fault_table("tables", tmp_path)
    assert r"| bars<br>`a\|b↵1\|2↵`<br>`drop=['a']` | a \| b, 5 \* 2 |" in told and "at commit abc" in told


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [(2.0, 2.0, 0), (100.0, 99.0, 0.01), ("a", "b", math.inf), ([1, 2], [1, 4], 0.5), (1, None, math.inf), (0, 0, 0)],
)
def test_the_distance_is_relative_to_the_larger(old, new, expected):
    assert distance(old, new) == distance(new, old) == expected


def test_numbers_are_counted_by_their_distance_and_times_are_not(tmp_path):
    """Fails if a metric that one run lacks counts as equal."""
    one = {name: {"value": value} for name, value in {"a": 1.0, "b": 1.0, "c": 2.0, "n_seconds": 1.0, "d": 1}.items()}
    other = {name: {"value": value} for name, value in {"a": 1.0, "b": 1 + 1e-8, "c": 3.0, "n_seconds": 9.0}.items()}
    found = compare(one, other)
    assert (found["numbers"], found["equal"], found["within 1e-6"], found["farther"]) == (4, 1, 1, 2)
    assert found["far"] == ["c: 2 and 3", "d: 1 and None"]
