"""Seeds that are copies of another count once: rounded, cut, of fewer bits, all values or some; and no others do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hpsweep as hp
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.runs.copied_seeds import each_seed_once

REFERENCE = Path("results/reference")
SETTINGS = ("scheme", "width", "density", "init_std", "embedding_lr_mult", "steps", "warmup_fraction")
FEW: dict[str, Any] = {"resamples": 20}


def table(noise: float = 0.003, seeds: int = 3, values: int = 9, draw: int = 0, groups: int = 1) -> pd.DataFrame:
    """A sweep of lr whose seeds differ by a shift, a slope and noise."""
    generator = np.random.default_rng(draw)
    x = np.linspace(-11, -3, values)
    rows = []
    for group in range(groups):
        loss = 2 + 0.02 * (x + 7.4) ** 2 + noise * generator.standard_normal((seeds, values))
        loss += 3 * noise * generator.standard_normal((seeds, 1)) + noise * generator.standard_normal((seeds, 1)) * x
        rows += [(1 / (1 + group), 2.0 ** x[i], seed, loss[seed, i]) for seed in range(seeds) for i in range(values)]
    made = pd.DataFrame(rows, columns=["density", "lr", "seed", "val_loss"])
    return made.assign(scheme="sp", status="ok", data_hash="d")


RECORDED: dict[str, Callable[[pd.Series], pd.Series]] = {
    "as it is": lambda loss: loss,
    "four decimals": lambda loss: loss.round(4),
    "three decimals": lambda loss: loss.round(3),
    "five digits": lambda loss: loss.map(lambda x: float(f"{x:.5g}")),
    "cut": lambda loss: np.floor(loss * 1e4) / 1e4,
    "float32": lambda loss: loss.astype(np.float32).astype(float),
    "four decimals in float32": lambda loss: loss.round(4).astype(np.float32).astype(float),
}


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("which", ["all values", "values on one side"])
def test_runs_recorded_again_under_other_seeds_count_once(name: str, which: str) -> None:
    runs = table()
    again = runs[runs["lr"] < 2**-4.5] if which != "all values" else runs
    again = again.assign(seed=again["seed"] + 10, val_loss=RECORDED[name](again["val_loss"]))
    with pytest.warns(UserWarning, match=r"seed 10 has the loss of seed 0 at [79] of the [79] values.* 2 others"):
        found = optima(pd.concat([runs, again]), **FEW)
    assert found.equals(optima(runs, **FEW))


def test_of_a_table_of_losses_that_were_all_rounded_copies_count_once_too() -> None:
    runs = table().assign(val_loss=lambda t: t["val_loss"].round(4))
    with pytest.warns(UserWarning, match=r"to the last digit.* 2 others"):
        found = optima(pd.concat([runs, runs.assign(seed=runs["seed"] + 3)]), **FEW)
    assert found.equals(optima(runs, **FEW))


def test_a_seed_with_values_of_its_own_keeps_them_and_loses_those_that_are_copied() -> None:
    runs = table(values=12)
    copied = runs["lr"] < 2**-6
    generator = np.random.default_rng(5)
    own = runs["val_loss"] + 0.003 * generator.standard_normal(len(runs))
    again = runs.assign(seed=runs["seed"] + 10, val_loss=runs["val_loss"].where(copied, own))
    with pytest.warns(UserWarning, match=r"seed 10 has the loss of seed 0 at 7 of the 12 values"):
        kept = each_seed_once(pd.concat([runs, again]), ["density"], ["lr"])
    assert len(kept) == len(runs) + int((~copied).sum())


def test_a_single_seed_and_its_rounded_copy_are_one_seed() -> None:
    runs = table(seeds=1)
    with pytest.warns(UserWarning, match="within the rounding of the coarser"):
        found = optima(pd.concat([runs, runs.assign(seed=1, val_loss=runs["val_loss"].round(4))]), **FEW)
    assert found.equals(optima(runs, **FEW))


def test_copies_to_several_roundings_are_all_found() -> None:
    runs = table()
    again = [runs.assign(seed=runs["seed"] + 10 * k, val_loss=runs["val_loss"].round(3 + k)) for k in (1, 2, 3)]
    with pytest.warns(UserWarning, match="8 others"):
        kept = each_seed_once(pd.concat([*again, runs]), ["density"], ["lr"])
    assert kept.equals(runs)  # which are the finest, though the last


def test_where_every_run_has_a_seed_of_its_own_a_copy_is_found_by_all_of_its_digits() -> None:
    runs = table(seeds=3).assign(seed=np.arange(27))
    with pytest.warns(UserWarning, match="26 others"):
        kept = each_seed_once(pd.concat([runs, runs.assign(seed=runs["seed"] + 27)]), ["density"], ["lr"])
    assert kept["seed"].tolist() == list(range(27))


@pytest.mark.parametrize("decimals", [2, 3, 4, 15])
@pytest.mark.parametrize("noise", [0.0, 0.0001, 0.0005, 0.003])
def test_seeds_that_agree_by_chance_are_no_copies(noise: float, decimals: int) -> None:
    for draw, (seeds, values) in enumerate([(2, 3), (3, 5), (3, 9), (10, 9), (3, 30)]):
        runs = table(noise, seeds, values, draw, groups=3)
        runs["val_loss"] = runs["val_loss"].round(decimals)
        assert each_seed_once(runs, ["density"], ["lr"]) is runs


@pytest.mark.parametrize("decimals", [3, 4])
def test_seeds_of_one_shape_that_a_shift_tells_apart_are_no_copies(decimals: int) -> None:
    runs = table(noise=0.0, seeds=8)
    runs["val_loss"] = (runs["val_loss"] + 0.0003 * runs["seed"]).round(decimals)
    assert each_seed_once(runs, ["density"], ["lr"]) is runs


def test_losses_that_were_clipped_make_no_copies_and_go_with_those_that_are() -> None:
    for draw in range(40):
        runs = table(draw=draw, noise=0.01).assign(val_loss=lambda t: t["val_loss"].clip(upper=2.06))
        assert len(each_seed_once(runs, ["scheme", "density"], ["lr"])) == len(runs)
    with pytest.warns(UserWarning, match="the same runs"):
        found = optima(pd.concat([runs, runs.assign(seed=runs["seed"] + 3)]), **FEW)
    assert found.equals(optima(runs, **FEW))


def test_values_at_which_all_seeds_have_one_loss_make_no_copies() -> None:
    runs = table(values=12)
    clipped = runs["val_loss"].where(runs["lr"] < 2**-7, 10.0)
    runs = runs.assign(val_loss=clipped)
    few = runs[(runs["seed"] != 2) | (runs["lr"] > 2**-7)]  # of one seed, only clipped ones
    assert each_seed_once(few, ["density"], ["lr"]) is few


@pytest.mark.parametrize("decimals", [15, 4, 3])
def test_no_seed_of_the_stored_sweeps_is_taken_for_a_copy(decimals: int) -> None:
    for folder in sorted(REFERENCE.glob("*/runs")):
        runs = hp.load(folder.parent)
        runs["val_loss"] = runs["val_loss"].round(decimals)
        group = [name for name in SETTINGS if name in runs]
        assert each_seed_once(runs, group, ["lr"]) is runs
