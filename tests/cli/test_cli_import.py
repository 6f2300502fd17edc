"""hpsweep import: somebody's table becomes a results folder, which all reading verbs take."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import hpsweep as hp
from hpsweep import store
from hpsweep.cli import main
from tests.analysis.runs.test_runs_of_others import AXES, EXPORTS, theirs
from tests.cli.test_cli import refused

OPTIONS = ["--axis", "width=d_model", "--axis", "warmup=warm"]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    theirs().to_csv("theirs.csv", index=False)
    return tmp_path


def imported(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["import", *words]) == 0
    return capsys.readouterr().out


def test_the_folder_holds_what_hp_runs_makes_of_the_table(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = imported(capsys, "theirs.csv", *OPTIONS, "--out", "results/theirs")
    assert "columns: lr = learning_rate, loss = eval/loss, seed = seed, width = d_model, warmup = warm" in out
    assert not (there / "results" / "theirs" / "meta.json").exists()
    pd.testing.assert_frame_equal(hp.load("results/theirs"), hp.runs("theirs.csv", axes=AXES))


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (["status"], "128 ok, 0 diverged, 0 failed"),
        (["optimum"], "octaves per doubling of warmup"),
        (["optimum", "--over", "warmup", "--by", "width,lr"], "best warmup per group"),
        (["regret", "--where", "warmup=100"], "regret of lr"),
        (["report"], "It is not checked that they share their data"),
        (["plot", "--format", "png", "--out", "figures"], "optimum_path_lr_width_at_warmup_400.png"),
        (["compact"], "128 trials"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_all_reading_verbs_take_an_imported_folder(
    there: Path, capsys: pytest.CaptureFixture[str], verb: list[str], expected: str
) -> None:
    imported(capsys, "theirs.csv", *OPTIONS, "--out", "r")
    assert main([verb[0], "r", *verb[1:]]) == 0
    assert expected in capsys.readouterr().out


def test_optimum_says_what_could_not_be_checked(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(capsys, "theirs.csv", *OPTIONS, "--out", "r")
    main(["optimum", "r"])
    assert "It is not checked that runs of one seed saw the same data" in capsys.readouterr().err


def test_nothing_is_written_over_and_the_same_table_again_changes_nothing(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(capsys, "theirs.csv", *OPTIONS, "--out", "r")
    before = {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()}
    imported(capsys, "theirs.csv", *OPTIONS, "--out", "r")
    theirs(noise=0.003).to_csv("others.csv", index=False)
    assert "r is not empty" in refused(capsys, "import", "others.csv", *OPTIONS, "--out", "r")
    assert {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()} == before
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years")
    assert "thesis.tex" in refused(capsys, "import", "theirs.csv", *OPTIONS, "--out", "mine")
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_all_that_is_missing_is_named_on_one_line_and_nothing_is_written(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "import", "theirs.csv", "--loss", "val", "--axis", "width=dmodel", "--out", "r")
    assert "no column 'val'" in said
    assert "no column 'dmodel', which axes names: did you mean 'd_model'" in said
    assert not Path("r").exists()
    assert "--axis =x: give NAME=VALUE" in refused(capsys, "import", "theirs.csv", "--axis", "=x", "--out", "r")
    assert "--study is of an Optuna storage" in refused(capsys, "import", "theirs.csv", "--study", "a", "--out", "r")


@pytest.mark.parametrize(("name", "kind"), [("wandb_page.csv", "W&B"), ("optuna_trials.csv", "Optuna")])
def test_exports_are_recognized_and_their_clear_columns_proposed(
    there: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    axis = "width=params_width" if kind == "Optuna" else "width=model.d_model"
    said = json.loads(imported(capsys, str(EXPORTS / name), "--axis", axis, "--out", "r", "--json"))
    assert said["kind"] == kind
    expected = {"Optuna": ("params_lr", "value", "state"), "W&B": ("learning_rate", "eval/loss", "State")}[kind]
    assert tuple(said["columns"][key] for key in ("lr", "loss", "status")) == expected
    assert said["ok"] + said["diverged"] + said["failed"] == len(store.load("r"))


def test_an_optuna_storage_is_read_as_its_export(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = "sqlite:///study.db"
    table = pd.read_csv(EXPORTS / "optuna_trials.csv")
    for name, direction in (("lr", "minimize"), ("accuracy", "maximize")):
        study = optuna.create_study(study_name=name, storage=url, direction=direction)
        for row in table[table["state"] == "COMPLETE"].to_dict("records"):
            distributions = {
                "lr": optuna.distributions.FloatDistribution(2**-12, 1.0, log=True),
                "width": optuna.distributions.IntDistribution(1, 4096),
            }
            params = {"lr": row["params_lr"], "width": row["params_width"]}
            study.add_trial(optuna.trial.create_trial(value=row["value"], params=params, distributions=distributions))
    words = ["--axis", "width=params_width", "--out", "r"]
    said = refused(capsys, "import", url, *words)
    assert "has 2 studies" in said
    assert "name one with --study" in said
    assert "maximizes its value" in refused(capsys, "import", url, "--study", "accuracy", *words)
    assert "23 runs of Optuna" in imported(capsys, url, "--study", "lr", *words)
    assert hp.load("r")["val_loss"].sum() == pytest.approx(table["value"].sum())
    assert "nowhere.db does not exist" in refused(capsys, "import", "sqlite:///nowhere.db", *words)
    assert not Path("nowhere.db").exists()
