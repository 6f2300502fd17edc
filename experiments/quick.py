"""Does everything work, end to end?

Expected: figures and a card with the right shape; the models are too small and too short for a verdict to mean much.
Cost: 128 trials of width 32, under a minute on two cores. Continuous integration runs it.
Run: make sweep EXPERIMENT=quick
Result: none kept.
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="quick",
    base=Trial(
        width=32,
        base_width=32,
        depth=1,
        head_size=16,
        context=32,
        batch=8,
        steps=160,
        eval_sequences=256,
        warmup_fraction=0.3,  # with 0.1 losses beside the optimum differ more between seeds: warmup.py
        embedding_lr_mult=4.0,
    ),
    grid={
        "scheme": ["sp", "supar"],
        "density": [1, 1 / 8],
        "lr": [2.0**k for k in range(-10, -2)],
        "seed": [0, 1, 2, 3],
    },
    target=Target(width=256, density=1 / 16, depth=4, head_size=64),
)
