"""The unfolded encoder's own derivative against automatic differentiation of its steps."""

import dataclasses

import pytest
import torch
from penalties import group_penalty

from gsae_lib import GroupSparseAutoencoder
from gsae_lib.activations import group_relu
from gsae_lib.groups import active_groups
from gsae_lib.networks import Unfolding, tied_gradient, unfold, unfolding
from gsae_lib.penalty import GroupPenalty

STEPS = Unfolding(step=0.3, penalty=GroupPenalty(0.4, 2), n_iterations=5)
WEIGHTS = torch.tensor([0.0, 0.2, 0.5, 30.0], dtype=torch.float64)
VARIANTS = [
    {},
    {"accelerated": False},
    {"penalty": GroupPenalty(0.4, 2, nonnegative=True)},
    {"penalty": GroupPenalty(0.4, 2, l1=0.1)},
    {"penalty": GroupPenalty(1.0, 2, weights=WEIGHTS)},
    {"penalty": GroupPenalty(1.0, 2, weights=WEIGHTS, nonnegative=True, l1=0.1)},
    {"penalty": GroupPenalty(0.4, [3, 1, 4])},
    {"penalty": GroupPenalty(0.4, [[0, 7, 2], [1], [3, 4, 5, 6]], weights=[1.0, 0.5, 2.0], l1=0.05)},
    {"n_iterations": 2},
]


def inputs(rng, dtype=torch.float64, samples=9, device="cpu"):
    """(correlations, gram) of a Gaussian dictionary, and a weighting of the codes."""
    weight = torch.randn(6, 8, generator=rng, dtype=torch.float64).to(device, dtype) / 2
    data = torch.randn(samples, 6, generator=rng, dtype=torch.float64).to(device, dtype)
    weighting = torch.randn(samples, 8, generator=rng, dtype=torch.float64).to(device, dtype)
    return (data @ weight).requires_grad_(), (weight.T @ weight).requires_grad_(), weighting


def gradients(codes, weighting, correlations, gram):
    return torch.autograd.grad((weighting * codes).sum(), (correlations, gram))


def in_blocks(monkeypatch):
    """Nine samples of eight atoms in blocks of four, four and one."""
    monkeypatch.setattr(unfolding, "BLOCK_ENTRIES", 32)
    monkeypatch.setattr(unfolding, "FEWEST_BLOCKS", 1)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradient_is_that_of_the_steps(variant, checkpoint, rng, dtype, device, monkeypatch):
    """Fails at a momentum one step off, a lost term of the Gram matrix, or samples of another block."""
    in_blocks(monkeypatch)
    correlations, gram, weighting = inputs(rng, dtype, device=device)
    steps = dataclasses.replace(STEPS, **variant, checkpoint=checkpoint)
    *_, by_steps = unfolding._iterates(correlations, gram, steps)
    codes = unfold(correlations, gram, steps)
    assert 0 < (codes == 0).sum() < codes.numel()
    found, expected = ([x, *gradients(x, weighting, correlations, gram)] for x in (codes, by_steps))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_second_derivative(variant, rng):
    """Fails if a Hessian through the encoder is silently wrong: it must be differentiable twice."""
    correlations, gram, _ = inputs(rng, samples=2)
    steps = dataclasses.replace(STEPS, **({"n_iterations": 3} | variant))
    assert torch.autograd.gradgradcheck(lambda *x: unfold(*x, steps), (correlations, gram))


@pytest.mark.parametrize("group_size", [1, 2])
def test_without_a_penalty_zero_codes_have_the_gradient_of_others(group_size, rng):
    """Fails if a code of exactly 0 stops the gradient at penalty 0, where codes are linear in the correlations."""
    correlations, gram, weighting = inputs(rng)
    steps = dataclasses.replace(STEPS, penalty=GroupPenalty(0.0, group_size))
    found = [
        gradients(unfold(x, gram, steps), weighting, x, gram)[0]
        for x in (correlations, torch.zeros_like(correlations, requires_grad=True))
    ]
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("penalty", [0.0, 0.4, WEIGHTS], ids=str)
@pytest.mark.parametrize("kind", [{}, {"nonnegative": True}, {"l1": 0.1}], ids=str)
@pytest.mark.parametrize("variant", [{}, {"accelerated": False}, {"n_iterations": 1}], ids=str)
def test_tied_gradient_is_that_of_the_reconstruction_error(
    variant, kind, penalty, group_size, rng, dtype, device, monkeypatch
):
    """Fails at a wrong sign of one of the two paths to W, a lost half of the Gram matrix, or a soft threshold that
    passes what it cut; the oracle forms the residual and differentiates automatically."""
    in_blocks(monkeypatch)
    weight = (torch.randn(6, 8, generator=rng, dtype=torch.float64) / 2).to(device, dtype)
    data = torch.randn(9, 6, generator=rng, dtype=torch.float64).to(device, dtype)
    if isinstance(penalty, torch.Tensor):
        penalty = penalty.repeat_interleave(2 // group_size)
    steps = dataclasses.replace(STEPS, **variant, penalty=group_penalty(penalty, group_size, **kind))
    loss, gradient, pairs = tied_gradient(data, weight, steps)
    weight.requires_grad_()
    *_, codes = unfolding._iterates(data @ weight, weight.T @ weight, steps)
    expected = 0.5 * (data - codes @ weight.T).square().sum(dim=1).mean()
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weight)[0], **tolerance)
    assert loss == pytest.approx(expected.item(), abs=tolerance["atol"])
    assert pairs == active_groups(codes, group_size).sum()


def test_tied_gradient_does_not_cancel(rng, dtype, device):
    """Fails if a small residual is a difference of large numbers: in float32 the loss was negative."""
    weight = torch.linalg.qr(torch.randn(16, 16, generator=rng, dtype=torch.float64)).Q.to(device, dtype)
    data = (torch.randn(40, 16, generator=rng, dtype=torch.float64) + 10).to(device, dtype)
    steps = dataclasses.replace(STEPS, penalty=GroupPenalty(1e-2, 2), step=1.0)
    loss, gradient, _ = tied_gradient(data, weight, steps)
    exact, target = weight.double().requires_grad_(), data.double()
    *_, codes = unfolding._iterates(target @ exact, exact.T @ exact, steps)
    expected = 0.5 * (target - codes @ exact.T).square().sum(dim=1).mean()
    (slope,) = torch.autograd.grad(expected, exact)
    assert expected < 1e-6 * target.square().sum(dim=1).mean()
    tolerance = 1e-2 if dtype == torch.float32 else 1e-9
    assert loss == pytest.approx(expected.item(), rel=tolerance)
    assert (gradient - slope).norm() < tolerance * slope.norm()


def test_decoder_gradient_holds_the_codes(rng):
    """Fails if a path through the encoder is left: the gradient must be that of 1/2 ||y - W x||^2 at fixed x."""
    model = GroupSparseAutoencoder(6, 4, 2, 0.1, n_iterations=4, gradient="decoder", generator=rng)
    unrolled = GroupSparseAutoencoder(6, 4, 2, 0.1, n_iterations=4, dictionary=model.weight.detach())
    data = torch.randn(7, 6, generator=rng)
    for network in (model, unrolled):
        (0.5 * (data - network(data)[0]).square().sum()).backward()
    codes, weight = model.encode(data), model.weight.detach()
    assert not codes.requires_grad
    torch.testing.assert_close(unrolled.encode(data), codes)
    torch.testing.assert_close(model.weight.grad, -(data - codes @ weight.T).T @ codes)
    assert not torch.allclose(unrolled.weight.grad, model.weight.grad, rtol=0.01)


def saved_entries(compute):
    """Entries that autograd keeps for the backward pass, each storage counted once."""
    storages = {}

    def keep(x):
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        compute()
    return sum(storages.values())


def test_group_relu_keeps_its_value_and_the_norms():
    """Fails if the input, a mask or a scale is kept as well: a value of N m and norms of N Gamma entries are enough."""
    x = torch.randn(50, 40, requires_grad=True)
    assert saved_entries(lambda: group_relu(x, 0.5, 4)) <= 50 * 40 + 50 * 10 + 1


@pytest.mark.parametrize("iterations", [3, 30])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_checkpoint_keeps_no_iterates(checkpoint, iterations, rng):
    """Fails if memory grows with T under `checkpoint`, or if the other form forgets that it keeps the iterates."""
    correlations, gram, _ = inputs(rng)
    steps = dataclasses.replace(STEPS, n_iterations=iterations, checkpoint=checkpoint)
    kept = 0 if checkpoint else iterations * correlations.numel()
    assert saved_entries(lambda: unfold(correlations, gram, steps)) == correlations.numel() + gram.numel() + kept
