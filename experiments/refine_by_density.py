"""How few trials tell whether the best learning rate stays put as hidden weights get sparser?

The question of lr_by_density on the small model of quick, asked by refinement: octaves with one seed, then half octaves
and more seeds around the optimum of each group, until its interval is an octave wide at most.

Expected: the same answer as the full half-octave grid with three seeds, with fewer trials, and an optimum also where
the grid ends before it: under sp that of the sparse model lies at the highest rate of the space.
Cost: 140 trials of width 32 when it was written, at most 256 as the losses fall out; quick trains 128 such trials.
Run: make sweep EXPERIMENT=refine_by_density; hpsweep plan refine_by_density says where each group is, and why
Result: experiments/LOG.md
"""

from hpsweep.spec import Refine, Sweep, Target, Trial

SWEEP = Sweep(
    name="refine_by_density",
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
    grid={"scheme": ["sp", "supar"], "density": [1, 1 / 8]},
    search="refine",
    space={"lr": (2.0**-10, 2.0**-3)},
    refine=Refine(interval=1.0, trials=64),
    target=Target(width=256, density=1 / 16, depth=4, head_size=64),
)
