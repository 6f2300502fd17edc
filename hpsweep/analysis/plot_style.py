"""How the figures look: colours, markers, axes in powers of two, and files. Explicit arguments, no global state.

Ordered things (density, width) take a sequential palette, the densest or narrowest darkest, and a marker each,
so that they can be told apart in grey. Schemes take three colours of Okabe and Ito, safe for colour-blind eyes.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from hpsweep.store import replacing

INK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
TITLE, LABEL, SMALL = 9.5, 8.5, 7.5  # points, at the printed size


class Look(NamedTuple):
    """Colour, marker and text of one line."""

    color: str
    marker: str
    label: str


SCHEMES = {
    "sp": Look("#d55e00", "s", "SP"),
    "mup": Look("#009e73", "D", "μP"),
    "supar": Look("#0072b2", "o", "SuPar"),
}
"""In the order in which panels and legends show them."""

NAMES = {"lr": "base learning rate", "init_std": "base init std", "density": "density", "width": "width"}
"""Axis labels; any other column is shown by its name."""

_MARKERS = "os^Dv<>ph*d8"


def ordered(column: str, values: Iterable[float]) -> dict[float, Look]:
    """A look for every distinct value, the densest or the narrowest first and darkest."""
    distinct = sorted({float(value) for value in values}, reverse=column == "density")
    shades = mpl.colormaps["magma"](np.linspace(0.06, 0.77, max(len(distinct), 2)))
    return {
        value: Look(to_hex(shades[i]), _MARKERS[i % len(_MARKERS)], value_label(column, value))
        for i, value in enumerate(distinct)
    }


def value_label(column: str, value: Any) -> str:
    """1/16 for a density that is one over a whole number; any other value in its shortest form."""
    if column == "density" and 0 < value < 1:
        inverse = 1 / value
        if abs(inverse - round(inverse)) < 1e-6 * inverse:
            return f"1/{round(inverse)}"
    return f"{value:g}" if isinstance(value, numbers.Real) else str(value)


def power_label(value: float) -> str:
    """2^k as mathematical text, for a power of two; the number itself otherwise."""
    exponent = math.log2(value)
    return f"$2^{{{round(exponent)}}}$" if abs(exponent - round(exponent)) < 1e-6 else f"{value:g}"


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
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    ticks = [2.0**k for k in range(first, last + 1) if k % every == 0] or [2.0**first]
    _ticks(ax, which, ticks, [power_label(tick) for tick in ticks], low, high)
    minor = FixedLocator([2.0**k for k in range(first, last + 1) if every > 1])
    (ax.xaxis if which == "x" else ax.yaxis).set_minor_locator(minor)


def value_axis(ax: Axes, column: str, values: Sequence[float], *, most: int = 9) -> None:
    """A log2 x axis with a tick at each of the values: dense to sparse, or narrow to wide, from left to right."""
    looks = ordered(column, values)
    every = math.ceil(len(looks) / most)
    shown = [value for i, value in enumerate(looks) if i % every == 0]
    low, high = min(looks) * 2**-0.45, max(looks) * 2**0.45
    _ticks(ax, "x", shown, [looks[value].label for value in shown], low, high)
    if column == "density":
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


def save(figure: Figure, path: Path) -> list[Path]:
    """Write path.png (200 dpi) and path.svg, whole or not at all; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")
    with replacing(png) as temporary:
        figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None}, pil_kwargs={"optimize": True})
    with replacing(svg) as temporary, mpl.rc_context({"svg.hashsalt": "hpsweep"}):
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    return [png, svg]
