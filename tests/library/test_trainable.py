"""A model that the library does not know is trained, kept in a file, and goes on, by the protocol alone."""

import pytest
import torch
from torch import nn

from gsae_lib.training import TrainingError, TrainingSettings, train

PLAN = TrainingSettings(epochs=6, batch_size=20, learning_rate=0.02, progress=False)


class Principal(nn.Module):
    """A plane through the origin, y_hat = W W^T y: its two columns are always active."""

    several_processes = True

    def __init__(self, weight, share=1.0):
        super().__init__()
        self.weight, self.n_groups = nn.Parameter(weight.clone()), weight.shape[1]
        self.share, self.told = share, []

    def training_step(self, batch, *, few_active):
        self.told.append(few_active)
        loss = 0.5 * (batch - batch @ self.weight @ self.weight.T).square().sum(dim=1).mean()
        loss.backward()
        return loss.detach(), self.share * len(batch) * self.n_groups

    def after_step(self, normalize):
        if normalize == "columns":
            with torch.no_grad():
                self.weight /= self.weight.norm(dim=0)

    def explain_inactivity(self, batch):
        return f"nothing of {len(batch)} samples is active"


@pytest.fixture
def data(rng):
    return torch.randn(100, 2, generator=rng) @ torch.randn(2, 8, generator=rng)


def start(rng):
    return torch.randn(8, 2, generator=rng)


def test_a_model_of_ones_own_is_trained(data, rng):
    """Fails if `train` asks more of a model than the protocol says, or its curves are not what the model tells."""
    model = Principal(0.3 * start(rng))
    history = train(model, data, PLAN, generator=rng)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert set(history.curves["active_groups"]) == {2.0}
    model = Principal(start(rng))
    train(model, data, TrainingSettings(epochs=1, normalize="columns", progress=False), generator=rng)
    torch.testing.assert_close(model.weight.norm(dim=0).detach(), torch.ones(2))


def test_it_goes_on_bit_by_bit(data, tmp_path, rng):
    """Fails if a checkpoint of a model that is not the library's lacks something."""
    first = 0.3 * start(rng)

    def run(epochs, **more):
        model, order = Principal(first), torch.Generator().manual_seed(4)
        plan = TrainingSettings(epochs=epochs, batch_size=20, learning_rate=0.02, progress=False)
        return model, train(model, data, plan, generator=order, **more).loss

    whole, losses = run(6)
    run(2, checkpoint=tmp_path / "kept")
    resumed, again = run(6, checkpoint=tmp_path / "kept")
    assert losses == again and torch.equal(whole.weight, resumed.weight)


@pytest.mark.parametrize("share, few", [(0.1, True), (0.5, False)])
def test_a_step_is_told_whether_few_groups_were_active(share, few, data, rng):
    """Fails if the first step, of which nothing is known, or a later one is told another way."""
    model = Principal(0.3 * start(rng), share)
    train(model, data, PLAN, generator=rng)
    assert model.told == [True] + [few] * 29


def test_rejects_what_is_not_trainable(data, rng):
    """Fails if a model without a method ends in an error of another kind, or one that is inactive does not say why."""
    for model in (nn.Linear(8, 2), None, type("Duck", (), {"weight": torch.ones(8, 2)})()):
        with pytest.raises(ValueError, match=r"^model: expected an nn.Module that is Trainable, got"):
            train(model, data, PLAN, generator=rng)
    with pytest.raises(TrainingError, match="epoch 1: nothing of 20 samples is active"):
        train(Principal(start(rng), share=0.0), data, PLAN, generator=rng)
