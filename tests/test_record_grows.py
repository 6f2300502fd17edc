"""A field that is added to the record of a trial: stored runs keep their ids, and are read and fitted as before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
FOLDERS = sorted(path.name for path in REFERENCE.iterdir() if (path / "runs").is_dir())

FIELD = '    smoothing: float = _field(0.2, "label smoothing", "fraction", "[0, 1)", before=0.1)\n'
PLACE = "    clip: float"

PROGRAM = """
import json, sys, warnings
from pathlib import Path
import hpsweep as hp
from hpsweep import store
from hpsweep.analysis.groups import varying
from hpsweep.cli_inputs import stored_sweep
from hpsweep.schema import RUNS
from hpsweep.spec import TUNED, Trial, trial_from_row
from hpsweep.sweep.search import propose
from hpsweep.trial_ids import trial_ids

warnings.simplefilter("ignore")
said = {"package": hp.__file__, "columns": RUNS.names, "new": Trial(steps=1).resolved, "folders": {}}
for folder in map(Path, sys.argv[1:]):
    table, runs, sweep = store.read_runs(folder), hp.load(folder), stored_sweep(folder)
    over = next(name for name in TUNED if runs[name].nunique() > 2)
    by = varying(runs, without=(over,))
    stored = table["trial_id"].to_pylist()
    said["folders"][folder.name] = {
        "search": sweep.search,
        "ids": stored,
        "made again": trial_ids(table),
        "of their trials": [trial_from_row(row).trial_id for row in table.to_pylist()],
        "next": [trial.trial_id for trial in propose(sweep, table.to_pylist(), (), limit=10)],
        "smoothing": sorted(set(runs["smoothing"])) if "smoothing" in runs else None,
        "optima": hp.optima(runs, by, over=over, resamples=20).to_json(),
    }
print(json.dumps(said))
"""


def said_with(package: Path) -> dict[str, object]:
    words = [sys.executable, "-c", PROGRAM, *(str(REFERENCE / name) for name in FOLDERS)]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=package, env=environment)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose record has one field more."""
    place = tmp_path_factory.mktemp("grown")
    shutil.copytree(ROOT / "hpsweep", place / "hpsweep", ignore=shutil.ignore_patterns("__pycache__"))
    record = place / "hpsweep" / "spec.py"
    text = record.read_text()
    assert text.count(PLACE) == 1
    record.write_text(text.replace(PLACE, FIELD + PLACE))
    return place


def test_a_field_more_changes_no_stored_id_no_plan_and_no_optimum(grown: Path) -> None:
    before, after = said_with(ROOT), said_with(grown)
    assert Path(str(after["package"])).is_relative_to(grown)
    assert set(after["columns"]) - set(before["columns"]) == {"smoothing"}  # type: ignore[call-overload]
    assert after["new"]["smoothing"] == 0.2  # type: ignore[index]
    for name in FOLDERS:
        old, new = before["folders"][name], after["folders"][name]  # type: ignore[index]
        assert new["ids"] == new["made again"] == new["of their trials"] == old["ids"], name
        assert new["next"] == old["next"], name
        assert not new["next"] or new["search"] == "refine", name  # whose rules may ask for more than they did
        assert (old["smoothing"], new["smoothing"]) == (None, [0.1]), name
        assert new["optima"] == old["optima"], name
