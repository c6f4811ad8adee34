"""A penalty from what a test varies: a number or a value for each group, and what else `GroupPenalty` takes."""

import torch

from gsae_lib.penalty import GroupPenalty


def group_penalty(penalty, groups, **settings):
    """A `GroupPenalty`; a tensor of several values becomes weights, with lambda = 1."""
    if isinstance(penalty, torch.Tensor) and penalty.ndim:
        return GroupPenalty(1.0, groups, weights=penalty, **settings)
    return GroupPenalty(penalty, groups, **settings)
