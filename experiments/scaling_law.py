"""How does the tuned loss fall with nonzero weights, data and sparsity, and is sparsity worth its price?

Expected: the loss falls with nonzero weights at every density and with data at every size; over a 16-fold range of data
and widths that two cores can train, the exponents are told apart badly, the floor c not at all.
Cost: 316 trials of widths 32 to 256 and 100 to 1600 steps. It took 2 h 7 min on two cores that did other work as well;
`hpsweep plan scaling_law` times this machine, and says minutes where cores are fast and free.
Run: make sweep EXPERIMENT=scaling_law, then: hpsweep law results/scaling_law
Result: results/reference/scaling_law, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Trial

STEPS = [100, 400, 1600]  # x 512 tokens
DENSITY = [1, 1 / 2, 1 / 4, 1 / 16]
# Under that scale of attention supar's optima at 400 steps lie between 2^-7 and 2^-6 (LOG.md, 2026-11-20).
LR = [2.0**k for k in (-8, -7, -6)]

SWEEP = Sweep(
    name="scaling_law",
    base=Trial(
        scheme="supar",
        base_width=64,
        width=64,
        depth=2,
        head_size=32,
        base_head_size=1,  # the scale of the published code: what all runs had when these were trained
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,
        embedding_lr_mult=8.0,
    ),
    grid=[
        {"width": [32, 64, 128, 256], "density": DENSITY, "steps": STEPS, "lr": LR, "seed": [0]},
        # The small ones are cheap: a second seed says how far a loss can be trusted.
        {"width": [32, 64], "density": DENSITY, "steps": STEPS, "lr": LR, "seed": [1]},
        # Three amounts of data fit the data term and the floor; more of them test its form.
        {"width": [32, 64, 128, 256], "density": DENSITY, "steps": [200], "lr": LR, "seed": [0]},
        {"width": [32, 64, 128], "density": DENSITY, "steps": [800], "lr": LR, "seed": [0]},
        # Do short runs want higher rates? They do not.
        {"width": [32, 64, 128, 256], "density": DENSITY, "steps": [100], "lr": [2.0**-5], "seed": [0]},
    ],
)
