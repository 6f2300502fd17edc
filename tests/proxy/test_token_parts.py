"""Parts of a file of ids that are unlike the rest are told: headers, holes, order; and of real text nothing is."""

from __future__ import annotations

import gzip
import re
import sysconfig
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.proxy.test_token_file import notes, written, zipf

DOCUMENTS = [path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:100]]
TEXT = b"\0".join(DOCUMENTS)


def words(documents: list[bytes], kept: int = 8000) -> Any:
    """Ids of words and marks, the frequent ones of a vocabulary and the bytes of the others; 0 ends a document."""
    pieces = [re.findall(rb" ?\w+|\s+|[^\w\s]", document) for document in documents]
    common = Counter(piece for part in pieces for piece in part).most_common(kept)
    known = {piece: 257 + i for i, (piece, _) in enumerate(common)}
    ids: list[int] = []
    for part in pieces:
        for piece in part:
            ids.extend([known[piece]] if piece in known else [1 + byte for byte in piece])
        ids.append(0)
    return np.array(ids)


WORDS = words(DOCUMENTS)


# --- what was not filled, and order ---


@pytest.mark.parametrize("fill", [0, 5])
@pytest.mark.parametrize("part", [slice(7_000, 14_000), slice(0, 7_000), slice(3_000, 4_000)])
def test_a_part_that_was_not_filled_is_told_wherever_it_is(tmp_path: Path, part: slice, fill: int) -> None:
    ids = WORDS[:20_000].copy()
    ids[part] = fill
    [note] = notes(written(tmp_path / "ids.bin", ids), vocabulary=8257)
    length = part.stop - part.start
    said = re.search(rf"about (\d+) ids from position (\d+) on are all {fill}: was the file filled there\?", note)
    assert said
    assert abs(int(said[1]) - length) <= 512
    assert abs(int(said[2]) - part.start) <= 256


def test_a_large_hole_of_a_very_large_file_is_told_though_it_is_a_small_part(tmp_path: Path) -> None:
    ids = np.tile(WORDS, 10_000_000 // len(WORDS) + 1)[:10_000_000]
    ids[5_000_000:5_090_000] = 0
    assert any("from position 5000" in note for note in notes(written(tmp_path / "ids.bin", ids), vocabulary=8257))


def test_padding_of_documents_is_no_hole(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(100, 1024, 12)
    starts = np.cumsum(lengths)
    padded = np.zeros((12, 1024), int)
    for row, start, length in zip(padded, starts, lengths, strict=True):
        row[:length] = WORDS[start : start + length]
    assert notes(written(tmp_path / "ids.bin", padded.ravel()), vocabulary=8257) == ()


@pytest.mark.parametrize("backwards", [False, True])
def test_sorted_ids_are_told(tmp_path: Path, backwards: bool) -> None:
    ids = np.sort(WORDS[:50_000])[:: -1 if backwards else 1]
    found = notes(written(tmp_path / "ids.bin", ids), vocabulary=8257)
    assert any(f"go {'down' if backwards else 'up'}, as where they were sorted." in note for note in found)


# --- headers ---


@pytest.mark.parametrize("head", [8, 16, 64, 256, 1024])
@pytest.mark.parametrize("order", ["<u4", ">u4", "<u8"])
@pytest.mark.parametrize("what", ["ids", "bytes"])
def test_a_header_that_says_how_many_ids_follow_is_told(tmp_path: Path, head: int, order: str, what: str) -> None:
    ids = WORDS[:50_000]
    count = np.array([len(ids) * (2 if what == "bytes" else 1)], order).tobytes()
    before = b"" if head == 8 else b"\x07\x01\x00\x00"
    whole = (before + count).ljust(head, b"\0")
    found = notes(written(tmp_path / "ids.bin", ids, head=whole), vocabulary=65536)
    [note] = [note for note in found if "header" in note]
    assert f"at byte {len(before)} is {int.from_bytes(count, 'big' if '>' in order else 'little')}" in note
    assert f"that of the {what} after the first {head} bytes" in note


HEADERS = {
    "rising": np.arange(128, dtype="<u2").tobytes(),
    "zeros": b"HEAD".ljust(256, b"\0"),
    "json": b'{"dtype": "uint16", "tokenizer": "gpt2", "created": "2026-01-01", "tokens": "many"}'.ljust(512),
    "numbers": np.random.default_rng(0).bytes(256),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("kind", ["words", "zipf"])
def test_a_header_that_is_unlike_the_ids_is_told(tmp_path: Path, name: str, kind: str) -> None:
    ids = WORDS if kind == "words" else zipf(300_000)
    found = notes(written(tmp_path / "ids.bin", ids, head=HEADERS[name]), vocabulary=65536)
    assert any(re.search(r"the first \d+ ids, or more, are unlike the others", note) for note in found)


@pytest.mark.parametrize("name", ["rising", "zeros", "numbers"])
def test_a_header_before_bytes_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.bin").write_bytes(HEADERS[name] + TEXT)
    assert any("unlike the others" in note for note in notes(tmp_path / "a.bin", "uint8", 256))


# --- ids of three bytes, and what was compressed ---


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("vocabulary", [50_000, 128_000])
def test_ids_of_three_bytes_are_told_with_a_remedy_that_gives_them(
    tmp_path: Path, dtype: str, order: str, vocabulary: int
) -> None:
    ids = zipf(60_000, vocabulary, shuffled=True)
    path = tmp_path / "ids.bin"
    path.write_bytes(b"".join(int(i).to_bytes(3, order) for i in ids))  # type: ignore[arg-type]
    found = notes(path, dtype, 256 if dtype == "uint8" else 65536)
    [note] = [note for note in found if "ids of 3 bytes" in note]
    remedy = re.search(r"write it anew: (.*)\.tofile", note)
    assert remedy
    again = eval(remedy[1], {"numpy": np, "path": path})
    assert np.array_equal(again, ids)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", ["random", "deflate"])
def test_what_was_compressed_or_encrypted_is_told(tmp_path: Path, dtype: str, kind: str) -> None:
    random = np.random.default_rng(0).bytes(400_000)
    content = random if kind == "random" else zlib.compress(TEXT, wbits=-15)[:400_000]  # no header names it
    (tmp_path / "a.bin").write_bytes(content)
    found = notes(tmp_path / "a.bin", dtype, 256 if dtype == "uint8" else 65536)
    assert any("compressed or encrypted data" in note for note in found)


# --- real text has no note ---


@pytest.mark.parametrize("length", [5_000, 20_000, 100_000, 400_000])
@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_text_from_anywhere_on_has_no_note(tmp_path: Path, length: int, kind: str) -> None:
    stream = np.frombuffer(TEXT, np.uint8) if kind == "bytes" else WORDS
    ends = np.flatnonzero(stream == 0) + 1
    starts = [0, *ends[:: max(1, len(ends) // 8)]]
    for start in starts:
        if start + length <= len(stream):
            ids = stream[start : start + length]
            path = written(tmp_path / "ids.bin", ids, "u1" if kind == "bytes" else "<u2")
            assert notes(path, *(("uint8", 256) if kind == "bytes" else ("uint16", 8257))) == ()


@pytest.mark.parametrize(
    "text",
    ["，这是一个用来测试的句子。" * 40 + "\n", "смотри в оба, и не спи. " * 30, "Größtenteils ärgerlich. " * 30],
    ids=["Chinese", "Russian", "German"],
)
def test_text_in_any_letters_has_no_note_of_its_bytes(tmp_path: Path, text: str) -> None:
    letters = [text[i:] + text[:i] for i in np.random.default_rng(0).integers(0, len(text), 60)]
    (tmp_path / "a.bin").write_bytes("".join(letters).encode())
    assert not any(re.search("bytes|header|sorted|filled", note) for note in notes(tmp_path / "a.bin", "uint8", 256))


def test_compressed_text_that_says_so_is_still_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(gzip.compress(TEXT[:100_000]))
    with pytest.raises(ValueError, match="gzip"):
        notes(tmp_path / "a.bin", "uint8", 256)
