"""Which engine trains, and what is said of it; a stand-in takes the place of the native one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpsweep import store
from hpsweep.cli import main
from hpsweep.rules.count import flops_dense, flops_sparse, size_columns
from hpsweep.spec import Trial
from hpsweep.sweep import engine
from hpsweep.sweep.engine import Serving, serving_engine
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.packing import Cost
from hpsweep.sweep.run import run_sweep
from hpsweep.sweep.worker import ENGINES
from tests import fake_training as fake
from tests.sweep.test_run import Quiet

BASE, LONG = Trial(steps=1), "context 128 is above 64"
NO_COMPILER = "no C compiler was found (cc)"


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The native engine, which can serve; `.why` says why not."""
    made = SimpleNamespace(
        why=None, why_unavailable=lambda: made.why, why_unsupported=lambda t: LONG if t.context > 64 else None
    )
    monkeypatch.setattr(engine, "native", made)
    return made


def test_the_native_engine_serves_on_a_cpu_where_it_can(native: SimpleNamespace) -> None:
    assert serving_engine(ENGINES["auto"], "cpu", [BASE]) == Serving("native")
    assert serving_engine(ENGINES["native"], "cpu", [BASE]) == Serving("native")
    assert (
        serving_engine(ENGINES["torch"], "cpu", [BASE])
        == serving_engine(ENGINES["auto"], "cuda", [BASE])
        == Serving("torch")
    )
    native.why = NO_COMPILER + "."
    assert serving_engine(ENGINES["auto"], "cpu", [BASE]) == Serving("torch", NO_COMPILER)
    assert (
        serving_engine(ENGINES["torch"], "cpu", [BASE])
        == serving_engine(ENGINES["auto"], "cuda", [BASE])
        == Serving("torch")
    )
    assert serving_engine(fake.TRAIN, "cpu", [BASE]) == Serving("torch")


@pytest.mark.usefixtures("native")
def test_trials_that_the_native_engine_hands_over_are_said() -> None:
    long = BASE.replace(context=128)
    assert serving_engine(ENGINES["auto"], "cpu", [BASE, long]) == Serving("native", LONG)
    assert serving_engine(ENGINES["auto"], "cpu", [long]) == Serving("torch", LONG)
    with pytest.raises(ValueError, match="engine is native, which cannot serve here: context 128 is above 64; use"):
        serving_engine(ENGINES["native"], "cpu", [BASE, long])


def test_an_engine_that_cannot_serve_is_refused(native: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="engine is native, which trains on a CPU, and device is cuda; use"):
        serving_engine(ENGINES["native"], "cuda", [BASE])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert serving_engine(ENGINES["auto"], "cpu", [BASE]).engine == "native"  # without torch
    for train, device in (("torch", "cpu"), ("auto", "cuda")):
        with pytest.raises(ValueError, match="training needs torch, which"):
            serving_engine(ENGINES[train], device, [BASE])
    native.why = NO_COMPILER
    with pytest.raises(ValueError, match=r"engine is native, which cannot serve here: no C compiler .*; use engine"):
        serving_engine(ENGINES["native"], "cpu", [BASE])
    with pytest.raises(ValueError, match=r"training needs torch \(no C compiler was found \(cc\)\), which"):
        serving_engine(ENGINES["auto"], "cpu", [BASE])


def test_a_run_says_once_that_torch_serves_and_why_and_only_if_there_is_something_to_train(
    tmp_path: Path, native: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.why = NO_COMPILER
    monkeypatch.setitem(ENGINES, "auto", "no_such_module:train")  # no worker is left to find out
    monkeypatch.setitem(ENGINES, "torch", fake.TRAIN)
    for messages in ([f"the torch engine trains: {NO_COMPILER}."], []):
        reporter = Quiet()
        run_sweep(fake.sweep(tmp_path), tmp_path / "results", train=ENGINES["auto"], device="cpu", reporter=reporter)
        assert reporter.messages == messages


def test_a_native_engine_that_cannot_serve_is_refused_before_the_folder_is_made(
    tmp_path: Path, native: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    native.why = NO_COMPILER
    fake.experiment(tmp_path)
    monkeypatch.chdir(tmp_path)
    for verb in ("run", "plan"):
        assert main([verb, "fake", "--engine", "native", "--device", "cpu"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("hpsweep: engine is native, which cannot serve here")
        assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("native")
def test_the_command_trains_with_the_engine_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.experiment(tmp_path, grid={"lr": [2.0**-8]})
    fake.order(tmp_path, seconds=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ENGINES, "auto", "no_such_module:train")
    monkeypatch.setitem(ENGINES, "torch", fake.TRAIN)
    words = ["fake", "--engine", "torch", "--device", "cpu", "--workers", "1"]
    assert main(["plan", *words]) == 0
    assert "1 ensemble on 1 worker (cpu, torch engine)" in capsys.readouterr().out
    assert main(["run", *words]) == 0
    assert "1 of 1 trial stored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("contexts", "why", "said"),
    [
        ([8], None, "native engine)"),
        ([8, 128], None, f"native engine; torch for some: {LONG})"),
        ([128], None, f"torch engine: {LONG})"),
        ([8], NO_COMPILER, f"torch engine: {NO_COMPILER})"),
    ],
)
def test_a_plan_says_which_engine_serves_and_why_not_native(
    tmp_path: Path,
    native: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    contexts: list[int],
    why: str | None,
    said: str,
) -> None:
    native.why = why
    fake.experiment(tmp_path, grid={"lr": [2.0**-8], "context": contexts})
    monkeypatch.setitem(ENGINES, "auto", fake.TRAIN)
    fake.order(tmp_path, seconds=0)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "fake", "--device", "cpu", "--workers", "1"]) == 0
    assert f"on 1 worker (cpu, {said}" in capsys.readouterr().out


@pytest.mark.usefixtures("native")
def test_a_plan_for_the_native_engine_packs_and_times_by_the_work_that_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fake.sweep(tmp_path, grid={"density": [1.0, 1 / 64], "lr": [2.0**k for k in range(-12, -4)]})
    options: dict[str, Any] = {"workers": 2, "device": "cpu", "probe": False}
    planned = plan(sweep, tmp_path / "results", train=ENGINES["native"], **options)
    assert (planned["engine"], planned["ensembles"]) == ("native", 2)  # so small that each worker gets one
    done = [trial for trial in sweep.trials if trial.density == 1.0]
    rows = [
        {**fake.row(t, 1, 1.0, "cpu"), **size_columns(t, 256), "engine": "native", "finished_at": datetime.now(UTC)}
        for t in done
    ]
    store.append(tmp_path / "results" / "fake", rows)
    planned = plan(sweep, tmp_path / "results", train=ENGINES["native"], **options)
    data = SimpleNamespace(vocabulary=256)
    work = Cost({sweep.base.data: data}, "native")  # type: ignore[dict-item]
    left = sum(work(trial) for trial in sweep.trials if trial not in done)
    (shape,) = planned["shapes"]
    assert shape["flops_missing"] == left < sum(map(work, done))
    assert shape["flops_sparse"] == sum(flops_sparse(trial, 256) for trial in sweep.trials)
    assert shape["flops_dense"] == sum(flops_dense(trial, 256) for trial in sweep.trials)
    assert planned["seconds"] == pytest.approx(left / work(done[0]) / planned["ensembles"])
    assert plan(sweep, tmp_path / "results", train=ENGINES["torch"], **options)["seconds"] is None


USELESS = {"torch", "jaxtyping", "pandas", "pyarrow", "ray", "optuna", "rich", "matplotlib", "scipy"}


@pytest.mark.skipif(engine.native.why_unavailable() is not None, reason="the native engine cannot be built here")
def test_a_worker_imports_only_what_it_uses(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom hpsweep.sweep.local import serve_ensembles\n"
        "from hpsweep.sweep.worker import attempt_ensemble, prepare_worker\nfrom tests import fake_training as fake\n"
        f"prepare_worker({ENGINES['auto']!r}, 'cpu')\ntrials = fake.sweep(Path({str(tmp_path)!r})).trials[:2]\n"
        f"(row, _) = attempt_ensemble({ENGINES['auto']!r}, trials, 'cpu', print).rows\n"
        f"assert row['engine'].startswith('native'), row\nsys.exit(', '.join({USELESS!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=fake.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["", "import torch"])
def test_torch_has_one_thread_in_a_cpu_worker_whenever_it_is_imported(first: str) -> None:
    code = f"{first}\nfrom hpsweep.sweep.worker import prepare_worker\nprepare_worker({ENGINES['auto']!r}, 'cpu')\n"
    code += "import torch; print(torch.get_num_threads())"
    environment = {**fake.environment(), "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "1\n"
