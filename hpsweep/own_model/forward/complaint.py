"""What `wire_` says of factors that it could not read or set: which, why, and lines that can be pasted."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from torch import nn

from hpsweep.own_model.forward.probe import UNSCALED, UNSEEN_BEFORE, is_inside
from hpsweep.own_model.forward.reading import FactorReading
from hpsweep.own_model.forward.record import Queries
from hpsweep.own_model.tensors.patterns import name_patterns
from hpsweep.own_model.tensors.uses import unwrapped


def wiring_text(
    wrong: Sequence[FactorReading],
    names: Sequence[str],
    model: nn.Module,
    queries: Queries,
    inner: Mapping[str, str],
    found: Mapping[str, str],
) -> str:
    """One line for all factors of which the same is to be said, and what ends the error.

    `inner` are planned readouts, and the layer that each one's output goes into; `found` are attentions, and the layer
    that returns the queries of each.
    """
    modules = dict(unwrapped(model).named_modules())
    groups: dict[tuple[str, str, str], list[str]] = {}
    for reading in wrong:
        expected = "" if math.isnan(reading.expected) else f", which has to be {reading.expected:.6g}"
        why = _why(reading, modules, names, queries, inner, found)
        groups.setdefault((reading.kind, expected, why), []).append(reading.name)
    lines = []
    for (kind, expected, why), members in groups.items():
        line = f"  the {kind} factor of {members[0] or 'the model itself'}{expected}: {why}"
        if len(members) > 1:
            line += f" ({len(members)} in all: {', '.join(name_patterns(members, names))})"
        lines.append(line)
    # the remedies, each put before those that it makes needless
    remedies = ""
    leave = list(name_patterns([reading.name for reading in wrong if reading.name not in inner], names))
    if leave:
        itself = ", where '' is the model itself" if "" in leave else ""
        remedies = f"Set them in the model's own code, or leave them as they are by leave={leave!r}{itself}."
    if inner:
        kinds = dict.fromkeys(name_patterns(inner, names), "hidden")
        remedies = f"Make the plan anew with kinds={kinds!r}, and call its init_. {remedies}".strip()
    layers = list(name_patterns(_query_layers(wrong, queries, found), modules))
    if layers:
        remedies = f"Name the layers that return the queries, which are multiplied then: queries={layers!r}. {remedies}"
    return "\n".join(
        ["these factors of the forward pass are not as the rules ask, or cannot be read:", *lines, remedies]
    )


def _why(
    reading: FactorReading,
    modules: dict[str, nn.Module],
    names: Sequence[str],
    queries: Queries,
    inner: Mapping[str, str],
    found: Mapping[str, str],
) -> str:
    """Why a factor is wrong, with what can be done about this one alone."""
    is_attention = reading.kind == "attention"
    inside = [name for name in queries if is_inside(reading.name, name)]
    if is_attention and len(inside) > 1:
        return f"queries= names {len(inside)} layers in it, {_last(inside)}: name the one that returns the queries"
    if reading.name in inner:
        return f"the model does not return its output, which goes into {inner[reading.name]}: it lies within"
    layers = _layers(reading.name, modules, names) if is_attention else []
    if is_attention and not layers and not inside and reading.why in ("", UNSCALED) and reading.factor is not None:
        if reading.why:
            return (
                f"{UNSEEN_BEFORE}; no layer returns the queries: multiply the logits, by {reading.expected:.6g} in all"
            )
        instead = f"let its code multiply by {reading.expected:.6g} in place of {reading.factor:.6g}"
        return f"{reading.factor:.6g} is there, and no layer in it returns its queries: {instead}"
    layer = found.get(reading.name, "NAME")
    like = f"*.{layer.rpartition('.')[2]}" if "." in layer else layer
    if inside and layer not in ("NAME", *inside):
        return f"the layer that returns its queries is not {_last(inside)}, but {_last([layer])}: queries={like!r}"
    if reading.why:
        return reading.why
    there = f"{reading.factor:.6g} is there, and could not be changed"
    if not is_attention:
        return there
    if isinstance(modules[reading.name], nn.MultiheadAttention):
        alike = "with heads of one size at every width, and alpha_attention 1, leave it"
        return f"{there}: nn.MultiheadAttention has no setting for it; {alike}"
    if inside:
        return f"{there}: its queries are no multiple of what {inside[0]} returns"
    return (
        f"{there}; name the layer that returns the queries, which are multiplied then, by queries={like!r}, or "
        f"queries={{{like!r}: slice(0, width)}} of one that returns more; its layers are {_last(layers)}. Where no "
        f"layer returns them, let its code multiply by {reading.expected:.6g} in place of {reading.factor:.6g}"
    )


def _query_layers(wrong: Sequence[FactorReading], queries: Queries, found: Mapping[str, str]) -> list[str]:
    """The layers that return the queries of attentions that a number there would set, and were not named before."""
    layers = []
    for reading in wrong:
        layer = found.get(reading.name)
        can_be_set = reading.why in ("", UNSCALED) or _named(reading.name, queries)
        if layer is not None and can_be_set and layer not in queries:
            layers.append(layer)
    return layers


def _named(name: str, queries: Queries) -> bool:
    """Whether a layer of the attention was named."""
    return any(is_inside(name, layer) for layer in queries)


def _layers(name: str, modules: dict[str, nn.Module], names: Sequence[str]) -> list[str]:
    """The modules with matrices in a module, but for embeddings and readouts, which are among `names`, the factors."""
    found = []
    for part, module in modules.items():
        matrices = [f"{part}.{local}" for local, p in module.named_parameters(recurse=False) if p.dim() > 1]
        if part != name and is_inside(name, part) and matrices and not set(matrices) & set(names):
            found.append(part)
    return found


def _last(names: Collection[str]) -> str:
    """The last parts of the names, in one line."""
    return ", ".join(name.rpartition(".")[2] for name in names) or "none"
