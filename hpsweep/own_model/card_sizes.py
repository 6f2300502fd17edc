"""The check that a plan has the sizes that a card is for. A card's own plan, and exported scripts, call it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpsweep.architectures import SPARSE, kept_count
from hpsweep.own_model.data import EVERY, PlanData
from hpsweep.schemes import scales_width
from hpsweep.spec import BEFORE

_SAME = 1e-9  # relative


def check_plan(
    plan: PlanData,
    target: Mapping[str, Any],
    *,
    m_d: float,
    readout: float,
    base_head_size: int = BEFORE["base_head_size"],
) -> None:
    """Raise ValueError where a plan's tensors have other widths, density, depth or readout multiplier than a card's.

    `target` is the card's. The width is that of the module if any hidden matrix has it as its fan-in. And where its
    attention is scaled from another base head size, as by scripts of cards that did not say one yet.
    """
    width, density, depth = target["width"], target["density"], target["depth"]
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
        if tensor.kind in SPARSE and tensor.nonzeros != kept_count(math.prod(tensor.shape), density):
            raise ValueError(
                f"{name} has density {tensor.density:g}, and the card's hidden matrices {density:g}; leave density, "
                f"include and exclude to the card. {otherwise}"
            )
    for name, tensor in plan.tensors.items():
        factor = tensor.forward if tensor.kind == "readout" else tensor.readout_forward
        if factor is not None and not math.isclose(factor, readout, rel_tol=_SAME):
            raise ValueError(f"{name} as the readout has multiplier {factor:g}, and the card {readout:g}; {sizes}")
    if scales_width(plan.scheme) and plan.base_head_sizes != {EVERY: base_head_size}:
        told = ", ".join(map(str, plan.base_head_sizes.values())) or "that is not known"
        raise ValueError(
            f"attention is scaled from a base head size {told}, and the card's from {base_head_size}: leave it to the "
            f"card, and export a script of an earlier hpsweep anew. {otherwise}"
        )
    writers = sum(tensor.kind == "residual_out" for tensor in plan.tensors.values())
    if writers != 2 * depth:
        raise ValueError(
            f"{writers} tensors are residual_out, and the card's {depth} blocks have {2 * depth}: name the matrices "
            f"that write into the residual stream, such as kinds={{'*.c_proj.weight': 'residual_out'}}. {otherwise}"
        )
