"""A book of two notebooks and a package that builds in seconds, written into an empty folder."""

import json
import shutil
from pathlib import Path
from typing import Any

from built_site import ROOT

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
IMPORTS = """\
from typing import Annotated, Literal
from annotated_types import Ge, Gt, MinLen
from gsae_book import record"""
PARAMETERS = "n_groups: Annotated[int, Ge(1)] = 10\nrate: float = 0.5\nseed: int = 0"
CODE = "record('size', n_groups + 0.5, 0.25)\nrecord('verdict_a', 'reproduced')\nn_groups"


def notebook(parameters: str = PARAMETERS, code: str = CODE, stem: str = "notebook") -> dict[str, Any]:
    """A notebook as JSON has it: a title, light imports, a cell of parameters, and one of code."""
    sources = {
        "title": f"# Read {stem}\n\nThe size is {{glue:text}}`size`.",
        "imports": IMPORTS,
        "parameters": parameters,
        "code": code,
    }
    cells = [cell(source, name, "markdown" if name == "title" else "code") for name, source in sources.items()]
    cells[2]["metadata"]["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def cell(source: str, name: str = "other", kind: str = "code") -> dict[str, Any]:
    """A cell of a notebook."""
    outputs = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "id": name, "metadata": {}, "source": source, **outputs}


def write_notebook(path: Path, code: str = CODE, parameters: str = PARAMETERS) -> None:
    """Write a notebook of a title, imports, parameters and one cell of ``code``."""
    path.write_text(json.dumps(notebook(parameters, code, path.stem), indent=1, ensure_ascii=False))


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
