"""Where numba is missing everything works through torch, slower, and one line says so."""

import subprocess
import sys

import pytest
from built_site import ROOT

HIDE = "import sys; sys.modules['numba'] = None  # as if it were not installed\n"
USE = """
import torch
from gsae_lib import GroupSparseAutoencoder, TrainingSettings, group_sparse_code, train
rng = torch.Generator().manual_seed(0)
data = torch.randn(200, 30, generator=rng)
model = GroupSparseAutoencoder(30, 10, 3, penalty=3.0, step_size=1.0, generator=rng)
train(model, data, TrainingSettings(epochs=2, batch_size=100, progress=False), generator=rng)
assert group_sparse_code(data, model.weight, 1.0, 3).converged.all()
assert "numba" not in {name.split(".")[0] for name, module in sys.modules.items() if module}
"""
TESTS = """
import pytest
sys.exit(pytest.main(["-m", "not slow", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, from which numba is hidden."""
    command = [sys.executable, "-c", HIDE + program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_step_and_the_solver_work_and_one_line_says_what_is_missing():
    """Fails if the library cannot be imported, a step or the solver calls a loop, or the notice is repeated."""
    result = run(USE)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and "numba" in lines[0] and "gsae_lib[fast]" in lines[0]


@pytest.mark.slow
def test_tests_of_the_step_and_the_solver_pass():
    """Fails if what torch computes in place of the loops is another gradient, or codes with another gap."""
    result = run(TESTS, "tests/library/test_sparse_gradient.py", "tests/library/test_coding.py")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "skipped" in result.stdout  # tests of the loops themselves: numba was hidden
