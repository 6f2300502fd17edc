"""The verb status: what a results folder holds."""

from __future__ import annotations

import argparse

from hpsweep import store
from hpsweep.analysis.optimum.searched import searched_fields, varying_fields
from hpsweep.cli.arguments import add_folder
from hpsweep.cli.inputs import stored_runs, stored_sweep, trials_in_all
from hpsweep.cli.output import print_json, print_table, records
from hpsweep.english import counted
from hpsweep.spec import TUNED


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    add_folder(to)


def run(a: argparse.Namespace) -> None:
    """Print how many trials are stored of each group, and why others failed."""
    sweep = stored_sweep(a.folder)
    total, least = (None, "") if sweep is None else trials_in_all(sweep, a.folder)
    if sweep is not None and store.is_empty(a.folder):  # interrupted before the first ensemble
        if a.json:
            print_json({"trials": total, **dict.fromkeys((*store.DONE, "failed"), 0), "groups": [], "failures": []})
        else:
            print(f"{a.folder}: nothing stored yet; {least}{counted(total or 0, 'trial')} in all")
        return
    runs = stored_runs(a.folder)
    total = None if total is None else max(total, len(runs))  # a search may have been shortened since
    over, by = searched_fields(runs)[:1], varying_fields(runs, without=TUNED)
    counts = runs.assign(**{status: runs["status"] == status for status in (*store.DONE, "failed")})
    table = counts.groupby(by, as_index=False)[[*store.DONE, "failed"]].sum()
    best = runs[runs["status"] == "ok"].sort_values("val_loss").drop_duplicates(by)
    table = table.merge(best[[*by, "val_loss", *over]].rename(columns={"val_loss": "best_loss"}), on=by, how="left")
    failed = runs[runs["status"] == "failed"][["trial_id", "attempts", "error"]]
    number = {status: int((runs["status"] == status).sum()) for status in (*store.DONE, "failed")}
    if a.json:
        print_json({"trials": total, **number, "groups": records(table), "failures": records(failed)})
        return
    stored = ", ".join(f"{count} {status}" for status, count in number.items())
    print(f"{a.folder}: {stored}" + ("" if total is None else f"; {least}{counted(total, 'trial')} in all") + "\n")
    print_table(table)
    if len(failed):
        print("\nfailed, and tried again by the next run:")
        print_table(failed)
