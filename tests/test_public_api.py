"""The public surface: names resolve lazily, everything is documented and annotated, and shapes in types are true."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gsae_lib

MODULES = (
    "groups",
    "activations",
    "generative",
    "dictionary",
    "autoencoder",
    "coding",
    "training",
    "metrics",
    "clustering",
    "ladder",
    "theory.population",
    "theory.windows",
    "theory.gradient",
    "theory.rates",
    "theory.floors",
    "theory.descent",
    "theory.certificate",
    "theory.measurements",
    "estimators",
    "selection",
)
EQUATIONS = """
    to_groups group_norms group_relu soft_threshold biased_relu group_hard_threshold coherent_dictionary
    GroupSparseSource normalize_columns orthonormalize_groups coherence block_coherence perturbed_dictionary k_subspaces
    GroupSparseAutoencoder group_lasso_objective duality_gap train History dictionary_error rotated_dictionary_error
    match_groups explained_variance normalized_group_norms orthonormality signal_bound crosstalk_bound
    support_recovery_windows cap_tail haar_window predicted_success convergence_window sample_gradient horizontal
    riemannian_step flow_correlation printed_correlation tangent_step contraction_rate riemannian_rates
    equilibrium_norm plain_rates hessian_spectrum largest_step noise_floor coherence_bias printed_rate error_budget
""".split()
SHAPED_TESTS = """
    groups activations generative dictionary autoencoder coding training metrics clustering theory_population
    theory_windows theory_gradient theory_certificate
""".split()


def public_objects():
    """Functions and classes that a module defines, and the methods that its classes define."""
    for module_name in MODULES:
        module = importlib.import_module(f"gsae_lib.{module_name}")
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


@pytest.mark.parametrize("name", gsae_lib.__all__)
def test_exported_names_resolve(name):
    """Fails if a name in __all__ is misspelt or has moved."""
    assert getattr(gsae_lib, name).__name__ == name


def test_unknown_names_raise_attribute_error():
    """Fails if the lazy lookup hides a typing mistake or breaks hasattr."""
    with pytest.raises(AttributeError, match="no_such_name"):
        gsae_lib.no_such_name  # noqa: B018
    assert not hasattr(gsae_lib, "_hidden")


def test_import_is_light():
    """Fails if importing the package, as every call of the command does, imports torch, scikit-learn or scipy."""
    code = "import sys, gsae_lib; print([m for m in ('torch', 'sklearn', 'scipy', 'numpy') if m in sys.modules])"
    result = run_python("-c", code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name):
    """Fails without a docstring of its own that starts with one line, or if a ValueError it raises is not mentioned."""
    item = PUBLIC[name]
    text = inspect.cleandoc(item.__doc__ or "")
    first, _, rest = text.partition("\n")
    assert first and first[-1] in ".:", f"{name}: {first!r}"
    assert not rest.strip() or rest.startswith("\n"), f"{name}: a blank line follows the first"
    if inspect.isfunction(item) and re.search(r"\braise ValueError|\bcheck_\w+\(", inspect.getsource(item)):
        has_section = re.search(r"^Raises:\n +ValueError: \S", text, flags=re.MULTILINE)
        assert has_section, f"{name}: raises ValueError without saying so"


@pytest.mark.parametrize("name", EQUATIONS)
def test_mathematical_kernels_state_their_equation(name):
    """Fails if the docstring of a kernel has no formula: a math block, or norms, powers, sums or maps in the text."""
    (item,) = (item for path, item in PUBLIC.items() if path.split(".")[-1] == name)
    assert re.search(r"\.\. math::|\|\||\^T|\^2|\(\.\.\., |\|\)?_\+|\)_\+", item.__doc__)


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if inspect.isfunction(item)])
def test_everything_public_is_annotated(name):
    """Fails if a parameter or a result has no type."""
    signature = inspect.signature(PUBLIC[name])
    untyped = {p.name for p in signature.parameters.values() if p.annotation is p.empty} - {"self", "cls"}
    assert not untyped and signature.return_annotation is not signature.empty


def test_shapes_in_annotations_hold():
    """Fails if an array has another shape or dtype than its annotation says, anywhere that the tests reach.

    The tests run once more, in a process where jaxtyping's import hook lets beartype check every call in the library.
    Left out: tests that pass bad arguments on purpose (rejects), and those that repeat calls (property, digits).
    """
    here = Path(__file__).parent
    files = [str(here / f"test_{name}.py") for name in SHAPED_TESTS]
    hook = "--jaxtyping-packages=gsae_lib,beartype.beartype"
    result = run_python("-m", "pytest", hook, "-x", "-k", "not rejects and not property and not digits", *files)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


def test_the_shape_checker_is_awake():
    """Fails if the import hook checks nothing, so that the test above would pass whatever the annotations say."""
    code = """
import jaxtyping
jaxtyping.install_import_hook("gsae_lib", "beartype.beartype")
import torch
from gsae_lib.metrics import match_groups
try:
    match_groups(torch.eye(4)[:, :2], torch.eye(4), 1)
except jaxtyping.TypeCheckError as error:
    print("caught")
"""
    result = run_python("-c", code)
    assert result.stdout.strip() == "caught", result.stdout + result.stderr
