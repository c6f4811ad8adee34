"""Call whatever takes tensors while beartype checks arguments and results against their annotations.

Run as a program: the hook has to come before the first import of the library. `device_cases` knows of every function
that takes tensors, and its own test says so.
"""

import importlib
import sys

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float

if __name__ == "__main__":
    jaxtyping.install_import_hook(sys.argv[1:], "shapes.check")
    for case in importlib.import_module("device_cases").CASES.values():
        case(lambda x: x)
