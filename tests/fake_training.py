"""A stand-in for hpsweep.proxy.train that any worker can import: it sleeps, keeps a log, and fails on demand.

It finds its orders and its log beside the file that the trials name as their data, so that workers of Ray,
which do not inherit our environment, find them too. orders.json: seconds per ensemble, silent for no word of progress;
how many trials must have started before any is trained; after how many lines of the log whoever begins is held until
the file `released` is there; trial ids that raise, that kill their worker always, or once, or that make it hang; trial
ids that cost their process its GPU, always or once, or of which no two can be captured together;
whether trials are trained one after the other; an error of the system, always or once; noise of the losses, by trial.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.gpu import GPULost
from hpsweep.rules.count import flops_dense
from hpsweep.spec import Sweep, Trial
from tests import processes
from tests.paths import ROOT

TRAIN = "tests.fake_training:train"


def sweep(folder: Path, **changes: Any) -> Sweep:
    """A sweep of 48 trials on a small text, which `train` below can work on; its log comes to lie in `folder`."""
    data = folder / "data.txt"
    if not data.exists():
        data.write_text("the quick brown fox jumps over the lazy dog\n" * 400)
    base = Trial(data=f"text:{data}", steps=10, width=32, head_size=16, context=16, eval_sequences=8)
    grid = {"density": [1.0, 0.25], "lr": [2.0**k for k in range(-12, -4)], "seed": [0, 1, 2]}
    return Sweep(**{"name": "fake", "base": base, "grid": grid, **changes})


def order(folder: Path, **orders: Any) -> None:
    """Say how `train` behaves from its next ensemble on.

    seconds, silent, together, hold_after, fail, die, die_once, hang, lose_gpu, lose_gpu_once, too_large, one_by_one,
    fault, fault_once, noise, data_hash (another than ours).
    """
    written = folder / "orders.tmp"
    written.write_text(json.dumps(orders))
    written.replace(folder / "orders.json")  # whole, whichever worker reads it now


def log(folder: Path) -> list[tuple[str, str, int]]:
    """(what, trial id, process) in order; what is "started", "held" or "trained"."""
    path = folder / "log.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(what, trial_id, int(pid)) for what, trial_id, pid in map(str.split, lines)]


def train(
    trials: Sequence[Trial],
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    finished: Callable[[Any], None] | None = None,
) -> Any:
    """Rows and curves as hpsweep.proxy.train gives them, after a while; `seconds` of each, if one by one."""
    orders = orders_of(trials)
    if not orders.get("one_by_one"):
        return _train(trials, device, progress)
    outcomes = []
    for trial in trials:
        outcomes.append(_train([trial], device, progress))
        if finished is not None:
            finished(outcomes[-1])
    curves = {name: [x for one in outcomes for x in one.curves[name]] for name in outcomes[0].curves}
    return SimpleNamespace(rows=[row for one in outcomes for row in one.rows], curves=curves)


def orders_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """What lies beside the trials' data."""
    path = Path(trials[0].data.removeprefix("text:")).parent / "orders.json"
    orders: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return orders


def _train(trials: Sequence[Trial], device: str, progress: Callable[[int, int], None] | None) -> Any:
    folder = Path(trials[0].data.removeprefix("text:")).parent
    orders = orders_of(trials)
    hold = len(log(folder)) >= orders.get("hold_after", math.inf)
    _note(folder, "started", trials)
    if hold:
        _note(folder, "held", trials)
        wait_for((folder / "released").exists)
    ids = {trial.trial_id for trial in trials}
    if ids & set(orders.get("die", [])) or (ids & set(orders.get("die_once", [])) and _first_time(folder)):
        os.kill(os.getpid(), signal.SIGKILL)
    if ids & set(orders.get("hang", [])):
        time.sleep(3600)
    _use_gpu(folder, ids, orders)
    if "fault" in orders or ("fault_once" in orders and _first_time(folder)):
        number = orders.get("fault", orders.get("fault_once"))
        raise OSError(number, os.strerror(number), "data.txt")
    wait_for(lambda: sum(what == "started" for what, _, _ in log(folder)) >= orders.get("together", 0))
    for step in range(10):
        time.sleep(orders.get("seconds", 0.05) / 10)
        if progress is not None and not orders.get("silent"):
            progress(step, 10)
    if bad := sorted(ids & set(orders.get("fail", []))):
        raise RuntimeError(f"made to fail by {bad[0]}\nand a second line")
    _note(folder, "trained", trials)
    rows = [row(trial, len(trials), orders.get("seconds", 0.05), device) for trial in trials]
    for made in rows:
        made["val_loss"] += orders.get("noise", 0.0) * random.Random(made["trial_id"]).gauss(0, 1)
    if "data_hash" in orders:
        rows = [{**made, "data_hash": orders["data_hash"]} for made in rows]
    curves = {"trial_id": [t.trial_id for t in trials], "step": [10] * len(trials), "tokens": [10] * len(trials)}
    losses = [made["val_loss"] for made in rows]
    return SimpleNamespace(rows=rows, curves={**curves, "train_loss": losses, "val_loss": losses})


_gpu: dict[str, str] = {}  # the error with which every use of this process's GPU ends


def _use_gpu(folder: Path, ids: set[str], orders: dict[str, Any]) -> None:
    once = ids & set(orders.get("lose_gpu_once", []))
    if ids & set(orders.get("lose_gpu", [])) or (once and _first_time(folder)):
        _gpu["error"] = "CUDA error: an illegal memory access was encountered"
    if "error" in _gpu:
        raise RuntimeError(_gpu["error"])
    if len(ids) > 1 and ids & set(orders.get("too_large", [])):
        raise GPULost("made up, in a capture") from RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def row(trial: Trial, size: int, seconds: float, device: str) -> dict[str, Any]:

    loss = 3 + 0.01 * (math.log2(trial.lr) + 8) ** 2 + 0.001 * trial.seed
    return {
        "trial_id": trial.trial_id, **trial.resolved, "tokens": trial.total_tokens,
        "flops_dense": flops_dense(trial, 256),
        "status": "ok", "val_loss": loss, "device": f"fake {device}", "engine": "fake",
        "vocabulary": 256, "data_hash": load_dataset(trial.data).data_hash,
        "ensemble_size": size, "seconds": seconds / size,
    }  # fmt: skip


def _note(folder: Path, what: str, trials: Sequence[Trial]) -> None:
    with (folder / "log.txt").open("a") as file:
        file.write("".join(f"{what} {trial.trial_id} {os.getpid()}\n" for trial in trials))


def _first_time(folder: Path) -> bool:
    try:
        (folder / "died").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


# --- the hpsweep command, training with the above ---

_COMMAND = f"""
import signal, sys, hpsweep.cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests themselves run in the background
sys.exit(hpsweep.cli.main(sys.argv[1:], train={TRAIN!r}))
"""


def environment() -> dict[str, str]:
    """An environment in which other processes can import hpsweep and this module."""
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def command(folder: Path, *words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """`hpsweep *words` as a process of its own, in `folder`; its output is in .communicate(). Ends with its test."""
    line = [sys.executable, "-c", _COMMAND, *words]
    return processes.start(line, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=stderr)


def experiment(folder: Path, **changes: Any) -> Sweep:
    """The sweep above, as folder/experiments/fake.py too."""
    made = sweep(folder, **changes)
    text = f"from pathlib import Path\nfrom tests import fake_training\n\nFOLDER = Path({str(folder)!r})\n"
    text += f"SWEEP = fake_training.sweep(FOLDER, **{changes!r})\n"
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "fake.py").write_text(text)
    return made


def is_alive(pid: int) -> bool:
    """Whether the process runs, on Linux; one that has ended and waits to be heard of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Return when the condition holds; AssertionError if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


def kill_one_that_is_held(folder: Path) -> None:
    """Kill a worker in the middle of an ensemble, as orders have hold_after, and let all others go on.

    Nothing is lost but its ensemble: its results before have come to the driver, which has given it this one since.
    """
    wait_for(lambda: any(what == "held" for what, _, _ in log(folder)))
    os.kill(next(pid for what, _, pid in log(folder) if what == "held"), signal.SIGKILL)
    (folder / "released").touch()
