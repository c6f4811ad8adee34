"""The public surface: exports, a pure import, everything documented and annotated, shapes in types that hold."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from public_surface import check_annotated, check_choices, check_documented, public_objects, settings_of

import gsae_lib

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(gsae_lib.__path__, "gsae_lib.")
    if not module.ispkg and "._" not in module.name
)
SHAPED = [name for name in MODULES if not name.startswith("gsae_lib.estimators.")]  # beartype does not know Self there


PUBLIC = public_objects(MODULES)


def run_python(*arguments):
    """A fresh interpreter, with this one's view of packages."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_exports_are_what_type_checkers_see():
    """Fails if a public name is not there, or is another for who runs the code than for who reads it."""
    source = Path(gsae_lib.__file__).read_text(encoding="utf8")
    block = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    seen = {alias.name: line.module for line in block.body for alias in line.names}
    assert {*seen, "__version__"} == set(gsae_lib.__all__)
    assert all(getattr(gsae_lib, name) is getattr(importlib.import_module(room), name) for name, room in seen.items())


@pytest.mark.parametrize("name", gsae_lib._renamed.NAMES)
def test_an_old_name_is_refused_with_the_new_one(name):
    """Fails if a name of version 0.3 is gone without a word, or the word is wrong."""
    with pytest.raises(AttributeError, match=re.escape(f"gsae_lib.{name}: since version 0.4 it is ")):
        getattr(gsae_lib, name)


@pytest.mark.parametrize("module", gsae_lib._renamed.MODULES)
def test_an_old_module_is_refused_with_the_new_one(module):
    """Fails if a module of version 0.3 is gone without a word, or its room does not exist."""
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"gsae_lib.{module}: since version 0.4 it is ")):
        importlib.import_module(f"gsae_lib.{module}")
    importlib.import_module(gsae_lib._renamed.MODULES[module])


def test_import_is_pure():
    """Fails if the library needs the book, an experiment, or a package that `pip install .` does not bring."""
    others = ["gsae_book", "experiments", "benchmarks", "click", "pydantic", "papermill", "matplotlib"]
    code = f"import sys; sys.modules |= dict.fromkeys({others}); import {', '.join(MODULES)}; print('imported')"
    result = run_python("-c", code)
    assert result.stdout.strip() == "imported", result.stderr


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name):
    """Fails without a docstring that starts with one line, or if neither it nor its class mentions a ValueError."""
    check_documented(name, PUBLIC)


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if inspect.isfunction(item)])
def test_everything_public_is_annotated(name):
    """Fails if a parameter or a result has no type."""
    check_annotated(PUBLIC[name])


@pytest.mark.parametrize("settings", settings_of(PUBLIC), ids=lambda item: item.__name__)
def test_documented_choices_are_accepted(settings):
    """Fails if a value that the type of a setting lists is refused, or one that it does not list is taken."""
    check_choices(settings)


def test_shapes_in_annotations_hold():
    """Fails if an array has another shape or dtype than its annotation says, in whatever takes tensors."""
    result = run_python(str(Path(__file__).parents[1] / "shapes.py"), *SHAPED)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_shape_checker_is_awake():
    """Fails if the import hook checks nothing, so that the test above would pass whatever the annotations say."""
    code = """
import jaxtyping
jaxtyping.install_import_hook("gsae_lib.metrics", "shapes.check")
import torch
from gsae_lib.metrics import match_groups
try:
    match_groups(torch.eye(4)[:, :2], torch.eye(4), 1)
except jaxtyping.TypeCheckError as error:
    print("caught")
"""
    result = run_python("-c", code)
    assert result.stdout.strip() == "caught", result.stdout + result.stderr


def test_the_librarys_tests_need_the_library_alone():
    """Fails if a test of the library reaches it through the book or an experiment."""
    texts = {path.name: path.read_text(encoding="utf8") for path in Path(__file__).parent.glob("test_*.py")}
    rooms = re.compile(r"^(from|import) (gsae_book|experiments|benchmarks)\b", flags=re.MULTILINE)
    assert len(texts) > 20 and [name for name, text in texts.items() if rooms.search(text)] == []
