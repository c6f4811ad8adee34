"""Say so where the Python that makes .venv is not one that pyproject.toml allows (runs on any Python 3)."""

import re
import sys

text = open(sys.argv[1], encoding="utf8").read()
low = int(re.search(r'requires-python = ">=3\.(\d+)"', text).group(1))
if sys.version_info[:2] < (3, low):
    here = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"Python 3.{low} or later is needed, and {sys.executable} is {here}: "
        f"name another one, for example make PYTHON=python3.{low + 1}"
    )
