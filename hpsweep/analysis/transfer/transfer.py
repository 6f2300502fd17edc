"""From a tuned proxy to a large sparse target: the card, and what transferring costs where that was measured.

The base hyperparameters (lr, init std, ... at m_d = m_rho = 1) are read off the proxy's runs; the rules turn them into
the numbers of every kind of tensor at the target's width and density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.optimum.joint import JointlyFitted, fields_in_order, jointly_fitted
from hpsweep.analysis.optimum.searched import asked_optimum
from hpsweep.analysis.runs.arguments import check_frame, check_over, check_resamples, check_seed
from hpsweep.analysis.runs.checks import TRIAL_FIELDS, column_such
from hpsweep.analysis.runs.places import place_axes
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.comparison import comparison_of
from hpsweep.analysis.transfer.joint import joint_card
from hpsweep.analysis.transfer.proxy import TunedSweep, prepared_with, select_proxy, tuned_sweep
from hpsweep.analysis.transfer.single import card_of
from hpsweep.schemes import SCHEMES, Scheme, preferred
from hpsweep.spec import TUNED, Target
from hpsweep.store.settings import is_imported
from hpsweep.text import shown


def transfer(
    runs: pd.DataFrame,
    target: Target,
    *,
    scheme: Scheme | None = None,
    over: str | Sequence[str] | None = None,
    proxy: Mapping[str, Any] | None = None,
    along_drift: bool = False,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Card:
    """The card that carries the proxy's tuned hyperparameters to `target`, by the rules of `scheme`.

    Without a word on the scheme it is supar; where there are no such runs, mup; else sp.
    The proxy is the scheme's runs at width = base_width and density = base_density; `proxy` overrides these and
    selects other fields, such as {"density": 1/4} or {"steps": 600}. `over` is interpolated; without a word it is the
    two hyperparameters that were searched together, else the one with most values. Where other searched hyperparameters
    vary in the proxy's runs, the tried values with the lowest loss are taken; among equals within noise
    those tried most often, and a warning names the rest. A minimum at the end of the grid is carried as it is, with a
    warning: it is a bound.

    By default the optimum is carried as a constant, whatever the scheme. Where it moves lawfully the card offers the
    setting along the fitted drift beside it (`along_drift` of the card), each with its interval and what it lost at the
    scale held out; a warning says so where that is recommended, and with `along_drift` it is what is carried.

    Two fields of `over`, such as ("lr", "init_std"), are carried from their joint optimum: see `joint_card`.

    Raises ValueError where there is no proxy or it has no optimum, where along_drift finds no drift offered, for runs
    that `optima` refuses, and for a target that cannot be: head size that does not divide the width, less than one
    nonzero per neuron.
    """
    if not isinstance(target, Target):
        raise ValueError(f"target is {shown(target)}; give a Target(width=..., density=...).")
    if scheme is not None and (not isinstance(scheme, str) or scheme not in SCHEMES):
        raise ValueError(f"scheme is {scheme!r}; allowed: {', '.join(SCHEMES)}.")
    check_frame(runs)
    if is_imported(runs):
        raise ValueError(
            "a card says how every tensor of a model is set, and a table of others' runs does not say what was "
            "trained: carry the optimum along the drift of hp.drift by hand, or sweep with hpsweep."
        )
    over = asked_optimum(runs, over, ignore)
    if isinstance(over, str) or not isinstance(over, Sequence):
        check_over(over, runs)
        _check_carried(over)
        sweep = tuned_sweep(runs, proxy, over, ignore=ignore, resamples=resamples, seed=seed)
        return transfer_of(sweep, target, scheme=scheme, along_drift=along_drift)
    if along_drift:
        raise ValueError("a joint optimum is carried as a constant only; leave along_drift out, or give one field.")
    pair = fields_in_order(over)
    for name in pair:
        _check_carried(name)
    check_resamples(resamples)
    check_seed(seed)
    runs, place = select_proxy(prepared_with(runs, proxy, pair, ignore), proxy)
    joint = jointly_fitted(runs, ["scheme", *place_axes(runs)], over=pair, resamples=resamples, seed=seed)
    return joint_transfer_of(joint, target, place, scheme=scheme)


def _check_carried(over: str) -> None:
    """Raise ValueError unless it is a hyperparameter that cards have."""
    if over not in TUNED:
        raise ValueError(f"over is {over!r}; a card carries one of {', '.join(TUNED)}.")


def transfer_of(
    sweep: TunedSweep,
    target: Target,
    *,
    scheme: Scheme | None = None,
    along_drift: bool = False,
    comparison: pd.DataFrame | None = None,
) -> Card:
    """The card of `transfer` from runs that were prepared and fitted, and their comparison where that is known."""
    _check_complete(sweep.runs)
    if comparison is None:
        comparison = comparison_of(sweep)
    scheme = scheme or _last_scheme(sweep.runs)
    return card_of(sweep, target, comparison, scheme=scheme, along_drift=along_drift)


def joint_transfer_of(
    joint: JointlyFitted, target: Target, proxy: Mapping[str, Any], *, scheme: Scheme | None = None
) -> Card:
    """The card of `transfer` over two hyperparameters from runs that were prepared, and whose proxy is known."""
    _check_complete(joint.runs)
    return joint_card(joint, joint.runs, target, scheme=scheme or _last_scheme(joint.runs), proxy=proxy)


def _last_scheme(runs: pd.DataFrame) -> Scheme:
    """The scheme that corrects for most, of those that the runs have."""
    return preferred(runs["scheme"].unique())[0]


def _check_complete(runs: pd.DataFrame) -> None:
    """Raise ValueError where runs do not say all that a card carries: no default of hpsweep's stands for it."""
    trained = runs[runs["status"] != "failed"]
    for name in (*TRIAL_FIELDS, "vocabulary"):
        if name not in runs:
            raise ValueError(f"the runs have no column {name!r}, which a card carries; give it: {column_such(name)}.")
        if trained[name].isna().any():
            raise ValueError(
                f"{name} is missing in {trained[name].isna().sum()} of {len(trained)} runs, and a card carries it; "
                f"leave those out, or give it: {column_such(name, some=True)}."
            )
