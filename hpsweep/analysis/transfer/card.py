"""The card: the JSON that carries a tuned result to a target."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from hpsweep.analysis.findings import Finding
from hpsweep.analysis.optimum.optima import Group
from hpsweep.analysis.runs.rows import plain_row
from hpsweep.analysis.transfer.card_checks import CARD, OPTIMIZER, SCHEDULE, SETTINGS, SHAPE
from hpsweep.architectures import SPARSE, Kind, nonzeros, tensors
from hpsweep.axes import AXES
from hpsweep.own_model.card_sizes import check_plan
from hpsweep.records import check_version, read_record
from hpsweep.rules import multipliers as rules
from hpsweep.rules.count import sizes
from hpsweep.schemes import Scheme, scales_width
from hpsweep.spec import BEFORE, BUILT_IN, TUNED, Target, Trial
from hpsweep.store import one_data_hash
from hpsweep.store.record_file import check_record_path, record_json, write_record
from hpsweep.text import shown

if TYPE_CHECKING:
    from torch import nn

    from hpsweep.own_model.plan import Plan

CARD_VERSION = 5
"""Raised when a field of the card changes its meaning or is added."""
WITH_FINDINGS = 4
"""The first version that has findings beside warnings."""
OLDEST = 2
"""The first version that is still read. What it lacks is filled with what the trials of its time were trained with."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A tuned result for one target, as plain data: what a trainer needs, and what speaks for and against it.

    Base values are those at m_d = m_rho = 1. `kinds` has the numbers of each kind of tensor at the target; `tensors`
    the proxy GPT's tensors at the target's size, hidden ones with their nonzeros; a readout that is tied has the
    embedding's init std and lr. `uncertainty` is the larger side of the interval of what is carried, octaves, null for
    a bound. `comparison` has rows of `tuned_against_transferred`, `drift` rows of `drift`: along density at every
    width, along width at every density. `along_drift` has the setting along the drift (see `offer`), which of it
    and the constant is recommended and which is carried, and rows of `held_out` that judge the two. `findings`
    are what a user must know, as fields of analysis.findings.Finding, and `warnings` have their words. A card of an
    earlier version has warnings alone. Missing is null.
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
    along_drift: dict[str, Any]
    comparison: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    warnings: list[str]
    schema_version: int = CARD_VERSION

    def to_json(self) -> str:
        """The card as JSON text; floats in their shortest exact form."""
        return record_json(self)

    def write(self, path: str | Path) -> Path:
        """Write the JSON to a file, whole or not at all; returns its path.

        Raises ValueError where a newer hpsweep has written a card, and where the path is that of no file.
        """
        return write_record(self, path, what="card")

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """The card in a file, each field within its range. Raises ValueError if it is none, or of another version."""
        values = read_record(
            path, refusal="is no card", remedy="give the file of a card, as Card.write or transfer writes it"
        )
        check_version(
            values, path, name="schema_version", version=CARD_VERSION, what="card", anew="make it anew from the runs",
            oldest=OLDEST,
        )  # fmt: skip
        if values["schema_version"] < WITH_FINDINGS:
            values = {"findings": [], **values}
        names = {f.name for f in dataclasses.fields(cls)}
        if set(values) != names:
            odd = ", ".join(shown(name).strip("'") for name in sorted(set(values) ^ names))
            raise ValueError(f"{path} is no card of version {CARD_VERSION}: missing or unknown {odd}. Make it anew.")
        card = cls(**_of_now(values))
        check_card_values(card, path)
        return card

    def export(self, trainer: str) -> str:
        """The text of a file for another trainer, as `hpsweep export` prints it: 'torch', 'hf' or 'nanogpt'.

        torch: parameter groups for a module of yours; hf: a script for transformers.Trainer; nanogpt: a config of
        nanoGPT-mup's supar branch. docs/exports.md says what each needs.

        Raises ValueError for another trainer, for a card whose numbers are not those of the rules, and for what the
        trainer cannot express, with the reason.
        """
        text: str = _built_on_cards("hpsweep.export.write", "export")(self, trainer)
        return text

    def hyperparameters(self) -> pd.DataFrame:
        """One row per hyperparameter that was searched: the value carried, its 95 % interval, how it was chosen."""
        table: pd.DataFrame = _built_on_cards("hpsweep.analysis.transfer.card_tables", "card_hyperparameters")(self)
        return table

    def regret(self, runs: pd.DataFrame) -> pd.DataFrame:
        """One row: what the card's setting costs at its target, which `runs` have tuned; see `hp.regret`.

        Raises ValueError as `hp.regret` with a card.
        """
        table: pd.DataFrame = _built_on_cards("hpsweep.analysis.transfer.card_regret", "card_regret")(self, runs)
        return table

    def plan(self, model: nn.Module, *, base: object, check: bool = True, **options: Any) -> Plan:
        """The plan of a torch module under the card's scheme, density, multipliers, decay rule and mask seed.

        Attention logits are scaled from the head size of the card's base model, also where that of `base` is another
        one.

        `base` is the same architecture at the card's base width: a module, a function that returns one, or a
        configuration. `options` are those of `parametrize` that say what tensors are, such as
        kinds={"*.c_proj.weight": "residual_out"}. The card's other numbers are given where they are used:
        plan.init_(model, init_std=card.base["init_std"], seed=card.mask["seed"]), and so on. It needs torch.

        Raises ValueError as `parametrize` does, and for a module whose widths, depth or density are not the card's;
        with check=False it gets the rules at its own.
        """
        from hpsweep.own_model.parametrize import parametrize

        base_head_size = self.proxy["base_head_size"]
        plan = parametrize(
            model,
            self.scheme,
            base=base,
            density=self.target["density"],
            base_density=self.proxy["base_density"],
            seed=self.mask["seed"],
            alpha_input=self.alpha_input,
            alpha_attention=self.base["alpha_attention"],
            alpha_output=self.alpha_output,
            embedding_lr_mult=self.embedding_lr_mult,
            weight_decay_rule=self.optimizer["weight_decay_rule"],
            **{"base_head_size": base_head_size, **options},
        )
        if check:
            m_d, readout = self.kinds["hidden"]["m_d"], self.readout_multiplier
            check_plan(plan, self.target, m_d=m_d, readout=readout, base_head_size=base_head_size)
        return plan


def _built_on_cards(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that knows cards, looked up when it is called: an import would go in a circle."""
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def model_axes(card: Card) -> list[str]:
    """The axes by which a target is named: those that all tables have, and others in which it is not the proxy."""
    return [name for name, axis in AXES.items() if axis.always or card.target[name] != card.proxy[name]]


def _of_now(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a card that may be of an earlier version, as this version has them."""
    if values["schema_version"] == CARD_VERSION:
        return dict(values)
    tuned = {name: value for name, value in BEFORE.items() if name in TUNED}
    base = _with(tuned, values["base"])
    proxy = _with({name: value for name, value in BEFORE.items() if name in SETTINGS}, values["proxy"])
    evidence = values["evidence"]
    if isinstance(evidence, Mapping) and "never_tuned" in evidence:
        evidence = {**evidence, "never_tuned": _with(tuned, evidence["never_tuned"])}
    return {**values, "base": base, "proxy": proxy, "evidence": evidence, "schema_version": CARD_VERSION}


def _with(before: Mapping[str, Any], part: Any) -> Any:
    """A part of a card, with the fields that it may lack; if it is no mapping, it is left to the check of the whole."""
    if not isinstance(part, Mapping):
        return part
    return {**before, **part}


def check_card_values(card: Card, path: str | Path = "") -> None:
    """Raise ValueError for a card that lacks something, or has a value that is none."""
    try:
        CARD(vars(card), "")
        _check_order(card.optimum, "optimum", "opt")
        _check_octaves(card.optimum)
        _check_order(card.along_drift, "along_drift", "value")
    except ValueError as error:
        raise ValueError(f"{path}: the card is not whole ({error}); make it anew.".lstrip(": ")) from None


def _check_order(found: Mapping[str, Any], place: str, name: str) -> None:
    """Raise ValueError unless the interval is around the value, and both ends of an optimum are there."""
    if found.get("status") == "ok" and "," not in found["hyperparameter"]:
        for key in ("low", name, "high"):
            if found[key] is None:
                raise ValueError(f"{place} has status ok and no {key}")
    ordered = [found[key] for key in ("low", name, "high") if found[key] is not None]
    if ordered != sorted(ordered):
        raise ValueError(f"{place} has low {found['low']}, {name} {found[name]} and high {found['high']}: out of order")


def _check_octaves(found: Mapping[str, Any]) -> None:
    """Raise ValueError unless what the optimum says in octaves is what it says in values, where it says both."""
    for name in (name for name in found if name.startswith("log2_")):
        of = name.removeprefix("log2_")
        octaves, value = found[name], found.get(of)
        if octaves is None or value is None:
            continue
        if not math.isclose(octaves, math.log2(value), abs_tol=1e-6):
            raise ValueError(f"optimum has {of} {value} and {name} {octaves}, which is not its log2")
    if "," not in found["hyperparameter"]:
        return
    for field in found["hyperparameter"].split(","):
        if missing := [name for name in (f"{field}_low", f"{field}_high", f"status_{field}") if name not in found]:
            raise ValueError(f"optimum of {found['hyperparameter']} has no {', '.join(missing)}")


def check_card_path(path: str | Path) -> None:
    """Raise ValueError where writing a card would destroy that of a newer hpsweep, or what is no file."""
    check_record_path(path, version=CARD_VERSION, what="card")


def make_card(
    *,
    base: Trial,
    trial: Trial,
    target: Target,
    vocabulary: tuple[int, int],
    tuned: Group,
    evidence: dict[str, Any],
    drifts: list[dict[str, Any]],
    along: dict[str, Any],
    comparison: list[dict[str, Any]],
    findings: Sequence[Finding],
) -> Card:
    """The card's fields; `vocabulary` is the proxy's and the target's."""
    duration = {"batch": base.batch, "steps": base.total_steps, "tokens": base.total_tokens}
    settings = {name: getattr(base, name) for name in SETTINGS}
    row = plain_row(tuned.row)
    carried, low, high = row["opt"], row["low"], row["high"]
    if along["carried"] == "drift":
        carried, low, high = along["value"], along["low"], along["high"]
    uncertainty = None
    if low is not None and high is not None:
        uncertainty = max(abs(math.log2(end / carried)) for end in (low, high))
    return Card(
        scheme=trial.scheme,
        target={n: getattr(trial, n) for n in SHAPE} | {"vocabulary": vocabulary[1], "tokens": target.tokens},
        proxy={n: getattr(base, n) for n in SHAPE} | {"vocabulary": vocabulary[0]} | duration | settings,
        base={name: getattr(base, name) for name in TUNED},
        optimum=row,
        uncertainty=uncertainty,
        **target_numbers(trial, vocabulary[1]),
        embedding_lr_mult=trial.embedding_lr_mult,
        optimizer={
            "name": "AdamW",
            **{name: getattr(trial, name) for name in (*OPTIMIZER, "weight_decay")},
        },
        schedule={name: getattr(trial, name) for name in SCHEDULE},
        mask={"seed": target.mask_seed, "density": trial.density, "kinds": list(SPARSE)},
        evidence=evidence,
        drift=drifts,
        along_drift=along,
        comparison=comparison,
        findings=[dataclasses.asdict(finding) for finding in findings],
        warnings=[str(finding) for finding in findings],
    )


def target_numbers(trial: Trial, vocabulary: int) -> dict[str, Any]:
    """The fields of a card that the rules derive from the target's trial."""
    alphas = scales_width(trial.scheme)
    listed: list[dict[str, Any]] = []
    counted: dict[str, int] = {}
    if trial.model == BUILT_IN:  # what tensors a model of the user's own has is known where it is built
        counted = sizes(trial, vocabulary)._asdict()
        for name, (shape, kind) in tensors(trial, vocabulary).items():
            kept = nonzeros(shape, kind, trial.density)
            listed.append({"name": name, "shape": list(shape), "kind": kind, "nonzeros": kept})
    return {
        "kinds": _kinds(trial),
        "attention_scale": rules.attention_scale(trial),
        "readout_multiplier": rules.readout_multiplier(trial),
        "alpha_input": trial.alpha_input if alphas else 1.0,
        "alpha_output": trial.alpha_output if alphas else 1.0,
        "tensors": listed,
        "sizes": counted,
    }


def _kinds(trial: Trial) -> dict[str, dict[str, float]]:
    """The numbers of every kind of tensor at the target; dense kinds have m_rho = 1."""
    kinds = {}
    for kind in get_args(Kind):
        if kind == "keep":  # of own models; the reference GPT has none
            continue
        m_rho = trial.m_rho if kind in SPARSE else 1.0
        numbers = dataclasses.asdict(rules.kind_numbers(trial, kind, m_d=trial.m_d, m_rho=m_rho))
        kinds[kind] = {name: value for name, value in numbers.items() if name != "kind"}
    if trial.tied:  # one tensor with the embedding; only its second use has a multiplier of its own
        kinds["readout"] = {**kinds["embedding"], "forward": kinds["readout"]["forward"]}
    return kinds


def evidence_of(used: pd.DataFrame, own: pd.DataFrame) -> dict[str, Any]:
    """What the proxy's optimum rests on, and the hyperparameters that have one value in all runs of the scheme."""
    trained = used[used["status"] != "failed"]

    def distinct(name: str) -> list[str]:
        return sorted(trained[name].dropna().astype(str).unique()) if name in trained else []

    return {
        "trial_ids": distinct("trial_id"),
        "seeds": int(trained["seed"].nunique()),
        "data_hash": one_data_hash(trained["data_hash"]),
        "hpsweep_versions": distinct("hpsweep_version"),
        "commits": distinct("commit"),
        "never_tuned": {name: float(own[name].iloc[0]) for name in TUNED if own[name].nunique() == 1},
    }
