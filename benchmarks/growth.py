"""How time and memory grow with each size: one training step of the shallow and of the unfolded network.

One variable at a time is doubled from a base case. Each case runs in a fresh process on one thread, which reports the
median seconds of a step and the peak memory above what the process held before; `fit` gives a power law's exponent.
"""

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import timing
import torch

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, group_norms
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.networks import shallow_gradient

BASES = {
    "shallow": {"N": 4000, "n": 400, "Gamma": 200, "d": 2, "gamma": 3, "T": 1},
    "unfolded": {"N": 8000, "n": 400, "Gamma": 50, "d": 4, "gamma": 3, "T": 4},
}
BASES["checkpoint"] = BASES["unfolded"]
VARIABLES = {
    "shallow": ("N", "n", "Gamma", "d", "gamma"),
    "unfolded": ("N", "n", "Gamma", "d", "T"),
    "checkpoint": ("T",),
}
FACTORS = (1, 2, 4, 8)
REPEATS = 3


def predicted(network: str, N: int, n: int, Gamma: int, d: int, gamma: int, T: int) -> float:
    """Multiplications of one step, leading terms."""
    m = Gamma * d
    if network == "shallow":  # Y W, and the active pairs
        return N * n * m + 4 * N * gamma * d * n
    passes = 4 if network == "checkpoint" else 3  # forward, twice backward, and forward again
    # Y W, X W^T and their derivatives; the Gram matrix and its derivative; the iterations
    return 5 * N * n * m + 3 * n * m**2 + passes * (T - 1) * N * m**2


def measure(network: str, N: int, n: int, Gamma: int, d: int, gamma: int, T: int) -> dict[str, float]:
    """Seconds and peak bytes of one step in this process."""
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(n, Gamma, d, generator=rng)
    data = GroupSparseSource(dictionary, d, gamma, snr_db=5.0).sample(N, generator=rng).data
    norms = group_norms(data[:1000] @ dictionary, d).flatten()
    penalty = norms.topk(gamma * min(N, 1000)).values[-1].item()  # as many pairs are active as in the model

    def shallow() -> None:
        shallow_gradient(data, dictionary, penalty, d)

    settings = {"n_iterations": T, "checkpoint": network == "checkpoint", "dictionary": dictionary}
    model = GroupSparseAutoencoder(n, Gamma, d, 0.2, **settings)

    def unfolded() -> None:
        model.weight.grad = None
        (0.5 * (data - model(data)[0]).square().sum(dim=1).mean()).backward()

    step = shallow if network == "shallow" else unfolded
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    times = [timing.seconds(step) for _ in range(REPEATS + 1)][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": statistics.median(times), "range": max(times) - min(times), "peak_bytes": peak}


def fit(sizes: list[float], values: list[float]) -> float:
    """The exponent b of values = a sizes^b, by least squares in the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    """Measure every case in a process of its own, print the exponents and write the table."""
    rows, exponents = [], []
    for network, base in BASES.items():
        for variable in VARIABLES[network]:
            cases = [base | {variable: base[variable] * factor} for factor in FACTORS]
            found = []
            for case in cases:
                command = [sys.executable, __file__, network, json.dumps(case)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                operations = predicted(network, **case)
                found.append(json.loads(output) | {"operations": operations})
                rows.append({"network": network, "variable": variable, "value": case[variable]} | found[-1])
            sizes = [case[variable] for case in cases]
            row = {key: fit(sizes, [row[key] for row in found]) for key in ("seconds", "peak_bytes", "operations")}
            exponents.append({"network": network, "variable": variable} | row)
            print(network, variable, {key: f"{value:.2f}" for key, value in row.items()}, flush=True)
    timing.write("growth", bases=BASES, repeats=REPEATS, exponents=exponents, rows=rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], **json.loads(sys.argv[2]))))
    else:
        main()
