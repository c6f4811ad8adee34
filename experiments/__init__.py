"""What the paper and we measured: one module an experiment.

`python -m experiments.NAME` records what results/ lacks: recovery, convergence, digits, table_1, group_norms, signals,
rivals, start, start_rivals, start_predictions, superpositions, real_sums; simulate_* need an environment of their own.
The others hold what chapters measure live.
"""

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "paper"
