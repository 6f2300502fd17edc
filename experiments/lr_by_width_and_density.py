"""Does the best learning rate stay put when a model gets wider and sparser at once?

This is the transfer that hpsweep is for: from a narrow dense proxy to a wide sparse target.

Expected: under supar it stays within half an octave over four-fold width and 16-fold density; under mup it rises as
density falls.
Cost: 238 trials of widths 64 to 256, 42 minutes on two cores that did other work as well (AVX2, the native engine).
Run: make sweep EXPERIMENT=lr_by_width_and_density
Result: results/reference/lr_by_width_and_density, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="lr_by_width_and_density",
    base=Trial(
        base_width=64,
        width=64,
        depth=2,
        head_size=32,
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,  # with 0.1 losses beside the optimum differ more between seeds: warmup.py
        embedding_lr_mult=8.0,
    ),
    grid=[
        {
            "scheme": ["supar"],
            "width": [64, 128, 256],
            "density": [1, 1 / 4, 1 / 16],
            "lr": [2.0**k for k in range(-11, -4)],
            "seed": [0, 1],
        },
        # As in lr_by_density: that supar stays within a bound needs more seeds around its optimum.
        {
            "scheme": ["supar"],
            "width": [64, 128, 256],
            "density": [1, 1 / 4, 1 / 16],
            "lr": [2.0**k for k in range(-10, -6)],
            "seed": [2, 3],
        },
        {
            "scheme": ["mup"],
            "width": [64, 256],
            "density": [1, 1 / 16],
            "lr": [2.0**k for k in range(-10, 0)],
            "seed": [0],
        },
    ],
    target=Target(width=1024, density=1 / 16, depth=12, head_size=64, context=1024, vocabulary=50257),
)
