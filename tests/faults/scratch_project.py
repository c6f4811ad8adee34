"""A small project for bad inputs to be given to: notebooks, functions, a specification, recorded results, a sweep."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARAMETERS = """\
n_groups: Annotated[int, Ge(1)] = 10
rate: Annotated[float, Gt(0)] = 0.5
kind: Literal["a", "b"] = "a"
clusters: Literal["auto"] | Annotated[int, Ge(2)] = "auto"
flag: bool = False
seeds: Annotated[list[int], MinLen(1)] = [0]
sizes: tuple[float, ...] = (1.0,)
name: str = ""
save_to: str = ""
checkpoint: str = ""
seed: int = 0"""
TASKS = '''
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt


@dataclass(frozen=True)
class Settings:
    """What is set."""

    size: Annotated[int, Ge(1)] = 1
    rate: Annotated[float, Gt(0)] = 1.0
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ("x",)
    data: str = ""


def measure(settings: Settings, *, seed: int) -> dict[str, float]:
    return {"area": settings.size * settings.rate + seed}


def count(*, seed: int, rate: float = 1.0) -> dict[str, float]:
    return {"value": seed * rate}


def planned() -> list[dict[str, int]]:
    return [{"size": 1}, {"size": 2}]


def endless(*, seed: int):
    yield seed
'''
SPEC = "function: experiments.tasks.count\ngrid: {seed: [0, 1]}\nrecord: {canaries: [{seed: 0}]}\n"
ABOUT = {"date": "2026-01-01", "commit": "0123456789ab", "processor": "a processor", "versions": {}}
POINTS = [
    {"values": {"seed": seed, "rate": 1.0}, "about": 0, "seconds": 0.1, "rows": [{"value": 1.0 * seed}]}
    for seed in (0, 1)
]


def cell(source: str, kind: str = "code", **metadata: Any) -> dict[str, Any]:
    """A cell of a notebook."""
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "id": f"c{abs(hash(source)) % 10**8}", "metadata": metadata, "source": source, **code}


def notebook(
    parameters: str = PARAMETERS, code: str = "record('size', n_groups)\nrecord('text', name)"
) -> dict[str, Any]:
    """A notebook as JSON has it."""
    imports = ("typing import Annotated, Literal", "annotated_types import Ge, Gt, MinLen", "gsae_book import record")
    first = cell("\n".join(f"from {line}" for line in imports))
    cells = [cell("# A title", "markdown"), first, cell(parameters, tags=["parameters"]), cell(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def sweep_point(seed: int) -> dict[str, Any]:
    """A finished point of a sweep."""
    key = f"{seed:064d}"
    about = {name: ABOUT[name] for name in ("commit", "processor")}
    return {
        "key": key,
        "target": "experiments.tasks.count",
        "values": {"seed": seed, "rate": 1.0},
        "given": ["seed"],
        "status": "done",
        "rows": [{"value": 0.5 * seed}],
        "seconds": 0.1,
        "peak_mib": 100.0,
        "about": about,
    }


def write_sweep(folder: Path, points: Mapping[str, Any] | None = None) -> None:
    """Write the folder of a sweep of two points, or of other texts under the keys."""
    (folder / "points").mkdir(parents=True, exist_ok=True)
    found = {point["key"]: json.dumps(point) for point in map(sweep_point, (0, 1))} if points is None else points
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "keys.txt").write_text("".join(f"{key}\n" for key in found))
    (folder / "sweep.lock").touch()
    for key, text in found.items():
        (folder / "points" / f"{key}.json").write_text(text)


def write_project(root: Path) -> Path:
    """Write the project into the new folder ``root``, with the settings of the real one, and return it."""
    for folder in ("notebooks", "experiments/counting", "results/paper", "book", "gsae_lib_notes", ".hidden"):
        (root / folder).mkdir(parents=True)
    shutil.copy(Path(__file__).resolve().parents[2] / "_config.yml", root)
    for name in ("01_first", "02_second"):
        (root / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook()))
    (root / "experiments" / "__init__.py").touch()
    (root / "experiments" / "tasks.py").write_text(TASKS)
    (root / "experiments" / "counting" / "first.yaml").write_text(SPEC)
    record = {"spec": "experiments/counting/first.yaml", "about": [ABOUT], "points": POINTS}
    (root / "results" / "paper" / "first.json").write_text(json.dumps(record))
    (root / "results" / "verified.json").write_text("{}")
    (root / "mine.txt").write_text("mine")
    (root / "mine.ipynb").write_text("mine")
    (root / "folder.ipynb").mkdir()
    (root / "link").symlink_to("notebooks")
    (root / "link.ipynb").symlink_to("notebooks/02_second.ipynb")
    (root / "loop.ipynb").symlink_to("loop.ipynb")
    (root / "nowhere").symlink_to("no/folder")
    (root / "book" / "intro.md").write_text("# Tiny\n")
    (root / "p.yaml").write_text("n_groups: 3\n")
    (root / "spec.yaml").write_text(SPEC.rpartition("record")[0])
    write_sweep(root / "sweep")
    write_sweep(root / "other")
    header = "seed,rate,point.key,point.seconds,point.commit,point.processor,value\n"
    (root / "table.csv").write_text(header + "0,1.0,a,0.1,0123,p,0.0\n1,1.0,b,0.1,0123,p,1.0\n")
    return root
