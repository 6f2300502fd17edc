"""The hpsweep command: one verb per thing to do, each a few lines over the library.

Wrong input is one line on stderr that begins with "hpsweep: ", and exit status 2, before any work; interrupted is 130.
Tables go to stdout, as text or as JSON; progress, messages and warnings to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from hpsweep import __version__, store
from hpsweep.spec import TUNED, Scheme, Sweep, Target, Trial, check_names
from hpsweep.sweep.progress import Groups, duration, interruptible, reporting, value
from hpsweep.sweep.worker import TRAIN

if TYPE_CHECKING:
    import pandas as pd

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # what is stored is whole; more cannot be stored

EXPERIMENTS = Path("experiments")
"""Where an experiment given by its bare name is looked up."""


def main(argv: Sequence[str] | None = None, *, train: str = TRAIN) -> int:
    """The exit status of a command: 0, 2 for wrong input, 130 if interrupted. `train` is another trainer, for tests."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(words)
    absent = Path(sys.argv[0]).name == "hpsweep" and not shutil.which("hpsweep")  # called by its path, as make does
    name = sys.argv[0] if absent else "hpsweep"
    arguments.train, arguments.command = train, shlex.join([name, *words])
    with warnings.catch_warnings(), interruptible():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"hpsweep\b")
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            status: int | None = arguments.do(arguments)
        except ValueError as error:
            if not _is_ours(error):
                raise
            _say(str(error))
            return 2
        except KeyboardInterrupt:
            _say("stopped.")
            return 130
        except BrokenPipeError:  # the reader of our output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
    return status or 0


def _is_ours(error: ValueError) -> bool:
    """Whether the error was raised by a check of hpsweep's; one raised in a library is a bug, and shows as one."""
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    return Path(raised).is_relative_to(Path(__file__).parent)


def _say(message: str) -> None:
    print(f"hpsweep: {' '.join(message.split())}", file=sys.stderr, flush=True)


# --- the verbs ---


def _plan(a: argparse.Namespace) -> None:
    from hpsweep.sweep.estimate import plan

    options = {"workers": a.workers, "ensemble_size": a.ensemble_size, "gpus_per_worker": a.gpus_per_worker}
    planned = plan(load_experiment(a.experiment), a.results, **options, device=a.device, train=a.train)
    if a.json:
        _json(planned)
        return
    stored = ", ".join(f"{planned[status]} {status}" for status in (*store.DONE, "failed"))
    seconds = planned["seconds"]
    print(f"{planned['name']}: {planned['trials']} trials; stored: {stored}; missing: {planned['missing']}")
    print(f"{planned['ensembles']} ensembles on {planned['workers']} workers ({planned['device']})")
    print(f"time: {'unknown' if seconds is None else 'about ' + duration(seconds)} ({planned['estimate']})\n")
    _print_table(_frame(planned["shapes"]))


def _run(a: argparse.Namespace) -> int:
    from hpsweep.sweep import search
    from hpsweep.sweep.run import run

    sweep = load_experiment(a.experiment)
    folder = Path(a.results) / sweep.name
    options = {"workers": a.workers, "ensemble_size": a.ensemble_size, "gpus_per_worker": a.gpus_per_worker}
    try:
        with reporting() as reporter:
            summary = run(
                sweep, a.results, address=a.address, **options, device=a.device, train=a.train, reporter=reporter
            )
    except (KeyboardInterrupt, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.errno not in _DISK:
            raise
        counts = store.status_counts(folder)
        stored = sum(counts[status] for status in store.DONE)
        total = max(stored, search.total(sweep))
        why = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)) or "stopped"
        _say(f"{why}; {stored} of {total} trials stored. Resume with: {a.command}")
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    if a.json:
        _json({"folder": str(folder), **summary._asdict()})
        return 0
    print(
        f"{summary.ok + summary.diverged} of {summary.total} trials stored in {folder} ({summary.diverged} diverged, "
        f"{summary.failed} failed); {summary.trained} trained now, in {duration(summary.seconds)}"
    )
    if summary.failed:
        _say(f"{summary.failed} trials failed: hpsweep status {folder} says why; the same command tries them again.")
    return 0 if summary.ok + summary.diverged else 1


def _status(a: argparse.Namespace) -> None:
    from hpsweep.sweep import search

    sweep = _stored_sweep(a.folder)
    total = None if sweep is None else search.total(sweep)
    if sweep is not None and store.read_runs(a.folder).num_rows == 0:  # interrupted before the first ensemble
        if a.json:
            _json({"trials": total, **dict.fromkeys((*store.DONE, "failed"), 0), "groups": [], "failures": []})
        else:
            print(f"{a.folder}: nothing stored yet; {total} trials in all")
        return
    runs = _runs(a.folder)
    total = None if total is None else max(total, len(runs))  # a search may have been shortened since
    over, by = _searched(runs)[:1], varying(runs, without=TUNED)
    counts = runs.assign(**{status: runs["status"] == status for status in (*store.DONE, "failed")})
    table = counts.groupby(by, as_index=False)[[*store.DONE, "failed"]].sum()
    best = runs[runs["status"] == "ok"].sort_values("val_loss").drop_duplicates(by)
    table = table.merge(best[[*by, "val_loss", *over]].rename(columns={"val_loss": "best_loss"}), on=by, how="left")
    failed = runs[runs["status"] == "failed"][["trial_id", "attempts", "error"]]
    counted = {status: int((runs["status"] == status).sum()) for status in (*store.DONE, "failed")}
    if a.json:
        _json({"trials": total, **counted, "groups": _records(table), "failures": _records(failed)})
        return
    stored = ", ".join(f"{number} {status}" for status, number in counted.items())
    print(f"{a.folder}: {stored}" + ("" if total is None else f"; {total} trials in all") + "\n")
    _print_table(table)
    if len(failed):
        print("\nfailed, and tried again by the next run:")
        _print_table(failed)


def _optimum(a: argparse.Namespace) -> None:
    from hpsweep.analysis.drift import drift
    from hpsweep.analysis.optimum import optima

    runs = _runs(a.folder)
    over = _over(runs, a.over)
    by = a.by or varying(runs, without=(over,))
    table = optima(runs, by, over=over)
    along = [name for name in ("density", "width") if name in by and runs[name].nunique() > 1]
    drifts = _concat([drift(runs, name, _apart(runs, by, name), over=over) for name in along])
    regret, why = _tuned_against_transferred(runs, over)
    keeps = not (a.by or a.over)  # the sweep's own tables, not those of a look at it
    if keeps and not os.access(a.folder, os.W_OK):
        _say(f"{a.folder} cannot be written: the tables are printed, and not kept there.")
        keeps = False
    for name, frame in (("optima", table), ("drift", drifts)):
        if len(frame) and keeps:
            with store.replacing(Path(a.folder) / f"{name}.csv") as path:
                frame.to_csv(path, index=False)
    if a.json:
        _json({"optima": _records(table), "drift": _records(drifts), "tuned_against_transferred": _records(regret)})
        return
    print(f"best {over} per group:\n")
    _print_table(table[[*by, "opt", "low", "high", "best_loss", "n_runs", "interval", "status", "why"]], by)
    for title, frame in (("drift of the optimum", drifts), ("tuned against transferred", regret)):
        if len(frame):
            print(f"\n{title}:\n")
            key = [name for name in (*by, "along") if name in frame]
            _print_table(frame[[*key, *(name for name in frame if name not in key)]], key)
    if why:
        _say(f"no comparison of tuned and transferred: {why}")


def _tuned_against_transferred(runs: pd.DataFrame, over: str) -> tuple[pd.DataFrame, str]:
    """The comparison, or an empty table and why there is none: not every sweep has a proxy in it."""
    from hpsweep.analysis.regret import tuned_against_transferred

    try:
        return tuned_against_transferred(runs, over=over), ""
    except ValueError as error:
        return _frame([]), str(error)


def _transfer(a: argparse.Namespace) -> None:
    from hpsweep.analysis.transfer import transfer

    target = _target(a)
    out = Path(a.out or Path(a.folder) / _card_name(a, target))
    _writable(out.parent)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file with --out.")
    runs = _runs(a.folder)
    said = {"width": a.proxy_width, "density": a.proxy_density}
    proxy = {name: value for name, value in said.items() if value is not None}
    card = transfer(runs, target, scheme=a.scheme, over=_over(runs, a.over), proxy=proxy)
    card.write(out)
    for warning in card.warnings:
        _say(f"warning: {warning}")
    if a.json:
        _json(dataclasses.asdict(card))
        return
    base = ", ".join(f"{name} {number:.5g}" for name, number in card.base.items())
    where = ", ".join(f"{name} {number}" for name, number in card.target.items() if number is not None)
    print(f"{card.scheme} for {where}\nbase: {base}\n")
    _print_table(_frame([{"kind": kind, **numbers} for kind, numbers in card.kinds.items()]))
    print(f"\nattention scale {card.attention_scale:.5g}, readout multiplier {card.readout_multiplier:.5g}")
    print(f"written to {out}")


def _card_name(a: argparse.Namespace, target: Target) -> str:
    """card.json is that of the recorded target and proxy; another one's name has what was said instead."""
    said = {name: getattr(a, name) for name in ("scheme", "over", "proxy_width", "proxy_density")}
    if dataclasses.asdict(target) == store.read_meta(a.folder).get("target") and not any(said.values()):
        return "card.json"
    names = [f.name for f in dataclasses.fields(Target) if f.name not in ("width", "density")]
    said = {"width": target.width, "density": target.density, **{name: getattr(a, name) for name in names}, **said}
    parts = [f"{name}_{value(given).replace('/', 'over')}" for name, given in said.items() if given is not None]
    return f"card_{'_'.join(parts)}.json"


def _target(a: argparse.Namespace) -> Target:
    """The target of the recorded sweep, with what the command line says instead."""
    names = [f.name for f in dataclasses.fields(Target)]
    said = {name: getattr(a, name) for name in names if getattr(a, name) is not None}
    recorded = store.read_meta(a.folder).get("target") or {}
    values = {name: value for name, value in {**recorded, **said}.items() if name in names}
    if lacking := {"width", "density"} - set(values):
        raise ValueError(
            f"the target has no {' and no '.join(sorted(lacking))}: the sweep in {a.folder} was recorded without a "
            "target. Give --width and --density."
        )
    return Target(**values)


def _plot(a: argparse.Namespace) -> None:
    from hpsweep.analysis.plots import draw_all

    runs = _runs(_writable(a.folder))
    paths = [str(path) for path in draw_all(runs, Path(a.folder))]
    if not paths and _searched(runs):
        _over(runs, None)  # says why, where hyperparameters were searched together
    if a.json:
        _json({"figures": paths})
        return
    print("\n".join(paths) or "no figure: no hyperparameter has three values or more")


def _compact(a: argparse.Namespace) -> None:
    _writable(a.folder)
    if not (Path(a.folder) / "runs").is_dir():
        raise ValueError(f"{a.folder} is no results folder: it has no runs/. Give the folder of one experiment.")
    before, trials = store.compact(a.folder)
    if a.json:
        _json({"files": before, "trials": trials})
        return
    print(f"{a.folder}: {trials} trials, in {before} files before")


# --- experiments and results ---


def load_experiment(name: str) -> Sweep:
    """The SWEEP of an experiment file, or of the file of that bare name in ./experiments.

    Raises ValueError, with file and line, for whatever is wrong with it.
    """
    path = Path(name)
    if path.suffix != ".py" and not path.is_file():
        path = EXPERIMENTS / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.py"))) or "none"
        raise ValueError(f"no experiment {name!r}: {path} does not exist. In {EXPERIMENTS}/: {known}.")
    try:
        found = runpy.run_path(str(path), run_name="hpsweep.experiment")
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}.") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise ValueError(f"{path}, line {lines[-1] if lines else '?'}: {_explained(error)}") from None
    sweep = found.get("SWEEP")
    if not isinstance(sweep, Sweep):
        what = f"SWEEP is a {type(found['SWEEP']).__name__}" if "SWEEP" in found else "there is no SWEEP"
        raise ValueError(f"{path}: {what}; an experiment ends in SWEEP = Sweep(name=..., base=Trial(...), grid=...).")
    if sweep.name != path.stem:
        raise ValueError(
            f"{path}: SWEEP is named {sweep.name!r}; name it {path.stem!r} as its file, "
            "under which its results are found."
        )
    return sweep


def _explained(error: BaseException) -> str:
    """An experiment's error in one line; of a field that does not exist the nearest one that does."""
    unknown = re.match(r"(Trial|Target|Sweep)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        try:
            check_names([unknown[2]], {"Trial": Trial, "Target": Target, "Sweep": Sweep}[unknown[1]])
        except ValueError as explained:
            return str(explained)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _stored_sweep(folder: str) -> Sweep | None:
    """The sweep recorded in meta.json; None where there is none."""
    meta = store.read_meta(folder)
    if not meta:
        return None
    try:
        target = Target(**meta["target"]) if meta["target"] else None
        return Sweep(**{**meta, "base": Trial(**meta["base"]), "target": target})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}/meta.json is not what hpsweep wrote ({error}); restore or remove it.") from None


def _writable(folder: str | Path) -> Path:
    if not os.access(folder, os.W_OK):
        state = "cannot be written; change its mode" if Path(folder).exists() else "does not exist; check the path"
        raise ValueError(f"{folder} {state}.")
    return Path(folder)


def varying(runs: pd.DataFrame, *, without: Iterable[str] = ()) -> list[str]:
    """The scheme, and the fields of a trial that differ among the runs, but for the seed and `without`."""
    names = [name for name in Trial(steps=1).resolved if name not in ("seed", *without)]
    return [name for name in names if name == "scheme" or runs[name].nunique(dropna=False) > 1]


def _searched(runs: pd.DataFrame) -> list[str]:
    return [name for name in TUNED if runs[name].nunique() > 1]


def _runs(folder: str | Path) -> pd.DataFrame:
    """The stored runs of the recorded sweep; all runs where none is recorded. What is left out is said."""
    runs = store.load(folder)
    sweep = _stored_sweep(str(folder))
    if sweep is None:
        return runs
    groups = Groups(sweep)
    own = runs[[groups.has({str(name): value for name, value in row.items()}) for row in runs.to_dict("records")]]
    if len(own) < len(runs):
        _say(f"{len(runs) - len(own)} trials in {folder} are not of the sweep as it is now, and are left out.")
    if own.empty:
        raise ValueError(f"{folder} holds no trial of the sweep as it is now; run it first.")
    return own


def _apart(runs: pd.DataFrame, by: Sequence[str], along: str) -> list[str]:
    """What tells drifts along a field apart: not steps that follow from the size, as with tokens_per_parameter."""
    rest = [name for name in by if name not in (along, "steps")]
    follows = runs.groupby([*rest, along])["steps"].nunique().max() == 1
    return rest if follows or "steps" not in by else [*rest, "steps"]


def _over(runs: pd.DataFrame, asked: str | None) -> str:
    """The hyperparameter whose optimum is sought: the one asked for, else the one with most values."""
    from hpsweep.analysis.cells import other_tuned

    searched = _searched(runs)
    if not searched or (asked and asked not in searched):
        raise ValueError(
            f"{asked or 'every hyperparameter'} has one value in these runs: there is no optimum to find. "
            f"Searched: {', '.join(searched) or 'none'}."
        )
    over = asked or max(searched, key=lambda name: len(set(runs[name])))
    other_tuned(runs, over)
    return over


# --- output ---


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(records)


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _print_table(frame: pd.DataFrame, key: Sequence[str] = ()) -> None:
    """The table, and under it the sentences of its column `why`, each after the row's key."""
    short = frame.drop(columns="why", errors="ignore")
    print(short.to_string(index=False, float_format=lambda number: f"{number:.5g}", na_rep="-"))
    for row in frame.to_dict("records"):
        if row.get("why"):
            known = [name for name in key if row[name] == row[name]]  # a drift along density has no density
            print(f"- {', '.join(f'{name} {value(row[name])}' for name in known)}: {row['why']}")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per row; missing and not-a-number as None."""
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records


def _json(what: Any) -> None:
    print(json.dumps(what, indent=1, allow_nan=False))


# --- arguments ---


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"hpsweep: {message}; see {self.prog} --help\n")


def _number(text: str) -> float:
    """A number, or a fraction such as 1/64."""
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number or fraction, such as 0.25 or 1/64") from None


def parser() -> argparse.ArgumentParser:
    """The parser of the hpsweep command; every verb and option has a help text."""
    whole = _Parser(prog="hpsweep", description="Tune small, train large, at any density.")
    whole.add_argument("--version", action="version", version=f"hpsweep {__version__}", help="print the version")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, do: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(do=do)
        added.add_argument("--json", action="store_true", help="print JSON instead of text; missing is null")
        return added

    for name, do, text in (
        ("plan", _plan, "say what a run would train, and about how long it would take"),
        ("run", _run, "train what is missing of an experiment, and store it"),
    ):
        _add_experiment(verb(name, do, text))
    run = verbs.choices["run"]
    run.add_argument("--address", default="local", help="local, auto (this machine's Ray cluster) or a Ray address")
    for name, do, text in (
        ("status", _status, "say what a results folder holds"),
        ("optimum", _optimum, "find the best value of a hyperparameter per group, and how it moves"),
        ("transfer", _transfer, "write the card that carries the tuned result to a target"),
        ("plot", _plot, "draw the figures"),
        ("compact", _compact, "join the many small files of a results folder"),
    ):
        verb(name, do, text).add_argument("folder", metavar="FOLDER", help="the results folder of one experiment")
    for name in ("optimum", "transfer"):
        verbs.choices[name].add_argument(
            "--over", choices=TUNED, help="the hyperparameter; default: that with most values"
        )
    verbs.choices["optimum"].add_argument(
        "--by",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="fields that make a group; default: all that vary",
    )
    _add_target(verbs.choices["transfer"])
    return whole


def _add_experiment(to: argparse.ArgumentParser) -> None:
    to.add_argument("experiment", metavar="EXPERIMENT", help="an experiment file, or its name in experiments/")
    to.add_argument("--results", default="results", metavar="DIR", help="where results go, a folder per experiment")
    to.add_argument("--workers", type=int, metavar="N", help="how many train at once; default: one per core or GPU")
    to.add_argument("--ensemble-size", type=int, metavar="K", help="trials trained together; default: by device")
    to.add_argument("--gpus-per-worker", type=_number, default=1.0, metavar="F", help="part of a GPU each worker gets")
    to.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what to train on")


def _add_target(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--scheme", choices=get_args(Scheme), help="the rules that carry the result; default: supar, else mup, else sp"
    )
    to.add_argument("--density", type=_number, metavar="D", help="density of the target, such as 1/64")
    to.add_argument("--proxy-width", type=int, metavar="N", help="width of the tuned proxy; default: its base width")
    to.add_argument("--proxy-density", type=_number, metavar="D", help="density of the proxy; default: base density")
    for name, text in (
        ("width", "width of the target"),
        ("depth", "number of blocks of the target"),
        ("head_size", "width of an attention head of the target"),
        ("context", "tokens per sequence of the target"),
        ("vocabulary", "vocabulary of the target"),
        ("tokens", "tokens the target is trained on"),
        ("mask_seed", "seed of the target's masks"),
    ):
        to.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"{text}; default: as recorded")
    to.add_argument("--out", metavar="FILE", help="where the card goes; default: card.json in the folder")


if __name__ == "__main__":
    sys.exit(main())
