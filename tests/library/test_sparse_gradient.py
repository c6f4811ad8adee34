"""The structured gradient against automatic differentiation, which shares no line with it."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, train
from gsae_lib._loops import groups_above
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.groups import active_groups
from gsae_lib.networks import shallow_gradient, sparse_gradient
from gsae_lib.networks.sparse_gradient import _by_sparse_products, _product
from gsae_lib.penalty import GroupPenalty
from gsae_lib.training import loop as training

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def by_autograd(weight, data, penalty, group_size, nonnegative):
    """Loss, gradient and active groups a sample, from the module's own forward pass."""
    asked = GroupPenalty(penalty, group_size, nonnegative=nonnegative)
    n_features, n_atoms = weight.shape
    model = GroupSparseAutoencoder(n_features, n_atoms // group_size, penalty=asked, step_size=1.0, dictionary=weight)
    reconstruction, codes = model(data)
    loss = 0.5 * (data - reconstruction).square().sum(dim=1).mean()
    loss.backward()
    return loss.item(), model.weight.grad, active_groups(codes, group_size).sum().item() / len(data)


@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(1, 30),
    features=st.integers(1, 12),
    groups=st.integers(1, 8),
    size=st.integers(1, 4),
    penalty=st.floats(1e-3, 20.0),
    nonnegative=st.booleans(),
    chunk=st.integers(1, 40),
    dtype=st.sampled_from(list(TOLERANCE)),
)
@settings(max_examples=150, deadline=None)
def test_property_equals_autograd(seed, samples, features, groups, size, penalty, nonnegative, chunk, dtype):
    """Fails on a wrong sign, a lost rank-one term, a pair in the wrong chunk: for any shape, support and threshold."""
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(features, groups * size, generator=rng, dtype=dtype)
    data = torch.randn(samples, features, generator=rng, dtype=dtype)
    loss, gradient, active = by_autograd(weight, data, penalty, size, nonnegative)
    found = shallow_gradient(data, weight, GroupPenalty(penalty, size, nonnegative=nonnegative), chunk=chunk)
    assert found.active_groups == pytest.approx(active)
    # The loss is a difference of energies, so its error is relative to their size, and so is the gradient's.
    scale = 0.5 * data.square().sum(dim=1).mean().item() + loss
    assert abs(found.loss - loss) <= TOLERANCE[dtype] * scale
    largest = scale * max(1.0, weight.norm().item())
    assert (found.gradient - gradient).norm() <= TOLERANCE[dtype] * max(largest, gradient.norm().item())


@pytest.mark.parametrize("penalty, active", [(1e9, 0.0), (1e-6, 5.0)])
def test_no_group_and_every_group(rng, device, dtype, penalty, active):
    """Fails if an empty support is an error or has a gradient, or a full one loses a pair, in any memory order."""
    weight = torch.randn(10, 7, generator=rng, dtype=dtype).to(device).T
    data = torch.randn(7, 9, generator=rng, dtype=dtype).to(device).T
    found = shallow_gradient(data, weight.requires_grad_(), penalty, 2, chunk=4)
    _, gradient, _ = by_autograd(weight.detach(), data, penalty, 2, False)
    assert found.active_groups == active and not found.gradient.requires_grad
    assert (found.gradient - gradient).norm() <= TOLERANCE[dtype] * gradient.norm()


def test_gradient_is_that_of_the_loss_by_finite_differences(rng):
    """Fails if loss and gradient do not belong together; uses neither autograd nor the module."""
    weight = torch.randn(6, 8, generator=rng, dtype=torch.float64)
    data = torch.randn(20, 6, generator=rng, dtype=torch.float64)
    direction = torch.randn(6, 8, generator=rng, dtype=torch.float64)
    step = 1e-6
    losses = [shallow_gradient(data, weight + s * step * direction, 1.5, 2).loss for s in (1, -1)]
    slope = (shallow_gradient(data, weight, 1.5, 2).gradient * direction).sum().item()
    np.testing.assert_allclose((losses[0] - losses[1]) / (2 * step), slope, rtol=1e-6)


OTHERS = [
    {"n_iterations": 2},
    {"step_size": 0.5},
    {"tied": False},
    {"penalty": GroupPenalty(2.0, 2, l1=0.1)},
    {"penalty": GroupPenalty(0.0, 2)},
]


@pytest.mark.parametrize(("change", "calls"), [({}, 21), *((change, 0) for change in OTHERS)], ids=str)
@pytest.mark.parametrize("normalize", [None, "groups"])
def test_training_does_not_depend_on_the_way_to_the_gradient(rng, monkeypatch, normalize, change, calls):
    """Fails if `train` takes another path with the structured gradient, never, or for a network that it is not of."""
    dictionary = gaussian_dictionary(40, 15, 2, generator=rng, dtype=torch.float64)
    data = GroupSparseSource(dictionary, 2, 1).sample(200, generator=rng).data
    plan = TrainingSettings(epochs=5, batch_size=50, learning_rate=0.01, normalize=normalize, progress=False)
    called = []
    monkeypatch.setattr(
        sparse_gradient, "shallow_gradient", lambda *a, **k: called.append(1) or shallow_gradient(*a, **k)
    )
    weights, histories = [], []
    for share in (1.0, 0.0):  # always structured, and only for the very first batch
        monkeypatch.setattr(training, "STRUCTURED_SHARE", share)
        settings = {"penalty": GroupPenalty(2.0, 2), "step_size": 1.0, "dictionary": dictionary + 0.1} | change
        model = GroupSparseAutoencoder(40, 15, **settings)
        histories.append(train(model, data, plan, generator=torch.Generator().manual_seed(1)))
        weights.append(model.weight.detach())
    assert len(called) == calls
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-12)
    for name in ("loss", "active_groups"):
        np.testing.assert_allclose(histories[0].curves[name], histories[1].curves[name], rtol=1e-9)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads the resident memory from /proc")
def test_memory_does_not_grow(rng):
    """Fails if a call leaks: a product of two sparse matrices in torch 2.13 lost about 1 MB here at each call."""
    weight = gaussian_dictionary(200, 100, 2, generator=rng)
    data = GroupSparseSource(weight, 2, 3, snr_db=1.0).sample(4000, generator=rng).data

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    for calls in (10, 75):
        before = resident()
        for _ in range(calls):
            shallow_gradient(data, weight, 2.0, 2)
            _by_sparse_products(data, weight, weight.T.contiguous(), 2.0, 2, False)
    assert resident() - before < 20e6


def candidates(data, weight, penalty, group_size, nonnegative=False, *, screen):
    """The (sample, group) pairs that the loops look at."""
    largest = torch.linalg.vector_norm(weight.unflatten(1, (-1, group_size)), dim=(0, 2)).max()
    product, least = _product(data, weight.bfloat16() if screen else weight, largest, penalty)
    starts, groups = groups_above(product.numpy(), least.numpy(), group_size, nonnegative)
    return np.repeat(np.arange(len(data)), np.diff(starts)), groups


@pytest.mark.numba
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("penalty", [0.9, 1.3, 50.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_screening_changes_no_bit(penalty, nonnegative, size, rng):
    """Fails if a bound is too small: thousands of responses within bfloat16's error of the threshold are decided."""
    weight = gaussian_dictionary(120, 120 // size, size, generator=rng)
    data = GroupSparseSource(weight, size, 3, snr_db=1.0).sample(3000, generator=rng).data
    plain = shallow_gradient(data, weight, GroupPenalty(penalty, size, nonnegative=nonnegative))
    found = shallow_gradient(data, weight, GroupPenalty(penalty, size, nonnegative=nonnegative), screen=True)
    assert (found.loss, found.active_groups) == (plain.loss, plain.active_groups)
    assert torch.equal(found.gradient, plain.gradient)
    n_pairs = round(plain.active_groups * len(data))
    assert n_pairs > 3000 if penalty < 2 else n_pairs == 0
    assert len(candidates(data, weight, penalty, size, nonnegative, screen=True)[0]) >= n_pairs


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("penalty", [0.9, 1.3, 2.0, 50.0])
def test_loops_equal_sparse_products(penalty, nonnegative, rng):
    """Fails if the processor's loops and what a GPU computes part: both here, in float64, where no pair is in doubt."""
    weight = gaussian_dictionary(60, 40, 3, generator=rng, dtype=torch.float64)
    data = GroupSparseSource(weight, 3, 2, snr_db=1.0).sample(500, generator=rng).data
    pulled, twice_loss, pairs = _by_sparse_products(data, weight, weight.T.contiguous(), penalty, 3, nonnegative)
    found = shallow_gradient(data, weight, GroupPenalty(penalty, 3, nonnegative=nonnegative))
    assert found.active_groups * 500 == pytest.approx(pairs)
    assert found.loss == pytest.approx(twice_loss.item() / 1000, rel=1e-12)
    assert (found.gradient - pulled.T / -500).norm() <= 1e-12 * pulled.norm() / 500


@pytest.mark.numba
def test_screening_bound_covers_adversarial_rounding():
    """Fails if a response just above the threshold is excluded: entries, and sums, that bfloat16 rounds down as far as
    it can, to 1 and to 256 or so."""
    worst = 1 + 2.0**-8 * 0.999
    weight, data = torch.zeros(257, 4), torch.full((1, 257), worst)
    weight[:, :2] = worst  # the two others are a group without a response
    norm = torch.linalg.vector_norm(data @ weight).item()
    rough = torch.linalg.vector_norm((data.bfloat16() @ weight.bfloat16()).float()).item()
    assert rough == pytest.approx(256 * 2**0.5) and rough < norm * (1 - 2.9 * 2.0**-8)
    assert candidates(data, weight, norm * (1 - 1e-4), 2, screen=True)[1].tolist() == [0]


both_ways = pytest.mark.parametrize("screen", [False, pytest.param(True, marks=pytest.mark.numba)])


@pytest.mark.numba
@both_ways
def test_a_bound_above_the_penalty_excludes_nothing(screen):
    """Fails if a pair whose rough response is 0 is dropped where rounding could hide one above the penalty."""
    weight, data = torch.zeros(4, 4), torch.full((1, 4), 1e6)
    weight[0, 0], weight[1, 0] = 1.0, -1.0
    sample, group = candidates(data, weight, 0.1, 2, screen=screen)
    assert sample.tolist() == [0, 0] and group.tolist() == [0, 1]


@pytest.mark.parametrize("where", ["data", "dictionary"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@both_ways
def test_what_is_not_finite_gives_such_a_loss(where, value, screen, rng):
    """Fails if the loops lose a number that is not one."""
    given = {"data": torch.randn(9, 7, generator=rng), "dictionary": torch.randn(7, 10, generator=rng)}
    given[where][3, 2] = value
    assert not np.isfinite(shallow_gradient(**given, penalty=1.0, group_size=2, screen=screen, chunk=4).loss)


def test_no_filter_of_warnings_stays():
    """Fails if the module changes what the process warns of, or torch's warning reaches the user."""
    code = """
import warnings, torch
before = list(warnings.filters)
from gsae_lib.networks.sparse_gradient import _by_sparse_products
added = [f for f in warnings.filters if f not in before and "CSR" in str(f)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    _by_sparse_products(*[torch.eye(4)] * 3, 0.5, 2, False)
print(added, [str(w.message) for w in caught if "CSR" in str(w.message)])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []"


@pytest.mark.numba
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("screen", [False, pytest.param(True, marks=pytest.mark.numba)])
def test_candidates_against_brute_force(nonnegative, screen, rng):
    """Fails if a pair is lost, added or misplaced: loops in float64 decide, where float32 leaves no doubt."""
    weight, data = torch.randn(20, 12, generator=rng), torch.randn(60, 20, generator=rng)
    found = set(zip(*map(np.ndarray.tolist, candidates(data, weight, 6.0, 3, nonnegative, screen=screen)), strict=True))
    w, expected, near = weight.double().numpy(), set(), set()
    for i, y in enumerate(data.double().numpy()):
        for g in range(4):
            h = y @ w[:, 3 * g : 3 * g + 3]
            norm = np.linalg.norm(np.maximum(h, 0) if nonnegative else h)
            assert abs(norm - 6.0) > 1e-4
            expected |= {(i, g)} if norm > 6.0 else set()
            near |= {(i, g)} if norm > (5.0 if screen else 6.0) else set()
    assert 20 < len(expected) < 220 and expected <= found <= near
