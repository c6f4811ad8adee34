"""Groups are contiguous blocks of the last axis: checked against explicit slices, one group at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gsae_lib.groups import active_groups, group_norms, normalized_group_norms, to_groups


@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 12), (0, 12), (2, 0, 12)])
@pytest.mark.parametrize("group_size", [1, 3, 12])
def test_groups_are_contiguous_slices(shape, group_size, rng, dtype):
    """Fails if groups interleave, if a leading axis is folded, or if an empty batch is refused."""
    x = torch.randn(shape, generator=rng, dtype=dtype)
    blocks, norms, active = to_groups(x, group_size), group_norms(x, group_size), active_groups(x, group_size)
    assert blocks.shape == (*shape[:-1], 12 // group_size, group_size)
    for g in range(12 // group_size):
        block = x[..., g * group_size : (g + 1) * group_size]
        assert torch.equal(blocks[..., g, :], block)
        np.testing.assert_allclose(norms[..., g], np.sqrt((block.numpy() ** 2).sum(-1)), rtol=1e-6)
        assert torch.equal(active[..., g], torch.ones(shape[:-1], dtype=torch.bool))


def test_to_groups_is_a_view(rng):
    """Fails if the data are copied: writing to a group must write to x."""
    x = torch.randn(4, 6, generator=rng)
    to_groups(x, 2)[1, 2, 0] = 7.0
    assert x[1, 4] == 7.0


def test_non_contiguous_input(rng):
    """Fails if memory order is taken for axis order."""
    x = torch.randn(6, 4, generator=rng).T
    assert torch.equal(group_norms(x, 3), group_norms(x.contiguous(), 3))


def test_norm_gradient_is_the_direction_and_zero_at_a_zero_group(rng):
    """Fails if the gradient at a zero group is nan (sqrt of a sum of squares), or is not x_g / ||x_g||."""
    x = torch.randn(3, 6, generator=rng, dtype=torch.float64)
    x[1, 2:4] = 0
    expected = x.clone()
    for i, g in np.ndindex(3, 3):
        block = expected[i, 2 * g : 2 * g + 2]
        if block.any():
            block /= block.square().sum().sqrt()
    x.requires_grad_()
    group_norms(x, 2).sum().backward()
    torch.testing.assert_close(x.grad, expected)


def test_normalized_group_norms(rng):
    """Fails if samples are scaled by groups, or a zero code becomes nan; rotations within groups must not matter."""
    codes = torch.randn(5, 6, generator=rng, dtype=torch.float64)
    codes[2] = 0
    expected = np.zeros((5, 3))
    for i, row in enumerate(codes.numpy()):
        norms = np.array([np.hypot(*row[2 * g : 2 * g + 2]) for g in range(3)])
        expected[i] = norms / np.sqrt(np.sum(row**2)) if row.any() else 0
    np.testing.assert_allclose(normalized_group_norms(codes, 2), expected, rtol=1e-12)
    turn = torch.linalg.qr(torch.randn(3, 2, 2, generator=rng, dtype=torch.float64)).Q
    np.testing.assert_allclose(normalized_group_norms(codes @ torch.block_diag(*turn), 2), expected, rtol=1e-9)


def test_active_means_any_nonzero_entry():
    """Fails with a tolerance or a norm (the smallest subnormal squares to 0), or if -0.0 counts as active."""
    x = torch.tensor([[0.0, 1e-45, -0.0, 0.0, 0.0, -3.0]])
    assert active_groups(x, 2).tolist() == [[True, False, True]]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_property_norms_add_up(n_groups, group_size, batch):
    """Fails if an entry is counted twice or left out: squared group norms sum to the squared norm."""
    x = torch.randn(batch, n_groups * group_size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(group_norms(x, group_size).square().sum(-1), x.square().sum(-1))


@pytest.mark.parametrize("group_size", [0, -1, 4, 7, True, 2.0, None])
@pytest.mark.parametrize("function", [to_groups, group_norms, active_groups, normalized_group_norms])
def test_rejects_bad_group_sizes(function, group_size):
    """Fails if a size that does not divide the axis is accepted, or if the message does not quote it."""
    with pytest.raises(ValueError, match=f"group_size={group_size!r}"):
        function(torch.zeros(2, 6), group_size)


def test_rejects_a_scalar():
    """Fails if a tensor without axes raises anything but a ValueError that describes it."""
    with pytest.raises(ValueError, match=r"group_size=1.*\(\)"):
        to_groups(torch.tensor(1.0), 1)
