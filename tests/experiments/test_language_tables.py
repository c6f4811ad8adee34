"""What chapter 18 shows: harmonics of known points, rotations that change nothing, files of a reader's own."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.language.features import ARCHITECTURES
from experiments.language.tables import (
    count_names,
    equilibrium_ratio,
    first_harmonic,
    load_activations,
    permuted_harmonics,
    principal_plane,
    rotate_within_groups,
)


def test_a_circle_is_its_first_harmonic(rng):
    """Fails if the share is not 1 for a circle in any plane, 0 for its second harmonic, or depends on the origin."""
    plane = torch.linalg.qr(torch.randn(30, 2, generator=rng, dtype=torch.float64)).Q
    angles = 2 * math.pi * torch.arange(12, dtype=torch.float64) / 12
    circle = 5 + torch.stack([angles.cos(), angles.sin()], dim=1) @ plane.T
    twice = torch.stack([(2 * angles).cos(), (2 * angles).sin()], dim=1) @ plane.T
    assert first_harmonic(circle) == pytest.approx(1)
    assert first_harmonic(twice) == pytest.approx(0, abs=1e-12)
    assert max(permuted_harmonics(circle, 20, generator=rng)) < 0.9
    assert principal_plane(circle).norm(dim=1) == pytest.approx(torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize("activation", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_rotations_within_groups_change_nothing_that_is_rebuilt(activation, tied, rng):
    """Fails if encoder, bias and decoder are not turned together, or codes lengthen."""
    model = ARCHITECTURES[activation](12, 8, 3, n_active=2, tied=tied, decoder="free", generator=rng).double()
    data = torch.randn(40, 12, generator=rng, dtype=torch.float64)
    model.prepare(data)
    with torch.no_grad():
        model.encoder_bias.normal_(generator=rng)
        turned = rotate_within_groups(model, generator=rng)
        torch.testing.assert_close(turned(data)[0], model(data)[0])
    assert not torch.allclose(turned.weight, model.weight, atol=0.1)


def test_own_activations_are_read_and_checked(tmp_path):
    """Fails if rows of unusual norm are kept, a split overlaps, or a bad file is taken."""
    rows = np.random.default_rng(0).normal(size=(1500, 6)).astype(np.float16)
    rows[3] *= 100
    np.save(tmp_path / "my.npy", rows)
    tokens = load_activations(str(tmp_path / "my.npy"))
    assert tokens.train.shape[1] == 6 and len(tokens.train) + len(tokens.held_out) < 1500
    assert np.abs(np.asarray(tokens.train)).max() < 20
    rows[5, 2] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    np.save(tmp_path / "few.npy", rows[10:200])
    with pytest.raises(ValueError, match="activations: has non-finite entries"):
        load_activations(str(tmp_path / "nan.npy"))
    with pytest.raises(ValueError, match="expected at least 1,000 rows"):
        load_activations(str(tmp_path / "few.npy"))
    with pytest.raises(FileNotFoundError):
        load_activations(str(tmp_path / "none.npy"))
    assert load_activations("").held_out.shape == (590, 576)


def test_the_norm_at_rest_solves_its_equation():
    """Fails if the formula is not rho - 1 / rho = lambda / c with c from measured numbers."""
    rows = pd.DataFrame({"threshold": [2.0], "column_norm": [1.5], "code_norm": [4.0]})
    rho, c = equilibrium_ratio(rows)[0], (4.0 + 2.0) / 1.5
    assert rho - 1 / rho == pytest.approx(2.0 / c)


def test_names_are_words_of_their_own():
    """Fails if parts of words count, or a second name in a text does not."""
    texts = ["in March or in June", "Marching", "march; June-bug", ""]
    assert count_names(texts, ("March", "June")) == 3
