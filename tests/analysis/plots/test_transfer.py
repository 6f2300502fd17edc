"""The figure of a card's regret: the gap that is drawn is the regret of the table, and every mark has its key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from hpsweep.analysis.plots.transfer import curves, draw_transfer, transfer_figure
from hpsweep.analysis.transfer.transfer import transfer
from tests.analysis.optimum.test_optima import OCTAVES, bowl, made_runs
from tests.analysis.transfer.test_card_regret import LOSS, PROXY, TARGET, carded, tuned

DENSE = made_runs(bowl(-7.0), {"lr": OCTAVES, "seed": [0, 1]}, base=PROXY)


def lines(ax: Axes, **look: Any) -> list[tuple[list[float], list[float]]]:
    """(x, y) of the lines of an Axes with this look."""
    chosen = [line for line in ax.lines if all(getattr(line, f"get_{name}")() == value for name, value in look.items())]
    return [(list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata()))) for line in chosen]


def test_the_bar_is_the_regret_and_the_star_the_loss_at_the_cards_setting() -> None:
    (ax,) = transfer_figure(curves([carded()], tuned(), DENSE)).axes
    ((x, y),) = lines(ax, marker="*")
    assert (x, y) == ([pytest.approx(2.0**-7)], [pytest.approx(2.1)])
    ((x, y),) = lines(ax, linewidth=4.0)
    assert (x, y) == ([pytest.approx(2.0**-7)] * 2, [pytest.approx(1.9), pytest.approx(2.1)])
    assert any("regret 0.200 [0.196, 0.204]\nnats/byte, 10.5 %" in text.get_text() for text in ax.texts)


def test_there_is_a_panel_per_card_in_the_order_of_the_schemes_with_its_own_curves() -> None:
    dense = pd.concat([DENSE, DENSE.assign(scheme="sp", trial_id="sp" + DENSE["trial_id"])])
    cards = [transfer(dense, TARGET, scheme=scheme) for scheme in ("supar", "sp", "mup")]
    runs = pd.concat([tuned(), tuned().assign(scheme="mup"), tuned().assign(scheme="sp")])
    figure = transfer_figure(curves(cards, runs.assign(trial_id=range(len(runs))), dense))
    assert [ax.get_title("left") for ax in figure.axes] == ["SP", "μP", "SuPar"]
    for ax in figure.axes:  # mup's proxy is supar's: dense, the two are one
        assert len(lines(ax, linewidth=1.2)) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "proxy: width 64, dense", "proxy's optimum", "the setting carried", "target: width 256, density 1/16",
        "target's own optimum, 95 % interval", "target at that setting", "regret", "loss at its own optimum",
    ]  # fmt: skip
    assert "diverged" not in labels


def test_without_the_proxys_runs_the_targets_curve_stands_alone() -> None:
    for proxies in (None, DENSE.assign(trial_id="another")):
        figure = transfer_figure(curves([carded()], tuned(), proxies))
        drawn = [x for x, _ in lines(figure.axes[0], linewidth=1.2) if x]
        assert len(drawn) == 1
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels[:2] == ["the setting carried", "target: width 256, density 1/16"]


def test_bounds_and_what_is_not_known_are_said_and_divergences_marked() -> None:
    (ax,) = transfer_figure(curves([carded()], tuned(bowl(-1.0)), DENSE)).axes
    assert any(text.get_text().startswith("regret at least 1.600") for text in ax.texts)
    figure = transfer_figure(curves([carded()], tuned(lambda t: math.inf if t.lr == 2.0**-7 else LOSS(t)), DENSE))
    (ax,) = figure.axes
    assert any(text.get_text().startswith("regret unknown:\nthe setting diverges here") for text in ax.texts)
    assert not lines(ax, linewidth=4.0)
    assert [x for x, _ in lines(ax, marker="x") if x] == [[2.0**-7]]
    assert figure.legends[0].get_texts()[-1].get_text() == "diverged"


def test_it_is_written_as_png_and_svg(tmp_path: Path) -> None:
    assert [path.name for path in draw_transfer([carded()], tuned(), tmp_path)] == ["transfer.png", "transfer.svg"]
