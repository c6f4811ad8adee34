"""What the paper and we measured: one module an experiment.

`gsae record NAME` records what results/ lacks by experiments/specs/NAME.yaml. `python -m experiments.NAME` does it for
convergence, digits, table_1, group_norms, signals, rivals, real_sums; simulate_* need an environment of their own.
The others hold what chapters measure live.
"""

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "paper"
