"""A report as one HTML page that refers to nothing outside: readable on a phone, in the dark, and read aloud."""

from __future__ import annotations

import itertools
import re
from html import escape

from hpsweep.analysis.report.parts import LINK, Cell, Line, Panel, ReportData, Section, Status, Table, anchor
from hpsweep.analysis.report.style import STYLE
from hpsweep.english import MOST_PLACES, counted
from hpsweep.text import MINUS

SHAPES = {"good": "●", "caution": "▲", "bad": "■", "none": "○"}
"""A shape for every kind, so that colour is never alone."""

FOLDED = 24
"""Rows of a table beyond which it is folded."""

WIDE = 7
"""Columns of a table beyond which it may be wider than the text, where the window is."""

_POWER = re.compile(r"\b(2|10|octaves?)\^([−-]?[0-9.]*[0-9])")
_NUMBER = re.compile(r"[\[(+−<>]?\s?\d")


def render(report: ReportData) -> str:
    """The page."""
    links = "\n".join(f'<li><a href="#{section.name}">{_text(section.title)}</a></li>' for section in report.sections)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(report.title)}: report</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>",
        f'<header>\n<h1>{_text(report.title)}</h1>\n<p class="about">{_text(report.about)}</p>\n</header>',
        '<section class="verdict" aria-labelledby="verdict">\n<h2 id="verdict">Verdict</h2>',
        f"{_lines(report.verdict)}</section>",
        f'<nav aria-label="Sections">\n<ul>\n{links}\n</ul>\n</nav>' if links else "",
        *(_section(section) for section in report.sections),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(filter(None, parts))


def _section(section: Section) -> str:
    parts = [f'<section aria-labelledby="{section.name}">\n<h2 id="{section.name}">{_text(section.title)}</h2>']
    parts += [f"<p>{_text(sentence)}</p>" for sentence in section.text]
    parts += [f"<pre><code>{escape(chr(10).join(section.code))}</code></pre>"] if section.code else []
    parts += [_lines(section.lines)] if section.lines else []
    parts += [_panels(section.panels)] if section.panels else []
    if section.more:
        parts.append(
            f"<details>\n<summary>{len(section.more)} more figures</summary>\n{_panels(section.more)}\n</details>"
        )
    parts += [_table(table, f"{section.name}-{i}") for i, table in enumerate(section.tables)]
    return "\n".join([*parts, "</section>"])


def _lines(lines: tuple[Line, ...]) -> str:
    """Marked sentences; those that follow each other under the same lead stand together."""
    items = []
    for (kind, lead), same in itertools.groupby(lines, key=lambda line: (line.kind, line.lead)):
        texts = [_said(line) for line in same]
        several = "<ul>\n" + "\n".join(f"<li>{text}</li>" for text in texts) + "\n</ul>"
        said = texts[0][:1].upper() + texts[0][1:] if len(texts) == 1 else several
        items.append(f'<dt class="{kind}">{_mark(kind)}{_text(lead)}</dt>\n<dd>{said}</dd>')
    return "<dl>\n" + "\n".join(items) + "\n</dl>\n"


def _said(line: Line) -> str:
    """A marked sentence; many places where it holds are folded."""
    if len(line.places) <= MOST_PLACES:
        return _text(line.whole)
    items = "\n".join(f"<li>{_text(where)}</li>" for where in line.places)
    where = f"<details>\n<summary>{len(line.places)} places</summary>\n<ul>\n{items}\n</ul>\n</details>"
    return f"{_text(line.text)}:\n{where}"


def _panels(panels: tuple[Panel, ...]) -> str:
    figures = [f"<figure>\n<h3>{_text(panel.title)}</h3>\n{panel.svg}</figure>" for panel in panels]
    return '<div class="panels">\n' + "\n".join(figures) + "\n</div>"


def _table(table: Table, name: str) -> str:
    """A table that scrolls by itself where it is too wide; a long one is folded."""
    width = "wide" if len(table.header) > WIDE else "narrow"
    note = f'\n<p class="note">{_text(table.note)}</p>' if table.note else ""
    made = (
        f'<div class="{width}">\n'
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}">\n<table>\n'
        f'<caption id="{name}"><span>{_text(table.caption)}</span></caption>\n{_head_and_body(table)}</table>\n'
        f"</div>{note}\n</div>"
    )
    is_long = len(table.rows) > FOLDED
    if not (table.folded or is_long):
        return made
    caption = f"{table.caption} ({counted(len(table.rows), 'row')})" if is_long else table.caption
    return f"<details>\n<summary>{_text(caption)}</summary>\n{made}\n</details>"


def _head_and_body(table: Table) -> str:
    """The columns' titles, and the rows, of which the first cells are titles too."""
    columns = range(len(table.header))
    classes = [f' class="{_kind(table, j)}"' for j in columns]
    head = "".join(f'<th scope="col"{classes[j]}>{_header(table.header[j])}</th>' for j in columns)
    rows = []
    for row in table.rows:
        cells = []
        for j in columns:
            is_title = j < table.keys
            opening, closing = ('th scope="row"', "th") if is_title else ("td", "td")
            cells.append(f"<{opening}{classes[j]}>{_cell(row[j])}</{closing}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f"<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n"


def _kind(table: Table, column: int) -> str:
    """How a column is set: numbers to the right, long texts in lines, short ones whole."""
    if _is_number(table, column):
        return "number"
    return "words" if _is_long(table, column) else "short"


def _header(title: str) -> str:
    """A column's title, its unit, in brackets at the end, on a line of its own."""
    found = re.fullmatch(r"(.*?) \((.*)\)", title)
    return f"{_text(found[1])} <small>{_text(found[2])}</small>" if found else _text(title)


def _is_number(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows]
    texts = [cell for cell in cells if isinstance(cell, str) and cell not in ("", "–")]
    return len(texts) > 0 and all(_NUMBER.match(text) and len(text) < 24 for text in texts)


def _is_long(table: Table, column: int) -> bool:
    return any(isinstance(row[column], str) and len(str(row[column])) > 36 for row in table.rows)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Status):
        return f'<span class="status {cell.kind}">{_mark(cell.kind)}{_text(cell.word)}</span>'
    return _text(cell)


def _mark(kind: str) -> str:
    return f'<span class="mark" aria-hidden="true">{SHAPES[kind]}</span>'


def _text(text: str) -> str:
    """Escaped, with powers set as such, and links."""
    text = _POWER.sub(lambda found: f"{found[1]}<sup>{found[2].replace('-', MINUS)}</sup>", escape(text))
    return LINK.sub(lambda found: f'<a href="#{anchor(found[1])}">{found[1]}</a>', text)
