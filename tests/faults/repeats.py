"""The same seed in another process, with other threads, instructions and versions: which numbers are the same?"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from built_site import ROOT

NOTEBOOK = """
import sys
from pathlib import Path
from gsae_book.build.book import read_profiles
from gsae_book.runs.execution import run_notebook
root, name, out, threads = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
run_notebook(root / "notebooks" / f"{name}.ipynb", out, parameters=read_profiles(root)["smoke"][name], root=root,
             threads=threads)
"""
# Instructions of an old processor: what torch, MKL and OpenBLAS then add in another order.
OLD = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem"}
VARIANTS: dict[str, tuple[int, Mapping[str, str]]] = {
    "another process": (1, {}),
    "two threads": (2, {}),
    "other instructions": (1, OLD),
}
BOUNDS = {"within 1e-9": 1e-9, "within 1e-6": 1e-6, "within 1e-3": 1e-3}
TIMED = "13_measure_the_speed"  # its numbers are times


def run_repeats(say: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """Yield for each notebook but that of times, and each variant, how many of its numbers are how near to the first.

    Numbers are compared relative to the larger one. What is measured in seconds or memory does not count.
    """
    yield from _run({name: (*how, sys.executable) for name, how in VARIANTS.items()}, say)


def run_versions(say: Callable[[str], object], other: str) -> Iterator[dict[str, Any]]:
    """The same for ``other``, the Python of another environment, with another torch."""
    code = "import torch; print(torch.__version__)"
    version = subprocess.run([other, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    yield from _run({f"torch {version}, not {torch.__version__}": (1, {}, other)}, say)


def _run(
    variants: Mapping[str, tuple[int, Mapping[str, str], str]], say: Callable[[str], object]
) -> Iterator[dict[str, Any]]:
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem != TIMED]

    def repeat(name: str) -> list[dict[str, Any]]:
        first, rows = run_once(name, 1, {}, sys.executable), []
        for variant, how in variants.items():
            rows.append({"notebook": name, "variant": variant} | compare(first, run_once(name, *how)))
            say(str(rows[-1]))
        return rows

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows in pool.map(repeat, names):
            yield from rows


def run_once(name: str, threads: int, variables: Mapping[str, str], python: str) -> dict[str, Any]:
    """Return the metrics of a notebook in its smoke profile, run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.ipynb"
        command = [python, "-c", NOTEBOOK, str(ROOT), name, str(out), str(threads)]
        subprocess.run(command, check=True, env={**os.environ, **variables, "TQDM_DISABLE": "1"}, cwd=ROOT)
        return json.loads(out.with_suffix(".json").read_text())["metrics"]


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many numbers there are, how many are equal or near, and those that are farthest apart."""
    counts, far = dict.fromkeys(("equal", *BOUNDS, "farther"), 0), []
    for name in sorted(one.keys() | other.keys()):
        if re.search(r"second|minute|_ms|mib|speed|faster|times", name):
            continue
        old, new = (metrics.get(name, {}).get("value") for metrics in (one, other))
        gap = distance(old, new)
        near = "equal" if gap == 0 else next((label for label, bound in BOUNDS.items() if gap <= bound), "farther")
        counts[near] += 1
        if near == "farther":
            far.append(f"{name}: {_shown(old)} and {_shown(new)}")
    return {"numbers": sum(counts.values()), **counts, "far": far}


def distance(old: Any, new: Any) -> float:
    """Return the difference of two values relative to the larger; infinite for texts that differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return max(map(distance, old, new), default=0.0)
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (old, new))
    if old == new or not numbers:
        return 0.0 if old == new else math.inf
    return abs(old - new) / max(abs(old), abs(new))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:60]
