"""The protocol of clustering without labels: which samples a run takes, its features, and what chooses the method."""

import numpy as np
import pandas as pd
import pytest

from experiments.baselines.label_free import (
    KEPT,
    OURS,
    agreement,
    chosen_method,
    draw_rows,
    measure,
    root_directions,
    summary,
)
from gsae_book.data.features import ScatteringFeatures, scattering_coefficients
from gsae_book.data.images import load_images


def test_runs_share_their_first_samples_and_differ_in_the_others():
    """Fails if seeds are compared on different samples, a sample is taken twice, or all seeds draw alike."""
    one, other, whole = (draw_rows(5000, count, seed=seed) for count, seed in ((1000, 0), (1000, 1), (5000, 0)))
    assert one[:KEPT].equal(other[:KEPT]) and one[:KEPT].equal(whole[:KEPT])
    assert not one[KEPT:].equal(other[KEPT:])
    assert len(set(one.tolist())) == 1000 and sorted(whole.tolist()) == list(range(5000))
    assert one.equal(whole[:1000])  # larger runs of a seed contain the smaller ones


@pytest.mark.parametrize(("n_samples", "method"), [(499, OURS[0]), (20_000, "EnSC"), (1000, "vote")])
def test_rejects_what_has_no_run(n_samples, method):
    """Fails if too few samples, more than a method takes, or another method start a process."""
    with pytest.raises(ValueError, match=r"n_samples=|method="):
        measure("mnist-5k", n_samples, method, seed=0)


def test_features_are_those_of_the_library(tmp_path):
    """Fails if the coefficients, kept once, lead to other features than the images do.

    Rounding turns directions of nearly equal variance into each other: only inner products, and directions whose
    variance is a tenth from that of their neighbours, are the same on every machine.
    """
    images = load_images("mnist-5k", "test")
    expected = ScatteringFeatures(root=True, cache=tmp_path).fit_transform(images)
    found = root_directions(scattering_coefficients(images, cache=tmp_path).numpy())
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-5)
    gaps = -np.diff(np.log(np.square(expected).mean(axis=0)))
    alone = np.flatnonzero((gaps[:-1] > 0.1) & (gaps[1:] > 0.1)) + 1
    assert len(alone) >= 5
    np.testing.assert_allclose(found[:, alone], expected[:, alone], atol=1e-3)  # entries are up to 0.5


def test_the_method_is_chosen_by_agreement_and_not_by_labels():
    """Fails if accuracy decides: here the method whose seeds agree has the worst accuracy."""
    rows = [
        {"dataset": dataset, "n_samples": n, "method": method, "seed": seed, "accuracy": accuracy, "partition": text}
        for dataset in ("mnist", "fashion-mnist")
        for n in (1000, 3000)
        for method, accuracy, texts in (
            (OURS[0], 0.9, ("0011", "0101")),
            (OURS[1], 0.1, ("0011", "1100") if n == 3000 else ("0011", "0101")),
            (OURS[2], 0.8, ("0011", "0111") if n == 3000 else ("0011", "1100")),
            ("k-means", 0.7, ("0011", "0011")),
        )
        for seed, text in enumerate(texts)
    ]
    table = pd.DataFrame(rows)
    assert chosen_method(table) == OURS[1]
    assert agreement(table)["mnist", 3000, OURS[1]] == 1
    assert np.isnan(agreement(table.query("seed == 0"))["mnist", 1000, OURS[0]])


def test_summary_is_of_the_largest_size_of_each_method():
    """Fails if a method that stops early is left out, sizes are mixed, or seconds miss a part."""
    costs = {"scattering_seconds": 3.0, "direction_seconds": 2.0, "seconds": 1.0, "peak_mib": 2048.0}
    rows = pd.DataFrame(
        {"dataset": "mnist", "n_samples": n, "method": method, "seed": seed, "accuracy": n / 1e5, "nmi": 0.5}
        | costs
        | {"partition": "0011"}
        for method, sizes in (("k-means", (1000, 70_000)), ("EnSC", (1000, 10_000)))
        for n in sizes
        for seed in range(2 if method == "k-means" else 1)
    )
    found = summary(rows).loc["mnist"]
    assert found.loc["k-means", ["images", "worst", "agree", "seconds", "GiB", "runs"]].tolist() == [
        70_000,
        0.7,
        1.0,
        6,
        2.0,
        2,
    ]
    assert found.loc["EnSC", ["images", "agree", "runs"]].tolist() == [10_000, "", 1]
