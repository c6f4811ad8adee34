"""Matches and captures of subspaces, against principal angles by scipy, brute force over orders, and known cases."""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from gsae_lib.generative import gaussian_dictionary
from gsae_lib.metrics import match_groups, principal_angles, rotated_dictionary_error
from gsae_lib.subspaces import largest_capture, match_subspaces, subspace_capture, subspace_overlaps


def test_overlaps_are_mean_squared_cosines(rng, dtype):
    """Fails if a cosine is not squared, divided by the wrong number, or of columns that are not orthonormal."""
    one, other = (gaussian_dictionary(9, count, 3, generator=rng, dtype=dtype) for count in (2, 4))
    found = subspace_overlaps(one, other, 3)
    for g, h in np.ndindex(2, 4):
        angles = subspace_angles(
            one[:, 3 * g : 3 * g + 3].double().numpy(), other[:, 3 * h : 3 * h + 3].double().numpy()
        )
        assert found[g, h].item() == pytest.approx((np.cos(angles) ** 2).mean(), abs=1e-5)


def test_matching_is_the_best_of_all_orders(rng):
    """Fails if it is greedy, or takes a group twice; with more groups on either side."""
    dictionaries = [gaussian_dictionary(4, count, 2, generator=rng, dtype=torch.float64) for count in (3, 5)]
    for one, other in (dictionaries, dictionaries[::-1]):
        found, overlaps = match_subspaces(one, other, 2), subspace_overlaps(one, other, 2)
        small = overlaps if len(overlaps) == 3 else overlaps.T
        best = max(
            sum(small[g, h].item() for g, h in enumerate(order)) for order in itertools.permutations(range(5), 3)
        )
        assert found.overlap.sum().item() == pytest.approx(best) and len(found.first) == 3
        torch.testing.assert_close(overlaps[found.first, found.second], found.overlap)


def test_capture_of_a_circle_is_by_its_plane(rng):
    """Fails if the mean counts, a share is not of energy, or a circle outside the span is captured."""
    angle = torch.arange(12).double() * (2 * torch.pi / 12)
    basis = torch.linalg.qr(torch.randn(8, 4, generator=rng, dtype=torch.float64)).Q
    circle = torch.stack([angle.cos(), angle.sin()], dim=1) @ basis[:, :2].T + 5 * basis[:, 2]
    tilted = torch.stack([basis[:, 0], (basis[:, 1] + basis[:, 3]) / 2**0.5], dim=1)
    dictionary = torch.cat(
        [tilted, 3 * basis[:, :2] @ torch.tensor([[1.0, 1.0], [0.0, 1.0]]).double(), basis[:, 2:]], 1
    )
    torch.testing.assert_close(subspace_capture(circle, dictionary, 2), torch.tensor([0.75, 1.0, 0.0]).double())
    about_zero = subspace_capture(circle, dictionary, 2, about="zero")
    torch.testing.assert_close(about_zero, torch.tensor([0.75, 1.0, 25.0]).double() / 26)
    assert largest_capture(circle, 1) == pytest.approx(0.5) and largest_capture(circle, 2) == pytest.approx(1.0)


def test_nothing_captures_more_than_the_largest(rng):
    """Fails if the best subspace is not the best."""
    points = torch.randn(15, 6, generator=rng, dtype=torch.float64)
    dictionary = gaussian_dictionary(6, 200, 2, generator=rng, dtype=torch.float64)
    best = largest_capture(points, 2)
    _, _, vh = np.linalg.svd((points - points.mean(0)).numpy())
    own = subspace_capture(points, torch.from_numpy(vh[:2].T.copy()), 2)
    assert subspace_capture(points, dictionary, 2).max() < best and own.item() == pytest.approx(best)


def test_groups_of_several_sizes():
    """Fails if spans of several sizes are compared otherwise than one by one, or matched across sizes."""
    rng, sizes = torch.Generator().manual_seed(2), [2, 1, 3, 2]
    first, second = (torch.randn(9, 8, generator=rng, dtype=torch.float64) for _ in range(2))
    spans = [[torch.linalg.qr(block).Q for block in one.split(sizes, dim=1)] for one in (first, second)]
    overlaps = subspace_overlaps(first, second, sizes)
    captures = subspace_capture(second[:, :3].T, first, sizes, about="zero")
    for g, q in enumerate(spans[0]):
        for h, p in enumerate(spans[1]):
            expected = (q.T @ p).square().sum() / max(sizes[g], sizes[h])
            assert overlaps[g, h].item() == pytest.approx(expected.item())
        part = (q.T @ second[:, :3]).square().sum() / second[:, :3].square().sum()
        assert captures[g].item() == pytest.approx(part.item())
    blocks = first.split(sizes, dim=1)
    shuffled = torch.cat([blocks[3], blocks[1], blocks[2], blocks[0]], dim=1)
    matched, order = match_groups(shuffled, first, sizes)
    assert order.tolist() == [3, 1, 2, 0] and torch.equal(matched, first)
    assert principal_angles(matched, first, sizes).shape == (4, 3)
    turned = torch.cat([b @ torch.randn(b.shape[1], b.shape[1], generator=rng).double() for b in blocks], dim=1)
    assert principal_angles(turned, first, sizes).max() < 1e-6
    assert match_subspaces(turned, first, sizes).overlap.min() > 1 - 1e-9
    for a, b in zip(*spans, strict=True):
        largest = torch.linalg.svdvals(a.T @ b).min().clamp(max=1).arccos().item()
    assert principal_angles(first, second, sizes)[-1].max().item() == pytest.approx(largest)
    scaled = rotated_dictionary_error(turned, first, sizes)
    unit = [one / torch.linalg.vector_norm(one, dim=0) for one in (turned, first)]
    expected = sum(
        2 * a.shape[1] - 2 * torch.linalg.svdvals(a.T @ b).sum().item()
        for a, b in zip(unit[0].split(sizes, dim=1), unit[1].split(sizes, dim=1), strict=True)
    )
    assert scaled == pytest.approx(expected)
