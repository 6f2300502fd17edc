"""The hpsweep command: one verb per thing to do, each a few lines over the library.

Wrong input is one line on stderr that begins with "hpsweep: ", and exit status 2, before any work; interrupted is 130.
Tables go to stdout, as text or as JSON; progress, messages and warnings to stderr.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.analysis.optimum.searched import drift_groups, over_of, pair_of, searched, varying
from hpsweep.cli.arguments import parser
from hpsweep.cli.inputs import load_experiment, of_before, own_runs, stored_runs, stored_sweep, writable
from hpsweep.cli.output import (
    Visible,
    concat,
    frame_of,
    in_bits,
    keep,
    output_of,
    print_json,
    print_table,
    records,
    say,
    speaking,
)
from hpsweep.english import counted
from hpsweep.faults import explained, is_ours
from hpsweep.spec import TUNED, Sweep
from hpsweep.sweep.progress import duration, interruptible, reporting
from hpsweep.sweep.worker import ENGINES
from hpsweep.units import unit_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


_OF_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a path that was given, and not of the machine."""


def main(argv: Sequence[str] | None = None, *, train: str | None = None) -> int:
    """The exit status of a command: 0, 2 for wrong input, 130 if interrupted. `train` is another trainer, for tests."""
    words = list(sys.argv[1:] if argv is None else argv)
    with speaking() as out:
        arguments = parser().parse_args(_with_negatives(words))
        absent = Path(sys.argv[0]).name == "hpsweep" and not shutil.which("hpsweep")  # called by its path, as make does
        name = sys.argv[0] if absent else "hpsweep"
        arguments.train, arguments.command = train, shlex.join([name, *words])
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
        status = VERBS[arguments.verb](arguments) or 0
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


# --- the verbs ---


def _plan(a: argparse.Namespace) -> None:
    from hpsweep.sweep.estimate import plan

    options = {"workers": a.workers, "ensemble_size": a.ensemble_size, "gpus_per_worker": a.gpus_per_worker}
    train = a.train or ENGINES[a.engine]
    sweep = load_experiment(a.experiment)
    planned = plan(sweep, a.results, **options, device=a.device, tflops=a.tflops, train=train, say=say)
    if note := of_before(sweep, Path(a.results) / sweep.name):
        say(note)
    if a.json:
        print_json(planned)
        return
    stored = ", ".join(f"{planned[status]} {status}" for status in (*store.DONE, "failed"))
    seconds = planned["seconds"]
    groups = planned.get("refinement", [])
    least = "at least " if any(group["next"] for group in groups) else ""
    trials = f"{least}{counted(planned['trials'], 'trial')}"
    print(f"{planned['name']}: {trials}; stored: {stored}; missing: {planned['missing']}")
    engine, why = planned["engine"], planned["engine_why"]
    served = f"{engine} engine" + (f"{': ' if engine == 'torch' else '; torch for some: '}{why}" if why else "")
    ensembles, workers = counted(planned["ensembles"], "ensemble"), counted(planned["workers"], "worker")
    print(f"{ensembles} on {workers} ({planned['device']}, {served})")
    if planned["crowded"]:
        print(planned["crowded"])
    print(f"time: {'unknown' if seconds is None else (least or 'about ') + duration(seconds)} ({planned['estimate']})")
    lost = planned["kill_loses"]
    print(
        f"a kill loses at most {'an ensemble' if lost is None else f'about {duration(lost)}'} of each worker's work\n"
    )
    print_table(frame_of(planned["shapes"]))
    _print_refinement(groups)


def _print_refinement(groups: Sequence[Mapping[str, Any]]) -> None:
    """Where each group of a refinement is, after an empty line."""
    if groups:
        from hpsweep.sweep.refine import in_words

        print("", *map(in_words, groups), sep="\n")


def _refinement(sweep: Sweep, folder: Path) -> list[dict[str, Any]]:
    """Where each group of a refinement is; of other sweeps nothing."""
    if sweep.search != "refine":
        return []
    from hpsweep.sweep.refine import describe

    return describe(sweep, store.read_runs(folder).to_pylist())


def _total(sweep: Sweep, folder: str | Path) -> tuple[int, str]:
    """Trials of the sweep as far as they are known, and "at least " where a refinement may ask for more."""
    from hpsweep.sweep import search

    rows = store.read_runs(folder).to_pylist() if sweep.search == "refine" else []
    return search.total(sweep, rows), "at least " * bool(search.refining(sweep, rows))


def _run(a: argparse.Namespace) -> int:
    from hpsweep.sweep.run import run

    sweep = load_experiment(a.experiment)
    folder = Path(a.results) / sweep.name
    options = {"workers": a.workers, "ensemble_size": a.ensemble_size, "gpus_per_worker": a.gpus_per_worker}
    train = a.train or ENGINES[a.engine]
    if note := of_before(sweep, folder):
        say(note)
    try:
        with reporting() as reporter:
            summary = run(
                sweep, a.results, address=a.address, **options, device=a.device, train=train, reporter=reporter
            )
    except (KeyboardInterrupt, OSError) as error:
        if isinstance(error, store.FolderLost):  # it says itself what is stored where
            raise
        known = explained(error)
        if known is None and isinstance(error, OSError) and not isinstance(error, ConnectionError):
            raise
        why, then = (known.what, f"{known.remedy}. Then resume") if known else (str(error) or "stopped", "Resume")
        counts = store.status_counts(folder)
        stored = sum(counts[status] for status in store.DONE)
        total, least = _total(sweep, folder)
        then = then[0].upper() + then[1:]
        say(f"{why}; {stored} of {least}{counted(max(stored, total), 'trial')} stored. {then} with: {a.command}")
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    groups = _refinement(sweep, folder)
    if a.json:
        print_json({"folder": str(folder), **summary._asdict(), **({"refinement": groups} if groups else {})})
        return 0
    trials = counted(summary.total, "trial")
    print(
        f"{summary.ok + summary.diverged} of {trials} stored in {folder} ({summary.diverged} diverged, "
        f"{summary.failed} failed); {summary.trained} trained now, in {duration(summary.seconds)}"
    )
    _print_refinement(groups)
    if summary.failed:
        failed = counted(summary.failed, "trial")
        say(f"{failed} failed: hpsweep status {folder} says why; the same command tries again.")
    return 0 if summary.ok + summary.diverged else 1


def _status(a: argparse.Namespace) -> None:
    sweep = stored_sweep(a.folder)
    total, least = (None, "") if sweep is None else _total(sweep, a.folder)
    if sweep is not None and store.is_empty(a.folder):  # interrupted before the first ensemble
        if a.json:
            print_json({"trials": total, **dict.fromkeys((*store.DONE, "failed"), 0), "groups": [], "failures": []})
        else:
            print(f"{a.folder}: nothing stored yet; {least}{counted(total or 0, 'trial')} in all")
        return
    runs = stored_runs(a.folder)
    total = None if total is None else max(total, len(runs))  # a search may have been shortened since
    over, by = searched(runs)[:1], varying(runs, without=TUNED)
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


def _optimum(a: argparse.Namespace) -> None:
    from hpsweep.analysis.optimum.optima import optima
    from hpsweep.analysis.optimum.sensitivity import sensitivity
    from hpsweep.analysis.transfer.drift import drift

    runs = stored_runs(a.folder, a.where, a.ignore)
    if pair := pair_of(runs, a.over):
        _joint_optimum(a, runs, pair)
        return
    over = over_of(runs, a.over)
    by = a.by or varying(runs, without=(over,))
    table = optima(runs, by, over=over)
    along = [name for name in ("density", "width") if name in by and runs[name].nunique() > 1]
    drifts = concat([drift(runs, name, drift_groups(runs, by, name), over=over) for name in along])
    wrong = sensitivity(runs, by, over=over)
    regret, why = _tuned_against_transferred(runs, over)
    tables = {"optima": table, "drift": drifts, "sensitivity": wrong}
    keep(a.folder, tables, own=not (a.by or a.over or a.where))  # the sweep's own tables, not those of a look at it
    if a.json:
        said = {name: records(frame) for name, frame in (tables | {"tuned_against_transferred": regret}).items()}
        print_json({"loss_unit": unit_of(runs)._asdict(), **said})
        return
    unit = unit_of(runs)
    print(f"best {over} per group, losses in {unit.name}:\n")
    shown = in_bits(table[[*by, "opt", "low", "high", "best_loss", "n_runs", "interval", "status", "why"]], unit)
    print_table(shown, by)
    drifts = drifts.drop(columns=["over", "interval"], errors="ignore").dropna(axis=1, how="all")
    compared = regret.drop(columns=["hyperparameter", "tuned_loss_se", "proxy_status", "interval"], errors="ignore")
    lost = wrong[[*by, *_SENSITIVITY, "why"]].assign(why="")  # its reasons are those of the optimum
    for title, frame in (
        ("drift of the optimum", drifts),
        (f"sensitivity: mean loss above the optimum's over {_range(wrong)}; basin of 1 %, octaves", lost),
        (f"tuned against transferred, {unit.name}", compared),
    ):
        if len(frame):
            print(f"\n{title}:\n")
            key = [name for name in (*by, "along") if name in frame]
            print_table(frame[[*key, *(name for name in frame if name not in key)]], key)
    if why:
        say(f"no comparison of tuned and transferred: {why}")


_SENSITIVITY = (
    *("sensitivity", "low", "high", "n_diverged"),
    *("basin", "basin_low", "basin_high", "basin_from", "basin_to", "basin_status"),
)


def _range(wrong: pd.DataFrame) -> str:
    return f"{wrong['from_value'].iloc[0]:.4g} to {wrong['to_value'].iloc[0]:.4g}"


def _regret(a: argparse.Namespace) -> None:
    from hpsweep.cli.verbs.regret import regret

    regret(a)


def _joint_optimum(a: argparse.Namespace, runs: pd.DataFrame, over: tuple[str, str]) -> None:
    from hpsweep.analysis.optimum.joint import surface

    by = a.by or varying(runs, without=over)
    table = surface(runs, by, over=over)
    if not (a.by or a.over or a.where) and os.access(a.folder, os.W_OK):
        with store.replacing(Path(a.folder) / "surface.csv") as path:
            table.to_csv(path, index=False)
    if a.json:
        print_json({"loss_unit": unit_of(runs)._asdict(), "surface": records(table)})
        return
    unit = unit_of(runs)
    print(f"best {over[0]} and {over[1]} per group, together, losses in {unit.name}:\n")
    each = [f"{name}_{which}" for name in over for which in ("opt", "low", "high")]
    shown = table[[*by, *each, "ridge_slope", "best_loss", "n_runs", "interval", "status", "why"]]
    print_table(in_bits(shown, unit), by)
    if not a.over:
        say(f"--over {over[0]} gives the optimum of {over[0]} alone at every {over[1]}, where {over[1]} was on a grid.")


def _tuned_against_transferred(runs: pd.DataFrame, over: str) -> tuple[pd.DataFrame, str]:
    """The comparison, or an empty table and why there is none: not every sweep has a proxy in it."""
    from hpsweep.analysis.transfer.regret import tuned_against_transferred

    try:
        return tuned_against_transferred(runs, over=over), ""
    except ValueError as error:
        return frame_of([]), str(error)


def _transfer(a: argparse.Namespace) -> None:
    from hpsweep.cli.verbs.transfer import transfer

    transfer(a)


def _plot(a: argparse.Namespace) -> None:
    from hpsweep.analysis.plots.figures import save_all

    runs, output = stored_runs(writable(a.folder), a.where, a.ignore), output_of(a)
    quiet = len(runs) < _LARGE
    paths = save_all(
        *(_figures(runs, output.size, whole=a.all), Path(a.folder) / "figures", output),
        say=lambda name: None if quiet else say(f"{name} ..."),
    )
    if not paths and searched(runs):
        over_of(runs, None)  # says why, where hyperparameters were searched together
    if a.json:
        print_json({"figures": [str(path) for path in paths]})
        return
    print("\n".join(map(str, paths)) or "no figure: no hyperparameter has three values or more")


def _figures(runs: pd.DataFrame, size: tuple[float, float] | None, *, whole: bool) -> Iterator[tuple[str, Figure]]:
    """Names and figures of a sweep, and last its regrets, or why there are none: not all settings can be compared."""
    from hpsweep.analysis.plots.figures import figures
    from hpsweep.analysis.plots.regret import regret_of

    drawn = False
    for pair in figures(runs, size=size, whole=whole):
        yield pair
        drawn = True
    try:
        yield from regret_of(runs, over_of(runs, None), size, whole=whole) if drawn else ()
    except ValueError as error:
        say(f"no figure of regrets: {error}")


def _report(a: argparse.Namespace) -> None:
    from hpsweep.analysis.report.page import report, write
    from hpsweep.analysis.runs.prepare import without

    sweep, out = stored_sweep(a.folder), Path(a.out or a.folder)
    store.check_readable(a.folder)
    if a.out:
        _make(out)
    writable(out)
    stored = store.load(a.folder) if sweep is None else store.read_runs(a.folder).to_pandas()
    runs = stored if sweep is None else own_runs(stored, sweep)
    stages = [] if sweep is None else _refinement(sweep, Path(a.folder))
    left_out, runs = len(stored) - len(runs), without(runs, a.ignore or ())
    quiet = len(runs) < _LARGE
    made = report(
        *(runs, sweep),
        folder=a.folder,
        left_out=left_out,
        stages=stages,
        say=lambda what: None if quiet else say(f"report of {len(runs)} trials: {what.replace('_', ' ')} ..."),
    )
    page, text = write(made, out)
    if a.json:
        print_json({"report": str(page), "markdown": str(text), "verdict": made.sentences})
        return
    print("\n".join([*made.sentences, "", f"written to {text} and", str(page)]))


_LARGE = 2000  # trials from which on a command says what it is at


def _make(folder: Path) -> None:
    """Make the folder. Raises ValueError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror}); give another folder with --out.") from None


def _compact(a: argparse.Namespace) -> None:
    writable(a.folder)
    if not (Path(a.folder) / "runs").is_dir():
        raise ValueError(f"{a.folder} is no results folder: it has no runs/. Give the folder of one experiment.")
    store.check_readable(a.folder)
    before, trials = store.compact(a.folder)
    if a.json:
        print_json({"files": before, "trials": trials})
        return
    print(f"{a.folder}: {counted(trials, 'trial')}, in {counted(before, 'file')} before")


def _train(a: argparse.Namespace) -> None:
    from hpsweep.cli.verbs.train import train

    train(a)


def _law(a: argparse.Namespace) -> None:
    from hpsweep.cli.verbs.law import law

    law(a)


def _export(a: argparse.Namespace) -> None:
    from hpsweep.cli.verbs.export import export

    export(a)


def _coords(a: argparse.Namespace) -> int:
    from hpsweep.cli.verbs.coords import coords

    return coords(a)


VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "plan": _plan,
    "run": _run,
    "status": _status,
    "optimum": _optimum,
    "regret": _regret,
    "transfer": _transfer,
    "plot": _plot,
    "report": _report,
    "compact": _compact,
    "train": _train,
    "law": _law,
    "export": _export,
    "coords": _coords,
}
"""What every verb does; it returns the exit status, None for 0."""
