"""Everything public of the experiments and of the figures has documentation and types; settings refuse bad values."""

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


IMPOSSIBLE = [
    ("AblationSettings", "active_share", 1.5),
    ("AblationSettings", "n_components", 0),
    ("DescentSettings", "n_active", 41),
    ("DescentSettings", "batch_size", 0),
    ("DescentSettings", "rate", 0.0),
    ("DescentSettings", "penalty", -1.0),
    ("RecoverySettings", "measure_every", 301),
    ("RecoverySettings", "penalty", 0.0),
    ("StackSettings", "n_groups", 13),
    ("StackSettings", "n_features", 20),
    ("StackSettings", "joint_share", 0.0),
    ("StartSettings", "frequency_ratio", 0.5),
    ("SumSettings", "n_present", 0),
    ("SumSettings", "n_labelled", 0),
    ("SuperpositionSettings", "decay", -1.0),
    ("SuperpositionSettings", "n_active", 201),
    ("SuperpositionSettings", "n_test", 0),
    ("UnrollingSettings", "penalty", 0.0),
    ("UnrollingSettings", "epochs", 0),
    ("UnrollingSettings", "start_angle", 90.0),
    ("ViolationSettings", "n_active", 31),
    ("ViolationSettings", "strength", -0.1),
    ("ViolationSettings", "strength", 1.1, {"violation": "overlap"}),
    ("ViolationSettings", "strength", -3.0, {"violation": "wrong count"}),
]


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=str)
def test_settings_reject(case):
    """Fails if a setting that cannot work is found out in the middle of a run, or not named with its value."""
    settings, name, value, *others = case
    with pytest.raises(ValueError, match=f"^{name}={value}: "):
        SETTINGS[settings](**{name: value}, **(others[0] if others else {}))
