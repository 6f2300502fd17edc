"""The proxy of a demonstration: which learning rate is best for a narrow dense model?

First half of a transfer from a model of width 64, dense, to one of width 384 at density 1/16; the second half is
wide_sparse. At the base model supar, mup and sp are one model, so that both groups of a multiplier have
the same losses.

Expected: 2^-7.8 with multiplier 8, under sp and supar alike.
Cost: at most 192 trials of width 64 (80 as it was run); `hpsweep plan narrow_dense` times it.
Run: make sweep EXPERIMENT=narrow_dense; LOG.md has the cards and the runs that follow
Result: results/reference/narrow_dense, and experiments/LOG.md
"""

from hpsweep.spec import Refine, Sweep, Target, Trial

SWEEP = Sweep(
    name="narrow_dense",
    base=Trial(
        base_width=64,
        width=64,
        depth=2,
        head_size=32,
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,  # with 0.1 losses beside the optimum differ more between seeds: warmup.py
    ),
    # 8 is what embedding_lr_mult found under supar at width 128. 2 was added after embedding_lr_mult_narrow had found
    # it better at this width, under sp and under supar.
    grid={"scheme": ["supar", "sp"], "embedding_lr_mult": [2.0, 8.0]},
    search="refine",
    space={"lr": (2.0**-10, 2.0**-3)},
    refine=Refine(interval=0.5, trials=48),
    target=Target(width=384, density=1 / 16, tokens=204_800),  # as many as the proxy is trained on
)
