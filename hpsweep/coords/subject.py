"""What a coordinate check measures: a model at its beginning that can be looked at and trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Activation(NamedTuple):
    """What a module gave on the batch, and its number of features; of attention logits that is the head size."""

    values: Tensor
    features: int


class Subject(NamedTuple):
    """`activations` runs the model on its batch, in the order of the forward pass; `own` gives, for modules with
    weights, how much these have changed what the module makes of its first inputs; `step` is one optimizer step.
    """

    activations: Callable[[], dict[str, Activation]]
    own: Callable[[], dict[str, Tensor]]
    step: Callable[[], None]
