"""How often the 95 % interval of an optimum holds the true one: python -m benchmarks.coverage

Simulated groups whose optimum is known: loss .011 x^2 + .0014 x^3 in octaves with a cliff at +3.2, on grids that lie
anywhere around it, a shift per seed, noise that doubles per octave to the right; and, as `tilt`, an optimum of its own
for every seed. Only optima with status ok count; the other groups are refused.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd

from hpsweep.analysis.optimum import optima


def simulated(
    groups: int, *, step: float, seeds: int, noise: float, tilt: float = 0.0, cliff: float = 3.2, seed: int = 0
) -> pd.DataFrame:
    """Runs of groups whose optimum is lr = 1; `step` in octaves, `noise` in nats/token, `tilt` in octaves."""
    generator = np.random.default_rng(seed)
    count = round(9 / step)
    x = -5 + step * (generator.uniform(size=(groups, 1, 1)) + np.arange(count))
    z = x - tilt * generator.standard_normal((groups, seeds, 1))
    loss = 2 + 0.011 * z**2 + 0.0014 * z**3 + np.where(z > cliff, 0.3 + 0.5 * (z - cliff), 0)
    shape = (groups, seeds, count)
    loss = loss + noise * 2 ** np.clip(x, 0, None) * generator.standard_normal(shape)
    loss = loss + 0.02 * generator.standard_normal((groups, seeds, 1))
    index = np.indices(shape).reshape(3, -1)
    frame = pd.DataFrame({"group": index[0], "seed": index[1], "lr": 2 ** np.broadcast_to(x, shape).ravel()})
    return frame.assign(val_loss=loss.ravel(), status="ok", data_hash="d")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=400, help="simulated groups per row (default 400)")
    arguments = parser.parse_args()
    print("| tilt | grid, octaves | noise | seeds | ok | bias | sd | coverage | median width |")
    print("|---|---|---|---|---|---|---|---|---|")
    for tilt, step, noise, seeds in itertools.product((0, 0.2), (1, 0.5), (0.003, 0.01), (2, 3, 5)):
        runs = simulated(arguments.groups, step=step, seeds=seeds, noise=noise, tilt=tilt, seed=1)
        table = optima(runs, by=["group"])
        ok = table[table["status"] == "ok"]
        share, bias, spread = len(ok) / arguments.groups, ok["log2_opt"].mean(), ok["log2_opt"].std()
        covered = ((ok["log2_low"] <= 0) & (ok["log2_high"] >= 0)).mean()
        width = (ok["log2_high"] - ok["log2_low"]).median()
        print(
            f"| {tilt} | {step} | {noise} | {seeds} | {share:.2f} | {bias:+.3f} | {spread:.2f} | {covered:.3f} "
            f"| {width:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
