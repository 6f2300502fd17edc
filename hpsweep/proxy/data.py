"""Token batches by (source, seed, step): what the proxies train on, and what they are measured on.

A source is a string, and the `data` field of a trial:

    stdlib                              the Python standard library's own sources, as bytes; no download needed
    text:PATH                           a text file, or a folder of files, as bytes
    jsonl:PATH?field=text               one field of every line of a .jsonl file, or of a folder of them
    parquet:PATH?column=text            a text column of a .parquet file, or of a folder of them
    bin:PATH?dtype=uint16&vocabulary=50304[&validation=PATH][&bytes_per_token=4.3]
                                        nanoGPT's .bin: bare little-endian token ids, memory-mapped, or llm.c's,
                                        with its header

PATH ends at the first `?`, may begin with `~`, and is relative to the working directory. Options follow as
NAME=VALUE joined by `&`, where %XX stands for a byte (%26 is `&`); dtype is uint8, uint16 or uint32. Folders are
read recursively, in the order of the relative paths; hidden files and folders are left out. bytes_per_token says how
many bytes of text a token stands for, so that losses can be told in bits/byte (`hpsweep.units`); it changes no token.

Text becomes UTF-8 bytes, vocabulary 256, whatever they are: a byte that is no UTF-8 is a token like any other. A
document is a file, a line or a row; a zero byte stands between documents, and empty ones are left out. Files compressed
by gzip, bzip2, xz or zstd are decompressed, whatever their names. A folder of JSON lines is that of its .jsonl and
.ndjson files or, without any, of its .json files; a file that is one JSON array has its elements for lines.

Held out for validation: the documents whose SHA-256 begins with a byte divisible by 16, about one in sixteen; of the
relative path (stdlib, text), or of the content (jsonl, parquet), so that duplicates stay on one side. Of a .bin without
`validation`, of fewer than 16 documents, and where one side would be empty: the last tenth of all tokens.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from hpsweep.proxy.documents import (
    error_line,
    files_under,
    jsonl_documents,
    jsonl_files,
    parquet_documents,
    whole_file,
)
from hpsweep.proxy.held_out import Split, last_tenth, split_documents
from hpsweep.proxy.token_file import DTYPES, Tokens, read_ids, token_chunks
from hpsweep.proxy.token_notes import check_apart, copied_windows, notes_of
from hpsweep.rules.masks import random_stream
from hpsweep.units import bytes_per_token, is_images

Integers = npt.NDArray[np.int64]

_OPTIONS: dict[str, tuple[str, ...]] = {
    "stdlib": (),
    "text": (),
    "jsonl": ("field",),
    "parquet": ("column",),
    "bin": ("dtype", "vocabulary", "validation", "bytes_per_token"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Training and held-out tokens of one source, read-only, each id in [0, vocabulary).

    data_hash: 16 hexadecimal digits of a SHA-256 over vocabulary and tokens; equal tokens have equal hashes,
    whatever their source, dtype and byte order. `notes` says what is odd about them, a sentence each.
    """

    source: str
    train: Tokens  # 1-D, unsigned; may be a memory map
    validation: Tokens
    vocabulary: int
    data_hash: str
    notes: tuple[str, ...] = ()


@functools.lru_cache(maxsize=8)
def load_dataset(source: Any) -> Dataset:
    """The tokens of a source, read once per process; the grammar is in the module docstring.

    A .bin file is read through twice, to check its token ids and to hash them, but never held in memory. Raises
    ValueError, on one line with the source and the remedy, for whatever is wrong with the source or its files.
    """
    try:
        kind, path, options = _parse(source)
        vocabulary = 256
        if kind == "stdlib":
            train, validation, notes = _read_stdlib()
        elif kind == "text":
            train, validation, notes = _read_text(path)
        elif kind == "jsonl":
            train, validation, notes = _read_jsonl(path, options.get("field", "text"))
        elif kind == "parquet":
            train, validation, notes = _read_parquet(path, options.get("column", "text"))
        else:
            vocabulary = _vocabulary(options)
            bytes_per_token(source)  # a number that cannot be is refused before the file is read
            train, validation, notes = _read_bin(path, options, vocabulary)
        for tokens, part in ((train, "training"), (validation, "validation")):
            if not len(tokens):
                raise ValueError(f"no {part} tokens: it is empty or too short; give more data.")
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"data source {source!r}: {error_line(error)}") from error
    digest = _data_hash(vocabulary, train, validation)
    return Dataset(
        source=source, train=train, validation=validation, vocabulary=vocabulary, data_hash=digest, notes=tuple(notes)
    )


def check_dataset(dataset: Dataset, *, context: int, eval_sequences: int) -> None:
    """Nothing, when `dataset` holds a training window and `eval_sequences` validation windows of `context` tokens.

    Raises ValueError with what fits and the remedy otherwise, and warns of what is odd: call it before any work.
    """
    _count_starts(dataset, context)
    _validation_starts(dataset, eval_sequences, context)
    for note in dataset.notes:
        warnings.warn(f"data source {dataset.source!r}: {note}", stacklevel=2)


def train_offsets(dataset_or_length: Dataset | int, *, seed: int, steps: int, batch: int, context: int) -> Integers:
    """Start positions of the training windows, shape (steps, batch): uniform, with replacement, over all valid starts.

    A function of the seed, the sequence's number (step x batch + index) and the number of training tokens alone: the
    first steps of a longer run are those of a shorter one. A start is valid when start + context + 1 <= length.
    Raises ValueError when no start is.
    """
    starts = _count_starts(dataset_or_length, context)
    draws = random_stream("batches", seed).random_raw(steps * batch)
    return (draws % np.uint64(starts)).astype(np.int64).reshape(steps, batch)  # modulo bias < starts / 2^64


def token_windows(tokens: Tokens, offsets: Integers, context: int) -> tuple[Integers, Integers]:
    """(inputs, targets), each of shape offsets.shape + (context,): the tokens from every offset on, and those after.

    Raises ValueError when a window would begin before the first or end after the last token.
    """
    both = token_sequences(tokens, offsets, context)
    return both[..., :-1], both[..., 1:]


def token_sequences(tokens: Tokens, offsets: Integers, context: int) -> Integers:
    """Inputs and the last target as one, of shape offsets.shape + (context + 1,).

    Raises ValueError as `token_windows`.
    """
    offsets = np.asarray(offsets)
    if offsets.size and (offsets.min() < 0 or offsets.max() + context + 1 > len(tokens)):
        raise ValueError(
            f"offsets from {offsets.min()} to {offsets.max()}; windows of context {context} in {len(tokens)} tokens "
            f"allow 0 to {len(tokens) - context - 1}. Take offsets from train_offsets of the same data."
        )
    found: Integers = tokens[offsets[..., None] + np.arange(context + 1)].astype(np.int64)
    return found


def validation_windows(dataset: Dataset, count: int, context: int) -> tuple[Integers, Integers]:
    """(inputs, targets), each of shape (count, context): fixed, spread evenly over the held-out tokens.

    No token is a target twice. Raises ValueError with the number of windows that fit when there are fewer.
    """
    return token_windows(dataset.validation, _validation_starts(dataset, count, context), context)


def _validation_starts(dataset: Dataset, count: int, context: int) -> Integers:
    targets = len(dataset.validation) - 1
    if count < 1 or context < 1 or count * context > targets:
        raise ValueError(
            f"{count} validation windows of context {context}: the {targets + 1} held-out tokens of {dataset.source!r} "
            f"hold at most {targets // max(1, context)}, and both numbers are at least 1. "
            "Use fewer eval_sequences, a shorter context, or more data."
        )
    return np.arange(count, dtype=np.int64) * targets // count


def _count_starts(dataset_or_length: Dataset | int, context: int) -> int:
    if isinstance(dataset_or_length, Dataset):
        length = len(dataset_or_length.train)
        where = f" of {dataset_or_length.source!r}"
    else:
        length = dataset_or_length
        where = ""
    if context < 1 or context + 1 > length:
        raise ValueError(
            f"context {context}: a window takes context + 1 of the {length} training tokens{where}. "
            f"Use a context of 1 to {length - 1}, or more data."
        )
    return length - context


def _parse(source: Any) -> tuple[str, Path, dict[str, str]]:
    if not isinstance(source, str):
        raise ValueError("a source is text; write stdlib, text:PATH, jsonl:PATH, parquet:PATH or bin:PATH.")
    if is_images(source):
        raise ValueError(
            "it holds images, which need a model of your own; the built-in GPT is trained on text: write stdlib, "
            "text:PATH, jsonl:PATH, parquet:PATH or bin:PATH."
        )
    head, _, _ = source.partition("?")
    kind, has_path, path = head.partition(":")
    if kind not in _OPTIONS:
        raise ValueError(f"unknown kind {kind!r}; use stdlib, text:PATH, jsonl:PATH, parquet:PATH or bin:PATH.")
    if kind == "stdlib" and has_path:
        raise ValueError("stdlib takes no path; write stdlib, or text:PATH for files of your own.")
    if kind != "stdlib" and not path:
        raise ValueError(f"no path; write {kind}:PATH.")
    return kind, Path(path).expanduser(), source_options(source, kind, _OPTIONS[kind])


def source_options(source: str, kind: str, names: tuple[str, ...]) -> dict[str, str]:
    """The options of a source, which are among `names`. Raises ValueError with those that the kind takes."""
    _, has_options, query = source.partition("?")
    allowed = f"{kind} takes no options"
    if names:
        allowed = f"{kind} takes the options {', '.join(names)}"
    options: dict[str, str] = {}
    if has_options:
        try:  # a plus is a plus in a path, not a space
            pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True, errors="strict")
        except ValueError:
            pairs = []
        for name, value in pairs or [(query, "")]:
            if name not in names:
                raise ValueError(f"unknown option {name!r}; {allowed}, as NAME=VALUE joined by '&' after one '?'.")
            if not value:
                raise ValueError(f"option {name!r} is empty; {allowed}, each once.")
            if name in options:
                raise ValueError(f"option {name!r} is given twice; {allowed}, each once.")
            options[name] = value
    return options


def _is_stdlib(name: str) -> bool:
    """Leaves out what is no program text, and what differs between builds of one Python version."""
    no_text = ("site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data")
    return name not in no_text and not name.startswith((".", "_sysconfigdata", "config-"))


def _read_text(path: Path) -> Split:
    found = files_under(path)
    train, validation, notes = _split_by_path(path, found)
    binary = [file for file in found if b"\0" in whole_file(file)]
    if binary:
        notes.append(f"{len(binary)} of {len(found)} files hold zero bytes, as files that are no text do: {binary[0]}.")
    return train, validation, notes


def _read_stdlib() -> Split:
    root = Path(sysconfig.get_path("stdlib"))
    train, validation, _ = _split_by_path(root, files_under(root, (".py",), _is_stdlib, links=False))
    return train, validation, []


def _split_by_path(root: Path, found: list[Path]) -> Split:
    names = [os.fsencode(file.relative_to(root).as_posix()) for file in found]
    return split_documents([whole_file(file) for file in found], names)


def _read_jsonl(path: Path, field: str) -> Split:
    return _split_by_content([text for file in jsonl_files(path) for text in jsonl_documents(file, field)])


def _read_parquet(path: Path, column: str) -> Split:
    texts = [text for file in files_under(path, (".parquet",)) for text in parquet_documents(file, column)]
    train, validation, notes = _split_by_content(texts)
    binary = sum(b"\0" in text for text in texts)
    if binary:
        notes.append(f"{binary} of {len(texts)} rows of column {column!r} hold zero bytes, as what is no text does.")
    return train, validation, notes


def _split_by_content(documents: list[bytes]) -> Split:
    train, validation, notes = split_documents(documents, documents)
    if sum(map(bool, documents)) == 1:
        notes.append(
            "there is one document, and its last tenth is held out: is every document a line or row of its own?"
        )
    return train, validation, notes


def _vocabulary(options: dict[str, str]) -> int:
    stated = options.get("vocabulary", "missing")
    if not (stated.isascii() and stated.isdigit() and 2 <= int(stated) <= 2**32):
        raise ValueError(f"vocabulary is {stated}; state the tokenizer's, in [2, 2^32], such as &vocabulary=50304.")
    return int(stated)


def _read_bin(path: Path, options: dict[str, str], vocabulary: int) -> Split:
    dtype = options.get("dtype", "missing")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; state how ids are stored, {' or '.join(DTYPES)}, such as ?dtype=uint16.")
    train, highest = read_ids(path, dtype, vocabulary)
    notes = notes_of(path, train, highest, vocabulary)
    if "validation" not in options:
        kept, held = last_tenth(train)
        _check_filled(held)
        return kept, held, notes + copied_windows(kept, held)
    held_out = Path(options["validation"]).expanduser()
    validation, highest = read_ids(held_out, dtype, vocabulary)
    more = notes_of(held_out, validation, highest, vocabulary)
    if held_out.samefile(path):
        raise ValueError(f"{path} is both training and validation; give two files, or one to hold out its last tenth.")
    more += check_apart(train, validation)
    if len(validation) > len(train):
        more.append(f"validation has {len(validation)} tokens and training {len(train)}: are the files the other way?")
    return train, validation, notes + more


def _check_filled(validation: Tokens) -> None:
    """Raise ValueError where all held-out tokens are equal, as at the end of a file that was not filled."""
    if len(validation) >= 256 and int(validation.min()) == int(validation.max()):
        raise ValueError(
            f"all {len(validation)} held-out tokens are {validation[0]}, as at the end of a file that was not filled: "
            "cut it where its tokens end, or give other validation data."
        )


def _data_hash(vocabulary: int, *parts: Tokens) -> str:
    """The tokens go in as the smallest little-endian integers that hold the vocabulary, each part after its length."""
    digest = hashlib.sha256(str(vocabulary).encode())
    dtype = next(d for d in DTYPES.values() if vocabulary <= 256 ** np.dtype(d).itemsize)
    for tokens in parts:
        digest.update(f"/{len(tokens)}/".encode())
        for _, chunk in token_chunks(tokens):
            digest.update(np.ascontiguousarray(chunk, dtype=dtype).data)
    return digest.hexdigest()[:16]
