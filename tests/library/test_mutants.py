"""The list that `make mutants` runs: what each changes is in the source once, and what should see it exists."""

import re
from collections import Counter
from pathlib import Path

from mutants.__main__ import ROOT, read_mutants

MUTANTS = read_mutants()


def test_names_are_their_own():
    """Fails if two mutants share a name, or the files are not read."""
    assert len(MUTANTS) >= 100
    assert not [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1]


def test_each_text_is_in_its_file_once():
    """Fails if code was rewritten and its mutants were not."""
    assert not [mutant.name for mutant in MUTANTS if mutant.is_stale]
    assert not [mutant.name for mutant in MUTANTS if mutant.old == mutant.new]


def test_each_has_tests_that_exist():
    """Fails if a test that sees a mutant was renamed, moved or deleted."""
    sources = {path: path.read_text("utf-8") for path in Path(ROOT, "tests").rglob("test_*.py")}
    for mutant in MUTANTS:
        assert mutant.killed_by, mutant.name
        for test in mutant.killed_by:
            path, name = test.split("::")
            assert re.search(rf"^def {name}\(", sources[ROOT / path], re.MULTILINE), f"{mutant.name}: {test}"
