"""Checkpoints: what was ended goes on as if it had not been, bit by bit, and what does not fit is refused before it."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import clone

from gsae_lib.estimators import GroupSparseClustering, GroupSparseDictionaryLearning
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.networks import GroupSparseAutoencoder, SparseAutoencoder, set_target_sparsity
from gsae_lib.training import Checkpoint, TrainingSettings, checkpoints, train
from gsae_lib.training.checkpoints import CheckpointFile

SIZES = (12, 6, 2)
KINDS = {
    "shallow": {"step_size": 1.0},
    "unfolded": {"n_iterations": 4},
    "untied": {"tied": False},
    "decoder": {"n_iterations": 3, "gradient": "decoder"},
}


class Killed(BaseException):
    """In place of a kill."""


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@dataclasses.dataclass
class Run:
    """The arguments of a call of `train`, made anew for each call, as a new process would."""

    kind: str = "shallow"
    data: str = "array"
    dtype: torch.dtype = torch.float64
    penalty: float = 2.5
    seed: int = 1
    data_seed: int = 5
    callbacks: tuple = ()
    draws: bool = False
    options: dict = dataclasses.field(default_factory=dict)

    def __call__(self, checkpoint=None):
        """Weights, curves, the generator's last state and the history."""
        truth = orthonormal_groups_dictionary(*SIZES, generator=seeded(3), dtype=self.dtype)
        source = GroupSparseSource(truth, 2, 1, snr_db=15.0)
        generator, start = seeded(self.seed), orthonormal_groups_dictionary(*SIZES, generator=seeded(4))
        dictionary = start.to(self.dtype)
        model = GroupSparseAutoencoder(*SIZES, self.penalty, dictionary=dictionary, **KINDS[self.kind])
        data = {
            "array": lambda: source.sample(50, generator=seeded(self.data_seed)).data,
            "numpy": lambda: source.sample(50, generator=seeded(self.data_seed)).data.numpy(),
            "stream": lambda: source.stream(9, generator=generator),
            "own stream": lambda: source.stream(9, generator=seeded(self.data_seed)),
            "list": lambda: iter([source.sample(9, generator=seeded(self.data_seed + i)).data for i in range(20)]),
        }[self.data]()
        how = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "steps_per_epoch": 3, "progress": False}
        plan = TrainingSettings(**how | self.options)
        draw = (lambda *_: {"drawn": torch.rand((), generator=generator)},) if self.draws else ()
        callbacks = (*self.callbacks, *draw)
        history = train(model, data, plan, generator=generator, callbacks=callbacks, checkpoint=checkpoint)
        return {**model.state_dict(), "generator": generator.get_state()}, history.curves, history


def ended_after(run, path, n_saves, **rules):
    """Run, saving at each step unless there are other rules, until so many checkpoints are written; whether it was."""
    save, count = CheckpointFile.save, itertools.count(1)

    def save_and_die(self, progress):
        save(self, progress)
        if next(count) == n_saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFile, "save", save_and_die)
        try:
            run(Checkpoint(path, **rules or {"every_minutes": 1e-9}))
        except Killed:
            return True
    return False


def assert_same(one, other):
    """The same arrays and curves, bit by bit."""
    assert one[0].keys() == other[0].keys() and one[1] == other[1]
    for name, tensor in one[0].items():
        assert tensor.dtype == other[0][name].dtype and torch.equal(tensor, other[0][name]), name


def watch(epoch, model):
    return {"norm": model.weight.norm().item(), "epoch": epoch}


def hold(epoch, model):
    """A callback that changes the model."""
    probe = orthonormal_groups_dictionary(*SIZES, generator=seeded(9)).to(model.weight).T * 5
    return {"penalty": set_target_sparsity(model, probe, 2.0, tol=0.2)}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(KINDS)),
    st.sampled_from(["array", "numpy", "stream", "own stream", "list"]),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([(), (watch,), (watch, hold)]),
    st.sampled_from(["adam", "sgd"]),
    st.sampled_from([None, "columns", "groups"]),
    st.sampled_from([None, 7, 16, 25]),
    st.booleans(),
    st.integers(1, 12),
)
def test_property_what_was_ended_goes_on(
    tmp_path, kind, data, dtype, callbacks, optimizer, normalize, size, draws, n_saves
):
    """Fails if anything that training changes is not kept, is kept inexactly, or is put back in another place."""
    path = tmp_path / "run"
    path.unlink(missing_ok=True)
    options = {"optimizer": optimizer, "normalize": normalize, "batch_size": size}
    run = Run(kind, data, dtype, callbacks=callbacks, draws=draws, options=options)
    ended_after(run, path, n_saves)
    assert_same(run(path), run())


@pytest.mark.parametrize("n_saves", [2, 5, 8])
def test_the_gradient_in_turn_is_kept(tmp_path, n_saves):
    """Fails if a run goes on with the other gradient than was its turn: they differ by rounding."""
    run = Run(penalty=3.0, options={"batch_size": 10})
    assert ended_after(run, tmp_path / "run", n_saves)
    with safe_open(tmp_path / "run", "pt") as file:
        assert json.loads(file.metadata()["checkpoint"])["progress"]["structured"] in (True, False)
    assert_same(run(tmp_path / "run"), run())


def test_a_run_may_be_ended_again_and_again(tmp_path):
    """Fails if a run that goes on does not write what the next one needs."""
    run = Run(callbacks=(watch,))
    while ended_after(run, tmp_path / "run", 3):
        pass
    assert_same(run(tmp_path / "run"), run())


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_checkpoints import Run
from gsae_lib.training.checkpoints import Checkpoint
def tell(epoch, model):
    print(epoch, flush=True)
    return {{"epoch": epoch}}
run = Run(callbacks=(tell,), options={{"epochs": 40}})
run(Checkpoint({path!r}, every_minutes=1e-9))
"""


def test_a_killed_process_goes_on(tmp_path):
    """Fails if a kill, at any moment, leaves a file from which the next process cannot go on bit by bit."""
    path, run = tmp_path / "run", Run(callbacks=(lambda epoch, model: {"epoch": epoch},), options={"epochs": 40})
    script = SCRIPT.format(tests=str(Path(__file__).parent), path=str(path))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as child:
        for line in child.stdout:
            if int(line) == 7:
                os.kill(child.pid, signal.SIGKILL)
                break
        assert child.wait() == -signal.SIGKILL
    with safe_open(path, "pt") as file:
        assert 6 <= json.loads(file.metadata()["checkpoint"])["progress"]["epochs"] < 40
    assert_same(run(path), run())


# When


def saves(monkeypatch, run, checkpoint):
    """The (epochs, steps) that were written."""
    found, save = [], CheckpointFile.save

    def note(self, progress):
        found.append((progress.epochs, progress.steps))
        save(self, progress)

    monkeypatch.setattr(CheckpointFile, "save", note)
    run(checkpoint)
    return found


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"every_minutes": None}, [(0, 0), (5, 0)]),
        ({"every_epochs": 2}, [(0, 0), (2, 0), (4, 0), (5, 0)]),
        ({"every_minutes": 1e-9, "every_epochs": 100}, [(e, s) for e in range(5) for s in range(4)] + [(5, 0)]),
    ],
)
def test_when_it_is_written(tmp_path, monkeypatch, rules, expected):
    """Fails if it is not written at the start, by the rules, and at the end, or more often."""
    assert saves(monkeypatch, Run(options={"epochs": 5}), Checkpoint(tmp_path / "run", **rules)) == expected


def test_minutes_are_minutes(tmp_path, monkeypatch):
    """Fails if minutes are counted as something else, or from elsewhere than the last time it was written."""
    now = itertools.count(0.0, 20.0)  # seconds, a step on at every look
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: next(now))
    expected = [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0)]
    assert saves(monkeypatch, Run(options={"epochs": 2}), Checkpoint(tmp_path / "run", every_minutes=0.6)) == expected


def test_a_finished_run_returns_at_once(tmp_path, monkeypatch):
    """Fails if it trains, writes, or tells another history; more epochs go on as if all had been asked for."""
    run, path = Run(data="stream", callbacks=(watch,)), tmp_path / "new" / "run"
    first = run(path)
    content = path.read_bytes()
    again = run(path)
    assert_same(first, again)
    assert first[2] == again[2] and path.read_bytes() == content
    longer = dataclasses.replace(run, options={"epochs": 6})
    assert_same(longer(path), longer())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_last_file(tmp_path, monkeypatch, call):
    """Fails if the file is written in place, or a rest of an earlier write is in the way."""
    path, run = tmp_path / "run", Run()
    (tmp_path / "run.tmp").write_text("a rest")
    assert ended_after(run, path, 4)
    content = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, call, fail)
        with pytest.raises(ValueError, match=r"^checkpoint='.*run': expected a file that can be written \(No space"):
            run(path)
    assert path.read_bytes() == content
    assert_same(run(path), run())


# What is refused


OTHERS = {
    "learning_rate=0.01, not 0.02": {"options": {"learning_rate": 0.02}},
    "optimizer='adam', not 'sgd'": {"options": {"optimizer": "sgd"}},
    "batch_size=": {"options": {"batch_size": 8}},
    "normalize=": {"options": {"normalize": "columns"}},
    r"penalty=\[2.5\], not \[2.25\]": {"penalty": 2.25},
    "model.n_iterations=1, not 4": {"kind": "unfolded"},
    "decoder_weight=None, not .*": {"kind": "untied"},
    "dtype=": {"dtype": torch.float32},
    "generator=": {"seed": 2},
    "data.rows=": {"data_seed": 6},
    "data.dtype='float64', not None": {"data": "stream"},
    "callbacks=0, not 1": {"callbacks": (watch,)},
    "expected at most epochs=1": {"options": {"epochs": 1}},
}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("message", OTHERS)
def test_rejects_a_checkpoint_of_another_run(tmp_path, message, finished):
    """Fails if a run goes on from what is not its own, or replaces it."""
    run, path = Run(), tmp_path / "run"
    run(path) if finished else ended_after(run, path, 9)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=f"^checkpoint='.*run': it holds .*({message})") as caught:
        dataclasses.replace(run, **OTHERS[message])(path)
    assert "\n" not in str(caught.value) and path.read_bytes() == content
    assert os.listdir(tmp_path) == ["run"]


def test_rejects_another_start_another_kind_and_groups_of_other_sizes(tmp_path):
    """Fails if what is not the same, with as many atoms and groups, is taken for it; rounding is no other start."""
    data, plan = torch.randn(30, 5, generator=seeded()), TrainingSettings(epochs=2, progress=False)

    def begin(groups, noise=0.0):
        model = GroupSparseAutoencoder(5, 2, groups, 0.1, dictionary=torch.eye(5) + noise)
        return go_on(model)

    def go_on(model):
        return train(model, data, plan, generator=seeded(), checkpoint=tmp_path / "run")

    first = begin([2, 3])
    assert first == begin((2, 3)) == begin([[0, 1], [2, 3, 4]]) == begin([2, 3], 1e-6)
    with pytest.raises(ValueError, match=r"run': it holds a run with start.weight="):
        begin([2, 3], 0.01)
    with pytest.raises(ValueError, match=r"model.groups='\(2, 3\)', not '\(3, 2\)'"):
        begin([3, 2])
    with pytest.raises(ValueError, match=r"model='GroupSparseAutoencoder', not 'SparseAutoencoder'"):
        go_on(SparseAutoencoder(5, 5, 0.1, dictionary=torch.eye(5)))


def test_goes_on_where_version_0_3_stopped(tmp_path):
    """Fails if the names that version 0.3 gave what tells a run from others are refused, or its one SAE is taken."""
    expected, curves, _ = Run()()
    ended_after(Run(), tmp_path / "run", 2, every_epochs=1, every_minutes=None)
    tensors, content = checkpoints.read_checkpoint(tmp_path / "run")
    run = content["run"]
    old = {"model.groups": "model.group_size", "model.l1": "model.elementwise_penalty"}
    assert old.keys() < run.keys()
    content["run"] = {old.get(name, name): value for name, value in run.items()}
    checkpoints.write_checkpoint(tmp_path / "run", tensors, content).close()
    state, found, _ = Run()(tmp_path / "run")
    assert found == curves
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    content["run"] = {"model": "GroupSparseFeaturizer", "model.group_size": 2}
    checkpoints.write_checkpoint(tmp_path / "run", tensors, content).close()
    with pytest.raises(ValueError, match=r"GroupSparseFeaturizer of version 0\.3; end it with that version"):
        Run()(tmp_path / "run")


@pytest.mark.parametrize("data", ["own stream", "list"])
def test_rejects_another_stream(tmp_path, data):
    """Fails if a stream goes on that gives other batches than before."""
    assert ended_after(Run(data=data), tmp_path / "run", 6)
    with pytest.raises(ValueError, match=r"^checkpoint='.*': the stream gives other batches .* expected a stream"):
        Run(data=data, data_seed=50)(tmp_path / "run")


def test_rejects_damage_anywhere(tmp_path):
    """Fails if a file that has lost its end, or any byte of which is another, is taken."""
    run, path = Run(), tmp_path / "run"
    ended_after(run, path, 5)
    content = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(content), 60)
    damaged = [content[:place] for place in places[:20]]
    damaged += [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places]
    for other in [*damaged, b"", b"mine", content + b"x"]:
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"^checkpoint='.*run': (no checkpoint|damaged)") as caught:
            run(path)
        assert "\n" not in str(caught.value) and path.read_bytes() == other


def test_rejects_another_format_and_other_files(tmp_path, monkeypatch):
    """Fails if a file of a later library, or of another purpose, is taken or replaced."""
    run, path = Run(), tmp_path / "run"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"run': no checkpoint of training"):
        run(path)
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", 2)
        run(path)
    with pytest.raises(ValueError, match=r"run': it has format 2, expected 1"):
        run(path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "expected a file, and it is none"),
        ("file/run", "can be written .(Not a directory|File exists)"),
        ("x" * 300, "can be written .File name too long"),
        ("/dev/null", "expected a file, and it is none"),
        ("/proc/run", "can be written"),
    ],
)
def test_rejects_a_place_that_cannot_be_written(tmp_path, place, reason):
    """Fails if training starts, and finds out hours later."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=f"^checkpoint='.*': .*{reason}"):
        Run(callbacks=(lambda *_: pytest.fail("trained"),))(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and (tmp_path / "file").read_text() == "mine"


# Estimators


@pytest.fixture
def planes():
    truth = orthonormal_groups_dictionary(*SIZES, generator=seeded(3))
    return GroupSparseSource.union_of_subspaces(truth, 2, snr_db=20.0).sample(60, generator=seeded()).data.numpy()


SETTINGS = {"n_groups": 6, "group_size": 2, "alpha": 1.0, "max_iter": 4, "n_iterations": 3, "batch_size": 15}
SETTINGS["random_state"] = 0


@pytest.mark.parametrize("model", [GroupSparseDictionaryLearning(**SETTINGS), GroupSparseClustering(3, **SETTINGS)])
def test_estimators_go_on(tmp_path, planes, model):
    """Fails if a fit that was ended gives another dictionary or clusters, or files and copies forget the checkpoint."""
    expected = clone(model).fit(planes)
    model = clone(model).set_params(checkpoint=tmp_path / "run")

    def end(file, progress, *, last=False):
        file.save(progress)
        if (progress.epochs, progress.steps) == (2, 3):
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(CheckpointFile, "save_if_due", end)
        clone(model).fit(planes)
    assert (tmp_path / "run").is_file()
    for _ in range(2):  # the second has nothing left to do
        found = clone(model).fit(planes)
        np.testing.assert_array_equal(found.components_, expected.components_)
        np.testing.assert_array_equal(found.transform(planes), expected.transform(planes))
    found.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert loaded.checkpoint == str(tmp_path / "run")
    np.testing.assert_array_equal(clone(loaded).fit(planes).components_, expected.components_)
    with pytest.raises(ValueError, match=r"^checkpoint='.*run': it holds a run with data.rows="):
        clone(model).fit(planes + 1)


def test_halves_leave_the_checkpoint_alone(tmp_path, planes):
    """Fails if copies that are fitted on halves write to the file of the whole, or are refused by it."""
    model = GroupSparseClustering("auto", **SETTINGS)
    kept = clone(model).set_params(checkpoint=str(tmp_path / "run")).fit(planes)
    np.testing.assert_array_equal(kept.labels_, model.fit(planes).labels_)


HOLD = """
import sys
from pathlib import Path
import torch
from gsae_lib.training.checkpoints import write_checkpoint
held = write_checkpoint(Path(sys.argv[1]), {"a": torch.zeros(1)}, {})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_two_trainings_do_not_write_to_one_file(tmp_path, when):
    """Fails if a second process replaces the checkpoint of the first, or if the first's end leaves it locked."""
    path = tmp_path / "run"
    others = []

    def start(*_):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=-1, stdout=-1, text=True)
        assert process.stdout.readline() == "held\n"
        others.append(process)

    if when == "before":
        start()
        with pytest.raises(ValueError, match="another process writes there"):
            Run()(Checkpoint(path, every_epochs=1))
    else:
        with pytest.raises(OSError, match="another training has written there"):
            Run(callbacks=(lambda *_: path.unlink(), start))(Checkpoint(path, every_epochs=1))
    for process in others:
        process.communicate("")
    path.unlink()
    whole = Run()(Checkpoint(path, every_epochs=1))
    assert whole[1] == Run()(Checkpoint(path, every_epochs=1))[1]
