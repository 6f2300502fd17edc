"""What every field of a card may hold; a card is checked by this table when it is read, trained or exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from hpsweep.architectures import Kind
from hpsweep.axes import AXES
from hpsweep.records import (
    Check,
    choice,
    mapping,
    number,
    optional,
    plain,
    rows,
    table,
    text,
    truth,
    whole,
)
from hpsweep.schemes import SCHEMES
from hpsweep.spec import RESOLVED, TUNED, Interval, Target, Trial, fields_of

CARD_KINDS = tuple(kind for kind in get_args(Kind) if kind != "keep")
"""Of the reference GPT's tensors, all of which are drawn or filled."""

SHAPE = tuple(dict.fromkeys((*AXES, "depth", "head_size", "context", "tied")))
OPTIMIZER = ("beta1", "beta2", "eps", "clip", "weight_decay_rule")
SCHEDULE = ("warmup_fraction", "final_lr_fraction")
_OWN = ("scheme", "seed", "steps", "eval_sequences", "precision")
"""Fields of a trial that a card has a place of their own for, or that are not the target's."""
SETTINGS = tuple(name for name in RESOLVED if name not in (*SHAPE, *TUNED, *OPTIMIZER, *SCHEDULE, *_OWN))
"""All others: the target is trained as the proxy was, on its data, with its base model, and so on."""

_POSITIVE = number(0, ends="(]")
_COUNT = whole(0)


# The vocabulary is of the data, and no field of a trial.
_DECLARED = {**fields_of(Trial), "vocabulary": fields_of(Target)["vocabulary"]}


def _field(name: str) -> Check:
    """A field of a trial, as its record declares it: a number within its range, one of a few texts, and so on."""
    field = _DECLARED[name]
    if field.choices:
        return choice(*field.choices)
    if field.within is None:
        return truth if field.kind == "bool" else text
    if field.kind == "int":
        return whole(int(field.within.low), int(field.within.high) - (not field.within.high_in))
    return _number_in(field.within)


def _number_in(within: Interval) -> Check:
    """A number of the range, with a point or without: in tables of others a whole number may have one."""
    return number(within.low, within.high, ends=("[" if within.low_in else "(") + ("]" if within.high_in else ")"))


def _fields(*names: str) -> dict[str, Check]:
    return {name: _field(name) for name in names}


def _hyperparameters(value: Any, place: str) -> None:
    """One tuned hyperparameter or two, with a comma between them."""
    text(value, place)
    for name in value.split(","):
        choice(*TUNED)(name, place)


_SHAPE = _fields(*SHAPE, "vocabulary")
_NUMBERS = table(
    m_d=_POSITIVE,
    m_rho=_POSITIVE,
    init_std=number(0),
    lr=number(0),
    weight_decay=number(0),
    forward=number(0),
)
_TENSOR = table(name=text, shape=rows(whole(1), least=1), kind=choice(*CARD_KINDS), nonzeros=_COUNT)
_ANY = optional(number(-1e38, 1e38))  # losses may be as large
_VALUE = optional(_POSITIVE)
_ERROR = optional(number(0))  # or how many, with a point where a column had nulls
_OCTAVES = optional(number(-1100, 1100))
_WORDS = optional(text)
_INTERVAL = optional(choice("resampled", "assumed", ""))
_STATUS = choice("ok", "edge", "flat", "none")


def _window(value: Any, place: str) -> None:
    """Of one hyperparameter octaves, of two a text such as +-3 x +-3 octaves, cubic."""
    if not isinstance(value, str):
        _ERROR(value, place)
        return
    text(value, place)
    if " octaves" not in value:
        raise ValueError(f"{place} is {value!r}; allowed: octaves, a number or such as '+-3 x +-3 octaves, cubic'")


def _nested(value: Any, place: str) -> None:
    """Numbers, texts and null in objects and lists."""
    if isinstance(value, Mapping):
        mapping(_nested)(value, place)
    elif isinstance(value, list | tuple):
        rows(_nested)(value, place)
    else:
        plain(value, place)


def _axis(value: Any, place: str) -> None:
    choice(*AXES)(value, place)


_COUNTS = dict.fromkeys(("n", "n_ok", "n_edge", "n_runs", "n_seeds", "n_diverged", "n_failed", "n_points"), _ERROR)
_SHAPES = dict.fromkeys(("loss_opt", "best_loss", "curvature", "interaction"), _ANY)
_TEXTS = dict.fromkeys(("why", "unit", "path", "verdict", "status", "proxy_status", "transferred_from"), _WORDS)
_RIDGE = ("ridge_slope", "ridge_angle", "ridge_length", "ridge_noise_length")
_MEASURED: dict[str, Check] = {
    **{name: _number_in(field.within) for name, field in fields_of(Trial).items() if field.within},
    "scheme": choice(*SCHEMES),
    "best_scheme": optional(choice(*SCHEMES)),
    "hyperparameter": _hyperparameters,
    "over": _hyperparameters,
    "along": _axis,
    "interval": _INTERVAL,
    "refused": optional(number(0, 1)),
    "correlation": optional(number(-1, 1)),
    **_COUNTS,
    **_SHAPES,
    **_TEXTS,
    **dict.fromkeys((*_RIDGE, "ellipse_major", "ellipse_minor", "ellipse_angle", "drift", "low", "high"), _ANY),
    **dict.fromkeys(("first", "last", "tuned_value", "proxy_value", "transferred_value", "best_value"), _VALUE),
    **dict.fromkeys(("loss_opt_se", "tuned_loss_se"), _ERROR),
    **dict.fromkeys(("tuned_loss", "transferred_loss", "regret", "regret_low", "regret_high"), _ANY),
    **dict.fromkeys(("curvature_low", "curvature_high", "octaves", "gain", "gain_low", "gain_high"), _ANY),
    **dict.fromkeys(("constant_value", "along_value", "along_value_low", "along_value_high"), _VALUE),
    **{f"{way}_{what}": _ANY for way in ("constant", "along") for what in ("loss", "regret", "low", "high")},
    **dict.fromkeys(("drift_low", "drift_high"), _ANY),
    **dict.fromkeys(("constant_from", "along_from", "better"), _WORDS),
}  # fmt: skip
"""What the tables that a card carries have in their columns, missing as null."""

_DRIFT = table(
    _MEASURED,
    others=plain,
    **{name: _MEASURED[name] for name in ("along", "drift", "low", "high")},
    verdict=text,
    interval=_INTERVAL,
)
_ROWS = rows(table(_MEASURED, others=plain))


def _of_optimum() -> dict[str, Check]:
    """What else is said of the optimum of one hyperparameter, or of each of two."""
    octaves = {f"log2_{end}": _OCTAVES for end in ("opt", "low", "high")}
    both: dict[str, Check] = {}
    for name in TUNED:
        both |= {f"{name}_{end}": _VALUE for end in ("opt", "low", "high")}
        both |= {f"log2_{name}_{end}": _OCTAVES for end in ("opt", "low", "high")}
        both |= {f"curvature_{name}": _ANY, f"best_{name}": _VALUE, f"status_{name}": _STATUS}
    return {**_MEASURED, **octaves, **both, "window": _window}


CARD = table(
    scheme=choice(*SCHEMES),
    target=table(**_SHAPE, tokens=optional(_field("tokens"))),
    proxy=table(**_SHAPE, **_fields("steps", "tokens", *SETTINGS)),
    base=table(**_fields(*TUNED)),
    optimum=table(
        _of_optimum(),
        hyperparameter=_hyperparameters,
        opt=optional(_POSITIVE),
        low=optional(_POSITIVE),
        high=optional(_POSITIVE),
        status=_STATUS,
        interval=_INTERVAL,
        others=plain,
    ),
    uncertainty=optional(number(0)),
    kinds=table(**dict.fromkeys(CARD_KINDS, _NUMBERS)),
    attention_scale=number(0),
    readout_multiplier=number(0),
    alpha_input=_POSITIVE,
    alpha_output=_POSITIVE,
    embedding_lr_mult=_field("embedding_lr_mult"),
    optimizer=table(
        name=choice("AdamW"),
        **_fields("weight_decay", *OPTIMIZER),
    ),
    schedule=table(**_fields(*SCHEDULE)),
    mask=table(seed=_field("seed"), density=_field("density"), kinds=rows(choice(*CARD_KINDS), least=1)),
    tensors=rows(_TENSOR),  # none, and no sizes, of a model of the user's own
    sizes=mapping(_COUNT),
    evidence=table(
        {"never_tuned": mapping(number(0))},  # cards of before have none
        trial_ids=rows(text),
        seeds=_COUNT,
        data_hash=text,
        hpsweep_versions=rows(text),
        commits=rows(text),
    ),
    drift=rows(_DRIFT),
    along_drift=table(
        recommended=text,
        carried=choice("constant", "drift"),
        value=optional(_POSITIVE),
        low=optional(_POSITIVE),
        high=optional(_POSITIVE),
        why=text,
        axes=_ROWS,
        held_out=_ROWS,
    ),
    comparison=_ROWS,
    findings=rows(table(code=text, axis=text, scheme=text, numbers=_nested)),
    warnings=rows(text),
    schema_version=whole(1),
)  # fmt: skip
"""The check of a whole card."""
