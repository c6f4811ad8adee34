"""What holds for everything public: docstrings with their errors, types, and choices that are accepted."""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest


def public_objects(modules: Iterable[str]) -> dict[str, Any]:
    """Functions and classes that modules define, and the methods that their classes define, by name."""
    found = {}
    for module_name in modules:
        module = importlib.import_module(module_name)
        for name, item in vars(module).items():
            if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(item) or inspect.isclass(item):
                found[f"{module_name}.{name}"] = item
            if inspect.isclass(item):
                for method_name, method in vars(item).items():
                    method = getattr(method, "__func__", method)
                    if not method_name.startswith("_") and inspect.isfunction(method):
                        found[f"{module_name}.{name}.{method_name}"] = method
    return found


def check_documented(name: str, public: dict[str, Any]) -> None:
    """A docstring starts with one line.

    It sees the form alone. What a docstring states, an equation above all, is tested where its function is.
    """
    item = public[name]
    text = inspect.cleandoc(item.__doc__ or "")
    first, _, rest = text.partition("\n")
    assert first and first[-1] in ".:", f"{name}: {first!r}"
    assert not rest.strip() or rest.startswith("\n"), f"{name}: a blank line follows the first"


def check_annotated(function: Any) -> None:
    """Every parameter and the result have a type."""
    signature = inspect.signature(function)
    untyped = {p.name for p in signature.parameters.values() if p.annotation is p.empty} - {"self", "cls"}
    assert not untyped and signature.return_annotation is not signature.empty


def settings_of(public: dict[str, Any]) -> list[type]:
    """The classes of settings."""
    return [item for name, item in public.items() if name.endswith("Settings")]


def check_choices(settings: type) -> None:
    """Each value that the type of a setting lists is accepted, and another one is refused."""
    for name, annotation in get_type_hints(settings).items():
        if get_origin(annotation) is Literal:
            for choice in get_args(annotation):
                assert getattr(settings(**{name: choice}), name) == choice
            with pytest.raises(ValueError, match=f"{name}='neither'"):
                settings(**{name: "neither"})
