"""Files of token ids that would be read wrongly without a word are refused or told; right ones are not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpsweep.proxy import token_file
from hpsweep.proxy.data import check_dataset, load_dataset
from hpsweep.proxy.token_file import read_ids

GPT2 = 50257


def zipf(count: int = 20_000, vocabulary: int = GPT2, *, shuffled: bool = False, seed: int = 0) -> Any:
    """Ids like a tokenizer's: frequent ones are low, or anywhere."""
    generator = np.random.default_rng(seed)
    ids = np.minimum(generator.zipf(1.1, count) + generator.integers(0, 3, count) - 1, vocabulary - 1)
    return generator.permutation(vocabulary)[ids] if shuffled else ids


def written(path: Path, ids: Any, dtype: str = "<u2", head: bytes = b"") -> Path:
    path.write_bytes(head + np.asarray(ids).astype(dtype).tobytes())
    return path


def refused(path: Path, dtype: str = "uint16", vocabulary: int = 50304, more: str = "") -> str:
    """The one line that loading the file fails with."""
    with pytest.raises(ValueError, match="data source") as caught:
        load_dataset(f"bin:{path}?dtype={dtype}&vocabulary={vocabulary}{more}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def notes(path: Path, dtype: str = "uint16", vocabulary: int = 50304, more: str = "") -> tuple[str, ...]:
    return load_dataset(f"bin:{path}?dtype={dtype}&vocabulary={vocabulary}{more}").notes


# --- width, vocabulary and byte order ---


@pytest.mark.parametrize(("dtype", "vocabulary"), [("uint16", 65537), ("uint16", 100277), ("uint8", 257)])
def test_a_vocabulary_beyond_the_dtype_is_refused(tmp_path: Path, dtype: str, vocabulary: int) -> None:
    path = written(tmp_path / "wrapped.bin", np.random.default_rng(0).integers(0, vocabulary, 4000))
    said = refused(path, dtype, vocabulary)
    assert f"vocabulary is {vocabulary}, and {dtype} holds ids below" in said
    assert "have wrapped" in said
    assert "Write the ids as uint32" in said
    most = 256 if dtype == "uint8" else 65536
    assert f"all ids of the tokenizer are below {most}, state vocabulary={most}: proxies need no padding" in said
    stored = "<u1" if dtype == "uint8" else "<u2"
    fits = written(tmp_path / "fits.bin", np.random.default_rng(0).integers(0, most, 4000), stored)
    notes(fits, dtype, most)  # the way on that the message gives


@pytest.mark.parametrize(
    ("stored", "dtype", "remedy"),
    [
        ("<u4", "uint16", "every second id is 0 as uint16, so that it holds ids of 4 bytes: state dtype=uint32"),
        ("<i8", "uint32", "every second id is 0 as uint32, so that it holds ids of 8 bytes: write them as uint32"),
        ("<i8", "uint16", "3 of every 4 ids are 0 as uint16, so that it holds ids of 8 bytes: write them as uint32"),
        (">u4", "uint16", "holds ids of 4 bytes: big-endian: numpy.fromfile(path, '>u4')"),
    ],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_ids_of_another_width_are_refused(tmp_path: Path, stored: str, dtype: str, remedy: str, shuffled: bool) -> None:
    ids = zipf(shuffled=shuffled)
    if stored == ">u4":
        ids = ids % 190  # so that no id read in the other order is beyond the vocabulary
    assert remedy in refused(written(tmp_path / "wide.bin", ids, stored), dtype, 65536)


def test_uint16_of_small_ids_read_as_bytes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin", np.random.default_rng(0).integers(0, 200, 4000), "<u2")
    assert "holds ids of 2 bytes, or UTF-16 text: state dtype=uint16" in refused(path, "uint8", 256)


def test_the_remedy_for_wide_ids_gives_the_tokens(tmp_path: Path) -> None:
    ids = zipf()
    path = written(tmp_path / "wide.bin", ids, "<i8")
    np.fromfile(path, "int64").astype("<u4").tofile(tmp_path / "ids.bin")
    assert "numpy.fromfile(path, 'int64').astype('<u4').tofile('ids.bin')" in refused(path, "uint32")
    np.testing.assert_array_equal(read_ids(tmp_path / "ids.bin", "uint32", 50304).tokens, ids)


def test_high_halves_that_are_0_or_1_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "wide.bin", np.random.default_rng(0).integers(0, 100277, 20_000), "<u4")
    (note, *_) = notes(path, "uint16", 65536)
    assert "and the others are not, as in a file of ids of 4 bytes" in note


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
def test_floats_are_refused_whatever_they_are_read_as(tmp_path: Path, kind: str, dtype: str) -> None:
    if (kind, dtype) == ("<f2", "uint8"):
        return  # 256 values say too little
    ids = zipf(vocabulary=1000)
    path = written(tmp_path / "ids.bin", ids, kind)
    err = refused(path, dtype, {"uint8": 256, "uint16": 65536, "uint32": 2**24}[dtype])
    assert f"as float{8 * int(kind[2])} the first" in err
    assert f"numpy.fromfile(path, '{kind}').astype('<u4').tofile('ids.bin')" in err


def test_text_of_the_letters_d_to_z_is_no_file_of_floats(tmp_path: Path) -> None:
    letters = np.random.default_rng(0).integers(ord("d"), ord("z") + 1, 20_000)
    path = written(tmp_path / "ids.bin", letters, "u1")
    assert read_ids(path, "uint8", 256) is not None


@pytest.mark.parametrize("item", [2, 4])
def test_a_big_endian_file_is_named_where_an_id_is_too_large(tmp_path: Path, item: int) -> None:
    said = refused(written(tmp_path / "big.bin", zipf(), f">u{item}"), f"uint{8 * item}")
    assert "is not below vocabulary 50304" in said
    assert f"it is big-endian, numpy.fromfile(path, '>u{item}').astype('<u{item}')" in said


def test_a_big_endian_file_whose_ids_all_fit_is_told(tmp_path: Path) -> None:
    (note, *_) = notes(written(tmp_path / "big.bin", zipf(), ">u2"), vocabulary=65536)
    assert "low bytes of the ids vary less than high ones, as in a big-endian file" in note


def test_narrow_ids_read_as_wide_ones_and_masked_ids_are_named(tmp_path: Path) -> None:
    assert "as uint16 all of the first 20000 ids are below it" in refused(
        written(tmp_path / "narrow.bin", zipf()), "uint32"
    )
    masked = np.where(np.arange(20_000) % 9, zipf(), -100)
    assert "as int32 it is -100: take out what masks or pads" in refused(
        written(tmp_path / "masked.bin", masked, "<i4"), "uint32"
    )


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("vocabulary", [50304, 65536])
def test_ids_like_a_tokenizers_are_read_without_a_word(tmp_path: Path, shuffled: bool, vocabulary: int) -> None:
    ids = zipf(100_000, shuffled=shuffled)
    for dtype, stored in (("uint16", "<u2"), ("uint32", "<u4")):
        data = load_dataset(f"bin:{written(tmp_path / dtype, ids, stored)}?dtype={dtype}&vocabulary={vocabulary}")
        np.testing.assert_array_equal(np.concatenate([data.train, data.validation]), ids)
        assert data.notes == ()


def test_bytes_of_source_code_are_read_without_a_word(tmp_path: Path) -> None:
    text = np.frombuffer(Path(token_file.__file__).read_bytes() * 3, np.uint8)
    generator = np.random.default_rng(0)
    text = text[generator.permutation(len(text))]  # the same bytes, without the repetition
    for dtype, stored in (("uint8", "u1"), ("uint16", "<u2"), ("uint32", "<u4")):
        assert notes(written(tmp_path / dtype, text, stored), dtype, 256) == ()


def test_a_vocabulary_of_two_and_many_zeros_are_no_other_width(tmp_path: Path) -> None:
    rare = (np.random.default_rng(0).random(20_000) < 0.0004).astype(int)
    rare[-1] = 1
    assert load_dataset(f"bin:{written(tmp_path / 'rare.bin', rare)}?dtype=uint16&vocabulary=2").vocabulary == 2


# --- headers of other tools ---


def llm_c(count: int, magic: int = 20240520, version: int = 1) -> bytes:
    return struct.pack("<3i", magic, version, count).ljust(1024, b"\0")


@pytest.mark.parametrize(
    ("magic", "version", "dtype", "stored"), [(20240520, 1, "uint16", "<u2"), (20240801, 7, "uint32", "<u4")]
)
def test_a_file_of_llm_c_is_its_tokens_without_the_header(
    tmp_path: Path, magic: int, version: int, dtype: str, stored: str
) -> None:
    ids = zipf()
    bare = load_dataset(f"bin:{written(tmp_path / 'bare.bin', ids, stored)}?dtype={dtype}&vocabulary=50304")
    path = written(tmp_path / "llm.bin", ids, stored, llm_c(len(ids), magic, version))
    data = load_dataset(f"bin:{path}?dtype={dtype}&vocabulary=50304")
    np.testing.assert_array_equal(np.concatenate([data.train, data.validation]), ids)
    assert data.data_hash == bare.data_hash


@pytest.mark.parametrize(
    ("head", "dtype", "message"),
    [
        (
            llm_c(20_000),
            "uint32",
            "has the header of llm.c (20240520), whose ids are uint16, and the source says uint32",
        ),
        (llm_c(20_001), "uint16", "which says 20001 tokens of uint16, and 41024 bytes: it was cut short"),
        (llm_c(20_000, version=3), "uint16", "has the header of llm.c (20240520) with version 3, which is unknown"),
        (llm_c(20_000, 20240522), "uint16", "is an evaluation set of llm.c (magic number 20240522)"),
        (llm_c(20_000, 20240326, 5), "uint16", "is a model of llm.c"),
        (b"\x93NUMPY\x01\x00v\x00", "uint16", "is a .npy array, not bare token ids: write its ids bare: numpy.load"),
        (b"PK\x03\x04", "uint16", "is a zip archive"),
        (b"LITPKDS" + struct.pack("<Q", 1), "uint16", "is a packed data set of lit-gpt"),
        (b"MMIDIDX\x00\x00", "uint16", "is the index of Megatron, not bare token ids: give the .bin beside it"),
        (b"TNTIDX\x00\x00", "uint16", "is the index of fairseq"),
        (b"PAR1\x15\x04", "uint16", "is a Parquet file"),
        (b"\x89HDF\r\n\x1a\n", "uint16", "is an HDF5 file"),
        (b"ARROW1\x00\x00", "uint16", "is an Arrow file"),
        (b"\x80\x02\x8a\x0a", "uint16", "is a file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\n", "uint16", "is a pointer of Git LFS, not the data"),
    ],
)
def test_a_header_of_another_tool_is_named(tmp_path: Path, head: bytes, dtype: str, message: str) -> None:
    assert message in refused(written(tmp_path / "a.bin", zipf(), head=head), dtype)


@pytest.mark.parametrize(
    ("compress", "kind"),
    [
        (gzip.compress, "gzip: decompress it: gzip -d"),
        (bz2.compress, "bzip2"),
        (lzma.compress, "xz"),
        (lambda data: pa.compress(data, codec="zstd", asbytes=True), "zstd"),
    ],
)
def test_a_compressed_file_of_ids_is_named_by_its_first_bytes(tmp_path: Path, compress: Any, kind: str) -> None:
    path = tmp_path / "ids.bin"
    path.write_bytes(compress(zipf().astype("<u2").tobytes()))
    path.write_bytes(path.read_bytes() + b"\0" * (path.stat().st_size % 2))
    assert f"is compressed by {kind}" in refused(path).replace("bytes, not bare token ids", "").replace(
        ", not bare token ids", ""
    )


def test_an_array_that_was_saved_by_numpy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", zipf().astype(np.uint16))
    assert ".npy array" in refused(tmp_path / "ids.npy")


def test_text_is_no_file_of_ids(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_text("once upon a time " * 400)
    assert "is text (b'once upon a time onc'...), not token ids: write text:PATH" in refused(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("code", "dtype", "message"),
    [
        (8, "uint16", None),
        (4, "uint32", None),
        (4, "uint16", "holds int32, as ids.idx beside it says, and the source says uint16: state dtype=uint32"),
        (8, "uint32", "holds uint16, as ids.idx beside it says, and the source says uint32: state dtype=uint16"),
        (5, "uint32", "holds int64, as ids.idx beside it says"),
    ],
)
def test_the_index_of_megatron_says_how_ids_are_stored(
    tmp_path: Path, code: int, dtype: str, message: str | None
) -> None:
    path = written(tmp_path / "ids.bin", zipf(), {4: "<i4", 5: "<i8", 8: "<u2"}[code])
    (tmp_path / "ids.idx").write_bytes(b"MMIDIDX\x00\x00" + struct.pack("<QB", 1, code) + bytes(64))
    if message is None:
        np.testing.assert_array_equal(read_ids(path, dtype, 50304).tokens, zipf())
    else:
        assert message in refused(path, dtype)


# --- what a file holds ---


def test_a_file_that_was_never_filled_is_refused(tmp_path: Path) -> None:
    assert "all 1000 ids are 0: it was never filled" in refused(written(tmp_path / "a.bin", np.zeros(1000)))
    half = np.concatenate([zipf(), np.zeros(4000)])
    assert "held-out tokens are 0, as at the end of a file that was not filled" in refused(
        written(tmp_path / "half.bin", half)
    )


def test_an_end_that_was_not_filled_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin", np.concatenate([zipf(), np.zeros(1000)]))
    assert any("the last 1000 of 21000 ids are all 0" in note for note in notes(path))


def test_ids_that_repeat_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin", np.tile(zipf(500), 40))
    assert any(note.endswith("the first 20000 ids repeat every 500.") for note in notes(path, vocabulary=GPT2))


def test_a_vocabulary_far_above_the_highest_id_is_told(tmp_path: Path) -> None:
    low = written(tmp_path / "a.bin", np.random.default_rng(0).integers(0, 9000, 60_000))
    assert any("highest of 60000 ids is 8999, of a vocabulary of 50304." in note for note in notes(low))
    code = written(tmp_path / "b.bin", np.random.default_rng(0).integers(0, 256, 60_000))
    assert any("of a vocabulary of 50304: they look like bytes." in note for note in notes(code))


@pytest.mark.parametrize(
    ("part", "what"), [(slice(None), "all"), (slice(2000), "the beginning"), (slice(-500, None), "the end")]
)
def test_validation_that_is_trained_on_is_refused(tmp_path: Path, part: slice, what: str) -> None:
    ids = zipf()
    path, held = written(tmp_path / "train.bin", ids), written(tmp_path / "val.bin", ids[part])
    said = refused(path, more=f"&validation={held}")
    assert f"validation tokens are {what} of the training tokens" in said


def test_validation_larger_than_training_is_told_by_the_check_before_any_work(tmp_path: Path) -> None:
    train, held = written(tmp_path / "t.bin", zipf(5000)), written(tmp_path / "v.bin", zipf(9000, seed=1))
    data = load_dataset(f"bin:{train}?dtype=uint16&vocabulary=50304&validation={held}")
    with pytest.warns(UserWarning, match="validation has 9000 tokens and training 5000: are the files the other way"):
        check_dataset(data, context=16, eval_sequences=4)


def test_pipes_folders_and_links_to_nothing_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "is a pipe or a device" in refused(tmp_path / "pipe")
    assert "is a folder; give one file" in refused(tmp_path)
    assert "is a link to" in refused(tmp_path / "link")
    assert "is no file" in refused(tmp_path / "absent")
    good = written(tmp_path / "good.bin", zipf())
    assert "is a pipe or a device" in refused(good, more=f"&validation={tmp_path / 'pipe'}")


@pytest.mark.parametrize("vocabulary", [100_000, 200_000])
def test_most_ids_of_four_bytes_are_low_ones_and_are_told_all_the_same(tmp_path: Path, vocabulary: int) -> None:
    # as in text: half of the ids are below 12, and few high halves are not 0
    chance = 1 / np.arange(1, vocabulary + 1.0) ** 1.2
    ids = np.random.default_rng(0).choice(vocabulary, 200_000, p=chance / chance.sum())
    ids.astype("<u4").tofile(tmp_path / "ids.bin")
    [note] = load_dataset(f"bin:{tmp_path / 'ids.bin'}?dtype=uint16&vocabulary=65536").notes
    assert "and the others are not, as in a file of ids of 4 bytes" in note
