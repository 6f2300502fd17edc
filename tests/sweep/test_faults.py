"""Faults of the machine in the middle of work: folders that are moved, file systems without locks, errors by number."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpsweep import faults, store
from hpsweep.cli import main
from hpsweep.lock import NO_LOCK
from hpsweep.store import writing
from tests import fake_training as fake
from tests.sweep.test_run import Quiet, ids, stored, train_all

# --- the results folder is moved, removed or replaced while a run writes to it ---


def half_trained(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run that has stored a part of 48 trials and is held in the middle of training, and its results folder."""
    fake.experiment(folder)
    fake.order(folder, seconds=0.05, hold_after=24)
    driver = fake.command(folder, "run", "fake", "--workers", "1", "--ensemble-size", "4")
    fake.wait_for(lambda: any(what == "held" for what, _, _ in fake.log(folder)))
    return driver, folder / "results" / "fake"


def told(driver: subprocess.Popen[str]) -> str:
    """What a run says last, which ends as one that cannot go on does."""
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 1, err
    assert "Traceback" not in err
    assert "trials stored in" not in out
    return err.splitlines()[-1]


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("another", [False, True])
def test_a_folder_that_is_moved_stops_the_run_which_says_how_many_trials_are_stored_where(
    tmp_path: Path, another: bool
) -> None:
    driver, folder = half_trained(tmp_path)
    place = tmp_path / "elsewhere"
    folder.rename(place)
    if another:  # and another process begins in its place
        folder.mkdir()
    before = len(store.finished_ids(place))
    last = told(driver)  # without a word from training: it is held
    assert 0 < before < 48
    assert last == (
        f"hpsweep: results/fake is not the folder any more that was locked: it was moved to {place}. {before} of 48 "
        f"trials are stored in {place}: put it back as results/fake, and the same command goes on."
    )
    assert not folder.exists() or not content(folder)
    if another:
        folder.rmdir()
    place.rename(folder)
    (tmp_path / "released").touch()
    out, _ = fake.command(tmp_path, "run", "fake", "--workers", "1").communicate(timeout=120)
    assert f"48 of 48 trials stored in results/fake (0 diverged, 0 failed); {48 - before} trained now" in out


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no paths of open folders")
def test_what_is_trained_when_the_folder_is_moved_is_stored_where_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpsweep.sweep.queue._CHECK_SECONDS", 1e9)  # it is seen when the next ensemble is stored
    sweep = fake.sweep(tmp_path)
    folder, place = tmp_path / "results" / "fake", tmp_path / "elsewhere"
    reached: list[int] = []

    class Mover(Quiet):
        def show(self, status: Any, *, finished: bool) -> None:
            reached.append(status.done)
            if finished and status.done == 16:
                folder.rename(place)

    with pytest.raises(store.FolderLost, match="24 of 48 trials are stored in"):
        train_all(tmp_path, sweep, workers=1, reporter=Mover())
    assert max(reached) == 16  # what the next ensemble gave is on the disk, and was not counted before it was looked at
    assert len(store.finished_ids(place)) == 24
    assert not folder.exists()


def test_a_folder_that_is_removed_stops_the_run(tmp_path: Path) -> None:
    driver, folder = half_trained(tmp_path)
    number = len(stored(tmp_path))
    shutil.rmtree(folder)
    assert told(driver) == (
        "hpsweep: results/fake is not the folder any more that was locked: it was removed or unmounted. Of the "
        f"{number} trials that were stored none is left there. The same command begins anew."
    )
    assert not folder.exists()


def test_a_lock_that_is_removed_guards_no_more_and_stops_the_run(tmp_path: Path) -> None:
    driver, folder = half_trained(tmp_path)
    (folder / ".lock").unlink()
    with store.lock(folder):  # as a second run could
        last = told(driver)
    assert "its .lock was removed or replaced, so that nothing keeps a second run away." in last
    assert last.endswith(
        f"{len(stored(tmp_path))} of 48 trials are stored in it. The same command trains what is missing."
    )


def test_files_that_are_removed_in_mid_run_are_not_counted_as_stored(tmp_path: Path) -> None:
    driver, folder = half_trained(tmp_path)
    for path in (folder / "runs").iterdir():
        path.unlink()
    (tmp_path / "released").touch()
    fake.order(tmp_path, seconds=0)
    last = told(driver)
    left = len(stored(tmp_path))
    assert left < 48
    assert last == (
        f"hpsweep: files were removed from results/fake meanwhile, with {48 - left} stored trials. {left} of 48 trials "
        "are stored in it. The same command trains what is missing."
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_file_system_that_is_unmounted_stops_the_run(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    mount("-t", "tmpfs", "none", str(results))
    try:
        driver, _ = half_trained(tmp_path)
        number = len(stored(tmp_path))
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)
    last = told(driver)
    assert "it was removed or unmounted." in last
    assert last.endswith(
        f"{number} of 48 trials are stored there: mount it again as results/fake, and the same command goes on."
    )
    assert not content(results)


def mount(*words: str) -> None:
    """Mount a file system, or skip the test where a container may not."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")


def test_a_folder_that_is_moved_while_it_is_joined_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_all(tmp_path)
    folder, place = tmp_path / "results" / "fake", tmp_path / "elsewhere"
    write = store.write_part

    def moved(*arguments: Any) -> None:
        if folder.exists():
            folder.rename(place)
        write(*arguments)

    monkeypatch.setattr(writing, "write_part", moved)
    with pytest.raises(store.FolderLost, match=f"it was moved to {place}"):
        store.compact(folder)
    assert len(store.finished_ids(place)) == 48


# --- file systems without locks ---


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose file systems have no locks."""

    def flock(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("no_locks")
def test_a_file_system_without_locks_is_refused_with_a_way_on(tmp_path: Path) -> None:
    words = rf"without locks \(flock: .*\), as Lustre is.* --results; or see to it .* set {NO_LOCK}=1"
    with pytest.raises(ValueError, match=words):
        train_all(tmp_path)
    assert not (tmp_path / "results" / "fake" / "meta.json").exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_run_that_is_wanted_goes_on_and_sees_when_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NO_LOCK, "1")
    assert train_all(tmp_path)[0].ok == 48
    with store.lock(tmp_path) as first:
        first.check()
        with store.lock(tmp_path) as second:
            assert second.stale == first.note.strip()
            monkeypatch.setattr("hpsweep.lock._note", lambda: "another process\n")
            with store.lock(tmp_path):
                with pytest.raises(store.FolderLost, match="was taken over by another process"):
                    first.check()
                assert (tmp_path / ".lock").read_text() == "another process\n"


# --- errors of the system, by number ---

NUMBERS = [errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.EACCES, errno.EIO, errno.EROFS]


class At:
    """Raises an error of the system in place of the n-th call of a function and of all later ones."""

    def __init__(self, real: Callable[..., Any], number: int, nth: int = 1) -> None:
        self.real, self.number, self.left = real, number, nth

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left <= 0:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments, **options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment and its results, in two parts; returns the results."""
    monkeypatch.chdir(tmp_path)
    sweep = fake.experiment(tmp_path)
    train_all(tmp_path, sweep, ensemble_size=24)
    return Path("results/fake")


def one_line(capsys: pytest.CaptureFixture[str], number: int, *words: str) -> str:
    """What a command says that meets the error: one line, with the system's words and how to go on."""
    assert main(words, train=fake.TRAIN) in (1, 2)
    (line,) = [said for said in capsys.readouterr().err.splitlines() if not said.startswith("hpsweep: timing")]
    assert line.startswith("hpsweep: ")
    assert os.strerror(number) in line
    return line


VERBS = [
    ("plan", "fake"),
    ("run", "fake"),
    *[(verb, "results/fake") for verb in ("status", "optimum", "regret", "transfer", "report", "compact")],
    ("plot", "results/fake", "--save"),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_rows_that_cannot_be_read_now_are_one_line_and_never_count_as_not_trained(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    capsys.readouterr()
    trained = len(fake.log(Path()))
    files = content(folder)
    for words in VERBS:
        with monkeypatch.context() as patch:
            patch.setattr(pq, "ParquetFile", At(pq.ParquetFile, number, 2))  # that of the second part
            line = one_line(capsys, number, *words)
        assert "part-" in line
        assert faults.MEANINGS[number][1] in line
    assert len(fake.log(Path())) == trained
    assert content(folder) - {".lock", "meta.json"} == files - {".lock", "meta.json"}


# --- faults that a worker meets ---


def test_a_fault_of_the_machine_is_tried_again_and_no_trial_is_to_blame(tmp_path: Path) -> None:
    fake.order(tmp_path, fault_once=errno.ESTALE, seconds=0)
    summary, reporter = train_all(tmp_path, workers=1)
    assert summary[:5] == (48, 48, 0, 0, 48)
    (message,) = reporter.messages
    assert message.startswith("8 trials will be tried again: data.txt: the file server no longer knows this file")
    assert set(store.load(tmp_path / "results" / "fake")["attempts"]) == {1}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_fault_that_stays_stops_the_run_and_no_trial_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.experiment(tmp_path)
    fake.order(tmp_path, fault=number, seconds=0)
    assert main(["run", "fake", "--workers", "1"], train=fake.TRAIN) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert faults.MEANINGS[number][0] in line
    assert "0 of 48 trials stored." in line
    assert "Then resume with: " in line
    assert store.read_runs("results/fake").num_rows == 0


def test_a_disk_that_is_full_in_truth_keeps_what_is_stored_and_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "none", str(results))
    try:
        sweep = fake.experiment(tmp_path)
        fake.order(tmp_path, seconds=0)
        words = ["run", "fake", "--workers", "1", "--ensemble-size", "8"]
        assert main(words, train=fake.TRAIN) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        before = stored(tmp_path)
        assert 0 < len(before) < 48
        assert "the disk is full: No space left on device" in line
        assert f"; {len(before)} of 48 trials stored. Free some space" in line
        subprocess.run(["mount", "-o", "remount,size=8m", str(results)], check=True)
        assert main(words, train=fake.TRAIN) == 0
        assert stored(tmp_path) == set(ids(sweep))
        assert {trial_id for what, trial_id, _ in fake.log(tmp_path) if what == "trained"} >= set(ids(sweep))
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


# --- what a verb cannot write ---


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("words", [("optimum", "--save"), ("plot", "--save"), ("report", "--save"), ("compact",)])
def test_a_verb_that_cannot_write_says_so_in_one_line_and_loses_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], nth: int
) -> None:
    rows = store.load(folder).sort_values("trial_id", ignore_index=True)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", At(os.fsync, errno.ENOSPC, nth))
        line = one_line(capsys, errno.ENOSPC, words[0], str(folder), *words[1:])
    assert "the disk is full" in line
    assert store.load(folder).sort_values("trial_id", ignore_index=True).equals(rows)
    assert not list(folder.rglob("*.tmp"))


# --- kills ---


def test_a_run_that_is_killed_again_and_again_keeps_every_trial_that_was_stored_and_goes_on(tmp_path: Path) -> None:
    fake.experiment(tmp_path)
    fake.order(tmp_path, seconds=0.7, one_by_one=True)  # 34 s for the only ensemble
    before: set[str] = set()
    for _ in range(4):
        driver = fake.command(tmp_path, "run", "fake", "--workers", "1", "--ensemble-size", "48")
        fake.wait_for(lambda: len(stored(tmp_path)) > len(before), seconds=25)  # noqa: B023
        driver.kill()
        driver.communicate()
        after = stored(tmp_path)
        assert after > before
        before = after
    assert len(before) < 48
    position = len(fake.log(tmp_path))
    fake.order(tmp_path, seconds=0, one_by_one=True)
    out, _ = fake.command(tmp_path, "run", "fake", "--workers", "1").communicate(timeout=120)
    assert "48 of 48 trials stored" in out
    assert not {trial_id for _, trial_id, _ in fake.log(tmp_path)[position:]} & before


def test_trials_that_finish_one_after_the_other_are_no_crowd_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpsweep.sweep.queue.PART_SECONDS", 1e9)
    fake.order(tmp_path, seconds=0.1, one_by_one=True)
    summary, _ = train_all(tmp_path, workers=1, ensemble_size=48)
    assert summary.ok == 48
    files = [store.read_runs(tmp_path / "results" / "fake").num_rows, *(tmp_path / "results/fake/runs").glob("*")]
    assert len(files) - 1 == 2  # the first trials at once, and then all others with their ensemble
