"""Odd files: what each gives, or the one line that refuses it. Nothing is shifted, dropped or filled in silently."""

import csv
import io
import os
import socket
import struct
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_tables import PLAIN, READ, REFUSED, TWO, write_odd

from gsae_book.data import _table_columns, _table_files, read_table, tables
from gsae_lib._checks import on_disk


@pytest.mark.parametrize("case", READ)
def test_an_odd_text_is_read(tmp_path, case):
    """Fails if a number is lost, shifted or read otherwise, or if the notes keep silent about what was done."""
    name, content, arguments, values, columns, words = READ[case]
    table = read_table(write_odd(tmp_path, name, content), **arguments)
    np.testing.assert_array_equal(table.values, values)
    assert list(table.columns) == (columns.split() if isinstance(columns, str) else columns)
    notes = "\n".join(table.notes)
    assert not [word for word in words if word not in notes], notes
    assert all("\n" not in note for note in table.notes) and len(table.rows) == len(values)


@pytest.mark.parametrize("case", REFUSED)
def test_an_odd_text_is_refused_in_a_line(tmp_path, case):
    """Fails if a file that is no table is read, or if the message does not say in one line which file and why."""
    name, content, arguments, message = REFUSED[case]
    path = write_odd(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path, **arguments)
    assert str(caught.value).startswith(f"path={str(path)!r}: ") and "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(3, 30), st.integers(2, 9)),
    seed=st.integers(0, 10**6),
    sep=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    header=st.booleans(),
    index=st.booleans(),
    whole=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_pandas_writes_comes_back_property(
    tmp_path, shape, seed, sep, decimal, header, index, whole, quoting, end
):
    """Fails if some mixture of separator, decimal mark, header, index and quotes shifts or changes a number."""
    rng = np.random.default_rng(seed)
    values = (
        rng.integers(-1000, 1000, shape).astype(float) if whole else rng.normal(0, 10.0 ** rng.integers(-3, 4), shape)
    )
    values[0, 0] += 0.5  # not all of them are whole
    frame = pd.DataFrame(values, columns=[f"column {k}" for k in range(shape[1])])
    path = tmp_path / "x.csv"
    written = {"header": header, "index": index, "quoting": quoting, "lineterminator": end}
    frame.to_csv(path, sep=sep, decimal=decimal, **written)
    table = read_table(path)
    if index and not header:  # nothing says that the first column is no data; a note does
        assert len(values) < 10 or "caution: the column '0' counts the rows" in "\n".join(table.notes)
        values = np.column_stack([np.arange(len(values)), values])
    np.testing.assert_allclose(table.values, values, rtol=1e-14)
    assert (table.index is not None) == (index and header)


MAY_BE = r"row {}, column '{}': '1,234' may be 1\.234 or 1234; decimal=',' says the first, for the second take the com"
NOT_DECIMAL = r"column 'b': '1,234(,567)?' is not a number; take the commas out$"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a,b\n1,"1,234"\n2,999\n3,"12,500"\n', MAY_BE.format(0, "b")),
        ("a\tb\n1\t999\n2\t1,234\n", MAY_BE.format(1, "b")),
        ("a;b\n-1,500;1\n1,234;2\n", r"row 0, column 'a': '-1,500' may be -1\.500 or -1500; decimal=','"),
        ("1,234;5,678\n2,345;6,789\n", MAY_BE.format(0, "0")),
        ("a\n1,234\n5,678\n", MAY_BE.format(0, "a")),
        ("a;b\n" + "1;2\n" * 300 + "3;1,234\n", MAY_BE.format(300, "b")),
        ('a,b\n0.5,"1,234"\n0.7,999\n', NOT_DECIMAL),
        ('a,b,c\n0.5,"1,234","2,345"\n0.7,"1,999","1,236"\n', NOT_DECIMAL),
        ('a,b\n1,"1,234"\n2,"1,234,567"\n', NOT_DECIMAL),
        ('a,b\n1,"1,234,567"\n2,"2,345,678"\n', NOT_DECIMAL),
        ("a;b\n1.5;2\n" + "1;2\n" * 300 + "3;4,5\n", r"row 301, .*'4,5' is not a number; drop=\['b'\] leaves"),
    ],
)
def test_thousands_are_not_taken_for_decimals(tmp_path, content, message):
    """Fails if 1,234 becomes 1.234 without a comma that tells, or decimal=',' is advised beside decimal points."""
    with pytest.raises(ValueError, match=message):
        read_table(write_odd(tmp_path, "x.csv", content))


@pytest.mark.parametrize("told", ["12,5", "0,123", "1,2345", "-,5"])
def test_one_decimal_comma_tells_of_all(tmp_path, told):
    """Fails if 1,234 is refused though a comma of the file cannot separate thousands, or decimal=',' was given."""
    path = write_odd(tmp_path, "x.csv", f"a;b\n1,234;1\n2,345;{told}\n")
    table = read_table(path)
    assert table.values[0].tolist() == [1.234, 1] and "decimals by ','" in "\n".join(table.notes)
    path = write_odd(tmp_path, "x.csv", "a;b\n1,234;1\n2,345;2\n")
    assert read_table(path, decimal=",").values.tolist() == [[1.234, 1], [2.345, 2]]
    assert read_table(path, drop=["a"]).values.tolist() == [[1], [2]], "nobody asked what a holds"


def test_commas_are_no_decimals_where_no_text_is_read(tmp_path):
    """Fails if decimal=',' is advised for a file in which it changes nothing."""
    pd.DataFrame({"a": ["5,5", "6,5"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"'5,5' is not a number; drop=\['a'\]"):
        read_table(tmp_path / "x.parquet")


@pytest.mark.parametrize(("name", "sep"), [("x.csv", ","), ("x.tsv", "\t")])
def test_a_last_row_without_numbers_is_a_row(tmp_path, name, sep):
    """Fails if a last row whose cells are all missing vanishes without a word, or blank lines below it become rows."""
    path = write_odd(tmp_path, name, f"a{sep}b\n1{sep}2\n{sep}\n  \n\n")
    with pytest.raises(ValueError, match="row 1, column 'a' is missing or infinite, as are 2 cells in all"):
        read_table(path)
    table = read_table(path, missing="drop rows")
    assert table.values.tolist() == [[1, 2]] and table.n_rows == 2


@pytest.mark.parametrize(
    ("fill", "told"), [({"a": 1, "b": np.nan}, "nan"), ({"a": 1, "b": "x"}, "'x'"), ({"b": True}, "None"), ({}, "None")]
)
def test_what_is_filled_in_is_a_finite_number(tmp_path, fill, told):
    """Fails if NaN is filled in, or what is no number ends in another library's words."""
    path = write_odd(tmp_path, "x.csv", "a,b\n1,2\n3,\n")
    with pytest.raises(ValueError, match=f"fill: expected a finite number for the column '[ab]', got {told}"):
        read_table(path, missing="impute", fill=fill)


def test_a_number_too_large_for_single_precision_is_not_filled_in(tmp_path):
    """Fails if a finite number becomes infinite in a table of float32."""
    np.save(tmp_path / "x.npy", np.array([[1, np.nan], [2, 3]], dtype=np.float32))
    with pytest.raises(ValueError, match=r"fill: expected a finite number for the column '1', got 1e\+300"):
        read_table(tmp_path / "x.npy", missing="impute", fill={"0": 1, "1": 1e300})


def test_there_are_enough_odd_files():
    """Fails if cases are lost."""
    assert len(READ) + len(REFUSED) > 90


def test_index_labels_and_rows(tmp_path):
    """Fails if names or labels are of other rows than the numbers, above all where rows are dropped."""
    path = write_odd(tmp_path, "x.csv", "name,a,kind,b\nu,1,x,2\nv,3,,\nw,5,None,6\n")
    table = read_table(path, label="kind", missing="drop rows")
    assert table.values.tolist() == [[1, 2], [5, 6]] and table.index.tolist() == ["u", "w"]
    assert table.labels.tolist() == ["x", "None"] and table.rows.tolist() == [0, 2] and table.n_rows == 3
    table = read_table(path, label="kind", missing="impute")
    assert table.labels.tolist() == ["x", "", "None"] and table.fill.tolist() == [3, 4]
    assert str(table).splitlines()[-3:] == ["    u  1  2      x", "    v  3  4       ", "    w  5  6   None"]


@pytest.mark.parametrize("kind", ["parquet", "feather", "npy", "npz", "xlsx"])
def test_other_formats(tmp_path, kind):
    """Fails if a format loses numbers, names, labels, or an index that counts nothing."""
    frame = pd.DataFrame(
        {"a": [1.0, 3.0], "ok": [True, False], "kind": ["x", "y"], "day": pd.to_datetime(["2020", "2021"])}
    )
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, np.array(TWO))
        assert read_table(path, label=1).labels.tolist() == ["2.0", "4.5"]
        assert read_table(path).values.tolist() == TWO and read_table(path, columns=["1"]).values.tolist() == [
            [2],
            [4.5],
        ]
        return
    if kind == "npz":
        np.savez(path, X=np.array(TWO), y=np.array(["u", "v"]))
        assert read_table(path).values.tolist() == TWO and read_table(path, label="y").labels.tolist() == ["u", "v"]
        np.savez(path, X=np.array(TWO), Z=np.array(TWO) * 2)
        with pytest.raises(ValueError, match=r"expected one table .*part= its name; it holds X \(2, 2\), Z \(2, 2\)"):
            read_table(path)
        assert read_table(path, part="Z").values.tolist() == [[2, 4], [6, 9]]
        return
    if kind == "xlsx":
        pytest.importorskip("openpyxl")
        gaps = pd.DataFrame([[None] * 3, [None, "x", 2020], [None] * 3, [None, 1, 2.5], [None] * 3, [None, 3, 4]])
        gaps.to_excel(path, index=False, header=False)
        table = read_table(path)
        assert table.values.tolist() == [[1, 2.5], [3, 4]] and table.columns == ("x", "2020")
        assert "2 blank lines are left out" in "\n".join(table.notes) and "empty: unnamed 0" in "\n".join(table.notes)
        with pd.ExcelWriter(path) as file:
            frame.to_excel(file, sheet_name="one", index=False)
            frame.assign(a=9.5).to_excel(file, sheet_name="two")
        assert read_table(path, part="two").values.tolist() == [[9.5, 1], [9.5, 0]]
        with pytest.raises(ValueError, match="part='three': there is no such sheet; it has one, two"):
            read_table(path, part="three")
    elif kind == "feather":
        frame.to_feather(path)
    else:
        frame.set_index(pd.Index(["u", "v"])).to_parquet(path)
        assert read_table(path).index.tolist() == ["u", "v"]
        frame[::-1].to_parquet(path)
        assert read_table(path).index is None
        frame.to_parquet(path)
    table = read_table(path, label="kind")
    assert table.values.tolist() == [[1, 1], [3, 0]] and table.columns == ("a", "ok")
    assert table.labels.tolist() == ["x", "y"] and "since they hold dates: 'day'" in "\n".join(table.notes)


def test_columns_of_other_things_are_refused(tmp_path):
    """Fails if a column of lists is taken for text, or complex numbers lose half."""
    pd.DataFrame({"a": [1.0, 2.0], "e": [[1, 2], [3, 4]]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"row 0, column 'e': '\[1 2\]' is not a number; drop=\['e'\]"):
        read_table(tmp_path / "x.parquet")
    for array in (np.ones((2, 2), dtype=complex), np.ones((2, 3, 4)), np.ones(3), np.array([["a"]]), np.ones((0, 2))):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(ValueError, match=r"expected a table of real numbers, \(samples, features\), got"):
            read_table(tmp_path / "x.npy")
    records = np.array([(1, 2.5), (3, 4.5)], dtype=[("u", "i4"), ("v", "f8")])
    np.save(tmp_path / "x.npy", records)
    table = read_table(tmp_path / "x.npy")
    assert table.columns == ("u", "v") and table.values.tolist() == [[1, 2.5], [3, 4.5]]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    """Fails if a pipe or a device is opened, which would wait for ever."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "null.csv").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.csv"))
    for name, kind in {"pipe": "a pipe", "folder": "a folder", "null": "a device", "s": "a socket"}.items():
        with pytest.raises(ValueError, match=f"it is {kind}, expected a file"):
            read_table(tmp_path / f"{name}.csv")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.csv")


def test_large_tables_are_mapped_or_refused(tmp_path, monkeypatch):
    """Fails if a table above the limit is read into memory, or refused without its size."""
    monkeypatch.setattr(tables, "MAX_BYTES", 100)
    frame = pd.DataFrame(np.arange(60.0).reshape(30, 2), columns=["a", "b"])
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(
        ValueError, match=r"30 rows of 2 columns take 0.0 GB as float32, more than 1e-07: save it as .npy"
    ):
        read_table(tmp_path / "x.csv")
    frame.to_parquet(tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", frame.to_numpy())
    frame.assign(kind="x").to_feather(tmp_path / "x.feather")
    for name in ("x.parquet", "x.npy", "x.feather"):
        table = read_table(tmp_path / name)
        assert on_disk(table.values) and not table.values.flags.writeable
        np.testing.assert_array_equal(table.values, frame)
    assert read_table(tmp_path / "x.npy", drop=["0"]).values.tolist() == frame[["b"]].to_numpy().tolist()
    frame.loc[3, "b"] = np.nan
    np.save(tmp_path / "x.npy", frame.to_numpy())
    kept = read_table(tmp_path / "x.npy", missing="drop rows")
    np.testing.assert_array_equal(kept.values, frame.dropna())
    assert np.isnan(np.load(tmp_path / "x.npy")[3, 1]), "the user's file is left as it is"
    assert read_table(tmp_path / "x.npy", missing="impute").values[3, 1] == 31


def test_single_precision_where_double_would_not_fit(tmp_path, monkeypatch):
    """Fails if a text table between 1 and 2 GB takes twice the memory that was promised."""
    write_odd(tmp_path, "x.csv", PLAIN)
    assert read_table(tmp_path / "x.csv").values.dtype == np.float64
    monkeypatch.setattr(_table_columns, "MAX_BYTES", 31)
    assert read_table(tmp_path / "x.csv").values.dtype == np.float32


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_blocks_are_joined(tmp_path, monkeypatch, rows):
    """Fails if what a column is, or which row a cell is in, depends on how many rows are read at a time."""
    monkeypatch.setattr("gsae_lib._checks.rows_at_a_time", lambda columns: rows)
    write_odd(tmp_path, "x.csv", "n,a,k,b\nu,1,x,\nv,3,x,2\nw,5,y,6\nz,7,y,8\n")
    table = read_table(tmp_path / "x.csv", label="k", missing="impute")
    assert table.values.tolist() == [[1, 6], [3, 2], [5, 6], [7, 8]]
    assert table.labels.tolist() == list("xxyy") and table.index.tolist() == list("uvwz")
    write_odd(tmp_path, "y.csv", "a,b\n1,2\n1,2\n1,2\n1,two\n")
    with pytest.raises(ValueError, match="row 3, column 'b': 'two' is not a number"):
        read_table(tmp_path / "y.csv")


def test_a_damaged_archive_is_refused(tmp_path):
    """Fails if an error of a reader comes through as it is."""
    for name in ("x.npz", "x.npy", "x.parquet", "x.feather"):
        write_odd(tmp_path, name, b"PK\x03\x04" + struct.pack("<I", 7) * 9)
        with pytest.raises(ValueError, match=f"path='.*{name}'"):
            read_table(tmp_path / name)
    pytest.importorskip("openpyxl")
    write_odd(tmp_path, "x.xlsx", b"PK\x03\x04")
    with pytest.raises(ValueError, match="it is no Excel file, or a damaged one"):
        read_table(tmp_path / "x.xlsx")


def test_an_archive_is_read_by_its_headers(tmp_path):
    """Fails if more of an archive is unpacked than the table and the label, or its order or its records change."""
    table = np.arange(12.0).reshape(4, 3)
    names = np.array(["u", "v", "u", "v"])
    records = np.array([(1, 2.5), (3, 4.5)], dtype=[("u", "i4"), ("名", "f8")])
    for kept in (table, np.asfortranarray(table), table.astype("i2"), table > 5):
        np.savez_compressed(tmp_path / "x.npz", X=kept, y=names)
        with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
            archive.writestr("z.npy", npy_header((10**12,)))  # cannot be unpacked
        found = read_table(tmp_path / "x.npz", label="y")
        assert found.values.tolist() == kept.tolist() and found.labels.tolist() == names.tolist()
    with warnings.catch_warnings(action="ignore"):  # of a header in UTF-8
        np.savez(tmp_path / "x.npz", records)
    assert read_table(tmp_path / "x.npz").columns == ("u", "名")
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("readme.txt", "not an array")
    assert "beside readme.txt" in str(read_table(tmp_path / "x.npz"))


def npy_header(shape, descr="<f8"):
    """The head of a .npy file of that shape, without numbers."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"shape": shape, "fortran_order": False, "descr": descr})
    return content.getvalue()


@pytest.mark.parametrize(
    ("members", "settings", "message"),
    [
        ({"a.txt": b"text"}, {}, r"it holds a.txt \(no array\)"),
        ({"a.npy": b"text"}, {"part": "a"}, r"part='a': expected one table .* it holds a \(no array\)"),
        ({"a.npy": npy_header((10**12, 3))}, {}, "the array 'a' takes 24000.0 GB, more than 2"),
        ({"a.npy": npy_header((2, 10**3), "|i1") + b"\0" * 9}, {}, "a damaged one: EOF"),
        ({"a.npy": npy_header((2, 2), "|O") + b"x" * 90}, {}, "Object arrays cannot be loaded"),
        ({"a.npy": npy_header((2,), [("u", "<f8", (3,))]) + b"x" * 48}, {}, "the field 'u': expected a number or a"),
        ({"a.npy": npy_header((2,), [("u", "|O")]) + b"x" * 48}, {}, "Object arrays cannot be loaded"),
        ({"a.npy": npy_header((2,), [("u", "<c16")]) + b"x" * 48}, {}, "the field 'u': expected a number or a text"),
    ],
)
def test_an_archive_that_holds_something_else_is_refused(tmp_path, members, settings, message):
    """Fails if a member that is no array, or that claims more than there is, ends in a trace, or without the name."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=message) as found:
        read_table(tmp_path / "x.npz", **settings)
    assert str(found.value).startswith(f"path={str(tmp_path / 'x.npz')!r}: ") and "\n" not in str(found.value)


def test_what_does_not_fit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """Fails if a small archive may fill the memory: by its sheet, by an array stored by columns, by its columns."""
    pytest.importorskip("openpyxl")
    pd.DataFrame(np.zeros((300, 9))).to_excel(tmp_path / "x.xlsx", index=False)
    np.savez_compressed(tmp_path / "x.npz", np.zeros((300, 9), order="F"))
    assert read_table(tmp_path / "x.npz").values.shape == (300, 9)
    np.save(tmp_path / "wide.npy", np.zeros((1, 300)))
    monkeypatch.setattr(_table_files, "MAX_BYTES", 20_000)
    monkeypatch.setattr(tables, "MAX_COLUMNS", 299)
    monkeypatch.setattr("pandas.ExcelFile", lambda *_, **__: pytest.fail("it was opened"))
    for name, message in {"x.xlsx": "unpacked it takes", "x.npz": "'arr_0' takes", "wide.npy": "300 columns"}.items():
        with pytest.raises(ValueError, match=f"path=.*{name}': .*{message}"):
            read_table(tmp_path / name)


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_line_longer_than_a_cell_may_be(tmp_path, quote):
    """Fails if a wide table is refused for the length of a line, or Python's limit of a cell is left another."""
    limit = csv.field_size_limit()
    names = [f"gene{k}" + "x" * 100 for k in range(1500)]
    lines = [",".join(f"{quote}{name}{quote}" for name in names)] + [",".join(["1.5"] * len(names))] * 3
    write_odd(tmp_path, "x.csv", "\n".join(lines))
    table = read_table(tmp_path / "x.csv")
    assert table.values.shape == (3, 1500) and table.columns == tuple(names) and csv.field_size_limit() == limit


def test_lists_in_the_first_column_are_refused(tmp_path):
    """Fails if a column of lists is asked whether its cells differ, which Python cannot say."""
    pd.DataFrame({"e": [[1, 2], [3, 4]], "a": [1.0, 2.0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"row 0, column 'e': '\[1 2\]' is not a number; drop=\['e'\]"):
        read_table(tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet", drop=["e"]).values.tolist() == [[1], [2]]


def test_a_long_name_is_shown_by_its_start(tmp_path):
    """Fails if a name without spaces is shown as dots alone."""
    names = ["absorbance_at_" + "0123456789" * 4, "b c " * 20]
    write_odd(tmp_path, "x.csv", ",".join(names) + "\n1,2\n3,4\n")
    head = str(read_table(tmp_path / "x.csv")).splitlines()[-3]
    assert "absorbance_at_0123456789" in head and "b c b c" in head and len(head) < 100


def test_a_sheet_is_as_large_as_its_cells(tmp_path):
    """Fails if the size that a sheet declares is walked through, 16,384 columns, or short rows are refused."""
    pytest.importorskip("openpyxl")
    pd.DataFrame([["a", "b", "c"], [1, 2, 3], [4, None, None], [5, 6, 7]]).to_excel(
        tmp_path / "own.xlsx", index=False, header=False
    )
    with zipfile.ZipFile(tmp_path / "own.xlsx") as own, zipfile.ZipFile(tmp_path / "x.xlsx", "w") as other:
        for name in own.namelist():
            other.writestr(name, own.read(name).replace(b'"A1:C4"', b'"A1:XFD1048576"'))
    table = read_table(tmp_path / "x.xlsx", missing="drop rows")
    assert table.columns == ("a", "b", "c") and table.values.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert "empty" not in str(table)
