"""The expected gradient: against automatic differentiation, a plain loop, and the theorems that are exact."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from true_groups import at_angles, gaussian

from gsae_lib import GroupSparseAutoencoder
from gsae_lib.dictionary import as_groups, from_groups, polar
from gsae_lib.generative import (
    GroupSparseSource,
    coherent_dictionary,
    gaussian_dictionary,
    orthonormal_groups_dictionary,
)
from gsae_lib.networks import shallow_gradient
from gsae_lib.theory import expected_gradient, gradient_alignment, horizontal, riemannian_step
from gsae_lib.theory.gradient import flow_correlation, printed_correlation, sample_gradient
from gsae_lib.theory.population import designed_sample

SEEDS = st.integers(0, 2**31)
DOUBLE = torch.float64


def frame(rng, n, d):
    """A uniformly random matrix with d orthonormal columns."""
    return torch.linalg.qr(gaussian(rng, n, d)).Q


def near(truth, size, d, rng):
    """Orthonormal groups near those of the truth."""
    return from_groups(polar(as_groups(truth + size * gaussian(rng, *truth.shape) / len(truth) ** 0.5, d)))


def proxy_by_loop(weight, data, penalty, d):
    """The proxy sample by sample and group by group, with the Jacobian tau I."""
    total = torch.zeros_like(weight)
    for y in data:
        responses = [block.T @ y for block in weight.split(d, dim=1)]
        taus = [max(1 - penalty / h.norm().item(), 0.0) for h in responses]
        residual = y - weight @ torch.cat([tau * h for tau, h in zip(taus, responses, strict=True)])
        for g, (tau, h) in enumerate(zip(taus, responses, strict=True)):
            own = slice(g * d, (g + 1) * d)
            total[:, own] -= tau * (torch.outer(residual, h) + torch.outer(y, weight[:, own].T @ residual))
    return total / len(data)


@given(
    seed=SEEDS,
    samples=st.integers(1, 12),
    features=st.integers(1, 10),
    groups=st.integers(1, 6),
    d=st.integers(1, 4),
    penalty=st.floats(1e-3, 10.0),
)
@settings(max_examples=40, deadline=None)
def test_property_sample_gradient(seed, samples, features, groups, d, penalty):
    """Fails on a wrong sign or a lost term: autograd, the structured gradient, and for the proxy a loop."""
    rng = torch.Generator().manual_seed(seed)
    weight, data = gaussian(rng, features, groups * d), gaussian(rng, samples, features)
    found = sample_gradient(data, weight, penalty, d)
    model = GroupSparseAutoencoder(features, groups, d, penalty, n_iterations=1, step_size=1.0, dictionary=weight)
    (0.5 * (data - model(data)[0]).square().sum(dim=1).mean()).backward()
    scale = 1e-11 * (1 + weight.norm() ** 3 * data.square().sum(dim=1).max()).item()
    assert (found - model.weight.grad).norm() <= scale
    assert (found - shallow_gradient(data, weight, penalty, d).gradient).norm() <= scale
    proxy = sample_gradient(data, weight, penalty, d, "proxy")
    assert (proxy - proxy_by_loop(weight, data, penalty, d)).norm() <= scale


def test_inactive_groups_have_no_gradient(rng):
    """Fails if a threshold above everything divides by zero, or a zero response gives nan."""
    weight, data = torch.zeros(5, 4, dtype=DOUBLE), gaussian(rng, 3, 5)
    for kind in ("exact", "proxy"):
        assert torch.equal(sample_gradient(data, gaussian(rng, 5, 4), 1e9, 2, kind), torch.zeros_like(weight))
        assert torch.equal(sample_gradient(data, weight, 1.0, 2, kind), weight)


# --- theorems that are exact ------------------------------------------------------------------------------------------


@given(seed=SEEDS, d=st.integers(1, 4), size=st.floats(0.0, 0.8), share=st.floats(0.02, 0.98))
@settings(max_examples=80, deadline=None)
def test_property_horizontal_gradient_theorem(seed, d, size, share):
    """Fails if lambda enters: one active group, orthonormal groups, any y: (I - WW^T) grad = -(I - WW^T) y y^T W.

    The proxy has the factor tau (2 - tau), and the radial parts are -(1 - tau^2) h h^T and -2 tau (1 - tau) h h^T.
    """
    rng = torch.Generator().manual_seed(seed)
    truth = coherent_dictionary(16, 4, d, 0.0, generator=rng, dtype=DOUBLE)
    weight = near(truth, size, d, rng)
    y = truth[:, :d] @ gaussian(rng, d) + 0.1 * gaussian(rng, 16)
    norms = torch.linalg.vector_norm((y @ weight).unflatten(0, (-1, d)), dim=1)
    active = norms.argmax().item()
    second = norms.sort(descending=True).values[1].item()
    for penalty in (second + share * (norms.max().item() - second), second * (1 + 1e-9)):
        block = weight[:, active * d : (active + 1) * d]
        h = block.T @ y
        tau = 1 - penalty / h.norm().item()
        across = -(torch.outer(y, h) - block @ torch.outer(h, h))
        for kind, factor, radial in (
            ("exact", 1.0, -(1 - tau**2)),
            ("proxy", tau * (2 - tau), -2 * tau * (1 - tau)),
        ):
            gradient = sample_gradient(y.unsqueeze(0), weight, penalty, d, kind)
            found = horizontal(weight, gradient, d)
            assert (found[:, active * d : (active + 1) * d] - factor * across).norm() < 1e-12 * y.norm() ** 2
            others = gradient.clone()
            others[:, active * d : (active + 1) * d] = 0
            assert torch.equal(others, torch.zeros_like(others))
            along = block.T @ gradient[:, active * d : (active + 1) * d]
            assert (along - radial * torch.outer(h, h)).norm() < 1e-12 * y.norm() ** 2


@given(seed=SEEDS, d=st.integers(1, 4), penalty=st.floats(0.01, 3.0), kind=st.sampled_from(["exact", "proxy"]))
@settings(max_examples=60, deadline=None)
def test_property_gradient_is_invariant_under_rotations(seed, d, penalty, kind):
    """Fails if the loss depends on the basis of a group: W_g^T grad_g is symmetric for every sample and any weight.

    And the gradient turns along with the weight.
    """
    rng = torch.Generator().manual_seed(seed)
    weight, y = gaussian(rng, 8, 3 * d), gaussian(rng, 1, 8)
    gradient = sample_gradient(y, weight, penalty, d, kind)
    products = as_groups(weight, d).mT @ as_groups(gradient, d)
    scale = 1e-12 * (1 + weight.norm().item() ** 4 * y.square().sum().item())
    if kind == "exact":
        assert (products - products.mT).norm() < scale
    rotation = torch.stack([frame(rng, d, d) for _ in range(3)])
    turned = from_groups(as_groups(weight, d) @ rotation)
    expected = from_groups(as_groups(gradient, d) @ rotation)
    assert (sample_gradient(y, turned, penalty, d, kind) - expected).norm() < scale


@given(seed=SEEDS, n=st.integers(4, 10), d=st.integers(1, 3), orthonormal=st.booleans())
@settings(max_examples=60, deadline=None)
def test_property_horizontal_is_a_projection(seed, n, d, orthonormal):
    """Fails if anything along the span stays or anything across is lost, for groups of any Gram matrix."""
    rng = torch.Generator().manual_seed(seed)
    weight, gradient = gaussian(rng, n, 2 * d), gaussian(rng, n, 2 * d)
    if orthonormal:
        weight = from_groups(polar(as_groups(weight, d)))
    found = horizontal(weight, gradient, d)
    for g in range(2):
        block, move = (x[:, g * d : (g + 1) * d] for x in (weight, gradient))
        expected = move - block @ torch.linalg.lstsq(block, move).solution
        torch.testing.assert_close(found[:, g * d : (g + 1) * d], expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(horizontal(weight, found, d), found, rtol=1e-9, atol=1e-11)


@given(seed=SEEDS, d=st.integers(1, 3), step=st.floats(0.0, 2.0))
@settings(max_examples=40, deadline=None)
def test_property_riemannian_step(seed, d, step):
    """Fails if the step leaves orthonormal groups, goes uphill, or its span depends on the retraction (QR here)."""
    rng = torch.Generator().manual_seed(seed)
    weight = orthonormal_groups_dictionary(8, 2, d, generator=rng, dtype=DOUBLE)
    gradient = gaussian(rng, 8, 2 * d)
    found = riemannian_step(weight, gradient, step, d)
    groups = as_groups(found, d)
    torch.testing.assert_close(groups.mT @ groups, torch.eye(d, dtype=DOUBLE).expand(2, d, d), rtol=0, atol=1e-12)
    for g in range(2):
        block, move = (x[:, g * d : (g + 1) * d] for x in (weight, gradient))
        q = torch.linalg.qr(block - step * (move - block @ (block.T @ move))).Q
        torch.testing.assert_close(q @ q.T, groups[g] @ groups[g].T, rtol=0, atol=1e-11)
    torch.testing.assert_close(riemannian_step(weight, gradient, 0.0, d), weight)
    tiny = (riemannian_step(weight, gradient, 1e-6, d) - weight) / 1e-6
    torch.testing.assert_close(tiny, -horizontal(weight, gradient, d), rtol=1e-4, atol=1e-4)


# --- Monte Carlo ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exact", "proxy"])
def test_expected_gradient_has_the_mean_of_the_designed_population(kind):
    """Fails if the mean is biased: at rho A* with equal norms the designed population is exact.

    96 entries, 100 batches: |z| < 6.5 fails by chance with probability 3e-7 (Student's t, 99 degrees of freedom).
    """
    rng = torch.Generator().manual_seed(17)
    truth = coherent_dictionary(12, 4, 2, 0.0, generator=rng, dtype=DOUBLE)
    weight, penalty = 1.1 * truth, 1.5
    source = GroupSparseSource(truth, 2, 2, norm_range=(3.0, 3.0))
    found = expected_gradient(source, weight, penalty, kind=kind, n_samples=20_050, n_batches=100, generator=rng)
    assert found.n_samples == 20_000
    expected = sample_gradient(designed_sample(truth, 2, 2, 3.0).data, weight, penalty, 2, kind)
    assert expected.norm() > 0.1  # not a stationary point
    z = (found.gradient - expected) / found.standard_error
    assert z.abs().max() < 6.5 and 0.4 < z.square().mean() < 2.0


def test_standard_error_is_the_spread_of_repetitions():
    """Fails if the error is off by the number of batches: 60 runs' own spread, as a ratio of variances within 40 %."""
    rng = torch.Generator().manual_seed(18)
    truth = gaussian_dictionary(8, 3, 2, generator=rng, dtype=DOUBLE)
    source = GroupSparseSource(truth, 2, 2, snr_db=5.0)
    settings = {"n_samples": 200, "n_batches": 5, "generator": rng}
    runs = [expected_gradient(source, truth, 2.0, **settings) for _ in range(60)]
    spread = torch.stack([run.gradient for run in runs]).var(dim=0).mean().item()
    stated = torch.stack([run.standard_error.square() for run in runs]).mean().item()
    assert stated == pytest.approx(spread, rel=0.4)


# --- correlation with the direction to the truth ----------------------------------------------------------------------


@given(seed=SEEDS, d=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_property_alignment_by_sums(seed, d):
    """Fails if groups mix, or the rotation is not the nearest: sums over groups with scipy's Procrustes, and turning.

    Rotating each group of the weight, with its gradient, changes nothing; nor does rotating the truth.
    """
    rng = torch.Generator().manual_seed(seed)
    weight, truth, gradient = (gaussian(rng, 6, 3 * d) for _ in range(3))
    found = gradient_alignment(weight, truth, gradient, d)
    inner = distance = 0.0
    for g in range(3):
        w, a, move = (x[:, g * d : (g + 1) * d].numpy() for x in (weight, truth, gradient))
        gap = w - a @ scipy.linalg.orthogonal_procrustes(a, w)[0]
        inner, distance = inner + np.sum(move * gap), distance + np.sum(gap**2)
    assert found.inner == pytest.approx(inner, abs=1e-9) and found.distance == pytest.approx(distance, abs=1e-9)
    assert found.gradient == pytest.approx(gradient.square().sum().item())
    turns = [torch.stack([frame(rng, d, d) for _ in range(3)]) for _ in range(2)]
    turned = [from_groups(as_groups(x, d) @ turns[k]) for x, k in ((weight, 0), (truth, 1), (gradient, 0))]
    again = gradient_alignment(*turned, d)
    for name in ("inner", "distance", "gradient"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), abs=1e-9)


def flow(weight, truth, kappa):
    """-kappa (I - WW^T) A A^T W: the exact horizontal gradient of one active group, isotropic."""
    move = truth @ (truth.T @ weight)
    return -kappa * (move - weight @ (weight.T @ move))


@given(
    seed=SEEDS,
    d=st.integers(1, 4),
    largest=st.floats(0.01, math.pi / 2 - 0.01),
    kappa=st.floats(0.1, 10.0),
    share=st.floats(0.0, 1.0),
)
@settings(max_examples=120, deadline=None)
def test_property_flow_correlation(seed, d, largest, kappa, share):
    """Fails if (alpha, beta) promise too much: random bases, principal angles anywhere up to theta_0."""
    rng = torch.Generator().manual_seed(seed)
    truth = frame(rng, 2 * d + 1, d)
    weight = at_angles(truth, d, largest * torch.rand(1, d, generator=rng, dtype=DOUBLE), rng)
    alpha, beta = flow_correlation(largest, kappa, share)
    assert alpha >= 0 and beta >= 0
    assert gradient_alignment(weight, truth, flow(weight, truth, kappa), d).excess(alpha, beta) >= -1e-12 * kappa


def test_flow_is_the_horizontal_gradient_of_designed_data(rng):
    """Fails if `flow` above is not the library's gradient: one active group, supports right, orthogonal truth."""
    truth = coherent_dictionary(14, 4, 3, 0.0, generator=rng, dtype=DOUBLE)
    weight = near(truth, 0.3, 3, rng)
    data = designed_sample(truth, 3, 1, 4.0).data
    found = horizontal(weight, sample_gradient(data, weight, 2.5, 3), 3)
    for w, a, g in zip(*(as_groups(x, 3) for x in (weight, truth, found)), strict=True):
        torch.testing.assert_close(g, flow(w, a, 16 / 3 / 4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("share, angle", [(0.0, 0.9), (0.0, 0.3), (0.5, 1e-3), (0.9, 1e-3), (1.0, 1e-3)])
def test_flow_correlation_is_attained(share, angle):
    """Fails if alpha or beta is 5 % off: at theta_0 itself for share 0, and as theta_0 -> 0 for every share.

    With alpha or beta 5 % larger the correlation is false, and 5 % smaller it has room.
    """
    rng = torch.Generator().manual_seed(1)
    truth = frame(rng, 5, 2)
    weight = at_angles(truth, 2, torch.full((1, 2), angle, dtype=DOUBLE), rng)
    found = gradient_alignment(weight, truth, flow(weight, truth, 2.0), 2)
    alpha, beta = flow_correlation(angle, 2.0, share)
    tolerance = 1e-9 if share == 0 else 2 * angle**2
    assert found.excess(alpha, beta) == pytest.approx(0.0, abs=tolerance * found.inner)
    for k, value in enumerate((alpha, beta)):
        if value:
            changed = [alpha, beta]
            changed[k] *= 1.05
            assert found.excess(*changed) < -0.02 * found.inner * min(share or 1, 1 - share or 1)
            changed[k] *= 0.95 / 1.05
            assert found.excess(*changed) > 0.02 * found.inner * min(share or 1, 1 - share or 1)


# --- the paper's (33) and (34) ----------------------------------------------------------------------------------------


@given(seed=SEEDS, d=st.integers(1, 4), tau=st.floats(0.05, 1.0), p=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_property_printed_identity(seed, d, tau, p):
    """Fails if (33) without its O-term is anything but a completed square: true for an arbitrary gradient."""
    rng = torch.Generator().manual_seed(seed)
    truth = frame(rng, 9, d)
    group = truth + 0.2 * gaussian(rng, 9, d)
    group = group / group.norm(dim=0)
    gradient = gaussian(rng, 9, d)
    if bool(((group * truth).sum(dim=0) > 0.1).all()):
        found = printed_correlation(group, truth, gradient, tau, p)
        scale = tau * (2 - tau) * p
        assert found.identity < 1e-12 * (1 + 1 / scale) * 50
        # v, and the bound on it, written out column by column.
        alphas = [torch.dot(group[:, i], truth[:, i]).item() for i in range(d)]
        v = [(gradient[:, i] - scale * alphas[i] * (group[:, i] - truth[:, i])).norm().item() for i in range(d)]
        gap = (group - truth).norm().item()
        assert found.left == pytest.approx(max(v))
        assert found.right == pytest.approx(scale * (max(alphas) * math.sqrt(d**2 + 1) + gap) * gap)
        assert found.holds == (found.left <= found.right)


@pytest.mark.parametrize("kind", ["exact", "proxy"])
def test_printed_bound_fails_at_the_truth(kind, rng):
    """Fails if the theory page's counter-example to (34) is none: at W = A* the bound is 0, the gradient radial.

    Proxy: -2 tau (1 - tau) kappa W, exact: -(1 - tau^2) kappa W. The horizontal gradient vanishes, and (34) holds.
    """
    truth = coherent_dictionary(11, 4, 2, 0.0, generator=rng, dtype=DOUBLE)
    norm, penalty = 2**0.5, 0.5  # E[x x^T] = I, as the paper assumes
    tau = 1 - penalty / norm
    gradient = sample_gradient(designed_sample(truth, 2, 1, norm).data, truth, penalty, 2, kind)
    factor = 2 * tau * (1 - tau) if kind == "proxy" else 1 - tau**2
    torch.testing.assert_close(gradient, -factor * 0.25 * truth, rtol=0, atol=1e-14)
    first = truth[:, :2]
    found = printed_correlation(first, first, gradient[:, :2], tau, 0.25)
    assert found.right == 0 and found.left == pytest.approx(factor * 0.25) and not found.holds
    zero = printed_correlation(first, first, torch.zeros_like(first), tau, 0.25)
    assert zero.left == 0 and zero.holds


def test_printed_bound_holds_for_the_horizontal_gradient_nearby(rng):
    """Fails if the repaired statement is false: (34) for the horizontal proxy gradient at a small angle."""
    truth = coherent_dictionary(11, 4, 2, 0.0, generator=rng, dtype=DOUBLE)
    weight = near(truth, 0.05, 2, rng)
    gradient = sample_gradient(designed_sample(truth, 2, 1, 2**0.5).data, weight, 0.5, 2, "proxy")
    tau = 1 - 0.5 / 2**0.5
    for g in range(4):
        w, a, full, across = (
            x[:, 2 * g : 2 * g + 2] for x in (weight, truth, gradient, horizontal(weight, gradient, 2))
        )
        assert printed_correlation(w, a, across, tau, 0.25).holds
        assert not printed_correlation(w, a, full, tau, 0.25).holds


# --- the paper's (30) to (32) -----------------------------------------------------------------------------------------


def test_white_codes_are_not_enough_for_a_radial_gradient():
    """Fails if the theory page's example is wrong: codes 4 e_1 and 5 e_2, white, turn the gradient off the radius."""
    codes = torch.tensor([[4.0, 0], [-4, 0], [0, 5], [0, -5]], dtype=DOUBLE)
    shares = torch.tensor([25, 25, 16, 16], dtype=DOUBLE) / 82
    torch.testing.assert_close((codes.T * shares) @ codes, 400 / 41 * torch.eye(2, dtype=DOUBLE))
    rho, penalty = 1.2, 2.0
    weight, data = rho * torch.eye(3, 2, dtype=DOUBLE), torch.nn.functional.pad(codes, (0, 1))
    gradient = sum(p * sample_gradient(y[None], weight, penalty, 2) for p, y in zip(shares, data, strict=True))
    factors = [-400 / 41 * (1 - rho**2 + rho * penalty / c) * (2 * rho - penalty / c) for c in (4, 5)]
    expected = torch.zeros(3, 2, dtype=DOUBLE)
    expected[0, 0], expected[1, 1] = factors
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
    assert abs(factors[0] - factors[1]) > 0.1


# --- errors -----------------------------------------------------------------------------------------------------------

A, B, DATA = torch.eye(6, 4, dtype=DOUBLE), torch.eye(6, 2, dtype=DOUBLE), torch.ones(5, 6, dtype=DOUBLE)


def estimate(**change):
    """A Monte Carlo gradient of a source of four groups of two."""
    eye = torch.eye(8, dtype=DOUBLE)
    return expected_gradient(GroupSparseSource(eye, 2, 1), eye, 1.0, generator=torch.Generator(), **change)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sample_gradient(DATA, A, 1.0, 3), "group_size=3"),
        (lambda: sample_gradient(DATA[:, :5], A, 1.0, 2), "data: expected 6 columns"),
        (lambda: sample_gradient(DATA, A[:, 0], 1.0, 2), "dictionary: expected"),
        (lambda: estimate(n_batches=1), "n_batches=1"),
        (lambda: estimate(n_batches=4, n_samples=3), "n_samples=3"),
        (lambda: horizontal(A, B, 2), r"gradient: expected the dictionary's shape \(6, 4\), got \(6, 2\)"),
        (lambda: horizontal(A, A, 3), "group_size=3"),
        (lambda: riemannian_step(A, B, 0.1, 2), "gradient: expected"),
        (lambda: riemannian_step(A, A, 0.1, 3), "group_size=3"),
        (lambda: gradient_alignment(A, B, A, 2), "true_dictionary: expected"),
        (lambda: gradient_alignment(A, A, B, 2), "gradient: expected"),
        (lambda: gradient_alignment(A, A, A, 3), "group_size=3"),
        (lambda: flow_correlation(-0.1, 1.0), "max_angle=-0.1"),
        (lambda: flow_correlation(1.6, 1.0), "max_angle=1.6"),
        (lambda: flow_correlation(0.1, 0.0), "kappa=0.0"),
        (lambda: flow_correlation(0.1, 1.0, 1.5), "share=1.5"),
        (lambda: printed_correlation(B, B, B, 0.0, 0.5), "tau=0.0"),
        (lambda: printed_correlation(B, B, B, 1.1, 0.5), "tau=1.1"),
        (lambda: printed_correlation(B, B, B, 0.5, 0.0), "p=0.0"),
        (lambda: printed_correlation(-B, B, B, 0.5, 0.5), "true_dictionary:"),
    ],
)
def test_gradient_theory_rejects(call, message):
    """Fails if shapes that differ broadcast, an error is made from one batch, or a number that cannot be is taken."""
    with pytest.raises(ValueError, match=message):
        call()
