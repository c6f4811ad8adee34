"""The project whose functions are swept."""

import sys

import pytest
from sweep_project import write_project


@pytest.fixture(autouse=True)
def forgotten_modules():
    """What a test has imported from a project of its own is not that of the next test."""
    before = sys.path.copy()
    yield
    sys.path[:] = before
    for name in ("sweep_tasks", "helpers", "leaves"):
        sys.modules.pop(name, None)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project whose functions are swept, as the working folder, and its temporary files in one place."""
    root = write_project(tmp_path / "project")
    monkeypatch.chdir(root)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("sys.path", [str(root), *sys.path])  # syspath_prepend empties caches that threads still fill
    return root
