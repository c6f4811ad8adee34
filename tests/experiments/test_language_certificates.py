"""Certificates of SAEs: a truth that is turned is the same truth, and predictions hold where they should."""

import pytest
import torch

from experiments.language.certificates import CertificateSettings, align_truth, run_certificate
from gsae_lib.generative import GroupSparseSource, orthonormal_groups_dictionary
from gsae_lib.groups import group_norms

SMALL = CertificateSettings(n_features=100, n_groups=50, n_active=2, n_samples=3000, n_held_out=1000, epochs=2)


def test_a_turned_truth_is_the_same_truth(rng):
    """Fails if samples change, groups are out of order, or the truth is not turned to what was learned."""
    truth = orthonormal_groups_dictionary(20, 6, 3, generator=rng, dtype=torch.float64)
    sample = GroupSparseSource(truth, 3, 2).sample(50, generator=rng)
    turns = torch.linalg.qr(torch.randn(6, 3, 3, generator=rng, dtype=torch.float64)).Q
    order = torch.randperm(6, generator=rng)
    learned = torch.cat([truth[:, 3 * g : 3 * g + 3] @ turns[g] for g in order.tolist()], dim=1)
    ordered, turned, own = align_truth(learned, sample, truth, 3)
    torch.testing.assert_close(turned.codes @ own.T, sample.data)
    torch.testing.assert_close(own, ordered)
    torch.testing.assert_close(group_norms(turned.codes, 3), group_norms(sample.codes, 3))


def test_predictions_hold_on_planted_groups_and_not_on_shuffled_ones():
    """Fails if activity or supports are predicted for another source, scale or threshold."""
    rows = run_certificate(SMALL)
    trained = [row for row in rows if row["control"] == "trained"]
    shuffled = next(row for row in rows if row["control"] == "shuffled")
    for row in trained[1:]:  # first order in n^{-1/2}: where many inactive groups are near the threshold it is off
        assert row["activity"] == pytest.approx(row["activity_predicted"], rel=0.05)
        assert row["exact"] == pytest.approx(row["exact_predicted"], abs=0.06)
    assert [row["factor"] for row in trained] == [0.7, 0.8, 1.0, 1.2]
    assert trained[0]["exact"] < 0.8 < trained[2]["exact"] > trained[3]["exact"]
    assert shuffled["exact"] < shuffled["exact_predicted"] - 0.5
    assert all(row["mixed"] < 0.05 for row in trained) and shuffled["mixed"] > 0.5


def test_states_are_certified_without_a_truth():
    """Fails if assumptions are looked for in another decoder or on other states."""
    (row,) = run_certificate(CertificateSettings("embedded", n_samples=1000, n_held_out=300))
    assert 0 <= row["mixed"] <= 1 and row["doubled"] < 0.1 and isinstance(row["isotropic"], bool)
