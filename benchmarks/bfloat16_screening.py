r"""Could the supports of the shallow network come from a bfloat16 product, and exactly? What it would save.

With unit roundoffs u = 2^-9 (bfloat16) and g = n 2^-24 (n float32 additions, first order), the product h~ of rounded
inputs, accumulated in float32 and rounded to bfloat16, differs from the exact response h of a group by at most

    ||h~ - h|| <= ((1 + u)^2 (1 + g) - 1) ||y|| ||W_g||_F + u / (1 - u) ||h~||,

since an entry's error is at most that factor times sum_i |y_i| |w_i| <= ||y|| ||w||, plus the rounding of the result.
The float32 response differs from h by at most g ||y|| ||W_g||_F. So a pair whose ||h~|| plus both bounds is at most the
threshold is silent in float32 too. The others are recomputed in float32, and the supports are those of float32. To be
kept in the library only if it wins.
"""

import timing
import torch
from torch import Tensor

from gsae_lib import GroupSparseSource
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.groups import to_groups

N, FEATURES, GROUPS, SIZE, ACTIVE, THRESHOLD, CHUNK = 10_000, 950, 500, 2, 3, 2.0, 2000
REPEATS = 9


def plain(data: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(samples, groups, responses) of the active pairs, from the float32 product."""
    parts = []
    for k, rows in enumerate(data.split(CHUNK)):
        response = to_groups(rows @ weight, SIZE)
        sample, group = (torch.linalg.vector_norm(response, dim=-1) > THRESHOLD).nonzero(as_tuple=True)
        parts.append((sample + k * CHUNK, group, response[sample, group]))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def screened(data: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, from a bfloat16 product and a float32 one at the pairs that it cannot exclude."""
    u, g = 2.0**-9, len(weight) * 2.0**-24
    factor = (1 + u) ** 2 * (1 + g) - 1 + g
    sizes = torch.linalg.vector_norm(to_groups(weight, SIZE), dim=(0, 2))
    low, parts = weight.bfloat16(), []
    for k, rows in enumerate(data.split(CHUNK)):
        rough = to_groups((rows.bfloat16() @ low).float(), SIZE)
        norms = torch.linalg.vector_norm(rough, dim=-1) / (1 - u)
        reach = factor * torch.linalg.vector_norm(rows, dim=1, keepdim=True) * sizes
        sample, group = (norms + reach > THRESHOLD).nonzero(as_tuple=True)
        starts = torch.nn.functional.pad(torch.bincount(sample, minlength=len(rows)).cumsum(0), (1, 0))
        atoms = (SIZE * group.unsqueeze(1) + torch.arange(SIZE)).flatten()
        pattern = torch.sparse_csr_tensor(
            SIZE * starts, atoms, torch.zeros(len(atoms)), (len(rows), weight.shape[1]), check_invariants=False
        )
        response = torch.sparse.sampled_addmm(pattern, rows, weight).values().view(-1, SIZE)
        keep = torch.linalg.vector_norm(response, dim=1) > THRESHOLD
        parts.append((sample[keep] + k * CHUNK, group[keep], response[keep]))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def main() -> None:
    """Check that supports agree, measure, print and write the result."""
    rng = torch.Generator().manual_seed(0)
    weight = gaussian_dictionary(FEATURES, GROUPS, SIZE, generator=rng)
    data = GroupSparseSource(weight, SIZE, ACTIVE, snr_db=1.0).sample(N, generator=rng).data
    expected, found = plain(data, weight), screened(data, weight)
    if not all(torch.equal(a, b) for a, b in zip(expected[:2], found[:2], strict=True)):
        raise AssertionError("the supports differ")
    low = (data.bfloat16(), weight.bfloat16())
    tasks = {
        "float32 product": lambda: data @ weight,
        "bfloat16 product": lambda: low[0] @ low[1],
        "supports, float32": lambda: plain(data, weight),
        "supports, bfloat16": lambda: screened(data, weight),
    }
    times = timing.interleave(tasks, REPEATS)
    gain = times["supports, float32"]["median"] / times["supports, bfloat16"]["median"]
    print({name: f"{value['median']:.4f} s" for name, value in times.items()}, f"gain {gain:.2f} x")
    timing.write("bfloat16_screening", repeats=REPEATS, seconds=times, gain=gain)


if __name__ == "__main__":
    main()
