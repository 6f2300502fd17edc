"""The report: what it concludes and refuses to conclude, and the page it becomes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hpsweep import store
from hpsweep.analysis.findings import Finding
from hpsweep.analysis.law.law import fit_law
from hpsweep.analysis.report import html as report_html
from hpsweep.analysis.report import joint as report_joint
from hpsweep.analysis.report import markdown as report_md
from hpsweep.analysis.report.caveats import findings_of
from hpsweep.analysis.report.law import law, verdict_line
from hpsweep.analysis.report.page import FIGURES, Report, report
from hpsweep.analysis.report.parts import KINDS, Line, Panel, Section, Status, Table, merged_reasons, typeset
from hpsweep.analysis.report.runs import ledger
from hpsweep.analysis.report.tables import Tables, ledger_of, tables_of
from hpsweep.analysis.report.verdict import _cost, _moves, verdict_of
from hpsweep.analysis.transfer.comparison import tuned_against_transferred
from hpsweep.analysis.transfer.joint import of_elsewhere
from hpsweep.spec import Sweep, Target, Trial
from hpsweep.sweep import refine, search
from hpsweep.text import duration, fixed, loss_interval, octave_interval, power, powers, scientific, setting, signed
from tests.analysis.law.law_cells import made as made_cells

POWERS = [2.0**k for k in range(-11, -3)]
SMALL = {"scheme": ["supar"], "density": [1.0, 1 / 4], "lr": POWERS, "seed": [0, 1, 2]}
TARGET = Target(width=1024, density=1 / 16, head_size=32)


def sweep_of(**changes: Any) -> Sweep:
    grid = {"scheme": ["sp", "supar"], "density": [1.0, 1 / 4, 1 / 16], "lr": POWERS, "seed": [0, 1, 2]}
    values = {"name": "made", "base": Trial(steps=300), "grid": grid, "target": TARGET}
    return Sweep(**{**values, **changes})


def loss_of(trial: Trial) -> float:
    """A basin at 2^-7.4, which under sp moves up by half an octave per halving of density; noise of 0.003 by trial."""
    best = -7.4 - (0.5 * np.log2(trial.density) if trial.scheme == "sp" else 0.0)
    best += 0.5 * np.log2(trial.init_std / 0.08)  # and a ridge, where init std is searched too
    noise = np.random.default_rng(int(trial.trial_id[:8], 16)).normal(0, 0.003)
    return float(2.1 + 0.04 * (np.log2(trial.lr) - best) ** 2 + noise)


def runs_of(sweep: Sweep, trials: list[Trial] | None = None, **changes: Any) -> pd.DataFrame:
    """A row per trial; changes are columns, as values or as functions of the trial."""
    rows = []
    for trial in sweep.trials if trials is None else trials:
        made = {name: change(trial) if callable(change) else change for name, change in changes.items()}
        values = {
            **trial.resolved, "trial_id": trial.trial_id, "tokens": trial.total_tokens, "status": "ok",
            "val_loss": loss_of(trial), "initial_loss": 5.5, "vocabulary": 256, "data_hash": "aa", "device": "one",
            "ensemble_size": 8, "seconds": 2.0, "flops_dense": 1e12 * (trial.width / 128) ** 2,
            "flops_sparse": 5e11, "hpsweep_version": "0.1.0",
            "torch_version": "2.13.0", "python_version": "3.11.7", "commit": "0123456789abcdef0123+",
            "finished_at": pd.Timestamp("2026-01-02 03:04", tz="UTC"), **made,
        }  # fmt: skip
        rows.append({**values, "val_loss": values["val_loss"] if values["status"] == "ok" else None})
    table: pd.DataFrame = pa.Table.from_pylist(rows, schema=store.RUNS).to_pandas()
    return table


@pytest.fixture(scope="module")
def made() -> Report:
    sweep = sweep_of()
    return report(runs_of(sweep), sweep, folder="results/made")


def section(of: Report, title: str) -> Section:
    return next(section for section in of.sections if section.title == title)


def rows_of(table: Table) -> list[list[str]]:
    return [[cell.word if isinstance(cell, Status) else cell for cell in row] for row in table.rows]


def concluded(runs: pd.DataFrame, sweep: Sweep) -> list[str]:
    """The sentences of the verdict, without drawing anything."""
    return [str(line) for line in verdict_of(tables_of(runs, sweep))]


def found(tables: Tables, code: str) -> list[Finding]:
    """The findings of a code that the verdict has."""
    return [finding for finding in findings_of(tables) if finding.code == code]


def codes(tables: Tables) -> list[str]:
    return [finding.code for finding in findings_of(tables)]


class Page(HTMLParser):
    """What a test asks of a page: that every tag is closed, and what it refers to."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.refers += [value for name, value in values.items() if name in ("href", "src", "xlink:href")]
        self.refers += re.findall(r"url\(([^)]*)\)", " ".join(values.values()))
        self.refers += [f"#{name}" for name in values.get("aria-labelledby", "").split()]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> where <{self.open[-1]}> is open"
        self.open.pop()


# --- the verdict ---


def test_the_verdict_says_first_what_to_use_with_its_interval_then_what_moves_then_what_not_to_trust(
    made: Report,
) -> None:
    leads = [line.lead for line in made.verdict]
    assert leads[:3] == ["Use with care", "SuPar: stable", "SP: moves"]
    assert set(leads[3:]) == {"Caution"}
    use = made.verdict[0].text
    found = re.match(r"base learning rate (\S+) = 2\^−(\S+) \(95 % interval 2\^−(\S+) to 2\^−(\S+)\) under SuPar", use)
    assert found is not None, use
    assert float(found[4]) <= float(found[2]) <= float(found[3])  # of negative exponents
    assert float(found[2]) == pytest.approx(7.4, abs=0.1)
    assert any("Transfer from width 128 to 1024 is untested" in text for text in made.sentences)


def test_a_target_on_tested_axes_alone_is_used_without_care() -> None:
    # three densities: two are no proof that the optimum stays put, for optima scatter
    grid = {**SMALL, "density": [1.0, 1 / 4, 1 / 16]}
    sweep = sweep_of(target=Target(width=128, density=1 / 4), grid=grid)
    assert concluded(runs_of(sweep), sweep)[0].startswith("Use: base learning rate")


def test_a_target_beyond_the_tuned_models_is_used_with_care_and_the_distance_is_said() -> None:
    sweep = sweep_of(target=Target(width=128, density=1 / 16), grid=SMALL)
    tables = tables_of(runs_of(sweep), sweep)
    assert verdict_of(tables)[0].lead == "Use with care"
    [beyond] = found(tables, "beyond_tuned")
    assert (beyond.axis, beyond.numbers) == ("density", {"last": 1 / 4, "value": 1 / 16, "factor": 4})


def test_of_several_drifts_the_only_known_one_is_said_once_and_the_others_are_counted() -> None:
    grid = {"scheme": ["supar"], "density": [1.0, 1 / 4], "width": [64, 128, 256], "lr": POWERS, "seed": [0, 1, 2]}
    sweep = sweep_of(grid=grid, target=None)

    tables = tables_of(runs_of(sweep), sweep)
    rows = tables.drift[tables.drift["along"] == "density"].sort_values("width")
    first = rows["width"] == 64
    rows = rows.assign(drift=rows["drift"].where(first), n_ok=[2, 0, 1])
    said = _moves(tables, "density", rows)
    assert re.match(r"At width 64 the best base learning rate drifts by [+−]0\.\d\d octave per halving", said)
    assert said.count("drifts by") == 1
    assert said.endswith(
        " It is unknown at the other 2 values of width: 1 has no optimum and 1 has a single optimum, "
        "and a drift needs two."
    )


def test_where_no_drift_is_known_all_are_counted() -> None:
    grid = {"scheme": ["supar"], "density": [1.0, 1 / 4], "width": [64, 128], "lr": POWERS, "seed": [0, 1, 2]}
    sweep = sweep_of(grid=grid, target=None)
    runs = runs_of(sweep, val_loss=lambda trial: 2.1 - 0.05 * float(np.log2(trial.lr)) + 0.01 * trial.seed)
    tables = tables_of(runs, sweep)
    moves = _moves(tables, "width", tables.drift[tables.drift["along"] == "width"].assign(drift=np.nan, n_ok=0))
    assert moves == (
        "How the best base learning rate moves with width is unknown at all 2 values of density: 2 have no optimum, "
        "and a drift needs two."
    )


def costs_of(*rows: tuple[float, float, float, str]) -> str:
    """What the verdict says of regrets with their intervals, at widths 64, 128, ... of these statuses."""
    made = [
        {
            "width": 64 * 2**i,
            "density": 1.0,
            "regret": value,
            "regret_low": low,
            "regret_high": high,
            "status": status,
            "tuned_loss": 2.0,
            "proxy_value": 0.1,
            "transferred_loss": 2.0,
            "interval": "resampled",
        }
        for i, (value, low, high, status) in enumerate(rows)
    ]
    sweep = sweep_of(grid={"width": [64, 128]})
    return _cost(pd.DataFrame(made), Tables(runs=runs_of(sweep), sweep=None, ledger=pd.DataFrame()))


def test_the_largest_regret_is_an_estimate_and_the_largest_upper_end_is_what_it_may_reach() -> None:
    said = costs_of((0.0, 0.0, 0.0, "ok"), (0.005, -0.01, 0.012, "ok"), (0.001, -0.013, 0.019, "ok"))
    assert "costs 0.005 nats/byte [−0.010, 0.012] or 0.2 % at width 128, the largest estimate of 2 places" in said
    assert said.endswith("Its 95 % intervals reach up to 0.019, at width 256.")
    assert "at most" not in said
    said = costs_of((0.005, -0.01, 0.02, "ok"), (0.001, -0.013, 0.019, "ok"))
    assert "reach up to" not in said  # the interval beside the estimate has that end
    said = costs_of((0.005, -0.01, 0.02, "edge"), (0.001, -0.013, 0.03, "ok"))
    assert said.endswith("At width 64 it is at least what was found, as no optimum of its own is known there.")


def test_every_drift_in_the_verdict_stands_with_its_interval(made: Report) -> None:
    for line in made.verdict[1:3]:
        found = re.search(
            r"drifts by ([+−]\d\.\d\d) octave per halving of density, 95 % interval \[(\S+), (\S+)\]", line.text
        )
        assert found is not None, line.text
        drift, low, high = (float(text.replace("−", "-")) for text in found.groups())
        assert low <= drift <= high
        assert drift == pytest.approx(0.5 if line.lead.startswith("SP") else 0.0, abs=0.06)


def test_a_scheme_that_is_better_after_tuning_is_named_with_the_gap() -> None:
    sweep = sweep_of(grid={**SMALL, "scheme": ["sp", "supar"]})
    runs = runs_of(sweep, val_loss=lambda trial: loss_of(trial) - 0.1 * (trial.scheme == "sp" and trial.density == 1))
    [rival] = found(tables_of(runs, sweep), "rival")
    assert (rival.scheme, rival.numbers["rival"], rival.numbers["unit"]) == ("supar", "sp", "nats/byte")
    assert rival.numbers["at"] == {"width": 128, "density": 1}
    assert rival.numbers["gap"] == pytest.approx(0.1, abs=0.01)
    worse = runs_of(sweep, val_loss=lambda trial: loss_of(trial) + 0.1 * (trial.scheme == "sp"))
    assert not found(tables_of(worse, sweep), "rival")


def test_missing_and_failed_trials_make_a_verdict_provisional_and_are_counted_by_group() -> None:
    sweep = sweep_of()
    trials = [t for t in sweep.trials if not (t.scheme == "sp" and t.density == 1 and t.seed == 2)]
    runs = runs_of(sweep, trials, status=lambda t: "failed" if t.density == 1 / 16 and t.lr == POWERS[0] else "ok")
    tables = tables_of(runs, sweep)
    [missing], [failed] = found(tables, "missing"), found(tables, "failed")
    assert (missing.numbers, failed.numbers) == ({"missing": 8, "planned": 144}, {"failed": 6})
    table = ledger(tables, left_out=0).tables[0]
    counts = {tuple(row[:2]): dict(zip(table.header[3:8], row[3:8], strict=True)) for row in rows_of(table)}
    assert counts["SP", "1"] == {"planned": "24", "done": "16", "diverged": "0", "failed": "0", "missing": "8"}
    assert counts["SP", "1/16"] == {"planned": "24", "done": "21", "diverged": "0", "failed": "3", "missing": "0"}
    assert [row[2] for row in rows_of(table)] == ["missing", "done", "failed", "done", "done", "failed"]


def test_a_group_of_which_nothing_is_stored_is_in_the_ledger() -> None:
    sweep = sweep_of()
    ledger = ledger_of(runs_of(sweep, [t for t in sweep.trials if t.density == 1 and t.scheme == "sp"]), sweep)
    assert len(ledger) == 6
    assert ledger["missing"].tolist() == [0, 24, 24, 24, 24, 24]


def test_the_ledger_of_an_optuna_search_counts_points_and_seeds() -> None:
    sweep = sweep_of(
        grid={"density": [1.0, 0.25], "seed": [0, 1]}, search="tpe", space={"lr": (2**-12, 2**-3)}, points=5
    )
    ledger = ledger_of(runs_of(sweep, [trial.replace(lr=2.0**-8) for trial in sweep.trials]), sweep)
    assert ledger["planned"].tolist() == [10, 10]
    assert ledger["missing"].tolist() == [8, 8]


# --- where there is little or nothing to conclude ---


def nothing(of: Report) -> str:
    assert of.verdict[0].lead == "Nothing can be concluded", of.sentences
    return of.verdict[0].text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("diverged", "none of the 48 stored trials ended well: 48 diverged"),
        ("failed", "all 48 stored trials failed"),
    ],
)
def test_that_nothing_ended_well_is_said_first(status: str, said: str) -> None:
    sweep = sweep_of(grid=SMALL)
    found = report(runs_of(sweep, status=status), sweep)
    assert said in nothing(found)
    Page(report_html.render(found))


def test_an_empty_folder_of_a_recorded_sweep_is_a_report_of_what_is_missing() -> None:
    sweep = sweep_of()
    runs = runs_of(sweep, [])
    made = report(runs, sweep)
    assert nothing(made) == "no trial is stored yet."
    [missing] = found(tables_of(runs, sweep), "missing")
    assert missing.numbers == {"missing": 144, "planned": 144}
    assert "144 of 144 planned trials are missing" in " ".join(made.sentences)
    Page(report_html.render(made))


def test_one_learning_rate_is_nothing_to_fit() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], "density": [1.0, 0.25], "lr": [2.0**-7], "seed": [0, 1, 2]})
    assert "every hyperparameter has one value" in nothing(report(runs_of(sweep), sweep))


def test_mixed_data_is_refused_and_never_fitted() -> None:
    sweep = sweep_of()
    found = report(runs_of(sweep, data_hash=lambda trial: "aa" if trial.seed else "bb"), sweep)
    assert "2 different data sets" in nothing(found)
    assert [s.title for s in found.sections] == ["Run ledger", "Provenance"]


def test_a_minimum_at_the_end_of_the_grid_is_never_offered_as_an_optimum() -> None:
    sweep = sweep_of(grid={**SMALL, "lr": POWERS[:4]})
    first = verdict_of(tables_of(runs_of(sweep), sweep))[0]
    assert (first.lead, first.kind) == ("Do not use as it is", "bad")
    assert "a bound, not an optimum" in first.text


def test_one_density_and_no_target_make_no_claim_of_stability() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], "lr": POWERS, "seed": [0, 1, 2]}, target=None)
    found = report(runs_of(sweep), sweep)
    assert [line.lead for line in found.verdict] == ["No target", "SuPar: drift not measured"]
    assert "95 % interval" in found.verdict[1].text
    assert "Drift" not in [section.title for section in found.sections]


def test_one_seed_says_that_its_noise_is_assumed() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], "density": [1.0, 0.25], "lr": POWERS})
    tables = tables_of(runs_of(sweep), sweep)
    first = verdict_of(tables)[0]
    assert "noise assumed" in first.text
    assert first.kind == "caution"
    [assumed] = found(tables, "groups_assumed")
    assert assumed.numbers == {"count": 2, "groups": 2}
    assert not found(tables, "assumed_noise"), "the first line has it"


def test_a_sweep_over_lr_and_two_values_of_init_std_has_an_optimum_for_either() -> None:
    grid = {"scheme": ["supar"], "density": [1.0, 0.25], "lr": POWERS, "init_std": [0.08, 0.16], "seed": [0, 1]}
    sweep = sweep_of(grid=grid)
    found = report(runs_of(sweep), sweep)
    assert "init std" in section(found, "Optima").tables[0].header
    assert found.verdict[0].lead.startswith("Use")
    Page(report_html.render(found))


def test_points_of_three_that_share_no_value_are_refused_with_the_remedy() -> None:
    space = {"lr": (2**-12, 2**-3), "init_std": (0.01, 1.0), "alpha_input": (0.1, 10.0)}
    sweep = sweep_of(grid={"seed": [0, 1]}, search="random", points=9, space=space)
    generator = np.random.default_rng(0)
    points = [dict(zip(space, 2.0 ** generator.uniform(-6, -3, 3), strict=True)) for _ in range(9)]
    trials = [trial.replace(**point) for trial in sweep.trials for point in points]
    assert "were searched together" in nothing(report(runs_of(sweep, trials), sweep))


def test_runs_without_a_recorded_sweep_have_a_report_that_knows_nothing_of_missing_trials() -> None:
    found = report(runs_of(sweep_of(grid=SMALL)), folder="elsewhere/mine")
    assert found.title == "mine"
    assert "missing" not in section(found, "Run ledger").tables[0].header
    assert "No sweep is recorded" in " ".join(section(found, "Run ledger").text)


def test_a_bug_in_a_library_is_not_reported_as_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        np.zeros((2, 3)) @ np.zeros((2, 3))

    monkeypatch.setattr("hpsweep.analysis.report.tables.prepared_and_fitted", broken)
    with pytest.raises(ValueError, match="matmul"):
        report(runs_of(sweep_of()), sweep_of())


# --- two hyperparameters searched together ---

PAIR = {"density": [1.0, 1 / 4], "lr": POWERS, "init_std": [2.0**k for k in range(-6, 0)], "seed": [0, 1]}


def pair_loss(trial: Trial) -> float:
    """A bowl with an optimum at lr 2^-7.4, which under sp moves with density, and init std 2^-3.6."""
    return loss_of(trial) + 0.06 * float(np.log2(trial.init_std) + 3.6) ** 2


@pytest.fixture(scope="module")
def pair() -> Report:
    sweep = sweep_of(grid={"scheme": ["sp", "supar"], **PAIR}, target=Target(width=128, density=1 / 4))
    return report(runs_of(sweep, val_loss=pair_loss), sweep, folder="results/made")


def test_the_verdict_of_a_pair_recommends_both_with_their_intervals(pair: Report) -> None:
    use, supar, sp = pair.verdict[:3]
    assert use.lead == "Use"
    found = re.findall(r"(base \S+ \S+) \S+ = 2\^−(\S+) \(95 % interval 2\^−(\S+) to 2\^−([\d.]+)", use.text)
    assert [name for name, *_ in found] == ["base learning rate", "base init std"]
    for name, *numbers in found:
        best, low, high = (-float(text) for text in numbers)
        assert low <= best <= high
        assert best == pytest.approx({"base learning rate": -7.4, "base init std": -3.6}[name], abs=0.15)
    assert (supar.lead, sp.lead) == ("SuPar: undetermined", "SP: moves")
    assert "Intervals of the base learning rate exclude each other." in sp.text


def test_the_section_of_a_pair_has_its_optima_its_ridge_and_a_panel_per_group(pair: Report) -> None:
    assert [part.title for part in pair.sections] == ["For the target", "lr x init std", "Run ledger", "Provenance"]
    part = section(pair, "lr x init std")
    optima, shape = part.tables
    assert [[*row[:3], row[5]] for row in rows_of(optima)] == [
        ["SP", "1", "ok", "ok"], ["SP", "1/4", "ok", "ok"], ["SuPar", "1", "ok", "ok"], ["SuPar", "1/4", "ok", "ok"],
    ]  # fmt: skip
    exponents = [float(str(row[3]).rpartition("2^−")[2]) for row in optima.rows]
    assert exponents == pytest.approx([7.4, 6.4, 7.4, 7.4], abs=0.1)  # under sp it is an octave higher at 1/4
    slopes = [float(str(row[2]).replace("−", "-")) for row in shape.rows]
    bend = np.array([[0.04, -0.02], [-0.02, 0.07]])  # (u - v / 2)^2 of loss_of, and the bowl of init std
    flattest = np.linalg.eigh(bend)[1][:, 0]
    assert slopes == pytest.approx([flattest[1] / flattest[0]] * 4, abs=0.2)
    assert [panel.title for panel in part.panels] == [
        "SP, density 1", "SP, density 1/4", "SuPar, density 1", "SuPar, density 1/4",
    ]  # fmt: skip
    page = Page(text := report_html.render(pair))
    assert len(page.ids) == len(set(page.ids))
    assert "<image" not in text
    for panel in part.panels:
        assert "base learning rate" in panel.text
        assert "interval" in panel.text


def test_of_a_pair_what_is_not_identified_is_said_and_never_offered_as_an_optimum() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], **PAIR}, target=Target(width=128, density=1 / 4))

    def flat(trial: Trial) -> float:
        return float(2.1 + 0.04 * (np.log2(trial.lr) + 7.4) ** 2 + loss_of(trial.replace(lr=2.0**-7.4, init_std=0.08)))

    runs = runs_of(sweep, val_loss=flat)
    made = report(runs, sweep)
    assert made.verdict[0].lead == "Use with care"
    assert "(best of the values tried; not identified within" in made.verdict[0].text
    [unknown] = found(tables_of(runs, sweep), "groups_flat")
    assert unknown.numbers["field"] == "init_std"
    assert unknown.numbers["places"] == [{"scheme": "supar", "density": density} for density in (1, 1 / 4)]
    part = section(made, "lr x init std")
    assert {row[6] for row in part.tables[0].rows} == {"–"}
    assert "init std not identified within" in part.lines[0].text


def test_of_a_pair_a_range_that_is_left_open_may_exclude_what_is_recommended() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], **PAIR}, target=Target(width=128, density=1 / 4))
    tables = tables_of(runs_of(sweep, val_loss=pair_loss), sweep)
    assert "overlap, which does not show" in str(report_joint.schemes(tables)[0])
    sparse = tables.joint["density"] == 0.25
    low = {"init_std_low": 2.0**-6, "init_std_high": 2.0**-4.5, "status_init_std": "flat", "init_std_opt": np.nan}
    joint = tables.joint.assign(**{name: tables.joint[name].mask(sparse, value) for name, value in low.items()})
    tables = replace(tables, joint=joint)
    said = str(report_joint.schemes(tables)[0])
    assert "Intervals of the base learning rate overlap, which does not show that the optimum stays put." in said
    assert "The base init std is identified in one of 2 groups: nothing says whether it moves." in said
    assert "All intervals overlap" not in said
    assert tables.card is not None
    carried = {name: tables.card.base[name] for name in ("lr", "init_std")}
    doubt, unknown = of_elsewhere(joint.assign(status="flat"), ["density"], carried, {"density": 1.0})
    assert (doubt.code, unknown.code) == ("elsewhere_flat", "joint_unknown")
    assert doubt.numbers == {
        "field": "init_std",
        "at": {"density": 0.25},
        "used": tables.card.base["init_std"],
        "ends": [2.0**-6, 2.0**-4.5],
    }
    assert verdict_of(tables)[0].lead == "Use"
    doubtful = replace(tables.card, findings=[*tables.card.findings, asdict(doubt)])
    assert verdict_of(replace(tables, card=doubtful))[0].lead == "Use with care"


def test_of_a_pair_an_end_of_the_grid_is_a_bound() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], **PAIR, "lr": POWERS[:4]}, target=TARGET)
    found = concluded(runs_of(sweep, val_loss=pair_loss), sweep)
    assert found[0].startswith("Do not use as it is: ")
    assert "a bound, not an optimum: above 2^−" in found[0]


def test_a_pair_on_mixed_data_is_refused() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], **PAIR})
    found = report(runs_of(sweep, val_loss=pair_loss, data_hash=lambda t: "aa" if t.seed else "bb"), sweep)
    assert "2 different data sets" in nothing(found)


# --- a refinement ---


def refined(count: int) -> tuple[Sweep, pd.DataFrame, list[dict[str, Any]]]:
    """A refinement of which so many trials are stored, and where each group is."""
    sweep = sweep_of(grid={"density": [1.0, 1 / 4]}, search="refine", space={"lr": (2**-11, 2**-4)}, target=None)
    trials: list[Trial] = []
    runs = runs_of(sweep, [])
    while len(trials) < count and (new := search.proposed_trials(sweep, runs.to_dict("records"), [], limit=count)):
        trials += new[: count - len(trials)]
        runs = runs_of(sweep, trials)
    return sweep, runs, refine.refinement_records(sweep, runs.to_dict("records"))


def test_the_ledger_of_a_refinement_says_at_least_how_many_are_planned_and_where_each_group_is() -> None:
    sweep, runs, stages = refined(12)
    assert (
        ledger_of(runs, sweep, stages)["missing"].sum() == search.trial_total(sweep, runs.to_dict("records")) - 12 == 4
    )
    part = ledger(tables_of(runs, sweep, stages), left_out=0)
    assert "at least 16 planned, 12 done, 0 diverged, at least 4 missing" in part.text[0]
    assert [row[1:4] for row in rows_of(part.tables[1])] == [["coarse", "6", "at least 8"]] * 2
    [missing] = found(tables_of(runs, sweep, stages), "missing_at_least")
    assert missing.numbers == {"missing": 4, "planned": 16}


def test_a_refinement_at_its_end_lacks_nothing() -> None:
    sweep, runs, stages = refined(1000)
    part = ledger(tables_of(runs, sweep, stages), left_out=0)
    assert f"Of all trials: {len(runs)} planned, {len(runs)} done, 0 diverged." in part.text[0]
    assert [row[1] for row in rows_of(part.tables[1])] == ["ok", "ok"]
    assert not {"missing", "missing_at_least", "refining"} & set(codes(tables_of(runs, sweep, stages)))


def test_a_failed_trial_of_a_refinement_is_not_missing_as_well() -> None:
    sweep, runs, _ = refined(12)
    runs.loc[runs.index[0], "status"] = "failed"
    found = ledger_of(runs, sweep, refine.refinement_records(sweep, runs.to_dict("records")))
    assert found[["planned", "ok", "failed", "missing"]].sum().tolist() == [16, 11, 1, 4]


def test_without_its_stages_a_refinement_is_not_said_to_lack_anything() -> None:
    sweep, runs, _ = refined(12)
    part = ledger(tables_of(runs, sweep), left_out=0)
    assert "missing" not in part.tables[0].header
    assert "hpsweep plan says it" in part.text[1]
    assert not {"missing", "missing_at_least"} & set(codes(tables_of(runs, sweep)))


# --- tables ---


def test_provenance_says_what_made_the_rows_and_what_they_cost(made: Report) -> None:
    rows = dict(rows_of(section(made, "Provenance").tables[0]))
    assert rows["commit (+: and changes)"] == "0123456789ab+"
    assert rows["ensembles"] == "18"  # 144 trials in eights
    assert rows["wall time of all ensembles"] == "4 min 48 s"  # 144 x 2 s
    assert rows["FLOPs, zeros multiplied"] == "1.44 × 10^14"
    assert rows["data hash"] == "aa"
    assert section(made, "Provenance").code == (
        "hpsweep run made --results results",
        "hpsweep report results/made --save",
    )


def test_rows_that_different_devices_made_are_not_compared_in_silence() -> None:
    sweep = sweep_of(grid=SMALL)
    runs = runs_of(sweep, device=lambda trial: f"device {trial.seed}")
    [mixed] = found(tables_of(runs, sweep), "mixed")
    assert mixed.numbers == {"fields": ["device"]}


def plain(number: str) -> str:
    """With the hyphen that float() reads in the place of the minus sign of a page."""
    return number.replace("\N{MINUS SIGN}", "-")


def test_the_best_tuned_loss_of_every_scheme_stands_beside_the_transferred_one(made: Report) -> None:
    table = section(made, "Tuned against transferred").tables[0]
    rows = rows_of(table)
    assert [row[:3] for row in rows[:2]] == [["128", "1", "SP"], ["128", "1", "SuPar"]]
    for row in rows:
        tuned, moved, regret = float(row[3].split()[0]), float(row[5]), float(plain(row[7]).removeprefix("at least "))
        assert moved - tuned == pytest.approx(regret, abs=1.1e-3)


def test_the_error_beside_a_tuned_loss_is_that_of_this_loss() -> None:
    sweep = sweep_of()
    runs = runs_of(sweep)
    (table, *_) = section(report(runs, sweep), "Tuned against transferred").tables
    comparison = tuned_against_transferred(runs)
    errors = {(row["scheme"], row["density"]): row for row in comparison.to_dict("records")}
    for row in rows_of(table):
        own = errors[row[2].lower(), float(Fraction(row[1]))]
        assert row[3] == f"{own['tuned_loss']:.3f} ± {own['tuned_loss_se']:.3f}"
    assert "±: the standard error of that loss" in table.note


def test_every_table_has_as_many_cells_as_headings(made: Report) -> None:
    for part in made.sections:
        for table in part.tables:
            assert {len(row) for row in table.rows} == {len(table.header)}, table.caption


def test_every_status_of_the_analysis_has_a_kind() -> None:
    assert {"ok", "edge", "flat", "none", "stable", "moves", "undetermined"} <= KINDS.keys()


def test_a_long_table_is_cut_off_and_says_how_to_see_the_rest() -> None:
    grid = {"scheme": ["supar"], "width": [32 * k for k in range(1, 106)], "lr": [2.0**-8]}
    sweep = sweep_of(grid=grid, target=None)
    table = ledger(tables_of(runs_of(sweep), sweep), left_out=0).tables[0]
    assert len(table.rows) == 100
    assert table.note == "5 more rows: hpsweep status prints them all."


def test_a_constant_and_the_drift_are_judged_side_by_side_at_a_scale_held_out(made: Report) -> None:
    table = section(made, "Drift").tables[1]
    rows = {row[0]: row for row in rows_of(table)}
    assert rows["SP"][3] == "drift"  # its optimum moves
    constant, along = (float(rows["SP"][i]) for i in (5, 8))
    assert constant > 0.1 > along
    assert rows["SuPar"][3] != "drift"


def test_the_regret_matrix_is_drawn_and_printed_for_every_scheme(made: Report) -> None:
    part = section(made, "Tuned against transferred")
    assert [panel.name for panel in part.panels] == ["regret-lr-sp", "regret-lr-supar"]
    sp, supar = part.tables[1:]
    assert (sp.folded, supar.folded) == (True, True)
    assert sp.header == ("tuned at", "1", "1/4", "1/16")
    assert float(re.split(r" \[", plain(str(sp.rows[0][3])))[0].lstrip("~>")) > 0.1  # tuned dense, used at 1/16
    assert float(re.split(r" \[", plain(str(supar.rows[0][3])))[0].lstrip("~>")) < 0.02


def test_the_basin_of_every_group_is_in_octaves(made: Report) -> None:
    rows = rows_of(section(made, "Sensitivity").tables[0])
    for row in rows:
        assert float(row[3]) == pytest.approx(2 * np.sqrt(0.01 * 2.1 / 0.04), abs=0.25)  # of 0.04 per octave squared


# --- the law ---


def with_law(**found: Any) -> Tables:
    return Tables(runs=pd.DataFrame(), sweep=None, ledger=pd.DataFrame(), **found)


def test_a_law_stands_with_what_it_does_not_identify_its_bands_and_its_drawings() -> None:
    found = fit_law(made_cells(noise=0.002), resamples=60)
    part = law(with_law(law=found))
    assert part is not None
    numbers, held, budgets = part.tables
    assert [row[0] for row in numbers.rows] == [row["coefficient"] for row in found.intervals]
    weak = {str(row[0]) for row in numbers.rows if isinstance(row[1], Status) and row[1].word == "weak"}
    assert weak == {row["coefficient"] for row in found.weak}
    assert len(held.rows) == len(found.held_out)
    for row in budgets.rows:
        assert re.match(r"\[\d\.\d\d, \d\.\d\d\]", str(row[4])), "the band is never missing"
    assert len(part.panels) == 6
    page = report_html.render(Report(title="t", about="", verdict=(verdict_line(found),), sections=(part,)))
    assert Page(page).open == []
    assert verdict_line(found).lead == f"Scaling law: {found.status}"


def test_no_law_says_why_and_a_sweep_without_sizes_has_no_section() -> None:
    refused = law(with_law(refused={"law": "the cells have 2 distinct sizes"}))
    assert refused is not None
    assert refused.text == ("No law was fitted: the cells have 2 distinct sizes.",)
    assert law(with_law()) is None


# --- numbers as people read them ---


def test_numbers_are_set_as_people_read_them() -> None:
    assert setting(2.0**-7.55) == "0.00534 = 2^−7.55"
    assert power(2.0**-8) == "2^−8"
    assert powers(2.0**-8, 2.0**-7.5) == "2^−8 to 2^−7.50"
    assert powers(2.0**-8, np.nan) == "above 2^−8"
    assert powers(np.nan, 2.0**-8) == "below 2^−8"
    assert (signed(-0.001), signed(0.214), signed(np.nan)) == ("+0.00", "+0.21", "–")
    assert octave_interval(-0.16, 0.21) == "[−0.16, +0.21]"
    assert octave_interval(0.5, np.nan) == "+0.50 or more"
    assert (fixed(-0.0001, 3), fixed(np.nan, 3)) == ("0.000", "–")
    assert (scientific(1.44e14), scientific(12.0), scientific(-2e-9)) == ("1.44 × 10^14", "12", "−2.00 × 10^−9")
    assert (scientific(9.999e9), scientific(48362.0)) == ("1.00 × 10^10", "48,400")
    assert (loss_interval(0.016, -0.0004, 3), loss_interval(0.0, np.nan, 3)) == ("[0.016, 0.000]", "[0.000, ∞]")
    assert loss_interval(np.nan, np.nan, 3) == ""
    times = {0.25: "0.25 s", 5: "5 s", 90: "1 min 30 s", 5400: "1 h 30 min", 5e5: "5 days 18 h"}
    assert {seconds: duration(seconds) for seconds in times} == times
    assert typeset("interval [-0.73, 0.64] neither within +-0.25 at 2^-7, sub-line") == (
        "interval [−0.73, 0.64] neither within ±0.25 at 2^-7, sub-line"
    )


def test_sentences_that_differ_in_numbers_are_one_with_their_ranges() -> None:
    whys = [
        ("a", "curvature 0.02 ± 0.004 nats/octave^2 within 1 octave of 2^-7 (limit 25%)"),
        ("b", "minimum at the lowest lr 2^−8"),
        ("c", "curvature 0.005 ± 0.004 nats/octave^2 within 2 octaves of 2^-6 (limit 25%)"),
        ("d", "curvature 0.011 ± 0.001 nats/octave^2 within 1 octave of 2^-7 (limit 25%)"),
    ]
    assert merged_reasons(whys) == [
        ("curvature 0.011 to 0.02 ± 0.001 to 0.004 nats/octave^2 within 1 octave of 2^-7 (limit 25%)", ["a", "d"]),
        ("minimum at the lowest lr 2^−8", ["b"]),
        ("curvature 0.005 ± 0.004 nats/octave^2 within 2 octaves of 2^-6 (limit 25%)", ["c"]),
    ]
    assert merged_reasons([("a", "2^-7 within 30%"), ("b", "2^-6.5 within 4%")]) == [
        ("2^-7 to 2^-6.5 within 4% to 30%", ["a", "b"])
    ]
    assert typeset("1 octaves of 2^-7, 1.1 octaves, init_std flat") == "1 octave of 2^-7, 1.1 octaves, init std flat"
    assert (
        typeset("runs[runs.init_std == 1], 'init_std', lr,init_std")
        == "runs[runs.init_std == 1], 'init_std', lr,init_std"
    )


# --- the page ---


def test_many_places_and_long_tables_are_folded_wide_ones_use_the_window_and_links_lead_somewhere() -> None:
    places = [f"width {64 + i}" for i in range(9)]
    few = Line(kind="caution", lead="Why", text="1 nats/octave^2 at 2^-7", places=tuple(places[:2]))
    long = Table(caption="T", header=("a",) * 8, rows=(("1",) * 8,) * 25)
    tables = (long, replace(long, rows=long.rows[:24]))
    lines = (few, replace(few, places=tuple(places)))
    part = Section(title="All of it", text=("see [[All of it]]",), lines=lines, tables=tables)
    of = Report(title="t", about="", verdict=(), sections=(part,))
    text = report_html.render(of)
    page = Page(text)
    assert page.open == []
    assert text.count("<details>") == 2
    assert "<li>width 64; width 65: 1 nats/octave<sup>2</sup> at 2<sup>−7</sup>.</li>" in text
    assert "1 nats/octave<sup>2</sup> at 2<sup>−7</sup>:\n<details>\n<summary>9 places</summary>" in text
    assert all(f"<li>{where}</li>" in text for where in places)
    assert "<summary>T (25 rows)</summary>" in text
    assert text.count('<div class="wide">') == 2
    assert '<a href="#all-of-it">All of it</a>' in text
    markdown = report_md.render(of, FIGURES)
    assert "see [All of it](#all-of-it)" in markdown
    assert f"1 nats/octave^2 at 2^-7 (9 places: {'; '.join(places)})." in markdown


def test_every_link_of_the_page_leads_to_a_place_on_it() -> None:
    sweep = sweep_of(grid={**SMALL, "scheme": ["sp", "supar"]})
    runs = runs_of(sweep, val_loss=lambda trial: loss_of(trial) - 0.1 * (trial.scheme == "sp" and trial.density == 1))
    made = report(runs, sweep)
    assert "[[" not in " ".join(made.sentences), "of which none is a link"
    text = report_html.render(made)
    assert 'See <a href="#tuned-against-transferred">Tuned against transferred</a>' in text
    page = Page(text)
    assert {name.removeprefix("#") for name in page.refers if name.startswith("#")} <= set(page.ids)


def test_the_page_is_whole_and_refers_to_nothing_outside(made: Report) -> None:
    text = report_html.render(made)
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.refers, "links and uses"
    for reference in page.refers:
        assert reference.startswith("#"), reference
        assert reference[1:] in page.ids
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    assert 'name="viewport"' in text
    assert len(text) < 1_000_000


def test_every_drawing_says_in_words_what_it_shows(made: Report) -> None:
    assert [panel.name.split("-")[0] for panel in made.panels] == ["loss", "loss", "path", "regret", "regret"]
    for panel in made.panels:
        assert f'<desc id="{panel.name}-text">{panel.text}</desc>' in panel.svg.replace("&#x27;", "'")
        assert 'role="img"' in panel.svg
    assert "density 1: lowest at 0.00" in made.panels[0].text


def test_the_same_runs_give_the_same_bytes_in_any_order(made: Report, tmp_path: Path) -> None:
    sweep = sweep_of()
    again = report(runs_of(sweep).sample(frac=1, random_state=1), sweep, folder="results/made")
    assert report_html.render(again) == report_html.render(made)
    assert report_md.render(again, FIGURES) == report_md.render(made, FIGURES)


def test_names_of_people_s_own_are_escaped() -> None:
    line = Line(kind="bad", lead="<b>", text="a < b & 2^−3 | c")
    table = Table(caption="<i>", header=("a (<u>)",), rows=(("x|y <s>",),))
    panel = Panel(name="p", title="<p>", text="t", svg="<svg></svg>\n")
    part = Section(title="S", text=("<em>",), lines=(line,), tables=(table,), panels=(panel,), code=("a < b",))
    of = Report(title="<script>", about="&", verdict=(line,), sections=(part,))
    text = report_html.render(of)
    assert Page(text).open == []
    assert not re.search(r"<(script|b|i|u|s|em)>", text)
    assert "2<sup>−3</sup>" in text
    assert "x\\|y \\<s\\>" in report_md.render(of, FIGURES)


def test_colour_is_never_alone(made: Report) -> None:
    text = report_html.render(made)
    for kind, word in (("good", "stable"), ("bad", "moves"), ("good", "ok")):
        mark = f'<span class="mark" aria-hidden="true">{report_html.SHAPES[kind]}</span>'
        assert f'<span class="status {kind}">{mark}{word}</span>' in text
    assert len(set(report_html.SHAPES.values())) == len(report_html.SHAPES)


def test_markdown_has_the_content_of_the_page(made: Report, tmp_path: Path) -> None:
    page, text = made.save(tmp_path)
    markdown = text.read_text()
    assert page.name == "report.html"
    for line in made.verdict:
        assert line.text.replace("<", "\\<").split("[[")[0] in markdown  # up to a link
    for part in made.sections:
        assert f"## {part.title}" in markdown
        for table in part.tables:
            header = "| " + " | ".join(table.header) + " |"
            assert header in markdown
            assert all(len(re.findall(r"(?<!\\)\|", row)) == len(table.header) + 1
                       for row in markdown.split(header)[1].split("\n\n")[0].splitlines() if row)  # fmt: skip
    links = re.findall(r"\]\((.*?\.svg)\)", markdown)
    assert len(links) == len(made.panels)
    assert all((tmp_path / link).is_file() for link in links)


def test_drawings_of_a_former_report_do_not_stay(made: Report, tmp_path: Path) -> None:
    (tmp_path / FIGURES).mkdir()
    (tmp_path / FIGURES / "old.svg").write_text("")
    made.save(tmp_path)
    assert sorted(path.stem for path in (tmp_path / FIGURES).iterdir()) == sorted(p.name for p in made.panels)


def test_a_sweep_with_one_long_name_of_an_axis_is_drawn_and_named_once() -> None:
    sweep = sweep_of(grid={"scheme": ["supar"], "density": [1.0, 0.25], "width": [64, 128], "lr": POWERS})
    found = report(runs_of(sweep), sweep)
    names = [panel.name for panel in found.panels]
    assert len(names) == len(set(names)) == 9  # curves and paths along either axis at two values of the other; regret
    assert json.dumps(names).isascii()
