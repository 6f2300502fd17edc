"""The published results are those of the experiments beside them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from hpsweep import store
from hpsweep.cli.inputs import load_experiment
from hpsweep.sweep.search import proposed_trials
from tests.paths import ROOT

PUBLISHED = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if (ROOT / "results" / "reference" / path.stem / "runs").is_dir()
)


def test_every_published_figure_is_a_picture() -> None:
    for path in (ROOT / "results" / "reference").rglob("*.png"):
        assert plt.imread(path).size > 0, path


@pytest.mark.parametrize("name", PUBLISHED)
def test_stored_trials_are_those_of_the_experiment_and_none_is_missing(name: str) -> None:
    sweep = load_experiment(str(ROOT / "experiments" / f"{name}.py"))
    stored = store.read_runs(ROOT / "results" / "reference" / name).to_pylist()
    if sweep.search == "grid":
        assert {row["trial_id"] for row in stored} == {trial.trial_id for trial in sweep.trials}
    assert not proposed_trials(sweep, stored, (), limit=10)
