"""Sparse autoencoders against their equations per sample in numpy, other libraries' activations, and autograd."""

import dataclasses
import gc
import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from gsae_lib import _saved
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary
from gsae_lib.groups import active_groups
from gsae_lib.sae import BatchTopKSAE, GroupJumpReLUSAE, GroupReLUSAE, GroupSAE, GroupTopKSAE, architectures
from gsae_lib.sae.architectures import CONSTRAINTS
from gsae_lib.training import TrainingError, TrainingSettings, train
from gsae_lib.training import loop as training

ARCHITECTURES = [GroupReLUSAE, GroupTopKSAE, BatchTopKSAE, GroupJumpReLUSAE]
SIZES = N_FEATURES, N_GROUPS, GROUP_SIZE = 7, 6, 2
SETTINGS = TrainingSettings(epochs=3, batch_size=64, learning_rate=3e-3, progress=False)


def make(rng, kind=BatchTopKSAE, dtype=torch.float64, n_samples=9, sizes=SIZES, **settings):
    """A sparse autoencoder whose encoder, biases, scale and thresholds are all of their own, and data."""
    settings = {"decoder": "free", "revival": 0.0, "n_active": 2} | settings
    weight = torch.randn(sizes[0], sizes[1] * sizes[2], generator=rng, dtype=dtype) / 2
    model = kind(*sizes, dictionary=weight, **settings)
    data = 1 + 2 * torch.randn(n_samples, sizes[0], generator=rng, dtype=dtype)
    model.prepare(data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng, dtype=dtype)
    return model, data


def responses_of(model, y):
    """h of one sample, group by group, from the equation."""
    u = (model.weight if model.encoder_weight is None else model.encoder_weight).detach().numpy()
    x, b = y / model.scale.item(), np.zeros(u.shape[1])
    if model.centre is not None:
        x, b = x - model.centre.detach().numpy(), model.encoder_bias.detach().numpy()
    h = u.T @ x + b
    return (np.maximum(h, 0) if model.nonnegative else h).reshape(-1, GROUP_SIZE)


def encode_one(model, y, thetas):
    """The code of one sample from its definition."""
    h = responses_of(model, y)
    norms = np.sqrt((h**2).sum(axis=1))
    z = np.zeros_like(h)
    strongest = sorted(range(len(h)), key=lambda g: -norms[g])[: int(model.n_active or 0)]
    for g in range(len(h)):
        if isinstance(model, GroupTopKSAE):
            z[g] = h[g] if g in strongest else 0
        elif norms[g] > thetas[g]:
            z[g] = h[g] * (1 - thetas[g] / norms[g]) if isinstance(model, GroupReLUSAE) else h[g]
    return z.reshape(-1)


# The model


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_codes_and_reconstructions_are_the_equations(kind, tied, bias, nonnegative, rng):
    """Fails at a lost bias, a scale applied once, a threshold of another group, or a group shrunk that is only kept."""
    model, data = make(rng, kind, tied=tied, bias=bias, nonnegative=nonnegative)
    thetas = model.thresholds()
    thetas = np.broadcast_to(0.0 if thetas is None else thetas.detach().numpy(), N_GROUPS)
    rebuilt, codes = model(data)
    expected = np.array([encode_one(model, y, thetas) for y in data.numpy()])
    np.testing.assert_allclose(codes.detach(), expected, atol=1e-12)
    assert 0 < (expected != 0).mean() < 1
    centre = 0 if model.centre is None else model.centre.detach().numpy()
    decoded = model.scale.item() * (expected @ model.weight.detach().numpy().T + centre)
    np.testing.assert_allclose(rebuilt.detach(), decoded, atol=1e-12)


class JumpReLU(torch.autograd.Function):
    """The listing of arXiv 2407.14435, appendix: one entry, non-negative."""

    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return x * (x > threshold)

    @staticmethod
    def backward(ctx, grad):
        (x, threshold), width = ctx.saved_tensors, ctx.bandwidth
        inside = ((x - threshold) / width > -0.5) & ((x - threshold) / width < 0.5)
        return (x > threshold) * grad, (-(threshold / width) * inside * grad).sum(0), None


class Step(torch.autograd.Function):
    """The listing's step function, whose sum is L0."""

    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return (x > threshold).to(x)

    @staticmethod
    def backward(ctx, grad):
        (x, threshold), width = ctx.saved_tensors, ctx.bandwidth
        inside = ((x - threshold) / width > -0.5) & ((x - threshold) / width < 0.5)
        return torch.zeros_like(x), (-(1 / width) * inside * grad).sum(0), None


def sae_loss(model, data, kind):
    """The loss of the sparse autoencoders of others, whose latents are one-dimensional and non-negative."""
    x = data / model.scale
    pre = torch.relu((x - model.centre) @ model.encoder_weight + model.encoder_bias)
    extra = 0.0
    if kind is GroupTopKSAE:
        values, indices = pre.topk(int(model.n_active), dim=-1)
        z = torch.zeros_like(pre).scatter(-1, indices, values)
    elif kind is BatchTopKSAE:
        flat = pre.flatten()
        values, indices = flat.topk(int(model.n_active * len(x)))
        z = torch.zeros_like(flat).scatter(-1, indices, values).view_as(pre)
    elif kind is GroupJumpReLUSAE:
        theta = model.log_threshold.exp()
        width = model.bandwidth * theta.detach()
        z = JumpReLU.apply(pre, theta, width)
        l0 = Step.apply(pre, theta, width).sum(-1).mean()
        extra = model.sparsity_weight * model.n_features / 2 * (l0 / model.n_active - 1) ** 2
    error = z @ model.weight.T + model.centre - x
    return error.square().sum(-1).mean() / 2 + extra


@pytest.mark.parametrize("share", [0.0, 2.0], ids=["dense", "active groups alone"])
@pytest.mark.parametrize("kind", [GroupTopKSAE, BatchTopKSAE, GroupJumpReLUSAE])
def test_groups_of_one_are_the_sparse_autoencoders_of_others(kind, share, monkeypatch, rng):
    """Fails if loss or a gradient is not that of TopK, BatchTopK or JumpReLU, by either of the two products."""
    monkeypatch.setattr(architectures, "SPARSE_SHARE", share)
    wide = {"bandwidth": 0.8} if kind is GroupJumpReLUSAE else {}
    model, data = make(rng, kind, n_samples=30, sizes=(7, 12, 1), n_active=3, nonnegative=True, **wide)
    expected = sae_loss(model, data, kind)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, pairs = model.training_loss(data)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    found = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), one, other in zip(model.named_parameters(), found, gradients, strict=True):
        assert one.norm() > 0, name
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12, msg=name)
    if kind is not GroupJumpReLUSAE:
        assert pairs == 90


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_products_of_active_groups_alone_change_nothing(kind, tied, nonnegative, monkeypatch, rng, dtype):
    """Fails if a gradient misses a pair, a bias, or half of a tied weight, in either precision."""
    results, wide = [], {"bandwidth": 0.7} if kind is GroupJumpReLUSAE else {}
    for share in (0.0, 2.0):
        monkeypatch.setattr(architectures, "SPARSE_SHARE", share)
        rng.manual_seed(5)
        model, data = make(rng, kind, dtype, 40, tied=tied, nonnegative=nonnegative, **wide)
        loss, pairs = model.training_loss(data)
        results.append([loss, pairs, *torch.autograd.grad(loss, list(model.parameters()))])
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-12}
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_shrinking_has_the_gradient_of_its_definition(rng):
    """Fails if theta, the batch's own, is differentiated, or the shrinkage is left out of the derivative."""
    model, data = make(rng, GroupReLUSAE, n_samples=20)
    loss, pairs = model.training_loss(data)
    x = data / model.scale
    h = ((x - model.centre) @ model.encoder_weight + model.encoder_bias).unflatten(1, (-1, GROUP_SIZE))
    norms = h.norm(dim=2)
    ordered = norms.detach().flatten().sort(descending=True).values
    theta = (ordered[39] + ordered[40]) / 2  # two groups a sample
    z = torch.relu(1 - theta / norms).unsqueeze(2) * h
    expected = (z.flatten(1) @ model.weight.T + model.centre - x).square().sum(1).mean() / 2
    assert pairs == 40 and loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(*(torch.autograd.grad(v, list(model.parameters())) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# Targets, inputs, constraints


@pytest.fixture(scope="module")
def planted():
    """4,000 samples with three active groups of 40, off the origin and of another scale."""
    rng = torch.Generator().manual_seed(1)
    dictionary = gaussian_dictionary(32, 40, 2, generator=rng)
    return 7 + 3 * GroupSparseSource(dictionary, 2, 3, snr_db=20.0).sample(4000, generator=rng).data


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_target_is_reached_in_one_run(kind, planted):
    """Fails if samples end with another number of active groups than asked for, in training or afterwards."""
    rng = torch.Generator().manual_seed(0)
    model = kind(32, 40, 2, n_active=3, generator=rng)
    model.prepare(planted)
    history = train(model, planted, dataclasses.replace(SETTINGS, epochs=12), generator=rng)
    assert history.loss[-1] < 0.8 * history.loss[0]
    assert history.curves["active_groups"][-1] == pytest.approx(3, rel=0.1)

    def mean_active():
        return active_groups(model.encode(planted), 2).sum(dim=1).double().mean().item()

    assert mean_active() == pytest.approx(3, rel=0.12)
    model.calibrate(planted)
    assert mean_active() == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("guess", [None, 0.0, 0.5, 0.9, 2.0])
def test_a_guess_changes_no_threshold(guess, rng):
    """Fails if a threshold that has fallen by more than was guessed is lost, or ends the run."""
    norms = torch.rand(50, 8, generator=rng)
    ordered = norms.flatten().sort(descending=True).values
    found = architectures._boundary(norms, 2.0, None if guess is None else torch.tensor(guess))
    assert found.item() == pytest.approx(((ordered[99] + ordered[100]) / 2).item())


def test_the_running_threshold_moves_a_tenth_of_the_way(rng):
    """Fails if it is replaced by that of each batch, or stays."""
    model, data = make(rng)
    before = model.threshold.item()
    norms = torch.tensor(np.array([np.linalg.norm(responses_of(model, y), axis=1) for y in data.numpy()]))
    model.training_loss(data)
    assert model.threshold.item() == pytest.approx(0.9 * before + 0.1 * architectures._boundary(norms, 2.0).item())


def test_prepared_inputs_are_centred_with_unit_variance(planted, rng):
    """Fails if centre or scale is not that of the data, or float16 on disk is summed in float16."""
    model = BatchTopKSAE(32, 40, 2, n_active=3, generator=rng)
    model.prepare(planted.numpy().astype(np.float16))
    x = planted / model.scale - model.centre.detach()
    assert x.square().mean().item() == pytest.approx(1, abs=1e-3) and x.mean(dim=0).abs().max() < 1e-3


@pytest.mark.parametrize("decoder", CONSTRAINTS)
def test_constraints_hold_after_training(decoder, planted, rng):
    """Fails if the decoder leaves its constraint, or "free" is constrained."""
    model = BatchTopKSAE(32, 40, 2, n_active=3, decoder=decoder, generator=rng)
    train(model, planted, SETTINGS, generator=rng)
    groups = model.weight.detach().unflatten(1, (40, 2)).movedim(1, 0)
    gram = groups.mT @ groups
    unit, orthonormal = (gram.diagonal(dim1=1, dim2=2) - 1).abs().max(), (gram - torch.eye(2)).abs().max()
    assert (unit < 1e-5) == (decoder != "free") and (orthonormal < 1e-5) == (decoder == "orthonormal")


def test_nearest_orthonormal_groups_are_the_polar_factors(rng, dtype):
    """Fails if the way by small matrices gives another basis, or squaring the condition number spoils one."""
    groups = torch.randn(5, 9, 3, generator=rng, dtype=dtype)
    tolerance = 100 * torch.finfo(dtype).eps
    for one, found in zip(groups.numpy(), architectures._nearest_orthonormal(groups).numpy(), strict=True):
        u, _, vh = np.linalg.svd(one, full_matrices=False)
        np.testing.assert_allclose(found, u @ vh, atol=tolerance)
    groups[0, :, 1] = groups[0, :, 0]
    groups[1, :, 1] = groups[1, :, 0] + 1e-6 * groups[1, :, 1]
    found = architectures._nearest_orthonormal(groups)
    assert (found.mT @ found - torch.eye(3, dtype=dtype)).abs().max() < tolerance


# Revival


def test_dead_groups_get_the_gradient_of_the_residual(rng):
    """Fails if a dead group has no gradient, a living one has another, or e is not held fixed."""
    model, data = make(rng, GroupTopKSAE, n_samples=30, revival=0.5)
    dead = torch.tensor([True, False, False, True, False, False])
    atoms = dead.repeat_interleave(2)
    with torch.no_grad():
        model.encoder_bias[atoms] = 0.0
        model.encoder_weight[:, atoms] *= 1e-3
    model.n_seen += 10**6
    model.last_active += torch.where(dead, 0, 10**6)
    x = data / model.scale
    plain = GroupTopKSAE(*SIZES, n_active=2, revival=0.0, dictionary=model.weight)
    plain.load_state_dict(model.state_dict())
    loss, _ = model.training_loss(data)
    alone, _ = plain.training_loss(data)
    with torch.no_grad():
        rebuilt, _ = model(data)
        error = x - rebuilt / model.scale
    h = (x - model.centre) @ model.encoder_weight[:, atoms] + model.encoder_bias[atoms]
    one, other = h[:, :2], h[:, 2:]  # n / 2d = 1 group is kept
    first = one.norm(dim=1, keepdim=True) > other.norm(dim=1, keepdim=True)
    z = torch.cat([torch.where(first, one, 0.0), torch.where(first, 0.0, other)], dim=1)
    expected = 0.5 * 0.5 * (error - z @ model.weight[:, atoms].T).square().sum(1).mean()
    assert (loss - alone).item() == pytest.approx(expected.item(), rel=1e-10)
    gradient = torch.autograd.grad(loss, model.encoder_weight)[0]
    assert gradient[:, atoms].norm() > 0
    torch.testing.assert_close(gradient[:, ~atoms], torch.autograd.grad(alone, plain.encoder_weight)[0][:, ~atoms])


def test_revival_brings_groups_back(planted):
    """Fails if groups that never fire stay dead with revival, or come back without it."""
    alive = {}
    for revival in (0.0, 1 / 32):
        rng = torch.Generator().manual_seed(0)
        settings = {"n_active": 3, "revival": revival, "dead_after": 2000}
        model = GroupTopKSAE(32, 40, 2, generator=rng, **settings)
        model.prepare(planted)
        with torch.no_grad():
            model.encoder_weight[:, :40] *= 0.1
        train(model, planted, dataclasses.replace(SETTINGS, epochs=12), generator=rng)
        alive[revival] = (~model.dead_groups())[:20].double().mean().item()
    assert alive[0.0] < 0.1 and alive[1 / 32] > 0.9


# Training from files, and saved models


def test_a_memory_map_of_half_precision_trains_as_the_array(planted, tmp_path):
    """Fails if rows of the file are read in another order or precision."""
    path, half = tmp_path / "states.npy", planted.numpy().astype(np.float16)
    np.save(path, half)
    curves = []
    for data in (torch.from_numpy(half).float(), np.load(path, mmap_mode="r")):
        rng = torch.Generator().manual_seed(4)
        model = BatchTopKSAE(32, 40, 2, n_active=3, generator=rng)
        model.prepare(data)
        curves.append(train(model, data, SETTINGS, generator=rng).loss)
    assert curves[0] == curves[1]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_training_goes_on_bit_by_bit(kind, planted, tmp_path):
    """Fails if thresholds, counts or the optimiser are not in the checkpoint."""

    def run(epochs, **more):
        rng = torch.Generator().manual_seed(4)
        model = kind(32, 40, 2, n_active=3, dead_after=1000, generator=rng)
        history = train(model, planted[:500], dataclasses.replace(SETTINGS, epochs=epochs), generator=rng, **more)
        return model, history.loss

    whole, losses = run(4)
    run(2, checkpoint=tmp_path / "kept")
    resumed, again = run(4, checkpoint=tmp_path / "kept")
    assert losses == again
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


CASES = [(kind, {"decoder": decoder, "n_active": 3}) for kind, decoder in itertools.product(ARCHITECTURES, CONSTRAINTS)]
CASES += [(kind, {"threshold": 1.5}) for kind in (GroupReLUSAE, GroupJumpReLUSAE)]
CASES += [(GroupJumpReLUSAE, {"n_active": 3, "sparsity_weight": 2.0, "bandwidth": 0.3})]
CASES += [(BatchTopKSAE, {"tied": True, "bias": False, "n_active": 2.5, "nonnegative": True})]


@pytest.mark.parametrize("kind, settings", CASES, ids=str)
def test_saved_autoencoders_come_back_whole(kind, settings, planted, tmp_path, rng):
    """Fails if a setting, a buffer or a bit of a weight is lost, in files of today or of version 0.3."""
    model = kind(32, 40, 2, generator=rng, **settings)
    train(model, planted[:300], SETTINGS, generator=rng)
    model.save(tmp_path / "new" / "run-0.1")
    loaded = GroupSAE.load(tmp_path / "new" / "run-0.1")
    assert type(loaded) is type(kind.load(tmp_path / "new" / "run-0.1")) is kind
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["run-0.1.json", "run-0.1.safetensors"]
    assert repr(loaded) == repr(model)
    losses = [m.training_loss(planted[:50])[0].item() for m in (model, loaded)]
    assert losses[0] == losses[1]
    model.save(tmp_path / "m")
    sign_as_old(tmp_path, kind)
    for found in (GroupSAE.load(tmp_path / "m"), loaded):
        assert type(found) is kind and found.settings() == model.settings()
        for name, value in model.state_dict().items():
            assert torch.equal(value, found.state_dict()[name]), name


CHANGES = [
    ("parameters", "n_active", 50.0, "n_active=50.0: expected"),
    ("parameters", "n_active", None, "n_active=None: expected"),
    ("parameters", "threshold", 1.0, "keyword argument 'threshold'"),
    ("arrays", "weight", np.ones((32, 80), np.float32), "weight: expected decoder='unit'"),
    ("parameters", "tied", 1, "tied=1: expected True or False"),
    ("parameters", "tied", True, "the array encoder_weight is none of this model"),
    ("parameters", "bias", False, "none of this model"),
    ("parameters", "group_size", 1, "dictionary: expected shape"),
    ("parameters", "revival", -1.0, "revival=-1.0"),
    ("parameters", "nope", 1, "unexpected keyword argument 'nope'"),
    ("parameters", "generator", None, "generator: no setting"),
    ("fitted", "n_iter_", 1, "fitted, feature_names: expected none"),
    ("arrays", "nope", np.zeros(3, np.float32), "the array nope is none of this model"),
    ("arrays", "encoder_bias", np.zeros(3, np.float32), r"encoder_bias: expected \(80,\)"),
    ("arrays", "encoder_bias", np.zeros(80), r"encoder_bias: expected \(80,\) torch.float32"),
    ("arrays", "encoder_bias", np.full(80, np.nan, np.float32), "encoder_bias: expected finite"),
    ("arrays", "weight", np.full((32, 80), np.inf, np.float32), "dictionary: "),
    ("arrays", "weight", np.ones((32, 80), np.float16), "weight: expected float32"),
    ("arrays", "scale", np.array(0, np.float32), "scale=0: expected"),
    ("arrays", "threshold", np.array(-1, np.float32), "threshold=-1: expected"),
    ("arrays", "last_active", np.full(40, 7), "last_active: expected from 0 to n_seen=0"),
]


@pytest.mark.parametrize(("part", "field", "value", "message"), CHANGES)
def test_rejects_files_of_what_cannot_be(part, field, value, message, tmp_path, rng):
    """Fails if a file with the right checksum may hold what no autoencoder has: it would misbehave later."""
    BatchTopKSAE(32, 40, 2, n_active=3, generator=rng).save(tmp_path / "m")
    sign(tmp_path, lambda content, arrays: (arrays if part == "arrays" else content[part]).update({field: value}))
    with pytest.raises(ValueError, match=f"not a saved GroupSAE: .*{message}") as error:
        GroupSAE.load(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_nothing_may_be_missing_from_the_files(tmp_path, rng):
    """Fails if a field, a setting or an array is not looked for."""
    model = BatchTopKSAE(32, 40, 2, n_active=3, generator=rng)
    model.save(tmp_path / "m")
    content, arrays = json.loads((tmp_path / "m.json").read_text()), load_file(tmp_path / "m.safetensors")
    drops = [lambda content, arrays, name=name: content.pop(name) for name in content if name != "sha256"]
    drops += [lambda content, arrays, name=name: content["parameters"].pop(name) for name in content["parameters"]]
    drops += [lambda content, arrays, name=name: arrays.pop(name) for name in arrays]
    assert len(drops) > 20
    for drop in drops:
        model.save(tmp_path / "m")
        sign(tmp_path, drop)
        with pytest.raises(ValueError, match="not a saved GroupSAE"):
            GroupSAE.load(tmp_path / "m")


def sign(folder, change):
    """Change what is saved, and give it the checksum that it should have."""
    content, arrays = json.loads((folder / "m.json").read_text()), load_file(folder / "m.safetensors")
    content.pop("sha256")
    change(content, arrays)
    (folder / "m.json").write_text(json.dumps(content | {"sha256": _saved.checksum(content, arrays)}))
    (folder / "m.safetensors").write_bytes(save(arrays))


OLD = {  # of version 0.3, and what its one class wrote for each
    GroupReLUSAE: "group ReLU",
    GroupTopKSAE: "group top-k",
    BatchTopKSAE: "batch top-k",
    GroupJumpReLUSAE: "group JumpReLU",
}


def sign_as_old(folder, kind):
    """Turn what is saved into what version 0.3 wrote."""

    def change(content, arrays):
        found = {"threshold": None, "sparsity_weight": 5.0, "bandwidth": 0.1} | content["parameters"]
        content["class"], content["parameters"] = "GroupSparseFeaturizer", found | {"activation": OLD[kind]}
        arrays.setdefault("known", np.array(True))

    sign(folder, change)


@pytest.mark.parametrize("old", [False, True])
def test_an_architecture_reads_only_its_own_files(old, tmp_path, rng):
    """Fails if a file is loaded as another architecture, with an old name or a new one, or as one that never was."""
    BatchTopKSAE(32, 40, 2, n_active=3, generator=rng).save(tmp_path / "m")
    if old:
        sign_as_old(tmp_path, BatchTopKSAE)
    with pytest.raises(ValueError, match="it holds a BatchTopKSAE, expected a GroupTopKSAE"):
        GroupTopKSAE.load(tmp_path / "m")
    if old:
        sign(tmp_path, lambda content, arrays: content["parameters"].update(activation="relu"))
        with pytest.raises(ValueError, match="not a saved GroupSAE: activation='relu': expected one of"):
            GroupSAE.load(tmp_path / "m")
    sign(tmp_path, lambda content, arrays: content.update({"class": "Estimator"}))
    with pytest.raises(ValueError, match="it holds a Estimator, expected a GroupSAE"):
        GroupSAE.load(tmp_path / "m")


# Bad input


def test_rejects_codes_before_the_threshold_is_known(rng):
    """Fails if an untrained autoencoder codes at a threshold that nobody set; a fixed one, and top-k, need no data."""
    data = torch.randn(20, N_FEATURES, generator=rng)
    for kind in (GroupReLUSAE, BatchTopKSAE, GroupJumpReLUSAE):
        model = kind(*SIZES, n_active=2, generator=rng)
        with pytest.raises(ValueError, match="threshold: not known yet"):
            model(data)
        model.calibrate(data)
        model(data)
    GroupTopKSAE(*SIZES, n_active=2, generator=rng)(data)
    GroupReLUSAE(*SIZES, threshold=1.0, generator=rng)(data)
    with pytest.raises(ValueError, match="threshold is fixed"):
        GroupReLUSAE(*SIZES, threshold=1.0, generator=rng).calibrate(data)


def test_rejects_training_without_activity(rng):
    """Fails if a threshold that nothing reaches trains silently, or the error does not say what to change."""
    model = GroupReLUSAE(*SIZES, threshold=1e6, generator=rng)
    with pytest.raises(TrainingError, match="no group is active in any sample; lower threshold"):
        train(model, torch.randn(20, N_FEATURES, generator=rng), SETTINGS, generator=rng)


def test_rejects_several_processes(rng, monkeypatch):
    """Fails if processes with batches of their own train one autoencoder, whose thresholds would differ."""
    monkeypatch.setattr(training, "Processes", lambda: type("Two", (), {"count": 2, "rank": 0})())
    model = BatchTopKSAE(*SIZES, n_active=2, generator=rng)
    with pytest.raises(ValueError, match="one process"):
        train(model, torch.randn(20, N_FEATURES, generator=rng), SETTINGS, generator=rng)


def test_a_step_keeps_no_batch():
    """Fails if something remembers the tensors of a step, so that memory grows as training goes on."""
    rng, counts = torch.Generator().manual_seed(0), []
    model = BatchTopKSAE(20, 40, 2, n_active=2, generator=rng)
    for _ in range(3):
        model.training_loss(torch.randn(50, 20, generator=rng))[0].backward()
        gc.collect()
        counts.append(sum(isinstance(found, torch.Tensor) for found in gc.get_objects()))
    assert counts[2] <= counts[1]  # what other tests have left may go meanwhile
