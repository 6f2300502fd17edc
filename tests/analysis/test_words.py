"""The words of findings, on the pages that show them: python -m tests.analysis.test_words writes words/*.txt anew.

Tests elsewhere ask for codes and numbers. These three pages hold the wording, to be read as a user reads it.
"""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import hpsweep as hp
from hpsweep.analysis import findings
from hpsweep.analysis.findings import REMEDIES, WORDS, Finding
from hpsweep.analysis.report.parts import ReportData
from hpsweep.analysis.report.tables import tables_of
from hpsweep.analysis.report.verdict import verdict_of
from hpsweep.cli.inputs import stored_sweep
from tests.analysis.report.test_report import POWERS, loss_of, runs_of, sweep_of
from tests.analysis.transfer.test_transfer import BASE, card_of
from tests.paths import ROOT

KEPT = Path(__file__).parent / "words"
REFERENCE = ROOT / "results" / "reference" / "lr_by_density"


def verdict(runs: pd.DataFrame, sweep: hp.Sweep | None) -> str:
    """The sentences with which the report begins, a line each."""
    made = ReportData(title="", about="", verdict=verdict_of(tables_of(runs, sweep)))
    return "\n".join([*made.sentences, ""])


def report_of_lr_by_density() -> str:
    return verdict(hp.load(REFERENCE), stored_sweep(str(REFERENCE)))


def report_with_many() -> str:
    """The report on a sweep of which much is wrong: trials missing, failed and diverged, few values, two devices."""
    sweep = sweep_of(
        grid={"scheme": ["sp", "supar"], "width": [64, 128], "density": [1.0, 1 / 4], "lr": POWERS, "seed": [0, 1]},
        target=hp.Target(width=1024, density=1 / 64, depth=4, head_size=32),
    )
    trials = [trial for trial in sweep.trials if not (trial.scheme == "sp" and trial.seed == 1)]

    def status(trial: hp.Trial) -> str:
        if trial.lr == POWERS[0]:
            return "failed"
        return "diverged" if trial.density < 1 and trial.width == 64 and trial.lr > POWERS[2] else "ok"

    runs = runs_of(
        sweep, trials, status=status, device=lambda trial: f"device {trial.seed}",
        val_loss=lambda trial: loss_of(trial) - 0.1 * (trial.scheme == "sp" and trial.width == 128),
    )  # fmt: skip
    return verdict(runs, sweep)


def card() -> str:
    """The warnings of a card of sp, far from its proxy."""
    made = card_of(hp.Target(width=4096, density=1 / 1024, depth=4), "sp", BASE.replace(weight_decay=0.1), seed=[0])
    return "\n".join([*made.warnings, ""])


PAGES: dict[str, Callable[[], str]] = {
    "report_of_lr_by_density": report_of_lr_by_density,
    "report_with_many": report_with_many,
    "card": card,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_words_of_a_page_are_those_that_are_kept(name: str) -> None:
    assert PAGES[name]() == (KEPT / f"{name}.txt").read_text(encoding="utf-8")


def test_every_word_is_of_a_code_that_something_produces() -> None:
    sources = [path for path in Path(inspect.getfile(hp)).parent.rglob("*.py") if path.stem != "findings"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    statuses = {"edge", "flat", "none"}
    for code in WORDS:
        parts = code.rpartition("_")
        made = f'"{code}"' in text or (parts[2] in statuses and f'f"{parts[0]}_{{status}}"' in text)
        made |= code in ("moves", "undetermined")  # verdicts of a drift
        assert made, code
    assert REMEDIES.keys() <= WORDS.keys()


def test_a_remedy_names_nothing_that_its_sentence_lacks_but_what_to_add() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for code, text in REMEDIES.items():
        assert fields(text) <= fields(WORDS[code]) | {"add"}, code


def test_a_count_has_the_word_for_one_or_for_many_and_a_missing_number_is_none() -> None:
    one, many = (Finding(code="failed", numbers={"failed": count}) for count in (1, 3))
    assert str(one).startswith("Incomplete: 1 trial failed and is excluded.")
    assert str(many).startswith("Incomplete: 3 trials failed and are excluded.")
    assert Finding(code="elsewhere_edge", numbers={"ends": [1.0, float("nan")]}).numbers == {"ends": [1.0, None]}


def test_no_sentence_of_a_finding_is_written_anywhere_else() -> None:
    sources = [path for path in Path(inspect.getfile(hp)).parent.rglob("*.py") if path != Path(findings.__file__)]
    for code, text in WORDS.items():
        longest = max(re.split(r"\{[^}]*\}", text), key=len).strip()
        if len(longest.split()) > 5:
            assert not [path for path in sources if longest in path.read_text(encoding="utf-8")], code


if __name__ == "__main__":
    for name, page in PAGES.items():
        (KEPT / f"{name}.txt").write_text(page(), encoding="utf-8")
