"""How often the 95 % interval of an optimum holds the true one: python -m benchmarks.coverage

Simulated groups whose optimum is known: loss .011 x^2 + .0014 x^3 in octaves with a cliff at +3.2 (or +1.3: near), a
shift per seed, noise that doubles per octave to the right; with `tilt`, an optimum of its own for every seed. Points
are octaves, half or double octaves that lie anywhere around the optimum, 18 points at random, or 18 that Optuna's TPE
chose by the losses so far. Only optima with status ok count; the other groups are refused. Groups called flat have
noise and no optimum: there `ok` is the rate of false ones.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.optimum import optima

Floats = npt.NDArray[np.float64]
Measure = Callable[[float], Floats]  # log2(lr) -> loss of every seed, nats/token

LOW, HIGH = -5.0, 4.0
"""Where points lie, octaves from the optimum."""


def simulated(
    groups: int,
    *,
    points: str,
    seeds: int,
    noise: float,
    tilt: float = 0.0,
    cliff: float = 3.2,
    flat: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Runs of groups whose optimum is lr = 1; `points` is a key of POINTS, `noise` nats/token, `tilt` octaves."""
    generator = np.random.default_rng(seed)
    frames = []
    for group in range(groups):
        optimum, shift = tilt * generator.standard_normal(seeds), 0.02 * generator.standard_normal(seeds)

        def measure(x: float, optimum: Floats = optimum, shift: Floats = shift) -> Floats:
            z = x - optimum
            curve = 0.011 * z**2 + 0.0014 * z**3 + np.where(z > cliff, 0.3 + 0.5 * (z - cliff), 0)
            return np.asarray(
                2 + shift + (not flat) * curve + noise * 2 ** max(x, 0) * generator.standard_normal(seeds)
            )

        for x, losses in POINTS[points](generator, measure):
            frames.append(pd.DataFrame({"group": group, "seed": range(seeds), "lr": 2.0**x, "val_loss": losses}))
    return pd.concat(frames, ignore_index=True).assign(status="ok", data_hash="d")


def _grid(step: float) -> Callable[[np.random.Generator, Measure], Iterable[tuple[float, Floats]]]:
    def grid(generator: np.random.Generator, measure: Measure) -> Iterable[tuple[float, Floats]]:
        first = LOW + step * generator.uniform()
        return [(x, measure(x)) for x in first + step * np.arange(round((HIGH - LOW) / step))]

    return grid


def _random(generator: np.random.Generator, measure: Measure) -> Iterable[tuple[float, Floats]]:
    return [(x, measure(x)) for x in generator.uniform(LOW, HIGH, 18)]


def _tpe(generator: np.random.Generator, measure: Measure) -> Iterable[tuple[float, Floats]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=int(generator.integers(2**31))))
    measured = []
    for _ in range(18):
        trial = study.ask()
        x = trial.suggest_float("x", LOW, HIGH)
        measured.append((x, measure(x)))
        study.tell(trial, float(measured[-1][1].mean()))
    return measured


POINTS = {
    "double octaves": _grid(2.0),
    "octaves": _grid(1.0),
    "half octaves": _grid(0.5),
    "random": _random,
    "tpe": _tpe,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=400, help="simulated groups per row (default 400)")
    arguments = parser.parse_args()
    every = itertools.product(POINTS, (0.003, 0.01), (2, 3, 5))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("", {"points": points, "noise": noise, "seeds": seeds}) for points, noise, seeds in every
    ]
    grids = itertools.product(("octaves", "half octaves"), (2, 3, 5))
    for points, seeds in grids:
        cases.append(("tilt .2", {"points": points, "noise": 0.003, "seeds": seeds, "tilt": 0.2}))
        cases.append(("near cliff", {"points": points, "noise": 0.01, "seeds": seeds, "cliff": 1.3}))
        cases.append(("flat", {"points": points, "noise": 0.01, "seeds": seeds, "flat": True}))
    print("| points | noise | seeds | curve | ok | bias | sd | coverage | median width, octaves |")
    print("|---|---|---|---|---|---|---|---|---|")
    for curve, case in cases:
        table = optima(simulated(arguments.groups, **case, seed=1), by=["group"])
        ok = table[table["status"] == "ok"]
        width = (ok["log2_high"] - ok["log2_low"]).median()
        covered = ((ok["log2_low"] <= 0) & (ok["log2_high"] >= 0)).mean()
        fit = f"{ok['log2_opt'].mean():+.3f} | {ok['log2_opt'].std():.2f} | {covered:.3f}"
        print(
            f"| {case['points']} | {case['noise']} | {case['seeds']} | {curve} | {len(ok) / arguments.groups:.2f} "
            f"| {'- | - | -' if curve == 'flat' else fit} | {width:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
