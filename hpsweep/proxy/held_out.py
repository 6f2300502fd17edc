"""Which documents are held out for validation, and whether they can say how well a model does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from hpsweep.proxy.token_file import Tokens

Split = tuple[Tokens, Tokens, list[str]]  # training, validation, what a reader should know

_MOSTLY = 0.5  # part of the held-out text that one document may be
_LEAKED = 0.01  # part of it that may be trained on as well
_COPIED = 0.05  # part of all text that may be copies


def split_documents(documents: Sequence[bytes], keys: Sequence[bytes]) -> Split:
    """Training and validation bytes of the documents; which side one is on is a function of its key alone."""
    train: list[bytes] = []
    validation: list[bytes] = []
    for document, key in zip(documents, keys, strict=True):
        if document:
            if hashlib.sha256(key).digest()[0] % 16:
                train.append(document)
            else:
                validation.append(document)
    if len(train) + len(validation) < 16 or not train or not validation:
        kept = [document for document in documents if document]
        rest, held = last_tenth(_joined(kept))
        return rest, held, _position_notes(kept, len(held)) + _position_copies(kept, len(held))
    return _joined(train), _joined(validation), _notes(train, validation)


def _joined(documents: Iterable[bytes]) -> Tokens:
    return np.frombuffer(b"\0".join(documents), dtype=np.uint8)


def last_tenth(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """All but the last tenth, and that."""
    cut = len(tokens) - len(tokens) // 10
    return tokens[:cut], tokens[cut:]


def _position_notes(documents: list[bytes], held: int) -> list[str]:
    """Of several documents that were split by position: whether what is held out is mostly of one of them."""
    left = held
    largest = 0
    for document in reversed(documents):
        largest = max(largest, min(len(document), left))
        left -= len(document) + 1
        if left <= 0:
            break
    if len(documents) > 1 and largest > _MOSTLY * held:
        return [
            f"{100 * largest / held:.0f} % of the held-out text, the last tenth of all, is of one of {len(documents)} "
            "documents. Where there are 16 or more, whole ones are held out."
        ]
    return []


def _position_copies(documents: list[bytes], held: int) -> list[str]:
    """Of documents that were split by position: copies, and which of them are on both sides."""
    first = len(documents)
    left = held
    while first and left > 0:
        first -= 1
        left -= len(documents[first]) + 1
    train = documents[:first]
    validation = documents[first:]
    if not train or not validation:
        return []
    return _copies(train, validation, sum(map(len, validation)), sum(map(len, train)))


def _notes(train: list[bytes], validation: list[bytes]) -> list[str]:
    held = sum(map(len, validation))
    rest = sum(map(len, train))
    found = []
    if held > rest:
        found.append(
            f"the held-out text ({held} bytes) is larger than the training text ({rest}): cut long documents into "
            "parts, or give more."
        )
    largest = max(map(len, validation))
    if largest > _MOSTLY * held:
        found.append(
            f"one document of {largest} bytes is {100 * largest / held:.0f} % of the held-out text, so that losses are "
            "mostly of that one. Cut long documents into parts, or give more."
        )
    return found + _copies(train, validation, held, rest)


def _copies(train: list[bytes], validation: list[bytes], held: int, rest: int) -> list[str]:
    """Documents that are trained on and held out, and documents that stand there twice."""
    trained = set(train)
    kept = set(validation)
    leaked = sum(len(document) for document in validation if document in trained)
    if leaked > _LEAKED * held:
        return [f"{100 * leaked / held:.0f} % of the held-out text is in the training text as well: remove copies."]
    copied = held + rest - sum(map(len, trained)) - sum(map(len, kept))
    if copied > _COPIED * (held + rest):
        return [f"{100 * copied / (held + rest):.0f} % of the text are copies of other documents: remove them."]
    return []
