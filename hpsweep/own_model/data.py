"""What a plan holds: what every tensor of a torch module is to the rules, and its multipliers. No torch is needed.

The numbers are those of `rules` for base values of 1, so that a plan multiplies whatever base learning rate, init std
and weight decay are given later. `plan.Plan` adds what acts on a module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hpsweep.architectures import Kind
from hpsweep.rules import masks
from hpsweep.rules.multipliers import OptimizerRule, logit_scale
from hpsweep.schemes import Scheme, scales_width
from hpsweep.spec import WeightDecayRule

EVERY = "*"
"""The key of a base head size that was given, and holds for any head size of the model."""

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
class PlanData:
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
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = []
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            table.append("  ".join(cells).rstrip())
        title = f"{self.scheme} for {self.optimizer}, weight decay {self.weight_decay_rule}, plan {self.hash}"
        notes = [f"warning: {warning}" for warning in self.warnings]
        if self.forward_multipliers:
            factors = ", ".join(f"{name} {factor:.4g}" for name, factor in self.forward_multipliers.items())
            notes.append(f"wire_ has the model multiply, in training and evaluation: {factors}")
        if scales_width(self.scheme):
            notes.append(f"wire_ has the model scale attention logits, if it has any, by {self._attention_text()}")
        if not any(tensor.kind == "residual_out" for tensor in self.tensors.values()):
            notes.append("no tensor is residual_out: all hidden matrices begin at one init std (see kinds=)")
        return "\n".join([title, *table, *notes])

    def _attention_text(self) -> str:
        alpha = "" if self.alpha_attention == 1 else f"{self.alpha_attention:g} "
        bases = []
        for size, base in self.base_head_sizes.items():
            bases.append(str(base) if size == EVERY else f"{base} (heads of {size})")
        listed = ", ".join(bases) or "not known: give base_head_size="
        return f"{alpha}sqrt(base head size) / head size, base head size {listed}"

    def attention_scale(self, head_size: int) -> float:
        """The factor of attention logits at a head size of the model; NaN where that of the base is not known."""
        base = self.base_head_sizes.get(EVERY, self.base_head_sizes.get(str(head_size)))
        if base is None and scales_width(self.scheme):
            return math.nan
        return logit_scale(self.scheme, head_size, base=base or head_size, alpha=self.alpha_attention)

    @property
    def forward_multipliers(self) -> dict[str, float]:
        """Name of a tensor's use -> its forward multiplier, where that is not 1; a tied readout has its own name."""
        factors = {}
        for first, tensor in self.tensors.items():
            for name in (first, *tensor.tied):
                factor = tensor.readout_forward if name in tensor.readouts else tensor.forward
                if factor is not None and factor != 1.0:
                    factors[name] = factor
        return factors

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
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
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
                digest.update(np.packbits(tensor_mask(self, name)).tobytes())
        return digest.hexdigest()[:16]

    def is_sparse(self, name: str) -> bool:
        """Whether the tensor has a mask."""
        return self.tensors[name].nonzeros < math.prod(self.tensors[name].shape)

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
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The plan in a checkpoint, verified; no base model is needed. Raises ValueError for what is none."""
        plan = cls._stored(state)
        plan.load_state_dict(state)
        return plan

    @classmethod
    def _stored(cls, state: Mapping[str, Any]) -> Self:
        """The plan in a checkpoint, as it was saved."""
        if not isinstance(state, Mapping):
            raise ValueError(f"the state is {type(state).__name__}; give what plan.state_dict() returned.")
        missing = [name for name in ("plan", "hash", "mask_hash") if name not in state]
        if missing:
            raise ValueError(f"the state has no {', '.join(missing)}; give what plan.state_dict() returned.")
        stored = cls.from_dict(state["plan"])
        if stored.hash != state["hash"]:
            raise ValueError(
                f"the checkpoint's plan has hash {stored.hash}, and was saved as {state['hash']}: it was changed in "
                "the checkpoint. Go on from one that was not."
            )
        return stored

    def _difference(self, stored: PlanData) -> str:
        """The first of two plans of unlike hashes."""
        ours = dataclasses.asdict(self)
        theirs = dataclasses.asdict(stored)
        if ours["base_head_sizes"] != theirs["base_head_sizes"]:
            return f"it scales attention by {stored._attention_text()}, here by {self._attention_text()}"
        for name in ours:
            if name not in ("tensors", "warnings") and ours[name] != theirs[name]:
                return f"its {name} is {theirs[name]!r}, here {ours[name]!r}"
        for name in {**ours["tensors"], **theirs["tensors"]}:
            here = ours["tensors"].get(name)
            there = theirs["tensors"].get(name)
            if here is None or there is None:
                return f"only one of them has {name}"
            for field in here:
                if here[field] != there[field]:
                    return f"{name} has {field} {there[field]!r}, here {here[field]!r}"
        return "the same numbers are written in another way"


def stream_name(name: str) -> str:
    """The name that a tensor's random numbers are drawn by: the module's. A module whose layers are called as the
    proxy's tensors begins as the proxy does.
    """
    return name.removesuffix(".weight")


def tensor_mask(plan: PlanData, name: str) -> npt.NDArray[np.bool_]:
    """Where the weights of a tensor exist."""
    return masks.mask(plan.seed, stream_name(name), plan.tensors[name].shape, plan.tensors[name].density)


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
