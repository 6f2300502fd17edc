"""The optimum and its drift on published runs: 1911 dense language models of the step-law study, one seed each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hpsweep as hp
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.transfer.drift import drift
from tests.paths import ROOT

HERE = ROOT
DATA = Path(os.environ.get("HPSWEEP_REFERENCE_DATA", HERE.parent / "shared" / "reference" / "data"))
STEPLAW = DATA / "steplaw_dense_lr_bs_loss.csv"

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not STEPLAW.exists(), reason=f"the published runs are not at {DATA}"),
]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    table = pd.read_csv(STEPLAW)
    columns = {"lr": table["lr"], "val_loss": table["loss"], "N": table["N"], "D": table["D"], "bs": table["bs"]}
    fixed = {"seed": 0, "status": "ok", "data_hash": "steplaw", "scheme": "sp", "density": 1.0}
    return pd.DataFrame({**columns, "width": table["h"], "layers": table["numl"]}).assign(**fixed)


@pytest.fixture(scope="module")
def slices(runs: pd.DataFrame) -> pd.DataFrame:
    return optima(runs, by=["N", "D", "bs"])


def at_the_published_batch(slices: pd.DataFrame, tokens: float) -> float:
    """log2 lr* on the line of optima over log2 batch, at the best batch of arXiv 2503.04715: 0.58 D^0.571 tokens."""
    line = np.polyfit(np.log2(slices["bs"].to_numpy(float)), slices["log2_opt"], 1)
    return float(np.polyval(line, np.log2(0.58 * tokens**0.571 / 2048)))


def test_most_slices_have_an_optimum_and_say_that_their_noise_is_pooled(slices: pd.DataFrame) -> None:
    assert len(slices) == 170
    ok = slices[slices["status"] == "ok"]
    assert len(ok) >= 125
    assert set(ok["interval"]) == {"assumed"}
    assert set(slices["status"]) <= {"ok", "edge", "flat"}


def test_the_exponents_of_size_and_data_are_those_published(slices: pd.DataFrame) -> None:
    # all slices alike give -.57 and .04: the optimum rises with the batch as well, and the best batch with D
    ok = slices[slices["status"] == "ok"]
    cells = [(n, d, at_the_published_batch(rows, d)) for (n, d), rows in ok.groupby(["N", "D"]) if len(rows) >= 4]
    assert len(cells) == 16  # of 17: in the other, four learning rates per batch show no optimum
    n, d, log2_lr = np.array(cells).T
    design = np.stack([np.ones_like(n), np.log2(n), np.log2(d)], axis=1)
    (_, by_n, by_d), (squares,), *_ = np.linalg.lstsq(design, log2_lr, rcond=None)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * squares / (len(cells) - 3))[1:]
    assert abs(by_n + 0.695) <= 2 * 0.037
    assert abs(by_d - 0.208) <= 2 * 0.021
    assert errors == pytest.approx([0.037, 0.021], rel=0.3)


def test_the_optimum_falls_by_about_one_octave_per_doubling_of_width(runs: pd.DataFrame) -> None:
    along = runs[(runs["bs"] == 128) & ((runs["D"] / runs["N"] - 18.6).abs() < 0.1)]
    table = optima(along, by=["width", "layers"], ignore=["N", "D"])
    assert list(table["status"]) == ["ok"] * 5
    parabolas = [-8.84, -9.13, -9.43, -9.65, -9.98]  # within 1 octave, at widths 960, 1024, 1280 twice, 2048
    assert np.abs(table["log2_opt"] - parabolas).max() < 0.25
    [row] = drift(along, "width", along_with=["layers"], ignore=["N", "D"]).to_dict("records")
    assert row["low"] <= -0.97 <= row["high"] < 0
    assert row["drift"] == pytest.approx(-0.97, abs=0.21)  # the published one, and its standard error
    assert (row["n"], row["n_ok"], row["interval"], row["verdict"]) == (5, 5, "assumed", "moves")


def test_optima_of_every_other_learning_rate_agree_within_their_intervals(runs: pd.DataFrame) -> None:
    place = runs.groupby(["N", "D", "bs"])["lr"].rank().astype(int)
    even, odd = (optima(runs[place % 2 == half], by=["N", "D", "bs"]) for half in (0, 1))
    both = even.merge(odd, on=["N", "D", "bs"])
    both = both[(both["status_x"] == "ok") & (both["status_y"] == "ok")]
    assert len(both) >= 80
    apart = both["log2_opt_y"] - both["log2_opt_x"]
    up = np.hypot(both["log2_high_x"] - both["log2_opt_x"], both["log2_opt_y"] - both["log2_low_y"])
    down = np.hypot(both["log2_opt_x"] - both["log2_low_x"], both["log2_high_y"] - both["log2_opt_y"])
    assert ((apart <= up) & (-apart <= down)).mean() >= 0.9


AXES = {"width": "h", "parameters": "N", "tokens": "D", "batch": "bs"}


def test_the_table_as_it_is_goes_to_optima_and_drifts_in_two_calls(slices: pd.DataFrame) -> None:
    # the drift of the best learning rate along batch, for each of the 17 models and amounts of data
    runs = hp.runs(STEPLAW, loss="loss", axes=AXES)
    along = hp.drift(runs, "batch")
    assert len(along) == 17
    assert set(along["unit"]) == {"octaves per doubling of batch"}
    assert (along["drift"] > 0).all()  # it rises with the batch everywhere, as the study says
    longest = along[(along["parameters"] == 214663680) & (along["tokens"] == 100_000_000_000)].iloc[0]
    assert longest["verdict"] == "moves"
    # the optima are those of the same runs with columns renamed by hand
    found = hp.optima(runs).rename(columns={"parameters": "N", "tokens": "D", "batch": "bs"})
    both = found.merge(slices, on=["N", "D", "bs"], suffixes=("", "_by_hand"), validate="one_to_one")
    assert len(both) == 170
    assert list(both["status"]) == list(both["status_by_hand"])
    assert np.allclose(both["log2_opt"], both["log2_opt_by_hand"], rtol=0, atol=1e-12, equal_nan=True)


def test_the_drift_along_width_of_the_table_as_it_is_is_the_published_one() -> None:
    runs = hp.runs(STEPLAW, loss="loss", axes={**AXES, "depth": "numl"})
    ratio = runs["tokens"] / runs["parameters"]
    own = runs[(runs["batch"] == 128) & ((ratio - 18.6).abs() < 0.1)]
    [row] = hp.drift(own, "width", by=["scheme"], along_with=["depth", "parameters", "tokens"]).to_dict("records")
    assert row["low"] <= -0.97 <= row["high"] < 0
    [same] = hp.drift(hp.optima(own), "width", along_with=["depth"]).to_dict("records")
    assert same["drift"] == pytest.approx(row["drift"], abs=1e-12)


def test_batch_may_be_what_is_searched() -> None:
    table = hp.optima(hp.runs(STEPLAW, loss="loss", axes=AXES), over="batch")
    assert set(table["hyperparameter"]) == {"batch"}
    ok = table[table["status"] == "ok"]
    assert len(ok) >= 50
    assert ((ok["low"] <= ok["opt"]) & (ok["opt"] <= ok["high"])).all()
    assert ok["opt"].between(16, 2048).all()


def nearest(values: pd.Series[float], wanted: list[float]) -> pd.Series[bool]:
    """Which of one slice's values lie nearest to wanted ones, within .3 octave."""
    x = np.log2(values.to_numpy(float))
    distance = np.abs(x[:, None] - np.array(wanted))
    kept = (distance == distance.min(axis=0)) & (distance <= 0.3)
    return pd.Series(kept.any(axis=1), index=values.index)


@pytest.mark.parametrize("multiples", [(1, 5), (1, 2, 5)], ids=["1-5-10", "1-2-5-10"])
@pytest.mark.parametrize(
    "offset", [0.0, pytest.param(1.1, marks=pytest.mark.slow), pytest.param(2.2, marks=pytest.mark.slow)]
)
def test_a_grid_as_people_take_it_covers_the_optimum_of_the_full_one(
    runs: pd.DataFrame, slices: pd.DataFrame, multiples: tuple[int, ...], offset: float
) -> None:
    wanted = [float(np.log2(m * 10.0**k)) + offset for k in range(-6, 0) for m in multiples]
    covers(runs[runs.groupby(["N", "D", "bs"])["lr"].transform(nearest, wanted).astype(bool)], slices, least=10)


@pytest.mark.parametrize("gap", [3, 4])
def test_three_values_cover_the_optimum_of_the_full_grid(runs: pd.DataFrame, slices: pd.DataFrame, gap: int) -> None:
    place = runs.groupby(["N", "D", "bs"])["lr"].rank()
    lowest = place[runs.groupby(["N", "D", "bs"])["val_loss"].transform("idxmin")].to_numpy()
    three = runs[(place - lowest).isin([-gap, 0, gap])]
    covers(three, slices, least=5)


def covers(thinned: pd.DataFrame, slices: pd.DataFrame, *, least: int) -> None:
    both = optima(thinned, by=["N", "D", "bs"], resamples=100).merge(
        slices, on=["N", "D", "bs"], suffixes=("", "_full")
    )
    both = both[(both["status"] == "ok") & (both["status_full"] == "ok")]
    assert len(both) >= least
    covered = (both["log2_low"] <= both["log2_opt_full"]) & (both["log2_opt_full"] <= both["log2_high"])
    assert covered.mean() >= 0.93
    assert (both["best_loss"] - both["loss_opt"] <= 2 * both["loss_opt_se"]).all()
