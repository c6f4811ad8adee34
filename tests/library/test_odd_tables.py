"""Odd files: what each gives, or the one line that refuses it. Nothing is shifted, dropped or filled in silently."""

import bz2
import csv
import gzip
import os
import socket
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsae_lib import _table_cells, tables
from gsae_lib._checks import on_disk
from gsae_lib.tables import read_table

PLAIN = "a,b\n1,2\n3,4.5\n"
TWO = [[1, 2], [3, 4.5]]
SPECTRA = "sample,400,405,410\nx,.3,.2,.9\ny,.1,.7,.2\nz,.5,.1,.8\n"
RESTS = [[0.3, 0.2, 0.9], [0.1, 0.7, 0.2], [0.5, 0.1, 0.8]]
GAPS = "a,b,c\n1,2,7\n3,,8\n5,6,\n9,10,9\n"

# file, its text, arguments, numbers, columns, and words that the notes have to hold
READ = {
    "commas": ("x.csv", PLAIN, {}, TWO, "a b", ["separated by commas", "the first line is a header: a, b"]),
    "semicolons and decimal commas": (
        "x.csv",
        "a;b\n1;2\n3;4,5\n",
        {},
        TWO,
        "a b",
        ["separated by semicolons, decimals by ','"],
    ),
    "semicolons and decimal points": ("x.csv", "a;b\n1;2\n3;4.5\n", {}, TWO, "a b", ["semicolons, decimals by '.'"]),
    "decimal commas without a header": ("x.csv", "1,5;2,5\n3,5;4,5\n", {}, [[1.5, 2.5], [3.5, 4.5]], "0 1", ["sample"]),
    "quoted decimal commas between commas": (
        "x.csv",
        '"1,5","2,5"\n"3,5","4,5"\n',
        {},
        [[1.5, 2.5], [3.5, 4.5]],
        "0 1",
        ["separated by commas, decimals by ','"],
    ),
    "tabs and decimal commas": ("x.tsv", "a\tb\n1\t2\n3\t4,5\n", {}, TWO, "a b", ["tabs, decimals by ','"]),
    "bars": ("x.txt", PLAIN.replace(",", "|"), {}, TWO, "a b", ["separated by bars"]),
    "spaces of any number": ("x.dat", "  1   2\n 3\t4.5  \n", {}, TWO, "0 1", ["separated by spaces"]),
    "spaces after commas": ("x.csv", "a, b\n1, 2\n3, 4.5\n", {}, TWO, "a b", ["separated by commas"]),
    "a single column": ("x.csv", "a\n1\n3\n", {}, [[1], [3]], "a", ["one column"]),
    "a single column of decimal commas": ("x.csv", "a\n1,5\n2,25\n", {}, [[1.5], [2.25]], "a", ["one column"]),
    "a suffix in upper case": ("X.CSV", PLAIN, {}, TWO, "a b", []),
    "the wrong suffix for tabs": ("x.csv", PLAIN.replace(",", "\t"), {}, TWO, "a b", ["separated by tabs"]),
    "compressed": ("x.csv.gz", gzip.compress(PLAIN.encode()), {}, TWO, "a b", ["separated by commas"]),
    "compressed, in upper case": ("X.CSV.GZ", gzip.compress(PLAIN.encode()), {}, TWO, "a b", []),
    "a mark of UTF-8": ("x.csv", b"\xef\xbb\xbf" + PLAIN.encode(), {}, TWO, "a b", []),
    "UTF-16, as Excel writes text": ("x.txt", PLAIN.replace(",", "\t").encode("utf-16"), {}, TWO, "a b", ["tabs"]),
    "Windows-1252": ("x.csv", PLAIN.replace("b", "größe").encode("cp1252"), {}, TWO, "a größe", ["Windows-1252"]),
    "ends of lines of Windows": ("x.csv", PLAIN.replace("\n", "\r\n"), {}, TWO, "a b", []),
    "ends of lines of old Macs": ("x.csv", PLAIN.replace("\n", "\r"), {}, TWO, "a b", []),
    "no end of the last line": ("x.csv", PLAIN.rstrip(), {}, TWO, "a b", []),
    "a line for Excel": ("x.csv", "sep=;\na;b\n1;2\n3;4,5\n", {}, TWO, "a b", ["its first line tells the separator"]),
    "words for missing": (
        "x.csv",
        "a,b\n1,2\nna,7\n3,4.5\n8,?\n9,none\n",
        {"missing": "drop rows"},
        TWO,
        "a b",
        ["3 cells: 1, 3, 4"],
    ),
    "quoted": ("x.csv", '"a","b"\n"1","2"\n"3","4.5"\n', {}, TWO, "a b", []),
    "names over two lines": (
        "x.csv",
        '"a, 1","b\nc"\n1,2\n3,4.5\n',
        {},
        TWO,
        ["a, 1", "b\nc"],
        ["a header: a, 1, b c"],
    ),
    "no header": ("x.csv", "1,2\n3,4.5\n", {}, TWO, "0 1", ["the first line is a sample: 1, 2; header=True"]),
    "default names of pandas": ("x.csv", "0,1\n1.0,2.0\n3.0,4.5\n", {}, TWO, "0 1", ["a header: 0, 1"]),
    "zeros and ones": ("x.csv", "0,1\n1,1\n1,0\n", {}, [[0, 1], [1, 1], [1, 0]], "0 1", ["a sample: 0, 1"]),
    "a header of years": ("x.csv", "2019,2020\n1,2\n3,4.5\n", {}, TWO, "2019 2020", ["a header: 2019, 2020"]),
    "a header of wavelengths": ("x.csv", SPECTRA, {}, RESTS, "400 405 410", ["a header: sample, 400, 405, 410"]),
    "a header of uneven wavelengths": (
        "x.csv",
        "340.1,341,341.9,343,344,345.5,346,347\n" + "3,1,4,1,5,9,2,6\n" * 2,
        {},
        [[3, 1, 4, 1, 5, 9, 2, 6]] * 2,
        "340.1 341 341.9 343 344 345.5 346 347",
        ["header"],
    ),
    "years that are samples": (
        "x.csv",
        "2019,2020\n2020,2021\n2021,2022\n",
        {},
        [[2019, 2020], [2020, 2021], [2021, 2022]],
        "0 1",
        ["the first line is a sample"],
    ),
    "a header of years, told to be a sample": (
        "x.csv",
        "2019,2020\n1,2\n",
        {"header": False},
        [[2019, 2020], [1, 2]],
        "0 1",
        ["the first line is a sample: 2019, 2020"],
    ),
    "an index as pandas writes it": ("x.csv", ",a,b\n0,1,2\n1,3,4.5\n", {}, TWO, "a b", ["names of the rows stand in"]),
    "an index over default names": (
        "x.csv",
        ",0,1\n0,1,2\n1,3,4.5\n",
        {},
        TWO,
        "0 1",
        ["the first line is a header: , 0, 1", "names of the rows stand in"],
    ),
    "an index of dates": ("x.csv", ",a,b\n2020-01-01,1,2\n2020-01-02,3,4.5\n", {}, TWO, "a b", ["names of the rows"]),
    "an index as R writes it": ("x.txt", '"a" "b"\n"r1" 1 2\n"r2" 3 4.5\n', {}, TWO, "a b", ["leaves out the first"]),
    "numbers of customers": ("x.csv", "id,a,b\n71,1,2\n9,3,4.5\n", {}, TWO, "a b", ["column 'id'; index=''"]),
    "a column called Id that counts": ("x.csv", "Id,a,b\n1,1,2\n2,3,4.5\n", {}, TWO, "a b", ["column 'Id'; index=''"]),
    "a count that is no index": (
        "x.csv",
        "t,b\n" + "".join(f"{k},{k % 3}\n" for k in range(12)),
        {},
        [[k, k % 3] for k in range(12)],
        "t b",
        ["caution: the column 't' counts the rows; drop=['t']"],
    ),
    "an index that is a column": (
        "x.csv",
        "id,a\n1,2\n2,4.5\n",
        {"index": ""},
        [[1, 2], [2, 4.5]],
        "id a",
        [],
    ),
    "names that stand twice": ("x.csv", "a,a\n1,2\n3,4.5\n", {}, TWO, "a a.1", ["stand twice are told apart: a, a.1"]),
    "a column without a name": (
        "x.csv",
        "a,,c\n1,2,7\n3,4.5,8\n",
        {"drop": ["c"]},
        TWO,
        ["a", "unnamed 1"],
        ["without a name"],
    ),
    "separators at the ends of lines": ("x.csv", "a,b,\n1,2,\n3,4.5,\n", {}, TWO, "a b", ["they are empty: unnamed 2"]),
    "separators at the ends of all lines but the first": ("x.csv", "a,b\n1,2,\n3,4.5,\n", {}, TWO, "a b", ["empty"]),
    "blank lines": ("x.csv", "\na,b\n\n1,2\n\n\n3,4.5\n\n", {}, TWO, "a b", ["3 blank lines are left out"]),
    "comments": ("x.csv", "# by me\na,b\n1,2\n# half\n3,4.5\n", {}, TWO, "a b", ["2 comments are left out, '# by me'"]),
    "names in a comment": ("x.txt", "# a b\n1 2\n3 4.5\n", {}, TWO, "a b", ["the comment above names the columns"]),
    "colours that are no comments": (
        "x.csv",
        "#ff0000,1,2\n#00ff00,3,4.5\n",
        {},
        TWO,
        "1 2",
        ["names of the rows stand in the column '0'"],
    ),
    "a label of texts": ("x.csv", "a,b,kind\n1,2,NA\n3,4.5,dog\n", {"label": "kind"}, TWO, "a b", ["the label is"]),
    "a label without a header": ("x.csv", "1,2,cat\n3,4.5,cat\n", {"label": "2"}, TWO, "0 1", ["the label is"]),
    "a label of numbers": ("x.csv", "kind,a,b\n1,1,2\n1,3,4.5\n", {"label": "kind"}, TWO, "a b", ["the label is"]),
    "text": ("x.csv", "a,kind,b\n1,cat,2\n3,cat,4.5\n", {}, TWO, "a b", ["since they hold text: 'kind' (cat); label="]),
    "text that repeats in the first column": ("x.csv", "c,a,b\nx,1,2\nx,3,4.5\n", {}, TWO, "a b", ["text: 'c' (x)"]),
    "dates": ("x.csv", "a,b,day\n1,2,2020-01-01\n3,4.5,2020-01-01\n", {}, TWO, "a b", ["since they hold dates: 'day'"]),
    "times and dates with points": (
        "x.csv",
        "a,b,day,time\n1,2,1.2.2020,10:30\n3,4.5,3.2.2020,10:45\n",
        {},
        TWO,
        "a b",
        ["since they hold dates: 'day' (1.2.2020, 3.2.2020), 'time'"],
    ),
    "booleans": ("x.csv", "a,ok\n1,True\n3,FALSE\n", {}, [[1, 1], [3, 0]], "a ok", ["true is 1, and false 0: ok"]),
    "a boolean that is missing": (
        "x.csv",
        "a,ok\n1,True\n3,\n4,false\n",
        {"missing": "drop rows"},
        [[1, 1], [4, 0]],
        "a ok",
        ["rows with missing cells are left out, 1 cells: 1"],
    ),
    "rows with gaps dropped": (
        "x.csv",
        GAPS,
        {"missing": "drop rows"},
        [[1, 2, 7], [9, 10, 9]],
        "a b c",
        ["2 cells: 1, 2"],
    ),
    "gaps filled": (
        "x.csv",
        GAPS,
        {"missing": "impute"},
        [[1, 2, 7], [3, 6, 8], [5, 6, 8], [9, 10, 9]],
        "a b c",
        ["missing cells hold the median of their column: b (1), c (1)"],
    ),
    "gaps filled with given numbers": (
        "x.csv",
        "a,b\n1,?\n3,4.5\n",
        {"missing": "impute", "fill": {"a": 0, "b": 2}},
        TWO,
        "a b",
        ["hold what was given for their column: b (1)"],
    ),
    "an empty column": ("x.csv", "a,b,c\n1,2,\n3,4.5,\n", {}, TWO, "a b", ["left out, since they are empty: c"]),
    "a constant column": ("x.csv", "a,b\n1,2\n1,4\n", {}, [[1, 2], [1, 4]], "a b", ["constant, and kept: a"]),
    "columns in another order": ("x.csv", "b,x,a\n2,9,1\n4.5,9,3\n", {"columns": ["a", "b"]}, TWO, "a b", []),
    "columns left out": ("x.csv", "x,a,b\n7,1,2\n8,3,4.5\n", {"drop": ["x"]}, TWO, "a b", ["left out by drop: x"]),
    "a separator that is given": (
        "x.csv",
        "1;2,3\n4;5,6\n",
        {"separator": ";", "decimal": ","},
        [[1, 2.3], [4, 5.6]],
        "0 1",
        [],
    ),
    "numbers in many ways": ("x.csv", "a,b\n+1e0,.2e1\n3.,4.5E+0\n", {}, TWO, "a b", []),
}

REFUSED = {
    "another suffix": ("x.doc", "1,2\n", {}, "expected a file that ends with one of .csv, .tsv"),
    "no suffix": ("x", "1,2\n", {}, "expected a file that ends with one of"),
    "an old Excel file": ("x.xls", b"\xd0\xcf", {}, "ends with one of .*xlsx"),
    "an empty file": ("x.csv", "", {}, "it is empty"),
    "blank lines alone": ("x.csv", "\n\n", {}, "it is empty"),
    "comments alone": ("x.csv", "# a\n# b\n", {}, "no column of numbers|it has no rows|is not a number"),
    "a header alone": ("x.csv", "a,b\n", {}, "it has no rows"),
    "an Excel file called .csv": ("x.csv", b"PK\x03\x04rest", {}, "a ZIP archive, such as an Excel file"),
    "a Parquet file called .csv": ("x.csv", b"PAR1rest", {}, "it is a Parquet file"),
    "bytes": ("x.csv", b"\x00\x01\x02\n", {}, "it holds bytes that are no text"),
    "a damaged .gz": ("x.csv.gz", gzip.compress(PLAIN.encode() * 99)[:40], {}, "it is a damaged .gz file"),
    "a .gz that is none": ("x.csv.gz", bz2.compress(PLAIN.encode()), {}, "it is a damaged .gz file"),
    "a longer line": ("x.csv", "a,b\n1,2\n# c\n\n4,5,6\n", {}, "line 5 has 3 cells, and 2 are expected"),
    "a quote that does not end": ("x.csv", 'a,b\n1,2\n3,"4\n5,6\n', {}, "EOF inside string|inside a quoted|'4"),
    "a longer first line": ("x.csv", "a,b\n1,2,3\n4,5\n6,7\n", {}, "row 0 has more than 2 cells"),
    "a shorter line": ("x.csv", "a,b,c\n1,2,3\n4,5\n", {}, "row 1, column 'c' is missing or infinite"),
    "fewer names than cells": ("x.csv", "a,b\n1,2,3\n4,5,6\n", {}, "names 2 columns, and the lines have 3 cells: a, b"),
    "more names than cells": ("x.csv", "a,b,c\n1,2\n4,5\n", {}, "names 3 columns, and the lines have 2 cells"),
    "a cell of text": ("x.csv", "a,b\n1,2\n3,x\n", {}, r"row 1, column 'b': 'x' is not a number; drop=\['b'\]"),
    "a cell of text far below": ("x.csv", "a\n" + "1\n" * 300 + "x\n", {}, "row 300, column 'a': 'x' is not a number"),
    "decimal commas far below": ("x.csv", "a;b\n" + "1;2\n" * 300 + "3;4,5\n", {}, "row 300, .* '4,5' .*; decimal=','"),
    "percents": ("x.csv", "a,b\n1,12%\n2,7%\n", {}, r"row 0, column 'b': '12%' is not a number; drop=\['b'\]"),
    "units": ("x.csv", "a,b\n1,12 kg\n2,7 kg\n", {}, "row 0, column 'b': '12 kg' is not a number"),
    "thousands": ("x.csv", 'a,b\n1,"1,234.5"\n2,"2,000.1"\n', {}, "column 'b': '1,234.5' is not a number"),
    "complex numbers": ("x.csv", "a,b\n1,1+2j\n2,2+1j\n", {}, "column 'b': '1\\+2j' is not a number"),
    "a gap": ("x.csv", GAPS, {}, "row 1, column 'b' is missing or infinite, as are 2 cells .*; missing='drop rows'"),
    "an error of Excel": ("x.csv", "a,b\n1,#DIV/0!\n2,3\n", {}, "row 0, column 'b' is missing or infinite"),
    "an infinite cell": ("x.csv", "a,b\n1,inf\n2,3\n", {}, "row 0, column 'b' is missing or infinite"),
    "an infinite column": ("x.csv", "a,b\n1,inf\n2,-inf\n", {}, "row 0, column 'b' is missing or infinite"),
    "gaps in all rows": ("x.csv", "a,b\n1,\n,3\n", {"missing": "drop rows"}, "no row is without; missing='impute'"),
    "a blank line in a single column": ("x.csv", "a\n1\n\n3\n", {}, "row 1, column 'a' is missing or infinite"),
    "text alone": ("x.csv", "a,b\nx,y\nx,y\n", {}, "no column of numbers is left of a, b"),
    "no such label": ("x.csv", PLAIN, {"label": "bb"}, "label='bb': there is no such column; did you mean 'b'"),
    "no such column to drop": ("x.csv", PLAIN, {"drop": ["zzz"]}, "drop='zzz': there is no .*; there are a, b"),
    "no such columns": ("x.csv", PLAIN, {"columns": ["q"]}, "columns='q': there is no such column"),
    "text that is asked for": ("x.csv", "a,b\n1,x\n2,y\n", {"columns": ["b"]}, "column 'b': 'x' is not a number"),
    "a part of text": ("x.csv", PLAIN, {"part": "s"}, "part='s': it has no parts"),
}  # fmt: skip


def write(folder, name, content):
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf8", newline="")
    return path


@pytest.mark.parametrize("case", READ)
def test_an_odd_text_is_read(tmp_path, case):
    """Fails if a number is lost, shifted or read otherwise, or if the notes keep silent about what was done."""
    name, content, arguments, values, columns, words = READ[case]
    table = read_table(write(tmp_path, name, content), **arguments)
    np.testing.assert_array_equal(table.values, values)
    assert list(table.columns) == (columns.split() if isinstance(columns, str) else columns)
    notes = "\n".join(table.notes)
    assert not [word for word in words if word not in notes], notes
    assert all("\n" not in note for note in table.notes) and len(table.rows) == len(values)


@pytest.mark.parametrize("case", REFUSED)
def test_an_odd_text_is_refused_in_a_line(tmp_path, case):
    """Fails if a file that is no table is read, or if the message does not say in one line which file and why."""
    name, content, arguments, message = REFUSED[case]
    path = write(tmp_path, name, content)
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


def test_there_are_enough_odd_files():
    """Fails if cases are lost."""
    assert len(READ) + len(REFUSED) > 90


def test_index_labels_and_rows(tmp_path):
    """Fails if names or labels are of other rows than the numbers, above all where rows are dropped."""
    path = write(tmp_path, "x.csv", "name,a,kind,b\nu,1,x,2\nv,3,,\nw,5,None,6\n")
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
    write(tmp_path, "x.csv", PLAIN)
    assert read_table(tmp_path / "x.csv").values.dtype == np.float64
    monkeypatch.setattr(_table_cells, "MAX_BYTES", 31)
    assert read_table(tmp_path / "x.csv").values.dtype == np.float32


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_blocks_are_joined(tmp_path, monkeypatch, rows):
    """Fails if what a column is, or which row a cell is in, depends on how many rows are read at a time."""
    monkeypatch.setattr("gsae_lib._table_files.rows_at_a_time", lambda columns: rows)
    write(tmp_path, "x.csv", "n,a,k,b\nu,1,x,\nv,3,x,2\nw,5,y,6\nz,7,y,8\n")
    table = read_table(tmp_path / "x.csv", label="k", missing="impute")
    assert table.values.tolist() == [[1, 6], [3, 2], [5, 6], [7, 8]]
    assert table.labels.tolist() == list("xxyy") and table.index.tolist() == list("uvwz")
    write(tmp_path, "y.csv", "a,b\n1,2\n1,2\n1,2\n1,two\n")
    with pytest.raises(ValueError, match="row 3, column 'b': 'two' is not a number"):
        read_table(tmp_path / "y.csv")


def test_a_damaged_archive_is_refused(tmp_path):
    """Fails if an error of a reader comes through as it is."""
    for name in ("x.npz", "x.npy", "x.parquet", "x.feather"):
        write(tmp_path, name, b"PK\x03\x04" + struct.pack("<I", 7) * 9)
        with pytest.raises(ValueError, match=f"path='.*{name}'"):
            read_table(tmp_path / name)
    pytest.importorskip("openpyxl")
    write(tmp_path, "x.xlsx", b"PK\x03\x04")
    with pytest.raises(ValueError, match="it is no Excel file, or a damaged one"):
        read_table(tmp_path / "x.xlsx")
