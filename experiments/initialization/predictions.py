"""What theory predicts of a start from data alone, beside what data give: angles of spans, and shares of pairs.

The measurement knows the supports. The tables of the theory page are means over the recorded seeds.
"""

import dataclasses
import math

import torch
from torch import Generator, Tensor

from experiments.initialization.maps import StartSettings
from gsae_lib.dictionary import from_groups
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.metrics import principal_angles
from gsae_lib.theory.initialization import predicted_pairs, predicted_start_angle, start_angle_draws

N_DRAWS = 1000  # of angles
N_PAIRS = 300


@dataclasses.dataclass(frozen=True)
class StartPrediction:
    """Predicted and measured.

    angle: of `predicted_start_angle`; drawn_angle: of `start_angle_draws`, the median of the largest of d; true_angle:
    that of the principal directions of a group's active samples, median over groups. All in degrees. nearest, selected,
    success: as in `PairPrediction`, over pairs; true_nearest, true_selected, true_success: on data.
    """

    n_nearest: int
    n_selected: int
    angle: float
    drawn_angle: float
    true_angle: float
    nearest: float
    selected: float
    success: float
    true_nearest: float
    true_selected: float
    true_success: float


def predict_start(settings: StartSettings, *, seed: int, n_pairs: int = N_PAIRS) -> StartPrediction:
    """Draw a dictionary and data from one seed, measure, and predict.

    v is drawn among the N / 333 (at least 15) closest samples to u, and N p / 2 samples are selected.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    rng = Generator().manual_seed(seed)
    n, groups, d, gamma = settings.n_features, settings.n_groups, settings.group_size, settings.n_active
    truth = gaussian_dictionary(n, groups, d, generator=rng)
    sample = settings.source(truth).sample(settings.n_samples, generator=rng)
    n_nearest = max(15, settings.n_samples // 333)
    n_selected = max(1, settings.n_samples * gamma // groups // 2)
    measured = _pairs(sample.data, sample.support, n_nearest, n_selected, n_pairs, rng)
    population = settings.population
    drawn = start_angle_draws(population, settings.n_samples, N_DRAWS, generator=rng)
    pairs = predicted_pairs(population, settings.n_samples, n_nearest, n_selected, n_pairs, generator=rng)
    return StartPrediction(
        n_nearest,
        n_selected,
        angle=math.degrees(predicted_start_angle(population, settings.n_samples)),
        drawn_angle=math.degrees(drawn[:, -1].median().item()),
        true_angle=math.degrees(_principal_angles(sample.data, sample.support, truth, d).median().item()),
        **dataclasses.asdict(pairs),
        **{f"true_{name}": values.mean().item() for name, values in measured.items()},
    )


def _principal_angles(data: Tensor, support: Tensor, truth: Tensor, d: int) -> Tensor:
    """The largest angle of each group to the d leading principal directions of its active samples, in radians."""
    spans = [torch.linalg.svd(data[active], full_matrices=False).Vh[:d].T for active in support.T]
    return principal_angles(from_groups(torch.stack(spans)), truth, d).amax(dim=1)


def _pairs(
    data: Tensor, support: Tensor, n_nearest: int, n_selected: int, n_pairs: int, rng: Generator
) -> dict[str, Tensor]:
    """What each of `n_pairs` pairs gave: `PairPrediction` by counting."""
    found: dict[str, list[float]] = {"nearest": [], "selected": [], "success": []}
    for u in torch.randperm(len(data), generator=rng)[:n_pairs].tolist():
        with_u, shared = (data @ data[u]).abs(), support & support[u]
        with_u[u] = 0
        nearest = with_u.topk(n_nearest).indices
        found["nearest"].append(shared[nearest].any(dim=1).double().mean().item())
        v = int(nearest[torch.randint(n_nearest, (1,), generator=rng)])
        common = shared[v]
        if not common.any():
            found["success"].append(0.0)
            continue
        score = with_u * (data @ data[v]).abs()
        score[v] = 0
        right = support[score.topk(n_selected).indices][:, common].double().mean(dim=0).max().item()
        found["selected"].append(right)
        found["success"].append(float(right > 0.5))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}


def plan() -> list[StartSettings]:
    """The rows of both tables of the theory page."""
    paper, small = StartSettings(950, 500, 2, 3, 10_000, 1.0), StartSettings(150, 50, 2, 1, 1500, 1.0)
    cells = [dataclasses.replace(paper, n_samples=5000), dataclasses.replace(paper, n_active=5)]
    cells += [dataclasses.replace(paper, n_active=10, snr_db=10.0), small]
    cells += [dataclasses.replace(small, n_active=k, snr_db=20.0) for k in (2, 4)]
    return [paper, *cells, dataclasses.replace(small, n_active=3)]
