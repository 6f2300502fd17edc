"""Fields that are added to the record of a trial: stored runs keep their ids, and are read and fitted as before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

REFERENCE = ROOT / "results" / "reference"
FOLDERS = sorted(path.name for path in REFERENCE.iterdir() if (path / "runs").is_dir())

FIELDS = """\
    smoothing: float = field(0.2, "label smoothing", "fraction", "[0, 1)", before=0.1)
    groups: int = field(2, "groups of heads", "", "[1, 64]", before=4)
    rotary: bool = field(False, "positions are rotated", before=True)
    activation: Literal["relu", "gelu"] = field("relu", "relu or gelu", before="gelu")
"""
NEW = {"smoothing": 0.2, "groups": 2, "rotary": False, "activation": "relu"}
OLD = {"smoothing": 0.1, "groups": 4, "rotary": True, "activation": "gelu"}
PLACE = "    clip: float"

PROGRAM = """
import json, sys, warnings
from pathlib import Path
import hpsweep as hp
from hpsweep import store
from hpsweep.analysis.transfer.card_trial import card_trial, check_card
from hpsweep.analysis.optimum.searched import varying_fields
from hpsweep.cli.inputs import stored_sweep
from hpsweep.schema import RUNS
from hpsweep.spec import TUNED, Trial, trial_from_row
from hpsweep.sweep.search import proposed_trials
from hpsweep.trial_ids import trial_ids

warnings.simplefilter("ignore")
said = {"package": hp.__file__, "columns": RUNS.names, "new": Trial(steps=1).resolved, "folders": {}, "cards": {}}
names = json.loads(sys.argv[1])
fields = [name for name in names if name in RUNS.names]
for folder in map(Path, sys.argv[2:]):
    table, runs, sweep = store.read_runs(folder), hp.load(folder), stored_sweep(folder)
    over = next(name for name in TUNED if runs[name].nunique() > 2)
    by = varying_fields(runs, without=(over,))
    stored = table["trial_id"].to_pylist()
    said["folders"][folder.name] = {
        "search": sweep.search,
        "ids": stored,
        "made again": trial_ids(table),
        "of their trials": [trial_from_row(row).trial_id for row in table.to_pylist()],
        "next": [trial.trial_id for trial in proposed_trials(sweep, table.to_pylist(), (), limit=10)],
        "fields": [{name: row[name] for name in fields} for row in runs[fields].drop_duplicates().to_dict("records")],
        "optima": hp.optima(runs, by, over=over, resamples=20).to_json(),
    }
    for path in sorted(folder.glob("card*.json")):
        card = hp.Card.read(path)
        trial = card_trial(card, steps=100)
        check_card(card, trial)
        said["cards"][f"{folder.name}/{path.name}"] = {name: trial.resolved[name] for name in fields}
    if folder.name == "lr_by_density":
        card = hp.transfer(runs, sweep.target, resamples=20)
        trial = card_trial(card, steps=100)
        said["cards"]["made"] = {name: trial.resolved[name] for name in fields}
        rows = runs[runs["density"] == 1].assign(density=card.target["density"], width=card.target["width"])
        rows = rows.assign(**{name: card.target[name] for name in ("depth", "head_size", "context", "vocabulary")})
        for name in fields:
            other = rows.assign(**{name: Trial(steps=1).resolved[name]})
            try:
                hp.regret(other, resamples=20, card=card)
            except ValueError as error:
                said["cards"][f"refused {name}"] = str(error)
print(json.dumps(said))
"""


def said_with(package: Path) -> dict[str, object]:
    words = [sys.executable, "-c", PROGRAM, json.dumps([*NEW]), *(str(REFERENCE / name) for name in FOLDERS)]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=package, env=environment)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose record has some fields more."""
    place = tmp_path_factory.mktemp("grown")
    shutil.copytree(ROOT / "hpsweep", place / "hpsweep", ignore=shutil.ignore_patterns("__pycache__"))
    record = place / "hpsweep" / "spec" / "trial.py"
    text = record.read_text()
    assert text.count(PLACE) == 1
    record.write_text(text.replace(PLACE, FIELDS + PLACE))
    card = place / "hpsweep" / "analysis" / "transfer" / "card.py"
    text = card.read_text()
    assert text.count("CARD_VERSION = 5") == 1
    card.write_text(text.replace("CARD_VERSION = 5", "CARD_VERSION = 6"))
    return place


def test_fields_more_change_no_stored_id_no_plan_and_no_optimum(grown: Path) -> None:
    before, after = said_with(ROOT), said_with(grown)
    assert Path(str(after["package"])).is_relative_to(grown)
    assert set(after["columns"]) - set(before["columns"]) == set(NEW)  # type: ignore[call-overload]
    assert {name: after["new"][name] for name in NEW} == NEW  # type: ignore[index]
    for name in FOLDERS:
        old, new = before["folders"][name], after["folders"][name]  # type: ignore[index]
        assert new["ids"] == new["made again"] == new["of their trials"] == old["ids"], name
        assert new["next"] == old["next"], name
        assert not new["next"] or new["search"] == "refine", name  # whose rules may ask for more than they did
        assert new["fields"] == [OLD], name
        assert new["optima"] == old["optima"], name
    cards: dict[str, object] = after["cards"]  # type: ignore[assignment]
    for name in NEW:  # a target that was trained otherwise is not that of the card
        assert f"the card's target has {name} {OLD[name]}" in str(cards.pop(f"refused {name}"))
    assert cards.keys() == before["cards"].keys()  # type: ignore[attr-defined]
    assert len(cards) > 5
    for name, fields in cards.items():
        assert fields == OLD, name


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ('span: int | None = field(None, "", "", "[1, 9]", before=4)', "Trial.span may be None, which is not stored"),
        ('span: int = field(1, "", before=4)', "Trial.span is a number without a range"),
        ('span: int = field(1, "", "", "[1, 3]", before=4)', "span is 4; allowed: whole numbers in [1, 3]"),
        ('span: int = field(1, "", "", "[1, 9]", before=None)', "span is None; give a finite whole number"),
    ],
)
def test_a_field_that_the_store_could_not_keep_is_refused_where_it_is_declared(
    field: str, told: str, tmp_path: Path
) -> None:
    package = tmp_path / "hpsweep"
    package.mkdir()
    shutil.copytree(ROOT / "hpsweep" / "spec", package / "spec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "hpsweep" / "architectures", package / "architectures")
    for name in ("schemes.py", "text.py", "running_trial.py"):
        shutil.copy(ROOT / "hpsweep" / name, package)
    (package / "__init__.py").touch()
    record = package / "spec" / "trial.py"
    record.write_text(record.read_text().replace(PLACE, f"    {field}\n{PLACE}"))
    done = subprocess.run(
        [sys.executable, "-c", "import hpsweep.spec"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert told in done.stderr
