"""The smoke build that the page tests look at, and the browser that opens it.

Run as a script, it says where the browser tests could not run: the last line of ``make test``.
"""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "_build" / "smoke"
HTML = SMOKE / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of a Chromium on PATH, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def browser_required() -> bool:
    """Say whether the browser tests may not be missing, as in CI."""
    return os.environ.get("GSAE_REQUIRE_BROWSER") == "1"


def page_names() -> list[str]:
    """Return the pages of the build, as paths under HTML; none before it is built."""
    pages = (page.relative_to(HTML) for page in HTML.rglob("*.html"))
    return sorted(page.as_posix() for page in pages if page.parts[0] not in ("_static", "_sources"))


if __name__ == "__main__":
    if find_browser() is None:
        print(f"The browser tests were NOT run: none of {', '.join(BROWSERS)} is installed.")
