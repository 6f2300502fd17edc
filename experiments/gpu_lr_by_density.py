"""The stability question at the size of a GPU node: six densities, two widths, half octaves, three seeds.

The data is your own: nanoGPT's prepared OpenWebText (data/openwebtext/prepare.py there writes train.bin and val.bin).

Expected: under supar the optimum stays within a quarter octave per halving down to density 1/64; sp and mup move.
Cost: 2052 trials of 33 million tokens each; 2.4e19 dense FLOPs in all. Not run yet: `hpsweep plan` estimates
the time on your machine.
Run: make sweep EXPERIMENT=gpu_lr_by_density ADDRESS=auto
Result: none yet.
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="gpu_lr_by_density",
    base=Trial(
        base_width=256,
        width=256,
        depth=4,
        head_size=64,
        context=256,
        batch=32,
        steps=4000,
        precision="bfloat16",
        embedding_lr_mult=8.0,
        data="bin:data/openwebtext/train.bin?validation=data/openwebtext/val.bin&dtype=uint16&vocabulary=50257",
    ),
    grid={
        "scheme": ["supar", "mup", "sp"],
        "width": [256, 1024],
        "density": [1, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64],
        "lr": [2.0 ** (k / 2) for k in range(-22, -3)],
        "seed": [0, 1, 2],
    },
    target=Target(width=4096, density=1 / 64, depth=32, head_size=128, context=2048, vocabulary=50257),
)
