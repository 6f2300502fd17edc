"""Does the best learning rate stay put as hidden weights get sparser?

Expected: it moves by about one octave per halving of density under sp, and stays within a quarter of an octave under
supar, so that the rate tuned on the dense proxy is right for the sparse model.
Cost: 138 trials of width 128, 2 to 5 minutes on two cores with the native engine. 132 of them took 2 min 12 s where a
core does 273 GFLOP/s (AVX-512), 4 min 54 s where it does 113; 5 min 30 s with torch on the former (docs/benchmarks.md).
Run: make sweep
Result: results/reference/lr_by_density, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="lr_by_density",
    base=Trial(
        width=128,
        base_width=128,
        depth=2,
        head_size=32,
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,  # with 0.1 losses beside the optimum differ more between seeds: warmup.py
        embedding_lr_mult=8.0,  # tuned on the dense proxy: experiments/embedding_lr_mult.py
    ),
    grid=[
        {
            "scheme": ["supar", "sp"],
            "density": [1, 1 / 4, 1 / 16],
            "lr": [2.0**k for k in range(-10, -1)],
            "seed": [0, 1],
        },
        # Two seeds tell that sp moves; that supar stays within a bound needs more of them around its optimum.
        {
            "scheme": ["supar"],
            "density": [1, 1 / 4, 1 / 16],
            "lr": [2.0**k for k in range(-10, -5)],
            "seed": [2, 3],
        },
    ],
    target=Target(width=1024, density=1 / 16, depth=12, head_size=64, context=1024, vocabulary=50257),
)
