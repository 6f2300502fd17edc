"""What it costs to reuse a setting where it was not tuned: within a sweep, or at the target of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_regret import card_regret
from hpsweep.analysis.transfer.comparison import tuned_against_transferred


def regret(
    runs: pd.DataFrame,
    *,
    card: Card | None = None,
    over: str | None = None,
    proxy: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The loss lost by reusing a tuned setting instead of tuning anew, nats/token, with a 95 % interval.

    With `card` one row: what its setting costs at its target, which `runs` have trained and tuned for itself.

    setting, used_loss    what the card carries, and the loss there: used_from "measured" in used_runs runs, "fitted" or
                          "interpolated" from the target's own curve, or null with the reason in `why`
    own_value, own_loss   the target's own optimum with its interval, over all hyperparameters tried there, and its loss
    octaves               log2(setting / own_value)
    regret, low, high     used_loss - own_loss; percent of own_loss

    Without one a row per scheme, width and density of `runs`: what the proxy's optimum of `over` costs there. `over` is
    by default the hyperparameter with most values; `proxy` as in `transfer`.

    tuned_value, tuned_loss               the model's own optimum, over all hyperparameters tried, and the loss there
    proxy_value                           the proxy's optimum, taken as given; mup's and supar's stand in for each other
                                          at base density, where the two are one
    transferred_loss, transferred_from    the loss at that setting, and how it is known
    regret, regret_low, regret_high       transferred_loss - tuned_loss
    best_scheme, best_loss                the scheme with the lowest tuned loss at this width and density

    Where `status` is not ok the own optimum is a bound: the regret is at least what is given, its upper end null. Below
    0 it is noise. Losses are means as if every seed had been run everywhere.

    Raises ValueError as `optima` does, for what is no card, where runs of the card's target are missing or of another
    model, batch, duration or data, for a card of two hyperparameters tuned together, and for over or proxy beside a
    card, which says both.
    """
    if card is None:
        return tuned_against_transferred(runs, over=over, proxy=proxy, ignore=ignore, resamples=resamples, seed=seed)
    if over is not None or proxy is not None:
        given = "over" if over is not None else "proxy"
        raise ValueError(f"{given} is given beside a card, which says what was tuned and where; leave {given} out.")
    return card_regret(card, runs, ignore=ignore, resamples=resamples, seed=seed)
