"""Files of token ids: memory-mapped, and checked to be what the source says that they are.

A file of bare ids does not say how wide they are, in which order their bytes come, or whether a header stands before
them. Read wrongly, most are ids of the same vocabulary again, and nothing fails. So every known header is looked for,
every id is compared with the vocabulary, and what ids of another width or byte order look like is recognised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.proxy.other_formats import is_printable, other_format

Tokens = npt.NDArray[np.unsignedinteger[Any]]

DTYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}
"""How ids can be stored."""

CHUNK = 2**22  # tokens looked at together, so that a memory map never has to fit into memory

_SAMPLE = 2**20  # tokens of which the bytes are counted
_HIGHEST = 2.0**22  # of ids that any tokenizer has; larger floats are whole whatever their bytes
_FEW = 256  # fewer tokens than that say nothing of how they were stored
_PRACTICALLY_ALL = 0.999
_LLM_C_HEADER = 1024  # bytes: 256 numbers of 32 bits, of which the first three are magic, version and count
_LLM_C_TOKENS = {20240520: {1: "uint16"}, 20240801: {7: "uint32"}}
_LLM_C_OTHERS = {
    20240522: "an evaluation set",
    20240326: "a model",
    20240327: "a training state",
    20240328: "a tokenizer",
}
_MEGATRON_IDS = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float64", 7: "float32", 8: "uint16"}


class Ids(NamedTuple):
    """The ids of a file, and the highest of them."""

    tokens: Tokens
    highest: int


def check_file(path: Path) -> None:
    """Raise ValueError for what is no regular file, such as a pipe that would be waited for."""
    if path.is_file():
        return
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path.absolute()} is a link to {path.readlink()}, which does not exist; mend the link.")
    if path.is_dir():
        raise ValueError(f"{path.absolute()} is a folder; give one file.")
    if path.exists():
        raise ValueError(f"{path.absolute()} is a pipe or a device; write what comes out of it into a file.")
    raise ValueError(f"{path.absolute()} is no file; check the path.")


def read_ids(path: Path, dtype: str, vocabulary: int) -> Ids:
    """The token ids in a file, every one checked to be below `vocabulary`; a header of llm.c is left out.

    Raises ValueError for a header of another tool, for ids of another width or byte order, and for a file that holds
    one id alone.
    """
    item = np.dtype(DTYPES[dtype]).itemsize
    if vocabulary > 256**item:
        raise ValueError(
            f"vocabulary is {vocabulary}, and {dtype} holds ids below {256**item}: those above have wrapped. Write the "
            f"ids as uint32. Where it is padded and all ids of the tokenizer are below {256**item}, state "
            f"vocabulary={256**item}: proxies need no padding, and the target's own vocabulary may have it."
        )
    check_file(path)
    with path.open("rb") as file:
        head = file.read(_LLM_C_HEADER)
    size = path.stat().st_size
    _check_head(path, head, dtype)
    _check_megatron(path, dtype)
    skipped = _llm_c_header(path, head, dtype, size)
    if size == skipped or (size - skipped) % item:
        raise ValueError(
            f"{path} has {size - skipped} bytes; {dtype} takes a positive multiple of {item}. Check dtype and file."
        )
    tokens: Tokens = np.asarray(np.memmap(path, dtype=DTYPES[dtype], mode="r", offset=skipped))
    return Ids(tokens, _check_ids(path, tokens, dtype, vocabulary))


def token_chunks(tokens: Tokens) -> Iterator[tuple[int, Tokens]]:
    """(position, tokens) of the parts that are looked at together."""
    for start in range(0, len(tokens), CHUNK):
        yield start, tokens[start : start + CHUNK]


# --- headers ---


def _check_head(path: Path, head: bytes, dtype: str) -> None:
    found = other_format(path, head)
    if found:
        what, remedy = found
        raise ValueError(f"{path} is {what}, not bare token ids: {remedy}.")
    if dtype != "uint8" and len(head) >= 64 and is_printable(head):
        raise ValueError(f"{path} is text ({head[:20]!r}...), not token ids: write text:PATH, or give the file of ids.")


def _check_megatron(path: Path, dtype: str) -> None:
    """Raise ValueError where the .idx beside a .bin says that ids are stored otherwise."""
    index = path.with_suffix(".idx")
    if path.suffix == ".idx" or not index.is_file():
        return
    with index.open("rb") as file:
        head = file.read(18)
    if len(head) < 18 or not head.startswith(b"MMIDIDX\x00\x00"):
        return
    stored = _MEGATRON_IDS.get(head[17], "unknown")
    if stored.removeprefix("u") == dtype.removeprefix("u"):
        return
    remedy = _as_dtype(stored)
    raise ValueError(f"{path} holds {stored}, as {index.name} beside it says, and the source says {dtype}: {remedy}.")


def _as_dtype(stored: str) -> str:
    """How to read ids that are stored so."""
    bare = f"u{stored.removeprefix('u')}"
    if bare in DTYPES:
        return f"state dtype={bare}"
    return f"write them as uint32: numpy.fromfile(path, '{stored}').astype('<u4').tofile('ids.bin')"


def _llm_c_header(path: Path, head: bytes, dtype: str, size: int) -> int:
    """The bytes of the header that llm.c writes before its ids, which says how many there are: 1024, or 0."""
    if len(head) < 12:
        return 0
    magic, version, count = (int(number) for number in np.frombuffer(head[:12], "<i4"))
    if magic in _LLM_C_OTHERS and 0 < version < 100:
        raise ValueError(f"{path} is {_LLM_C_OTHERS[magic]} of llm.c (magic number {magic}), not training tokens.")
    if magic not in _LLM_C_TOKENS or not 0 < version < 100:
        return 0
    stored = _LLM_C_TOKENS[magic].get(version)
    if stored is None:
        raise ValueError(f"{path} has the header of llm.c ({magic}) with version {version}, which is unknown here.")
    if stored != dtype:
        raise ValueError(
            f"{path} has the header of llm.c ({magic}), whose ids are {stored}, and the source says {dtype}: "
            f"state dtype={stored}."
        )
    if _LLM_C_HEADER + count * np.dtype(DTYPES[stored]).itemsize != size:
        raise ValueError(
            f"{path} has the header of llm.c, which says {count} tokens of {stored}, and {size} bytes: it was cut "
            "short, or is another file. Fetch or write it again."
        )
    return _LLM_C_HEADER


# --- ids ---


def _check_ids(path: Path, tokens: Tokens, dtype: str, vocabulary: int) -> int:
    """The highest id. Raises ValueError for ids beyond the vocabulary or of another width, floats, a file of one id."""
    _check_floats(path, tokens[:CHUNK], dtype)
    lowest: float = math.inf
    highest = -1
    for start, chunk in token_chunks(tokens):
        top = int(chunk.max())
        if top >= vocabulary:
            first = int(np.argmax(chunk >= vocabulary))
            raise ValueError(
                f"{path}: token id {chunk[first]} at position {start + first} is not below vocabulary {vocabulary}. "
                f"State the vocabulary and dtype that the file was written with{_otherwise(path, tokens, vocabulary)}."
            )
        lowest = min(lowest, int(chunk.min()))
        highest = max(highest, top)
    if len(tokens) < _FEW:
        return highest
    if lowest == highest:
        raise ValueError(f"{path}: all {len(tokens)} ids are {highest}: it was never filled. Write it again.")
    _check_width(path, tokens[:CHUNK], dtype)
    return highest


def _check_floats(path: Path, sample: Tokens, dtype: str) -> None:
    """Raise ValueError where the bytes are whole floats of the size of ids, as those of ids hardly ever are."""
    data = sample.tobytes()
    for kind in ("f2", "f4", "f8")[sample.dtype.itemsize == 1 :]:  # letters from d to z are whole floats of two bytes
        numbers = np.frombuffer(data[: len(data) // 8 * 8], f"<{kind}")
        if len(numbers) < _FEW or len(np.unique(numbers[:_FEW])) < 2:
            continue
        with np.errstate(all="ignore"):  # whatever bytes are as floats
            exact = numbers.astype(float)
            whole = (exact >= 0) & (exact <= _HIGHEST) & (exact == np.floor(exact))
        if whole.all():
            raise ValueError(
                f"{path}: as float{8 * int(kind[1])} the first {len(numbers)} numbers are whole, so that it holds "
                f"floats and no ids of {dtype}: numpy.fromfile(path, '<{kind}').astype('<u4').tofile('ids.bin')."
            )


def _check_width(path: Path, sample: Tokens, dtype: str) -> None:
    """Raise ValueError where practically all of every second id are 0: the high halves of ids twice as wide."""
    zeros = np.array([(sample[k::4] == 0).mean() for k in range(4)])  # by position modulo 4
    empty = zeros > _PRACTICALLY_ALL
    if not (empty[1] and empty[3]) and not (empty[0] and empty[2]):
        return
    if zeros.min() > 0.9:
        return  # nearly all ids are 0, wherever they stand
    item = np.dtype(DTYPES[dtype]).itemsize
    wider = 2 * item
    part = "every second id is"
    if empty.sum() == 3:
        wider = 4 * item
        part = "3 of every 4 ids are"
    if not empty[1]:
        remedy = f"big-endian: numpy.fromfile(path, '>u{wider}').astype('<u4').tofile('ids.bin')"
    else:
        remedy = _as_dtype(f"int{8 * wider}")
    text = ""
    if item == 1:
        text = ", or UTF-16 text"
    raise ValueError(f"{path}: {part} 0 as {dtype}, so that it holds ids of {wider} bytes{text}: {remedy}.")


def _otherwise(path: Path, tokens: Tokens, vocabulary: int) -> str:
    """Of an id that is too large: how the file would have to be read for all ids to be below the vocabulary."""
    item = tokens.dtype.itemsize
    raw = tokens[: _SAMPLE // 8 * 8]
    usable = len(raw) * item // 8 * 8
    data = raw.tobytes()[:usable]
    if len(data) < 2 * _FEW:
        return ""
    if item > 1 and int(raw.byteswap().max()) < vocabulary:
        order = f"numpy.fromfile(path, '>u{item}').astype('<u{item}').tofile('ids.bin')"
        return f"; with the bytes swapped all of the first {len(raw)} ids are below it: it is big-endian, {order}"
    if item == 4 and int(np.frombuffer(data, "<u2").max()) < vocabulary:
        return f"; as uint16 all of the first {len(data) // 2} ids are below it"
    signed = raw
    if item == 4:
        signed = raw.view("<i4")
    if signed.min() < 0 and signed.max() < vocabulary:
        return f" (as int32 it is {int(signed.min())}: take out what masks or pads)"
    return ""
