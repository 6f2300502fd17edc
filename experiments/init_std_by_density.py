"""Does the best init std stay put as hidden weights get sparser?

At base learning rate 2^-7.

Expected: flat basins; under supar the same at every density, under sp and at a fixed rate no clear optimum.
Cost: 84 trials of width 128, about 7 minutes on two cores.
Run: make sweep EXPERIMENT=init_std_by_density
Result: results/reference/init_std_by_density, and experiments/LOG.md
"""

from collections.abc import Sequence
from typing import Any

from hpsweep.spec import Sweep, Target, Trial

_GRID: dict[str, Sequence[Any]] = {
    "density": [1, 1 / 4, 1 / 16],
    "init_std": [0.08 * 2.0**k for k in range(-4, 3)],
    "seed": [0, 1],
}

SWEEP = Sweep(
    name="init_std_by_density",
    base=Trial(
        width=128,
        base_width=128,
        depth=2,
        head_size=32,
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,  # with 0.1 losses beside the optimum differ more between seeds: warmup.py
        embedding_lr_mult=8.0,
    ),
    grid=[
        {"scheme": ["supar"], "lr": [2.0**-7], **_GRID},
        {"scheme": ["sp"], "lr": [2.0**-7], **_GRID},
    ],
    target=Target(width=1024, density=1 / 16, depth=12, head_size=64, context=1024, vocabulary=50257),
)
