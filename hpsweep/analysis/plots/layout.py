"""Room on a figure: texts and legends are measured before they are placed, so that none is cut off or covers another.

Lengths are in inches where nothing else is said.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import cbook
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.textpath import TextToPath
from matplotlib.transforms import ScaledTranslation

from hpsweep.analysis.plots.style import INK, LABEL, SMALL

Handle = Line2D | Patch

MARGIN = 0.06
"""Left free at the edges of a figure."""

SMALLEST_PANEL = 0.6
"""Width and height that a panel must keep for its data to be read."""

IN_CELL = "in a cell"
"""The gid of a text that has the room of one cell of a matrix."""

TOLERANCE = 0.02
"""By which an artist may reach beyond its figure: the rounding of its text to pixels."""

_LEAST_TEXT = 0.3
"""Width below which a text is not broken any further."""

_HINTED = 1.03
"""How much wider than its outlines a text may be drawn on a grid of pixels."""

_TICK = 0.38
"""Width of a label of a power of two, with what keeps it from the next."""

_LINE = 1.45 * SMALL / 72
_X_LABEL = (3 + 2 + 1.2 * LABEL + 4 + 1.4 * LABEL) / 72  # ticks, their labels and the label below an axis


Page = Figure | SubFigure
"""What panels, legends and titles are drawn on: a figure, or a part of one that others share."""


def page_of(into: SubFigure | None, size: tuple[float, float] | None, usual: tuple[float, float]) -> Page:
    """The part of a figure that was given, or else a figure of its own, of the usual size if none is asked for.

    Legends outside of panels need a constrained layout: a given figure without any layout gets that.
    """
    if into is None:
        return Figure(figsize=size or usual, layout="constrained")
    root = figure_of(into)
    if root.get_layout_engine() is None:
        root.set_layout_engine("constrained")
    return into


def figure_of(page: Page) -> Figure:
    """The whole figure."""
    figure = page.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def page_size(page: Page) -> tuple[float, float]:
    """Width and height of a figure, or of a part of one."""
    dpi = page.figure.dpi
    return page.bbox.width / dpi, page.bbox.height / dpi


def outer_labels(axes: npt.NDArray[Any]) -> None:
    """Labels of x below the last panel of each column, of y left of the first of each row."""
    for (i, j), ax in np.ndenumerate(axes):
        last = all(not below.axison for below in axes[i + 1 :, j])
        first = all(not left.axison for left in axes[i, :j])
        ax.tick_params(labelbottom=last, labelleft=first)
        ax.set_xlabel(ax.get_xlabel() if last else "")
        ax.set_ylabel(ax.get_ylabel() if first else "")


# --- texts ---


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float = SMALL) -> float:
    """The width of one line of text in so many points."""
    width, _, _ = TextToPath().get_text_width_height_descent(
        text, FontProperties(family="DejaVu Sans", size=size), ismath=bool(cbook.is_math_text(text))
    )
    return _HINTED * float(width) / 72


def fill(text: str, width: float, size: float = SMALL, indent: str = "") -> str:
    """The text in lines of at most this width, broken at spaces; a longer word is broken where the line ends."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if text_width(longer, size) <= width:
            lines[-1] = longer
            continue
        if lines[-1].strip():
            lines.append(indent)
        *whole, rest = _pieces(word, width - text_width(indent, size), size)
        for piece in whole:
            lines[-1] += piece
            lines.append(indent)
        lines[-1] += rest
    return "\n".join(lines)


def _pieces(word: str, width: float, size: float) -> list[str]:
    """A word in pieces that fit the width; a formula stays whole."""
    if cbook.is_math_text(word):
        return [word]
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def panel_width(figure_width: float, panels: int) -> float:
    """About the width of each of several panels side by side, the labels of the first taken off."""
    return max((figure_width - 0.62 - 0.12 * panels) / panels, SMALLEST_PANEL)


def ticks_that_fit(ax: Axes) -> int:
    """How many labels such as 2^-10 have room below an Axes, side by side."""
    width = ax.get_position(original=True).width * page_size(ax.figure)[0]
    return max(2, min(8, int(width / _TICK)))


# --- legends ---


def legend(where: Axes | Page, handles: Iterable[Handle], **place: object) -> Legend:
    """A legend without a frame, of an Axes or of a figure; `place` as in matplotlib.

    Of a figure it has at most `ncols` columns, as many as fit; an entry that is too wide for one is broken.
    """
    handles = list(handles)
    if isinstance(where, Axes):
        return _legend(where, handles, place)
    room = page_size(where)[0] - 2 * MARGIN
    for columns in range(int(str(place.pop("ncols", 1))), 0, -1):
        made = _legend(where, handles, {**place, "ncols": columns})
        if columns == 1 or extent(made)[0] <= room:
            break
        made.remove()
    return _narrowed(made, room)


def _legend(where: Axes | Page, handles: Sequence[Handle], place: dict[str, object]) -> Legend:
    look: dict[str, object] = {"fontsize": SMALL, "frameon": False, "labelcolor": INK}
    look |= {"handlelength": 1.9, "handletextpad": 0.5, "columnspacing": 1.5}
    made: Legend = where.legend(handles=list(handles), **{**look, **place})  # type: ignore[call-overload]
    return made


def extent(made: Legend) -> tuple[float, float]:
    """Width and height of a legend."""
    box, dpi = made.get_window_extent(), made.figure.dpi
    return box.width / dpi, box.height / dpi


def _narrowed(made: Legend, room: float) -> Legend:
    """The legend with its entries broken into lines where it is wider than its room."""
    texts = [*made.get_texts(), made.get_title()]
    whole = [text.get_text() for text in texts]
    width = max(map(_text_width, whole))
    while (excess := extent(made)[0] - room) > 0 and width > _LEAST_TEXT:
        width = max(width - excess - 0.01, _LEAST_TEXT)
        for text, words in zip(texts, whole, strict=True):
            text.set_text("\n".join(fill(line, width) for line in words.split("\n")))
    return made


def _text_width(text: str) -> float:
    return max(text_width(line) for line in text.split("\n"))


def beside(ax: Axes, handles: Iterable[Handle], *, below: bool = False, **look: object) -> Legend:
    """A legend right of an Axes, or below its label: where the figure has no layout of its own, the Axes makes room."""
    handles = list(handles)
    slot, page = _slot(ax), page_size(ax.figure)
    if below:
        anchor = ax.transAxes + ScaledTranslation(0, -_X_LABEL, ax.figure.dpi_scale_trans)
        place: dict[str, object] = {"loc": "upper left", "bbox_to_anchor": (0.0, 0.0), "bbox_transform": anchor}
        room = slot[0] * page[0]
    else:
        place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)}
        room = max(0.5 * slot[0] * page[0], 1.2)
    made = _narrowed(_legend(ax, handles, {"borderaxespad": 0.0, **place, **look}), room)
    if ax.figure.figure.get_layout_engine() is None:
        _make_room(ax, made, below)
    return made


def _slot(ax: Axes) -> tuple[float, float]:
    """Width and height of an Axes before any layout, as parts of its figure."""
    box = ax.get_position(original=True)
    return box.width, box.height


def _make_room(ax: Axes, made: Legend, below: bool) -> None:
    """Take what the legend needs off the Axes it belongs to, so that it covers no neighbour and leaves no figure."""
    box, page = ax.get_position(original=True), page_size(ax.figure)
    width, height = extent(made)
    if below:
        taken = min(height / page[1], 0.6 * box.height)
        ax.set_position((box.x0, box.y0 + taken, box.width, box.height - taken))
    else:
        taken = min(width / page[0] + 0.02 * box.width, 0.6 * box.width)
        ax.set_position((box.x0, box.y0, box.width - taken, box.height))


# --- the size of a figure ---


def grow(figure: Page, *, width: float = 0.0, height: float = 0.0) -> None:
    """Make the figure larger by what stands beside its panels; a part of one has the room that it was given."""
    if isinstance(figure, SubFigure):
        return
    figure.set_size_inches(figure.get_figwidth() + width, figure.get_figheight() + height)


def heading_height(lines: int) -> float:
    """Height of so many lines above a panel."""
    return lines * _LINE


def legend_height(figure: Page) -> float:
    """Height of the figure's own legends, one above the other."""
    return sum(extent(made)[1] for made in figure.legends)


def check_room(figure: Figure, name: str) -> None:
    """Raise ValueError where something of a figure would be cut off, or a panel have no room."""
    if lacking := outside(figure):
        width, height = figure.get_size_inches()
        larger = f"{math.ceil(max(1.3 * width, 5))}x{math.ceil(max(1.3 * height, 4))}"
        raise ValueError(
            f"{width:g} x {height:g} inches are too small for {name}: {lacking[0]} has no room. Give a larger size, "
            f"such as {larger}, or none for that which each figure asks for."
        )


def outside(figure: Figure) -> list[str]:
    """What reaches beyond the edges of a figure, and panels that have no room: empty where all is well."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure.draw_without_rendering()
    page = figure.bbox.padded(TOLERANCE * figure.dpi)
    found = ["a panel beside its labels"] if any("collapsed" in str(warning.message) for warning in said) else []
    for artist in figure.get_default_bbox_extra_artists():
        box = artist.get_tightbbox()
        if box is None or not np.isfinite(box.extents).all() or min(box.width, box.height) <= 0:
            continue
        if box.x0 < page.x0 or box.y0 < page.y0 or box.x1 > page.x1 or box.y1 > page.y1:
            panel = isinstance(artist, Axes)
            found.append("a panel" if panel else f"{type(artist).__name__} {_words(artist)!r:.60}")
    for ax in figure.axes:
        box = ax.get_window_extent()
        if ax.axison and ax.get_label() != "<colorbar>" and min(box.width, box.height) < SMALLEST_PANEL * figure.dpi:
            found.append(f"a panel of {box.width / figure.dpi:.2f} x {box.height / figure.dpi:.2f} inches")
        found += _crowded(ax)
    return found


def _crowded(ax: Axes) -> list[str]:
    """The numbers of a matrix that reach into the cells beside them, and the names below that run into each other."""
    numbers = [text for text in ax.texts if text.get_label() == IN_CELL]
    names = ax.get_xticklabels()
    if not numbers or not names:
        return []
    cell = ax.get_window_extent().width / len(names)
    turned = [float(text.get_fontsize()) * ax.figure.figure.dpi / 72 for text in names if text.get_rotation()]
    flat = [text.get_window_extent().width for text in names if not text.get_rotation()]
    wide = [text for text in numbers if text.get_window_extent().width > cell]
    found = [f"the number {wide[0].get_text()!r} in its cell of the matrix"] if wide else []
    if max([*turned, *flat]) > cell:
        found.append("the names of the matrix's columns")
    return found


def _words(artist: Artist) -> str:
    """What an artist says, to find it by."""
    if isinstance(artist, Text):
        return artist.get_text()
    texts = artist.get_texts() if isinstance(artist, Legend) else []
    return "; ".join(text.get_text() for text in texts) or str(artist.get_label())
