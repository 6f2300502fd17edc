"""The shape of the basin around a joint optimum: curvatures, the flattest axis, the region the optimum lies in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpsweep.analysis.optimum.basin import BASIN
from hpsweep.analysis.optimum.joint_fit import WindowMinima, convex_hull, second_derivatives
from hpsweep.analysis.optimum.joint_points import Points
from hpsweep.analysis.runs.cells import Floats


def basin_shape(points: Points, fit: WindowMinima, over: Sequence[str], noise: float) -> dict[str, float]:
    """Curvatures, and the flattest axis through the minimum with its length."""
    place = fit.places[:1] - fit.centre
    uu, uv, vv = (float(value[0]) for value in second_derivatives(fit.coefficients[None], place, fit.window.degree))
    values, vectors = np.linalg.eigh(np.array([[uu, uv], [uv, vv]]) / 2)
    axis = vectors[:, 0]
    points_up = axis[0] > 0 or (axis[0] == 0 and axis[1] > 0)
    if not points_up:
        axis = -axis
    # How far the points reach along it, before and behind the minimum.
    around = convex_hull(points.x[fit.used] - fit.centre)
    assert around is not None
    room = ((around.corners - place) * around.normals).sum(axis=1)
    speed = around.normals @ axis
    ahead = min(max(r, 0.0) / s for r, s in zip(room, speed, strict=True) if s > 1e-9)
    behind = min(max(r, 0.0) / -s for r, s in zip(room, speed, strict=True) if s < -1e-9)
    # How far along it the loss stays within 1 %, and within the noise of a run.
    lengths = {}
    for column, rise in (("ridge_length", BASIN * float(fit.value[0])), ("ridge_noise_length", noise)):
        reach = math.sqrt(rise / values[0]) if values[0] > 0 else math.inf
        lengths[column] = min(reach, ahead) + min(reach, behind)
    return {
        f"curvature_{over[0]}": uu / 2,
        f"curvature_{over[1]}": vv / 2,
        "interaction": uv,
        "ridge_slope": float(axis[1] / axis[0]) if abs(axis[0]) > 1e-9 else math.nan,
        "ridge_angle": math.degrees(math.atan2(axis[1], axis[0])),
        **lengths,
    }


RIDGE, OBLIQUE = 10.0, 0.2
"""A basin is a ridge that trades the fields off where it is so many times steeper across than along, and its axis lies
further from those of both fields than this sine."""


def trades_off(basin: Mapping[str, float], over: Sequence[str], noise: float) -> bool:
    """Whether the loss is lowest along a line on which both fields change, as where only their product matters.

    Across the line it rises, in one octave, by more than the noise of a run; what it does along is not asked.
    """
    u, v = (basin[f"curvature_{name}"] for name in over)
    uv = basin["interaction"] / 2
    along, across = np.linalg.eigvalsh([[u, uv], [uv, v]])
    angle = math.radians(basin["ridge_angle"])
    is_oblique = min(abs(math.sin(angle)), abs(math.cos(angle))) > OBLIQUE
    return is_oblique and across > max(RIDGE * abs(along), noise)


def confidence_ellipse(found: WindowMinima, stretch: float, spread: Floats) -> dict[str, float]:
    """The 95 % region of the joint optimum: semi-axes in octaves, angle of the longer one from the first field's."""
    places = found.places
    offset = (places[1:][np.isfinite(places[1:, 0])] - places[0]) * stretch
    # The covariance of the central 95 %: a few lie far out, at ends.
    covariance = offset.T @ offset / len(offset)
    distance = _distance(offset, covariance)
    central = offset[distance <= np.quantile(distance, 0.95)]
    covariance = central.T @ central / len(central)
    distance = _distance(offset, covariance)
    whole = covariance + spread
    # At least the 95 % quantile of chi^2 with two degrees of freedom.
    values, vectors = np.linalg.eigh(whole * max(float(np.quantile(distance, 0.95)), 5.991))
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    product = whole[0, 0] * whole[1, 1]
    correlation = 0.0
    if product:
        correlation = float(whole[0, 1] / math.sqrt(product))
    return {
        "correlation": correlation,
        "ellipse_major": math.sqrt(max(values[1], 0.0)),
        "ellipse_minor": math.sqrt(max(values[0], 0.0)),
        "ellipse_angle": (angle + 90) % 180 - 90,
    }


def _distance(offset: Floats, covariance: Floats) -> Floats:
    """Squared, in standard deviations."""
    return np.asarray(np.einsum("ri,ij,rj->r", offset, np.linalg.pinv(covariance), offset))
