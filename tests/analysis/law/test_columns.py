"""Columns of numbers that a law does not know of: refused or told where its residuals follow them, and else not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpsweep.analysis.law.law import fit_law, fit_sweep
from hpsweep.cli import main
from hpsweep.store import load
from tests.analysis.law import law_cells as cells
from tests.paths import ROOT

FEW = {"resamples": 50}
RESULTS = ROOT / "results"


def alternating(name: str, values: tuple[object, object], worse: float, by: str = "cell") -> pd.DataFrame:
    """A dense table, noise 0.2 %, with a column of two values, and losses that are worse at the second."""
    table = cells.made(cells.DENSE, noise=0.002, tokens=[1e9 * 4**k for k in range(6)])
    order = {"cell": np.arange(len(table)), "size": table["params"].rank(method="dense").to_numpy(int)}
    second = {
        "cell": (order["cell"] + order["cell"] // 6) % 2 == 1,
        "data": order["cell"] % 2 == 1,
        "size": order["size"] % 2 == 1,
        "chance": np.random.default_rng(3).random(len(table)) < 0.3,
    }[by]
    column = np.where(second, values[1], values[0])
    return table.assign(**{name: column}, loss=table["loss"] * np.where(second, worse, 1.0))


@pytest.mark.parametrize(
    ("name", "values"),
    [("depth", (4, 32)), ("epochs", (1.0, 4.0)), ("heads", ("4", "16")), ("lr", (1e-3, 1e-2)), ("depth", (4, np.nan))],
)
@pytest.mark.parametrize("by", ["cell", "data", "chance"])
def test_a_setting_of_numbers_that_the_losses_follow_is_refused(
    name: str, values: tuple[object, object], by: str
) -> None:
    table = alternating(name, values, worse=1.1, by=by)
    with pytest.raises(
        ValueError, match=rf"differ by (9|10|11)\.?\d? % with {name} \(.* in \d+ rows.*--ignore {name} "
    ):
        fit_law(table, **FEW)


def test_what_is_ignored_tuned_or_taken_out_is_not_refused() -> None:
    table = alternating("depth", (4, 32), worse=1.1)
    one = table[table["depth"] == 4]
    assert fit_law(one, **FEW).coefficients["c"] == pytest.approx(cells.DENSE["c"], abs=0.1)
    assert fit_law(table, **FEW, ignore=["depth"]).rows == 30
    assert fit_law(table, **FEW, tuned=["depth"]).rows == 30


def test_every_such_column_is_named_at_once() -> None:
    table = alternating("depth", (4, 32), worse=1.1).assign(epochs=lambda t: t["depth"] / 4)
    with pytest.raises(ValueError, match=r"with depth .*; .* with epochs .*--ignore depth,epochs \(ignore=\['depth', "):
        fit_law(table, **FEW)


def test_a_small_effect_is_told_and_fitted() -> None:
    table = cells.made(noise=0.002)
    deep = np.random.default_rng(0).random(len(table)) < 0.5
    table = table.assign(depth=np.where(deep, 32, 4), loss=table["loss"] * np.where(deep, 1.005, 1))
    [note] = [line for line in fit_law(table, **FEW).warnings if "depth" in line]
    assert note.startswith("the losses differ by 0.5")
    assert "of the squared residuals" in note
    assert "--ignore depth" in note


def test_a_middle_value_that_is_worse_is_found_as_well() -> None:
    table = cells.made(noise=0.002)
    depth = np.random.default_rng(0).integers(0, 3, len(table))
    with pytest.raises(ValueError, match=r"with depth \(0 in \d+ rows, 1 in \d+ rows, 2 in"):
        fit_law(table.assign(depth=depth, loss=table["loss"] * np.where(depth == 1, 1.05, 1)), **FEW)


def test_a_rate_of_its_own_in_every_row_that_the_losses_follow_is_refused() -> None:
    table = cells.made(noise=0.002)
    log_lr = np.random.default_rng(0).uniform(-4, -2, len(table))
    table = table.assign(lr=10**log_lr, loss=table["loss"] * (1 + 0.02 * (log_lr + 3) ** 2))
    with pytest.raises(ValueError, match=r"with lr \(100 values from 0\.0001"):
        fit_law(table, **FEW)


def test_settings_that_follow_from_the_sizes_or_change_no_loss_are_not_asked_for() -> None:
    table = cells.made(noise=0.002)
    n, d, dense = table["params"], table["tokens"], table["params"] / (1 - table["sparsity"])
    n_layer = n.map(dict(zip(sorted(n.unique()), [4, 12, 8, 24, 12], strict=True)))
    table = table.assign(
        width=dense**0.5,
        depth=np.where(n > 1e7, 12, 6),
        n_layer=n_layer,
        flops=6 * n * d,
        steps=d / 1e6,
        lr=[float(f"{v:.1g}") for v in dense**-0.3],
        batch_size=2 ** np.round(np.log2(d**0.5)),
        epochs=np.where(d > 1e10, 4, 1),
        dropout=np.random.default_rng(0).choice([0.0, 0.1], len(table)),
        grad=np.random.default_rng(1).normal(size=len(table)),
        bits=table["loss"] / np.log(2),
    )
    assert fit_law(table, **FEW).warnings == []


def test_what_the_form_of_the_law_misses_is_no_effect_of_a_setting_that_follows_from_the_sizes() -> None:
    table = cells.made(noise=0.0005)
    beyond = 1 + 0.03 * np.exp(-((np.log10(table["tokens"] / table["params"]) - 3) ** 2))
    batch = 2 ** np.round(np.log2(table["tokens"] ** 0.4 * table["params"] ** 0.1))
    found = fit_law(table.assign(loss=table["loss"] * beyond, batch_size=batch), **FEW)
    assert not [line for line in found.warnings if "batch_size" in line]


def test_outliers_at_one_value_are_outliers_and_no_setting() -> None:
    table = cells.made(noise=0.002).assign(depth=4)
    table.loc[[7, 40], "depth"] = 32
    table.loc[[7], "loss"] *= 1.3
    law = fit_law(table, **FEW)
    assert [row["row"] for row in law.outliers] == [7]
    assert not [line for line in law.warnings if "depth" in line]


def test_the_laws_of_the_stored_sweeps_have_no_such_column() -> None:
    law = fit_sweep(load(RESULTS / "reference" / "scaling_law"), **FEW)
    assert not [line for line in law.warnings if "squared residuals" in line]


def test_the_command_says_so_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    alternating("depth", (4, 32), worse=1.1).to_csv(path, index=False)
    assert main(["law", str(path), "--resamples", "50"]) == 2
    captured = capsys.readouterr()
    assert "with depth" in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert main(["law", str(path), "--resamples", "50", "--ignore", "depth"]) == 0


def test_a_sweep_of_ours_with_two_depths_is_asked_for_as_well() -> None:
    runs = load(RESULTS / "reference" / "scaling_law")
    deep = runs.groupby(["width", "density", "steps"]).ngroup() % 2 == 1
    two = runs.assign(depth=runs["depth"].where(~deep, 8), val_loss=runs["val_loss"] * np.where(deep, 1.1, 1))
    with pytest.raises(ValueError, match=r"with depth \(2 in 38 rows, 8 in 38 rows\).*--ignore depth "):
        fit_sweep(two, **FEW)
    assert fit_sweep(two, **FEW, ignore=["depth"]).cells == 76


@pytest.mark.external
def test_published_runs_have_no_such_column() -> None:
    assert not [line for line in fit_law(cells.t5(), sparsity="sparsity", **FEW).warnings if "squared" in line]
    runs = cells.published("steplaw_dense_lr_bs_loss.csv").rename(columns={"N": "params", "D": "tokens"})
    assert not [line for line in fit_law(runs, **FEW).warnings if "squared" in line]
