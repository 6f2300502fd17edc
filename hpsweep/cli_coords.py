"""The verb coords: the coordinate check of the proxies, with its verdict first."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpsweep.cli_output import print_json, print_table, records
from hpsweep.spec import Trial


def coords(a: argparse.Namespace) -> int:
    """Print the verdict on every module; the exit status is 1 if one of them grows or shrinks."""
    from hpsweep.analysis.coords import coordinate_slopes, coordinate_verdicts, culprit, in_words
    from hpsweep.coords import coordinate_check

    if odd := [width for width in a.widths if width != int(width)]:
        raise ValueError(f"--widths has {odd[0]:g}; give whole numbers.")
    widths = [int(width) for width in a.widths]
    trial = Trial(
        scheme=a.scheme, lr=a.lr, steps=max(1, a.steps), context=8, batch=1, base_width=a.base_width or min(widths)
    )  # few tokens: see docs/coords.md
    sizes = coordinate_check(
        trial, widths=widths, densities=a.densities, steps=a.steps, seeds=range(a.seeds), heads=a.heads
    )
    slopes = coordinate_slopes(sizes)
    verdicts = coordinate_verdicts(slopes)
    written = []
    if a.out:
        from hpsweep.analysis.plot_coords import write

        written = [str(path) for path in write(sizes, slopes, verdicts, Path(a.out))]
    found = culprit(verdicts)
    if a.json:
        print_json({"culprit": found, "verdicts": records(verdicts), "slopes": records(slopes), "written": written})
    else:
        print(f"{a.scheme}: {in_words(verdicts)}\n")
        print_table(verdicts.drop(columns="why"))
        print("\n".join(["", *written]) if written else "", end="\n" if written else "")
    return int(found is not None)
