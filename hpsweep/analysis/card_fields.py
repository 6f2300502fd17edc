"""What every field of a card may hold; a card is checked by this table when it is read, trained or exported."""

from __future__ import annotations

from typing import Any, get_args

from hpsweep.parametrization.rules import Kind
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
from hpsweep.spec import DECLARED, RANGES, TUNED, Scheme, WeightDecayRule

KINDS = tuple(kind for kind in get_args(Kind) if kind != "keep")
"""Of the reference GPT's tensors, all of which are drawn or filled."""

_POSITIVE = number(0, ends="(]")
_COUNT = whole(0)


def _field(name: str) -> Check:
    """A field of a trial, a whole number or any, within the trial's own range."""
    low, high, low_in, high_in = RANGES[name]
    if "int" in DECLARED.get(name, "int"):  # the vocabulary is of the data, and no field of a trial
        return whole(int(low), int(high) - (not high_in))
    return number(low, high, ends=("[" if low_in else "(") + ("]" if high_in else ")"))


def _fields(*names: str) -> dict[str, Check]:
    return {name: _field(name) for name in names}


def _hyperparameters(value: Any, place: str) -> None:
    """One tuned hyperparameter or two, with a comma between them."""
    text(value, place)
    for name in value.split(","):
        choice(*TUNED)(name, place)


_SHAPE = {**_fields("width", "density", "depth", "head_size", "context", "vocabulary"), "tied": truth}
_NUMBERS = table(
    m_d=_POSITIVE,
    m_rho=_POSITIVE,
    init_std=number(0),
    lr=number(0),
    weight_decay=number(0),
    forward=number(0),
)
_TENSOR = table(name=text, shape=rows(whole(1), least=1), kind=choice(*KINDS), nonzeros=_COUNT)
_ROWS = rows(mapping(plain))

CARD = table(
    scheme=choice(*get_args(Scheme)),
    target=table(**_SHAPE, tokens=optional(_field("tokens"))),
    proxy=table(
        **_SHAPE,
        **_fields("batch", "steps", "tokens", "base_width", "base_density", "base_head_size"),
        data=text,
    ),
    base=table(**_fields(*TUNED)),
    optimum=table(
        hyperparameter=_hyperparameters,
        opt=optional(_POSITIVE),
        low=optional(_POSITIVE),
        high=optional(_POSITIVE),
        status=text,
        interval=optional(text),
        others=plain,
    ),
    uncertainty=optional(number(0)),
    kinds=table(**dict.fromkeys(KINDS, _NUMBERS)),
    attention_scale=number(0),
    readout_multiplier=number(0),
    alpha_input=_POSITIVE,
    alpha_output=_POSITIVE,
    embedding_lr_mult=_field("embedding_lr_mult"),
    optimizer=table(
        name=choice("AdamW"),
        weight_decay_rule=choice(*get_args(WeightDecayRule)),
        **_fields("weight_decay", "beta1", "beta2", "eps", "clip"),
    ),
    schedule=table(**_fields("warmup_fraction", "final_lr_fraction")),
    mask=table(seed=_field("seed"), density=_field("density"), kinds=rows(choice(*KINDS), least=1)),
    tensors=rows(_TENSOR, least=1),
    sizes=table(
        parameters=_COUNT, embedding_parameters=_COUNT, hidden_parameters=_COUNT, hidden_nonzeros=_COUNT
    ),
    evidence=table(
        {"never_tuned": mapping(number(0))},  # cards of before have none
        trial_ids=rows(text),
        seeds=_COUNT,
        data_hash=text,
        hpsweep_versions=rows(text),
        commits=rows(text),
    ),
    drift=_ROWS,
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
    warnings=rows(text),
    schema_version=whole(1),
)  # fmt: skip
"""The check of a whole card."""
