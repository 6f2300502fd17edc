"""Documents of text, JSON lines and Parquet: compressed, as arrays, in mixed folders; what a split leaves."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpsweep.proxy.data import Dataset, check_dataset, load_dataset

WORDS = [f"document number {i}: " + "abcdefgh"[i % 8] * (i % 50) for i in range(400)]
LINES = "".join(json.dumps({"text": word}) + "\n" for word in WORDS).encode()


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd
}  # fmt: skip


def refused(source: str) -> str:
    """The one line that loading the source fails with."""
    with pytest.raises(ValueError, match="data source") as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def plain(tmp_path: Path) -> Dataset:
    (tmp_path / "plain.jsonl").write_bytes(LINES)
    return load_dataset(f"jsonl:{tmp_path / 'plain.jsonl'}")


# --- compressed ---


@pytest.mark.parametrize("kind", COMPRESS)
def test_compressed_lines_are_read_by_their_first_bytes_whatever_the_name(
    tmp_path: Path, plain: Dataset, kind: str
) -> None:
    for name in (f"a.jsonl.{kind}", "b.jsonl", "c"):
        (tmp_path / name).write_bytes(COMPRESS[kind](LINES))
        assert load_dataset(f"jsonl:{tmp_path / name}").data_hash == plain.data_hash


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_file_in_several_compressed_parts_is_read_to_its_end(tmp_path: Path, plain: Dataset, kind: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(COMPRESS[kind](LINES[:7000]) + COMPRESS[kind](LINES[7000:]))
    assert load_dataset(f"jsonl:{tmp_path / 'a.jsonl'}").data_hash == plain.data_hash


@pytest.mark.parametrize("kind", COMPRESS)
def test_compressed_text_is_its_text(tmp_path: Path, kind: str) -> None:
    text = b"once upon a time " * 99
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "b").write_bytes(COMPRESS[kind](text))
    hashes = {load_dataset(f"text:{tmp_path / name}").data_hash for name in ("a.txt", "b")}
    assert len(hashes) == 1


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file_that_was_cut_short_is_damaged(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(0).integers(32, 127, 300_000).astype(np.uint8).tobytes()
    path = tmp_path / "a"
    whole = COMPRESS[kind](random)
    path.write_bytes(whole[: len(whole) // 2])
    name = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}[kind]
    assert f"{path}: damaged {name}" in refused(f"text:{path}")


def test_lines_in_a_file_named_as_compressed_are_lines(tmp_path: Path, plain: Dataset) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(LINES)
    assert load_dataset(f"jsonl:{tmp_path / 'a.jsonl.gz'}").data_hash == plain.data_hash


# --- folders ---


@pytest.mark.parametrize("name", ["00.json.gz", "00.json", "00.json.zst", "00.ndjson", "00.jsonl.zst", "00.JSONL"])
def test_a_folder_of_lines_is_found_under_every_usual_name(tmp_path: Path, plain: Dataset, name: str) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    kind = name.rpartition(".")[2]
    (folder / name).write_bytes(COMPRESS.get(kind, bytes)(LINES))
    (folder / "README.md").write_text("not read")
    assert load_dataset(f"jsonl:{folder}").data_hash == plain.data_hash


def test_a_json_file_beside_lines_and_a_second_form_of_a_file_are_not_read(tmp_path: Path, plain: Dataset) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(LINES)
    (folder / "a.jsonl.zst").write_bytes(zstd(LINES))
    (folder / "dataset_info.json").write_text('{"rows": 400}')
    assert load_dataset(f"jsonl:{folder}").data_hash == plain.data_hash


def test_pipes_and_links_to_nothing_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "absent")
    for kind in ("text", "jsonl", "parquet"):
        assert "is a pipe or a device; write what comes out of it into a file" in refused(f"{kind}:{tmp_path / 'pipe'}")
        assert "is a link to" in refused(f"{kind}:{tmp_path / 'gone.jsonl'}")
    assert "gone.jsonl is a link to" in refused(f"jsonl:{tmp_path}")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"PK\x03\x04", "is a zip archive"),
        (b"PAR1\x15\x04", "is a Parquet file, not text: write parquet:PATH?column=NAME"),
        (b"\x93NUMPY\x01\x00", "is a .npy array, not text"),
        (b"\x89PNG\r\n\x1a\n", "is an image (PNG), not text: take out what is no text"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is an image (JPEG), not text"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "is sound (WAV), not text"),
        (b"a.txt".ljust(257, b"\0") + b"ustar\0", "is a tar archive, not text: take out what is in it: tar -x"),
        (b"%PDF-1.7\n", "is a PDF, not text: write its text into a file"),
        (b"{\\rtf1\\ansi", "is a document in RTF, not text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, not the data, not text: fetch it"),
        ("é".encode("utf-16"), "is text in UTF-16; write it as UTF-8: iconv -f UTF-16 -t UTF-8"),
        ("é".encode("utf-32"), "is text in UTF-32"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_what_is_no_utf8_text_is_named_by_its_first_bytes(tmp_path: Path, kind: str, head: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(head + b"more of it " * 99)
    assert message in refused(f"{kind}:{tmp_path / 'a'}")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_what_is_no_text_once_decompressed_is_named(tmp_path: Path, kind: str, compress: Any) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = 900
        archive.addfile(entry, io.BytesIO(b"some text" * 100))
    (tmp_path / "a.tgz").write_bytes(compress(buffer.getvalue()))
    said = refused(f"{kind}:{tmp_path / 'a.tgz'}")
    assert "is once decompressed a tar archive, not text: take out what is in it: tar -x" in said
    (tmp_path / "a.gz").write_bytes(compress(gzip.compress(b"some text" * 100)))
    assert "is once decompressed compressed by gzip, not text" in refused(f"{kind}:{tmp_path / 'a.gz'}")


@pytest.mark.parametrize("text", ["BZh, he said. ", "PAR1 of the game. ", "LITPKDS is a word. "])
def test_text_that_begins_like_another_file_is_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text * 99)
    assert load_dataset(f"text:{tmp_path / 'a.txt'}").train[:4].tobytes() == text[:4].encode()


def test_files_with_zero_bytes_in_a_folder_of_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text " * 99)
    (tmp_path / "b.dat").write_bytes(b"some data" + bytes(99))
    (note,) = [note for note in load_dataset(f"text:{tmp_path}").notes if "zero bytes" in note]
    assert note.startswith("1 of 2 files hold zero bytes, as files that are no text do: ")
    assert note.endswith("b.dat.")


# --- JSON ---


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_one_json_array_is_its_elements(tmp_path: Path, plain: Dataset, indent: int | None, mark: bytes) -> None:
    (tmp_path / "a.json").write_bytes(mark + json.dumps([{"text": word} for word in WORDS], indent=indent).encode())
    assert load_dataset(f"jsonl:{tmp_path / 'a.json'}").data_hash == plain.data_hash


def test_lines_after_a_byte_order_mark_are_lines(tmp_path: Path, plain: Dataset) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + LINES)
    assert load_dataset(f"jsonl:{tmp_path / 'a.jsonl'}").data_hash == plain.data_hash


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"text": "a"}\n{"text": null}\n',
            "line 2: field 'text' is None, not a string; remove the lines without text",
        ),
        (
            '{"text": {"content": "a"}}\n',
            "field 'text' holds a JSON object with 'content', not a string; write the text",
        ),
        (
            '{"text": ["a"]}\n',
            "field 'text' holds a JSON list, not a string; write the text in it into a field of its own",
        ),
        ('[{"text": "a"}, {"text": null}]', "element 2: field 'text' is None"),
        ('[{"text": "a"}, 7]', "element 2: a JSON int, not an object"),
        ('[{"text": "a"},', "neither a JSON array nor JSON objects in lines"),
        ('["a"]\n["b"]\n', "neither a JSON array nor JSON objects in lines"),
        ('{\n "text": "a"\n}\n', "line 1: broken JSON"),
    ],
)
def test_text_that_is_null_or_nested_has_its_own_remedy(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    said = refused(f"jsonl:{tmp_path / 'a.jsonl'}")
    assert message in said
    assert "every line is a whole object" in said or "{\n" not in content


# --- Parquet ---


def test_a_nested_column_has_its_own_remedy_and_bytes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns: dict[str, Any] = {"turns": [[{"content": "a"}]], "info": [{"text": "a"}], "n": [1], "body": [b"x" * 99]}
    pq.write_table(pa.table(columns), path)
    for name in ("turns", "info"):
        assert "not text: write the text in it into a column of its own first" in refused(
            f"parquet:{path}?column={name}"
        )
    assert "column 'n' is int64, not text" in refused(f"parquet:{path}?column=n")
    assert load_dataset(f"parquet:{path}?column=body").train.tobytes() == b"x" * 90


def test_a_column_of_images_is_refused_and_one_of_other_bytes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = [b"some text", b"\x89PNG\r\n\x1a\n" + bytes(90)] * 20
    numbers = [np.arange(k, k + 40, dtype="<f4").tobytes() for k in range(40)]
    pq.write_table(pa.table({"image": images, "numbers": numbers, "text": [b"a"] * 40}), path)
    said = refused(f"parquet:{path}?column=image")
    assert "column 'image' holds an image (PNG) in row 2, not text: take out what is no text" in said
    notes = load_dataset(f"parquet:{path}?column=numbers").notes
    assert any("40 of 40 rows of column 'numbers' hold zero bytes" in note for note in notes)
    assert not any("zero bytes" in note for note in load_dataset(f"parquet:{path}?column=text").notes)


def test_a_pointer_in_the_place_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a pointer of Git LFS, not the data, not Parquet: fetch it" in refused(
        f"parquet:{tmp_path / 'a.parquet'}"
    )


# --- what a split leaves ---


def of_lengths(path: Path, lengths: list[int]) -> Dataset:
    """A folder's worth of documents with these lengths, different ones."""
    generator = np.random.default_rng(0)
    texts = ["".join(map(chr, generator.integers(97, 123, n))) for n in lengths]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return load_dataset(f"jsonl:{path}")


def test_held_out_text_that_is_mostly_one_document_or_larger_than_training_is_told(tmp_path: Path) -> None:
    found: set[str] = set()
    for size in (20_000, 200_000):  # which side the long one falls to depends on its content
        for i in range(60):
            lengths = [1000] * 60
            lengths[i] = size
            data = of_lengths(tmp_path / f"{size}-{i}.jsonl", lengths)
            held, rest = len(data.validation), len(data.train)
            assert any("is larger than the training text" in note for note in data.notes) == (held > rest)
            largest = max(map(len, data.validation.tobytes().split(b"\0")))
            documents = held - data.validation.tobytes().count(b"\0")
            assert any("% of the held-out text" in note for note in data.notes) == (2 * largest > documents)
            found.update(data.notes)
    assert any("is larger than the training text" in note for note in found)
    assert any(note.startswith("one document of 20000 bytes is ") for note in found)


def test_what_is_odd_is_told_by_the_check_before_any_work(tmp_path: Path) -> None:
    for name in ("some", "other"):
        (tmp_path / f"{name}.txt").write_text(f"{name} text " * 99)
    data = load_dataset(f"text:{tmp_path}")
    said = "100 % of the held-out text, the last tenth of all, is of one of 2 documents"
    with pytest.warns(UserWarning, match=said):
        check_dataset(data, context=16, eval_sequences=4)


def test_copies_on_both_sides_and_copies_of_documents_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i}.txt").write_text(WORDS[i % 20])
    assert any(
        "% of the held-out text is in the training text as well" in n for n in load_dataset(f"text:{folder}").notes
    )
    (tmp_path / "a.jsonl").write_bytes(LINES + LINES)
    assert (
        "50 % of the text are copies of other documents: remove them."
        in load_dataset(f"jsonl:{tmp_path / 'a.jsonl'}").notes
    )


def test_ordinary_data_are_loaded_without_a_word(tmp_path: Path, plain: Dataset) -> None:
    (tmp_path / "a.txt").write_text("some text " * 99)
    assert plain.notes == load_dataset(f"text:{tmp_path / 'a.txt'}").notes == load_dataset("stdlib").notes == ()


def test_identical_documents_and_one_document_are_told(tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    path.write_text((json.dumps({"text": "one text " * 50}) + "\n") * 300)
    assert (
        "100 % of the held-out text is in the training text as well: remove copies."
        in load_dataset(f"jsonl:{path}").notes
    )
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "".join(map(chr, range(32, 20_000)))}))
    [note] = load_dataset(f"jsonl:{tmp_path / 'one.jsonl'}").notes
    assert note.startswith("there is one document, and its last tenth is held out")
    few = [f"text {i} " * 40 for i in range(12)]  # different ones, split by position
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in few))
    assert not any("as well" in note for note in load_dataset(f"jsonl:{tmp_path / 'few.jsonl'}").notes)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_parquet_columns_of_views_are_text(tmp_path: Path, kind: pa.DataType, plain: Dataset) -> None:
    path = tmp_path / "view.parquet"
    texts = [json.loads(line)["text"] for line in LINES.splitlines()]
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()).cast(kind)}), path)
    assert load_dataset(f"parquet:{path}").data_hash == plain.data_hash
