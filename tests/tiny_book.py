"""A book of two notebooks and a package that builds in seconds, written into an empty folder."""

import shutil
from pathlib import Path

import nbformat
from built_site import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TOC = """\
format: jb-book
root: book/intro
chapters:
  - file: notebooks/01_first
  - file: notebooks/02_second
  - file: book/verdict
  - file: book/status
"""
PAGES = {
    "intro.md": "# Tiny\n\nSee {doc}`../notebooks/01_first`.\n",
    "verdict.md": "# Verdict\n\n```{include} _generated/verdict.md\n```\n",
    "status.md": "# Status\n\n```{include} _generated/status.md\n```\n",
    "references.bib": "",
    "claims.yaml": """\
- {id: a, claim: It holds, where: Table 1, paper: 1, notebook: 01_first, metrics: {size: size}, verdict: verdict_a}
- {id: b, claim: It may hold, where: Table 2}
""",
}
# Each notebook imports from its own module, by way of the package.
MODULES = {
    "__init__.py": "from tiny.colour import mix\nfrom tiny.shape import area\n",
    "colour.py": "def mix(a, b):\n    return (a + b) / 2\n",
    "shape.py": 'def area(side):\n    """Return the area of a square."""\n    return side * side\n',
}
PARAMETERS = "n_groups: Annotated[int, Ge(1)] = 10\nrate: float = 0.5\nseed: int = 0"
CODE = "record('size', n_groups + 0.5, 0.25)\nrecord('verdict_a', 'reproduced')\nn_groups"


def write_notebook(path: Path, code: str = CODE, parameters: str = PARAMETERS) -> None:
    """Write a notebook with a parameters cell and one cell of ``code``, whose imports are light."""
    cells = [
        new_markdown_cell(f"# Read {path.stem}\n\nThe size is {{glue:text}}`size`.", id="title"),
        new_code_cell(
            "from typing import Annotated\nfrom annotated_types import Ge\nfrom gsae_book import record",
            id="imports",
        ),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(code, id="code"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def write_book(root: Path) -> Path:
    """Write the whole tiny book under ``root``, with the settings of the real one, and return ``root``."""
    (root / "notebooks" / "profiles" / "smoke").mkdir(parents=True)
    (root / "book").mkdir()
    shutil.copy(ROOT / "_config.yml", root)
    (root / "_toc.yml").write_text(TOC)
    for name, text in PAGES.items():
        (root / "book" / name).write_text(text)
    (root / "tiny").mkdir()
    for name, text in MODULES.items():
        (root / "tiny" / name).write_text(text)
    for stem, line in {"01_first": "from tiny import area", "02_second": "from tiny import mix"}.items():
        write_notebook(root / "notebooks" / f"{stem}.ipynb", f"{line}\n{CODE}")
        (root / "notebooks" / "profiles" / "smoke" / f"{stem}.yaml").write_text("n_groups: 3\n")
    return root
