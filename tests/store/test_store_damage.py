"""Stored files that were damaged, or that hold odd columns: told in one line, and never read as other numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpsweep import cli, store
from hpsweep.spec import BEFORE, RESOLVED, Trial, trial_from_row
from hpsweep.store.part import read_part
from hpsweep.trial_ids import trial_ids
from tests.store.test_store import row


def stored(folder: Path, seeds: range = range(3)) -> Path:
    """A folder with the runs of some trials and their curves, and the part of the runs."""
    rows = [row(seed) for seed in seeds]
    curves = {
        "trial_id": [one["trial_id"] for one in rows for _ in range(4)],
        "step": [1, 2, 3, 4] * len(rows),
        "tokens": [10, 20, 30, 40] * len(rows),
        "train_loss": [1.5, 1.25, 1.125, 1.0] * len(rows),
        "val_loss": [None, None, None, 2.0] * len(rows),
    }
    return store.append(folder, rows, curves)


@pytest.mark.parametrize("kind", ["runs", "curves"])
def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    name = stored(tmp_path).name
    path, schema = tmp_path / kind / name, store.RUNS if kind == "runs" else store.CURVES
    content, whole = path.read_bytes(), read_part(path, schema, others=True)
    generator = random.Random(0)
    told = 0
    for bit in generator.sample(range(8 * len(content)), 300):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_part(path, schema, others=True)
        except ValueError as error:  # a schema version that is a newer one, which stops everything
            found = str(error)
        assert isinstance(found, str) or found.equals(whole), bit
        told += isinstance(found, str)
    assert told > 100


def test_a_damaged_part_is_named_in_one_line(tmp_path: Path) -> None:
    path = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with (
        pytest.warns(UserWarning, match=f"1 unreadable files skipped.*{path.name}"),
        pytest.raises(ValueError, match=rf"no stored trials in .* that can be read: {path.name} \(.*restore"),
    ):
        store.load(tmp_path)


def test_joined_parts_have_checksums_too(tmp_path: Path) -> None:
    stored(tmp_path)
    stored(tmp_path, range(3, 5))
    store.compact(tmp_path)
    [path] = (tmp_path / "runs").glob("part-*.parquet")
    content, whole = path.read_bytes(), read_part(path, store.RUNS, others=True)
    for at in range(4, 5000, 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        found = read_part(path, store.RUNS, others=True)
        assert isinstance(found, str) or found.equals(whole), at
    path.write_bytes(content)
    assert len(store.load(tmp_path)) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(0, 2),
        lambda table: table.rename_columns([name.replace("val_loss", "val_lnss") for name in table.column_names]),
    ],
)
def test_other_rows_or_columns_than_were_written_are_refused(tmp_path: Path, change: Any) -> None:
    path = stored(tmp_path)
    stated = pq.read_metadata(path).metadata
    changed = change(pq.read_table(path))
    with pq.ParquetWriter(path, changed.schema) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata({name: stated[name] for name in (b"hpsweep_columns", b"hpsweep_rows")})
    assert "damaged" in read_part(path, store.RUNS, others=True)


def test_a_part_of_an_earlier_version_is_read_and_its_ids_are_checked(tmp_path: Path) -> None:
    path = stored(tmp_path)
    table = pq.read_table(path)
    assert table.schema.metadata[b"hpsweep_schema_version"]
    pq.write_table(table, path)
    assert len(store.load(tmp_path)) == 3
    other = pa.array(["float32", "bfloat16", "float32"], pa.string())
    pq.write_table(table.set_column(table.column_names.index("precision"), "precision", other), path)
    with (
        pytest.warns(UserWarning, match="row 1 has trial_id .* it was changed since"),
        pytest.raises(ValueError, match="it was changed since"),
    ):
        store.load(tmp_path)


def test_ids_of_a_table_are_those_of_its_trials() -> None:
    trials = [
        Trial(steps=10),
        Trial(steps=10, lr=0.1, weight_decay=0.0),
        Trial(tokens_per_parameter=20.0, density=1 / 64, scheme="sp", data='text:/a"b\u00e9', tied=False),
        Trial(tokens=10**7, seed=2**60, eps=1e-16, weight_decay_rule="independent", precision="bfloat16"),
    ]
    table = pa.Table.from_pylist([trial.resolved for trial in trials], schema=store.RUNS)
    assert trial_ids(table) == [trial.trial_id for trial in trials]
    table = pa.Table.from_pylist([trial.replace(base_head_size=1).resolved for trial in trials], schema=store.RUNS)
    assert trial_ids(table.drop_columns([*BEFORE])) == trial_ids(table)  # as of a version without these fields


def as_of_before(folder: Path, **changes: Any) -> Path:
    """A part without checksums, whose trials and columns are those of a version without the fields added since."""
    rows = [row(seed, trial=Trial(steps=10, seed=seed, base_head_size=1, **changes)) for seed in range(3)]
    (folder / "runs").mkdir()
    path = folder / "runs" / "part-before.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=store.RUNS).drop_columns([*BEFORE]), path)
    return path


def test_rows_without_a_field_that_was_added_since_have_its_value_of_before(tmp_path: Path) -> None:
    as_of_before(tmp_path)
    runs = store.load(tmp_path)
    assert runs[[*BEFORE]].to_dict("records") == [BEFORE] * 3
    assert runs[[*BEFORE]].dtypes.astype(str).to_dict() == {
        "model": "str", "settings": "str", "alpha_attention": "float64", "base_head_size": "int64",
    }  # fmt: skip
    assert [trial_from_row(one).trial_id for one in runs.to_dict("records")] == runs["trial_id"].tolist()
    store.append(tmp_path, [row(7)])
    before, after = store.compact(tmp_path)
    assert (before, after) == (2, 4)
    joined = store.load(tmp_path).sort_values("seed")
    assert joined["base_head_size"].tolist() == [1, 1, 1, 32]
    assert set(joined["trial_id"]) == {*runs["trial_id"], row(7)["trial_id"]}


@pytest.mark.parametrize("name", [name for name in RESOLVED if name not in BEFORE])
def test_a_field_that_every_version_stored_is_never_read_as_null(tmp_path: Path, name: str) -> None:
    path = as_of_before(tmp_path)  # all fields but the seed have their defaults
    table = pq.read_table(path)
    bit = bytes([name.encode()[0] ^ 1]).decode() + name[1:]
    nulls = table.set_column(table.column_names.index(name), table.schema.field(name), pa.nulls(3, table[name].type))
    for odd in (table.rename_columns([bit if one == name else one for one in table.column_names]), nulls):
        pq.write_table(odd, path)
        told = read_part(path, store.RUNS, others=True)
        assert told == f"damaged: it lacks {name}, which is stored of every trial"


@pytest.mark.parametrize("name", BEFORE)
def test_a_field_that_was_added_since_and_got_lost_is_told_where_it_was_not_that_of_before(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "part-now.parquet"
    rows = [row(0, trial=Trial(steps=10, alpha_attention=2.0, model="llama:build", settings='{"kv_group": 2}'))]
    pq.write_table(pa.Table.from_pylist(rows, schema=store.RUNS).drop_columns([name]), path)
    assert "it was changed since" in read_part(path, store.RUNS, others=True)


def test_a_part_that_is_a_link_to_itself_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = stored(tmp_path)
    (path.parent / "part-loop.parquet").symlink_to(path.parent / "part-loop.parquet")
    with pytest.warns(UserWarning, match=r"part-loop.parquet \(a link to itself\)"):
        assert len(store.load(tmp_path)) == 3


@pytest.mark.parametrize(
    "value",
    [["a", "b"], {"a": 1, "b": [2]}, [[1], [2, 3]], {"when": None}, b"bytes", None],
    ids=repr,
)
def test_a_trial_stored_twice_counts_once_beside_columns_of_lists_and_objects(
    tmp_path: Path, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(tmp_path)
    table = pq.read_table(path)
    table = table.append_column("config", pa.array([value] * 3))
    pq.write_table(table, path)
    pq.write_table(table.slice(0, 1), path.with_name("part-again.parquet"))
    assert len(store.load(tmp_path)) == 3
    assert cli.main(["status", str(tmp_path)]) == 0
    other = pa.array([["other"]]) if isinstance(value, list) and isinstance(value[0], str) else None
    if other is not None:  # another value of a column that is not hpsweep's is another run
        pq.write_table(table.slice(0, 1).set_column(len(store.RUNS), "config", other), path.with_name("part-b.parquet"))
        assert len(store.load(tmp_path)) == 4
    store.compact(tmp_path)
    assert len(store.load(tmp_path)) == (3 if other is None else 4)
