"""The browser of all tests here, and pages that are not to ask for anything."""

from collections.abc import Callable, Iterator

import pytest
from built_site import BROWSERS, browser_required, find_browser
from playwright import sync_api

FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"


@pytest.fixture(scope="session")
def browser() -> Iterator["sync_api.Browser"]:
    """Headless Chromium; without one the tests are skipped, or fail where it is required."""
    path = find_browser()
    if path is None:
        message = f"none of {', '.join(BROWSERS)} is installed"
        (pytest.fail if browser_required() else pytest.skip)(message)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS.split(), "--disable-sync"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser) -> Iterator[Callable[..., "sync_api.Page"]]:
    """Makes a page; the test fails at its end if it had an error, or asked for anything but addresses that begin so."""
    contexts, problems = [], []

    def opening(*allowed: str, width: int = 1280) -> "sync_api.Page":
        def only_allowed(route: "sync_api.Route") -> None:
            if route.request.url.startswith(("data:", "blob:", *allowed)):
                route.continue_()
            else:
                problems.append(f"asked {route.request.url}")
                route.abort()

        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        contexts[-1].route("**/*", only_allowed)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        return page

    yield opening
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)
