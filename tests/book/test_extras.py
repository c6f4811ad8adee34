"""What the library says where a package of an extra is missing."""

import pytest

from gsae_book.data import read_table
from gsae_book.data.states import load_language_model
from gsae_lib import _extras
from gsae_lib._extras import require


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    """Fails if the error of a missing package does not say in one line what to install, or is one deep inside."""
    assert "." in require("numpy", "tables")
    with pytest.raises(ModuleNotFoundError, match=r"^no-such is not installed: pip install 'gsae_lib\[data\]'$"):
        require("no-such", "data")

    def absent(name):
        raise _extras.PackageNotFoundError(name)

    monkeypatch.setattr(_extras, "version", absent)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gsae_lib\[language\]'"):
        load_language_model("smollm2", 1)


def test_a_table_needs_its_extra(monkeypatch, tmp_path):
    """Fails if a table is read without asking for pandas first, so that the error would name no extra."""
    (tmp_path / "table.csv").write_text("1,2")
    monkeypatch.setattr(
        "gsae_book.data._table_files.require", lambda package, extra: pytest.fail(f"{package} of {extra}")
    )
    with pytest.raises(pytest.fail.Exception, match="pandas of tables"):
        read_table(tmp_path / "table.csv")
