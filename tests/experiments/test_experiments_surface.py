"""Everything public of the experiments and of the figures is documented and has types; choices are accepted."""

import inspect
import pkgutil

import pytest
from public_surface import check_annotated, check_choices, check_documented, public_objects, settings_of

import experiments

# Simulations need environments of their own.
MODULES = [module.name for module in pkgutil.iter_modules(experiments.__path__)]
NAMES = [name for name in MODULES if not name.startswith("simulate_")]
PUBLIC = public_objects([f"experiments.{name}" for name in NAMES] + ["gsae_book.build.figures"])


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name):
    """Fails without a docstring that starts with one line, or if neither it nor its class mentions a ValueError."""
    check_documented(name, PUBLIC)


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if inspect.isfunction(item)])
def test_everything_public_is_annotated(name):
    """Fails if a parameter or a result has no type."""
    check_annotated(PUBLIC[name])


@pytest.mark.parametrize(
    "settings", [s for s in settings_of(PUBLIC) if s.__name__ != "RaceSettings"], ids=lambda item: item.__name__
)
def test_documented_choices_are_accepted(settings):
    """Fails if a value that the type of a setting lists is refused, or one that it does not list is taken."""
    check_choices(settings)
