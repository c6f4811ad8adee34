"""Time the group-lasso solver against SPAMS, adelie, skglm and celer, all held to one gap by one judge, on one core.

Rivals run in `_build/rivals` (`make bench` installs it), ours in this process, in turn. Each rival gets the loosest of
its own tolerances at which no sample's relative duality gap, computed by `gsae_lib.duality_gap` in float64, exceeds
1e-6. Two dictionaries: "easy", Gaussian columns; "coherent", columns of mean cosine 0.6 under a small penalty.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing
import torch
from torch import Tensor

from gsae_lib.coding import duality_gap, group_lasso_objective, group_sparse_code, largest_penalty
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary

SAMPLES, FEATURES, GROUPS, SIZE, TARGET = 500, 784, 10, 16, 1e-6
TOLERANCES = [10.0**-k for k in range(5, 15)]
REPEATS = 3
RIVALS = Path(__file__).parents[1] / "_build" / "rivals" / "bin" / "python"

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def problems() -> dict[str, tuple[Tensor, Tensor, float]]:
    """(data, dictionary, penalty) of both dictionaries, float64; the penalty is a share of the mean lambda_max."""
    found = {}
    for name, cosine, share in (("easy", 0.0, 0.3), ("coherent", 0.6, 0.02)):
        rng = torch.Generator().manual_seed(0)
        dictionary = gaussian_dictionary(FEATURES, GROUPS, SIZE, generator=rng, dtype=torch.float64)
        common = torch.randn(FEATURES, 1, generator=rng, dtype=torch.float64)
        dictionary = (1 - cosine) ** 0.5 * dictionary + cosine**0.5 * common / common.norm()
        data = GroupSparseSource(dictionary, SIZE, 3, snr_db=20.0).sample(SAMPLES, generator=rng).data
        found[name] = (data, dictionary, share * largest_penalty(data, dictionary, SIZE).mean().item())
    return found


def worst_gap(codes: Tensor, data: Tensor, dictionary: Tensor, penalty: float) -> float:
    """The largest relative gap of a sample."""
    args = (data, dictionary, codes, penalty, SIZE)
    return (duality_gap(*args) / group_lasso_objective(*args)).max().item()


def run_rival(name: str, problem: Path, tol: float) -> tuple[Tensor, float]:
    """(codes, seconds) of one process."""
    out = problem.with_suffix(".out.npz")
    command = [str(RIVALS), str(Path(__file__).with_name("rivals.py")), name, str(problem), repr(tol), str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | ONE_THREAD)
    found = np.load(out)
    return torch.from_numpy(found["codes"].copy()), float(found["seconds"])


def main() -> None:
    """Measure, print and write the table."""
    if not RIVALS.is_file():
        sys.exit(f"{RIVALS} is missing; `make bench` installs the rivals there")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (data, dictionary, penalty) in problems().items():
            problem = Path(folder) / f"{kind}.npz"
            arrays = {"data": data.numpy(), "dictionary": dictionary.numpy()}
            np.savez(problem, penalty=penalty, group_size=SIZE, **arrays)
            gaps, tolerances = {}, {}
            for name in ("SPAMS", "adelie", "skglm", "celer"):
                for tol in TOLERANCES:
                    codes, _ = run_rival(name, problem, tol)
                    gaps[name], tolerances[name] = worst_gap(codes, data, dictionary, penalty), tol
                    if gaps[name] <= TARGET:
                        break
                print(kind, name, f"tol={tol:.0e}: gap {gaps[name]:.1e}", flush=True)
            times: dict[str, list[float]] = {name: [] for name in ("gsae_lib", *gaps)}

            def ours(data: Tensor = data, dictionary: Tensor = dictionary, penalty: float = penalty) -> Tensor:
                return group_sparse_code(data, dictionary, penalty, SIZE, tol=TARGET).codes

            gaps["gsae_lib"] = worst_gap(ours(), data, dictionary, penalty)
            for _ in range(REPEATS):
                times["gsae_lib"].append(timing.seconds(ours))
                for name, tol in tolerances.items():
                    times[name].append(run_rival(name, problem, tol)[1])
            for name, values in times.items():
                median = 1e3 * statistics.median(values) / SAMPLES
                row = {"dictionary": kind, "solver": name, "milliseconds_per_sample": median}
                row |= {"range": 1e3 * (max(values) - min(values)) / SAMPLES, "worst_gap": gaps[name]}
                row |= {"over_ours": median / (1e3 * statistics.median(times["gsae_lib"]) / SAMPLES)}
                rows.append(row | {"tolerance": tolerances.get(name, TARGET)})
                print(kind, name, f"{median:.4f} ms a sample, {row['over_ours']:.2f} x ours, gap {gaps[name]:.1e}")
    size = {"samples": SAMPLES, "features": FEATURES, "groups": GROUPS, "group_size": SIZE}
    versions = subprocess.run([str(RIVALS), "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    rivals = [
        line for line in versions.splitlines() if line.split("==")[0] in ("adelie", "spams-bin", "skglm", "celer")
    ]
    timing.write("coding_solvers", size=size, target=TARGET, repeats=REPEATS, rivals=rivals, rows=rows)


if __name__ == "__main__":
    main()
