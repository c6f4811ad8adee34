"""Choices without labels: tables that are read or refused, activities that are met, and clusters that are stable."""

import csv

import numpy as np
import pandas as pd
import pytest
import torch

from gsae_lib import GroupSparseClustering, GroupSparseSource, selection
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.selection import alpha_for_activity, choose_most_stable, cluster_stability
from gsae_lib.tables import read_table


@pytest.fixture
def planes():
    """Samples on four planes in twelve dimensions, and the dictionary."""
    rng = torch.Generator().manual_seed(5)
    truth = orthonormal_groups_dictionary(12, 4, 2, generator=rng, dtype=torch.float64)
    return GroupSparseSource.union_of_subspaces(truth, 2, snr_db=20.0).sample(400, generator=rng).data.numpy(), truth


@pytest.mark.parametrize("header", [True, False])
def test_tables_come_back(tmp_path, header):
    """Fails if a format changes numbers, or the first row of a file without a header is lost."""
    table = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "x.npy", table)
    np.testing.assert_array_equal(read_table(tmp_path / "x.npy"), table)
    frame = pd.DataFrame(table, columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "x.csv", index=False, header=header)
    np.testing.assert_allclose(read_table(tmp_path / "x.csv"), table, rtol=1e-12)
    frame.to_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(read_table(tmp_path / "x.parquet"), table)
    frame.to_csv(tmp_path / "excel.csv", index=False, header=header, encoding="utf-8-sig", quoting=csv.QUOTE_ALL)
    np.testing.assert_allclose(read_table(tmp_path / "excel.csv"), table, rtol=1e-12)
    np.save(tmp_path / "f.npy", table.astype(np.float32))
    assert read_table(tmp_path / "f.npy").dtype == np.float32


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.txt", "1,2\n", "ends with one of"),
        ("x.csv", "a,b\n1,red\n2,blue\n", "row 0, column 'b': 'red' is not a number"),
        ("x.csv", "a,b\n1,2\n3,x\n", "row 1, column 'b': 'x' is not a number"),
        ("x.csv", "a,b\n1,2\n3,\n", "row 1, column 'b' is missing or infinite, as are 1 cells in all"),
        ("x.csv", "1,,3\n4,5,6\n", "row 0, column 1 is missing or infinite, as are 1 cells in all"),
        ("x.csv", "1,#N/A\n4,inf\n", "row 0, column 1 is missing or infinite, as are 2 cells in all"),
        ("x.csv", "a\n1\n\n3\n", "row 1, column 'a' is missing or infinite"),
        ("x.csv", "a;b\n1;2\n", "row 0, column 'a;b': '1;2' is not a number"),
        ("x.csv", "1,5;2,5\n3,5;4,5\n", "row 0, column '5;2': '5;4' is not a number"),
        ("x.csv", ",a,b\n0,5,6\n1,7,8\n", r"expected a name for each column, got the header \['', 'a', 'b'\]"),
        ("x.csv", "a,b\n1,2,3\n4,5,6\n", "x.csv'.*Length of header .* does not match"),
        ("x.csv", "a,b\n1,2\n4,5,6\n", "x.csv'.*Expected 2 fields in line 3, saw 3$"),
        ("x.csv", "a,b,c\n1,2\n", "row 0, column 'c' is missing or infinite"),
        ("x.csv", "1,2\n3,4,5\n", "x.csv'.*Expected 2 fields in line 2, saw 3$"),
        ("x.csv", "a,b\n", r"expected a table of real numbers, got \(0, 2\)"),
        ("x.csv", "", "x.csv'.*No columns"),
    ],
)
def test_rejects_tables(tmp_path, name, content, message):
    """Fails if a file that is not a table of numbers is read, or the message does not say where it is not."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "table", "first"),
    [
        ("0,1\n2,3\n4,5\n", [[0, 1], [2, 3], [4, 5]], "a sample: 0, 1"),
        ("2019,2020\n2,3\n", [[2019, 2020], [2, 3]], "a sample: 2019, 2020"),
        ('"0","1"\n"2","3"\n', [[0, 1], [2, 3]], "a sample: 0, 1"),
        ("2019,b\n2,3\n", [[2, 3]], "a header: 2019, b"),
        ('"a, b","c\nd"\n2,3\n', [[2, 3]], "a header: a, b, c d"),
        ("a\n1\n2\n", [[1], [2]], "a header: a"),
        ("7\n1\n2\n", [[7], [1], [2]], "a sample: 7"),
        ("a,a\n1,2\n", [[1, 2]], "a header: a, a"),
        ("\ufeffa,b\n1,2\n", [[1, 2]], "a header: a, b"),
        ("\ufeff1,2\r\n3,4e-1\r\n", [[1, 2], [3, 0.4]], "a sample: 1, 2"),
    ],
)
def test_a_first_line_of_numbers_is_a_sample(tmp_path, caplog, content, table, first):
    """Fails if a first line is lost or taken for data, or if the log does not say in one line what it was."""
    (tmp_path / "x.csv").write_text(content, newline="")
    with caplog.at_level("INFO"):
        assert read_table(tmp_path / "x.csv").tolist() == table
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'x.csv'}: the first line is {first}"]


def test_rejects_arrays_that_are_no_tables(tmp_path):
    """Fails if an array of another shape is taken, or a file of pickled objects is opened."""
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"expected a table of real numbers, got \(2, 2, 2\)"):
        read_table(tmp_path / "x.npy")
    np.save(tmp_path / "n.npy", np.array([[0.0, 1.0], [2.0, np.nan]]))
    with pytest.raises(ValueError, match="row 1, column 1 is missing or infinite"):
        read_table(tmp_path / "n.npy")
    np.save(tmp_path / "o.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_table(tmp_path / "o.npy")


@pytest.mark.parametrize("active", [0.5, 1.0, 2.5])
def test_activity_is_met(planes, active):
    """Fails if samples use another number of groups at the penalty found."""
    X, truth = planes
    alpha = alpha_for_activity(X, truth.T.numpy(), 2, active)
    model = GroupSparseClustering(4, n_groups=4, group_size=2, alpha=alpha, random_state=0)
    model.fit(X)
    model.components_ = truth.T.numpy()
    found = (model.transform(X) > 0).sum(axis=1).mean()
    assert found == pytest.approx(active, rel=0.06)


def test_rejects_an_activity_out_of_reach(planes):
    """Fails if more groups than there are can be asked for, or the search goes on for ever."""
    X, truth = planes
    with pytest.raises(ValueError, match=r"active=5"):
        alpha_for_activity(X, truth.T.numpy(), 2, 5)
    with pytest.raises(ValueError, match=r"active=1.0: not reached"):
        alpha_for_activity(np.zeros_like(X), truth.T.numpy(), 2, 1.0)


def test_the_true_number_of_clusters_is_the_most_stable(planes):
    """Fails if halves agree better on another number than the four planes there are."""
    X, _ = planes
    model = GroupSparseClustering(n_groups=20, group_size=2, alpha=0.5, n_init=3, random_state=0)
    found = cluster_stability(X, model, [2, 3, 4, 6, 8], n_repeats=3)
    assert found.shape == (3, 5) and found.mean(axis=0).argmax() == 2 and found[:, 2].mean() > 0.9


def test_candidates_are_split_alike(planes):
    """Fails if a `RandomState` draws other halves for the second candidate than for the first."""
    X, _ = planes
    model = GroupSparseClustering(n_groups=8, group_size=2, alpha=0.5, random_state=0)
    found = choose_most_stable(X, [model, model], [3, 4], n_repeats=2, random_state=np.random.RandomState(1))
    np.testing.assert_array_equal(*found.agreement)


def test_stability_needs_a_count(planes):
    """Fails if an empty list gives an empty answer, or the dictionary may depend on the order of the counts."""
    with pytest.raises(ValueError, match=r"counts=\[\]"):
        cluster_stability(planes[0], GroupSparseClustering(n_groups=4, group_size=2), [])
    with pytest.raises(ValueError, match="n_groups='auto'"):
        cluster_stability(planes[0], GroupSparseClustering(), [2])


def test_the_smaller_of_equally_stable_candidates_is_chosen(planes, monkeypatch):
    """Fails if a tie within a standard error is not one, a group size "auto" has no number of atoms, or if a number of
    clusters comes from another candidate.
    """
    X, _ = planes
    table = {  # n_groups: agreement of 2 repeats for 2 counts
        8: [[0.50, 0.60], [0.60, 0.50]],
        12: [[0.90, 0.20], [0.82, 0.40]],
        20: [[0.10, 0.95], [0.20, 0.85]],
    }
    monkeypatch.setattr(selection, "cluster_stability", lambda X, model, *_, **__: np.array(table[model.n_groups]))
    sizes = ((20, "auto"), (8, 2), (12, 2))
    candidates = [GroupSparseClustering(n_groups=groups, group_size=size, alpha=0.5) for groups, size in sizes]
    found = choose_most_stable(X, candidates, [3, 5], n_repeats=2)
    assert (found.index, found.column) == (2, 0)  # 0.86 is within 0.05 of 0.90, 0.55 is not
    assert found.model.get_params() == candidates[2].set_params(n_clusters=3).get_params()
    assert found.agreement.shape == (3, 2, 2)


def test_a_choice_needs_candidates_and_repeats(planes):
    """Fails if a standard error of a single repeat, which is not a number, decides."""
    with pytest.raises(ValueError, match=r"candidates=\[\]"):
        choose_most_stable(planes[0], [], [2])
    with pytest.raises(ValueError, match="n_repeats=1"):
        choose_most_stable(planes[0], [GroupSparseClustering(n_groups=4, group_size=2)], [2], n_repeats=1)
