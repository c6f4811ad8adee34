"""Training against a step worked out by hand, and its promises: normalisation, reproducibility, errors that help."""

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from gsae_lib.dictionary import normalize_columns, perturbed_dictionary
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary, orthonormal_groups_dictionary
from gsae_lib.metrics import dictionary_error
from gsae_lib.networks import GroupSparseAutoencoder, set_target_sparsity
from gsae_lib.training import History, TrainingError, TrainingSettings, train

SIZES = (10, 5, 2)


def quiet(**settings):
    """Settings without a progress bar."""
    return TrainingSettings(**{"epochs": 3, "progress": False} | settings)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def planted(n_samples=200, dtype=torch.float64, **noise):
    """A shallow model near the truth, the truth, and a source of data with two active groups."""
    generator = seeded(3)
    truth = orthonormal_groups_dictionary(*SIZES, generator=generator, dtype=dtype)
    source = GroupSparseSource(truth, 2, 2, **noise)
    start = perturbed_dictionary(truth, 0.9, generator=generator)
    model = GroupSparseAutoencoder(*SIZES, 1.0, step_size=1.0, dictionary=start)
    return model, truth, source, source.sample(n_samples, generator=generator).data


class Recorder(GroupSparseAutoencoder):
    """A model that keeps the batches it is given."""

    def forward(self, data):
        self.seen = [*getattr(self, "seen", []), data.clone()]
        return super().forward(data)


def gradient_by_hand(w, data, penalty, group_size):
    """dL/dW of L = 1/(2N) sum ||y - W x||^2, x = sigma(W^T y), by the chain rule with the Jacobian of each group.

    J_g = (1 - lambda / n) I + lambda u u^T / n^3 for u = W_g^T y and n = ||u|| > lambda, and 0 otherwise.
    """
    gradient, loss = np.zeros_like(w), 0.0
    for y in data:
        u = (w.T @ y).reshape(-1, group_size)
        n = np.linalg.norm(u, axis=1)
        x = np.concatenate([(1 - penalty / n[g]) * u[g] * (n[g] > penalty) for g in range(len(u))])
        r = y - w @ x
        loss += 0.5 * r @ r
        back = (w.T @ r).reshape(-1, group_size)
        through = [
            ((1 - penalty / n[g]) * back[g] + penalty * u[g] * (u[g] @ back[g]) / n[g] ** 3) * (n[g] > penalty)
            for g in range(len(u))
        ]
        gradient -= np.outer(r, x) + np.outer(y, np.concatenate(through))
    return gradient / len(data), loss / len(data)


def test_sgd_on_the_full_batch_is_gradient_descent_by_hand():
    """Fails if the loss misses 1/2 or 1/N, the step uses another gradient, or the loss is taken after the step."""
    model, _, _, data = planted(40)
    weight, losses, rate = model.weight.detach().numpy().copy(), [], 0.02
    for _ in range(3):
        gradient, loss = gradient_by_hand(weight, data.numpy(), 1.0, 2)
        weight = weight - rate * gradient
        losses.append(loss)
    history = train(model, data, quiet(learning_rate=rate, optimizer="sgd"), generator=seeded())
    np.testing.assert_allclose(model.weight.detach(), weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)


def test_first_adam_step_moves_each_entry_by_the_learning_rate():
    """Fails if "adam" is not Adam: its first step is learning_rate * sign(gradient)."""
    model, _, _, data = planted(40)
    before = model.weight.detach().numpy().copy()
    gradient, _ = gradient_by_hand(before, data.numpy(), 1.0, 2)
    train(model, data, quiet(epochs=1, learning_rate=1e-3), generator=seeded())
    np.testing.assert_allclose(model.weight.detach().numpy() - before, -1e-3 * np.sign(gradient), rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("settings", [{}, {"tied": False}, {"n_iterations": 5, "step_size": "auto"}], ids=str)
def test_training_lowers_the_loss(optimizer, settings, device, dtype):
    """Fails if the sign of a step is wrong, or a model cannot be trained, or its activity held, on a device."""
    _, truth, source, _ = planted(dtype=dtype)
    data = source.sample(200, generator=seeded()).data
    start = perturbed_dictionary(truth, 0.8, generator=seeded())
    model = GroupSparseAutoencoder(*SIZES, 0.5, dictionary=start, **settings)
    rate = 0.01 if optimizer == "adam" else 0.05
    how = quiet(epochs=40, learning_rate=rate, batch_size=50, optimizer=optimizer, device=device)
    history = train(model, data, how, generator=seeded())
    assert len(history.loss) == 40 and history.loss[-1] < 0.7 * history.loss[0]
    assert model.weight.device.type == device and model.weight.dtype == dtype
    assert set_target_sparsity(model, data, 2.0, tol=0.1) > 0


def test_minibatches_visit_every_sample_once_an_epoch_in_a_new_order():
    """Fails if samples repeat or are left out, or orders are those of another epoch or seed, or of global state."""
    data, before, orders = torch.arange(7.0).unsqueeze(1) + 1, torch.get_rng_state(), []
    for seed in (1, 2):
        model = Recorder(1, 1, 1, 0.0, dictionary=torch.ones(1, 1))
        train(model, data, quiet(epochs=6, batch_size=3, learning_rate=1e-6), generator=seeded(seed))
        assert [len(batch) for batch in model.seen] == [3, 3, 1] * 6
        orders += [tuple(torch.cat(model.seen[i : i + 3]).flatten().tolist()) for i in range(0, 18, 3)]
    assert all(sorted(order) == list(range(1, 8)) for order in orders) and len(set(orders)) > 9
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("batch_size", [None, 7, 100])
def test_full_batch_keeps_the_order_and_the_generator(batch_size):
    """Fails if the full batch is shuffled or random numbers are drawn for nothing."""
    data, generator = torch.arange(7.0).unsqueeze(1) + 1, seeded()
    model = Recorder(1, 1, 1, 0.0, dictionary=torch.ones(1, 1))
    train(model, data, quiet(epochs=2, batch_size=batch_size), generator=generator)
    assert all(torch.equal(batch, data) for batch in model.seen) and len(model.seen) == 2
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_loss_and_active_groups_are_means_over_samples():
    """Fails if batches are averaged with equal weight: the last batch is shorter. A tiny step changes nothing else."""
    model, _, _, data = planted(10)
    reconstruction, codes = model(data)
    active = np.mean([sum(np.any(b != 0) for b in row.reshape(-1, 2)) for row in codes.detach().numpy()])
    history = train(model, data, quiet(epochs=1, batch_size=4, learning_rate=1e-12), generator=seeded())
    expected = mse_loss(reconstruction, data, reduction="sum").item() / 2 / 10
    assert history.loss[0] == pytest.approx(expected, rel=1e-9)
    assert history.curves["active_groups"][0] == pytest.approx(active)


def test_a_stream_gives_the_stated_number_of_batches_an_epoch():
    """Fails if batches are skipped or repeated, or if a sample's data are not used; plain tensors stream as well."""
    source = planted()[2]
    draws = [source.sample(5, generator=seeded(i)) for i in range(7)]
    model = Recorder(*SIZES, 0.1, dictionary=source.dictionary)
    stream = iter([*draws[:3], *(draw.data for draw in draws[3:])])
    train(model, stream, quiet(epochs=2, steps_per_epoch=3), generator=seeded())
    assert [torch.equal(seen, draw.data) for seen, draw in zip(model.seen, draws, strict=False)] == [True] * 6
    assert len(model.seen) == 6 and next(stream) is draws[6].data  # nothing was drawn ahead


def test_arrays_train_like_tensors():
    """Fails if numpy arrays, of another precision than the model, are refused or treated differently."""
    histories = []
    for convert in (lambda x: x, lambda x: x.numpy(), lambda x: x.numpy().astype(np.float32)):
        model, _, _, data = planted()
        histories.append(train(model, convert(data), quiet(batch_size=30), generator=seeded()))
    assert histories[0].loss == histories[1].loss
    assert histories[0].loss == pytest.approx(histories[2].loss, rel=1e-6)


@pytest.mark.parametrize("normalize", ["columns", "groups"])
@pytest.mark.parametrize("batch_size", [None, 30])
def test_normalization_holds_after_training(normalize, batch_size, dtype):
    """Fails if the last step is not followed by normalisation, or groups are not orthonormal then."""
    model, _, _, data = planted(dtype=dtype)
    train(model, data, quiet(learning_rate=0.1, normalize=normalize, batch_size=batch_size), generator=seeded())
    for block in model.weight.detach().split(2, dim=1):
        gram = (block.T @ block).numpy()
        np.testing.assert_allclose(gram if normalize == "groups" else gram * np.eye(2), np.eye(2), rtol=0, atol=1e-6)


def test_without_normalisation_the_weight_is_free():
    """Fails if normalisation is the default (the paper does not renormalise), and touches only the encoder if asked."""
    model, _, _, data = planted()
    train(model, data, quiet(learning_rate=0.1), generator=seeded())
    assert not torch.allclose(model.weight, normalize_columns(model.weight.detach()), atol=1e-3)
    untied = GroupSparseAutoencoder(*SIZES, 1.0, dictionary=2 * model.weight.detach(), tied=False)
    train(untied, data, quiet(normalize="columns", learning_rate=1e-9), generator=seeded())
    torch.testing.assert_close(untied.decoder_weight, 2 * model.weight, rtol=0, atol=1e-6)


def test_callbacks_add_curves():
    """Fails if callbacks miss an epoch, run before the step or with gradients, must return, or a curve is missing."""
    model, truth, _, data = planted()
    calls = []

    def watch(epoch, model):
        calls.append((epoch, model.weight.clone(), torch.is_grad_enabled()))

    def measure(epoch, model):
        return {"error": dictionary_error(model.weight, truth), "epoch": epoch}

    history = train(model, data, quiet(), generator=seeded(), callbacks=(watch, measure))
    assert [epoch for epoch, _, _ in calls] == [1, 2, 3] and not any(enabled for _, _, enabled in calls)
    assert torch.equal(calls[-1][1], model.weight)
    assert history.curves["epoch"] == (1.0, 2.0, 3.0)
    assert history.curves["error"][-1] == dictionary_error(model.weight.detach(), truth)
    assert set(history.curves) == {"loss", "active_groups", "error", "epoch"}
    assert isinstance(history, History) and history.loss is history.curves["loss"]
    assert all(isinstance(value, float) for value in history.loss) and 0 < history.seconds < 60


@pytest.mark.parametrize("settings", [{"step_size": 1.0}, {"n_iterations": 4}], ids=["fixed-step", "automatic-step"])
@pytest.mark.parametrize("normalize", [None, "columns", "groups"])
def test_divergence_stops_with_the_epoch_and_the_rate(settings, normalize):
    """Fails if nan spreads silently, if a linear algebra error comes first, or no advice is given."""
    _, _, _, data = planted()
    model = GroupSparseAutoencoder(*SIZES, 0.1, dictionary=torch.randn(10, 10, generator=seeded()).double(), **settings)
    how = quiet(epochs=50, learning_rate=1e200, optimizer="sgd", batch_size=50, normalize=normalize)
    data = data * (1e149 if normalize else 1.0)  # normalised weights stay finite, so the data must be at fault
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is not finite; lower learning_rate \(now 1e\+200\)"):
        train(model, data, how, generator=seeded())


def test_inactive_codes_stop_with_the_penalty_and_a_bound():
    """Fails if training goes on without a gradient, or the message does not name a penalty that would work."""
    model, _, _, data = planted()
    groups = np.split(model.weight.detach().numpy(), 5, axis=1)
    largest = max(np.linalg.norm(y @ block) for y in data.numpy() for block in groups)
    model.set_penalty(100.0)
    with pytest.raises(TrainingError, match=rf"epoch 1: no group is active.*penalty.*100.*{largest:.4g}"):
        train(model, data, quiet(), generator=seeded())
    model.set_penalty(0.99 * largest)
    train(model, data, quiet(epochs=1), generator=seeded())


def test_the_decoder_gradient_is_followed_in_the_shallow_network(rng):
    """Fails if the structured gradient, which is the unrolled one, replaces the decoder gradient that was asked for."""
    dictionary = gaussian_dictionary(30, 20, 2, generator=rng, dtype=torch.float64)
    data = GroupSparseSource(dictionary, 2, 1, snr_db=20.0).sample(50, generator=rng).data
    model = GroupSparseAutoencoder(30, 20, 2, 1.5, step_size=1.0, gradient="decoder", dictionary=dictionary)
    codes = model.encode(data)
    expected = dictionary + 0.1 * (data - codes @ dictionary.T).T @ codes / len(data)
    assert 0 < (codes != 0).double().mean() < 1
    plan = TrainingSettings(epochs=1, learning_rate=0.1, optimizer="sgd", progress=False)
    train(model, data, plan, generator=rng)
    torch.testing.assert_close(model.weight.detach(), expected)


def test_the_two_gradients_may_take_turns(rng):
    """Fails if an epoch that starts with automatic differentiation cannot go on with the structured gradient."""
    weight = torch.linalg.qr(torch.randn(40, 40, generator=rng)).Q
    few, many = 5 * weight.T[:20], torch.full((20, 40), 5.0) @ weight.T
    model = GroupSparseAutoencoder(40, 40, 1, 1.0, step_size=1.0, dictionary=weight)
    settings = TrainingSettings(epochs=3, learning_rate=1e-6, steps_per_epoch=2, progress=False)
    history = train(model, iter([few, many] * 3), settings, generator=rng)
    assert history.curves["active_groups"] == pytest.approx([20.5] * 3)


@pytest.mark.parametrize("normalize", [None, "columns", "groups"])
def test_training_in_bfloat16(normalize):
    """Fails if the structured gradient or a normalisation has no half precision."""
    _, truth, source, _ = planted(dtype=torch.float32)
    data = source.sample(200, generator=seeded()).data
    start = perturbed_dictionary(truth, 0.8, generator=seeded())
    model = GroupSparseAutoencoder(*SIZES, 0.5, step_size=1.0, dictionary=start).bfloat16()
    history = train(model, data, quiet(epochs=20, learning_rate=0.01, normalize=normalize), generator=seeded())
    assert history.loss[-1] < 0.8 * history.loss[0]
