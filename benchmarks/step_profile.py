"""Where the time of a step goes, beside what this machine can do: matrix products and memory.

Ceilings are measured here, on the same thread: float32 products of large square matrices, and a copy of 256 MB.
"""

import time

import timing
import torch
from torch.profiler import ProfilerActivity, profile

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.networks import shallow_gradient

REPEATS = 10
PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::matmul", "aten::linear"}


def ceilings() -> dict[str, float]:
    """Multiply-adds a second of a product, and bytes a second moved by a copy."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    source, target = torch.randn(2**26), torch.empty(2**26)
    times = timing.interleave({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, REPEATS)
    return {
        "multiply_adds_per_second": 2048**3 / times["product"]["median"],
        "bytes_per_second": 2 * 4 * 2**26 / times["copy"]["median"],
    }


def shares(step: object) -> dict[str, float]:
    """Share of a step's time by kind of operation; what torch does not see are compiled loops, and Python."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        start = time.perf_counter()
        for _ in range(REPEATS):
            step()
        total = 1e6 * (time.perf_counter() - start)
    times = {row.key: row.self_cpu_time_total for row in recorded.key_averages()}
    times["compiled loops, Python"] = total - sum(times.values())
    products = sum(value for key, value in times.items() if key in PRODUCTS)
    largest = sorted((item for item in times.items() if item[0] not in PRODUCTS), key=lambda item: -item[1])[:6]
    return {"matrix products": products / total} | {key.split("::")[-1]: value / total for key, value in largest}


def main() -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(1)
    limits = ceilings()
    rows = []
    rng = torch.Generator().manual_seed(0)
    N, n, groups, size = 10_000, 950, 500, 2
    dictionary = gaussian_dictionary(n, groups, size, generator=rng)
    data = GroupSparseSource(dictionary, size, 3, snr_db=1.0).sample(N, generator=rng).data
    pairs = N * shallow_gradient(data, dictionary, 2.0, size).active_groups
    needed = N * n * groups * size + 4 * pairs * size * n
    shallow = ("shallow, structured", lambda: shallow_gradient(data, dictionary, 2.0, size), needed)
    batch, depth = 500, 15
    digits = torch.rand(batch, 784, generator=rng)
    digits /= digits.norm(dim=1, keepdim=True)
    model = GroupSparseAutoencoder(784, 10, 16, 0.1, n_iterations=depth, generator=rng)

    def unfolded() -> None:
        model.weight.grad = None
        (0.5 * (digits - model(digits)[0]).square().sum(dim=1).mean()).backward()

    work = 4 * batch * 784 * 160 + 3 * 784 * 160**2 + 3 * (depth - 1) * batch * 160**2
    for name, step, multiply_adds in (shallow, ("unfolded, batch of 500", unfolded, work)):
        time = timing.interleave({"step": step}, REPEATS)["step"]
        ideal = multiply_adds / limits["multiply_adds_per_second"]
        row = {"step": name, "seconds": time, "products_alone_at_the_limit": ideal, "shares": shares(step)}
        rows.append(row | {"of_the_limit": ideal / time["median"]})
        print(name, f"{time['median']:.4f} s, {rows[-1]['of_the_limit']:.0%} of the product limit", row["shares"])
    timing.write("step_profile", ceilings=limits, repeats=REPEATS, rows=rows)


if __name__ == "__main__":
    main()
