"""From a tuned proxy to a large sparse target: the card, and what transferring costs where that was measured.

The base hyperparameters (lr, init std, ... at m_d = m_rho = 1) are read off the proxy's runs; the rules turn them into
the numbers of every kind of tensor at the target's width and density.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from hpsweep.analysis.drift import drift
from hpsweep.analysis.optimum import Cells, Group, check_equal, check_runs, fit_groups
from hpsweep.parametrization import rules
from hpsweep.parametrization.count import sizes
from hpsweep.spec import TUNED, Scheme, Target, Trial, kept, trial_from_row
from hpsweep.store import one_data_hash, replacing

CARD_VERSION = 1
"""Raised when a field of the card changes its meaning or is added."""

FEWEST_NONZEROS = 8
"""Kept weights per neuron below which the law of large numbers behind the correction is in doubt."""

FARTHEST_DENSITY, FARTHEST_WIDTH = 4, 16
"""Factors beyond the sparsest and the widest model that was tuned, after which a target is an extrapolation."""

MEASURED_WITHIN = 0.25
"""Octaves between a setting and a measured cell within which the cell's loss is taken for the setting's."""

COMPARISON = (
    *("scheme", "width", "density", "hyperparameter", "status", "tuned_value", "tuned_loss", "tuned_loss_se"),
    *("proxy_value", "proxy_status", "transferred_value", "transferred_loss", "transferred_from", "regret", "why"),
)
"""Columns of `tuned_against_transferred`."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A tuned result for one target, as plain data: what a trainer needs, and what speaks for and against it.

    Base values are those at m_d = m_rho = 1. `kinds` has the numbers of each kind of tensor at the target; `tensors`
    the proxy GPT's tensors at the target's size, hidden ones with their nonzeros; a readout that is tied has the
    embedding's init std and lr. `uncertainty` is the larger side of the optimum's interval, octaves, null for a bound.
    `comparison` has rows of `tuned_against_transferred`, `drift` rows of `drift`. Missing is null.
    """

    scheme: Scheme
    target: dict[str, Any]
    proxy: dict[str, Any]
    base: dict[str, float]
    optimum: dict[str, Any]
    uncertainty: float | None
    kinds: dict[str, dict[str, float]]
    attention_scale: float
    readout_multiplier: float
    alpha_input: float
    alpha_output: float
    embedding_lr_mult: float
    optimizer: dict[str, Any]
    schedule: dict[str, float]
    mask: dict[str, Any]
    tensors: list[dict[str, Any]]
    sizes: dict[str, int]
    evidence: dict[str, Any]
    drift: list[dict[str, Any]]
    comparison: list[dict[str, Any]]
    warnings: list[str]
    schema_version: int = CARD_VERSION

    def to_json(self) -> str:
        """The card as JSON text; floats in their shortest exact form."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> Path:
        """Write the JSON to a file, whole or not at all; returns its path."""
        path = Path(path)
        with replacing(path) as temporary:
            temporary.write_text(self.to_json())
        return path

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """The card in a file. Raises ValueError if it is none, or one of another version."""
        try:
            values = json.loads(Path(path).read_text())
            version = values["schema_version"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no card; write one with Card.write or the transfer command.") from None
        if version != CARD_VERSION:
            remedy = "upgrade hpsweep" if version > CARD_VERSION else "make it anew from the runs"
            raise ValueError(f"{path} is a card of version {version}; this hpsweep reads {CARD_VERSION}: {remedy}.")
        names = {f.name for f in dataclasses.fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(set(values) ^ names))
            raise ValueError(f"{path} is no card of version {version}: missing or unknown {odd}. Make it anew.")
        return cls(**values)


def transfer(
    runs: pd.DataFrame,
    target: Target,
    *,
    scheme: Scheme = "supar",
    over: str = "lr",
    proxy: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Card:
    """The card that carries the proxy's tuned hyperparameters to `target`.

    The proxy is the scheme's runs at width = base_width and density = base_density; `proxy` overrides these and
    selects other fields, such as {"density": 1/4} or {"steps": 600}. `over` is interpolated; where other searched
    hyperparameters vary in the proxy's runs, the combination of tried values whose optimum over `over` has the
    lowest loss is taken. A minimum at the end of the grid is carried as it is, with a warning: it is a bound.

    Raises ValueError where there is no proxy or it has no optimum, for runs that `optima` refuses, and for a target
    that cannot be: head size that does not divide the width, less than one nonzero per neuron.
    """
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme is {scheme!r}; allowed: {', '.join(get_args(Scheme))}.")
    runs, place = _select(runs, proxy or {}, over)
    source = _proxy_runs(runs, scheme, place)
    others = _other_tuned(source, over)
    tuned = _best(fit_groups(source, ["scheme", *others], over=over, resamples=resamples, seed=seed))
    if tuned is None or tuned.row["status"] not in ("ok", "edge"):
        why = tuned.row["why"] if tuned else "no runs"
        raise ValueError(
            f"the {scheme} proxy at width {place['width']} and density {place['density']:g} has no optimum "
            f"of {over}: {why}."
        )
    settings = dict(zip(others, tuned.key[1:], strict=True))
    used = _rows_at(source, settings)
    row = used[used["status"] == "ok"].iloc[0]
    base = trial_from_row({str(name): value for name, value in row.items()}).replace(**{over: tuned.row["opt"]})
    vocabulary = int(used["vocabulary"].iloc[0])
    trial = _target_trial(base, target)
    own = _rows_at(runs[runs["scheme"] == scheme], settings)
    drifts = _drifts(own, place, over, resamples, seed)
    comparison = tuned_against_transferred(runs, over=over, proxy=place, resamples=resamples, seed=seed)
    notes = [
        *_warn_optimum(tuned, over),
        *_warn_target(base, trial, target, vocabulary),
        *_warn_reach(own, trial),
        *_warn_drift(base, trial, drifts),
        *_warn_scheme(scheme, comparison),
    ]
    return _card(
        base=base,
        trial=trial,
        target=target,
        vocabulary=(vocabulary, target.vocabulary or vocabulary),
        tuned=tuned,
        evidence=_evidence(used),
        drifts=drifts,
        comparison=_records(comparison),
        notes=notes,
    )


def tuned_against_transferred(
    runs: pd.DataFrame,
    *,
    over: str = "lr",
    proxy: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per scheme, width and density: the loss after tuning there, and with the proxy's optimum reused there.

    tuned_value, tuned_loss, tuned_loss_se: the best measured setting over all hyperparameters tried, its mean loss, and
    that mean's standard error over seeds (`status` as in `optima`: at an edge the regret is at least what is given).
    proxy_value: the optimum of the same scheme's proxy (mup's and supar's stand in for each other at base density,
    where the two are the same). transferred_loss: the loss at that setting; the measured cell's at transferred_value if
    it lies within MEASURED_WITHIN octaves ("measured"), else on the straight line between its neighbours
    ("interpolated": on a convex curve the loss is no higher), null where the setting diverged or lies outside the grid.
    regret = transferred_loss - tuned_loss. Losses in nats/token. Raises ValueError as `optima` does.
    """
    runs, place = _select(runs, proxy or {}, over)
    others = _other_tuned(runs, over)
    by = ["scheme", "width", "density", *others]
    groups = fit_groups(runs, by, over=over, resamples=resamples, seed=seed)
    rows = []
    for key in sorted({group.key[:3] for group in groups}, key=lambda key: (key[0], key[1], -key[2])):
        tuned = _best([group for group in groups if group.key[:3] == key])
        assert tuned is not None
        source = _best([group for group in groups if group.key[:3] == (key[0], place["width"], place["density"])])
        if source is None and key[0] in ("mup", "supar") and place["density"] == place["base_density"]:
            twin = "mup" if key[0] == "supar" else "supar"
            source = _best([group for group in groups if group.key[:3] == (twin, place["width"], place["density"])])
        same = [group for group in groups if source is not None and group.key == (*key, *source.key[3:])]
        rows.append(dict(zip(by[:3], key[:3], strict=True)) | _compared(tuned, source, same[0] if same else None))
    return pd.DataFrame(rows, columns=list(COMPARISON))


# --- which runs ---


def _select(runs: pd.DataFrame, proxy: Mapping[str, Any], over: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The runs with the proxy's fields, all widths and densities of them, and where the proxy is."""
    check_runs(runs, ["scheme", "width", "density", *(name for name in proxy if name != over)], over)
    for name, value in proxy.items():
        if name in ("width", "density"):
            continue
        chosen = runs[runs[name] == value]
        if chosen.empty:
            known = ", ".join(map(str, runs[name].drop_duplicates().sort_values()[:8]))
            raise ValueError(f"no run has {name} {value!r}, as proxy asks; there are {known}.")
        runs = chosen
    for name in ("base_width", "base_density"):
        if runs[name].nunique() > 1:
            check_equal(runs[[name]], (), "the sweep")
    base = {"base_width": int(runs["base_width"].iloc[0]), "base_density": float(runs["base_density"].iloc[0])}
    place = {"width": base["base_width"], "density": base["base_density"], **base, **proxy}
    return runs, place


def _proxy_runs(runs: pd.DataFrame, scheme: str, place: Mapping[str, Any]) -> pd.DataFrame:
    own = _rows_at(runs, {"scheme": scheme})
    if own.empty:
        known = ", ".join(sorted(runs["scheme"].unique()))
        raise ValueError(f"no run has scheme {scheme!r}; the runs have {known}. Train it, or give another scheme.")
    chosen = _rows_at(own, {name: place[name] for name in ("width", "density")})
    if chosen.empty:
        tried = sorted({(int(w), float(d)) for w, d in zip(own["width"], own["density"], strict=True)})
        listed = "; ".join(f"width {w}, density {d:g}" for w, d in tried)
        raise ValueError(
            f"no {scheme} run has width {place['width']} and density {place['density']:g}, where the proxy should be. "
            f"Tried were: {listed}. Choose one, such as proxy={{'width': {tried[-1][0]}, 'density': {tried[-1][1]:g}}}."
        )
    return chosen


def _other_tuned(runs: pd.DataFrame, over: str) -> list[str]:
    """Searched hyperparameters other than `over` that vary in the runs."""
    return [name for name in TUNED if name != over and name in runs and runs[name].nunique() > 1]


def _best(groups: Sequence[Group]) -> Group | None:
    """The group with the lowest measured loss among those with an optimum or a bound; failing those, any.

    Measured, because beside a cliff a parabola's own minimum lies below every loss that was ever reached.
    """
    if not groups:
        return None
    return min(
        groups, key=lambda g: (g.row["status"] not in ("ok", "edge"), np.nan_to_num(g.row["best_loss"], nan=np.inf))
    )


def _rows_at(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The runs with these values."""
    for name, value in settings.items():
        runs = runs[runs[name] == value]
    return runs


# --- the comparison ---


def _compared(tuned: Group, source: Group | None, same: Group | None) -> dict[str, Any]:
    """A row of the comparison. `same` has the proxy's other hyperparameters, at this width and density."""
    row: dict[str, Any] = {
        **dict.fromkeys(COMPARISON[3:], math.nan),
        "hyperparameter": tuned.row["hyperparameter"],
        "status": tuned.row["status"],
        "tuned_value": tuned.row["best_value"],
        "tuned_loss": tuned.row["best_loss"],
        "tuned_loss_se": _standard_error(tuned.cells),
        "proxy_status": None,
        "transferred_from": None,
        "why": tuned.row["why"],
    }
    if source is None or source.row["status"] not in ("ok", "edge"):
        why = "the scheme's proxy was not trained" if source is None else f"the scheme's proxy: {source.row['why']}"
        return {**row, "why": "; ".join(filter(None, [row["why"], why]))}
    row.update(proxy_value=source.row["opt"], proxy_status=source.row["status"])
    if same is None:
        return {**row, "why": "; ".join(filter(None, [row["why"], "the proxy's setting was not tried here"]))}
    found = _loss_at(same.cells, source.row["log2_opt"])
    row.update(found, why="; ".join(filter(None, [row["why"], found.get("why")])))
    return {**row, "regret": row["transferred_loss"] - row["tuned_loss"]}


def _standard_error(cells: Cells) -> float:
    """Of the best cell's mean loss, from the spread of its seeds; NaN with one seed."""
    if not cells.finite.any():
        return math.nan
    single = cells.runs.loc[cells.runs["cell"] == int(np.nanargmin(cells.loss)), "loss"]
    return float(single.std(ddof=1) / math.sqrt(len(single))) if len(single) > 1 else math.nan


def _loss_at(cells: Cells, x: float) -> dict[str, Any]:
    """transferred_value, transferred_loss and transferred_from at log2 = x; only `why` where nothing is known."""
    nearest = int(np.argmin(np.abs(cells.x - x))) if len(cells.x) else -1
    if nearest < 0:
        return {"why": "no run ended here"}
    if abs(cells.x[nearest] - x) <= MEASURED_WITHIN:
        if not cells.finite[nearest]:
            return {"why": f"the proxy's setting diverges here ({cells.values[nearest]:.4g})"}
        return {
            "transferred_value": float(cells.values[nearest]),
            "transferred_loss": float(cells.loss[nearest]),
            "transferred_from": "measured",
        }
    right = int(np.searchsorted(cells.x, x))
    if right in (0, len(cells.x)):
        return {"why": f"the proxy's setting {2.0**x:.4g} lies outside the values tried here"}
    if not (cells.finite[right] and cells.finite[right - 1]):
        return {"why": f"runs beside the proxy's setting {2.0**x:.4g} diverge here"}
    loss = float(np.interp(x, cells.x[right - 1 : right + 1], cells.loss[right - 1 : right + 1]))
    return {"transferred_value": 2.0**x, "transferred_loss": loss, "transferred_from": "interpolated"}


# --- the card ---


def _target_trial(base: Trial, target: Target) -> Trial:
    """The proxy's trial at the target's shape. Its steps mean nothing."""
    head_size = target.head_size or base.head_size
    if target.width % head_size:
        raise ValueError(
            f"target width {target.width} is not divisible by the proxy's head_size {head_size}; "
            f"give the target's own, such as Target(head_size={math.gcd(target.width, head_size)})."
        )
    if target.width * target.density < 1:
        raise ValueError(
            f"density {target.density:g} keeps {target.width * target.density:.2g} of the {target.width} weights of a "
            f"neuron; at least 1 is needed, and {FEWEST_NONZEROS} for the rules to hold: "
            f"density {FEWEST_NONZEROS / target.width:.2g} or more."
        )
    return base.replace(
        width=target.width,
        density=target.density,
        depth=target.depth or base.depth,
        head_size=head_size,
        context=target.context or base.context,
    )


def _card(
    *,
    base: Trial,
    trial: Trial,
    target: Target,
    vocabulary: tuple[int, int],
    tuned: Group,
    evidence: dict[str, Any],
    drifts: list[dict[str, Any]],
    comparison: list[dict[str, Any]],
    notes: list[str],
) -> Card:
    """The card's fields; `vocabulary` is the proxy's and the target's."""
    shape = ("width", "density", "depth", "head_size", "context", "tied")
    duration = {"batch": base.batch, "steps": base.total_steps, "tokens": base.total_tokens, "data": base.data}
    base_shape = {"base_width": base.base_width, "base_density": base.base_density}
    alphas = rules.USES_ALPHAS[trial.scheme]
    row = _plain(tuned.row)
    sides = [row[name] for name in ("log2_low", "log2_high")]
    return Card(
        scheme=trial.scheme,
        target={n: getattr(trial, n) for n in shape} | {"vocabulary": vocabulary[1], "tokens": target.tokens},
        proxy={n: getattr(base, n) for n in shape} | {"vocabulary": vocabulary[0]} | duration | base_shape,
        base={name: getattr(base, name) for name in TUNED},
        optimum=row,
        uncertainty=None if None in sides else max(abs(side - row["log2_opt"]) for side in sides),
        kinds=_kinds(trial),
        attention_scale=rules.attention_scale(trial),
        readout_multiplier=rules.readout_multiplier(trial),
        alpha_input=trial.alpha_input if alphas else 1.0,
        alpha_output=trial.alpha_output if alphas else 1.0,
        embedding_lr_mult=trial.embedding_lr_mult,
        optimizer={
            "name": "AdamW",
            **{name: getattr(trial, name) for name in ("beta1", "beta2", "eps", "clip")},
            **{name: getattr(trial, name) for name in ("weight_decay", "weight_decay_rule")},
        },
        schedule={name: getattr(trial, name) for name in ("warmup_fraction", "final_lr_fraction")},
        mask={"seed": target.mask_seed, "density": trial.density, "kinds": list(rules.SPARSE)},
        tensors=[
            {"name": name, "shape": list(shape), "kind": kind, "nonzeros": _nonzeros(shape, kind, trial.density)}
            for name, (shape, kind) in rules.tensors(trial, vocabulary[1]).items()
        ],
        sizes=sizes(trial, vocabulary[1])._asdict(),
        evidence=evidence,
        drift=drifts,
        comparison=comparison,
        warnings=notes,
    )


def _kinds(trial: Trial) -> dict[str, dict[str, float]]:
    """The numbers of every kind of tensor at the target; dense kinds have m_rho = 1."""
    kinds = {}
    for kind in get_args(rules.Kind):
        m_rho = trial.m_rho if kind in rules.SPARSE else 1.0
        numbers = dataclasses.asdict(rules.numbers(trial, kind, m_d=trial.m_d, m_rho=m_rho))
        kinds[kind] = {name: value for name, value in numbers.items() if name != "kind"}
    if trial.tied:  # one tensor with the embedding; only its second use has a multiplier of its own
        kinds["readout"] = {**kinds["embedding"], "forward": kinds["readout"]["forward"]}
    return kinds


def _nonzeros(shape: tuple[int, ...], kind: rules.Kind, density: float) -> int:
    return kept(math.prod(shape), density) if kind in rules.SPARSE else math.prod(shape)


def _evidence(used: pd.DataFrame) -> dict[str, Any]:
    """What the proxy's optimum rests on."""
    trained = used[used["status"] != "failed"]

    def distinct(name: str) -> list[str]:
        return sorted(trained[name].dropna().astype(str).unique()) if name in trained else []

    return {
        "trial_ids": distinct("trial_id"),
        "seeds": int(trained["seed"].nunique()),
        "data_hash": one_data_hash(trained["data_hash"]),
        "hpsweep_versions": distinct("hpsweep_version"),
        "commits": distinct("commit"),
    }


def _drifts(own: pd.DataFrame, place: Mapping[str, Any], over: str, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Rows of `drift` along density at the proxy's width and along width at its density, where there are such runs."""
    rows = []
    for along, fixed in (("density", "width"), ("width", "density")):
        line = own[own[fixed] == place[fixed]]
        if line[along].nunique() > 1:
            rows += _records(drift(line, along, ["scheme"], over=over, resamples=resamples, seed=seed))
    return rows


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_plain(row) for row in table.to_dict("records")]


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Python numbers, and None for what is missing: what JSON can hold."""
    values = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


# --- what the user must know ---


def _warn_optimum(tuned: Group, over: str) -> list[str]:
    row = tuned.row
    if row["status"] == "edge":
        return [f"NOT AN OPTIMUM but a bound: {over} {row['opt']:.4g} is where the proxy's grid ends ({row['why']})."]
    if row["interval"] == "assumed":
        return [f"the interval of {over} rests on an assumed noise: train the proxy with at least 2 seeds."]
    return []


def _warn_target(base: Trial, trial: Trial, target: Target, vocabulary: int) -> list[str]:
    """What the rules do not correct, or not well."""
    notes = []
    nonzeros = trial.width * trial.density
    if nonzeros < FEWEST_NONZEROS:
        notes.append(
            f"{nonzeros:.1f} nonzeros per neuron (width x density); below {FEWEST_NONZEROS} the rules may not hold."
        )
    for name in ("depth", "context"):
        if getattr(trial, name) != getattr(base, name):
            notes.append(
                f"{name} {getattr(trial, name)} differs from the proxy's {getattr(base, name)}: "
                "not corrected by any scheme here."
            )
    if target.vocabulary is not None and target.vocabulary != vocabulary:
        notes.append(f"vocabulary {target.vocabulary} differs from the proxy's {vocabulary}: not corrected here.")
    if target.tokens is not None:
        here = target.tokens / sizes(trial, vocabulary).hidden_nonzeros
        there = base.total_tokens / sizes(base, vocabulary).hidden_nonzeros
        if not 0.9 <= here / there <= 1.1:
            notes.append(
                f"{here:.3g} tokens per nonzero hidden parameter differ from the proxy's {there:.3g}: "
                "not corrected by any scheme here."
            )
    here, there = (rules.numbers(t, "hidden", m_d=t.m_d, m_rho=t.m_rho).lr for t in (trial, base))
    if trial.weight_decay > 0 and trial.weight_decay_rule == "coupled" and not math.isclose(here, there):
        notes.append(
            f"weight decay is coupled: the hidden lr is {here / there:.4g} x the proxy's, and so is lr x weight_decay; "
            "weight_decay_rule 'independent' keeps it."
        )
    return notes


def _warn_reach(own: pd.DataFrame, trial: Trial) -> list[str]:
    """Targets far from anything tuned."""
    notes = []
    sparser = float(own["density"].min()) / trial.density
    wider = trial.width / float(own["width"].max())
    if sparser > FARTHEST_DENSITY:
        notes.append(f"extrapolation: density {trial.density:g} is {sparser:.3g} x below the sparsest tuned.")
    if wider > FARTHEST_WIDTH:
        notes.append(f"extrapolation: width {trial.width} is {wider:.3g} x the largest tuned.")
    return notes


def _warn_drift(base: Trial, trial: Trial, drifts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Optima that move, or are not known to stay."""
    notes = []
    for row in drifts:
        if row["verdict"] != "stable":
            notes.append(f"the optimum along {row['along']} is {row['verdict']}, not stable: {row['why']}.")
    for along in ("density", "width"):
        if getattr(trial, along) != getattr(base, along) and along not in {row["along"] for row in drifts}:
            notes.append(f"nothing says that the optimum stays put along {along}: the runs have one {along} only.")
    return notes


def _warn_scheme(scheme: str, comparison: pd.DataFrame) -> list[str]:
    """A scheme that does not transfer, or another one that was better after re-tuning."""
    notes = []
    if scheme == "sp":
        notes.append(
            "scheme sp does not correct for width or density: its optimum moves, and the target needs re-tuning."
        )
    own = comparison[comparison["scheme"] == scheme].set_index(["width", "density"])["transferred_loss"]
    rivals = comparison[(comparison["scheme"] != scheme) & comparison["tuned_loss"].notna()]
    gaps = []
    for rival in rivals.to_dict("records"):
        here = own.get((rival["width"], rival["density"]), math.nan)
        if here - rival["tuned_loss"] > 2 * np.nan_to_num(rival["tuned_loss_se"]):
            gaps.append((here - rival["tuned_loss"], rival))
    if gaps:
        gap, rival = max(gaps, key=lambda pair: pair[0])
        notes.append(
            f"re-tuned {rival['scheme']} beats transferred {scheme} by up to {gap:.3f} nats/token "
            f"(width {rival['width']}, density {rival['density']:g}); see comparison."
        )
    return notes
