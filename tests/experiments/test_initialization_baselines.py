"""Baselines at equal time: each can work, keeps to its budget, and is measured as the start is; oracles of parts."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.initialization import baselines as start_baselines
from experiments.initialization.baselines import (
    METHODS,
    Budget,
    Problem,
    draw_problem,
    measure,
    race,
    run_baseline,
)
from experiments.initialization.maps import StartSettings, run_start
from experiments.recovery.block_pursuit import block_pursuit
from gsae_lib.dictionary import as_groups, orthonormalize_groups

GROUPS = StartSettings(80, 16, 2, 2, 800, 20.0)
ATOMS = StartSettings(80, 32, 1, 2, 800, 20.0)
STARTED = ("block K-SVD", "alternating minimisation", "decoder gradient", "network")
STARTED_ATOMS = (*STARTED, "scikit-learn", "SPAMS")
CASES = [(name, GROUPS) for name in STARTED] + [(name, ATOMS) for name in STARTED_ATOMS]
UNSTARTED = [
    ("pairs", StartSettings(60, 20, 2, 2, 1000, 20.0), 1),
    ("k-subspaces", dataclasses.replace(GROUPS, n_active=1), 120),
    ("block K-SVD from neighbors", dataclasses.replace(GROUPS, n_active=1), 150),
    ("pairwise initialisation", StartSettings(40, 16, 1, 2, 2000, 20.0), 1000),
    ("neighbors", StartSettings(40, 4, 2, 1, 1000, 40.0), 400),
]


def require(method: str) -> None:
    if method == "SPAMS":
        pytest.importorskip("spams")


@pytest.mark.parametrize("method, settings", CASES, ids=lambda x: x if isinstance(x, str) else f"d={x.group_size}")
def test_a_baseline_that_starts_near_the_truth_finds_it(method, settings):
    """Fails if a baseline cannot work: from over 15 degrees away it has to end within 15 of every true group."""
    require(method)
    problem, truth, rng = draw_problem(settings, seed=3)
    noise = torch.randn(truth.shape, generator=rng)
    start = orthonormalize_groups(truth, settings.group_size) + 0.4 * noise / torch.linalg.vector_norm(noise, dim=0)
    assert measure(start, truth, settings.group_size)["found"] == 0.0
    options = {"alternating minimisation": {"penalty": 0.5}, "network": {"learning_rate": 0.01, "batch_size": 100}}
    rounds = {"decoder gradient": 300, "network": 60, "SPAMS": 5}.get(method, 30)
    end = METHODS[method][0](problem, Budget(max_rounds=rounds), rng, start, **options.get(method, {}))
    found = measure(end, truth, settings.group_size)
    assert found == {"found": 1.0, "spanned": 1.0, "n_found": settings.n_groups, "n_wrong": 0}


@pytest.mark.parametrize("method, settings, rounds", UNSTARTED, ids=lambda x: x if isinstance(x, str) else None)
def test_a_baseline_that_takes_no_start_finds_the_truth_where_it_is_easy(method, settings, rounds):
    """Fails if a baseline cannot work: one active group for those that are made for it, many samples for others."""
    run = run_baseline(dataclasses.replace(settings, method=method), seed=0, max_rounds=rounds)
    assert run.spanned == 1.0 and run.n_found == settings.n_groups


@pytest.mark.parametrize("method", [name for name in METHODS if name != "pairs"])
def test_a_baseline_uses_its_budget(method, monkeypatch):
    """Fails if a baseline ends early, or goes on after its seconds, by a clock that goes on when it is looked at."""
    require(method)
    looks = itertools.count()
    monkeypatch.setattr(start_baselines, "time", SimpleNamespace(process_time=lambda: 0.02 * next(looks)))
    settings = dataclasses.replace(ATOMS, n_active=3, method=method)
    run = run_baseline(settings, seed=0, seconds=0.1)
    assert 0.1 <= run.seconds < 0.6 and run.rounds >= 1 and run.budget_seconds == 0.1


@pytest.mark.parametrize("method", [name for name in METHODS if name != "pairwise initialisation"])
def test_rounds_and_seed_are_a_run(method):
    """Fails if a run depends on the clock, or on what ran before."""
    require(method)
    settings = dataclasses.replace(ATOMS, method=method)
    first, again = (run_baseline(settings, seed=5, max_rounds=3) for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(again, seconds=0.0)
    assert first.rounds == (1 if method == "pairs" else 3)


def test_pairs_is_the_start_that_the_maps_measure():
    """Fails if data, generator or measure differ from `experiments.initialization.maps`."""
    noisy = dataclasses.replace(GROUPS, n_samples=500, snr_db=0.0)
    run, one = run_baseline(noisy, seed=7), run_start(noisy, seed=7)
    assert 0 < run.spanned < 1 and run.n_wrong > 0
    assert (run.found, run.spanned, run.n_found, run.n_wrong) == (one.found, one.spanned, one.n_found, one.wrong)


def test_measure_counts_what_is_wrong_and_leaves_out_what_is_nothing():
    """Fails if a zero group is a direction, a wrong one is not counted, or shares are of learned groups."""
    truth = torch.eye(8)[:, :4]
    learned = torch.cat([2 * truth[:, :2], torch.eye(8)[:, 6:], torch.zeros(8, 2)], dim=1)
    assert measure(learned, truth, 2) == {"found": 0.5, "spanned": 0.5, "n_found": 2, "n_wrong": 1}
    assert measure(torch.zeros(8, 4), truth, 2) == {"found": 0.0, "spanned": 0.0, "n_found": 0, "n_wrong": 0}


def test_block_pursuit_is_a_greedy_least_squares(rng):
    """Fails if a step takes another group than the most correlated one, or codes are not the best on the support."""
    groups = as_groups(orthonormalize_groups(torch.randn(12, 10, generator=rng), 2), 2)
    data = torch.randn(6, 12, generator=rng)
    support, codes = block_pursuit(data, groups, 3)
    for y, chosen, code in zip(data.numpy(), support.tolist(), codes.numpy(), strict=True):
        residual, expected = y, []
        for _ in range(3):
            strength = np.linalg.norm(residual @ groups.numpy(), axis=1)
            strength[expected] = -1
            expected.append(int(strength.argmax()))
            atoms = np.concatenate([groups[g].numpy() for g in expected], axis=1)
            values = np.linalg.lstsq(atoms, y, rcond=None)[0]
            residual = y - atoms @ values
        assert chosen == expected
        np.testing.assert_allclose(code.ravel(), values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_samples", [9, 30])
def test_ksvd_with_one_group_is_a_truncated_svd(n_samples, rng):
    """Fails if the update is not the best approximation of rank d, with fewer or more samples than features."""
    data = torch.randn(n_samples, 12, generator=rng)
    groups = as_groups(orthonormalize_groups(torch.randn(12, 3, generator=rng), 3), 3).contiguous()
    left = start_baselines._ksvd_pass(data, groups, 1)
    _, values, vh = np.linalg.svd(data.numpy(), full_matrices=False)
    assert left == pytest.approx(np.square(values[3:]).sum() / n_samples, rel=1e-4)
    np.testing.assert_allclose(groups[0] @ groups[0].T, vh[:3].T @ vh[:3], rtol=0, atol=1e-3)


def test_an_unused_group_restarts_on_the_samples_fitted_worst(rng):
    """Fails if a group without samples stays where it is."""
    basis = torch.eye(6)
    data = torch.cat([basis[:, :2].T.repeat(10, 1), 0.5 * basis[:, 3:4].T, 0.5 * basis[:, 4:5].T])
    groups = torch.stack([basis[:, :2], basis[:, :2], basis[:, [0, 2]]])
    start_baselines._ksvd_pass(data, groups, 1)
    spans = groups @ groups.mT
    assert any(torch.allclose(span, torch.diag(basis[3] + basis[4]), atol=1e-5) for span in spans)


def test_decoder_gradient_is_that_of_the_decoder_alone(rng):
    """Fails if its first Adam step is not against the sign of the gradient at fixed codes, by differentiation."""
    data, atoms = torch.randn(20, 6, generator=rng), torch.eye(6)[:, :4]
    problem = Problem(data, 4, 1, 4)
    moved = start_baselines.decoder_gradient(
        problem, Budget(max_rounds=1), rng, atoms, learning_rate=1e-3, batch_size=20, directions=False
    )
    weight = atoms.clone().requires_grad_()
    (0.5 * (data - (data @ atoms) @ weight.T).square().sum(dim=1).mean()).backward()
    expected = atoms - 1e-3 * weight.grad.sign()
    torch.testing.assert_close(moved, expected / expected.norm(dim=0), rtol=0, atol=1e-5)


def test_a_race_gives_a_baseline_the_time_of_pairs(monkeypatch):
    """Fails if the budget is not that of "pairs" on the same data, a first call is in it, or threads stay changed."""
    tiny = StartSettings(30, 5, 2, 1, 100, 20.0, method="neighbors")
    calls, runs, real, threads = [], [], start_baselines.run_baseline, torch.get_num_threads()

    def watched(settings, **limits):
        assert torch.get_num_threads() == 1
        calls.append((settings.method, settings.n_features, limits["seed"]))
        runs.append(real(settings, **limits))
        return runs[-1]

    monkeypatch.setattr(start_baselines, "run_baseline", watched)
    start_baselines._warm_up.cache_clear()
    run = race(tiny, 2, seed=3)
    assert calls == [("pairs", 20, 0), ("neighbors", 20, 0), ("pairs", 30, 3), ("neighbors", 30, 3)]
    assert run.budget_seconds == 2 * runs[2].seconds <= run.seconds
    race(dataclasses.replace(tiny, method="pairs"), 0, seed=4)
    assert calls[4:] == [("pairs", 30, 4)] and runs[4].budget_seconds == 0
    assert race(tiny, 0, seed=3, max_rounds=2).rounds == 2 and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "method, settings, limits, message",
    [
        ("magic", GROUPS, {"max_rounds": 1}, "method='magic'"),
        ("SPAMS", GROUPS, {"max_rounds": 1}, "group_size=2: expected 1 for method='SPAMS'"),
        ("neighbors", GROUPS, {}, "seconds=inf"),
        ("neighbors", GROUPS, {"seconds": 0.0}, "seconds=0.0"),
        ("neighbors", GROUPS, {"max_rounds": 0}, "max_rounds=0"),
    ],
)
def test_run_baseline_rejects(method, settings, limits, message):
    """Fails if what cannot run, or would not end, is not named."""
    with pytest.raises(ValueError, match=message):
        run_baseline(dataclasses.replace(settings, method=method), seed=0, **limits)
