"""Ids of another width or sign, other formats, and held-out ids that are trained on: told, and right ones are not."""

from __future__ import annotations

import pickle
import re
import struct
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.proxy.test_token_file import GPT2, notes, refused, written, zipf


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("stored", "dtype", "vocabulary", "said"),
    [
        ("<u2", "uint8", 256, "bytes at every second place are others .* ids of 2 bytes.*state dtype=uint16"),
        ("<u4", "uint8", 256, "bytes at every fourth place are others .* ids of 4 bytes.*state dtype=uint32"),
        ("u1", "uint16", 65536, "the halves of the ids are distributed alike, .* of 1 byte. .*state dtype=uint8"),
        ("<u2", "uint32", 2**32, "the halves of the ids are distributed alike, .* of 2 bytes. .*state dtype=uint16"),
    ],
)
def test_ids_of_another_width_are_told(
    tmp_path: Path, stored: str, dtype: str, vocabulary: int, said: str, shuffled: bool
) -> None:
    ids = zipf(100_000, 200 if stored == "u1" else 50_000, shuffled=shuffled)
    path = written(tmp_path / "ids.bin", ids, stored)
    assert any(re.search(said, note) for note in notes(path, dtype, vocabulary))


def test_ids_beyond_two_bytes_read_as_bytes_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "ids.bin", zipf(100_000, 128_000, shuffled=True), "<u4")
    assert any("ids of 4 bytes. If it is one, state dtype=uint32" in note for note in notes(path, "uint8", 256))


@pytest.mark.parametrize("fill", [-1, -100])
def test_ids_that_are_negative_ones_of_a_signed_type_are_told(tmp_path: Path, fill: int) -> None:
    ids = np.where(np.random.default_rng(1).random(50_000) < 0.01, fill, zipf(50_000, 30_000))
    found = notes(written(tmp_path / "ids.bin", ids, "<i2"), "uint16", 65536)
    assert any(f"ids are {65536 + fill}, " in note and f"as int16 it is {fill}." in note for note in found)


def _stdlib() -> bytes:
    root = Path(sysconfig.get_path("stdlib"))
    return b"\0".join(path.read_bytes() for path in sorted(root.glob("*.py"))[:60])


@pytest.mark.parametrize(
    "content",
    [
        _stdlib(),
        _stdlib()[:20_000],
        "".join(f"{i % 7},{i * i % 9}\n" for i in range(20_000)).encode(),  # bytes at even places are digits
        ("Ein Ärgernis für Übermütige, größtenteils. " * 40 + "смотри в оба " * 400).encode() * 5,
        np.random.default_rng(0).integers(0, 65, 50_000, np.uint8).tobytes(),  # ids of characters
        np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes(),
    ],
    ids=["code", "little code", "table", "other letters", "characters", "random"],
)
def test_ordinary_bytes_are_no_wider_ids(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    assert not any("ids of" in note for note in notes(tmp_path / "a.bin", "uint8", 256))


@pytest.mark.parametrize("vocabulary", [300, 2000, 32_000, 50_257, 65_536])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_ordinary_ids_are_no_narrower_ones(tmp_path: Path, dtype: str, vocabulary: int) -> None:
    generator = np.random.default_rng(0)
    kinds = {
        "zipf": zipf(60_000, vocabulary),
        "shuffled": zipf(60_000, vocabulary, shuffled=True),
        "uniform": generator.integers(0, vocabulary, 60_000),
    }
    for name, ids in kinds.items():
        path = written(tmp_path / name, ids, "<u2" if dtype == "uint16" else "<u4")
        found = notes(path, dtype, vocabulary)
        assert not any("alike" in note or "masks" in note or "copies" in note for note in found), name


# --- shifted, swapped, and columns beside each other ---


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("dtype", "before", "after"),
    [("uint16", 1, 1), ("uint16", 3, 1), ("uint32", 1, 3), ("uint32", 2, 2), ("uint32", 3, 1)],
)
def test_ids_behind_a_part_of_an_id_are_told_with_a_remedy_that_gives_them(
    tmp_path: Path, dtype: str, before: int, after: int, shuffled: bool
) -> None:
    ids = zipf(60_000, 50_000, shuffled=shuffled).astype(f"<u{int(dtype[4:]) // 8}")
    (tmp_path / "a.bin").write_bytes(bytes(before) + ids.tobytes() + bytes(after))
    found = notes(tmp_path / "a.bin", dtype, 65536 if dtype == "uint16" else 2**32)
    [note] = [note for note in found if "ids repeat far more" in note]
    remedy = re.search(r"write them anew: (.*)\.tofile", note)
    assert remedy
    again = eval(remedy[1], {"numpy": np, "path": tmp_path / "a.bin"})
    start = before // ids.itemsize
    assert np.array_equal(again[start : start + len(ids)], ids)


@pytest.mark.parametrize("vocabulary", [8_000, 30_000, 50_257])
def test_big_endian_ids_are_told_though_frequent_ones_are_anywhere(tmp_path: Path, vocabulary: int) -> None:
    path = written(tmp_path / "ids.bin", zipf(60_000, vocabulary, shuffled=True), ">u2")
    assert any("as in a big-endian file" in note for note in notes(path, "uint16", 65536))


@pytest.mark.parametrize("vocabulary", [300, 2000, 32_000, 50_257, 65_536])
@pytest.mark.parametrize("shuffled", [False, True])
def test_ordinary_ids_are_neither_shifted_nor_swapped_nor_columns(
    tmp_path: Path, vocabulary: int, shuffled: bool
) -> None:
    for dtype in ("uint16", "uint32"):
        for ids in (
            zipf(60_000, vocabulary, shuffled=shuffled),
            np.random.default_rng(0).integers(0, vocabulary, 60_000),
        ):
            path = written(tmp_path / "ids.bin", ids, f"<u{int(dtype[4:]) // 8}")
            found = [note for note in notes(path, dtype, vocabulary) if re.search("repeat|endian|every", note)]
            assert not found


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["ids", "places"], "every second id counts up, as positions"),
        (["places", "ids"], "every second id counts up"),
        (["ids", "places", "ids"], "every third id counts up"),
        (["ids", "same"], "every id stands there 2 times"),
        (["ids", "ids", "pad"], "every third id is 50256, as where columns"),
    ],
)
def test_columns_that_were_written_beside_each_other_are_told(tmp_path: Path, columns: list[str], said: str) -> None:
    parts = {"places": np.arange(20_000) % 1024, "pad": np.full(20_000, 50256)}
    made = [zipf(20_000, GPT2, shuffled=True, seed=k) if name == "ids" else parts.get(name)
            for k, name in enumerate(columns)]  # fmt: skip
    stacked = np.stack([made[0] if part is None else part for part in made], axis=1)
    found = notes(written(tmp_path / "ids.bin", stacked), "uint16", GPT2)
    assert any(said in note for note in found)
    assert not any("3 bytes" in note for note in found)


# --- other formats ---


def arrow_stream() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"ids": zipf().astype("u2")})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def safetensors() -> bytes:
    ids = zipf().astype("<i4")
    head = b'{"x":{"dtype":"I32","shape":[20000],"data_offsets":[0,80000]}}  '
    return struct.pack("<Q", len(head)) + head + ids.tobytes()


FORMATS: dict[str, tuple[bytes, str]] = {
    "arrow stream": (arrow_stream(), "is an Arrow stream, as datasets stores, not bare token ids: write its ids bare"),
    "safetensors": (safetensors(), "is a safetensors file"),
    "sqlite": (b"SQLite format 3\x00" + bytes(84) + zipf().astype("<u2").tobytes(), "is an SQLite database"),
    "tar": (b"a.bin".ljust(257, b"\0") + b"ustar\0" + bytes(249) + zipf().astype("<u2").tobytes(), "is a tar archive"),
    "gguf": (b"GGUF\x03\0\0\0" + zipf().astype("<u2").tobytes(), "is a model in GGUF"),
}
for protocol in range(6):
    for name, ids in (("array", zipf().astype("u2")), ("list", zipf(3000).tolist()), ("dict", {"a": zipf(3000)})):
        FORMATS[f"{name} in pickle {protocol}"] = (pickle.dumps(ids, protocol), "is a pickle, not bare token ids")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_files_of_other_formats_are_named(tmp_path: Path, name: str, dtype: str) -> None:
    content, said = FORMATS[name]
    (tmp_path / "ids.bin").write_bytes(content)
    assert said in refused(tmp_path / "ids.bin", dtype, {"uint8": 256, "uint16": 65536, "uint32": 2**32}[dtype])


@pytest.mark.parametrize("head", [[0x0280, 0x0505], [0x0480, 0x0095], [65535, 65535, 3, 0], [0x4747, 0x4655]])
def test_ids_that_begin_like_another_format_are_ids(tmp_path: Path, head: list[int]) -> None:
    ids: Any = np.concatenate([head, zipf(20_000)])
    assert not any("pickle" in note for note in notes(written(tmp_path / "ids.bin", ids), "uint16", 65536))


# --- held out, and trained on ---


def test_validation_that_is_a_slice_of_training_is_refused(tmp_path: Path) -> None:
    ids = zipf(60_000, shuffled=True)
    for start, stop in ((1, 20_001), (1000, 9000), (30_001, 59_999)):
        train, held = written(tmp_path / "t.bin", ids), written(tmp_path / f"{start}.bin", ids[start:stop])
        said = refused(train, more=f"&validation={held}")
        assert f"validation tokens are a part, from position {start} on, of the training tokens" in said


def test_validation_of_which_a_good_part_is_trained_on_is_told(tmp_path: Path) -> None:
    ids, other = zipf(60_000, shuffled=True), zipf(20_000, shuffled=True, seed=1)
    mixed = np.concatenate([ids[500:15_000], other[:4000]])
    train, held = written(tmp_path / "t.bin", ids), written(tmp_path / "v.bin", mixed)
    [note] = notes(train, more=f"&validation={held}")
    assert "held-out tokens, evenly spread, are in the training tokens as well" in note
    apart = written(tmp_path / "w.bin", other)
    assert notes(train, more=f"&validation={apart}") == ()


def test_a_file_that_holds_its_ids_twice_is_told(tmp_path: Path) -> None:
    ids = zipf(30_000, shuffled=True)
    again = np.concatenate([ids, zipf(5000, shuffled=True, seed=2), ids])
    assert any("are in the training tokens as well" in note for note in notes(written(tmp_path / "t.bin", again)))
