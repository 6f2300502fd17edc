"""What the parsers of several verbs share: kinds of values, and options that mean the same everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NoReturn

from hpsweep.analysis.plots.output import FORMATS, SIZES
from hpsweep.axes import AXES
from hpsweep.spec import TUNED, Field
from hpsweep.sweep.worker import ENGINES
from hpsweep.text import visible


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with the status of wrong input."""
        self.exit(2, visible(f"hpsweep: {' '.join(message.split())}; see {self.prog} --help") + "\n")


class VerbParser(Parser):
    """Refuses what it does not know itself: the parser of all verbs would name the help of all verbs."""

    def parse_known_args(self, *given: Any, **options: Any) -> Any:
        """What argparse makes of them, and nothing that it does not know."""
        known, unknown = super().parse_known_args(*given, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


# --- kinds of values ---


def number(text: str) -> float:
    """A number, or a fraction such as 1/64."""
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number or fraction, such as 0.25 or 1/64") from None


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [number(part) for part in text.split(",")]


def wholes(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 64,128,256") from None


def columns(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different names, such as scheme,density")
    return names


def _selected(text: str) -> tuple[str, str]:
    """The name and the value of FIELD=VALUE."""
    name, _, value = text.partition("=")
    if not (name and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FIELD=VALUE, such as steps=800")
    return name, value


def _over(text: str) -> str:
    """One hyperparameter or two, as given."""
    names = text.split(",")
    if odd := [name for name in names if not name or name in (*AXES, "seed")]:
        others = "or another column of numbers that were set"
        raise argparse.ArgumentTypeError(f"{odd[0]!r} is no hyperparameter; choose from {', '.join(TUNED)}, {others}")
    if len(names) > 2 or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one hyperparameter nor two different ones")
    return text


def _one_over(text: str) -> str:
    """One hyperparameter."""
    if "," in _over(text):
        raise argparse.ArgumentTypeError(f"{text!r} is two hyperparameters; give one")
    return text


def _formats(text: str) -> tuple[str, ...]:
    """Formats of figures with commas between them."""
    names = tuple(dict.fromkeys(text.lower().split(",")))
    if odd := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{odd[0]!r} is no format of figures; choose from {', '.join(FORMATS)}")
    return names


def _size(text: str) -> tuple[float, float]:
    """Width and height in inches."""
    try:
        width, height = (float(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size WIDTHxHEIGHT in inches, such as 7x4") from None
    if not all(SIZES[0] <= side <= SIZES[1] for side in (width, height)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: width and height must be in [{SIZES[0]:g}, {SIZES[1]:g}] inches, such as 7x4"
        )
    return width, height


# --- options ---


_KINDS: dict[str, Callable[[str], Any]] = {"int": int, "float": number, "str": str}
_LETTERS = {"int": "N", "float": "X"}


def add_field(
    to: argparse._ActionsContainer, field: Field, default: str, *, flag: str | None = None, of: str = ""
) -> None:
    """The option that sets a field of a record, with its declared meaning, unit and range; the record checks it.

    `of`: what has the field, where that is to be said.
    """
    meaning = str(field._replace(choices=()))  # which argparse lists
    to.add_argument(
        flag or f"--{field.name.replace('_', '-')}",
        type=_KINDS[field.kind],
        choices=field.choices or None,
        metavar=_LETTERS.get(field.kind),
        help=f"{of and of + ': '}{meaning}; default: {default}".replace("%", "%%"),
    )


def add_folder(to: argparse.ArgumentParser) -> None:
    """The results folder that a verb reads."""
    to.add_argument("folder", metavar="FOLDER", help="the results folder of one experiment")


def add_experiment(to: argparse.ArgumentParser) -> None:
    """The experiment, and how it is run: what plan and run share."""
    to.add_argument("experiment", metavar="EXPERIMENT", help="an experiment file, or its name in experiments/")
    to.add_argument("--results", default="results", metavar="DIR", help="where results go, a folder per experiment")
    to.add_argument("--workers", type=int, metavar="N", help="how many train at once; default: one per core or GPU")
    to.add_argument("--ensemble-size", type=int, metavar="K", help="trials trained together; default: by device")
    to.add_argument("--gpus-per-worker", type=number, default=1.0, metavar="F", help="part of a GPU each worker gets")
    to.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what to train on")
    to.add_argument(
        "--engine",
        default="auto",
        choices=tuple(ENGINES),
        help="what trains: native (on a CPU, only the nonzero weights; needs a C compiler), torch, or auto: native "
        "where it can",
    )


def add_over(to: argparse.ArgumentParser) -> None:
    """The hyperparameter, or two."""
    to.add_argument(
        "--over",
        type=_over,
        metavar="A[,B]",
        help="the hyperparameter, or two for their joint optimum; any column of numbers that were set; default: two "
        "that were searched together, else that with most values",
    )


def add_one_over(to: argparse.ArgumentParser) -> None:
    """One hyperparameter."""
    to.add_argument(
        "--over",
        type=_one_over,
        metavar="A",
        help="the hyperparameter, or any column of numbers that were set; default: that with most values",
    )


def add_selection(to: argparse.ArgumentParser) -> None:
    """Which runs and which columns are looked at."""
    to.add_argument(
        "--where",
        type=_selected,
        action="append",
        metavar="FIELD=VALUE",
        help="only the runs with this value, such as steps=800; may be given more than once",
    )
    add_ignore(to)


def add_ignore(to: argparse.ArgumentParser) -> None:
    """Columns that are left out."""
    to.add_argument(
        "--ignore",
        type=columns,
        metavar="A,B",
        help="columns of another's table that are outcomes or bookkeeping, and may differ among runs of one group",
    )


def add_destination(
    to: argparse.ArgumentParser, what: str, *, saved: str = "the results folder", out: str = "DIR"
) -> None:
    """Where results are written: into the sweep's folder, elsewhere, or, without either option, nowhere."""
    where = to.add_mutually_exclusive_group()
    where.add_argument("--save", action="store_true", help=f"write {what} into {saved}")
    where.add_argument("--out", metavar=out, help=f"write {what} there; default: nothing is written")


def add_figures(to: argparse.ArgumentParser) -> None:
    """How figures are drawn."""
    to.add_argument(
        "--format",
        type=_formats,
        default=None,
        metavar="F[,F]",
        help=f"of the figures: {', '.join(FORMATS)}, or several with commas; default: png,svg",
    )
    to.add_argument(
        "--size", type=_size, metavar="WxH", help="inches of a figure, such as 7x4; default: what each figure asks for"
    )
