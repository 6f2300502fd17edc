"""hpsweep law: tables and folders, JSON that is only JSON, and every wrong input as one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hpsweep import store
from hpsweep.analysis.law.law import Law
from hpsweep.analysis.plots import law as plot_law
from hpsweep.cli import main
from tests.analysis.law import law_cells as cells
from tests.analysis.law.test_law import sweep_runs

NAMED = ["--loss", "L", "--params", "N", "--tokens", "D", "--sparsity", "S"]
FEW = ["--resamples", "50"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("law") / "runs.csv"
    columns = {"loss": "L", "params": "N", "tokens": "D", "sparsity": "S"}
    cells.made(noise=0.003).rename(columns=columns).to_csv(path, index=False)
    return str(path)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_json_has_raw_coefficients_objective_intervals_weak_terms_and_status(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["law", table, *NAMED, *FEW, "--json", "--compare", "t5_c4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["coefficients"]["b_N"] == pytest.approx(0.25, rel=0.2)
    assert found["objective"] < found["compared"]["t5_c4"]
    assert {row["coefficient"] for row in found["intervals"]} == set(found["coefficients"])
    assert found["status"] in ("ok", "weak")
    assert isinstance(found["weak"], list)
    assert "replicates" not in found


def test_text_begins_with_the_verdict_and_answers_what_was_asked(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot_law, "draw_all", lambda law, folder, output: [folder / f"{law.form}.png"])
    out = tmp_path / "law.json"
    asked = ["--at", "0.5,1e7,1e10=2.5", "--budget", "1e7,1e10", "--counts", "kept weights", "--unit", "examples"]
    assert main(["law", table, *NAMED, *FEW, *asked, "--out", str(out), "--figures", str(tmp_path / "f")]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].startswith(("ok: ", "weak: "))
    for part in ("L = (", "N: kept weights", "D: examples", "measured 2.5: predicted", "best sparsity", "capped"):
        assert part in text
    assert len(Law.read(out).replicates) == 50
    assert str(tmp_path / "f" / "sparse.png") in text


def test_a_results_folder_is_fitted_at_its_tuned_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sweep_runs().astype(object).where(lambda values: values.notna(), None).to_dict("records")
    store.append(tmp_path, [{str(name): value for name, value in row.items()} for row in rows])
    assert main(["law", str(tmp_path), *FEW, "--json", "--nonzeros", "all"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cells"] == 27
    assert "embeddings included" in found["conventions"]["params"]
    assert main(["law", str(tmp_path), *FEW, "--json", "--where", "density=1"]) == 0
    assert json.loads(capsys.readouterr().out)["form"] == "dense"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loss", "nope"], "the table has no column 'nope'; it has S, N, D, L"),
        ([*NAMED, "--at", "0.5,1e7"], "--at 0.5,1e7 is not of the form S,N,D"),
        ([*NAMED, "--at", "0.5,1e7,1e18"], "far from what was fitted"),
        ([*NAMED, "--budget", "1e7"], "--budget 1e7 is not of the form N,D"),
        ([*NAMED, "--compare", "mine"], "--compare mine is neither one of t5_c4, vit_jft nor of the form"),
        ([*NAMED, "--compare", "a_S=1"], "are missing or unknown"),
        ([*NAMED, "--scheme", "sp"], "belong to a results folder"),
        ([*NAMED, "--resamples", "3"], "resamples is 3"),
    ],
)
def test_wrong_input_is_one_line(
    table: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["law", table, *FEW, *words]) == 2
    assert message in one_line(capsys)


def test_what_is_neither_table_nor_results_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["law", str(tmp_path)]) == 2
    assert "is no results folder: it has no runs/" in one_line(capsys)
    assert main(["law", str(tmp_path / "absent.csv")]) == 2
    assert "is no file and no results folder" in one_line(capsys)


def test_options_of_a_table_are_refused_for_a_results_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["law", str(tmp_path), "--loss", "val_loss"]) == 2
    assert "--loss belong to a table" in one_line(capsys)


@pytest.mark.external
def test_the_published_table_is_fitted_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table: pd.DataFrame = cells.t5()
    table.to_parquet(tmp_path / "t5.parquet")
    assert main(["law", str(tmp_path / "t5.parquet"), "--compare", "t5_c4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["objective"] <= 4.881e-6 < found["compared"]["t5_c4"]
    assert {"b_D", "c"} <= {row["coefficient"] for row in found["weak"]}
