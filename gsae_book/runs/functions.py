"""Functions as targets of a sweep: their typed parameters, their arguments from values, their results as rows."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gsae_book.runs.environment import versions
from gsae_book.runs.keys import find_package, hash_modules
from gsae_book.runs.parameters import REQUIRED, Parameter, ParameterError, shown

PLAIN = (int, float, bool, str, list, tuple, type(None))


def find_function(name: str, root: Path) -> Callable[..., Any]:
    """Return the function ``name`` ("module.function") of the project in ``root``, which is imported.

    Raises: ParameterError if the module is not one of the project's, or has no such function.
    """
    module, _, last = name.rpartition(".")
    refused = f"function = {shown(name)} is not allowed: it must be module.function of this project"
    if not module or not all(map(str.isidentifier, name.split("."))) or find_package(name.split(".")[0], root) is None:
        raise ParameterError(refused)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        function = getattr(importlib.import_module(module), last)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise ParameterError(f"{refused} ({type(error).__name__}: {shown(str(error))})") from None
    if not isinstance(function, FunctionType):
        raise ParameterError(f"{refused}, not a {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise ParameterError(f"{refused} that returns its result: it must not yield or be awaited")
    place = getattr(sys.modules.get(function.__module__), "__file__", None) or ""
    if not _is_of(function.__module__, place, root):
        raise ParameterError(f"{refused}; this one is from {place or function.__module__}")
    return function


def function_parts(name: str, root: Path) -> dict[str, Any]:
    """Return what decides the results of the function ``name`` besides values and files: its code, and versions."""
    return {"target": name, "versions": versions(), "modules": hash_modules([(tuple(name.split(".")), True)], root)}


def function_parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the parameters of ``function`` that a sweep may set, by name.

    A parameter that is a frozen dataclass stands for its fields; a dataclass among these for its own, with its name and
    a dot before theirs. What is not made of numbers, texts, lists and null stays at its default.

    Raises: ParameterError if a parameter without default cannot be set, if two have one name, or if types or defaults
    cannot be read.
    """
    declared: dict[str, Parameter] = {}
    try:
        expanded = [p for name, kind, default in _signature(function) for p in _expand(name, kind, default, top=True)]
    except ParameterError:
        raise
    except Exception as error:
        raise ParameterError(f"the parameters of {function.__qualname__} cannot be read: {told(error)}") from None
    for parameter in expanded:
        if parameter.name in declared:
            raise ParameterError(f"two parameters are called {parameter.name}")
        declared[parameter.name] = parameter
    return declared


def build_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of ``function`` for the checked ``values``, dataclasses built.

    Raises: what these raise.
    """
    arguments = {}
    for name, annotation, default in _signature(function):
        if _is_frozen(annotation):
            arguments[name] = _build(annotation, default, values, "")
        elif name in values:
            arguments[name] = values[name]
    return arguments


def to_rows(result: Any, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the ``result`` of a function, a dataclass, a mapping or a sequence of these, as rows that JSON can hold.

    Fields within fields have dotted names. Arrays become lists. A field that is one of the ``arguments``, a dataclass,
    is left out.

    Raises: TypeError for another result.
    """
    given = [value for value in arguments.values() if dataclasses.is_dataclass(value)]
    many = result if isinstance(result, Sequence) and not isinstance(result, str) else [result]
    return [dict(_flatten(one, "", given)) for one in many]


def to_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that stand for what is ``given``: a dataclass for its fields, as in `function_parameters`."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if dataclasses.is_dataclass(value):
            found = dict(_leaves(value, ""))
            if twice := sorted(found.keys() & values.keys()):
                raise ParameterError(f"{twice[0]} is given twice")
            values |= found
        else:
            values[name] = value
    return values


def to_plain(value: Any) -> Any:
    """Return a value that JSON can hold; what is neither number, text, list, array, mapping nor dataclass as a text."""
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        value = value.tolist()
    if (items := _items(value)) is not None:
        return {str(name): to_plain(item) for name, item in items.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else shown(value)


def _is_of(module: str, file: str, root: Path) -> bool:
    """Say whether a module, in ``file``, is one of the project's: a library may bear the name of one of its folders."""
    top = module.partition(".")[0]
    base = find_package(top, root)
    place, file = os.path.realpath((base or root) / top), os.path.realpath(file)
    return base is not None and (file == f"{place}.py" or file.startswith(place + os.sep))


def told(error: BaseException) -> str:
    """Return what a message tells of an ``error``: its text, and its type unless that is what refuses a value."""
    text = str(error)
    return text if text and isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {shown(text)}"


def _signature(function: Callable[..., Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, annotation and default of each parameter."""
    hints = _hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ParameterError(f"{name} cannot be set by its name, as a sweep does")
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield name, hints.get(name), REQUIRED if parameter.default is parameter.empty else parameter.default


def _hints(thing: Any) -> dict[str, Any]:
    try:
        return get_type_hints(thing, include_extras=True)
    except Exception as error:  # texts that are no types
        raise ParameterError(f"the types of {thing.__qualname__} cannot be read: {told(error)}") from None


def _is_frozen(annotation: Any) -> bool:
    return dataclasses.is_dataclass(annotation) and annotation.__dataclass_params__.frozen


def _fields(kind: Any, instance: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, annotation and default of each field that a dataclass takes; defaults are those of the instance."""
    hints = _hints(kind)
    for field in dataclasses.fields(kind):
        default = getattr(instance, field.name, REQUIRED) if instance is not REQUIRED else field.default
        if default is dataclasses.MISSING:
            default = REQUIRED if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.init:
            yield field.name, hints[field.name], default


def _expand(name: str, annotation: Any, default: Any, top: bool = False) -> Iterator[Parameter]:
    if _is_frozen(annotation):
        for field, inner, value in _fields(annotation, default):
            yield from _expand(field if top else f"{name}.{field}", inner, value)
    elif (plain := _plain(annotation)) is not None:
        yield Parameter(name, plain, default)
    elif default is REQUIRED:
        what = "what has no type" if annotation is None else f"what is {shown(annotation)}"
        raise ParameterError(f"{name} has no default, and a sweep cannot set {what}")


def _build(kind: Any, instance: Any, values: Mapping[str, Any], prefix: str) -> Any:
    given = {}
    for name, annotation, default in _fields(kind, instance):
        if _is_frozen(annotation):
            given[name] = _build(annotation, default, values, f"{prefix}{name}.")
        elif prefix + name in values:
            given[name] = values[prefix + name]
        elif default is not REQUIRED:
            given[name] = default
    return kind(**given)


def _plain(annotation: Any) -> Any:
    """Return ``annotation`` in the types of a notebook's parameters, or None if it is none of them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = _plain(arguments[0])
        return None if inner is None else Annotated[(inner, *arguments[1:])]
    if origin in (Union, UnionType):
        kept = [plain for plain in map(_plain, arguments) if plain is not None]
        return None if kept in ([], [type(None)]) else functools.reduce(operator.or_, kept)
    if origin is Literal or annotation in PLAIN:
        return annotation
    items = [item if item is Ellipsis else _plain(item) for item in arguments]
    if not items or None in items:
        return None
    if isinstance(origin, type) and issubclass(tuple, origin) and origin is not tuple:
        return tuple[items[0], ...]  # a Sequence, an Iterable
    return origin[tuple(items)] if origin in (list, tuple) else None


def _flatten(value: Any, prefix: str, given: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    items = _items(value)
    if items is None:
        raise TypeError(f"a sweep needs a dataclass, a mapping, or a sequence of these, not a {type(value).__name__}")
    for name, item in items.items():
        if any(type(item) is type(one) and item == one for one in given):
            continue
        if _items(item) is not None:
            yield from _flatten(item, f"{prefix}{name}.", given)
        else:
            yield f"{prefix}{name}", to_plain(item)


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the fields that a dataclass takes, those of dataclasses among them with dotted names."""
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            yield from _leaves(item, f"{prefix}{field.name}.")
        elif field.init:
            yield f"{prefix}{field.name}", item


def _items(value: Any) -> Mapping[Any, Any] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value if isinstance(value, Mapping) else None
