"""How the figures look: colours, markers, axes in powers of two, and files. Explicit arguments, no global state.

Ordered things (density, width) take a sequential palette, the densest or narrowest darkest, and a marker each,
so that they can be told apart in grey. Schemes take three colours of Okabe and Ito, safe for colour-blind eyes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from PIL import Image

from hpsweep import schemes, text
from hpsweep.analysis.plots.output import USUAL
from hpsweep.axes import axis_of, value_label
from hpsweep.english import HYPERPARAMETER_NAMES
from hpsweep.store import replacing
from hpsweep.units import Unit

INK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
TITLE, LABEL, SMALL = 9.5, 8.5, 7.5  # points, at the printed size


class Look(NamedTuple):
    """Colour, marker and text of one line."""

    color: str
    marker: str
    label: str


SCHEMES: dict[str, Look] = {
    name: Look(scheme.color, scheme.marker, scheme.label) for name, scheme in schemes.SCHEMES.items()
}
"""In the order in which panels and legends show them."""

_MARKERS = "os^Dv<>ph*d8"


def sentence_name(column: str) -> str:
    """A hyperparameter within a sentence: learning rate, init std, embedding lr mult."""
    return axis_name(column).removeprefix("base ")


def axis_name(column: str) -> str:
    """A column as the label of an axis."""
    return HYPERPARAMETER_NAMES.get(column) or axis_of(column).label or column.replace("_", " ")


def ordered(column: str, values: Iterable[float]) -> dict[float, Look]:
    """A look for every distinct value, the first of the axis, such as the densest, first and darkest."""
    distinct = sorted({float(value) for value in values}, key=axis_of(column).order)
    shades = mpl.colormaps["magma"](np.linspace(0.06, 0.77, max(len(distinct), 2)))
    return {
        value: Look(to_hex(shades[i]), _MARKERS[i % len(_MARKERS)], value_label(column, value))
        for i, value in enumerate(distinct)
    }


def frame(ax: Axes) -> None:
    """Two thin spines, small outward ticks and faint horizontal lines behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=GREY, linewidth=0.7)
    ax.tick_params(labelsize=LABEL - 0.5, color=GREY, labelcolor=INK, length=3, width=0.7, pad=2)
    ax.tick_params(which="minor", color=GREY, length=2, width=0.5)
    ax.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.7)
    ax.set_axisbelow(True)


def log2_axis(ax: Axes, which: str, low: float, high: float, *, most: int = 8) -> None:
    """A log2 axis from low to high with at most about `most` ticks, at whole powers of two."""
    first = math.ceil(math.log2(low) - 1e-9)
    last = math.floor(math.log2(high) + 1e-9)
    powers = range(first, last + 1)
    every = max(1, math.ceil(len(powers) / most))
    ticks = [2.0**power for power in powers if power % every == 0] or [2.0**first]
    labels = [text.power_label(tick) for tick in ticks]
    _ticks(ax, which, ticks, labels, low, high)
    minor = [2.0**power for power in powers] if every > 1 else []
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_minor_locator(FixedLocator(minor))


def value_axis(ax: Axes, column: str, values: Sequence[float], *, most: int = 9) -> None:
    """A log2 x axis with a tick at each of the values: dense to sparse, or narrow to wide, from left to right."""
    looks = ordered(column, values)
    every = math.ceil(len(looks) / most)
    shown = [value for i, value in enumerate(looks) if i % every == 0]
    low, high = min(looks) * 2**-0.45, max(looks) * 2**0.45
    _ticks(ax, "x", shown, [looks[value].label for value in shown], low, high)
    if axis_of(column).halves:
        ax.invert_xaxis()


def _ticks(ax: Axes, which: str, ticks: list[float], labels: list[str], low: float, high: float) -> None:
    text = dict(zip(ticks, labels, strict=True))
    axis = ax.xaxis if which == "x" else ax.yaxis
    if which == "x":
        ax.set_xscale("log", base=2)
        ax.set_xlim(low, high)
    else:
        ax.set_yscale("log", base=2)
        ax.set_ylim(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text.get(value, "")))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def loss_label(ax: Axes, unit: Unit) -> None:
    """The label of an axis of losses, with their unit."""
    ax.set_ylabel(f"validation loss ({unit.name})", fontsize=LABEL, color=INK)


def bits_axis(ax: Axes, unit: Unit, low: float, high: float) -> None:
    """On the right the same losses in bits/byte, from low to high, where it is known how many bytes a token has."""
    factor = unit.bits_per_byte
    if factor is None:
        return

    def bits_of(loss: Any) -> Any:
        return loss * factor

    def loss_of(bits: Any) -> Any:
        return bits / factor

    right = ax.secondary_yaxis("right", functions=(bits_of, loss_of))
    right.set_ylabel("bits/byte", fontsize=LABEL, color=INK)
    right.tick_params(labelsize=LABEL - 0.5, color=GREY, labelcolor=INK, length=3, width=0.7, pad=2)
    right.spines["right"].set(color=GREY, linewidth=0.7, bounds=(low * factor, high * factor))
    right.set_yticks(ticks_between(low * factor, high * factor))


def ticks_between(low: float, high: float) -> list[float]:
    """About six round numbers in a range."""
    found = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in found if low <= tick <= high]


# --- files ---

_FILES: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "hpsweep", "pdf.fonttype": 42, "savefig.bbox": None}
"""Text stays text in an SVG, fonts in a PDF are embedded as TrueType, ids are the same every time."""

_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def ours() -> Iterator[None]:
    """matplotlib's own defaults, whatever the user has set: for figures of ours, and never beyond them."""
    with mpl.style.context("default"):
        yield


def save(figure: Figure, path: Path, formats: Sequence[str] = USUAL.formats) -> list[Path]:
    """Write path.FORMAT for every format, PNG at 200 dpi, whole or not at all; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{form}") for form in formats]
    for form, to in zip(formats, paths, strict=True):
        with replacing(to) as temporary, ours(), mpl.rc_context(_FILES):
            if form == "png":
                _save_png(figure, temporary)
            else:
                figure.savefig(temporary, format=form, metadata=_METADATA[form])
    return paths


def _save_png(figure: Figure, path: Path) -> None:
    """The figure with its 256 colours that matter most: a third of the bytes, and no difference to see."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, format="png", optimize=True, dpi=(200, 200))
