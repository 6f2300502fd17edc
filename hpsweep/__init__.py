"""hpsweep: tune small, train large, at any density.

A sweep, which needs torch and optuna (pip install 'hpsweep[run]'):

    import hpsweep as hp
    sweep = hp.Sweep(name="mine", base=hp.Trial(steps=300), grid={"lr": [2**-9, 2**-8, 2**-7], "seed": [0, 1]})
    runs = hp.run(sweep, "results")                      # trains what is missing; a DataFrame, one row per trial

The reading half, which needs neither torch nor ray nor optuna:

    import hpsweep as hp
    runs = hp.load("results/lr_by_density")              # a DataFrame, one row per trial
    runs = hp.runs("theirs.csv", axes={"width": "d_model"})     # the same of a table of anybody's runs
    hp.unit_of(runs)                                     # of its losses: nats/byte or nats/token; and bits/byte
    hp.optima(runs)                                      # best learning rate per group, with interval and status
    hp.surface(runs)                                     # the best of both together, where two were searched
    hp.drift(runs)                                       # octaves per halving or doubling, with interval and verdict
    hp.regret(runs)                                      # what re-using the proxy's optimum costs, where measured
    hp.regret_matrix(runs)                               # tuned here, used there: nats, percent, equivalent compute
    hp.sensitivity(runs)                                 # what a wrong learning rate costs, and the 1 % basin
    hp.held_out(runs)                                    # transfer by constant and along the drift, where measured
    card = hp.transfer(runs, target=hp.Target(width=2048, density=1/64))
    hp.regret(target_runs, card=card)                    # what the transfer cost, where the target was tuned itself
    hp.report(runs).save("results/lr_by_density")        # all of it as a page
    hp.plot.optimum_stability(runs)                      # figures, of runs or of tables: hpsweep.plot
    law = hp.law.fit_sweep(runs)                         # the sparse scaling law, of any table too: hpsweep.law

Your own model, which needs torch:

    plan = hp.parametrize(model, "supar", base=narrow_model, density=1/16)         # plain data, a line per tensor
    card.plan(model, base=narrow_model)                                            # the same of a card
    plan.init_(model, init_std=0.08, seed=0)
    plan.wire_(model, inputs)                            # forward multipliers and attention scales, set and measured
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=2**-7, weight_decay=0.1))
    plan.attach(model, optimizer)                        # pruned weights stay exactly zero
    sizes = hp.coords.check(build, widths=[64, 256], densities=[1, 1/16])      # does it scale? docs/coords.md
    print(hp.coords.text(hp.coords.slopes(sizes)))                        # the verdict, a line per module

Your own model, loop or script as what a sweep trains, in an experiment file:

    SWEEP = hp.Sweep(name="mine", model=build, base=hp.Trial(...), grid=...)   # docs/own_model_sweep.md
    SWEEP = hp.Sweep(name="mine", command=["python", "train.py", "--lr={lr}"], ...)          # docs/own_script.md

In your own training script, which needs nothing:

    trial = hp.this_trial()                              # false outside of a sweep, and does nothing then
    trial.into(args, learning_rate="lr", n_embd="width", min_lr="lr/10")
    trial.report(step, val_loss=loss)                    # docs/own_script.md

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpsweep import coords as coords
    from hpsweep import law as law
    from hpsweep import plot as plot
    from hpsweep.analysis.optimum.joint import surface as surface
    from hpsweep.analysis.optimum.optima import optima as optima
    from hpsweep.analysis.optimum.sensitivity import sensitivity as sensitivity
    from hpsweep.analysis.report.page import Report as Report
    from hpsweep.analysis.runs.foreign import runs as runs
    from hpsweep.analysis.transfer.along_drift import held_out as held_out
    from hpsweep.analysis.transfer.card import Card as Card
    from hpsweep.analysis.transfer.drift import drift as drift
    from hpsweep.analysis.transfer.regret import regret as regret
    from hpsweep.analysis.transfer.regret_matrix import regret_matrix as regret_matrix
    from hpsweep.analysis.transfer.transfer import transfer as transfer
    from hpsweep.own_model.parametrize import parametrize as parametrize
    from hpsweep.own_model.plan import Plan as Plan
    from hpsweep.own_training.run import Run as Run
    from hpsweep.running_trial import this_trial as this_trial
    from hpsweep.spec import Loop as Loop
    from hpsweep.spec import Model as Model
    from hpsweep.spec import Refine as Refine
    from hpsweep.spec import Sweep as Sweep
    from hpsweep.spec import Target as Target
    from hpsweep.spec import Trial as Trial
    from hpsweep.spec.command import Command as Command
    from hpsweep.store import load as load
    from hpsweep.store import load_curves as load_curves
    from hpsweep.sweep.entry import run as run
    from hpsweep.sweep.recorded import report as report
    from hpsweep.units import unit_of as unit_of

__version__ = "0.1.0"

# Loaded when first used: a worker that trains imports no pandas, a notebook that plots imports no torch.
_HOME = {
    "Command": "hpsweep.spec.command",
    "Loop": "hpsweep.spec",
    "Model": "hpsweep.spec",
    "Refine": "hpsweep.spec",
    "Run": "hpsweep.own_training.run",
    "Sweep": "hpsweep.spec",
    "Target": "hpsweep.spec",
    "Trial": "hpsweep.spec",
    "this_trial": "hpsweep.running_trial",
    "run": "hpsweep.sweep.entry",
    "load": "hpsweep.store",
    "load_curves": "hpsweep.store",
    "runs": "hpsweep.analysis.runs.foreign",
    "unit_of": "hpsweep.units",
    "optima": "hpsweep.analysis.optimum.optima",
    "surface": "hpsweep.analysis.optimum.joint",
    "sensitivity": "hpsweep.analysis.optimum.sensitivity",
    "drift": "hpsweep.analysis.transfer.drift",
    "regret": "hpsweep.analysis.transfer.regret",
    "regret_matrix": "hpsweep.analysis.transfer.regret_matrix",
    "held_out": "hpsweep.analysis.transfer.along_drift",
    "Card": "hpsweep.analysis.transfer.card",
    "transfer": "hpsweep.analysis.transfer.transfer",
    "Report": "hpsweep.analysis.report.page",
    "report": "hpsweep.sweep.recorded",
    "Plan": "hpsweep.own_model.plan",
    "parametrize": "hpsweep.own_model.parametrize",
}
_MODULES = ("coords", "law", "plot")
__all__ = sorted([*_HOME, *_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"hpsweep.{name}")
    if name not in _HOME:
        raise AttributeError(f"hpsweep has no {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
