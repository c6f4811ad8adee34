"""Blocks on threads: the order and the values of a loop, whatever the number of threads."""

import threading
import time

import pytest
import torch

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, train
from gsae_lib._threads import AHEAD, BlockThreads
from gsae_lib.coding import group_sparse_code
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.learning import k_subspaces
from gsae_lib.networks import shallow_gradient

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_with_one_thread_each(threads):
    """Fails if a block overtakes another, runs in a thread with several unless it is alone, or with gradients."""

    def task(block):
        time.sleep(0.01 * (block % 3 == 0))
        return block, torch.get_num_threads(), threading.get_ident(), torch.is_grad_enabled()

    with BlockThreads(CPU) as pool:
        found = list(pool.map(task, range(20)))
        assert torch.get_num_threads() == 1
    assert [one[0] for one in found] == list(range(20))
    assert len({one[2] for one in found}) <= threads
    if threads > 1:
        assert {one[1] for one in found} == {1} and not any(one[3] for one in found)
        assert threading.get_ident() not in {one[2] for one in found}
    with BlockThreads(CPU) as pool:
        assert list(pool.map(lambda block: torch.get_num_threads(), [0])) == [threads]
    with pytest.raises(ZeroDivisionError), BlockThreads(CPU) as pool:
        list(pool.map(lambda block: 1 / (block - 3), range(8)))
    assert torch.get_num_threads() == threads


def test_few_results_wait(threads):
    """Fails if all blocks are begun at once, so that their results fill the memory."""
    begun = []
    with BlockThreads(CPU) as pool:
        next(pool.map(lambda block: begun.append(block), range(100)))
        time.sleep(0.05)
        assert len(begun) <= max(1, AHEAD * threads)
    time.sleep(0.05)
    assert len(begun) <= max(1, AHEAD * threads)


def results():
    """What the kernels that use blocks give, on several blocks each."""
    rng = torch.Generator().manual_seed(0)
    truth = gaussian_dictionary(60, 40, 2, generator=rng)
    data = GroupSparseSource(truth, 2, 2, snr_db=10.0).sample(900, generator=rng).data
    step = shallow_gradient(data, truth, 2.0, 2, chunk=100)
    model = GroupSparseAutoencoder(60, 40, 2, 0.5, n_iterations=4, dictionary=truth)
    train(model, data, TrainingSettings(epochs=2, progress=False), generator=rng)
    coded = group_sparse_code(data[:300].double(), truth.double(), 0.5, 2)
    fit = k_subspaces(data, 5, 2, generator=rng, max_iter=5)
    found = {"gradient": step.gradient, "loss": torch.tensor(step.loss), "network": model.weight.detach()}
    return found | {"codes": coded.codes, "gap": coded.gap, "k-subspaces": fit.dictionary}


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    """Fails if blocks depend on the number of threads, or are added up in another order."""
    for name, value in (
        ("networks.unfolding.BLOCK_ENTRIES", 8000),
        ("coding._solver.BLOCK_ENTRIES", 2400),
        ("coding._solver.ALONE_ENTRIES", 2400),
        ("learning.initialization.BLOCK", 100),
    ):
        monkeypatch.setattr(f"gsae_lib.{name}", value)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(results())
    finally:
        torch.set_num_threads(before)
    differ = [name for name in found[0] if not torch.equal(found[0][name], found[1][name])]
    assert set(differ) <= {"network"}
    torch.testing.assert_close(found[0]["network"], found[1]["network"], rtol=1e-5, atol=1e-5)
