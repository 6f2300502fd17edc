"""Which multiplier of the embeddings' learning rate is best for the dense proxy of narrow_dense, by scheme?

embedding_lr_mult found 8 under supar at width 128; sp has never had its own.

Expected: the same under sp and supar, which are one model at the base.
Cost: 120 trials of width 64; `hpsweep plan embedding_lr_mult_narrow` times it.
Run: make sweep EXPERIMENT=embedding_lr_mult_narrow
Result: results/reference/embedding_lr_mult_narrow, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Trial

SWEEP = Sweep(
    name="embedding_lr_mult_narrow",
    base=Trial(base_width=64, width=64, depth=2, head_size=32, context=64, batch=8, steps=400, warmup_fraction=0.3),
    grid={
        "scheme": ["sp", "supar"],
        "embedding_lr_mult": [1.0, 2.0, 4.0, 8.0, 16.0],
        "lr": [2.0**k for k in range(-10, -4)],
        "seed": [0, 1],
    },
)
