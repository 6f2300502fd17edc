from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpsweep import store
from hpsweep.faults import TrialFailed
from hpsweep.own_training import command as engine
from hpsweep.own_training.command import arguments_of, check_command, train_command
from hpsweep.proxy.outcome import Outcome
from hpsweep.spec import Trial
from hpsweep.spec.command import Command
from hpsweep.sweep.worker import Failure, Result, attempt_ensemble
from tests import processes
from tests.fake_training import is_alive, wait_for
from tests.paths import ROOT

TRIAL = Trial(steps=4, width=32, head_size=16, lr=2.0**-7)

REPORTS = """
    for step in range(1, trial.steps + 1):
        trial.report(step, train_loss=8 / step)
    trial.report(trial.steps, val_loss=1 + trial.lr)
"""


def command(folder: Path, text: str, *words: str, **fields: Any) -> Command:
    """A command that runs a script which knows its trial, by a copy of the one file that it takes."""
    shutil.copy(ROOT / "hpsweep" / "running_trial.py", folder)
    script = folder / "train.py"
    head = "import os, subprocess, sys, time\nfrom running_trial import this_trial\ntrial = this_trial()\n"
    script.write_text(head + textwrap.dedent(text))
    return Command(argv=[sys.executable, "-S", str(script), *words], **fields)


def trained(folder: Path, command: Command, *trials: Trial, **options: Any) -> Outcome:
    return train_command(trials or (TRIAL,), command=command, folder=folder / "mine", **options)


def failure(folder: Path, command: Command, *trials: Trial) -> str:
    with pytest.raises(TrialFailed) as caught:
        trained(folder, command, *trials)
    return str(caught.value)


def own(folder: Path, trial: Trial = TRIAL) -> Path:
    return folder / "mine" / "trials" / trial.trial_id


def lrs(*exponents: int) -> list[Trial]:
    return [TRIAL.replace(lr=2.0**exponent) for exponent in exponents]


# --- a trial that succeeds ---


def test_trials_are_trained_one_after_another_and_rows_are_in_their_order(tmp_path: Path) -> None:
    trials = lrs(-9, -8, -7)
    parts: list[Outcome] = []
    outcome = trained(tmp_path, command(tmp_path, REPORTS), *trials, finished=parts.append)
    assert [row["trial_id"] for row in outcome.rows] == [trial.trial_id for trial in trials]
    assert [row["val_loss"] for row in outcome.rows] == [1 + trial.lr for trial in trials]
    assert [part.rows[0]["trial_id"] for part in parts] == [trial.trial_id for trial in trials[:2]]
    assert {row["status"] for row in outcome.rows} == {"ok"}
    assert outcome.curves["trial_id"] == [trial.trial_id for trial in trials for _ in range(4)]
    assert outcome.curves["step"] == [1, 2, 3, 4] * 3
    assert outcome.curves["train_loss"] == [8, 4, 8 / 3, 2] * 3
    assert outcome.curves["val_loss"][:4] == [None, None, None, 1 + 2.0**-9]


def test_rows_and_curves_are_stored_as_those_of_any_engine(tmp_path: Path) -> None:
    outcome = trained(tmp_path, command(tmp_path, REPORTS + "    trial.report(parameters=123, hidden_nonzeros=45)"))
    store.append(tmp_path / "mine", outcome.rows, outcome.curves)
    (row,) = store.read_runs(tmp_path / "mine").to_pylist()
    assert (row["status"], row["engine"], row["ensemble_size"]) == ("ok", "command", 1)
    assert (row["train_loss"], row["initial_loss"], row["val_loss_se"]) == (2.0, 8.0, None)
    assert (row["parameters"], row["hidden_nonzeros"], row["hidden_parameters"]) == (123, 45, None)
    assert row["tokens"] == TRIAL.total_tokens
    assert row["flops_dense"] is row["vocabulary"] is row["data_hash"] is None
    assert 0 < row["seconds"] < 60
    assert store.load_curves(tmp_path / "mine")["tokens"].iloc[-1] == TRIAL.total_tokens


def test_arguments_are_what_the_templates_say_and_no_shell_reads_them(tmp_path: Path) -> None:
    text = "import json\nopen(trial.folder + '/argv.json', 'w').write(json.dumps(sys.argv[1:]))" + textwrap.dedent(
        REPORTS
    )
    trial = TRIAL.replace(data="a b; $HOME *", lr=1e-5)
    words = ["--lr={lr}", "--data={data}", "{--tied if tied}", "{--untied if not tied}", "{folder}", "{config}"]
    templates = command(tmp_path, text, *words)
    trained(tmp_path, templates, trial)
    folder = own(tmp_path, trial)
    expected = ["--lr=1.0e-05", "--data=a b; $HOME *", "--tied", str(folder), str(folder / "trial.json")]
    assert json.loads((folder / "argv.json").read_text()) == expected
    assert arguments_of(templates, trial, tmp_path / "mine")[3:] == expected
    assert json.loads((folder / "trial.json").read_text())["lr"] == 1e-5
    assert (folder / "log.txt").read_text().startswith(f"$ {sys.executable} -S ")


SOURCES = {
    "csv:log.csv?step=iter&val_loss=val/loss": """
        with open(trial.folder + "/log.csv", "w") as file:
            print("iter,val/loss", "2,2.5", "4,1.5", sep="\\n", file=file)
    """,
    "json:out/trainer_state.json": """
        os.mkdir(trial.folder + "/out")
        with open(trial.folder + "/out/trainer_state.json", "w") as file:
            file.write('{"log_history": [{"step": 2, "eval_loss": 2.5}, {"step": 4, "loss": 1.0, "eval_loss": 1.5}]}')
    """,
    r"stdout: step (?P<step>\d+): .*val loss (?P<val_loss>\S+)": """
        print("step 2: train loss 3.0, val loss 2.5")
        print("step 4: train loss 2.0, val loss 1.5", file=sys.stderr)
    """,
    "report": "trial.report(2, val_loss=2.5)\ntrial.report(4, val_loss=[1.0, 2.0])",
}


@pytest.mark.parametrize("losses", SOURCES, ids=lambda losses: losses.partition(":")[0])
def test_losses_are_read_from_each_source(tmp_path: Path, losses: str) -> None:
    outcome = trained(tmp_path, command(tmp_path, SOURCES[losses], losses=losses))
    assert outcome.rows[0]["val_loss"] == 1.5
    assert outcome.rows[0]["val_loss_se"] == (0.5 if losses == "report" else None)
    assert outcome.curves["val_loss"] == [2.5, 1.5]


def test_progress_is_told_as_the_script_reports_and_of_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LOOK_SECONDS", 0.01)
    text = """
        for step in range(1, 5):
            trial.report(step, train_loss=1.0)
            while not os.path.exists(f"{trial.folder}/go{step}"):
                time.sleep(0.005)
        trial.report(4, val_loss=1.0)
    """
    seen = []

    def progress(step: int, steps: int) -> None:
        seen.append((step, steps))
        for trial in trials:
            if own(tmp_path, trial).is_dir():
                (own(tmp_path, trial) / f"go{(2 * step) % 4 or 4}").touch()
                (own(tmp_path, trial) / f"go{(2 * step + 1) % 4}").touch()

    trials = lrs(-8, -7)
    trained(tmp_path, command(tmp_path, text, timeout=60), *trials, progress=progress)
    assert {steps for _, steps in seen} == {4}
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)
    assert {1, 3} <= {step for step, _ in seen}  # half of the first trial; all of it and half of the second


def test_a_long_curve_is_kept_as_two_hundred_means(tmp_path: Path) -> None:
    text = "for step in range(1, 1001):\n    trial.report(step, train_loss=step)\ntrial.report(1000, val_loss=1.0)"
    outcome = trained(tmp_path, command(tmp_path, text), TRIAL.replace(steps=1000))
    assert outcome.curves["step"] == list(range(5, 1001, 5))
    assert outcome.curves["train_loss"] == [float(step - 2) for step in range(5, 1001, 5)]
    assert outcome.curves["val_loss"] == [*[None] * 199, 1.0]


def test_of_a_success_the_last_lines_of_the_log_are_kept_and_of_a_failure_all(tmp_path: Path) -> None:
    text = "for i in range(5000):\n    print('line', i)\n" + textwrap.dedent(REPORTS)
    log = own(tmp_path) / "log.txt"
    failure(tmp_path, command(tmp_path, text + "sys.exit(3)"))
    assert log.read_text().splitlines()[1:] == [f"line {i}" for i in range(5000)]
    trained(tmp_path, command(tmp_path, text))
    first, dots, *lines = log.read_text().splitlines()
    assert first.startswith("$ ")
    assert dots == "..."
    assert lines == [f"line {i}" for i in range(4800, 5000)]
    assert len((own(tmp_path) / "log-1.txt").read_text().splitlines()) == 5001  # of the attempt before


def test_a_trial_that_is_tried_again_finds_its_folder_and_knows_it(tmp_path: Path) -> None:
    text = """
        checkpoint = trial.folder + "/checkpoint"
        if not os.path.exists(checkpoint):
            open(checkpoint, "w").close()
            trial.report(2, train_loss=4.0)
            sys.exit("preempted")
        trial.report(4, val_loss=trial.attempt + int(os.environ["HPSWEEP_ATTEMPT"]))
    """
    script = command(tmp_path, text)
    assert "preempted" in failure(tmp_path, script)
    outcome = trained(tmp_path, script)
    assert outcome.rows[0]["val_loss"] == 4
    assert outcome.curves["step"] == [2, 4]


def test_a_trial_whose_file_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    own(tmp_path).mkdir(parents=True)
    (own(tmp_path) / "trial.json").touch()
    assert trained(tmp_path, command(tmp_path, REPORTS)).rows[0]["status"] == "ok"


def test_the_last_step_may_be_called_otherwise(tmp_path: Path) -> None:
    script = command(tmp_path, "trial.report(3, val_loss=1.0)", last_step="{steps-1}")
    assert trained(tmp_path, script).rows[0]["status"] == "ok"
    with pytest.raises(ValueError, match=r"last_step '\{steps/3\}' is '1\.333.*'; it has to be a whole number"):
        trained(tmp_path, command(tmp_path, "", last_step="{steps/3}"))


# --- its environment ---


def environment_of(folder: Path, **fields: Any) -> dict[str, str]:
    text = "import json\nopen(trial.folder + '/env.json', 'w').write(json.dumps(dict(os.environ)))" + textwrap.dedent(
        REPORTS
    )
    trained(folder, command(folder, text, **fields))
    environment: dict[str, str] = json.loads((own(folder) / "env.json").read_text())
    return environment


def test_a_script_under_an_outer_launcher_does_not_take_itself_for_one_of_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "SLURM_PROCID"]
    outer += ["SLURM_LOCALID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "TORCHELASTIC_RUN_ID"]
    for name in [*outer, "MASTER_ADDR", "MASTER_PORT"]:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = environment_of(tmp_path)  # and RANK 7 would have reported nothing
    assert not set(outer) & set(found)
    assert found["MASTER_ADDR"] == "127.0.0.1"
    assert found["MASTER_PORT"] == found["PET_MASTER_PORT"] != "7"
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(found["MASTER_PORT"])))
    assert (found["SLURM_JOB_ID"], found["CUDA_VISIBLE_DEVICES"], found["OMP_NUM_THREADS"]) == ("123", "3", "2")


def test_a_script_finds_its_files_and_its_name_for_a_dashboard_in_the_environment(tmp_path: Path) -> None:
    found = environment_of(tmp_path, environment={"SEED": "{seed}", "WANDB_MODE": "offline"})
    assert found["HPSWEEP_FOLDER"] == str(own(tmp_path))
    assert found["HPSWEEP_TRIAL"] == str(own(tmp_path) / "trial.json")
    assert (found["WANDB_RUN_GROUP"], found["WANDB_NAME"]) == ("mine", TRIAL.trial_id)
    assert (found["SEED"], found["WANDB_MODE"], found["PYTHONUNBUFFERED"]) == ("0", "offline", "1")


def test_a_script_runs_where_the_driver_does(tmp_path: Path) -> None:
    text = "open('here', 'w').close()" + textwrap.dedent(REPORTS)
    trained(tmp_path, command(tmp_path, text), cwd=tmp_path)
    assert (tmp_path / "here").exists()


# --- a trial that fails ---


def test_a_setting_on_which_the_script_dies_fails_alone_and_the_others_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "if trial.lr == 2**-8:\n    raise RuntimeError('no kernel for this')\n" + textwrap.dedent(REPORTS)
    trials = lrs(-9, -8, -7)
    sent: list[str] = []

    def part(some: Any) -> None:
        sent.extend(row["trial_id"] for row in some.rows)

    train = f"{__name__}:train_by_environment"
    monkeypatch.setenv("TEST_COMMAND", json.dumps([command(tmp_path, text).to_dict(), str(tmp_path / "mine")]))
    outcome = attempt_ensemble(train, tuple(trials), "cpu", lambda step, steps: None, part, every=0.0)
    assert isinstance(outcome, Failure)
    assert f"it ended with exit status 1. Its log is {tmp_path}" in outcome.error
    assert f"{trials[1].trial_id}/log.txt. Its last line: RuntimeError: no kernel" in outcome.error
    assert not outcome.died
    assert sent == [trials[0].trial_id, trials[2].trial_id]
    good = attempt_ensemble(train, (trials[0],), "cpu", lambda step, steps: None)
    assert isinstance(good, Result)


def train_by_environment(trials: Any, *, device: str, progress: Any, finished: Any = None) -> Outcome:
    """What a worker imports by its name."""
    fields, folder = json.loads(os.environ["TEST_COMMAND"])
    return train_command(
        trials, device=device, progress=progress, finished=finished, command=Command(**fields), folder=folder
    )


def test_an_error_has_what_happened_the_last_lines_and_the_path_of_the_log(tmp_path: Path) -> None:
    text = "for i in range(100):\n    print('line', i)\nopen('/no/such/file')"
    said = failure(tmp_path, command(tmp_path, text))
    first, second, *lines = said.splitlines()
    assert first.startswith("it ended with exit status 1. Its log is ")
    assert "Its last line: FileNotFoundError" in first
    assert str(own(tmp_path) / "log.txt") in first
    assert second == "The last lines of its log:"
    assert len(lines) == 20
    assert "line 99" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('all done')", r"there is no loss in its reports .*Report it by .*Its last line: all done"),
        ("pass", r"there is no loss in its reports .*It printed nothing"),
        ("trial.report(2, val_loss=1.0)", r"the last held-out loss in its reports .* is of step 2"),
        ("trial.report(8, val_loss=1.0)", r"goes on to step 8, but the trial has 4 steps"),
        ("trial.report(4, train_loss=1.0)", r"has training losses alone"),
        ("os.kill(os.getpid(), 9)", r"it was killed by SIGKILL"),
        ("os.kill(os.getpid(), 40)", r"it was killed by signal 40"),
        ("trial.report(4, val_loss=1.0); sys.exit(3)", r"it ended with exit status 3"),
        ("print('\\x1b[2J\\x1b[31mred'); sys.exit(1)", r"Its last line: \\x1b\[2J\\x1b\[31mred"),
    ],
)
def test_a_script_without_a_result_is_a_failure_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    said = failure(tmp_path, command(tmp_path, text)).splitlines()[0]
    assert f"{TRIAL.trial_id}/log.txt" in said
    assert re.search(message, said), said


@pytest.mark.parametrize("end", ["", "\nsys.exit('the loss is nan')"])
def test_a_loss_that_is_no_number_is_a_divergence_also_where_the_script_gives_up(tmp_path: Path, end: str) -> None:
    text = "trial.report(1, train_loss=5.0)\ntrial.report(2, train_loss=float('nan'))\ntrial.report(3, train_loss=1.0)"
    outcome = trained(tmp_path, command(tmp_path, text + end))
    (row,) = outcome.rows
    assert (row["status"], row["diverged_step"], row["initial_loss"]) == ("diverged", 2, 5.0)
    assert "val_loss" not in row
    assert outcome.curves["step"] == [1]


def test_templates_and_the_program_are_checked_before_anything_runs(tmp_path: Path) -> None:
    script = command(tmp_path, "open(os.environ['HPSWEEP_FOLDER'] + '/../../../ran', 'w').close()")
    for argv, message in (
        ([*script.argv, "{kv_group}"], r"the command uses \{kv_group\}, which no trial has"),
        ([*script.argv, "{lr/(width-64)}"], r"cannot be computed with lr=0\.0078125, width=64: .*division"),
        (["no-such-program"], "the command's program 'no-such-program' is not found in PATH"),
        (["./no-such-program"], "the command's program './no-such-program' is not found"),
        ([str(tmp_path / "train.py")], r"cannot be executed; give its whole path"),
    ):
        with pytest.raises(ValueError, match=message):
            trained(tmp_path, Command(argv=argv), TRIAL, TRIAL.replace(width=64))
    assert not (tmp_path / "mine").exists()
    check_command(script, [TRIAL])


def test_a_program_that_is_none_is_a_failure_with_the_reason(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("neither a script nor a binary")
    program.chmod(0o755)
    assert "it cannot be started: [Errno 8] Exec format error" in failure(tmp_path, Command(argv=[str(program)]))


# --- processes that stay ---

CHILD = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(3600)'], start_new_session={})"


def left_in(folder: Path) -> list[int]:
    """Processes that run there, or with the folder in their command."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) or process.environ().get("MARK") == str(folder):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [pid for pid in found if is_alive(pid) and pid != os.getpid()]


def test_a_hang_ends_after_the_timeout_by_sigterm_and_the_script_may_still_save(tmp_path: Path) -> None:
    text = """
        import signal
        def save(*_):
            open(trial.folder + "/saved", "w").close()
            sys.exit(1)
        signal.signal(signal.SIGTERM, save)
        time.sleep(3600)
    """
    script = command(tmp_path, text, timeout=3)  # long enough for Python to have begun
    assert "it took longer than the timeout of 3 s, and was ended" in failure(tmp_path, script)
    assert (own(tmp_path) / "saved").exists()


def test_a_hang_that_ignores_sigterm_is_killed_after_the_grace_with_all_it_started(tmp_path: Path) -> None:
    text = f"""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        {CHILD.format(False)}
        {CHILD.format(True)}
        time.sleep(3600)
    """
    script = command(tmp_path, text, timeout=0.5, grace=0.2, environment={"MARK": str(tmp_path)})
    assert "it took longer than the timeout of 0.5 s" in failure(tmp_path, script)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("session", [False, True])
def test_what_a_script_leaves_running_is_ended_and_told_in_its_log(tmp_path: Path, session: bool) -> None:
    text = CHILD.format(session) + textwrap.dedent(REPORTS)
    trained(tmp_path, command(tmp_path, text, environment={"MARK": str(tmp_path)}))
    assert left_in(tmp_path) == []
    assert "hpsweep ended 1 process that the script had left." in (own(tmp_path) / "log.txt").read_text()


def started_in_a_process(folder: Path, script: Command) -> subprocess.Popen[str]:
    """A process that trains a trial by the command, as a worker does."""
    code = f"""
        from pathlib import Path
        from hpsweep.own_training.command import train_command
        from hpsweep.spec import Trial
        from hpsweep.spec.command import Command
        trial = Trial(steps=4, width=32, head_size=16, lr=2.0**-7)
        train_command([trial], command=Command(**{script.to_dict()!r}), folder={str(folder / "mine")!r})
    """
    return processes.start([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)


FOREVER = f"""
    {CHILD.format(False)}
    {CHILD.format(True)}
    open(trial.folder + "/here", "w").close()
    time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_leaves_no_process_of_the_script(tmp_path: Path, number: signal.Signals) -> None:
    worker = started_in_a_process(tmp_path, command(tmp_path, FOREVER, environment={"MARK": str(tmp_path)}))
    wait_for((own(tmp_path) / "here").exists)
    assert len(left_in(tmp_path)) == 5  # the worker, the guard, the script and its children
    worker.send_signal(number)
    worker.wait(60)
    wait_for(lambda: left_in(tmp_path) == [])


def test_a_guard_that_is_killed_takes_the_script_with_it_and_the_trial_fails(tmp_path: Path) -> None:
    text = FOREVER.replace("time.sleep(3600)\n", "os.kill(os.getppid(), 9); time.sleep(3600)\n")
    text = text.replace(CHILD.format(True), "pass")
    script = command(tmp_path, text, environment={"MARK": str(tmp_path)})
    assert "it was killed by SIGKILL" in failure(tmp_path, script)
    wait_for(lambda: left_in(tmp_path) == [])


def test_a_script_dies_with_its_guard_also_where_no_worker_can_end_it(tmp_path: Path) -> None:
    text = "open(trial.folder + '/here', 'w').close()\ntime.sleep(3600)"
    worker = started_in_a_process(tmp_path, command(tmp_path, text, environment={"MARK": str(tmp_path)}))
    wait_for((own(tmp_path) / "here").exists)
    worker.send_signal(signal.SIGSTOP)
    (guard,) = psutil.Process(worker.pid).children()
    (script,) = guard.children()
    guard.kill()
    wait_for(lambda: not is_alive(script.pid))
    worker.kill()


def test_an_interruption_of_the_worker_ends_the_script_first(tmp_path: Path) -> None:
    def progress(step: int, steps: int) -> None:
        if (own(tmp_path) / "here").exists():
            raise KeyboardInterrupt

    script = command(tmp_path, FOREVER, environment={"MARK": str(tmp_path)})
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, script, progress=progress)
    assert left_in(tmp_path) == []
