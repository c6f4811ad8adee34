"""Processes end with the one that started them: a killed or interrupted command leaves none, and no files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from children import GONE, STUCK, popen
from tiny_book import write_book, write_notebook

pytestmark = pytest.mark.book
WAIT = "import pathlib, time\npathlib.Path(f'started-{rate}').touch()\ntime.sleep(100)"
PAGES = """
import pathlib
from gsae_book.build.pages import build_html
build_html(pathlib.Path("source"), pathlib.Path("html"), pathlib.Path("doctrees"))
"""


@pytest.fixture
def waiting_book(tmp_path, monkeypatch):
    """A tiny book, the working folder, whose notebooks say that they have started and then wait."""
    root = write_book(tmp_path / "book")
    for k, path in enumerate(sorted((root / "notebooks").glob("*.ipynb"))):
        write_notebook(path, WAIT.replace("{rate}", str(k)))
    monkeypatch.chdir(root)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return root


def stop(arguments: list[str], number: int, started: int) -> tuple[int, str, list[psutil.Process]]:
    """Start Python, signal it once ``started`` files say so, and return its code, messages and descendants alive."""
    process = popen([sys.executable, *arguments], stderr=subprocess.PIPE)
    end = time.monotonic() + STUCK
    while len(list(Path.cwd().glob("started-*"))) < started:
        assert time.monotonic() < end and process.poll() is None, "it did not start"
        time.sleep(0.1)
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert len(descendants) >= started
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches a whole group
    process.wait(GONE)
    _, alive = psutil.wait_procs(descendants, timeout=GONE)
    for child in alive:
        child.kill()
    return process.returncode, process.stderr.read(), alive


def test_a_killed_build_leaves_no_process(waiting_book):
    """Fails if a worker or its kernel lives on: each holds some hundred MB."""
    assert stop(["-m", "gsae_book.build.book"], signal.SIGKILL, 2)[2] == []


def test_a_killed_build_of_pages_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "_config.yml").write_text("sphinx: {extra_extensions: [slow]}")
    (tmp_path / "source" / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "source" / "index.md").write_text("# Index\n")
    (tmp_path / "slow.py").write_text("import pathlib, time\npathlib.Path('started-0').touch()\ntime.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert stop(["-c", PAGES], signal.SIGKILL, 1)[2] == []


@pytest.mark.parametrize(
    ("arguments", "started"),
    [(["-m", "gsae_book.build.book"], 2), (["-m", "gsae_book", "run", "1", "-o", "out.ipynb"], 1)],
)
def test_an_interrupted_command_says_so_in_one_line(waiting_book, tmp_path, arguments, started):
    """Fails on a traceback, another exit code than a shell gives, a process, or a file that is left."""
    code, messages, alive = stop(arguments, signal.SIGINT, started)
    assert code == 130
    assert messages.splitlines()[-1] == "Interrupted." and "Traceback" not in messages
    assert alive == []
    left = [path for path in (tmp_path / "temporary").iterdir() if not path.name.startswith("gsae-")]  # of locks
    assert left == []
    assert not [*waiting_book.glob("out*"), *waiting_book.rglob("*.tmp"), *waiting_book.rglob("*running*")]
