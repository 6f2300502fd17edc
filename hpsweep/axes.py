"""The axes along which models grow and a tuned setting is carried: a row each, and code loops over those that vary.

A field of trials and targets becomes an axis so, depth for example:

1. A row of AXES, below: name="depth", step="doubling of depth", first="shallowest", beyond="the deepest". Optima,
   drifts, regrets, held-out scales, cards, reports, figures and the slopes of coordinate checks follow from it
   (tests/analysis/test_axes.py registers one and looks at each).
2. Where a scheme corrects for it: a multiplier of that name in `schemes.Multiplier`, kept by that scheme in
   `schemes.SCHEMES`; its exponents in rules/multipliers.py, for every kind of tensor; and its value, as `m_rho` in
   spec/trial.py is. Without that it is an axis that no scheme corrects for.

A size that models do not have yet comes before that: the field itself, in spec/trial.py and spec/target.py, with its
unit and range, and what the architecture does with it (architectures/). Only hp.coords.check, which measures, asks for
widths and densities by name: that is what the functions that build models take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpsweep.text import fraction_label, number_label


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One field of trials and targets along which the optimum may drift."""

    name: str  # of the field, in Trial and in Target
    step: str  # what a drift is per, after "octaves per"
    halves: bool = False  # whether such a step halves the value; else it doubles it
    base: str = ""  # field of the trial that says where the proxy is; without one that is at the first value
    always: bool = False  # whether tables by model have its column also where all runs have one value
    widens: bool = False  # whether modules get more features along it: what larger models buy is measured there
    farthest: float = 4.0  # factor beyond the last tuned value, after which a target is an extrapolation
    first: str = "first"  # what the model at the first value is called
    beyond: str = "the largest"  # before "tuned": what a target far out is compared with
    label: str = ""  # on the axis of a figure; by default the name
    shown: Callable[[Any], str] = number_label  # a value as text

    def octaves(self, value: float) -> float:
        """Steps from 1 to the value: halvings or doublings."""
        return -math.log2(value) if self.halves else math.log2(value)

    def order(self, value: float) -> float:
        """By which values are sorted: the first is where models begin, dense or narrow."""
        return -value if self.halves else value

    @property
    def unit(self) -> str:
        """The unit of a drift along the axis."""
        return f"octaves per {self.step}"


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            name="width",
            step="doubling of width",
            base="base_width",
            always=True,
            widens=True,
            farthest=16.0,
            first="narrowest",
        ),
        Axis(
            name="density",
            step="halving of density",
            halves=True,
            base="base_density",
            always=True,
            farthest=4.0,
            first="densest",
            beyond="below the sparsest",
            shown=fraction_label,
        ),
    )
}
"""By name, in the order in which tables have their columns."""


def axis_of(name: str) -> Axis:
    """The axis of that name; of any other column of positive numbers one that doubles."""
    return AXES.get(name) or Axis(name=name, step=f"doubling of {name}")


def drift_axes() -> list[str]:
    """The axes in the order in which drifts along them are listed: density, the last correction, comes first."""
    return list(AXES)[::-1]


def widening_axis() -> str:
    """The axis along which modules get more features."""
    return next(name for name, axis in AXES.items() if axis.widens)


def base_fields() -> list[str]:
    """The fields of a trial that say where the proxy is."""
    return [axis.base for axis in AXES.values() if axis.base]


def value_label(column: str, value: Any) -> str:
    """A value of a column as text: density 1/16, any number in its shortest form."""
    return axis_of(column).shown(value)
