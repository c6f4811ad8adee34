"""The book as one document, and its print."""

import copy
import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from built_site import HTML, ROOT

from gsae_book.build.book import Layout
from gsae_book.build.pdf import add_outline, assemble, beginnings, load, print_page

pytestmark = [pytest.mark.book, pytest.mark.browser]
LAYOUT = Layout(ROOT, "smoke")
WIDTHS = """
() => [...document.querySelectorAll('%s')].map(one => one.getBoundingClientRect().right)
"""


@pytest.fixture(scope="module")
def book():
    if not HTML.is_dir():
        pytest.fail("there is no smoke build: python -m gsae_book.build.book --profile smoke")
    return assemble(LAYOUT)


def few(book, *endings):
    """The book with only the pages whose names end so."""
    book = copy.copy(book)
    for article in book.select("article"):
        if not article["id"].endswith(endings):
            article.decompose()
    for entry in book.select(".gsae-contents li"):
        if not entry.decomposed and not entry.a["href"].endswith(endings):
            entry.decompose()
    for caption in book.select(".gsae-contents .caption"):
        if caption.find_next("li") is not caption.find_next_sibling("ul").li:
            caption.decompose()
    return book


def letters(text):
    """The letters of a text alone: a print has its own spaces, hyphens and ligatures."""
    return re.sub(r"\W", "", unicodedata.normalize("NFKC", text))


def test_every_page_is_in_it_and_every_link_leads_somewhere(book):
    """Fails if a page is missing, two places have one name, a link leads to none, or what cannot be printed is left."""
    names = [article["id"] for article in book.select("article")]
    built = json.loads(re.search(r'"docnames": (\[.*?\])', (HTML / "searchindex.js").read_text("utf8"))[1])
    assert sorted(names) == sorted(built)
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))["parts"]
    listed = [chapter["file"] for part in parts for chapter in part["chapters"]]
    assert [name for name in names if name in listed] == listed
    ids = [element["id"] for element in book.select("[id]")]
    assert len(ids) == len(set(ids))
    links = {link["href"][1:] for link in book.select("a[href]") if link["href"].startswith("#")}
    assert links <= set(ids) and set(names) <= links
    assert not [link for link in book.select("a[href]") if link["href"].startswith("file:")]
    assert not book.body.select("script, button, .gsae-explorer, details.hide")
    images = [Path(unquote(image["src"].removeprefix("file://"))) for image in book.select("img")]
    assert images and all(image.is_file() for image in images)


def test_it_is_printed_with_formulas_contents_and_outline(book, browser, tmp_path):
    """Fails if formulas stay as typed, contents or bookmarks name other pages, or a box has a shadow, a picture."""
    book = few(book, "02_derive_the_group_relu", "04_recover_supports")
    page = load(browser, tmp_path / "book.html", book)
    assert page.locator("mjx-container").count() > 20
    pdf = print_page(page)
    begin = beginnings(pdf)
    first, second = (begin[article["id"]] for article in book.select("article"))
    assert first == 1 < second < len(pdf.pages)
    told = page.locator(".gsae-contents a").evaluate_all("links => links.map(one => one.dataset.page)")
    assert told == [str(first + 1), str(second + 1)]
    assert "/Luminosity" not in {state.get("/S") for state in pdf._objects if isinstance(state, dict)}
    add_outline(pdf, book)
    outline = pdf.outline
    titles = [part.title for part in outline[::2]]
    assert titles == ["The model", "The theory, checked"]
    for chapter, sections in outline[1::2]:
        assert len(sections) > 5
        for mark in (chapter, *sections):
            text = pdf.pages[pdf.get_destination_page_number(mark)].extract_text()
            assert letters(mark.title) in letters(text), mark.title


def test_nothing_is_wider_than_the_paper(book, browser, tmp_path):
    """Fails if a table or formula that has to become smaller becomes larger, or not small enough."""
    wide = few(book, "book/status", "15_start_from_data", "book/theory")
    page = load(browser, tmp_path / "book.html", wide)
    edge = page.evaluate("() => document.body.getBoundingClientRect().right") + 1
    tables, formulas = (page.evaluate(WIDTHS % which) for which in ("table", "mjx-container[display=true] > mjx-math"))
    assert len(tables) > 4 and len(formulas) > 60
    assert max(tables + formulas) <= edge
