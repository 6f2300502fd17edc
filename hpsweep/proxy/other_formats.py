"""What a file is that holds neither bare token ids nor text, by how it begins and ends."""

from __future__ import annotations

import re
from pathlib import Path

MAGIC: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b\x08": ("compressed by gzip", "decompress it: gzip -d"),
    b"BZ": ("compressed by bzip2", "decompress it: bzip2 -d"),
    b"\xfd7zXZ\x00": ("compressed by xz", "decompress it: xz -d"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "decompress it: zstd -d"),
    b"\x04\x22\x4d\x18": ("compressed by lz4", "decompress it: lz4 -d"),
    b"PK\x03\x04": ("a zip archive, as .npz and torch.save write", "take out what is in it"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "take out what is in it"),
    b"\x93NUMPY": ("a .npy array", "write its ids bare: numpy.load(path).astype('<u4').tofile('ids.bin')"),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "write its ids bare: array.astype('<u4').tofile('ids.bin')"),
    b"PAR1\x15": ("a Parquet file", "write parquet:PATH?column=NAME for a column of text"),
    b"ARROW1\x00\x00": ("an Arrow file", "write it as Parquet, and parquet:PATH?column=NAME for a column of text"),
    b"MMIDIDX\x00\x00": ("the index of Megatron", "give the .bin beside it"),
    b"TNTIDX\x00\x00": ("the index of fairseq", "give the .bin beside it"),
    b"LITPKDS\x01\x00": (
        "a packed data set of lit-gpt, with headers",
        "write its ids bare: array.astype('<u4').tofile('ids.bin')",
    ),
    b"\x80\x02\x8a\x0a": ("a file of torch.save", "write its ids bare: tensor.numpy().astype('<u4').tofile('ids.bin')"),
    b"SQLite format 3\x00": ("an SQLite database", "write its text as JSON lines, or its ids bare"),
    b"Obj\x01\x04": ("an Avro file", "write it as Parquet, and parquet:PATH?column=NAME for a column of text"),
    b"\xff\x06\x00\x00sNaPpY": ("compressed by snappy", "decompress it"),
    b"Rar!\x1a\x07": ("a rar archive", "take out what is in it"),
    b"\x7fELF": ("a program", "give the file of the data"),
    b"%PDF-": ("a PDF", "write its text into a file, as pdftotext does"),
    b"{\\rtf1": ("a document in RTF", "write its text into a file"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a document of an office program", "write its text into a file"),
    b"\x89PNG": ("an image (PNG)", "take out what is no text"),
    b"\xff\xd8\xff\xe0": ("an image (JPEG)", "take out what is no text"),
    b"\xff\xd8\xff\xe1": ("an image (JPEG)", "take out what is no text"),
    b"\xff\xd8\xff\xdb": ("an image (JPEG)", "take out what is no text"),
    b"GIF87a": ("an image (GIF)", "take out what is no text"),
    b"GIF89a": ("an image (GIF)", "take out what is no text"),
    b"II*\x00\x08\x00": ("an image (TIFF)", "take out what is no text"),
    b"OggS\x00\x02": ("sound (Ogg)", "take out what is no text"),
    b"fLaC\x00\x00\x00\x22": ("sound (FLAC)", "take out what is no text"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "fetch it: git lfs pull"),
}
"""First bytes of files that hold neither bare ids nor text: what they are, and the remedy."""


_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first block, or the end of an empty stream

_RIFF = {b"WEBP": "an image (WebP)", b"WAVE": "sound (WAV)", b"AVI ": "a film (AVI)"}

_TAR = 257  # where "ustar" stands in its header
_PICKLE_MODULE = re.compile(rb"c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n")  # what is built, and of which module
_PICKLE_TEXT = re.compile(rb"\((?:lp|dp)\d+\n")  # a list or a dictionary of protocol 0
_PICKLE_BINARY = (b"]q\x00", b"}q\x00")


def magic_of(head: bytes) -> bytes | None:
    """The known first bytes that a file begins with."""
    found = next((magic for magic in MAGIC if head.startswith(magic)), None)
    if found == b"BZ" and head[4:10] not in _BZIP2_BLOCKS:  # text may begin with BZ as well
        return None
    return found


def no_text(head: bytes) -> tuple[str, str] | None:
    """What the beginning of a file or field is that is known to be no text, and the remedy."""
    magic = magic_of(head)
    if magic:
        return MAGIC[magic]
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]], "take out what is no text"
    if head[_TAR : _TAR + 5] == b"ustar":
        return "a tar archive", "take out what is in it: tar -x"
    return None


def is_printable(head: bytes) -> bool:
    """Whether bytes are all printable ASCII, tabs or line ends."""
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)


def other_format(path: Path, head: bytes) -> tuple[str, str] | None:
    """What a file is that a few first bytes do not tell, and the remedy; None for one that may hold bare ids."""
    size = path.stat().st_size
    length = int.from_bytes(head[:8], "little")
    if head[8:10] == b'{"' and length + 8 <= size:
        return "a safetensors file", "write its ids bare: tensor.numpy().astype('<u4').tofile('ids.bin')"
    if head[:4] == b"\xff\xff\xff\xff" and _is_arrow_message(head, size):
        return (
            "an Arrow stream, as datasets stores",
            "write its ids bare: numpy.array(column).astype('<u4').tofile('ids.bin')",
        )
    found = no_text(head)
    if found:
        return found
    if head[:4] == b"GGUF" and 0 < int.from_bytes(head[4:8], "little") < 100:
        return "a model in GGUF", "give the file of the data"
    if _is_pickle(path, head, size):
        return "a pickle", "write its ids bare: numpy.array(ids).astype('<u4').tofile('ids.bin')"
    return None


def _is_arrow_message(head: bytes, size: int) -> bool:
    """Whether the first 4 bytes, which mark a message, are followed by its length and the start of a flatbuffer."""
    length, root = (int.from_bytes(head[at : at + 4], "little") for at in (4, 8))
    return 0 < length < size and length % 8 == 0 and 0 < root < length


def _is_pickle(path: Path, head: bytes, size: int) -> bool:
    if not size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) != b".":  # with which every pickle ends
            return False
    if head[:1] == b"\x80" and head[1:2] in (b"\x04", b"\x05"):
        return head[2:3] == b"\x95" and int.from_bytes(head[3:11], "little") <= size - 11
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03"):
        return bool(_PICKLE_MODULE.match(head, 2)) or head[2:].startswith(_PICKLE_BINARY)
    return bool(_PICKLE_MODULE.match(head) or _PICKLE_TEXT.match(head)) or head.startswith(_PICKLE_BINARY)
