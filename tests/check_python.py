"""Say so where the Python that makes .venv is not one that pyproject.toml allows (runs on any Python 3)."""

import re
import sys

text = open(sys.argv[1], encoding="utf8").read()
low, high = map(int, re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text).groups())
if not (3, low) <= sys.version_info[:2] < (3, high):
    here = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"Python 3.{low} to 3.{high - 1} is needed, and {sys.executable} is {here}: "
        f"name another one, for example make PYTHON=python3.{high - 1}"
    )
