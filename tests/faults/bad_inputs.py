"""Bad inputs to the command and the library: each has to end in one line, and nothing may run, change or hang.

`run_bad_inputs` makes the cases of seven families, runs them in a process that forks for each, and yields an `Outcome`
for each as it ends. Commands work in a scratch project, whose files are compared before and after; forks have a limit
of memory.
"""

import contextlib
import dataclasses
import fnmatch
import gc
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from built_site import ROOT
from tqdm import tqdm

from faults.judging import LONGEST, SOUND, Case, Command, Outcome, judge
from faults.scratch_project import write_project

__all__ = ["SOUND", "Case", "Outcome", "make_cases", "run_bad_inputs"]

SECONDS = 20  # after which a case hangs
MEMORY = 4 * 2**30  # bytes more than the process that forks, that a case may take
ACCEPTED = 77  # the exit code of a command that would start a kernel or workers
FAMILIES = ("bad_commands:command_cases", "bad_commands:parameter_file_cases", "bad_commands:notebook_cases")
FAMILIES += ("valid_calls:library_cases", "damaged_files:checkpoint_cases", "damaged_files:model_cases")
FAMILIES += ("damaged_files:data_file_cases",)
LOADED = "torch pandas gsae_lib.estimators.clustering gsae_book.app.cli gsae_book.app.collation_page"
LOADED += " gsae_book.build.pages gsae_book.runs.execution gsae_book.runs.records papermill pyarrow.parquet pyarrow.csv"
LOADED += " matplotlib.pyplot dask"
SAMPLED_FRESH = 12  # commands that run in a process of their own besides those that have to


def run_bad_inputs(
    root: Path, seed: int = 0, progress: bool = False, *, n_cases: int | None = None
) -> Iterator[Outcome]:
    """Yield the outcome of each case, made in the empty folder ``root``; of ``n_cases`` at random, if that is given."""
    root = Path(root).resolve()
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "faults.bad_inputs", str(root), str(seed), str(n_cases or 0)]
    where = {"cwd": ROOT, "env": _environment(root)}
    messages = root / "messages.txt"
    with (
        messages.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, **where) as worker,
    ):
        try:
            total = int(worker.stdout.readline() or 0)
            for line in tqdm(worker.stdout, "bad inputs", total, unit="input", disable=not progress):
                yield Outcome(**json.loads(line))
        finally:
            worker.kill()
    if worker.returncode not in (0, -signal.SIGKILL) or not total:
        raise RuntimeError(f"the campaign has ended: {messages.read_text()[-2000:]}")


def make_cases(seed: int) -> list[Case]:
    """All cases, the same for the same seed; some of the commands in a process of their own."""
    draw = random.Random(seed)
    found = []
    for family in FAMILIES:
        module, _, name = family.partition(":")
        found += getattr(importlib.import_module(f"faults.{module}"), name)(random.Random(draw.random()))
    commands = [k for k, case in enumerate(found) if isinstance(case.run, Command) and case.run.folder == "."]
    commands = [k for k in commands if found[k].family != "notebooks"]  # which may be right, and fail in a kernel
    for k in draw.sample(commands, SAMPLED_FRESH):
        found[k] = dataclasses.replace(found[k], run=dataclasses.replace(found[k].run, fresh=True))
    return found


def _environment(root: Path) -> dict[str, str]:
    """Everything that a case may reach is below the folder, and no network."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, sys.path)])
    dead = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    places = {"HOME": "home", "TMPDIR": "tmp", "GSAE_CACHE": "cache", "MPLCONFIGDIR": "home/matplotlib", "PATH": "bin"}
    for name in places.values():
        (root / name).mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (root / "bin" / "touch").symlink_to(shutil.which("touch") or "/bin/touch")
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    found = kept | dead | {name.upper(): value for name, value in dead.items()} | threads
    found |= {name: str(root / place) for name, place in places.items()}
    return found | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"}


def main(root: Path, seed: int, n_cases: int) -> None:
    """The body of the process that forks: write the number of cases, and each outcome as JSON, one a line."""
    for name in LOADED.split():
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    cases = make_cases(seed)
    gc.collect()
    gc.freeze()  # a fork then shares what there is
    if n_cases:
        cases = random.Random(seed).sample(cases, min(n_cases, len(cases)))
    sys.stdout.write(f"{len(cases)}\n")
    project, clean = root / "project", False
    for case in cases:
        start = time.perf_counter()
        if isinstance(case.run, Command):
            if not clean:
                shutil.rmtree(project, ignore_errors=True)
                write_project(project)
            *found, clean = _try_command(case, root, project)
        else:
            found = _try_call(case, root)
        code, verdict, message = found
        outcome = Outcome(case.family, case.name, code, verdict, round(time.perf_counter() - start, 3), message)
        sys.stdout.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        sys.stdout.flush()


def listing(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every file below a folder: its kind, time of its last change, and a hash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state, content = path.lstat(), b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        time_ns = 0 if path.is_dir() else state.st_mtime_ns
        found[str(path.relative_to(folder))] = (state.st_mode, time_ns, hashlib.sha256(content).hexdigest())
    return found


def _changed(before: dict[str, Any], after: dict[str, Any], case: Case) -> list[str]:
    """The files and folders that are others now, and may not be."""
    names = sorted({name for name, _ in before.items() ^ after.items()})
    allowed = lambda name, pattern: fnmatch.fnmatch(name, pattern) or pattern.startswith(f"{name}/")  # noqa: E731
    return [name for name in names if not any(allowed(name, pattern) for pattern in case.may_change)]


def _try_command(case: Case, root: Path, project: Path) -> tuple[int, str, str, bool]:
    """Return (exit code, verdict, message, whether the project is as it was before the input was put there)."""
    run = case.run
    clean = listing(project)
    run.prepare(project)
    before, kept = listing(project), {*(root / "tmp").iterdir()}
    outputs = [root / "stdout.txt", root / "stderr.txt"]
    code = _fresh(run, project, outputs) if run.fresh else _fork(lambda: _call_command(run, project), outputs, project)
    out, err = (path.read_text(encoding="utf8", errors="replace") for path in outputs)
    after = listing(project)
    leftovers = {path for path in (root / "tmp").iterdir() if not path.name.startswith("gsae-")} - kept  # but locks
    changed = _changed(before, after, case)
    verdict, message = _judge_command(run, code, out, err)
    if changed or leftovers:
        verdict, message = "changed", f"{', '.join([*changed, *map(str, leftovers)][:5])}; {message}"
    if list(root.rglob("executed")):
        verdict = "executed"
        for path in root.rglob("executed"):
            path.unlink()
    return code, verdict, message[:LONGEST], listing(project) == clean


def _try_call(case: Case, root: Path) -> tuple[str, str, str]:
    """Make a call of the library in a fork and a folder of its own: (exception, verdict, message)."""
    folder, result, outputs = root / "call", root / "result.json", [root / "stdout.txt", root / "stderr.txt"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    result.write_text("null")

    def call() -> None:
        os.chdir(folder)
        attempt = case.run.prepare(folder)
        before = listing(folder)
        kind, verdict, message = judge(attempt)
        if names := _changed(before, listing(folder), case):
            verdict, message = "changed", f"{', '.join(names[:5])}; {message}"
        if list(folder.rglob("executed")):
            verdict = "executed"
        result.write_text(json.dumps([kind, verdict, message]))

    code = _fork(call, outputs)
    if (found := json.loads(result.read_text())) is not None:
        return tuple(found)
    name = signal.Signals(-code).name if code < 0 else "no exception"
    text = outputs[1].read_text(errors="replace").strip()[-500:]
    return name, "hang" if code == -signal.SIGALRM else "traceback", text


def _judge_command(run: Command, code: int, out: str, err: str) -> tuple[str, str]:
    if code == -signal.SIGALRM:
        return "hang", f"no end after {SECONDS} s; {err[-300:]}"
    lines = [line for line in err.splitlines() if line.strip()]
    if lines and lines[0].startswith("Usage: "):
        lines = [line for line in lines if not line.startswith(("Usage: ", "Try '"))]
    if code < 0:
        return "traceback", f"{signal.Signals(-code).name}: {err[-300:]}"
    if "Traceback (most recent call last)" in err:
        return "traceback", lines[-1][:500]
    if code in (0, ACCEPTED) or (code == 1 and out and not err):
        return ("handled" if run.accepted else "silent"), f"{out[-300:]}{err[-300:]}"
    clear = 0 < len(lines) <= run.n_lines and lines[0].startswith("Error: ") and len(err) <= LONGEST
    clear = clear and all(c.isprintable() or c == "\n" for c in err)
    return ("one line" if clear and code in (1, 2) else "traceback"), err


def _call_command(run: Command, project: Path) -> NoReturn:
    """The command as a process of its own would run it, up to where a kernel or workers would start."""
    import papermill

    import gsae_book.runs.workers
    from gsae_book.__main__ import main as gsae

    def stop(*_: object, **__: object) -> NoReturn:
        raise SystemExit(ACCEPTED)

    papermill.execute_notebook = gsae_book.runs.workers.open_client = stop
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        del sys.modules[name]  # the project has its own
    os.environ.update(run.environment)
    if run.folder.endswith("!"):
        os.chdir(project / run.folder[:-1])
        (project / run.folder[:-1]).rmdir()
    else:
        os.chdir(project / run.folder)
    sys.argv = ["gsae", *run.arguments]
    gsae()
    raise SystemExit(0)


def _fork(work: Any, outputs: list[Path], project: Path | None = None) -> int:
    """Do ``work`` in a fork whose output goes to files; its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            for number, path in ((1, outputs[0]), (2, outputs[1])):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", encoding="utf8", closefd=False)
            sys.stderr = open(2, "w", encoding="utf8", errors="backslashreplace", closefd=False)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            signal.alarm(SECONDS)
            work()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has left behind
    return os.waitstatus_to_exitcode(status)


def _fresh(run: Command, project: Path, outputs: list[Path]) -> int:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "gsae_book", *map(os.fsencode, run.arguments)]
    where = {"cwd": project / run.folder, "env": os.environ | run.environment, "start_new_session": True}
    with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, **where)
        try:
            code = process.wait(2 * SECONDS)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return code


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
