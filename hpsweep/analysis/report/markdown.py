"""A report as Markdown: the same content, with the drawings as files beside it."""

from __future__ import annotations

import itertools

from hpsweep.analysis.report.html import SHAPES
from hpsweep.analysis.report.parts import LINK, Cell, Line, Panel, ReportData, Section, Status, Table, anchor


def render(report: ReportData, figures: str) -> str:
    """The text; drawings are linked as files of the folder `figures`."""
    parts = [f"# {_text(report.title)}", _text(report.about), "## Verdict", _lines(report.verdict)]
    parts += [_section(section, figures) for section in report.sections]
    return "\n\n".join(parts) + "\n"


def _section(section: Section, figures: str) -> str:
    parts = [f"## {_text(section.title)}", *map(_text, section.text)]
    parts += ["```\n" + "\n".join(section.code) + "\n```"] if section.code else []
    parts += [_lines(section.lines)] if section.lines else []
    parts += [_panel(panel, figures) for panel in (*section.panels, *section.more)]
    parts += [_table(table) for table in section.tables]
    return "\n\n".join(parts)


def _lines(lines: tuple[Line, ...]) -> str:
    """A list; what stands under one lead is indented below it."""
    said = []
    for (kind, lead), same in itertools.groupby(lines, key=lambda line: (line.kind, line.lead)):
        texts = [_text(line.whole) for line in same]
        first = f"- {SHAPES[kind]} **{_text(lead)}**: "
        said += [first + texts[0]] if len(texts) == 1 else [first.rstrip(), *(f"  - {text}" for text in texts)]
    return "\n".join(said)


def _panel(panel: Panel, figures: str) -> str:
    return f"**{_text(panel.title)}**\n\n![{_text(panel.text)}]({figures}/{panel.name}.svg)"


def _table(table: Table) -> str:
    lines = [f"**{_text(table.caption)}**", ""]
    lines += [_row(table.header), "|" + " --- |" * len(table.header), *(_row(row) for row in table.rows)]
    return "\n".join([*lines, *(["", _text(table.note)] if table.note else [])])


def _row(cells: tuple[Cell, ...]) -> str:
    shown = [f"{SHAPES[c.kind]} {c.word}" if isinstance(c, Status) else c for c in cells]
    return "| " + " | ".join(_text(text).replace("|", "\\|") for text in shown) + " |"


def _text(text: str) -> str:
    """With the characters escaped that Markdown would take for its own, and would need closing."""
    for character in ("\\", "`", "*", "<", ">"):
        text = text.replace(character, f"\\{character}")
    return LINK.sub(lambda found: f"[{found[1]}](#{anchor(found[1])})", " ".join(text.split()))
