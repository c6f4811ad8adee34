"""The page of likely mistakes: each message stands there as the command gives it."""

import re
from pathlib import Path

import pytest
from built_site import ROOT
from click.testing import CliRunner

from gsae_book.app.cli import main

PAGE = (ROOT / "book" / "failures.md").read_text(encoding="utf8")
GAPS = "a,b\n1,2\n3,\n4,5\n5,\n"
UNITS = "a,b\n1,12 kg\n2,7 kg\n"
COMMAS = "a;b\n1;1,234\n2;5,678\n"


@pytest.mark.parametrize(
    ("arguments", "table"),
    [
        (["run", "02", "-p", "threshold", "9"], None),
        (["run", "02", "-p", "tresh", "1"], None),
        (["cluster", "my.csv"], GAPS),
        (["cluster", "my.csv"], UNITS),
        (["cluster", "my.csv"], COMMAS),
    ],
)
def test_the_page_tells_what_the_command_says(arguments, table, tmp_path, monkeypatch):
    """Fails if a message has changed and the page has not."""
    if table is not None:
        monkeypatch.chdir(tmp_path)
        Path("my.csv").write_text(table)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    told = re.sub(r"^Error: (path='[^']*': )?", "", result.output.strip())
    assert any(told.startswith(message) for message in re.findall(r"\| `([^`]+)`", PAGE)), told
