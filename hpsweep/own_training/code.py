"""The user's functions: found by file and name, and a hash of the code that they are made of."""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib
import json
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hpsweep.spec import Command, Source

RUN_NAME = "hpsweep.experiment"
"""The name of the module that an experiment file is run as."""


def run_file(path: Path) -> dict[str, Any]:
    """The names that a Python file defines, after it was run as the module hpsweep.experiment.

    It may import what lies beside it, and in the working folder. Raises what the file raises.
    """
    _look_in(path.resolve().parent)
    _look_in(Path.cwd())
    module = types.ModuleType(RUN_NAME)
    module.__file__ = str(path)
    sys.modules[RUN_NAME] = module  # dataclasses in the file look for it
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return vars(module)


def _look_in(folder: Path) -> None:
    """Let modules of this folder be imported, after those that are found already."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def loaded_function(source: Source) -> Callable[..., Any]:
    """The function, from its module or its file, which is run once in a process and again where it has changed.

    Raises ValueError where the file or the name is not there; and what the file raises.
    """
    path = Path(source.file)
    if source.module:
        _look_in(source.root)
        names = vars(importlib.import_module(source.module))
    elif path.is_file():
        names = _names_in(path, _written(path))
    else:
        raise ValueError(f"{source} was defined in {path.resolve()}, which is not there; put the file back.")
    if source.name not in names:
        raise ValueError(f"{path} defines no {source.name} any more; put it back, or start another sweep.")
    function: Callable[..., Any] = names[source.name]
    return function


@functools.lru_cache(maxsize=64)
def _names_in(path: Path, written: tuple[int, int]) -> dict[str, Any]:
    """The names that a file defines; it is run again where it has been written since."""
    return run_file(path)


def code_hashes(sources: Iterable[Source]) -> dict[str, str]:
    """Hashes of the code that the functions are made of, by file: 16 hexadecimal digits each.

    Of the file of a function, what the function uses, directly or not, and what runs when the file is imported; of
    modules that it imports from the same folder or package, all. Comments, docstrings and line breaks do not count.
    Installed packages are left out: their versions are in the row.
    """
    found: dict[Path, list[str]] = {}
    for source in sources:
        path = Path(source.file).resolve()
        text, imported = _used_part(source, Path.cwd(), _written(path))
        found.setdefault(path, []).append(text)
        for other in imported:
            _add_whole(other, source.root, found)
    return {_name_of(path): _digest("".join(sorted(set(texts)))) for path, texts in sorted(found.items())}


def command_hashes(command: Command, cwd: Path | None = None) -> dict[str, str]:
    """Hashes of a command's arguments, of the files that it names, and of the modules beside them that they import.

    16 hexadecimal digits each, by file. A script in another language is hashed as it is, and what it reads is not.
    """
    found: dict[Path, list[str]] = {}
    for word in command.argv:
        path = (cwd or Path.cwd()) / word
        if path.is_file():
            _add_whole(path.resolve(), path.resolve().parent, found)
    hashes = {_name_of(path): _digest("".join(sorted(set(texts)))) for path, texts in sorted(found.items())}
    return {**hashes, "the command": _digest(json.dumps(command.to_dict(), sort_keys=True))}


def code_hash(hashes: dict[str, str]) -> str:
    """One hash of all files, whatever folder they lie in."""
    return _digest("".join(sorted(f"{Path(name).name}:{digest}" for name, digest in hashes.items())))


def _add_whole(path: Path, root: Path, found: dict[Path, list[str]]) -> None:
    """Add a file and the modules that it imports from below the root, and those that they import."""
    if path in found:
        return
    text, imported = _whole_file(path, root, Path.cwd(), _written(path))
    found[path] = [text]
    for other in imported:
        _add_whole(other, root, found)


@functools.lru_cache(maxsize=4096)
def _whole_file(path: Path, root: Path, here: Path, written: tuple[int, int]) -> tuple[str, tuple[Path, ...]]:
    """What is hashed of a whole file, and the files that it imports; read again where it has been written since."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest(), ()
    statements = _parsed(path).body
    return _text_of(statements), tuple(_imported_files(statements, path, root))


@functools.lru_cache(maxsize=256)
def _used_part(source: Source, here: Path, written: tuple[int, int]) -> tuple[str, tuple[Path, ...]]:
    """The same of what a function uses in its file."""
    path = Path(source.file).resolve()
    kept = _used_statements(_parsed(path), {source.name})
    return _text_of(kept), tuple(_imported_files(kept, path, source.root))


def _written(path: Path) -> tuple[int, int]:
    """When a file was written last, in nanoseconds, and its size."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, without docstrings."""
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _used_statements(tree: ast.Module, names: set[str]) -> list[ast.stmt]:
    """The statements of a module that define these names and what they use, and those that define nothing."""
    defined = {id(statement): _defined_names(statement) for statement in tree.body}
    kept = {id(statement): statement for statement in tree.body if not defined[id(statement)]}
    wanted = set(names)
    for statement in kept.values():
        wanted |= _loaded_names(statement)
    grown = True
    while grown:
        grown = False
        for statement in tree.body:
            if id(statement) not in kept and defined[id(statement)] & wanted:
                kept[id(statement)] = statement
                wanted |= _loaded_names(statement)
                grown = True
    return [statement for statement in tree.body if id(statement) in kept]


def _defined_names(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def _loaded_names(statement: ast.stmt) -> set[str]:
    """The names that a statement reads, those within functions and classes too."""
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return names - set(vars(builtins))


def _imported_files(statements: Iterable[ast.stmt], path: Path, root: Path) -> Iterator[Path]:
    """The files below the root that statements of the file import, also within functions."""
    package = _module_name(path, root).rpartition(".")[0]
    if path.name == "__init__.py":
        package = _module_name(path, root)
    for statement in statements:
        for node in ast.walk(statement):
            for name in _imported_names(node, package):
                file = _file_of_module(name, root)
                if file is not None and file != path:
                    yield file


def _imported_names(node: ast.AST, package: str) -> Iterator[str]:
    """The absolute names of modules that an import may mean."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level:
            parents = package.split(".") if package else []
            kept = parents[: len(parents) - node.level + 1]
            module = ".".join(filter(None, (*kept, module)))
        if module:
            yield module
        for alias in node.names:
            yield f"{module}.{alias.name}".lstrip(".")


def _module_name(path: Path, root: Path) -> str:
    """The name of the module that a file below the root is."""
    if not path.is_relative_to(root):
        return path.stem
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def _file_of_module(name: str, root: Path) -> Path | None:
    """The file below the root of a module of this name; None where it lies elsewhere, is none, or is hpsweep's."""
    if name.partition(".")[0] == "hpsweep":  # whose version is in the row
        return None
    for folder in (root, Path.cwd()):
        place = folder.joinpath(*name.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file() and not _is_installed(file):
                return file.resolve()
    return None


def _is_installed(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(file.parts))


def _text_of(statements: Iterable[ast.stmt]) -> str:
    return "\n".join(map(ast.dump, statements))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name_of(path: Path) -> str:
    """The path relative to the working folder where it lies below it."""
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return path.as_posix()
