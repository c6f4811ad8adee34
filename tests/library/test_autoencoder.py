"""The autoencoder against its equation written as loops, and against the optimum of the group lasso."""

import copy
import itertools

import numpy as np
import pytest
import torch
from penalties import group_penalty
from scipy.optimize import minimize
from torch import func

from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.groups import active_groups
from gsae_lib.networks import GroupSparseAutoencoder, SparseAutoencoder, set_target_sparsity

N_FEATURES, N_GROUPS, GROUP_SIZE = 6, 4, 2
SIZES = (N_FEATURES, N_GROUPS, GROUP_SIZE)
HALVES = (torch.float16, torch.bfloat16)


def make(rng, penalty=0.4, dtype=torch.float64, **settings):
    """A model on Gaussian columns (groups are not orthonormal) and data of its shape."""
    weight = torch.randn(N_FEATURES, N_GROUPS * GROUP_SIZE, generator=rng, dtype=dtype) / 2
    data = torch.randn(7, N_FEATURES, generator=rng, dtype=dtype)
    kind = {name: settings.pop(name) for name in ("nonnegative", "l1") if name in settings}
    asked = group_penalty(penalty, GROUP_SIZE, **kind)
    return GroupSparseAutoencoder(N_FEATURES, N_GROUPS, penalty=asked, dictionary=weight, **settings), data


def prox(x, thresholds, group_size, nonnegative=False, elementwise=0.0):
    """The proximal step of one sample, entry by entry and group by group."""
    z = np.zeros_like(x)
    for g in range(len(x) // group_size):
        block = slice(g * group_size, (g + 1) * group_size)
        soft = [max(v - elementwise, 0) if nonnegative or v > 0 else min(v + elementwise, 0) for v in x[block]]
        kept = np.array(soft)
        norm = np.sqrt(np.sum(kept**2))
        if norm > thresholds[g]:
            z[block] = kept / norm * (norm - thresholds[g])
    return z


def unfold(y, w, penalties, step, n_iterations, accelerated, group_size=2, nonnegative=False, elementwise=0.0):
    """Beck and Teboulle's listing for one sample: gradient of 1/2 ||y - W x||^2 at z, prox, then extrapolation."""
    x = z = np.zeros(w.shape[1])
    t = 1.0
    for _ in range(n_iterations):
        gradient = -w.T @ (y - w @ z)
        x_next = prox(z - step * gradient, step * penalties, group_size, nonnegative, step * elementwise)
        t_next = (1 + np.sqrt(1 + 4 * t**2)) / 2
        z = x_next + (t - 1) / t_next * (x_next - x) if accelerated else x_next
        x, t = x_next, t_next
    return x


def objective(y, w, x, penalty):
    return 0.5 * np.sum((y - w @ x) ** 2) + np.sum(penalty * np.linalg.norm(x.reshape(-1, GROUP_SIZE), axis=1))


# The iteration


@pytest.mark.parametrize("n_iterations", [1, 2, 3, 9])
@pytest.mark.parametrize("accelerated", [False, True], ids=["ista", "fista"])
@pytest.mark.parametrize("penalty", [0.4, torch.tensor([0.0, 0.2, 0.5, 3.0]).double()], ids=["number", "per-group"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("elementwise", [0.0, 0.1])
def test_network_is_the_literal_iteration(n_iterations, accelerated, penalty, nonnegative, elementwise, rng):
    """Fails at a sign, a momentum one step early or late, or a threshold without the step: T = 1, 2, 3 differ."""
    how = {"n_iterations": n_iterations, "accelerated": accelerated, "step_size": 0.3, "nonnegative": nonnegative}
    model, data = make(rng, penalty, **how, l1=elementwise)
    penalties = np.broadcast_to(penalty, N_GROUPS)
    weight, options = model.weight.detach().numpy(), {"nonnegative": nonnegative, "elementwise": elementwise}
    expected = [unfold(y, weight, penalties, 0.3, n_iterations, accelerated, **options) for y in data.numpy()]
    reconstruction, codes = model(data)
    np.testing.assert_allclose(codes.detach(), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(reconstruction.detach(), np.array(expected) @ weight.T, rtol=0, atol=1e-13)
    assert repr(model).count(f"n_iterations={n_iterations}") == 1


@pytest.mark.parametrize("shape", [(6, 2, 2), (6, 4, 2), (6, 3, 2)], ids=["tall", "wide", "square"])
def test_automatic_step_is_one_over_the_squared_spectral_norm(shape, rng, dtype):
    """Fails with the Frobenius norm, the norm not squared, or the wrong Gram matrix: T = 1 shows the step."""
    weight = torch.randn(shape[0], shape[1] * shape[2], generator=rng, dtype=dtype)
    model = GroupSparseAutoencoder(*shape, 0.0, dictionary=weight)
    data = torch.randn(3, shape[0], generator=rng, dtype=dtype)
    expected = data.numpy() @ weight.numpy() / np.linalg.svd(weight.numpy())[1][0] ** 2
    np.testing.assert_allclose(model.encode(data).detach(), expected, rtol=2e-5 if dtype == torch.float32 else 1e-12)


def test_a_weight_of_zeros_or_infinities_has_codes():
    """Fails if the step divides by zero, no data raise, or a diverged weight is an error: training must see nan."""
    model = GroupSparseAutoencoder(*SIZES, 0.1, n_iterations=3, dictionary=torch.zeros(6, 8))
    assert torch.equal(model.encode(torch.ones(2, 6)), torch.zeros(2, 8))
    reconstruction, codes = model(torch.ones(0, 6))
    assert reconstruction.shape == (0, 6) and codes.shape == (0, 8)
    with torch.no_grad():
        model.weight[0, 0] = torch.inf
    assert model(torch.ones(2, 6))[0].isnan().any()


# The limit: the group lasso


@pytest.mark.parametrize("accelerated", [False, True], ids=["ista", "fista"])
@pytest.mark.parametrize("penalty", [0.4, torch.tensor([0.05, 0.2, 0.5, 3.0]).double()], ids=["number", "per-group"])
def test_many_iterations_match_a_constrained_solver_on_the_dual(accelerated, penalty, rng):
    """Fails if the objective is another one: the residual solves min ||y - r||^2 s.t. ||W_g^T r|| <= lambda_g."""
    model, data = make(rng, penalty, n_iterations=4000, accelerated=accelerated)
    w, penalties = model.weight.detach().numpy(), np.broadcast_to(penalty, N_GROUPS)
    groups = w.reshape(N_FEATURES, N_GROUPS, GROUP_SIZE).transpose(1, 2, 0)
    constraint = {
        "type": "ineq",
        "fun": lambda r: penalties**2 - ((groups @ r) ** 2).sum(axis=1),
        "jac": lambda r: -2 * np.einsum("gdn,gd->gn", groups, groups @ r),
    }
    codes = model.encode(data).detach().numpy()
    assert 0 < (codes == 0).mean() < 1
    for y, x in zip(data.numpy(), codes, strict=True):
        dual = minimize(
            lambda r, y=y: 0.5 * np.sum((r - y) ** 2),
            np.zeros(N_FEATURES),
            jac=lambda r, y=y: r - y,
            constraints=constraint,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(y - w @ x, dual.x, rtol=0, atol=1e-6)
        # Strong duality: the primal value is 1/2 ||y||^2 - 1/2 ||y - r||^2.
        assert objective(y, w, x, penalties) == pytest.approx(0.5 * y @ y - dual.fun, abs=1e-8)


# Derivatives


@pytest.mark.parametrize("n_iterations", [1, 4])
@pytest.mark.parametrize("settings", [{}, {"accelerated": False}, {"tied": False}, {"nonnegative": True}], ids=str)
def test_gradcheck(n_iterations, settings, rng):
    """Fails if a path of the weight is cut: encoder, each unfolded step, or decoder."""
    model, data = make(rng, 0.1, n_iterations=n_iterations, step_size=0.3, **settings)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def forward(data, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), data)

    assert torch.autograd.gradcheck(forward, (data.requires_grad_(), *parameters))


def test_the_automatic_step_is_a_constant_for_the_gradient(rng):
    """Fails if the step is differentiated: the gradient must be that of a model with the same fixed step."""
    model, data = make(rng, n_iterations=5)
    step = 1 / np.linalg.norm(model.weight.detach().numpy(), 2) ** 2
    fixed = GroupSparseAutoencoder(*SIZES, 0.4, n_iterations=5, step_size=step, dictionary=model.weight)
    for m in (model, fixed):
        m(data)[0].square().sum().backward()
    torch.testing.assert_close(model.weight.grad, fixed.weight.grad, rtol=1e-9, atol=1e-12)


def reconstruction_error(weight, data, n_iterations, step, penalty=0.3):
    """||y - y_hat||^2 summed, from the listing of FISTA as a plain expression, whose derivatives are left to torch."""
    code = point = torch.zeros(len(data), weight.shape[1], dtype=data.dtype)
    t = 1.0
    for _ in range(n_iterations):
        blocks = (point + step * (data - point @ weight.T) @ weight).unflatten(1, (-1, GROUP_SIZE))
        squares = blocks.square().sum(dim=2, keepdim=True)
        active = squares > (step * penalty) ** 2
        scale = torch.where(active, 1 - step * penalty / torch.where(active, squares, 1.0).sqrt(), 0.0)
        last, code = code, (scale * blocks).flatten(1)
        last_t, t = t, (1 + (1 + 4 * t**2) ** 0.5) / 2
        point = code + (last_t - 1) / t * (code - last)
    return (data - code @ weight.T).square().sum()


WEIGHT_TRANSFORMS = {
    "grad": lambda f: func.grad(f),
    "of the data": lambda f: func.jacrev(f, 1),
    "jacfwd": lambda f: func.jacfwd(f),
    "hessian": lambda f: func.hessian(f),
    "forward twice": lambda f: func.jacfwd(func.jacfwd(f)),
    "each sample": lambda f: func.vmap(func.grad(lambda w, y: f(w, y[None])), (None, 0)),
    "ensemble": lambda f: lambda w, y: func.vmap(func.grad(f), (0, None))(torch.stack([w, 1.1 * w]), y),
    "backward of vmap": lambda f: (
        lambda w, y: torch.autograd.functional.jacobian(lambda w: func.vmap(lambda y: f(w, y[None]))(y).sum(), w)
    ),
}


@pytest.mark.parametrize("settings", [{"n_iterations": 1}, {"n_iterations": 3, "checkpoint": True}, {}], ids=str)
@pytest.mark.parametrize("transform", WEIGHT_TRANSFORMS.values(), ids=WEIGHT_TRANSFORMS.keys())
def test_function_transforms(transform, settings, rng):
    """Fails if torch.func cannot transform the model, or a sample or a model of a batch receives another's gradient."""
    model, data = make(rng, 0.3, **{"n_iterations": 3, "step_size": 0.3} | settings)

    def error(weight, data):
        return (data - func.functional_call(model, {"weight": weight}, (data,))[0]).square().sum()

    def by_hand(weight, data):
        return reconstruction_error(weight, data, model.n_iterations, 0.3)

    weight = model.weight.detach()
    found, expected = (transform(f)(weight.clone(), data) for f in (error, by_hand))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


# Weights and buffers


def test_untied_decoder(rng):
    """Fails if encoder and decoder share memory, the encoder uses the decoder, or the copy differs at the start."""
    model, data = make(rng, tied=False, n_iterations=3)
    tied, _ = make(torch.Generator().manual_seed(20210207), n_iterations=3)
    assert [name for name, _ in model.named_parameters()] == ["weight", "decoder_weight"]
    assert [name for name, _ in tied.named_parameters()] == ["weight"]
    for found, expected in zip(model(data), tied(data), strict=True):
        assert torch.equal(found, expected)
    with torch.no_grad():
        model.decoder_weight.mul_(2)
    assert torch.equal(model.encode(data), tied.encode(data))
    torch.testing.assert_close(model(data)[0], 2 * tied(data)[0])


def test_the_start_is_a_copy_or_random_orthonormal_groups(rng):
    """Fails if training would change the caller's dictionary, or the default start is drawn from elsewhere."""
    weight = torch.randn(6, 8, generator=rng)
    with torch.no_grad():
        GroupSparseAutoencoder(*SIZES, 0.1, dictionary=weight).weight.zero_()
    assert weight.all()
    expected = orthonormal_groups_dictionary(*SIZES, generator=torch.Generator().manual_seed(3))
    model = GroupSparseAutoencoder(*SIZES, 0.1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(model.weight, expected)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_sparse_autoencoder_is_the_case_of_groups_of_one(nonnegative, rng):
    """Fails if the baseline is other code: groups of one, by the literal iteration with d = 1."""
    weight = torch.randn(6, 9, generator=rng, dtype=torch.float64)
    data = torch.randn(4, 6, generator=rng, dtype=torch.float64)
    model = SparseAutoencoder(6, 9, 0.2, n_iterations=5, step_size=0.05, nonnegative=nonnegative, dictionary=weight)
    expected = [
        unfold(y, weight.numpy(), np.full(9, 0.2), 0.05, 5, True, group_size=1, nonnegative=nonnegative)
        for y in data.numpy()
    ]
    np.testing.assert_allclose(model.encode(data).detach(), expected, rtol=0, atol=1e-13)
    assert (model.n_groups, model.group_size) == (9, 1)


# Errors


def test_activity_is_held_by_the_penalty(rng):
    """Fails if the bisection goes the wrong way, stops early, or leaves another penalty in the model."""
    data = torch.randn(300, 12, generator=rng, dtype=torch.float64)
    model = GroupSparseAutoencoder(12, 6, 2, 1.0, n_iterations=5, generator=rng).double()
    for wanted in (0.5, 3.0, 5.5):
        penalty = set_target_sparsity(model, data, wanted, tol=0.02)
        assert model.penalty.item() == pytest.approx(penalty)
        assert active_groups(model.encode(data), 2).sum(dim=1).double().mean() == pytest.approx(wanted, rel=0.02)
    with pytest.raises(ValueError, match="active=7"):
        set_target_sparsity(model, data, 7.0)
    with pytest.raises(ValueError, match="not reached"):
        set_target_sparsity(model, torch.zeros_like(data), 1.0)
    assert model.penalty.item() == penalty


def test_activity_is_that_of_all_samples(rng):
    """Fails if the first 1,000 samples stand for all: the last 2,000 are ten times as large."""
    data = torch.randn(3000, 12, generator=rng, dtype=torch.float64)
    data[1000:] *= 10
    model = GroupSparseAutoencoder(12, 6, 2, 1.0, n_iterations=5, generator=rng).double()
    set_target_sparsity(model, data, 3.0, tol=0.02)
    assert active_groups(model.encode(data), 2).sum(dim=1).double().mean() == pytest.approx(3.0, rel=0.05)


def test_the_penalty_travels_with_the_model(rng, device):
    """Fails if a new penalty or weights are lost in a state or on the way to a device; 0.3 kept a penalty for each."""
    many = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    model, data = make(rng, many)
    old = {"weight": model.weight.detach(), "penalty": many}
    for state in (old, model.state_dict()):
        for other in (make(rng, 0.5)[0], copy.deepcopy(make(rng, 0.5)[0])):
            other.load_state_dict(state)
            assert torch.equal(other.encode(data), model.encode(data))
    with pytest.raises(RuntimeError, match="weights"):
        make(rng, 0.5)[0].load_state_dict(old | {"penalty": many[:3]})
    changed, _ = make(torch.Generator().manual_seed(1), 0.4)
    expected, data = make(torch.Generator().manual_seed(1), 1.1)
    changed.set_penalty(1.1)
    assert changed.state_dict()["penalty"].item() == 1.1
    assert torch.equal(changed.encode(data), expected.encode(data))
    moved = changed.to(device, torch.float32)
    assert moved.penalty.device == moved.weight.device and moved.penalty.dtype == torch.float32


def test_groups_of_several_sizes_are_those_of_a_padded_dictionary(rng):
    """Fails if a group takes its neighbour's atom: the same network with columns of zeros, which are never used."""
    sizes, lists = [3, 1, 2], [[0, 4, 2], [5], [1, 3]]
    for groups, columns in (
        (sizes, [0, 1, 2, 3, None, None, 4, 5, None]),
        (lists, [0, 4, 2, 5, None, None, 1, 3, None]),
    ):
        weight = torch.randn(6, 6, generator=rng, dtype=torch.float64) / 2
        padded = torch.stack([torch.zeros(6).double() if c is None else weight[:, c] for c in columns], dim=1)
        data = torch.randn(9, 6, generator=rng, dtype=torch.float64)
        settings = {"n_iterations": 4, "step_size": 0.2}
        model = GroupSparseAutoencoder(6, 3, groups, 0.3, dictionary=weight, **settings)
        wide = GroupSparseAutoencoder(6, 3, 3, 0.3, dictionary=padded, **settings)
        used = [k for k, c in enumerate(columns) if c is not None]
        atoms = [c for c in columns if c is not None]
        torch.testing.assert_close(model.encode(data)[:, atoms], wide.encode(data)[:, used])
        assert 0 < (model.encode(data) == 0).double().mean() < 1
        with pytest.raises(ValueError, match="expected groups of one size"):
            _ = model.group_size


@pytest.mark.parametrize(("kind", "n_iterations"), [(torch.float32, 30), *itertools.product(HALVES, (1, 4))], ids=str)
def test_other_precisions_are_near_float64(kind, n_iterations, rng, device):
    """Fails if the automatic step or another part has no half precision, or a device changes the result."""
    model, data = make(rng, 0.1, n_iterations=n_iterations)
    expected = model(data)[0].detach()
    found = model.to(device, kind)(data.to(device, kind))[0]
    found.sum().backward()
    tolerance = 0.05 if kind in HALVES else 2e-5
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=tolerance)
