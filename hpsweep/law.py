"""The sparse scaling law: fit it to a table or a sweep, and ask what it says of models that were not trained.

    law = hp.law.fit_law(table, loss="loss", params="N", tokens="D", sparsity="S")     # or hp.law.fit_sweep(runs)
    law.predict(points)                                                                # losses, with 95 % bands
    law.optimal_sparsity(budgets)                                                      # under a named cost of a step

Equations, conventions and what was measured: docs/law.md.
"""

from __future__ import annotations

from hpsweep.analysis.law.budget import dense_equivalent, loss_contours, optimal_sparsity, sparsity_contours
from hpsweep.analysis.law.law import PUBLISHED, Law, fit_law, fit_sweep
from hpsweep.analysis.law.predict import evaluate, predict, score
from hpsweep.analysis.law.words import law_verdict as verdict
from hpsweep.analysis.law.words import scope

__all__ = [
    "PUBLISHED",
    "Law",
    "dense_equivalent",
    "evaluate",
    "fit_law",
    "fit_sweep",
    "loss_contours",
    "optimal_sparsity",
    "predict",
    "scope",
    "score",
    "sparsity_contours",
    "verdict",
]
