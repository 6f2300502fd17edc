"""A card on a torch module of one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from hpsweep.analysis.transfer.card import Card
from hpsweep.architectures import SPARSE, kept
from hpsweep.own_model.data import EVERY
from hpsweep.own_model.parametrize import parametrize
from hpsweep.own_model.plan import Plan
from hpsweep.schemes import scales_width
from hpsweep.spec import BEFORE
from hpsweep.text import shown

_SAME = 1e-9  # relative


def plan_from_card(card: Card, model: nn.Module, *, base: object, check: bool = True, **options: Any) -> Plan:
    """The plan of a module under the card's scheme, density, multipliers, decay rule and mask seed.

    Attention logits are scaled from the head size of the card's base model, also where that of `base` is another one.

    `base` is the same architecture at the card's base width: a module, a function that returns one, or a configuration.
    `options` are those of `parametrize` that say what tensors are, such as kinds={"*.c_proj.weight": "residual_out"}.
    The card's other numbers are given where they are used: plan.init_(model, init_std=card.base["init_std"],
    seed=card.mask["seed"]), and so on. Raises ValueError for a module whose widths, depth or density are not the
    card's; with check=False it gets the rules at its own.
    """
    if not isinstance(card, Card):
        raise ValueError(f"card is {shown(card)}; give a card, such as hp.Card.read('card.json').")
    plan = parametrize(
        model,
        card.scheme,
        base=base,
        density=card.target["density"],
        base_density=card.proxy["base_density"],
        seed=card.mask["seed"],
        alpha_input=card.alpha_input,
        alpha_attention=card.base["alpha_attention"],
        alpha_output=card.alpha_output,
        embedding_lr_mult=card.embedding_lr_mult,
        weight_decay_rule=card.optimizer["weight_decay_rule"],
        **{"base_head_size": card.proxy["base_head_size"], **options},
    )
    if check:
        check_plan(
            plan, card.target, m_d=card.kinds["hidden"]["m_d"], readout=card.readout_multiplier,
            base_head_size=card.proxy["base_head_size"],
        )  # fmt: skip
    return plan


def check_plan(
    plan: Plan, target: Mapping[str, Any], *, m_d: float, readout: float, base_head_size: int = BEFORE["base_head_size"]
) -> None:
    """Raise ValueError where a plan's tensors have other widths, density, depth or readout multiplier than a card's.

    `target` is the card's. The width is that of the module if any hidden matrix has it as its fan-in. And where its
    attention is scaled from another base head size, as by scripts of cards that did not say one yet.
    """
    width = target["width"]
    density = target["density"]
    depth = target["depth"]
    otherwise = "Or take check=False, for the rules at the module's own sizes."
    sizes = f"give a model of the card's target width and a base of its base width. {otherwise}"
    fan_ins = {tensor.fan_in for tensor in plan.tensors.values() if tensor.kind in SPARSE and tensor.fan_in}
    if width not in fan_ins:
        raise ValueError(f"no hidden matrix has fan-in {width}, the card's width; there are {sorted(fan_ins)}: {sizes}")
    for name, tensor in plan.tensors.items():
        if tensor.kind in SPARSE and not math.isclose(tensor.m_d, m_d, rel_tol=_SAME):
            raise ValueError(
                f"{name} has m_d {tensor.m_d:g} (fan-in {tensor.fan_in}), and the card's hidden matrices {m_d:g}; "
                f"{sizes}"
            )
        if tensor.kind in SPARSE and tensor.nonzeros != kept(math.prod(tensor.shape), density):
            raise ValueError(
                f"{name} has density {tensor.density:g}, and the card's hidden matrices {density:g}; leave density, "
                f"include and exclude to the card. {otherwise}"
            )
    for name, tensor in plan.tensors.items():
        factor = tensor.readout_forward  # of a tied embedding
        if tensor.kind == "readout":
            factor = tensor.forward
        if factor is not None and not math.isclose(factor, readout, rel_tol=_SAME):
            raise ValueError(f"{name} as the readout has multiplier {factor:g}, and the card {readout:g}; {sizes}")
    if scales_width(plan.scheme) and plan.base_head_sizes != {EVERY: base_head_size}:
        bases = ", ".join(map(str, plan.base_head_sizes.values())) or "that is not known"
        raise ValueError(
            f"attention is scaled from a base head size {bases}, and the card's from {base_head_size}: leave it to the "
            f"card, and export a script of an earlier hpsweep anew. {otherwise}"
        )
    writers = sum(tensor.kind == "residual_out" for tensor in plan.tensors.values())
    if writers != 2 * depth:
        raise ValueError(
            f"{writers} tensors are residual_out, and the card's {depth} blocks have {2 * depth}: name the matrices "
            f"that write into the residual stream, such as kinds={{'*.c_proj.weight': 'residual_out'}}. {otherwise}"
        )
