"""A plan with what it does to a module: initial weights, forward multipliers, parameter groups, and masks that hold.

    plan = hpsweep.parametrize(model, "supar", base=narrow_model, density=1 / 16)
    print(plan)
    plan.init_(model, init_std=0.08, seed=0)
    print(plan.wire_(model, inputs))
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=2**-7, weight_decay=0.1))
    plan.attach(model, optimizer)

What a plan holds is `PlanData`; what acts on a module takes that, and these methods call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hpsweep.own_model.apply import attached, initial
from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward import wiring
from hpsweep.own_model.forward.ends import check_given_data
from hpsweep.rules.multipliers import OptimizerRule


class Plan(PlanData):
    """The tensors of a model by name, under one scheme, and what they ask of the model and its optimizer.

    `parametrize` makes it. It is plain data: see `to_dict`, `from_dict`, and `state_dict` for checkpoints.
    """

    def init_(self, model: nn.Module, *, init_std: float, seed: int, leave: str | Iterable[str] = ()) -> None:
        """Fill every parameter: unit normals by (seed, tensor name) times init_std, its multiplier and its mask.

        Norms and biases are filled with `init_mean`, the rows of padding tokens with zero; what is of kind "keep", or
        does not train, stays as it is. `leave` are patterns of tensors whose values stay too, but for their masks.
        `init_std` is the base value. Works on whole and on sharded (FSDP2) parameters; each rank fills its own part
        with the same numbers.
        """
        initial.init_(self, model, init_std=init_std, seed=seed, leave=leave)

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
        check_given_data(self, model, inputs)
        return wiring.wire_(self, model, inputs, queries=queries, leave=leave)

    def param_groups(
        self, model: nn.Module, *, lr: float, weight_decay: float = 0.0, eps: float | None = None
    ) -> list[dict[str, Any]]:
        """Parameter groups for a torch optimizer: tensors that share their multipliers, with lr, weight_decay and eps.

        The arguments are base values. Weight decay is meant as AdamW and SGD apply it, times the learning rate. Without
        `eps` groups have none, and the optimizer's own holds for all. Schedulers that multiply keep the ratios.
        """
        return initial.param_groups(self, model, lr=lr, weight_decay=weight_decay, eps=eps)

    def masks(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """True where a weight exists, for every sparse tensor, on its device and sharded as it is."""
        return initial.masks_of(self, model)

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
