"""A command and the function of its name say the same of what is stored: cards, and the page of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hpsweep as hp
from hpsweep import store
from hpsweep.cli import main
from hpsweep.spec import Refine
from tests.analysis.transfer.test_transfer import BASE, TARGET, sweep
from tests.paths import ROOT

REFERENCE = ROOT / "results" / "reference"
WITH_TARGET = [
    path.parent.name for path in sorted(REFERENCE.glob("*/meta.json")) if store.read_meta(path.parent)["target"]
]


@pytest.mark.parametrize("name", WITH_TARGET)
def test_the_card_of_a_command_is_that_of_the_function(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = REFERENCE / name
    assert main(["transfer", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    card = hp.transfer(hp.load(folder), hp.Target(**store.read_meta(folder)["target"]))
    assert json.loads(card.to_json()) == printed


def test_folders_with_a_target_are_those_of_one_hyperparameter_and_of_two() -> None:
    assert {"init_std_by_density", "lr_by_init_std", "lr_by_density"} <= {*WITH_TARGET}
    joint = hp.transfer(hp.load(REFERENCE / "lr_by_init_std"), TARGET)
    assert joint.optimum["hyperparameter"] == "lr,init_std"


@pytest.mark.parametrize("name", ["lr_by_density", "lr_by_init_std"])
def test_the_page_of_a_report_is_that_of_the_command(name: str, tmp_path: Path) -> None:
    folder = str(REFERENCE / name)
    assert main(["report", folder, "--out", str(tmp_path / "command")]) == 0
    made = hp.report(hp.load(folder)).save(tmp_path / "function")
    for page in made:
        assert page.read_bytes() == (tmp_path / "command" / page.name).read_bytes()
    assert made[1].read_text().startswith(f"# {name}\n")


def test_a_part_of_loaded_runs_has_the_title_and_the_target_and_misses_nothing() -> None:
    runs = hp.load(REFERENCE / "lr_by_density")
    part = runs[runs["scheme"] == "supar"]
    assert part.attrs == {
        "folder": str(REFERENCE / "lr_by_density"),
        "sweep": store.read_meta(part.attrs["folder"]),
        "rows": len(runs),
    }
    page = hp.report(part)
    assert page.title == "lr_by_density"
    assert not any("name no target" in sentence or "missing" in sentence for sentence in page.sentences)
    assert any("under SuPar for the target" in sentence for sentence in page.sentences)


def test_runs_of_several_folders_and_of_a_folder_without_a_record_are_reported_without_a_sweep(tmp_path: Path) -> None:
    folders = [REFERENCE / name for name in ("lr_by_density", "lr_by_width")]
    assert hp.load(*folders).attrs == {}
    made = sweep(scheme=["supar"])
    (tmp_path / "made" / "runs").mkdir(parents=True)
    made.to_parquet(tmp_path / "made" / "runs" / "part-made.parquet")
    runs = hp.load(tmp_path / "made")
    assert runs.attrs["sweep"] == {}
    assert hp.report(runs).title == "made"


def test_the_report_of_a_refinement_says_where_its_groups_are(tmp_path: Path) -> None:
    grid = {"scheme": ["supar"], "density": [1, 1 / 4], "seed": [0, 1]}
    planned = hp.Sweep(
        name="made", base=BASE, grid=grid, space={"lr": (2.0**-10, 2.0**-4)}, search="refine", refine=Refine()
    )
    made = sweep(scheme=["supar"])
    (tmp_path / "made" / "runs").mkdir(parents=True)
    made.to_parquet(tmp_path / "made" / "runs" / "part-made.parquet")
    store.write_meta(tmp_path / "made", planned.to_dict())
    assert main(["report", str(tmp_path / "made"), "--out", str(tmp_path / "command")]) == 0
    made_page = hp.report(hp.load(tmp_path / "made")).save(tmp_path / "function")[1].read_text()
    assert made_page == (tmp_path / "command" / "report.md").read_text()
    assert "Stage of the refinement" in made_page
