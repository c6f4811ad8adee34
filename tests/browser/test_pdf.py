"""The book as one document, and its print."""

from pathlib import Path
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from built_site import HTML, ROOT

from gsae_book.build.book import Layout
from gsae_book.build.pdf import (
    assemble,
    beginnings,
    load,
    page_names,
    print_page,
    read_chapters,
    sheets,
    slug,
    with_outline,
)

pytestmark = [pytest.mark.book, pytest.mark.browser]
LAYOUT = Layout(ROOT, "smoke")


@pytest.fixture(scope="module")
def chapters():
    if not HTML.is_dir():
        pytest.fail("there is no smoke build: python -m gsae_book.build.book --profile smoke")
    return list(read_chapters(LAYOUT))


def test_every_page_is_in_it_and_every_link_leads_somewhere(chapters):
    """Fails if two places have one name, a link leads to none, or what cannot be printed is left in."""
    assert [chapter.name for chapter in chapters] == [name for name, _ in page_names(ROOT / "_toc.yml")]
    soup = BeautifulSoup(assemble(LAYOUT, chapters), "html.parser")
    ids = [element["id"] for element in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = {link["href"][1:] for link in soup.find_all("a", href=True) if link["href"].startswith("#")}
    assert links <= set(ids) and {slug(chapter.name) for chapter in chapters if not chapter.within} <= links
    assert not soup.body.select("script, button, .gsae-explorer, details.hide")
    images = [Path(unquote(image["src"].removeprefix("file://"))) for image in soup.find_all("img")]
    assert images and all(image.is_file() for image in images)


def test_it_is_printed_with_formulas_contents_and_places(chapters, browser, tmp_path):
    """Fails if formulas stay as typed, the contents name other pages, or a box has a shadow, a picture of its own."""
    few = chapters[1:3]
    page = load(browser, tmp_path / "book.html", assemble(LAYOUT, few))
    assert page.locator("mjx-container").count() > 20
    content = print_page(page)
    assert b"/Luminosity" not in content
    begin = beginnings(content)
    first, second = (begin[slug(chapter.name)] for chapter in few)
    assert first == 2 < second <= len(sheets(content))
    told = page.locator("[data-page-of]").all_text_contents()
    assert told == [str(first), str(second)]
    marked = with_outline(content, {slug(chapter.name): chapter.title for chapter in few})
    assert marked.startswith(content.rstrip()) and sheets(marked) == sheets(content)
    assert marked.count(b"/Title <feff") == 2 and b"/Outlines" in marked


def test_nothing_is_wider_than_the_paper(chapters, browser, tmp_path):
    """Fails if a table or formula that has to become smaller becomes larger, or not small enough."""
    wide = [chapter for chapter in chapters if chapter.name.endswith(("status", "15_start_from_data"))]
    page = load(browser, tmp_path / "book.html", assemble(LAYOUT, wide))
    widths = page.evaluate(
        "() => [...document.querySelectorAll('table')].map(one => one.getBoundingClientRect().right)"
    )
    assert len(wide) == 2 and len(widths) > 4
    assert max(widths) <= page.evaluate("() => document.body.getBoundingClientRect().right") + 1
