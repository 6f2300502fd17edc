"""Everything that hpsweep finds in the runs of results/reference, as plain numbers: python -m tests.published_numbers

It writes published_numbers.json.gz, with which test_published_numbers.py compares what it computes anew. Write it again
only where a result is meant to change; what differs from before is printed.

A number or text has a name: table, row (by the values that tell it apart, and not by its place) and column, or card and
field. Wording is left out: it may be changed for the better. So are the replicates of the law, whose intervals,
correlations and profiles are in.

Matrix kernels of other processors give other last digits. A minimum is found to the root of these: 1e-8 octaves make
1e-16 of the loss. Between the kernels for AVX-512 and those of lesser processors (OPENBLAS_CORETYPE=Haswell and
Sandybridge, and NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL") numbers differed by up to 6e-6 of themselves, those by
more than 1e-6 by no more than 4e-7, and so did the scheme with the lowest loss where all are equal, at the base model.
The kernels are recorded, by the last digits of made fits, and under others the comparison is less close
(OTHER_KERNELS).
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import hpsweep as hp

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
STORED = Path(__file__).with_suffix(".json.gz")

Value = float | str | None
Named = Iterator[tuple[str, Any]]

# --- what is asked of hpsweep: its names stand in this part alone, and groups are always said ---

ALL: Mapping[str, float] = {}
PLACE = ("scheme", "width", "density")
MATRIX = ("scheme", "tuned_width", "tuned_density", "used_width", "used_density")
MULTIPLIERS = [{"embedding_lr_mult": 2}, {"embedding_lr_mult": 8}]


@dataclass(frozen=True)
class Study:
    """What is computed of one folder."""

    by: Sequence[str]
    over: str = "lr"
    along: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of every axis that the optimum may drift along, what tells the drifts apart."""
    pair: tuple[str, str] | None = None
    """Hyperparameters that were searched together; the groups of their joint optimum are PLACE."""
    parts: Sequence[Mapping[str, float]] = (ALL,)
    """The runs within which regrets are computed, and from which cards are made: those that have these values."""


STUDIES = {
    "attention_scale": Study(
        by=["scheme", "width", "head_size", "density", "base_head_size"],
        along={
            "density": ["scheme", "width", "head_size", "base_head_size"],
            "width": ["scheme", "head_size", "density", "base_head_size"],
        },
        parts=[{"base_head_size": base, "head_size": size} for base in (1, 32) for size in (32, 64)],
    ),
    "bench/lr_by_density": Study(by=["scheme", "density"], along={"density": ["scheme"]}),
    "embedding_lr_mult": Study(by=["scheme", "embedding_lr_mult"]),
    "embedding_lr_mult_narrow": Study(by=["scheme", "embedding_lr_mult"]),
    "init_std_by_density": Study(by=["scheme", "density"], over="init_std", along={"density": ["scheme"]}),
    "lr_by_density": Study(by=["scheme", "density"], along={"density": ["scheme"]}),
    "lr_by_init_std": Study(
        by=["scheme", "density", "init_std"],
        along={"density": ["scheme", "init_std"]},
        pair=("lr", "init_std"),
    ),
    "lr_by_width": Study(by=["scheme", "width"], along={"width": ["scheme"]}),
    "lr_by_width_and_density": Study(
        by=["scheme", "width", "density"],
        along={"density": ["scheme", "width"], "width": ["scheme", "density"]},
    ),
    "narrow_dense": Study(by=["scheme", "embedding_lr_mult"], parts=[ALL, *MULTIPLIERS]),
    "narrow_dense/target": Study(by=["scheme", "embedding_lr_mult"], parts=[]),
    "scaling_law": Study(
        by=["scheme", "width", "density", "steps"],
        along={"density": ["scheme", "width", "steps"], "width": ["scheme", "density", "steps"]},
        parts=[{"steps": 1600}],
    ),
    "warmup": Study(by=["scheme", "warmup_fraction"], parts=[{"warmup_fraction": 0.1}, {"warmup_fraction": 0.3}]),
    "wide_sparse": Study(by=["scheme", "embedding_lr_mult"], parts=[ALL, *MULTIPLIERS]),
}
CHECKS = ("coords/sp", "coords/mup", "coords/supar")
FOLDERS = (*STUDIES, *CHECKS)


def of_folder(name: str) -> Named:
    """All numbers and texts of one folder of results/reference, by name."""
    if name in CHECKS:
        slopes = pd.read_csv(REFERENCE / name / "slopes.csv")
        yield from of_table("verdicts", ["module"], hp.coords.verdicts(slopes))
        return
    study, runs = STUDIES[name], hp.load(REFERENCE / name)
    by, over = study.by, study.over
    yield from of_trials(runs)
    yield from of_table("optima", by, hp.optima(runs, by=by, over=over))
    yield from of_table("sensitivity", by, hp.sensitivity(runs, by=by, over=over))
    for along, apart in study.along.items():
        yield from of_table(f"drift along {along}", apart, hp.drift(runs, along=along, by=apart, over=over))
    if study.pair:
        yield from of_table("joint optima", PLACE, hp.surface(runs, by=PLACE, over=study.pair))
    for values in study.parts:
        part, where = selected(runs, values), f" of {said(values)}" if values else ""
        compared = hp.regret(part, over=over)
        yield from of_table(f"tuned against transferred{where}", PLACE, compared)
        yield from of_table(f"regret{where}", MATRIX, hp.regret_matrix(part, over=over))
        yield from of_table(f"held out{where}", ["along", *PLACE], hp.held_out(part, over=over))
        for scheme, card in cards(name, part, over):
            yield from of_record(f"card of {scheme}{where}", card)
        for scheme, card in cards(name, part, study.pair) if study.pair else ():
            yield from of_record(f"joint card of {scheme}{where}", card)
    if name == "scaling_law":
        yield from of_record("law", dataclasses.asdict(hp.law.fit_sweep(runs)))
    if name == "wide_sparse":
        yield from of_transfer(runs)


def of_trials(runs: pd.DataFrame) -> Named:
    """Of every stored id the one that the fields of its row make."""
    names = [f.name for f in dataclasses.fields(hp.Trial) if f.name in runs and f.name != "tokens"]  # steps say it
    yield "trials: rows", len(runs)
    for stated, row in zip(runs["trial_id"], runs[names].to_dict("records"), strict=True):
        yield f"trial {stated}", hp.Trial(**{str(name): value for name, value in row.items()}).trial_id


def cards(name: str, runs: pd.DataFrame, over: str | tuple[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The card of every scheme, as its JSON has it; none where the folder names no target."""
    meta = REFERENCE / name / "meta.json"
    target = json.loads(meta.read_text(encoding="utf-8"))["sweep"]["target"] if meta.exists() else None
    if target is None:
        return
    for scheme in sorted(set(runs["scheme"])):
        yield scheme, json.loads(hp.transfer(runs, hp.Target(**target), scheme=scheme, over=over).to_json())


def of_transfer(wide: pd.DataFrame) -> Named:
    """What the published cards of narrow_dense cost at their target, of both multipliers and of the card's alone."""
    runs = pd.concat([wide, hp.load(REFERENCE / "narrow_dense" / "target")], ignore_index=True)
    for scheme, values in itertools.product(("mup", "sp", "supar"), MULTIPLIERS):
        name = f"card_{scheme}_at_{values['embedding_lr_mult']}"
        card = hp.Card.read(REFERENCE / "narrow_dense" / f"{name}.json")
        yield from of_table(f"regret of {name}", PLACE, hp.regret(runs, card=card))
        yield from of_table(f"regret of {name} at its own", PLACE, hp.regret(selected(runs, values), card=card))


# --- plain names and values ---

WORDING = ("why", "reason", "unit", "conventions")
LEFT_OUT = (*WORDING, "replicates", "schema_version")  # a version rises with every new field


def of_table(name: str, keys: Sequence[str], table: pd.DataFrame) -> Named:
    """How many rows a table has, and what every one says, by the values of `keys`, which tell it apart."""
    yield f"{name}: rows", len(table)
    for row in table.to_dict("records"):
        place = said({key: row.pop(key) for key in keys})
        yield from of_record(f"{name}: {place}", row)


def of_record(name: str, found: Any) -> Named:
    """The numbers and texts in mappings and lists, and how long the lists are; of warnings only that."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            if key == "warnings":
                yield f"{name}: {key}: rows", len(value)
            elif key not in LEFT_OUT:
                yield from of_record(f"{name}: {key}", value)
    elif isinstance(found, list | tuple):
        yield f"{name}: rows", len(found)
        for place, value in enumerate(found):
            yield from of_record(f"{name} {place}", value)
    else:
        yield name, plain(found)


def plain(value: Any) -> Value:
    """A value as JSON has it; no number is null."""
    found: Value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(found, float) and math.isnan(found) else found


def said(values: Mapping[str, Any]) -> str:
    """Fields and their values."""
    return ", ".join(
        f"{key} {value if isinstance(value, str) else format(value, '.6g')}" for key, value in values.items()
    )


def selected(runs: pd.DataFrame, values: Mapping[str, float]) -> pd.DataFrame:
    """The runs that have these values."""
    for key, value in values.items():
        runs = runs[runs[key] == value]
    return runs


# --- what is kept, and compared ---


def computed(folder: str) -> dict[str, Value]:
    """The numbers and texts of a folder. Raises ValueError where two have one name."""
    found: dict[str, Value] = {}
    for name, value in of_folder(folder):
        if name in found:
            raise ValueError(f"two values are named {name!r}; the keys of its table do not tell its rows apart.")
        found[name] = value
    return found


def stored() -> dict[str, Any]:
    """The file: `kernels`, and `numbers` by folder and name."""
    with gzip.open(STORED, "rt", encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may be apart, as a part of them or as such, and columns whose texts are not compared."""

    relative: float
    absolute: float
    texts: tuple[str, ...] = ()


SAME_KERNELS = Tolerance(relative=1e-12, absolute=1e-15)  # the latter of a regret of 0, a difference of two losses
OTHER_KERNELS = Tolerance(relative=1e-5, absolute=1e-7, texts=("best_scheme",))  # of schemes equal at the base


def differences(before: Mapping[str, Value], now: Mapping[str, Value], tolerance: Tolerance) -> list[str]:
    """What is missing or another number or text, a line each. A column that was added is no difference; a row is."""
    lines = []
    for name, value in before.items():
        if name not in now:
            lines.append(f"{name}: was {value!r}, and is missing")
        elif not same(name, value, now[name], tolerance):
            lines.append(f"{name}: was {value!r}, is {now[name]!r}")
    return lines


def same(name: str, before: Value, now: Value, tolerance: Tolerance) -> bool:
    """Whether two values of one name are equal, numbers within the tolerance."""
    if isinstance(before, float | int) and isinstance(now, float | int):
        return math.isclose(before, now, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)
    return before == now or name.endswith(tuple(f": {column}" for column in tolerance.texts))


def kernels() -> str:
    """A name for the matrix kernels at work: the last digits of some made fits, which differ between them."""
    generator = np.random.default_rng(0)
    made = [generator.normal(size=(rows, columns)) for rows in (4, 9, 30, 500) for columns in (2, 3, 6)]
    digits = [
        out for x in made for out in (x.T @ x, np.linalg.pinv(x), np.linalg.svd(x)[1], np.exp(x), np.log2(abs(x)))
    ]
    return hashlib.sha256(b"".join(out.tobytes() for out in digits)).hexdigest()[:16]


def main() -> None:
    """Compute all folders, print what differs from the file, and write it."""
    before = stored()["numbers"] if STORED.exists() else {}
    now = {folder: computed(folder) for folder in FOLDERS}
    for folder in FOLDERS:
        for line in differences(before.get(folder, {}), now[folder], SAME_KERNELS):
            print(f"{folder}: {line}")
    text = json.dumps({"kernels": kernels(), "numbers": now}, separators=(",", ":"), allow_nan=False)
    STORED.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{sum(map(len, now.values()))} values, {STORED.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
