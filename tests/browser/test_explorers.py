"""What readers touch, in headless Chromium: numbers against the library, keyboard, and a training that plays."""

import re

import numpy as np
import pytest
import torch

from gsae_book.build import explorers
from gsae_lib import group_relu
from gsae_lib.activations import soft_threshold

pytestmark = pytest.mark.browser
NUMBER = r"-?\d+\.\d+"


@pytest.fixture
def show(new_page):
    """Shows explorers on a page of their own."""

    def showing(*found):
        page = new_page(width=375)
        content = "".join(explorer._repr_html_() for explorer in found)
        page.set_content(f"<!doctype html><html><body>{content}</body></html>")
        return page

    return showing


def move(slider, value):
    slider.evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", str(value))


def images_of(told):
    """The images of the group ReLU and of the soft threshold as the text tells them; None for one that is zero."""
    found = re.search(rf"Group ReLU: (zero|\(({NUMBER}), ({NUMBER})\)).*: (zero|\(({NUMBER}), ({NUMBER})\))", told)
    pairs = (found[2], found[3]), (found[5], found[6])
    return [None if pair[0] is None else [float(value) for value in pair] for pair in pairs]


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.25])
def test_the_browser_shrinks_as_the_library_does(show, threshold):
    """Fails if the formulas of the script are not those of the library."""
    page = show(explorers.shrinkage(1.0))
    sliders = page.locator("input[type=range]")
    move(sliders.nth(2), threshold)
    for point in ([1.5, 0.5], [-2.0, 2.0], [0.3, -0.4], [0.0, 0.0], [-0.1, 2.95]):
        for k, value in enumerate(point):
            move(sliders.nth(k), value)
        x = torch.tensor(point, dtype=torch.float64)
        wanted = [group_relu(x, threshold, 2), soft_threshold(x, threshold)]
        for image, one in zip(images_of(page.locator("output").inner_text()), wanted, strict=True):
            assert (image is None) == (not one.any())
            if image is not None:
                np.testing.assert_allclose(image, one.numpy(), atol=0.0051)


def test_a_point_is_dragged_and_moved_by_keys(show):
    """Fails if the pointer or the keyboard cannot move the point, or a reader is not told where it is."""
    page = show(explorers.shrinkage(1.0))
    box = page.locator(".gsae-picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    dragged = page.locator("output").inner_text()
    page.mouse.up()
    assert "Point (1.50, 0.50)" not in dragged
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    told = page.locator("output").inner_text()
    assert told != dragged and page.locator(".gsae-picture").get_attribute("aria-label") == told
    assert page.locator("input[type=range]").first.get_attribute("aria-valuetext") in told


def test_curves_are_those_of_the_settings(show):
    """Fails if options are mixed up, or the line reads another curve or point."""
    x, values = [1.0, 2.0, 3.0], np.arange(18).reshape(3, 2, 3) / 20
    settings = {"noise": ["none", "5 dB", "1 dB"], "active groups": ["1", "2"]}
    labels = {"title": "t", "xlabel": "threshold", "ylabel": "share"}
    page = show(explorers.curves(x, {"a": values, "b": 1 - values}, settings, at=2.2, dots=["b"], **labels))
    assert page.locator("output").inner_text() == "At threshold 2.00: a 0.050, b 0.950."
    for k, index in enumerate((2, 1, 0)):
        move(page.locator("input[type=range]").nth(k), index)
    assert page.locator("output").inner_text() == f"At threshold 1.00: a {values[2, 1, 0]:.3f}, b 0.250."
    assert page.locator(".gsae-value").all_inner_texts() == ["1 dB", "2", "1.00"]


def test_pictures_play_to_the_end_and_stop(show):
    """Fails if play leaves out a picture, goes past the last, or cannot be stopped."""
    points = [np.array([[k, 1.0, 0], [2.0, k, 1]]) for k in range(4)]
    labels = {"title": "t", "name": "epoch", "kinds": ["near", "far"], "xlabel": "x", "ylabel": "y"}
    one = explorers.frames(points, list("0123"), [f"note {k}" for k in range(4)], pause=30, **labels)
    page = show(one, explorers.shrinkage(1.0))  # two on a page: each is drawn once
    assert page.locator(".gsae-picture").count() == 2
    button, told = page.locator(".gsae-play"), page.locator("output").first
    assert told.inner_text() == "note 0"
    button.click()
    page.wait_for_function("() => document.querySelector('output').textContent === 'note 3'")
    page.wait_for_function("() => document.querySelector('.gsae-play').textContent === 'Play'")
    assert page.locator(".gsae-explorer").first.locator("g .gsae-mark").count() == 2
    page.evaluate("""() => {
        window.notes = [];
        const told = document.querySelector("output");
        new MutationObserver(() => notes.push(told.textContent)).observe(told, { childList: true, subtree: true });
    }""")
    button.click()  # from the start again
    page.wait_for_function("() => notes.at(-1) === 'note 3'")
    assert page.evaluate("() => [...new Set(notes)]") == ["note 0", "note 1", "note 2", "note 3"]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 375


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"values\['a'\]: expected \(2, 3\), got \(3, 2\)"):
        labels = {"title": "t", "xlabel": "x", "ylabel": "y"}
        explorers.curves([1, 2, 3], {"a": np.zeros((3, 2))}, {"s": ["u", "v"]}, at=1, **labels)
    with pytest.raises(ValueError, match="as many pictures as names and notes, 1 and 2"):
        labels = {"title": "t", "name": "e", "kinds": ["k"], "xlabel": "x", "ylabel": "y"}
        explorers.frames([np.zeros((1, 3))], ["a"], ["b", "c"], **labels)
