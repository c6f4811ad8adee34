"""The flow of one group: against automatic differentiation, small finite moves, and counts by hand."""

import pytest
import torch
from true_groups import gaussian

from gsae_lib import group_relu
from gsae_lib.theory.flows import active_share, normal_flow, plane_bases, span_flow

DOUBLE = torch.float64


def unit(x):
    """Rows scaled to length one."""
    return x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_span_flow_is_minus_the_gradient_outside_the_span(size, rng):
    """Fails if the sign, the projection or the place of a basis is wrong: automatic differentiation, one by one."""
    bases, data = torch.linalg.qr(gaussian(rng, 4, 6, size)).Q, 3 * gaussian(rng, 20, 6)
    found = span_flow(data, bases, 1.5)
    for basis, move in zip(bases, found, strict=True):
        weight = basis.clone().requires_grad_()
        loss = (data - group_relu(data @ weight, 1.5, size) @ weight.T).square().sum() / (2 * len(data))
        (gradient,) = torch.autograd.grad(loss, weight)
        outside = torch.linalg.qr(basis, mode="complete").Q[:, size:]  # of the complement
        torch.testing.assert_close(move, -outside @ (outside.T @ gradient), rtol=0, atol=1e-12)


def test_normal_follows_its_plane(rng):
    """Fails if the normal does not turn with the plane: the cross product of the columns, moved by a small time."""
    normals, data, time = unit(gaussian(rng, 7, 3)), 4 * gaussian(rng, 30, 3), 1e-6
    bases = plane_bases(normals)
    moved = bases + time * span_flow(data, bases, 2.0)
    ahead = unit(torch.linalg.cross(*moved.unbind(dim=2)))
    ahead = ahead * (ahead * normals).sum(dim=1, keepdim=True).sign()
    torch.testing.assert_close(normal_flow(data, normals, 2.0), (ahead - normals) / time, rtol=0, atol=1e-4)


def test_plane_bases_are_orthonormal_and_orthogonal_to_their_normals(rng):
    """Fails if a basis is not one, or has a part along the normal."""
    normals = unit(gaussian(rng, 5, 3))
    bases = plane_bases(normals)
    torch.testing.assert_close(bases.mT @ bases, torch.eye(2, dtype=DOUBLE).expand(5, 2, 2), rtol=0, atol=1e-14)
    assert (bases.mT @ normals.unsqueeze(2)).abs().max() < 1e-14


def test_a_dead_group_does_not_move(rng):
    """Fails if a group that is active on no sample has a share or a velocity; one on its own line rests, too."""
    data = 4.5 * torch.eye(3, dtype=DOUBLE)
    bases = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], dtype=DOUBLE)
    bases = unit(bases).unsqueeze(2)
    assert active_share(data, bases, 3.4).tolist() == [0.0, pytest.approx(1 / 3)]
    assert span_flow(data, bases, 3.4).abs().max() < 1e-14


def test_active_share_is_that_of_norms():
    """Fails if entries are compared with lambda, or signs count: (2, 2) has norm 2.8, (-3, 0) norm 3, over 2.5."""
    basis = torch.eye(3, 2, dtype=DOUBLE).unsqueeze(0)
    data = torch.tensor([[2.0, 2.0, 0.0], [-3.0, 0.0, 0.0], [1.0, 1.0, 9.0], [0.0, 2.4, 0.0]], dtype=DOUBLE)
    assert active_share(data, basis, 2.5).tolist() == [0.5]


@pytest.mark.parametrize(
    "function, columns, penalty, message",
    [
        (active_share, 2, 1.0, "data: expected 3 columns"),
        (active_share, 3, 0.0, r"penalty=0\.0"),
        (span_flow, 3, -1.0, r"penalty=-1\.0"),
        (lambda data, *_: plane_bases(data), 2, 1.0, "normals: expected 3 columns"),
    ],
)
def test_flows_rejects(function, columns, penalty, message):
    """Fails if an argument that cannot work is not named."""
    with pytest.raises(ValueError, match=message):
        function(torch.eye(3, columns, dtype=DOUBLE), torch.eye(3, 2, dtype=DOUBLE).unsqueeze(0), penalty)
