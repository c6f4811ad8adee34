"""Tests of experiments.sums.real_sums: what is added, who sees labels, readouts and scores by hand, and a small run."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.sums import real_sums
from experiments.sums.real_sums import (
    BASELINES,
    CODES,
    DATA,
    FROM_SUMS,
    METHODS,
    READOUTS,
    SAME_START,
    Pool,
    SumSettings,
    best_scores,
    draw_data,
    find_dictionary,
    is_clear,
    load_pool,
    mean_coherence,
    read_kinds,
    run_sums,
    score_kinds,
    shown,
)

TINY = SumSettings("digits", 2, n_train=150, n_test=40, n_labelled=4, groups_per_kind=2, group_size=2)


def planes(rng, n_kinds=4, n_features=64, count=60, noise_std=0.01):
    """A pool in which every kind is a plane of its own, orthogonal to the others."""
    bases = torch.linalg.qr(torch.randn(n_features, 2 * n_kinds, generator=rng)).Q.T.reshape(n_kinds, 2, n_features)
    labels = torch.arange(n_kinds).repeat_interleave(count)
    directions = torch.nn.functional.normalize(torch.randn(n_kinds, count, 2, generator=rng), dim=2)
    singles = torch.einsum("kcd,kdn->kcn", directions, bases).flatten(0, 1)
    return Pool(singles, labels, tuple("abcd"[:n_kinds]), (1.0, 1.0), noise_std)


def test_sums_are_sums_of_their_kinds(rng):
    """Fails if a sum holds a kind twice, or one that `present` does not name, or a norm outside of its range."""
    pool = Pool(torch.eye(5).repeat(40, 1), torch.arange(5).repeat(40), tuple("abcde"), (2.0, 8.0), 0.0)
    data = draw_data(pool, dataclasses.replace(TINY, n_present=3, n_test=500), generator=rng)
    assert torch.equal(data.test > 0, data.present) and (data.present.sum(dim=1) == 3).all()
    weights = data.test[data.present]
    assert 2 <= weights.min() < 2.2 and 7.5 < weights.max() <= 8 and weights.median() == pytest.approx(4, rel=0.1)
    assert data.present.double().mean(dim=0).numpy() == pytest.approx(0.6, abs=0.1)


def test_test_sums_share_no_single_with_the_rest(rng):
    """Fails if a single of the test sums is learned from or labelled."""
    pool = Pool(torch.eye(200), torch.arange(200) % 4, tuple("abcd"), (1.0, 1.0), 0.0)
    data = draw_data(pool, TINY, generator=rng)
    seen = data.train.sum(dim=0) + data.singles.sum(dim=0)
    assert not (seen * data.test.sum(dim=0)).any()
    assert len(data.singles) == 160 and torch.equal(data.labels[data.few].bincount(), torch.full((4,), 4))


def test_noise_has_the_pools_deviation(rng):
    """Fails if noise is left out of a part, or scaled with the sample."""
    pool = Pool(torch.eye(50, 400).repeat(8, 1), torch.arange(400) % 2, ("a", "b"), (6.0, 20.0), 0.5)
    data = draw_data(pool, dataclasses.replace(TINY, n_present=1), generator=rng)
    for rows in (data.train, data.test, data.singles):
        assert rows[:, 50:].std().item() == pytest.approx(0.5, rel=0.03)


def test_only_labelled_dictionaries_see_labels(rng):
    """Fails if a dictionary that is called unlabelled changes with the labels, or "all labels" does not."""
    pool = planes(rng)
    data = draw_data(pool, TINY, generator=rng)
    other = dataclasses.replace(
        data,
        labels=(data.labels + 1) % 4,
        present=data.present.roll(1, 0),
        train_present=data.train_present.roll(1, 0),
    )
    kept = torch.arange(50)
    for name in (*FROM_SUMS, "unlabelled singles", "all labels"):
        first, second = (
            find_dictionary(name, one, 4, TINY, kept, generator=torch.Generator().manual_seed(0))[0]
            for one in (data, other)
        )
        assert torch.equal(first, second) == (name != "all labels"), name


def test_single_atoms_start_where_groups_do(rng, monkeypatch):
    """Fails if the two are not learned from one start, or the atoms are learned or read as groups."""
    pool, learned = planes(rng), []

    def learn(data, start, penalty, group_size, **settings):
        learned.append((start, group_size))
        return alternating_minimization(data, start, penalty, group_size, **settings)

    alternating_minimization = real_sums.alternating_minimization
    monkeypatch.setattr(real_sums, "alternating_minimization", learn)
    data = draw_data(pool, TINY, generator=rng)
    sizes = [
        find_dictionary(name, data, 4, TINY, torch.arange(50), generator=torch.Generator().manual_seed(0))[1]
        for name in ("solver", SAME_START)
    ]
    assert sizes == [2, 1] == [size for _, size in learned]
    assert torch.equal(learned[0][0], learned[1][0])


def test_readouts_by_hand():
    """Fails if energies are not shared out as said: two kinds, three groups."""
    singles = torch.tensor([[2.0, 0, 0], [3.0, 0, 0], [0, 1.0, 1.0], [0, 5.0, 5.0]])
    sums = torch.tensor([[1.0, 1.0, 1.0], [0, 0, 2.0]])
    found = read_kinds(singles, torch.tensor([0, 0, 1, 1]), sums, 2)
    np.testing.assert_allclose(found["names"].square(), [[1 / 3, 2 / 3], [0, 1]])
    # The third sum of squares: w (0, 1/2, 1/2) is nearest to (0, 0, 1) at w = 1.
    np.testing.assert_allclose(found["profiles"].square(), [[1 / 3, 2 / 3], [0, 1]], atol=1e-12)
    mixed = read_kinds(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 1]), torch.tensor([[1.0, 1.0]]), 2)
    np.testing.assert_allclose(mixed["profiles"].square(), [[0.5, 0.5]])
    np.testing.assert_allclose(found["amplitudes"], [[1 / 3, 2 / 3], [0, 1]], atol=1e-12)
    uneven = read_kinds(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), torch.tensor([[3.0, 1.0]]), 2)
    np.testing.assert_allclose(uneven["amplitudes"], [[0.75, 0.25]])
    np.testing.assert_allclose(uneven["profiles"].square(), [[0.9, 0.1]])


def test_scores_by_hand():
    """Fails if what is told (how many) is used by precision, or a zero row is called present."""
    norms = torch.tensor([[4.0, 3.0, 1.0], [4.0, 1.0, 1.5], [0.0, 0.0, 0.0]])
    present = torch.tensor([[True, True, False], [True, True, False], [False, True, True]])
    share, exact, precision, recall = score_kinds(norms, present)
    assert (share, exact) == (pytest.approx((2 + 1 + 1) / 6), pytest.approx(1 / 3))
    assert (precision, recall) == (1.0, 0.5)


def test_coherence_of_known_dictionaries():
    """Fails if coherence is another quantity: orthonormal, and all alike."""
    assert mean_coherence(torch.eye(12)[:, :8], 2) == pytest.approx(0)
    assert mean_coherence(torch.eye(12)[:, :2].repeat(1, 3), 2) == pytest.approx(1)


def test_orthogonal_kinds_are_told_apart(rng):
    """Fails if a code or readout cannot untangle what has no overlap, or a run leaves out a method."""
    pool = planes(rng)
    for method in METHODS:
        runs = run_sums(TINY, method, seed=0, pool=pool)
        codes = ("own",) if method in BASELINES else CODES
        readouts = ("none",) if method == "labelled sums" else READOUTS
        assert [(run.code, run.readout) for run in runs] == list(itertools.product(codes, readouts))
        assert all(math.isnan(run.coherence) == (method in BASELINES) for run in runs)
        for run in runs:
            if method in ("labelled singles", "all labels", "unlabelled singles") and run.readout == "profiles":
                assert run.share > 0.95, run


@pytest.mark.parametrize("name", DATA)
def test_pools_are_of_unit_norm(name):
    """Fails if a pool's file is missing, scaled, or lacks a kind."""
    pool = load_pool(name)
    np.testing.assert_allclose(torch.linalg.vector_norm(pool.singles, dim=1), 1, rtol=1e-5)
    assert pool.labels.bincount().min() >= 60 and len(pool.labels.unique()) == len(pool.kinds)


def test_more_kinds_than_there_are(rng):
    with pytest.raises(ValueError, match="n_present=5"):
        draw_data(planes(rng), dataclasses.replace(TINY, n_present=5), generator=rng)


def test_best_scores_by_hand():
    """Fails if seeds have codes or readouts of their own, another column chooses, or seeds come in another order."""
    exact = {("x", "names"): (0.9, 0.1, 0.1), ("y", "profiles"): (0.2, 0.5, 0.6), ("z", "names"): (1.0, 1.0, 1.0)}
    values = [("a", "d", *key, seed, exact[key][seed], 10 * seed) for key in exact for seed in (2, 0, 1)]
    values += [("b", "d", "x", "names", seed, 1.0, 6) for seed in range(3)]
    rows = pd.DataFrame(values, columns=("data", "method", "code", "readout", "seed", "exact", "recall"))
    np.testing.assert_array_equal(best_scores(rows, "a", "d", ["x", "y"]), [0.2, 0.5, 0.6])
    np.testing.assert_array_equal(best_scores(rows, "a", "d", ["x"]), [0.9, 0.1, 0.1])
    np.testing.assert_array_equal(best_scores(rows, "a", "d", ["x", "y"], "recall"), [0, 10, 20])
    assert is_clear(np.array([0.02, 0.021, 0.019])) and not is_clear(np.array([0.2, -0.1, 0.0]))
    assert not is_clear(np.array([0.009, 0.009, 0.009])) and shown(np.array([0.5, 0.7]), "+").split() == [
        "+0.600",
        "±",
        "0.141",
    ]
