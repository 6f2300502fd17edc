from __future__ import annotations

import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from hpsweep.own_training.losses import Losses, NoResult, Point, begin_report, read_losses, read_report
from hpsweep.own_training.outcome import result_columns
from hpsweep.spec.command import loss_source


def read(folder: Path, losses: str, since: float = 0.0) -> Losses:
    values = {"folder": str(folder), "trial_id": "abc", "steps": 400}
    return read_losses(loss_source(losses), values, report=folder / "report.jsonl", log=folder / "log.txt", since=since)


def reports(folder: Path, *records: dict[str, Any]) -> None:
    (folder / "report.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


# --- where they are ---


def test_reports_are_a_point_a_step_in_their_order_and_what_was_told_last_counts(tmp_path: Path) -> None:
    reports(
        tmp_path,
        {"step": 10, "train_loss": 5.0},
        {"step": 20, "val_loss": 4.0},
        {"parameters": 100, "data_hash": "ab"},
        {"step": 10, "val_loss": 6.0},
        {"step": 20, "val_loss": 3.5, "train_loss": 3.0},
    )
    losses = read(tmp_path, "report")
    assert losses.points == [Point(10, 5.0, 6.0), Point(20, 3.0, 3.5)]
    assert losses.sizes == {"parameters": 100, "data_hash": "ab"}


def test_a_loss_per_example_gives_the_mean_and_its_standard_error(tmp_path: Path) -> None:
    examples = [1.0, 2.0, 4.0, 5.5]
    reports(tmp_path, {"step": 4, "val_loss": examples}, {"step": 3, "val_loss": [2.0]})
    one, several = read(tmp_path, "report").points
    assert one == Point(3, None, 2.0, None)
    assert several.val_loss == pytest.approx(statistics.mean(examples))
    assert several.val_loss_se == pytest.approx(statistics.stdev(examples) / 2)


def test_a_mean_after_a_loss_per_example_has_no_standard_error(tmp_path: Path) -> None:
    reports(tmp_path, {"step": 4, "val_loss": [1.0, 2.0]}, {"step": 4, "val_loss": 3.0})
    assert read(tmp_path, "report").points == [Point(4, None, 3.0, None)]


def test_a_line_that_a_kill_cut_off_is_no_report_and_another_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    report.write_text('{"step": 1, "val_loss": 2.0}\n{"step": 2, "val_l')
    assert [point.step for point in read(tmp_path, "report").points] == [1]
    report.write_text('hello\n{"step": 1, "val_loss": 2.0}\n')
    with pytest.raises(NoResult, match=r"line 1 of .*report\.jsonl is 'hello', which is no JSON object"):
        read(tmp_path, "report")


def test_an_attempt_that_goes_on_from_a_checkpoint_has_the_points_before_it(tmp_path: Path) -> None:
    reports(
        tmp_path,
        {"attempt": 1},
        {"step": 100, "train_loss": 5.0},
        {"step": 150, "train_loss": math.inf},
        {"step": 200, "train_loss": 4.0},
        {"step": 300, "train_loss": math.nan},
        {"attempt": 2},
        {"step": 200, "train_loss": 3.9},
        {"step": 400, "val_loss": 3.0},
    )
    assert read(tmp_path, "report").points == [Point(100, 5.0), Point(200, 3.9), Point(400, None, 3.0)]


def test_reports_that_cannot_be_read_are_those_of_the_attempt_that_made_them(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    begin_report(report, 1)
    with report.open("a") as file:
        file.write('{"step": 100, "val_loss": 5.0}\nhello\n{"step": 400, "val_l')
    begin_report(report, 2)
    with report.open("a") as file:
        file.write('{"step": 400, "val_loss": 3.0}\n')
    assert read(tmp_path, "report").points == [Point(400, None, 3.0)]
    assert len(report.read_text().splitlines()) == 5


def test_what_another_attempt_reported_is_no_result_of_this_one(tmp_path: Path) -> None:
    reports(tmp_path, {"attempt": 1}, {"step": 400, "val_loss": 3.0}, {"attempt": 2})
    assert read(tmp_path, "report").points == []


def test_a_csv_file_is_read_by_its_columns_and_cells_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,iter,train/loss,val/loss\n0,100,5.0,\n0,200,,4.5\n1,400,nan,3.5\n")
    losses = read(tmp_path, "csv:metrics.csv?step=iter&train_loss=train/loss&val_loss=val/loss")
    assert losses.points[:2] == [Point(100, 5.0), Point(200, None, 4.5)]
    assert losses.points[2].val_loss == 3.5
    assert math.isnan(losses.points[2].train_loss or 0)


def test_the_state_of_hugging_faces_trainer_is_read_as_it_is(tmp_path: Path) -> None:
    history = [
        {"epoch": 0.5, "grad_norm": 1.0, "learning_rate": 1e-4, "loss": 5.0, "step": 200},
        {"epoch": 0.5, "eval_loss": 4.8, "eval_runtime": 1.0, "step": 200},
        {"epoch": 1.0, "eval_loss": 4.0, "step": 400},
        {"epoch": 1.0, "total_flos": 1e9, "train_loss": 4.9, "train_runtime": 9.0, "step": 400},
    ]
    for step in (200, 400):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        seen = [record for record in history if record["step"] <= step]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": seen}))
        os.utime(folder / "trainer_state.json", (step, step))
    losses = read(tmp_path, "json:checkpoint-*/trainer_state.json")
    assert losses.points == [Point(200, 5.0, 4.8), Point(400, None, 4.0)]


@pytest.mark.parametrize(
    "text",
    [
        '[{"i": 1, "v": 2.0}, {"i": 2, "v": NaN}]',
        '{"i": 1, "v": 2.0}\n{"i": 2, "v": NaN}\n',
    ],
)
def test_any_list_in_json_and_json_lines_are_read_by_their_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.json").write_text(text)
    first, second = read(tmp_path, "json:log.json?step=i&val_loss=v").points
    assert first == Point(1, None, 2.0)
    assert math.isnan(second.val_loss or 0)


def test_a_pattern_finds_losses_in_lines_of_the_output_also_between_those_of_a_progress_bar(tmp_path: Path) -> None:
    log = "$ python train.py step 9: val loss 9\nloading\nstep 0: train loss 5.1, val loss 5.2\n"
    log += " 10%|#   |\r 50%|##  |\rstep 400: train loss 3.1, val loss nan\r\n100%|####|\n"
    (tmp_path / "log.txt").write_bytes(log.encode())
    pattern = r"step (?P<step>\d+): (?:train loss (?P<train_loss>\S+), )?val loss (?P<val_loss>\S+)"
    first, second = read(tmp_path, f"stdout: {pattern}").points
    assert first == Point(0, 5.1, 5.2)
    assert (second.step, second.train_loss) == (400, 3.1)


def test_what_a_script_reports_is_believed_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,val_loss\n400,3.5\n")
    reports(tmp_path, {"parameters": 7})
    losses = read(tmp_path, "csv:log.csv")
    assert losses.points == [Point(400, None, 3.5)]
    assert losses.sizes == {"parameters": 7}
    reports(tmp_path, {"step": 400, "val_loss": 1.0})
    assert read(tmp_path, "csv:log.csv").points == [Point(400, None, 1.0)]


def test_a_folder_may_have_signs_of_a_pattern_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "[a]*"
    folder.mkdir()
    (folder / "log.csv").write_text("step,val_loss\n400,3.5\n")
    for path in ("*.csv", "{folder}/*.csv", "log.csv"):
        assert read(folder, f"csv:{path}").points == [Point(400, None, 3.5)]


def test_a_file_that_is_missing_or_older_than_the_attempt_gives_no_loss(tmp_path: Path) -> None:
    with pytest.raises(NoResult, match=r"it wrote no .*/log\.csv, where losses= looks"):
        read(tmp_path, "csv:log.csv")
    (tmp_path / "log.csv").write_text("step,val_loss\n400,3.5\n")
    os.utime(tmp_path / "log.csv", (1000, 1000))
    with pytest.raises(NoResult, match=r"log\.csv is older than this attempt: it wrote no losses there"):
        read(tmp_path, "csv:log.csv", since=time.time())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.csv", "step,val_loss\n400,low\n", r"log\.csv has 'low' where a number should be"),
        ("log.csv", "iter,val_loss\n400,3\n", r"log\.csv has losses without their step"),
        ("log.csv", "step,val_loss\n1.5,3\n", r"has the step '1\.5', which is no whole number"),
        ("log.json", "{", r"log\.json is no JSON"),
        ("log.json", "3", r"log\.json has no list of losses"),
        ("log.json", '[{"step": 1, "eval_loss": []}]', "an empty list of losses"),
        ("log.json", '[{"step": 1, "eval_loss": true}]', "has True where a number should be"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NoResult, match=message):
        read(tmp_path, f"{name.rpartition('.')[2]}:{name}")


# --- what they make of the trial ---


def columns(*points: Point, last_step: int = 400) -> dict[str, Any]:
    return result_columns(Losses(list(points), where="its reports"), last_step)


def test_the_result_is_the_held_out_loss_at_the_last_step_not_the_lowest_one() -> None:
    row = columns(Point(200, 3.0, 2.0), Point(400, 2.9, 2.5, 0.1))
    assert (row["status"], row["val_loss"], row["val_loss_se"]) == ("ok", 2.5, 0.1)


def test_the_training_loss_is_the_mean_of_the_last_twentieth_of_the_steps_or_the_last_one() -> None:
    points = [Point(step, step / 100) for step in range(1, 400)]
    assert columns(*points, Point(400, 4.0, 1.0))["train_loss"] == pytest.approx(sum(range(381, 401)) / 2000)
    assert columns(Point(100, 5.0), Point(200, 4.0), Point(400, None, 1.0))["train_loss"] == 4.0
    assert columns(Point(400, None, 1.0))["train_loss"] is None


@pytest.mark.parametrize(("step", "expected"), [(0, 5.0), (1, 5.0), (10, None)])
def test_the_initial_loss_is_known_where_the_first_batch_was_told_by_itself(step: int, expected: float | None) -> None:
    assert columns(Point(step, 5.0), Point(400, 3.0, 3.0))["initial_loss"] == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_divergence_at_its_step(bad: float) -> None:
    expected = {"status": "diverged", "diverged_step": 200, "initial_loss": 5.0}
    assert columns(Point(1, 5.0), Point(200, bad), Point(300, bad)) == expected  # the script gave up
    assert columns(Point(1, 5.0), Point(200, 4.0, bad), Point(400, bad, bad)) == expected
    assert columns(Point(1, 5.0), Point(400, 4.0, bad))["diverged_step"] == 400


def test_a_script_whose_last_loss_is_finite_has_not_diverged() -> None:
    row = columns(Point(200, math.inf), Point(400, 3.0, 3.0))
    assert (row["status"], row["val_loss"]) == ("ok", 3.0)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [],
            r"there is no loss in its reports\. Report it by hpsweep\.this_trial\(\)\.report\(step, val_loss=...\), or",
        ),
        ([Point(400, 3.0)], r"has training losses alone, up to step 400\. .*give val_loss after the last step"),
        (
            [Point(200, 3.0, 3.0)],
            r"the last held-out loss in its reports is of step 200\. .*after step 400, the last one",
        ),
        ([Point(200, 3.0, 3.0), Point(400, 2.0)], "the last held-out loss in its reports is of step 200"),
        ([Point(399, 3.0, 3.0)], r"counts steps from 0, say last_step='\{steps-1\}'"),
        ([Point(400, 3.0, 3.0), Point(800, 3.0, 2.0)], r"goes on to step 800, but the trial has 400 steps\. Does"),
    ],
)
def test_a_script_that_stops_early_or_goes_on_gives_no_loss_and_says_what_to_do(
    points: list[Point], message: str
) -> None:
    with pytest.raises(NoResult, match=message):
        columns(*points)


def test_a_report_that_is_not_there_has_no_points(tmp_path: Path) -> None:
    assert read_report(tmp_path / "report.jsonl").points == []
