"""Do the best learning rate and the best init std depend on each other, and which of the two is pinned down?

Expected: lr is, within half an octave; init std is not under supar, where the basin is flat, and rises as density
falls under sp; the two are nearly independent.
Cost: 840 trials of width 32: 1 min 45 s on two cores that did other work as well, with the native engine.
Run: make sweep EXPERIMENT=lr_by_init_std
Result: lr moves by 3.5 octaves under sp and by 0.2 under supar; init std stays under supar (2^-2.94, 2^-3.04) and is
not told under sp at 1/8. LOG.md, 2026-11-30.
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="lr_by_init_std",
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
        "lr": [2.0**k for k in range(-10, 0)],
        "init_std": [2.0**k for k in range(-7, 0)],
        "seed": [0, 1, 2],
    },
    target=Target(width=256, density=1 / 16, depth=4, head_size=64),
)
