"""Files that are whole, and that one command at a time writes."""

import subprocess
import sys
import threading

import pytest
from children import GONE

from gsae_book.runs.files import Busy, lock_beside, locked
from gsae_lib._files import replace_file

HOLD = """
import sys, time
from pathlib import Path
from gsae_book.runs.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the file `lock`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_another_process_holds_is_refused_or_waited_for(tmp_path, holder, capsys):
    """Fails if two hold it, if a killed process keeps it, or if waiting is not told."""
    with pytest.raises(Busy, match="is locked"), locked(tmp_path / "lock"):
        pass
    threading.Timer(0.3, holder.kill).start()
    with locked(tmp_path / "lock", waiting="waiting for it"):
        assert holder.wait(GONE) < 0
    assert "waiting for it" in capsys.readouterr().err


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        1 / 0  # noqa: B018
    with locked(tmp_path / "lock"):
        pass


def test_the_lock_of_a_path_is_that_of_the_file_it_leads_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert lock_beside(tmp_path / "link") == lock_beside(tmp_path / "file") != lock_beside(tmp_path / "other")
    assert tmp_path not in lock_beside(tmp_path / "file").parents


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    """Fails if a full disk leaves half a file, or a temporary one."""

    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    replace_file(path, "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"
