"""Training by a command: each trial is a process of its own, with a folder, a log, a report, and an end.

A trial's folder is `trials/ID` in the folder of the sweep. It holds trial.json (what the script may ask), report.jsonl
(what it reported), log.txt (what it printed), and whatever the script writes there itself.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpsweep.english import counted
from hpsweep.faults import TrialFailed
from hpsweep.own_training import guard
from hpsweep.own_training.code import code_hash, command_hashes
from hpsweep.own_training.logs import failure_text, keep_last_lines, trial_folder
from hpsweep.own_training.losses import NoResult, begin_report, read_losses
from hpsweep.own_training.outcome import reported_outcome, result_columns
from hpsweep.own_training.trial_file import attempt_of, run_values, write_trial
from hpsweep.proxy.outcome import Finished, Outcome, Progress
from hpsweep.running_trial import REPORT, TRIAL
from hpsweep.spec import Trial
from hpsweep.spec.command import Command
from hpsweep.spec.templates import filled, filled_arguments
from hpsweep.text import shown

_LOOK_SECONDS = 0.3  # between looks at the report

_OUTER = re.compile(
    r"(?:(?:LOCAL_|GROUP_|ROLE_)?(?:RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(?:ADDR|PORT)|SLURM_(?:PROCID|LOCALID|NTASKS)"
    r"|(?:TORCHELASTIC|OMPI_COMM_WORLD|PMI|PMIX)_\w+)"
)
"""Variables by which a launcher around hpsweep (torchrun, srun, mpirun) tells its processes who they are: a script that
saw them would wait for the others.
"""


class _End(NamedTuple):
    """How a script ended: its exit status (negative: a signal), whether it was out of time, how many processes were
    left, and the seconds it took.
    """

    returncode: int
    out_of_time: bool
    left: int
    seconds: float


def check_command(command: Command, trials: Sequence[Trial], *, cwd: str | Path | None = None) -> None:
    """Nothing, where every trial's arguments can be made and the program is there. Raises ValueError otherwise."""
    programs = {}
    for trial in trials:
        values = run_values(trial, Path("trial"), 1)
        command.check_names(values)
        filled_arguments([*command.environment.values(), command.source.path], values)
        last_step(command, values)
        path = filled(command.environment.get("PATH", ""), values) or None
        programs[filled_arguments(command.argv, values)[0]] = path
    for program, path in programs.items():
        _check_program(program, path, Path(cwd or Path.cwd()))


def _check_program(program: str, path: str | None, cwd: Path) -> None:
    """Raise ValueError for a program that is not there; `path` is where programs are looked for, None as here."""
    whole = program
    if "/" in program:
        whole = str(cwd / program)
    if shutil.which(whole, path=path) is None:
        raise ValueError(
            f"the command's program {shown(program)} is not found in PATH or cannot be executed; give its whole path, "
            "such as sys.executable for this Python."
        )


def last_step(command: Command, values: Mapping[str, Any]) -> int:
    """The step after which the script is finished. Raises ValueError where it is no whole number above 0."""
    text = filled(command.last_step, values) or ""
    try:
        step = float(text)
    except ValueError:
        step = math.nan
    if not step.is_integer() or step < 1:
        raise ValueError(
            f"command last_step {command.last_step!r} is {shown(text)}; it has to be a whole number from 1 on."
        )
    return int(step)


def arguments_of(command: Command, trial: Trial, folder: str | Path) -> list[str]:
    """The arguments of a trial's script, as they would be now; `folder` is the sweep's. Raises ValueError."""
    own = trial_folder(folder, trial)
    return filled_arguments(command.argv, run_values(trial, own, 1))


def train_command(
    trials: Sequence[Trial],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    finished: Finished | None = None,
    command: Command | Mapping[str, Any],
    folder: str | Path,
    cwd: str | Path | None = None,
) -> Outcome:
    """Train the trials by the command, one after another; rows in their order.

    `folder` is the sweep's folder; `cwd` where the script runs, by default where this process does. `progress` is
    called with (steps done, steps in all), of all trials, every half second also where nothing was reported; `finished`
    with what came of each trial but the last. Raises ValueError for a command that cannot be run, before any is; and,
    after the others have been trained, TrialFailed for the first one whose script gave no result.
    """
    if not isinstance(command, Command):
        command = Command(**command)
    where = Path(cwd or Path.cwd())
    check_command(command, trials, cwd=where)
    outcomes = []
    failed: TrialFailed | None = None
    for i, trial in enumerate(trials):

        def advance(step: int, steps: int, before: int = i) -> None:
            if progress is not None:
                progress((before * steps + step) // len(trials), steps)

        try:
            outcome = _train(trial, device, advance, command, trial_folder(folder, trial), where)
        except TrialFailed as error:
            failed = failed or error
            continue
        outcomes.append(outcome)
        if finished is not None and i + 1 < len(trials):
            finished(outcome)
    if failed is not None:
        if finished is not None and outcomes and outcomes[-1].rows[0]["trial_id"] == trials[-1].trial_id:
            finished(outcomes[-1])
        raise failed
    columns = {name: [x for one in outcomes for x in one.curves[name]] for name in outcomes[0].curves}
    return Outcome(rows=[row for one in outcomes for row in one.rows], curves=columns)


def _train(trial: Trial, device: str, progress: Progress, command: Command, folder: Path, cwd: Path) -> Outcome:
    """Train one trial. Raises TrialFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    attempt = attempt_of(folder)
    values = write_trial(trial, folder, attempt)
    argv = filled_arguments(command.argv, values)
    log, report = folder / "log.txt", folder / "report.jsonl"
    if log.exists():
        log.rename(folder / f"log-{attempt - 1}.txt")
    begin_report(report, attempt)
    log.write_text(f"$ {shlex.join(argv)}\n", encoding="utf-8")
    since = time.time()
    steps = last_step(command, values)
    environment = _environment(command, values, trial, folder)
    bad_end = ""
    try:
        end = _run(argv, environment, cwd, log, command, _steps_of(report, steps, progress))
        bad_end = _bad_end(end, command)
        losses = read_losses(command.source, values, report=report, log=log, since=since)
        columns = result_columns(losses, steps)
        if bad_end and columns["status"] == "ok":
            raise NoResult(bad_end)
    except NoResult as error:
        raise TrialFailed(failure_text(trial, bad_end or str(error), log)) from None
    keep_last_lines(log)
    code = code_hash(command_hashes(command, cwd))
    return reported_outcome(
        trial, losses, columns, device=device, engine="command", seconds=end.seconds, code_hash=code
    )


# --- a process and its end ---


def _environment(command: Command, values: Mapping[str, Any], trial: Trial, folder: Path) -> dict[str, str]:
    """The environment of a trial's script: ours, without an outer launcher's, with the trial's files."""
    ours = {name: value for name, value in os.environ.items() if not _OUTER.fullmatch(name)}
    port = str(_free_port())
    return {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",  # lest a script that is killed takes its last words with it
        **ours,
        TRIAL: str(folder / "trial.json"),
        REPORT: str(folder / "report.jsonl"),
        "HPSWEEP_FOLDER": str(folder),
        "HPSWEEP_ATTEMPT": str(values["attempt"]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PET_MASTER_PORT": port,  # of torchrun, which else takes 29500 for each
        "WANDB_RUN_GROUP": folder.parent.parent.name,
        "WANDB_NAME": trial.trial_id,
        **{name: filled(template, values) or "" for name, template in command.environment.items()},
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    log: Path,
    command: Command,
    look: Callable[[], None],
) -> _End:
    """Run a script to its end, under a guard that leaves nothing of it; `look` is called now and then.

    Raises NoResult where the program cannot be started.
    """
    ours, theirs = os.pipe()
    limits = [str(command.timeout or math.inf), str(command.grace)]
    words = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(theirs), *limits, "--", *argv]
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            words, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            pass_fds=[theirs], start_new_session=True,
        )  # fmt: skip
    os.close(theirs)
    try:
        told = _told(ours, look)
    finally:
        os.close(ours)
        process.terminate()  # a guard that is still there ends the script
        process.wait()
    if "error" in told:
        raise NoResult(f"it cannot be started: {told['error']}")
    if "returncode" not in told:  # the guard was killed
        if "pid" in told:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(told["pid"], signal.SIGKILL)
        told.update(returncode=-signal.SIGKILL, out_of_time=False, left=0)
    end = _End(told["returncode"], told["out_of_time"], told["left"], time.monotonic() - started)
    if end.left:
        with log.open("a", encoding="utf-8") as lines:
            lines.write(f"hpsweep ended {counted(end.left, 'process', 'processes')} that the script had left.\n")
    return end


def _told(descriptor: int, look: Callable[[], None]) -> dict[str, Any]:
    """What the guard tells until it closes its end of the pipe."""
    text = b""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while True:
        ready = waiting.poll(1000 * _LOOK_SECONDS)
        look()
        if not ready:
            continue
        more = os.read(descriptor, 65536)
        if not more:
            break
        text += more
    told: dict[str, Any] = {}
    for line in text.splitlines():
        told.update(json.loads(line))
    return told


def _steps_of(report: Path, steps: int, progress: Progress) -> Callable[[], None]:
    """A function that tells how far the script is, by what it has reported since."""
    size = report.stat().st_size
    step = 0

    def look() -> None:
        nonlocal size, step
        with report.open("rb") as file:
            file.seek(size)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        size += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # read strictly when it has ended
                step = max(step, int(json.loads(line)["step"]))
        progress(min(step, steps), steps)

    return look


# --- what came of it ---


def _bad_end(end: _End, command: Command) -> str:
    """Why the script's end is a failure, whatever it reported; else an empty text."""
    if end.out_of_time:
        return f"it took longer than the timeout of {command.timeout:g} s, and was ended"
    if end.returncode < 0:
        return f"it was killed by {_signal_name(-end.returncode)}"
    if end.returncode:
        return f"it ended with exit status {end.returncode}"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
