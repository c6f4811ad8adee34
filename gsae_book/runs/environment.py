"""What a run depends on besides its notebook: versions, device, commit, and where the project is."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "numba",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "seaborn",
    "pandas",
    "jaxtyping",
    "kymatio",
    "mlxtend",
    "papermill",
    "ipykernel",
    "gsae_lib",
)

RESULTS = (f":(exclude,glob)results/**/*.{suffix}" for suffix in ("json", "npz", "safetensors"))
SOURCES = (".", *RESULTS)


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above ``start`` (the working folder) with a ``_config.yml``, else ``start``."""
    start = (start or Path.cwd()).resolve()
    return next((folder for folder in (start, *start.parents) if (folder / "_config.yml").is_file()), start)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of ``packages`` (by default those that can change a number), where present."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = own_version() if package == "gsae_lib" else metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def own_version() -> str:
    """Return the version of gsae_lib as its code says: in a checkout, what was once installed may be older."""
    spec = importlib.util.find_spec("gsae_lib")
    if spec is None or spec.origin is None:
        raise metadata.PackageNotFoundError("gsae_lib")
    text = Path(spec.origin).with_name("_version.py").read_text(encoding="utf8")
    return str(ast.literal_eval(text.split("__version__ =")[1].strip()))


def commit(root: Path) -> str | None:
    """Return the commit of the checkout at ``root``, or None without one.

    ``-dirty`` says that a tracked file differs from it, other than a recorded result: those change while recording.
    """
    git = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=20, cwd=root)
    try:
        name = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no", "--", *SOURCES]).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{name}-dirty" if changed else name


def about() -> dict[str, str | dict[str, str] | None]:
    """Return when, where and with what a recorded result was made: date, commit, processor, versions, LD_PRELOAD."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(find_root()),
        "processor": processor(),
        "versions": versions(),
    }
    preloaded = os.environ.get("LD_PRELOAD")  # such as what lifts MKL to AVX-512 on AMD: see CONTRIBUTING
    return found | {"preloaded": Path(preloaded).name} if preloaded else found


def processor() -> str:
    """Return the name of this machine's processor, as its system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hash_files(files: Iterable[Path], base: Path) -> str:
    """Return the sha256 over the names (relative to ``base``) and the contents of ``files``."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(base).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def describe_process() -> dict[str, str | float | None]:
    """Return the device that this process computed on, and its peak memory in MiB (None where unknown)."""
    torch = sys.modules.get("torch")
    device = platform.machine() + " CPU"
    if torch is not None:
        threads = torch.get_num_threads()
        device += f", {threads} thread{'s' if threads > 1 else ''}"
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            device = torch.cuda.get_device_name()
    return {"device": device, "peak_memory_mib": _peak_memory()}


def _peak_memory() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 if sys.platform == "linux" else 1024) / 1024, 1)
