"""The hpsweep command: one verb per thing to do, each a few lines over the library.

Wrong input is one line on stderr that begins with "hpsweep: ", and exit status 2, before any work; interrupted is 130.
Tables go to stdout, as text or as JSON; progress, messages and warnings to stderr.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpsweep import __version__, store
from hpsweep.cli.arguments import Parser, VerbParser
from hpsweep.cli.output import Visible, say, speaking
from hpsweep.faults import explained, is_ours
from hpsweep.sweep.progress import interruptible

VERBS = {
    "plan": "say what a run would train, and about how long it would take",
    "run": "train what is missing of an experiment, and store it",
    "import": "make a results folder of a table of runs that others made",
    "status": "say what a results folder holds",
    "optimum": "find the best value of a hyperparameter per group, and how it moves",
    "regret": "say what a setting costs where it was not tuned, or what the transfer of a card cost",
    "plot": "draw the figures",
    "transfer": "make the card that carries the tuned result to a target",
    "report": "say the verdict, and write it with figures and tables as one HTML page and as Markdown",
    "export": "write a card as parameter groups, or as the file of another trainer",
    "train": "train the reference GPT at the target size of a card, with its settings",
    "law": "fit a scaling law to a table or a results folder, and say what it knows",
    "coords": "check that no activation of the proxies grows or shrinks with width or density",
    "compact": "join the many small files of a results folder",
}
"""The verbs in their order of use, and what each does. The code is verbs/NAME.py: add(parser) and run(arguments)."""
_FIRST = "hpsweep plan quick"

_OF_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a path that was given, and not of the machine."""


def parser() -> argparse.ArgumentParser:
    """The parser of the hpsweep command; every verb and option has a help text."""
    whole = Parser(prog="hpsweep", description="Tune small, train large, at any density.")
    whole.add_argument("--version", action="version", version=f"hpsweep {__version__}", help="print the version")
    verbs = whole.add_subparsers(dest="verb", metavar="VERB", parser_class=VerbParser)
    for name, text in VERBS.items():
        added = verbs.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print JSON instead of text; missing is null")
        _code_of(name).add(added)
    return whole


def _code_of(verb: str) -> Any:
    return importlib.import_module(f"hpsweep.cli.verbs.{verb}")


def _overview() -> str:
    """What hpsweep prints without a verb."""
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {text}" for name, text in VERBS.items()]
    return "\n".join(
        [
            "Tune small, train large, at any density. The verbs, in their order of use:",
            "",
            *lines,
            "",
            f"To begin: {_FIRST}",
            "Options of a verb: hpsweep VERB --help",
        ]
    )


def main(argv: Sequence[str] | None = None, *, train: str | None = None) -> int:
    """The exit status of a command: 0, 2 for wrong input, 130 if interrupted. `train` is another trainer, for tests."""
    words = list(sys.argv[1:] if argv is None else argv)
    with speaking() as out:
        arguments = parser().parse_args(_with_negatives(words))
        absent = Path(sys.argv[0]).name == "hpsweep" and not shutil.which("hpsweep")  # called by its path, as make does
        name = sys.argv[0] if absent else "hpsweep"
        arguments.train, arguments.program, arguments.command = train, shlex.quote(name), shlex.join([name, *words])
        with warnings.catch_warnings(), interruptible():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=UserWarning, module=r"hpsweep\b")
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
            return _status_of(arguments, out)


def _with_negatives(words: Sequence[str]) -> list[str]:
    """The words, of which --size -4x3 is --size=-4x3: argparse takes what begins with a minus for another option."""
    joined: list[str] = []
    for word in words:
        if re.match(r"-[.\d]", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _status_of(arguments: argparse.Namespace, out: Visible) -> int:
    """The exit status of the verb, and on stderr what stopped it."""
    try:
        if arguments.verb is None:
            print(_overview())
            status = 0
        else:
            status = _code_of(arguments.verb).run(arguments) or 0
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        way = "set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
        if error.encoding.replace("-", "") == "utf8":
            way = "it is a path with bytes that are no text: rename it"
        say(f"the encoding {error.encoding} has no {error.object!r}; {way}.")
        return 2
    except ValueError as error:
        if not is_ours(error):
            raise
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped.")
        return 130
    except store.FolderLost as error:
        say(str(error))
        return 1
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno is None:  # raised by a library, with a meaning of its own
            raise
        if error is out.fault:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            say(f"the output could not be written: {error.strerror}.")
            return 1
        if (line := explained(error)) is None:
            raise
        say(f"{line}. What is stored stays; then: {arguments.command}")
        return 2 if error.errno in _OF_PATHS else 1
    return status
