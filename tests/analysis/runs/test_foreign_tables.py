"""Tables of others: an index with the names of columns, and columns that are no real numbers."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hpsweep as hp
from tests.analysis.law import law_cells as cells

FEW = {"resamples": 50}


def runs() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        {"scheme": "sp", "density": density, "width": 128, "lr": 2.0**k, "seed": seed, "status": "ok", "data_hash": "x"}
        for density in (1.0, 0.5, 0.25)
        for k in range(-12, -4)
        for seed in range(2)
    ]
    table = pd.DataFrame(rows)
    loss = 2 + 0.03 * (np.log2(table["lr"]) + 8.5) ** 2 + 0.003 * generator.standard_normal(len(table))
    return table.assign(val_loss=loss)


FITS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "optima": lambda table: hp.optima(table, **FEW),
    "drift": lambda table: hp.drift(table, "density", **FEW),
    "sensitivity": lambda table: hp.sensitivity(table, **FEW),
}


@pytest.mark.parametrize("index", [["density"], ["density", "lr"], ["seed", "density"]])
@pytest.mark.parametrize("fit", FITS)
def test_an_index_that_has_the_names_of_columns_changes_nothing(fit: str, index: list[str]) -> None:
    table = runs()
    indexed = table.set_index(index, drop=False)
    pd.testing.assert_frame_equal(FITS[fit](indexed), FITS[fit](table))
    assert indexed.index.names == index  # the caller's table is as it was


def test_a_law_of_a_table_with_such_an_index_is_that_of_the_columns() -> None:
    table = cells.made(cells.DENSE, noise=0.002)
    for index in (["params"], ["params", "tokens"]):
        law = hp.law.fit_law(table.set_index(index, drop=False), **FEW)
        assert law.coefficients == hp.law.fit_law(table, **FEW).coefficients


@pytest.mark.parametrize("name", ["density", "lr", "val_loss"])
def test_a_column_that_is_in_the_index_alone_counts_as_one(name: str) -> None:
    table = runs()
    indexed = table.set_index([name, "width"])
    pd.testing.assert_frame_equal(hp.optima(indexed, by=["density"], **FEW), hp.optima(table, by=["density"], **FEW))
    assert indexed.index.names == [name, "width"]
    law = cells.made(cells.DENSE, noise=0.002)
    assert hp.law.fit_law(law.set_index("params"), **FEW).coefficients == hp.law.fit_law(law, **FEW).coefficients


@pytest.mark.parametrize("name", ["depth", "n_layer"])
def test_what_differs_and_is_in_the_index_is_never_averaged_over(name: str) -> None:
    table = runs()
    both = pd.concat([table.assign(**{name: 2}), table.assign(**{name: 8, "seed": table["seed"] + 100})])
    for given in (both, both.set_index(name)):
        with pytest.raises(ValueError, match=f"differ in {name}"):
            hp.optima(given, by=["density"], **FEW)


def test_losses_and_rates_of_half_precision_are_read() -> None:
    table = runs()
    halves = table.astype({"lr": "float16", "density": "float16"})
    assert len(hp.optima(halves, by=["density"], **FEW)) == len(hp.optima(table, by=["density"], **FEW))


COMPLEX: dict[str, Callable[[Any], Any]] = {
    "complex": lambda column: column.astype(complex),
    "complex objects": lambda column: [complex(value) for value in column],
    "single complex": lambda column: column.astype(np.complex64),
}
NO_NUMBERS: dict[str, Callable[[Any], Any]] = {
    **COMPLEX,
    "yes and no": lambda column: column > column.median(),
    "times": lambda column: pd.date_range("2026-01-01", periods=len(column)),
    "durations": lambda column: pd.timedelta_range("1 s", periods=len(column)),
    "days": lambda column: [datetime.date(2026, 1, 1 + i % 28) for i in range(len(column))],
    "lists": lambda column: [[value] for value in column],
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("name", ["val_loss", "lr", "density", "width"])
def test_columns_that_are_no_real_numbers_are_refused(name: str, kind: str) -> None:
    table = runs()
    odd = table.assign(**{name: NO_NUMBERS[kind](table[name].astype(float))})
    for fit in FITS.values():
        with pytest.raises(ValueError, match=rf"^{name} holds .* must hold numbers: ") as caught:
            fit(odd)
        assert ("astype" in str(caught.value)) == (kind in ("yes and no", "days", "lists"))


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("name", ["loss", "params", "tokens", "S"])
def test_a_law_takes_real_numbers_alone(name: str, kind: str) -> None:
    table = cells.made().rename(columns={"sparsity": "S"})
    odd = table.assign(**{name: NO_NUMBERS[kind](table[name].astype(float))})
    with pytest.raises(ValueError, match=rf"column '{name}' (holds|is not numeric)"):
        hp.law.fit_law(odd, sparsity="S", **FEW)


def test_decimals_in_a_law_are_the_numbers_that_they_are() -> None:
    table = cells.made(cells.DENSE)
    exact = [decimal.Decimal(repr(float(value))) for value in table["loss"]]
    assert hp.law.fit_law(table.assign(loss=exact), **FEW).coefficients == hp.law.fit_law(table, **FEW).coefficients
