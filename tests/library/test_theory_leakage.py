"""Energy that leaks: the bound and the angle of random truths against eigenspaces and the network's own descent."""

import math

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
from gsae_lib.theory.leakage import leak_tangent

DOUBLE = torch.float64


def leak_span(truth, group, d, sigma2, leak):
    """Where the flow of one group rests: the leading span of (sigma^2 - nu^2) A_g A_g^T + nu^2 A A^T."""
    own = as_groups(truth, d)[group]
    moment = (sigma2 - leak**2) * own @ own.T + leak**2 * truth @ truth.T
    return torch.linalg.eigh(moment).eigenvectors[:, -d:]


def leak_bound(truth, group, d, sigma2, leak):
    """The theory page's bound on the largest tangent of a group at rest; infinite where there is none."""
    own = as_groups(truth, d)[group]
    sent = truth.T @ own
    rest = truth - own @ sent.T  # B B^T A
    gap = torch.linalg.eigvalsh(sent.T @ sent)[0] - torch.linalg.matrix_norm(rest, ord=2) ** 2
    gap = sigma2 - leak**2 + leak**2 * gap.item()
    twice = 2 * leak**2 * torch.linalg.matrix_norm(rest @ sent, ord=2).item()
    return math.tan(math.atan2(twice, gap) / 2) if gap > 0 else math.inf


@given(seed=st.integers(0, 2**31), leak=st.floats(0.0, 2.5), coherence=st.floats(0, 0.3))
@settings(max_examples=40, deadline=None)
def test_property_leak_bound(seed, leak, coherence):
    """Fails if a group's leading span lies farther from the truth than the bound; random and evenly coherent truths."""
    rng = torch.Generator().manual_seed(seed)
    truth = orthonormal_groups_dictionary(20, 8, 2, generator=rng, dtype=DOUBLE)
    if seed % 2:
        truth = coherent_dictionary(20, 8, 2, coherence / 2, generator=rng, dtype=DOUBLE)
    for g, own in enumerate(as_groups(truth, 2)):
        tangent = principal_angles(leak_span(truth, g, 2, 8.0, leak), own, 2).max().tan().item()
        assert tangent <= leak_bound(truth, g, 2, 8.0, leak) + 1e-9


def test_leak_bound_has_its_limits(rng):
    """Fails if two lines in a plane do not attain it, or an orthogonal truth has a bias, up to nu = sigma."""
    atoms = torch.tensor([[1.0, 0.6], [0.0, 0.8]], dtype=DOUBLE)
    tangent = principal_angles(leak_span(atoms, 0, 1, 8.0, 1.5), atoms[:, :1], 1).tan().item()
    assert tangent == pytest.approx(leak_bound(atoms, 0, 1, 8.0, 1.5), rel=1e-9)
    truth = orthogonal(20, 6, 2, rng)
    assert leak_bound(truth, 1, 2, 8.0, 2.8) == pytest.approx(0, abs=1e-9)
    for leak, rests in ((2.8, True), (2.9, False)):
        angle = principal_angles(leak_span(truth, 1, 2, 8.0, leak), truth[:, 2:4], 2).max()
        assert angle < 1e-6 if rests else angle > 1.5


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
    d, leak, groups, count = 2, 0.6, 12, 6_000
    truth = orthonormal_groups_dictionary(160, groups, d, generator=rng, dtype=DOUBLE)
    codes = leak * gaussian(rng, count, groups, d)
    active = torch.randint(groups, (count,), generator=rng)
    own = gaussian(rng, count, d)
    codes[torch.arange(count), active] = 5.0 * own / own.norm(dim=1, keepdim=True)
    data = codes.flatten(1) @ truth.T
    w = truth
    for _ in range(60):
        w = riemannian_step(w, sample_gradient(data, w, 3.9, d), 0.6, d)
    seconds = [data[active == g].T @ data[active == g] for g in range(groups)]
    exact = torch.cat([torch.linalg.eigh(second).eigenvectors[:, -d:] for second in seconds], dim=1)
    assert principal_angles(w, exact, d).max() < 2e-3
    infinite = torch.cat([leak_span(truth, g, d, 12.5, leak) for g in range(groups)], dim=1)
    bias = principal_angles(infinite, truth, d).tan().square().mean().sqrt().item()
    population = Population(160, groups, d, 1, (5.0, 5.0))
    assert bias == pytest.approx(leak_tangent(population, leak), rel=0.15)
    measured = principal_angles(w, truth, d).tan().square().mean().item()
    sampling = principal_angles(exact, infinite, d).tan().square().mean().item()
    assert measured == pytest.approx(bias**2 + sampling, rel=0.1)
    assert measured**0.5 == pytest.approx(leak_tangent(population, leak, count), rel=0.08)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: leak_tangent(Population(9, 3, 2, 2), 0.1), "n_active"),
        (lambda: leak_tangent(Population(9, 3, 2, 1), -0.1), "leak=-0.1"),
        (lambda: leak_tangent(Population(9, 3, 2, 1, (4.0, 4.0)), 3.0), "leak=3.0"),
        (lambda: leak_tangent(Population(9, 3, 2, 1), 0.1, 0), "n_samples=0"),
    ],
)
def test_leakage_rejects(call, message):
    """Fails if bad input is not named."""
    with pytest.raises(ValueError, match=message):
        call()
