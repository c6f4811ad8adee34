"""What the paper and we measured: a room for each subject, one module an experiment, its recorded sweeps beside it.

What takes hours is recorded: `gsae record NAME` runs what results/paper/NAME.json lacks of ROOM/NAME.yaml. The modules
simulate* made data, and need an environment of their own.
"""

from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "paper"
