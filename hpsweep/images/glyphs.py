"""Digits and letters, drawn from the fonts that matplotlib ships: images for a classifier, without a download.

Image i is a function of i, the size and the number of classes: 62 are 0 to 9, A to Z, a to z. The character, the font,
a rotation, a size, a shift, the brightness of ground and letter and the noise come from a random stream of its own.
Some characters look alike (O and 0; I and l; c and C), so that the loss, as that of a language model, does not go to 0.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import string
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpsweep.images.cache import Made, cached_records
from hpsweep.images.dataset import Pixels, Records
from hpsweep.rules.masks import random_stream

if TYPE_CHECKING:
    from PIL.Image import Image

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase

# Of 42 files those that have letters and digits: the others are for symbols, and for the sizes of a bracket.
_CUTS = {
    "DejaVuSans": ("", "-Bold", "-BoldOblique", "-Oblique"),
    "DejaVuSansMono": ("", "-Bold", "-BoldOblique", "-Oblique"),
    "DejaVuSerif": ("", "-Bold", "-BoldItalic", "-Italic"),
    "STIXGeneral": ("", "Bol", "BolIta", "Italic"),
    "cm": ("b10", "r10", "ss10", "ti10", "tt10"),
}
FONTS = tuple(f"{family}{cut}.ttf" for family, cuts in _CUTS.items() for cut in cuts)

EVERY = 16
"""Of so many images the last is held out: validation has the distribution of training, as that of text has.

Whole fonts are not: two or three of 21 would be a test of those, and a model that knows its fonts better does worse on
them, so that the best learning rate would be about something else than how well the model learns.
"""

_DRAWN_AT = 2  # times the size, before it is made smaller
_DEGREES = 20.0  # of rotation, either way
_SHIFT = 3 / 28  # of the size, either way
_EM = (0.7, 1.0)  # height of a line, of the size
_GROUND = (0.0, 0.3)  # brightness
_LETTER = (0.5, 1.0)
_NOISE = (0.0, 0.15)  # standard deviation, of the brightness
_NUMBERS = 9  # random numbers for all but the noise
_BYTES_STD = math.sqrt(4 * (256**2 - 1) / 12)  # of the sum of four random bytes


def glyph_records(size: int, classes: int, count: int) -> Records:
    """`count` training images and a fifteenth as many held-out ones, (size, size, 1), from the cache or drawn now.

    Raises ValueError where matplotlib's fonts are not there.
    """
    import PIL
    from PIL import features

    digest = hashlib.sha256(f"{size}/{classes}/{count}/".encode())
    digest.update(f"Pillow {PIL.__version__}, FreeType {features.version('freetype2')}/".encode())
    for path in (Path(__file__), *map(_font_path, FONTS)):  # a change of this file draws anew
        digest.update(path.read_bytes())
    places = _in_order(count)

    def make() -> Iterator[Made]:
        glyphs = drawn_glyphs(size, classes)
        for place, number in enumerate(places):
            label, image = glyph_image(number, glyphs, size)
            yield Made(place, _is_held_out(number), label, image)

    return cached_records(f"glyphs-{digest.hexdigest()[:16]}", (size, size, 1), len(places), make)


def _is_held_out(number: int) -> bool:
    return number % EVERY == EVERY - 1


def _in_order(count: int) -> list[int]:
    """Numbers of `count` training images, then of the images between them that are held out."""
    numbers = range(count + count // (EVERY - 1))
    return sorted(numbers, key=_is_held_out)


def _font_path(name: str) -> Path:
    found = importlib.util.find_spec("matplotlib")  # it is not imported, which takes a second
    for package in (found and found.submodule_search_locations) or []:
        path = Path(package, "mpl-data", "fonts", "ttf", name)
        if path.is_file():
            return path
    raise ValueError(f"matplotlib's font {name} is not there; install matplotlib with pip, whose wheel has it.")


def drawn_glyphs(size: int, classes: int) -> list[list[Image]]:
    """By class and font, the character in the middle of a square, white on black, of _DRAWN_AT times the size.

    Raises ValueError where matplotlib's fonts are not there.
    """
    from PIL import Image, ImageDraw, ImageFont

    em = _DRAWN_AT * size
    # Pillow may have been built with a layout engine that needs another library: this one is always there.
    loaded = [ImageFont.truetype(_font_path(name), em, layout_engine=ImageFont.Layout.BASIC) for name in FONTS]
    drawn = []
    for character in CHARACTERS[:classes]:
        images = []
        for font in loaded:
            page = Image.new("L", (2 * em, 2 * em))
            ImageDraw.Draw(page).text((em // 2, em // 4), character, fill=255, font=font)
            ink = page.crop(page.getbbox())
            image = Image.new("L", (2 * em, 2 * em))
            image.paste(ink, (em - ink.width // 2, em - ink.height // 2))
            images.append(image)
        drawn.append(images)
    return drawn


def glyph_image(number: int, glyphs: list[list[Image]], size: int) -> tuple[int, Pixels]:
    """Label and pixels (size, size, 1) of the image of this number."""
    from PIL import Image

    draws = random_stream("glyphs", number).random_raw(_NUMBERS + (size * size + 1) // 2)
    uniform = (draws[:_NUMBERS] >> np.uint64(11)) * 2.0**-53
    label = int(uniform[0] * len(glyphs))
    glyph = glyphs[label][int(uniform[1] * len(glyphs[label]))]
    degrees, right, down = (2 * uniform[2:5] - 1) * (_DEGREES, _SHIFT * size, _SHIFT * size)
    lows, highs = zip(_EM, _GROUND, _LETTER, _NOISE, strict=True)
    em, ground, letter, noise = lows + uniform[5:9] * np.subtract(highs, lows)

    # Where in the glyph a pixel comes from: turned and stretched about the middle of both.
    large = _DRAWN_AT * size
    cos = math.cos(math.radians(degrees)) / em
    sin = math.sin(math.radians(degrees)) / em
    x = large / 2 + _DRAWN_AT * right
    y = large / 2 + _DRAWN_AT * down
    middle = glyph.width / 2
    placed = (cos, -sin, middle - cos * x + sin * y, sin, cos, middle - sin * x - cos * y)
    turned = glyph.transform((large, large), Image.Transform.AFFINE, placed, Image.Resampling.BILINEAR)
    shape = np.asarray(turned.reduce(_DRAWN_AT), dtype=np.float64) / 255

    four = draws[_NUMBERS:].astype("<u8").view(np.uint8)[: 4 * size * size].reshape(4, size, size)
    normal = (four.sum(axis=0, dtype=np.int64) - 510) / _BYTES_STD  # nearly: the sum of four
    bright = ground + (letter - ground) * shape + noise * normal
    pixels = np.clip(np.rint(255 * bright), 0, 255).astype(np.uint8)
    return label, pixels[..., None]
