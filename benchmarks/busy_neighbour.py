"""Time the kernels on one thread, on two, and on two beside another program that computes on one core.

On two cores a fair share of the second core makes a task on two threads 1.33 times slower beside a busy neighbour. The
neighbour multiplies matrices on one thread, and is started and ended here. All tasks run in turn, all with the
neighbour and all without.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import timing
import torch

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource
from gsae_lib.coding import group_sparse_code
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.learning import k_subspaces
from gsae_lib.networks import shallow_gradient, tied_gradient

REPEATS = 9
NEIGHBOUR = "import torch; torch.set_num_threads(1); a = torch.randn(600, 600)\nwhile True: a @ a"


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """Another program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        time.sleep(3)
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure, print and write the table."""
    rng = torch.Generator().manual_seed(0)
    dictionary = gaussian_dictionary(950, 500, 2, generator=rng)
    source = GroupSparseSource(dictionary, 2, 3, snr_db=1.0)
    data = source.sample(10_000, generator=rng).data
    digits = torch.rand(4000, 784, generator=rng)
    digits /= digits.norm(dim=1, keepdim=True)
    model = GroupSparseAutoencoder(784, 10, 16, 0.1, n_iterations=15, generator=rng)
    start, steps = model.weight.detach(), model.unfolding()
    exact = (data[:1000].double(), dictionary.double())
    tasks = {
        "product Y W": lambda: data @ dictionary,
        "structured step": lambda: shallow_gradient(data, dictionary, 2.0, 2),
        "screened step": lambda: shallow_gradient(data, dictionary, 2.0, 2, screen=True),
        "unfolded network": lambda: tied_gradient(digits, start, steps),
        "solver": lambda: group_sparse_code(*exact, 2.0, 2),
        "k-subspaces": lambda: k_subspaces(digits, 10, 16, max_iter=3, generator=torch.Generator().manual_seed(0)),
        "a sample of 10,000": lambda: source.sample(10_000, generator=rng),
    }
    found = {}
    for name, threads in (("one thread", 1), ("two threads", 2)):
        torch.set_num_threads(threads)
        found[name] = timing.interleave(tasks, REPEATS)
    with neighbour():
        found["two threads, busy"] = timing.interleave(tasks, REPEATS)
    rows = []
    for task in tasks:
        one, two, busy = (found[name][task]["median"] for name in found)
        rows.append({"task": task, "seconds": {name: times[task] for name, times in found.items()}})
        rows[-1] |= {"speedup": one / two, "slowdown": busy / two}
        product = found["one thread"]["product Y W"]["median"]
        print(
            f"{task}: {one:.3f} s ({one / product:.2f} products), two threads {one / two:.2f} x, busy {busy / two:.2f}"
        )
    timing.write("busy_neighbour", repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
