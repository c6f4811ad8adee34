"""True dictionaries in double precision, and dictionaries at given angles to them."""

import numpy as np
import torch

from gsae_lib.dictionary import as_groups, polar
from gsae_lib.generative import coherent_dictionary

DOUBLE = torch.float64


def gaussian(rng, *shape):
    """A standard Gaussian array in double precision."""
    return torch.randn(*shape, generator=rng, dtype=DOUBLE)


def orthogonal(n, groups, d, rng, coherence=0.0):
    """Orthonormal groups with A_g^T A_h = coherence * I."""
    return coherent_dictionary(n, groups, d, coherence / d, generator=rng, dtype=DOUBLE)


def at_angles(truth, d, angles, rng):
    """Orthonormal groups at these principal angles (groups, d) to the true ones, each in a random direction."""
    learned = []
    for a, turn in zip(as_groups(truth, d), angles, strict=True):
        away = gaussian(rng, *a.shape)
        other = polar(away - a @ (a.T @ away))
        left, right = (torch.linalg.qr(gaussian(rng, d, d)).Q for _ in range(2))
        learned.append((a @ left * turn.cos() + other * turn.sin()) @ right)
    return torch.cat(learned, dim=1)


def blocks_of(dictionary, d):
    """The groups as numpy matrices in double precision, sliced one by one."""
    columns = np.asarray(dictionary.detach().cpu(), dtype=np.float64)
    return [columns[:, g : g + d] for g in range(0, columns.shape[1], d)]


def assert_orthonormal(dictionary, d, atol=1e-5):
    """Each group has orthonormal columns."""
    for block in blocks_of(dictionary, d):
        np.testing.assert_allclose(block.T @ block, np.eye(d), rtol=0, atol=atol)
