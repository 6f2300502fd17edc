"""Whether a minimum lies so near an end of what was tried that the runs do not show the loss rise towards it.

A polynomial has a minimum of its own, also through losses that fall to the last value tried. For one hyperparameter the
lowest value needs a finite neighbour on either side; this is the same for two.
"""

from __future__ import annotations

import math

import numpy as np

from hpsweep.analysis.optimum.joint_fit import Indices
from hpsweep.analysis.optimum.joint_points import Points
from hpsweep.analysis.runs.cells import Floats

FEWEST_IN_A_LINE = 3
"""Values on a line, at one value of the other field, from which on its lowest one says where the loss falls to."""

FEWEST_LINES = 4
"""Lines that fall to one end from which on a basin that no polynomial identifies is a bound, and not flat: by chance
four lines of three values do so in 2.5 %."""


END_ROUNDING = 1e-9
"""nats/token by which a line must fall at least: less is rounding, and the field has no effect."""


def near_end(points: Points, used: Indices, place: Floats, field: int, side: int) -> bool:
    """Whether the place is as good as an end of a field's fitted points: within half a step, or all lines fall to it.

    Within a whole step where points are scattered.
    """
    end = float((points.x[used, field] * side).max()) * side
    reach = end_step(points, used, field, side)
    if not _are_scattered(points, used):
        reach *= 0.5
    return abs(end - place[field]) < reach or falling_lines(points, used, field, side) > 1


def falling_lines(points: Points, used: Indices, field: int, side: int) -> int:
    """How many lines have their lowest loss at that end of a field; 0 unless all have.

    A line is the points at one value of the other field, among those that were fitted.
    """
    lines = 0
    for other in _values(points, used, 1 - field):
        line = used[np.abs(points.x[used, 1 - field] - other) < 1e-6]
        if len(line) < FEWEST_IN_A_LINE:
            continue
        losses = points.adjusted[line]
        if np.ptp(losses) < END_ROUNDING or losses.argmin() != (points.x[line, field] * side).argmax():
            return 0
        lines += 1
    return lines


def end_step(points: Points, used: Indices, field: int, side: int) -> float:
    """Octaves between the last two values of a field among the fitted points; scattered points count as a grid."""
    values = _values(points, used, field)
    if _are_scattered(points, used):
        return float(np.ptp(values)) / (math.sqrt(len(used)) - 1)
    if side > 0:
        return float(values[-1] - values[-2])
    return float(values[1] - values[0])


def _are_scattered(points: Points, used: Indices) -> bool:
    """Whether the points fill less than half of the grid of their values."""
    grid = len(_values(points, used, 0)) * len(_values(points, used, 1))
    return len(used) <= 0.5 * grid


def _values(points: Points, used: Indices, field: int) -> Floats:
    """The values of a field among the fitted points, octaves."""
    return np.unique(points.x[used, field].round(6))
