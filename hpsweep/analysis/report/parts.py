"""What a report is made of: plain records that know nothing of HTML or Markdown, and numbers as people read them.

Text is plain, but for powers, 2^−7.55, which are set as such where the page can, and for links to a section of the
report, [[Optima]].
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Literal

from hpsweep.analysis.findings import MOVES, STABLE, UNDETERMINED
from hpsweep.analysis.optimum.noise import NOISE_WORDS
from hpsweep.english import MOST_PLACES
from hpsweep.text import DASH, MINUS, fixed
from hpsweep.units import Unit

Kind = Literal["good", "caution", "bad", "none"]

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("ok", STABLE, "done"), "good"),
    **dict.fromkeys(("edge", "flat", UNDETERMINED, "failed", "missing", "limit reached"), "caution"),
    **dict.fromkeys(("none", MOVES), "bad"),
}
"""How a status of a table is shown; each kind has a colour and a shape, and the word stands beside them."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """A word of a status column."""

    word: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence that is marked: what to use, what is stable, what not to trust."""

    kind: Kind
    lead: str
    text: str
    places: tuple[str, ...] = ()  # where it holds, listed after the text, and folded where they are many

    @property
    def whole(self) -> str:
        """The sentence with the places where it holds."""
        if len(self.places) > MOST_PLACES:
            return f"{self.text} ({len(self.places)} places: {'; '.join(self.places)})."
        return f"{'; '.join(self.places)}: {self.text}." if self.places else self.text

    def __str__(self) -> str:
        return f"{self.lead}: {self.whole}"


Cell = str | Status


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells in rows under a header with units; the first `keys` columns name the row. `note` stands below."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 1
    note: str = ""
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing, small enough for a phone: an SVG with unique ids, and what it shows in words."""

    name: str
    title: str
    text: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with, in this order, sentences, commands, marked lines, panels and tables. `more` panels are folded."""

    title: str
    text: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    panels: tuple[Panel, ...] = ()
    more: tuple[Panel, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def name(self) -> str:
        """The title as an anchor."""
        return anchor(self.title)


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """A verdict, and the sections that carry it, as plain data."""

    title: str
    about: str
    verdict: tuple[Line, ...]
    sections: tuple[Section, ...] = field(default=())

    @property
    def sentences(self) -> list[str]:
        """The verdict, a sentence a line, with links as plain text."""
        return [LINK.sub(r"\1", str(line)) for line in self.verdict]

    @property
    def panels(self) -> list[Panel]:
        """Every drawing, in order."""
        return [panel for section in self.sections for panel in (*section.panels, *section.more)]


LINK = re.compile(r"\[\[(.*?)\]\]")
"""A link to the section of that title."""


def anchor(title: str) -> str:
    """The name under which a section is linked."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


# --- numbers ---


def status(word: str) -> Status:
    """The cell of a status."""
    return Status(word=word, kind=KINDS[word])


_NAME = re.compile(r"(?<![\w.,'=-])init_std\b(?![=',])")  # but not in code


def typeset(text: str) -> str:
    """A sentence of the analysis, which is ASCII, with true signs, names as they are read, and one octave."""
    text = re.sub(r"(?<![\w^])-(?=[\d.])", MINUS, _NAME.sub("init std", text.replace("+-", "±")))
    return re.sub(r"(?<![\d.])1 octaves\b", "1 octave", text)


def explained(lead: str, whys: Iterable[tuple[str, str]]) -> tuple[Line, ...]:
    """Why so, of (place, reason): a line per reason, with the places it holds for."""
    return tuple(
        Line(kind="caution", lead=lead, text=text, places=tuple(places)) for text, places in merged_reasons(whys)
    )


def merged_reasons(sentences: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Sentences that differ in numbers alone as one, a number that differs as its range, with the places of each.

    Of (place, sentence); the sentence with most places first.
    """
    groups: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for where, sentence in sentences:
        groups.setdefault(tuple(_QUANTITY.split(sentence)), []).append((where, _QUANTITY.findall(sentence)))
    said = []
    for words_, members in groups.items():
        ranges = [_range_of(column) for column in zip(*(found for _, found in members), strict=True)]
        text = "".join(part for pair in itertools.zip_longest(words_, ranges, fillvalue="") for part in pair)
        said.append((text, [where for where, _ in members]))
    return sorted(said, key=lambda group: -len(group[1]))


_QUANTITY = re.compile(rf"(?<![\w^])(?:2\^)?[{MINUS}-]?\d+(?:\.\d+)?(?:e[+-]\d+)?%?(?![\w^])")


def _range_of(quantities: Sequence[str]) -> str:
    """0.0048 to 0.038: the lowest and the highest, or the only one."""
    ends = [end(quantities, key=_size) for end in (min, max)]
    return " to ".join(dict.fromkeys(ends))


def _size(quantity: str) -> float:
    plain = quantity.replace(MINUS, "-").rstrip("%")
    return 2.0 ** float(plain.removeprefix("2^")) if plain.startswith("2^") else float(plain)


# --- tables ---

LONGEST = 100
"""Rows of a table that are shown; the command that prints the rest is named."""


def words(names: Iterable[str]) -> list[str]:
    """Names of columns as they are read."""
    return [name.replace("_", " ") for name in names]


def in_bits(unit: Unit) -> tuple[str, ...]:
    """The header of a column in bits/byte, which compares data of any tokens; none where that is not known."""
    return ("in bits/byte",) if unit.bits_per_byte else ()


def bits(loss: float, unit: Unit) -> tuple[str, ...]:
    """The cell of that column."""
    return (fixed(loss * unit.bits_per_byte, 3),) if unit.bits_per_byte else ()


def noise_of(row: Mapping[Any, Any]) -> str:
    """Whether seeds measured the noise behind a row's interval."""
    return NOISE_WORDS.get(row["interval"], DASH)


def rest_of(table: Sized, command: str) -> str:
    """The note under a table that is cut off; empty where it is whole."""
    more = len(table) - LONGEST
    return f"{more} more rows: {command} prints them all." if more > 0 else ""
