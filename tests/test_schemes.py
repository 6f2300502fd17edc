"""The table of schemes: a row of it is all that a scheme is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from hpsweep.schemes import SCHEMES, Scheme, alike_at_base_density, preferred
from tests.copies import copied_package, edit, told_by

WITH_A_FOURTH = """
import pandas as pd
import hpsweep as hp
from hpsweep.rules.multipliers import attention_scale, tensor_numbers

def trial(**changes):
    return hp.Trial(scheme="rho", width=256, base_width=64, head_size=64, steps=100, init_std=0.08, **changes)

# Rules: density 1/4 of a dense base, and four times its width, which the scheme does not look at.
n = tensor_numbers(trial(lr=0.01, density=1 / 4, tied=False), 256)
print(f"{n['block0.mlp.in'].lr:.4g} {n['block0.mlp.in'].init_std:.4g} {n['readout'].forward:.4g}")
print(attention_scale(trial(lr=0.01)))

rows = []
for density in (1.0, 0.25):
    for k in range(-10, -3):
        one = trial(lr=2.0**k, density=density)
        loss = 2 + 0.05 * (k + 7 - (density < 1)) ** 2
        rows.append({"trial_id": one.trial_id, **one.resolved, "tokens": one.total_tokens, "status": "ok",
            "val_loss": loss, "vocabulary": 256, "data_hash": "d" * 8, "hpsweep_version": "0.1.0", "commit": "abc"})
runs = pd.DataFrame(rows)
for row in hp.optima(runs).to_dict("records"):
    print(row["scheme"], row["density"], row["status"], f"{row['log2_opt']:.4g}")
print("Density alone" in hp.report(runs).about)
card = hp.transfer(runs, hp.Target(width=256, density=0.25), scheme="rho", proxy={"width": 256, "density": 1.0})
print(card.scheme, card.kinds["hidden"]["m_rho"])
"""


@pytest.fixture
def with_a_fourth(tmp_path: Path) -> Path:
    """A copy of the package in which the table has another row; no other file is changed."""
    package = copied_package(tmp_path)
    table = package / "schemes.py"
    edit(table, 'Scheme = Literal["sp"', 'Scheme = Literal["rho", "sp"')
    row = '    "rho": Definition(frozenset({"m_rho"}), "Density alone", "#cc79a7", "^"),\n'
    edit(table, '    "sp": Definition(', f'{row}    "sp": Definition(')
    return package


def test_a_fourth_scheme_is_a_row_of_the_table_and_no_other_file_is_touched(with_a_fourth: Path) -> None:
    assert told_by(with_a_fourth, WITH_A_FOURTH) == [
        "0.04 0.16 1",  # lr / m_rho, init std / sqrt(m_rho), and no forward multiplier
        "0.125",  # 1 / sqrt(64)
        "rho 0.25 ok -6",
        "rho 1.0 ok -7",
        "True",
        "rho 0.25",
    ]


def test_schemes_that_differ_in_density_alone_are_alike_at_the_base_density() -> None:
    assert {scheme: alike_at_base_density(scheme) for scheme in (*get_args(Scheme), "unknown")} == {
        "sp": [], "mup": ["supar"], "supar": ["mup"], "unknown": [],
    }  # fmt: skip


def test_the_scheme_that_corrects_most_is_preferred_and_unknown_ones_are_left_out() -> None:
    assert preferred(["sp", "other", "mup"]) == ["mup", "sp"]
    assert preferred(SCHEMES) == ["supar", "mup", "sp"]
