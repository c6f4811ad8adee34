"""Commands with what they leave: each in a fresh folder, to be killed, given twice at once, and given again."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from built_site import ROOT
from sweep_project import write_project
from tiny_book import write_book

from faults.tasks import FILES
from gsae_book.app.own_data import MODEL, WHOLE
from gsae_book.runs.sweep import read_point
from gsae_book.runs.targets import CLUSTERING
from gsae_lib.training.checkpoints import read_checkpoint

VOLATILE = {"date", "seconds", "peak_memory_mib", "about", "commit", "mib", "output"}  # differ from run to run
SWEEP = "function: sweep_tasks.count\ngrid: {{seed: [{seeds}]}}\nlist: [{{seconds: 0.02}}]\n"
SWEEP_OF_NOTEBOOKS = "notebook: book/notebooks/02_second.ipynb\ngrid: {seed: [0, 1, 2, 3]}\n"
PORT = "PORT"  # in a command: that of the server of data


@dataclass(frozen=True)
class Command:
    """A command, run in a folder that ``prepare`` fills.

    arguments: of Python. left: what it leaves, and what has to be the same however often it was killed; raises for a
    file that is there and not whole. kept: the files that a resume must not write again, with their bytes.
    """

    prepare: Callable[[Path], object]
    arguments: tuple[str, ...]
    left: Callable[[Path], Any]
    kept: Callable[[Path], Mapping[str, bytes]] = lambda _: {}

    def line(self, port: int) -> list[str]:
        """Return the command line, with the ``port`` of the server of data."""
        return [sys.executable, *(argument.replace(PORT, str(port)) for argument in self.arguments)]


def environment(folder: Path, mark: str) -> dict[str, str]:
    """Return the environment of a command in ``folder``: one thread, its own temporary files and cache, and a mark."""
    temporary = folder.parent / f"{folder.name}.tmp"
    temporary.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GSAE", "PYTEST"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    own = {"GSAE_CACHE": str(folder / "cache"), "TMPDIR": str(temporary), "GSAE_FAULTS": mark, "TQDM_DISABLE": "1"}
    return kept | threads | own | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def slow_server() -> Iterator[int]:
    """A server of the files of `tasks.FILES` on a free loopback port, at about a megabyte a second."""

    packed = {f"{name}.gz": gzip.compress(content) for name, content in FILES.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = packed.get(self.path.strip("/"))
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            with contextlib.suppress(OSError):
                for start in range(0, len(content or b""), 40_000):
                    self.wfile.write(content[start : start + 40_000])
                    time.sleep(0.04)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _sweep(text: str, *, with_book: bool = False) -> Callable[[Path], object]:
    def prepare(folder: Path) -> None:
        write_project(folder)
        if with_book:
            (folder / "book").mkdir()
            write_book(folder / "book")
        (folder / "spec.yaml").write_text(text)

    return prepare


def _points(folder: Path) -> dict[str, Any]:
    """What a sweep left, by key, without times."""
    found = {}
    for path in sorted((folder / "out" / "points").glob("?" * 64 + ".json")):
        point = read_point(path.parent, path.stem)
        if point is None:
            raise ValueError(f"{path} is damaged")
        found[path.stem] = _steady([point["status"], point["values"], point.get("rows", point.get("error"))])
    return found


def _done_points(folder: Path) -> dict[str, bytes]:
    files = (folder / "out" / "points").glob("?" * 64 + ".json")
    return {path.name: content for path in files if b'"done"' in (content := path.read_bytes())}


def _run(folder: Path) -> dict[str, Any]:
    """What the run of a notebook left: its record, the outputs of its cells, its page."""
    out = folder / "mine.ipynb"
    if not out.exists():
        return {}
    record = _steady(json.loads(out.with_suffix(".json").read_text()))
    page = folder / "_build" / "runs" / "html" / "runs" / "mine.html"
    return {"record": record, "outputs": _outputs(out), "page": page.is_file()}


def _outputs(notebook: Path) -> list[Any]:
    return [_steady(cell.get("outputs", [])) for cell in json.loads(notebook.read_text())["cells"]]


def _book(folder: Path) -> dict[str, Any]:
    """What a build left: metrics and outputs of the notebooks, texts of the pages without times and dates."""
    source, html = folder / "_build" / "default" / "source" / "notebooks", folder / "_build" / "html"
    found: dict[str, Any] = {path.stem: _outputs(path) for path in sorted(source.glob("0?_*.ipynb"))}
    found |= {path.name: _steady(json.loads(path.read_text())) for path in sorted(source.glob("0?_*.json"))}
    if (folder / "_build" / "default" / "built").is_file():
        for path in sorted(html.rglob("*.html")):
            text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|\b\d+\.\d\b|\b\d{2,4}\b|\?v=\w+", "", path.read_text())
            found[str(path.relative_to(html))] = sha256(text.encode()).hexdigest()
    return found


def _text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _trained(folder: Path) -> dict[str, Any]:
    if (folder / "run").exists():
        read_checkpoint(folder / "run")
    return json.loads(_text_of(folder / "out.json") or "{}")


def _fetched(folder: Path) -> dict[str, str]:
    files = [path for path in (folder / "cache" / "noise").glob("part-*") if path.name in FILES]
    for path in files:
        if path.read_bytes() != FILES[path.name]:
            raise ValueError(f"{path} is damaged")
    return {path.name: "whole" for path in files}


def _with_older(n_clusters: str, table: str, out: str) -> Callable[[Path], object]:
    """A folder with two tables, and in ``out`` the clustering of one of them, beside a file of the user."""

    def prepare(folder: Path) -> None:
        folder.mkdir()
        rng = np.random.default_rng(0)
        for size, one in ((3, "few"), (4, "many")):
            bases = np.linalg.qr(rng.standard_normal((size, 6, 2)))[0][np.arange(90) % size]
            flats = np.einsum("nij,nj->ni", bases, 3 * rng.standard_normal((90, 2)))
            np.savetxt(folder / f"{one}.csv", flats + 0.02 * rng.standard_normal(flats.shape), delimiter=",")
        (folder / out).mkdir()
        (folder / out / "notes.txt").write_text("mine")
        words = [sys.executable, *CLUSTERS, table, "-o", out, "--clusters", n_clusters]
        subprocess.run(words, cwd=folder, env=environment(folder, ""), check=True, capture_output=True)

    return prepare


def _clustering(folder: Path) -> dict[str, str]:
    """What a clustering left that is the same each time; ValueError for a mix of two, or for none."""
    out = folder / "out"
    if (out / "notes.txt").read_text() != "mine":
        raise ValueError("a file of the user is gone")
    model = next((path for path in (out / MODEL, out / WHOLE / MODEL) if path.is_file()), None)
    if model is None:
        raise ValueError("neither the older clustering is there nor the new one")
    kept = json.loads(model.read_text())["files"]
    there = {n: sha256((out / n).read_bytes()).hexdigest() for n in CLUSTERING if n != MODEL and (out / n).is_file()}
    right = {kept.get(name) == found for name, found in there.items()}
    if len(right) > 1 or (model.parent == out and there != kept):
        raise ValueError("files of two clusterings stand beside each other")
    return {name: there.get(name, "") for name in ("labels.csv", "arrays.npz", "model.safetensors")}


def _steady(content: Any) -> Any:
    """Return what is read from JSON, without what differs from run to run."""
    if isinstance(content, dict):
        return {name: _steady(value) for name, value in content.items() if name not in VOLATILE}
    return [_steady(item) for item in content] if isinstance(content, list) else content


SWEEPING = ("-m", "gsae_book", "sweep", "spec.yaml", "-o", "out", "--retry-failed")
RUNNING = ("-m", "gsae_book", "run", "02", "-o", "mine.ipynb", "--force", "-p", "seed", "1")
BUILDING = ("-m", "gsae_book.build.book")
TRAINING = ("-m", "faults.tasks", "train")
CLUSTERS = ("-m", "gsae_book", "cluster")
PREDICTING = ("-m", "gsae_book", "predict", "model", "many.csv", "-o", "mine.csv", "--force")
HUNDRED = SWEEP.format(seeds=", ".join(map(str, range(100))))
COMMANDS = {
    "sweep of a function, 100 points": Command(_sweep(HUNDRED), SWEEPING, _points, _done_points),
    "sweep of a notebook": Command(_sweep(SWEEP_OF_NOTEBOOKS, with_book=True), SWEEPING, _points, _done_points),
    "training, shallow": Command(Path.mkdir, (*TRAINING, "shallow", "run", "out.json"), _trained),
    "training, unfolded": Command(Path.mkdir, (*TRAINING, "unfolded", "run", "out.json"), _trained),
    "training, estimator": Command(Path.mkdir, ("-m", "faults.tasks", "cluster", "-", "run", "out.json"), _trained),
    "data": Command(Path.mkdir, ("-m", "faults.tasks", "fetch", PORT), _fetched),
    "run of a notebook": Command(write_book, RUNNING, _run),
    "build of a book": Command(write_book, BUILDING, _book),
    "clustering over an older one": Command(
        _with_older("3", "few.csv", "out"),
        (*CLUSTERS, "many.csv", "-o", "out", "--clusters", "4", "--force"),
        _clustering,
    ),
    "new rows of a clustering": Command(
        _with_older("4", "many.csv", "model"), PREDICTING, lambda folder: _text_of(folder / "mine.csv")
    ),
}
