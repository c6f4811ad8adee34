"""Groups of groups: every bound is attacked with random data, every rate compared with automatic differentiation."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from true_groups import at_angles, gaussian, orthogonal

from gsae_lib.dictionary import as_groups, from_groups, polar
from gsae_lib.metrics import principal_angles
from gsae_lib.theory import Population, riemannian_step
from gsae_lib.theory.gradient import sample_gradient
from gsae_lib.theory.layers import false_alarm_tangent, largest_layer_angle
from gsae_lib.theory.population import spherical_design
from gsae_lib.theory.rates import pair_rates

SEEDS = st.integers(0, 2**31)
DOUBLE = torch.float64


def shrink(h, penalty):
    """The group ReLU, written again."""
    norms = h.norm(dim=-1, keepdim=True)
    return torch.where(norms > penalty, 1 - penalty / norms.clamp(min=1e-30), 0.0) * h


def keep(h, threshold):
    """The group hard threshold, written again."""
    return torch.where(h.norm(dim=-1, keepdim=True) > threshold, h, 0.0)


def loss_along(data, truth, d, threshold, activation):
    """The mean loss as a function of the motions X_g = A^perp_g M_g of all groups, along orthonormal groups."""
    groups = as_groups(truth, d)
    complement = [torch.linalg.svd(a, full_matrices=True).U[:, d:] for a in groups]

    def loss(motions):
        moved = []
        for a, b, m in zip(groups, complement, motions, strict=True):
            x = b @ m
            values, vectors = torch.linalg.eigh(torch.eye(d, dtype=DOUBLE) + x.T @ x)
            moved.append((a + x) @ vectors @ torch.diag(values**-0.5) @ vectors.T)
        w = torch.cat(moved, dim=1)
        codes = activation((data @ w).unflatten(1, (-1, d)), threshold).flatten(1)
        return 0.5 * (data - codes @ w.T).square().sum(dim=1).mean()

    return loss, complement


def hessian(data, truth, d, threshold, activation):
    """The Riemannian Hessian of the loss at the truth by finite differences of gradients, as a matrix."""
    loss, complement = loss_along(data, truth, d, threshold, activation)
    shape = (len(complement), complement[0].shape[1], d)

    def gradient(point):
        point = point.reshape(shape).clone().requires_grad_()
        # A generic small shift keeps eigh differentiable, where equal eigenvalues would not be.
        return torch.autograd.grad(loss(point), point)[0].flatten()

    count, step = math.prod(shape), 1e-5
    shift = 1e-4 * torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    columns = []
    for k in range(count):
        unit = torch.zeros(count, dtype=DOUBLE)
        unit[k] = step
        forward, back = gradient(shift + unit), gradient(shift - unit)
        mirrored = gradient(-shift + unit) - gradient(-shift - unit)
        columns.append((forward - back + mirrored) / (4 * step))
    matrix = torch.stack(columns, dim=1)
    return (matrix + matrix.T) / 2, complement


def all_directions(norms, d):
    """Every row of norms (0: inactive) with all products of a spherical design in its active groups."""
    design, rows = spherical_design(d), []
    for row in norms:
        active = [g for g, c in enumerate(row) if c > 0]
        for points in itertools.product(design, repeat=len(active)):
            code = torch.zeros(len(row), d, dtype=DOUBLE)
            for g, u in zip(active, points, strict=True):
                code[g] = row[g] * u
            rows.append((code.flatten(), 1 / len(design) ** len(active)))
    codes, weights = zip(*rows, strict=True)
    return torch.stack(codes), torch.tensor(weights, dtype=DOUBLE)


# --- two groups whose norms depend on each other ----------------------------------------------------------------------

LAWS = {
    "siblings": [(4.0, 5.0), (5.0, 4.0), (4.5, 0.0), (0.0, 4.5)],
    "one follows": [(4.0, 4.0), (4.0, 5.0), (0.0, 4.5)],
    "always": [(4.0, 5.0), (5.0, 4.0)],
    "weak follows strong": [(2.0, 5.0), (2.0, 5.0), (2.0, 4.0), (2.0, 0.0)],
}


def pair_linearization(norms, penalty, d):
    """The theory page's matrix of first order between two spans, of any joint law of norms; 0: not active."""
    both = (norms > 0).all(dim=1)
    s, tau = norms.square() / d, (1 - penalty / norms).clamp(min=0)
    j, t = tau + (1 - tau) / d, tau * s
    first, second = ((both * t[:, h] * j[:, g]).mean() for g, h in ((0, 1), (1, 0)))
    power, shared = s.mean(dim=0), (s * both.unsqueeze(1)).mean(dim=0)
    rows = [power[0] - shared[1] + 2 * first, first + second, first + second, power[1] - shared[0] + 2 * second]
    return torch.stack(rows).reshape(2, 2)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("law", LAWS)
def test_pair_linearization_is_the_hessian(law, d, rng):
    """Fails if the matrix is not the second derivative of the loss, for norms of any joint law, to 1e-6.

    Groups that are always together make it singular; the page's saddle has -0.97, though they are not.
    """
    penalty, norms = 1.5, torch.tensor(LAWS[law], dtype=DOUBLE)
    truth = orthogonal(2 * d, 2, d, rng)
    codes, weights = all_directions(norms, d)
    data = (codes @ truth.T).repeat_interleave((weights / weights.min()).round().long(), dim=0)
    matrix, complement = hessian(data, truth, d, penalty, shrink)
    found = pair_linearization(norms, penalty, d)
    first, second = as_groups(truth, d)
    for i, j in itertools.product(range(d), repeat=2):
        # M_hg = e_i e_j^T moves group g towards h; M_gh = e_j e_i^T is its partner.
        own = (complement[0].T @ second[:, i : i + 1] @ torch.eye(d, dtype=DOUBLE)[j : j + 1]).flatten()
        other = (complement[1].T @ first[:, j : j + 1] @ torch.eye(d, dtype=DOUBLE)[i : i + 1]).flatten()
        basis = torch.zeros(len(matrix), 2, dtype=DOUBLE)
        basis[: len(own), 0], basis[len(own) :, 1] = own, other
        torch.testing.assert_close(basis.T @ matrix @ basis, found, rtol=0, atol=2e-5)
    least = torch.linalg.eigvalsh(found)[0].item()
    assert (abs(least) < 1e-5) == (law == "always")
    if (law, d) == ("weak follows strong", 2):
        assert least == pytest.approx(-0.97, abs=0.005)


# --- a hard threshold: any codes, finite data -------------------------------------------------------------------------


@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_property_kept_codes_are_a_strict_minimum_unless_always_together(seed):
    """Fails if the truth is no strict minimum on few samples of positive codes, or is one with groups always together.

    Codes are nonnegative, so nothing cancels; supports are three random ones of four groups.
    """
    rng = torch.Generator().manual_seed(seed)
    d, groups = 2, 4
    truth = orthogonal(9, groups, d, rng)
    supports = torch.rand(3, groups, generator=rng) < 0.5
    supports[~supports.any(dim=1), 0] = True
    rows = supports.repeat_interleave(groups * d + 1, dim=0)
    codes = torch.rand(len(rows), groups, d, generator=rng, dtype=DOUBLE) + 0.5
    codes = (codes * rows.unsqueeze(2)).flatten(1)
    matrix, _ = hessian(codes @ truth.T, truth, d, 0.3, keep)
    least = torch.linalg.eigvalsh(matrix)[0].item()
    columns = [tuple(column) for column in supports.T.tolist()]
    parted = len({*columns}) == groups and (False,) * 3 not in columns  # each active, no two always together
    assert (least > 1e-5) == parted
    assert least > -1e-5


def hard_gradient(data, w, threshold, d):
    """Gradient of the loss with a hard threshold, by automatic differentiation."""
    w = w.clone().requires_grad_()
    codes = keep((data @ w).unflatten(1, (-1, d)), threshold).flatten(1)
    return torch.autograd.grad(0.5 * (data - codes @ w.T).square().sum(dim=1).mean(), w)[0]


def siblings(n_samples, n_groups, size, active, rng, low=4.0, high=5.0):
    """Norms (samples, n_groups * size): one family of `size` is active, `active` of it, norms uniform."""
    chosen = torch.rand(n_samples, size, generator=rng).argsort(dim=1) < active
    values = low + (high - low) * torch.rand(n_samples, size, generator=rng, dtype=DOUBLE)
    norms = torch.zeros(n_samples, n_groups, size, dtype=DOUBLE)
    family = torch.randint(n_groups, (n_samples,), generator=rng)
    norms[torch.arange(n_samples), family] = values * chosen
    return norms.flatten(1)


def test_three_layers_are_exact_from_finite_data(rng):
    """Fails if three layers with hard thresholds, one after the other on one data set, miss a true span.

    The middle layer has two active groups with positive codes, for which the group ReLU has a bias (next test).
    """
    top = siblings(400, 2, 3, 2, rng)  # norms of the six groups of the middle layer
    inner = torch.rand(400, 6, 3, generator=rng).argsort(dim=2) < 2
    middle = (top.unsqueeze(2) * inner * (0.75 + 0.5 * torch.rand(400, 6, 3, generator=rng, dtype=DOUBLE))).flatten(1)
    lowest = gaussian(rng, 400, 18, 2)
    lowest = (middle.unsqueeze(2) * lowest / lowest.norm(dim=2, keepdim=True)).flatten(1)
    truths = [orthogonal(40, 18, 2, rng), torch.eye(18, dtype=DOUBLE), torch.eye(6, dtype=DOUBLE)]
    data, found = lowest @ truths[0].T, []
    for truth, d, step, count in zip(truths, (2, 3, 3), (0.2, 0.06, 0.02), (200, 1500, 200), strict=True):
        start = from_groups(polar(as_groups(truth + 0.04 * gaussian(rng, *truth.shape), d)))
        if len(truth) > truth.shape[1]:
            start = at_angles(truth, d, torch.full((18, 2), 0.08, dtype=DOUBLE), rng)
        for _ in range(count):
            start = riemannian_step(start, hard_gradient(data, start, 1.4, d), step, d)
        found.append(principal_angles(start, truth, d).max().item())
        data = keep((data @ start).unflatten(1, (-1, d)), 1.4).norm(dim=2)
    assert found[0] < 1e-9 and found[1] < 1e-3 and found[2] < 1e-9


def test_positive_codes_bias_the_group_relu(rng):
    """Fails if two active groups of positive codes rest at the truth with the group ReLU: they attract each other."""
    codes = (0.5 + torch.rand(600, 4, 2, generator=rng, dtype=DOUBLE)) * 3
    codes = (codes * (torch.rand(600, 4, generator=rng).argsort(dim=1) < 2).unsqueeze(2)).flatten(1)
    truth = orthogonal(8, 4, 2, rng)
    ends = []
    for gradient in (sample_gradient, hard_gradient):
        w = truth
        for _ in range(300):
            w = riemannian_step(w, gradient(codes @ truth.T, w, 0.8, 2), 0.05, 2)
        ends.append(principal_angles(w, truth, 2).max().item())
    assert ends[0] > 0.05 and ends[1] < 1e-10


# --- the window, and the norms that are passed up: the bounds of the theory page --------------------------------------


def layer_window(angle, gamma, low, high):
    """Thresholds that find every support at angles up to this one: lower and upper end."""
    aside = high * math.sin(angle)
    return math.sqrt(gamma) * aside, low * math.cos(angle) - math.sqrt(gamma - 1) * aside


def norm_errors(angle, gamma, ratio):
    """(c_1, c_2): relative errors of the norms, of one sample and in the mean over signs, of second order."""
    one, sine = 1 - math.cos(angle), math.sin(angle)
    return one + math.sqrt(gamma - 1) * sine, one + (gamma - 1) * ratio * sine**2 / (2 * math.cos(angle))


def upper_tangent(error, second):
    """What relative errors of the norms can turn of the next layer's span with this second moment; or infinity."""
    scaled = error * (second.trace() / torch.linalg.eigvalsh(second)[0]).item()
    return scaled / (1 - 2 * scaled) if 2 * scaled < 1 else math.inf


def leaning(truth, d, angle, y, active, rng):
    """Groups at one angle that lean straight towards a sample (inactive) or away from the rest of it (active)."""
    learned = []
    for a, on in zip(as_groups(truth, d), active, strict=True):
        rest = y - a @ (a.T @ y)
        away = gaussian(rng, *a.shape)
        away[:, 0] = -rest if on else rest
        away = away - a @ (a.T @ away)
        turn = gaussian(rng, d, d)
        if on:
            turn[:, 0] = a.T @ y
        pair = []
        for x in (turn, away):  # orthonormal, the first column along that of x
            q = torch.linalg.qr(x).Q
            q[:, 0] *= torch.sign(q[:, 0] @ x[:, 0])
            pair.append(q)
        learned.append(a @ pair[0] * math.cos(angle) + pair[1] * math.sin(angle))
    return torch.cat(learned, dim=1)


@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_layer_window_is_safe_and_attained(d, gamma, rng):
    """Fails if a response lies on the wrong side of the window, or the worst directions do not attain its ends."""
    low, high, angle = 4.0, 5.0, 0.8 * largest_layer_angle(gamma, (4.0, 5.0))
    lower, upper = layer_window(angle, gamma, low, high)
    wider = layer_window(1.001 * angle / 0.8, gamma, low, high)
    narrower = layer_window(0.999 * angle / 0.8, gamma, low, high)
    assert lower < upper and narrower[0] < narrower[1] and wider[0] > wider[1]
    truth = orthogonal(24, 6, d, rng)
    active = torch.arange(6) < gamma
    largest, smallest = 0.0, math.inf
    for weakest in (True, False):
        norms = torch.full((6,), high, dtype=DOUBLE)
        if weakest:
            norms[0] = low
        code = gaussian(rng, 6, d)
        code = code / code.norm(dim=1, keepdim=True) * (norms * active).unsqueeze(1)
        y = truth @ code.flatten()
        h = (y @ leaning(truth, d, angle, y, active, rng)).unflatten(0, (6, d)).norm(dim=1)
        largest, smallest = max(largest, h[~active].max().item()), min(smallest, h[0].item())
        for _ in range(20):
            w = at_angles(truth, d, torch.full((6, d), angle, dtype=DOUBLE), rng)
            h = (y @ w).unflatten(0, (6, d)).norm(dim=1)
            assert h[~active].max() <= lower + 1e-12 and h[active].min() >= upper - 1e-12
    assert (largest, smallest) == pytest.approx((lower, upper), rel=1e-9)


@given(seed=SEEDS, gamma=st.integers(1, 4), d=st.integers(1, 3), angle=st.floats(0.01, 0.6))
@settings(max_examples=60, deadline=None)
def test_property_errors_of_norms(seed, gamma, d, angle):
    """Fails if a sample's norms, or their mean over all signs, err by more than c_1 or c_2 say."""
    rng = torch.Generator().manual_seed(seed)
    truth = orthogonal(20, gamma, d, rng)
    angles = angle * torch.rand(gamma, d, generator=rng, dtype=DOUBLE)
    angles[:, -1] = angle
    w = at_angles(truth, d, angles, rng)
    code = gaussian(rng, gamma, d)
    norms = 4 + torch.rand(gamma, generator=rng, dtype=DOUBLE)
    code = code / code.norm(dim=1, keepdim=True) * norms.unsqueeze(1)
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=gamma)), dtype=DOUBLE)
    data = (signs.unsqueeze(2) * code).flatten(1) @ truth.T
    passed = (data @ w).unflatten(1, (gamma, d)).norm(dim=2)
    length = norms.norm()
    c1, c2 = norm_errors(angle, gamma, 5 / 4)
    assert ((passed - norms).norm(dim=1) <= c1 * length + 1e-12).all()
    assert (passed.mean(dim=0) - norms).norm() <= c2 * length + 1e-12


@given(seed=SEEDS, size=st.integers(1, 4), error=st.floats(1e-4, 0.2), outward=st.booleans())
@settings(max_examples=60, deadline=None)
def test_property_upper_tangent(seed, size, error, outward):
    """Fails if relative errors of at most c turn the leading span by more than the bound; errors may be adversarial."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.linalg.qr(gaussian(rng, 9, size)).Q
    z = gaussian(rng, 40, size).abs() + 0.3
    noise = gaussian(rng, 40, 9)
    if outward:  # all errors towards one direction outside the span
        away = gaussian(rng, 9)
        noise = (away - truth @ (truth.T @ away)).expand(40, 9)
    clean = z @ truth.T
    noise = error * clean.norm(dim=1, keepdim=True) * noise / noise.norm(dim=1, keepdim=True)
    bound = upper_tangent(error + error**2, z.T @ z)
    leading = torch.linalg.svd(clean + noise).Vh[:size].T
    assert principal_angles(leading, truth, size).max().tan().item() <= bound + 1e-9


# --- supports that are wrong ------------------------------------------------------------------------------------------


def leading_under_alarms(second, mean, others, rate, v1, v2):
    """Leading span of the whole second moment, with all `others` in it, and its angles to the family's coordinates."""
    size = len(mean)
    whole = torch.full((size + others, size + others), (rate * v1) ** 2, dtype=DOUBLE)
    whole[:size, :size] = second
    whole[size:, :size] = rate * v1 * mean
    whole[:size, size:] = whole[size:, :size].T
    whole[size:, size:] += torch.diag(torch.full((others,), rate * v2 - (rate * v1) ** 2, dtype=DOUBLE))
    leading = torch.linalg.eigh(whole).eigenvectors[:, -size:]
    return principal_angles(leading, torch.eye(size + others, dtype=DOUBLE)[:, :size], size)[0]


def test_false_alarms_turn_one_direction():
    """Fails if the closed form is not the leading span of the whole second moment, or far from its first order."""
    others, v1, v2 = 9, 2.1, 4.6
    mean = torch.tensor([3.0, 3.1, 2.9], dtype=DOUBLE)
    second = torch.outer(mean, mean) * 0.8 + torch.diag(torch.tensor([6.0, 6.5, 6.2], dtype=DOUBLE))
    for rate in (1e-4, 1e-2, 0.05):
        angles = leading_under_alarms(second, mean, others, rate, v1, v2)
        found = false_alarm_tangent(second, mean, others, rate, (v1, v2))
        assert found == pytest.approx(angles[-1].tan().item(), rel=1e-9)
        assert angles[-2] < 1e-9  # all other directions stay
        first_order = rate * v1 * math.sqrt(others) * torch.linalg.solve(second, mean).norm().item()
        assert found == pytest.approx(first_order, rel=0.02 + 3 * rate * 2)


def test_false_alarms_above_the_weakest_direction_of_a_family():
    """Fails if more than one direction turns while alarms are weaker than a family's weakest direction, or none beyond.

    Three of three children are active, and their norms vary little: 1/12 in two directions.
    """
    second = torch.full((3, 3), 4.5**2, dtype=DOUBLE) + torch.eye(3, dtype=DOUBLE) / 12
    for rate, n_turned in ((0.01, 1), (0.02, 3)):
        angles = leading_under_alarms(second, torch.full((3,), 4.5, dtype=DOUBLE), 9, rate, 2.1, 4.6)
        assert int((angles > 1e-6).sum()) == n_turned
        assert (rate * 4.6 < 1 / 12) == (n_turned == 1)


def test_upper_layer_is_exact_before_the_lower_one(rng):
    """Fails if with right supports below the upper layer keeps an error, though the lower one rests 9 degrees off.

    Siblings that are always together cannot be told apart below; above, their family is found all the same.
    """
    for active, low, angle in ((2, 4.0, 0.16), (3, 2.0, 0.05)):
        norms = siblings(300, 4, 3, active, rng, low)
        truth = orthogonal(40, 12, 2, rng)
        u = gaussian(rng, 300, 12, 2)
        data = (norms.unsqueeze(2) * u / u.norm(dim=2, keepdim=True)).flatten(1) @ truth.T
        w = at_angles(truth, 2, torch.full((12, 2), angle, dtype=DOUBLE), rng)
        passed = shrink((data @ w).unflatten(1, (12, 2)), sum(layer_window(angle, active, low, 5.0)) / 2).norm(dim=2)
        assert torch.equal(passed > 0, norms > 0)
        upper = torch.eye(12, dtype=DOUBLE)
        v = from_groups(polar(as_groups(upper + 0.03 * gaussian(rng, 12, 12), 3)))
        for _ in range(1500):
            v = riemannian_step(v, sample_gradient(passed, v, 1.0, 3), 0.15, 3)
        assert principal_angles(v, upper, 3).max() < 1e-6


def test_one_child_at_a_time_leaves_families_open(rng):
    """Fails if families of which one child is active at a time are more than what the start says."""
    norms = siblings(300, 2, 2, 1, rng)
    start = torch.eye(4, dtype=DOUBLE)[:, [0, 2, 1, 3]]  # children sorted into the wrong families
    assert hard_gradient(norms, start, 1.0, 2).abs().max() < 1e-12
    near = from_groups(polar(as_groups(start + 0.1 * gaussian(rng, 4, 4), 2)))
    for _ in range(800):
        near = riemannian_step(near, hard_gradient(norms, near, 1.0, 2), 0.1, 2)
    assert principal_angles(near, start, 2).max() < 1e-6


# --- finite data with all signs ---------------------------------------------------------------------------------------


def test_enough_orbits_make_a_strict_minimum(rng):
    """Fails if the theory page's count for three groups of one in R^5 is another, or 60 samples do not do."""
    population = Population(5, 3, 1, 2, (4.0, 5.0))
    slow, _ = pair_rates(population, 1.5, 2 / 3, 2 / 3, 1 / 3)
    ratio = 2 * 5.0**2 / min(slow, population.kappa)
    assert math.ceil((98 * ratio**2 + 20 * ratio / 3) * math.log(3 * 1 * 4 / 0.01)) == 38_162
    truth = orthogonal(5, 3, 1, rng)
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=DOUBLE)
    norms = (4 + torch.rand(60, 3, generator=rng, dtype=DOUBLE)) * (torch.rand(60, 3, generator=rng).argsort(dim=1) < 2)
    data = (signs.unsqueeze(1) * norms).flatten(0, 1) @ truth.T
    matrix, _ = hessian(data, truth, 1, 1.5, shrink)
    assert torch.linalg.eigvalsh(matrix)[0] > 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: largest_layer_angle(0, (4.0, 5.0)), "n_active=0"),
        (lambda: largest_layer_angle(2, (5.0, 4.0)), "norm_range"),
        (lambda: false_alarm_tangent(torch.eye(2), torch.ones(3), 1, 0.1, (1.0, 1.0)), "mean: expected 2"),
        (lambda: false_alarm_tangent(torch.eye(2), torch.ones(2), 1, 1.1, (1.0, 1.0)), "rate=1.1"),
    ],
)
def test_layer_theory_rejects(call, message):
    """Fails if bad input is not named."""
    with pytest.raises(ValueError, match=message):
        call()
