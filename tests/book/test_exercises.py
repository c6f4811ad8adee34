"""How a chapter ends: verdict, three lines to remember, exercises; and the code of their solutions runs."""

import re

import pytest
from built_site import ROOT

from gsae_book.runs.parameters import read_cells

LAST = ["Three lines to remember", "Exercises"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def text_of(path):
    return "\n\n".join(cell["source"] for cell in read_cells(path) if cell["cell_type"] == "markdown")


def blocks(text, kind):
    """The exercises or solutions of a text, by label."""
    found = re.findall(rf"^:::\{{{kind}\}}(.*?)^:::$", text, flags=re.MULTILINE | re.DOTALL)
    return {re.search(r"^(?::label:)? ?(ex-[\w-]+)$", block, flags=re.MULTILINE)[1]: block for block in found}


def codes(path):
    """The Python of each solution that has some, by label."""
    code = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
    return {label: "\n".join(code.findall(block)) for label, block in blocks(text_of(path), "solution").items()}


CODES = {label: code for path in NOTEBOOKS for label, code in codes(path).items() if code}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_ends_with_verdict_three_lines_and_exercises(path):
    """Fails if one of them is missing or elsewhere, or if fewer than two exercises have solutions with code."""
    text = text_of(path)
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    if headings[-1] == "References":
        headings.pop()
    assert headings[-2:] == LAST and headings[-3].startswith("Verdict")
    (three,) = re.findall(rf"^## {LAST[0]}\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^\* ", three, flags=re.MULTILINE)) == 3
    assert blocks(text, "exercise").keys() == blocks(text, "solution").keys()
    assert sum(bool(code) for code in codes(path).values()) >= 2


@pytest.mark.parametrize("label", CODES)
def test_the_code_of_a_solution_runs_alone(label, tmp_path, monkeypatch):
    """Fails if it needs a name that it does not make, or if what it asserts is not so."""
    code = CODES[label]
    assert "assert " in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, label, "exec"), {"__name__": label})
