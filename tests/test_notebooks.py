"""The notebooks on every published folder: their cells run here, and a section that does not apply says so."""

from __future__ import annotations

import json
import os

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from tests.paths import ROOT

REFERENCE = ROOT / "results" / "reference"
FOLDERS = sorted(path.name for path in REFERENCE.iterdir() if (path / "runs").is_dir())

ABSENT = {
    "transfer": {
        "scaling_law": "No card here: the runs of the group scheme supar",
        "wide_sparse": "No card here: no supar run has width 64 and density 1",
        "narrow_dense": "No path of an optimum here",
        "lr_by_init_std": "No path of an optimum here",
        "warmup": "No card here",
    },
    "optimum_stability": {
        "narrow_dense": "No drift here: the runs have one density.",
        "wide_sparse": "No drift here: the runs have one density.",
    },
}
"""Sentences that say what a folder does not have."""


def said_by(name: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the cells of a notebook print, run one after another."""
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setenv("HPSWEEP_RESULTS", os.path.relpath(REFERENCE / folder))
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    shell = InteractiveShell()
    with capture_output() as captured:
        for cell in cells:
            if cell["cell_type"] == "code":
                lines = [line for line in cell["source"] if not line.startswith("%")]  # how a browser shows figures
                shell.run_cell("".join(lines)).raise_error()
    return str(captured.stdout)


OWN = {"transfer": "lr_by_width_and_density", "optimum_stability": "lr_by_density"}
"""What each reads when nothing is said, which make notebooks-check executes."""


FEW = (("transfer", "narrow_dense"), ("transfer", "scaling_law"), ("optimum_stability", "narrow_dense"))
"""The short form: folders of one width, without a card, and of one density."""


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        pytest.param(name, folder, marks=() if (name, folder) in FEW else pytest.mark.slow)
        for name in OWN
        for folder in FOLDERS
        if folder != OWN[name]
    ],
)
def test_a_notebook_runs_on_every_published_folder(name: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = said_by(name, folder, monkeypatch)
    assert folder in said
    assert ABSENT[name].get(folder, "") in said
