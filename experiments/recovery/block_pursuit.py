"""Orthogonal matching pursuit by groups: greedy group-sparse codes."""

import torch
from torch import Tensor

from gsae_lib.dictionary import from_groups
from gsae_lib.groups import group_norms

RIDGE = 1e-5  # added to the Gram matrix of chosen groups, of which two may be the same


def block_pursuit(data: Tensor, groups: Tensor, n_active: int) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit by groups: (samples, n_active) groups and (samples, n_active, size) codes.

    Each step takes the group with the largest ||W_g^T r||, r the residual, and fits all groups chosen so far anew.
    """
    dictionary, d = from_groups(groups), groups.shape[2]
    gram, within = dictionary.T @ dictionary, torch.arange(d)
    supports, values = [], []
    for block in data.split(1000):
        responses = block @ dictionary
        left, support = responses, torch.zeros(len(block), 0, dtype=torch.long)
        for _ in range(n_active):
            strength = group_norms(left, d).scatter(1, support, -1.0)
            support = torch.cat([support, strength.argmax(dim=1, keepdim=True)], dim=1)
            atoms = (d * support.unsqueeze(2) + within).flatten(1)
            chosen = gram[atoms.unsqueeze(2), atoms.unsqueeze(1)] + RIDGE * torch.eye(atoms.shape[1])
            code = torch.linalg.solve(chosen, responses.gather(1, atoms).unsqueeze(2))
            left = responses - (code.mT @ gram[atoms]).squeeze(1)
        supports.append(support)
        values.append(code.reshape(len(block), n_active, d))
    return torch.cat(supports), torch.cat(values)
