"""A Sphinx extension: what a screen reader needs, and docutils, pandas and the theme leave out of a page's HTML.

An empty cell in the head of a table is no header; a button that opens pages of the contents has a name; the list at the
side is a landmark; a reference has no role that has been withdrawn. The rules are those of axe-core.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gsae_book.build.pages import write_if_changed

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LINK = r'(<a class="[^"]*reference internal[^"]*" href="[^"]*">\s*([^<"]+?)\s*</a>\s*<details[^>]*>)'
SIDE = '<div id="pst-primary-sidebar"'
CHANGES = (
    (re.compile(r"<th\b([^>]*)>\s*(?:&nbsp;|<p></p>)?\s*</th>"), r"<td\1></td>"),
    (re.compile(LINK + "<summary>"), r'\1<summary aria-label="Pages below \2">'),
    (re.compile(SIDE + "(?! role)"), f'{SIDE} role="navigation" aria-label="Book"'),
    (re.compile(' role="doc-biblioentry"'), ""),
    (re.compile('<div role="list" class="citation-list">'), '<div class="citation-list">'),
)


def make_accessible(html: str) -> str:
    """Return the HTML of a page with what is listed above; what has been through this is returned as it is."""
    for found, told in CHANGES:
        html = found.sub(told, html)
    return html


def setup(app: Sphinx) -> dict[str, bool]:
    """Go through the pages once all are written."""

    def finish(app: Sphinx, error: Exception | None) -> None:
        if error is None and app.builder.format == "html":
            for page in Path(app.outdir).rglob("*.html"):
                write_if_changed(page, make_accessible(page.read_text(encoding="utf8")))

    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
