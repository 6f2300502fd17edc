"""A machine that says it has a GPU: the commands find it, and all goes through. The whole: `make test-as-on-gpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hpsweep import store
from tests.paths import ROOT

SWEEP = """
from hpsweep.spec import Sweep, Trial
base = Trial(width=16, depth=1, head_size=16, context=16, batch=2, steps=3, eval_sequences=8)
SWEEP = Sweep(name="small", base=base, grid={"lr": [2.0**-k for k in range(6, 12)]})
"""


def hpsweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    gpu = ROOT / "tests" / "as_on_gpu"
    environment = {
        **os.environ,
        "PATH": f"{gpu}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(gpu), str(ROOT)]),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    line = [sys.executable, "-m", "hpsweep", *words]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_a_sweep_is_planned_and_trained_on_a_gpu_where_the_machine_says_that_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SWEEP)
    planned = json.loads(hpsweep(tmp_path, "plan", "small.py", "--tflops", "1", "--json").stdout)
    assert (planned["device"], planned["workers"], planned["engine"]) == ("cuda", 1, "torch")
    assert planned["ensembles"] == 1
    done = hpsweep(tmp_path, "run", "small.py")
    assert "cannot use" not in done.stderr
    runs = store.load(tmp_path / "results" / "small")
    assert list(runs["status"]) == ["ok"] * 6
    assert set(runs["ensemble_size"]) == {6}
