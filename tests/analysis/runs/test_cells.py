from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.scale import BY, made, write
from hpsweep import store
from hpsweep.analysis.optimum.joint import surface
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.optimum.sensitivity import sensitivity
from hpsweep.analysis.runs.arguments import check_resamples
from hpsweep.analysis.runs.cells import Cells, cells_of, two_way
from hpsweep.analysis.runs.checks import TRIAL_FIELDS, check_equal, check_runs, needed
from hpsweep.analysis.transfer.comparison import tuned_against_transferred
from hpsweep.analysis.transfer.drift import drift
from hpsweep.analysis.transfer.regret_matrix import regret_matrix


def singles(cell: Any, seed: Any, loss: Any) -> pd.DataFrame:
    return pd.DataFrame({"cell": cell, "seed": seed, "loss": loss})


def by_least_squares(single: pd.DataFrame, weight: Any) -> tuple[Any, float, int]:
    """The same from the dense design matrix: a column per cell and per seed."""
    cell, w = single["cell"].to_numpy(), weight[single["cell"].to_numpy()]
    columns = (cell[:, None] == np.unique(cell)).astype(float)
    both = np.hstack([columns, (single["seed"].to_numpy()[:, None] == np.unique(single["seed"])).astype(float)])
    target = single["loss"].to_numpy() * w
    connected = np.linalg.matrix_rank(both) == both.shape[1] - 1
    design = both if connected else columns
    solution = np.linalg.lstsq(design * w[:, None], target, rcond=None)[0]
    residual = target - (design * w[:, None]) @ solution
    df = len(single) - (design.shape[1] - 1 if connected else design.shape[1])
    return solution[columns.shape[1] :], float(residual @ residual), df


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_cells_and_seeds_are_told_apart_as_by_least_squares_on_the_whole_design(share: float) -> None:
    generator = np.random.default_rng(round(10 * share))
    apart = 0
    for _ in range(60):
        cell, seed = (index.ravel() for index in np.indices(generator.integers(1, 12, 2)))
        kept = generator.random(len(cell)) < share
        kept[0] = True
        again = generator.integers(0, kept.sum(), 2)  # some run twice
        cell, seed = (np.append(index[kept], index[kept][again]) for index in (cell, seed))
        single = singles(cell, seed, 3 + generator.standard_normal(len(cell)))
        weight = 2.0 ** -generator.uniform(0, 3, cell.max() + 1)
        effects, squares, df = two_way(single, weight)
        expected, expected_squares, expected_df = by_least_squares(single, weight)
        np.testing.assert_allclose(effects, expected, atol=1e-11)
        assert squares == pytest.approx(expected_squares, abs=1e-11)
        assert df == expected_df
        apart += len(effects) == 0
    assert apart < 60
    assert share > 0.2 or apart > 0


def test_two_cells_of_two_seeds_have_the_residuals_worked_out_by_hand() -> None:
    # 1 2 / 3 6: cell means 1.5, 4.5, seed effects -1, +1 around 3 (2 less and 2 more than 3 halved), residuals .5
    effects, squares, df = two_way(singles([0, 0, 1, 1], [0, 1, 0, 1], [1.0, 2.0, 3.0, 6.0]), np.ones(2))
    assert effects[1] - effects[0] == pytest.approx(2.0)
    assert (squares, df) == (pytest.approx(4 * 0.5**2), 1)


def test_seeds_that_meet_only_by_way_of_others_are_compared() -> None:
    cell, seed = [0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3]  # a chain: no two seeds that are not neighbours share a cell
    effects, squares, df = two_way(singles(cell, seed, [5.0, 6.0, 8.0, 9.0, 1.0, 4.0]), np.ones(3))
    np.testing.assert_allclose(effects - effects[0], [0, 1, 2, 5], atol=1e-12)
    assert (squares, df) == (pytest.approx(0), 0)


def test_seeds_that_share_no_cell_have_no_effects() -> None:
    effects, squares, df = two_way(singles([0, 0, 1, 1], [0, 1, 2, 3], [1.0, 3.0, 5.0, 5.0]), np.array([1.0, 0.5]))
    assert len(effects) == 0
    assert (squares, df) == (2.0, 2)


def test_what_a_seed_does_to_all_cells_is_recovered_from_ten_thousand_runs_that_lack_some() -> None:
    generator = np.random.default_rng(0)
    cell, seed = (index.ravel() for index in np.indices((20, 500)))
    kept = generator.random(len(cell)) < 0.6
    cells, seeds = 2 + generator.random(20), 0.02 * generator.standard_normal(500)
    single = singles(cell[kept], seed[kept], (cells[cell] + seeds[seed])[kept])
    effects, squares, _ = two_way(single, 2.0 ** -generator.uniform(0, 3, 20))
    np.testing.assert_allclose(effects - effects.mean(), seeds - seeds.mean(), atol=1e-12)
    assert squares < 1e-24


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return made(4_000, widths=1).to_pandas().drop_duplicates("trial_id", keep="last")


def test_columns_equal_in_all_runs_are_left_out_and_change_no_optimum(runs: pd.DataFrame) -> None:
    few = needed(runs, BY, "lr")
    assert set(few.columns) == {*BY, "lr", "seed", "status", "val_loss", "steps"}  # the duration goes by the density
    assert optima(few.assign(data_hash="d"), BY, resamples=2).equals(optima(runs, BY, resamples=2))


@pytest.mark.parametrize("other", ["bfloat16", None])
def test_runs_of_two_precisions_in_one_group_are_refused(runs: pd.DataFrame, other: str | None) -> None:
    mixed = runs.copy()
    mixed.loc[mixed.index[-1], "precision"] = other
    where = "the group scheme supar, width 128, density 0.015625"
    told = f"the runs of {where} differ in precision (" if other else f"1 of the 200 runs of {where} have no precision"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        optima(mixed, BY)
    assert len(optima(mixed, [*BY, "precision"], resamples=2)) == 22


def test_runs_on_two_data_sets_are_refused_in_one_line(runs: pd.DataFrame) -> None:
    mixed = runs.copy()
    mixed.loc[mixed.index[-1], "data_hash"] = "other"
    with pytest.raises(ValueError, match="2 different data sets") as refused:
        optima(mixed, BY)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [name for name in TRIAL_FIELDS if name not in ("seed", "data")])
def test_every_field_of_a_trial_is_checked_but_the_name_of_data_whose_hash_is_equal(
    runs: pd.DataFrame, name: str
) -> None:
    group = runs.iloc[-20:].copy()
    group[name] = [group[name].iloc[0]] * 19 + ["other" if isinstance(group[name].iloc[0], str) else -1]
    with pytest.raises(ValueError, match=f"differ in {name}"):
        check_equal(group, ["seed", "lr"] if name != "lr" else ["seed"], "the group")


def test_a_value_at_which_all_runs_failed_is_no_cell_and_one_that_diverged_has_no_loss() -> None:
    rows = pd.DataFrame(
        {
            "lr": [0.5, 0.5, 1.0, 1.0, 2.0],
            "seed": [0, 1, 0, 1, 0],
            "status": ["ok", "ok", "ok", "diverged", "failed"],
            "val_loss": [2.0, 4.0, 1.0, np.nan, np.nan],
        }
    )
    cells: Cells = cells_of(rows, "lr")
    assert cells.values.tolist() == [0.5, 1.0]
    assert cells.n.tolist() == [2, 0]
    np.testing.assert_array_equal(cells.loss, [3.0, np.nan])


def calls(do: Callable[[], object]) -> int:
    """Functions called, Python's and C's: the same for any number of rows, unless something is done row by row."""
    number = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        do()
    finally:
        sys.setprofile(before)
    return number


def test_no_function_is_called_row_by_row(tmp_path: Path) -> None:
    numbers = []
    for trials in (5_000, 50_000):
        folder = tmp_path / str(trials)
        write(made(trials, widths=1), folder, each=10_000)
        store.compact(folder)  # parts without checksums, as of earlier versions, have every id compared with its row
        numbers.append(calls(lambda folder=folder: optima(store.load(folder), BY, resamples=20)))
        numbers.append(calls(lambda folder=folder: store.finished_trials(store.read_runs(folder))))
        numbers.append(calls(lambda folder=folder: store.status_counts(folder)))
    for few, many in zip(numbers[:3], numbers[3:], strict=True):
        assert many < few + 5_000, (few, many)


# --- what is refused ---


def changed(runs: pd.DataFrame, name: str, value: object) -> pd.DataFrame:
    """The runs with this value in the first two of them."""
    column = runs[name].astype(object if isinstance(value, str) else float)
    column.iloc[:2] = value
    return runs.assign(**{name: column})


@pytest.mark.parametrize("name", ["lr", "density", "width"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("high", "{name} holds 'high' and must hold numbers: runs.astype({{'{name}': float}})"),
        (
            np.nan,
            "{name} is nan in 2 of 8 runs and has no log2; it must be finite and above 0: "
            "select runs[runs.{name} > 0].",
        ),
        (
            np.inf,
            "{name} is inf in 2 of 8 runs and has no log2; it must be finite and above 0: "
            "select runs[(runs.{name} > 0) & (runs.{name} < float('inf'))].",
        ),
        (0.0, "{name} is 0 in 2 of 8 runs"),
        (-2.0, "{name} is -2 in 2 of 8 runs"),
    ],
)
def test_a_value_without_a_log2_is_refused_with_where_it_is_and_the_remedy(name: str, value: object, said: str) -> None:
    runs = pd.DataFrame({"scheme": "sp", "density": 1.0, "width": 64, "lr": [2.0**k for k in range(8)], "seed": 0})
    runs = runs.assign(status="ok", val_loss=2.0, data_hash="d")
    check_runs(runs, ["scheme", "density"], "lr")
    with pytest.raises(ValueError, match=re.escape(said.format(name=name))):
        check_runs(changed(runs, name, value), ["scheme", "density"], "lr")
    with pytest.raises(ValueError, match="seed is missing in 2 of 8 runs"):
        check_runs(changed(runs, "seed", np.nan), ["scheme", "density"], "lr")


@pytest.mark.parametrize("resamples", [0, -3, 1.5, "many", True, None])
def test_resamples_are_a_whole_number(resamples: Any) -> None:
    with pytest.raises(ValueError, match=r"resamples is .*; it must be a whole number, 1 or more"):
        check_resamples(resamples)
    check_resamples(1)
    check_resamples(np.int64(7))


def test_every_fit_checks_its_resamples(runs: pd.DataFrame) -> None:
    for fit in (optima, drift, surface, sensitivity, regret_matrix, tuned_against_transferred):
        with pytest.raises(ValueError, match="resamples is 0"):
            fit(runs, resamples=0)


@pytest.mark.parametrize("name", ["base_width", "base_density"])
def test_a_matrix_of_regrets_asks_where_the_proxy_is(runs: pd.DataFrame, name: str) -> None:
    with pytest.raises(ValueError, match=f"no column '{name}', which says where the proxy is; give it, such as"):
        regret_matrix(runs.drop(columns=name))
    with pytest.raises(ValueError, match=f"{name} is missing in {len(runs)} of {len(runs)} runs"):
        regret_matrix(runs.assign(**{name: np.nan}))
