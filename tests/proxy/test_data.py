"""Sources, splits, hashes and windows of hpsweep.proxy.data, and what it says about bad input."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpsweep.proxy import data, token_file
from hpsweep.proxy import documents as documents_module
from hpsweep.proxy.data import Dataset, check_dataset, load_dataset, token_windows, train_offsets, validation_windows

WORDS = [f"document number {i}: " + "abcdefgh"[i % 8] * (i % 50) for i in range(400)]


# By sha256sum, the hashes of these relative paths begin with a byte divisible by 16.
HELD_OUT = ["50.txt", "54.txt", "b/17.txt", "b/37.txt", "b/59.txt"]
FIXED_OFFSETS = [[610, 754, 383], [142, 813, 8]]


def made(train: int = 100, validation: int = 50) -> Dataset:
    """Tokens that are their own position, and held-out tokens that are their position plus 1000."""
    return Dataset(
        source="made",
        train=np.arange(train, dtype=np.uint16),
        validation=np.arange(1000, 1000 + validation, dtype=np.uint16),
        vocabulary=2**16,
        data_hash="0" * 16,
    )


def message(source: str) -> str:
    """The one line that loading `source` fails with."""
    with pytest.raises(ValueError, match=r"data source") as caught:
        load_dataset(source)
    text = str(caught.value)
    assert "\n" not in text
    assert source in text
    return text


def write_jsonl(path: Path, texts: list[str], field: str = "text") -> None:
    path.write_text("".join(json.dumps({field: text, "id": i}) + "\n" for i, text in enumerate(texts)))


def write_bin(path: Path, ids: list[int], dtype: str = "<u2") -> None:
    np.array(ids, dtype=dtype).tofile(path)


def documents(dataset: Dataset) -> tuple[list[bytes], list[bytes]]:
    return dataset.train.tobytes().split(b"\0"), dataset.validation.tobytes().split(b"\0")


# stdlib


def test_the_standard_library_is_about_ten_megabytes_of_which_one_in_sixteen_files_is_held_out() -> None:
    dataset = load_dataset("stdlib")
    assert dataset.vocabulary == 256
    assert dataset.train.dtype == dataset.validation.dtype == np.uint8
    assert 5e6 < len(dataset.train) < 2e7
    assert 0.02 < len(dataset.validation) / len(dataset.train) < 0.15
    train, validation = documents(dataset)
    assert 0.03 < len(validation) / len(train) < 0.12
    assert load_dataset("stdlib") is dataset


def test_the_standard_library_has_neither_tests_nor_installed_packages_nor_build_files() -> None:
    root = Path(os.__file__).parent
    names = [
        path.relative_to(root) for path in documents_module.files_under(root, (".py",), data._is_stdlib, links=False)
    ]
    folders = {part for name in names for part in name.parts[:-1]}
    assert "json" in folders
    assert not folders & {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data"}
    assert not [name for name in names if name.name.startswith("_sysconfigdata")]


def test_the_standard_library_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "import sys; from hpsweep.proxy.data import load_dataset; print(load_dataset('stdlib').data_hash);"
        "print(*{'torch', 'ray', 'optuna', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=Path(data.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"{load_dataset('stdlib').data_hash}\n\n"


# text


def test_a_text_file_is_its_bytes_with_the_last_tenth_held_out(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4 + b"\xff\xfe"  # no UTF-8, and no error
    (tmp_path / "a.txt").write_bytes(content)
    dataset = load_dataset(f"text:{tmp_path / 'a.txt'}")
    assert dataset.train.tobytes() + dataset.validation.tobytes() == content
    assert len(dataset.validation) == 102
    assert dataset.train.dtype == np.uint8


def test_a_folder_of_text_is_split_by_file_in_sorted_order_without_hidden_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for i, word in enumerate(WORDS[:64]):
        (tmp_path / ("b" if i % 2 else ".") / f"{i:02d}.txt").write_text(word)
    for name in (".hidden", ".git/config"):
        (tmp_path / name).write_text("hidden")
    (tmp_path / "empty").touch()
    train, validation = documents(load_dataset(f"text:{tmp_path}"))
    assert sorted(train + validation) == sorted(word.encode() for word in WORDS[:64])
    order = [word.encode() for word in WORDS[0:64:2] + WORDS[1:64:2]]
    assert train == [word for word in order if word in train]
    assert validation == [(tmp_path / name).read_bytes() for name in HELD_OUT]


def test_linked_folders_are_read_once_and_loops_end(tmp_path: Path) -> None:
    real, folder = tmp_path / "real", tmp_path / "corpus"
    real.mkdir()
    folder.mkdir()
    (folder / "a.txt").write_text("a" * 900)
    (real / "b.txt").write_text("b" * 9000)
    (folder / "shard").symlink_to(real)
    (folder / "again").symlink_to(real)
    (real / "loop").symlink_to(folder)
    data = load_dataset(f"text:{folder}")
    tokens = np.concatenate([data.train, data.validation])
    assert (tokens == ord("a")).sum() == 900
    assert (tokens == ord("b")).sum() == 9000


def test_few_files_are_split_by_position(tmp_path: Path) -> None:
    (tmp_path / "50.txt").write_text("a" * 50)  # would be held out among many
    (tmp_path / "51.txt").write_text("b" * 50)
    dataset = load_dataset(f"text:{tmp_path}")
    assert dataset.train.tobytes() == b"a" * 50 + b"\0" + b"b" * 40
    assert dataset.validation.tobytes() == b"b" * 10


def test_files_of_which_none_would_be_held_out_are_split_by_position(tmp_path: Path) -> None:
    for i in range(0, 32, 2):  # none of these names has a hash that begins with a byte divisible by 16
        (tmp_path / f"{i:02d}.txt").write_text("9 letters")
    dataset = load_dataset(f"text:{tmp_path}")
    assert dataset.validation.tobytes() == b"tters\x009 letters"  # 159 bytes: the last 15


def test_a_path_may_be_relative_or_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "relative-or-tilde.txt").write_text("some text " * 9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    relative = load_dataset("text:relative-or-tilde.txt")
    assert relative.data_hash == load_dataset("text:~/relative-or-tilde.txt").data_hash
    write_bin(tmp_path / "a.bin", [1, 2])
    write_bin(tmp_path / "b.bin", [3, 4])
    source = "bin:~/a.bin?dtype=uint16&vocabulary=5&validation=~/b.bin"
    assert load_dataset(source).validation.tolist() == [3, 4]


# jsonl


def test_jsonl_takes_the_field_and_holds_out_by_content_with_duplicates_on_one_side(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*WORDS, *WORDS, "", "é\ud800"])
    train, validation = documents(load_dataset(f"jsonl:{tmp_path / 'a.jsonl'}"))
    assert len(train) + len(validation) == 801  # the empty document is left out
    assert not set(train) & set(validation)
    assert 20 < len(validation) < 90
    assert train[-1] == b"\xc3\xa9\xed\xa0\x80"  # a lone surrogate has bytes too


def test_jsonl_is_the_same_compressed_in_parts_or_under_another_field(tmp_path: Path) -> None:
    whole, parts, other = tmp_path / "a.jsonl", tmp_path / "parts", tmp_path / "other.jsonl"
    parts.mkdir()
    write_jsonl(whole, WORDS)
    write_jsonl(other, WORDS, field="body & soul")
    (parts / "1.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"text": w}) + "\n\n" for w in WORDS[:99]).encode())
    )
    write_jsonl(parts / "2.jsonl", WORDS[99:])
    (parts / "notes.md").write_text("not read")
    expected = load_dataset(f"jsonl:{whole}").data_hash
    assert load_dataset(f"jsonl:{parts}").data_hash == expected
    assert load_dataset(f"jsonl:{other}?field=body %26 soul").data_hash == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "torn', ["line 3", "broken JSON"]),
        ('{"text": "\xff"}', ["line 3", "broken JSON"]),
        ("[1]", ["line 3", "list", "not an object"]),
        ('{"txt": "a", "id": 1}', ["line 3", "no field 'text'", "'txt', 'id'", "?field="]),
        ('{"text": 7}', ["line 3", "is 7, not a string"]),
        ('{"text": null}', ["line 3", "is None, not a string"]),
    ],
)
def test_a_bad_jsonl_line_is_named(tmp_path: Path, line: str, words: list[str]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n' + line.encode("latin-1") + b"\n")
    text = message(f"jsonl:{path}")
    assert all(word in text for word in [str(path), *words]), text


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:30] + b"XXXXXX" + b[36:], lambda b: b"plain" + b])
def test_damaged_gzip_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(damage(gzip.compress("".join(json.dumps({"text": w}) + "\n" for w in WORDS).encode())))
    assert f"{path}: damaged gzip" in message(f"jsonl:{path}")


# parquet


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_equals_jsonl_of_the_same_documents(tmp_path: Path, kind: pa.DataType) -> None:
    write_jsonl(tmp_path / "a.jsonl", WORDS)
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"body": pa.array(WORDS[:70]).cast(kind)}), folder / "0.parquet", row_group_size=7)
    pq.write_table(pa.table({"id": range(330), "body": pa.array(WORDS[70:]).cast(kind)}), folder / "1.parquet")
    dataset = load_dataset(f"parquet:{folder}?column=body")
    assert dataset.data_hash == load_dataset(f"jsonl:{tmp_path / 'a.jsonl'}").data_hash


def test_parquet_names_the_columns_there_are_and_the_row_without_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "body": ["a", "b", None]}), path, row_group_size=1)
    text = message(f"parquet:{path}")
    assert f"{path}: no column 'text'; there is 'id', 'body'" in text
    assert "column 'id' is int64, not text" in message(f"parquet:{path}?column=id")
    assert "column 'body' is null in row 3" in message(f"parquet:{path}?column=body")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x" * 100]), pa.array(["y" * 100])], names=["text", "text"])
    pq.write_table(table, tmp_path / "two.parquet")
    with pytest.raises(ValueError, match="two columns 'text'"):
        load_dataset(f"parquet:{tmp_path / 'two.parquet'}?column=text")


def test_unreadable_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"no parquet at all")
    assert f"{path}: Parquet magic bytes not found" in message(f"parquet:{path}")


# bin


def test_bin_maps_little_endian_ids_and_holds_out_the_last_tenth_or_another_file(tmp_path: Path) -> None:
    path, held_out = tmp_path / "train.bin", tmp_path / "c++ val.bin"
    path.write_bytes(bytes([1, 0, 0, 1] * 10))  # 1, 256, 1, 256, ...
    write_bin(held_out, [5, 6, 7])
    dataset = load_dataset(f"bin:{path}?dtype=uint16&vocabulary=257")
    assert dataset.train.tolist() == [1, 256] * 9
    assert dataset.validation.tolist() == [1, 256]
    assert dataset.vocabulary == 257
    assert dataset.train.dtype == np.uint16
    assert not dataset.train.flags.owndata
    assert not dataset.train.flags.writeable
    with_file = load_dataset(f"bin:{path}?validation={held_out}&vocabulary=257&dtype=uint16")
    assert with_file.train.tolist() == [1, 256] * 10
    assert with_file.validation.tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("?vocabulary=100", ["dtype is missing", "uint8 or uint16 or uint32"]),
        ("?dtype=int16&vocabulary=100", ["dtype is int16", "uint8 or uint16 or uint32"]),
        ("?dtype=uint16", ["vocabulary is missing", "vocabulary=50304"]),
        ("?dtype=uint16&vocabulary=1", ["vocabulary is 1", "[2, 2^32]"]),
        ("?dtype=uint16&vocabulary=-5", ["vocabulary is -5", "[2, 2^32]"]),
        ("?dtype=uint16&vocabulary=4294967297", ["[2, 2^32]"]),
        ("?dtype=uint32&vocabulary=100", ["22 bytes", "multiple of 4", "dtype"]),
        ("?dtype=uint16&vocabulary=5", ["token id 5 at position 5"]),
        ("?dtype=uint16&vocabulary=10", ["token id 10 at position 10"]),
        ("?dtype=uint16&vocabulary=9", ["train.bin: token id 9 at position 9", "below vocabulary 9", "dtype"]),
        ("?dtype=uint16&vocabulary=99&validation=FOLDER/absent", ["FOLDER/absent is no file"]),
        ("?dtype=uint16&vocabulary=99&validation=FOLDER/train.bin", ["both training and validation"]),
        ("?dtype=uint16&vocabulary=99&validation=FOLDER/empty.bin", ["empty.bin has 0 bytes"]),
        ("?dtype=uint16&vocabulary=11&validation=FOLDER/val.bin", ["val.bin: token id 12 at position 1"]),
    ],
)
def test_a_bad_bin_source_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, words: list[str]
) -> None:
    monkeypatch.setattr(token_file, "CHUNK", 4)  # so that the position counts over chunks
    write_bin(tmp_path / "train.bin", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    write_bin(tmp_path / "val.bin", [3, 12, 13])
    (tmp_path / "empty.bin").touch()
    text = message(f"bin:{tmp_path / 'train.bin'}{options.replace('FOLDER', str(tmp_path))}")
    assert all(word.replace("FOLDER", str(tmp_path)) in text for word in words), text


def test_a_vocabulary_of_every_possible_id_is_allowed(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [2**32 - 1] * 20, "<u4")
    assert load_dataset(f"bin:{tmp_path / 'a.bin'}?dtype=uint32&vocabulary={2**32}").train[0] == 2**32 - 1


# the hash


def test_the_hash_is_the_same_in_every_dtype_byte_order_source_and_chunk_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = list(range(200))
    hashes = set()
    for name, dtype in {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}.items():
        write_bin(tmp_path / name, ids, dtype)
        hashes.add(load_dataset(f"bin:{tmp_path / name}?dtype={name}&vocabulary=256").data_hash)
    hashes.add(load_dataset(f"text:{tmp_path / 'uint8'}").data_hash)
    for chunk in (7, 1000):
        monkeypatch.setattr(token_file, "CHUNK", chunk)
        for order in (">u2", "<u8", "u1"):
            tokens = np.array(ids, dtype=order)
            hashes.add(data._data_hash(256, tokens[:180], tokens[180:]))
    assert len(hashes) == 1
    (digest,) = hashes
    assert len(digest) == 16
    assert int(digest, 16)


def test_the_hash_tells_apart_one_token_the_split_and_the_vocabulary() -> None:
    tokens = np.zeros(100, dtype=np.uint16)
    other = tokens.copy()
    other[57] = 1
    arguments = [
        (300, tokens[:90], tokens[90:]),
        (300, tokens[:89], tokens[89:]),
        (301, tokens[:90], tokens[90:]),
        (300, other[:90], other[90:]),
        (300, tokens[:90], other[57:67]),
        (256, tokens[:90], tokens[90:]),
    ]
    assert len({data._data_hash(*each) for each in arguments}) == len(arguments)


# bad sources


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("c4", ["unknown kind 'c4'", "stdlib, text:PATH, jsonl:PATH, parquet:PATH or bin:PATH"]),
        ("stdlib:/usr", ["stdlib takes no path"]),
        ("stdlib?x=1", ["unknown option 'x'", "stdlib takes no options"]),
        ("text:", ["no path", "text:PATH"]),
        ("text:FOLDER/absent/path", ["FOLDER/absent/path does not exist", "check the path"]),
        ("text:FOLDER/absent?field=a", ["unknown option 'field'", "text takes no options"]),
        ("jsonl:FOLDER/absent?fild=a", ["unknown option 'fild'", "jsonl takes the options field"]),
        ("jsonl:FOLDER/absent?text", ["unknown option 'text'", "NAME=VALUE"]),
        ("jsonl:FOLDER/absent?field=a&junk", ["unknown option 'field=a&junk'", "NAME=VALUE"]),
        ("jsonl:FOLDER/absent?", ["unknown option ''", "jsonl takes the options field"]),
        ("jsonl:FOLDER/absent?field=", ["option 'field' is empty"]),
        ("jsonl:FOLDER/absent?field=a&field=b", ["option 'field' is given twice"]),
        ("parquet:FOLDER/absent?column=%ff", ["unknown option 'column=%ff'", "parquet takes the options column"]),
        ("bin:FOLDER/absent?dtype=uint8&vocabulary=9", ["FOLDER/absent is no file"]),
    ],
)
def test_a_bad_source_is_refused_with_what_is_allowed(tmp_path: Path, source: str, words: list[str]) -> None:
    text = message(source.replace("FOLDER", str(tmp_path)))
    assert all(word.replace("FOLDER", str(tmp_path)) in text for word in words), text


@pytest.mark.parametrize(
    ("kind", "wanted"), [("text", "no files"), ("jsonl", ".jsonl or .jsonl.gz"), ("parquet", ".parquet")]
)
def test_an_empty_folder_is_refused(tmp_path: Path, kind: str, wanted: str) -> None:
    (tmp_path / ".hidden").write_text("hidden")
    text = message(f"{kind}:{tmp_path}")
    assert "holds no" in text
    assert wanted in text


def test_data_too_small_to_hold_anything_out_is_refused(tmp_path: Path) -> None:
    for name, content, part in (("empty", "", "training"), ("tiny", "123456789", "validation")):
        (tmp_path / name).write_text(content)
        assert f"no {part} tokens" in message(f"text:{tmp_path / name}")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    assert "Permission denied" in message(f"text:{tmp_path}")


# windows


def test_windows_by_hand() -> None:
    tokens = np.array([10, 11, 12, 13, 14, 255], dtype=np.uint8)
    inputs, targets = token_windows(tokens, np.array([[0, 3], [1, 1]]), 2)
    assert inputs.tolist() == [[[10, 11], [13, 14]], [[11, 12], [11, 12]]]
    assert targets.tolist() == [[[11, 12], [14, 255]], [[12, 13], [12, 13]]]
    assert inputs.dtype == targets.dtype == np.int64


@pytest.mark.parametrize("offset", [-1, 4])
def test_a_window_beyond_the_tokens_is_refused(offset: int) -> None:
    with pytest.raises(ValueError, match="allow 0 to 3"):
        token_windows(np.arange(6, dtype=np.uint8), np.array([0, offset]), 2)


def test_windows_of_a_memory_map_equal_those_of_the_array(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", list(range(500)))
    dataset = load_dataset(f"bin:{tmp_path / 'a.bin'}?dtype=uint16&vocabulary=500")
    inputs, targets = token_windows(dataset.train, np.array([440]), 9)
    assert inputs.tolist() == [list(range(440, 449))]
    assert targets.tolist() == [list(range(441, 450))]
    assert type(inputs) is np.ndarray


def test_training_offsets_of_a_longer_run_begin_with_those_of_a_shorter_one() -> None:
    long = train_offsets(1000, seed=3, steps=50, batch=7, context=16)
    assert long.shape == (50, 7)
    assert long.dtype == np.int64
    np.testing.assert_array_equal(train_offsets(1000, seed=3, steps=20, batch=7, context=16), long[:20])
    assert train_offsets(1000, seed=3, steps=0, batch=7, context=16).shape == (0, 7)
    np.testing.assert_array_equal(train_offsets(made(1000), seed=3, steps=50, batch=7, context=16), long)


def test_training_offsets_are_the_same_for_ever_and_differ_between_seeds() -> None:
    assert train_offsets(1000, seed=0, steps=2, batch=3, context=16).tolist() == FIXED_OFFSETS
    assert train_offsets(1000, seed=1, steps=2, batch=3, context=16).tolist() != FIXED_OFFSETS


def test_training_offsets_are_uniform_over_all_valid_starts() -> None:
    offsets = train_offsets(24, seed=0, steps=1000, batch=20, context=4)
    counts = np.bincount(offsets.ravel(), minlength=20)
    assert len(counts) == 20  # 0 to 19: 19 + 4 + 1 = 24 tokens
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 5 < chi_square < 45  # 19 degrees of freedom: both tails beyond 1 in 1000


def test_validation_windows_are_evenly_spread_and_do_not_overlap() -> None:
    dataset = made(validation=50)
    inputs, targets = validation_windows(dataset, 3, 10)
    assert inputs[:, 0].tolist() == [1000, 1016, 1032]  # 49 targets: starts 0, 16.3, 32.7
    np.testing.assert_array_equal(targets, inputs + 1)
    inputs, targets = validation_windows(dataset, 7, 7)  # exactly full: 49 targets
    np.testing.assert_array_equal(targets.ravel(), np.arange(1001, 1050))
    for count in range(1, 13):
        _, targets = validation_windows(dataset, count, 4)
        assert len(set(targets.ravel().tolist())) == count * 4
    assert inputs.dtype == np.int64


def test_too_short_data_is_refused_before_any_work_with_what_fits() -> None:
    dataset = made(train=11, validation=50)
    check_dataset(dataset, context=10, eval_sequences=4)
    with pytest.raises(ValueError, match=r"^5 validation windows of context 10: .*at most 4, .*fewer eval_sequences"):
        check_dataset(dataset, context=10, eval_sequences=5)
    with pytest.raises(ValueError, match=r"at most 4, .*shorter context"):
        validation_windows(dataset, 5, 10)
    with pytest.raises(ValueError, match=r"context 11: .* 11 training tokens of 'made'\. .*1 to 10, or more data"):
        check_dataset(dataset, context=11, eval_sequences=1)
    with pytest.raises(ValueError, match=r"the 11 training tokens\. "):
        train_offsets(11, seed=0, steps=1, batch=1, context=11)
    assert train_offsets(11, seed=0, steps=1, batch=2, context=10).tolist() == [[0, 0]]


def test_a_count_or_context_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        validation_windows(made(), 0, 10)
    with pytest.raises(ValueError, match="context of 1 to"):
        train_offsets(made(), seed=0, steps=1, batch=1, context=0)
