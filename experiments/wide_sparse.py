"""What does it cost to train a wide sparse model with the learning rate of a narrow dense one?

The target of narrow_dense, tuned for itself: six times wider, at density 1/16, everything else equal. Its own best
learning rate is what the transferred one is measured against. As wide as two cores train in half an hour, with one
multiplier of the embeddings' learning rate.

Expected: under supar less than 0.02 nats/byte, the optimum being within half an octave. Under mup some 0.35: it lacks
the correction of four octaves for density. Under sp about 0.1: its hidden weights lack the correction for width and
that for density, which are opposed and leave 1.4 octaves here (m_d m_rho = 6/16). At width 1024 they would cancel, and
sp's setting would be right there by accident.
Cost: at most 144 trials of width 384 (136 as it was run); `hpsweep plan wide_sparse` times it.
Run: make sweep EXPERIMENT=wide_sparse, after narrow_dense; LOG.md has the cards and hpsweep regret
Result: results/reference/wide_sparse, and experiments/LOG.md
"""

from hpsweep.spec import Refine, Sweep, Trial

SWEEP = Sweep(
    name="wide_sparse",
    base=Trial(
        base_width=64,
        width=384,
        density=1 / 16,
        depth=2,
        head_size=32,
        context=64,
        batch=8,
        steps=400,
        warmup_fraction=0.3,
    ),
    grid={"scheme": ["mup", "supar", "sp"], "embedding_lr_mult": [2.0, 8.0]},
    search="refine",
    space={"lr": (2.0**-10, 2.0**-2)},
    refine=Refine(interval=1.0, trials=24),
)
