"""The verb law: a fitted law, with its verdict first."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsweep import store
from hpsweep.cli.arguments import add_field, add_figures, add_selection, number
from hpsweep.cli.inputs import selected
from hpsweep.cli.output import concat, frame_of, output_of, print_json, print_table, records, say
from hpsweep.spec import Trial, fields_of

if TYPE_CHECKING:
    import pandas as pd

    from hpsweep.analysis.law.law import Law

_NOT_PRINTED = ("replicates", "profiles", "correlations")  # long; --out has them


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    to.add_argument("table", metavar="TABLE", help="a .csv or .parquet file with a row per model, or a results folder")
    for name, text in (
        ("loss", "measured loss; default: loss"),
        ("params", "nonzero parameters N; default: params"),
        ("tokens", "training data D; default: tokens"),
        ("sparsity", "fraction of weights that are zero; default: sparsity if there is one, else the law is dense"),
        ("status", "ok, or why there is no loss; default: status if there is one"),
    ):
        to.add_argument(f"--{name}", metavar="COL", help=f"column of the {text}")
    to.add_argument(
        "--tuned", metavar="COL,...", help="hyperparameters of which the best is taken at each S, N, D; none: no column"
    )
    to.add_argument(
        "--residuals", choices=("log", "raw"), default="log", help="what the Huber loss is of; default: log"
    )
    to.add_argument("--delta", type=number, help="of the Huber loss; default: 1e-3 of log residuals, 0.01 of raw ones")
    to.add_argument(
        "--counts", metavar="TEXT", help="what N counts, such as 'nonzeros without embeddings'; is recorded"
    )
    to.add_argument("--unit", metavar="TEXT", help="unit of D, such as tokens or examples; is recorded")
    add_field(to, fields_of(Trial)["scheme"], "of a results folder supar, else mup, else sp")
    to.add_argument("--nonzeros", choices=("hidden", "all"), help="what N counts in a results folder; default: hidden")
    to.add_argument("--compare", metavar="COEFFICIENTS", action="append", help="t5_c4, vit_jft, or a_S=...,b_S=...,...")
    to.add_argument("--at", metavar="S,N,D[=LOSS]", action="append", help="predict there, beside what was measured")
    to.add_argument("--budget", metavar="N,D", action="append", help="best sparsity if a dense model of N could see D")
    to.add_argument("--extrapolate", action="store_true", help="answer more than ten-fold beyond what was fitted")
    to.add_argument("--resamples", type=int, default=400, metavar="K", help="resamples behind the intervals")
    to.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples")
    to.add_argument("--figures", metavar="DIR", help="draw the figures there")
    add_selection(to)
    add_figures(to)
    to.add_argument("--out", metavar="FILE", help="write the whole law there, as JSON")


def run(a: argparse.Namespace) -> None:
    """Fit a law to a table or to a results folder, and say what it knows."""
    asked = [_point(text) for text in a.at or ()]
    budgets = [_numbers(text, "--budget", "N,D") for text in a.budget or ()]
    others = {name: _coefficients(name) for name in a.compare or ()}
    if a.out:
        _check_overwritable(a.out)
    found = _fit(a)
    answers: dict[str, Any] = {
        "compared": {name: _score(found, values) for name, values in others.items()},
        "predictions": records(_predictions(found, asked, a.extrapolate)),
        "budgets": records(_budgets(found, budgets, a.extrapolate)),
        "dense_equivalent": records(_equivalents(found)),
        "figures": _figures(found, a),
        "written": str(found.write(a.out)) if a.out else None,
    }
    if a.json:
        print_json({k: v for k, v in dataclasses.asdict(found).items() if k not in _NOT_PRINTED} | answers)
    else:
        _print(found, answers)


def _check_overwritable(path: str) -> None:
    from hpsweep.analysis.law.data import check_law_path

    check_law_path(path)


def _fit(a: argparse.Namespace) -> Law:
    from hpsweep.analysis.law.law import fit_law, fit_sweep
    from hpsweep.analysis.law.tables import read_table

    options = {name: getattr(a, name) for name in ("residuals", "delta", "resamples", "seed")}
    options["ignore"] = a.ignore or ()
    named = {name: getattr(a, name) for name in ("loss", "params", "tokens", "sparsity", "status")}
    if (Path(a.table) / "runs").is_dir():
        said = [f"--{name}" for name in (*named, "tuned", "counts", "unit") if getattr(a, name)]
        if said:
            raise ValueError(f"{', '.join(said)} belong to a table; of a results folder give --scheme and --nonzeros.")
        store.check_readable(a.table)
        return fit_sweep(
            selected(store.load(a.table), a.where or ()), a.scheme, nonzeros=a.nonzeros or "hidden", **options
        )
    if Path(a.table).is_dir():
        raise ValueError(f"{a.table} is no results folder: it has no runs/. Give the folder of one experiment.")
    if a.scheme or a.nonzeros:
        raise ValueError("--scheme and --nonzeros belong to a results folder; of a table give --params and --counts.")
    stated = {"params": a.counts, "tokens": a.unit}
    conventions = {name: text for name, text in stated.items() if text}
    given = {name: column for name, column in named.items() if column}
    tuned = None if a.tuned is None else [name for name in a.tuned.split(",") if name not in ("", "none")]
    return fit_law(
        selected(read_table(a.table), a.where or ()), **given, tuned=tuned, conventions=conventions, **options
    )


# --- what was asked beside the fit ---


def _numbers(text: str, option: str, form: str) -> list[float]:
    """The numbers of an option such as 0.75,604e6,3.3e10."""
    try:
        values = [number(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        values = []
    if len(values) != form.count(",") + 1:
        raise ValueError(f"{option} {text} is not of the form {form}: numbers with commas between them, no spaces.")
    return values


def _point(text: str) -> dict[str, float]:
    """A point S,N,D or S,N,D=LOSS as a row."""
    where, _, loss = text.partition("=")
    row = dict(zip(("sparsity", "params", "tokens"), _numbers(where, "--at", "S,N,D"), strict=True))
    return row | ({"loss": _numbers(loss, "--at", "LOSS")[0]} if loss else {})


def _coefficients(text: str) -> dict[str, float]:
    """Coefficients by the name of a published law, or as a_S=...,b_S=...,..."""
    from hpsweep.analysis.law.law import PUBLISHED
    from hpsweep.analysis.law.predict import evaluate

    if text in PUBLISHED:
        return PUBLISHED[text]
    parts = [part.partition("=") for part in text.split(",")]
    if not all(separator for _, separator, _ in parts):
        raise ValueError(
            f"--compare {text} is neither one of {', '.join(PUBLISHED)} nor of the form a_S=16.8,b_S=0.7,..."
        )
    values = {name: _numbers(value, "--compare", "NAME=VALUE")[0] for name, _, value in parts}
    evaluate(values, 0.0, 1e6, 1e9)  # names that are missing or unknown are found before the fit
    return values


def _score(found: Law, values: dict[str, float]) -> float:
    from hpsweep.analysis.law.predict import score

    return score(found, values)


def _predictions(found: Law, asked: list[dict[str, float]], extrapolate: bool) -> pd.DataFrame:
    from hpsweep.analysis.law.predict import predict

    return predict(found, frame_of(asked), extrapolate=extrapolate) if asked else frame_of([])


def _budgets(found: Law, budgets: list[list[float]], extrapolate: bool) -> pd.DataFrame:
    """The best sparsity of every budget under every cost."""
    from hpsweep.analysis.law.budget import COSTS, optimal_sparsity

    if not budgets:
        return frame_of([])
    points = frame_of([{"params": n, "tokens": d} for n, d in budgets])
    return concat([optimal_sparsity(found, points, cost=cost, extrapolate=extrapolate) for cost in COSTS])


def _equivalents(found: Law) -> pd.DataFrame:
    from hpsweep.analysis.law.budget import dense_equivalent

    lowest = found.ranges["sparsity"][0]
    return dense_equivalent(found) if found.form == "sparse" and lowest == 0 else frame_of([])


def _figures(found: Law, a: argparse.Namespace) -> list[str]:
    from hpsweep.analysis.plots.law import draw_all

    return [str(path) for path in draw_all(found, Path(a.figures), output_of(a))] if a.figures else []


# --- words ---


def _print(found: Law, answers: dict[str, Any]) -> None:
    from hpsweep.analysis.law.words import compared, judged, law_verdict, scope, terms

    for warning in found.warnings:
        say(f"warning: {warning}")
    print("\n".join(law_verdict(found)))
    for name, objective in answers["compared"].items():
        print(compared(found, name, objective))
    print("\n" + "\n".join(scope(found)) + "\n")
    columns = ["coefficient", "value", "low", "high", "profile_low", "profile_high"]
    print_table(frame_of(found.intervals)[columns].fillna({"high": float("inf")}))
    print(terms(found))
    for row in found.weak:
        print(f"- {row['coefficient']} is weak: {row['reason']}")
    for title, name, left in (
        ("predictions (low, high: of the law; run_low, run_high: of one more run)", "predictions", ()),
        ("best sparsity (tokens: those a dense model of N parameters could see)", "budgets", ("gain_low", "gain_high")),
        ("dense model of the same loss, over the nonzeros and over all weights", "dense_equivalent", ()),
    ):
        if answers[name]:
            print(f"\n{title}:\n")
            print_table(frame_of(answers[name]).drop(columns=list(left)))
        for row in answers[name]:
            if row.get("loss") is not None:
                print("- " + judged(row, row["loss"]))
    if paths := [*answers["figures"], *([answers["written"]] if answers["written"] else [])]:
        print("\n" + "\n".join(paths))
