"""Metrics against brute force on cases small enough to try everything."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch

from gsae_lib import metrics
from gsae_lib.dictionary import normalize_columns
from gsae_lib.generative import orthonormal_groups_dictionary
from gsae_lib.metrics import (
    clustering_scores,
    dead_groups,
    dictionary_error,
    distance_contrast,
    explained_variance,
    match_groups,
    mean_active_groups,
    principal_angles,
    reconstruct_from_strongest,
    rotated_dictionary_error,
    support_recovery,
)


def pair(rng, n_features=5, n_groups=3, group_size=2):
    """Two independent dictionaries."""
    return [torch.randn(n_features, n_groups * group_size, generator=rng, dtype=torch.float64) for _ in range(2)]


def test_dictionary_error_is_a_sum_over_unit_columns(rng):
    """Fails if columns are not normalised, the norm is not squared, or scale matters."""
    learned, truth = pair(rng)
    expected = sum(
        np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2)
        for a, b in zip(learned.numpy().T, truth.numpy().T, strict=True)
    )
    assert dictionary_error(learned, truth) == pytest.approx(expected, rel=1e-12)
    assert dictionary_error(7 * learned, truth) == pytest.approx(expected, rel=1e-12)
    assert dictionary_error(-truth, truth) == pytest.approx(4 * 6)
    assert dictionary_error(truth, truth) == 0


def test_rotated_error_is_the_best_over_all_rotations_and_reflections(rng):
    """Fails if reflections are left out or the transpose is taken: a grid over O(2) finds nothing better."""
    learned, truth = (normalize_columns(a) for a in pair(rng, n_groups=4))
    best = 0.0
    for g in range(0, 8, 2):
        a, b = (x[:, g : g + 2].numpy() for x in (learned, truth))
        angles = np.linspace(0, 2 * np.pi, 20001)
        c, s = np.cos(angles), np.sin(angles)
        turns = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
        both = np.concatenate([turns, turns @ np.diag([1.0, -1.0])])
        best += ((a @ both - b) ** 2).sum(axis=(1, 2)).min()
    found = rotated_dictionary_error(learned, truth, 2)
    assert found <= best + 1e-12 and found == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_rotations_within_groups_cost_nothing(group_size, rng):
    """Fails if a rotation of orthonormal groups is seen, or if the rotated error exceeds the plain one."""
    truth = orthonormal_groups_dictionary(7, 4, group_size, generator=rng, dtype=torch.float64)
    turns = torch.linalg.qr(torch.randn(4, group_size, group_size, generator=rng, dtype=torch.float64)).Q
    turned = truth @ torch.block_diag(*turns)
    assert rotated_dictionary_error(turned, truth, group_size) == pytest.approx(0, abs=1e-12)
    noisy = turned + 0.1 * torch.randn(turned.shape, generator=rng, dtype=torch.float64)
    assert 0.01 < rotated_dictionary_error(noisy, truth, group_size) <= dictionary_error(noisy, truth)


def test_principal_angles_match_scipy(rng):
    """Fails if angles are of columns rather than spans, unsorted, or in degrees."""
    learned, truth = pair(rng, n_features=8, n_groups=4, group_size=3)
    found = principal_angles(learned, truth, 3)
    assert found.shape == (4, 3)
    for g, angles in enumerate(found.numpy()):
        block = slice(3 * g, 3 * g + 3)
        expected = scipy.linalg.subspace_angles(learned[:, block].numpy(), truth[:, block].numpy())
        np.testing.assert_allclose(angles, np.sort(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.5, np.pi / 4, np.pi / 2 - 1e-9, np.pi / 2])
def test_tiny_and_right_angles_are_accurate(angle):
    """Fails with arccos alone (angles under 1e-8 vanish) or arcsin alone (the same at right angles)."""
    truth = torch.eye(4, dtype=torch.float64)[:, :2]
    learned = truth.clone()
    learned[:, 1] = torch.tensor([0, np.cos(angle), np.sin(angle), 0], dtype=torch.float64)
    np.testing.assert_allclose(principal_angles(learned, truth, 2).numpy(), [[0, angle]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("group_size", [1, 2])
def test_matching_is_the_best_of_all_permutations(group_size, rng, device):
    """Fails if the assignment is greedy, inverted, or maximises something else: all 4! orders are tried."""
    learned, truth = pair(rng, n_features=6, n_groups=4, group_size=group_size)

    def overlap(order):
        total = 0.0
        for g, h in enumerate(order):
            a, b = (
                scipy.linalg.orth(x[:, k * group_size : (k + 1) * group_size].numpy())
                for x, k in ((learned, h), (truth, g))
            )
            total += np.sum((a.T @ b) ** 2)
        return total

    best = max(itertools.permutations(range(4)), key=overlap)
    matched, order = match_groups(learned.to(device), truth.to(device), group_size)
    assert tuple(order.tolist()) == best and best != (0, 1, 2, 3)
    expected = torch.cat([learned[:, h * group_size : (h + 1) * group_size] for h in best], dim=1)
    assert torch.equal(matched.cpu(), expected)


@pytest.mark.parametrize("group_size", [1, 2])
def test_support_recovery_counts(group_size, rng):
    """Fails if precision and recall are swapped or averaged over samples, or at 0 / 0 of nothing claimed or missed."""
    codes, truth = (torch.randn(30, 8, generator=rng) * (torch.rand(30, 8, generator=rng) < p) for p in (0.2, 0.35))
    truth[:5] = codes[:5]

    def supports(x):
        return [{j // group_size for j, value in enumerate(row) if value != 0} for row in x.tolist()]

    found, true = supports(codes), supports(truth)
    hits = sum(len(a & b) for a, b in zip(found, true, strict=True))
    result = support_recovery(codes, truth, group_size)
    assert result.exact == pytest.approx(sum(a == b for a, b in zip(found, true, strict=True)) / 30)
    assert result.precision == pytest.approx(hits / sum(map(len, found)))
    assert result.recall == pytest.approx(hits / sum(map(len, true)))
    assert 0 < result.exact < 1 and result.precision != result.recall
    empty, full = torch.zeros(2, 8), torch.ones(2, 8)
    for one, other, expected in ((empty, full, (0, 1, 0)), (full, empty, (0, 0, 1)), (empty, empty, (1, 1, 1))):
        nothing = support_recovery(one, other, group_size)
        assert (nothing.exact, nothing.precision, nothing.recall) == expected


def test_active_and_dead_groups():
    """Fails if entries are counted instead of groups, or a group that is active once counts as dead."""
    codes = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0, 0.0, -1.0]])
    assert mean_active_groups(codes, 2) == 1.5
    assert dead_groups(codes, 2).tolist() == [False, True, False]


def brute_accuracy(labels, clusters):
    """Best share of agreement over all injections between label and cluster names."""
    names, found = np.unique(labels), np.unique(clusters)
    size = max(len(names), len(found))
    names, found = (np.concatenate([a, -1 - np.arange(size - len(a))]) for a in (names, found))
    return max(
        np.mean(np.array([dict(zip(found, order, strict=True))[c] for c in clusters]) == labels)
        for order in itertools.permutations(names)
    )


def brute_ari(labels, clusters):
    """Adjusted Rand index from its definition over all pairs of samples."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    same_label = np.array([labels[i] == labels[j] for i, j in pairs])
    same_cluster = np.array([clusters[i] == clusters[j] for i, j in pairs])
    expected = same_label.sum() * same_cluster.sum() / len(pairs)
    largest = (same_label.sum() + same_cluster.sum()) / 2
    return ((same_label & same_cluster).sum() - expected) / (largest - expected)


def brute_nmi(labels, clusters):
    """Mutual information over the arithmetic mean of entropies, from joint frequencies."""

    def entropy(items):
        shares = np.array([items.count(item) / len(items) for item in set(items)])
        return -np.sum(shares * np.log(shares))

    labels, clusters = labels.tolist(), clusters.tolist()
    apart, joint = entropy(labels) + entropy(clusters), entropy(list(zip(labels, clusters, strict=True)))
    return (apart - joint) / (apart / 2)


@pytest.mark.parametrize(("n_labels", "n_clusters"), [(3, 3), (4, 2), (2, 5), (5, 4), (4, 1)])
def test_clustering_scores_match_their_definitions(n_labels, n_clusters, rng):
    """Fails if the matching is not one to one (purity), or for unequal numbers of labels and clusters."""
    for _ in range(5):
        labels = torch.randint(n_labels, (25,), generator=rng).numpy() * 3 + 1
        clusters = torch.randint(n_clusters, (25,), generator=rng).numpy()
        scores = clustering_scores(labels, clusters)
        assert scores.accuracy == pytest.approx(brute_accuracy(labels, clusters))
        assert scores.ari == pytest.approx(brute_ari(labels, clusters))
        assert scores.nmi == pytest.approx(brute_nmi(labels, clusters))


@pytest.mark.parametrize("kind", [list, np.array, lambda names: np.array(names, dtype=object)])
def test_labels_may_be_strings(kind, device):
    """Fails if names must be numbers, or a container of them is refused; two of five samples are in a wrong cluster."""
    names, clusters = ["b", "a", "b", "10", "a"], [7, 7, 7, 3, 3]
    number = {name: index for index, name in enumerate(names)}
    expected = clustering_scores([number[name] for name in names], torch.tensor(clusters, device=device))
    assert expected.accuracy == 0.6
    assert clustering_scores(kind(names), clusters) == expected
    assert clustering_scores(clusters, kind(names)) == expected


def test_distance_contrast_is_within_over_between(rng):
    """Fails if a pair is counted in the wrong mean, or with itself: a double loop over different samples."""
    points, labels = torch.randn(12, 3, generator=rng, dtype=torch.float64), torch.arange(12) % 3
    within, between = [], []
    for i, j in itertools.combinations(range(12), 2):
        (within if labels[i] == labels[j] else between).append(np.linalg.norm(points[i] - points[j]))
    assert distance_contrast(points, labels) == pytest.approx(np.mean(within) / np.mean(between), rel=1e-12)
    assert distance_contrast(torch.eye(3)[labels], labels) == 0.0


def test_explained_variance(rng):
    """Fails if the mean is not taken for each feature: 1 for the data, 0 for their mean, negative beyond."""
    data = torch.randn(50, 3, generator=rng, dtype=torch.float64) + torch.tensor([0.0, 10.0, -5.0])
    assert explained_variance(data, data) == 1.0
    assert explained_variance(data, data.mean(dim=0).expand(50, 3)) == pytest.approx(0, abs=1e-12)
    assert explained_variance(data, torch.zeros(50, 3, dtype=torch.float64)) < -10
    halfway = (data + data.mean(dim=0)) / 2
    assert explained_variance(data, halfway) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", ["generic", "repeated atoms"])
def test_reconstruction_from_the_strongest_is_least_squares(rng, dtype, device, kind, monkeypatch):
    """Fails if an inactive group takes part, the values of the code count, or a block is lost; numpy's lstsq, sample by
    sample, is the oracle. Codes have 0 to 4 active groups of 4; at most two are kept.
    """
    monkeypatch.setattr(metrics, "LARGEST_SYSTEMS", 5 * 6**2)
    dictionary = torch.randn(9, 12, generator=rng, dtype=dtype)
    if kind == "repeated atoms":
        dictionary[:, 3:6] = dictionary[:, :3]
    data, codes = torch.randn(23, 9, generator=rng, dtype=dtype), torch.randn(23, 12, generator=rng, dtype=dtype)
    codes *= (torch.rand(23, 4, generator=rng) < 0.4).repeat_interleave(3, dim=1)
    found = reconstruct_from_strongest(*(x.to(device) for x in (data, dictionary, codes)), 2, 3).cpu()
    assert found.dtype == dtype
    data, dictionary, codes, found = (x.double().numpy() for x in (data, dictionary, codes, found))
    for y, x, rebuilt in zip(data, codes.reshape(23, 4, 3), found, strict=True):
        norms = np.linalg.norm(x, axis=1)
        groups = [g for g in norms.argsort()[-2:] if norms[g] > 0]
        atoms = dictionary.reshape(9, 4, 3)[:, groups].reshape(9, -1)
        expected = atoms @ np.linalg.lstsq(atoms, y)[0] if groups else 0 * y
        np.testing.assert_allclose(rebuilt, expected, atol=1e-6 if dtype == torch.float32 else 1e-7)
