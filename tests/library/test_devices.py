"""A GPU without a GPU: everything public that takes tensors, on a device that refuses what a GPU refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

from gsae_lib import (
    GroupSparseAutoencoder,
    GroupSparseClustering,
    TrainingSettings,
    certify,
    find_groups,
    group_sparse_code,
    train,
)
from gsae_lib.clustering import coactivation_groups, ensemble_clusters
from gsae_lib.dictionary import orthonormalize_groups
from gsae_lib.generative import GroupSparseSource, gaussian_dictionary

# Functions without a case: what they take is on the CPU.
ON_CPU = {
    "training.checkpoints.digest": "a stream's last batch",
    "training.loop.Trainable.explain_inactivity": "a protocol",
    "training.loop.Trainable.training_step": "a protocol",
}
# Parts of a training step, which leave checks to who calls them.
UNCHECKED = {
    "networks.sparse_gradient.decode_pairs",
    "networks.sparse_gradient.selected_responses",
    "networks.unfolding.tied_gradient",
    "networks.unfolding.unfold",
    "penalty.GroupPenalty.pullback",
}
LEEWAY = 1.5  # in how often the host waits


@pytest.fixture(scope="module")
def report():
    """What the cases found, in a process of its own: torch knows the devices that it had at its first backward."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices of Python")
    program = Path(__file__).parents[1] / "device_cases.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_device_gives_the_numbers_of_the_cpu(report):
    """Fails if a tensor is made on the wrong device, a generator is taken there, or values come back by `.numpy()`."""
    assert report["failed"] == {}


def test_all_that_takes_tensors_has_a_case(report):
    """Fails if a public function that takes tensors is new, and neither in a case nor in the list above."""
    assert report["missing"] == sorted(f"gsae_lib.{name}" for name in ON_CPU)


def test_two_devices_are_refused_in_one_line(report):
    """Fails if arguments on two devices end in an error of torch, or in one that does not name both."""
    assert {name.removeprefix("gsae_lib.") for name in report["mixed"]} == UNCHECKED, report["mixed"]


def test_the_host_waits_no_more_for_more_samples(report):
    """Fails if `find_groups` asks the device for a value once a sample, or far more often than it does today: 300."""
    few, many = (report["waits"][n] for n in ("200", "800"))
    assert 0 < many <= LEEWAY * few and many < LEEWAY * 300


def trained(data, rng, **settings):
    model = GroupSparseAutoencoder(12, 4, 2, 1.0, dictionary=data[:8].T, **settings)
    plan = TrainingSettings(epochs=2, batch_size=50, progress=False)
    return train(model, data, plan, generator=rng).curves["loss"]


PRECISE = {
    "tied": lambda data, rng: trained(data, rng, n_iterations=3),
    "untied": lambda data, rng: trained(data, rng, tied=False),
    "shallow": lambda data, rng: trained(data, rng, step_size=1.0),
    "groups": lambda data, rng: find_groups(data, 2, 2, max_tries=64, generator=rng).dictionary,
    "codes": lambda data, rng: group_sparse_code(data, torch.eye(12, dtype=data.dtype), 0.5, 2).codes,
    "clusters": lambda data, rng: ensemble_clusters(data, 4, 2, random_state=0, n_runs=2),
    "co-activity": lambda data, rng: coactivation_groups(data.abs(), 3, random_state=0),
    "an estimator": lambda data, rng: GroupSparseClustering(4, max_iter=3, random_state=0).fit_transform(data.numpy()),
    "a polar factor": lambda data, rng: orthonormalize_groups(data[:12], 2),
    "a certificate": lambda data, rng: [
        f.value for f in certify(data, torch.eye(12, dtype=data.dtype) + 0.1, 1.0, 2).facts
    ],
}


@pytest.mark.parametrize("name", PRECISE)
def test_autocast_and_defaults_change_no_number(name):
    """Fails if a product is rounded to bfloat16 within autocast, or if the default precision enters a result."""

    def run():
        rng = torch.Generator().manual_seed(1)
        weight = gaussian_dictionary(12, 4, 2, generator=rng, dtype=torch.float32)
        data = GroupSparseSource(weight, 2, snr_db=20.0).sample(200, generator=rng).data
        return PRECISE[name](data, rng)

    plain = run()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(run(), plain, rtol=0, atol=0)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(run(), plain, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(torch.float32)
