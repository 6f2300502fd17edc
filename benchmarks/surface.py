"""How often the joint optimum of lr and init std is found, and its intervals hold: python -m benchmarks.surface

Simulated groups whose optimum is lr = init_std = 1. With z octaves of lr and v of init std from there,

    loss = 2 + .011 z^2 + .0014 z^3 + b v^2 + k z v, and a cliff where z + v / 4 > 3.2 (near: 1.3), diverged 1 octave on

with b = .006 and k = .005 (`ridge`: .012, which leaves an axis five times as flat as without; `flat`: b = k = 0), a
shift per seed, and noise that doubles per octave of lr to the right. Points: octaves or half octaves of lr by octaves
of init std that lie anywhere around the optimum, 40 points at random, and grids of which every fifth cell is missing.
`at edge` and `past edge`: the last lr lies at the optimum, or one octave before it; `std edge` the same of init std, at
the optimum. Only what has status ok counts in bias, spread and coverage (ellipse: of the 95 % ellipse); where there is
no optimum to find, `ok` is the rate of false ones.

LOPSIDED are rows without a cliff, of loss = 2 + .02 f(z) + .015 g(v): `parabola`, both squares; `lopsided 2`, both rise
an octave to the right twice as much as to the left, as asymmetric 2 of the simulator does; `lopsided lr 2`, f alone;
`kinked 2`, both rise twice as much to the right at any distance; `cliff 0.3`, a parabola to which .3 + .3 (z - .3) is
added beyond z = .3, and nothing diverges. `narrow`: half octaves of both fields, 2 octaves to either side. `1-5-10`:
1e-4, 5e-4, 1e-3 and so on of both fields, anywhere around the optimum; `1-3-10` likewise.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.optimum.joint import surface

Floats = npt.NDArray[np.float64]


def simulated(
    groups: int,
    *,
    points: str,
    seeds: int,
    noise: float,
    curve: str = "",
    seed: int = 0,
) -> pd.DataFrame:
    """Runs of groups whose optimum is lr = init_std = 1; `points` and `curve` as the module says, noise in nats."""
    generator = np.random.default_rng(seed)
    frames = []
    for group in range(groups):
        z, v = _places(points, curve, generator).T
        shift = 0.02 * generator.standard_normal(seeds)
        spread = noise * 2 ** np.maximum(z, 0)[:, None] * generator.standard_normal((len(z), seeds))
        beyond = z + v / 4 - (1.3 if curve == "near cliff" else 3.2)
        if curve in SIDES:
            beyond = np.full(len(z), -1.0)
        loss = 2 + _bowl(z, v, curve) + np.where(beyond > 0, 0.3 + 0.5 * beyond, 0.0)
        if curve in CLIFFS:
            loss += np.where(z > CLIFFS[curve], 0.3 + 0.3 * (z - CLIFFS[curve]), 0.0)
        cells = pd.DataFrame({"group": group, "lr": 2.0**z, "init_std": 2.0**v, "diverged": beyond > 1})
        rows = cells.loc[cells.index.repeat(seeds)]
        frames.append(
            rows.assign(seed=np.tile(np.arange(seeds), len(z)), val_loss=(loss[:, None] + shift + spread).ravel())
        )
    runs = pd.concat(frames, ignore_index=True)
    runs.loc[runs["diverged"], "val_loss"] = np.nan
    status = np.where(runs["diverged"], "diverged", "ok")
    return runs.drop(columns="diverged").assign(status=status, data_hash="d")


def _lopsided(ratio: float) -> Callable[[Floats], Floats]:
    """A parabola on the left that rises `ratio` times as much an octave to the right."""
    return lambda x: np.asarray(x**2 * (1 + (ratio - 1) * np.maximum(x, 0.0)))


def _kinked(ratio: float) -> Callable[[Floats], Floats]:
    """Halves of two parabolas, of which the right one rises `ratio` times as much."""
    return lambda x: np.asarray(x**2 * np.where(x > 0, ratio, 1.0))


SIDES: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "parabola": (np.square, np.square),
    "lopsided 1.5": (_lopsided(1.5), _lopsided(1.5)),
    "lopsided 2": (_lopsided(2.0), _lopsided(2.0)),
    "lopsided lr 2": (_lopsided(2.0), np.square),
    "kinked 2": (_kinked(2.0), _kinked(2.0)),
    **{f"cliff {at:g}": (np.square, np.square) for at in (0.1, 0.3, 0.6, 1.0)},
}
"""How the loss rises along lr and along init std, in units of .02 and .015 nats/token."""

CLIFFS = {curve: float(curve.split()[1]) for curve in SIDES if curve.startswith("cliff")}
"""Where they lie, octaves of lr from the optimum."""


def _bowl(z: Floats, v: Floats, curve: str) -> Floats:
    if curve in SIDES:
        of_lr, of_std = SIDES[curve]
        return 0.02 * of_lr(z) + 0.015 * of_std(v)
    if curve == "flat":
        return np.asarray(0.011 * z**2 + 0.0014 * z**3)
    if curve == "skewed":
        return np.asarray(0.022 * _skew(z + v / 4, 0.4) + 0.010 * _skew(v, 0.3))
    if curve == "ridge":
        return np.asarray(0.022 * _skew(z + v / 2, 0.4) + 0.0015 * v**2)
    steep = z + v / 4
    return np.asarray(0.011 * steep**2 + 0.0014 * steep**3 + 0.005 * v**2)


def _skew(x: Floats, by: float) -> Floats:
    """x^2 / 2 near 0, steeper to the right: (exp(by x) - by x - 1) / by^2."""
    return np.asarray((np.exp(by * x) - by * x - 1) / by**2)


NARROW = np.arange(-2.25, 1.8, 0.5)  # octaves
UNEVEN = {
    f"1-{middle}-10": np.log2([multiple * 10.0**power for power in range(-4, 3) for multiple in (1, middle)])
    for middle in (3, 5)
}


def _places(points: str, curve: str, generator: np.random.Generator) -> Floats:
    """(points, 2) octaves of lr and of init std from the optimum."""
    last = {"at edge": 0.0, "past edge": -1.0}.get(curve, 4.0)
    top = 0.0 if curve == "std edge" else 3.0
    if points == "40 random":
        return np.column_stack([generator.uniform(-5, last, 40), generator.uniform(top - 6, top, 40)])
    if points in UNEVEN:
        own = [UNEVEN[points] + generator.uniform(0, math.log2(10)) for _ in range(2)]
        return np.array([(a, b) for a in own[0] for b in own[1] if -6 <= a < 4 and -6 <= b < 4])
    step = 0.5 if "half" in points else 1.0
    slack = (generator.uniform(), generator.uniform()) if last == 4.0 and top == 3.0 else (0.0, 0.0)
    if points == "narrow":
        return np.array([(a, b) for a in NARROW + slack[0] / 2 for b in NARROW + slack[1] / 2])
    z = np.arange(last - step * slack[0], -5.001, -step)
    v = np.arange(top - slack[1], top - 5.999, -1.0)
    grid = np.array([(a, b) for a in z for b in v])
    return grid[generator.uniform(size=len(grid)) > 0.2] if "missing" in points else grid


def row(case: dict[str, Any], groups: int) -> str:
    """One line of the table."""
    table = surface(simulated(groups, **case, seed=1), by=["group"], resamples=1000)
    return f"| {case['points']} | {case['curve']} | {case['noise']} | {case['seeds']} | {_summary(table)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=100, help="simulated groups per row (default 100)")
    parser.add_argument("--only", default="", metavar="WORDS", help="rows of these points, curve, noise or seeds alone")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    arguments = parser.parse_args()
    words = [word for word in arguments.only.split(",") if word]
    chosen = [case for case in (*CASES, *LOPSIDED) if all(word in " ".join(map(str, case.values())) for word in words)]
    print("| points | curve | noise | seeds | ok | lr: ok bias sd coverage width | init std | ellipse | edge |")
    print("|---|---|---|---|---|---|---|---|---|")
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for text in pool.imap(functools.partial(row, groups=arguments.groups), chosen):
            print(text, flush=True)


CASES: list[dict[str, Any]] = [
    {"points": points, "curve": curve, "noise": noise, "seeds": seeds}
    for curve, where in {
        "": ("octaves", "half octaves", "40 random", "octaves, missing"),
        "skewed": ("octaves", "half octaves", "40 random"),
        "ridge": ("octaves", "half octaves", "40 random"),
        "near cliff": ("octaves", "half octaves", "40 random"),
        "flat": ("octaves", "half octaves", "40 random"),
        "at edge": ("octaves", "half octaves", "40 random"),
        "past edge": ("octaves", "half octaves", "40 random"),
        "std edge": ("octaves", "half octaves", "40 random"),
    }.items()
    for points in where
    for noise, seeds in ((0.003, 1), (0.003, 3), (0.01, 5))
]

LOPSIDED: list[dict[str, Any]] = [
    {"points": points, "curve": curve, "noise": noise, "seeds": seeds}
    for curve, (points, noise, seeds) in itertools.product(
        SIDES,
        [
            *itertools.product(("octaves", "half octaves", "narrow"), (0.003,), (1, 3)),
            *(("octaves", 0.001, 2), ("half octaves", 0.001, 2), ("40 random", 0.003, 3)),
            *itertools.product(UNEVEN, (0.003,), (1, 3)),
        ],
    )
]


def _summary(table: pd.DataFrame) -> str:
    ok = table[table["status"] == "ok"]
    parts = [f"{len(ok) / len(table):.3f}"]
    for name in ("lr", "init_std"):
        own = table[table[f"status_{name}"] == "ok"]
        low, high, opt = (own[f"log2_{name}_{which}"] for which in ("low", "high", "opt"))
        covered = ((low <= 0) & (high >= 0)).mean()
        parts.append(
            f"{len(own) / len(table):.2f} {opt.mean():+.3f} {opt.std():.2f} {covered:.3f} {(high - low).median():.2f}"
        )
    angle = np.radians(ok["ellipse_angle"])
    across = (
        (ok["log2_lr_opt"] * np.cos(angle) + ok["log2_init_std_opt"] * np.sin(angle)) / ok["ellipse_major"],
        (ok["log2_init_std_opt"] * np.cos(angle) - ok["log2_lr_opt"] * np.sin(angle)) / ok["ellipse_minor"],
    )
    parts.append(f"{(across[0] ** 2 + across[1] ** 2 <= 1).mean():.3f}")
    return " | ".join([*parts, f"{(table['status'] == 'edge').mean():.2f}"])


if __name__ == "__main__":
    main()
