"""A Sphinx extension: the day each page's source last changed, and a site map for a book that has an address."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from gsae_book.runs.environment import find_root

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SCHEMA = "http://www.sitemaps.org/schemas/sitemap/0.9"


def last_changes(root: Path) -> dict[str, str]:
    """The day of the last commit of each file under ``root``, by its path from there; none without a history."""
    git = partial(subprocess.run, capture_output=True, text=True, cwd=root, timeout=60)
    try:
        listed = git(["git", "log", "--format=%x00%cs", "--name-only", "--relative", "--", "book", "notebooks"])
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, str] = {}
    for commit in listed.stdout.split("\0")[1:]:
        day, *files = commit.split("\n")
        for file in filter(None, files):
            found.setdefault(file, day)
    return found


def site_map(pages: dict[str, str | None]) -> bytes:
    """The XML of a site map: addresses, and the day of the last change where it is known."""
    top = ElementTree.Element("urlset", xmlns=SCHEMA)
    for address, day in pages.items():
        entry = ElementTree.SubElement(top, "url")
        ElementTree.SubElement(entry, "loc").text = address
        if day:
            ElementTree.SubElement(entry, "lastmod").text = day
    return ElementTree.tostring(top, encoding="utf-8", xml_declaration=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Date each page; write sitemap.xml where `html_baseurl` is set."""
    days: dict[str, str] = {}

    def read_days(app: Sphinx) -> None:
        # A book is staged in a folder of _build; its history is that of the project around it.
        days.update(last_changes(find_root(Path(app.srcdir).parent)))

    def day_of(app: Sphinx, page: str) -> str | None:
        return days.get(str(app.env.doc2path(page, base=False))) if page in app.env.found_docs else None

    def date(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
        context["last_updated"] = day_of(app, page)

    def write(app: Sphinx, error: Exception | None) -> None:
        base = app.config.html_baseurl
        if base and error is None:
            pages = {f"{base.rstrip('/')}/{page}.html": day_of(app, page) for page in sorted(app.env.found_docs)}
            (Path(app.outdir) / "sitemap.xml").write_bytes(site_map(pages))

    app.connect("builder-inited", read_days)
    app.connect("html-page-context", date)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
