"""Does the best learning rate stay put as a dense model gets wider?

The classic muP question, at density 1, where supar is mup.

Expected: it falls by about one octave per doubling of width under sp, and stays under mup.
Cost: 126 trials of widths 64 to 256; `hpsweep plan lr_by_width` times it.
Run: make sweep EXPERIMENT=lr_by_width
Result: results/reference/lr_by_width, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="lr_by_width",
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
            "scheme": ["mup", "sp"],
            "width": [64, 128, 256],
            "lr": [2.0**k for k in range(-11, -3)],
            "seed": [0, 1],
        },
        # As in lr_by_density: that mup stays within a bound needs more seeds around its optimum.
        {
            "scheme": ["mup"],
            "width": [64, 128, 256],
            "lr": [2.0**k for k in range(-10, -5)],
            "seed": [2, 3],
        },
    ],
    target=Target(width=1024, density=1, depth=12, head_size=64, context=1024, vocabulary=50257),
)
