"""Should attention be scaled from the base model's head size, or by 1 / head size as the published code has it?

base_head_size 1 is the published scale. With base_head_size 32 the dense base model is that of sp.

Expected: from the base's head size supar is better everywhere, by most where the published scale makes logits smallest,
and the best learning rate stays where it is when width, head size and density change.
Cost: 384 trials of widths 64 and 128; `hpsweep plan attention_scale` times it.
Run: make sweep EXPERIMENT=attention_scale
Result: results/reference/attention_scale, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Trial

SWEEP = Sweep(
    name="attention_scale",
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
    grid={
        "base_head_size": [1, 32],
        "head_size": [32, 64],
        "width": [64, 128],
        "density": [1, 1 / 16],
        "lr": [2.0**k for k in range(-11, -3)],
        "seed": [0, 1, 2],
    },
)
