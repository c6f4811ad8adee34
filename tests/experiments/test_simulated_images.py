"""Tests of what simulate_jets and simulate_galaxies wrote, by physics that they do not use. Simulators stay out."""

import numpy as np
import pytest

from experiments import RESULTS

KINDS = {
    "17_jets.npz": ["light quark", "gluon", "W boson", "Higgs boson", "top quark"],
    "17_galaxies.npz": ["elliptical", "spiral", "edge-on disk", "irregular", "ring"],
}


def images_of(name: str, kind: str) -> np.ndarray:
    """Images of one kind: samples, rows from the bottom, columns."""
    with np.load(RESULTS / name) as file:
        rows = file["labels"] == file["types"].tolist().index(kind)
        return file["singles"][rows].astype(float).reshape(rows.sum(), file["side"], file["side"])


def moments(images: np.ndarray) -> np.ndarray:
    """Eigenvalues of the second central moments of each image, in squared cells, the smaller one first."""
    places = np.stack(np.meshgrid(*[np.arange(images.shape[1])] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = images.reshape(len(images), -1) / images.sum(axis=(1, 2))[:, None]
    offsets = places - (weights @ places)[:, None, :]
    return np.linalg.eigvalsh(np.einsum("nc,nci,ncj->nij", weights, offsets, offsets))


@pytest.mark.parametrize("name", KINDS)
def test_kinds_counts_and_norms(name):
    """Fails if a kind lacks images, they are sorted by kind, a norm is not one, or a cell is negative."""
    with np.load(RESULTS / name) as file:
        assert file["types"].tolist() == KINDS[name]
        assert np.bincount(file["labels"]).tolist() == [600] * 5 and file["singles"].dtype == np.float16
        assert file["singles"].shape == (3000, file["side"] ** 2)
        assert (np.diff(file["labels"].astype(int)) != 0).sum() > 2000
        singles = file["singles"].astype(float)
    np.testing.assert_allclose(np.linalg.norm(singles, axis=1), 1, atol=1e-3)
    assert singles.min() >= 0
    assert len(np.unique(singles, axis=0)) > 2900


def test_masses_and_momenta_of_jets():
    """Fails if a jet's mass is not that of its particle, in GeV, or its momentum is outside of 500 to 600 GeV.

    Trimming takes a little momentum away, and never adds.
    """
    with np.load(RESULTS / "17_jets.npz") as file:
        for kind, expected in (("W boson", 80.4), ("Higgs boson", 125.2), ("top quark", 172.6)):
            masses = file["mass"][file["labels"] == file["types"].tolist().index(kind)]
            assert np.median(masses) == pytest.approx(expected, rel=0.04)
            assert np.mean(np.abs(masses / expected - 1) < 0.15) > 0.5
        assert file["pt"].max() < 605 and np.mean(file["pt"] > 475) > 0.9


def test_images_are_as_wide_as_mass_over_momentum():
    """Fails if cells are not 0.1 wide, or hold anything but sums of transverse momentum.

    For narrow jets of light particles the mean squared distance from the axis, weighted by transverse momentum, is
    (mass / transverse momentum)²: for two prongs m² = pT² z (1 - z) r². Light jets are as narrow as a cell: left out.
    """
    widths = {kind: np.median(moments(images_of("17_jets.npz", kind)).sum(axis=1)) for kind in KINDS["17_jets.npz"]}
    with np.load(RESULTS / "17_jets.npz") as file:
        squares = (file["mass"] / file["pt"] / 0.1) ** 2
        for label in (2, 3, 4):
            expected = np.median(squares[file["labels"] == label])
            assert widths[KINDS["17_jets.npz"][label]] == pytest.approx(expected, rel=0.15)
    assert widths["light quark"] < widths["gluon"] < widths["Higgs boson"] < widths["top quark"]
    assert widths["light quark"] < widths["W boson"] < widths["Higgs boson"]


def peaks_of(kind: str) -> np.ndarray:
    """Rows of the peaks along the axis of the mean image, but for those below a twentieth of the highest one."""
    column = images_of("17_jets.npz", kind).mean(axis=0)[:, 8]
    inner = column[1:-1]
    return 1 + np.flatnonzero((inner > column[:-2]) & (inner > column[2:]) & (inner > column.max() / 20))


def test_bosons_have_two_prongs_and_light_partons_one_core():
    """Fails if not: two peaks lie 2 mass / (transverse momentum) apart, to a cell; a single one is in the middle."""
    for kind, mass in (("W boson", 80.4), ("Higgs boson", 125.2)):
        lower, upper = peaks_of(kind)
        assert upper - lower == pytest.approx(2 * mass / 530 / 0.1, abs=1)
    assert all(peaks_of(kind) == [8] for kind in ("light quark", "gluon"))


def test_jets_are_upright():
    """Fails if images are not turned, so that prongs lie along any direction, or the harder one is not the upper."""
    for kind in ("W boson", "Higgs boson"):
        mean = images_of("17_jets.npz", kind).mean(axis=0)
        assert mean.sum(axis=1) @ np.arange(-8, 9) ** 2 > 3 * mean.sum(axis=0) @ np.arange(-8, 9) ** 2
        assert mean[9:].sum() > 1.1 * mean[:8].sum()


def test_elongation_of_galaxies():
    """Fails if disks seen from the side are not longer than ellipticals, spirals not rounder, or all lie along one way.

    Position angles are uniform: the mean of disks seen from the side is round.
    """
    edge_on, elliptical, spiral = (
        np.sqrt(np.divide(*moments(images_of("17_galaxies.npz", kind)).T))
        for kind in ("edge-on disk", "elliptical", "spiral")
    )
    assert edge_on.max() < 0.6 < elliptical.min() and spiral.min() > 0.75
    small, large = moments(images_of("17_galaxies.npz", "edge-on disk").mean(axis=0, keepdims=True))[0]
    assert small / large > 0.85


def test_centres_of_galaxies():
    """Fails if an elliptical is not brightest in its middle, or a ring has no gap between its bulge and its ring."""
    for image in images_of("17_galaxies.npz", "elliptical"):
        assert np.all(np.abs(np.subtract(np.unravel_index(image.argmax(), image.shape), 11.5)) <= 1.5)
    radius = np.hypot(*np.meshgrid(np.arange(24) - 11.5, np.arange(24) - 11.5))
    profiles = {}
    for kind in ("elliptical", "ring"):
        mean = images_of("17_galaxies.npz", kind).mean(axis=0)
        profiles[kind] = np.array([mean[(radius >= r) & (radius < r + 1)].mean() for r in range(11)])
    assert np.all(np.diff(profiles["elliptical"]) < 0)
    assert np.any(np.diff(profiles["ring"]) > 0)
