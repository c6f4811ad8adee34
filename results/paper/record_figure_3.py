"""Record the runs behind Figure 3 in chapter 07: what is already in the JSON file beside this one is not repeated."""

from pathlib import Path

from gsae_lib.recovery import RecoverySettings, run_recoveries

PLAN = [RecoverySettings(network=n, snr_db=s) for s in (1.0, 5.0, 10.0) for n in ("group-sparse", "biased ReLU")]
PLAN.append(RecoverySettings(network="soft threshold", snr_db=1.0))
PLAN += [RecoverySettings(network="soft threshold", snr_db=s) for s in (5.0, 10.0)]
PLAN += [RecoverySettings(snr_db=s, fresh=False) for s in (1.0, 5.0, 10.0)]
PLAN.append(RecoverySettings(snr_db=1.0, start_correlation=0.15))  # the start that the paper prints
# Two networks on orthonormal true groups, to see what the climb of the biased ReLU is made of.
PLAN += [RecoverySettings(network=n, snr_db=1.0, orthonormal=True) for n in ("group-sparse", "biased ReLU")]
PATH = Path(__file__).with_name("07_recover_dictionaries.json")

if __name__ == "__main__":
    runs = run_recoveries(PLAN, range(5), jobs=2, path=PATH)
    print(f"{len(runs)} runs in {PATH}")
