"""How figures are written: formats and sizes. It imports nothing, so that the command line can name them."""

from __future__ import annotations

from typing import NamedTuple

FORMATS = ("png", "svg", "pdf")

SIZES = (2.0, 40.0)
"""Inches that either side of a figure may have."""


class Output(NamedTuple):
    """In which formats figures are written, and in which size in inches; None is what each figure asks for."""

    formats: tuple[str, ...] = ("png", "svg")
    size: tuple[float, float] | None = None


USUAL = Output()
