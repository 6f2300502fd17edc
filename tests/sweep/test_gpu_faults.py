"""A GPU that fails under a sweep, that is shared, or that torch cannot use, on a machine without one."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsweep import store
from hpsweep.proxy import gpu
from hpsweep.spec import Sweep
from hpsweep.sweep import local, queue, worker
from hpsweep.sweep.engine import serving_engine
from hpsweep.sweep.estimate import plan
from hpsweep.sweep.execute import worker_place
from hpsweep.sweep.progress import Lines
from hpsweep.sweep.run import run_sweep
from hpsweep.sweep.worker import Failure, attempt_ensemble
from tests import fake_training as fake


class Said(Lines):
    """What a run says, kept."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def show(self, status: Any, *, finished: bool) -> None:
        """Nothing."""


def sixty_four(folder: Path) -> Sweep:
    return fake.sweep(folder, grid={"lr": [2.0**k for k in range(-12, -4)], "seed": list(range(8))})


def trained(sweep: Sweep, folder: Path, workers: int = 1) -> tuple[Any, list[str]]:
    """The summary of a run in ensembles of eight, and what it said."""
    reporter = Said()
    summary = run_sweep(
        sweep, folder / "results", workers=workers, ensemble_size=8, device="cpu", train=fake.TRAIN, reporter=reporter
    )
    return summary, reporter.said


@pytest.fixture
def nothing_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make test-as-on-gpu` replaces is what it is elsewhere, for tests of just that."""
    for module, name in ((local, "_torch_sees"), (worker, "prepare_worker")):
        monkeypatch.setattr(module, name, inspect.unwrap(getattr(module, name)))


# --- a GPU that fails ---


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_of_the_gpu_in_one_of_eight_ensembles_costs_no_trial(tmp_path: Path, workers: int) -> None:
    sweep = sixty_four(tmp_path)
    fake.order(tmp_path, seconds=0, lose_gpu_once=[sweep.trials[8].trial_id])
    summary, said = trained(sweep, tmp_path, workers)
    assert (summary.ok, summary.failed, summary.trained) == (64, 0, 64)
    lost = "8 trials will be tried again: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert [words.partition(" (fake")[0] for words in said] == [lost]
    begun = Counter(trial_id for what, trial_id, _ in fake.log(tmp_path) if what == "started")
    assert sorted(begun.values()) == [1] * 56 + [2] * 8
    log = fake.log(tmp_path)
    lost_at = log.index(next(line for line in log if line[:2] == ("started", sweep.trials[8].trial_id)))
    later = [line for line in log[lost_at:] if line[2] == log[lost_at][2]]
    assert later == [("started", trial.trial_id, log[lost_at][2]) for trial in sweep.trials[8:16]]


def test_trials_that_cost_the_gpu_every_time_end_as_failed_and_cost_no_other(tmp_path: Path) -> None:
    sweep = sixty_four(tmp_path)
    bad = sweep.trials[9].trial_id
    fake.order(tmp_path, seconds=0, lose_gpu=[bad])
    summary, _ = trained(sweep, tmp_path)
    assert (summary.ok, summary.failed) == (63, 1)
    (row,) = (row for row in store.read_runs(tmp_path / "results" / "fake").to_pylist() if row["status"] == "failed")
    assert row["trial_id"] == bad
    assert "illegal memory access" in row["error"]
    begun = Counter(trial_id for what, trial_id, _ in fake.log(tmp_path) if what == "started")
    halvings = int(math.log2(8))
    assert begun[bad] <= queue.ATTEMPTS * (halvings + 1)


def test_an_ensemble_too_large_to_be_captured_is_halved_at_once_by_new_workers(tmp_path: Path) -> None:
    sweep = sixty_four(tmp_path)
    fake.order(tmp_path, seconds=0, too_large=[sweep.trials[0].trial_id])
    summary, said = trained(sweep, tmp_path)
    assert (summary.ok, summary.failed) == (64, 0)
    assert [words.split()[0] for words in said] == ["8", "4", "2"]
    begun = Counter(trial_id for what, trial_id, _ in fake.log(tmp_path) if what == "started")
    assert begun[sweep.trials[0].trial_id] == 4  # of eight, four, two, and alone
    assert len({pid for _, _, pid in fake.log(tmp_path)}) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_how_many_trials_of_a_shape_are_too_many_is_found_out_once(tmp_path: Path, workers: int) -> None:
    sweep = fake.sweep(tmp_path, grid={"width": [32, 64], "seed": list(range(32))})
    wide = [trial.trial_id for trial in sweep.trials if trial.width == 64]
    fake.order(tmp_path, seconds=0, too_large=wide)
    summary, said = trained(sweep, tmp_path, workers)
    assert (summary.ok, summary.failed) == (64, 0)
    halvings = int(math.log2(8))
    assert halvings <= len(said) <= halvings * workers
    sizes = {
        row["trial_id"]: row["ensemble_size"] for row in store.read_runs(tmp_path / "results" / "fake").to_pylist()
    }
    assert {sizes[trial.trial_id] for trial in sweep.trials if trial.width == 32} == {8}
    assert {sizes[trial_id] for trial_id in wide} == {1}


@pytest.mark.parametrize("answers", [True, False])
def test_after_any_other_failure_the_gpu_itself_is_asked(
    answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> None:
        if not answers:
            raise RuntimeError("CUDA error: unspecified launch failure")

    sweep = sixty_four(tmp_path)
    fake.order(tmp_path, seconds=0, fail=[sweep.trials[0].trial_id])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", ask)
    failure = attempt_ensemble(fake.TRAIN, sweep.trials[:2], "cuda", lambda *_: None)
    assert isinstance(failure, Failure)
    assert failure.died != answers
    assert "made to fail" in failure.error


@pytest.mark.usefixtures("nothing_replaced")
def test_a_gpu_that_does_not_work_ends_the_run_and_is_no_failure_of_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: device not ready")

    monkeypatch.setattr(torch, "zeros", broken)
    with pytest.raises(RuntimeError, match="device not ready"):
        worker.prepare_worker("hpsweep.proxy.ensemble:train_ensemble", "cuda")
    worker.prepare_worker(fake.TRAIN, "cuda")  # a trainer of one's own may have another GPU library


ONE_GPU_DIES = """
import os
from pathlib import Path
from tests import fake_training
FOLDER, GPU = Path({folder!r}), os.environ["CUDA_VISIBLE_DEVICES"]
if GPU in {dead!r} and (FOLDER / ("gone" + GPU)).exists():
    with (FOLDER / "starts").open("a") as starts:
        starts.write("x")
    {how}
def train(trials, *, device="cpu", progress=None):
    if GPU in {dead!r}:
        (FOLDER / ("gone" + GPU)).touch()
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
    fake_training.wait_for(lambda: (FOLDER / "starts").exists() and (FOLDER / "starts").stat().st_size == {starts})
    return fake_training.train(trials, device=device, progress=progress)
"""
RAISES = 'raise RuntimeError("CUDA error: no CUDA-capable device is detected")'


def on_gpus_that_die(folder: Path, monkeypatch: pytest.MonkeyPatch, dead: str, how: str, starts: int = 1) -> Any:
    """The summary of a run on GPUs 0 and 1; on those in `dead` no process can start after the first has trained."""
    (folder / "gpu_dies.py").write_text(ONE_GPU_DIES.format(folder=str(folder), dead=dead, how=how, starts=starts))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(local, "_usable_gpus", lambda device: (["0", "1"], "", []))
    fake.order(folder, seconds=0)
    sweep = sixty_four(folder)
    return run_sweep(sweep, folder / "results", ensemble_size=4, device="cuda", train="gpu_dies:train", reporter=Said())


@pytest.mark.parametrize(
    ("how", "starts", "words"),
    [(RAISES, 1, "no CUDA-capable device"), ("os._exit(3)", 3, "3 worker processes in a row died .*exit status 3")],
)
@pytest.mark.filterwarnings("default:the worker process died while starting")
def test_a_gpu_on_which_no_worker_can_start_is_given_up_and_the_others_train_on(
    how: str, starts: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match=rf"GPU 1 is not used any more, 1 GPU left: .*{words}"):
        summary = on_gpus_that_die(tmp_path, monkeypatch, "1", how, starts)
    assert (summary.ok, summary.failed) == (64, 0)
    attempts = Counter(row["attempts"] for row in store.read_runs(tmp_path / "results" / "fake").to_pylist())
    assert attempts == {1: 64}  # what the GPU is to blame for is no attempt


ONE_GPU_TRAINS_NOTHING = """
import os
from pathlib import Path
from tests import fake_training
FOLDER, GPU = Path({folder!r}), os.environ["CUDA_VISIBLE_DEVICES"]
def train(trials, *, device="cpu", progress=None):
    if GPU in {bad!r}:
        with (FOLDER / "failed").open("a") as failed:
            failed.write("x")
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
    if {bad!r}:
        failed = FOLDER / "failed"
        fake_training.wait_for(lambda: failed.exists() and failed.stat().st_size >= {waits})
    return fake_training.train(trials, device=device, progress=progress)
"""
IN_A_ROW = "3 ensembles in a row failed there by an error of the GPU, the last so: .*uncorrectable ECC error"


def on_gpus_that_train_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bad: str, *, gpus: str = "01", size: int = 4, waits: int = 3
) -> Any:
    """The summary of a run on GPUs of which `bad` fail in every training; others train once it failed `waits` times."""
    (folder / "gpu_fails.py").write_text(ONE_GPU_TRAINS_NOTHING.format(folder=str(folder), bad=bad, waits=waits))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(local, "_usable_gpus", lambda device: (list(gpus), "", []))
    fake.order(folder, seconds=0)
    sweep = sixty_four(folder)
    return run_sweep(
        sweep, folder / "results", ensemble_size=size, device="cuda", train="gpu_fails:train", reporter=Said()
    )


@pytest.mark.parametrize("bad", ["0", "1"])
def test_a_gpu_that_fails_in_every_training_is_given_up_and_the_others_train_on(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match=f"GPU {bad} is not used any more, 1 GPU left: {IN_A_ROW}"):
        summary = on_gpus_that_train_nothing(tmp_path, monkeypatch, bad)
    assert (summary.ok, summary.failed, summary.trained) == (64, 0, 64)
    assert (tmp_path / "failed").stat().st_size == 3
    rows = store.read_runs(tmp_path / "results" / "fake").to_pylist()
    assert len({row["trial_id"] for row in rows}) == len(rows) == 64
    assert {row["attempts"] for row in rows} == {1}


def test_the_last_ensemble_of_a_sweep_waits_for_a_gpu_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ensembles on two GPUs: not enough to give a GPU up, and no reason to halve one."""
    summary = on_gpus_that_train_nothing(tmp_path, monkeypatch, "0", size=32, waits=1)
    assert (summary.ok, summary.failed) == (64, 0)
    assert (tmp_path / "failed").stat().st_size == 1
    assert {row["ensemble_size"] for row in store.read_runs(tmp_path / "results" / "fake").to_pylist()} == {32}


@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("gpus", ["0", "01"])
@pytest.mark.filterwarnings("ignore:GPU . is not used any more")
def test_where_every_gpu_fails_in_every_training_the_run_ends_and_no_trial_counts_as_failed(
    gpus: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=IN_A_ROW):
        on_gpus_that_train_nothing(tmp_path, monkeypatch, gpus, gpus=gpus, size=size)
    assert store.read_runs(tmp_path / "results" / "fake").num_rows == 0


def test_where_no_gpu_is_left_the_run_ends_and_no_trial_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.warns(UserWarning, match=r"GPU \d is not used any more, 1 GPU left"),
        pytest.raises(RuntimeError, match=r"a worker process cannot start: .*no CUDA-capable device"),
    ):
        on_gpus_that_die(tmp_path, monkeypatch, "01", RAISES)
    assert store.read_runs(tmp_path / "results" / "fake").num_rows == 0


LACKS_TF32 = r"precision is 'tf32', which Turing does not have .*8\.0.*7\.5\); use float32, or .*CUDA_VISIBLE_DEVICES"
NO_TF32 = """
from hpsweep.proxy.gpu import Card, check_card
def train(trials, *, device="cpu", progress=None):
    check_card("tf32", Card("Turing", (7, 5), True))
"""


TRAINS_NOTHING = """
def train(trials, *, device="cpu", progress=None):
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
"""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        (RAISES, "a worker process cannot start: RuntimeError: CUDA error: no CUDA-capable"),
        (NO_TF32, f"a worker process cannot train: {LACKS_TF32}"),
        (TRAINS_NOTHING, IN_A_ROW),
    ],
)
def test_on_ray_too_a_gpu_that_does_not_work_ends_the_run_and_is_no_failure_of_trials(
    trainer: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.sweep.test_execute import a_cluster

    (tmp_path / "no_gpu.py").write_text(trainer)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)  # of the cluster's workers
    program = (  # a process of its own: Ray reads its token once in a process
        "import sys; from pathlib import Path; from hpsweep.sweep.run import run_sweep\n"
        "from tests import fake_training as fake\n"
        "from tests.sweep.test_gpu_faults import Said\n"
        "folder = Path(sys.argv[1])\n"
        "sweep = fake.sweep(folder, grid={'seed': [0, 1, 2, 3]})\n"
        "said = {'device': 'cpu', 'workers': 1, 'ensemble_size': 1, 'train': 'no_gpu:train', 'reporter': Said()}\n"
        "run_sweep(sweep, folder / 'results', address=sys.argv[2], **said)\n"
    )
    with a_cluster() as (address, _):
        driver = [sys.executable, "-c", program, str(tmp_path), address]
        done = subprocess.run(driver, env=fake.environment(), capture_output=True, text=True, check=False)
    assert re.search(f"RuntimeError: {words}", done.stderr)
    assert store.read_runs(tmp_path / "results" / "fake").num_rows == 0


@pytest.mark.ray
def test_on_ray_too_a_fault_of_the_gpu_costs_no_trial(tmp_path: Path) -> None:
    from tests.sweep.test_execute import a_cluster

    sweep = fake.experiment(tmp_path, grid={"lr": [2.0**k for k in range(-12, -4)], "seed": [0, 1]})
    fake.order(tmp_path, seconds=0, lose_gpu_once=[sweep.trials[4].trial_id])
    with a_cluster() as (address, _):
        driver = fake.command(
            tmp_path, "run", "fake", "--address", address, "--workers", "1", "--device", "cuda", "--ensemble-size", "4"
        )
        _, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    assert "4 trials will be tried again: RuntimeError: CUDA error: an illegal memory access" in err
    rows = store.load(tmp_path / "results" / "fake")
    assert list(rows["status"]) == ["ok"] * 16
    assert len({pid for _, _, pid in fake.log(tmp_path)}) == 2


# --- what the environment says of GPUs ---


@pytest.mark.usefixtures("nothing_replaced")
def test_a_wrong_word_for_compiling_is_refused_before_any_work_and_only_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPSWEEP_COMPILE", "yes")
    monkeypatch.setattr(local, "_usable_gpus", lambda device: (["0"], "", []))
    words = r"HPSWEEP_COMPILE is 'yes'; it can be auto .*, always or never"
    with pytest.raises(ValueError, match=words):
        run_sweep(sixty_four(tmp_path), tmp_path / "results", device="cuda", train=fake.TRAIN, reporter=Said())
    assert not (tmp_path / "results").exists()
    with pytest.raises(ValueError, match=words):
        worker.prepare_worker("hpsweep.proxy.ensemble:train_ensemble", "cuda")  # whose environment is another on Ray
    fake.order(tmp_path, seconds=0)
    summary, _ = trained(sixty_four(tmp_path), tmp_path)  # on the CPU, where nothing is compiled
    assert (summary.ok, summary.failed) == (64, 0)


# --- which GPUs there are ---


@pytest.fixture
def without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "_torch_sees", lambda: (2, "", []))


@pytest.mark.usefixtures("without_nvidia_smi")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_gpus_that_the_environment_names_are_used_without_nvidia_smi(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with worker_place(device=device) as here:
        environments = here.train.args[0]  # type: ignore[attr-defined]
        assert (here.device, here.workers) == ("cuda", 2)
        assert [each["CUDA_VISIBLE_DEVICES"] for each in environments] == ["3", "5"]


@pytest.mark.usefixtures("without_nvidia_smi")
def test_gpus_that_only_torch_knows_of_are_used_where_they_are_asked_for_or_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    for device, files, expected in (
        ("cuda", (), "cuda"),
        ("auto", (str(tmp_path / "nvidia0"),), "cuda"),
        ("auto", (), "cpu"),
    ):
        monkeypatch.setattr(local, "_GPU_FILES", files)
        with worker_place(device=device) as here:
            assert here.device == expected
            if expected == "cuda":
                environments = here.train.args[0]  # type: ignore[attr-defined]
                assert [each["CUDA_VISIBLE_DEVICES"] for each in environments] == ["0", "1"]


@pytest.mark.usefixtures("without_nvidia_smi")
def test_where_there_is_no_sign_of_a_gpu_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_GPU_FILES", ())
    monkeypatch.setattr(local, "_torch_sees", lambda: pytest.fail("asked"))
    for hidden in (None, "", "-1"):
        monkeypatch.setattr(local, "_GPU_FILES", () if hidden is None else (os.devnull,))
        if hidden is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with worker_place() as here:
            assert here.device == "cpu"


@pytest.mark.usefixtures("without_nvidia_smi")
@pytest.mark.parametrize(
    ("names", "seen", "used"),
    [
        ("0,7", 1, ["0"]),  # there is no GPU 7
        ("0, 1", 2, ["0", "1"]),
        ("0,-1,1", 1, ["0"]),
        ("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"]),
        ("MIG-a,MIG-b", 1, ["MIG-a", "MIG-b"]),  # of several parts CUDA gives a process one
        ("NoDevFiles", 0, []),
        ("-1,0", 0, []),
    ],
)
@pytest.mark.filterwarnings("error:a GPU is here", "ignore:CUDA_VISIBLE_DEVICES is")
def test_gpus_are_those_of_cuda_visible_devices_that_cuda_itself_would_use(
    names: str, seen: int, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    monkeypatch.setattr(local, "_torch_sees", lambda: (seen, f"CUDA_VISIBLE_DEVICES is {names!r}", []))
    with worker_place() as here:
        environments = here.train.args[0]  # type: ignore[attr-defined]
        found = [each["CUDA_VISIBLE_DEVICES"] for each in environments if each["CUDA_VISIBLE_DEVICES"]]
    assert found == used
    assert here.device == ("cuda" if used else "cpu")


def test_of_gpus_that_are_named_and_torch_cannot_use_a_warning_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    monkeypatch.setattr(local, "_torch_sees", lambda: (1, "", []))
    with pytest.warns(UserWarning, match="'0,7', and torch can use 1 GPU of it: 0"), worker_place():
        pass


@pytest.mark.usefixtures("nothing_replaced")
def test_an_nvidia_smi_or_a_torch_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia-smi", "python"):
        (tmp_path / name).write_text(f"#!/bin/sh\nsleep 3600 &\necho $! > {tmp_path}/{name}.pid\nwait\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(local.sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "_LIST_SECONDS", 1.0)
    monkeypatch.setattr(local, "_TORCH_SECONDS", 1.0)
    with pytest.raises(ValueError, match="torch does not answer within 1 s"), worker_place(device="cuda"):
        pass
    for name in ("nvidia-smi", "python"):
        pid = int((tmp_path / f"{name}.pid").read_text())
        fake.wait_for(functools.partial(_has_ended, pid))


def _has_ended(pid: int) -> bool:
    return not fake.is_alive(pid)


OLD_DRIVER = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020)"
MADE_UP_TORCH = """
import contextlib, warnings
__version__ = "2.13.0"
version = type("version", (), {{"cuda": {cuda!r}, "hip": None}})
class cuda:
    device = contextlib.nullcontext
    def is_available():
        warnings.warn({words!r})
        return {count} > 0
    def device_count():
        return {count}
    def get_device_capability(i):
        if i == 2:
            raise RuntimeError("CUDA error: device not ready")
        return ((7, 5), (9, 0))[i]
    def get_device_name(i):
        return ("Turing", "Hopper")[i]
    def is_bf16_supported():
        return True
"""
TURING, HOPPER = gpu.Card("Turing", (7, 5), bfloat16=True), gpu.Card("Hopper", (9, 0), bfloat16=True)


@pytest.mark.usefixtures("nothing_replaced")
@pytest.mark.parametrize(
    ("cuda", "words", "count", "expected"),
    [
        ("13.0", f"{OLD_DRIVER}. (Triggered internally at a.cpp:1.)", 0, (0, OLD_DRIVER, [])),
        (None, "", 0, (0, "torch 2.13.0 is built without CUDA", [])),
        ("13.0", "", 0, (0, "torch 2.13.0 finds none, CUDA_VISIBLE_DEVICES is '7'", [])),
        ("13.0", "", 3, (3, "torch 2.13.0 finds none, CUDA_VISIBLE_DEVICES is '7'", [TURING, HOPPER])),
    ],
)
def test_what_torch_itself_says_of_gpus_is_passed_on(
    cuda: str | None,
    words: str,
    count: int,
    expected: tuple[int, str, list[gpu.Card]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "torch.py").write_text(MADE_UP_TORCH.format(cuda=cuda, words=words, count=count))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert local._torch_sees() == expected
    if not count:
        words = re.escape(expected[1])
        with pytest.raises(ValueError, match=words), worker_place(device="cuda"):
            pass
        with pytest.warns(UserWarning, match=words), worker_place() as here:
            assert here.device == "cpu"


@pytest.mark.usefixtures("nothing_replaced")
def test_a_torch_that_cannot_be_imported_is_said_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert local._torch_sees() == (0, "torch cannot be asked (ImportError: libcudart.so.13: cannot open)", [])


# --- precisions that a GPU has not ---


def in_tf32(folder: Path) -> Sweep:
    return Sweep(name="fake", base=fake.sweep(folder).base.replace(precision="tf32"), grid={"seed": list(range(64))})


@pytest.mark.parametrize("command", [run_sweep, plan])
def test_a_precision_that_one_of_the_gpus_has_not_is_refused_before_any_work(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_usable_gpus", lambda device: (["0", "1"], "", [HOPPER, TURING]))
    monkeypatch.setattr(local, "_start", lambda *_: pytest.fail("a worker was started"))
    with pytest.raises(ValueError, match=LACKS_TF32):
        command(in_tf32(tmp_path), tmp_path / "results", device="cuda")
    assert not (tmp_path / "results").exists()
    assert serving_engine(worker.TRAIN, "cuda", in_tf32(tmp_path).trials, [HOPPER]).engine == "torch"


def test_a_worker_that_finds_its_gpu_without_the_precision_ends_the_run_and_no_trial_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_tf32.py").write_text(NO_TF32)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(local, "_usable_gpus", lambda device: (["0"], "", []))  # it did not answer
    with pytest.raises(RuntimeError, match=f"a worker process cannot train: {LACKS_TF32}"):
        run_sweep(in_tf32(tmp_path), tmp_path / "results", device="cuda", train="no_tf32:train", reporter=Said())
    assert store.read_runs(tmp_path / "results" / "fake").num_rows == 0


# --- workers on one GPU ---


@pytest.mark.parametrize(
    ("workers", "per_worker", "shares", "remedy"),
    [
        (None, 1.0, ["1"], None),
        (None, 0.5, ["0.5"] * 2, None),
        (1, 0.25, ["0.25"], None),
        (8, 1.0, ["0.125"] * 8, "--gpus-per-worker 0.125"),
        (6, 0.5, ["0.166667"] * 6, "--gpus-per-worker 0.166"),
    ],
)
def test_workers_on_a_gpu_share_its_memory_and_more_than_it_has_room_for_are_said(
    workers: int | None, per_worker: float, shares: list[str], remedy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_usable_gpus", lambda device: (["GPU-a"], "", []))
    with worker_place(workers=workers, gpus_per_worker=per_worker) as here:
        environments = here.train.args[0]  # type: ignore[attr-defined]
        assert [each[gpu.SHARE] for each in environments] == shares
        assert sum(map(float, shares)) <= 1 + 1e-5
        assert (remedy is None) == (here.crowded() == "")
        if remedy:
            assert "they take turns" in here.crowded()
            assert f"Leave out --workers for one each, or give {remedy}" in here.crowded()
    if remedy:
        with worker_place(workers=workers, gpus_per_worker=float(remedy.split()[1])) as here:
            assert here.crowded() == ""
