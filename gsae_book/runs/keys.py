"""The key of a notebook: a hash of all that decides its outputs, and of as little else as can be.

That is its code, its parameters, the files that it names, the versions of packages, and each module of the project that
it imports, and that those import. Code is read, not imported, and compared without comments and docstrings.

A package's ``__init__`` leads to the modules of the names that are taken from it, and to no other. Of itself it counts
with what it does besides importing.
"""

from __future__ import annotations

import ast
import glob
import hashlib
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from gsae_book.runs.environment import find_root, hash_files, versions
from gsae_book.runs.parameters import read_cells

PACKAGES = ("gsae_lib", "gsae_book", "experiments", "benchmarks")  # of the project, wherever they are installed
RUNNER = ("gsae_book", "runs", "kernel")  # the module that executes every notebook
ARRAYS = (".npz", ".safetensors")  # how the names of recorded arrays end
TAGS = ("parameters", "raises-exception", "skip-execution")  # those that decide what a cell puts out
TYPE_CHECKING = [ast.dump(ast.parse(f"{name}TYPE_CHECKING", mode="eval").body) for name in ("", "typing.")]
MAGIC = re.compile(r"^([ \t]*)([%!].*)$", flags=re.MULTILINE)

Name = tuple[str, ...]  # a dotted name, in parts
Need = tuple[Name, bool]  # a name that is imported or read, and whether a package that it ends at is needed as a whole


@dataclass(frozen=True)
class Source:
    """What a module says: the hash of its code, the names that it needs, and what the names that it imports stand for.

    For the ``__init__`` of a package also the first two without its imports, and the names that it makes itself.
    ``arrays``: patterns for the names of recorded arrays in its texts.
    """

    code: str
    needs: frozenset[Need]
    imported: Mapping[str, set[Name]]
    own_code: str = ""
    own_needs: frozenset[Need] = frozenset()
    defined: frozenset[str] = frozenset()
    arrays: frozenset[str] = frozenset()


def notebook_key(path: Path, values: Mapping[str, Any], root: Path | None = None, given: Iterable[str] = ()) -> str:
    """Return the sha256 of all that decides the outputs of ``path``, run in ``root`` with the checked ``values``.

    The names of those that were ``given`` count too: a cell shows them.
    """
    return _hash(json.dumps([key_parts(path, values, root), sorted(given)], sort_keys=True))


def key_parts(path: Path, values: Mapping[str, Any], root: Path | None = None) -> dict[str, Any]:
    """Return what the key of ``path`` is made of: code, parameters, versions, files and modules.

    The files are the data sets, files and folders that a value, or its item, names, and the files of the project that a
    text in the code names.
    """
    root = find_root(path.parent) if root is None else root
    cells = [cell for cell in read_cells(path) if cell["cell_type"] == "code"]
    trees = [_parse_cell(cell["source"]) for cell in cells]
    whole = ast.Module([statement for tree in trees if tree for statement in tree.body], [])
    needs = _read(whole).needs | {(RUNNER, False)}
    if None in trees:  # what is not Python may import anything
        packages = {*PACKAGES, *(file.parent.name for file in root.glob("*/__init__.py"))}
        needs |= {(name, True) for package in packages for name in _modules_of(package, root)}
    texts = {n.value for n in ast.walk(whole) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {
        "code": [_cell_code(cell, tree) for cell, tree in zip(cells, trees, strict=True)],
        "parameters": dict(values),
        "versions": versions(),
        "files": hash_named(values, texts, root),
        "modules": hash_modules(needs, root),
    }


def hash_modules(needs: Iterable[Need], root: Path) -> dict[str, str]:
    """Return the hash of the code of each module of the project in ``root`` that the ``needs`` lead to, by name."""
    found: dict[str, str] = {}
    find, read = cache(partial(find_package, root=root)), cache(_read_file)
    todo, seen = list(needs), set()
    while todo:
        need = todo.pop()
        if need not in seen:
            seen.add(need)
            todo += _follow(*need, find, read, found)
    return found


def find_data(modules: Iterable[str], root: Path) -> list[Path]:
    """Return the recorded arrays, files in ``root``/results, whose name is a text in the code of the ``modules``.

    What they record as JSON does not count, and may grow while they run.
    """
    patterns: set[str] = set()
    for name in modules:
        at = tuple(name.split("."))
        if base := find_package(at[0], root):
            place = base.joinpath(*at)
            is_package = place.is_dir()
            file = place / "__init__.py" if is_package else place.with_suffix(".py")
            patterns |= _read_file(file, at if is_package else at[:-1]).arrays
    recorded = sorted(path for suffix in ARRAYS for path in (root / "results").rglob(f"*{suffix}"))
    return [path for path in recorded if any(fnmatchcase(path.name, pattern) for pattern in patterns)]


def find_package(name: str, root: Path) -> Path | None:
    """Return the folder that holds the package or module ``name`` of the project in ``root``, or None without one."""
    if (root / name / "__init__.py").is_file() or (root / f"{name}.py").is_file():
        return root  # where a kernel looks first
    installed = _find_installed(name) if name in PACKAGES else None
    return installed or (root if (root / name).is_dir() else None)


@cache
def _find_installed(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))).parent if spec else None


def _follow(
    name: Name,
    whole: bool,
    find: Callable[[str], Path | None],
    read: Callable[[Path, Name], Source],
    found: dict[str, str],
) -> list[Need]:
    """Put the module that ``name`` leads to into ``found``, and return what is needed besides."""
    base = find(name[0])
    needs: list[Need] = []
    for length in range(1, len(name) + 1) if base else ():
        at, part, rest = name[:length], name[length : length + 1], name[length + 1 :]
        place = base.joinpath(*at)
        if not place.is_dir():
            return [*needs, *_count(at, read(place.with_suffix(".py"), at[:-1]), found)]
        source = read(place / "__init__.py", at)
        if source.own_code:
            found[f"{'.'.join(at)}, without imports"] = source.own_code
        needs += source.own_needs
        if not part:
            return [*needs, *(_count(at, source, found) if whole else ())]
        made = part[0] in source.defined
        targets = source.imported.get(part[0], set()) - {at + part}
        if targets and not made:
            found[f"{'.'.join(at + part)}, imported"] = " ".join(sorted(".".join(target) for target in targets))
            return [*needs, *((target + rest, whole) for target in targets)]
        if made or not _is_module(place / part[0]):
            return [*needs, *_count(at, source, found)]
    return needs


def _count(name: Name, source: Source, found: dict[str, str]) -> frozenset[Need]:
    found[".".join(name)] = source.code
    return source.needs


def _is_module(place: Path) -> bool:
    return place.is_dir() or place.with_suffix(".py").is_file()


def _modules_of(package: str, root: Path) -> Iterator[Name]:
    base = find_package(package, root)
    for file in (base / package).rglob("*.py") if base else ():
        name = file.relative_to(base).with_suffix("").parts
        yield name[:-1] if name[-1] == "__init__" else name


def _read_file(file: Path, package: Name) -> Source:
    """Return what ``file``, a module in ``package``, says: nothing if it is missing."""
    text = file.read_text(encoding="utf8", errors="backslashreplace") if file.is_file() else ""
    return _read_text(text, package, file.name == "__init__.py")


@cache
def _read_text(text: str, package: Name, is_package: bool) -> Source:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # the notebook will fail, and say where
        return Source(_hash(text), frozenset(), {})
    if is_package:  # what it imports when a name is first used stands in a block for type checkers
        blocks = (node.body if _is_for_types(node) else [node] for node in tree.body)
        tree.body = [statement for block in blocks for statement in block]
    _strip(tree)
    return _read(tree, package, is_package)


def _read(tree: ast.Module, package: Name = (), is_package: bool = False) -> Source:
    imported: dict[str, set[Name]] = {}
    needs: set[Need] = set()
    for name, target, module in _imports(tree, package):
        needs.add((module, name == "*"))
        imported.setdefault(name, set()).add(target)
    read = set(_reads(tree, imported))
    needs |= {(target + rest, True) for name, rest in read for target in imported[name]}
    # What is imported and not read may be passed on, as a whole.
    needs |= {(target, True) for name in imported.keys() - {name for name, _ in read} for target in imported[name]}
    source = Source(_hash(ast.dump(tree)), frozenset(needs), imported, arrays=frozenset(_arrays(tree)))
    own = [s for s in tree.body if not isinstance(s, ast.Import | ast.ImportFrom) and not _is_all(s)]
    if not is_package or not own:
        return source
    tree = ast.Module(own, [])
    own_needs = {(target + rest, True) for name, rest in _reads(tree, imported) for target in imported[name]}
    return replace(
        source, own_code=_hash(ast.dump(tree)), own_needs=frozenset(own_needs), defined=frozenset(_defined(tree))
    )


def _imports(tree: ast.Module, package: Name) -> Iterator[tuple[str, Name, Name]]:
    """Yield each name that an import binds ("*" for all), what it stands for, and the dotted name that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                target = tuple(alias.name.split("."))
                yield (alias.asname, target, target) if alias.asname else (target[0], target[:1], target)
        elif isinstance(node, ast.ImportFrom):
            module = package[: len(package) + 1 - node.level] if node.level else ()
            module += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                target = module if alias.name == "*" else (*module, alias.name)
                yield alias.asname or alias.name, target, target


def _reads(tree: ast.Module, names: Iterable[str]) -> Iterator[tuple[str, Name]]:
    """Yield each of the ``names`` where ``tree`` reads it, with the attributes that are taken from it."""
    inner = set()
    for node in ast.walk(tree):
        if node not in inner:
            attributes: Name = ()
            while isinstance(node, ast.Attribute):
                attributes = (node.attr, *attributes)
                node = node.value
                inner.add(node)
            if isinstance(node, ast.Name) and node.id in names:
                yield node.id, attributes


def _arrays(tree: ast.Module) -> Iterator[str]:
    """Yield a pattern for each name of recorded arrays that a text ends with: what is filled in may be anything."""
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        pattern = "".join(glob.escape(str(p.value)) if isinstance(p, ast.Constant) else "*" for p in parts)
        if pattern.endswith(ARRAYS):
            yield pattern.rpartition("/")[2]


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _strip(tree: ast.Module) -> None:
    """Drop what decides no output: docstrings and other texts that stand alone, and what only type checkers read."""
    for node in ast.walk(tree):
        if _is_for_types(node):
            node.body = []
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_text(statement)]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.dump(node.test) in TYPE_CHECKING


def _is_all(statement: ast.stmt) -> bool:
    """Whether a statement lists what a package exports, which its imports say too."""
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) in ("__all__", "_ROOMS")


def _parse_cell(source: str) -> ast.Module | None:
    """Return the code of a cell, with magics as texts, or None if that is not Python."""
    for text in (source, MAGIC.sub(lambda line: line[1] + repr(line[2]), source)):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        last = tree.body[-1:]
        _strip(tree)
        tree.body += [s for s in last if _is_text(s)]  # a cell shows its last expression, unless a semicolon follows it
        tree.body += [ast.Expr(ast.Constant(";")) for s in last if _after(s, text).startswith(b";")]
        return tree
    return None


def _after(statement: ast.stmt, text: str) -> bytes:
    """Return what stands after ``statement`` on its last line."""
    return text.encode().splitlines()[statement.end_lineno - 1][statement.end_col_offset :].lstrip()


def _cell_code(cell: Mapping[str, Any], tree: ast.Module | None) -> str:
    tags = [tag for tag in TAGS if tag in cell["metadata"].get("tags", ())]
    as_text = tree is None or "raises-exception" in tags  # a traceback shows the comments
    return _hash(json.dumps([tags, cell["source"] if as_text else ast.dump(tree)]))


def hash_named(values: Mapping[str, Any], texts: Iterable[str], root: Path) -> dict[str, str]:
    """Return the hash of each data set, file and folder that a value names, and of each file that a text names."""
    items = [item for v in values.values() for item in (v if isinstance(v, list | tuple) else [v])]
    named = {item for item in items if isinstance(item, str)}
    hashes = {}
    for text in named | set(texts):
        place = root / text
        if os.path.isfile(place) and (text in named or _is_inside(place, root)):
            hashes[text] = hash_files([place], place.parent)
        elif text in named and os.path.isdir(place) and _is_inside(place, root):
            hashes[text] = hash_files(sorted(file for file in place.rglob("*") if file.is_file()), place)
    if not named:
        return hashes
    data = importlib.import_module("gsae_book.data.files")
    return hashes | {f"data set {name}": data.data_checksum(name) for name in named & data.DATASETS.keys()}


def hash_data(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Return the hash of each of the ``files`` of ``root``; one that was not written since is not read again."""
    states = {file: file.stat() for file in files if file.is_file()}
    return {
        file.relative_to(root).as_posix(): _hash_state(file, (s.st_size, s.st_mtime_ns, s.st_ctime_ns))
        for file, s in states.items()
    }


@lru_cache(1000)
def _hash_state(file: Path, _: tuple[int, ...]) -> str:
    return hash_files([file], file.parent)


def _is_inside(place: Path, root: Path) -> bool:
    """Say whether ``place`` is in ``root`` and not ``root`` itself: a folder of the system would take minutes."""
    return root.resolve() in place.resolve().parents


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
