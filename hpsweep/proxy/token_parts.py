"""Parts of a file of ids that are unlike the rest: a header before them, a part that was never filled, ids in order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpsweep.proxy.token_file import CHUNK, Tokens, token_chunks

Floats = npt.NDArray[np.float64]

_FEW = 256  # equal ids at the end that may be text
_PADDING = 2**16  # equal ids in a row that no document is padded with
_RUNS = 3  # runs of about the longest length up to which they are no padding, which every document has
_IN_ORDER = 0.97  # of the steps between ids that go one way

_STRIDES = {2: "second", 3: "third", 4: "fourth"}
_COUNTING = 0.9  # of the steps of a column that go up by one; others start anew

_SIZES = (64, 128, 256, 512)  # ids that are looked at as if they were a header
_BLOCKS = 1000  # others that they are compared with
_FEWEST = 64
_BEYOND = 2.0  # times as far from the middle as the farthest half percent of blocks
_COUNTS = 64  # bytes of a header in which the number of ids is sought
_HEADERS = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096)  # bytes that it may have
_NEARLY_ALL = 0.8  # of the ids of a header of zeros or of rising numbers,
_MORE = 1.3  # times as far as the farthest, since it can be no more than all


def equal_ids_at_end(tokens: Tokens) -> int:
    """How many ids at the end are equal."""
    size = 0
    for start in range(len(tokens), 0, -CHUNK):
        chunk = tokens[max(start - CHUNK, 0) : start]
        other = np.flatnonzero(chunk != tokens[-1])
        if len(other):
            return size + len(chunk) - 1 - int(other[-1])
        size += len(chunk)
    return size


def unfilled_parts(tokens: Tokens) -> list[str]:
    """Long runs of one id, in words: at the end, and before it where they are no padding of documents."""
    found = []
    runs = [(start, length, value) for start, length, value in _runs(tokens) if start + length + _FEW < len(tokens)]
    longest = max((length for _, length, _ in runs), default=0)
    alike = sum(2 * length >= longest for _, length, _ in runs)
    is_long = longest > max(2 * _FEW, len(tokens) // 100)
    if longest >= _PADDING or (is_long and alike <= _RUNS):
        start, length, value = max(runs, key=lambda run: run[1])  # the first of the longest
        found.append(f"about {length} ids from position {start} on are all {value}: was the file filled there?")
    last = equal_ids_at_end(tokens)
    if last > max(_FEW, len(tokens) // 100):
        found.append(f"the last {last} of {len(tokens)} ids are all {tokens[-1]}: was the file filled to its end?")
    return found


def _runs(tokens: Tokens) -> list[tuple[int, int, int]]:
    """(start, length, id) of the runs of equal ids, in whole blocks of _FEW."""
    found: list[tuple[int, int, int]] = []
    for start, chunk in token_chunks(tokens[: len(tokens) // _FEW * _FEW]):
        blocks = chunk.reshape(-1, _FEW)
        for block in np.flatnonzero(blocks.min(axis=1) == blocks.max(axis=1)):
            at = start + int(block) * _FEW
            value = int(blocks[block, 0])
            if found:
                begin, length, before = found[-1]
                if before == value and begin + length == at:  # the run goes on
                    found[-1] = (begin, length + _FEW, value)
                    continue
            found.append((at, _FEW, value))
    return found


def order_note(sample: Tokens) -> str:
    """In words, where practically all ids are higher, or lower, than those before them."""
    steps = np.diff(sample.astype(np.int64))
    steps = steps[steps != 0]
    if len(steps) < _FEWEST:
        return ""
    up = float(np.mean(steps > 0))
    if max(up, 1 - up) <= _IN_ORDER:
        return ""
    way = "down"
    if up > 0.5:
        way = "up"
    return f"{100 * max(up, 1 - up):.4g} % of the steps between unlike ids go {way}, as where they were sorted"


def columns_note(sample: Tokens) -> str:
    """In words, where every second, third or fourth id counts up, is one and the same or that before it again.

    As where columns were written next to each other: positions, masks, or labels beside the ids.
    """
    for stride, which in _STRIDES.items():
        whole = sample[: len(sample) // stride * stride]
        rows = whole.reshape(-1, stride).astype(np.int64)
        steps = np.diff(rows, axis=0)
        counting = (steps == 1).mean(axis=0) > _COUNTING
        constant = (rows == rows[0]).all(axis=0)
        again = (rows[:, 1:] == rows[:, :-1]).mean(axis=0) > _IN_ORDER
        if counting.any() and not counting.all():
            return f"every {which} id counts up, as positions beside the ids do"
        if constant.any() and not constant.all():
            return f"every {which} id is {rows[0, constant.argmax()]}, as where columns were written beside each other"
        if again.all() and len(np.unique(rows[:_FEW])) > 2:
            return f"every id stands there {stride} times, as ids and labels beside each other do"
    return ""


def header_note(tokens: Tokens) -> str:
    """In words, where the first ids look like a header: they say how many follow, or are unlike all others."""
    counted = _counted(tokens)
    if counted:
        return counted
    for size in _SIZES:
        if len(tokens) // size <= _FEWEST:
            continue
        unlike = _unlike(tokens, size)
        if unlike:
            return f"the first {size} ids, or more, are unlike the others ({unlike}), as those of a header are"
    return ""


def _counted(tokens: Tokens) -> str:
    """In words, where a number among the first bytes is that of the ids, or bytes, that follow a header around it."""
    item = tokens.dtype.itemsize
    size = len(tokens) * item  # bytes
    head = tokens[: _COUNTS // item].tobytes()
    for at in range(0, len(head) - 8, 4):
        for order in ("<u8", ">u8", "<u4", ">u4"):
            number = int(np.frombuffer(head[at : at + int(order[2])], order)[0])
            for unit, what in ((item, "ids"), (1, "bytes")):
                before = size - number * unit
                if number and at < before and before in _HEADERS:
                    where = f"after the first {before} bytes, as in a header"
                    return f"the number at byte {at} is {number}, that of the {what} {where}"
    return ""


def _unlike(tokens: Tokens, size: int) -> str:
    """In words, in what the first block of ids lies far beyond all blocks that are spread over the file."""
    count = min(_BLOCKS, len(tokens) // size)
    starts = np.linspace(0, len(tokens) - size, count).astype(int)
    blocks = np.stack([tokens[start : start + size] for start in starts]).astype(np.int64)
    number = np.unique(blocks, return_inverse=True)[1]
    number = number.reshape(blocks.shape)
    times = np.bincount(number.ravel())
    rarity = np.log2(blocks.size / times)[number].mean(axis=1)
    distinct = 1.0 + (np.diff(np.sort(number, axis=1), axis=1) > 0).sum(axis=1)
    steps = np.diff(blocks, axis=1)
    equal = (steps == 0).mean(axis=1)
    rising = (steps > 0).mean(axis=1)
    found = {
        "they are rarer": _far(rarity),
        "more of them differ": _far(distinct),
        "fewer of them differ": _far(-distinct),
        "they repeat the one before": _far(equal, _MORE) and equal[0] > _NEARLY_ALL,
        "they rise": _far(rising, _MORE) and rising[0] > _NEARLY_ALL,
    }
    return next((what for what, far in found.items() if far), "")


def _far(measured: Floats, times: float = _BEYOND) -> bool:
    """Whether the first lies so many times as far above the middle as the highest half percent of the others."""
    middle, high = np.quantile(measured[1:], [0.5, 0.995], method="higher")
    return bool(measured[0] - middle > times * max(high - middle, 1e-6))
