"""A plan: what every tensor of a torch module is to the rules, and its multipliers, as plain data.

    plan = hpsweep.parametrize(model, "supar", base=narrow_model, density=1 / 16)
    print(plan)
    plan.init_(model, init_std=0.08, seed=0)
    print(plan.wire_(model, inputs))
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=2**-7, weight_decay=0.1))
    plan.attach(model, optimizer)

The numbers are those of `rules` for base values of 1, so that a plan multiplies whatever base learning rate, init std
and weight decay are given later.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from hpsweep.own_model.apply import attached, given
from hpsweep.own_model.apply import values as apply
from hpsweep.own_model.forward import wiring
from hpsweep.own_model.tensors.head_sizes import EVERY
from hpsweep.rules.multipliers import Kind, OptimizerRule, logit_scale
from hpsweep.spec import Scheme, WeightDecayRule

PLAN_VERSION = 2
"""Raised when a field of the plan changes its meaning or is added."""

BEFORE: dict[int, dict[str, Any]] = {1: {"alpha_attention": 1.0, "base_head_sizes": {EVERY: 1}}}
"""By an earlier version: the fields that it had not, and what all plans were until then. Such plans keep their hash."""


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """One tensor: what it is, and what its base values are multiplied by. Missing is None.

    `tied` are the other names of the same tensor, `readouts` those by which a tied embedding is the readout. `density`
    is `nonzeros` over its size, and m_rho is counted from it. `init_mean` is the constant at which norms and biases
    begin, None of what begins as it is built. `forward` multiplies what the tensor gives, `readout_forward` what a tied
    embedding gives in its second use: `Plan.wire_` has a model apply them.
    """

    tied: tuple[str, ...]
    readouts: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind
    fan_in: int | None
    nonzero_fan_in: float | None
    nonzeros: int
    density: float
    m_d: float
    m_rho: float
    init_mean: float | None
    init_std: float
    lr: float
    weight_decay: float
    eps: float
    forward: float
    readout_forward: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The tensors of a model by name, under one scheme. `seed` is that of the masks.

    `base_head_sizes` has the base's head size by that of an attention of the model, or one for all, by "*".
    """

    scheme: Scheme
    optimizer: OptimizerRule
    weight_decay_rule: WeightDecayRule
    base_density: float
    seed: int
    tensors: dict[str, TensorPlan]
    warnings: tuple[str, ...] = ()
    alpha_attention: float
    base_head_sizes: dict[str, int]

    def __hash__(self) -> int:
        return hash(self.hash)

    def __str__(self) -> str:
        """A table with one line per tensor; multipliers of the base values."""
        columns = (
            "kind",
            "fan_in",
            "nonzero_fan_in",
            "m_d",
            "m_rho",
            "init_std",
            "lr",
            "weight_decay",
            "eps",
            "forward",
        )
        rows: list[tuple[str, ...]] = [("tensor", *columns)]
        for name, tensor in self.tensors.items():
            cells = [_cell(getattr(tensor, column)) for column in columns]
            if tensor.readout_forward is not None:
                cells[-1] += f", {tensor.readout_forward:.4g}"
            rows.append((" = ".join((name, *tensor.tied)), *cells))
        wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]
        title = f"{self.scheme} for {self.optimizer}, weight decay {self.weight_decay_rule}, plan {self.hash}"
        notes = [f"warning: {warning}" for warning in self.warnings]
        if forward := self.forward_multipliers:
            told = ", ".join(f"{name} {factor:.4g}" for name, factor in forward.items())
            notes.append(f"wire_ has the model multiply, in training and evaluation: {told}")
        if self.scheme != "sp":
            notes.append(f"wire_ has the model scale attention logits, if it has any, by {self._attention_text()}")
        if not any(tensor.kind == "residual_out" for tensor in self.tensors.values()):
            notes.append("no tensor is residual_out: all hidden matrices begin at one init std (see kinds=)")
        return "\n".join([title, *table, *notes])

    def _attention_text(self) -> str:
        alpha = "" if self.alpha_attention == 1 else f"{self.alpha_attention:g} "
        told = ", ".join(
            f"{base}{'' if size == EVERY else f' (heads of {size})'}" for size, base in self.base_head_sizes.items()
        )
        return f"{alpha}sqrt(base head size) / head size, base head size {told or 'not known: give base_head_size='}"

    def attention_scale(self, head_size: int) -> float:
        """The factor of attention logits at a head size of the model; NaN where that of the base is not known."""
        base = self.base_head_sizes.get(EVERY, self.base_head_sizes.get(str(head_size)))
        if base is None and self.scheme != "sp":
            return math.nan
        return logit_scale(self.scheme, head_size, base=base or head_size, alpha=self.alpha_attention)

    @property
    def forward_multipliers(self) -> dict[str, float]:
        """Name of a tensor's use -> its forward multiplier, where that is not 1; a tied readout has its own name."""
        factors = {
            name: tensor.readout_forward if name in tensor.readouts else tensor.forward
            for first, tensor in self.tensors.items()
            for name in (first, *tensor.tied)
        }
        return {name: factor for name, factor in factors.items() if factor is not None and factor != 1.0}

    def to_dict(self) -> dict[str, Any]:
        """Plain data: dictionaries, lists, strings and numbers; what an earlier version can say is said as it did."""
        fields = dataclasses.asdict(self)
        for version, before in BEFORE.items():
            if all(fields[name] == value for name, value in before.items()):
                left = {name: value for name, value in fields.items() if name not in before}
                return dict(json.loads(json.dumps({"version": version, **left})))
        return dict(json.loads(json.dumps({"version": PLAN_VERSION, **fields})))

    def to_json(self) -> str:
        """The plan as JSON text; floats in their shortest exact form."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` gave; raises ValueError for one of another version."""
        version = values.get("version")
        if type(version) is not int or version not in (*BEFORE, PLAN_VERSION):
            raise ValueError(
                f"the plan is of version {version}; this hpsweep reads up to {PLAN_VERSION}: make it anew, or upgrade."
            )
        fields = {**BEFORE.get(version, {}), **{name: value for name, value in values.items() if name != "version"}}
        lists = ("tied", "readouts", "shape")
        try:
            tensors = {
                name: TensorPlan(**{**tensor, **{field: tuple(tensor[field]) for field in lists}})
                for name, tensor in values["tensors"].items()
            }
            _check_attention(fields["alpha_attention"], fields["base_head_sizes"])
            return cls(**{**fields, "tensors": tensors, "warnings": tuple(values["warnings"])})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"the plan is not one that Plan.to_dict() gave ({error!r}); make it anew.") from None

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits, equal for equal plans on any machine."""
        text = json.dumps({**self.to_dict(), "warnings": []}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def mask_hash(self) -> str:
        """16 hexadecimal digits of the bits of all masks."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            if tensor.nonzeros < math.prod(tensor.shape):
                digest.update(name.encode())
                digest.update(np.packbits(apply.mask(self, name)).tobytes())
        return digest.hexdigest()[:16]

    def init_(self, model: nn.Module, *, init_std: float, seed: int, leave: str | Iterable[str] = ()) -> None:
        """Fill every parameter: unit normals by (seed, tensor name) times init_std, its multiplier and its mask.

        Norms and biases are filled with `init_mean`, the rows of padding tokens with zero; what is of kind "keep", or
        does not train, stays as it is. `leave` are patterns of tensors whose values stay too, but for their masks.
        `init_std` is the base value. Works on whole and on sharded (FSDP2) parameters; each rank fills its own part
        with the same numbers.
        """
        apply.init_(self, model, init_std=init_std, seed=seed, leave=leave)

    def wire_(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        queries: str | Iterable[str] | Mapping[str, slice] = (),
        leave: str | Iterable[str] = (),
    ) -> wiring.Wiring:
        """Put forward multipliers and attention scales in force, verify them on a batch of inputs, and say how.

        `inputs` is what the model is called with: a tensor, a tuple, or a mapping of keywords; a few sequences do.
        Every factor is measured, not assumed: see `probe`. Call it after `init_`, and again after a model was loaded or
        copied; `attach` asks for it under mup and supar. What the model has right already stays as it is.

        queries  pattern of layers that return an attention's queries, or pattern -> slice of their output's features,
                 where the scale cannot be set otherwise: queries are then multiplied
        leave    patterns of factors that are left as they are, by the names in the returned table: those that the
                 model's own code sees to where it cannot be measured

        Raises ValueError, and changes nothing, for factors that cannot be measured or set, and for layers that the plan
        takes for inputs of the model and that are given what other layers have made.
        """
        given.check_given_data(self, model, inputs)
        return wiring.wire_(self, model, inputs, queries=queries, leave=leave)

    def param_groups(
        self, model: nn.Module, *, lr: float, weight_decay: float = 0.0, eps: float | None = None
    ) -> list[dict[str, Any]]:
        """Parameter groups for a torch optimizer: tensors that share their multipliers, with lr, weight_decay and eps.

        The arguments are base values. Weight decay is meant as AdamW and SGD apply it, times the learning rate. Without
        `eps` groups have none, and the optimizer's own holds for all. Schedulers that multiply keep the ratios.
        """
        return apply.param_groups(self, model, lr=lr, weight_decay=weight_decay, eps=eps)

    def masks(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """True where a weight exists, for every sparse tensor, on its device and sharded as it is."""
        return {
            name: apply.like(torch.from_numpy(apply.mask(self, name)), parameter)
            for name, parameter in apply.parameters(self, model).items()
            if self.is_sparse(name)
        }

    def is_sparse(self, name: str) -> bool:
        """Whether the tensor has a mask."""
        return self.tensors[name].nonzeros < math.prod(self.tensors[name].shape)

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        rule: OptimizerRule | None = None,
    ) -> attached.Attached:
        """Keep pruned weights exactly zero, and the ratios of rates, decays and eps checked, now and at every step.

        Call it after wrapping, sharding and moving the model, and after a checkpoint is loaded. Gradients of pruned
        weights are zeroed where they arrive, before they are clipped, and pruned weights after every step of the
        optimizer. Several optimizers are given as a list, each tensor in one of them; each has a base rate of its own.
        A wrapper that keeps an optimizer as `optimizer`, as accelerate's does, is that optimizer. `rule` says what an
        optimizer of a class that hpsweep does not know follows.

        Raises ValueError, now or before a step, if no optimizer has a tensor, one follows other rules than the plan,
        values of the model are not finite, a pruned weight is not zero, or `wire_` was not called.
        """
        return attached.attach(self, model, optimizer, rule)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the plan, its hash, and the hash of its masks."""
        return {"plan": self.to_dict(), "hash": self.hash, "mask_hash": self.mask_hash}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Verify that a checkpoint was made under this plan; raises ValueError with the first difference."""
        stored = self._stored(state)
        if stored.hash != self.hash:
            raise ValueError(
                f"the checkpoint was made under plan {state['hash']}, this is {self.hash}: {self._difference(stored)}. "
                "Go on with Plan.from_state_dict(state), or with the settings that it was made with."
            )
        if state["mask_hash"] != self.mask_hash:
            raise ValueError(
                f"the checkpoint's masks have hash {state['mask_hash']}, those of this plan {self.mask_hash}, though "
                "the plans are equal: the checkpoint was changed, or made by another version of hpsweep."
            )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Plan:
        """The plan in a checkpoint, verified; no base model is needed."""
        plan = cls._stored(state)
        plan.load_state_dict(state)
        return plan

    @classmethod
    def _stored(cls, state: Mapping[str, Any]) -> Plan:
        """The plan in a checkpoint, as it was saved."""
        if not isinstance(state, Mapping) or (missing := [n for n in ("plan", "hash", "mask_hash") if n not in state]):
            told = f"has no {', '.join(missing)}" if isinstance(state, Mapping) else f"is {type(state).__name__}"
            raise ValueError(f"the state {told}; give what plan.state_dict() returned.")
        stored = cls.from_dict(state["plan"])
        if stored.hash != state["hash"]:
            raise ValueError(
                f"the checkpoint's plan has hash {stored.hash}, and was saved as {state['hash']}: it was changed in "
                "the checkpoint. Go on from one that was not."
            )
        return stored

    def _difference(self, stored: Plan) -> str:
        """The first of two plans of unlike hashes."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(stored)
        if ours["base_head_sizes"] != theirs["base_head_sizes"]:
            return f"it scales attention by {stored._attention_text()}, here by {self._attention_text()}"
        for name in ours:
            if name not in ("tensors", "warnings") and ours[name] != theirs[name]:
                return f"its {name} is {theirs[name]!r}, here {ours[name]!r}"
        for name in {**ours["tensors"], **theirs["tensors"]}:
            here, there = ours["tensors"].get(name), theirs["tensors"].get(name)
            if here is None or there is None:
                return f"only one of them has {name}"
            for field in here:
                if here[field] != there[field]:
                    return f"{name} has {field} {there[field]!r}, here {here[field]!r}"
        return "the same numbers are written in another way"


def _check_attention(alpha: object, base_head_sizes: Mapping[str, object]) -> None:
    """Raise ValueError for what can be no scale of attention logits."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise ValueError(f"the plan has alpha_attention {alpha!r}; allowed: above 0. Make it anew.")
    for size, base in base_head_sizes.items():
        if type(base) is not int or base < 1:
            raise ValueError(f"the plan has base head size {base!r} at {size!r}; allowed: from 1 up. Make it anew.")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
