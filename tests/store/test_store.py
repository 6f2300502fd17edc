from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpsweep import store
from hpsweep.spec import Trial
from hpsweep.store import reading
from tests import processes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(seed: int, status: str = "ok", *, hours: int = 0, trial: Trial | None = None, **more: Any) -> dict[str, Any]:
    trial = trial or Trial(steps=10, seed=seed)
    loss = {"val_loss": 2.0 + seed} if status == "ok" else {}
    return {
        "trial_id": trial.trial_id,
        **trial.resolved,
        "status": status,
        "data_hash": "d",
        "finished_at": NOW + timedelta(hours=hours),
        **loss,
        **more,
    }


def curves(*seeds: int) -> dict[str, list[Any]]:
    ids = [Trial(steps=10, seed=seed).trial_id for seed in seeds for _ in range(2)]
    many = len(ids)
    return {
        "trial_id": ids,
        "step": [5, 10] * (many // 2),
        "tokens": [50, 100] * (many // 2),
        "train_loss": [3.0, 2.0] * (many // 2),
        "val_loss": [None, 2.1] * (many // 2),
    }


def test_what_is_stored_is_loaded_as_one_row_per_trial_with_nulls_kept(tmp_path: Path) -> None:
    store.append(tmp_path, [row(0), row(1, "diverged", diverged_step=7)], curves(0, 1))
    store.append(tmp_path, [row(2, lr=0.1 + 0.2)])
    runs = store.load(tmp_path).sort_values("seed")
    assert list(runs.columns) == store.RUNS.names
    assert runs.status.tolist() == ["ok", "diverged", "ok"]
    assert runs.val_loss.isna().tolist() == [False, True, False]
    assert runs.diverged_step.tolist()[1] == 7
    assert runs.lr.tolist()[2] == 0.1 + 0.2
    assert store.load_curves(tmp_path).train_loss.tolist() == [3.0, 2.0, 3.0, 2.0]


def test_every_column_has_a_unit_entry_and_the_file_names_its_schema_version(tmp_path: Path) -> None:
    path = store.append(tmp_path, [row(0)])
    schema = pq.read_schema(path)
    assert schema.metadata[b"hpsweep_schema_version"] == b"3"
    assert schema.field("val_loss").metadata[b"unit"] == b"nats/token"
    assert all(b"unit" in field.metadata for field in schema)


def test_the_resolved_fields_of_a_trial_are_columns_and_hold_their_types() -> None:
    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    for name, value in Trial(steps=1).resolved.items():
        assert store.RUNS.field(name).type == kinds[type(value)], name


@pytest.mark.parametrize("damage", ["empty", "torn", "text", "middle"])
def test_a_damaged_file_is_named_and_skipped(tmp_path: Path, damage: str) -> None:
    store.append(tmp_path, [row(0)])
    path = store.append(tmp_path, [row(1)])
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(
        {
            "empty": b"",
            "torn": whole[:half],
            "text": b"x" * 99,
            "middle": b"PAR1" + b"\xff" * (half - 4) + whole[half:],
        }[damage]
    )
    with pytest.warns(UserWarning, match=f"1 unreadable files skipped.*{path.name}"):
        assert store.load(tmp_path).seed.tolist() == [0]


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [1]},
        {"trial_id": [None], "status": ["ok"]},
        {"trial_id": ["x"]},
        {"trial_id": ["x"], "status": ["weird"]},
        {"trial_id": [1], "status": ["ok"]},
    ],
)
def test_a_file_that_hpsweep_did_not_write_is_named_and_skipped(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    store.append(tmp_path, [row(0)])
    pq.write_table(pa.table(columns), tmp_path / "runs" / "part-foreign.parquet")
    with pytest.warns(UserWarning, match=r"part-foreign.parquet \(not written by hpsweep"):
        assert len(store.load(tmp_path)) == 1


def test_a_file_of_no_known_version_is_named_and_skipped(tmp_path: Path) -> None:
    path = store.append(tmp_path, [row(0)])
    table = pq.read_table(path).replace_schema_metadata({"hpsweep_schema_version": "x"})
    pq.write_table(table, path.with_name("part-odd.parquet"))
    with pytest.warns(UserWarning, match=r"part-odd.parquet \(schema version"):
        assert len(store.load(tmp_path)) == 1


def test_a_trial_stored_twice_without_a_time_counts_once(tmp_path: Path) -> None:
    for attempts in (1, 2):
        store.append(tmp_path, [{**row(0), "status": "failed", "finished_at": None, "attempts": attempts}])
    assert len(store.load(tmp_path)) == 1


def test_reading_while_the_files_are_joined_misses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        store.append(tmp_path, [row(number)])
    opened, inner = [], pq.ParquetFile

    def interrupted(path: Path, **options: Any) -> Any:
        opened.append(path)
        if len(opened) == 3:
            monkeypatch.setattr(pq, "ParquetFile", inner)
            store.compact(tmp_path)
        return inner(path, **options)

    monkeypatch.setattr(pq, "ParquetFile", interrupted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(store.load(tmp_path)) == 5
    assert len(opened) == 3


def test_a_link_to_nothing_is_named_and_skipped(tmp_path: Path) -> None:
    store.append(tmp_path, [row(0)])
    (tmp_path / "runs" / "part-gone.parquet").symlink_to("nowhere")
    with pytest.warns(UserWarning, match=r"part-gone.parquet \(a link to nothing"):
        assert len(store.load(tmp_path)) == 1


@pytest.mark.parametrize("name", ["runs", "curves"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name} is a file; results need a folder"):
        store.check_folder(tmp_path, "x")


@pytest.mark.parametrize("name", [".lock", "meta.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is a folder where hpsweep keeps a file"):
        store.check_folder(tmp_path, "x")


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be a folder"):
        store.check_folder(tmp_path / ("x" * 300), "x")
    with pytest.raises(ValueError, match="cannot be written"), store.lock("/proc/hpsweep"):
        pass


@pytest.mark.parametrize("text", ['{"sweep": []}', '{"sweep": null}', '{"sweep": {}}'])
def test_a_record_of_no_sweep_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(ValueError, match="is not what hpsweep wrote"):
        store.check_folder(tmp_path, "x")


def test_a_file_that_was_being_written_is_not_read(tmp_path: Path) -> None:
    store.append(tmp_path, [row(0)])
    (tmp_path / "runs" / ".part-0.parquet.1.tmp").write_bytes(b"half a fi")
    assert len(store.load(tmp_path)) == 1


def test_a_trial_stored_twice_counts_once_and_the_earliest_finished_row_stays(tmp_path: Path) -> None:
    store.append(tmp_path, [row(0, hours=2, val_loss=9.0), row(1, "failed", hours=5, attempts=2)])
    store.append(tmp_path, [row(0, hours=1, val_loss=8.0)])
    store.append(tmp_path, [row(1, "failed", hours=4, attempts=1), row(2)])
    runs = store.load(tmp_path).set_index("seed")
    assert len(runs) == 3
    assert runs.val_loss[0] == 8.0
    assert runs.attempts[1] == 2
    store.append(tmp_path, [row(1, "diverged", hours=6)])
    assert store.load(tmp_path).set_index("seed").status[1] == "diverged"


def test_the_same_trial_on_other_data_is_another_run_and_never_hidden(tmp_path: Path) -> None:
    store.append(tmp_path / "a", [row(0, data_hash="one")])
    store.append(tmp_path / "b", [row(0, data_hash="two")])
    assert sorted(store.load(tmp_path / "a", tmp_path / "b").data_hash) == ["one", "two"]


def test_compacting_leaves_a_file_whose_footer_is_whole_and_whose_body_is_not(tmp_path: Path) -> None:
    for seed in range(3):
        path = store.append(tmp_path, [row(seed)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])
    with pytest.warns(UserWarning, match=path.name):
        assert store.compact(tmp_path) == (2, 2)
    assert path.exists()


def test_a_file_is_synced_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, bool]] = []
    sync = os.fsync
    path = tmp_path / "file"

    def note(descriptor: int) -> None:
        done.append(("synced", path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with store.replacing(path) as temporary:
        temporary.write_text("whole")
    assert done == [("synced", False), ("synced", True)]  # the file before the rename, the folder after it


def test_a_failed_trial_is_not_finished(tmp_path: Path) -> None:
    store.append(tmp_path, [row(0), row(1, "failed"), row(2, "diverged")])
    assert store.finished_trials(store.read_runs(tmp_path)) == {row(0)["trial_id"], row(2)["trial_id"]}
    assert store.status_counts(tmp_path) == {"ok": 1, "diverged": 1, "failed": 1}


def test_a_file_of_an_older_schema_stays_readable_with_nulls(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(0)], schema=store.RUNS).drop_columns(["commit", "engine"])
    widths = table.schema.get_field_index("width")
    table = table.set_column(widths, "width", table["width"].cast(pa.int32())).replace_schema_metadata({})
    (tmp_path / "runs").mkdir()
    pq.write_table(table, tmp_path / "runs" / "part-old.parquet")
    store.append(tmp_path, [row(1, engine="torch")])
    runs = store.load(tmp_path).set_index("seed").sort_index()
    assert runs.width.tolist() == [128, 128]
    assert runs.engine.isna().tolist() == [True, False]


def test_a_file_of_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = store.append(tmp_path, [row(0)])
    newer = pq.read_table(path).replace_schema_metadata({"hpsweep_schema_version": "4"})
    pq.write_table(newer, path)
    with pytest.raises(ValueError, match=r"schema version 4; .* Upgrade hpsweep"):
        store.load(tmp_path)


def test_loading_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no results folder"):
        store.load(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="no stored trials"):
        store.load(tmp_path)
    with pytest.raises(ValueError, match="at least one results folder"):
        store.load()


def test_an_unknown_column_is_refused_rather_than_dropped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not know: \\['valloss'\\]"):
        store.append(tmp_path, [row(0, valloss=1.0)])
    assert not (tmp_path / "runs").exists()


def test_several_folders_load_as_one_table(tmp_path: Path) -> None:
    store.append(tmp_path / "a", [row(0), row(1)])
    store.append(tmp_path / "b", [row(1), row(2)])
    assert sorted(store.load(tmp_path / "a", tmp_path / "b").seed) == [0, 1, 2]


def test_compacting_changes_no_row_and_no_curve_and_leaves_damaged_files(tmp_path: Path) -> None:
    for seed in range(5):
        store.append(tmp_path, [row(seed)], curves(seed))
    store.append(tmp_path, [row(4, hours=3, val_loss=0.0)], curves(4))
    (tmp_path / "runs" / "part-torn.parquet").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="part-torn"):
        before = store.load(tmp_path).sort_values("trial_id", ignore_index=True)
    before_curves = store.load_curves(tmp_path)
    with pytest.warns(UserWarning, match="part-torn"):
        assert store.compact(tmp_path) == (12, 5)
    assert len(list((tmp_path / "runs").glob("part-*.parquet"))) == 2
    assert (tmp_path / "runs" / "part-torn.parquet").read_bytes() == b"torn"
    with pytest.warns(UserWarning, match="part-torn"):
        after = store.load(tmp_path).sort_values("trial_id", ignore_index=True)
    assert after.equals(before)
    assert store.load_curves(tmp_path).equals(before_curves)


def test_compacting_killed_between_writing_and_removing_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        store.append(tmp_path, [row(seed)], curves(seed))
    removed = []

    def die(path: Path, **_: Any) -> None:
        if path.suffix == ".parquet":
            removed.append(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(KeyboardInterrupt):
        store.compact(tmp_path)
    monkeypatch.undo()
    assert removed
    assert sorted(store.load(tmp_path).seed) == [0, 1, 2, 3]
    assert len(store.load_curves(tmp_path)) == 8
    store.compact(tmp_path)
    assert sorted(store.load(tmp_path).seed) == [0, 1, 2, 3]


def test_many_parts_are_read_as_few_are_and_the_unreadable_ones_among_them_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(11):
        store.append(tmp_path, [row(seed), row(seed + 100, "failed")])
    bad = sorted((tmp_path / "runs").iterdir())[4]
    bad.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="1 unreadable"):
        few = store.load(tmp_path)
    monkeypatch.setattr(reading, "MANY", 2)
    with pytest.warns(UserWarning, match=f"1 unreadable files skipped.*{bad.name}"):
        assert store.load(tmp_path).equals(few)
    assert len(few) == 20


def test_many_parts_that_are_joined_while_they_are_read_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(9):
        store.append(tmp_path, [row(seed)])
    monkeypatch.setattr(reading, "MANY", 2)
    inner, reads = reading.read_batches, []

    def joined_after_the_first(folder: Path, schema: pa.Schema, **options: Any) -> Any:
        for batch in inner(folder, schema, **options):
            yield batch
            reads.append(batch)
            if len(reads) == 1:
                store.compact(tmp_path)

    monkeypatch.setattr(reading, "read_batches", joined_after_the_first)
    assert sorted(store.load(tmp_path).seed) == list(range(9))
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_of_a_trial_stored_several_times_the_row_counts_that_a_loop_over_the_rows_finds(tmp_path: Path) -> None:
    generator = random.Random(0)
    rows = []
    for number in range(300):
        status, hours = generator.choice(["ok", "failed", "failed", "diverged"]), generator.randrange(5)
        one = row(generator.randrange(60), status, hours=hours, attempts=number)
        rows.append({**one, "data_hash": generator.choice(["a", "b", None])})
        if generator.random() < 0.1:
            rows[-1]["finished_at"] = None
    for start in range(0, 300, 7):
        store.append(tmp_path, rows[start : start + 7])
    best: dict[tuple[str, str | None], dict[str, Any]] = {}
    for one in reading.read_parts(tmp_path / "runs", store.RUNS).to_pylist():
        time = 0.0 if one["finished_at"] is None else one["finished_at"].timestamp()
        rank = (one["status"] == "failed", -time if one["status"] == "failed" else time)
        key = one["trial_id"], one["data_hash"]
        if key not in best or rank < best[key]["rank"]:
            best[key] = {"rank": rank, **one}
    stored = store.read_runs(tmp_path).to_pylist()
    assert {(one["trial_id"], one["data_hash"]): one["attempts"] for one in stored} == {
        key: one["attempts"] for key, one in best.items()
    }
    assert len(stored) == len(best)
    statuses = [one["status"] for one in stored]
    assert store.status_counts(tmp_path) == {name: statuses.count(name) for name in ("ok", "diverged", "failed")}


def test_compacting_stopped_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MANY", 2)
    steps = 0
    for seed in range(5):
        store.append(tmp_path / "0", [row(seed)], curves(seed))
    before, before_curves = store.load(tmp_path / "0"), store.load_curves(tmp_path / "0")
    for stop in itertools.count(1):
        folder, done = shutil.copytree(tmp_path / "0", tmp_path / str(stop)), 0

        def step(inner: Any, stop: int = stop) -> Any:
            def counted(*arguments: Any, **named: Any) -> Any:
                nonlocal done
                done += 1
                if done >= stop:  # and nothing after it, as of a process that was killed
                    raise KeyboardInterrupt
                return inner(*arguments, **named)

            return counted

        with monkeypatch.context() as patch:
            for where, name in ((os, "fsync"), (Path, "unlink"), (Path, "replace"), (pq.ParquetWriter, "write_table")):
                patch.setattr(where, name, step(getattr(where, name)))
            with contextlib.suppress(KeyboardInterrupt):
                store.compact(folder)
                steps = done
        assert (
            store.load(folder)
            .sort_values("seed", ignore_index=True)
            .equals(before.sort_values("seed", ignore_index=True))
        )
        assert store.load_curves(folder).equals(before_curves)
        assert store.compact(folder)[1] == 5
        assert store.load_curves(folder).equals(before_curves)
        assert [len(list((folder / kind).iterdir())) for kind in ("runs", "curves")] == [1, 1]
        if steps:
            break
    assert steps > 15  # 5 parts of each to remove, and what it takes to write what they held


def test_curves_are_joined_some_parts_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(7):
        store.append(tmp_path, [row(seed)], curves(seed))
    before = store.load_curves(tmp_path)
    monkeypatch.setattr(reading, "MANY", 2)
    store.compact(tmp_path)
    (joined,) = (tmp_path / "curves").iterdir()
    assert pq.ParquetFile(joined).num_row_groups == 4
    assert store.load_curves(tmp_path).equals(before)


def test_compacting_a_folder_without_a_readable_part_writes_none(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "runs" / f"part-{name}.parquet").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="2 unreadable"):
        assert store.compact(tmp_path) == (0, 0)
    assert len(list((tmp_path / "runs").iterdir())) == 2


HOLDER = """
import sys, time
from hpsweep import store
with store.lock(sys.argv[1]) as held:
    print(held.stale or "free", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = processes.start([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.first_line = process.stdout.readline().strip()  # type: ignore[attr-defined]
    return process


def test_a_folder_in_use_is_refused_with_who_holds_it_and_a_dead_holder_is_recognised(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        with pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .* since .*"), store.lock(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with store.lock(tmp_path) as held:
        assert f"process {holder.pid} " in (held.stale or "")
    with store.lock(tmp_path) as held:
        assert held.stale is None


def test_what_a_killed_writer_left_half_written_is_cleared_by_the_next_holder(tmp_path: Path) -> None:
    path = store.append(tmp_path, [row(0)])
    half = path.with_name(".part-1.parquet.99.tmp")
    half.write_bytes(b"half a fi")
    with store.lock(tmp_path):
        assert not half.exists()
    assert path.exists()


def test_refusing_a_second_holder_leaves_the_note_of_the_first(tmp_path: Path) -> None:
    with store.lock(tmp_path):
        for _ in range(2):
            with pytest.raises(ValueError, match=f"process {os.getpid()} "), store.lock(tmp_path):
                pass


def test_meta_is_read_back_and_a_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    assert store.read_meta(tmp_path) == {}
    store.write_meta(tmp_path, {"name": "mine", "grid": []})
    assert store.read_meta(tmp_path)["name"] == "mine"
    store.check_folder(tmp_path, "mine")
    with pytest.raises(ValueError, match="holds the results of experiment 'mine', not of 'other'"):
        store.check_folder(tmp_path, "other")
    (tmp_path / "meta.json").write_text("{broken")
    with pytest.raises(ValueError, match=r"meta.json is not what hpsweep wrote"):
        store.check_folder(tmp_path, "mine")


def test_a_folder_that_is_a_file_or_read_only_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file is a file; results need a folder"):
            store.check_folder(folder, "x")
    store.check_folder(tmp_path / "not" / "yet", "x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="cannot be written"):
        store.check_folder(tmp_path, "x")


def test_a_row_without_a_hash_is_not_of_the_same_data() -> None:
    with pytest.raises(ValueError, match="2 different data sets"):
        store.one_data_hash(["a", None])  # type: ignore[list-item]


def test_data_hashes_are_never_mixed() -> None:
    assert store.one_data_hash(["a", "a"]) == "a"
    with pytest.raises(ValueError, match=r"2 different data sets \(data_hash a, b\)"):
        store.one_data_hash(["a", "b", "a"])


WRITER = """
import sys
from tests.store.test_store import curves, row
from hpsweep import store
for seed in range(10_000):
    store.append(sys.argv[1], [row(seed)], curves(seed))
    print(seed, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_trials_only(tmp_path: Path) -> None:
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        writer = processes.start([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.01 * attempt)
        writer.kill()
        told = [0, *map(int, writer.communicate()[0].split())]
        stored = sorted(store.load(folder).seed)
        assert stored[: len(told)] == told
        assert len(stored) <= len(told) + 1
        with_curves = set(store.load_curves(folder).trial_id)
        assert set(store.load(folder).trial_id) <= with_curves


def test_meta_is_plain_json(tmp_path: Path) -> None:
    store.write_meta(tmp_path, {"name": "mine"})
    assert json.loads((tmp_path / "meta.json").read_text())["sweep"] == {"name": "mine"}


def test_nothing_stored_is_read_without_pandas(tmp_path: Path) -> None:
    code = f"import sys\nfrom hpsweep import store\nassert store.read_runs({str(tmp_path)!r}).to_pylist() == []\n"
    subprocess.run([sys.executable, "-c", f"{code}assert 'pandas' not in sys.modules"], check=True)
