"""Does the best init std stay put as hidden weights get sparser?

At base learning rate 2^-8, the best octave of the dense model (lr_by_density).

Expected: under sp it rises by up to half an octave per halving of density, as 1/sqrt(density) keeps activations their
size; under supar it stays, in flat basins.
Cost: 207 trials of width 128; `hpsweep plan init_std_by_density` times it.
Run: make sweep EXPERIMENT=init_std_by_density
Result: results/reference/init_std_by_density, and experiments/LOG.md
"""

from collections.abc import Sequence
from typing import Any

from hpsweep.spec import Sweep, Target, Trial

_GRID: dict[str, Sequence[Any]] = {
    "density": [1, 1 / 4, 1 / 16],
    "seed": [0, 1, 2],  # basins are flat, and octaves with two seeds did not pin them down
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
        lr=2.0**-8,
    ),
    grid=[
        {"scheme": ["supar"], "init_std": [0.08 * 2.0 ** (k / 2) for k in range(-8, 4)], **_GRID},
        {"scheme": ["sp"], "init_std": [0.08 * 2.0 ** (k / 2) for k in range(-2, 9)], **_GRID},
    ],
    target=Target(width=1024, density=1 / 16, depth=12, head_size=64, context=1024, vocabulary=50257),
)
