"""Where the points of a sweep run: a dask cluster, and on each worker one child process that a point may take with it.

A point that crashes, or goes over a limit, costs its child alone; the next one gets a fresh child. A child ends with
its worker, an embedded worker with the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsae_book.runs.kernel import THREAD_VARIABLES
from gsae_book.runs.parameters import ParameterError, shown

if TYPE_CHECKING:
    from distributed import Client

    from gsae_book.runs.specification import Point, Sweep, Target

WAIT = 10  # seconds for a scheduler to answer
POLL = 0.1  # seconds between two looks at a child's time and memory
SERVE = "import sys; from gsae_book.runs.workers import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
CHANGED = {"status": "refused", "error": "code, data or versions have changed since the sweep began, or differ there"}
_here = threading.local()  # the child of this thread of a worker


@contextlib.contextmanager
def open_client(jobs: int | None, n_points: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the ``scheduler`` at an address, or of a cluster in processes of this machine that end with it.

    Raises: ParameterError if no scheduler answers; SweepError if the workers of this machine cannot be started.
    """
    import dask

    from gsae_book.runs.specification import SweepError

    dask.config.set({"logging.distributed": "critical", "distributed.worker.daemon": True})
    from distributed import Client, LocalCluster

    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is told in one line
    if scheduler is not None:
        try:
            with ThreadPoolExecutor(1) as pool:  # this thread may have a loop of its own, as one with a browser has
                pool.submit(lambda: asyncio.run(_greet(scheduler))).result()
            client = Client(scheduler, timeout=WAIT)
        except Exception as error:  # whatever an address leads to
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ParameterError(f"--scheduler = {shown(scheduler)}: no scheduler answers ({reason})") from None
        with client:
            yield client
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(jobs or cores, n_points)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = max(cores // jobs, 1)
    threads = str(min(most, max(int(asked), 1)) if asked.isdecimal() else most)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Ctrl-C is for this process: the threads and processes that start here have it blocked. The first process to
        # start another would unblock it.
        resource_tracker.ensure_running()
        # A worker has no point but the one that it runs: if that kills it, no other is blamed.
        dask.config.set({"temporary_directory": folder, "distributed.scheduler.worker-saturation": 1.0})
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # of its web server, without a dashboard
                local_directory=folder,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
                env=dict.fromkeys(THREAD_VARIABLES, threads) | {"TMPDIR": folder},
            )
            client = Client(cluster)
        except Exception as error:  # one was killed as it began, or there are too many
            raise SweepError(f"the workers cannot be started: {shown(str(error))}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with cluster, client:
            yield client


async def _greet(scheduler: str) -> None:
    """Exchange the greetings of a connection; the client alone would wait for ever for what is no scheduler."""
    from distributed.comm import connect

    comm = await asyncio.wait_for(connect(scheduler, timeout=WAIT), WAIT)
    await comm.close()


def run_points(client: Client, sweep: Sweep, points: Sequence[Point]) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Yield each of the ``points`` with what it gave, as they end, and show how far that is.

    Raises: SweepError if the workers are gone, or cannot run this sweep.
    """
    from distributed import KilledWorker, as_completed
    from tqdm import tqdm

    from gsae_book.runs.specification import SweepError

    target = sweep.target
    common = {
        "name": target.name,
        "root": str(target.root),
        "path": str(target.path) if target.path else None,
        "limits": dict(sweep.limits),
    }
    tasks = [{"key": p.key, "values": dict(p.values), "given": dict(p.given)} for p in points]
    futures = client.map(run_point, tasks, common=common, pure=False)
    waiting = dict(zip(futures, points, strict=True))
    order = as_completed(futures)
    del futures
    n_failed = 0
    with tqdm(total=len(points), unit="point", disable=None) as bar:
        for future in order:
            point = waiting.pop(future)
            try:
                result = future.result()  # waits again if the worker that had it is gone
            except KilledWorker as error:
                result = {"status": "failed", "error": f"its workers were killed: {shown(str(error))}", "traceback": ""}
            except Exception as error:
                if future.cancelled():
                    raise SweepError("the scheduler is gone") from None
                raise SweepError(f"the workers cannot run it: {type(error).__name__}: {shown(str(error))}") from None
            if result["status"] == "refused":
                raise SweepError(f"worker {result['worker']} cannot run it: {result['error']}")
            n_failed += result["status"] == "failed"
            bar.set_postfix(failed=n_failed, running=min(sum(client.nthreads().values()), len(waiting)))
            bar.update()
            yield point, result


def run_point(task: Mapping[str, Any], *, common: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point in the child of this thread of a worker, within its limits, and return what it gave."""
    child = getattr(_here, "child", None)
    if child is None or child.common != common or child.process.poll() is not None:
        if child is not None:
            child.kill()
        child = _here.child = _Child(common)
    result = child.run(task)
    return {"worker": f"{socket.gethostname()}, process {os.getpid()}", **result}


class _Child:
    """A process that runs points, one after the other, until one takes it with it."""

    def __init__(self, common: Mapping[str, Any]) -> None:
        self.common = common
        self.messages = tempfile.TemporaryFile()
        self.connection, end = Pipe()
        path = os.pathsep.join([common["root"], *filter(None, sys.path)])
        # dask has its workers give freed memory back at once, and each step of a training would ask for it anew.
        inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(end.fileno()), str(os.getpid())],
            pass_fds=[end.fileno()],
            cwd=common["root"],
            env=inherited | {"PYTHONPATH": path, "TQDM_DISABLE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self.messages,
            stderr=self.messages,
            start_new_session=True,
        )
        end.close()
        self.state = self._ask(common, {})

    def run(self, task: Mapping[str, Any]) -> dict[str, Any]:
        if self.state["status"] != "ready":
            self.kill()
            return self.state
        os.ftruncate(self.messages.fileno(), 0)
        self.messages.seek(0)
        start = time.monotonic()
        result = self._ask(task, self.common["limits"])
        return {"seconds": round(time.monotonic() - start, 3), "peak_mib": None, "about": self.state["about"], **result}

    def _ask(self, content: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
        """Send ``content`` and return the answer, or what ended the child before it."""
        wanted, start = _watch_task(), time.monotonic()
        try:
            self.connection.send(content)
            while not self.connection.poll(POLL):
                seconds = time.monotonic() - start
                if seconds > limits.get("seconds", float("inf")):
                    return self._end(f"it took more than {limits['seconds']:g} seconds, its limit")
                if "mib" in limits and (mib := _memory_mib(self.process.pid)) > limits["mib"]:
                    told = f"it took {mib:.0f} MiB, and its limit is {limits['mib']:g}"
                    return self._end(told, peak_mib=round(mib, 1))
                if not wanted():
                    return self._end("it was called off")
            return self.connection.recv()
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            code = self.process.returncode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            self.messages.seek(max(self.messages.seek(0, os.SEEK_END) - 2000, 0))
            said = self.messages.read().decode(errors="replace").strip()
            return self._end(f"its process ended: {how}", traceback=said)

    def _end(self, error: str, **more: Any) -> dict[str, Any]:
        self.kill()
        return {"status": "failed", "error": error, "traceback": "", **more}

    def kill(self) -> None:
        for process in [*_descendants(self.process.pid), self.process]:
            with contextlib.suppress(Exception):
                process.kill()
        with contextlib.suppress(OSError):  # what a child that is gone has left in its group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        self.messages.close()


def serve(number: int, parent: int) -> None:
    """Run the points that come through the connection ``number``, until it closes: the body of a child."""
    from gsae_book.runs.environment import about
    from gsae_book.runs.processes import follow
    from gsae_book.runs.specification import find_target

    follow(parent)
    connection = Connection(number)
    os.set_inheritable(number, False)
    with contextlib.suppress(EOFError):
        common = connection.recv()
        try:
            target = find_target(common["path"] or common["name"], Path(common["root"]), notebook=bool(common["path"]))
        except Exception as error:
            connection.send({"status": "refused", "error": str(error)})
            return
        connection.send({"status": "ready", "about": about()})
        while True:
            connection.send(_answer(target, connection.recv()))


def _answer(target: Target, task: Mapping[str, Any]) -> dict[str, Any]:
    """Run one point here, if it still is what its key says, and return its rows, or the error that it raised."""
    from gsae_book.runs.functions import build_arguments, to_rows
    from gsae_book.runs.processes import peak_mib
    from gsae_book.runs.recording import to_json

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is to be that of this point
    start = time.perf_counter()
    try:
        if target.path is not None:
            return _answer_notebook(target, task)
        if target.key(task["values"], task["given"]) != task["key"]:
            return CHANGED
        arguments = build_arguments(target.function, task["values"])
        start = time.perf_counter()
        result = target.function(**arguments)
        seconds = time.perf_counter() - start
        rows = to_rows(result, arguments)
        to_json(rows).encode()  # what cannot be written is this point's error
        return {"status": "done", "rows": rows, "seconds": round(seconds, 4), "peak_mib": round(peak_mib(), 1)}
    except BaseException as error:
        seconds = round(time.perf_counter() - start, 4)
        texts = {"error": f"{type(error).__name__}: {error}"[:2000]}
        texts["traceback"] = "".join(traceback.format_exception(error))[-20_000:]
        texts = {name: text.encode(errors="backslashreplace").decode() for name, text in texts.items()}
        return {"status": "failed", **texts, "seconds": seconds}


def _answer_notebook(target: Target, task: Mapping[str, Any]) -> dict[str, Any]:
    from gsae_book.runs.execution import run_notebook
    from gsae_book.runs.kernel import NotebookError

    threads = os.environ.get("OMP_NUM_THREADS")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.ipynb"
        try:
            run = run_notebook(
                target.path,
                out,
                parameters=task["given"],
                root=target.root,
                threads=int(threads) if threads and threads.isdigit() else None,
            )
        except NotebookError as error:
            failed = out.with_suffix(".failed.ipynb")
            text = failed.read_text(encoding="utf8") if failed.is_file() else None
            return {"status": "failed", "error": str(error).splitlines()[0], "traceback": str(error), "notebook": text}
        if run.key != task["key"]:
            return CHANGED
        row = {}
        for name, metric in run.metrics.items():
            row[name] = metric["value"]
            if metric["spread"] is not None:
                row[f"{name}_spread"] = metric["spread"]
        text = out.read_text(encoding="utf8")
    kept = {"rows": [row], "seconds": run.seconds, "peak_mib": run.peak_memory_mib, "notebook": text}
    return {"status": "done", **kept}


def _watch_task() -> Any:
    """Return a function that says whether the driver still waits for the task of this thread."""
    from distributed import get_worker
    from distributed.worker import thread_state

    try:
        worker, key = get_worker(), thread_state.key
    except (ValueError, AttributeError):
        return lambda: True

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state not in ("cancelled", "released", "forgotten")

    return wanted


def _descendants(pid: int) -> list[Any]:
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _memory_mib(pid: int) -> float:
    """Return the resident memory of a process and of all that it started, in MiB."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total / 2**20
