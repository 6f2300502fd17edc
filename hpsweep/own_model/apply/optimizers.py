"""Which rules an optimizer follows: those of Adam, of SGD, or none that is known here.

Adam's rules hold where the size of a weight's update does not depend on the size of its gradient; SGD's where the
update is proportional to the gradient. Classes are known by name, so that none of their packages is imported; a
subclass is what its base is. docs/own_model.md has the table with the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hpsweep.rules.multipliers import OptimizerRule

RULE_OF: dict[str, OptimizerRule] = {
    **dict.fromkeys(
        ("adam", "adamw", "nadam", "radam", "adamax", "rmsprop", "adagrad", "sparseadam", "lion", "ademamix"), "adam"
    ),
    **dict.fromkeys(("sgd", "asgd"), "sgd"),
}
"""Names of classes in small letters, without `_VARIANT`."""

_VARIANT = re.compile(r"^(paged|fused|deepspeedcpu|_)+|(8bit|4bit|32bit|fp8|schedulefree(reference|closure)?)+$")
"""What packages add to the name of an optimizer that they run otherwise, by the same rule."""

_SHAPE = "it scales the update of a whole {what}, so that a weight's update does not follow from its own rate"
NO_RULE: dict[str, str] = {
    "muon": "it makes the update of a whole matrix orthogonal, so that its size goes by the matrix's shape, and a mask "
    "applied to it afterwards changes it in no single power of the density",
    "adafactor": "it multiplies the rate by the size of the weights, which the rules scale already",
    "adadelta": "its eps is both the unit of its steps and what squared gradients, which shrink with width, are "
    "compared with",
    "rprop": "lr is only where its steps begin: they grow and shrink between fixed bounds, whatever the plan's rates "
    "or a scheduler say",
    "lbfgs": "it takes one step along its own estimate of the curvature of all parameters together, at one lr for all",
    "lamb": _SHAPE.format(what="layer by the size of its weights"),
    "lars": _SHAPE.format(what="layer by the size of its weights"),
    "novograd": _SHAPE.format(what="layer by the norm of its gradient"),
    "shampoo": _SHAPE.format(what="matrix by its rows and columns"),
    "soap": _SHAPE.format(what="matrix by its rows and columns"),
    "prodigy": "it estimates the learning rate itself, from all parameters of the model at hand",
    "dadaptadam": "it estimates the learning rate itself, from all parameters of the model at hand",
    "dadaptsgd": "it estimates the learning rate itself, from all parameters of the model at hand",
}
"""Names as in `RULE_OF` -> why neither rule holds."""

_DECOUPLED = ("adamw", "lion", "ademamix")
"""Adam's relatives whose weight decay is no part of the gradient, whatever their settings."""


def unwrapped_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside accelerate's, Lightning's and others' wrappers, which keep it as `optimizer`.

    Raises ValueError for what is no torch optimizer.
    """
    inner = optimizer
    while hasattr(below := getattr(inner, "optimizer", None), "param_groups"):
        inner = below
    if not isinstance(inner, torch.optim.Optimizer) or not hasattr(inner, "_optimizer_step_pre_hooks"):
        raise ValueError(
            f"the optimizer is {_told(optimizer)}; give a torch.optim.Optimizer, such as "
            "torch.optim.AdamW(plan.param_groups(model, lr=...)), or a list of several."
        )
    return inner


def _told(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return f"of type {type(given).__name__}"


def check_rule(plan_rule: OptimizerRule, optimizer: torch.optim.Optimizer, said: str | None) -> None:
    """Raise ValueError unless the optimizer follows the plan's rules; `said` is the user's word for it."""
    name = type(optimizer).__name__
    known = _known_name(optimizer)
    instead = "SGD"
    if plan_rule == "adam":
        instead = "AdamW"
    if said is None and known in NO_RULE:
        raise ValueError(f"hpsweep has no rule for {name}: {NO_RULE[known]}. Train all tensors with {instead}.")
    rule = said or RULE_OF.get(known or "")
    if rule is None:
        raise ValueError(
            f"hpsweep does not know which rules {name} follows. If no weight's update changes when all gradients are "
            "10 times as large (Adam, Lion), say attach(..., rule='adam'); if every update is then 10 times as large "
            f"(SGD), rule='sgd'; if neither, the plan does not hold for it: train with {instead}."
        )
    if rule != plan_rule:
        raise ValueError(
            f"the plan is for {plan_rule}, and {name} is not: its rates follow other rules. Make the plan by "
            f"parametrize(..., optimizer={rule!r}), or train with {instead}."
        )


def check_optimizer_settings(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for settings under which an optimizer no longer follows its rule."""
    name, known = type(optimizer).__name__, _known_name(optimizer)
    for group in optimizer.param_groups:
        decay = float(group.get("weight_decay") or 0.0)
        if decay and RULE_OF.get(known or "") == "adam" and not _is_decoupled(optimizer, known, group):
            flag = "decoupled_weight_decay=True" if "decoupled_weight_decay" in group else "weight_decay=0"
            raise ValueError(
                f"{name} adds its weight decay {decay:g} to the gradient, which shrinks with width while the weights "
                f"do not: beside it the decay would grow. Give {flag}, or train with AdamW."
            )
        if known == "adagrad" and group.get("initial_accumulator_value"):
            raise ValueError(
                f"{name} begins with a sum of squared gradients of {group['initial_accumulator_value']:g}, beside "
                "which gradients vanish as they shrink with width. Give initial_accumulator_value=0."
            )
        if known == "asgd" and group.get("lambd"):
            raise ValueError(
                f"{name} lets its rate fall by lr / (1 + lambd lr step) ** alpha, with lambd {group['lambd']:g} faster "
                "for larger rates, so that their ratios do not last. Give lambd=0, and a scheduler."
            )


def _known_name(optimizer: torch.optim.Optimizer) -> str | None:
    """The name by which the tables know the optimizer's class, or one that it is derived from; else None."""
    inside = getattr(optimizer, "optim", None)  # ZeroRedundancyOptimizer's part on this rank
    if isinstance(inside, torch.optim.Optimizer):
        optimizer = inside
    for one in type(optimizer).__mro__:
        name = _VARIANT.sub("", one.__name__.lower())
        if name in RULE_OF or name in NO_RULE:
            return name
    return None


def _is_decoupled(optimizer: Any, known: str | None, group: Mapping[str, Any]) -> bool:
    """Whether weight decay is applied to the weights themselves, times the rate."""
    told = (
        group.get("decoupled_weight_decay"),
        getattr(optimizer, "adam_w_mode", None),
    )  # torch's; apex's, deepspeed's
    schedule_free = "ScheduleFree" in type(optimizer).__name__
    return schedule_free or known in _DECOUPLED or any(told)


def unwrapped_optimizers(optimizer: Any) -> Sequence[torch.optim.Optimizer]:
    """The optimizers, unwrapped, of one or a list of several."""
    several = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    if not several:
        raise ValueError("the list of optimizers is empty; give all that train the model.")
    return [unwrapped_optimizer(one) for one in several]
