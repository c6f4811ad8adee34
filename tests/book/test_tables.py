"""Tables of your own: what is read comes back, and what is no table is refused by its first bad cell."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from gsae_book.data import _table_columns, _table_files, read_table
from gsae_book.data.tables import open_table
from gsae_lib._checks import on_disk


@pytest.mark.parametrize("header", [True, False])
def test_tables_come_back(tmp_path, header):
    """Fails if a format changes numbers, or the first row of a file without a header is lost."""
    table = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "x.npy", table)
    np.testing.assert_array_equal(read_table(tmp_path / "x.npy").values, table)
    frame = pd.DataFrame(table, columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "x.csv", index=False, header=header)
    np.testing.assert_allclose(read_table(tmp_path / "x.csv").values, table, rtol=1e-12)
    frame.to_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(read_table(tmp_path / "x.parquet").values, table)
    frame.to_csv(tmp_path / "excel.csv", index=False, header=header, encoding="utf-8-sig", quoting=csv.QUOTE_ALL)
    np.testing.assert_allclose(read_table(tmp_path / "excel.csv").values, table, rtol=1e-12)
    np.save(tmp_path / "f.npy", table.astype(np.float32))
    assert read_table(tmp_path / "f.npy").values.dtype == np.float32


def test_notes_go_to_the_log(tmp_path, caplog):
    """Fails if what was understood is in the table alone, where a program that only takes numbers loses it."""
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with caplog.at_level("INFO"):
        table = read_table(tmp_path / "x.csv")
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'x.csv'}: {x}" for x in table.notes]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missing": "zeros"}, "missing='zeros': expected one of 'refuse', 'drop rows', 'impute'"),
        ({"decimal": "_"}, "decimal='_': expected one of"),
        ({"separator": "||"}, "separator='||': expected one character"),
        ({"drop": "ab"}, "drop='ab': expected a list of names"),
        ({"columns": "ab"}, "columns='ab': expected a list of names"),
        ({"fill": {"a": 1}}, "fill={'a': 1}: expected missing='impute' with it, got missing='refuse'"),
        ({"fill": {"a": 1}, "missing": "drop rows"}, "expected missing='impute' with it, got missing='drop rows'"),
        ({"fill": 1.5, "missing": "impute"}, "fill=1.5: expected a number for each column, by name"),
    ],
)
def test_rejects_settings(tmp_path, arguments, message):
    """Fails if a setting that means nothing is taken."""
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(tmp_path / "x.csv", **arguments)


# Larger than memory


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8])
def test_arrays_are_mapped_as_they_are(tmp_path, dtype):
    """Fails if a NumPy file is copied or converted as it is opened, or can be changed through it."""
    table = np.arange(12).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "x.npy", table)
    opened = open_table(tmp_path / "x.npy")
    assert isinstance(opened, np.memmap) and opened.dtype == dtype and not opened.flags.writeable
    np.testing.assert_array_equal(opened, read_table(tmp_path / "x.npy").values)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_parquet_is_copied_in_pieces(tmp_path, monkeypatch, rows):
    """Fails if rows are lost between pieces, an index becomes a column, or a rest is left in the temporary folder."""
    monkeypatch.setattr(_table_files, "PARQUET_ROWS", rows)
    monkeypatch.setattr(_table_columns.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(25, 3)), columns=list("abc"), index=np.arange(25) * 2)
    frame["n"] = np.arange(25)
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=10)
    opened = open_table(tmp_path / "x.parquet")
    assert on_disk(opened) and not opened.flags.writeable and not list((tmp_path / "temporary").iterdir())
    np.testing.assert_array_equal(opened, frame.to_numpy())
    frame["a"] = frame["a"].where(frame["a"].index != 36)
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"row 18, column 'a' is missing or infinite, as are 1 cells"):
        open_table(tmp_path / "x.parquet")
    frame["b"] = ["1"] * 20 + ["x"] * 5
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"row (0|20), column 'b': '(1|x)' is not a number"):
        open_table(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "x.npy"),
        ("x.npy", np.array([[1.0, np.nan], [np.inf, 2.0]]), "row 0, column '1' is missing or infinite, as are 2 cells"),
        ("x.npy", np.array([1.0]), r"expected a table of real numbers, .*, got \(1,\)"),
        ("x.npy", np.array([["a"]]), "expected a table of real numbers"),
        ("x.parquet", b"PAR1", "x.parquet"),
        ("x.doc", b"1", "ends with one of"),
    ],
)
def test_rejects_tables_that_it_opens(tmp_path, name, content, message):
    """Fails if a file that is no table of finite numbers is opened."""
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        open_table(tmp_path / name)


def test_a_full_disk_is_an_error(monkeypatch):
    """Fails if the space is not taken before it is written to, since a full disk would then end the process."""

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_table_columns.os, "posix_fallocate", fail)
    with pytest.raises(OSError, match="No space"):
        _table_columns._new_values((3, 2), np.dtype(np.float64), in_map=True)
