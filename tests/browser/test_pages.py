"""The pages of the smoke build, read as files: links, images, figures, what they would ask of the network."""

import json
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from built_site import HTML, SMOKE, page_names

from gsae_book.build.pages import MATHJAX

pytestmark = pytest.mark.book
PAGES = page_names()
NOTEBOOKS = sorted((SMOKE / "source" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def soups() -> dict[str, BeautifulSoup]:
    """Every page of the build, parsed, by its path."""
    return {name: BeautifulSoup((HTML / name).read_text(encoding="utf8"), "html.parser") for name in PAGES}


def articles(soups: dict[str, BeautifulSoup]) -> Iterator[tuple[str, BeautifulSoup]]:
    """The text of each page of the book, without search and indices, which Sphinx makes."""
    for name, soup in soups.items():
        if name.startswith(("book/", "notebooks/")):
            yield name, soup.select_one("article.bd-article")


def test_there_is_a_build():
    # Breaks if the tests below have nothing to look at, and so pass.
    assert PAGES and NOTEBOOKS, "there is no smoke build: python -m gsae_book.build.book --profile smoke"
    assert {f"notebooks/{path.stem}.html" for path in NOTEBOOKS} <= set(PAGES)


def test_links_and_anchors_lead_somewhere(soups):
    # Breaks if a page, a file or a heading that is linked to is renamed.
    broken = []
    for name, soup in soups.items():
        for link in soup.find_all("a", href=True):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc or link["href"] == "#":
                continue
            target = (HTML / name).parent.joinpath(unquote(parts.path)).resolve() if parts.path else HTML / name
            page = target.relative_to(HTML).as_posix() if target.is_relative_to(HTML) else ""
            if not target.is_file():
                broken.append(f"{name}: {link['href']}")
            elif parts.fragment and page in soups and not soups[page].find(id=unquote(parts.fragment)):
                broken.append(f"{name}: {link['href']} (no such anchor)")
    assert not broken, "\n".join(broken)


def test_one_bundle_of_mathjax_is_there_and_the_pages_load_it(soups):
    # Breaks if the bundles that no page loads come back, or the one that all load is among those left out.
    assert [file.name for file in (HTML / "_static" / "mathjax").glob("*.js")] == [MATHJAX]
    loaded = {script["src"] for script in soups["notebooks/02_derive_the_group_relu.html"].find_all("script", src=True)}
    assert any(f"mathjax/{MATHJAX}" in source for source in loaded)


def test_links_to_terms_explain_them(soups):
    """Fails if the extension is not loaded, or a term has no explanation."""
    terms = [(name, term) for name, article in articles(soups) for term in article.select("a .std-term")]
    assert len(terms) > 20
    assert [(name, term) for name, term in terms if len(term.find_parent("a").get("title", "")) < 20] == []


def test_images_are_there_described_and_have_captions(soups):
    """Fails if a figure's cell has no `mystnb: {image: {alt: ...}, figure: {caption: ...}}`."""
    wrong = []
    for name, article in articles(soups):
        for image in article.find_all("img"):
            described = image.get("alt", "").strip() and (HTML / name).parent.joinpath(image["src"]).is_file()
            figure = image.find_parent("figure")
            captioned = figure and figure.select_one("figcaption .caption-text")
            if not described or (image.find_parent(class_="cell_output") and not captioned):
                wrong.append(f"{name}: {image.get('src')}, alt {image.get('alt')!r}")
    assert not wrong, "\n".join(wrong)


def test_notebook_pages_show_maths_and_no_raw_markup(soups):
    # Breaks if glue, a role or a formula reaches the reader as it was typed.
    for name, article in articles(soups):
        for code in article.select("pre, code"):
            code.decompose()
        text = article.get_text()
        assert "{glue:" not in text and "{eq}" not in text and "{cite" not in text, name
        if name.startswith("notebooks/"):
            assert article.select(".math"), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_executed_notebooks_store_outputs(path):
    # nbval compares stored outputs: breaks if there are none, for then it would pass on anything.
    cells = [c for c in json.loads(path.read_text(encoding="utf8"))["cells"] if c["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells if "".join(cell["source"]).strip())
    assert any(cell["outputs"] for cell in cells)
