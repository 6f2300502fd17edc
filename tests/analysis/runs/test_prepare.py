"""Tables that are not one sweep: what they would average, count twice or split is refused, counted once or joined."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hpsweep.analysis.law.law import fit_sweep
from hpsweep.analysis.law.tables import cells_of_table
from hpsweep.analysis.optimum.joint import surface
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.optimum.sensitivity import sensitivity
from hpsweep.analysis.plots.figures import draw_all
from hpsweep.analysis.plots.joint import heat_table
from hpsweep.analysis.plots.tables import curve_table
from hpsweep.analysis.runs.columns import BOOKKEEPING, OUTCOMES
from hpsweep.analysis.runs.prepare import prepared_runs
from hpsweep.analysis.transfer.along_drift import held_out
from hpsweep.analysis.transfer.comparison import tuned_against_transferred
from hpsweep.analysis.transfer.drift import drift
from hpsweep.analysis.transfer.regret_matrix import regret_matrix
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.schema import RUNS
from hpsweep.spec import Target

FEW: dict[str, Any] = {"resamples": 20}


def table(seeds: int = 2, **columns: Any) -> pd.DataFrame:
    """A sweep of lr at two densities, with the columns that a fit reads; more columns are added as they are."""
    generator = np.random.default_rng(3)
    rows = [
        {"scheme": "mup", "width": 64, "density": density, "lr": 2.0**k, "seed": seed}
        for density in (1.0, 0.25)
        for k in range(-11, -4)
        for seed in range(seeds)
    ]
    made = pd.DataFrame(rows).assign(base_width=64, base_density=1.0, status="ok", data_hash="d")
    made["val_loss"] = 2 + 0.03 * (np.log2(made["lr"]) + 8.2) ** 2 + 0.002 * generator.standard_normal(len(made))
    return made.assign(**columns)


def alternating(values: tuple[Any, Any], runs: pd.DataFrame) -> list[Any]:
    """One of the two values, in turn: a column that varies within every group, cell and seed."""
    return [values[i // 3 % 2] for i in range(len(runs))]


# --- columns that hpsweep does not know ---


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n_layer", (4, 32)),
        ("N", (1e6, 1e9)),
        ("epochs", (1, 4)),
        ("optimizer", ("adam", "lion")),
        ("qk_norm", (True, False)),
        ("dropout", (0.0, None)),
        ("betas", ([0.9, 0.95], [0.9, 0.999])),
        ("config", ({"depth": 4}, {"depth": 8})),
        ("loss", ("mse", "cross entropy")),  # a name of an outcome, and no number
        ("tokens", (10**6, 10**9)),  # hpsweep's own, and nothing else says how long was trained
        ("vocabulary", (256, 50_000)),
    ],
)
def test_an_unknown_column_that_varies_within_a_group_is_refused_with_the_remedy(
    name: str, values: tuple[Any, Any]
) -> None:
    runs = table()
    runs[name] = alternating(values, runs)
    with pytest.raises(ValueError, match=rf"^runs of one group differ in {name} \(") as refused:
        optima(runs, **FEW)
    assert "\n" not in str(refused.value)
    assert f"--by ...,{name}" in str(refused.value)
    assert f"ignore=['{name}'], or --ignore {name}" in str(refused.value)
    assert optima(runs, ignore=[name], **FEW).equals(optima(table(), **FEW))


def test_all_unknown_columns_are_named_at_once_and_not_only_those_of_the_first_group() -> None:
    runs = table()
    dense = runs["density"] == 1
    runs["first"] = np.where(dense, alternating((1, 2), runs), 1)
    runs["second"] = np.where(dense, 1, alternating((1, 2), runs))
    with pytest.raises(ValueError, match=re.escape("ignore=['first', 'second'], or --ignore first,second")):
        optima(runs, **FEW)


@pytest.mark.parametrize("of", ["lr", "seed"])
def test_a_column_that_goes_by_the_setting_or_by_the_seed_is_refused_too(of: str) -> None:
    """With one run of each it cannot be told from what was trained: a smaller lr for a larger model."""
    runs = table()
    runs["n_layer"] = runs[of].rank(method="dense")
    with pytest.raises(ValueError, match="differ in n_layer"):
        optima(runs, **FEW)


def test_an_unknown_column_may_differ_between_groups_and_in_runs_that_failed() -> None:
    runs = table()
    runs["n_layer"] = np.where(runs["density"] == 1, 4, 8)
    failed = runs.iloc[:2].assign(status="failed", val_loss=np.nan, n_layer=99)
    assert (optima(pd.concat([runs, failed]), **FEW)["status"] == "ok").all()


def test_an_unknown_column_makes_groups_if_it_is_asked_to() -> None:
    parts = [table().assign(n_layer=depth, val_loss=table()["val_loss"] + depth) for depth in (4, 32)]
    found = optima(pd.concat(parts), ["scheme", "density", "n_layer"], **FEW)
    assert found["n_layer"].tolist() == [4, 32, 4, 32]
    assert np.allclose(found["opt"], optima(table(), **FEW)["opt"].repeat(2))


@pytest.mark.parametrize("name", [*sorted(OUTCOMES), "train_loss", "val_loss_se", "seconds"])
def test_outcomes_may_differ(name: str) -> None:
    runs = table()
    assert len(optima(runs.assign(**{name: np.arange(len(runs)) / 7}), **FEW)) == 2


@pytest.mark.parametrize("name", [*sorted(BOOKKEEPING), "Host", "trial_id", "commit", "level_0", "Unnamed: 0"])
def test_bookkeeping_may_differ(name: str) -> None:
    runs = table()
    assert len(optima(runs.assign(**{name: [f"it {i}" for i in range(len(runs))]}), **FEW)) == 2


def test_times_may_differ_whatever_their_name() -> None:
    runs = table()
    assert len(optima(runs.assign(when=pd.date_range("2026-11-29", periods=len(runs), freq="h")), **FEW)) == 2


def test_no_name_of_an_outcome_or_of_bookkeeping_is_a_field_of_the_trial() -> None:
    assert not (OUTCOMES | BOOKKEEPING) & set(RUNS.names)


@pytest.mark.parametrize("ignore", ["n_layer", ["absent"], ["density"], ["val_loss"], [1], 3, None])
def test_what_cannot_be_ignored_is_refused(ignore: Any) -> None:
    with pytest.raises(ValueError, match=r"^ignore (is|has) "):
        optima(table(n_layer=1), ignore=ignore, **FEW)


def sweep(**columns: Any) -> pd.DataFrame:
    """Rows with every column of a sweep of hpsweep's, at three widths, densities and durations, and two init stds."""
    generator = np.random.default_rng(5)
    rows = [
        {"width": width, "density": density, "steps": steps, "init_std": std, "lr": 2.0**k, "seed": seed}
        for width in (64, 128, 256)
        for density in (1.0, 0.5, 0.25)
        for steps in (100, 200, 400)
        for std in (0.04, 0.08)
        for k in (-10, -8, -6)
        for seed in range(2)
    ]
    made = pd.DataFrame(rows)
    made = made.assign(
        scheme="mup", depth=2, head_size=16, context=64, tied=True, data="made", batch=8, eval_sequences=64,
        alpha_input=1.0, alpha_attention=1.0, alpha_output=1.0, embedding_lr_mult=1.0, weight_decay=0.0,
        weight_decay_rule="coupled", base_width=64, base_density=1.0, base_head_size=16, beta1=0.9,
        beta2=0.95, eps=1e-12, clip=1.0, warmup_fraction=0.1, final_lr_fraction=0.1, precision="float32",
        status="ok", data_hash="d", vocabulary=256, model="gpt", settings="{}",
        trial_id=[f"{i:016x}" for i in range(len(made))],
    )  # fmt: skip
    made["hidden_parameters"] = 24 * made["width"] ** 2
    made["hidden_nonzeros"] = (made["hidden_parameters"] * made["density"]).astype(int)
    made["parameters"] = made["hidden_parameters"] + 320 * made["width"]
    made["tokens"] = made["steps"] * 512
    made["flops_dense"] = 6.0 * made["parameters"] * made["tokens"]
    made["flops_sparse"] = 6.0 * made["hidden_nonzeros"] * made["tokens"]
    size = 30 / made["hidden_nonzeros"] ** 0.3 + 40 / made["tokens"] ** 0.4
    made["val_loss"] = 1 + size + 0.03 * (np.log2(made["lr"]) + 8.2) ** 2 + 0.002 * generator.standard_normal(len(made))
    return made.assign(**columns)


EVERY: dict[str, tuple[Callable[..., Any], int]] = {
    "optima": (lambda runs, **o: optima(runs, ["scheme", "width", "density"], **FEW, **o), 1),
    "sensitivity": (lambda runs, **o: sensitivity(runs, ["scheme", "width", "density"], **FEW, **o), 1),
    "drift": (lambda runs, **o: drift(runs, "density", ["scheme", "width"], **FEW, **o), 1),
    "tuned_against_transferred": (lambda runs, **o: tuned_against_transferred(runs, **FEW, **o), 1),
    "regret_matrix": (lambda runs, **o: regret_matrix(runs, **FEW, **o), 1),
    "held_out": (lambda runs, **o: held_out(runs, **FEW, **o), 1),
    "transfer": (lambda runs, **o: transfer(runs, Target(width=512, density=0.25), **FEW, **o), 1),
    "curve_table": (lambda runs, **o: curve_table(runs[runs["width"] == 64], **o), 1),
    "surface": (lambda runs, **o: surface(runs, ["scheme", "width", "density"], **FEW, **o), 2),
    "heat_table": (lambda runs, **o: heat_table(runs, ["scheme", "width", "density"], **o), 2),
    "transfer of two": (
        lambda runs, **o: transfer(runs, Target(width=512, density=0.25), over=("lr", "init_std"), **FEW, **o),
        2,
    ),
    "fit_sweep": (lambda runs, **o: fit_sweep(runs, resamples=50, **o), 3),
}


def sweep_for(kind: int) -> pd.DataFrame:
    """The runs that a function takes: of one hyperparameter, of two, or of a law."""
    runs = sweep()
    if kind < 3:
        runs = runs[runs["steps"] == 100]
    if kind < 2:
        runs = runs[runs["init_std"] == 0.08]
    if kind == 2:
        rest = [runs.assign(init_std=std, val_loss=runs["val_loss"] + 0.01 * std) for std in (0.02, 0.16)]
        ids = [[f"{std}{i}" for i in range(len(runs))] for std in (2, 16)]
        runs = pd.concat([runs, *(part.assign(trial_id=own) for part, own in zip(rest, ids, strict=True))])
        runs = runs.drop_duplicates(["width", "density", "init_std", "lr", "seed"])
    return runs


@pytest.mark.parametrize("name", [name for name, (_, kind) in EVERY.items() if kind < 3])
def test_every_function_takes_a_search_that_tried_two_values_within_one_percent(name: str) -> None:
    function, kind = EVERY[name]
    runs = sweep_for(kind)
    near = runs.assign(lr=runs["lr"] * 1.004, val_loss=runs["val_loss"] + 0.003)  # of the same seeds
    near = near.assign(trial_id=[f"f{i}" for i in range(len(near))])
    function(pd.concat([runs, near], ignore_index=True))


@pytest.mark.parametrize("name", EVERY)
def test_every_function_of_runs_refuses_an_unknown_column_that_varies_and_takes_ignore(name: str) -> None:
    function, kind = EVERY[name]
    runs = sweep_for(kind)
    odd = runs.assign(n_layer=alternating((4, 32), runs))
    with pytest.raises(ValueError, match="differ in n_layer"):
        function(odd)
    with pytest.raises(ValueError, match="ignore has 'absent'"):
        function(odd, ignore=["absent"])
    function(odd, ignore=["n_layer"])


def test_figures_refuse_an_unknown_column_that_varies(tmp_path: Path) -> None:
    runs = sweep()
    runs = runs[(runs["steps"] == 100) & (runs["init_std"] == 0.08) & (runs["width"] == 64)]
    odd = runs.assign(n_layer=alternating((4, 32), runs))
    with pytest.raises(ValueError, match="differ in n_layer"):
        draw_all(odd, tmp_path)
    assert draw_all(odd, tmp_path, ignore=["n_layer"])


# --- runs given more than once ---


@pytest.mark.parametrize("times", [2, 4, 8])
def test_a_run_given_several_times_counts_once(times: int) -> None:
    runs = table()
    with pytest.warns(UserWarning, match=rf"{28 * (times - 1)} of {28 * times} runs repeat another one.* scheme mup"):
        found = optima(pd.concat([runs] * times), **FEW)
    assert found.equals(optima(runs, **FEW))


def test_a_run_given_again_under_another_seed_counts_once() -> None:
    runs = table()
    assert runs["seed"].nunique() > 1
    copies = [runs.assign(seed=runs["seed"] + 10 * k) for k in range(1, 4)]
    with pytest.warns(UserWarning, match=r"seed 10 has the loss of seed 0 at 7 of the 7 values.* 11 others"):
        found = optima(pd.concat([runs, *copies]), **FEW)
    assert found.equals(optima(runs, **FEW))
    one = runs[runs["seed"] == 0]
    assert len(optima(pd.concat([one, one.assign(seed=1)]), **FEW)) == 2  # without noise all seeds are alike


def test_a_diverged_run_given_twice_counts_once_and_failed_attempts_are_counted_as_before() -> None:
    runs = table(status=["diverged" if k % 14 == 13 else "ok" for k in range(28)])
    runs.loc[runs["status"] != "ok", "val_loss"] = np.nan
    failed = runs.iloc[:3].assign(status="failed", val_loss=np.nan)
    with pytest.warns(UserWarning, match="28 of 62 runs repeat"):
        found = optima(pd.concat([runs, runs, failed, failed]), **FEW)
    assert found["n_diverged"].tolist() == [1, 1]
    assert found["n_failed"].tolist() == [0, 6]  # the densest last, as 0.25 sorts before 1


@pytest.mark.parametrize("change", [{"val_loss": 2.5}, {"status": "diverged", "val_loss": np.nan}])
def test_two_outcomes_of_one_run_are_refused_naming_it(change: dict[str, Any]) -> None:
    runs = table()
    again = runs.iloc[:1].assign(**change)
    said = r"^scheme mup, density 1.0, lr 0.00048828125, seed 0 has 2 runs with different outcomes \("
    with pytest.raises(ValueError, match=said) as refused:
        optima(pd.concat([runs, again]), **FEW)
    assert "drop_duplicates(['scheme', 'density', 'lr', 'seed'], keep='last')" in str(refused.value)


def test_two_outcomes_of_one_run_of_a_pair_are_refused() -> None:
    runs = sweep()
    runs = runs[(runs["steps"] == 100) & (runs["width"] == 64)].drop(columns="trial_id")
    with pytest.raises(ValueError, match="has 2 runs with different outcomes"):
        surface(pd.concat([runs, runs.iloc[:1].assign(val_loss=9.0)]), **FEW)


# --- values within 1 % ---


def rounded(runs: pd.DataFrame, digits: int) -> pd.DataFrame:
    """The runs with the lr and the density of the second seed as a logger writes them."""
    second = runs["seed"] == 1
    for name in ("lr", "density"):
        short = runs[name].map(lambda value: float(f"{value:.{digits}g}"))
        runs = runs.assign(**{name: runs[name].where(~second, short)})
    return runs


@pytest.mark.parametrize("digits", [3, 4, 6])
def test_an_lr_rounded_by_a_logger_is_the_same_cell(digits: int) -> None:
    runs = table(seeds=3).assign(density=lambda t: t["density"].where(t["density"] == 1, 1 / 64))
    assert rounded(runs, digits)["lr"].nunique() > runs["lr"].nunique()
    assert optima(rounded(runs, digits), **FEW).equals(optima(runs, **FEW))
    assert sensitivity(rounded(runs, digits), **FEW).equals(sensitivity(runs, **FEW))
    assert drift(rounded(runs, digits), **FEW).equals(drift(runs, **FEW))


@pytest.mark.parametrize("part", [0.009, -0.009])
def test_values_within_one_percent_are_one_cell_and_those_beyond_are_two(part: float) -> None:
    runs = table(seeds=3)
    for factor, cells in ((1 + part, 7), (1 + 2 * part, 14)):
        moved = runs.assign(lr=runs["lr"].where(runs["seed"] != 1, runs["lr"] * factor))
        made = prepared_runs(moved, ["scheme", "density"], "lr")
        assert made["lr"].nunique() == cells
        assert set(runs["lr"]) <= set(made["lr"])  # the commonest of a cell stays


def test_values_are_joined_within_a_group_and_not_across_groups() -> None:
    runs = table()
    runs["lr"] = runs["lr"].where(runs["density"] == 1, runs["lr"] * 1.005)  # a grid of its own
    assert prepared_runs(runs, ["scheme", "density"], "lr")["lr"].tolist() == runs["lr"].tolist()


def test_beta2_and_densities_that_are_swept_on_purpose_stay_apart() -> None:
    runs = table().assign(density=lambda t: t["density"].where(t["density"] == 1, 0.995))
    assert len(optima(runs, **FEW)) == 2
    runs = table().drop(columns="density").assign(beta2=table()["density"].map({1.0: 0.99, 0.25: 0.999}))
    assert len(optima(runs, ["scheme", "beta2"], **FEW)) == 2


def test_another_hyperparameter_that_was_rounded_makes_no_groups_of_its_own() -> None:
    runs = table(seeds=3).assign(init_std=0.08123)
    odd = runs.assign(init_std=runs["init_std"].where(runs["seed"] != 1, 0.0812))
    by = ["scheme", "density"]
    assert optima(odd, by, **FEW).equals(optima(runs, by, **FEW))


def test_two_settings_of_a_sampler_within_one_percent_are_two_runs_of_one_cell() -> None:
    runs = table()
    extra = runs.iloc[:2].assign(lr=runs["lr"].iloc[0] * 1.004, val_loss=lambda t: t["val_loss"] + 0.001)
    found = optima(pd.concat([runs, extra]), **FEW)
    assert found["n_runs"].tolist() == [14, 16]


def test_points_of_a_pair_are_joined_where_both_values_are_within_one_percent() -> None:
    generator = np.random.default_rng(0)
    at = 2.0 ** generator.uniform([-10, -6], [-5, -2], (60, 2))
    runs = pd.DataFrame(at, columns=["lr", "init_std"]).assign(
        scheme="sp", density=1.0, seed=0, status="ok", data_hash="d", val_loss=2 + generator.random(60)
    )
    again = runs.assign(seed=1, lr=runs["lr"] * 1.004, init_std=runs["init_std"] * 0.996)
    made = prepared_runs(pd.concat([runs, again]), ["scheme", "density"], ["lr", "init_std"])
    assert made.groupby(["lr", "init_std"])["seed"].nunique().tolist() == [2] * 60


# --- types of columns ---


@pytest.mark.parametrize("kind", ["category", "nullable", "pyarrow"])
def test_types_of_other_loaders_give_the_same_optima(kind: str) -> None:
    runs = table()
    if kind == "category":
        odd = runs.astype({"scheme": "category", "density": "category", "status": "category", "seed": "category"})
    else:
        odd = runs.convert_dtypes(dtype_backend="pyarrow" if kind == "pyarrow" else "numpy_nullable")
    by = ["scheme", "density"]
    assert optima(odd, by, **FEW).equals(optima(runs, by, **FEW))
    assert regret_matrix(odd, **FEW).equals(regret_matrix(runs, **FEW))


def _arrow(values: list[Any], kind: pa.DataType) -> Any:
    return pd.array(values, dtype=pd.ArrowDtype(kind))


_HOURS = pd.date_range("2026-11-29", periods=200, freq="h", tz="Europe/Berlin").tolist()


@pytest.mark.parametrize(
    "times",
    [
        lambda n: _arrow(_HOURS[:n], pa.timestamp("us", tz="Europe/Berlin")),
        lambda n: _arrow(_HOURS[:n], pa.timestamp("ns", tz="UTC")),
        lambda n: _arrow([hour.date() for hour in _HOURS[:n]], pa.date32()),
        lambda n: _arrow([hour.time() for hour in _HOURS[:n]], pa.time64("us")),
        lambda n: _arrow([timedelta(seconds=i) for i in range(n)], pa.duration("us")),
        lambda n: pd.to_timedelta(np.arange(n), "s"),
        lambda n: pd.period_range("2026", periods=n, freq="D"),
        lambda n: [hour.date() for hour in _HOURS[:n]],
        lambda n: [*_HOURS[: n - 1], None],
    ],
)
def test_times_may_differ_whatever_their_type(times: Any) -> None:
    runs = table()
    assert optima(runs.assign(when=times(len(runs))), **FEW).equals(optima(runs, **FEW))


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.list_(pa.string()))]))]),
        pa.list_(pa.int64()),
        pa.map_(pa.string(), pa.int64()),
    ],
    ids=["struct", "list", "map"],
)
def test_nested_arrow_columns_may_be_equal_and_are_refused_where_they_vary(kind: pa.DataType) -> None:
    runs = table()
    values: list[Any] = [{"a": 1, "b": {"c": ["x"]}}, {"a": 2, "b": None}]
    if not pa.types.is_struct(kind):
        values = [[1], [1, 2]] if pa.types.is_list(kind) else [[("a", 1)], [("a", 2)]]
    equal = runs.assign(config=_arrow([values[0]] * len(runs), kind))
    assert optima(equal, **FEW).equals(optima(runs, **FEW))
    odd = runs.assign(config=_arrow([values[i % 2] for i in range(len(runs))], kind))
    with pytest.raises(ValueError, match="runs of one group differ in config"):
        optima(odd, **FEW)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_arrow_text_of_every_kind_is_text(kind: pa.DataType) -> None:
    runs = table()
    odd = runs.assign(
        **{n: _arrow(runs[n].tolist(), pa.string()).astype(pd.ArrowDtype(kind)) for n in ("scheme", "status")}
    )
    by = ["scheme", "density"]
    assert optima(odd, by, **FEW).equals(optima(runs, by, **FEW))


def test_tags_may_say_what_was_trained() -> None:
    runs = table()
    with pytest.raises(ValueError, match="runs of one group differ in tags"):
        optima(runs.assign(tags=["baseline", "ablation"] * (len(runs) // 2)), **FEW)


def test_a_remedy_leaves_some_runs() -> None:
    runs = table()
    with pytest.raises(ValueError, match=r"density is -1 in .*: correct it"):
        optima(runs.assign(density=-1.0), **FEW)


# --- a law's table ---


def law_table() -> pd.DataFrame:
    """A dense law's table: four sizes on four amounts of data, two seeds."""
    generator = np.random.default_rng(0)
    rows = [(n, d, seed) for n in (1e6, 1e7, 1e8, 1e9) for d in (1e8, 1e9, 1e10, 1e11) for seed in (0, 1)]
    made = pd.DataFrame(rows, columns=["params", "tokens", "seed"])
    loss = 1.7 + 400 / made["params"] ** 0.34 + 410 / made["tokens"] ** 0.28
    return made.assign(loss=loss * np.exp(0.002 * generator.standard_normal(len(made))))


def test_rows_of_a_law_at_one_size_and_amount_of_data_differ_in_no_column_that_may_be_a_setting() -> None:
    table = law_table()
    odd = table.assign(n_layer=["a", "b"] * 16)
    with pytest.raises(ValueError, match=r"differ in n_layer \(a, b, \.\.\.\), which may be a setting"):
        cells_of_table(odd, **NAMES)
    assert len(cells_of_table(odd, **NAMES, ignore=["n_layer"]).table) == 32
    assert len(cells_of_table(table.assign(n_layer=table["params"]), **NAMES).table) == 32


NAMES: dict[str, Any] = {"loss": "loss", "params": "params", "tokens": "tokens", "sparsity": None, "status": None}
