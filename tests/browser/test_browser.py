"""Every page of the smoke build in headless Chromium, served from a loopback address."""

import io
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from built_site import HTML, page_names
from PIL import Image
from playwright import sync_api

pytestmark = pytest.mark.browser
PAGES = page_names()
# True on a page of the book whose formulas are all typeset; index.html is none, and leads to the first.
TYPESET = """() => document.querySelector('main') &&
    [...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container'))"""
BROKEN_IMAGES = """() => [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of the build on this machine."""
    assert PAGES, "there is no smoke build: python -m gsae_book.build.book --profile smoke"
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(new_page, address) -> "sync_api.Page":
    """A page that may ask for what is of the build."""
    return new_page(f"{address}/")


def open_page(page: "sync_api.Page", url: str) -> None:
    """Open ``url`` and wait until its formulas are typeset."""
    page.goto(url, wait_until="load")
    page.wait_for_function(TYPESET)


def violations(page: "sync_api.Page", **options: object) -> list[str]:
    """Every place of the page, as it is, that breaks a rule of axe-core; none is exempt."""
    told = {"resultTypes": ["violations"], "preload": False} | options
    found = Axe().run(page, options=told).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def first(prefix: str) -> str:
    """The first page under ``prefix``."""
    return next(name for name in PAGES if name.startswith(prefix))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_errors_is_accessible_and_fits_a_phone(page, address, name):
    # Breaks on a script that throws, a request that leaves this machine, a formula with an unknown macro.
    open_page(page, f"{address}/{name}")
    assert page.locator("mjx-merror").count() == 0
    page.evaluate("() => [...document.images].forEach(image => image.loading = 'eager')")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    assert page.evaluate(BROKEN_IMAGES) == []
    # Breaks on a table's header, a button or a picture without a name, on text of little contrast in light or dark.
    page.add_style_tag(content="* { transition: none !important; }")
    page.evaluate("() => document.documentElement.dataset.theme = 'light'")
    assert violations(page) == []
    page.evaluate("() => document.documentElement.dataset.theme = 'dark'")
    assert violations(page, runOnly=["color-contrast"]) == []
    # Breaks on a wide table, figure or equation that does not scroll by itself.
    page.set_viewport_size({"width": 375, "height": 800})
    if name.startswith(("book/", "notebooks/")):
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 375


def test_a_page_with_a_nameless_button_is_not_accessible(page, address):
    """Fails if the rules are not read: the pages above would pass whatever they hold."""
    open_page(page, f"{address}/{first('book/')}")
    page.evaluate("() => document.querySelector('article').append(document.createElement('button'))")
    assert [one.split(":")[0] for one in violations(page)] == ["button-name"]


def test_search_finds_proximal(page, address):
    # Breaks if the search index is not built, or its script does not run.
    page.goto(f"{address}/search.html?q=proximal")
    page.wait_for_selector("#search-results ul.search li a")
    links = page.eval_on_selector_all("#search-results ul.search li a", "links => links.map(a => a.href)")
    assert any(urlsplit(link).path.startswith(("/book/", "/notebooks/")) for link in links)


def test_dark_mode_follows_the_system_and_toggles(page, address):
    # Breaks if the theme's script fails, or the default mode is fixed.
    page.emulate_media(color_scheme="dark")
    open_page(page, f"{address}/{first('book/')}")
    theme = "() => document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    seen = set()
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.evaluate(theme))
    assert seen == {"dark", "light"}


def test_a_figure_has_the_ground_of_a_dark_page(page, address):
    """Fails if a figure of lines is a white square on a dark page, or a map loses its colours there."""
    page.emulate_media(color_scheme="dark")
    open_page(page, f"{address}/notebooks/06_measure_convergence.html")
    image = page.locator(".cell:not(.tag_map) .cell_output img").first
    image.scroll_into_view_if_needed()
    shot = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    expected = tuple(int(part) for part in re.findall(r"\d+", ground)[:3])
    corner = shot.getpixel((3, 3))
    assert max(abs(a - b) for a, b in zip(corner, expected, strict=True)) <= 12 and max(corner) < 60
    open_page(page, f"{address}/notebooks/08_learn_digits.html")
    style = page.locator(".tag_map .cell_output img").first.evaluate("one => getComputedStyle(one).filter")
    assert style == "none"


def test_a_hidden_solution_opens(page, address):
    # Breaks if the script that toggles is not loaded: solutions would stay hidden, or never be.
    open_page(page, f"{address}/{first('notebooks/')}")
    solution = page.locator(".solution.dropdown, .solution.toggle").first
    content = solution.locator("section, .toggle-details__container, p:not(.admonition-title)").first
    assert not content.is_visible()
    solution.locator(".admonition-title, summary").first.click()
    content.wait_for(state="visible")
