"""How long should the warm-up of such short runs be?

A run of 400 steps with a warm-up of 10 % meets its highest learning rate after 40 steps. What happens then differs from
seed to seed, and hides where the optimum is.

Expected: with 30 % the losses near the optimum are lower, and differ less between seeds.
Cost: 64 trials of width 128; `hpsweep plan warmup` times it.
Run: make sweep EXPERIMENT=warmup
Result: results/reference/warmup, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Trial

SWEEP = Sweep(
    name="warmup",
    base=Trial(
        width=128,
        base_width=128,
        depth=2,
        head_size=32,
        base_head_size=1,  # the scale of the published code: what all runs had when these were trained
        context=64,
        batch=8,
        steps=400,
        density=1 / 4,
        embedding_lr_mult=8.0,
    ),
    grid={
        "warmup_fraction": [0.1, 0.3],
        "lr": [2.0**k for k in range(-9, -5)],
        "seed": list(range(8)),
    },
)
