"""Groups are contiguous blocks of the last axis: checked against explicit slices, one group at a time."""

import numpy as np
import pytest
import torch

from gsae_lib.groups import active_groups, group_norms, normalized_group_norms, to_groups


@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 12), (0, 12), (2, 0, 12)])
@pytest.mark.parametrize("group_size", [1, 3, 12])
@pytest.mark.parametrize("transposed", [False, True])
def test_groups_are_contiguous_slices(shape, group_size, transposed, rng, dtype):
    """Fails if groups interleave, memory order passes for axis order, data are copied, or an empty batch is refused."""
    x = torch.randn(shape, generator=rng, dtype=dtype)
    if transposed:
        x = x.movedim(-1, 0).contiguous().movedim(0, -1)
    blocks, norms, active = to_groups(x, group_size), group_norms(x, group_size), active_groups(x, group_size)
    assert blocks.shape == (*shape[:-1], 12 // group_size, group_size)
    for g in range(12 // group_size):
        block = x[..., g * group_size : (g + 1) * group_size]
        assert torch.equal(blocks[..., g, :], block)
        np.testing.assert_allclose(norms[..., g], np.sqrt((block.numpy() ** 2).sum(-1)), rtol=1e-6)
        assert torch.equal(active[..., g], torch.ones(shape[:-1], dtype=torch.bool))
    blocks.zero_()
    assert not x.any()


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
