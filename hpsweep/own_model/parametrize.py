"""From a torch module, a base and a scheme to a plan: the same rules as the proxy's, on any model."""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Iterable, Mapping

from torch import nn

from hpsweep.architectures import SPARSE, Kind, kept_count
from hpsweep.own_model.data import EVERY, TensorPlan
from hpsweep.own_model.plan import Plan
from hpsweep.own_model.tensors.base import built_base
from hpsweep.own_model.tensors.head_sizes import base_head_sizes
from hpsweep.own_model.tensors.kinds import Derived, derived_tensors
from hpsweep.own_model.tensors.patterns import name_patterns
from hpsweep.own_model.tensors.remedies import PASTE, Besides
from hpsweep.own_model.tensors.reparametrized import own_masks
from hpsweep.own_model.tensors.uses import plain_uses, unwrapped, values_by_pattern
from hpsweep.rules.multipliers import OptimizerRule, eps_multiplier, kind_numbers
from hpsweep.schemes import Scheme, scales, scales_width
from hpsweep.spec import Trial, WeightDecayRule

FEW_INPUTS = 8
"""Nonzeros per neuron below which the rules, which average over them, become doubtful."""


def parametrize(
    model: nn.Module,
    scheme: Scheme,
    *,
    base: object,
    density: float | Mapping[str, float] = 1.0,
    include: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
    base_density: float = 1.0,
    delta: object = None,
    kinds: Mapping[str, Kind] | None = None,
    fan_in_axis: Mapping[str, int | tuple[int, ...]] | None = None,
    partial: bool = False,
    depth: int | None = None,
    optimizer: OptimizerRule = "adam",
    seed: int = 0,
    base_head_size: int | None = None,
    alpha_input: float = 1.0,
    alpha_attention: float = 1.0,
    alpha_output: float = 1.0,
    embedding_lr_mult: float = 1.0,
    weight_decay_rule: WeightDecayRule = "coupled",
) -> Plan:
    """The plan of a torch module under a scheme; the model is not changed.

    `base` is the model that was tuned: a module, a function that returns one, or a configuration for the model's class.
    `density` is one number for all hidden matrices, or one by pattern (such as "*.mlp.*") with the others dense;
    `include` and `exclude` are patterns of hidden matrices too. `delta` is the model at any other width, needed where
    model and base have the same. `kinds` and `fan_in_axis` settle by pattern what cannot be derived (a
    tuple where several dimensions are summed over); `partial` says
    that the module is a part of a model, which may lack an embedding or a readout. Mark matrices that write into the
    residual stream as "residual_out" to have their init std divided by sqrt(2 depth), where depth is half their number
    unless given. `base_head_size` is the head size of the base, from which attention is scaled; without it `wire_`
    takes what the attention modules of both models keep, or asks. `seed` draws the masks. Raises ValueError with what
    is wrong and the remedy.
    """
    unit = Trial(
        steps=1, scheme=scheme, lr=1.0, init_std=1.0, weight_decay=1.0, weight_decay_rule=weight_decay_rule, seed=seed,
        base_density=base_density, alpha_input=alpha_input, alpha_attention=alpha_attention,
        alpha_output=alpha_output, embedding_lr_mult=embedding_lr_mult,
    )  # fmt: skip
    if base_head_size is not None:
        unit = unit.replace(base_head_size=base_head_size)
    if not isinstance(partial, bool):
        raise ValueError(f"partial is {partial!r}; allowed: True, False.")
    included = _patterns(include, "include")
    excluded = _patterns(exclude, "exclude")

    def without_inputs(proposed: Mapping[str, Derived]) -> Besides:
        """What a density would do to the tensors as an error proposes them."""
        try:
            return _lacking(_chosen(model, proposed, density, included, excluded), proposed, excluded)
        except ValueError as error:
            return Besides(f"Then {error}")

    # What every tensor is
    derived = derived_tensors(
        model, base, delta=delta, kinds=kinds, fan_in_axis=fan_in_axis, partial=partial, also=without_inputs
    )
    unit = unit.replace(depth=_depth(derived, depth))
    # Which are made sparse, and what the rules make of each
    densities = _densities(model, derived, density, included, excluded)
    tensors = {name: _tensor_plan(unit, tensor, densities.get(name), optimizer) for name, tensor in derived.items()}
    # What speaks against the plan, though it can be made
    masked = _masked_twice(model, tensors)
    departing: Iterable[str] = ()
    if scales(unit.scheme):
        departing = _departing(derived, own_masks(model))
    warnings = (*_warnings(tensors), *_overwritten(derived), *masked, *departing)
    for warning in warnings:
        python_warnings.warn(warning, stacklevel=2)
    return Plan(
        scheme=unit.scheme, optimizer=optimizer, weight_decay_rule=unit.weight_decay_rule,
        base_density=unit.base_density, seed=unit.seed, tensors=tensors, warnings=warnings,
        alpha_attention=unit.alpha_attention,
        base_head_sizes=_head_sizes(unit, model, base, base_head_size),
    )  # fmt: skip


def _head_sizes(unit: Trial, model: nn.Module, base: object, given: int | None) -> dict[str, int]:
    """The base's head size: what was given, or what both models say. sp does not ask, and has plans as ever."""
    if given is not None:
        return {EVERY: unit.base_head_size}
    if not scales_width(unit.scheme):
        return {EVERY: 1}
    model = unwrapped(model)
    return base_head_sizes(model, unwrapped(built_base(base, model, "base")))


def _tensor_plan(unit: Trial, tensor: Derived, density: float | None, optimizer: OptimizerRule) -> TensorPlan:
    """`density` is None for a tensor that is dense in the base model too."""
    numel = math.prod(tensor.shape)
    nonzeros = numel
    m_rho = 1.0
    if density is not None:
        nonzeros = kept_count(numel, density)
        m_rho = nonzeros / numel / unit.base_density
    eps = 1.0
    if optimizer == "adam":
        eps = eps_multiplier(unit.scheme, tensor.kind, m_d=tensor.m_d, m_out=tensor.m_out)
    n = kind_numbers(unit, tensor.kind, m_d=tensor.m_d, m_rho=m_rho, m_out=tensor.m_out, optimizer=optimizer)
    readout = None
    if tensor.readouts:
        readout = kind_numbers(unit, "readout", m_d=tensor.m_d, m_rho=1.0).forward
    nonzero_fan_in = None
    if tensor.fan_in is not None:
        nonzero_fan_in = tensor.fan_in * nonzeros / numel
    init_std = n.init_std
    if tensor.beginning.zero:
        init_std = 0.0
    return TensorPlan(
        tied=tensor.names[1:],
        readouts=tensor.readouts,
        shape=tensor.shape,
        kind=tensor.kind,
        fan_in=tensor.fan_in,
        nonzero_fan_in=nonzero_fan_in,
        nonzeros=nonzeros,
        density=nonzeros / numel,
        m_d=tensor.m_d,
        m_rho=m_rho,
        init_mean=tensor.beginning.mean,
        init_std=init_std,
        lr=n.lr,
        weight_decay=n.weight_decay,
        eps=eps,
        forward=n.forward,
        readout_forward=readout,
    )


def _depth(derived: Mapping[str, Derived], depth: int | None) -> int:
    writers = sum(tensor.kind == "residual_out" for tensor in derived.values())
    if depth is None and writers % 2:
        raise ValueError(
            f"{writers} tensors are residual_out, from which no number of blocks with two each follows; give depth=..."
        )
    if depth is not None:
        return depth
    return max(1, writers // 2)


def _patterns(given: str | Iterable[str], word: str) -> list[str]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Iterable):
        raise ValueError(f"{word} is {given!r}; it must be a pattern or a list of patterns, as in ['*.mlp.*'].")
    return [_pattern(each, word) for each in given]


def _pattern(given: object, word: str) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{word} has {given!r}; patterns are text, as in '*.mlp.*'.")
    return given


def _densities(
    model: nn.Module,
    derived: Mapping[str, Derived],
    density: float | Mapping[str, float],
    include: list[str],
    exclude: list[str],
) -> dict[str, float]:
    """Density by name, of every tensor that is made sparse; raises ValueError where it leaves one without inputs."""
    result = _chosen(model, derived, density, include, exclude)
    lacking = _lacking(result, derived, exclude)
    if lacking.told:
        raise ValueError(f"{lacking.told}\n{PASTE}{', '.join(lacking.words)}")
    by_pattern = density if isinstance(density, Mapping) else {"*": density}
    if not result and any(value < 1 for value in by_pattern.values()):
        hidden = [name for name, tensor in derived.items() if tensor.kind in SPARSE]
        raise ValueError(
            f"density is {density!r}, and no hidden matrix is made sparse by it: there are {len(hidden)}, less what "
            f"include={include} leaves out and exclude={exclude} takes away. Give density 1, or other patterns."
        )
    return result


def _chosen(
    model: nn.Module,
    derived: Mapping[str, Derived],
    density: float | Mapping[str, float],
    include: list[str],
    exclude: list[str],
) -> dict[str, float]:
    """Density by name, of every tensor that patterns make sparse.

    Routers and convolutions whose groups grow stay dense unless a pattern other than "*" is for them: pruned like the
    other matrices, an expert would lose most of what it is chosen by, and a channel its few weights.
    """
    uses = plain_uses(model)
    hidden = [name for name, tensor in derived.items() if tensor.kind in SPARSE]

    def chosen(patterns: Mapping[str, float] | list[str], word: str) -> dict[str, float | None]:
        for pattern in patterns:
            matched = values_by_pattern([pattern], uses, word)
            if not matched.keys() & set(hidden) and pattern != "*":
                reason = _why_dense(matched, derived)
                raise ValueError(f"{word} has {pattern!r}, which matches no hidden matrix; {reason}.")
        return values_by_pattern(patterns, uses, word)

    by_pattern = density if isinstance(density, Mapping) else {"*": density}
    for pattern, given in by_pattern.items():
        _pattern(pattern, "density")
        try:
            Trial(steps=1, density=given)
        except ValueError as error:
            of_pattern = f" (density of {pattern!r})" if isinstance(density, Mapping) else ""
            raise ValueError(f"{error}{of_pattern}") from None
    values = chosen(by_pattern, "density")
    included = chosen(include, "include")
    excluded = chosen(exclude, "exclude")
    named = values_by_pattern([pattern for pattern in (*by_pattern, *include) if pattern != "*"], uses, "density")
    result = {}
    for name in hidden:
        value = values.get(name)
        left_dense = derived[name].dense and name not in named
        if value is not None and name in included and name not in excluded and not left_dense:
            result[name] = float(value)
    return result


def _why_dense(matched: Iterable[str], derived: Mapping[str, Derived]) -> str:
    """Why what a pattern matches has no density."""
    name = next(iter(matched))
    if name not in derived:
        return f"{name} does not train (requires_grad is False), and is left as it is"
    return f"{name} is of kind {derived[name].kind}, which stays dense"


def _lacking(densities: Mapping[str, float], derived: Mapping[str, Derived], exclude: list[str]) -> Besides:
    """What is wrong with densities that leave neurons without any input, and the exclude= that ends it."""
    lacking = {}
    for name, value in densities.items():
        fan_in = derived[name].fan_in
        assert fan_in is not None
        if fan_in * value < 1:
            lacking[name] = fan_in
    if not lacking:
        return Besides()
    name = min(lacking, key=lambda each: lacking[each])
    more = f" (and of {len(lacking) - 1} more)" if len(lacking) > 1 else ""
    every = [each for tensor in derived.values() for each in tensor.names]
    left_out = f"exclude={[*exclude, *name_patterns(lacking, every)]!r}"
    return Besides(
        f"density {densities[name]:g} leaves neurons of {name}{more} without inputs: its fan-in is {lacking[name]}. "
        f"Give it at least {1 / lacking[name]:g}, by density={{pattern: ...}}, or leave it out by {left_out}.",
        (left_out,),
    )


def _warnings(tensors: Mapping[str, TensorPlan]) -> tuple[str, ...]:
    few = {}
    for name, tensor in tensors.items():
        inputs = tensor.nonzero_fan_in
        if tensor.density < 1 and inputs is not None and inputs < FEW_INPUTS:
            few[name] = tensor
    if not few:
        return ()
    least = min(few, key=lambda name: few[name].nonzero_fan_in or 0.0)
    tensor = few[least]
    assert tensor.fan_in is not None
    empty = (1 - tensor.density) ** tensor.fan_in
    number = "1 tensor" if len(few) == 1 else f"{len(few)} tensors"
    return (
        f"{number} with fewer than {FEW_INPUTS} nonzeros per neuron, "
        f"{tensor.nonzero_fan_in:.3g} in {least}, where {empty:.1%} of the neurons have no input at all: the rules "
        "average over inputs, and may not hold.",
    )


def _masked_twice(model: nn.Module, tensors: Mapping[str, TensorPlan]) -> tuple[str, ...]:
    """Hidden matrices beside which their module keeps what looks like a mask of its own."""
    found = {name: mask for name, mask in own_masks(model).items() if name in tensors and tensors[name].kind in SPARSE}
    if not found:
        return ()
    name, (mask, ones) = next(iter(found.items()))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"{mask}{more} holds zeros and ones, {ones:.3g} of them ones, in the shape of {name}: if forward multiplies by "
        f"it, the weight in use has neither the density {tensors[name].density:.3g} nor the multipliers of the plan. "
        "Build the module without it: init_ and attach draw and hold the masks.",
    )


def _departing(derived: Mapping[str, Derived], masked: Iterable[str]) -> tuple[str, ...]:
    """Hidden matrices whose layer computes something else than W x + b."""
    groups: dict[str, list[str]] = {}
    for name, tensor in derived.items():
        if tensor.departs and name not in masked:
            groups.setdefault(tensor.departs, []).append(name)
    told = []
    for departs, names in groups.items():
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        kept_as_built = dict.fromkeys(name_patterns(names, derived), "keep")
        told.append(
            f"the layer of {names[0]}{more} {departs}: init_std and lr of the plan are right for y = W x + b, times a "
            "factor that is the same at every width. Let its forward compute that; or leave its values as they are "
            f"built, with lr x 1 and no decay, by kinds={kept_as_built!r}."
        )
    return tuple(told)


def _overwritten(derived: Mapping[str, Derived]) -> tuple[str, ...]:
    """What `init_` replaces that the model was built with."""
    found = {name: tensor.beginning.overwritten for name, tensor in derived.items() if tensor.beginning.overwritten}
    if not found:
        return ()
    more = f", and so for {len(found) - 1} more tensors" if len(found) > 1 else ""
    left = list(name_patterns(found, derived))
    return (f"{next(iter(found.values()))}{more}; leave their values by init_(..., leave={left!r}).",)
