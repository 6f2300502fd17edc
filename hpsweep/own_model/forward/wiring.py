"""Forward multipliers and attention scales put in force on a module, and verified by what `probe` then reads.

In turn: what is right already stays; a setting of the model's configuration, where it has one; a number that the
attention keeps as an attribute; a hook on the layer. Whatever does not read as the rules ask for afterwards is undone,
and the next way tried; if none is left nothing is changed, and the error names the place and the remedy.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.complaint import wiring_text
from hpsweep.own_model.forward.ends import layers_behind_readouts
from hpsweep.own_model.forward.probe import BOUNDED, readings_of, within
from hpsweep.own_model.forward.queries import query_layers_of
from hpsweep.own_model.forward.reading import NO_SOFTMAX, UNUSED, Reading
from hpsweep.own_model.forward.record import Queries, own_factor, times_first
from hpsweep.own_model.tensors.finite import check_finite
from hpsweep.own_model.tensors.layers import is_layer
from hpsweep.own_model.tensors.parameters import parameters
from hpsweep.own_model.tensors.uses import tensor_uses, unwrapped
from hpsweep.schemes import scales_width

CONFIGURATION = {
    "embedding": {"embedding_multiplier": 1},
    "attention": {"attention_multiplier": 1},
    "readout": {"logits_scaling": -1, "logit_scale": 1, "lm_head_multiplier": 1},
}
"""Settings of transformers' configurations (Granite, Cohere, Falcon) by what they multiply (1) or divide (-1)."""

Undo = Callable[[], None]
State = dict[tuple[int, str], Any]
"""(id of a module, what) -> the number there on which a factor may depend."""

_wired: weakref.WeakKeyDictionary[nn.Module, tuple[str, State]] = weakref.WeakKeyDictionary()


class Wired(NamedTuple):
    """One factor: what the rules ask for, what the model had, what was read afterwards, and how it came to be.

    `before` and `after` are None where nothing could be read, in what was left as it is.
    """

    name: str
    kind: str
    expected: float
    before: float | None
    after: float | None
    how: str


@dataclass(frozen=True)
class Wiring:
    """What `Plan.wire_` found and did, a row per factor."""

    rows: tuple[Wired, ...]

    def __str__(self) -> str:
        """A table with one line per factor."""
        rows: list[tuple[str, ...]] = [Wired._fields]
        for row in self.rows:
            rows.append((row.name, row.kind, _cell(row.expected), _cell(row.before), _cell(row.after), row.how))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for cells in rows:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain data: one dictionary per factor."""
        return [row._asdict() for row in self.rows]


def wire_(
    plan: PlanData,
    model: nn.Module,
    inputs: Any,
    *,
    queries: str | Iterable[str] | Mapping[str, slice] = (),
    leave: str | Iterable[str] = (),
) -> Wiring:
    """See Plan.wire_.

    1. Read every factor, as the model comes.
    2. Set the wrong ones, in each way that there is in turn, and read again: a change stays where its factor is right.
    3. Read all once more; where one is wrong still, undo what was done, and say what and why.
    4. Remember on what the factors may depend, for `check_wired`.
    """
    parameters(plan, model)  # raises for another model
    check_finite(model)
    _wired.pop(unwrapped(model), None)
    named = _queries(model, queries)
    # 1. Read
    first = readings_of(plan, model, inputs, named)
    left = _left(first, leave)
    done = {reading.name: "as it was" for reading in first if reading.right}
    done |= {reading.name: _NEEDLESS.get(reading.why, _UNASKED) for reading in first if reading.needless}
    # 2. Set, way by way
    latest = {reading.name: reading for reading in first}
    undos: list[Undo] = []
    for way in (_by_configuration, _by_attribute, _by_hook):
        pending = [reading for reading in latest.values() if _is_wrong(reading, left) and _is_number_read(reading)]
        changes = {}
        for reading in pending:
            change = way(model, reading, named)
            if change is not None:
                changes[reading.name] = change
        if not changes:
            continue
        latest = {reading.name: reading for reading in readings_of(plan, model, inputs, named)}
        for name, (how, undo) in reversed(changes.items()):
            if latest[name].right:
                done[name] = how
                undos.append(undo)
            else:
                undo()
    # 3. Verify, or undo all
    latest = {reading.name: reading for reading in readings_of(plan, model, inputs, named)}
    wrong = [reading for reading in latest.values() if _is_wrong(reading, left)]
    if wrong:
        for undo in reversed(undos):
            undo()
        unread = [reading.name for reading in wrong if reading.kind == "readout" and reading.factor is None]
        behind = layers_behind_readouts(plan, model, inputs, unread)
        asked = [reading.name for reading in wrong if reading.kind == "attention" and reading.why != BOUNDED]
        query_layers = query_layers_of(plan, model, inputs, asked)
        raise ValueError(wiring_text(wrong, [*latest], model, named, behind, query_layers))
    # 4. Remember
    _wired[unwrapped(model)] = (plan.hash, _state(model))
    rows = []
    for r in first:
        how = done.get(r.name, "left as it is")
        rows.append(Wired(r.name, r.kind, r.expected, r.factor, latest[r.name].factor, how))
    return Wiring(tuple(rows))


def _is_number_read(reading: Reading) -> bool:
    return reading.factor is not None and not math.isnan(reading.factor)


def _is_wrong(reading: Reading, left: Collection[str]) -> bool:
    return not (reading.right or reading.needless or reading.name in left)


_UNASKED = "not read, and not to be multiplied"
_NEEDLESS = {UNUSED: "not used", NO_SOFTMAX: "no softmax in it, and no attention factor"}


def check_wired(plan: PlanData, model: nn.Module) -> None:
    """Raise ValueError unless `wire_` has verified this module under this plan, if its scheme asks for that."""
    if not scales_width(plan.scheme):
        return
    found = _wired.get(unwrapped(model))
    if found is None:
        raise ValueError(
            "the forward multipliers and attention scales of this model were not verified: call plan.wire_(model, "
            "inputs) before, also after a model was loaded or copied."
        )
    wired, then = found
    if wired != plan.hash:
        raise ValueError(
            f"the model was wired under plan {wired}, this is {plan.hash}: call plan.wire_(model, inputs)."
        )
    now = _state(model)
    watched = [*then, *(key for key in now if key[1] == _HOOKS)]  # modules may have got other numbers since
    if changed := next((key for key in watched if then.get(key) != now.get(key)), None):
        names = {id(module): name for name, module in unwrapped(model).named_modules()}
        raise ValueError(
            f"{changed[1]} of {names.get(changed[0], 'a module that is gone')} was {then.get(changed)} when the model "
            f"was wired, and is {now.get(changed)}: call plan.wire_(model, inputs) again."
        )


def multiplied(model: nn.Module) -> dict[str, tuple[nn.Module, float]]:
    """The modules with hooks that multiply, by name, and their factors."""
    modules = {name: (module, own_factor(module)) for name, module in unwrapped(model).named_modules()}
    return {name: found for name, found in modules.items() if found[1] != 1.0}


def check_multiplied(multiplied: Mapping[str, tuple[nn.Module, float]]) -> None:
    """Raise ValueError unless every hook that multiplied is still there."""
    for name, (module, factor) in multiplied.items():
        now = own_factor(module)
        if now != factor:
            raise ValueError(
                f"the hooks of {name} multiplied by {factor:g} when the model was attached, and multiply by {now:g}: "
                "something has removed them. Call plan.wire_(model, inputs) again, and attach."
            )


def _state(model: nn.Module) -> State:
    """The factors of hooks, the numbers that modules keep, and those of the configuration."""
    state: State = {}
    for module in unwrapped(model).modules():
        factor = own_factor(module)
        if factor != 1.0:
            state[id(module), _HOOKS] = factor
        if isinstance(module, _DROPOUT):
            continue
        for key, value in vars(module).items():
            if isinstance(value, float):
                state[id(module), key] = value
    config = getattr(unwrapped(model), "config", None)
    for settings in CONFIGURATION.values():
        for key in settings:
            if hasattr(config, key):
                state[id(unwrapped(model)), f"config.{key}"] = getattr(config, key)
    return state


_HOOKS = "the factor of hooks"
_DROPOUT = nn.modules.dropout._DropoutNd


def _queries(model: nn.Module, given: str | Iterable[str] | Mapping[str, slice]) -> Queries:
    """The modules that a pattern matches, by name."""
    if isinstance(given, Mapping):
        table = dict(given)
        _patterns(table, "queries")
    else:
        table = dict.fromkeys(_patterns(given, "queries"), slice(None))
    result: dict[str, slice] = {}
    for pattern, features in table.items():
        found = [name for name, _ in unwrapped(model).named_modules() if name and fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(f"queries has {pattern!r}, which matches no module of the model.")
        if not isinstance(features, slice):
            raise ValueError(
                f"queries has {pattern!r}: {features!r}; give a slice of the layer's outputs: slice(0, 64)."
            )
        result |= dict.fromkeys(found, features)
    return result


def _left(readings: Sequence[Reading], leave: str | Iterable[str]) -> set[str]:
    """The names that a pattern says to leave as they are."""
    left: set[str] = set()
    for pattern in _patterns(leave, "leave"):
        found = {reading.name for reading in readings if fnmatchcase(reading.name, pattern)}
        if not found:
            names = ", ".join(reading.name for reading in readings)
            raise ValueError(f"leave has {pattern!r}, which matches none of the factors; there are {names}.")
        left |= found
    return left


def _patterns(given: object, word: str) -> list[str]:
    """One pattern, or several."""
    if isinstance(given, str):
        return [given]
    several: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    no_texts = [pattern for pattern in several if not isinstance(pattern, str)]
    if no_texts:
        raise ValueError(
            f"{word} has {no_texts[0]!r}; give a pattern of names such as '*.self_attn', or a list of them."
        )
    return several


# --- the ways to set a factor; each gives how, and what undoes it, or None where it does not apply ---


def _by_configuration(model: nn.Module, reading: Reading, queries: Queries) -> tuple[str, Undo] | None:
    """A setting of the model's configuration, which save_pretrained keeps; modules that copied it are told too."""
    config = getattr(unwrapped(model), "config", None)
    assert reading.factor is not None
    for key, power in CONFIGURATION[reading.kind].items():
        old = getattr(config, key, None)
        if not isinstance(old, int | float):
            continue
        keys = [key]
        modules = dict(unwrapped(model).named_modules())
        if reading.kind == "attention":  # one setting, and every layer has its own copy
            keys = [key, "scaling"]
            old = reading.factor
            new = reading.expected
        elif math.isclose(old, reading.factor**power, rel_tol=reading.tolerance):  # the setting is the factor
            new = reading.expected**power
        else:
            new = old * (reading.expected / reading.factor) ** power
        changed = copy.deepcopy(config)  # it is the caller's, who may build other models from it
        setattr(changed, key, new)
        places = [(module, "config", changed) for module in modules.values() if vars(module).get("config") is config]
        for name, module in modules.items():
            if reading.kind != "attention" or within(reading.name, name):
                places += [(module, k, new) for k in keys if _is_number(vars(module).get(k), old)]
        return f"config.{key} = {new:.6g}", _set(places)
    return None


def _by_attribute(model: nn.Module, reading: Reading, queries: Queries) -> tuple[str, Undo] | None:
    """The one number that the attention, or a module around it, keeps and that is its scale, or divides by it."""
    if reading.kind != "attention" or reading.why:
        return None
    assert reading.factor is not None
    parts = reading.name.split(".")
    for outer in (".".join(parts[:n]) for n in range(len(parts), 0, -1)):
        module = unwrapped(model).get_submodule(outer)
        for power in (1, -1):
            old = reading.factor**power
            found = [key for key, value in vars(module).items() if _is_number(value, old, reading.tolerance)]
            if len(found) == 1:
                new = reading.expected**power
                return f"{outer}.{found[0]} = {new:.6g}", _set([(module, found[0], new)])
    return None


def _is_number(value: object, expected: float, tolerance: float = 1e-4) -> bool:
    return isinstance(value, float) and math.isclose(value, expected, rel_tol=tolerance)


def _set(places: Sequence[tuple[Any, str, Any]]) -> Undo:
    """Set every attribute to its value; gives what sets the old values again."""
    before = [(place, key, getattr(place, key)) for place, key, _ in places]
    for place, key, value in places:
        setattr(place, key, value)

    def undo() -> None:
        for place, key, old in before:
            setattr(place, key, old)

    return undo


def _by_hook(model: nn.Module, reading: Reading, queries: Queries) -> tuple[str, Undo] | None:
    """A hook on the layer: what an embedding looks up, what a linear layer is given, what a query layer returns."""
    hook_type: type[_MultipliedOutput | _MultipliedInput] = _MultipliedOutput
    if reading.kind == "attention":
        inside = [name for name in queries if within(reading.name, name)]
        if reading.why or len(inside) != 1:
            return None
        name = inside[0]
        features = queries[name]
        module = unwrapped(model).get_submodule(name)
    else:
        use = next(use for places in tensor_uses(model) for use in places if use.name == reading.name)
        if not (isinstance(use.module, nn.Embedding) or is_layer(use.module)):
            return None
        name = reading.name.rpartition(".")[0]
        features = slice(None)
        module = use.module
        if not isinstance(module, nn.Embedding):  # at the input, so that a bias keeps its size
            hook_type = _MultipliedInput
    assert reading.factor is not None
    there = own_factor(module)
    before = reading.factor
    if math.isclose(before, there, rel_tol=reading.tolerance):  # then that of the hooks is exact
        before = there
    ratio = reading.expected / before
    undo = _put_hook(module, hook_type(ratio, features))
    return f"{hook_type.what} of {name} x {there * ratio:.6g}", undo


def _put_hook(module: nn.Module, hook: _MultipliedOutput | _MultipliedInput) -> Undo:
    """Put a hook on a module, in the place of one that is there; gives what restores that."""
    hooks: dict[int, Any] = module._forward_pre_hooks if isinstance(hook, _MultipliedInput) else module._forward_hooks
    for key, other in hooks.items():
        if type(other) is type(hook) and other.features == hook.features:
            hook.hpsweep_factor *= other.hpsweep_factor
            hooks[key] = hook

            def restore(key: int = key, other: Any = other) -> None:
                hooks[key] = other

            return restore
    if isinstance(hook, _MultipliedInput):
        return module.register_forward_pre_hook(hook, with_kwargs=True).remove
    return module.register_forward_hook(hook).remove


class _MultipliedOutput:
    """A forward hook that multiplies the module's output, or some of its features."""

    what = "output"

    def __init__(self, factor: float, features: slice = slice(None)) -> None:
        self.hpsweep_factor = factor
        self.features = features

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if self.features == slice(None):
            return output * self.hpsweep_factor
        output = output.clone()
        output[..., self.features] *= self.hpsweep_factor
        return output


class _MultipliedInput:
    """A forward pre-hook that multiplies the module's input, so that its bias keeps its size."""

    what = "input"

    def __init__(self, factor: float, features: slice = slice(None)) -> None:
        self.hpsweep_factor = factor
        self.features = features

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return times_first(args, kwargs, self.hpsweep_factor)


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.6g}"
