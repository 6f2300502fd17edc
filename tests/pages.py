"""The pages of the documentation, and what a test wants of one: its links, its code, its commands."""

from __future__ import annotations

import re
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from tests.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
"""Pages that speak of the project as it is. CHANGELOG and the log speak of what it was."""

NOT_RUN = "<!-- not run:"
"""Begins a comment above a block of Python that no test runs, and says why."""


class Block(NamedTuple):
    """A block of code: its language ("" if none is named), its text, and the line above it."""

    language: str
    text: str
    above: str


def name(page: Path) -> str:
    """The page as a reader would call it."""
    return page.relative_to(ROOT).as_posix()


def fenced(page: Path) -> list[Block]:
    """Blocks between fences, those in lists without their indent."""
    blocks = []
    for found in re.finditer(r"(?:^|\n)( *)```([^\n`]*)\n(.*?)\n\1```", "\n" + page.read_text(), re.S):
        indent, language, text = found.groups()
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        above = ("\n" + page.read_text())[: found.start() + 1].rstrip().rpartition("\n")[2]
        blocks.append(Block(language.strip(), "\n".join(lines) + "\n", above))
    return blocks


def indented(page: Path) -> list[str]:
    """Blocks that are indented by four spaces, as commands often are."""
    text = re.sub(r"(?:^|\n)( *)```.*?\n\1```", "", page.read_text(), flags=re.S)
    return [block.replace("\n    ", "\n").strip() for block in re.findall(r"\n\n((?:    .+\n)+)", text)]


def spans(page: Path) -> list[str]:
    """Code within sentences, each on one line."""
    text = re.sub(r"(?:^|\n)( *)```.*?\n\1```", "", page.read_text(), flags=re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def prose(page: Path) -> str:
    """The page without its code."""
    text = re.sub(r"(?:^|\n)( *)```.*?\n\1```", "", page.read_text(), flags=re.S)
    return re.sub(r"`[^`]*`", "", text)


def python(page: Path) -> list[Block]:
    """Its blocks of Python."""
    return [block for block in fenced(page) if block.language == "python"]


def runnable(page: Path, smaller: tuple[tuple[str, str], ...] = ()) -> list[CodeType]:
    """The blocks of Python that can be run here, compiled; `smaller` replaces what would take long."""
    blocks = [block.text for block in python(page) if NOT_RUN not in block.above]
    for before, after in smaller:
        assert sum(before in text for text in blocks) == 1, f"{name(page)} says {before} in no block, or in several"
        blocks = [text.replace(before, after) for text in blocks]
    return [compile(text, f"{name(page)}, block {at} of Python", "exec") for at, text in enumerate(blocks, 1)]


def execute(page: Path, smaller: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """The names that the page's Python has made, run from top to bottom."""
    scope: dict[str, Any] = {"__name__": "page"}
    for block in runnable(page, smaller):
        exec(block, scope)
    return scope
