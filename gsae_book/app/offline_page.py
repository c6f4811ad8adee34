"""One HTML file that works alone: its style, its pictures, and a text that is filled in."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #8886; white-space: nowrap; }
th, caption, td.text { text-align: left; }
thead th + th { text-align: right; }
thead th.text { text-align: left; }
td.text { white-space: normal; min-width: 16rem; }
caption { padding-top: 0.7rem; font-style: italic; white-space: nowrap; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: white; }
pre { padding: 0.7rem; overflow-x: auto; overflow-wrap: normal; border: 1px solid #8886; }
.caution { border-left: 0.3rem solid #d55e00; padding-left: 0.7rem; }
</style>
</head>
<body>
<main>
"""
END = """</main>
</body>
</html>
"""


def render_page(body: str, title: str, **values: Any) -> str:
    """The page whose body is the jinja template ``body``, filled with ``values``; texts in them are escaped."""
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(PAGE + body + END).render(title=title, **values)


def image_source(image: Path | Figure) -> str:
    """An image as the address of itself: of an SVG file, or of a figure, which is drawn as SVG and closed."""
    if isinstance(image, Path):
        content = image.read_bytes()
    else:
        import matplotlib.pyplot as plt

        drawn = io.BytesIO()
        image.savefig(drawn, format="svg", metadata={"Date": None})
        plt.close(image)
        content = drawn.getvalue()
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
