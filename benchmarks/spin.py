"""What benchmarks/sweep_overhead.py sweeps."""

import time


def spin(seconds: float = 0.0, *, seed: int) -> dict[str, float]:
    """Compute for so many seconds of processor time; the seed makes one point of many."""
    start, total = time.process_time(), 0.0
    while time.process_time() - start < seconds:
        total += seed
    return {"total": total}
