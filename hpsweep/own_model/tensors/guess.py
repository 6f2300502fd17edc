"""What the module, the name and the widths of one tensor say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from hpsweep.own_model.tensors.forwards import Forwards
from hpsweep.own_model.tensors.roles import Axes, groups_grow, role_of, summed_axes, summed_axis_of
from hpsweep.own_model.tensors.summed import Split, split_width
from hpsweep.own_model.tensors.uses import Use, parameter_of


class Guess(NamedTuple):
    """What modules and widths say of one tensor."""

    kinds: frozenset[str]  # of its uses; see `roles.role_of`
    readouts: tuple[str, ...]  # the names of its uses as a readout
    axis: Axes | None  # of the fan-in
    groups: float | None  # of a convolution whose groups grow, their number over the base's
    even: bool  # whether all of its widths grow by the same factor
    split: Split | None  # see `summed.split_width`
    beside: bool  # whether it is a bare tensor of a layer, beside that layer's own weight
    assumed: bool  # whether `axis` is only what it would sum over as a readout
    traced: Axes | None  # what it sums over where its module's forward is tried; asked of bare matrices only

    @classmethod
    def of(
        cls,
        places: tuple[Use, ...],
        theirs: Sequence[Mapping[str, Use]],
        widths: list[int],
        given_axis: Axes | None,
        forwards: Forwards,
    ) -> Guess:
        """That of one tensor; `theirs` are the uses in base and delta, by name."""
        shape = tuple(parameter_of(places[0]).shape)
        if given_axis is not None and not all(0 <= axis < len(shape) for axis in summed_axes(places[0], given_axis)):
            raise ValueError(
                f"fan_in_axis of {places[0].name!r} is {given_axis}; its shape is {shape}: give an axis from 0 to "
                f"{len(shape) - 1}."
            )
        others = {use.name: [of[use.name] for of in theirs] for use in places}
        axes: list[Axes | None] = [given_axis for _ in places]
        if given_axis is None:
            axes = []
            for use in places:
                shown = [forwards.axis(place) for place in (use, *others[use.name])]
                seen = next((axis for axis in shown if axis is not None), None)
                axes.append(summed_axis_of(use, others[use.name], seen))
        kinds = [
            role_of(use, others[use.name], axis, widths, given_axis=given_axis is not None)
            for use, axis in zip(places, axes, strict=True)
        ]
        readouts = tuple(use.name for use, kind in zip(places, kinds, strict=True) if kind == "readout")
        known: set[Axes] = {axis for axis in axes if axis is not None}
        is_unknown_matrix = not known and len(shape) > 1
        traced = None
        if is_unknown_matrix and widths:
            traced = forwards.traced(places[0])
        assumed = is_unknown_matrix and len(widths) == 1
        if assumed:
            assumed = "router" not in kinds  # a router is known by its name to sum over the width
            known = {widths[0]}  # all that a readout could sum over
        axis = None
        if len(known) == 1:
            axis = known.pop()
        bases = [tuple(parameter_of(use).shape) for use in others[places[0].name]]
        even = all(len({shape[i] / base[i] for i in widths}) < 2 for base in bases)
        grown = groups_grow(places[0], others[places[0].name])
        layer = isinstance(places[0].module, nn.Linear | nn.Conv1d | nn.Conv2d)
        beside = layer and places[0].local not in ("weight", "bias")
        heads = split_width([shape, *bases], widths)
        return cls(frozenset(kinds), readouts, axis, grown, even, heads, beside, assumed, traced)
