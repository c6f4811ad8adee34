"""The report of a clustering, opened from a file as a user opens it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from playwright import sync_api

from gsae_book.app.cli import main

pytestmark = pytest.mark.browser
WIDE = [f"a long name of the column with the number {k}" for k in range(30)]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of a table of thirty columns with long names."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    kinds = np.arange(120) % 3
    values = 5 * rng.standard_normal((3, 30))[kinds] + rng.standard_normal((120, 30))
    frame = pd.DataFrame(values, columns=WIDE).assign(kind=kinds)
    frame.to_csv(folder / "my.csv", index=False)
    result = CliRunner().invoke(main, ["cluster", str(folder / "my.csv"), "--label", "kind", "-o", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder / "out" / "report.html"


@pytest.fixture
def opened(new_page, report) -> "sync_api.Page":
    """The page, which may ask for nothing but itself."""
    page = new_page(report.as_uri())
    page.goto(report.as_uri(), wait_until="load")
    return page


def test_it_shows_its_pictures(opened):
    """Fails if a picture is broken, or wider than the page."""
    images = opened.evaluate("() => [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert len(images) >= 3 and all(done and natural > 0 and shown <= 1280 for done, natural, shown in images)


def test_it_fits_the_screen(opened):
    """Fails if a table, a picture or a line makes the whole page scroll sideways."""
    for width in (360, 768, 1280):
        opened.set_viewport_size({"width": width, "height": 800})
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= width


def test_it_follows_dark_mode(opened):
    """Fails if a page in dark mode is a white page, or dark on dark."""
    colours = {}
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        colours[scheme] = opened.evaluate(
            """() => { const probe = document.createElement('p'); probe.style.background = 'Canvas';
            document.body.append(probe); const style = getComputedStyle(probe);
            return [style.color, style.backgroundColor] }"""
        )
    assert colours["light"] != colours["dark"]
    assert all(front != back for front, back in colours.values())
