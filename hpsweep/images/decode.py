"""Stored images -> records of pixels: decoded, made of one size, split by content."""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpsweep.images.cache import Made, cached_records
from hpsweep.images.dataset import Integers, Pixels, Records
from hpsweep.images.files import Content, Contents
from hpsweep.proxy.documents import error_line

if TYPE_CHECKING:
    from PIL.Image import Image

_COPIED = 0.05  # part of the images that may be copies
_GRAY = ("1", "L", "LA", "La")  # Pillow's modes without colour
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows others, for some of which it runs programs
_DEEP = ("I", "F")  # how its modes of more than 8 bits begin
_MORE_LABELS = "number the classes from 0 on"


def decoded_images(
    contents: Contents, size: int | None, channels: int | None
) -> tuple[Records, tuple[str, ...], list[str]]:
    """Records of the images, from the cache or decoded now; the names of their classes; what is odd about them.

    Raises ValueError for labels that number no classes, for what cannot be decoded, and for images that differ.
    """
    from PIL import __version__, features

    digests: list[bytes] = []
    given: list[int | float | str] = []
    for each in contents.read():
        digests.append(hashlib.sha256(each.data).digest())
        given.append(each.label)
    labels, names = numbered_labels(given, contents.class_names)
    held_out = np.array([digest[0] % 16 == 0 for digest in digests])
    place = np.empty(len(digests), dtype=np.int64)
    place[np.argsort(held_out, kind="stable")] = np.arange(len(digests))
    first = next(contents.read())
    shape = pixels_of(first, contents.shape, size, channels).shape

    def make() -> Iterator[Made]:
        for index, (each, digest) in enumerate(itertools.zip_longest(contents.read(), digests)):
            if each is None or digest is None or hashlib.sha256(each.data).digest() != digest:
                raise ValueError("the data was changed while it was read; try again.")
            pixels = pixels_of(each, contents.shape, size, channels)
            if pixels.shape != shape:
                raise _differ(each, pixels.shape, first, shape)
            yield Made(int(place[index]), bool(held_out[index]), int(labels[index]), pixels)

    made_by = f"Pillow {__version__}, {', '.join(str(features.version(name)) for name in ('jpg', 'zlib'))}"
    key = hashlib.sha256(f"{contents.shape}/{shape}/{size}/{channels}/{made_by}/".encode())
    key.update(Path(__file__).read_bytes() + labels.tobytes() + b"".join(digests))
    records = cached_records(f"images-{key.hexdigest()[:16]}", shape, len(digests), make)
    return records, names, [*contents.notes, *_copies(digests, labels)]


def numbered_labels(given: Sequence[Any], names: tuple[str, ...]) -> tuple[Integers, tuple[str, ...]]:
    """Labels from 0 on, and the name of each class: the label itself, where the source names none.

    Raises ValueError for labels that are neither text nor numbers of classes.
    """
    labels = np.array(given)
    if labels.dtype.kind == "U":
        found, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, found))
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"labels are {given[0]!r:.40} and the like; {_MORE_LABELS}, or give names.")
    whole = labels == np.floor(labels)
    if not whole.all():
        wrong = int(np.argmin(whole))
        raise ValueError(f"the label of image {wrong} is {given[wrong]}, no whole number; {_MORE_LABELS}.")
    most = len(names) or len(labels)
    if labels.min() < 0 or labels.max() >= most:
        wrong = int(np.argmax((labels < 0) | (labels >= most)))
        raise ValueError(
            f"the label of image {wrong} is {given[wrong]}; allowed: 0 to {most - 1}, of {len(labels)} images; "
            f"{_MORE_LABELS}, and remove images without one."
        )
    numbers = labels.astype(np.int64)
    return numbers, names or tuple(map(str, range(numbers.max() + 1)))


def pixels_of(content: Content, shape: tuple[int, int, int] | None, size: int | None, channels: int | None) -> Pixels:
    """The pixels of an image, (height, width, channels), which are 1 or 3. Raises ValueError for what is no image."""
    if shape:
        pixels = np.frombuffer(content.data, dtype=np.uint8).reshape(shape)
        if not size and channels in (None, shape[2]):
            return pixels
        image = _image_of(pixels)
    else:
        image = _opened(content)
    image = _on_white(image)
    colours = channels or (1 if image.mode in _GRAY else 3)
    image = image.convert({1: "L", 3: "RGB"}[colours])
    if size:
        image = _squared(image, size)
    return np.asarray(image).reshape(image.height, image.width, colours)


def _image_of(pixels: Pixels) -> Image:
    from PIL import Image

    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(pixels)


def _opened(content: Content) -> Image:
    """The decoded image, turned as a camera says that it was held."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content.data), formats=_FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        why = error_line(error)
        if isinstance(error, UnidentifiedImageError):  # whose words are about a stream of bytes
            why = f"it begins with {content.data[:8]!r}"
        raise ValueError(f"{content.where} is no image that can be read ({why}); mend or remove it.") from error
    if image.mode.startswith(_DEEP):
        raise ValueError(f"{content.where} has more than 8 bits per channel ({image.mode}); write it with 8.")
    return image


def _on_white(image: Image) -> Image:
    from PIL import Image

    if not image.has_transparency_data:
        return image
    gray = image.mode in _GRAY
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    white.alpha_composite(clear)
    return white.convert("L" if gray else "RGB")


def _squared(image: Image, size: int) -> Image:
    """The middle square, scaled."""
    from PIL import Image

    side = min(image.size)
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)


def _differ(one: Content, its: tuple[int, ...], other: Content, others: tuple[int, ...]) -> ValueError:
    told = []
    for where, (height, width, channels) in ((other.where, others), (one.where, its)):
        colour = {1: "gray", 3: "in colour"}[channels]
        told.append(f"{where} is {width} x {height} and {colour}")
    return ValueError(f"images differ: {'; '.join(told)}. Give both, such as ?size=28&channels=1.")


def _copies(digests: list[bytes], labels: Integers) -> list[str]:
    """What to say of images that stand there twice."""
    notes = []
    classes: dict[bytes, set[int]] = {}
    for digest, label in zip(digests, labels.tolist(), strict=True):
        classes.setdefault(digest, set()).add(label)
    copied = 1 - len(classes) / len(digests)
    if copied > _COPIED:
        notes.append(f"{100 * copied:.0f} % of the images are copies of others: remove them.")
    twice = sum(len(found) > 1 for found in classes.values())
    if twice:
        notes.append(f"{twice} of {len(classes)} images stand in two classes or more: remove one of each.")
    return notes
