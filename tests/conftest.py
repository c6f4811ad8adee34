"""Fixtures: a seeded torch.Generator, the devices and precisions at hand; what needs numba is skipped without it."""

import pytest
import torch

from gsae_lib import _loops


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of compiled loops where there is nothing to compile them."""
    if item.get_closest_marker("numba") and _loops.numba is None:
        pytest.skip("numba is not installed")


@pytest.fixture
def rng() -> torch.Generator:
    """A CPU generator with a fixed seed, passed down to everything random."""
    return torch.Generator().manual_seed(20210207)


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this machine has."""
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both precisions of the library."""
    return request.param
