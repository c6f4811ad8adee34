"""A small project for bad inputs to be given to: that of sweeps, with notebooks, recorded results, links."""

import json
import shutil
from pathlib import Path
from typing import Any

import sweep_project
from built_site import ROOT
from tiny_book import write_notebook

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
RECORDS = "record('size', n_groups)\nrecord('text', name)"
SPEC = "function: sweep_tasks.count\ngrid: {seed: [0, 1]}\nrecord: {canaries: [{seed: 0}]}\n"
ABOUT = {"date": "2026-01-01", "commit": "0123456789ab", "processor": "a processor", "versions": {}}
POINTS = [
    {"values": {"seed": seed, "seconds": 0.0}, "about": 0, "seconds": 0.1, "rows": [{"value": 1.0 * seed}]}
    for seed in (0, 1)
]
RECORD = {"spec": "experiments/counting/first.yaml", "about": [ABOUT], "points": POINTS}
TABLE = """\
seed,seconds,point.key,point.seconds,point.commit,point.processor,value
0,0.0,a,0.1,0123,p,0.0
1,0.0,b,0.1,0123,p,1.0
"""


def sweep_point(seed: int, **other: Any) -> dict[str, Any]:
    """A finished point of a sweep, with other fields."""
    values = {"seed": seed, "seconds": 0.0}
    point = {"key": f"{seed:064d}", "target": "sweep_tasks.count", "values": values, "given": ["seed"]}
    point |= {"status": "done", "rows": [{"value": 0.5 * seed}], "seconds": 0.1, "peak_mib": 100.0}
    return point | {"about": {name: ABOUT[name] for name in ("commit", "processor")}} | other


def write_sweep(folder: Path, *points: dict[str, Any], spec: str = SPEC) -> None:
    """Write the folder of a sweep of these points."""
    (folder / "points").mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec)
    (folder / "keys.txt").write_text("".join(f"{point['key']}\n" for point in points))
    for point in points:
        (folder / "points" / f"{point['key']}.json").write_text(json.dumps(point))


def write_project(root: Path) -> Path:
    """Write the project into the new folder ``root``, with the settings of the real one, and return it."""
    sweep_project.write_project(root)
    shutil.copy(ROOT / "_config.yml", root)
    for folder in ("notebooks", "experiments/counting", "results/paper", "book", "folder.ipynb"):
        (root / folder).mkdir(parents=True)
    for name in ("01_first", "02_second"):
        write_notebook(root / "notebooks" / f"{name}.ipynb", RECORDS, PARAMETERS)
    for name, text in {
        "experiments/counting/first.yaml": SPEC,
        "results/paper/first.json": json.dumps(RECORD),
        "results/verified.json": "{}",
        "mine.txt": "mine",
        "mine.ipynb": "mine",
        "book/intro.md": "# Tiny\n",
        "p.yaml": "n_groups: 3\n",
        "spec.yaml": SPEC.rpartition("record")[0],
        "table.csv": TABLE,
    }.items():
        (root / name).write_text(text)
    for name, place in {
        "link": "notebooks",
        "link.ipynb": "notebooks/02_second.ipynb",
        "loop.ipynb": "loop.ipynb",
        "nowhere": "no/folder",
    }.items():
        (root / name).symlink_to(place)
    for name in ("sweep", "other"):
        write_sweep(root / name, sweep_point(0), sweep_point(1))
        (root / name / "sweep.lock").touch()
    return root
