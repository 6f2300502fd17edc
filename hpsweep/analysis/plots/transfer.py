"""What a transfer cost, as a figure: the curves of proxy and target, and the gap at the setting that was carried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hpsweep.analysis.plots import layout as layout
from hpsweep.analysis.plots import marks as marks
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.output import USUAL, Output
from hpsweep.analysis.plots.style import GREY, INK, LABEL, SCHEMES
from hpsweep.analysis.plots.tables import curve_table
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_regret import card_regret, curve_runs
from hpsweep.axes import value_label
from hpsweep.english import interval_text
from hpsweep.units import unit_of_sources

PROXY = style.Look("#8a8a8a", "v", "proxy")

_LEVEL = (0, (1, 1.5))

CROSS: dict[str, Any] = {"marker": "x", "markersize": 4, "markeredgewidth": 1.0}

CardCurves = tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]
"""A row of `card_regret`, and tables of the target's curve and the proxy's, which may be empty."""

Curves = list[CardCurves]
"""What every panel shows."""


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
        density = "dense" if of["density"] == 1 else f"density {value_label('density', of['density'])}"
        return f"width {of['width']}, {density}"

    return {
        "proxy": name(card.proxy),
        "target": name(card.target),
        "proxy_loss": card.optimum["loss_opt"],
        "unit": unit_of_sources([card.proxy["data"]]),
    }


@style.ours()
def transfer_figure(
    panels: Curves, size: tuple[float, float] | None = None, *, into: SubFigure | None = None
) -> Figure:
    """Loss against the hyperparameter, a panel per card on one loss axis.

    Grey: the proxy, and its optimum, through which a dashed line leads to the target at the same setting. In colour:
    the target, its own optimum with the interval, and as a bar what the setting loses to it: the regret. Crosses on
    top: values at which a seed diverged.
    """
    page = layout.page_of(into, size, (max(2.45 * len(panels), 4.2), 2.75))
    axes = page.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    unit = panels[0][0]["unit"]
    room = layout.panel_width(layout.page_size(page)[0] - (0.5 if unit.bits_per_byte else 0.0), len(panels))
    texts = ["\n".join(layout.fill(line, room) for line in _sentences(row)) for row, *_ in panels]
    height = max(map(marks.line_count, texts))
    for ax, panel, text in zip(axes, panels, texts, strict=True):
        _draw(ax, panel, panels)
        marks.heading(ax, SCHEMES[panel[0]["scheme"]].label, text, height)
    style.loss_label(axes[0], unit)
    style.bits_axis(axes[-1], unit, *_ranges(panels)[1])
    layout.legend(page, _key(panels), loc="outside lower center", ncols=min(len(panels) + 1, 4))
    if size is None:
        layout.grow(page, height=layout.heading_height(height + 1) + layout.legend_height(page))
    return layout.figure_of(page)


def transfer_on(panel: CardCurves, ax: Axes) -> None:
    """The panel of one card onto an Axes, with the regret above it and the legend below."""
    row = panel[0]
    _draw(ax, panel, [panel])
    text = "\n".join(_sentences(row))
    marks.heading(ax, SCHEMES[row["scheme"]].label, text, marks.line_count(text))
    style.loss_label(ax, row["unit"])
    layout.beside(ax, _key([panel]), below=True)


def _draw(ax: Axes, panel: CardCurves, panels: Curves) -> None:
    """One card, on the scale of all."""
    row, own, proxy = panel
    x, y = _ranges(panels)
    style.frame(ax)
    style.log2_axis(ax, "x", *x, most=layout.ticks_that_fit(ax))
    ax.set_ylim(*y)
    ax.set_xlabel(style.axis_name(row["hyperparameter"]), fontsize=LABEL, color=INK)
    _panel(ax, row, own, proxy)


def _ranges(panels: Curves) -> tuple[tuple[float, float], tuple[float, float]]:
    """x over all values; y from the lowest loss to a little above the highest that a panel has to show."""
    tables = [table for _, *both in panels for table in both if len(table)]
    over = panels[0][0]["hyperparameter"]
    tried = np.concatenate([table[over].to_numpy(float) for table in tables])
    x = (float(tried.min()) * 2**-0.3, float(tried.max()) * 2**0.3)
    shown = [row[name] for row, *_ in panels for name in ("used_loss", "own_loss")]
    shown += [table["loss"].min() for table in tables]
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    room = max(high - low, 0.05)
    return x, (low - 0.1 * room, high + 0.25 * room)


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
        ax.plot([setting, row["own_value"]], [least] * 2, color=look.color, linewidth=0.8, linestyle=_LEVEL, zorder=4)
        ax.plot(
            [setting] * 2, [least, used], color=look.color, linewidth=4.0, alpha=0.45, solid_capstyle="butt", zorder=5
        )
        ax.plot(setting, used, marker="*", markersize=11, color=look.color, markeredgecolor="white",
                markeredgewidth=0.8, zorder=8)  # fmt: skip


def _sentences(row: dict[str, Any]) -> list[str]:
    """The regret, in lines; and whether the intervals rest on an assumed noise."""
    if math.isnan(row["regret"]):
        return ["regret unknown:", row["why"].split(";")[-1].strip()]
    least = "" if row["status"] == "ok" else "at least "
    interval = interval_text(row["low"], row["high"], 3).replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")
    regret = f"{row['regret']:.3f}".replace("-", "\N{MINUS SIGN}")
    noise = ["noise assumed"] if row["interval"] == "assumed" else []
    return [f"regret {least}{regret} {interval}", f"{row['unit'].name}, {row['percent']:.1f} %", *noise]


def _key(panels: Curves) -> list[marks.Handle]:
    """Handles of what is drawn, and no other."""
    rows, tables = [row for row, *_ in panels], [table for _, *both in panels for table in both]
    row, proxies = rows[0], any(len(proxy) for *_, proxy in panels)
    reached = any(math.isfinite(row["used_loss"]) for row in rows)
    ends: dict[str, Any] = {"marker": "o", "markersize": 5.5, "linestyle": "-", "linewidth": 1.5}
    hollow: dict[str, Any] = {"marker": "o", "markersize": 5.5, "markerfacecolor": "white"}
    grey: dict[str, Any] = {"marker": PROXY.marker, "color": PROXY.color}
    seeds = any((table["high"] > table["low"]).any() for table in tables)
    own = "target's own optimum"
    key: list[tuple[bool, marks.Handle]] = [
        (proxies, Line2D([], [], label=f"proxy: {row['proxy']}", markersize=2.8, linewidth=1.2, **grey)),
        (proxies, Line2D([], [], label="proxy's optimum", markersize=6.5, linestyle="none", **grey)),
        (True, marks.symbol("the setting carried", linestyle=marks.DASHED, linewidth=0.8, color=GREY)),
        (True, marks.symbol(f"target: {row['target']}", linestyle="-", linewidth=1.2, marker="o", markersize=2.8)),
        (any(row["status"] == "ok" for row in rows), marks.symbol(f"{own}, 95 % interval", **ends)),
        (any(_has_no_optimum(row) for row in rows), marks.symbol("target's best, or a bound", **hollow)),
        (reached, marks.symbol("target at that setting", marker="*", markersize=9)),
        (reached, Patch(facecolor=INK, alpha=0.4, label="regret")),
        (reached, marks.symbol("loss at its own optimum", linestyle=_LEVEL, linewidth=0.8)),
        (seeds, Patch(facecolor=INK, alpha=0.18, label="range of the seeds")),
        (any(table["n_diverged"].any() for table in tables), marks.symbol("diverged", **CROSS)),
    ]
    return [handle for used, handle in key if used]


def _has_no_optimum(row: dict[str, Any]) -> bool:
    """Whether the open marker is drawn."""
    return row["status"] != "ok" and math.isfinite(row["own_loss"])


def draw_transfer(
    cards: Sequence[Card],
    runs: pd.DataFrame,
    folder: Path,
    proxies: pd.DataFrame | None = None,
    output: Output = USUAL,
) -> list[Path]:
    """Write the figure to the folder; returns the paths. Raises ValueError where a size that was asked for is small."""
    figure = transfer_figure(curves(cards, runs, proxies), output.size)
    if output.size is not None:
        layout.check_room(figure, "transfer")
    return style.save(figure, Path(folder) / "transfer", output.formats)
