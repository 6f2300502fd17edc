"""How the hpsweep command speaks: tables and JSON to stdout, messages to stderr."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hpsweep import store
from hpsweep.analysis.plots.output import USUAL, Output
from hpsweep.sweep.progress import value
from hpsweep.text import visible
from hpsweep.units import Unit

if TYPE_CHECKING:
    import pandas as pd


_LONGEST = 4000  # characters of a message


class Visible(io.TextIOBase):
    """A stream that shows what could steer a terminal as escapes, and what its encoding does not have too."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.fault: OSError | None = None  # what the stream raised, such as where it is a file on a full disk

    def write(self, text: str) -> int:
        """Write the text, shown."""
        with self._noticing():
            self.stream.write(visible(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._noticing():
            self.stream.flush()

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = error
            raise

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self.stream.isatty()


class Messages(io.TextIOBase):
    """stderr, of which what cannot be written is lost, as on a full disk: no command's outcome depends on messages."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, if that is possible."""
        with self._losing():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if that is possible."""
        with self._losing():
            self.stream.flush()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # what is in its buffer, and comes after, goes nowhere: Python would exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self.stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream, by which a live display chooses its characters."""
        return self.stream.encoding


@contextlib.contextmanager
def speaking() -> Iterator[Visible]:
    """Let everything be printed: to streams that are closed, in any locale, whatever the text.

    A closed descriptor is opened on nothing, lest the next file that is opened gets its number, and a library's message
    ends up in it. stdout has no control characters; stderr may move the cursor, and each message is made visible.
    Yields stdout.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == descriptor  # the lowest that is free
            os.set_inheritable(opened, True)  # to workers too
    before = sys.stdout, sys.stderr
    nowhere = open(os.devnull, "w", encoding="utf-8") if None in before else None  # noqa: SIM115, PTH123
    out, err = (stream or nowhere for stream in before)
    assert out is not None
    assert err is not None
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = Visible(out), Messages(err)
    try:
        yield sys.stdout
    finally:
        sys.stdout, sys.stderr = before
        if nowhere is not None:
            nowhere.close()


def say(message: str) -> None:
    """One line on stderr."""
    line = visible(" ".join(message.split()))
    cut = f" ... ({len(line)} characters)" if len(line) > _LONGEST else ""
    print(f"hpsweep: {line[:_LONGEST]}{cut}", file=sys.stderr, flush=True)


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table of these rows; pandas is imported here, and not where a command starts."""
    import pandas as pd

    return pd.DataFrame(rows)


def concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, or of none."""
    import pandas as pd

    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def in_bits(table: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The table with its best loss in bits/byte beside it, where it is known how many bytes a token has."""
    if unit.bits_per_byte is None:
        return table
    table = table.copy()
    table.insert(list(table.columns).index("best_loss") + 1, "bits/byte", table["best_loss"] * unit.bits_per_byte)
    return table


def print_table(frame: pd.DataFrame, key: Sequence[str] = ()) -> None:
    """The table, and under it the sentences of its column `why`, each after the row's key."""
    short = frame.drop(columns="why", errors="ignore")
    print(short.to_string(index=False, float_format=lambda number: f"{number:.5g}", na_rep="-"))
    for row in frame.to_dict("records"):
        if row.get("why"):
            known = [name for name in key if row[name] == row[name]]  # a drift along density has no density
            print(f"- {', '.join(f'{name} {value(row[name])}' for name in known)}: {row['why']}")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per row; missing and not-a-number as None."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def write_tables(into: Path | None, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Write the tables that are not empty as CSV into a folder, if there is one, and return their paths."""
    if into is None:
        return []
    paths = []
    for name, frame in tables.items():
        if len(frame):
            paths.append(into / f"{name}.csv")
            with store.replacing(paths[-1]) as path:
                frame.to_csv(path, index=False)
    return [str(path) for path in paths]


def print_paths(paths: Sequence[str]) -> None:
    """What was written, a line each, after an empty one."""
    if paths:
        print("", *paths, sep="\n")


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. Raises ValueError where the system does not let it be written there."""
    if os.path.lexists(path) and not path.is_file():  # a device would be replaced by a file
        raise ValueError(f"{path} is no regular file; give the name of a file with --out.")
    try:
        with store.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); give another file with --out.") from None


def output_of(a: argparse.Namespace) -> Output:
    """How the figures of a command are written."""
    return Output(formats=a.format or USUAL.formats, size=a.size)


def print_json(what: Any) -> None:
    """JSON on stdout; a number that is not finite is a bug."""
    print(json.dumps(what, indent=1, allow_nan=False))


def print_refinement(groups: Sequence[Mapping[str, Any]]) -> None:
    """Where each group of a refinement is, after an empty line."""
    if groups:
        from hpsweep.sweep.refine import refinement_in_words

        print("", *map(refinement_in_words, groups), sep="\n")
