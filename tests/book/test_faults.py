"""The counts of what commands withstand: how they are kept, shown, and compared."""

import pytest
from faults.repeats import compare

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
    ("old", "new", "counted"),
    [
        (2.0, 2.0, "equal"),
        (0, 0, "equal"),
        ("a", "a", "equal"),
        ([1, 2], [1, 2], "equal"),
        (1.0, 1 + 1e-8, "within 1e-6"),
        (1000.0, 999.5, "within 1e-3"),
        (100.0, 99.0, "farther"),
        ([1, 2], [1, 4], "farther"),
        ("a", "b", "farther"),
        (1, None, "farther"),
    ],
)
def test_numbers_are_counted_by_their_distance_relative_to_the_larger(old, new, counted):
    """Fails if a metric that one run lacks counts as equal, or a time counts at all."""
    for one, other in ((old, new), (new, old)):
        found = compare({"x": {"value": one}, "n_seconds": {"value": 1.0}}, {"x": {"value": other}})
        assert (found["numbers"], found[counted], len(found["far"])) == (1, 1, counted == "farther")
