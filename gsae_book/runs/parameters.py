"""Typed parameter cells: read without executing the notebook, checked before a kernel starts.

A notebook declares its parameters in the one cell tagged ``parameters``, one annotated assignment a line::

    n_groups: Annotated[int, Ge(1)] = 10
    feature: Literal["pixels", "scattering"] = "scattering"
    n_clusters: Literal["auto"] | Annotated[int, Ge(2)] = "auto"

The cell is parsed with ``ast``; annotations are built from a short list of names and never evaluated as code. A value
on the command line and the same value in a YAML file are one text, read in one way: `from_text`.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at

TYPES = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple}
CONSTRAINTS = {
    "Ge": at.Ge,
    "Gt": at.Gt,
    "Le": at.Le,
    "Lt": at.Lt,
    "Interval": at.Interval,
    "MinLen": at.MinLen,
    "MaxLen": at.MaxLen,
    "MultipleOf": at.MultipleOf,
}
MAX_BYTES = 200_000  # of a YAML file
MAX_SHOWN = 100  # characters of a value in a message
RENAMED = {
    "restarts": "n_init",
    "max_iterations": "n_iterations",
    "thresholds": "penalties",
    "line_thresholds": "line_penalties",
    "plane_thresholds": "plane_penalties",
    "training_features": "n_training_features",
    "map_samples": "n_map_samples",
    "circle_points": "n_circle_points",
    "steps": "n_steps",
    "drift_steps": "n_drift_steps",
    "sweeps": "max_iter",
    "repeats": "n_repeats",
}
_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", list: "a list", tuple: "a tuple"}
_NOUNS |= {type(None): "null"}
REQUIRED = object()  # the default of a parameter that has none: a function's, not a notebook's


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its name, its type with constraints, its default, or REQUIRED, and what it means.

    meaning: the comment behind it, or the lines of comments above it.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str = ""


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of the notebook at ``path``, sources joined into one text.

    Raises: ParameterError if the file is missing or is not a notebook.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf8"))
        cells = content["cells"]
        if content["nbformat"] != 4 or not isinstance(content["metadata"], dict):
            raise ValueError("its format must be 4, and it must have metadata")
        needed = {"cell_type": str, "source": _join, "metadata": _with_tags}
        return [cell | {name: read(cell[name]) for name, read in needed.items()} for cell in cells]
    except FileNotFoundError:
        raise ParameterError(f"there is no notebook at {path}") from None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ParameterError(f"{path} is not a notebook: {shown(str(error))}") from error


def _join(source: Any) -> str:
    """Return a cell's source as one text, or ValueError if that cannot be written."""
    text = "".join(source)
    text.encode()
    return text


def _with_tags(metadata: Any) -> dict[str, Any]:
    """Return a cell's metadata, or ValueError if it has tags that are not texts."""
    metadata = dict(metadata)
    tags = metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"the tags of a cell must be a list of texts; they are {shown(tags)}")
    return metadata


def read_parameters(path: Path) -> dict[str, Parameter]:
    """Return the parameters that the notebook at ``path`` declares, by name; nothing is executed.

    Raises: ParameterError if there is not exactly one cell tagged ``parameters``, or a line of it is not a
    plain typed assignment whose default satisfies its own type.
    """
    tagged = [c for c in read_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1 or tagged[0]["cell_type"] != "code":
        raise ParameterError(f"{path} has {len(tagged)} cells tagged 'parameters'; exactly one code cell is needed")
    try:
        return parse_parameters(tagged[0]["source"])
    except ParameterError as error:
        raise ParameterError(f"{path}, parameters cell: {error}") from error


def parse_parameters(source: str) -> dict[str, Parameter]:
    """Return the parameters declared in the text of a parameters cell, by name.

    Raises: ParameterError naming every line that is not ``name: type = default`` with a literal default.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ParameterError(f"line {error.lineno}: {error.msg}: {shown((error.text or '').strip())}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte, or nested too deeply
        raise ParameterError(f"it is not Python: {error}") from None
    declared: dict[str, Parameter] = {}
    meanings = _meanings(source)
    problems = []
    previous_line = 0
    for statement in statements:
        line = statement.lineno
        try:
            if line == previous_line or line != statement.end_lineno:
                raise ParameterError("one parameter a line, and one line a parameter")
            parameter = replace(_parse_statement(statement), meaning=meanings.get(line, ""))
            if parameter.name in declared:
                raise ParameterError(f"{parameter.name} is declared twice")
            declared[parameter.name] = parameter
        except ParameterError as error:
            problems.append(f"line {line}: {error}: {shown(ast.unparse(statement))}")
        previous_line = statement.end_lineno or line
    if problems:
        raise ParameterError("; ".join(listed(problems).splitlines()))
    check_values(declared, {})
    return declared


def check_values(declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every declared parameter, ``given`` replacing defaults, all of them checked.

    Texts in ``given`` (from a command line or a YAML file) become the declared type where they spell one. Nothing else
    is converted, except that an integer will do for a float.

    Raises: ParameterError with one line for each unknown name and each value that is not allowed.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    problems = [_unknown(name, value, declared) for name, value in given.items() if name not in declared]
    values = {n: from_text(v, declared[n].annotation) for n, v in given.items() if n in declared}
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
    # Fields are numbered: a parameter may be called `schema` or `model_x`, names which pydantic keeps for itself.
    names = dict(zip((f"field_{i}" for i in range(len(declared))), declared, strict=True))
    defaults = {f: ... if declared[n].default is REQUIRED else declared[n].default for f, n in names.items()}
    fields: dict[str, Any] = {f: (declared[n].annotation, defaults[f]) for f, n in names.items()}
    try:
        model = create_model("Parameters", __config__=config, **fields)
        checked = model(**{f: values[n] for f, n in names.items() if n in values})
    except ValidationError as error:
        for name in dict.fromkeys(names[str(e["loc"][0])] for e in error.errors()):
            parameter = declared[name]
            value = given.get(name, parameter.default)
            told = f"{name} is needed" if value is REQUIRED else f"{name} = {shown(value)} is not allowed"
            size = ", of 64 bits" if values.get(name) is _BEYOND else ""
            problems.append(f"{told}: it must be {describe(parameter.annotation)}{size}")
    except Exception as error:  # constraints that are none, or of another type: whatever pydantic says to them
        if len(declared) > 1:
            for name, parameter in declared.items():
                check_values({name: parameter}, {name: given[name]} if name in given else {})
        reason = shown(str(error).splitlines()[-1].strip())
        raise ParameterError(f"{', '.join(declared)}: the type cannot be checked: {reason}") from None
    if problems:
        raise ParameterError(listed(problems))
    return {name: getattr(checked, field) for field, name in names.items()}


def read_values(path: Path) -> dict[str, Any]:
    """Return the mapping of parameter names to texts in the YAML file at ``path`` (empty for an empty file).

    Raises: ParameterError if the file is missing, is not YAML, or does not hold a mapping of names to values.
    """
    values = read_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must map parameter names to values, one a line; it holds {shown(values)}")
    return values


def read_text(path: Path) -> str:
    """Return the text of the file at ``path``, which is read once: it may be a pipe.

    Raises: ParameterError, of one line, if the file cannot be read, is larger than MAX_BYTES, or is not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ParameterError(f"{path}: it is larger than {MAX_BYTES} bytes")
        return content.decode("utf8")
    except OSError as error:
        raise ParameterError(f"cannot read {shown(str(path))}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path}: {error}") from None


def read_yaml(path: Path) -> Any:
    """Return what the YAML file at ``path`` holds, as `parse_yaml`.

    Raises: ParameterError, as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, path: Path) -> Any:
    """Return what the YAML in ``text``, from ``path``, holds, every number, true, false and null as the text it is.

    Raises: ParameterError, of one line, if it is not YAML, nests too deeply, names a key twice, or refers to another
    part of itself, or says with a tag what a value is.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ParameterError(f"*{self.peek_event().anchor} refers to another part of the file")
            if tag := getattr(self.peek_event(), "tag", None):
                raise ParameterError(f"the tag {shown(tag)} is not allowed: a value is a text, a list or a mapping")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
            mapping = super().construct_mapping(node, deep)
            if len(mapping) < len(node.value):
                twice = Counter(key.value for key, _ in node.value).most_common(1)[0][0]
                raise ParameterError(f"{shown(twice)} is given twice")
            return mapping

    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParameterError(f"{path}{line} is not YAML: {error.problem}") from None
    except RecursionError:
        raise ParameterError(f"{path} nests too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ParameterError(f"{path}: {' '.join(str(error).split())}") from None


def shown(value: Any) -> str:
    """Return ``value`` as a message shows it: as Python writes it, and cut when that is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def listed(problems: Sequence[str]) -> str:
    """Return the first ten ``problems``, one a line, and how many more there are."""
    more = [f"... and {len(problems) - 10} more"] if len(problems) > 10 else []
    return "\n".join([*problems[:10], *more])


def printable(text: str) -> str:
    """Return ``text`` with every character that is not printable, but the ends of lines, as its escape."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def from_text(value: Any, annotation: Any) -> Any:
    """Return ``value`` with each text in it read as the literal it spells, unless ``annotation`` wants a text."""
    kind, arguments = _unwrap(annotation)
    if kind in (Union, UnionType):
        return next((v for v in (from_text(value, a) for a in arguments) if v is not _REFUSED), _REFUSED)
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return _REFUSED  # bytes of a command line that are not UTF-8
    if isinstance(value, str) and not _wants_text(kind, arguments):
        value = _read_literal(value)
    if kind is int and isinstance(value, int) and not -(2**63) <= value < 2**63:
        return _BEYOND
    if kind is Literal and not any(type(value) is type(c) and value == c for c in arguments):
        return _REFUSED  # pydantic alone would take True for the choice 1
    if isinstance(value, list | tuple) and kind in (list, tuple):
        items = _item_annotations(kind, arguments, len(value))
        return kind(from_text(v, a) for v, a in zip(value, items, strict=True))
    return value


def describe(annotation: Any) -> str:
    """Return in words what ``annotation`` allows: 'an integer, at least 1'."""
    kind, arguments = _unwrap(annotation)
    if kind in (Union, UnionType):
        return " or ".join(map(describe, arguments))
    if kind is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    words = _NOUNS[kind]
    if kind is list and arguments:
        words += f" whose items are each {describe(arguments[0])}"
    if kind is tuple and arguments:
        words += " of " + " and ".join("any number more" if a is Ellipsis else describe(a) for a in arguments)
    limits = [
        f"{phrase} {getattr(constraint, field)}"
        for constraint in getattr(annotation, "__metadata__", ())
        for field, phrase in _PHRASES.items()
        if getattr(constraint, field, None) is not None
    ]
    return ", ".join([words, *limits])


_REFUSED = object()  # a value that no type accepts
_BEYOND = object()  # an integer that arrays and generators do not take, which no type accepts either
_PHRASES = {
    "ge": "at least",
    "gt": "more than",
    "le": "at most",
    "lt": "less than",
    "multiple_of": "a multiple of",
    "min_length": "of a length of at least",
    "max_length": "of a length of at most",
}


def _meanings(source: str) -> dict[int, str]:
    """What the comments of a parameters cell say, by the line that they stand behind, or above."""
    found: dict[int, str] = {}
    above: list[str] = []
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    for token in tokens:
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ").rstrip()
            if token.line.lstrip().startswith("#"):
                above.append(text)
            else:
                found[token.start[0]] = text
        elif token.type == tokenize.NAME and token.start[1] == 0:
            found.setdefault(token.start[0], " ".join(above))
            above = []
        elif token.type == tokenize.NL and not token.line.strip():
            above = []
    return found


def _parse_statement(statement: ast.stmt) -> Parameter:
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
        raise ParameterError("only 'name: type = default' may stand in this cell")
    if statement.value is None:
        raise ParameterError("a default is needed")
    annotation = _parse_annotation(statement.annotation)
    return Parameter(statement.target.id, annotation, _literal(statement.value))


def _parse_annotation(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in TYPES:
        return TYPES[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _parse_annotation(node.left) | _parse_annotation(node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        name = node.value.id
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            choices = tuple(_literal(argument) for argument in arguments)
            if not choices or not all(isinstance(choice, str | int | float) for choice in choices):
                raise ParameterError(
                    f"{shown(ast.unparse(node))} is not a parameter type; its choices are texts or numbers"
                )
            return Literal[choices]
        if name == "Annotated" and len(arguments) > 1:
            return Annotated[(_parse_annotation(arguments[0]), *map(_parse_constraint, arguments[1:]))]
        if name == "list" and len(arguments) == 1:
            return list[_parse_annotation(arguments[0])]
        if name == "tuple" and not any(map(_is_ellipsis, arguments[:1] + arguments[2:])):
            return tuple[tuple(Ellipsis if _is_ellipsis(a) else _parse_annotation(a) for a in arguments)]
    known = ", ".join([*TYPES, "Literal[...]", "Annotated[...]"])
    raise ParameterError(f"{shown(ast.unparse(node))} is not a parameter type; known are {known}")


def _parse_constraint(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CONSTRAINTS:
        arguments = [_literal(argument) for argument in node.args]
        keywords = {k.arg: _literal(k.value) for k in node.keywords if k.arg}
        try:
            return CONSTRAINTS[node.func.id](*arguments, **keywords)
        except TypeError as error:
            raise ParameterError(str(error)) from None
    raise ParameterError(f"{shown(ast.unparse(node))} is not a constraint; known are {', '.join(CONSTRAINTS)}")


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ParameterError(f"{shown(ast.unparse(node))} is not a literal") from None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type under its constraints, and that type's own arguments."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) or annotation, get_args(annotation)


def _wants_text(kind: Any, arguments: Iterable[Any]) -> bool:
    return kind is str or (kind is Literal and all(isinstance(choice, str) for choice in arguments))


def _item_annotations(kind: type, arguments: tuple[Any, ...], length: int) -> list[Any]:
    if not arguments:
        return [object] * length
    if kind is list or arguments[-1] is Ellipsis:
        return [arguments[0]] * length
    # A tuple of the wrong length keeps its items as they are: the model then says what is wrong.
    return list(arguments) if len(arguments) == length else [str] * length


def _read_literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text.strip())
            repr(value)  # refuses an integer of thousands of digits
            return value
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _unknown(name: str, value: Any, declared: Mapping[str, Parameter]) -> str:
    new = RENAMED.get(name, f"n_{name.removeprefix('num_')}" if name.startswith("num_") else None)
    if new in declared:
        return f"{name} = {shown(value)}: is now called {new}"
    close = difflib.get_close_matches(name, declared, n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    name = name if name.isidentifier() and len(name) <= MAX_SHOWN else shown(name)
    return f"{name} = {shown(value)}: there is no parameter {name}{hint} Known are {', '.join(declared) or 'none'}"
