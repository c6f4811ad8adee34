"""Simulate images of single galaxies of five shapes, as a telescope on the ground would see them without noise.

Surface brightness by GalSim, smeared by the atmosphere. Galaxies are transparent here: images of different ones may be
added. GalSim needs an environment of its own:

    python -m venv /tmp/sky && /tmp/sky/bin/pip install galsim==2.8.5 numpy==2.4.6
    /tmp/sky/bin/python -m experiments.sums.simulate_galaxies
"""

import sys
from importlib.metadata import version
from pathlib import Path

import galsim
import numpy as np

from experiments import RESULTS

PATH = RESULTS / "17_galaxies.npz"
SEED = 2105
COUNT = 600  # galaxies of each kind
SIDE, PIXEL = 24, 0.2  # pixels along one side; arcsec
SEEING, MOFFAT = 0.7, 3.0  # full width at half maximum of the point spread function, arcsec; its exponent
SIZE = (0.9, 1.3)  # arcsec, radius of a circle with half of the light, seen face-on and without smearing
SHIFT = 0.5  # pixels, largest offset along either side
KINDS = ["elliptical", "spiral", "edge-on disk", "irregular", "ring"]


def simulate(path: Path = PATH, seed: int = SEED) -> None:
    """Simulate COUNT galaxies of each kind and write their images, shuffled, each of unit norm."""
    rng = np.random.default_rng(seed)
    shapes = [elliptical, spiral, edge_on_disk, irregular, ring]
    rows = []
    for label, shape in enumerate(shapes):
        for _ in range(COUNT):
            image = draw(shape(rng.uniform(*SIZE), rng), rng)
            rows.append((image / np.linalg.norm(image), label))
    order = rng.permutation(len(rows))
    singles, labels = (np.array(column)[order] for column in zip(*rows, strict=True))
    np.savez_compressed(
        path,
        singles=singles.astype(np.float16),
        labels=labels.astype(np.int8),
        types=np.array(KINDS),
        side=SIDE,
        simulator=f"galsim {version('galsim')}",
    )


def elliptical(size: float, rng: np.random.Generator) -> galsim.GSObject:
    """De Vaucouleurs' profile with ratio of axes from 0.6 to 1."""
    return galsim.DeVaucouleurs(half_light_radius=size).shear(q=rng.uniform(0.6, 1.0), beta=0 * galsim.degrees)


def spiral(size: float, rng: np.random.Generator) -> galsim.GSObject:
    """A disk with two arms of knots along logarithmic spirals, wound either way; ratio of axes from 0.8 to 1.

    An arm is log(radius / first) = |angle| tan(pitch), from 0.5 to 2 half-light radii. Arms have half to seven
    tenths of the light, which falls along them like the disk's.
    """
    pitch, hand, light = np.radians(rng.uniform(15, 25)), rng.choice([-1, 1]), rng.uniform(0.5, 0.7)
    radii = np.geomspace(0.5, 2.0, 24)
    angles = hand * np.log(radii / radii[0]) / np.tan(pitch)
    fluxes = radii * np.exp(-1.68 * radii) * rng.uniform(0.5, 1.5, (2, len(radii)))
    fluxes *= light / fluxes.sum()
    arms = [
        galsim.Gaussian(sigma=0.12 * size, flux=flux).shift(
            size * radius * np.cos(angle + turn), size * radius * np.sin(angle + turn)
        )
        for turn, arm in zip((0, np.pi), fluxes, strict=True)
        for flux, radius, angle in zip(arm, radii, angles, strict=True)
    ]
    disk = galsim.Exponential(half_light_radius=size, flux=1 - light)
    return galsim.Sum([disk, *arms]).shear(q=rng.uniform(0.8, 1.0), beta=0 * galsim.degrees)


def edge_on_disk(size: float, rng: np.random.Generator) -> galsim.GSObject:
    """An exponential disk, a tenth as thick as long, inclined by 80 to 90 degrees."""
    inclination = rng.uniform(80, 90) * galsim.degrees
    return galsim.InclinedExponential(inclination, half_light_radius=size, scale_h_over_r=0.1)


def irregular(size: float, rng: np.random.Generator) -> galsim.GSObject:
    """From 8 to 20 knots of equal light at random places, on a disk with a fifth to two fifths of the light."""
    light, places = rng.uniform(0.6, 0.8), galsim.BaseDeviate(int(rng.integers(1, 2**31)))
    knots = galsim.RandomKnots(int(rng.integers(8, 21)), half_light_radius=size, flux=light, rng=places)
    return knots + galsim.Exponential(half_light_radius=size, flux=1 - light)


def ring(size: float, rng: np.random.Generator) -> galsim.GSObject:
    """A ring of even brightness around a bulge with a fifth to two fifths of the light; ratio of axes from 0.6 to 1."""
    bulge, inner = rng.uniform(0.2, 0.4), rng.uniform(1.1, 1.3)
    outer = inner + 0.4
    annulus = galsim.TopHat(outer * size, flux=outer**2) - galsim.TopHat(inner * size, flux=inner**2)
    light = annulus.withFlux(1 - bulge) + galsim.Gaussian(half_light_radius=0.3 * size, flux=bulge)
    return light.shear(q=rng.uniform(0.6, 1.0), beta=0 * galsim.degrees)


def draw(galaxy: galsim.GSObject, rng: np.random.Generator) -> np.ndarray:
    """Light in the pixels of one galaxy, turned by any angle, moved by part of a pixel and smeared."""
    turned = galaxy.rotate(rng.uniform(0, 360) * galsim.degrees)
    smeared = galsim.Convolve(turned, galsim.Moffat(beta=MOFFAT, fwhm=SEEING))
    offset = galsim.PositionD(*rng.uniform(-SHIFT, SHIFT, 2))
    return smeared.drawImage(nx=SIDE, ny=SIDE, scale=PIXEL, offset=offset, dtype=float).array.ravel()


if __name__ == "__main__":
    simulate(*([Path(sys.argv[1]), int(sys.argv[2])] if len(sys.argv) > 2 else []))
