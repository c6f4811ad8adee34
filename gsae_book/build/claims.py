"""The ledger of the paper's claims: ``book/claims.yaml`` and what the notebooks recorded make one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gsae_book.build.pages import table_cell
from gsae_book.runs.execution import RunRecord
from gsae_book.runs.parameters import ParameterError, listed, read_yaml, shown
from gsae_book.runs.recording import format_value

VERDICTS = (
    "reproduced", "reproduced under named conditions", "reproduced in another form", "not reproduced",
    "shown", "shown under named conditions", "not shown",  # of what the paper leaves open
    "met", "met up to scale", "not met", "not needed here",  # of assumptions
)  # fmt: skip
UNCHECKED = "not yet checked"
# What stands below the numbers of a row, each after its word.
NOTES = {"regime": "Conditions", "reading": "Our reading", "printed": "As printed", "instead": "In its place"}


class Claim(BaseModel):
    """One claim of the paper, the notebook that checks it, and the names under which that records the answer.

    `metrics` maps a label, shown in the ledger, to the name of a recorded number. `paper` is what the paper has, where
    the claim's words do not say it. `regime`: under which conditions it was measured. `printed`: how the statement as
    printed fares. `reading`: what we took for what the paper leaves open. `instead`: what we put in its place.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    claim: str = Field(min_length=1)
    where: str = Field(min_length=1)
    paper: str | None = Field(default=None, min_length=1)
    notebook: str | None = None
    metrics: dict[str, str] = {}
    regime: str = ""
    printed: str = ""
    reading: str = ""
    instead: str = ""
    verdict: str | None = None


def read_claims(path: Path) -> list[Claim]:
    """Return the claims listed in the YAML file at ``path``; none if there is no such file.

    Raises: ParameterError naming the file and each entry that is malformed or whose id is used twice.
    """
    if not path.is_file():
        return []
    content = read_yaml(path)
    try:
        claims = TypeAdapter(list[Claim]).validate_python([] if content is None else content)
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}, not {shown(e['input'])}" for e in error.errors()
        ]
        raise ParameterError(listed(problems)) from None
    twice = [name for name, count in Counter(claim.id for claim in claims).items() if count > 1]
    if twice:
        raise ParameterError(f"{path}: these ids are used twice: {', '.join(twice)}")
    return claims


def verdict_table(claims: list[Claim], runs: Mapping[str, RunRecord]) -> str:
    """Return the ledger as a Markdown table, beside ``book/verdict.md``; ``runs`` are the records by notebook stem.

    A claim without a notebook, or whose notebook recorded none of its names yet, is 'not yet checked'.

    Raises: ValueError if a notebook recorded a verdict that is not one of VERDICTS.
    """
    lines = ["| Claim of the paper | This book | Verdict |", "| --- | --- | --- |"]
    for claim in claims:
        run = runs.get(claim.notebook or "")
        metrics = run.metrics if run else {}
        shown = [
            f"{label}: **{format_value(**metrics[name])}**" for label, name in claim.metrics.items() if name in metrics
        ]
        verdict = _verdict(claim, metrics)
        if run:
            verdict = f"[{verdict}](../notebooks/{claim.notebook}.ipynb)"
        notes = [f"*{word}:* {text}" for name, word in NOTES.items() if (text := getattr(claim, name))]
        measured = "<br>".join(shown + notes)
        stated = f"{claim.claim} *({claim.where})*" + (f"<br>Paper: {claim.paper}" if claim.paper else "")
        cells = [stated, measured, verdict]
        lines.append("| " + " | ".join(table_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _verdict(claim: Claim, metrics: Mapping[str, Mapping[str, object]]) -> str:
    names = [*claim.metrics.values(), *([claim.verdict] if claim.verdict else [])]
    if not claim.verdict or any(name not in metrics for name in names):
        return UNCHECKED
    verdict = metrics[claim.verdict]["value"]
    if verdict not in VERDICTS:
        raise ValueError(
            f"claim {claim.id}: {claim.notebook} recorded {claim.verdict} = {verdict!r}; "
            f"a verdict is one of {', '.join(map(repr, VERDICTS))}"
        )
    return str(verdict)
