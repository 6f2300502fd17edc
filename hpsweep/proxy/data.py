"""Token batches by (source, seed, step): what the proxies train on, and what they are measured on.

A source is a string, and the `data` field of a trial:

    stdlib                              the Python standard library's own sources, as bytes; no download needed
    text:PATH                           a text file, or a folder of files, as bytes
    jsonl:PATH?field=text               one field of every line of a .jsonl or .jsonl.gz file, or of a folder of them
    parquet:PATH?column=text            a text column of a .parquet file, or of a folder of them
    bin:PATH?dtype=uint16&vocabulary=50304[&validation=PATH][&bytes_per_token=4.3]
                                        nanoGPT's .bin: bare little-endian token ids, memory-mapped

PATH ends at the first `?`, may begin with `~`, and is relative to the working directory. Options follow as
NAME=VALUE joined by `&`, where %XX stands for a byte (%26 is `&`); dtype is uint8, uint16 or uint32. Folders are
read recursively, in the order of the relative paths; hidden files and folders are left out. bytes_per_token says how
many bytes of text a token stands for, so that losses can be told in bits/byte (`hpsweep.units`); it changes no token.

Text becomes UTF-8 bytes, vocabulary 256, whatever they are: a byte that is no UTF-8 is a token like any other. A
document is a file, a line or a row; a zero byte stands between documents, and empty ones are left out.

Held out for validation: the documents whose SHA-256 begins with a byte divisible by 16, about one in sixteen; of the
relative path (stdlib, text), or of the content (jsonl, parquet), so that duplicates stay on one side. Of a .bin without
`validation`, of fewer than 16 documents, and where one side would be empty: the last tenth of all tokens.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from hpsweep.parametrization.masks import generator
from hpsweep.units import bytes_per_token

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Integers = npt.NDArray[np.int64]
Split = tuple[Tokens, Tokens]  # training, validation

_OPTIONS: dict[str, tuple[str, ...]] = {
    "stdlib": (),
    "text": (),
    "jsonl": ("field",),
    "parquet": ("column",),
    "bin": ("dtype", "vocabulary", "validation", "bytes_per_token"),
}
_DTYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}
_CHUNK = 2**22  # tokens looked at together, so that a memory map never has to fit into memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Training and held-out tokens of one source, read-only, each id in [0, vocabulary).

    data_hash: 16 hexadecimal digits of a SHA-256 over vocabulary and tokens; equal tokens have equal hashes,
    whatever their source, dtype and byte order.
    """

    source: str
    train: Tokens  # 1-D, unsigned; may be a memory map
    validation: Tokens
    vocabulary: int
    data_hash: str


@functools.lru_cache(maxsize=8)
def load_dataset(source: str) -> Dataset:
    """The tokens of a source, read once per process; the grammar is in the module docstring.

    A .bin file is read through twice, to check its token ids and to hash them, but never held in memory. Raises
    ValueError, on one line with the source and the remedy, for whatever is wrong with the source or its files.
    """
    try:
        kind, path, options = _parse(source)
        vocabulary = 256
        if kind == "stdlib":
            train, validation = _read_text(Path(sysconfig.get_path("stdlib")), (".py",), _is_stdlib)
        elif kind == "text":
            train, validation = _read_text(path)
        elif kind == "jsonl":
            train, validation = _read_jsonl(path, options.get("field", "text"))
        elif kind == "parquet":
            train, validation = _read_parquet(path, options.get("column", "text"))
        else:
            vocabulary = _vocabulary(options)
            bytes_per_token(source)  # a number that cannot be is refused before the file is read
            train, validation = _read_bin(path, options, vocabulary)
        for tokens, part in ((train, "training"), (validation, "validation")):
            if not len(tokens):
                raise ValueError(f"no {part} tokens: it is empty or too short; give more data.")
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"data source {source!r}: {_line(error)}") from error
    digest = _data_hash(vocabulary, train, validation)
    return Dataset(source=source, train=train, validation=validation, vocabulary=vocabulary, data_hash=digest)


def check_dataset(dataset: Dataset, *, context: int, eval_sequences: int) -> None:
    """Nothing, when `dataset` holds a training window and `eval_sequences` validation windows of `context` tokens.

    Raises ValueError with what fits and the remedy otherwise: call it before any work.
    """
    _count_starts(dataset, context)
    _validation_starts(dataset, eval_sequences, context)


def train_offsets(dataset_or_length: Dataset | int, *, seed: int, steps: int, batch: int, context: int) -> Integers:
    """Start positions of the training windows, shape (steps, batch): uniform, with replacement, over all valid starts.

    A function of the seed, the sequence's number (step x batch + index) and the number of training tokens alone: the
    first steps of a longer run are those of a shorter one. A start is valid when start + context + 1 <= length.
    Raises ValueError when no start is.
    """
    starts = _count_starts(dataset_or_length, context)
    draws = generator("batches", seed).random_raw(steps * batch)
    return (draws % np.uint64(starts)).astype(np.int64).reshape(steps, batch)  # modulo bias < starts / 2^64


def windows(tokens: Tokens, offsets: Integers, context: int) -> tuple[Integers, Integers]:
    """(inputs, targets), each of shape offsets.shape + (context,): the tokens from every offset on, and those after.

    Raises ValueError when a window would begin before the first or end after the last token.
    """
    both = sequences(tokens, offsets, context)
    return both[..., :-1], both[..., 1:]


def sequences(tokens: Tokens, offsets: Integers, context: int) -> Integers:
    """Inputs and the last target as one, of shape offsets.shape + (context + 1,). Raises ValueError as `windows`."""
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
    return windows(dataset.validation, _validation_starts(dataset, count, context), context)


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
    length = len(dataset_or_length.train) if isinstance(dataset_or_length, Dataset) else dataset_or_length
    if context < 1 or context + 1 > length:
        where = f" of {dataset_or_length.source!r}" if isinstance(dataset_or_length, Dataset) else ""
        raise ValueError(
            f"context {context}: a window takes context + 1 of the {length} training tokens{where}. "
            f"Use a context of 1 to {length - 1}, or more data."
        )
    return length - context


def _parse(source: str) -> tuple[str, Path, dict[str, str]]:
    head, has_options, query = source.partition("?")
    kind, has_path, path = head.partition(":")
    if kind not in _OPTIONS:
        raise ValueError(f"unknown kind {kind!r}; use stdlib, text:PATH, jsonl:PATH, parquet:PATH or bin:PATH.")
    if kind == "stdlib" and has_path:
        raise ValueError("stdlib takes no path; write stdlib, or text:PATH for files of your own.")
    if kind != "stdlib" and not path:
        raise ValueError(f"no path; write {kind}:PATH.")
    allowed = f"{kind} takes the options {', '.join(_OPTIONS[kind])}" if _OPTIONS[kind] else f"{kind} takes no options"
    options: dict[str, str] = {}
    if has_options:
        try:  # a plus is a plus in a path, not a space
            pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True, errors="strict")
        except ValueError:
            pairs = []
        for name, value in pairs or [(query, "")]:
            if name not in _OPTIONS[kind]:
                raise ValueError(f"unknown option {name!r}; {allowed}, as NAME=VALUE joined by '&' after one '?'.")
            if not value or name in options:
                raise ValueError(f"option {name!r} is {'given twice' if value else 'empty'}; {allowed}, each once.")
            options[name] = value
    return kind, Path(path).expanduser(), options


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _is_stdlib(name: str) -> bool:
    """Leaves out what is no program text, and what differs between builds of one Python version."""
    no_text = ("site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data")
    return name not in no_text and not name.startswith((".", "_sysconfigdata", "config-"))


def _files(root: Path, suffixes: tuple[str, ...] = ("",), keep: Callable[[str], bool] = _is_visible) -> list[Path]:
    """A file itself, or a folder's regular files that end in one of the suffixes, in the order of relative paths.

    `keep` is asked about the name of every file and folder on the way.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"{root.absolute()} does not exist; check the path.")
    found = []
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        folders[:] = sorted(filter(keep, folders))
        if (real := os.path.realpath(folder)) in seen:  # linked twice, or to itself
            folders[:] = []
            continue
        seen.add(real)
        found += [Path(folder, name) for name in filter(keep, names) if name.endswith(suffixes)]
    found = [path for path in found if path.is_file()]
    if not found:
        raise ValueError(f"{root.absolute()} holds no {' or '.join(filter(None, suffixes))} files; check the path.")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _read_text(path: Path, suffixes: tuple[str, ...] = ("",), keep: Callable[[str], bool] = _is_visible) -> Split:
    files = _files(path, suffixes, keep)
    names = [os.fsencode(file.relative_to(path).as_posix()) for file in files]
    return _split([file.read_bytes() for file in files], names)


def _read_jsonl(path: Path, field: str) -> Split:
    documents = [text for file in _files(path, (".jsonl", ".jsonl.gz")) for text in _jsonl_documents(file, field)]
    return _split(documents, documents)


def _jsonl_documents(path: Path, field: str) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _text(line, field, f"{path}, line {number}").encode(errors="surrogatepass")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip ({_line(error)}); fetch or write it again.") from error


def _text(line: bytes, field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{where}: broken JSON ({_line(error)}); mend or remove the line.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a JSON {type(record).__name__}, not an object; mend or remove the line.")
    if field not in record:
        raise ValueError(f"{where}: no field {field!r}; there is {_names(record)}. Choose one with ?field=NAME.")
    text = record[field]
    if not isinstance(text, str):
        raise ValueError(f"{where}: field {field!r} is {text!r:.40}, not a string; choose one with ?field=NAME.")
    return text


def _read_parquet(path: Path, column: str) -> Split:
    documents = [text for file in _files(path, (".parquet",)) for text in _parquet_documents(file, column)]
    return _split(documents, documents)


def _parquet_documents(path: Path, column: str) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if names.count(column) != 1:
                what = "two columns" if column in names else "no column"
                raise ValueError(f"{what} {column!r}; there is {_names(names)}. Choose one with ?column=NAME.")
            kind = file.schema_arrow.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ValueError(f"column {column!r} is {kind}, not text; there is {_names(names)}.")
            row = 0
            for batch in file.iter_batches(columns=[column]):
                for text in batch.column(0).cast(pa.large_string()).cast(pa.large_binary()).to_pylist():
                    row += 1
                    if text is None:
                        raise ValueError(f"column {column!r} is null in row {row}; remove rows without text first.")
                    yield text
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: {_line(error)}") from error


def _split(documents: list[bytes], keys: list[bytes]) -> Split:
    """Training and validation bytes of the documents; which side one is on is a function of its key alone."""
    train: list[bytes] = []
    validation: list[bytes] = []
    for document, key in zip(documents, keys, strict=True):
        if document:
            (train if hashlib.sha256(key).digest()[0] % 16 else validation).append(document)
    if len(train) + len(validation) < 16 or not train or not validation:
        return _last_tenth(_joined(filter(None, documents)))
    return _joined(train), _joined(validation)


def _joined(documents: Iterable[bytes]) -> Tokens:
    return np.frombuffer(b"\0".join(documents), dtype=np.uint8)


def _last_tenth(tokens: Tokens) -> Split:
    cut = len(tokens) - len(tokens) // 10
    return tokens[:cut], tokens[cut:]


def _vocabulary(options: dict[str, str]) -> int:
    stated = options.get("vocabulary", "missing")
    if not (stated.isascii() and stated.isdigit() and 2 <= int(stated) <= 2**32):
        raise ValueError(f"vocabulary is {stated}; state the tokenizer's, in [2, 2^32], such as &vocabulary=50304.")
    return int(stated)


def _read_bin(path: Path, options: dict[str, str], vocabulary: int) -> Split:
    dtype = options.get("dtype", "missing")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype}; state how ids are stored, {' or '.join(_DTYPES)}, such as ?dtype=uint16.")
    train = _memory_map(path, dtype, vocabulary)
    if "validation" not in options:
        return _last_tenth(train)
    held_out = Path(options["validation"]).expanduser()
    validation = _memory_map(held_out, dtype, vocabulary)
    if held_out.samefile(path):
        raise ValueError(f"{path} is both training and validation; give two files, or one to hold out its last tenth.")
    return train, validation


def _memory_map(path: Path, dtype: str, vocabulary: int) -> Tokens:
    """The token ids in a .bin file, every one checked to be below `vocabulary`."""
    if not path.is_file():
        raise ValueError(f"{path.absolute()} is no file; check the path.")
    size, item = path.stat().st_size, np.dtype(_DTYPES[dtype]).itemsize
    if size == 0 or size % item:
        raise ValueError(f"{path} has {size} bytes; {dtype} takes a positive multiple of {item}. Check dtype and file.")
    tokens: Tokens = np.asarray(np.memmap(path, dtype=_DTYPES[dtype], mode="r"))
    for start in range(0, len(tokens), _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        if chunk.max() >= vocabulary:
            first = int(np.argmax(chunk >= vocabulary))
            raise ValueError(
                f"{path}: token id {chunk[first]} at position {start + first} is not below vocabulary {vocabulary}. "
                "State the vocabulary and dtype that the file was written with."
            )
    return tokens


def _data_hash(vocabulary: int, *parts: Tokens) -> str:
    """The tokens go in as the smallest little-endian integers that hold the vocabulary, each part after its length."""
    digest = hashlib.sha256(str(vocabulary).encode())
    dtype = next(d for d in _DTYPES.values() if vocabulary <= 256 ** np.dtype(d).itemsize)
    for tokens in parts:
        digest.update(f"/{len(tokens)}/".encode())
        for start in range(0, len(tokens), _CHUNK):
            digest.update(np.ascontiguousarray(tokens[start : start + _CHUNK], dtype=dtype).data)
    return digest.hexdigest()[:16]


def _raise(error: OSError) -> None:
    raise error


def _line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
