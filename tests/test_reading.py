"""What can be held by a test of how the package reads."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

PACKAGE = ROOT / "hpsweep"

INTERFACES = {
    "cli/verbs": ("add", "run"),  # of every verb
    "export": ("file_text", "file_data"),  # of every trainer
    "architectures": ("tensors",),  # of every architecture, and of that of the trials
}
"""Names that several modules of a folder have, as they are called in the same way."""

RUNNING = ("spec", "rules", "own_model", "store", "export", "target", "sweep", "proxy", "architectures", "observer")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text("utf-8"))


def nested_conditionals(tree: ast.AST) -> list[int]:
    """Lines of conditional expressions that have another within."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            inside = [part for child in ast.iter_child_nodes(node) for part in ast.walk(child)]
            if any(isinstance(part, ast.IfExp) for part in inside):
                found.append(node.lineno)
    return found


def test_a_nested_conditional_is_seen() -> None:
    assert nested_conditionals(ast.parse("x = 1 if a else 2\ny = 1 if a else (2 if b else 3)")) == [2]
    assert nested_conditionals(ast.parse("x = f(1 if a else 2) if b else 3")) == [1]


def test_no_conditional_expression_is_within_another() -> None:
    found = [f"{path}:{line}" for path, tree in trees() for line in nested_conditionals(tree)]
    assert not found, f"make them branches: {', '.join(found)}"


def test_no_public_name_of_the_running_half_is_defined_twice() -> None:
    names: Counter[str] = Counter()
    for path, tree in trees():
        if path.parts[0] not in RUNNING:
            continue
        same = INTERFACES.get(path.parent.as_posix(), ())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                names[node.name] += node.name not in same
    assert {name for name, count in names.items() if count > 1} <= {"Plan"}  # of an own model, and of workers
