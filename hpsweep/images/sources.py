"""A source of images -> its dataset. The grammar is in the docstring of `hpsweep.images`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from hpsweep.images.dataset import ImageDataset, dataset_of
from hpsweep.images.decode import decoded_images
from hpsweep.images.files import array_contents, folder_contents, npz_arrays, parquet_contents, two_arrays
from hpsweep.images.glyphs import CHARACTERS, glyph_records
from hpsweep.proxy.data import source_options
from hpsweep.proxy.documents import error_line
from hpsweep.units import is_images

_ALLOWED = "glyphs, images:FOLDER, npz:PATH, npy:PATH?labels=PATH or parquet:PATH?image=NAME"
_OPTIONS: dict[str, tuple[str, ...]] = {
    "glyphs": ("size", "classes", "count"),
    "images": ("size", "channels"),
    "npz": ("images", "labels", "size", "channels"),
    "npy": ("labels", "size", "channels"),
    "parquet": ("image", "label", "size", "channels"),
}
_GLYPHS = {"size": (28, 8, 256), "classes": (62, 2, len(CHARACTERS)), "count": (50_000, 15, 10_000_000)}
_RANGES = {"size": (1, 4096), "channels": (1, 3)}


@functools.lru_cache(maxsize=8)
def load_images(source: Any) -> ImageDataset:
    """The images of a source, read once per process, and drawn or decoded once per machine, into the cache.

    Raises ValueError, on one line with the source and the remedy, for whatever is wrong with the source or its files.
    """
    try:
        kind, path, options = _parse(source)
        if kind == "glyphs":
            size, classes, count = (_glyph_number(options, name) for name in _GLYPHS)
            return dataset_of(source, glyph_records(size, classes, count), tuple(CHARACTERS[:classes]), [])
        wanted_size = _whole_number(options, "size")
        channels = _whole_number(options, "channels")
        if channels == 2:
            raise ValueError("channels is 2; give 1, which is gray, or 3, which is RGB.")
        if kind == "images":
            found = folder_contents(path)
        elif kind == "npz":
            found = array_contents(*npz_arrays(path, options.get("images", "images"), options.get("labels", "labels")))
        elif kind == "npy":
            found = array_contents(*two_arrays(path, options.get("labels")))
        else:
            found = parquet_contents(path, options["image"], options.get("label", "label"))
        return dataset_of(source, *decoded_images(found, wanted_size, channels))
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"data source {source!r}: {error_line(error)}") from error


def _parse(source: Any) -> tuple[str, Path, dict[str, str]]:
    if not isinstance(source, str) or not is_images(source):
        raise ValueError(f"it holds no images; write {_ALLOWED}.")
    head, _, _ = source.partition("?")
    kind, has_path, path = head.partition(":")
    if kind == "glyphs" and has_path:
        raise ValueError("glyphs takes no path; write glyphs, or images:FOLDER for images of your own.")
    if kind != "glyphs" and not path:
        raise ValueError(f"no path; write {kind}:PATH.")
    called = kind
    if kind == "parquet":
        called = "parquet of images"
    return kind, Path(path).expanduser(), source_options(source, called, _OPTIONS[kind])


def _glyph_number(options: dict[str, str], name: str) -> int:
    default, low, high = _GLYPHS[name]
    return _number(options.get(name, str(default)), name, low, high)


def _whole_number(options: dict[str, str], name: str) -> int | None:
    if name not in options:
        return None
    return _number(options[name], name, *_RANGES[name])


def _number(stated: str, name: str, low: int, high: int) -> int:
    if not (stated.isascii() and stated.isdigit() and low <= int(stated) <= high):
        raise ValueError(f"{name} is {stated}; give a whole number in [{low}, {high}].")
    return int(stated)
