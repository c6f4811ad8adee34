"""Energy that leaks: rates and angles against eigenspaces and against the network's own descent."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from true_groups import gaussian, orthogonal

from gsae_lib.dictionary import as_groups
from gsae_lib.generative import coherent_dictionary, orthonormal_groups_dictionary
from gsae_lib.metrics import principal_angles
from gsae_lib.theory import Population, riemannian_step
from gsae_lib.theory.gradient import sample_gradient
from gsae_lib.theory.leakage import leak_bound, leak_span, leak_tangent

DOUBLE = torch.float64


def leaking(truth, d, norm, leak, n_samples, rng):
    """One active group of a given norm, the others Gaussian with standard deviation `leak`."""
    groups = truth.shape[1] // d
    codes = leak * gaussian(rng, n_samples, groups, d)
    active = torch.randint(groups, (n_samples,), generator=rng)
    own = gaussian(rng, n_samples, d)
    codes[torch.arange(n_samples), active] = norm * own / own.norm(dim=1, keepdim=True)
    return codes.flatten(1) @ truth.T, active


@pytest.mark.parametrize("leak", [0.0, 0.5, 3.5])
def test_rates_of_the_flow(leak, rng):
    """Fails if a small motion does not decay at p sigma^2 outside all spans, p (sigma^2 - nu^2) into another one."""
    truth = orthogonal(9, 3, 2, rng)
    groups = as_groups(truth, 2)
    second = 8.0 * groups[0] @ groups[0].T + leak**2 * (groups[1] @ groups[1].T + groups[2] @ groups[2].T)
    outside = torch.linalg.svd(truth, full_matrices=True).U[:, 6:8]
    for direction, rate in ((outside, 8 / 3), (groups[1], (8 - leak**2) / 3)):
        moved = torch.linalg.qr(groups[0] + 1e-6 * direction).Q
        flow = (torch.eye(9, dtype=DOUBLE) - moved @ moved.T) @ second @ moved / 3
        back = -(direction.T @ flow).trace() / (direction.T @ moved).trace()
        assert back.item() == pytest.approx(rate, rel=1e-6)


@given(seed=st.integers(0, 2**31), leak=st.floats(0.0, 2.5), coherence=st.floats(0, 0.3))
@settings(max_examples=40, deadline=None)
def test_property_leak_bound(seed, leak, coherence):
    """Fails if a group's leading span lies farther from the truth than the bound; random and evenly coherent truths."""
    rng = torch.Generator().manual_seed(seed)
    truth = orthonormal_groups_dictionary(20, 8, 2, generator=rng, dtype=DOUBLE)
    if seed % 2:
        truth = coherent_dictionary(20, 8, 2, coherence / 2, generator=rng, dtype=DOUBLE)
    bounds = leak_bound(truth, 2, 8.0, leak)
    for g, own in enumerate(as_groups(truth, 2)):
        tangent = principal_angles(leak_span(truth, g, 2, 8.0, leak), own, 2).max().tan().item()
        assert tangent <= bounds[g].item() + 1e-9


def test_leak_bound_is_attained_by_two_lines():
    """Fails if the bound is of another angle: in the plane two atoms leave it no room."""
    atoms = torch.tensor([[1.0, 0.6], [0.0, 0.8]], dtype=DOUBLE)
    for g, own in enumerate(as_groups(atoms, 1)):
        tangent = principal_angles(leak_span(atoms, g, 1, 8.0, 1.5), own, 1).tan().item()
        assert tangent == pytest.approx(leak_bound(atoms, 1, 8.0, 1.5)[g].item(), rel=1e-9)


def test_orthogonal_truth_has_no_bias(rng):
    """Fails if with an orthogonal truth the bound or the leading span is off the truth, up to nu = sigma."""
    truth = orthogonal(20, 6, 2, rng)
    for leak in (0.3, 2.8):
        np.testing.assert_allclose(leak_bound(truth, 2, 8.0, leak), 0, atol=1e-9)
        assert principal_angles(leak_span(truth, 1, 2, 8.0, leak), truth[:, 2:4], 2).max() < 1e-6
    assert principal_angles(leak_span(truth, 1, 2, 8.0, 2.9), truth[:, 2:4], 2).max() > 1.5


@pytest.mark.parametrize("share, within", [(0.01, 0.03), (0.1, 0.03), (0.2, 0.04)])
def test_leak_tangent_predicts_random_truths(share, within, rng):
    """Fails if the first-order angle is not that of the leading spans of random truths, m = n, to a few percent."""
    population = Population(300, 100, 3, 1, (4.0, 5.0))
    leak = math.sqrt(share * population.sigma2)
    truth = orthonormal_groups_dictionary(300, 100, 3, generator=rng, dtype=DOUBLE)
    spans = torch.cat([leak_span(truth, g, 3, population.sigma2, leak) for g in range(20)], dim=1)
    tangents = principal_angles(spans, truth[:, :60], 3).tan()
    assert tangents.square().mean().sqrt().item() == pytest.approx(leak_tangent(population, leak), rel=within)


def test_the_network_rests_where_the_leading_spans_are(rng):
    """Fails if descent of the network itself does not come to the predicted angle: random truth, finite data."""
    d, leak, count = 2, 0.6, 12
    truth = orthonormal_groups_dictionary(160, count, d, generator=rng, dtype=DOUBLE)
    data, active = leaking(truth, d, 5.0, leak, 6_000, rng)
    w = truth
    for _ in range(60):
        w = riemannian_step(w, sample_gradient(data, w, 3.9, d), 0.6, d)
    seconds = [data[active == g].T @ data[active == g] for g in range(count)]
    exact = torch.cat([torch.linalg.eigh(second).eigenvectors[:, -d:] for second in seconds], dim=1)
    assert principal_angles(w, exact, d).max() < 2e-3
    infinite = torch.cat([leak_span(truth, g, d, 12.5, leak) for g in range(count)], dim=1)
    bias = principal_angles(infinite, truth, d).tan().square().mean().sqrt().item()
    assert bias == pytest.approx(leak_tangent(Population(160, count, d, 1, (5.0, 5.0)), leak), rel=0.15)
    measured = principal_angles(w, truth, d).tan().square().mean().item()
    sampling = principal_angles(exact, infinite, d).tan().square().mean().item()
    assert measured == pytest.approx(bias**2 + sampling, rel=0.1)
    assert measured**0.5 == pytest.approx(leak_tangent(Population(160, count, d, 1, (5.0, 5.0)), leak, 6000), rel=0.08)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: leak_tangent(Population(9, 3, 2, 2), 0.1), "n_active"),
        (lambda: leak_tangent(Population(9, 3, 2, 1), -0.1), "leak=-0.1"),
        (lambda: leak_tangent(Population(9, 3, 2, 1, (4.0, 4.0)), 3.0), "leak=3.0"),
        (lambda: leak_tangent(Population(9, 3, 2, 1), 0.1, 0), "n_samples=0"),
        (lambda: leak_span(torch.eye(4), 2, 2, 8.0, 0.1), "group=2"),
        (lambda: leak_bound(torch.eye(4), 2, 0.0, 0.1), "sigma2=0.0"),
    ],
)
def test_leakage_rejects(call, message):
    """Fails if bad input is not named."""
    with pytest.raises(ValueError, match=message):
        call()
