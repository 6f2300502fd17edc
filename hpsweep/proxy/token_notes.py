"""What is odd about the ids of a file: what a reader should know, and what is trained on though it is held out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from hpsweep.proxy.token_file import Tokens, token_chunks
from hpsweep.proxy.token_parts import columns_note, header_note, order_note, unfilled_parts

_SAMPLE = 2**20  # tokens of which the bytes are counted
_FEW = 256  # fewer tokens than that say nothing of how they were stored
_HIGH_HALF = 16  # the most that the high half of an id is, of a vocabulary of a million
_ENTROPY_APART = 1.0  # bits by which the low byte of an id is the poorer one only if the bytes are swapped

_HIGHEST_PART = 240  # of a byte; the low ones of ids take all values
_OFTEN = 0.01
_SHIFTED = 2**18  # ids whose entropy is compared,
_SHIFTED_APART = 0.5  # bits by which it is lower from another byte on

_APART = 0.1  # part of bytes that differ between places of a wider id, beyond chance
_ALIKE = 0.03  # part of them that may differ between places of narrower ids
_RANDOM = 7.5  # bits per byte from which nothing tells bytes apart
_EVENLY = 7.9  # bits per byte of what is compressed; text in any language has fewer
_CONTROL = 0.01  # part of bytes that are neither text nor blanks, below which they are text
_OF_TEXT = np.array([byte in b"\t\n\r" or byte >= 32 for byte in range(256)])
_NEGATIVE = 256  # the highest ids of a type, which are -256 to -1 of a signed one

_WINDOWS = 16  # held-out windows that are sought
_WINDOW = 64  # tokens of one of them
_VARIED = 16  # tokens of a window that differ: others stand anywhere


def notes_of(path: Path, tokens: Tokens, highest: int, vocabulary: int) -> list[str]:
    """What is odd about the ids of a file, the highest of which is given, a sentence each."""
    if len(tokens) < 16 * _FEW:
        return []
    sample = np.asarray(tokens[:_SAMPLE])
    found = []
    # Ids that are too low, or bytes in another order or place.
    if 256 < vocabulary <= len(tokens) and highest < vocabulary // 2:
        bytes_ = ""
        if highest < 256:
            bytes_ = ": they look like bytes"
        found.append(f"{path}: the highest of {len(tokens)} ids is {highest}, of a vocabulary of {vocabulary}{bytes_}.")
    shift = _shifted(sample)
    if shift:
        found.append(
            f"{path}: read from byte {shift} on, ids repeat far more than as they are, as where bytes were put before "
            f"them or cut off. If so, write them anew: numpy.fromfile(path, '<u{sample.dtype.itemsize}', "
            f"offset={shift}).tofile('ids.bin')."
        )
    elif sample.dtype.itemsize == 2 and _swapped(sample):
        found.append(
            f"{path}: low bytes of the ids vary less than high ones, as in a big-endian file. If it is one, write it "
            "anew: numpy.fromfile(path, '>u2').astype('<u2').tofile('ids.bin')."
        )
    # Ids of another width or of a signed type.
    width = _other_width(sample)
    if width:
        found.append(f"{path}: {width}.")
    negative = _negative(tokens, highest)
    if negative:
        found.append(f"{path}: {negative}.")
    half = _halves(sample)
    if half:
        wider = 2 * sample.dtype.itemsize
        found.append(f"{path}: {half}, as in a file of ids of {wider} bytes. If it is one, state its dtype.")
    # Ids that are no text: repeated, in order, after a header, compressed, or never filled.
    period = _period(sample)
    if period:
        found.append(f"{path}: the first {len(sample)} ids repeat every {period}.")
    order = order_note(sample) or columns_note(sample)
    if order:
        found.append(f"{path}: {order}.")
    head = header_note(tokens)
    if head:
        found.append(f"{path}: {head}. If it is one, write the ids after it into a file of their own.")
    dense = _evenly(sample, vocabulary)
    if dense:
        found.append(f"{path}: {dense}")
    return found + [f"{path}: {run}" for run in unfilled_parts(tokens)]


def _halves(sample: Tokens) -> str:
    """In words, where every second id is small and the others are not."""
    first = sample[0::2]
    second = sample[1::2]
    for small, large in ((first, second), (second, first)):
        if small.max() <= _HIGH_HALF and len(np.unique(large)) > _FEW:
            return f"every second id is at most {small.max()}, and the others are not"
    return ""


def _other_width(sample: Tokens) -> str:
    """In words, where bytes are distributed as those of narrower or wider ids are.

    By their places modulo 4: bytes of one distribution are no halves of ids, and those of several are no ids of a byte.
    """
    three = _three_bytes(sample)
    if three:
        return three
    item = sample.dtype.itemsize
    places = sample[: len(sample) // 4 * 4].view(np.uint8).reshape(-1, 4).T
    counts = np.array([np.bincount(place, minlength=256) for place in places]) / places.shape[1]
    noise = math.sqrt(256 / places.shape[1])

    def apart(first: int, second: int) -> float:
        return float(np.abs(counts[first] - counts[second]).sum() / 2)

    if item == 1:
        if 1 - counts[:, _OF_TEXT].sum(axis=1).mean() < _CONTROL:
            return ""  # text in columns has bytes of its own at even places
        if max(apart(0, 2), apart(1, 3)) > _APART + noise:
            wider = 4
            which = "fourth"
        elif max(apart(0, 1), apart(2, 3)) > _APART + noise:
            wider = 2
            which = "second"
        else:
            return ""
        return (
            f"bytes at every {which} place are others than those between, as in a file "
            f"of ids of {wider} bytes. If it is one, state dtype=uint{8 * wider}"
        )
    if item == 2:
        pairs = ((0, 1), (2, 3))
        narrower = "1 byte"
    else:
        pairs = ((0, 2), (1, 3))
        narrower = "2 bytes"
    alike = all(apart(*pair) < _ALIKE + noise / 2 for pair in pairs)
    if not alike:
        return ""
    if max(_entropy(place) for place in places) > _RANDOM:  # nothing tells its bytes apart
        return ""
    if item == 4 and counts[3, 0] == 1:  # no id needs the highest byte
        return ""
    return (
        f"the halves of the ids are distributed alike, as in a file of ids of {narrower}. If "
        f"it is one, state dtype=uint{4 * item}"
    )


def _three_bytes(sample: Tokens) -> str:
    """In words, where bytes at every third place are others, as of ids of three bytes."""
    data = sample.tobytes()
    places = np.frombuffer(data[: len(data) // 3 * 3], np.uint8).reshape(-1, 3).T
    counts = np.array([np.bincount(place, minlength=256) for place in places]) / places.shape[1]
    if 1 - counts[:, _OF_TEXT].sum(axis=1).mean() < _CONTROL:
        return ""  # letters of three bytes, as in Chinese, are text
    noise = math.sqrt(256 / places.shape[1])
    apart = [float(np.abs(counts[i] - counts[j]).sum() / 2) for i, j in ((0, 1), (1, 2), (0, 2))]
    if max(apart) <= _APART + noise or not _period_of_three(data, sample.dtype.itemsize):
        return ""
    powers = "[65536, 256, 1]"
    if _entropy(places[2]) < _entropy(places[0]):  # high bytes, which vary less, come last
        powers = "[1, 256, 65536]"
    return (
        "bytes at every third place are others than those between, as in a file of ids of 3 bytes. If it is one, write "
        f"it anew: (numpy.fromfile(path, 'u1').reshape(-1, 3) @ {powers}).astype('<u4').tofile('ids.bin')"
    )


def _period_of_three(data: bytes, item: int) -> bool:
    """Whether all places equal modulo 3 have the same bytes: not so, where every third of wider ids differs."""
    period = math.lcm(3, item)
    whole = data[: len(data) // period * period]
    places = np.frombuffer(whole, np.uint8).reshape(-1, period).T
    number = places.shape[1]
    counts = np.array([np.bincount(place, minlength=256) for place in places]) / number
    noise = math.sqrt(256 / number)
    apart = np.abs(counts[3:] - counts[:-3]).sum(axis=1) / 2
    return bool((apart < _APART + noise).all())


def _shifted(sample: Tokens) -> int:
    """From which byte on the ids have far fewer values in common use than as they are read, or 0.

    The bytes of one id tell each other; those of neighbours do so much less.
    """
    item = sample.dtype.itemsize
    if item == 1:
        return 0
    data = sample[:_SHIFTED].tobytes()
    if item == 4:
        start = _after_zeros(data)
        if start:
            return start
    entropies = []
    for start in range(item):
        part = np.frombuffer(data[start : len(data) - (item - start) % item], f"<u{item}")
        times = np.unique(part, return_counts=True)[1] / len(part)
        entropies.append(float(-(times * np.log2(times)).sum()))
    best = int(np.argmin(entropies))
    if entropies[best] + _SHIFTED_APART >= entropies[0]:
        return 0
    return best


def _after_zeros(data: bytes) -> int:
    """From which byte on the ids of four bytes have their zeros at the end, or 0."""
    places = np.frombuffer(data, np.uint8).reshape(-1, 4).T
    zero = [not place.any() for place in places]
    starts = [place for place in range(4) if not zero[place] and zero[place - 1]]
    if len(starts) != 1:
        return 0
    start = starts[0]
    second = (start + 1) % 4
    if not zero[second] and _entropy(places[start]) < _entropy(places[second]):  # high bytes first
        return 0
    return start


def _evenly(sample: Tokens, vocabulary: int) -> str:
    """In words, where all bytes are about as frequent as one another, as after compression."""
    item = sample.dtype.itemsize
    if vocabulary < 256**item or item > 2:
        return ""
    entropy = min(_entropy(place) for place in sample.view(np.uint8).reshape(-1, item).T)
    if entropy < _EVENLY - 256 / len(sample):  # what a few bytes lack of it by chance
        return ""
    return (
        f"its bytes are as evenly distributed as those of compressed or encrypted data ({entropy:.3g} bits per byte): "
        "are they ids?"
    )


def _negative(tokens: Tokens, highest: int) -> str:
    """In words, where the highest ids are negative ones of a signed type, as masks and padding are."""
    item = tokens.dtype.itemsize
    beyond = 256**item
    if item == 1 or highest < beyond - _NEGATIVE:
        return ""
    below = 0  # the highest id that is not one of the negative ones
    times = 0  # that the highest id stands there
    for _, chunk in token_chunks(tokens):
        high = chunk >= beyond - _NEGATIVE
        times += int(np.count_nonzero(chunk == highest))
        below = max(below, int(chunk[~high].max(initial=0)))
    if below >= beyond - 4 * _NEGATIVE:
        return ""
    return (
        f"{times} of {len(tokens)} ids are {highest}, and all below {beyond - _NEGATIVE} are at most {below}: as int"
        f"{8 * item} it is {highest - beyond}. If it masks or pads, take it out"
    )


def _swapped(sample: Tokens) -> bool:
    low, high = sample.view(np.uint8).reshape(-1, 2).T
    if low.max() < _HIGHEST_PART and np.mean(high >= _HIGHEST_PART) > _OFTEN:
        return True  # as high bytes of a vocabulary below 61,440 are
    return _entropy(low) + _ENTROPY_APART < _entropy(high)


def _entropy(values: Tokens) -> float:
    """Bits per value."""
    part = np.bincount(values, minlength=256) / len(values)
    part = part[part > 0]
    return float(-(part * np.log2(part)).sum())


def _period(sample: Tokens) -> int:
    """The shortest period below a quarter of the sample that it repeats with, or 0."""
    start = sample[:64].tobytes()
    data = sample.tobytes()
    item = sample.dtype.itemsize
    at = data.find(start, item)
    while 0 < at < len(data) // 4:
        if at % item == 0 and data[at:] == data[:-at]:
            return at // item
        at = data.find(start, at + 1)
    return 0


# --- what is trained on, and held out as well ---


def check_apart(train: Tokens, validation: Tokens) -> list[str]:
    """The notes of `copied`. Raises ValueError where all validation tokens stand in the training tokens in a row."""
    n = len(validation)
    if n < _FEW or n > len(train):
        return []
    for where, start in (("the beginning", 0), ("the end", len(train) - n)):
        if _stands_at(train, validation, start):
            if n == len(train):
                raise _trained_on(n, "all")
            raise _trained_on(n, where)
    found = _found(train, validation)
    for at, start in found.items():
        if 0 <= start - at <= len(train) - n and _stands_at(train, validation, start - at):
            raise _trained_on(n, f"a part, from position {start - at} on,")
    return _copied(found)


def copied_windows(train: Tokens, validation: Tokens) -> list[str]:
    """What a reader should know of held-out windows that stand in the training tokens too."""
    if len(validation) < _FEW:
        return []
    return _copied(_found(train, validation))


def _copied(found: dict[int, int]) -> list[str]:
    if len(found) < _WINDOWS // 2:
        return []
    return [
        f"{len(found)} of {_WINDOWS} windows of {_WINDOW} held-out tokens, evenly spread, are in the training tokens "
        "as well: remove copies."
    ]


def _trained_on(n: int, what: str) -> ValueError:
    return ValueError(
        f"the {n} validation tokens are {what} of the training tokens: give a file that is not trained on, or none, to "
        "hold out the last tenth."
    )


def _stands_at(train: Tokens, validation: Tokens, start: int) -> bool:
    part = train[start : start + len(validation)]
    return all(
        np.array_equal(a, b) for (_, a), (_, b) in zip(token_chunks(part), token_chunks(validation), strict=True)
    )


def _found(train: Tokens, validation: Tokens) -> dict[int, int]:
    """Position of held-out windows -> where each stands in the training tokens, of those that do."""
    item = train.dtype.itemsize
    spread = np.linspace(0, len(validation) - _WINDOW, _WINDOWS).astype(int)
    windows = {}
    for at in map(int, spread):
        window = validation[at : at + _WINDOW]
        if len(np.unique(window)) >= _VARIED:
            windows[at] = window.tobytes()
    found: dict[int, int] = {}
    for start, chunk in token_chunks(train):
        data = train[start : start + len(chunk) + _WINDOW - 1].tobytes()
        for at in windows.keys() - found.keys():
            place = data.find(windows[at])
            while place % item and place >= 0:
                place = data.find(windows[at], place + 1)
            if place >= 0:
                found[at] = start + place // item
    return found
