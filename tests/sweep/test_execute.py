"""Where ensembles are trained: workers that live, die and fail, here and on Ray."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpsweep import store
from hpsweep.spec import Trial
from hpsweep.sweep import local
from hpsweep.sweep.execute import worker_place
from hpsweep.sweep.local import visible_gpus
from hpsweep.sweep.pace import Pace, Silences
from hpsweep.sweep.worker import Ensemble, Failure, Part, Result, attempt_ensemble, joined_parts
from tests import fake_training as fake
from tests import processes


class Recorder:
    """A Plan that hands out what it is given, once, and keeps what comes back."""

    def __init__(self, ensembles: list[Ensemble]) -> None:
        self.waiting, self.running = list(ensembles), 0
        self.outcomes: list[tuple[Ensemble, Result | Failure]] = []
        self.steps: list[int] = []
        self.parts: list[tuple[Ensemble, Part]] = []
        self.ticks = 0

    def next(self) -> Ensemble | None:
        if not self.waiting:
            return None if self.running else ()
        self.running += 1
        return self.waiting.pop(0)

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        self.running -= 1
        self.outcomes.append((ensemble, outcome))

    def part(self, ensemble: Ensemble, part: Part) -> None:
        self.parts.append((ensemble, part))

    def tick(self) -> None:
        self.ticks += 1

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        self.steps.append(step)


def ensembles(folder: Path, size: int = 4) -> list[Ensemble]:
    trials = fake.sweep(folder).trials
    return [trials[i : i + size] for i in range(0, len(trials), size)]


def train_here(plan: Recorder, workers: int = 2, train: str = fake.TRAIN) -> None:
    with worker_place("local", workers=workers, device="cpu") as here:
        here.train(plan, train)


def test_every_ensemble_comes_back_with_its_rows_from_another_process(tmp_path: Path) -> None:
    plan = Recorder(ensembles(tmp_path))
    train_here(plan)
    assert len(plan.outcomes) == 12
    for ensemble, outcome in plan.outcomes:
        assert isinstance(outcome, Result)
        assert [row["trial_id"] for row in outcome.rows] == [trial.trial_id for trial in ensemble]
    workers = {pid for _, _, pid in fake.log(tmp_path)}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert plan.steps


def test_a_plan_with_one_ensemble_starts_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = local._start
    monkeypatch.setattr(local, "_start", lambda *a: started.append(a) or start(*a))  # type: ignore[func-returns-value]
    train_here(Recorder(ensembles(tmp_path)[:1]), workers=8)
    assert len(started) == 1


def test_an_error_in_training_is_a_value_of_one_line_and_the_worker_goes_on(tmp_path: Path) -> None:
    work = ensembles(tmp_path)[:3]
    fake.order(tmp_path, fail=[work[0][0].trial_id])
    plan = Recorder(work)
    train_here(plan, workers=1)
    (_, failure), *others = plan.outcomes
    assert isinstance(failure, Failure)
    assert failure.error.startswith(f"RuntimeError: made to fail by {work[0][0].trial_id} (fake_training.py:")
    assert not failure.died
    assert all(isinstance(outcome, Result) for _, outcome in others)
    assert len({pid for _, _, pid in fake.log(tmp_path)}) == 1


def test_a_worker_that_is_killed_is_replaced_and_its_ensemble_reported(tmp_path: Path) -> None:
    work = ensembles(tmp_path)[:3]
    fake.order(tmp_path, die=[work[0][0].trial_id])
    plan = Recorder(work)
    train_here(plan, workers=1)
    assert plan.outcomes[0] == (work[0], Failure("the worker process died (SIGKILL)", died=True))
    assert all(isinstance(outcome, Result) for _, outcome in plan.outcomes[1:])
    assert len({pid for _, _, pid in fake.log(tmp_path)}) == 2


def test_a_trainer_that_cannot_be_imported_ends_the_run_and_is_no_failure_of_trials(tmp_path: Path) -> None:
    plan = Recorder(ensembles(tmp_path)[:1])
    with pytest.raises(RuntimeError, match=r"cannot start.*no_such_module"):
        train_here(plan, train="no_such_module:train")
    assert not plan.outcomes


def test_workers_that_die_while_starting_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "exits_at_import.py").write_text("import os\nos._exit(3)\n")
    plan = Recorder(ensembles(tmp_path)[:8])
    sys.path.insert(0, str(tmp_path))
    try:
        with (
            pytest.warns(UserWarning, match=r"died while starting \(exit status 3\); another one is started"),
            pytest.raises(RuntimeError, match=r"3 worker processes in a row died while starting.*exit status 3"),
        ):
            train_here(plan, train="exits_at_import:train")
    finally:
        sys.path.remove(str(tmp_path))
    assert not plan.outcomes  # no trial is to blame


def test_a_cpu_worker_has_one_thread_and_no_gpu(tmp_path: Path) -> None:
    plan = Recorder(ensembles(tmp_path)[:1])
    (tmp_path / "tells.py").write_text(
        "import os\nfrom types import SimpleNamespace\n"
        "def train(trials, *, device, progress):\n"
        "    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')\n"
        "    return SimpleNamespace(rows=[{n: os.environ[n] for n in names}], curves={})\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        train_here(plan, train="tells:train")
    finally:
        sys.path.remove(str(tmp_path))
    (_, outcome) = plan.outcomes[0]
    assert isinstance(outcome, Result)
    assert outcome.rows == [{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}]


def test_workers_ignore_an_interrupt_of_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\nfrom types import SimpleNamespace\n"
        "def train(trials, *, device, progress):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return SimpleNamespace(rows=[], curves={})\n"
    )
    sys.path.insert(0, str(tmp_path))
    plan = Recorder(ensembles(tmp_path)[:1])
    try:
        train_here(plan, train="interrupted:train")
    finally:
        sys.path.remove(str(tmp_path))
    assert plan.outcomes[0][1] == Result([], {})


def test_workers_end_in_the_middle_of_training_when_the_driver_is_killed(tmp_path: Path) -> None:
    fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=600, silent=True)
    driver = fake.command(tmp_path, "run", "fake", "--workers", "2")
    fake.wait_for(lambda: len({pid for _, _, pid in fake.log(tmp_path)}) == 2)
    driver.kill()
    driver.communicate()
    fake.wait_for(lambda: not any(fake.is_alive(pid) for _, _, pid in fake.log(tmp_path)), seconds=30)


def test_attempt_speaks_of_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 10)
    monkeypatch.setitem(sys.modules, "counts", type("M", (), {"train": staticmethod(_counts)}))
    heard: list[int] = []
    attempt_ensemble("counts:train", (Trial(steps=1),), "cpu", lambda step, steps: heard.append(step))
    assert 0 < len(heard) < 30


def test_trials_that_are_whole_before_the_others_come_in_parts_and_every_one_once(tmp_path: Path) -> None:
    (ensemble,) = ensembles(tmp_path, 48)
    fake.order(tmp_path, one_by_one=True, seconds=0)
    for every in (0.0, 1e9):
        parts: list[Part] = []
        result = attempt_ensemble(fake.TRAIN, ensemble, "cpu", lambda *_: None, parts.append, every=every)
        assert isinstance(result, Result)
        assert len(parts) == (48 if every == 0 else 0)
        for of in (
            lambda found: [row["trial_id"] for row in found.rows],
            lambda found: found.curves.get("trial_id", []),
        ):
            assert [i for part in (*parts, result) for i in of(part)] == [trial.trial_id for trial in ensemble]
    whole = attempt_ensemble(fake.TRAIN, ensemble, "cpu", lambda *_: None)  # as nobody asks for parts
    assert isinstance(whole, Result)
    assert len(whole.rows) == 48


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_trials_that_were_whole_before_a_failure_are_sent_before_it(tmp_path: Path, every: float) -> None:
    (ensemble,) = ensembles(tmp_path, 48)
    fake.order(tmp_path, one_by_one=True, seconds=0, fail=[ensemble[5].trial_id])
    parts: list[Part] = []
    failure = attempt_ensemble(fake.TRAIN, ensemble, "cpu", lambda *_: None, parts.append, every=every)
    assert isinstance(failure, Failure)
    assert [row["trial_id"] for part in parts for row in part.rows] == [trial.trial_id for trial in ensemble[:5]]


def test_parts_are_joined_whatever_columns_their_curves_have() -> None:
    one, other, none = Part([{"a": 1}], {"step": [1]}), Part([{"a": 2}], {"step": [2, 3]}), Part([{"a": 3}], {})
    assert joined_parts(joined_parts(none, one), other) == Part([{"a": 3}, {"a": 1}, {"a": 2}], {"step": [1, 2, 3]})
    assert joined_parts(one, none) == Part([{"a": 1}, {"a": 3}], {"step": [1]})


def _counts(trials: Ensemble, *, device: str, progress: Any) -> Any:
    for step in range(100):
        progress(step, 100)


# --- what there is to train on ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"gpus_per_worker": 0.0}, "gpus_per_worker is 0.0"),
        ({"gpus_per_worker": 1.5}, "gpus_per_worker is 1.5"),
        ({"gpus_per_worker": float("nan")}, "gpus_per_worker is nan"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"address": "nonsense"}, "address is 'nonsense'"),
        ({"address": "127.0.0.1:1"}, "no Ray cluster answers at 127.0.0.1:1"),
        ({"address": "ray://127.0.0.1:1"}, "cannot be driven through Ray Client"),
    ],
)
def test_a_place_that_cannot_be_is_refused_within_seconds(options: dict[str, Any], words: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match=words), worker_place(**options):
        pass
    assert time.monotonic() - begin < 5


def test_a_port_where_something_else_listens_is_no_ray_cluster(tmp_path: Path) -> None:
    import socket

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as beside:
        server.settimeout(60)
        answering = beside.submit(answer)
        with (
            pytest.raises(ValueError, match="something else listens there"),
            worker_place(f"127.0.0.1:{server.getsockname()[1]}"),
        ):
            pass
        answering.result()


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_torch_cannot_use_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_torch_sees", lambda: (0, "torch 2.9 is built without CUDA", []))
    said = "a GPU is here, and this torch cannot use it: torch 2.9 is built without CUDA. Training on CPU"
    with pytest.warns(UserWarning, match=said), worker_place() as here:
        assert here.device == "cpu"


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi lists two GPUs, and whose torch sees them."""
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA X (UUID: GPU-aa-1)'\necho 'GPU 1: NVIDIA X (UUID: GPU-bb-2)'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "_torch_sees", lambda: (2, "", []))


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_shared_out_among_workers() -> None:
    with worker_place(gpus_per_worker=0.5) as here:
        environments = here.train.args[0]  # type: ignore[attr-defined]
        assert (here.workers, here.device) == (4, "cuda")
        assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["GPU-aa-1", "GPU-bb-2"] * 2
    with worker_place() as here:
        assert (here.workers, here.device) == (2, "cuda")
    with worker_place(device="cpu") as here:
        assert here.device == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_are_hidden_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible_gpus() == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    with pytest.raises(ValueError, match="no GPU"), worker_place(device="cuda"):
        pass


def test_the_driver_imports_neither_torch_nor_ray_to_train_here(tmp_path: Path) -> None:
    fake.experiment(tmp_path)
    code = (
        f"import sys, hpsweep.cli\nhpsweep.cli.main(['run', 'fake'], train={fake.TRAIN!r})\n"
        "sys.exit(', '.join({'torch', 'ray', 'optuna'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=fake.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# --- Ray ---


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster that the tests of this file share."""
    with a_cluster() as (address, _):
        yield address


@contextlib.contextmanager
def a_cluster() -> Iterator[tuple[str, int]]:
    """The address and process of a Ray cluster of two cores and one GPU, with a token of its own."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(16).hex(), "RAY_USAGE_STATS_ENABLED": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        script = Path(__file__).with_name("ray_cluster.py")
        process = subprocess.Popen(
            [sys.executable, str(script), "2", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=fake.environment(),
        )
        assert process.stdout
        assert process.stdin
        try:
            address = process.stdout.readline().strip()
            assert address
            yield address, process.pid
        finally:
            session = processes.commands_below(process.pid)
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a head that was killed
                process.wait(30)
            processes.kill(list(session))
            processes.end(process)


def stored(folder: Path) -> set[str]:
    return store.finished_trials(store.read_runs(folder / "results" / "fake"))


def test_on_ray_the_plan_hears_of_parts_before_the_result_and_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpsweep.sweep import cluster

    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.0)
    (ensemble,) = work = ensembles(tmp_path, 48)
    part, result = Part([{"trial_id": "x"}], {}), Result([], {})
    messages: list[tuple[str, Any]] = [("a", (1, 10)), ("a", part), ("a", result)]
    mailbox = SimpleNamespace(
        give=SimpleNamespace(remote=lambda key, given: None),
        drain=SimpleNamespace(remote=lambda: [messages.pop(0)] if messages else []),
    )
    plan = Recorder(work)
    silences = Silences(Pace(speaks=True))
    ray = SimpleNamespace(get=lambda value: value)
    searcher, callback = cluster._suggestions(ray, plan, mailbox, silences, lambda worker: None)
    monkeypatch.setattr(plan, "next", lambda: ensemble)
    plan.running = 1
    messages.insert(0, ("b", part))  # of nobody that runs
    assert searcher.suggest("a") == {"ensemble": "a"}
    for _ in range(3):
        callback.on_step_end(1, [])
    assert (plan.steps, plan.parts, plan.outcomes) == ([1], [(ensemble, part)], [(ensemble, result)])
    assert plan.ticks == 4


@pytest.mark.ray
def test_on_ray_a_killed_worker_and_a_bad_trial_cost_no_other_trial(tmp_path: Path, cluster: str) -> None:
    sweep = fake.experiment(tmp_path)
    bad = sweep.trials[0].trial_id
    fake.order(tmp_path, seconds=0.1, hold_after=20, fail=[bad])
    driver = fake.command(
        tmp_path, "run", "fake", "--address", cluster, "--device", "cpu", "--ensemble-size", "4", "--json"
    )
    fake.kill_one_that_is_held(tmp_path)
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    assert '"ok": 47' in out
    assert '"failed": 1' in out
    assert "the Ray worker died" in err
    assert "Traceback" not in err
    trained = [trial_id for what, trial_id, _ in fake.log(tmp_path) if what == "trained"]
    assert sorted(trained) == sorted(t.trial_id for t in sweep.trials if t.trial_id != bad)
    assert len({pid for _, _, pid in fake.log(tmp_path)}) <= 4  # actors are used again


@pytest.mark.ray
def test_on_ray_a_killed_or_interrupted_driver_resumes_with_what_is_missing(tmp_path: Path, cluster: str) -> None:
    sweep = fake.experiment(tmp_path)
    for number in (signal.SIGKILL, signal.SIGINT, None):
        fake.order(tmp_path, seconds=1 if number else 0.1)  # far from done when it is killed
        before, position = stored(tmp_path), len(fake.log(tmp_path))
        driver = fake.command(tmp_path, "run", "fake", "--address", cluster, "--device", "cpu", "--ensemble-size", "4")
        if number:
            fake.wait_for(lambda b=before: len(stored(tmp_path) - b) >= 4)  # type: ignore[misc]
            driver.send_signal(number)
        _, err = driver.communicate(timeout=240)
        again = {trial_id for _, trial_id, _ in fake.log(tmp_path)[position:]}
        assert not again & before
        assert driver.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, None: 0}[number], err
        assert "Traceback" not in err
        assert (number is not signal.SIGINT) or "trials stored. Resume with: hpsweep run fake" in err
    assert stored(tmp_path) == {trial.trial_id for trial in sweep.trials}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "said"), [("_Mailbox", "the Ray cluster was lost"), ("gcs_server", "does not answer")]
)
def test_a_ray_cluster_that_dies_costs_what_was_running_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, said: str
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "15")  # 60 of itself
    sweep = fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=0.1, hold_after=12)
    words = ("--device", "cpu", "--ensemble-size", "4")
    with a_cluster() as (address, head):
        driver = fake.command(tmp_path, "run", "fake", "--address", address, *words)
        fake.wait_for(lambda: any(what == "held" for what, _, _ in fake.log(tmp_path)))
        (victim,) = [process for process, line in processes.commands_below(head).items() if part in line]
        victim.kill()
        _, err = driver.communicate(timeout=240)
    assert driver.returncode == 1
    assert said in err
    assert "Traceback" not in err
    kept = stored(tmp_path)
    assert len(kept) >= 4
    trained = {trial_id for what, trial_id, _ in fake.log(tmp_path) if what == "trained"}
    assert kept <= trained
    fake.order(tmp_path, seconds=0.1)
    position = len(fake.log(tmp_path))
    resumed = fake.command(tmp_path, "run", "fake", *words)
    _, err = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, err
    assert not {trial_id for _, trial_id, _ in fake.log(tmp_path)[position:]} & kept
    assert stored(tmp_path) == {trial.trial_id for trial in sweep.trials}


@pytest.mark.ray
def test_on_ray_two_workers_share_a_gpu(tmp_path: Path, cluster: str) -> None:
    fake.experiment(tmp_path, grid={"lr": [2.0**k for k in range(-12, -4)]})
    fake.order(tmp_path, seconds=0, together=8)
    words = ("--device", "cuda", "--gpus-per-worker", "0.5", "--ensemble-size", "4")
    driver = fake.command(tmp_path, "run", "fake", "--address", cluster, *words)
    _, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    assert [what for what, _, _ in fake.log(tmp_path)] == ["started"] * 8 + ["trained"] * 8
    assert "fake cuda" in str(store.load(tmp_path / "results" / "fake")["device"].unique())


SMALL = """
from hpsweep.spec import Sweep, Trial
SWEEP = Sweep(
    name="small",
    base=Trial(width=32, base_width=16, depth=1, head_size=16, context=16, batch=4, steps=20, eval_sequences=32),
    grid={"scheme": ["sp", "supar"], "density": [1, 1 / 8], "lr": [2.0**-9, 2.0**-7, 1e9], "seed": [0, 1]},
)
"""


@pytest.mark.ray
def test_a_sweep_that_is_really_trained_gives_the_same_rows_on_ray(tmp_path: Path, cluster: str) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    for address, size in (("local", "8"), (cluster, "3")):
        words = ["run", "small.py", "--results", f"by{size}", "--address", address, "--ensemble-size", size]
        done = subprocess.run(
            [sys.executable, "-m", "hpsweep", *words, "--device", "cpu"],
            cwd=tmp_path, env=fake.environment(), capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    here, there = (store.load(tmp_path / f"by{size}" / "small").set_index("trial_id").sort_index() for size in (8, 3))
    assert list(here.index) == list(there.index)
    assert len(here) == 24
    assert set(here["status"]) == {"ok", "diverged"}
    own = ["ensemble_size", "seconds", "finished_at"]
    measured = ["val_loss", "val_loss_se", "train_loss", "initial_loss"]
    assert np.allclose(here[measured], there[measured], atol=1e-4, equal_nan=True)
    assert here.drop(columns=own + measured).equals(there.drop(columns=own + measured))
