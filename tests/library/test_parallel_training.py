"""Processes that train together: two real ones end where one alone does, and none waits for one that is gone."""

import dataclasses
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_checkpoints import Run

from gsae_lib.training import Checkpoint
from gsae_lib.training._processes import Processes

CASES = {
    f"{kind}, {data}, {name}": Run(kind, data, options=options)
    for kind in ("shallow", "unfolded", "untied", "decoder")
    for data, name, options in [
        ("array", "an uneven last batch", {"batch_size": 16}),
        ("array", "a last batch of one", {"batch_size": 7, "optimizer": "sgd"}),
        ("numpy", "all at once", {"batch_size": None, "normalize": "groups"}),
        ("stream", "uneven batches", {}),
        ("own stream", "normalised", {"normalize": "columns"}),
    ]
}
CASES |= {"one sample a batch": Run(options={"batch_size": 1}), "float32": Run(dtype=torch.float32)}


def write(folder, name, result):
    """What a run gave to the process of this rank."""
    rank = torch.distributed.get_rank()
    save_file(result[0], folder / f"{name}.{rank}", {"curves": json.dumps(result[1])})


def read(folder, name, rank):
    with safe_open(folder / f"{name}.{rank}", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["curves"])


def begin(seconds):
    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=seconds))
    return torch.distributed.get_rank()


# What the processes do; the name of one of these, and a folder, are their arguments.


def train_all(folder):
    """Every case, and one whose arguments differ."""
    rank = begin(120)
    for name, run in CASES.items():
        write(folder, name, run())
    write(folder, "kept", Run()(Checkpoint(folder / "run", every_minutes=1e-9)))
    for changes in ({"seed": rank}, {"data_seed": rank}, {"options": {"learning_rate": 0.1 + rank}}):
        with pytest.raises(ValueError, match="expected the same arguments in all 2 processes"):
            Run(**changes)()


def lose_one(folder):
    """Process 1 is killed in the second epoch."""
    if begin(600):
        Run(callbacks=(lambda epoch, _: os.kill(os.getpid(), signal.SIGKILL) if epoch == 2 else None,))()
    Run(callbacks=(lambda *_: None,))()


def wait_for_one(folder):
    """Process 1 hangs in the second epoch."""
    if begin(5):
        Run(callbacks=(lambda epoch, _: time.sleep(600) if epoch == 2 else None,))()
    Run(callbacks=(lambda *_: None,))()


def restart(folder):
    """Process 1 is killed in its second epoch, the first time."""
    rank, attempt = begin(60), os.environ["TORCHELASTIC_RESTART_COUNT"]

    def die(epoch, model):
        with open(folder / f"epochs.{attempt}.{rank}", "a") as file:
            file.write(f"{epoch}\n")
        if (rank, attempt, epoch) == (1, "0", 2):
            os.kill(os.getpid(), signal.SIGKILL)

    write(folder, "restarted", Run(callbacks=(die,))(Checkpoint(folder / "run", every_minutes=1e-9)))


def environment(**more):
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"} | more


def start(job, folder):
    """Two processes on this machine, which find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command, errors = [sys.executable, __file__, job, str(folder)], {"stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, env=environment(**shared, RANK=str(r)), **errors) for r in range(2)]


def close(one, other, tolerance):
    """The same arrays and curves, but for the rounding of sums."""
    assert one[0].keys() == other[0].keys() and one[1].keys() == other[1].keys()
    for name, tensor in one[0].items():
        torch.testing.assert_close(tensor, other[0][name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
    for name, curve in one[1].items():
        assert list(curve) == pytest.approx(list(other[1][name]), rel=tolerance), name


def test_alone_nothing_changes():
    """Fails if a process that is alone splits or scales anything."""
    processes, rows = Processes(), torch.randn(5, 3)
    assert (processes.rank, processes.count) == (0, 1) and torch.equal(processes.part(rows), rows)
    assert processes.add(torch.nn.Linear(2, 2), 1.5, 3, 5, 5) == (1.5, 3)


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path):
    """Fails if a gradient, a loss or a count is not that of the whole batch, for any network and any batch."""
    for process in start("train_all", tmp_path):
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-3000:]
    for name, run in CASES.items():
        alone, (first, second) = run(), (read(tmp_path, name, rank) for rank in range(2))
        close(alone, first, 1e-4 if run.dtype == torch.float32 else 1e-9)
        assert first[1] == second[1] and all(torch.equal(first[0][key], second[0][key]) for key in first[0]), name
    close(Run()(tmp_path / "run"), read(tmp_path, "kept", 1), 1e-9)  # one process takes the checkpoint of two


@pytest.mark.slow
def test_none_waits_for_one_that_is_gone(tmp_path):
    """Fails if a process whose neighbour is killed, or hangs, waits for ever, or ends as if all were well."""
    pairs = [start("lose_one", tmp_path), start("wait_for_one", tmp_path)]
    try:
        for first, _ in pairs:
            _, errors = first.communicate(timeout=300)
            assert first.returncode == 1 and "Error" in errors.splitlines()[-1]
        assert pairs[0][1].wait(60) == -signal.SIGKILL and pairs[1][1].poll() is None
    finally:
        for process in (*pairs[0], *pairs[1]):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_torchrun_restarts_from_the_checkpoint(tmp_path):
    """Fails if the processes that torchrun starts anew do not go on from where the killed ones were."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--max-restarts", "1", __file__, "restart", str(tmp_path)]
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else torch 2.13 tells them the addresses of those killed
    result = subprocess.run(command, env=environment(**fresh), capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    epochs = {path.name: path.read_text().split() for path in tmp_path.glob("epochs.*")}
    assert epochs["epochs.0.1"] == ["1", "2"] and epochs["epochs.1.0"] == epochs["epochs.1.1"]
    assert epochs["epochs.1.0"] in (["2", "3"], ["3"])  # process 0 may have written the second epoch
    alone = dataclasses.replace(Run(), callbacks=(lambda *_: None,))()
    for rank in range(2):
        close(alone, read(tmp_path, "restarted", rank), 1e-9)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
