"""Where a user's function is defined: what travels to workers and is stored, in the place of the function itself."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpsweep.text import shown

# Modules that are run as a file and cannot be imported by their name.
_RUN_AS_FILE = ("__main__", "hpsweep.experiment")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A function by its file and its name in it.

    file: the path of the file, relative to the working folder where it lies below it.
    module: the name under which it is imported; "" for a file that is run, as experiments are.
    name: the function's name.
    arguments: the names that the function can be called with, in their order.
    required: those of them that have no default.
    """

    file: str
    module: str
    name: str
    arguments: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Such as my_llama:build, the text that a trial keeps."""
        return f"{self.module or Path(self.file).stem}:{self.name}"

    @property
    def root(self) -> Path:
        """The folder from which its module is imported: that of the file, or of the outermost package around it."""
        return Path(self.file).resolve().parents[self.module.count(".")]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the store and the messages to workers hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Source:
        """The Source that `to_dict` told of."""
        lists = {name: tuple(stored[name]) for name in ("arguments", "required")}
        return Source(**{**stored, **lists})


def source_of(function: Callable[..., Any], word: str) -> Source:
    """Where the function is defined; `word` is what it is given as.

    Raises ValueError for what another process could not find again: lambdas, functions within functions, methods,
    objects, and functions of an interactive session.
    """
    if not inspect.isfunction(function):
        raise ValueError(f"{word} is {shown(function)}; give a function that is defined in a file.")
    name = function.__qualname__
    if not name.isidentifier():  # <lambda>, f.<locals>.g, A.f
        raise ValueError(
            f"{word} is {name} of {function.__module__}, which a worker process cannot find by its name; define it "
            "at the top of a file, by def."
        )
    file = Path(inspect.unwrap(function).__code__.co_filename)
    if not file.is_file():
        raise ValueError(
            f"{word} is {name}, defined in {file}, which is no file; worker processes read the function from its file: "
            "put it into one."
        )
    module = function.__module__
    if module in _RUN_AS_FILE:
        module = ""
    elif getattr(sys.modules.get(module), name, None) is not function:
        raise ValueError(
            f"{word} is {name} of {module}, where another object has this name now, such as a decorated function; "
            "give a function that a worker process finds by its name."
        )
    arguments, required = _arguments(function, word)
    return Source(file=_below_here(file), module=module, name=name, arguments=arguments, required=required)


def _arguments(function: Callable[..., Any], word: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that a function can be called with, and those without a default."""
    parameters = inspect.signature(function).parameters.values()
    for each in parameters:
        if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise ValueError(
                f"{word} {function.__qualname__} has the parameter {each}; it is called by names, of which each is a "
                "field of a trial or an axis of its own: give every one by its name."
            )
    names = tuple(each.name for each in parameters)
    required = tuple(each.name for each in parameters if each.default is each.empty)
    return names, required


def _below_here(file: Path) -> str:
    """The path relative to the working folder where it lies below it, so that a folder can be moved."""
    file = file.resolve()
    if file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return file.as_posix()


def check_arguments(sources: Mapping[Source, Iterable[str]], settings: Iterable[str]) -> None:
    """Raise ValueError for an argument without a value, and for a setting that no function takes.

    `sources` are functions with the names that each is called with besides the settings.
    """
    settings = set(settings)
    own: list[str] = []
    for source, known in sources.items():
        for name in source.required:
            if name not in {*known, *settings}:
                raise ValueError(
                    f"{source} has the argument {name!r}, which is no field of a trial, and has no value: give it a "
                    f"default, or values in the grid, such as {{{name!r}: [...]}}."
                )
        own += [name for name in source.arguments if name not in set(known)]
    for name in sorted(settings - set(own)):
        raise ValueError(
            f"{name!r} is no field of a trial, and no argument of {' or '.join(map(str, sources))}, whose own are "
            f"{', '.join(own) or 'none'}. Correct the name, or add the argument."
        )
