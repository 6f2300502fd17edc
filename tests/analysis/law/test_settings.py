"""Rows that share (S, N, D): sweeps left in, seeds, copies, and what may be a setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpsweep.analysis.law.law import Law, fit_law
from hpsweep.analysis.law.tables import LawCells, cells_of_table, read_table
from hpsweep.analysis.law.words import law_verdict
from hpsweep.analysis.runs.columns import HYPERPARAMETER_WORDS, is_outcome, words_of_name
from hpsweep.cli import main
from tests.analysis.law import law_cells as cells

FEW = {"resamples": 50}
TRUTH = cells.DENSE
COLUMNS = {"loss": "loss", "params": "params", "tokens": "tokens", "sparsity": None, "status": None}


def swept(seeds: int = 1, noise: float = 0.0) -> pd.DataFrame:
    """Six rates at every cell of a dense law; the loss at a rate is a parabola whose vertex is one of those tried."""
    grid = [cells.made(TRUTH).assign(lr=2.0**k, seed=s) for k in range(-12, -6) for s in range(seeds)]
    table = pd.concat(grid, ignore_index=True)
    best = np.where(table["params"] > 1e7, -10, -9)
    above = 1 + 0.01 * (np.log2(table["lr"]) - best) ** 2
    return table.assign(loss=table["loss"] * above * np.exp(noise * np.random.default_rng(0).normal(size=len(table))))


def cells_in(table: pd.DataFrame, **options: object) -> LawCells:
    return cells_of_table(table, **{**COLUMNS, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reduced() -> Law:
    return fit_law(swept(), **FEW)


def test_a_sweep_that_was_left_in_is_reduced_to_the_best_of_each_cell(reduced: Law) -> None:
    assert reduced.coefficients == pytest.approx(TRUTH, rel=1e-6)  # all rows as they are: c 1.792, A 470
    assert (reduced.rows, reduced.cells, len(reduced.residuals)) == (150, 25, 25)
    assert reduced.warnings == [
        "150 rows are a sweep of lr: the law is of the lowest loss of each of 25 cells (S, N, D), mean of the rows of "
        "a setting."
    ]
    assert "over 25 cells, out of 150 rows" in law_verdict(reduced)[2]


def test_a_row_of_the_reduced_table_is_the_best_row_of_the_given_one(reduced: Law) -> None:
    table = swept()
    for row in reduced.residuals:
        given = table.loc[row["row"]]
        assert (given["params"], given["tokens"], given["loss"]) == (row["params"], row["tokens"], row["loss"])


def test_the_best_setting_is_that_of_the_mean_over_seeds() -> None:
    table = swept(seeds=3, noise=0.003)
    found = cells_in(table).table
    means = table.groupby(["params", "tokens", "lr"])["loss"].mean().groupby(["params", "tokens"]).min()
    assert found.set_index(["params", "tokens"])["loss"].to_dict() == pytest.approx(means.to_dict())


def test_a_setting_that_a_seed_diverged_at_is_not_the_best() -> None:
    table = swept(seeds=2).assign(status="ok")
    first = (table["params"] == 1e6) & (table["tokens"] == 1e9)
    table.loc[first & (table["lr"] == 2.0**-9) & (table["seed"] == 1), ["status", "loss"]] = ["diverged", np.nan]
    found = cells_in(table, status="status").table
    assert found["loss"].iloc[0] == pytest.approx(cells.made(TRUTH)["loss"][0] * 1.01)  # an octave beside
    assert found["loss"].iloc[1] == pytest.approx(cells.made(TRUTH)["loss"][1])


def test_cells_that_are_best_at_the_end_of_a_sweep_are_counted() -> None:
    table = swept()
    notes = cells_in(table[table["lr"] >= 2.0**-9]).notes
    assert notes[1] == "25 of 25 cells are best at the end of the lr tried: their loss is an upper bound."
    alone = cells_in(table[(table["lr"] >= 2.0**-11) & ((table["tokens"] > 1e9) | (table["lr"] == 2.0**-9))]).notes
    assert alone[1] == "5 of 25 cells have one run: nothing says that it is tuned."


@pytest.mark.parametrize(
    "name",
    ["lr", "LR", "learning_rate", "learningRate", "Learning Rate", "peak-lr", "config.lr", "log2_lr", "optimizer.lr",
     "init_std", "weight_decay", "wd", "batch", "batch_size", "per_device_train_batch_size", "bs", "warmup_steps",
     "beta2", "optimizer_name", "eta"],
)  # fmt: skip
def test_hyperparameters_are_known_by_name(name: str) -> None:
    assert cells_in(swept().rename(columns={"lr": name})).table.shape[0] == 25


@pytest.mark.parametrize("name", ["train_loss", "batch_time", "run_id", "wall_seconds", "lr_of_lowest_loss", "C"])
def test_what_came_out_of_a_run_is_no_hyperparameter(name: str) -> None:
    assert not words_of_name(name) & HYPERPARAMETER_WORDS or is_outcome(name)


@pytest.mark.parametrize(("dropped", "told"), [(["lr", "seed"], "S, N, D"), (["lr"], "S, N, D, seed")])
def test_a_sweep_whose_columns_were_dropped_is_refused(dropped: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=rf"rows of one \({told}\) differ in loss .*settings or seeds.*--tuned none"):
        cells_in(swept(seeds=2, noise=0.002).drop(columns=dropped))
    assert len(cells_in(swept(seeds=2, noise=0.002).drop(columns=dropped), tuned=[]).table) == 300


@pytest.mark.parametrize("spread", [0.0002, 0.002, 0.02])
def test_a_sweep_without_its_columns_is_asked_for_however_small_its_spread_is(spread: float) -> None:
    rates = [cells.made(TRUTH).assign(loss=lambda t, k=k: t["loss"] * (1 + spread * k * k)) for k in (-1, 0, 1)]
    table = pd.concat(rates, ignore_index=True).assign(run_name=[f"r{i}" for i in range(75)])
    with pytest.raises(ValueError, match=r"settings or seeds: .* add a column seed, or say --tuned none"):
        cells_in(table)
    assert len(cells_in(table.drop_duplicates(["params", "tokens"])).table) == 25  # one row of a cell: nothing to ask


def test_copies_of_a_row_under_other_names_are_not_asked_for() -> None:
    table = cells.made(TRUTH)
    twice = pd.concat([table.assign(run="a"), table.assign(run="b", loss=table["loss"] * (1 + 1e-9))])
    assert len(cells_in(twice).table) == 50


def of_two_kinds(name: str, first: object, second: object, within: bool = False) -> pd.DataFrame:
    """A table whose losses are of two laws, told apart by one column: in every cell, or each in cells of its own."""
    one, other = (cells.made({**TRUTH, "c": c}) for c in (1.7, 2.2))
    tokens = other["tokens"] * (1 if within else 2)
    rows = [one.assign(**{name: first}), other.assign(tokens=tokens, **{name: second})]
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("dataset", "c4", "pile"), ("dataset_name", "c4", "pile"), ("data", "c4", None), ("dataset_id", 0, 1),
     ("vocab_size", 32000, 50257), ("family", "gpt", "llama"), ("optimizer", "adamw", "muon"), ("qk_norm", True, False),
     ("loss_type", "ce", "z"), ("model_type", "gpt", "mamba")],
)  # fmt: skip
def test_rows_of_two_laws_that_a_column_tells_apart_are_not_fitted_as_one(
    name: str, first: object, second: object
) -> None:
    table = of_two_kinds(name, first, second)
    for changed in (table, table.convert_dtypes(dtype_backend="pyarrow"), table.astype({name: "category"})):
        with pytest.raises(ValueError, match=rf"differ in {name} \(.* in 25 rows.*keep the rows .*--ignore {name}"):
            cells_in(changed)
    assert len(cells_in(table, ignore=[name]).table) == 50
    assert len(cells_in(table[table[name] == first]).table) == 25


def test_the_best_of_two_data_sets_is_never_taken() -> None:
    table = of_two_kinds("dataset", "c4", "pile", within=True)
    for tuned in (None, [], ["lr"]):
        with pytest.raises(ValueError, match=r"differ in dataset .*--ignore dataset"):
            cells_in(table.assign(lr=np.where(table["dataset"] == "c4", 0.1, 0.2)), tuned=tuned)


@pytest.mark.parametrize("name", ["model_name", "size", "dataset"])
def test_text_that_names_the_size_of_a_model_or_of_its_data_is_no_other_kind(name: str) -> None:
    table = cells.made(TRUTH)
    axis = "tokens" if name == "dataset" else "params"
    assert len(cells_in(table.assign(**{name: [f"{x:g} of it" for x in table[axis]]})).table) == 25


def test_columns_that_say_nothing_of_the_law_are_not_asked_for() -> None:
    table = cells.made()
    n = np.arange(len(table))
    table = table.assign(
        pruned=table["sparsity"] > 0,
        run_name=[f"run {i % 4}" for i in n],
        host=np.where(n % 2, "a", "b"),
        lr=[str(2.0 ** -(i % 3)) for i in n],
        note=[None if i % 3 else "again" for i in n],
        started=pd.Timestamp("2026-01-01") + pd.to_timedelta(n, unit="h"),
        data_tokens=table["tokens"] * 2,
        n_layer=n % 3,
    )
    assert len(cells_in(table, sparsity="sparsity").table) == 100


def test_a_column_that_may_be_a_setting_is_asked_for() -> None:
    table = swept(seeds=2).rename(columns={"lr": "depth"})
    with pytest.raises(ValueError, match=r"differ in depth \(0.0002441, .*--tuned depth .*--tuned none"):
        cells_in(table)
    assert len(cells_in(table, tuned=["depth"]).table) == 25
    assert len(cells_in(table, tuned=[]).table) == 300


def test_a_second_setting_beside_the_learning_rate_is_asked_for() -> None:
    table = pd.concat([swept().assign(shape=s, loss=swept()["loss"] * f) for s, f in (("wide", 1), ("deep", 1.02))])
    with pytest.raises(ValueError, match=r"--tuned lr,shape \(tuned=.*--tuned lr \(tuned="):
        cells_in(table)
    best = cells_in(table, tuned=["lr", "shape"]).table["loss"]
    assert best.to_numpy() == pytest.approx(cells.made(TRUTH)["loss"].to_numpy())


def test_a_column_that_follows_from_the_setting_is_not_asked_for() -> None:
    table = swept()
    table = table.assign(config=["c" + str(lr) for lr in table["lr"]], train=np.arange(len(table)) * 1.7)
    assert len(cells_in(table).table) == 25


def test_a_tuned_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="tuned has 'rate'; the columns not used otherwise are: lr, seed"):
        cells_in(swept(), tuned=["rate"])


def test_seeds_are_rows_of_a_cell_and_are_counted_as_such() -> None:
    seeds = [cells.made(TRUTH, noise=0.002, seed=s).assign(seed=s) for s in range(3)]
    law = fit_law(pd.concat(seeds), **FEW)
    assert (law.rows, law.cells, len(law.residuals)) == (75, 25, 75)
    assert "over 75 rows of 25 cells (" in law_verdict(law)[2]
    assert law.warnings[0] == "75 rows are of 25 cells (S, N, D): counted as repeated runs, told apart by seed."
    assert len({row["row"] for row in law.residuals}) == 75  # though the index of the given table repeats


def test_seeds_that_differ_as_learning_rates_do_are_told() -> None:
    law = fit_law(swept().drop(columns=["lr", "seed"]).assign(seed=range(len(swept()))), **FEW)
    assert "told apart by seed. They differ in loss by" in law.warnings[0]


def test_copies_of_rows_count_once() -> None:
    table = cells.made(TRUTH, noise=0.002)
    whole = pd.concat([table, table[:10], table[:10]], ignore_index=True)
    law, once = fit_law(whole, **FEW), fit_law(table, **FEW)
    assert law.coefficients == once.coefficients
    assert (law.rows, law.cells) == (45, 25)
    assert law.warnings[0] == "20 of 45 rows repeat another in every column, and count once."
    assert "over 25 cells, out of 45 rows" in law_verdict(law)[2]


def test_data_that_were_rounded_to_whole_batches_are_one_cell() -> None:
    table = swept()
    batch = 512 * 2 ** (np.arange(len(table)) % 6)
    found = cells_in(table.assign(tokens=table["tokens"] // (batch * 128) * (batch * 128)))
    assert len(found.table) == 25
    assert found.table["loss"].to_numpy() == pytest.approx(cells.made(TRUTH)["loss"].to_numpy())


def test_a_rate_that_was_chosen_once_for_every_cell_is_no_sweep() -> None:
    table = cells.made(TRUTH)
    found = cells_in(table.assign(lr=table["params"] ** -0.3))
    assert (len(found.table), found.notes) == (25, [])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_and_tabs_separate_as_commas_do(tmp_path: Path, separator: str) -> None:
    cells.made().to_csv(tmp_path / "t.csv", index=False, sep=separator)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), cells.made())


def test_parquet_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    cells.made().to_parquet(tmp_path / "t.table")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.table"), cells.made())


def test_the_command_takes_the_hyperparameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    swept().rename(columns={"lr": "depth"}).to_csv(path, index=False)
    assert main(["law", str(path), "--resamples", "50"]) == 2
    assert "--tuned depth" in capsys.readouterr().err
    assert main(["law", str(path), "--resamples", "50", "--tuned", "depth"]) == 0
    captured = capsys.readouterr()
    assert "+ 1.7\n" in captured.out
    assert "150 rows are a sweep of depth" in captured.err


@pytest.mark.external
def test_the_step_law_runs_are_seventeen_cells() -> None:
    table = cells.published("steplaw_dense_lr_bs_loss.csv").rename(columns={"N": "params", "D": "tokens"})
    found = cells_in(table)
    assert len(found.table) == 17
    assert found.notes[0].startswith("1911 rows are a sweep of lr and bs: ")
    lowest = table.groupby(["params", "tokens"])["loss"].min()
    assert sorted(found.table["loss"]) == pytest.approx(sorted(lowest))


def test_a_column_that_says_what_came_out_is_no_kind_of_run() -> None:
    table = cells.made(TRUTH)
    told = table.assign(edge=[row % 3 == 0 for row in range(len(table))], converged="yes")
    told.loc[::4, "converged"] = "no"
    pd.testing.assert_frame_equal(cells_in(told).table, cells_in(table).table)
