"""The whole book as one PDF: the built pages in one document, which Chromium prints.

``python -m gsae_book.build.pdf [--profile default|smoke|paper] [--out FILE]``, after the pages are built.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click
import yaml

from gsae_book.build.book import DEFAULT, Layout
from gsae_book.runs.environment import commit, find_root
from gsae_book.runs.parameters import ParameterError
from gsae_lib._files import replace_file

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
TIMEOUT = 3_600_000  # of one step of the browser, milliseconds: a busy machine sets thousands of formulas
WIDTH = 680  # of the text, in the pixels of CSS: 180 mm
# What a page on paper cannot use: buttons, links to a heading itself, folded code, what is to be touched.
LEFT_OUT = "a.headerlink, button, script, style, .gsae-explorer, details.hide, .only-dark, .prev-next-area"
STYLE = f"""
@page {{ size: A4; margin: 16mm 15mm 18mm 15mm; }}
html, body {{ background: #fff; font-size: 10.5pt; }}
html {{ --pst-color-shadow: transparent !important; --sd-color-shadow: transparent !important; }}
body {{ width: {WIDTH}px; margin: 0; }}
article.chapter, .front {{ break-before: page; max-width: none; padding: 0; }}
article.chapter h1, .front h1 {{ margin-top: 0; font-size: 2em; }}
h1, h2, h3, h4 {{ break-after: avoid; }}
figure, .highlight, .cell_input, div.math, blockquote, tr, .admonition-title {{ break-inside: avoid; }}
article.chapter.within {{ break-before: auto; margin-top: 2em; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.78em; }}
img {{ max-width: 100%; height: auto; }}
.bd-article table.table, table {{ display: table; width: auto; overflow: visible; font-size: 0.82em; }}
div.math, .cell_output, .text_html, .output {{ overflow: visible; max-width: 100%; }}
td, th, td *, th * {{ overflow-wrap: break-word !important; word-break: normal !important; }}
.toggle, .toggle-hidden, .admonition.dropdown > * {{ visibility: visible; opacity: 1; height: auto; }}
.contents {{ list-style: none; padding: 0; }}
.contents li {{ display: flex; gap: 0.5em; }}
.contents li.part {{ margin-top: 0.8em; font-weight: 600; }}
.contents .dots {{ flex: 1; border-bottom: 1px dotted #888; margin-bottom: 0.3em; }}
.contents a {{ color: inherit; text-decoration: none; }}
"""
# Formulas and tables that are wider than the paper become smaller.
FIT = """
() => {
  const formulas = [...document.querySelectorAll('mjx-container[display="true"]')];
  const tables = [...document.querySelectorAll('table')];
  const width = one => one.getBoundingClientRect().width;
  // What is around text does not shrink with it, so once may not do.
  for (let round = 0; round < 3; round++) {
    for (const one of formulas) one.style.display = 'inline-block';
    // All are measured before any is changed: one layout of the document, and not one for each of them.
    const wide = [...formulas, ...tables].map(one => {
      const share = Math.min(width(one.parentElement), document.body.clientWidth) / width(one);
      return [one, share, parseFloat(getComputedStyle(one).fontSize)];
    }).filter(([one, share, size]) => share > 0 && share < 0.995 && size > 5);
    for (const one of formulas) one.style.display = '';
    for (const [one, share, size] of wide) one.style.fontSize = `${Math.max(5, 0.98 * share * size)}px`;
    if (!wide.length) return;
  }
}
"""
NUMBERS = """
pages => {
  for (const one of document.querySelectorAll('[data-page-of]')) one.textContent = pages[one.dataset.pageOf] ?? '';
}
"""
FOOTER = '<div style="width: 100%; text-align: center; font-size: 8px"><span class="pageNumber"></span></div>'


@dataclass(frozen=True)
class Chapter:
    """A page of the book: its name in the table of contents, the part that it begins, its title and its text.

    A page `within` another begins on no sheet of its own, and the contents leave it out.
    """

    name: str
    part: str
    title: str
    text: str

    @property
    def within(self) -> bool:
        return self.name.count("/") > 1


def page_names(toc: Path) -> list[tuple[str, str]]:
    """The pages of the table of contents, in order, each with the name of the part that begins with it."""
    content = yaml.safe_load(toc.read_text(encoding="utf8"))
    names = [(content["root"], "")]
    for part in content.get("parts", [content]):
        files = [name for chapter in part.get("chapters", ()) for name in _files(chapter, toc.parent)]
        names += [(name, part.get("caption", "") if k == 0 else "") for k, name in enumerate(files)]
    return names


def _files(entry: dict[str, Any], root: Path) -> list[str]:
    """The pages of an entry, and those of its sections."""
    if "glob" in entry:
        return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob(f"{entry['glob']}.md"))
    return [entry["file"], *(name for section in entry.get("sections", ()) for name in _files(section, root))]


def read_chapters(layout: Layout) -> Iterator[Chapter]:
    """Every page as it stands in the one document: names of places and links carry the name of their page."""
    from bs4 import BeautifulSoup

    names = page_names(layout.source / "_toc.yml")
    places = {(layout.html / f"{name}.html").resolve(): slug(name) for name, _ in names}
    for name, part in names:
        file = layout.html / f"{name}.html"
        soup = BeautifulSoup(file.read_text(encoding="utf8"), "html.parser")
        article = soup.select_one("article.bd-article")
        if article is None:
            raise ParameterError(f"{file} has no text: build the pages again")
        for element in article.select(LEFT_OUT):
            element.decompose()
        title = article.h1.get_text().strip() if article.h1 else name
        _bring_along(article, file, places)
        yield Chapter(name, part, title, article.decode_contents())


def slug(name: str) -> str:
    """A page's name as the beginning of the names of its places."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _bring_along(article: Tag, file: Path, places: dict[Path, str]) -> None:
    """Names of places get their page's name in front; links lead there; pictures are found from anywhere."""
    own = places[file.resolve()]
    used = set()
    for element in article.find_all(id=True):
        name = element["id"]
        if name in used:  # as every exercise of a page is marked
            del element["id"]
        else:
            element["id"] = f"{own}--{name}"
        used.add(name)
    for image in article.find_all("img", src=True):
        image["src"] = (file.parent / unquote(image["src"])).resolve().as_uri()
    for link in article.find_all("a", href=True):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
        if target in places:
            link["href"] = f"#{places[target]}" + (f"--{unquote(parts.fragment)}" if parts.fragment else "")
        else:  # a file to download, or a page that is no chapter
            del link["href"]


def assemble(layout: Layout, chapters: Sequence[Chapter]) -> str:
    """One document: title, contents with room for the page on which each chapter begins, chapters."""
    from bs4 import BeautifulSoup

    index = layout.html / f"{chapters[0].name}.html"
    soup = BeautifulSoup(index.read_text(encoding="utf8"), "html.parser")
    settings = yaml.safe_load((layout.source / "_config.yml").read_text(encoding="utf8"))
    rows, articles = [], []
    for chapter in chapters:
        place = slug(chapter.name)
        within = " within" if chapter.within else ""
        articles.append(f'<article class="bd-article chapter{within}" id="{place}">{chapter.text}</article>')
        if chapter.part:
            rows.append(f'<li class="part">{html.escape(chapter.part)}</li>')
        if not chapter.within:
            link = f'<a href="#{place}">{html.escape(chapter.title)}</a>'
            rows.append(f'<li>{link}<span class="dots"></span><span data-page-of="{place}"></span></li>')
    version = commit(layout.root) or "no commit"
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{html.escape(settings['title'])}</title>{_head(soup, index)}<style>{STYLE}</style></head><body>"
        f'<div class="front" id="front"><h1>{html.escape(settings["title"])}</h1>'
        f"<p>{html.escape(settings['author'])}, {html.escape(settings['copyright'])}. "
        f"Profile {layout.profile}, {version}. Folded code is in the notebooks, what can be touched on the pages.</p>"
        f'<h2>Contents</h2><ol class="contents">{"".join(rows)}</ol></div>'
        f'<div class="bd-content">{"".join(articles)}</div></body></html>'
    )


def _head(soup: BeautifulSoup, page: Path) -> str:
    """The styles and the formulas' script of a page, found from anywhere."""
    kept = []
    for link in soup.select('link[rel~="stylesheet"]'):
        file = (page.parent / urlsplit(link["href"]).path).resolve()
        if file.is_file():
            kept.append(f'<link rel="stylesheet" href="{file.as_uri()}">')
    scripts = soup.find_all("script")
    for script in scripts:
        if (script.string or "").lstrip().startswith("window.MathJax"):
            kept.append(f"<script>{script.string}</script>")
    for script in scripts:
        if "mathjax" in script.get("src", ""):
            source = (page.parent / urlsplit(script["src"]).path).resolve().as_uri()
            kept.append(f'<script defer src="{source}"></script>')
    return "".join(kept)


def print_book(layout: Layout, out: Path) -> int:
    """Print the built book of ``layout`` to ``out`` and return the number of its pages.

    Raises: ParameterError if the pages are not built, or there is no Chromium or no playwright to print them.
    """
    browser_path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser_path is None:
        raise ParameterError(f"printing needs one of {', '.join(BROWSERS)}, and none is installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ParameterError("printing needs playwright: pip install -e '.[test]'") from None
    if not layout.index.is_file():
        raise ParameterError(f"there are no pages in {layout.html}: build the {layout.profile} book first")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        chapters = list(read_chapters(layout))
        page = load(browser, Path(folder, "book.html"), assemble(layout, chapters))
        content = with_outline(print_page(page), {slug(chapter.name): chapter.title for chapter in chapters})
        browser.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, content)
    return len(sheets(content))


def load(browser: Any, file: Path, text: str) -> Page:
    """The document in a window as wide as the paper's text, its formulas set, and what is too wide made smaller."""
    file.write_text(text, encoding="utf8")
    page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
    page.set_default_timeout(TIMEOUT)
    page.emulate_media(media="print", color_scheme="light")
    page.goto(file.as_uri())
    page.evaluate("() => window.MathJax ? MathJax.startup.promise.then(() => true) : true")
    page.evaluate(FIT)
    return page


def print_page(page: Page) -> bytes:
    """The PDF of the document. It is printed twice: the first print tells on which page each chapter begins.

    Without tags, which would double its size: the pages themselves are there for those who listen. Chromium makes no
    outline then, so that `with_outline` does.
    """
    settings = {
        "prefer_css_page_size": True,
        "print_background": True,
        "display_header_footer": True,
        "header_template": "<span></span>",
        "footer_template": FOOTER,
    }
    page.evaluate(NUMBERS, beginnings(page.pdf(**settings)))
    return page.pdf(**settings)


def sheets(content: bytes) -> list[int]:
    """The objects of a PDF of Chromium that are its pages, in order; Chromium writes them in plain."""
    kids = {
        int(number): [int(kid) for kid in re.findall(rb"(\d+) 0 R", found)]
        for number, found in re.findall(rb"\n(\d+) 0 obj\n<</Type /Pages\b.*?/Kids \[(.*?)\]", content, flags=re.DOTALL)
    }

    def under(number: int) -> list[int]:
        return [one for kid in kids[number] for one in under(kid)] if number in kids else [number]

    roots = re.findall(rb"/Type /Catalog\b.*?/Pages (\d+) 0 R", content, flags=re.DOTALL)
    return under(int(roots[-1]))  # an update repeats the catalog


def beginnings(content: bytes) -> dict[str, int]:
    """On which page of a PDF of Chromium each place lies that something links to, counted from 1."""
    order = {number: k for k, number in enumerate(sheets(content), start=1)}
    places = re.findall(rb"/([\w-]+) \[(\d+) 0 R /XYZ", content)
    return {name.decode(): order[int(number)] for name, number in places if int(number) in order}


def with_outline(content: bytes, titles: Mapping[str, str]) -> bytes:
    """A PDF of Chromium with bookmarks: `titles` by the names of places; an update is appended, as PDF has it."""
    order = sheets(content)
    begin = beginnings(content)
    marks = [(title, order[begin[place] - 1]) for place, title in titles.items() if place in begin]
    ((number, catalog),) = re.findall(rb"\n(\d+) 0 obj\n(<</Type /Catalog\b.*?>>)\nendobj", content, flags=re.DOTALL)
    trailer, previous = re.findall(rb"trailer\n<<(.*?)>>\nstartxref\n(\d+)", content, flags=re.DOTALL)[-1]
    size = int(re.search(rb"/Size (\d+)", trailer)[1])
    first, last = size + 1, size + len(marks)
    bodies = {
        int(number): catalog.replace(b"/Type /Catalog", b"/Type /Catalog\n/Outlines %d 0 R" % size, 1),
        size: b"<</Type /Outlines /First %d 0 R /Last %d 0 R /Count %d>>" % (first, last, len(marks)),
    }
    for k, (title, sheet) in enumerate(marks, start=first):
        text = title.encode("utf-16-be").hex().encode()
        near = (b"/Prev %d 0 R " % (k - 1) if k > first else b"") + (b"/Next %d 0 R " % (k + 1) if k < last else b"")
        bodies[k] = b"<</Title <feff%b> /Parent %d 0 R %b/Dest [%d 0 R /Fit]>>" % (text, size, near, sheet)
    out, table = content.rstrip() + b"\n", b"xref\n"
    for k, body in bodies.items():
        table += b"%d 1\n%010d 00000 n \n" % (k, len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (k, body)
    trailer = re.sub(rb"/Size \d+", b"/Size %d /Prev %b" % (last + 1, previous), trailer)
    return out + table + b"trailer\n<<%b>>\nstartxref\n%d\n%%%%EOF\n" % (trailer, len(out))


@click.command()
@click.option("--profile", default=DEFAULT, show_default=True, help="The built book to print.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="By default _build/book.pdf.")
def main(profile: str, out: Path | None) -> None:
    """Print the built book as one PDF."""
    try:
        layout = Layout(find_root(), profile)
        out = out or layout.root / "_build" / ("book.pdf" if profile == DEFAULT else f"{profile}.pdf")
        pages = print_book(layout, out)
    except ParameterError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    click.echo(f"{pages} pages, {out.stat().st_size / 1e6:.1f} MB: {out}")


if __name__ == "__main__":
    main()
