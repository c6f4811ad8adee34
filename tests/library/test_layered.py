"""Several layers: the sources' laws, the autoencoders' codes and losses, and training in turn and together."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from true_groups import gaussian, orthogonal

from gsae_lib.dictionary import as_groups, from_groups, polar
from gsae_lib.generative import GroupSparseSource
from gsae_lib.metrics import principal_angles
from gsae_lib.networks import (
    GroupSparseAutoencoder,
    LayeredAutoencoder,
    LayeredSource,
    group_sparse_atoms,
    sibling_dictionary,
)
from gsae_lib.training import TrainingSettings, train, train_layers

DOUBLE = torch.float64


def two_layers(rng, dtype=DOUBLE, **settings):
    """Twelve groups of two in four families of three, of which two are active."""
    truth = orthogonal(30, 12, 2, rng).to(dtype)
    return LayeredSource((truth, sibling_dictionary(4, 3, dtype=dtype)), (2, 3), **settings)


def near(truth, d, size, rng):
    """Orthonormal groups near the true ones."""
    return from_groups(polar(as_groups(truth + size * gaussian(rng, *truth.shape).to(truth.dtype), d)))


def network(source, penalties, starts, **settings):
    """An autoencoder of one layer for each of the source, shallow."""
    layers = []
    for start, size, penalty in zip(starts, source.group_sizes, penalties, strict=True):
        n, m = start.shape
        layers.append(GroupSparseAutoencoder(n, m // size, size, penalty, step_size=1.0, dictionary=start))
    return LayeredAutoencoder(layers, **settings)


def three_layers(rng, dtype=DOUBLE):
    """Twelve groups of two in six pairs, which are two families of three."""
    upper = [sibling_dictionary(6, 2, dtype=dtype), sibling_dictionary(2, 3, dtype=dtype)]
    return LayeredSource((orthogonal(40, 12, 2, rng).to(dtype), *upper), (2, 2, 3))


@pytest.mark.parametrize("layers, active", [(two_layers, [2, 1]), (three_layers, [4, 2, 1])])
def test_norms_of_a_layer_are_what_the_next_one_makes(layers, active, dtype, rng):
    """Fails if a layer's norms are not what the upper one makes, data what the lowest one does, or types change."""
    source = layers(rng, dtype)
    sample = source.sample(300, generator=rng)
    torch.testing.assert_close(sample.data, sample.codes[0] @ source.dictionaries[0].T)
    assert sample.data.dtype == dtype
    for level, size in enumerate(source.group_sizes):
        norms = sample.codes[level].unflatten(1, (source.n_groups[level], size)).norm(dim=2)
        assert sample.codes[level].dtype == dtype and torch.equal(sample.supports[level], norms > 0)
        assert (sample.supports[level].sum(dim=1) == active[level]).all()
        if active == [2, 1] and level == 0:
            assert 4 <= norms[norms > 0].min() and norms.max() <= 5
            assert norms[norms > 0].mean() == pytest.approx(4.5, abs=0.06)
        assert torch.equal(sample.layer(level).data, sample.inputs[level])
        assert torch.equal(sample.layer(level).support, sample.supports[level])
        if level + 1 < len(active):
            torch.testing.assert_close(norms, sample.codes[level + 1] @ source.dictionaries[level + 1].T)
            torch.testing.assert_close(norms, sample.inputs[level + 1])


def test_siblings_alone_are_active_together(rng):
    """Fails if two groups of different families are ever active in one sample, or siblings are not equally often."""
    support = two_layers(rng).sample(3000, generator=rng).supports[0].double()
    together = support.T @ support / 3000
    family = torch.arange(12) // 3
    apart = family.unsqueeze(0) != family.unsqueeze(1)
    assert together[apart].max() == 0
    pairs = together[~apart & ~torch.eye(12, dtype=torch.bool)]
    assert ((pairs - 1 / 12).abs() < 4 * math.sqrt(1 / 12 / 3000)).all()
    assert ((together.diagonal() - 1 / 6).abs() < 4 * math.sqrt(1 / 6 / 3000)).all()


def test_one_layer_is_the_usual_source(rng):
    """Fails if a single layer does not have the law of GroupSparseSource: moments of norms and of directions."""
    truth = orthogonal(20, 6, 2, rng)
    sample = LayeredSource((truth,), (2,), n_active=2).sample(4000, generator=rng)
    usual = GroupSparseSource(truth, 2, 2).sample(4000, generator=rng)
    for one in (sample.layer(0), usual):
        norms = one.codes.unflatten(1, (6, 2)).norm(dim=2)[one.support]
        assert 4 <= norms.min() and norms.max() <= 5 and norms.square().mean() == pytest.approx(61 / 3, rel=0.01)
        second = one.data.T @ one.data / 4000
        np.testing.assert_allclose(truth.T @ second @ truth, torch.eye(12) * 61 / 18, atol=0.6)
    assert torch.equal(sample.supports[0], sample.codes[0].unflatten(1, (6, 2)).norm(dim=2) > 0)


def test_stack_makes_codes(rng):
    """Fails if codes of a stack are not products of dictionaries and the codes above, or are not group-sparse."""
    upper = group_sparse_atoms(10, 2, 12, 2, generator=rng, dtype=DOUBLE)
    assert ((upper.T.unflatten(1, (10, 2)) != 0).any(dim=2).sum(dim=1) == 2).all()
    torch.testing.assert_close(upper.norm(dim=0), torch.ones(12, dtype=DOUBLE))
    lower = orthogonal(24, 10, 2, rng)
    sample = LayeredSource((lower, upper), (2, 3), passed="codes").sample(100, generator=rng)
    torch.testing.assert_close(sample.codes[0], sample.codes[1] @ upper.T)
    torch.testing.assert_close(sample.data, sample.codes[1] @ upper.T @ lower.T)
    assert torch.equal(sample.inputs[1], sample.codes[0])
    norms = sample.codes[1].unflatten(1, (4, 3)).norm(dim=2)
    assert ((norms > 0).sum(dim=1) == 1).all() and norms[norms > 0].min() >= 4
    assert sample.supports[0].sum(dim=1).max() <= 6


def test_noise_has_the_snr_and_streams_are_fresh(rng):
    """Fails if the noise of the data has another power, reaches a layer's codes, or a stream repeats itself."""
    source = two_layers(rng, snr_db=6.0)
    sample = source.sample(500, generator=rng)
    clean = sample.codes[0] @ source.dictionaries[0].T
    noise = sample.data - clean
    assert 10 * math.log10(clean.square().sum() / noise.square().sum()) == pytest.approx(6.0, abs=0.1)
    torch.testing.assert_close(sample.inputs[1], sample.codes[1] @ source.dictionaries[1].T)
    first, second = itertools.islice(source.stream(10, generator=rng), 2)
    assert first.shape == (10, 30) and not torch.equal(first, second)


def test_overlap_of_siblings():
    """Fails if A_k^T A_l is not s I, groups are not orthonormal, or entries are negative."""
    for s in (0.0, 0.3, 1.0):
        groups = as_groups(sibling_dictionary(4, 3, s, dtype=DOUBLE), 3)
        for k, l in itertools.product(range(4), repeat=2):
            expected = torch.eye(3, dtype=DOUBLE) * (1.0 if k == l else s)
            torch.testing.assert_close(groups[k].T @ groups[l], expected)
        assert (groups >= 0).all()


def test_forward_by_hand(dtype, rng):
    """Fails if a layer codes anything but norms of the one below, or directions are lost on the way down; by loops."""
    source = two_layers(rng, dtype)
    starts = [near(a, d, 0.05, rng) for a, d in zip(source.dictionaries, (2, 3), strict=True)]
    for restore in (False, True):
        model = network(source, (1.5, 0.7), starts, restore=restore)
        y = source.sample(3, generator=rng).data
        rebuilt, codes = model(y)
        for row, x, given in zip(rebuilt, codes, y, strict=True):
            lower, norms = [], []
            for g in range(12):
                h = starts[0][:, 2 * g : 2 * g + 2].T @ given
                size = float(h.norm())
                lower.append(h / size * max(size - 1.5, 0.0))
                norms.append(max(size - 1.5, 0.0) + (1.5 if restore and size > 1.5 else 0.0))
            back = torch.zeros(12, dtype=dtype)
            for k in range(4):
                w = starts[1][:, 3 * k : 3 * k + 3]
                h = w.T @ torch.tensor(norms, dtype=dtype)
                back = back + w @ h * max(1 - 0.7 / float(h.norm()), 0.0)
            expected, rest = torch.zeros(30, dtype=dtype), given - starts[0] @ torch.cat(lower)
            for g in range(12):
                w = starts[0][:, 2 * g : 2 * g + 2]
                seen = lower[g] if float(lower[g].norm()) > 0 else w.T @ rest
                expected = expected + w @ seen / seen.norm() * back[g]
            torch.testing.assert_close(x, torch.cat(lower), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_joint_codes_minimise_their_objective(rng):
    """Fails if the joint iteration of a stack does not come to the minimum that scipy finds."""
    lower, upper = gaussian(rng, 6, 8), gaussian(rng, 8, 4)
    lower, upper = lower / lower.norm(dim=0), upper / upper.norm(dim=0)
    layers = [
        GroupSparseAutoencoder(6, 4, 2, 0.1, dictionary=lower),
        GroupSparseAutoencoder(8, 2, 2, 0.05, dictionary=upper),
    ]
    model = LayeredAutoencoder(layers, passed="codes", n_iterations=1500)
    data = gaussian(rng, 1, 6)
    first, second = model.encode(data)

    def objective(x):
        x1, x2 = torch.tensor(x[:8]), torch.tensor(x[8:])
        groups = x1.reshape(4, 2).norm(dim=1).sum() * 0.1 + x2.reshape(2, 2).norm(dim=1).sum() * 0.05
        return float(0.5 * (data[0] - lower @ x1).square().sum() + 0.5 * (x1 - upper @ x2).square().sum() + groups)

    found = torch.cat([first[0], second[0]]).detach().numpy()
    best = scipy.optimize.minimize(objective, found + 0.1, method="Powell", options={"xtol": 1e-6, "ftol": 1e-12}).fun
    assert objective(found) <= best + 1e-8
    torch.testing.assert_close(model(data)[0], second @ upper.T @ lower.T)


def test_layers_in_turn_find_both_truths(dtype, rng):
    """Fails if two layers that are trained one after the other do not come to the true spans of both."""
    source = two_layers(rng, dtype, snr_db=30.0)
    starts = [near(a, d, s, rng) for a, d, s in zip(source.dictionaries, (2, 3), (0.03, 0.05), strict=True)]
    model = network(source, (1.8, 1.5), starts)
    data = source.sample(2000, generator=rng).data
    plan = TrainingSettings(epochs=120, learning_rate=0.12, optimizer="sgd", normalize="groups", progress=False)
    histories = train_layers(model, data, [plan, plan], generator=rng)
    with pytest.raises(ValueError, match="settings: expected one, or one for each of 2 layers, got 1"):
        train_layers(model, data, [plan], generator=rng)
    lower, upper = (
        principal_angles(layer.weight.detach(), a, d).max().item()
        for layer, a, d in zip(model.all_layers, source.dictionaries, (2, 3), strict=True)
    )
    assert lower < 0.1 and upper < 1e-3
    assert len(histories) == 2 and all(h.loss[-1] < h.loss[0] for h in histories)


@pytest.mark.parametrize("passed", ["norms", "codes"])
def test_training_together_lowers_the_loss_from_the_top(passed, rng):
    """Fails if `train` does not move all layers, or leaves groups of an upper one not orthonormal."""
    if passed == "norms":
        source = two_layers(rng)
        starts = [near(a, d, 0.03, rng) for a, d in zip(source.dictionaries, (2, 3), strict=True)]
        model = network(source, (1.8, 1.5), starts, restore=True)
    else:
        upper = group_sparse_atoms(10, 2, 12, 2, generator=rng, dtype=DOUBLE)
        source = LayeredSource((orthogonal(24, 10, 2, rng), upper), (2, 3), passed="codes")
        starts = [near(a, d, 0.02, rng) for a, d in zip(source.dictionaries, (2, 3), strict=True)]
        model = network(source, (0.1, 0.1), starts, passed="codes", n_iterations=30)
    data = source.sample(300, generator=rng).data
    before = 0.5 * (data - model(data)[0]).square().sum(dim=1).mean().item()
    plan = TrainingSettings(epochs=20, learning_rate=0.02, optimizer="sgd", normalize="groups", progress=False)
    history = train(model, data, plan, generator=rng)
    assert history.loss[0] == pytest.approx(before) and history.loss[-1] < 0.9 * before
    for layer, start in zip(model.all_layers, starts, strict=True):
        groups = as_groups(layer.weight.detach(), layer.group_size)
        expected = torch.eye(layer.group_size, dtype=DOUBLE).expand(len(groups), -1, -1)
        torch.testing.assert_close(groups.mT @ groups, expected)
        assert (layer.weight.detach() - start).abs().max() > 1e-3
