"""hpsweep: tune small, train large, at any density.

A sweep, which needs torch and optuna (pip install 'hpsweep[run]'):

    import hpsweep as hp
    sweep = hp.Sweep(name="mine", base=hp.Trial(steps=300), grid={"lr": [2**-9, 2**-8, 2**-7], "seed": [0, 1]})
    runs = hp.run(sweep, "results")                      # trains what is missing; a DataFrame, one row per trial

The reading half, which needs neither torch nor ray nor optuna:

    import hpsweep as hp
    runs = hp.load("results/lr_by_density")              # a DataFrame, one row per trial
    hp.unit_of(runs)                                     # of its losses: nats/byte or nats/token; and bits/byte
    hp.optima(runs, by=["scheme", "density"])            # best learning rate per group, with interval and status
    hp.surface(runs, over=["lr", "init_std"])            # the best of both together, where both were searched
    hp.drift(runs, along="density", by=["scheme"])       # octaves per halving, with interval and verdict
    hp.regret(runs)                                      # what re-using the proxy's optimum costs, where measured
    hp.regret_matrix(runs)                               # tuned here, used there: nats, percent, equivalent compute
    hp.sensitivity(runs, by=["scheme", "density"])       # what a wrong learning rate costs, and the 1 % basin
    hp.held_out(runs)                                    # transfer by constant and along the drift, where measured
    card = hp.transfer(runs, target=hp.Target(width=2048, density=1/64))
    hp.regret(target_runs, card=card)                    # what the transfer cost, where the target was tuned itself
    law = hp.fit_law(table, loss="loss", params="N", tokens="D", sparsity="S")     # or hp.fit_sweep(runs)
    hp.optimal_sparsity(law, budgets)                    # with a band, under a named cost of a sparse step

Your own model, which needs torch:

    plan = hp.parametrize(model, "supar", base=narrow_model, density=1/16)         # plain data, a line per tensor
    plan.init_(model, init_std=0.08, seed=0)
    plan.wire_(model, inputs)                            # forward multipliers and attention scales, set and measured
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=2**-7, weight_decay=0.1))
    plan.attach(model, optimizer)                        # pruned weights stay exactly zero
    sizes = hp.coordinate_check(build, widths=[64, 256], densities=[1, 1/16])      # does it scale? docs/coords.md
    print(hp.coordinate_text(hp.coordinate_slopes(sizes)))                         # the verdict, a line per module

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpsweep.analysis.coords import coordinate_slopes as coordinate_slopes
    from hpsweep.analysis.coords import coordinate_text as coordinate_text
    from hpsweep.analysis.coords import coordinate_verdicts as coordinate_verdicts
    from hpsweep.analysis.law.budget import dense_equivalent as dense_equivalent
    from hpsweep.analysis.law.budget import optimal_sparsity as optimal_sparsity
    from hpsweep.analysis.law.law import Law as Law
    from hpsweep.analysis.law.law import fit_law as fit_law
    from hpsweep.analysis.law.law import fit_sweep as fit_sweep
    from hpsweep.analysis.law.predict import predict as predict
    from hpsweep.analysis.optimum.joint import surface as surface
    from hpsweep.analysis.optimum.optima import optima as optima
    from hpsweep.analysis.optimum.sensitivity import sensitivity as sensitivity
    from hpsweep.analysis.report.page import report as report
    from hpsweep.analysis.transfer.along_drift import held_out as held_out
    from hpsweep.analysis.transfer.card import Card as Card
    from hpsweep.analysis.transfer.drift import drift as drift
    from hpsweep.analysis.transfer.regret import regret as regret
    from hpsweep.analysis.transfer.regret_matrix import regret_matrix as regret_matrix
    from hpsweep.analysis.transfer.transfer import transfer as transfer
    from hpsweep.coords.check import coordinate_check as coordinate_check
    from hpsweep.own_model.parametrize import parametrize as parametrize
    from hpsweep.own_model.plan import Plan as Plan
    from hpsweep.spec import Refine as Refine
    from hpsweep.spec import Sweep as Sweep
    from hpsweep.spec import Target as Target
    from hpsweep.spec import Trial as Trial
    from hpsweep.store import load as load
    from hpsweep.store import load_curves as load_curves
    from hpsweep.sweep.entry import run as run
    from hpsweep.units import unit_of as unit_of

__version__ = "0.1.0"

# Loaded when first used: a worker that trains imports no pandas, a notebook that plots imports no torch. What lies
# above sweep is here alone, and not among the imports for type checkers, since sweep imports this file.
_HOME = {
    "Refine": "hpsweep.spec",
    "Sweep": "hpsweep.spec",
    "Target": "hpsweep.spec",
    "Trial": "hpsweep.spec",
    "run": "hpsweep.sweep.entry",
    "load": "hpsweep.store",
    "load_curves": "hpsweep.store",
    "unit_of": "hpsweep.units",
    "optima": "hpsweep.analysis.optimum.optima",
    "surface": "hpsweep.analysis.optimum.joint",
    "drift": "hpsweep.analysis.transfer.drift",
    "regret": "hpsweep.analysis.transfer.regret",
    "regret_matrix": "hpsweep.analysis.transfer.regret_matrix",
    "held_out": "hpsweep.analysis.transfer.along_drift",
    "sensitivity": "hpsweep.analysis.optimum.sensitivity",
    "Card": "hpsweep.analysis.transfer.card",
    "transfer": "hpsweep.analysis.transfer.transfer",
    "report": "hpsweep.analysis.report.page",
    "Law": "hpsweep.analysis.law.law",
    "fit_law": "hpsweep.analysis.law.law",
    "fit_sweep": "hpsweep.analysis.law.law",
    "predict": "hpsweep.analysis.law.predict",
    "optimal_sparsity": "hpsweep.analysis.law.budget",
    "dense_equivalent": "hpsweep.analysis.law.budget",
    "plots": "hpsweep.analysis.plots.figures",
    "Plan": "hpsweep.own_model.plan",
    "parametrize": "hpsweep.own_model.parametrize",
    "plan_from_card": "hpsweep.export.own_module",
    "coordinate_check": "hpsweep.coords.check",
    "coordinate_slopes": "hpsweep.analysis.coords",
    "coordinate_text": "hpsweep.analysis.coords",
    "coordinate_verdicts": "hpsweep.analysis.coords",
}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"hpsweep has no {name!r}; it has {', '.join(__all__)}.")
    module = importlib.import_module(_HOME[name])
    return module if name == "plots" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
