"""The hpsweep command: every verb, every wrong input as one line, and JSON that is only JSON."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import pty
import re
import sys
import termios
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpsweep import store
from hpsweep.cli import VERBS, main, parser
from hpsweep.cli.inputs import load_experiment, selected
from tests import fake_training as fake


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment `fake`."""
    monkeypatch.chdir(tmp_path)
    fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=0)
    return tmp_path


@pytest.fixture
def folder(there: Path) -> str:
    """The results folder of `fake`, made up so that optima and targets make sense: wider to the left, 3 seeds."""
    base = {"width": 32, "head_size": 16, "context": 16, "base_width": 32}
    sweep = fake.sweep(
        there,
        base=fake.sweep(there).base.replace(**base),
        grid={
            "scheme": ["mup", "supar"],
            "density": [1.0, 0.25],
            "lr": [2.0**k for k in range(-12, -4)],
            "seed": [0, 1, 2],
        },
    )
    rows = []
    for trial in sweep.trials:
        best = -8 + (0 if trial.scheme == "supar" else -math.log2(trial.density) / 2)
        noise = np.random.default_rng(len(rows)).normal(0, 0.002)
        loss = 3 + 0.05 * (math.log2(trial.lr) - best) ** 2 + 0.01 * trial.seed + noise
        values = fake.row(trial, size=8, seconds=0.1, device="cpu")
        rows.append({**values, "val_loss": loss, "data_hash": "aa", "finished_at": None})
    path = there / "results" / "fake"
    with store.lock(path):
        store.write_meta(path, sweep.to_dict())
        store.append(path, rows)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a command that ends with 2."""
    try:
        status = main(words, train=fake.TRAIN)
    except SystemExit as end:  # argparse
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert err.startswith("hpsweep: ")
    assert err.count("\n") == 1
    return err


# --- help ---


def test_every_verb_and_every_option_has_a_help_text() -> None:
    (verbs,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert [action.dest for action in verbs._choices_actions] == list(VERBS)
    for listed in (*verbs._choices_actions, parser()):
        assert getattr(listed, "help", None) or getattr(listed, "description", None)
    for verb, options in verbs.choices.items():
        assert options.description, verb
        for action in options._actions:
            assert action.help, f"{verb} {action.dest}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_prints_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"usage: hpsweep {verb}" in capsys.readouterr().out


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import hpsweep

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"hpsweep {hpsweep.__version__}\n"


# --- what the verbs do ---


def test_an_experiment_is_planned_run_and_seen_in_its_status(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "fake", "--workers", "2"], train=fake.TRAIN) == 0
    assert "48 trials; stored: 0 ok, 0 diverged, 0 failed; missing: 48" in capsys.readouterr().out
    assert not (there / "results").exists()
    assert main(["run", "experiments/fake.py", "--workers", "2", "--ensemble-size", "4"], train=fake.TRAIN) == 0
    out, err = capsys.readouterr()
    assert "48 of 48 trials stored in results/fake (0 diverged, 0 failed); 48 trained now" in out
    assert err.splitlines()[-1].startswith("48 of 48 trials")
    assert main(["status", "results/fake"]) == 0
    out = capsys.readouterr().out
    assert "results/fake: 48 ok, 0 diverged, 0 failed; 48 trials in all" in out
    assert "best_loss" in out
    assert main(["compact", "results/fake"]) == 0
    assert "48 trials, in 24 files before" in capsys.readouterr().out


def test_a_failed_trial_is_seen_in_run_and_status(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = fake.sweep(there).trials[0].trial_id
    fake.order(there, seconds=0, fail=[bad])
    assert main(["run", "fake", "--workers", "1"], train=fake.TRAIN) == 0
    out, err = capsys.readouterr()
    assert "47 of 48 trials stored in results/fake (0 diverged, 1 failed)" in out
    assert "hpsweep status results/fake says why" in err
    main(["status", "results/fake"])
    out = capsys.readouterr().out
    assert bad in out
    assert "RuntimeError: made to fail by" in out


def test_a_sweep_of_which_nothing_could_be_trained_has_failed(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = fake.experiment(there, grid={"seed": [0, 1]})
    fake.order(there, seconds=0, fail=[trial.trial_id for trial in sweep.trials])
    assert main(["run", "fake", "--workers", "1"], train=fake.TRAIN) == 1
    assert "0 of 2 trials stored" in capsys.readouterr().out


def test_rows_of_other_data_than_the_sweep_began_with_are_refused_and_not_stored(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "fake", "--workers", "1", "--ensemble-size", "24"], train=fake.TRAIN) == 0
    fake.experiment(there, grid={"seed": [7]})
    fake.order(there, seconds=0, data_hash="other")
    capsys.readouterr()
    assert main(["run", "fake", "--workers", "1"], train=fake.TRAIN) == 2
    err = capsys.readouterr().err
    assert "as data_hash other, but the sweep began with" in err
    assert "Traceback" not in err
    assert len(store.load(there / "results" / "fake")) == 48


def test_a_full_disk_is_one_line_with_the_command_that_resumes(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = store.append, []

    def full(*arguments: Any) -> Path:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(write(*arguments))
        return written[0]

    monkeypatch.setattr(store, "append", full)
    assert main(["run", "fake", "--workers", "1", "--ensemble-size", "4"], train=fake.TRAIN) == 1
    err = capsys.readouterr().err
    assert "the disk is full: No space left on device; 4 of 48 trials stored. Free some space, or give another" in err
    assert "Then resume with: " in err
    assert err.rstrip().endswith("run fake --workers 1 --ensemble-size 4")


def test_the_command_that_resumes_can_be_typed_as_it_is(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpsweep.cli.verbs import status

    seen = []
    monkeypatch.setattr(status, "run", lambda arguments: seen.append(arguments.command))
    monkeypatch.setattr(sys, "argv", ["/somewhere/.venv/bin/hpsweep"])
    monkeypatch.setenv("PATH", str(there))
    assert main(["status", "x y"]) == 0
    (there / "hpsweep").touch(mode=0o755)
    assert main(["status", "x y"]) == 0
    assert seen == ["/somewhere/.venv/bin/hpsweep status 'x y'", "hpsweep status 'x y'"]


def test_results_that_cannot_be_written_can_be_read(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not mode & os.W_OK
    )  # root may write all
    assert main(["optimum", folder]) == 0
    assert "best lr per group" in capsys.readouterr().out
    for verb in ("optimum", "regret", "plot", "report"):
        assert f"{folder} cannot be written; change its mode" in refused(capsys, verb, folder, "--save")
    assert not (Path(folder) / "optima.csv").exists()


def test_a_shortened_search_never_counts_beyond_its_total(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"grid": {"seed": [0]}, "search": "random", "space": {"lr": (1e-3, 1e-1)}}
    for points in (6, 3):
        fake.experiment(there, **options, points=points)
        assert main(["run", "fake", "--workers", "1"], train=fake.TRAIN) == 0
    assert "6 of 6 trials stored" in capsys.readouterr().out.splitlines()[-2]
    assert main(["status", "results/fake"]) == 0
    assert "6 ok, 0 diverged, 0 failed; 6 trials in all" in capsys.readouterr().out


def test_a_refinement_is_planned_with_reasons_and_run_to_its_end(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"grid": {"density": [1.0, 0.25]}, "search": "refine", "space": {"lr": (2.0**-12, 2.0**-5)}}
    fake.experiment(there, **options)
    fake.order(there, seconds=0, noise=0.001)
    assert main(["plan", "fake", "--workers", "2"], train=fake.TRAIN) == 0
    out = capsys.readouterr().out
    assert "fake: at least 16 trials; stored: 0 ok, 0 diverged, 0 failed; missing: 16" in out
    assert "time: at least " in out
    assert "density 1/4: coarse (0 stored, at most 64)\n  nothing known: every octave of the space, 1 seed\n" in out
    assert "  next: 2^-12, 2^-11, " in out
    with store.lock(there / "results" / "fake"):
        store.write_meta(there / "results" / "fake", load_experiment("fake").to_dict())
    assert main(["status", "results/fake"]) == 0
    assert "nothing stored yet; at least 16 trials in all" in capsys.readouterr().out
    assert main(["report", "results/fake"]) == 0
    assert "at least 16 of at least 16 planned trials are missing" in capsys.readouterr().out
    assert main(["run", "fake", "--workers", "2"], train=fake.TRAIN) == 0
    out, err = capsys.readouterr()
    assert "16 trials, 2 groups refining" in err
    found = re.search(r"(\d+) of (\d+) trials stored", out)
    assert found
    assert int(found[1]) == int(found[2]) > 16
    assert re.search(r"density 1: ok \(\d+ stored, at most 64\)\n  optimum at lr 2\^-[78]", out)
    assert main(["status", "results/fake"]) == 0
    assert f"{found[1]} ok, 0 diverged, 0 failed; {found[1]} trials in all" in capsys.readouterr().out
    assert main(["plan", "fake", "--json"], train=fake.TRAIN) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(group["stage"], group["next"]) for group in planned["refinement"]] == [("ok", [])] * 2
    assert main(["run", "fake", "--json"], train=fake.TRAIN) == 0
    assert json.loads(capsys.readouterr().out)["refinement"] == planned["refinement"]
    assert main(["report", "results/fake", "--save"]) == 0
    assert "missing" not in capsys.readouterr().out
    assert "| density 1 | ● ok | " in Path("results/fake/report.md").read_text()
    assert main(["optimum", "results/fake"]) == 0
    assert main(["plot", "results/fake", "--save"]) == 0


def test_a_long_warm_up_is_planned_as_it_is_run(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = fake.sweep(there).base.replace(warmup_fraction=0.6, steps=30)
    (there / "warm.py").write_text(
        f"from hpsweep.spec import Sweep, Trial\nSWEEP = Sweep(name='warm', base={base!r})\n"
    )
    assert main(["plan", "warm.py"], train=fake.TRAIN) == 0
    assert "missing: 1" in capsys.readouterr().out


def test_on_a_terminal_the_best_of_every_group_is_shown_and_never_more_than_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("LINES", "COLUMNS"):  # pytest-xdist sets them, and they would say another size
        monkeypatch.delenv(name, raising=False)
    fake.experiment(tmp_path, grid={"density": [2.0**-k for k in range(30)], "lr": [2.0**-8]})
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (12, 100))
    driver = fake.command(tmp_path, "run", "fake", "--workers", "1", stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(terminal, 65536):
            shown += piece
    out, _ = driver.communicate(timeout=120)
    os.close(terminal)
    assert "30 of 30 trials stored" in out
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "").rstrip().splitlines()[-9:]
    assert "━" * 30 in last[0]
    assert last[1].startswith("30 of 30 trials, ")
    assert last[2] == "  density 1: 3.0000 nats/byte at lr 2^-8"
    assert last[-1] == "  ... and 24 more groups"


def test_optima_drift_and_regret_are_printed_and_written(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimum", folder, "--save"]) == 0
    out = capsys.readouterr().out
    for words in (
        "best lr per group",
        "drift of the optimum",
        "stable",
        "moves",
        "sensitivity: mean loss above the optimum's over 0.0002441 to 0.03125",
        "basin_status",
        "tuned against transferred",
        "regret",
        "best_scheme",
    ):
        assert words in out
    import pandas as pd

    assert len(pd.read_csv(Path(folder) / "optima.csv")) == 4
    assert set(pd.read_csv(Path(folder) / "drift.csv")["verdict"]) == {"stable", "moves"}
    assert len(pd.read_csv(Path(folder) / "sensitivity.csv")) == 4


def test_the_regret_matrix_is_printed_and_written(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regret", folder, "--save"]) == 0
    out = capsys.readouterr().out
    supar = [line.split()[0] for line in out.partition("supar:\n")[2].splitlines()[:3]]
    assert supar == ["1", "1", "1/4"]  # the columns, then the rows: dense first
    assert "no equivalent compute: one width of this density has an optimum" in out
    import pandas as pd

    table = pd.read_csv(Path(folder) / "regret.csv")
    assert len(table) == 8
    moved = table[(table["scheme"] == "mup") & (table["tuned_density"] == 1) & (table["used_density"] == 0.25)]
    assert moved["regret"].item() == pytest.approx(0.05, abs=0.02)  # an octave off: .05
    assert main(["regret", folder, "--per-doubling", "0.05", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["held_out"] == []  # two densities leave none to hold out
    assert {row["compute"] is not None for row in rows["regret"]} == {True}


def carded(folder: str, scheme: str) -> str:
    """The card of the scheme's dense model for the sparse one of the same sweep."""
    out = str(Path(folder) / f"card_{scheme}.json")
    words = ["--width", "32", "--density", "1/4", "--tokens", "2560", "--scheme", scheme, "--out", out]
    assert main(["transfer", folder, *words]) == 0
    return out


def test_the_regret_of_cards_is_printed_written_and_drawn(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    cards = [carded(folder, scheme) for scheme in ("mup", "supar")]
    capsys.readouterr()
    assert main(["regret", folder, "--card", *cards, "--figures", f"{folder}/figures", "--save"]) == 0
    out = capsys.readouterr().out
    assert "loss at the card's setting - loss at the target's own optimum" in out
    assert out.endswith(f"\n{folder}/figures/transfer.png\n{folder}/figures/transfer.svg\n{folder}/card_regret.csv\n")
    import pandas as pd

    table = pd.read_csv(Path(folder) / "card_regret.csv")
    assert list(table["scheme"]) == ["mup", "supar"]
    assert list(table["regret"]) == pytest.approx([0.05, 0], abs=0.015)  # an octave off, and none
    assert main(["regret", folder, "--card", *cards, "--where", "seed=0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["card_regret"]
    assert [row["interval"] for row in printed] == ["assumed"] * 2


@pytest.mark.parametrize("place", ["results/fake", "results/fake/target", "results/elsewhere"])
def test_a_run_that_train_made_of_the_card_is_used_wherever_it_lies(
    folder: str, there: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    card = carded(folder, "mup")
    row = store.read_runs(folder).to_pylist()[0]
    setting = json.loads(Path(card).read_text())["base"]["lr"]
    of_card = {**row, "trial_id": "0" * 16, "scheme": "mup", "density": 0.25, "lr": setting, "val_loss": 5.0, "seed": 9}
    capsys.readouterr()
    assert main(["regret", folder, "--card", card, "--json"]) == 0
    (before,) = json.loads(capsys.readouterr().out)["card_regret"]
    with store.lock(there / place):
        store.append(there / place, [of_card])
    more = [place] if place.endswith("elsewhere") else []  # target/ is beside the card, where train puts it by default
    assert main(["regret", folder, *more, "--card", card, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["card_regret"]
    assert found["used_from"] == "measured"
    runs = before["used_runs"]  # the setting is within 1 % of a value that was tried: they are one cell
    assert found["used_runs"] == runs + 1
    assert found["used_loss"] == pytest.approx((runs * before["used_loss"] + 5.0) / (runs + 1))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["FOLDER", "FOLDER"], "several folders are for --card"),
        (["FOLDER", "--figures", "there"], "--figures draws the regret of a transfer, and needs --card"),
        (["FOLDER", "--card", "CARD", "--over", "lr"], "leave them out with --card"),
        (["FOLDER", "--card", "CARD", "--per-doubling", "0.1"], "leave them out with --card"),
        (["FOLDER", "--card", "FOLDER"], "give the file of a card"),
        (["gone", "--card", "CARD"], "gone does not exist"),
        (["FOLDER", "--card", "CARD", "--where", "scheme=supar"], "no run is of the card's target (mup, width 32"),
        (["FOLDER", "--card", "CARD", "--where", "lr=2**-9"], "no number"),
        (["FOLDER", "--card", "CARD", "--where", "lr=0.00390625"], "trained at 1 value of lr (0.003906)"),
    ],
)
def test_regrets_of_cards_that_cannot_be_are_refused_in_one_line(
    folder: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    names = {"FOLDER": folder, "CARD": carded(folder, "mup")}
    capsys.readouterr()
    assert said in refused(capsys, "regret", *[names.get(word, word) for word in words])


def test_a_scale_held_out_is_printed_in_short(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = {"density": [1.0, 0.5, 0.25], "lr": [2.0**k for k in range(-12, -4)], "seed": [0, 1]}
    fake.experiment(there, grid=grid)
    assert main(["run", "fake"], train=fake.TRAIN) == 0
    capsys.readouterr()
    assert main(["regret", "results/fake", "--save"]) == 0
    last = capsys.readouterr().out.partition("held out, the last scale of each line")[2]
    assert last.split("\n")[2].split()[-3:] == ["constant_regret", "along_regret", "better"]
    assert (there / "results" / "fake" / "held_out.csv").exists()


def test_a_drift_is_offered_beside_the_constant(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = ["transfer", folder, "--width", "32", "--density", "1/8", "--scheme", "mup"]
    assert main(target) == 0
    out = capsys.readouterr().out
    assert "lr by constant 0.00387" in out
    assert "carried: constant, recommended: constant (fewer than three scales along density" in out
    assert main([*target, "--along-drift", "--save"]) == 0
    assert "carried: drift" in capsys.readouterr().out
    assert (Path(folder) / "card_width_32_density_1over8_scheme_mup_along_drift.json").exists()


def test_groups_and_the_hyperparameter_can_be_said(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimum", folder, "--by", "scheme,density,seed"]) == 0
    assert "seed" in capsys.readouterr().out
    assert main(["optimum", folder, "--by", "density,scheme", "--over", "lr", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["optima"]
    assert list(table[0])[:2] == ["density", "scheme"]


def test_only_the_runs_with_a_value_are_looked_at(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimum", folder, "--where", "density=1/4", "--where", "scheme=mup", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["optima"]
    assert (row["scheme"], row["n_runs"]) == ("mup", 24)  # 8 learning rates, 3 seeds
    assert main(["regret", folder, "--where", "scheme=mup", "--json"]) == 0
    assert {row["scheme"] for row in json.loads(capsys.readouterr().out)["regret"]} == {"mup"}
    assert main(["transfer", folder, "--width", "512", "--density", "1/16", "--where", "scheme=mup", "--save"]) == 0
    assert (Path(folder) / "card_width_512_density_1over16_where_scheme_mup.json").exists()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("density=1/3", "no run has density 1/3, as --where asks; there are "),
        ("density=thin", "--where density=thin: 'thin' is no number or fraction"),
        ("densty=1", "unknown field 'densty' of a trial. Did you mean 'density'?"),
        ("tokens=5", "no run has tokens 5, as --where asks; there are "),
        ("val_loss=5", "nothing can be selected by 'val_loss', which came out"),
        ("lr=inf", "--where lr=inf: give a finite number"),
        ("lr=-inf", "--where lr=-inf: give a finite number"),
        ("lr=nan", "--where lr=nan: give a finite number, or null for the runs without one"),
        ("clip=null", "no run has clip null, as --where asks; there are 1.0."),
        ("tied=perhaps", "--where tied=perhaps: give true, false or null"),
        ("tied=False", "no run has tied False, as --where asks; there are True."),
        ("data=", "not of the form FIELD=VALUE"),
        ("optuna_version=3", "no run has optuna_version 3, as --where asks; there are null."),
    ],
)
def test_what_no_run_has_cannot_be_selected(
    folder: str, capsys: pytest.CaptureFixture[str], where: str, said: str
) -> None:
    assert said in refused(capsys, "regret", folder, "--where", where)


def test_values_are_selected_by_what_they_are() -> None:
    runs = pd.DataFrame(
        {
            "lr": [2.0**-8, 1 / 3, 0.1, 0.1],
            "seed": [10_000, 10_001, 10_002, 10_003],
            "steps": [100.0, 200.0, np.nan, 300.0],  # whole numbers that nulls made floats
            "tied": [True, False, True, False],
            "maybe": [True, None, False, None],
            "data": ["true", "null.txt", "0.1", "a=b"],
            "clip": [1.0, np.nan, np.inf, 0.5],
        }
    )

    def rows(*where: tuple[str, str]) -> list[int]:
        return list(selected(runs, where).index)

    assert rows(("lr", "0.0039062")) == [0]  # as tables print it
    assert rows(("lr", "1/3")) == rows(("lr", "0.33333")) == [1]
    assert rows(("seed", "10001")) == [1]
    assert rows(("steps", "300")) == [3]
    assert rows(("steps", "null")) == [2]
    for text in ("True", "true", "1", "yes"):
        assert rows(("tied", text)) == [0, 2]
    assert rows(("tied", "False")) == [1, 3]
    assert rows(("maybe", "false")) == [2]
    assert rows(("maybe", "null")) == [1, 3]
    assert rows(("data", "true")) == [0]
    assert rows(("data", "0.1")) == [2]
    assert rows(("data", "a=b")) == [3]
    assert rows(("lr", "0.1"), ("tied", "true")) == [2]
    with pytest.raises(ValueError, match="give a finite number"):
        rows(("clip", "inf"))
    with pytest.raises(ValueError, match="unknown field 'depht'"):
        rows(("depht", "2"))


@pytest.mark.parametrize("verb", ["optimum", "regret", "transfer", "plot", "report"])
def test_ignore_is_checked_by_every_verb_that_takes_it(
    folder: str, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert "ignore has 'absent', and the runs have no such column" in refused(
        capsys, verb, folder, "--ignore", "absent", *(["--save"] if verb == "plot" else [])
    )
    assert "no list of different names" in refused(capsys, verb, folder, "--ignore", "a,,b")


def test_an_unknown_column_of_a_stored_file_is_refused_until_it_is_named(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = list((Path(folder) / "runs").glob("part-*.parquet"))[:1]
    table = pq.read_table(path)
    before = sum(row.num_rows for row in map(pq.read_table, (Path(folder) / "runs").glob("part-*.parquet")))
    pq.write_table(table.append_column("n_layer", pa.array([i % 2 for i in range(table.num_rows)])), path)
    assert "differ in n_layer" in refused(capsys, "optimum", folder)
    assert main(["optimum", folder, "--ignore", "n_layer", "--json"]) == 0
    assert sum(row["n_runs"] for row in json.loads(capsys.readouterr().out)["optima"]) == before
    assert main(["optimum", folder, "--by", "scheme,density,n_layer", "--json"]) == 0


def test_a_card_is_written_for_the_target_that_is_said(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", folder, "--width", "512", "--density", "1/16", "--scheme", "supar", "--save"]) == 0
    out, err = capsys.readouterr()
    assert not (Path(folder) / "card.json").exists()  # that is the card of the recorded target
    card = json.loads((Path(folder) / "card_width_512_density_1over16_scheme_supar.json").read_text())
    assert (card["target"]["width"], card["target"]["density"], card["scheme"]) == (512, 1 / 16, "supar")
    assert "supar for width 512, density 0.0625" in out
    assert err.count("hpsweep: warning: ") == len(card["warnings"]) > 0
    other = Path(folder).parent / "other.json"
    assert main(["transfer", folder, "--width", "256", "--density", "0.5", "--out", str(other)]) == 0
    assert json.loads(other.read_text())["target"]["width"] == 256


def test_drifts_along_both_axes_name_only_what_tells_them_apart(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"width": [32, 64], "density": [1.0, 0.25], "lr": [2.0**k for k in range(-12, -4)], "seed": [0, 1]}
    fake.experiment(there, grid=grid)
    assert main(["run", "fake"], train=fake.TRAIN) == 0
    capsys.readouterr()
    assert main(["optimum", "results/fake"]) == 0
    drifts = capsys.readouterr().out.partition("drift of the optimum")[2].partition("tuned against")[0]
    assert drifts.split()[1:5] == ["scheme", "width", "density", "along"]
    assert "- scheme supar, width 32, along density: " in drifts
    assert "- scheme supar, density 1/4, along width: " in drifts
    assert "nan" not in drifts


def test_cards_of_other_proxies_or_targets_have_names_of_their_own(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["--width", "512", "--density", "1/16"]
    for words in ([], ["--proxy-density", "1/4"], ["--depth", "8"], ["--scheme", "mup"]):
        assert main(["transfer", folder, *target, *words, "--save"]) == 0
    assert sorted(path.name for path in Path(folder).glob("card*.json")) == [
        "card_width_512_density_1over16.json",
        "card_width_512_density_1over16_depth_8.json",
        "card_width_512_density_1over16_proxy_density_1over4.json",
        "card_width_512_density_1over16_scheme_mup.json",
    ]


def test_a_card_without_a_word_on_the_scheme_takes_the_best_there_is(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = Path(folder) / "meta.json"
    recorded = json.loads(meta.read_text())
    recorded["sweep"]["grid"][0]["scheme"] = ["mup"]
    meta.write_text(json.dumps(recorded))
    assert main(["transfer", folder, "--width", "512", "--density", "1"]) == 0
    assert "mup for width 512" in capsys.readouterr().out


def test_a_card_is_not_written_over_a_folder(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", folder, "--width", "512", "--density", "1/16", "--out", folder]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err


def test_rows_that_the_sweep_no_longer_asks_for_are_left_out_and_said(
    folder: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = Path(folder) / "meta.json"
    meta.write_text(meta.read_text().replace('"mup",', ""))
    assert main(["optimum", folder, "--json"]) == 0
    out, err = capsys.readouterr()
    assert {row["scheme"] for row in json.loads(out)["optima"]} == {"supar"}
    assert "48 trials in" in err


def test_a_card_takes_its_target_from_the_recorded_sweep(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    meta = store.read_meta(folder)
    meta["target"] = {"width": 128, "density": 0.25, "depth": 4, "head_size": None, "context": None, "vocabulary": None}
    store.write_meta(folder, meta)
    assert main(["transfer", folder, "--depth", "3", "--json"]) == 0
    target = json.loads(capsys.readouterr().out)["target"]
    assert (target["width"], target["density"], target["depth"]) == (128, 0.25, 3)


def test_figures_are_drawn_and_named(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, place in ((["--save"], Path(folder) / "figures"), (["--out", "elsewhere"], Path("elsewhere"))):
        assert main(["plot", folder, *words]) == 0
        paths = [Path(path) for path in capsys.readouterr().out.split()]
        assert paths
        assert {path.parent for path in paths} == {place}
        assert all(path.stat().st_size > 0 for path in paths)


def test_the_report_is_written_and_its_page_is_named_last(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", folder, "--save"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("No target: ")
    assert lines[-1] == f"{folder}/report.html"
    text = Path(lines[-1]).read_text()
    assert "hpsweep report results/fake" in text.replace(str(Path.cwd()) + "/", "")
    assert (Path(folder) / "report.md").is_file()
    assert main(["report", folder, "--json", "--out", "elsewhere/deep"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["report"]).read_text() == text
    assert Path(said["markdown"]).parent == Path("elsewhere/deep")
    assert said["verdict"][1].startswith("μP: moves")


def test_a_report_counts_what_the_sweep_no_longer_asks_for(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = store.read_meta(folder)
    store.write_meta(folder, {**sweep, "grid": [{**sweep["grid"][0], "seed": [0, 1]}]})
    assert main(["report", folder, "--save"]) == 0
    assert "32 stored trials are not of the recorded sweep" in (Path(folder) / "report.md").read_text()


def test_a_report_that_cannot_be_written_is_refused_in_one_line(
    folder: str, there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "file").write_text("")
    assert "file/deep cannot be made" in refused(capsys, "report", folder, "--out", "file/deep")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not mode & os.W_OK)
    assert "cannot be written" in refused(capsys, "report", folder, "--save")


def test_a_report_on_a_sweep_of_which_nothing_is_stored_says_so(
    folder: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = there / "results" / "none"
    with store.lock(empty):
        store.write_meta(empty, store.read_meta(folder))
    assert main(["report", str(empty)]) == 0
    assert capsys.readouterr().out.startswith("Nothing can be concluded: no trial is stored yet.")


def test_json_is_pure_and_missing_is_null(there: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    table = store.read_runs(folder).to_pylist()[:2]
    store.append(
        folder,
        [
            {**row, "trial_id": str(i), "density": 0.125, "val_loss": None, "status": "diverged"}
            for i, row in enumerate(table)
        ],
    )
    for words in (
        ["plan", "fake"], ["status", folder], ["optimum", folder], ["compact", folder],
        ["plot", folder, "--save"], ["report", folder],
        ["transfer", folder, "--width", "512", "--density", "1/16"], ["run", "fake", "--results", "others"],
    ):  # fmt: skip
        if words[0] in ("plan", "run"):
            words += ["--results", str(there / "others"), "--workers", "2"]
        assert main([*words, "--json"], train=fake.TRAIN) == 0, words
        json.loads(capsys.readouterr().out, parse_constant=refuse)


def test_an_unreadable_file_is_a_warning_on_stderr(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(folder) / "runs" / "part-torn.parquet").write_bytes(b"torn")
    assert main(["status", folder, "--json"]) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert err.startswith("hpsweep: warning: ")
    assert "part-torn.parquet" in err


# --- wrong input ---

TRIAL = "from hpsweep.spec import Sweep, Trial\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Sweep(name='wrong', base=Trial(steps=1), grid={'learning_rate': [1]})", "unknown field 'learning_rate'"),
        ("Sweep(name='wrong', base=Trial(steps=1, widht=1))", "'widht' of a trial. Did you mean 'width'?"),
        ("Sweep(name='wrong', base=Trial(steps=1), gird={})", "unknown field 'gird' of a sweep. Did you mean 'grid'?"),
        ("Sweep(name='wrong', base=Trial(steps=1, density=0))", "density is 0"),
        ("Sweep(name='wrong', base=Trial(steps=1), grid={'density': [1.5]})", "density is 1.5"),
        ("Sweep(name='wrong', base=Trial(steps=1, density=float('nan')))", "density is nan"),
        ("Sweep(name='wrong', base=Trial(steps=1, lr=-1.0))", "lr is -1.0"),
        ("Sweep(name='wrong', base=Trial(steps=1, lr=float('nan')))", "lr is nan"),
        ("Sweep(name='wrong', base=Trial(steps=1, width=100))", "width 100 is not divisible by head_size 32"),
        ("Sweep(name='wrong', base=Trial(steps=1), grid={'lr': []})", "grid axis 'lr' is []"),
        ("Sweep(name='wrong', base=Trial(steps=0))", "steps is 0"),
        ("Sweep(name='wrong', base=Trial(steps=1, base_width=0))", "base_width is 0"),
        ("Sweep(name='wrong', base=Trial(steps=1, warmup_fraction=1.5))", "warmup_fraction is 1.5"),
        ("Sweep(name='wrong', base=Trial(steps=1, data='text:missing.txt', eval_sequences=2))", "does not exist"),
        ("Sweep(name='wrong', base=Trial(steps=1, data='text:empty.txt', eval_sequences=2))", "empty.txt"),
        ("Sweep(name='wrong', base=Trial(steps=1, data='text:data.txt', eval_sequences=10**6))", "eval_sequences"),
        ("Sweep(name='wrong', base=Trial(steps=1, data='bin:big.bin?dtype=uint16&vocabulary=10'))", "vocabulary"),
        ("Sweep(name='wrong', base=Trial(steps=1, data='parquet:p.parquet?column=body'))", "body"),
        ("Trial(steps=1)", "SWEEP is a Trial"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("open('nothing')", "FileNotFoundError"),
        ("exit(3)", "SystemExit"),
        ("Sweep(name=", "line 2: '(' was never closed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_wrong_experiment_is_one_line_with_file_and_line(
    there: Path, capsys: pytest.CaptureFixture[str], verb: str, text: str, words: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (there / "empty.txt").touch()
    np.arange(10000, dtype="<u2").tofile(there / "big.bin")
    pq.write_table(pa.table({"text": ["a" * 1000] * 20}), there / "p.parquet")
    (there / "wrong.py").write_text(f"{TRIAL}SWEEP = {text}\n")
    err = refused(capsys, verb, "wrong.py")
    assert words in err
    assert "wrong.py" in err or "data source" in err or "eval_sequences" in err
    assert not (there / "results").exists()


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_an_experiment_without_sweep_or_of_no_known_name_is_refused(
    there: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    (there / "experiments" / "other.py").write_text("ANSWER = 42\n")
    assert "there is no SWEEP" in refused(capsys, verb, "other")
    err = refused(capsys, verb, "nothing")
    assert "In experiments/: fake, other." in err
    assert "no experiment 'gone/x.py': gone/x.py does not exist." in refused(capsys, verb, "gone/x.py")
    os.mkfifo(there / "pipe.py")  # nobody ever writes to it
    assert "no experiment 'pipe.py': pipe.py is no regular file." in refused(capsys, verb, "pipe.py")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "0"], "workers is 0"),
        (["--workers", "two"], "argument --workers: invalid int value: 'two'"),
        (["--ensemble-size", "0"], "ensemble_size is 0"),
        (["--gpus-per-worker", "1.5"], "gpus_per_worker is 1.5"),
        (["--gpus-per-worker", "1/0"], "'1/0' is no number or fraction"),
        (["--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
        (["--address", "nonsense"], "address is 'nonsense'"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_options_of_run_are_one_line(
    there: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refused(capsys, "run", "fake", *words)
    assert not (there / "results").exists()


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_results_that_cannot_be_used_are_refused(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    (there / "file").touch()
    assert "file is a file; results need a folder" in refused(capsys, verb, "fake", "--results", "file")
    (there / "results").mkdir()
    (there / "results" / "fake").symlink_to("gone")
    assert "results/fake is a link to nothing; results need a folder" in refused(capsys, verb, "fake")
    (there / "results" / "fake").unlink()
    meta = there / "results" / "fake" / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text("{")
    assert "meta.json is not what hpsweep wrote" in refused(capsys, verb, "fake")
    store.write_meta(meta.parent, {"name": "another"})
    assert "holds the results of experiment 'another', not of 'fake'" in refused(capsys, verb, "fake")
    meta.unlink()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not mode & os.W_OK
    )  # root may write all
    if verb == "run":
        assert "cannot be written" in refused(capsys, verb, "fake")
    else:
        assert main([verb, "fake"], train=fake.TRAIN) == 0  # it writes nothing
    assert list((there / "results" / "fake").iterdir()) == []


def test_a_folder_that_holds_no_results_is_refused_by_every_reading_verb(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "empty" / "runs").mkdir(parents=True)
    needed = {"transfer": ["--width", "512", "--density", "1/16"], "plot": ["--save"]}
    for verb in ("status", "optimum", "regret", "transfer", "plot", "report", "compact", "train", "law", "coords"):
        more = needed.get(verb, [])
        assert "gone" in refused(capsys, verb, "gone", *more)
    for verb in ("optimum", "regret", "transfer"):
        assert "gone does not exist" in refused(capsys, verb, "gone")
    for verb in ("status", "optimum", "regret", "transfer", "plot", "report", "law"):
        more = needed.get(verb, [])
        assert "no stored trials in empty" in refused(capsys, verb, "empty", *more)
    assert "give the file of a card" in refused(capsys, "train", "empty")


def test_results_of_mixed_data_are_refused(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = store.read_runs(folder).to_pylist()[:1]
    store.append(folder, [{**row, "data_hash": "bb"} for row in rows])
    for verb in ("optimum", "regret", "plot", "transfer"):
        more = {"transfer": ["--width", "512", "--density", "1/16"], "plot": ["--save"]}.get(verb, [])
        assert "2 different data sets" in refused(capsys, verb, folder, *more)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the target has no density and no width"),
        (["--width", "512"], "the target has no density"),
        (["--width", "512", "--density", "0"], "density is 0"),
        (["--width", "512", "--density", "nan"], "density is nan"),
        (["--width", "512", "--density", "x"], "'x' is no number or fraction"),
        (["--width", "500", "--density", "1/4", "--head-size", "64"], "not divisible"),
        (["--width", "64", "--density", "1/4096"], "keeps 0.016 of the 64 weights of a neuron"),
        (["--width", "512", "--density", "1/4", "--scheme", "sp"], "no run has scheme 'sp'"),
        (["--width", "512", "--density", "1/4", "--out", "gone/card.json"], "gone does not exist"),
    ],
)
def test_a_card_for_an_impossible_target_is_refused(
    folder: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refused(capsys, "transfer", folder, *words)
    assert not (Path(folder) / "card.json").exists()


def test_a_broken_record_of_the_sweep_is_one_line(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    meta = Path(folder) / "meta.json"
    meta.write_text('{"sweep": {"name": "fake"}}')
    assert "meta.json is not what hpsweep wrote" in refused(capsys, "status", folder)
    meta.write_text("{")
    assert "meta.json is not what hpsweep wrote" in refused(capsys, "status", folder)
    assert "meta.json is not what hpsweep wrote" in refused(capsys, "transfer", folder)


def test_what_was_not_searched_has_no_optimum(there: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "init_std has one value in these runs" in refused(capsys, "optimum", folder, "--over", "init_std")
    assert "no column 'densty'" in refused(capsys, "optimum", folder, "--by", "scheme,densty")


@pytest.fixture
def searched(there: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The results of lr and init std searched together, at random points."""
    space = {"lr": (1e-3, 1e-1), "init_std": (0.01, 0.1)}
    fake.experiment(there, grid={"seed": [0, 1]}, search="random", space=space, points=6)
    assert main(["run", "fake"], train=fake.TRAIN) == 0
    capsys.readouterr()
    return "results/fake"


def test_two_hyperparameters_searched_together_have_a_joint_table_and_a_figure(
    searched: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimum", searched, "--json", "--save"]) == 0
    [row] = json.loads(capsys.readouterr().out)["surface"]
    assert {"lr_opt", "init_std_high", "status_lr", "status_init_std", "ridge_slope"} < set(row)
    assert row["n_points"] == 6
    assert (Path(searched) / "surface.csv").read_text().startswith("scheme,lr_opt,")
    assert main(["optimum", searched, "--over", "init_std,lr"]) == 0
    assert "per group, together" in capsys.readouterr().out
    assert main(["plot", searched, "--save"]) == 0
    assert "surface_lr_init_std.png" in capsys.readouterr().out


def test_of_two_hyperparameters_searched_together_one_alone_is_refused_with_the_remedy(
    searched: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "lr and init_std were searched together" in refused(capsys, "regret", searched)
    said = refused(capsys, "optimum", searched, "--over", "lr")
    assert "lr and init_std were searched together" in said
    assert "--over lr,init_std" in said
    assert "weight_decay has one value" in refused(capsys, "optimum", searched, "--over", "lr,weight_decay")
    with pytest.raises(SystemExit):
        main(["optimum", searched, "--over", "lr,width"])
    assert "'width' is no hyperparameter" in capsys.readouterr().err


def test_a_bug_in_a_library_shows_its_traceback(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "load", lambda _: int("not of ours"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["status", folder])


def test_an_experiment_file_may_be_named_by_its_path_or_its_bare_name(there: Path) -> None:
    assert load_experiment("fake").name == load_experiment(str(there / "experiments" / "fake.py")).name == "fake"


def test_an_experiment_is_named_as_its_file(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (there / "experiments" / "other.py").write_text((there / "experiments" / "fake.py").read_text())
    assert "SWEEP is named 'fake'; name it 'other'" in refused(capsys, "plan", "other")


def test_a_sweep_with_nothing_stored_yet_has_a_status(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = there / "results" / "fake"
    folder.mkdir(parents=True)
    store.write_meta(folder, fake.sweep(there).to_dict())
    assert main(["status", str(folder)]) == 0
    assert "nothing stored yet; 48 trials in all" in capsys.readouterr().out
