"""What the home page makes at build time: groups from data alone as a picture, and what is new, with its numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gsae_book.runs.execution import RunRecord
from gsae_book.runs.parameters import ParameterError, listed, read_yaml
from gsae_book.runs.recording import format_value

MODES = {"light": "#212529", "dark": "#ced6dd"}  # the colours of text in the theme's two modes


class Line(BaseModel):
    """A sentence, with `{name}` or `{name:.2f}` where a number of the notebook stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    notebook: str
    text: str = Field(min_length=1)


def new_lines(path: Path, runs: Mapping[str, RunRecord]) -> str:
    """Return the sentences of the YAML file at ``path`` as a Markdown list, each with a link to its chapter.

    Raises: ParameterError for a malformed file; ValueError for a name that its notebook did not record.
    """
    try:
        lines = TypeAdapter(list[Line]).validate_python(read_yaml(path))
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ParameterError(listed(problems)) from None
    found = []
    for line in lines:
        run = runs.get(line.notebook)
        if run is None:
            raise ValueError(f"{path}: there is no run of {line.notebook}")
        numbers = {name: _Number(**metric) for name, metric in run.metrics.items()}
        try:
            text = line.text.format_map(numbers)
        except KeyError as error:
            raise ValueError(f"{path}: {line.notebook} recorded no {error}") from None
        found.append(f"* {text} ([chapter {line.notebook[:2]}](../notebooks/{line.notebook}.ipynb))\n")
    return "".join(found)


class _Number:
    """A measurement that prints itself as the text of a chapter would."""

    def __init__(self, value: Any, spread: float | None) -> None:
        self.value, self.spread = value, spread

    def __format__(self, spec: str) -> str:
        return format(self.value, spec).replace("%", " %") if spec else format_value(self.value, self.spread)


def start_angles(seed: int = 0) -> dict[str, Any]:
    """Largest principal angle between each learned and each true group, in degrees, for four dictionaries.

    A sample is a sum of two of twelve groups. A random dictionary is where one would begin without an idea; then groups
    from pairs of 500 samples; then the network, trained from there on these 500, and on fresh samples. Rows are learned
    groups in the order of the true ones that they match.
    """
    import torch

    from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, train
    from gsae_lib.generative import orthonormal_groups_dictionary
    from gsae_lib.learning import initial_dictionary

    rng = torch.Generator().manual_seed(seed)
    sizes, n_samples, batch, epochs = (60, 12, 2), 500, 4000, 80
    truth = orthonormal_groups_dictionary(*sizes, generator=rng)
    source = GroupSparseSource(truth, 2, 2, snr_db=8.0)
    nothing = orthonormal_groups_dictionary(*sizes, generator=rng)
    samples = source.sample(n_samples, generator=rng).data
    pairs = initial_dictionary(samples, *sizes[1:], "pairs", generator=rng)
    settings = TrainingSettings(epochs, 0.5, optimizer="sgd", normalize="groups", progress=False)

    def trained(data: Any) -> torch.Tensor:
        model = GroupSparseAutoencoder(*sizes, 2.0, step_size=1.0, dictionary=pairs)
        train(model, data, settings, generator=rng)
        return model.weight.detach()

    return {
        "random": _angles(truth, nothing),
        f"pairs of {n_samples} samples": _angles(truth, pairs),
        f"trained on these {n_samples}": _angles(truth, trained(samples)),
        f"trained on {epochs * batch:,} more": _angles(truth, trained(source.stream(batch, generator=rng))),
    }


def _angles(truth: Any, dictionary: Any) -> Any:
    """Angles in degrees of the matched groups of two of a dictionary, in rows, to the true ones."""
    import torch

    from gsae_lib.dictionary import as_groups, from_groups, orthonormalize_groups
    from gsae_lib.subspaces import match_subspaces

    order = match_subspaces(truth, dictionary, 2).second
    groups = as_groups(orthonormalize_groups(dictionary, 2), 2)[order]
    overlap = from_groups(groups).T @ truth
    blocks = overlap.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).movedim(2, 1)
    return torch.linalg.svdvals(blocks)[..., -1].clamp(max=1.0).arccos().rad2deg().numpy()


def draw_start(angles: Mapping[str, Any], mode: str) -> str:
    """The angles as maps: an SVG image without ground, the same text for the same angles."""
    import matplotlib.pyplot as plt

    ink = MODES[mode]
    style = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    with plt.rc_context(style | {"svg.hashsalt": "start", "font.size": 10}):
        fig, axes = plt.subplots(1, len(angles), figsize=(9.6, 2.8), layout="constrained")
        for ax, (name, degrees) in zip(axes, angles.items(), strict=True):
            image = ax.pcolormesh(degrees, cmap="viridis_r", vmin=0, vmax=90, edgecolors=ink, linewidth=0.2)
            ax.set(xticks=[], yticks=[], aspect="equal", xlabel="true group")
            ax.set_title(name, fontsize=9)
            ax.invert_yaxis()
            ax.text(0.5, -0.22, f"{degrees.diagonal().mean():.0f}° off", ha="center", transform=ax.transAxes)
        axes[0].set_ylabel("learned group")
        fig.colorbar(image, ax=axes, label="angle (degrees)", ticks=[0, 30, 60, 90], shrink=0.8)
        drawn = io.StringIO()
        fig.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
        plt.close(fig)
    return drawn.getvalue()
