"""The verb report: the verdict, and the page with its figures and tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpsweep import store
from hpsweep.cli.arguments import add_destination, add_folder, add_ignore
from hpsweep.cli.inputs import LARGE, destination, refinement, stored_sweep
from hpsweep.cli.output import print_json, say
from hpsweep.sweep.own_runs import own_runs


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)
    add_ignore(to)
    add_destination(to, "report.html and report.md")


def run(a: argparse.Namespace) -> None:
    """Print the verdict; write the page where that is asked for."""
    from hpsweep.analysis.report.page import report
    from hpsweep.analysis.runs.prepare import without_columns

    sweep = stored_sweep(a.folder)
    store.check_readable(a.folder)
    into = destination(a, a.folder)
    stored = store.load(a.folder) if sweep is None else store.read_runs(a.folder).to_pandas()
    runs = stored if sweep is None else own_runs(stored, sweep)
    stages = [] if sweep is None else refinement(sweep, Path(a.folder))
    left_out, runs = len(stored) - len(runs), without_columns(runs, a.ignore or ())
    quiet = len(runs) < LARGE
    made = report(
        *(runs, sweep),
        folder=a.folder,
        left_out=left_out,
        stages=stages,
        say=lambda what: None if quiet else say(f"report of {len(runs)} trials: {what.replace('_', ' ')} ..."),
    )
    page, text = made.save(into) if into else (None, None)
    if a.json:
        print_json({"report": page and str(page), "markdown": text and str(text), "verdict": made.sentences})
        return
    where = (
        f"written to {text} and\n{page}"
        if into
        else "not written: --save puts the page into the folder, --out DIR elsewhere"
    )
    print("\n".join([*made.sentences, "", where]))
