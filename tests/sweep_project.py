"""A project whose functions are swept: a cheap one, and ones that fail in every way."""

from pathlib import Path

TASKS = '''
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Annotated, Any, Literal

from annotated_types import Ge

import helpers


@dataclass(frozen=True)
class Training:
    epochs: Annotated[int, Ge(1)] = 3


@dataclass(frozen=True)
class Settings:
    """What is set."""

    size: Annotated[int, Ge(1)] = 1
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ("x", "y")
    training: Training = Training()

    def __post_init__(self):
        if self.rate > 100:
            raise ValueError(f"rate = {self.rate} is not allowed: it must be at most 100")
        1 / self.rate


@dataclass(frozen=True)
class Run:
    settings: Settings
    seed: int
    area: float
    size: int
    nested: Any
    many: Any


def measure(settings: Settings, *, seed: int, device: Any = None) -> Run:
    # a comment
    return Run(settings, seed, helpers.area(settings.rate) + seed, settings.size + seed, {"half": 0.5}, [1, 2])


def count(*, seed: int, seconds: float = 0.0) -> dict[str, float]:
    time.sleep(seconds)
    with open("ran.txt", "a") as file:
        file.write(f"{seed}\\n")
    return {"value": seed / 7}


def go_wrong(*, how: str) -> Sequence[dict[str, float]]:
    if how == "raise" and not os.path.exists("mended"):
        raise RuntimeError("on purpose")
    elif how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "leave":
        print("last words", flush=True)
        os._exit(0)
    elif how == "sleep":
        time.sleep(60)
    elif how == "fill":
        filled = bytearray(400 * 2**20)
        time.sleep(60)
    return [{"number": 1.0}, {"number": 2.0}]


def kill_its_worker(*, seed: int) -> dict[str, float]:
    if seed == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return {"value": 1.0}


def read(*, data: str) -> dict[str, float]:
    return {"length": len(data)}


def not_for_files(*, how: str) -> dict[str, Any]:
    if how == "raise":
        raise ValueError("\\ud800")
    return {"value": {"number": 10**5000, "text": "\\ud800", "none": 1}[how]}


def named(*, seed: int) -> dict[str, float]:
    return {"bytes": len(open(f"results/{'first'}_data.npz", "rb").read()) + helpers.area(seed)}


def planned():
    return [Settings(size=2), {"settings": Settings(size=3, training=Training(7))}, {"size": 4}]


def planned_nothing():
    return []


def returns_memory(*, seed: int) -> dict[str, str]:
    return {"value": os.environ.get("MALLOC_TRIM_THRESHOLD_", "as the system does")}


def one_by_one(*, seed: int):
    yield {"value": seed}


def by_place(seed: int, /) -> dict[str, float]:
    return {"value": seed}


def no_type(x: "1 / 0" = 1) -> dict[str, float]:
    return {}


def needs_an_object(model: object) -> dict[str, float]:
    return {}
'''
HELPERS = "def area(side):\n    return side * side\n"


def write_project(root: Path) -> Path:
    """Write the project into the folder ``root``, and return it; one of its folders has the name of a library."""
    root.mkdir(exist_ok=True)
    (root / "_config.yml").touch()
    (root / "results").mkdir()
    (root / "html").mkdir()
    (root / "sweep_tasks.py").write_text(TASKS)
    (root / "helpers.py").write_text(HELPERS)
    (root / "leaves.py").write_text("raise SystemExit(0)")
    return root
