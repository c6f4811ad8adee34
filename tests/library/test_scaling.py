"""Scalings: those of scikit-learn, chosen from the columns, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from gsae_lib import _checks
from gsae_lib.estimators.scaling import choose_scaling, fit_scaling


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8])
@pytest.mark.parametrize("method", ["unit norm", "standardize", "none"])
def test_scaling_is_that_of_scikit_learn(tmp_path, monkeypatch, dtype, method):
    """Fails if blocks of rows give another scaling, constant columns or zero rows are divided by 0, or a map is not."""
    monkeypatch.setattr(_checks, "BLOCK_ENTRIES", 12)
    table = np.random.default_rng(0).normal(1000, 3, size=(50, 4)).clip(-120, 120 if dtype == np.int8 else 1e9)
    table[:, 2] = 0.1 if dtype != np.int8 else 7
    table = table.astype(dtype)
    np.save(tmp_path / "x.npy", table)
    steps = {"unit norm": [StandardScaler(with_std=False), Normalizer()], "standardize": [StandardScaler()], "none": []}
    expected = make_pipeline(*steps[method], "passthrough").fit_transform(table.astype(np.float64))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found, other = (fit_scaling(x, method)(x) for x in (table, mapped))
    np.testing.assert_allclose(found, expected, rtol=2e-5 if dtype == np.float32 else 1e-9, atol=1e-6)
    np.testing.assert_array_equal(found, other)
    assert found.dtype == (np.float32 if dtype == np.float32 else np.float64)
    zeros = np.zeros((3, 2))
    np.testing.assert_array_equal(fit_scaling(zeros, method)(zeros), zeros)


def test_scalings_of_known_kinds():
    """Fails if different units, curves, an embedding or like quantities are taken for one another."""
    rng = np.random.default_rng(0)
    units = rng.normal(size=(200, 5)) * [1, 1, 1, 1, 1000]
    curves = np.cumsum(rng.normal(size=(200, 40)), axis=1)
    embedding = rng.normal(size=(2000, 300)) / np.arange(1, 301) ** 2  # ever narrower, and steeply
    alike = rng.uniform(size=(200, 20))
    wanted = {"standardize": units, "unit norm": curves, "none": embedding}
    for method, table in (*wanted.items(), ("none", alike)):
        found = choose_scaling(table)
        assert found.method == method and found.reason, method
    assert choose_scaling(curves[:, rng.permutation(40)]).method == "none"  # the order of columns is what tells


def test_tables_of_every_kind_have_a_scaling():
    """Fails if what is a table for every estimator is none here."""
    X = np.random.default_rng(0).normal(size=(60, 4))
    for table in (X.tolist(), pd.DataFrame(X), np.ma.masked_invalid(X), torch.from_numpy(X).requires_grad_()):
        assert choose_scaling(table).method == "none"
        np.testing.assert_array_equal(fit_scaling(table, "standardize").mean, fit_scaling(X, "standardize").mean)


@pytest.mark.parametrize(
    "table",
    [[["a", "b"]] * 9, np.ma.masked_less(np.eye(9), 0.5), csr_array(np.eye(9)), [1.0, 2.0], 3.0, np.eye(9) * 1j],
)
def test_what_is_no_table_is_refused_in_a_line(table):
    """Fails if missing entries are taken for numbers, or another library speaks."""
    for function in (choose_scaling, lambda table: fit_scaling(table, "none")):
        with pytest.raises(ValueError, match=r"^table: [^\n]*$"):
            function(table)
