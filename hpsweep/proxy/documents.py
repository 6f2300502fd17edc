"""Documents of text, JSON lines and Parquet files: found, decompressed, and told apart from what is no text."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hpsweep.proxy.other_formats import MAGIC, is_printable, magic_of, no_text

_OPENERS: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b\x08": ("gzip", gzip.open),
    b"BZ": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
    b"\x28\xb5\x2f\xfd": ("zstd", lambda path: _open_zstd(path)),
}
_KINDS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)

_HEAD = 512  # bytes that tell what a file is
_ONCE = "once decompressed "

_COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst", ".zstd")
LINES = tuple(f".{name}{end}" for name in ("jsonl", "ndjson") for end in _COMPRESSED)
"""How names of files of JSON lines end; where a folder has none, .json files are taken for them."""

_NEWER = (".bz2", ".xz", ".zst", ".zstd")  # not read where the same file is there without

JSON = tuple(f".json{end}" for end in _COMPRESSED)

_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def _open_zstd(path: Path) -> Any:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


def is_visible(name: str) -> bool:
    """Whether a file or folder is read."""
    return not name.startswith(".")


def files_under(
    root: Path, suffixes: tuple[str, ...] = ("",), keep: Callable[[str], bool] = is_visible, *, links: bool = True
) -> list[Path]:
    """A file itself, or a folder's regular files that end in one of the suffixes, in the order of relative paths.

    `keep` is asked about the name of every file and folder on the way. With `links` one that leads nowhere is refused.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"{root.absolute()} {_no_file(root)}")
    found = []
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        folders[:] = sorted(filter(keep, folders))
        real = os.path.realpath(folder)
        if real in seen:  # linked twice, or to itself
            folders[:] = []
            continue
        seen.add(real)
        wanted = [name for name in names if keep(name) and name.lower().endswith(suffixes)]
        found += [Path(folder, name) for name in wanted]
    for path in found:
        if links and path.is_symlink() and not path.exists():
            raise ValueError(f"{path} {_no_file(path)}")
    found = [path for path in found if path.is_file()]
    if not found:
        ends = " or ".join(filter(None, suffixes[:2]))
        raise ValueError(f"{root.absolute()} holds no {ends} files; check the path.")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _no_file(root: Path) -> str:
    if root.is_symlink() and not root.exists():
        return f"is a link to {root.readlink()}, which does not exist; mend or remove the link."
    if root.exists():
        return "is a pipe or a device; write what comes out of it into a file."
    return "does not exist; check the path."


def open_text(path: Path) -> Any:
    """The file's bytes, decompressed whatever its name. Raises ValueError for a file that is known to be no text."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    magic = magic_of(head)
    if magic in _OPENERS:
        return _OPENERS[magic][1](path)
    check_text(path, head)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            raise ValueError(f"{path} is text in {encoding}; write it as UTF-8: iconv -f {encoding} -t UTF-8.")
    if path.suffix in _KINDS and not is_printable(head):
        raise ValueError(f"{path}: damaged {_KINDS[path.suffix]} (it does not begin as one); fetch or write it again.")
    return path.open("rb")


def check_text(path: Path, head: bytes, once: str = "") -> None:
    """Raise ValueError for a beginning that is known to be no text."""
    found = no_text(head)
    if found:
        what, remedy = found
        raise ValueError(f"{path} is {once}{what}, not text: {remedy}.")


def damaged_file(path: Path, error: BaseException) -> ValueError:
    """What to raise for a compressed file that ends early or is damaged."""
    with path.open("rb") as file:
        magic = magic_of(file.read(64))
    kind = "gzip"
    if magic in _OPENERS:
        kind, _ = _OPENERS[magic]
    return ValueError(f"{path}: damaged {kind} ({error_line(error)}); fetch or write it again.")


def whole_file(path: Path) -> bytes:
    """All bytes of a file, decompressed."""
    with open_text(path) as file:
        try:
            content = bytes(file.read())
        except (*_DAMAGE, OSError) as error:
            raise damaged_file(path, error) from error
    check_text(path, content[:_HEAD], _ONCE)
    return content


# --- JSON lines ---


def jsonl_files(path: Path) -> list[Path]:
    """The files of JSON lines of a folder, or the file itself."""
    if not path.is_dir():
        return files_under(path)
    everything = files_under(path, LINES + JSON)
    lines = [file for file in everything if file.name.lower().endswith(LINES)]
    found = lines or everything
    plain = {str(file) for file in found}
    return [file for file in found if file.suffix not in _NEWER or str(file.with_suffix("")) not in plain]


def jsonl_documents(path: Path, field: str) -> Iterator[bytes]:
    """The text in one field of every line; of a file that is one JSON array, of every element."""
    with open_text(path) as lines:
        try:
            first = True
            for number, content in enumerate(lines, 1):
                if not content.strip():
                    continue
                if first and content.lstrip().removeprefix(b"\xef\xbb\xbf").startswith(b"["):
                    yield from _array(path, content + lines.read(), field)
                    return
                if first:
                    check_text(path, content[:_HEAD], _ONCE)
                first = False
                yield _text(_parsed(content, f"{path}, line {number}"), field, f"{path}, line {number}")
        except (*_DAMAGE, OSError) as error:
            raise damaged_file(path, error) from error


def _array(path: Path, content: bytes, field: str) -> Iterator[bytes]:
    try:
        elements = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: neither a JSON array nor JSON objects in lines ({error_line(error)}).") from error
    for number, element in enumerate(elements, 1):
        yield _text(element, field, f"{path}, element {number}")


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (RecursionError, ValueError) as error:
        why = f"broken JSON ({error_line(error)})"
        if content.strip() in (b"{", b"["):  # an object that is spread over lines
            why += "; every line is a whole object"
        raise ValueError(f"{where}: {why}; mend or remove the line.") from error


def _text(record: Any, field: str, where: str) -> bytes:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a JSON {type(record).__name__}, not an object; mend or remove the line.")
    if field not in record:
        raise ValueError(f"{where}: no field {field!r}; there is {quoted_names(record)}. Choose one with ?field=NAME.")
    text = record[field]
    if isinstance(text, str):
        return text.encode(errors="surrogatepass")
    if text is None:
        raise ValueError(f"{where}: field {field!r} is None, not a string; remove the lines without text first.")
    if isinstance(text, dict | list):
        inside = "list"
        if isinstance(text, dict):
            inside = f"object with {quoted_names(text)}"
        raise ValueError(
            f"{where}: field {field!r} holds a JSON {inside}, not a "
            "string; write the text in it into a field of its own first."
        )
    raise ValueError(f"{where}: field {field!r} is {text!r:.40}, not a string; choose one with ?field=NAME.")


# --- Parquet ---


def parquet_documents(path: Path, column: str) -> Iterator[bytes]:
    """The text in one column of every row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as begun:
        magic = magic_of(begun.read(64))
    if magic and magic != b"PAR1\x15":
        what, remedy = MAGIC[magic]
        raise ValueError(f"{path} is {what}, not Parquet: {remedy}.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if names.count(column) != 1:
                what = "no column"
                if column in names:
                    what = "two columns"
                raise ValueError(f"{what} {column!r}; there is {quoted_names(names)}. Choose one with ?column=NAME.")
            kind = file.schema_arrow.field(column).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if pa.types.is_nested(kind):
                raise ValueError(
                    f"column {column!r} is {kind}, not text: write the text in it into a column of its own first."
                )
            if not (_is_string(kind) or _is_binary(kind)):
                raise ValueError(f"column {column!r} is {kind}, not text; there is {quoted_names(names)}.")
            binary = _is_binary(kind)
            row = 0
            for batch in file.iter_batches(columns=[column]):
                for text in batch.column(0).cast(pa.large_binary()).to_pylist():
                    row += 1
                    if text is None:
                        raise ValueError(f"column {column!r} is null in row {row}; remove rows without text first.")
                    found = None
                    if binary:
                        found = no_text(text[:_HEAD])
                    if found:
                        what, remedy = found
                        raise ValueError(f"column {column!r} holds {what} in row {row}, not text: {remedy}.")
                    yield text
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: {error_line(error)}") from error


def _is_binary(kind: Any) -> bool:
    """Whether the column holds bytes, as text of another writer may."""
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


# --- words ---


def _raise(error: OSError) -> None:
    raise error


def error_line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def quoted_names(names: Iterable[str]) -> str:
    """Names as a list in words."""
    return ", ".join(map(repr, names)) or "none"
