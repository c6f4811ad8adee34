"""What the home page makes when it is built: its picture, and its sentences with numbers."""

import numpy as np
import pytest
from built_site import ROOT

from gsae_book.build.claims import VERDICTS
from gsae_book.build.home import draw_start, new_lines, start_angles
from gsae_book.runs.execution import RunRecord
from gsae_book.runs.parameters import ParameterError, read_yaml

NEW = ROOT / "book" / "new.yaml"


def run_with(metrics):
    """The record of a run with these metrics, and nothing else."""
    found = {name: {"value": value, "spread": spread} for name, (value, spread) in metrics.items()}
    return RunRecord("n", "n", "k", {}, found, {}, {}, "CPU", None, None, "today", 1.0)


def test_numbers_in_the_sentences_are_those_of_the_run(tmp_path):
    """Fails if a number is typed, formatted otherwise than it asks, or taken from another notebook."""
    path = tmp_path / "new.yaml"
    path.write_text("- {notebook: 07_a, text: 'At {x:.1f} or {x:.0%}, {y}.'}")
    lines = new_lines(path, {"07_a": run_with({"x": (0.25, None), "y": (3.0, 0.5)})})
    assert lines == "* At 0.2 or 25 %, 3.00 ± 0.50. ([chapter 07](../notebooks/07_a.ipynb))\n"
    with pytest.raises(ValueError, match="07_a recorded no 'y'"):
        new_lines(path, {"07_a": run_with({"x": (0.25, None)})})
    with pytest.raises(ValueError, match="there is no run of 07_a"):
        new_lines(path, {})
    path.write_text("- {notebook: 07_a, texts: y}")
    with pytest.raises(ParameterError, match="texts"):
        new_lines(path, {})


def test_there_are_five_sentences_each_of_a_notebook_that_is_there():
    """Fails if a bullet of the home page has no chapter."""
    lines = read_yaml(NEW)
    assert len(lines) == 5
    assert all((ROOT / "notebooks" / f"{line['notebook']}.ipynb").is_file() for line in lines)


def test_the_picture_shows_what_its_caption_says():
    """Fails if pairs do not find the planes, a random start would do, or training on either samples ends elsewhere."""
    angles = start_angles()
    names = ["random", "pairs of 500 samples", "trained on these 500", "trained on 320,000 more"]
    assert list(angles) == names
    random, pairs, same, fresh = (one.diagonal() for one in angles.values())
    assert random.mean() > 60 and pairs.max() < 15 and fresh.max() < 6
    assert fresh.mean() < 0.6 * pairs.mean() and same.mean() > 1.2 * pairs.mean()
    away = ~np.eye(len(random), dtype=bool)
    assert all(one[away].min() > 45 for one in list(angles.values())[1:])
    light, again, dark = (draw_start(angles, mode) for mode in ("light", "light", "dark"))
    assert light == again != dark and light.startswith("<?xml")


def test_the_ledger_explains_each_of_its_verdicts():
    """Fails if a verdict is added, and the page that uses it does not say what it means."""
    page = (ROOT / "book" / "verdict.md").read_text(encoding="utf8")
    assert [verdict for verdict in VERDICTS if f"**{verdict}**" not in page] == []
