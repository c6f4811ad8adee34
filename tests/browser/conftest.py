"""The browser of all tests here."""

from collections.abc import Iterator

import pytest
from built_site import BROWSERS, browser_required, find_browser
from playwright import sync_api

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator["sync_api.Browser"]:
    """Headless Chromium; without one the tests are skipped, or fail where it is required."""
    path = find_browser()
    if path is None:
        message = f"none of {', '.join(BROWSERS)} is installed"
        (pytest.fail if browser_required() else pytest.skip)(message)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
