"""The report of a clustering, one HTML file that works alone: what was read, chosen and found, and when to doubt it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gsae_book.app.offline_page import image_source, render_page
from gsae_book.runs.environment import versions
from gsae_book.runs.parameters import printable

if TYPE_CHECKING:
    from gsae_book.data.tables import Table
    from gsae_lib import GroupSparseClustering

SHOWN = 20_000  # samples that pictures and means are made of, at most
MAX_CLUSTERS = 20  # with pictures and rows of their own
MAX_GROUPS = 12
STRONGEST = 5  # columns that name a group or a cluster
TYPICAL, DOUBTFUL = 3, 10
CELLS = 6  # columns of a row that is shown
FEW = 5  # samples of a cluster that is too small to say much

COMPARED = {
    True: "k-means, the baseline, agrees on the same scaled data with the clusters above",
    False: "The clusters above are those of k-means, the baseline. Group norms agree with them on the same scaled data",
}
LIKELIEST = "the number, from 2 to 20, in whose clusters samples that were held out are likeliest"
SILHOUETTE = "the number, from 2 to 20, at which they lie farthest apart for their width (the largest silhouette)"
BODY = """<h1>{{ title }}</h1>
<p><strong>{{ summary }}</strong></p>
{% for line in cautions %}<p class="caution">{{ line }}</p>
{% endfor %}
<h2>What was read</h2>
<ul>{% for note in table.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{{ grid(first, "The first rows") }}

<h2>What was chosen, and why</h2>
<ul>
<li>Scaling: <em>{{ chosen.scaling_method_ }}</em> ({{ chosen.scaling_reason_ }}).</li>
<li>Clusters: {{ chosen.n_clusters_ }}, {{ counted }}.</li>
<li>Method: <em>{{ method }}</em>, since {{ reason }}.</li>
{% if groups %}<li>Dictionary: {{ n_groups }} groups of {{ chosen.group_size_ }} directions each; the
clusters are clusters of the norms of these groups.</li>{% endif %}
</ul>
{% if evidence_image %}<figure><img src="{{ evidence_image }}" alt="{{ evidence_alt }}">
<figcaption>Subspaces beside centres with as many numbers, on samples that were held out, and how far clusterings of
random halves agree, in {{ chosen.evidence_.n_splits }} splits. The log-likelihood of samples that were held out, under
Gaussians fitted to the clusters of group norms, is {{ "%.3g"|format(gain|abs) }} nats a sample
{{ "above" if gain > 0 else "below" }} that of k-means.</figcaption></figure>
{% endif %}

<h2>The clusters</h2>
{{ grid(sizes, "Sizes") }}
<figure><img src="{{ profiles }}" alt="{{ profiles_alt }}">
<figcaption>The clusters in the columns of the data.</figcaption></figure>
<figure><img src="{{ plane }}" alt="{{ plane_alt }}">
<figcaption>The samples in the plane in which the scaled data vary most, coloured by the clusters above,
and by those of {{ other }}. What overlaps here may be apart in other directions.</figcaption></figure>
{{ grid(apart, "What sets each cluster apart: the columns whose mean is farthest from that of all samples") }}

<h2>Typical and doubtful rows</h2>
<p>Confidence is the share of clusterings of random halves of the data that put a row in the same cluster. The distance
to the next cluster is how much farther that one is than the own one, as a share of it: 0 is in between.</p>
{{ grid(typical, "Most typical") }}
{{ grid(doubtful, "Most doubtful") }}

{% if groups %}<h2>Groups as features</h2>
<p>A group is a small subspace of directions that are active together. Its strongest columns name it. The share is that
of the squared lengths of its directions.</p>
{{ grid(groups, "The groups that are used most") }}{% endif %}

<h2>The baseline beside it</h2>
<p>{{ compared }} with an adjusted Rand index of {{ "%.2f"|format(agreement) }}, where 1 is the same and 0 is chance.
{{ beside }}</p>
{{ grid(baseline, "Rows: the clusters above. Columns: those of " ~ other) }}

{% if scores %}
<h2>Against the label {{ request.reading.label }}</h2>
<p>It was kept out of everything above.
{%- if unlabelled %} {{ unlabelled }} rows have none, and do not count.{% endif %}</p>
{{ grid(scores, "Scores") }}
{{ grid(crossed, "Rows: the label. Columns: the clusters") }}{% endif %}

<h2>When not to trust this</h2>
<ul>
<li>A clustering finds clusters in anything, even in noise. Agreement of halves near 0, or confidence that is low
everywhere, means that there may be none.</li>
<li>Clusters depend on the scaling. Columns that should not count, such as an identifier or a date, count as much as
others: leave them out.</li>
<li>Rows that repeat, or that belong together, such as measurements of one person, make halves agree too well.</li>
<li>Rows that were filled in are drawn to the middle.</li>
<li>A cluster of few rows may be outliers. Look at them.</li>
<li>The picture in the plane hides what the other directions hold.</li>
<li>If labels exist, even a few, compare: see the option --label.</li>
</ul>

<h2>Again</h2>
<p>In Python, and in the file repeat.py:</p>
<pre>{{ repeat }}</pre>
<p>New rows: <code>gsae predict FOLDER new.csv -o labels.csv</code>, with this folder.</p>
<p>Made in {{ "%.0f"|format(chosen.seconds_) }} seconds with {{ made_with }}.</p>
"""
GRID = """<div class="wide" tabindex="0" role="region" aria-label="{{ caption }}"><table>
<caption>{{ caption }}</caption>
<thead><tr>{% for name in grid.head -%}
<th scope="col"{% if ", " in name|string %} class="text"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in grid.rows %}<tr><th scope="row">{{ row[0] }}</th>
{%- for cell in row[1:] %}<td{% if ", " in cell|string %} class="text"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>"""


@dataclass(frozen=True)
class Request:
    """What was asked for: a file, how to read it, as arguments of `read_table`, and those of the estimator."""

    path: Path
    reading: Mapping[str, Any]
    n_clusters: int | Literal["auto"] = "auto"
    scaling: str = "auto"
    seconds: float = 60.0
    seed: int = 0


def why(chosen: GroupSparseClustering) -> str:
    """Why the clusters are those of one method, and how sure that is."""
    return chosen.reason_ if chosen.certainty_ is None else f"{chosen.reason_}; {chosen.certainty_}"


def report_page(request: Request, table: Table, chosen: GroupSparseClustering, repeat: str) -> str:
    """The text of the page."""
    from jinja2 import Environment
    from sklearn.metrics import adjusted_rand_score

    from gsae_book.app import report_figures as pictures

    grid_template = Environment(autoescape=True).from_string(GRID)

    def grid(content: tuple[Sequence[object], Sequence[Sequence[object]]], caption: str) -> Any:
        from markupsafe import Markup

        return Markup(grid_template.render(grid={"head": content[0], "rows": content[1]}, caption=caption))

    rows = shown_rows(len(table.values))
    values, labels = np.asarray(table.values[rows], dtype=np.float64), chosen.labels_[rows]
    data = np.asarray(chosen.scaling_(values), dtype=np.float64)
    fits, reason = chosen.method_ == "groups", why(chosen)
    method, other = ("group norms", "k-means") if fits else ("k-means", "group norms")
    beside = chosen.baseline_labels_ if fits else chosen.model_labels_
    panels = {method: labels} | ({} if beside is None else {other: beside[rows]})
    sizes = np.unique(chosen.labels_, return_counts=True)
    summary = (
        f"{len(table.values):,} rows in {chosen.n_clusters_} clusters, by {method}: {reason}. "
        f"The largest holds {sizes[1].max():,} rows, the smallest {sizes[1].min():,}."
    )
    values_told = f"of {table.values.shape[1]} columns"
    found: dict[str, Any] = {
        "summary": summary,
        "cautions": _cautions(table, chosen, sizes[1]),
        "first": _rows_of(table, chosen, range(min(3, len(table.values)))),
        "sizes": _sizes(chosen),
        "profiles": image_source(pictures.cluster_profiles(values, labels, table.columns)),
        "profiles_alt": f"Means {values_told} in {len(sizes[0])} clusters; the table below names the strongest.",
        "plane": image_source(pictures.clusters_in_plane(data, panels)),
        "plane_alt": f"Points in a plane, a panel for each of {', '.join(panels)}, coloured and shaped by cluster.",
        "apart": _apart(values, labels, table.columns),
        "typical": _rows_of(table, chosen, _typical(chosen)),
        "doubtful": _rows_of(table, chosen, _doubtful(chosen)),
        "groups": _groups(chosen, values, labels, table.columns) if fits else None,
        "n_groups": len(chosen.components_) // chosen.group_size_ if fits else 0,
        "other": other,
        "agreement": 1.0 if beside is None else adjusted_rand_score(chosen.labels_, beside),
        "beside": _beside(chosen),
        "compared": COMPARED[fits],
        "baseline": _crossed(chosen.labels_, chosen.labels_ if beside is None else beside, "cluster"),
        "counted": "as asked" if request.n_clusters != "auto" else LIKELIEST if fits else SILHOUETTE,
        "evidence_image": None,
        "scores": None,
    }
    if chosen.evidence_ is not None:
        weighed = chosen.evidence_
        found["gain"] = weighed["log_likelihood_of_model"] - weighed["log_likelihood_of_centres"]
        found["evidence_image"] = image_source(pictures.evidence_bars(weighed))
        found["evidence_alt"] = (
            "Explained variance {explained_by_subspaces:.2f} by subspaces, {explained_by_centres:.2f} by centres; "
            "agreement of halves {stability_of_model:.2f} of group norms, {stability_of_centres:.2f} of k-means."
        ).format_map(weighed)
    if table.labels is not None and (table.labels != "").any():
        found |= _scores(table.labels, chosen)
    return render_page(
        BODY,
        f"Clusters of {printable(request.path.name)}",
        request=request,
        table=table,
        chosen=chosen,
        method=method,
        reason=reason,
        grid=grid,
        repeat=repeat,
        made_with=", ".join(f"{name} {version}" for name, version in versions().items()),
        **found,
    )


def _cautions(table: Table, chosen: GroupSparseClustering, sizes: np.ndarray) -> list[str]:
    """What speaks against these very clusters."""
    lines = []
    if chosen.evidence_ is not None:
        agreement = chosen.evidence_["stability_of_model" if chosen.method_ == "groups" else "stability_of_centres"]
        if agreement < 0.5:
            told = "clusterings of two halves of the data agree little"
            lines.append(
                f"Do not build on these clusters: {told} ({agreement:.2f}, where 1 is perfect and 0 is chance)."
            )
    if sizes.min() < FEW:
        lines.append(f"{(sizes < FEW).sum()} of the clusters hold fewer than {FEW} rows.")
    if len(table.values) < 10 * chosen.n_clusters_:
        lines.append(f"There are fewer than ten rows for each of {chosen.n_clusters_} clusters.")
    low = float(np.mean(chosen.confidence_ < 0.5))
    if low > 0.2:
        lines.append(f"{low:.0%} of the rows change their cluster in most halves of the data.")
    lines += [note for note in table.notes if note.startswith(("caution", "missing", "rows with missing"))]
    return lines


def _sizes(chosen: GroupSparseClustering) -> tuple[list[str], list[list[object]]]:
    rows: list[list[object]] = []
    for kind, size in zip(*np.unique(chosen.labels_, return_counts=True), strict=True):
        own = chosen.labels_ == kind
        shares = f"{chosen.confidence_[own].mean():.2f}", f"{chosen.margin_[own].mean():.2f}"
        rows.append([kind, f"{size:,}", f"{size / len(own):.1%}", *shares])
    return ["cluster", "rows", "share", "mean confidence", "mean distance to the next"], rows[: 2 * MAX_CLUSTERS]


def _apart(values: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    from gsae_book.app.report_figures import deviations

    rows: list[list[object]] = []
    for kind, row in zip(*deviations(values, labels), strict=True):
        order = np.argsort(-np.abs(row))[:STRONGEST]
        rows.append([kind, ", ".join(f"{columns[k]} {row[k]:+.1f}" for k in order)])
    return ["cluster", "columns, and how far, in standard deviations"], rows[:MAX_CLUSTERS]


def _typical(chosen: GroupSparseClustering) -> list[int]:
    order = np.lexsort((-chosen.margin_, -chosen.confidence_))
    kinds = np.unique(chosen.labels_)[:MAX_CLUSTERS]
    return [int(row) for kind in kinds for row in order[chosen.labels_[order] == kind][:TYPICAL]]


def _doubtful(chosen: GroupSparseClustering) -> list[int]:
    return np.lexsort((chosen.margin_, chosen.confidence_))[:DOUBTFUL].tolist()


def _rows_of(table: Table, chosen: GroupSparseClustering, rows: Sequence[int]) -> tuple[list[str], list[list[object]]]:
    """Rows with their cluster and their first cells."""
    head = ["row"] + ["index"] * (table.index is not None) + ["cluster", "confidence", "distance to the next"]
    head += [*table.columns[:CELLS]] + ["label"] * (table.labels is not None)
    found: list[list[object]] = []
    for row in rows:
        line: list[object] = [table.rows[row]] + ([] if table.index is None else [table.index[row]])
        line += [chosen.labels_[row], f"{chosen.confidence_[row]:.2f}", f"{chosen.margin_[row]:.2f}"]
        line += [f"{value:.4g}" for value in table.values[row][:CELLS]]
        found.append(line + ([] if table.labels is None else [table.labels[row]]))
    return head, found


def _groups(
    chosen: GroupSparseClustering, values: np.ndarray, labels: np.ndarray, columns: Sequence[str]
) -> tuple[list[str], list[list[object]]]:
    """The groups with the largest mean norm: the cluster that uses each most, and its strongest columns."""
    norms = chosen.transform(values)
    kinds = np.unique(labels)
    means = np.stack([norms[labels == kind].mean(axis=0) for kind in kinds])
    atoms = chosen.components_.reshape(-1, chosen.group_size_, chosen.components_.shape[1])[:, :, : len(columns)]
    energy = np.square(atoms).sum(axis=1)
    energy /= np.maximum(energy.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rows: list[list[object]] = []
    for group in np.argsort(-norms.mean(axis=0))[:MAX_GROUPS]:
        order = np.argsort(-energy[group])[:STRONGEST]
        named = ", ".join(f"{columns[k]} ({energy[group, k]:.0%})" for k in order)
        rows.append([group, kinds[means[:, group].argmax()], f"{norms[:, group].mean():.3f}", named])
    return ["group", "strongest in cluster", "mean norm", "columns, and their share"], rows


def _beside(chosen: GroupSparseClustering) -> str:
    if chosen.model_labels_ is None:
        return "There is no other clustering, for the reason above."
    column = "k_means" if chosen.method_ == "groups" else "group_norms"
    return f"labels.csv has both, in the columns cluster and {column}."


def _crossed(labels: np.ndarray, other: np.ndarray, corner: str) -> tuple[list[str], list[list[object]]]:
    """How many samples have each pair of labels."""
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(labels, other)[:MAX_CLUSTERS, :MAX_CLUSTERS]
    names, columns = (np.unique(side)[:MAX_CLUSTERS].tolist() for side in (labels, other))
    return [corner, *columns], [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]


def _scores(truth: np.ndarray, chosen: GroupSparseClustering) -> dict[str, Any]:
    from gsae_lib.metrics import clustering_scores

    known = truth != ""
    sides = {"k-means": chosen.baseline_labels_, "group norms": chosen.model_labels_}
    chosen_name = "group norms" if chosen.method_ == "groups" else "k-means"
    rows: list[list[object]] = []
    for name, labels in sides.items():
        if labels is not None:
            scores = clustering_scores(truth[known].astype(str), labels[known])
            told = f"{name} (chosen)" if name == chosen_name else name
            rows.append([told, *(f"{value:.2f}" for value in (scores.ari, scores.nmi, scores.accuracy))])
    head = ["clusters", "adjusted Rand index", "normalised mutual information", "accuracy, clusters matched"]
    return {
        "scores": (head, rows),
        "crossed": _crossed(truth[known].astype(str), chosen.labels_[known], "label"),
        "unlabelled": int((~known).sum()),
    }


def shown_rows(n_samples: int) -> np.ndarray:
    """At most 20,000 rows, drawn at random, in their order."""
    return np.sort(np.random.default_rng(0).permutation(n_samples)[:SHOWN])
