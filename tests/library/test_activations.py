"""The activations as proximal operators and projections."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import func

from gsae_lib.activations import (
    GroupReLU,
    batch_group_top_k,
    biased_relu,
    group_hard_threshold,
    group_jump_relu,
    group_relu,
    group_top_k,
    soft_threshold,
)
from gsae_lib.penalty import shrink_groups

VARIANTS = [
    pytest.param({"nonnegative": nonnegative, "elementwise_threshold": e}, id=f"nonnegative={nonnegative}-e={e}")
    for nonnegative in (False, True)
    for e in (0.0, 0.3)
]
OPERATORS = {
    "group_relu": lambda x: group_relu(x, 0.7, 2),
    "nonnegative": lambda x: group_relu(x, 0.7, 2, nonnegative=True),
    "sparse_group": lambda x: group_relu(x, 0.7, 2, elementwise_threshold=0.2),
    "nonnegative_sparse_group": lambda x: group_relu(x, 0.7, 2, nonnegative=True, elementwise_threshold=0.2),
    "no_threshold": lambda x: group_relu(x, 0.0, 2),
    "per_group": lambda x: group_relu(x, torch.linspace(0, 1, x.shape[-1] // 2, dtype=torch.float64), 2),
    "soft_threshold": lambda x: soft_threshold(x, 0.7),
    "biased_relu": lambda x: biased_relu(x, 0.7),
    "hard_threshold": lambda x: group_hard_threshold(x, 0.7, 2),
    "top_k": lambda x: group_top_k(x, 2, 2),
}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
HALVES = [torch.float16, torch.bfloat16]


def objective(z, x, threshold, group_size, nonnegative=False, elementwise_threshold=0.0):
    """1/2 ||z - x||^2 + threshold sum_g ||z_g|| + e ||z||_1, infinite outside of the constraint."""
    penalty = sum(np.linalg.norm(z[g : g + group_size]) for g in range(0, len(z), group_size))
    value = 0.5 * np.sum((z - x) ** 2) + threshold * penalty + elementwise_threshold * np.abs(z).sum()
    return np.inf if nonnegative and (z < 0).any() else value


# Optimality


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_subgradient_optimality(variant, group_size, rng):
    """Fails at a wrong sign, scale or order of the two thresholds: x - z must be a subgradient of the penalty at z."""
    threshold, e = 0.8 * group_size**0.5, variant["elementwise_threshold"]
    x = torch.randn(200, 2 * group_size, generator=rng, dtype=torch.float64)
    z = group_relu(x, threshold, group_size, **variant)
    blocks, found = (t.reshape(-1, group_size).numpy() for t in (x, z))
    zero = ~found.any(axis=1)
    assert 0.05 < zero.mean() < 0.95  # both branches are exercised
    # A zero group: what the other terms cannot absorb of x has norm at most the threshold.
    signed = blocks[zero] if variant["nonnegative"] else np.abs(blocks[zero])
    assert (np.linalg.norm(np.maximum(signed - e, 0), axis=1) <= threshold + 1e-12).all()
    # An active group: stationary in each non-zero entry, bounded in each zero entry.
    active = found[~zero]
    residual = blocks[~zero] - active - threshold * active / np.linalg.norm(active, axis=1, keepdims=True)
    np.testing.assert_allclose(residual[active != 0], e * np.sign(active[active != 0]), rtol=0, atol=1e-12)
    at_zero = residual[active == 0]
    assert (at_zero <= e + 1e-12).all()
    assert variant["nonnegative"] or (at_zero >= -e - 1e-12).all()
    assert not variant["nonnegative"] or (active >= 0).all()


# Degenerate limits


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_groups_of_one_are_the_scalar_operators(threshold, rng, dtype):
    """Fails if d = 1 is not the soft threshold and, one-sided, the biased ReLU of the textbooks."""
    x = torch.randn(4, 9, generator=rng, dtype=dtype)
    x[0, 0], x[0, 1] = 0.0, 0.5
    y = x.numpy()
    soft, one_sided = np.sign(y) * np.maximum(np.abs(y) - threshold, 0), np.maximum(y - threshold, 0)
    tolerance = {"rtol": 1e-5 if dtype == torch.float32 else 1e-14, "atol": 1e-7 if dtype == torch.float32 else 1e-16}
    np.testing.assert_allclose(group_relu(x, threshold, 1), soft, **tolerance)
    np.testing.assert_allclose(soft_threshold(x, threshold), soft, **tolerance)
    np.testing.assert_allclose(biased_relu(x, threshold), one_sided, **tolerance)


@pytest.mark.parametrize("operator", [group_relu, group_hard_threshold])
def test_threshold_zero_is_the_identity_with_gradient_one(operator, rng, dtype):
    """Fails if a zero group loses its gradient when nothing is thresholded, or if a value changes in its last bit."""
    x = torch.randn(3, 6, generator=rng, dtype=dtype)
    x[1] = 0
    x[2, :3] = 0
    x.requires_grad_()
    z = operator(x, 0.0, 3)
    z.sum().backward()
    assert torch.equal(z, x)
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("operator", [group_relu, group_hard_threshold])
@pytest.mark.parametrize("block", [[3.0, 4.0], [-3.0, 3.9], [0.0, 0.0]], ids=["at", "below", "zero"])
def test_value_and_gradient_vanish_up_to_the_threshold(operator, block, dtype):
    """Fails if >= replaces >, the gradient leaks (or is nan) where the value is 0, or a margin is added."""
    above = [5 * (1 + 4 * torch.finfo(dtype).eps), 0.0]
    x = torch.tensor([block, [30.0, 40.0], above], dtype=dtype).flatten().requires_grad_()
    z = operator(x, 5.0, 2)
    z.sum().backward()
    assert z[:2].tolist() == [0.0, 0.0] and x.grad[:2].tolist() == [0.0, 0.0]
    assert z[2:5].all() and x.grad[2:4].all() and z[5] == 0
    assert z[4] < 1e-5 if operator is group_relu else z[4] == x[4]


# Independent oracles and brute force


def test_an_elementwise_threshold_may_be_a_tensor(rng):
    """Fails if what compiled steps hand over, a tensor, is taken otherwise than the number."""
    blocks = torch.randn(50, 3, 2, generator=rng, dtype=torch.float64)
    for nonnegative in (False, True):
        number, tensor = (
            shrink_groups(blocks, 0.4, nonnegative, e) for e in (0.3, torch.tensor(0.3, dtype=torch.float64))
        )
        torch.testing.assert_close(tensor, number)


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0])
def test_hard_threshold_minimises_over_all_supports(threshold, rng):
    """Fails if the penalty is not lambda^2 / 2 a group: every subset of groups is tried."""
    for x in torch.randn(20, 8, generator=rng, dtype=torch.float64):
        blocks = x.reshape(4, 2).numpy()
        costs = {
            keep: sum(threshold**2 / 2 if k else 0.5 * np.sum(b**2) for k, b in zip(keep, blocks, strict=True))
            for keep in itertools.product((False, True), repeat=4)
        }
        best = min(costs, key=costs.get)
        expected = (blocks * np.array(best)[:, None]).ravel()
        assert group_hard_threshold(x, threshold, 2).tolist() == expected.tolist()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_is_the_nearest_point_with_k_groups(k, rng):
    """Fails if the largest entry or sum of absolute values selects instead of the norm: every k groups are tried."""
    for x in torch.randn(20, 12, generator=rng, dtype=torch.float64):
        blocks = x.reshape(4, 3).numpy()
        candidates = [
            np.where(np.isin(np.arange(4), kept)[:, None], blocks, 0).ravel()
            for kept in itertools.combinations(range(4), k)
        ]
        nearest = min(candidates, key=lambda z: np.sum((z - x.numpy()) ** 2))
        assert group_top_k(x, k, 3).tolist() == nearest.tolist()


def test_top_k_keeps_k_groups_at_ties():
    """Fails if ties keep more than k groups (a comparison with the k-th norm would)."""
    assert group_top_k(torch.ones(2, 6), 2, 2).count_nonzero(dim=1).tolist() == [4, 4]


# Derivatives


@every_operator
def test_gradcheck(operator, rng):
    """Fails if a derivative disagrees with finite differences; top-k and hard threshold pass what they keep."""
    x = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, (x,))
    assert torch.autograd.gradgradcheck(operator, (x,))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck_in_the_threshold(variant, rng):
    """Fails if a threshold cannot be learned: its derivative is minus the direction of each active group."""
    x = torch.randn(5, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: group_relu(x, t, 2, **variant), (x, threshold))


def smooth_pieces(x, threshold):
    """The group ReLU of pairs as a plain expression, whose derivatives are left to torch; x has no group at a kink."""
    blocks = x.unflatten(-1, (-1, 2))
    squares = blocks.square().sum(dim=-1)
    active = squares > threshold**2
    scale = 1 - threshold / torch.where(active, squares, 1.0).sqrt()
    return torch.where(active, scale, 0.0).unsqueeze(-1).mul(blocks).flatten(-2)


TRANSFORMS = {
    "grad": lambda f: func.grad(lambda x: f(x).sin().sum()),
    "vmap": lambda f: func.vmap(f),
    "jacrev": lambda f: func.jacrev(f),
    "jacfwd": lambda f: func.jacfwd(f),
    "jvp": lambda f: lambda x: func.jvp(f, (x,), (x.flip(0),))[1],
    "vmap of grad": lambda f: func.vmap(func.grad(lambda x: f(x).sin().sum())),
    "hessian": lambda f: func.hessian(lambda x: f(x).sin().sum()),
    "reverse twice": lambda f: func.jacrev(func.jacrev(lambda x: f(x).sin().sum())),
    "reverse of forward": lambda f: func.jacrev(func.jacfwd(lambda x: f(x).sin().sum())),
    "forward twice": lambda f: func.jacfwd(func.jacfwd(lambda x: f(x).sin().sum())),
    "backward of vmap": lambda f: lambda x: torch.autograd.grad(func.vmap(f)(x.requires_grad_()).sin().sum(), x),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_function_transforms(transform, rng):
    """Fails if a transform of torch.func is refused, or takes an inactive, zero or active group for another kind."""
    x = torch.randn(3, 8, generator=rng, dtype=torch.float64)
    x[0, :2] = 0
    x[1, 2:4] *= 0.01
    thresholds = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    calls = (lambda x: group_relu(x, thresholds, 2), GroupReLU(thresholds, 2))
    expected = transform(lambda x: smooth_pieces(x, thresholds))(x.clone())
    for call in calls:
        torch.testing.assert_close(transform(call)(x.clone()), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("transform", [func.jacrev, func.jacfwd, func.hessian])
def test_function_transforms_in_the_threshold(transform, rng):
    """Fails if thresholds cannot be learned by torch.func, alone or together with x."""
    x = torch.randn(3, 8, generator=rng, dtype=torch.float64)
    thresholds = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    found = transform(lambda x, t: group_relu(x, t, 2).sin().sum(), (0, 1))(x, thresholds)
    expected = transform(lambda x, t: smooth_pieces(x, t).sin().sum(), (0, 1))(x, thresholds)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# Floating point


@every_operator
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_nothing_is_nan(operator, kind):
    """Fails if 0 / 0, inf / inf or 0 * inf occurs in value or gradient: zeros, subnormals and the largest numbers."""
    largest, tiny = torch.finfo(kind).max, torch.finfo(kind).smallest_normal
    rows = [[0.0] * 4, [tiny, 0, -tiny / 2, tiny / 4], [largest, largest, -largest, 0], [largest, 1, tiny, -1]]
    x = torch.tensor(rows, dtype=kind, requires_grad=True)
    z = operator(x)
    (gradient,) = torch.autograd.grad(z, x, torch.ones_like(z))
    assert z.dtype == kind and gradient.dtype == kind
    assert z.isfinite().all() and gradient.isfinite().all()


@every_operator
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precisions_round_the_float32_result(operator, half, rng):
    """Fails if half precision is computed in half, where 300^2 is infinite: the result is the float32 one, rounded."""
    x = torch.randn(100, 8, generator=rng).to(half)
    x[0] = 300.0
    assert torch.equal(operator(x), operator(x.float()).to(half))


# Layout


@every_operator
def test_leading_axes_and_memory_order_do_not_matter(operator, rng, device):
    """Fails if an axis is folded, if strides are taken for order, if x is overwritten, or on an empty batch."""
    x = torch.randn(8, 3, 5, generator=rng, dtype=torch.float64).to(device).permute(2, 1, 0)
    before = x.clone()
    z = operator(x)
    assert z.shape == x.shape and z.device == x.device and torch.equal(x, before)
    for i, j in np.ndindex(5, 3):
        torch.testing.assert_close(z[i, j], operator(x[i, j].contiguous()), rtol=1e-14, atol=0)
    assert operator(x[:0]).shape == (0, 3, 8)


@pytest.mark.parametrize("operator", [group_relu, group_hard_threshold])
def test_a_threshold_for_each_group(operator, rng):
    """Fails if thresholds broadcast along the wrong axis: as many samples as groups, each group done alone."""
    x, thresholds = torch.randn(4, 12, generator=rng, dtype=torch.float64), [0.0, 0.5, 1.0, 5.0]
    z = operator(x, torch.tensor(thresholds), 3)
    for g, threshold in enumerate(thresholds):
        block = slice(3 * g, 3 * g + 3)
        assert torch.equal(z[:, block], operator(x[:, block], threshold, 3))


# The layer, and errors


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("threshold", [0.5, torch.tensor([0.1, 0.5, 2.0])], ids=["number", "per-group"])
def test_layer_is_the_function(variant, threshold, rng, device):
    """Fails if the layer drops an argument, shares its threshold, or its state needs a threshold of the same shape."""
    given = torch.as_tensor(threshold).clone()
    layer = GroupReLU(given, 2, **variant).to(device)
    given.zero_()
    x = torch.randn(5, 6, generator=rng).to(device)
    assert torch.equal(layer(x), group_relu(x, threshold, 2, **variant))
    for start in (0.0, torch.zeros(3)):
        other = pickle.loads(pickle.dumps(GroupReLU(start, 2, **variant)))
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other.to(device)(x), layer(x))
    assert "groups=2" in repr(layer)


# Batches and learned thresholds


def test_batch_top_k_keeps_the_strongest_of_the_batch(rng, dtype):
    """Fails if it chooses sample by sample, counts atoms in place of groups, or shrinks."""
    x = torch.randn(5, 12, generator=rng, dtype=dtype)
    kept = batch_group_top_k(x, 1.4, 3).numpy().reshape(20, 3)
    blocks = x.numpy().reshape(20, 3)
    order = sorted(range(20), key=lambda pair: -float((blocks[pair].astype(float) ** 2).sum()))
    for place, pair in enumerate(order):
        assert np.array_equal(kept[pair], blocks[pair] if place < 7 else np.zeros(3))


def test_batch_top_k_of_one_sample_is_top_k(rng):
    """Fails if the two differ where they are the same."""
    x = torch.randn(1, 20, generator=rng)
    assert torch.equal(batch_group_top_k(x, 3, 2), group_top_k(x, 3, 2))


def test_jump_relu_is_the_hard_threshold_with_a_derivative(rng):
    """Fails if values are others, the gate lets shrinkage in, or theta's pseudo-derivative leaves its formula."""
    x = torch.randn(400, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(400, 6, generator=rng, dtype=torch.float64)
    values = group_jump_relu(x, theta, 2, bandwidth=0.4)
    assert torch.equal(values, group_hard_threshold(x, theta, 2))
    values.backward(upstream)
    blocks, pulled = x.detach().numpy().reshape(400, 3, 2), upstream.numpy().reshape(400, 3, 2)
    moved, passed = np.zeros(3), np.zeros((400, 3, 2))
    for i, g in np.ndindex(400, 3):
        norm, t = np.linalg.norm(blocks[i, g]), theta[g].item()
        if abs(norm - t) < 0.2:
            moved[g] -= t / 0.4 * (pulled[i, g] @ blocks[i, g]) / norm
        if norm > t:
            passed[i, g] = pulled[i, g]
    np.testing.assert_allclose(theta.grad, moved, rtol=1e-12)
    np.testing.assert_allclose(x.grad, passed.reshape(400, 6))


def test_jump_relu_is_zero_at_its_threshold():
    """Fails if a group that is as long as its threshold passes, or a zero group's derivative is not a number."""
    x, theta = torch.tensor([3.0, 4.0, 6.0, 8.0, 0.0, 0.0], requires_grad=True), torch.tensor(5.0, requires_grad=True)
    values = group_jump_relu(x, theta, 2, bandwidth=11.0)
    assert torch.equal(values, torch.tensor([0.0, 0.0, 6.0, 8.0, 0.0, 0.0]))
    values.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0] and theta.grad.isfinite()
