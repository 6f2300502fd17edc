"""How much faster should embeddings learn than the base learning rate says?

With one global rate the embedding's rises whenever the hidden matrices ask for a higher one, and that is most of what
a re-tuned sp gains. So the factor is tuned once, on the dense proxy, and held at every density afterwards.

Expected: a factor between 4 and 16 lowers the best loss; the best base lr hardly moves.
Cost: 70 trials of width 128; `hpsweep plan embedding_lr_mult` times it.
Run: make sweep EXPERIMENT=embedding_lr_mult
Result: results/reference/embedding_lr_mult, and experiments/LOG.md
"""

from hpsweep.spec import Sweep, Target, Trial

SWEEP = Sweep(
    name="embedding_lr_mult",
    base=Trial(
        width=128,
        base_width=128,
        depth=2,
        head_size=32,
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,  # with 0.1 losses beside the optimum differ more between seeds: warmup.py
    ),
    grid={
        "embedding_lr_mult": [1, 2, 4, 8, 16],
        "lr": [2.0**k for k in range(-10, -3)],
        "seed": [0, 1],
    },
    target=Target(width=1024, density=1 / 16, depth=12, head_size=64, context=1024, vocabulary=50257),
)
