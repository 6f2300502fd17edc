"""Where ensembles are trained: worker processes of this machine, or Ray Tune. The only file that imports ray.

Both ask a Plan for ensembles and hand it what came out; neither knows the store, the search or the display.
A worker is one function that returns a result or a failure as a value, so only its death needs watching.
Ray says "trial" for what is an ensemble here: one Tune trial trains one ensemble.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hpsweep.spec import Trial

Ensemble = tuple[Trial, ...]
TRAIN = "hpsweep.proxy.train:train"
"""What trains an ensemble, as module:function, so that any worker can import it."""

_PROGRESS_SECONDS = 0.5  # a worker speaks at most this often
_CONNECT_SECONDS = 3.0
_START_ATTEMPTS = 3  # of a worker process


class Result(NamedTuple):
    """What training an ensemble gave: rows (columns of store.RUNS) and curves (columns of store.CURVES)."""

    rows: list[dict[str, Any]]
    curves: dict[str, list[Any]]


class Failure(NamedTuple):
    """Why an ensemble was not trained, in one line, and whether its worker died of it."""

    error: str
    died: bool = False


class Plan(Protocol):
    """Where ensembles come from, and where their results go. Called from the driver only."""

    def next(self) -> Ensemble | None:
        """An ensemble to train; None: nothing yet, ask after the next result; (): finished."""

    def done(self, ensemble: Ensemble, outcome: Result | Failure) -> None:
        """Take what came of an ensemble."""

    def progress(self, ensemble: Ensemble, step: int, steps: int) -> None:
        """Note how far the training of an ensemble is."""


class Place(NamedTuple):
    """A place with workers: how many, on which kind of device, and what trains a plan there."""

    workers: int
    device: str  # cpu or cuda
    train: Callable[[Plan, str], None]


@contextlib.contextmanager
def place(
    address: str = "local", *, workers: int | None = None, device: str = "auto", gpus_per_worker: float = 1.0
) -> Iterator[Place]:
    """The place that `address` names: "local", "auto" (this machine's Ray cluster) or a Ray address.

    Raises ValueError, within seconds, for an unreachable address, a device that is not there, workers below 1
    and gpus_per_worker outside (0, 1].
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; at least 1 is needed. Leave it out to use all cores or GPUs.")
    if not 0 < gpus_per_worker <= 1:
        raise ValueError(f"gpus_per_worker is {gpus_per_worker}; allowed: above 0, up to 1 (a worker uses one GPU).")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}; allowed: auto, cpu, cuda.")
    if address == "local":
        yield _here(workers, device, gpus_per_worker)
        return
    with _ray_cluster(address) as ray:
        yield _there(ray, workers, device, gpus_per_worker)


def attempt(train: str, ensemble: Ensemble, device: str, progress: Callable[[int, int], None]) -> Result | Failure:
    """What training the ensemble gives, or the error as a value: the work of a worker."""
    last = 0.0

    def now_and_then(step: int, steps: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            last = time.monotonic()
            progress(step, steps)

    try:
        outcome = _function(train)(ensemble, device=device, progress=now_and_then)
        return Result([dict(row) for row in outcome.rows], {name: list(v) for name, v in outcome.curves.items()})
    except Exception as error:
        return Failure(_one_line(error))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _one_line(error: BaseException) -> str:
    """The error's type, first line, and where it was raised: what is left of it in the store."""
    lines = str(error).strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}{where}"


# --- worker processes of this machine ---


def _here(workers: int | None, device: str, gpus_per_worker: float) -> Place:
    """Worker processes of this machine: one per core, or 1 / gpus_per_worker per GPU."""
    found = [] if device == "cpu" else visible_gpus()
    if found and not _torch_sees_gpus():
        found = []
    if device == "cuda" and not found:
        raise ValueError("device is cuda, but there is no GPU that torch can use; use device cpu, or auto.")
    cores = available_cores()
    if not found:
        count = workers or cores
        environments = [{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}] * count
        return Place(count, "cpu", partial(_train_here, environments, "cpu"))
    count = workers or len(found) * int(1 / gpus_per_worker)
    threads = str(max(1, cores // count))
    environments = [
        {"CUDA_VISIBLE_DEVICES": found[i % len(found)], "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        for i in range(count)
    ]
    return Place(count, "cuda", partial(_train_here, environments, "cuda"))


def available_cores() -> int:
    """Cores this process may use: the scheduler's affinity, and a container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" without a quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them, without importing torch; [] costs nothing where there are none."""
    command = shutil.which("nvidia-smi")
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if command is None or allowed in ("", "-1"):
        return []
    if allowed is not None:
        return allowed.split(",")
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False).stdout
    found: list[str] = re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)\)", listed)
    return [name for name in found if name.startswith("MIG")] or found  # a divided GPU is used by its parts


def _torch_sees_gpus() -> bool:
    """Asked of another process: the driver never imports torch, and a CPU build of torch sees none."""
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], capture_output=True, check=False).returncode == 0


@dataclass
class _Worker:
    """A worker process, its pipe, and the ensemble it trains; None while idle."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    ensemble: Ensemble | None = None
    started: bool = False  # it has spoken


def _start(environment: dict[str, str], device: str, train: str) -> _Worker:
    """A new worker in its own process group, which Ctrl-C in a terminal does not reach, with our sys.path."""
    ours, theirs = Pipe()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from hpsweep.sweep.execute import serve; serve({theirs.fileno()}, {os.getpid()}, {device!r}, {train!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
        process_group=0,
    )
    theirs.close()
    return _Worker(process, ours)


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _end(worker: _Worker) -> None:
    """Kill the worker with all it started. Nothing is lost by it: workers keep nothing."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    worker.pipe.close()


def _train_here(environments: Sequence[dict[str, str]], device: str, plan: Plan, train: str) -> None:
    """Train a plan to its end, each worker started when there is an ensemble for it."""
    workers: dict[int, _Worker] = {}
    deaths_at_start = 0
    try:
        while True:
            for slot, environment in enumerate(environments):
                if slot in workers and workers[slot].ensemble:
                    continue
                ensemble = plan.next()
                if not ensemble:
                    break
                workers[slot] = workers.get(slot) or _start(environment, device, train)
                workers[slot].ensemble = ensemble
                with contextlib.suppress(OSError):  # it died: the pipe says so below
                    workers[slot].pipe.send(ensemble)
            busy = {worker.pipe: slot for slot, worker in workers.items() if worker.ensemble}
            if not busy:
                return
            for pipe in wait(list(busy)):
                slot = busy[pipe]  # type: ignore[index]
                deaths_at_start = 0 if workers[slot].started else deaths_at_start
                if not _hear(workers[slot], plan):
                    deaths_at_start += not workers[slot].started
                    _end(workers.pop(slot))
                    if deaths_at_start == _START_ATTEMPTS:
                        raise RuntimeError(f"{_START_ATTEMPTS} worker processes in a row died while starting.")
    finally:
        for worker in workers.values():
            _end(worker)


def _hear(worker: _Worker, plan: Plan) -> bool:
    """Take one message of a worker; False if it died instead. What it was training is then a failure."""
    assert worker.ensemble
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        when = "" if worker.started else " while starting"
        plan.done(worker.ensemble, Failure(f"the worker process died{when} ({how})", died=True))
        return False
    if message == "started":
        worker.started = True
    elif isinstance(message, Exception):
        raise RuntimeError(f"a worker process cannot start: {_one_line(message)}") from message
    elif isinstance(message, Result | Failure):
        ensemble, worker.ensemble = worker.ensemble, None
        plan.done(ensemble, message)
    else:
        plan.progress(worker.ensemble, *message)
    return True


def serve(descriptor: int, driver: int, device: str, train: str) -> None:
    """The life of a worker process: ensembles in, results or failures out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):  # the driver is gone
        try:
            _prepare(train, device)
        except Exception as error:
            pipe.send(RuntimeError(_one_line(error)))
            return
        pipe.send("started")
        while True:
            ensemble = pipe.recv()
            pipe.send(attempt(train, ensemble, device, lambda step, steps: pipe.send((step, steps))))


def _prepare(train: str, device: str) -> None:
    """Import what trains; on a CPU, one thread: a worker per core loses nothing, and does not get in the way."""
    _function(train)
    if device == "cpu" and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _end_with(driver: int) -> None:
    """End this process group, in the middle of training too, when the driver is gone."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


# --- Ray Tune ---

# Read by Ray from the environment of the driver: no files and no lines per Tune trial, our own handling of Ctrl-C.
_RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_NUM_REDIS_GET_RETRIES": "4",  # seconds until a port that answers is taken for no usable cluster, not 20
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@contextlib.contextmanager
def _ray_cluster(address: str) -> Iterator[Any]:
    """The ray module, connected to the cluster at `address`; ValueError where there is none."""
    address = _reachable(address)
    with _environment(_RAY_ENVIRONMENT), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            with _no_stderr(nowhere.fileno()):
                import ray

                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except ImportError as error:
            raise ValueError(f"address {address!r} needs {error}: pip install 'hpsweep[run]' 'ray[client]'.") from None
        except Exception as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ValueError(
                f"no Ray cluster to use at {address!r}: {why}. Start one with `ray start --head`, or use --address "
                "local; where the cluster asks for a token, set RAY_AUTH_MODE=token."
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _no_stderr(nowhere: int) -> Iterator[None]:
    """Without the lines that Ray's C++ half writes to descriptor 2 while it tries to connect."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reachable(address: str) -> str:
    """The address, if what answers there speaks gRPC: Ray itself would try for minutes, and log all of it."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address == "auto":
        return address
    parts = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d{1,5})", address)
    if not parts:
        raise ValueError(f"address is {address!r}; allowed: local, auto, HOST:6379 or ray://HOST:10001.")
    try:
        with socket.create_connection((parts[1], int(parts[2])), timeout=_CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_HTTP2_HELLO)
                if connection.recv(9)[3:4] != b"\4":  # gRPC answers with a SETTINGS frame, which is type 4
                    raise OSError("something else listens there")
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}). Start one with `ray start --head`, or use --address local."
        ) from None
    return address


def _there(ray: Any, workers: int | None, device: str, gpus_per_worker: float) -> Place:
    """The workers of a Ray cluster, after asking one whether it has this hpsweep."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if device != "cpu" else 0
    if device == "cuda" and not gpus:
        raise ValueError("device is cuda, but the Ray cluster has no GPU; use device cpu, or auto.")
    fit = gpus * int(1 / gpus_per_worker) if gpus else int(resources.get("CPU", 0))
    if not fit:
        raise ValueError("the Ray cluster has no CPU to train on; start its nodes with --num-cpus of at least 1.")

    def version() -> str:
        from hpsweep import __version__

        return __version__

    from hpsweep import __version__ as ours

    try:
        theirs = ray.get(ray.remote(version).options(num_cpus=0).remote(), timeout=60)
    except Exception as error:
        cause = _one_line(getattr(error, "cause", error))
        raise ValueError(f"workers of the Ray cluster cannot import hpsweep: {cause}. Install it there.") from None
    if theirs != ours:
        raise ValueError(f"workers of the Ray cluster have hpsweep {theirs}, this is {ours}; install the same there.")
    need = {"cpu": 1.0, "gpu": gpus_per_worker if gpus else 0.0}
    kind = "cuda" if gpus else "cpu"
    return Place(workers or fit, kind, partial(_train_there, ray, workers or fit, need, kind))


class _Mailbox:
    """An actor that carries ensembles to workers, and what came of them to the driver: Tune reports stay empty."""

    def __init__(self) -> None:
        self.ensembles: dict[str, Ensemble] = {}
        self.messages: list[tuple[str, Any]] = []

    def give(self, key: str, ensemble: Ensemble) -> None:
        self.ensembles[key] = ensemble

    def ensemble(self, key: str) -> Ensemble:
        return self.ensembles[key]

    def put(self, key: str, message: Any) -> None:
        self.messages.append((key, message))

    def drain(self) -> list[tuple[str, Any]]:
        messages, self.messages = self.messages, []
        for key, message in messages:
            if isinstance(message, Result | Failure):
                self.ensembles.pop(key, None)
        return messages


def _train_there(ray: Any, workers: int, need: dict[str, float], device: str, plan: Plan, train: str) -> None:
    """Train a plan to its end with Ray Tune, one Tune trial per ensemble, on actors that are used again."""
    from ray import tune
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    mailbox = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=beside).remote()
    searcher, callback = _suggestions(ray, plan, mailbox)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="hpsweep-", ignore_cleanup_errors=True) as folder:
        tune.run(
            _trainable(ray, mailbox, device, train, str(Path.cwd())),
            name="hpsweep",
            search_alg=searcher,
            callbacks=[callback],
            num_samples=-1,
            max_concurrent_trials=workers,
            resources_per_trial=need,
            reuse_actors=True,
            max_failures=0,  # the plan retries, here as on one machine
            raise_on_failed_trial=False,
            storage_path=folder,
            trial_dirname_creator=lambda trial: trial.trial_id,
            verbose=0,
            _remote=False,  # with ray:// too, this process is the driver: it alone writes the store
        )


def _suggestions(ray: Any, plan: Plan, mailbox: Any) -> tuple[Any, Any]:
    """A Searcher that suggests the plan's ensembles, and a Callback that hands the plan what came of them."""
    from ray.tune import Callback
    from ray.tune.search import Searcher

    running: dict[str, Ensemble] = {}
    dead: list[str] = []

    def deliver() -> None:
        for key, message in ray.get(mailbox.drain.remote()):
            if key in running and isinstance(message, Result | Failure):
                plan.done(running.pop(key), message)
            elif key in running:
                plan.progress(running[key], *message)
        while dead:  # after what it may have sent before it died
            if ensemble := running.pop(dead.pop(), ()):
                plan.done(ensemble, Failure("the Ray worker died", died=True))

    class Suggestions(Searcher):
        def suggest(self, trial_id: str) -> Any:  # a config, None or FINISHED, which Searcher does not declare
            deliver()
            ensemble = plan.next()
            if not ensemble:
                return None if ensemble is None else str(Searcher.FINISHED)
            running[trial_id] = ensemble
            ray.get(mailbox.give.remote(trial_id, ensemble))
            return {"ensemble": trial_id}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if error:
                dead.append(trial_id)  # Tune swallows what is raised here: deal with it in deliver

        def save(self, checkpoint_path: str) -> None: ...  # Tune's state is never used again

        def restore(self, checkpoint_path: str) -> None: ...

    class Delivery(Callback):
        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            deliver()

    return Suggestions(), Delivery()


def _trainable(ray: Any, mailbox: Any, device: str, train: str, folder: str) -> Any:
    """The Tune Trainable that trains one ensemble per trial."""
    from ray import tune

    class Worker(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            _prepare(train, device)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, bool]:
            with contextlib.suppress(OSError):  # Tune changes into its own folder; paths of data are relative to ours
                os.chdir(folder)
            key = self.config["ensemble"]
            ensemble = ray.get(mailbox.ensemble.remote(key))
            outcome = attempt(train, ensemble, device, lambda step, steps: mailbox.put.remote(key, (step, steps)))
            ray.get(mailbox.put.remote(key, outcome))  # arrived before Tune hears of the end
            return {"done": True}

    return Worker
