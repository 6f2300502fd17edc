"""The unit of a loss: nats/byte where a token is a byte, nats/image of images, else nats/token; and bits/byte.

    bits/byte = nats/token / ln 2 / bytes per token

Text is trained on as bytes, so a token of stdlib, text, jsonl and parquet is one byte. A .bin has the tokens of
whatever tokenizer wrote it: how many bytes of text a token stands for, on average over the held-out text, is known
where its source says so, bin:PATH?...&bytes_per_token=4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from hpsweep.spec import OWN_DATA
from hpsweep.text import shown

BYTE_SOURCES = ("stdlib", "text", "jsonl", "parquet")
"""Kinds of source whose tokens are bytes."""

IMAGES = ("glyphs", "images", "npz", "npy")
"""Kinds of source that hold images with labels."""

BYTES_OPTION = "bytes_per_token"
"""The option of a bin: source that says how many bytes of text a token stands for."""

MOST_BYTES = 1000.0
"""Bytes per token above which a number is taken for a slip."""


class Unit(NamedTuple):
    """The name of a unit of loss, and what it is multiplied with to have bits/byte; None where that is not known."""

    name: str
    bits_per_byte: float | None

    def note(self) -> str:
        """The unit in words, with the factor to bits/byte where it is known."""
        return self.name + (f" (x {self.bits_per_byte:.4g} = bits/byte)" if self.bits_per_byte else "")


def is_images(source: str) -> bool:
    """Whether a data source holds images with labels; of Parquet the option `image` says so."""
    head, _, query = source.partition("?")
    kind = head.partition(":")[0]
    if kind == "parquet":
        return "image" in parse_qs(query, keep_blank_values=True)
    return kind in IMAGES


def bytes_per_token(source: str) -> float | None:
    """Bytes of text that a token of a data source stands for: 1 of bytes, as stated of a .bin; None if nothing says.

    Raises ValueError for a number that cannot be.
    """
    kind, _, rest = source.partition(":")
    if is_images(source):
        return None
    if kind in BYTE_SOURCES:
        return 1.0
    stated = parse_qs(rest.partition("?")[2], keep_blank_values=True).get(BYTES_OPTION, [])
    if kind != "bin" or not stated:
        return None
    try:
        value = float(stated[-1])
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_BYTES:
        raise ValueError(
            f"{BYTES_OPTION} is {stated[-1]}; give a number in (0, {MOST_BYTES:g}], the bytes of the held-out text "
            f"divided by its tokens, such as &{BYTES_OPTION}=4.3, or leave it out."
        )
    return value


def unit_of_sources(sources: Iterable[str]) -> Unit:
    """The unit of losses on these data sources, which hold the same tokens.

    Raises ValueError where they contradict each other.
    """
    stated = {source: bytes_per_token(source) for source in sources}
    if OWN_DATA in stated:  # whatever the user's code counts by
        return Unit("nats", None)
    images = [source for source in stated if is_images(source)]
    if images and len(images) == len(stated):
        return Unit("nats/image", None)
    if images:
        other = next(source for source in stated if source not in images)
        raise ValueError(
            f"some runs are on images ({images[0]}) and others on text ({other}), whose losses cannot be compared. "
            "Select one, such as runs[runs.data == ...], which is --where data=... on the command line."
        )
    known = sorted({value for value in stated.values() if value is not None})
    if len(known) > 1:
        listed = " and ".join(f"{value:g} ({source})" for source, value in stated.items() if value is not None)
        raise ValueError(
            f"the runs state several numbers of bytes per token: {listed}. Select one, such as "
            "runs[runs.data == ...], which is --where data=... on the command line."
        )
    if not known:
        return Unit("nats/token", None)
    return Unit("nats/byte" if known[0] == 1 else "nats/token", 1 / math.log(2) / known[0])


def unit_of(runs: Any) -> Unit:
    """The unit of the losses in a DataFrame of runs, by its column `data`; nats/token where there is none.

    `unit_of(runs).bits_per_byte * runs["val_loss"]` is in bits/byte, whatever the tokens are. Raises
    ValueError for what is no table, and for data whose units contradict each other.
    """
    if not hasattr(runs, "columns"):
        raise ValueError(f"runs is {shown(runs)}; give a DataFrame, such as hp.load('results/NAME') returns.")
    if "data" not in runs:
        return unit_of_sources([])
    return unit_of_sources(source for source in runs["data"].unique() if isinstance(source, str))
