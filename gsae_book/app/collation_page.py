"""A page of a sweep, one HTML file: how far it is, means over seeds, a figure, what failed, and its specification."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gsae_book.app.collate import means_over_seeds
from gsae_book.app.offline_page import image_source, render_page
from gsae_lib._files import replace_file

if TYPE_CHECKING:
    from gsae_book.app.collate import Collation

MAX_ROWS = 200  # of the table of means
BODY = """<h1>{{ found.target }}</h1>
<p>{{ found.n_done }} points are done, {{ found.failed|length }} failed, {{ found.n_missing }} have not run.
{{ found.n_others }} of other specifications or code are left out. {{ "%.2f"|format(hours) }} hours in all.</p>
{% for name, values in origins.items() if values %}<p>By {{ name }}: {% for value, count in values.items() -%}
{{ value }} ({{ count }} points){{ ", " if not loop.last }}{% endfor %}.</p>
{% endfor %}
{%- if figure %}<figure><img src="{{ figure }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption></figure>{% endif %}
{%- if n_settings %}<h2>Means over seeds</h2>
<p>Mean ± sample standard deviation of the rows that agree in all but seeds; how many they are stands under seeds.
{%- if n_settings > means.data|length %} The first {{ means.data|length }} of {{ n_settings }} settings.{% endif %}</p>
<div class="wide" tabindex="0"><table>
<thead><tr>{% for name in means.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in means.data %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>{% endif %}
{%- if found.failed %}<h2>Failed</h2>
<div class="wide"><table>
<thead><tr><th scope="col">point</th><th scope="col">error</th></tr></thead>
<tbody>
{% for where, error in found.failed %}<tr><td>{{ where }}</td><td>{{ error }}</td></tr>
{% endfor %}</tbody>
</table></div>{% endif %}
<h2>Specification</h2>
<pre>{{ spec }}</pre>
"""


def write_page(path: Path, folder: Path, found: Collation, figure: Path | None = None, caption: str = "") -> None:
    """Write the page of the sweep in ``folder`` to ``path``, in one step; it holds the ``figure``, an SVG."""
    table = found.table
    points = table.drop_duplicates("point.key") if len(table) else table
    means = means_over_seeds(table) if len(table) else table
    text = render_page(
        BODY,
        found.target,
        found=found,
        hours=points["point.seconds"].sum() / 3600 if len(points) else 0.0,
        origins={name: Counter(map(str, points.get(f"point.{name}", []))) for name in ("commit", "processor")},
        figure=image_source(figure) if figure else None,
        caption=caption,
        means=means.head(MAX_ROWS).to_dict("split"),
        n_settings=len(means),
        spec=(folder / "spec.yaml").read_text(encoding="utf8", errors="replace"),
    )
    replace_file(path, text)
