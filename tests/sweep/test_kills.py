"""A run with a real engine, in its default packing, that is killed again and again gets on with every round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpsweep import store
from hpsweep.proxy import native
from tests import fake_training as fake
from tests import processes

EXPERIMENT = """
from hpsweep.spec import Sweep, Trial

BASE = Trial(
    data="text:data.txt", width=64, base_width=64, depth=1, head_size=16, context=32, batch=8, steps=160,
    eval_sequences=32,
)
LRS = [2.0**k for k in range(-10, -2)]
SWEEP = Sweep(name="killed", base=BASE, grid={"density": [1, 1 / 8], "lr": LRS, "seed": list(range(20))})
"""

ENGINES = [
    pytest.param("native", marks=pytest.mark.skipif(native.why_unavailable() is not None, reason="needs a C compiler")),
    "torch",
]


def test_a_run_that_is_killed_twice_has_stored_more_each_time(tmp_path: Path) -> None:
    killed_as_soon_as_it_has_stored_anything(tmp_path, "torch", 2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_is_killed_twelve_times_has_stored_more_each_time(tmp_path: Path, engine: str) -> None:
    killed_as_soon_as_it_has_stored_anything(tmp_path, engine, 12)


def killed_as_soon_as_it_has_stored_anything(tmp_path: Path, engine: str, kills: int) -> None:
    fake.sweep(tmp_path)  # its text
    (tmp_path / "killed.py").write_text(EXPERIMENT)
    folder, sizes = tmp_path / "results" / "killed", [0]
    words = ["run", "killed.py", "--engine", engine, "--workers", "2", "--device", "cpu"]  # a GPU trains all at once
    for _ in range(kills):
        line = [sys.executable, "-m", "hpsweep", *words]
        driver = processes.start(line, cwd=tmp_path, env=fake.environment(), stderr=subprocess.PIPE)
        fake.wait_for(lambda: store.read_runs(folder).num_rows > sizes[-1] or driver.poll() is not None)  # noqa: B023
        assert driver.poll() is None, driver.communicate()[1]
        driver.kill()
        _, err = driver.communicate()
        assert "Traceback" not in err
        sizes.append(store.read_runs(folder).num_rows)
    assert sizes[-1] < 320, "it was killed in the middle"
    ids = store.read_runs(folder)["trial_id"].to_pylist()
    assert len(ids) == len(set(ids)) == sizes[-1]
