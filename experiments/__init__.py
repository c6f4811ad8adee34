"""What the paper and we measured: one module an experiment.

What takes hours is recorded: `gsae record NAME` runs what results/paper/NAME.json lacks of specs/NAME.yaml. The modules
simulate_* made data, and need an environment of their own.
"""

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "paper"
