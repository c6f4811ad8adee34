"""The ledger of the paper's claims: ``book/claims.yaml`` and what the notebooks recorded make one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gsae_lib.runs.execution import RunRecord
from gsae_lib.runs.recording import format_value

VERDICTS = ("reproduced", "reproduced under named conditions", "not reproduced")
UNCHECKED = "not yet checked"


class Claim(BaseModel):
    """One claim of the paper, the notebook that checks it, and the names under which that records the answer.

    `metrics` maps a label, shown in the ledger, to the name of a recorded number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    claim: str = Field(min_length=1)
    where: str = Field(min_length=1)
    paper: str = Field(min_length=1)
    notebook: str | None = None
    metrics: dict[str, str] = {}
    regime: str = ""
    verdict: str | None = None


def read_claims(path: Path) -> list[Claim]:
    """Return the claims listed in the YAML file at ``path``; none if there is no such file.

    Raises: ValueError naming the file and each entry that is malformed or whose id is used twice.
    """
    if not path.is_file():
        return []
    try:
        claims = TypeAdapter(list[Claim]).validate_python(yaml.safe_load(path.read_text(encoding="utf8")) or [])
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from None
    ids = [claim.id for claim in claims]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise ValueError(f"{path}: these ids are used twice: {', '.join(twice)}")
    return claims


def verdict_table(claims: list[Claim], runs: Mapping[str, RunRecord]) -> str:
    """Return the ledger as a Markdown table, beside ``book/verdict.md``; ``runs`` are the records by notebook stem.

    A claim without a notebook, or whose notebook recorded none of its names yet, is 'not yet checked'.

    Raises: ValueError if a notebook recorded a verdict that is not one of VERDICTS.
    """
    lines = ["| Claim | Paper | This book | Verdict |", "| --- | --- | --- | --- |"]
    for claim in claims:
        run = runs.get(claim.notebook or "")
        metrics = run.metrics if run else {}
        shown = [
            f"{label}: **{format_value(**metrics[name])}**" for label, name in claim.metrics.items() if name in metrics
        ]
        verdict = _verdict(claim, metrics)
        if run:
            verdict = f"[{verdict}](../notebooks/{claim.notebook}.ipynb)"
        measured = "<br>".join([*shown, *([f"({claim.regime})"] if claim.regime else [])])
        cells = [f"{claim.claim} *({claim.where})*", claim.paper, measured, verdict]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
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


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
