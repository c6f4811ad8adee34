"""The public surface: exports, a pure import, everything documented and annotated, shapes in types that hold."""

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

import gsae_lib

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(gsae_lib.__path__, "gsae_lib.")
    if not module.ispkg and not module.name.startswith(("gsae_book.", "gsae_lib._", "gsae_book.cli"))
)
SHAPED_TESTS = """
    groups activations generative dictionary autoencoder coding training metrics clustering theory_population
    theory_windows theory_gradient theory_certificate
""".split()

SHAPED = [name for name in MODULES if name != "gsae_lib.estimators"]  # beartype does not know Self on a lone method


def public_objects():
    """Functions and classes that a module defines, and the methods that its classes define."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, item in vars(module).items():
            if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(item) or inspect.isclass(item):
                yield f"{module_name}.{name}", item
            if inspect.isclass(item):
                for method_name, method in vars(item).items():
                    method = getattr(method, "__func__", method)
                    if not method_name.startswith("_") and inspect.isfunction(method):
                        yield f"{module_name}.{name}.{method_name}", method


PUBLIC = dict(public_objects())


def run_python(*arguments):
    """A fresh interpreter, with this one's view of packages."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_exports_are_what_the_package_imports():
    """Fails if a public name is imported and not exported, or exported and not there."""
    found = {name for name, item in vars(gsae_lib).items() if not inspect.ismodule(item) and not name.startswith("_")}
    assert found | {"__version__"} == set(gsae_lib.__all__)


def test_import_is_pure():
    """Fails if the library needs the book, an experiment, or a package that `pip install .` does not bring."""
    others = ["gsae_book", "experiments", "benchmarks", "click", "pydantic", "papermill", "matplotlib"]
    code = f"import sys; sys.modules |= dict.fromkeys({others}); import gsae_lib; print('imported')"
    result = run_python("-c", code)
    assert result.stdout.strip() == "imported", result.stderr


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name):
    """Fails without a docstring that starts with one line, or if neither it nor its class mentions a ValueError.

    It sees the form alone. What a docstring states, an equation above all, is tested where its function is.
    """
    item = PUBLIC[name]
    text = inspect.cleandoc(item.__doc__ or "")
    first, _, rest = text.partition("\n")
    assert first and first[-1] in ".:", f"{name}: {first!r}"
    assert not rest.strip() or rest.startswith("\n"), f"{name}: a blank line follows the first"
    if inspect.isfunction(item) and re.search(r"\braise ValueError|\bcheck_\w+\(", inspect.getsource(item)):
        texts = (text, inspect.getdoc(PUBLIC.get(name.rpartition(".")[0])) or "")
        has_section = any(re.search(r"^Raises:\n +ValueError: \S", text, flags=re.MULTILINE) for text in texts)
        assert has_section, f"{name}: raises ValueError without saying so"


SETTINGS = [item for name, item in PUBLIC.items() if name.endswith("Settings")]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda item: item.__name__)
def test_documented_choices_are_accepted(settings):
    """Fails if a value that the type of a setting lists is refused, or one that it does not list is taken."""
    for name, annotation in get_type_hints(settings).items():
        if get_origin(annotation) is Literal:
            for choice in get_args(annotation):
                assert getattr(settings(**{name: choice}), name) == choice
            with pytest.raises(ValueError, match=f"{name}='neither'"):
                settings(**{name: "neither"})


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if inspect.isfunction(item)])
def test_everything_public_is_annotated(name):
    """Fails if a parameter or a result has no type."""
    signature = inspect.signature(PUBLIC[name])
    untyped = {p.name for p in signature.parameters.values() if p.annotation is p.empty} - {"self", "cls"}
    assert not untyped and signature.return_annotation is not signature.empty


@pytest.mark.slow
def test_shapes_in_annotations_hold():
    """Fails if an array has another shape or dtype than its annotation says, anywhere that the tests reach.

    The tests run once more, in a process where jaxtyping's import hook lets beartype check every call in the library.
    Left out: tests that pass bad arguments on purpose (rejects), and those that repeat calls (property, digits).
    """
    here = Path(__file__).parent
    files = [str(here / f"test_{name}.py") for name in SHAPED_TESTS]
    hook = f"--jaxtyping-packages={','.join(SHAPED)},beartype.beartype"
    result = run_python(
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        hook,
        "-x",
        "-k",
        "not rejects and not property and not digits",
        *files,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


def test_the_shape_checker_is_awake():
    """Fails if the import hook checks nothing, so that the test above would pass whatever the annotations say."""
    code = """
import jaxtyping
jaxtyping.install_import_hook("gsae_lib.metrics", "beartype.beartype")
import torch
from gsae_lib.metrics import match_groups
try:
    match_groups(torch.eye(4)[:, :2], torch.eye(4), 1)
except jaxtyping.TypeCheckError as error:
    print("caught")
"""
    result = run_python("-c", code)
    assert result.stdout.strip() == "caught", result.stdout + result.stderr
