"""What a transfer cost, as a figure: the curves of proxy and target, and the gap at the setting that was carried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hpsweep.analysis import plot_marks as marks
from hpsweep.analysis import plot_style as style
from hpsweep.analysis.card import Card
from hpsweep.analysis.card_regret import card_regret, curve_runs
from hpsweep.analysis.plot_style import GREY, INK, LABEL, SCHEMES
from hpsweep.analysis.plot_tables import curve_table

PROXY = style.Look("#8a8a8a", "v", "proxy")

CROSS: dict[str, Any] = {"marker": "x", "markersize": 4, "markeredgewidth": 1.0}

Curves = list[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]
"""Per panel a row of `card_regret`, and tables of the target's curve and the proxy's, which may be empty."""


def curves(cards: Sequence[Card], runs: pd.DataFrame, proxies: pd.DataFrame | None = None) -> Curves:
    """What the figure draws, a panel per card in the order of the schemes.

    `runs` are those of the targets, `proxies` those that the cards rest on, found by their ids; without them, or where
    they are others, a panel has the target's curve alone.
    """
    found = []
    for card in sorted(cards, key=lambda card: list(SCHEMES).index(card.scheme)):
        row = card_regret(card, runs).to_dict("records")[0]
        own = curve_table(curve_runs(card, runs), row["hyperparameter"])
        rests_on = set(card.evidence["trial_ids"])
        used = runs.iloc[:0] if proxies is None else proxies[proxies["trial_id"].isin(rests_on)]
        found.append(
            (
                {str(name): value for name, value in row.items()} | _names(card),
                own,
                curve_table(used, row["hyperparameter"]),
            )
        )
    return found


def _names(card: Card) -> dict[str, Any]:
    def name(of: dict[str, Any]) -> str:
        density = "dense" if of["density"] == 1 else f"density {style.value_label('density', of['density'])}"
        return f"width {of['width']}, {density}"

    return {"proxy": name(card.proxy), "target": name(card.target), "proxy_loss": card.optimum["loss_opt"]}


def transfer_figure(panels: Curves) -> Figure:
    """Loss against the hyperparameter, a panel per card on one loss axis.

    Grey: the proxy, and its optimum, through which a dashed line leads to the target at the same setting. In colour:
    the target, its own optimum with the interval, and as a bar what the setting loses to it: the regret. Crosses on
    top: values at which a seed diverged.
    """
    figure = Figure(figsize=(max(2.45 * len(panels), 4.2), 3.7), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    x, y = _ranges(panels)
    for ax, (row, own, proxy) in zip(axes, panels, strict=True):
        style.frame(ax)
        style.log2_axis(ax, "x", *x, most=6)
        ax.set_ylim(*y)
        ax.set_xlabel(style.NAMES.get(row["hyperparameter"], row["hyperparameter"]), fontsize=LABEL, color=INK)
        _panel(ax, row, own, proxy)
    axes[0].set_ylabel("validation loss (nats/token)", fontsize=LABEL, color=INK)
    marks.legend(figure, _key(panels), loc="outside lower center", ncols=min(len(panels), 3))
    return figure


def _ranges(panels: Curves) -> tuple[tuple[float, float], tuple[float, float]]:
    """x over all values; y from the lowest loss to a little above the highest that a panel has to show."""
    tables = [table for _, *both in panels for table in both if len(table)]
    over = panels[0][0]["hyperparameter"]
    values = np.concatenate([table[over].to_numpy(float) for table in tables])
    losses = [row[name] for row, *_ in panels for name in ("used_loss", "own_loss")]
    lowest = [table["loss"].min() for table in tables]
    low, high = float(np.nanmin([*losses, *lowest])), float(np.nanmax([*losses, *lowest]))
    room = max(high - low, 0.05)
    return (float(values.min()) * 2**-0.3, float(values.max()) * 2**0.3), (low - 0.1 * room, high + 0.25 * room)


def _panel(ax: Axes, row: dict[str, Any], own: pd.DataFrame, proxy: pd.DataFrame) -> None:
    """One card: curves, optima, and the gap."""
    over, look = row["hyperparameter"], SCHEMES[row["scheme"]]
    for table, of in ((proxy, PROXY), (own, look)):
        ax.fill_between(table[over], table["low"], table["high"], color=of.color, alpha=0.18, linewidth=0, zorder=2)
        whole = table["loss"].where(table["n_diverged"] == 0)
        ax.plot(table[over], whole, color=of.color, linewidth=1.2, marker=of.marker, markersize=2.8, zorder=3)
        lost = table.loc[table["n_diverged"] > 0, over]
        ax.plot(
            lost, [0.975] * len(lost), linestyle="none", color=of.color, transform=ax.get_xaxis_transform(), **CROSS
        )
    setting, used, least = row["setting"], row["used_loss"], row["own_loss"]
    if len(proxy):
        ax.plot(setting, row["proxy_loss"], marker=PROXY.marker, markersize=6.5, color=PROXY.color,
                markeredgecolor="white", markeredgewidth=0.9, zorder=7)  # fmt: skip
    ax.axvline(setting, color=GREY, linewidth=0.8, linestyle=marks.DASHED, zorder=1)
    ends, ok = (row["own_low"], row["own_high"]), row["status"] == "ok"
    marks.bar(ax, (row["own_value"], least), ends, look, sure=ok, arrow=(0, 0), size=6.4)
    if np.isfinite(used):
        ax.plot([setting, row["own_value"]], [least] * 2, color=look.color, linewidth=0.7, linestyle=":", zorder=4)
        ax.plot(
            [setting] * 2, [least, used], color=look.color, linewidth=4.0, alpha=0.45, solid_capstyle="butt", zorder=5
        )
        ax.plot(setting, used, marker="*", markersize=11, color=look.color, markeredgecolor="white",
                markeredgewidth=0.8, zorder=8)  # fmt: skip
    marks.heading(ax, look.label, _sentence(row), 2)


def _sentence(row: dict[str, Any]) -> str:
    """The regret in two lines."""
    if math.isnan(row["regret"]):
        return f"regret unknown:\n{row['why'].split(';')[-1].strip()[:44]}"
    least = "" if row["status"] == "ok" else "at least "
    interval = f"[{row['low']:.3f}, {row['high']:.3f}]".replace("-", "\N{MINUS SIGN}")
    regret = f"{row['regret']:.3f}".replace("-", "\N{MINUS SIGN}")
    return f"regret {least}{regret} {interval}\nnats/token, {row['percent']:.1f} %"


def _key(panels: Curves) -> list[marks.Handle]:
    """Handles of what is drawn, and no other."""
    row = panels[0][0]
    ends: dict[str, Any] = {"marker": "o", "markersize": 5.5, "linestyle": "-", "linewidth": 1.5}
    grey: dict[str, Any] = {"marker": PROXY.marker, "color": PROXY.color, "markersize": 4}
    key: list[tuple[bool, marks.Handle]] = [
        (any(len(proxy) for *_, proxy in panels), Line2D([], [], label=f"proxy: {row['proxy']}", **grey)),
        (True, marks.symbol(f"target: {row['target']}", linestyle="-", linewidth=1.2, marker="o", markersize=2.8)),
        (True, marks.symbol("target's own optimum, 95 % interval", **ends)),
        (True, marks.symbol("target at the proxy's setting", marker="*", markersize=9)),
        (True, Patch(facecolor=INK, alpha=0.4, label="regret")),
        (any(table["n_diverged"].any() for _, *both in panels for table in both), marks.symbol("diverged", **CROSS)),
    ]
    return [handle for used, handle in key if used]


def draw_transfer(
    cards: Sequence[Card], runs: pd.DataFrame, folder: Path, proxies: pd.DataFrame | None = None
) -> list[Path]:
    """The figure as PNG and SVG in the folder; returns the paths."""
    return style.save(transfer_figure(curves(cards, runs, proxies)), Path(folder) / "transfer")
