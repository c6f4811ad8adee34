"""Record the runs behind chapter 11: what is already in the JSON file beside this one is not repeated.

Dictionary recovery at a small size: n = 150, 50 groups of two, 1,500 fresh samples an epoch, five seeds for each point.
"""

import dataclasses
import itertools
from pathlib import Path

from gsae_lib.recovery import NETWORKS, SELECTING, STARTS, RecoverySettings, run_recoveries

SMALL = RecoverySettings(
    n_features=150, num_groups=50, num_active=1, num_samples=1500, epochs=200, learning_rate=0.003, measure_every=50
)
CLEAN = dataclasses.replace(SMALL, snr_db=20.0, epochs=400)
PATH = Path(__file__).with_name("11_explore_recovery.json")


def plan() -> list[RecoverySettings]:
    """Every point of every figure; points that figures share appear once."""
    many = [
        # A random start answers with less than 2 to everything, and nothing would fire.
        dataclasses.replace(CLEAN, start=start, num_active=k, penalty=1.0 if start == "random" else 2.0)
        for start, k in itertools.product(STARTS, (1, 2, 3))
    ]
    many += [
        dataclasses.replace(SMALL, num_active=k, snr_db=snr)
        for k, snr in itertools.product((1, 2, 4, 6, 8), (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0))
    ]
    many += [
        dataclasses.replace(SMALL, group_size=d, num_groups=100 // d, snr_db=snr)
        for d, snr in itertools.product((1, 2, 4, 5, 10, 20), (-10.0, -5.0, 0.0, 5.0, 10.0))
    ]
    many += [
        dataclasses.replace(SMALL, network=network, penalty=penalty)
        for network, penalty in itertools.product((*NETWORKS, SELECTING[0]), (1.0, 1.5, 2.0, 2.5, 3.0, 3.5))
    ]
    many += [dataclasses.replace(SMALL, network=SELECTING[1])]
    many += [dataclasses.replace(SMALL, learning_rate=rate) for rate in (0.0003, 0.001, 0.003, 0.01, 0.03)]
    many += [dataclasses.replace(SMALL, start_correlation=c) for c in (0.15, 0.25, 0.35, 0.45, 0.555, 0.7)]
    return list(dict.fromkeys(many))


if __name__ == "__main__":
    runs = run_recoveries(plan(), range(5), jobs=1, path=PATH)
    print(f"{len(runs)} runs in {PATH}")
