"""The whole book as one PDF: the built pages in one document, which Chromium prints.

``python -m gsae_book.build.pdf [--profile default|smoke|paper] [--out FILE]``, after the pages are built.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import click
import yaml

from gsae_book.build.book import DEFAULT, Layout
from gsae_book.runs.environment import commit, find_root
from gsae_book.runs.parameters import ParameterError
from gsae_lib._files import replace_file

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from playwright.sync_api import Browser, Page
    from pypdf import PdfWriter

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 3_600_000  # of one step of the browser, milliseconds: a busy machine sets thousands of formulas
WIDTH = 680  # of the text, in the pixels of CSS: 180 mm
# What a page on paper cannot use: buttons, folded code, what is to be touched.
LEFT_OUT = "button, script, style, .gsae-explorer, details.hide, .only-dark, .prev-next-area"
# Links of headings to themselves stay, unseen: Chromium names the places that something links to, and no others.
STYLE = f"""
@page {{ size: A4; margin: 16mm 15mm 18mm 15mm; @bottom-center {{ content: counter(page); font-size: 8px; }} }}
html, body {{ background: #fff; font-size: 10.5pt; }}
html {{ --pst-color-shadow: transparent !important; --sd-color-shadow: transparent !important; }}
body {{ width: {WIDTH}px; margin: 0; }}
article.bd-article {{ break-before: page; max-width: none; padding: 0; }}
h1 {{ margin-top: 0; font-size: 2em; }}
h1, h2, h3, h4 {{ break-after: avoid; }}
figure, .highlight, .cell_input, div.math, blockquote, tr, .admonition-title {{ break-inside: avoid; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.78em; }}
img {{ max-width: 100%; height: auto; }}
table.table, table {{ display: table; width: auto; overflow: visible; font-size: 0.82em; }}
div.math, .cell_output, .text_html, .output {{ overflow: visible; max-width: 100%; }}
td, th, td *, th * {{ overflow-wrap: break-word !important; word-break: normal !important; }}
.toggle, .toggle-hidden, .admonition.dropdown > * {{ visibility: visible; opacity: 1; height: auto; }}
.gsae-contents ul {{ display: block; list-style: none; padding: 0; margin: 0; }}
.gsae-contents .caption {{ margin: 0.8em 0 0; font-weight: 600; }}
.gsae-contents a {{ display: flex; gap: 0.5em; color: inherit; text-decoration: none; }}
.gsae-contents a::before {{ order: 1; flex: 1; content: ""; border-bottom: 1px dotted #888; margin-bottom: 0.3em; }}
.gsae-contents a::after {{ order: 2; content: attr(data-page); }}
.gsae-contents details, a.headerlink {{ display: none; }}
"""
# Formulas and tables that are wider than the paper become smaller; what is around text does not, so once may not do.
FIT = """
() => {
  const boxes = [...document.querySelectorAll('mjx-container[display="true"] > mjx-math, table')];
  const width = one => one.getBoundingClientRect().width;
  for (let round = 0; round < 3; round++) {
    // All are measured before any is changed: one layout of the document, and not one for each of them.
    const sizes = boxes.map(one => {
      const share = Math.min(width(one.parentElement), document.body.clientWidth) / width(one);
      return [one, share, parseFloat(getComputedStyle(one).fontSize)];
    });
    for (const [one, share, size] of sizes)
      if (share < 0.999 && size > 5) one.style.fontSize = `${Math.max(5, 0.98 * share * size)}px`;
  }
}
"""
NUMBERS = """
pages => {
  for (const one of document.querySelectorAll('.gsae-contents a')) one.dataset.page = pages[one.hash.slice(1)] + 1;
}
"""


def assemble(layout: Layout) -> BeautifulSoup:
    """Return the book as one document: its title, its contents, which are the sidebar of the first page, and all pages.

    Names of places and links carry the name of their page.
    """
    settings, toc = (yaml.safe_load((layout.source / f"_{name}.yml").read_text("utf8")) for name in ("config", "toc"))
    site = f"{layout.html.resolve().as_uri()}/"
    first = f"{site}{toc['root']}.html"
    book = read_page(first)
    contents = book.select_one("nav.bd-links").extract()
    contents["class"] = "gsae-contents"
    pages = [urljoin(first, link["href"]) for link in contents.select("a")]
    names = {page: page.removeprefix(site).removesuffix(".html") for page in pages}
    for script in book.select("script"):
        if "mathjax" not in str(script).lower():
            script.decompose()
    book.html["data-theme"] = book.html["data-mode"] = "light"
    book.title.string = title = settings["title"]
    about = f"{settings['author']}, {settings['copyright']}. Profile {layout.profile}, "
    about += f"{commit(layout.root) or 'no commit'}. Folded code is in the notebooks, what can be touched on the pages."
    book.head.append(book.new_tag("meta", attrs={"name": "author", "content": settings["author"]}))
    book.body.clear()
    for name, text in (("style", STYLE), ("h1", title), ("p", about), ("h2", "Contents")):
        book.body.append(book.new_tag(name, string=text))
    _bring_along(book.head, first, names)
    _bring_along(contents, first, names)
    book.body.append(contents)
    for page, name in names.items():
        article = read_page(page).select_one("article.bd-article")
        for element in article.select(LEFT_OUT):
            element.decompose()
        for heading in article.select("section[id] > h2"):  # which may be on the page after its section's beginning
            heading["id"] = heading.parent.attrs.pop("id")
        _bring_along(article, page, names)
        article["id"] = name
        book.body.append(article)
    return book


def read_page(address: str) -> BeautifulSoup:
    """Return the built page at a ``file:`` address."""
    from bs4 import BeautifulSoup

    return BeautifulSoup(Path(unquote(urlsplit(address).path)).read_text(encoding="utf8"), "html.parser")


def _bring_along(part: Tag, page: str, names: Mapping[str, str]) -> None:
    """Names of places get their page's name in front; links lead there; pictures and styles are found from anywhere."""
    used = set()
    for element in part.select("[id]"):
        name = element["id"]
        if name in used:  # as every exercise of a page is marked
            del element["id"]
        else:
            element["id"] = f"{names[page]}--{name}"
        used.add(name)
    for element in part.select("[src]"):
        element["src"] = urljoin(page, element["src"])
    for link in part.select("[href]"):
        link["href"] = urljoin(page, link["href"])
        target, place = urldefrag(link["href"])
        if target in names:
            link["href"] = f"#{names[target]}" + (f"--{unquote(place)}" if place else "")
        elif link.name == "a" and target.startswith("file:"):  # a file to download, or a page that is no chapter
            del link["href"]


def print_book(layout: Layout, out: Path) -> int:
    """Print the built book of ``layout`` to ``out`` and return the number of its pages.

    Raises: ParameterError if the pages are not built, or there is no Chromium, playwright or pypdf to print them.
    """
    browser_path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser_path is None:
        raise ParameterError(f"printing needs one of {', '.join(BROWSERS)}, and none is installed")
    try:
        import pypdf  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ParameterError(f"printing needs {error.name}: pip install -e '.[test]'") from None
    if not layout.index.is_file():
        raise ParameterError(f"there are no pages in {layout.html}: build the {layout.profile} book first")
    book = assemble(layout)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path)
        pdf = print_page(load(browser, Path(folder, "book.html"), book))
    pdf.add_metadata({"/Author": book.find("meta", {"name": "author"})["content"]})
    add_outline(pdf, book)
    content = io.BytesIO()
    pdf.write(content)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, content.getvalue())
    return len(pdf.pages)


def load(browser: Browser, file: Path, book: BeautifulSoup) -> Page:
    """Open the document as wide as the paper's text, its formulas set, and what is too wide made smaller."""
    file.write_text(str(book), encoding="utf8")
    page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
    page.set_default_timeout(TIMEOUT)
    page.emulate_media(media="print", color_scheme="light")
    page.goto(file.as_uri())
    page.evaluate("() => window.MathJax ? MathJax.startup.promise.then(() => true) : true")
    page.evaluate(FIT)
    return page


def print_page(page: Page) -> PdfWriter:
    """Return the PDF of the document. It is printed twice: the first print tells on which page each chapter begins.

    Without tags, which would triple its size: the pages themselves are there for those who listen. Chromium makes no
    outline then.
    """
    from pypdf import PdfWriter

    def pdf() -> PdfWriter:
        return PdfWriter(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True)), full=True)

    page.evaluate(NUMBERS, beginnings(pdf()))
    return pdf()


def beginnings(pdf: PdfWriter) -> dict[str, int]:
    """Return on which page each place lies that something links to, counted from 0."""
    return {name[1:]: pdf.get_destination_page_number(place) for name, place in pdf.named_destinations.items()}


def add_outline(pdf: PdfWriter, book: BeautifulSoup) -> None:
    """Give the PDF its bookmarks: the parts, their chapters, and the sections of each."""
    pages = beginnings(pdf)
    part = None
    for entry in book.select(".gsae-contents .caption, .gsae-contents a"):
        chapter = (entry if entry.name == "a" else entry.find_next("a"))["href"][1:]
        mark = {"title": entry.get_text().strip(), "page_number": pages[chapter]}
        if entry.name != "a":
            part = pdf.add_outline_item(**mark)
            continue
        parent = pdf.add_outline_item(**mark, parent=part, is_open=False)
        for link in book.find(id=chapter).select("h2 > a.headerlink"):
            title = link.parent.get_text().removesuffix("#")
            pdf.add_outline_item(title=title, page_number=pages[link["href"][1:]], parent=parent)


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
