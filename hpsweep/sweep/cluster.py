"""The workers of a Ray cluster, by Ray Tune. The only file that imports ray.

Ray says "trial" for what is an ensemble here: one Tune trial trains one ensemble.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hpsweep.proxy.gpu import SHARE
from hpsweep.sweep.pace import Pace, Silences
from hpsweep.sweep.worker import (
    ENGINES,
    GPU_FAILURES,
    Ensemble,
    Failure,
    Part,
    Place,
    Plan,
    Result,
    attempt_ensemble,
    gpu_at_fault,
    one_line,
    why_unfit,
)

_CONNECT_SECONDS = 3.0
_LOST_SECONDS = 10.0  # a head that does not answer for so long is gone
_LOOK_SECONDS = 2.0  # between words of progress; every call across Ray takes milliseconds of a core

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
def ray_cluster(address: str) -> Iterator[Any]:
    """The ray module, connected to the cluster at `address`; ValueError where there is none."""
    address = _reachable(address)
    with (
        _environment(_RAY_ENVIRONMENT),
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        try:
            with _no_stderr(nowhere.fileno()):
                import ray

                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except ImportError as error:
            raise ValueError(f"address {address!r} needs {error}: pip install 'hpsweep[run]'.") from None
        except Exception as error:
            why = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
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
    if address.startswith("ray://"):
        raise ValueError(
            f"address is {address!r}, but Ray Tune cannot be driven through Ray Client: log in to a node of it "
            "and use --address auto there, or send the command with `ray job submit`."
        )
    parts = re.fullmatch(r"\[?([^/\]]+)\]?:(\d{1,5})", address)
    if not parts:
        raise ValueError(f"address is {address!r}; allowed: local, auto or HOST:6379.")
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


def ray_place(ray: Any, workers: int | None, device: str, gpus_per_worker: float) -> Place:
    """The workers of a Ray cluster, after asking one whether it has this hpsweep."""
    resources = ray.cluster_resources()
    gpus = 0
    if device != "cpu":
        gpus = int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ValueError("device is cuda, but the Ray cluster has no GPU; use device cpu, or auto.")
    if gpus:
        kind = "cuda"
        fit = gpus * int(1 / gpus_per_worker)
        need = {"cpu": 1.0, "gpu": gpus_per_worker}
    else:
        kind = "cpu"
        fit = int(resources.get("CPU", 0))
        need = {"cpu": 1.0, "gpu": 0.0}
    if not fit:
        raise ValueError("the Ray cluster has no CPU to train on; start its nodes with --num-cpus of at least 1.")

    def version() -> str:
        from hpsweep import __version__

        return __version__

    from hpsweep import __version__ as ours

    try:
        theirs = ray.get(ray.remote(version).options(num_cpus=0).remote(), timeout=60)
    except Exception as error:
        cause = one_line(getattr(error, "cause", error))
        raise ValueError(f"workers of the Ray cluster cannot import hpsweep: {cause}. Install it there.") from None
    if theirs != ours:
        raise ValueError(f"workers of the Ray cluster have hpsweep {theirs}, this is {ours}; install the same there.")
    return Place(workers or fit, kind, partial(_train_there, ray, workers or fit, need, kind), fit)


class _Began(NamedTuple):
    """A worker has taken its ensemble: the id of its node, its process there, and the GPUs that it sees."""

    node: str
    pid: int
    gpus: str


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
        messages = self.messages
        self.messages = []
        for key, message in messages:
            if isinstance(message, Result | Failure):
                self.ensembles.pop(key, None)
        return messages


def _train_there(ray: Any, workers: int, need: dict[str, float], device: str, plan: Plan, train: str) -> None:
    """Train a plan to its end with Ray Tune, one Tune trial per ensemble, on actors that are used again."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    mailbox = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=beside).remote()
    silences = Silences(Pace(speaks=train in ENGINES.values()))
    searcher, callback = _suggestions(ray, plan, mailbox, silences, partial(_kill, ray))
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="hpsweep-", ignore_cleanup_errors=True) as folder:
        _run_tune(
            ray,
            _trainable(ray, mailbox, device, train, str(Path.cwd()), need["gpu"]),
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
        )


def _run_tune(ray: Any, trainable: Any, **options: Any) -> None:
    """ray.tune.run; ConnectionError where the cluster goes away under it."""
    from ray import tune

    try:
        with _watching(ray.get_runtime_context().gcs_address):
            tune.run(trainable, **options)
    except ray.exceptions.RayTaskError:  # raised by our code in a worker
        raise
    except (ray.exceptions.RayError, tune.TuneError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConnectionError(f"the Ray cluster was lost: {why}") from error


@contextlib.contextmanager
def _watching(head: str) -> Iterator[None]:
    """Say so when nothing listens at the head's HOST:PORT any more: Ray blocks then, and ends us without a word."""
    done = threading.Event()

    def watch() -> None:
        answered = time.monotonic()
        while not done.wait(_LOOK_SECONDS):
            if _listens(head):
                answered = time.monotonic()
            elif time.monotonic() - answered > _LOST_SECONDS:
                message = "does not answer, and Ray ends this process within a minute. What is stored stays: start a"
                print(f"hpsweep: the Ray cluster's head at {head} {message} cluster, and run again.", file=sys.stderr)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True


def _kill(ray: Any, worker: _Began) -> None:
    """Kill a worker where it is: one that hangs may not answer Ray either. Ray sees it dead, and starts another."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def kill(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    there = NodeAffinitySchedulingStrategy(worker.node, soft=False)
    ray.remote(kill).options(num_cpus=0, scheduling_strategy=there).remote(worker.pid)


def _suggestions(
    ray: Any, plan: Plan, mailbox: Any, silences: Silences, kill: Callable[[_Began], None]
) -> tuple[Any, Any]:
    """A Searcher that suggests the plan's ensembles, and a Callback that hands the plan what came of them.

    Workers that hang are killed, and their ensembles tried again. The clock for this advances by two looks at most at
    a time: while this process itself is stopped, nobody can be heard.
    """
    from ray.tune import Callback
    from ray.tune.search import Searcher

    running: dict[str, Ensemble] = {}
    workers: dict[str, _Began] = {}
    held: dict[tuple[str, str], list[tuple[Ensemble, Failure]]] = defaultdict(list)  # by GPU: whose fault is not known
    hung: dict[str, str] = {}
    ended: list[str] = []
    looked = 0.0

    def deliver() -> None:
        nonlocal looked
        if not ended and time.monotonic() - looked < _LOOK_SECONDS:
            return
        now = time.monotonic()
        passed = min(now - looked, 2 * _LOOK_SECONDS)
        looked = now
        for key, message in ray.get(mailbox.drain.remote()):
            if key in running:
                take(key, message)
        for key, silence in silences.hanging(passed).items():
            hung[key] = f"the Ray worker hung: {silence}"
            kill(workers[key])
        while ended:  # without a result: it died
            key = ended.pop()
            silences.ended(key)
            ensemble = running.pop(key, ())
            if ensemble:
                plan.done(ensemble, Failure(hung.get(key, "the Ray worker died"), died=True))
        plan.tick()

    def take(key: str, message: Any) -> None:
        silences.heard(key)
        if isinstance(message, _Began):
            workers[key] = message
            silences.began(key, running[key])
        elif isinstance(message, Result | Failure):
            silences.ended(key)
            end(key, message)
        elif isinstance(message, Part):
            plan.part(running[key], message)
        elif isinstance(message, Exception):
            raise message
        else:
            silences.pace.speaks = True
            plan.progress(running[key], *message)

    def end(key: str, outcome: Result | Failure) -> None:
        began = workers.get(key, _Began("", 0, ""))
        gpu = began.node, began.gpus
        ensemble = running.pop(key)
        if isinstance(outcome, Failure) and outcome.of_gpu:
            held[gpu].append((ensemble, outcome))
            if len(held[gpu]) == GPU_FAILURES:
                raise gpu_at_fault(outcome)
            return
        plan.done(ensemble, outcome)
        if isinstance(outcome, Result):
            blame_trials(gpu)

    def blame_trials(gpu: tuple[str, str]) -> None:
        for ensemble, failure in held.pop(gpu, ()):
            plan.done(ensemble, failure)

    class Suggestions(Searcher):
        def suggest(self, trial_id: str) -> Any:  # a config, None or FINISHED, which Searcher does not declare
            deliver()
            ensemble = plan.next()
            if ensemble is None and not running:  # nothing else is left that could tell whose fault it was
                for gpu in list(held):
                    blame_trials(gpu)
                ensemble = plan.next()
            if ensemble is None:
                return None
            if not ensemble:
                return str(Searcher.FINISHED)
            running[trial_id] = ensemble
            ray.get(mailbox.give.remote(trial_id, ensemble))
            return {"ensemble": trial_id}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            ended.append(trial_id)  # Tune swallows what is raised here: deal with it in deliver

        def save(self, checkpoint_path: str) -> None: ...  # Tune's state is never used again

        def restore(self, checkpoint_path: str) -> None: ...

    class Delivery(Callback):
        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            deliver()

    return Suggestions(), Delivery()


def _trainable(ray: Any, mailbox: Any, device: str, train: str, folder: str, share: float) -> Any:
    """The Tune Trainable that trains one ensemble per trial."""
    from ray import tune

    class Worker(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            os.environ[SHARE] = str(share or 1)
            self.unfit = why_unfit(train, device)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, bool]:
            with contextlib.suppress(OSError):  # Tune changes into its own folder; paths of data are relative to ours
                os.chdir(folder)
            key = self.config["ensemble"]
            if self.unfit:
                ray.get(mailbox.put.remote(key, self.unfit))
                return {"done": True}
            ensemble = ray.get(mailbox.ensemble.remote(key))
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            mailbox.put.remote(key, _Began(ray.get_runtime_context().get_node_id(), os.getpid(), gpus))
            outcome = attempt_ensemble(
                *(train, ensemble, device),
                lambda *steps: mailbox.put.remote(key, steps),
                lambda part: ray.get(mailbox.put.remote(key, part)),
                every=_LOOK_SECONDS,
            )
            ray.get(mailbox.put.remote(key, outcome))  # arrived before Tune hears of the end
            if isinstance(outcome, Failure) and outcome.died:
                os._exit(1)  # Tune starts another actor
            return {"done": True}

    return Worker
