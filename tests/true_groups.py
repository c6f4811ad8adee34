"""True dictionaries in double precision, and dictionaries at given angles to them."""

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
