"""What the paper and we measured: one module an experiment; `python -m experiments.NAME` records what is missing."""

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "paper"
