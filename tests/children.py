"""Processes that tests start and end."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

# Seconds after which what should end is stuck: no measure of speed, so that a busy machine does not fail a test.
STUCK = 600
# The same for what a kill ends at once, and what would go on for a minute or more if it did not.
GONE = 40


def popen(arguments: list[Any], **options: Any) -> subprocess.Popen[str]:
    """Start a process in a session of its own that Ctrl-C ends, as it does at a terminal.

    What a script starts in the background ignores SIGINT and passes that on to its children. A sweep that is started so
    shall go on; a test of Ctrl-C means a sweep that was not.
    """
    return subprocess.Popen(arguments, text=True, start_new_session=True, preexec_fn=_obey, **options)


def _obey() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def git(folder: Path, *arguments: str, **variables: str) -> None:
    """Call git in a folder, as somebody."""
    command = ["git", "-C", folder, "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | variables)
