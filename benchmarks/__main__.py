"""Run benchmarks by name, as `make bench BENCH="..."` does.

python -m benchmarks                       throughput
python -m benchmarks NAME [its options]    one: a file of this folder, or a part of throughput
python -m benchmarks NAME NAME ...         several, one after the other
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Sequence

from benchmarks.throughput import PARTS

FILES = (
    *("throughput", "agreement", "architectures", "coords", "coverage", "crossover", "drift", "glyphs", "law"),
    *(
        "matrices",
        "noise",
        "overhead",
        "own_model",
        "peak",
        "profile",
        "reference",
        "refine",
        "regret",
        "roofline",
        "scale",
    ),
    "surface",
)


def planned(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The benchmarks in order, each with its own words. Raises ValueError for a name that there is not."""
    leading = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    names, options = leading or ["throughput"], list(words[len(leading) :])
    if names[0] == "noise":  # is followed by folders
        return [("noise", list(words[1:]))]
    if unknown := [name for name in names if name not in (*FILES, *PARTS)]:
        raise ValueError(
            f"{unknown[0]!r} is no benchmark; choose from {', '.join(FILES)}, "
            f"or of the parts of throughput: {', '.join(PARTS)}"
        )
    if options and len(names) > 1:
        raise ValueError(f"options such as {options[0]} go to one benchmark; {' and '.join(names)} are several")
    return [(name, options) for name in names]


def main(words: Sequence[str]) -> None:
    """Run them."""
    try:
        plan = planned(words)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)
    for name, options in plan:
        print(f"\n## {name}\n", flush=True)
        part = name in PARTS
        sys.argv[1:] = ["--parts", name, *options] if part else options
        importlib.import_module(f"benchmarks.{'throughput' if part else name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
