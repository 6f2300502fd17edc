"""The verb compact: joins the many small files of a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpsweep import store
from hpsweep.cli.arguments import add_folder
from hpsweep.cli.inputs import writable
from hpsweep.cli.output import print_json
from hpsweep.english import counted


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)


def run(a: argparse.Namespace) -> None:
    """Join the files, and print how many there were."""
    writable(a.folder)
    if not (Path(a.folder) / "runs").is_dir():
        raise ValueError(f"{a.folder} is no results folder: it has no runs/. Give the folder of one experiment.")
    store.check_readable(a.folder)
    before, trials = store.compact(a.folder)
    if a.json:
        print_json({"files": before, "trials": trials})
        return
    print(f"{a.folder}: {counted(trials, 'trial')}, in {counted(before, 'file')} before")
