from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hpsweep import store
from hpsweep.analysis.optimum.group_fit import OPTIMA_COLUMNS
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.plots import figures as plots
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.tables import scale
from hpsweep.analysis.transfer.drift import drift
from hpsweep.axes import value_label
from hpsweep.spec import Trial
from hpsweep.text import power_label
from tests.paths import ROOT

EXPERIMENT = {  # validation loss at lr 2^-10 ... 2^-2, from reference/speed.md
    ("supar", 1.0): "2.354 2.270 2.134 2.181 2.309 2.594 2.759 2.883 3.073",
    ("supar", 1 / 4): "2.360 2.282 2.148 2.121 2.312 2.477 2.692 2.886 2.954",
    ("supar", 1 / 16): "2.393 2.314 2.243 2.198 2.249 2.535 2.739 2.862 2.976",
    ("sp", 1.0): "2.354 2.270 2.134 2.181 2.309 2.594 2.759 2.883 3.073",
    ("sp", 1 / 4): "2.448 2.380 2.290 2.155 2.064 2.060 2.095 2.141 2.803",
    ("sp", 1 / 16): "2.653 2.535 2.444 2.361 2.227 2.148 2.120 2.118 2.227",
}


def row(loss: float, status: str = "ok", **fields: Any) -> dict[str, Any]:
    trial = Trial(**{"steps": 300, **fields})
    found = {"status": status, "val_loss": loss if status == "ok" else None, "initial_loss": 5.55, "data_hash": "a"}
    return {**trial.resolved, "trial_id": trial.trial_id, **found}


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table: pd.DataFrame = pa.Table.from_pylist(rows, schema=store.RUNS).to_pandas()
    return table


def experiment_rows(**fields: Any) -> list[dict[str, Any]]:
    noise = np.random.default_rng(0)
    rows = []
    for (scheme, density), losses in EXPERIMENT.items():
        for k, loss in zip(range(-10, -1), map(float, losses.split()), strict=True):
            for seed in range(3):
                diverged = k == -2 and (scheme == "sp") == (density < 1) and seed > 0
                point = {"scheme": scheme, "density": density, "lr": 2.0**k, "seed": seed, **fields}
                seeded = loss + seed * noise.normal(0, 0.006)
                rows.append(row(seeded, "diverged" if diverged else "ok", **point))
    return rows


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return frame(experiment_rows())


@pytest.fixture(scope="module")
def found(runs: pd.DataFrame) -> pd.DataFrame:
    return optima(runs, ["scheme", "density"])


def optimum(status: str, **values: Any) -> pd.DataFrame:
    """An optima table of one row, as far as the figures read it."""
    empty = dict.fromkeys(OPTIMA_COLUMNS, np.nan)
    group = {"scheme": "sp", "density": 1.0, **empty, "hyperparameter": "lr", "interval": None, "status": status}
    return pd.DataFrame([{**group, **values}])


def axes() -> Axes:
    return Figure(figsize=(4, 3), layout="constrained").subplots()


# --- the tables ---


def test_a_curve_is_the_mean_and_range_of_the_seeds_that_finished_and_counts_the_others() -> None:
    point = {"scheme": "sp", "density": 1 / 4}
    table = plots.curve_table(
        frame(
            [
                *(row(loss, seed=i, lr=2.0**-8, **point) for i, loss in enumerate([2.0, 2.3, 2.9])),
                row(2.2, seed=0, lr=2.0**-7, **point),
                row(0.0, "diverged", seed=1, lr=2.0**-7, **point),
                row(0.0, "failed", seed=2, lr=2.0**-7, **point),
                row(0.0, "diverged", seed=0, lr=2.0**-6, **point),
            ]
        )
    )
    assert list(table.columns) == ["scheme", "density", "lr", "loss", "low", "high", "n_ok", "n_diverged", "n_missing"]
    expected = [
        [2.0**-8, 2.4, 2.0, 2.9, 3, 0, 0],
        [2.0**-7, 2.2, 2.2, 2.2, 1, 1, 1],
        [2.0**-6, np.nan, np.nan, np.nan, 0, 1, 0],
    ]
    np.testing.assert_allclose(table.iloc[:, 2:].to_numpy(float), expected)


def test_runs_that_differ_in_more_than_the_lines_are_refused(runs: pd.DataFrame) -> None:
    wider = runs.assign(width=256, trial_id=runs["trial_id"].str[::-1])
    with pytest.raises(ValueError, match=r"differ in width \(128, 256\).*Select one"):
        plots.curve_table(pd.concat([runs, wider]))


def test_runs_of_several_data_sets_are_refused(runs: pd.DataFrame, tmp_path: Path) -> None:
    mixed = runs.assign(data_hash=["b", *runs["data_hash"][1:]])
    with pytest.raises(ValueError, match="different data"):
        plots.curve_table(mixed)
    with pytest.raises(ValueError, match="different data"):
        plots.draw_all(mixed, tmp_path)


def test_a_path_lists_schemes_in_order_and_optima_from_dense_to_sparse(found: pd.DataFrame) -> None:
    path = plots.path_table(found)
    assert list(path["scheme"]) == ["sp"] * 3 + ["supar"] * 3
    assert list(path["density"]) == [1, 1 / 4, 1 / 16] * 2
    best = found[(found["scheme"] == "sp") & (found["density"] == 1 / 4)]
    assert path["opt"][1] == best["opt"].item()


def test_a_path_with_two_optima_at_one_place_is_refused(found: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="draw one group at a time"):
        plots.path_table(pd.concat([found, found]))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.021, -0.101, 0.149), "stable: +0.02 [−0.10, +0.15]"),
        ((-0.001, -0.1, 0.1), "stable: +0.00 [−0.10, +0.10]"),
        ((0.6, 0.6, np.nan), "stable: +0.60 or more"),
        ((-0.6, np.nan, -0.6), "stable: −0.60 or less"),
    ],
)
def test_a_verdict_is_said_with_its_interval_or_its_bound(numbers: tuple[float, ...], text: str) -> None:
    record = pd.DataFrame([dict(zip(("drift", "low", "high"), numbers, strict=True), verdict="stable", unit="u")])
    assert plots.drift_text(next(record.itertuples())) == (text, "u")


def test_a_verdict_without_a_number_says_why() -> None:
    record = pd.DataFrame([{"drift": np.nan, "verdict": "undetermined", "unit": "u", "why": "one optimum; and more"}])
    assert plots.drift_text(next(record.itertuples())) == ("undetermined: one optimum", "")


def test_densities_are_fractions_and_powers_of_two_are_powers_of_two() -> None:
    assert [value_label("density", x) for x in (1.0, 1 / 4, 1 / 3, 0.1, 0.3)] == [
        "1",
        "1/4",
        "1/3",
        "1/10",
        "0.3",
    ]
    assert value_label("density", 1e-300) == "1e-300"
    assert value_label("width", 256.0) == "256"
    assert [power_label(x) for x in (2.0**-7, 1.0, 0.08)] == ["2⁻⁷", "2⁰", "0.08"]


def test_the_axis_shows_every_basin_and_leaves_higher_losses_to_the_strip(runs: pd.DataFrame) -> None:
    table = plots.curve_table(runs)
    tall, vertices = table.assign(loss=table["loss"].where(table["loss"] < 3, 300.0), high=300.0), optima(runs)
    shared = scale(tall, vertices, "lr", "density")
    minima = table.groupby(["scheme", "density"])["loss"].min()
    assert shared.y[0] < minima.min()
    assert minima.max() < shared.y[1] < 4
    assert scale(tall, vertices.assign(loss_opt=1.5), "lr", "density").y[0] < 1.5
    assert shared.marked == [1, 1 / 4, 1 / 16]


def test_denser_is_darker_and_narrower_is_darker_and_no_marker_comes_twice() -> None:
    for column, values in (("density", [2.0**-k for k in range(7)]), ("width", [64, 128, 256])):
        looks = style.ordered(column, values)
        assert list(looks) == values
        brightness = [float(np.dot(to_rgb(look.color), (0.2126, 0.7152, 0.0722))) for look in looks.values()]
        assert all(a < b for a, b in pairwise(brightness))
        assert len({look.marker for look in looks.values()}) == len(values)


# --- the drawings ---


def test_loss_curves_draw_the_curve_table_broken_where_a_seed_diverged(runs: pd.DataFrame, found: pd.DataFrame) -> None:
    own = runs[runs["scheme"] == "sp"]
    ax = axes()
    assert plots.loss_curves(own, found, ax) is ax
    table = plots.curve_table(own)
    looks = style.ordered("density", [1, 1 / 4, 1 / 16])
    for density, rows in table.groupby("density"):
        drawn = [line for line in ax.lines if line.get_color() == looks[density].color and len(line.get_xdata()) == 9]
        np.testing.assert_array_equal(drawn[0].get_xdata(), rows["lr"])
        np.testing.assert_array_equal(drawn[0].get_ydata(), rows["loss"].where(rows["n_diverged"] == 0))


def test_diverged_runs_are_crosses_in_the_strip_at_their_learning_rate(runs: pd.DataFrame, found: pd.DataFrame) -> None:
    ax = plots.loss_curves(runs[(runs["scheme"] == "sp") & (runs["density"] < 1)], found, axes())
    crosses = [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [[2.0**-2]] * 2
    assert all(line.get_ydata()[0] > 0.9 for line in crosses)  # fraction of the panel
    assert crosses[0].get_ydata()[0] != crosses[1].get_ydata()[0]


@pytest.mark.parametrize(("low", "high", "side"), [(2.0**-4, np.nan, 1), (np.nan, 2.0**-9, -1)])
def test_an_optimum_at_the_edge_is_open_with_an_arrow_to_the_open_side(
    runs: pd.DataFrame, low: float, high: float, side: int
) -> None:
    edge = optimum("edge", opt=2.0**-3, low=low, high=high, loss_opt=2.2)
    ax = plots.loss_curves(runs[(runs["scheme"] == "sp") & (runs["density"] == 1)], edge, axes())
    vertex = [line for line in ax.lines if list(line.get_xdata()) == [2.0**-3] and list(line.get_ydata()) == [2.2]]
    assert [line.get_markerfacecolor() for line in vertex] == ["white"]
    arrows = [text.xyann[0] for text in ax.texts if text.arrow_patch is not None]
    assert len(arrows) == 1
    assert arrows[0] * side > 0


def test_a_flat_optimum_is_an_open_marker_at_the_lowest_mean(runs: pd.DataFrame) -> None:
    flat = optimum("flat", best_value=2.0**-8, best_loss=2.134)
    ax = plots.loss_curves(runs[(runs["scheme"] == "sp") & (runs["density"] == 1)], flat, axes())
    marks = [line for line in ax.lines if list(line.get_ydata()) == [2.134]]
    assert [line.get_markerfacecolor() for line in marks] == ["white"]


def test_loss_curves_of_several_schemes_are_refused(runs: pd.DataFrame, found: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"one scheme, not sp, supar.*optimum_stability"):
        plots.loss_curves(runs, found, axes())


def test_stability_has_a_panel_per_scheme_on_shared_axes_with_its_verdict(
    runs: pd.DataFrame, found: pd.DataFrame
) -> None:
    slopes = drift(runs)
    figure = plots.optimum_stability(runs, found, slopes)
    sp, supar = figure.axes
    assert [ax.get_title(loc="left") for ax in (sp, supar)] == ["SP", "SuPar"]
    assert sp.get_xlim() == supar.get_xlim()
    assert sp.get_ylim() == supar.get_ylim()
    for ax, record in zip((sp, supar), slopes.itertuples(), strict=True):
        assert any(plots.drift_text(record)[0] in text.get_text() for text in ax.texts)


def test_a_density_has_one_colour_also_where_a_scheme_lacks_others(runs: pd.DataFrame, found: pd.DataFrame) -> None:
    part = runs[(runs["scheme"] == "sp") | (runs["density"] == 1 / 16)]
    supar = plots.optimum_stability(part, found).axes[1]
    curves = [line for line in supar.lines if len(line.get_xdata()) == 9 and line.get_marker() == "None"]
    assert [line.get_color() for line in curves] == [style.ordered("density", [1, 1 / 4, 1 / 16])[1 / 16].color]


def test_a_path_is_solid_between_optima_and_dotted_towards_a_bound(found: pd.DataFrame) -> None:
    ax = plots.optimum_path(found, None, axes())
    path = plots.path_table(found)[lambda table: table["scheme"] == "sp"]
    assert list(path["status"]) == ["ok", "ok", "edge"]
    lines = [line for line in ax.lines if line.get_color() == style.SCHEMES["sp"].color and len(line.get_xdata()) == 3]
    dotted, solid = (line.get_ydata() for line in lines)
    np.testing.assert_array_equal(dotted, path["opt"])
    np.testing.assert_array_equal(solid, [*path["opt"][:2], np.nan])
    left, right = ax.get_xlim()
    assert left > 1 > 1 / 16 > right


AWKWARD = {
    "one density": lambda runs: runs[runs["density"] == 1],
    "one scheme": lambda runs: runs[runs["scheme"] == "sp"],
    "one seed": lambda runs: runs[runs["seed"] == 0],
    "a density that always diverged": lambda runs: runs.assign(
        status=runs["status"].where(runs["density"] != 1 / 4, "diverged"),
        val_loss=runs["val_loss"].where(runs["density"] != 1 / 4),
    ),
    "nothing but failures": lambda runs: runs.assign(status="failed", val_loss=np.nan),
    "optima at the edge": lambda runs: runs[runs["lr"] < 2**-4],
    "three schemes": lambda runs: pd.concat([runs, runs[runs["scheme"] == "sp"].assign(scheme="mup", trial_id=None)]),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_nothing_is_cut_off_and_no_legend_covers_data(runs: pd.DataFrame, name: str) -> None:
    part = AWKWARD[name](runs).assign(trial_id=lambda table: [str(i) for i in range(len(table))])
    found = optima(part, ["scheme", "density"], resamples=50)
    slopes = drift(part, resamples=50)
    stability, path = plots.optimum_stability(part, found, slopes), Figure(figsize=(3.5, 3.3), layout="constrained")
    plots.optimum_path(found, slopes, path.subplots())
    for figure in (stability, path):
        figure.draw_without_rendering()
        inside, page = figure.get_tightbbox(), figure.bbox_inches
        assert inside.x0 >= -0.02
        assert inside.y0 >= -0.02
        assert inside.x1 <= page.width + 0.02
        assert inside.y1 <= page.height + 0.02
        legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
        for legend in legends:
            assert not any(legend.get_window_extent().overlaps(ax.get_window_extent().padded(-2)) for ax in figure.axes)


# --- all of them ---


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths if path.suffix == ".png"]


def test_draw_all_writes_equal_bytes_again_and_leaves_no_file_or_setting_behind(
    runs: pd.DataFrame, tmp_path: Path
) -> None:
    part, settings = runs[runs["density"] > 0.1], dict(mpl.rcParams)
    first = plots.draw_all(part, tmp_path)
    assert dict(mpl.rcParams) == settings
    assert names(first) == ["optimum_stability_lr.png", "optimum_path_lr_density.png"]
    before = {path: path.read_bytes() for path in first}
    assert {path: path.read_bytes() for path in plots.draw_all(part, tmp_path)} == before
    assert sorted((tmp_path / "figures").iterdir()) == sorted(first)


def drawn(monkeypatch: pytest.MonkeyPatch, table: pd.DataFrame) -> list[str]:
    """Names of the figures of draw_all, which are drawn and not written."""
    monkeypatch.setattr(style, "save", lambda figure, path, formats: [path.with_name(f"{path.name}.png")])
    return names(plots.draw_all(table, Path("results")))


def test_draw_all_draws_what_varies(monkeypatch: pytest.MonkeyPatch, runs: pd.DataFrame) -> None:
    std = frame([row(2 + k * k / 20, init_std=2.0**k, width=w) for k in range(-3, 4) for w in (64, 128)])
    assert drawn(monkeypatch, std) == ["optimum_stability_init_std_width.png", "optimum_path_init_std_width.png"]
    wide = frame([*experiment_rows(), *experiment_rows(width=256)])
    assert drawn(monkeypatch, wide[wide["scheme"] == "sp"][lambda table: table["density"] > 0.1]) == [
        "optimum_stability_lr_at_width_128.png",
        "optimum_path_lr_density_at_width_128.png",
        "optimum_stability_lr_at_width_256.png",
        "optimum_path_lr_density_at_width_256.png",
        "optimum_stability_lr_width_at_density_1over4.png",
        "optimum_path_lr_width_at_density_1over4.png",
        "optimum_stability_lr_width_at_density_1.png",
        "optimum_path_lr_width_at_density_1.png",
    ]
    assert drawn(monkeypatch, runs[runs["lr"] == 2.0**-7]) == []


def test_draw_all_takes_other_hyperparameters_at_their_best(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = [
        row(2 + (k + 7) ** 2 / 20 + abs(std - 0.08), lr=2.0**k, init_std=std)
        for k in range(-9, -4)
        for std in (0.04, 0.08)
    ]
    assert drawn(monkeypatch, frame(grid)) == ["optimum_stability_lr_at_init_std_0.08.png"]


# --- the notebooks ---


def run_notebooks(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "notebooks" / "execute.py"
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def a_notebook(path: Path, *sources: str) -> Path:
    cell = {"cell_type": "code", "metadata": {"tags": ["x"]}, "outputs": [], "execution_count": None}
    cells = [{**cell, "id": f"x{i}", "source": source} for i, source in enumerate(sources)]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_a_notebook_that_fails_is_named_with_its_cell_and_check_writes_nothing(tmp_path: Path) -> None:
    paths = [a_notebook(tmp_path / "right.ipynb", "1"), a_notebook(tmp_path / "wrong.ipynb", "1", "1 / 0", "2")]
    before = [path.read_bytes() for path in paths]
    done = run_notebooks("--check", *paths)
    assert done.returncode == 1
    assert done.stdout == "checked right.ipynb\n"
    assert "wrong.ipynb, cell-1" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert [path.read_bytes() for path in paths] == before


def test_an_executed_notebook_holds_its_outputs_and_nothing_of_the_run_that_made_them(tmp_path: Path) -> None:
    path = a_notebook(tmp_path / "right.ipynb", "print(6 * 7, object())")
    assert run_notebooks(path).returncode == 0
    assert json.loads(path.read_text()) == {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": 1,
                "id": "cell-0",
                "metadata": {},
                "outputs": [{"name": "stdout", "output_type": "stream", "text": ["42 <object object>\n"]}],
                "source": ["print(6 * 7, object())"],
            }
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    assert list(tmp_path.iterdir()) == [path]
