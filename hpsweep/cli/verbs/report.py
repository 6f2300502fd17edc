"""The verb report: the verdict, and the page with its figures and tables."""

from __future__ import annotations

import argparse

from hpsweep import store
from hpsweep.cli.arguments import add_destination, add_folder, add_ignore
from hpsweep.cli.inputs import LARGE, destination, stored_sweep
from hpsweep.cli.output import print_json, say
from hpsweep.sweep.recorded import report


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)
    add_ignore(to)
    add_destination(to, "report.html and report.md")


def run(a: argparse.Namespace) -> None:
    """Print the verdict; write the page where that is asked for."""
    sweep = stored_sweep(a.folder)
    store.check_readable(a.folder)
    into = destination(a, a.folder)
    stored = store.load(a.folder) if sweep is None else store.read_runs(a.folder).to_pandas()  # which may be empty
    runs = store.with_record(stored, a.folder)

    def progress(what: str) -> None:
        if len(runs) >= LARGE:
            say(f"report of {len(runs)} trials: {what.replace('_', ' ')} ...")

    made = report(runs, ignore=a.ignore or (), say=progress)
    page, text = made.save(into) if into else (None, None)
    if a.json:
        print_json({"report": page and str(page), "markdown": text and str(text), "verdict": made.sentences})
        return
    print("\n".join([*made.sentences, ""]))
    if into:
        print(f"written to {text} and\n{page}")
    else:
        print("not written: --save puts the page into the folder, --out DIR elsewhere")
