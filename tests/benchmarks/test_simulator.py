"""The simulator: what it says it makes is what it makes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulator import CURVATURE, CURVES, simulated


@pytest.mark.parametrize("name", sorted(set(CURVES) - {"flat"}))
def test_every_curve_is_lowest_at_0_with_the_same_curvature(name: str) -> None:
    z = np.linspace(-7, 4, 2201)
    loss = CURVES[name](z)
    assert z[loss.argmin()] == pytest.approx(0, abs=1e-9)
    h = 1e-3
    assert CURVES[name](np.array([-h, h])).sum() / 2 / h**2 == pytest.approx(CURVATURE, rel=1e-3)


def test_runs_diverge_past_the_cliff_and_go_missing_everywhere() -> None:
    runs = simulated(30, points="half octaves", seeds=3, noise=0.003, cliff=1.3, diverging=0.6, missing=0.2)
    past = np.log2(runs["lr"]) > 1.3
    assert not (runs.loc[~past, "status"] == "diverged").any()
    assert (runs.loc[past, "status"] == "diverged").mean() == pytest.approx(0.6 * 0.9, abs=0.08)
    assert (runs["status"] == "failed").mean() == pytest.approx(0.1 / 0.9, abs=0.03)
    assert len(runs) == pytest.approx(30 * 18 * 3 * 0.9, rel=0.03)
    assert runs["val_loss"].notna().eq(runs["status"] == "ok").all()


@pytest.mark.parametrize(("side", "distance"), [(1, 0.5), (-1, 2.0)])
def test_a_grid_may_end_before_the_optimum(side: int, distance: float) -> None:
    x = np.log2(simulated(1, points="octaves", seeds=1, noise=0.0, beyond=(side, distance))["lr"])
    assert (side * x).max() == pytest.approx(-distance)
    assert len(x) == 8


def test_the_same_seed_makes_the_same_runs() -> None:
    first, again = (simulated(3, points="random", seeds=2, noise=0.01, seed=5) for _ in range(2))
    assert first.equals(again)
