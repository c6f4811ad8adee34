"""The book as one document, and its print."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from built_site import HTML, ROOT

from gsae_book.book import Layout
from gsae_book.pdf import _count, _load, _print, assemble, page_names, read_chapters, slug

pytestmark = [pytest.mark.book, pytest.mark.browser]
LAYOUT = Layout(ROOT, "smoke")


@pytest.fixture(scope="module")
def chapters():
    if not HTML.is_dir():
        pytest.fail("there is no smoke build: python -m gsae_book.book --profile smoke")
    return list(read_chapters(LAYOUT))


def test_every_page_is_in_it_and_every_link_leads_somewhere(chapters):
    """Fails if two places have one name, a link leads to none, or what cannot be printed is left in."""
    assert [chapter.name for chapter in chapters] == [name for name, _ in page_names(ROOT / "_toc.yml")]
    soup = BeautifulSoup(assemble(LAYOUT, chapters, range(1, len(chapters) + 1)), "html.parser")
    ids = [element["id"] for element in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = {link["href"][1:] for link in soup.find_all("a", href=True) if link["href"].startswith("#")}
    assert links <= set(ids) and {slug(chapter.name) for chapter in chapters} <= links
    assert not soup.body.select("script, button, .gsae-explorer, details.hide")
    images = [Path(image["src"].removeprefix("file://")) for image in soup.find_all("img")]
    assert images and all(image.is_file() for image in images)


def test_it_is_printed_with_its_formulas(chapters, browser, tmp_path):
    """Fails if formulas stay as they were typed, or a part alone has as many pages as all."""
    few = chapters[1:3]
    page = _load(browser, tmp_path / "book.html", assemble(LAYOUT, few, [2, 5]))
    assert page.locator("mjx-container").count() > 20
    whole, alone = _print(page), _print(page, shown=slug(few[0].name))
    assert 1 < _count(alone) < _count(whole)
    assert whole.startswith(b"%PDF") and b"/Outlines" in whole
