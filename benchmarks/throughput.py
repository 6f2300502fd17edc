"""Speed of hpsweep's engines against the ways people train today, in one run: python -m benchmarks.throughput

    steady       trial-tokens per second of every shape: eager processes, torch ensembles, the native engine
    end_to_end   16 trials with process start and imports: a process per trial against `hpsweep run`
    density      time per token against density
    width        fraction of the measured peak against width
    ensemble     time against the size of an ensemble
    workers      speed against worker processes
    memory       memory per additional trial
    gpu          the same on a GPU, against one eager trial, torch.compile and several processes

What is compared runs in turn within every round, so that a noisy machine slows all of it; ratios are formed round by
round, and so are the percentages of a core's peak, which is measured in every round too; their median counts. Tables
are printed as Markdown, and every round's value is stored as JSON. About 20 minutes on two idle cores; --quick for an
impression. Beside other work set --without "1 process": two threads wait for each other most of the time there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import end_to_end
from benchmarks.gpu import gpu
from benchmarks.memory import memory
from benchmarks.record import machine, write
from benchmarks.steady import SHAPES, Options, Part, density, ensemble, steady, trials_of, width, workers

PARTS: dict[str, Callable[[Options], Part]] = {
    "steady": steady,
    "end_to_end": end_to_end,
    "density": density,
    "width": width,
    "ensemble": ensemble,
    "workers": workers,
    "memory": memory,
    "gpu": gpu,
}
QUICK = Options(rounds=2, seconds=0.4, repeats=1, shapes=SHAPES[:2], quick=True)


def parsed(words: Sequence[str] | None = None) -> tuple[list[str], Options, Path]:
    """Which parts, how, and where the values go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", type=_words, default=tuple(PARTS), metavar="A,B", help="which of the above; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="small settings, about three minutes")
    parser.add_argument("--rounds", type=_count, metavar="N", help="rounds; default: 5")
    parser.add_argument("--seconds", type=_duration, metavar="S", help="of a variant in a round; default: 0.8")
    parser.add_argument("--repeats", type=_count, metavar="N", help="rounds of end_to_end; default: 3")
    parser.add_argument(
        "--shapes",
        type=_shape,
        nargs="+",
        metavar="W,D,C,B",
        help="of steady: width, depth, context, batch; default: seven",
    )
    parser.add_argument(
        "--together", type=_count, metavar="K", help="of steady and workers: trials of a torch ensemble; default: 4"
    )
    parser.add_argument(
        "--without", type=_words, metavar="A,B", help="leave out variants in whose name such a word occurs"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/bench"),
        help="file.json, which is replaced, or a folder for a new one; default: results/bench",
    )
    given = vars(parser.parse_args(words))
    parts, output, quick = given.pop("parts"), given.pop("output"), given.pop("quick")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"{unknown[0]!r} is no part; choose from {', '.join(PARTS)}")
    changes = {name: value for name, value in given.items() if value is not None}
    if "shapes" in changes:
        changes["shapes"] = tuple(changes["shapes"])
    return list(parts), replace(QUICK if quick else Options(), **changes), output


def _words(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    if not all(words):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty word; give words with commas between them")
    return words


def _count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a whole number of at least 1")
    return int(text)


def _duration(text: str) -> float:
    """A finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no duration; give a finite number of seconds above 0")


def _shape(text: str) -> str:
    """A shape that there are trials of."""
    if not all(word.isdecimal() for word in text.split(",")) or text.count(",") != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; give width,depth,context,batch such as {SHAPES[0]}")
    try:
        trials_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return text


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables of the parts, and store their values."""
    names, options, output = parsed(words)
    record: dict[str, Any] = {"machine": machine(), "load_before": os.getloadavg(), "parts": {}}
    about = record["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, bfloat16 by {about['bfloat16']}; torch {about['torch']}, ", end="")
    print(f"python {about['python']}, commit {about['commit']}; load {os.getloadavg()[0]:.2f} before", flush=True)
    for name in names:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        part = PARTS[name](options)
        print(f"\n### {name}\n\n{part.text.rstrip()}\n{others(part.values)}", flush=True)
        record["parts"][name] = part.values
        record["load_after"] = os.getloadavg()
        output = write(record, output)  # from now on the file itself
    print(f"\nload {os.getloadavg()[0]:.2f} after; stored in {output}")


def others(values: Sequence[dict[str, Any]]) -> str:
    """A line on what others took of the machine while a part was measured; empty if that is not known."""
    known = [x for value in values for x in value.get("cores_of_others", ()) if x is not None]
    stolen = [x for value in values for x in value.get("cores_stolen", ()) if x is not None]
    if not known:
        return ""
    mean, gone = sum(known) / len(known), sum(stolen) / len(stolen)
    return f"\nMeanwhile others took {mean:.2f} cores on average ({max(known):.2f} at most; {gone:.2f} stolen).\n"


if __name__ == "__main__":
    main()
