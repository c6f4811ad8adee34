"""Everything public of the experiments and of the figures is documented and has types; settings refuse what cannot be."""

import inspect
import pkgutil

import pytest
from public_surface import check_annotated, check_choices, check_documented, public_objects, settings_of

import experiments

# Simulations and conversions need environments of their own.
LEFT_OUT = ("simulate", "simulate_jets", "simulate_galaxies", "convert", "embed_states")
MODULES = [module.name for module in pkgutil.walk_packages(experiments.__path__, "experiments.")]
NAMES = [name for name in MODULES if name.rpartition(".")[2] not in LEFT_OUT]
PUBLIC = public_objects([*NAMES, "gsae_book.build.figures"])
SETTINGS = {item.__name__: item for item in settings_of(PUBLIC)}


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name):
    """Fails without a docstring that starts with one line, or if neither it nor its class mentions a ValueError."""
    check_documented(name, PUBLIC)


@pytest.mark.parametrize("name", [name for name, item in PUBLIC.items() if inspect.isfunction(item)])
def test_everything_public_is_annotated(name):
    """Fails if a parameter or a result has no type."""
    check_annotated(PUBLIC[name])


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "RaceSettings"])
def test_documented_choices_are_accepted(name):
    """Fails if a value that the type of a setting lists is refused, or one that it does not list is taken."""
    check_choices(SETTINGS[name])
